//! A disk in memory that forgets what was not synced, loses what it failed to sync, and fills up.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::{Disk, DiskFile, OpenAs};

/// What lands on the disk as one piece, bytes.
pub(super) const BLOCK: usize = 512;

#[derive(Default)]
struct Node {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Written since the last sync.
    dirty: Vec<Range<usize>>,
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    folders: BTreeSet<PathBuf>,
    /// Bytes that all files may hold.
    room: Option<usize>,
    /// Syncs of files that will fail from now on.
    failing_syncs: u32,
    /// Writes of files that will fail from now on, not for want of room.
    failing_writes: u32,
    /// Cuts of files that will fail from now on.
    failing_cuts: u32,
    /// Changes that still succeed; then the power is gone.
    changes_left: Option<u32>,
    /// Changes so far.
    changes: u32,
    /// Files opened to be written, in order.
    opened: Vec<PathBuf>,
}

/// The disk; a clone is the same disk.
#[derive(Clone, Default)]
pub(super) struct MemDisk(Arc<Mutex<State>>);

impl MemDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The bytes of a file as every program sees them.
    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.nodes[state.names[path]].content.clone()
    }

    /// Replaces a file behind everyone's back, durable.
    pub(super) fn set(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let number = state.nodes.len();
        state.nodes.push(Node {
            content: bytes.to_vec(),
            durable: bytes.to_vec(),
            dirty: Vec::new(),
        });
        state.names.insert(path.to_owned(), number);
        state.durable_names.insert(path.to_owned(), number);
    }

    /// Removes a file behind everyone's back, durable.
    pub(super) fn forget(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Every file with its bytes.
    pub(super) fn picture(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        let bytes = |number: &usize| state.nodes[*number].content.clone();
        let names = state.names.iter();
        names
            .map(|(path, number)| (path.clone(), bytes(number)))
            .collect()
    }

    /// From now on files may hold `more` bytes beyond what they hold.
    pub(super) fn limit_room(&self, more: Option<usize>) {
        let mut state = self.state();
        let used = used(&state);
        state.room = more.map(|more| used + more);
    }

    pub(super) fn fail_syncs(&self, count: u32) {
        self.state().failing_syncs = count;
    }

    pub(super) fn fail_writes(&self, count: u32) {
        self.state().failing_writes = count;
    }

    pub(super) fn fail_cuts(&self, count: u32) {
        self.state().failing_cuts = count;
    }

    /// The power fails after this many changes.
    pub(super) fn power_fails_after(&self, changes: u32) {
        self.state().changes_left = Some(changes);
    }

    pub(super) fn changes(&self) -> u32 {
        self.state().changes
    }

    pub(super) fn opened(&self) -> Vec<PathBuf> {
        self.state().opened.clone()
    }

    /// The power comes back. What was synced is there; of what was not, every block and every name
    /// is there if `landed` says so.
    pub(super) fn restart(&self, mut landed: impl FnMut() -> bool) {
        let mut state = self.state();
        let State {
            nodes,
            names,
            durable_names,
            ..
        } = &mut *state;
        for node in nodes.iter_mut() {
            for range in std::mem::take(&mut node.dirty) {
                let mut at = range.start;
                while at < range.end.min(node.content.len()) {
                    let end = (at / BLOCK * BLOCK + BLOCK)
                        .min(range.end)
                        .min(node.content.len());
                    if landed() {
                        let len = node.durable.len().max(end);
                        node.durable.resize(len, 0);
                        node.durable[at..end].copy_from_slice(&node.content[at..end]);
                    }
                    at = end;
                }
            }
            node.content = node.durable.clone();
        }
        let changed: BTreeSet<PathBuf> =
            names.keys().chain(durable_names.keys()).cloned().collect();
        for path in changed {
            let (now, durable) = (names.get(&path).copied(), durable_names.get(&path).copied());
            if now != durable && landed() {
                match now {
                    Some(number) => durable_names.insert(path, number),
                    None => durable_names.remove(&path),
                };
            }
        }
        *names = durable_names.clone();
        state.changes_left = None;
        state.failing_syncs = 0;
        state.failing_writes = 0;
        state.failing_cuts = 0;
        state.room = None;
    }
}

fn used(state: &State) -> usize {
    let numbers: BTreeSet<usize> = state.names.values().copied().collect();
    numbers
        .iter()
        .map(|number| state.nodes[*number].content.len())
        .sum()
}

fn refuse(count: &mut u32) -> io::Result<()> {
    if *count == 0 {
        return Ok(());
    }
    *count -= 1;
    Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem))
}

fn gone() -> io::Error {
    io::Error::other("the power is gone")
}

fn change(state: &mut State) -> io::Result<()> {
    state.changes += 1;
    match &mut state.changes_left {
        Some(0) => Err(gone()),
        Some(left) => {
            *left -= 1;
            Ok(())
        }
        None => Ok(()),
    }
}

impl Disk for MemDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.state().folders.insert(path.to_owned());
        Ok(())
    }
    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let found = state.names.get(path).copied();
        let number = match (found, how) {
            (None, OpenAs::Read) => return Err(io::ErrorKind::NotFound.into()),
            (Some(_), OpenAs::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(number), OpenAs::Read | OpenAs::Write) => number,
            (None, OpenAs::Write | OpenAs::New) => {
                change(&mut state)?;
                state.nodes.push(Node::default());
                let number = state.nodes.len() - 1;
                state.names.insert(path.to_owned(), number);
                number
            }
        };
        if how != OpenAs::Read {
            state.opened.push(path.to_owned());
        }
        let disk = self.clone();
        Ok(Box::new(MemFile { disk, number }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        change(&mut state)?;
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        change(&mut state)?;
        let removed = state.names.remove(path);
        removed.map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        if !state.folders.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state
            .names
            .keys()
            .filter(|name| name.parent() == Some(path));
        Ok(inside
            .filter_map(|name| name.file_name().map(ToOwned::to_owned))
            .collect())
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        change(&mut state)?;
        let inside = |name: &PathBuf| name.parent() == Some(path);
        let State {
            names,
            durable_names,
            ..
        } = &mut *state;
        durable_names.retain(|name, _| !inside(name));
        let now = names.iter().filter(|(name, _)| inside(name));
        durable_names.extend(now.map(|(name, number)| (name.clone(), *number)));
        Ok(())
    }
}

struct MemFile {
    disk: MemDisk,
    number: usize,
}

impl DiskFile for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().nodes[self.number].content.len() as u64)
    }
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let content = &state.nodes[self.number].content;
        let from = content.len().min(offset as usize);
        let count = to.len().min(content.len() - from);
        to[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        refuse(&mut state.failing_writes)?;
        let powered = change(&mut state);
        let offset = offset as usize;
        let grows = (offset + bytes.len()).saturating_sub(state.nodes[self.number].content.len());
        let room = state
            .room
            .map_or(usize::MAX, |room| room.saturating_sub(used(&state)));
        let mut count = bytes.len() - grows.saturating_sub(room);
        if powered.is_err() {
            count /= 2;
        }
        let node = &mut state.nodes[self.number];
        let len = node.content.len().max(offset + count);
        node.content.resize(len, 0);
        node.content[offset..offset + count].copy_from_slice(&bytes[..count]);
        node.dirty.push(offset..offset + count);
        powered?;
        if count < bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        change(&mut state)?;
        let fails = state.failing_syncs > 0;
        state.failing_syncs = state.failing_syncs.saturating_sub(1);
        let node = &mut state.nodes[self.number];
        let dirty = std::mem::take(&mut node.dirty);
        if fails {
            // As Linux does: the pages count as clean from now on, and are lost.
            return Err(io::Error::other("I/O error"));
        }
        node.durable.resize(node.content.len(), 0);
        for range in dirty {
            let range = range.start..range.end.min(node.content.len());
            if !range.is_empty() {
                node.durable[range.clone()].copy_from_slice(&node.content[range]);
            }
        }
        Ok(())
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        refuse(&mut state.failing_cuts)?;
        change(&mut state)?;
        state.nodes[self.number].content.resize(len as usize, 0);
        Ok(())
    }
}
