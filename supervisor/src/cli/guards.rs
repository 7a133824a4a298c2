//! Who starts the supervisor of a batch again, as the lock files say and the kernel confirms.

use crate::cli::error::CliError;
use crate::cli::open::Found;
use crate::process::identity::start_ticks;
use crate::process::pidfd;
use crate::store::lock::{self, Guardian, Holder, LockState};
use crate::view::Guard;

impl Found {
    /// The guardian of whoever held the batch last, or the one that has taken its place, and whether
    /// it lives: then it is that one's to start the next supervisor, or it is just ending.
    ///
    /// # Errors
    /// When the lock can not be looked at (10).
    pub fn guard(&self) -> Result<Option<Guard>, CliError> {
        let first = self.first_guard()?;
        if first.is_none_or(|guard| guard.alive) {
            return Ok(first);
        }
        let watcher = self.watcher()?.and_then(|watcher| watcher.guardian);
        let watcher = watcher.map(look_at).filter(|guard| guard.alive);
        Ok(watcher.or(first))
    }

    /// The guardian that started whoever held the batch last.
    ///
    /// # Errors
    /// When the lock can not be looked at (10).
    pub fn first_guard(&self) -> Result<Option<Guard>, CliError> {
        let holder = lock::last_holder(&self.dir)?;
        Ok(holder.and_then(|holder| holder.guardian).map(look_at))
    }

    /// Whoever has taken the place of a guardian that died.
    ///
    /// # Errors
    /// When its lock can not be looked at (10).
    pub fn watcher(&self) -> Result<Option<Holder>, CliError> {
        Ok(match lock::watcher(&self.dir)? {
            LockState::Held(holder) => holder,
            LockState::Free => None,
        })
    }
}

fn look_at(guardian: Guardian) -> Guard {
    let ticks = start_ticks(guardian.pid).ok();
    Guard {
        pid: guardian.pid,
        alive: ticks == Some(guardian.start_ticks) && !is_over(guardian.pid),
    }
}

/// Whether the process has ended and only waits for its exit to be collected.
fn is_over(pid: u32) -> bool {
    // One that can not be pinned is gone meanwhile.
    pidfd::open(pid).and_then(pidfd::has_ended).unwrap_or(true)
}
