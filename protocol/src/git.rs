//! Git work of a run: what a host is asked to do in a repository, and what it did.
//!
//! All work that changes a repository, or may take long, is done by a run of its own, so that it can
//! be killed like everything else. Each piece of work is safe to do again after it was cut off
//! anywhere: it looks at what is there, and puts right what a killed predecessor of its own left.
//! Paths and names of refs are absolute and whole; nothing is derived from a working folder.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::build_output::{BuildOutput, BuildOutputFound};
use crate::class::Class;
use crate::ids::TaskId;
use crate::integrate::{Integrate, Integrated};

/// Most paths that an outcome names; what is left out is counted.
pub const PATHS_MAX: usize = 64;
/// Most commits that a conflict names as its other side.
pub const MAKERS_MAX: usize = 5;

/// Most pairs of commits that are judged at once.
pub const PAIRS_MAX: usize = 1024;

/// The name of an object: lower-case hexadecimal digits, 40 (SHA-1) or 64 (SHA-256).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Oid(String);

/// A text that names no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of an object: 40 or 64 lower-case hexadecimal digits")]
pub struct BadOid(String);

impl Oid {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for Oid {
    type Error = BadOid;
    fn try_from(text: String) -> Result<Self, BadOid> {
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if matches!(text.len(), 40 | 64) && text.bytes().all(digits) {
            Ok(Self(text))
        } else {
            Err(BadOid(text))
        }
    }
}

impl std::fmt::Display for Oid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// How a host does git work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitAdapter {
    /// The work.
    pub work: GitWork,
    /// Wall time of it, milliseconds; then its processes are killed and the run fails.
    pub timeout_ms: u64,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum GitWork {
    /// A task gets its worktree and branch, all of it or nothing; one that is there is made usable.
    Provision(Provision),
    /// What is in a worktree becomes a commit of its branch.
    Commit(CommitWork),
    /// What is in a worktree goes to a ref of its own, byte for byte, and is read back.
    Salvage(Salvage),
    /// A worktree goes, where everything in it is kept elsewhere.
    Remove(Remove),
    /// A worktree of ours is put to a commit, whatever is in it.
    Checkout(Checkout),
    /// Commits are merged one after the other, in the worktree of merges.
    Merge(Merge),
    /// A merge that conflicts is left in the worktree of merges, for an agent to resolve.
    Conflict(Conflict),
    /// The resolved conflict becomes a merge commit.
    Conclude(Conclude),
    /// The batch branch moves, if it still is where it is believed to be.
    Advance(Advance),
    /// What a salvage ref holds becomes a folder again.
    Restore(Restore),
    /// Which commits would conflict if they were merged; nothing is changed.
    Predict(Predict),
    /// What of a worktree can be built again is measured, or goes.
    BuildOutput(BuildOutput),
    /// The batch branch goes into a branch of the operator's; no run of a batch does this.
    Integrate(Box<Integrate>),
}

impl GitWork {
    /// The word for it in reports.
    pub const fn word(&self) -> &'static str {
        match self {
            GitWork::Provision(_) => "provision",
            GitWork::Commit(_) => "commit",
            GitWork::Salvage(_) => "salvage",
            GitWork::Remove(_) => "remove",
            GitWork::Checkout(_) => "checkout",
            GitWork::Merge(_) => "merge",
            GitWork::Conflict(_) => "conflict",
            GitWork::Conclude(_) => "conclude",
            GitWork::Advance(_) => "advance",
            GitWork::Restore(_) => "restore",
            GitWork::Predict(_) => "predict",
            GitWork::BuildOutput(_) => "build_output",
            GitWork::Integrate(_) => "integrate",
        }
    }
}

/// A worktree and its branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// The repository: its working folder, or a bare one.
    pub repo: String,
    /// The folder to make.
    pub worktree: String,
    /// The task's branch, `refs/heads/...`; made at the base.
    pub branch: String,
    /// The batch branch, `refs/heads/...`; made at `pinned` where it is missing.
    pub into: String,
    /// The commit that the batch starts from.
    pub pinned: Oid,
    /// Commits that the base must contain (merged dependencies): then the base is the tip of `into`.
    /// Empty: the base is `pinned`.
    pub needs: Vec<Oid>,
    /// The base on record, where the worktree was provisioned before: then what is in folder and
    /// branch is work and stays. Absent: what is there was left by a killed provisioning, and goes.
    pub made: Option<Oid>,
    /// The commits of the task's salvage refs: what one of these holds may be overwritten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Oid>,
    /// What to do when the base branch has moved since `pinned`.
    pub freshness: Freshness,
    /// The branch that the batch started from (`refs/heads/...`), for `freshness`; absent where the
    /// base was no branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<String>,
}

/// What to do when the base branch has moved since the batch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// Nothing; nobody looks.
    Ignore,
    /// It is said.
    Warn,
    /// The task's branch is rebased onto it; where that conflicts it stays as it was, and that is said.
    Rebase,
}

/// What is in a worktree becomes a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitWork {
    /// The repository.
    pub repo: String,
    /// The worktree.
    pub worktree: String,
    /// Its branch, which moves to the commit.
    pub branch: String,
    /// What the worktree was made from.
    pub base: Oid,
    /// The commit's message.
    pub message: String,
    /// Where set, no other files than those of these globs may have changed since the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touches: Option<Vec<String>>,
    /// Files to keep outside, relative to the worktree; ignored ones too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// Where they are kept, a folder.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outputs_dir: String,
}

/// What is in a worktree goes to a ref of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salvage {
    /// The repository.
    pub repo: String,
    /// The worktree.
    pub worktree: String,
    /// The ref to make, `refs/supervisor/salvage/...`; one that is there and holds the same is taken, and
    /// for one that holds something else the next free number: the outcome names it.
    pub reference: String,
    /// Which ignored files are kept: globs, each also for what is below; one behind a `!` says what is not
    /// kept all the same. Empty: none of them.
    pub ignored: Vec<String>,
    /// Why, one line; goes into the commit's message.
    pub note: String,
    /// What the salvage before it made: the answer, where the worktree is gone because a removal that
    /// came after that one was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Kept>,
}

/// A ref, and the commit that it was made at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The ref.
    pub reference: String,
    /// The commit.
    pub commit: Oid,
}

/// A worktree goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// The repository.
    pub repo: String,
    /// The worktree.
    pub worktree: String,
    /// Its branch, to be deleted with it, if it is where `kept` says or behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit that holds what is in it: a merged commit, or that of a salvage ref. Where the
    /// worktree holds anything else (ignored files that no rule keeps aside) it stays.
    pub kept: Oid,
    /// A ref that must reach `kept` now.
    pub kept_by: String,
}

/// A worktree of ours is put to a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkout {
    /// The repository.
    pub repo: String,
    /// The worktree, made where it is missing; it has no branch.
    pub worktree: String,
    /// The commit.
    pub commit: Oid,
}

/// One commit that is to be merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Whose work it is.
    pub task: TaskId,
    /// The commit.
    pub commit: Oid,
    /// The message of the merge commit.
    pub message: String,
}

/// Commits are merged one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// The repository.
    pub repo: String,
    /// The worktree of merges, made where it is missing.
    pub worktree: String,
    /// The batch branch; made at `pinned` where it is missing.
    pub into: String,
    /// The commit that the batch starts from.
    pub pinned: Oid,
    /// What waits, in the order of the plan, dependencies first. Those with the fewest conflicts go first.
    pub candidates: Vec<Candidate>,
    /// At most so many are merged; the others wait for the next time.
    pub take: u32,
    /// Whether the batch branch moves to the last merge commit at once, because nothing verifies it.
    pub advance: bool,
    /// Whether it is said that the base branch has moved since `pinned`; what is merged is what was
    /// proven, so nothing is rebased here.
    pub freshness: Freshness,
    /// The branch that the batch started from (`refs/heads/...`), for `freshness`; absent where the
    /// base was no branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<String>,
}

/// A merge that conflicts, left for an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The repository.
    pub repo: String,
    /// The worktree of merges.
    pub worktree: String,
    /// The batch branch.
    pub into: String,
    /// What is merged.
    pub candidate: Candidate,
    /// A folder where each conflicting file is written three times, as `ours/`, `theirs/` and `base/`.
    pub packet: String,
}

/// The resolved conflict becomes a merge commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclude {
    /// The repository.
    pub repo: String,
    /// The worktree of merges.
    pub worktree: String,
    /// The tip that the candidate is merged into: the first parent.
    pub tip: Oid,
    /// What is merged: the second parent.
    pub candidate: Candidate,
}

/// The batch branch moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// The repository.
    pub repo: String,
    /// The batch branch.
    pub into: String,
    /// Where it is believed to be.
    pub from: Oid,
    /// Where it goes. Where it is there or beyond already, nothing is done.
    pub to: Oid,
}

/// What a salvage ref holds becomes a folder again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The repository.
    pub repo: String,
    /// The ref.
    pub reference: String,
    /// The folder, an absolute path; made where it is missing, refused where it is not empty.
    pub to: String,
    /// What was staged in place of what was in the worktree. Where nothing else was staged than the
    /// worktree or its commit held, that is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
    /// Where the repositories of the worktree's submodules go, an absolute path of a folder that is
    /// missing or empty, outside of `to`: git keeps them outside of the worktree. Where the ref has none,
    /// that is an error. Absent: they stay on the ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<String>,
}

/// Which commits would conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predict {
    /// The repository.
    pub repo: String,
    /// Each is judged by itself, at most [`PAIRS_MAX`]; the most important ones first.
    pub pairs: Vec<(Oid, Oid)>,
    /// No pair is begun after so many milliseconds; the others are not judged then.
    pub at_most_ms: u64,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum GitOutcome {
    /// See [`Provision`].
    Provisioned(Provisioned),
    /// See [`CommitWork`].
    Committed(Committed),
    /// See [`Salvage`].
    Salvaged(Salvaged),
    /// See [`Remove`].
    Removed(Removed),
    /// See [`Checkout`].
    CheckedOut {},
    /// See [`Merge`].
    Merged(Merged),
    /// See [`Conflict`].
    Conflicted(Conflicted),
    /// See [`Conclude`].
    Concluded(Concluded),
    /// See [`Advance`].
    Advanced {},
    /// See [`Restore`].
    Restored(Restored),
    /// See [`Predict`].
    Predicted(Predicted),
    /// See [`BuildOutput`].
    BuildOutput(BuildOutputFound),
    /// See [`Integrate`].
    Integrated(Box<Integrated>),
}

/// The word on the command line of `agent-host` for git work; a file with the [`GitWork`] and the name
/// of the file to write a [`GitEnd`] to follow.
pub const GIT_WORD: &str = "git";
/// Largest of these files (1 MiB: a thousand candidates of a merge).
pub const GIT_FILE_MAX: u64 = 1 << 20;

/// What came of git work, as the process that does it writes it down.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitEnd {
    /// It is done.
    Done(GitOutcome),
    /// It could not be done.
    Failed {
        /// The class of the run.
        class: Class,
        /// For people.
        message: String,
    },
}

/// A worktree is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// What it was made from.
    pub base: Oid,
    /// Where its branch is.
    pub head: Oid,
    /// It was made now; absent: it was there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub made: bool,
    /// What the operator should know: the base branch moved, a rebase conflicted, a file was not copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Work is committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The commit; the base where nothing changed.
    pub commit: Oid,
    /// Files that differ from the base.
    pub files: u64,
    /// Files in which markers of a conflict were found: at most [`PATHS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
    /// Changed files that `touches` does not allow: at most [`PATHS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<String>,
    /// Declared outputs that are not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What the operator should know (a repository inside the worktree, for instance).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Work is on a salvage ref that was read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salvaged {
    /// The ref.
    pub reference: String,
    /// Its commit.
    pub commit: Oid,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What can not be kept (sockets, devices): at most [`PATHS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

/// A worktree is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Bytes that were freed.
    pub bytes: u64,
    /// It was there; absent: it was gone already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub existed: bool,
}

/// Commits are merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// Where the batch branch was.
    pub tip: Oid,
    /// In order: each merge commit's first parent is the one before, or the tip.
    pub merges: Vec<MergeCommit>,
    /// Candidates that conflict with the tip or with what was merged before them here.
    pub conflicts: Vec<MergeConflict>,
    /// What the operator should know: the base branch moved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One candidate is merged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeCommit {
    /// Whose.
    pub task: TaskId,
    /// The merge commit; where the batch branch held the candidate already, the batch branch's tip.
    pub commit: Oid,
}

/// One candidate conflicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeConflict {
    /// Whose.
    pub task: TaskId,
    /// With which commit: where the batch branch was.
    pub with: Oid,
    /// Which commits of the branch changed these files since the two parted, newest first: at most
    /// [`MAKERS_MAX`]. Empty where that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<Oid>,
    /// The files: at most [`PATHS_MAX`].
    pub files: Vec<String>,
    /// Why, by the file: `contents`, `add/add`, `modify/delete`, `rename/delete`, `binary`, `submodule`
    /// and so on, as git calls it; `symlink` and `lfs pointer` where that says more, `markers` where the
    /// merge is clean and its result is not. At most [`PATHS_MAX`]; the path `.` stands for all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kinds: BTreeMap<String, String>,
}

/// A conflict waits for its resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflicted {
    /// Where the batch branch is.
    pub tip: Oid,
    /// Why each file conflicts, by its path; at most [`PATHS_MAX`]. Empty: it merges without a conflict by now.
    pub files: BTreeMap<String, String>,
}

/// A conflict is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concluded {
    /// The merge commit; absent where it is not resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Oid>,
    /// Files that still hold markers of a conflict: at most [`PATHS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
}

/// A folder holds what a salvage ref held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The ref.
    pub reference: String,
    /// Files and links in the folder.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The ref has repositories of submodules, and they were not asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub modules_left: bool,
}

/// Which commits would conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predicted {
    /// For each pair that was judged, in order; fewer than were asked for where time was up.
    pub pairs: Vec<Foreseen>,
}

/// What two commits would conflict in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreseen {
    /// The files, at most [`PATHS_MAX`]; none where the two merge.
    pub paths: Vec<String>,
    /// How many more there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_named_by_40_or_64_digits() {
        for good in ["a".repeat(40), "0123456789abcdef".repeat(4)] {
            assert_eq!(Oid::try_from(good.clone()).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "HEAD",
            &"A".repeat(40),
            &"a".repeat(39),
            &"g".repeat(40),
        ] {
            assert!(Oid::try_from((*bad).to_owned()).is_err(), "{bad}");
        }
    }
}
