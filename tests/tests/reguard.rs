//! Stories of a `run` that takes the place of a guardian that was killed: the supervisor below it
//! lives on, and is watched, signalled and followed as by the one before.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use supervisor_tests::world::{Started, World};

/// Two tasks that end once the file `go` is there, and one behind them.
const BATCH: &str = "version: 1
name: guarded
isolation: none
concurrency: 2
tasks:
  - id: first
    run: \"while ! test -e go; do sleep 0.05; done\"
  - id: second
    run: \"while ! test -e go; do sleep 0.05; done\"
  - id: last
    run: \"true\"
    depends_on: [first, second]
";

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

/// The supervisor that works on the batch, once both its tasks run.
fn working(world: &World) -> u32 {
    world.eventually("a supervisor works on two tasks", |world| {
        let ran = world.supervisor(&["status", "--json"]);
        let status = (ran.code == Some(0)).then(|| ran.json())?;
        let batch = &status["batch"];
        let supervisor = &batch["supervisor"];
        let has_begun = supervisor["alive"] == true && supervisor["recovering"] == false;
        let works = has_begun && batch["counts"]["running"] == 2;
        works.then(|| u32::try_from(batch["supervisor"]["pid"].as_u64().unwrap()).unwrap())
    })
}

/// A world whose supervisor has lost its guardian, and that supervisor.
fn unguarded() -> (World, u32) {
    let world = World::new();
    world.write("batch.yml", BATCH);
    let guardian = world.start("first", &["run"]);
    let supervisor = working(&world);
    guardian.kill();
    (world, supervisor)
}

/// A `run` that has taken the guardian's place.
fn watching(world: &World, name: &str) -> Started {
    let started = world.start(name, &["run"]);
    world.eventually("it watches the supervisor", |world| {
        let printed = world.printed(name);
        printed.contains("is watched from here").then_some(())
    });
    started
}

fn supervisors(world: &World) -> usize {
    let journal = world.journal();
    let starts = journal
        .iter()
        .filter(|line| line["record"].get("supervisor_started").is_some());
    starts.count()
}

fn assert_done(world: &World) {
    let status = world.status();
    assert_eq!(status["batch"]["state"], "done", "{status}");
    assert_eq!(status["batch"]["counts"]["done"], 3, "{status}");
    world.assert_nothing_left();
}

#[test]
fn a_run_after_the_guardian_died_shows_the_batch_and_ends_as_it_does() {
    let (world, supervisor) = unguarded();
    let run = watching(&world, "run");
    let number = run.pid();
    let status = world.status();
    assert_eq!(status["batch"]["guardian"]["pid"], number, "{status}");
    assert_eq!(status["batch"]["guardian"]["alive"], true);
    assert_eq!(status["batch"]["supervisor"]["pid"], supervisor);
    let processes = world.supervisor(&["ps", "--json"]).ok().json();
    let rows = processes.as_array().unwrap().iter();
    let live = |row: &&Value| row["role"] == "guardian" && row["state"] == "live";
    let guardians: Vec<&Value> = rows.filter(live).collect();
    assert_eq!(guardians.len(), 1, "{processes}");
    assert_eq!(guardians[0]["pid"], number);
    world.write("go", "");
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("run"));
    let printed = world.printed("run");
    assert!(printed.contains("last"), "{printed}");
    assert!(printed.contains("3 of 3 settled"), "{printed}");
    assert_eq!(supervisors(&world), 1, "the work was never interrupted");
    assert_done(&world);
}

#[test]
fn a_supervisor_that_dies_watched_is_followed_by_one_below_the_watching_run() {
    let (world, supervisor) = unguarded();
    let run = watching(&world, "run");
    kill(pid(supervisor), Signal::SIGKILL).unwrap();
    let next = world.eventually("another one works", |world| {
        Some(working(world)).filter(|&found| found != supervisor)
    });
    // From here on the usual rules hold.
    kill(pid(next), Signal::SIGKILL).unwrap();
    world.eventually("its guardian starts it again", |world| {
        let printed = world.printed("run");
        printed
            .contains(&format!("supervisor pid {next} died (SIGKILL); start 1"))
            .then_some(())
    });
    world.write("go", "");
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("run"));
    assert_eq!(supervisors(&world), 3);
    assert_done(&world);
}

#[test]
fn only_one_takes_the_place() {
    let (world, supervisor) = unguarded();
    let run = watching(&world, "run");
    let refused = world.supervisor(&["run"]).exits(8);
    for number in [supervisor, run.pid()] {
        let named = format!("(pid {number})");
        assert!(refused.stderr.contains(&named), "{}", refused.stderr);
    }
    // It is free again as soon as its process is killed.
    run.kill();
    let run = watching(&world, "again");
    world.write("go", "");
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("again"));
    assert_done(&world);
}

#[test]
fn a_run_that_asks_for_more_and_one_without_a_guardian_are_refused() {
    let (world, supervisor) = unguarded();
    for words in [
        &["run", "--new"][..],
        &["run", "--retry-failed"],
        &["run", "--no-guardian"],
    ] {
        let refused = world.supervisor(words).exits(8);
        let named = format!("(pid {supervisor})");
        assert!(refused.stderr.contains(&named), "{}", refused.stderr);
    }
    let edited = BATCH.replace("\"true\"", "\"echo edited\"");
    world.write("batch.yml", &edited);
    world.supervisor(&["run"]).exits(8);
    world.write("batch.yml", BATCH);
    let told = world.supervisor(&["run", "--dry-run"]).ok().stdout;
    assert!(told.contains("would take the place"), "{told}");
    world.write("go", "");
    world.assert_nothing_left();
    assert_done(&world);
}

#[test]
fn a_supervisor_that_was_started_without_a_guardian_is_not_watched() {
    let world = World::new();
    world.write("batch.yml", BATCH);
    let alone = world.start("run", &["run", "--no-guardian"]);
    let supervisor = working(&world);
    let refused = world.supervisor(&["run"]).exits(8);
    let named = format!("(pid {supervisor})");
    assert!(refused.stderr.contains(&named), "{}", refused.stderr);
    world.write("go", "");
    assert_eq!(alone.end(&world), Some(0));
    assert_done(&world);
}

#[test]
fn a_signal_to_the_watching_run_stops_the_batch_in_order_and_counts_once() {
    for to_group in [false, true] {
        let (world, _) = unguarded();
        let run = world.start_apart("run", &["run"]);
        world.eventually("it watches", |world| {
            let printed = world.printed("run");
            printed.contains("is watched from here").then_some(())
        });
        match to_group {
            true => run.signal_group(Signal::SIGINT),
            false => run.signal(Signal::SIGINT),
        }
        world.eventually("it drains", |world| {
            let printed = world.printed("first");
            printed.contains("nothing new starts").then_some(())
        });
        // A command in between gives a second arrival of the same signal time to show itself.
        world.status();
        assert!(
            !world.printed("first").contains("is asked to end"),
            "{}",
            world.printed("first")
        );
        world.write("go", "");
        assert_eq!(run.end(&world), Some(5), "{}", world.printed("run"));
        assert_eq!(supervisors(&world), 1);
        assert_eq!(world.status()["batch"]["state"], "interrupted");
        world.assert_nothing_left();
    }
}

#[test]
fn kill_ends_a_watched_supervisor_that_can_not_be_asked_and_nobody_goes_on() {
    let (world, supervisor) = unguarded();
    let run = watching(&world, "run");
    kill(pid(supervisor), Signal::SIGSTOP).unwrap();
    let killed = world.supervisor(&["kill", "guarded", "--grace", "0s"]).ok();
    assert!(
        killed.stdout.contains("nothing of it is alive"),
        "{}",
        killed.stdout
    );
    assert_eq!(run.end(&world), Some(5), "{}", world.printed("run"));
    world.assert_nothing_left();
    assert_eq!(supervisors(&world), 1, "{}", world.printed("run"));
}

#[test]
fn an_outcome_that_nobody_waited_for_is_told_to_the_next_run_once() {
    let (world, _) = unguarded();
    world.write("go", "");
    world.assert_nothing_left();
    let told = world.supervisor(&["run"]).ok().stdout;
    assert!(told.contains("3 of 3 settled"), "{told}");
    let refused = world.supervisor(&["run"]).exits(8);
    assert!(refused.stderr.contains("finished"), "{}", refused.stderr);
    assert_eq!(supervisors(&world), 1);
}
