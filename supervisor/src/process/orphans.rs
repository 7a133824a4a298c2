//! What a dead host leaves behind: it becomes our child, and is killed and collected.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{getpid, set_child_subreaper};

use crate::process::pidfd;

/// Passes over our children until those that are left are called unkillable: each pass kills all it
/// sees, so only a process that the kernel does not let die (stuck in a driver) outlasts them.
const PASSES_MAX: u32 = 64;
/// Passes in a row that must find none where there may be something to find.
pub const CLEAN_PASSES: u32 = 2;
/// Longest wait for one killed process in one pass.
const DYING_MAX: Duration = Duration::from_millis(10);

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
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// The numbers of all children of this process, over all its threads (the file is per thread).
/// A child stays in the list until its exit is collected, so its number means no other process.
///
/// # Errors
/// When procfs does not have the file (a kernel without `CONFIG_PROC_CHILDREN`).
pub fn children() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let text = match fs::read_to_string(thread?.path().join("children")) {
            Ok(text) => text,
            Err(error) if thread_ended(&error) => continue,
            Err(error) => return Err(error),
        };
        found.extend(
            text.split_ascii_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    Ok(found)
}

fn thread_ended(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// Kills and collects every child that is no host. Every child that we did not start is by the
/// kernel's own rule an orphan of a dead host, because living hosts adopt their own.
///
/// Ends when `clean_passes` in a row found none. One is enough after hosts that ended by themselves,
/// because these have seen their own trees end; else two: a process that forks and ends between two
/// reads of the list is very unlikely to be missed twice.
///
/// # Errors
/// When the children can not be listed.
pub fn sweep(clean_passes: u32, is_host: impl Fn(u32) -> bool) -> io::Result<Swept> {
    let mut swept = Swept::default();
    let mut clean = 0;
    for _ in 0..PASSES_MAX {
        swept.left = 0;
        let mut seen = false;
        for pid in children()?.into_iter().filter(|&pid| !is_host(pid)) {
            seen = true;
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

/// Kills one child and collects it; `false` when it is still dying.
fn end(pid: u32) -> io::Result<bool> {
    use std::os::fd::AsFd;
    let pinned = pidfd::open(pid)?;
    pidfd::kill(&pinned)?;
    if !pidfd::wait_ended(&pinned, DYING_MAX)? {
        return Ok(false);
    }
    Ok(pidfd::reap(pinned.as_fd())?.is_some())
}
