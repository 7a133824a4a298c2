//! The note that nobody was told what came of a batch: its supervisor ended without a guardian. Not
//! synced: after a crash of the machine nobody waits for it.

use std::io;

use super::disk::{OpenAs, open_no_link};
use super::state_dir::StateDir;

/// Leaves the note.
///
/// # Errors
/// What the file system says.
pub fn leave(dir: &StateDir) -> io::Result<()> {
    open_no_link(&dir.untold(), OpenAs::Write).map(drop)
}

/// Whether it is there.
pub fn is_left(dir: &StateDir) -> bool {
    dir.untold().symlink_metadata().is_ok()
}

/// Takes it away, where it is: the outcome is told now. Where that is not possible it is told again.
pub fn take(dir: &StateDir) {
    drop(std::fs::remove_file(dir.untold()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_until_it_is_taken_and_never_through_a_link() {
        let home = tempfile::tempdir().unwrap();
        let dir = StateDir::at(home.path());
        assert!(!is_left(&dir));
        leave(&dir).unwrap();
        leave(&dir).unwrap();
        assert!(is_left(&dir));
        take(&dir);
        take(&dir);
        assert!(!is_left(&dir));
        std::os::unix::fs::symlink(home.path().join("elsewhere"), dir.untold()).unwrap();
        assert!(leave(&dir).is_err());
        assert!(!home.path().join("elsewhere").exists());
    }
}
