//! Files and folders of a run, never through a symbolic link: an agent runs as the same user, and
//! could have put one anywhere in the folders of its task.
//!
//! Links above those folders are the operator's own (a state home on another disk) and are followed
//! once, to the folder in which the tasks are. From there on each folder is opened by its name in
//! the one above it, which is held open: what was proven to be no link stays what is written in,
//! wherever its name leads later.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, chmodat, mkdirat, openat, unlinkat};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    /// Where it was found, for messages.
    path: PathBuf,
}

/// A folder that was made, and where.
#[derive(Debug)]
pub(crate) struct Made {
    /// The inmost one.
    pub(crate) folder: Folder,
    /// Those above it that got a new entry, outermost first.
    pub(crate) changed: Vec<Folder>,
}

impl Folder {
    /// Opens the folder in which the tasks are, wherever links lead; it is made when it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn outer(path: &Path) -> io::Result<Folder> {
        match Folder::reached(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path)?;
                Folder::reached(path)
            }
            other => other,
        }
    }

    fn reached(path: &Path) -> io::Result<Folder> {
        let fd = rustix::fs::open(path, FOLDER, Mode::empty())?;
        let path = path.to_owned();
        Ok(Folder { fd, path })
    }

    /// Opens the folder at this path below, top down; what is missing is made, 0700 each.
    ///
    /// # Errors
    /// "Not a folder" where something else, also a link, is in the way; "invalid" for a path that
    /// leads anywhere else than down.
    pub(crate) fn make(self, below: &Path) -> io::Result<Made> {
        let mut folder = self;
        let mut changed = Vec::new();
        for part in below.components() {
            let Component::Normal(name) = part else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            // In a folder that was just made there is nothing to be found.
            let is_new = changed.last().is_some();
            let found = match is_new {
                true => Err(Errno::NOENT),
                false => folder.enter(name),
            };
            let inner = match found {
                Err(Errno::NOENT) => {
                    make_in(&folder, name)?;
                    let inner = folder.enter(name);
                    let inner = inner.map_err(|error| folder.said(name, error))?;
                    changed.push(folder);
                    inner
                }
                found => found.map_err(|error| folder.said(name, error))?,
            };
            folder = inner;
        }
        Ok(Made { folder, changed })
    }

    fn enter(&self, name: &OsStr) -> Result<Folder, Errno> {
        let fd = openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?;
        let path = self.path.join(name);
        Ok(Folder { fd, path })
    }

    /// The error with the folder that it is about: of a long path any part may be in the way.
    fn said(&self, name: &OsStr, error: Errno) -> io::Error {
        let error = io::Error::from(error);
        let path = self.path.join(name);
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    }

    /// Opens a file in it; a new one is 0600.
    ///
    /// # Errors
    /// What the file system says; "too many symbolic links" for a link.
    pub(crate) fn open(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = if flags.contains(OFlags::CREATE) {
            Mode::RUSR | Mode::WUSR
        } else {
            Mode::empty()
        };
        Ok(File::from(openat(&self.fd, name, flags, mode)?))
    }

    /// Opens a new or existing file in it for appending.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(crate) fn open_append(&self, name: &str) -> io::Result<File> {
        self.open(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)
    }

    /// Opens a file in it that must not be there yet.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub(crate) fn create_new(&self, name: &str) -> io::Result<File> {
        self.open(name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)
    }

    /// A path to an entry of it that is short however long its own path is, and leads through what is
    /// open; good for as long as the folder is.
    pub(crate) fn reach(&self, name: &str) -> PathBuf {
        // Elsewhere no path leads through what is open: a long one stays long.
        if cfg!(not(target_os = "linux")) {
            return self.path.join(name);
        }
        Path::new("/proc/self/fd")
            .join(self.fd.as_raw_fd().to_string())
            .join(name)
    }

    /// Lets nobody but the owner use an entry of it (0600).
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn set_private(&self, name: &str) -> io::Result<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(chmodat(&self.fd, name, mode, AtFlags::empty())?)
    }

    /// Removes an entry of it that is no folder.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Gives an entry of it another name, in place of what has that name.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    /// Whether it is ours, and nobody else may write in it.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn is_ours(&self) -> io::Result<bool> {
        let stat = rustix::fs::fstat(&self.fd)?;
        let others = Mode::WGRP | Mode::WOTH;
        let open = Mode::from_raw_mode(stat.st_mode).intersects(others);
        Ok(!open && stat.st_uid == rustix::process::geteuid().as_raw())
    }

    /// Names and metadata of its entries, at most `max`; what can not be looked at is left out.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn entries(&self, max: usize) -> io::Result<Vec<(String, std::fs::Metadata)>> {
        let listed = std::fs::read_dir(self.reach("."))?.take(max).flatten();
        let known = listed.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name, entry.metadata().ok()?))
        });
        Ok(known.collect())
    }

    /// Makes its entries durable.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Where it was found.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn make_in(above: &Folder, name: &OsStr) -> io::Result<()> {
    match mkdirat(&above.fd, name, Mode::RWXU) {
        // Whoever made it in between may have made a link: it is opened as such.
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(above.said(name, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// A folder with `real/` and a link to it.
    fn world() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        std::fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        (dir, root)
    }

    fn make(outer: &Path, below: &str) -> io::Result<Made> {
        Folder::outer(outer)?.make(below.as_ref())
    }

    #[test]
    fn a_link_below_is_refused_and_one_above_is_followed() {
        let (_dir, root) = world();
        for below in ["link", "link/a/b"] {
            let refused = make(&root, below).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
            let link = root.join("link").display().to_string();
            assert!(refused.to_string().starts_with(&link), "{refused}");
        }
        assert!(!root.join("real/a").exists(), "nothing came through");
        let made = make(&root.join("link"), "a/b").unwrap();
        assert!(root.join("real/a/b").is_dir());
        let target = root.join("target");
        std::fs::write(&target, "kept").unwrap();
        symlink(&target, root.join("real/a/b/file")).unwrap();
        assert!(made.folder.open_append("file").is_err());
        assert!(made.folder.create_new("file").is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }

    #[test]
    fn a_folder_that_becomes_a_link_later_is_still_the_one_that_is_written_in() {
        let (_dir, root) = world();
        let made = make(&root, "task").unwrap();
        std::fs::rename(root.join("task"), root.join("moved")).unwrap();
        symlink("real", root.join("task")).unwrap();
        made.folder.create_new("file").unwrap();
        assert!(root.join("moved/file").exists());
        assert!(!root.join("real/file").exists());
    }

    #[test]
    fn a_path_that_does_not_lead_down_is_refused() {
        let (_dir, root) = world();
        for path in ["../x", "real/../../x", "/tmp"] {
            let refused = make(&root, path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn folders_are_made_for_their_owner_alone_and_told_outermost_first() {
        let (_dir, root) = world();
        let made = make(&root, "real/a/b").unwrap();
        let changed: Vec<_> = made.changed.iter().map(Folder::path).collect();
        assert_eq!(changed, [root.join("real"), root.join("real/a")]);
        assert!(make(&root, "real/a/b").unwrap().changed.is_empty());
        let mode = |path: &str| {
            let facts = std::fs::metadata(root.join(path)).unwrap();
            facts.permissions().mode() & 0o777
        };
        assert_eq!(mode("real/a/b"), 0o700);
        made.folder.open_append("file").unwrap();
        assert_eq!(mode("real/a/b/file"), 0o600);
        assert!(make(&root, "real/a/b/file").is_err(), "a file is no folder");
    }

    #[test]
    fn the_outer_folder_is_made_when_it_is_missing() {
        let (_dir, root) = world();
        make(&root.join("x/y"), "z").unwrap();
        assert!(root.join("x/y/z").is_dir());
    }
}
