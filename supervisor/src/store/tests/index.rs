//! Batches are found by name and repository, and none is forgotten because it can not be read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use supervisor_core::time::Wall;

use crate::store::index::{IndexEntry, Listing, find, list, point, put};
use crate::store::{RealDisk, StateRoot, StoreError};

fn root() -> (tempfile::TempDir, StateRoot) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().as_os_str().to_owned();
    let root = StateRoot::from_vars(|name| (name == "HOME").then(|| home.clone())).unwrap();
    root.create().unwrap();
    (folder, root)
}

fn entry(id: &str, name: &str, repository: &str, created: i64) -> IndexEntry {
    IndexEntry {
        id: id.parse().unwrap(),
        name: name.to_owned(),
        repository: PathBuf::from(repository),
        batch_file: PathBuf::from(repository).join("batch.yml"),
        dir: PathBuf::from("/state").join(id),
        created: Wall(created),
    }
}

fn ids(entries: &[IndexEntry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.id.as_str()).collect()
}

#[test]
fn no_index_is_no_batches() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().as_os_str().to_owned();
    let root = StateRoot::from_vars(|_| Some(home.clone())).unwrap();
    let Listing {
        entries,
        unreadable,
    } = list(&RealDisk, &root).unwrap();
    assert!(entries.is_empty() && unreadable.is_empty());
}

#[test]
fn batches_are_listed_newest_first() {
    let (_folder, root) = root();
    for (id, created) in [("b", 2), ("a", 1), ("d", 3), ("c", 3)] {
        put(&RealDisk, &root, &entry(id, "n", "/r", created)).unwrap();
    }
    assert_eq!(
        ids(&list(&RealDisk, &root).unwrap().entries),
        ["d", "c", "b", "a"]
    );
}

#[test]
fn an_entry_comes_back_as_it_was_also_with_a_path_that_is_not_text() {
    let (_folder, root) = root();
    let mut odd = entry("a", "n", "/r", 5);
    odd.repository = PathBuf::from(OsStr::from_bytes(b"/r/\xff\xfe"));
    for entry in [entry("b", "n", "/r é \"x\"", 4), odd] {
        put(&RealDisk, &root, &entry).unwrap();
        assert_eq!(
            find(&RealDisk, &root, "n", &entry.repository).unwrap(),
            [entry]
        );
    }
}

#[test]
fn the_same_batch_is_that_of_the_same_name_and_repository() {
    let (_folder, root) = root();
    put(&RealDisk, &root, &entry("a", "n", "/r", 1)).unwrap();
    put(&RealDisk, &root, &entry("b", "n", "/r", 2)).unwrap();
    put(&RealDisk, &root, &entry("c", "m", "/r", 3)).unwrap();
    put(&RealDisk, &root, &entry("d", "n", "/s", 4)).unwrap();
    assert_eq!(
        ids(&find(&RealDisk, &root, "n", Path::new("/r")).unwrap()),
        ["b", "a"]
    );
    assert!(
        find(&RealDisk, &root, "x", Path::new("/r"))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn an_entry_put_again_is_replaced() {
    let (_folder, root) = root();
    put(&RealDisk, &root, &entry("a", "n", "/r", 1)).unwrap();
    put(&RealDisk, &root, &entry("a", "m", "/r", 1)).unwrap();
    let entries = list(&RealDisk, &root).unwrap().entries;
    assert_eq!((entries.len(), entries[0].name.as_str()), (1, "m"));
}

#[test]
fn an_unreadable_entry_is_reported_and_never_taken_for_missing() {
    let (_folder, root) = root();
    put(&RealDisk, &root, &entry("a", "n", "/r", 1)).unwrap();
    put(&RealDisk, &root, &entry("b", "n", "/r", 2)).unwrap();
    let damaged = root.index().join("b.json");
    std::fs::write(&damaged, b"{\"v\":1,").unwrap();
    let Listing {
        entries,
        unreadable,
    } = list(&RealDisk, &root).unwrap();
    assert_eq!(ids(&entries), ["a"]);
    assert_eq!(unreadable.len(), 1);
    let error = find(&RealDisk, &root, "n", Path::new("/r")).unwrap_err();
    assert!(
        error.is_unreadable() && error.to_string().contains("b.json"),
        "{error}"
    );
    assert_eq!(std::fs::read(&damaged).unwrap(), b"{\"v\":1,");
}

#[test]
fn what_is_not_an_entry_is_left_alone() {
    let (_folder, root) = root();
    put(&RealDisk, &root, &entry("a", "n", "/r", 1)).unwrap();
    std::fs::write(root.index().join("b.json.new"), b"half").unwrap();
    let Listing {
        entries,
        unreadable,
    } = list(&RealDisk, &root).unwrap();
    assert_eq!((entries.len(), unreadable.len()), (1, 0));
}

#[test]
fn the_pointer_names_the_state_dir_and_git_ignores_it() {
    let folder = tempfile::tempdir().unwrap();
    for dir in ["/state/a", "/state/b"] {
        point(folder.path(), "nightly", Path::new(dir)).unwrap();
        let told = std::fs::read_to_string(folder.path().join(".supervisor/nightly")).unwrap();
        assert_eq!(told, format!("{dir}\n"));
    }
    let ignore = std::fs::read_to_string(folder.path().join(".supervisor/.gitignore")).unwrap();
    assert_eq!(ignore, "*\n");
}

#[test]
fn an_ignore_file_of_the_user_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".supervisor")).unwrap();
    let ignore = folder.path().join(".supervisor/.gitignore");
    std::fs::write(&ignore, "mine\n").unwrap();
    point(folder.path(), "nightly", Path::new("/state/a")).unwrap();
    assert_eq!(std::fs::read_to_string(&ignore).unwrap(), "mine\n");
}

#[test]
fn a_pointer_is_never_written_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(".supervisor")).unwrap();
    let error = point(folder.path(), "nightly", Path::new("/state/a")).unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
