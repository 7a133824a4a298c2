//! Host to supervisor: what happened in a run.

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::git::GitOutcome;
use crate::ids::{Generation, MessageId, QuestionId, TaskId};
use crate::rpc;

/// Longest excerpt of free text in a report, bytes: enough for a status line and for `explain`,
/// small enough that a flood of reports stays cheap. The whole text is in the run's files.
pub const EXCERPT_MAX: usize = 2048;

/// One report (`method: "report"`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run that speaks; a report of another generation than the pipe's is counted, not applied.
    pub generation: Generation,
    /// What happened.
    pub event: Event,
}

impl Report {
    /// The JSON-RPC method name.
    pub const METHOD: &'static str = "report";

    /// The report as one line with its newline.
    ///
    /// # Errors
    /// When it can not be written as JSON, or the line would be longer than
    /// [`LINE_MAX`](crate::framing::LINE_MAX).
    pub fn line(&self) -> Result<Vec<u8>, serde_json::Error> {
        rpc::notification(Self::METHOD, self)
    }
}

/// What happened in a run, the same words for every kind of agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The agent's program runs; what this adapter can prove.
    Started(Started),
    /// The prompt has been handed over.
    PromptSent {},
    /// The agent said something.
    AssistantMessage(Said),
    /// The agent uses a tool.
    ToolCall(Tool),
    /// A tool ended.
    ToolResult(Tool),
    /// Cumulative use of this run.
    Usage(Usage),
    /// How full the context is.
    Context(Context),
    /// The service limits the account; the agent itself waits or gives up.
    RateLimited(RateLimited),
    /// The agent retries something by itself.
    Retry(Said),
    /// The agent compacts its context.
    Compaction(Said),
    /// The agent says how far it is; resets the no-progress clock.
    Progress(Progress),
    /// The agent answers a message.
    Reply(Said),
    /// The agent wants the operator to know something now.
    Escalation(Said),
    /// The message is durable as injected and about to be handed to the agent.
    MessageInjected {
        /// The message.
        id: MessageId,
    },
    /// The agent has provably read the message.
    MessageSeen {
        /// The message.
        id: MessageId,
    },
    /// The host started a process of the run.
    ProcessSpawned(ProcessSpawned),
    /// The agent's turn is over; a result or a new turn follows.
    TurnEnded {},
    /// The host found something odd that it can live with (garbage on its stdin, a full log).
    Notice(Said),
    /// The run's result, already durable in `exit.json`. Nothing that counts comes after it.
    Result(Box<RunResult>),
}

/// Free text, cut to [`EXCERPT_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The text.
    pub text: String,
}

/// A tool's start or end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// The tool.
    pub name: String,
    /// What it works on, or how it ended; an excerpt.
    pub detail: String,
    /// For a result: whether it went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
}

/// The agent runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// What the adapter can prove.
    pub capabilities: Capabilities,
    /// The agent's own conversation, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// What an adapter can do and prove; nothing is pretended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The quickest way a message can go in.
    pub steer: SteerReach,
    /// The highest rung that a message can reach with proof.
    pub receipt: Receipt,
    /// A turn can be interrupted.
    pub interrupt: bool,
    /// A session can be resumed.
    pub resume: bool,
    /// The agent can ask the operator.
    pub questions: bool,
    /// Tokens and turns are reported.
    pub usage: bool,
    /// Cost is reported.
    pub cost: bool,
}

/// The quickest way a message can reach an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SteerReach {
    /// Not while it runs: after the turn or by restart only.
    None,
    /// At the next tool boundary.
    Boundary,
    /// At once, by interrupting.
    Interrupt,
}

/// How far an adapter can prove a message's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receipt {
    /// Handed to the agent's program.
    Injected,
    /// Read by the agent.
    Seen,
}

/// Cumulative use of one run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// Turns taken.
    #[serde(default)]
    pub turns: u64,
    /// Tokens, in and out together.
    #[serde(default)]
    pub tokens: u64,
    /// Cost in micro-dollars (one millionth of a US dollar).
    #[serde(default)]
    pub cost_micros: u64,
}

/// How full the context is, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Tokens in use.
    pub used: u64,
    /// Size of the window.
    pub window: u64,
}

/// The account is limited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimited {
    /// When the limit ends, milliseconds since the Unix epoch, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at_ms: Option<i64>,
    /// What the service said.
    pub detail: String,
}

/// How far the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does now.
    pub text: String,
    /// 0 to 100, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// A process of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpawned {
    /// Its pid.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_ticks: u64,
    /// Its command line, an excerpt.
    pub command: String,
}

/// Whether the work went well, as the agent or the command says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ResultStatus {
    /// It did.
    Ok,
    /// It did not; [`RunResult::class`] says why.
    Failed,
}

/// What the family of a run uses: all that its host started, however far down, not the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Family {
    /// Memory now, bytes: what the run's cgroup is charged with (its share of file caches
    /// included), or without one the sum of what is resident, where shared pages are counted by
    /// each.
    pub memory_bytes: u64,
    /// The most of that seen so far, bytes.
    pub memory_peak_bytes: u64,
    /// CPU time so far, milliseconds, ended processes included.
    pub cpu_ms: u64,
    /// Living processes that were counted.
    pub processes: u32,
    /// Processes first seen in a sample, so far.
    pub begun: u64,
    /// Known processes that were not read, because a sample has a bound: memory and CPU time are
    /// without them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unread: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

/// What the host says of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Whether it went well.
    pub status: ResultStatus,
    /// Why not; always there when the status is `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// A sentence for people; an excerpt.
    #[serde(default)]
    pub summary: String,
    /// Exit status of the agent's program, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended the agent's program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// End of the account's limit, milliseconds since the Unix epoch (class `usage_limit`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at_ms: Option<i64>,
    /// The agent's own conversation, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What the run used.
    #[serde(default)]
    pub usage: Usage,
    /// What its family used; absent where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// Evidence: the end of the output, cut to [`EXCERPT_MAX`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// Files that the agent names as its work, relative to its working folder; they were there when
    /// it named them. At most [`ARTIFACTS_MAX`](crate::bridge::ARTIFACTS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// What a reviewer says of the work; of nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What git work did; absent where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<Box<GitOutcome>>,
}

/// What a reviewer says of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Verdict {
    /// It is good.
    Approve,
    /// It is to be worked over, as the result's summary says.
    Revise,
    /// It is not to be taken.
    Reject,
}

impl Verdict {
    /// The word used by reviewers, on the command line and in the journal.
    pub const fn word(self) -> &'static str {
        match self {
            Verdict::Approve => "approve",
            Verdict::Revise => "revise",
            Verdict::Reject => "reject",
        }
    }
}

/// The host's request `ask`: a question to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The run that asks.
    pub generation: Generation,
    /// The question.
    pub text: String,
    /// Answers to choose from; empty: free text.
    #[serde(default)]
    pub options: Vec<String>,
}

/// The answer to `ask`, once the question is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The question's id; `answer` will name it.
    pub question: QuestionId,
}

/// The host's request `send`: a message of its agent to another task of the batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The run that sends.
    pub generation: Generation,
    /// For this task.
    pub to: TaskId,
    /// The text, at most [`TEXT_MAX`](crate::bridge::TEXT_MAX) bytes; a longer one is refused.
    pub text: String,
}

/// The answer to `send`, once the message is durable in the task's mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The message.
    pub message: MessageId,
}

/// The host's request `tasks`: what the tasks of the batch are and how far they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTasks {
    /// The run that asks.
    pub generation: Generation,
}

/// The answer to `tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tasks {
    /// The asking task, what it depends on, then the others in the order of the plan.
    pub tasks: Vec<TaskLine>,
    /// Tasks for which there was no room.
    pub left_out: u32,
}

/// Most tasks of an answer to `tasks`; the others are counted.
pub const TASKS_MAX: usize = 256;
/// Most dependencies that are named of each; the task ids are short, but a plan may be wide.
pub const DEPENDS_ON_MAX: usize = 16;
/// Longest summary of each, bytes. With the two limits above, an answer stays below
/// [`LINE_MAX`](crate::framing::LINE_MAX).
pub const TASK_SUMMARY_MAX: usize = 300;

/// One task, for another task's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// Its id.
    pub id: TaskId,
    /// Where it is, in the word of `status`.
    pub state: String,
    /// What must come first; at most [`DEPENDS_ON_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    /// What its last result says; an excerpt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

/// Cuts `text` to at most `max` bytes at a character boundary and marks the cut, where the mark
/// itself has room (3 bytes).
pub fn excerpt(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let mark = if max >= MARK.len() { MARK } else { "" };
    let end = text.floor_char_boundary(max - mark.len());
    format!("{}{mark}", &text[..end])
}
