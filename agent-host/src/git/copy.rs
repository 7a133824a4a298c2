//! Copies of files and trees that follow no link: neither out of where they are taken from, nor out
//! of where they are put.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RawMode, mkdirat, openat, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

/// Deepest tree that is copied.
const DEPTH_MAX: usize = 256;

/// What may still be copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Entries.
    pub(crate) entries: u64,
    /// Bytes.
    pub(crate) bytes: u64,
}

impl Room {
    fn take(&mut self, bytes: u64) -> io::Result<()> {
        let full = || io::Error::other("the limit of what is copied is reached");
        self.entries = self.entries.checked_sub(1).ok_or_else(full)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(full)?;
        Ok(())
    }
}

/// Copies what is at `path` below `from` to the same place below `to`: a file, a link as a link, a
/// folder with all in it. What is there already stays.
///
/// # Errors
/// "Not a folder" where a link is in the way on either side; "already exists"; no room; and what the
/// file system says.
pub(crate) fn copy(from: &Path, to: &Path, path: &Path, room: &mut Room) -> io::Result<()> {
    let mut source = open_root(from)?;
    let mut target = open_root(to)?;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if parts.peek().is_none() {
            return copy_entry(&source, &target, name, room, 0);
        }
        source = enter(&source, name)?;
        target = make(&target, name)?;
    }
    Err(io::ErrorKind::InvalidInput.into())
}

const FOLDER: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn enter(folder: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(folder, name, FOLDER, Mode::empty())
}

/// Enters a folder, which is made where it is missing.
fn make(folder: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    match mkdirat(folder, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => enter(folder, name),
        Err(error) => Err(error),
    }
}

fn copy_entry(
    source: &OwnedFd,
    target: &OwnedFd,
    name: &OsStr,
    room: &mut Room,
    depth: usize,
) -> io::Result<()> {
    let stat = statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            room.take(size)?;
            copy_file(source, target, name, stat.st_mode)
        }
        FileType::Symlink => {
            room.take(0)?;
            let link = readlinkat(source, name, Vec::new())?;
            Ok(symlinkat(link, target, name)?)
        }
        FileType::Directory if depth < DEPTH_MAX => {
            room.take(0)?;
            let source = enter(source, name)?;
            let target = make(target, name)?;
            for item in Dir::read_from(&source)? {
                let item = item?;
                let name = item.file_name().to_bytes();
                let name = OsStr::from_bytes(name);
                if name != "." && name != ".." {
                    copy_entry(&source, &target, name, room, depth + 1)?;
                }
            }
            Ok(())
        }
        // A device, a socket, a pipe: nothing that could be copied; or deeper than anything real.
        FileType::Directory
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(io::ErrorKind::Unsupported.into()),
    }
}

fn copy_file(source: &OwnedFd, target: &OwnedFd, name: &OsStr, mode: RawMode) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let from = openat(source, name, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = openat(target, name, flags, Mode::from_raw_mode(mode & 0o777))?;
    if clone_extents(&to, &from) {
        return Ok(());
    }
    io::copy(&mut File::from(from), &mut File::from(to)).map(drop)
}

/// Lets the new file share what the old one has on the disk, where the file system can.
#[cfg(target_os = "linux")]
fn clone_extents(to: &OwnedFd, from: &OwnedFd) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

/// Elsewhere the copy is a plain one.
#[cfg(not(target_os = "linux"))]
fn clone_extents(_to: &OwnedFd, _from: &OwnedFd) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const ROOM: Room = Room {
        entries: 100,
        bytes: 1000,
    };

    #[test]
    fn a_tree_is_copied_with_its_links_and_modes_and_nothing_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        symlink("/etc", from.join("a/out")).unwrap();
        copy(&from, &to, Path::new("a"), &mut ROOM.clone()).unwrap();
        assert_eq!(fs::read(to.join("a/b/file")).unwrap(), b"text");
        assert_eq!(fs::read_link(to.join("a/out")).unwrap(), Path::new("/etc"));
        assert!(copy(&from, &to, Path::new("a/out/passwd"), &mut ROOM.clone()).is_err());
        symlink(home.path(), to.join("x")).unwrap();
        fs::create_dir(from.join("x")).unwrap();
        fs::write(from.join("x/file"), "text").unwrap();
        assert!(copy(&from, &to, Path::new("x/file"), &mut ROOM.clone()).is_err());
        assert!(
            !home.path().join("file").exists(),
            "a link was followed out"
        );
        assert!(copy(&from, &to, Path::new("../from"), &mut ROOM.clone()).is_err());
    }

    #[test]
    fn a_copy_ends_at_its_limit() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("file"), vec![0; 1001]).unwrap();
        assert!(copy(&from, &to, Path::new("file"), &mut ROOM.clone()).is_err());
        assert!(!to.join("file").exists());
    }
}
