//! kill -9 of anything in the middle of a command: the same session goes on, one family at a time,
//! nothing left behind.

use serde_json::json;
use supervisor_tests::model::said;

use supervisor_tests::real::{Real, Stage, UNTIL_GO, say};

/// A task in the middle of a command of its agent.
fn in_mid_command(real: Real) -> Stage {
    let stage = Stage::new(real, &json!([real.shell(UNTIL_GO), say("I went on.")]));
    let task = json!([{"id": "one", "prompt": "Remember the word ALBATROSS."}]);
    stage.batch(&task, &json!({}));
    stage
}

/// The last request has the first one's history.
#[track_caller]
fn went_on(stage: &Stage) {
    let turns = stage.turns();
    let heard: Vec<String> = turns.iter().map(said).collect();
    assert_eq!(turns.len(), 2, "one family at a time: {heard:#?}");
    stage.last_request_has("ALBATROSS");
    stage.last_request_has("This session goes on.");
    stage.is("one", "done");
    stage.world.assert_nothing_left();
}

fn survives(real: Real, role: &str) {
    let stage = in_mid_command(real);
    let run = stage.world.start("run", &["run"]);
    stage.begun();
    stage.strike(role);
    assert_eq!(run.end(&stage.world), Some(0));
    went_on(&stage);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_a_killed_opencode_goes_on_in_its_session() {
    survives(Real::Opencode, "agent");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_a_killed_host_is_followed_by_one_that_goes_on_in_the_session_of_opencode() {
    survives(Real::Opencode, "host");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_a_killed_supervisor_is_followed_by_one_that_goes_on_in_the_session_of_opencode() {
    survives(Real::Opencode, "supervisor");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_the_killed_adapters_of_claude_and_codex_go_on_in_their_sessions() {
    for real in [Real::ClaudeAcp, Real::CodexAcp] {
        survives(real, "agent");
    }
}
