//! The part of the process layer that each kernel does in its own way, behind one set of names.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
#[path = "linux_watch.rs"]
mod watch;
#[cfg(target_os = "macos")]
#[path = "macos_watch.rs"]
mod watch;

#[cfg(target_os = "linux")]
pub(crate) use linux::{
    Stat, arguments, begin, children, children_of, start_ticks, strays, ticks_a_second, watch_end,
};
#[cfg(target_os = "macos")]
pub(crate) use macos::{
    Stat, arguments, begin, children, children_of, start_ticks, strays, ticks_a_second, watch_end,
};
pub(crate) use watch::{Happened, SEND_FLAGS, Watch, peer_user};
