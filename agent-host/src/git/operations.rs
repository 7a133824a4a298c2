//! Merges, rebases and their like that somebody left half done in a worktree of ours.

use super::error::GitError;
use super::tree;
use super::worktree::Worktree;

/// What `git` keeps of them in a worktree's own git folder.
const STATE: &[&str] = &[
    "MERGE_HEAD",
    "MERGE_MSG",
    "MERGE_MODE",
    "MERGE_RR",
    "AUTO_MERGE",
    "SQUASH_MSG",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "REBASE_HEAD",
    "BISECT_LOG",
    "BISECT_START",
    "BISECT_NAMES",
    "BISECT_TERMS",
    "BISECT_RUN",
    "BISECT_EXPECTED_REV",
    "BISECT_ANCESTORS_OK",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
];

/// Forgets them; files, index and `HEAD` stay as they are.
///
/// # Errors
/// When a file can not be removed.
pub(super) fn forget(there: &Worktree) -> Result<(), GitError> {
    for name in STATE {
        tree::remove(&there.admin.join(name))?;
    }
    Ok(())
}
