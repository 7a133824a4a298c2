//! What the store writes: the one place where a core type meets a file.
//!
//! The types in `format/` are mirrors: each repeats a core type field by field and fixes how it
//! looks on disk (names, words, what is left out when empty). The core knows nothing of them and
//! derives nothing; `#[serde(remote)]` reads and writes the core's values through the mirror. A
//! field or variant that the core gains, loses or renames does not compile here until its mirror
//! says what that means on disk. Unknown fields and words are errors, never skipped.
//!
//! A journal line:
//! `{"v":1,"crc":"..","seq":7,"term":1,"group":6,"left":0,"now":{..},"record":{"task_moved":{..}}}`
//! - `group` is the number of the first record of its commit group. A group is what is made durable
//!   by one sync; the first record of the next group proves that this one was.
//! - `left` is how many records of the same write are still to come: a write counts whole or not at
//!   all, so that what the core decided in one turn is never split.
//!
//! A checkpoint: `{"v":1,"crc":"..","seq":..,"segment":..,"offset":..,"facts":{..}}`, where the
//! journal goes on at `offset` of segment `segment`.
//!
//! Lengths are milliseconds, moments are milliseconds on the clock that they name, numbers of 128
//! bits are 32 hex digits. Version and list of changes: [`FORMAT_VERSION`].

mod basic;
mod facts;
mod mirror;
mod plan;
mod record;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use supervisor_core::facts::Facts;
use supervisor_core::record::{Entry, Record};
use supervisor_core::time::Now;

use self::basic::NowDef;
use self::facts::FactsDef;
use self::mirror::{As, Out};
use self::record::RecordDef;
use super::journal::Position;
use super::seal::{self, FORMAT_VERSION, NO_CRC};

/// What of a journal line can be read without a JSON parser; all 0 before the first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) term: u64,
    pub(super) group: u64,
    pub(super) left: u64,
}

#[derive(Serialize)]
struct LineOut<'a> {
    v: u32,
    crc: &'static str,
    seq: u64,
    term: u64,
    group: u64,
    left: u64,
    #[serde(with = "As::<NowDef>")]
    now: Now,
    record: Out<'a, Record, RecordDef>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn {
    #[serde(rename = "v")]
    _version: IgnoredAny,
    #[serde(rename = "crc")]
    _crc: IgnoredAny,
    seq: u64,
    term: u64,
    #[serde(rename = "group")]
    _group: IgnoredAny,
    #[serde(rename = "left")]
    _left: IgnoredAny,
    #[serde(with = "As::<NowDef>")]
    now: Now,
    #[serde(with = "As::<RecordDef>")]
    record: Record,
}

/// Appends one journal line, sealed.
pub(super) fn write_line(to: &mut Vec<u8>, entry: &Entry, group: u64, left: u64) {
    let Entry {
        seq,
        term,
        now,
        record,
    } = entry;
    let line = LineOut {
        v: FORMAT_VERSION,
        crc: NO_CRC,
        seq: *seq,
        term: *term,
        group,
        left,
        now: *now,
        record: Out::new(record),
    };
    seal::write(to, &line);
}

/// Reads the record of a line whose seal is good.
pub(super) fn read_line(line: &[u8]) -> Result<Entry, serde_json::Error> {
    let line: LineIn = serde_json::from_slice(line)?;
    Ok(Entry {
        seq: line.seq,
        term: line.term,
        now: line.now,
        record: line.record,
    })
}

/// Reads the numbers of a line whose seal is good.
pub(super) fn read_head(line: &[u8]) -> Option<Head> {
    let at = line.windows(7).position(|window| window == b",\"seq\":")?;
    let mut rest = &line[at..];
    let mut number = |name: &[u8]| -> Option<u64> {
        let digits = rest.strip_prefix(name)?;
        let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
        rest = &digits[count..];
        std::str::from_utf8(&digits[..count]).ok()?.parse().ok()
    };
    Some(Head {
        seq: number(b",\"seq\":")?,
        term: number(b",\"term\":")?,
        group: number(b",\"group\":")?,
        left: number(b",\"left\":")?,
    })
}

#[derive(Serialize)]
struct CheckpointOut<'a> {
    v: u32,
    crc: &'static str,
    seq: u64,
    segment: u32,
    offset: u64,
    facts: Out<'a, Facts, FactsDef>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointIn {
    #[serde(rename = "v")]
    _version: IgnoredAny,
    #[serde(rename = "crc")]
    _crc: IgnoredAny,
    seq: u64,
    segment: u32,
    offset: u64,
    #[serde(with = "As::<FactsDef>")]
    facts: Facts,
}

/// A whole checkpoint, sealed.
pub(super) fn write_checkpoint(facts: &Facts, at: Position, size_hint: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_hint);
    let line = CheckpointOut {
        v: FORMAT_VERSION,
        crc: NO_CRC,
        seq: at.seq,
        segment: at.segment,
        offset: at.offset,
        facts: Out::new(facts),
    };
    seal::write(&mut bytes, &line);
    bytes
}

/// Reads a checkpoint whose seal is good.
pub(super) fn read_checkpoint(line: &[u8]) -> Result<(Facts, Position), serde_json::Error> {
    let line: CheckpointIn = serde_json::from_slice(line)?;
    let at = Position {
        seq: line.seq,
        segment: line.segment,
        offset: line.offset,
    };
    Ok((line.facts, at))
}
