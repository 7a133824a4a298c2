//! Stories with the real Claude Code against the scripted model: `scripts/real-agents.sh` installs
//! it and runs them.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

mod ends;
mod survives;
mod works;

use serde_json::Value;
use supervisor_tests::real::Real;

/// A reply that runs a command.
fn bash(command: &str) -> Value {
    Real::Claude.shell(command)
}
