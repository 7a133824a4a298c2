//! Stories with the real pi against the scripted model: `scripts/real-agents.sh` installs it and runs
//! them.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

mod ends;
mod stage;
mod survives;
mod works;
