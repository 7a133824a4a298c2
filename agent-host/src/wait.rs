//! Waiting for whatever comes first: one `poll` over at most seven descriptors and one deadline.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// What is awaited of one descriptor.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    /// Bytes, or the end of them.
    Read,
    /// Room for bytes.
    Write,
    /// Nothing but the other side's end.
    End,
}

/// What came of one descriptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// A read or write will not block.
    pub(crate) usable: bool,
    /// The other side is gone.
    pub(crate) ended: bool,
}

/// Waits until one of `watched` is ready or `timeout` has passed; `None` waits without end.
///
/// # Errors
/// What `poll` says, never an interruption (that counts as nothing ready).
pub(crate) fn wait<const N: usize>(
    watched: [Option<(BorrowedFd<'_>, Interest)>; N],
    timeout: Option<Duration>,
) -> io::Result<[Ready; N]> {
    let mut fds = Vec::with_capacity(N);
    for (fd, interest) in watched.into_iter().flatten() {
        let flags = match interest {
            Interest::Read => PollFlags::IN,
            Interest::Write => PollFlags::OUT,
            Interest::End => PollFlags::empty(),
        };
        fds.push(PollFd::from_borrowed_fd(fd, flags));
    }
    let timeout = timeout.map(|length| Timespec {
        tv_sec: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: length.subsec_nanos().into(),
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return Ok([Ready::default(); N]),
        Err(error) => return Err(error.into()),
    }
    let mut answers = fds.iter().map(PollFd::revents);
    Ok(watched.map(|slot| {
        let flags = slot
            .and_then(|_| answers.next())
            .unwrap_or(PollFlags::empty());
        let ended = flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        Ready {
            usable: ended || flags.intersects(PollFlags::IN | PollFlags::OUT),
            ended,
        }
    }))
}
