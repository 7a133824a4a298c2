//! The batch file is edited between two starts: the real programs take it, and say what it changes.

use supervisor_tests::world::World;

const OLD: &str = r#"version: 1
name: edit
isolation: none
concurrency: 1
defaults: {retry: {backoff: 1s..1s}}
tasks:
  - {id: first, run: "echo first >> log"}
  - {id: gate, run: "echo old >> log; until test -e open; do sleep 0.05; done", depends_on: [first]}
  - {id: gone, run: "echo gone >> log", depends_on: [gate]}
  - id: "part-{{ item }}"
    foreach: {items: [a, b]}
    run: "echo part-{{ item }} >> log"
    depends_on: [gate]
"#;

const NEW: &str = r#"version: 1
name: edit
isolation: none
concurrency: 1
defaults: {retry: {backoff: 1s..1s}}
tasks:
  - {id: docs, run: "echo docs >> log", depends_on: ["part-*"]}
  - {id: first, run: "echo first, again >> log"}
  - {id: gate, run: "echo new >> log", depends_on: [first]}
  - id: "part-{{ item }}"
    foreach: {items: [b, c]}
    run: "echo part-{{ item }} >> log"
    depends_on: [gate]
"#;

/// A world whose supervisor was killed while `gate` ran, and whose file was edited then.
fn edited() -> World {
    let world = World::new();
    world.write("batch.yml", OLD);
    let started = world.start("first", &["run", "--no-guardian"]);
    world.eventually("gate runs", |world| {
        world.read("log").contains("old").then_some(())
    });
    started.kill();
    world.write("batch.yml", NEW);
    world
}

#[test]
fn an_edited_file_is_taken_by_what_is_not_done() {
    let world = edited();
    let journal = world.journal().len();
    let shown = world.supervisor(&["run", "--dry-run"]).ok().stdout;
    for line in [
        "changed  gate    with its next attempt (running, prompt)",
        "new      docs    is added",
        "new      part-c  is added",
        "removed  gone    is skipped (blocked)",
        "removed  part-a  is skipped (blocked)",
        "kept     first   stays as it was done (done)",
    ] {
        assert!(shown.contains(line), "{line}\nin\n{shown}");
    }
    assert_eq!(world.journal().len(), journal, "nothing was done");

    let ran = world.supervisor(&["run"]).ok();
    assert!(
        ran.stdout
            .contains("takes the edited batch file (revision 1)")
    );
    let log = world.read("log");
    assert_eq!(log, "first\nold\nnew\npart-b\npart-c\ndocs\n");

    let dir = world.batch_dir().expect("a batch");
    let kept = |path: &str| std::fs::read_to_string(dir.join(path)).expect("what was read");
    assert_eq!(kept("batch.yml"), OLD);
    assert_eq!(kept("revisions/1/batch.yml"), NEW);
    let told = world.supervisor(&["explain", "gate"]).ok().stdout;
    assert!(told.contains("of the edited batch file"), "{told}");
    let told = world.supervisor(&["explain", "gone"]).ok().stdout;
    assert!(told.contains("the batch file no longer has it"), "{told}");
    world.supervisor(&["verify"]).ok();
    world.supervisor(&["run"]).exits(8);
    world.assert_nothing_left();
}

#[test]
fn changes_are_rows_for_scripts() {
    let world = edited();
    let ran = world.supervisor(&["run", "--json"]).ok();
    let first = ran.stdout.lines().next().expect("a row");
    let row: serde_json::Value = serde_json::from_str(first).expect("JSON");
    assert_eq!(
        (&row["type"], &row["number"]),
        (&"revision".into(), &1.into())
    );
    let changes = row["changes"].as_array().expect("a list");
    let gate = changes.iter().find(|it| it["id"] == "gate").expect("gate");
    assert_eq!(gate["kind"], "changed");
    assert_eq!(gate["keys"], serde_json::json!(["prompt"]));
}

/// A variable that the command line sets is read with the file: another value is an edit.
#[test]
fn a_variable_set_on_resume_is_an_edit() {
    let world = World::new();
    let file = r#"version: 1
name: vars
isolation: none
vars: {word: one}
tasks:
  - {id: gate, run: "echo {{ vars.word }} >> log; until test -e open; do sleep 0.05; done"}
"#;
    world.write("batch.yml", file);
    let started = world.start("first", &["run", "--no-guardian"]);
    world.eventually("gate runs", |world| {
        world.read("log").contains("one").then_some(())
    });
    started.kill();
    world.write("open", "");
    let ran = world.supervisor(&["run", "--set", "word=two"]).ok();
    assert!(ran.stdout.contains("from now on (vars)"), "{}", ran.stdout);
    assert_eq!(world.read("log"), "one\ntwo\n");
}

/// What failed takes the edit with its retry, in one command.
#[test]
fn a_failed_task_is_retried_under_the_edited_file() {
    let world = World::new();
    let file = |command: &str| {
        format!(
            "version: 1\nname: fix\nisolation: none\ndefaults: {{attempts: 1}}\ntasks:\n  - {{id: a, run: \"{command}\"}}\n"
        )
    };
    world.write("batch.yml", &file("exit 3"));
    world.supervisor(&["run"]).exits(1);
    world.write("batch.yml", &file("echo fixed >> log"));
    let refused = world.supervisor(&["run"]).exits(8);
    assert!(
        refused.stderr.contains("--retry-failed"),
        "{}",
        refused.stderr
    );
    world.supervisor(&["run", "--retry-failed"]).ok();
    assert_eq!(world.read("log"), "fixed\n");
}

/// Another working folder is another batch's business.
#[test]
fn another_repo_is_refused_by_name() {
    let world = edited();
    world.write("below/keep", "");
    world.write("batch.yml", &format!("repo: below\n{NEW}"));
    let refused = world.supervisor(&["run"]).exits(8);
    assert!(
        refused.stderr.contains("`repo` can not change"),
        "{}",
        refused.stderr
    );
}
