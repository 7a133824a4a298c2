//! Starts a process inside a cgroup, at a cost that does not grow with the size of this process.
//!
//! The standard library can not do that: with a hook between fork and exec it copies the page tables
//! of the whole supervisor, and moving a process after its start waits for the whole kernel (10 ms
//! and more). `clone3` starts it where it belongs; the child shares our memory until its exec, as
//! in `posix_spawn`, on a stack of its own and with all signals held back.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What is started.
#[derive(Debug)]
pub struct Birth<'a> {
    /// Its file.
    pub program: &'a CString,
    /// Its arguments, the name first.
    pub argv: &'a [CString],
    /// Its whole environment, `NAME=value`.
    pub env: &'a [CString],
    /// Its working folder.
    pub cwd: &'a CString,
    /// Its stdin, stdout and stderr; none of them is one of our own first three.
    pub stdio: [BorrowedFd<'a>; 3],
    /// The folder of its cgroup.
    pub cgroup: BorrowedFd<'a>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Born {
    /// Its number.
    pub pid: u32,
    /// Its pin, made with it.
    pub pidfd: OwnedFd,
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub use here::{available, start};

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub use elsewhere::{available, start};

#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod elsewhere {
    use super::{Birth, Born, io};

    /// Not on this platform.
    ///
    /// # Errors
    /// Always.
    pub fn available() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Not on this platform.
    ///
    /// # Errors
    /// Always.
    pub fn start(_birth: &Birth<'_>) -> io::Result<Born> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod here {
    use std::arch::asm;
    use std::ffi::{c_char, c_int, c_void};
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::ptr;

    use nix::libc;
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::{Birth, Born, CString, OwnedFd, io};

    /// Stack of the child between clone and exec. It makes a dozen system calls without buffers; a
    /// signal handler can not run on it.
    const STACK_SIZE: usize = 32 * 1024;
    /// Exit status of a child that could not become the program; its error is told by memory.
    const NOT_STARTED: c_int = 127;

    /// `struct clone_args` of `linux/sched.h`, as of Linux 5.7.
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
        cgroup: u64,
    }

    /// Flags above 32 bits, of `linux/sched.h`: handled signals go back to their default, and the
    /// child is born in the cgroup.
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

    /// All that the child needs, laid out before it exists: it must not allocate.
    struct Plan {
        program: *const c_char,
        argv: *const *const c_char,
        env: *const *const c_char,
        cwd: *const c_char,
        stdio: [c_int; 3],
        /// 0, or why the program could not be started; written by the child, read after it is gone
        /// or has become the program.
        error: c_int,
    }

    /// Whether `clone3` may be called: some containers refuse it.
    ///
    /// # Errors
    /// What the kernel says; nothing is started.
    pub fn available() -> io::Result<()> {
        // SAFETY: a structure of size 0 is refused before it is read; nothing is started.
        let refused =
            unsafe { libc::syscall(libc::SYS_clone3, ptr::null_mut::<c_void>(), 0_usize) };
        let error = io::Error::last_os_error();
        if refused == -1 && error.raw_os_error() == Some(libc::EINVAL) {
            return Ok(());
        }
        Err(error)
    }

    /// Starts it. Returns once it has become the program.
    ///
    /// # Errors
    /// What the kernel says of the cgroup, of the program or of its working folder; nothing is left
    /// of it then.
    pub fn start(birth: &Birth<'_>) -> io::Result<Born> {
        let (argv, env) = (pointers(birth.argv), pointers(birth.env));
        let mut plan = Plan {
            program: birth.program.as_ptr(),
            argv: argv.as_ptr(),
            env: env.as_ptr(),
            cwd: birth.cwd.as_ptr(),
            stdio: birth.stdio.map(|fd| fd.as_raw_fd()),
            error: 0,
        };
        // Of 16-byte units, because the stack must be aligned so.
        let mut stack = vec![0_u128; STACK_SIZE / size_of::<u128>()];
        let mut pidfd: c_int = -1;
        let vfork = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;
        let args = CloneArgs {
            flags: u64::from(vfork.unsigned_abs()) | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP,
            pidfd: address(&raw mut pidfd),
            exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
            stack: address(stack.as_mut_ptr()),
            stack_size: STACK_SIZE as u64,
            cgroup: u64::from(birth.cgroup.as_raw_fd().unsigned_abs()),
            ..CloneArgs::default()
        };
        let held = hold_signals()?;
        // SAFETY: `args` describes a stack that only the child uses and that outlives it (vfork:
        // this thread goes on after the child's exec or end), and `plan` and what it points to live
        // as long. The child leaves our memory by exec or `_exit` and writes nothing of it but
        // `plan.error` and the C library's error number, which this suspended thread does not read.
        let result = unsafe { clone3(&args, become_program, &raw mut plan) };
        release_signals(&held)?;
        drop(stack);
        let pid = u32::try_from(result).map_err(|_| {
            io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EINVAL))
        })?;
        // SAFETY: the kernel has put a new descriptor there, and nobody else knows of it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        if plan.error != 0 {
            // It has ended with `NOT_STARTED`, or is about to.
            waitid(WaitId::PidFd(pidfd_of(&pidfd)), WaitIdOptions::EXITED)?;
            return Err(io::Error::from_raw_os_error(plan.error));
        }
        Ok(Born { pid, pidfd })
    }

    fn pidfd_of(pidfd: &OwnedFd) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        pidfd.as_fd()
    }

    fn address<T>(of: *mut T) -> u64 {
        of.expose_provenance() as u64
    }

    fn pointers(texts: &[CString]) -> Vec<*const c_char> {
        let pointers = texts.iter().map(|text| text.as_ptr());
        pointers.chain([ptr::null()]).collect()
    }

    fn hold_signals() -> io::Result<nix::sys::signal::SigSet> {
        let all = nix::sys::signal::SigSet::all();
        Ok(all.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)?)
    }

    fn release_signals(held: &nix::sys::signal::SigSet) -> io::Result<()> {
        Ok(held.thread_set_mask()?)
    }

    /// The child: a few system calls, then the program. Its signals are all held back and none has
    /// a handler any more.
    extern "C" fn become_program(plan: *mut Plan) -> ! {
        // SAFETY: `plan` is the parent's, which waits until we are through with it. Only calls that
        // are allowed between fork and exec are made, on memory that was laid out before.
        unsafe {
            for (target, &fd) in (0..).zip(&(*plan).stdio) {
                if libc::dup2(fd, target) < 0 {
                    give_up(plan);
                }
            }
            if libc::chdir((*plan).cwd) < 0 {
                give_up(plan);
            }
            // Our own program ignores it; others expect the default.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
            libc::execve((*plan).program, (*plan).argv, (*plan).env);
            give_up(plan)
        }
    }

    /// # Safety
    /// In the child only, with the parent's `plan`.
    unsafe fn give_up(plan: *mut Plan) -> ! {
        // SAFETY: as for `become_program`; `_exit` runs nothing of ours.
        unsafe {
            (*plan).error = *libc::__errno_location();
            libc::_exit(NOT_STARTED)
        }
    }

    /// `clone3` whose child calls `entry(plan)` on the stack of `args`. Returns the child's number, or
    /// a negated error number.
    ///
    /// # Safety
    /// `args` must ask for a stack of its own that is aligned to 16 bytes, and everything that the
    /// child uses must live until it has become another program; `entry` must never return.
    unsafe fn clone3(
        args: &CloneArgs,
        entry: extern "C" fn(*mut Plan) -> !,
        plan: *mut Plan,
    ) -> i64 {
        let mut result: i64;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the system call changes rax, rcx and r11 only. In the parent rax is not 0 and
        // execution goes on behind the block. In the child the stack pointer is the top of the new
        // stack, and it never comes back: `entry` does not return.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, {plan}",
                "call {entry}",
                "ud2",
                "2:",
                plan = in(reg) plan,
                entry = in(reg) entry,
                inlateout("rax") libc::SYS_clone3 => result,
                in("rdi") ptr::from_ref(args),
                in("rsi") size_of::<CloneArgs>(),
                out("rcx") _,
                out("r11") _,
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above; the system call changes x0 only.
        unsafe {
            asm!(
                "svc 0",
                "cbnz x0, 2f",
                "mov x29, xzr",
                "mov x0, {plan}",
                "blr {entry}",
                "brk 1",
                "2:",
                plan = in(reg) plan,
                entry = in(reg) entry,
                in("x8") libc::SYS_clone3,
                inlateout("x0") ptr::from_ref(args) as i64 => result,
                in("x1") size_of::<CloneArgs>(),
            );
        }
        result
    }
}
