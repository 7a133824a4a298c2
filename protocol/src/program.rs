//! Agent programs that are driven over a wire of their own: which there are, how one is run, and what
//! each can prove.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{Capabilities, Receipt, SteerReach};

/// The wires that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramKind {
    /// Claude Code, over its stream of JSON lines.
    Claude,
    /// Codex, over the JSON-RPC of its app server.
    Codex,
    /// Any program that speaks the Agent Client Protocol, version 1.
    Acp,
    /// pi, over the JSON lines of its rpc mode.
    Pi,
}

impl ProgramKind {
    /// Every kind, in the order in which people are shown them.
    pub const ALL: [ProgramKind; 4] = [Self::Claude, Self::Codex, Self::Acp, Self::Pi];

    /// The word of the batch file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Acp => "acp",
            Self::Pi => "pi",
        }
    }

    /// Its usual program; `None` where the batch file names one.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::Claude => Some("claude"),
            Self::Codex => Some("codex"),
            Self::Pi => Some("pi"),
            Self::Acp => None,
        }
    }

    /// The most that a program of this kind can do and prove. A run tells what its own program can,
    /// which may be less: an older version, or an optional part of the wire.
    pub fn capabilities(self) -> Capabilities {
        let all = Capabilities {
            steer: SteerReach::Interrupt,
            receipt: Receipt::Seen,
            interrupt: true,
            resume: true,
            questions: true,
            usage: true,
            cost: true,
        };
        match self {
            Self::Claude | Self::Pi | Self::Acp => all,
            // It counts tokens, and knows no prices.
            Self::Codex => Capabilities { cost: false, ..all },
        }
    }
}

/// How an agent program is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramAdapter {
    /// Which wire it speaks.
    pub kind: ProgramKind,
    /// Its program: a name for the run's `PATH`, or a path.
    pub program: String,
    /// Arguments behind the adapter's own, rendered.
    pub args: Vec<String>,
    /// The model; absent: its own default.
    pub model: Option<String>,
    /// The session's mode, for a wire that has modes; absent: the one that the permissions ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// What it may do without asking.
    pub permissions: Permissions,
    /// Where its sessions and settings are.
    pub home: Home,
    /// How the operator's login gets into a home of its own.
    pub credentials: Credentials,
    /// Added to its system prompt, rendered.
    pub system_prompt: Option<String>,
    /// Servers of tools that it gets beside the supervisor's own, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mcp: BTreeMap<String, McpServer>,
}

/// A server of tools, which the agent program starts and talks to over its stdio (MCP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServer {
    /// Its program.
    pub command: String,
    /// Its arguments, rendered.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment beside the agent's, rendered.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// What an agent may do without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Everything.
    Full,
    /// What its edit mode allows; the rest is refused by policy.
    Edits,
    /// What its default mode allows; the rest becomes a question to the operator.
    Ask,
}

/// Where an agent program keeps sessions and settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Home {
    /// In a folder of the task, which is also what it resumes from.
    Task,
    /// Where the operator's own are.
    Shared,
    /// In this folder, absolute.
    Path(String),
}

/// How the operator's login gets into a home that is not shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// As files of its own, 0600, at the start of each run if the operator's are newer.
    Copy,
    /// As symbolic links to the operator's.
    Link,
    /// Not at all: by the environment, or not needed.
    None,
}
