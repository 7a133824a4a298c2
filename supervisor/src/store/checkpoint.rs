//! The checkpoint: the whole state at one record, so that nobody has to replay a whole batch.
//!
//! It is a shortcut, never the truth: without it the journal, of which every segment is kept until
//! the batch closes, is replayed from its beginning. No crash of ours leaves a damaged one, so one
//! that can not be read, or is of a newer release, stops whoever reads it and is never overwritten:
//! the operator may move it away. One that holds more than the journal says that records were lost.

use supervisor_core::facts::Facts;

use super::disk::Disk;
use super::error::StoreError;
use super::format::{read_checkpoint, write_checkpoint};
use super::journal::Position;
use super::seal;
use super::state_dir::StateDir;

/// Largest checkpoint, bytes: 100,000 tasks take a twentieth of it.
pub const CHECKPOINT_MAX: u64 = 1024 * 1024 * 1024;

/// No checkpoint before this many bytes of journal: reading them takes milliseconds.
const TAIL_MIN: u64 = 256 * 1024;

/// Bytes to reserve for a task when a checkpoint is made.
const TASK_SIZE_HINT: usize = 256;

/// Whether it is time for a checkpoint. One is due once the journal has grown by the size of the
/// last checkpoint: so checkpoints never write more than the journal does, however large the batch,
/// and whoever reads checkpoint and tail reads at most twice the checkpoint (or 256 KiB).
pub fn due(journal_bytes_since: u64, last_checkpoint_bytes: u64) -> bool {
    journal_bytes_since >= last_checkpoint_bytes.max(TAIL_MIN)
}

/// Whether a supervisor that ends leaves a checkpoint: not where reading the journal takes no time.
pub fn is_worth_at_end(journal_bytes_since: u64) -> bool {
    journal_bytes_since >= TAIL_MIN
}

/// The bytes of a checkpoint of `facts`, whose last record ends at `at`.
///
/// # Errors
/// [`StoreError::NotDurable`] when `at` is another record's end: what is not durable in the journal
/// must not be in a checkpoint.
pub fn encode(facts: &Facts, at: Position) -> Result<Vec<u8>, StoreError> {
    if facts.batch.seq != at.seq {
        return Err(StoreError::NotDurable {
            facts: facts.batch.seq,
            durable: at.seq,
        });
    }
    let size = facts.tasks.len().saturating_mul(TASK_SIZE_HINT);
    Ok(write_checkpoint(facts, at, size))
}

/// Replaces the checkpoint: aside, sync, rename, sync the folder. May run beside the supervisor's
/// thread; two at the same time would share a name.
///
/// # Errors
/// What the disk says; the former checkpoint is still there, whole.
pub fn write(disk: &dyn Disk, dir: &StateDir, bytes: &[u8]) -> Result<(), StoreError> {
    seal::replace_file(disk, &dir.checkpoint(), bytes)
}

/// What there is of a checkpoint.
pub(super) enum Found {
    None,
    Good {
        facts: Box<Facts>,
        at: Position,
        bytes: u64,
    },
}

pub(super) fn read(disk: &dyn Disk, dir: &StateDir) -> Result<Found, StoreError> {
    let path = dir.checkpoint();
    let line = match seal::read_file(disk, &path, CHECKPOINT_MAX) {
        Ok(Some(line)) => line,
        Ok(None) => return Ok(Found::None),
        Err(error) => return Err(error),
    };
    match read_checkpoint(&line) {
        Ok((facts, at)) if facts.batch.seq == at.seq && at.segment > 0 => Ok(Found::Good {
            facts: Box::new(facts),
            at,
            bytes: line.len() as u64 + 1,
        }),
        Ok(_) => {
            let why = "its place in the journal is not that of its state";
            Err(StoreError::unreadable(&path, 0, why))
        }
        Err(error) => {
            let at = error.column() as u64;
            Err(StoreError::unreadable(&path, at, error.to_string()))
        }
    }
}
