//! Descriptors that are watched together, as one descriptor: an epoll instance.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::SendFlags;
use rustix::net::sockopt::socket_peercred;

/// A send to a stream whose other end is closed is an error and no signal.
pub(crate) const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Happened {
    /// The number that the descriptor was added with.
    pub(crate) number: u64,
    /// There is something to read, or the end.
    pub(crate) readable: bool,
    /// It is broken.
    pub(crate) failed: bool,
}

/// The watch; a descriptor that is closed leaves it.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// One without descriptors.
    ///
    /// # Errors
    /// When descriptors are out.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Adds a descriptor, to be read.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn add(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        Ok(epoll::add(
            &self.0,
            fd,
            EventData::new_u64(number),
            EventFlags::IN,
        )?)
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    /// When it is not watched.
    pub(crate) fn change(
        &self,
        fd: impl AsFd,
        number: u64,
        reads: bool,
        writes: bool,
    ) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, reads);
        flags.set(EventFlags::OUT, writes);
        Ok(epoll::modify(
            &self.0,
            fd,
            EventData::new_u64(number),
            flags,
        )?)
    }

    /// What is ready now, at most so much of it.
    ///
    /// # Errors
    /// When it was interrupted.
    pub(crate) fn ready(&self, max: usize) -> io::Result<Vec<Happened>> {
        let mut events = Vec::with_capacity(max);
        let room = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&self.0, room, Some(&Timespec::default()))?;
        let happened = events.iter().map(|event: &epoll::Event| {
            let flags = event.flags;
            Happened {
                number: event.data.u64(),
                readable: flags.intersects(EventFlags::IN | EventFlags::HUP),
                failed: flags.contains(EventFlags::ERR),
            }
        });
        Ok(happened.collect())
    }

    /// Readable when something is ready.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The user on the other side of a stream.
///
/// # Errors
/// When it is no such stream.
pub(crate) fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket_peercred(stream)?.uid.as_raw())
}
