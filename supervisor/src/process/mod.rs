//! Processes of the operating system: the only room that starts, names, waits for and signals them.
//!
//! A process is started by [`spawn`] (inside a [`cgroup`] by [`birth`]) and carries the tags of
//! [`tag`]; it is named by [`identity`] and held by a pidfd ([`pidfd`]). A process that was written
//! down is signalled by [`recorded`] alone. What a dead host leaves behind comes home to
//! [`orphans`]; what comes home to nobody is seen by [`scan`] and ended by [`hunt`]. [`tree`] puts
//! them in the order in which a run's tree is ended; [`family`] lists what lives of it.
//!
//! What a command runs besides, outside of any batch, is run by [`aside`].
//!
//! What differs on macOS is in `macos`, under the same names; the modules that ask the kernel take it
//! from there.

pub mod aside;
pub mod birth;
pub mod cgroup;
pub mod family;
pub mod hunt;
pub mod identity;
pub mod inherited;
pub mod limits;
#[cfg(target_os = "macos")]
pub mod macos;
pub mod orphans;
pub mod pidfd;
pub mod pressure;
pub mod procfs;
pub mod recorded;
pub mod replace;
pub mod scan;
pub mod spawn;
pub mod stat;
pub mod tag;
pub mod tree;

/// A short pause in a loop that waits for the kernel to end something; the loop has a bound.
fn rest(length: std::time::Duration) {
    use rustix::event::{Timespec, poll};
    let length = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(length.subsec_nanos()),
    };
    // An interrupted pause is only shorter.
    let _ = poll(&mut [], Some(&length));
}
