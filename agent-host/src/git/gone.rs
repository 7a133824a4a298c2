//! A worktree that is to be salvaged and is not there any more.

use std::fs;
use std::path::Path;

use git2::{ObjectType, TreeWalkMode, TreeWalkResult};
use protocol::git::{Kept, Salvage, Salvaged};

use super::Hands;
use super::error::GitError;
use super::worktree;

/// The salvage before this one, where the folder is gone because a removal that it allowed was cut off:
/// it holds all there was. `None` while the folder is there.
///
/// # Errors
/// When the folder is gone and nothing says that it was us, or that salvage can not be read.
pub(super) fn last(hands: &Hands, work: &Salvage) -> Result<Option<Salvaged>, GitError> {
    let folder = Path::new(&work.worktree);
    if fs::symlink_metadata(folder).is_ok() {
        return Ok(None);
    }
    // What was the folder is the last thing to go, after the entry.
    let is_going = fs::symlink_metadata(worktree::going(folder)?).is_ok();
    let is_ours = is_going || worktree::entry_of(&hands.repo.common, folder)?.is_none();
    match &work.last {
        Some(last) if is_ours => salvaged(hands, last).map(Some),
        Some(_) | None => Err(GitError::Unfit(format!(
            "{} is gone, and not by us: if it was moved, move it back; if it was removed for good, make an \
             empty folder in its place",
            folder.display()
        ))),
    }
}

fn salvaged(hands: &Hands, last: &Kept) -> Result<Salvaged, GitError> {
    if hands.repo.tip(&last.reference)?.as_ref() != Some(&last.commit) {
        return Err(GitError::Unfit(format!(
            "{} is not at {} any more, which held what was there",
            last.reference, last.commit
        )));
    }
    let raw = &hands.repo.raw;
    let unread = |error: git2::Error| hands.repo.unread(&last.reference, &error);
    let commit = hands.repo.raw_id(&last.commit)?;
    let tree = raw.find_commit(commit).and_then(|commit| commit.tree());
    let odb = raw.odb().map_err(unread)?;
    let (mut files, mut bytes) = (0, 0);
    let counted = tree.and_then(|tree| {
        tree.walk(TreeWalkMode::PreOrder, |_, entry| {
            if entry.kind() == Some(ObjectType::Blob) {
                files += 1;
                let size = odb.read_header(entry.id()).map_or(0, |(size, _)| size);
                bytes += u64::try_from(size).unwrap_or(u64::MAX);
            }
            TreeWalkResult::Ok
        })
    });
    counted.map_err(unread)?;
    Ok(Salvaged {
        reference: last.reference.clone(),
        commit: last.commit.clone(),
        files,
        bytes,
        skipped: Vec::new(),
    })
}
