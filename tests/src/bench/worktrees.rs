//! What worktrees cost: a batch whose tasks do nothing, against `git worktree add` for as many.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::ops::Range;
use std::path::Path;

use super::{Row, ms, run_batch, size};
use crate::clock::timed;
use crate::delivery::history::worktrees;
use crate::world::World;

/// A batch of worktrees takes at most so much of the time that `git worktree add` alone takes for them.
const RATIO_MAX: f64 = 1.3;
/// Files in a folder of the repository.
const FOLDER_FILES: usize = 50;

/// Worktrees of a repository of many files, provisioned by a batch. One half of the floor is measured
/// before it and one half after, in the same repository, and nothing is deleted meanwhile: files get
/// dearer for a file system that is filled, and still more for one that just lost many.
///
/// # Panics
/// When git or the batch fails.
pub fn provisioned() -> Vec<Row> {
    let count = size("BENCH_WORKTREES", 100);
    let files = size("BENCH_WORKTREE_FILES", 5_000);
    let world = repository(files);
    let before = bare(&world, 0..count / 2);
    let (batch, bytes) = batch(&world, count);
    let floor = before + bare(&world, count / 2..count);
    let row = |what: String, value, unit| Row::plain("worktrees", what, value, unit);
    let of = format!("{count} worktrees of {files} files");
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    let mib = bytes as f64 / f64::from(1 << 20);
    vec![
        row(format!("{of} by `git worktree add`"), floor, "ms"),
        row(format!("{of} by a batch"), batch, "ms"),
        row("ratio".to_owned(), batch / floor, "x").limited(RATIO_MAX),
        row(format!("disk that {of} use"), mib, "MiB"),
    ]
}

fn repository(files: usize) -> World {
    let world = World::new();
    for number in 0..files {
        let folder = number / FOLDER_FILES;
        let text = format!("file {number} of {files}\n").repeat(1 + number % 90);
        world.write(&format!("src/m{folder:03}/f{number:05}.txt"), &text);
    }
    world.commit("many files");
    world
}

/// Milliseconds of one after the other, as an operator's loop would make them.
fn bare(world: &World, numbers: Range<usize>) -> f64 {
    let Range { start, end } = numbers;
    let line = format!(
        "n={start}; while [ $n -lt {end} ]; do git worktree add -q -b w-$n ../worktrees/$n || exit 1; \
         n=$((n + 1)); done"
    );
    let (_, length) = timed(|| world.shell(&line).ok());
    ms(length)
}

/// Milliseconds of the whole batch (worktree, host and command of each task, and all of its records),
/// and the bytes of its worktrees.
fn batch(world: &World, count: usize) -> (f64, u64) {
    let items: String = (0..count).map(|number| format!("{number}\n")).collect();
    world.write("items.txt", &items);
    world.write(
        "batch.yml",
        "version: 1\nname: bench\nconcurrency: 4\nworktrees: {keep: all}\ntasks:\n\
         \x20 - id: \"t-{{ item }}\"\n    foreach: {file: items.txt}\n    run: [\"true\"]\n",
    );
    let there = worktrees(world);
    let (_, length) = timed(|| run_batch(world));
    let mut made = worktrees(world);
    made.retain(|folder| !there.contains(folder));
    assert!(made.len() >= count, "{} worktrees", made.len());
    let bytes = made.iter().map(|folder| disk_use(Path::new(folder)));
    (ms(length), bytes.sum())
}

/// Bytes of the blocks below a folder.
fn disk_use(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry of a folder").path();
        let data = path.symlink_metadata().expect("an entry has data");
        sum += data.blocks() * 512;
        if data.is_dir() {
            sum += disk_use(&path);
        }
    }
    sum
}
