//! Accepts connections and reads one request from each; slow or silent clients cost the loop
//! nothing, because each has a task, a bounded queue and a time limit of its own.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream, prelude::*};
use interprocess::local_socket::{GenericFilePath, ListenerOptions};
use interprocess::os::unix::local_socket::ListenerOptionsExt;
use protocol::ids::BatchId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};
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

/// Where replies to one request go; the connection ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The number of the connection, kept when another program goes on with it.
    pub connection: u64,
    replies: mpsc::Sender<Reply>,
}

impl Caller {
    /// A caller without a connection that reads its replies itself (tests).
    pub fn new(connection: u64, replies: mpsc::Sender<Reply>) -> Caller {
        Caller {
            connection,
            replies,
        }
    }

    /// Hands a reply over without waiting; `false` when the client is gone or too slow.
    pub fn tell(&self, reply: Reply) -> bool {
        self.replies.try_send(reply).is_ok()
    }
}

/// One request that passed the doors.
#[derive(Debug)]
pub struct Asked {
    /// Who asks, where the system says.
    pub pid: Option<u32>,
    /// What is wanted.
    pub want: Want,
    /// Where replies go.
    pub caller: Caller,
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
    // The server removes the name itself: the listener may outlive this program.
    let options = ListenerOptions::new().name(name).mode(0o600);
    options.reclaim_name(false).create_tokio()
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// How far a connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// This much of its request was read.
    Reading(Vec<u8>),
    /// Its request was handed on; whoever has it has its connection's number.
    Asked,
}

/// A connection that nobody serves now.
#[derive(Debug)]
pub struct Parked {
    /// Its number.
    pub connection: u64,
    /// The client.
    pub stream: Stream,
    /// How far it is.
    pub stage: Stage,
}

impl Parked {
    /// A connection that the program before this one has handed over.
    ///
    /// # Errors
    /// When the descriptor can not be watched.
    pub fn handed_over(connection: u64, stream: OwnedFd, stage: Stage) -> io::Result<Parked> {
        let stream = UnixStream::from(stream);
        stream.set_nonblocking(true)?;
        let stream = tokio::net::UnixStream::from_std(stream)?;
        Ok(Parked {
            connection,
            stream: Stream::UdSocket(stream.into()),
            stage,
        })
    }
}

impl AsFd for Parked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Stream::UdSocket(stream) = &self.stream;
        stream.as_fd()
    }
}

/// A control socket that the program before this one has handed over.
///
/// # Errors
/// When the descriptor can not be watched.
pub fn listener_handed_over(listener: OwnedFd) -> io::Result<Listener> {
    Ok(Listener::UdSocket(listener.try_into()?))
}

impl AsFd for Still {
    fn as_fd(&self) -> BorrowedFd<'_> {
        let Listener::UdSocket(listener) = &self.listener;
        listener.as_fd()
    }
}

/// A server that stands still: clients wait at its socket, connected ones are kept.
#[derive(Debug)]
pub struct Still {
    /// The socket.
    pub listener: Listener,
    /// Connected clients.
    pub parked: Vec<Parked>,
    /// The number of the next connection.
    pub next: u64,
}

/// What every connection's task has.
#[derive(Debug, Clone)]
struct Hall {
    batch: BatchId,
    asked: mpsc::Sender<Asked>,
    places: Arc<Semaphore>,
    /// On when connections are to be given back.
    park: watch::Receiver<bool>,
    /// Where they are given back.
    back: mpsc::Sender<Parked>,
}

/// The server while a supervisor lives.
#[derive(Debug)]
pub struct Server {
    places: Arc<Semaphore>,
    accepting: JoinHandle<(Listener, u64)>,
    park: watch::Sender<bool>,
    back: mpsc::Receiver<Parked>,
}

/// Longest wait for clients to take their last replies when the supervisor ends or is replaced;
/// whoever has not is left behind, and sees its connection end.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);

impl Server {
    /// Serves a batch: requests go to `asked`.
    pub fn start(listener: Listener, batch: BatchId, asked: mpsc::Sender<Asked>) -> Server {
        let still = Still {
            listener,
            parked: Vec::new(),
            next: 1,
        };
        Server::resume(still, batch, asked).0
    }

    /// Goes on with a server that stood still. Returns also the callers whose requests have been
    /// handed on, by connection.
    pub fn resume(
        still: Still,
        batch: BatchId,
        asked: mpsc::Sender<Asked>,
    ) -> (Server, BTreeMap<u64, Caller>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (park, parking) = watch::channel(false);
        let (giving, back) = mpsc::channel(CONNECTIONS_MAX);
        let hall = Hall {
            batch,
            asked,
            places: places.clone(),
            park: parking,
            back: giving,
        };
        let mut callers = BTreeMap::new();
        for parked in still.parked {
            if let Some(caller) = serve(&hall, parked) {
                callers.insert(caller.connection, caller);
            }
        }
        let accepting = tokio::spawn(accept(still.listener, still.next, hall));
        let server = Server {
            places,
            accepting,
            park,
            back,
        };
        (server, callers)
    }

    /// Stands still: every reply that was handed over is written first. Only while nobody hands
    /// over more.
    ///
    /// # Errors
    /// When the task that accepts connections has died.
    pub async fn park(mut self) -> io::Result<Still> {
        self.park.send_replace(true);
        let accepted = self.accepting.await;
        let (listener, next) = accepted.map_err(io::Error::other)?;
        let mut parked = Vec::new();
        // Ends when the last task has: each holds a sender.
        let all = async {
            while let Some(connection) = self.back.recv().await {
                parked.push(connection);
            }
        };
        if timeout(LAST_WORDS_MAX, all).await.is_err() {
            tracing::debug!("clients that do not read were left behind");
        }
        Ok(Still {
            listener,
            parked,
            next,
        })
    }

    /// Takes no more connections; those that are open may end.
    pub async fn close(self) {
        self.accepting.abort();
        // The listener goes with its task, which ends only by this.
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

/// Removes the socket's name, so that clients see at once that nobody listens. Only the holder of
/// the lock may.
pub fn unbind(path: &Path, _held: &crate::store::Lock) {
    if let Err(error) = remove_stale(path) {
        tracing::debug!(path = %path.display(), %error, "the socket was not removed");
    }
}

async fn accept(listener: Listener, mut next: u64, hall: Hall) -> (Listener, u64) {
    let mut park = hall.park.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = switched(&mut park) => return (listener, next), // cancel-safe: only looked at
            // Cancel-safe: a connection is returned or waits at the socket.
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                // Out of descriptors, most likely: wait for some to be closed.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        // Over the limit nobody serves it: closed unanswered, the client says so.
        let new = Parked {
            connection: next,
            stream,
            stage: Stage::Reading(Vec::new()),
        };
        next += 1;
        serve(&hall, new);
    }
}

/// Returns once the switch is on.
async fn switched(park: &mut watch::Receiver<bool>) {
    // The server is gone when this fails, and with it whoever could be served.
    let _off = park.wait_for(|parked| *parked).await.is_err();
}

/// Serves one connection in a task of its own; its caller, where its request has been handed on.
fn serve(hall: &Hall, parked: Parked) -> Option<Caller> {
    let Ok(place) = hall.places.clone().try_acquire_owned() else {
        return None;
    };
    let Parked {
        connection,
        stream,
        stage,
    } = parked;
    let (replies, outgoing) = mpsc::channel(REPLIES_MAX);
    let caller = Caller {
        connection,
        replies,
    };
    let (begun, told) = match stage {
        Stage::Reading(line) => (Some((line, caller)), None),
        Stage::Asked => (None, Some(caller)),
    };
    let hall = hall.clone();
    drop(tokio::spawn(async move {
        match converse(&stream, begun, outgoing, &hall).await {
            Ok(Some(stage)) => {
                let parked = Parked {
                    connection,
                    stream,
                    stage,
                };
                // The server does not wait for it any more when this fails.
                let _left_behind = hall.back.send(parked).await.is_err();
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a control connection ended early"),
        }
        drop(place);
    }));
    told
}

/// One conversation, from where it is to its end, or to where it stands still.
async fn converse(
    stream: &Stream,
    begun: Option<(Vec<u8>, Caller)>,
    mut outgoing: mpsc::Receiver<Reply>,
    hall: &Hall,
) -> io::Result<Option<Stage>> {
    let mut park = hall.park.clone();
    if let Some((mut line, caller)) = begun {
        let pid = match judge(stream)? {
            Ok(pid) => pid,
            Err(refusal) => return write(stream, &refusal).await.map(|()| None),
        };
        tokio::select! {
            biased;
            // Cancel-safe: what was read is in `line`.
            read = timeout(PATIENCE, read_line(stream, &mut line)) => read??,
            () = switched(&mut park) => return Ok(Some(Stage::Reading(line))), // only looked at
        }
        let want = match understand(&line, &hall.batch) {
            Ok(want) => want,
            Err(refusal) => return write(stream, &refusal).await.map(|()| None),
        };
        if hall.asked.send(Asked { pid, want, caller }).await.is_err() {
            return Ok(None); // the supervisor is ending
        }
    }
    loop {
        let reply = tokio::select! {
            biased;
            // Cancel-safe: a reply is either returned or stays in the queue. First, so that every
            // reply is written before the connection stands still.
            reply = outgoing.recv() => reply,
            () = switched(&mut park) => return Ok(Some(Stage::Asked)), // cancel-safe: only looked at
            // Cancel-safe: whatever a client sends after its request is dropped anyway.
            () = closed(stream) => None,
        };
        match reply {
            Some(reply) => write(stream, &reply).await?,
            None => return Ok(None),
        }
    }
}

/// The pid of a peer of the same user; the loop looks at it once it knows what is wanted.
fn judge(stream: &Stream) -> io::Result<Result<Option<u32>, Reply>> {
    let creds = stream.peer_creds()?;
    if creds.euid() != Some(rustix::process::geteuid().as_raw()) {
        return Ok(Err(refused(8, "the batch belongs to another user")));
    }
    #[cfg(target_os = "linux")]
    let pid = creds.pid().and_then(|pid| u32::try_from(pid).ok());
    #[cfg(target_os = "macos")]
    let pid = {
        let Stream::UdSocket(stream) = stream;
        Some(crate::process::macos::peer(stream.as_fd())?)
    };
    Ok(Ok(pid))
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

/// Reads on to the end of the line, which is left without its newline. What it was given may hold
/// the end already.
async fn read_line(mut stream: &Stream, line: &mut Vec<u8>) -> io::Result<()> {
    let mut seen = 0;
    loop {
        if let Some(end) = line[seen..].iter().position(|&byte| byte == b'\n') {
            line.truncate(seen + end);
            return Ok(());
        }
        seen = line.len();
        if seen > REQUEST_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the request is over its limit",
            ));
        }
        let mut bytes = [0_u8; 4096];
        match stream.read(&mut bytes).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => line.extend_from_slice(&bytes[..count]),
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
