//! Trees of files, whatever an agent made of them: removed and measured, no link followed.

use std::fs::{self, Permissions};
use std::io;
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
