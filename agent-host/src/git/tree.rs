//! Trees of files, whatever an agent made of them: removed and measured, no link followed.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::GitError;

/// What the owner needs of a folder to empty it.
const OWNER_ALL: u32 = 0o700;
/// Bytes of a block as the kernel counts them.
const BLOCK: u64 = 512;

/// Removes a file or a folder with all in it; folders that their owner made unwritable too. Returns
/// whether it was there.
///
/// # Errors
/// When something can not be removed.
pub(crate) fn remove(path: &Path) -> Result<bool, GitError> {
    let failed = || GitError::file("remove", path);
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(failed())?,
    };
    if !meta.is_dir() {
        fs::remove_file(path).map_err(failed())?;
        return Ok(true);
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_folders(path);
            fs::remove_dir_all(path).map_err(failed())?;
        }
        other => other.map_err(failed())?,
    }
    Ok(true)
}

/// Most bytes of the kernel's list of mounts that are read (16 MiB: some hundred thousand mounts).
const MOUNTS_MAX: u64 = 16 << 20;

/// What is mounted in a folder, the first of it: a removal would reach into another file system.
///
/// # Errors
/// When the kernel's list can not be read; where there is no such list, nothing is found.
pub(crate) fn mounted_in(folder: &Path) -> Result<Option<PathBuf>, GitError> {
    let list = Path::new("/proc/self/mountinfo");
    let (Ok(folder), true) = (fs::canonicalize(folder), list.exists()) else {
        return Ok(None);
    };
    let mut text = Vec::new();
    let read = fs::File::open(list).and_then(|file| file.take(MOUNTS_MAX).read_to_end(&mut text));
    read.map_err(GitError::file("read", list))?;
    Ok(mounts(&text).find(|mount| mount.starts_with(&folder)))
}

/// Where something is mounted, by the lines of that list: the fifth word of each.
fn mounts(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    let lines = text.split(|&byte| byte == b'\n');
    let places = lines.filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    places.map(|place| PathBuf::from(OsString::from_vec(unescaped(place))))
}

/// Blanks, line ends and backslashes are written as `\` and three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|it| std::str::from_utf8(it).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => (bytes.push(code), rest = &after[3..]),
            _ => (bytes.push(first), rest = after),
        };
    }
    bytes
}

/// Gives the owner back every folder of a tree; what refuses is met by the removal.
fn open_folders(path: &Path) {
    walk(path, |path, meta| {
        if meta.is_dir() && meta.mode() & OWNER_ALL != OWNER_ALL {
            let mode = Permissions::from_mode(meta.mode() | OWNER_ALL);
            drop(fs::set_permissions(path, mode));
        }
    });
}

/// Bytes that a tree takes on the disk; what is linked from elsewhere too is not freed with it and
/// does not count. What can not be read counts nothing.
pub(crate) fn size(path: &Path) -> u64 {
    let mut bytes = 0;
    walk(path, |_, meta| {
        if meta.is_dir() || meta.nlink() == 1 {
            bytes += meta.blocks() * BLOCK;
        }
    });
    bytes
}

/// Visits a tree, each folder before what is in it. Holds the paths of one way down and its
/// neighbours, never the whole tree.
fn walk(path: &Path, mut visit: impl FnMut(&Path, &fs::Metadata)) {
    let mut waiting: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        visit(&path, &meta);
        if meta.is_dir()
            && let Ok(items) = fs::read_dir(&path)
        {
            waiting.extend(items.flatten().map(|item| item.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_found_by_its_whole_path() {
        let text = b"22 1 8:1 / / rw - ext4 /dev/a rw\n\
            40 22 0:5 /x /w/a\\040b/target rw,nosuid shared:1 - tmpfs t rw\n";
        let found: Vec<_> = mounts(text).collect();
        assert_eq!(found, [Path::new("/"), Path::new("/w/a b/target")]);
        assert_eq!(unescaped(b"a\\134b\\9"), b"a\\b\\9");
        let home = tempfile::tempdir().unwrap();
        assert_eq!(mounted_in(home.path()).unwrap(), None);
        if Path::new("/proc/self/mountinfo").exists() {
            assert!(mounted_in(Path::new("/")).unwrap().is_some());
        }
    }

    #[test]
    fn a_tree_with_closed_folders_goes_and_what_its_links_name_stays() {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().join("tree");
        fs::create_dir_all(tree.join("closed/inner")).unwrap();
        fs::write(tree.join("closed/inner/file"), "x").unwrap();
        fs::write(home.path().join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(home.path().join("kept"), tree.join("link")).unwrap();
        assert!(size(&tree) > 0);
        fs::set_permissions(tree.join("closed"), Permissions::from_mode(0o500)).unwrap();
        assert!(remove(&tree).unwrap());
        assert!(!tree.exists() && home.path().join("kept").exists());
        assert!(!remove(&tree).unwrap(), "it is gone already");
    }
}
