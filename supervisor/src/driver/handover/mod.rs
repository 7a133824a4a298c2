//! One supervisor program becomes the next one in place: `exec` keeps the process, and with it its
//! number, its parent, its children, its lock and its pipes.
//!
//! ```text
//! old: try the new program with a sample -> park hosts -> journal at rest -> park clients -> exec
//! new: read document and journal -> (no: exec the old one again) -> open the journal -> go on
//! ```
//!
//! What the journal holds is read from the journal. The [`document`] holds the rest: descriptors,
//! lines that have only begun, bytes that hosts have not read, signs of life, who waits for what.
//! Until the journal is opened the new program has changed nothing, so the old one can go on with
//! the same document. There is no new term: nobody else could take the lock in between, the
//! identity (process number and start) is the same, no run was lost, and every record of before
//! still holds, so there is nothing that a higher term would have to fence off.

pub mod arrive;
pub mod document;
pub mod leave;
pub mod live;
pub mod trial;

use std::path::PathBuf;

use crate::store::StoreError;

/// Why a program does not take over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// There is no document, or not all of it.
    #[error("what was handed over can not be read")]
    Unreadable(#[source] std::io::Error),
    /// It is no document, or not the one that was written.
    #[error("what was handed over is damaged: {0}")]
    Damaged(&'static str),
    /// The other program writes it in another way.
    #[error(
        "supervisor {build} hands over in format {found}, this one ({ours}) knows format {known}"
    )]
    Format {
        /// The release that wrote it.
        build: String,
        /// Its format.
        found: u32,
        /// Our release.
        ours: &'static str,
        /// Our format.
        known: u32,
    },
    /// Its fields are not what its format says.
    #[error("what was handed over does not fit its format")]
    Fields(#[source] serde_json::Error),
    /// Hosts or clients speak what this program does not.
    #[error("{who} speak version {found}, this supervisor speaks {min} to {max}")]
    Version {
        /// Hosts or clients.
        who: &'static str,
        /// Their version.
        found: u32,
        /// The oldest that is spoken here.
        min: u32,
        /// The newest.
        max: u32,
    },
    /// The batch's files can not be read by this program.
    #[error("the batch can not be read")]
    Store(#[from] StoreError),
    /// They hold what this program's rules do not allow.
    #[error("the journal of {} can not be replayed", dir.display())]
    Replay {
        /// The state dir.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: supervisor_core::core::ReplayError,
    },
    /// They do not end where the former program left them.
    #[error("the journal ends at record {found}, handed over was record {expected}")]
    OtherEnd {
        /// The last record found.
        found: u64,
        /// The last record of the former program.
        expected: u64,
    },
    /// A descriptor is not there, or is not what it should be.
    #[error("descriptor {number} ({what}) was not handed over")]
    Descriptor {
        /// Its number.
        number: i32,
        /// What it should be.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
