//! The guardian: the small process above the supervisor, which starts it again.
//!
//! `supervisor run` becomes the guardian ([`mod@watch`]), and starts itself once more as the supervisor
//! proper ([`start`]). The two share one socket ([`channel`]): each sees by its end that the other
//! died, the supervisor says when there is a batch to go on with and when it was told to end, and the
//! guardian hands on signals ([`signals`]). When the supervisor dies, what it left is ended
//! ([`leftovers`]), and one table says what follows ([`ruling`]).
//!
//! The guardian has no thread and no event loop, reads no journal and decides nothing about a batch:
//! it sleeps in one blocking call until a signal, a word or the end of the supervisor. What it does
//! not do it can not get wrong.

pub mod channel;
pub mod guarded;
pub mod leftovers;
pub mod ruling;
pub mod signals;
pub mod start;
pub mod twins;
pub mod watch;

pub use guarded::{Above, Guarded};
pub use watch::{Guard, GuardianError, watch};
