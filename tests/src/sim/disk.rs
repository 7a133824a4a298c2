//! A disk that keeps what is pending and what is durable apart, and loses what was not synced.
//!
//! - A killed process loses nothing that it wrote: the page cache lives on.
//! - A power cut keeps of each dirty 512-byte block the old or the new content, in any
//!   combination, or cuts the file at any byte; of each change of a folder that was not synced, it
//!   keeps or loses the change.
//! - A failed sync makes the dirty blocks clean without writing them (what Linux does): a second
//!   sync of them goes well and proves nothing.
//! - A full disk takes a part of a write, then nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use supervisor::store::{Disk, DiskFile, OpenAs};

use super::disk_file::{BLOCK, Content};
use super::rng::Rng;

type Inode = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(Inode),
}

#[derive(Debug, Clone)]
enum Change {
    Made(PathBuf, Node),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

impl Change {
    fn is_in(&self, folder: &Path) -> bool {
        match self {
            Change::Made(path, _) | Change::Removed(path) => path.parent() == Some(folder),
            Change::Renamed(from, to) => {
                from.parent() == Some(folder) || to.parent() == Some(folder)
            }
        }
    }
}

/// Misfortunes of a disk, and how often they were met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DiskCounts {
    /// Writes refused for want of room.
    pub(super) full: u64,
    /// Syncs that failed.
    pub(super) sync_failed: u64,
    /// Power cuts that lost bytes.
    pub(super) bytes_lost: u64,
    /// Power cuts that tore a file at a byte.
    pub(super) torn_at_byte: u64,
    /// Power cuts that kept blocks in another order than they were written.
    pub(super) torn_in_blocks: u64,
    /// Power cuts that lost a change of a folder.
    pub(super) names_lost: u64,
    /// Writes cut short by the death of the process.
    pub(super) cut_short: u64,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    changes: Vec<Change>,
    contents: BTreeMap<Inode, Content>,
    next_inode: Inode,
    /// Room for so many more bytes; absent: for all.
    room: Option<u64>,
    /// The next sync of a file with dirty blocks fails.
    fail_sync: bool,
    /// Calls until the process that makes them dies.
    fuse: Option<u64>,
    dead: bool,
    /// The planted bug: syncs of folders do nothing.
    drop_dir_sync: bool,
    hash: u64,
    counts: DiskCounts,
}

/// The simulated disk; clones share it.
#[derive(Debug, Clone)]
pub(super) struct SimDisk(Arc<Mutex<Inner>>);

impl SimDisk {
    /// A disk with one folder that is durable.
    pub(super) fn new(rng: Rng, root: &Path) -> SimDisk {
        let names = BTreeMap::from([(root.to_owned(), Node::Dir)]);
        SimDisk(Arc::new(Mutex::new(Inner {
            rng,
            durable_names: names.clone(),
            names,
            changes: Vec::new(),
            contents: BTreeMap::new(),
            next_inode: 1,
            room: None,
            fail_sync: false,
            fuse: None,
            dead: false,
            drop_dir_sync: false,
            hash: 0xcbf2_9ce4_8422_2325,
            counts: DiskCounts::default(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk has no room from now on, or has it again.
    pub(super) fn set_full(&self, full: bool) {
        self.inner().room = full.then_some(0);
    }

    /// The next sync of something that is dirty fails.
    pub(super) fn fail_next_sync(&self) {
        self.inner().fail_sync = true;
    }

    /// Nothing goes wrong any more, until it is told to.
    pub(super) fn heal(&self) {
        let mut inner = self.inner();
        inner.fuse = None;
        inner.fail_sync = false;
        inner.room = None;
    }

    /// The process dies at the call after this many more.
    pub(super) fn light_fuse(&self, calls: u64) {
        self.inner().fuse = Some(calls);
    }

    /// Whether the process has died in a call.
    pub(super) fn has_killed(&self) -> bool {
        self.inner().dead
    }

    /// A new process uses the disk; what was written before is still in the cache.
    pub(super) fn new_process(&self) {
        let mut inner = self.inner();
        inner.dead = false;
        inner.fuse = None;
    }

    /// Plants the bug: syncs of folders do nothing.
    pub(super) fn drop_dir_syncs(&self) {
        self.inner().drop_dir_sync = true;
    }

    /// What was met so far.
    pub(super) fn counts(&self) -> DiskCounts {
        self.inner().counts
    }

    /// A number that names everything that was ever written, in order.
    pub(super) fn hash(&self) -> u64 {
        self.inner().hash
    }

    /// The power goes: what was not synced is kept, torn or lost.
    pub(super) fn cut_power(&self) {
        self.inner().cut_power();
    }

    /// A copy as it would be found after a power cut that loses everything that may be lost.
    pub(super) fn worst_case(&self) -> SimDisk {
        let inner = self.inner();
        let mut contents = BTreeMap::new();
        for (inode, content) in &inner.contents {
            let durable = content.durable.clone();
            let cached = durable.clone();
            contents.insert(
                *inode,
                Content {
                    cached,
                    durable,
                    ..Content::default()
                },
            );
        }
        SimDisk(Arc::new(Mutex::new(Inner {
            rng: inner.rng.clone(),
            names: reachable(&inner.durable_names),
            durable_names: reachable(&inner.durable_names),
            changes: Vec::new(),
            contents,
            next_inode: inner.next_inode,
            room: None,
            fail_sync: false,
            fuse: None,
            dead: false,
            drop_dir_sync: false,
            hash: 0,
            counts: DiskCounts::default(),
        })))
    }

    /// The last line of the last `.jsonl` file (by name) of a folder that would survive the worst power cut.
    pub(super) fn durable_last_line(&self, folder: &Path) -> Option<String> {
        let inner = self.inner();
        let names = &inner.durable_names;
        let whole = folder.ancestors().take_while(|it| it.parent().is_some());
        if !whole
            .into_iter()
            .all(|it| names.get(it) == Some(&Node::Dir))
        {
            return None;
        }
        let files = names.iter().filter(|(path, _)| {
            path.parent() == Some(folder) && path.extension().is_some_and(|it| it == "jsonl")
        });
        let mut lines = files.filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path, last_line(&inner.contents.get(inode)?.durable)?)),
            Node::Dir => None,
        });
        // Names of segments are numbers of one width or sort by length first.
        let first = lines.next()?;
        let best = lines.fold(first, |best, next| {
            let key = |path: &PathBuf| (path.as_os_str().len(), path.clone());
            if key(next.0) > key(best.0) {
                next
            } else {
                best
            }
        });
        Some(best.1)
    }

    /// Damages one byte of a file.
    pub(super) fn flip(&self, path: &Path, at: usize, to: u8) {
        let mut inner = self.inner();
        let Some(Node::File(inode)) = inner.names.get(path).copied() else {
            return;
        };
        if let Some(content) = inner.contents.get_mut(&inode) {
            content.cached[at] = to;
            content.durable[at] = to;
        }
    }

    /// Every file that can be read now, with its bytes.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.inner();
        let files = inner.names.iter().filter_map(|(path, node)| match node {
            Node::File(inode) => Some((path.clone(), inner.contents.get(inode)?.cached.clone())),
            Node::Dir => None,
        });
        files.collect()
    }
}

fn last_line(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|b| *b == b'\n')?;
    let start = bytes[..end]
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    Some(String::from_utf8_lossy(&bytes[start..end]).into_owned())
}

/// The names whose folders are all there.
fn reachable(names: &BTreeMap<PathBuf, Node>) -> BTreeMap<PathBuf, Node> {
    let mut kept: BTreeMap<PathBuf, Node> = BTreeMap::new();
    let top = names.keys().next().cloned();
    // A folder sorts before what is in it.
    for (path, node) in names {
        let held = path
            .parent()
            .is_some_and(|it| kept.get(it) == Some(&Node::Dir));
        if held || Some(path) == top.as_ref() {
            kept.insert(path.clone(), *node);
        }
    }
    kept
}

fn gone(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

impl Inner {
    /// Counts one call; the process may die in it.
    fn call(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(gone("the process is dead"));
        }
        if let Some(left) = &mut self.fuse {
            if *left == 0 {
                self.dead = true;
                self.fuse = None;
                return Err(gone("the process died"));
            }
            *left -= 1;
        }
        Ok(())
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn sync_dir(&mut self, folder: &Path) {
        let changes = std::mem::take(&mut self.changes);
        for change in changes {
            if change.is_in(folder) {
                apply(&mut self.durable_names, &change);
            } else {
                self.changes.push(change);
            }
        }
    }

    fn cut_power(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            if self.rng.chance(500) {
                apply(&mut self.durable_names, &change);
            } else {
                self.counts.names_lost += 1;
            }
        }
        self.durable_names = reachable(&self.durable_names);
        self.names = self.durable_names.clone();
        let mut contents = std::mem::take(&mut self.contents);
        for content in contents.values_mut() {
            content.tear(&mut self.rng, &mut self.counts);
        }
        self.contents = contents;
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Made(path, node) => _ = names.insert(path.clone(), *node),
        Change::Removed(path) => _ = names.remove(path),
        Change::Renamed(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call()?;
        let missing: Vec<PathBuf> = path
            .ancestors()
            .take_while(|it| !inner.names.contains_key(*it) && it.parent().is_some())
            .map(Path::to_owned)
            .collect();
        if inner.room == Some(0) && !missing.is_empty() {
            inner.counts.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        for folder in missing.into_iter().rev() {
            inner.change(Change::Made(folder, Node::Dir));
        }
        Ok(())
    }

    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.call()?;
        let found = inner.names.get(path).copied();
        let inode = match (found, how) {
            (Some(Node::Dir), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), OpenAs::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Node::File(inode)), OpenAs::Read | OpenAs::Write) => inode,
            (None, OpenAs::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, OpenAs::Write | OpenAs::New) => {
                if path
                    .parent()
                    .is_none_or(|it| inner.names.get(it) != Some(&Node::Dir))
                {
                    return Err(io::ErrorKind::NotFound.into());
                }
                if inner.room == Some(0) {
                    inner.counts.full += 1;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let inode = inner.next_inode;
                inner.next_inode += 1;
                inner.contents.insert(inode, Content::default());
                inner.change(Change::Made(path.to_owned(), Node::File(inode)));
                inode
            }
        };
        let writable = how != OpenAs::Read;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            inode,
            writable,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call()?;
        if !inner.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(Change::Renamed(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call()?;
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(Node::File(inode)) = inner.names.get(path).copied() {
            let freed = inner
                .contents
                .get(&inode)
                .map_or(0, |content| content.cached.len() as u64);
            inner.room = inner.room.map(|room| room + freed);
        }
        inner.change(Change::Removed(path.to_owned()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut inner = self.inner();
        inner.call()?;
        if inner.names.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = inner.names.keys().filter(|it| it.parent() == Some(path));
        Ok(inside
            .filter_map(|it| it.file_name())
            .map(ToOwned::to_owned)
            .collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.call()?;
        if inner.names.get(path) != Some(&Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !inner.drop_dir_sync {
            inner.sync_dir(path);
        }
        Ok(())
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
    writable: bool,
}

impl SimFile {
    fn with<T>(
        &self,
        act: impl FnOnce(&mut Inner, &mut Content) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = self.disk.inner();
        let mut content = inner.contents.remove(&self.inode).unwrap_or_default();
        let done = act(&mut inner, &mut content);
        inner.contents.insert(self.inode, content);
        done
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|inner, content| {
            inner.call()?;
            Ok(content.cached.len() as u64)
        })
    }

    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        self.with(|inner, content| {
            inner.call()?;
            let rest = content.cached.get(place(offset)?..).unwrap_or_default();
            let count = rest.len().min(to.len());
            to[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.with(|inner, content| {
            let alive = !inner.dead;
            let called = inner.call();
            let offset = place(offset)?;
            let more = (offset + bytes.len()).saturating_sub(content.cached.len()) as u64;
            let (taken, answer) = match called {
                Err(died) if alive => {
                    inner.counts.cut_short += 1;
                    (inner.rng.index(bytes.len() + 1), Err(died))
                }
                Err(dead) => (0, Err(dead)),
                Ok(()) if inner.room.is_some_and(|room| room < more) => {
                    inner.counts.full += 1;
                    (
                        inner.rng.index(bytes.len() + 1),
                        Err(io::ErrorKind::StorageFull.into()),
                    )
                }
                Ok(()) => {
                    inner.room = inner.room.map(|room| room - more);
                    (bytes.len(), Ok(()))
                }
            };
            content.put(offset, &bytes[..taken]);
            inner.mix(&bytes[..taken]);
            answer
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|inner, content| {
            inner.call()?;
            if inner.fail_sync && !content.dirty.is_empty() {
                inner.fail_sync = false;
                inner.counts.sync_failed += 1;
                content.given_up.append(&mut content.dirty);
                return Err(io::Error::from_raw_os_error(5));
            }
            for block in std::mem::take(&mut content.dirty) {
                content.copy_block(block);
            }
            content.durable.resize(content.cached.len(), 0);
            Ok(())
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.with(|inner, content| {
            inner.call()?;
            let len = place(len)?;
            let last = len / BLOCK;
            content.cached.resize(len, 0);
            // What is cut off is neither dirty nor in doubt; the block of the cut is written anew.
            content.dirty.retain(|block| *block < last);
            content.given_up.retain(|block| *block <= last);
            content.dirty.insert(last);
            Ok(())
        })
    }
}
