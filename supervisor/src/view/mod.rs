//! Read-only pictures of a batch for people and scripts: text and JSON made from facts, nothing
//! decided and nothing read from disk here.

pub mod asked;
pub mod delivery;
pub mod family;
pub mod forecast;
pub mod list;
pub mod plan;
pub mod processes;
pub mod reason;
pub mod report;
pub mod revision;
pub mod status;
pub mod status_text;
pub mod story;
pub mod time;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use protocol::ids::Generation;
use serde::Serialize;
use supervisor_core::facts::{Facts, Run, Task};
use supervisor_core::machine::{BatchState, TaskState};
use supervisor_core::plan::{AgentSpec, TaskIx, TaskSpec};
use supervisor_core::time::{Deadline, Wall};

use crate::control::wire::RunActivity;
use crate::store::StateDir;
use crate::view::delivery::Places;
use crate::view::time::LocalTime;

/// Whether a supervisor works on the batch, proven by the lock of its state dir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Presence {
    /// The supervisor, or the last one; absent before the first.
    pub pid: Option<u32>,
    /// It holds the lock now.
    pub alive: bool,
    /// It has not written anything yet: it waits for what an earlier one left, and what is shown is
    /// what that one wrote.
    pub recovering: bool,
}

/// The process that starts the supervisor again if it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Guard {
    /// The guardian, or the last one.
    pub pid: u32,
    /// It lives.
    pub alive: bool,
}

/// What became of a host that the journal holds as live while no supervisor works on the batch. A
/// host that is gone has no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFact {
    /// It lives under this pid, proven by its identity.
    Lives(u32),
    /// It belongs to another machine or pid namespace: unknown, not gone.
    Foreign,
}

/// A batch as one reader sees it at one moment.
#[derive(Debug)]
pub struct View<'a> {
    /// What the journal says.
    pub facts: &'a Facts,
    /// Who works on it.
    pub presence: Presence,
    /// Who starts that one again; `None` where the last one was started without a guardian.
    pub guard: Option<Guard>,
    /// Hosts that may live although no supervisor does; empty while there is one.
    pub hosts: BTreeMap<Generation, HostFact>,
    /// What live runs do now, as their supervisor says; empty when it did not answer.
    pub activity: BTreeMap<Generation, RunActivity>,
    /// The reader's time.
    pub time: LocalTime,
    /// The folder of the batch's files.
    pub dir: &'a str,
    /// The batch file, as the reader would name it.
    pub file: &'a str,
}

impl View<'_> {
    /// Where the batch is: what the journal says, except that no batch is shown as moving while
    /// nobody moves it.
    pub fn batch_state(&self) -> BatchState {
        match self.facts.batch.state {
            BatchState::Running | BatchState::Stopping if !self.presence.alive => {
                BatchState::Interrupted
            }
            state => state,
        }
    }

    /// Whether the journal says that the batch moves, but nobody moves it.
    pub fn is_cut_off(&self) -> bool {
        self.batch_state() != self.facts.batch.state
    }

    /// Where a task is: an attempt whose host is gone with its supervisor is not shown as live.
    pub fn task_state(&self, task: &Task) -> TaskState {
        if self.is_cut_off_task(task) {
            TaskState::Ready
        } else {
            task.state
        }
    }

    /// Whether the journal holds the task as live, but supervisor and host are gone.
    pub fn is_cut_off_task(&self, task: &Task) -> bool {
        let may_live =
            || (task.attempt.as_ref()).is_some_and(|open| self.hosts.contains_key(&open.run));
        task.state.is_live() && !self.presence.alive && !may_live()
    }

    /// A task by position.
    pub fn task(&self, ix: TaskIx) -> Option<&Task> {
        self.facts.tasks.get(ix.0 as usize)
    }

    /// The id of a task, or its position where the journal has none (never in a whole one).
    pub fn task_name(&self, ix: TaskIx) -> String {
        match self.task(ix) {
            Some(task) => task.id.to_string(),
            None => format!("#{}", ix.0),
        }
    }

    /// Where its worktrees are, and how its branches are called.
    pub fn places(&self) -> Places<'_> {
        Places::of(self.facts, &StateDir::at(self.dir))
    }

    /// The rules of a task.
    pub fn spec(&self, task: &Task) -> Option<&TaskSpec> {
        self.facts
            .specs
            .get(task.spec.0 as usize)
            .map(|spec| &**spec)
    }

    /// The agent of a task.
    pub fn agent(&self, task: &Task) -> Option<&AgentSpec> {
        let spec = self.spec(task)?;
        self.facts.agents.get(spec.agent.0 as usize)
    }

    /// The live or last run of a task's open attempt.
    pub fn run(&self, task: &Task) -> Option<(Generation, &Run)> {
        let generation = task.attempt.as_ref()?.run;
        Some((generation, self.facts.runs.get(&generation)?))
    }

    /// Attempts at most, as they count now.
    pub fn attempts_max(&self, task: &Task) -> u32 {
        task.attempts_max
            .or_else(|| self.spec(task).map(|spec| spec.attempts))
            .unwrap_or(1)
    }

    /// When a waiting task is looked at again, where that is known.
    pub fn next_check(&self, task: &Task) -> Option<Wall> {
        if self.is_cut_off_task(task) || task.state.is_terminal() {
            return None;
        }
        task.next_check.map(|deadline| self.shown(deadline))
    }

    /// A deadline as wall time. Lengths count on the boot-time clock, so the last record's reading
    /// of both clocks relates the two.
    pub fn shown(&self, deadline: Deadline) -> Wall {
        deadline.shown(self.facts.batch.now)
    }

    /// Tasks by state, in the order of [`TaskState::ALL`].
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for task in &self.facts.tasks {
            counts.add(self.task_state(task));
        }
        counts
    }
}

/// Tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([usize; TaskState::ALL.len()]);

impl Counts {
    /// One more task in this state.
    pub fn add(&mut self, state: TaskState) {
        self.0[state as usize] += 1;
    }

    /// Tasks in this state.
    pub fn of(&self, state: TaskState) -> usize {
        self.0[state as usize]
    }

    /// All tasks.
    pub fn all(&self) -> usize {
        self.0.iter().sum()
    }

    /// Tasks that have an outcome.
    pub fn settled(&self) -> usize {
        let terminal = TaskState::ALL.iter().filter(|state| state.is_terminal());
        terminal.map(|state| self.of(*state)).sum()
    }

    /// `5 done, 2 running`, in the order of the manual reversed: what is over comes first.
    pub fn sentence(&self) -> String {
        let parts: Vec<String> = TaskState::ALL
            .iter()
            .rev()
            .filter(|state| self.of(**state) > 0)
            .map(|state| format!("{} {state}", self.of(*state)))
            .collect();
        parts.join(", ")
    }
}

impl Serialize for Counts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(TaskState::ALL.iter().map(|s| (s.word(), self.of(*s))))
    }
}
