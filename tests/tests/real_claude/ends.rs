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
    let stage = Stage::new(Real::Claude, &json!([bash("true"), reply]));
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
    ends_as(&fault(429, "slow down"), "usage_limit", "rate_limit");
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
    ends_as(&reply, "network", "connection_failed");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn an_account_without_credit_is_billing() {
    let text = "Your credit balance is too low to access the Anthropic API.";
    ends_as(&fault(400, text), "billing", "billing_error");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_model_that_is_not_there_is_model_missing() {
    ends_as(&fault(404, "model: claude-x"), "model_missing", "HTTP 404");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_context_that_can_not_be_compacted_is_overflow() {
    let text = "prompt is too long: 210000 tokens > 200000 maximum";
    ends_as(&fault(400, text), "overflow", "prompt_too_long");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_stream_that_breaks_off_once_is_no_failure() {
    let drop = json!({"drop": true, "content": [{"say": "half"}]});
    let stage = Stage::new(Real::Claude, &json!([drop, say("Whole.")]));
    stage.batch(&json!([{"id": "one", "prompt": "Try."}]), &json!({}));
    stage.world.supervisor(&["run"]).ok();
    stage.is("one", "done");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_turn_that_leaves_a_process_is_not_done_before_that_has_ended() {
    let daemon = "setsid sh -c 'rm -f hold; mkfifo hold; echo up > up; cat hold; echo end > end' \
        > /dev/null 2>&1 < /dev/null & while ! test -e up; do :; done";
    let stage = Stage::new(Real::Claude, &json!([bash(daemon), say("Done.")]));
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
fn a_limit_of_a_subscription_is_known_with_its_end() {
    let reset = (wall_ns() / 1_000_000_000 + 3600).to_string();
    let header =
        |name: &str, value: &str| json!([format!("anthropic-ratelimit-unified-{name}"), value]);
    let headers = json!([
        header("status", "rejected"),
        header("reset", &reset),
        header("representative-claim", "five_hour"),
        header("5h-status", "rejected"),
        header("5h-reset", &reset),
        header("5h-utilization", "1.0"),
    ]);
    let fail = json!({"status": 429, "message": "limit", "headers": headers});
    let stage = Stage::new(Real::Claude, &json!([{"fail": fail, "times": 1000}]));
    let login =
        json!({"ANTHROPIC_BASE_URL": stage.url(), "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-x"});
    stage.batch(
        &json!([{"id": "one", "prompt": "Try."}]),
        &json!({"env": login}),
    );
    let run = stage.world.start("run", &["run"]);
    let end = format!("{reset}000");
    stage
        .world
        .eventually("the account is limited until then", |world| {
            let journal = serde_json::to_string(&world.journal()).ok()?;
            (journal.contains("account_moved") && journal.contains(&end)).then_some(())
        });
    assert_eq!(stage.is("one", "paused")["attempts_max"], 3);
    run.kill();
    stage.world.supervisor(&["kill", "--all"]).ok();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_turn_that_it_begins_by_itself_is_part_of_the_work() {
    let wait = "rm -f hold; mkfifo hold; echo up > up; cat hold; echo late";
    let background = json!({"content": [{"use": {"tool": "Bash", "input":
        {"command": wait, "description": "a step", "run_in_background": true}}}]});
    let stage = Stage::new(
        Real::Claude,
        &json!([background, say("first"), say("second")]),
    );
    let variables = json!({"ANTHROPIC_BASE_URL": stage.url(), "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": ""});
    stage.batch(
        &json!([{"id": "one", "prompt": "Begin it."}]),
        &json!({"env": variables}),
    );
    let run = stage.world.start("run", &["run"]);
    stage.asked(2);
    stage.leaves_a_process();
    stage.world.shell("echo > hold").ok();
    assert_eq!(run.end(&stage.world), Some(0));
    assert_eq!(stage.turns().len(), 3);
    assert!(stage.explain("one").contains("second"));
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn what_never_ends_is_leftover_and_is_taken_along() {
    let server = "setsid sh -c 'rm -f hold; mkfifo hold; echo up > up; cat hold' \
        > /dev/null 2>&1 < /dev/null & while ! test -e up; do :; done";
    let stage = Stage::new(Real::Claude, &json!([bash(server), say("Done.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Leave it.", "attempts": 1}]),
        &json!({}),
    );
    stage.world.supervisor(&["run"]).exits(1);
    assert!(stage.explain("one").contains("leftover"));
    stage.world.assert_nothing_left();
}
