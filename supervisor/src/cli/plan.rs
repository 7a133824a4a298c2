//! `supervisor plan`: what `run` would do, in which order.

use crate::batch_file::{BatchFile, summary};
use crate::cli::base_moved::{self, Moved};
use crate::cli::batch::FileArgs;
use crate::cli::error::{CliError, Code};
use crate::cli::listing::Commands;
use crate::cli::open::{Found, Opened};
use crate::cli::{Io, forecast};
use crate::store::{RealDisk, StateRoot, index};
use crate::view::forecast::{Forecast, write_text as write_forecast};
use crate::view::plan::{write_json, write_text};

const EXAMPLES: &str = "Examples:
  supervisor plan
  supervisor plan nightly.yml --set crate=parser
  supervisor plan --json | jq -r '.tasks[].id'

A command that lists the items of a `foreach` is run, so that its tasks are shown; where the batch is
there already, conflicts of what is committed and not merged yet are foreseen, too. No agent is
started and nothing is changed. Exit codes: 0 valid, 3 invalid (or its command failed),
5 interrupted.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    file: FileArgs,
    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let file = args.file.read(Some(&Commands::anew()), io)?;
    let plan = summary(&file.plan);
    let (forecast, moved) = foreseen(&file);
    if args.json {
        write_json(&plan, &forecast, io.out).map_err(CliError::output)?;
        return Ok(Code::Ok);
    }
    write_text(&plan, io.out)
        .and_then(|()| write_forecast(&forecast, io.out))
        .map_err(CliError::output)?;
    base_moved::tell(&moved, io)?;
    Ok(Code::Ok)
}

/// What is foreseen: of the batch of this file, where there is one, else of the plan alone. That its
/// batch can not be read is said, and is for other commands to deal with.
fn foreseen(file: &BatchFile) -> (Forecast, Vec<Moved>) {
    match batch_of(file) {
        Ok(Some((batch, opened))) => {
            let facts = opened.facts();
            (forecast::of(&batch, facts, None), base_moved::moved(facts))
        }
        Ok(None) => (forecast::of_plan(&file.plan), Vec::new()),
        Err(error) => {
            let mut forecast = forecast::of_plan(&file.plan);
            forecast
                .unknown
                .push(format!("the batch of this file: {error}"));
            (forecast, Vec::new())
        }
    }
}

/// The newest batch of the file's name and repository.
fn batch_of(file: &BatchFile) -> Result<Option<(Found, Opened)>, CliError> {
    let root = StateRoot::from_env()?;
    let same = index::find(&RealDisk, &root, &file.identity.name, &file.identity.root)?;
    let Some(newest) = same.first() else {
        return Ok(None);
    };
    let batch = Found::from(newest);
    let opened = batch.read_any()?;
    Ok(opened.map(|opened| (batch, opened)))
}
