//! The batch branch moves: only from where it is believed to be, only forward, and never under
//! somebody's feet.

use std::path::PathBuf;

use protocol::git::{Advance, GitOutcome, Oid};

use super::error::GitError;
use super::{Hands, folder, locks};

/// Carries it out.
///
/// # Errors
/// When the branch is elsewhere, would not move forward, or is checked out.
pub(super) fn perform(hands: &Hands, work: &Advance) -> Result<GitOutcome, GitError> {
    locks::heal_shared(&hands.repo, &[&work.into], hands.begun)?;
    let into = &work.into;
    let Some(now) = hands.repo.tip(into)? else {
        return Err(GitError::Unfit(format!(
            "there is no branch {into} to move"
        )));
    };
    if hands.repo.reaches(&now, &work.to)? {
        return Ok(GitOutcome::Advanced {});
    }
    if now != work.from {
        let text = format!(
            "{into} is at {now}, not at {}: somebody moved it",
            work.from
        );
        return Err(GitError::Unfit(text));
    }
    forward(hands, into, &work.from, &work.to)?;
    Ok(GitOutcome::Advanced {})
}

/// Moves a branch of ours forward.
///
/// # Errors
/// When it is not where it was, would lose commits, or is checked out.
pub(super) fn forward(hands: &Hands, into: &str, from: &Oid, to: &Oid) -> Result<(), GitError> {
    if !hands.repo.reaches(to, from)? {
        let text = format!("{into} can not move to {to}, which does not contain {from}");
        return Err(GitError::Unfit(text));
    }
    refuse_checked_out(hands, into)?;
    match hands
        .repo
        .move_ref(&hands.git, into, Some(from), Some(to), "merged")?
    {
        true => Ok(()),
        false => Err(GitError::Unfit(format!(
            "{into} moved away from {from} meanwhile"
        ))),
    }
}

/// Says so where a worktree has the branch checked out: moving it would make all that was merged look
/// deleted there. Worktrees of ours have the branches of tasks, or none.
///
/// # Errors
/// Then, and when the worktrees can not be listed.
pub(super) fn refuse_checked_out(hands: &Hands, branch: &str) -> Result<(), GitError> {
    let call = hands.git.at(&hands.repo.common);
    let out = call.args(["worktree", "list", "--porcelain", "-z"]).run()?;
    match holder(&out, branch) {
        None => Ok(()),
        Some(worktree) => Err(GitError::Unfit(format!(
            "{branch} is checked out in {}, so it is not moved: check out another branch there",
            worktree.display()
        ))),
    }
}

/// The worktree that has a branch, among those whose folders are there.
fn holder(listing: &[u8], branch: &str) -> Option<PathBuf> {
    let mut lines = listing.split(|&byte| byte == 0).peekable();
    while let Some(first) = lines.next() {
        let Some(path) = first.strip_prefix(b"worktree ") else {
            continue;
        };
        let (mut has, mut is_gone) = (false, false);
        while let Some(line) = lines.next_if(|line| !line.is_empty()) {
            has |= line.strip_prefix(b"branch ") == Some(branch.as_bytes());
            is_gone |= line.starts_with(b"prunable");
        }
        if has && !is_gone {
            return Some(folder::path(path));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_branch_is_found_where_its_folder_is() {
        let listing =
            b"worktree /r\0bare\0\0worktree /gone\0HEAD 1\0branch refs/heads/b\0prunable x\0\0\
            worktree /w\0HEAD 1\0branch refs/heads/b\0\0worktree /d\0HEAD 1\0detached\0\0";
        assert_eq!(holder(listing, "refs/heads/b"), Some("/w".into()));
        assert_eq!(holder(listing, "refs/heads/a"), None);
        assert_eq!(holder(b"", "refs/heads/a"), None);
    }
}
