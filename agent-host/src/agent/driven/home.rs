//! A home for an agent program: where its sessions and settings are, and how the operator's login
//! gets there.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use protocol::class::Class;
use protocol::command::Start;
use protocol::program::{Credentials, Home, ProgramAdapter};
use rustix::fs::OFlags;

use crate::plain::Folder;
use crate::run::Failure;
use crate::run_dir::make_in_task;

/// Largest file of a login that is copied (1 MiB): a few tokens, many times over.
const LOGIN_MAX: u64 = 1 << 20;

/// A file of the operator's that belongs to a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct Login {
    /// The operator's, absolute.
    pub(in crate::agent) from: PathBuf,
    /// Its name in the home; may name a folder there.
    pub(in crate::agent) to: &'static str,
}

/// Makes the home of a program ready and brings the login; `None`: it is the operator's own.
///
/// # Errors
/// `setup_failed` when the home or the login in it can not be made.
pub(in crate::agent) fn make(
    adapter: &ProgramAdapter,
    start: &Start,
    logins: &[Login],
) -> Result<Option<PathBuf>, Failure> {
    let task = Path::new(&start.task_dir);
    let home = match &adapter.home {
        Home::Shared => return Ok(None),
        Home::Task => task.join("home").join(adapter.kind.word()),
        Home::Path(path) => PathBuf::from(path),
    };
    make_folder(adapter, task, &home)?;
    for Login { from, to } in logins {
        let own = home.join(to);
        if let Some(folder) = own.parent().filter(|&folder| folder != home) {
            make_folder(adapter, task, folder)?;
        }
        bring(adapter.credentials, from, &own)
            .map_err(|error| failed("can not bring the login to", &own, &error))?;
    }
    Ok(Some(home))
}

/// A folder in the home of a program.
///
/// # Errors
/// `setup_failed` when it can not be made.
pub(in crate::agent) fn make_folder(
    adapter: &ProgramAdapter,
    task: &Path,
    folder: &Path,
) -> Result<(), Failure> {
    match &adapter.home {
        Home::Task => drop(make_in_task(task, folder)?),
        Home::Shared | Home::Path(_) => {
            let made = Folder::outer(folder);
            drop(made.map_err(|error| failed("can not make", folder, &error))?);
        }
    }
    Ok(())
}

/// Writes a file of settings into a home, whole or not at all: a program that lives may read it.
///
/// # Errors
/// `setup_failed` when it can not be written.
pub(in crate::agent) fn write(file: &Path, content: &[u8]) -> Result<(), Failure> {
    let new = file.with_extension("new");
    let written = create(&new)
        .and_then(|mut to| io::Write::write_all(&mut to, content))
        .and_then(|()| fs::rename(&new, file));
    written.map_err(|error| failed("can not write", file, &error))
}

/// A folder below the operator's own home, by the environment of the run.
pub(in crate::agent) fn operators(
    start: &Start,
    variable: &str,
    below_home: &str,
) -> Option<PathBuf> {
    let named = start.env.get(variable).map(PathBuf::from);
    named.or_else(|| Some(Path::new(start.env.get("HOME")?).join(below_home)))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let text = format!("{what} {}: {error}", path.display());
    Failure::new(Class::SetupFailed, text)
}

fn bring(how: Credentials, login: &Path, own: &Path) -> io::Result<()> {
    let source = match fs::metadata(login) {
        Ok(facts) => facts,
        // Logged in by the environment, or not at all: its own failure tells.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let present = fs::symlink_metadata(own).ok();
    match (how, present) {
        (Credentials::None, _) => Ok(()),
        // It may have renewed its login since; then ours is the older one.
        (Credentials::Copy, Some(present)) if present.modified()? >= source.modified()? => Ok(()),
        (Credentials::Copy, present) => {
            if source.len() > LOGIN_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if present.is_some() {
                fs::remove_file(own)?;
            }
            let mut from = fs::File::open(login)?;
            io::copy(&mut from, &mut create(own)?).map(drop)
        }
        (Credentials::Link, Some(present)) if present.is_symlink() => Ok(()),
        (Credentials::Link, present) => {
            if present.is_some() {
                fs::remove_file(own)?;
            }
            symlink(login, own)
        }
    }
}

/// A new private file; what is in its place goes, whatever it is, and is not followed.
fn create(file: &Path) -> io::Result<fs::File> {
    match fs::remove_file(file) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(file)
}
