//! Mistakes in a batch file: gathered all at once, each with its place and the way out.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use super::scalars::Text;
use super::tree::Shift;

/// Most mistakes kept of one read; more are counted. Enough for any real file, and a bound for a
/// file of another kind that was given by mistake.
pub const PROBLEMS_MAX: usize = 1_000;
/// Most characters of an offending line that are shown; longer lines are shown around the place.
const SHOWN_MAX: usize = 120;
/// Characters shown before the place when a line is cut.
const SHOWN_BEFORE: usize = 40;

/// One of the texts that were read, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub(super) u32);

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// In which text.
    pub source: SourceId,
    /// Line, from 1; 0 is the text as a whole.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters to underline, on that line; at least 1 is shown.
    pub length: u32,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
    /// Whose it is.
    pub fault: Fault,
}

/// Whose a mistake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The file's: it has to be changed.
    File,
    /// The machine's: the file may be right, what it names is not there or can not be used.
    Machine,
}

/// One text that was read.
#[derive(Debug, Clone)]
struct SourceText {
    name: String,
    content: Arc<str>,
    /// Offsets at which its lines begin, once a line is asked for.
    starts: OnceLock<Vec<usize>>,
}

impl SourceText {
    /// A line by its number from 1, without its end.
    fn line(&self, line: u32) -> Option<&str> {
        let starts = self.starts.get_or_init(|| line_starts(&self.content));
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = *starts.get(index)?;
        let end = starts
            .get(index + 1)
            .map_or(self.content.len(), |next| *next);
        Some(self.content.get(start..end)?.trim_end_matches(['\n', '\r']))
    }
}

/// Gathers mistakes while a file is read, and knows every text by number.
#[derive(Debug, Default)]
pub(super) struct Sink {
    texts: Vec<SourceText>,
    problems: BTreeSet<Problem>,
    dropped: usize,
}

impl Sink {
    /// Takes in a text under the name that the operator knows it by.
    pub(super) fn add_text(&mut self, name: impl Into<String>, content: Arc<str>) -> SourceId {
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let name = name.into();
        self.texts.push(SourceText {
            name,
            content,
            starts: OnceLock::new(),
        });
        SourceId(number)
    }

    /// Notes a mistake; the same words at the same place count once.
    pub(super) fn report(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.note(place, message.into(), help.into(), Fault::File);
    }

    /// Notes what is the machine's fault.
    pub(super) fn report_machine(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.note(place, message.into(), help.into(), Fault::Machine);
    }

    fn note(&mut self, place: Place, message: String, help: String, fault: Fault) {
        if self.problems.len() >= PROBLEMS_MAX {
            self.dropped += 1;
            return;
        }
        self.problems.insert(Problem {
            place,
            message,
            help,
            fault,
        });
    }

    /// Whether nothing was noted.
    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many were noted: lets a reader see whether a part of its own went well.
    pub(super) fn count(&self) -> usize {
        self.problems.len() + self.dropped
    }

    /// How far the lines of a block text (`|`) are from the beginning of its source. Block texts
    /// begin on the line after their `|`, and share the indentation of their first line.
    pub(super) fn block_shift(&self, text: &Text) -> Shift {
        let none = Shift { line: 0, column: 0 };
        let Some(source) = self.texts.get(text.place.source.0 as usize) else {
            return none;
        };
        // The parser places a block text at its `|`, or after it: its first line with text follows.
        let first = text
            .text
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("");
        let blank = text
            .text
            .lines()
            .take_while(|line| line.trim().is_empty())
            .count();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut at = text.place.line;
        let line = loop {
            match source.line(at) {
                Some(line) if line.trim_start() == first.trim_start() => break line,
                Some(_) if at <= text.place.line + number(blank) => at += 1,
                Some(_) | None => return none,
            }
        };
        let indent = |line: &str| line.chars().take_while(|letter| *letter == ' ').count();
        Shift {
            line: at.saturating_sub(1).saturating_sub(number(blank)),
            column: number(indent(line).saturating_sub(indent(first))),
        }
    }

    /// What was gathered.
    pub(super) fn into_report(self) -> Report {
        Report {
            texts: self.texts,
            problems: self.problems.into_iter().collect(),
            dropped: self.dropped,
        }
    }
}

/// Every mistake of one read, sorted by place.
#[derive(Debug, Clone)]
pub struct Report {
    texts: Vec<SourceText>,
    /// The mistakes, sorted by place.
    pub problems: Vec<Problem>,
    /// Mistakes beyond [`PROBLEMS_MAX`].
    pub dropped: usize,
}

impl Report {
    /// Whether nothing in the file is wrong: the machine lacks what it names.
    pub fn is_machines(&self) -> bool {
        let mut faults = self.problems.iter().map(|problem| problem.fault);
        self.dropped == 0 && faults.all(|fault| fault == Fault::Machine)
    }

    /// Writes all of it for people: place, message, the offending line with a caret, the fix; then
    /// one line that sums up.
    ///
    /// # Errors
    /// When `out` can not be written.
    pub fn render(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for problem in &self.problems {
            self.render_problem(problem, out)?;
        }
        let total = self.problems.len() + self.dropped;
        let noun = if total == 1 { "mistake" } else { "mistakes" };
        let name = self.texts.first().map_or("batch file", |text| &text.name);
        if self.dropped > 0 {
            let shown = self.problems.len();
            return writeln!(
                out,
                "{name}: {total} {noun}, the first {shown} are shown; nothing was started"
            );
        }
        writeln!(out, "{name}: {total} {noun}; nothing was started")
    }

    fn render_problem(&self, problem: &Problem, out: &mut dyn io::Write) -> io::Result<()> {
        let place = problem.place;
        let text = self.texts.get(place.source.0 as usize);
        let name = text.map_or("batch file", |text| &text.name);
        if place.line == 0 {
            writeln!(out, "{name}: {}", problem.message)?;
        } else {
            let (line, column) = (place.line, place.column);
            writeln!(out, "{name}:{line}:{column}: {}", problem.message)?;
            if let Some(shown) = text.and_then(|text| text.line(line)) {
                write_excerpt(place, shown, out)?;
            }
        }
        writeln!(out, "  help: {}\n", problem.help)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::new();
        self.render(&mut bytes).map_err(|_| fmt::Error)?;
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}

impl std::error::Error for Report {}

/// The offending line and, below it, a caret under the place.
fn write_excerpt(place: Place, line: &str, out: &mut dyn io::Write) -> io::Result<()> {
    let column = place.column.max(1) as usize - 1;
    let total = line.chars().count();
    let first = if total > SHOWN_MAX {
        column.saturating_sub(SHOWN_BEFORE)
    } else {
        0
    };
    // Tabs and control characters take one cell, so that the caret stands where it should.
    let shown = line.chars().skip(first).take(SHOWN_MAX);
    let shown: String = shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let before = if first > 0 { "…" } else { "" };
    let after = if first + SHOWN_MAX < total { "…" } else { "" };
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    writeln!(out, "  {number} | {before}{shown}{after}")?;
    let room = shown.chars().count().saturating_sub(column - first).max(1);
    let carets = "^".repeat((place.length.max(1) as usize).min(room));
    let pad = " ".repeat(column - first + before.chars().count());
    writeln!(out, "  {gutter} | {pad}{carets}")
}

/// Offsets at which lines begin, by YAML's rule: `\n`, `\r\n` or a lone `\r` ends a line.
fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let mut starts = vec![0];
    for (at, byte) in bytes.iter().enumerate() {
        let ends = *byte == b'\n' || (*byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
        if ends {
            starts.push(at + 1);
        }
    }
    starts
}

/// The nearest of `known` to `word`, when it is near enough to be meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters, at least one: `promt` is `prompt`, `x` is nothing.
    let near = (word.chars().count() / 3).clamp(1, 4);
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let distance = edit_distance(word, candidate, near);
        if distance <= near && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, changed or swapped with their neighbour; anything above
/// `limit` is `limit + 1`.
fn edit_distance(left: &str, right: &str, limit: usize) -> usize {
    let left: Vec<char> = left.chars().take(256).collect();
    let right: Vec<char> = right.chars().take(256).collect();
    if left.len().abs_diff(right.len()) > limit {
        return limit + 1;
    }
    let mut older: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let change = above[j] + usize::from(a != b);
            let mut least = change.min(above[j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b;
            if swapped {
                least = least.min(older[j - 1] + 1);
            }
            row.push(least);
        }
        older = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0).min(limit + 1)
}
