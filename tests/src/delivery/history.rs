//! What must hold of the batch branch and of the repository around it, read with `git` alone.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::batch::TASKS;
use super::untouched::locks;
use crate::world::World;

/// One merge commit of the batch branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Its name.
    pub commit: String,
    /// The task whose file in `done/` it brought.
    pub task: String,
    /// What it merged: its second parent.
    pub work: String,
}

/// The merges from this commit to the tip of the branch, oldest first, and what is wrong with them.
pub fn merges(world: &World, base: &str, branch: &str) -> (Vec<Merged>, Vec<String>) {
    let range = format!("{base}..{branch}");
    let told = world.git(&[
        "log",
        "--first-parent",
        "--reverse",
        "--format=%H %P",
        &range,
    ]);
    let mut merges = Vec::new();
    let mut wrong = Vec::new();
    for line in told.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [commit, tip, work] = words.as_slice() else {
            wrong.push(format!("`{line}` is no merge of two"));
            continue;
        };
        let args = ["diff", "--name-only", "--diff-filter=A", tip, commit];
        let added = world.git(&[&args[..], &["--", "done"]].concat());
        let tasks: Vec<&str> = added.lines().filter_map(task_of).collect();
        match tasks.as_slice() {
            [task] => merges.push(Merged {
                commit: (*commit).to_owned(),
                task: (*task).to_owned(),
                work: (*work).to_owned(),
            }),
            other => wrong.push(format!("{commit} brings the work of {other:?}")),
        }
    }
    (merges, wrong)
}

fn task_of(path: &str) -> Option<&str> {
    path.strip_prefix("done/")?.strip_suffix(".txt")
}

/// All twenty, each once, each after what it needs, each merge of the very commit that its task made,
/// whose own content is in the final tree.
pub fn is_whole(world: &World, base: &str, branch: &str) -> Vec<String> {
    let (merges, mut wrong) = merges(world, base, branch);
    let mut at: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, merged) in merges.iter().enumerate() {
        if at.insert(&merged.task, place).is_some() {
            wrong.push(format!("{} is merged twice", merged.task));
        }
        let spec = format!("{}:done/{}.txt", merged.work, merged.task);
        let own = world.shell(&format!("git show '{spec}'"));
        if own.stdout.trim_end() != merged.task {
            wrong.push(format!(
                "{} merges what {} did not make",
                merged.commit, merged.task
            ));
        }
    }
    for task in TASKS {
        let Some(place) = at.get(task.id) else {
            wrong.push(format!("the work of {} is not in {branch}", task.id));
            continue;
        };
        for need in task.needs {
            if at.get(need).is_none_or(|before| before >= place) {
                wrong.push(format!("{} is merged before {need}", task.id));
            }
        }
    }
    let known: BTreeSet<&str> = TASKS.iter().map(|task| task.id).collect();
    for merged in merges.iter().filter(|it| !known.contains(it.task.as_str())) {
        wrong.push(format!("{} is no task", merged.task));
    }
    wrong.extend(content(world, branch));
    wrong
}

/// What the tasks changed beside their own files, as the final tree must have it.
fn content(world: &World, branch: &str) -> Vec<String> {
    let show = |path: &str| world.shell(&format!("git show '{branch}:{path}'")).stdout;
    let mut wrong = Vec::new();
    let mut expect = |what: &str, is: bool| {
        if !is {
            wrong.push(format!("{branch} is without {what}"));
        }
    };
    let shared = show("src/shared.txt");
    for number in 1..=5 {
        let line = format!("line {} by shared-{number}", number * 100 - 50);
        let lines = shared.lines().filter(|found| **found == line);
        expect(&line, lines.count() == 1);
    }
    expect(
        "both sides of the pair",
        show("src/pair.txt") == "left\nright\n",
    );
    expect("both ways", show("src/compass.txt") == "east\nwest\n");
    expect(
        "what a dependency saved",
        show("docs.txt") == "{\"api\": 1}\n",
    );
    expect("the new name", !show("src/new-name.txt").is_empty());
    let modes = world.git(&["ls-tree", "-r", branch]);
    let has = |mode: &str, path: &str| {
        let mut lines = modes.lines();
        lines.any(|line| line.starts_with(mode) && line.ends_with(&format!("\t{path}")))
    };
    expect("the executable", has("100755", "tool"));
    expect("the symlink", has("120000", "latest"));
    expect("the submodule", has("160000", "vendor"));
    expect("the removal", !has("100644", "src/doomed.txt"));
    expect("the old name gone", !has("100644", "src/old-name.txt"));
    expect("the ignored file", !modes.contains("half.log"));
    wrong
}

/// The name of the tree that the branch holds.
pub fn tree(world: &World, branch: &str) -> String {
    let spec = format!("{branch}^{{tree}}");
    world.git(&["rev-parse", &spec]).trim_end().to_owned()
}

/// The check in the repository passes on each merge, in a clone that nobody else uses.
pub fn proven_again(world: &World, base: &str, branch: &str) -> Vec<String> {
    let (merges, mut wrong) = merges(world, base, branch);
    let clone = world.path("clone");
    let (from, to) = (world.repo(), clone.display());
    let line = format!(
        "git -c protocol.file.allow=always clone --quiet --recurse-submodules '{}' '{to}'",
        from.display()
    );
    world.shell(&line).ok();
    for merged in &merges {
        let commit = &merged.commit;
        let line = format!("cd '{to}' && git checkout --quiet --detach {commit} && ./check");
        let ran = world.shell(&line);
        if ran.code != Some(0) {
            wrong.push(format!("{commit} ({}): {}", merged.task, ran.stderr));
        }
    }
    std::fs::remove_dir_all(&clone).expect("the clone can go");
    wrong
}

/// Nothing is broken, locked or half made in the repository.
pub fn is_sound(world: &World) -> Vec<String> {
    let mut wrong = locks(&world.repo().join(".git"));
    let ran = world.shell("git fsck --strict --no-dangling --no-progress 2>&1");
    if ran.code != Some(0) || !ran.stdout.trim().is_empty() {
        wrong.push(format!("git fsck: {:?}: {}", ran.code, ran.stdout));
    }
    let ran = world.shell("git worktree prune --dry-run --verbose --expire=now 2>&1");
    if !ran.stdout.trim().is_empty() {
        wrong.push(format!("half a worktree: {}", ran.stdout));
    }
    for folder in worktrees(world).into_iter().skip(1) {
        let line = format!("cd '{folder}' && git status --porcelain");
        let ran = world.shell(&line);
        if ran.code != Some(0) {
            wrong.push(format!("{folder} is no worktree: {}", ran.stderr));
        }
    }
    wrong
}

/// The folders of `git worktree list`, the operator's own first.
pub fn worktrees(world: &World) -> Vec<String> {
    let told = world.git(&["worktree", "list", "--porcelain"]);
    let folders = told
        .lines()
        .filter_map(|line| line.strip_prefix("worktree "));
    folders.map(str::to_owned).collect()
}

/// Folders of worktrees that no `git worktree list` knows, below the batch's own folder.
///
/// # Panics
/// When that can not be read.
pub fn strays(world: &World) -> Vec<String> {
    let known: BTreeSet<String> = worktrees(world).into_iter().collect();
    let mut found = Vec::new();
    let tasks = world.batch_dir().map(|dir| dir.join("tasks"));
    let entries = tasks.and_then(|tasks| std::fs::read_dir(tasks).ok());
    for entry in entries.into_iter().flatten() {
        let folder = entry.expect("an entry of a folder").path().join("worktree");
        if is_dir(&folder) && !known.contains(&folder.display().to_string()) {
            found.push(format!(
                "{} is no worktree of the repository",
                folder.display()
            ));
        }
    }
    found
}

fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|data| data.is_dir())
}
