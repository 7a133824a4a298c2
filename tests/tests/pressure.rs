//! Hosts under pressure: memory, silence with and without work, and hosts that answer nothing.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use supervisor_tests::world::World;

/// A shell that has 300 MB in a variable and waits to be ended.
const HOARDS: &str = "x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 600; echo $x";

fn batch(world: &World, defaults: &str, tasks: &[(&str, &str, &str)]) {
    let mut text = format!(
        "version: 1\nisolation: none\ndefaults: {{attempts: 1, retry: {{backoff: 1s}}{defaults}}}\ntasks:\n"
    );
    for (id, line, keys) in tasks {
        let line = Value::from(*line);
        text.push_str(&format!("- {{id: {id}, run: {line}{keys}}}\n"));
    }
    world.write("batch.yml", &text);
}

fn row(world: &World, task: &str) -> Value {
    let status = world.status();
    let rows = status["tasks"].as_array().expect("tasks are a list");
    let row = rows.iter().find(|row| row["id"] == task);
    row.expect("every task has a row").clone()
}

fn reason(row: &Value) -> &str {
    row["reason"].as_str().expect("every task has a reason")
}

/// The bodies of all records of this kind.
fn records(world: &World, kind: &str) -> Vec<Value> {
    let journal = world.journal().into_iter();
    let bodies = journal.map(|line| line["record"][kind].clone());
    bodies.filter(|body| !body.is_null()).collect()
}

/// The host of the first run, once its agent has made the file `up`.
fn host_at_work(world: &World) -> Pid {
    world.eventually("the agent works", |world| {
        world.repo().join("up").exists().then_some(())
    });
    let spawned = records(world, "run_spawned");
    let pid = spawned[0]["identity"]["pid"].as_i64();
    let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    pid.expect("a host has a pid")
}

#[test]
fn a_family_over_its_limit_is_ended_and_says_who_kept_it() {
    let world = World::new();
    let limit = ", limits: {memory: 64MiB}";
    let portable = format!("{limit}, containment: portable");
    batch(
        &world,
        "",
        &[
            ("best", HOARDS, limit),
            ("portable", HOARDS, &portable),
            ("small", "echo x > small", limit),
        ],
    );
    world.supervisor(&["run", "--no-guardian"]).exits(1);
    for task in ["best", "portable"] {
        let row = row(&world, task);
        assert_eq!(row["outcome"], "oom", "{row}");
        let why = reason(&row);
        assert!(
            why.contains("memory limit") && why.contains("64 MiB"),
            "{why}"
        );
        let peak = row["family"]["memory_peak_bytes"].as_u64();
        assert!(peak >= Some(60 << 20), "{row}");
    }
    assert_eq!(row(&world, "small")["outcome"], "done");
    let kept: Vec<Value> = records(&world, "run_spawned")
        .iter()
        .map(|run| run["containment"]["memory"].clone())
        .collect();
    assert!(kept.contains(&Value::from("host")), "portable: {kept:?}");
    assert!(!kept.contains(&Value::Null), "each says who: {kept:?}");
    let portable = row(&world, "portable");
    assert!(
        reason(&portable).contains("stopped by its host"),
        "{portable}"
    );
    let told = world.supervisor(&["explain", "portable"]).ok();
    let told = &told.stdout;
    assert!(
        told.contains("watched by its host every 1 to 5 s"),
        "{told}"
    );
    world.assert_nothing_left();
}

/// A compiler without a word is at work; a program that sleeps without a word is not.
#[test]
fn only_who_does_nothing_is_silent() {
    let world = World::new();
    let burns = "timeout 8 sh -c 'while :; do :; done' || true";
    batch(
        &world,
        ", silence: 3s",
        &[("burns", burns, ""), ("sleeps", "sleep 600", "")],
    );
    world.supervisor(&["run", "--no-guardian"]).exits(1);
    let burns = row(&world, "burns");
    assert_eq!(burns["outcome"], "done", "{burns}");
    assert!(burns["family"]["cpu_s"].as_f64() > Some(1.0), "{burns}");
    let sleeps = row(&world, "sleeps");
    assert_eq!(sleeps["outcome"], "silence", "{sleeps}");
    assert!(
        reason(&sleeps).contains("while its host answered"),
        "{sleeps}"
    );
    world.assert_nothing_left();
}

/// A host that is stopped for less than its lease has lost nothing, and its agent is not blamed.
#[test]
fn a_host_that_goes_on_before_its_lease_is_over_is_well() {
    let world = World::new();
    let works = "echo > up; until [ -e go ]; do :; done";
    batch(&world, ", silence: 12s", &[("a", works, "")]);
    let run = world.start("run", &["run", "--no-guardian"]);
    let host = host_at_work(&world);
    kill_process(host, Signal::STOP).expect("the host is stopped");
    world.eventually("it misses two pings", |world| {
        let heard = row(world, "a")["family"]["host_heard_ms"].as_u64();
        (heard > Some(8_000)).then_some(())
    });
    kill_process(host, Signal::CONT).expect("the host goes on");
    world.write("go", "");
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("run"));
    assert_eq!(records(&world, "stop_decided"), [] as [Value; 0]);
    world.assert_nothing_left();
}

/// A host that answers nothing for its lease is ended; that costs its task no attempt.
#[test]
fn a_host_that_stays_stopped_hangs_and_is_not_its_agents_fault() {
    let world = World::new();
    let first_waits = "[ -e up ] && exit 0; echo > up; sleep 600";
    batch(&world, ", silence: 2m", &[("a", first_waits, "")]);
    let run = world.start("run", &["run", "--no-guardian"]);
    let host = host_at_work(&world);
    kill_process(host, Signal::STOP).expect("the host is stopped");
    world.eventually("it is said before anything is done", |world| {
        let row = row(world, "a");
        reason(&row)
            .contains("its host has not answered for")
            .then_some(())
    });
    world.eventually("its lease is over", |world| {
        let stops = records(world, "stop_decided");
        (!stops.is_empty()).then_some(())
    });
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("run"));
    let stops = records(&world, "stop_decided");
    assert_eq!(stops.len(), 1, "{stops:?}");
    assert_eq!(stops[0]["reason"], "hung");
    let ends = records(&world, "attempt_ended");
    assert_eq!(ends[0]["class"], "lost");
    assert_eq!(ends[0]["consumed"], false);
    let detail = ends[0]["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("its host hung"), "{detail}");
    assert_eq!(row(&world, "a")["outcome"], "done");
    world.assert_nothing_left();
}
