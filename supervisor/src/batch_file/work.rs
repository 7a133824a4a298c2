//! What only the driver needs of a batch file: the JSON texts that the plan carries as `work`.
//!
//! The core hands these texts through without looking at them. They are written once, when the file
//! is read, and stay readable for as long as a batch of this release may be resumed: fields may be
//! added with a default, never renamed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use protocol::command::PromptBy;
use protocol::program::ProgramAdapter;
use protocol::script::Script;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Environment variables that every agent gets when the supervisor has them, beside those whose
/// name begins with `LC_`: where things are, who one is, and how text and time are shown.
pub const PASSED_ON: &[&str] = &[
    "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER",
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
    /// Texts that tasks share (files named by `prompt_file`), each kept once.
    #[serde(default)]
    pub texts: Vec<String>,
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
    /// Whether a template reads `deps`: only then need the results of dependencies be looked up.
    #[serde(default)]
    pub reads_deps: bool,
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

/// One command that proves a task done.
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
