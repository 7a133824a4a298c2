//! Records of attempts.

use protocol::class::Class;

use super::Apply;
use crate::core::{Change, ReplayError};
use crate::facts::{Attempt, Footprint, Outcome, Run};
use crate::machine::{AttemptState, RunState, TaskState};
use crate::plan::RetryMode;
use crate::reason::TaskReason;
use crate::record::{AttemptEnded, AttemptStarted, Next};
use crate::step::{Purpose, Step};

impl Apply<'_> {
    pub(super) fn attempt_started(&mut self, started: &AttemptStarted) -> Result<(), ReplayError> {
        self.check_new_generation(started.generation)?;
        self.check_task(started.task, TaskState::Running)?;
        let now = self.entry.now;
        let ready = self.task(started.task)?.state == TaskState::Ready;
        self.require(ready, "only a ready task begins an attempt")?;
        let task = self.task(started.task)?;
        if task.attempt.is_some() || started.attempt != task.attempts.next() {
            return Err(self.unknown("next attempt"));
        }
        let spec = task.spec;
        let timeout = self.state.facts.specs[spec.0 as usize].timeout;
        self.insert_run(started)?;
        let task = self.task(started.task)?;
        task.attempts = started.attempt;
        task.mode = started.mode;
        task.attempt = Some(Attempt {
            no: started.attempt,
            state: started.step.attempt_state(),
            slot: started.slot,
            mode: started.mode,
            run: started.generation,
            deadline: now.boot + timeout,
            result: None,
            probe: started.probe,
            step: started.step,
            step_runs: 1,
            step_done: false,
            commit: None,
            files: 0,
            rounds: 0,
            verdict: None,
            notes: None,
            waiting_since: None,
            work: None,
            footprint: Footprint::default(),
        });
        let (state, reason) = started.step.task_state();
        self.put_task(started.task, state, reason, None)
    }

    fn insert_run(&mut self, started: &AttemptStarted) -> Result<(), ReplayError> {
        let task = &self.state.facts.tasks[started.task.0 as usize];
        let rules = &self.state.facts.specs[task.spec.0 as usize];
        let fits = match (rules.worktree, &task.worktree) {
            (Some(_), Some(_)) if started.mode == RetryMode::Fresh => started.step == Step::Salvage,
            (Some(_), _) => started.step == Step::Provision,
            (None, _) => matches!(started.step, Step::Fetch | Step::BeforeRun | Step::Work),
        };
        let free = task.clean.is_none();
        self.require(
            fits && free,
            "an attempt begins with its first step, not in a worktree that goes",
        )?;
        let purpose = Purpose::Step(started.step);
        let run = new_run(started.task, started.attempt, purpose, started.token);
        self.state.facts.batch.last_generation = started.generation;
        self.state.facts.runs.insert(started.generation, run);
        Ok(())
    }

    pub(super) fn attempt_ended(&mut self, ended: &AttemptEnded) -> Result<(), ReplayError> {
        self.check_attempt(ended.task, ended.attempt)?;
        let target = match &ended.next {
            Next::End { to, .. } => *to,
            Next::Retry { .. } => TaskState::Ready,
            Next::Hold { .. } => TaskState::Paused,
        };
        self.check_task(ended.task, target)?;
        let live = self.task(ended.task)?.state.is_live();
        self.require(live, "only a live task's attempt ends")?;
        self.require(
            is_outcome(ended),
            "an attempt ends done without a class, failed or cancelled with one",
        )?;
        self.check_attempt_edge(ended.task, AttemptState::Ended)?;
        if target == TaskState::Done {
            self.begin_merge(ended.task)?;
        }
        self.close_attempt(ended)?;
        self.take_revised(ended.task, target == TaskState::Done)?;
        self.count_spawn(ended.class);
        let lane = || ended.class.map_or(TaskReason::Lane, TaskReason::Backoff);
        match ended.next {
            Next::End { to, reason } => self.end_task(ended.task, to, reason)?,
            Next::Retry { mode, at } => {
                self.task(ended.task)?.mode = mode;
                let reason = if at.is_some() {
                    lane()
                } else {
                    TaskReason::Lane
                };
                self.put_task(ended.task, TaskState::Ready, reason, at)?;
            }
            Next::Hold { reason, mode } => {
                let task = self.task(ended.task)?;
                task.mode = mode;
                task.hold = false;
                self.put_task(ended.task, TaskState::Paused, reason, None)?;
            }
        }
        self.release_touch_waiters(ended.task)
    }

    fn close_attempt(&mut self, ended: &AttemptEnded) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let task = self.task(ended.task)?;
        let Some(mut attempt) = task.attempt.take() else {
            return Err(ReplayError::Unknown {
                seq,
                what: "open attempt",
            });
        };
        let edge = attempt.state.become_(AttemptState::Ended);
        let edge = edge.map_err(|edge| ReplayError::Edge { seq, edge })?;
        task.consumed += u32::from(ended.consumed);
        task.lost = if ended.class == Some(Class::Lost) {
            task.lost + 1
        } else {
            0
        };
        task.free_retries = match ended.class {
            Some(class) if !ended.consumed && is_our_side(class) => task.free_retries + 1,
            Some(_) | None => 0,
        };
        task.overloads = match ended.class {
            Some(Class::Overload) if ended.model.is_none() => task.overloads + 1,
            Some(_) | None => 0,
        };
        task.model = ended.model.unwrap_or(task.model);
        let summary = attempt
            .result
            .as_ref()
            .map_or("", |result| result.summary.as_str());
        task.last = Some(Box::new(Outcome {
            attempt: ended.attempt,
            class: ended.class,
            detail: ended.detail.clone(),
            summary: summary.into(),
            footprint: attempt.footprint,
        }));
        self.changes.push(Change::Attempt(ended.task, edge));
        Ok(())
    }
}

/// Classes whose retries are bounded by their own count, not by the task's attempts.
fn is_our_side(class: Class) -> bool {
    crate::retry::group(class) == crate::retry::Group::OurSide
}

/// Whether class and consequence belong together.
fn is_outcome(ended: &AttemptEnded) -> bool {
    match &ended.next {
        Next::End { to, .. } => match to {
            TaskState::Done => ended.class.is_none(),
            TaskState::Failed | TaskState::Cancelled => ended.class.is_some(),
            TaskState::Pending
            | TaskState::Blocked
            | TaskState::Ready
            | TaskState::Running
            | TaskState::Verifying
            | TaskState::Reviewing
            | TaskState::Waiting
            | TaskState::Paused
            | TaskState::Skipped => false,
        },
        Next::Retry { .. } | Next::Hold { .. } => ended.class.is_some(),
    }
}

/// A run that was just decided.
pub(super) fn new_run(
    task: crate::plan::TaskIx,
    attempt: protocol::ids::AttemptNo,
    purpose: Purpose,
    token: u128,
) -> Run {
    Run {
        task,
        attempt,
        purpose,
        state: RunState::Intended,
        token,
        identity: None,
        containment: crate::containment::Containment::default(),
        capabilities: None,
        stop: None,
        result: None,
        usage: protocol::report::Usage::default(),
        unresolved: false,
    }
}
