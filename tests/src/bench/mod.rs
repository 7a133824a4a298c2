//! What the product costs, as ratios to floors that the same run measures on the same machine.

pub mod cost;
pub mod floor;
pub mod idle;
pub mod latency;
pub mod measure;
pub mod ownership;
pub mod recovery;
pub mod resume;
pub mod worktrees;

use std::fmt;
use std::time::Duration;

use crate::world::{Ran, World};

/// Live attempts in the batches of trivial tasks, and processes of the floor.
pub const CONCURRENCY: usize = 4;

/// One measured value, and the promise about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Section of the benchmark.
    pub section: &'static str,
    /// What was measured.
    pub what: String,
    /// The value.
    pub value: f64,
    /// Its unit; `x` for ratios.
    pub unit: &'static str,
    /// At most this is promised.
    pub limit: Option<f64>,
}

impl Row {
    /// A value without a promise.
    pub fn plain(section: &'static str, what: String, value: f64, unit: &'static str) -> Self {
        Self {
            section,
            what,
            value,
            unit,
            limit: None,
        }
    }

    /// A value with a promise.
    pub fn limited(self, limit: f64) -> Self {
        let limit = Some(limit);
        Self { limit, ..self }
    }

    /// The promise is kept, or there is none.
    pub fn is_kept(&self) -> bool {
        self.limit.is_none_or(|limit| self.value <= limit)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            section,
            what,
            value,
            unit,
            ..
        } = self;
        write!(f, "{section:<8} {what:<64} {value:>10.3} {unit:<5}")?;
        match self.limit {
            Some(limit) if self.is_kept() => write!(f, " at most {limit:.3}: kept"),
            Some(limit) => write!(f, " at most {limit:.3}: BROKEN"),
            None => Ok(()),
        }
    }
}

/// Measures one section.
pub type Measure = fn() -> Vec<Row>;

/// The sections. First what makes the most files, because a mass of deleted ones makes each new one
/// dear for minutes; then in the order of their length.
pub const SECTIONS: &[(&str, Measure)] = &[
    ("worktrees", worktrees::provisioned),
    ("flat", cost::flat),
    ("cpu", cost::cpu),
    ("latency", latency::dependency),
    ("steer", latency::steer),
    ("spawn", ownership::spawn),
    ("kill", ownership::kill),
    ("ps", ownership::list),
    ("recovery", recovery::ownerless),
    ("idle", idle::sleeping),
    ("memory", idle::queued),
    ("status", cost::status),
    ("resume", resume::one_left),
];

/// A number from the environment, for smaller or larger measurements.
pub fn size(name: &str, otherwise: usize) -> usize {
    let text = std::env::var(name).unwrap_or_default();
    text.parse().unwrap_or(otherwise)
}

/// Writes a batch of trivial tasks, made by `foreach`, and further tasks as YAML.
pub fn write_batch(world: &World, tasks: usize, concurrency: usize, run: &str, more: &str) {
    let items: String = (0..tasks).map(|number| format!("{number}\n")).collect();
    world.write("items.txt", &items);
    world.write(
        "batch.yml",
        &format!(
            "version: 1\nname: bench\nisolation: none\nconcurrency: {concurrency}\ntasks:\n\
             {more}  - id: \"t-{{{{ item }}}}\"\n    foreach: {{file: items.txt}}\n    run: {run}\n"
        ),
    );
}

/// Runs the world's batch to its good end.
///
/// # Panics
/// When it ends otherwise.
pub fn run_batch(world: &World) -> Ran {
    world.supervisor(&["run", "batch.yml"]).ok()
}

/// How many tasks of the world's batch are in that state; `None` before there is a batch.
pub fn count(world: &World, state: &str) -> Option<usize> {
    let ran = world.supervisor(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).ok()?;
    let count = status.get("batch")?.get("counts")?.get(state);
    let count = count.map_or(Some(0), serde_json::Value::as_u64)?;
    usize::try_from(count).ok()
}

/// Milliseconds as a number.
pub fn ms(length: Duration) -> f64 {
    length.as_secs_f64() * 1000.0
}

/// The value in the middle.
///
/// # Panics
/// When there are none.
pub fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_or_broken_and_says_so() {
        let row = Row::plain("cpu", "ratio".to_owned(), 2.4, "x").limited(2.5);
        assert!(
            row.is_kept() && row.to_string().ends_with("at most 2.500: kept"),
            "{row}"
        );
        let broken = Row { value: 2.6, ..row };
        assert!(
            !broken.is_kept() && broken.to_string().ends_with("BROKEN"),
            "{broken}"
        );
    }

    #[test]
    fn the_median_is_of_sorted_values() {
        assert_eq!(
            median(vec![9.0, 1.0, 5.0]).total_cmp(&5.0),
            std::cmp::Ordering::Equal
        );
    }
}
