//! Why git work could not be done, and the class that a failed run gets from it.

use std::io;
use std::path::{Path, PathBuf};

use protocol::class::Class;
use protocol::report::excerpt;

/// Longest text of `git` in an error, bytes (1,000: its last lines; the whole is in the run's log).
pub(super) const SAID_MAX: usize = 1000;

/// Why git work could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GitError {
    /// There is no `git`.
    #[error("no program `git` is found in PATH ({path})")]
    NoProgram {
        /// Where it was looked for.
        path: String,
    },
    /// There is no `gh`.
    #[error(
        "a pull request needs the program `gh`, which is not found in PATH ({path}); push the batch branch and open it by hand"
    )]
    NoRequests {
        /// Where it was looked for.
        path: String,
    },
    /// `git` is too old.
    #[error("{program} is git {found}; at least {least} is needed")]
    OldProgram {
        /// Which.
        program: PathBuf,
        /// Its version.
        found: String,
        /// The oldest that will do.
        least: String,
    },
    /// `git` could not be started or its output not read.
    #[error("can not run {program} in {folder}: {source}")]
    NotRun {
        /// Which.
        program: PathBuf,
        /// Its working folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `git` says no.
    #[error("`git {line}` in {folder} {how}: {said}")]
    Refused {
        /// Its arguments.
        line: String,
        /// Its working folder.
        folder: PathBuf,
        /// How it ended.
        how: String,
        /// The end of what it said.
        said: String,
        /// Whether it was killed from outside.
        killed: bool,
    },
    /// `git` said more than is taken in.
    #[error("`git {line}` in {folder} printed more than {max} bytes")]
    TooMuch {
        /// Its arguments.
        line: String,
        /// Its working folder.
        folder: PathBuf,
        /// The limit.
        max: usize,
    },
    /// The repository can not be opened.
    #[error("{path} can not be opened as a git repository: {said}")]
    Repository {
        /// Where.
        path: PathBuf,
        /// What libgit2 says.
        said: String,
    },
    /// The repository's objects have names that can not be read.
    #[error(
        "{path} is a repository of the object format `{format}`; only `sha1` is supported, so convert it or use a clone in that format"
    )]
    ObjectFormat {
        /// Where.
        path: PathBuf,
        /// Its format.
        format: String,
    },
    /// An object or ref can not be read.
    #[error("can not read {what} in {repo}: {said}")]
    Read {
        /// Of which repository.
        repo: PathBuf,
        /// What.
        what: String,
        /// What libgit2 says.
        said: String,
    },
    /// An object can not be written.
    #[error("can not write {what} to {repo}: {said}")]
    Write {
        /// To which repository.
        repo: PathBuf,
        /// What.
        what: String,
        /// What libgit2 says.
        said: String,
    },
    /// A file or folder can not be read or written.
    #[error("can not {act} {path}: {source}")]
    File {
        /// What was tried.
        act: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something is not as the work needs it.
    #[error("{0}")]
    Unfit(String),
}

impl GitError {
    /// Of a file or folder.
    pub(super) fn file(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { act, path, source }
    }

    /// Whether a disk is full, or can not be written.
    pub(super) fn is_full_disk(error: &io::Error) -> bool {
        class_of(error) == Class::Disk
    }

    /// Whether `git` was killed from outside: it says nothing of what it worked on, and its locks are
    /// left. Whoever does the work again begins by removing them.
    pub(super) const fn is_kill(&self) -> bool {
        matches!(self, Self::Refused { killed: true, .. })
    }

    /// The class of the run that fails with it.
    pub(crate) fn class(&self) -> Class {
        match self {
            Self::NoProgram { .. }
            | Self::NoRequests { .. }
            | Self::OldProgram { .. }
            | Self::NotRun { .. }
            | Self::Repository { .. }
            | Self::ObjectFormat { .. } => Class::Environment,
            Self::Refused { killed: true, .. } => Class::Lost,
            Self::Refused { said, .. } if names_full_disk(said) => Class::Disk,
            Self::Read { said, .. } | Self::Write { said, .. } if names_full_disk(said) => {
                Class::Disk
            }
            Self::File { source, .. } => class_of(source),
            Self::Refused { .. }
            | Self::TooMuch { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Unfit(_) => Class::SetupFailed,
        }
    }
}

/// The end of a text of `git`, as one that fits an error.
pub(super) fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    let skip = text.len().saturating_sub(SAID_MAX);
    let from = (skip..text.len()).find(|&at| text.is_char_boundary(at));
    match text.get(from.unwrap_or(0)..) {
        None | Some("") => "it said nothing".to_owned(),
        Some(text) => excerpt(text, SAID_MAX),
    }
}

fn class_of(error: &io::Error) -> Class {
    match error.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::ReadOnlyFilesystem => Class::Disk,
        io::ErrorKind::PermissionDenied => Class::Environment,
        // A list of the standard library that grows; whatever else it says, preparation failed.
        _ => Class::SetupFailed,
    }
}

/// `git` passes on what the C library says of a full disk; its language is set to C.
fn names_full_disk(said: &str) -> bool {
    const TEXTS: [&str; 3] = [
        "No space left on device",
        "Disk quota exceeded",
        "Read-only file system",
    ];
    TEXTS.iter().any(|text| said.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_by_its_class_whoever_met_it() {
        let refused = |said: &str| GitError::Refused {
            line: "add".to_owned(),
            folder: "/w".into(),
            how: "exited with 128".to_owned(),
            said: said.to_owned(),
            killed: false,
        };
        let full = refused("error: unable to write file: No space left on device");
        assert_eq!(full.class(), Class::Disk);
        assert_eq!(refused("fatal: bad revision").class(), Class::SetupFailed);
        let full = GitError::file("write", Path::new("/w/f"))(io::ErrorKind::StorageFull.into());
        assert_eq!(full.class(), Class::Disk);
    }

    #[test]
    fn only_the_end_of_a_long_text_is_told() {
        let long = format!("{}the end", "é".repeat(SAID_MAX));
        let told = said(long.as_bytes());
        assert!(
            told.ends_with("the end") && told.len() <= SAID_MAX,
            "{told}"
        );
        assert_eq!(said(b" \n"), "it said nothing");
    }
}
