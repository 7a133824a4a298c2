//! `supervisor cancel`: rules that a batch or tasks go no further.

use crate::cli::error::{CliError, Code};
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::control::wire::Want;

const EXAMPLES: &str = "Examples:
  supervisor cancel lexer parser     these tasks; what runs of them is stopped
  supervisor cancel nightly          every unfinished task of the batch

A cancelled task is ended; `supervisor retry` opens it again. Without a live supervisor the order is
queued. Exit codes: 0 done or queued, 6 not found, 7 ambiguous, 8 its state does not allow it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Batches or tasks; without any, the unfinished batch of this repository
    target: Vec<Target>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    act::send_each(&args.target, io, |tasks| Want::Cancel { tasks })
}
