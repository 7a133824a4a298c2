//! `supervisor resume`: what was held goes on.

use crate::cli::error::{CliError, Code};
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::control::wire::Want;

const EXAMPLES: &str = "Examples:
  supervisor resume            the batch and its stopped accounts
  supervisor resume lexer      one task

A batch without a live supervisor goes on with `supervisor run FILE`; this order is queued for it.
Exit codes: 0 done or queued, 6 not found, 7 ambiguous, 8 its state does not allow it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Batches or tasks; without any, the unfinished batch of this repository
    target: Vec<Target>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    act::send_each(&args.target, io, |tasks| Want::Resume { tasks })
}
