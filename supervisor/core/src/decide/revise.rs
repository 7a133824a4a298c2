//! The batch file was edited: the batch takes what it says now. The rules are in [`crate::revision`].

use std::sync::Arc;

use super::{Desk, GRACE};
use crate::effect::Refusal;
use crate::machine::{BatchState, TaskState};
use crate::plan::{OnFailure, Plan, RetryMode, TaskIx};
use crate::reason::{BatchReason, TaskReason};
use crate::record::{Next, PlanRevised, Record, StopReason};
use crate::revision::{self, Revision};

impl Desk<'_> {
    /// Takes another reading of the batch file; answers what that changed.
    pub(super) fn revise(&mut self, plan: Plan) -> Result<Arc<str>, Refusal> {
        let revision = revision::compare(self.facts(), plan);
        let revision = revision.map_err(|unfit| Refusal::Unfit(unfit.to_string().into()))?;
        if revision.is_empty() {
            return Ok("the batch file says what it said before".into());
        }
        let said = format!(
            "took the edited batch file: {} changed, {} new, {} removed",
            revision.revised.len(),
            revision.added.len(),
            revision.removed.len()
        );
        self.take(revision);
        Ok(said.into())
    }

    fn take(&mut self, revision: Revision) {
        self.record(Record::PlanRevised(Box::new(PlanRevised {
            revision: self.facts().batch.revision + 1,
            settings: revision.settings,
            agents: revision.agents,
            accounts: revision.accounts,
            repos: revision.repos,
        })));
        self.extend(revision.specs, revision.added);
        for (task, rules) in revision.revised {
            self.record(Record::TaskRevised { task, rules });
        }
        for task in revision.returned {
            let (mode, attempts) = (RetryMode::Resume, None);
            self.record(Record::Reopened {
                task,
                mode,
                attempts,
            });
        }
        for task in revision.removed {
            self.remove(task);
        }
        self.record(Record::PlanClosed);
        self.go_on_under_new_rules();
    }

    fn remove(&mut self, task: TaskIx) {
        self.record(Record::TaskRemoved { task });
        if let Some(generation) = self.live_run(task) {
            // What could not be judged is ended once it can be.
            if !matches!(self.task(task).reason, TaskReason::Unresolved(_)) {
                self.stop(generation, StopReason::Removed, GRACE);
            }
        } else if self.task(task).attempt.is_some() {
            let detail = "no longer in the batch file";
            self.cancel_idle(task, detail, TaskReason::Removed);
        }
    }

    /// No other attempt follows where the batch file no longer has the task.
    pub(super) fn end_removed(&self, ix: TaskIx, next: Next) -> Next {
        match next {
            Next::Retry { .. } | Next::Hold { .. } if self.task(ix).removed => Next::End {
                to: TaskState::Cancelled,
                reason: TaskReason::Removed,
            },
            Next::Retry { .. } | Next::Hold { .. } | Next::End { .. } => next,
        }
    }

    /// What held the batch up may be allowed now, or the other way round.
    fn go_on_under_new_rules(&mut self) {
        let batch = &self.facts().batch;
        let settings = &batch.settings;
        let late = settings.until.is_some_and(|at| at <= self.now.wall);
        let goes_on = match (batch.state, batch.reason) {
            (BatchState::Paused, BatchReason::Limit(_)) => self.limit_reached().is_none(),
            (BatchState::Stopping, BatchReason::TaskFailed(_) | BatchReason::MergeFailed(_)) => {
                settings.on_failure != OnFailure::Stop && !self.too_many_failed()
            }
            (BatchState::Stopping, BatchReason::TooManyFailures) => !self.too_many_failed(),
            (BatchState::Stopping, BatchReason::Until) => !late,
            (BatchState::Done | BatchState::Failed, _) => !self.all_settled(),
            (
                BatchState::Running
                | BatchState::Paused
                | BatchState::Stopping
                | BatchState::Interrupted,
                _,
            ) => false,
        };
        if goes_on {
            let (to, reason) = (BatchState::Running, BatchReason::Working);
            self.record(Record::BatchMoved { to, reason });
        }
        if self.facts().batch.state == BatchState::Running {
            self.check_limits();
        }
    }
}
