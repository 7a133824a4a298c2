//! What a dead supervisor leaves: its hosts become our children, end by themselves because their
//! stdin has ended, and whatever does not is killed and collected.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use supervisor_core::time::Boot;

use crate::driver::recover::Patience;
use crate::process::orphans::{self, CLEAN_PASSES, Swept};
use crate::process::{pidfd, scan, stat};

/// Longest wait before the list of children is read anew: a host that has ended may have left
/// something that never ends by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Programs of hosts that are known; those of later ones are killed without being waited for.
const PROGRAMS_MAX: usize = 64;

/// How leftovers are told from what is not ours.
#[derive(Debug)]
pub struct Leftovers {
    /// We had children before we started any: a shell that became this program. Then only what
    /// carries a run's token is ours, and everything else is left alone.
    strangers: bool,
    /// The programs of hosts; none when there is none beside us, and one more each time that a
    /// supervisor became another program.
    hosts: Vec<PathBuf>,
}

impl Leftovers {
    /// Call it before the first supervisor is started.
    ///
    /// # Errors
    /// When the kernel does not list our children.
    pub fn adopt(host: Option<PathBuf>) -> io::Result<Leftovers> {
        let strangers = !orphans::children()?.is_empty();
        orphans::adopt()?;
        let hosts = host.into_iter().collect();
        Ok(Leftovers { strangers, hosts })
    }

    /// From now on hosts may run this program too.
    pub fn add_host(&mut self, program: PathBuf) {
        if !self.hosts.contains(&program) && self.hosts.len() < PROGRAMS_MAX {
            self.hosts.push(program);
        }
    }

    /// Ends what is left; `clock` reads the boot-time clock. Call it while no supervisor of ours
    /// lives.
    ///
    /// Hosts are waited for as long as a supervisor would wait for them, because their results
    /// become durable meanwhile. What they leave is killed at once.
    ///
    /// # Errors
    /// When the kernel does not list our children.
    pub fn end(&self, clock: impl Fn() -> Boot) -> io::Result<Swept> {
        let ending = u64::try_from(Patience::USUAL.ending.as_millis()).unwrap_or(u64::MAX);
        let until = clock().0.saturating_add(ending);
        let mut ended = 0;
        loop {
            let children = orphans::children()?.into_iter();
            let host = children
                .filter(|&pid| self.is_ours(pid))
                .find(|&pid| self.is_host(pid));
            let (Some(host), true) = (host, clock().0 < until) else {
                break;
            };
            ended +=
                orphans::sweep(1, |pid| !self.is_ours(pid) || self.is_host(pid), |_| {})?.ended;
            // The sweep collects one that has just ended.
            let Ok(pinned) = pidfd::open(host) else {
                continue;
            };
            if pidfd::wait_ended(&pinned, LOOK_AGAIN)? {
                pidfd::reap(pinned.as_fd())?;
            }
        }
        let swept = orphans::sweep(CLEAN_PASSES, |pid| !self.is_ours(pid), |_| {})?;
        ended += swept.ended;
        Ok(Swept { ended, ..swept })
    }

    fn is_ours(&self, pid: u32) -> bool {
        !self.strangers || scan::token_of(pid).is_some()
    }

    /// Whether a child of ours runs the hosts' program. It decides on patience alone.
    fn is_host(&self, pid: u32) -> bool {
        let program = stat::program(pid);
        program.is_some_and(|program| self.hosts.iter().any(|host| host == as_installed(&program)))
    }
}

/// The name of a program as it was installed: the kernel adds a word when another one has taken its
/// place meanwhile.
pub fn as_installed(program: &Path) -> &Path {
    let name = program.as_os_str().as_bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    Path::new(OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_keeps_its_name_when_another_one_takes_its_place() {
        let host = Path::new("/opt/bin/agent-host");
        assert_eq!(
            as_installed(Path::new("/opt/bin/agent-host (deleted)")),
            host
        );
        assert_eq!(as_installed(host), host);
        let other = Path::new("/opt/bin/agent-host (deleted) x");
        assert_eq!(as_installed(other), other);
    }
}
