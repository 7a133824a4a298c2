//! Git work at the operator's order, outside of any batch: done by the other program of the pair, as
//! all git work is, in a process that goes with this command.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::class::Class;
use protocol::git::{GIT_FILE_MAX, GIT_WORD, GitEnd, GitOutcome, GitWork};
use supervisor_core::identity::Exit;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::driver;
use crate::guardian::signals::{HEARD, Signals};
use crate::process::aside::{self, Came, Order};
use crate::process::identity::start_ticks;
use crate::process::inherited;
use crate::store::StateDir;

/// Longest time for it: a hook of the operator's may build and test.
const AT_MOST: Duration = Duration::from_secs(60 * 60);

/// Carries it out and waits for it.
///
/// # Errors
/// As for [`attempt`]; what the work says (10).
pub fn carry_out(batch: &Found, work: &GitWork) -> Result<GitOutcome, CliError> {
    within(batch, work, AT_MOST)
}

/// Carries it out and waits for it, so long at most.
///
/// # Errors
/// As for [`carry_out`].
pub fn within(batch: &Found, work: &GitWork, at_most: Duration) -> Result<GitOutcome, CliError> {
    let word = work.word();
    match attempt_within(batch, work, at_most)? {
        GitEnd::Done(done) => Ok(done),
        GitEnd::Failed { class, message } => {
            let error = CliError::new(Code::Environment, format!("{word}: {message}"));
            Err(if class == Class::Disk {
                error.hint("make room, then give the same command again")
            } else {
                error
            })
        }
    }
}

/// Carries it out, waits for it, and leaves its word on itself to the caller. A signal that asks this
/// command to end ends the work with it.
///
/// # Errors
/// When it can not be started, or ends without a word (10, 70); a signal (5).
pub fn attempt(batch: &Found, work: &GitWork) -> Result<GitEnd, CliError> {
    attempt_within(batch, work, AT_MOST)
}

fn attempt_within(batch: &Found, work: &GitWork, at_most: Duration) -> Result<GitEnd, CliError> {
    let program = driver::host_program()?;
    let room = Room::make(&batch.dir).map_err(unable("make a folder in", batch.dir.path()))?;
    let [request, outcome] = ["request.json", "outcome.json"].map(|name| room.path().join(name));
    let text = serde_json::to_vec(work).map_err(io::Error::from);
    text.and_then(|text| fs::write(&request, text))
        .map_err(unable("write", &request))?;
    let order = Order {
        program: &program,
        args: &[
            OsStr::new(GIT_WORD),
            request.as_os_str(),
            outcome.as_os_str(),
        ],
        folder: room.path(),
        at_most,
        // What is written in the operator's own working tree comes to its end.
        dies_with_us: !matches!(work, GitWork::Integrate(_)),
    };
    let word = work.word();
    match run(&order).map_err(unable("run", &program))? {
        Came::Ended(Exit::Code(0)) => told(word, &outcome),
        Came::Ended(exit) => {
            let text = format!("{word}: {} ended with {exit:?}", program.display());
            Err(CliError::new(Code::Environment, text))
        }
        Came::Stopped => {
            let text = format!("{word} was interrupted");
            Err(stopped(Code::Interrupted, work, &text))
        }
        Came::TimedOut => {
            let text = format!("{word} took longer than {at_most:?} and was killed");
            Err(stopped(Code::Environment, work, &text))
        }
    }
}

fn stopped(code: Code, work: &GitWork, text: &str) -> CliError {
    let error = CliError::new(code, text);
    let error = match work {
        GitWork::Integrate(_) => error.hint(
            "look at `git status` where it worked: `git reset --merge` undoes a merge that was cut off",
        ),
        GitWork::Provision(_)
        | GitWork::Commit(_)
        | GitWork::Salvage(_)
        | GitWork::Restore(_)
        | GitWork::Remove(_)
        | GitWork::Checkout(_)
        | GitWork::Merge(_)
        | GitWork::Conflict(_)
        | GitWork::Conclude(_)
        | GitWork::Advance(_)
        | GitWork::Predict(_)
        | GitWork::BuildOutput(_) => error,
    };
    error.hint("then the same command can be given again")
}

/// Runs a program of ours besides, until it ends or a signal asks this command to end.
///
/// # Errors
/// When it can not be started or watched.
pub(super) fn run(order: &Order<'_>) -> io::Result<Came> {
    let signals = Signals::hear()?;
    let came = aside::run(order, &signals);
    // What was heard is answered by now: it must not end this command once signals come through.
    while signals.next()?.is_some() {}
    drop(signals);
    inherited::unblock(&HEARD)?;
    came
}

fn told(word: &str, outcome: &Path) -> Result<GitEnd, CliError> {
    let mut text = String::new();
    let read =
        fs::File::open(outcome).and_then(|file| file.take(GIT_FILE_MAX).read_to_string(&mut text));
    read.map_err(unable("read", outcome))?;
    serde_json::from_str(&text).map_err(|error| {
        let text = format!("{word}: {} can not be read: {error}", outcome.display());
        CliError::new(Code::Internal, text)
    })
}

fn unable<'a>(act: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> CliError + 'a {
    move |error| {
        let text = format!("can not {act} {}: {error}", path.display());
        CliError::new(Code::Environment, text)
    }
}

/// A folder of this process alone in a state dir, gone with it.
pub(super) struct Room(PathBuf);

impl Room {
    /// Makes it, and removes what killed commands left of theirs.
    pub(super) fn make(dir: &StateDir) -> io::Result<Self> {
        for entry in fs::read_dir(dir.path())?.flatten() {
            let owner = StateDir::scratch_owner(&entry.file_name());
            if owner.is_some_and(|pid| start_ticks(pid).is_err() || pid == std::process::id()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let folder = dir.scratch(std::process::id());
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a scratch folder stays for the next command to remove");
        }
    }
}
