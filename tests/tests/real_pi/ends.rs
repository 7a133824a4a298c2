//! How it ends: each failure of the service is classified by what the program documents, with
//! evidence, and without a row of retries of its own.

use serde_json::{Value, json};
use supervisor_tests::clock::{timed, wall_ns};

use supervisor_tests::real::{Real, Stage, say};

use crate::bash;

/// Runs a task whose every request meets this; returns its story, the journal and the seconds.
fn meets(reply: &Value) -> (Stage, String, f64) {
    let mut reply = reply.clone();
    reply["times"] = json!(1000);
    let stage = Stage::new(Real::Pi, &json!([bash("true"), reply]));
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
    (stage, story, took.as_secs_f64())
}

fn fault(status: u16, message: &str) -> Value {
    json!({"fail": {"status": status, "message": message}})
}

#[track_caller]
fn ends_as(reply: &Value, class: &str, evidence: &str) {
    let (stage, story, took) = meets(reply);
    let journal = serde_json::to_string(&stage.world.journal()).expect("JSON");
    assert!(story.contains(class), "{class} is not in\n{story}");
    assert!(journal.contains(evidence), "{evidence} is not in {journal}");
    assert!(took < 30.0, "{took} s: it tried again by itself");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_refused_key_is_auth_at_once() {
    ends_as(&fault(401, "invalid x-api-key"), "auth", "HTTP 401");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn too_many_requests_are_a_usage_limit() {
    ends_as(&fault(429, "slow down"), "usage_limit", "HTTP 429");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn an_overloaded_service_is_overload() {
    ends_as(&fault(529, "Overloaded"), "overload", "HTTP 529");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_stream_that_breaks_off_for_ever_is_network() {
    let reply = json!({"drop": true, "content": [{"say": "half"}]});
    ends_as(&reply, "network", "terminated");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn an_account_without_credit_is_billing() {
    let fail = json!({"status": 429, "kind": "insufficient_quota", "message": "no money"});
    ends_as(&json!({"fail": fail}), "billing", "insufficient_quota");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_model_that_is_not_there_is_model_missing() {
    ends_as(&fault(404, "model: fake"), "model_missing", "HTTP 404");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_context_that_can_not_be_compacted_is_overflow() {
    let reply = json!({"overflow": true});
    ends_as(&reply, "overflow", "context_length_exceeded");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_model_that_nobody_knows_is_model_missing_before_the_first_word() {
    let stage = Stage::new(Real::Pi, &json!([]));
    let task = json!([{"id": "one", "prompt": "Try.", "attempts": 1}]);
    stage.batch(&task, &json!({"model": "nobody/nothing"}));
    let run = stage.world.start("run", &["run"]);
    stage.world.eventually("its class is known", |world| {
        let journal = serde_json::to_string(&world.journal()).ok()?;
        journal.contains("model_missing").then_some(())
    });
    run.kill();
    stage.world.supervisor(&["kill", "--all"]).ok();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_stream_that_breaks_off_once_is_no_failure() {
    let drop = json!({"drop": true, "content": [{"say": "half"}]});
    let stage = Stage::new(Real::Pi, &json!([drop, say("Whole.")]));
    stage.batch(&json!([{"id": "one", "prompt": "Try."}]), &json!({}));
    stage.world.supervisor(&["run"]).ok();
    stage.is("one", "done");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_turn_that_leaves_a_process_is_not_done_before_that_has_ended() {
    let daemon = "setsid sh -c 'rm -f hold; mkfifo hold; echo up > up; cat hold; echo end > end' \
        > /dev/null 2>&1 < /dev/null & while ! test -e up; do :; done";
    let stage = Stage::new(Real::Pi, &json!([bash(daemon), say("Done.")]));
    stage.batch(&json!([{"id": "one", "prompt": "Leave it."}]), &json!({}));
    let mut run = stage.world.start("run", &["run"]);
    stage.leaves_a_process();
    assert!(run.ended().is_none());
    assert_eq!(stage.world.read("end"), "", "it was left alone");
    stage.world.shell("echo > hold").ok();
    assert_eq!(run.end(&stage.world), Some(0));
    assert_eq!(stage.world.read("end"), "end\n");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_limit_is_known_with_its_end() {
    let headers = json!([["retry-after", "3600"]]);
    let fail = json!({"status": 429, "message": "limit", "headers": headers});
    let stage = Stage::new(Real::Pi, &json!([{"fail": fail, "times": 1000}]));
    let soon = wall_ns() / 1_000_000 + 3_590_000;
    stage.batch(&json!([{"id": "one", "prompt": "Try."}]), &json!({}));
    let run = stage.world.start("run", &["run"]);
    let reset = stage
        .world
        .eventually("the account is limited until then", |world| {
            let journal = serde_json::to_string(&world.journal()).ok()?;
            let (_, told) = journal.split_once("\"reset_at_ms\":")?;
            let digits: String = told.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<i128>().ok()
        });
    assert!((soon..soon + 60_000).contains(&reset), "{reset} {soon}");
    stage.world.eventually("the task waits", |_| {
        (stage.task("one")?["state"] == "paused").then_some(())
    });
    run.kill();
    stage.world.supervisor(&["kill", "--all"]).ok();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn what_never_ends_is_leftover_and_is_taken_along() {
    let server = "setsid sh -c 'rm -f hold; mkfifo hold; echo up > up; cat hold' \
        > /dev/null 2>&1 < /dev/null & while ! test -e up; do :; done";
    let stage = Stage::new(Real::Pi, &json!([bash(server), say("Done.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Leave it.", "attempts": 1}]),
        &json!({}),
    );
    stage.world.supervisor(&["run"]).exits(1);
    assert!(stage.explain("one").contains("leftover"));
    stage.world.assert_nothing_left();
}
