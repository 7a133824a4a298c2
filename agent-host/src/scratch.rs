//! The one buffer that all reads go through.

use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;
use rustix::io::Result;

/// Most bytes of one read: what a pipe holds by default.
const SIZE: usize = 64 * 1024;

/// The buffer. Its memory is never cleared, so that a host that only ever reads small lines uses a
/// page of it: clearing it would be a fifth of the page faults of a trivial run.
pub(crate) struct Scratch(Vec<u8>);

impl Scratch {
    /// An empty buffer.
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(SIZE))
    }

    /// Reads once and returns how many bytes came; 0 at the end.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn read(&mut self, from: impl AsFd) -> Result<usize> {
        self.0.clear();
        rustix::io::read(from, spare_capacity(&mut self.0))
    }

    /// What the last read brought.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
