//! Ends what lives of given runs without the help of any supervisor: asks, waits, forces, and tells
//! of each process what was done. Needs no writable disk.

use std::time::Duration;

use supervisor_core::containment::Cleared;
use supervisor_core::time::{Boot, BootId};

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::processes::process_id;
use crate::driver::clock::Clock;
use crate::process::family::{self, Member};
use crate::process::identity::Machine;
use crate::process::tree::{self, RecordedRun};
use crate::process::{pidfd, stat};

/// Longest wait for a killed process to be gone; only one stuck in the kernel takes longer.
pub const DYING_MAX: Duration = Duration::from_secs(10);

/// What is known of the end of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing of it lives.
    Ended,
    /// Nothing of it is found, and what can not be excluded was told.
    Open,
    /// Something recorded was not touched, because it is not what was recorded.
    Refused,
    /// Something lives, or may live.
    Lives,
}

impl Verdict {
    /// The exit code that says it.
    pub const fn code(self) -> Code {
        match self {
            Self::Ended | Self::Open => Code::Ok,
            Self::Refused => Code::Refused,
            Self::Lives => Code::Failed,
        }
    }
}

/// Runs to be ended, each with its name for people.
#[derive(Debug, Default)]
pub struct Runs {
    /// As the process layer looks for them.
    pub recorded: Vec<RecordedRun>,
    /// `task@attempt`, at the same places.
    pub names: Vec<String>,
}

/// What of the runs lives when it is looked at first, pinned; so the end of each can be told.
#[derive(Debug)]
pub struct Victims {
    members: Vec<(Member, String)>,
    started: Boot,
}

fn clock() -> Clock {
    Clock::new(BootId::default()) // only lengths are measured
}

impl Victims {
    /// Looks once at every process.
    ///
    /// # Errors
    /// When they can not be listed (10).
    pub fn find(machine: &Machine, runs: &Runs) -> Result<Victims, CliError> {
        let found = family::members(machine, &runs.recorded).map_err(not_listed)?;
        Ok(Victims::of(found, &runs.names))
    }

    /// These processes, of runs with these names.
    pub fn of(found: Vec<Member>, names: &[String]) -> Victims {
        let named = found.into_iter().map(|member| {
            let run = names.get(member.run).cloned().unwrap_or_default();
            (member, run)
        });
        Victims {
            members: named.collect(),
            started: clock().now().boot,
        }
    }

    /// Whether nothing lives.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Says what would be done.
    ///
    /// # Errors
    /// When stdout can not be written.
    pub fn preview(&self, io: &mut Io<'_>) -> Result<(), CliError> {
        for (member, run) in &self.members {
            let line = format!("would end {}: {}", label(member, run), member.proof);
            io.line(line)?;
        }
        Ok(())
    }

    /// Asks all of them to end, and waits for that as long as it may take.
    pub fn ask(&mut self, grace: Duration) {
        self.started = clock().now().boot;
        if grace.is_zero() {
            return;
        }
        for (member, _) in &self.members {
            // One that refuses is forced after the grace.
            let _asked = member.ask();
        }
        self.wait(grace);
    }

    /// Waits until all have ended, at most this long.
    pub fn wait(&self, at_most: Duration) {
        let until = clock().now().boot + at_most;
        for (member, _) in &self.members {
            let left = until.0.saturating_sub(clock().now().boot.0);
            let gone = pidfd::wait_ended(&member.pidfd, Duration::from_millis(left));
            if !gone.unwrap_or(true) && clock().now().boot >= until {
                return;
            }
        }
    }

    /// Those that have ended are told and forgotten: `how` says what ended them.
    ///
    /// # Errors
    /// When stdout can not be written.
    pub fn tell_ended(&mut self, how: &str, io: &mut Io<'_>) -> Result<(), CliError> {
        let after = clock().now().boot.0.saturating_sub(self.started.0);
        let mut left = Vec::new();
        for (member, run) in self.members.drain(..) {
            if pidfd::has_ended(&member.pidfd).unwrap_or(true) {
                let label = label(&member, &run);
                io.line(format_args!("{label}: {how}, ended within {after} ms"))?;
            } else {
                left.push((member, run));
            }
        }
        self.members = left;
        Ok(())
    }

    /// Kills what is left, and hunts whatever began meanwhile until nothing is seen any more.
    ///
    /// # Errors
    /// When the processes can not be listed (10).
    pub fn force(
        mut self,
        machine: &Machine,
        runs: &Runs,
        io: &mut Io<'_>,
    ) -> Result<Verdict, CliError> {
        for (member, run) in &self.members {
            if let Err(error) = member.force() {
                let label = label(member, run);
                io.line(format_args!("{label}: SIGKILL refused: {error}"))?;
            }
        }
        let known = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let cleared = tree::end_recorded(machine, &runs.recorded).map_err(not_listed)?;
        self.wait(DYING_MAX);
        self.tell_ended("SIGKILL", io)?;
        let mut verdict = Verdict::Ended;
        for (member, run) in &self.members {
            let why = match stat::of(member.pid) {
                Some(_) => "SIGKILL, still dying in the kernel",
                None => "SIGKILL, its end was not seen",
            };
            io.line(format_args!("{}: {why}", label(member, run)))?;
            verdict = Verdict::Lives;
        }
        let later: u32 = cleared.iter().map(Cleared::killed).sum();
        if let Some(later) = later.checked_sub(known).filter(|&count| count > 0) {
            io.line(format_args!("{later} that began meanwhile: SIGKILL"))?;
        }
        for (cleared, name) in cleared.iter().zip(&runs.names) {
            if !cleared.is_clean() {
                io.line(format_args!("{name}: {cleared}"))?;
            }
            verdict = verdict.max(match cleared {
                Cleared::Clean { .. } => Verdict::Ended,
                Cleared::NotExcluded { .. } => Verdict::Open,
                Cleared::Residual { .. } => Verdict::Lives,
            });
        }
        Ok(verdict)
    }
}

fn label(member: &Member, run: &str) -> String {
    let id = process_id(member.pid, member.start_ticks);
    format!("process {id} of {run}")
}

fn not_listed(error: std::io::Error) -> CliError {
    let message = format!("the processes of this machine can not be listed: {error}");
    CliError::new(Code::Environment, message)
}
