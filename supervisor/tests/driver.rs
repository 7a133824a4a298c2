//! Whole batches through the real loop, journal and processes, with a host that is a shell script.
//!
//! One at a time: a driver adopts and sweeps the children of this whole process, and signals reach
//! all of it.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use protocol::class::Class;
use protocol::ids::{QuestionId, TaskId};
use supervisor::control::client;
use supervisor::control::wire::{CONTROL_VERSION, Reply, Request, Rung, Want};
use supervisor::driver::{self, DriverError, Mode, Note, Observer, Options, Picture};
use supervisor::process::identity::Machine;
use supervisor::process::scan::{self, Found, Trace, Traces};
use supervisor::store::lock::lock;
use supervisor::store::{Check, Holder, RealDisk, StateDir, inbox, load};
use supervisor_core::core::{Change, Core};
use supervisor_core::effect::Ending;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::input::Created;
use supervisor_core::machine::{BatchState, MessageState, TaskState};
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Hooks, Keep,
    Limits, OnFailure, OnQuestion, Plan, PlannedTask, RetryPolicy, Settings, SpecIx, TaskSpec,
};
use supervisor_core::record::Record;
use supervisor_core::time::Wall;

const BATCH: &str = "some-batch";
/// Tells the child process of the crash story which state dir to work on.
const CRASH_VARIABLE: &str = "DRIVER_TEST_STATE_DIR";
/// Longest wait for something that takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(30);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A host that does what the first word of its task's command says.
const HOST: &str = r#"#!/bin/sh
say() { printf '%s\n' "$1"; }
report() {
    say "{\"jsonrpc\":\"2.0\",\"method\":\"report\",\"params\":{\"generation\":$run,\"event\":$1}}"
}
result() {
    mkdir -p "$dir"
    printf '{"v":1,"generation":%s,"result":{"status":"ok","summary":"%s"},"injected":[]}' \
        "$run" "$1" > "$dir/exit.json"
    report "{\"type\":\"result\",\"status\":\"ok\",\"summary\":\"$1\"}"
    exit 0
}
field() { printf '%s' "$1" | sed "s/.*\"$2\":\"\{0,1\}\([^\",}]*\).*/\1/"; }
IFS= read -r hello || exit 0
case "$hello" in *'"method":"hello"'*) ;; *) exit 9 ;; esac
if [ -e skew ]; then build=0.0.0-other; else build=BUILD; fi
say "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"version\":1,\"build\":\"$build\"}}"
IFS= read -r start || exit 0
run=$(field "$start" generation)
dir=$(field "$start" run_dir)
report '{"type":"started","capabilities":{"steer":"boundary","receipt":"seen","interrupt":false,"resume":false,"questions":true,"usage":false,"cost":false}}'
case "$start" in
*'"argv":["fine"'*) result 'it went well' ;;
*'"argv":["silent"'*) exit 0 ;;
*'"argv":["once"'*)
    # The second time it finds what the first one left, and does its work.
    if [ -e seen ]; then result 'the second time'; fi
    : > seen; while IFS= read -r line; do :; done; exit 0 ;;
*'"argv":["listen"'*)
    IFS= read -r line
    id=$(field "$line" id)
    report "{\"type\":\"message_injected\",\"id\":$id}"
    report "{\"type\":\"message_seen\",\"id\":$id}"
    result "$(field "$line" text)" ;;
*'"argv":["ask"'*)
    say "{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"ask\",\"params\":{\"generation\":$run,\"text\":\"left or right?\"}}"
    IFS= read -r asked; IFS= read -r answer
    case "$asked" in *'"id":77'*) result "$(field "$answer" text)" ;; esac ;;
*'"argv":["linger"'*)
    sleep 1000 &
    while IFS= read -r line; do
        case "$line" in *'"method":"stop"'*) exit 0 ;; esac
    done ;;
*'"argv":["garbage"'*)
    count=0
    while [ $count -lt 200 ]; do say 'what?'; count=$((count + 1)); done
    while IFS= read -r line; do :; done ;;
esac
"#;

struct World {
    _alone: MutexGuard<'static, ()>,
    _folder: tempfile::TempDir,
    dir: StateDir,
    host: PathBuf,
}

fn world() -> World {
    let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::at(folder.path().join("state"));
    dir.create(&RealDisk).unwrap();
    let host = folder.path().join("host");
    std::fs::write(&host, HOST.replace("BUILD", protocol::version::BUILD)).unwrap();
    std::fs::set_permissions(&host, std::fs::Permissions::from_mode(0o700)).unwrap();
    World {
        _alone: alone,
        _folder: folder,
        dir,
        host,
    }
}

/// What the observer was told, line by line, for whoever waits for a line.
struct Tape(mpsc::Sender<String>);

impl Observer for Tape {
    fn changed(&mut self, _picture: Picture<'_>, changes: &[Change]) {
        for change in changes {
            self.tell(format!("{change:?}"));
        }
    }
    fn noted(&mut self, note: Note<'_>) {
        self.tell(format!("{note:?}"));
    }
    fn refresh_every(&self) -> Option<Duration> {
        None
    }
    fn refresh(&mut self, _picture: Picture<'_>) {}
}

impl Tape {
    /// The story may be over before the driver is: then nobody listens.
    fn tell(&self, line: String) {
        let _unheard = self.0.send(line);
    }
}

/// A supervisor at work in a thread of its own.
struct Supervisor {
    thread: JoinHandle<Result<Ending, DriverError>>,
    lines: mpsc::Receiver<String>,
    heard: Vec<String>,
    socket: PathBuf,
}

fn start(dir: &StateDir, host: &Path, mode: Mode) -> Supervisor {
    let (tape, lines) = mpsc::channel();
    let socket = dir.path().join("s.sock");
    let (dir, host, listen) = (dir.clone(), host.to_owned(), socket.clone());
    let thread = std::thread::spawn(move || supervise(dir, host, listen, mode, Tape(tape)));
    Supervisor {
        thread,
        lines,
        heard: Vec::new(),
        socket,
    }
}

fn supervise(
    dir: StateDir,
    host: PathBuf,
    socket: PathBuf,
    mode: Mode,
    mut tape: Tape,
) -> Result<Ending, DriverError> {
    let holder = Holder {
        pid: std::process::id(),
        start_ticks: 1,
        socket: socket.clone(),
        guardian: None,
    };
    let lock = lock(&dir, &holder)?;
    driver::run(Options {
        guarded: None,
        dir,
        lock,
        socket,
        host,
        mode,
        commands: Vec::new(),
        observer: &mut tape,
    })
}

impl Supervisor {
    /// Waits until the observer was told a line with all of these parts.
    fn told(&mut self, parts: &[&str]) -> String {
        loop {
            let line = self
                .lines
                .recv_timeout(SOON)
                .unwrap_or_else(|_| panic!("never told {parts:?}, but {:#?}", self.heard));
            self.heard.push(line.clone());
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }
    fn ask(&self, want: Want) -> Vec<Reply> {
        ask(&self.socket, want)
    }
    fn end(self) -> Result<Ending, DriverError> {
        self.thread.join().unwrap()
    }
}

fn ask(socket: &Path, want: Want) -> Vec<Reply> {
    let request = Request {
        v: CONTROL_VERSION,
        batch: BATCH.parse().unwrap(),
        want,
    };
    let mut replies = client::send(socket, &request).unwrap();
    let mut all = Vec::new();
    while let Some(reply) = replies.next(Some(SOON)).unwrap() {
        all.push(reply);
    }
    all
}

impl World {
    fn create(&self, acts: &[&str]) -> Supervisor {
        let mode = create(acts, self.dir.path());
        start(&self.dir, &self.host, mode)
    }
    fn resume(&self) -> Supervisor {
        start(&self.dir, &self.host, Mode::Resume)
    }
    /// The state as the journal alone tells it.
    fn facts(&self) -> Facts {
        let loaded = load(&RealDisk, &self.dir, Check::Whole).unwrap();
        let mut core = loaded.checkpoint.map_or_else(Core::new, Core::restore);
        for entry in &loaded.entries {
            core.replay(entry).unwrap();
        }
        core.facts().unwrap().clone()
    }
    fn task(&self, number: usize) -> Task {
        self.facts().tasks[number].clone()
    }
}

fn id(number: usize) -> TaskId {
    format!("task-{number}").parse().unwrap()
}

/// A batch of one task for each act of the host, one at a time.
fn create(acts: &[&str], folder: &Path) -> Mode {
    let specs = acts.iter().map(|act| Arc::new(spec(act))).collect();
    let tasks = (0_u32..).zip(acts).map(|(number, _)| PlannedTask {
        id: id(number as usize),
        spec: SpecIx(number),
        item: None,
        touches: Arc::from([]),
        depends_on: Box::new([]),
    });
    let plan = Plan {
        settings: settings(folder),
        agents: vec![AgentSpec {
            name: "run".into(),
            kind: AgentKind::Command,
            account: AccountIx(0),
            concurrency: None,
            models: Vec::new(),
            work: r#"{"drive":"run"}"#.into(),
        }],
        accounts: vec![AccountSpec {
            name: "run".into(),
            concurrency: None,
            auto_resume: AutoResume::Always,
        }],
        repos: Vec::new(),
        specs,
        tasks: tasks.collect(),
    };
    Mode::Create(Box::new(Created {
        id: BATCH.parse().unwrap(),
        // Spawn tokens come from it: those of stories that run side by side must differ, or one
        // takes the other's processes for its own.
        seed: u64::from(std::process::id()),
        plan,
        only: Vec::new(),
    }))
}

fn settings(folder: &Path) -> Settings {
    let work = serde_json::json!({"file": "batch.yml", "folder": folder});
    Settings {
        name: "some".into(),
        concurrency: 1,
        on_failure: OnFailure::SkipDependents,
        max_failures: None,
        not_before: None,
        until: None,
        limits: Limits::default(),
        lost_max: 25,
        keep: Keep::Failed,
        work: work.to_string().into(),
    }
}

fn spec(act: &str) -> TaskSpec {
    TaskSpec {
        agent: AgentIx(0),
        attempts: 1,
        timeout: Duration::from_secs(600),
        silence: Duration::from_secs(600),
        no_progress: Duration::from_secs(600),
        priority: 0,
        verify: false,
        worktree: None,
        changes: false,
        review: None,
        fetch: false,
        comments: Comments::default(),
        hooks: Hooks::default(),
        retry: RetryPolicy {
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
            by_class: std::collections::BTreeMap::new(),
        },
        limits: Limits::default(),
        memory_max: None,
        not_before: None,
        on_question: OnQuestion::Wait,
        question_timeout: Duration::from_secs(600),
        containment: supervisor_core::containment::Wish::Auto,
        work: serde_json::json!({"act": {"run": [act]}})
            .to_string()
            .into(),
    }
}

#[test]
fn a_batch_is_done_when_its_hosts_say_so() {
    let world = world();
    let supervisor = world.create(&["fine", "fine"]);
    assert_eq!(supervisor.end().unwrap(), Ending::Done);
    let facts = world.facts();
    for task in &facts.tasks {
        assert_eq!(task.state, TaskState::Done);
        assert_eq!(&*task.last.as_ref().unwrap().summary, "it went well");
    }
    assert!(facts.runs.is_empty());
    assert!(
        !world.dir.path().join("s.sock").exists(),
        "the socket is left"
    );
}

#[test]
fn a_host_that_ends_without_a_result_fails_its_task_and_the_batch_goes_on() {
    let world = world();
    let supervisor = world.create(&["silent", "garbage", "fine"]);
    assert_eq!(supervisor.end().unwrap(), Ending::Failed);
    let class = |number: usize| world.task(number).last.unwrap().class;
    assert_eq!(class(0), Some(Class::NoResult));
    assert_eq!(class(1), Some(Class::Protocol));
    assert_eq!(world.task(2).state, TaskState::Done);
}

#[test]
fn a_host_of_another_release_is_not_given_work() {
    let world = world();
    std::fs::write(world.dir.path().join("skew"), "").unwrap();
    let supervisor = world.create(&["fine"]);
    assert_eq!(supervisor.end().unwrap(), Ending::Environment);
    let last = world.task(0).last.unwrap();
    assert_eq!(last.class, Some(Class::SpawnFailure));
    assert!(last.detail.contains("0.0.0-other"), "{}", last.detail);
}

#[test]
fn a_message_climbs_the_ladder_while_its_sender_waits() {
    let world = world();
    let mut supervisor = world.create(&["listen"]);
    supervisor.told(&["Run(", "\"started\""]);
    let replies = supervisor.ask(Want::Steer {
        tasks: vec![id(0)],
        mode: protocol::command::SteerMode::Boundary,
        text: "look left".to_owned(),
        expires_ms: None,
        wait: Some(Rung::Injected),
    });
    let states: Vec<&str> = replies
        .iter()
        .filter_map(|reply| match reply {
            Reply::Moved { state, .. } => Some(state.as_str()),
            _other => None,
        })
        .collect();
    assert_eq!(states, ["sent", "injected"], "{replies:?}");
    assert!(matches!(replies.last(), Some(Reply::Done { .. })));
    assert_eq!(supervisor.end().unwrap(), Ending::Done);
    assert_eq!(&*world.task(0).last.unwrap().summary, "look left");
    let messages = world.facts().messages;
    assert!(
        messages
            .values()
            .all(|message| message.state == MessageState::Seen)
    );
}

#[test]
fn a_question_reaches_the_operator_and_its_answer_the_host() {
    let world = world();
    let mut supervisor = world.create(&["ask"]);
    supervisor.told(&["Task(TaskIx(0)", "\"waiting\""]);
    let replies = supervisor.ask(Want::Answer {
        question: QuestionId(1),
        text: "right".to_owned(),
    });
    assert!(matches!(replies[..], [Reply::Done { .. }]), "{replies:?}");
    assert_eq!(supervisor.end().unwrap(), Ending::Done);
    assert_eq!(&*world.task(0).last.unwrap().summary, "right");
}

#[test]
fn a_task_that_is_not_there_is_named_in_the_refusal() {
    let world = world();
    let mut supervisor = world.create(&["linger"]);
    supervisor.told(&["Run(", "\"started\""]);
    let skip = Want::Skip {
        tasks: vec![id(9)],
        as_done: false,
    };
    let replies = supervisor.ask(skip);
    let [Reply::Refused { code: 6, text }] = &replies[..] else {
        panic!("{replies:?}");
    };
    assert!(text.contains("task-9"));
    let activity = supervisor.ask(Want::Activity);
    let [Reply::Activity { runs }] = &activity[..] else {
        panic!("{activity:?}");
    };
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].task, id(0));
    assert!(runs[0].pid.is_some());
    supervisor.ask(Want::Kill {
        tasks: None,
        grace_ms: 0,
    });
    supervisor.end().unwrap();
}

/// A client that found no supervisor put its request away while one began and looked: it says so,
/// and the request is carried out now, and once.
#[test]
fn a_request_that_comes_after_the_look_into_the_inbox_is_not_left_there() {
    let world = world();
    let mut supervisor = world.create(&["linger"]);
    supervisor.told(&["Run(", "\"started\""]);
    let request = Request {
        v: CONTROL_VERSION,
        batch: world.facts().batch.id,
        want: Want::Pause {
            tasks: None,
            now: false,
        },
    };
    inbox::put(&RealDisk, &world.dir, Wall(1), 1, &request).unwrap();
    for _again in 0..3 {
        let replies = supervisor.ask(Want::Inbox);
        assert!(matches!(&replies[..], [Reply::Done { .. }]), "{replies:?}");
    }
    wait_until("the request is carried out", || {
        inbox::waiting(&RealDisk, &world.dir).unwrap().is_empty()
    });
    let loaded = load(&RealDisk, &world.dir, Check::Whole).unwrap();
    let is_pause = |record: &Record| matches!(record, Record::BatchMoved { to, .. } if *to == BatchState::Paused);
    let pauses = loaded
        .entries
        .iter()
        .filter(|entry| is_pause(&entry.record));
    assert_eq!(pauses.count(), 1);
    supervisor.ask(Want::Kill {
        tasks: None,
        grace_ms: 0,
    });
    supervisor.end().unwrap();
}

#[test]
fn to_kill_a_batch_ends_its_trees_its_supervisor_and_pauses_its_tasks() {
    let world = world();
    let mut supervisor = world.create(&["linger"]);
    supervisor.told(&["Run(", "\"started\""]);
    let token = world.facts().runs.values().next().unwrap().token;
    let replies = supervisor.ask(Want::Kill {
        tasks: None,
        grace_ms: 0,
    });
    assert!(
        matches!(replies.first(), Some(Reply::Done { .. })),
        "{replies:?}"
    );
    supervisor.end().unwrap();
    let left = alive(token);
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(world.task(0).state, TaskState::Paused);
}

/// Not a test by itself: the supervisor that is signalled in the tests below.
#[test]
fn works_on_a_batch_when_told_to() {
    let Some(folder) = std::env::var_os(CRASH_VARIABLE) else {
        return;
    };
    let dir = StateDir::at(PathBuf::from(folder));
    let host = dir.path().with_file_name("host");
    let mode = create(&["once"], dir.path());
    let ending = start(&dir, &host, mode).end();
    let interrupted = matches!(ending, Ok(Ending::Interrupted));
    std::process::exit(if interrupted { 42 } else { 43 });
}

fn killable_supervisor(world: &World) -> Child {
    #[expect(
        clippy::disallowed_methods,
        reason = "the supervisor that is to be killed"
    )]
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "works_on_a_batch_when_told_to"])
        .env(CRASH_VARIABLE, world.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Waits for what another process does.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test's own limit, not the product's clock"
    )]
    let start = std::time::Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "never: {what}");
        std::thread::yield_now();
    }
}

/// What lives and carries this token.
fn alive(token: u128) -> Vec<Found> {
    let traces = Traces::new(vec![Trace::of_token(token)]);
    scan::look(&Machine::here().unwrap(), &traces)
        .unwrap()
        .found
}

fn terminate(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[test]
fn terminate_stops_what_runs_and_the_batch_can_be_resumed() {
    let world = world();
    let mut first = killable_supervisor(&world);
    wait_until("the agent runs", || world.dir.path().join("seen").exists());
    terminate(&first);
    wait_until("the batch is stopping", || {
        world.facts().batch.state == BatchState::Stopping
    });
    // This host does not know `stop`, only the end of its stdin: the second signal kills it.
    terminate(&first);
    assert_eq!(first.wait().unwrap().code(), Some(42));
    assert_eq!(world.facts().batch.state, BatchState::Interrupted);
    assert_eq!(world.resume().end().unwrap(), Ending::Done);
    assert_eq!(&*world.task(0).last.unwrap().summary, "the second time");
}

#[test]
fn a_killed_supervisor_is_followed_by_one_that_finds_out_and_goes_on() {
    let world = world();
    let mut first = killable_supervisor(&world);
    wait_until("the agent runs", || world.dir.path().join("seen").exists());
    let live = world.facts().runs;
    assert_eq!(live.len(), 1);
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = world.resume();
    let plan = second.told(&["Reconciled"]);
    assert!(
        plan.contains("process: Gone") && plan.contains("letter: D"),
        "{plan}"
    );
    assert_eq!(second.end().unwrap(), Ending::Done);
    let task = world.task(0);
    assert_eq!(&*task.last.unwrap().summary, "the second time");
    assert_eq!(task.consumed, 0, "a lost attempt was counted");
    assert_eq!(world.facts().batch.term, 2);
    for run in live.values() {
        wait_until("nothing of the killed run is left", || {
            let left = alive(run.token);
            left.is_empty()
        });
    }
}

#[test]
fn a_state_dir_is_created_once_and_resumed_only_after() {
    let world = world();
    assert!(matches!(
        world.resume().end(),
        Err(DriverError::Empty { .. })
    ));
    assert_eq!(world.create(&["fine"]).end().unwrap(), Ending::Done);
    let again = world.create(&["fine"]).end();
    assert!(
        matches!(again, Err(DriverError::NotEmpty { .. })),
        "{again:?}"
    );
}
