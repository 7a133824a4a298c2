//! The local socket by which commands reach a live supervisor.
//!
//! One request a connection. [`server`] accepts and [`peer`] judges who asks; the driver answers.
//! [`client`] is the other end, for the command line.

pub mod client;
pub mod peer;
pub mod server;
pub mod wire;
