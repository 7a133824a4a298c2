//! Files and folders of a run, never through a symbolic link: an agent runs as the same user, and
//! could have put one anywhere in the folders of its task.
//!
//! The supervisor hands over paths without links on the way. So no link at any place of a path is
//! one of ours, and the kernel refuses them all in one call (`openat2`, Linux 5.6); where it does
//! not know that call, or a sandbox refuses it, the last place alone is guarded.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2};
use rustix::io::Errno;

/// Opens a file; a new one is 0600.
///
/// # Errors
/// What the file system says; "too many symbolic links" where one is in the way.
pub(crate) fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    open_fd(path, flags).map(File::from)
}

fn open_fd(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = if flags.contains(OFlags::CREATE) {
        Mode::RUSR | Mode::WUSR
    } else {
        Mode::empty()
    };
    match openat2(CWD, path, flags, mode, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::NOSYS | Errno::PERM) => Ok(openat(CWD, path, flags, mode)?),
        opened => Ok(opened?),
    }
}

/// Makes a folder and what is missing above it, 0700 each; returns what was made, inmost first.
///
/// # Errors
/// What the file system says; "not a folder" or "too many symbolic links" where something else is
/// in the way.
pub(crate) fn make_folder(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = OFlags::PATH | OFlags::DIRECTORY;
    match open_fd(path, folder) {
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut made = make_folder(above)?;
    // Held open, so that what was proven to be no link is where the folder is made.
    let above = open_fd(above, folder)?;
    if make_in(&above, name)? {
        made.insert(0, path.to_owned());
    }
    // Whoever else made it in between may have made a link.
    open_fd(path, folder)?;
    Ok(made)
}

fn make_in(above: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match mkdirat(above, name, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder without links on the way, with `real/` and a link to it.
    fn world() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        symlink("real", root.join("link")).unwrap();
        (dir, root)
    }

    #[test]
    fn a_link_at_any_place_of_a_path_is_refused() {
        let (_dir, root) = world();
        let new = OFlags::WRONLY | OFlags::CREATE;
        assert!(open(&root.join("link/file"), new).is_err());
        assert!(make_folder(&root.join("link/a/b")).is_err());
        assert!(make_folder(&root.join("link")).is_err());
        symlink("elsewhere", root.join("real/file")).unwrap();
        assert!(open(&root.join("real/file"), new).is_err());
        let left: Vec<_> = std::fs::read_dir(root.join("real")).unwrap().collect();
        assert_eq!(left.len(), 1, "nothing came through");
        assert!(!root.join("elsewhere").exists());
    }

    #[test]
    fn folders_are_made_for_their_owner_alone_and_told_inmost_first() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, root) = world();
        let inmost = root.join("real/a/b");
        assert_eq!(
            make_folder(&inmost).unwrap(),
            [inmost.clone(), root.join("real/a")]
        );
        assert_eq!(make_folder(&inmost).unwrap(), Vec::<PathBuf>::new());
        let mode = std::fs::metadata(&inmost).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        open(&inmost.join("file"), OFlags::WRONLY | OFlags::CREATE).unwrap();
        let mode = std::fs::metadata(inmost.join("file"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            make_folder(&inmost.join("file")).is_err(),
            "a file is no folder"
        );
    }
}
