//! Markers of a conflict that somebody left in a file: all three, at the beginnings of lines, in
//! their order.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use protocol::git::PATHS_MAX;

use super::commit::{Change, Now};
use super::repo::Repo;

/// How much of a file is looked at to tell text from binary: as much as `git` looks at.
const BINARY_LOOK: usize = 8000;
/// Longest line that is held; of a longer one the beginning is enough.
const LINE_MAX: u64 = 1024;
/// Largest older version that is read, bytes; that of a larger file is taken to have no markers.
const BEFORE_MAX: usize = 4 << 20;

/// The changed files that hold more conflicts than before (a text about merges may show one): at most
/// [`PATHS_MAX`]. What can not be read is not looked into; the commit has it all the same.
pub(super) fn find(repo: &Repo, folder: &Path, changes: &[Change]) -> Vec<String> {
    let files = changes.iter().filter(|change| change.now == Now::File);
    let marked = files.filter(|change| {
        let now = open(&folder.join(&change.path)).and_then(conflicts);
        let now = now.unwrap_or(0);
        now > 0 && now > conflicts_before(repo, change)
    });
    let names = marked.map(|change| change.path.to_string_lossy().into_owned());
    names.take(PATHS_MAX).collect()
}

fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

fn conflicts_before(repo: &Repo, change: &Change) -> u64 {
    let Some(before) = change.before else {
        return 0;
    };
    let size = repo.raw.odb().and_then(|odb| odb.read_header(before));
    if !size.is_ok_and(|(size, _)| size <= BEFORE_MAX) {
        return 0;
    }
    let blob = repo.raw.find_blob(before);
    blob.map_or(0, |blob| conflicts(blob.content()).unwrap_or(0))
}

/// Whether a text holds the three markers.
pub(super) fn has_markers(text: impl Read) -> io::Result<bool> {
    conflicts(text).map(|count| count > 0)
}

/// How often a text holds the three markers, one after the other.
fn conflicts(text: impl Read) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(64 << 10, text);
    if reader
        .fill_buf()?
        .iter()
        .take(BINARY_LOOK)
        .any(|byte| *byte == 0)
    {
        return Ok(0);
    }
    let mut total = 0;
    let mut seen = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader
            .by_ref()
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(total);
        }
        let is_whole = line.ends_with(b"\n");
        let text = line.trim_ascii_end();
        let is_next = match seen {
            0 => line.starts_with(b"<<<<<<< "),
            1 => text == b"=======",
            _ => line.starts_with(b">>>>>>> "),
        };
        seen += usize::from(is_next);
        if seen == 3 {
            (total, seen) = (total + 1, 0);
        }
        if !is_whole {
            skip_line(&mut reader)?;
        }
    }
}

/// Reads on to the end of a long line, holding none of it.
fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let (count, is_end) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        reader.consume(count);
        if is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_markers_in_their_order_at_the_beginnings_of_lines_are_a_conflict() {
        let long = "x".repeat(5000);
        let cases = [
            ("<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n", true),
            ("<<<<<<< ours\r\na\r\n=======\r\nb\r\n>>>>>>> theirs", true),
            (
                "<<<<<<< ours\na\n||||||| base\nc\n=======\nb\n>>>>>>> x\n",
                true,
            ),
            ("Title\n=======\ntext\n", false),
            (" <<<<<<< ours\n=======\n>>>>>>> theirs\n", false),
            ("<<<<<<< ours\n========\n>>>>>>> theirs\n", false),
            (">>>>>>> a\n=======\n<<<<<<< b\n", false),
            ("\0<<<<<<< ours\n=======\n>>>>>>> theirs\n", false),
            ("", false),
        ];
        for (text, is) in cases {
            assert_eq!(has_markers(text.as_bytes()).unwrap(), is, "{text:?}");
        }
        let behind = format!("{long}\n<<<<<<< {long}\n=======\n>>>>>>> x\n");
        assert!(has_markers(behind.as_bytes()).unwrap());
        let within = format!("{long}<<<<<<< ours\n=======\n>>>>>>> x\n");
        assert!(!has_markers(within.as_bytes()).unwrap());
    }

    #[test]
    fn every_conflict_counts() {
        let one = "<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n";
        for count in 0..3 {
            let text = format!("text\n{}Title\n=======\n", one.repeat(count));
            assert_eq!(conflicts(text.as_bytes()).unwrap(), count as u64);
        }
    }
}
