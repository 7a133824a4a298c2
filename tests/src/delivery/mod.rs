//! Stories of isolation and delivery: a real repository, a batch of twenty tasks in worktrees, and
//! what must hold of both when it is over, whoever was killed on the way.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

pub mod batch;
pub mod history;
pub mod kill;
pub mod moments;
pub mod repository;
pub mod untouched;

use serde_json::Value;

use crate::world::World;

/// The row of a task in `status --json`.
///
/// # Panics
/// When there is none.
pub fn row(world: &World, task: &str) -> Value {
    let status = world.status();
    let rows = status["tasks"].as_array().expect("tasks are a list");
    let row = rows.iter().find(|row| row["id"] == task);
    row.unwrap_or_else(|| panic!("{task} has a row in {status}"))
        .clone()
}

/// What `explain` tells of a task, for people.
pub fn explained(world: &World, task: &str) -> String {
    world.supervisor(&["explain", task]).ok().stdout
}

/// The task has failed in this way, which `explain` tells in these words, and nothing of it is merged.
///
/// # Panics
/// When it is not so.
#[track_caller]
pub fn failed_as(world: &World, task: &str, outcome: &str, words: &[&str]) {
    let row = row(world, task);
    assert_eq!(
        (&row["state"], &row["outcome"]),
        (&"failed".into(), &outcome.into()),
        "{row}"
    );
    let told = explained(world, task);
    for word in words {
        assert!(told.contains(word), "`{word}` is not told: {told}");
    }
    assert_ne!(merge_state(world, task), "merged", "{row}");
}

/// What `report` tells of a task; the page and the files that the supervisor left say it too.
///
/// # Panics
/// When they do not.
pub fn reported(world: &World, task: &str, words: &[&str]) -> String {
    let told = world.supervisor(&["report", task]).ok().stdout;
    let page = world.supervisor(&["report", task, "--html"]).ok().stdout;
    let dir = world.batch_dir().expect("there is a batch");
    let left = std::fs::read_to_string(dir.join("report.md")).expect("a report is left");
    for word in words {
        assert!(told.contains(word), "{word}: {told}");
        assert!(page.contains(word), "{word}: {page}");
        assert!(left.contains(word), "{word}: {left}");
    }
    told
}

/// The state of a task's merge.
pub fn merge_state(world: &World, task: &str) -> String {
    let row = row(world, task);
    let merge = &row["merge"];
    let state = merge.get("state").unwrap_or(merge);
    state.as_str().unwrap_or_default().to_owned()
}

/// The branch that the world's newest batch merges into.
///
/// # Panics
/// When the batch has no id.
pub fn batch_branch(world: &World) -> String {
    let status = world.status();
    let id = status["batch"]["id"].as_str().expect("a batch has an id");
    format!("batch/{id}")
}

/// The text of a file as the batch branch holds it; `None` where it does not.
pub fn delivered(world: &World, path: &str) -> Option<String> {
    let branch = batch_branch(world);
    let told = world.shell(&format!("git show '{branch}:{path}'"));
    (told.code == Some(0)).then_some(told.stdout)
}
