//! The seam below the store: the few calls it makes, so that a simulator can stand in for the disk.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

/// A file system.
pub trait Disk: Send + Sync {
    /// Makes a folder and what is missing above it, for its owner alone, and makes their names
    /// durable; it may exist already.
    ///
    /// # Errors
    /// What the system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Opens a file; a link in its place is refused.
    ///
    /// # Errors
    /// `NotFound` where it must exist and does not; `AlreadyExists` where it must not; else what
    /// the system says.
    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Box<dyn DiskFile>>;
    /// Renames a file, replacing what has the new name.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder, in no order.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Makes the names in a folder durable: files made, renamed and removed in it.
    ///
    /// # Errors
    /// What the system says; then nothing is known about the names.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenAs {
    /// To read; it must exist.
    Read,
    /// To read and write; made if it does not exist.
    Write,
    /// To read and write; it must not exist.
    New,
}

/// An open file. Writes name their place, so that a repeated one changes nothing.
pub trait DiskFile: Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;
    /// Reads up to `to.len()` bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize>;
    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    /// What the system says; a part of the bytes may have been written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes content and length durable (fdatasync).
    ///
    /// # Errors
    /// What the system says; then nothing is known about what was written since the last success,
    /// and a second call on this descriptor proves nothing.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts to `len` bytes.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Whether it holds nothing.
    ///
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The disk of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let above = path.parent().unwrap_or(Path::new("/"));
        let made = DirBuilder::new().mode(0o700).create(path);
        match made.as_ref().map_err(io::Error::kind) {
            Ok(()) => self.sync_dir(above),
            Err(io::ErrorKind::AlreadyExists) if is_own_folder(path) => Ok(()),
            Err(io::ErrorKind::NotFound) if above != path => {
                self.create_dir(above)?;
                DirBuilder::new().mode(0o700).create(path)?;
                self.sync_dir(above)
            }
            Err(_) => made,
        }
    }

    fn open(&self, path: &Path, how: OpenAs) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(open_no_link(path, how)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// Whether that is a folder of ours, and no link to one: an agent runs as the same user, and could
/// have put a link where the next file is to be made.
pub(super) fn is_own_folder(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let ours = nix::unistd::geteuid().as_raw();
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == ours)
}

/// Opens a file of the state: never through a link in its last component, 0600 when made.
pub(super) fn open_no_link(path: &Path, how: OpenAs) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600);
    options.custom_flags(nix::libc::O_NOFOLLOW);
    match how {
        OpenAs::Read => options.open(path),
        OpenAs::Write => options.write(true).create(true).truncate(false).open(path),
        OpenAs::New => options.write(true).create_new(true).open(path),
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
    fn read_at(&self, offset: u64, to: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(to, offset)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// A part of a file as a stream. The end is fixed beforehand, because a supervisor may go on writing
/// while somebody else reads.
pub(super) struct Bytes<'a> {
    file: &'a dyn DiskFile,
    from: u64,
    to: u64,
}

impl<'a> Bytes<'a> {
    pub(super) fn of(file: &'a dyn DiskFile, from: u64, to: u64) -> Self {
        Self { file, from, to }
    }
}

impl io::Read for Bytes<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.to.saturating_sub(self.from)).unwrap_or(usize::MAX);
        let room = into.len().min(left);
        loop {
            match self.file.read_at(self.from, &mut into[..room]) {
                Ok(count) => {
                    self.from += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
