//! `run` as the guardian: the same command line once more, for the supervisor proper.

use std::ffi::OsString;

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::run::Args;
use crate::driver;
use crate::guardian::watch::End;
use crate::guardian::{Guard, GuardianError, watch};

impl From<GuardianError> for CliError {
    fn from(error: GuardianError) -> Self {
        CliError::from_source(Code::Environment, &error)
            .hint("`supervisor run --no-guardian` works without one")
    }
}

/// Guards the supervisor that does what this command line says, and ends as it does.
///
/// # Errors
/// When the system does not let it guard (10).
pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let program = std::env::current_exe().map_err(|error| {
        let message = format!("the program does not find itself: {error}");
        CliError::new(Code::Environment, message)
    })?;
    let mut go_on: Vec<OsString> = vec!["run".into()];
    if args.json {
        go_on.push("--json".into());
    }
    go_on.push("--go-on".into());
    let guard = Guard {
        program,
        // As the kernel names it. The supervisor says what is wrong where there is none.
        host: driver::host_program()
            .ok()
            .and_then(|host| host.canonicalize().ok()),
        words: std::env::args_os().skip(1).collect(),
        reads_stdin: args.file.is_stdin(),
        go_on,
    };
    Ok(match watch(guard, io.err)? {
        End::Handed(code) => Code::from_number(code).unwrap_or(Code::Internal),
        End::Stopped => Code::Interrupted,
        End::GivenUp => Code::GivenUp,
    })
}
