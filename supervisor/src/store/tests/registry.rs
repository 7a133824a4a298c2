//! The list of live processes: what it says is what the state says, and it is never trusted further.

use super::sample;
use crate::store::journal::Position;
use crate::store::registry::{self, REGISTRY_VERSION, Registry};
use crate::store::{RealDisk, StateDir, StoreError};

fn dir() -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::at(folder.path());
    dir.create(&RealDisk).unwrap();
    (folder, dir)
}

/// A batch whose facts hold live runs.
fn listed() -> Registry {
    Registry::of(&sample::facts(7))
}

#[test]
fn what_is_written_is_read_back_with_every_identity() {
    let (_folder, dir) = dir();
    assert_eq!(registry::read(&RealDisk, &dir).unwrap(), None);
    let list = listed();
    registry::write(&RealDisk, &dir, &list.encode()).unwrap();
    assert_eq!(registry::read(&RealDisk, &dir).unwrap(), Some(list.clone()));
    let facts = sample::facts(7);
    for run in &list.runs {
        let known = &facts.runs[&run.run];
        assert_eq!(run.token, known.token);
        let identity = run.host.as_ref().map(registry::Process::identity);
        assert_eq!(identity, known.identity);
        assert_eq!(run.containment(), known.containment);
    }
    assert_eq!(list.runs.len(), facts.runs.len());
}

#[test]
fn a_clean_end_proves_rest_only_while_the_journal_does_not_grow() {
    let (_folder, dir) = dir();
    let mut list = listed();
    list.runs.clear();
    assert!(!list.proves_rest(&dir), "it lives on");
    std::fs::write(dir.segment(1), "12345").unwrap();
    let closed = list.closed(Position {
        seq: 9,
        segment: 1,
        offset: 5,
    });
    assert!(closed.proves_rest(&dir));
    std::fs::write(dir.segment(1), "123456").unwrap();
    assert!(!closed.proves_rest(&dir), "a record was added");
    std::fs::write(dir.segment(1), "12345").unwrap();
    std::fs::write(dir.segment(2), "").unwrap();
    assert!(!closed.proves_rest(&dir), "it goes on in another file");
}

#[test]
fn a_list_of_a_newer_release_and_a_damaged_one_are_said_to_be_such() {
    let (_folder, dir) = dir();
    let text = String::from_utf8(listed().encode()).unwrap();
    let newer = text.replacen("\"v\":1", &format!("\"v\":{}", REGISTRY_VERSION + 1), 1);
    std::fs::write(dir.registry(), newer).unwrap();
    let read = registry::read(&RealDisk, &dir);
    assert!(matches!(read, Err(StoreError::Newer { .. })), "{read:?}");
    std::fs::write(dir.registry(), &text[..text.len() / 2]).unwrap();
    let read = registry::read(&RealDisk, &dir);
    assert!(
        matches!(read, Err(StoreError::Unreadable { .. })),
        "{read:?}"
    );
}

#[test]
fn a_link_in_place_of_the_list_is_neither_read_nor_written_through() {
    let (folder, dir) = dir();
    let other = folder.path().join("other");
    std::fs::write(&other, listed().encode()).unwrap();
    std::os::unix::fs::symlink(&other, dir.registry()).unwrap();
    assert!(registry::read(&RealDisk, &dir).is_err());
    let aside = dir.registry().with_added_extension("new");
    std::os::unix::fs::symlink(&other, &aside).unwrap();
    assert!(registry::write(&RealDisk, &dir, b"{}").is_err());
    assert_eq!(std::fs::read(&other).unwrap(), listed().encode());
}

#[test]
fn a_folder_of_the_state_dir_that_is_a_link_is_refused() {
    let (folder, dir) = dir();
    dir.verified().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let tasks = dir.tasks();
    std::fs::remove_dir(&tasks).unwrap();
    dir.verified().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &tasks).unwrap();
    let refused = dir.verified();
    assert!(
        matches!(refused, Err(StoreError::Unsafe { .. })),
        "{refused:?}"
    );
    assert!(
        dir.create(&RealDisk).is_err(),
        "nor is it taken for one that is there"
    );
    drop(folder);
}
