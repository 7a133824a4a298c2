//! How long a killed supervisor's batch takes to be finished when one task is left.

use super::idle::until;
use super::{CONCURRENCY, Row, count, ms, run_batch, size, write_batch};
use crate::clock::timed;
use crate::world::World;

/// Five times the tasks, at most six times the time.
const RESUME_RATIO_MAX: f64 = 6.0;

/// Resume with one task left, of a large batch and of a small one.
pub fn one_left() -> Vec<Row> {
    let small = size("BENCH_RESUME_SMALL", 10_000);
    let large = size("BENCH_RESUME_LARGE", 50_000);
    let (short, long) = (resume(small), resume(large));
    let row = |what, value, unit| Row::plain("resume", what, value, unit);
    vec![
        row(format!("one task left of {small}"), short, "ms"),
        row(format!("one task left of {large}"), long, "ms"),
        row("ratio".to_owned(), long / short, "x").limited(RESUME_RATIO_MAX),
    ]
}

/// Milliseconds from `supervisor run` to its end.
fn resume(tasks: usize) -> f64 {
    let world = World::new();
    // It takes a lane from the start and holds it until the file is there.
    let last = "  - id: last\n    priority: 1000\n    \
                run: \"while ! test -e go; do sleep 0.1; done\"\n";
    write_batch(
        &world,
        tasks.saturating_sub(1),
        CONCURRENCY,
        "[\"true\"]",
        last,
    );
    let supervisor = world.start("run", &["run", "--no-guardian", "batch.yml"]);
    until(&world, "one task is left", |world| {
        count(world, "done") == Some(tasks - 1)
    });
    supervisor.kill();
    world.assert_nothing_left();
    world.write("go", "");
    let (_, length) = timed(|| run_batch(&world));
    ms(length)
}
