//! The batches of this machine, so that commands find them by name, and by the repository that they
//! are called from.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::ids::BatchId;
use serde::{Deserialize, Serialize};

use supervisor_core::time::Wall;

use super::disk::{Disk, OpenAs, RealDisk};
use super::error::StoreError;
use super::path_text;
use super::seal::{self, FORMAT_VERSION, NO_CRC};
use super::state_root::StateRoot;

/// Most batches listed; older ones stay on disk. Listing reads one small file each.
pub const BATCHES_MAX: usize = 100_000;
/// Longest entry, bytes: a few paths.
const ENTRY_MAX: u64 = 64 * 1024;

/// One batch of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its id.
    pub id: BatchId,
    /// Its name in the batch file.
    pub name: String,
    /// The repository, or else the folder, that makes it the same batch when it is run again.
    pub repository: PathBuf,
    /// The batch file it was made from, absolute.
    pub batch_file: PathBuf,
    /// Its state dir.
    pub dir: PathBuf,
    /// When it was created.
    pub created: Wall,
}

/// Every batch of this machine.
#[derive(Debug, Default)]
pub struct Listing {
    /// Newest first.
    pub entries: Vec<IndexEntry>,
    /// Entries that can not be read; they are batches all the same.
    pub unreadable: Vec<StoreError>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    crc: String,
    id: BatchId,
    name: String,
    #[serde(with = "path_text")]
    repository: PathBuf,
    #[serde(with = "path_text")]
    batch_file: PathBuf,
    #[serde(with = "path_text")]
    dir: PathBuf,
    created: i64,
}

/// Adds a batch, or replaces its entry.
///
/// # Errors
/// What the disk says.
pub fn put(disk: &dyn Disk, root: &StateRoot, entry: &IndexEntry) -> Result<(), StoreError> {
    let IndexEntry {
        id,
        name,
        repository,
        batch_file,
        dir,
        created,
    } = entry.clone();
    let path = root.index().join(format!("{id}.json"));
    let line = Line {
        v: FORMAT_VERSION,
        crc: NO_CRC.to_owned(),
        id,
        name,
        repository,
        batch_file,
        dir,
        created: created.0,
    };
    let mut bytes = Vec::new();
    seal::write(&mut bytes, &line);
    seal::replace_file(disk, &path, &bytes)
}

/// Every batch of this machine, newest first.
///
/// # Errors
/// [`StoreError::Io`] when the folder can not be listed; [`StoreError::Limit`].
pub fn list(disk: &dyn Disk, root: &StateRoot) -> Result<Listing, StoreError> {
    let folder = root.index();
    let names = match disk.list(&folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StoreError::io("list", &folder)(error)),
    };
    if names.len() > BATCHES_MAX {
        return Err(StoreError::Limit {
            what: "batches in the index",
            found: names.len() as u64,
            max: BATCHES_MAX as u64,
        });
    }
    let mut listing = Listing::default();
    for name in names {
        let path = folder.join(name);
        if path.extension() != Some(OsStr::new("json")) {
            continue;
        }
        match read(disk, &path) {
            Ok(Some(entry)) => listing.entries.push(entry),
            // Removed between the list and the read.
            Ok(None) => {}
            Err(error) => listing.unreadable.push(error),
        }
    }
    listing
        .entries
        .sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    Ok(listing)
}

/// The batches of that name and repository, newest first.
///
/// # Errors
/// As [`list`]; and the first unreadable entry, because it may be the one that is looked for.
pub fn find(
    disk: &dyn Disk,
    root: &StateRoot,
    name: &str,
    repository: &Path,
) -> Result<Vec<IndexEntry>, StoreError> {
    let Listing {
        mut entries,
        unreadable,
    } = list(disk, root)?;
    if let Some(error) = unreadable.into_iter().next() {
        return Err(error);
    }
    entries.retain(|entry| entry.name == name && entry.repository == repository);
    Ok(entries)
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Option<IndexEntry>, StoreError> {
    let Some(line) = seal::read_file(disk, path, ENTRY_MAX)? else {
        return Ok(None);
    };
    let line: Line = serde_json::from_slice(&line)
        .map_err(|error| StoreError::unreadable(path, error.column() as u64, error.to_string()))?;
    Ok(Some(IndexEntry {
        id: line.id,
        name: line.name,
        repository: line.repository,
        batch_file: line.batch_file,
        dir: line.dir,
        created: Wall(line.created),
    }))
}

/// Leaves `<repository>/.supervisor/<name>`: a file that names the state dir, nothing more, in a
/// folder that git ignores.
///
/// # Errors
/// [`StoreError::Unsafe`] when `.supervisor` is not a folder; [`StoreError::Io`].
pub fn point(repository: &Path, name: &str, dir: &Path) -> Result<(), StoreError> {
    let folder = repository.join(".supervisor");
    match fs::create_dir(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(StoreError::writing(&folder, error)),
    }
    let found = fs::symlink_metadata(&folder).map_err(StoreError::io("read", &folder))?;
    if !found.is_dir() {
        return Err(StoreError::Unsafe {
            path: folder,
            why: "it is not a folder",
        });
    }
    let ignore = folder.join(".gitignore");
    if let Ok(mut file) = RealDisk.open(&ignore, OpenAs::New) {
        file.write_at(0, b"*\n")
            .map_err(|error| StoreError::writing(&ignore, error))?;
    }
    let mut bytes = dir.as_os_str().as_encoded_bytes().to_vec();
    bytes.push(b'\n');
    seal::replace_file(&RealDisk, &folder.join(name), &bytes)
}
