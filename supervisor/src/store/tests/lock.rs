//! One supervisor per batch, and everyone may ask who it is.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::store::lock::{Guardian, last_holder, lock, state};
use crate::store::{Holder, Lock, LockState, RealDisk, StateDir, StoreError};

fn batch() -> (tempfile::TempDir, StateDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::at(folder.path().join("b"));
    dir.create(&RealDisk).unwrap();
    (folder, dir)
}

fn holder(pid: u32) -> Holder {
    Holder {
        pid,
        start_ticks: 123,
        socket: PathBuf::from("/run/user/1/supervisor/b.sock"),
        guardian: None,
    }
}

#[test]
fn a_batch_nobody_worked_on_is_free() {
    let (_folder, dir) = batch();
    assert_eq!(state(&dir).unwrap(), LockState::Free);
    assert!(!dir.lock().exists(), "asking makes nothing");
}

#[test]
fn the_second_supervisor_is_refused_and_told_the_first() {
    let (_folder, dir) = batch();
    let first = lock(&dir, &holder(41)).unwrap();
    let error = lock(&dir, &holder(42)).unwrap_err();
    assert!(
        matches!(error, StoreError::Held { pid: Some(41) }),
        "{error}"
    );
    assert!(error.to_string().contains("pid 41"), "{error}");
    assert_eq!(state(&dir).unwrap(), LockState::Held(Some(holder(41))));
    drop(first);
    assert_eq!(state(&dir).unwrap(), LockState::Free);
    let second = lock(&dir, &holder(42)).unwrap();
    assert_eq!(state(&dir).unwrap(), LockState::Held(Some(holder(42))));
    drop(second);
}

#[test]
fn the_last_holder_and_its_guardian_are_known_when_it_is_gone() {
    let (_folder, dir) = batch();
    assert_eq!(last_holder(&dir).unwrap(), None);
    assert!(!dir.lock().exists(), "asking makes nothing");
    let guarded = Holder {
        guardian: Some(Guardian {
            pid: 40,
            start_ticks: 122,
        }),
        ..holder(41)
    };
    let held = lock(&dir, &guarded).unwrap();
    assert_eq!(last_holder(&dir).unwrap().as_ref(), Some(&guarded));
    drop(held);
    assert_eq!(state(&dir).unwrap(), LockState::Free);
    assert_eq!(last_holder(&dir).unwrap(), Some(guarded));
    drop(lock(&dir, &holder(43)).unwrap());
    assert_eq!(last_holder(&dir).unwrap(), Some(holder(43)), "without one");
}

#[test]
fn asking_does_not_take_the_lock() {
    let (_folder, dir) = batch();
    drop(lock(&dir, &holder(41)).unwrap());
    let asked: Vec<LockState> = (0..50).map(|_| state(&dir).unwrap()).collect();
    assert!(asked.iter().all(|state| *state == LockState::Free));
    let held = lock(&dir, &holder(42)).unwrap();
    assert!(state(&dir).is_ok() && lock(&dir, &holder(43)).is_err());
    drop(held);
}

#[test]
fn asking_again_and_again_stands_in_no_supervisors_way() {
    let (_folder, dir) = batch();
    drop(lock(&dir, &holder(1)).unwrap());
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                state(&dir).unwrap();
            }
        });
        let refused = (0..2_000)
            .filter(|_| lock(&dir, &holder(2)).is_err())
            .count();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap();
        assert_eq!(refused, 0);
    });
}

#[test]
fn a_line_left_by_a_dead_holder_means_nothing() {
    let (_folder, dir) = batch();
    std::fs::write(dir.lock(), serde_json::to_vec(&holder(41)).unwrap()).unwrap();
    assert_eq!(state(&dir).unwrap(), LockState::Free);
    drop(lock(&dir, &holder(42)).unwrap());
}

#[test]
fn a_holder_that_has_not_written_itself_down_is_still_one() {
    let (_folder, dir) = batch();
    let held = lock(&dir, &holder(41)).unwrap();
    std::fs::write(dir.lock(), b"{\"pid\":4").unwrap();
    assert_eq!(state(&dir).unwrap(), LockState::Held(None));
    let error = lock(&dir, &holder(42)).unwrap_err();
    assert!(matches!(error, StoreError::Held { pid: None }), "{error}");
    drop(held);
}

#[test]
fn the_lock_file_is_private_and_not_a_link() {
    let (folder, dir) = batch();
    drop(lock(&dir, &holder(41)).unwrap());
    let mode = std::fs::metadata(dir.lock()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(dir.lock()).unwrap();
    let stranger = folder.path().join("stranger");
    std::fs::write(&stranger, b"precious").unwrap();
    std::os::unix::fs::symlink(&stranger, dir.lock()).unwrap();
    assert!(lock(&dir, &holder(41)).is_err());
    assert!(state(&dir).is_err());
    assert_eq!(std::fs::read(&stranger).unwrap(), b"precious");
}

#[test]
fn a_lock_is_handed_over_with_its_descriptor_and_with_nothing_else() {
    use std::fs::File;
    use std::os::fd::AsFd;
    let (_folder, dir) = batch();
    let first = lock(&dir, &holder(41)).unwrap();
    let same = File::from(first.as_fd().try_clone_to_owned().unwrap());
    let other = File::options().write(true).open(dir.lock()).unwrap();
    assert!(Lock::handed_over(&dir, other).is_err(), "another open file");
    let stranger = tempfile::tempfile().unwrap();
    assert!(Lock::handed_over(&dir, stranger).is_err(), "another file");
    let second = Lock::handed_over(&dir, same).unwrap();
    drop(first);
    assert_eq!(state(&dir).unwrap(), LockState::Held(Some(holder(41))));
    drop(second);
    assert_eq!(state(&dir).unwrap(), LockState::Free);
}
