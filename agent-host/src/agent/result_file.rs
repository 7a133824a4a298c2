//! Reading the result file that a command was asked for.

use std::io;
use std::path::Path;

use protocol::result_file::{BadResultFile, RESULT_FILE_MAX, ResultFile};

use crate::run::read_bounded;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoResult {
    /// The file is not there.
    #[error("the command left no result file {path}")]
    Absent {
        /// Where it should be.
        path: String,
    },
    /// It is there, but can not be read.
    #[error("the result file {path} can not be read: {error}")]
    Unreadable {
        /// Where it is.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is there, but is no result.
    #[error("the result file {path} is not valid: {error}")]
    Invalid {
        /// Where it is.
        path: String,
        /// Why.
        error: BadResultFile,
    },
}

/// Reads the result file of a command that has ended.
///
/// # Errors
/// [`NoResult`] says why there is none.
pub(super) fn read(path: &str) -> Result<ResultFile, NoResult> {
    let text = match read_bounded(Path::new(path), RESULT_FILE_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(NoResult::Absent {
                path: path.to_owned(),
            });
        }
        Err(error) => {
            return Err(NoResult::Unreadable {
                path: path.to_owned(),
                error,
            });
        }
    };
    ResultFile::parse(text.as_bytes()).map_err(|error| NoResult::Invalid {
        path: path.to_owned(),
        error,
    })
}

/// Removes what an earlier attempt left, so that it is never taken for this one's result.
///
/// # Errors
/// When something is there that can not be removed.
pub(super) fn remove_stale(path: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
