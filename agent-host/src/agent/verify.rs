//! The `verify` adapter: commands in order that must all exit 0, each within its own time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::command::{VerifyAdapter, VerifyCommand};
use protocol::report::{Capabilities, Receipt, ResultStatus, RunResult, SteerReach};

use super::{Advance, Agent, Prompt};
use crate::clock;
use crate::logs::Stream;
use crate::process::{self, Ended};
use crate::program::{Feed, Program, What};
use crate::run::{Failure, Run, result};

/// The proof of done.
pub(super) struct VerifyAgent {
    waiting: VecDeque<VerifyCommand>,
    total: usize,
    current: Option<Current>,
    stopped: bool,
}

struct Current {
    program: Program,
    command: VerifyCommand,
    deadline: Instant,
    timed_out: bool,
}

impl VerifyAgent {
    pub(super) fn new(adapter: VerifyAdapter) -> Self {
        let total = adapter.commands.len();
        Self {
            waiting: adapter.commands.into(),
            total,
            current: None,
            stopped: false,
        }
    }

    /// Starts the next command; `None` when all have passed.
    fn next(&mut self, run: &mut Run) -> Result<Option<Current>, Failure> {
        let number = self.total - self.waiting.len() + 1;
        let Some(command) = self.waiting.pop_front() else {
            return Ok(None);
        };
        let line = command.argv.join(" ");
        let header = format!("[supervisor: verify {number} of {}: {line}]\n", self.total);
        run.log(Stream::Out, header.as_bytes());
        run.log(Stream::Err, header.as_bytes());
        let program = Program::start(
            run,
            What {
                argv: &command.argv,
                extra_env: &command.env,
                stdin: Feed::Nothing,
                line_max: None,
            },
        )?;
        let deadline = clock::after(clock::now(), command.timeout_ms);
        Ok(Some(Current {
            program,
            command,
            deadline,
            timed_out: false,
        }))
    }
}

impl Agent for VerifyAgent {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            steer: SteerReach::None,
            receipt: Receipt::Injected,
            interrupt: false,
            resume: false,
            questions: false,
            usage: false,
            cost: false,
        }
    }

    fn takes_prompts(&self) -> bool {
        false
    }

    fn start(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    fn prompt(&mut self, run: &mut Run, _prompt: Prompt) -> Result<(), Failure> {
        self.current = self.next(run)?;
        Ok(())
    }

    fn stop(&mut self, _run: &mut Run) {
        self.stopped = true;
        if let Some(current) = &self.current {
            current.program.ask_to_end();
        }
    }

    fn advance(&mut self, run: &mut Run, now: Instant) -> Advance {
        let Some(current) = &mut self.current else {
            return Advance::Done(Box::new(result(ResultStatus::Ok, None, "")));
        };
        let Some(ended) = current.program.ended() else {
            if now >= current.deadline && !current.timed_out {
                current.timed_out = true;
                run.gauge.killed_by_us();
                // Everything below us belongs to the verify commands, so all of it may go; what
                // resists is met again at the end of the run.
                drop(process::kill_family());
            }
            return Advance::Waits((!current.timed_out).then_some(current.deadline));
        };
        if current.timed_out || ended != Ended::Exit(0) || self.stopped {
            return Advance::Done(Box::new(failure(current, ended, run)));
        }
        match self.next(run) {
            Ok(next) => self.current = next,
            Err(failure) => return Advance::Done(Box::new(failure.into_result())),
        }
        Advance::Again
    }

    fn drain(&mut self, _run: &mut Run) {}

    fn program(&mut self) -> Option<&mut Program> {
        self.current.as_mut().map(|current| &mut current.program)
    }
}

fn failure(current: &Current, ended: Ended, run: &Run) -> RunResult {
    let limit = Duration::from_millis(current.command.timeout_ms);
    let how = match (current.timed_out, ended) {
        (true, _) => format!("took longer than {limit:?} and was killed"),
        (false, Ended::Exit(code)) => format!("exited with {code}"),
        (false, Ended::Signal(signal)) => format!("was ended by signal {signal}"),
    };
    let text = format!("`{}` {how}", current.command.argv.join(" "));
    let mut failed = result(ResultStatus::Failed, Some(Class::VerifyFailed), &text);
    match ended {
        Ended::Exit(code) => failed.exit_code = Some(code),
        Ended::Signal(signal) => failed.signal = Some(signal),
    }
    failed.evidence = run.logs.evidence();
    failed
}
