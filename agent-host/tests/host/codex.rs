//! The `codex` adapter against a small program that speaks its wire as a story wants.

use std::os::unix::fs::PermissionsExt;

use protocol::class::Class;
use protocol::command::{Adapter, Answer, Command, SteerMode, Text};
use protocol::ids::{MessageId, QuestionId};
use protocol::program::{Credentials, Home, Permissions, ProgramAdapter, ProgramKind};
use protocol::report::{Asked, Event, ResultStatus, Usage};

use crate::client::{Client, is};

/// What every story's program can do: `hear` a line, answer it with `ok` or `no`, `tell` something, and
/// what is made of these: a thread that is `open`, a turn that `begins`, a text that is `read`, words of
/// the model, the end of the turn.
const WORDS: &str = r#"#!/usr/bin/env sh
hear() { read -r line || exit 0; printf '%s\n' "$line" >> heard; id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\),.*/\1/p'); key=$(printf %s "$line" | sed -n 's/.*"clientUserMessageId":"\([^"]*\)".*/\1/p'); }
ok() { printf '{"id":%s,"result":%s}\n' "$id" "$1"; }
no() { printf '{"id":%s,"error":{"code":-32600,"message":"%s"}}\n' "$id" "$1"; }
tell() { printf '{"method":"%s","params":{"threadId":"T",%s}}\n' "$1" "$2"; }
begin() { hear; ok '{"userAgent":"x"}'; hear; }
open() { begin; hear; ok '{"thread":{"id":"T"}}'; }
begins() { tell turn/started '"turn":{"id":"'$1'"}'; }
turn() { hear; ok '{}'; begins $1; read_it; }
read_it() { tell item/started '"item":{"type":"userMessage","clientId":"'$key'"}'; }
say() { tell item/started '"item":{"type":"agentMessage","text":""}'; tell item/completed '"item":{"type":"agentMessage","text":"'"$1"'"}'; }
used() { tell thread/tokenUsage/updated '"tokenUsage":{"total":{"totalTokens":'$1'},"last":{"totalTokens":15,"inputTokens":10,"cachedInputTokens":4,"outputTokens":5},"modelContextWindow":1000}'; }
ends() { tell turn/completed '"turn":{"id":"'$1'","status":"'$2'","error":'${3:-null}'}'; }
printf '%s\n' "$*" > arguments; printf '%s\n' "$CODEX_HOME" > home
"#;

fn adapter(program: String, permissions: Permissions) -> Adapter {
    Adapter::Program(ProgramAdapter {
        kind: ProgramKind::Codex,
        mode: None,
        mcp: std::collections::BTreeMap::new(),
        program,
        args: vec!["-c".to_owned(), "mine=1".to_owned()],
        model: Some("m".to_owned()),
        permissions,
        home: Home::Task,
        credentials: Credentials::None,
        system_prompt: Some("BE-BRIEF".to_owned()),
    })
}

/// A host that drives a program of these lines.
fn plays(lines: &str) -> Client {
    plays_with(lines, Permissions::Full, None)
}

fn plays_with(lines: &str, permissions: Permissions, session: Option<&str>) -> Client {
    Client::started(|client| {
        let program = client.path("codex");
        std::fs::write(&program, format!("{WORDS}{lines}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut start = client.start(adapter(program.display().to_string(), permissions));
        start.prompt = Some(Text::Inline("TASK-TEXT".to_owned()));
        start.session = session.map(str::to_owned);
        start
    })
}

fn line(heard: &str, number: usize) -> serde_json::Value {
    serde_json::from_str(heard.lines().nth(number).unwrap()).unwrap()
}

#[test]
fn a_turn_that_ends_well_is_the_result_with_its_usage() {
    let client = plays("open; turn a; say one; used 20; say fine; used 40; ends a completed; hear");
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "fine")
    );
    let usage = Usage {
        turns: 2,
        tokens: 22,
        cost_micros: 0,
    };
    assert_eq!(result.usage, usage);
    assert_eq!(result.session.as_deref(), Some("T"));
    let arguments = ended.text("arguments");
    assert!(arguments.starts_with("app-server -c "), "{arguments}");
    assert!(arguments.ends_with("-c mine=1\n"), "{arguments}");
    assert!(ended.text("home").ends_with("/home/codex\n"));
    let heard = ended.text("heard");
    let (thread, turn) = (line(&heard, 2), line(&heard, 3));
    assert_eq!(thread["method"], "thread/start");
    assert_eq!(thread["params"]["developerInstructions"], "BE-BRIEF");
    assert_eq!(thread["params"]["model"], "m");
    assert_eq!(turn["params"]["input"][0]["text"], "TASK-TEXT");
}

#[test]
fn a_message_in_mid_turn_names_its_turn_and_is_seen_when_the_model_answers_after_it() {
    let mut client = plays(
        "open; turn a; say one; echo up >&9; hear; ok '{\"turnId\":\"a\"}'; echo queued >&9; \
         read go < gate; read_it; used 20; say two; ends a completed; hear",
    );
    nix::unistd::mkfifo(&client.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    client.wait_for_word("up");
    client.deliver(4, SteerMode::Boundary, "use port 1");
    client.wait_for(is(|event| {
        matches!(event, Event::MessageInjected { id: MessageId(4) })
    }));
    client.wait_for_word("queued");
    std::fs::write(client.path("gate"), "go\n").unwrap();
    let (_, ended) = client.result();
    let place = |wanted: fn(&Event) -> bool| ended.events.iter().position(wanted);
    let seen = place(|event| *event == Event::MessageSeen { id: MessageId(4) });
    let answer =
        place(|event| matches!(event, Event::AssistantMessage(said) if said.text == "two"));
    assert!(seen.is_some() && seen < answer, "{:?}", ended.events);
    let steer = line(&ended.text("heard"), 4);
    assert_eq!(steer["method"], "turn/steer");
    assert_eq!(steer["params"]["expectedTurnId"], "a");
}

#[test]
fn a_message_that_comes_too_late_for_its_turn_begins_the_next_one() {
    let mut client = plays(
        "open; turn a; say one; echo up >&9; hear; ends a completed; no 'no active turn to steer'; \
         turn b; say two; ends b completed; hear",
    );
    client.wait_for_word("up");
    client.deliver(4, SteerMode::Boundary, "use port 1");
    let (result, ended) = client.result();
    assert_eq!(result.summary, "two");
    let heard = ended.text("heard");
    let (steer, turn) = (line(&heard, 4), line(&heard, 5));
    assert_eq!(turn["method"], "turn/start");
    for name in ["input", "clientUserMessageId"] {
        assert_eq!(turn["params"][name], steer["params"][name]);
    }
    let seen = Event::MessageSeen { id: MessageId(4) };
    assert!(ended.events.contains(&seen), "{:?}", ended.events);
}

#[test]
fn an_interrupt_cleans_up_and_says_what_was_lost_with_the_turn_again() {
    let mut client = plays(
        "open; turn a; say one; echo up >&9; hear; ok '{}'; echo up >&9; hear; ok '{}'; \
         ends a interrupted; hear; echo clean >&9; ok '{}'; turn b; say two; ends b completed; hear",
    );
    client.wait_for_word("up");
    client.deliver(1, SteerMode::Boundary, "FIRST");
    client.wait_for_word("up");
    client.deliver(2, SteerMode::Interrupt, "SECOND");
    client.wait_for_word("clean");
    let (result, ended) = client.result();
    assert_eq!(result.summary, "two");
    let heard = ended.text("heard");
    assert_eq!(line(&heard, 5)["method"], "turn/interrupt");
    assert_eq!(line(&heard, 5)["params"]["turnId"], "a");
    assert_eq!(
        line(&heard, 6)["method"],
        "thread/backgroundTerminals/clean"
    );
    let text = line(&heard, 7)["params"]["input"][0]["text"].to_string();
    let (first, second) = (text.find("FIRST"), text.find("SECOND"));
    assert!(first.is_some() && first < second, "{text}");
    let seen = |event: &&Event| matches!(event, Event::MessageSeen { .. });
    assert_eq!(ended.events.iter().filter(seen).count(), 2);
}

#[test]
fn a_failed_turn_has_its_class_and_evidence() {
    let error =
        r#"'{"message":"no","codexErrorInfo":{"httpConnectionFailed":{"httpStatusCode":401}}}'"#;
    let (result, _) = plays(&format!("open; turn a; ends a failed {error}; hear")).result();
    assert_eq!(
        (result.status, result.class),
        (ResultStatus::Failed, Some(Class::Auth))
    );
    assert!(result.evidence.contains("HTTP 401"), "{}", result.evidence);
}

#[test]
fn a_limit_of_the_account_has_its_reset_time() {
    let limits = r#"'"rateLimits":{"primary":{"usedPercent":100,"resetsAt":1795271008}}'"#;
    let error = r#"'{"message":"limit","codexErrorInfo":"usageLimitExceeded"}'"#;
    let (result, ended) = plays(&format!(
        "open; turn a; tell account/rateLimits/updated {limits}; ends a failed {error}; hear"
    ))
    .result();
    assert_eq!(result.class, Some(Class::UsageLimit));
    assert_eq!(result.reset_at_ms, Some(1_795_271_008_000));
    let limited = |event: &Event| matches!(event, Event::RateLimited(_));
    assert!(ended.events.iter().any(limited));
}

#[test]
fn retries_without_end_are_cut_short() {
    let fails = |status: &str| {
        format!(
            r#"tell error '"willRetry":true,"error":{{"message":"Reconnecting","codexErrorInfo":{{"responseStreamDisconnected":{{"httpStatusCode":{status}}}}}}}'"#
        )
    };
    for (status, times, class) in [("401", 1, Class::Auth), ("529", 2, Class::Overload)] {
        let fails = vec![fails(status); times].join("; ");
        let (result, ended) = plays(&format!(
            "open; turn a; {fails}; hear; ok '{{}}'; ends a interrupted; hear; ok '{{}}'; hear"
        ))
        .result();
        assert_eq!(result.class, Some(class), "{}", result.summary);
        assert_eq!(line(&ended.text("heard"), 4)["method"], "turn/interrupt");
        let retries = |event: &&Event| matches!(event, Event::Retry(_));
        assert_eq!(ended.events.iter().filter(retries).count(), times);
    }
}

const MAY_RUN: &str = r#"open; turn a
    printf '{"id":7,"method":"item/commandExecution/requestApproval","params":{"threadId":"T","command":"make","reason":null}}\n'
    hear; say one; ends a completed; hear; hear"#;

#[test]
fn a_question_for_permission_goes_to_the_operator_and_back() {
    let mut client = plays_with(MAY_RUN, Permissions::Ask, None);
    let request = client.wait_for_request("ask");
    let question = QuestionId(3);
    client.answer(request, Asked { question });
    let text = Some("allow".to_owned());
    client.tell(&Command::Answer(Answer { question, text }));
    let (_, ended) = client.result();
    let heard = ended.text("heard");
    assert_eq!(line(&heard, 2)["params"]["approvalPolicy"], "untrusted");
    assert_eq!(line(&heard, 4)["result"]["decision"], "accept");
    assert_eq!(line(&heard, 4)["id"], 7);
}

#[test]
fn a_refusal_is_followed_by_its_reason() {
    let (_, ended) = plays_with(MAY_RUN, Permissions::Edits, None).result();
    let heard = ended.text("heard");
    assert_eq!(line(&heard, 4)["result"]["decision"], "decline");
    let why = line(&heard, 5);
    assert_eq!(why["method"], "turn/steer");
    assert!(
        why["params"]["input"][0]["text"]
            .to_string()
            .contains("Only edits")
    );
}

#[test]
fn an_edit_is_allowed_where_edits_are() {
    let edit = MAY_RUN.replace("commandExecution", "fileChange");
    let (_, ended) = plays_with(&edit, Permissions::Edits, None).result();
    assert_eq!(
        line(&ended.text("heard"), 4)["result"]["decision"],
        "accept"
    );
}

#[test]
fn a_thread_with_history_goes_on_and_is_not_told_its_task_again() {
    let lines = "open; turn a; say fine; ends a completed; hear";
    let (result, ended) = plays_with(lines, Permissions::Full, Some("T")).result();
    assert_eq!(result.session.as_deref(), Some("T"));
    let heard = ended.text("heard");
    assert_eq!(line(&heard, 2)["method"], "thread/resume");
    assert_eq!(line(&heard, 2)["params"]["threadId"], "T");
    assert!(heard.contains("This session goes on.") && !heard.contains("TASK-TEXT"));
}

#[test]
fn a_thread_without_history_begins_anew_and_says_so() {
    let lines = "begin; hear; no 'no rollout found for thread id S'; hear; ok '{\"thread\":{\"id\":\"T\"}}'; \
        turn a; say fine; ends a completed; hear";
    let (result, ended) = plays_with(lines, Permissions::Full, Some("S")).result();
    assert_eq!(result.session.as_deref(), Some("T"));
    assert!(ended.text("heard").contains("TASK-TEXT"));
    let told = |text: &&str| text.contains("session S can not go on, it begins anew");
    assert!(ended.notices().iter().any(told), "{:?}", ended.notices());
}

#[test]
fn a_thread_that_another_process_writes_is_left_alone() {
    let lines = "begin; hear; no 'thread S already has an active writer'; hear";
    let (result, _) = plays_with(lines, Permissions::Full, Some("S")).result();
    assert_eq!(result.class, Some(Class::Environment));
    assert!(result.summary.contains("another codex works in session S"));
    assert_eq!(result.session.as_deref(), Some("S"), "it is not forgotten");
}

#[test]
fn an_exit_is_no_result_whatever_its_status() {
    let (result, _) = plays("open; turn a; exit 0").result();
    assert_eq!(
        (result.class, result.exit_code),
        (Some(Class::NoResult), Some(0))
    );
    let (result, _) = plays("echo 'unknown option' >&2; exit 2").result();
    assert_eq!(result.class, Some(Class::Environment));
    assert!(result.evidence.contains("unknown option"));
}

#[test]
fn a_turn_is_not_over_before_what_it_left_has_ended() {
    let mut client = plays(
        "open; turn a; mkfifo up; setsid sh -c 'echo left >&9; echo > up; read go < gate' < /dev/null > /dev/null 2>&1 & \
         read it < up; say one; ends a completed; hear",
    );
    nix::unistd::mkfifo(&client.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    client.wait_for_word("left");
    let notice = client.wait_for(|event| match event {
        Event::Notice(said) => Some(said.text.clone()),
        _ => None,
    });
    assert!(
        notice.contains("its turn ended, 1 processes left"),
        "{notice}"
    );
    std::fs::write(client.path("gate"), "go\n").unwrap();
    let (result, _) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
}

#[test]
fn a_stop_interrupts_and_ends_also_what_does_not_heed_it() {
    let mut client =
        plays("trap '' TERM; open; turn a; echo up >&9; while :; do read -r line; done");
    client.wait_for_word("up");
    client.stop(200);
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.result().is_none(), "a stop is no failure of the work");
}
