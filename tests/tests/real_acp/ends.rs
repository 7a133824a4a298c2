//! How it ends: each failure of the service is classified by what the program tells, with evidence,
//! and without a row of retries of its own.

use serde_json::{Value, json};
use supervisor_tests::clock::timed;

use supervisor_tests::real::{Real, Stage, say};

#[track_caller]
fn ends_as(real: Real, reply: &Value, class: &str, evidence: &str) {
    let mut reply = reply.clone();
    reply["times"] = json!(1000);
    let stage = Stage::new(real, &json!([real.shell("true"), reply]));
    let task = json!([{"id": "one", "prompt": "Try.", "attempts": 1}]);
    stage.batch(&task, &json!({}));
    let mut run = stage.world.start("run", &["run"]);
    let ((), took) = timed(|| {
        stage.world.eventually("an attempt has ended", |world| {
            let text = serde_json::to_string(&world.journal()).unwrap_or_default();
            (text.contains("evidence") || run.ended().is_some()).then_some(())
        });
    });
    let story = stage.explain("one");
    stage.world.supervisor(&["kill", "--all"]).ok();
    let journal = serde_json::to_string(&stage.world.journal()).expect("JSON");
    assert!(story.contains(class), "{class} is not in\n{story}");
    assert!(journal.contains(evidence), "{evidence} is not in {journal}");
    let took = took.as_secs_f64();
    assert!(took < 50.0, "{took} s: it tried again by itself");
    stage.world.assert_nothing_left();
}

fn fault(status: u16, message: &str) -> Value {
    json!({"fail": {"status": status, "message": message}})
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_failures_of_the_service_are_classified_for_opencode() {
    let real = Real::Opencode;
    ends_as(real, &fault(401, "bad key"), "auth", "HTTP 401");
    let limited = json!({"fail": {"status": 429, "message": "slow down",
        "headers": [["retry-after", "3600"]]}});
    ends_as(real, &limited, "usage_limit", "HTTP 429");
    ends_as(real, &fault(529, "Overloaded"), "overload", "HTTP 529");
    let drop = json!({"drop": true, "content": [{"say": "half"}]});
    // "The socket connection was closed" or "Connection reset by server", as it comes.
    ends_as(real, &drop, "network", "onnection");
    ends_as(
        real,
        &json!({"overflow": true}),
        "overflow",
        "ContextOverflowError",
    );
    ends_as(real, &fault(402, "no money"), "billing", "HTTP 402");
    ends_as(real, &fault(404, "no model x"), "model_missing", "HTTP 404");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_failures_of_the_service_are_classified_for_the_adapters() {
    for real in [Real::ClaudeAcp, Real::CodexAcp, Real::Gemini] {
        ends_as(real, &fault(401, "bad key"), "auth", "error");
        ends_as(real, &fault(429, "slow down"), "usage_limit", "");
    }
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_what_never_ends_is_leftover_and_is_taken_along() {
    let real = Real::Opencode;
    let server = "setsid sh -c 'rm -f hold; mkfifo hold; echo up > up; cat hold' \
        > /dev/null 2>&1 < /dev/null & while ! test -e up; do :; done";
    let stage = Stage::new(real, &json!([real.shell(server), say("Done.")]));
    let task = json!([{"id": "one", "prompt": "Leave it.", "attempts": 1}]);
    stage.batch(&task, &json!({}));
    stage.world.supervisor(&["run"]).exits(1);
    let story = stage.explain("one");
    assert!(story.contains("leftover"), "{story}");
    stage.world.assert_nothing_left();
}
