//! A process held by a descriptor: it can be waited for and signalled without its number ever being
//! read as another process. macOS has no such descriptor; what stands in for it, and how far, is told
//! in `macos`.

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::BorrowedFd;
use std::os::fd::{AsFd, OwnedFd};

#[cfg(target_os = "linux")]
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use rustix::process::{Signal, WaitIdStatus};
use supervisor_core::identity::Exit;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[cfg(target_os = "macos")]
pub use crate::process::macos::{collect, open, reap, signal};

/// Pins the process that has this number now.
///
/// # Errors
/// `NotFound` when there is none; others when the kernel is too old (before Linux 5.3) or out of
/// descriptors.
#[cfg(target_os = "linux")]
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    pidfd_open(pid, PidfdFlags::empty()).map_err(|error| match error {
        rustix::io::Errno::SRCH => io::ErrorKind::NotFound.into(),
        other => other.into(),
    })
}

/// Pins a child that was just started, for good: it is waited for through the pin alone.
///
/// # Errors
/// As [`open`]; the child is then killed and collected.
pub fn pin(mut child: std::process::Child) -> io::Result<OwnedFd> {
    open(child.id()).or_else(|error| {
        child.kill()?;
        child.wait()?;
        Err(error)
    })
}

/// Kills the pinned process; that it has ended already is no error.
///
/// # Errors
/// When we may not.
pub fn kill(pidfd: impl AsFd) -> io::Result<()> {
    signal(pidfd, Signal::KILL)
}

/// Sends a signal to the pinned process; that it has ended already is no error.
///
/// # Errors
/// When we may not.
#[cfg(target_os = "linux")]
pub fn signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Collects the exit of a child of ours; `None` while it lives.
///
/// # Errors
/// When it is not a child of ours, or was collected before.
#[cfg(target_os = "linux")]
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    Ok(waitid(WaitId::PidFd(pidfd), options)?.map(exit_of))
}

/// Waits for the end of a child of ours that was killed, and collects its exit.
///
/// # Errors
/// As [`reap`].
#[cfg(target_os = "linux")]
pub fn collect(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED)?;
    Ok(())
}

pub(super) fn exit_of(status: WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unseen,
    }
}

/// Whether the pinned process has ended (also if nobody has collected its exit yet).
///
/// # Errors
/// When the kernel refuses to poll, which it does for no pidfd.
pub fn has_ended(pidfd: impl AsFd) -> io::Result<bool> {
    wait_ended(pidfd, std::time::Duration::ZERO)
}

/// Blocks until the pinned process has ended, at most this long; says whether it has.
///
/// # Errors
/// As [`has_ended`].
pub fn wait_ended(pidfd: impl AsFd, at_most: std::time::Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec {
        tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at_most.subsec_nanos()),
    };
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

/// A descriptor that the event loop watches for reading: readable once a pinned process has ended,
/// or once a timer has fired.
///
/// # Errors
/// When it can not be registered (no event loop, out of memory).
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor that `AsRawFd` gives must stay the same and open for as long as it is
    // registered. An `OwnedFd` always gives its one descriptor, `AsyncFd` owns it and hands out no
    // `&mut` that this code uses, and it deregisters before it drops it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(|refused| refused.into_parts().1)
}
