//! Timers of the kernel as descriptors: they count also while the machine is suspended.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use nix::libc;
use rustix::event::kqueue::{Event, kevent, kqueue};

/// What a timer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Microseconds from now on, suspended time included.
    FromNow,
    /// Microseconds since the Unix epoch: a date.
    Date,
}

/// A timer that is not set: readable once it has fired.
///
/// # Errors
/// When descriptors are out.
pub fn timer() -> io::Result<OwnedFd> {
    let queue = kqueue()?;
    rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
    Ok(queue)
}

/// Lets a timer fire once at that moment, and no longer at the one before.
///
/// # Errors
/// When the kernel refuses, which it does for no point in time.
pub fn set_timer(timer: impl AsFd, count: Count, micros: u64) -> io::Result<()> {
    let kind = match count {
        Count::FromNow => libc::NOTE_MACH_CONTINUOUS_TIME,
        Count::Date => libc::NOTE_ABSOLUTE,
    };
    let change = libc::kevent {
        ident: 0,
        filter: libc::EVFILT_TIMER,
        flags: libc::EV_ADD | libc::EV_ONESHOT,
        fflags: libc::NOTE_USECONDS | kind,
        data: isize::try_from(micros).unwrap_or(isize::MAX),
        udata: ptr::null_mut(),
    };
    let queue = timer.as_fd().as_raw_fd();
    // SAFETY: one change is read from a structure of ours; no event is asked for.
    let made =
        unsafe { libc::kevent(queue, &raw const change, 1, ptr::null_mut(), 0, ptr::null()) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes what has fired, so that the timer is no longer readable; nothing may have.
///
/// # Errors
/// When the queue can not be read.
pub fn take_fired(timer: impl AsFd) -> io::Result<()> {
    let mut taken = Vec::<Event>::with_capacity(1);
    let room = rustix::buffer::spare_capacity(&mut taken);
    // SAFETY: nothing is changed, so no descriptor is named.
    unsafe { kevent(&timer, &[], room, Some(Duration::ZERO)) }?;
    Ok(())
}
