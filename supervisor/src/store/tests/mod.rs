//! Stories of the store.

mod arbitrary;
mod checkpoints;
mod disk;
mod errors;
mod faults;
mod format;
mod golden;
mod histories;
mod inbox;
mod index;
mod journal;
mod live_reader;
mod lock;
mod paths;
mod registry;
mod sample;
mod seal;
mod torn;

use std::path::PathBuf;
use std::sync::Arc;

use supervisor_core::record::Entry;
use supervisor_core::time::Wall;

use super::{Check, Journal, Loaded, StateDir, StoreError, load, open_for_append};
use disk::MemDisk;

/// The batch that most stories are about.
fn dir() -> StateDir {
    StateDir::at("/state/batches/b")
}

/// A fresh disk with that batch's folders.
fn fresh() -> (MemDisk, StateDir) {
    let (disk, dir) = (MemDisk::default(), dir());
    dir.create(&disk).unwrap();
    (disk, dir)
}

fn open(disk: &MemDisk) -> Result<(Journal, Loaded), StoreError> {
    open_for_append(Arc::new(disk.clone()), &dir(), Wall(1_000))
}

fn read(disk: &MemDisk) -> Result<Loaded, StoreError> {
    load(disk, &dir(), Check::Whole)
}

/// Appends and syncs each slice as a group of its own.
fn write_groups(journal: &mut Journal, groups: &[&[Entry]]) {
    for group in groups {
        journal.append(group).unwrap();
        journal.sync().unwrap();
    }
}

fn segment(number: u32) -> PathBuf {
    dir().segment(number)
}

/// The numbers of records, for short comparisons.
fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}
