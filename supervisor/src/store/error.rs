//! What can go wrong in the store; the command line turns these into exit codes.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Something is there and can not be read. Nothing was changed. Exit code 9.
    #[error("{} is not readable at byte {offset}: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// A newer release wrote it. Nothing was changed. Exit code 9.
    #[error(
        "{} has format version {found}, this release reads up to {known}: use the newer release",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that this release reads.
        known: u32,
    },
    /// No room. What was being written was taken back; the same call may be made again later.
    #[error("no room to write {}", file.display())]
    Full {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system can not say what is on the disk. The descriptor must not be used again:
    /// [`Journal::reopen`](super::Journal::reopen) says what is proven.
    #[error("{} could not be made durable", file.display())]
    SyncFailed {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal was used after a failure, before `reopen`.
    #[error("{} must be reopened after a failure before it is written again", file.display())]
    NeedsReopen {
        /// The file.
        file: PathBuf,
    },
    /// Records that do not follow the last one: another number, or the term of a supervisor that
    /// was replaced.
    #[error("record {found} of term {found_term} can not follow record {last} of term {last_term}")]
    OutOfOrder {
        /// Number of the last record.
        last: u64,
        /// Its term.
        last_term: u64,
        /// Number of the refused record.
        found: u64,
        /// Its term.
        found_term: u64,
    },
    /// A checkpoint of records that are not durable yet.
    #[error("a checkpoint at record {facts} needs that record durable; durable is {durable}")]
    NotDurable {
        /// The state's last record.
        facts: u64,
        /// The journal's last durable record.
        durable: u64,
    },
    /// Over a limit of the store.
    #[error("{what}: {found} is over the limit of {max}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        max: u64,
    },
    /// A path is not safe to use: a link, another owner, another kind of file.
    #[error("{} is not safe to use: {why}", path.display())]
    Unsafe {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No folder for the state can be named.
    #[error("neither XDG_STATE_HOME nor HOME is an absolute path")]
    NoHome,
    /// Another supervisor works on the batch. Exit code 8.
    #[error("the batch has a live supervisor{}", shown_pid(*pid))]
    Held {
        /// Its process number; absent while it is still starting.
        pid: Option<u32>,
    },
    /// Anything else that the system refused.
    #[error("can not {act} {}", file.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// With which file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn shown_pid(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl StoreError {
    /// State that this release must not touch: damaged, or written by a newer one.
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::Newer { .. })
    }

    /// The disk does not take what is written: the batch pauses until it does.
    pub fn is_disk(&self) -> bool {
        matches!(
            self,
            Self::Full { .. }
                | Self::SyncFailed { .. }
                | Self::NeedsReopen { .. }
                | Self::Io { .. }
        )
    }

    pub(super) fn io(act: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { act, file, source }
    }

    /// A failed write: without room it may be tried again, anything else is a failure of the disk.
    pub(super) fn writing(file: &Path, source: io::Error) -> Self {
        let file = file.to_owned();
        if is_full(&source) {
            Self::Full { file, source }
        } else {
            Self::Io {
                act: "write",
                file,
                source,
            }
        }
    }

    pub(super) fn unreadable(file: &Path, offset: u64, why: impl Into<String>) -> Self {
        Self::Unreadable {
            file: file.to_owned(),
            offset,
            why: why.into(),
        }
    }
}

/// Whether the system says that there is no room. `WriteZero` is a write that the system cut short
/// and then took nothing more.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge
            | io::ErrorKind::WriteZero
    )
}
