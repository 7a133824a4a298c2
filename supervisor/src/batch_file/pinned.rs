//! What a batch holds on to in its repositories, whatever its file says later: the commit that it
//! began with, and the branch that takes its merges.

use std::path::PathBuf;
use std::sync::Arc;

use supervisor_core::plan::RepoSpec;

use super::names::json_text;
use super::work::RepoWork;

/// Why an edited batch file does not fit a repository of the batch.
#[derive(Debug, thiserror::Error)]
pub enum Unpinned {
    /// It names another repository by the same name.
    #[error("the repository `{name}` can not change: work lies in {old}, the file names {new}")]
    Path {
        /// Its name.
        name: Arc<str>,
        /// Where the batch has it.
        old: PathBuf,
        /// Where the file has it.
        new: PathBuf,
    },
    /// It names another folder of it.
    #[error("the working folder in `{name}` can not change: it is `{old}`, the file names `{new}`")]
    Folder {
        /// The repository's name.
        name: Arc<str>,
        /// As the batch has it.
        old: PathBuf,
        /// As the file has it.
        new: PathBuf,
    },
    /// It names another base.
    #[error("`base` of `{name}` can not change: the batch began at {old}, the file names {new}")]
    Base {
        /// The repository's name.
        name: Arc<str>,
        /// The commit.
        old: String,
        /// The other one, and what the file calls it.
        new: String,
    },
    /// It names another batch branch.
    #[error("`merge.into` of `{name}` can not change: it is `{old}`, the file names `{new}`")]
    Into {
        /// The repository's name.
        name: Arc<str>,
        /// As the batch has it.
        old: String,
        /// As the file has it.
        new: String,
    },
    /// What the plan carries is not readable.
    #[error("the rules of the repository `{name}` can not be read")]
    Unreadable {
        /// Its name.
        name: Arc<str>,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

/// Makes a repository of a newly read plan one that the batch can take: with the commit and the
/// branch that it began with, wherever they are by now. `old` is the repository of the same name
/// that the batch has.
///
/// # Errors
/// [`Unpinned`] when the file asks for something that would leave work behind.
pub fn keep_pinned(old: &RepoSpec, new: &mut RepoSpec) -> Result<(), Unpinned> {
    let read = |text: &str| {
        serde_json::from_str::<RepoWork>(text).map_err(|source| Unpinned::Unreadable {
            name: old.name.clone(),
            source,
        })
    };
    let (before, mut after) = (read(&old.work)?, read(&new.work)?);
    let name = || old.name.clone();
    if before.path != after.path {
        return Err(Unpinned::Path {
            name: name(),
            old: before.path,
            new: after.path,
        });
    }
    if before.folder != after.folder {
        return Err(Unpinned::Folder {
            name: name(),
            old: before.folder,
            new: after.folder,
        });
    }
    if before.into != after.into {
        return Err(Unpinned::Into {
            name: name(),
            old: before.into,
            new: after.into,
        });
    }
    // Another name for the same commit asks for nothing; the same name may have moved on.
    if before.base_name != after.base_name && before.base != after.base {
        let called = after.base_name.as_deref().unwrap_or("what is checked out");
        return Err(Unpinned::Base {
            name: name(),
            old: before.base.to_string(),
            new: format!("{called} ({})", after.base),
        });
    }
    after.base = before.base;
    after.base_name = before.base_name;
    after.watch = before.watch;
    new.work = json_text(&after);
    Ok(())
}
