//! How long one thing takes to lead to the next: a dependency's end to its dependent's start, and a
//! message to its receipt.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use super::{Row, count, floor, median, ms, run_batch, size};
use crate::clock::{timed, wall_ns};
use crate::world::World;

/// What one task recorded of itself, nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// First thing it did.
    pub started: i128,
    /// Last thing it did.
    pub ended: i128,
}

/// Plays a task: `bench stamp FILE NAME`.
///
/// # Errors
/// When the file can not be written.
pub fn stamp(file: &Path, name: &str) -> std::io::Result<()> {
    let started = wall_ns();
    let mut file = OpenOptions::new().append(true).create(true).open(file)?;
    let line = format!("{name} {started} {}\n", wall_ns());
    file.write_all(line.as_bytes())
}

/// What was stamped, by name.
fn named_stamps(file: &Path) -> BTreeMap<String, Stamp> {
    let text = std::fs::read_to_string(file).expect("the stamps can be read");
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, started, ended] = words[..] else {
            panic!("no task stamps `{line}`");
        };
        let number = |word: &str| word.parse().expect("a stamp is a number");
        let stamp = Stamp {
            started: number(started),
            ended: number(ended),
        };
        (name.to_owned(), stamp)
    });
    lines.collect()
}

/// What was stamped, in the order of names.
pub(super) fn stamps(file: &Path) -> Vec<Stamp> {
    named_stamps(file).into_values().collect()
}

/// A chain of tasks, each waiting for the one before.
pub fn dependency() -> Vec<Row> {
    let tasks = size("BENCH_CHAIN_TASKS", 200);
    let world = World::new();
    let program = std::env::current_exe().expect("a running program has a path");
    let file = world.path("stamps");
    let mut batch = "version: 1\nname: bench\nisolation: none\ntasks:\n".to_owned();
    for number in 0..tasks {
        let words = [program.as_path(), "stamp".as_ref(), &file].map(Path::display);
        let [program, verb, file] = words.map(|word| format!("{:?}", word.to_string()));
        batch.push_str(&format!(
            "  - id: t-{number:05}\n    run: [{program}, {verb}, {file}, t-{number:05}]\n"
        ));
        if let Some(before) = number.checked_sub(1) {
            batch.push_str(&format!("    depends_on: [t-{before:05}]\n"));
        }
    }
    world.write("batch.yml", &batch);
    run_batch(&world);
    let stamps = stamps(&file);
    assert_eq!(stamps.len(), tasks, "every task stamps once");
    let gaps = stamps.windows(2).map(|pair| {
        let gap = pair[1].started - pair[0].ended;
        ms(std::time::Duration::from_nanos(
            u64::try_from(gap).expect("order is kept"),
        ))
    });
    let gap = median(gaps.collect());
    let spawn = floor::spawn(&program, &world.path("run"));
    let sync = floor::fdatasync(&world.path("state"));
    let plain = |what: &str, value| Row::plain("latency", what.to_owned(), value, "ms");
    vec![
        plain("bare spawn to first instruction, median", spawn),
        plain("append and fdatasync, median", sync),
        plain("dependency's end to dependent's start, median", gap)
            .limited(10.0 * spawn + 4.0 * sync),
    ]
}

/// Messages to a scripted agent that waits for them.
pub fn steer() -> Vec<Row> {
    let messages = size("BENCH_STEER_MESSAGES", 50);
    let world = World::new();
    let waits = "        - wait_message: 10m\n".repeat(messages);
    world.write(
        "batch.yml",
        &format!(
            "version: 1\nname: bench\nisolation: none\nagents:\n  listener:\n    kind: scripted\n    \
             script:\n{waits}tasks:\n  - id: listen\n    agent: listener\n    prompt: listen\n"
        ),
    );
    let supervisor = world.start("run", &["run", "batch.yml"]);
    world.eventually("the agent waits", |world| {
        (count(world, "running") == Some(1)).then_some(())
    });
    let mut append = floor::Append::new(&world.path("state"));
    let mut cat = floor::Echo::start();
    let [mut starts, mut syncs, mut echoes, mut times] = [const { Vec::new() }; 4];
    let mut rungs = String::new();
    for number in 0..messages {
        // Each floor once before each message, so that both meet the same machine: one that does
        // the same thing over and over finds all of it in its caches and no processor asleep.
        starts.push(ms(timed(|| world.supervisor(&["--version"])).1));
        syncs.push(append.once());
        echoes.push(cat.once());
        let text = format!("message {number}");
        let args = [
            "steer",
            "listen",
            &text,
            "--wait",
            "seen",
            "--timeout",
            "30s",
        ];
        let (ran, length) = timed(|| world.supervisor(&args));
        rungs = ran.ok().stdout;
        times.push(ms(length));
    }
    cat.end();
    assert_eq!(
        supervisor.end(&world),
        Some(0),
        "the batch ends with its last message"
    );
    let [start, sync, echo] = [starts, syncs, echoes].map(median);
    let plain = |what: &str, value| Row::plain("steer", what.to_owned(), value, "ms");
    let ladder = ["queued", "sent", "injected", "seen"];
    let shown: Vec<&str> = rungs
        .split_whitespace()
        .filter(|word| ladder.contains(word))
        .collect();
    vec![
        plain("pipe echo, median", echo),
        plain("append and fdatasync, median", sync),
        plain("start of the command line, median", start),
        plain(
            &format!("steer --wait seen ({})", shown.join(", ")),
            median(times),
        )
        .limited(10.0 * echo + 3.0 * sync + start),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stamps");
        stamp(&file, "b").unwrap();
        stamp(&file, "a").unwrap();
        let stamps = stamps(&file);
        assert!(
            stamps[0].started >= stamps[1].ended,
            "sorted by name, not by time: {stamps:?}"
        );
    }
}
