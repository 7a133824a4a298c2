//! Runs of a merge that came to no end: they are begun again, and what is in the way is set apart.
//!
//! A commit on which `git` or a proof dies kills the run of every round that it is in. Who of a round
//! that is can not be known from outside, so the next rounds are of half as many, until it is alone.

use protocol::class::Class;

use super::Desk;
use super::failure::Failure;
use super::step::STEP_RUNS_MAX;
use crate::machine::MergeState;
use crate::plan::{RepoIx, TaskIx};
use crate::record::{Record, StopReason};
use crate::step::Stage;

impl Desk<'_> {
    /// A run of a stage is gone without a result that counts.
    pub(super) fn stage_broken(
        &mut self,
        repo: RepoIx,
        stage: Stage,
        stop: Option<StopReason>,
        failure: Failure,
    ) {
        match stop {
            // The stage is done after `run`.
            Some(StopReason::Interrupted) => {}
            Some(reason) if stage == Stage::Resolve => {
                let detail = format!(
                    "the agent that resolves it was stopped ({})",
                    reason.class()
                );
                self.unresolved_merge(repo, &detail);
            }
            Some(_) | None => self.stage_again(repo, &failure),
        }
    }

    /// The stage is done again, a bounded number of times. Then those that it is about are merged in
    /// smaller rounds; one that is alone is parked.
    pub(super) fn stage_again(&mut self, repo: RepoIx, failure: &Failure) {
        let Some(round) = self.round(repo) else {
            return;
        };
        let max = if failure.class == Class::Lost {
            self.facts().batch.settings.lost_max
        } else {
            STEP_RUNS_MAX
        };
        if round.runs < max {
            self.stage(repo);
            return;
        }
        let detail = format!(
            "{}: {}: {}",
            round.stage.word(),
            failure.class,
            failure.detail
        );
        let suspects = round.about();
        let is_theirs = match round.stage {
            Stage::Merge | Stage::Checkout | Stage::Verify => true,
            // The branch does not move, whoever is on it; and these are about one task.
            Stage::Advance | Stage::Conflict | Stage::Resolve | Stage::Conclude => false,
        };
        if is_theirs && suspects.len() > 1 {
            self.split_round(repo, &suspects, &detail);
        } else {
            self.end_round(repo, MergeState::Parked, &detail);
        }
    }

    /// A round that came to no end: one of its tasks may be in the way of all. They are merged in rounds
    /// of half as many, so that in the end only that one waits for the operator.
    fn split_round(&mut self, repo: RepoIx, suspects: &[TaskIx], detail: &str) {
        let share = u32::try_from(suspects.len() / 2).unwrap_or(u32::MAX);
        for task in suspects {
            let detail = format!("merged again with fewer others: {detail}");
            self.move_merge(*task, MergeState::Queued, &detail);
        }
        let share = Some(share);
        self.record(Record::RoundEnded { repo, share });
        self.begin_round(repo);
    }

    /// The round is over; what of it is not settled moves there.
    fn end_round(&mut self, repo: RepoIx, to: MergeState, detail: &str) {
        let Some(round) = self.round(repo).cloned() else {
            return;
        };
        for task in round.tasks {
            if self.merge_state(task).is_some_and(MergeState::is_under_way) {
                self.move_merge(task, to, detail);
            }
        }
        self.record(Record::RoundEnded { repo, share: None });
        self.begin_round(repo);
    }
}
