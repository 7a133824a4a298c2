//! What macOS says of processes. It has no procfs: everything is asked of libproc, `sysctl` and
//! `kqueue`, by the calls in `kernel`, `timer` and `watch`, the files here that hold `unsafe`.
//!
//! The answers are bytes; [`answer`] reads them and knows no system, so it is built and tested
//! everywhere. The supervisor and the host use this package on macOS alone.

pub mod answer;

#[cfg(target_os = "macos")]
mod kernel;
#[cfg(target_os = "macos")]
mod timer;
#[cfg(target_os = "macos")]
mod watch;

#[cfg(target_os = "macos")]
pub use kernel::{
    arguments, boot_session, children, host_id, peer, pids, process, program, usage, watch_end,
};
#[cfg(target_os = "macos")]
pub use timer::{Count, set_timer, take_fired, timer};
#[cfg(target_os = "macos")]
pub use watch::{Happened, peer_user, ready, watch};
