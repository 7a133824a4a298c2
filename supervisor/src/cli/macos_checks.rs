//! What `doctor` says of macOS: which layers hold there, and what does not.

use supervisor_core::identity::Identity;

use crate::cli::doctor::{Check, Health};
use crate::process::stat;

/// The remedy for whatever this system does not have.
const LINUX: &str = "run on Linux where that matters";

/// How a process is held.
pub(super) fn pins(_identity: &Identity) -> Vec<Check> {
    vec![Check::bad(
        "pidfd",
        Health::Weak,
        "macOS has none: a process is known by its start, to the microsecond",
        "the start is compared right before each signal; a number that passes on in that moment is \
         not noticed",
        LINUX,
    )]
}

/// What holds the tree of a run together.
pub(super) fn layers() -> Vec<Check> {
    let listed = match stat::lists_children() {
        Ok(()) => Check::ok("children", "the kernel lists the children of a process"),
        Err(error) => Check::bad(
            "children",
            Health::Missing,
            error.to_string(),
            "trees can not be walked: neither swept nor shown",
            LINUX,
        ),
    };
    vec![
        Check::ok(
            "portable",
            "session, process group, spawn token, recorded identity, end of stdin",
        ),
        listed,
        Check::bad(
            "subreaper",
            Health::Weak,
            "macOS has none: orphans go to launchd",
            "what leaves its session and clears its environment can not be excluded, and every end \
             of a run says so",
            LINUX,
        ),
        Check::bad(
            "environment",
            Health::Weak,
            "macOS does not show that of its own programs",
            "such a program is known by its session, group and descent only",
            LINUX,
        ),
        Check::bad(
            "cgroup",
            Health::Weak,
            "macOS has none",
            "memory limits are watched instead of kept; `containment: cgroup` and `pidns` can not be \
             had",
            LINUX,
        ),
        Check::bad(
            "limit_tag",
            Health::Weak,
            "macOS shows no limit of another process",
            "what clears its environment is known by its descent and session only",
            LINUX,
        ),
        Check::bad(
            "reexec",
            Health::Weak,
            "a watch on a process does not outlive exec on macOS",
            "`supervisor reexec` is refused",
            "end the batch's supervisor with SIGTERM, and run the batch again with the new program",
        ),
    ]
}
