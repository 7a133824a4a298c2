//! A live supervisor becomes another program, with real hosts at work: nothing may be lost, ended or
//! doubled by it, whatever the other program does.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread::JoinHandle;

use nix::sys::signal::Signal;
use serde_json::Value;
use supervisor_tests::world::{Ran, Started, World, programs};

/// Agents at work in the large story.
const AGENTS: usize = 30;
/// Times that the supervisor is replaced under them.
const TIMES: usize = 10;
/// Questions of each agent in the large story. Each is asked, recorded, answered and written down by
/// the agent; one that is lost stops its agent for good.
const QUESTIONS: usize = 60;
/// Length of a question: two of them do not fit into one read of a pipe, so that lines are cut.
const QUESTION_LENGTH: usize = 3000;

/// One agent that talks without end until it gets a message, and then asks to be let go.
const PATIENT: &str = "version: 1
name: nightly
isolation: none
concurrency: 3
agents:
  talker:
    kind: scripted
    script:
      - say: ready
      - wait_message: {save_to: \"got-{{ task.id }}\"}
tasks:
  - {id: a, agent: talker, prompt: go}
  - {id: b, agent: talker, prompt: go}
";

fn busy() -> String {
    let mut script = String::new();
    for number in 0..QUESTIONS {
        let tokens = number + 1;
        writeln!(
            script,
            "      - say: \"line {number} of {{{{ task.id }}}}\""
        )
        .unwrap();
        writeln!(script, "      - usage: {{tokens: {tokens}}}").unwrap();
        let text = format!("q{number}-").repeat(QUESTION_LENGTH / 4);
        // It paces the agent, so that it is still at it when the last change comes.
        writeln!(script, "      - sleep: 100ms").unwrap();
        let ask = format!("{{text: \"{text}\", save_to: \"work/{{{{ task.id }}}}-{number}\"}}");
        writeln!(script, "      - ask: {ask}").unwrap();
    }
    let items: Vec<String> = (0..AGENTS).map(|number| format!("\"{number}\"")).collect();
    let items = items.join(", ");
    format!(
        "version: 1
name: nightly
isolation: none
concurrency: {AGENTS}
on_question: default
question_default: \"as you like\"
agents:
  busy:
    kind: scripted
    script:
{script}      - wait_message: {{save_to: \"got-{{{{ task.id }}}}\"}}
      - wait_message: {{save_to: \"end-{{{{ task.id }}}}\"}}
tasks:
  - id: \"t-{{{{ item }}}}\"
    foreach: {{items: [{items}]}}
    agent: busy
    prompt: go
"
    )
}

/// Pid and start of every process of the batch, by role and task.
fn processes(world: &World) -> BTreeMap<String, String> {
    let listed = world.supervisor(&["ps", "--json"]).ok().json();
    let listed = listed.as_array().unwrap();
    let named = listed.iter().map(|it| {
        let name = format!("{} {}", it["role"], it["task"]);
        (name, format!("{} {}", it["pid"], it["start_ticks"]))
    });
    named.collect()
}

fn states(world: &World) -> Vec<String> {
    let status = world.status();
    let tasks = status["tasks"].as_array().unwrap();
    let state = |task: &Value| task["state"].as_str().unwrap().to_owned();
    tasks.iter().map(state).collect()
}

/// Waits until so many hosts have told that they started.
fn started(world: &World, count: usize) {
    world.eventually("every run has started", |world| {
        (records(world, "run_started").len() == count).then_some(())
    });
}

/// Every record of this kind in the journal.
fn records(world: &World, kind: &str) -> Vec<Value> {
    let journal = world.journal();
    let found = journal.iter().filter_map(|line| {
        let record = line.get("record")?;
        record.get(kind).cloned()
    });
    found.collect()
}

fn reexec(world: &World) -> Ran {
    let ran = world.supervisor(&["reexec"]).ok();
    assert!(ran.stdout.contains("hosts kept"), "{}", ran.stdout);
    ran
}

/// A program that passes for the next supervisor as far as the script says.
fn pretender(world: &World, name: &str, script: &str) -> String {
    let path = world.path(name);
    let real = programs().join("supervisor");
    let text = format!("#!/bin/sh\nreal={}\n{script}\n", real.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Open descriptors of a process.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

/// Ends the patient batch: both agents get their message.
fn finish(world: &World, supervisor: Started) {
    for task in ["a", "b"] {
        world.supervisor(&["steer", task, "go on"]).ok();
    }
    let code = supervisor.end(world);
    let log = std::fs::read_to_string(world.path("run.out")).unwrap_or_default();
    assert_eq!(code, Some(0), "{log}");
    for task in ["a", "b"] {
        assert_eq!(world.read(&format!("got-{task}")), "go on");
    }
    assert_eq!(records(world, "attempt_started").len(), 2);
    world.assert_nothing_left();
}

fn begin(world: &World, file: &str) -> Started {
    world.write("batch.yml", file);
    world.start("run", &["run", "--no-guardian"])
}

#[test]
fn ten_times_under_thirty_busy_agents_nothing_is_lost_ended_or_doubled() {
    let world = World::new();
    std::fs::create_dir(world.path("repo/work")).unwrap();
    let supervisor = begin(&world, &busy());
    started(&world, AGENTS);
    let before = processes(&world);
    assert_eq!(before.len(), AGENTS + 1);
    let (watching, writing) = clients(&world);
    let all = AGENTS * QUESTIONS;
    let mut under_load = 0;
    for _ in 0..TIMES {
        let asked = records(&world, "question_opened").len();
        reexec(&world);
        world.eventually("the agents go on", |world| {
            let now = records(world, "question_opened").len();
            (now > asked || now == all).then_some(())
        });
        under_load += usize::from(asked < all);
    }
    assert!(
        under_load >= TIMES / 2,
        "the agents were quiet too soon: {under_load}"
    );
    assert_eq!(processes(&world), before, "a process was replaced");
    writing.join().unwrap();
    let heard = watching.join().unwrap();
    for rung in ["queued", "sent", "injected", "seen"] {
        assert_eq!(heard.matches(rung).count(), 1, "{heard}");
    }
    for number in 0..AGENTS {
        world
            .supervisor(&["steer", &format!("t-{number}"), "the end"])
            .ok();
    }
    assert_eq!(supervisor.end(&world), Some(0));
    assert_eq!(records(&world, "message_queued").len(), 2 * AGENTS);
    assert_eq!(records(&world, "supervisor_replaced").len(), TIMES);
    assert_eq!(records(&world, "attempt_started").len(), AGENTS);
    assert_eq!(
        records(&world, "supervisor_started").len(),
        1,
        "no new term"
    );
    check_questions(&world);
    check_events(&world);
    world.supervisor(&["verify"]).ok();
    world.assert_nothing_left();
}

/// A client that is connected all the time and must hear of its message's whole way, and one that
/// sends every other agent a message while the supervisor is being replaced.
fn clients(world: &World) -> (JoinHandle<String>, JoinHandle<()>) {
    let (first, second) = (world.operator(), world.operator());
    let watching = std::thread::spawn(move || {
        let text = "to t-0";
        let wait = ["steer", "t-0", text, "--wait", "seen", "--timeout", "60s"];
        first.supervisor(&wait).ok().stdout
    });
    let writing = std::thread::spawn(move || {
        for number in 1..AGENTS {
            let task = format!("t-{number}");
            second
                .supervisor(&["steer", &task, &format!("to {task}")])
                .ok();
        }
    });
    (watching, writing)
}

/// Every question of every run was recorded once, in order, and its answer came to its agent.
fn check_questions(world: &World) {
    let mut asked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for question in records(world, "question_opened") {
        let text = question["text"].as_str().unwrap();
        let first = text.split('-').next().unwrap().to_owned();
        asked
            .entry(question["task"].to_string())
            .or_default()
            .push(first);
    }
    assert_eq!(asked.len(), AGENTS);
    let expected: Vec<String> = (0..QUESTIONS).map(|number| format!("q{number}")).collect();
    for (task, texts) in asked {
        assert_eq!(texts, expected, "task {task}");
    }
    for task in 0..AGENTS {
        for number in 0..QUESTIONS {
            let answer = world.read(&format!("work/t-{task}-{number}"));
            assert_eq!(answer, "as you like", "t-{task}, question {number}");
        }
    }
}

/// What hosts wrote and what the supervisor counted are the same.
fn check_events(world: &World) {
    let status = world.status();
    let tokens = &status["batch"]["usage"]["tokens"];
    assert_eq!(*tokens, (AGENTS * QUESTIONS) as u64, "{}", status["batch"]);
    for task in 0..AGENTS {
        let name = format!("t-{task}");
        let logs = world.supervisor(&["logs", &name, "--json"]).ok().stdout;
        for number in 0..QUESTIONS {
            let line = format!("\"line {number} of {name}\"");
            assert_eq!(logs.matches(&line).count(), 1, "{line}");
        }
        assert_eq!(world.read(&format!("got-{name}")), format!("to {name}"));
        assert_eq!(world.read(&format!("end-{name}")), "the end");
    }
}

#[test]
fn a_program_that_can_not_take_over_changes_nothing() {
    let world = World::new();
    let supervisor = begin(&world, PATIENT);
    started(&world, 2);
    let before = processes(&world);
    let open = descriptors(supervisor.pid());
    let refused = [
        ("exits", "exit 3", "exit 3"),
        ("silent", "exit 0", "no supervisor that can take over"),
        ("dies", "kill -SEGV $$", "signal 11"),
        (
            "other-format",
            "echo '{\"handover\":99,\"build\":\"9.9.9\",\"seq\":999999}'",
            "format 99",
        ),
        (
            "no-host",
            "SUPERVISOR_AGENT_HOST=/nowhere exec $real \"$@\"",
            "no agent-host",
        ),
    ];
    for (name, script, expected) in refused {
        let program = pretender(&world, name, script);
        let ran = world
            .supervisor(&["reexec", "--program", &program])
            .exits(8);
        assert!(ran.stderr.contains(expected), "{name}: {}", ran.stderr);
        assert!(ran.stderr.contains("goes on"), "{name}: {}", ran.stderr);
    }
    let ran = world.supervisor(&["reexec", "--program", "/nowhere"]);
    ran.exits(10);
    assert_eq!(processes(&world), before);
    // The connection of the last command may still be closing.
    world.eventually("no more is open than before", |_| {
        (descriptors(supervisor.pid()) == open).then_some(())
    });
    finish(&world, supervisor);
}

#[test]
fn a_program_that_fails_after_the_change_makes_room_for_the_old_one() {
    let world = World::new();
    let supervisor = begin(&world, PATIENT);
    started(&world, 2);
    let before = processes(&world);
    // Without its agent-host beside it the copy can not go on; that it is asked only after the change
    // is the pretender's doing.
    let lonely = world.path("lonely-supervisor");
    std::fs::copy(programs().join("supervisor"), &lonely).unwrap();
    let script = format!(
        "[ \"$1\" = handover-check ] && exec $real \"$@\"\nexec {} \"$@\"",
        lonely.display()
    );
    let program = pretender(&world, "late", &script);
    let mut open = None;
    for _ in 0..3 {
        let ran = world
            .supervisor(&["reexec", "--program", &program])
            .exits(8);
        assert!(ran.stderr.contains("no agent-host"), "{}", ran.stderr);
        assert!(ran.stderr.contains("goes on"), "{}", ran.stderr);
        assert_eq!(processes(&world), before);
        let now = descriptors(supervisor.pid());
        assert_eq!(*open.get_or_insert(now), now, "descriptors are left over");
    }
    reexec(&world);
    assert_eq!(processes(&world), before);
    finish(&world, supervisor);
}

#[test]
fn a_program_that_dies_after_the_change_is_a_crash_like_any_other() {
    let world = World::new();
    let supervisor = begin(&world, PATIENT);
    started(&world, 2);
    let script = "[ \"$1\" = handover-check ] && exec $real \"$@\"\nkill -KILL $$";
    let program = pretender(&world, "mortal", script);
    let ran = world.supervisor(&["reexec", "--program", &program]);
    assert_ne!(ran.code, Some(0));
    assert_eq!(supervisor.end(&world), None, "it died by the signal");
    let again = world.start("again", &["run", "--no-guardian"]);
    world.eventually("both tasks run again", |world| {
        (records(world, "run_started").len() == 4).then_some(())
    });
    for task in ["a", "b"] {
        world.supervisor(&["steer", task, "go on"]).ok();
    }
    assert_eq!(again.end(&world), Some(0));
    world.assert_nothing_left();
}

#[test]
fn a_paused_batch_is_replaced_and_stays_paused() {
    let world = World::new();
    let supervisor = begin(&world, PATIENT);
    started(&world, 2);
    world.supervisor(&["pause"]).ok();
    reexec(&world);
    assert_eq!(world.status()["batch"]["state"], "paused");
    world.supervisor(&["resume"]).ok();
    finish(&world, supervisor);
}

#[test]
fn of_two_requests_at_once_one_is_refused() {
    let world = World::new();
    let supervisor = begin(&world, PATIENT);
    started(&world, 2);
    // Stands in its trial until the story opens the door.
    let door = world.path("door");
    let made = world.shell(&format!("mkfifo {}", door.display()));
    made.ok();
    let script = format!(
        "[ \"$1\" = handover-check ] && {{ : > {0}.there; read -r _ < {0}; }}\nexec $real \"$@\"",
        door.display()
    );
    let program = pretender(&world, "slow", &script);
    let operator = world.operator();
    let first = std::thread::spawn(move || operator.supervisor(&["reexec", "--program", &program]));
    let there = PathBuf::from(format!("{}.there", door.display()));
    world.eventually("the first one is tried", |_| there.exists().then_some(()));
    let second = world.supervisor(&["reexec"]).exits(8);
    assert!(
        second.stderr.contains("being replaced already"),
        "{}",
        second.stderr
    );
    // The batch goes on meanwhile.
    assert_eq!(states(&world), ["running", "running"]);
    std::fs::write(&door, "open\n").unwrap();
    first.join().unwrap().ok();
    finish(&world, supervisor);
}

#[test]
fn without_a_live_supervisor_there_is_nothing_to_replace() {
    let world = World::new();
    let supervisor = begin(&world, PATIENT);
    started(&world, 2);
    supervisor.kill();
    let ran = world.supervisor(&["reexec"]).exits(8);
    assert!(ran.stderr.contains("no live supervisor"), "{}", ran.stderr);
    let queued = world.batch_dir().unwrap().join("inbox");
    let waits = std::fs::read_dir(queued).map_or(0, Iterator::count);
    assert_eq!(waits, 0, "it is not kept for later");
    let again = world.start("again", &["run", "--no-guardian"]);
    world.eventually("both tasks run again", |world| {
        (records(world, "run_started").len() == 4).then_some(())
    });
    again.signal(Signal::SIGTERM);
    assert_eq!(again.end(&world), Some(5));
    world.assert_nothing_left();
}

#[test]
fn a_signal_that_comes_in_the_change_stops_the_next_program() {
    for _ in 0..5 {
        let world = World::new();
        let supervisor = begin(&world, PATIENT);
        started(&world, 2);
        let operator = world.operator();
        let asking = std::thread::spawn(move || operator.supervisor(&["reexec"]));
        // Before, in or after the change: it must be answered in every case, and never be died of.
        supervisor.signal(Signal::SIGTERM);
        assert_eq!(supervisor.end(&world), Some(5));
        asking.join().unwrap();
        world.assert_nothing_left();
    }
}
