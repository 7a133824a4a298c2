//! What an agent may know of the other tasks of its batch, and what it sends them.

use protocol::ids::{Generation, TaskId};
use protocol::report::{
    DEPENDS_ON_MAX, Send, TASK_SUMMARY_MAX, TASKS_MAX, TaskLine, Tasks, excerpt,
};
use protocol::rpc;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::input::Input;
use supervisor_core::plan::TaskIx;

use crate::driver::operator::Waiter;
use crate::driver::perform::refuse;
use crate::driver::run::Driver;

impl Driver<'_> {
    /// A host hands on a message of its agent.
    pub(super) fn host_sent(&mut self, generation: Generation, id: u64, send: Send) {
        if !self.is_of(generation, id, send.generation) {
            return;
        }
        let Some(facts) = self.core.facts() else {
            return;
        };
        let found = self.names.all(facts, std::slice::from_ref(&send.to));
        let Some(to) = found.ok().and_then(|found| found.first().copied()) else {
            let line = refuse(id, &format!("the batch has no task `{}`", send.to));
            return self.line(generation, line);
        };
        let reply = self.desk.enlist(Waiter::Host { generation, id });
        self.inputs.push_back(Input::HostSent {
            generation,
            to,
            text: send.text.into(),
            reply,
        });
    }

    /// A host wants to know the batch's tasks. Only read, so nothing waits for a disk.
    pub(super) fn tasks_wanted(&mut self, generation: Generation, id: u64, named: Generation) {
        if !self.is_of(generation, id, named) {
            return;
        }
        let Some(facts) = self.core.facts() else {
            return;
        };
        let line = match facts.runs.get(&generation) {
            Some(run) => rpc::answer(id, list(facts, run.task)),
            None => refuse(id, "the run is over"),
        };
        self.line(generation, line);
    }
}

/// The tasks of the batch, for the agent of this one; at most [`TASKS_MAX`].
fn list(facts: &Facts, own: TaskIx) -> Tasks {
    let at = |ix: TaskIx| usize::try_from(ix.0).unwrap_or(usize::MAX);
    let mut order = vec![at(own)];
    if let Some(task) = facts.tasks.get(at(own)) {
        order.extend(task.depends_on.iter().map(|edge| at(edge.task)));
    }
    order.truncate(TASKS_MAX);
    let near = order.clone();
    let others = (0..facts.tasks.len()).filter(|ix| !near.contains(ix));
    let room = TASKS_MAX - order.len();
    order.extend(others.take(room));
    let tasks: Vec<TaskLine> = order
        .into_iter()
        .filter_map(|ix| Some(line(facts, facts.tasks.get(ix)?)))
        .collect();
    let left_out = facts.tasks.len().saturating_sub(tasks.len());
    Tasks {
        tasks,
        left_out: u32::try_from(left_out).unwrap_or(u32::MAX),
    }
}

fn line(facts: &Facts, task: &Task) -> TaskLine {
    let edges = task.depends_on.iter().take(DEPENDS_ON_MAX);
    let said = task.last.as_ref().map_or("", |last| {
        if last.summary.is_empty() {
            &last.detail
        } else {
            &last.summary
        }
    });
    TaskLine {
        id: task.id.clone(),
        state: task.state.to_string(),
        depends_on: edges.filter_map(|edge| task_id(facts, edge.task)).collect(),
        summary: excerpt(said, TASK_SUMMARY_MAX),
    }
}

/// The id of the task at this place of the plan.
pub(super) fn task_id(facts: &Facts, ix: TaskIx) -> Option<TaskId> {
    let task = facts.tasks.get(usize::try_from(ix.0).ok()?)?;
    Some(task.id.clone())
}

#[cfg(test)]
mod tests {
    use supervisor_core::plan::{AgentKind, Condition, Dependency};

    use super::*;
    use crate::driver::fixture;

    /// So many tasks, each after all the earlier ones, with long names and texts that JSON escapes.
    fn facts(count: u32) -> Facts {
        let nothing = serde_json::json!({});
        let core = fixture::core(AgentKind::Command, &nothing, &nothing);
        let mut facts = core.facts().unwrap().clone();
        let one = facts.tasks.remove(0);
        facts.tasks = (0..count)
            .map(|number| {
                let mut task = one.clone();
                task.id = format!("{number:x<64}").parse().unwrap();
                let edges = (0..number.min(100)).map(|before| Dependency {
                    task: TaskIx(before),
                    condition: Condition::Done,
                });
                task.depends_on = edges.collect();
                task.last = Some(Box::new(supervisor_core::facts::Outcome {
                    attempt: protocol::ids::AttemptNo(1),
                    class: None,
                    detail: "".into(),
                    summary: "\u{1}".repeat(4000).into(),
                    footprint: Default::default(),
                }));
                task
            })
            .collect();
        facts
    }

    fn numbers(tasks: &Tasks) -> Vec<usize> {
        let ids = tasks.tasks.iter().map(|task| task.id.as_str());
        ids.map(|id| id.trim_end_matches('x').parse().unwrap())
            .collect()
    }

    #[test]
    fn the_asking_task_comes_first_then_what_it_depends_on_then_the_others() {
        let tasks = list(&facts(6), TaskIx(3));
        assert_eq!(numbers(&tasks), [3, 0, 1, 2, 4, 5]);
        assert_eq!(tasks.left_out, 0);
        assert_eq!(tasks.tasks[0].depends_on.len(), 3);
    }

    #[test]
    fn the_worst_batch_fits_a_line() {
        let tasks = list(&facts(1000), TaskIx(999));
        assert_eq!(tasks.tasks.len(), TASKS_MAX);
        assert_eq!(tasks.left_out, 1000 - TASKS_MAX as u32);
        assert_eq!(tasks.tasks[0].depends_on.len(), DEPENDS_ON_MAX);
        rpc::answer(u64::MAX, tasks).expect("a line");
    }
}
