//! Requests wait, in order and durable, until somebody has acted on them.

use supervisor_core::time::Wall;

use super::disk::MemDisk;
use super::{dir, fresh};
use crate::control::wire::{CONTROL_VERSION, REQUEST_MAX, Request, Want};
use crate::store::StoreError;
use crate::store::inbox::{WAITING_MAX, put, remove, waiting};

fn answer(text: &str) -> Request {
    Request {
        v: CONTROL_VERSION,
        batch: "b".parse().unwrap(),
        want: Want::Answer {
            question: protocol::ids::QuestionId(1),
            text: text.to_owned(),
        },
    }
}

fn texts(disk: &MemDisk) -> Vec<String> {
    let all = waiting(disk, &dir()).unwrap();
    all.into_iter()
        .map(|one| match one.request.want {
            Want::Answer { text, .. } => text,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_batch_without_requests_has_none() {
    assert!(waiting(&MemDisk::default(), &dir()).unwrap().is_empty());
}

#[test]
fn requests_come_oldest_first_and_stay_until_removed() {
    let (disk, dir) = fresh();
    for (at, unique, text) in [
        (2_000, 1, "b"),
        (1_000, 9, "a"),
        (2_000, 2, "c"),
        (10_000, 0, "d"),
    ] {
        put(&disk, &dir, Wall(at), unique, &answer(text)).unwrap();
    }
    assert_eq!(texts(&disk), ["a", "b", "c", "d"]);
    let all = waiting(&disk, &dir).unwrap();
    remove(&disk, &dir, &all[..2]).unwrap();
    assert_eq!(texts(&disk), ["c", "d"]);
    remove(&disk, &dir, &all).unwrap();
    assert!(
        texts(&disk).is_empty(),
        "those that were gone already do not matter"
    );
}

#[test]
fn a_request_that_was_promised_survives_the_power() {
    for changes in 0..20 {
        let (disk, dir) = fresh();
        put(&disk, &dir, Wall(1), 1, &answer("first")).unwrap();
        disk.power_fails_after(changes);
        let promised = put(&disk, &dir, Wall(2), 2, &answer("second")).is_ok();
        disk.restart(|| false);
        let found = texts(&disk);
        assert_eq!(found[0], "first");
        assert!(!promised || found.len() == 2, "after {changes} changes");
    }
}

#[test]
fn a_removed_request_does_not_come_back_with_the_power() {
    let (disk, dir) = fresh();
    put(&disk, &dir, Wall(1), 1, &answer("once")).unwrap();
    remove(&disk, &dir, &waiting(&disk, &dir).unwrap()).unwrap();
    disk.restart(|| false);
    assert!(texts(&disk).is_empty());
}

#[test]
fn an_unreadable_or_newer_request_stops_the_reader() {
    let (disk, dir) = fresh();
    put(&disk, &dir, Wall(1), 1, &answer("x")).unwrap();
    let file = waiting(&disk, &dir).unwrap().remove(0).file;
    let good = String::from_utf8(disk.bytes(&file)).unwrap();
    disk.set(&file, &good.as_bytes()[..10]);
    assert!(matches!(
        waiting(&disk, &dir),
        Err(StoreError::Unreadable { .. })
    ));
    disk.set(&file, good.replacen("\"v\":1", "\"v\":2", 1).as_bytes());
    assert!(matches!(
        waiting(&disk, &dir),
        Err(StoreError::Newer { found: 2, .. })
    ));
    assert!(disk.picture().contains_key(&file), "it is still there");
}

#[test]
fn a_request_over_its_limit_is_refused() {
    let (disk, dir) = fresh();
    let long = "x".repeat(REQUEST_MAX);
    put(&disk, &dir, Wall(1), 1, &answer(&long[..REQUEST_MAX - 200])).unwrap();
    let error = put(&disk, &dir, Wall(2), 2, &answer(&format!("{long}{long}"))).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Limit {
                what: "bytes of a request",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(texts(&disk).len(), 1);
}

#[test]
fn too_many_requests_are_refused() {
    let (disk, dir) = fresh();
    for number in 0..WAITING_MAX {
        disk.set(&dir.inbox().join(format!("{number:06}.json")), b"x");
    }
    let error = put(&disk, &dir, Wall(1), 1, &answer("x")).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Limit {
                what: "waiting requests",
                ..
            }
        ),
        "{error}"
    );
}
