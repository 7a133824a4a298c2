//! Descriptors that are watched together by one kqueue.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use nix::libc;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened {
    /// The number that the descriptor was added with.
    pub number: u64,
    /// There is something to read, or the end.
    pub readable: bool,
    /// It is broken.
    pub failed: bool,
}

/// Watches a descriptor for what is asked, and no longer for what is not.
///
/// # Errors
/// When the kernel refuses.
pub fn watch(
    queue: impl AsFd,
    fd: impl AsFd,
    number: u64,
    reads: bool,
    writes: bool,
) -> io::Result<()> {
    let (queue, fd) = (queue.as_fd().as_raw_fd(), fd.as_fd().as_raw_fd());
    change(queue, fd, number, libc::EVFILT_READ, reads)?;
    change(queue, fd, number, libc::EVFILT_WRITE, writes)
}

fn change(queue: RawFd, fd: RawFd, number: u64, filter: i16, on: bool) -> io::Result<()> {
    let change = libc::kevent {
        // A descriptor is no negative number.
        ident: usize::try_from(fd).unwrap_or(usize::MAX),
        filter,
        flags: if on { libc::EV_ADD } else { libc::EV_DELETE },
        fflags: 0,
        data: 0,
        udata: ptr::without_provenance_mut(usize::try_from(number).unwrap_or(usize::MAX)),
    };
    // SAFETY: one change is read from a structure of ours; no event is asked for.
    let made =
        unsafe { libc::kevent(queue, &raw const change, 1, ptr::null_mut(), 0, ptr::null()) };
    if made >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match (on, error.raw_os_error()) {
        // What was not watched is not watched.
        (false, Some(libc::ENOENT)) => Ok(()),
        _ => Err(error),
    }
}

/// What is ready now, at most so much of it.
///
/// # Errors
/// When the queue can not be read.
pub fn ready(queue: impl AsFd, max: usize) -> io::Result<Vec<Happened>> {
    let empty = libc::kevent {
        ident: 0,
        filter: 0,
        flags: 0,
        fflags: 0,
        data: 0,
        udata: ptr::null_mut(),
    };
    let mut events = vec![empty; max];
    let at_once = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    let queue = queue.as_fd().as_raw_fd();
    // SAFETY: nothing is changed; at most `room` events are written into as many of ours.
    let count = unsafe {
        libc::kevent(
            queue,
            ptr::null(),
            0,
            events.as_mut_ptr(),
            room,
            &raw const at_once,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    events.truncate(count);
    let happened = events.iter().map(|event| Happened {
        number: event.udata.addr() as u64,
        readable: event.filter == libc::EVFILT_READ,
        failed: event.flags & libc::EV_ERROR != 0,
    });
    Ok(happened.collect())
}

/// The user on the other side of a stream.
///
/// # Errors
/// When it is no such stream.
pub fn peer_user(stream: BorrowedFd<'_>) -> io::Result<u32> {
    let (mut user, mut group) = (u32::MAX, u32::MAX);
    // SAFETY: both are written by the call, which fails for what is no such stream.
    let asked = unsafe { libc::getpeereid(stream.as_raw_fd(), &raw mut user, &raw mut group) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(user)
}
