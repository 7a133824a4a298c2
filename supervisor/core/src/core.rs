//! The whole public face of the core: inputs in, records and effects out.

use std::time::Duration;

use protocol::ids::{Generation, MessageId, QuestionId};

use crate::decide::{self, Desk};
use crate::effect::Effect;
use crate::facts::Facts;
use crate::index::Index;
use crate::input::Input;
use crate::live::{Live, LiveRuns, PING_EVERY};
use crate::machine::{Edge, IllegalEdge};
use crate::mutation::{self, Mutation};
use crate::plan::{AccountIx, TaskIx};
use crate::record::{Entry, Record};
use crate::state::State;
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
    /// Decisions that the edge tables refused: always a bug of the core. The record was dropped;
    /// the driver must stop with an internal error.
    pub defects: Vec<(ReplayError, Record)>,
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
    /// The merge of a task's commit.
    Merge(TaskIx, Edge),
    /// A comment on what a task is about.
    Comment(TaskIx, Edge),
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
    /// The edge table holds the step, but for another record than this one.
    #[error("record {seq} is not legal here: {why}")]
    Unfit {
        /// Its number.
        seq: u64,
        /// The rule that it breaks.
        why: &'static str,
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

/// The core of one batch.
///
/// Inputs go in by [`Core::handle`], together with the moment they happened. What comes back must
/// be carried out in this order: `urgent` effects at once; `entries` into the journal; `effects`
/// when these entries, and all before them, are durable. The core itself never waits, never reads a
/// clock and never fails: an input that no longer means anything is ignored.
///
/// After `Recovered` the caller feeds what waited for the batch (an edited batch file, queued
/// commands) and then a `Tick`; only from then on do attempts start, and may the batch be closed.
#[derive(Debug, Clone, Default)]
pub struct Core {
    state: Option<State>,
    live: LiveRuns,
    last: Option<Now>,
    /// A tick is owed: something was left to be looked at.
    tick_owed: bool,
}

/// What a core knows beside its records: all that a second core needs, together with the records, to
/// decide on every further input as the first one would have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unrecorded {
    /// The moment of the last input.
    pub last: Option<Now>,
    /// Whether a tick is owed.
    pub tick_owed: bool,
    /// Whether it does clean-ups alone.
    pub confined: bool,
    /// Signs of life of every live run.
    pub live: Vec<(Generation, Live)>,
}

/// Lateness beyond which the supervisor must have been away (suspended, stopped, starved), and
/// boot deadlines move instead of firing: twice the longest time between two pings.
const GAP_MIN: Duration = Duration::from_secs(30);

impl Core {
    /// A batch without records; its first input is [`Input::Created`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The state of a checkpoint; records after it follow by [`Core::replay`].
    pub fn restore(facts: Facts) -> Self {
        Self {
            state: Some(State::restore(facts)),
            ..Self::default()
        }
    }

    /// Applies one record of a journal; decides nothing.
    ///
    /// # Errors
    /// [`ReplayError`] when the record does not follow from the state.
    pub fn replay(&mut self, entry: &Entry) -> Result<Vec<Change>, ReplayError> {
        let mut changes = Vec::new();
        crate::state::apply(&mut self.state, entry, &mut changes)?;
        Ok(changes)
    }

    /// From now on this core does clean-ups and nothing else of the batch moves: no attempt, no step, no
    /// merge begins, and a pause, a stop or the lack of one stays on record as it is. For a
    /// supervisor that was started for that alone; said before its first input.
    pub fn confine_to_clean_ups(&mut self) {
        self.live.confine(true);
    }

    /// What is lost with this core, for the one that goes on in its place.
    pub fn unrecorded(&self) -> Unrecorded {
        let live = self.live.iter().map(|(run, live)| (run, live.clone()));
        Unrecorded {
            last: self.last,
            tick_owed: self.tick_owed,
            confined: self.live.is_confined(),
            live: live.collect(),
        }
    }

    /// Goes on in the place of the core that said this, whose records have been replayed. Not for a
    /// core that takes over from a dead supervisor: that one is told [`Input::Recovered`].
    pub fn take_over(&mut self, unrecorded: Unrecorded) {
        self.last = unrecorded.last;
        self.tick_owed = unrecorded.tick_owed;
        self.live.confine(unrecorded.confined);
        for (generation, live) in unrecorded.live {
            self.live.take_over(generation, live);
        }
    }

    /// Decides what an input leads to, and applies it.
    pub fn handle(&mut self, now: Now, input: Input) -> Turn {
        let mut turn = Turn::default();
        if let (None, Input::Created(created)) = (&self.state, &input) {
            decide::create(&mut self.state, now, created, &mut turn);
        }
        let gap = self.gap(now);
        self.last = Some(now);
        let recovered = matches!(input, Input::Recovered { .. });
        self.tick_owed = recovered || (self.tick_owed && input != Input::Tick);
        let Some(state) = &mut self.state else {
            return turn;
        };
        let mut desk = Desk::new(state, &mut self.live, now, turn, !self.tick_owed);
        if let Some(gap) = gap {
            desk.clock_gap(gap);
        }
        desk.handle(input)
    }

    /// How long the supervisor was away, if it was: since its last input. When in between the sleep
    /// began is not known, and what would have been due by then must not fire either.
    fn gap(&self, now: Now) -> Option<Duration> {
        let last = self.last.filter(|last| last.boot_id == now.boot_id)?;
        let due = self.next_deadline().boot?.max(last.boot);
        let since = |at: Boot| Duration::from_millis(now.boot.0.saturating_sub(at.0));
        let away = since(due) > GAP_MIN && !mutation::on(Mutation::WrongClockOverSuspend);
        away.then(|| since(last.boot))
    }

    /// When to call next with a tick if nothing else happens.
    pub fn next_deadline(&self) -> NextDeadline {
        let Some(state) = &self.state else {
            return NextDeadline::default();
        };
        let (boot, wall) = state.index().timers.next();
        let mut boot = [boot, self.live.next(), self.look_up()]
            .into_iter()
            .flatten()
            .min();
        if self.tick_owed {
            boot = self.last.map(|now| now.boot);
        }
        NextDeadline { boot, wall }
    }

    /// While any attempt is open the core looks at the clock as often as it pings: a sleep is noticed
    /// only by a deadline that is late, and where the next one were hours away (a host that is
    /// still on its way has none of its own), hours of sleep would count as work.
    fn look_up(&self) -> Option<Boot> {
        let open = self
            .state
            .as_ref()
            .is_some_and(|it| !it.index().live.is_empty());
        let last = self.last.filter(|_| open)?;
        Some(last.boot + PING_EVERY)
    }

    /// The facts; `None` before the first record.
    pub fn facts(&self) -> Option<&Facts> {
        self.state.as_ref().map(State::facts)
    }

    /// What is computed from the facts; `None` before the first record.
    pub fn index(&self) -> Option<&Index> {
        self.state.as_ref().map(State::index)
    }

    /// What is known of live runs.
    pub fn live(&self) -> &LiveRuns {
        &self.live
    }
}
