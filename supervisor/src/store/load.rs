//! Reading a batch back: checkpoint, then the journal after it; and opening it for more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use supervisor_core::facts::Facts;
use supervisor_core::record::Entry;
use supervisor_core::time::Wall;

use super::checkpoint::{self, Found};
use super::disk::{Bytes, Disk, DiskFile, OpenAs};
use super::error::StoreError;
use super::format::read_line;
use super::journal::{Journal, Position, Resume};
use super::scan::{Chain, Line, SegmentEnd, rule_tail, scan_segment};
use super::seal;
use super::state_dir::StateDir;

/// Most segments of one journal: 6 TB of records; a folder with more is not ours.
const SEGMENTS_MAX: usize = 100_000;

/// How much of the journal is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every line, also what the checkpoint already holds.
    Whole,
    /// Only what the checkpoint does not hold; the whole journal where there is none.
    Tail,
    /// The whole journal while that takes no time to speak of, else the tail: for commands that
    /// only show.
    Quick,
}

/// Up to this many bytes of journal are checked whole by [`Check::Quick`]: under 10 ms.
const QUICK_MAX: u64 = 8 * 1024 * 1024;

/// What a crash left at the end of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Where the last whole write ends.
    pub offset: u64,
    /// Bytes behind it.
    pub bytes: u64,
    /// What is wrong with them.
    pub why: String,
    /// Where they are kept; absent as long as nothing was cut.
    pub kept: Option<PathBuf>,
}

/// A batch as its files tell it.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The state of the checkpoint, where there is one.
    pub checkpoint: Option<Facts>,
    /// Size of the checkpoint, bytes; 0 where there is none.
    pub checkpoint_bytes: u64,
    /// Every record after the checkpoint.
    pub entries: Vec<Entry>,
    /// Size of these records, bytes.
    pub tail_bytes: u64,
    /// What a crash left behind them.
    pub torn: Option<TornTail>,
    /// The end of the last whole write.
    pub end: Position,
}

/// Reads a batch and changes nothing: safe while a supervisor writes.
///
/// # Errors
/// [`StoreError::Unreadable`] and [`StoreError::Newer`] as in the module [`store`](super) says;
/// [`StoreError::Io`] when the system refuses.
pub fn load(disk: &dyn Disk, dir: &StateDir, check: Check) -> Result<Loaded, StoreError> {
    read(disk, dir, check).map(|reading| reading.loaded)
}

/// Reads a batch, cuts a torn tail (its bytes are kept aside in `journal/torn-<at>-<seq>.bin`),
/// makes the last group durable and opens the journal for more. Also for a batch without records.
/// Only the holder of the batch's lock may call it.
///
/// # Errors
/// As [`load`], before anything is changed; [`StoreError::Full`], [`StoreError::SyncFailed`] and
/// [`StoreError::Io`] when the disk does not take the changes.
pub fn open_for_append(
    disk: Arc<dyn Disk>,
    dir: &StateDir,
    at: Wall,
) -> Result<(Journal, Loaded), StoreError> {
    let mut reading = read(&*disk, dir, Check::Whole)?;
    disk.create_dir(&dir.journal())
        .map_err(StoreError::io("make", &dir.journal()))?;
    if let Some(torn) = &mut reading.loaded.torn {
        cut(&*disk, dir, torn, reading.loaded.end.seq, at)?;
    }
    let journal = Journal::resume(disk, dir, reading.loaded.end, &reading.resume)?;
    Ok((journal, reading.loaded))
}

/// Calls `each` with every record of the journal from the first on, checkpoint or not; returns the
/// torn tail, of which no record is told.
///
/// # Errors
/// As [`load`], and what `each` says.
pub fn replay(
    disk: &dyn Disk,
    dir: &StateDir,
    each: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
) -> Result<Option<TornTail>, StoreError> {
    let segments = segments(disk, dir)?;
    let mut chain = Chain::default();
    // Of a write that is not whole nothing is told, so its records wait for the last one.
    let mut write = Vec::new();
    let mut walk = |_segment: u32, path: &Path, line: &Line<'_>| {
        write.push(entry(path, line)?);
        if line.head.left > 0 {
            return Ok(());
        }
        write.drain(..).try_for_each(&mut *each)
    };
    walk_segments(disk, dir, &segments, (1, 0), &mut chain, &mut walk)
}

struct Reading {
    loaded: Loaded,
    resume: Resume,
}

fn read(disk: &dyn Disk, dir: &StateDir, check: Check) -> Result<Reading, StoreError> {
    // The checkpoint first: a journal read after it can only hold more.
    let mut loaded = Loaded::default();
    match checkpoint::read(disk, dir)? {
        Found::None => {}
        Found::Good { facts, at, bytes } => {
            loaded.checkpoint = Some(*facts);
            loaded.checkpoint_bytes = bytes;
            loaded.end = at;
        }
    }
    let start = loaded.end;
    let segments = segments(disk, dir)?;
    let (mut chain, from) = if only_tail(disk, dir, check, &segments, start)? {
        check_start(disk, dir, &segments, start)?;
        let chain = Chain::after(start.seq, start.offset);
        (chain, (start.segment, start.offset))
    } else {
        (Chain::default(), (1, 0))
    };
    let mut walk = |segment: u32, path: &Path, line: &Line<'_>| {
        let place = Position {
            seq: line.head.seq,
            segment,
            offset: line.end,
        };
        loaded.add(dir, start, place, path, line)
    };
    loaded.torn = walk_segments(disk, dir, &segments, from, &mut chain, &mut walk)?;
    let last = chain.whole.seq;
    if last < start.seq {
        return Err(ahead(dir, start, last));
    }
    if last == 0 {
        refuse_lost_journal(disk, dir)?;
    }
    // What the last write began and did not end.
    loaded.entries.retain(|entry| entry.seq <= last);
    let resume = Resume {
        segment: segments.last().copied().unwrap_or(0),
        offset: chain.cut,
        group_offset: chain.group_offset.min(chain.cut),
        term: chain.whole.term,
    };
    Ok(Reading { loaded, resume })
}

/// Hosts are started only for records that are durable: where one was, an empty journal is not that
/// of a batch that is being made, and to begin the batch again would do its work twice.
fn refuse_lost_journal(disk: &dyn Disk, dir: &StateDir) -> Result<(), StoreError> {
    let trace = dir.hosts_log();
    match disk.open(&trace, OpenAs::Read) {
        Ok(_) => {
            let why = "it holds no whole record, but hosts were started: its records were lost";
            Err(StoreError::unreadable(&dir.journal(), 0, why))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("open", &trace)(error)),
    }
}

impl Loaded {
    /// Takes in one line of the journal; `start` is where the checkpoint ends.
    fn add(
        &mut self,
        dir: &StateDir,
        start: Position,
        place: Position,
        path: &Path,
        line: &Line<'_>,
    ) -> Result<(), StoreError> {
        if place.seq == start.seq {
            return check_place(dir, place, start);
        }
        if place.seq > start.seq {
            self.entries.push(entry(path, line)?);
            self.tail_bytes += line.end - line.start;
            if line.head.left == 0 {
                self.end = place;
            }
        }
        Ok(())
    }
}

fn only_tail(
    disk: &dyn Disk,
    dir: &StateDir,
    check: Check,
    segments: &[u32],
    start: Position,
) -> Result<bool, StoreError> {
    let small = || match segments {
        [] => Ok(true),
        [only] => {
            let path = dir.segment(*only);
            let len = open_to_read(disk, &path)?.len();
            Ok(len.map_err(StoreError::io("read", &path))? <= QUICK_MAX)
        }
        [_, ..] => Ok(false),
    };
    match check {
        Check::Whole => Ok(false),
        Check::Tail => Ok(start.seq > 0),
        Check::Quick => Ok(start.seq > 0 && !small()?),
    }
}

/// Numbers of the journal's segments: 1, 2, 3 ... without gaps.
fn segments(disk: &dyn Disk, dir: &StateDir) -> Result<Vec<u32>, StoreError> {
    // A folder that grows while it is listed may show a new segment and not the one before: what
    // is missing twice is missing.
    list_segments(disk, dir).or_else(|_| list_segments(disk, dir))
}

fn list_segments(disk: &dyn Disk, dir: &StateDir) -> Result<Vec<u32>, StoreError> {
    let folder = dir.journal();
    let names = match disk.list(&folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StoreError::io("list", &folder)(error)),
    };
    let mut found: Vec<u32> = names
        .iter()
        .filter_map(|name| StateDir::segment_number(name))
        .collect();
    found.sort_unstable();
    if found.len() > SEGMENTS_MAX {
        return Err(StoreError::unreadable(
            &folder,
            0,
            "it has too many segments",
        ));
    }
    for (number, expected) in found.iter().zip(1..) {
        if *number != expected {
            let missing = dir.segment(expected);
            return Err(StoreError::unreadable(
                &missing,
                0,
                "the segment is missing",
            ));
        }
    }
    Ok(found)
}

/// Reads the segments from a place on; what is torn at the end of the last one.
fn walk_segments(
    disk: &dyn Disk,
    dir: &StateDir,
    segments: &[u32],
    from: (u32, u64),
    chain: &mut Chain,
    each: &mut dyn FnMut(u32, &Path, &Line<'_>) -> Result<(), StoreError>,
) -> Result<Option<TornTail>, StoreError> {
    let (first, offset) = from;
    for number in segments.iter().copied().filter(|number| *number >= first) {
        let path = dir.segment(number);
        let file = open_to_read(disk, &path)?;
        let len = file.len().map_err(StoreError::io("read", &path))?;
        let offset = if number == first { offset } else { 0 };
        let mut each = |line: &Line<'_>| each(number, &path, line);
        let end = scan_segment(&*file, &path, offset..len, chain, &mut each)?;
        let last = segments.last() == Some(&number);
        match end {
            SegmentEnd::Whole if last => {}
            SegmentEnd::Whole if chain.cut > 0 => {}
            SegmentEnd::Whole => {
                return Err(StoreError::unreadable(
                    &path,
                    0,
                    "it is empty but not the last",
                ));
            }
            SegmentEnd::Torn { at, why } if last => {
                rule_tail(&*file, &path, at..len, chain, why)?;
                let offset = chain.cut;
                return Ok(Some(TornTail {
                    file: path,
                    offset,
                    bytes: len.saturating_sub(offset),
                    why: why.to_owned(),
                    kept: None,
                }));
            }
            SegmentEnd::Torn { at, why } => {
                let why = format!("{why}, and a later segment follows");
                return Err(StoreError::unreadable(&path, at, why));
            }
        }
    }
    Ok(None)
}

fn open_to_read(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, StoreError> {
    disk.open(path, OpenAs::Read)
        .map_err(StoreError::io("open", path))
}

fn entry(path: &Path, line: &Line<'_>) -> Result<Entry, StoreError> {
    read_line(line.bytes)
        .map_err(|error| StoreError::unreadable(path, line.start, error.to_string()))
}

/// The checkpoint must end where the journal says that its last record ends.
fn check_place(dir: &StateDir, found: Position, start: Position) -> Result<(), StoreError> {
    if found == start {
        return Ok(());
    }
    let why = format!("the journal has record {} at another place", start.seq);
    Err(StoreError::unreadable(&dir.checkpoint(), 0, why))
}

/// Before a tail is read: the place must exist and be the end of a line.
fn check_start(
    disk: &dyn Disk,
    dir: &StateDir,
    segments: &[u32],
    start: Position,
) -> Result<(), StoreError> {
    if !segments.contains(&start.segment) {
        return Err(ahead(dir, start, 0));
    }
    let path = dir.segment(start.segment);
    let file = open_to_read(disk, &path)?;
    let mut end = [0];
    let before = start.offset.saturating_sub(1);
    let count = file
        .read_at(before, &mut end)
        .map_err(StoreError::io("read", &path))?;
    match (count, end) {
        (0, _) => Err(ahead(dir, start, 0)),
        (_, [b'\n']) => Ok(()),
        (_, _) => Err(StoreError::unreadable(
            &path,
            before,
            "the checkpoint does not end at the end of a record",
        )),
    }
}

fn ahead(dir: &StateDir, start: Position, end: u64) -> StoreError {
    let why = match end {
        0 => format!("it holds record {}, the journal does not", start.seq),
        _ => format!("it holds record {}, the journal ends at {end}", start.seq),
    };
    StoreError::unreadable(&dir.checkpoint(), 0, why)
}

/// Keeps the torn bytes aside, then cuts them off. Safe to do twice.
fn cut(
    disk: &dyn Disk,
    dir: &StateDir,
    torn: &mut TornTail,
    seq: u64,
    at: Wall,
) -> Result<(), StoreError> {
    let mut file = disk
        .open(&torn.file, OpenAs::Write)
        .map_err(StoreError::io("open", &torn.file))?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut Bytes::of(&*file, torn.offset, u64::MAX), &mut bytes)
        .map_err(StoreError::io("read", &torn.file))?;
    let kept = dir.torn(at, seq);
    match seal::replace_file(disk, &kept, &bytes) {
        // A full disk is what tears tails most often: the reserve makes room for what is kept.
        Err(StoreError::Full { .. }) => {
            super::journal::release_reserve(disk, dir)?;
            seal::replace_file(disk, &kept, &bytes)?;
        }
        other => other?,
    }
    file.truncate(torn.offset)
        .map_err(StoreError::io("cut", &torn.file))?;
    file.sync().map_err(|source| StoreError::SyncFailed {
        file: torn.file.clone(),
        source,
    })?;
    torn.kept = Some(kept);
    Ok(())
}
