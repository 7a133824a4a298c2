//! One supervisor per batch: a lock that the kernel takes back when its holder dies.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::disk::{OpenAs, open_no_link};
use super::error::StoreError;
use super::path_text;
use super::state_dir::StateDir;

/// Most bytes read from a lock file: one line with one path.
const HOLDER_MAX: u64 = 8 * 1024;

/// The supervisor that holds a lock, as it wrote itself down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process number.
    pub pid: u32,
    /// Clock ticks since boot at its start: with the pid, its identity on this machine.
    pub start_ticks: u64,
    /// Where it listens.
    #[serde(with = "path_text")]
    pub socket: PathBuf,
    /// Who starts it again if it dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guardian: Option<Guardian>,
}

/// The guardian of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guardian {
    /// Its process number.
    pub pid: u32,
    /// Clock ticks since boot at its start: with the pid, its identity on this machine.
    pub start_ticks: u64,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockState {
    /// Nobody.
    Free,
    /// A live process; without a name while it is still writing itself down.
    Held(Option<Holder>),
}

/// The lock of one batch; given back when it is dropped or its holder dies.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct Lock {
    file: File,
}

/// Takes the lock of a batch and writes `holder` into it.
///
/// # Errors
/// [`StoreError::Held`] when another process has it; [`StoreError::Io`].
pub fn lock(dir: &StateDir, holder: &Holder) -> Result<Lock, StoreError> {
    lock_file(dir.lock(), holder)
}

/// Takes the place of the guardian of a live supervisor that has lost its own.
///
/// # Errors
/// [`StoreError::Held`] when another process has taken it; [`StoreError::Io`].
pub fn watch(dir: &StateDir, holder: &Holder) -> Result<Lock, StoreError> {
    lock_file(dir.guardian_lock(), holder)
}

fn lock_file(path: PathBuf, holder: &Holder) -> Result<Lock, StoreError> {
    let file = open_no_link(&path, OpenAs::Write).map_err(StoreError::io("open", &path))?;
    if !kernel::take(&file).map_err(StoreError::io("lock", &path))? {
        let pid = read_holder(&file).map(|found| found.pid);
        return Err(StoreError::Held { pid });
    }
    let mut lock = Lock { file };
    lock.write(holder).map_err(StoreError::io("write", &path))?;
    Ok(lock)
}

/// Holds the lock of a batch without being its supervisor: nobody can begin to work on it meanwhile.
/// Nothing is written, so it needs no room on the disk. `None` where the lock file can not be opened
/// for writing, or is not there: then no supervisor can take it either.
///
/// # Errors
/// [`StoreError::Held`] when another process has it; [`StoreError::Io`].
pub fn hold(dir: &StateDir) -> Result<Option<Lock>, StoreError> {
    let path = dir.lock();
    let mut options = File::options();
    options.read(true).write(true);
    let file = match options.custom_flags(nix::libc::O_NOFOLLOW).open(&path) {
        Ok(file) => file,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied => return Ok(None),
            _other => return Err(StoreError::io("open", &path)(error)),
        },
    };
    if !kernel::take(&file).map_err(StoreError::io("lock", &path))? {
        let pid = read_holder(&file).map(|found| found.pid);
        return Err(StoreError::Held { pid });
    }
    Ok(Some(Lock { file }))
}

/// Who holds the lock of a batch. Takes nothing, so it never stands in a supervisor's way.
///
/// # Errors
/// [`StoreError::Io`].
pub fn state(dir: &StateDir) -> Result<LockState, StoreError> {
    state_of(dir.lock())
}

/// Who has taken the place of the guardian.
///
/// # Errors
/// [`StoreError::Io`].
pub fn watcher(dir: &StateDir) -> Result<LockState, StoreError> {
    state_of(dir.guardian_lock())
}

fn state_of(path: PathBuf) -> Result<LockState, StoreError> {
    let file = match open_no_link(&path, OpenAs::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LockState::Free),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    if kernel::is_taken(&file).map_err(StoreError::io("look at", &path))? {
        return Ok(LockState::Held(read_holder(&file)));
    }
    Ok(LockState::Free)
}

/// Who wrote itself down last, whether or not it still has the lock.
///
/// # Errors
/// [`StoreError::Io`].
pub fn last_holder(dir: &StateDir) -> Result<Option<Holder>, StoreError> {
    let path = dir.lock();
    match open_no_link(&path, OpenAs::Read) {
        Ok(file) => Ok(read_holder(&file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("open", &path)(error)),
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Lock {
    /// The lock of a batch that the program before this one has handed over. It was never given
    /// back: a lock of this kind belongs to the open file, and lives as long as that does.
    ///
    /// # Errors
    /// When it is another file than the batch's, or somebody else holds the lock.
    pub fn handed_over(dir: &StateDir, file: File) -> io::Result<Lock> {
        use std::os::unix::fs::MetadataExt;
        let (found, named) = (file.metadata()?, std::fs::symlink_metadata(dir.lock())?);
        if (found.dev(), found.ino()) != (named.dev(), named.ino()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not the batch's lock",
            ));
        }
        if !kernel::take(&file)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Lock { file })
    }

    /// Writes the holder's line in one call, so that a reader sees the former one, none, or this.
    fn write(&mut self, holder: &Holder) -> io::Result<()> {
        let mut line = serde_json::to_vec(holder)?;
        line.push(b'\n');
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(&line)
    }
}

/// The line in a lock file, if it is whole. It only serves to name the holder: that there is one
/// is the kernel's word.
fn read_holder(file: &File) -> Option<Holder> {
    let mut line = Vec::new();
    let mut file = file.take(HOLDER_MAX);
    file.read_to_end(&mut line).ok()?;
    serde_json::from_slice(&line).ok()
}

/// Locks of the open file, not of the process, so that opening the file a second time in the same
/// process neither shares nor drops them.
#[cfg(target_os = "linux")]
mod kernel {
    use std::fs::File;
    use std::io;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;

    fn whole_file() -> libc::flock {
        libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        }
    }

    pub(super) fn take(file: &File) -> io::Result<bool> {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }

    pub(super) fn is_taken(file: &File) -> io::Result<bool> {
        let mut asked = whole_file();
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
        Ok(i32::from(asked.l_type) != libc::F_UNLCK)
    }
}

/// Without a way to ask, a shared lock is taken for an instant; a supervisor that starts in that
/// instant is told that the batch is held, and may be started again.
#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::fs::{File, TryLockError};
    use std::io;

    fn taken(outcome: Result<(), TryLockError>) -> io::Result<bool> {
        match outcome {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn take(file: &File) -> io::Result<bool> {
        taken(file.try_lock())
    }

    pub(super) fn is_taken(file: &File) -> io::Result<bool> {
        let free = taken(file.try_lock_shared())?;
        if free {
            file.unlock()?;
        }
        Ok(!free)
    }
}
