//! Stories with the real Claude Code against the scripted model: `scripts/real-agents.sh` installs
//! it and runs them.

mod ends;
mod stage;
mod survives;
mod works;
