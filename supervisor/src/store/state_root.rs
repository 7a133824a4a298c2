//! Where this user's state is on this machine.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol::ids::BatchId;

use super::disk::{Disk, RealDisk};
use super::error::StoreError;
use super::state_dir::StateDir;

/// Longest path of a socket, bytes: the kernel takes 107 on Linux and 103 on macOS.
const SOCKET_PATH_MAX: usize = 100;

/// The folder of all batches of this user: `$XDG_STATE_HOME/supervisor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRoot {
    state: PathBuf,
    runtime: Option<PathBuf>,
}

impl StateRoot {
    /// By this process's environment.
    ///
    /// # Errors
    /// [`StoreError::NoHome`].
    pub fn from_env() -> Result<Self, StoreError> {
        Self::from_vars(|name| std::env::var_os(name))
    }

    /// By the given environment: `XDG_STATE_HOME`, else `HOME/.local/state`; `XDG_RUNTIME_DIR`.
    /// Paths that are not absolute are not used, as the XDG rules say.
    ///
    /// # Errors
    /// [`StoreError::NoHome`].
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, StoreError> {
        let folder = |name| {
            var(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let state = folder("XDG_STATE_HOME")
            .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
            .ok_or(StoreError::NoHome)?;
        Ok(Self {
            state: state.join("supervisor"),
            runtime: folder("XDG_RUNTIME_DIR").map(|path| path.join("supervisor")),
        })
    }

    /// Makes the folder and those in it, for the user alone, and checks that they are.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] when one is a link or another user's; [`StoreError::Io`].
    pub fn create(&self) -> Result<(), StoreError> {
        make_private(&self.state)?;
        make_private(&self.batches())?;
        make_private(&self.index())?;
        self.runtime.as_deref().map_or(Ok(()), |runtime| {
            // A runtime folder that went away with its session is no reason not to work.
            let there = runtime.parent().is_some_and(Path::is_dir);
            if there { make_private(runtime) } else { Ok(()) }
        })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.state
    }
    /// The folder of all batches.
    pub fn batches(&self) -> PathBuf {
        self.state.join("batches")
    }
    /// The folder of one batch.
    pub fn batch(&self, id: &BatchId) -> StateDir {
        StateDir::at(self.batches().join(id.as_str()))
    }
    /// The folder of the index of batches.
    pub fn index(&self) -> PathBuf {
        self.state.join("index")
    }

    /// Where the supervisor of a batch listens: in the runtime folder, else in the batch's folder,
    /// else in the state folder under a short name; the first that exists and is short enough for a
    /// socket. The supervisor writes its choice into the lock file, so whoever looks for it with
    /// another environment finds it there.
    pub fn socket(&self, id: &BatchId) -> PathBuf {
        let runtime = self.runtime.as_ref().filter(|folder| folder.is_dir());
        let runtime = runtime.map(|folder| folder.join(format!("{id}.sock")));
        let beside = self.batch(id).path().join("sock");
        let short = format!("{:08x}", crc32fast::hash(id.as_str().as_bytes()));
        let fits = |path: &PathBuf| path.as_os_str().as_bytes().len() <= SOCKET_PATH_MAX;
        runtime
            .filter(fits)
            .or_else(|| Some(beside).filter(fits))
            .unwrap_or_else(|| self.state.join(short))
    }
}

/// Makes a folder, and what is missing above it, that only this user can enter.
fn make_private(path: &Path) -> Result<(), StoreError> {
    match RealDisk.create_dir(path) {
        // What stands there instead of a folder is named below.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(|error| StoreError::writing(path, error))?,
    }
    let found = std::fs::symlink_metadata(path).map_err(StoreError::io("read", path))?;
    let refused = |why| {
        Err(StoreError::Unsafe {
            path: path.to_owned(),
            why,
        })
    };
    if !found.is_dir() {
        return refused("it is not a folder");
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return refused("it belongs to another user");
    }
    if found.mode() & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o700))
        .map_err(StoreError::io("close to others", path))
}
