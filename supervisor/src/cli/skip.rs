//! `supervisor skip`: passes tasks over.

use crate::cli::error::{CliError, Code};
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::control::wire::Want;

const EXAMPLES: &str = "Examples:
  supervisor skip lexer               its dependents are skipped too
  supervisor skip lexer --as-done     its dependents go on as if it were done

Without a live supervisor the order is queued.
Exit codes: 0 done or queued, 6 not found, 7 ambiguous, 8 its state does not allow it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tasks
    #[arg(required = true)]
    target: Vec<Target>,
    /// Dependents see them as done
    #[arg(long)]
    as_done: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let as_done = args.as_done;
    act::send_tasks(&args.target, io, |tasks| Want::Skip { tasks, as_done })
}
