//! How a turn comes to rest, and how the program is ended.

use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::report::{EXCERPT_MAX, ResultStatus, RunResult, excerpt};

use super::wire::Wire;
use super::{Advance, Driven, HEED_MAX, READY_MAX, State, quiet};
use crate::process::Ended as Exit;
use crate::program::Program;
use crate::run::{Run, result};

/// So long nothing may come before a turn counts as over: the receipts come right behind its result.
const QUIET: Duration = Duration::from_millis(50);
/// And so long when something had been left: its end may wake the agent, which begins a turn of its
/// own (seen: 0.11 s after).
const QUIET_AFTER_LEFT: Duration = Duration::from_secs(1);
/// Pause between two looks at what is left of the family: nothing tells of a stranger's end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// So long a turn that ended waits for what it left behind: a build that was let go may end, a
/// server never does.
const LEFT_MAX: Duration = Duration::from_secs(30);
/// So long the program may take to end after the end of its stdin (seen: 0.3 s).
const EOF_MAX: Duration = Duration::from_secs(2);
/// And after SIGTERM (seen: 1.6 s).
const TERM_MAX: Duration = Duration::from_secs(3);

/// What the program was told to make it end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    EndOfInput,
    Term,
}

impl<W: Wire> Driven<W> {
    /// Begins to end the program; its result follows.
    pub(super) fn close(&mut self, ending: Box<RunResult>, now: Instant) {
        if let Some(program) = &mut self.program {
            program.close_input();
        }
        self.state = State::Closes {
            ending,
            until: now + EOF_MAX,
            rung: Rung::EndOfInput,
        };
    }

    /// Looks whether a turn that ended well has come to rest.
    pub(super) fn settle(&mut self, run: &mut Run, now: Instant) -> Advance {
        let agent = self.program.as_ref().and_then(Program::unreaped);
        let left = agent.map(|agent| quiet::left_beside(agent, &self.servers));
        let left = left.unwrap_or_default();
        let background = self.wire.background();
        let rests = left.is_empty() && background == 0;
        let untaken = self.wire.untaken() > 0;
        let State::Settles {
            since,
            text,
            queued,
            told,
        } = &mut self.state
        else {
            return Advance::Again;
        };
        let late = now >= *since + LEFT_MAX;
        if !rests {
            let found = format!(
                "its turn ended, {} processes left, {background} by its own count: {}",
                left.len(),
                quiet::name(&left)
            );
            if late {
                let mut ending = result(ResultStatus::Failed, Some(Class::Leftover), &found);
                ending.evidence = excerpt(text, EXCERPT_MAX);
                self.close(Box::new(ending), now);
                return Advance::Again;
            }
            if !std::mem::replace(told, true) {
                run.notice(&found);
            }
            // The quiet begins when the last of them is gone.
            self.heard = Some(now);
            return Advance::Waits(Some(now + LOOK_EVERY));
        }
        let quiet = if *told { QUIET_AFTER_LEFT } else { QUIET };
        let quiet_at = self.heard.map_or(now, |heard| heard + quiet);
        if now < quiet_at {
            return Advance::Waits(Some(quiet_at));
        }
        let goes_on = untaken || *queued > 0;
        if goes_on && !late {
            return Advance::Waits(Some(now + LOOK_EVERY));
        }
        if goes_on {
            run.notice("the agent said that more turns wait, and did not begin one");
        }
        let ending = Box::new(result(ResultStatus::Ok, None, text));
        let told = false;
        self.state = State::Over { ending, told };
        Advance::Again
    }

    /// Waits until a prompt can be said, but not for ever.
    pub(super) fn await_ready(&mut self, until: Instant, now: Instant) -> Advance {
        if now < until {
            return Advance::Waits(Some(until));
        }
        let text = format!("it was not ready for a prompt within {READY_MAX:?}");
        let ending = result(ResultStatus::Failed, Some(Class::Environment), &text);
        self.close(Box::new(ending), now);
        Advance::Again
    }

    /// Waits for a turn, but not for ever for one that was interrupted.
    pub(super) fn heed(&mut self, now: Instant) -> Advance {
        if self.interrupting.is_none_or(|until| now < until) {
            return Advance::Waits(self.interrupting);
        }
        let text = format!("it did not heed an interrupt for {HEED_MAX:?}");
        let ending = result(ResultStatus::Failed, Some(Class::Protocol), &text);
        self.close(Box::new(ending), now);
        Advance::Again
    }

    /// The next rung for a program that does not end.
    pub(super) fn press(&mut self, now: Instant) -> Advance {
        let State::Closes {
            ending,
            until,
            rung,
        } = &mut self.state
        else {
            return Advance::Again;
        };
        if now < *until {
            return Advance::Waits(Some(*until));
        }
        match rung {
            Rung::EndOfInput => {
                (*rung, *until) = (Rung::Term, now + TERM_MAX);
                if let Some(program) = &self.program {
                    program.ask_to_end();
                }
                Advance::Again
            }
            // The host kills what is left.
            Rung::Term => {
                let ending = ending.clone();
                self.done(ending)
            }
        }
    }

    /// The program has ended.
    pub(super) fn exited(&mut self, exit: Exit, run: &Run) -> Advance {
        let (code, signal) = match exit {
            Exit::Exit(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
        };
        let mut ending = match &self.state {
            State::Closes { ending, .. } => ending.clone(),
            State::Opens(_)
            | State::Opened
            | State::Works
            | State::Settles { .. }
            | State::Over { .. } => {
                let mut ending = died(exit, self.wire.has_spoken());
                ending.evidence = run.logs.evidence();
                if ending.class == Some(Class::Environment) {
                    let told = self.wire.class_of_no_beginning(&ending.evidence);
                    ending.class = told.or(ending.class);
                }
                Box::new(ending)
            }
        };
        (ending.exit_code, ending.signal) = (code, signal);
        self.done(ending)
    }

    fn done(&self, mut ending: Box<RunResult>) -> Advance {
        ending.usage = self.wire.usage();
        ending.session = self.wire.session().map(str::to_owned);
        Advance::Done(ending)
    }
}

/// The result of a run that was told to stop.
pub(super) fn cancelled() -> Box<RunResult> {
    let class = Some(Class::Cancelled);
    Box::new(result(ResultStatus::Failed, class, "stopped"))
}

/// The result of a program that ended without one.
fn died(exit: Exit, has_spoken: bool) -> RunResult {
    let (class, text) = match exit {
        Exit::Signal(signal) => (Class::Crash, format!("it was ended by signal {signal}")),
        // It did not even begin: an option that it does not know, a library that is missing.
        Exit::Exit(code) if code != 0 && !has_spoken => (
            Class::Environment,
            format!("it did not begin: it exited with {code}"),
        ),
        Exit::Exit(code) => (
            Class::NoResult,
            format!("it exited with {code} in the middle"),
        ),
    };
    result(ResultStatus::Failed, Some(class), &text)
}
