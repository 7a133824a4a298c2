//! Integration: the batch branch goes into a branch of the operator's, at the operator's order and
//! never before. It is the one piece of git work that touches what is not ours.

use serde::{Deserialize, Serialize};

use crate::git::Oid;

/// The batch branch goes into a branch of the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrate {
    /// The repository: its working folder, or a bare one.
    pub repo: String,
    /// The batch branch, `refs/heads/...`.
    pub from: String,
    /// The operator's branch, `refs/heads/...`.
    pub into: String,
    /// In which way.
    pub how: How,
    /// Only say what would be done; nothing in the repository changes, not even its objects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Where both branches were when the operator was shown what is done; elsewhere: refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Agreed>,
    /// The message of a merge commit.
    pub message: String,
    /// The title of a pull request.
    pub title: String,
    /// The text of a pull request, at most [`BODY_MAX`] bytes.
    pub body: String,
}

/// Longest text of a pull request, bytes (GitHub takes 65,536 characters; one argument of a program
/// may have 128 KiB).
pub const BODY_MAX: usize = 60_000;

/// In which way a branch goes into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Fast-forward where that is possible, else a merge.
    Either,
    /// The branch moves on to the other's commit; refused where it has commits of its own.
    FastForward,
    /// A merge commit, also where a fast-forward would do.
    Merge,
    /// The batch branch is pushed, and a pull request is opened.
    PullRequest,
}

/// Where both branches were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// The batch branch.
    pub from: Oid,
    /// The operator's branch.
    pub into: Oid,
}

/// What was found and done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrated {
    /// What was found before anything was done.
    pub plan: IntegratePlan,
    /// What came of it.
    pub result: IntegrateResult,
}

/// What is to be done, and what it will meet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegratePlan {
    /// Where the batch branch is.
    pub from: Oid,
    /// Where the operator's branch is; for a pull request as its remote has it, where that is known.
    pub into: Oid,
    /// In which way; never [`How::Either`].
    pub how: How,
    /// Commits of the batch branch that the operator's branch lacks.
    pub commits: u64,
    /// Files that would change.
    pub files: u64,
    /// Their names: at most [`PATHS_MAX`](crate::git::PATHS_MAX).
    pub paths: Vec<String>,
    /// Whether the operator's branch has no commit of its own.
    pub fast_forward: bool,
    /// Files that conflict: at most [`PATHS_MAX`](crate::git::PATHS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// The working tree in which the operator's branch is checked out, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_out: Option<String>,
    /// The operator's own hooks that will run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    /// Whether a merge commit is signed, as the operator's settings say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signs: bool,
    /// The remote that the batch branch is pushed to, and the branch there that takes the pull request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
}

/// Where a pull request goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// The remote's name.
    pub name: String,
    /// Its branch that the request is for, without `refs/heads/`.
    pub base: String,
}

/// What came of an integration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum IntegrateResult {
    /// It was only to be said what would be done, and nothing is in the way.
    Planned {},
    /// The operator's branch holds everything already.
    Contained {},
    /// The operator's branch is where the batch branch is.
    FastForwarded {
        /// That commit.
        commit: Oid,
    },
    /// The operator's branch has a merge commit.
    Merged {
        /// That commit.
        commit: Oid,
    },
    /// There is a pull request.
    PullRequest {
        /// Where to see it.
        url: String,
        /// It was there before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        existed: bool,
    },
    /// The two conflict: branch, index and working tree are as they were.
    Conflict {},
    /// Something is in the way: branch, index and working tree are as they were, unless `why` says more.
    Refused {
        /// What.
        why: String,
        /// What the operator can do.
        way_out: String,
    },
}
