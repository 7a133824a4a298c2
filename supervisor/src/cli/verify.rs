//! `supervisor verify`: proves a batch's journal.

use std::fmt;

use supervisor_core::core::Core;
use supervisor_core::facts::Facts;

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Shelf};
use crate::driver::error::chain;
use crate::store::{Check, Loaded, RealDisk, StoreError, load};

const EXAMPLES: &str = "Example:
  supervisor verify nightly

It reads every record from the first: checksums, numbers without gaps, only legal steps; a second
replay gives the same state; the checkpoint is what the journal leads to. Nothing is changed.
Exit codes: 0 proven, 9 not (the place is named).";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The batch
    batch: Option<String>,
}

/// What one replay came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    records: u64,
    steps: u64,
    terms: u64,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let batch = Shelf::open()?.batch(args.batch.as_deref())?;
    let loaded = load::load(&RealDisk, &batch.dir, Check::Whole)?;
    let end = loaded.end.seq;
    let (first, tally) = replay(&batch, end, loaded.checkpoint.as_ref())?;
    let (second, again) = replay(&batch, end, None)?;
    if first.facts() != second.facts() || tally != again {
        return Err(not_proven(
            &batch,
            "two replays of the journal lead to different states",
        ));
    }
    tell(&batch, &loaded, tally, io)?;
    Ok(Code::Ok)
}

/// Replays up to the end that was seen first: a live supervisor may be writing more.
fn replay(batch: &Found, end: u64, checkpoint: Option<&Facts>) -> Result<(Core, Tally), CliError> {
    let mut core = Core::new();
    let mut tally = Tally::default();
    load::replay(&RealDisk, &batch.dir, &mut |entry| {
        if entry.seq > end {
            return Ok(());
        }
        let place = |why: &dyn fmt::Display| StoreError::Unreadable {
            file: batch.dir.journal(),
            offset: 0,
            why: format!("record {}: {why}", entry.seq),
        };
        let steps = core.replay(&entry).map_err(|error| place(&chain(&error)))?;
        tally.records += 1;
        tally.steps += steps.len() as u64;
        tally.terms = tally.terms.max(entry.term);
        let here = checkpoint.filter(|facts| facts.batch.seq == entry.seq);
        if here.is_some_and(|facts| core.facts() != Some(facts)) {
            return Err(place(&"the checkpoint is not what the journal leads to"));
        }
        Ok(())
    })?;
    Ok((core, tally))
}

fn tell(batch: &Found, loaded: &Loaded, tally: Tally, io: &mut Io<'_>) -> Result<(), CliError> {
    let Tally {
        records,
        steps,
        terms,
    } = tally;
    io.line(format_args!(
        "{}: {records} records whole and in order, {steps} legal steps, {terms} supervisors; \
         two replays agree",
        batch.id
    ))?;
    match &loaded.checkpoint {
        Some(facts) => io.line(format_args!(
            "checkpoint: equal to the journal at record {}",
            facts.batch.seq
        ))?,
        None => io.line("checkpoint: none that is needed")?,
    }
    if let Some(torn) = &loaded.torn {
        io.line(format_args!(
            "torn tail: {} bytes after record {} ({}); the next supervisor cuts it and keeps the \
             bytes aside",
            torn.bytes, loaded.end.seq, torn.why
        ))?;
    }
    Ok(())
}

fn not_proven(batch: &Found, why: &str) -> CliError {
    CliError::new(
        Code::Unreadable,
        format!("{}: {why}", batch.dir.path().display()),
    )
    .hint("nothing was changed; keep the folder as it is")
}
