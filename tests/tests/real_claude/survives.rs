//! kill -9 of anything in the middle of a command: the same session goes on, one family at a time,
//! nothing left behind.

use serde_json::json;

use supervisor_tests::real::{Real, Stage, UNTIL_GO, say};

use crate::bash;

/// A task in the middle of a command of its agent.
fn in_mid_command() -> Stage {
    let stage = Stage::new(Real::Claude, &json!([bash(UNTIL_GO), say("I went on.")]));
    let verify = json!(["true"]);
    let task = json!([{"id": "one", "prompt": "Remember the word ALBATROSS.", "verify": verify}]);
    stage.batch(&task, &json!({}));
    stage
}

/// The command runs, and the program has written its history so far, which it does a moment later.
fn begun(stage: &Stage) {
    stage.begun();
    stage.world.eventually("its history is written", |world| {
        let projects = world.batch_dir()?.join("tasks/one/home/claude/projects");
        let project = std::fs::read_dir(projects).ok()?.flatten().next()?.path();
        let files = std::fs::read_dir(project).ok()?.flatten();
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        let written = |text: String| text.contains("tool_use").then_some(());
        texts.into_iter().find_map(written)
    });
}

/// The second request has the first one's history and the same session.
#[track_caller]
fn went_on(stage: &Stage) {
    let turns = stage.asked(2);
    assert_eq!(turns.len(), 2, "one family at a time");
    stage.last_request_has("ALBATROSS");
    stage.last_request_has("This session goes on.");
    stage.last_request_has("tool_result");
    let session = |turn: &serde_json::Value| turn["body"]["metadata"]["user_id"].to_string();
    let id = |turn| session(turn).rsplit("session").next().map(str::to_owned);
    assert_eq!(id(&turns[0]), id(&turns[1]));
    stage.is("one", "done");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_killed_agent_goes_on_in_its_session() {
    let stage = in_mid_command();
    let run = stage.world.start("run", &["run"]);
    begun(&stage);
    stage.strike("agent");
    assert_eq!(run.end(&stage.world), Some(0));
    went_on(&stage);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_killed_host_is_followed_by_one_that_goes_on_in_the_session() {
    let stage = in_mid_command();
    let run = stage.world.start("run", &["run"]);
    begun(&stage);
    stage.strike("host");
    assert_eq!(run.end(&stage.world), Some(0));
    went_on(&stage);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_killed_supervisor_is_followed_by_one_that_goes_on_in_the_session() {
    let stage = in_mid_command();
    let run = stage.world.start("run", &["run"]);
    begun(&stage);
    stage.strike("supervisor");
    assert_eq!(
        run.end(&stage.world),
        Some(0),
        "its guardian starts another"
    );
    went_on(&stage);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_run_after_guardian_and_supervisor_were_killed_goes_on_in_the_session() {
    let stage = in_mid_command();
    let run = stage.world.start("run", &["run"]);
    begun(&stage);
    stage.strike("guardian");
    stage.strike("supervisor");
    run.kill();
    stage.world.supervisor(&["run"]).ok();
    went_on(&stage);
}
