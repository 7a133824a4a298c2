//! `supervisor ps`: the processes of batches, and what proves each of them ours.

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::open::Shelf;
use crate::cli::processes::Census;
use crate::cli::target::Target;
use crate::view::processes::{ProcessState, write_json, write_text};

const EXAMPLES: &str = "Examples:
  supervisor ps                 every live process of your batches, as trees
  supervisor ps nightly --json | jq '.[] | {task, pid, rss_bytes}'
  supervisor ps --orphans       hosts and their trees that no supervisor owns

States: live; orphan (lives, but no supervisor owns it); foreign (another machine, boot or pid
namespace: unknown, not dead); stale (recorded, but gone). A process counts as ours only by its whole
identity (pid, start ticks, boot id) or by the token in its environment, never by its name.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only this batch, or this task of it
    target: Option<Target>,
    /// Only those that no supervisor owns
    #[arg(long)]
    orphans: bool,
    /// For scripts: one JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let shelf = Shelf::open()?;
    let census = Census::take()?;
    let mut rows = Vec::new();
    let mut code = Code::Ok;
    match &args.target {
        Some(target) => {
            let meant = shelf.find(Some(target))?;
            let opened = meant.batch.read()?;
            let task = match &meant.task {
                Some(word) => Some(opened.task(word)?),
                None => None,
            };
            rows.extend(census.of(&meant.batch, &opened, task)?);
        }
        None => {
            for batch in shelf.newest_first() {
                // What can not be read is told and does not hide the others; but a list without it
                // is not the whole list, and the exit code says so.
                match batch.read() {
                    Ok(opened) => rows.extend(census.of(&batch, &opened, None)?),
                    Err(error) => {
                        error.tell(io.err).map_err(CliError::output)?;
                        code = error.code();
                    }
                }
            }
        }
    }
    if args.orphans {
        rows.retain(|row| row.state == ProcessState::Orphan);
    } else if !args.json && args.target.is_none() {
        // A person looks for what lives; scripts and a named batch get what is recorded too.
        rows.retain(|row| row.state != ProcessState::Stale);
    }
    if args.json {
        write_json(&rows, io.out).map_err(CliError::output)?;
    } else {
        write_text(&rows, io.out).map_err(CliError::output)?;
    }
    Ok(code)
}
