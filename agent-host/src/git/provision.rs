//! A task gets its worktree and branch: all of it, or nothing that the next time does not put right.

use std::path::Path;

use protocol::git::{GitOutcome, Oid, Provision, Provisioned};

use super::error::{GitError, said};
use super::worktree::{self, Head, Worktree};
use super::{Hands, freshness, include, locks, submodules};

/// Does the work.
///
/// # Errors
/// When the worktree can not be made as the task needs it.
pub(super) fn perform(hands: &Hands, work: &Provision) -> Result<GitOutcome, GitError> {
    locks::heal_own_ref(&hands.repo.common, &work.branch)?;
    locks::heal_shared(&hands.repo, &[&work.into], hands.begun)?;
    hands.repo.must_have(&work.pinned)?;
    let tip = batch_tip(hands, work)?;
    let provisioned = match &work.made {
        Some(base) => take_up(hands, work, base)?,
        None => make(hands, work, base(hands, work, &tip)?, &tip)?,
    };
    Ok(GitOutcome::Provisioned(provisioned))
}

/// Where the batch branch is; it is made where it is missing.
fn batch_tip(hands: &Hands, work: &Provision) -> Result<Oid, GitError> {
    let Provision { into, pinned, .. } = work;
    if let Some(tip) = hands.repo.tip(into)? {
        return Ok(tip);
    }
    let why = "supervisor: the batch begins";
    // Whether it was this one that made it does not matter: it is there, and that is read.
    hands
        .repo
        .move_ref(&hands.git, into, None, Some(pinned), why)?;
    let tip = hands.repo.tip(into)?;
    tip.ok_or_else(|| GitError::Unfit(format!("{into} was made and is gone again")))
}

/// What a new worktree is made from.
fn base<'a>(hands: &Hands, work: &'a Provision, tip: &'a Oid) -> Result<&'a Oid, GitError> {
    if work.needs.is_empty() {
        return Ok(&work.pinned);
    }
    for need in &work.needs {
        if !hands.repo.has_commit(need)? || !hands.repo.reaches(tip, need)? {
            let into = &work.into;
            return Err(GitError::Unfit(format!(
                "{into} at {tip} does not hold {need}, the merged work of a dependency: somebody moved \
                 the branch back"
            )));
        }
    }
    Ok(tip)
}

/// Makes it anew; whatever a killed making left goes first.
fn make(hands: &Hands, work: &Provision, base: &Oid, tip: &Oid) -> Result<Provisioned, GitError> {
    let folder = Path::new(&work.worktree);
    worktree::clear(hands, folder)?;
    let mut warnings = Vec::new();
    let base = freshness::start(hands, work, base, &mut warnings)?;
    let branch = put_branch(hands, work, &base, tip)?;
    let filled = fill(hands, folder, work, &base, &mut warnings);
    if let Err(error) = filled {
        // All or nothing. What can not be removed now is what the next time begins with.
        let _is_gone = worktree::remove(hands, folder).is_ok()
            && branch == Branch::Made
            && set_branch(hands, work, Some(&base), None).is_ok();
        return Err(error);
    }
    Ok(Provisioned {
        head: base.clone(),
        base,
        made: true,
        warnings,
    })
}

/// Checks the files out, submodules and ignored ones too.
fn fill(
    hands: &Hands,
    folder: &Path,
    work: &Provision,
    commit: &Oid,
    warnings: &mut Vec<String>,
) -> Result<Worktree, GitError> {
    let added = worktree::add(hands, folder, Some(&work.branch), commit);
    let (there, told) = added.map_err(without_filter)?;
    warnings.extend(filter_warning(&told));
    warnings.extend(pointer_warning(hands, commit));
    submodules::fill(hands, &there, commit)?;
    include::copy_all(hands, &there, warnings)?;
    Ok(there)
}

/// Whose a branch is that was put at the base.
#[derive(Debug, PartialEq, Eq)]
enum Branch {
    /// It was made now.
    Made,
    /// It was there, left by a killed making.
    Found,
}

/// Puts the branch at the base. One that is there was left by a killed making, or is to be begun
/// afresh, if it holds nothing that is not held elsewhere.
///
/// # Errors
/// When it holds more, or is checked out elsewhere: then it is somebody's work.
fn put_branch(hands: &Hands, work: &Provision, base: &Oid, tip: &Oid) -> Result<Branch, GitError> {
    let (repo, branch) = (&hands.repo, &work.branch);
    let now = repo.tip(branch)?;
    if let Some(now) = &now {
        check_kept(hands, work, now, [base, tip])?;
    }
    if let Some(folder) = worktree::holder_of(hands, branch)? {
        let folder = folder.display();
        return Err(GitError::Unfit(format!(
            "{branch} is checked out in {folder}"
        )));
    }
    set_branch(hands, work, now.as_ref(), Some(base))?;
    Ok(match now {
        Some(_) => Branch::Found,
        None => Branch::Made,
    })
}

/// Says so where one of these commits, or of those that were salvaged, does not hold what a branch
/// holds.
fn check_kept(
    hands: &Hands,
    work: &Provision,
    now: &Oid,
    holders: [&Oid; 2],
) -> Result<(), GitError> {
    let repo = &hands.repo;
    for holder in holders.into_iter().chain(&work.kept) {
        if repo.has_commit(holder)? && repo.reaches(holder, now)? {
            return Ok(());
        }
    }
    Err(GitError::Unfit(format!(
        "{} exists at {now} and holds work that neither {} nor a salvage holds: rename or delete the branch",
        work.branch, work.into
    )))
}

fn set_branch(
    hands: &Hands,
    work: &Provision,
    from: Option<&Oid>,
    to: Option<&Oid>,
) -> Result<(), GitError> {
    let branch = &work.branch;
    if !branch.starts_with("refs/heads/") {
        let text = format!("`{branch}` is not the whole name of a branch");
        return Err(GitError::Unfit(text));
    }
    let why = "supervisor: a worktree for the task";
    match hands.repo.move_ref(&hands.git, branch, from, to, why)? {
        true => Ok(()),
        false => Err(GitError::Unfit(format!(
            "{branch} moved while its worktree was made"
        ))),
    }
}

/// Makes one that was provisioned before usable again; what is in it is work and stays.
fn take_up(hands: &Hands, work: &Provision, base: &Oid) -> Result<Provisioned, GitError> {
    let folder = Path::new(&work.worktree);
    let mut warnings = Vec::new();
    let there = match Worktree::find(hands, folder)? {
        Some(there) => there,
        None => make_again(hands, work, base, &mut warnings)?,
    };
    freshness::undo_cut_off(hands, &there, &work.branch)?;
    let base = freshness::again(hands, work, &there, base, &mut warnings)?;
    let head = match there.head()? {
        Head::On(reference) => hands.repo.tip(&reference)?,
        Head::At(name) => Oid::try_from(name).ok(),
    };
    Ok(Provisioned {
        head: head.unwrap_or_else(|| base.clone()),
        base,
        made: false,
        warnings,
    })
}

/// The folder vanished: what was committed is still there.
fn make_again(
    hands: &Hands,
    work: &Provision,
    base: &Oid,
    warnings: &mut Vec<String>,
) -> Result<Worktree, GitError> {
    let folder = Path::new(&work.worktree);
    let rest = match worktree::going(folder)?.exists() {
        true => "its removal was cut off, and what was not committed there is in its last salvage",
        false => "what was not committed there is lost",
    };
    worktree::clear(hands, folder)?;
    let head = hands.repo.tip(&work.branch)?;
    if head.is_none() {
        set_branch(hands, work, None, Some(base))?;
    }
    let head = head.unwrap_or_else(|| base.clone());
    warnings.push(format!(
        "{} was gone and is made again from {}: {rest}",
        work.worktree,
        head.short()
    ));
    fill(hands, folder, work, &head, warnings)
}

/// A failed checkout, told with its cause where that is a filter which is missing.
fn without_filter(error: GitError) -> GitError {
    match &error {
        GitError::Refused { said, .. } if names_filter(said) => GitError::Unfit(format!(
            "a filter that .gitattributes names (git-lfs, for instance) can not be run, so the files can \
             not be checked out: install it, or unset its `filter.*` settings; git says: {said}"
        )),
        _ => error,
    }
}

fn filter_warning(told: &[u8]) -> Option<String> {
    let text = said(told);
    names_filter(&text).then(|| format!("a filter failed and files are as they are stored: {text}"))
}

/// Files of LFS that stay pointers, because nothing here says how they are fetched.
fn pointer_warning(hands: &Hands, commit: &Oid) -> Option<String> {
    let raw = &hands.repo.raw;
    let tree = raw
        .find_commit(hands.repo.raw_id(commit).ok()?)
        .ok()?
        .tree()
        .ok()?;
    let attributes = tree.get_name(".gitattributes")?.to_object(raw).ok()?;
    let text = String::from_utf8_lossy(attributes.as_blob()?.content()).into_owned();
    let config = raw.config().ok()?;
    let is_set = ["filter.lfs.process", "filter.lfs.smudge"]
        .iter()
        .any(|key| config.get_entry(key).is_ok());
    (text.contains("filter=lfs") && !is_set).then(|| {
        "git-lfs is not set up here, so files of LFS are pointers: run `git lfs install`".to_owned()
    })
}

fn names_filter(said: &str) -> bool {
    said.contains("external filter") || said.contains("smudge filter")
}
