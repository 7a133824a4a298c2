//! A plan as `supervisor plan` shows it: an order in which the tasks can be done.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use supervisor_core::plan::{Plan, PlannedTask, RepoIx, RepoSpec, TaskIx, TaskSpec};
use supervisor_core::touches::any_overlap;

use super::work::{RepoWork, task_branch};

/// Most pairs of tasks that are named.
const PAIRS_MAX: usize = 1_000;
/// Most pairs of tasks that are looked at (a second for a file whose tasks all name globs).
const LOOKS_MAX: usize = 500_000;
/// What stands for the batch's id in the name of a branch.
const BATCH: &str = "{{ batch.id }}";

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
    /// The repositories in which tasks have worktrees.
    pub repos: Vec<PlannedRepo>,
    /// Pairs of tasks that never run together, because both may touch the same files.
    pub apart: Apart,
}

/// One repository of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRepo {
    /// Its name; `.` where the file has only one.
    pub name: String,
    /// Its working folder.
    pub path: String,
    /// The commit that the batch starts from.
    pub base: String,
    /// The branch that this is, where it is one.
    pub branch: Option<String>,
    /// The branch that takes the merges, a template.
    pub into: String,
}

/// Pairs of tasks that never run together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apart {
    /// Ids, in the order of the file.
    pub pairs: Vec<(String, String)>,
    /// There are more than are named here, or may be.
    pub more: bool,
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
    /// The repository in which it has a worktree.
    pub repo: Option<String>,
    /// The branch of that worktree, a template.
    pub branch: Option<String>,
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
        repos: plan.repos.iter().filter_map(repo).collect(),
        apart: apart(plan),
    }
}

fn repo(spec: &RepoSpec) -> Option<PlannedRepo> {
    let work: RepoWork = serde_json::from_str(&spec.work).ok()?;
    Some(PlannedRepo {
        name: spec.name.to_string(),
        path: work.path.display().to_string(),
        base: work.base.to_string(),
        branch: work
            .watch
            .map(|name| name.trim_start_matches("refs/heads/").to_owned()),
        into: work.into,
    })
}

/// The pairs whose globs overlap; in different repositories the same glob names different files.
fn apart(plan: &Plan) -> Apart {
    let mut by_repo: BTreeMap<Option<RepoIx>, Vec<&PlannedTask>> = BTreeMap::new();
    for task in plan.tasks.iter().filter(|task| !task.touches.is_empty()) {
        let repo = spec_of(plan, task).and_then(|spec| spec.worktree);
        by_repo.entry(repo).or_default().push(task);
    }
    let mut apart = Apart::default();
    let mut looked = 0_usize;
    for tasks in by_repo.values() {
        for (at, first) in tasks.iter().enumerate() {
            for second in &tasks[at + 1..] {
                if looked == LOOKS_MAX || apart.pairs.len() == PAIRS_MAX {
                    apart.more = true;
                    return apart;
                }
                looked += 1;
                if any_overlap(&first.touches, &second.touches) {
                    let pair = (first.id.to_string(), second.id.to_string());
                    apart.pairs.push(pair);
                }
            }
        }
    }
    apart
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
        repo: spec
            .worktree
            .and_then(|repo| plan.repos.get(repo.0 as usize))
            .map(|repo| repo.name.to_string()),
        branch: spec.worktree.map(|_| task_branch(BATCH, &task.id)),
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
