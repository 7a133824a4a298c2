//! `supervisor validate`: checks a batch file and starts nothing.

use crate::cli::Io;
use crate::cli::batch::FileArgs;
use crate::cli::error::{CliError, Code};

const EXAMPLES: &str = "Examples:
  supervisor validate
  supervisor validate - < batch.yml

Every mistake is shown at once: file, line and column, the line itself, and the way out. A command
that lists the items of a `foreach` is not run: `supervisor plan` shows what it lists.
Exit codes: 0 valid, 3 invalid.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    file: FileArgs,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let read = args.file.read(None, io)?;
    let (tasks, agents) = (read.plan.tasks.len(), read.plan.agents.len());
    io.line(format_args!(
        "valid: batch {}, {tasks} {}, {agents} {}",
        read.identity.name,
        if tasks == 1 { "task" } else { "tasks" },
        if agents == 1 { "agent" } else { "agents" }
    ))?;
    match read.at_start {
        0 => {}
        1 => io.line(format_args!(
            "the items of 1 `foreach` are known at the start"
        ))?,
        more => io.line(format_args!(
            "the items of {more} `foreach` are known at the start"
        ))?,
    }
    Ok(Code::Ok)
}
