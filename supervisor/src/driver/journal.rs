//! The journal of the state dir as the commit thread drives it.

use std::sync::Arc;

use supervisor_core::record::Entry;

use crate::driver::commit::{Log, LogError, Written};
use crate::store::{Disk, Journal, StateDir, StoreError, checkpoint, registry};

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
    /// Goes on with this journal, and keeps room back for a full disk.
    pub fn new(journal: Journal, disk: Arc<dyn Disk>, dir: StateDir) -> StateLog {
        let mut log = StateLog {
            journal,
            disk: DiskHandle(disk),
            dir,
            broken_off: false,
        };
        if !log.has_room() {
            tracing::warn!("the disk is as good as full: no room can be kept back");
        }
        log
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

    fn list(&mut self, bytes: &[u8]) {
        if let Err(error) = registry::write(&*self.disk.0, &self.dir, bytes) {
            tracing::debug!(%error, "the list of live processes is older than the journal");
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Check, DiskFile, OpenAs, RealDisk, load, open_for_append};
    use std::ffi::OsString;
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use supervisor_core::record::Record;
    use supervisor_core::time::{Now, Wall};

    /// The real disk, but the next so many syncs or writes of journal segments fail.
    #[derive(Default)]
    struct Failing {
        syncs: Arc<AtomicU32>,
        writes: Arc<AtomicU32>,
    }

    struct FailingFile {
        file: Box<dyn DiskFile>,
        syncs: Arc<AtomicU32>,
        writes: Arc<AtomicU32>,
    }

    /// Takes one from the count; whether there was one.
    fn take(count: &AtomicU32) -> bool {
        let fewer = |left: u32| left.checked_sub(1);
        count.fetch_update(Relaxed, Relaxed, fewer).is_ok()
    }

    impl DiskFile for FailingFile {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }
        fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
            self.file.read_at(offset, to)
        }
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            if take(&self.writes) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.file.write_at(offset, bytes)
        }
        fn sync(&mut self) -> io::Result<()> {
            if take(&self.syncs) {
                return Err(io::Error::other("the disk is gone"));
            }
            self.file.sync()
        }
        fn truncate(&mut self, len: u64) -> io::Result<()> {
            self.file.truncate(len)
        }
    }

    impl Disk for Failing {
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            RealDisk.create_dir(path)
        }
        fn open(&self, path: &Path, how: OpenAs) -> io::Result<Box<dyn DiskFile>> {
            let file = RealDisk.open(path, how)?;
            if path.extension().is_none_or(|kind| kind != "jsonl") {
                return Ok(file);
            }
            let (syncs, writes) = (self.syncs.clone(), self.writes.clone());
            Ok(Box::new(FailingFile {
                file,
                syncs,
                writes,
            }))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }
        fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
            RealDisk.list(path)
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            RealDisk.sync_dir(path)
        }
    }

    fn entries(seqs: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        seqs.map(|seq| Entry {
            seq,
            term: 1,
            now: Now::default(),
            record: Record::PlanClosed,
        })
        .collect()
    }

    fn log(folder: &Path, failing: Failing) -> StateLog {
        let dir = StateDir::at(folder);
        dir.create(&RealDisk).unwrap();
        let disk: Arc<dyn Disk> = Arc::new(failing);
        let (journal, _) = open_for_append(disk.clone(), &dir, Wall(1)).unwrap();
        StateLog::new(journal, disk, dir)
    }

    fn seqs(folder: &Path) -> Vec<u64> {
        let loaded = load(&RealDisk, &StateDir::at(folder), Check::Whole).unwrap();
        loaded.entries.iter().map(|entry| entry.seq).collect()
    }

    #[test]
    fn after_a_failed_sync_every_record_is_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let failing = Failing::default();
        let syncs = failing.syncs.clone();
        let mut log = log(folder.path(), failing);
        log.commit(&entries(1..=2)).unwrap();
        syncs.store(2, Relaxed); // the group's own, and that of the first reopening
        for _ in 0..2 {
            let error = log.commit(&entries(3..=5)).unwrap_err();
            assert!(matches!(error, LogError::ForNow(_)), "{error:?}");
        }
        let written = log.commit(&entries(3..=5)).unwrap();
        assert_eq!(written.at.seq, 5);
        assert_eq!(seqs(folder.path()), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_full_disk_keeps_the_group_and_the_reserve_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let failing = Failing::default();
        let writes = failing.writes.clone();
        let mut log = log(folder.path(), failing);
        let reserve = StateDir::at(folder.path()).reserve();
        assert!(reserve.exists(), "nothing is kept back");
        writes.store(1, Relaxed);
        let error = log.commit(&entries(1..=1)).unwrap_err();
        assert!(matches!(error, LogError::ForNow(_)), "{error:?}");
        log.use_reserve();
        assert!(!reserve.exists());
        log.commit(&entries(1..=1)).unwrap();
        assert!(log.has_room() && reserve.exists());
        assert_eq!(seqs(folder.path()), [1]);
    }

    #[test]
    fn records_that_do_not_follow_are_refused_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), Failing::default());
        log.commit(&entries(1..=1)).unwrap();
        let error = log.commit(&entries(3..=3)).unwrap_err();
        assert!(matches!(error, LogError::ForGood(_)), "{error:?}");
    }
}
