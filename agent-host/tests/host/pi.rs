//! The `pi` adapter against a small program that speaks its wire as a story wants.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use protocol::class::Class;
use protocol::command::{Adapter, Answer, Command, SteerMode, Text};
use protocol::ids::{MessageId, QuestionId};
use protocol::program::{Credentials, Home, Permissions, ProgramAdapter, ProgramKind};
use protocol::report::{Asked, Event, ResultStatus, Usage};

use crate::client::{Client, Ended, is};

/// What every story's program can do: `hear` a line and keep its `id` and `message`, `ok` it, `open`
/// the conversation, `take` a prompt and begin its turn, `say` something of the model, `fail` a
/// request, and `settle` the turn, `$used` tokens and `$cost` dollars into the session.
const WORDS: &str = r#"#!/usr/bin/env sh
used=1000; cost=1
hear() { read -r line || exit 0; printf '%s\n' "$line" >> heard; id=$(printf %s "$line" | sed -n 's/.*"id":"\([^"]*\)".*/\1/p'); message=$(printf %s "$line" | sed -n 's/.*"message":"\([^"]*\)".*/\1/p'); command=$(printf %s "$line" | sed -n 's/.*"type":"\([^"]*\)".*/\1/p'); }
ok() { printf '{"type":"response","id":"%s","command":"%s","success":true,"data":%s}\n' "$id" "$command" "${1:-null}"; }
stats() { ok '{"tokens":{"input":'$used',"output":0,"cacheRead":7,"cacheWrite":0},"cost":'$cost',"contextUsage":{"tokens":40,"contextWindow":100}}'; }
open() { hear; ok '{"sessionId":"the-session","model":{"contextWindow":100}}'; hear; stats; }
told() { printf '{"type":"message_start","message":{"role":"user","content":[{"type":"text","text":"%s"}]}}\n' "$1"; }
take() { hear; ok; printf '{"type":"agent_start"}\n'; told "$message"; }
say() { printf '{"type":"message_update","assistantMessageEvent":{"type":"text_start"}}\n'; printf '{"type":"message_end","message":{"role":"assistant","content":[{"type":"text","text":"%s"}],"stopReason":"stop","usage":{"input":10,"output":5,"totalTokens":15,"cost":{"total":0.25}}}}\n' "$1"; }
fail() { printf '{"type":"message_end","message":{"role":"assistant","content":[],"stopReason":"error","errorMessage":"%s"}}\n' "$1"; }
settle() { printf '{"type":"agent_end","messages":[],"willRetry":false}\n{"type":"agent_settled"}\n'; hear; stats; }
printf '%s\n' "$*" > arguments; printf '%s\n' "$PI_CODING_AGENT_DIR $PI_OFFLINE $PI_TELEMETRY" > environment
"#;

fn adapter(program: String, permissions: Permissions) -> ProgramAdapter {
    ProgramAdapter {
        kind: ProgramKind::Pi,
        mode: None,
        mcp: BTreeMap::new(),
        program,
        args: Vec::new(),
        model: Some("fake/m".to_owned()),
        permissions,
        home: Home::Task,
        credentials: Credentials::Copy,
        system_prompt: Some("BE-SHORT".to_owned()),
    }
}

/// A host that drives a program of these lines.
fn plays(lines: &str) -> Client {
    plays_with(lines, |_, _| None)
}

/// As [`plays`], with another adapter, and the session to go on with.
fn plays_with(
    lines: &str,
    change: impl FnOnce(&Client, &mut ProgramAdapter) -> Option<String>,
) -> Client {
    Client::started(|client| {
        let program = client.path("pi");
        std::fs::write(&program, format!("{WORDS}{lines}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut adapter = adapter(program.display().to_string(), Permissions::Full);
        let session = change(client, &mut adapter);
        let mut start = client.start(Adapter::Program(adapter));
        start.prompt = Some(Text::Inline("TASK-TEXT".to_owned()));
        start.session = session;
        let home = client.path("op").display().to_string();
        start.env.insert("HOME".to_owned(), home);
        start
    })
}

/// Lines with this field that the program heard.
fn heard(ended: &Ended, part: &str) -> Vec<String> {
    let text = ended.text("heard");
    let lines = text.lines().filter(|line| line.contains(part));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_turn_that_settles_well_is_the_result_with_the_usage_of_this_run() {
    let client = plays("open; take; say one; say fine; used=1050; cost=1.75; settle; hear");
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "fine")
    );
    let usage = Usage {
        turns: 2,
        tokens: 50,
        cost_micros: 750_000,
    };
    assert_eq!(result.usage, usage);
    assert_eq!(result.session.as_deref(), Some("the-session"));
    let arguments = ended.text("arguments");
    for part in [
        "--mode rpc",
        "--session-id ",
        "--model fake/m",
        "--append-system-prompt BE-SHORT",
        "--extension ",
    ] {
        assert!(arguments.contains(part), "{part} is not in {arguments}");
    }
    let environment = ended.text("environment");
    assert!(
        environment.trim_end().ends_with("/home/pi 1 0"),
        "{environment}"
    );
    assert!(heard(&ended, r#""type":"prompt""#)[0].contains("TASK-TEXT"));
}

#[test]
fn a_message_in_mid_turn_is_seen_when_the_model_answers_a_request_with_it() {
    let mut client = plays(
        "open; take; say one; echo up >&9; hear; ok; \
         printf '{\"type\":\"queue_update\",\"steering\":[\"use port 1\"],\"followUp\":[]}\\n'; \
         echo queued >&9; read go < gate; told 'use port 1'; say two; settle; hear",
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
}

#[test]
fn a_message_that_interrupts_is_the_next_prompt() {
    let mut client = plays(
        r#"open; take; say one; echo up >&9; hear; ok '{"steering":[],"followUp":[]}'; hear
        fail 'This operation was aborted'; printf '{"type":"agent_settled"}\n'; ok; hear; stats
        take; say two; settle; hear"#,
    );
    client.wait_for_word("up");
    client.deliver(1, SteerMode::After, "later");
    client.deliver(2, SteerMode::Interrupt, "stop that");
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "two")
    );
    assert_eq!(heard(&ended, r#""type":"abort""#).len(), 1);
    let prompts = heard(&ended, r#""type":"prompt""#);
    assert!(
        prompts[1].contains("later") && prompts[1].contains("stop that"),
        "{prompts:?}"
    );
}

#[test]
fn a_failed_request_fails_with_its_class_its_evidence_and_the_end_of_its_limit() {
    let client = plays(
        r#"open; take
        printf '{"type":"extension_ui_request","id":"s","method":"setStatus","statusKey":"supervisor.failed_request","statusText":"{\\"status\\":429,\\"reset_at_ms\\":1795260995000}"}\n'
        fail 'slow down'; settle; exit 0"#,
    );
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.class),
        (ResultStatus::Failed, Some(Class::UsageLimit))
    );
    assert_eq!(result.reset_at_ms, Some(1_795_260_995_000));
    assert!(result.evidence.contains("HTTP 429"), "{}", result.evidence);
    assert_eq!(result.exit_code, Some(0), "its exit status says nothing");
    let limited = |event: &Event| matches!(event, Event::RateLimited(_));
    assert!(ended.events.iter().any(limited));
}

#[test]
fn an_exit_is_no_result_whatever_its_status() {
    let (result, _) = plays("open; take; exit 0").result();
    assert_eq!(
        (result.class, result.exit_code),
        (Some(Class::NoResult), Some(0))
    );
    let (result, _) = plays("echo 'Error: Model \"x/y\" not found.' >&2; exit 1").result();
    assert_eq!(result.class, Some(Class::ModelMissing));
    let (result, _) = plays("echo 'Error: Unknown option: --x' >&2; exit 1").result();
    assert_eq!(result.class, Some(Class::Environment));
    let (result, _) = plays("open; take; kill -9 $$").result();
    assert_eq!((result.class, result.signal), (Some(Class::Crash), Some(9)));
}

#[test]
fn a_stop_aborts_the_turn() {
    let mut client = plays(
        r#"open; take; say one; echo up >&9; hear; ok '{"steering":[],"followUp":[]}'; hear
        fail 'This operation was aborted'; settle; hear"#,
    );
    client.wait_for_word("up");
    client.stop(5000);
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(heard(&ended, r#""type":"abort""#).len(), 1);
    assert!(ended.result().is_none(), "a stop is no failure of the work");
}

const MAY_USE: &str = r#"open; take
    printf '{"type":"extension_ui_request","id":"r-1","method":"input","title":"supervisor.may_use","placeholder":"{\\"tool\\":\\"%s\\",\\"input\\":{\\"path\\":\\"a.txt\\"}}"}\n' $TOOL
    hear; say fine; settle; hear"#;

fn asks(tool: &str, permissions: Permissions) -> Client {
    plays_with(&MAY_USE.replace("$TOOL", tool), |_, adapter| {
        adapter.permissions = permissions;
        None
    })
}

#[test]
fn a_question_for_permission_goes_to_the_operator_and_back() {
    let mut client = asks("bash", Permissions::Ask);
    let request = client.wait_for_request("ask");
    let question = QuestionId(3);
    client.answer(request, Asked { question });
    let text = Some("allow".to_owned());
    client.tell(&Command::Answer(Answer { question, text }));
    let (_, ended) = client.result();
    let answers = heard(&ended, "extension_ui_response");
    assert!(
        answers[0].contains(r#""value":"allow""#) && answers[0].contains("r-1"),
        "{answers:?}"
    );
}

#[test]
fn by_policy_edits_are_allowed_and_the_rest_is_refused() {
    let (_, ended) = asks("edit", Permissions::Edits).result();
    assert!(heard(&ended, "extension_ui_response")[0].contains(r#""value":"allow""#));
    let (_, ended) = asks("bash", Permissions::Edits).result();
    let refused = "Only edits of files are allowed here";
    assert!(heard(&ended, "extension_ui_response")[0].contains(refused));
    let notices = ended.notices();
    assert!(
        notices
            .iter()
            .any(|text| text.contains("bash is refused by policy"))
    );
}

#[test]
fn nobody_is_asked_what_another_extension_wants() {
    let client = plays(
        r#"open; take; printf '{"type":"extension_ui_request","id":"x","method":"confirm","title":"Sure?"}\n'
        hear; say fine; settle; hear"#,
    );
    let (_, ended) = client.result();
    assert!(heard(&ended, "extension_ui_response")[0].contains(r#""cancelled":true"#));
}

const ONE_TURN: &str = "open; take; say fine; settle; hear";

/// A session in the task's home, of this working folder.
fn session_of(client: &Client, cwd: &std::path::Path) -> String {
    let folder = client.path("state/home/pi/sessions");
    std::fs::create_dir_all(&folder).unwrap();
    let header = serde_json::json!({"type": "session", "id": "s-1", "cwd": cwd});
    let file = folder.join("2026-01-01T00-00-00-000Z_s-1.jsonl");
    std::fs::write(file, format!("{header}\n")).unwrap();
    "s-1".to_owned()
}

#[test]
fn a_session_with_history_goes_on_and_is_not_told_its_task_again() {
    let (_, ended) = plays_with(ONE_TURN, |client, _| {
        let cwd = client.path("").canonicalize().unwrap();
        Some(session_of(client, &cwd))
    })
    .result();
    let arguments = ended.text("arguments");
    assert!(
        arguments.contains("--session ") && arguments.contains("_s-1.jsonl"),
        "{arguments}"
    );
    assert!(!arguments.contains("--session-id"), "{arguments}");
    let prompts = heard(&ended, r#""type":"prompt""#);
    assert!(
        prompts[0].contains("This session goes on.") && !prompts[0].contains("TASK-TEXT"),
        "{prompts:?}"
    );
}

#[test]
fn a_session_of_another_working_folder_goes_on_as_a_copy() {
    let (_, ended) = plays_with(ONE_TURN, |client, _| {
        Some(session_of(client, &client.path("gone")))
    })
    .result();
    let arguments = ended.text("arguments");
    assert!(
        arguments.contains("--fork ") && arguments.contains("--session-id "),
        "{arguments}"
    );
    assert!(heard(&ended, r#""type":"prompt""#)[0].contains("This session goes on."));
}

#[test]
fn a_session_without_history_begins_anew_with_its_task() {
    let (_, ended) = plays_with(ONE_TURN, |_, _| Some("s-1".to_owned())).result();
    let notices = ended.notices();
    assert!(notices.iter().any(|text| text.contains("begins anew")));
    assert!(heard(&ended, r#""type":"prompt""#)[0].contains("TASK-TEXT"));
}

/// Writes the operator's files.
fn operators(client: &Client) {
    let folder = client.path("op/.pi/agent");
    std::fs::create_dir_all(&folder).unwrap();
    let files = [
        ("auth.json", r#"{"a":1}"#),
        ("models.json", r#"{"m":1}"#),
        (
            "settings.json",
            r#"{"theme":"dark","sessionDir":"/x","retry":{"maxRetries":9}}"#,
        ),
    ];
    for (name, content) in files {
        std::fs::write(folder.join(name), content).unwrap();
    }
}

#[test]
fn a_home_of_the_task_has_login_models_and_settings_with_few_tries() {
    let (_, ended) = plays_with(ONE_TURN, |client, _| {
        operators(client);
        None
    })
    .result();
    let file = |name: &str| ended.text(&format!("state/home/pi/{name}"));
    assert_eq!(file("auth.json"), r#"{"a":1}"#);
    assert_eq!(file("models.json"), r#"{"m":1}"#);
    let settings: serde_json::Value = serde_json::from_str(&file("settings.json")).unwrap();
    assert_eq!(settings["theme"], "dark");
    assert_eq!(settings["retry"]["maxRetries"], 1);
    assert_eq!(settings["sessionDir"], serde_json::Value::Null);
}

#[test]
fn without_credentials_nothing_of_the_operators_is_taken() {
    let (_, ended) = plays_with(ONE_TURN, |client, adapter| {
        operators(client);
        adapter.credentials = Credentials::None;
        None
    })
    .result();
    let home = ended.home.path().join("state/home/pi");
    assert!(!home.join("auth.json").exists() && !home.join("models.json").exists());
    let settings = ended.text("state/home/pi/settings.json");
    assert!(!settings.contains("dark"), "{settings}");
}

#[test]
fn what_is_in_a_home_of_a_given_path_stays_as_it_is() {
    let (_, ended) = plays_with(ONE_TURN, |client, adapter| {
        let home = client.path("mine");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("models.json"), "{}").unwrap();
        std::fs::write(home.join("settings.json"), r#"{"mine":1}"#).unwrap();
        operators(client);
        adapter.home = Home::Path(home.display().to_string());
        None
    })
    .result();
    assert_eq!(ended.text("mine/models.json"), "{}");
    assert_eq!(ended.text("mine/settings.json"), r#"{"mine":1}"#);
    assert_eq!(ended.text("mine/auth.json"), r#"{"a":1}"#);
}

#[test]
fn lines_that_nobody_knows_are_counted_and_harm_nothing() {
    let client = plays(
        r#"open; take; echo 'no json'; echo; echo '[]'; echo '{"type":"news"}'; echo '{"type":"news"}'
        say fine; settle; hear"#,
    );
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    let counted = "lines not understood: 2 no JSON objects, 2 `news`";
    assert!(ended.notices().contains(&counted), "{:?}", ended.notices());
}
