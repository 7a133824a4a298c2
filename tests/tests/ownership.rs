//! `ps` and `kill` with the real programs: what is ours is found and ended whatever died before, and
//! nothing else is touched.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use supervisor_tests::world::{Ran, Started, World, tool};

/// The agent, a child, and one that left its session and cleared its environment; each lives on.
const BATCH: &str = "version: 1
name: nightly
isolation: none
tasks:
  - id: lexer
    run: \"sleep 1000 & env -i PATH=$PATH setsid sleep 1001 & echo $$ > begun; wait\"
";

/// A world whose batch has begun.
fn begun(batch: &str) -> (World, Started) {
    let world = World::new();
    world.write("batch.yml", batch);
    let started = world.start("run", &["run"]);
    world.eventually("the agent begins", |world| {
        (!world.read("begun").is_empty()).then_some(())
    });
    (world, started)
}

fn rows(ran: Ran) -> Vec<Value> {
    let rows = ran.ok().json();
    rows.as_array().expect("ps gives a list").clone()
}

fn pid(row: &Value) -> Pid {
    let pid = row["pid"].as_i64().expect("a pid is a number");
    Pid::from_raw(i32::try_from(pid).expect("a small one"))
}

fn of_role<'a>(rows: &'a [Value], role: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["role"] == role).collect()
}

fn signal_all(rows: &[Value], roles: &[&str], signal: Signal) {
    let meant = rows
        .iter()
        .filter(|row| roles.iter().any(|role| row["role"] == *role));
    for row in meant {
        nix::sys::signal::kill(pid(row), signal).expect("a process of this test");
    }
}

/// kill -9 of all in these roles, and their end seen.
fn kill_all(world: &World, rows: &[Value], roles: &[&str]) {
    // Stopped first: a host that sees its supervisor's end would end its tree before its own turn.
    signal_all(rows, roles, Signal::SIGSTOP);
    signal_all(rows, roles, Signal::SIGKILL);
    let meant = rows
        .iter()
        .filter(|row| roles.iter().any(|role| row["role"] == *role));
    for row in meant {
        world.eventually("a killed process has ended", |_| {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid(row)));
            let stat = stat.unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
    }
}

fn task_state(world: &World) -> (String, String) {
    let status = world.status();
    let task = &status["tasks"][0];
    let text = |key: &str| task[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("outcome"))
}

/// A process of somebody else that runs the same program.
struct Stranger(Child);

impl Stranger {
    fn new() -> Stranger {
        let mut sleep = tool("sleep");
        sleep.arg("1000").stdout(Stdio::null());
        Stranger(sleep.spawn().expect("sleep starts"))
    }

    fn assert_lives(mut self) {
        let ended = self.0.try_wait().expect("it can be asked");
        self.0.kill().expect("it can be ended");
        self.0.wait().expect("it is collected");
        assert!(ended.is_none(), "a stranger was hit");
    }
}

#[test]
fn ps_shows_the_whole_tree_and_kill_ends_it_and_holds_the_task() {
    let (world, started) = begun(BATCH);
    let stranger = Stranger::new();
    let rows = world.eventually("everything has begun", |world| {
        let rows = rows(world.supervisor(&["ps", "--json"]));
        (of_role(&rows, "tool").len() >= 2).then_some(rows)
    });
    for role in ["guardian", "supervisor", "host", "agent"] {
        assert_eq!(of_role(&rows, role).len(), 1, "{role}: {rows:#?}");
    }
    assert!(rows.iter().all(|row| row["state"] == "live"), "{rows:#?}");
    let host = of_role(&rows, "host")[0];
    assert_eq!(host["task"], "lexer");
    let layers = host["containment"].as_str().unwrap_or_default();
    assert!(
        layers.contains("subreaper") && layers.contains("env_tag"),
        "{layers}"
    );
    let text = world.supervisor(&["ps", "lexer", "--why"]).ok().stdout;
    assert!(
        text.contains("recorded identity") && text.contains("descends from"),
        "{text}"
    );
    assert!(rows_of_orphans(&world).is_empty(), "all of it has an owner");

    let id = of_role(&rows, "tool")[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let said = world
        .supervisor(&["kill", &id, "--grace", "0s"])
        .ok()
        .stdout;
    assert!(said.contains("nothing of it is alive"), "{said}");
    assert_eq!(task_state(&world).0, "paused");
    world.supervisor(&["kill", "nightly", "--grace", "1s"]).ok();
    assert!(started.end(&world).is_some());
    world.assert_nothing_left();
    stranger.assert_lives();
}

/// Orphans of this world; those of other worlds on this machine are foreign to it.
fn rows_of_orphans(world: &World) -> Vec<Value> {
    let mut rows = rows(world.supervisor(&["ps", "--orphans", "--json"]));
    rows.retain(|row| row["state"] == "orphan");
    rows
}

#[test]
fn orphans_of_a_double_kill_are_found_with_their_proof_and_ended_and_the_batch_goes_on() {
    let (world, started) = begun(BATCH);
    let stranger = Stranger::new();
    let before = world.eventually("everything has begun", |world| {
        let rows = rows(world.supervisor(&["ps", "--json"]));
        (of_role(&rows, "tool").len() >= 2).then_some(rows)
    });
    kill_all(&world, &before, &["guardian", "supervisor", "host"]);
    assert_eq!(started.end(&world), None, "it died of a signal");
    let left = rows_of_orphans(&world);
    let mut found: Vec<Pid> = left.iter().map(pid).collect();
    let mut expected: Vec<Pid> = of_role(&before, "agent").into_iter().map(pid).collect();
    expected.extend(of_role(&before, "tool").into_iter().map(pid));
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "exactly the survivors: {left:#?}");
    for row in &left {
        assert_eq!(row["state"], "orphan");
        assert!(!row["why"].as_str().unwrap_or_default().is_empty());
        assert_eq!(row["task"], "lexer");
    }
    let preview = world
        .supervisor(&["kill", "--orphans", "--dry-run"])
        .ok()
        .stdout;
    let would = preview.lines().filter(|line| line.starts_with("would end"));
    assert_eq!(would.count(), left.len(), "{preview}");
    assert_eq!(rows_of_orphans(&world).len(), left.len(), "only said");
    let said = world
        .supervisor(&["kill", "--orphans", "--grace", "0s"])
        .ok()
        .stdout;
    assert!(said.contains("SIGKILL, ended within"), "{said}");
    let layers = of_role(&before, "host")[0]["containment"]
        .as_str()
        .unwrap_or_default();
    let held = layers.contains("cgroup") || layers.contains("pidns");
    assert_eq!(
        said.contains("residual cannot be excluded"),
        !held,
        "without either nobody knows: {said}"
    );
    assert!(rows_of_orphans(&world).is_empty());
    world.assert_nothing_left();

    // Its run was lost, not meant: the next supervisor goes on with it.
    std::fs::remove_file(world.repo().join("begun")).expect("the mark of the first run");
    let started = world.start("again", &["run"]);
    world.eventually("the task runs again", |world| {
        (!world.read("begun").is_empty()).then_some(())
    });
    assert_eq!(task_state(&world).0, "running");
    world.supervisor(&["kill", "nightly", "--grace", "0s"]).ok();
    started.end(&world);
    world.assert_nothing_left();
    stranger.assert_lives();
}

#[test]
fn a_stopped_supervisor_does_not_protect_its_runs() {
    let (world, started) = begun(BATCH);
    let before = rows(world.supervisor(&["ps", "--json"]));
    signal_all(&before, &["supervisor"], Signal::SIGSTOP);
    let said = world
        .supervisor(&["kill", "nightly", "--grace", "0s"])
        .ok()
        .stdout;
    assert!(said.contains("ended directly"), "{said}");
    assert!(said.contains("nothing of it is alive"), "{said}");
    started.end(&world);
    world.assert_nothing_left();
    assert!(rows_of_orphans(&world).is_empty());
}

#[test]
fn a_list_that_was_edited_is_refused_with_the_field_and_the_stranger_is_untouched() {
    let (world, started) = begun(BATCH);
    let path = world.batch_dir().expect("a batch").join("registry.json");
    world.eventually("its host is in the list", |_| {
        let list: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        list["runs"][0]["host"].is_object().then_some(())
    });
    let before = rows(world.supervisor(&["ps", "--json"]));
    kill_all(&world, &before, &["guardian", "supervisor", "host"]);
    started.end(&world);
    let stranger = Stranger::new();
    let text = std::fs::read_to_string(&path).expect("the list");
    let mut list: Value = serde_json::from_str(&text).expect("JSON");
    list["runs"][0]["host"]["pid"] = stranger.0.id().into();
    std::fs::write(&path, list.to_string()).expect("the edited list");
    let said = world
        .supervisor(&["kill", "nightly", "--grace", "0s"])
        .exits(8);
    assert!(
        said.stdout.contains("its pid differs from the journal's"),
        "{}",
        said.stdout
    );
    world.assert_nothing_left();
    stranger.assert_lives();
}

#[test]
fn an_agent_can_not_end_or_hold_runs_of_its_own_batch_even_with_a_cleared_environment() {
    let world = World::new();
    let programs = supervisor_tests::world::programs();
    let program = programs.join("supervisor");
    let program = program.display();
    let state = world.path("state");
    let state = state.display();
    let run = world.path("run");
    let run = run.display();
    let batch = format!(
        "version: 1
name: nightly
isolation: none
env_from: [XDG_STATE_HOME, XDG_RUNTIME_DIR]
tasks:
  - id: lexer
    run: |
      {program} kill nightly --grace 0s; echo $? >> codes
      {program} pause nightly; echo $? >> codes
      env -i XDG_STATE_HOME={state} XDG_RUNTIME_DIR={run} {program} kill nightly; echo $? >> codes
      env -i XDG_STATE_HOME={state} XDG_RUNTIME_DIR={run} {program} pause nightly; echo $? >> codes
      env -i XDG_STATE_HOME={state} XDG_RUNTIME_DIR={run} {program} status nightly > seen; echo $? >> codes
"
    );
    world.write("batch.yml", &batch);
    world.supervisor(&["run"]).ok();
    assert_eq!(world.read("codes"), "8\n8\n8\n8\n0\n");
    assert!(world.read("seen").contains("lexer"), "looking is allowed");
}

/// Runs a `supervisor` command while nothing of the state can be written: behind a read-only mount for
/// root, whom no file mode binds, and by file modes for anybody else.
fn without_writing(world: &World, args: &str) -> Ran {
    let program = supervisor_tests::world::programs().join("supervisor");
    let command = format!("'{}' {args}", program.display());
    let state = world.path("state");
    let state = state.display();
    let line = match nix::unistd::geteuid().is_root() {
        true => format!(
            "unshare --mount sh -c \"mount --bind '{state}' '{state}' && \
             mount -o remount,ro,bind '{state}' && ! touch '{state}/x' 2>&- && {command}\""
        ),
        false => format!(
            "chmod -R a-w '{state}'; {command}; code=$?; chmod -R u+w '{state}'; exit $code"
        ),
    };
    world.shell(&line)
}

#[test]
fn kill_needs_no_writable_disk_and_says_what_could_not_be_recorded() {
    for roles in [&[][..], &["guardian", "supervisor", "host"]] {
        let (world, started) = begun(BATCH);
        let before = world.eventually("everything has begun", |world| {
            let rows = rows(world.supervisor(&["ps", "--json"]));
            (of_role(&rows, "tool").len() >= 2).then_some(rows)
        });
        kill_all(&world, &before, roles);
        if !roles.is_empty() {
            assert_eq!(started.end(&world), None);
        } else {
            // It can not be asked: then everything is ended directly.
            signal_all(&before, &["supervisor"], Signal::SIGSTOP);
        }
        let ran = without_writing(&world, "kill nightly --grace 0s");
        let said = ran.ok().stdout;
        assert!(said.contains("not noted"), "{said}");
        world.assert_nothing_left();
    }
}

#[test]
fn what_is_killed_without_a_supervisor_is_held_by_the_next_one() {
    let (world, started) = begun(BATCH);
    let before = rows(world.supervisor(&["ps", "--json"]));
    kill_all(&world, &before, &["guardian", "supervisor", "host"]);
    assert_eq!(started.end(&world), None);
    let said = world.supervisor(&["kill", "nightly", "--grace", "0s"]).ok();
    assert!(said.stdout.contains("noted for the next supervisor"));
    world.assert_nothing_left();
    world.supervisor(&["run"]).exits(4);
    assert_eq!(
        task_state(&world),
        ("paused".to_owned(), "cancelled".to_owned())
    );
}
