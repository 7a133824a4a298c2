//! A line is whole, or damaged, or of a newer release; never anything else.

use std::path::Path;

use serde::Serialize;

use super::disk::MemDisk;
use crate::store::StoreError;
use crate::store::seal::{Fault, NO_CRC, beginnings, check, read_file, replace_file, write};

#[derive(Serialize)]
struct Line {
    v: u32,
    crc: &'static str,
    text: &'static str,
}

fn sealed(v: u32, text: &'static str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let crc = NO_CRC;
    write(&mut bytes, &Line { v, crc, text });
    bytes
}

fn line() -> Vec<u8> {
    let mut bytes = sealed(1, "some text");
    bytes.pop();
    bytes
}

#[test]
fn the_checksum_is_of_all_other_bytes() {
    let line = line();
    assert_eq!(check(&line), Ok(()));
    let text = String::from_utf8(line).unwrap();
    let (told, others) = (&text[14..22], format!("{}{}", &text[..14], &text[22..]));
    assert_eq!(told, format!("{:08x}", crc32fast::hash(others.as_bytes())));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let good = line();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert_ne!(check(&bad), Ok(()), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn every_missing_end_is_noticed() {
    let good = line();
    for len in 0..good.len() {
        assert!(
            matches!(check(&good[..len]), Err(Fault::Damaged(_))),
            "{len}"
        );
    }
}

#[test]
fn a_newer_version_is_named_even_if_its_checksum_is_not_ours() {
    let mut newer = sealed(2, "x");
    newer.pop();
    assert_eq!(check(&newer), Err(Fault::Newer(2)));
    let edited = String::from_utf8(line())
        .unwrap()
        .replacen("\"v\":1", "\"v\":907", 1);
    assert_eq!(check(edited.as_bytes()), Err(Fault::Newer(907)));
}

#[test]
fn versions_that_never_were_are_damage() {
    for version in ["0", "", "-1", "1x", "99999999999"] {
        let text = String::from_utf8(line()).unwrap();
        let bad = text.replacen("\"v\":1", &format!("\"v\":{version}"), 1);
        assert!(
            matches!(check(bad.as_bytes()), Err(Fault::Damaged(_))),
            "{version}"
        );
    }
}

#[test]
fn a_line_behind_garbage_is_found() {
    let mut bytes = b"\0\0garbage}{\"v\"".to_vec();
    let at = bytes.len();
    bytes.extend(line());
    assert_eq!(beginnings(&bytes).collect::<Vec<_>>(), [at]);
}

#[test]
fn a_file_that_is_not_there_is_not_an_error() {
    assert!(
        read_file(&MemDisk::default(), Path::new("/a"), 100)
            .unwrap()
            .is_none()
    );
}

#[test]
fn an_empty_or_cut_file_is_unreadable() {
    let (disk, path) = (MemDisk::default(), Path::new("/a"));
    let whole = sealed(1, "x");
    for len in 0..whole.len() {
        disk.set(path, &whole[..len]);
        let error = read_file(&disk, path, 100).unwrap_err();
        assert!(
            matches!(error, StoreError::Unreadable { .. }),
            "{len}: {error}"
        );
    }
}

#[test]
fn a_file_over_its_limit_is_unreadable_and_not_read_into_memory() {
    let (disk, path) = (MemDisk::default(), Path::new("/a"));
    let whole = sealed(1, "x");
    disk.set(path, &whole);
    let len = whole.len() as u64;
    assert!(read_file(&disk, path, len).unwrap().is_some());
    let error = read_file(&disk, path, len - 1).unwrap_err();
    assert!(error.is_unreadable(), "{error}");
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_whenever_the_power_fails() {
    let path = Path::new("/a");
    let (old, new) = (sealed(1, "old"), sealed(1, "new and longer"));
    for landed in [false, true] {
        let mut finished = false;
        for changes in 0..20 {
            let disk = MemDisk::default();
            replace_file(&disk, path, &old).unwrap();
            disk.power_fails_after(changes);
            let outcome = replace_file(&disk, path, &new);
            disk.restart(|| landed);
            let found = disk.bytes(path);
            assert!(found == old || found == new, "after {changes} changes");
            if outcome.is_ok() {
                assert_eq!(found, new, "it was called durable");
                finished = true;
            }
        }
        assert!(finished);
    }
}

#[test]
fn a_full_disk_keeps_the_old_file_and_leaves_nothing_beside_it() {
    let (disk, path) = (MemDisk::default(), Path::new("/a"));
    let old = sealed(1, "old");
    replace_file(&disk, path, &old).unwrap();
    disk.limit_room(Some(10));
    let error = replace_file(&disk, path, &sealed(1, "new")).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(
        disk.picture().into_iter().collect::<Vec<_>>(),
        [(path.to_owned(), old)]
    );
}
