//! `supervisor salvage restore`: lets the other program of the pair write a salvage to a folder.

use std::path::Path;

use protocol::class::Class;
use protocol::git::{GitEnd, GitOutcome, GitWork, Restore};

use crate::cli::error::{CliError, Code};
use crate::cli::salvage::Kept;
use crate::cli::{Io, git_work};
use crate::view::family::size;

/// Writes what was kept to this folder, which must be empty or missing, and the repositories of its
/// submodules to another one, where one is named.
///
/// # Errors
/// What the other program says (8, or 10 for what the machine lacks).
pub(super) fn restore(
    kept: &Kept,
    to: &Path,
    staged: bool,
    modules: Option<&Path>,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let to = whole(to)?;
    let modules = modules.map(whole).transpose()?;
    let work = GitWork::Restore(Restore {
        repo: text(&kept.repo)?,
        reference: kept.salvage.reference.to_string(),
        to: to.clone(),
        staged,
        modules: modules.clone(),
    });
    match git_work::attempt(&kept.batch, &work)? {
        GitEnd::Done(GitOutcome::Restored(done)) => {
            let (files, bytes) = (done.files, size(done.bytes));
            let reference = &done.reference;
            io.line(format_args!("{reference}: {files} files, {bytes}, in {to}"))?;
            if let Some(modules) = modules {
                io.line(format_args!(
                    "the repositories of its submodules are in {modules}: `git --git-dir={modules}/NAME log`"
                ))?;
            } else if done.modules_left {
                io.line("repositories of submodules are kept too: `--modules DIR` writes them")?;
            }
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

fn whole(folder: &Path) -> Result<String, CliError> {
    let folder = std::path::absolute(folder).map_err(|error| {
        let text = format!("can not name the folder {}: {error}", folder.display());
        CliError::new(Code::Environment, text)
    })?;
    text(&folder)
}

fn text(path: &Path) -> Result<String, CliError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let text = format!("the path {} is not UTF-8", path.display());
        CliError::new(Code::Usage, text)
    })
}
