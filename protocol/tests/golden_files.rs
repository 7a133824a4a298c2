//! The formats that outlive a pipe, byte by byte: scripts, event lines, result files. As in
//! `golden.rs`: never edited after a release, written only where they do not exist yet.

#[path = "golden/compare.rs"]
#[macro_use]
mod compare;

use std::collections::{BTreeMap, BTreeSet};

use compare::{golden, parse};
use protocol::class::Class;
use protocol::event_file::{EVENT_LINE_VERSION, EventLine};
use protocol::forge::{
    ForgeComment, ForgeItem, ForgeKind, ForgeRemark, ForgeReview, ITEM_VERSION, PullRequest,
};
use protocol::ids::MessageId;
use protocol::report::{Event, ResultStatus, Usage, Verdict};
use protocol::result_file::ResultFile;
use protocol::script::{
    AskStep, AttemptGuard, FailStep, FileText, Flood, FloodTo, ProgressStep, ResultStep,
    RunCommand, Script, Step, ToolStep, UsageStep, WaitMessage,
};

variants! {
    STEPS, step_name, Step,
    Step::Say(_) => "say",
    Step::Write(_) => "write",
    Step::Append(_) => "append",
    Step::Run(_) => "run",
    Step::Sleep(_) => "sleep",
    Step::WaitMessage(_) => "wait_message",
    Step::Ask(_) => "ask",
    Step::Reply(_) => "reply",
    Step::Escalate(_) => "escalate",
    Step::Progress(_) => "progress",
    Step::Usage(_) => "usage",
    Step::Tool(_) => "tool",
    Step::Result(_) => "result",
    Step::Fail(_) => "fail",
    Step::Exit(_) => "exit",
    Step::Crash => "crash",
    Step::Hang => "hang",
    Step::Freeze => "freeze",
    Step::Flood(_) => "flood",
    Step::Garbage(_) => "garbage",
    Step::BlankLines(_) => "blank_lines",
    Step::LongLine(_) => "long_line",
    Step::CloseStdout => "close_stdout",
    Step::IgnoreStop => "ignore_stop",
    Step::SpawnBackground(_) => "spawn_background",
    Step::OnAttempt(_) => "on_attempt",
}

fn file(path: &str, text: &str) -> FileText {
    FileText {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn command(argv: &[&str], may_fail: bool) -> RunCommand {
    RunCommand {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        may_fail,
    }
}

/// Steps that say, do and ask.
fn working_steps() -> Vec<Step> {
    let wait = WaitMessage {
        timeout_ms: Some(60_000),
        save_to: Some("message.txt".to_owned()),
        otherwise: Some("go on".to_owned()),
    };
    let ask = AskStep {
        text: "Which port?".to_owned(),
        options: vec!["80".to_owned(), "8080".to_owned()],
        save_to: Some("port.txt".to_owned()),
    };
    let progress = ProgressStep {
        text: "half".to_owned(),
        percent: Some(50),
    };
    let usage = UsageStep {
        turns: 1,
        tokens: 200,
        cost_micros: 3_000,
    };
    let tool = ToolStep {
        name: "grep".to_owned(),
        detail: "-r fn src".to_owned(),
    };
    vec![
        Step::Say("reading\nthe code".to_owned()),
        Step::Write(file("src/a.txt", "ä\n")),
        Step::Append(file("src/a.txt", "b\n")),
        Step::Run(command(&["sh", "-c", "exit 1"], true)),
        Step::Sleep(1_500),
        Step::WaitMessage(wait),
        Step::WaitMessage(WaitMessage::default()),
        Step::Ask(ask),
        Step::Reply("understood".to_owned()),
        Step::Escalate("the key is missing".to_owned()),
        Step::Progress(progress),
        Step::Usage(usage),
        Step::Tool(tool),
    ]
}

/// Steps that end, break or misbehave.
fn awkward_steps() -> Vec<Step> {
    let result = ResultStep {
        status: ResultStatus::Failed,
        summary: "no luck".to_owned(),
        verdict: Some(Verdict::Revise),
    };
    let fail = FailStep {
        class: Class::UsageLimit,
        message: "limit".to_owned(),
        reset_in_ms: Some(5_000),
    };
    let flood = |to| {
        Step::Flood(Flood {
            to,
            lines: 1_000,
            line_bytes: 100,
        })
    };
    let guarded = BTreeMap::from([
        (AttemptGuard::Number(1), vec![Step::Crash]),
        (AttemptGuard::Other, vec![Step::Say("again".to_owned())]),
    ]);
    vec![
        Step::Result(result),
        Step::Fail(fail),
        Step::Exit(3),
        Step::Crash,
        Step::Hang,
        Step::Freeze,
        flood(FloodTo::Log),
        flood(FloodTo::Reports),
        Step::Garbage(2),
        Step::BlankLines(3),
        Step::LongLine(104_857_600),
        Step::CloseStdout,
        Step::IgnoreStop,
        Step::SpawnBackground(command(&["sleep", "600"], false)),
        Step::OnAttempt(guarded),
    ]
}

fn script() -> Script {
    Script([working_steps(), awkward_steps()].concat())
}

#[test]
fn a_script_is_written_and_read_as_released() {
    let script = script();
    let mut written = serde_json::to_vec_pretty(&script).unwrap();
    written.push(b'\n');
    let bytes = golden("script", &written);
    assert_eq!(parse::<Script>("script", &bytes), script);
}

#[test]
fn every_step_has_a_sample_and_its_own_word_on_the_wire() {
    let mut seen = BTreeSet::new();
    for step in script().0 {
        let name = step_name(&step);
        seen.insert(name);
        let json = serde_json::to_value(&step).unwrap();
        let word = match &json {
            serde_json::Value::String(word) => word.as_str(),
            serde_json::Value::Object(map) if map.len() == 1 => map.keys().next().unwrap(),
            other => panic!("{name} is written as {other}"),
        };
        assert_eq!(word, name);
    }
    assert_eq!(seen, STEPS.iter().copied().collect());
}

#[test]
fn what_a_step_may_leave_out_is_what_is_said() {
    let cases = [
        (
            r#"{"run":{"argv":["true"]}}"#,
            Step::Run(command(&["true"], false)),
        ),
        (
            r#"{"wait_message":{}}"#,
            Step::WaitMessage(WaitMessage::default()),
        ),
        (r#"{"usage":{}}"#, Step::Usage(UsageStep::default())),
        (
            r#"{"tool":{"name":"grep"}}"#,
            Step::Tool(ToolStep {
                name: "grep".to_owned(),
                detail: String::new(),
            }),
        ),
        (
            r#"{"result":{"status":"ok"}}"#,
            Step::Result(ResultStep {
                status: ResultStatus::Ok,
                summary: String::new(),
                verdict: None,
            }),
        ),
        (
            r#"{"fail":{"class":"crash"}}"#,
            Step::Fail(FailStep {
                class: Class::Crash,
                message: String::new(),
                reset_in_ms: None,
            }),
        ),
    ];
    for (json, step) in cases {
        assert_eq!(parse::<Step>(json, json.as_bytes()), step, "{json}");
    }
}

#[test]
fn a_step_that_is_none_is_refused() {
    for json in [
        r#"{"dance":1}"#,
        r#""say""#,
        r#"{"say":1}"#,
        r#"{"say":"a","reply":"b"}"#,
        r#"{"run":{}}"#,
        r#"{"sleep":-1}"#,
        r#"{"progress":{"text":"x","percent":256}}"#,
        r#"{"flood":{"to":"nowhere","lines":1,"line_bytes":1}}"#,
        r#"{"on_attempt":{"first":[]}}"#,
        r#"{"on_attempt":{"0":[]}}"#,
        "[]",
    ] {
        assert!(serde_json::from_str::<Step>(json).is_err(), "{json}");
    }
}

#[test]
fn a_line_of_the_event_file_is_written_and_read_as_released() {
    let line = EventLine {
        v: EVENT_LINE_VERSION,
        time_ms: 1_795_000_000_123,
        event: Event::MessageSeen { id: MessageId(5) },
    };
    let mut written = serde_json::to_vec(&line).unwrap();
    written.push(b'\n');
    let bytes = golden("event_line", &written);
    assert_eq!(parse::<EventLine>("event_line", &bytes), line);
}

#[test]
fn a_cut_line_of_the_event_file_is_never_another_event() {
    let line = EventLine {
        v: EVENT_LINE_VERSION,
        time_ms: 12,
        event: Event::MessageSeen { id: MessageId(55) },
    };
    let written = serde_json::to_vec(&line).unwrap();
    for cut in 0..written.len() {
        let read = serde_json::from_slice::<EventLine>(&written[..cut]);
        assert!(read.is_err(), "cut at {cut}: {read:?}");
    }
}

#[test]
fn a_result_file_is_written_and_read_as_released() {
    let file = ResultFile {
        status: ResultStatus::Failed,
        class: Some(Class::Network),
        summary: Some("no route".to_owned()),
        usage: Some(Usage {
            turns: 2,
            tokens: 900,
            cost_micros: 11,
        }),
        verdict: Some(Verdict::Reject),
    };
    let mut written = serde_json::to_vec(&file).unwrap();
    written.push(b'\n');
    let bytes = golden("result_file", &written);
    assert_eq!(ResultFile::parse(&bytes).unwrap(), file);
}

/// An issue with everything that may be absent left out.
fn issue() -> ForgeItem {
    ForgeItem {
        version: ITEM_VERSION,
        kind: ForgeKind::Issue,
        reference: "owner/repo#12".to_owned(),
        url: "https://github.com/owner/repo/issues/12".to_owned(),
        number: 12,
        title: "It is slow".to_owned(),
        body: "Since \"yesterday\".\nÜber alles.".to_owned(),
        author: "somebody".to_owned(),
        state: "open".to_owned(),
        labels: Vec::new(),
        comments: Vec::new(),
        comments_left_out: 0,
        pull: None,
        warnings: Vec::new(),
    }
}

/// A pull request with everything.
fn pull_request() -> ForgeItem {
    let (author, created) = ("somebody".to_owned(), "2026-01-02T03:04:05Z".to_owned());
    ForgeItem {
        kind: ForgeKind::Pr,
        labels: vec!["bug".to_owned()],
        comments: vec![ForgeComment {
            author: author.clone(),
            created: created.clone(),
            body: "me too".to_owned(),
        }],
        comments_left_out: 3,
        pull: Some(PullRequest {
            base: "main".to_owned(),
            head: "topic".to_owned(),
            reviews: vec![ForgeReview {
                author: author.clone(),
                created: created.clone(),
                state: "changes_requested".to_owned(),
                body: "not yet".to_owned(),
            }],
            remarks: vec![ForgeRemark {
                author,
                created,
                path: "src/a.rs".to_owned(),
                line: Some(7),
                body: "why?".to_owned(),
            }],
            diff: "-old\n+new\n".to_owned(),
        }),
        warnings: vec!["a copy of 90 min ago is used".to_owned()],
        ..issue()
    }
}

#[test]
fn what_a_fetch_left_is_written_and_read_as_released() {
    let samples = [
        ("forge_issue", issue()),
        ("forge_pull_request", pull_request()),
    ];
    for (name, item) in samples {
        let mut written = serde_json::to_vec(&item).unwrap();
        written.push(b'\n');
        let bytes = golden(name, &written);
        assert_eq!(parse::<ForgeItem>(name, &bytes), item, "{name}");
    }
}
