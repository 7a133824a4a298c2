//! A pid namespace of the run's own, for agents that are not trusted: the kernel ends everything in it
//! together with its first process, whatever it did to its session, environment or limits.
//!
//! The process that the supervisor started stays outside and only waits; the host proper is the
//! namespace's first process. Either's death is the other's end: the first process dies with its
//! parent, and the one outside ends with its child's status.

use std::io;

#[cfg(target_os = "linux")]
pub(crate) use here::enter;

/// The variable by which the supervisor asks for it.
const VARIABLE: &str = "SUPERVISOR_PID_NAMESPACE";
/// On which side of the namespace this process finds itself.
pub(crate) enum Inside {
    /// It is the host proper.
    TheRun,
    /// It waited outside; the run is over, with this status.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "there are no namespaces")
    )]
    Outside(u8),
}

/// Whether the supervisor asks for a namespace.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// There are no pid namespaces here.
///
/// # Errors
/// Always: nothing was started.
#[cfg(not(target_os = "linux"))]
pub(crate) fn enter() -> io::Result<Inside> {
    let why = "`containment: pidns` is not known on this system";
    Err(io::Error::new(io::ErrorKind::Unsupported, why))
}

#[cfg(target_os = "linux")]
mod here {
    use std::fs;
    use std::path::Path;

    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork, getgid, getuid, setsid};

    use super::{Inside, io};

    /// Added to the number of a signal that ended the host inside, as shells do.
    const SIGNAL_BASE: i32 = 128;

    /// Makes the namespace and goes on inside. Must come before any thread and any open file of ours.
    ///
    /// # Errors
    /// When this machine does not let this user make one; nothing was started then.
    pub(crate) fn enter() -> io::Result<Inside> {
        let (uid, gid) = (getuid(), getgid());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)?;
        // Everybody is who he was, and there is nobody else.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
        // SAFETY: this program has one thread and no lock is held: the child may do what it likes.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => wait_outside(child),
            ForkResult::Child => begin_inside(),
        }
    }

    /// The pipe belongs to the host inside: its end is seen by the supervisor when that one ends.
    fn wait_outside(child: nix::unistd::Pid) -> io::Result<Inside> {
        drop(crate::process::take_stdio());
        loop {
            let code = match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                Ok(WaitStatus::Signaled(_, signal, _)) => SIGNAL_BASE + signal as i32,
                Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let status = u8::try_from(code).unwrap_or(u8::MAX);
            return Ok(Inside::Outside(status));
        }
    }

    fn begin_inside() -> io::Result<Inside> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        setsid()?;
        // What `/proc` says must be of this namespace: its own numbers, and nobody outside.
        let none: Option<&Path> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), "/proc", Some("proc"), flags, none)?;
        Ok(Inside::TheRun)
    }
}
