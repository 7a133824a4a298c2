//! What of a run's family is still at work when the agent says that its turn is over.

use rustix::process::{Pid, getpgid};

use crate::process;

/// Most processes that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// Living processes of the family that are neither the agent nor in its process group, as the kernel
/// shows them. The agent's own servers are in its group; each command that it runs gets a session of
/// its own, also those that it lets go.
pub(super) fn left_beside(agent: Pid) -> Vec<String> {
    let others = process::descendants().into_iter().filter(|&pid| {
        let group = getpgid(Some(pid)).ok();
        group != Some(agent) && process::is_living(pid)
    });
    others
        .map(|pid| format!("{} {}", pid.as_raw_nonzero(), process::command_line(pid)))
        .collect()
}

/// As a sentence.
pub(super) fn name(left: &[String]) -> String {
    let named = left.iter().take(NAMED_MAX).cloned();
    let more = left.len().saturating_sub(NAMED_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    named.chain(more).collect::<Vec<_>>().join("; ")
}
