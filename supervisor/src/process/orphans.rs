//! What a dead host leaves behind: it becomes our child, and is killed and collected. On macOS it
//! becomes `launchd`'s, and is found by [`hunt`](crate::process::hunt) alone.

use std::collections::BTreeSet;
#[cfg(target_os = "linux")]
use std::fs;
use std::io;
use std::time::Duration;

#[cfg(target_os = "linux")]
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
#[cfg(target_os = "linux")]
use rustix::process::{getpid, set_child_subreaper};

use crate::process::identity::{group_of, session_of};
#[cfg(target_os = "macos")]
use crate::process::macos::children_of;
#[cfg(target_os = "macos")]
pub(super) use crate::process::macos::collect_ended;
#[cfg(target_os = "macos")]
pub use crate::process::macos::{adopt, own_children as children};
use crate::process::pidfd;

/// Passes over our children until those that are left are called unkillable: each pass kills all it
/// sees, so only a process that the kernel does not let die (stuck in a driver) outlasts them.
const PASSES_MAX: u32 = 64;
/// Passes in a row that must find none where there may be something to find.
pub const CLEAN_PASSES: u32 = 2;
/// Longest wait for one killed process in one pass.
const DYING_MAX: Duration = Duration::from_millis(10);

/// Most descendants looked at; a larger family is asked in parts, and killed whatever its size.
const FAMILY_MAX: usize = 100_000;

/// What a sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Processes killed and collected.
    pub ended: u32,
    /// Processes that did not die within the bound; the next sweep meets them again.
    pub left: u32,
}

/// Makes this process the one to which the descendants of a dead host come.
///
/// # Errors
/// When the kernel is older than Linux 3.4.
#[cfg(target_os = "linux")]
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// The numbers of all children of this process, over all its threads (the file is per thread).
/// A child stays in the list until its exit is collected, so its number means no other process.
///
/// # Errors
/// When procfs does not have the file (a kernel without `CONFIG_PROC_CHILDREN`).
#[cfg(target_os = "linux")]
pub fn children() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let text = match fs::read_to_string(thread?.path().join("children")) {
            Ok(text) => text,
            Err(error) if thread_ended(&error) => continue,
            Err(error) => return Err(error),
        };
        found.extend(numbers(&text));
    }
    Ok(found)
}

#[cfg(target_os = "linux")]
fn thread_ended(error: &io::Error) -> bool {
    let gone = Some(rustix::io::Errno::SRCH.raw_os_error());
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == gone
}

/// Kills and collects every child that is no host. Every child that we did not start is by the
/// kernel's own rule an orphan of a dead host, because living hosts adopt their own.
///
/// Ends when `clean_passes` in a row found none. One is enough after hosts that ended by themselves,
/// because these have seen their own trees end; else two: a process that forks and ends between two
/// reads of the list is very unlikely to be missed twice. Each child is told to `note` before it is
/// killed, while its tags can still be read; one that is slow to die may be told more than once.
///
/// # Errors
/// When the children can not be listed.
pub fn sweep(
    clean_passes: u32,
    is_host: impl Fn(u32) -> bool,
    mut note: impl FnMut(u32),
) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut clean = 0;
    for _ in 0..PASSES_MAX {
        swept.left = 0;
        let collected = collect_ended(&is_host);
        swept.ended += collected;
        let mut seen = collected > 0;
        for pid in children()?.into_iter().filter(|&pid| !is_host(pid)) {
            seen = true;
            note(pid);
            match end(pid) {
                Ok(true) => swept.ended += 1,
                Ok(false) | Err(_) => swept.left += 1, // refused or slow: met again in the next pass
            }
        }
        clean = if seen { 0 } else { clean + 1 };
        if clean >= clean_passes && (swept.ended == 0 || clean >= CLEAN_PASSES) {
            break;
        }
    }
    Ok(swept)
}

/// Collects children that have ended, without a list of them; how many. It ends at the first host
/// that waits to be collected by its own: what is behind it is found in the list.
#[cfg(target_os = "linux")]
pub(super) fn collect_ended(is_host: impl Fn(u32) -> bool) -> u32 {
    let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
    let mut collected = 0;
    loop {
        let found = waitid(Id::All, ended | WaitPidFlag::WNOWAIT);
        let Some(pid) = found.ok().and_then(|status| status.pid()) else {
            return collected;
        };
        let number = pid.as_raw().unsigned_abs();
        if is_host(number) || waitid(Id::Pid(pid), ended).is_err() {
            return collected;
        }
        collected += 1;
    }
}

/// Kills one child and collects it; `false` when it is still dying.
fn end(pid: u32) -> io::Result<bool> {
    use std::os::fd::AsFd;
    let pinned = pidfd::open(pid)?;
    kill_group_of(pid);
    pidfd::kill(&pinned)?;
    if !pidfd::wait_ended(&pinned, DYING_MAX)? {
        return Ok(false);
    }
    Ok(pidfd::reap(pinned.as_fd())?.is_some())
}

/// Kills the group of a child at once, so that none of it forks on: a child that is in another
/// session than we are was started by a run, and groups never cross sessions.
fn kill_group_of(pid: u32) {
    let ours = session_of(std::process::id());
    let (Some(group), Some(session)) = (group_of(pid), session_of(pid)) else {
        return;
    };
    if Some(session) != ours {
        signal_group(group, Signal::KILL);
    }
}

/// Signals a group whose members the caller has proven to be a run's. Never group 1, which is the first
/// process's and, as an argument of `kill`, everybody.
pub(super) fn signal_group(group: u32, signal: Signal) {
    let group = i32::try_from(group).ok().filter(|&group| group > 1);
    let Some(group) = group.and_then(Pid::from_raw) else {
        return;
    };
    match kill_process_group(group, signal) {
        // Refused is what a group that has only ended members says on some kernels.
        Ok(()) | Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => {}
        Err(error) => tracing::debug!(%error, "a group can not be signalled as a whole"),
    }
}

/// The numbers of all descendants of a child of ours, from the kernel's own lists of children; at
/// most `FAMILY_MAX`.
pub fn descendants(of: u32) -> Vec<u32> {
    let mut found = children_of(of);
    let mut next = 0;
    while next < found.len() && found.len() < FAMILY_MAX {
        found.extend(children_of(found[next]));
        next += 1;
    }
    found
}

#[cfg(target_os = "linux")]
fn children_of(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists = threads
        .flatten()
        .map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| numbers(&list)).collect()
}

#[cfg(target_os = "linux")]
fn numbers(list: &str) -> Vec<u32> {
    let words = list.split_ascii_whitespace();
    words.filter_map(|pid| pid.parse().ok()).collect()
}

/// Asks the whole family of a host to end: every group of it gets TERM, and CONT so that stopped
/// ones hear it; the host itself is only woken up. The host must be an unreaped child of ours.
pub fn ask_to_end(host: u32) {
    let ours = session_of(std::process::id());
    let mut groups: BTreeSet<u32> = descendants(host)
        .into_iter()
        // A group of our own session holds us, or whoever started us.
        .filter(|&pid| session_of(pid) != ours)
        .filter_map(group_of)
        .collect();
    groups.remove(&host);
    for group in groups {
        signal_group(group, Signal::TERM);
        signal_group(group, Signal::CONT);
    }
    if let Some(host) = i32::try_from(host).ok().and_then(Pid::from_raw) {
        // It is not collected, so the number is its own; that it has ended is no matter.
        let _ = kill_process(host, Signal::CONT);
    }
}

/// Asks the group of a child of ours to end, which leads it and was not collected: TERM, and CONT so
/// that stopped ones hear it.
pub(super) fn ask_group_to_end(leader: u32) {
    signal_group(leader, Signal::TERM);
    signal_group(leader, Signal::CONT);
}

/// Kills the group of a host that has ended and was not collected: as long as it is not, the number
/// of its group is no other's.
pub fn kill_group_of_ended(host: u32) {
    signal_group(host, Signal::KILL);
}
