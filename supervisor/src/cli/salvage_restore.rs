//! `supervisor salvage restore`: lets the other program of the pair write a salvage to a folder.

use std::path::Path;

use protocol::class::Class;
use protocol::git::{GitEnd, GitOutcome, GitWork, Restore};

use crate::cli::error::{CliError, Code};
use crate::cli::salvage::Kept;
use crate::cli::{Io, git_work};
use crate::view::family::size;

/// Writes what was kept to this folder, which must be empty or missing.
///
/// # Errors
/// What the other program says (8, or 10 for what the machine lacks).
pub(super) fn restore(
    kept: &Kept,
    to: &Path,
    staged: bool,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let to = std::path::absolute(to).map_err(|error| {
        let text = format!("can not name the folder: {error}");
        CliError::new(Code::Environment, text)
    })?;
    let (Some(repo), Some(to)) = (kept.repo.to_str(), to.to_str()) else {
        return Err(CliError::new(Code::Usage, "the folder's path is not UTF-8"));
    };
    let work = GitWork::Restore(Restore {
        repo: repo.to_owned(),
        reference: kept.salvage.reference.to_string(),
        to: to.to_owned(),
        staged,
        modules: None,
    });
    match git_work::attempt(&kept.batch, &work)? {
        GitEnd::Done(GitOutcome::Restored(done)) => {
            let (files, bytes) = (done.files, size(done.bytes));
            io.line(format_args!(
                "{}: {files} files, {bytes}, in {to}",
                done.reference
            ))?;
            Ok(Code::Ok)
        }
        GitEnd::Done(_) => Err(CliError::new(
            Code::Internal,
            "agent-host did something else than what was asked",
        )),
        GitEnd::Failed { class, message } => {
            let code = match class {
                Class::Environment | Class::Disk => Code::Environment,
                _other => Code::Refused,
            };
            Err(CliError::new(code, message))
        }
    }
}
