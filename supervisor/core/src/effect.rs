//! Everything the core can ask for, imperative. Each effect is safe to do twice, or carries the
//! generation or id by which the second time is recognised.

use std::sync::Arc;
use std::time::Duration;

use protocol::command::SteerMode;
use protocol::ids::{Generation, MessageId, QuestionId};

use crate::input::ReplyId;
use crate::plan::TaskIx;

/// One act.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start a host for this run, behind the stdin gate; answer `HostSpawned` or `SpawnFailed`.
    SpawnHost {
        /// The run; its task, kind and token are in the state.
        generation: Generation,
    },
    /// Open the gate: send `start`; answer `StartFailed` if it can not be made.
    StartRun {
        /// The run.
        generation: Generation,
        /// Messages that go in with the prompt, in order.
        messages: Vec<MessageId>,
    },
    /// Hand a message to the run's host.
    Deliver {
        /// The run.
        generation: Generation,
        /// The message.
        id: MessageId,
        /// When it goes in.
        mode: SteerMode,
        /// Its text.
        text: Arc<str>,
        /// The task whose agent wrote it; absent: the operator.
        from: Option<TaskIx>,
    },
    /// Hand an answer to the run's host.
    AnswerHost {
        /// The run.
        generation: Generation,
        /// The question.
        question: QuestionId,
        /// The answer, if any.
        text: Option<Arc<str>>,
    },
    /// Ask the run to end, its tree to be killed after the grace. Urgent.
    StopHost {
        /// The run.
        generation: Generation,
        /// The grace.
        grace: Duration,
    },
    /// Kill the run's host and its tree at once. Urgent.
    KillHost {
        /// The run.
        generation: Generation,
    },
    /// Ask the run's host for a sign of life. Urgent: it announces nothing, and a full disk must
    /// not let hosts believe that their supervisor is gone.
    Ping {
        /// The run.
        generation: Generation,
    },
    /// Answer whoever waits.
    Reply {
        /// Who.
        reply: ReplyId,
        /// What.
        answer: Answer,
    },
    /// End the supervisor: every run is gone.
    Finish {
        /// Why.
        ending: Ending,
    },
}

impl Effect {
    /// Whether it must not wait for a disk (I4): stopping and killing are recorded after, a ping
    /// not at all.
    pub const fn is_urgent(&self) -> bool {
        match self {
            Effect::StopHost { .. } | Effect::KillHost { .. } | Effect::Ping { .. } => true,
            Effect::SpawnHost { .. }
            | Effect::StartRun { .. }
            | Effect::Deliver { .. }
            | Effect::AnswerHost { .. }
            | Effect::Reply { .. }
            | Effect::Finish { .. } => false,
        }
    }
}

/// The answer to an operator's command or to a host's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is decided and durable; one line per thing that was done.
    Done(Vec<Arc<str>>),
    /// The messages are durable, in the order of the tasks.
    Messages(Vec<MessageId>),
    /// The question is durable.
    Asked(QuestionId),
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such question, task or message.
    #[error("{0}")]
    NotFound(Arc<str>),
    /// It is there, but its state does not allow it.
    #[error("{0}")]
    WrongState(Arc<str>),
    /// The rung asked for is above what the agent's adapter can prove.
    #[error("{0}")]
    CanNotProve(Arc<str>),
    /// The edited batch file can not be taken by this batch.
    #[error("{0}")]
    Unfit(Arc<str>),
    /// A limit (length, count).
    #[error("{0}")]
    Limit(Arc<str>),
}

/// How a supervisor's work on a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All done.
    Done,
    /// All settled, some not done.
    Failed,
    /// Nothing moves without a person.
    NeedsPerson,
    /// Stopped; `run` goes on.
    Interrupted,
    /// Hosts can not be started here.
    Environment,
}
