//! The `acp` adapter against a small program that speaks its wire as a story wants.

use std::os::unix::fs::PermissionsExt;

use protocol::class::Class;
use protocol::command::{Adapter, Answer, Command, SteerMode, Text};
use protocol::ids::{MessageId, QuestionId};
use protocol::program::{Credentials, Home, McpServer, Permissions, ProgramAdapter, ProgramKind};
use protocol::report::{Asked, Capabilities, Event, Receipt, ResultStatus, SteerReach, Usage};

use crate::client::{Client, is};

/// What every story's program can do: `hear` a line and keep its id, `answer` it, `told` an update,
/// `say` something of the model, begin and end a `tool`, and `open` the session up to its prompt.
const WORDS: &str = r#"#!/usr/bin/env sh
steering='"_meta":{"steering":{"supported":true}},'
can='"loadSession":true'
more=''
hear() { read -r line || exit 0; printf '%s\n' "$line" >> heard; id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\),.*/\1/p'); }
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "${2:-$id}" "$1"; }
fault() { printf '{"jsonrpc":"2.0","id":%s,"error":%s}\n' "$id" "$1"; }
told() { printf '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s-1","update":%s}}\n' "$1"; }
say() { told '{"sessionUpdate":"agent_message_chunk","messageId":"'$1'","content":{"type":"text","text":"'"$2"'"}}'; }
begin() { told '{"sessionUpdate":"tool_call","toolCallId":"'$1'","title":"bash","kind":"execute","status":"in_progress","rawInput":{"command":"make"}}'; }
end() { told '{"sessionUpdate":"tool_call_update","toolCallId":"'$1'","status":"completed","rawOutput":{"output":"made","metadata":{"exit":0}}}'; }
over() { answer '{"stopReason":"'${1:-end_turn}'","usage":{"inputTokens":10,"outputTokens":5,"totalTokens":15}}' $2; }
open() { hear; answer '{"protocolVersion":1,'"$steering"'"agentCapabilities":{'"$can"'},"agentInfo":{"name":"'"$name"'"}}'; hear; answer '{"sessionId":"s-1"'"$more"'}'; }
printf '%s\n' "$*" > arguments
env > environment
"#;

fn adapter(program: String, permissions: Permissions) -> ProgramAdapter {
    ProgramAdapter {
        kind: ProgramKind::Acp,
        mode: None,
        mcp: std::collections::BTreeMap::new(),
        program,
        args: vec!["more".to_owned()],
        model: None,
        permissions,
        home: Home::Task,
        credentials: Credentials::None,
        system_prompt: None,
    }
}

/// A host that drives a program of this name and these lines.
fn plays(name: &str, lines: &str) -> Client {
    plays_with(name, lines, None, |_| {})
}

fn plays_with(
    name: &str,
    lines: &str,
    session: Option<&str>,
    change: impl FnOnce(&mut ProgramAdapter),
) -> Client {
    Client::started(|client| {
        let program = client.path(name);
        std::fs::write(&program, format!("{WORDS}{lines}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut adapter = adapter(program.display().to_string(), Permissions::Full);
        change(&mut adapter);
        let mut start = client.start(Adapter::Program(adapter));
        start.prompt = Some(Text::Inline("TASK-TEXT".to_owned()));
        start.session = session.map(str::to_owned);
        start
    })
}

fn line(heard: &str, number: usize) -> &str {
    heard.lines().nth(number).unwrap_or_default()
}

fn capabilities(events: &[Event]) -> Capabilities {
    let mut started = events.iter().filter_map(|event| match event {
        Event::Started(started) => Some(started.capabilities),
        _ => None,
    });
    started.next().unwrap()
}

#[test]
fn a_turn_that_ends_well_is_the_result_with_its_usage() {
    let client = plays(
        "agent",
        "open; hear; say a one; begin t; end t; say b fi; say b ne; over; hear",
    );
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "fine")
    );
    let usage = Usage {
        turns: 2,
        tokens: 15,
        cost_micros: 0,
    };
    assert_eq!(result.usage, usage);
    assert_eq!(result.session.as_deref(), Some("s-1"));
    let heard = ended.text("heard");
    assert!(
        line(&heard, 0).contains(r#""protocolVersion":1"#),
        "{heard}"
    );
    assert!(line(&heard, 1).contains(r#""mcpServers":[]"#), "{heard}");
    assert!(line(&heard, 2).contains("TASK-TEXT"), "{heard}");
    let tools = ended.events.iter().filter_map(|event| match event {
        Event::ToolCall(tool) => Some((tool.name.as_str(), tool.detail.as_str(), tool.ok)),
        Event::ToolResult(tool) => Some((tool.name.as_str(), tool.detail.as_str(), tool.ok)),
        _ => None,
    });
    let tools: Vec<_> = tools.collect();
    let wanted = [
        ("bash", r#"{"command":"make"}"#, None),
        ("bash", "made", Some(true)),
    ];
    assert_eq!(tools, wanted);
    let said = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::AssistantMessage(_)));
    assert_eq!(said.count(), 2, "pieces of one message are one");
}

#[test]
fn a_message_goes_into_the_turn_by_the_extension_where_it_is_offered() {
    let mut client = plays(
        "agent",
        r#"open; hear; turn=$id; begin t; echo up >&9; hear; answer '{"outcome":"injected"}'; end t; say a fine; over end_turn $turn; hear"#,
    );
    client.wait_for_word("up");
    client.deliver(4, SteerMode::Boundary, "use port 1");
    let (result, ended) = client.result();
    assert_eq!(result.summary, "fine");
    let heard = ended.text("heard");
    assert!(line(&heard, 3).contains("_session/steering"), "{heard}");
    assert!(line(&heard, 3).contains("use port 1"), "{heard}");
    let can = capabilities(&ended.events);
    assert_eq!(
        (can.steer, can.receipt),
        (SteerReach::Interrupt, Receipt::Injected)
    );
    let seen = |event: &Event| matches!(event, Event::MessageSeen { .. });
    assert!(!ended.events.iter().any(seen), "nothing proves it");
}

#[test]
fn a_message_that_finds_no_turn_is_a_prompt_and_not_lost() {
    let mut client = plays(
        "agent",
        r#"open; hear; turn=$id; begin t; echo up >&9; hear; steer=$id; end t; say a first; over end_turn $turn
        answer '{"outcome":"promptRequired"}' $steer; hear; say b second; over; hear"#,
    );
    client.wait_for_word("up");
    client.deliver(4, SteerMode::Boundary, "use port 1");
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "second")
    );
    let heard = ended.text("heard");
    assert!(line(&heard, 4).contains("session/prompt"), "{heard}");
    assert!(line(&heard, 4).contains("use port 1"), "{heard}");
}

/// As opencode and the extension that it is given do.
#[test]
fn a_second_prompt_is_seen_when_the_model_answers_a_request_with_it() {
    let mut client = plays(
        "opencode",
        r#"steering=''; name=OpenCode
        ours() { printf '{"jsonrpc":"2.0","method":"_supervisor/opencode","params":{"session":"s-1",%s}}\n' "$1"; }
        open; hear; one=$id; ours '"kind":"text","message":"m1","text":"TASK-TEXT"'; ours '"kind":"answered","message":"m1"'; begin t
        echo up >&9; hear; two=$id; ours '"kind":"text","message":"m2","text":"use port 1"'; echo queued >&9; read go < gate
        end t; ours '"kind":"step","tokens":{"input":10,"output":5},"cost":0.25'
        ours '"kind":"answered","message":"m2"'; say a fine; over end_turn $one; over end_turn $two; hear"#,
    );
    nix::unistd::mkfifo(&client.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    client.wait_for_word("up");
    client.deliver(4, SteerMode::Boundary, "use port 1");
    client.wait_for(is(|event| {
        matches!(event, Event::MessageInjected { id: MessageId(4) })
    }));
    client.wait_for_word("queued");
    std::fs::write(client.path("gate"), "go\n").unwrap();
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "fine")
    );
    let usage = Usage {
        turns: 1,
        tokens: 15,
        cost_micros: 250_000,
    };
    assert_eq!(result.usage, usage, "by its own count of each request");
    let place = |wanted: fn(&Event) -> bool| ended.events.iter().position(wanted);
    let seen = place(|event| *event == Event::MessageSeen { id: MessageId(4) });
    let tool = place(|event| matches!(event, Event::ToolResult(_)));
    let answer = place(|event| matches!(event, Event::AssistantMessage(_)));
    assert!(tool < seen && seen < answer, "{:?}", ended.events);
    assert_eq!(ended.text("arguments"), "acp more\n");
    let environment = ended.text("environment");
    for wanted in [
        "/state/home/acp/.local/share",
        r#"OPENCODE_PERMISSION={"*":"allow"}"#,
        "OPENCODE_DISABLE_AUTOUPDATE=1",
    ] {
        assert!(environment.contains(wanted), "{wanted}: {environment}");
    }
}

#[test]
fn a_message_waits_for_the_end_where_the_program_has_no_way_in() {
    let mut client = plays(
        "agent",
        "steering=''; open; hear; say a one; echo up >&9; read go < gate; over; hear; say b two; over; hear",
    );
    nix::unistd::mkfifo(&client.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    client.wait_for_word("up");
    client.deliver(4, SteerMode::Boundary, "use port 1");
    std::fs::write(client.path("gate"), "go\n").unwrap();
    let (result, ended) = client.result();
    assert_eq!(result.summary, "two");
    let heard = ended.text("heard");
    assert!(line(&heard, 3).contains("session/prompt"), "{heard}");
    assert!(line(&heard, 3).contains("use port 1"), "{heard}");
    assert_eq!(capabilities(&ended.events).steer, SteerReach::None);
    let seen = Event::MessageSeen { id: MessageId(4) };
    assert!(ended.events.contains(&seen), "the prompt was answered");
}

#[test]
fn a_message_that_interrupts_is_the_next_prompt() {
    let mut client = plays(
        "agent",
        "open; hear; turn=$id; say a one; echo up >&9; hear; over cancelled $turn; hear; say b two; over; hear",
    );
    client.wait_for_word("up");
    client.deliver(2, SteerMode::Interrupt, "stop that");
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "two")
    );
    let heard = ended.text("heard");
    assert!(line(&heard, 3).contains("session/cancel"), "{heard}");
    assert!(line(&heard, 4).contains("stop that"), "{heard}");
}

#[test]
fn requests_that_fail_in_silence_are_told_and_cut_short() {
    let retry = |attempt: u32| {
        format!(
            r#"ours '"kind":"retry","attempt":{attempt},"wait_ms":900,"next":1795260995000,"message":"slow down","failed":{{"status":429,"after":"1"}}'"#
        )
    };
    let lines = format!(
        r#"ours() {{ printf '{{"jsonrpc":"2.0","method":"_supervisor/opencode","params":{{"session":"s-1",%s}}}}\n' "$1"; }}
        steering=''; open; hear; turn=$id; {}; {}; hear; over end_turn $turn; hear"#,
        retry(1),
        retry(2)
    );
    let (result, ended) = plays("opencode", &lines).result();
    assert_eq!(result.class, Some(Class::UsageLimit), "{}", result.evidence);
    assert_eq!(result.reset_at_ms, Some(1_795_260_995_000));
    assert!(result.evidence.contains("HTTP 429"), "{}", result.evidence);
    let heard = ended.text("heard");
    assert!(line(&heard, 3).contains("session/cancel"), "{heard}");
    let retries = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::Retry(_)));
    assert_eq!(retries.count(), 2);
    assert_eq!(capabilities(&ended.events).receipt, Receipt::Seen);
}

#[test]
fn an_end_is_judged_by_its_fields() {
    let cases = [
        ("over max_turn_requests", Class::Budget),
        ("over refusal", Class::Refused),
        ("over max_tokens", Class::Overflow),
        ("over nobody_knows", Class::AgentFailed),
        (
            r#"fault '{"code":-32000,"message":"Authentication required"}'"#,
            Class::Auth,
        ),
        (
            r#"fault '{"code":-32603,"message":"x","data":{"errorKind":"rate_limit"}}'"#,
            Class::UsageLimit,
        ),
        (
            r#"told '{"sessionUpdate":"session_info_update","_meta":{"codex":{"threadStatus":{"type":"systemError"}}}}'
            told '{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"unexpected status 529"}}'; over"#,
            Class::Overload,
        ),
    ];
    for (end, class) in cases {
        let (result, _) = plays("agent", &format!("open; hear; {end}; hear")).result();
        assert_eq!(result.class, Some(class), "{end}: {}", result.evidence);
        assert!(!result.evidence.is_empty(), "{end}");
    }
}

#[test]
fn a_session_goes_on_with_what_it_was_told_before_and_nothing_is_told_twice() {
    let lines = r#"hear; answer '{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}'
        hear; say a OLD; answer '{}'; hear; say b new; over; hear"#;
    let (result, ended) = plays_with("agent", lines, Some("s-1"), |_| {}).result();
    assert_eq!(result.session.as_deref(), Some("s-1"));
    let heard = ended.text("heard");
    assert!(line(&heard, 1).contains("session/load"), "{heard}");
    assert!(line(&heard, 2).contains("This session goes on."), "{heard}");
    let said: Vec<_> = ended
        .events
        .iter()
        .filter_map(|event| match event {
            Event::AssistantMessage(said) => Some(said.text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(said, ["new"]);
}

#[test]
fn a_session_that_is_gone_is_followed_by_a_new_one() {
    let lines = r#"hear; answer '{"protocolVersion":1,"agentCapabilities":{"loadSession":true}}'
        hear; fault '{"code":-32603,"message":"no such session"}'
        hear; answer '{"sessionId":"s-1"}'; hear; say b new; over; hear"#;
    let (result, ended) = plays_with("agent", lines, Some("s-0"), |_| {}).result();
    assert_eq!(result.session.as_deref(), Some("s-1"));
    assert!(ended.text("heard").contains("TASK-TEXT"));
    let told = |text: &&str| text.contains("a new one begins: no such session");
    assert!(ended.notices().iter().any(told), "{:?}", ended.notices());
}

#[test]
fn model_mode_and_servers_are_told_before_the_first_prompt() {
    let lines = r#"more=',"modes":{"availableModes":[{"id":"bypassPermissions"}]},"configOptions":[{"id":"model","category":"model"}]'
        open; hear; answer '{}'; hear; answer '{}'; hear; say a fine; over; hear"#;
    let client = plays_with("codex-acp", lines, None, |adapter| {
        adapter.model = Some("m-1".to_owned());
        adapter.mode = Some("bypassPermissions".to_owned());
        let server = McpServer {
            command: "mailbox".to_owned(),
            args: vec!["-x".to_owned()],
            env: [("A".to_owned(), "b".to_owned())].into(),
        };
        adapter.mcp = [("post".to_owned(), server)].into();
    });
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok, "{}", result.summary);
    let heard = ended.text("heard");
    let server =
        r#"{"args":["-x"],"command":"mailbox","env":[{"name":"A","value":"b"}],"name":"post"}"#;
    assert!(line(&heard, 1).contains(server), "{heard}");
    assert!(
        line(&heard, 2).contains("session/set_config_option"),
        "{heard}"
    );
    assert!(line(&heard, 2).contains(r#""value":"m-1""#), "{heard}");
    assert!(
        line(&heard, 3).contains(r#""modeId":"bypassPermissions""#),
        "{heard}"
    );
}

#[test]
fn a_model_that_can_not_be_chosen_fails_before_it_costs() {
    let refused = r#"more=',"configOptions":[{"id":"model"}]'; open; hear; fault '{"code":-32602,"message":"unknown"}'; hear"#;
    for lines in [refused, "open; hear"] {
        let client = plays_with("agent", lines, None, |adapter| {
            adapter.model = Some("m-1".to_owned());
        });
        let (result, _) = client.result();
        assert_eq!(
            result.class,
            Some(Class::ModelMissing),
            "{}",
            result.summary
        );
    }
}

const MAY_USE: &str = r#"open; hear; turn=$id
    printf '{"jsonrpc":"2.0","id":0,"method":"session/request_permission","params":{"sessionId":"s-1","toolCall":{"toolCallId":"t","title":"make it","kind":"%s","rawInput":{"command":"make"}},"options":[{"optionId":"always","kind":"allow_always"},{"optionId":"once","kind":"allow_once"},{"optionId":"no","kind":"reject_once"}]}}\n' $kind
    hear; say a one; over end_turn $turn; hear"#;

fn may_use(kind: &str, permissions: Permissions) -> Client {
    let lines = format!("kind={kind}; {MAY_USE}");
    plays_with("agent", &lines, None, |adapter| {
        adapter.permissions = permissions;
    })
}

#[test]
fn a_question_for_permission_is_answered_by_policy_with_the_option_of_its_kind() {
    let cases = [
        ("execute", Permissions::Full, "once"),
        ("edit", Permissions::Edits, "once"),
        ("execute", Permissions::Edits, "no"),
    ];
    for (kind, permissions, option) in cases {
        let (_, ended) = may_use(kind, permissions).result();
        let heard = ended.text("heard");
        let wanted = format!(r#""optionId":"{option}""#);
        assert!(line(&heard, 3).contains(&wanted), "{kind}: {heard}");
        assert!(line(&heard, 3).contains(r#""id":0"#), "{heard}");
    }
}

#[test]
fn a_question_for_permission_goes_to_the_operator_and_back() {
    let mut client = may_use("execute", Permissions::Ask);
    let request = client.wait_for_request("ask");
    let question = QuestionId(3);
    client.answer(request, Asked { question });
    let text = Some("allow".to_owned());
    client.tell(&Command::Answer(Answer { question, text }));
    let (_, ended) = client.result();
    let heard = ended.text("heard");
    assert!(line(&heard, 3).contains(r#""optionId":"once""#), "{heard}");
}

#[test]
fn an_interrupt_withdraws_the_questions_that_wait() {
    let lines = format!("kind=execute; {MAY_USE}").replace(
        "hear; say a one; over end_turn $turn; hear",
        "hear; hear; over cancelled $turn; hear; say b two; over; hear",
    );
    let mut client = plays_with("agent", &lines, None, |adapter| {
        adapter.permissions = Permissions::Ask;
    });
    client.wait_for_request("ask");
    client.deliver(2, SteerMode::Interrupt, "stop that");
    let (result, ended) = client.result();
    assert_eq!(result.summary, "two");
    let heard = ended.text("heard");
    assert!(line(&heard, 3).contains("session/cancel"), "{heard}");
    assert!(
        line(&heard, 4).contains(r#""outcome":"cancelled""#),
        "{heard}"
    );
}

#[test]
fn logs_and_unknown_kinds_on_the_wire_are_counted_and_harm_nothing() {
    let client = plays(
        "agent",
        r#"echo 'starting up'; open; hear; echo log; told '{"sessionUpdate":"news"}'
        echo '{"jsonrpc":"2.0","id":9,"method":"fs/read_text_file","params":{}}'; hear
        say a fine; over end_turn 3; hear"#,
    );
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert!(ended.text("heard").contains("-32601"));
    let counted = "lines not understood: 2 no JSON objects, 1 `update/news`";
    assert!(ended.notices().contains(&counted), "{:?}", ended.notices());
}
