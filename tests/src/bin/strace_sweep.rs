//! Kills the supervisor at every STEP-th call of each kind and judges how the batch goes on:
//! `strace_sweep [STEP]`, default 1: every call.

use std::io::Write as _;
use std::process::ExitCode;

use supervisor_tests::sweep::{KINDS, Point, calls, can_trace, kill_at};

fn main() -> ExitCode {
    let step = std::env::args().nth(1).and_then(|step| step.parse().ok());
    let step: usize = step.unwrap_or(1).max(1);
    if let Err(why) = can_trace() {
        say(&format!("skipped: {why}\n"));
        return ExitCode::SUCCESS;
    }
    let Ok(task) = std::env::current_exe().map(|own| own.with_file_name("crash_story")) else {
        return ExitCode::from(10);
    };
    let (mut points, mut wrong) = (0, 0);
    for (kind, calls) in calls(&task).into_iter().enumerate() {
        say(&format!("{}: {calls} calls, every {step}\n", KINDS[kind].0));
        for call in (1..=calls).step_by(step) {
            points += 1;
            for line in kill_at(Point { kind, call }, &task) {
                wrong += 1;
                say(&format!("{line}\n"));
            }
        }
    }
    say(&format!("{points} points, {wrong} rules broken\n"));
    ExitCode::from(u8::from(wrong > 0))
}

/// A reader that went away changes nothing about the result.
fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}
