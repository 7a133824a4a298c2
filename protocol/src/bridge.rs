//! The bridge: what an agent and its own host tell each other, beside the agent's own wire.
//!
//! The host listens at a unix socket in the run's folder and writes [`BRIDGE_FILE_NAME`] beside it,
//! which says where the socket is and what opens it. The agent's tools (`agent-host mcp`,
//! `agent-host say` and their like) connect, one JSON-RPC 2.0 object a line each way, at most
//! [`LINE_MAX`](crate::framing::LINE_MAX) bytes; a longer line ends the connection. The first
//! request must be `hello` with the token, anything else ends the connection too. Nothing that can
//! be asked here answers a question, kills, cancels or steers beyond `send_message`.

use serde::{Deserialize, Serialize};

use crate::ids::{MessageId, QuestionId, TaskId};
use crate::report::{EXCERPT_MAX, ResultStatus, TaskLine, Verdict};

/// The variable in the agent's environment that names the bridge's file.
pub const BRIDGE_ENV: &str = "SUPERVISOR_BRIDGE";
/// Name of the file in the run's folder (0600).
pub const BRIDGE_FILE_NAME: &str = "bridge.json";
/// Name of the socket beside it (0600).
pub const BRIDGE_SOCKET_NAME: &str = "bridge.sock";
/// Format version of the file.
pub const BRIDGE_FILE_VERSION: u32 = 1;
/// Largest file that is read as one, bytes: many times what a host writes.
pub const BRIDGE_FILE_MAX: u64 = 16 * 1024;

/// Longest text of one call, bytes; a longer one is refused. As long as an operator's message.
pub const TEXT_MAX: usize = 64 * 1024;
/// Most files that a result names; more are refused.
pub const ARTIFACTS_MAX: usize = 32;
/// Longest path of such a file, bytes; a longer one is refused.
pub const ARTIFACT_PATH_MAX: usize = 512;
/// Messages that one run may send to other tasks; further ones are refused. Each is a record of the
/// batch, and two agents that answer each other must come to an end.
pub const SENDS_MAX: u32 = 100;
/// Longest wait of a call for an answer, milliseconds: there are agent programs that give a tool up
/// after 60 s. Then the call is told [`Reply::Pending`], and may be made again.
pub const WAIT_MAX_MS: u64 = 50_000;

/// Error code: the run refuses the call, and says why (a limit, a state, a name that is not known).
pub const ERROR_REFUSED: i64 = -32002;
/// Error code: the token is missing or wrong.
pub const ERROR_NO_TOKEN: i64 = -32003;
/// Error code: host or run are ending; the call will not be answered.
pub const ERROR_ENDING: i64 = -32004;

/// The content of the bridge's file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeFile {
    /// [`BRIDGE_FILE_VERSION`].
    pub v: u32,
    /// The socket, absolute. Its path may be longer than a socket's address may be.
    pub socket: String,
    /// What the first request has to present. A secret: it is in no log and in no report.
    pub token: String,
}

impl std::fmt::Debug for BridgeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("BridgeFile");
        shown.field("v", &self.v).field("socket", &self.socket);
        shown.finish_non_exhaustive()
    }
}

/// A call as a request `{"method": <name>, "params": <fields>}`. `serde_json::from_slice` reads it
/// from the whole line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params", rename_all = "snake_case")]
pub enum Call {
    /// Opens the connection.
    Hello {
        /// The file's token.
        token: String,
    },
    /// How far the agent is.
    ReportProgress {
        /// What it does now.
        text: String,
        /// 0 to 100, where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        percent: Option<u8>,
    },
    /// A question to the operator, or with `question_id` more waiting for an earlier one.
    AskOperator {
        /// The question.
        #[serde(default)]
        question: String,
        /// Answers to choose from; empty: free text.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
        /// The earlier question.
        #[serde(default, skip_serializing_if = "Option::is_none", with = "shown_maybe")]
        question_id: Option<QuestionId>,
    },
    /// A message to the operator or to another task of the batch.
    SendMessage {
        /// The task's id; absent or `operator`: to the operator.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// The text.
        text: String,
        /// The operator should know at once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        urgent: bool,
    },
    /// Takes the messages that wait for this run.
    ReadMailbox {},
    /// The agent's own word on its work; the last one counts.
    TaskResult {
        /// Whether it went well.
        status: ResultStatus,
        /// What was done, or why not.
        summary: String,
        /// Files that prove it, relative to the working folder.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        artifacts: Vec<String>,
        /// A reviewer's word on the work; refused from anybody else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<Verdict>,
    },
    /// The tasks of the batch.
    ListTasks {},
}

impl Call {
    /// The JSON-RPC method name.
    pub fn method(&self) -> &'static str {
        match self {
            Call::Hello { .. } => "hello",
            Call::ReportProgress { .. } => "report_progress",
            Call::AskOperator { .. } => "ask_operator",
            Call::SendMessage { .. } => "send_message",
            Call::ReadMailbox {} => "read_mailbox",
            Call::TaskResult { .. } => "task_result",
            Call::ListTasks {} => "list_tasks",
        }
    }

    /// The call as one request with its newline.
    ///
    /// # Errors
    /// As [`rpc::request`](crate::rpc::request).
    pub fn line(&self, id: u64) -> Result<Vec<u8>, serde_json::Error> {
        let whole = serde_json::to_value(self)?;
        crate::rpc::request(id, self.method(), whole.get("params"))
    }
}

/// The good answer to a call; a refusal is an error of JSON-RPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done {},
    /// The message is durable in the mailbox of the task.
    Sent {
        /// Its id.
        #[serde(with = "shown")]
        message_id: MessageId,
    },
    /// The operator answered.
    Answered {
        /// The question.
        #[serde(with = "shown")]
        question_id: QuestionId,
        /// The answer.
        answer: String,
    },
    /// Nobody answered yet.
    Pending {
        /// The question.
        #[serde(with = "shown")]
        question_id: QuestionId,
        /// What to do, for a model.
        hint: String,
    },
    /// What waited for the run.
    Mailbox {
        /// In order.
        messages: Vec<Letter>,
        /// Answers that came while no call waited for them.
        answers: Vec<LateAnswer>,
        /// There are more; call again.
        more: bool,
    },
    /// The batch.
    Tasks {
        /// Its tasks, the caller's own and what it depends on first.
        tasks: Vec<TaskLine>,
        /// Tasks for which there was no room.
        left_out: u32,
    },
}

/// One message of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its id.
    #[serde(with = "shown")]
    pub id: MessageId,
    /// The task whose agent wrote it; absent: the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TaskId>,
    /// The text.
    pub text: String,
}

/// An answer that nobody waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateAnswer {
    /// The question.
    #[serde(with = "shown")]
    pub question_id: QuestionId,
    /// The question's text, an excerpt.
    pub question: String,
    /// The answer.
    pub answer: String,
}

/// Longest excerpt of a question that is repeated beside its answer.
pub const REPEATED_MAX: usize = EXCERPT_MAX;

/// An id as it is shown to people and models (`q3`); read with or without its letter, also as a
/// number, because a model may drop the letter.
mod shown {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<T: Display, S: Serializer>(id: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(u64),
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = match Written::deserialize(from)? {
            Written::Text(text) => text,
            Written::Number(number) => number.to_string(),
        };
        text.parse().map_err(D::Error::custom)
    }
}

/// As [`shown`], where there may be none.
mod shown_maybe {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::{Deserialize, Deserializer};
    use serde::ser::Serializer;

    pub(super) fn serialize<T: Display, S: Serializer>(
        id: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => super::shown::serialize(id, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        #[derive(serde::Deserialize)]
        #[serde(bound(deserialize = "T: FromStr<Err: Display>"))]
        struct Shown<T>(#[serde(with = "super::shown")] T);
        let id = Option::<Shown<T>>::deserialize(from)?;
        Ok(id.map(|Shown(id)| id))
    }
}
