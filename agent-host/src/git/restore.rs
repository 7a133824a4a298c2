//! Restore: what a salvage ref holds comes back as a folder.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git2::{Odb, Oid};
use protocol::git::{GitOutcome, Restore, Restored};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::Hands;
use super::content::fill;
use super::entries::{self, Entry};
use super::error::GitError;
use super::folder::{self, DEPTH_MAX};
use super::kept_modes::Modes;
use super::salvage::{MODULES, STAGED};

/// Objects up to this size are held in memory as a whole, bytes (4 MiB); larger ones go by pieces.
const WHOLE_MAX: usize = 4 << 20;
/// Bytes of a piece (256 KiB).
const PIECE: usize = 256 << 10;

/// Carries it out: everything is written beside the folder, brought to the disk, and put in place.
///
/// # Errors
/// When the ref is missing, the folder is there and not empty, or something can not be read or
/// written. Then the folder is as it was; what was written beside it goes with the next restore.
pub(super) fn perform(hands: &Hands, work: &Restore) -> Result<GitOutcome, GitError> {
    let to = Path::new(&work.to);
    refuse_full(to)?;
    let reference = &work.reference;
    let wanted = work.staged.then_some(STAGED);
    let Some(content) = part(hands, reference, wanted)? else {
        let text = format!("{reference} has nothing staged beside its commit and its files");
        return Err(GitError::Unfit(text));
    };
    let kept = part(hands, reference, Some(MODULES))?;
    let modules = match (work.modules.as_deref().map(Path::new), kept.as_ref()) {
        (None, _) => None,
        (Some(folder), Some(kept)) => {
            refuse_apart(folder, to)?;
            refuse_full(folder)?;
            Some(write(hands, kept, folder)?)
        }
        (Some(_), None) => {
            let text = format!("{reference} has no repositories of submodules");
            return Err(GitError::Unfit(text));
        }
    };
    let written = write(hands, &content, to)?;
    // Both are whole by now, so a kill leaves at most one of the two beside its place.
    let modules_written = modules.is_some();
    if let Some(modules) = modules {
        modules.put_in_place()?;
    }
    let (files, bytes) = (written.files, written.bytes);
    written.put_in_place()?;
    Ok(GitOutcome::Restored(Restored {
        reference: reference.clone(),
        files,
        bytes,
        modules_left: kept.is_some() && !modules_written,
    }))
}

/// Refuses two folders of which one is, or is in, the other.
fn refuse_apart(modules: &Path, to: &Path) -> Result<(), GitError> {
    if !modules.starts_with(to) && !to.starts_with(modules) {
        return Ok(());
    }
    let (modules, to) = (modules.display(), to.display());
    let text = format!("{modules} and {to} are in each other: name two folders apart");
    Err(GitError::Unfit(text))
}

/// A folder that is whole and on the disk, beside its place.
struct Written {
    aside: PathBuf,
    /// Nobody else takes the folder away meanwhile.
    _held: OwnedFd,
    to: PathBuf,
    files: u64,
    bytes: u64,
}

impl Written {
    fn put_in_place(&self) -> Result<(), GitError> {
        let (aside, to) = (&self.aside, &self.to);
        fs::rename(aside, to).map_err(GitError::file("put in place", to))?;
        folder::sync(to.parent().unwrap_or(Path::new("/")))
    }
}

/// Makes a folder of a tree, beside its place.
fn write(hands: &Hands, (tree, modes): &(Oid, Modes), to: &Path) -> Result<Written, GitError> {
    let aside = folder::aside(to, "restore")?;
    remove(&aside)?;
    let parent = aside.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(GitError::file("make", parent))?;
    fs::create_dir(&aside).map_err(GitError::file("make", &aside))?;
    let held = hold(&aside)?;
    let odb = hands.repo.raw.odb();
    let odb = odb.map_err(|error| hands.repo.unread("its objects", &error))?;
    let mut writing = Writing {
        hands,
        odb,
        modes,
        root: &aside,
        files: 0,
        bytes: 0,
    };
    writing.folder(held.as_fd(), *tree, b"", 0)?;
    let (files, bytes) = (writing.files, writing.bytes);
    drop(writing);
    folder::sync(&aside)?;
    Ok(Written {
        aside,
        _held: held,
        to: to.to_owned(),
        files,
        bytes,
    })
}

fn refuse_full(to: &Path) -> Result<(), GitError> {
    match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(GitError::file("look at", to)(error)),
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(GitError::Unfit(format!("{} is no folder", to.display()))),
    }
    let mut inside = fs::read_dir(to).map_err(GitError::file("list", to))?;
    match inside.next() {
        None => Ok(()),
        Some(_) => Err(GitError::Unfit(format!("{} is not empty", to.display()))),
    }
}

/// The tree of a salvage commit, or of the part beside it whose message begins so, and the permissions
/// in it; `None` where there is no such part.
fn part(
    hands: &Hands,
    reference: &str,
    beginning: Option<&str>,
) -> Result<Option<(Oid, Modes)>, GitError> {
    let Some(commit) = hands.repo.tip(reference)? else {
        return Err(GitError::Unfit(format!("there is no ref {reference}")));
    };
    let commit = hands.repo.raw.find_commit(hands.repo.raw_id(&commit)?);
    let commit = commit.map_err(|error| hands.repo.unread(reference, &error))?;
    let wanted = match beginning {
        None => Some(commit),
        Some(beginning) => commit
            .parents()
            .find(|parent| parent.message_bytes().starts_with(beginning.as_bytes())),
    };
    Ok(wanted.map(|wanted| {
        let message = String::from_utf8_lossy(wanted.message_bytes()).into_owned();
        (wanted.tree_id(), Modes::read(&message))
    }))
}

/// Removes what a killed predecessor wrote, also in folders that it had made read-only.
fn remove(aside: &Path) -> Result<(), GitError> {
    if fs::symlink_metadata(aside).is_err() {
        return Ok(());
    }
    let _held = hold(aside)?;
    open_up(aside).map_err(GitError::file("remove", aside))?;
    fs::remove_dir_all(aside).map_err(GitError::file("remove", aside))
}

/// Opens a folder that is being written for this process alone; what a killed one held is free.
fn hold(aside: &Path) -> Result<OwnedFd, GitError> {
    let folder = folder::open(aside)?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder),
        Err(Errno::WOULDBLOCK) => Err(GitError::Unfit(format!(
            "another restore writes {} at this moment",
            aside.display()
        ))),
        Err(error) => Err(GitError::file("lock", aside)(error.into())),
    }
}

fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

struct Writing<'a> {
    hands: &'a Hands,
    odb: Odb<'a>,
    modes: &'a Modes,
    root: &'a Path,
    files: u64,
    bytes: u64,
}

impl Writing<'_> {
    fn folder(
        &mut self,
        at: BorrowedFd<'_>,
        tree: Oid,
        path: &[u8],
        depth: usize,
    ) -> Result<(), GitError> {
        let bad = |what: &str| {
            let path = folder::path(path);
            GitError::Unfit(format!("{what} in {} of tree {tree}", path.display()))
        };
        if depth > DEPTH_MAX {
            return Err(bad("there are too many folders in each other"));
        }
        let bytes = self.read(tree, path)?;
        let entries = entries::decode(&bytes, tree.as_bytes().len());
        let entries = entries.map_err(|_| bad("there is no tree"))?;
        for entry in entries {
            let name = entries::own_name(&entry.name).ok_or_else(|| bad("there is a bad name"))?;
            let path = folder::join(path, &name);
            self.entry(at, &entry, &name, &path, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        at: BorrowedFd<'_>,
        entry: &Entry,
        name: &[u8],
        path: &[u8],
        depth: usize,
    ) -> Result<(), GitError> {
        let place = self.root.join(folder::path(path));
        let file = |act| GitError::file(act, &place);
        match entry.mode {
            entries::FOLDER | entries::COMMIT => {
                let made = rustix::fs::mkdirat(at, name, Mode::RWXU);
                made.map_err(|error| file("make")(error.into()))?;
                let inner = folder::enter(at, name).map_err(file("open"))?;
                // Of a commit of another repository there is nothing but its place.
                if entry.mode == entries::FOLDER {
                    self.folder(inner.as_fd(), entry.id, path, depth + 1)?;
                }
                self.permit(inner.as_fd(), path, entries::FOLDER)
                    .map_err(file("set the permissions of"))
            }
            entries::LINK => {
                let target = self.read(entry.id, path)?;
                self.files += 1;
                self.bytes += target.len() as u64;
                let made = rustix::fs::symlinkat(target.as_slice(), at, name);
                made.map_err(|error| file("make the link")(error.into()))
            }
            _ => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let made =
                    rustix::fs::openat(at, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
                let made = made.map_err(|error| file("make")(error.into()))?;
                let mut made = File::from(made);
                self.files += 1;
                self.bytes += copy(self.hands, &self.odb, entry.id, &mut made, &place)?;
                self.permit(made.as_fd(), path, entry.mode)
                    .map_err(file("set the permissions of"))
            }
        }
    }

    fn permit(&self, of: BorrowedFd<'_>, path: &[u8], mode: u32) -> io::Result<()> {
        let mode = self.modes.get(path, mode);
        File::from(of.try_clone_to_owned()?).set_permissions(Permissions::from_mode(mode))
    }

    fn read(&self, id: Oid, path: &[u8]) -> Result<Vec<u8>, GitError> {
        let object = self.odb.read(id);
        let object = object.map_err(|error| {
            let what = folder::path(path).display().to_string();
            self.hands.repo.unread(&what, &error)
        })?;
        Ok(object.data().to_vec())
    }
}

/// Writes the content of a blob, and proves its hash; its length. What lies in a pack is held in memory,
/// because it can not be read otherwise.
pub(super) fn copy(
    hands: &Hands,
    odb: &Odb<'_>,
    id: Oid,
    to: &mut File,
    place: &Path,
) -> Result<u64, GitError> {
    let unread = |error: git2::Error| hands.repo.unread(&id.to_string(), &error);
    let (size, _) = odb.read_header(id).map_err(unread)?;
    let by_pieces = (size > WHOLE_MAX).then(|| odb.reader(id).ok()).flatten();
    let Some((mut object, _, _)) = by_pieces else {
        let object = odb.read(id).map_err(unread)?;
        to.write_all(object.data())
            .map_err(GitError::file("write", place))?;
        return Ok(size as u64);
    };
    let mut piece = vec![0; PIECE];
    let mut written = 0;
    loop {
        let count = fill(&mut object, &mut piece).map_err(GitError::file("copy", place))?;
        if count == 0 {
            break;
        }
        to.write_all(&piece[..count])
            .map_err(GitError::file("write", place))?;
        written += count as u64;
    }
    // A stream is not checked by libgit2 as a whole object is.
    let is_same = Oid::hash_file(git2::ObjectType::Blob, place).map_err(unread)? == id;
    match is_same {
        true => Ok(written),
        false => Err(GitError::Read {
            repo: hands.repo.path.clone(),
            what: id.to_string(),
            said: "its content is not what its name says".to_owned(),
        }),
    }
}
