//! It works: own tools, messages in mid-turn, questions, usage.

use serde_json::json;

use supervisor_tests::real::{Real, Stage, UNTIL_GO, say};

use crate::bash;

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn it_writes_a_file_with_its_own_tool_and_is_done_with_usage() {
    let stage = Stage::in_world(Real::Claude, |world| {
        let path = world.repo().join("hello.txt");
        let input = json!({"file_path": path, "content": "hello"});
        let write =
            json!({"content": [{"say": "I write."}, {"use": {"tool": "Write", "input": input}}]});
        json!([{"replies": [write, say("It is written.")]}])
    });
    let verify = json!(["grep -q hello hello.txt"]);
    stage.batch(
        &json!([{"id": "one", "prompt": "Write hello.", "verify": verify}]),
        &json!({}),
    );
    stage.world.supervisor(&["run"]).ok();
    assert_eq!(stage.world.read("hello.txt"), "hello");
    let usage = stage.is("one", "done")["usage"].clone();
    assert!(usage["tokens"].as_u64() >= Some(2040), "{usage}");
    assert!(usage["cost_usd"].as_f64() > Some(0.0), "{usage}");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_message_in_mid_turn_is_in_the_models_next_request() {
    let stage = Stage::new(Real::Claude, &json!([bash(UNTIL_GO), say("Understood.")]));
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
    let stage = Stage::new(Real::Claude, &json!([bash(UNTIL_GO), say("I stopped.")]));
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
    let stage = Stage::new(Real::Claude, &json!([bash("touch asked"), say("Done.")]));
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
fn several_work_side_by_side_each_in_a_home_of_its_own() {
    let name = |number: usize| format!("t{number}");
    let stage = Stage::in_world(Real::Claude, |_| {
        let replies = |at: usize| {
            let write = bash(&format!("echo {at} > out{at}"));
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
        let home = dir
            .join("tasks")
            .join(name(at))
            .join("home/claude/projects");
        assert!(home.is_dir(), "{}", home.display());
    }
    assert!(
        !stage.world.path("home/.claude").exists(),
        "nothing of the operator's"
    );
    stage.world.assert_nothing_left();
}
