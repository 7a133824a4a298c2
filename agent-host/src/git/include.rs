//! `.worktreeinclude`: ignored files of the operator's working folder that a new worktree gets too
//! (settings with keys, caches). Its patterns are those of `.gitignore`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use protocol::git::PATHS_MAX;

use super::Hands;
use super::copy::{Room, copy};
use super::error::GitError;
use super::worktree::Worktree;

/// Name of the file at the top of the repository.
const FILE: &str = ".worktreeinclude";
/// Most that is copied (200,000 files, 32 GiB: a large cache, and no home folder by mistake).
const ROOM: Room = Room {
    entries: 200_000,
    bytes: 32 << 30,
};

/// Copies what is to be there; what could not be copied is a warning.
///
/// # Errors
/// When `git` can not list the files.
pub(super) fn copy_all(
    hands: &Hands,
    there: &Worktree,
    warnings: &mut Vec<String>,
) -> Result<(), GitError> {
    let Some(top) = hands.repo.raw.workdir() else {
        return Ok(());
    };
    if !top.join(FILE).is_file() {
        return Ok(());
    }
    let mut room = ROOM;
    let mut failed = 0;
    for path in wanted(hands, top)? {
        match copy(top, &there.folder, &path, &mut room) {
            // The commit has the file as well, and the worktree holds that.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                failed += 1;
                if failed <= PATHS_MAX {
                    let path = path.display();
                    warnings.push(format!(
                        "{path}, which {FILE} names, is not copied: {error}"
                    ));
                }
            }
            Ok(()) => {}
        }
    }
    if failed > PATHS_MAX {
        let more = failed - PATHS_MAX;
        warnings.push(format!(
            "{more} more files that {FILE} names are not copied"
        ));
    }
    Ok(())
}

/// Files that are not tracked, that match, and that are ignored.
fn wanted(hands: &Hands, top: &Path) -> Result<Vec<std::path::PathBuf>, GitError> {
    let call = hands
        .git
        .at(top)
        .args(["ls-files", "-z", "--others", "--ignored"]);
    let matching = call.args([format!("--exclude-from={FILE}")]).run()?;
    if matching.is_empty() {
        return Ok(Vec::new());
    }
    let call = hands.git.at(top).args(["check-ignore", "-z", "--stdin"]);
    let told = call.input(matching).one_of(&[0, 1])?;
    let names = told.out.split(|byte| *byte == 0);
    // A name that ends with a slash is a repository inside, which is no file of this one.
    let names = names.filter(|name| !name.is_empty() && !name.ends_with(b"/"));
    let names = names.map(|name| Path::new(OsStr::from_bytes(name)).to_owned());
    Ok(names.collect())
}
