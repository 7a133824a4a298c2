//! The driver: fetches inputs, lets the core decide, makes records durable, performs effects.
//!
//! Begin with [`run`](open::run). The loop is in `run.rs`; what it hears becomes inputs in
//! `inputs.rs`, what the core asks for is done in `perform.rs`.

mod about;
pub mod alarm;
pub mod clock;
mod comment;
pub mod commit;
pub mod error;
#[cfg(test)]
mod fixture;
mod git_work;
pub mod hand_off;
pub mod handover;
pub mod host_io;
pub mod hosts;
mod inputs;
pub mod journal;
pub mod nudge;
pub mod observer;
mod open;
pub mod operator;
mod perform;
pub mod places;
pub mod recover;
mod run;
pub mod run_files;
pub mod signals;
pub mod start;
mod tasks;
mod told;

pub use error::DriverError;
pub use observer::{Found, Note, Observer, Picture};
pub use open::{HOST_VARIABLE, Mode, Options, host_program, run};
