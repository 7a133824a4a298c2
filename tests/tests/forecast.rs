//! What is said of merges before they are made, and of the branches around a batch: conflicts to be
//! expected, a base that moved, where the work went.

#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use serde_json::Value;
use supervisor_tests::delivery::{explained, merge_state};
use supervisor_tests::world::World;

fn json(world: &World, arguments: &[&str]) -> Value {
    let ran = world.supervisor(arguments).ok();
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Two tasks that change the same line, and one that changes another file.
fn parked() -> (World, &'static str) {
    let world = World::new();
    world.write("line.txt", "nobody\n");
    world.commit("a line");
    world.write(
        "batch.yml",
        "version: 1\nname: three\nconcurrency: 3\nmerge: {on_conflict: park}\ntasks:\n  \
         - {id: one, run: 'echo one > line.txt', touches: [line.txt]}\n  \
         - {id: two, run: 'echo two > line.txt', touches: ['*.txt']}\n  \
         - {id: own, run: 'echo own > own', touches: [own]}\n",
    );
    let before = json(&world, &["plan", "--json"]);
    assert_eq!(
        before["conflicts"],
        serde_json::json!([{"tasks": ["one", "two"], "with": "two", "paths": ["line.txt"], "more": 0,
            "by": "touches", "then": "park"}])
    );
    world.supervisor(&["run"]).exits(4);
    let second = match merge_state(&world, "one").as_str() {
        "merged" => "two",
        _ => "one",
    };
    (world, second)
}

#[test]
fn a_conflict_is_foreseen_by_touches_and_once_committed_by_a_merge_in_memory() {
    let (world, second) = parked();
    let objects = || world.git(&["count-objects", "-v"]);
    let (before, refs) = (objects(), world.git(&["for-each-ref"]));
    let expected = serde_json::json!([{"tasks": [second], "with": "batch branch",
        "paths": ["line.txt"], "more": 0, "by": "merge", "then": "park"}]);
    let target = format!("three/{second}");
    for arguments in [
        &["plan", "--json"][..],
        &["explain", "three", "--json"],
        &["explain", second, "--json"],
    ] {
        let told = json(&world, arguments);
        assert_eq!(told["conflicts"], expected, "{arguments:?}");
        assert_eq!(told["conflicts_unknown"], Value::Array(Vec::new()));
    }
    let sentence = format!(
        "{second} conflicts with the batch branch in line.txt; then the later one waits for the operator"
    );
    assert!(explained(&world, second).contains(&sentence), "{target}");
    let plan = world.supervisor(&["plan"]).ok().stdout;
    assert!(plan.contains(&sentence), "{plan}");
    assert!(!explained(&world, "own").contains("conflicts with"));
    assert_eq!((objects(), world.git(&["for-each-ref"])), (before, refs));
    world.assert_nothing_left();
}

/// What can not be found out is said, and the rest of the command is as ever.
#[test]
fn a_repository_that_is_gone_is_said_and_fails_nothing() {
    let (world, second) = parked();
    let git = world.repo().join(".git");
    let away = world.path("away");
    std::fs::rename(&git, &away).expect("it moves");
    let ran = world.supervisor(&["explain", "three", "--json"]);
    std::fs::rename(&away, &git).expect("it comes back");
    let told: Value = serde_json::from_str(&ran.ok().stdout).expect("one JSON object");
    let unknown = told["conflicts_unknown"][0].as_str().expect("a sentence");
    assert!(unknown.contains("can not be read"), "{unknown}");
    assert_eq!(merge_state(&world, second), "parked");
    world.assert_nothing_left();
}

#[test]
fn a_base_that_moved_and_where_the_work_went_are_shown() {
    let (world, _) = parked();
    let status = || json(&world, &["status", "--json"])["batch"].clone();
    assert_eq!(status()["integrated"], Value::Null);
    assert_eq!(status()["moved"], Value::Array(Vec::new()));
    let began = world.git(&["rev-parse", "HEAD"]);
    world.write("later", "later\n");
    world.git(&["add", "later"]);
    world.git(&["commit", "-qm", "later"]);
    let now = world.git(&["rev-parse", "HEAD"]);
    let moved = status()["moved"][0].clone();
    assert_eq!(moved["began"], began.trim());
    assert_eq!(moved["now"], now.trim());
    for command in [&["status"][..], &["explain", "three"], &["plan"]] {
        let told = world.supervisor(command).ok().stdout;
        assert!(told.contains("has moved since the batch began"), "{told}");
    }
    world.supervisor(&["integrate", "--yes", "--partial"]).ok();
    let integrated = status()["integrated"].clone();
    let branch = moved["branch"].as_str().expect("a branch");
    assert_eq!(integrated["into"], format!("refs/heads/{branch}"));
    assert!(integrated["commit"].is_string() && integrated["time"].is_string());
    world.assert_nothing_left();
}
