//! A program of ours that a command runs to its end: git work at the operator's order, outside of any
//! batch. It has a session of its own, so nothing in it reads the operator's terminal, and it goes
//! with everything below it when the command is asked to end or it takes too long.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
#[cfg(target_os = "linux")]
use rustix::process::Signal;
use supervisor_core::identity::Exit;

use crate::process::{orphans, pidfd, rest};

/// How long what is asked to end has for it (2 s: `git` removes its locks, which is done at once).
const GRACE_LOOKS: u32 = 200;
const GRACE_LOOK: Duration = Duration::from_millis(10);

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub args: &'a [&'a OsStr],
    /// Its working folder.
    pub folder: &'a Path,
    /// Longest time that it may take.
    pub at_most: Duration,
    /// Whether the kernel kills it when this process is killed, where it can (Linux); else it comes to
    /// its end by itself. Its thread that starts it must be one that lives as long as the process.
    pub dies_with_us: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It ended by itself. What its programs left running on purpose (a keeper of keys) goes on.
    Ended(Exit),
    /// `stop` became readable: nothing of it is left.
    Stopped,
    /// It took too long: nothing of it is left.
    TimedOut,
}

/// Runs it; its stderr is ours, and it reads and prints nothing. This process must have no other
/// children. A wait that a signal interrupts begins anew.
///
/// # Errors
/// When it can not be started or watched; nothing of it is left then.
pub fn run(order: &Order<'_>, stop: impl AsFd) -> io::Result<Came> {
    orphans::adopt()?;
    let (pid, pidfd) = start(order)?;
    let came = wait(&pidfd, stop, order.at_most);
    if let Ok(Came::Ended(_)) = came {
        return came;
    }
    end(pid)?;
    came
}

#[expect(
    clippy::disallowed_methods,
    reason = "not an agent and no part of a batch: this program's own work for a command"
)]
fn start(order: &Order<'_>) -> io::Result<(u32, OwnedFd)> {
    let mut command = Command::new(order.program);
    command
        .args(order.args)
        .current_dir(order.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let (tied, us) = (order.dies_with_us, rustix::process::getpid());
    // SAFETY: between fork and exec only these system calls are made, which are async-signal-safe and
    // allocate nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if tied {
                tie(us)?;
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = child.id();
    Ok((pid, pidfd::pin(child)?))
}

/// The kernel kills the caller when the process that started it is gone.
#[cfg(target_os = "linux")]
fn tie(starter: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have gone before that was said.
    match rustix::process::getppid() == Some(starter) {
        true => Ok(()),
        false => Err(rustix::io::Errno::SRCH.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn tie(_: Pid) -> io::Result<()> {
    Ok(())
}

fn wait(pidfd: &OwnedFd, stop: impl AsFd, at_most: Duration) -> io::Result<Came> {
    let timeout = Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    loop {
        let mut polled = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(&stop, PollFlags::IN),
        ];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Ok(Came::TimedOut),
            Ok(_) if !polled[0].revents().is_empty() => {
                let exit = pidfd::reap(pidfd.as_fd())?;
                return Ok(Came::Ended(exit.unwrap_or(Exit::Unseen)));
            }
            Ok(_) => return Ok(Came::Stopped),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks its group to end, so that locks are taken away, and kills what is left of its whole tree.
fn end(pid: u32) -> io::Result<()> {
    orphans::ask_group_to_end(pid);
    for _ in 0..GRACE_LOOKS {
        orphans::collect_ended(|_| false);
        if orphans::children()?.is_empty() {
            break;
        }
        rest(GRACE_LOOK);
    }
    orphans::sweep(orphans::CLEAN_PASSES, |_| false, |_| ())?;
    Ok(())
}
