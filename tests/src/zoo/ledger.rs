//! What the hostile processes themselves write down, and which of them are still alive.
//!
//! One folder, used by both sides:
//! - `ledger`: a line for each process, `ESCAPE PID START_TICKS`, written by itself in one append;
//! - `beat/ESCAPE`: of a chain of short lives, its newest link, `HOP PID START_TICKS`;
//! - `begun/ESCAPE`: made by the first agent of this escape, so that the next one knows;
//! - `overlaps`: written by a second agent that found processes of the first one alive.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::escape::Escape;
use super::kernel;
use crate::clock::pause;

/// A chain whose newest link does not change for so long, and is dead, has ended: a link lives for
/// about a millisecond, so this is a hundred of them.
const BEAT_MAX: Duration = Duration::from_millis(100);
/// Between two looks at a heartbeat.
const BEAT_LOOK: Duration = Duration::from_millis(5);

/// One process: its number, and when it began (clock ticks since boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// Its number, as this procfs shows it.
    pub pid: i32,
    /// Its start.
    pub ticks: u64,
}

impl Life {
    /// This process, by the number that procfs gives it: in a pid namespace of its own it knows
    /// another one.
    ///
    /// # Errors
    /// When procfs is not mounted.
    pub fn own() -> io::Result<Life> {
        let link = fs::read_link("/proc/self")?;
        let pid = link.to_str().and_then(|text| text.parse().ok());
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        let ticks = Self::of(pid).ok_or(io::ErrorKind::NotFound)?.ticks;
        Ok(Life { pid, ticks })
    }

    /// The living process with this number; an exit that nobody has collected yet is no life.
    pub fn of(pid: i32) -> Option<Life> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name stands in parentheses and may hold anything, also parentheses.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        // Field 22 counted from 1; field 4 is the next one here.
        let ticks = fields.nth(22 - 4)?.parse().ok()?;
        Some(Life { pid, ticks })
    }

    /// Whether it lives on.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Whether it lives, but is stopped.
    pub fn is_stopped(self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.as_bytes().first());
        self.is_alive() && state == Some(Some(&b'T'))
    }

    /// Stops it, if it is still the one that was meant.
    pub fn stop(self) {
        if let Ok(pin) = kernel::pin(self.pid)
            && self.is_alive()
        {
            kernel::stop_pinned(&pin);
        }
    }

    /// Ends it, if it is still the one that was meant.
    pub fn end(self) {
        // Pinned before it is judged: what is judged is what is ended.
        if let Ok(pin) = kernel::pin(self.pid)
            && self.is_alive()
        {
            kernel::end_pinned(&pin);
        }
    }
}

/// A line of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The escape it belongs to.
    pub escape: Escape,
    /// The process that wrote it.
    pub life: Life,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct Ledger {
    folder: PathBuf,
}

impl Ledger {
    /// A new, empty one.
    ///
    /// # Panics
    /// When it can not be made.
    pub fn new(folder: &Path) -> Self {
        for below in ["beat", "begun"] {
            fs::create_dir_all(folder.join(below)).expect("a folder of the ledger");
        }
        fs::write(folder.join("ledger"), "").expect("the ledger can be made");
        Self::at(folder)
    }

    /// One that exists.
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// A path in it.
    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.join(below)
    }

    /// Whether its folder was taken away: then the story is over.
    pub fn is_gone(&self) -> bool {
        let seen = fs::metadata(&self.folder);
        seen.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The ledger, to be written to later, perhaps as another user.
    ///
    /// # Errors
    /// When it is not there.
    pub fn pen(&self) -> io::Result<fs::File> {
        OpenOptions::new().append(true).open(self.path("ledger"))
    }

    /// Writes this process down.
    ///
    /// # Errors
    /// When it can not.
    pub fn sign(pen: &mut fs::File, escape: Escape) -> io::Result<()> {
        let own = Life::own()?;
        let line = format!("{escape} {} {}\n", own.pid, own.ticks);
        pen.write_all(line.as_bytes())
    }

    /// Every line so far.
    ///
    /// # Panics
    /// When it can not be read, or holds what no agent writes.
    pub fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.path("ledger")).expect("the ledger can be read");
        text.lines()
            .map(|line| parse(line).unwrap_or_else(|| panic!("no agent writes `{line}`")))
            .collect()
    }

    /// Whether an escape is complete: everything of it that will be is written down.
    pub fn is_out(&self, escape: Escape) -> bool {
        let lines = self.lines();
        let written = lines.iter().filter(|line| line.escape == escape).count();
        let beats = !escape.is_comet() || self.beat(escape).is_some();
        written >= escape.writes() && beats
    }

    /// Everything of this escape that is alive, but `except`.
    pub fn survivors(&self, escape: Escape, except: Option<Life>) -> Vec<Life> {
        let lines = self.lines();
        let mut alive: Vec<Life> = lines
            .iter()
            .filter(|line| line.escape == escape && Some(line.life) != except)
            .map(|line| line.life)
            .filter(|life| life.is_alive())
            .collect();
        if let Some(link) = self.comet(escape) {
            alive.push(link);
        }
        alive
    }

    /// The newest link of a chain that still goes on.
    fn comet(&self, escape: Escape) -> Option<Life> {
        let (first, _) = self.beat(escape)?;
        for _ in 0..BEAT_MAX.as_millis() / BEAT_LOOK.as_millis() {
            let (hop, link) = self.beat(escape)?;
            if hop != first {
                return Some(link);
            }
            pause(BEAT_LOOK);
        }
        // It may only be waiting for its turn.
        self.beat(escape)
            .map(|(_, link)| link)
            .filter(|link| link.is_alive())
    }

    /// The newest link of a chain.
    pub fn beat(&self, escape: Escape) -> Option<(u64, Life)> {
        let text = fs::read_to_string(self.path("beat").join(escape.word())).ok()?;
        let mut words = text.split_ascii_whitespace();
        let hop = words.next()?.parse().ok()?;
        let pid = words.next()?.parse().ok()?;
        let ticks = words.next()?.parse().ok()?;
        Some((hop, Life { pid, ticks }))
    }

    /// Writes down the newest link of a chain, in one write of constant length.
    ///
    /// # Errors
    /// When the folder is gone.
    pub fn set_beat(&self, escape: Escape, hop: u64) -> io::Result<()> {
        let own = Life::own()?;
        let mut file = OpenOptions::new();
        file.write(true).create(true).truncate(false);
        let file = file.open(self.path("beat").join(escape.word()))?;
        let line = format!("{hop:12} {:12} {:20}\n", own.pid, own.ticks);
        file.write_all_at(line.as_bytes(), 0)
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let escape = words.next()?.parse().ok()?;
    let pid = words.next()?.parse().ok()?;
    let ticks = words.next()?.parse().ok()?;
    Some(Line {
        escape,
        life: Life { pid, ticks },
    })
}
