//! What a step of a script waits for, and how the wait ends.

use std::time::Instant;

use protocol::command::Message;
use protocol::ids::QuestionId;
use protocol::report::{Event, Tool};
use protocol::rpc::RpcError;
use protocol::script::{AskStep, RunCommand, WaitMessage};

use super::*;
use crate::link::OUT_HIGH;
use crate::logs::Stream;

/// Bytes printed in one go, before the pipe is served again.
const PRINT_AT_ONCE: u64 = 256 * 1024;

/// What the current step waits for.
pub(super) enum Waiting {
    /// Nothing: the next step may begin.
    Nothing,
    /// A moment.
    Until(Instant),
    /// A command's end.
    Program {
        /// The command.
        program: Box<Program>,
        /// The step.
        step: RunCommand,
        /// The wait was cut short: the command's end is no failure.
        interrupted: bool,
    },
    /// A message.
    Message {
        /// The step.
        step: WaitMessage,
        /// When it goes on without one.
        until: Option<Instant>,
    },
    /// An answer.
    Question {
        /// The step.
        step: AskStep,
        /// Our request.
        request: u64,
        /// The question's id, once we know it.
        question: Option<QuestionId>,
    },
    /// Room for what it prints.
    Printing(Printing),
    /// The pipe to be empty, so that it can be closed.
    Closing,
    /// Nothing that ever comes.
    Forever,
}

/// What came of a look at the wait.
pub(super) enum Settled {
    /// It goes on, at most until then.
    Waits(Option<Instant>),
    /// Some of the work is done, more is to do at once.
    Busy,
    /// It is over.
    Free,
    /// It is over, and so is the script.
    Failed(Box<RunResult>),
}

/// A lot of output that is still to be printed.
pub(super) struct Printing {
    /// Where to.
    pub(super) to: PrintTo,
    /// How many are left.
    pub(super) left: u64,
}

/// Where a lot of output goes.
pub(super) enum PrintTo {
    /// These bytes, to the log, as often.
    Log(Vec<u8>),
    /// This text, as a report, as often.
    Reports(String),
    /// These bytes, to the pipe, as often.
    Pipe(&'static [u8]),
    /// A line of so many bytes on the pipe.
    LongLine,
}

impl Waiting {
    /// The supervisor answered a request; returns why the script can not go on, if so.
    pub(super) fn asked(
        &mut self,
        answered: u64,
        outcome: Result<QuestionId, RpcError>,
    ) -> Option<Failure> {
        match (self, outcome) {
            (
                Waiting::Question {
                    request, question, ..
                },
                Ok(id),
            ) if *request == answered => {
                *question = Some(id);
                None
            }
            (Waiting::Question { request, .. }, Err(error)) if *request == answered => {
                let text = format!("the question was refused: {}", error.message);
                Some(Failure::new(Class::AgentFailed, text))
            }
            // The wait for it was interrupted.
            (_, Ok(_) | Err(_)) => None,
        }
    }

    /// Ends the wait for the answer to this question, if that is what is waited for.
    pub(super) fn take_question(&mut self, answered: QuestionId) -> Option<AskStep> {
        match std::mem::replace(self, Waiting::Nothing) {
            Waiting::Question {
                step,
                question: Some(id),
                ..
            } if id == answered => Some(step),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Cuts the wait short, where that is possible.
    pub(super) fn interrupt(&mut self) {
        match self {
            Waiting::Program {
                program,
                interrupted,
                ..
            } => {
                *interrupted = true;
                program.ask_to_end();
            }
            Waiting::Until(_)
            | Waiting::Message { .. }
            | Waiting::Question { .. }
            | Waiting::Printing(_)
            | Waiting::Forever => *self = Waiting::Nothing,
            Waiting::Nothing | Waiting::Closing => {}
        }
    }
}

impl ScriptedAgent {
    /// Looks whether the current wait is over.
    pub(super) fn settle(&mut self, run: &mut Run, now: Instant) -> Settled {
        let settled = match &mut self.waiting {
            Waiting::Nothing => Settled::Free,
            Waiting::Until(until) if now < *until => Settled::Waits(Some(*until)),
            Waiting::Until(_) => Settled::Free,
            Waiting::Program {
                program,
                step,
                interrupted,
            } => match program.ended() {
                None => Settled::Waits(None),
                Some(ended) => program_ended(ended, step, *interrupted, run),
            },
            Waiting::Message { .. } => return self.settle_message(run, now),
            Waiting::Question { .. } | Waiting::Forever => Settled::Waits(None),
            Waiting::Printing(printing) => printing.go_on(run),
            Waiting::Closing => match (run.link.flush(), run.link.pending()) {
                (Ok(()), 1..) => Settled::Waits(None),
                (Ok(()), 0) | (Err(_), _) => {
                    run.link.close_output();
                    Settled::Free
                }
            },
        };
        if let Settled::Free | Settled::Failed(_) = settled {
            self.waiting = Waiting::Nothing;
        }
        settled
    }

    fn settle_message(&mut self, run: &mut Run, now: Instant) -> Settled {
        let message = self.next_message(run).map(|message: Message| message.text);
        let (step, until) = match std::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Message { step, until } => (step, until),
            other => {
                self.waiting = other;
                return Settled::Free;
            }
        };
        let over = until.is_some_and(|until| now >= until);
        let text = match (message, over) {
            (Some(text), _) => text,
            (None, true) => step.otherwise.unwrap_or_default(),
            (None, false) => {
                self.waiting = Waiting::Message { step, until };
                return Settled::Waits(until);
            }
        };
        match step::save(run, step.save_to.as_deref(), &text) {
            Ok(()) => Settled::Free,
            Err(failure) => Settled::Failed(Box::new(failure.into_result())),
        }
    }
}

fn program_ended(ended: Ended, step: &RunCommand, interrupted: bool, run: &mut Run) -> Settled {
    let name = step.argv.first().map_or("", String::as_str);
    let how = match ended {
        Ended::Exit(code) => format!("`{name}` exited with {code}"),
        Ended::Signal(signal) => format!("`{name}` was ended by signal {signal}"),
    };
    let went_well = ended == Ended::Exit(0);
    run.report(Event::ToolResult(Tool {
        name: name.to_owned(),
        detail: how.clone(),
        ok: Some(went_well),
    }));
    if went_well || step.may_fail || interrupted {
        return Settled::Free;
    }
    let mut failed = result(ResultStatus::Failed, Some(Class::AgentFailed), &how);
    match ended {
        Ended::Exit(code) => failed.exit_code = Some(code),
        Ended::Signal(signal) => failed.signal = Some(signal),
    }
    Settled::Failed(Box::new(failed))
}

impl Printing {
    /// Prints as much as has room.
    fn go_on(&mut self, run: &mut Run) -> Settled {
        let mut printed = 0;
        while self.left > 0 && printed < PRINT_AT_ONCE && run.link.pending() < OUT_HIGH {
            printed += self.print(run);
        }
        if self.left > 0 {
            Settled::Busy
        } else {
            Settled::Free
        }
    }

    fn print(&mut self, run: &mut Run) -> u64 {
        let mut count = 1;
        let printed = match &self.to {
            PrintTo::Log(line) => {
                run.log(Stream::Out, line);
                line.len() as u64
            }
            PrintTo::Reports(text) => {
                step::say(run, text);
                text.len() as u64
            }
            PrintTo::Pipe(bytes) => {
                run.link.send_raw(bytes);
                bytes.len() as u64
            }
            PrintTo::LongLine => {
                const PIECE: &[u8] = &[b'x'; 4096];
                let piece = &PIECE[..PIECE
                    .len()
                    .min(usize::try_from(self.left).unwrap_or(usize::MAX))];
                run.link.send_raw(piece);
                count = piece.len() as u64;
                if count == self.left {
                    run.link.send_raw(b"\n");
                }
                count
            }
        };
        self.left -= count;
        printed
    }
}

/// A line of a flood: the same letter over and over, at most [`LINE_MAX`] of them.
pub(super) fn flood_line(bytes: u64) -> String {
    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(LINE_MAX);
    "f".repeat(length)
}
