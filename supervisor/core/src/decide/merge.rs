//! Merges: one round at a time in each repository, from the candidates to the batch branch.
//!
//! A round merges some commits in a worktree of its own, proves them together, and moves the batch
//! branch only then; so a merge that is bad is undone by forgetting it. What the branch holds
//! already counts as merged, so a round that was cut off anywhere is begun again without harm.

use std::collections::BTreeSet;
use std::sync::Arc;

use protocol::class::Class;
use protocol::git::{GitOutcome, MergeConflict, Merged, Oid};
use protocol::report::{ResultStatus, RunResult};

use super::Desk;
use super::failure::{Failure, reported};
use super::step::some_of;
use crate::facts::{Round, Task};
use crate::machine::MergeState;
use crate::mutation::{self, Mutation};
use crate::plan::{OnConflict, RepoIx, TaskIx};
use crate::reason::BatchReason;
use crate::record::Record;
use crate::retry::{self, Group};
use crate::step::{Purpose, Stage};

/// Candidates that a round looks at, at least: among these those with the fewest conflicts go first.
const CANDIDATES_MIN: usize = 16;
/// Agents that may try to resolve one conflict before the operator has to.
const TRIES_MAX: u32 = 2;

impl Desk<'_> {
    /// Begins rounds where nothing is being merged, and goes on with those whose next run is due.
    pub(super) fn merge(&mut self) {
        let rounds = self.facts().repos.iter().any(|repo| repo.round.is_some());
        if (self.index().merging.is_empty() && !rounds) || !self.may_prove() {
            return;
        }
        let repos = u32::try_from(self.facts().repos.len()).unwrap_or(u32::MAX);
        for repo in (0..repos).map(RepoIx) {
            match self.round(repo) {
                Some(round) if round.run.is_some() => {
                    if mutation::on(Mutation::SecondRound) {
                        self.stage(repo);
                    }
                }
                Some(round) if self.is_whole(round) => self.stage(repo),
                // Its end was cut off: what the branch holds is found there by the next round.
                Some(_) => {
                    self.record(Record::RoundEnded { repo, share: None });
                    self.begin_round(repo);
                }
                None => self.begin_round(repo),
            }
        }
    }

    pub(super) fn round(&self, repo: RepoIx) -> Option<&Round> {
        self.facts().repos.get(repo.0 as usize)?.round.as_ref()
    }

    /// Whether commands prove the merges of the round.
    fn is_verified(&self, repo: RepoIx) -> bool {
        self.round(repo).is_some_and(|round| round.verify)
    }

    /// Whether every task of a round is where its stage needs it.
    fn is_whole(&self, round: &Round) -> bool {
        let at = |task: &TaskIx, fits: &[MergeState]| {
            self.merge_state(*task)
                .is_some_and(|state| fits.contains(&state))
        };
        let (resolving, verifying) = (MergeState::Resolving, MergeState::Verifying);
        match round.stage {
            Stage::Merge => round.tasks.iter().all(|it| at(it, &[MergeState::Merging])),
            Stage::Checkout | Stage::Verify | Stage::Advance => round
                .commits
                .iter()
                .all(|(it, _)| at(it, &[verifying, resolving])),
            Stage::Conflict | Stage::Resolve => round.tasks.iter().all(|it| at(it, &[resolving])),
            Stage::Conclude => {
                let mut tasks = round.tasks.iter();
                tasks.all(|it| at(it, &[resolving, verifying]))
            }
        }
    }

    /// Whether a merge can still move by itself.
    pub(super) fn merges_move(&self) -> bool {
        let repos = u32::try_from(self.facts().repos.len()).unwrap_or(u32::MAX);
        self.may_prove()
            && (0..repos).map(RepoIx).any(|repo| match self.round(repo) {
                // A run that could not be judged is not waited for; every other one is a host.
                Some(round) => round.run.is_none(),
                None => self.next_broken(repo).is_some() || self.next_queued(repo).next().is_some(),
            })
    }

    /// A merge that an agent may resolve now.
    fn next_broken(&self, repo: RepoIx) -> Option<TaskIx> {
        let mut waiting = self.index().merges.get(&repo)?.iter().copied();
        waiting.find(|ix| self.is_broken(*ix) && self.may_resolve(repo, *ix))
    }

    /// Merges whose turn it may be, in the order of the plan.
    fn next_queued(&self, repo: RepoIx) -> impl Iterator<Item = TaskIx> + '_ {
        let waiting = self.index().merges.get(&repo).into_iter().flatten();
        let queued = |ix: &TaskIx| self.merge_state(*ix) == Some(MergeState::Queued);
        waiting
            .copied()
            .filter(move |ix| queued(ix) && !self.waits_for_merge(*ix))
    }

    fn is_broken(&self, ix: TaskIx) -> bool {
        let state = self.merge_state(ix);
        matches!(state, Some(MergeState::Conflict | MergeState::RolledBack))
    }

    /// Whether an agent may resolve this merge now: it costs tokens, as an attempt does.
    fn may_resolve(&self, repo: RepoIx, task: TaskIx) -> bool {
        let account = self.resolver_account(repo, task);
        self.may_work() && account.is_some_and(|account| self.is_usable(account))
    }

    pub(super) fn begin_round(&mut self, repo: RepoIx) {
        self.rule_on_broken(repo);
        let (stage, tasks) = match self.next_broken(repo) {
            Some(task) => (Stage::Conflict, vec![task]),
            None => {
                let group = self.facts().repos[repo.0 as usize].spec.group as usize;
                (
                    Stage::Merge,
                    self.share_round(repo, group.max(CANDIDATES_MIN)),
                )
            }
        };
        if !tasks.is_empty() {
            self.record(Record::RoundBegan { repo, stage, tasks });
            self.stage(repo);
        }
    }

    /// Those whose turn it may be, `most` at most; fewer where one of them must not share its round
    /// with so many.
    fn share_round(&self, repo: RepoIx, mut most: usize) -> Vec<TaskIx> {
        let mut tasks = Vec::new();
        for task in self.next_queued(repo) {
            let share = self.task(task).merge.as_ref().and_then(|it| it.share);
            most = most.min(share.map_or(most, |share| share as usize));
            if tasks.len() >= most {
                break;
            }
            tasks.push(task);
        }
        tasks
    }

    /// A crash may have come between a conflict and the ruling on it.
    fn rule_on_broken(&mut self, repo: RepoIx) {
        let waiting = self.index().merges.get(&repo).into_iter().flatten();
        let broken: Vec<TaskIx> = waiting.copied().filter(|ix| self.is_broken(*ix)).collect();
        for task in broken {
            let merge = self.task(task).merge.as_ref();
            let detail = merge.map_or_else(Arc::default, |merge| merge.trouble.clone());
            self.rule_on_conflict(repo, task, &detail);
        }
    }

    pub(super) fn merge_state(&self, ix: TaskIx) -> Option<MergeState> {
        Some(self.task(ix).merge.as_ref()?.state)
    }

    /// A dependency of it is on its way to the batch branch and comes first.
    fn waits_for_merge(&self, ix: TaskIx) -> bool {
        if mutation::on(Mutation::UnorderedMerges) {
            return false;
        }
        let merging = &self.index().merging;
        let depends_on = self.task(ix).depends_on.iter();
        depends_on.into_iter().any(|on| merging.contains(&on.task))
    }

    pub(super) fn move_merge(&mut self, task: TaskIx, to: MergeState, detail: &str) {
        let merged = None;
        let detail = detail.into();
        self.record(Record::MergeMoved {
            task,
            to,
            merged,
            detail,
        });
    }

    /// Begins a run of the round's stage.
    pub(super) fn stage(&mut self, repo: RepoIx) {
        if !self.may_prove() {
            return;
        }
        let Some(round) = self.round(repo) else {
            return;
        };
        let merged = round.commits.first().map(|(task, _)| *task);
        let (stage, task) = (round.stage, merged.unwrap_or(round.tasks[0]));
        if stage == Stage::Resolve && !self.may_resolve(repo, task) {
            // Others need not wait until an agent may work on this one.
            self.record(Record::RoundEnded { repo, share: None });
            self.begin_round(repo);
            return;
        }
        let generation = self.next_generation();
        let token = self.token(generation);
        self.record(Record::RunIntended {
            generation,
            task,
            purpose: Purpose::Merge(repo, stage),
            token,
        });
        self.effect(crate::effect::Effect::SpawnHost { generation });
    }

    /// Goes on to a stage, with what changed in the round.
    fn go_to(&mut self, repo: RepoIx, stage: Stage, change: impl FnOnce(&mut Round)) {
        let Some(mut round) = self.round(repo).cloned() else {
            return;
        };
        change(&mut round);
        self.record(Record::RoundMoved {
            repo,
            stage,
            tip: round.tip,
            commits: round.commits,
            good: round.good,
            bad: round.bad,
            detail: round.detail,
        });
        self.stage(repo);
    }

    /// A run of a stage is over with a result that counts.
    pub(super) fn stage_over(&mut self, repo: RepoIx, stage: Stage, result: &RunResult) {
        match (stage, result.status, result.git.as_deref()) {
            (Stage::Advance, ResultStatus::Failed, _)
                if mutation::on(Mutation::IgnoredBranchMove) =>
            {
                self.advanced(repo);
            }
            (Stage::Merge, ResultStatus::Ok, Some(GitOutcome::Merged(done))) => {
                self.candidates_merged(repo, done.clone());
            }
            (Stage::Checkout, ResultStatus::Ok, Some(GitOutcome::CheckedOut {})) => {
                self.go_to(repo, Stage::Verify, |_| {});
            }
            (Stage::Verify, ResultStatus::Ok, _) => self.proven(repo),
            (Stage::Verify, ResultStatus::Failed, _) => {
                let failure = reported(result);
                // A proof that could not be made says nothing of what was merged.
                if retry::group(failure.class) == Group::OurSide {
                    self.stage_again(repo, &failure);
                } else {
                    self.merge_disproved(repo, result);
                }
            }
            (Stage::Advance, ResultStatus::Ok, Some(GitOutcome::Advanced {})) => {
                self.advanced(repo);
            }
            (Stage::Conflict, ResultStatus::Ok, Some(GitOutcome::Conflicted(found))) => {
                let (tip, clean) = (found.tip.clone(), found.files.is_empty());
                // What merges without a conflict by now needs no agent, unless its proof failed.
                let next = if clean && !self.was_rolled_back(repo) {
                    Stage::Conclude
                } else {
                    Stage::Resolve
                };
                self.go_to(repo, next, |round| round.tip = Some(tip));
            }
            (Stage::Resolve, ResultStatus::Ok, _) => {
                let task = self.round(repo).map(|round| round.tasks[0]);
                if let Some(account) = task.and_then(|task| self.resolver_account(repo, task)) {
                    self.account_went_well(account);
                }
                self.go_to(repo, Stage::Conclude, |_| {});
            }
            (Stage::Conclude, ResultStatus::Ok, Some(GitOutcome::Concluded(done))) => {
                match done.commit.clone() {
                    Some(commit) => self.resolved(repo, commit),
                    None => {
                        let detail = match done.markers.is_empty() {
                            true => {
                                "the merge is gone: nothing of it is there to be committed".into()
                            }
                            false => {
                                let left = some_of(&done.markers);
                                format!("markers of a conflict are left in: {left}")
                            }
                        };
                        self.unresolved_merge(repo, &detail);
                    }
                }
            }
            (Stage::Resolve, ResultStatus::Failed, _) => {
                let failure = reported(result);
                self.resolver_failed(repo, &failure);
            }
            (
                Stage::Merge | Stage::Checkout | Stage::Advance | Stage::Conflict | Stage::Conclude,
                ResultStatus::Failed,
                _,
            ) => self.stage_again(repo, &reported(result)),
            (
                Stage::Merge | Stage::Checkout | Stage::Advance | Stage::Conflict | Stage::Conclude,
                ResultStatus::Ok,
                _,
            ) => {
                let failure = Failure::new(Class::Protocol, "its run does not say what it did");
                self.stage_again(repo, &failure);
            }
        }
    }

    /// Whose work a conflict is with: tasks, or commits that are no merge of one.
    fn other_side(&self, done: &Merged, conflict: &MergeConflict) -> String {
        let name = |commit: &Oid| {
            let mut now = done.merges.iter();
            if let Some(merge) = now.find(|merge| merge.commit == *commit) {
                return merge.task.to_string();
            }
            let is_of = |task: &&Task| {
                let merge = task.merge.as_ref();
                merge.is_some_and(|merge| merge.merged.as_ref() == Some(commit))
            };
            let task = self.facts().tasks.iter().find(is_of);
            task.map_or_else(|| commit.short().to_owned(), |task| task.id.to_string())
        };
        match conflict.by.as_slice() {
            [] => conflict.with.short().to_owned(),
            by => by.iter().map(name).collect::<Vec<_>>().join(", "),
        }
    }

    fn candidates_merged(&mut self, repo: RepoIx, done: Merged) {
        let Some(round) = self.round(repo) else {
            return;
        };
        let mut open: BTreeSet<TaskIx> = round.tasks.iter().copied().collect();
        let ids = &self.index().ids;
        // Each task once, and none that was not asked for.
        let mut take = |id| ids.get(id).copied().filter(|ix| open.remove(ix));
        let commits: Vec<(TaskIx, Oid)> = done
            .merges
            .iter()
            .filter_map(|merge| Some((take(&merge.task)?, merge.commit.clone())))
            .collect();
        let conflicts: Vec<(TaskIx, String)> = done
            .conflicts
            .iter()
            .filter_map(|conflict| {
                let files = some_of(&conflict.files);
                let with = self.other_side(&done, conflict);
                let detail = format!("conflicts with {with} in: {files}");
                Some((take(&conflict.task)?, detail))
            })
            .collect();
        if commits.is_empty() && conflicts.is_empty() {
            let failure = Failure::new(Class::Protocol, "its run says of no task what it did");
            self.stage_again(repo, &failure);
            return;
        }
        for (task, detail) in &conflicts {
            self.move_merge(*task, MergeState::Conflict, detail);
            self.rule_on_conflict(repo, *task, detail);
        }
        for task in open {
            self.move_merge(task, MergeState::Queued, "waits for another round");
        }
        // What the branch held already was proven when it got there.
        let (there, new): (Vec<_>, Vec<_>) = commits
            .into_iter()
            .partition(|(_, commit)| *commit == done.tip);
        for (task, commit) in there {
            self.merged(task, commit);
        }
        if self.is_verified(repo) && !new.is_empty() {
            for (task, _) in &new {
                self.move_merge(*task, MergeState::Verifying, "");
            }
            if mutation::on(Mutation::UnprovenMerge) {
                return self.go_to(repo, Stage::Advance, |round| {
                    round.good = u32::try_from(new.len()).unwrap_or(0);
                    (round.tip, round.commits) = (Some(done.tip), new);
                });
            }
            self.go_to(repo, Stage::Verify, |round| {
                (round.tip, round.commits) = (Some(done.tip), new);
            });
            return;
        }
        // Where nothing proves them the branch moved with the merges.
        for (task, commit) in new {
            self.merged(task, commit);
        }
        self.record(Record::RoundEnded { repo, share: None });
        self.begin_round(repo);
    }

    fn merged(&mut self, task: TaskIx, commit: Oid) {
        self.record(Record::MergeMoved {
            task,
            to: MergeState::Merged,
            merged: Some(commit),
            detail: "".into(),
        });
    }

    /// The proof of the first `proving` merge commits went well.
    fn proven(&mut self, repo: RepoIx) {
        let Some(round) = self.round(repo) else {
            return;
        };
        let good = round.proving();
        match round.bad {
            Some(bad) if bad - good > 1 => {
                self.go_to(repo, Stage::Checkout, |round| round.good = good);
            }
            Some(_) | None => self.go_to(repo, Stage::Advance, |round| round.good = good),
        }
    }

    /// The proof of the first `proving` merge commits failed: half of them are tried, until the one
    /// that breaks it is known.
    fn merge_disproved(&mut self, repo: RepoIx, result: &RunResult) {
        let Some(round) = self.round(repo) else {
            return;
        };
        let (good, bad) = (round.good, round.proving());
        let detail: Arc<str> = result.summary.as_str().into();
        if bad - good > 1 {
            let stage = if mutation::on(Mutation::StaleMergeProof) {
                Stage::Verify
            } else {
                Stage::Checkout
            };
            self.go_to(repo, stage, |round| {
                (round.bad, round.detail) = (Some(bad), detail);
            });
        } else if good > 0 {
            self.go_to(repo, Stage::Advance, |round| {
                (round.bad, round.detail) = (Some(bad), detail);
            });
        } else {
            self.found_bad(repo, bad, &detail);
        }
    }

    /// The batch branch holds the first `good` merge commits.
    fn advanced(&mut self, repo: RepoIx) {
        let Some(round) = self.round(repo).cloned() else {
            return;
        };
        let good = round.good as usize;
        for (task, commit) in round.commits.iter().take(good).cloned() {
            self.merged(task, commit);
        }
        match round.bad {
            Some(bad) => self.found_bad(repo, bad, &round.detail),
            None => {
                self.record(Record::RoundEnded { repo, share: None });
                self.begin_round(repo);
            }
        }
    }

    /// The last of the first `bad` merge commits breaks the proof; those after it were made on top of it
    /// and are made anew.
    fn found_bad(&mut self, repo: RepoIx, bad: u32, detail: &str) {
        let Some(round) = self.round(repo).cloned() else {
            return;
        };
        let after = round.commits.iter().skip(bad as usize);
        for (task, _) in after {
            self.move_merge(
                *task,
                MergeState::Queued,
                "merged again without what broke the proof",
            );
        }
        let culprit = round.commits.get((bad as usize).saturating_sub(1));
        if let Some((task, _)) = culprit {
            let detail = format!("its merge broke the proof: {detail}");
            self.move_merge(*task, MergeState::RolledBack, &detail);
            self.rule_on_conflict(repo, *task, &detail);
        }
        self.record(Record::RoundEnded { repo, share: None });
        self.begin_round(repo);
    }

    /// What becomes of a merge that conflicts, or breaks the proof.
    fn rule_on_conflict(&mut self, repo: RepoIx, task: TaskIx, detail: &str) {
        let tries = self
            .task(task)
            .merge
            .as_ref()
            .map_or(0, |merge| merge.tries);
        match self.facts().repos[repo.0 as usize].spec.on_conflict {
            OnConflict::Agent(_) if tries < TRIES_MAX => {}
            OnConflict::Agent(_) | OnConflict::Park => {
                self.move_merge(task, MergeState::Parked, detail);
            }
            OnConflict::Fail => {
                self.move_merge(task, MergeState::Failed, detail);
                self.stop_for(BatchReason::MergeFailed(task));
            }
        }
    }

    fn was_rolled_back(&self, repo: RepoIx) -> bool {
        self.round(repo).is_some_and(|round| {
            let merge = self.task(round.tasks[0]).merge.as_ref();
            merge.is_some_and(|merge| merge.disproved)
        })
    }

    /// An agent resolved it, and the merge commit is made.
    fn resolved(&mut self, repo: RepoIx, commit: Oid) {
        let Some(task) = self.round(repo).map(|round| round.tasks[0]) else {
            return;
        };
        let verify = self.is_verified(repo);
        if verify && self.merge_state(task) == Some(MergeState::Resolving) {
            self.move_merge(task, MergeState::Verifying, "");
        }
        let stage = if verify {
            Stage::Verify
        } else {
            Stage::Advance
        };
        self.go_to(repo, stage, |round| {
            round.commits = vec![(task, commit)];
            round.good = u32::from(!verify);
        });
    }

    fn resolver_failed(&mut self, repo: RepoIx, failure: &Failure) {
        let task = self.round(repo).map(|round| round.tasks[0]);
        let account = task.and_then(|task| self.resolver_account(repo, task));
        match (retry::group(failure.class), account) {
            (Group::Account, Some(account)) => {
                self.limit_account(account, failure.class, failure.reset);
            }
            (Group::AccountStop, Some(account)) => self.stop_account(account, failure.class),
            (_, _) => {
                let detail = format!(
                    "the agent that resolves it failed ({}): {}",
                    failure.class, failure.detail
                );
                return self.unresolved_merge(repo, &detail);
            }
        }
        // Nobody tried: it is merged again, and waits for the account if it still conflicts.
        self.record(Record::RoundEnded { repo, share: None });
        self.begin_round(repo);
    }

    fn resolver_account(&self, repo: RepoIx, task: TaskIx) -> Option<crate::plan::AccountIx> {
        let agent = match self.facts().repos[repo.0 as usize].spec.on_conflict {
            OnConflict::Agent(Some(agent)) => agent,
            OnConflict::Agent(None) => self.spec(task).agent,
            OnConflict::Fail | OnConflict::Park => return None,
        };
        Some(self.facts().agents[agent.0 as usize].account)
    }

    /// The conflict is as it was; another agent tries, or the operator has to.
    pub(super) fn unresolved_merge(&mut self, repo: RepoIx, detail: &str) {
        let Some(task) = self.round(repo).map(|round| round.tasks[0]) else {
            return;
        };
        if self.merge_state(task) == Some(MergeState::Resolving) {
            self.move_merge(task, MergeState::Conflict, detail);
            self.rule_on_conflict(repo, task, detail);
        }
        self.record(Record::RoundEnded { repo, share: None });
        self.begin_round(repo);
    }
}
