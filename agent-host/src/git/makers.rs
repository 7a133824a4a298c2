//! Which merges on a branch changed what conflicts: the other side of a conflict, by name.

use std::collections::BTreeSet;

use git2::{DiffOptions, Oid as Id, Repository};
use protocol::git::{MAKERS_MAX, Oid};

use super::error::GitError;
use super::join::Side;
use super::repo::Repo;

/// Most commits of the branch that are looked at, newest first; each costs a comparison of two trees.
const COMMITS_MAX: usize = 1_000;

/// The commits of the branch itself since it and the candidate parted that changed one of these files,
/// newest first, at most [`MAKERS_MAX`].
///
/// # Errors
/// When a commit of the branch can not be read.
pub(super) fn of(
    repo: &Repo,
    branch: &Oid,
    candidate: &Oid,
    sides: &[Side],
) -> Result<Vec<Oid>, GitError> {
    let paths: BTreeSet<&[u8]> = sides.iter().map(|side| &*side.path).collect();
    let (branch, candidate) = (repo.raw_id(branch)?, repo.raw_id(candidate)?);
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let found = changed(&repo.raw, branch, candidate, &paths);
    let found = found.map_err(|error| repo.unread("the batch branch", &error))?;
    found.into_iter().map(|id| repo.name(id)).collect()
}

fn changed(
    raw: &Repository,
    branch: Id,
    candidate: Id,
    paths: &BTreeSet<&[u8]>,
) -> Result<Vec<Id>, git2::Error> {
    let parted = raw.merge_base(branch, candidate)?;
    let mut options = DiffOptions::new();
    options.disable_pathspec_match(true);
    for path in paths {
        options.pathspec(*path);
    }
    let (mut found, mut at) = (Vec::new(), raw.find_commit(branch)?);
    for _ in 0..COMMITS_MAX {
        // Where the branch was when they parted, or before: what was changed there is in both.
        let is_shared = at.id() == parted || raw.graph_descendant_of(parted, at.id())?;
        if is_shared || at.parent_count() == 0 || found.len() == MAKERS_MAX {
            break;
        }
        let before = at.parent(0)?;
        let (old, new) = (before.tree()?, at.tree()?);
        let diff = raw.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
        if diff.deltas().len() > 0 {
            found.push(at.id());
        }
        at = before;
    }
    Ok(found)
}
