//! What the kernel says of processes that it killed for want of memory.

use std::sync::Arc;

use crate::process::procfs;

/// Largest `/proc/vmstat` that is read, bytes: ten times today's.
const VMSTAT_MAX: usize = 64 << 10;

/// Processes that the kernel has killed for want of memory since the machine's start, of whatever
/// user; 0 where it does not say.
pub fn kills_of_machine() -> u64 {
    let text = procfs::read("/proc/vmstat", VMSTAT_MAX).unwrap_or_default();
    count_of(&String::from_utf8_lossy(&text), "oom_kill").unwrap_or(0)
}

/// The number beside `name` in a file of names and numbers.
pub(super) fn count_of(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Why a host that was killed, not by us, was killed by the kernel: `in_leaf` processes of its cgroup
/// were, or at least some process of the machine was while it ran.
pub fn evidence(in_leaf: u64, before: u64, now: u64) -> Option<Arc<str>> {
    if in_leaf > 0 {
        let text = format!(
            "killed by the kernel for want of memory, its host with it: its cgroup counts {in_leaf}"
        );
        return Some(text.into());
    }
    let killed = now.saturating_sub(before);
    (killed > 0).then(|| {
        let text = format!(
            "its host was likely killed by the kernel for want of memory: {killed} of this \
             machine's processes were, while it ran"
        );
        text.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_found_by_its_whole_name() {
        let events = "low 0\nhigh 0\nmax 31\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(count_of(events, "oom_kill"), Some(2));
        assert_eq!(count_of(events, "oom"), Some(3));
        assert_eq!(count_of(events, "oom_k"), None);
        assert_eq!(count_of("oom_kill many\n", "oom_kill"), None);
    }

    #[test]
    fn what_is_only_likely_is_called_so() {
        assert_eq!(evidence(0, 5, 5), None, "nobody was killed");
        assert_eq!(evidence(0, 5, 3), None, "another machine's count");
        assert!(evidence(0, 5, 7).unwrap().contains("likely"));
        let sure = evidence(1, 5, 7).unwrap();
        assert!(!sure.contains("likely") && sure.contains("its cgroup counts 1"));
    }
}
