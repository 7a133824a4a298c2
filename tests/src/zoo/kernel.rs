//! The system calls of the zoo that no safe library offers; every `unsafe` of the zoo is here.
//!
//! All of it is for programs with one thread: between fork and exec they may do anything.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// Who one is after a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that forked.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes a copy of this process, which must have one thread.
///
/// # Errors
/// When there is no room for it.
pub fn split() -> io::Result<Side> {
    // SAFETY: this process has one thread (the callers are programs of the zoo that start none), so
    // no lock can be held by a thread that does not exist in the child.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// As [`split`], but the new process is a child of our parent.
///
/// # Errors
/// When the kernel refuses, which it does for the first process of a namespace.
pub fn split_as_sibling() -> io::Result<Side> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: `clone` without a stack and without shared memory is a fork: the child goes on here
    // on a copy of our stack. Zeros stand for "no stack, no tid, no tls", in whatever order the
    // architecture has them. One thread, as in `split`.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match i32::try_from(pid).unwrap_or(-1) {
        0 => Ok(Side::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Side::Parent(Pid::from_raw(pid))),
    }
}

/// The arguments of `clone3` up to `set_tid`, as `linux/sched.h` lays them out.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

/// As [`split`], and the new process gets this number, which must be free.
///
/// # Errors
/// When the number is taken, or we are not root.
pub fn split_with_pid(pid: i32) -> io::Result<Side> {
    let wanted = [pid];
    let mut arguments = CloneArgs {
        exit_signal: u64::try_from(libc::SIGCHLD).unwrap_or_default(),
        set_tid: wanted.as_ptr() as u64,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    let size = size_of::<CloneArgs>();
    // SAFETY: the arguments live on this stack during the call, `set_tid` points to one number, and
    // without a stack and shared memory it is a fork. The caller lets the child do nothing but exec
    // or system calls when this process may have other threads.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) };
    match i32::try_from(made).unwrap_or(-1) {
        0 => Ok(Side::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Side::Parent(Pid::from_raw(pid))),
    }
}

/// Does nothing until a signal ends this process, by system calls alone.
pub fn wait_for_the_end() -> ! {
    loop {
        // SAFETY: `pause` takes and changes nothing of ours.
        unsafe { libc::pause() };
    }
}

/// Becomes another program with exactly this environment.
///
/// # Errors
/// Only: it does not come back otherwise.
pub fn become_program(
    program: &Path,
    arguments: &[String],
    environment: &[String],
) -> io::Result<Infallible> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
    let file = text(program.as_os_str().as_bytes())?;
    let mut argv = vec![file.clone()];
    for argument in arguments {
        argv.push(text(argument.as_bytes())?);
    }
    let environment: Result<Vec<CString>, _> = environment
        .iter()
        .map(|entry| text(entry.as_bytes()))
        .collect();
    Ok(nix::unistd::execve(&file, &argv, &environment?)?)
}

/// From here on these signals change nothing.
///
/// # Errors
/// For SIGKILL and SIGSTOP.
pub fn ignore(signals: &[Signal]) -> io::Result<()> {
    for &number in signals {
        // SAFETY: "ignore" is no function of ours that would run at any moment.
        unsafe { signal(number, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// One of the switches of `prctl` that take one number.
///
/// # Errors
/// When the kernel refuses.
pub fn set_switch(switch: i32, value: u64) -> io::Result<()> {
    // SAFETY: the switches used here take one number and no pointer.
    match unsafe { libc::prctl(switch, value, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Adopts the orphans among our descendants.
///
/// # Errors
/// As [`set_switch`].
pub fn adopt() -> io::Result<()> {
    set_switch(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Hides this process from other users.
///
/// # Errors
/// As [`set_switch`].
pub fn hide() -> io::Result<()> {
    set_switch(libc::PR_SET_DUMPABLE, 0)
}

/// Wants no signal when the parent ends.
///
/// # Errors
/// As [`set_switch`].
pub fn forget_parent() -> io::Result<()> {
    set_switch(libc::PR_SET_PDEATHSIG, 0)
}

/// Children that are made from now on live in a pid namespace of their own.
///
/// # Errors
/// When the kernel does not let this user.
pub fn leave_pid_namespace() -> io::Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let user = if root { 0 } else { libc::CLONE_NEWUSER };
    unshare(libc::CLONE_NEWPID | user)
}

/// Leaves namespaces.
///
/// # Errors
/// As [`leave_pid_namespace`].
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: takes a number; changes what this process shares with others, no memory of ours.
    match unsafe { libc::unshare(flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether [`leave_pid_namespace`] works here; found out in a process of its own.
pub fn may_make_pid_namespace() -> bool {
    let tried = crate::world::tool("unshare")
        .args(match nix::unistd::geteuid().is_root() {
            true => ["--pid", "--fork", "true"].as_slice(),
            false => ["--user", "--pid", "--fork", "true"].as_slice(),
        })
        .stderr(std::process::Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Closes every descriptor.
///
/// # Errors
/// Before Linux 5.9.
pub fn close_everything() -> io::Result<()> {
    // SAFETY: the descriptors of this program's own values are closed under them; the caller uses
    // none of them afterwards and ends by `_exit`, so none is closed twice.
    match unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Another number in the limit that is inherited and that the kernel itself does not use.
///
/// # Errors
/// When it is higher than the hard limit.
pub fn lower_lock_limit(number: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: number,
        rlim_max: number,
    };
    // SAFETY: the limit lives on this stack during the call and is only read.
    match unsafe { libc::setrlimit(libc::RLIMIT_LOCKS, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process without running anything of it.
pub fn leave(status: i32) -> ! {
    // SAFETY: ends the process; nothing of ours runs after it.
    unsafe { libc::_exit(status) }
}

/// Holds a process by a descriptor.
///
/// # Errors
/// When there is none with this number.
pub fn pin(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Ends what is held.
pub fn end_pinned(pin: &OwnedFd) {
    // That it has ended already is as good.
    let _ = pidfd_send_signal(pin, rustix::process::Signal::KILL);
}

/// Stops what is held.
pub fn stop_pinned(pin: &OwnedFd) {
    // As above.
    let _ = pidfd_send_signal(pin, rustix::process::Signal::STOP);
}

/// Collects the exit of a child.
///
/// # Errors
/// When it is none.
pub fn collect(pid: Pid) -> io::Result<()> {
    nix::sys::wait::waitpid(pid, None)?;
    Ok(())
}

/// Collects the exit of every child that has ended.
pub fn collect_all() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while waitpid(None, Some(WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status != WaitStatus::StillAlive)
    {}
}

/// Makes a system call do nothing and say that it worked, for this process and everything that it
/// becomes or starts: `arguments` are what the low halves of its first four must be.
///
/// # Errors
/// When the kernel has no seccomp filters.
pub fn pretend(call: i64, arguments: [Option<u32>; 4]) -> io::Result<()> {
    set_switch(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    let program = filter(call, arguments);
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program lives until after the call, `len` is its length, and the kernel copies it.
    match unsafe { libc::syscall(libc::SYS_seccomp, set, 0, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// "If it is this call with these arguments, answer 0 without doing it, else do it."
fn filter(call: i64, arguments: [Option<u32>; 4]) -> Vec<libc::sock_filter> {
    /// Where the number of the call and the low half of its arguments are in `seccomp_data`.
    const CALL: u32 = 0;
    const ARGUMENT: [u32; 4] = [16, 24, 32, 40];
    let mut tests = vec![(CALL, u32::try_from(call).unwrap_or(u32::MAX))];
    for (offset, wanted) in ARGUMENT.into_iter().zip(arguments) {
        tests.extend(wanted.map(|wanted| (offset, wanted)));
    }
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut program = Vec::new();
    for (at, &(offset, wanted)) in tests.iter().enumerate() {
        // Past the tests that follow, two steps each, and past the pretence.
        let otherwise = 2 * (tests.len() - at - 1) + 1;
        program.push(step(load, offset, 0));
        program.push(step(equal, wanted, otherwise));
    }
    // An error number of 0 is success.
    program.push(step(answer, libc::SECCOMP_RET_ERRNO, 0));
    program.push(step(answer, libc::SECCOMP_RET_ALLOW, 0));
    program
}

fn step(code: u32, k: u32, otherwise: usize) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: u8::try_from(otherwise).unwrap_or(u8::MAX),
        k,
    }
}
