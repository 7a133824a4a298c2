//! What guardian and supervisor tell each other: short lines over one socket, which both see end
//! when the other dies.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use protocol::ids::BatchId;

/// The variable that tells a supervisor the number of its end.
pub const VARIABLE: &str = "SUPERVISOR_GUARDIAN";
/// Longest line: a word and the id of a batch.
const LINE_MAX: usize = 256;

/// What a supervisor tells its guardian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It hears signals through the channel from now on; before, real ones end it.
    Listening,
    /// This batch has begun: if I die, go on with it.
    Begun(BatchId),
    /// I was told to end: if I die, leave it.
    Ending,
}

impl Word {
    /// The line that says it.
    pub fn line(&self) -> String {
        match self {
            Self::Listening => "listening\n".to_owned(),
            Self::Begun(batch) => format!("begun {batch}\n"),
            Self::Ending => "ending\n".to_owned(),
        }
    }

    /// What a line says; `None` when it says nothing that is known.
    fn read(line: &[u8]) -> Option<Word> {
        match std::str::from_utf8(line).ok()? {
            "listening" => Some(Self::Listening),
            "ending" => Some(Self::Ending),
            other => Some(Self::Begun(other.strip_prefix("begun ")?.parse().ok()?)),
        }
    }
}

/// Hands on SIGINT.
pub const INTERRUPT: u8 = b'I';
/// Hands on SIGTERM.
pub const TERMINATE: u8 = b'T';
/// Hands on SIGHUP.
pub const HANGUP: u8 = b'H';

/// The byte that hands a signal on; `None` for one that is not handed on this way.
pub fn byte_of(signal: Signal) -> Option<u8> {
    match signal {
        Signal::SIGINT => Some(INTERRUPT),
        Signal::SIGTERM => Some(TERMINATE),
        Signal::SIGHUP => Some(HANGUP),
        _other => None,
    }
}

/// The guardian's end.
#[derive(Debug)]
pub struct Line {
    stream: UnixStream,
    /// The beginning of a line that is not whole; at most [`LINE_MAX`].
    rest: Vec<u8>,
}

impl Line {
    /// A new pair: our end, and the one for the supervisor, still closed to programs.
    ///
    /// # Errors
    /// When the kernel refuses (out of descriptors).
    pub fn new() -> io::Result<(Line, UnixStream)> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let rest = Vec::new();
        Ok((Line { stream, rest }, theirs))
    }

    /// Hands `words` everything that was said so far; `false` once the other end is closed and all
    /// that was said is read.
    ///
    /// # Errors
    /// When the socket can not be read.
    pub fn read(&mut self, mut words: impl FnMut(Word)) -> io::Result<bool> {
        let mut bytes = [0; LINE_MAX];
        loop {
            let count = match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(true),
                    io::ErrorKind::Interrupted => continue,
                    // It died with unread signals of ours in its end.
                    io::ErrorKind::ConnectionReset => return Ok(false),
                    _other => return Err(error),
                },
            };
            for &byte in &bytes[..count] {
                if byte == b'\n' {
                    Word::read(&self.rest).map(&mut words);
                    self.rest.clear();
                } else if self.rest.len() < LINE_MAX {
                    self.rest.push(byte);
                }
            }
        }
    }

    /// Hands a signal on. A supervisor that does not read leaves it unsaid: a full socket holds
    /// thousands of requests to end, and one more says nothing new.
    ///
    /// # Errors
    /// When the supervisor has closed its end.
    pub fn hand_on(&mut self, byte: u8) -> io::Result<()> {
        match self.stream.write_all(&[byte]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> BatchId {
        "nightly-3f".parse().unwrap()
    }

    #[test]
    fn words_arrive_in_order_however_the_bytes_are_cut() {
        let (mut line, mut theirs) = Line::new().unwrap();
        let all = [Word::Listening, Word::Begun(batch()), Word::Ending];
        let text: String = all.iter().map(Word::line).collect();
        let mut heard = Vec::new();
        for byte in text.bytes() {
            theirs.write_all(&[byte]).unwrap();
            assert!(line.read(|word| heard.push(word)).unwrap());
        }
        assert_eq!(heard, all);
    }

    #[test]
    fn the_end_comes_after_the_last_word() {
        let (mut line, mut theirs) = Line::new().unwrap();
        theirs.write_all(Word::Ending.line().as_bytes()).unwrap();
        drop(theirs);
        let mut heard = Vec::new();
        assert!(!line.read(|word| heard.push(word)).unwrap());
        assert_eq!(heard, [Word::Ending]);
    }

    #[test]
    fn unknown_and_endless_lines_say_nothing_and_take_no_room() {
        let (mut line, mut theirs) = Line::new().unwrap();
        let mut heard = Vec::new();
        for _ in 0..64 {
            theirs.write_all(&[b'x'; 1000]).unwrap();
            assert!(line.read(|word| heard.push(word)).unwrap());
        }
        assert_eq!(line.rest.len(), LINE_MAX);
        theirs.write_all(b"\nbegun ../x\nlistening\n").unwrap();
        assert!(line.read(|word| heard.push(word)).unwrap());
        assert_eq!(heard, [Word::Listening]);
    }

    #[test]
    fn a_supervisor_that_does_not_read_does_not_hold_the_guardian_up() {
        let (mut line, theirs) = Line::new().unwrap();
        for _ in 0..1_000_000 {
            line.hand_on(b'I').unwrap();
        }
        drop(theirs);
        assert!(line.hand_on(b'I').is_err(), "its end is told");
    }
}
