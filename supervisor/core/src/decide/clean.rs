//! Worktrees that go: only of ended tasks, and only once everything in them is kept elsewhere.

use protocol::class::Class;
use protocol::git::GitOutcome;
use protocol::report::{ResultStatus, RunResult};

use super::Desk;
use super::failure::{Failure, reported};
use super::step::STEP_RUNS_MAX;
use crate::facts::Salvage;
use crate::machine::{BatchState, MergeState};
use crate::mutation::{self, Mutation};
use crate::plan::{Keep, TaskIx};
use crate::record::{Record, StopReason};
use crate::step::{CleanStep, Purpose};

impl Desk<'_> {
    /// Goes on with clean-ups whose next run is due.
    pub(super) fn clean(&mut self) {
        if self.index().cleaning.is_empty() || !self.may_clean() {
            return;
        }
        let cleaning: Vec<TaskIx> = self.index().cleaning.iter().copied().collect();
        for ix in cleaning {
            let due = self
                .task(ix)
                .clean
                .as_ref()
                .is_some_and(|it| it.run.is_none());
            if due && !self.is_wanted_again(ix) {
                self.clean_step(ix);
            }
        }
    }

    /// The task was opened again before anything of its worktree was removed: then it stays.
    fn is_wanted_again(&mut self, ix: TaskIx) -> bool {
        let task = self.task(ix);
        let whole = task
            .clean
            .as_ref()
            .is_some_and(|clean| clean.step != CleanStep::Remove || clean.runs == 0);
        let wanted = !task.state.is_terminal() && whole;
        if wanted {
            self.end_clean(ix, false, "its task was opened again");
        }
        wanted
    }

    /// A stop and a disk that takes no records hold clean-ups; nothing else does, and they go on when
    /// the batch is over. Where there is nothing else to do, whatever the batch is at does not matter.
    pub(super) fn may_clean(&self) -> bool {
        if self.live.is_confined() {
            return !self.live.is_held();
        }
        match self.facts().batch.state {
            BatchState::Done | BatchState::Failed => !self.live.is_held(),
            BatchState::Running
            | BatchState::Paused
            | BatchState::Stopping
            | BatchState::Interrupted => self.may_prove(),
        }
    }

    /// Whether a clean-up goes on by itself; one whose run could not be judged does not.
    pub(super) fn cleans_move(&self) -> bool {
        let due = |ix: &TaskIx| {
            let clean = self.task(*ix).clean.as_ref();
            clean.is_some_and(|clean| clean.run.is_none())
        };
        self.may_clean() && self.index().cleaning.iter().any(due)
    }

    /// What the batch file says of the worktree of a task that is over; again after a crash, which may
    /// have come before it was said.
    pub(super) fn keep_or_clean(&mut self, ix: TaskIx) {
        let task = self.task(ix);
        let merge = task.merge.as_ref().map(|merge| merge.state);
        let over = task.state.is_terminal() && merge.is_none_or(MergeState::is_settled);
        let goes = match self.facts().batch.settings.keep {
            Keep::All => false,
            Keep::Failed => merge.is_some_and(MergeState::is_good),
            Keep::None => merge != Some(MergeState::Parked),
        };
        if over && goes {
            self.begin_clean(ix);
        }
    }

    /// The worktree of an ended task is to go; says why not, where it may not.
    pub(super) fn clean_task(&mut self, ix: TaskIx) -> &'static str {
        let task = self.task(ix);
        if task.clean.is_some() {
            return "its worktree is going already";
        }
        if task.worktree.is_none() {
            return "has no worktree";
        }
        if !task.state.is_terminal() {
            return "is not over: its worktree stays";
        }
        if task.merge.as_ref().is_some_and(|it| !it.state.is_settled()) {
            return "is being merged: its worktree stays";
        }
        self.begin_clean(ix);
        "its worktree goes"
    }

    /// What can be built again in the worktree of an ended task is to go; says why not, where it may
    /// not. While it goes the task is not opened again.
    pub(super) fn clean_build_output(&mut self, ix: TaskIx) -> &'static str {
        let task = self.task(ix);
        if task.clean.is_some() {
            return "its worktree is going already";
        }
        if task.worktree.is_none() {
            return "has no worktree";
        }
        if !task.state.is_terminal() {
            return "is not over: its worktree stays as it is";
        }
        self.move_clean(ix, CleanStep::BuildOutput, None);
        "its build output goes"
    }

    pub(super) fn begin_clean(&mut self, ix: TaskIx) {
        let task = self.task(ix);
        let busy =
            task.clean.is_some() || task.merge.as_ref().is_some_and(|it| !it.state.is_settled());
        if task.worktree.is_none() || busy || !task.state.is_terminal() {
            return;
        }
        if let (true, Some(kept)) = (
            mutation::on(Mutation::RemovalBeforeSalvage),
            task.salvaged.last().cloned(),
        ) {
            return self.move_clean(ix, CleanStep::Remove, Some(kept));
        }
        // Where a removal was cut off the hook has had its turn, and there may be nothing to run it in.
        let going = task.worktree.as_ref().is_some_and(|it| it.going);
        let step = if self.spec(ix).hooks.before_remove && !going {
            CleanStep::BeforeRemove
        } else {
            CleanStep::Salvage
        };
        self.move_clean(ix, step, None);
    }

    fn move_clean(&mut self, ix: TaskIx, step: CleanStep, kept: Option<Salvage>) {
        if self.is_wanted_again(ix) {
            return;
        }
        self.record(Record::CleanMoved {
            task: ix,
            step,
            kept,
        });
        if self.may_clean() {
            self.clean_step(ix);
        }
    }

    fn clean_step(&mut self, ix: TaskIx) {
        let Some(clean) = &self.task(ix).clean else {
            return;
        };
        let step = clean.step;
        let generation = self.next_generation();
        let token = self.token(generation);
        self.record(Record::RunIntended {
            generation,
            task: ix,
            purpose: Purpose::Clean(step),
            token,
        });
        self.effect(crate::effect::Effect::SpawnHost { generation });
    }

    /// A run of a clean-up is over with a result.
    pub(super) fn clean_over(&mut self, ix: TaskIx, step: CleanStep, result: &RunResult) {
        match (step, result.status, result.git.as_deref()) {
            (CleanStep::BeforeRemove, ResultStatus::Ok, _) => {
                self.move_clean(ix, CleanStep::Salvage, None);
            }
            (CleanStep::Salvage, ResultStatus::Ok, Some(GitOutcome::Salvaged(done))) => {
                let kept = Salvage {
                    reference: done.reference.as_str().into(),
                    commit: done.commit.clone(),
                };
                self.move_clean(ix, CleanStep::Remove, Some(kept));
            }
            (CleanStep::Remove, ResultStatus::Ok, Some(GitOutcome::Removed(done))) => {
                let detail = format!("{} bytes freed", done.bytes);
                self.end_clean(ix, true, &detail);
            }
            (CleanStep::BuildOutput, ResultStatus::Ok, Some(GitOutcome::BuildOutput(done))) => {
                let (count, bytes) = (done.folders.len(), done.bytes);
                let detail = format!("{bytes} bytes freed in {count} folders of build output");
                self.end_clean(ix, false, &detail);
                // What the batch file says of the worktree may have come in between.
                self.keep_or_clean(ix);
            }
            (
                CleanStep::BuildOutput
                | CleanStep::BeforeRemove
                | CleanStep::Salvage
                | CleanStep::Remove,
                _,
                _,
            ) => {
                let failure = reported(result);
                if failure.class == Class::Lost {
                    return self.clean_broken(ix, step, None, &failure);
                }
                let detail = format!("{}: {}: {}", step.word(), failure.class, failure.detail);
                self.end_clean(ix, false, &detail);
            }
        }
    }

    /// A run of a clean-up is gone without a result.
    pub(super) fn clean_broken(
        &mut self,
        ix: TaskIx,
        step: CleanStep,
        stop: Option<StopReason>,
        failure: &Failure,
    ) {
        if self.is_wanted_again(ix) {
            return;
        }
        let runs = self.task(ix).clean.as_ref().map_or(0, |clean| clean.runs);
        let max = if failure.class == Class::Lost {
            self.facts().batch.settings.lost_max
        } else {
            STEP_RUNS_MAX
        };
        if stop == Some(StopReason::Interrupted) {
            return;
        }
        if runs < max && self.may_clean() {
            self.clean_step(ix);
        } else if runs >= max {
            let detail = format!("{}: {}: {}", step.word(), failure.class, failure.detail);
            self.end_clean(ix, false, &detail);
        }
    }

    fn end_clean(&mut self, ix: TaskIx, removed: bool, detail: &str) {
        self.record(Record::CleanEnded {
            task: ix,
            removed,
            detail: detail.into(),
        });
    }
}
