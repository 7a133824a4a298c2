//! The id of a new conversation, for programs that let us choose it.

use std::hash::{DefaultHasher, Hash, Hasher};

use protocol::command::Start;

/// An id that no other run has, in the form of a UUID. The batch's id is unique on its machine and a
/// generation within its batch.
pub(in crate::agent) fn of_run(start: &Start) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (
            salt,
            start.batch.as_str(),
            start.task.as_str(),
            start.generation.0,
        )
            .hash(&mut hasher);
        hasher.finish()
    };
    let (high, low) = (half(0), half(1));
    format!(
        "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff,
    )
}
