//! What is known of a live run but is not worth a record: lost with the supervisor, like the run.

use std::sync::Arc;

use protocol::command::Pong;
use protocol::report::{Context, Usage};

use crate::time::Boot;

/// Signs of life and of progress of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Host spawned (behind the gate) at.
    pub spawned: Boot,
    /// Last sign of life of the host: any frame.
    pub heard: Boot,
    /// Last sign of life of the agent's process family.
    pub alive: Boot,
    /// Last something new.
    pub progressed: Boot,
    /// What it does now, for people; an excerpt.
    pub activity: Arc<str>,
    /// Last signs in a pong.
    pub pong: Pong,
    /// Use so far.
    pub usage: Usage,
    /// How full its context is.
    pub context: Option<Context>,
    /// Blank lines, garbage and stale reports so far.
    pub wire_faults: u32,
}
