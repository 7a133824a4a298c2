//! The report of a batch, for whoever comes back to it: what came of each task and why, what needs
//! the operator, what is on the batch branch, what happened on the way.
//!
//! One structure is what scripts get as JSON and what both templates are filled with. It is made from
//! a [`View`] and a [`History`], the records of the batch folded once. What agents wrote has gone
//! through [`plain`] before it is in it.

pub mod build;
pub mod escape;
pub mod history;
pub mod incident;
pub mod merged;
pub mod needs;
pub mod part;
pub mod plain;
pub mod render;
pub mod repos;
pub mod tail;
#[cfg(test)]
mod tests;
pub mod used;

pub use history::History;
pub use render::{RenderError, html, markdown};

use supervisor_core::plan::TaskIx;

use crate::store::integrated::Note;
use crate::view::View;
use part::Report as Parts;

/// What a report says that neither the journal nor the state does.
#[derive(Debug, Default)]
pub struct Beside {
    /// Where the work of the batch went at the operator's order.
    pub integrated: Vec<Note>,
    /// Files in which the ends of unfinished writes are kept.
    pub torn: Vec<String>,
}

/// A report, ready to be written.
#[derive(Debug, serde::Serialize)]
#[serde(transparent)]
pub struct Report(Parts);

impl Report {
    /// The report of a batch, or of one task of it.
    pub fn new(
        view: &View<'_>,
        history: &History,
        beside: &Beside,
        task: Option<TaskIx>,
    ) -> Report {
        Report(build::report(view, history, beside, task))
    }
}
