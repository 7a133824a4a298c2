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
        match found(folder, &path) {
            Found::Nothing => missing.push(output.clone()),
            Found::Unfit(why) => {
                missing.push(output.clone());
                warnings.push(format!("the output {output} {why}"));
            }
            Found::Content => match copy(folder, &aside, &path, &mut room) {
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

/// What is in the place of an output.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A file or a folder.
    Content,
    /// Nothing.
    Nothing,
    /// Something that is not kept, and why.
    Unfit(&'static str),
}

/// What is there, looked at part by part: a link on the way could lead out of the worktree.
fn found(folder: &Path, path: &Path) -> Found {
    let mut at = folder.to_owned();
    let mut last = None;
    for part in path.components() {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_symlink() => {
                return Found::Unfit("is, or lies behind, a link, which is not followed");
            }
            Ok(meta) => last = Some(meta),
            Err(_) => return Found::Nothing,
        }
    }
    match last {
        Some(meta) if meta.is_file() || meta.is_dir() => Found::Content,
        Some(_) => Found::Unfit("is neither a file nor a folder"),
        None => Found::Nothing,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_files_and_folders_of_the_worktree_itself_are_outputs() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("worktree");
        fs::create_dir_all(folder.join("out/deep")).unwrap();
        fs::write(home.path().join("secret"), "not yours").unwrap();
        fs::write(folder.join("out/file"), "text").unwrap();
        symlink("..", folder.join("up")).unwrap();
        symlink("out/file", folder.join("link")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
        let kind = |path: &str| match found(&folder, Path::new(path)) {
            Found::Content => "content",
            Found::Nothing => "nothing",
            Found::Unfit(why) => why,
        };
        assert_eq!(kind("out"), "content");
        assert_eq!(kind("out/file"), "content");
        assert_eq!(kind("out/none"), "nothing");
        assert_eq!(kind("out/file/below"), "nothing");
        for path in ["link", "up", "up/secret", "up/worktree/out/file"] {
            assert!(kind(path).contains("link"), "{path}");
        }
        assert!(kind("socket").contains("neither"));
        drop(socket);
    }
}
