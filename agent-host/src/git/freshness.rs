//! The branch that the batch started from has moved: it is said, or the task's branch is rebased.
//!
//! A rebase that conflicts, or is killed, leaves the branch exactly as it was: where it was is noted
//! in the worktree's git folder before it begins, and that note goes when it has ended well.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use git2::Delta;
use protocol::git::{Freshness, Merge, Oid, Provision};

use super::error::GitError;
use super::worktree::{Head, Worktree};
use super::{Hands, folder, operations, submodules, tree};

/// Where the branch was before a rebase of ours.
const NOTE: &str = "supervisor-rebase";

/// The base of a worktree that is to be made.
///
/// # Errors
/// When the history can not be read.
pub(super) fn start(
    hands: &Hands,
    work: &Provision,
    base: &Oid,
    warnings: &mut Vec<String>,
) -> Result<Oid, GitError> {
    let Some(moved) = moved(hands, &Watched::of(work), base) else {
        return Ok(base.clone());
    };
    match moved.taken(hands, work.freshness, base)? {
        Ok(tip) => Ok(tip),
        Err(text) => {
            warnings.push(text);
            Ok(base.clone())
        }
    }
}

/// What is said before a merge of the base branch, where it is to be said. What is merged is what was
/// proven, so it is not rebased any more.
pub(super) fn told(hands: &Hands, work: &Merge, tip: &Oid) -> Option<String> {
    let watched = Watched {
        branch: work.watch.as_deref(),
        policy: work.freshness,
        pinned: &work.pinned,
    };
    moved(hands, &watched, tip).map(|moved| moved.text)
}

/// The base of a worktree that is there, after a rebase where one is wanted.
///
/// # Errors
/// When `git` fails in another way than by a conflict.
pub(super) fn again(
    hands: &Hands,
    work: &Provision,
    there: &Worktree,
    base: &Oid,
    warnings: &mut Vec<String>,
) -> Result<Oid, GitError> {
    let Some(moved) = moved(hands, &Watched::of(work), base) else {
        return Ok(base.clone());
    };
    let tip = match moved.taken(hands, work.freshness, base)? {
        Ok(tip) => tip,
        Err(text) => {
            warnings.push(text);
            return Ok(base.clone());
        }
    };
    let before = hands.repo.tip(&work.branch)?;
    if let Some(before) = &before
        && hands.repo.reaches(before, &tip)?
    {
        // Rebased already, by a work whose result was lost.
        return Ok(tip);
    }
    let is_on_branch = there.head()? == Head::On(work.branch.clone());
    let Some(before) = before.filter(|_| is_on_branch && is_clean(hands, there)) else {
        let text =
            "the branch is not rebased, because the worktree holds work that is not committed";
        warnings.push(format!("{}; {text}", moved.text));
        return Ok(base.clone());
    };
    if let Some(path) = in_the_way(hands, there, &before, &tip)? {
        let path = path.display();
        warnings.push(format!(
            "{}; the branch is not rebased, because {path} of the worktree is no part of it and would be \
             overwritten",
            moved.text
        ));
        return Ok(base.clone());
    }
    match rebase(hands, there, &work.branch, &before, &tip) {
        Ok(()) => Ok(tip),
        Err(error) => {
            undo_cut_off(hands, there, &work.branch)?;
            warnings.push(format!(
                "{}; rebasing onto it does not work, and the branch stays as it was: {error}",
                moved.text
            ));
            Ok(base.clone())
        }
    }
}

/// Puts a branch back whose rebase was killed.
///
/// # Errors
/// When it can not be put back.
pub(super) fn undo_cut_off(hands: &Hands, there: &Worktree, branch: &str) -> Result<(), GitError> {
    let note = note(there);
    let Ok(text) = fs::read_to_string(&note) else {
        return Ok(());
    };
    let before = Oid::try_from(text.trim().to_owned());
    let before = before.map_err(|error| GitError::Unfit(format!("{}: {error}", note.display())))?;
    let name = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    let call = || there.call(&hands.git);
    // Detached first: a rebase that was cut off may hold the branch.
    let detach = call().args(["checkout", "-q", "-f", "--detach", before.as_str()]);
    detach.run()?;
    operations::forget(there)?;
    let back = call().args(["checkout", "-q", "-f", "-B", name, before.as_str()]);
    back.run()?;
    submodules::fill(hands, there, &before)?;
    tree::remove(&note).map(drop)
}

fn note(there: &Worktree) -> PathBuf {
    there.admin.join(NOTE)
}

/// Whether nothing that is tracked differs from `HEAD`; what is not tracked a rebase leaves alone.
fn is_clean(hands: &Hands, there: &Worktree) -> bool {
    let call = there.call(&hands.git).args(["status", "--porcelain", "-z"]);
    let told = call.args(["--untracked-files=no"]).run();
    let half_done = [
        "MERGE_HEAD",
        "rebase-merge",
        "rebase-apply",
        "CHERRY_PICK_HEAD",
    ];
    let is_whole = !half_done.iter().any(|name| there.admin.join(name).exists());
    is_whole && told.is_ok_and(|told| told.is_empty())
}

/// A file of the worktree that no commit has and that a file of `onto` would replace: `git` does not ask
/// before it overwrites what is ignored.
fn in_the_way(
    hands: &Hands,
    there: &Worktree,
    before: &Oid,
    onto: &Oid,
) -> Result<Option<PathBuf>, GitError> {
    let repo = &hands.repo;
    let (before, onto) = (repo.raw_id(before)?, repo.raw_id(onto)?);
    let compared = || -> Result<Option<PathBuf>, git2::Error> {
        let raw = &repo.raw;
        let own = raw.find_commit(before)?.tree()?;
        let other = raw.find_commit(onto)?.tree()?;
        let diff = raw.diff_tree_to_tree(Some(&own), Some(&other), None)?;
        let mut added = diff.deltas().filter(|it| it.status() == Delta::Added);
        Ok(added.find_map(|it| {
            let path = folder::path(it.new_file().path_bytes()?);
            stranger_on(&there.folder, &path, &own)
        }))
    };
    compared().map_err(|error| repo.unread("what a rebase would add", &error))
}

/// The first thing on the way to a path, or at it, that is neither a folder to go through nor in the
/// tree.
fn stranger_on(folder: &Path, path: &Path, own: &git2::Tree<'_>) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    for part in path.components() {
        below.push(part);
        let meta = fs::symlink_metadata(folder.join(&below)).ok()?;
        let is_way = meta.is_dir() && below != path;
        if !is_way && own.get_path(&below).is_err() {
            return Some(below);
        }
    }
    None
}

/// Writes down where the branch is, so that it is on the disk before anything moves.
fn write_note(note: &Path, before: &Oid) -> Result<(), GitError> {
    let aside = note.with_extension("new");
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(before.as_str().as_bytes())?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&aside, note))
        .map_err(GitError::file("write", note))
}

fn rebase(
    hands: &Hands,
    there: &Worktree,
    branch: &str,
    before: &Oid,
    onto: &Oid,
) -> Result<(), GitError> {
    let note = note(there);
    write_note(&note, before)?;
    let call = there.call(&hands.git).by_committer(&hands.repo.identity());
    let call = call
        .set("rebase.autoStash=false")
        .set("rebase.updateRefs=false");
    call.args(["rebase", "-q", "--no-autosquash", onto.as_str()])
        .run()?;
    let now = match hands.repo.tip(branch)? {
        Some(now) if hands.repo.reaches(&now, onto)? => now,
        Some(_) | None => return Err(GitError::Unfit(format!("{branch} did not move"))),
    };
    // Left as they were, they would be taken for work of the agent.
    submodules::fill(hands, there, &now)?;
    tree::remove(&note).map(drop)
}

/// A branch that is watched, and the commit at which it was when the batch began.
struct Watched<'a> {
    branch: Option<&'a str>,
    policy: Freshness,
    pinned: &'a Oid,
}

impl<'a> Watched<'a> {
    fn of(work: &'a Provision) -> Self {
        Self {
            branch: work.watch.as_deref(),
            policy: work.freshness,
            pinned: &work.pinned,
        }
    }
}

/// The watched branch is elsewhere than where the batch began.
struct Moved {
    /// Where it is; absent where work can not follow it.
    tip: Option<Oid>,
    text: String,
}

impl Moved {
    fn away(text: String) -> Option<Self> {
        Some(Self { tip: None, text })
    }

    /// The commit that work from this base goes onto, else what is said instead: only a base that is
    /// part of it is left. The batch branch with merged dependencies is not.
    fn taken(
        &self,
        hands: &Hands,
        policy: Freshness,
        base: &Oid,
    ) -> Result<Result<Oid, String>, GitError> {
        let text = self.text.clone();
        Ok(match (policy, &self.tip) {
            (Freshness::Ignore | Freshness::Warn, _) => Err(text),
            (Freshness::Rebase, Some(tip)) if hands.repo.reaches(tip, base)? => Ok(tip.clone()),
            (Freshness::Rebase, Some(_)) => Err(format!(
                "{text}; the work is not rebased onto it, because it is built on merged work of others"
            )),
            (Freshness::Rebase, None) => Err(format!("{text}; nothing is rebased onto it")),
        })
    }
}

/// Whether the watched branch moved to where `base` does not hold it. That it can not be found out is
/// said, and holds nobody up.
fn moved(hands: &Hands, watched: &Watched<'_>, base: &Oid) -> Option<Moved> {
    let watch = watched.branch?;
    match watched.policy {
        Freshness::Ignore => return None,
        Freshness::Warn | Freshness::Rebase => {}
    }
    let (repo, pinned) = (&hands.repo, watched.pinned);
    let tip = match repo.tip(watch) {
        Ok(Some(tip)) => tip,
        Ok(None) => {
            return Moved::away(format!("{watch}, which the batch began from, is gone"));
        }
        Err(error) => {
            return Moved::away(format!(
                "{watch}, which the batch began from, can not be read: {error}"
            ));
        }
    };
    if tip == *pinned {
        return None;
    }
    let (from, to) = (pinned.short(), tip.short());
    let reaches = |newer, older| matches!(repo.reaches(newer, older), Ok(true));
    if !reaches(&tip, pinned) {
        let how = if reaches(pinned, &tip) {
            "was moved back"
        } else {
            "was rewritten"
        };
        return Moved::away(format!(
            "{watch} {how} since the batch began: from {from} to {to}"
        ));
    }
    if reaches(base, &tip) {
        return None;
    }
    let text = format!("{watch} has moved since the batch began: from {from} to {to}");
    let tip = Some(tip);
    Some(Moved { tip, text })
}
