//! What each step of a script does.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Instant;

use protocol::command::RunKind;
use protocol::report::{Event, Progress, RateLimited, Said, Tool, Usage};
use protocol::script::{FailStep, FileText, Flood, FloodTo, RunCommand, Step, WaitMessage};

use super::waiting::{PrintTo, Printing, flood_line};
use super::*;
use crate::logs::Stream;
use crate::process;
use crate::program::{self, Feed, What};
use crate::run::NO_REVIEW;
use crate::run_dir::FileError;

impl ScriptedAgent {
    /// Begins a step; one that takes time leaves a wait behind. An [`Advance`] ends the script at
    /// once.
    pub(super) fn begin(
        &mut self,
        step: Step,
        run: &mut Run,
        now: Instant,
    ) -> Result<Option<Advance>, Failure> {
        match step {
            Step::Say(text) => {
                run.log(Stream::Out, format!("{text}\n").as_bytes());
                say(run, &text);
            }
            Step::Write(file) => write(run, &file, Mode::Anew)?,
            Step::Append(file) => write(run, &file, Mode::Append)?,
            Step::Run(command) => self.waiting = start(run, command)?,
            Step::Sleep(length) => self.waiting = Waiting::Until(clock::after(now, length)),
            Step::WaitMessage(step) => self.waiting = wait_message(step, now),
            Step::Ask(step) => {
                let request = run.ask(&step.text, &step.options);
                self.waiting = Waiting::Question {
                    step,
                    request,
                    question: None,
                };
            }
            Step::Reply(text) => run.report(Event::Reply(said(&text))),
            Step::Escalate(text) => run.report(Event::Escalation(said(&text))),
            Step::Progress(step) => run.report(Event::Progress(Progress {
                text: excerpt(&step.text, EXCERPT_MAX),
                percent: step.percent,
            })),
            Step::Usage(step) => {
                let (turns, tokens, cost_micros) = (step.turns, step.tokens, step.cost_micros);
                self.usage = Usage {
                    turns,
                    tokens,
                    cost_micros,
                };
                run.report(Event::Usage(self.usage));
            }
            Step::Tool(step) => {
                let name = excerpt(&step.name, EXCERPT_MAX);
                let call = Tool {
                    name,
                    detail: excerpt(&step.detail, EXCERPT_MAX),
                    ok: None,
                };
                run.report(Event::ToolCall(call.clone()));
                run.report(Event::ToolResult(Tool {
                    ok: Some(true),
                    ..call
                }));
            }
            Step::Result(step) => {
                if step.verdict.is_some() && run.start.kind != RunKind::Review {
                    return Err(Failure::new(Class::SetupFailed, NO_REVIEW));
                }
                let class = (step.status == ResultStatus::Failed).then_some(Class::AgentFailed);
                self.ending = result(step.status, class, &step.summary);
                self.ending.verdict = step.verdict.filter(|_| class.is_none());
                self.steps.clear();
            }
            Step::Fail(step) => self.fail(&step, run),
            Step::OnAttempt(groups) => {
                for step in Script::guarded(&groups, self.attempt).iter().rev() {
                    self.steps.push_front(step.clone());
                }
            }
            misbehaviour => return self.misbehave(misbehaviour, run),
        }
        Ok(None)
    }

    /// Steps that no honest agent takes.
    fn misbehave(&mut self, step: Step, run: &mut Run) -> Result<Option<Advance>, Failure> {
        match step {
            // Only the low byte of a status reaches anybody.
            Step::Exit(code) => return Ok(Some(Advance::Leaves(code.to_le_bytes()[0]))),
            Step::Crash => {
                run.close();
                // What the reader does not take now is lost, as in any crash.
                drop(run.link.flush());
                process::die();
            }
            Step::Hang => self.waiting = Waiting::Forever,
            Step::Freeze => {
                drop(run.link.flush());
                self.life = Life::Frozen;
            }
            Step::Flood(flood) => self.waiting = Waiting::Printing(printing(flood)),
            Step::Garbage(lines) => {
                self.print(PrintTo::Pipe(b"this is no protocol\n"), lines.into())
            }
            Step::BlankLines(lines) => self.print(PrintTo::Pipe(b"\n"), lines.into()),
            Step::LongLine(bytes) => self.print(PrintTo::LongLine, bytes),
            Step::CloseStdout => self.waiting = Waiting::Closing,
            Step::IgnoreStop => {
                process::ignore_polite_signals();
                self.stop = StopState::Ignores;
            }
            Step::SpawnBackground(command) => program::start_apart(run, &command.argv)?,
            Step::Say(_)
            | Step::Write(_)
            | Step::Append(_)
            | Step::Run(_)
            | Step::Sleep(_)
            | Step::WaitMessage(_)
            | Step::Ask(_)
            | Step::Reply(_)
            | Step::Escalate(_)
            | Step::Progress(_)
            | Step::Usage(_)
            | Step::Tool(_)
            | Step::Result(_)
            | Step::Fail(_)
            | Step::OnAttempt(_) => {}
        }
        Ok(None)
    }

    fn print(&mut self, to: PrintTo, left: u64) {
        self.waiting = Waiting::Printing(Printing { to, left });
    }

    fn fail(&mut self, step: &FailStep, run: &mut Run) {
        let reset_in = step
            .reset_in_ms
            .map(|length| i64::try_from(length).unwrap_or(i64::MAX));
        let reset_at_ms = reset_in.map(|length| clock::wall_ms().saturating_add(length));
        if step.class == Class::UsageLimit {
            let detail = excerpt(&step.message, EXCERPT_MAX);
            run.report(Event::RateLimited(RateLimited {
                reset_at_ms,
                detail,
            }));
        }
        self.ending = result(ResultStatus::Failed, Some(step.class), &step.message);
        self.ending.reset_at_ms = reset_at_ms;
        self.steps.clear();
    }
}

/// Reports that the agent said something.
pub(super) fn say(run: &mut Run, text: &str) {
    run.report(Event::AssistantMessage(said(text)));
}

fn said(text: &str) -> Said {
    Said {
        text: excerpt(text, EXCERPT_MAX),
    }
}

fn start(run: &mut Run, command: RunCommand) -> Result<Waiting, Failure> {
    run.report(Event::ToolCall(Tool {
        name: command.argv.first().cloned().unwrap_or_default(),
        detail: excerpt(&command.argv.join(" "), EXCERPT_MAX),
        ok: None,
    }));
    let what = What {
        argv: &command.argv,
        extra_env: &BTreeMap::new(),
        stdin: Feed::Nothing,
        line_max: None,
    };
    let program = Box::new(Program::start(run, what)?);
    Ok(Waiting::Program {
        program,
        step: command,
        interrupted: false,
    })
}

fn wait_message(step: WaitMessage, now: Instant) -> Waiting {
    let until = step.timeout_ms.map(|length| clock::after(now, length));
    Waiting::Message { step, until }
}

fn printing(flood: Flood) -> Printing {
    let line = flood_line(flood.line_bytes);
    let to = match flood.to {
        FloodTo::Log => PrintTo::Log(format!("{line}\n").into_bytes()),
        FloodTo::Reports => PrintTo::Reports(excerpt(&line, EXCERPT_MAX)),
    };
    Printing {
        to,
        left: flood.lines,
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Anew,
    Append,
}

/// Saves a text that came from the operator, if the step asks for it.
///
/// # Errors
/// As a `write` step.
pub(super) fn save(run: &Run, path: Option<&str>, text: &str) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let file = FileText {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    write(run, &file, Mode::Anew)
}

fn write(run: &Run, file: &FileText, mode: Mode) -> Result<(), Failure> {
    let path = below(&run.start.cwd, &file.path)?;
    let failed = |error| Failure::from(FileError::new("can not write", &path, error));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = fs::OpenOptions::new();
    match mode {
        Mode::Anew => options.write(true).create(true).truncate(true),
        Mode::Append => options.append(true).create(true),
    };
    let written = options
        .open(&path)
        .and_then(|mut to: fs::File| to.write_all(file.text.as_bytes()));
    written.map_err(|error: io::Error| failed(error))
}

/// A path of a script, which must stay below the working folder.
fn below(cwd: &str, path: &str) -> Result<PathBuf, Failure> {
    let inside = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside || path.is_empty() {
        let text = format!("the script's path `{path}` is not below the working folder");
        return Err(Failure::new(Class::SetupFailed, text));
    }
    Ok(Path::new(cwd).join(path))
}
