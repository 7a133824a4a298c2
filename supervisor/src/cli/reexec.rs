//! `supervisor reexec`: a live supervisor becomes another program in place.

use std::path::PathBuf;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Shelf;
use crate::cli::{Io, act};
use crate::control::wire::Want;

const EXAMPLES: &str = "Examples:
  supervisor reexec nightly                          become the program that you just called
  supervisor reexec nightly --program ./supervisor   become that one

The process stays: its pid, its hosts, their agents and every message go on. The new program is
tried first; if it can not take over, the old one goes on and says why.
Exit codes: 0 replaced, 6 not found, 7 ambiguous, 8 refused (the old program goes on, or there is no
live supervisor, or it is still recovering), 10 no such program.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The batch; without it, the unfinished batch of this repository
    batch: Option<String>,
    /// The program to become; without it, the one that runs this command
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let batch = Shelf::open()?.batch(args.batch.as_deref())?;
    let program = program(args)?;
    if act::order(&batch, Want::Reexec { program }, io)? {
        return Ok(Code::Ok);
    }
    let message = match batch.holder()? {
        Some(holder) => format!(
            "the supervisor of {} (pid {}) does not listen yet: it is still recovering",
            batch.id, holder.pid
        ),
        None => format!("batch {} has no live supervisor", batch.id),
    };
    Err(CliError::new(Code::Refused, message))
}

fn program(args: &Args) -> Result<String, CliError> {
    let failed = |what: String| CliError::new(Code::Environment, what);
    let path = match &args.program {
        Some(path) => std::path::absolute(path),
        None => std::env::current_exe(),
    };
    let path = path.map_err(|error| failed(format!("can not find the program: {error}")))?;
    let runnable = rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok();
    if !runnable || !path.is_file() {
        return Err(failed(format!("{} is no program", path.display())));
    }
    let text = path.into_os_string().into_string();
    text.map_err(|path| failed(format!("{} is not UTF-8", path.display())))
}
