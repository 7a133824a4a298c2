//! The bridge's wire and file, byte by byte. As in `golden.rs`: never edited after a release, written
//! only where they do not exist yet.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

#[path = "golden/compare.rs"]
#[macro_use]
mod compare;

use std::collections::BTreeSet;

use compare::{golden, parse};
use protocol::bridge::{BRIDGE_FILE_VERSION, BridgeFile, Call, LateAnswer, Letter, Reply};
use protocol::ids::{MessageId, QuestionId};
use protocol::report::{ResultStatus, TaskLine, Verdict};
use protocol::rpc::{self, Incoming};

fn task_line() -> TaskLine {
    TaskLine {
        id: "docs".parse().unwrap(),
        state: "running".to_owned(),
        depends_on: vec!["parse-errors".parse().unwrap()],
        summary: "half of it".to_owned(),
    }
}

variants! {
    CALLS, call_name, Call,
    Call::Hello { .. } => "hello",
    Call::ReportProgress { .. } => "report_progress",
    Call::AskOperator { .. } => "ask_operator",
    Call::SendMessage { .. } => "send_message",
    Call::ReadMailbox {} => "read_mailbox",
    Call::TaskResult { .. } => "task_result",
    Call::ListTasks {} => "list_tasks",
}

fn calls() -> Vec<Call> {
    vec![
        Call::Hello {
            token: "00ff".to_owned(),
        },
        Call::ReportProgress {
            text: "half".to_owned(),
            percent: Some(50),
        },
        Call::AskOperator {
            question: "Which port?".to_owned(),
            options: vec!["80".to_owned()],
            question_id: Some(QuestionId(3)),
        },
        Call::SendMessage {
            to: Some("docs".to_owned()),
            text: "the parser is ready".to_owned(),
            urgent: true,
        },
        Call::ReadMailbox {},
        Call::TaskResult {
            status: ResultStatus::Ok,
            summary: "fixed".to_owned(),
            artifacts: vec!["target/report.html".to_owned()],
            verdict: Some(Verdict::Approve),
        },
        Call::ListTasks {},
    ]
}

#[test]
fn calls_of_the_bridge_are_written_and_read_as_released() {
    let mut seen = BTreeSet::new();
    for call in calls() {
        let name = call_name(&call);
        assert_eq!(name, call.method());
        let bytes = golden(&format!("bridge_{name}"), &call.line(1).unwrap());
        assert_eq!(parse::<Call>(name, &bytes), call);
        seen.insert(name);
    }
    assert_eq!(seen, CALLS.iter().copied().collect());
}

variants! {
    REPLIES, reply_name, Reply,
    Reply::Done {} => "done",
    Reply::Sent { .. } => "sent",
    Reply::Answered { .. } => "answered",
    Reply::Pending { .. } => "pending",
    Reply::Mailbox { .. } => "mailbox",
    Reply::Tasks { .. } => "tasks",
}

fn replies() -> Vec<Reply> {
    let question_id = QuestionId(3);
    let letter = |from| Letter {
        id: MessageId(6),
        from,
        text: "look at the lexer".to_owned(),
    };
    vec![
        Reply::Done {},
        Reply::Sent {
            message_id: MessageId(6),
        },
        Reply::Answered {
            question_id,
            answer: "8080".to_owned(),
        },
        Reply::Pending {
            question_id,
            hint: "call again".to_owned(),
        },
        Reply::Mailbox {
            messages: vec![letter(None), letter(Some("docs".parse().unwrap()))],
            answers: vec![LateAnswer {
                question_id,
                question: "Which port?".to_owned(),
                answer: "8080".to_owned(),
            }],
            more: false,
        },
        Reply::Tasks {
            tasks: vec![task_line()],
            left_out: 0,
        },
    ]
}

#[test]
fn replies_of_the_bridge_are_written_and_read_as_released() {
    let mut seen = BTreeSet::new();
    for reply in replies() {
        let name = reply_name(&reply);
        let written = rpc::answer(1, &reply).unwrap();
        let file = format!("bridge_reply_{name}");
        let bytes = golden(&file, &written);
        let Incoming::Answer {
            outcome: Ok(result),
            ..
        } = rpc::read(&bytes).unwrap()
        else {
            panic!("{name}: no answer");
        };
        assert_eq!(parse::<Reply>(&file, result.get().as_bytes()), reply);
        seen.insert(name);
    }
    assert_eq!(seen, REPLIES.iter().copied().collect());
}

#[test]
fn no_golden_file_of_the_bridge_is_without_its_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let present = names.filter(|name| name.starts_with("bridge_")).count();
    assert_eq!(
        present,
        CALLS.len() + REPLIES.len() + 1,
        "calls, replies, the file"
    );
}

#[test]
fn the_file_of_the_bridge_is_written_and_read_as_released_and_never_shows_its_token() {
    let file = BridgeFile {
        v: BRIDGE_FILE_VERSION,
        socket: "/run/user/1000/bridge.sock".to_owned(),
        token: "00ff".to_owned(),
    };
    let mut written = serde_json::to_vec(&file).unwrap();
    written.push(b'\n');
    let bytes = golden("bridge_file", &written);
    assert_eq!(parse::<BridgeFile>("bridge_file", &bytes), file);
    assert!(!format!("{file:?}").contains("00ff"));
}
