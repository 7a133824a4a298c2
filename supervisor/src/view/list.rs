//! `list`: the batches of this machine, newest first.

use std::io::{self, Write};

use crate::view::View;
use crate::view::reason::BatchWhy;
use crate::view::status::BatchRow;

/// Writes one row of `list --json`.
///
/// # Errors
/// When `out` can not be written.
pub fn write_json_row(view: &View<'_>, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &BatchRow::new(view)).map_err(Into::into)
}

/// Writes one line for a person.
///
/// # Errors
/// When `out` can not be written.
pub fn write_text_row(view: &View<'_>, out: &mut dyn Write) -> io::Result<()> {
    let batch = &view.facts.batch;
    writeln!(
        out,
        "{:40}  {:11}  {:>8} ago  {}; {}",
        batch.id,
        view.batch_state(),
        view.time.since(batch.created),
        view.counts().sentence(),
        BatchWhy { view }
    )
}
