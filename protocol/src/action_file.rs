//! `actions.jsonl`: what an agent asked leave for in a run and what it was told, one answer a line,
//! written by the host for whoever has to account for it later.

use serde::{Deserialize, Serialize};

/// Its name in a run's folder.
pub const ACTION_FILE_NAME: &str = "actions.jsonl";

/// Version of its lines.
pub const ACTION_LINE_VERSION: u32 = 1;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionLine {
    /// [`ACTION_LINE_VERSION`].
    pub v: u32,
    /// When it was given, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The tool that the agent wanted to use.
    pub tool: String,
    /// What with; an excerpt.
    pub detail: String,
    /// Why it asked; an excerpt.
    pub reason: String,
    /// What it was told.
    pub decision: ActionDecision,
    /// Who decided.
    pub by: ActionBy,
    /// Why not, as the agent was told; empty for leave.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What an agent was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionDecision {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionBy {
    /// The batch file's `permissions`.
    Policy,
    /// The operator, or the policy for questions that nobody answers.
    Operator,
}
