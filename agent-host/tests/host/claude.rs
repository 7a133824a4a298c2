//! The `claude` adapter against a small program that speaks its wire as a story wants.

use std::os::unix::fs::PermissionsExt;

use protocol::class::Class;
use protocol::command::{Adapter, Answer, Command, SteerMode, Text};
use protocol::ids::{MessageId, QuestionId};
use protocol::program::{Credentials, Home, Permissions, ProgramAdapter, ProgramKind};
use protocol::report::{Asked, Event, ResultStatus, Usage};

use crate::client::{Client, is};

/// What every story's program can do: `hear` a line, tell the `stage` of the last one, `say`
/// something of the model, and end the turn by `result`.
const WORDS: &str = r#"#!/usr/bin/env sh
hear() { read -r line || exit 0; printf '%s\n' "$line" >> heard; uuid=$(printf %s "$line" | sed -n 's/.*"uuid":"\([^"]*\)".*/\1/p'); }
stage() { printf '{"type":"command_lifecycle","command_uuid":"%s","state":"%s"}\n' "$uuid" "$1"; }
say() { printf '{"type":"assistant","parent_tool_use_id":null,"message":{"id":"%s","model":"m","content":[{"type":"text","text":"%s"}],"usage":{"input_tokens":10,"output_tokens":5}}}\n' "$1" "$2"; }
result() { printf '{"type":"result","subtype":"success","is_error":false,"result":"%s","terminal_reason":"completed","total_cost_usd":0.25,"modelUsage":{"m":{"inputTokens":20,"outputTokens":10,"contextWindow":1000}},"queued_turn_count":0}\n' "$1"; }
printf '%s\n' "$*" > arguments
"#;

fn adapter(program: String, permissions: Permissions) -> Adapter {
    Adapter::Program(ProgramAdapter {
        kind: ProgramKind::Claude,
        mode: None,
        mcp: std::collections::BTreeMap::new(),
        program,
        args: Vec::new(),
        model: Some("m".to_owned()),
        permissions,
        home: Home::Task,
        credentials: Credentials::None,
        system_prompt: None,
    })
}

/// A host that drives a program of these lines.
pub(crate) fn plays(lines: &str) -> Client {
    plays_with(lines, Permissions::Full, None)
}

fn plays_with(lines: &str, permissions: Permissions, session: Option<&str>) -> Client {
    Client::started(|client| {
        let program = client.path("claude");
        std::fs::write(&program, format!("{WORDS}{lines}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut start = client.start(adapter(program.display().to_string(), permissions));
        start.prompt = Some(Text::Inline("TASK-TEXT".to_owned()));
        start.session = session.map(str::to_owned);
        start
    })
}

#[test]
fn a_turn_that_ends_well_is_the_result_with_its_usage() {
    let client = plays(
        "hear; stage started; say a one; say a two; say b three; result fine; stage completed; hear",
    );
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "fine")
    );
    let usage = Usage {
        turns: 2,
        tokens: 30,
        cost_micros: 250_000,
    };
    assert_eq!(result.usage, usage);
    let session = result.session.unwrap();
    let arguments = ended.text("arguments");
    assert!(
        arguments.contains(&format!("--session-id {session} --model m")),
        "{arguments}"
    );
    assert!(ended.text("heard").contains("TASK-TEXT"));
    let said = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::AssistantMessage(_)));
    assert_eq!(said.count(), 3);
}

#[test]
fn a_message_in_mid_turn_is_seen_when_the_model_answers_a_request_with_it() {
    let mut client = plays(
        "hear; stage started; say a one; echo up >&9; hear; stage queued; echo queued >&9; \
         read go < gate; stage started; say b two; stage completed; result fine; hear",
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
    assert!(
        ended
            .text("heard")
            .lines()
            .nth(1)
            .unwrap()
            .contains("use port 1")
    );
}

#[test]
fn a_message_that_interrupts_is_the_next_prompt() {
    let mut client = plays(
        r#"hear; stage started; say a one; echo up >&9; hear
        printf '{"type":"result","subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_tools"}\n'
        hear; stage started; say b two; stage completed; result fine; hear"#,
    );
    client.wait_for_word("up");
    client.deliver(1, SteerMode::After, "later");
    client.deliver(2, SteerMode::Interrupt, "stop that");
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    let heard = ended.text("heard");
    let lines: Vec<&str> = heard.lines().collect();
    assert!(lines[1].contains(r#""subtype":"interrupt""#), "{heard}");
    assert!(
        lines[2].contains("later") && lines[2].contains("stop that"),
        "{heard}"
    );
    let seen = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::MessageSeen { .. }));
    assert_eq!(seen.count(), 2);
}

#[test]
fn an_interrupt_that_is_not_heeded_ends_the_run_and_keeps_the_message() {
    let mut client = plays("hear; stage started; say a one; echo up >&9; hear; hear");
    client.wait_for_word("up");
    client.deliver(2, SteerMode::Interrupt, "stop that");
    let (result, ended) = client.result();
    assert_eq!(result.class, Some(Class::Protocol), "{}", result.summary);
    assert!(result.session.is_some());
    assert_eq!(
        ended.exit_file().unwrap().injected,
        [],
        "the next run gets it"
    );
}

#[test]
fn a_success_that_is_an_error_fails_with_its_class_and_evidence() {
    let client = plays(
        r#"hear; stage started
        printf '{"type":"assistant","is_api_error_message":true,"error":"authentication_failed","message":{"id":"x","model":"<synthetic>","content":[{"type":"text","text":"Invalid API key"}]}}\n'
        printf '{"type":"result","subtype":"success","is_error":true,"terminal_reason":"api_error","api_error_status":401,"api_error_type":"authentication_error","result":"Invalid API key"}\n'
        hear"#,
    );
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.class),
        (ResultStatus::Failed, Some(Class::Auth))
    );
    assert!(result.evidence.contains("HTTP 401"), "{}", result.evidence);
    assert_eq!(result.exit_code, Some(0), "its exit status says nothing");
    let spoke = |event: &Event| matches!(event, Event::AssistantMessage(_));
    assert!(
        !ended.events.iter().any(spoke),
        "no word of the model: no progress"
    );
}

#[test]
fn a_limit_of_the_account_has_its_reset_time() {
    let client = plays(
        r#"hear; stage started
        printf '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1795260995,"rateLimitType":"five_hour"}}\n'
        printf '{"type":"result","subtype":"success","is_error":true,"terminal_reason":"api_error","api_error_status":429,"result":"limit"}\n'
        hear"#,
    );
    let (result, _) = client.result();
    assert_eq!(result.class, Some(Class::UsageLimit));
    assert_eq!(result.reset_at_ms, Some(1_795_260_995_000));
}

#[test]
fn an_exit_is_no_result_whatever_its_status() {
    let (result, _) = plays("hear; stage started; exit 0").result();
    assert_eq!(
        (result.class, result.exit_code),
        (Some(Class::NoResult), Some(0))
    );
    let (result, _) = plays("hear; echo 'unknown option' >&2; exit 1").result();
    assert_eq!(result.class, Some(Class::Environment));
    assert!(result.evidence.contains("unknown option"));
    let (result, _) = plays("hear; stage started; kill -9 $$").result();
    assert_eq!((result.class, result.signal), (Some(Class::Crash), Some(9)));
}

#[test]
fn a_turn_is_not_over_before_what_it_left_has_ended() {
    let mut client = plays(
        "hear; stage started; mkfifo up; setsid sh -c 'echo left >&9; echo > up; read go < gate' < /dev/null > /dev/null 2>&1 & \
         read it < up; say a one; result fine; stage completed; hear",
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
fn a_turn_that_it_begins_by_itself_is_awaited() {
    let client = plays(
        "hear; stage started; say a one; result first; say b two; result second; stage completed; hear",
    );
    let (result, ended) = client.result();
    assert_eq!(result.summary, "second");
    let turns = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::TurnEnded {}));
    assert_eq!(turns.count(), 1);
    assert!(
        ended
            .notices()
            .iter()
            .any(|text| text.contains("by itself"))
    );
}

const MAY_USE: &str = r#"hear; stage started
    printf '{"type":"control_request","request_id":"r-1","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"make"},"decision_reason":"asks"}}\n'
    hear; say a one; result fine; stage completed; hear"#;

#[test]
fn a_question_for_permission_goes_to_the_operator_and_back() {
    let mut client = plays_with(MAY_USE, Permissions::Ask, None);
    let request = client.wait_for_request("ask");
    let question = QuestionId(3);
    client.answer(request, Asked { question });
    let text = Some("allow".to_owned());
    client.tell(&Command::Answer(Answer { question, text }));
    let (_, ended) = client.result();
    let heard = ended.text("heard");
    let line = heard.lines().nth(1).unwrap();
    assert!(
        line.contains(r#""behavior":"allow""#) && line.contains("r-1"),
        "{line}"
    );
    assert!(
        line.contains(r#""updatedInput":{"command":"make"}"#),
        "{line}"
    );
}

#[test]
fn a_question_for_permission_is_refused_where_nobody_is_to_be_asked() {
    let (_, ended) = plays_with(MAY_USE, Permissions::Edits, None).result();
    let heard = ended.text("heard");
    assert!(
        heard
            .lines()
            .nth(1)
            .unwrap()
            .contains(r#""behavior":"deny""#),
        "{heard}"
    );
    assert!(
        ended
            .notices()
            .iter()
            .any(|text| text.contains("Bash is refused by policy"))
    );
    let mut client = plays_with(MAY_USE, Permissions::Ask, None);
    let request = client.wait_for_request("ask");
    client.refuse(request, "a run may ask 9 questions");
    let (_, ended) = client.result();
    assert!(ended.text("heard").contains("a run may ask 9 questions"));
}

#[test]
fn a_stop_interrupts_and_ends_also_what_does_not_heed_it() {
    let mut client = plays(
        "trap '' TERM; hear; stage started; say a one; echo up >&9; while :; do read -r line; done",
    );
    client.wait_for_word("up");
    client.stop(200);
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.result().is_none(), "a stop is no failure of the work");
}

#[test]
fn the_next_attempt_is_told_why_the_one_before_failed() {
    let lines = "hear; stage started; say a one; result fine; stage completed; hear";
    let told = |session: Option<&str>| {
        let client = Client::started(|client| {
            let program = client.path("claude");
            std::fs::write(&program, format!("{WORDS}{lines}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
            if let Some(id) = session {
                let project = client.path("state/home/claude/projects/-x");
                std::fs::create_dir_all(&project).unwrap();
                std::fs::write(project.join(format!("{id}.jsonl")), "{}\n").unwrap();
            }
            let adapter = adapter(program.display().to_string(), Permissions::Full);
            let mut start = client.start(adapter);
            start.prompt = Some(Text::Inline("TASK-TEXT".to_owned()));
            start.hand_off = Some("TESTS-FAILED".to_owned());
            start.session = session.map(str::to_owned);
            start
        });
        let (_, ended) = client.result();
        ended.text("heard").lines().next().unwrap().to_owned()
    };
    let anew = told(None);
    assert!(
        anew.contains("TASK-TEXT") && anew.contains("TESTS-FAILED"),
        "{anew}"
    );
    let resumed = told(Some("11111111-2222-4333-8444-555555555555"));
    assert!(
        !resumed.contains("TASK-TEXT") && resumed.contains("TESTS-FAILED"),
        "{resumed}"
    );
    assert!(resumed.contains("This session goes on"), "{resumed}");
}

#[test]
fn a_session_with_history_goes_on_and_is_not_told_its_task_again() {
    let id = "11111111-2222-4333-8444-555555555555";
    let lines = "hear; stage started; say a one; result fine; stage completed; hear";
    let (result, ended) = plays_with(lines, Permissions::Full, Some(id)).result();
    assert_eq!(result.session.as_deref(), Some(id));
    let arguments = ended.text("arguments");
    assert!(
        arguments.contains(&format!("--session-id {id}")),
        "no history: {arguments}"
    );
    assert!(ended.text("heard").contains("TASK-TEXT"));

    let client = Client::started(|client| {
        let project = client.path("state/home/claude/projects/-x");
        std::fs::create_dir_all(&project).unwrap();
        std::fs::write(project.join(format!("{id}.jsonl")), "{}\n").unwrap();
        let program = client.path("claude");
        std::fs::write(&program, format!("{WORDS}{lines}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let adapter = adapter(program.display().to_string(), Permissions::Full);
        let mut start = client.start(adapter);
        start.prompt = Some(Text::Inline("TASK-TEXT".to_owned()));
        start.session = Some(id.to_owned());
        start
    });
    let (_, ended) = client.result();
    assert!(ended.text("arguments").contains(&format!("--resume {id}")));
    let heard = ended.text("heard");
    assert!(
        heard.contains("This session goes on.") && !heard.contains("TASK-TEXT"),
        "{heard}"
    );
}

#[test]
fn lines_that_nobody_knows_are_counted_and_harm_nothing() {
    let client = plays(
        r#"hear; stage started; echo 'no json'; echo; echo '[]'; echo '{"type":"news"}'; echo '{"type":"news"}'
        say a one; result fine; stage completed; hear"#,
    );
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    let counted = "lines not understood: 2 no JSON objects, 2 `news`";
    assert!(ended.notices().contains(&counted), "{:?}", ended.notices());
}
