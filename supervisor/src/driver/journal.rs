//! The journal of the state dir as the commit thread drives it.

use std::sync::Arc;

use supervisor_core::record::Entry;

use crate::driver::commit::{Log, LogError, Written};
use crate::store::{Disk, Journal, StateDir, StoreError, checkpoint};

/// The open journal and what belongs to it.
#[derive(Debug)]
pub struct StateLog {
    journal: Journal,
    disk: DiskHandle,
    dir: StateDir,
    /// The journal must be reopened before it is used again.
    broken_off: bool,
}

struct DiskHandle(Arc<dyn Disk>);

impl std::fmt::Debug for DiskHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl StateLog {
    /// Goes on with this journal.
    pub fn new(journal: Journal, disk: Arc<dyn Disk>, dir: StateDir) -> StateLog {
        StateLog {
            journal,
            disk: DiskHandle(disk),
            dir,
            broken_off: false,
        }
    }

    fn write(&mut self, group: &[Entry]) -> Result<Written, StoreError> {
        if self.broken_off {
            self.journal.reopen()?;
            self.broken_off = false;
        }
        let durable = self.journal.durable().seq;
        let known = group.partition_point(|entry| entry.seq <= durable);
        let bytes = self.journal.append(&group[known..])?;
        let at = self.journal.sync()?;
        Ok(Written { at, bytes })
    }
}

impl Log for StateLog {
    fn commit(&mut self, group: &[Entry]) -> Result<Written, LogError> {
        let written = self.write(group);
        written.map_err(|error| {
            // For want of room nothing was written and the descriptor is sound; after anything
            // else only what is proven by reading it back through a new one counts.
            self.broken_off = !matches!(error, StoreError::Full { .. });
            classify(error)
        })
    }

    fn save(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        checkpoint::write(&*self.disk.0, &self.dir, bytes).map_err(classify)
    }

    fn use_reserve(&mut self) {
        if let Err(error) = self.journal.release_reserve() {
            tracing::warn!(%error, "the reserve can not be given up");
        }
    }

    fn has_room(&mut self) -> bool {
        match self.journal.ensure_reserve() {
            Ok(there) => there,
            Err(error) => {
                tracing::warn!(%error, "the reserve can not be made");
                false
            }
        }
    }
}

fn classify(error: StoreError) -> LogError {
    if error.is_disk() {
        LogError::ForNow(error)
    } else {
        LogError::ForGood(error)
    }
}
