//! The pipe to the supervisor: lines in, lines out, both bounded.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use protocol::framing::{Frame, FrameReader, LINE_MAX};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;

use crate::scratch::Scratch;

/// Above this many waiting bytes nothing more is taken from the agent: a reader that is slow slows
/// the agent down, by its own full pipe, and does not make this process grow. One line more may
/// come on top.
pub(crate) const OUT_HIGH: usize = 64 * 1024;

/// What a read from the supervisor brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Bytes; there may be frames.
    Bytes,
    /// The end: the supervisor is gone or wants us gone.
    End,
}

/// Both directions of the pipe.
pub(crate) struct Link {
    input: OwnedFd,
    frames: FrameReader,
    /// Absent once it was closed on purpose.
    output: Option<OwnedFd>,
    out: Vec<u8>,
    /// Bytes of `out` already written.
    written: usize,
}

impl Link {
    /// The link over two descriptors.
    ///
    /// # Errors
    /// When the output can not be made non-blocking. A terminal or a file is left as it is: it is
    /// shared with others, and whoever tries this by hand does not mind a short wait.
    pub(crate) fn new(input: OwnedFd, output: OwnedFd) -> io::Result<Self> {
        if FileType::from_raw_mode(fstat(&output)?.st_mode) == FileType::Fifo {
            fcntl_setfl(&output, fcntl_getfl(&output)? | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            input,
            frames: FrameReader::default(),
            output: Some(output),
            out: Vec::new(),
            written: 0,
        })
    }

    /// Where commands come from.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Where reports wait to go, if any do.
    pub(crate) fn blocked_output(&self) -> Option<BorrowedFd<'_>> {
        let output = self.output.as_ref()?;
        (self.pending() > 0).then(|| output.as_fd())
    }

    /// Whether the agent must wait for the reader.
    pub(crate) fn is_full(&self) -> bool {
        self.pending() >= OUT_HIGH
    }

    /// Bytes not yet written.
    pub(crate) fn pending(&self) -> usize {
        self.out.len() - self.written
    }

    /// Reads once; call it when the input is ready, else it waits.
    ///
    /// # Errors
    /// What the kernel says, never an interruption.
    pub(crate) fn read(&mut self, scratch: &mut Scratch) -> io::Result<Heard> {
        match scratch.read(&self.input) {
            Ok(0) => Ok(Heard::End),
            Ok(_) => {
                self.frames.push(scratch.bytes());
                Ok(Heard::Bytes)
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(Heard::Bytes),
            Err(error) => Err(error.into()),
        }
    }

    /// The next frame of what was read.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        self.frames.next_frame()
    }

    /// Queues a line. One over the limit of the protocol is dropped and told to the caller.
    #[must_use]
    pub(crate) fn send(&mut self, line: &[u8]) -> bool {
        if line.len() > LINE_MAX + 1 {
            return false;
        }
        self.send_raw(line);
        true
    }

    /// Queues bytes that need not be a line of the protocol (the scripted agent's misbehaviour).
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        if self.output.is_some() {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Writes as much as goes without waiting.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(output) = &self.output else {
            return Ok(());
        };
        while self.written < self.out.len() {
            match rustix::io::write(output, &self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.out.drain(..self.written);
                    self.written = 0;
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.out.shrink_to(OUT_HIGH);
        self.written = 0;
        Ok(())
    }

    /// Closes our end; what is sent afterwards goes nowhere.
    pub(crate) fn close_output(&mut self) {
        self.output = None;
        self.out.clear();
        self.written = 0;
    }
}
