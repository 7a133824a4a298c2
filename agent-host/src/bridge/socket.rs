//! The bridge's socket: connections, who may speak, lines in and out, all bounded.
//!
//! The host polls one descriptor for all of it, so that a run whose agent never
//! calls costs its loop nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use protocol::bridge::{Call, ERROR_NO_TOKEN, ERROR_REFUSED};
use protocol::framing::{Frame, FrameReader, LINE_MAX};
use protocol::rpc::{self, ERROR_BAD_PARAMS, Incoming, RpcError};
use rustix::io::Errno;
use rustix::process::getuid;

use super::calls::Caller;
use crate::kernel::{Happened, SEND_FLAGS, Watch, peer_user};
use crate::scratch::Scratch;

/// Most connections at a time; one more is told so and closed.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// Most unanswered calls of one connection; one more is refused.
const UNANSWERED_MAX: u32 = 8;
/// Most bytes that wait for a connection that does not read; beyond, it is closed.
const BACKLOG_MAX: usize = 2 * LINE_MAX;
/// Longest time that a connection may have nothing unanswered: places are few, and a caller
/// connects anew in less than a millisecond.
const QUIET_MAX: Duration = Duration::from_secs(10);
/// The listener's number among the connections.
const LISTENER: u64 = 0;
/// The number of an error that answers no request.
const NO_REQUEST: u64 = 0;

/// What came over the socket.
#[derive(Debug)]
pub(super) enum Heard {
    /// A call of somebody who has the token.
    Call(Caller, Call),
    /// A connection is gone.
    Gone(u64),
}

/// The listener and its connections.
pub(super) struct Socket {
    watch: Watch,
    listener: UnixListener,
    token: String,
    connections: BTreeMap<u64, Connection>,
    last: u64,
}

struct Connection {
    stream: UnixStream,
    frames: FrameReader,
    /// It has presented the token.
    is_known: bool,
    unanswered: u32,
    /// When it last had something unanswered.
    busy: Instant,
    out: Vec<u8>,
    written: usize,
    /// Nothing more is read; what waits is still written.
    is_closing: bool,
}

impl Socket {
    /// A socket that listens already.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn new(listener: UnixListener, token: String) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let watch = Watch::new()?;
        watch.add(&listener, LISTENER)?;
        Ok(Self {
            watch,
            listener,
            token,
            connections: BTreeMap::new(),
            last: LISTENER,
        })
    }

    /// Readable when there is something to take in.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        self.watch.descriptor()
    }

    /// Takes in what is there.
    pub(super) fn take_in(&mut self, scratch: &mut Scratch, now: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        // An interrupted look is made again: what is ready stays so.
        let ready = self.watch.ready(CONNECTIONS_MAX + 1);
        for happened in ready.unwrap_or_default() {
            match happened.number {
                LISTENER => self.accept(now),
                _number => self.serve(happened, scratch, now, &mut heard),
            }
        }
        heard
    }

    /// Takes in new connections. What can not be taken in now is tried again at the next look.
    fn accept(&mut self, now: Instant) {
        while let Ok((stream, _)) = self.listener.accept() {
            let is_ours = peer_user(&stream).is_ok_and(|user| user == getuid().as_raw());
            if !is_ours || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let number = self.last + 1;
            let mut connection = Connection::new(stream, now);
            if self.connections.len() >= CONNECTIONS_MAX {
                let text = format!("at most {CONNECTIONS_MAX} connections at a time");
                connection.refuse(NO_REQUEST, ERROR_REFUSED, text);
                continue;
            }
            if self.watch.add(&connection.stream, number).is_ok() {
                self.last = number;
                self.connections.insert(number, connection);
            }
        }
    }

    fn serve(
        &mut self,
        happened: Happened,
        scratch: &mut Scratch,
        now: Instant,
        heard: &mut Vec<Heard>,
    ) {
        let Happened {
            number,
            readable,
            failed,
        } = happened;
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let mut stays = !failed;
        if readable && !connection.is_closing {
            stays &= connection.read(scratch);
            connection.listen(number, &self.token, heard);
            connection.busy = now;
        }
        stays &= connection.write();
        self.settle(number, stays, heard);
    }

    /// Answers a call; false when its caller is gone.
    pub(super) fn send(&mut self, caller: Caller, line: &[u8], now: Instant) -> bool {
        let number = caller.connection;
        let Some(connection) = self.connections.get_mut(&number) else {
            return false;
        };
        connection.unanswered = connection.unanswered.saturating_sub(1);
        connection.busy = now;
        connection.out.extend_from_slice(line);
        let stays = connection.write();
        self.settle(number, stays, &mut Vec::new());
        stays
    }

    /// Closes a connection that is over; of any other, what it is watched for follows what it has.
    fn settle(&mut self, number: u64, stays: bool, heard: &mut Vec<Heard>) {
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let waits = connection.has_more();
        if !stays || (connection.is_closing && !waits) {
            // Closing it ends its watch, too.
            self.connections.remove(&number);
            heard.push(Heard::Gone(number));
            return;
        }
        let reads = !connection.is_closing;
        // It is watched, so this can not fail; if it did, its caller would give up by itself.
        drop(self.watch.change(&connection.stream, number, reads, waits));
    }

    /// When a quiet connection is to be closed.
    pub(super) fn due(&self) -> Option<Instant> {
        let quiet = self.connections.values().filter(|one| one.is_quiet());
        quiet.map(|one| one.busy + QUIET_MAX).min()
    }

    /// Closes quiet connections.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Heard> {
        let over = |one: &Connection| one.is_quiet() && one.busy + QUIET_MAX <= now;
        let over = self.connections.extract_if(.., |_, one| over(one));
        over.map(|(number, _)| Heard::Gone(number)).collect()
    }
}

impl Connection {
    fn new(stream: UnixStream, now: Instant) -> Self {
        Self {
            stream,
            frames: FrameReader::default(),
            is_known: false,
            unanswered: 0,
            busy: now,
            out: Vec::new(),
            written: 0,
            is_closing: false,
        }
    }

    fn has_more(&self) -> bool {
        self.written < self.out.len()
    }

    fn is_quiet(&self) -> bool {
        self.unanswered == 0
    }

    /// Reads once; false at its end.
    fn read(&mut self, scratch: &mut Scratch) -> bool {
        match scratch.read(&self.stream) {
            Ok(0) => false,
            Ok(_) => {
                self.frames.push(scratch.bytes());
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            Err(_) => false,
        }
    }

    /// Understands what was read.
    fn listen(&mut self, number: u64, token: &str, heard: &mut Vec<Heard>) {
        while !self.is_closing
            && let Some(frame) = self.frames.next_frame()
        {
            match frame {
                Frame::Line(line) => self.line(number, token, &line, heard),
                Frame::Blank => {}
                Frame::TooLong { .. } => {
                    let text = format!("a line has at most {LINE_MAX} bytes");
                    self.refuse_and_close(NO_REQUEST, ERROR_BAD_PARAMS, text);
                }
            }
        }
    }

    fn line(&mut self, number: u64, token: &str, line: &[u8], heard: &mut Vec<Heard>) {
        let id = match rpc::read(line) {
            Ok(Incoming::Request { id, .. }) => id,
            Ok(Incoming::Notification { .. } | Incoming::Answer { .. }) | Err(_) => {
                let text = "not a request of JSON-RPC".to_owned();
                return self.refuse_and_close(NO_REQUEST, ERROR_BAD_PARAMS, text);
            }
        };
        let call = serde_json::from_slice::<Call>(line);
        match call {
            Ok(Call::Hello { token: presented }) if is_same(&presented, token) => {
                self.is_known = true;
                self.say(rpc::answer(id, protocol::bridge::Reply::Done {}));
            }
            Ok(Call::Hello { .. }) | Err(_) if !self.is_known => {
                self.refuse_and_close(id, ERROR_NO_TOKEN, "the token is wrong".to_owned());
            }
            Ok(_) if !self.is_known => {
                let text = "the token must come first".to_owned();
                self.refuse_and_close(id, ERROR_NO_TOKEN, text);
            }
            Err(error) => self.refuse(id, ERROR_BAD_PARAMS, error.to_string()),
            Ok(_) if self.unanswered >= UNANSWERED_MAX => {
                let text = format!("at most {UNANSWERED_MAX} calls at a time");
                self.refuse(id, ERROR_REFUSED, text);
            }
            Ok(call) => {
                self.unanswered += 1;
                let connection = number;
                heard.push(Heard::Call(Caller { connection, id }, call));
            }
        }
    }

    fn refuse_and_close(&mut self, id: u64, code: i64, message: String) {
        self.refuse(id, code, message);
        self.is_closing = true;
    }

    fn refuse(&mut self, id: u64, code: i64, message: String) {
        self.say(rpc::refusal(id, &RpcError { code, message }));
        self.write();
    }

    fn say(&mut self, line: Result<Vec<u8>, serde_json::Error>) {
        // A refusal or a word of ours always fits a line.
        self.out.extend(line.unwrap_or_default());
    }

    /// Writes what goes; false when it is over.
    fn write(&mut self) -> bool {
        while self.has_more() {
            match rustix::net::send(&self.stream, &self.out[self.written..], SEND_FLAGS) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.out.drain(..self.written);
                    self.written = 0;
                    return self.out.len() <= BACKLOG_MAX;
                }
                Err(_) => return false,
            }
        }
        self.out = Vec::new();
        self.written = 0;
        true
    }
}

/// Whether two tokens are the same, in a time that does not say where they differ.
fn is_same(presented: &str, token: &str) -> bool {
    let differs = presented
        .bytes()
        .zip(token.bytes())
        .fold(0, |differs, (one, other)| differs | (one ^ other));
    presented.len() == token.len() && differs == 0
}
