//! The branch that the batch started from has moved: it is said, or the task's branch is rebased.
//!
//! A rebase that conflicts, or is killed, leaves the branch exactly as it was: where it was is noted
//! in the worktree's git folder before it begins, and that note goes when it has ended well.

use std::fs;
use std::path::PathBuf;

use protocol::git::{Freshness, Oid, Provision};

use super::error::GitError;
use super::worktree::{Head, Worktree};
use super::{Hands, operations, tree};

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
    match moved(hands, work, base)? {
        Some(moved) if moved.takes(hands, base)? => Ok(moved.tip),
        Some(moved) => {
            warnings.push(moved.text);
            Ok(base.clone())
        }
        None => Ok(base.clone()),
    }
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
    let Some(moved) = moved(hands, work, base)? else {
        return Ok(base.clone());
    };
    if !moved.takes(hands, base)? {
        warnings.push(moved.text);
        return Ok(base.clone());
    }
    let before = hands.repo.tip(&work.branch)?;
    if let Some(before) = &before
        && hands.repo.reaches(before, &moved.tip)?
    {
        // Rebased already, by a work whose result was lost.
        return Ok(moved.tip);
    }
    let is_on_branch = there.head()? == Head::On(work.branch.clone());
    let Some(before) = before.filter(|_| is_on_branch && is_clean(hands, there)) else {
        let text =
            "the branch is not rebased, because the worktree holds work that is not committed";
        warnings.push(format!("{}; {text}", moved.text));
        return Ok(base.clone());
    };
    match rebase(hands, there, &work.branch, &before, &moved.tip) {
        Ok(()) => Ok(moved.tip),
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

fn rebase(
    hands: &Hands,
    there: &Worktree,
    branch: &str,
    before: &Oid,
    onto: &Oid,
) -> Result<(), GitError> {
    let note = note(there);
    fs::write(&note, before.as_str()).map_err(GitError::file("write", &note))?;
    let call = there.call(&hands.git).by_committer(&hands.repo.identity());
    let call = call
        .set("rebase.autoStash=false")
        .set("rebase.updateRefs=false");
    call.args(["rebase", "-q", "--no-autosquash", onto.as_str()])
        .run()?;
    let is_there = match hands.repo.tip(branch)? {
        Some(now) => hands.repo.reaches(&now, onto)?,
        None => false,
    };
    if !is_there {
        return Err(GitError::Unfit(format!("{branch} did not move")));
    }
    tree::remove(&note).map(drop)
}

/// The watched branch is elsewhere than where the batch began.
struct Moved {
    tip: Oid,
    policy: Freshness,
    text: String,
}

impl Moved {
    /// Whether work from this base goes onto the new tip: only from a base that is part of it. The
    /// batch branch with merged dependencies is not.
    fn takes(&self, hands: &Hands, base: &Oid) -> Result<bool, GitError> {
        Ok(self.policy == Freshness::Rebase && hands.repo.reaches(&self.tip, base)?)
    }
}

fn moved(hands: &Hands, work: &Provision, base: &Oid) -> Result<Option<Moved>, GitError> {
    let Some(watch) = work.watch.as_ref() else {
        return Ok(None);
    };
    match work.freshness {
        Freshness::Ignore => return Ok(None),
        Freshness::Warn | Freshness::Rebase => {}
    }
    let Some(tip) = hands.repo.tip(watch)? else {
        let text = format!("{watch}, which the batch began from, is gone");
        let tip = base.clone();
        let policy = Freshness::Warn;
        return Ok(Some(Moved { tip, policy, text }));
    };
    if hands.repo.reaches(base, &tip)? {
        return Ok(None);
    }
    let (from, to) = (work.pinned.short(), tip.short());
    let text = format!("{watch} has moved since the batch began: from {from} to {to}");
    let policy = work.freshness;
    Ok(Some(Moved { tip, policy, text }))
}
