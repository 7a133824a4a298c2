//! `supervisor ps`: the processes of batches, and what proves each of them ours.

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Shelf};
use crate::cli::orphans::Search;
use crate::cli::processes::{Census, Known, Part};
use crate::cli::target::Target;
use crate::view::processes::{ProcessRow, ProcessState, write_json, write_text};

const EXAMPLES: &str = "Examples:
  supervisor ps                 every live process of your batches, as trees
  supervisor ps lexer --why     one task; what proves each process ours, what holds its tree together
  supervisor ps nightly --json | jq '.[] | {task, pid, rss_bytes}'
  supervisor ps --orphans       everything of ours that has no living owner, wherever it hides

States: live (its owner lives); orphan (lives, but no supervisor owns it); foreign (another machine or
pid namespace, or a token of no known batch: unknown, not dead); stale (recorded, but gone).
A process counts as ours only by proof, never by its name: its whole recorded identity, its descent
from a proven process, and with --orphans also the spawn token in its environment, the tag in its
limit of file locks, a session that a run made, a run's cgroup.
Without --orphans only recorded processes and their trees are looked at; --orphans looks at every
process of this machine once. An id of the first column is a TARGET of `supervisor kill`.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only this batch, this task, or this attempt of it
    target: Option<Target>,
    /// Everything of ours without a living owner; looks at every process
    #[arg(long)]
    orphans: bool,
    /// Also what proves each process ours
    #[arg(long)]
    why: bool,
    /// For scripts: one JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let shelf = Shelf::open()?;
    let census = Census::take()?;
    let mut code = Code::Ok;
    let rows = match (args.orphans, &args.target) {
        (true, target) => orphans(&shelf, &census, target.as_ref(), &mut code, io)?,
        (false, Some(target)) => of_target(&shelf, &census, target)?,
        (false, None) => {
            let mut rows = of_all(&shelf, &census, &mut code, io)?;
            if !args.json {
                // A person looks for what lives; scripts and a named batch get what is recorded too.
                rows.retain(|row| row.state != ProcessState::Stale);
            }
            rows
        }
    };
    if args.json {
        write_json(&rows, io.out).map_err(CliError::output)?;
    } else {
        write_text(&rows, args.why, io.out).map_err(CliError::output)?;
    }
    Ok(code)
}

fn of_target(shelf: &Shelf, census: &Census, target: &Target) -> Result<Vec<ProcessRow>, CliError> {
    let meant = shelf.find(Some(target))?;
    let task = crate::cli::act::task_id(&meant)?;
    let part = Part {
        task: task.as_ref(),
        attempt: meant.attempt,
    };
    match Known::read(&meant.batch)? {
        Some(known) => census.of(&meant.batch, &known, part),
        None => Ok(Vec::new()),
    }
}

fn of_all(
    shelf: &Shelf,
    census: &Census,
    code: &mut Code,
    io: &mut Io<'_>,
) -> Result<Vec<ProcessRow>, CliError> {
    let mut rows = Vec::new();
    let mut lost = 0;
    for batch in shelf.newest_first() {
        // What can not be read is told and does not hide the others; but a list without it is not the
        // whole list, and the exit code says so.
        match one(census, &batch) {
            Ok((found, has_lost)) => {
                rows.extend(found);
                lost += u32::from(has_lost);
            }
            Err(error) => {
                error.tell(io.err).map_err(CliError::output)?;
                *code = error.code();
            }
        }
    }
    if lost > 0 {
        let note = format!(
            "note: {lost} batches have runs and no supervisor; `supervisor ps --orphans` finds what \
             they left"
        );
        writeln!(io.err, "{note}").map_err(CliError::output)?;
    }
    Ok(rows)
}

fn one(census: &Census, batch: &Found) -> Result<(Vec<ProcessRow>, bool), CliError> {
    let Some(known) = Known::read(batch)? else {
        return Ok((Vec::new(), false));
    };
    let rows = census.of(batch, &known, Part::default())?;
    Ok((rows, known.has_lost_runs()))
}

fn orphans(
    shelf: &Shelf,
    census: &Census,
    target: Option<&Target>,
    code: &mut Code,
    io: &mut Io<'_>,
) -> Result<Vec<ProcessRow>, CliError> {
    let search = Search::new(shelf)?;
    for error in &search.unread {
        error.tell(io.err).map_err(CliError::output)?;
        *code = error.code();
    }
    let mut rows = search.look(census)?.rows(census, &search);
    if let Some(target) = target {
        let meant = shelf.find(Some(target))?;
        let task = crate::cli::act::task_id(&meant)?.map(|task| task.to_string());
        rows.retain(|row| {
            row.batch == meant.batch.id.as_str()
                && task
                    .as_ref()
                    .is_none_or(|task| row.task.as_ref() == Some(task))
                && meant
                    .attempt
                    .is_none_or(|attempt| row.attempt == Some(attempt.0))
        });
    }
    Ok(rows)
}
