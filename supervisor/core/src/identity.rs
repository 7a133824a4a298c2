//! What proves that a process is the one that was started, and not a stranger with its number.

use std::sync::Arc;

use protocol::ids::Generation;

use crate::time::BootId;

/// The identity of a process; a pid alone is never one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The machine (its machine id).
    pub node: Arc<str>,
    /// Inode of the pid namespace that `pid` counts in.
    pub pid_namespace: u64,
    /// The boot that `start_ticks` counts from.
    pub boot_id: BootId,
    /// The process number.
    pub pid: u32,
    /// Clock ticks since boot at its start (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    /// Inode of its pidfd, where the kernel gives one per process.
    pub pidfs_inode: Option<u64>,
    /// The session it leads, or is in; absent where that is not known. A process may change it, so
    /// it names where descendants are looked for and proves nothing of the process itself.
    pub session: Option<u32>,
}

/// The spawn token of a run: the same for the same batch (by its seed) and generation, unlike any
/// other. So what an ended run left can still be known by it.
pub fn spawn_token(seed: u64, generation: Generation) -> u128 {
    let high = crate::retry::mix(seed ^ generation.0.rotate_left(32));
    let low = crate::retry::mix(high ^ generation.0);
    (u128::from(high) << 64) | u128::from(low)
}

/// How the kernel says that a host ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not seen: it ended while no supervisor watched.
    Unseen,
}
