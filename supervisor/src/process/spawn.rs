//! Starts hosts; the supervisor starts nothing else.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use protocol::ids::BatchId;
use supervisor_core::identity::Identity;

use crate::process::identity::Machine;
use crate::process::pidfd;
use crate::process::scan::{TOKEN_VARIABLE, token_text};

/// The variable that names the batch of a host, for people who look at a process.
pub const BATCH_VARIABLE: &str = "SUPERVISOR_BATCH";
/// What a host inherits of our environment. It needs no more: the environment of the agent's
/// program travels in `start`.
const INHERITED: &[&str] = &["PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL"];

/// What every host of a batch is started with.
#[derive(Debug)]
pub struct Launcher {
    command: Command,
    machine: Machine,
}

/// A host that was just started and waits behind the stdin gate.
#[derive(Debug)]
pub struct Spawned {
    /// What it is known by.
    pub identity: Identity,
    /// Its pin; its exit is collected through it.
    pub pidfd: OwnedFd,
    /// Commands go in here; its end is the host's order to end.
    pub stdin: OwnedFd,
    /// Reports come out here.
    pub stdout: OwnedFd,
}

impl Launcher {
    /// Prepares the start of hosts: the program, its working folder, its environment.
    pub fn new(machine: Machine, program: &Path, cwd: &Path, batch: &BatchId) -> Launcher {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that starts processes"
        )]
        let mut command = Command::new(program);
        command.current_dir(cwd).env_clear();
        command.envs(inherited(|name| std::env::var_os(name)));
        command.env(BATCH_VARIABLE, batch.as_str());
        Launcher { command, machine }
    }

    /// Starts one host with this spawn token; its stderr goes to `stderr`.
    ///
    /// There is no hook between fork and exec, so that the standard library takes `posix_spawn`,
    /// whose cost does not grow with the size of this process.
    ///
    /// # Errors
    /// When the program can not be started, or its process can not be identified (it is then
    /// killed and collected: no host lives without an identity).
    pub fn spawn(&mut self, token: u128, stderr: File) -> io::Result<Spawned> {
        let mut child = self
            .command
            .env(TOKEN_VARIABLE, token_text(token))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let pid = child.id();
        let named = pidfd::open(pid).and_then(|pidfd| {
            let identity = self.machine.identify(pid, &pidfd)?;
            Ok((pidfd, identity))
        });
        let pipes = child.stdin.take().zip(child.stdout.take());
        match (named, pipes) {
            (Ok((pidfd, identity)), Some((stdin, stdout))) => Ok(Spawned {
                identity,
                pidfd,
                stdin: stdin.into(),
                stdout: stdout.into(),
            }),
            (named, _) => {
                child.kill()?;
                child.wait()?;
                Err(named
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
            }
        }
    }
}

fn inherited(read: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, OsString)> {
    INHERITED
        .iter()
        .filter_map(|&name| Some((name, read(name)?)))
        .collect()
}

/// Sets a pipe end of ours to not block.
///
/// # Errors
/// When the kernel refuses, which it does for no pipe.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}
