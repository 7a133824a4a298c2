//! What this machine says of a process: its number, and what proves that the number still means it.

#[cfg(target_os = "linux")]
use std::fs;
use std::io;
use std::os::fd::AsFd;
#[cfg(target_os = "linux")]
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Pid, getpgid, getsid};
use supervisor_core::identity::Identity;
use supervisor_core::time::BootId;

#[cfg(target_os = "macos")]
use crate::process::macos::{boot_id, node, pid_namespace, pidfs_inode};
#[cfg(target_os = "macos")]
pub use crate::process::macos::{is_dying, start_ticks};
#[cfg(target_os = "linux")]
use crate::process::procfs;

/// `f_type` of a pidfd where the kernel gives each process an inode of its own (Linux 6.9 and
/// later; `PID_FS_MAGIC` of `linux/magic.h`).
#[cfg(target_os = "linux")]
const PID_FS_MAGIC: i64 = 0x5049_4446;

/// Most bytes read of a `stat`: its 52 numbers and a name of 16 bytes at most take about 1,100.
#[cfg(target_os = "linux")]
pub const STAT_MAX: usize = 4096;
/// Most bytes read of a `status`: some sixty short lines.
#[cfg(target_os = "linux")]
const STATUS_MAX: usize = 8192;

/// A file of the kernel that is missing or says something else than documented.
#[derive(Debug, thiserror::Error)]
#[error("{path} can not be used")]
pub struct KernelFile {
    /// Which file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

pub(super) fn unusable(path: &Path, source: io::Error) -> KernelFile {
    KernelFile {
        path: path.to_owned(),
        source,
    }
}

#[cfg(target_os = "linux")]
fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The parts of an identity that every process here shares; read once, at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The machine id, or the host's name where there is none (containers).
    pub node: Arc<str>,
    /// Inode of our pid namespace; 0 where there are none.
    pub pid_namespace: u64,
    /// This boot.
    pub boot_id: BootId,
}

impl Machine {
    /// Reads what this machine says of itself.
    ///
    /// # Errors
    /// [`KernelFile`] when procfs is not mounted or not as documented.
    pub fn here() -> Result<Machine, KernelFile> {
        Ok(Machine {
            node: node()?,
            pid_namespace: pid_namespace()?,
            boot_id: boot_id()?,
        })
    }

    /// The identity of the process that `pidfd` pins and that has the number `pid`.
    ///
    /// # Errors
    /// When the process is gone, or procfs is not as documented.
    pub fn identify(&self, pid: u32, pidfd: impl AsFd) -> io::Result<Identity> {
        Ok(Identity {
            node: self.node.clone(),
            pid_namespace: self.pid_namespace,
            boot_id: self.boot_id,
            pid,
            start_ticks: start_ticks(pid)?,
            pidfs_inode: pidfs_inode(pidfd)?,
            session: session_of(pid),
        })
    }
}

#[cfg(target_os = "linux")]
fn boot_id() -> Result<BootId, KernelFile> {
    let boot = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(boot).map_err(|e| unusable(boot, e))?;
    parse_boot_id(&text).ok_or_else(|| unusable(boot, malformed("not a uuid")))
}

#[cfg(target_os = "linux")]
fn pid_namespace() -> Result<u64, KernelFile> {
    let namespace = Path::new("/proc/self/ns/pid");
    let found = fs::metadata(namespace).map_err(|e| unusable(namespace, e))?;
    Ok(found.ino())
}

#[cfg(target_os = "linux")]
fn node() -> Result<Arc<str>, KernelFile> {
    for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
        if let Ok(text) = fs::read_to_string(path)
            && !text.trim().is_empty()
        {
            return Ok(text.trim().into());
        }
    }
    let path = Path::new("/proc/sys/kernel/hostname");
    let text = fs::read_to_string(path).map_err(|e| unusable(path, e))?;
    Ok(text.trim().into())
}

#[cfg(target_os = "linux")]
fn parse_boot_id(text: &str) -> Option<BootId> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(BootId)
}

/// The session that a process is in; `None` when there is no such process, or it is of another
/// namespace.
pub fn session_of(pid: u32) -> Option<u32> {
    // Number 0 is what the kernel says of a session outside of our namespace, and of its own threads.
    let session = getsid(Some(Pid::from_raw(i32::try_from(pid).ok()?))).ok()?;
    u32::try_from(session.as_raw()).ok().filter(|&it| it > 0)
}

/// The process group that a process is in; `None` as for [`session_of`].
pub fn group_of(pid: u32) -> Option<u32> {
    let group = getpgid(Some(Pid::from_raw(i32::try_from(pid).ok()?))).ok()?;
    u32::try_from(group.as_raw()).ok().filter(|&it| it > 0)
}

/// Clock ticks since boot at the start of the process (field 22 of its `stat`).
///
/// # Errors
/// When there is no such process.
#[cfg(target_os = "linux")]
pub fn start_ticks(pid: u32) -> io::Result<u64> {
    let stat = procfs::read(format!("/proc/{pid}/stat"), STAT_MAX)?;
    parse_start_ticks(&stat).ok_or_else(|| malformed("stat has no start time"))
}

/// Whether a process is on its way out: it was killed and has not noticed yet, or is giving back what
/// it holds. It may still hold a lock then, and will never use it again.
#[cfg(target_os = "linux")]
pub fn is_dying(pid: u32) -> bool {
    let read = |file: &str| procfs::read(format!("/proc/{pid}/{file}"), STATUS_MAX);
    let (Ok(stat), Ok(status)) = (read("stat"), read("status")) else {
        return true; // gone
    };
    is_exiting(&stat) || is_killed(&String::from_utf8_lossy(&status))
}

/// The flag of the kernel for a task that has begun to exit (`PF_EXITING` of `linux/sched.h`), in
/// field 9 of `stat`.
#[cfg(target_os = "linux")]
fn is_exiting(stat: &[u8]) -> bool {
    const PF_EXITING: u64 = 4;
    field(stat, 6).is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Whether SIGKILL (signal 9: bit 8) is pending for the main thread or the whole process.
#[cfg(target_os = "linux")]
fn is_killed(status: &str) -> bool {
    let pending = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    ["SigPnd:", "ShdPnd:"]
        .iter()
        .any(|name| pending(name).is_some_and(|set| set & (1 << 8) != 0))
}

/// The name of a program may hold anything, also spaces and brackets; the fields that follow its
/// last closing bracket may not.
#[cfg(target_os = "linux")]
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    field(stat, 19)
}

/// The number in the field that has so many fields between itself and the name; field 3 is the first
/// one behind it.
#[cfg(target_os = "linux")]
fn field(stat: &[u8], before: usize) -> Option<u64> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(before)?.parse().ok()
}

#[cfg(target_os = "linux")]
fn pidfs_inode(pidfd: impl AsFd) -> io::Result<Option<u64>> {
    if rustix::fs::fstatfs(&pidfd)?.f_type as i64 != PID_FS_MAGIC {
        return Ok(None);
    }
    Ok(Some(rustix::fs::fstat(&pidfd)?.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        let tail = "S 1 2 3 0 -1 4194560 103 0 0 0 0 0 0 0 20 0 1 0 987654 2621440 210";
        for name in ["sleep", "a b", "evil) R 9 9", "((", ""] {
            let stat = format!("42 ({name}) {tail}");
            assert_eq!(
                parse_start_ticks(stat.as_bytes()),
                Some(987_654),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_process_that_was_killed_or_gives_back_what_it_holds_is_dying() {
        let stat = |flags: u32| format!("42 (a b) R 1 2 3 0 -1 {flags} 103 0").into_bytes();
        assert!(!is_exiting(&stat(4_194_304)));
        assert!(is_exiting(&stat(4_194_304 | 4)));
        let status =
            |own, shared| format!("Name:\tx\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\n");
        assert!(!is_killed(&status(0, 0x4000)), "another signal");
        assert!(is_killed(&status(0x100, 0)));
        assert!(is_killed(&status(0, 0x100)));
        assert!(!is_dying(std::process::id()));
        assert!(is_dying(u32::MAX), "there is none");
    }

    #[test]
    fn a_short_stat_has_no_start_time() {
        assert_eq!(parse_start_ticks(b"42 (sleep) S 1 2 3"), None);
        assert_eq!(parse_start_ticks(b""), None);
    }

    #[test]
    fn a_boot_id_is_a_uuid_and_nothing_else() {
        let id = parse_boot_id("01234567-89ab-cdef-0123-456789abcdef\n");
        assert_eq!(id, Some(BootId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)));
        assert_eq!(parse_boot_id("0123"), None);
        assert_eq!(parse_boot_id("zz234567-89ab-cdef-0123-456789abcdef"), None);
    }

    #[test]
    fn we_can_name_ourselves_twice_the_same() {
        let machine = Machine::here().unwrap();
        let pid = std::process::id();
        let pidfd = crate::process::pidfd::open(pid).unwrap();
        let first = machine.identify(pid, &pidfd).unwrap();
        assert_eq!(first, machine.identify(pid, &pidfd).unwrap());
        assert!(first.start_ticks > 0);
    }
}
