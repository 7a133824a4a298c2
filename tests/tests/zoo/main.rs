//! The zoo in every gate: each escape in each case, and what else an agent may try.
//! `scripts/zoo.sh` plays the matrix more often and prints it.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]
#![expect(
    clippy::print_stdout,
    reason = "what is left out on this machine is said"
)]

mod controls;
mod hostile;
mod identity;
mod matrix;
mod orphans;
mod sweep;

/// The program of the zoo.
const PROGRAM: &str = env!("CARGO_BIN_EXE_nasty_agent");
