//! A worktree goes, when every byte of it is kept by a commit that a ref reaches.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use git2::{Delta, ErrorCode, ObjectType};
use protocol::git::{GitOutcome, Oid, Remove, Removed};

use super::error::GitError;
use super::worktree::{self, Head, Worktree};
use super::{Hands, build_output, locks, salvage, submodules, tree};

/// Most files that a refusal names.
const NAMED_MAX: usize = 5;
/// The index with which the content is compared, beside the worktree's own.
const INDEX: &str = "supervisor-index";

/// Does the work; once it is done, again is nothing.
///
/// # Errors
/// When something in it is not kept, or it can not be removed.
pub(super) fn perform(hands: &Hands, work: &Remove) -> Result<GitOutcome, GitError> {
    let repo = &hands.repo;
    let folder = Path::new(&work.worktree);
    let going = worktree::going(folder)?;
    let holder = repo.tip(&work.kept_by)?;
    let is_held = match &holder {
        Some(tip) if repo.has_commit(&work.kept)? => repo.reaches(tip, &work.kept)?,
        Some(_) | None => false,
    };
    if !is_held {
        return Err(GitError::Unfit(format!(
            "{} does not reach {}, so {} stays",
            work.kept_by, work.kept, work.worktree
        )));
    }
    let bytes = match Worktree::find(hands, folder)? {
        Some(there) => {
            check_history(hands, work, &there)?;
            check_content(hands, work, &there)?;
            tree::size(folder) + tree::size(&there.admin)
        }
        None => tree::size(&going),
    };
    // Only what is ours, or empty, goes: `clear` refuses anything else.
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    let existed = is_there(folder) || is_there(&going);
    worktree::clear(hands, folder)?;
    build_output::remove_left(folder)?;
    // The one that holds what is kept is not deleted by any word.
    if let Some(branch) = work.branch.as_ref().filter(|one| **one != work.kept_by) {
        delete_branch(hands, work, branch)?;
    }
    Ok(GitOutcome::Removed(Removed { bytes, existed }))
}

/// Deletes the branch, where what is kept holds it.
fn delete_branch(hands: &Hands, work: &Remove, branch: &str) -> Result<(), GitError> {
    locks::heal_own_ref(&hands.repo.common, branch)?;
    let Some(tip) = hands.repo.tip(branch)? else {
        return Ok(());
    };
    if !hands.repo.reaches(&work.kept, &tip)? {
        return Ok(());
    }
    let why = "supervisor: the work is kept elsewhere";
    let repo = &hands.repo;
    // Not where it was any more: somebody works on it, and it stays.
    let _is_deleted = repo.move_ref(&hands.git, branch, Some(&tip), None, why)?;
    Ok(())
}

/// A detached `HEAD` may be the only name of commits.
fn check_history(hands: &Hands, work: &Remove, there: &Worktree) -> Result<(), GitError> {
    let Head::At(name) = there.head()? else {
        return Ok(());
    };
    let Ok(head) = Oid::try_from(name) else {
        return Ok(());
    };
    if !hands.repo.has_commit(&head)? || hands.repo.reaches(&work.kept, &head)? {
        return Ok(());
    }
    let call = hands.git.at(&hands.repo.common);
    let call = call.args(["for-each-ref", "--count=1", "--format=%(refname)"]);
    match call.args(["--contains", head.as_str()]).text()?.is_empty() {
        false => Ok(()),
        true => Err(GitError::Unfit(format!(
            "{} stays: its HEAD is at {head}, which neither {} nor any ref holds",
            work.worktree, work.kept
        ))),
    }
}

fn check_content(hands: &Hands, work: &Remove, there: &Worktree) -> Result<(), GitError> {
    match work.kept_by.starts_with(salvage::REFS) {
        true => check_salvaged(hands, work),
        false => check_committed(hands, work, there),
    }
}

/// Compares the content, as salvage keeps it, with what was salvaged, which may hold more.
fn check_salvaged(hands: &Hands, work: &Remove) -> Result<(), GitError> {
    let (now, modules) = salvage::content(hands, Path::new(&work.worktree))?;
    let repo = &hands.repo;
    let kept = repo.raw_id(&work.kept)?;
    let salvaged = salvage::modules_of(&repo.raw, kept);
    let salvaged = salvaged.map_err(|error| repo.unread("what was salvaged", &error))?;
    if modules.is_some() && modules != salvaged {
        return Err(GitError::Unfit(format!(
            "{} stays: {} does not hold what is in the repositories of its submodules",
            work.worktree, work.kept
        )));
    }
    let differ = || {
        let raw = &repo.raw;
        let (now, kept) = (raw.find_tree(now)?, raw.find_commit(kept)?.tree()?);
        let diff = raw.diff_tree_to_tree(Some(&now), Some(&kept), None)?;
        let lost = diff.deltas().filter(|delta| delta.status() != Delta::Added);
        let names = lost.map(|delta| delta.old_file().path_bytes().unwrap_or_default().to_owned());
        Ok(names.collect::<Vec<_>>())
    };
    let lost = differ().map_err(|error| repo.unread("what was salvaged", &error))?;
    match lost.is_empty() {
        true => Ok(()),
        false => Err(refusal(work, &lost)),
    }
}

/// Compares every file with the commit; ignored ones that it does not have may go.
fn check_committed(hands: &Hands, work: &Remove, there: &Worktree) -> Result<(), GitError> {
    if there.is_taken_over() {
        return Err(refusal(work, &[b".git".to_vec()]));
    }
    let index = there.admin.join(INDEX);
    tree::remove(&there.admin.join(format!("{INDEX}.lock")))?;
    tree::remove(&index)?;
    let call = || there.call(&hands.git).env("GIT_INDEX_FILE", &index);
    call().args(["read-tree", work.kept.as_str()]).run()?;
    // Exit 1: some differ; which ones is asked next.
    let refresh = call().args(["update-index", "-q", "--refresh"]);
    refresh.one_of(&[0, 1])?;
    let differ = call().args(["diff-files", "--name-only", "-z", "--diff-filter=d"]);
    let differ = differ.args(["--ignore-submodules=none"]).run()?;
    let others = call().args(["ls-files", "-z", "--others", "--exclude-standard"]);
    let others = others.run()?;
    tree::remove(&index)?;
    let mut lost = Vec::new();
    for name in names(&differ) {
        if !is_kept_raw(hands, work, there, name)? {
            lost.push(name.to_owned());
        }
    }
    lost.extend(names(&others).map(<[u8]>::to_owned));
    if !lost.is_empty() {
        return Err(refusal(work, &lost));
    }
    submodules::check_kept(hands, there, &work.kept)
}

fn names(told: &[u8]) -> impl Iterator<Item = &[u8]> {
    told.split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
}

fn refusal(work: &Remove, lost: &[Vec<u8>]) -> GitError {
    let shown = lost.iter().take(NAMED_MAX);
    let shown: Vec<_> = shown.map(|name| String::from_utf8_lossy(name)).collect();
    let more = match lost.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    GitError::Unfit(format!(
        "{} stays: {} does not hold what is in {}{more}",
        work.worktree,
        work.kept,
        shown.join(", ")
    ))
}

/// Whether the commit holds a file byte for byte as it is on the disk, past all filters: as a salvage
/// stores it.
fn is_kept_raw(
    hands: &Hands,
    work: &Remove,
    there: &Worktree,
    name: &[u8],
) -> Result<bool, GitError> {
    let name = Path::new(OsStr::from_bytes(name));
    let path = there.folder.join(name);
    let failed = || GitError::file("read", &path);
    let unread = |error: git2::Error| hands.repo.unread(&name.display().to_string(), &error);
    let commit = hands.repo.raw_id(&work.kept)?;
    let commit = hands.repo.raw.find_commit(commit).map_err(unread)?;
    let entry = match commit.tree().and_then(|tree| tree.get_path(name)) {
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(false),
        other => other.map_err(unread)?,
    };
    let meta = fs::symlink_metadata(&path).map_err(failed())?;
    let (id, mode) = if meta.is_symlink() {
        let target = fs::read_link(&path).map_err(failed())?;
        let bytes = target.as_os_str().as_bytes();
        let id = git2::Oid::hash_object(ObjectType::Blob, bytes).map_err(unread)?;
        (id, 0o120_000)
    } else if meta.is_file() {
        let id = git2::Oid::hash_file(ObjectType::Blob, &path).map_err(unread)?;
        let is_executable = meta.permissions().mode() & 0o100 != 0;
        (id, if is_executable { 0o100_755 } else { 0o100_644 })
    } else {
        return Ok(false);
    };
    Ok(entry.id() == id && entry.filemode() == mode)
}
