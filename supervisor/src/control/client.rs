//! The command line's end of the control socket: one request, then replies one by one.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use interprocess::local_socket::{GenericFilePath, Stream, prelude::*};

use crate::control::wire::{Reply, Request, Want};

/// Longest reply line, bytes: what each of thousands of live runs does, with room.
const REPLY_MAX: usize = 16 << 20;
/// Longest wait for the supervisor to take a request.
const SEND_MAX: Duration = Duration::from_secs(10);

/// Why there is no (further) reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket: the batch has no live supervisor.
    #[error("no supervisor listens at {}", path.display())]
    NoSupervisor {
        /// The socket.
        path: PathBuf,
    },
    /// No reply came in time.
    #[error("no reply within {} s", after.as_secs_f32())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The supervisor went away, or had too many connections.
    #[error("the supervisor closed the connection before its last reply")]
    Closed,
    /// The reply is not one that this release knows.
    #[error("the supervisor's reply can not be read")]
    Reply(#[source] serde_json::Error),
    /// The connection failed.
    #[error("the connection to {} failed", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The replies to one request.
#[derive(Debug)]
pub struct Replies {
    stream: Stream,
    path: PathBuf,
    buffer: Vec<u8>,
    waits: bool,
    over: bool,
}

/// Sends a request to the supervisor that listens at `path`.
///
/// # Errors
/// [`ClientError::NoSupervisor`] when nobody listens, [`ClientError::Io`] otherwise.
pub fn send(path: &Path, request: &Request) -> Result<Replies, ClientError> {
    let failed = |source| io_error(path, source);
    let name = path.to_fs_name::<GenericFilePath>().map_err(failed)?;
    let mut stream = Stream::connect(name).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoSupervisor {
            path: path.to_owned(),
        },
        _other => failed(source),
    })?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    stream.set_send_timeout(Some(SEND_MAX)).map_err(failed)?;
    // A supervisor that refuses the peer answers without reading: the reply says why.
    match stream.write_all(&line) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    Ok(Replies {
        stream,
        path: path.to_owned(),
        buffer: Vec::new(),
        waits: matches!(request.want, Want::Steer { wait: Some(_), .. }),
        over: false,
    })
}

fn io_error(path: &Path, source: io::Error) -> ClientError {
    ClientError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Replies {
    /// What is readable once there is more to read, and what was read of the next reply already.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        let Stream::UdSocket(stream) = &self.stream;
        stream.as_fd()
    }

    /// The next reply; `None` after the last one. Waits at most `at_most` for bytes to come, for
    /// ever when there is no such limit.
    ///
    /// # Errors
    /// [`ClientError`]; the connection is over then, but for [`ClientError::TimedOut`].
    pub fn next(&mut self, at_most: Option<Duration>) -> Result<Option<Reply>, ClientError> {
        if self.over {
            return Ok(None);
        }
        let failed = |source| io_error(&self.path, source);
        self.stream.set_recv_timeout(at_most).map_err(failed)?;
        let line = loop {
            if let Some(line) = self.buffered_line() {
                break line;
            }
            let mut bytes = [0_u8; 8192];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => self.take(&bytes[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.read_error(error, at_most)),
            }
        };
        let reply: Reply = serde_json::from_slice(&line).map_err(ClientError::Reply)?;
        self.over = is_last(&reply, self.waits);
        Ok(Some(reply))
    }

    fn buffered_line(&mut self) -> Option<Vec<u8>> {
        let end = self.buffer.iter().position(|&byte| byte == b'\n')?;
        let rest = self.buffer.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.buffer, rest);
        line.truncate(end);
        Some(line)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        if self.buffer.len() + bytes.len() > REPLY_MAX {
            let source = io::Error::new(io::ErrorKind::InvalidData, "a reply is over its limit");
            return Err(io_error(&self.path, source));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn read_error(&self, error: io::Error, at_most: Option<Duration>) -> ClientError {
        match (error.kind(), at_most) {
            (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(after)) => {
                ClientError::TimedOut { after }
            }
            (io::ErrorKind::ConnectionReset, _) => ClientError::Closed,
            _other => io_error(&self.path, error),
        }
    }
}

/// Whether nothing follows this reply. Messages are followed by their moves only where the request
/// asked to wait.
fn is_last(reply: &Reply, waits: bool) -> bool {
    match reply {
        Reply::Done { .. } | Reply::Refused { .. } | Reply::Activity { .. } => true,
        Reply::Messages { .. } => !waits,
        Reply::Moved { .. } | Reply::Changed { .. } => false,
    }
}
