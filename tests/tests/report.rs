//! `report` with the real programs: while a batch runs, when its supervisor ends, after a crash, and
//! where it can not be written.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use supervisor_tests::delivery::{batch_branch, merge_state, row};
use supervisor_tests::world::World;

fn left(world: &World, name: &str) -> PathBuf {
    world.batch_dir().unwrap().join(name)
}

fn json(world: &World) -> Value {
    world.supervisor(&["report", "--json"]).ok().json()
}

/// Two that change the same line, and an agent that joins both sides.
#[test]
fn a_resolved_conflict_is_told_from_its_files_to_its_commit() {
    let world = World::new();
    world.write("line.txt", "nobody\n");
    world.commit("a line");
    world.write(
        "batch.yml",
        "version: 1\nname: pair\nconcurrency: 2\n\
         merge: {on_conflict: agent, agent: joiner, prompt: join them}\n\
         agents:\n  joiner: {kind: command, command: [sh, -c, 'echo both > line.txt; echo joined']}\n\
         tasks:\n  - {id: one, run: 'echo one > line.txt'}\n  - {id: two, run: 'echo two > line.txt'}\n",
    );
    let ran = world.supervisor(&["run"]).ok();
    let path = left(&world, "report.md");
    assert!(
        ran.stdout.contains(path.to_str().unwrap()),
        "{}",
        ran.stdout
    );
    let told = fs::read_to_string(path).unwrap();
    for words in [
        "line.txt",
        "joiner resolved it",
        "## Batch branch",
        "supervisor integrate",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let page = fs::read_to_string(left(&world, "report.html")).unwrap();
    assert!(
        page.contains("joiner resolved it") && !page.contains("<script"),
        "{page}"
    );

    let report = json(&world);
    let repo = &report["repos"][0];
    assert_eq!(repo["branch"], Value::from(batch_branch(&world)));
    let tip = world.git(&["rev-parse", &batch_branch(&world)]);
    assert_eq!(repo["tip"], Value::from(tip.trim()));
    assert_eq!(repo["merged"].as_array().unwrap().len(), 2);
    assert_eq!(report["needs"], Value::Array(Vec::new()));
    assert_eq!(merge_state(&world, "one"), "merged");
    world.assert_nothing_left();
}

/// A report is made while a batch runs, and names a crash after it.
#[test]
fn a_report_is_made_while_a_batch_runs_and_tells_of_a_crash() {
    let world = World::new();
    let go = world.path("go");
    let wait = format!("until test -e {}; do sleep 0.05; done", go.display());
    world.write(
        "batch.yml",
        &format!(
            "version: 1\nname: slow\nisolation: none\ntasks:\n  - {{id: slow, run: {}}}\n",
            Value::from(wait)
        ),
    );
    let run = world.start("run", &["run", "--no-guardian"]);
    world.eventually("the task runs", |world| {
        let status = world.supervisor(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        (status["tasks"][0]["state"] == "running").then_some(())
    });
    let report = json(&world);
    assert_eq!(
        (&report["batch"]["state"], &report["batch"]["alive"]),
        (&"running".into(), &true.into())
    );
    assert_eq!(report["tasks"][0]["attempts"][0]["outcome"], "open");
    assert!(
        !left(&world, "report.md").exists(),
        "its supervisor has not ended"
    );
    run.kill();

    fs::write(&go, "").unwrap();
    world.supervisor(&["run", "--no-guardian"]).ok();
    let report = json(&world);
    assert_eq!(report["batch"]["state"], "done");
    let kinds: Vec<&str> = report["incidents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert!(kinds.contains(&"crash"), "{kinds:?}");
    let told = fs::read_to_string(left(&world, "report.md")).unwrap();
    assert!(told.contains("gone without a word"), "{told}");
    world.assert_nothing_left();
}

/// What can not be written is said, and the end of the batch is what it is.
#[test]
fn a_report_that_can_not_be_written_changes_nothing_and_is_said() {
    let world = World::new();
    world.write(
        "batch.yml",
        "version: 1\nname: small\nisolation: none\ntasks:\n  - {id: fails, run: 'exit 3'}\ndefaults: {attempts: 1}\n",
    );
    world.supervisor(&["run"]).exits(1);
    assert!(left(&world, "report.md").is_file());
    fs::create_dir(left(&world, "report.html.new")).unwrap();
    let ran = world.supervisor(&["run", "--retry-failed"]).exits(1);
    assert!(
        ran.stdout.contains("no report is left with the batch"),
        "{}",
        ran.stdout
    );
    assert!(
        !left(&world, "report.md").exists(),
        "an older one would be taken for this one"
    );
    assert_eq!(row(&world, "fails")["state"], "failed");

    let told = world.supervisor(&["report"]).ok().stdout;
    assert!(told.contains("supervisor retry"), "{told}");
    let file = world.path("out.html");
    let path = file.to_str().unwrap();
    world
        .supervisor(&["report", "--html", "--output", path])
        .ok();
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .starts_with("<!doctype html>")
    );
    world.supervisor(&["report", "nobody"]).exits(6);
    world.supervisor(&["report", "--html", "--json"]).exits(2);

    // Unreadable is not empty.
    let journal = left(&world, "journal/000001.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.replacen("small", "smell", 1)).unwrap();
    world.supervisor(&["report"]).exits(9);
    world.assert_nothing_left();
}
