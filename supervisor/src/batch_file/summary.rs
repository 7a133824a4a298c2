//! A plan as `supervisor plan` shows it: an order in which the tasks can be done.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use supervisor_core::plan::{Plan, PlannedTask, TaskIx, TaskSpec};

/// A plan in numbers and in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The batch's name.
    pub name: String,
    /// Live attempts at most.
    pub concurrency: u32,
    /// The tasks in an order that keeps every dependency; among those that could start together the
    /// higher priority first, then the order of the file.
    pub tasks: Vec<PlannedLine>,
    /// Tasks on the longest chain of dependencies: how many must follow one another at least.
    pub levels: u32,
}

/// One task of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLine {
    /// Its position in the plan.
    pub task: TaskIx,
    /// Its id.
    pub id: String,
    /// 1 for a task without dependencies, else one more than the highest of its dependencies.
    pub level: u32,
    /// Its agent's name.
    pub agent: String,
    /// Attempts at most.
    pub attempts: u32,
    /// Whether verify commands prove it.
    pub verify: bool,
    /// Ids of its dependencies, in the order of the file.
    pub depends_on: Vec<String>,
    /// Its globs of files.
    pub touches: Vec<String>,
}

/// Puts the tasks of a plan in order.
pub fn summary(plan: &Plan) -> Summary {
    let order = Order::new(plan).take();
    let levels = order.iter().map(|(_, level)| *level).max().unwrap_or(0);
    let lines = order
        .into_iter()
        .filter_map(|(task, level)| line(plan, task, level));
    Summary {
        name: plan.settings.name.to_string(),
        concurrency: plan.settings.concurrency,
        tasks: lines.collect(),
        levels,
    }
}

fn spec_of<'p>(plan: &'p Plan, task: &PlannedTask) -> Option<&'p TaskSpec> {
    plan.specs.get(task.spec.0 as usize).map(AsRef::as_ref)
}

fn line(plan: &Plan, number: u32, level: u32) -> Option<PlannedLine> {
    let task = plan.tasks.get(number as usize)?;
    let spec = spec_of(plan, task)?;
    let agent = plan.agents.get(spec.agent.0 as usize)?;
    let ids = task
        .depends_on
        .iter()
        .filter_map(|edge| plan.tasks.get(edge.task.0 as usize));
    Some(PlannedLine {
        task: TaskIx(number),
        id: task.id.to_string(),
        level,
        agent: agent.name.to_string(),
        attempts: spec.attempts,
        verify: spec.verify,
        depends_on: ids.map(|task| task.id.to_string()).collect(),
        touches: task.touches.iter().map(ToString::to_string).collect(),
    })
}

/// Tasks taken one after another as their dependencies are taken.
struct Order<'p> {
    plan: &'p Plan,
    /// Dependencies not yet taken, by task.
    missing: Vec<usize>,
    /// Who waits for a task, by task.
    dependents: Vec<Vec<u32>>,
    levels: Vec<u32>,
    /// Tasks that could be taken: level first, so that the order reads as time passes.
    open: BinaryHeap<Reverse<(u32, Reverse<i32>, u32)>>,
}

impl<'p> Order<'p> {
    fn new(plan: &'p Plan) -> Self {
        let mut dependents = vec![Vec::new(); plan.tasks.len()];
        for (number, task) in (0u32..).zip(&plan.tasks) {
            for edge in &task.depends_on {
                if let Some(waiting) = dependents.get_mut(edge.task.0 as usize) {
                    waiting.push(number);
                }
            }
        }
        let missing: Vec<usize> = plan
            .tasks
            .iter()
            .map(|task| task.depends_on.len())
            .collect();
        let mut order = Self {
            plan,
            dependents,
            levels: vec![1; missing.len()],
            missing,
            open: BinaryHeap::new(),
        };
        for (number, _) in (0u32..).zip(&plan.tasks) {
            if order.missing[number as usize] == 0 {
                order.offer(number);
            }
        }
        order
    }

    fn offer(&mut self, number: u32) {
        let index = number as usize;
        let spec = self
            .plan
            .tasks
            .get(index)
            .and_then(|task| spec_of(self.plan, task));
        let priority = spec.map_or(0, |spec| spec.priority);
        self.open
            .push(Reverse((self.levels[index], Reverse(priority), number)));
    }

    fn take(mut self) -> Vec<(u32, u32)> {
        let mut order = Vec::with_capacity(self.missing.len());
        while let Some(Reverse((level, _, number))) = self.open.pop() {
            order.push((number, level));
            for dependent in std::mem::take(&mut self.dependents[number as usize]) {
                let index = dependent as usize;
                self.levels[index] = self.levels[index].max(level + 1);
                self.missing[index] -= 1;
                if self.missing[index] == 0 {
                    self.offer(dependent);
                }
            }
        }
        order
    }
}
