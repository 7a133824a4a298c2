//! Git work of a run, done by a process of its own: `agent-host git REQUEST OUTCOME`.
//!
//! The host starts its own program for it, so the work can be killed like everything else and the
//! host's loop never waits for a disk. What is read is read with libgit2; what writes working trees
//! and commits is the `git` program, because only that knows filters, LFS, merge drivers and sparse
//! checkouts. A kill may come anywhere: each piece of work first puts right what the one before
//! it left, and does again what is not proven to be done.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use protocol::git::{GitOutcome, GitWork};

use self::error::GitError;
use self::program::Git;
use self::repo::Repo;
use crate::host::EXIT_OK;
use crate::run::{complain, read_bounded};
use crate::{EXIT_SYSTEM, EXIT_USAGE};

mod advance;
mod build_output;
mod checkout;
mod commit;
mod conflict;
#[cfg(test)]
mod conflict_tests;
mod content;
mod copy;
mod entries;
mod error;
mod folder;
mod freshness;
mod gone;
mod housekeeping;
#[cfg(test)]
mod housekeeping_tests;
mod ignored;
mod include;
mod integrate;
mod join;
mod kept_modes;
mod locks;
mod makers;
mod markers;
mod merge;
#[cfg(test)]
mod merge_tests;
mod operations;
mod order;
#[cfg(test)]
mod order_tests;
mod outputs;
mod predict;
mod program;
mod provision;
mod remove;
mod repo;
mod restore;
mod salvage;
#[cfg(test)]
mod salvage_tests;
#[cfg(test)]
mod scene;
mod staged;
mod submodules;
mod touches;
mod tree;
mod worktree;

pub(crate) use protocol::git::{GIT_FILE_MAX as FILE_MAX, GIT_WORD as WORD, GitEnd as Outcome};

/// What every piece of work has at hand.
pub(crate) struct Hands {
    /// The program.
    git: Git,
    /// The repository.
    repo: Repo,
    /// When this work began, by the clock of the file system: that of the request.
    begun: SystemTime,
    /// A folder of this work alone, that of the request.
    folder: PathBuf,
}

/// The whole program in this role; returns its exit status. 0: the outcome is written, whatever it
/// says.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let (Some(request), Some(outcome), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        complain(0, "usage: agent-host git REQUEST OUTCOME");
        return EXIT_USAGE;
    };
    let ended = match carry_out(Path::new(&request)) {
        Ok(done) => Outcome::Done(done),
        Err(error) => Outcome::Failed {
            class: error.class(),
            message: error.to_string(),
        },
    };
    match write(Path::new(&outcome), &ended) {
        Ok(()) => EXIT_OK,
        Err(error) => {
            complain(0, &error.to_string());
            EXIT_SYSTEM
        }
    }
}

fn carry_out(request: &Path) -> Result<GitOutcome, GitError> {
    let unread = || GitError::file("read", request);
    let text = read_bounded(request, FILE_MAX).map_err(unread())?;
    let meta = fs::metadata(request).and_then(|meta| meta.modified());
    let begun = meta.map_err(unread())?;
    let work: GitWork = serde_json::from_str(&text)
        .map_err(|error| GitError::Unfit(format!("the request is no git work: {error}")))?;
    let hands = Hands {
        git: Git::find()?,
        repo: Repo::open(Path::new(repository(&work)))?,
        begun,
        folder: folder_of(request)?,
    };
    perform(&hands, &work)
}

fn folder_of(request: &Path) -> Result<PathBuf, GitError> {
    let whole = fs::canonicalize(request).map_err(GitError::file("find", request))?;
    Ok(whole.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The repository that the work is in.
fn repository(work: &GitWork) -> &str {
    match work {
        GitWork::Provision(work) => &work.repo,
        GitWork::Commit(work) => &work.repo,
        GitWork::Salvage(work) => &work.repo,
        GitWork::Remove(work) => &work.repo,
        GitWork::Checkout(work) => &work.repo,
        GitWork::Merge(work) => &work.repo,
        GitWork::Conflict(work) => &work.repo,
        GitWork::Conclude(work) => &work.repo,
        GitWork::Advance(work) => &work.repo,
        GitWork::Restore(work) => &work.repo,
        GitWork::Predict(work) => &work.repo,
        GitWork::BuildOutput(work) => &work.repo,
        GitWork::Integrate(work) => &work.repo,
    }
}

impl Hands {
    /// The same, with nothing of the repository in memory.
    fn anew(&self) -> Result<Self, GitError> {
        Ok(Self {
            git: self.git.clone(),
            repo: Repo::open(&self.repo.path)?,
            begun: self.begun,
            folder: self.folder.clone(),
        })
    }
}

/// Does the work, again where housekeeping took away what was made.
fn perform(hands: &Hands, work: &GitWork) -> Result<GitOutcome, GitError> {
    for _ in 0..housekeeping::TIMES {
        let fresh = hands.anew()?;
        let made = once(&fresh, work)?;
        if housekeeping::outlast(&fresh.repo, work, &made)? {
            return Ok(made);
        }
    }
    let (times, path) = (housekeeping::TIMES, hands.repo.path.display());
    Err(GitError::Unfit(format!(
        "objects in {path} were removed {times} times right after they were made: something like `git prune` runs there again and again"
    )))
}

fn once(hands: &Hands, work: &GitWork) -> Result<GitOutcome, GitError> {
    locks::heal_shared(&hands.repo, &[], hands.begun)?;
    match work {
        GitWork::Provision(work) => provision::perform(hands, work),
        GitWork::Commit(work) => commit::perform(hands, work),
        GitWork::Remove(work) => remove::perform(hands, work),
        GitWork::Checkout(work) => checkout::perform(hands, work),
        GitWork::Salvage(work) => salvage::perform(hands, work),
        GitWork::Restore(work) => restore::perform(hands, work),
        GitWork::Merge(work) => merge::perform(hands, work),
        GitWork::Conflict(work) => conflict::perform(hands, work),
        GitWork::Conclude(work) => conflict::conclude(hands, work),
        GitWork::Advance(work) => advance::perform(hands, work),
        GitWork::Predict(work) => predict::perform(hands, work),
        GitWork::BuildOutput(work) => build_output::perform(hands, work),
        GitWork::Integrate(work) => integrate::integrate(hands, work),
    }
}

/// Writes the outcome aside and puts it in place, so that a half one is never read.
fn write(path: &Path, outcome: &Outcome) -> Result<(), GitError> {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let bytes = serde_json::to_vec(outcome)
        .map_err(|error| GitError::Unfit(format!("the outcome can not be written: {error}")))?;
    fs::write(&aside, bytes)
        .and_then(|()| fs::rename(&aside, path))
        .map_err(GitError::file("write", path))
}
