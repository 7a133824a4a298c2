//! The branch that the batch started from has moved: it is said, or the task's branch is rebased.
//!
//! A rebase that conflicts, or is killed, leaves branch and worktree exactly as they were: where the
//! branch was, and what it was to go onto, is noted in the worktree's git folder before it begins, and
//! that note goes when it has ended well.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use git2::Delta;
use protocol::git::{Freshness, Merge, Oid, Provision};

use super::error::GitError;
use super::repo::Repo;
use super::worktree::{Head, Worktree};
use super::{Hands, folder, operations, submodules, tree};

/// What is noted of a rebase of ours while it is under way.
const NOTE: &str = "supervisor-rebase";
/// Most commits that are replayed; a task that makes more is not rebased.
const COMMITS_MAX: usize = 1_000;

/// A rebase of a branch.
struct Rebase {
    /// Where the branch is.
    before: Oid,
    /// What it goes onto.
    onto: Oid,
}

impl Rebase {
    /// One line, as it is noted.
    fn line(&self) -> String {
        format!("{} {}", self.before, self.onto)
    }

    fn read(line: &str) -> Option<Self> {
        let (before, onto) = line.trim().split_once(' ')?;
        Some(Self {
            before: Oid::try_from(before.to_owned()).ok()?,
            onto: Oid::try_from(onto.to_owned()).ok()?,
        })
    }

    /// The commits whose files a rebase may write into the worktree: the one that it goes onto, and those
    /// that it replays.
    fn written(&self, repo: &Repo) -> Result<Vec<git2::Oid>, GitError> {
        let (before, onto) = (repo.raw_id(&self.before)?, repo.raw_id(&self.onto)?);
        let walked = || -> Result<Vec<git2::Oid>, git2::Error> {
            let mut walk = repo.raw.revwalk()?;
            walk.push(before)?;
            walk.hide(onto)?;
            let own: Result<Vec<_>, _> = walk.take(COMMITS_MAX + 1).collect();
            Ok([onto].into_iter().chain(own?).collect())
        };
        walked().map_err(|error| repo.unread("the commits of the branch", &error))
    }
}

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
    let wanted = Rebase { before, onto: tip };
    let written = wanted.written(&hands.repo)?;
    if written.len() > COMMITS_MAX {
        let text = "the branch is not rebased, because it has too many commits";
        warnings.push(format!("{}; {text}", moved.text));
        return Ok(base.clone());
    }
    if let Some(path) = in_the_way(hands, there, &wanted.before, &written)? {
        let path = path.display();
        warnings.push(format!(
            "{}; the branch is not rebased, because {path} of the worktree is no part of it and would be \
             overwritten",
            moved.text
        ));
        return Ok(base.clone());
    }
    match rebase(hands, there, &work.branch, &wanted) {
        Ok(()) => Ok(wanted.onto),
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

/// Puts a branch and its worktree back whose rebase was killed.
///
/// # Errors
/// When they can not be put back.
pub(super) fn undo_cut_off(hands: &Hands, there: &Worktree, branch: &str) -> Result<(), GitError> {
    let note = note(there);
    let Ok(text) = fs::read_to_string(&note) else {
        return Ok(());
    };
    let cut_off = Rebase::read(&text);
    let cut_off = cut_off.ok_or_else(|| {
        let note = note.display();
        GitError::Unfit(format!("{note} does not say what was rebased: {text}"))
    })?;
    let before = cut_off.before.as_str();
    let name = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    let call = || there.call(&hands.git);
    // Detached first: a rebase that was cut off may hold the branch.
    let detach = || call().args(["checkout", "-q", "-f", "--detach", before]);
    detach().run()?;
    operations::forget(there)?;
    // `git` writes files before it writes the index, so it may know nothing of what it wrote. It was not
    // there when the rebase began: with an index that names it `git` takes it away.
    for commit in cut_off.written(&hands.repo)? {
        if !added(&hands.repo, &cut_off.before, commit)?.is_empty() {
            let index = call().args(["read-tree", "--reset", &commit.to_string()]);
            index.run()?;
            detach().run()?;
        }
    }
    let back = call().args(["checkout", "-q", "-f", "-B", name, before]);
    back.run()?;
    submodules::fill(hands, there, &cut_off.before)?;
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

/// A file of the worktree that no commit has and that a file of one of these would replace: `git` does not
/// ask before it overwrites what is ignored.
fn in_the_way(
    hands: &Hands,
    there: &Worktree,
    before: &Oid,
    written: &[git2::Oid],
) -> Result<Option<PathBuf>, GitError> {
    let repo = &hands.repo;
    let unread = |error: git2::Error| repo.unread("what a rebase would add", &error);
    let own = repo.raw.find_commit(repo.raw_id(before)?);
    let own = own.and_then(|own| own.tree()).map_err(unread)?;
    for commit in written {
        let added = added(repo, before, *commit)?;
        let mut strangers = added.iter();
        let stranger = strangers.find_map(|path| stranger_on(&there.folder, path, &own));
        if stranger.is_some() {
            return Ok(stranger);
        }
    }
    Ok(None)
}

/// The files of a commit that the branch does not have.
fn added(repo: &Repo, branch: &Oid, commit: git2::Oid) -> Result<Vec<PathBuf>, GitError> {
    let branch = repo.raw_id(branch)?;
    let compared = || -> Result<Vec<PathBuf>, git2::Error> {
        let own = repo.raw.find_commit(branch)?.tree()?;
        let other = repo.raw.find_commit(commit)?.tree()?;
        let diff = repo.raw.diff_tree_to_tree(Some(&own), Some(&other), None)?;
        let added = diff.deltas().filter(|it| it.status() == Delta::Added);
        Ok(added
            .filter_map(|it| it.new_file().path_bytes().map(folder::path))
            .collect())
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

/// Writes a rebase down, so that it is on the disk before anything moves.
fn write_note(note: &Path, wanted: &Rebase) -> Result<(), GitError> {
    let aside = note.with_extension("new");
    let written = File::create(&aside).and_then(|mut file| {
        file.write_all(wanted.line().as_bytes())?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&aside, note))
        .map_err(GitError::file("write", note))
}

fn rebase(hands: &Hands, there: &Worktree, branch: &str, wanted: &Rebase) -> Result<(), GitError> {
    let note = note(there);
    let onto = &wanted.onto;
    write_note(&note, wanted)?;
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
