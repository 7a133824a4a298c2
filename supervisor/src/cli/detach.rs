//! `run --detach`: starts this program again in the background, and comes back once it works.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};

use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::cli::{Io, act, pace};
use crate::control::wire::Want;

/// Tells a program that it is the one in the background.
const VARIABLE: &str = "SUPERVISOR_DETACHED";
/// Looks until a supervisor counts as not starting: 60 s, longer than the longest recovery.
const LOOKS_MAX: u32 = 300;
/// Most bytes of the log that are told when it does not start.
const TOLD_MAX: u64 = 4096;

/// Whether this process was started by [`start`].
pub fn is_background() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Leaves the session of whoever started us, so that closing a terminal does not reach us.
///
/// # Errors
/// When the system refuses (10).
pub fn leave_session() -> Result<(), CliError> {
    match rustix::process::setsid() {
        // Already the leader of a session (started by a service manager).
        Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
        Err(error) => {
            let message = format!("can not leave the session: {error}");
            Err(CliError::new(Code::Environment, message))
        }
    }
}

/// Starts `supervisor` with these arguments in the background for this batch, and waits until it
/// holds the batch and answers.
///
/// # Errors
/// What it ended with, and the end of its log; not in time (11).
pub fn start(batch: &Found, args: &[OsString], io: &mut Io<'_>) -> Result<Code, CliError> {
    let failed = |what: &str, error: &io::Error| {
        CliError::new(Code::Environment, format!("can not {what}: {error}"))
    };
    let mut log = open_log(batch).map_err(|error| failed("open supervisor.log", &error))?;
    let before = log.seek(SeekFrom::End(0)).unwrap_or(0);
    let mut child = spawn(batch, args, &log).map_err(|error| failed("start again", &error))?;
    for _ in 0..LOOKS_MAX {
        if answers(batch) {
            let holder = batch.holder()?;
            return tell(batch, holder.map_or(child.id(), |holder| holder.pid), io);
        }
        if let Some(ended) = child
            .try_wait()
            .map_err(|error| failed("watch it", &error))?
        {
            let code = ended.code().and_then(|code| u8::try_from(code).ok());
            return over(batch, code, &mut log, before, io);
        }
        pace::before_next_look();
    }
    Err(CliError::new(
        Code::TimedOut,
        format!("the supervisor (pid {}) is slow", child.id()),
    )
    .hint(format!("see {}", batch.dir.supervisor_log().display())))
}

fn open_log(batch: &Found) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o600);
    options.custom_flags(nix::libc::O_NOFOLLOW);
    options.open(batch.dir.supervisor_log())
}

#[expect(
    clippy::disallowed_methods,
    reason = "not a host but ourselves: the supervisor that is to own the hosts"
)]
fn spawn(batch: &Found, args: &[OsString], log: &File) -> io::Result<Child> {
    let batch_file = File::open(batch.dir.batch_file())?;
    Command::new(std::env::current_exe()?)
        .args(args)
        .env(VARIABLE, batch.id.as_str())
        // A batch from stdin is read from where it is kept.
        .stdin(Stdio::from(batch_file))
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log.try_clone()?))
        .spawn()
}

fn answers(batch: &Found) -> bool {
    match act::ask(batch, &Want::Activity) {
        Ok(Some(mut replies)) => replies.next(Some(pace::LOOK_AGAIN)).is_ok(),
        Ok(None) | Err(_) => false,
    }
}

fn tell(batch: &Found, pid: u32, io: &mut Io<'_>) -> Result<Code, CliError> {
    let id = &batch.id;
    io.line(format_args!("{id} runs in the background (pid {pid})"))?;
    io.line(format_args!("  supervisor status {id}"))?;
    io.line(format_args!("  supervisor wait {id}"))?;
    io.line(format_args!(
        "  log {}",
        batch.dir.supervisor_log().display()
    ))?;
    Ok(Code::Ok)
}

/// It has ended already: a small batch, or a start that failed.
fn over(
    batch: &Found,
    code: Option<u8>,
    log: &mut File,
    before: u64,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let code = code.and_then(Code::from_number).unwrap_or(Code::Internal);
    if matches!(code, Code::Ok | Code::Failed | Code::NeedsPerson) {
        io.line(format_args!(
            "{} has run and ended; `supervisor status {0}`",
            batch.id
        ))?;
        return Ok(Code::Ok);
    }
    let mut told = String::new();
    let read = log
        .seek(SeekFrom::Start(before))
        .and_then(|_| log.take(TOLD_MAX).read_to_string(&mut told));
    let error = CliError::new(code, "the supervisor in the background did not start");
    Err(match read {
        Ok(_) => error.hint(told.trim_end().to_owned()),
        Err(unread) => error.hint(format!("its log can not be read: {unread}")),
    })
}
