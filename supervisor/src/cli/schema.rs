//! `supervisor schema`: the JSON Schema of batch files, for editors.

use crate::batch_file;
use crate::cli::Io;
use crate::cli::error::{CliError, Code};

const EXAMPLES: &str = "Example:
  supervisor schema > supervisor.schema.json

and as the first line of a batch file:
  # yaml-language-server: $schema=./supervisor.schema.json";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    io.line(batch_file::schema().trim_end())?;
    Ok(Code::Ok)
}
