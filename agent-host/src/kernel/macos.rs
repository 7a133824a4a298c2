//! What macOS says and does: no subreaper, no limit of locks, no pid namespace. Descendants whose
//! parent has ended are `launchd`'s; they are found again by the session and by the spawn token.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use process_macos::answer;
use rustix::process::{Pid, getpid, getsid};

/// The variable that holds the spawn token of the run.
const TOKEN_VARIABLE: &str = "SUPERVISOR_TOKEN";
/// Microseconds, in which times are counted here.
const TICKS_A_SECOND: u64 = 1_000_000;

/// Closes what is not this process's own.
///
/// # Errors
/// When open descriptors are not listed.
pub(crate) fn begin() -> io::Result<()> {
    const FIRST: RawFd = 3;
    let entries = fs::read_dir("/dev/fd")?;
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // The list is complete, and its own descriptor closed, before any other is.
    let open: Vec<RawFd> = numbers.filter(|&number| number >= FIRST).collect();
    for number in open {
        // SAFETY: borrowed only to look whether it is open: the list's own is not any more.
        let lent = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(lent).is_ok() {
            // SAFETY: called first thing in `main`, before anything was opened: no descriptor above
            // stderr is owned by anybody here.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok(())
}

/// A descriptor that is readable once the process has ended.
pub(crate) fn watch_end(pid: Pid) -> Option<OwnedFd> {
    process_macos::watch_end(number(pid)).ok()
}

/// Living processes of the run that may not be below this one any more: in our session, which only
/// our descendants can be in, or with the run's token. What has left both is not seen.
pub(crate) fn strays() -> Vec<Pid> {
    let own = getpid();
    let leads = getsid(None).is_ok_and(|session| session == own);
    let token = std::env::var(TOKEN_VARIABLE).ok();
    let variable = token.map(|token| format!("{TOKEN_VARIABLE}={token}"));
    let is_ours = |pid: Pid| {
        let in_session = leads && getsid(Some(pid)).is_ok_and(|session| session == own);
        in_session || variable.as_deref().is_some_and(|it| carries(pid, it))
    };
    let all = process_macos::pids().unwrap_or_default().into_iter();
    all.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        .filter(|&pid| pid != own && is_ours(pid))
        .filter(|&pid| Stat::of(pid).is_some_and(|stat| stat.is_living()))
        .collect()
}

fn carries(pid: Pid, variable: &str) -> bool {
    let Ok(started) = process_macos::arguments(number(pid)) else {
        return false; // gone, or another user's
    };
    let mut entries = started.environ.split(|&byte| byte == 0);
    entries.any(|entry| entry == variable.as_bytes())
}

/// Direct children of a process.
pub(crate) fn children(pid: Pid, _threads: u64) -> Vec<Pid> {
    children_of(pid)
}

/// Direct children of a process; none of one that is gone.
pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let found = process_macos::children(number(pid)).unwrap_or_default();
    let found = found.into_iter();
    found
        .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        .collect()
}

/// Its program and arguments, at most so many bytes of them; empty when it is gone.
pub(crate) fn arguments(pid: Pid, max: u64) -> Vec<String> {
    let started = process_macos::arguments(number(pid)).unwrap_or_default();
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let command = &started.command[..started.command.floor_char_boundary(max)];
    command.split_whitespace().map(str::to_owned).collect()
}

/// When the process began: microseconds since the Unix epoch; 0 when it is gone.
pub(crate) fn start_ticks(pid: Pid) -> u64 {
    process_macos::process(number(pid)).map_or(0, |found| found.started_us)
}

/// Ticks a second, in which CPU time is counted.
pub(crate) fn ticks_a_second() -> u64 {
    TICKS_A_SECOND
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// What the kernel says of one process.
pub(crate) struct Stat {
    process: answer::Process,
    usage: answer::Usage,
    /// Its threads.
    pub(crate) threads: u64,
    /// CPU time of its own, microseconds; what it has collected is not told.
    pub(crate) cpu_ticks: u64,
}

impl Stat {
    /// Of this process; `None` when it is gone.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        let process = process_macos::process(number(pid))?;
        let (usage, cpu_ticks) = process_macos::usage(number(pid));
        Some(Self {
            process,
            usage,
            threads: usage.threads.into(),
            cpu_ticks,
        })
    }

    /// Whether it has not ended.
    pub(crate) fn is_living(&self) -> bool {
        !self.process.is_over
    }

    /// Its resident memory; what it shares counts in full.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.usage.resident_bytes
    }
}
