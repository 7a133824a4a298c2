//! Which commits would conflict: merged in memory by libgit2, nothing is written.
//!
//! libgit2 knows no merge drivers of the operator, so this is a judgement of what to do first and what to
//! tell, never the merge itself.

use git2::{MergeOptions, ObjectType, Oid, Repository};
use protocol::git::{Foreseen, GitOutcome, PAIRS_MAX, PATHS_MAX, Predict, Predicted};

use super::Hands;
use super::error::GitError;
use super::repo::Repo;
use crate::clock;

/// Where objects of a merge go first: before the repository's own stores.
const IN_MEMORY: i32 = 1000;

/// Carries it out.
///
/// # Errors
/// When there are too many pairs, or a commit is not here.
pub(super) fn perform(hands: &Hands, work: &Predict) -> Result<GitOutcome, GitError> {
    if work.pairs.len() > PAIRS_MAX {
        let text = format!(
            "{} pairs of commits are more than {PAIRS_MAX}",
            work.pairs.len()
        );
        return Err(GitError::Unfit(text));
    }
    let judge = Judge::of(&hands.repo)?;
    let until = clock::after(clock::now(), work.at_most_ms);
    let in_time = work.pairs.iter().take_while(|_| clock::now() < until);
    let pairs = in_time.map(|(one, other)| {
        let one = hands.repo.raw_id(one)?;
        let paths = judge.conflicts(one, hands.repo.raw_id(other)?)?;
        let shown = paths.iter().take(PATHS_MAX);
        let shown = shown.map(|path| String::from_utf8_lossy(path).into_owned());
        Ok(Foreseen {
            paths: shown.collect(),
            more: paths.len().saturating_sub(PATHS_MAX) as u64,
        })
    });
    let pairs = pairs.collect::<Result<_, GitError>>()?;
    Ok(GitOutcome::Predicted(Predicted { pairs }))
}

/// Merges in memory.
pub(super) struct Judge {
    repo: Repo,
}

impl Judge {
    /// Of a repository, opened anew: what the merges make stays in memory.
    ///
    /// # Errors
    /// When it can not be opened.
    pub(super) fn of(repo: &Repo) -> Result<Self, GitError> {
        let repo = Repo::open(&repo.path)?;
        Ok(Self { repo })
    }

    /// The repository.
    pub(super) fn raw(&self) -> &Repository {
        &self.repo.raw
    }

    /// The paths that conflict, sorted, each once.
    ///
    /// # Errors
    /// When a commit is not here, or can not be merged in memory.
    pub(super) fn conflicts(&self, one: Oid, other: Oid) -> Result<Vec<Vec<u8>>, GitError> {
        let found = self.merge(one, other);
        found.map_err(|error| {
            let what = format!("the merge of {other} into {one}");
            self.repo.unread(&what, &error)
        })
    }

    fn merge(&self, one: Oid, other: Oid) -> Result<Vec<Vec<u8>>, git2::Error> {
        let raw = &self.repo.raw;
        let odb = raw.odb()?;
        let held = odb.add_new_mempack_backend(IN_MEMORY)?;
        let (one, other) = (raw.find_commit(one)?, raw.find_commit(other)?);
        let mut options = MergeOptions::new();
        options.find_renames(true);
        let index = raw.merge_commits(&one, &other, Some(&options))?;
        let mut paths = Vec::new();
        for conflict in index.conflicts()? {
            let conflict = conflict?;
            let sides = [conflict.our, conflict.their, conflict.ancestor];
            paths.extend(sides.into_iter().flatten().next().map(|side| side.path));
        }
        paths.sort();
        paths.dedup();
        held.reset()?;
        Ok(paths)
    }

    /// The paths in which a commit differs from where it left the other one's history; at most `max`.
    ///
    /// # Errors
    /// When a commit is not here.
    pub(super) fn changed(
        &self,
        tip: Oid,
        commit: Oid,
        max: usize,
    ) -> Result<Vec<Vec<u8>>, GitError> {
        let found = self.diff(tip, commit, max);
        found.map_err(|error| {
            self.repo
                .unread(&format!("the changes of {commit}"), &error)
        })
    }

    fn diff(&self, tip: Oid, commit: Oid, max: usize) -> Result<Vec<Vec<u8>>, git2::Error> {
        let raw = &self.repo.raw;
        let base = raw.merge_base(tip, commit).ok();
        let base = base.map(|base| raw.find_commit(base)?.tree()).transpose()?;
        let own = raw
            .find_object(commit, Some(ObjectType::Commit))?
            .peel_to_tree()?;
        let diff = raw.diff_tree_to_tree(base.as_ref(), Some(&own), None)?;
        let files = diff.deltas().filter_map(|delta| {
            let path = delta
                .new_file()
                .path_bytes()
                .or(delta.old_file().path_bytes());
            path.map(<[u8]>::to_vec)
        });
        Ok(files.take(max).collect())
    }
}
