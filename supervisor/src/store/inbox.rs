//! Requests of the operator that wait for the next supervisor of a batch.
//!
//! One file a request, named by time, made durable before the operator is told. The supervisor
//! reads them, and removes each once what it led to is durable; one that dies in between reads it
//! again.

use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use supervisor_core::time::Wall;

use super::disk::Disk;
use super::error::StoreError;
use super::seal::{self, FORMAT_VERSION, NO_CRC};
use super::state_dir::StateDir;
use crate::control::wire::{REQUEST_MAX, Request};

/// Most requests that wait at the same time; the next one is refused.
pub const WAITING_MAX: usize = 10_000;
/// Bytes of a file: the request and its seal.
const FILE_MAX: u64 = REQUEST_MAX as u64 + 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    v: u32,
    crc: String,
    request: Request,
}

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its file.
    pub file: PathBuf,
    /// What is wanted.
    pub request: Request,
}

/// Keeps a request, durable when this returns. `at` orders it among the others, `unique` tells it
/// from others of the same moment (a random number will do).
///
/// # Errors
/// [`StoreError::Limit`] when it is too long or too many wait; what the disk says.
pub fn put(
    disk: &dyn Disk,
    dir: &StateDir,
    at: Wall,
    unique: u64,
    request: &Request,
) -> Result<(), StoreError> {
    let folder = dir.inbox();
    let limit = |what, found: usize, max: usize| StoreError::Limit {
        what,
        found: found as u64,
        max: max as u64,
    };
    let line = Line {
        v: FORMAT_VERSION,
        crc: NO_CRC.to_owned(),
        request: request.clone(),
    };
    let mut bytes = Vec::new();
    seal::write(&mut bytes, &line);
    if bytes.len() as u64 > FILE_MAX {
        return Err(limit("bytes of a request", bytes.len(), REQUEST_MAX));
    }
    disk.create_dir(&folder)
        .map_err(|error| StoreError::writing(&folder, error))?;
    let waiting = files(disk, dir)?.len();
    if waiting >= WAITING_MAX {
        return Err(limit("waiting requests", waiting + 1, WAITING_MAX));
    }
    let name = format!("{:016}-{unique:016x}.json", at.0.max(0));
    seal::replace_file(disk, &folder.join(name), &bytes)
}

/// Every request that waits, oldest first. They stay until [`remove`].
///
/// # Errors
/// [`StoreError::Unreadable`], [`StoreError::Newer`], [`StoreError::Io`].
pub fn waiting(disk: &dyn Disk, dir: &StateDir) -> Result<Vec<Waiting>, StoreError> {
    let mut all = Vec::new();
    for file in files(disk, dir)? {
        let Some(line) = seal::read_file(disk, &file, FILE_MAX)? else {
            continue;
        };
        let line: Line = serde_json::from_slice(&line).map_err(|error| {
            StoreError::unreadable(&file, error.column() as u64, error.to_string())
        })?;
        let request = line.request;
        all.push(Waiting { file, request });
    }
    Ok(all)
}

/// Forgets requests whose consequences are durable; one may be gone already.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::SyncFailed`].
pub fn remove(disk: &dyn Disk, dir: &StateDir, requests: &[Waiting]) -> Result<(), StoreError> {
    for Waiting { file, .. } in requests {
        match disk.remove(file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("remove", file)(error)),
        }
    }
    let folder = dir.inbox();
    if requests.is_empty() {
        return Ok(());
    }
    disk.sync_dir(&folder)
        .map_err(|source| StoreError::SyncFailed {
            file: folder,
            source,
        })
}

fn files(disk: &dyn Disk, dir: &StateDir) -> Result<Vec<PathBuf>, StoreError> {
    let folder = dir.inbox();
    let names = match disk.list(&folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(StoreError::io("list", &folder)(error)),
    };
    let mut files: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    files.retain(|file| file.extension() == Some(OsStr::new("json")));
    files.sort_unstable();
    Ok(files)
}
