//! The control socket's words: one JSON object a line, one request a connection, one or more
//! replies. Both ends are this program, so there is one version and no negotiation beyond it.

use protocol::command::SteerMode;
use protocol::ids::{BatchId, MessageId, QuestionId, TaskId};
use protocol::report::Family;
use serde::{Deserialize, Serialize};

/// Version of this page; a request of another version is refused, naming both.
pub const CONTROL_VERSION: u32 = 1;
/// Longest request, bytes: a message, twice over for escapes, and its frame.
pub const REQUEST_MAX: usize = 256 * 1024;

/// One request; also the form in which requests to a batch without a live supervisor are kept in
/// its `inbox/` folder until the next one starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`CONTROL_VERSION`].
    pub v: u32,
    /// The batch that is meant; a supervisor of another batch refuses.
    pub batch: BatchId,
    /// What is wanted.
    pub want: Want,
}

/// What is wanted. `tasks: None` is the whole batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// A message to tasks.
    Steer {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// When it goes in.
        mode: SteerMode,
        /// Its text.
        text: String,
        /// Useless after this, milliseconds since the epoch.
        expires_ms: Option<i64>,
        /// Stream `Rung` replies until every message has reached this rung or left the ladder.
        wait: Option<Rung>,
    },
    /// An answer to a question.
    Answer {
        /// The question.
        question: QuestionId,
        /// The answer.
        text: String,
    },
    /// End attempts by force; their tasks are paused.
    Kill {
        /// The tasks; `None` also ends the supervisor.
        tasks: Option<Vec<TaskId>>,
        /// Time from asking to force, milliseconds.
        grace_ms: u64,
    },
    /// Hold.
    Pause {
        /// The tasks.
        tasks: Option<Vec<TaskId>>,
        /// Stop what runs, instead of letting it finish.
        now: bool,
    },
    /// Let go on.
    Resume {
        /// The tasks.
        tasks: Option<Vec<TaskId>>,
    },
    /// Rule that they go no further.
    Cancel {
        /// The tasks.
        tasks: Option<Vec<TaskId>>,
    },
    /// Try terminal tasks again.
    Retry {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// From the start instead of by resuming.
        fresh: bool,
        /// Attempts at most from now on.
        attempts: Option<u32>,
        /// A message for the next attempt.
        note: Option<String>,
    },
    /// Pass over.
    Skip {
        /// The tasks.
        tasks: Vec<TaskId>,
        /// Dependents see them as done.
        as_done: bool,
    },
    /// Remove worktrees of ended tasks; what is in them is kept first.
    Clean {
        /// The tasks.
        tasks: Option<Vec<TaskId>>,
    },
    /// Remove what can be built again from worktrees of ended tasks.
    CleanBuildOutput {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// These runs were ended by force while no supervisor lived. Only ever kept for the next one,
    /// which rules on it when it looks at what became of each run.
    Killed {
        /// Their generations.
        runs: Vec<u64>,
    },
    /// What each live run does now.
    Activity,
    /// Look into the inbox again: a request was put there that may have come after the last look.
    Inbox,
    /// Replies `Changed` lines until the supervisor ends.
    Watch,
    /// Become another program of the same kind, and go on with everything. Answered by the new
    /// program, or by the old one, which goes on when the new one can not.
    Reexec {
        /// The program's absolute path.
        program: String,
    },
}

impl Want {
    /// Whether it only looks, so that anybody of the same user may ask it, also a run of the batch.
    pub const fn only_reads(&self) -> bool {
        match self {
            Self::Activity | Self::Watch => true,
            Self::Steer { .. }
            | Self::Answer { .. }
            | Self::Kill { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Cancel { .. }
            | Self::Retry { .. }
            | Self::Skip { .. }
            | Self::Clean { .. }
            | Self::CleanBuildOutput { .. }
            | Self::Inbox
            | Self::Reexec { .. }
            | Self::Killed { .. } => false,
        }
    }
}

/// A rung of the ladder that an operator can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Durable.
    Queued,
    /// Written to a host.
    Sent,
    /// Handed to the agent.
    Injected,
    /// Read by the agent.
    Seen,
}

/// One reply line. The last one of a connection is never `Rung` or `Changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is decided and durable; one line per thing that was done.
    Done {
        /// For people.
        lines: Vec<String>,
    },
    /// The messages are durable, in the order of the tasks.
    Messages {
        /// Their ids.
        ids: Vec<MessageId>,
        /// When they were queued, by the supervisor's clock, as every later rung: milliseconds
        /// since the epoch.
        at_ms: i64,
    },
    /// A message moved (only after `Messages`, and only where a wait was asked for).
    Moved {
        /// The message.
        id: MessageId,
        /// Its state's word.
        state: String,
        /// When, milliseconds since the epoch.
        at_ms: i64,
    },
    /// Nothing was changed.
    Refused {
        /// The exit code that fits.
        code: u8,
        /// Why, and what to do.
        text: String,
    },
    /// What each live run does now.
    Activity {
        /// One entry a run.
        runs: Vec<RunActivity>,
    },
    /// A machine took a step.
    Changed {
        /// Which machine.
        machine: String,
        /// Of which entity: task id, message id ...
        of: String,
        /// From this state
        from: String,
        /// to this one.
        to: String,
    },
}

/// One live run as the supervisor sees it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunActivity {
    /// Its task.
    pub task: TaskId,
    /// Its generation.
    pub generation: u64,
    /// Its host's pid.
    pub pid: Option<u32>,
    /// What it does.
    pub text: String,
    /// Milliseconds since its last sign of life.
    pub quiet_ms: u64,
    /// Milliseconds since its host said anything.
    #[serde(default)]
    pub heard_ms: u64,
    /// What its family uses.
    #[serde(default)]
    pub family: Family,
}
