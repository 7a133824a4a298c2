//! Reading the journal's lines, and the ruling on damage: a torn tail, or not ours to touch.
//!
//! Only the last commit group may be damaged by a crash, because its sync may not have returned.
//! Every line says where its group began, so the ruling needs no guess:
//! - A segment after another one proves the former whole; only the last segment can have a tail.
//! - Whole lines behind the damage that belong to a group begun at the damage, or to the group of
//!   the last good record, say that the damage lies in the last group: a torn tail.
//! - A whole line of any other group behind the damage says that a later group was begun: the
//!   damage is in a proven group, and everything stops.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::Path;

use super::disk::{Bytes, DiskFile};
use super::error::StoreError;
use super::format::{Head, read_head};
use super::seal::{self, Fault, LINE_MAX};

/// Bytes per read: large enough that a segment takes few calls.
const READ_SIZE: usize = 256 * 1024;

/// How far the chain of records goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Chain {
    /// The last record.
    pub(super) last: Head,
    /// The last record of the last whole write.
    pub(super) whole: Head,
    /// Where that write ends in its segment, or 0 if that is an earlier segment: the place to which
    /// a torn tail is cut.
    pub(super) cut: u64,
    /// Where the last group begins in its segment.
    pub(super) group_offset: u64,
    /// The records before are not known: the first one found is believed.
    unknown: bool,
}

impl Chain {
    /// Goes on after record `seq`, which is durable, at `offset` of a segment.
    pub(super) fn after(seq: u64, offset: u64) -> Self {
        let head = Head {
            seq,
            ..Head::default()
        };
        Chain {
            last: head,
            whole: head,
            cut: offset,
            group_offset: offset,
            unknown: false,
        }
    }

    /// Goes on from the middle of a journal whose earlier part is not read.
    pub(super) fn anywhere() -> Self {
        Chain {
            unknown: true,
            ..Chain::default()
        }
    }

    /// A new segment begins.
    fn enter(&mut self, offset: u64) {
        self.cut = offset;
        self.group_offset = offset;
    }

    fn follow(&mut self, next: Head, from: u64, to: u64) -> Result<(), &'static str> {
        let last = self.last;
        if self.unknown {
            self.unknown = false;
        } else if next.seq != last.seq + 1 {
            return Err("the record's number is not the next one");
        } else if last.left > 0 && (next.left != last.left - 1 || next.group != last.group) {
            return Err("the record is not the next one of its write");
        } else if next.group != next.seq && (next.group != last.group || last.group == 0) {
            return Err("the record's group is neither the last one nor a new one");
        } else if next.term < last.term {
            return Err("the record's term is over");
        }
        if next.group == next.seq {
            self.group_offset = from;
        }
        self.last = next;
        if next.left == 0 {
            self.whole = next;
            self.cut = to;
        }
        Ok(())
    }

    /// Whether the last write is whole.
    fn is_whole(&self) -> bool {
        self.last.left == 0
    }

    /// Whether a whole line behind damage belongs to the group that the damage is in.
    fn in_damaged_group(&self, later: Head) -> bool {
        let goes_on = later.group == self.last.group && later.group != 0;
        let begun_here = later.group == self.last.seq + 1;
        later.seq > self.last.seq && (goes_on || begun_here)
    }
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SegmentEnd {
    /// With a whole write.
    Whole,
    /// With something else, from this byte on.
    Torn { at: u64, why: &'static str },
}

/// One good line: its numbers, its bytes, and where it ends in the segment.
pub(super) struct Line<'a> {
    pub(super) head: Head,
    pub(super) bytes: &'a [u8],
    pub(super) start: u64,
    pub(super) end: u64,
}

/// What is done with each good line.
pub(super) type Each<'a> = dyn FnMut(&Line<'_>) -> Result<(), StoreError> + 'a;

/// Reads a part of one segment up to its end or the first damage.
///
/// # Errors
/// A line of a newer release; a whole line that does not follow the one before; what `each` says;
/// what the system says.
pub(super) fn scan_segment(
    file: &dyn DiskFile,
    path: &Path,
    part: Range<u64>,
    chain: &mut Chain,
    each: &mut Each<'_>,
) -> Result<SegmentEnd, StoreError> {
    chain.enter(part.start);
    let mut reader = BufReader::with_capacity(READ_SIZE, Bytes::of(file, part.start, part.end));
    let mut bytes = Vec::new();
    let mut at = part.start;
    loop {
        bytes.clear();
        let read = (&mut reader).take(LINE_MAX).read_until(b'\n', &mut bytes);
        let count = read.map_err(StoreError::io("read", path))? as u64;
        if count == 0 {
            break;
        }
        if bytes.pop_if(|last| *last == b'\n').is_none() {
            return torn(&bytes, path, at, "the line has no end");
        }
        match seal::check(&bytes) {
            Ok(()) => {}
            Err(Fault::Damaged(why)) => return torn(&bytes, path, at, why),
            Err(newer @ Fault::Newer(_)) => return Err(newer.into_error(path, at)),
        }
        let unreadable = |why| StoreError::unreadable(path, at, why);
        let head = read_head(&bytes).ok_or_else(|| unreadable("the line has no numbers"))?;
        chain.follow(head, at, at + count).map_err(unreadable)?;
        let line = Line {
            head,
            bytes: &bytes,
            start: at,
            end: at + count,
        };
        each(&line)?;
        at += count;
    }
    if chain.is_whole() {
        return Ok(SegmentEnd::Whole);
    }
    Ok(SegmentEnd::Torn {
        at,
        why: "the end of the write is missing",
    })
}

fn torn(bytes: &[u8], path: &Path, at: u64, why: &'static str) -> Result<SegmentEnd, StoreError> {
    match seal::check(bytes) {
        Err(newer @ Fault::Newer(_)) => Err(newer.into_error(path, at)),
        Ok(()) | Err(Fault::Damaged(_)) => Ok(SegmentEnd::Torn { at, why }),
    }
}

/// Rules on the damage that `part` of the last segment begins with: `Ok` if it lies in the last
/// group.
///
/// # Errors
/// [`StoreError::Unreadable`] when a later group was begun, [`StoreError::Newer`] when a line
/// behind the damage is of a newer release.
pub(super) fn rule_tail(
    file: &dyn DiskFile,
    path: &Path,
    part: Range<u64>,
    chain: &Chain,
    why: &str,
) -> Result<(), StoreError> {
    let at = part.start;
    let mut rest = Vec::new();
    Bytes::of(file, at, part.end)
        .read_to_end(&mut rest)
        .map_err(StoreError::io("read", path))?;
    for start in seal::beginnings(&rest) {
        let end = rest[start..].iter().position(|b| *b == b'\n');
        let Some(end) = end else { continue };
        let line = &rest[start..start + end];
        let offset = at + start as u64;
        match seal::check(line) {
            Err(Fault::Damaged(_)) => continue,
            Err(newer @ Fault::Newer(_)) => return Err(newer.into_error(path, offset)),
            Ok(()) => {}
        }
        let head = read_head(line)
            .ok_or_else(|| StoreError::unreadable(path, offset, "the line has no numbers"))?;
        if !chain.in_damaged_group(head) {
            let later = format!("{why}, but record {} of a later group follows", head.seq);
            return Err(StoreError::unreadable(path, at, later));
        }
    }
    Ok(())
}
