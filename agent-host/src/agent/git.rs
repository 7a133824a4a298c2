//! The `git` adapter: the work is done by this same program in a process of its own
//! ([`crate::git`]), so that the loop here never waits for a repository and a kill ends the work.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::git::GitAdapter;
use protocol::report::{Capabilities, ResultStatus, RunResult};

use super::{Advance, Agent, NONE, Prompt};
use crate::clock;
use crate::git::{FILE_MAX, Outcome, WORD};
use crate::process::{self, Ended};
use crate::program::{Feed, Program, What};
use crate::run::{Failure, Run, read_bounded, result};

/// Name of the request in the run's folder.
const REQUEST: &str = "git.json";
/// Name of what came of it.
const OUTCOME: &str = "git-outcome.json";

/// Git work.
pub(super) struct GitAgent {
    adapter: GitAdapter,
    program: Option<Program>,
    deadline: Option<Instant>,
    timed_out: bool,
}

impl GitAgent {
    pub(super) fn new(adapter: GitAdapter) -> Self {
        Self {
            adapter,
            program: None,
            deadline: None,
            timed_out: false,
        }
    }

    fn spawn(&self, run: &mut Run) -> Result<Program, Failure> {
        write_request(run, &self.adapter).map_err(|error| {
            let path = run.folder().join(REQUEST);
            let text = format!("can not write {}: {error}", path.display());
            Failure::new(Class::SetupFailed, text)
        })?;
        let own = std::env::current_exe().map_err(|error| {
            Failure::new(
                Class::Environment,
                format!("can not find the own program: {error}"),
            )
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

    fn judge(&self, ended: Ended, run: &Run) -> RunResult {
        let word = self.adapter.work.word();
        let failed = |text| Err((Class::SetupFailed, text));
        let said = match (self.timed_out, ended) {
            (true, _) => {
                let limit = Duration::from_millis(self.adapter.timeout_ms);
                failed(format!("{word} took longer than {limit:?} and was killed"))
            }
            (false, Ended::Exit(0)) => read_outcome(&run.folder().join(OUTCOME)).or_else(failed),
            (false, Ended::Exit(code)) => failed(format!("{word} exited with {code}")),
            // From outside: it says nothing of the work, which begins by putting right what is left.
            (false, Ended::Signal(9)) => Err((Class::Lost, format!("{word} was killed"))),
            (false, Ended::Signal(signal)) => {
                failed(format!("{word} was ended by signal {signal}"))
            }
        };
        let (class, message) = match said {
            Ok(Outcome::Done(outcome)) => {
                let mut done = result(ResultStatus::Ok, None, "");
                done.git = Some(Box::new(outcome));
                return done;
            }
            Ok(Outcome::Failed { class, message }) => (class, format!("{word}: {message}")),
            Err(failed) => failed,
        };
        let mut failed = result(ResultStatus::Failed, Some(class), &message);
        failed.evidence = run.logs.evidence();
        failed
    }
}

impl Agent for GitAgent {
    fn capabilities(&self) -> Capabilities {
        NONE
    }

    fn takes_prompts(&self) -> bool {
        false
    }

    /// The work begins in the run's own folder: that of the task may not be there yet.
    fn start(&mut self, run: &mut Run) -> Result<(), Failure> {
        run.start.cwd.clone_from(&run.start.run_dir);
        Ok(())
    }

    fn prompt(&mut self, run: &mut Run, _prompt: Prompt) -> Result<(), Failure> {
        self.program = Some(self.spawn(run)?);
        self.deadline = Some(clock::after(clock::now(), self.adapter.timeout_ms));
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

fn write_request(run: &Run, adapter: &GitAdapter) -> io::Result<()> {
    let folder = run.files().ok_or(io::ErrorKind::NotFound)?;
    let request = serde_json::to_vec(&adapter.work)?;
    for name in [REQUEST, OUTCOME] {
        match folder.remove(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    folder.create_new(REQUEST)?.write_all(&request)
}

fn read_outcome(path: &Path) -> Result<Outcome, String> {
    let text = read_bounded(path, FILE_MAX).map_err(|error| error.to_string());
    let read = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    read.map_err(|error| format!("can not read {}: {error}", path.display()))
}
