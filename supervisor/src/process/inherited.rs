//! What a process gets from the one that started it besides its arguments: descriptors, and what
//! becomes of signals.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use rustix::io::{FdFlags, fcntl_setfd};

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
    fn what_was_blocked_is_let_through_again_and_nothing_else() {
        let both: SigSet = [Signal::SIGUSR1, Signal::SIGUSR2].into_iter().collect();
        both.thread_block().unwrap();
        unblock(&[Signal::SIGUSR1]).unwrap();
        let now = SigSet::thread_get_mask().unwrap();
        assert!(!now.contains(Signal::SIGUSR1));
        assert!(now.contains(Signal::SIGUSR2));
    }
}
