//! The content of a folder as objects: written, and read back against the folder.
//!
//! Both passes walk the folder in the same way and come to the tree's name. The first writes every
//! object; the second reads each from the object store, where libgit2 proves its hash, and compares
//! it with the folder as it is now. What changed in between has another name, or other bytes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use git2::{ErrorCode, ObjectType, Odb, Oid};
use protocol::git::PATHS_MAX;

use super::entries::{self, Entry};
use super::error::GitError;
use super::folder::{self, DEPTH_MAX, Item, Kind};
use super::ignored::{Ignored, Region};

/// Files up to this size are held in memory as a whole, bytes (4 MiB); larger ones go by pieces.
const WHOLE_MAX: u64 = 4 << 20;
/// Bytes of a piece (256 KiB).
const PIECE: usize = 256 << 10;
/// What is written to see whether there is room, where the bytes themselves are not at hand.
static PROBE: [u8; 64 << 10] = [0xa5; 64 << 10];
/// Most files and folders of one folder (10 million: some gigabytes of names would be held).
const ITEMS_MAX: u64 = 10_000_000;

/// What a pass does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Objects are written.
    Write,
    /// Objects are read and compared.
    ReadBack,
}

/// What was found on the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Files and links.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// What has no content, at most [`PATHS_MAX`] of them.
    pub(super) skipped: Vec<String>,
    /// The permissions of every file and folder, by its path; links have none.
    pub(super) modes: Vec<(Vec<u8>, u32, u32)>,
    /// The objects of those that are not held in memory.
    large: BTreeMap<Vec<u8>, Oid>,
    items: u64,
}

/// One pass over a folder.
pub(super) struct Content<'a> {
    /// Where objects are.
    pub(super) odb: Odb<'a>,
    /// Its path, for errors.
    pub(super) repo: &'a Path,
    /// The folder of its objects.
    pub(super) objects: &'a Path,
    /// The folder.
    pub(super) root: &'a Path,
    /// What is not kept.
    pub(super) ignored: &'a Ignored,
    /// The text of the `.git` at the top that is the worktree's link and no content.
    pub(super) link: Option<Vec<u8>>,
    /// What is done.
    pub(super) pass: Pass,
    /// What was found.
    pub(super) found: Found,
    /// The objects that the first pass made of large files; for the second.
    pub(super) known: Option<&'a Found>,
}

impl Content<'_> {
    /// Goes through the folder; the name of its tree.
    ///
    /// # Errors
    /// When something can not be read or written, is not what it was, or is beyond a limit.
    pub(super) fn tree(&mut self) -> Result<Oid, GitError> {
        let top = folder::open(self.root)?;
        match self.folder(top.as_fd(), b"", Region::Plain, 0)? {
            Some(id) => Ok(id),
            None => self.object(ObjectType::Tree, &[], b""),
        }
    }

    /// One folder; `None` where it is ignored and nothing in it is kept.
    fn folder(
        &mut self,
        at: BorrowedFd<'_>,
        path: &[u8],
        region: Region,
        depth: usize,
    ) -> Result<Option<Oid>, GitError> {
        if depth > DEPTH_MAX {
            let place = self.place(path);
            let text = format!("{} is more than {DEPTH_MAX} folders deep", place.display());
            return Err(GitError::Unfit(text));
        }
        let items = folder::list(at).map_err(GitError::file("list", &self.place(path)))?;
        let mut kept = Vec::new();
        for item in items {
            if path.is_empty() && self.is_own_link(at, &item) {
                continue;
            }
            kept.extend(self.item(at, path, region, depth, item)?);
        }
        if kept.is_empty() && region == Region::Ignored {
            return Ok(None);
        }
        let bytes = entries::encode(&mut kept);
        self.object(ObjectType::Tree, &bytes, path).map(Some)
    }

    fn item(
        &mut self,
        at: BorrowedFd<'_>,
        below: &[u8],
        region: Region,
        depth: usize,
        item: Item,
    ) -> Result<Option<Entry>, GitError> {
        let path = folder::join(below, &item.name);
        let region = self
            .ignored
            .region(region, &path, item.kind == Kind::Folder);
        if region == Region::Ignored && !(item.kind == Kind::Folder && self.ignored.may_keep()) {
            return Ok(None);
        }
        self.count(&path)?;
        let (mode, id) = match item.kind {
            Kind::Folder => {
                let file = GitError::file("open", &self.place(&path));
                let inner = folder::enter(at, &item.name).map_err(file)?;
                let Some(id) = self.folder(inner.as_fd(), &path, region, depth + 1)? else {
                    return Ok(None);
                };
                (entries::FOLDER, id)
            }
            Kind::File => match item.mode & 0o100 {
                0 => (entries::FILE, self.file(at, &item.name, &path)?),
                _ => (entries::EXECUTABLE, self.file(at, &item.name, &path)?),
            },
            Kind::Link => (entries::LINK, self.symlink(at, &item.name, &path)?),
            Kind::Other => {
                if self.found.skipped.len() < PATHS_MAX {
                    let name = String::from_utf8_lossy(&path).into_owned();
                    self.found.skipped.push(name);
                }
                return Ok(None);
            }
        };
        let name = entries::kept_name(&item.name, mode);
        if mode != entries::LINK {
            self.found.modes.push((path, mode, item.mode));
        }
        Ok(Some(Entry { name, mode, id }))
    }

    fn count(&mut self, path: &[u8]) -> Result<(), GitError> {
        self.found.items += 1;
        if self.found.items > ITEMS_MAX {
            let place = self.place(path);
            let text = format!(
                "there are more than {ITEMS_MAX} files up to {}",
                place.display()
            );
            return Err(GitError::Unfit(text));
        }
        Ok(())
    }

    fn symlink(&mut self, at: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Oid, GitError> {
        let target = folder::target(at, name);
        let target = target.map_err(GitError::file("read the link", &self.place(path)))?;
        self.found.files += 1;
        self.found.bytes += target.len() as u64;
        self.object(ObjectType::Blob, &target, path)
    }

    fn file(&mut self, at: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Oid, GitError> {
        let (mut file, size) =
            folder::read(at, name).map_err(GitError::file("read", &self.place(path)))?;
        self.found.files += 1;
        self.found.bytes += size;
        if size > WHOLE_MAX {
            let id = match self.pass {
                Pass::Write => self.write_pieces(&mut file, size, path)?,
                Pass::ReadBack => self.compare_pieces(&mut file, path)?,
            };
            self.found.large.insert(path.to_vec(), id);
            return Ok(id);
        }
        let mut bytes = Vec::new();
        file.take(WHOLE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(GitError::file("read", &self.place(path)))?;
        match bytes.len() as u64 == size {
            true => self.object(ObjectType::Blob, &bytes, path),
            false => Err(self.changed(path)),
        }
    }

    /// An object that is held in memory.
    fn object(&self, kind: ObjectType, bytes: &[u8], path: &[u8]) -> Result<Oid, GitError> {
        if self.pass == Pass::Write {
            let written = self.odb.write(kind, bytes);
            return written.map_err(|error| {
                let what = self.place(path);
                unwritten(self.repo, self.objects, &what, bytes, &error)
            });
        }
        let id = Oid::hash_object(kind, bytes).map_err(|error| self.unread(path, &error))?;
        match self.odb.read(id) {
            Ok(object) if object.data() == bytes => Ok(id),
            Err(error) if error.code() != ErrorCode::NotFound => Err(self.unread(path, &error)),
            Ok(_) | Err(_) => Err(self.changed(path)),
        }
    }

    fn write_pieces(&self, file: &mut File, size: u64, path: &[u8]) -> Result<Oid, GitError> {
        let place = self.place(path);
        let unwritten =
            |error: git2::Error| unwritten(self.repo, self.objects, &place, &[], &error);
        let length = usize::try_from(size).map_err(|_| self.changed(path))?;
        let mut writer = self
            .odb
            .writer(length, ObjectType::Blob)
            .map_err(unwritten)?;
        let mut piece = vec![0; PIECE];
        let mut left = size;
        loop {
            let count =
                fill(file, &mut piece).map_err(GitError::file("read", &self.place(path)))?;
            left = left
                .checked_sub(count as u64)
                .ok_or_else(|| self.changed(path))?;
            if count == 0 {
                break;
            }
            if writer.write_all(&piece[..count]).is_err() {
                // The trait's error says nothing, libgit2's is often an older one, and asking for
                // that resets the system's.
                let source = io::Error::last_os_error();
                return Err(match GitError::is_full_disk(&source) {
                    true => GitError::file("keep", &place)(source),
                    false => unwritten(git2::Error::last_error(-1)),
                });
            }
        }
        match left {
            0 => writer.finalize().map_err(unwritten),
            _ => Err(self.changed(path)),
        }
    }

    /// Reads the object that was made of a large file beside the file. What is in a pack comes as a
    /// whole, because it can not be read otherwise.
    fn compare_pieces(&self, file: &mut File, path: &[u8]) -> Result<Oid, GitError> {
        let known = self.known.and_then(|known| known.large.get(path));
        let id = *known.ok_or_else(|| self.changed(path))?;
        let same = match self.odb.reader(id) {
            Ok((mut object, _, _)) => same(file, &mut object),
            Err(_) => {
                let object = self
                    .odb
                    .read(id)
                    .map_err(|error| self.unread(path, &error))?;
                same(file, &mut object.data())
            }
        };
        match same.map_err(GitError::file("compare", &self.place(path)))? {
            true => Ok(id),
            false => Err(self.changed(path)),
        }
    }

    fn is_own_link(&self, at: BorrowedFd<'_>, item: &Item) -> bool {
        if item.name != b".git" || item.kind != Kind::File {
            return false;
        }
        let Some(link) = &self.link else { return false };
        let mut text = Vec::new();
        let read = folder::read(at, b".git")
            .and_then(|(file, _)| file.take(link.len() as u64 + 1).read_to_end(&mut text));
        read.is_ok() && text == *link
    }

    fn place(&self, path: &[u8]) -> PathBuf {
        self.root.join(folder::path(path))
    }

    fn changed(&self, path: &[u8]) -> GitError {
        let place = self.place(path);
        GitError::Unfit(format!("{} changed while it was kept", place.display()))
    }

    fn unread(&self, path: &[u8], error: &git2::Error) -> GitError {
        GitError::Read {
            repo: self.repo.to_owned(),
            what: format!("what was kept of {}", self.place(path).display()),
            said: error.message().to_owned(),
        }
    }
}

/// Why an object was not written. libgit2 does not always say that the disk is full, so the same bytes
/// are written once more where they should have gone, and the system says it.
pub(super) fn unwritten(
    repo: &Path,
    objects: &Path,
    what: &Path,
    bytes: &[u8],
    error: &git2::Error,
) -> GitError {
    // `git gc` removes what has such a name, should a kill come in between.
    let probe = objects.join("tmp_obj_supervisor");
    let written = fs::write(&probe, if bytes.is_empty() { &PROBE } else { bytes });
    // There may be none, or no right to remove it: the failure that is told is the one above.
    drop(fs::remove_file(&probe));
    match written {
        Err(source) if GitError::is_full_disk(&source) => GitError::file("keep", what)(source),
        Ok(()) | Err(_) => GitError::Write {
            repo: repo.to_owned(),
            what: what.display().to_string(),
            said: error.message().to_owned(),
        },
    }
}

/// Reads until the piece is full or there is no more.
pub(super) fn fill(from: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < piece.len() {
        match from.read(&mut piece[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn same(a: &mut dyn Read, b: &mut dyn Read) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let (count, against) = (fill(a, &mut one)?, fill(b, &mut other)?);
        if one[..count] != other[..against] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}
