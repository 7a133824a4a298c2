//! The pipes of one host: bytes to words on the way in, lines to bytes on the way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::bridge::TEXT_MAX;
use protocol::command::Pong;
use protocol::framing::{Frame, FrameReader, HalfLine, LINE_MAX};
use protocol::ids::Generation;
use protocol::report::{Ask, EXCERPT_MAX, Event, ListTasks, Report, Send, excerpt};
use protocol::rpc::{self, ERROR_BAD_PARAMS, ERROR_UNKNOWN_METHOD, Incoming, RpcError};
use protocol::version::{self, HelloReply};
use supervisor_core::input::WireFault;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use crate::process::spawn::set_nonblocking;

/// Number of the request `hello`; pings count on from it.
pub const HELLO_ID: u64 = 1;
/// Most bytes that wait for a host that does not read: a longest line, twice. What comes after is
/// dropped and counted as a fault of the wire.
pub const BACKLOG_MAX: usize = 2 * LINE_MAX;
/// Words of all hosts that wait for the loop; when it is full hosts are not read, so their pipes
/// fill and slow them.
pub const WORDS_MAX: usize = 256;
/// Bytes read at once: a pipe's usual reports, without a large buffer for each host.
const READ_SIZE: usize = 8 * 1024;
/// Most bytes still read from the pipe of a host that has ended. What it wrote itself is in the
/// pipe (1 MiB at most by the kernel's `pipe-max-size`); a survivor that holds the other end could
/// write for ever.
const DRAIN_MAX: usize = 2 << 20;

/// What the loop hears of a host.
#[derive(Debug)]
pub enum HostWord {
    /// The hello went well.
    Greeted,
    /// The hello was refused, and why.
    Refused(String),
    /// A report, with the generation that it names.
    Reported(Generation, Event),
    /// The request `ask`, and its number.
    Asked(u64, Ask),
    /// The request `send`, and its number.
    Sent(u64, Send),
    /// The request `tasks`, and its number.
    TasksWanted(u64, Generation),
    /// The answer to a ping.
    Ponged(Pong),
    /// Not the protocol.
    Fault(WireFault),
    /// A request that must be refused.
    Unanswerable(u64, RpcError),
    /// Nobody listens to it any more: asked to, the listener gave the pipe back. All that was read
    /// of it has been told, but for a line that has only begun.
    Parked(Box<Inlet>),
    /// The process has ended; its exit has not been collected. Always the last word.
    Ended,
}

/// Understands one frame of a host to which the release `said` has said hello. What is kept of it is
/// small, however long its line was: words wait.
pub fn understand(frame: Frame, said: &str) -> HostWord {
    let line = match frame {
        Frame::Line(line) => line,
        Frame::Blank => return HostWord::Fault(WireFault::Blank),
        Frame::TooLong { .. } => return HostWord::Fault(WireFault::TooLong),
    };
    match rpc::read(&line) {
        Err(_) => HostWord::Fault(WireFault::Garbage),
        Ok(Incoming::Notification { method, params }) if method == "report" => {
            match params.map(|params| serde_json::from_str::<Report>(params.get())) {
                Some(Ok(report)) => HostWord::Reported(report.generation, report.event.bounded()),
                Some(Err(_)) | None => HostWord::Fault(WireFault::Garbage),
            }
        }
        Ok(Incoming::Notification { .. }) => HostWord::Fault(WireFault::Garbage),
        Ok(Incoming::Request { id, method, params }) if method == "ask" => {
            match params.map(|params| serde_json::from_str::<Ask>(params.get())) {
                Some(Ok(ask)) => HostWord::Asked(id, ask.bounded()),
                Some(Err(_)) | None => unanswerable(id, ERROR_BAD_PARAMS, "not a question"),
            }
        }
        Ok(Incoming::Request { id, method, params }) if method == "send" => {
            match params.map(|params| serde_json::from_str::<Send>(params.get())) {
                // Words wait, so what is kept of one is bounded here.
                Some(Ok(send)) if send.text.len() > TEXT_MAX => {
                    unanswerable(id, ERROR_BAD_PARAMS, "the message is too long")
                }
                Some(Ok(send)) => HostWord::Sent(id, send),
                Some(Err(_)) | None => unanswerable(id, ERROR_BAD_PARAMS, "not a message"),
            }
        }
        Ok(Incoming::Request { id, method, params }) if method == "tasks" => {
            match params.map(|params| serde_json::from_str::<ListTasks>(params.get())) {
                Some(Ok(wanted)) => HostWord::TasksWanted(id, wanted.generation),
                Some(Err(_)) | None => unanswerable(id, ERROR_BAD_PARAMS, "whose tasks?"),
            }
        }
        Ok(Incoming::Request { id, .. }) => unanswerable(
            id,
            ERROR_UNKNOWN_METHOD,
            "the supervisor has no such method",
        ),
        Ok(Incoming::Answer { id, outcome }) => understand_answer(id, outcome, said),
    }
}

fn understand_answer(
    id: u64,
    outcome: Result<&serde_json::value::RawValue, RpcError>,
    said: &str,
) -> HostWord {
    if id != HELLO_ID {
        let pong = outcome
            .ok()
            .and_then(|pong| serde_json::from_str(pong.get()).ok());
        return pong.map_or(HostWord::Fault(WireFault::Garbage), HostWord::Ponged);
    }
    match outcome.map(|reply| serde_json::from_str::<HelloReply>(reply.get())) {
        Ok(Ok(reply)) => match version::check_as(said, &reply) {
            Ok(_) => HostWord::Greeted,
            Err(skew) => refused(&skew.to_string()),
        },
        Ok(Err(_)) => HostWord::Refused("agent-host answered the hello with something else".into()),
        Err(error) => refused(&error.message),
    }
}

fn refused(why: &str) -> HostWord {
    HostWord::Refused(excerpt(why, EXCERPT_MAX))
}

fn unanswerable(id: u64, code: i64, message: &str) -> HostWord {
    let message = message.to_owned();
    HostWord::Unanswerable(id, RpcError { code, message })
}

/// Where the words of all hosts go.
pub type Words = mpsc::Sender<(Generation, HostWord)>;

/// Listens to one host until its process has ended; then what is left in its pipe is read, and
/// [`HostWord::Ended`] is the last word. The end of its stdout alone is not its end. Once `park` is
/// true, [`HostWord::Parked`] is the last word instead.
pub async fn listen(
    generation: Generation,
    mut inlet: Inlet,
    process: Arc<AsyncFd<OwnedFd>>,
    words: Words,
    mut park: watch::Receiver<bool>,
) {
    loop {
        let ended = tokio::select! {
            biased;
            // Its end first: a survivor that floods the pipe must not hide it. Cancel-safe: only
            // readiness is waited for. A loop that shuts down gives an error: nobody listens then.
            ended = process.readable() => {
                match ended {
                    Ok(mut ready) => ready.retain_ready(),
                    Err(_) => return,
                }
                true
            }
            // Cancel-safe: the switch is only looked at.
            () = switched(&mut park) => {
                // Nobody listens any more when this fails; then nobody needs to know.
                let _unheard = words.send((generation, HostWord::Parked(Box::new(inlet)))).await;
                return;
            }
            // Cancel-safe: only readiness is waited for, nothing is taken from the pipe.
            ready = inlet.stdout.readable(), if inlet.open => {
                inlet.open &= ready.is_ok();
                false
            }
        };
        let told = if ended {
            inlet.drain(generation, &words).await
        } else {
            inlet.read_once();
            inlet.tell(generation, &words).await
        };
        if told.is_none() {
            return;
        }
        if ended {
            // Nobody listens any more when this fails; then nobody needs to know.
            let _unheard = words.send((generation, HostWord::Ended)).await;
            return;
        }
    }
}

/// Returns once the switch is on.
async fn switched(park: &mut watch::Receiver<bool>) {
    // Whoever held the switch is gone when this fails, and with it whoever listens.
    let _off = park.wait_for(|parked| *parked).await.is_err();
}

/// The reading side of one pipe.
#[derive(Debug)]
pub struct Inlet {
    stdout: pipe::Receiver,
    frames: FrameReader,
    /// The release that said hello to this host.
    said: Arc<str>,
    open: bool,
}

impl Inlet {
    /// The pipe of a host to which the release `said` says hello.
    pub fn new(stdout: pipe::Receiver, said: Arc<str>) -> Inlet {
        Inlet {
            stdout,
            frames: FrameReader::default(),
            said,
            open: true,
        }
    }

    /// Goes on with a pipe in the middle of a line; `open` is false once its end was seen.
    pub fn resume(stdout: pipe::Receiver, said: Arc<str>, line: HalfLine, open: bool) -> Inlet {
        Inlet {
            stdout,
            frames: FrameReader::resume(line),
            said,
            open,
        }
    }

    /// The line that has begun, and whether the pipe is open.
    pub fn rest(&self) -> (HalfLine, bool) {
        (self.frames.half_line(), self.open)
    }

    /// Takes what is there now, at most [`READ_SIZE`]; how much it was.
    fn read_once(&mut self) -> usize {
        let mut bytes = [0_u8; READ_SIZE];
        match self.stdout.try_read(&mut bytes) {
            Ok(0) => self.open = false,
            Ok(count) => {
                self.frames.push(&bytes[..count]);
                return count;
            }
            Err(error) => self.open = error.kind() == io::ErrorKind::WouldBlock,
        }
        0
    }

    /// Hands on all whole frames; `None` when nobody listens any more.
    async fn tell(&mut self, generation: Generation, words: &Words) -> Option<()> {
        while let Some(frame) = self.frames.next_frame() {
            let word = understand(frame, &self.said);
            words.send((generation, word)).await.ok()?;
        }
        Some(())
    }

    async fn drain(&mut self, generation: Generation, words: &Words) -> Option<()> {
        let mut read = 0;
        while self.open && read < DRAIN_MAX {
            let count = self.read_once();
            if count == 0 {
                break;
            }
            read += count;
            self.tell(generation, words).await?;
        }
        Some(())
    }
}

/// What became of a line for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in the pipe, or waits for the host to read.
    Taken,
    /// Too much waits already: dropped.
    Dropped,
    /// The host has closed its stdin: dropped; its end will be seen by its process.
    Closed,
}

/// The writing side of one pipe. Never blocks: what the pipe does not take waits in a bounded
/// backlog that a task of its own hands over as the host reads.
#[derive(Debug)]
pub struct Outlet {
    stdin: OwnedFd,
    backlog: Arc<Mutex<Backlog>>,
}

/// What an outlet leaves for the one that goes on with its pipe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unsent {
    /// These bytes wait for the host to read.
    pub bytes: Vec<u8>,
    /// The host has closed its stdin.
    pub closed: bool,
}

impl AsFd for Inlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stdout.as_fd()
    }
}

impl AsFd for Outlet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stdin.as_fd()
    }
}

#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    /// A task hands the backlog over; until it is through, new lines go behind.
    flushing: bool,
    closed: bool,
}

impl Outlet {
    /// An outlet into this pipe.
    ///
    /// # Errors
    /// When the pipe can not be set to not block.
    pub fn new(stdin: OwnedFd) -> io::Result<Outlet> {
        set_nonblocking(&stdin)?;
        Ok(Outlet {
            stdin,
            backlog: Arc::default(),
        })
    }

    /// Goes on with an outlet that another one has left like this.
    ///
    /// # Errors
    /// As [`Outlet::new`].
    pub fn resume(stdin: OwnedFd, left: Unsent) -> io::Result<Outlet> {
        let outlet = Outlet::new(stdin)?;
        let waits = !left.bytes.is_empty() && !left.closed;
        *lock(&outlet.backlog) = Backlog {
            bytes: left.bytes,
            flushing: waits,
            closed: left.closed,
        };
        if waits {
            outlet.start_flush();
        }
        Ok(outlet)
    }

    /// What has not gone into the pipe. It is true until the event loop runs again.
    pub fn unsent(&self) -> Unsent {
        let backlog = lock(&self.backlog);
        Unsent {
            bytes: backlog.bytes.clone(),
            closed: backlog.closed,
        }
    }

    /// Sends one line, its newline included.
    pub fn send(&self, line: &[u8]) -> Sent {
        let mut backlog = lock(&self.backlog);
        if backlog.closed {
            return Sent::Closed;
        }
        if backlog.flushing {
            return backlog.queue(line);
        }
        let written = match rustix::io::write(&self.stdin, line) {
            Ok(written) => written,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => 0,
            Err(_) => {
                backlog.closed = true;
                return Sent::Closed;
            }
        };
        if written == line.len() {
            return Sent::Taken;
        }
        // The rest of a line that has begun must follow, whatever its length.
        backlog.bytes.extend_from_slice(&line[written..]);
        backlog.flushing = true;
        drop(backlog);
        self.start_flush();
        Sent::Taken
    }

    fn start_flush(&self) {
        let outlet = self.stdin.as_fd().try_clone_to_owned();
        match outlet.and_then(pipe::Sender::from_owned_fd) {
            Ok(outlet) => drop(tokio::spawn(flush(outlet, self.backlog.clone()))),
            Err(error) => {
                tracing::error!(%error, "a host's stdin can not be watched");
                lock(&self.backlog).closed = true;
            }
        }
    }
}

impl Backlog {
    fn queue(&mut self, line: &[u8]) -> Sent {
        if self.bytes.len() + line.len() > BACKLOG_MAX {
            return Sent::Dropped;
        }
        self.bytes.extend_from_slice(line);
        Sent::Taken
    }
}

/// A poisoned lock means that a thread panicked between two plain assignments; the bytes are whole.
fn lock(backlog: &Mutex<Backlog>) -> std::sync::MutexGuard<'_, Backlog> {
    backlog.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn flush(outlet: pipe::Sender, backlog: Arc<Mutex<Backlog>>) {
    loop {
        let ready = outlet.writable().await;
        let mut backlog = lock(&backlog);
        let written = match ready.and_then(|()| outlet.try_write(&backlog.bytes)) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => {
                *backlog = Backlog {
                    closed: true,
                    ..Backlog::default()
                };
                return;
            }
        };
        backlog.bytes.drain(..written);
        if backlog.bytes.is_empty() {
            *backlog = Backlog::default();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::pidfd;
    use std::io::{Read, Write};

    const RUN: Generation = Generation(5);

    fn line(text: &str) -> HostWord {
        understand(Frame::Line(text.as_bytes().to_vec()), version::BUILD)
    }

    #[test]
    fn the_hello_is_judged_by_version_and_release() {
        let reply = |build: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"version":1,"build":"{build}"}}}}"#)
        };
        assert!(matches!(line(&reply(version::BUILD)), HostWord::Greeted));
        let HostWord::Refused(why) = line(&reply("9.9.9")) else {
            panic!("another release was greeted");
        };
        assert!(
            why.contains("9.9.9") && why.contains(version::BUILD),
            "{why}"
        );
        let refusal = r#"{"id":1,"error":{"code":-32001,"message":"no common version"}}"#;
        assert!(matches!(line(refusal), HostWord::Refused(why) if why == "no common version"));
    }

    #[test]
    fn every_kind_of_line_has_its_word() {
        let report =
            r#"{"method":"report","params":{"generation":5,"event":{"type":"turn_ended"}}}"#;
        assert!(matches!(
            line(report),
            HostWord::Reported(RUN, Event::TurnEnded {})
        ));
        let ask = r#"{"id":9,"method":"ask","params":{"generation":5,"text":"which?"}}"#;
        assert!(matches!(line(ask), HostWord::Asked(9, ask) if ask.text == "which?"));
        let send = r#"{"id":6,"method":"send","params":{"generation":5,"to":"b","text":"hello"}}"#;
        assert!(matches!(line(send), HostWord::Sent(6, send) if send.to.as_str() == "b"));
        let tasks = r#"{"id":7,"method":"tasks","params":{"generation":5}}"#;
        assert!(matches!(line(tasks), HostWord::TasksWanted(7, RUN)));
        let pong = r#"{"id":2,"result":{"output_bytes":3,"family":{"memory_bytes":1,"memory_peak_bytes":2,"cpu_ms":4,"processes":1,"begun":1}}}"#;
        assert!(matches!(line(pong), HostWord::Ponged(pong) if pong.family.cpu_ms == 4));
        let unknown = r#"{"id":3,"method":"lend_me_money","params":{}}"#;
        assert!(matches!(
            line(unknown),
            HostWord::Unanswerable(3, error) if error.code == ERROR_UNKNOWN_METHOD
        ));
        let bad = r#"{"id":4,"method":"ask","params":{"generation":"x"}}"#;
        assert!(matches!(
            line(bad),
            HostWord::Unanswerable(4, error) if error.code == ERROR_BAD_PARAMS
        ));
    }

    #[test]
    fn what_is_kept_of_a_long_line_is_small() {
        let long = "x".repeat(LINE_MAX / 2);
        let report = format!(
            r#"{{"method":"report","params":{{"generation":5,"event":{{"type":"reply","text":"{long}"}}}}}}"#
        );
        assert!(matches!(
            line(&report),
            HostWord::Reported(RUN, Event::Reply(said)) if said.text.len() == EXCERPT_MAX
        ));
        let ask =
            format!(r#"{{"id":9,"method":"ask","params":{{"generation":5,"text":"{long}"}}}}"#);
        assert!(matches!(line(&ask), HostWord::Asked(9, ask) if ask.text.len() < long.len() / 8));
        let send = format!(
            r#"{{"id":6,"method":"send","params":{{"generation":5,"to":"b","text":"{long}"}}}}"#
        );
        assert!(matches!(line(&send), HostWord::Unanswerable(6, _)));
        let refusal = format!(r#"{{"id":1,"error":{{"code":-32001,"message":"{long}"}}}}"#);
        assert!(matches!(line(&refusal), HostWord::Refused(why) if why.len() == EXCERPT_MAX));
        let other = format!(r#"{{"id":1,"result":{{"version":1,"build":"{long}"}}}}"#);
        assert!(matches!(line(&other), HostWord::Refused(why) if why.len() == EXCERPT_MAX));
    }

    #[test]
    fn what_is_not_the_protocol_is_a_fault_of_its_kind() {
        let garbage = [
            "hello?",
            "{}",
            r#"{"method":"report","params":{"generation":5,"event":{"type":"no_such"}}}"#,
            r#"{"method":"no_such"}"#,
            r#"{"id":2,"error":{"code":1,"message":"no"}}"#,
        ];
        for text in garbage {
            assert!(
                matches!(line(text), HostWord::Fault(WireFault::Garbage)),
                "{text}"
            );
        }
        assert!(matches!(
            understand(Frame::Blank, version::BUILD),
            HostWord::Fault(WireFault::Blank)
        ));
        assert!(matches!(
            understand(Frame::TooLong { seen: 1 }, version::BUILD),
            HostWord::Fault(WireFault::TooLong)
        ));
    }

    /// A process whose end the test decides, and a pipe that stands for its stdout.
    struct Scene {
        child: std::process::Child,
        stdout: Option<std::io::PipeWriter>,
        words: mpsc::Receiver<(Generation, HostWord)>,
        heard: Words,
        process: Arc<AsyncFd<OwnedFd>>,
        park: watch::Sender<bool>,
    }

    fn scene(words_max: usize) -> Scene {
        #[expect(clippy::disallowed_methods, reason = "a process that ends on command")]
        let child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let process = Arc::new(pidfd::watch(pidfd::open(child.id()).unwrap()).unwrap());
        let (reader, stdout) = std::io::pipe().unwrap();
        let reader = pipe::Receiver::from_owned_fd(reader.into()).unwrap();
        let (sender, words) = mpsc::channel(words_max);
        let park = watch::Sender::new(false);
        let inlet = Inlet::new(reader, version::BUILD.into());
        let listening = listen(
            RUN,
            inlet,
            process.clone(),
            sender.clone(),
            park.subscribe(),
        );
        drop(tokio::spawn(listening));
        Scene {
            child,
            stdout: Some(stdout),
            words,
            heard: sender,
            process,
            park,
        }
    }

    impl Scene {
        async fn next(&mut self) -> HostWord {
            let (run, word) = self.words.recv().await.unwrap();
            assert_eq!(run, RUN);
            word
        }
        fn say(&mut self, text: &str) {
            self.stdout
                .as_mut()
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        fn end(&mut self) {
            drop(self.child.stdin.take());
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            drop(self.child.stdin.take());
            self.child.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn the_end_of_stdout_is_not_the_end_of_the_host() {
        let mut scene = scene(8);
        scene.say("\n");
        scene.stdout = None;
        assert!(matches!(
            scene.next().await,
            HostWord::Fault(WireFault::Blank)
        ));
        tokio::task::yield_now().await;
        assert!(scene.words.try_recv().is_err());
        scene.end();
        assert!(matches!(scene.next().await, HostWord::Ended));
    }

    #[tokio::test]
    async fn what_a_host_wrote_before_its_end_is_heard_before_it() {
        // Room for one word: the host's end is there long before its last word was taken.
        let mut scene = scene(1);
        scene.say("\n\nnot json\n\n");
        scene.end();
        for _ in 0..2 {
            assert!(matches!(
                scene.next().await,
                HostWord::Fault(WireFault::Blank)
            ));
        }
        assert!(matches!(
            scene.next().await,
            HostWord::Fault(WireFault::Garbage)
        ));
        assert!(matches!(
            scene.next().await,
            HostWord::Fault(WireFault::Blank)
        ));
        assert!(matches!(scene.next().await, HostWord::Ended));
        assert_eq!(scene.heard.strong_count(), 1, "the listener has ended");
    }

    #[tokio::test]
    async fn a_survivor_that_holds_the_pipe_does_not_delay_the_end() {
        let mut scene = scene(8);
        scene.end(); // the writing end stays open in the test
        assert!(matches!(scene.next().await, HostWord::Ended));
    }

    #[tokio::test]
    async fn a_parked_pipe_goes_on_in_the_middle_of_a_line() {
        let mut scene = scene(1);
        scene.say("\n\n{\"method\":\"report\",\"params\":{\"generation\":5,");
        scene.park.send_replace(true);
        let mut words = Vec::new();
        let inlet = loop {
            match scene.next().await {
                HostWord::Parked(inlet) => break inlet,
                word => words.push(word),
            }
        };
        // Whether the switch was seen before the bytes is open; nothing is told twice or lost.
        scene.say("\"event\":{\"type\":\"turn_ended\"}}}\n");
        scene.park.send_replace(false);
        let (line, open) = inlet.rest();
        let stdout = inlet.stdout.into_blocking_fd().unwrap();
        set_nonblocking(&stdout).unwrap();
        let stdout = pipe::Receiver::from_owned_fd(stdout).unwrap();
        let inlet = Inlet::resume(stdout, version::BUILD.into(), line, open);
        let (process, heard) = (scene.process.clone(), scene.heard.clone());
        drop(tokio::spawn(listen(
            RUN,
            inlet,
            process,
            heard,
            scene.park.subscribe(),
        )));
        scene.end();
        loop {
            match scene.next().await {
                HostWord::Ended => break,
                word => words.push(word),
            }
        }
        assert!(
            matches!(
                words.as_slice(),
                [
                    HostWord::Fault(WireFault::Blank),
                    HostWord::Fault(WireFault::Blank),
                    HostWord::Reported(RUN, Event::TurnEnded {})
                ]
            ),
            "{words:?}"
        );
    }

    #[tokio::test]
    async fn what_waits_for_a_host_goes_on_through_another_outlet() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let second = writer.try_clone().unwrap();
        let outlet = Outlet::new(writer.into()).unwrap();
        let mut sent = Vec::new();
        for number in 0..40_000_u32 {
            let line = format!("{number}\n");
            assert_eq!(outlet.send(line.as_bytes()), Sent::Taken);
            sent.extend_from_slice(line.as_bytes());
        }
        // The event loop has not run since, so the first outlet has flushed nothing.
        let left = outlet.unsent();
        assert!(!left.bytes.is_empty() && !left.closed);
        *lock(&outlet.backlog) = Backlog::default();
        let resumed = Outlet::resume(second.into(), left).unwrap();
        assert_eq!(resumed.send(b"last\n"), Sent::Taken);
        sent.extend_from_slice(b"last\n");
        let length = sent.len();
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = vec![0; length];
            reader.read_exact(&mut all).unwrap();
            all
        });
        assert!(reading.await.unwrap() == sent);
    }

    #[tokio::test]
    async fn a_host_that_does_not_read_costs_a_bounded_backlog_and_never_blocks() {
        let (reader, writer) = std::io::pipe().unwrap();
        let outlet = Outlet::new(writer.into()).unwrap();
        let line = vec![b'x'; 64 * 1024];
        let mut taken = 0;
        while outlet.send(&line) == Sent::Taken {
            taken += line.len();
            assert!(taken <= BACKLOG_MAX + (2 << 20), "no bound");
        }
        assert_eq!(outlet.send(&line), Sent::Dropped);
        let mut read = reader;
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = vec![0; taken];
            read.read_exact(&mut all).unwrap();
            (read, all)
        });
        let (read, all) = reading.await.unwrap();
        assert!(all.iter().all(|&byte| byte == b'x'));
        drop(read);
    }

    #[tokio::test]
    async fn lines_keep_their_order_through_the_backlog() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let outlet = Outlet::new(writer.into()).unwrap();
        let mut sent = Vec::new();
        for number in 0..40_000_u32 {
            let line = format!("{number}\n");
            assert_eq!(outlet.send(line.as_bytes()), Sent::Taken);
            sent.extend_from_slice(line.as_bytes());
        }
        let length = sent.len();
        let reading = tokio::task::spawn_blocking(move || {
            let mut all = vec![0; length];
            reader.read_exact(&mut all).unwrap();
            all
        });
        assert!(reading.await.unwrap() == sent);
    }

    #[tokio::test]
    async fn a_host_that_closed_its_stdin_is_told_nothing_more() {
        let (reader, writer) = std::io::pipe().unwrap();
        let outlet = Outlet::new(writer.into()).unwrap();
        drop(reader);
        assert_eq!(outlet.send(b"x\n"), Sent::Closed);
        assert_eq!(outlet.send(b"x\n"), Sent::Closed);
    }
}
