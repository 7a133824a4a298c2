//! The adapters `verify` and `hook`: commands in order, each within its own time. A proof wants that
//! all exit 0; of a hook 1 warns and goes on.

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

/// What the commands are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The proof of done.
    Proof,
    /// The operator's own commands around the work.
    Hook,
}

impl Of {
    const fn word(self) -> &'static str {
        match self {
            Of::Proof => "verify",
            Of::Hook => "hook",
        }
    }

    const fn class(self) -> Class {
        match self {
            Of::Proof => Class::VerifyFailed,
            Of::Hook => Class::SetupFailed,
        }
    }

    /// Whether the next command may run.
    fn goes_on(self, ended: Ended) -> bool {
        ended == Ended::Exit(0) || self.warns(ended)
    }

    fn warns(self, ended: Ended) -> bool {
        self == Of::Hook && ended == Ended::Exit(HOOK_WARNS)
    }
}

/// The exit of a hook that warns.
const HOOK_WARNS: i32 = 1;

/// Commands one after the other.
pub(super) struct VerifyAgent {
    of: Of,
    /// What hooks warned of.
    warnings: Vec<String>,
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
    pub(super) fn new(adapter: VerifyAdapter, of: Of) -> Self {
        let total = adapter.commands.len();
        Self {
            of,
            warnings: Vec::new(),
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
        let word = self.of.word();
        let header = format!("[supervisor: {word} {number} of {}: {line}]\n", self.total);
        run.log(Stream::Out, header.as_bytes());
        run.log(Stream::Err, header.as_bytes());
        run.logs.begin_part();
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
            let said = self.warnings.join("; ");
            return Advance::Done(Box::new(result(ResultStatus::Ok, None, &said)));
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
        if current.timed_out || !self.of.goes_on(ended) || self.stopped {
            return Advance::Done(Box::new(failure(self.of, current, ended, run)));
        }
        if self.of.warns(ended) {
            self.warnings.push(warning(current, run));
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

/// What a hook that warns says, with the end of its output: the run goes on, and nobody reads its log.
fn warning(current: &Current, run: &Run) -> String {
    let line = current.command.argv.join(" ");
    match run.logs.evidence_of_both().trim() {
        "" => format!("`{line}` warns"),
        said => format!("`{line}` warns: {said}"),
    }
}

fn failure(of: Of, current: &Current, ended: Ended, run: &Run) -> RunResult {
    let limit = Duration::from_millis(current.command.timeout_ms);
    let how = match (current.timed_out, ended) {
        (true, _) => format!("took longer than {limit:?} and was killed"),
        (false, Ended::Exit(code)) => format!("exited with {code}"),
        (false, Ended::Signal(signal)) => format!("was ended by signal {signal}"),
    };
    let text = format!("`{}` {how}", current.command.argv.join(" "));
    let mut failed = result(ResultStatus::Failed, Some(of.class()), &text);
    match ended {
        Ended::Exit(code) => failed.exit_code = Some(code),
        Ended::Signal(signal) => failed.signal = Some(signal),
    }
    failed.evidence = run.logs.evidence_of_both();
    failed
}
