//! Supervisor to host: what a host is told to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::forge::{CommentAdapter, FetchAdapter};
use crate::git::GitAdapter;
use crate::ids::{AttemptNo, BatchId, Generation, MessageId, QuestionId, TaskId};
use crate::program::ProgramAdapter;
use crate::report::Family;
use crate::rpc;

/// A command as a notification `{"method": <name>, "params": <fields>}`; [`Hello`] and `ping` are
/// requests and travel apart.
///
/// [`Hello`]: crate::version::Hello
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Command {
    /// Begin the run; sent once, after the host's identity is durable.
    Start(Box<Start>),
    /// Hand a message to the agent.
    Deliver(Message),
    /// The operator's answer to a question that this run asked.
    Answer(Answer),
    /// Interrupt the agent's current turn; the run goes on.
    Interrupt {},
    /// End the run: the agent is asked, after `grace_ms` its tree is killed.
    Stop(Stop),
}

impl Command {
    /// The JSON-RPC method name.
    pub fn method(&self) -> &'static str {
        match self {
            Command::Start(_) => "start",
            Command::Deliver(_) => "deliver",
            Command::Answer(_) => "answer",
            Command::Interrupt {} => "interrupt",
            Command::Stop(_) => "stop",
        }
    }

    /// The command as one line with its newline; `serde_json::from_slice` reads it back.
    ///
    /// # Errors
    /// When it can not be written as JSON, or the line would be longer than
    /// [`LINE_MAX`](crate::framing::LINE_MAX).
    pub fn line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let method = self.method();
        match self {
            Command::Start(start) => rpc::notification(method, start),
            Command::Deliver(message) => rpc::notification(method, message),
            Command::Answer(answer) => rpc::notification(method, answer),
            Command::Interrupt {} => rpc::notification(method, Nothing {}),
            Command::Stop(stop) => rpc::notification(method, stop),
        }
    }
}

/// The parameters of a command without any.
#[derive(Serialize)]
struct Nothing {}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// The agent works on the task.
    Agent,
    /// The task's `verify` commands, or those of a merge.
    Verify,
    /// Another agent judges the work.
    Review,
    /// A step of a merge: git work, or an agent that resolves a conflict.
    Merge,
    /// Commands of the operator around the work.
    Hook,
    /// Git work for the task.
    Git,
}

impl RunKind {
    /// The word used in journal and status.
    pub fn word(self) -> &'static str {
        match self {
            RunKind::Agent => "agent",
            RunKind::Verify => "verify",
            RunKind::Review => "review",
            RunKind::Merge => "merge",
            RunKind::Hook => "hook",
            RunKind::Git => "git",
        }
    }
}

/// Everything a host needs for one run; nothing is derived from its own cwd or environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// This run.
    pub generation: Generation,
    /// Its batch.
    pub batch: BatchId,
    /// Its task.
    pub task: TaskId,
    /// Its attempt.
    pub attempt: AttemptNo,
    /// What it is for.
    pub kind: RunKind,
    /// The agent's working folder, absolute.
    pub cwd: String,
    /// Folder of this run's files (made by the host, 0700), absolute.
    pub run_dir: String,
    /// Folder of the task's files that outlive a run (mailbox, history, home), absolute.
    pub task_dir: String,
    /// The rendered prompt; absent for verify runs and for commands without one.
    pub prompt: Option<Text>,
    /// What the agent should know of the attempt before this one; absent where that says nothing about
    /// the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand_off: Option<String>,
    /// The whole environment of the agent's program: nothing else is inherited.
    pub env: BTreeMap<String, String>,
    /// The agent's own conversation to go on with.
    pub session: Option<String>,
    /// Messages that go in with the prompt, in order.
    pub messages: Vec<Message>,
    /// Messages that an earlier run already injected: never inject them again.
    pub injected: Vec<MessageId>,
    /// Most bytes kept of each of stdout and stderr; what comes after is counted, not kept.
    pub log_max: u64,
    /// The host ends by itself when no command and no ping came for this long, milliseconds. Then,
    /// and when stdin ends, it kills its tree at once: nobody is left to take the result that a
    /// grace would be for, and the next supervisor waits for the host's end. A `stop` says its own
    /// grace.
    pub lease_ms: u64,
    /// The run's own cgroup, absolute, where it has one: what the family uses is read there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// What the family may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimit>,
    /// How to drive the agent.
    pub adapter: Adapter,
}

/// A limit of memory for the family of a run: all that its host starts, however far down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// Bytes.
    pub max: u64,
    /// Who sees to it.
    pub keeper: Keeper,
}

/// Who sees to a limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// The run's cgroup: no page beyond the limit is ever given out.
    Cgroup,
    /// The host looks every few seconds, and ends the family when it is over.
    Host,
}

/// A text that may be too large for a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Text {
    /// In the line itself.
    Inline(String),
    /// In a file, absolute path, UTF-8.
    File(String),
}

/// How the host drives the agent's program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adapter {
    /// Any program; its exit status (or its result file) is its result.
    Command(CommandAdapter),
    /// The embedded demo agent: plays a script of steps.
    Scripted(ScriptedAdapter),
    /// Commands that must all exit 0.
    Verify(VerifyAdapter),
    /// An agent program, over its own wire.
    Program(ProgramAdapter),
    /// Commands around the work: each allows (0), warns (1) or blocks (anything else).
    Hook(VerifyAdapter),
    /// Git work.
    Git(GitAdapter),
    /// An issue or a pull request is fetched.
    Fetch(FetchAdapter),
    /// A comment on what the task is about.
    Comment(CommentAdapter),
}

/// How a plain program is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAdapter {
    /// Program and arguments, rendered.
    pub argv: Vec<String>,
    /// How the prompt reaches it.
    pub prompt_by: PromptBy,
    /// Where it writes a JSON result, absolute; absent: its exit status is the result.
    pub result_file: Option<String>,
}

/// How a command gets the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptBy {
    /// Not at all (`run:` tasks).
    None,
    /// As its last argument.
    Argument,
    /// On its stdin, which is then closed.
    Stdin,
    /// In a file whose path is in `SUPERVISOR_PROMPT_FILE`.
    File,
}

/// The script of the embedded agent, as JSON text: a list of steps (see the host's manual).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptedAdapter {
    /// JSON array of steps, inline or in a file.
    pub script: Text,
}

/// The commands of a verify run, in order; the first that fails ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyAdapter {
    /// The commands.
    pub commands: Vec<VerifyCommand>,
}

/// One command of a verify run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyCommand {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Its own time limit, milliseconds.
    pub timeout_ms: u64,
    /// Added to the run's environment.
    pub env: BTreeMap<String, String>,
}

/// One message of the operator, immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// When it goes in.
    pub mode: SteerMode,
    /// Its text.
    pub text: String,
    /// The task whose agent wrote it; absent: the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskId>,
}

/// When a message goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SteerMode {
    /// At the next tool boundary.
    Boundary,
    /// Interrupt the turn, then prompt.
    Interrupt,
    /// When the turn ends.
    After,
    /// In a new session, with a hand-off.
    Restart,
}

impl SteerMode {
    /// The word used on the command line and in the journal.
    pub fn word(self) -> &'static str {
        match self {
            SteerMode::Boundary => "boundary",
            SteerMode::Interrupt => "interrupt",
            SteerMode::After => "after",
            SteerMode::Restart => "restart",
        }
    }
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub question: QuestionId,
    /// The answer; absent when the question expired and policy gives none.
    pub text: Option<String>,
}

/// How to end a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Time from now to the kill of the tree, milliseconds; 0 kills at once.
    pub grace_ms: u64,
}

/// The answer to `ping`: the heartbeat, with signs of life that no report carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pong {
    /// Bytes the agent's program has printed so far.
    pub output_bytes: u64,
    /// What the agent's family uses.
    pub family: Family,
}
