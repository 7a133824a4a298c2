//! The items of a `foreach` are listed by a process of its own: `agent-host list REQUEST OUTCOME`.
//!
//! It owns the command as a host owns its run: a session, the tree below it, a time limit and a limit
//! of what is read. Whatever the command leaves behind is killed before the outcome is written, and
//! all of it goes when the process that waits for the items does.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::list::{LIST_FILE_MAX, LIST_OUT_MAX, LIST_SAID_MAX, ListEnd, ListOrder};
use rustix::process::getppid;

use crate::host::EXIT_OK;
use crate::process::{self, DEFAULT_PATH, Ended, Spawn, Spawned, Stdin, resolve};
use crate::run::{complain, read_bounded};
use crate::wait::{Interest, wait};
use crate::{EXIT_SYSTEM, EXIT_USAGE, clock, kernel};

/// The word on the command line.
pub(crate) use protocol::list::LIST_WORD as WORD;

/// Bytes read at a time.
const PIECE: usize = 64 << 10;
/// How often the command is looked at on a kernel that does not tell of its end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The whole program in this role; returns its exit status. 0: the outcome is written, whatever it
/// says.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let (Some(request), Some(outcome), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        complain(0, "usage: agent-host list REQUEST OUTCOME");
        return EXIT_USAGE;
    };
    if let Err(error) = process::begin() {
        complain(0, &format!("can not begin: {error}"));
        return EXIT_SYSTEM;
    }
    let listed = read(Path::new(&request)).and_then(|order| match carry_out(&order) {
        Ok(end) => write(Path::new(&outcome), &end),
        Err(error) => Err(format!("can not watch the command: {error}")),
    });
    match listed {
        Ok(()) => EXIT_OK,
        Err(why) => {
            complain(0, &why);
            EXIT_SYSTEM
        }
    }
}

fn read(request: &Path) -> Result<ListOrder, String> {
    let text = read_bounded(request, LIST_FILE_MAX).map_err(|error| error.to_string());
    let order = text.and_then(|text| serde_json::from_str(&text).map_err(|it| it.to_string()));
    order.map_err(|why| format!("{}: {why}", request.display()))
}

fn carry_out(order: &ListOrder) -> io::Result<ListEnd> {
    let waiting = getppid().filter(|pid| pid.as_raw_nonzero().get().unsigned_abs() == order.waits);
    let Some(waiting) = waiting else {
        return Err(io::Error::other("nobody waits for the items any more"));
    };
    let waiting = kernel::watch_end(waiting);
    let spawned = match start(order) {
        Ok(spawned) => spawned,
        Err(why) => return Ok(ListEnd::NotStarted { why }),
    };
    let mut taken = Taken::default();
    let deadline = clock::after(clock::now(), order.timeout_ms);
    let stopped = follow(&spawned, waiting.as_ref(), deadline, &mut taken);
    // Also after a good end: what it left running would work on in the folder, and hold its output.
    drop(process::kill_family());
    let stopped = stopped?;
    if let (Stopped::Ended(_), Some(out)) = (&stopped, &spawned.stdout) {
        while is_readable(out)? && taken.print(out)? {}
    }
    if let Some(err) = &spawned.stderr {
        while is_readable(err)? && taken.say(err)? {}
    }
    Ok(taken.told(stopped))
}

fn start(order: &ListOrder) -> Result<Spawned, String> {
    let program = order.argv.first().map_or("", String::as_str);
    let path = order.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let Some(file) = resolve(program, path, &order.folder) else {
        return Err(format!(
            "`{program}` is not in the folders of PATH ({path})"
        ));
    };
    let what = Spawn {
        file: &file,
        argv: &order.argv,
        env: &order.env,
        cwd: &order.folder,
        stdin: Stdin::Empty,
    };
    process::spawn(&what).map_err(|error| format!("{}: {error}", file.display()))
}

/// Why the command is no longer followed.
enum Stopped {
    /// It has ended.
    Ended(Ended),
    /// Its time is over.
    Late,
    /// It prints too much.
    TooMuch,
}

/// Takes in what the command prints until it ends, or has to.
///
/// # Errors
/// When it can not be watched, or whoever waits for the items is gone.
fn follow(
    spawned: &Spawned,
    waiting: Option<&OwnedFd>,
    deadline: Instant,
    taken: &mut Taken,
) -> io::Result<Stopped> {
    let (mut out, mut err) = (spawned.stdout.as_ref(), spawned.stderr.as_ref());
    loop {
        if let Some(ended) = process::reap(spawned.pid)? {
            return Ok(Stopped::Ended(ended));
        }
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(Stopped::Late);
        }
        let look = spawned.exit.is_none().then_some(LOOK_EVERY);
        let [_, prints, says, gone] = wait(
            [
                spawned.exit.as_ref().map(|fd| (fd.as_fd(), Interest::Read)),
                out.map(|fd| (fd.as_fd(), Interest::Read)),
                err.map(|fd| (fd.as_fd(), Interest::Read)),
                waiting.map(|fd| (fd.as_fd(), Interest::Read)),
            ],
            Some(look.map_or(left, |look| look.min(left))),
        )?;
        if gone.usable {
            return Err(io::Error::other("nobody waits for the items any more"));
        }
        if let Some(fd) = out.filter(|_| prints.usable)
            && !taken.print(fd)?
        {
            out = None;
        }
        if let Some(fd) = err.filter(|_| says.usable)
            && !taken.say(fd)?
        {
            err = None;
        }
        if taken.out.len() > LIST_OUT_MAX {
            return Ok(Stopped::TooMuch);
        }
    }
}

fn is_readable(fd: &OwnedFd) -> io::Result<bool> {
    let [ready] = wait([Some((fd.as_fd(), Interest::Read))], Some(Duration::ZERO))?;
    Ok(ready.usable)
}

/// What came from the command.
#[derive(Default)]
struct Taken {
    /// All of its standard output, a piece beyond the limit at most.
    out: Vec<u8>,
    /// The end of its standard error.
    said: Vec<u8>,
}

impl Taken {
    /// Reads a piece of its standard output; whether there may be more.
    fn print(&mut self, fd: &OwnedFd) -> io::Result<bool> {
        let more = read_piece(fd, &mut self.out)?;
        Ok(more && self.out.len() <= LIST_OUT_MAX)
    }

    /// Reads a piece of its standard error; whether there may be more.
    fn say(&mut self, fd: &OwnedFd) -> io::Result<bool> {
        let more = read_piece(fd, &mut self.said)?;
        let beyond = self.said.len().saturating_sub(LIST_SAID_MAX);
        self.said.drain(..beyond);
        Ok(more)
    }

    fn told(self, stopped: Stopped) -> ListEnd {
        let said = String::from_utf8_lossy(&self.said).into_owned();
        match stopped {
            Stopped::Late => ListEnd::TimedOut { said },
            Stopped::TooMuch => ListEnd::TooMuch {},
            Stopped::Ended(Ended::Signal(signal)) => ListEnd::Signalled { signal, said },
            Stopped::Ended(Ended::Exit(0)) if self.out.len() > LIST_OUT_MAX => ListEnd::TooMuch {},
            Stopped::Ended(Ended::Exit(0)) => match String::from_utf8(self.out) {
                Ok(text) => ListEnd::Printed { text },
                Err(error) => ListEnd::NotText {
                    offset: error.utf8_error().valid_up_to(),
                },
            },
            Stopped::Ended(Ended::Exit(code)) => ListEnd::Exited { code, said },
        }
    }
}

/// Appends what can be read now, at most [`PIECE`] bytes; `false` at the end.
fn read_piece(fd: &OwnedFd, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = vec![0; PIECE];
    let count = loop {
        match rustix::io::read(fd, &mut piece) {
            Ok(count) => break count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    into.extend_from_slice(&piece[..count]);
    Ok(count > 0)
}

/// Writes the outcome aside and puts it in place, so that a half one is never read.
fn write(path: &Path, end: &ListEnd) -> Result<(), String> {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let bytes = serde_json::to_vec(end).map_err(|error| error.to_string())?;
    fs::write(&aside, bytes)
        .and_then(|()| fs::rename(&aside, path))
        .map_err(|error| format!("can not write {}: {error}", path.display()))
}
