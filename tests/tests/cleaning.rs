//! Clean-up, and that a kill at any moment of it loses nothing: of the command that removes worktrees
//! without a supervisor, of the one that removes build output, and of a restore.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use supervisor_tests::clock::pause;
use supervisor_tests::delivery::{history, row, untouched};
use supervisor_tests::world::{World, tool};

/// Tasks that fail and leave work, what a build made, and what nobody may lose.
const LITTER: &str = "#!/bin/sh
set -eu
echo \"work of $1\" > \"work-$1\" && git add . && git -c user.name=w -c user.email=w@localhost commit -qm half
echo dirty >> README && printf 'x\\0y' > binary && mkdir -p target/debug sub/node_modules/m empty
head -c 3000000 /dev/urandom > target/debug/program
echo module > sub/node_modules/m/index.js && echo secret > .env && echo mine > sub/mine
exit 1
";

fn littered(tasks: usize) -> World {
    let world = World::new();
    world.write(".gitignore", "target/\nnode_modules\n.env\n");
    world.write("litter.sh", LITTER);
    world.commit("what is littered");
    let mut text = "version: 1\nname: litter\ndefaults: {attempts: 1}\ntasks:\n".to_owned();
    for number in 0..tasks {
        text.push_str(&format!(
            "  - {{id: t{number}, run: 'sh ./litter.sh {number}'}}\n"
        ));
    }
    world.write("batch.yml", &text);
    world.supervisor(&["run"]).exits(1);
    world
}

fn worktree(world: &World, task: &str) -> Option<PathBuf> {
    row(world, task)["worktree"].as_str().map(PathBuf::from)
}

/// Each file below a folder with its content, but for the link to the repository and what `leave` says.
fn content(root: &Path, leave: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry of a folder").path();
            let name = path.file_name().expect("a name").as_bytes();
            if path == root.join(".git") || leave.iter().any(|one| one.as_bytes() == name) {
                continue;
            }
            let data = path.symlink_metadata().expect("an entry has data");
            let below = path.strip_prefix(root).expect("below the root").to_owned();
            if data.is_dir() {
                folders.push(path);
                found.insert(below, Vec::new());
            } else {
                found.insert(below, std::fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

const BUILT: [&str; 2] = ["target", "node_modules"];

fn refs_of(world: &World, task: &str) -> usize {
    let pattern = format!("refs/supervisor/salvage/*/{task}/*");
    world.git(&["for-each-ref", &pattern]).lines().count()
}

/// Nothing of the repository is half done: sound, no stale entry, no lock.
fn is_whole(world: &World) {
    let unsound = history::is_sound(world);
    assert!(unsound.is_empty(), "{unsound:?}");
    assert_eq!(
        world.git(&["worktree", "prune", "--dry-run", "--verbose"]),
        ""
    );
    let locks = untouched::locks(&world.repo().join(".git"));
    assert!(locks.is_empty(), "{locks:?}");
}

/// Kills the command after that time, and its processes are gone before this returns.
fn killed_after(world: &World, args: &[&str], milliseconds: u64) {
    let started = world.start("killed", args);
    pause(Duration::from_millis(milliseconds));
    started.kill();
    world.assert_nothing_left();
}

#[test]
fn build_output_is_told_and_goes_and_its_worktree_goes_on() {
    let world = littered(1);
    let folder = worktree(&world, "t0").expect("a worktree");
    let before = content(&folder, &BUILT);
    let told = world.supervisor(&["clean", "--build-output"]).ok();
    for words in [
        "target",
        "sub/node_modules",
        "build output of 1 worktrees",
        "`--yes`",
    ] {
        assert!(told.stdout.contains(words), "{words}: {}", told.stdout);
    }
    assert!(
        folder.join("target/debug/program").exists(),
        "a plan removes nothing"
    );

    let done = world
        .supervisor(&["clean", "--build-output", "--yes", "--json"])
        .ok();
    let done: Value = done.json();
    let one = &done[0]["going"][0];
    assert_eq!(done[0]["what"], "build_output", "{done}");
    assert_eq!(
        (&one["task"], &one["end"]["done"]),
        (&"t0".into(), &true.into())
    );
    assert!(one["bytes"].as_u64() >= Some(3_000_000), "{done}");
    assert_eq!(one["end"]["folders"], one["folders"], "{done}");
    assert_eq!(content(&folder, &BUILT), before);
    assert!(!folder.join("target").exists() && !folder.join("sub/node_modules").exists());
    assert_eq!(refs_of(&world, "t0"), 0);
    let again = world.supervisor(&["clean", "--build-output", "--yes"]).ok();
    assert!(
        again.stdout.contains("has no build output"),
        "{}",
        again.stdout
    );
    world.supervisor(&["verify"]).ok();
    is_whole(&world);
    world.assert_nothing_left();
}

/// A file system that is mounted in it is somebody's, whatever the folder's name is.
#[test]
fn build_output_with_a_mount_in_it_stays() {
    let world = littered(1);
    let folder = worktree(&world, "t0").expect("a worktree");
    let (inside, elsewhere) = (folder.join("target/mounted"), world.path("elsewhere"));
    std::fs::create_dir_all(&inside).expect("a folder to mount on");
    std::fs::create_dir_all(&elsewhere).expect("a folder to mount");
    std::fs::write(elsewhere.join("precious"), "x").expect("a file");
    let mut mount = tool("mount");
    mount.arg("--bind").args([&elsewhere, &inside]);
    if !mount.output().is_ok_and(|output| output.status.success()) {
        return;
    }
    let told = world.supervisor(&["clean", "--build-output", "--yes"]);
    let refused = world.supervisor(&["clean", "--yes"]);
    let umounted = tool("umount").arg(&inside).output();
    assert!(umounted.expect("umount starts").status.success());
    let told = told.ok().stdout;
    assert!(told.contains("another file system"), "{told}");
    let refused = refused.exits(1).stdout;
    assert!(refused.contains("is mounted at"), "{refused}");
    assert!(folder.join("target/debug/program").exists() && elsewhere.join("precious").exists());
    assert!(!folder.join("sub/node_modules").exists(), "{told}");
}

#[test]
fn only_worktrees_that_are_old_enough_go_and_scripts_are_told() {
    let world = littered(1);
    let young = world
        .supervisor(&["clean", "--older-than", "2h", "--yes", "--json"])
        .ok();
    let young: Value = young.json();
    assert_eq!(young[0]["going"], Value::Array(Vec::new()), "{young}");
    let why = young[0]["stays"][0]["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("ended "), "{young}");
    let plan: Value = world
        .supervisor(&["clean", "--older-than", "0s", "--json"])
        .ok()
        .json();
    assert_eq!(plan[0]["going"][0]["end"], Value::Null, "{plan}");
    assert!(worktree(&world, "t0").is_some());
    let args = ["clean", "--older-than", "0s", "--yes", "--json"];
    let done: Value = world.supervisor(&args).ok().json();
    let end = &done[0]["going"][0]["end"];
    assert_eq!(
        (&end["done"], &end["gone"]),
        (&true.into(), &true.into()),
        "{done}"
    );
    let commit = world.git(&["rev-parse", end["ref"].as_str().expect("a ref")]);
    assert_eq!(end["commit"], commit.trim_end());
}

#[test]
fn ignored_files_are_salvaged_as_the_batch_file_says() {
    for (rule, env, built) in [
        ("all", true, true),
        ("all_but_build_output", true, false),
        ("none", false, false),
    ] {
        let world = World::new();
        world.write(".gitignore", "target/\n.env\n");
        world.commit("rules");
        let text = format!(
            "version: 1\nname: rule\nworktrees: {{salvage_ignored: {rule}}}\ntasks:\n  - {{id: a, attempts: 1, \
             run: 'mkdir target; echo o > target/o; echo e > .env; echo w > work; exit 1'}}\n"
        );
        world.write("batch.yml", &text);
        world.supervisor(&["run"]).exits(1);
        world.supervisor(&["clean", "--yes"]).ok();
        let to = world.path("back");
        let to_text = to.display().to_string();
        world
            .supervisor(&["salvage", "restore", "a", "--to", &to_text])
            .ok();
        assert!(to.join("work").exists());
        let came = (to.join(".env").exists(), to.join("target/o").exists());
        assert_eq!(came, (env, built), "{rule}");
    }
}

/// The batch is paused; cleaning up one of its tasks changes nothing else of it.
#[test]
fn a_clean_up_without_a_supervisor_moves_nothing_else_and_leaves_a_pause() {
    let world = World::new();
    let text = "version: 1\nname: paused\nconcurrency: 1\ntasks:\n\
        \x20 - {id: fails, run: 'echo half > half; exit 1', attempts: 1}\n\
        \x20 - {id: works, run: 'echo whole > whole; sleep 600'}\n\
        \x20 - {id: later, run: 'echo later > later'}\n";
    world.write("batch.yml", text);
    let running = world.start("run", &["run", "--no-guardian"]);
    // Not only said to be running: a worktree that is half made when the kill comes is mended when
    // its task goes on, and nothing goes on here.
    world.eventually("the second task works", |world| {
        let ran = world.supervisor(&["status", "--json"]);
        let status: Value = serde_json::from_str(&ran.stdout).ok()?;
        let mut rows = status["tasks"].as_array()?.iter();
        let works = rows.find(|row| row["id"] == "works")?;
        let folder = Path::new(works["worktree"].as_str()?);
        folder.join("whole").exists().then_some(())
    });
    world.supervisor(&["pause"]).ok();
    running.kill();
    world.assert_nothing_left();
    world.supervisor(&["clean", "fails", "--yes"]).ok();
    assert_eq!(
        (worktree(&world, "fails"), refs_of(&world, "fails")),
        (None, 1)
    );
    assert_eq!(world.status()["batch"]["state"], "paused");
    assert_eq!(row(&world, "later")["state"], "ready");
    is_whole(&world);
    world.assert_nothing_left();
}

#[test]
fn a_clean_up_that_is_killed_anywhere_loses_nothing_and_is_finished_by_the_next() {
    let world = littered(3);
    let tasks = ["t0", "t1", "t2"];
    let before: Vec<_> = tasks
        .map(|task| {
            let folder = worktree(&world, task).expect("a worktree");
            let kept = content(&folder, &BUILT);
            (task, folder, kept)
        })
        .into();
    for moment in 0..14 {
        killed_after(&world, &["clean", "--yes"], 25 + moment * 35);
        for (task, folder, kept) in &before {
            let is_there = folder.is_dir() && content(folder, &BUILT) == *kept;
            assert!(
                is_there || refs_of(&world, task) > 0,
                "{task} after kill {moment}"
            );
        }
    }
    world.supervisor(&["clean", "--yes"]).ok();
    for (task, folder, kept) in &before {
        assert!(!folder.exists(), "{task}");
        let to = world.path(format!("back-{task}"));
        let to_text = to.display().to_string();
        world
            .supervisor(&["salvage", "restore", task, "--to", &to_text])
            .ok();
        assert_eq!(content(&to, &[]), *kept, "{task}");
    }
    world.supervisor(&["verify"]).ok();
    is_whole(&world);
    world.assert_nothing_left();
}

#[test]
fn a_removal_of_build_output_that_is_killed_anywhere_is_finished_by_the_next() {
    let world = littered(2);
    let folders = ["t0", "t1"].map(|task| worktree(&world, task).expect("a worktree"));
    let before = folders.each_ref().map(|folder| content(folder, &BUILT));
    for moment in 0..8 {
        killed_after(
            &world,
            &["clean", "--build-output", "--yes"],
            20 + moment * 45,
        );
        for (folder, before) in folders.iter().zip(&before) {
            assert_eq!(content(folder, &BUILT), *before, "after kill {moment}");
            let program = folder.join("target/debug/program");
            let is_whole = std::fs::metadata(&program).is_ok_and(|data| data.len() == 3_000_000);
            assert!(is_whole || !folder.join("target").exists(), "no half of it");
        }
    }
    world.supervisor(&["clean", "--build-output", "--yes"]).ok();
    for (folder, before) in folders.iter().zip(&before) {
        assert_eq!(content(folder, &[]), *before);
        let beside = folder.parent().expect("a parent");
        assert!(!beside.join(".worktree.supervisor-build-output").exists());
    }
    is_whole(&world);
}

#[test]
fn a_restore_that_is_killed_anywhere_is_whole_or_not_there_and_is_done_by_the_next() {
    let world = littered(1);
    let folder = worktree(&world, "t0").expect("a worktree");
    let kept = content(&folder, &BUILT);
    world.supervisor(&["clean", "--yes"]).ok();
    let to = world.path("back");
    let to_text = to.display().to_string();
    let restore = ["salvage", "restore", "t0", "--to", &to_text];
    for moment in 0..12 {
        killed_after(&world, &restore, 5 + moment * 6);
        if to.exists() {
            assert_eq!(content(&to, &[]), kept, "after kill {moment}");
            std::fs::remove_dir_all(&to).expect("it goes");
        }
    }
    world.supervisor(&restore).ok();
    assert_eq!(content(&to, &[]), kept);
    assert!(!world.path(".back.supervisor-restore").exists());
    is_whole(&world);
}
