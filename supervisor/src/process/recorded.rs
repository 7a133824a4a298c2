//! A process known from the journal: found again by its whole identity, or refused with the field
//! that differs.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Signal;
use supervisor_core::identity::Identity;

use crate::process::identity::Machine;
use crate::process::pidfd;

/// A part of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The machine.
    Node,
    /// The boot.
    BootId,
    /// The pid namespace.
    PidNamespace,
    /// The start time.
    StartTicks,
    /// The inode of the pidfd.
    PidfsInode,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Field::Node => "node",
            Field::BootId => "boot id",
            Field::PidNamespace => "pid namespace",
            Field::StartTicks => "start ticks",
            Field::PidfsInode => "pidfs inode",
        })
    }
}

/// Why a recorded process was not touched.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No process has its number.
    #[error("process {pid} is gone")]
    Gone {
        /// The number.
        pid: u32,
    },
    /// Another process, machine, boot or namespace: a stranger.
    #[error("process {pid} is not the recorded one: its {field} differs")]
    Differs {
        /// The number.
        pid: u32,
        /// What differs.
        field: Field,
    },
    /// The kernel refuses to say or to act.
    #[error("process {pid} can not be judged")]
    System {
        /// The number.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The first part in which two identities differ, from the widest to the narrowest.
pub fn difference(recorded: &Identity, found: &Identity) -> Option<Field> {
    let inodes = recorded.pidfs_inode.zip(found.pidfs_inode);
    if recorded.node != found.node {
        Some(Field::Node)
    } else if recorded.boot_id != found.boot_id {
        Some(Field::BootId)
    } else if recorded.pid_namespace != found.pid_namespace {
        Some(Field::PidNamespace)
    } else if recorded.start_ticks != found.start_ticks {
        Some(Field::StartTicks)
    } else if inodes.is_some_and(|(recorded, found)| recorded != found) {
        Some(Field::PidfsInode)
    } else {
        None
    }
}

/// The verified signal: the one way in which a process that was written down is ever signalled.
///
/// Its number is pinned, what is pinned is compared with what was written down, it must still live,
/// and the signal goes through the pin. The answer holds the pin, to wait for its end.
///
/// # Errors
/// [`Refused`]: nobody was signalled, and why.
pub fn signal(machine: &Machine, recorded: &Identity, signal: Signal) -> Result<Proven, Refused> {
    let proven = Proven::find(machine, recorded)?;
    proven.signal(signal)?;
    Ok(proven)
}

/// A living process whose identity was proven, pinned so that it stays proven.
#[derive(Debug)]
pub struct Proven {
    pidfd: OwnedFd,
    pid: u32,
}

impl Proven {
    /// Finds a recorded process. The pid is pinned first and judged after, so what is judged is
    /// what a signal reaches: if the number was used anew in between, the pin holds the dead
    /// process and a signal through it reaches nobody.
    ///
    /// # Errors
    /// [`Refused`] when it is gone, when it is a stranger (naming the field), or when the kernel
    /// does not say.
    pub fn find(machine: &Machine, recorded: &Identity) -> Result<Proven, Refused> {
        let pid = recorded.pid;
        let here = Identity {
            node: machine.node.clone(),
            boot_id: machine.boot_id,
            pid_namespace: machine.pid_namespace,
            ..recorded.clone()
        };
        if let Some(field) = difference(recorded, &here) {
            return Err(Refused::Differs { pid, field });
        }
        let judged = pidfd::open(pid).and_then(|pidfd| {
            let found = machine.identify(pid, &pidfd)?;
            Ok((pidfd, found))
        });
        let (pidfd, found) = judged.map_err(|source| refused(pid, source))?;
        if let Some(field) = difference(recorded, &found) {
            return Err(Refused::Differs { pid, field });
        }
        if pidfd::has_ended(&pidfd).map_err(|source| refused(pid, source))? {
            return Err(Refused::Gone { pid });
        }
        Ok(Proven { pidfd, pid })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// [`Refused::System`] when we may not.
    pub fn signal(&self, signal: Signal) -> Result<(), Refused> {
        pidfd::signal(&self.pidfd, signal).map_err(|source| refused(self.pid, source))
    }

    /// Its number, for people.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives up the pin.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd
    }
}

impl AsFd for Proven {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn refused(pid: u32, source: io::Error) -> Refused {
    let gone = source.kind() == io::ErrorKind::NotFound
        || source.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    if gone {
        Refused::Gone { pid }
    } else {
        Refused::System { pid, source }
    }
}
