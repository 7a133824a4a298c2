//! The `fetch` and `comment` adapters: this same program asks the forge in a process of its own
//! ([`crate::fetch`]). What was fetched is kept in the task's folder, where the agent's prompt is made of
//! it.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::forge::{ForgeItem, ITEM_FILE_NAME};
use protocol::report::{Capabilities, ResultStatus, RunResult};

use super::{Advance, Agent, NONE, Prompt};
use crate::clock;
use crate::fetch::{FILE_MAX, Outcome, Request, WORD};
use crate::process::{self, Ended};
use crate::program::{Feed, Program, What};
use crate::run::{Failure, Run, read_bounded, result};
use crate::run_dir::make_in_task;

/// Name of the request in the run's folder.
const REQUEST: &str = "fetch.json";
/// Name of what came of it.
const OUTCOME: &str = "fetch-outcome.json";

/// A fetch, or a comment.
pub(super) struct FetchAgent {
    work: Request,
    timeout_ms: u64,
    program: Option<Program>,
    deadline: Option<Instant>,
    timed_out: bool,
}

impl FetchAgent {
    pub(super) fn new(work: Request, timeout_ms: u64) -> Self {
        Self {
            work,
            timeout_ms,
            program: None,
            deadline: None,
            timed_out: false,
        }
    }

    fn spawn(&self, run: &mut Run) -> Result<Program, Failure> {
        let written = serde_json::to_vec(&self.work)
            .map_err(io::Error::from)
            .and_then(|request| {
                let folder = run.files().ok_or(io::ErrorKind::NotFound)?;
                folder.create_new(REQUEST)?.write_all(&request)
            });
        written.map_err(|error| {
            let path = run.folder().join(REQUEST);
            let text = format!("can not write {}: {error}", path.display());
            Failure::new(Class::SetupFailed, text)
        })?;
        let own = std::env::current_exe().map_err(|error| {
            let text = format!("can not find the own program: {error}");
            Failure::new(Class::Environment, text)
        })?;
        let own = own.display().to_string();
        Program::start(
            run,
            What {
                argv: &[own.as_str(), WORD, REQUEST, OUTCOME].map(str::to_owned),
                extra_env: &std::collections::BTreeMap::new(),
                stdin: Feed::Nothing,
                line_max: None,
            },
        )
    }

    fn judge(&self, ended: Ended, run: &mut Run) -> RunResult {
        let said = match (self.timed_out, ended) {
            (true, _) => {
                let limit = Duration::from_millis(self.timeout_ms);
                let text = format!("no answer within {limit:?}; it was killed");
                Err((Class::Network, text, None))
            }
            (false, Ended::Exit(0)) => read_outcome(&run.folder().join(OUTCOME)),
            (false, Ended::Exit(code)) => {
                Err((Class::SetupFailed, format!("it exited with {code}"), None))
            }
            (false, Ended::Signal(signal)) => {
                let text = format!("it was ended by signal {signal}");
                Err((Class::SetupFailed, text, None))
            }
        };
        let told = said.and_then(|done| match done {
            Done::Item(item) => match keep(run, &item) {
                Ok(()) => Ok(told(run, &item)),
                Err(failure) => Err((failure.class, failure.text, None)),
            },
            Done::Comment(told) => Ok(told),
        });
        match told {
            Ok(told) => result(ResultStatus::Ok, None, &told),
            Err((class, text, reset_at_ms)) => {
                let mut failed = result(ResultStatus::Failed, Some(class), &text);
                failed.reset_at_ms = reset_at_ms;
                failed.evidence = run.logs.evidence();
                failed
            }
        }
    }
}

/// Why there is nothing: class, text, when to ask again.
type Nothing = (Class, String, Option<i64>);

/// What came of it.
enum Done {
    Item(Box<ForgeItem>),
    Comment(String),
}

/// What was fetched, in words.
fn told(run: &mut Run, item: &ForgeItem) -> String {
    for warning in &item.warnings {
        run.notice(warning);
    }
    format!("{} with {} comments", item.reference, item.comments.len())
}

fn read_outcome(path: &Path) -> Result<Done, Nothing> {
    let text = read_bounded(path, FILE_MAX).map_err(|error| error.to_string());
    let read = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    match read {
        Ok(Outcome::Done(item)) => Ok(Done::Item(item)),
        Ok(Outcome::Posted(told)) => Ok(Done::Comment(told)),
        Ok(Outcome::Failed {
            class,
            message,
            reset_at_ms,
        }) => Err((class, message, reset_at_ms)),
        Err(why) => {
            let text = format!("can not read {}: {why}", path.display());
            Err((Class::SetupFailed, text, None))
        }
    }
}

/// Puts it into the task's folder, in place of what an earlier attempt fetched.
fn keep(run: &Run, item: &ForgeItem) -> Result<(), Failure> {
    let task = Path::new(&run.start.task_dir);
    let folder = make_in_task(task, task)?.folder;
    let aside = format!("{ITEM_FILE_NAME}.new");
    let written = serde_json::to_vec(item)
        .map_err(io::Error::from)
        .and_then(|bytes| {
            match folder.remove(&aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = folder.create_new(&aside)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            folder.rename(&aside, ITEM_FILE_NAME)?;
            folder.sync()
        });
    written.map_err(|error| {
        let path = task.join(ITEM_FILE_NAME);
        let text = format!("can not write {}: {error}", path.display());
        Failure::new(Class::SetupFailed, text)
    })
}

impl Agent for FetchAgent {
    fn capabilities(&self) -> Capabilities {
        NONE
    }

    fn takes_prompts(&self) -> bool {
        false
    }

    /// It begins in the run's own folder, whatever the task's is.
    fn start(&mut self, run: &mut Run) -> Result<(), Failure> {
        run.start.cwd.clone_from(&run.start.run_dir);
        Ok(())
    }

    fn prompt(&mut self, run: &mut Run, _prompt: Prompt) -> Result<(), Failure> {
        self.program = Some(self.spawn(run)?);
        self.deadline = Some(clock::after(clock::now(), self.timeout_ms));
        Ok(())
    }

    fn stop(&mut self, _run: &mut Run) {
        if let Some(program) = &self.program {
            program.ask_to_end();
        }
    }

    fn advance(&mut self, run: &mut Run, now: Instant) -> Advance {
        let Some(program) = &self.program else {
            return Advance::Waits(None);
        };
        if let Some(ended) = program.ended() {
            return Advance::Done(Box::new(self.judge(ended, run)));
        }
        if !self.timed_out && self.deadline.is_some_and(|deadline| now >= deadline) {
            self.timed_out = true;
            run.gauge.killed_by_us();
            // Everything below us is of this work; what resists is met again at the end of the run.
            drop(process::kill_family());
        }
        Advance::Waits(self.deadline.filter(|_| !self.timed_out))
    }

    fn drain(&mut self, _run: &mut Run) {}

    fn program(&mut self) -> Option<&mut Program> {
        self.program.as_mut()
    }
}
