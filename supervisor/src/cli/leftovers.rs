//! What `doctor` finds lying about: sockets, index entries and cgroups of what is gone, and orphans.
//! Only what nobody can need any more is ever repaired.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::cli::doctor::{Check, Health};
use crate::cli::error::CliError;
use crate::cli::open::{Found, Shelf};
use crate::cli::orphans::Search;
use crate::cli::processes::{Census, living_guard};
use crate::process::cgroup::{self, Parent};
use crate::store::index::{self, IndexEntry};
use crate::store::{LockState, RealDisk, StateRoot};

/// Everything that is found; with `fix` what is safe is repaired.
pub fn all(root: &StateRoot, fix: bool) -> Vec<Check> {
    let listing = match index::list(&RealDisk, root) {
        Ok(listing) => listing,
        Err(error) => {
            return vec![Check::bad(
                "index",
                Health::Missing,
                error.to_string(),
                "batches can not be found by name",
                "make the state dir readable",
            )];
        }
    };
    let mut checks = Vec::new();
    if let Some(error) = listing.unreadable.first() {
        checks.push(Check::bad(
            "index",
            Health::Missing,
            error.to_string(),
            "commands refuse to guess which batch is meant",
            "look at the file; the batches' folders hold everything",
        ));
    }
    let (there, gone): (Vec<IndexEntry>, Vec<IndexEntry>) = listing
        .entries
        .into_iter()
        .partition(|entry| entry.dir.is_dir());
    checks.push(entries(root, &gone, fix));
    checks.push(sockets(root, &there, fix));
    checks.extend(cgroups(&there, fix));
    checks.push(orphans());
    checks
}

/// The verdict on things that can be removed.
fn removable(
    check: &'static str,
    found: &[PathBuf],
    fix: bool,
    consequence: &'static str,
    remove: impl Fn(&Path) -> std::io::Result<()>,
) -> Check {
    let Some(first) = found.first() else {
        return Check::ok(check, "none left behind");
    };
    let shown = format!("{} left behind: {} ...", found.len(), first.display());
    if !fix {
        let remedy = "`supervisor doctor --fix` removes them";
        return Check::bad(check, Health::Weak, shown, consequence, remedy);
    }
    let failed = found.iter().filter(|path| remove(path).is_err()).count();
    if failed == 0 {
        return Check::ok(check, format!("{} removed", found.len()));
    }
    let shown = format!("{failed} of {} can not be removed", found.len());
    Check::bad(
        check,
        Health::Weak,
        shown,
        consequence,
        "remove them by hand",
    )
}

/// Entries of batches whose folder is gone.
fn entries(root: &StateRoot, gone: &[IndexEntry], fix: bool) -> Check {
    let files = gone
        .iter()
        .map(|entry| root.index().join(format!("{}.json", entry.id)));
    let files: Vec<PathBuf> = files.collect();
    let follows = "commands name batches that are no more";
    removable("index_entries", &files, fix, follows, |path| {
        fs::remove_file(path)
    })
}

/// Sockets of batches that nobody holds, and at which nobody listens.
fn sockets(root: &StateRoot, there: &[IndexEntry], fix: bool) -> Check {
    let stale = there.iter().filter_map(|entry| {
        let found = Found::from(entry);
        let path = root.socket(&entry.id);
        let is_socket = fs::symlink_metadata(&path).is_ok_and(|it| it.file_type().is_socket());
        let is_free = found.lock().is_ok_and(|lock| lock == LockState::Free);
        (is_socket && is_free && UnixStream::connect(&path).is_err()).then_some(path)
    });
    let stale: Vec<PathBuf> = stale.collect();
    let follows = "none: the next supervisor of the batch replaces it";
    removable("sockets", &stale, fix, follows, |path| {
        fs::remove_file(path)
    })
}

/// Folders of batches without a supervisor; only empty ones go.
fn cgroups(there: &[IndexEntry], fix: bool) -> Option<Check> {
    let name = format!("doctor-{}", std::process::id()).parse().ok()?;
    let own = Parent::make(&name).ok()?;
    own.remove();
    let place = own.dir().parent()?;
    let is_owned = |entry: &&IndexEntry| {
        let found = Found::from(*entry);
        !found.lock().is_ok_and(|lock| lock == LockState::Free)
            || !matches!(living_guard(&found), Ok(None))
    };
    let stale = there.iter().filter(|entry| !is_owned(entry));
    let stale = stale.map(|entry| place.join(format!("supervisor-{}", entry.id)));
    let stale: Vec<PathBuf> = stale.filter(|path| path.is_dir()).collect();
    let follows = "none but clutter; what lives in one is an orphan";
    Some(removable("cgroups", &stale, fix, follows, |path| {
        cgroup::remove_leftovers(path);
        match path.exists() {
            true => Err(std::io::ErrorKind::DirectoryNotEmpty.into()),
            false => Ok(()),
        }
    }))
}

fn orphans() -> Check {
    let looked = || -> Result<usize, CliError> {
        let search = Search::new(&Shelf::open()?)?;
        let found = search.look(&Census::take()?)?;
        Ok(found.members.len())
    };
    match looked() {
        Ok(0) => Check::ok("orphans", "every process of ours has a living owner"),
        Ok(count) => Check::bad(
            "orphans",
            Health::Weak,
            format!("{count} processes of ours have no living owner"),
            "they use what the next attempt needs; `run` ends those of its batch first",
            "`supervisor ps --orphans` shows them, `supervisor kill --orphans` ends them",
        ),
        Err(error) => Check::bad(
            "orphans",
            Health::Weak,
            error.to_string(),
            "nobody knows what was left",
            "see the error",
        ),
    }
}
