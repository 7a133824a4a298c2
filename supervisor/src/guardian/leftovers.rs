//! What a dead supervisor leaves: its hosts become our children, end by themselves because their
//! stdin has ended, and whatever does not is killed and collected.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use supervisor_core::time::Boot;

use crate::driver::recover::Patience;
use crate::process::orphans::{self, CLEAN_PASSES, Swept};
use crate::process::{pidfd, scan};

/// Longest wait before the list of children is read anew: a host that has ended may have left
/// something that never ends by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How leftovers are told from what is not ours.
#[derive(Debug)]
pub struct Leftovers {
    /// We had children before we started any: a shell that became this program. Then only what
    /// carries a run's token is ours, and everything else is left alone.
    strangers: bool,
    /// The hosts' program; `None` when there is none beside us.
    host: Option<PathBuf>,
}

impl Leftovers {
    /// Call it before the first supervisor is started.
    ///
    /// # Errors
    /// When the kernel does not list our children.
    pub fn adopt(host: Option<PathBuf>) -> io::Result<Leftovers> {
        let strangers = !orphans::children()?.is_empty();
        orphans::adopt()?;
        Ok(Leftovers { strangers, host })
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
                .filter(|&pid| self.is_ours(pid) && self.is_host(pid))
                .next();
            let (Some(host), true) = (host, clock().0 < until) else {
                break;
            };
            ended +=
                orphans::sweep(1, |pid| !self.is_ours(pid) || self.is_host(pid), |_| {})?.ended;
            let pinned = pidfd::open(host)?;
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
        let program = std::fs::read_link(format!("/proc/{pid}/exe"));
        match (program, &self.host) {
            (Ok(program), Some(host)) => is_same(&program, host),
            (Ok(_) | Err(_), _) => false,
        }
    }
}

/// Whether these are one program, also when a newer release has taken its place meanwhile.
fn is_same(found: &Path, host: &Path) -> bool {
    let found = found.as_os_str().as_encoded_bytes();
    let found = found.strip_suffix(b" (deleted)").unwrap_or(found);
    found == host.as_os_str().as_encoded_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_also_after_an_upgrade() {
        let host = Path::new("/opt/bin/agent-host");
        assert!(is_same(Path::new("/opt/bin/agent-host"), host));
        assert!(is_same(Path::new("/opt/bin/agent-host (deleted)"), host));
        assert!(!is_same(Path::new("/opt/bin/agent-host-2"), host));
        assert!(!is_same(Path::new("/bin/sleep"), host));
    }
}
