//! Starts the supervisor proper; the guardian starts nothing else.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use crate::guardian::channel::{Line, VARIABLE};
use crate::process::{inherited, pidfd};

/// A supervisor that was started.
#[derive(Debug)]
pub struct Supervisor {
    /// Its number, for people.
    pub pid: u32,
    /// Its pin; its exit is collected through it.
    pub pidfd: OwnedFd,
    /// What it says, and is told.
    pub line: Line,
}

/// Starts the program with these words and our streams, group and terminal.
///
/// The guardian has one thread, so nothing else can be started in between and keep the socket.
///
/// # Errors
/// When the program can not be started.
pub fn start(program: &Path, words: &[OsString]) -> io::Result<Supervisor> {
    let (line, theirs) = Line::new()?;
    inherited::bequeath(theirs.as_fd())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "not a host but ourselves: the supervisor that is to own the hosts"
    )]
    let mut command = Command::new(program);
    let child = command
        .args(words)
        .env(VARIABLE, theirs.as_raw_fd().to_string())
        .spawn()?;
    drop(theirs);
    let pid = child.id();
    let pidfd = pidfd::pin(child)?;
    Ok(Supervisor { pid, pidfd, line })
}
