//! What is foreseen of merges: who conflicts with whom, in which files, and what happens then.

use std::io::{self, Write};

use serde::Serialize;
use supervisor_core::plan::OnConflict;

/// Conflicts that are shown to a person; `--json` has all.
const SHOWN_MAX: usize = 20;
/// Files of one conflict that are shown to a person.
const PATHS_SHOWN: usize = 5;
/// What stands for the batch branch where the other task is named.
pub const BATCH_BRANCH: &str = "batch branch";

/// How a conflict is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Their `touches` overlap: it may come to one.
    Touches,
    /// Their commits were merged in memory.
    Merge,
}

/// What the batch file says of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// An agent resolves it.
    Agent,
    /// It waits for the operator.
    Park,
    /// The merge has failed.
    Fail,
}

impl From<OnConflict> for Then {
    fn from(rule: OnConflict) -> Self {
        match rule {
            OnConflict::Agent(_) => Self::Agent,
            OnConflict::Park => Self::Park,
            OnConflict::Fail => Self::Fail,
        }
    }
}

impl Then {
    const fn sentence(self) -> &'static str {
        match self {
            Self::Agent => "an agent resolves it",
            Self::Park => "the later one waits for the operator",
            Self::Fail => "the later merge fails",
        }
    }
}

/// One conflict that is to be expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The task, or both.
    pub tasks: Vec<String>,
    /// The other task, or [`BATCH_BRANCH`].
    pub with: String,
    /// The files, or the globs that overlap; not all, where there are many.
    pub paths: Vec<String>,
    /// How many more files there are.
    pub more: u64,
    /// How it is known.
    pub by: By,
    /// What happens then.
    pub then: Then,
}

/// Everything that is foreseen of one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Forecast {
    /// What is to be expected.
    pub conflicts: Vec<Conflict>,
    /// What was not looked at, and why: sentences.
    #[serde(rename = "conflicts_unknown")]
    pub unknown: Vec<String>,
}

/// Writes it for a person; nothing where nothing is foreseen.
///
/// # Errors
/// When `out` can not be written.
pub fn write_text(forecast: &Forecast, out: &mut dyn Write) -> io::Result<()> {
    if !forecast.conflicts.is_empty() {
        writeln!(out, "\nConflicts to be expected:")?;
    }
    for conflict in forecast.conflicts.iter().take(SHOWN_MAX) {
        writeln!(out, "  {}", sentence(conflict))?;
    }
    let left = forecast.conflicts.len().saturating_sub(SHOWN_MAX);
    if left > 0 {
        writeln!(out, "  and {left} more (`--json` names them)")?;
    }
    for unknown in &forecast.unknown {
        writeln!(out, "  not looked at: {unknown}")?;
    }
    Ok(())
}

fn sentence(conflict: &Conflict) -> String {
    let first = conflict.tasks.first().map_or("", String::as_str);
    let (with, then) = (&conflict.with, conflict.then.sentence());
    let with = match with.as_str() {
        BATCH_BRANCH => "the batch branch",
        task => task,
    };
    let paths = paths(conflict);
    match conflict.by {
        By::Touches => format!("{first} and {with} may both change {paths}; if they do, {then}"),
        By::Merge => format!("{first} conflicts with {with} in {paths}; then {then}"),
    }
}

fn paths(conflict: &Conflict) -> String {
    let shown = conflict.paths.len().min(PATHS_SHOWN);
    let mut text = conflict.paths[..shown].join(", ");
    let hidden = (conflict.paths.len() - shown) as u64 + conflict.more;
    if hidden > 0 {
        text.push_str(&format!(" and {hidden} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conflict(with: &str, paths: usize, by: By) -> Conflict {
        let mut tasks = vec!["lexer".to_owned()];
        tasks.extend((with != BATCH_BRANCH).then(|| with.to_owned()));
        Conflict {
            tasks,
            with: with.to_owned(),
            paths: (0..paths).map(|number| format!("f{number}")).collect(),
            more: 0,
            by,
            then: Then::Park,
        }
    }

    fn text(forecast: &Forecast) -> String {
        let mut out = Vec::new();
        write_text(forecast, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_person_reads_who_where_and_what_then() {
        let mut many = conflict(BATCH_BRANCH, 7, By::Merge);
        (many.more, many.then) = (3, Then::Agent);
        let forecast = Forecast {
            conflicts: vec![many, conflict("parser", 1, By::Touches)],
            unknown: vec!["3 pairs of commits: it took longer than 2 s".to_owned()],
        };
        assert_eq!(
            text(&forecast),
            "\nConflicts to be expected:\n  \
             lexer conflicts with the batch branch in f0, f1, f2, f3, f4 and 5 more; then an agent \
             resolves it\n  \
             lexer and parser may both change f0; if they do, the later one waits for the operator\n  \
             not looked at: 3 pairs of commits: it took longer than 2 s\n"
        );
        assert_eq!(text(&Forecast::default()), "");
    }

    #[test]
    fn what_is_not_shown_is_counted_and_the_keys_are_stable() {
        let forecast = Forecast {
            conflicts: vec![conflict("parser", 1, By::Merge); SHOWN_MAX + 2],
            unknown: Vec::new(),
        };
        assert!(text(&forecast).ends_with("  and 2 more (`--json` names them)\n"));
        assert_eq!(
            serde_json::to_string(&forecast.conflicts[0]).unwrap(),
            "{\"tasks\":[\"lexer\",\"parser\"],\"with\":\"parser\",\"paths\":[\"f0\"],\"more\":0,\
             \"by\":\"merge\",\"then\":\"park\"}"
        );
    }
}
