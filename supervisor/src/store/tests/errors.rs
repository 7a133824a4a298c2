//! Errors say which file, and sort themselves into what their reader can do about them.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::MemDisk;
use super::sample::entries;
use super::{dir, fresh, open, read, segment, write_groups};
use crate::store::{Disk, DiskFile, OpenAs, StoreError};

fn file() -> PathBuf {
    PathBuf::from("/state/batches/b/journal/000001.jsonl")
}

#[test]
fn unreadable_state_is_told_from_a_disk_that_refuses() {
    let unreadable = [
        StoreError::unreadable(&file(), 12, "its checksum does not match"),
        StoreError::Newer {
            file: file(),
            found: 2,
            known: 1,
        },
    ];
    for error in unreadable {
        assert!(error.is_unreadable() && !error.is_disk(), "{error}");
        assert!(error.to_string().contains("000001.jsonl"), "{error}");
    }
    let source = || io::Error::other("I/O error");
    let disk = [
        StoreError::writing(&file(), io::ErrorKind::StorageFull.into()),
        StoreError::writing(&file(), source()),
        StoreError::NeedsReopen { file: file() },
        StoreError::SyncFailed {
            file: file(),
            source: source(),
        },
    ];
    for error in disk {
        assert!(error.is_disk() && !error.is_unreadable(), "{error}");
        assert!(error.to_string().contains("000001.jsonl"), "{error}");
    }
    let neither = [StoreError::NoHome, StoreError::Held { pid: Some(7) }];
    for error in neither {
        assert!(!error.is_disk() && !error.is_unreadable(), "{error}");
    }
}

#[test]
fn only_want_of_room_may_be_tried_again() {
    let full = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::QuotaExceeded,
        io::ErrorKind::FileTooLarge,
        io::ErrorKind::WriteZero,
    ];
    for kind in full {
        let error = StoreError::writing(&file(), kind.into());
        assert!(matches!(error, StoreError::Full { .. }), "{kind}");
    }
    for errno in [nix::libc::ENOSPC, nix::libc::EDQUOT] {
        let error = StoreError::writing(&file(), io::Error::from_raw_os_error(errno));
        assert!(matches!(error, StoreError::Full { .. }), "{error}");
    }
    for errno in [nix::libc::EIO, nix::libc::EROFS, nix::libc::EBADF] {
        let error = StoreError::writing(&file(), io::Error::from_raw_os_error(errno));
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
}

#[test]
fn an_error_does_not_repeat_its_source() {
    let error = StoreError::writing(&file(), io::Error::other("the cable is out"));
    assert!(!error.to_string().contains("cable"));
    assert_eq!(error.source().unwrap().to_string(), "the cable is out");
}

#[test]
fn a_newer_format_names_both_versions_and_the_way_out() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 1)]);
    let text = String::from_utf8(disk.bytes(&segment(1))).unwrap();
    disk.set(
        &segment(1),
        text.replacen("\"v\":1", "\"v\":4", 1).as_bytes(),
    );
    let told = read(&disk).unwrap_err().to_string();
    assert!(
        told.contains("format version 4") && told.contains("up to 1"),
        "{told}"
    );
    assert!(told.contains("use the newer release"), "{told}");
}

#[test]
fn damage_is_told_with_its_place() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 1)]);
    let second = disk.bytes(&segment(1)).len();
    write_groups(&mut journal, &[&entries(2, 1), &entries(3, 1)]);
    let mut damaged = disk.bytes(&segment(1));
    damaged[second + 50] ^= 1;
    disk.set(&segment(1), &damaged);
    let told = read(&disk).unwrap_err().to_string();
    assert!(told.contains(&format!("at byte {second}")), "{told}");
    assert!(told.contains("its checksum does not match"), "{told}");
    assert!(told.contains("record 3 of a later group follows"), "{told}");
}

/// A disk whose calls all fail.
struct Broken;

impl Disk for Broken {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn open(&self, _: &Path, _: OpenAs) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<std::ffi::OsString>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

#[test]
fn a_folder_that_can_not_be_read_is_never_an_empty_batch() {
    use crate::store::{Check, inbox, index, load};
    let refused = [
        load(&Broken, &dir(), Check::Whole).map(|_| ()).unwrap_err(),
        inbox::waiting(&Broken, &dir()).map(|_| ()).unwrap_err(),
        dir().create(&Broken).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }
    let home = std::ffi::OsString::from("/home/a");
    let root = crate::store::StateRoot::from_vars(|_| Some(home.clone())).unwrap();
    assert!(index::list(&Broken, &root).is_err());
    assert!(index::find(&Broken, &root, "n", Path::new("/r")).is_err());
}

#[test]
fn a_journal_that_can_not_be_listed_is_not_opened() {
    struct NoList(MemDisk);
    impl Disk for NoList {
        fn create_dir(&self, path: &Path) -> io::Result<()> {
            self.0.create_dir(path)
        }
        fn open(&self, path: &Path, how: OpenAs) -> io::Result<Box<dyn DiskFile>> {
            self.0.open(path, how)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.0.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            self.0.remove(path)
        }
        fn list(&self, _: &Path) -> io::Result<Vec<std::ffi::OsString>> {
            Err(io::Error::other("I/O error"))
        }
        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            self.0.sync_dir(path)
        }
    }
    let (disk, dir) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 1)]);
    let before = disk.picture();
    let broken = std::sync::Arc::new(NoList(disk.clone()));
    let outcome = crate::store::open_for_append(broken, &dir, super::Wall(1));
    assert!(matches!(outcome, Err(StoreError::Io { act: "list", .. })));
    assert_eq!(disk.picture(), before);
}
