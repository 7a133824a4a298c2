//! `stdout.log` and `stderr.log`: what the agent's program printed, to the byte up to a limit.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;

use protocol::exit_file::{STDERR_FILE_NAME, STDOUT_FILE_NAME};
use protocol::report::EXCERPT_MAX;

use crate::plain::Folder;

/// Which of a program's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Both logs of a run.
pub(crate) struct Logs {
    /// Standard output.
    out: Log,
    /// Standard error.
    err: Log,
}

impl Logs {
    /// The logs in `folder`, at most `max` bytes kept of each; nothing is kept without a folder.
    pub(crate) fn new(folder: Option<&Rc<Folder>>, max: u64) -> Self {
        Self {
            out: Log::new(folder, STDOUT_FILE_NAME, max),
            err: Log::new(folder, STDERR_FILE_NAME, max),
        }
    }

    /// The log of one stream.
    pub(crate) fn stream(&mut self, stream: Stream) -> &mut Log {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    /// Bytes printed so far, kept or not.
    pub(crate) fn printed(&self) -> u64 {
        self.out.printed + self.err.printed
    }

    /// The end of what was printed: of stderr, or where that is empty of stdout. For programs whose
    /// stdout is a protocol.
    pub(crate) fn evidence(&self) -> String {
        let stderr = self.err.tail.text();
        if stderr.trim().is_empty() {
            self.out.tail.text()
        } else {
            stderr
        }
    }

    /// The end of what was printed, at most [`EXCERPT_MAX`] bytes: of stdout, and behind a line that
    /// says so of stderr. There are commands that tell the failure on the one, and others on the other.
    pub(crate) fn evidence_of_both(&self) -> String {
        const BETWEEN: &str = "\n[stderr]\n";
        let (out, err) = (self.out.tail.text(), self.err.tail.text());
        match (out.trim(), err.trim()) {
            (_, "") => out,
            ("", _) => err,
            (out, err) => {
                let room = EXCERPT_MAX - BETWEEN.len();
                let half = room / 2;
                // What one of them does not need is the other's.
                let err = end_of(err, half.max(room.saturating_sub(out.len())));
                let out = end_of(out, room - err.len());
                format!("{out}{BETWEEN}{err}")
            }
        }
    }

    /// What is printed from here on is another program's: what was before is no evidence for it.
    pub(crate) fn begin_part(&mut self) {
        self.out.tail = Tail::default();
        self.err.tail = Tail::default();
    }

    /// Writes into each log how much of it is missing.
    pub(crate) fn close(&mut self) {
        self.out.close();
        self.err.close();
    }
}

/// One log. The file is made with the first byte: no file means that nothing was printed.
pub(crate) struct Log {
    folder: Option<Rc<Folder>>,
    name: &'static str,
    file: Option<File>,
    /// Most bytes kept.
    max: u64,
    printed: u64,
    kept: u64,
    /// Why nothing more is kept.
    ended: Option<Ended>,
    tail: Tail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Full,
    Failed,
    Closed,
}

impl Log {
    fn new(folder: Option<&Rc<Folder>>, name: &'static str, max: u64) -> Self {
        Self {
            folder: folder.cloned(),
            name,
            file: None,
            max,
            printed: 0,
            kept: 0,
            ended: None,
            tail: Tail::default(),
        }
    }

    /// Takes in what was printed. Returns a notice the first time that something is not kept.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Option<String> {
        self.printed += bytes.len() as u64;
        self.tail.push(bytes);
        if self.ended.is_some() {
            return None;
        }
        let room = usize::try_from(self.max - self.kept).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        if let Err(error) = self.write(kept) {
            self.ended = Some(Ended::Failed);
            return Some(format!("{} is not complete: {error}", self.shown()));
        }
        self.kept += kept.len() as u64;
        if kept.len() == bytes.len() {
            return None;
        }
        self.ended = Some(Ended::Full);
        Some(format!(
            "{} is full: it keeps {} bytes, what follows is counted only",
            self.shown(),
            self.max
        ))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let file = match (&mut self.file, &self.folder) {
            (Some(file), _) => file,
            (none, Some(folder)) => none.insert(folder.open_append(self.name)?),
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        file.write_all(bytes)
    }

    /// Its path, for people.
    fn shown(&self) -> String {
        let path = self.folder.as_ref().map(|it| it.path().join(self.name));
        path.map_or_else(|| self.name.to_owned(), |path| path.display().to_string())
    }

    fn close(&mut self) {
        if self.ended == Some(Ended::Full) {
            let lost = self.printed - self.kept;
            // The notice has said it already; this line only helps whoever reads the file alone.
            drop(self.write(format!("\n[supervisor: {lost} bytes not kept]\n").as_bytes()));
        }
        self.ended = Some(Ended::Closed);
        self.file = None;
    }
}

/// The end of a text: at most so many bytes, from the beginning of a character.
fn end_of(text: &str, max: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(max))..]
}

/// The last [`EXCERPT_MAX`] bytes of a stream.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(EXCERPT_MAX)..];
        let surplus = (self.0.len() + new.len()).saturating_sub(EXCERPT_MAX);
        self.0.drain(..surplus);
        self.0.extend(new);
    }

    fn text(&self) -> String {
        let (front, back) = self.0.as_slices();
        let text = String::from_utf8_lossy(&[front, back].concat()).into_owned();
        // Replacing a bad byte by the three of U+FFFD can make it longer again.
        end_of(&text, EXCERPT_MAX).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn logs(folder: &Path, max: u64) -> Logs {
        Logs::new(Some(&Rc::new(Folder::outer(folder).unwrap())), max)
    }

    #[test]
    fn a_log_keeps_its_limit_and_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(folder.path(), 5);
        assert_eq!(logs.stream(Stream::Out).take(b"abc"), None);
        let notice = logs.stream(Stream::Out).take(b"defgh").unwrap();
        assert!(notice.contains("keeps 5 bytes"), "{notice}");
        assert_eq!(logs.stream(Stream::Out).take(b"more"), None, "said once");
        logs.close();
        logs.close();
        let text = std::fs::read_to_string(folder.path().join("stdout.log")).unwrap();
        assert_eq!(text, "abcde\n[supervisor: 7 bytes not kept]\n");
        assert!(!folder.path().join("stderr.log").exists());
        assert_eq!(logs.printed(), 12);
    }

    #[test]
    fn an_exact_fit_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(folder.path(), 5);
        assert_eq!(logs.stream(Stream::Err).take(b"abcde"), None);
        logs.close();
        assert_eq!(
            std::fs::read(folder.path().join("stderr.log")).unwrap(),
            b"abcde"
        );
    }

    #[test]
    fn evidence_is_the_end_and_never_more_than_an_excerpt() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(folder.path(), 1 << 20);
        logs.stream(Stream::Out).take(b"only stdout");
        assert_eq!(logs.evidence(), "only stdout");
        for _ in 0..3 {
            logs.stream(Stream::Err).take(&[0xff; 1500]);
        }
        logs.stream(Stream::Err).take(b"the end");
        assert!(logs.evidence().ends_with("the end"));
        let evidence = logs.evidence_of_both();
        assert!(evidence.len() <= EXCERPT_MAX && evidence.ends_with("the end"));
        assert!(
            evidence.starts_with("only stdout\n[stderr]\n"),
            "{evidence}"
        );
        logs.stream(Stream::Out).take(&[b'o'; 3000]);
        logs.stream(Stream::Err).take(&[b'e'; 3000]);
        let evidence = logs.evidence_of_both();
        assert_eq!(evidence.len(), EXCERPT_MAX, "{evidence}");
        let count = |letter| evidence.bytes().filter(|byte| *byte == letter).count();
        assert!(count(b'o') > 900 && count(b'e') > 900, "{evidence}");
    }

    #[test]
    fn what_an_earlier_program_printed_is_no_evidence_for_a_later_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = logs(folder.path(), 1 << 20);
        logs.stream(Stream::Err).take(b"warning: all is well\n");
        logs.begin_part();
        logs.stream(Stream::Out).take(b"FAILED one\n");
        assert_eq!(logs.evidence_of_both(), "FAILED one\n");
        logs.close();
        let kept = std::fs::read_to_string(folder.path().join("stderr.log")).unwrap();
        assert_eq!(kept, "warning: all is well\n");
    }

    #[test]
    fn a_log_is_never_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join("stdout.log")).unwrap();
        let mut logs = logs(folder.path(), 100);
        let notice = logs.stream(Stream::Out).take(b"overwritten");
        assert!(notice.unwrap().contains("not complete"));
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }
}
