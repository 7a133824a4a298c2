//! The process room on macOS: the layers that every Unix has, and nothing else.
//!
//! There is no pidfd. A pin is a `kqueue` that sees the end of the process; the number and the start
//! stand beside it, and a signal is sent after both were compared. Between that comparison and the
//! signal the process may end and its number be given out anew, which no call of this system
//! excludes; numbers are given out in a circle, so it takes all others first.
//!
//! There is no subreaper, no cgroup, no pid namespace and no limit that others can read: what a host
//! leaves is found by its session, by its token and by recorded identities.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nix::libc;
use nix::sys::signal as signals;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, waitid, waitpid,
};
use supervisor_core::identity::Exit;
use supervisor_core::time::{BootId, Now};

use crate::process::identity::{KernelFile, unusable};
use crate::process::pidfd::{exit_of, has_ended};
use crate::process::stat::{Stat, page_size};

pub use process_macos::{Count, peer, program, set_timer, take_fired, timer};

/// Microseconds, in which times are counted here.
const TICKS_A_SECOND: u64 = 1_000_000;

// Identity.

pub(super) fn node() -> Result<Arc<str>, KernelFile> {
    let id = process_macos::host_id().map_err(|e| unusable("gethostuuid".as_ref(), e))?;
    Ok(format!("{id:032x}").into())
}

pub(super) fn boot_id() -> Result<BootId, KernelFile> {
    let boot = process_macos::boot_session();
    boot.map(BootId)
        .map_err(|e| unusable("kern.bootsessionuuid".as_ref(), e))
}

/// There are none: all processes see the same numbers.
pub(super) fn pid_namespace() -> Result<u64, KernelFile> {
    Ok(0)
}

/// A pin has no inode of its own.
pub(super) fn pidfs_inode(_pin: impl AsFd) -> io::Result<Option<u64>> {
    Ok(None)
}

/// When the process began: microseconds since the Unix epoch.
///
/// # Errors
/// When there is no such process.
pub fn start_ticks(pid: u32) -> io::Result<u64> {
    let found = process_macos::process(pid).ok_or(ErrorKind::NotFound)?;
    Ok(found.started_us)
}

/// Whether a process has ended; that it was killed and has not noticed yet is not told here.
pub fn is_dying(pid: u32) -> bool {
    process_macos::process(pid).is_none_or(|found| found.is_over)
}

// Pins.

#[derive(Debug, Clone, Copy)]
struct Pinned {
    pid: u32,
    started_us: u64,
}

/// What the descriptors of pins stand for, because a `kqueue` can not be asked. A descriptor that is
/// closed leaves its place to the next pin with its number, so there are no more than descriptors.
static PINS: Mutex<BTreeMap<RawFd, Pinned>> = Mutex::new(BTreeMap::new());

/// Watches the process that has this number now.
///
/// # Errors
/// `NotFound` when there is none; others when descriptors are out.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let started_us = start_ticks(pid)?;
    let queue = process_macos::watch_end(pid)?;
    // The number may have passed on before it was watched.
    if start_ticks(pid)? != started_us {
        return Err(ErrorKind::NotFound.into());
    }
    let mut pins = PINS.lock().unwrap_or_else(PoisonError::into_inner);
    pins.insert(queue.as_raw_fd(), Pinned { pid, started_us });
    Ok(queue)
}

fn pinned(pin: BorrowedFd<'_>) -> io::Result<(Pid, Pinned)> {
    let pins = PINS.lock().unwrap_or_else(PoisonError::into_inner);
    let found = pins.get(&pin.as_raw_fd()).copied();
    let found = found.ok_or(ErrorKind::InvalidInput)?;
    let pid = i32::try_from(found.pid).ok().and_then(Pid::from_raw);
    Ok((pid.ok_or(ErrorKind::InvalidInput)?, found))
}

/// Sends a signal to the process of a pin; that it has ended already is no error.
///
/// # Errors
/// When we may not.
pub fn signal(pin: impl AsFd, signal: Signal) -> io::Result<()> {
    let (pid, meant) = pinned(pin.as_fd())?;
    let found = process_macos::process(meant.pid);
    if !found.is_some_and(|it| it.started_us == meant.started_us && !it.is_over) {
        return Ok(());
    }
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(other) => Err(other.into()),
    }
}

/// Collects the exit of a child of ours; `None` while it lives.
///
/// # Errors
/// When it is not a child of ours, or was collected before.
pub fn reap(pin: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    let (pid, _) = pinned(pin)?;
    let mut options = WaitIdOptions::EXITED;
    // The end is told a moment before it can be collected: then that moment is waited for.
    if !has_ended(pin)? {
        options |= WaitIdOptions::NOHANG;
    }
    Ok(waitid(WaitId::Pid(pid), options)?.map(exit_of))
}

/// Waits for the end of a child of ours that was killed, and collects its exit.
///
/// # Errors
/// As [`reap`].
pub fn collect(pin: BorrowedFd<'_>) -> io::Result<()> {
    let (pid, _) = pinned(pin)?;
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)?;
    Ok(())
}

// What the kernel says of a process.

/// Looks at a process; `None` when there is none of that number.
pub fn of(pid: u32) -> Option<Stat> {
    let found = process_macos::process(pid)?;
    let (usage, cpu_us) = process_macos::usage(pid);
    Some(Stat {
        pid,
        is_over: found.is_over,
        parent: found.parent,
        threads: usage.threads,
        start_ticks: found.started_us,
        cpu_ticks: cpu_us,
        // Told of our own children alone.
        ended_cpu_ticks: 0,
        resident_pages: usage.resident_bytes / page_size().max(1),
    })
}

/// The children of a process; nothing when it is gone.
pub fn children(of: &Stat) -> Vec<u32> {
    children_of(of.pid)
}

pub(super) fn children_of(pid: u32) -> Vec<u32> {
    process_macos::children(pid).unwrap_or_default()
}

/// The words of a command line, or the program's file where they are not shown; `None` when it is
/// gone.
pub fn command(pid: u32) -> Option<String> {
    match process_macos::arguments(pid) {
        Ok(started) if !started.command.is_empty() => Some(started.command),
        Ok(_) | Err(_) => Some(program(pid)?.display().to_string()),
    }
}

/// Ticks a second, in which [`of`] counts.
pub fn ticks_a_second() -> u64 {
    TICKS_A_SECOND
}

/// Milliseconds on the clock in which starts are counted: the date. A start does not move when the
/// date is changed, so an age is wrong by that change.
pub fn start_clock_ms(now: &Now) -> u64 {
    u64::try_from(now.wall.0).unwrap_or(0)
}

/// Whether this kernel lists the children of a process: every one does.
///
/// # Errors
/// When it refuses.
pub fn lists_children() -> io::Result<()> {
    process_macos::children(std::process::id()).map(drop)
}

/// The numbers of all processes but ourselves.
///
/// # Errors
/// When the kernel does not list them.
pub fn all_pids() -> io::Result<Vec<u32>> {
    let mut all = process_macos::pids()?;
    all.retain(|&pid| pid != std::process::id());
    Ok(all)
}

/// The environment that a process was started with, each variable ended by a zero byte. That of a
/// program of the system is not shown to ordinary users.
///
/// # Errors
/// When the process is gone or another user's.
pub fn environ_of(pid: u32) -> io::Result<Vec<u8>> {
    Ok(process_macos::arguments(pid)?.environ)
}

/// There is no limit that marks a process.
pub fn hard_limit_of(_pid: u32) -> Option<u64> {
    None
}

/// A tag that was lent to what is started next: there is none here.
#[derive(Debug)]
pub enum Lent {}

impl Drop for Lent {
    fn drop(&mut self) {
        match *self {}
    }
}

/// There is no limit that could carry a tag.
///
/// # Errors
/// Never.
pub fn lend(_token: u128) -> io::Result<Option<Lent>> {
    Ok(None)
}

// What a dead host leaves.

/// Nothing: orphans become `launchd`'s, and no run is recorded to have this layer.
///
/// # Errors
/// Never.
pub fn adopt() -> io::Result<()> {
    Ok(())
}

/// The numbers of all children of this process.
///
/// # Errors
/// When the kernel does not list them.
pub fn own_children() -> io::Result<Vec<u32>> {
    process_macos::children(std::process::id())
}

/// Collects children that have ended and are no hosts; how many.
pub(super) fn collect_ended(is_host: impl Fn(u32) -> bool) -> u32 {
    let ours = children_of(getpid().as_raw_nonzero().get().unsigned_abs());
    let others = ours.into_iter().filter(|&pid| !is_host(pid));
    let others = others.filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let ended = others.filter(|&pid| {
        let waited = waitpid(Some(pid), WaitOptions::NOHANG);
        matches!(waited, Ok(Some(_)))
    });
    u32::try_from(ended.count()).unwrap_or(u32::MAX)
}

// Another program in our place.

/// Not here: a watch on a process does not outlive `exec`, so a supervisor is not replaced in place.
///
/// # Errors
/// Always.
pub fn sealed(_bytes: &[u8]) -> io::Result<File> {
    let why =
        "a supervisor can not be replaced in place on this system: let it end and run it again";
    Err(io::Error::new(ErrorKind::Unsupported, why))
}

/// This process's own program, as an open file.
///
/// # Errors
/// When it is not there any more.
pub fn own_program() -> io::Result<File> {
    File::open(std::env::current_exe()?)
}

/// The name of an open program.
pub fn name_of_open(program: RawFd) -> PathBuf {
    PathBuf::from(format!("/dev/fd/{program}"))
}

/// A program has the name of its file here.
pub fn restore_name() {}

// Signals with their senders.

/// The writing end of the one queue; -1 before there is one.
static QUEUE: AtomicI32 = AtomicI32::new(-1);
/// Bytes of one signal in the queue: its number and its sender's.
const ENTRY: usize = 8;

/// Signals of this process, to be read one by one.
#[derive(Debug)]
pub struct SignalQueue {
    from: OwnedFd,
    _to: OwnedFd,
}

impl SignalQueue {
    /// From now on these signals come here instead of doing what they do.
    ///
    /// # Errors
    /// When descriptors are out.
    pub fn hear(heard: &[signals::Signal]) -> io::Result<SignalQueue> {
        let (from, to) = io::pipe()?;
        let (from, to): (OwnedFd, OwnedFd) = (from.into(), to.into());
        for end in [&from, &to] {
            crate::process::spawn::set_nonblocking(end)?;
        }
        QUEUE.store(to.as_raw_fd(), Ordering::SeqCst);
        let action = signals::SigAction::new(
            signals::SigHandler::SigAction(note),
            signals::SaFlags::SA_SIGINFO | signals::SaFlags::SA_RESTART,
            signals::SigSet::all(),
        );
        for &signal in heard {
            // SAFETY: `note` makes one call that is allowed in it, and keeps `errno`.
            unsafe { signals::sigaction(signal, &action) }?;
        }
        Ok(SignalQueue { from, _to: to })
    }

    /// The next signal and who sent it, `None` for one that the kernel made; `None`: no more for now.
    ///
    /// # Errors
    /// When the queue can not be read.
    pub fn next(&self) -> io::Result<Option<(i32, Option<u32>)>> {
        let mut entry = [0_u8; ENTRY];
        match rustix::io::read(&self.from, &mut entry[..]) {
            Ok(ENTRY) => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let [a, b, c, d, e, f, g, h] = entry;
        let number = i32::from_ne_bytes([a, b, c, d]);
        let sender = u32::from_ne_bytes([e, f, g, h]);
        Ok(Some((number, (sender != 0).then_some(sender))))
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}

/// Writes a signal down. A queue that is full has thousands: one more says nothing new.
extern "C" fn note(number: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    let mut entry = [0_u8; ENTRY];
    // SAFETY: the kernel gives a whole structure to an action of this kind. `write` is allowed in it,
    // reads eight bytes of ours, and a descriptor that is none is an error that is not looked at;
    // `errno` is this thread's own and is set back to what the interrupted code left there.
    unsafe {
        let errno = *libc::__error();
        entry[..4].copy_from_slice(&number.to_ne_bytes());
        entry[4..].copy_from_slice(&(*info).si_pid.to_ne_bytes());
        libc::write(QUEUE.load(Ordering::SeqCst), entry.as_ptr().cast(), ENTRY);
        *libc::__error() = errno;
    }
}
