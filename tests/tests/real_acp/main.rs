//! Stories with real programs that speak the Agent Client Protocol, against the scripted model:
//! `scripts/real-agents.sh --all` installs them and runs these.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

mod ends;
mod survives;
mod works;
