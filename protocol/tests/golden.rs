//! The wire and file formats, byte by byte: one file per message, never edited after a release.
//!
//! A new message fails here until it has a sample and a file. `GOLDEN_NEW=1 cargo test -p protocol
//! --test golden` writes the files that do not exist yet; it never touches one that does.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

#[path = "golden/compare.rs"]
#[macro_use]
mod compare;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use compare::{golden, parse};
use protocol::class::Class;
use protocol::command::{
    Adapter, Answer, Command, CommandAdapter, Message, Pong, PromptBy, RunKind, ScriptedAdapter,
    Start, SteerMode, Stop, Text, VerifyAdapter, VerifyCommand,
};
use protocol::exit_file::{EXIT_FILE_VERSION, ExitFile};
use protocol::forge::{
    CommentAdapter, CommentWork, Fetch, FetchAdapter, ForgeKind, Place, Reference,
};
use protocol::git::{Advance, Committed, Freshness, GitAdapter, GitOutcome, GitWork, Oid};
use protocol::ids::{AttemptNo, Generation, MessageId, QuestionId};
use protocol::program::{Credentials, Home, McpServer, Permissions, ProgramAdapter, ProgramKind};
use protocol::report::{
    Ask, Asked, Capabilities, Context, Event, Family, ListTasks, ProcessSpawned, Progress,
    RateLimited, Receipt, Report, ResultStatus, RunResult, Said, Send, Sent, Started, SteerReach,
    TaskLine, Tasks, Tool, Usage, Verdict,
};
use protocol::rpc::{self, ERROR_NO_COMMON_VERSION, Incoming, RpcError};
use protocol::version::{Hello, HelloReply};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One way of reading a line's content back.
enum Part {
    Params(&'static str),
    Result,
}

/// A line with an envelope: written, compared, read back, compared.
fn line<T: DeserializeOwned + PartialEq + Debug>(
    name: &str,
    part: &Part,
    value: &T,
    written: &[u8],
) {
    let bytes = golden(name, written);
    let incoming = rpc::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let content = match (part, incoming) {
        (
            Part::Params(wanted),
            Incoming::Request { method, params, .. } | Incoming::Notification { method, params },
        ) => {
            assert_eq!(&method, wanted, "{name}");
            params.unwrap_or_else(|| panic!("{name}: no params"))
        }
        (
            Part::Result,
            Incoming::Answer {
                outcome: Ok(result),
                ..
            },
        ) => result,
        (Part::Params(_) | Part::Result, other) => panic!("{name}: read as {other:?}"),
    };
    assert_eq!(&parse::<T>(name, content.get().as_bytes()), value, "{name}");
}

variants! {
    COMMANDS, command_name, Command,
    Command::Start(_) => "start",
    Command::Deliver(_) => "deliver",
    Command::Answer(_) => "answer",
    Command::Interrupt {} => "interrupt",
    Command::Stop(_) => "stop",
}

variants! {
    ADAPTERS, adapter_name, Adapter,
    Adapter::Scripted(_) => "scripted",
    Adapter::Command(_) => "command",
    Adapter::Program(_) => "program",
    Adapter::Verify(_) => "verify",
    Adapter::Hook(_) => "hook",
    Adapter::Git(_) => "git",
    Adapter::Fetch(_) => "fetch",
    Adapter::Comment(_) => "comment",
}

variants! {
    EVENTS, event_name, Event,
    Event::Started(_) => "started",
    Event::PromptSent {} => "prompt_sent",
    Event::AssistantMessage(_) => "assistant_message",
    Event::ToolCall(_) => "tool_call",
    Event::ToolResult(_) => "tool_result",
    Event::Usage(_) => "usage",
    Event::Context(_) => "context",
    Event::RateLimited(_) => "rate_limited",
    Event::Retry(_) => "retry",
    Event::Compaction(_) => "compaction",
    Event::Progress(_) => "progress",
    Event::Reply(_) => "reply",
    Event::Escalation(_) => "escalation",
    Event::MessageInjected { .. } => "message_injected",
    Event::MessageSeen { .. } => "message_seen",
    Event::ProcessSpawned(_) => "process_spawned",
    Event::TurnEnded {} => "turn_ended",
    Event::Notice(_) => "notice",
    Event::Result(_) => "result",
}

fn said(text: &str) -> Said {
    Said {
        text: text.to_owned(),
    }
}

fn message(id: u64, mode: SteerMode, text: &str) -> Message {
    Message {
        id: MessageId(id),
        mode,
        text: text.to_owned(),
        from: None,
    }
}

fn start(kind: RunKind, adapter: Adapter) -> Start {
    Start {
        generation: Generation(7),
        batch: "nightly-20261121T042000Z-k3x9".parse().unwrap(),
        task: "parse-errors".parse().unwrap(),
        attempt: AttemptNo(2),
        kind,
        cwd: "/home/op/web".to_owned(),
        run_dir: "/state/batches/b/tasks/parse-errors/attempts/2/runs/7".to_owned(),
        task_dir: "/state/batches/b/tasks/parse-errors".to_owned(),
        prompt: None,
        hand_off: None,
        env: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
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

fn start_command() -> Start {
    let adapter = Adapter::Command(CommandAdapter {
        argv: vec!["sh".to_owned(), "-c".to_owned(), "make \"all\"".to_owned()],
        prompt_by: PromptBy::Stdin,
        result_file: Some("/home/op/web/result.json".to_owned()),
    });
    Start {
        prompt: Some(Text::Inline(
            "Fix the parser.\nÜber alles: tests.".to_owned(),
        )),
        session: Some("3f2a".to_owned()),
        messages: vec![message(4, SteerMode::Restart, "start over")],
        injected: vec![MessageId(1), MessageId(3)],
        ..start(RunKind::Agent, adapter)
    }
}

fn start_scripted() -> Start {
    let adapter = Adapter::Scripted(ScriptedAdapter {
        script: Text::File("/state/script.json".to_owned()),
    });
    Start {
        prompt: Some(Text::File("/state/prompt.md".to_owned())),
        ..start(RunKind::Agent, adapter)
    }
}

fn start_verify() -> Start {
    let command = VerifyCommand {
        argv: vec!["cargo".to_owned(), "test".to_owned()],
        timeout_ms: 600_000,
        env: [("CI".to_owned(), "true".to_owned())].into(),
    };
    let commands = vec![command];
    start(RunKind::Verify, Adapter::Verify(VerifyAdapter { commands }))
}

fn start_hook() -> Start {
    let command = VerifyCommand {
        argv: vec!["./prepare".to_owned()],
        timeout_ms: 60_000,
        env: BTreeMap::new(),
    };
    let commands = vec![command];
    start(RunKind::Hook, Adapter::Hook(VerifyAdapter { commands }))
}

fn start_git() -> Start {
    let adapter = GitAdapter {
        work: GitWork::Advance(Advance {
            repo: "/home/op/web".to_owned(),
            into: "refs/heads/supervisor/nightly".to_owned(),
            from: oid('a'),
            to: oid('b'),
        }),
        timeout_ms: 600_000,
    };
    start(RunKind::Git, Adapter::Git(adapter))
}

fn oid(digit: char) -> Oid {
    Oid::try_from(digit.to_string().repeat(40)).unwrap()
}

fn start_program() -> Start {
    let server = McpServer {
        command: "docs".to_owned(),
        args: vec!["--stdio".to_owned()],
        env: [("PORT".to_owned(), "1".to_owned())].into(),
    };
    let adapter = Adapter::Program(ProgramAdapter {
        kind: ProgramKind::Claude,
        program: "claude".to_owned(),
        args: vec!["--max-turns".to_owned(), "50".to_owned()],
        model: Some("sonnet".to_owned()),
        permissions: Permissions::Full,
        home: Home::Task,
        credentials: Credentials::Copy,
        system_prompt: Some("Be brief.".to_owned()),
        mode: None,
        mcp: [("docs".to_owned(), server)].into(),
    });
    Start {
        prompt: Some(Text::Inline("Fix the parser.".to_owned())),
        hand_off: Some("Attempt 1 ended with `verify_failed`.".to_owned()),
        ..start(RunKind::Agent, adapter)
    }
}

fn start_fetch() -> Start {
    let adapter = FetchAdapter {
        fetch: Fetch {
            kind: ForgeKind::Pr,
            reference: Reference {
                place: Some(Place {
                    host: "github.com".to_owned(),
                    owner: "owner".to_owned(),
                    name: "repo".to_owned(),
                }),
                number: 123,
            },
            repo: Some("/home/op/web".to_owned()),
        },
        timeout_ms: 300_000,
    };
    start(RunKind::Hook, Adapter::Fetch(adapter))
}

fn start_comment() -> Start {
    let Adapter::Fetch(fetch) = start_fetch().adapter else {
        panic!("it is a fetch");
    };
    let adapter = CommentAdapter {
        comment: CommentWork {
            about: fetch.fetch,
            text: "The task `parse-errors` has failed.\n\n> exit status 1".to_owned(),
            mark: "<!-- supervisor nightly parse-errors 2 failed -->".to_owned(),
        },
        timeout_ms: 300_000,
    };
    start(RunKind::Hook, Adapter::Comment(adapter))
}

/// File name and command.
fn commands() -> Vec<(&'static str, Command)> {
    let answer = |text: Option<&str>| {
        Command::Answer(Answer {
            question: QuestionId(1),
            text: text.map(str::to_owned),
        })
    };
    vec![
        ("start_command", Command::Start(Box::new(start_command()))),
        ("start_scripted", Command::Start(Box::new(start_scripted()))),
        ("start_verify", Command::Start(Box::new(start_verify()))),
        ("start_fetch", Command::Start(Box::new(start_fetch()))),
        ("start_comment", Command::Start(Box::new(start_comment()))),
        ("start_program", Command::Start(Box::new(start_program()))),
        ("start_hook", Command::Start(Box::new(start_hook()))),
        ("start_git", Command::Start(Box::new(start_git()))),
        (
            "deliver",
            Command::Deliver(message(5, SteerMode::Boundary, "use \"v2\" — not v1")),
        ),
        ("answer", answer(Some("yes"))),
        ("answer_expired", answer(None)),
        ("interrupt", Command::Interrupt {}),
        ("stop", Command::Stop(Stop { grace_ms: 10_000 })),
    ]
}

fn capabilities() -> Capabilities {
    Capabilities {
        steer: SteerReach::Boundary,
        receipt: Receipt::Seen,
        interrupt: true,
        resume: false,
        questions: true,
        usage: false,
        cost: false,
    }
}

fn family() -> Family {
    Family {
        memory_bytes: 41_943_040,
        memory_peak_bytes: 52_428_800,
        cpu_ms: 1_250,
        processes: 3,
        begun: 17,
        unread: 0,
    }
}

fn result_ok() -> RunResult {
    RunResult {
        status: ResultStatus::Ok,
        class: None,
        summary: "fixed".to_owned(),
        exit_code: Some(0),
        signal: None,
        reset_at_ms: None,
        session: Some("3f2a".to_owned()),
        usage: Usage {
            turns: 3,
            tokens: 1200,
            cost_micros: 45_000,
        },
        family: Some(family()),
        evidence: String::new(),
        artifacts: vec!["target/report.html".to_owned()],
        verdict: None,
        git: None,
    }
}

fn result_failed() -> RunResult {
    RunResult {
        status: ResultStatus::Failed,
        class: Some(Class::UsageLimit),
        summary: "limit reached".to_owned(),
        exit_code: None,
        signal: Some(9),
        reset_at_ms: Some(1_795_000_000_000),
        session: None,
        usage: Usage::default(),
        family: None,
        evidence: "last words".to_owned(),
        artifacts: Vec::new(),
        verdict: None,
        git: None,
    }
}

fn result_of_git() -> RunResult {
    let committed = GitOutcome::Committed(Committed {
        commit: oid('c'),
        files: 3,
        markers: vec!["src/lib.rs".to_owned()],
        outside: vec!["docs/a.md".to_owned()],
        missing: vec!["report.html".to_owned()],
        warnings: vec!["vendor is a git repository of its own".to_owned()],
    });
    RunResult {
        git: Some(Box::new(committed)),
        ..result_ok()
    }
}

fn result_of_review() -> RunResult {
    RunResult {
        verdict: Some(Verdict::Revise),
        ..result_ok()
    }
}

/// File name and event; `result` with and without what may be absent, with and without what may be absent.
fn events() -> Vec<(&'static str, Event)> {
    let tool = |ok| Tool {
        name: "bash".to_owned(),
        detail: "cargo test".to_owned(),
        ok,
    };
    let started = Started {
        capabilities: capabilities(),
        session: Some("3f2a".to_owned()),
    };
    let limited = RateLimited {
        reset_at_ms: Some(1_795_000_000_000),
        detail: "5-hour limit".to_owned(),
    };
    let progress = Progress {
        text: "step 2 of 4".to_owned(),
        percent: Some(50),
    };
    let process = ProcessSpawned {
        pid: 4711,
        start_ticks: 123_456,
        command: "cargo test".to_owned(),
    };
    let context = Context {
        used: 90_000,
        window: 200_000,
    };
    let usage = result_ok().usage;
    vec![
        ("report_started", Event::Started(started)),
        ("report_prompt_sent", Event::PromptSent {}),
        (
            "report_assistant_message",
            Event::AssistantMessage(said("I see.\tNow…")),
        ),
        ("report_tool_call", Event::ToolCall(tool(None))),
        ("report_tool_result", Event::ToolResult(tool(Some(false)))),
        ("report_usage", Event::Usage(usage)),
        ("report_context", Event::Context(context)),
        ("report_rate_limited", Event::RateLimited(limited)),
        (
            "report_retry",
            Event::Retry(said("overloaded, again in 2 s")),
        ),
        ("report_compaction", Event::Compaction(said("90k to 20k"))),
        ("report_progress", Event::Progress(progress)),
        ("report_reply", Event::Reply(said("understood"))),
        (
            "report_escalation",
            Event::Escalation(said("the key is missing")),
        ),
        (
            "report_message_injected",
            Event::MessageInjected { id: MessageId(5) },
        ),
        (
            "report_message_seen",
            Event::MessageSeen { id: MessageId(5) },
        ),
        ("report_process_spawned", Event::ProcessSpawned(process)),
        ("report_turn_ended", Event::TurnEnded {}),
        (
            "report_notice",
            Event::Notice(said("a line that is no JSON")),
        ),
        ("report_result_ok", Event::Result(Box::new(result_ok()))),
        (
            "report_result_of_git",
            Event::Result(Box::new(result_of_git())),
        ),
        (
            "report_result_of_review",
            Event::Result(Box::new(result_of_review())),
        ),
        (
            "report_result_failed",
            Event::Result(Box::new(result_failed())),
        ),
    ]
}

#[test]
fn every_command_is_written_and_read_as_released() {
    for (name, command) in commands() {
        let written = command.line().unwrap();
        let bytes = golden(name, &written);
        assert_eq!(parse::<Command>(name, &bytes), command, "{name}");
        match rpc::read(&bytes).unwrap() {
            Incoming::Notification { method, .. } => assert_eq!(method, command.method()),
            other => panic!("{name}: read as {other:?}"),
        }
    }
}

#[test]
fn every_report_is_written_and_read_as_released() {
    for (name, event) in events() {
        let report = Report {
            generation: Generation(7),
            event,
        };
        let written = report.line().unwrap();
        line(name, &Part::Params("report"), &report, &written);
    }
}

#[test]
fn requests_and_answers_are_written_and_read_as_released() {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        build: "0.1.0".to_owned(),
    };
    let written = rpc::request(1, "hello", &hello).unwrap();
    line("hello", &Part::Params("hello"), &hello, &written);

    let reply = HelloReply {
        version: 1,
        build: "0.1.0".to_owned(),
    };
    let written = rpc::answer(1, &reply).unwrap();
    line("hello_reply", &Part::Result, &reply, &written);

    let pong = Pong {
        output_bytes: 52_428_800,
        family: family(),
    };
    let written = rpc::answer(2, pong).unwrap();
    line("pong", &Part::Result, &pong, &written);

    let ask = Ask {
        generation: Generation(7),
        text: "Which port?".to_owned(),
        options: vec!["80".to_owned(), "8080".to_owned()],
    };
    let written = rpc::request(1, "ask", &ask).unwrap();
    line("ask", &Part::Params("ask"), &ask, &written);

    let asked = Asked {
        question: QuestionId(1),
    };
    let written = rpc::answer(1, asked).unwrap();
    line("asked", &Part::Result, &asked, &written);

    let send = Send {
        generation: Generation(7),
        to: "docs".parse().unwrap(),
        text: "the parser is ready".to_owned(),
    };
    let written = rpc::request(2, "send", &send).unwrap();
    line("send", &Part::Params("send"), &send, &written);

    let sent = Sent {
        message: MessageId(6),
    };
    let written = rpc::answer(2, sent).unwrap();
    line("sent", &Part::Result, &sent, &written);

    let wanted = ListTasks {
        generation: Generation(7),
    };
    let written = rpc::request(3, "tasks", wanted).unwrap();
    line("tasks_wanted", &Part::Params("tasks"), &wanted, &written);

    let tasks = Tasks {
        tasks: vec![task_line()],
        left_out: 2,
    };
    let written = rpc::answer(3, &tasks).unwrap();
    line("tasks", &Part::Result, &tasks, &written);
}

fn task_line() -> TaskLine {
    TaskLine {
        id: "docs".parse().unwrap(),
        state: "running".to_owned(),
        depends_on: vec!["parse-errors".parse().unwrap()],
        summary: "half of it".to_owned(),
    }
}

#[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
struct Nothing {}

#[test]
fn ping_is_written_and_read_as_released() {
    let written = rpc::request(2, "ping", Nothing {}).unwrap();
    line("ping", &Part::Params("ping"), &Nothing {}, &written);
}

#[test]
fn a_refusal_is_written_and_read_as_released() {
    let error = RpcError {
        code: ERROR_NO_COMMON_VERSION,
        message: "no common protocol version: supervisor speaks 2 to 3, agent-host speaks 1 to 1"
            .to_owned(),
    };
    let bytes = golden("hello_refused", &rpc::refusal(1, &error).unwrap());
    match rpc::read(&bytes).unwrap() {
        Incoming::Answer { id, outcome } => {
            assert_eq!((id, outcome.unwrap_err()), (1, error));
        }
        other @ (Incoming::Request { .. } | Incoming::Notification { .. }) => {
            panic!("read as {other:?}")
        }
    }
}

#[test]
fn the_exit_file_is_written_and_read_as_released() {
    let samples = [("exit_ok", result_ok()), ("exit_failed", result_failed())];
    for (name, result) in samples {
        let file = ExitFile {
            v: EXIT_FILE_VERSION,
            generation: Generation(7),
            result,
            injected: vec![MessageId(5)],
        };
        let mut written = serde_json::to_vec(&file).unwrap();
        written.push(b'\n');
        let bytes = golden(name, &written);
        assert_eq!(parse::<ExitFile>(name, &bytes), file, "{name}");
    }
}

/// Words of the small enums, which stand inside messages, journal and batch files.
#[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
struct Words {
    class: Vec<Class>,
    run_kind: Vec<RunKind>,
    prompt_by: Vec<PromptBy>,
    program_kind: Vec<ProgramKind>,
    permissions: Vec<Permissions>,
    home: Vec<Home>,
    credentials: Vec<Credentials>,
    steer_mode: Vec<SteerMode>,
    steer_reach: Vec<SteerReach>,
    receipt: Vec<Receipt>,
    result_status: Vec<ResultStatus>,
    verdict: Vec<Verdict>,
    freshness: Vec<Freshness>,
    forge_kind: Vec<ForgeKind>,
}

#[test]
fn words_are_as_released() {
    use SteerMode::{After, Boundary, Interrupt, Restart};
    let words = Words {
        class: Class::ALL.to_vec(),
        run_kind: vec![
            RunKind::Agent,
            RunKind::Verify,
            RunKind::Review,
            RunKind::Merge,
            RunKind::Hook,
            RunKind::Git,
        ],
        prompt_by: vec![
            PromptBy::None,
            PromptBy::Argument,
            PromptBy::Stdin,
            PromptBy::File,
        ],
        program_kind: ProgramKind::ALL.to_vec(),
        permissions: vec![Permissions::Full, Permissions::Edits, Permissions::Ask],
        home: vec![
            Home::Task,
            Home::Shared,
            Home::Path("/home/op/claude".to_owned()),
        ],
        credentials: vec![Credentials::Copy, Credentials::Link, Credentials::None],
        steer_mode: vec![Boundary, Interrupt, After, Restart],
        steer_reach: vec![
            SteerReach::None,
            SteerReach::Boundary,
            SteerReach::Interrupt,
        ],
        receipt: vec![Receipt::Injected, Receipt::Seen],
        result_status: vec![ResultStatus::Ok, ResultStatus::Failed],
        verdict: vec![Verdict::Approve, Verdict::Revise, Verdict::Reject],
        freshness: vec![Freshness::Ignore, Freshness::Warn, Freshness::Rebase],
        forge_kind: vec![ForgeKind::Issue, ForgeKind::Pr],
    };
    let mut written = serde_json::to_vec(&words).unwrap();
    written.push(b'\n');
    let bytes = golden("words", &written);
    assert_eq!(parse::<Words>("words", &bytes), words);
    for class in Class::ALL {
        let json = serde_json::to_value(class).unwrap();
        assert_eq!(json, class.word());
        assert_eq!(class.to_string(), class.word());
        assert_eq!(class.word().parse(), Ok(*class));
    }
    for mode in words.steer_mode {
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.word());
    }
    for kind in words.run_kind {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
    }
    for kind in words.forge_kind {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
    }
    for verdict in words.verdict {
        assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.word());
    }
}

#[test]
fn a_word_that_is_no_class_is_refused_and_quoted_in_part() {
    let long = "x".repeat(500);
    let error = long.parse::<Class>().unwrap_err();
    assert_eq!(error.0.len(), 80);
    assert!("stall".parse::<Class>().is_err(), "a group of two classes");
    assert!("Crash".parse::<Class>().is_err(), "words are lower case");
}

#[test]
fn every_variant_has_a_sample() {
    let commands: BTreeSet<_> = commands().iter().map(|(_, c)| command_name(c)).collect();
    assert_eq!(commands, COMMANDS.iter().copied().collect());
    let adapters = self::commands().into_iter().filter_map(|(_, it)| match it {
        Command::Start(start) => Some(adapter_name(&start.adapter)),
        Command::Deliver(_) | Command::Answer(_) | Command::Interrupt {} | Command::Stop(_) => None,
    });
    let adapters: BTreeSet<_> = adapters.collect();
    assert_eq!(adapters, ADAPTERS.iter().copied().collect());
    let events: BTreeSet<_> = events().iter().map(|(_, e)| event_name(e)).collect();
    assert_eq!(events, EVENTS.iter().copied().collect());
}

#[test]
fn no_golden_file_is_without_its_test() {
    let mut known: BTreeSet<String> = [
        "hello",
        "hello_reply",
        "hello_refused",
        "ping",
        "pong",
        "ask",
        "asked",
        "send",
        "sent",
        "tasks_wanted",
        "tasks",
        "exit_ok",
        "exit_failed",
        "words",
        "script",
        "event_line",
        "result_file",
        "forge_issue",
        "forge_pull_request",
    ]
    .map(str::to_owned)
    .into();
    known.extend(commands().iter().map(|(name, _)| (*name).to_owned()));
    known.extend(events().iter().map(|(name, _)| (*name).to_owned()));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");
    let present: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    // Those of the bridge and of git work are counted in `golden_bridge.rs` and `golden_git.rs`.
    let strays = present.difference(&known);
    let elsewhere = |name: &&String| name.starts_with("bridge_") || name.starts_with("git_");
    let strays: Vec<_> = strays.filter(|name| !elsewhere(name)).collect();
    assert!(strays.is_empty(), "files that nothing reads: {strays:?}");
}

#[test]
fn a_reader_of_this_version_takes_fields_that_a_later_one_adds() {
    let later = br#"{"jsonrpc":"2.0","method":"report","later":1,"params":
        {"generation":7,"later":[],"event":{"type":"turn_ended","later":{}}}}"#;
    let incoming = rpc::read(later).unwrap();
    let Incoming::Notification {
        params: Some(params),
        ..
    } = incoming
    else {
        panic!("read as {incoming:?}");
    };
    let report: Report = serde_json::from_str(params.get()).unwrap();
    assert_eq!(report.event, Event::TurnEnded {});
    let stop = br#"{"jsonrpc":"2.0","params":{"grace_ms":0,"later":1},"method":"stop"}"#;
    let read: Command = serde_json::from_slice(stop).unwrap();
    assert_eq!(read, Command::Stop(Stop { grace_ms: 0 }));
}

#[test]
fn an_unknown_message_is_an_error_and_not_another_message() {
    let event = r#"{"generation":7,"event":{"type":"party"}}"#;
    assert!(serde_json::from_str::<Report>(event).is_err());
    let command = r#"{"jsonrpc":"2.0","method":"dance","params":{}}"#;
    assert!(serde_json::from_str::<Command>(command).is_err());
}
