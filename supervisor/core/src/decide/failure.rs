//! Why an attempt failed: what a result, an exit or the wire says, as a class.

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::report::{ResultStatus, RunResult};

use crate::identity::Exit;
use crate::live::{Live, ping_every};
use crate::record::StopReason;
use crate::time::Wall;

/// Why an attempt failed.
pub(super) struct Failure {
    pub(super) class: Class,
    pub(super) detail: Arc<str>,
    pub(super) reset: Option<Wall>,
}

impl Failure {
    pub(super) fn new(class: Class, detail: impl Into<Arc<str>>) -> Self {
        Self {
            class,
            detail: detail.into(),
            reset: None,
        }
    }
}

/// The class of a run that ended without a result and without being told to.
pub(super) fn vanished(exit: Exit, live: Option<&Live>, oom: Option<Arc<str>>) -> Failure {
    if let Some((class, detail)) = live.and_then(|live| live.refused.clone()) {
        return Failure {
            class,
            detail,
            reset: None,
        };
    }
    if let (Exit::Signal(9), Some(evidence)) = (exit, oom) {
        return Failure::new(Class::Oom, evidence);
    }
    let greeted = live.is_some_and(|live| live.gate != crate::live::Gate::Closed);
    let faults = live.map_or(0, |live| live.wire_faults);
    match exit {
        Exit::Unseen => Failure::new(Class::Lost, "it ended while no supervisor watched"),
        // SIGKILL comes from outside: the operator's tools, or the kernel.
        Exit::Signal(9) => Failure::new(Class::Lost, "its host was killed"),
        Exit::Signal(signal) => {
            Failure::new(Class::Crash, format!("its host died by signal {signal}"))
        }
        Exit::Code(_) if !greeted && faults > 0 => {
            Failure::new(Class::Protocol, "its host sent no hello, only other bytes")
        }
        Exit::Code(0) => Failure::new(Class::NoResult, "its host ended without a result"),
        Exit::Code(code) if !greeted => Failure::new(
            Class::SpawnFailure,
            format!("its host exited {code} before the hello"),
        ),
        Exit::Code(code) => Failure::new(
            Class::Crash,
            format!("its host exited {code} without a result"),
        ),
    }
}

pub(super) fn failed(result: &RunResult) -> bool {
    result.status == ResultStatus::Failed
}

/// The failure that a result reports.
pub(super) fn reported(result: &RunResult) -> Failure {
    Failure {
        class: result.class.unwrap_or(Class::AgentFailed),
        detail: result.summary.as_str().into(),
        reset: result.reset_at_ms.map(Wall),
    }
}

pub(super) fn fault_text(fault: crate::input::WireFault) -> &'static str {
    match fault {
        crate::input::WireFault::Blank => "too many blank lines on the wire",
        crate::input::WireFault::Garbage => "too many lines on the wire that are not the protocol",
        crate::input::WireFault::TooLong => "a line on the wire over the limit",
    }
}

/// Stops by which the operator wants the attempt to be over, whatever it did so far.
pub(super) const fn ends_task(reason: StopReason) -> bool {
    match reason {
        StopReason::Superseded
        | StopReason::Paused
        | StopReason::Killed
        | StopReason::Cancelled
        | StopReason::Removed => true,
        StopReason::Silence
        | StopReason::NoProgress
        | StopReason::Timeout
        | StopReason::Budget
        | StopReason::NoHello
        | StopReason::Protocol
        | StopReason::Hung
        | StopReason::Lingering
        | StopReason::Question
        | StopReason::Interrupted => false,
    }
}

/// The outcome of a run whose host hung.
pub(super) const HUNG: &str = "its host hung: no answer to a ping for the length of its lease";

/// The outcome of a run that may be silent for so long and was: of the agent alone, or of its host
/// as well, which says nothing of the agent.
pub(super) fn silent(live: Option<&Live>, limit: Duration) -> &'static str {
    // A host that goes on answers a ping after its family's last sign of life.
    let answered = live.is_none_or(|live| live.heard >= live.alive + ping_every(limit) / 2);
    if answered {
        "no sign of life: no output, no CPU time and no new process of its family, \
         while its host answered"
    } else {
        "no sign of life, and no answer to a ping either: its host hangs or is stopped"
    }
}
