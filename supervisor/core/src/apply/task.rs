//! Records of tasks: moves, ends, reopenings.

use super::Apply;
use crate::core::ReplayError;
use crate::index::{is_hopeless, is_satisfied};
use crate::machine::TaskState;
use crate::plan::{Dependency, RetryMode, TaskIx};
use crate::reason::TaskReason;
use crate::time::Deadline;

impl Apply<'_> {
    pub(super) fn task_moved(
        &mut self,
        ix: TaskIx,
        to: TaskState,
        reason: TaskReason,
        next_check: Option<Deadline>,
    ) -> Result<(), ReplayError> {
        self.check_task(ix, to)?;
        let task = self.task(ix)?;
        let fits = may_move(task.state, to, task.attempt.is_some());
        self.require(
            fits,
            "a move neither ends nor reopens a task, nor an attempt",
        )?;
        let task = self.task(ix)?;
        if task.attempt.is_some() && task.state == to {
            // The task goes on; only what follows its attempt changes.
            task.hold = reason == TaskReason::Operator;
            return Ok(());
        }
        self.put_task(ix, to, reason, next_check)
    }

    pub(super) fn task_ended(
        &mut self,
        ix: TaskIx,
        to: TaskState,
        reason: TaskReason,
    ) -> Result<(), ReplayError> {
        self.check_task(ix, to)?;
        let task = self.task(ix)?;
        let open = !task.state.is_terminal() && !task.state.is_live() && task.attempt.is_none();
        let fits = to.is_terminal() && open;
        self.require(fits, "only a task without an attempt ends by itself, once")?;
        self.end_task(ix, to, reason)
    }

    /// Ends a task, and skips whom that leaves without hope.
    pub(super) fn end_task(
        &mut self,
        ix: TaskIx,
        to: TaskState,
        reason: TaskReason,
    ) -> Result<(), ReplayError> {
        let mut todo = vec![(ix, to, reason)];
        while let Some((ix, to, reason)) = todo.pop() {
            if self.task(ix)?.state.is_terminal() {
                continue;
            }
            self.task(ix)?.hold = false;
            self.put_task(ix, to, reason, None)?;
            let backs = self.state.index.dependents[ix.0 as usize].iter();
            let backs: Vec<Dependency> = backs.copied().collect();
            for back in backs {
                if self.settle_dependent(ix, back)? {
                    let reason = TaskReason::DependencyFailed(ix);
                    todo.push((back.task, TaskState::Skipped, reason));
                }
            }
        }
        Ok(())
    }

    /// Tells a dependent of an ended task; answers whether it must be skipped.
    pub(super) fn settle_dependent(
        &mut self,
        ended: TaskIx,
        back: Dependency,
    ) -> Result<bool, ReplayError> {
        let dependency = Dependency {
            task: ended,
            condition: back.condition,
        };
        let satisfied = is_satisfied(&self.state.facts, dependency);
        let dependent = back.task.0 as usize;
        let task = &self.state.facts.tasks[dependent];
        if !satisfied {
            let hopeless = is_hopeless(&self.state.facts, dependency);
            return Ok(hopeless && !task.state.is_terminal() && task.attempt.is_none());
        }
        let waits = task.state == TaskState::Blocked && task.reason == TaskReason::Dependencies;
        let unmet = &mut self.state.index.unmet[dependent];
        *unmet = unmet.saturating_sub(1);
        if *unmet == 0 && waits {
            self.queue(back.task)?;
        }
        Ok(false)
    }

    pub(super) fn reopened(
        &mut self,
        ix: TaskIx,
        mode: RetryMode,
        attempts: Option<u32>,
    ) -> Result<(), ReplayError> {
        let task = self.task(ix)?;
        if !task.state.is_terminal() || task.state == TaskState::Done || task.removed {
            return Err(self.unknown("task that may be reopened"));
        }
        task.epoch += 1;
        task.consumed = 0;
        task.usage_before = task.usage;
        task.lost = 0;
        task.free_retries = 0;
        (task.overloads, task.model) = (0, 0);
        task.attempts_max = attempts;
        task.mode = mode;
        // What was never tried because the batch stopped comes back with the first one that does.
        let untried = self.state.index.untried.iter();
        let untried = untried.filter(|it| !self.state.facts.tasks[it.0 as usize].removed);
        let mut todo = vec![ix];
        todo.extend(untried);
        let mut opened = Vec::new();
        while let Some(ix) = todo.pop() {
            if !self.task(ix)?.state.is_terminal() {
                continue;
            }
            opened.push(ix);
            self.put_task(ix, TaskState::Blocked, TaskReason::Reopened, None)?;
            for back in &self.state.index.dependents[ix.0 as usize] {
                let task = &self.state.facts.tasks[back.task.0 as usize];
                if task.state == TaskState::Skipped
                    && !task.removed
                    && task.reason == TaskReason::DependencyFailed(ix)
                {
                    todo.push(back.task);
                }
            }
        }
        self.requeue_around(&opened)
    }

    /// What was skipped because this one's merge had failed is looked at again.
    pub(super) fn reopen_dependents(&mut self, ix: TaskIx) -> Result<(), ReplayError> {
        let mut opened = self.open_skipped(vec![ix])?;
        // Those that were not skipped wait for it again as well.
        opened.push(ix);
        self.requeue_around(&opened)
    }

    /// Opens what was skipped because of these, however far down.
    fn open_skipped(&mut self, mut because: Vec<TaskIx>) -> Result<Vec<TaskIx>, ReplayError> {
        let mut opened = Vec::new();
        while let Some(ix) = because.pop() {
            let backs = self.state.index.dependents[ix.0 as usize].iter();
            let backs: Vec<TaskIx> = backs.map(|back| back.task).collect();
            for back in backs {
                let task = self.task(back)?;
                let skipped = task.state == TaskState::Skipped && !task.removed;
                if skipped && task.reason == TaskReason::DependencyFailed(ix) {
                    self.put_task(back, TaskState::Blocked, TaskReason::Reopened, None)?;
                    opened.push(back);
                    because.push(back);
                }
            }
        }
        Ok(opened)
    }

    /// Counts dependencies anew for reopened tasks and for those that depend on them.
    fn requeue_around(&mut self, opened: &[TaskIx]) -> Result<(), ReplayError> {
        let mut around: Vec<TaskIx> = opened.to_vec();
        for ix in opened {
            let backs = &self.state.index.dependents[ix.0 as usize];
            around.extend(backs.iter().map(|back| back.task));
        }
        around.sort_unstable();
        around.dedup();
        for &ix in &around {
            self.state.index.count_unmet(&self.state.facts, ix);
        }
        for &ix in &around {
            let task = &self.state.facts.tasks[ix.0 as usize];
            let waits = matches!(task.state, TaskState::Ready | TaskState::Blocked);
            let reopened = task.reason == TaskReason::Reopened;
            let held_up = self.state.index.unmet[ix.0 as usize] > 0;
            if reopened || (waits && held_up) {
                self.queue(ix)?;
            }
        }
        Ok(())
    }

    /// Tasks that waited for this one to leave its files alone.
    pub(super) fn release_touch_waiters(&mut self, ix: TaskIx) -> Result<(), ReplayError> {
        let waiters = self
            .state
            .index
            .touch_waiters
            .get(&ix)
            .cloned()
            .unwrap_or_default();
        for waiter in waiters {
            self.queue(waiter)?;
        }
        Ok(())
    }
}

/// Whether a task may go from one state to the other (or only change its reason) by a mere move.
/// Every other step belongs to a record of its own, which says what else changes with it: the
/// start or end of an attempt, a run, a question, the task's end, its reopening.
const fn may_move(from: TaskState, to: TaskState, has_attempt: bool) -> bool {
    use TaskState::{
        Blocked, Cancelled, Done, Failed, Paused, Pending, Ready, Reviewing, Running, Skipped,
        Verifying, Waiting,
    };
    match (from, to) {
        // Where a task waits, and why.
        (Blocked | Ready | Paused, Blocked | Ready) | (Blocked | Ready, Paused) => !has_attempt,
        // What the operator asked for its next attempt; a run that can not be judged, and one that
        // can again.
        (Running, Running)
        | (Verifying, Verifying)
        | (Reviewing, Reviewing)
        | (Waiting, Waiting)
        | (Running | Verifying | Reviewing, Paused)
        | (Paused, Running | Verifying | Reviewing) => has_attempt,
        (Paused, Paused) => true,
        (
            Pending | Blocked | Ready | Running | Verifying | Reviewing | Waiting | Paused | Done
            | Failed | Cancelled | Skipped,
            Pending | Blocked | Ready | Running | Verifying | Reviewing | Waiting | Paused | Done
            | Failed | Cancelled | Skipped,
        ) => false,
    }
}
