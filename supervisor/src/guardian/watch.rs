//! The guardian's life: start a supervisor, sleep until it ends, end what it left, rule on what
//! follows.

use std::ffi::OsString;
use std::io::{self, Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use protocol::ids::BatchId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use supervisor_core::identity::Exit;
use supervisor_core::time::BootId;

use crate::driver;
use crate::driver::clock::Clock;
use crate::guardian::channel::{Word, byte_of};
use crate::guardian::leftovers::{self, Leftovers};
use crate::guardian::ruling::{self, Death, RESTARTS_MAX, Restarts, WINDOW};
use crate::guardian::signals::{Came, Signals};
use crate::guardian::start::{self, Supervisor};
use crate::process::orphans::Swept;
use crate::process::{inherited, pidfd, stat};

/// What a guardian starts.
#[derive(Debug)]
pub struct Guard {
    /// This program.
    pub program: PathBuf,
    /// The hosts' program, to know them by when they are waited for.
    pub host: Option<PathBuf>,
    /// The words of the first supervisor, and of any until a batch has begun.
    pub words: Vec<OsString>,
    /// Whether these words read stdin, which can be done twice only where it can be rewound.
    pub reads_stdin: bool,
    /// The words that, with the id of a batch behind them, go on with it.
    pub go_on: Vec<OsString>,
}

/// How a guardian ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the exit status of the supervisor.
    Handed(u8),
    /// The supervisor was asked to end and died of it, or while nothing ran.
    Stopped,
    /// The supervisor died too often.
    GivenUp,
}

/// Why a guardian can not do its work.
#[derive(Debug, thiserror::Error)]
#[error("can not {what}")]
pub struct GuardianError {
    what: &'static str,
    #[source]
    source: io::Error,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> GuardianError {
    move |source| GuardianError { what, source }
}

/// Guards a supervisor until it has ended for good. What an operator must know goes to `err`.
///
/// # Errors
/// When the kernel does not let it guard; a supervisor that lives then goes on by itself.
pub fn watch(guard: Guard, err: &mut dyn Write) -> Result<End, GuardianError> {
    inherited::keep_exits().map_err(failed("collect exits"))?;
    let signals = Signals::hear().map_err(failed("hear signals"))?;
    let leftovers = Leftovers::adopt(guard.host.clone()).map_err(failed("adopt orphans"))?;
    let mut watch = Watch {
        guard,
        signals,
        leftovers,
        clock: Clock::new(BootId::default()),
        restarts: Restarts::default(),
        begun: None,
        asked: false,
    };
    loop {
        let supervisor = watch.start()?;
        let (pid, exit) = watch.attend(supervisor)?;
        let swept = watch.end_leftovers()?;
        match watch.follows(pid, exit, swept, err)? {
            Follows::Start => {}
            Follows::End(end) => return Ok(end),
        }
    }
}

struct Watch {
    guard: Guard,
    signals: Signals,
    leftovers: Leftovers,
    clock: Clock,
    restarts: Restarts,
    /// The batch to go on with.
    begun: Option<BatchId>,
    /// Somebody asked for an end: no supervisor is started any more.
    asked: bool,
}

enum Follows {
    Start,
    End(End),
}

impl Watch {
    fn start(&mut self) -> Result<Supervisor, GuardianError> {
        let Guard { words, go_on, .. } = &self.guard;
        let words = match &self.begun {
            Some(batch) => {
                let batch = OsString::from(batch.as_str());
                &go_on.iter().cloned().chain([batch]).collect()
            }
            None => words,
        };
        start::start(&self.guard.program, words).map_err(failed("start the supervisor"))
    }

    /// Sleeps until the supervisor has ended; on the way its words are kept and signals handed on.
    fn attend(&mut self, mut supervisor: Supervisor) -> Result<(u32, Exit), GuardianError> {
        let mut listening = false;
        let mut talks = true;
        loop {
            {
                let line = supervisor.line.as_fd();
                let ended = supervisor.pidfd.as_fd();
                let mut polled = [
                    PollFd::new(&self.signals, PollFlags::IN),
                    PollFd::new(&ended, PollFlags::IN),
                    PollFd::new(&line, PollFlags::IN),
                ];
                // A socket whose other end is closed is ready for ever.
                let watched = if talks { 3 } else { 2 };
                wait(&mut polled[..watched], None).map_err(failed("wait"))?;
            }
            // Before any ruling: what was said and sent before the end counts.
            if talks {
                talks = self
                    .listen(&mut supervisor, &mut listening)
                    .map_err(failed("hear the supervisor"))?;
            }
            while let Some(came) = self.signals.next().map_err(failed("read signals"))? {
                self.hand_on(came, &mut supervisor, listening);
            }
            let exit = pidfd::reap(supervisor.pidfd.as_fd());
            if let Some(exit) = exit.map_err(failed("collect the supervisor's exit"))? {
                // It may have spoken between our look at the line and its end.
                if talks {
                    self.listen(&mut supervisor, &mut listening)
                        .map_err(failed("hear the supervisor"))?;
                }
                return Ok((supervisor.pid, exit));
            }
        }
    }

    fn listen(&mut self, supervisor: &mut Supervisor, listening: &mut bool) -> io::Result<bool> {
        let pid = supervisor.pid;
        supervisor.line.read(|word| match word {
            Word::Listening => {
                *listening = true;
                self.follow_program(pid);
            }
            Word::Begun(batch) => self.begun = Some(batch),
            Word::Ending => self.asked = true,
        })
    }

    /// A supervisor may become another program (`reexec`), and says again that it listens. That
    /// program is the one to start again, and the host beside it is that of its hosts.
    fn follow_program(&mut self, pid: u32) {
        let Some(program) = program_of(pid).filter(|now| *now != self.guard.program) else {
            return;
        };
        if std::env::var_os(driver::HOST_VARIABLE).is_none() {
            self.leftovers
                .add_host(program.with_file_name("agent-host"));
        }
        self.guard.program = program;
    }

    fn hand_on(&mut self, came: Came, supervisor: &mut Supervisor, listening: bool) {
        self.asked = true;
        if !came.hand_on {
            return;
        }
        let handed = match (byte_of(came.signal), as_sent(came.signal)) {
            (Some(byte), _) if listening => supervisor.line.hand_on(byte),
            (_, Some(signal)) => pidfd::signal(&supervisor.pidfd, signal),
            (_, None) => Ok(()),
        };
        // It is just ending, which is what was asked for.
        drop(handed);
    }

    /// Ends what is left, and hears what was asked for meanwhile.
    fn end_leftovers(&mut self) -> Result<Swept, GuardianError> {
        let clock = self.clock;
        let swept = self.leftovers.end(|| clock.now().boot);
        self.hear().map_err(failed("read signals"))?;
        swept.map_err(failed("list what the supervisor left"))
    }

    /// Signals while no supervisor lives.
    fn hear(&mut self) -> io::Result<()> {
        while self.signals.next()?.is_some() {
            self.asked = true;
        }
        Ok(())
    }

    fn follows(
        &mut self,
        pid: u32,
        exit: Exit,
        swept: Swept,
        err: &mut dyn Write,
    ) -> Result<Follows, GuardianError> {
        match ruling::read(exit, self.asked) {
            Death::Ended(code) => return Ok(Follows::End(End::Handed(code))),
            Death::Stopped => return Ok(Follows::End(End::Stopped)),
            Death::Died => {}
        }
        if self.begun.is_none() && self.guard.reads_stdin && !rewind() {
            say(
                err,
                format_args!(
                    "supervisor pid {pid} died ({}) before a batch began, and its file came from stdin",
                    Why(exit)
                ),
            );
            return Ok(Follows::End(End::Stopped));
        }
        let Some(backoff) = self.restarts.next(self.clock.now().boot) else {
            say(
                err,
                format_args!(
                    "supervisor pid {pid} died ({}), {RESTARTS_MAX} starts in {} minutes were in vain: \
                     giving up; {} processes of it were ended, {} could not be",
                    Why(exit),
                    WINDOW.as_secs() / 60,
                    swept.ended,
                    swept.left
                ),
            );
            return Ok(Follows::End(End::GivenUp));
        };
        say(
            err,
            format_args!(
                "supervisor pid {pid} died ({}); start {} of at most {RESTARTS_MAX} follows in {} s",
                Why(exit),
                self.restarts.count(),
                backoff.as_secs_f32()
            ),
        );
        let asked = self.pause(backoff).map_err(failed("wait"))?;
        Ok(if asked {
            Follows::End(End::Stopped)
        } else {
            Follows::Start
        })
    }

    /// Sleeps before the next start; whether an end was asked for meanwhile.
    fn pause(&mut self, backoff: Duration) -> io::Result<bool> {
        let polled = &mut [PollFd::new(&self.signals, PollFlags::IN)];
        wait(polled, Some(backoff))?;
        self.hear()?;
        Ok(self.asked)
    }
}

/// The one call in which a guardian sleeps.
fn wait(polled: &mut [PollFd<'_>], at_most: Option<Duration>) -> io::Result<()> {
    let timeout = at_most.map(|at_most| Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    });
    match poll(polled, timeout.as_ref()) {
        // Stopped and continued (Ctrl-Z, `fg`): the caller looks, finds nothing and waits again.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A signal in the words of the crate that sends it; `None` for none that is heard.
fn as_sent(signal: Signal) -> Option<rustix::process::Signal> {
    rustix::process::Signal::from_named_raw(signal as i32)
}

/// The program that a process runs; one that was replaced on the disk is its successor there.
fn program_of(pid: u32) -> Option<PathBuf> {
    let path = stat::program(pid)?;
    Some(leftovers::as_installed(&path).to_owned())
}

/// Puts stdin back to its beginning; `false` for a pipe or a terminal.
fn rewind() -> bool {
    let stdin = io::stdin();
    let file = stdin.as_fd().try_clone_to_owned().map(std::fs::File::from);
    file.and_then(|mut file| file.rewind()).is_ok()
}

/// How a supervisor ended, for people.
struct Why(Exit);

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Exit::Code(code) => write!(f, "exit status {code}"),
            Exit::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => f.write_str(signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
            Exit::Unseen => f.write_str("nobody saw how"),
        }
    }
}

/// A line for the operator, on a line of its own also where a dead supervisor's display stands. A
/// guardian whose stderr is gone goes on in silence.
fn say(err: &mut dyn Write, text: std::fmt::Arguments<'_>) {
    let written = writeln!(err, "guardian: {text}").and_then(|()| err.flush());
    drop(written);
}
