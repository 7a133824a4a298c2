//! The closed sets of words in a batch file, and what they mean in a plan.

use protocol::git::Freshness;
use protocol::program::{Credentials, Permissions, ProgramKind};
use supervisor_core::containment::Wish;
use supervisor_core::plan::{AgentKind, Condition, Keep, OnFailure, RetryMode};

use super::decode::words;
use super::work::SalvageIgnored;

words! {
    /// Where tasks work.
    Isolation as "a kind of isolation" {
        /// Each task in a worktree of its own, with a branch of its own.
        Worktree = "worktree",
        /// All tasks work in the one working folder.
        None = "none",
    }
    later { }
}

words! {
    /// Which worktrees stay.
    KeepWord as "a rule for keeping worktrees" {
        /// All, until the operator cleans up.
        All = "all",
        /// Those of tasks that are not done, and of work that is not merged.
        Failed = "failed",
        /// None.
        None = "none",
    }
    later { }
}

impl KeepWord {
    /// What it means in a plan.
    pub(super) fn mean(self) -> Keep {
        match self {
            Self::All => Keep::All,
            Self::Failed => Keep::Failed,
            Self::None => Keep::None,
        }
    }
}

words! {
    /// Which ignored files a salvage keeps.
    SalvageIgnoredWord as "a rule for ignored files" {
        /// Every one.
        All = "all",
        /// Every one but those in folders that tools fill again (`target`, `node_modules` and alike).
        AllButBuildOutput = "all_but_build_output",
        /// None: they are lost with the worktree.
        None = "none",
    }
    later { }
}

impl SalvageIgnoredWord {
    /// What it means to the driver.
    pub(super) fn mean(self) -> SalvageIgnored {
        match self {
            Self::All => SalvageIgnored::All,
            Self::AllButBuildOutput => SalvageIgnored::AllButBuildOutput,
            Self::None => SalvageIgnored::None,
        }
    }
}

words! {
    /// What happens to a merge that conflicts.
    ConflictWord as "a rule for conflicts" {
        /// An agent resolves it.
        Agent = "agent",
        /// The merge has failed.
        Fail = "fail",
        /// It waits for the operator.
        Park = "park",
    }
    later { }
}

words! {
    /// What happens when the base branch has moved on.
    FreshnessWord as "a rule for a base that moves" {
        /// Nothing; nobody looks.
        Ignore = "ignore",
        /// It is said.
        Warn = "warn",
        /// The task's branch is rebased onto it.
        Rebase = "rebase",
    }
    later { }
}

impl FreshnessWord {
    /// What it means to a host.
    pub(super) fn mean(self) -> Freshness {
        match self {
            Self::Ignore => Freshness::Ignore,
            Self::Warn => Freshness::Warn,
            Self::Rebase => Freshness::Rebase,
        }
    }
}

words! {
    /// Whether work must change files.
    ChangesWord as "a rule for changes" {
        /// An attempt that changes no file has failed.
        Required = "required",
        /// It may change none.
        Optional = "optional",
    }
    later { }
}

words! {
    /// How the process trees of runs are held together.
    ContainmentWord as "a kind of containment" {
        /// A cgroup where one can be made, and the portable means.
        Auto = "auto",
        /// A cgroup, or the task does not begin.
        Cgroup = "cgroup",
        /// A pid namespace of each run's own, or the task does not begin.
        Pidns = "pidns",
        /// The portable means alone.
        Portable = "portable",
    }
    later { }
}

impl ContainmentWord {
    /// What it means in a plan.
    pub(super) fn mean(self) -> Wish {
        match self {
            Self::Auto => Wish::Auto,
            Self::Cgroup => Wish::Cgroup,
            Self::Pidns => Wish::Pidns,
            Self::Portable => Wish::Portable,
        }
    }
}

words! {
    /// What a failed task does to the others.
    FailureWord as "a failure policy" {
        /// Its dependents are skipped, the rest goes on.
        SkipDependents = "skip_dependents",
        /// The batch stops: what runs may finish, nothing new starts.
        Stop = "stop",
        /// Its dependents run as if it were done.
        Continue = "continue",
    }
    later { }
}

impl FailureWord {
    /// What it means in a plan.
    pub(super) fn mean(self) -> OnFailure {
        match self {
            Self::SkipDependents => OnFailure::SkipDependents,
            Self::Stop => OnFailure::Stop,
            Self::Continue => OnFailure::Continue,
        }
    }
}

words! {
    /// What happens to an agent's question.
    QuestionWord as "a question policy" {
        /// It waits for the operator; with `question_default` that is the answer at the deadline.
        Wait = "wait",
        /// It is answered at once by `question_default`.
        Default = "default",
        /// The attempt fails at once.
        Fail = "fail",
    }
    later { }
}

words! {
    /// What drives an agent.
    KindWord as "a kind of agent" {
        /// Any program.
        Command = "command",
        /// The embedded agent that plays a script.
        Scripted = "scripted",
        /// Claude Code.
        Claude = "claude",
        /// Codex.
        Codex = "codex",
        /// Any program that speaks the Agent Client Protocol.
        Acp = "acp",
        /// pi.
        Pi = "pi",
    }
    later { "builtin" }
}

impl KindWord {
    /// What it means in a plan.
    pub(super) fn mean(self) -> AgentKind {
        match self {
            Self::Command => AgentKind::Command,
            Self::Scripted => AgentKind::Scripted,
            Self::Claude => AgentKind::Program(ProgramKind::Claude),
            Self::Codex => AgentKind::Program(ProgramKind::Codex),
            Self::Acp => AgentKind::Program(ProgramKind::Acp),
            Self::Pi => AgentKind::Program(ProgramKind::Pi),
        }
    }
}

words! {
    /// What an agent may do without asking.
    PermissionWord as "a set of permissions" {
        /// Everything.
        Full = "full",
        /// Edits of files; the rest is refused.
        Edits = "edits",
        /// What the program allows by itself; the rest becomes a question to the operator.
        Ask = "ask",
    }
    later { }
}

impl PermissionWord {
    /// What it means to a host.
    pub(super) fn mean(self) -> Permissions {
        match self {
            Self::Full => Permissions::Full,
            Self::Edits => Permissions::Edits,
            Self::Ask => Permissions::Ask,
        }
    }
}

words! {
    /// How the operator's login gets into an agent's own home.
    CredentialsWord as "a rule for the login" {
        /// As a private file of its own, renewed when the operator's is newer.
        Copy = "copy",
        /// As a symbolic link to the operator's.
        Link = "link",
        /// Not at all: the environment has it.
        None = "none",
    }
    later { }
}

impl CredentialsWord {
    /// What it means to a host.
    pub(super) fn mean(self) -> Credentials {
        match self {
            Self::Copy => Credentials::Copy,
            Self::Link => Credentials::Link,
            Self::None => Credentials::None,
        }
    }
}

words! {
    /// What is told in a comment.
    CommentWord as "an occasion for a comment" {
        /// The task has failed.
        Failed = "failed",
        /// Its agent waits for an answer.
        Question = "question",
        /// The task is done.
        Done = "done",
    }
    later { }
}

words! {
    /// How a program gets the prompt.
    PromptWord as "a way to hand over the prompt" {
        /// As its last argument.
        Argument = "argument",
        /// On its stdin, which is then closed.
        Stdin = "stdin",
        /// In a file named by `SUPERVISOR_PROMPT_FILE`.
        File = "file",
        /// Not at all: its tasks need no prompt.
        None = "none",
    }
    later { }
}

words! {
    /// What happens when a usage limit is over.
    AutoResumeWord as "a rule for going on" {
        /// One attempt probes, then all go on.
        Always = "always",
        /// The operator is asked.
        Ask = "ask",
        /// The account stays stopped until `supervisor resume`.
        Never = "never",
    }
    later { }
}

words! {
    /// How strictly limits are kept.
    EnforceWord as "a way to enforce limits" {
        /// As far as the agent reports what it uses.
        BestEffort = "best_effort",
    }
    later { }
}

words! {
    /// What a dependency waits for.
    ConditionWord as "a condition" {
        /// The task is done.
        Done = "done",
        /// The task has ended, however it ended.
        Finished = "finished",
        /// The task is done and its work is merged, where it has a worktree.
        Merged = "merged",
    }
    later { }
}

impl ConditionWord {
    /// What it means in a plan.
    pub(super) fn mean(self) -> Condition {
        match self {
            Self::Done => Condition::Done,
            Self::Finished => Condition::Finished,
            Self::Merged => Condition::Merged,
        }
    }
}

words! {
    /// How the next attempt begins.
    ModeWord as "a way to try again" {
        /// Same session, same working folder.
        Resume = "resume",
        /// Same working folder, a new session with a hand-off.
        NewSession = "new_session",
        /// Everything from the start.
        Fresh = "fresh",
        /// Not at all.
        Stop = "stop",
    }
    later { }
}

impl ModeWord {
    /// What it means in a plan.
    pub(super) fn mean(self) -> RetryMode {
        match self {
            Self::Resume => RetryMode::Resume,
            Self::NewSession => RetryMode::NewSession,
            Self::Fresh => RetryMode::Fresh,
            Self::Stop => RetryMode::Stop,
        }
    }
}
