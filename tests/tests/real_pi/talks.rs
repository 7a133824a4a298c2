//! It talks back: a question that is answered, and a result in its own words, by the supervisor's
//! tools.

use serde_json::json;

use supervisor_tests::real::{Real, Stage, say, uses};

use crate::bash;

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn it_asks_the_operator_and_hands_over_a_result() {
    let stage = Stage::new(
        Real::Pi,
        &json!([
            uses("report_progress", &json!({"text": "half", "percent": 50})),
            uses(
                "ask_operator",
                &json!({"question": "Which port?", "options": ["80", "8080"]})
            ),
            bash("echo 8080 > port"),
            uses("list_tasks", &json!({})),
            uses(
                "task_result",
                &json!({"status": "ok", "summary": "The port is 8080.", "artifacts": ["port"]})
            ),
            say("Bye."),
        ]),
    );
    // The supervisor's own tools need nobody's leave.
    stage.batch(
        &json!([{"id": "one", "prompt": "Choose a port."}]),
        &json!({"permissions": "ask"}),
    );
    let run = stage.world.start("run", &["run"]);
    let question = |text: &str| {
        stage.world.eventually("it asks", |_| {
            let question = &stage.task("one")?["question"];
            let is_it = question["text"].as_str()?.contains(text);
            is_it.then(|| question["id"].as_str().map(str::to_owned))?
        })
    };
    let port = question("Which port?");
    stage.world.supervisor(&["answer", &port, "8080"]).ok();
    let leave = question("May the agent use bash");
    stage.last_request_has("8080");
    stage.world.supervisor(&["answer", &leave, "allow"]).ok();
    assert_eq!(run.end(&stage.world), Some(0));
    assert!(stage.explain("one").contains("The port is 8080."));
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_call_that_is_refused_is_a_failed_tool_and_no_failed_task() {
    let stage = Stage::new(
        Real::Pi,
        &json!([
            uses("send_message", &json!({"text": "hello", "to": "nobody"})),
            say("Bye."),
        ]),
    );
    stage.batch(&json!([{"id": "one", "prompt": "Say hello."}]), &json!({}));
    stage.world.supervisor(&["run"]).ok();
    stage.last_request_has("no task `nobody`");
}
