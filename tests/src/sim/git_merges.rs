//! The merges of the repositories: what conflicts, what is proven, and where the batch branch goes.

use std::collections::{BTreeMap, BTreeSet};

use protocol::class::Class;
use protocol::git::{Concluded, Conflicted, GitOutcome, MergeCommit, MergeConflict, Merged, Oid};
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::retry::mix;

use super::git::{Commit, Done, Git, into};
use super::jobs::Candidate;
use super::world::{Told, broken};

/// The worktree of a repository's merges.
#[derive(Debug, Clone)]
pub(super) struct Merges {
    at: Oid,
    /// A conflict was left in it.
    open: bool,
    /// An agent resolved that.
    solved: bool,
}

impl Git {
    /// Whether these two commits conflict: the seed says so.
    fn conflicts(&self, tip: &Oid, commit: &Oid) -> bool {
        let hash = |oid: &Oid| {
            oid.as_str()
                .bytes()
                .fold(0, |all, byte| mix(all ^ u64::from(byte)))
        };
        !self.calm
            && mix(self.seed ^ hash(tip) ^ hash(commit).rotate_left(9)) % 1_000 < self.rates.0
    }

    /// Somebody else puts a commit on the batch branch.
    pub(super) fn intrude(&mut self, repo: RepoIx) {
        let tip = self.tip(repo);
        let mut commit = self.commit(&tip);
        let piece = self.number();
        commit.holds.insert(piece);
        // It broke no proof where it came from.
        commit.mended.insert(piece);
        let oid = self.write(commit);
        self.refs.insert(into(repo), oid);
    }

    /// The worktree of merges is put to a commit, whatever was in it.
    pub(super) fn put(&mut self, repo: RepoIx, commit: &Oid, open: bool) {
        let merges = Merges {
            at: commit.clone(),
            open,
            solved: false,
        };
        self.merges.insert(repo, merges);
    }

    pub(super) fn merge(
        &mut self,
        repo: RepoIx,
        candidates: &[Candidate],
        take: u32,
        advance: bool,
    ) -> Told<Done> {
        let tip = self.tip(repo);
        let mut last = tip.clone();
        let (mut merges, mut conflicts, mut taken) = (Vec::new(), Vec::new(), 0);
        for candidate in candidates {
            self.may_merge(candidate)?;
            let task = candidate.id.clone();
            if self.holds(repo, candidate.task) {
                let commit = tip.clone();
                merges.push(MergeCommit { task, commit });
            } else if self.conflicts(&last, &candidate.commit) {
                conflicts.push(MergeConflict {
                    task,
                    with: last.clone(),
                    by: Vec::new(),
                    files: vec!["a.rs".to_owned()],
                    kinds: BTreeMap::new(),
                });
            } else if taken < take {
                taken += 1;
                last = self.join(&last, candidate, false);
                let commit = last.clone();
                merges.push(MergeCommit { task, commit });
            }
        }
        self.put(repo, &last, false);
        if advance && last != tip {
            self.move_to(repo, &last)?;
        }
        Done::git(GitOutcome::Merged(Merged {
            warnings: Vec::new(),
            tip,
            merges,
            conflicts,
        }))
    }

    /// Only what was ruled done is merged, and nothing else of it.
    fn may_merge(&self, candidate: &Candidate) -> Told {
        if self.delivered.get(&candidate.task) == Some(&candidate.commit) {
            return Ok(());
        }
        let (task, commit) = (candidate.task.0, candidate.commit.short());
        broken(
            "I5 only what was ruled done is merged",
            format!("{commit} of t{task}"),
        )
    }

    /// The merge commit of a candidate on top of another commit.
    fn join(&mut self, tip: &Oid, candidate: &Candidate, solved: bool) -> Oid {
        let mut commit = self.commit(tip);
        let theirs = self.commit(&candidate.commit);
        if solved {
            commit.mended.extend(&theirs.holds);
        }
        commit.holds.extend(theirs.holds);
        commit.mended.extend(theirs.mended);
        commit.line.push(candidate.task);
        self.write(commit)
    }

    pub(super) fn verify_merge(&mut self, repo: RepoIx, commit: &Oid) -> Told<Done> {
        let at = self.merges.get(&repo).map(|merges| merges.at.clone());
        if at.as_ref() != Some(commit) {
            return broken(
                "I5 the merge that is verified is the one that is due",
                format!("{} is due, {at:?} is checked out", commit.short()),
            );
        }
        let Commit { holds, mended, .. } = self.commit(commit);
        if holds.difference(&mended).any(|piece| self.breaks(*piece)) {
            return Done::failed(Class::VerifyFailed);
        }
        self.good_merges.insert(commit.clone());
        Ok(Done::default())
    }

    pub(super) fn advance(
        &mut self,
        repo: RepoIx,
        from: &Oid,
        to: &Oid,
        verify: bool,
    ) -> Told<Done> {
        let tip = self.tip(repo);
        let (now, then) = (self.commit(&tip), self.commit(to));
        let beyond = now.line.starts_with(&then.line) && then.holds.is_subset(&now.holds);
        if !beyond && tip != *from {
            return Done::failed(Class::SetupFailed);
        }
        if !beyond {
            if verify && !self.good_merges.contains(to) {
                return broken(
                    "I7 the batch branch moves only to what was proven",
                    format!("{} was not", to.short()),
                );
            }
            self.move_to(repo, to)?;
        }
        Done::git(GitOutcome::Advanced {})
    }

    /// The batch branch moves.
    fn move_to(&mut self, repo: RepoIx, to: &Oid) -> Told {
        let tip = self.tip(repo);
        let (before, after) = (self.commit(&tip), self.commit(to));
        let forward = after.line.starts_with(&before.line) && before.holds.is_subset(&after.holds);
        if !forward {
            return broken("I7 the batch branch only grows", into(repo));
        }
        let once: BTreeSet<TaskIx> = after.line.iter().copied().collect();
        if once.len() < after.line.len() {
            return broken("I7 nothing is merged twice", format!("{:?}", after.line));
        }
        self.refs.insert(into(repo), to.clone());
        Ok(())
    }

    pub(super) fn conflict(&mut self, repo: RepoIx, candidate: &Candidate) -> Told<Done> {
        self.may_merge(candidate)?;
        let tip = self.tip(repo);
        let there = self.holds(repo, candidate.task);
        let open = !there && self.conflicts(&tip, &candidate.commit);
        self.put(repo, &tip, open);
        let files = match open {
            true => [("a.rs".to_owned(), "contents".to_owned())].into(),
            false => BTreeMap::new(),
        };
        Done::git(GitOutcome::Conflicted(Conflicted { tip, files }))
    }

    /// An agent works on the conflict that was left, with or without success.
    pub(super) fn resolve(&mut self, repo: RepoIx, solved: bool) -> Told<Done> {
        if let Some(merges) = self.merges.get_mut(&repo) {
            merges.solved |= solved;
        }
        Ok(Done::default())
    }

    pub(super) fn conclude(
        &mut self,
        repo: RepoIx,
        tip: &Oid,
        candidate: &Candidate,
    ) -> Told<Done> {
        let Some(merges) = self.merges.get(&repo).cloned() else {
            return Done::failed(Class::SetupFailed);
        };
        if merges.open && !merges.solved {
            let markers = vec!["a.rs".to_owned()];
            let commit = None;
            return Done::git(GitOutcome::Concluded(Concluded { commit, markers }));
        }
        let commit = self.join(tip, candidate, merges.solved);
        self.merges.insert(
            repo,
            Merges {
                at: commit.clone(),
                ..merges
            },
        );
        Done::git(GitOutcome::Concluded(Concluded {
            commit: Some(commit),
            markers: Vec::new(),
        }))
    }
}
