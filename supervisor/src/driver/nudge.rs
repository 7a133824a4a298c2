//! A pipe that carries nothing but the fact that there is something to look at.
//!
//! The loop and the journal's thread hand work to each other some thousand times a second, and one
//! always sleeps while the other works. The kernel wakes the reader of a pipe on the writer's own
//! processor, because the writer is about to sleep; a futex or an eventfd wakes it on another,
//! which costs an interrupt and the way out of idle: ten times as long on a quiet machine.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::time::Duration;

use tokio::net::unix::pipe;

use crate::process::spawn::set_nonblocking;

/// Nudges that a loop reads in one call. More may be under way: it then finds nothing new once.
const READ_MAX: usize = 64;

/// The end that nudges.
#[derive(Debug)]
pub struct Nudger(PipeWriter);

/// The end that is nudged, of a thread.
#[derive(Debug)]
pub struct ThreadEnd(PipeReader);

/// The end that is nudged, of an event loop.
#[derive(Debug)]
pub struct LoopEnd(pipe::Receiver);

/// A pipe to a thread.
///
/// # Errors
/// When there are no more descriptors.
pub fn to_thread() -> io::Result<(Nudger, ThreadEnd)> {
    let (reader, writer) = io::pipe()?;
    set_nonblocking(&writer)?;
    Ok((Nudger(writer), ThreadEnd(reader)))
}

/// A pipe to the event loop that this is called in.
///
/// # Errors
/// When there are no more descriptors, or no event loop.
pub fn to_loop() -> io::Result<(Nudger, LoopEnd)> {
    let (reader, writer) = io::pipe()?;
    set_nonblocking(&writer)?;
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    Ok((Nudger(writer), LoopEnd(reader)))
}

impl Nudger {
    /// Says that there is something to look at.
    pub fn nudge(&self) {
        // A full pipe is a nudge that was not heard yet, and a reader that is gone is told by the
        // channel that the work itself goes through.
        drop((&self.0).write(&[1]));
    }
}

/// What a thread heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// One nudge; each is heard once.
    Nudge,
    /// Nothing in the time given.
    Nothing,
    /// The other end is gone.
    End,
}

impl ThreadEnd {
    /// Blocks until a nudge came, the other end is gone, or the time is over.
    ///
    /// # Errors
    /// When the kernel refuses to poll or read, which it does for no pipe.
    pub fn wait(&mut self, at_most: Option<Duration>) -> io::Result<Heard> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::io::{Errno, retry_on_intr};
        if let Some(at_most) = at_most {
            let timeout = Timespec::try_from(at_most).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => return Ok(Heard::Nothing),
                Ok(_ready) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut nudge = [0];
        match retry_on_intr(|| rustix::io::read(&self.0, &mut nudge))? {
            0 => Ok(Heard::End),
            _one => Ok(Heard::Nudge),
        }
    }
}

impl LoopEnd {
    /// Returns once a nudge came or the other end is gone. Cancel-safe: a nudge that is not
    /// returned is there for the next call.
    ///
    /// # Errors
    /// When the event loop is ending.
    pub async fn nudged(&self) -> io::Result<()> {
        loop {
            self.0.readable().await?;
            let mut nudges = [0; READ_MAX];
            match self.0.try_read(&mut nudges) {
                Ok(_nudges) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_hears_each_nudge_once_then_the_end() {
        let (nudger, mut end) = to_thread().unwrap();
        let short = Some(Duration::from_millis(1));
        assert_eq!(end.wait(short).unwrap(), Heard::Nothing);
        nudger.nudge();
        nudger.nudge();
        assert_eq!(end.wait(None).unwrap(), Heard::Nudge);
        assert_eq!(end.wait(short).unwrap(), Heard::Nudge);
        assert_eq!(end.wait(short).unwrap(), Heard::Nothing);
        nudger.nudge();
        drop(nudger);
        assert_eq!(end.wait(None).unwrap(), Heard::Nudge, "before the end");
        assert_eq!(end.wait(None).unwrap(), Heard::End);
    }

    #[test]
    fn a_full_pipe_blocks_nobody() {
        let (nudger, mut end) = to_thread().unwrap();
        for _ in 0..200_000 {
            nudger.nudge();
        }
        assert_eq!(end.wait(None).unwrap(), Heard::Nudge);
    }

    #[tokio::test]
    async fn a_loop_hears_nudges_and_the_end() {
        let (nudger, end) = to_loop().unwrap();
        let thread = std::thread::spawn(move || nudger.nudge());
        end.nudged().await.unwrap();
        thread.join().unwrap(); // the pipe's other end is dropped with the thread
        end.nudged().await.unwrap();
    }
}
