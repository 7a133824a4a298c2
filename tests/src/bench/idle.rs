//! What waiting costs: sleeping tasks, and tasks that have not begun.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::time::Duration;

use nix::unistd::Pid;

use super::measure::{cpu_of, private_of, pss_of};
use super::{Row, count, median, size, write_batch};
use crate::clock::{Deadline, pause};
use crate::world::World;

/// CPU of guardian, supervisor and hosts together, per cent of one core.
const IDLE_CPU_MAX: f64 = 0.2;
/// Proportional set size of an idle host, MB.
const HOST_MB_MAX: f64 = 0.8;
/// Memory of a guardian that it shares with nobody, MB: its pages of code are the supervisor's too.
const GUARDIAN_MB_MAX: f64 = 1.5;
/// Memory of the supervisor per queued task, bytes.
const QUEUED_BYTES_MAX: f64 = 4096.0;
/// Longest wait for a batch to reach the state that is measured.
const SETTLE: Duration = Duration::from_secs(300);

/// Tasks that sleep: CPU of everything, memory of each host.
pub fn sleeping() -> Vec<Row> {
    let tasks = size("BENCH_IDLE_TASKS", 200);
    let seconds = size("BENCH_IDLE_SECONDS", 30);
    let world = World::new();
    write_batch(&world, tasks, tasks, "[sleep, \"86400\"]", "");
    let supervisor = world.start("run", &["run", "batch.yml"]);
    until(&world, "every task sleeps", |world| {
        count(world, "running") == Some(tasks)
    });
    let ours = ours(&world);
    let hosts: Vec<Pid> = of_program(&ours, "agent-host");
    assert_eq!(hosts.len(), tasks, "one host per task");
    // The start is over when two seconds pass quietly.
    pause(Duration::from_secs(2));
    let spent = || ours.iter().map(|(pid, _)| cpu_of(*pid)).sum::<Duration>();
    let before = spent();
    let window = Duration::from_secs(u64::try_from(seconds).unwrap_or(30));
    pause(window);
    let used = spent().saturating_sub(before);
    let per_cent = 100.0 * used.as_secs_f64() / window.as_secs_f64();
    let sizes = hosts
        .iter()
        .filter_map(|pid| pss_of(*pid))
        .map(megabytes)
        .collect();
    let guardian = Pid::from_raw(i32::try_from(supervisor.pid()).expect("a pid is small"));
    let private = private_of(guardian).expect("a live process has a size");
    supervisor.kill();
    world.supervisor(&["kill", "--all", "--grace", "0s"]).ok();
    world.assert_nothing_left();
    let what = format!("CPU of guardian, supervisor and {tasks} idle hosts, per cent of a core");
    vec![
        Row::plain("idle", what, per_cent, "%").limited(IDLE_CPU_MAX),
        Row::plain(
            "idle",
            "PSS of an idle host, median".to_owned(),
            median(sizes),
            "MB",
        )
        .limited(HOST_MB_MAX),
        Row::plain(
            "idle",
            "memory of a guardian that it shares with nobody".to_owned(),
            megabytes(private),
            "MB",
        )
        .limited(GUARDIAN_MB_MAX),
    ]
}

/// Tasks that wait for a lane: memory of the supervisor per task.
pub fn queued() -> Vec<Row> {
    let tasks = size("BENCH_QUEUED_TASKS", 100_000);
    let empty = supervisor_with(1);
    let full = supervisor_with(tasks);
    #[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
    let per_task = full.saturating_sub(empty) as f64 / tasks as f64;
    vec![
        Row::plain(
            "memory",
            "PSS of a supervisor with one task".to_owned(),
            megabytes(empty),
            "MB",
        ),
        Row::plain(
            "memory",
            format!("PSS with {tasks} tasks"),
            megabytes(full),
            "MB",
        ),
        Row::plain("memory", "per queued task".to_owned(), per_task, "B").limited(QUEUED_BYTES_MAX),
    ]
}

/// Memory of a supervisor whose one lane is taken by a sleeping task while so many wait.
fn supervisor_with(tasks: usize) -> u64 {
    let world = World::new();
    let first = "  - id: first\n    priority: 1000\n    run: [sleep, \"86400\"]\n";
    write_batch(&world, tasks, 1, "[\"true\"]", first);
    let supervisor = world.start("run", &["run", "--no-guardian", "batch.yml"]);
    until(&world, "the first task sleeps", |world| {
        count(world, "running") == Some(1)
    });
    pause(Duration::from_secs(1));
    let pid = Pid::from_raw(i32::try_from(supervisor.pid()).expect("a pid is small"));
    let bytes = pss_of(pid).expect("a live process has a size");
    supervisor.kill();
    world.assert_nothing_left();
    bytes
}

/// Looks once in a while: a status of a large batch is work, which is not to be measured.
pub(super) fn until(world: &World, what: &str, so: impl Fn(&World) -> bool) {
    let deadline = Deadline::after(SETTLE);
    while !so(world) {
        assert!(!deadline.is_over(), "not in {SETTLE:?}: {what}");
        pause(Duration::from_millis(300));
    }
}

/// The product's processes of a world, without the tasks' own programs.
fn ours(world: &World) -> Vec<(Pid, String)> {
    let all = world.processes().into_iter();
    let programs = ["agent-host", "supervisor"];
    all.filter(|(_, command)| programs.iter().any(|name| is_program(command, name)))
        .collect()
}

fn of_program(processes: &[(Pid, String)], name: &str) -> Vec<Pid> {
    let found = processes
        .iter()
        .filter(|(_, command)| is_program(command, name));
    found.map(|(pid, _)| *pid).collect()
}

/// Whether the first word of a command line names this program.
fn is_program(command: &str, name: &str) -> bool {
    let first = command.split(' ').next().unwrap_or_default();
    first.rsplit('/').next() == Some(name)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_by_the_last_part_of_its_path() {
        assert!(is_program("/x/agent-host --run 7", "agent-host"));
        assert!(is_program("supervisor run batch.yml", "supervisor"));
        assert!(!is_program("sleep 86400", "supervisor"));
        assert!(!is_program("/x/supervisor/sleep", "supervisor"));
    }
}
