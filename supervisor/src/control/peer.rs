//! Who asks: the operator, or an agent that must not answer its own question (I12).

use protocol::ids::BatchId;

use crate::process::identity::STAT_MAX;
use crate::process::procfs;
use crate::process::scan::{environ_of, token_of};
use crate::process::spawn::BATCH_VARIABLE;

/// Generations of parents looked at; deeper trees than this are not made by hand or by shells, and
/// one that is so deep is refused.
const ANCESTORS_MAX: usize = 256;

/// Whether a process carries the tag of a run of this batch, in its environment.
pub fn carries_tag(pid: u32, batch: &BatchId) -> bool {
    token_of(pid).is_some() && batch_of(pid).is_some_and(|found| found == batch.as_str().as_bytes())
}

fn batch_of(pid: u32) -> Option<Vec<u8>> {
    let environ = environ_of(pid).ok()?;
    environ.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(BATCH_VARIABLE.as_bytes())?;
        Some(value.strip_prefix(b"=")?.to_vec())
    })
}

/// Whether a process has a host among its ancestors, or is one: what stands below a host can clear
/// its environment, but not its descent, because hosts adopt their own orphans.
pub fn descends_from_host(pid: u32, is_host: impl Fn(u32) -> bool) -> bool {
    let mut pid = pid;
    for _ in 0..ANCESTORS_MAX {
        if is_host(pid) {
            return true;
        }
        match parent_of(pid) {
            None | Some(0) => return false,
            Some(parent) => pid = parent,
        }
    }
    true
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = procfs::read(format!("/proc/{pid}/stat"), STAT_MAX).ok()?;
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descent_is_seen_over_generations_and_ends_at_the_first_process() {
        let us = std::process::id();
        let parent = parent_of(us).unwrap();
        assert!(descends_from_host(us, |pid| pid == us));
        assert!(descends_from_host(us, |pid| pid == parent));
        assert!(!descends_from_host(us, |_| false));
        assert!(!descends_from_host(parent, |pid| pid == us));
    }

    #[test]
    fn a_process_without_tag_carries_none() {
        let batch: BatchId = "some-batch".parse().unwrap();
        assert!(!carries_tag(std::process::id(), &batch));
        assert!(!carries_tag(u32::MAX, &batch));
    }
}
