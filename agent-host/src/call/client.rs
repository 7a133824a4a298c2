//! One call over the bridge: connect, present the token, ask, wait for the answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::bridge::{
    BRIDGE_FILE_MAX, BRIDGE_FILE_VERSION, BridgeFile, Call, ERROR_ENDING, Reply, WAIT_MAX_MS,
};
use protocol::framing::LINE_MAX;
use protocol::rpc::{self, Incoming, RpcError};
use rustix::fs::{Mode, OFlags};

use crate::run::read_bounded;

/// Longest wait for an answer: longer than the host lets any call wait, shorter than agent programs
/// do.
const ANSWER_MAX: Duration = Duration::from_millis(WAIT_MAX_MS + 5_000);
/// Number of the request that opens the connection.
const HELLO_ID: u64 = 1;
/// Number of the call itself.
const CALL_ID: u64 = 2;

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The environment names no bridge, and no argument does.
    #[error(
        "there is no bridge: {} is not set, and no --bridge FILE was given",
        protocol::bridge::BRIDGE_ENV
    )]
    NoBridge,
    /// The bridge's file is not there or is none.
    #[error("the bridge's file {} can not be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens at its socket.
    #[error("the host of this run can not be reached at {}", socket.display())]
    Gone {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection ended or failed before the answer.
    #[error("the host went away before it answered")]
    Cut(#[source] io::Error),
    /// The answer is not of this protocol.
    #[error("the host's answer is not understood: {0}")]
    Answer(String),
    /// The host refused.
    #[error("{}", .0.message)]
    Refused(RpcError),
}

impl CallError {
    /// Whether another call could go better: the host is there and said no.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            CallError::Refused(error) => error.code != ERROR_ENDING,
            CallError::NoBridge
            | CallError::File { .. }
            | CallError::Gone { .. }
            | CallError::Cut(_)
            | CallError::Answer(_) => false,
        }
    }

    /// The error and its causes on one line.
    pub(crate) fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

/// Makes a call and waits for its answer, at most a minute.
///
/// # Errors
/// [`CallError`]: at once when the host is gone, and as soon as it goes away.
pub(crate) fn call(file: &Path, call: &Call) -> Result<Reply, CallError> {
    let bridge = read_file(file)?;
    let token = bridge.token;
    let mut lines = Lines::connect(Path::new(&bridge.socket))?;
    lines.send(HELLO_ID, &Call::Hello { token })?;
    lines.send(CALL_ID, call)?;
    lines.answer(HELLO_ID)?;
    lines.answer(CALL_ID)
}

fn read_file(path: &Path) -> Result<BridgeFile, CallError> {
    let failed = |source| CallError::File {
        path: path.to_owned(),
        source,
    };
    let text = read_bounded(path, BRIDGE_FILE_MAX).map_err(failed)?;
    // What is wrong with it is said without a word of it: it holds a secret.
    let none = || {
        failed(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no file of a bridge",
        ))
    };
    let file: BridgeFile = serde_json::from_str(&text).map_err(|_| none())?;
    if file.v == BRIDGE_FILE_VERSION {
        Ok(file)
    } else {
        let said = format!("it is of version {}, not {BRIDGE_FILE_VERSION}", file.v);
        Err(failed(io::Error::new(io::ErrorKind::InvalidData, said)))
    }
}

/// A connection, line by line.
struct Lines {
    stream: BufReader<UnixStream>,
}

impl Lines {
    fn connect(socket: &Path) -> Result<Self, CallError> {
        let gone = |source| CallError::Gone {
            socket: socket.to_owned(),
            source,
        };
        let stream = reach(socket).map_err(gone)?;
        let set = stream
            .set_read_timeout(Some(ANSWER_MAX))
            .and_then(|()| stream.set_write_timeout(Some(ANSWER_MAX)));
        set.map_err(gone)?;
        let stream = BufReader::new(stream);
        Ok(Self { stream })
    }

    fn send(&mut self, id: u64, call: &Call) -> Result<(), CallError> {
        let line = call
            .line(id)
            .map_err(|error| CallError::Answer(error.to_string()))?;
        match self.stream.get_mut().write_all(&line) {
            // It may have said why before it closed.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(CallError::Cut),
        }
    }

    fn answer(&mut self, wanted: u64) -> Result<Reply, CallError> {
        let mut line = Vec::new();
        let max = LINE_MAX as u64 + 1;
        let read = (&mut self.stream).take(max).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Err(CallError::Cut(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => return Err(CallError::Cut(error)),
        }
        match rpc::read(&line) {
            Ok(Incoming::Answer {
                outcome: Err(error),
                ..
            }) => Err(CallError::Refused(error)),
            Ok(Incoming::Answer {
                id,
                outcome: Ok(reply),
            }) if id == wanted => serde_json::from_str(reply.get())
                .map_err(|error| CallError::Answer(error.to_string())),
            Ok(_) => Err(CallError::Answer("it answers something else".to_owned())),
            Err(error) => Err(CallError::Answer(error.to_string())),
        }
    }
}

/// Connects; where the path is too long for an address, through its open folder.
fn reach(socket: &Path) -> io::Result<UnixStream> {
    match UnixStream::connect(socket) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
        other => return other,
    }
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    #[cfg(target_os = "linux")]
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(folder, flags, Mode::empty())?;
    // Elsewhere there is no such folder, and the connection says so.
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
    UnixStream::connect(short.join(name))
}
