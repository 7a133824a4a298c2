//! The local socket by which commands reach a live supervisor.

pub mod wire;
