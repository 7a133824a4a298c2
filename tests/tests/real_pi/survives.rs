//! kill -9 of anything in the middle of a command: the same session goes on, one family at a time,
//! nothing left behind.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::stage::{Stage, UNTIL_GO, bash, say};

/// A task in the middle of a command of its agent.
fn in_mid_command() -> Stage {
    let stage = Stage::new(&json!([bash(UNTIL_GO), say("I went on.")]));
    let verify = json!(["true"]);
    let task = json!([{"id": "one", "prompt": "Remember the word ALBATROSS.", "verify": verify}]);
    stage.batch(&task, &json!({}));
    stage
}

/// Processes of this role, by `ps`.
fn of_role(stage: &Stage, role: &str) -> Vec<Pid> {
    let ps = stage.world.supervisor(&["ps", "--json"]).ok().json();
    let rows = ps.as_array().into_iter().flatten();
    let pids = rows
        .filter(|row| row["role"] == role)
        .filter_map(|row| i32::try_from(row["pid"].as_i64()?).ok());
    pids.map(Pid::from_raw).collect()
}

/// The command runs, and the program has written its history so far, which it does a moment later.
fn begun(stage: &Stage) {
    stage.world.eventually("the command runs", |world| {
        (world.read("begun") == "begun\n").then_some(())
    });
    stage.world.eventually("its history is written", |_| {
        let files = stage.sessions("one").into_iter();
        let mut texts = files.filter_map(|file| std::fs::read_to_string(file).ok());
        texts.any(|text| text.contains("toolCall")).then_some(())
    });
}

/// The second request has the first one's history and the same session.
#[track_caller]
fn went_on(stage: &Stage) {
    let turns = stage.asked(2);
    assert_eq!(turns.len(), 2, "one family at a time");
    stage.last_request_has("ALBATROSS");
    stage.last_request_has("This session goes on.");
    stage.last_request_has("mkfifo wait");
    assert_eq!(stage.sessions("one").len(), 1, "the same session");
    stage.is("one", "done");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_killed_agent_goes_on_in_its_session() {
    let stage = in_mid_command();
    let run = stage.world.start("run", &["run"]);
    begun(&stage);
    strike(&stage, "agent");
    assert_eq!(run.end(&stage.world), Some(0));
    went_on(&stage);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_killed_host_is_followed_by_one_that_goes_on_in_the_session() {
    let stage = in_mid_command();
    let run = stage.world.start("run", &["run"]);
    begun(&stage);
    strike(&stage, "host");
    assert_eq!(run.end(&stage.world), Some(0));
    went_on(&stage);
}

/// Kills the one process of this role.
#[track_caller]
fn strike(stage: &Stage, role: &str) {
    let pids = of_role(stage, role);
    assert_eq!(pids.len(), 1, "{role}");
    kill(pids[0], Signal::SIGKILL).expect("it is killed");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn a_killed_supervisor_is_followed_by_one_that_goes_on_in_the_session() {
    let stage = in_mid_command();
    let run = stage.world.start("run", &["run"]);
    begun(&stage);
    strike(&stage, "supervisor");
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
    strike(&stage, "guardian");
    strike(&stage, "supervisor");
    run.kill();
    stage.world.supervisor(&["run"]).ok();
    went_on(&stage);
}
