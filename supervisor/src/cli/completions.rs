//! `supervisor completions`: a shell's completion script.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::error::{CliError, Code};
use crate::cli::{Cli, Io};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  supervisor completions bash > \
                        ~/.local/share/bash-completion/completions/supervisor")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "supervisor", &mut script);
    io.out.write_all(&script).map_err(CliError::output)?;
    Ok(Code::Ok)
}
