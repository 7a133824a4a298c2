//! Whether the branches that a batch began from have moved since, and what that means for its work.

use protocol::git::{Freshness, Oid};
use serde::Serialize;
use supervisor_core::facts::Facts;

use crate::batch_file::work::RepoWork;
use crate::cli::Io;
use crate::cli::error::CliError;
use crate::cli::forecast::tip;

/// A branch that a batch began from and that is elsewhere now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Moved {
    /// The repository, by its name in the batch file.
    repo: String,
    /// The branch, without what is before its name.
    branch: String,
    /// The commit that the batch began with.
    began: Oid,
    /// Where the branch is; absent: it is gone, or can not be read.
    now: Option<Oid>,
    /// What the batch file says of it.
    freshness: Freshness,
}

impl std::fmt::Display for Moved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (branch, began) = (&self.branch, self.began.short());
        match &self.now {
            Some(now) => write!(
                f,
                "{branch} has moved since the batch began: from {began} to {}",
                now.short()
            )?,
            None => write!(f, "{branch}, at {began} when the batch began, is gone")?,
        }
        if self.repo != "." {
            write!(f, ", in the repository {}", self.repo)?;
        }
        match self.freshness {
            Freshness::Ignore | Freshness::Warn => f.write_str("; the work stays where it began"),
            Freshness::Rebase => {
                f.write_str("; attempts that begin now are put onto it where that is possible")
            }
        }
    }
}

/// Those of a batch, except where its file says to ignore it. One that can not be read counts as gone.
pub(super) fn moved(facts: &Facts) -> Vec<Moved> {
    let repos = facts.repos.iter();
    let moved = repos.filter_map(|repo| {
        let work: RepoWork = serde_json::from_str(&repo.spec.work).ok()?;
        match work.freshness {
            Freshness::Ignore => return None,
            Freshness::Warn | Freshness::Rebase => {}
        }
        let watch = work.watch.as_deref()?;
        let now = tip(&work, watch).unwrap_or_default();
        (now.as_ref() != Some(&work.base)).then(|| Moved {
            repo: repo.spec.name.to_string(),
            branch: watch.trim_start_matches("refs/heads/").to_owned(),
            began: work.base.clone(),
            now,
            freshness: work.freshness,
        })
    });
    moved.collect()
}

/// Tells each in a line.
pub(super) fn tell(moved: &[Moved], io: &mut Io<'_>) -> Result<(), CliError> {
    for one in moved {
        io.line(format_args!("{one}"))?;
    }
    Ok(())
}
