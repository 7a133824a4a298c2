//! Every decision of the supervisor: pure, synchronous, replayable.
//!
//! *Inputs* ([`input::Input`], past tense) go into [`core::Core::handle`] with the moment they
//! happened; *records* ([`record::Record`]) and *effects* ([`effect::Effect`], imperative) come
//! out. Records are the only way the state changes: the same `apply` runs live and in replay. A
//! driver makes records durable and then performs effects; [`outbox`] keeps that order.
//!
//! The state is [`facts::Facts`] (what a checkpoint holds) and [`index::Index`] (what can be
//! computed from it, kept so that no decision looks at the whole batch). What is known of live runs
//! but would not outlive them anyway is [`live::LiveRuns`].
//!
//! There is no clock, no randomness, no file, no thread and no process in this package, and
//! nothing it depends on has one.

mod apply;
pub mod containment;
pub mod core;
mod decide;
pub mod effect;
pub mod facts;
pub mod identity;
pub mod index;
pub mod input;
pub mod live;
pub mod machine;
pub mod mailbox;
pub mod mutation;
pub mod outbox;
pub mod plan;
pub mod reason;
pub mod reconcile;
pub mod record;
pub mod retry;
pub mod revision;
pub mod state;
pub mod step;
pub mod time;
pub mod timers;
pub mod touches;
