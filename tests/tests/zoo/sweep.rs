//! A sample of the points at which a supervisor can be killed; `scripts/strace_sweep.sh` tries all.

use std::path::Path;

use supervisor_tests::sweep::{KINDS, Point, calls, can_trace, kill_at};

/// Points of each kind, spread over all of its calls.
const SAMPLE: usize = 3;
/// What a task of the batch is.
const TASK: &str = env!("CARGO_BIN_EXE_crash_story");

#[test]
fn a_batch_goes_on_rightly_wherever_its_supervisor_is_killed() {
    if let Err(why) = can_trace() {
        println!("skipped: {why}");
        return;
    }
    let task = Path::new(TASK);
    let mut wrong = Vec::new();
    for (kind, calls) in calls(task).into_iter().enumerate() {
        println!("{}: {calls} calls", KINDS[kind].0);
        assert!(
            calls > 0,
            "the supervisor makes no call of kind {}",
            KINDS[kind].0
        );
        for nth in 1..=SAMPLE {
            // The first, the middle, the last.
            let call = 1 + (calls - 1) * (nth - 1) / (SAMPLE - 1);
            wrong.extend(kill_at(Point { kind, call }, task));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
