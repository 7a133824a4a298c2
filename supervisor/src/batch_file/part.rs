//! Which text of a batch file a mistake is in, and which hook a command belongs to.

use super::work::{HooksWork, VerifyWork};

/// Which text of the batch file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The prompt.
    Prompt,
    /// An argument of the command, from 0.
    Argument(usize),
    /// The result file's path.
    ResultFile,
    /// An environment variable's value.
    Env(String),
    /// A text in the script.
    Script,
    /// Which issue or pull request it is.
    Reference,
    /// A comment on it.
    Comment,
    /// What is added to the agent's system prompt.
    SystemPrompt,
    /// An argument of the verify command of this number, from 0.
    Verify(usize),
    /// An argument of the command of this number of a hook, from 0.
    Hook(HookPoint, usize),
    /// An argument of the command of this number that proves a merge, from 0.
    MergeVerify(usize),
    /// The name of the batch branch.
    Into,
    /// The path of an output.
    Output,
    /// What a reviewer is told.
    ReviewPrompt,
    /// What an agent that resolves a conflict is told.
    MergePrompt,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookPoint {
    /// Once a worktree is made.
    AfterCreate,
    /// Before each agent run.
    BeforeRun,
    /// After each agent run.
    AfterRun,
    /// Before a worktree is removed.
    BeforeRemove,
}

impl HookPoint {
    /// Its key in the batch file.
    pub const fn word(self) -> &'static str {
        match self {
            HookPoint::AfterCreate => "after_create",
            HookPoint::BeforeRun => "before_run",
            HookPoint::AfterRun => "after_run",
            HookPoint::BeforeRemove => "before_remove",
        }
    }

    /// Its commands.
    pub fn commands(self, hooks: &HooksWork) -> &[VerifyWork] {
        match self {
            HookPoint::AfterCreate => &hooks.after_create,
            HookPoint::BeforeRun => &hooks.before_run,
            HookPoint::AfterRun => &hooks.after_run,
            HookPoint::BeforeRemove => &hooks.before_remove,
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Prompt => f.write_str("the prompt"),
            Part::Argument(index) => write!(f, "argument {index} of the command"),
            Part::ResultFile => f.write_str("`result_file`"),
            Part::Env(name) => write!(f, "the variable {name}"),
            Part::Script => f.write_str("a text of the script"),
            Part::Reference => f.write_str("the prompt's `issue` or `pr`"),
            Part::Comment => f.write_str("the text of a comment"),
            Part::SystemPrompt => f.write_str("`system_prompt`"),
            Part::Verify(index) => write!(f, "verify command {}", index + 1),
            Part::Hook(point, index) => write!(f, "command {} of `{}`", index + 1, point.word()),
            Part::MergeVerify(index) => write!(f, "verify command {} of `merge`", index + 1),
            Part::Into => f.write_str("`merge.into`"),
            Part::Output => f.write_str("an output"),
            Part::ReviewPrompt => f.write_str("the reviewer's prompt"),
            Part::MergePrompt => f.write_str("the prompt of `merge`"),
        }
    }
}
