//! What is in a worktree becomes a commit of its branch.
//!
//! An agent may have committed itself, switched branches, detached `HEAD`, or left a merge or a
//! rebase half done. Whatever it did, what counts is the content: it becomes one commit, and the
//! commits that the agent made from the base on are its history.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{Delta, DiffOptions, FileMode};
use protocol::git::{CommitWork, Committed, GitOutcome, Oid, PATHS_MAX};

use super::error::GitError;
use super::worktree::{Head, Worktree};
use super::{Hands, housekeeping, locks, markers, operations, outputs, submodules, touches, tree};

/// From this size on files are taken in piece by piece, not as a whole in memory.
const LARGE: &str = "core.bigFileThreshold=32m";

/// A file that differs from the base.
#[derive(Debug)]
pub(super) struct Change {
    /// Where it is, or was.
    pub(super) path: PathBuf,
    /// What it was; absent where it is new.
    pub(super) before: Option<git2::Oid>,
    /// What it is now.
    pub(super) now: Now,
}

/// What a changed file is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Now {
    /// A file.
    File,
    /// A link.
    Link,
    /// A submodule, or a repository without `.gitmodules`.
    Repository,
    /// Nothing.
    Gone,
}

/// Does the work.
///
/// # Errors
/// When `git` can not take in the content.
pub(super) fn perform(hands: &Hands, work: &CommitWork) -> Result<GitOutcome, GitError> {
    hands.repo.must_have(&work.base)?;
    locks::heal_own_ref(&hands.repo.common, &work.branch)?;
    let there = Worktree::get(hands, Path::new(&work.worktree))?;
    if housekeeping::put_back(hands, &work.branch, Some(&work.base))? {
        // What it names may be gone as well.
        tree::remove(&there.admin.join("index"))?;
    }
    let mut warnings = Vec::new();
    if there.is_taken_over() {
        warnings.push(format!(
            "{}/.git is a repository of the agent's own: its history is not part of the commit",
            work.worktree
        ));
    }
    let tree = take_in(hands, &there, &work.base, &mut warnings)?;
    let changes = changes(hands, &work.base, &tree)?;
    warn_of_repositories(hands, &tree, &changes, &mut warnings)?;
    submodules::keep_commits(hands, &there, &tree)?;
    let commit = record(hands, &there, work, &tree)?;
    let markers = markers::find(&hands.repo, &there.folder, &changes);
    let outside = match &work.touches {
        Some(globs) => touches::outside(globs, &changes)?,
        None => Vec::new(),
    };
    let missing = outputs::keep(&there.folder, work, &mut warnings)?;
    Ok(GitOutcome::Committed(Committed {
        commit: match changes.is_empty() {
            true => work.base.clone(),
            false => commit,
        },
        files: changes.len() as u64,
        markers,
        outside,
        missing,
        warnings,
    }))
}

/// Takes the whole content into the index; returns the tree.
fn take_in(
    hands: &Hands,
    there: &Worktree,
    base: &Oid,
    warnings: &mut Vec<String>,
) -> Result<Oid, GitError> {
    let inside = match knows_files(hands, there) {
        Ok(true) => repositories_inside(hands, there)?,
        Err(error) if error.is_kill() => return Err(error),
        Ok(false) | Err(_) => {
            make_index(hands, there, base)?;
            repositories_inside(hands, there)?
        }
    };
    unhide(hands, there)?;
    let mut paths = b".\0".to_vec();
    for path in &inside {
        paths.extend_from_slice(b":(exclude,top,literal)");
        paths.extend_from_slice(path.as_os_str().as_bytes());
        paths.push(0);
        note(warnings, || {
            let path = path.display();
            format!("{path} is a git repository of its own and is not part of the commit")
        });
    }
    let add = there.call(&hands.git).set(LARGE);
    let add = add.args(["add", "-A", "--sparse"]);
    let add = add.args(["--pathspec-from-file=-", "--pathspec-file-nul"]);
    add.input(paths).run()?;
    let told = there.call(&hands.git).args(["write-tree"]).text()?;
    Oid::try_from(told).map_err(|error| GitError::Unfit(error.to_string()))
}

/// Whether the index can be read and names any file.
fn knows_files(hands: &Hands, there: &Worktree) -> Result<bool, GitError> {
    let told = there.call(&hands.git).args(["ls-files", "-z"]).run()?;
    Ok(!told.is_empty())
}

/// Makes an index from the base; every file is read again then. What a sparse checkout leaves out is
/// marked, or else it would count as deleted.
fn make_index(hands: &Hands, there: &Worktree, base: &Oid) -> Result<(), GitError> {
    tree::remove(&there.admin.join("index"))?;
    let call = there.call(&hands.git).args(["read-tree", base.as_str()]);
    call.run()?;
    let sparse = there.call(&hands.git);
    let sparse = sparse.args(["config", "--type=bool", "core.sparseCheckout"]);
    // Exit 1: it is not said.
    if sparse.one_of(&[0, 1])?.out.starts_with(b"true") {
        let call = there.call(&hands.git).args(["sparse-checkout", "reapply"]);
        call.run()?;
    }
    Ok(())
}

/// Repositories in the worktree that are no submodules: `git` would take in a name without files.
fn repositories_inside(hands: &Hands, there: &Worktree) -> Result<Vec<PathBuf>, GitError> {
    let call = there.call(&hands.git).args(["ls-files", "-z", "--others"]);
    let told = call.args(["--exclude-standard"]).run()?;
    let names = told.split(|byte| *byte == 0);
    let found = names.filter_map(|name| name.strip_suffix(b"/"));
    let found = found.map(|name| PathBuf::from(OsStr::from_bytes(name)));
    Ok(found.collect())
}

/// Takes back what an agent may have said to hide changes (`--assume-unchanged`).
fn unhide(hands: &Hands, there: &Worktree) -> Result<(), GitError> {
    let told = there
        .call(&hands.git)
        .args(["ls-files", "-v", "-z"])
        .run()?;
    let mut hidden = Vec::new();
    for line in told.split(|byte| *byte == 0) {
        if let [flag, b' ', name @ ..] = line
            && flag.is_ascii_lowercase()
        {
            hidden.extend_from_slice(name);
            hidden.push(0);
        }
    }
    if hidden.is_empty() {
        return Ok(());
    }
    let call = there.call(&hands.git).args(["update-index"]);
    let call = call.args(["--no-assume-unchanged", "-z", "--stdin"]);
    call.input(hidden).run().map(drop)
}

fn tree_of(hands: &Hands, name: &Oid) -> Result<git2::Oid, GitError> {
    let object = hands.repo.raw_id(name).and_then(|id| {
        let found = hands.repo.raw.find_object(id, None);
        let found = found.and_then(|object| object.peel_to_tree());
        found.map_err(|error| hands.repo.unread(name.as_str(), &error))
    })?;
    Ok(object.id())
}

/// What differs between the base and the new tree.
fn changes(hands: &Hands, base: &Oid, tree: &Oid) -> Result<Vec<Change>, GitError> {
    let repo = &hands.repo;
    let read = || {
        let raw = &repo.raw;
        let old = raw.find_tree(tree_of(hands, base).map_err(|error| unsaid(&error))?)?;
        let new = raw.find_tree(git2::Oid::from_str(tree.as_str())?)?;
        let mut options = DiffOptions::new();
        options.skip_binary_check(true).include_typechange(true);
        let diff = raw.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
        let changes = diff.deltas().map(|delta| {
            let (old, new) = (delta.old_file(), delta.new_file());
            let path = new.path_bytes().or(old.path_bytes()).unwrap_or_default();
            Change {
                path: PathBuf::from(OsStr::from_bytes(path)),
                before: (delta.status() != Delta::Added).then(|| old.id()),
                now: now(delta.status(), new.mode()),
            }
        });
        Ok::<_, git2::Error>(changes.collect())
    };
    read().map_err(|error| repo.unread("the difference from the base", &error))
}

fn unsaid(error: &GitError) -> git2::Error {
    git2::Error::from_str(&error.to_string())
}

fn now(status: Delta, mode: FileMode) -> Now {
    match (status, mode) {
        (Delta::Deleted, _) => Now::Gone,
        (_, FileMode::Link) => Now::Link,
        (_, FileMode::Commit) => Now::Repository,
        // Foreign enums: what is no link and no repository has content.
        _ => Now::File,
    }
}

/// Warns of repositories that the agent itself took in without `.gitmodules`: their files are not in
/// the commit.
fn warn_of_repositories(
    hands: &Hands,
    tree: &Oid,
    changes: &[Change],
    warnings: &mut Vec<String>,
) -> Result<(), GitError> {
    let mut inside = changes
        .iter()
        .filter(|change| change.now == Now::Repository)
        .peekable();
    if inside.peek().is_none() {
        return Ok(());
    }
    let declared: BTreeSet<PathBuf> = submodules::declared(hands, tree)?.into_iter().collect();
    for change in inside.filter(|change| !declared.contains(&change.path)) {
        note(warnings, || {
            let path = change.path.display();
            format!(
                "{path} is a git repository that .gitmodules does not name: its files are not part of the commit"
            )
        });
    }
    Ok(())
}

fn note(warnings: &mut Vec<String>, text: impl FnOnce() -> String) {
    if warnings.len() < PATHS_MAX {
        warnings.push(text());
    }
}

/// Makes the commit, unless there is one with this content, moves the branch to it and puts `HEAD`
/// on the branch. In this order: cut off anywhere, the next time finds what is done.
fn record(hands: &Hands, there: &Worktree, work: &CommitWork, tree: &Oid) -> Result<Oid, GitError> {
    let repo = &hands.repo;
    let head = match there.head()? {
        Head::On(reference) => repo.tip(&reference)?,
        Head::At(name) => Oid::try_from(name).ok(),
    };
    let branch = repo.tip(&work.branch)?;
    let parents = parents(hands, work, head, branch.clone())?;
    let commit = match &parents[..] {
        [parent] if tree_of(hands, parent)?.to_string() == tree.as_str() => parent.clone(),
        _ => {
            let call = there.call(&hands.git).by(&repo.identity());
            let mut call = call.args(["commit-tree", tree.as_str()]);
            for parent in &parents {
                call = call.args(["-p", parent.as_str()]);
            }
            let call = call.args(["-F", "-"]);
            let told = call.input(message(&work.message)).text()?;
            Oid::try_from(told).map_err(|error| GitError::Unfit(error.to_string()))?
        }
    };
    let why = "supervisor: the work of the task";
    let is_moved = branch.as_ref() == Some(&commit)
        || repo.move_ref(
            &hands.git,
            &work.branch,
            branch.as_ref(),
            Some(&commit),
            why,
        )?;
    if !is_moved {
        let branch = &work.branch;
        return Err(GitError::Unfit(format!(
            "{branch} moved while its work was committed: something still runs in {}",
            work.worktree
        )));
    }
    if there.head()? != Head::On(work.branch.clone()) {
        let call = there.call(&hands.git).args(["symbolic-ref", "HEAD"]);
        call.args([&work.branch]).run()?;
    }
    operations::forget(there)?;
    Ok(commit)
}

fn message(text: &str) -> Vec<u8> {
    let mut bytes = text.trim_end().as_bytes().to_owned();
    bytes.push(b'\n');
    bytes
}

/// The parents: where `HEAD` and the branch are, each only if it comes from the base and the other one
/// does not hold it; else the base.
fn parents(
    hands: &Hands,
    work: &CommitWork,
    head: Option<Oid>,
    branch: Option<Oid>,
) -> Result<Vec<Oid>, GitError> {
    let mut found: Vec<Oid> = Vec::new();
    for candidate in [head, branch].into_iter().flatten() {
        if !hands.repo.has_commit(&candidate)? || !hands.repo.reaches(&candidate, &work.base)? {
            continue;
        }
        match found.first() {
            Some(first) if hands.repo.reaches(first, &candidate)? => {}
            Some(first) if hands.repo.reaches(&candidate, first)? => found = vec![candidate],
            Some(_) | None => found.push(candidate),
        }
    }
    if found.is_empty() {
        found.push(work.base.clone());
    }
    Ok(found)
}
