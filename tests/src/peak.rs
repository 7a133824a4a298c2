//! The most memory that a supervisor and its hosts ever held, as the kernel counts it.

use std::time::Duration;

use crate::clock::{Deadline, pause};
use crate::world::Started;

/// What a supervisor or a host may hold beyond what a trivial task needs, bytes.
pub const ROOM: u64 = 16 << 20;
/// Pause between two looks: the kernel keeps the peak, so only the last look must not come long
/// before the end.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Longest batch that is watched.
const LONGEST: Duration = Duration::from_secs(120);

/// Largest resident sets, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peaks {
    /// Of the supervisor.
    pub supervisor: u64,
    /// Of the largest `agent-host` below it.
    pub host: u64,
}

impl Peaks {
    /// Asserts that both are within [`ROOM`] of what a trivial task needed.
    ///
    /// # Panics
    /// When one is not.
    #[track_caller]
    pub fn assert_near(self, trivial: Self) {
        let near = |peak: u64, base: u64| peak <= base + ROOM;
        assert!(
            near(self.supervisor, trivial.supervisor) && near(self.host, trivial.host),
            "{self:?}, for a trivial task {trivial:?}"
        );
    }
}

/// Watches a supervisor to its end: its peaks and its exit status.
///
/// # Panics
/// When it does not end.
pub fn watch(mut supervisor: Started) -> (Peaks, Option<i32>) {
    let pid = supervisor.pid();
    let deadline = Deadline::after(LONGEST);
    let mut peaks = Peaks::default();
    loop {
        peaks.supervisor = peaks.supervisor.max(peak_of(pid));
        for child in children_of(pid) {
            if name_of(child) == "agent-host" {
                peaks.host = peaks.host.max(peak_of(child));
            }
        }
        if let Some(status) = supervisor.ended() {
            return (peaks, status.code());
        }
        assert!(!deadline.is_over(), "the supervisor does not end");
        pause(LOOK_EVERY);
    }
}

/// `VmHWM` of a process, bytes; 0 once it has ended.
fn peak_of(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Its name, which is that of its program once it has begun that.
fn name_of(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

fn children_of(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}
