//! A detached worktree of ours is put to a commit, whatever is in it: for merges and reviews.
//!
//! Ignored files stay: they are build output, and what makes the next verification quick.

use std::path::Path;

use protocol::git::{Checkout, GitOutcome, Oid};

use super::error::GitError;
use super::worktree::{self, Worktree};
use super::{Hands, housekeeping, operations, submodules};

/// Does the work.
///
/// # Errors
/// When the commit is not there, or `git` refuses.
pub(super) fn perform(hands: &Hands, work: &Checkout) -> Result<GitOutcome, GitError> {
    put(hands, Path::new(&work.worktree), &work.commit)?;
    Ok(GitOutcome::CheckedOut {})
}

/// Puts a worktree to a commit, without a branch; it is made where it is missing.
///
/// # Errors
/// As [`perform`].
pub(super) fn put(hands: &Hands, folder: &Path, commit: &Oid) -> Result<Worktree, GitError> {
    hands.repo.must_have(commit)?;
    if let Some(there) = Worktree::find(hands, folder)? {
        reset(hands, &there, commit)?;
        // A kill may have left a submodule that is half a repository.
        match submodules::fill(hands, &there, commit) {
            Ok(()) => return Ok(there),
            Err(error) if error.is_kill() => return Err(error),
            Err(_) => {}
        }
    }
    let there = make(hands, folder, commit)?;
    submodules::fill(hands, &there, commit)?;
    Ok(there)
}

fn make(hands: &Hands, folder: &Path, commit: &Oid) -> Result<Worktree, GitError> {
    worktree::clear(hands, folder)?;
    let (there, _complaints) = worktree::add(hands, folder, None, commit)?;
    Ok(there)
}

fn reset(hands: &Hands, there: &Worktree, commit: &Oid) -> Result<(), GitError> {
    operations::forget(there)?;
    housekeeping::put_head(&hands.repo, &there.admin, commit)?;
    let checkout = || {
        let call = there.call(&hands.git).args(["checkout", "-q", "-f"]);
        call.args(["--detach", commit.as_str()]).run()
    };
    if let Err(error) = checkout() {
        if error.is_kill() {
            return Err(error);
        }
        // An index that can not be read is made anew; whatever else it was is said the second time.
        super::tree::remove(&there.admin.join("index"))?;
        checkout()?;
    }
    let reset = there.call(&hands.git).args(["reset", "-q", "--hard"]);
    reset.run()?;
    // Twice `f`: repositories inside go too.
    let clean = there.call(&hands.git).args(["clean", "-q", "-ffd"]);
    clean.run().map(drop)
}
