//! Housekeeping of the operator's: `git gc --prune=now` removes what no ref held when it looked.
//!
//! Git writes objects first and the ref that reaches them last, so housekeeping that began in
//! between removes what was just made, and the ref with nothing below it stays. It is the operator's
//! repository, so housekeeping is not forbidden but outlasted: once the ref is there, a `git gc` that
//! runs is waited for, then what was made is looked up once more, and made again where something of
//! it is gone. Housekeeping that begins later sees the ref.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use git2::{ErrorCode, FileMode, Repository};
use protocol::git::{GitOutcome, GitWork, Oid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::error::GitError;
use super::repo::Repo;
use crate::clock;
use crate::kernel::watch_end;
use crate::run::read_bounded;

/// How often work is done that housekeeping takes away; each time takes a `git gc` or `git prune` of its own.
pub(super) const TIMES: u32 = 5;
/// How long one `git gc` is waited for: what it takes on the largest repositories.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How long it is waited for before its file is looked at again: the number may be another's by then.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
/// Most bytes of the file by which `git gc` says that it runs: a number and a name of a machine.
const LINE_MAX: u64 = 1 << 10;
/// Where that file is, in the shared git folder.
const RUNS: &str = "gc.pid";

/// Whether what this work made is there, now that housekeeping which may have removed it has ended.
///
/// # Errors
/// When housekeeping does not end, or the repository can not be read.
pub(super) fn outlast(repo: &Repo, work: &GitWork, made: &GitOutcome) -> Result<bool, GitError> {
    let made = commits(work, made);
    if made.iter().all(|(commit, base)| *base == Some(*commit)) {
        return Ok(true);
    }
    wait(repo)?;
    for (commit, base) in made {
        if !is_whole(repo, commit, base)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The commits that a work made, each with one that was there before.
fn commits<'a>(work: &'a GitWork, made: &'a GitOutcome) -> Vec<(&'a Oid, Option<&'a Oid>)> {
    match (work, made) {
        (GitWork::Commit(work), GitOutcome::Committed(made)) => {
            vec![(&made.commit, Some(&work.base))]
        }
        (GitWork::Conclude(work), GitOutcome::Concluded(made)) => {
            let made = made.commit.iter();
            made.map(|commit| (commit, Some(&work.tip))).collect()
        }
        (_, GitOutcome::Merged(made)) => {
            let merges = made.merges.iter();
            let made = merges.map(|merge| (&merge.commit, Some(&made.tip)));
            made.collect()
        }
        (_, GitOutcome::Salvaged(made)) => vec![(&made.commit, None)],
        // The rest makes no commit, or moves a branch to one that a worktree of ours holds.
        _ => Vec::new(),
    }
}

/// Waits for a `git gc` of this machine.
fn wait(repo: &Repo) -> Result<(), GitError> {
    let begun = clock::now();
    while let Some(pid) = at_work(&repo.common) {
        if begun.elapsed() >= WAIT_MAX {
            let (path, hours) = (repo.path.display(), WAIT_MAX.as_secs() / 3600);
            let text = format!("`git gc` (pid {pid}) works in {path} for more than {hours} h");
            return Err(GitError::Unfit(text));
        }
        pause(pid)
            .map_err(|error| GitError::file("wait for", &repo.common.join(RUNS))(error.into()))?;
    }
    Ok(())
}

/// Waits until a process ends, or for a moment.
fn pause(pid: Pid) -> Result<(), Errno> {
    let end = watch_end(pid);
    let mut ends: Vec<PollFd<'_>> = end
        .iter()
        .map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN))
        .collect();
    match poll(&mut ends, Some(&LOOK)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The `git gc` that says it works here, where it lives. One of another machine can not be seen, and
/// the file may have been left by a kill: neither is waited for.
fn at_work(common: &Path) -> Option<Pid> {
    let text = read_bounded(&common.join(RUNS), LINE_MAX).ok()?;
    let (pid, machine) = text.trim().split_once(' ')?;
    let own = rustix::system::uname();
    if own.nodename().to_bytes() != machine.as_bytes() {
        return None;
    }
    let pid = Pid::from_raw(pid.parse().ok()?)?;
    match test_kill_process(pid) {
        Ok(()) | Err(Errno::PERM) => Some(pid),
        Err(_) => None,
    }
}

/// Whether a commit is there with every file and folder that the base does not have; without a base,
/// and for a salvage's parts, with all of them. In a repository that fetches files when they are asked
/// for, files are not looked up.
///
/// # Errors
/// When the repository can not be read.
pub(super) fn is_whole(repo: &Repo, commit: &Oid, base: Option<&Oid>) -> Result<bool, GitError> {
    // Opened anew: what is gone may still be in memory.
    let fresh = Repo::open(&repo.path)?;
    let id = fresh.raw_id(commit)?;
    let base = base.map(|base| fresh.raw_id(base)).transpose()?;
    match look_up(&fresh.raw, id, base) {
        Ok(found) => Ok(found),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
        Err(error) => Err(fresh.unread(commit.as_str(), &error)),
    }
}

fn look_up(
    raw: &Repository,
    commit: git2::Oid,
    base: Option<git2::Oid>,
) -> Result<bool, git2::Error> {
    let commit = raw.find_commit(commit)?;
    let Some(base) = base else {
        // The first parent is what was checked out, and older; the others are parts of the salvage.
        for part in commit.parents().skip(1) {
            if !has_files(raw, None, &part.tree()?)? {
                return Ok(false);
            }
        }
        return has_files(raw, None, &commit.tree()?);
    };
    let base = raw.find_commit(base)?.tree()?;
    has_files(raw, Some(&base), &commit.tree()?)
}

/// Whether all is there that one tree has and the other has not.
fn has_files(
    raw: &Repository,
    base: Option<&git2::Tree<'_>>,
    tree: &git2::Tree<'_>,
) -> Result<bool, git2::Error> {
    let odb = raw.odb()?;
    let fetches = raw.config()?.get_string("extensions.partialclone").is_ok();
    let diff = raw.diff_tree_to_tree(base, Some(tree), None)?;
    let mut files = diff.deltas().map(|delta| delta.new_file());
    Ok(files.all(|file| {
        let is_elsewhere = file.mode() == FileMode::Commit || !file.exists();
        fetches || is_elsewhere || odb.exists(file.id())
    }))
}

/// The commit of a ref, where it and what it holds are there; the ref of one that is gone is put back to the
/// last one that its log knows and that is there, or else to `base`. Returns whether it was.
///
/// # Errors
/// When the repository can not be read, or the ref not be moved.
pub(super) fn put_back(
    hands: &super::Hands,
    reference: &str,
    base: Option<&Oid>,
) -> Result<bool, GitError> {
    let repo = &hands.repo;
    let found = repo.raw.find_reference(reference);
    let Some(at) = found.ok().and_then(|found| found.target()) else {
        return Ok(false);
    };
    let at = repo.name(at)?;
    if is_whole(repo, &at, base)? {
        return Ok(false);
    }
    let mut last = base.cloned();
    if let (Some(base), Ok(log)) = (base, repo.raw.reflog(reference)) {
        for entry in log.iter() {
            let before = repo.name(entry.id_old())?;
            if is_whole(repo, &before, Some(base))? {
                last = Some(before);
                break;
            }
        }
    }
    let why = "supervisor: what was here is gone";
    repo.move_ref(&hands.git, reference, Some(&at), last.as_ref(), why)
}

/// Lets a detached `HEAD` whose commit is gone name one that is there, and its index be made anew.
///
/// # Errors
/// When they can not be written.
pub(super) fn put_head(repo: &Repo, admin: &Path, commit: &Oid) -> Result<(), GitError> {
    let head = admin.join("HEAD");
    let text = read_bounded(&head, LINE_MAX).unwrap_or_default();
    let Ok(at) = Oid::try_from(text.trim().to_owned()) else {
        return Ok(());
    };
    if is_whole(repo, &at, Some(commit))? {
        return Ok(());
    }
    fs::write(&head, format!("{commit}\n")).map_err(GitError::file("write", &head))?;
    super::tree::remove(&admin.join("index")).map(drop)
}
