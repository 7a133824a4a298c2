//! How one line of JSON proves that it is whole, and says by which release it can be read.
//!
//! Every file of the store is made of lines that begin `{"v":1,"crc":"89abcdef",`. The checksum is
//! the CRC-32 (IEEE) of all other bytes of the line, without its newline. So each line is plain
//! JSON for any tool, and the check needs no parser.
//!
//! The version is read before the checksum: a newer release may compute that in another way. The
//! beginning `{"v":` occurs nowhere else in a line (quotes in texts are escaped, and no object
//! inside has a field `v`), so whole lines can be found again behind damage.

use std::path::Path;

use serde::Serialize;

use super::disk::{Bytes, Disk, OpenAs};
use super::error::StoreError;

/// Version of everything the store writes.
///
/// | version | change |
/// |---|---|
/// | 1 | everything in [`format`](super::format) |
pub const FORMAT_VERSION: u32 = 1;

/// Longest line, bytes: four times the largest batch file, since one record may carry the text of
/// a whole batch file with its escapes. A longer one is refused when written and damage when read.
pub const LINE_MAX: u64 = 256 * 1024 * 1024;

/// The field `crc` before the line is sealed.
pub(super) const NO_CRC: &str = "00000000";
/// How every line begins, up to the digits of its version.
const BEGIN: &[u8] = b"{\"v\":";
/// Between the digits of the version and the checksum.
const MIDDLE: &[u8] = b",\"crc\":\"";
const CRC_LEN: usize = NO_CRC.len();

/// Why a line does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A newer release wrote it.
    Newer(u32),
    /// It is damaged.
    Damaged(&'static str),
}

impl Fault {
    pub(super) fn into_error(self, file: &Path, offset: u64) -> StoreError {
        match self {
            Fault::Newer(found) => StoreError::Newer {
                file: file.to_owned(),
                found,
                known: FORMAT_VERSION,
            },
            Fault::Damaged(why) => StoreError::unreadable(file, offset, why),
        }
    }
}

/// Appends `line` (whose first fields are `v` and `crc`) as JSON, sealed, with its newline.
pub(super) fn write<T: Serialize>(to: &mut Vec<u8>, line: &T) {
    let start = to.len();
    #[expect(
        clippy::expect_used,
        reason = "memory takes every write, and the mirrors hold no map with keys that are not text"
    )]
    serde_json::to_writer(&mut *to, line).expect("a mirror is always JSON");
    let written = &mut to[start..];
    if let Some(at) = crc_at(written) {
        let sum = hex(checksum(written, at));
        written[at..at + CRC_LEN].copy_from_slice(&sum);
    }
    to.push(b'\n');
}

/// Whether `line` (without its newline) is whole and of a version that this release reads.
pub(super) fn check(line: &[u8]) -> Result<(), Fault> {
    let version = version(line).ok_or(Fault::Damaged("it does not begin like a line"))?;
    if version > FORMAT_VERSION {
        return Err(Fault::Newer(version));
    }
    if version == 0 {
        return Err(Fault::Damaged("its version is 0"));
    }
    let at = crc_at(line).ok_or(Fault::Damaged("it has no checksum"))?;
    if line[at..at + CRC_LEN] != hex(checksum(line, at)) {
        return Err(Fault::Damaged("its checksum does not match"));
    }
    Ok(())
}

/// Places in `bytes` where a line may begin.
pub(super) fn beginnings(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes
        .windows(BEGIN.len())
        .enumerate()
        .filter(|(_, window)| *window == BEGIN)
        .map(|(at, _)| at)
}

/// The version that a line names, if it begins like one.
fn version(line: &[u8]) -> Option<u32> {
    let digits = &line.strip_prefix(BEGIN)?;
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = digits.split_at(count);
    let begins_well = rest.starts_with(MIDDLE);
    begins_well
        .then(|| std::str::from_utf8(digits).ok()?.parse().ok())
        .flatten()
}

/// Where the checksum's digits are.
fn crc_at(line: &[u8]) -> Option<usize> {
    let rest = line.strip_prefix(BEGIN)?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let at = BEGIN.len() + digits + MIDDLE.len();
    let whole = rest[digits..].starts_with(MIDDLE) && line.get(at + CRC_LEN) == Some(&b'"');
    whole.then_some(at)
}

/// Eight lower-case hex digits: written once and compared as they are, so that no second way to
/// write the same sum passes.
fn hex(sum: u32) -> [u8; CRC_LEN] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; CRC_LEN];
    for (at, digit) in text.iter_mut().enumerate() {
        let nibble = (sum >> (28 - 4 * at)) & 0xf;
        *digit = DIGITS[nibble as usize];
    }
    text
}

fn checksum(line: &[u8], at: usize) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&line[..at]);
    sum.update(&line[at + CRC_LEN..]);
    sum.finalize()
}

/// Reads a file that is one sealed line; `None` where there is no such file.
pub(super) fn read_file(
    disk: &dyn Disk,
    path: &Path,
    max: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match disk.open(path, OpenAs::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let len = file.len().map_err(StoreError::io("read", path))?;
    if len > max {
        return Err(StoreError::unreadable(
            path,
            max,
            "it is longer than it may be",
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1);
    std::io::Read::read_to_end(&mut Bytes::of(&*file, 0, len), &mut bytes)
        .map_err(StoreError::io("read", path))?;
    let whole = bytes.pop_if(|last| *last == b'\n').is_some();
    check(&bytes).map_err(|fault| fault.into_error(path, 0))?;
    if !whole {
        return Err(StoreError::unreadable(path, len, "its newline is missing"));
    }
    Ok(Some(bytes))
}

/// Replaces a whole file so that a crash leaves the old or the new one: aside, sync, rename, sync
/// the folder.
pub(super) fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let aside = path.with_added_extension("new");
    let written = write_aside(disk, &aside, bytes);
    if let Err(error) = written {
        return match disk.remove(&aside) {
            // What is left takes room only until the next write replaces it.
            Ok(()) | Err(_) => Err(error),
        };
    }
    disk.rename(&aside, path)
        .map_err(StoreError::io("rename", &aside))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(folder)
        .map_err(|source| StoreError::SyncFailed {
            file: folder.to_owned(),
            source,
        })
}

fn write_aside(disk: &dyn Disk, aside: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = disk
        .open(aside, OpenAs::Write)
        .map_err(|error| StoreError::writing(aside, error))?;
    file.truncate(0).map_err(StoreError::io("cut", aside))?;
    file.write_at(0, bytes)
        .map_err(|error| StoreError::writing(aside, error))?;
    file.sync().map_err(|source| StoreError::SyncFailed {
        file: aside.to_owned(),
        source,
    })
}
