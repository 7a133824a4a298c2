//! How it ends: each failure of the service is classified by what the program documents, with
//! evidence, and without a row of retries of its own.

use serde_json::{Value, json};
use supervisor_tests::clock::{timed, wall_ns};

use supervisor_tests::real::{Real, Stage, say};

use crate::shell;

/// Runs a task whose every request meets this; returns its story, the journal and the seconds.
fn meets(reply: &Value) -> (Stage, String, f64) {
    let mut reply = reply.clone();
    reply["times"] = json!(1000);
    let stage = Stage::new(Real::Codex, &json!([shell("true"), reply]));
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
    assert!(took < 15.0, "{took} s: it tried again by itself");
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
    ends_as(&reply, "network", "stream disconnected before completion");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_model_that_is_not_there_is_model_missing() {
    ends_as(&fault(404, "model: claude-x"), "model_missing", "404");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn an_account_without_credit_is_billing() {
    let word = "insufficient_quota";
    let fail = json!({"status": 429, "message": "no quota", "kind": word, "more": {"code": word}});
    ends_as(&json!({"fail": fail}), "billing", "Quota exceeded");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_context_that_is_full_is_overflow() {
    ends_as(
        &json!({"overflow": true}),
        "overflow",
        "contextWindowExceeded",
    );
}

/// A limit that ends in an hour, told by these headers and fields of the failure.
#[track_caller]
fn is_limited_until(tell: impl Fn(u64) -> (Value, Value)) {
    // The words of the program are in whole minutes.
    let minutes = u64::try_from(wall_ns() / 60_000_000_000).expect("it is after 1970");
    let reset = (minutes + 60) * 60;
    let (headers, more) = tell(reset);
    let fail = json!({"status": 429, "message": "limit", "kind": "usage_limit_reached",
        "headers": headers, "more": more});
    let stage = Stage::new(Real::Codex, &json!([{"fail": fail, "times": 1000}]));
    let env = json!({"OPENAI_BASE_URL": stage.openai_url(), "OPENAI_API_KEY": "none", "TZ": "UTC"});
    stage.batch(
        &json!([{"id": "one", "prompt": "Try."}]),
        &json!({"env": env}),
    );
    let run = stage.world.start("run", &["run"]);
    let ends = [reset * 1000, (reset + 60) * 1000].map(|end| end.to_string());
    stage
        .world
        .eventually("the account is limited until then", |world| {
            let journal = serde_json::to_string(&world.journal()).ok()?;
            let known = ends.iter().any(|end| journal.contains(end));
            (journal.contains("account_moved") && known).then_some(())
        });
    stage.is("one", "paused");
    run.kill();
    stage.world.supervisor(&["kill", "--all"]).ok();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_limit_of_the_account_is_known_with_its_end() {
    is_limited_until(|reset| {
        let headers = json!([
            ["x-codex-primary-used-percent", "100"],
            ["x-codex-primary-window-minutes", "300"],
            ["x-codex-primary-reset-at", reset.to_string()],
        ]);
        (headers, json!({"plan_type": "plus"}))
    });
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn an_end_of_a_limit_that_is_told_in_words_is_known_where_they_are_utc() {
    is_limited_until(|reset| (json!([]), json!({"plan_type": "plus", "resets_at": reset})));
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn retries_of_a_provider_that_can_not_be_told_are_cut_short() {
    let stage = Stage::new(
        Real::Codex,
        &json!([{"fail": {"status": 529, "message": "Overloaded"}, "times": 1000}]),
    );
    let setting = format!("openai_base_url=\"{}\"", stage.openai_url());
    stage.batch(
        &json!([{"id": "one", "prompt": "Try.", "attempts": 1}]),
        &json!({"args": ["-c", setting, "-c", "model_provider=openai"], "env": {}}),
    );
    let mut run = stage.world.start("run", &["run"]);
    let ((), took) = timed(|| {
        stage.world.eventually("an attempt has ended", |world| {
            let text = serde_json::to_string(&world.journal()).unwrap_or_default();
            (text.contains("evidence") || run.ended().is_some()).then_some(())
        });
    });
    assert!(stage.explain("one").contains("overload"));
    assert!(took.as_secs_f64() < 25.0, "{took:?}");
    stage.world.supervisor(&["kill", "--all"]).ok();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_stream_that_breaks_off_once_is_no_failure() {
    let drop = json!({"drop": true, "content": [{"say": "half"}]});
    let stage = Stage::new(Real::Codex, &json!([drop, say("Whole.")]));
    stage.batch(&json!([{"id": "one", "prompt": "Try."}]), &json!({}));
    stage.world.supervisor(&["run"]).ok();
    stage.is("one", "done");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_turn_that_leaves_a_process_is_not_done_before_that_has_ended() {
    let daemon = "setsid sh -c 'rm -f hold; mkfifo hold; echo up > up; cat hold; echo end > end' \
        > /dev/null 2>&1 < /dev/null & while ! test -e up; do :; done";
    let stage = Stage::new(Real::Codex, &json!([shell(daemon), say("Done.")]));
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
fn what_never_ends_is_leftover_and_is_taken_along() {
    let server = "setsid sh -c 'rm -f hold; mkfifo hold; echo up > up; cat hold' \
        > /dev/null 2>&1 < /dev/null & while ! test -e up; do :; done";
    let stage = Stage::new(Real::Codex, &json!([shell(server), say("Done.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Leave it.", "attempts": 1}]),
        &json!({}),
    );
    stage.world.supervisor(&["run"]).exits(1);
    assert!(stage.explain("one").contains("leftover"));
    stage.world.assert_nothing_left();
}
