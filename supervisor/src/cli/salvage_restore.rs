//! `supervisor salvage restore`: lets the other program of the pair write a salvage to a folder.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use protocol::class::Class;
use protocol::git::{GitOutcome, GitWork, Restore};
use serde::Deserialize;

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::salvage::Kept;
use crate::driver::host_program;
use crate::view::family::size;

/// Longest outcome, bytes: the limit that its writer keeps.
const OUTCOME_MAX: u64 = 1 << 20;

/// What came of it, as `agent-host git` writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done(GitOutcome),
    Failed { class: Class, message: String },
}

/// Request and outcome, in a folder that goes with this value.
struct Exchange(PathBuf);

impl Exchange {
    fn open(folder: PathBuf) -> io::Result<Exchange> {
        // Left by a process of the same number that was killed.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&folder)?;
        Ok(Exchange(folder))
    }

    fn request(&self) -> PathBuf {
        self.0.join("request.json")
    }

    fn outcome(&self) -> PathBuf {
        self.0.join("outcome.json")
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a folder of a restore stays");
        }
    }
}

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
    let failed = |what: &str, error: &io::Error| {
        CliError::new(Code::Environment, format!("can not {what}: {error}"))
    };
    let to = std::path::absolute(to).map_err(|error| failed("name the folder", &error))?;
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
    let host = host_program()?;
    let own = format!("restore-{}", std::process::id());
    let folder = kept.batch.dir.task(&kept.task).join(own);
    let exchange = Exchange::open(folder).map_err(|error| failed("write the request", &error))?;
    let request = serde_json::to_vec(&work).map_err(|error| failed("write it", &error.into()))?;
    fs::write(exchange.request(), request).map_err(|error| failed("write the request", &error))?;
    let ended = carry_out(&host, &exchange).map_err(|error| failed("start agent-host", &error))?;
    let outcome = read(&exchange.outcome()).map_err(|error| {
        let message = format!("agent-host ended ({ended}) without an outcome: {error}");
        CliError::new(Code::Environment, message)
    })?;
    match outcome {
        Outcome::Done(GitOutcome::Restored(done)) => {
            let (files, bytes) = (done.files, size(done.bytes));
            io.line(format_args!(
                "{}: {files} files, {bytes}, in {to}",
                done.reference
            ))?;
            Ok(Code::Ok)
        }
        Outcome::Done(_) => Err(CliError::new(
            Code::Internal,
            "agent-host did something else than what was asked",
        )),
        Outcome::Failed { class, message } => {
            let code = match class {
                Class::Environment | Class::Disk => Code::Environment,
                _other => Code::Refused,
            };
            Err(CliError::new(code, message))
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "not a run of a batch: one piece of work that ends before this command does"
)]
fn carry_out(host: &Path, exchange: &Exchange) -> io::Result<std::process::ExitStatus> {
    let mut command = Command::new(host);
    command
        .arg("git")
        .arg(exchange.request())
        .arg(exchange.outcome());
    command.stdin(Stdio::null()).stdout(Stdio::null()).status()
}

fn read(path: &Path) -> io::Result<Outcome> {
    let length = fs::metadata(path)?.len();
    if length > OUTCOME_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::from)
}
