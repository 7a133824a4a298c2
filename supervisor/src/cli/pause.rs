//! `supervisor pause`: holds a batch or tasks.

use crate::cli::error::{CliError, Code};
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::control::wire::Want;

const EXAMPLES: &str = "Examples:
  supervisor pause             nothing new starts; what runs may finish
  supervisor pause --now       what runs is stopped; it goes on after `supervisor resume`
  supervisor pause lexer       one task

Without a live supervisor the order is queued.
Exit codes: 0 done or queued, 6 not found, 7 ambiguous, 8 its state does not allow it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Batches or tasks; without any, the unfinished batch of this repository
    target: Vec<Target>,
    /// Let what runs finish (the default)
    #[arg(long, conflicts_with = "now")]
    drain: bool,
    /// Stop what runs
    #[arg(long)]
    now: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let now = args.now && !args.drain;
    act::send_each(&args.target, io, |tasks| Want::Pause { tasks, now })
}
