//! Signals to the guardian, read from a descriptor: which of them the supervisor has not seen.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

#[cfg(target_os = "linux")]
use nix::sys::signal::SigSet;
use nix::sys::signal::Signal;
#[cfg(target_os = "linux")]
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

#[cfg(target_os = "macos")]
use crate::process::macos::SignalQueue;

/// The signals that ask for an end.
pub const HEARD: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// One signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Came {
    /// Which.
    pub signal: Signal,
    /// Whether it is ours to hand on.
    pub hand_on: bool,
    /// The process that sent it; `None` for one that the kernel made (a terminal).
    pub sender: Option<u32>,
}

/// The signals of this process from now on.
#[derive(Debug)]
pub struct Signals {
    #[cfg(target_os = "linux")]
    queue: SignalFd,
    #[cfg(target_os = "macos")]
    queue: SignalQueue,
}

impl Signals {
    /// The signals that ask for an end come here from now on, instead of ending the process.
    ///
    /// # Errors
    /// When the kernel refuses (out of descriptors).
    #[cfg(target_os = "linux")]
    pub fn hear() -> io::Result<Signals> {
        let set: SigSet = HEARD.into_iter().collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let queue = SignalFd::with_flags(&set, flags)?;
        Ok(Signals { queue })
    }

    /// As on Linux.
    ///
    /// # Errors
    /// When the kernel refuses (out of descriptors).
    #[cfg(target_os = "macos")]
    pub fn hear() -> io::Result<Signals> {
        let queue = SignalQueue::hear(&HEARD)?;
        Ok(Signals { queue })
    }

    /// The next signal that came; `None`: no more for now.
    ///
    /// # Errors
    /// When the descriptor can not be read.
    pub fn next(&self) -> io::Result<Option<Came>> {
        #[cfg(target_os = "linux")]
        let came = self.queue.read_signal()?.and_then(|info| came(&info));
        #[cfg(target_os = "macos")]
        let came = self.queue.next()?.and_then(came);
        Ok(came)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

#[cfg(target_os = "linux")]
fn came(info: &siginfo) -> Option<Came> {
    let number = i32::try_from(info.ssi_signo).ok()?;
    let signal = Signal::try_from(number).ok()?;
    Some(Came {
        signal,
        hand_on: is_ours_alone(signal, info.ssi_code),
        sender: (info.ssi_code <= 0).then_some(info.ssi_pid),
    })
}

/// What the kernel sends has no sender here: as if its code were the kernel's.
#[cfg(target_os = "macos")]
fn came((number, sender): (i32, Option<u32>)) -> Option<Came> {
    let signal = Signal::try_from(number).ok()?;
    let code = i32::from(sender.is_none());
    Some(Came {
        signal,
        hand_on: is_ours_alone(signal, code),
        sender,
    })
}

/// What a terminal makes goes to its whole foreground group, so the supervisor has it already. What
/// a process sends (`kill`, `sigqueue`, `tgkill`: codes up to 0) may have come to us alone. That a
/// terminal was closed is told to the leader of its session only, which we may be; it is always
/// handed on, and counts once however often it comes.
fn is_ours_alone(signal: Signal, code: i32) -> bool {
    signal == Signal::SIGHUP || code <= 0
}

#[cfg(test)]
mod tests {
    use nix::libc;

    use super::*;

    #[test]
    fn what_a_process_sends_is_handed_on_and_what_a_terminal_makes_is_not() {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT] {
            for sent in [libc::SI_USER, libc::SI_QUEUE, libc::SI_TKILL] {
                assert!(is_ours_alone(signal, sent), "{signal} {sent}");
            }
            assert!(!is_ours_alone(signal, libc::SI_KERNEL), "{signal}");
        }
    }

    #[test]
    fn a_closed_terminal_is_always_handed_on() {
        assert!(is_ours_alone(Signal::SIGHUP, libc::SI_KERNEL));
        assert!(is_ours_alone(Signal::SIGHUP, libc::SI_USER));
    }
}
