//! Descriptors that are watched together, as one descriptor: a kqueue.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::SendFlags;

/// The host ignores the signal of a broken pipe, and this system knows no flag against it.
pub(crate) const SEND_FLAGS: SendFlags = SendFlags::empty();

pub(crate) use process_macos::Happened;

/// The watch; a descriptor that is closed leaves it.
pub(crate) struct Watch(OwnedFd);

impl Watch {
    /// One without descriptors.
    ///
    /// # Errors
    /// When descriptors are out.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(process_macos::timer()?))
    }

    /// Adds a descriptor, to be read.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn add(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        self.change(fd, number, true, false)
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn change(
        &self,
        fd: impl AsFd,
        number: u64,
        reads: bool,
        writes: bool,
    ) -> io::Result<()> {
        process_macos::watch(&self.0, fd, number, reads, writes)
    }

    /// What is ready now, at most so much of it.
    ///
    /// # Errors
    /// When it was interrupted.
    pub(crate) fn ready(&self, max: usize) -> io::Result<Vec<Happened>> {
        process_macos::ready(&self.0, max)
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
    process_macos::peer_user(stream.as_fd())
}
