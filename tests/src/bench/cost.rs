//! CPU and bytes per task, and how they grow with the batch; the cost of a status.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use serde_json::Value;

use super::measure::{Used, file_in, used};
use super::{CONCURRENCY, Row, floor, median, ms, run_batch, size, write_batch};
use crate::clock::timed;
use crate::world::World;

/// CPU per task against the bare chain (2x is the goal).
const CPU_RATIO_MAX: f64 = 2.5;
/// CPU and bytes per task of a large batch against those of a small one.
const FLAT_RATIO_MAX: f64 = 1.3;
/// `status` against reading and parsing the checkpoint.
const STATUS_RATIO_MAX: f64 = 3.0;

/// CPU per trivial task of the whole tree against a bare two-process chain.
pub fn cpu() -> Vec<Row> {
    let tasks = size("BENCH_CPU_TASKS", 1000);
    let repeats = size("BENCH_REPEATS", 3);
    let mut floors = Vec::new();
    let mut ours = Vec::new();
    // Deleted last: for minutes after a mass of files was deleted, some file systems search longer
    // for every new one.
    let mut worlds = Vec::new();
    // Side by side, so that a busy minute meets both.
    for _ in 0..repeats {
        let world = World::new();
        floors.push(per_task(
            floor::chain(&world.path("run"), tasks, CONCURRENCY),
            tasks,
        ));
        ours.push(per_task(trivial(&world, tasks), tasks));
        worlds.push(world);
    }
    drop(worlds);
    let (floor, ours) = (median(floors), median(ours));
    let plain = |what: &str, value| Row::plain("cpu", what.to_owned(), value, "ms");
    vec![
        plain("CPU per task, bare chain of two processes", floor),
        plain("CPU per task, whole tree", ours),
        Row::plain("cpu", format!("ratio at {tasks} tasks"), ours / floor, "x")
            .limited(CPU_RATIO_MAX),
    ]
}

/// Runs a batch of trivial tasks in a world and says what it used.
fn trivial(world: &World, tasks: usize) -> Used {
    write_batch(world, tasks, CONCURRENCY, "[\"true\"]", "");
    used(|| run_batch(world)).1
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of tasks and bytes are far below 2^52"
)]
fn per_task(used: Used, tasks: usize) -> f64 {
    ms(used.cpu) / tasks as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of tasks and bytes are far below 2^52"
)]
fn share(bytes: u64, tasks: usize) -> f64 {
    bytes as f64 / tasks as f64
}

/// CPU and bytes per task at two large sizes against a small one.
pub fn flat() -> Vec<Row> {
    let small = size("BENCH_FLAT_SMALL", 1000);
    let large = [
        size("BENCH_FLAT_MIDDLE", 10_000),
        size("BENCH_FLAT_LARGE", 50_000),
    ];
    let mut worlds = Vec::new();
    let mut costs = |tasks| {
        worlds.push(World::new());
        costs(&worlds[worlds.len() - 1], tasks)
    };
    let base = costs(small);
    let mut rows = shown(small, base);
    for tasks in large {
        let costs = costs(tasks);
        rows.extend(shown(tasks, costs));
        for ((name, cost), (_, base)) in named(costs).into_iter().zip(named(base)) {
            let what = format!("{name} per task at {tasks} against {small}");
            rows.push(Row::plain("flat", what, cost / base, "x").limited(FLAT_RATIO_MAX));
        }
    }
    rows
}

/// CPU milliseconds, bytes asked to be written and bytes sent to the disk, per task.
type Costs = [f64; 3];

fn costs(world: &World, tasks: usize) -> Costs {
    // Blocks that somebody deleted and that wait to be written anyway would count for nothing, and
    // only the first batch would find them.
    rustix::fs::sync();
    let used = trivial(world, tasks);
    [
        per_task(used, tasks),
        share(used.asked, tasks),
        share(used.written, tasks),
    ]
}

fn named(costs: Costs) -> [(&'static str, f64); 3] {
    let [cpu, asked, written] = costs;
    [
        ("CPU", cpu),
        ("bytes written (calls)", asked),
        ("bytes written (disk)", written),
    ]
}

fn shown(tasks: usize, costs: Costs) -> Vec<Row> {
    let [cpu, asked, written] = costs;
    vec![
        Row::plain("flat", format!("CPU per task of {tasks}"), cpu, "ms"),
        Row::plain(
            "flat",
            format!("bytes written per task of {tasks} (calls)"),
            asked,
            "B",
        ),
        Row::plain(
            "flat",
            format!("bytes written per task of {tasks} (disk)"),
            written,
            "B",
        ),
    ]
}

/// `status` of a large batch against reading and parsing its checkpoint.
pub fn status() -> Vec<Row> {
    let tasks = size("BENCH_STATUS_TASKS", 10_000);
    let times = size("BENCH_STATUS_TIMES", 11);
    let world = World::new();
    trivial(&world, tasks);
    let checkpoint = file_in(world.batch_dir(), "checkpoint.json");
    let mut parses = Vec::new();
    let mut looks = Vec::new();
    for _ in 0..times {
        let ((), parse) = timed(|| {
            let text = std::fs::read(&checkpoint).expect("the checkpoint can be read");
            let value: Value = serde_json::from_slice(&text).expect("the checkpoint is JSON");
            assert!(value.is_object(), "a checkpoint is an object");
        });
        let (ran, look) = timed(|| world.supervisor(&["status", "--json"]));
        assert_eq!(
            ran.ok().json()["tasks"].as_array().map(Vec::len),
            Some(tasks)
        );
        parses.push(ms(parse));
        looks.push(ms(look));
    }
    let (parse, look) = (median(parses), median(looks));
    vec![
        Row::plain(
            "status",
            format!("read and parse the checkpoint of {tasks}"),
            parse,
            "ms",
        ),
        Row::plain(
            "status",
            format!("supervisor status --json of {tasks}"),
            look,
            "ms",
        ),
        Row::plain("status", "ratio".to_owned(), look / parse, "x").limited(STATUS_RATIO_MAX),
    ]
}
