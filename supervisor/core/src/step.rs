//! What a run is for: the steps of an attempt, of a merge and of a clean-up, and comments, each a run of
//! its own.

use protocol::command::RunKind;
use protocol::git::GitOutcome;
use protocol::ids::QuestionId;
use protocol::report::{ResultStatus, RunResult, Verdict};

use crate::machine::{AttemptState, TaskState};
use crate::plan::{RepoIx, TaskSpec};
use crate::reason::TaskReason;

/// What one run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A step of the open attempt of its task.
    Step(Step),
    /// A stage of the merges of a repository, for the task whose turn it is.
    Merge(RepoIx, Stage),
    /// The end of its task's worktree.
    Clean(CleanStep),
    /// A comment on the issue or pull request that its task is about.
    Comment(CommentOn),
}

impl Purpose {
    /// The kind of run that does it.
    pub const fn kind(self) -> RunKind {
        match self {
            Purpose::Step(step) => step.kind(),
            Purpose::Merge(_, Stage::Verify) => RunKind::Verify,
            Purpose::Merge(_, _) => RunKind::Merge,
            Purpose::Clean(CleanStep::BeforeRemove) | Purpose::Comment(_) => RunKind::Hook,
            Purpose::Clean(CleanStep::BuildOutput | CleanStep::Salvage | CleanStep::Remove) => {
                RunKind::Git
            }
        }
    }

    /// Whether an agent does it: it costs tokens, may be silent and may ask.
    pub const fn is_agent(self) -> bool {
        matches!(
            self,
            Purpose::Step(Step::Work | Step::Review) | Purpose::Merge(_, Stage::Resolve)
        )
    }
}

/// The steps of an attempt, in order. Which of them there are depends on the task's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// What an attempt that begins anew would overwrite goes to a salvage ref.
    Salvage,
    /// The worktree and its branch.
    Provision,
    /// The operator's commands for a worktree that was just made.
    AfterCreate,
    /// The issue or pull request that the task is about.
    Fetch,
    /// The operator's commands before the agent.
    BeforeRun,
    /// The agent works.
    Work,
    /// The operator's commands after the agent.
    AfterRun,
    /// What is in the worktree becomes a commit.
    Commit,
    /// The verify commands.
    Prove,
    /// The reviewer's own worktree is put to the commit.
    Checkout,
    /// Another agent judges.
    Review,
}

impl Step {
    /// Every step, in order.
    pub const ALL: &'static [Step] = &[
        Self::Salvage,
        Self::Provision,
        Self::AfterCreate,
        Self::Fetch,
        Self::BeforeRun,
        Self::Work,
        Self::AfterRun,
        Self::Commit,
        Self::Prove,
        Self::Checkout,
        Self::Review,
    ];

    /// The word used in the journal and for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Salvage => "salvage",
            Self::Provision => "provision",
            Self::AfterCreate => "after_create",
            Self::Fetch => "fetch",
            Self::BeforeRun => "before_run",
            Self::Work => "work",
            Self::AfterRun => "after_run",
            Self::Commit => "commit",
            Self::Prove => "prove",
            Self::Checkout => "checkout",
            Self::Review => "review",
        }
    }

    /// The step of that word.
    pub fn from_word(word: &str) -> Option<Step> {
        Self::ALL.iter().copied().find(|step| step.word() == word)
    }

    /// The kind of run that does it.
    pub const fn kind(self) -> RunKind {
        match self {
            Self::Salvage | Self::Provision | Self::Commit | Self::Checkout => RunKind::Git,
            Self::AfterCreate | Self::Fetch | Self::BeforeRun | Self::AfterRun => RunKind::Hook,
            Self::Work => RunKind::Agent,
            Self::Prove => RunKind::Verify,
            Self::Review => RunKind::Review,
        }
    }

    /// Whether a run with this result did the step: the attempt may go on to the next one.
    pub(crate) fn is_done(self, spec: &TaskSpec, result: &RunResult) -> bool {
        let git = result.git.as_deref();
        let did = match self {
            Self::Salvage => matches!(git, Some(GitOutcome::Salvaged(_))),
            Self::Provision => matches!(git, Some(GitOutcome::Provisioned(_))),
            Self::Checkout => matches!(git, Some(GitOutcome::CheckedOut {})),
            Self::Commit => match git {
                Some(GitOutcome::Committed(done)) => {
                    let clean = done.markers.is_empty() && done.outside.is_empty();
                    clean && done.missing.is_empty() && (done.files > 0 || !spec.changes)
                }
                Some(_) | None => false,
            },
            Self::Review => match result.verdict {
                Some(Verdict::Approve | Verdict::Revise) => true,
                Some(Verdict::Reject) | None => false,
            },
            Self::AfterCreate
            | Self::Fetch
            | Self::BeforeRun
            | Self::Work
            | Self::AfterRun
            | Self::Prove => true,
        };
        did && result.status == ResultStatus::Ok
    }

    /// Where the attempt is while it is done.
    pub const fn attempt_state(self) -> AttemptState {
        match self {
            Self::Salvage | Self::Provision | Self::AfterCreate | Self::Fetch | Self::BeforeRun => {
                AttemptState::Preparing
            }
            Self::Work => AttemptState::Working,
            Self::AfterRun | Self::Commit | Self::Prove => AttemptState::Proving,
            Self::Checkout | Self::Review => AttemptState::Reviewing,
        }
    }

    /// Where the task is while it is done, and why.
    pub const fn task_state(self) -> (TaskState, TaskReason) {
        match self.attempt_state() {
            AttemptState::Preparing => (TaskState::Running, TaskReason::Preparing),
            AttemptState::Working => (TaskState::Running, TaskReason::Working),
            AttemptState::Proving | AttemptState::Ended => {
                (TaskState::Verifying, TaskReason::Proving)
            }
            AttemptState::Reviewing => (TaskState::Reviewing, TaskReason::Reviewing),
        }
    }
}

/// The stages of a round of merges, each a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The candidates are merged in the worktree of merges.
    Merge,
    /// The worktree of merges is put to the merge commit that is to be proven.
    Checkout,
    /// The commands that prove a merge.
    Verify,
    /// The batch branch moves.
    Advance,
    /// A merge is left as it conflicts, or as its proof failed, for an agent.
    Conflict,
    /// An agent resolves it.
    Resolve,
    /// What the agent left becomes the merge commit.
    Conclude,
}

impl Stage {
    /// Every stage.
    pub const ALL: &'static [Stage] = &[
        Self::Merge,
        Self::Checkout,
        Self::Verify,
        Self::Advance,
        Self::Conflict,
        Self::Resolve,
        Self::Conclude,
    ];

    /// The word used in the journal and for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Checkout => "checkout",
            Self::Verify => "verify",
            Self::Advance => "advance",
            Self::Conflict => "conflict",
            Self::Resolve => "resolve",
            Self::Conclude => "conclude",
        }
    }

    /// The stage of that word.
    pub fn from_word(word: &str) -> Option<Stage> {
        Self::ALL.iter().copied().find(|stage| stage.word() == word)
    }
}

/// What a comment tells of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommentOn {
    /// It has failed.
    Failed,
    /// It is done.
    Done,
    /// Its agent asks this.
    Question(QuestionId),
}

impl std::fmt::Display for CommentOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed => f.write_str("failed"),
            Self::Done => f.write_str("done"),
            Self::Question(id) => write!(f, "question-{id}"),
        }
    }
}

/// The steps by which a worktree goes, each a run; and the one by which room is made in one that stays,
/// which stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CleanStep {
    /// What in it can be built again goes, and nothing else: the worktree stays.
    BuildOutput,
    /// The operator's commands.
    BeforeRemove,
    /// Everything in it goes to a salvage ref.
    Salvage,
    /// It is removed.
    Remove,
}

impl CleanStep {
    /// Every step, in order.
    pub const ALL: &'static [CleanStep] = &[
        Self::BuildOutput,
        Self::BeforeRemove,
        Self::Salvage,
        Self::Remove,
    ];

    /// The word used in the journal and for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::BuildOutput => "build_output",
            Self::BeforeRemove => "before_remove",
            Self::Salvage => "salvage",
            Self::Remove => "remove",
        }
    }

    /// The step of that word.
    pub fn from_word(word: &str) -> Option<CleanStep> {
        Self::ALL.iter().copied().find(|step| step.word() == word)
    }
}
