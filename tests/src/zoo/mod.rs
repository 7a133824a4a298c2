//! The zoo: agents that try every known way to outlive their supervisor, and what must hold then.
//!
//! What is true is kept in a ledger that the hostile processes themselves write; nothing that the
//! product says of them is believed before it was compared with it.

pub mod agent;
pub mod bystander;
pub mod cell;
pub mod cgroup;
pub mod escape;
pub mod kernel;
pub mod layer;
pub mod ledger;
pub mod ownerless;
pub mod owners;
pub mod stage;
pub mod table;
