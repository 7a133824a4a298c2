//! One running program of the run: its pipes, its end, and the bounded rest of its output.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::framing::{Frame, FrameReader};
use protocol::report::{EXCERPT_MAX, Event, ProcessSpawned, excerpt};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

use crate::logs::Stream;
use crate::process::{self, Ended, Spawn, Stdin};
use crate::run::{Failure, Run};
use crate::wait::Ready;

/// How long the rest of the output is awaited after the program has ended: long enough for a
/// `tee` at the end of a shell's line, short enough not to be felt. A survivor that holds the pipe
/// longer is cut off.
const DRAIN: Duration = Duration::from_millis(100);
/// Most bytes read of each stream once [`DRAIN`] is over: what a pipe can hold by default, 16
/// times over.
const DRAIN_MAX: usize = 1 << 20;
/// How often the program's end is looked for on a kernel without pidfds.
const NO_PIDFD: Duration = Duration::from_millis(20);

/// What to run.
pub(crate) struct What<'a> {
    /// Program and arguments.
    pub(crate) argv: &'a [String],
    /// Variables beside those of the run.
    pub(crate) extra_env: &'a BTreeMap<String, String>,
    /// What it reads.
    pub(crate) stdin: Feed,
    /// Its standard output is read as lines of at most so many bytes, beside the log; `None`: it
    /// is only logged.
    pub(crate) line_max: Option<usize>,
}

/// What a program reads.
pub(crate) enum Feed {
    /// Nothing.
    Nothing,
    /// This, and then the end.
    Once(Vec<u8>),
    /// What [`Program::say`] hands it, until [`Program::close_input`].
    Open,
}

/// A program that was started and has not been given up.
pub(crate) struct Program {
    pid: Pid,
    exit: Option<OwnedFd>,
    out: Option<OwnedFd>,
    err: Option<OwnedFd>,
    input: Option<Input>,
    lines: Option<FrameReader>,
    ended: Option<(Ended, Instant)>,
}

/// Bytes on their way to the program's stdin.
struct Input {
    pipe: OwnedFd,
    bytes: Vec<u8>,
    written: usize,
    /// More may come when these are written.
    open: bool,
}

/// What to watch, in the order of [`Program::take_in`].
pub(crate) type Watched<'a> = [Option<BorrowedFd<'a>>; 4];

impl Program {
    /// Starts a program in the run's working folder and reports it.
    ///
    /// # Errors
    /// `environment` when the program or the folder is not there, `setup_failed` when the
    /// arguments are too long, `environment` for anything else that the kernel refuses.
    pub(crate) fn start(run: &mut Run, what: What<'_>) -> Result<Self, Failure> {
        let stdin = match &what.stdin {
            Feed::Nothing => Stdin::Empty,
            Feed::Once(_) | Feed::Open => Stdin::Pipe,
        };
        let spawned = with_env(run, what.extra_env, |run, env| {
            let cwd = run.start.cwd.as_str();
            let file = find(what.argv, env, cwd)?;
            let spawn = Spawn {
                file: &file,
                argv: what.argv,
                env,
                cwd,
                stdin,
            };
            process::spawn(&spawn).map_err(|error| refusal(&error, &spawn))
        })?;
        report_spawned(run, spawned.pid, what.argv);
        let (bytes, open) = match what.stdin {
            Feed::Nothing => (Vec::new(), false),
            Feed::Once(bytes) => (bytes, false),
            Feed::Open => (Vec::new(), true),
        };
        let input = spawned.stdin.map(|pipe| Input::new(pipe, bytes, open));
        Ok(Self {
            pid: spawned.pid,
            exit: spawned.exit,
            out: spawned.stdout,
            err: spawned.stderr,
            input,
            lines: what.line_max.map(FrameReader::with_max),
            ended: None,
        })
    }

    /// Hands it more to read, after what waits already. A program that has ended or closed its
    /// stdin does not get it: its end tells.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if let Some(input) = self.input.as_mut().filter(|input| input.open) {
            input.bytes.extend_from_slice(bytes);
            self.write_input();
        }
    }

    /// Closes its stdin behind what waits.
    pub(crate) fn close_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.open = false;
            self.write_input();
        }
    }

    /// The next line that it printed; only ever with [`What::line_max`].
    pub(crate) fn next_line(&mut self) -> Option<Frame> {
        self.lines.as_mut()?.next_frame()
    }

    /// Its pid while it has not been reaped.
    pub(crate) fn unreaped(&self) -> Option<Pid> {
        self.ended.is_none().then_some(self.pid)
    }

    /// How it ended, once its output is complete as well.
    pub(crate) fn ended(&self) -> Option<Ended> {
        let quiet = self.out.is_none() && self.err.is_none();
        self.ended.filter(|_| quiet).map(|(ended, _)| ended)
    }

    /// Asks it and its process group to end.
    pub(crate) fn ask_to_end(&self) {
        if let Some(pid) = self.unreaped() {
            process::ask_to_end(pid);
        }
    }

    /// The descriptors to watch: its output (unless `hold`), its end, its input.
    pub(crate) fn watched(&self, hold: bool) -> Watched<'_> {
        let read = |pipe: &'_ Option<OwnedFd>| pipe.is_some() && !hold;
        [
            self.out
                .as_ref()
                .filter(|_| read(&self.out))
                .map(AsFd::as_fd),
            self.err
                .as_ref()
                .filter(|_| read(&self.err))
                .map(AsFd::as_fd),
            self.exit
                .as_ref()
                .filter(|_| self.ended.is_none())
                .map(AsFd::as_fd),
            self.input
                .as_ref()
                .filter(|input| input.has_more())
                .map(|input| input.pipe.as_fd()),
        ]
    }

    /// When it must be looked at even if nothing is ready.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        match self.ended {
            Some((_, since)) => Some(since + DRAIN),
            None => self.exit.is_none().then(|| now + NO_PIDFD),
        }
    }

    /// Takes in what is ready.
    pub(crate) fn take_in(&mut self, run: &mut Run, ready: [Ready; 4], now: Instant) {
        let [out, err, exit, input] = ready;
        if out.usable {
            self.read_out(run);
        }
        if err.usable {
            read_once(&mut self.err, run, Stream::Err);
        }
        if input.usable {
            self.write_input();
        }
        if self.ended.is_none() && (exit.usable || self.exit.is_none()) {
            self.reap(now);
        }
        if self.ended.is_some_and(|(_, since)| now >= since + DRAIN) {
            self.take_rest(run);
        }
    }

    /// After a kill of the family: takes in what it printed before.
    pub(crate) fn take_rest(&mut self, run: &mut Run) {
        read_rest(&mut self.out, self.lines.as_mut(), run, Stream::Out);
        read_rest(&mut self.err, None, run, Stream::Err);
    }

    fn read_out(&mut self, run: &mut Run) {
        let count = read_once(&mut self.out, run, Stream::Out);
        if let Some(lines) = self.lines.as_mut().filter(|_| count > 0) {
            lines.push(run.scratch.bytes());
        }
    }

    fn reap(&mut self, now: Instant) {
        let ended = match process::reap(self.pid) {
            Ok(Some(ended)) => ended,
            Ok(None) => return,
            // Somebody else reaped it, which only a kill of the whole family does.
            Err(_) => Ended::Signal(Signal::KILL.as_raw()),
        };
        self.ended = Some((ended, now));
        self.exit = None;
        self.input = None;
    }

    fn write_input(&mut self) {
        let done = self.input.as_mut().is_none_or(Input::write);
        if done {
            self.input = None;
        }
    }
}

impl Input {
    fn new(pipe: OwnedFd, bytes: Vec<u8>, open: bool) -> Self {
        // Can not fail on a pipe that was just made; if it did, a large prompt would be written
        // in one go while the program reads.
        let _ = fcntl_setfl(&pipe, OFlags::NONBLOCK);
        Self {
            pipe,
            bytes,
            written: 0,
            open,
        }
    }

    /// Whether there is something to write, or an end to be told.
    fn has_more(&self) -> bool {
        self.written < self.bytes.len() || !self.open
    }

    /// Writes what goes; true when there is nothing more to do. A program that does not want its
    /// input is its own affair.
    fn write(&mut self) -> bool {
        while self.written < self.bytes.len() {
            match rustix::io::write(&self.pipe, &self.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Err(_) => return true,
            }
        }
        self.bytes.clear();
        self.written = 0;
        !self.open
    }
}

/// Reads what is there, at most one buffer; closes the pipe at its end.
fn read_once(pipe: &mut Option<OwnedFd>, run: &mut Run, stream: Stream) -> usize {
    let Some(open) = pipe else { return 0 };
    match run.scratch.read(open) {
        Ok(count) if count > 0 => {
            run.log_scratch(stream);
            count
        }
        Err(Errno::INTR | Errno::AGAIN) => 0,
        Ok(_) | Err(_) => {
            *pipe = None;
            0
        }
    }
}

/// Reads what is still in the pipe and closes it, whoever holds its other end.
fn read_rest(
    pipe: &mut Option<OwnedFd>,
    mut lines: Option<&mut FrameReader>,
    run: &mut Run,
    stream: Stream,
) {
    let Some(open) = pipe else { return };
    if fcntl_setfl(open, OFlags::NONBLOCK).is_ok() {
        let mut total = 0;
        while total < DRAIN_MAX {
            match read_once(pipe, run, stream) {
                0 => break,
                count => total += count,
            }
            if let Some(lines) = &mut lines {
                lines.push(run.scratch.bytes());
            }
        }
    }
    *pipe = None;
}

/// The file of the program, found by the `PATH` that the program itself will have.
fn find(
    argv: &[String],
    env: &BTreeMap<String, String>,
    cwd: &str,
) -> Result<std::path::PathBuf, Failure> {
    let Some(name) = argv.first().filter(|name| !name.is_empty()) else {
        return Err(Failure::new(
            Class::SetupFailed,
            "the command names no program",
        ));
    };
    let path = env
        .get("PATH")
        .map_or(process::DEFAULT_PATH, String::as_str);
    process::resolve(name, path, cwd).ok_or_else(|| {
        Failure::new(
            Class::Environment,
            format!("program `{name}` was not found; PATH is {path}"),
        )
    })
}

fn refusal(error: &io::Error, spawn: &Spawn<'_>) -> Failure {
    let Spawn { file, cwd, .. } = spawn;
    match error.kind() {
        io::ErrorKind::ArgumentListTooLong => Failure::new(
            Class::SetupFailed,
            "the arguments are too long for the kernel; hand over the prompt by stdin or file",
        ),
        _ if !std::path::Path::new(cwd).is_dir() => Failure::new(
            Class::Environment,
            format!("working folder {cwd}: no such folder"),
        ),
        _ => Failure::new(
            Class::Environment,
            format!("program `{}` can not be started: {error}", file.display()),
        ),
    }
}

/// Starts a program that is left to itself, in a session of its own.
///
/// # Errors
/// As [`Program::start`].
pub(crate) fn start_apart(run: &mut Run, argv: &[String]) -> Result<(), Failure> {
    let pid = with_env(run, &BTreeMap::new(), |run, env| {
        let cwd = run.start.cwd.as_str();
        let file = find(argv, env, cwd)?;
        let spawn = Spawn {
            file: &file,
            argv,
            env,
            cwd,
            stdin: Stdin::Empty,
        };
        process::spawn_apart(&spawn).map_err(|error| refusal(&error, &spawn))
    })?;
    report_spawned(run, pid, argv);
    Ok(())
}

fn report_spawned(run: &mut Run, pid: Pid, argv: &[String]) {
    run.report(Event::ProcessSpawned(ProcessSpawned {
        pid: pid.as_raw_nonzero().get().unsigned_abs(),
        start_ticks: crate::kernel::start_ticks(pid),
        command: excerpt(&argv.join(" "), EXCERPT_MAX),
    }));
}

/// Lends out the run's environment, with some variables beside it; copied only if there are any.
fn with_env<T>(
    run: &mut Run,
    extra: &BTreeMap<String, String>,
    act: impl FnOnce(&Run, &BTreeMap<String, String>) -> T,
) -> T {
    if extra.is_empty() {
        return act(run, &run.start.env);
    }
    let mut env = run.start.env.clone();
    env.extend(extra.clone());
    act(run, &env)
}
