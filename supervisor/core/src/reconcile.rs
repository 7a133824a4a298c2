//! After a crash: what the machine shows of a run, and the ruling, as a lettered table.
//!
//! The driver has already waited for (or killed, by proven identity) every host of earlier terms
//! before it asks; a process that is still there, or that can not be judged, is a fact too.
//!
//! | letter | process | result file | stop decided before the crash | ruling |
//! |---|---|---|---|---|
//! | A | gone | durable, the run was spawned | none, or one after which a late result counts | import the result |
//! | B | gone | durable, the run was spawned | one after which it does not count | archive it, end as stopped |
//! | C | gone | absent, or not of this run | none, run only intended | lost before it began |
//! | D | gone | absent | none, the run was spawned | lost |
//! | E | gone | absent, or not of this run | any | end as stopped |
//! | F | gone | unreadable | any or none | refuse: the file is kept, a person must look |
//! | B or E | gone, by an operator who found no supervisor | any | none, or killed | as after a kill |
//! | G | living | any | any or none | refuse: never a second run beside a living host |
//! | H | foreign | any | any or none | refuse: another machine or namespace, unknown is not dead |
//!
//! A host's gate opens only once its identity is durable. So a run that the journal knows as intended
//! has never begun, and a whole result in its place is *not of this run*, whatever its number says.

use protocol::ids::MessageId;
use protocol::report::RunResult;

use crate::containment::Cleared;
use crate::machine::RunState;
use crate::record::StopReason;

/// What the machine shows of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProcessFact {
    /// No process has its identity or its token; or its boot is over.
    Gone,
    /// As gone, and an operator's kill ended it while no supervisor could record that.
    Killed,
    /// It lives and could not be ended.
    Living,
    /// It belongs to another machine or pid namespace.
    Foreign,
}

/// What its `exit.json` shows.
#[derive(Debug, Clone, PartialEq)]
pub enum ResultFact {
    /// A whole result of this generation.
    Durable(Box<RunResult>),
    /// None, or one that was never finished.
    Absent,
    /// There is one that this release can not read (newer version, other generation, I/O error).
    Unreadable,
}

/// What the machine shows of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunFacts {
    /// Its host.
    pub process: ProcessFact,
    /// Its result.
    pub result: ResultFact,
    /// Messages that its file names as injected.
    pub injected: Vec<MessageId>,
    /// What was found of its tree, and what became of it.
    pub cleared: Cleared,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Letter {
    /// Import the result.
    A,
    /// Archive the result, end as stopped.
    B,
    /// Lost before it began.
    C,
    /// Lost.
    D,
    /// End as stopped.
    E,
    /// Refuse: unreadable result.
    F,
    /// Refuse: still living.
    G,
    /// Refuse: foreign.
    H,
}

impl Letter {
    /// Every letter.
    pub const ALL: &'static [Letter] = &[
        Self::A,
        Self::B,
        Self::C,
        Self::D,
        Self::E,
        Self::F,
        Self::G,
        Self::H,
    ];

    /// The letter as text.
    pub const fn word(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::E => "E",
            Self::F => "F",
            Self::G => "G",
            Self::H => "H",
        }
    }

    /// Whether the batch can not go on before a person has looked.
    pub const fn refuses(self) -> bool {
        matches!(self, Self::F | Self::G | Self::H)
    }
}

/// The ruling; total over all facts.
pub fn rule(
    process: ProcessFact,
    result: &ResultFact,
    state: RunState,
    stop: Option<StopReason>,
) -> Letter {
    let only_intended = state == RunState::Intended;
    let (process, stop) = match process {
        ProcessFact::Killed => (ProcessFact::Gone, Some(StopReason::Killed)),
        ProcessFact::Gone | ProcessFact::Living | ProcessFact::Foreign => (process, stop),
    };
    match (process, result, stop) {
        (ProcessFact::Living, _, _) => Letter::G,
        (ProcessFact::Foreign, _, _) => Letter::H,
        (ProcessFact::Gone | ProcessFact::Killed, ResultFact::Unreadable, _) => Letter::F,
        (
            ProcessFact::Gone | ProcessFact::Killed,
            ResultFact::Durable(_) | ResultFact::Absent,
            None,
        ) if only_intended => Letter::C,
        (ProcessFact::Gone | ProcessFact::Killed, ResultFact::Durable(_), Some(_))
            if only_intended =>
        {
            Letter::E
        }
        (ProcessFact::Gone | ProcessFact::Killed, ResultFact::Durable(_), None) => Letter::A,
        (ProcessFact::Gone | ProcessFact::Killed, ResultFact::Durable(_), Some(stop)) => {
            if stop.late_result_counts() {
                Letter::A
            } else {
                Letter::B
            }
        }
        (ProcessFact::Gone | ProcessFact::Killed, ResultFact::Absent, Some(_)) => Letter::E,
        (ProcessFact::Gone | ProcessFact::Killed, ResultFact::Absent, None) => Letter::D,
    }
}
