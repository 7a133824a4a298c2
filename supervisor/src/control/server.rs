//! Accepts connections and reads one request from each; slow or silent clients cost the loop
//! nothing, because each has a task, a bounded queue and a time limit of its own.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream, prelude::*};
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use protocol::ids::BatchId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::control::wire::{CONTROL_VERSION, REQUEST_MAX, Reply, Request, Want};

/// Connections at one time; a further one is refused.
const CONNECTIONS_MAX: usize = 64;
/// Requests that wait for the loop.
pub const REQUESTS_MAX: usize = CONNECTIONS_MAX;
/// Replies that wait for one client; over it the connection is ended, so that what a client saw is
/// always without gaps.
pub const REPLIES_MAX: usize = 1024;
/// Longest wait for a request, and for a client to take a reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// One request that passed the doors.
#[derive(Debug)]
pub struct Asked {
    /// Who asks, where the system says.
    pub pid: Option<u32>,
    /// What is wanted.
    pub want: Want,
    /// Where replies go; the connection ends when this is dropped.
    pub replies: mpsc::Sender<Reply>,
}

/// Binds the socket. What an earlier supervisor left under the name is removed first; that is safe
/// only while the lock of the state dir is held, which is why it is asked for.
///
/// # Errors
/// When the path is too long for a socket (about 107 bytes), its folder is missing, or something
/// else than a socket has the name.
pub fn bind(path: &Path, _held: &crate::store::Lock) -> io::Result<Listener> {
    remove_stale(path)?;
    let name = path.to_fs_name::<GenericFilePath>()?;
    ListenerOptions::new().name(name).mode(0o600).create_tokio()
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The server while a supervisor lives.
#[derive(Debug)]
pub struct Server {
    places: Arc<Semaphore>,
    accepting: JoinHandle<()>,
}

/// Longest wait for clients to take their last replies when the supervisor ends.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

impl Server {
    /// Serves a batch: requests go to `asked`.
    pub fn start(listener: Listener, batch: BatchId, asked: mpsc::Sender<Asked>) -> Server {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let accepting = tokio::spawn(accept(listener, batch, asked, places.clone()));
        Server { places, accepting }
    }

    /// Takes no more connections and removes the socket; those that are open may end.
    pub async fn close(self) {
        self.accepting.abort();
        // The listener, and with it the socket, goes with its task; it ends only by this.
        if self.accepting.await.is_err_and(|error| error.is_panic()) {
            tracing::error!("the control socket's task panicked");
        }
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        match timeout(LAST_WORDS_MAX, self.places.acquire_many(all)).await {
            Ok(_) => {}
            Err(_) => tracing::debug!("clients that do not read were left behind"),
        }
    }
}

async fn accept(
    listener: Listener,
    batch: BatchId,
    asked: mpsc::Sender<Asked>,
    places: Arc<Semaphore>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue; // over the limit: closed unanswered, the client says so
        };
        let (batch, asked) = (batch.clone(), asked.clone());
        drop(tokio::spawn(async move {
            if let Err(error) = converse(&stream, &batch, asked).await {
                tracing::debug!(%error, "a control connection ended early");
            }
            drop(place);
        }));
    }
}

async fn converse(stream: &Stream, batch: &BatchId, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let pid = match judge(stream)? {
        Ok(pid) => pid,
        Err(refusal) => return write(stream, &refusal).await,
    };
    let line = timeout(PATIENCE, read_line(stream)).await??;
    let want = match understand(&line, batch) {
        Ok(want) => want,
        Err(refusal) => return write(stream, &refusal).await,
    };
    let (replies, mut outgoing) = mpsc::channel(REPLIES_MAX);
    let request = Asked { pid, want, replies };
    if asked.send(request).await.is_err() {
        return Ok(()); // the supervisor is ending
    }
    loop {
        let reply = tokio::select! {
            // Cancel-safe: a reply is either returned or stays in the queue.
            reply = outgoing.recv() => reply,
            // Cancel-safe: whatever a client sends after its request is dropped anyway.
            () = closed(stream) => None,
        };
        match reply {
            Some(reply) => write(stream, &reply).await?,
            None => return Ok(()),
        }
    }
}

/// The pid of a peer of the same user; the loop looks at it once it knows what is wanted.
fn judge(stream: &Stream) -> io::Result<Result<Option<u32>, Reply>> {
    let creds = stream.peer_creds()?;
    if creds.euid() != Some(rustix::process::geteuid().as_raw()) {
        return Ok(Err(refused(8, "the batch belongs to another user")));
    }
    Ok(Ok(creds.pid().and_then(|pid| u32::try_from(pid).ok())))
}

/// Why an insider is refused.
const AGENT_REFUSED: &str =
    "this comes from a run of the batch itself: an agent can not steer, answer or end runs";

/// The reply to an acting request that comes out of one of the batch's own runs.
pub fn refuse_agent() -> Reply {
    refused(8, AGENT_REFUSED)
}

/// Whether a refusal is that of an insider.
pub fn is_agent_refusal(text: &str) -> bool {
    text == AGENT_REFUSED
}

fn understand(line: &[u8], batch: &BatchId) -> Result<Want, Reply> {
    #[derive(serde::Deserialize)]
    struct Version {
        v: u32,
    }
    let version: Version = serde_json::from_slice(line)
        .map_err(|error| refused(2, &format!("the request can not be read: {error}")))?;
    if version.v != CONTROL_VERSION {
        let text = format!(
            "the command speaks control version {}, the supervisor {CONTROL_VERSION}: \
             use the release that started the batch",
            version.v
        );
        return Err(refused(8, &text));
    }
    let request: Request = serde_json::from_slice(line)
        .map_err(|error| refused(2, &format!("the request can not be read: {error}")))?;
    if request.batch != *batch {
        let text = format!(
            "this is the supervisor of {batch}, not of {}",
            request.batch
        );
        return Err(refused(6, &text));
    }
    Ok(request.want)
}

/// A refusal with the exit code that fits.
pub fn refused(code: u8, text: &str) -> Reply {
    Reply::Refused {
        code,
        text: text.to_owned(),
    }
}

async fn read_line(mut stream: &Stream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut bytes = [0_u8; 4096];
    loop {
        let count = stream.read(&mut bytes).await?;
        let end = bytes[..count].iter().position(|&byte| byte == b'\n');
        line.extend_from_slice(&bytes[..end.unwrap_or(count)]);
        if line.len() > REQUEST_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request is over its limit",
            ));
        }
        match (end, count) {
            (Some(_), _) => return Ok(line),
            (None, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (None, _) => {}
        }
    }
}

async fn write(mut stream: &Stream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line)).await?
}

/// Returns once the client has closed its end.
async fn closed(mut stream: &Stream) {
    let mut bytes = [0_u8; 256];
    while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}
