//! Every call that makes, signals or reaps a process, and what `/proc` says of the family.
//!
//! The host is the subreaper of its run: a descendant whose parent died becomes the host's own
//! child, whatever session it is in. So "no child left" (`ECHILD`) proves that nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, WaitOptions, WaitStatus, getpgid, getpid, getrlimit, getsid,
    kill_process, kill_process_group, pidfd_open, set_child_subreaper, setrlimit, setsid,
    wait as wait_any, waitpid,
};

use crate::clock;
use crate::wait::{Interest, wait};

/// Where programs are looked for when the run's environment names no `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Longest wait for killed processes to be gone: a killed process ends within milliseconds unless
/// it sits in an uninterruptible call (a dead network disk), and no time helps against that.
pub(crate) const KILL_MAX: Duration = Duration::from_secs(5);
/// Longest wait for one child between two rounds of killing.
const KILL_ROUND: Duration = Duration::from_millis(10);
/// Most descendants looked at in one round; a larger family takes more rounds.
const FAMILY_MAX: usize = 100_000;

/// From here on a write to a reader that is gone is an error, not the end.
pub(crate) fn ignore_broken_pipes() {
    ignore(&[nix::sys::signal::Signal::SIGPIPE]);
}

/// Makes this process the leader of a session of its own and the subreaper of its descendants, makes
/// its tag a lasting one, and closes what is not its own. Nothing comes before it, and no hello is
/// answered without it: a run has the layers that its record names, or it does not begin.
///
/// # Errors
/// When the kernel refuses one of them. Being a group leader already (started by hand
/// from a shell) is none: the family is then killed one by one instead of by group.
pub(crate) fn begin() -> io::Result<()> {
    // A write to a reader that is gone is to be an error; std starts programs with the default.
    ignore_broken_pipes();
    match setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
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

/// The two ends of the pipe to the supervisor: stdin and stdout as owned descriptors.
pub(crate) fn take_stdio() -> (OwnedFd, OwnedFd) {
    // SAFETY: called once, first thing in `main`; nothing else in this program uses descriptors 0
    // and 1 (std's handles to them are never touched), so each has exactly this one owner.
    unsafe { (OwnedFd::from_raw_fd(0), OwnedFd::from_raw_fd(1)) }
}

/// A program to be started.
pub(crate) struct Spawn<'a> {
    /// The file to execute, absolute or relative to `cwd`.
    pub(crate) file: &'a Path,
    /// Its arguments, the name first.
    pub(crate) argv: &'a [String],
    /// Its whole environment.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// Its working folder.
    pub(crate) cwd: &'a str,
    /// Whether it reads from us; otherwise its stdin is empty.
    pub(crate) stdin: Stdin,
}

/// What a program finds on its stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// Nothing.
    Empty,
    /// What we write.
    Pipe,
}

/// A started program.
pub(crate) struct Spawned {
    /// Its pid, also the id of its process group.
    pub(crate) pid: Pid,
    /// Readable once it has ended; absent on kernels without pidfds.
    pub(crate) exit: Option<OwnedFd>,
    /// The end we write, for [`Stdin::Pipe`].
    pub(crate) stdin: Option<OwnedFd>,
    /// The end we read.
    pub(crate) stdout: Option<OwnedFd>,
    /// The end we read.
    pub(crate) stderr: Option<OwnedFd>,
}

/// Starts a program in a process group of its own.
///
/// Nothing here needs code between fork and exec, so std takes `posix_spawn`, whose cost does not
/// grow with this process; that needs a `file` that is a path, see [`resolve`].
///
/// # Errors
/// What the kernel says of the program or of `cwd`.
pub(crate) fn spawn(what: &Spawn<'_>) -> io::Result<Spawned> {
    let mut command = command(what);
    command.stdin(match what.stdin {
        Stdin::Empty => Stdio::null(),
        Stdin::Pipe => Stdio::piped(),
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    let mut child = as_better_choice(|| command.spawn())?;
    let pid = child_pid(&child)?;
    Ok(Spawned {
        pid,
        exit: pidfd_open(pid, PidfdFlags::empty()).ok(),
        stdin: child.stdin.take().map(OwnedFd::from),
        stdout: child.stdout.take().map(OwnedFd::from),
        stderr: child.stderr.take().map(OwnedFd::from),
    })
}

/// Starts a program in a session of its own, with no tie to this one but descent, and leaves it.
///
/// # Errors
/// As [`spawn`].
pub(crate) fn spawn_apart(what: &Spawn<'_>) -> io::Result<Pid> {
    let mut command = command(what);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: `setsid` is one system call on no memory of ours, so it is allowed between fork and
    // exec.
    unsafe {
        command.pre_exec(|| setsid().map(drop).map_err(io::Error::from));
    }
    let child = as_better_choice(|| command.spawn())?;
    child_pid(&child)
}

/// Starts something that the kernel is to kill before us when memory runs out, on the machine or in
/// the run's cgroup: a host that is left can say what happened. It lasts for all below it.
fn as_better_choice<T>(start: impl FnOnce() -> T) -> T {
    const FILE: &str = "/proc/self/oom_score_adj";
    /// A fifth of the memory that there is: more than a host has, less than turns the choice between
    /// two agents around.
    const BETTER: i32 = 200;
    /// The kernel's bound.
    const MOST: i32 = 1000;
    let own = fs::read_to_string(FILE);
    let own: Option<i32> = own.ok().and_then(|text| text.trim().parse().ok());
    let set = |value: i32| {
        // Refused, the choice is the kernel's own: by size, and a host is small.
        drop(fs::write(FILE, value.to_string()));
    };
    if let Some(own) = own {
        set(own.saturating_add(BETTER).min(MOST));
    }
    let started = start();
    if let Some(own) = own {
        set(own);
    }
    started
}

fn command(what: &Spawn<'_>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "this is the process layer")]
    let mut command = Command::new(what.file);
    if let Some((name, arguments)) = what.argv.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(what.env).current_dir(what.cwd);
    command
}

fn child_pid(child: &std::process::Child) -> io::Result<Pid> {
    let number = i32::try_from(child.id()).ok();
    let pid = number.and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::other(format!("impossible pid {}", child.id())))
}

/// Finds the file of a program as a shell would: a name without `/` in the folders of `path`.
/// `None` when there is no such file that may be executed.
pub(crate) fn resolve(program: &str, path: &str, cwd: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let folders = path.split(':');
    // An empty element is the current folder, a rule as old as the shell.
    let mut files = folders.map(|folder| Path::new(cwd).join(folder).join(program));
    files.find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && !file.is_dir()
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// Reaps `pid`, a direct child, if it has ended.
///
/// # Errors
/// When it is no child of ours.
pub(crate) fn reap(pid: Pid) -> io::Result<Option<Ended>> {
    Ok(waitpid(Some(pid), WaitOptions::NOHANG)?.map(|(_, status)| ended(status)))
}

fn ended(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exit(code),
        (None, Some(signal)) => Ended::Signal(signal),
        // Not reached: without WUNTRACED only ended children are reported.
        (None, None) => Ended::Signal(0),
    }
}

/// Asks the program and its process group to end. It must not have been reaped: its group's
/// number is ours only as long.
pub(crate) fn ask_to_end(group: Pid) {
    for signal in [Signal::TERM, Signal::CONT] {
        // Nobody there to hear it is what we want in the end; a refusal (another user's process)
        // is met by the kill.
        let _ = kill_process_group(group, signal);
    }
}

/// Ends this process at once, by a signal that it can not refuse.
pub(crate) fn die() -> ! {
    // The kernel never refuses a signal to oneself; `abort` stands in if it did.
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

/// From here on SIGTERM, SIGINT and SIGHUP change nothing, also for programs started later.
pub(crate) fn ignore_polite_signals() {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
    ignore(&[SIGTERM, SIGINT, SIGHUP]);
}

fn ignore(signals: &[nix::sys::signal::Signal]) {
    for &number in signals {
        // SAFETY: the new disposition is "ignore", no handler of ours that would run at any moment.
        // It can only fail for SIGKILL and SIGSTOP.
        let _ = unsafe { nix::sys::signal::signal(number, nix::sys::signal::SigHandler::SigIgn) };
    }
}

/// Reaps what has come home and ended, but never `keep`, whose exit somebody waits for.
pub(crate) fn reap_strays(keep: Option<Pid>) {
    for child in children_of(getpid()) {
        if Some(child) != keep {
            // "Not ended yet" and "no child any more" are both fine.
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
}

/// What a kill of the family did.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Living processes that were killed.
    pub(crate) killed: usize,
    /// Processes that are still there after [`KILL_MAX`].
    pub(crate) left: Vec<u32>,
}

/// Kills every descendant and waits until none is left, at most [`KILL_MAX`].
///
/// Each round kills all that are there; a process that was killed can not fork any more, so the
/// rounds end unless something sits in the kernel. Descendants are read from the kernel's own lists
/// of children, so no stranger is among them; a number could only pass to a stranger between
/// reading and killing if the whole pid space were used up in that moment.
pub(crate) fn kill_family() -> Sweep {
    let deadline = clock::now() + KILL_MAX;
    let mut killed = BTreeSet::new();
    loop {
        if reap_all() {
            return Sweep {
                killed: killed.len(),
                left: Vec::new(),
            };
        }
        let living: Vec<Pid> = descendants()
            .into_iter()
            .filter(|pid| is_living(*pid))
            .collect();
        kill_all(&living);
        killed.extend(living.iter().map(|pid| pid.as_raw_nonzero().get()));
        if clock::now() >= deadline {
            let left = living
                .iter()
                .map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
            return Sweep {
                killed: killed.len(),
                left: left.collect(),
            };
        }
        await_a_child();
    }
}

/// Reaps every ended child; true when no child is left at all.
fn reap_all() -> bool {
    loop {
        match wait_any(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(Errno::INTR) => {}
            // ECHILD; nothing else can happen here.
            Err(_) => return true,
        }
    }
}

fn kill_all(family: &[Pid]) {
    // Groups never cross sessions and every session below us was born below us, so a group in our
    // own or in a younger session holds descendants only. Unless we do not own our session.
    let own_session = getsid(None).is_ok_and(|session| session == getpid());
    let own_group = getpgid(None).ok();
    let mut groups = BTreeSet::new();
    for &pid in family {
        let group = getpgid(Some(pid)).ok();
        if let Some(group) = group.filter(|group| own_session && Some(*group) != own_group)
            && groups.insert(group.as_raw_nonzero())
        {
            // Gone already is what we want.
            let _ = kill_process_group(group, Signal::KILL);
        }
        // As above.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Waits until one direct child has ended, at most [`KILL_ROUND`].
fn await_a_child() {
    let first = children_of(getpid()).into_iter().next();
    let pidfd = first.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let watched = pidfd.as_ref().map(|fd| (fd.as_fd(), Interest::Read));
    // A failed wait only makes the next round come sooner; the rounds have a deadline.
    drop(wait([watched], Some(KILL_ROUND)));
}

/// Every descendant, ended ones that nobody has collected included.
pub(crate) fn descendants() -> Vec<Pid> {
    let mut found = children_of(getpid());
    let mut next = 0;
    while next < found.len() && found.len() < FAMILY_MAX {
        let more = children_of(found[next]);
        found.extend(more);
        next += 1;
    }
    found
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
fn children_of(pid: Pid) -> Vec<Pid> {
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

/// Whether it has not ended.
pub(crate) fn is_living(pid: Pid) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.is_living())
}

/// Its command line, an excerpt; empty when it is gone.
pub(crate) fn command_line(pid: Pid) -> String {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\0', " ");
    protocol::report::excerpt(text.trim_end(), 200)
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
