//! A small supervisor for tests: it starts the real program and talks to it over pipes.
//!
//! It never sleeps. It waits for lines, for the end of the pipe, and for the *witness*: a named pipe
//! that every shell of the run opens as descriptor 9, so that a process can say that it is up, and
//! the pipe's end proves that the last of them is gone. (The host passes on nothing that it inherits.)

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, ExitStatus, Stdio};

use protocol::command::{
    Adapter, Command, CommandAdapter, Message, Pong, PromptBy, RunKind, ScriptedAdapter, Start,
    SteerMode, Stop, Text,
};
use protocol::exit_file::ExitFile;
use protocol::ids::{AttemptNo, Generation, MessageId};
use protocol::report::{Event, Report, RunResult};
use protocol::rpc::{self, Incoming, RpcError};
use protocol::version::Hello;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// Makes the named pipe, and the `sh` that runs find first, which opens it. Returns the reading end,
/// and a writing end so that the pipe does not end before the first process is up.
fn witness(home: &Path) -> (File, File) {
    let pipe = home.join("witness");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let hold = File::options().read(true).write(true).open(&pipe).unwrap();
    let reader = File::open(&pipe).unwrap();
    let shell = home.join("bin/sh");
    std::fs::create_dir(home.join("bin")).unwrap();
    let text = format!(
        "#!/bin/sh\nexec 9>'{}'\nexec /bin/sh \"$@\"\n",
        pipe.display()
    );
    std::fs::write(&shell, text).unwrap();
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o700)).unwrap();
    (reader, hold)
}

/// One host and the conversation with it.
pub(crate) struct Client {
    home: Option<TempDir>,
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    witness: BufReader<File>,
    /// A write end of ours, until only the end of all others is waited for.
    hold: Option<File>,
    /// Events read while waiting for something else.
    early: VecDeque<Event>,
    /// Requests of the host, as they came: number, method.
    pub(crate) requests: VecDeque<(u64, String)>,
    /// Their parameters, by their number.
    asked: BTreeMap<u64, String>,
    next_id: u64,
}

/// What was left when a host had ended.
pub(crate) struct Ended {
    pub(crate) home: TempDir,
    pub(crate) status: ExitStatus,
    pub(crate) events: Vec<Event>,
    pub(crate) stderr: String,
}

impl Client {
    /// Starts a host; nothing is said yet.
    pub(crate) fn spawn() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (witness, hold) = witness(home.path());
        let mut program = Program::new(env!("CARGO_BIN_EXE_agent-host"));
        program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        Self {
            home: Some(home),
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            witness: BufReader::new(witness),
            hold: Some(hold),
            child,
            early: VecDeque::new(),
            requests: VecDeque::new(),
            asked: BTreeMap::new(),
            next_id: 1,
        }
    }

    /// A host that has accepted our hello.
    pub(crate) fn greeted() -> Self {
        let mut client = Self::spawn();
        client.request("hello", Hello::ours()).unwrap();
        client
    }

    /// A host that carries out `start`.
    pub(crate) fn started(start: impl FnOnce(&Self) -> Start) -> Self {
        let mut client = Self::greeted();
        let start = start(&client);
        client.tell(&Command::Start(Box::new(start)));
        client
    }

    /// A host that runs a shell line.
    pub(crate) fn shell(line: &str) -> Self {
        Self::started(|client| client.start(command(&["sh", "-c", line])))
    }

    /// A host that plays a script.
    pub(crate) fn script(json: &str) -> Self {
        Self::started(|client| client.start(script(json)))
    }

    /// A start with moderate limits; the lease ends a test that hangs.
    pub(crate) fn start(&self, adapter: Adapter) -> Start {
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.path("bin").display());
        Start {
            generation: Generation(7),
            batch: "batch".parse().unwrap(),
            task: "task".parse().unwrap(),
            attempt: AttemptNo(1),
            kind: RunKind::Agent,
            cwd: self.path("").display().to_string(),
            run_dir: self.path("state/runs/7").display().to_string(),
            task_dir: self.path("state").display().to_string(),
            prompt: None,
            hand_off: None,
            env: BTreeMap::from([("PATH".to_owned(), path)]),
            session: None,
            messages: Vec::new(),
            injected: Vec::new(),
            log_max: 1 << 30,
            lease_ms: 60_000,
            cgroup: None,
            memory: None,
            adapter,
        }
    }

    /// A path below the home of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.as_ref().unwrap().path().join(name)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Sends a command.
    pub(crate) fn tell(&mut self, command: &Command) {
        #[derive(Serialize)]
        struct Line<'a> {
            jsonrpc: &'static str,
            #[serde(flatten)]
            command: &'a Command,
        }
        let mut line = serde_json::to_vec(&Line {
            jsonrpc: "2.0",
            command,
        })
        .unwrap();
        line.push(b'\n');
        self.send(&line);
    }

    /// Sends a message of the operator.
    pub(crate) fn deliver(&mut self, id: u64, mode: SteerMode, text: &str) {
        self.tell(&Command::Deliver(message(id, mode, text)));
    }

    /// Asks the host to end.
    pub(crate) fn stop(&mut self, grace_ms: u64) {
        self.tell(&Command::Stop(Stop { grace_ms }));
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<String, RpcError> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&rpc::request(id, method, params).unwrap());
        loop {
            let line = self.line().expect("the host ended instead of answering");
            match rpc::read(&line).unwrap() {
                Incoming::Answer {
                    id: answered,
                    outcome,
                } if answered == id => {
                    return outcome.map(|value| value.get().to_owned());
                }
                other => self.put_aside(other),
            }
        }
    }

    /// The heartbeat.
    pub(crate) fn ping(&mut self) -> Pong {
        serde_json::from_str(&self.request("ping", ()).unwrap()).unwrap()
    }

    /// Answers a request of the host.
    pub(crate) fn answer(&mut self, id: u64, result: impl Serialize) {
        self.send(&rpc::answer(id, result).unwrap());
    }

    /// Refuses a request of the host.
    pub(crate) fn refuse(&mut self, id: u64, message: &str) {
        let error = RpcError {
            code: -32000,
            message: message.to_owned(),
        };
        self.send(&rpc::refusal(id, &error).unwrap());
    }

    /// The next line as bytes, without its newline; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let count = self.stdout.read_until(b'\n', &mut line).unwrap();
        (count > 0).then(|| {
            assert_eq!(line.pop(), Some(b'\n'), "the last line was cut");
            line
        })
    }

    /// The next event; `None` at the end.
    pub(crate) fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.early.pop_front() {
                return Some(event);
            }
            let line = self.line()?;
            let message = rpc::read(&line).unwrap_or_else(|error| {
                panic!("{error}: {}", String::from_utf8_lossy(&line));
            });
            self.put_aside(message);
        }
    }

    /// Waits for the first event that `pick` accepts; earlier ones are dropped.
    pub(crate) fn wait_for<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = self.event().expect("the host ended before the event came");
            if let Some(picked) = pick(&event) {
                return picked;
            }
        }
    }

    /// Waits for a request of the host and returns its number.
    pub(crate) fn wait_for_request(&mut self, wanted: &str) -> u64 {
        loop {
            if let Some((id, method)) = self.requests.pop_front() {
                assert_eq!(method, wanted);
                return id;
            }
            let line = self.line().expect("the host ended before it asked");
            let message = rpc::read(&line).unwrap();
            self.put_aside(message);
        }
    }

    /// As [`Client::wait_for_request`], with its parameters.
    pub(crate) fn wait_for_call<T: DeserializeOwned>(&mut self, wanted: &str) -> (u64, T) {
        let id = self.wait_for_request(wanted);
        (id, serde_json::from_str(&self.asked[&id]).unwrap())
    }

    fn put_aside(&mut self, message: Incoming<'_>) {
        match message {
            Incoming::Notification { method, params } => {
                assert_eq!(method, "report");
                let report: Report = serde_json::from_str(params.unwrap().get()).unwrap();
                assert_eq!(report.generation, Generation(7));
                self.early.push_back(report.event);
            }
            Incoming::Request { id, method, params } => {
                let params = params.map_or_else(String::new, |params| params.get().to_owned());
                self.asked.insert(id, params);
                self.requests.push_back((id, method));
            }
            Incoming::Answer { id, .. } => panic!("an answer to {id}, which was not asked"),
        }
    }

    /// The next line that a process of the run wrote to the witness.
    pub(crate) fn word(&mut self) -> String {
        let mut line = String::new();
        self.witness.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits until a process of the run has written this line to the witness.
    pub(crate) fn wait_for_word(&mut self, word: &str) {
        assert_eq!(self.word(), word);
    }

    /// Closes our end of the host's stdin.
    pub(crate) fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Waits for the end of the host, and then of every process that holds the witness.
    pub(crate) fn end(mut self) -> Ended {
        let mut events = Vec::new();
        while let Some(event) = self.event() {
            events.push(event);
        }
        let mut stderr = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut stderr)
            .unwrap();
        let status = self.child.wait().unwrap();
        let mut words = String::new();
        drop(self.hold.take());
        self.witness.read_to_string(&mut words).unwrap();
        Ended {
            home: self.home.take().unwrap(),
            status,
            events,
            stderr,
        }
    }

    /// As [`Client::end`], for a run that must end with a result.
    pub(crate) fn result(self) -> (RunResult, Ended) {
        let ended = self.end();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        (ended.result().expect("no result").clone(), ended)
    }
}

impl Ended {
    /// The result that was reported; it must be the last event and equal to the durable one.
    pub(crate) fn result(&self) -> Option<&RunResult> {
        let position = self
            .events
            .iter()
            .position(|event| matches!(event, Event::Result(_)))?;
        assert_eq!(
            position,
            self.events.len() - 1,
            "something came after the result"
        );
        let Event::Result(result) = &self.events[position] else {
            return None;
        };
        assert_eq!(self.exit_file().unwrap().result, **result);
        Some(result)
    }

    /// The durable result.
    pub(crate) fn exit_file(&self) -> Option<ExitFile> {
        let text = std::fs::read_to_string(self.home.path().join("state/runs/7/exit.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// A file below the home of the test; empty when it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.path().join(name)).unwrap_or_default()
    }

    /// A log of the run.
    pub(crate) fn log(&self, name: &str) -> String {
        self.text(&format!("state/runs/7/{name}"))
    }

    /// The notices of the run.
    pub(crate) fn notices(&self) -> Vec<&str> {
        let events = self.events.iter();
        let notices = events.filter_map(|event| match event {
            Event::Notice(said) => Some(said.text.as_str()),
            _ => None,
        });
        notices.collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // After `end` this does nothing; in a failed test it ends the host.
        self.stdin = None;
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A command without a prompt.
pub(crate) fn command(argv: &[&str]) -> Adapter {
    prompted(argv, PromptBy::None)
}

/// A command with a prompt.
pub(crate) fn prompted(argv: &[&str], prompt_by: PromptBy) -> Adapter {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    Adapter::Command(CommandAdapter {
        argv,
        prompt_by,
        result_file: None,
    })
}

/// A script.
pub(crate) fn script(json: &str) -> Adapter {
    Adapter::Scripted(ScriptedAdapter {
        script: Text::Inline(json.to_owned()),
    })
}

/// A message of the operator.
pub(crate) fn message(id: u64, mode: SteerMode, text: &str) -> Message {
    Message {
        id: MessageId(id),
        mode,
        text: text.to_owned(),
        from: None,
    }
}

/// Picks any event of a kind.
pub(crate) fn is(wanted: fn(&Event) -> bool) -> impl FnMut(&Event) -> Option<()> {
    move |event| wanted(event).then_some(())
}
