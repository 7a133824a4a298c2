//! What only the driver needs of a batch file: the JSON texts that the plan carries as `work`.
//!
//! The core hands these texts through without looking at them. They are written once, when the file
//! is read, and stay readable for as long as a batch of this release may be resumed: fields may be
//! added with a default, never renamed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use protocol::command::PromptBy;
use protocol::forge::ForgeKind;
use protocol::git::{Freshness, Oid};
use protocol::ids::TaskId;
use protocol::program::ProgramAdapter;
use protocol::script::Script;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Environment variables that every agent gets when the supervisor has them, beside those whose
/// name begins with `LC_`: where things are, who one is, and how text and time are shown.
pub const PASSED_ON: &[&str] = &[
    "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
];

/// Environment variables that a fetch gets beside those of every run when the supervisor has them: where
/// forges are, with which login they are asked, and the way there. No agent gets them by this.
pub const FORGE_ENV: &[&str] = &[
    "GH_CONFIG_DIR",
    "GH_ENTERPRISE_TOKEN",
    "GH_TOKEN",
    "GITHUB_API_URL",
    "GITHUB_ENTERPRISE_TOKEN",
    "GITHUB_TOKEN",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// What the driver needs of the batch (`Settings.work`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchWork {
    /// The batch file as the operator named it; `-` is stdin.
    pub file: String,
    /// The working folder of every task, absolute.
    pub folder: PathBuf,
    /// Environment for every agent and command; values are templates.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names passed on from the supervisor's own environment.
    #[serde(default)]
    pub env_from: Vec<String>,
    /// Variables for templates.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// Where worktrees are made, absolute; absent: in the state directory.
    #[serde(default)]
    pub worktrees: Option<PathBuf>,
    /// Which ignored files a salvage keeps.
    #[serde(default)]
    pub salvage_ignored: SalvageIgnored,
    /// Texts that tasks share (files named by `prompt_file`), each kept once.
    #[serde(default)]
    pub texts: Vec<String>,
}

/// Which of the files that git ignores a salvage keeps with the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SalvageIgnored {
    /// Every one.
    All,
    /// Every one but build output: nobody knows better what the others are worth.
    #[default]
    AllButBuildOutput,
    /// None.
    None,
}

/// What the driver needs of a repository (`RepoSpec.work`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepoWork {
    /// Its working folder, absolute; no bare one.
    pub path: PathBuf,
    /// The folder that the batch file names, relative to it: tasks work in this folder of their
    /// worktree; empty: at its top.
    #[serde(default)]
    pub folder: PathBuf,
    /// The commit that the batch starts from, pinned when the batch was made.
    pub base: Oid,
    /// What the batch file calls it; absent: what was checked out.
    #[serde(default)]
    pub base_name: Option<String>,
    /// The branch that this was, `refs/heads/...`, where it was one.
    #[serde(default)]
    pub watch: Option<String>,
    /// What happens when that branch has moved on.
    pub freshness: Freshness,
    /// The branch that takes the merges, without `refs/heads/`; a template.
    pub into: String,
    /// Commands that prove each merge.
    #[serde(default)]
    pub verify: Vec<VerifyWork>,
    /// What an agent that resolves a conflict is told, a template; absent: a built-in text.
    #[serde(default)]
    pub resolve: Option<TextRef>,
    /// Commands around the work in this repository.
    #[serde(default)]
    pub hooks: HooksWork,
    /// Environment for agents and commands in it; values are templates.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The operator's commands around the work, each list in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HooksWork {
    /// Once a worktree is made.
    #[serde(default)]
    pub after_create: Vec<VerifyWork>,
    /// Before each agent run.
    #[serde(default)]
    pub before_run: Vec<VerifyWork>,
    /// After each agent run.
    #[serde(default)]
    pub after_run: Vec<VerifyWork>,
    /// Before a worktree is removed.
    #[serde(default)]
    pub before_remove: Vec<VerifyWork>,
}

/// What the driver needs of an agent (`AgentSpec.work`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentWork {
    /// How it is driven.
    pub drive: Drive,
    /// Environment for it; values are templates.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names passed on from the supervisor's own environment.
    #[serde(default)]
    pub env_from: Vec<String>,
}

/// How an agent is driven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drive {
    /// A program.
    Command(CommandDrive),
    /// The embedded agent; without a script of its own it plays the one of the task.
    Scripted {
        /// Its script; texts in it are templates.
        script: Option<Script>,
    },
    /// `run:` tasks: the command is the task's own.
    Run,
    /// An agent program. What of it is a template is not rendered yet.
    Program(ProgramAdapter),
}

/// A program as an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandDrive {
    /// Program and arguments, each a template; never empty.
    pub argv: Vec<String>,
    /// How it gets the prompt.
    pub prompt_by: PromptBy,
    /// Where it writes a JSON result, a template; relative to the working folder.
    #[serde(default)]
    pub result_file: Option<String>,
}

/// What the driver needs of a task (`TaskSpec.work`); the tasks of one `foreach` share one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskWork {
    /// What is to be done.
    pub act: Act,
    /// Commands that prove it done, in order.
    #[serde(default)]
    pub verify: Vec<VerifyWork>,
    /// Environment; values are templates.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names passed on from the supervisor's own environment.
    #[serde(default)]
    pub env_from: Vec<String>,
    /// Variables for templates, over those of the batch.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// Files that are kept when the task is done, relative to its working folder; templates.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Whether a change outside `touches` fails the attempt.
    #[serde(default)]
    pub touches_enforce: bool,
    /// What the reviewer is told beside task, difference and proof, a template.
    #[serde(default)]
    pub review: Option<TextRef>,
    /// The operator's commands around it, where it has no repository of its own to name them.
    #[serde(default)]
    pub hooks: HooksWork,
    /// The issue or pull request that its prompt is made of.
    #[serde(default)]
    pub about: Option<AboutWork>,
    /// Whether a template reads `deps`: only then need the results of dependencies be looked up.
    #[serde(default)]
    pub reads_deps: bool,
}

/// The issue or pull request that a prompt is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutWork {
    /// What it is.
    pub kind: ForgeKind,
    /// Which one, a template.
    pub reference: String,
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// The agent gets this prompt, a template.
    Prompt(TextRef),
    /// The scripted agent plays this script; texts in it are templates.
    Script(Script),
    /// This program with these arguments runs, each a template.
    Run(Vec<String>),
    /// The agent needs to be told nothing.
    Nothing,
}

/// Where a text is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextRef {
    /// Here.
    Inline(String),
    /// In [`BatchWork::texts`], at this position.
    Shared(u32),
}

impl TextRef {
    /// The text; `None` when the number is not of this batch.
    pub fn resolve<'a>(&'a self, batch: &'a BatchWork) -> Option<&'a str> {
        match self {
            TextRef::Inline(text) => Some(text),
            TextRef::Shared(number) => {
                let index = usize::try_from(*number).ok()?;
                batch.texts.get(index).map(String::as_str)
            }
        }
    }
}

/// One command of the operator: it proves a task or a merge, or is a hook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyWork {
    /// Program and arguments, each a template.
    pub argv: Vec<String>,
    /// Its own time limit, milliseconds.
    pub timeout_ms: u64,
    /// Added to its environment; values are templates.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Below this the branches of tasks lie, in every repository.
pub const TASK_BRANCHES: &str = "supervisor";

/// The branch of a task, without `refs/heads/`: no two batches share one.
pub fn task_branch(batch: &str, task: &TaskId) -> String {
    format!("{TASK_BRANCHES}/{batch}/{task}")
}
