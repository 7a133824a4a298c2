//! Commits are merged into the batch branch, one after the other.
//!
//! Merge commits are made among the objects ([`super::join`]); the worktree follows, because its
//! attributes say how files are merged and because what was merged is verified in it. The branch
//! moves once, at the end, so a merge that was cut off is done again and comes to the same commits.

use std::path::Path;

use protocol::git::{
    Candidate, GitOutcome, Merge, MergeCommit, MergeConflict, Merged, Oid, PATHS_MAX,
};
use protocol::ids::TaskId;

use super::error::GitError;
use super::join::{Clash, Joined, commit, join};
use super::{Hands, advance, checkout, freshness, locks, makers, order};

/// Carries it out.
///
/// # Errors
/// When a commit is not here, the worktree can not be used, or the branch can not move. Then the branch
/// is where it was.
pub(super) fn perform(hands: &Hands, work: &Merge) -> Result<GitOutcome, GitError> {
    locks::heal_shared(&hands.repo, &[&work.into], hands.begun)?;
    for candidate in &work.candidates {
        hands.repo.must_have(&candidate.commit)?;
    }
    if work.advance {
        advance::refuse_checked_out(hands, &work.into)?;
    }
    let tip = tip(hands, work)?;
    let mut merging = Merging {
        hands,
        folder: Path::new(&work.worktree),
        at: tip.clone(),
        left: work.take,
        merges: Vec::new(),
        conflicts: Vec::new(),
    };
    checkout::put(hands, merging.folder, &tip)?;
    for place in order::of(&hands.repo, &tip, &work.candidates)? {
        merging.candidate(&work.candidates[place])?;
    }
    if work.advance && merging.at != tip {
        advance::forward(hands, &work.into, &tip, &merging.at)?;
    }
    let warnings = freshness::told(hands, work, &tip).into_iter().collect();
    Ok(GitOutcome::Merged(Merged {
        tip,
        merges: merging.merges,
        conflicts: merging.conflicts,
        warnings,
    }))
}

/// Where the branch is; it is made where it is missing.
fn tip(hands: &Hands, work: &Merge) -> Result<Oid, GitError> {
    if let Some(tip) = hands.repo.tip(&work.into)? {
        return Ok(tip);
    }
    let (into, pinned) = (&work.into, &work.pinned);
    hands.repo.must_have(pinned)?;
    let begins = "the batch begins";
    match hands
        .repo
        .move_ref(&hands.git, into, None, Some(pinned), begins)?
    {
        true => Ok(pinned.clone()),
        false => Err(GitError::Unfit(format!(
            "{into} was made by somebody else meanwhile"
        ))),
    }
}

struct Merging<'a> {
    hands: &'a Hands,
    folder: &'a Path,
    /// The last merge commit, or the tip.
    at: Oid,
    /// How many more may be merged.
    left: u32,
    merges: Vec<MergeCommit>,
    conflicts: Vec<MergeConflict>,
}

impl Merging<'_> {
    fn candidate(&mut self, candidate: &Candidate) -> Result<(), GitError> {
        let task = candidate.task.clone();
        if self.hands.repo.reaches(&self.at, &candidate.commit)? {
            let commit = self.at.clone();
            self.merges.push(MergeCommit { task, commit });
            return Ok(());
        }
        if self.left == 0 {
            return Ok(());
        }
        // It is there since the beginning; what an earlier candidate changed in it is checked out.
        let there = super::worktree::Worktree::get(self.hands, self.folder)?;
        match join(self.hands, &there, &self.at, &candidate.commit)? {
            Joined::Clash(clash) => {
                let by = makers::of(&self.hands.repo, &self.at, &candidate.commit, &clash.sides)?;
                self.conflicts.push(conflict(task, &self.at, by, clash));
            }
            Joined::Clean(tree) => {
                let made = commit(self.hands, &tree, &self.at, candidate)?;
                checkout::put(self.hands, self.folder, &made)?;
                self.left -= 1;
                self.at = made.clone();
                self.merges.push(MergeCommit { task, commit: made });
            }
        }
        Ok(())
    }
}

fn conflict(task: TaskId, with: &Oid, by: Vec<Oid>, clash: Clash) -> MergeConflict {
    let kinds: std::collections::BTreeMap<_, _> = clash.kinds.into_iter().take(PATHS_MAX).collect();
    MergeConflict {
        task,
        with: with.clone(),
        by,
        files: kinds.keys().cloned().collect(),
        kinds,
    }
}
