//! The journal: append-only segments, made durable group by group.
//!
//! `append` writes, `sync` makes durable; everything between two syncs is one commit group. A write
//! that the disk has no room for is taken back, and may be made again later. After any other
//! failure, above all a failed sync, the descriptor is not used again: the system may have dropped
//! the bytes and would then call a second sync a success. `reopen` goes back to what is proven, and
//! the caller appends the rest again.
//!
//! On a full disk the caller gives the reserve up, appends the refused group again and behind it the
//! record that the batch pauses: both fit into the room that the reserve had. Once there is room
//! again, `ensure_reserve` puts it back.

use std::path::PathBuf;
use std::sync::Arc;

use supervisor_core::record::Entry;

use super::disk::{Bytes, Disk, DiskFile, OpenAs};
use super::error::StoreError;
use super::format::write_line;
use super::scan::{Chain, SegmentEnd, scan_segment};
use super::seal::LINE_MAX;
use super::state_dir::StateDir;

/// A segment is closed by the first group that reaches this size, bytes: large enough that a batch
/// has few, small enough for any editor.
pub const SEGMENT_MAX: u64 = 64 * 1024 * 1024;

/// Size of the file that is given up when the disk is full, bytes: room for the group that did not
/// fit and for the record that says so.
pub const RESERVE_SIZE: usize = 64 * 1024;

/// A place between two records of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The record that ends here; 0 before the first.
    pub seq: u64,
    /// The segment, from 1; 0 before the first.
    pub segment: u32,
    /// Bytes into the segment.
    pub offset: u64,
}

/// Where and how a journal goes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resume {
    /// The last segment; 0 if there is none.
    pub(super) segment: u32,
    /// Where its next record is written.
    pub(super) offset: u64,
    /// Where its last group begins; `offset` if it has none.
    pub(super) group_offset: u64,
    /// The term of the last record.
    pub(super) term: u64,
}

/// The open journal of one batch.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: StateDir,
    /// Absent until the first record, and from a failure to `reopen`.
    file: Option<Box<dyn DiskFile>>,
    /// The end of the last durable record.
    durable: Position,
    /// The last record written, and where the next one goes.
    written: Position,
    /// The highest term seen: a supervisor of a lower one was replaced.
    term: u64,
    /// The name of the current segment is not durable yet.
    new_segment: bool,
    failed: bool,
    segment_max: u64,
    /// Reused from append to append.
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("durable", &self.durable)
            .field("written", &self.written)
            .field("term", &self.term)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// The buffer is given back above this size, bytes: one large record should not cost memory for
/// the rest of the batch.
const BUFFER_KEPT_MAX: usize = 1024 * 1024;

impl Journal {
    /// Goes on after `end`. What was read there may never have reached the disk (its sync may have
    /// failed, and what was read came from memory), so the last group is written again in its place
    /// and synced before a next one can claim to prove it.
    pub(super) fn resume(
        disk: Arc<dyn Disk>,
        dir: &StateDir,
        end: Position,
        at: &Resume,
    ) -> Result<Self, StoreError> {
        let mut journal = Journal {
            disk,
            dir: dir.clone(),
            file: None,
            durable: end,
            written: Position {
                seq: end.seq,
                segment: at.segment,
                offset: at.offset,
            },
            term: at.term,
            // Its name may be as little durable as its last group.
            new_segment: true,
            failed: false,
            segment_max: SEGMENT_MAX,
            buffer: Vec::new(),
        };
        if at.segment == 0 {
            return Ok(journal);
        }
        let path = dir.segment(at.segment);
        let mut file = journal
            .disk
            .open(&path, OpenAs::Write)
            .map_err(StoreError::io("open", &path))?;
        let group = read_range(&*file, at.group_offset, at.offset)
            .map_err(StoreError::io("read", &path))?;
        file.write_at(at.group_offset, &group)
            .map_err(|error| StoreError::writing(&path, error))?;
        journal.make_durable(&mut *file)?;
        journal.file = Some(file);
        Ok(journal)
    }

    /// Closes segments at another size, for tests.
    #[must_use]
    pub fn with_segment_max(mut self, bytes: u64) -> Self {
        self.segment_max = bytes;
        self
    }

    /// Writes `entries` behind the last ones, all or none; returns their size in bytes. They are
    /// durable once [`Journal::sync`] has returned, and until then belong to the same group as what
    /// was appended since the last sync.
    ///
    /// # Errors
    /// [`StoreError::Full`]: nothing was written, the same call may be made again.
    /// [`StoreError::OutOfOrder`], [`StoreError::Limit`]: nothing was written.
    /// [`StoreError::Io`], [`StoreError::NeedsReopen`]: call [`Journal::reopen`].
    pub fn append(&mut self, entries: &[Entry]) -> Result<u64, StoreError> {
        if self.failed {
            return Err(StoreError::NeedsReopen { file: self.path() });
        }
        if entries.is_empty() {
            return Ok(0);
        }
        let (seq, term) = self.check_order(entries)?;
        self.encode(entries)?;
        self.enter_segment()?;
        let bytes = self.buffer.len() as u64;
        self.write()?;
        self.written.seq = seq;
        self.written.offset += bytes;
        self.term = term;
        if self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = Vec::new();
        }
        Ok(bytes)
    }

    /// Makes everything appended durable; returns the place up to which it is.
    ///
    /// # Errors
    /// [`StoreError::SyncFailed`], [`StoreError::NeedsReopen`]: call [`Journal::reopen`].
    pub fn sync(&mut self) -> Result<Position, StoreError> {
        if self.failed {
            return Err(StoreError::NeedsReopen { file: self.path() });
        }
        if self.written.seq == self.durable.seq {
            return Ok(self.durable);
        }
        let Some(mut file) = self.file.take() else {
            return Err(StoreError::NeedsReopen { file: self.path() });
        };
        if let Err(error) = self.make_durable(&mut *file) {
            self.fail();
            return Err(error);
        }
        self.file = Some(file);
        self.durable = self.written;
        Ok(self.durable)
    }

    /// The place up to which everything is durable.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// After a failure: opens the segment anew, reads back what is proven, cuts what is not, and
    /// returns the proven place. Every record after it must be appended again.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] when what was proven is not there; what the disk says, after
    /// which `reopen` may be called again later.
    pub fn reopen(&mut self) -> Result<Position, StoreError> {
        self.fail();
        let path = self.path();
        if self.written.segment == 0 {
            self.failed = false;
            return Ok(self.durable);
        }
        let mut file = self
            .disk
            .open(&path, OpenAs::Write)
            .map_err(StoreError::io("open", &path))?;
        let same_segment = self.written.segment == self.durable.segment;
        let proven = if same_segment { self.durable.offset } else { 0 };
        let mut chain = Chain::anywhere();
        let end = scan_segment(&*file, &path, 0..proven, &mut chain, &mut |_| Ok(()))?;
        let same_end = proven == 0 || chain.whole.seq == self.durable.seq;
        if end != SegmentEnd::Whole || chain.cut != proven || !same_end {
            let why = "records that were durable are not there any more";
            return Err(StoreError::unreadable(&path, chain.cut, why));
        }
        file.truncate(proven)
            .map_err(StoreError::io("cut", &path))?;
        self.new_segment = true;
        self.make_durable(&mut *file)?;
        self.written.seq = self.durable.seq;
        self.written.offset = proven;
        self.file = Some(file);
        self.failed = false;
        Ok(self.durable)
    }

    /// Gives the reserve up, so that a group and the record of the pause fit on a full disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn release_reserve(&self) -> Result<(), StoreError> {
        release_reserve(&*self.disk, &self.dir)
    }

    /// Makes sure that the reserve is there; `false` when there is no room for it now.
    ///
    /// # Errors
    /// What the disk says, but for want of room.
    pub fn ensure_reserve(&self) -> Result<bool, StoreError> {
        let path = self.dir.reserve();
        match self.disk.open(&path, OpenAs::Read) {
            Ok(file) if file.len().is_ok_and(|len| len >= RESERVE_SIZE as u64) => return Ok(true),
            Ok(_) | Err(_) => {}
        }
        match super::seal::replace_file(&*self.disk, &path, &vec![0; RESERVE_SIZE]) {
            Ok(()) => Ok(true),
            Err(StoreError::Full { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// Syncs the segment, and its name where that is new.
    fn make_durable(&mut self, file: &mut dyn DiskFile) -> Result<(), StoreError> {
        let mut synced = file.sync();
        if self.new_segment {
            synced = synced.and_then(|()| self.disk.sync_dir(&self.dir.journal()));
        }
        synced.map_err(|source| StoreError::SyncFailed {
            file: self.path(),
            source,
        })?;
        self.new_segment = false;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.dir.segment(self.written.segment.max(1))
    }

    fn fail(&mut self) {
        self.failed = true;
        self.file = None;
    }

    /// Number and term of the last of `entries`, which must follow what is written.
    fn check_order(&self, entries: &[Entry]) -> Result<(u64, u64), StoreError> {
        let (mut seq, mut term) = (self.written.seq, self.term);
        for entry in entries {
            if entry.seq != seq + 1 || entry.term < term {
                return Err(StoreError::OutOfOrder {
                    last: seq,
                    last_term: term,
                    found: entry.seq,
                    found_term: entry.term,
                });
            }
            (seq, term) = (entry.seq, entry.term);
        }
        Ok((seq, term))
    }

    fn encode(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        self.buffer.clear();
        let group = self.durable.seq + 1;
        let lefts = (0..entries.len() as u64).rev();
        for (entry, left) in entries.iter().zip(lefts) {
            let start = self.buffer.len();
            write_line(&mut self.buffer, entry, group, left);
            let found = (self.buffer.len() - start) as u64;
            if found > LINE_MAX {
                return Err(StoreError::Limit {
                    what: "bytes of a record",
                    found,
                    max: LINE_MAX,
                });
            }
        }
        Ok(())
    }

    /// Opens the first segment, or the next one where a group has filled the current one.
    fn enter_segment(&mut self) -> Result<(), StoreError> {
        let between_groups = self.written.seq == self.durable.seq;
        let full = self.written.offset >= self.segment_max && between_groups;
        if self.file.is_some() && !full {
            return Ok(());
        }
        let next = self.written.segment + 1;
        let path = self.dir.segment(next);
        let file = self
            .disk
            .open(&path, OpenAs::New)
            .map_err(|error| StoreError::writing(&path, error))?;
        self.file = Some(file);
        self.new_segment = true;
        self.written.segment = next;
        self.written.offset = 0;
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let path = self.path();
        let Some(file) = &mut self.file else {
            return Err(StoreError::NeedsReopen { file: path });
        };
        let offset = self.written.offset;
        let Err(source) = file.write_at(offset, &self.buffer) else {
            return Ok(());
        };
        let taken_back = file.truncate(offset);
        let error = StoreError::writing(&path, source);
        match (&error, taken_back) {
            (StoreError::Full { .. }, Ok(())) => {}
            (_, Ok(()) | Err(_)) => self.fail(),
        }
        if self.failed && matches!(error, StoreError::Full { .. }) {
            return Err(StoreError::NeedsReopen { file: path });
        }
        Err(error)
    }
}

/// Removes the reserve; it may be gone already.
pub(super) fn release_reserve(disk: &dyn Disk, dir: &StateDir) -> Result<(), StoreError> {
    let path = dir.reserve();
    match disk.remove(&path) {
        Ok(()) => disk
            .sync_dir(&dir.journal())
            .map_err(|source| StoreError::SyncFailed {
                file: dir.journal(),
                source,
            }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("remove", &path)(error)),
    }
}

fn read_range(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(0)];
    std::io::Read::read_exact(&mut Bytes::of(file, from, to), &mut bytes)?;
    Ok(bytes)
}
