//! Where the work of a batch went: a line for each time that the operator integrated it.
//!
//! It is no record of the journal, because the batch may be over and nobody may write there; nothing
//! is decided by it. It is only ever appended to.

use std::io::{self, Read, Seek, SeekFrom, Write};

use protocol::git::Oid;
use protocol::integrate::{How, IntegrateResult};
use serde::{Deserialize, Serialize};

use super::disk::{OpenAs, open_no_link};
use super::state_dir::StateDir;

/// Most bytes that are read from the end: more notes than a person reads.
const READ_MAX: u64 = 64 << 10;

/// One integration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When, RFC 3339 UTC.
    pub time: String,
    /// The repository, by its name in the batch file.
    pub repo: String,
    /// The commit of the batch branch.
    pub commit: Oid,
    /// The branch that took it, a whole ref name.
    pub into: String,
    /// In which way.
    pub how: How,
    /// What came of it.
    pub result: IntegrateResult,
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let into = self.into.strip_prefix("refs/heads/").unwrap_or(&self.into);
        write!(f, "{} ", self.commit.short())?;
        match &self.result {
            IntegrateResult::FastForwarded { .. } => write!(f, "into {into} by a fast-forward")?,
            IntegrateResult::Merged { commit } => {
                write!(f, "into {into} by merge {}", commit.short())?
            }
            IntegrateResult::PullRequest { url, .. } => write!(f, "for {into} as {url}")?,
            IntegrateResult::Planned {}
            | IntegrateResult::Contained {}
            | IntegrateResult::Conflict {}
            | IntegrateResult::Refused { .. } => write!(f, "not into {into}")?,
        }
        write!(f, ", {}", self.time)
    }
}

/// Adds a note; it is on the disk then.
///
/// # Errors
/// What the file system says.
pub fn add(dir: &StateDir, note: &Note) -> io::Result<()> {
    let mut line = serde_json::to_vec(note)?;
    line.push(b'\n');
    let mut file = open_no_link(&dir.integrated(), OpenAs::Write)?;
    file.seek(SeekFrom::End(0))?;
    file.write_all(&line)?;
    file.sync_data()
}

/// The last notes, oldest first; none where there is no file. A line that was cut off, or is of a
/// newer release, is passed over: nothing but what people are shown hangs on it.
///
/// # Errors
/// What the file system says.
pub fn read(dir: &StateDir) -> io::Result<Vec<Note>> {
    let mut file = match open_no_link(&dir.integrated(), OpenAs::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ_MAX)))?;
    let mut bytes = Vec::new();
    file.take(READ_MAX).read_to_end(&mut bytes)?;
    let lines = bytes.split(|&byte| byte == b'\n');
    Ok(lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(into: &str, result: IntegrateResult) -> Note {
        Note {
            time: "2026-01-02T03:04:05Z".to_owned(),
            repo: ".".to_owned(),
            commit: Oid::try_from("ab".repeat(20)).unwrap(),
            into: format!("refs/heads/{into}"),
            how: How::FastForward,
            result,
        }
    }

    fn forwarded(into: &str) -> Note {
        let commit = Oid::try_from("ab".repeat(20)).unwrap();
        note(into, IntegrateResult::FastForwarded { commit })
    }

    #[test]
    fn notes_come_back_in_their_order_and_a_cut_line_harms_no_other() {
        let home = tempfile::tempdir().unwrap();
        let dir = StateDir::at(home.path());
        assert_eq!(read(&dir).unwrap(), []);
        let notes = [forwarded("main"), forwarded("next")];
        for note in &notes {
            add(&dir, note).unwrap();
        }
        assert_eq!(read(&dir).unwrap(), notes);
        let whole = std::fs::read(dir.integrated()).unwrap();
        std::fs::write(dir.integrated(), &whole[..whole.len() - 9]).unwrap();
        assert_eq!(read(&dir).unwrap(), notes[..1]);
    }

    #[test]
    fn only_the_last_notes_of_a_long_file_are_read() {
        let home = tempfile::tempdir().unwrap();
        let dir = StateDir::at(home.path());
        let long = forwarded(&"n".repeat(1000));
        for _ in 0..80 {
            add(&dir, &long).unwrap();
        }
        let read = read(&dir).unwrap();
        assert!(read.len() < 80 && read.iter().all(|note| *note == long));
    }

    #[test]
    fn no_note_goes_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let dir = StateDir::at(home.path());
        std::os::unix::fs::symlink(home.path().join("elsewhere"), dir.integrated()).unwrap();
        assert!(add(&dir, &forwarded("main")).is_err());
        assert!(!home.path().join("elsewhere").exists());
    }

    #[test]
    fn a_note_is_told_in_one_line() {
        let url = "https://host/pull/7".to_owned();
        let request = IntegrateResult::PullRequest {
            url,
            existed: false,
        };
        let told = [forwarded("main"), note("main", request)].map(|note| note.to_string());
        assert_eq!(
            told,
            [
                "abababababab into main by a fast-forward, 2026-01-02T03:04:05Z",
                "abababababab for main as https://host/pull/7, 2026-01-02T03:04:05Z"
            ]
        );
    }
}
