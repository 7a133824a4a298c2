//! Every call that makes, signals or reaps a process.
//!
//! On Linux the host is the subreaper of its run: a descendant whose parent died becomes the host's
//! own child, whatever session it is in. So "no child left" (`ECHILD`) proves that nothing is left.
//! Elsewhere it does not, and what went astray is looked for ([`kernel::strays`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpgid, getpid, getsid, kill_process,
    kill_process_group, setsid, wait as wait_any, waitpid,
};

use crate::clock;
use crate::kernel::{self, Stat, children_of};
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
/// Most bytes of a command line that are read (64 KiB): a server is recognised by far less.
const ARGUMENTS_MAX: u64 = 64 << 10;
/// Longest command line that is shown, bytes.
const COMMAND_LINE_MAX: usize = 200;

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
    kernel::begin()
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
        exit: kernel::watch_end(pid),
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

/// Kills every descendant, and what else the kernel shows to be of the run, and waits until none is
/// left, at most [`KILL_MAX`].
///
/// Each round kills all that are there; a process that was killed can not fork any more, so the
/// rounds end unless something sits in the kernel. Descendants are read from the kernel's own lists
/// of children, so no stranger is among them; a number could only pass to a stranger between
/// reading and killing if the whole pid space were used up in that moment.
pub(crate) fn kill_family() -> Sweep {
    let deadline = clock::now() + KILL_MAX;
    let mut killed = BTreeSet::new();
    loop {
        let is_alone = reap_all();
        let strays = kernel::strays();
        if is_alone && strays.is_empty() {
            return Sweep {
                killed: killed.len(),
                left: Vec::new(),
            };
        }
        let family = descendants().into_iter().chain(strays);
        let living: Vec<Pid> = family.filter(|pid| is_living(*pid)).collect();
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
    let end = first.and_then(kernel::watch_end);
    let watched = end.as_ref().map(|fd| (fd.as_fd(), Interest::Read));
    // A failed wait only makes the next round come sooner; the rounds have a deadline.
    drop(wait([watched], Some(KILL_ROUND)));
}

/// Every descendant, ended ones that nobody has collected included.
pub(crate) fn descendants() -> Vec<Pid> {
    descendants_but(|_| false)
}

/// As [`descendants`], without those that are to be skipped and all below them.
pub(crate) fn descendants_but(skip: impl Fn(Pid) -> bool) -> Vec<Pid> {
    let children_of = |pid| children_of(pid).into_iter().filter(|&pid| !skip(pid));
    let mut found: Vec<Pid> = children_of(getpid()).collect();
    let mut next = 0;
    while next < found.len() && found.len() < FAMILY_MAX {
        let more = children_of(found[next]);
        found.extend(more);
        next += 1;
    }
    found
}

/// Whether it has not ended.
pub(crate) fn is_living(pid: Pid) -> bool {
    Stat::of(pid).is_some_and(|stat| stat.is_living())
}

/// Its program and arguments; empty when it is gone.
pub(crate) fn arguments(pid: Pid) -> Vec<String> {
    kernel::arguments(pid, ARGUMENTS_MAX)
}

/// Its command line, an excerpt; empty when it is gone.
pub(crate) fn command_line(pid: Pid) -> String {
    protocol::report::excerpt(&arguments(pid).join(" "), COMMAND_LINE_MAX)
}
