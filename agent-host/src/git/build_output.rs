//! Build output of a worktree: what git ignores and a tool can make again is measured, and goes.
//!
//! A folder is build output when its name is in the one table of such folders, git ignores it by the
//! rules of the repository, nothing in it is or was tracked, no repository is in it, and it lies on
//! the file system of the worktree with all that is below. Anything that is not known for sure stays,
//! and is told with the reason. Each folder first moves aside as a whole, so a kill leaves no half of
//! one where a build would look for it; what lies aside goes with the next time.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocol::build_output::{
    BuildOutput, BuildOutputFolder, BuildOutputFound, BuildOutputStays, FOLDERS_MAX, build_folder,
};
use protocol::git::GitOutcome;
use rustix::fs::{AtFlags, Dir, FileType};

use super::Hands;
use super::error::GitError;
use super::folder::{self, DEPTH_MAX};
use super::tree;
use super::worktree::Worktree;

/// Bytes of a block as the kernel counts them.
const BLOCK: u64 = 512;

/// Carries it out; cut off anywhere, the next time goes on.
///
/// # Errors
/// When the worktree is gone or is another repository by now, git can not say what it ignores, or a
/// folder can not be removed.
pub(super) fn perform(hands: &Hands, work: &BuildOutput) -> Result<GitOutcome, GitError> {
    let there = Worktree::get(hands, Path::new(&work.worktree))?;
    if there.is_taken_over() {
        let text = format!("{} is a repository of its own by now", work.worktree);
        return Err(GitError::Unfit(text));
    }
    let mut found = BuildOutputFound {
        removed: work.remove,
        ..BuildOutputFound::default()
    };
    let aside = Aside::of(&there.folder)?;
    if work.remove {
        tree::remove(&aside.folder)?;
    }
    for path in candidates(hands, &there)? {
        if found.folders.len().max(found.stays.len()) >= FOLDERS_MAX {
            break;
        }
        let name = String::from_utf8_lossy(&path).into_owned();
        let judged = match judge(hands, &there, &path)? {
            Ok(size) if work.remove => aside.take(&there, &path)?.map(|()| size),
            other => other,
        };
        match judged {
            Ok(Size { bytes, files }) => {
                found.bytes += bytes;
                found.folders.push(BuildOutputFolder {
                    path: name,
                    bytes,
                    files,
                });
            }
            Err(why) => found.stays.push(BuildOutputStays { path: name, why }),
        }
    }
    Ok(GitOutcome::BuildOutput(found))
}

/// Removes what a killed removal left beside the worktree.
///
/// # Errors
/// When it can not be removed.
pub(super) fn remove_left(worktree: &Path) -> Result<(), GitError> {
    tree::remove(&Aside::of(worktree)?.folder).map(drop)
}

/// Why a folder stays.
type Stays = String;

/// The ignored folders that have a name of the table, by path; none that is in another one.
fn candidates(hands: &Hands, there: &Worktree) -> Result<Vec<Vec<u8>>, GitError> {
    // The rules of the repository alone: what the operator ignores everywhere says nothing of it.
    let exclude = hands.repo.common.join("info/exclude");
    let mut call = there.call(&hands.git).args(["ls-files", "-z", "--others"]);
    call = call.args([
        "--ignored",
        "--directory",
        "--exclude-per-directory=.gitignore",
    ]);
    if exclude.is_file() {
        let mut rule = OsString::from("--exclude-from=");
        rule.push(&exclude);
        call = call.args([rule]);
    }
    let told = call.run()?;
    let folders = told.split(|&byte| byte == 0);
    let folders = folders.filter_map(|path| path.strip_suffix(b"/"));
    let known = |path: &&[u8]| {
        let name = path.rsplit(|&byte| byte == b'/').next();
        name.is_some_and(|name| build_folder(name).is_some())
    };
    let mut all: Vec<Vec<u8>> = folders.filter(known).map(<[u8]>::to_vec).collect();
    all.sort();
    let mut top: Vec<Vec<u8>> = Vec::new();
    for path in all {
        let is_inside = |outer: &Vec<u8>| {
            let below = path.strip_prefix(outer.as_slice());
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        if !top.iter().any(is_inside) {
            top.push(path);
        }
    }
    Ok(top)
}

/// The size of a folder that is build output through and through; else why it stays.
fn judge(hands: &Hands, there: &Worktree, path: &[u8]) -> Result<Result<Size, Stays>, GitError> {
    let mut tracked = b":(top,literal)".to_vec();
    tracked.extend_from_slice(path);
    let tracked = folder::path(&tracked);
    let list = there.call(&hands.git).args(["ls-files", "-z", "--"]);
    if !list.args([&tracked]).run()?.is_empty() {
        return Ok(Err("files in it are tracked".to_owned()));
    }
    // Taken out of the index, and no commit says so yet.
    let list = there.call(&hands.git);
    let list = list.args(["ls-tree", "-r", "-z", "--full-tree", "HEAD", "--"]);
    let told = list.args([folder::path(path)]).one_of(&[0, 128])?;
    if !told.out.is_empty() {
        return Ok(Err("files in it were tracked at the last commit".to_owned()));
    }
    let top = folder::open(&there.folder)?;
    Ok(open_below(top, path)
        .and_then(|folder| Size::of(folder.as_fd(), 0))
        .map_err(|why| why.to_string()))
}

/// Opens a folder below another one, through folders only.
fn open_below(top: OwnedFd, path: &[u8]) -> Result<OwnedFd, Unsure> {
    let mut at = top;
    for name in path.split(|&byte| byte == b'/') {
        at = enter(at.as_fd(), name)?;
    }
    Ok(at)
}

fn enter(at: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Unsure> {
    folder::enter_here(at, name).map_err(|error| match error.kind() {
        io::ErrorKind::CrossesDevices => Unsure::Mount,
        _ => Unsure::Unread(error),
    })
}

/// What is not known to be build output.
#[derive(Debug, thiserror::Error)]
enum Unsure {
    #[error("another file system is mounted there, or in it")]
    Mount,
    #[error("a repository is in it")]
    Repository,
    #[error("it is more than {DEPTH_MAX} folders deep")]
    Deep,
    #[error("it can not be read: {0}")]
    Unread(#[from] io::Error),
}

/// What a folder takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    /// On the disk; what is linked from elsewhere too is not freed with it and does not count.
    bytes: u64,
    files: u64,
}

impl Size {
    fn of(folder: BorrowedFd<'_>, depth: usize) -> Result<Size, Unsure> {
        if depth > DEPTH_MAX {
            return Err(Unsure::Deep);
        }
        let (mut size, mut marks) = (Size::default(), [false; 3]);
        for entry in Dir::read_from(folder).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            let name = entry.file_name().to_bytes();
            let mark = match name {
                b"." | b".." => continue,
                b".git" => return Err(Unsure::Repository),
                b"HEAD" => Some(0),
                b"objects" => Some(1),
                b"refs" => Some(2),
                _ => None,
            };
            if let Some(mark) = mark {
                marks[mark] = true;
            }
            let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(io::Error::from)?;
            let own = u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let inner = enter(folder, name)?;
                let inner = Size::of(inner.as_fd(), depth + 1)?;
                size.bytes += own + inner.bytes;
                size.files += inner.files;
            } else {
                size.files += 1;
                size.bytes += if stat.st_nlink == 1 { own } else { 0 };
            }
        }
        // A bare repository has these three and no `.git`.
        match marks {
            [true, true, true] => Err(Unsure::Repository),
            _ => Ok(size),
        }
    }
}

/// The folder beside a worktree into which build output moves before it goes.
struct Aside {
    folder: PathBuf,
}

impl Aside {
    fn of(worktree: &Path) -> Result<Self, GitError> {
        let folder = folder::aside(worktree, "build-output")?;
        Ok(Self { folder })
    }

    /// Moves a folder of the worktree here at once, and removes it.
    fn take(&self, there: &Worktree, path: &[u8]) -> Result<Result<(), Stays>, GitError> {
        let from = there.folder.join(folder::path(path));
        fs::create_dir_all(&self.folder).map_err(GitError::file("make", &self.folder))?;
        let to = self.folder.join("going");
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let parent = self.folder.parent().unwrap_or(&self.folder);
                let text = format!("{} is on another file system", parent.display());
                return Ok(Err(text));
            }
            Err(error) => return Err(GitError::file("move aside", &from)(error)),
        }
        tree::remove(&self.folder)?;
        Ok(Ok(()))
    }
}

#[cfg(test)]
#[path = "build_output_tests.rs"]
mod tests;
