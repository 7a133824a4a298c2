//! The files that a task declared as its outputs are kept outside the worktree.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use protocol::git::CommitWork;

use super::copy::{Room, copy};
use super::error::GitError;
use super::tree;

/// Most that is kept of one task (100,000 files, 16 GiB: reports and artefacts, no build folder).
const ROOM: Room = Room {
    entries: 100_000,
    bytes: 16 << 30,
};

/// Copies them to their folder, which is put in place as a whole; returns those that are not there.
///
/// # Errors
/// When one leads out of the worktree or can not be copied.
pub(super) fn keep(
    folder: &Path,
    work: &CommitWork,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, GitError> {
    if work.outputs.is_empty() || work.outputs_dir.is_empty() {
        return Ok(Vec::new());
    }
    let kept = Path::new(&work.outputs_dir);
    let aside = PathBuf::from(format!("{}.new", work.outputs_dir));
    tree::remove(&aside)?;
    fs::create_dir_all(&aside).map_err(GitError::file("make", &aside))?;
    let mut missing = Vec::new();
    let mut room = ROOM;
    for output in &work.outputs {
        let path = plain(output)?;
        match fs::symlink_metadata(folder.join(&path)) {
            Err(_) => missing.push(output.clone()),
            Ok(meta) if meta.is_symlink() => {
                missing.push(output.clone());
                warnings.push(format!(
                    "the output {output} is a link, which is not followed"
                ));
            }
            Ok(_) => match copy(folder, &aside, &path, &mut room) {
                // A folder and a file in it may both be declared.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(GitError::file("keep the output", &folder.join(&path)))?,
            },
        }
    }
    tree::remove(kept)?;
    fs::rename(&aside, kept).map_err(GitError::file("put in place", kept))?;
    Ok(missing)
}

/// A path that leads down and nowhere else.
fn plain(output: &str) -> Result<PathBuf, GitError> {
    let mut path = PathBuf::new();
    for part in Path::new(output).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                path.clear();
                break;
            }
        }
    }
    if path.as_os_str().is_empty() {
        return Err(GitError::Unfit(format!(
            "the output `{output}` is no path within the worktree"
        )));
    }
    Ok(path)
}
