//! Why a supervisor can not begin or go on with a batch.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use supervisor_core::core::ReplayError;

use crate::driver::commit::LogError;
use crate::process::identity::KernelFile;
use crate::store::StoreError;

/// Ends the driver. The exit code that fits is the command line's to choose.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Files of the batch.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A journal whose records are whole but do not follow from each other.
    #[error("the journal of {} can not be replayed", dir.display())]
    Replay {
        /// The state dir.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: ReplayError,
    },
    /// The state dir has no batch yet.
    #[error("{} has no records", dir.display())]
    Empty {
        /// The state dir.
        dir: PathBuf,
    },
    /// The state dir has a batch already.
    #[error("{} has records of a batch already", dir.display())]
    NotEmpty {
        /// The state dir.
        dir: PathBuf,
    },
    /// The second program of the pair is missing.
    #[error(
        "no agent-host at {}: install it beside supervisor, or name it in SUPERVISOR_AGENT_HOST",
        path.display()
    )]
    HostMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The machine does not say what identities are made of.
    #[error(transparent)]
    Machine(#[from] KernelFile),
    /// The system refuses something that a supervisor needs.
    #[error("can not {act}")]
    System {
        /// What.
        act: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The journal can not be gone on with.
    #[error("the batch stops where its journal ends")]
    Journal(#[source] LogError),
    /// The supervisor was told to end while its journal could not be written: what ended last is
    /// found and recorded by the next one.
    #[error("ended without recording its last steps: {0}")]
    Unrecorded(String),
    /// The core decided something that its own rules forbid.
    #[error("internal error: {0}")]
    Defect(String),
}

impl DriverError {
    pub(crate) fn system(act: &'static str) -> impl FnOnce(io::Error) -> DriverError {
        move |source| DriverError::System { act, source }
    }
}

/// An error and its causes in one line, for records and messages.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let error = DriverError::System {
            act: "open the gate",
            source: io::Error::other("it is stuck"),
        };
        assert_eq!(chain(&error), "can not open the gate: it is stuck");
    }
}
