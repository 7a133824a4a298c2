//! `supervisor plan`: what `run` would do, in which order.

use crate::batch_file::summary;
use crate::cli::Io;
use crate::cli::batch::FileArgs;
use crate::cli::error::{CliError, Code};
use crate::view::plan::{write_json, write_text};

const EXAMPLES: &str = "Examples:
  supervisor plan
  supervisor plan nightly.yml --set crate=parser
  supervisor plan --json | jq -r '.tasks[].id'

Nothing is started and nothing is written. Exit codes: 0 valid, 3 invalid.";

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
    let plan = summary(&args.file.read(io)?.plan);
    let written = if args.json {
        write_json(&plan, io.out)
    } else {
        write_text(&plan, io.out)
    };
    written.map_err(CliError::output)?;
    Ok(Code::Ok)
}
