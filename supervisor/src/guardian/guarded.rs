//! The supervisor's end: who guards this process, and what it is told.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::RecvFlags;
#[cfg(target_os = "linux")]
use rustix::net::sockopt::socket_peercred;
use rustix::process::getppid;
use supervisor_core::identity::Identity;

use crate::guardian::channel::{VARIABLE, Word};
use crate::guardian::signals::HEARD;
use crate::process::identity::Machine;
use crate::process::{inherited, pidfd, replace};

/// What is above this process.
#[derive(Debug)]
pub enum Above {
    /// No guardian: whoever started us did so as an operator does.
    Nobody,
    /// A guardian.
    Guardian(Guarded),
    /// A guardian started us and died before we looked: what it was to do is nobody's wish any more.
    Dead,
}

/// The guardian of this process.
#[derive(Debug)]
pub struct Guarded {
    stream: UnixStream,
    guardian: u32,
}

impl Guarded {
    /// Looks whether a guardian started this process: it left us one end of a socket that it made
    /// itself. A variable that only looks like it (inherited through a shell, made up) does not
    /// count. Call it before anything else opens descriptors or starts threads.
    ///
    /// # Errors
    /// When signals can not be let through again.
    pub fn of_this_process() -> io::Result<Above> {
        let number = std::env::var(VARIABLE).ok();
        let number = number.and_then(|number| number.parse().ok());
        let Some(fd) = number.and_then(|number| replace::take(number).ok()) else {
            return Ok(Above::Nobody);
        };
        let is_over = is_over(&fd);
        let Some(found) = Self::handed_over(fd) else {
            return Ok(if is_over { Above::Dead } else { Above::Nobody });
        };
        inherited::unblock(&HEARD)?;
        Ok(Above::Guardian(found))
    }

    /// Whether the guardian has died.
    pub fn is_over(&self) -> bool {
        is_over(&self.stream)
    }

    /// The guardian at the other end of a socket that this process got; `None` when it has died, or
    /// when our parent did not make the socket.
    pub fn handed_over(fd: OwnedFd) -> Option<Guarded> {
        let maker = maker_of(&fd)?;
        let parent = getppid()?.as_raw_nonzero().get().unsigned_abs();
        (maker == parent).then(|| Guarded {
            stream: fd.into(),
            guardian: maker,
        })
    }

    /// The guardian's pid.
    pub fn pid(&self) -> u32 {
        self.guardian
    }

    /// The guardian's identity; `None` when it has died meanwhile.
    pub fn identity(&self, machine: &Machine) -> Option<Identity> {
        let pidfd = pidfd::open(self.guardian).ok()?;
        let identity = machine.identify(self.guardian, pidfd).ok()?;
        // Whoever is our parent now has the number we asked about.
        let is_parent = getppid()
            .is_some_and(|parent| parent.as_raw_nonzero().get().unsigned_abs() == self.guardian);
        is_parent.then_some(identity)
    }

    /// Tells the guardian. That it has died is seen elsewhere, and changes nothing here.
    pub fn tell(&self, word: &Word) {
        let mut stream = &self.stream;
        if let Err(error) = stream.write_all(word.line().as_bytes()) {
            tracing::debug!(%error, "the guardian does not hear");
        }
    }

    /// Another handle on the same socket, for the event loop to read signals and the end from.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn listen(&self) -> io::Result<UnixStream> {
        let stream = self.stream.try_clone()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// The process that made a socket; of macOS we know who used the other end last, which is the same
/// as long as we alone have this one.
fn maker_of(fd: &OwnedFd) -> Option<u32> {
    #[cfg(target_os = "linux")]
    let maker = socket_peercred(fd)
        .ok()?
        .pid
        .as_raw_nonzero()
        .get()
        .unsigned_abs();
    #[cfg(target_os = "macos")]
    let maker = crate::process::macos::peer(fd.as_fd()).ok()?;
    Some(maker)
}

/// Whether the other end of a socket is closed; nothing is taken from it.
fn is_over(fd: impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let peeked = rustix::net::recv(fd, &mut [0_u8; 1][..], flags);
    matches!(peeked, Ok((_, 0)) | Err(Errno::CONNRESET))
}

impl AsFd for Guarded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_guardian_is_seen_and_its_words_are_left_to_be_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!is_over(&ours));
        theirs.write_all(b"I").unwrap();
        assert!(!is_over(&ours), "it has said something");
        let mut byte = [0];
        std::io::Read::read_exact(&mut &ours, &mut byte).unwrap();
        drop(theirs);
        assert!(is_over(&ours));
        assert!(!is_over(std::fs::File::open("/dev/null").unwrap()));
    }

    #[test]
    fn a_socket_that_our_parent_did_not_make_is_no_guardian() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(Guarded::handed_over(ours.into()).is_none());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Guarded::handed_over(file.into()).is_none());
    }
}
