//! What processes have used, read from the kernel's own counters.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;

/// Use of a whole process tree that has ended and was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Used {
    /// CPU time, user and system.
    pub cpu: Duration,
    /// Bytes given to `write` and its like, pipes included.
    pub asked: u64,
    /// Bytes sent towards the disk.
    pub written: u64,
}

/// Runs something and says what its processes used: a parent's counters grow by those of every
/// child that it waits for, and theirs by those of their children.
pub fn used<T>(act: impl FnOnce() -> T) -> (T, Used) {
    let before = ended_children();
    let result = act();
    let after = ended_children();
    let used = Used {
        cpu: after.cpu.saturating_sub(before.cpu),
        asked: after.asked.saturating_sub(before.asked),
        written: after.written.saturating_sub(before.written),
    };
    (result, used)
}

fn ended_children() -> Used {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("a process can ask for its own use");
    let time = |value: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(value.tv_sec()).unwrap_or_default();
        let micros = u64::try_from(value.tv_usec()).unwrap_or_default();
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    };
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    Used {
        cpu: time(usage.user_time()) + time(usage.system_time()),
        asked: field(&io, "wchar:").unwrap_or_default(),
        written: field(&io, "write_bytes:").unwrap_or_default(),
    }
}

/// The number behind a key in one of the kernel's text files.
fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].split_whitespace().next()?.parse().ok()
}

/// CPU time of a live process so far, all its threads, to the nanosecond (the ticks in `stat`
/// would hide what an idle process uses).
pub fn cpu_of(pid: Pid) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let spent = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Proportional set size of a live process, bytes: shared pages divided by their sharers.
pub fn pss_of(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    field(&text, "Pss:").map(|kilobytes| kilobytes * 1024)
}

/// Memory of a live process that it shares with no other, bytes.
pub fn private_of(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kilobytes = field(&text, "Private_Dirty:")? + field(&text, "Private_Clean:")?;
    Some(kilobytes * 1024)
}

/// The only file of that name directly in a folder.
pub fn file_in(folder: Option<PathBuf>, name: &str) -> PathBuf {
    let path = folder.expect("there is a batch").join(name);
    assert!(Path::new(&path).is_file(), "{} is missing", path.display());
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::tool;

    #[test]
    fn a_field_is_found_by_its_key() {
        let text = "rchar: 1\nwchar: 22\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!(field(text, "wchar:"), Some(22));
        assert_eq!(field(text, "write_bytes:"), Some(4096));
        assert_eq!(field(text, "absent:"), None);
    }

    #[test]
    fn use_of_grandchildren_is_counted() {
        let script = "sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done'; printf 12345678";
        let (output, used) = used(|| tool("sh").args(["-c", script]).output().unwrap());
        assert_eq!(output.stdout, b"12345678");
        assert!(used.cpu > Duration::from_millis(1), "{used:?}");
        assert!(used.asked >= 8, "{used:?}");
    }

    #[test]
    fn a_live_process_has_a_size_and_a_time() {
        let own = Pid::this();
        assert!(pss_of(own).is_some_and(|bytes| bytes > 100_000));
        assert!(cpu_of(own) > Duration::ZERO);
    }
}
