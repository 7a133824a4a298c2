//! It works: own tools, messages in mid-turn, questions, usage.

use serde_json::{Value, json};

use supervisor_tests::real::{Real, Stage, UNTIL_GO, say};

use crate::shell;

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn it_writes_a_file_with_its_own_tool_and_is_done_with_usage() {
    let patch = "*** Begin Patch\n*** Add File: hello.txt\n+hello\n*** End Patch\n";
    let write = format!("apply_patch <<'EOF'\n{patch}EOF\n");
    let stage = Stage::new(Real::Codex, &json!([shell(&write), say("It is written.")]));
    let verify = json!(["grep -q hello hello.txt"]);
    stage.batch(
        &json!([{"id": "one", "prompt": "Write hello.", "verify": verify}]),
        &json!({"system_prompt": "Speak like a ZEBRA."}),
    );
    stage.world.supervisor(&["run"]).ok();
    assert_eq!(stage.world.read("hello.txt"), "hello\n");
    stage.last_request_has("ZEBRA");
    let usage = stage.is("one", "done")["usage"].clone();
    assert_eq!(usage["tokens"].as_u64(), Some(2040), "{usage}");
    stage.world.assert_nothing_left();
}

/// Where the model is may be said in each of these ways.
#[track_caller]
fn works_with(keys: impl FnOnce(&Stage) -> Value) {
    let stage = Stage::new(
        Real::Codex,
        &json!([shell("echo hello > out"), say("Done.")]),
    );
    let keys = keys(&stage);
    stage.batch(&json!([{"id": "one", "prompt": "Write it."}]), &keys);
    stage.world.supervisor(&["run"]).ok();
    assert_eq!(stage.world.read("out"), "hello\n");
    stage.is("one", "done");
    assert_eq!(stage.turns().len(), 2);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn the_model_may_be_named_by_arguments() {
    works_with(|stage| {
        let provider = format!(
            "model_providers.mine={{name=\"mine\", base_url=\"{}\", env_key=\"MY_KEY\"}}",
            stage.openai_url()
        );
        json!({"args": ["-c", "model_provider=mine", "-c", provider], "env": {"MY_KEY": "none"}})
    });
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn the_model_may_be_named_by_the_endpoint_alone() {
    works_with(|stage| {
        let setting = format!("openai_base_url=\"{}\"", stage.openai_url());
        json!({"args": ["-c", setting], "env": {"OPENAI_API_KEY": "none"}})
    });
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn the_model_may_be_named_by_the_configuration_of_a_home() {
    works_with(|stage| {
        let home = stage.world.path("codex-home");
        std::fs::create_dir(&home).expect("a home");
        let config = format!(
            "model_provider = 'mine'\n[model_providers.mine]\nname = 'mine'\nbase_url = '{}'\n",
            stage.openai_url()
        );
        std::fs::write(home.join("config.toml"), config).expect("its settings");
        json!({"home": home, "env": {}})
    });
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_message_in_mid_turn_is_in_the_models_next_request() {
    let stage = Stage::new(Real::Codex, &json!([shell(UNTIL_GO), say("Understood.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Wait for it."}]),
        &json!({}),
    );
    let run = stage.world.start("run", &["run"]);
    stage.begun();
    let operator = stage.world.operator();
    let steer = std::thread::spawn(move || {
        operator.supervisor(&[
            "steer",
            "one",
            "use port 4711",
            "--wait",
            "seen",
            "--timeout",
            "60s",
        ])
    });
    stage.world.eventually("the message is injected", |world| {
        let journal = world.journal();
        let text = serde_json::to_string(&journal).ok()?;
        text.contains("injected").then_some(())
    });
    stage.world.write("go", "");
    steer.join().expect("steer runs").ok();
    stage.last_request_has("use port 4711");
    assert_eq!(run.end(&stage.world), Some(0));
    assert_eq!(stage.turns().len(), 2, "in the same turn");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn an_interrupt_ends_the_command_and_the_message_is_the_next_prompt() {
    let stage = Stage::new(Real::Codex, &json!([shell(UNTIL_GO), say("I stopped.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Wait for it."}]),
        &json!({}),
    );
    let run = stage.world.start("run", &["run"]);
    stage.begun();
    let args = [
        "steer",
        "one",
        "stop that",
        "--mode",
        "interrupt",
        "--wait",
        "seen",
    ];
    stage.world.supervisor(&args).ok();
    assert_eq!(run.end(&stage.world), Some(0));
    stage.last_request_has("stop that");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_question_for_permission_is_answered_by_the_operator() {
    let stage = Stage::new(Real::Codex, &json!([shell("touch asked"), say("Done.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Touch it."}]),
        &json!({"permissions": "ask"}),
    );
    let run = stage.world.start("run", &["run"]);
    let question = stage.question("one");
    assert_eq!(stage.world.read("asked"), "");
    stage.world.supervisor(&["answer", &question, "allow"]).ok();
    assert_eq!(run.end(&stage.world), Some(0));
    assert!(stage.world.repo().join("asked").exists());
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn edits_are_allowed_and_commands_refused_where_only_edits_may_be_made() {
    let patch = "*** Begin Patch\n*** Add File: edited\n+yes\n*** End Patch\n";
    let edit = shell(&format!("apply_patch <<'EOF'\n{patch}EOF\n"));
    let stage = Stage::new(
        Real::Codex,
        &json!([edit, shell("touch made"), say("Done.")]),
    );
    stage.batch(
        &json!([{"id": "one", "prompt": "Try both."}]),
        &json!({"permissions": "edits"}),
    );
    stage.world.supervisor(&["run"]).ok();
    assert_eq!(stage.world.read("edited"), "yes\n");
    assert!(!stage.world.repo().join("made").exists());
    stage.last_request_has("Only edits of files are allowed here");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_server_of_tools_is_there_and_its_process_is_not_left_over() {
    let stage = Stage::in_world(Real::Codex, |world| {
        world.write("tools.sh", TOOLS);
        let ask = json!({"content": [{"use": {"tool": "mcp__box/knock", "input": {}}}]});
        json!([{"replies": [ask, say("Done.")]}])
    });
    let command = json!(["sh", stage.world.repo().join("tools.sh")]);
    stage.batch(
        &json!([{"id": "one", "prompt": "Knock."}]),
        &json!({"mcp": {"box": {"command": command, "env": {"WORD": "OPEN-SESAME"}}}}),
    );
    stage.world.supervisor(&["run"]).ok();
    stage.last_request_has("OPEN-SESAME");
    assert!(!stage.explain("one").contains("processes left"));
    stage.world.assert_nothing_left();
}

/// A server with one tool, which tells a word of its environment.
const TOOLS: &str = r#"
while read -r line; do
    id=$(printf %s "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
    case $line in
    *'"initialize"'*) result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"box","version":"1"}}' ;;
    *'"tools/list"'*) result='{"tools":[{"name":"knock","inputSchema":{"type":"object"}}]}' ;;
    *'"tools/call"'*) result='{"content":[{"type":"text","text":"'$WORD'"}]}' ;;
    *) result= ;;
    esac
    if [ -n "$result" ]; then printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"; fi
done
"#;

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn it_asks_its_operator_by_the_server_that_it_gets_from_its_host() {
    let input = json!({"question": "Which port?"});
    let ask =
        json!({"content": [{"use": {"tool": "mcp__supervisor/ask_operator", "input": input}}]});
    let stage = Stage::new(Real::Codex, &json!([ask, say("Understood.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Ask."}]),
        &json!({"permissions": "edits"}),
    );
    let run = stage.world.start("run", &["run"]);
    let question = stage.question("one");
    let answer = ["answer", question.as_str(), "port 4711"];
    stage.world.supervisor(&answer).ok();
    assert_eq!(run.end(&stage.world), Some(0));
    stage.last_request_has("port 4711");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn several_work_side_by_side_each_in_a_home_of_its_own() {
    let name = |number: usize| format!("t{number}");
    let stage = Stage::in_world(Real::Codex, |_| {
        let replies = |at: usize| {
            let write = shell(&format!("echo {at} > out{at}"));
            json!({"when": format!("TASK-{at}."), "replies": [write, say("Done.")]})
        };
        (0..4).map(replies).collect()
    });
    let task = |at: usize| json!({"id": name(at), "prompt": format!("TASK-{at}. Write it.")});
    stage.batch(&(0..4).map(task).collect(), &json!({}));
    stage.world.supervisor(&["run"]).ok();
    let dir = stage.world.batch_dir().expect("a batch");
    for at in 0..4 {
        assert_eq!(stage.world.read(&format!("out{at}")), format!("{at}\n"));
        let home = dir.join("tasks").join(name(at)).join("home/codex/sessions");
        assert!(home.is_dir(), "{}", home.display());
    }
    assert!(
        !stage.world.path("home/.codex").exists(),
        "nothing of the operator's"
    );
    stage.world.assert_nothing_left();
}
