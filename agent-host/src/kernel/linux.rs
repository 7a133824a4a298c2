//! What Linux says and does: the subreaper, pidfds, and `/proc`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::process::{
    Pid, PidfdFlags, Resource, getpid, getrlimit, pidfd_open, set_child_subreaper, setrlimit,
};

/// Makes this process the subreaper of its descendants and its tag a lasting one, and closes what is
/// not its own.
///
/// # Errors
/// When the kernel refuses one of them.
pub(crate) fn begin() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    keep_tag()?;
    close_strangers()
}

/// Makes the tag that the supervisor lent us as our soft limit of file locks the hard one: what we
/// start can not get rid of it by raising it.
fn keep_tag() -> io::Result<()> {
    let mut locks = getrlimit(Resource::Locks);
    if locks.current != locks.maximum {
        locks.maximum = locks.current;
        setrlimit(Resource::Locks, locks)?;
    }
    Ok(())
}

/// Closes what was open in whoever started the supervisor and would be open in all that we start: a
/// pipe of a shell that waits for its end, for one.
fn close_strangers() -> io::Result<()> {
    const FIRST: std::ffi::c_uint = 3;
    // SAFETY: called first thing in `main`, before anything was opened: no descriptor above stderr
    // is owned by anybody here.
    let closed = unsafe { nix::libc::close_range(FIRST, std::ffi::c_uint::MAX, 0) };
    if closed == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        // Before Linux 5.9: they stay open, as they were for the supervisor.
        error if error.raw_os_error() == Some(nix::libc::ENOSYS) => Ok(()),
        error => Err(error),
    }
}

/// A descriptor that is readable once the process has ended; absent on kernels without pidfds.
pub(crate) fn watch_end(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Living processes of the run that are not below this one: none, because the subreaper gets them.
pub(crate) fn strays() -> Vec<Pid> {
    Vec::new()
}

/// Direct children of a process with so many threads.
pub(crate) fn children(pid: Pid, threads: u64) -> Vec<Pid> {
    if threads != 1 {
        return children_of(pid);
    }
    let number = pid.as_raw_nonzero();
    let path = format!("/proc/{number}/task/{number}/children");
    let list = fs::read_to_string(path).unwrap_or_default();
    list.split_ascii_whitespace()
        .filter_map(parse_pid)
        .collect()
}

/// Direct children, of all threads (the kernel keeps one list per thread).
pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let folder = format!("/proc/{}/task", pid.as_raw_nonzero());
    // A process that is gone has no children.
    let Ok(threads) = fs::read_dir(folder) else {
        return found;
    };
    for thread in threads.flatten() {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(list.split_ascii_whitespace().filter_map(parse_pid));
    }
    found
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

/// Fields of `/proc/PID/stat` after the command name; field 3 (the state) is at index 0.
fn stat_fields(who: impl AsRef<OsStr>) -> Option<Vec<String>> {
    let mut file = fs::File::open(Path::new("/proc").join(who.as_ref()).join("stat")).ok()?;
    // One read brings all of it: 52 numbers and a short name.
    let mut bytes = [0; 2048];
    let count = io::Read::read(&mut file, &mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes[..count]);
    // The name stands in parentheses and may hold anything, also parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Its program and arguments, at most so many bytes of them; empty when it is gone.
pub(crate) fn arguments(pid: Pid, max: u64) -> Vec<String> {
    let mut bytes = Vec::new();
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let read = fs::File::open(path)
        .and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, max), &mut bytes));
    if read.is_err() || bytes.is_empty() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&bytes);
    let words = text.strip_suffix('\0').unwrap_or(&text).split('\0');
    words.map(str::to_owned).collect()
}

/// When the process began: clock ticks since boot, field 22 of its `stat`; 0 when it is gone.
pub(crate) fn start_ticks(pid: Pid) -> u64 {
    let fields = stat_fields(pid.as_raw_nonzero().to_string());
    let field = fields.as_ref().and_then(|fields| fields.get(22 - 3));
    field.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What the kernel says of one process, in one read.
pub(crate) struct Stat {
    state: u8,
    /// Its threads.
    pub(crate) threads: u64,
    /// CPU time of it and of what it has collected, clock ticks.
    pub(crate) cpu_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// Of this process; `None` when it is gone.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let fields = stat_fields(pid.as_raw_nonzero().to_string())?;
        let number = |number: usize| -> u64 {
            let field = fields.get(number - 3);
            field.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        Some(Self {
            state: fields.first()?.bytes().next()?,
            threads: number(20),
            cpu_ticks: [14, 15, 16, 17].map(number).iter().sum(),
            resident_pages: number(24),
        })
    }

    /// Whether it has not ended.
    pub(crate) fn is_living(&self) -> bool {
        self.state != b'Z' && self.state != b'X'
    }

    /// Its resident memory; what it shares counts in full.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let page = rustix::param::page_size() as u64;
        self.resident_pages.saturating_mul(page)
    }
}

/// Ticks a second, in which CPU time is counted.
pub(crate) fn ticks_a_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}
