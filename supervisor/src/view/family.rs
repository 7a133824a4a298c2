//! What the family of a task's attempt uses, as people and scripts read it.

use std::fmt;

use protocol::command::Keeper;
use serde::Serialize;
use supervisor_core::facts::{Footprint, Task};

use crate::view::View;

/// What an attempt's families use: the open attempt's, else the last one's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FamilyRow {
    /// Memory now, bytes; absent while nothing lives or nobody says.
    memory_bytes: Option<u64>,
    /// The most memory at a time that was seen, bytes.
    memory_peak_bytes: u64,
    /// What it may use, bytes.
    memory_max_bytes: Option<u64>,
    /// Who sees to that for the live run: `cgroup` or `host`.
    memory_kept_by: Option<Keeper>,
    /// CPU time, seconds.
    cpu_s: f64,
    /// Living processes.
    processes: Option<u32>,
    /// Living processes that were not read, because a look has a bound.
    unread: Option<u32>,
    /// Milliseconds since its host last answered.
    host_heard_ms: Option<u64>,
}

impl FamilyRow {
    /// Of this task; `None` where nothing was seen yet.
    pub fn new(view: &View<'_>, task: &Task) -> Option<Self> {
        let run = view.run(task);
        let now = run.and_then(|(generation, _)| view.activity.get(&generation));
        let live = now.map(|now| now.family);
        let before = match (&task.attempt, &task.last) {
            (Some(attempt), _) => attempt.footprint,
            (None, Some(last)) => last.footprint,
            (None, None) => return None,
        };
        if live.is_none() && before == Footprint::default() {
            return None;
        }
        let live_peak = live.map_or(0, |family| family.memory_peak_bytes);
        let cpu_ms = live.map_or(0, |family| family.cpu_ms);
        Some(Self {
            memory_bytes: live.map(|family| family.memory_bytes),
            memory_peak_bytes: before.memory_peak_bytes.max(live_peak),
            memory_max_bytes: view.spec(task).and_then(|spec| spec.memory_max),
            memory_kept_by: run.and_then(|(_, run)| run.containment.memory),
            cpu_s: seconds(before.cpu_ms.saturating_add(cpu_ms)),
            processes: live.map(|family| family.processes),
            unread: live.map(|family| family.unread),
            host_heard_ms: now.map(|now| now.heard_ms),
        })
    }
}

impl fmt::Display for FamilyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(count), Some(now)) = (self.processes, self.memory_bytes) {
            write!(f, "{count} processes, {} (peak ", Mebibytes(now))?;
        } else {
            f.write_str("(peak ")?;
        }
        write!(f, "{}", Mebibytes(self.memory_peak_bytes))?;
        if let Some(max) = self.memory_max_bytes {
            write!(f, " of {}", Mebibytes(max))?;
        }
        if let Some(keeper) = self.memory_kept_by {
            write!(f, ", {}", kept(keeper))?;
        }
        write!(f, "), {:.2} s CPU", self.cpu_s)
    }
}

/// How a limit of memory is kept, for people.
pub fn kept(keeper: Keeper) -> &'static str {
    match keeper {
        Keeper::Cgroup => "enforced by cgroup",
        Keeper::Host => "watched by its host every 1 to 5 s",
    }
}

/// A footprint, for people.
pub fn used(footprint: Footprint) -> String {
    let peak = Mebibytes(footprint.memory_peak_bytes);
    format!("at most {peak}, {:.2} s CPU", seconds(footprint.cpu_ms))
}

/// A number of bytes, for people.
pub fn size(bytes: u64) -> String {
    Mebibytes(bytes).to_string()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a double holds every number of milliseconds of 285,000 years"
)]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

struct Mebibytes(u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1 << 20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> FamilyRow {
        FamilyRow {
            memory_bytes: Some(12 << 20),
            memory_peak_bytes: (20 << 20) - 1,
            memory_max_bytes: Some(64 << 20),
            memory_kept_by: Some(Keeper::Host),
            cpu_s: 1.25,
            processes: Some(3),
            unread: Some(0),
            host_heard_ms: Some(40),
        }
    }

    #[test]
    fn a_live_family_says_what_it_uses_of_what() {
        let said = "3 processes, 12 MiB (peak 20 MiB of 64 MiB, watched by its host every 1 to 5 s), \
            1.25 s CPU";
        assert_eq!(row().to_string(), said);
        let unlimited = FamilyRow {
            memory_max_bytes: None,
            memory_kept_by: None,
            ..row()
        };
        let said = "3 processes, 12 MiB (peak 20 MiB), 1.25 s CPU";
        assert_eq!(unlimited.to_string(), said);
    }

    #[test]
    fn scripts_read_words_for_who_keeps_the_limit() {
        let json = serde_json::to_value(row()).unwrap();
        assert_eq!(json["memory_kept_by"], "host");
        assert_eq!(json["memory_max_bytes"], 64 << 20);
        let footprint = Footprint {
            memory_peak_bytes: 1,
            cpu_ms: 40,
        };
        assert_eq!(used(footprint), "at most 1 MiB, 0.04 s CPU");
    }
}
