//! Every decision of the supervisor.
//!
//! (contract: see below; written with `core.rs`)

pub mod core;
pub mod effect;
pub mod facts;
pub mod identity;
pub mod input;
pub mod live;
pub mod machine;
pub mod mailbox;
pub mod outbox;
pub mod plan;
pub mod reason;
pub mod reconcile;
pub mod record;
pub mod time;
