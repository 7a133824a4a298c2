//! The report that a supervisor leaves in the folder of its batch: for people, made from the journal,
//! and never read back.

use super::disk::{Disk, OpenAs};
use super::error::StoreError;
use super::seal::replace_file;
use super::state_dir::StateDir;

/// Torn tails that are named: each is a crash of the machine in the middle of a write.
const TORN_MAX: usize = 20;

/// Replaces both files, each aside, synced and renamed: a crash leaves the old or the new one.
///
/// # Errors
/// What the disk says; a file that was not replaced is as it was.
pub fn write(
    disk: &dyn Disk,
    dir: &StateDir,
    markdown: &str,
    html: &str,
) -> Result<(), StoreError> {
    replace_file(disk, &dir.report_markdown(), markdown.as_bytes())?;
    replace_file(disk, &dir.report_html(), html.as_bytes())
}

/// Takes both away: what they say is older than the batch, and they can be made again.
pub fn remove(disk: &dyn Disk, dir: &StateDir) {
    for path in [dir.report_markdown(), dir.report_html()] {
        if let Err(error) = disk.remove(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(path = %path.display(), %error, "an older report stays");
        }
    }
}

/// The files in which the ends of unfinished writes are kept, oldest first; none where the folder can
/// not be read.
pub fn torn(disk: &dyn Disk, dir: &StateDir) -> Vec<String> {
    let folder = dir.journal();
    let names = disk.list(&folder).unwrap_or_default().into_iter();
    let mut torn: Vec<String> = names
        .filter(|name| StateDir::is_torn(name))
        .map(|name| folder.join(name).display().to_string())
        .collect();
    torn.sort_unstable();
    torn.truncate(TORN_MAX);
    torn
}

/// How long the journal is, bytes.
///
/// # Errors
/// What the disk says.
pub fn journal_bytes(disk: &dyn Disk, dir: &StateDir) -> Result<u64, StoreError> {
    let folder = dir.journal();
    let names = disk
        .list(&folder)
        .map_err(StoreError::io("list", &folder))?;
    let segments = names
        .iter()
        .filter_map(|name| StateDir::segment_number(name));
    let mut bytes = 0_u64;
    for number in segments {
        let path = dir.segment(number);
        let file = disk.open(&path, OpenAs::Read);
        let length = file.and_then(|file| file.len());
        bytes = bytes.saturating_add(length.map_err(StoreError::io("read", &path))?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RealDisk;

    #[test]
    fn a_report_is_replaced_as_a_whole_and_never_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let dir = StateDir::at(home.path());
        write(&RealDisk, &dir, "one", "<p>one").unwrap();
        write(&RealDisk, &dir, "two", "<p>two").unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(dir.report_markdown()), "two");
        assert_eq!(read(dir.report_html()), "<p>two");
        let names = std::fs::read_dir(home.path()).unwrap().count();
        assert_eq!(names, 2, "nothing is left aside");

        remove(&RealDisk, &dir);
        remove(&RealDisk, &dir);
        assert!(!dir.report_markdown().exists() && !dir.report_html().exists());
        let aside = dir.report_markdown().with_added_extension("new");
        std::os::unix::fs::symlink(home.path().join("elsewhere"), aside).unwrap();
        assert!(write(&RealDisk, &dir, "three", "").is_err());
        assert!(!home.path().join("elsewhere").exists());
    }
}
