//! Processes of the operating system: the only room that starts, names, waits for and signals them.
//!
//! A process is started by [`spawn`], named by [`identity`], waited for and signalled through a
//! pidfd ([`pidfd`]), found again after a crash by [`recorded`] and [`scan`], and what a dead host
//! leaves behind comes home to [`orphans`].

pub mod identity;
pub mod inherited;
pub mod limits;
pub mod orphans;
pub mod pidfd;
pub mod procfs;
pub mod recorded;
pub mod scan;
pub mod spawn;
