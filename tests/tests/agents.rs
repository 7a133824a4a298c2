//! What `supervisor agents` says of a kind is what its hosts declare when they start; and a batch from
//! its file to its end, with programs that speak the wires.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use supervisor_tests::world::World;

/// One turn: it hears the prompt, says that it took it, and ends well; then it waits for the end.
const CLAUDE: &str = r#"#!/bin/sh
read -r line
uuid=$(printf %s "$line" | sed -n 's/.*"uuid":"\([^"]*\)".*/\1/p')
printf '%s\n' "$CLAUDE_CONFIG_DIR" > home
for state in queued started; do
    printf '{"type":"command_lifecycle","command_uuid":"%s","state":"%s"}\n' "$uuid" "$state"
done
printf '{"type":"assistant","parent_tool_use_id":null,"message":{"id":"m1","model":"m","content":[{"type":"text","text":"It is done."}],"usage":{"input_tokens":100,"output_tokens":20}}}\n'
printf '{"type":"result","subtype":"success","is_error":false,"result":"It is done.","terminal_reason":"completed","total_cost_usd":0.5,"modelUsage":{"m":{"inputTokens":100,"outputTokens":20}},"queued_turn_count":0}\n'
read -r line
"#;

/// As above, for the wire of codex.
const CODEX: &str = r#"#!/bin/sh
hear() { read -r line || exit 0; id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\),.*/\1/p'); }
tell() { printf '{"method":"%s","params":{"threadId":"T",%s}}\n' "$1" "$2"; }
hear; printf '{"id":%s,"result":{}}\n' "$id"
hear
hear; printf '{"id":%s,"result":{"thread":{"id":"T"}}}\n' "$id"
hear; printf '{"id":%s,"result":{}}\n' "$id"
tell turn/started '"turn":{"id":"a"}'
tell item/completed '"item":{"type":"agentMessage","text":"It is done."}'
tell thread/tokenUsage/updated '"tokenUsage":{"total":{"totalTokens":120},"last":{"totalTokens":120,"inputTokens":100,"outputTokens":20},"modelContextWindow":1000}'
tell turn/completed '"turn":{"id":"a","status":"completed","error":null}'
hear
"#;

/// As above, for the wire of pi.
const PI: &str = r#"#!/bin/sh
hear() { read -r line || exit 0; id=$(printf %s "$line" | sed -n 's/.*"id":"\([^"]*\)".*/\1/p'); }
ok() { printf '{"type":"response","id":"%s","command":"%s","success":true,"data":%s}\n' "$id" "$1" "$2"; }
stats() { hear; ok get_session_stats '{"tokens":{"input":'$1',"output":0,"cacheRead":0,"cacheWrite":0},"cost":0}'; }
hear; ok get_state '{"sessionId":"s"}'
stats 0
hear; ok prompt null
printf '{"type":"agent_start"}\n{"type":"message_start","message":{"role":"user","content":[{"type":"text","text":"Do it."}]}}\n'
printf '{"type":"message_end","message":{"role":"assistant","content":[{"type":"text","text":"It is done."}],"stopReason":"stop","usage":{"input":100,"output":20,"totalTokens":120}}}\n'
printf '{"type":"agent_end","messages":[]}\n{"type":"agent_settled"}\n'
stats 120
hear
"#;

/// The kinds that have a task in the batch; what a program of `kind: acp` can is known once it runs,
/// so its row says the most.
const KINDS: [&str; 5] = ["claude", "codex", "pi", "command", "scripted"];

const BATCH: &str = "version: 1
name: kinds
isolation: none
agents:
  coder: {kind: claude, program: ./claude, permissions: ask}
  other: {kind: codex, program: ./codex, permissions: ask}
  third: {kind: pi, program: ./pi}
  tool: {kind: command, command: ['true']}
tasks:
  - {id: claude, agent: coder, prompt: Do it., verify: [test -s home]}
  - {id: codex, agent: other, prompt: Do it.}
  - {id: pi, agent: third, prompt: Do it.}
  - {id: command, agent: tool, prompt: Do it.}
  - {id: scripted, agent: scripted, prompt: '- say: hello'}
";

#[test]
fn what_the_table_says_is_what_the_hosts_declare() {
    let world = World::new();
    for (name, text) in [("claude", CLAUDE), ("codex", CODEX), ("pi", PI)] {
        let program = world.write(name, text);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(program, mode).unwrap();
    }
    world.write("batch.yml", BATCH);
    world.supervisor(&["run"]).ok();

    let table = world.supervisor(&["agents", "--json"]).ok().json();
    let dir = world.batch_dir().unwrap();
    for kind in KINDS {
        let mut rows = table.as_array().unwrap().iter();
        let row = rows.find(|row| row["kind"] == kind).unwrap();
        let run = dir.join("tasks").join(kind).join("attempts/1/runs");
        let runs = std::fs::read_dir(run).unwrap().flatten();
        let first = runs.map(|run| run.path()).min().unwrap();
        let events = std::fs::read_to_string(first.join("events.jsonl")).unwrap();
        let events = events
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut started = events.filter(|line| line["event"]["type"] == "started");
        let declared = started.next().unwrap()["event"]["capabilities"].clone();
        assert_eq!(row["capabilities"], declared, "{kind}");
    }

    let status = world.supervisor(&["status", "--all", "--json"]).ok().json();
    let tasks = status["tasks"].as_array().unwrap();
    let claude = tasks.iter().find(|task| task["id"] == "claude").unwrap();
    assert_eq!(claude["state"], "done");
    assert_eq!(claude["usage"]["tokens"], 120);
    assert_eq!(claude["usage"]["cost_usd"], 0.5);
    for kind in ["codex", "pi"] {
        let task = tasks.iter().find(|task| task["id"] == kind).unwrap();
        assert_eq!(task["state"], "done", "{task}");
        assert_eq!(task["usage"]["tokens"], 120, "{kind}");
    }
    let home = dir.join("tasks/claude/home/claude");
    assert_eq!(world.read("home").trim_end(), home.to_str().unwrap());
    world.assert_nothing_left();
}
