//! Stories with the real pi against the scripted model: `scripts/real-agents.sh` installs it and runs
//! them.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

mod ends;
mod survives;
mod talks;
mod works;

use serde_json::Value;
use supervisor_tests::real::Real;

/// A reply that runs a command.
fn bash(command: &str) -> Value {
    Real::Pi.shell(command)
}
