//! What a process gets from the one that started it besides its arguments: descriptors, and what
//! becomes of signals.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use rustix::io::{FdFlags, fcntl_setfd};

/// Numbers below are stdin, stdout and stderr, which belong to the language's runtime.
const FIRST_INHERITED: RawFd = 3;

/// Takes over the descriptor that our parent left open for us under this number, and keeps it from
/// programs that we start. Works once in the life of a process; `None` ever after, and when there is
/// no such descriptor.
pub fn take(number: RawFd) -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if number < FIRST_INHERITED || TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the number is only handed to a system call that fails on one that is not open, and the
    // borrow ends with that call.
    let open = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
    open.ok()?;
    // SAFETY: it is open, as the call above proves. It was opened by the program before us (the
    // callers ask before they open anything, and only for a number that a parent announced), so
    // nothing in this one owns it; `TAKEN` keeps a second owner away.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets a child keep this descriptor through the start of its program.
///
/// # Errors
/// When the kernel refuses, which it does for no open descriptor.
pub fn bequeath(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fcntl_setfd(fd, FdFlags::empty())?)
}

/// Lets these signals through again: a parent that reads signals from a descriptor has them
/// blocked, and a program inherits that.
///
/// # Errors
/// When the kernel refuses, which it does for no set of signals.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    Ok(signals
        .iter()
        .copied()
        .collect::<SigSet>()
        .thread_unblock()?)
}

/// Ends of children wait to be collected, also when our parent ignored those of its own.
///
/// # Errors
/// When the kernel refuses, which it does not for this signal.
pub fn keep_exits() -> io::Result<()> {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_streams_and_what_is_not_open_are_never_taken() {
        assert!(take(1).is_none());
        assert!(take(-1).is_none());
        assert!(take(1_000_000).is_none(), "nothing has this number");
    }
}
