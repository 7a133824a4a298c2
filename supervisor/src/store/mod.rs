//! Everything of a batch that outlives a process: files, their names, their format, their order.
//!
//! - [`disk`] is the seam below: the few calls that the store makes, real or simulated.
//! - [`state_root`], [`state_dir`], [`lock`], [`index`] say where things are and who owns them.
//! - [`mod@format`] is what is written; [`seal`] is how one line proves that it is whole.
//! - [`journal`] is the truth and is only ever appended to; [`mod@load`] reads it back and cuts a torn
//!   tail; [`checkpoint`] is a shortcut for reading; [`registry`] lists what lives, for
//!   whoever looks; [`inbox`] keeps requests for later, [`untold`] that an
//!   outcome waits to be told, [`integrated`] where the work went after it, [`reports`] what people
//!   are told of it.
//!
//! The rule of the whole room: what can not be read, or is of a newer release, stops whoever reads
//! it. It is never overwritten, skipped or taken for missing.

pub mod checkpoint;
pub mod disk;
pub mod error;
pub mod format;
pub mod inbox;
pub mod index;
pub mod integrated;
pub mod journal;
pub mod load;
pub mod lock;
pub(crate) mod path_text;
pub mod registry;
pub mod reports;
mod scan;
pub mod seal;
pub mod state_dir;
pub mod state_root;
pub mod untold;

#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskFile, OpenAs, RealDisk};
pub use error::StoreError;
pub use journal::{Journal, Position};
pub use load::{Check, Loaded, Reading, TornTail, load, open_for_append, read_for_append};
pub use lock::{Holder, Lock, LockState};
pub use state_dir::StateDir;
pub use state_root::StateRoot;
