//! Records of the batch, its plan and its accounts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;

use super::Apply;
use crate::core::{Change, ReplayError};
use crate::facts::{Account, Task};
use crate::identity::Identity;
use crate::machine::{AccountState, BatchState, TaskState};
use crate::plan::{AccountIx, AccountSpec, Dependency, PlannedTask, RetryMode, TaskIx, TaskSpec};
use crate::reason::{AccountReason, BatchReason, TaskReason};
use crate::time::{Boot, Deadline};
use crate::timers::Timer;

/// An account that has not been used.
pub(super) fn new_account(spec: &AccountSpec) -> Account {
    let spec = spec.clone();
    Account {
        spec,
        state: AccountState::Open,
        reason: None,
        until: None,
        limited: 0,
    }
}

impl Apply<'_> {
    pub(super) fn plan_extended(
        &mut self,
        specs: &[Arc<TaskSpec>],
        tasks: &[PlannedTask],
    ) -> Result<(), ReplayError> {
        let facts = &mut self.state.facts;
        let spec_count = facts.specs.len() + specs.len();
        if tasks.iter().any(|task| task.spec.0 as usize >= spec_count) {
            return Err(self.unknown("task spec"));
        }
        facts.specs.extend_from_slice(specs);
        facts.batch.plan_closed = false;
        for planned in tasks {
            let ix = TaskIx(u32::try_from(facts.tasks.len()).unwrap_or(u32::MAX));
            facts.tasks.push(new_task(planned, self.entry.now.wall));
            self.state.index.add_task(facts, ix);
        }
        Ok(())
    }

    pub(super) fn supervisor_started(
        &mut self,
        term: u64,
        identity: &Identity,
        guardian: Option<&Identity>,
    ) -> Result<(), ReplayError> {
        let batch = &mut self.state.facts.batch;
        if term != batch.term + 1 {
            return Err(self.unknown("next term"));
        }
        let before = batch.now;
        let same_boot = super::boot_of(identity) == before.boot_id;
        batch.term = term;
        batch.supervisor = Some(identity.clone());
        batch.guardian = guardian.cloned();
        batch.spawn_failures = 0;
        batch.stop_grade = None;
        // Time without a supervisor is no running time: the clock stood still since the last record.
        if let Some(since) = batch.running_since.take() {
            batch.ran += Duration::from_millis(before.boot.0.saturating_sub(since.0));
            batch.running_since = Some(self.entry.now.boot);
        }
        if !same_boot {
            self.rebase(before.boot);
        } else {
            let away = self.entry.now.boot.0.saturating_sub(before.boot.0);
            self.shift_attempts(Duration::from_millis(away));
        }
        let facts = &self.state.facts;
        self.state.index.note_batch(facts);
        Ok(())
    }

    /// Deadlines of an earlier boot: what was left then is left now.
    fn rebase(&mut self, before: Boot) {
        let now = self.entry.now.boot;
        let moved = |at: Boot| Boot(now.0.saturating_add(at.0.saturating_sub(before.0)));
        for ix in self.live_tasks() {
            let attempt = self.state.facts.tasks[ix.0 as usize].attempt.as_mut();
            // What waits for the operator's answer got its wait credited when it ended; the clock
            // that it began on is gone, so what it waited until now is credited here.
            if let Some(attempt) = attempt
                && let Some(since) = attempt.waiting_since
            {
                attempt.waiting_since = Some(now);
                let waited = before.0.saturating_sub(since.0);
                attempt.deadline = moved(Boot(attempt.deadline.0.saturating_add(waited)));
            }
        }
        self.move_boot_deadlines(moved);
    }

    fn shift_attempts(&mut self, away: Duration) {
        for ix in self.live_tasks() {
            let attempt = self.state.facts.tasks[ix.0 as usize].attempt.as_mut();
            if let Some(attempt) = attempt.filter(|attempt| attempt.waiting_since.is_none()) {
                attempt.deadline = attempt.deadline + away;
            }
            self.state.index.note_attempt(&self.state.facts, ix);
        }
    }

    fn live_tasks(&self) -> Vec<TaskIx> {
        self.state.index.live.keys().copied().collect()
    }

    pub(super) fn concurrency_set(&mut self, lanes: u32) -> Result<(), ReplayError> {
        self.state.facts.batch.lanes = Some(lanes);
        Ok(())
    }

    pub(super) fn clock_gap(&mut self, gap: Duration) -> Result<(), ReplayError> {
        self.move_boot_deadlines(|at| at + gap);
        if let Some(since) = &mut self.state.facts.batch.running_since {
            *since = *since + gap;
        }
        self.state.index.note_batch(&self.state.facts);
        Ok(())
    }

    /// Moves every deadline of the boot clock. Which ones follows from the facts, not from what is
    /// armed: a timer that fired live and left no record is still armed in a replay.
    fn move_boot_deadlines(&mut self, moved: impl Fn(Boot) -> Boot) {
        let live = self.live_tasks();
        let armed: Vec<(Boot, Timer)> = self.state.index.timers.on_boot().collect();
        let facts = &mut self.state.facts;
        for (_, at) in facts.runs.values_mut().filter_map(|run| run.stop.as_mut()) {
            *at = moved(*at);
        }
        for ix in live {
            let attempt = facts.tasks[ix.0 as usize].attempt.as_mut();
            if let Some(attempt) = attempt.filter(|attempt| attempt.waiting_since.is_none()) {
                attempt.deadline = moved(attempt.deadline);
            }
        }
        for (at, timer) in armed {
            let to = moved(at);
            match timer {
                Timer::Question(id) => {
                    if let Some(question) = facts.questions.get_mut(&id) {
                        question.deadline = Deadline::Boot(to);
                    }
                }
                Timer::Account(ix) => {
                    facts.accounts[ix.0 as usize].until = Some(Deadline::Boot(to));
                }
                Timer::Task(ix) => {
                    facts.tasks[ix.0 as usize].next_check = Some(Deadline::Boot(to));
                }
                Timer::Comment(ix) => {
                    let next = facts.tasks[ix.0 as usize].comments.first_mut();
                    if let Some(comment) = next {
                        comment.at = Some(Deadline::Boot(to));
                    }
                }
                Timer::Grace(_) | Timer::Attempt(_) => {}
                // Computed from `running_since`, or dates.
                Timer::BatchWall | Timer::NotBefore | Timer::Until | Timer::Message(_) => continue,
            }
            self.state.index.timers.arm(timer, Some(Deadline::Boot(to)));
        }
    }

    pub(super) fn batch_moved(
        &mut self,
        to: BatchState,
        reason: BatchReason,
    ) -> Result<(), ReplayError> {
        let now = self.entry.now;
        let mut state = self.state.facts.batch.state;
        if state != to {
            let edge = state.become_(to).map_err(|edge| self.illegal(edge))?;
            self.changes.push(Change::Batch(edge));
        }
        let batch = &mut self.state.facts.batch;
        batch.state = to;
        batch.reason = reason;
        let running = to == BatchState::Running;
        match batch.running_since {
            None if running => batch.running_since = Some(now.boot),
            Some(since) if !running => {
                batch.ran += Duration::from_millis(now.boot.0.saturating_sub(since.0));
                batch.running_since = None;
            }
            None | Some(_) => {}
        }
        batch.stop_grade = match (to, reason) {
            (BatchState::Stopping, BatchReason::Stop) => Some(crate::input::StopStage::Stop),
            (BatchState::Stopping, _) => Some(crate::input::StopStage::Drain),
            (
                BatchState::Running
                | BatchState::Paused
                | BatchState::Done
                | BatchState::Failed
                | BatchState::Interrupted,
                _,
            ) => None,
        };
        self.state.index.note_batch(&self.state.facts);
        Ok(())
    }

    pub(super) fn account_moved(
        &mut self,
        ix: AccountIx,
        to: AccountState,
        reason: AccountReason,
        until: Option<Deadline>,
    ) -> Result<(), ReplayError> {
        let Some(account) = self.state.facts.accounts.get(ix.0 as usize) else {
            return Err(self.unknown("account"));
        };
        let mut state = account.state;
        if state != to {
            let edge = state.become_(to).map_err(|edge| self.illegal(edge))?;
            self.changes.push(Change::Account(ix, edge));
        }
        let account = &mut self.state.facts.accounts[ix.0 as usize];
        account.state = to;
        account.reason = Some(reason);
        account.until = until;
        match to {
            AccountState::Limited => account.limited += 1,
            AccountState::Open => account.limited = 0,
            AccountState::Probing | AccountState::Stopped => {}
        }
        self.state.index.note_account(ix, to, until);
        if matches!(to, AccountState::Open | AccountState::Probing) {
            self.release_account(ix)?;
        }
        Ok(())
    }

    /// Tasks that were held because of the account wait for a lane again.
    fn release_account(&mut self, ix: AccountIx) -> Result<(), ReplayError> {
        let facts = &self.state.facts;
        let held: Vec<TaskIx> = self
            .state
            .index
            .paused
            .iter()
            .copied()
            .filter(|task_ix| {
                let task = &facts.tasks[task_ix.0 as usize];
                let agent = facts.specs[task.spec.0 as usize].agent;
                let for_account = matches!(
                    task.reason,
                    TaskReason::AccountLimited | TaskReason::AccountStopped
                );
                for_account && facts.agents[agent.0 as usize].account == ix
            })
            .collect();
        for task in held {
            self.queue(task)?;
        }
        Ok(())
    }

    /// Sends a task that has no attempt to where it waits: for a dependency, a date, or a lane.
    pub(super) fn queue(&mut self, ix: TaskIx) -> Result<(), ReplayError> {
        let facts = &self.state.facts;
        let task = &facts.tasks[ix.0 as usize];
        let failed = task.depends_on.iter().find(|dependency| {
            let on = &facts.tasks[dependency.task.0 as usize];
            on.state.is_terminal() && crate::index::is_hopeless(facts, **dependency)
        });
        if let Some(failed) = failed {
            let reason = TaskReason::DependencyFailed(failed.task);
            return self.end_task(ix, TaskState::Skipped, reason);
        }
        let date = facts.specs[task.spec.0 as usize].not_before;
        let date = date.filter(|at| *at > self.entry.now.wall);
        if self.state.index.unmet[ix.0 as usize] > 0 {
            self.put_task(ix, TaskState::Blocked, TaskReason::Dependencies, None)
        } else if let Some(at) = date {
            let check = Some(Deadline::Wall(at));
            self.put_task(ix, TaskState::Blocked, TaskReason::NotBefore, check)
        } else {
            self.put_task(ix, TaskState::Ready, TaskReason::Lane, None)
        }
    }

    pub(super) fn count_spawn(&mut self, class: Option<Class>) {
        let batch = &mut self.state.facts.batch;
        if class == Some(Class::SpawnFailure) {
            batch.spawn_failures = batch.spawn_failures.saturating_add(1);
        }
    }
}

/// Each dependency once, in the order of the batch file.
pub(crate) fn distinct(depends_on: &[Dependency]) -> Box<[Dependency]> {
    let mut seen = BTreeSet::new();
    let once = depends_on.iter().filter(|it| seen.insert(**it));
    once.copied().collect()
}

fn new_task(planned: &PlannedTask, wall: crate::time::Wall) -> Task {
    Task {
        id: planned.id.clone(),
        spec: planned.spec,
        item: planned.item.clone(),
        touches: planned.touches.clone(),
        depends_on: distinct(&planned.depends_on),
        state: TaskState::Pending,
        reason: TaskReason::New,
        since: wall,
        next_check: None,
        epoch: 0,
        attempts: protocol::ids::AttemptNo(0),
        consumed: 0,
        attempts_max: None,
        lost: 0,
        free_retries: 0,
        overloads: 0,
        model: 0,
        attempt: None,
        mode: RetryMode::Fresh,
        session: None,
        last: None,
        usage: protocol::report::Usage::default(),
        usage_before: protocol::report::Usage::default(),
        hold: false,
        revised: None,
        removed: false,
        worktree: None,
        salvaged: Vec::new(),
        merge: None,
        clean: None,
        comments: Vec::new(),
    }
}
