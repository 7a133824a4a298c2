//! `integrate` with the real programs: the work of a batch goes into the operator's branch, or
//! nothing of the operator's changes.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use supervisor_tests::world::{Ran, World};

const BATCH: &str = r#"version: 1
name: deliver
base: main
concurrency: 1
tasks:
  - {id: alpha, run: "echo alpha > alpha"}
  - {id: beta, run: "echo beta >> README", depends_on: [alpha]}
"#;

/// A world whose batch is done: two tasks, merged into its batch branch.
fn delivered() -> World {
    let world = World::new();
    world.write("batch.yml", BATCH);
    world.git(&["config", "user.name", "Olga"]);
    world.git(&["config", "user.email", "olga@example.org"]);
    world.commit("the batch file");
    world.supervisor(&["run"]).ok();
    world
}

fn at(world: &World, reference: &str) -> String {
    world.git(&["rev-parse", reference]).trim().to_owned()
}

fn batch_branch(world: &World) -> String {
    let refs = world.git(&["for-each-ref", "--format=%(refname)", "refs/heads/batch"]);
    refs.trim().to_owned()
}

/// What belongs to the operator: refs, `HEAD`, index and every file of the working tree.
fn operators(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![world.repo()];
    let git = world.repo().join(".git");
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path == git {
                continue;
            }
            match fs::symlink_metadata(&path).unwrap().is_dir() {
                true => waiting.push(path),
                false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
            }
        }
    }
    for name in ["HEAD", "index"] {
        found.insert(git.join(name), fs::read(git.join(name)).unwrap());
    }
    let refs = world.git(&["for-each-ref"]);
    found.insert(git.join("refs"), refs.into_bytes());
    found
}

#[track_caller]
fn refused(world: &World, args: &[&str], code: i32) -> String {
    let before = operators(world);
    let ran = world.supervisor(args).exits(code);
    assert_eq!(operators(world), before, "{args:?} changed something");
    ran.stderr
}

#[track_caller]
fn shows(ran: &Ran, lines: &[&str]) {
    for line in lines {
        assert!(ran.stdout.contains(line), "no `{line}` in:\n{}", ran.stdout);
    }
}

#[test]
fn the_work_of_a_batch_goes_into_the_operators_branch() {
    let world = delivered();
    let before = operators(&world);
    let plan = world.supervisor(&["integrate", "--dry-run"]).ok();
    shows(
        &plan,
        &[
            "into main (",
            "    README\n    alpha\n",
            "by a fast-forward of main; a fast-forward is possible",
            "main is checked out in",
            "nothing was done",
        ],
    );
    assert_eq!(operators(&world), before, "it was only to be said");
    let unasked = refused(&world, &["integrate"], 8);
    assert!(unasked.contains("say `--yes`"), "{unasked}");
    let done = world.supervisor(&["integrate", "--yes"]).ok();
    let tip = at(&world, &batch_branch(&world));
    shows(&done, &[&format!("main is at {} now", &tip[..12])]);
    assert_eq!(at(&world, "main"), tip);
    assert_eq!(world.read("alpha"), "alpha\n");
    assert_eq!(
        world.git(&["status", "--porcelain", "--untracked-files=no"]),
        ""
    );
    for command in ["status", "explain"] {
        let told = world.supervisor(&[command]).ok();
        shows(
            &told,
            &[&format!(
                "integrated: {} into main by a fast-forward",
                &tip[..12]
            )],
        );
    }
    let again = world.supervisor(&["integrate", "--yes"]).ok();
    shows(&again, &["main holds it already: nothing to do"]);
    let notes = world.batch_dir().unwrap().join("integrated.jsonl");
    assert_eq!(fs::read_to_string(notes).unwrap().lines().count(), 1);
    let left = fs::read_dir(world.batch_dir().unwrap()).unwrap().flatten();
    let mut left = left.map(|entry| entry.file_name().into_string().unwrap());
    assert!(!left.any(|name| name.starts_with("scratch-")));
    world.assert_nothing_left();
}

#[test]
fn a_branch_with_commits_of_its_own_gets_a_merge_commit_that_names_the_tasks() {
    let world = delivered();
    world.write("own", "the operator's\n");
    world.commit("own");
    let (into, from) = (at(&world, "main"), at(&world, &batch_branch(&world)));
    let straight = refused(&world, &["integrate", "--ff", "--yes"], 8);
    assert!(
        straight.contains("main has commits of its own"),
        "{straight}"
    );
    world.supervisor(&["integrate", "--yes"]).ok();
    let parents = world.git(&["log", "-1", "--format=%P", "main"]);
    assert_eq!(parents.trim(), format!("{into} {from}"));
    let message = world.git(&["log", "-1", "--format=%an: %B", "main"]);
    assert!(
        message.starts_with("Olga: Merge batch/deliver-"),
        "{message}"
    );
    assert!(message.contains("\n- alpha\n- beta\n"), "{message}");
    world.git(&["fsck", "--strict"]);
}

#[test]
fn a_conflict_exits_with_8_and_leaves_the_branch_untouched() {
    let world = delivered();
    world.write("README", "the operator's own words\n");
    world.commit("own");
    for args in [
        &["integrate", "--yes"][..],
        &["integrate", "--merge", "--yes"],
        &["integrate", "--dry-run"],
    ] {
        let told = refused(&world, args, 8);
        assert!(told.contains("conflicts with main in README"), "{told}");
        assert!(told.contains("are as they were"), "{told}");
    }
}

#[test]
fn uncommitted_changes_refuse_it_and_another_branch_is_a_way_out() {
    let world = delivered();
    world.write("README", "work under way\n");
    let told = refused(&world, &["integrate", "--yes"], 8);
    assert!(told.contains("has uncommitted changes: README"), "{told}");
    assert!(told.contains("--into"), "{told}");
    let missing = refused(&world, &["integrate", "--into", "next", "--yes"], 6);
    assert!(missing.contains("no branch next"), "{missing}");
    world.git(&["branch", "next"]);
    let before = operators(&world);
    world
        .supervisor(&["integrate", "--into", "next", "--yes"])
        .ok();
    assert_eq!(at(&world, "next"), at(&world, &batch_branch(&world)));
    let mut after = operators(&world);
    let refs = world.repo().join(".git/refs");
    after.insert(refs.clone(), before[&refs].clone());
    assert_eq!(after, before, "nothing but the named branch moved");
}

#[test]
fn what_can_not_be_meant_is_said() {
    let world = delivered();
    let branch = batch_branch(&world);
    for (args, code, said) in [
        (&["integrate", "nowhere"][..], 6, "nowhere"),
        (&["integrate", "alpha"], 6, "a task alone is not integrated"),
        (
            &["integrate", "--repo", "web"],
            6,
            "no repository is called `web`",
        ),
        (
            &["integrate", "--into", &branch],
            2,
            "is the batch branch itself",
        ),
        (
            &["integrate", "--into", "refs/tags/v1"],
            2,
            "is not the name of a branch",
        ),
        (&["integrate", "--ff", "--merge"], 2, "cannot be used with"),
    ] {
        let told = refused(&world, args, code);
        assert!(told.contains(said), "{args:?}: {told}");
    }
}

#[test]
fn a_batch_without_worktrees_has_nothing_to_integrate() {
    let world = World::new();
    world.write(
        "batch.yml",
        "version: 1\nname: plain\nisolation: none\ntasks: [{id: a, run: \"true\"}]\n",
    );
    world.supervisor(&["run"]).ok();
    let told = refused(&world, &["integrate", "--yes"], 8);
    assert!(told.contains("there is no batch branch"), "{told}");
}

#[test]
fn what_is_not_merged_yet_is_named_and_left_out_only_on_request() {
    let world = World::new();
    world.write(
        "batch.yml",
        r#"version: 1
name: parted
base: main
concurrency: 1
merge: {on_conflict: park}
tasks:
  - {id: one, run: "echo one > README"}
  - {id: two, run: "echo two > README"}
"#,
    );
    world.commit("the batch file");
    let ran = world.supervisor(&["run"]);
    assert_ne!(ran.code, Some(0), "one of the two waits for a person");
    let told = refused(&world, &["integrate", "--yes"], 8);
    assert!(told.contains("is merged yet: two (parked)"), "{told}");
    assert!(told.contains("--partial"), "{told}");
    let done = world.supervisor(&["integrate", "--yes", "--partial"]).ok();
    shows(&done, &["not in it: two (parked)"]);
    assert_eq!(world.read("README"), "one\n");
}

/// Puts a `gh` of ours before everything else.
fn with_gh(world: &World, script: &str) -> String {
    let bin = world.path("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("gh"), format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(bin.join("gh"), Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

fn integrate_with(world: &World, path: &str, args: &[&str]) -> Ran {
    let mut command = world.command(args);
    let output = command.env("PATH", path).output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_pull_request_is_opened_with_what_the_batch_did() {
    let world = delivered();
    let path = with_gh(
        &world,
        "printf '%s\\n' \"$@\" > \"$(dirname \"$0\")/args\"; echo https://host.example/pull/7",
    );
    let args = ["integrate", "--pr", "--yes"];
    let told = integrate_with(&world, &path, &args).exits(8).stderr;
    assert!(told.contains("has no remote `origin`"), "{told}");
    let remote = world.path("remote.git");
    world.git(&["init", "-q", "--bare", remote.to_str().unwrap()]);
    world.git(&["remote", "add", "origin", remote.to_str().unwrap()]);
    world.git(&["push", "-q", "origin", "main"]);
    let before = at(&world, "main");
    let done = integrate_with(&world, &path, &args).ok();
    shows(
        &done,
        &[
            "by a pull request for main at origin",
            "https://host.example/pull/7",
        ],
    );
    assert_eq!(at(&world, "main"), before);
    let branch = batch_branch(&world);
    let pushed = world.git(&["ls-remote", "origin", &branch]);
    assert!(pushed.starts_with(&at(&world, &branch)), "{pushed}");
    let given = fs::read_to_string(world.path("bin/args")).unwrap();
    let (head, body) = given.split_once("--body\n").unwrap();
    assert!(head.contains("--title\ndeliver: 2 tasks\n"), "{head}");
    for task in ["alpha", "beta"] {
        assert!(
            body.contains(&format!("| {task} | done | merged ")),
            "{body}"
        );
    }
}

#[test]
fn an_interrupted_integration_leaves_no_process_and_no_lock() {
    let world = delivered();
    world.write("own", "the operator's\n");
    world.commit("own");
    let hook = world.repo().join(".git/hooks/pre-merge-commit");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let began = world.path("began");
    let script = format!(
        "#!/bin/sh\ntrap '' TERM\nsetsid sleep 1000 &\necho > {}\nwhile :; do sleep 1; done\n",
        began.display()
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, Permissions::from_mode(0o755)).unwrap();
    let started = world.start("integrate", &["integrate", "--yes"]);
    world.eventually("the hook runs", |_| began.exists().then_some(()));
    let before = at(&world, "main");
    started.signal(Signal::SIGINT);
    assert_eq!(started.end(&world), Some(5));
    world.assert_nothing_left();
    assert!(world.printed("integrate").contains("was interrupted"));
    assert_eq!(at(&world, "main"), before);
    assert!(!world.repo().join(".git/index.lock").exists());
    fs::remove_file(&hook).unwrap();
    let told = world.supervisor(&["integrate", "--yes"]).exits(8).stderr;
    assert!(told.contains("has uncommitted changes"), "{told}");
    world.git(&["reset", "-q", "--merge"]);
    world.supervisor(&["integrate", "--yes"]).ok();
}

#[test]
fn a_person_is_asked_and_may_say_no() {
    let world = delivered();
    let before = operators(&world);
    for (answer, moves) in [("n\n", false), ("\n", false), ("y\n", true)] {
        let (code, told) = answer_at_a_terminal(&world, &["integrate"], answer);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("do it? [y/N]"), "{told}");
        assert_eq!(operators(&world) != before, moves, "{answer:?}: {told}");
    }
}

/// Runs a command at a terminal of its own, and answers its question.
fn answer_at_a_terminal(world: &World, args: &[&str], answer: &str) -> (Option<i32>, String) {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = world.command(args);
    command
        .stdin(terminal.slave.try_clone().unwrap())
        .stdout(terminal.slave.try_clone().unwrap())
        .stderr(terminal.slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut master = File::from(terminal.master);
    master.write_all(answer.as_bytes()).unwrap();
    let mut told = Vec::new();
    let mut piece = [0; 4096];
    // The other end is gone: Linux says so by an error.
    while let Ok(count @ 1..) = master.read(&mut piece) {
        told.extend_from_slice(&piece[..count]);
    }
    let code = child.wait().unwrap().code();
    (code, String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn one_repository_of_several_is_named() {
    let world = World::new();
    for name in ["web", "api"] {
        let folder = world.path(name);
        fs::create_dir(&folder).unwrap();
        in_folder(&world, &folder, &["init", "-q", "-b", "main"]);
        fs::write(folder.join("file"), "one\n").unwrap();
        in_folder(&world, &folder, &["add", "file"]);
        in_folder(&world, &folder, &["commit", "-q", "-m", "first"]);
    }
    world.write(
        "batch.yml",
        r#"version: 1
name: both
repos: {web: {path: ../web, base: main}, api: {path: ../api, base: main}}
tasks:
  - {id: w, repo: web, run: "echo w > w"}
  - {id: a, repo: api, run: "echo a > a"}
"#,
    );
    world.supervisor(&["run"]).ok();
    let told = world.supervisor(&["integrate", "--yes"]).exits(7).stderr;
    assert!(told.contains("web") && told.contains("api"), "{told}");
    world
        .supervisor(&["integrate", "--repo", "web", "--yes"])
        .ok();
    assert!(world.path("web/w").exists() && !world.path("api/a").exists());
}

fn in_folder(world: &World, folder: &Path, args: &[&str]) {
    let folder = folder.to_str().unwrap();
    world.git(&[&["-C", folder], args].concat());
}
