//! Whether the batch is over, or can not move by itself.

use super::Desk;
use crate::effect::{Effect, Ending};
use crate::facts::Task;
use crate::index::each;
use crate::machine::{BatchState, TaskState};
use crate::mutation::{self, Mutation};
use crate::plan::TaskIx;
use crate::reason::{BatchReason, TaskReason};
use crate::record::Record;

impl Desk<'_> {
    /// Ends the supervisor's work once nothing runs and nothing can.
    pub(super) fn settle(&mut self) {
        let batch = &self.facts().batch;
        let idle =
            batch.term > 0 && !self.has_hosts() && !self.cleans_move() && !self.comments_move();
        if idle && self.live.is_confined() {
            return self.finish(match batch.state {
                BatchState::Done => Ending::Done,
                BatchState::Failed => Ending::Failed,
                BatchState::Running
                | BatchState::Paused
                | BatchState::Stopping
                | BatchState::Interrupted => Ending::Interrupted,
            });
        }
        if !idle || !batch.plan_closed {
            return;
        }
        let reason = batch.reason;
        match batch.state {
            BatchState::Done => self.finish(Ending::Done),
            BatchState::Failed => self.finish(Ending::Failed),
            BatchState::Interrupted => self.finish(interrupted(reason)),
            BatchState::Running if self.all_settled() => self.close(),
            BatchState::Running if !self.can_move() => {
                let (to, reason) = (BatchState::Paused, BatchReason::NeedsPerson);
                self.record(Record::BatchMoved { to, reason });
                self.finish(Ending::NeedsPerson);
            }
            BatchState::Running => {}
            BatchState::Paused if self.all_settled() => self.close(),
            BatchState::Paused => match reason {
                BatchReason::Limit(_) | BatchReason::NeedsPerson => {
                    self.finish(Ending::NeedsPerson);
                }
                BatchReason::Operator | BatchReason::Disk => {}
                BatchReason::Working
                | BatchReason::TaskFailed(_)
                | BatchReason::MergeFailed(_)
                | BatchReason::TooManyFailures
                | BatchReason::NothingStarts
                | BatchReason::Until
                | BatchReason::Drain
                | BatchReason::Stop
                | BatchReason::Settled => {}
            },
            BatchState::Stopping => self.close_stopping(reason),
        }
    }

    /// Whether hosts of this term are on the way, alive, or not yet reaped.
    fn has_hosts(&self) -> bool {
        let mut runs = self.facts().runs.keys();
        runs.any(|generation| !self.is_unresolved(*generation))
    }

    pub(super) fn all_settled(&self) -> bool {
        let index = self.index();
        let settled = [
            TaskState::Done,
            TaskState::Failed,
            TaskState::Cancelled,
            TaskState::Skipped,
        ];
        let settled: u32 = settled.iter().map(|state| index.count(*state)).sum();
        settled as usize == self.facts().tasks.len() && self.merges_settled()
    }

    /// Every merge has come to its end, and none waits for the operator.
    fn merges_settled(&self) -> bool {
        let forgotten = mutation::on(Mutation::ForgottenParking);
        self.index().merging.is_empty() && (forgotten || self.index().parked.is_empty())
    }

    fn close(&mut self) {
        let good = each(&self.facts().tasks).all(|(_, task)| is_good(task));
        let (to, ending) = if good {
            (BatchState::Done, Ending::Done)
        } else {
            (BatchState::Failed, Ending::Failed)
        };
        self.record(Record::BatchMoved {
            to,
            reason: BatchReason::Settled,
        });
        self.finish(ending);
    }

    fn close_stopping(&mut self, reason: BatchReason) {
        if self.all_settled() {
            self.close();
            return;
        }
        let proves = self.index().idle.iter().any(|ix| self.goes_on(*ix));
        if (proves || self.merges_move()) && self.may_prove() {
            return;
        }
        let failed = matches!(
            reason,
            BatchReason::TaskFailed(_) | BatchReason::MergeFailed(_) | BatchReason::TooManyFailures
        );
        if failed {
            self.skip_untried();
        }
        if failed && self.all_settled() {
            self.close();
            return;
        }
        self.record(Record::BatchMoved {
            to: BatchState::Interrupted,
            reason,
        });
        self.finish(interrupted(reason));
    }

    fn skip_untried(&mut self) {
        let untried: Vec<TaskIx> = each(&self.facts().tasks)
            .filter(|(_, task)| !task.state.is_terminal() && task.attempt.is_none())
            .map(|(ix, _)| ix)
            .collect();
        for task in untried {
            if !self.task(task).state.is_terminal() {
                let (to, reason) = (TaskState::Skipped, TaskReason::BatchStopped);
                self.record(Record::TaskEnded { task, to, reason });
            }
        }
        self.bury_mail();
    }

    /// Whether time alone, or a free lane, lets any task move.
    fn can_move(&self) -> bool {
        let index = self.index();
        // Lanes may be taken by attempts that wait for something themselves.
        let free = index.live.len() < self.facts().batch.lanes() as usize;
        let ready = index
            .ready
            .iter()
            .any(|(agent, set)| !set.is_empty() && free && self.has_lane(*agent));
        let goes_on = index.idle.iter().any(|ix| self.goes_on(*ix));
        ready || index.timers.moves_tasks() || goes_on || self.merges_move()
    }

    /// Hosts that this very turn began (clean-ups of what it skipped) are waited for: the turn with the
    /// last one's end finishes.
    fn finish(&mut self, ending: Ending) {
        if !self.has_hosts() {
            self.effect(Effect::Finish { ending });
        }
    }
}

/// Done, passed over on purpose, or no longer in the batch file when it was cut off.
fn is_good(task: &Task) -> bool {
    match task.state {
        TaskState::Done => task
            .merge
            .as_ref()
            .is_none_or(|merge| merge.state.is_good()),
        TaskState::Skipped => matches!(
            task.reason,
            TaskReason::SkippedByOperator | TaskReason::NotSelected | TaskReason::Removed
        ),
        TaskState::Cancelled => task.reason == TaskReason::Removed,
        TaskState::Pending
        | TaskState::Blocked
        | TaskState::Ready
        | TaskState::Running
        | TaskState::Verifying
        | TaskState::Reviewing
        | TaskState::Waiting
        | TaskState::Paused
        | TaskState::Failed => false,
    }
}

/// How a supervisor ends that ended its batch early.
fn interrupted(reason: BatchReason) -> Ending {
    if reason == BatchReason::NothingStarts {
        Ending::Environment
    } else {
        Ending::Interrupted
    }
}
