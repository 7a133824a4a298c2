//! Hosts that break every rule of the pipe: each is classed as the manual says, in its time, at a
//! bounded cost, and the rest of the batch is done.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;
use supervisor_tests::peak::{self, Peaks};
use supervisor_tests::world::{World, programs};

/// A host must say hello within this time, and one that did is not waited for.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(8);
/// Time from the stop of a deaf host to its kill.
const GRACE: Duration = Duration::from_secs(10);

/// A world whose hosts misbehave: the first ones at once, by this plan, the later ones by the ids
/// of their tasks.
fn hostile_world(plan: &[&str]) -> World {
    let world = World::new();
    std::fs::write(world.path("plan"), plan.join("\n")).expect("the plan");
    let folder = world.path("");
    let hostile = env!("CARGO_BIN_EXE_hostile_host");
    let script = format!(
        "#!/bin/sh\nexec '{hostile}' '{}' '{}'\n",
        folder.display(),
        programs().join("agent-host").display()
    );
    let host = world.path("agent-host");
    std::fs::write(&host, script).expect("the host");
    std::fs::set_permissions(&host, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    world
}

/// Runs the batch file to its end.
fn run(world: &World) -> (Peaks, Option<i32>) {
    let host = world.path("agent-host");
    let host = host.to_str().expect("a path of a world is text");
    let started = world.start_with(
        "run",
        &["run", "--no-guardian"],
        &[("SUPERVISOR_AGENT_HOST", host)],
    );
    peak::watch(started)
}

fn trivial() -> Peaks {
    let world = World::new();
    world.write(
        "batch.yml",
        "version: 1\nisolation: none\ntasks: [{id: a, run: 'true'}]\n",
    );
    let (peaks, code) = peak::watch(world.start("run", &["run", "--no-guardian"]));
    assert_eq!(code, Some(0));
    peaks
}

/// How long each run lived, with the class of its attempt.
fn attempts(world: &World) -> Vec<(String, Duration)> {
    let boot = |line: &Value| Duration::from_millis(line["now"]["boot"].as_u64().expect("a time"));
    let mut begun = BTreeMap::new();
    let mut ended = Vec::new();
    for line in world.journal() {
        let record = &line["record"];
        if let Some(start) = record.get("attempt_started") {
            begun.insert(start["task"].as_u64(), boot(&line));
        } else if let Some(end) = record.get("attempt_ended") {
            let class = end["class"].as_str().unwrap_or("done").to_owned();
            let since = begun[&end["task"].as_u64()];
            ended.push((class, boot(&line).saturating_sub(since)));
        }
    }
    ended
}

fn outcomes(world: &World) -> BTreeMap<String, String> {
    let status = world.status();
    let tasks = status["tasks"].as_array().expect("tasks are a list");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    tasks
        .iter()
        .map(|task| (text(&task["id"]), text(&task["outcome"])))
        .collect()
}

#[test]
fn a_host_that_is_none_at_its_start_costs_an_attempt_and_no_more() {
    // Those that must wait for the hello's deadline first, so that they wait together.
    let misdeeds = [
        ("silent", "spawn_failure"),
        ("blank", "protocol"),
        ("older", "spawn_failure"),
        ("garbage", "protocol"),
        ("newer", "spawn_failure"),
        ("exit-0", "no_result"),
        ("long-line", "protocol"),
        ("refuses", "spawn_failure"),
        ("other-release", "spawn_failure"),
        ("exit-9", "spawn_failure"),
    ];
    let world = hostile_world(&misdeeds.map(|(misdeed, _)| misdeed));
    let mut batch = "version: 1\nisolation: none\nconcurrency: 4\n\
        defaults: {attempts: 9, retry: {backoff: 1s}}\ntasks:\n"
        .to_owned();
    for number in 0..12 {
        writeln!(batch, "- {{id: t{number}, run: 'echo x >> done'}}").expect("a text grows");
    }
    world.write("batch.yml", &batch);
    let (peaks, code) = run(&world);
    let told = std::fs::read_to_string(world.path("run.out")).unwrap_or_default();
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(world.read("done").lines().count(), 12, "each task once");
    peaks.assert_near(trivial());

    let attempts = attempts(&world);
    let mut classes: Vec<&str> = attempts.iter().map(|(class, _)| class.as_str()).collect();
    classes.sort_unstable();
    let mut expected: Vec<&str> = misdeeds.iter().map(|(_, class)| *class).collect();
    expected.extend(["done"; 12]);
    expected.sort_unstable();
    assert_eq!(classes, expected, "{told}");
    let waited = attempts.iter().filter(|(_, length)| *length >= HELLO_MAX);
    assert_eq!(waited.count(), 2, "the silent and the blank: {attempts:?}");
    for (class, length) in &attempts {
        assert!(*length < HELLO_MAX + SLACK, "{class} took {length:?}");
    }
    for why in ["version 0", "version 99", "99.0.0", "before the hello"] {
        assert!(told.contains(why), "`{why}` is not told:\n{told}");
    }
    world.assert_nothing_left();
}

#[test]
fn a_host_that_turns_bad_in_its_run_fails_its_task_alone() {
    let misdeeds = [
        ("bad-no-result", "no_result"),
        ("bad-exit-3-before-started", "crash"),
        ("bad-exit-3", "crash"),
        ("bad-garbage", "protocol"),
        ("bad-blank", "protocol"),
        ("bad-long-line", "protocol"),
        ("bad-closed-stdout", "silence"),
        ("bad-other-run", "no_result"),
        ("bad-other-run-for-ever", "protocol"),
        ("bad-flood", "timeout"),
        ("bad-wide-flood", "timeout"),
        ("bad-question-flood", "protocol"),
    ];
    let world = hostile_world(&[]);
    let mut batch = "version: 1\nisolation: none\nconcurrency: 6\n\
        defaults: {attempts: 1, silence: 2s}\non_failure: continue\ntasks:\n"
        .to_owned();
    for (misdeed, _) in misdeeds {
        let first = misdeed.contains("flood") || misdeed.contains("closed");
        let priority = u8::from(first);
        let timeout = if misdeed.contains("flood") {
            "2s"
        } else {
            "1m"
        };
        writeln!(
            batch,
            "- {{id: {misdeed}, run: 'true', priority: {priority}, timeout: {timeout}}}"
        )
        .expect("a text grows");
    }
    for number in 0..6 {
        writeln!(
            batch,
            "- {{id: t{number}, run: 'echo x >> done', timeout: 1m}}"
        )
        .expect("a text grows");
    }
    world.write("batch.yml", &batch);
    let (peaks, code) = run(&world);
    assert_eq!(code, Some(1), "some failed");
    assert_eq!(world.read("done").lines().count(), 6, "each good task once");
    peaks.assert_near(trivial());

    let outcomes = outcomes(&world);
    for (task, class) in misdeeds {
        assert_eq!(outcomes[task], class, "{task}: {outcomes:?}");
    }
    for number in 0..6 {
        assert_eq!(outcomes[&format!("t{number}")], "done");
    }
    for (class, length) in attempts(&world) {
        assert!(length < GRACE + SLACK, "{class} took {length:?}");
    }
    world.assert_nothing_left();
}
