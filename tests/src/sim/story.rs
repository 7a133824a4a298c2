//! What is told of a story that failed: its last lines.

use std::collections::VecDeque;
use std::fmt;

/// Lines kept: enough to see what led to the failure.
pub(super) const LINES_MAX: usize = 90;
/// Longest line, bytes; a record with a whole plan is longer than anybody reads.
const LINE_MAX: usize = 600;

/// The last lines of a story; empty unless it is told.
#[derive(Debug, Clone, Default)]
pub(super) struct Story {
    told: bool,
    lines: VecDeque<String>,
    all: bool,
}

impl Story {
    pub(super) fn new(told: Telling) -> Story {
        let (told, all) = match told {
            Telling::Nothing => (false, false),
            Telling::End => (true, false),
            Telling::Everything => (true, true),
        };
        Story {
            told,
            lines: VecDeque::new(),
            all,
        }
    }

    /// Adds a line; the text is made only when the story is told.
    pub(super) fn line(&mut self, time: u64, text: impl FnOnce() -> String) {
        if !self.told {
            return;
        }
        if self.lines.len() == LINES_MAX && !self.all {
            self.lines.pop_front();
        }
        let mut line = format!("{:>10}.{:03} {}", time / 1000, time % 1000, text());
        if line.len() > LINE_MAX {
            line.truncate(line.floor_char_boundary(LINE_MAX));
            line.push('…');
        }
        self.lines.push_back(line);
    }
}

/// How much of a story is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Nothing: quickest.
    Nothing,
    /// The last lines.
    End,
    /// Every line.
    Everything,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
