//! Applying records: what each one means for the state. Decides nothing.

mod attempt;
mod batch;
mod clean;
mod comment;
mod mail;
mod merge;
mod revision;
mod run;
mod task;

pub(crate) use batch::distinct;
use protocol::ids::{AttemptNo, Generation, MessageId, QuestionId};
use protocol::report::Usage;

use crate::core::{Change, ReplayError};
use crate::facts::{Batch, Facts, Run, Task};
use crate::identity::Identity;
use crate::machine::{AttemptState, BatchState, IllegalEdge, TaskState};
use crate::plan::TaskIx;
use crate::reason::{BatchReason, TaskReason};
use crate::record::{Entry, Record};
use crate::state::State;

pub(crate) use run::{larger, sum};

/// One record on its way into the state.
pub(crate) struct Apply<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) entry: &'a Entry,
    pub(crate) changes: &'a mut Vec<Change>,
}

/// The state that the first record makes.
pub(crate) fn create(entry: &Entry) -> Result<State, ReplayError> {
    let Record::BatchCreated(created) = &entry.record else {
        return Err(ReplayError::Unknown {
            seq: entry.seq,
            what: "batch",
        });
    };
    let batch = Batch {
        id: created.id.clone(),
        state: BatchState::Interrupted,
        reason: BatchReason::Working,
        created: entry.now.wall,
        now: entry.now,
        term: 0,
        supervisor: None,
        guardian: None,
        seq: entry.seq,
        seed: created.seed,
        settings: created.settings.clone(),
        plan_closed: false,
        last_generation: Generation(0),
        last_message: MessageId(0),
        last_question: QuestionId(0),
        usage: Usage::default(),
        ran: std::time::Duration::ZERO,
        running_since: None,
        spawn_failures: 0,
        revision: 0,
        lanes: None,
        stop_grade: None,
    };
    let accounts = created.accounts.iter().map(batch::new_account).collect();
    let repos = created.repos.iter().map(merge::new_repo).collect();
    let facts = Facts {
        batch,
        agents: created.agents.clone(),
        accounts,
        repos,
        specs: Vec::new(),
        tasks: Vec::new(),
        runs: std::collections::BTreeMap::new(),
        messages: std::collections::BTreeMap::new(),
        questions: std::collections::BTreeMap::new(),
    };
    Ok(State::restore(facts))
}

impl Apply<'_> {
    pub(crate) fn apply(&mut self) -> Result<(), ReplayError> {
        let entry = self.entry;
        match &entry.record {
            Record::BatchCreated(_) => Err(self.unknown("second creation")),
            Record::PlanExtended { specs, tasks } => self.plan_extended(specs, tasks),
            Record::PlanClosed => self.plan_closed(),
            Record::PlanRevised(revised) => self.plan_revised(revised),
            Record::TaskRevised { task, rules } => self.task_revised(*task, rules),
            Record::TaskRemoved { task } => self.task_removed(*task),
            Record::SupervisorStarted {
                term,
                identity,
                guardian,
                ..
            } => self.supervisor_started(*term, identity, guardian.as_ref()),
            // It says who decides from here on; nothing else follows from it.
            Record::SupervisorReplaced { build: _ } => Ok(()),
            Record::ClockGap { gap } => self.clock_gap(*gap),
            Record::BatchMoved { to, reason } => self.batch_moved(*to, *reason),
            Record::TaskMoved {
                task,
                to,
                reason,
                next_check,
            } => self.task_moved(*task, *to, *reason, *next_check),
            Record::AttemptStarted(started) => self.attempt_started(started),
            Record::RunIntended {
                generation,
                task,
                purpose,
                token,
            } => self.run_intended(*generation, *task, *purpose, *token),
            Record::RunSpawned {
                generation,
                identity,
                containment,
            } => self.run_spawned(*generation, identity, containment),
            Record::RunStarted {
                generation,
                capabilities,
                session,
            } => self.run_started(*generation, *capabilities, session.as_ref()),
            Record::StopDecided {
                generation,
                reason,
                grace,
            } => self.stop_decided(*generation, *reason, *grace),
            Record::RunFinished { generation, result } => self.run_finished(*generation, result),
            Record::RunEnded {
                generation,
                footprint,
                ..
            } => self.run_ended(*generation, *footprint),
            Record::RunReconciled {
                generation, letter, ..
            } => self.run_reconciled(*generation, *letter),
            Record::AttemptEnded(ended) => self.attempt_ended(ended),
            Record::TaskEnded { task, to, reason } => self.task_ended(*task, *to, *reason),
            Record::Reopened {
                task,
                mode,
                attempts,
            } => self.reopened(*task, *mode, *attempts),
            Record::MessageQueued { .. } => self.message_queued(),
            Record::MessageMoved { id, to, generation } => {
                self.message_moved(*id, *to, *generation)
            }
            Record::QuestionOpened { .. } => self.question_opened(),
            Record::QuestionMoved { id, to, answer } => {
                self.question_moved(*id, *to, answer.as_ref())
            }
            Record::AccountMoved {
                account,
                to,
                reason,
                until,
            } => self.account_moved(*account, *to, *reason, *until),
            Record::UsageNoted { generation, usage } => self.usage_noted(*generation, *usage),
            Record::RoundBegan { .. }
            | Record::RoundMoved { .. }
            | Record::RoundEnded { .. }
            | Record::MergeMoved { .. }
            | Record::CleanMoved { .. }
            | Record::CleanEnded { .. }
            | Record::CommentMoved { .. } => self.apply_delivery(),
            Record::ConcurrencySet { concurrency } => self.concurrency_set(*concurrency),
        }
    }

    /// What becomes of done work, and of the worktrees it was done in.
    fn apply_delivery(&mut self) -> Result<(), ReplayError> {
        let entry = self.entry;
        match &entry.record {
            Record::RoundBegan { repo, stage, tasks } => self.round_began(*repo, *stage, tasks),
            Record::RoundMoved {
                repo,
                stage,
                tip,
                commits,
                good,
                bad,
                detail,
            } => {
                let moved = merge::Moved {
                    stage: *stage,
                    tip,
                    commits,
                    good: *good,
                    bad: *bad,
                    detail,
                };
                self.round_moved(*repo, &moved)
            }
            Record::RoundEnded { repo, share } => self.round_ended(*repo, *share),
            Record::MergeMoved {
                task,
                to,
                merged,
                detail,
            } => self.merge_moved(*task, *to, merged.as_ref(), detail),
            Record::CleanMoved { task, step, kept } => {
                self.clean_moved(*task, *step, kept.as_ref())
            }
            Record::CleanEnded { task, removed, .. } => self.clean_ended(*task, *removed),
            Record::CommentMoved {
                task, on, to, at, ..
            } => self.comment_moved(*task, *on, *to, *at),
            Record::BatchCreated(_)
            | Record::PlanExtended { .. }
            | Record::PlanClosed
            | Record::PlanRevised(_)
            | Record::TaskRevised { .. }
            | Record::TaskRemoved { .. }
            | Record::SupervisorStarted { .. }
            | Record::SupervisorReplaced { .. }
            | Record::ClockGap { .. }
            | Record::BatchMoved { .. }
            | Record::TaskMoved { .. }
            | Record::AttemptStarted(_)
            | Record::RunIntended { .. }
            | Record::RunSpawned { .. }
            | Record::RunStarted { .. }
            | Record::StopDecided { .. }
            | Record::RunFinished { .. }
            | Record::RunEnded { .. }
            | Record::RunReconciled { .. }
            | Record::AttemptEnded(_)
            | Record::TaskEnded { .. }
            | Record::Reopened { .. }
            | Record::MessageQueued { .. }
            | Record::MessageMoved { .. }
            | Record::QuestionOpened { .. }
            | Record::QuestionMoved { .. }
            | Record::AccountMoved { .. }
            | Record::UsageNoted { .. }
            | Record::ConcurrencySet { .. } => Err(self.unknown("delivery")),
        }
    }

    fn unknown(&self, what: &'static str) -> ReplayError {
        ReplayError::Unknown {
            seq: self.entry.seq,
            what,
        }
    }

    /// The rule of a record that takes only some of the steps of the edge table.
    fn require(&self, fits: bool, why: &'static str) -> Result<(), ReplayError> {
        if fits {
            return Ok(());
        }
        let seq = self.entry.seq;
        Err(ReplayError::Unfit { seq, why })
    }

    fn illegal(&self, edge: IllegalEdge) -> ReplayError {
        ReplayError::Edge {
            seq: self.entry.seq,
            edge,
        }
    }

    fn task(&mut self, ix: TaskIx) -> Result<&mut Task, ReplayError> {
        let seq = self.entry.seq;
        let task = self.state.facts.tasks.get_mut(ix.0 as usize);
        task.ok_or(ReplayError::Unknown { seq, what: "task" })
    }

    fn run(&mut self, generation: Generation) -> Result<&mut Run, ReplayError> {
        let seq = self.entry.seq;
        let run = self.state.facts.runs.get_mut(&generation);
        run.ok_or(ReplayError::Unknown { seq, what: "run" })
    }

    /// Checks that a task step is in the edge table, before anything is changed.
    fn check_task(&self, ix: TaskIx, to: TaskState) -> Result<(), ReplayError> {
        let task = self.state.facts.tasks.get(ix.0 as usize);
        let mut state = task.ok_or_else(|| self.unknown("task"))?.state;
        if state == to {
            return Ok(());
        }
        state
            .become_(to)
            .map(|_| ())
            .map_err(|edge| self.illegal(edge))
    }

    /// Moves a task with all its indexes; the step has been checked.
    fn put_task(
        &mut self,
        ix: TaskIx,
        to: TaskState,
        reason: TaskReason,
        next_check: Option<crate::time::Deadline>,
    ) -> Result<(), ReplayError> {
        self.check_task(ix, to)?;
        let wall = self.entry.now.wall;
        self.state.index.leave(&self.state.facts, ix);
        let seq = self.entry.seq;
        let task = self.task(ix)?;
        if task.state != to {
            let edge = task
                .state
                .become_(to)
                .map_err(|edge| ReplayError::Edge { seq, edge })?;
            task.since = wall;
            self.changes.push(Change::Task(ix, edge));
        }
        let task = self.task(ix)?;
        task.reason = reason;
        task.next_check = next_check;
        self.state.index.arrive(&self.state.facts, ix);
        Ok(())
    }

    /// A number given out by a record must be new.
    fn check_new_generation(&self, generation: Generation) -> Result<(), ReplayError> {
        if generation <= self.state.facts.batch.last_generation {
            return Err(self.unknown("new generation"));
        }
        Ok(())
    }

    /// Checks a step of the open attempt, where there is one, before anything is changed.
    fn check_attempt_edge(&self, ix: TaskIx, to: AttemptState) -> Result<(), ReplayError> {
        let task = self.state.facts.tasks.get(ix.0 as usize);
        let open = task.and_then(|task| task.attempt.as_ref());
        let Some(mut state) = open.map(|attempt| attempt.state) else {
            return Ok(());
        };
        // One step may follow another in the same state.
        if state == to && to != AttemptState::Ended {
            return Ok(());
        }
        let step = state.become_(to);
        step.map(|_| ()).map_err(|edge| self.illegal(edge))
    }

    fn check_attempt(&self, ix: TaskIx, no: AttemptNo) -> Result<(), ReplayError> {
        let task = self.state.facts.tasks.get(ix.0 as usize);
        let open = task.and_then(|task| task.attempt.as_ref());
        if open.is_some_and(|attempt| attempt.no == no) {
            return Ok(());
        }
        Err(self.unknown("open attempt"))
    }
}

/// Cheap copy of an identity's boot, for comparisons.
fn boot_of(identity: &Identity) -> crate::time::BootId {
    identity.boot_id
}
