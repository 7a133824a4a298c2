//! The program itself against state that was written by hand: what it finds, says and exits with.
//! No host is started here.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use protocol::ids::Generation;
use serde_json::Value;
use supervisor::batch_file::{BatchFile, Request, Source, read};
use supervisor::cli::open::Found;
use supervisor::cli::stored;
use supervisor::process::identity::{Machine, start_ticks};
use supervisor::store::lock::{self, Holder};
use supervisor::store::{Lock, RealDisk, StateRoot, inbox, open_for_append};
use supervisor_core::core::Core;
use supervisor_core::identity::{Exit, Identity};
use supervisor_core::input::{Created, Input, OperatorCommand, ReplyId};
use supervisor_core::time::{Boot, Now, Wall};

const FILE: &str = "version: 1
name: nightly
tasks:
  - {id: lexer, run: make lexer}
  - {id: parser, run: make parser, depends_on: [lexer]}
";

/// A home and a working folder of their own.
struct World {
    home: tempfile::TempDir,
}

impl World {
    fn new() -> World {
        let world = World {
            home: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(world.folder()).unwrap();
        std::fs::write(world.folder().join("batch.yml"), FILE).unwrap();
        world
    }

    fn folder(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap().join("work")
    }

    fn root(&self) -> StateRoot {
        let state = self.home.path().join("state");
        let var = |name: &str| (name == "XDG_STATE_HOME").then(|| state.clone().into());
        StateRoot::from_vars(var).unwrap()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the stories are about the program itself"
    )]
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_supervisor"));
        command.args(args).current_dir(self.folder()).env_clear();
        command.env("HOME", self.home.path());
        command.env("XDG_STATE_HOME", self.home.path().join("state"));
        command.env("TZ", "UTC").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        Said::from(self.command(args).output().unwrap())
    }

    fn read(&self) -> BatchFile {
        let path = self.folder().join("batch.yml");
        let request = Request {
            source: Source::File(&path),
            current_dir: &self.folder(),
            user_config: None,
            set: &[],
        };
        read(&request).unwrap()
    }

    /// A batch as a supervisor leaves it that was killed while `lexer` ran.
    fn batch(&self) -> Found {
        self.batch_after(Vec::new())
    }

    /// A batch as it is after these inputs; each makes a group of records of its own.
    fn batch_after(&self, more: Vec<Input>) -> Found {
        let root = self.root();
        root.create().unwrap();
        let file = self.read();
        let path = self.folder().join("batch.yml");
        let found = stored::create(&root, &file, &path, Wall(1_700_000_000_000)).unwrap();
        let created = Created {
            id: found.id.clone(),
            // Spawn tokens come from it, see the driver's stories.
            seed: u64::from(std::process::id()),
            plan: file.plan,
            only: Vec::new(),
        };
        let recovered = Input::Recovered {
            supervisor: identity(4_000_000),
            guardian: None,
            build: "0".into(),
            runs: Vec::new(),
        };
        let mut core = Core::new();
        let opened = open_for_append(Arc::new(RealDisk), &found.dir, Wall(0)).unwrap();
        let mut journal = opened.0;
        let first = [Input::Created(Box::new(created)), recovered, Input::Tick];
        for input in first.into_iter().chain(more) {
            let entries = core.handle(now(), input).entries;
            journal.append(&entries).unwrap();
            journal.sync().unwrap();
        }
        found
    }
}

/// What the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn now() -> Now {
    Now {
        wall: Wall(1_700_000_000_000),
        boot: Boot(1_000),
        boot_id: Machine::here().unwrap().boot_id,
    }
}

/// A process of this machine that is not there (pids end below that number).
fn identity(pid: u32) -> Identity {
    let machine = Machine::here().unwrap();
    Identity {
        node: machine.node.clone(),
        pid_namespace: machine.pid_namespace,
        boot_id: machine.boot_id,
        pid,
        start_ticks: 1,
        pidfs_inode: None,
        session: None,
    }
}

/// Holds the batch like a live supervisor that does not listen.
fn hold(batch: &Found) -> Lock {
    hold_as(batch, std::process::id())
}

fn hold_as(batch: &Found, pid: u32) -> Lock {
    let holder = Holder {
        pid,
        start_ticks: start_ticks(pid).unwrap(),
        socket: batch.dir.path().join("nobody"),
        guardian: None,
    };
    lock::lock(&batch.dir, &holder).unwrap()
}

fn journal_bytes(batch: &Found) -> Vec<u8> {
    std::fs::read(batch.dir.segment(1)).unwrap()
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let world = World::new();
    assert_eq!(world.run(&["nonsense"]).code, 2);
    assert_eq!(world.run(&["steer", "x"]).code, 2);
    assert_eq!(world.run(&["retry"]).code, 2);
    assert_eq!(world.run(&["run", "--new", "--retry-failed"]).code, 2);
    let help = world.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.out.contains("11  wait timed out"), "{}", help.out);
}

#[test]
fn a_broken_batch_file_is_3_and_starts_nothing() {
    let world = World::new();
    std::fs::write(
        world.folder().join("bad.yml"),
        "version: 1\ntasks: [{id: a, rn: x}]\n",
    )
    .unwrap();
    for verb in ["validate", "plan", "run"] {
        let said = world.run(&[verb, "bad.yml"]);
        assert_eq!(said.code, 3, "{verb}");
        assert!(said.err.contains("bad.yml:2:"), "{}", said.err);
        assert!(said.err.contains("did you mean `run`?"), "{}", said.err);
    }
    assert_eq!(world.run(&["list", "--json"]).out, "[]\n");
}

#[test]
fn plan_and_dry_run_write_nothing() {
    let world = World::new();
    let plan = world.run(&["plan", "--json"]);
    let plan: Value = serde_json::from_str(&plan.out).unwrap();
    assert_eq!(plan["tasks"][1]["depends_on"][0], "lexer");
    let said = world.run(&["run", "--dry-run"]);
    assert_eq!(said.code, 0);
    assert!(
        said.out.ends_with("dry run: a new batch would begin\n"),
        "{}",
        said.out
    );
    assert!(!world.home.path().join("state").exists());
}

#[test]
fn without_an_agent_host_nothing_begins() {
    let world = World::new();
    let mut command = world.command(&["run"]);
    command.env("SUPERVISOR_AGENT_HOST", "/nowhere/agent-host");
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, 10);
    assert!(
        said.err.contains("no agent-host at /nowhere/agent-host"),
        "{}",
        said.err
    );
    assert_eq!(world.run(&["list", "--json"]).out, "[]\n");
}

#[test]
fn what_is_not_there_is_6_and_what_is_meant_twice_is_7() {
    let world = World::new();
    assert_eq!(world.run(&["status"]).code, 6);
    assert_eq!(world.run(&["status", "nope"]).code, 6);
    let first = world.batch();
    assert_eq!(world.run(&["status"]).code, 0);
    assert_eq!(world.run(&["logs", "nope"]).code, 6);
    let second = world.batch();
    let said = world.run(&["status"]);
    assert_eq!(said.code, 7);
    assert!(said.err.contains(first.id.as_str()) && said.err.contains(second.id.as_str()));
    assert_eq!(world.run(&["status", "nightly"]).code, 7);
    assert_eq!(world.run(&["status", first.id.as_str()]).code, 0);
    let task = format!("{}/le", second.id);
    let said = world.run(&["status", &task, "--json"]);
    let status: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["tasks"][0]["id"], "lexer");
    assert_eq!(status["tasks"].as_array().unwrap().len(), 1);
}

#[test]
fn status_of_a_batch_without_its_supervisor_is_interrupted() {
    let world = World::new();
    let batch = world.batch();
    let said = world.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["batch"]["state"], "interrupted");
    assert_eq!(
        status["batch"]["reason"],
        "its supervisor (pid 4000000) is gone; `supervisor run batch.yml` goes on"
    );
    assert_eq!(status["batch"]["supervisor"]["alive"], false);
    assert_eq!(status["tasks"][0]["state"], "ready");
    let held = hold(&batch);
    let said = world.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["batch"]["state"], "running");
    assert_eq!(status["batch"]["supervisor"]["pid"], std::process::id());
    assert_eq!(status["tasks"][0]["state"], "running");
    drop(held);
}

#[test]
fn a_live_batch_is_refused_with_its_pid() {
    let world = World::new();
    let batch = world.batch();
    let held = hold(&batch);
    let mut command = world.command(&["run"]);
    command.env("SUPERVISOR_AGENT_HOST", env!("CARGO_BIN_EXE_supervisor"));
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, 8);
    let pid = format!("(pid {})", std::process::id());
    assert!(said.err.contains(&pid), "{}", said.err);
    drop(held);
}

#[test]
fn a_finished_batch_is_refused_naming_the_ways_on() {
    let world = World::new();
    let cancel = Input::Operator {
        reply: ReplyId(1),
        command: OperatorCommand::Cancel { tasks: None },
    };
    let gone = Input::HostExited {
        generation: Generation(1),
        exit: Exit::Unseen,
        durable: None,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
        oom: None,
    };
    world.batch_after(vec![cancel, gone, Input::Tick]);
    let said = world.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["batch"]["state"], "failed", "{}", said.out);
    let mut command = world.command(&["run"]);
    command.env("SUPERVISOR_AGENT_HOST", env!("CARGO_BIN_EXE_supervisor"));
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, 8, "{}", said.err);
    assert!(
        said.err.contains("--new") && said.err.contains("--retry-failed"),
        "{}",
        said.err
    );
    assert_eq!(world.run(&["wait"]).code, 1);
}

#[test]
fn an_edited_file_is_shown_with_its_changes() {
    let world = World::new();
    world.batch();
    let edited = FILE.replace("make parser", "make parser2") + "  - {id: docs, run: make docs}\n";
    std::fs::write(world.folder().join("batch.yml"), edited).unwrap();
    let said = world.run(&["run", "--dry-run"]);
    for line in [
        "takes the edited batch file",
        "changed  parser",
        "new      docs",
    ] {
        assert!(said.out.contains(line), "{}{}", said.out, said.err);
    }
    assert!(!said.out.contains("changed  lexer"), "{}", said.out);
    std::fs::write(
        world.folder().join("batch.yml"),
        format!("# a note\n{FILE}"),
    )
    .unwrap();
    let said = world.run(&["run", "--dry-run"]);
    assert!(
        said.out.contains("would go on: ") && !said.out.contains("edited"),
        "{}{}",
        said.out,
        said.err
    );
}

#[test]
fn orders_without_a_supervisor_are_kept_and_said_to_be() {
    let world = World::new();
    let batch = world.batch();
    for args in [
        &["steer", "lexer", "hello"][..],
        &["pause"],
        &["cancel", "parser"],
        &["answer", "q1", "yes"],
    ] {
        let said = world.run(args);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.out.starts_with("queued: "), "{}", said.out);
    }
    let waiting = inbox::waiting(&RealDisk, &batch.dir).unwrap();
    assert_eq!(waiting.len(), 4);
    let said = world.run(&["steer", "lexer", "hello", "--wait", "seen"]);
    assert_eq!(said.code, 8, "nobody can prove that rung");
    assert_eq!(inbox::waiting(&RealDisk, &batch.dir).unwrap().len(), 4);
}

#[test]
fn kill_without_a_supervisor_proves_that_nothing_lives() {
    let world = World::new();
    let batch = world.batch();
    let before = journal_bytes(&batch);
    let said = world.run(&["kill", batch.id.as_str()]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.ends_with("nothing of it is alive\n"),
        "{}",
        said.out
    );
    assert_eq!(
        journal_bytes(&batch),
        before,
        "reading commands and kill write no record"
    );
}

/// A supervisor that waits for what an earlier one left is in the lock and not in the journal yet:
/// readers say so, and `kill` ends it all the same, by the identity in the lock.
#[test]
fn a_recovering_supervisor_is_shown_and_can_be_killed() {
    let world = World::new();
    let batch = world.batch();
    let mut supervisor = {
        #[expect(clippy::disallowed_methods, reason = "stands for the supervisor")]
        let mut command = Command::new("sleep");
        command.arg("1000").spawn().unwrap()
    };
    let held = hold_as(&batch, supervisor.id());
    let said = world.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["batch"]["supervisor"]["alive"], true);
    assert_eq!(status["batch"]["supervisor"]["recovering"], true);
    let said = world.run(&["status"]);
    let line = format!("supervisor pid {} is recovering", supervisor.id());
    assert!(said.out.contains(&line), "{}", said.out);
    let said = world.run(&["ps"]);
    assert!(said.out.contains(&supervisor.id().to_string()));
    let said = world.run(&["kill", batch.id.as_str(), "--dry-run"]);
    assert_eq!(said.code, 0);
    assert!(supervisor.try_wait().unwrap().is_none(), "only told");
    let said = world.run(&["kill", batch.id.as_str(), "--grace", "0s"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let line = format!("supervisor (pid {}): SIGKILL, ended", supervisor.id());
    assert!(said.out.contains(&line), "{}", said.out);
    assert!(!supervisor.wait().unwrap().success());
    drop(held);
    let said = world.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["batch"]["supervisor"]["recovering"], false);
}

#[test]
fn explain_tells_the_story_up_to_any_record() {
    let world = World::new();
    world.batch();
    let said = world.run(&["explain", "lexer", "--json"]);
    let whole: Value = serde_json::from_str(&said.out).unwrap();
    let story = whole["story"].as_array().unwrap();
    assert!(
        story.iter().any(|line| line["record"] == "attempt_started"),
        "{}",
        said.out
    );
    assert_eq!(whole["now"]["state"], "ready", "cut off");
    let first = story[0]["seq"].as_u64().unwrap();
    let before = (first - 1).to_string();
    let said = world.run(&["explain", "lexer", "--at", &before, "--json"]);
    let then: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(then["story"].as_array().unwrap().len(), 0);
    assert_eq!(
        world.run(&["explain", "--at", "100000"]).code,
        0,
        "the last record holds"
    );
}

#[test]
fn verify_proves_a_whole_journal_and_refuses_a_flipped_byte() {
    let world = World::new();
    let batch = world.batch();
    let said = world.run(&["verify"]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("two replays agree"), "{}", said.out);
    let path = batch.dir.segment(1);
    let mut bytes = journal_bytes(&batch);
    bytes[40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for args in [&["verify"][..], &["status"], &["explain"]] {
        let said = world.run(args);
        assert!(
            said.code == 9 || said.code == 6,
            "{args:?}: {} {}",
            said.code,
            said.err
        );
    }
    assert_eq!(journal_bytes(&batch), bytes, "nothing was changed");
}

#[test]
fn wait_ends_at_once_where_nobody_works() {
    let world = World::new();
    world.batch();
    assert_eq!(world.run(&["wait"]).code, 5);
}

#[test]
fn wait_times_out_beside_a_supervisor_that_does_not_answer() {
    let world = World::new();
    let batch = world.batch();
    let held = hold(&batch);
    assert_eq!(world.run(&["wait", "--timeout", "300ms"]).code, 11);
    drop(held);
}

#[test]
fn ps_names_the_holder_of_the_lock_by_its_identity() {
    let world = World::new();
    let batch = world.batch();
    let held = hold(&batch);
    let said = world.run(&["ps", "--json"]);
    let rows: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    let row = rows.iter().find(|row| row["role"] == "supervisor").unwrap();
    assert_eq!(row["pid"], std::process::id());
    assert_eq!(row["start_ticks"], start_ticks(std::process::id()).unwrap());
    assert_eq!(row["state"], "live");
    assert!(row["rss_bytes"].as_u64().unwrap() > 0);
    drop(held);
}

#[test]
fn logs_are_told_to_the_byte_and_events_one_a_line() {
    let world = World::new();
    let batch = world.batch();
    let task = "lexer".parse().unwrap();
    let run = batch.dir.task(&task).join("attempts/1/runs/1");
    std::fs::create_dir_all(&run).unwrap();
    let printed = [b"a\xff\n".as_slice(), &[b'x'; 200_000], b"no newline"].concat();
    std::fs::write(run.join("stdout.log"), &printed).unwrap();
    let event = r#"{"v":1,"time_ms":1700000000000,"event":{"type":"progress","text":"half"}}"#;
    std::fs::write(run.join("events.jsonl"), format!("{event}\n{{\"v\":1,\"ti")).unwrap();
    let output = world.command(&["logs", "lexer"]).output().unwrap();
    assert!(output.stdout == printed, "{} bytes", output.stdout.len());
    let said = world.run(&["logs", "lexer@1", "--json"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 1, "an unfinished line is not an event");
    let event: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!(event["type"], "progress");
    assert_eq!(event["data"]["text"], "half");
    assert_eq!(event["time"], "2023-11-14T22:13:20.000Z");
    assert_eq!(
        (&event["task"], &event["attempt"]),
        (&"lexer".into(), &1.into())
    );
}

#[test]
fn doctor_tells_what_the_machine_has() {
    let world = World::new();
    let said = world.run(&["doctor", "--json"]);
    let checks: Vec<Value> = serde_json::from_str(&said.out).unwrap();
    let of = |name: &str| checks.iter().find(|check| check["check"] == name).unwrap();
    let memory = of("memory")["found"].as_str().unwrap();
    assert!(memory.contains("MiB free of"), "{memory}");
    assert_eq!(of("node")["state"], "ok", "{}", said.out);
}

#[test]
fn a_reader_that_goes_away_is_a_quiet_end() {
    let world = World::new();
    world.batch();
    let mut child = world
        .command(&["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let said = Said::from(child.wait_with_output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn a_state_dir_that_is_a_link_is_refused() {
    let world = World::new();
    let elsewhere = world.home.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir_all(world.home.path().join("state")).unwrap();
    let link: &Path = &world.home.path().join("state/supervisor");
    std::os::unix::fs::symlink(&elsewhere, link).unwrap();
    let mut command = world.command(&["run"]);
    command.env("SUPERVISOR_AGENT_HOST", env!("CARGO_BIN_EXE_supervisor"));
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, 8, "{}", said.err);
}
