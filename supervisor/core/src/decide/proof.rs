//! The proof of an attempt's work: its verify runs, when they may start and what becomes of them.

use protocol::class::Class;
use protocol::command::RunKind;
use protocol::report::{ResultStatus, RunResult};

use super::Desk;
use super::failure::{Failure, HUNG};
use crate::machine::BatchState;
use crate::plan::TaskIx;
use crate::reason::BatchReason;
use crate::record::{Record, StopReason};
use crate::retry::{self, Group};

/// Verify runs of one attempt that may vanish or break before the attempt fails by their class.
const PROOFS_MAX: u32 = 5;

impl Desk<'_> {
    /// Whether verify runs may start: they are no agent's work, so a pause by the operator or by a
    /// limit does not hold them; a stop does, and a disk that takes no records.
    pub(super) fn may_prove(&self) -> bool {
        let batch = &self.facts().batch;
        match batch.state {
            BatchState::Running => true,
            BatchState::Paused => match batch.reason {
                BatchReason::Operator | BatchReason::Limit(_) => true,
                BatchReason::Working
                | BatchReason::NeedsPerson
                | BatchReason::Disk
                | BatchReason::TaskFailed(_)
                | BatchReason::TooManyFailures
                | BatchReason::NothingStarts
                | BatchReason::Until
                | BatchReason::Drain
                | BatchReason::Stop
                | BatchReason::Settled => false,
            },
            BatchState::Stopping => batch.reason != BatchReason::Stop,
            BatchState::Done | BatchState::Failed | BatchState::Interrupted => false,
        }
    }

    pub(super) fn start_proof(&mut self, ix: TaskIx) {
        let generation = self.next_generation();
        let token = self.token(generation);
        let kind = RunKind::Verify;
        self.record(Record::RunIntended {
            generation,
            task: ix,
            kind,
            token,
        });
        self.effect(crate::effect::Effect::SpawnHost { generation });
    }

    pub(super) fn proved(&mut self, ix: TaskIx, result: &RunResult) {
        match result.status {
            ResultStatus::Ok => self.done(ix),
            ResultStatus::Failed => {
                let class = result.class.unwrap_or(Class::VerifyFailed);
                let class = match retry::group(class) {
                    Group::Work | Group::OurSide => class,
                    Group::Account
                    | Group::AccountStop
                    | Group::Operator
                    | Group::Lost
                    | Group::Chosen => Class::VerifyFailed,
                };
                self.fail(ix, Failure::new(class, result.summary.as_str()));
            }
        }
    }

    /// A verify run was told to end.
    pub(super) fn proof_stopped(&mut self, ix: TaskIx, reason: StopReason) {
        match reason {
            // The agent's result stays with the open attempt; the proof is made after `run`.
            StopReason::Interrupted => {}
            StopReason::NoHello | StopReason::Protocol => {
                self.proof_again(ix, Failure::new(reason.class(), "its verify run broke"));
            }
            StopReason::Hung => self.proof_again(ix, Failure::new(reason.class(), HUNG)),
            StopReason::Silence
            | StopReason::NoProgress
            | StopReason::Timeout
            | StopReason::Budget
            | StopReason::Lingering
            | StopReason::Question
            | StopReason::Superseded
            | StopReason::Paused
            | StopReason::Killed
            | StopReason::Cancelled
            | StopReason::Removed => self.stopped(ix, reason, None),
        }
    }

    /// The work is done and only its proof is missing: prove again, a bounded number of times.
    pub(super) fn proof_again(&mut self, ix: TaskIx, failure: Failure) {
        let proofs = self
            .task(ix)
            .attempt
            .as_ref()
            .map_or(0, |attempt| attempt.proofs);
        let lost = failure.class == Class::Lost;
        let max = if lost {
            self.facts().batch.settings.lost_max
        } else {
            PROOFS_MAX
        };
        if proofs >= max {
            self.fail(ix, failure);
        } else if self.may_prove() {
            self.start_proof(ix);
        }
    }
}
