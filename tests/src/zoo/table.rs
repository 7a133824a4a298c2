//! The matrix as people read it: a row for each escape, a column for each case.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::cell::{Case, Cell};
use super::escape::Escape;

/// The cells of many runs.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<(Escape, Case), Vec<Cell>>);

impl Table {
    /// Adds the cells of a run.
    pub fn add(&mut self, cells: Vec<Cell>) {
        for cell in cells {
            let key = (cell.escape, cell.case);
            self.0.entry(key).or_default().push(cell);
        }
    }

    /// Everything that breaks the promise.
    pub fn broken(&self) -> Vec<String> {
        let cells = self.0.values().flatten();
        cells.filter_map(Cell::broken).collect()
    }

    /// `.` no survivor in any run, `k/n` survivors in some, `r` reported as residual; then the
    /// median time of each case.
    pub fn text(&self) -> String {
        let mut text = format!("{:22}", "escape");
        for case in Case::ALL {
            write!(text, " {case:>16}").ok();
        }
        for escape in Escape::ALL {
            write!(text, "\n{escape:22}").ok();
            for case in Case::ALL {
                let cells = self.0.get(&(*escape, *case)).map_or(&[][..], Vec::as_slice);
                write!(text, " {:>16}", mark(cells)).ok();
            }
        }
        write!(text, "\n{:22}", "median ms").ok();
        for case in Case::ALL {
            let of_case = self.0.iter().filter(|((_, other), _)| other == case);
            let mut took: Vec<Duration> = of_case
                .flat_map(|(_, cells)| cells.iter().map(|cell| cell.took))
                .collect();
            took.sort_unstable();
            let median = took.get(took.len() / 2);
            let median = median.map_or(String::new(), |took| took.as_millis().to_string());
            write!(text, " {median:>16}").ok();
        }
        text.push('\n');
        text
    }
}

fn mark(cells: &[Cell]) -> String {
    if cells.is_empty() {
        return "-".to_owned();
    }
    let left = |cell: &&Cell| !cell.survivors.is_empty() || cell.overlap;
    let survived = cells.iter().filter(left).count();
    let residual = cells.iter().any(|cell| cell.residual);
    let residual = if residual { " r" } else { "" };
    match survived {
        0 => format!(".{residual}"),
        _ => format!("{survived}/{}{residual}", cells.len()),
    }
}
