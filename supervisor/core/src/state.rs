//! Facts and their indexes, changed together and only by applying records.

use crate::core::{Change, ReplayError};
use crate::facts::Facts;
use crate::index::Index;
use crate::record::Entry;

/// The state of a batch that has records.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) facts: Facts,
    pub(crate) index: Index,
}

impl State {
    /// The state of a checkpoint.
    pub(crate) fn restore(facts: Facts) -> Self {
        let index = Index::build(&facts);
        Self { facts, index }
    }

    /// The primary facts.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What is computed from them.
    pub fn index(&self) -> &Index {
        &self.index
    }
}

/// Applies one record: the only way a state changes, live and in replay. A record that does not
/// follow leaves the facts that name it as they were.
pub(crate) fn apply(
    state: &mut Option<State>,
    entry: &Entry,
    changes: &mut Vec<Change>,
) -> Result<(), ReplayError> {
    match state {
        Some(state) => apply_to(state, entry, changes),
        None if entry.seq == 1 => {
            *state = Some(crate::apply::create(entry)?);
            Ok(())
        }
        None => Err(ReplayError::Gap {
            last: 0,
            found: entry.seq,
        }),
    }
}

/// [`apply`] where a state exists already.
pub(crate) fn apply_to(
    state: &mut State,
    entry: &Entry,
    changes: &mut Vec<Change>,
) -> Result<(), ReplayError> {
    let last = state.facts.batch.seq;
    if entry.seq != last + 1 {
        return Err(ReplayError::Gap {
            last,
            found: entry.seq,
        });
    }
    crate::apply::Apply {
        state,
        entry,
        changes,
    }
    .apply()?;
    state.facts.batch.seq = entry.seq;
    state.facts.batch.now = entry.now;
    Ok(())
}
