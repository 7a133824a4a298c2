//! Reads a file of procfs whole, with as few calls as the kernel allows.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// First read, bytes: more than `stat`, and than most environments.
const USUAL: usize = 4096;

/// The first `most` bytes of the file.
///
/// Unlike `std::fs::read`, which asks for the size (procfs says 0) and begins with 32 bytes, this
/// takes one read for a usual file: the kernel writes such a file in one piece, so a read that does
/// not fill its buffer was the last one.
///
/// # Errors
/// When the file can not be opened or read; a process that ended is `NotFound` or `ESRCH`.
pub fn read(path: impl AsRef<Path>, most: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; USUAL.min(most)];
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if filled < bytes.len() || filled == most {
            bytes.truncate(filled);
            return Ok(bytes);
        }
        bytes.resize((bytes.len() * 2).min(most), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_or_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for length in [0, 1, USUAL - 1, USUAL, USUAL + 1, 5 * USUAL] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(&file, &content).unwrap();
            assert_eq!(read(&file, 1 << 20).unwrap(), content, "{length} bytes");
            let most = USUAL + 7;
            assert_eq!(read(&file, most).unwrap(), content[..length.min(most)]);
        }
    }

    #[test]
    fn a_file_of_procfs_is_as_std_reads_it() {
        let path = "/proc/self/environ";
        assert_eq!(read(path, 1 << 21).unwrap(), std::fs::read(path).unwrap());
        assert!(read("/proc/4294967295/stat", 64).is_err());
    }
}
