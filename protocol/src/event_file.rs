//! `events.jsonl`: what happened in a run, one event a line, written by the host for `logs`.

use serde::{Deserialize, Serialize};

use crate::report::Event;

/// Format version of a line.
pub const EVENT_LINE_VERSION: u32 = 1;
/// Name of the file in the run's folder.
pub const EVENT_FILE_NAME: &str = "events.jsonl";

/// One line. The last one may be cut when the host was killed; it counts as absent then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// [`EVENT_LINE_VERSION`].
    pub v: u32,
    /// When, milliseconds since the Unix epoch, by the host's clock.
    pub time_ms: i64,
    /// What happened.
    pub event: Event,
}
