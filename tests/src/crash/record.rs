//! What the tasks of the crash story record of themselves, and how it is read.

#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::{pause, wall_ns};
use crate::random::Random;

/// Longest work of a task, microseconds.
const WORK_MAX_US: u64 = 20_000;
/// Between two looks for a permit.
const PERMIT_EVERY: Duration = Duration::from_millis(3);

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The task's program runs.
    Start,
    /// It is about to exit with 0.
    End,
    /// Another copy of it is alive: it found its lock taken.
    Overlap,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What happened.
    pub what: What,
    /// To this task.
    pub task: String,
    /// In this process.
    pub pid: u32,
    /// At this time, nanoseconds since the Unix epoch.
    pub at: i128,
}

/// The file in which all tasks record.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
}

impl Record {
    /// A new, empty one.
    ///
    /// # Panics
    /// When it can not be made.
    pub fn new(path: &Path) -> Self {
        File::create(path).expect("the record can be made");
        Self {
            path: path.to_owned(),
        }
    }

    /// One that exists.
    pub fn read(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Every line so far, in the order of their writing.
    ///
    /// # Panics
    /// When it can not be read, or holds a line that no task writes.
    pub fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(&self.path).expect("the record can be read");
        text.lines()
            .map(|line| parse(line).unwrap_or_else(|| panic!("no task writes `{line}`")))
            .collect()
    }

    /// How many ends of tasks are recorded.
    ///
    /// # Panics
    /// As [`Record::lines`].
    pub fn ends(&self) -> usize {
        let text = std::fs::read_to_string(&self.path).expect("the record can be read");
        text.lines().filter(|line| line.starts_with("end ")).count()
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let what = match words.next()? {
        "start" => What::Start,
        "end" => What::End,
        "overlap" => What::Overlap,
        _ => return None,
    };
    Some(Line {
        what,
        task: words.next()?.to_owned(),
        pid: words.next()?.parse().ok()?,
        at: words.next()?.parse().ok()?,
    })
}

/// What one task is told on its command line.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The file in which all tasks record.
    pub record: &'a Path,
    /// The folder of locks, one file a task.
    pub locks: &'a Path,
    /// Each byte of this file lets one task come to its end.
    pub permits: &'a Path,
    /// The task.
    pub task: &'a str,
}

/// What a task does: locks, records its start, works for a random time, waits until one more task
/// may end, records its end. So the story, not the machine, says how far the batch is at each kill.
///
/// # Errors
/// When its files can not be opened, locked or written.
pub fn play_task(part: Part<'_>) -> std::io::Result<()> {
    let Part { task, .. } = part;
    let mut record = OpenOptions::new().append(true).open(part.record)?;
    let lock = File::create(part.locks.join(task))?;
    match lock.try_lock() {
        Ok(()) => write(&mut record, "start", task)?,
        Err(TryLockError::WouldBlock) => {
            write(&mut record, "overlap", task)?;
            return Err(std::io::ErrorKind::ResourceBusy.into());
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let seed = u64::from(std::process::id()) ^ u64::try_from(wall_ns()).unwrap_or_default();
    pause(Duration::from_micros(Random::new(seed).below(WORK_MAX_US)));
    let ended = Record::read(part.record);
    while u64::try_from(ended.ends()).unwrap_or(u64::MAX) >= part.permits.metadata()?.len() {
        pause(PERMIT_EVERY);
    }
    write(&mut record, "end", task)
}

/// One write of one line, at the end of the file whoever else writes.
fn write(record: &mut File, what: &str, task: &str) -> std::io::Result<()> {
    let line = format!("{what} {task} {} {}\n", std::process::id(), wall_ns());
    record.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with an empty record and one permit.
    struct Stage {
        folder: tempfile::TempDir,
        record: Record,
    }

    impl Stage {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let record = Record::new(&folder.path().join("record"));
            std::fs::write(folder.path().join("permits"), ".").unwrap();
            Self { folder, record }
        }

        fn play(&self) -> std::io::Result<()> {
            let folder = self.folder.path();
            play_task(Part {
                record: &folder.join("record"),
                locks: folder,
                permits: &folder.join("permits"),
                task: "t-1",
            })
        }
    }

    #[test]
    fn a_task_records_its_start_and_its_end() {
        let stage = Stage::new();
        stage.play().unwrap();
        let lines = stage.record.lines();
        assert_eq!([lines[0].what, lines[1].what], [What::Start, What::End]);
        assert!(lines.iter().all(|line| line.task == "t-1"));
        assert!(lines[0].at <= lines[1].at);
        assert_eq!(stage.record.ends(), 1);
    }

    #[test]
    fn a_second_copy_records_that_it_met_the_first() {
        let stage = Stage::new();
        let first = File::create(stage.folder.path().join("t-1")).unwrap();
        first.lock().unwrap();
        assert!(stage.play().is_err());
        assert_eq!(stage.record.lines()[0].what, What::Overlap);
        drop(first);
        stage.play().unwrap();
        assert_eq!(stage.record.lines()[1].what, What::Start);
    }
}
