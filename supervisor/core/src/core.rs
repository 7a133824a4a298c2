//! The whole public face of the core: inputs in, records and effects out.

use std::collections::BTreeMap;

use protocol::ids::{Generation, MessageId, QuestionId};

use crate::effect::Effect;
use crate::facts::Facts;
use crate::input::Input;
use crate::live::Live;
use crate::machine::{Edge, IllegalEdge};
use crate::plan::{AccountIx, TaskIx};
use crate::record::Entry;
use crate::time::{Boot, Now, Wall};

/// What one input led to.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "records must become durable and effects must be performed"]
pub struct Turn {
    /// Decided in this order; already applied to the state.
    pub entries: Vec<Entry>,
    /// To be performed at once, before anything is durable: stops and kills.
    pub urgent: Vec<Effect>,
    /// To be performed in this order once every record so far is durable.
    pub effects: Vec<Effect>,
    /// The steps that machines took, for whoever watches.
    pub changes: Vec<Change>,
}

/// A step of one entity's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The batch.
    Batch(Edge),
    /// A task.
    Task(TaskIx, Edge),
    /// The open attempt of a task.
    Attempt(TaskIx, Edge),
    /// A run.
    Run(Generation, Edge),
    /// A message.
    Message(MessageId, Edge),
    /// A question.
    Question(QuestionId, Edge),
    /// An account.
    Account(AccountIx, Edge),
}

/// A record that does not follow from the state before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Its number is not the next one.
    #[error("record {found} follows record {last}")]
    Gap {
        /// Last good number.
        last: u64,
        /// Number found.
        found: u64,
    },
    /// The edge table does not hold the step.
    #[error("record {seq} is not legal here")]
    Edge {
        /// Its number.
        seq: u64,
        /// The step.
        #[source]
        edge: IllegalEdge,
    },
    /// It names something that is not there.
    #[error("record {seq} names an unknown {what}")]
    Unknown {
        /// Its number.
        seq: u64,
        /// What kind of thing.
        what: &'static str,
    },
}

/// When the core wants to be called with [`Input::Tick`] next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextDeadline {
    /// At this moment of the boot-time clock.
    pub boot: Option<Boot>,
    /// At this moment of the wall clock.
    pub wall: Option<Wall>,
}

/// What is known of live runs but is not worth a record: lost with the supervisor, like the runs.
pub type LiveRuns = BTreeMap<Generation, Live>;

/// Placeholder until the deciding half lands.
#[derive(Debug)]
pub struct Core;

impl Core {
    /// A batch without records; its first input is [`Input::Created`].
    pub fn new() -> Self {
        Core
    }
    /// The state of a checkpoint; records after it follow by [`Core::replay`].
    pub fn restore(_facts: Facts) -> Self {
        Core
    }
    /// Applies one record of a journal; decides nothing.
    ///
    /// # Errors
    /// [`ReplayError`] when the record does not follow from the state.
    pub fn replay(&mut self, _entry: &Entry) -> Result<Vec<Change>, ReplayError> {
        Ok(Vec::new())
    }
    /// Decides what an input leads to, and applies it.
    pub fn handle(&mut self, _now: Now, _input: Input) -> Turn {
        Turn::default()
    }
    /// When to call next with a tick if nothing else happens.
    pub fn next_deadline(&self) -> NextDeadline {
        NextDeadline::default()
    }
    /// The state; `None` before the first record.
    pub fn facts(&self) -> Option<&Facts> {
        None
    }
    /// What is known of live runs.
    pub fn live(&self) -> &LiveRuns {
        const EMPTY: &LiveRuns = &LiveRuns::new();
        EMPTY
    }
}
