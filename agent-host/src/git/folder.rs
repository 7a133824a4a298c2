//! Folders that somebody else may have filled: read and written through descriptors, so that no link
//! leads out of them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};

use super::error::GitError;

/// Deepest folder that is entered; each level holds one descriptor. A deeper one is an error.
pub(super) const DEPTH_MAX: usize = 256;

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Folder,
    /// A file.
    File,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device, which has no content.
    Other,
}

/// One name of a folder.
#[derive(Debug)]
pub(super) struct Item {
    /// Its name.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
    /// Its permissions.
    pub(super) mode: u32,
}

/// The kind and permissions of what was looked at.
pub(super) fn kind(stat: &Stat) -> (Kind, u32) {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Folder,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Link,
        // The standard list of what is left: sockets, pipes, devices.
        _ => Kind::Other,
    };
    #[cfg_attr(
        target_os = "linux",
        expect(clippy::useless_conversion, reason = "it has 16 bits elsewhere")
    )]
    let mode = u32::from(stat.st_mode);
    (kind, mode & 0o7777)
}

/// Opens the folder that a work begins with; the path up to it is ours.
pub(super) fn open(path: &Path) -> Result<OwnedFd, GitError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| GitError::file("open", path)(error.into()))
}

/// Opens a folder in a folder.
pub(super) fn enter(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
}

/// Opens a folder in a folder, if it lies on the same file system, seen through no other mount: else
/// `EXDEV`.
#[cfg(target_os = "linux")]
pub(super) fn enter_here(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    use rustix::io::Errno;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let here = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(folder, name, flags, Mode::empty(), here) {
        // A filter of calls may not know this one.
        Err(Errno::NOSYS | Errno::PERM) => enter_same_device(folder, name),
        opened => Ok(opened?),
    }
}

/// Opens a folder in a folder, if it lies on the same file system: else `EXDEV`.
#[cfg(not(target_os = "linux"))]
pub(super) fn enter_here(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    enter_same_device(folder, name)
}

fn enter_same_device(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let inner = enter(folder, name)?;
    let (outer, found) = (rustix::fs::fstat(folder)?, rustix::fs::fstat(&inner)?);
    match outer.st_dev == found.st_dev {
        true => Ok(inner),
        false => Err(rustix::io::Errno::XDEV.into()),
    }
}

/// Opens a file in a folder for reading, and looks at it once it is open.
pub(super) fn read(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<(File, u64)> {
    // A pipe that has taken the place of a file must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::from(file);
    let meta = file.metadata()?;
    match meta.is_file() {
        true => Ok((file, meta.len())),
        false => Err(io::Error::other("it is no file any more")),
    }
}

/// Where a link leads.
pub(super) fn target(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes())
}

/// What is in a folder, sorted by name.
pub(super) fn list(folder: BorrowedFd<'_>) -> io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let (kind, mode) = kind(&stat);
        let name = name.to_vec();
        items.push(Item { name, kind, mode });
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

/// Brings everything of the file system below a folder to the disk.
pub(super) fn sync(path: &Path) -> Result<(), GitError> {
    let folder = File::open(path).map_err(GitError::file("open", path))?;
    sync_around(folder.as_fd()).map_err(GitError::file("sync", path))
}

#[cfg(target_os = "linux")]
fn sync_around(folder: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::syncfs(folder)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_around(_: BorrowedFd<'_>) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Where a folder is written before it is put in place, or goes to be removed: beside it, so that it
/// moves at once, and by a name that the next work for the same folder finds again.
///
/// # Errors
/// When it is no absolute path of a folder.
pub(super) fn aside(folder: &Path, what: &str) -> Result<PathBuf, GitError> {
    match (folder.parent(), folder.file_name()) {
        (Some(parent), Some(name)) if folder.is_absolute() => {
            let mut own = OsString::from(".");
            own.push(name);
            own.push(".supervisor-");
            own.push(what);
            Ok(parent.join(own))
        }
        _ => Err(GitError::Unfit(format!(
            "{} is no absolute path of a folder",
            folder.display()
        ))),
    }
}

/// The bytes of a path as a path.
pub(super) fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// `below/name`, or the name alone at the top.
pub(super) fn join(below: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = below.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("real")).unwrap();
        std::fs::write(home.path().join("file"), "text").unwrap();
        symlink("real", home.path().join("folder-link")).unwrap();
        symlink("file", home.path().join("file-link")).unwrap();
        let top = open(home.path()).unwrap();
        enter(top.as_fd(), b"real").unwrap();
        enter(top.as_fd(), b"folder-link").unwrap_err();
        assert_eq!(read(top.as_fd(), b"file").unwrap().1, 4);
        read(top.as_fd(), b"file-link").unwrap_err();
        read(top.as_fd(), b"real").unwrap_err();
        assert_eq!(target(top.as_fd(), b"file-link").unwrap(), b"file");
        let kinds: Vec<_> = list(top.as_fd())
            .unwrap()
            .iter()
            .map(|item| item.kind)
            .collect();
        assert_eq!(kinds, [Kind::File, Kind::Link, Kind::Link, Kind::Folder]);
    }
}
