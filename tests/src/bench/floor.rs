//! The floors: what this machine takes, in this minute, for the least that could be done instead.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::measure::{Used, used};
use super::{median, ms};
use crate::clock::{timed, wall_ns};
use crate::source;
use crate::world::tool;

/// Repetitions of each small measurement.
const TIMES: usize = 200;

/// A bare chain of two processes per task: a minimal parent spawns a minimal second process that
/// spawns `true`. Both are C, compiled into `folder`.
///
/// # Panics
/// When there is no C compiler, or the chain fails.
pub fn chain(folder: &Path, tasks: usize, concurrency: usize) -> Used {
    let helper = compiled(folder, "floor_helper");
    let mut parent = tool(compiled(folder, "floor_parent"));
    parent
        .args([tasks.to_string(), concurrency.to_string()])
        .arg(helper);
    let (status, used) = used(|| parent.status().expect("the floor starts"));
    assert!(status.success(), "the floor ends with {status}");
    used
}

fn compiled(folder: &Path, name: &str) -> PathBuf {
    let program = folder.join(name);
    if !program.exists() {
        let text = source::root()
            .join("tests/benches")
            .join(format!("{name}.c"));
        let mut compiler = tool("cc");
        let status = compiler
            .args(["-O2", "-Wall", "-Werror", "-o"])
            .arg(&program)
            .arg(text);
        let status = status
            .status()
            .expect("a C compiler is needed for the floor");
        assert!(status.success(), "cc ends with {status}");
    }
    program
}

/// Median time from a bare spawn to the first instruction of the program that `latency` uses as
/// task, milliseconds.
///
/// # Panics
/// When it does not start.
pub fn spawn(program: &Path, folder: &Path) -> f64 {
    let stamps = folder.join("floor-stamps");
    let times = (0..TIMES).map(|_| {
        File::create(&stamps).expect("a file for stamps");
        let before = wall_ns();
        let status = tool(program)
            .arg("stamp")
            .arg(&stamps)
            .arg("floor")
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "the stamp program fails"
        );
        let stamp = super::latency::stamps(&stamps).remove(0);
        ns(stamp.started - before)
    });
    median(times.collect())
}

fn ns(length: i128) -> f64 {
    let nanos = u64::try_from(length).unwrap_or_default();
    ms(std::time::Duration::from_nanos(nanos))
}

/// Median of an append of 200 bytes with fdatasync, milliseconds.
///
/// # Panics
/// When the file can not be written.
pub fn fdatasync(folder: &Path) -> f64 {
    let mut append = Append::new(folder);
    median((0..TIMES).map(|_| append.once()).collect())
}

/// A file that is appended to and synced.
#[derive(Debug)]
pub struct Append(File);

impl Append {
    /// A new file in `folder`.
    ///
    /// # Panics
    /// When it can not be made.
    pub fn new(folder: &Path) -> Self {
        Self(File::create(folder.join("floor-sync")).expect("a file to sync"))
    }

    /// One append of 200 bytes with fdatasync, milliseconds.
    ///
    /// # Panics
    /// When the file can not be written.
    pub fn once(&mut self) -> f64 {
        let ((), length) = timed(|| {
            self.0
                .write_all(&[b'x'; 200])
                .expect("a line can be appended");
            self.0.sync_data().expect("a file can be synced");
        });
        ms(length)
    }
}

/// A process that sends every line back.
#[derive(Debug)]
pub struct Echo {
    cat: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Echo {
    /// Starts `cat`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> Self {
        let mut cat = tool("cat");
        let mut cat = cat
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cat starts");
        let to = cat.stdin.take().expect("stdin is a pipe");
        let from = BufReader::new(cat.stdout.take().expect("stdout is a pipe"));
        Self { cat, to, from }
    }

    /// A line to `cat` and back by pipes, milliseconds.
    ///
    /// # Panics
    /// When `cat` does not answer.
    pub fn once(&mut self) -> f64 {
        let ((), length) = timed(|| {
            self.to.write_all(b"a message\n").expect("cat reads");
            let mut line = String::new();
            self.from.read_line(&mut line).expect("cat writes");
        });
        ms(length)
    }

    /// Ends `cat`.
    ///
    /// # Panics
    /// When it does not end with its stdin.
    pub fn end(self) {
        let Self { mut cat, to, .. } = self;
        drop(to);
        cat.wait().expect("cat ends with its stdin");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_can_be_measured_here() {
        let folder = tempfile::tempdir().unwrap();
        let used = chain(folder.path(), 20, 4);
        assert!(used.cpu > std::time::Duration::ZERO, "{used:?}");
        assert!(fdatasync(folder.path()) > 0.0);
        let mut echo = Echo::start();
        assert!(echo.once() > 0.0);
        echo.end();
    }
}
