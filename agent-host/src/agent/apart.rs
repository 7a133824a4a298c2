//! Work that this same program does in a process of its own: a request goes in by one file, an outcome
//! comes out by another. So the loop here never waits for a repository or a forge, and a kill ends the
//! work.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::report::{Capabilities, RunResult};

use super::{Advance, Agent, NONE, Prompt};
use crate::clock;
use crate::process::{self, Ended};
use crate::program::{Feed, Program, What};
use crate::run::{Failure, Run};

/// What is done there, and what its end means.
pub(super) trait Work {
    /// The first argument: in which role this program starts.
    const WORD: &'static str;
    /// Name of the request in the run's folder.
    const REQUEST: &'static str;
    /// Name of what came of it, likewise.
    const OUTCOME: &'static str;

    /// What is in the request.
    ///
    /// # Errors
    /// When it can not be written as JSON.
    fn request(&self) -> serde_json::Result<Vec<u8>>;

    /// Longest time that it may take.
    fn at_most(&self) -> Duration;

    /// The result of the run; `None`: it took too long and was killed.
    fn judge(&self, ended: Option<Ended>, run: &mut Run) -> RunResult;
}

/// The adapter of such work.
pub(super) struct Apart<W> {
    work: W,
    program: Option<Program>,
    deadline: Option<Instant>,
    timed_out: bool,
}

impl<W: Work> Apart<W> {
    pub(super) fn new(work: W) -> Self {
        Self {
            work,
            program: None,
            deadline: None,
            timed_out: false,
        }
    }

    fn spawn(&self, run: &mut Run) -> Result<Program, Failure> {
        self.write_request(run).map_err(|error| {
            let path = run.folder().join(W::REQUEST);
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
                argv: &[own.as_str(), W::WORD, W::REQUEST, W::OUTCOME].map(str::to_owned),
                extra_env: &std::collections::BTreeMap::new(),
                stdin: Feed::Nothing,
                line_max: None,
            },
        )
    }

    fn write_request(&self, run: &Run) -> io::Result<()> {
        let folder = run.files().ok_or(io::ErrorKind::NotFound)?;
        let request = self.work.request()?;
        for name in [W::REQUEST, W::OUTCOME] {
            match folder.remove(name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        folder.create_new(W::REQUEST)?.write_all(&request)
    }
}

impl<W: Work> Agent for Apart<W> {
    fn capabilities(&self) -> Capabilities {
        NONE
    }

    fn takes_prompts(&self) -> bool {
        false
    }

    /// It begins in the run's own folder: that of the task may not be there yet.
    fn start(&mut self, run: &mut Run) -> Result<(), Failure> {
        run.start.cwd.clone_from(&run.start.run_dir);
        Ok(())
    }

    fn prompt(&mut self, run: &mut Run, _prompt: Prompt) -> Result<(), Failure> {
        self.program = Some(self.spawn(run)?);
        let at_most = u64::try_from(self.work.at_most().as_millis()).unwrap_or(u64::MAX);
        self.deadline = Some(clock::after(clock::now(), at_most));
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
            let ended = (!self.timed_out).then_some(ended);
            return Advance::Done(Box::new(self.work.judge(ended, run)));
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
