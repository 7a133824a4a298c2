//! Makes the state dir of a new batch, keeps what was read, and tells whether that changed since.

use std::io;
use std::path::{Path, PathBuf};

use protocol::ids::BatchId;
use supervisor_core::time::Wall;

use crate::batch_file::{BatchFile, Input};
use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::store::index::{self, IndexEntry};
use crate::store::{Disk, OpenAs, RealDisk, StateRoot};

/// Characters of the random part of a batch id: no two that look alike.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Length of that part: two batches of one name in one second get the same one once in a million.
const LETTERS_LEN: usize = 4;

/// A new id: the batch's name, the second it was created (UTC), and random letters.
///
/// # Errors
/// When the system gives no random numbers (10).
pub fn new_id(name: &str, at: Wall) -> Result<BatchId, CliError> {
    let mut random = [0; LETTERS_LEN];
    getrandom::fill(&mut random).map_err(|error| {
        CliError::new(
            Code::Environment,
            format!("the system gives no random number: {error}"),
        )
    })?;
    let letters: String = random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect();
    let second = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    let id = format!("{name}-{}-{letters}", second.strftime("%Y%m%dt%H%M%S"));
    id.parse()
        .map_err(|error| CliError::from_source(Code::Internal, &error))
}

/// Makes the folder of a new batch, keeps its inputs there, and puts it into the index.
///
/// # Errors
/// What the disk says (10), an unsafe folder (8).
pub fn create(
    root: &StateRoot,
    file: &BatchFile,
    path: &Path,
    at: Wall,
) -> Result<Found, CliError> {
    let id = new_id(&file.identity.name, at)?;
    let found = Found {
        dir: root.batch(&id),
        file: path.to_owned(),
        id,
    };
    keep(&found, 0, &file.inputs)?;
    let entry = IndexEntry {
        id: found.id.clone(),
        name: file.identity.name.clone(),
        repository: file.identity.root.clone(),
        batch_file: path.to_owned(),
        dir: found.dir.path().to_owned(),
        created: at,
    };
    index::put(&RealDisk, root, &entry)?;
    if file.identity.root.join(".git").exists() {
        index::point(&file.identity.root, &entry.name, &entry.dir)?;
    }
    Ok(found)
}

/// Keeps what was read in the batch's folder, durable: the first time (revision 0), or an edit.
///
/// # Errors
/// What the disk says (10).
pub fn keep(batch: &Found, revision: u32, inputs: &[Input]) -> Result<(), CliError> {
    batch.dir.create(&RealDisk)?;
    let folder = batch.dir.revision(revision);
    let others = folder.join("inputs");
    let failed = |path: &Path, what: &str, error: io::Error| {
        let message = format!("{} can not be {what}: {error}", path.display());
        CliError::new(Code::Environment, message)
    };
    RealDisk
        .create_dir(&others)
        .map_err(|error| failed(&others, "made", error))?;
    for (path, input) in places(&folder, inputs).zip(inputs) {
        write(&path, &input.bytes).map_err(|error| failed(&path, "written", error))?;
    }
    for folder in [&folder, &others] {
        RealDisk
            .sync_dir(folder)
            .map_err(|error| failed(folder, "made durable", error))?;
    }
    Ok(())
}

/// Where each input is kept: the batch file first, the others numbered in the order of reading.
fn places(folder: &Path, inputs: &[Input]) -> impl Iterator<Item = PathBuf> {
    let first = std::iter::once(folder.join("batch.yml"));
    let others = (1..).zip(inputs.iter().skip(1)).map(|(number, input)| {
        let name = input.path.file_name().unwrap_or_default().to_string_lossy();
        folder.join("inputs").join(format!("{number:03}-{name}"))
    });
    let others: Vec<PathBuf> = others.collect();
    first.chain(others)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = RealDisk.open(path, OpenAs::Write)?;
    file.truncate(0)?;
    file.write_at(0, bytes)?;
    file.sync()
}

/// Whether the batch file, or a file that it names, is not what the batch took last.
pub fn is_edited(batch: &Found, revision: u32, inputs: &[Input]) -> bool {
    let folder = batch.dir.revision(revision);
    let same = |(path, input): (PathBuf, &Input)| {
        std::fs::read(path).is_ok_and(|kept| kept == input.bytes)
    };
    let kept = std::fs::read_dir(folder.join("inputs")).map_or(0, Iterator::count);
    kept + 1 != inputs.len() || !places(&folder, inputs).zip(inputs).all(same)
}
