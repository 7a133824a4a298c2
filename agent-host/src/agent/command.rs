//! The `command` adapter: any program; how it ends is its result.
//!
//! Nothing can be said to a program that runs, so a message waits until the program has ended
//! well, whatever its mode; then the program is run again with the messages as its prompt, and the
//! last run's end is the result. A program that takes no prompt gets no messages.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Instant;

use protocol::class::Class;
use protocol::command::{CommandAdapter, PromptBy, RunKind};
use protocol::exit_file::PROMPT_FILE_NAME;
use protocol::report::{
    Capabilities, EXCERPT_MAX, Receipt, ResultStatus, RunResult, SteerReach, excerpt,
};
use protocol::result_file::ResultFile;

use super::{Advance, Agent, Prompt, result_file};
use crate::process::Ended;
use crate::program::{Feed, Program, What};
use crate::run::{Failure, NO_REVIEW, Run, result};

/// Name of the variable that names the prompt's file.
const PROMPT_FILE_ENV: &str = "SUPERVISOR_PROMPT_FILE";

/// A plain program.
pub(super) struct CommandAgent {
    adapter: CommandAdapter,
    program: Option<Program>,
    /// How the last turn ended, if it ended well.
    ended_well: Option<Box<RunResult>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    Draining,
}

impl CommandAgent {
    pub(super) fn new(adapter: CommandAdapter) -> Self {
        Self {
            adapter,
            program: None,
            ended_well: None,
            state: State::Works,
        }
    }

    fn spawn(&self, run: &mut Run, prompt: String) -> Result<Program, Failure> {
        if let Some(path) = &self.adapter.result_file {
            result_file::remove_stale(path).map_err(|error| {
                Failure::new(
                    Class::SetupFailed,
                    format!("can not remove the old {path}: {error}"),
                )
            })?;
        }
        let mut stdin = Feed::Nothing;
        let mut longer = None;
        let mut extra_env = BTreeMap::new();
        match self.adapter.prompt_by {
            PromptBy::None => {}
            PromptBy::Argument => {
                let argv = self.adapter.argv.iter().cloned().chain([prompt]);
                longer = Some(argv.collect::<Vec<_>>());
            }
            PromptBy::Stdin => stdin = Feed::Once(prompt.into_bytes()),
            PromptBy::File => {
                let path = run.folder().join(PROMPT_FILE_NAME);
                write_prompt(&path, &prompt).map_err(|error| {
                    let text = format!("can not write {}: {error}", path.display());
                    Failure::new(Class::SetupFailed, text)
                })?;
                extra_env.insert(PROMPT_FILE_ENV.to_owned(), path.display().to_string());
            }
        }
        let argv = longer.as_deref().unwrap_or(&self.adapter.argv);
        Program::start(
            run,
            What {
                argv,
                extra_env: &extra_env,
                stdin,
                line_max: None,
            },
        )
    }

    fn judge(&self, ended: Ended, run: &Run) -> RunResult {
        let file = self.adapter.result_file.as_deref().map(result_file::read);
        let mut result = rule(ended, file, &self.adapter.argv);
        if result.verdict.is_some() && run.start.kind != RunKind::Review {
            result = self::result(ResultStatus::Failed, Some(Class::NoResult), NO_REVIEW);
        }
        if result.status == ResultStatus::Failed {
            result.evidence = run.logs.evidence_of_both();
        }
        result
    }
}

impl Agent for CommandAgent {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            steer: SteerReach::None,
            receipt: Receipt::Injected,
            interrupt: false,
            resume: false,
            // By the bridge.
            questions: true,
            // In its result file, if it writes one; never while it runs.
            usage: self.adapter.result_file.is_some(),
            cost: self.adapter.result_file.is_some(),
        }
    }

    fn takes_prompts(&self) -> bool {
        self.adapter.prompt_by != PromptBy::None
    }

    fn start(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    fn prompt(&mut self, run: &mut Run, prompt: Prompt) -> Result<(), Failure> {
        let text = prompt.into_text().unwrap_or_default();
        self.program = Some(self.spawn(run, text)?);
        Ok(())
    }

    fn stop(&mut self, _run: &mut Run) {
        if let Some(program) = &self.program {
            program.ask_to_end();
        }
    }

    fn advance(&mut self, run: &mut Run, _now: Instant) -> Advance {
        if let Some(program) = &self.program {
            let Some(ended) = program.ended() else {
                return Advance::Waits(None);
            };
            self.program = None;
            let result = Box::new(self.judge(ended, run));
            if result.status == ResultStatus::Failed {
                return Advance::Done(result);
            }
            self.ended_well = Some(result);
            return Advance::TurnEnded;
        }
        match (self.state, self.ended_well.take()) {
            (State::Draining, Some(result)) => Advance::Done(result),
            (State::Works | State::Draining, kept) => {
                self.ended_well = kept;
                Advance::Waits(None)
            }
        }
    }

    fn drain(&mut self, _run: &mut Run) {
        self.state = State::Draining;
    }

    fn program(&mut self) -> Option<&mut Program> {
        self.program.as_mut()
    }
}

fn write_prompt(path: &Path, prompt: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(flags);
    options.open(path)?.write_all(prompt.as_bytes())
}

/// The result of a command, by the rule of the manual, in its order.
fn rule(
    ended: Ended,
    file: Option<Result<ResultFile, result_file::NoResult>>,
    argv: &[String],
) -> RunResult {
    let name = argv.first().map_or("", String::as_str);
    let exit = match ended {
        Ended::Signal(signal) => {
            let text = format!("`{name}` was ended by signal {signal}");
            let mut crash = result(ResultStatus::Failed, Some(Class::Crash), &text);
            crash.signal = Some(signal);
            return crash;
        }
        Ended::Exit(code) => code,
    };
    let mut ruled = match (exit, file) {
        (_, Some(Err(reason))) => result(
            ResultStatus::Failed,
            Some(Class::NoResult),
            &reason.to_string(),
        ),
        (_, Some(Ok(file))) => rule_by_file(exit, file, name),
        (0, None) => result(ResultStatus::Ok, None, ""),
        (_, None) => failed_exit(exit, name),
    };
    ruled.exit_code = Some(exit);
    ruled
}

fn rule_by_file(exit: i32, file: ResultFile, name: &str) -> RunResult {
    let mut ruled = match (exit, file.status) {
        (0, ResultStatus::Ok) => result(ResultStatus::Ok, None, ""),
        (_, ResultStatus::Ok) => failed_exit(exit, name),
        (_, ResultStatus::Failed) => {
            let class = file.class.unwrap_or(Class::AgentFailed);
            result(
                ResultStatus::Failed,
                Some(class),
                "the command says that it failed",
            )
        }
    };
    if let Some(summary) = file.summary {
        ruled.summary = excerpt(&summary, EXCERPT_MAX);
    }
    ruled.usage = file.usage.unwrap_or_default();
    ruled.verdict = file.verdict.filter(|_| ruled.status == ResultStatus::Ok);
    ruled
}

/// The program ran and said no. What 126 and 127 mean to a shell is added, because it is the first
/// thing to look at; the class is that of any other exit.
fn failed_exit(exit: i32, name: &str) -> RunResult {
    let hint = match exit {
        126 => ": to a shell this is a program that can not be executed",
        127 => ": to a shell this is a program that was not found",
        _other => "",
    };
    let text = format!("`{name}` exited with {exit}{hint}");
    result(ResultStatus::Failed, Some(Class::AgentFailed), &text)
}
