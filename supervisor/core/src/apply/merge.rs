//! Records of merges: whose turn it is, how far they are, and what that means for dependents.

use std::sync::Arc;

use protocol::git::Oid;
use protocol::ids::Generation;

use super::Apply;
use crate::core::{Change, ReplayError};
use crate::facts::{Merge, Repo, Round};
use crate::machine::{MergeState, TaskState};
use crate::plan::{Dependency, RepoIx, RepoSpec, TaskIx};
use crate::reason::TaskReason;
use crate::step::Stage;

/// A repository in which nothing was merged yet.
pub(super) fn new_repo(spec: &RepoSpec) -> Repo {
    Repo {
        spec: spec.clone(),
        round: None,
    }
}

/// What a round is after a record.
pub(super) struct Moved<'a> {
    pub(super) stage: Stage,
    pub(super) tip: &'a Option<Oid>,
    pub(super) commits: &'a [(TaskIx, Oid)],
    pub(super) good: u32,
    pub(super) bad: Option<u32>,
    pub(super) detail: &'a Arc<str>,
}

impl Apply<'_> {
    /// A task is done: its commit waits to be merged, where it changes anything.
    pub(super) fn begin_merge(&mut self, ix: TaskIx) -> Result<(), ReplayError> {
        let wall = self.entry.now.wall;
        let task = self.task(ix)?;
        let Some(attempt) = &task.attempt else {
            return Ok(());
        };
        let Some(commit) = attempt.commit.clone() else {
            return Ok(());
        };
        let state = if attempt.files == 0 {
            MergeState::None
        } else {
            MergeState::Queued
        };
        task.merge = Some(Merge {
            state,
            since: wall,
            commit,
            merged: None,
            tries: 0,
            disproved: false,
            share: None,
            trouble: "".into(),
            detail: "".into(),
        });
        self.state.index.note_merge(&self.state.facts, ix);
        Ok(())
    }

    pub(super) fn merge_moved(
        &mut self,
        ix: TaskIx,
        to: MergeState,
        merged: Option<&Oid>,
        detail: &Arc<str>,
    ) -> Result<(), ReplayError> {
        let (seq, wall) = (self.entry.seq, self.entry.now.wall);
        let fits = merged.is_some() == (to == MergeState::Merged);
        self.require(fits, "a merge names its commit, and only then")?;
        let task = self.task(ix)?;
        let Some(merge) = &mut task.merge else {
            return Err(ReplayError::Unknown { seq, what: "merge" });
        };
        let before = merge.state;
        let edge = merge.state.become_(to);
        let edge = edge.map_err(|edge| ReplayError::Edge { seq, edge })?;
        merge.since = wall;
        merge.merged = merged.cloned();
        merge.detail = detail.clone();
        if matches!(to, MergeState::Conflict | MergeState::RolledBack) {
            merge.trouble = detail.clone();
        }
        let again = to == MergeState::RolledBack && merge.disproved;
        if again || (before, to) == (MergeState::Resolving, MergeState::Conflict) {
            merge.tries += 1;
        } else if to == MergeState::Queued && before.is_settled() {
            (merge.tries, merge.disproved, merge.share) = (0, false, None);
        }
        merge.disproved |= to == MergeState::RolledBack;
        self.changes.push(Change::Merge(ix, edge));
        self.state.index.note_merge(&self.state.facts, ix);
        if before == MergeState::Failed {
            // Where failures do not stop others these counted as merged, and do not any more.
            return self.reopen_dependents(ix);
        }
        if to.is_settled() && to != MergeState::Parked {
            return self.settle_merged(ix);
        }
        Ok(())
    }

    /// Tells those that wait for the merge.
    fn settle_merged(&mut self, ix: TaskIx) -> Result<(), ReplayError> {
        let backs = self.state.index.dependents[ix.0 as usize].iter();
        let backs: Vec<Dependency> = backs.copied().collect();
        for back in backs {
            let waits = back.condition == crate::plan::Condition::Merged;
            if waits && self.settle_dependent(ix, back)? {
                let reason = TaskReason::DependencyFailed(ix);
                self.end_task(back.task, TaskState::Skipped, reason)?;
            }
        }
        Ok(())
    }

    pub(super) fn round_began(
        &mut self,
        repo: RepoIx,
        stage: Stage,
        tasks: &[TaskIx],
    ) -> Result<(), ReplayError> {
        let idle = self.repo(repo)?.round.is_none();
        let fits = idle && !tasks.is_empty();
        self.require(fits, "one round at a time, of at least one task")?;
        let to = match stage {
            Stage::Merge => MergeState::Merging,
            Stage::Conflict if tasks.len() == 1 => MergeState::Resolving,
            Stage::Conflict
            | Stage::Checkout
            | Stage::Verify
            | Stage::Advance
            | Stage::Resolve
            | Stage::Conclude => return Err(self.unknown("first stage of a round")),
        };
        for task in tasks {
            self.may_take_turn(repo, *task, to)?;
        }
        for task in tasks {
            self.put_merge(*task, to)?;
        }
        let repo = self.repo(repo)?;
        repo.round = Some(Round {
            verify: repo.spec.verify,
            stage,
            run: None,
            runs: 0,
            tasks: tasks.to_vec(),
            tip: None,
            commits: Vec::new(),
            good: 0,
            bad: None,
            detail: "".into(),
        });
        Ok(())
    }

    /// Whether a task may begin a round of this repository.
    fn may_take_turn(
        &mut self,
        repo: RepoIx,
        ix: TaskIx,
        to: MergeState,
    ) -> Result<(), ReplayError> {
        let task = self.task(ix)?;
        let (spec, state) = (task.spec, task.merge.as_ref().map(|merge| merge.state));
        let here = self.state.facts.specs[spec.0 as usize].worktree == Some(repo);
        let Some(mut state) = state.filter(|_| here) else {
            return Err(self.unknown("merge in this repository"));
        };
        let edge = state.become_(to);
        edge.map(|_| ()).map_err(|edge| self.illegal(edge))
    }

    /// Moves a merge as part of a round's record; what failed before stays said.
    fn put_merge(&mut self, ix: TaskIx, to: MergeState) -> Result<(), ReplayError> {
        let (seq, wall) = (self.entry.seq, self.entry.now.wall);
        let Some(merge) = &mut self.task(ix)?.merge else {
            return Err(ReplayError::Unknown { seq, what: "merge" });
        };
        let edge = merge.state.become_(to);
        let edge = edge.map_err(|edge| ReplayError::Edge { seq, edge })?;
        merge.since = wall;
        self.changes.push(Change::Merge(ix, edge));
        self.state.index.note_merge(&self.state.facts, ix);
        Ok(())
    }

    pub(super) fn round_moved(&mut self, ix: RepoIx, moved: &Moved<'_>) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let Some(round) = &mut self.repo(ix)?.round else {
            return Err(ReplayError::Unknown { seq, what: "round" });
        };
        let known = |(task, _): &(TaskIx, Oid)| round.tasks.contains(task);
        let all = u32::try_from(moved.commits.len()).unwrap_or(u32::MAX);
        let order = moved.good <= all && moved.bad.is_none_or(|bad| moved.good < bad && bad <= all);
        if round.run.is_some() || !order || !moved.commits.iter().all(known) {
            let why = "a round moves between two runs, with commits of its own";
            return Err(ReplayError::Unfit { seq, why });
        }
        if round.stage != moved.stage {
            round.runs = 0;
        }
        round.stage = moved.stage;
        round.tip.clone_from(moved.tip);
        round.commits = moved.commits.to_vec();
        (round.good, round.bad) = (moved.good, moved.bad);
        round.detail = moved.detail.clone();
        Ok(())
    }

    pub(super) fn round_ended(
        &mut self,
        ix: RepoIx,
        share: Option<u32>,
    ) -> Result<(), ReplayError> {
        let round = self.repo(ix)?.round.as_ref();
        let Some(round) = round.filter(|round| round.run.is_none()) else {
            return Err(self.unknown("round without a run"));
        };
        let (tasks, about) = (round.tasks.clone(), round.about());
        self.require(share != Some(0), "a round has room for one task")?;
        self.repo(ix)?.round = None;
        for task in tasks {
            let state = self.task(task)?.merge.as_ref().map(|merge| merge.state);
            if state.is_some_and(MergeState::is_under_way) {
                self.put_merge(task, MergeState::Queued)?;
            }
        }
        for task in about {
            if let Some(merge) = &mut self.task(task)?.merge {
                merge.share = share.or(merge.share);
            }
        }
        Ok(())
    }

    /// A run of the round's stage begins.
    pub(super) fn round_run(
        &mut self,
        ix: RepoIx,
        stage: Stage,
        task: TaskIx,
        generation: Generation,
    ) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let round = self.repo(ix)?.round.as_mut();
        let due = |round: &Round| {
            round.stage == stage && round.run.is_none() && round.tasks.contains(&task)
        };
        let due = round.filter(|round| due(round));
        let Some(round) = due else {
            return Err(ReplayError::Unknown {
                seq,
                what: "stage of a merge that is due",
            });
        };
        round.run = Some(generation);
        round.runs += 1;
        Ok(())
    }

    pub(super) fn repo(&mut self, ix: RepoIx) -> Result<&mut Repo, ReplayError> {
        let seq = self.entry.seq;
        let repo = self.state.facts.repos.get_mut(ix.0 as usize);
        repo.ok_or(ReplayError::Unknown {
            seq,
            what: "repository",
        })
    }
}
