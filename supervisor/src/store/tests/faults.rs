//! The disk fills up, lies about syncs, and loses power at every step.

use supervisor_core::record::Entry;

use super::disk::MemDisk;
use super::sample::{entries, facts};
use super::{dir, fresh, open, read, segment, seqs, write_groups};
use crate::store::journal::RESERVE_SIZE;
use crate::store::{Position, StoreError, checkpoint};

/// Whether the next unsynced block or name lands; from a seed, so that a story repeats.
fn landing(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state & 1 == 0
    }
}

/// A supervisor's life in short: three groups over two segments and a checkpoint. Returns the last
/// record that was called durable.
fn live(disk: &MemDisk) -> (u64, Result<(), StoreError>) {
    let mut durable = 0;
    let outcome = (|| {
        let (journal, loaded) = open(disk)?;
        durable = loaded.end.seq;
        let mut journal = journal.with_segment_max(600);
        journal.ensure_reserve()?;
        for size in [2, 3, 1] {
            let next = durable + 1;
            journal.append(&entries(next, size))?;
            journal.append(&entries(next + size, 1))?;
            let at = journal.sync()?;
            durable = at.seq;
            if size == 3 {
                let bytes = checkpoint::encode(&facts(durable), at)?;
                checkpoint::write(disk, &dir(), &bytes)?;
            }
        }
        Ok(())
    })();
    (durable, outcome)
}

#[test]
fn whenever_the_power_fails_what_was_durable_is_there() {
    let mut lives = 0;
    for seed in 0..40 {
        for changes in 0.. {
            let (disk, _) = fresh();
            disk.power_fails_after(changes);
            let (durable, outcome) = live(&disk);
            disk.restart(landing(seed));
            survives(&disk, durable, &format!("seed {seed}, {changes} changes"));
            lives += 1;
            if outcome.is_ok() {
                break;
            }
        }
    }
    assert!(lives > 40 * 15, "only {lives} power failures");
}

#[test]
fn whenever_the_power_fails_twice_what_was_durable_is_there() {
    for seed in 0..200 {
        let (disk, _) = fresh();
        disk.power_fails_after(5 + seed % 23);
        live(&disk).1.ok();
        disk.restart(landing(u64::from(seed)));
        disk.power_fails_after(seed % 17);
        let (durable, _) = live(&disk);
        disk.restart(landing(u64::from(seed) + 1_000));
        survives(&disk, durable, &format!("seed {seed}"));
    }
}

/// Everything durable is read, nothing else than what was written, and the batch goes on.
#[track_caller]
fn survives(disk: &MemDisk, durable: u64, story: &str) {
    let loaded = read(disk).unwrap_or_else(|error| panic!("{story}: {error}"));
    assert!(
        loaded.end.seq >= durable,
        "{story}: {} of {durable}",
        loaded.end.seq
    );
    let start = loaded.checkpoint.map_or(0, |facts| facts.batch.seq);
    assert_eq!(
        loaded.entries,
        entries(start + 1, loaded.end.seq - start),
        "{story}"
    );
    let (next, outcome) = live(disk);
    outcome.unwrap_or_else(|error| panic!("{story}: {error}"));
    disk.restart(|| false);
    assert_eq!(read(disk).unwrap().end.seq, next, "{story}");
}

#[test]
fn a_full_disk_takes_nothing_and_the_same_call_works_later() {
    let all = entries(1, 6);
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&all[..2]]);
    let size = journal.append(&all[2..]).unwrap() as usize;
    for room in (0..size).step_by(7) {
        let (disk, _) = fresh();
        let (mut journal, _) = open(&disk).unwrap();
        write_groups(&mut journal, &[&all[..2]]);
        let before = disk.picture();
        disk.limit_room(Some(room));
        for _ in 0..2 {
            let error = journal.append(&all[2..]).unwrap_err();
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
            assert!(error.is_disk());
            assert_eq!(disk.picture(), before, "room for {room}");
        }
        disk.limit_room(None);
        write_groups(&mut journal, &[&all[2..]]);
        assert_eq!(read(&disk).unwrap().entries, all);
    }
}

#[test]
fn a_full_disk_leaves_what_was_appended_before_in_the_group() {
    let all = entries(1, 4);
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&all[..2]).unwrap();
    disk.limit_room(Some(10));
    assert!(journal.append(&all[2..]).is_err());
    assert_eq!(journal.sync().unwrap().seq, 2);
    disk.restart(|| false);
    assert_eq!(seqs(&read(&disk).unwrap().entries), [1, 2]);
}

#[test]
fn a_disk_that_refuses_a_write_asks_for_a_new_descriptor() {
    for cuts_refused in [0, 1] {
        let all = entries(1, 4);
        let (disk, _) = fresh();
        let (mut journal, _) = open(&disk).unwrap();
        write_groups(&mut journal, &[&all[..2]]);
        let before = disk.bytes(&segment(1));
        disk.fail_writes(1);
        disk.fail_cuts(cuts_refused);
        let error = journal.append(&all[2..]).unwrap_err();
        assert!(
            matches!(error, StoreError::Io { .. }) && error.is_disk(),
            "{error}"
        );
        assert!(matches!(
            journal.append(&all[2..]),
            Err(StoreError::NeedsReopen { .. })
        ));
        assert!(matches!(
            journal.sync(),
            Err(StoreError::NeedsReopen { .. })
        ));
        assert_eq!(journal.reopen().unwrap().seq, 2);
        assert_eq!(disk.bytes(&segment(1)), before);
        write_groups(&mut journal, &[&all[2..]]);
        disk.restart(|| false);
        assert_eq!(read(&disk).unwrap().entries, all);
    }
}

#[test]
fn a_part_that_can_not_be_taken_back_is_cut_when_the_journal_is_reopened() {
    let all = entries(1, 4);
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&all[..2]]);
    let before = disk.bytes(&segment(1));
    disk.limit_room(Some(100));
    disk.fail_cuts(1);
    let error = journal.append(&all[2..]).unwrap_err();
    assert!(matches!(error, StoreError::NeedsReopen { .. }), "{error}");
    assert_eq!(disk.bytes(&segment(1)).len(), before.len() + 100);
    assert_eq!(journal.reopen().unwrap().seq, 2);
    assert_eq!(disk.bytes(&segment(1)), before);
    assert!(matches!(
        journal.append(&all[2..]),
        Err(StoreError::Full { .. })
    ));
    disk.limit_room(None);
    write_groups(&mut journal, &[&all[2..]]);
    assert_eq!(read(&disk).unwrap().entries, all);
}

#[test]
fn the_reserve_makes_room_for_the_record_of_the_pause() {
    let (disk, dir) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    assert!(journal.ensure_reserve().unwrap());
    assert_eq!(disk.bytes(&dir.reserve()).len(), RESERVE_SIZE);
    disk.limit_room(Some(0));
    let group = entries(1, 100);
    assert!(matches!(
        journal.append(&group),
        Err(StoreError::Full { .. })
    ));
    journal.release_reserve().unwrap();
    write_groups(&mut journal, &[&group, &entries(101, 1)]);
    assert!(
        !journal.ensure_reserve().unwrap(),
        "there is no room for it yet"
    );
    journal.release_reserve().unwrap();
    disk.limit_room(None);
    assert!(journal.ensure_reserve().unwrap());
    disk.restart(|| false);
    assert_eq!(read(&disk).unwrap().end.seq, 101);
    assert_eq!(disk.bytes(&dir.reserve()).len(), RESERVE_SIZE);
}

/// A journal of two records whose next sync fails.
fn sync_failed() -> (MemDisk, crate::store::Journal, Vec<Entry>) {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let all = entries(1, 6);
    write_groups(&mut journal, &[&all[..2]]);
    journal.append(&all[2..4]).unwrap();
    disk.fail_syncs(1);
    let error = journal.sync().unwrap_err();
    assert!(
        matches!(error, StoreError::SyncFailed { .. }) && error.is_disk(),
        "{error}"
    );
    (disk, journal, all)
}

#[test]
fn after_a_failed_sync_the_descriptor_is_not_used_again() {
    let (disk, mut journal, all) = sync_failed();
    let changes = disk.changes();
    let refused = [
        journal.sync().unwrap_err(),
        journal.append(&all[4..]).unwrap_err(),
        journal.append(&all[2..4]).unwrap_err(),
    ];
    assert!(
        refused
            .iter()
            .all(|error| matches!(error, StoreError::NeedsReopen { .. }))
    );
    assert_eq!(disk.changes(), changes);
    assert_eq!(journal.durable().seq, 2);
}

#[test]
fn reopening_says_what_is_proven_and_the_rest_is_appended_again() {
    let (disk, mut journal, all) = sync_failed();
    let opened = disk.opened().len();
    let proven = journal.reopen().unwrap();
    assert_eq!(proven.seq, 2);
    assert_eq!(
        disk.opened()[opened..],
        [segment(1)],
        "a descriptor of its own"
    );
    assert!(matches!(
        journal.append(&all[4..]),
        Err(StoreError::OutOfOrder { last: 2, .. })
    ));
    write_groups(&mut journal, &[&all[2..4], &all[4..]]);
    disk.restart(|| false);
    assert_eq!(read(&disk).unwrap().entries, all);
}

#[test]
fn a_supervisor_killed_after_a_failed_sync_leaves_no_hole() {
    let (disk, journal, all) = sync_failed();
    drop(journal);
    // The next one reads the lost bytes from memory and must not build on them unproven.
    let (mut journal, loaded) = open(&disk).unwrap();
    assert_eq!(loaded.entries, all[..4]);
    write_groups(&mut journal, &[&all[4..]]);
    disk.restart(|| false);
    assert_eq!(read(&disk).unwrap().entries, all);
}

#[test]
fn reopening_may_fail_and_be_called_again() {
    let (disk, mut journal, all) = sync_failed();
    disk.fail_syncs(2);
    for _ in 0..2 {
        assert!(matches!(
            journal.reopen(),
            Err(StoreError::SyncFailed { .. })
        ));
        assert!(matches!(
            journal.append(&all[2..]),
            Err(StoreError::NeedsReopen { .. })
        ));
    }
    assert_eq!(journal.reopen().unwrap().seq, 2);
    write_groups(&mut journal, &[&all[2..]]);
    disk.restart(|| false);
    assert_eq!(read(&disk).unwrap().entries, all);
}

#[test]
fn reopening_refuses_a_journal_that_lost_what_was_proven() {
    let (disk, mut journal, _) = sync_failed();
    let bytes = disk.bytes(&segment(1));
    let mut damaged = bytes.clone();
    damaged[20] ^= 1;
    for lost in [&damaged[..], &bytes[..10], b""] {
        disk.set(&segment(1), lost);
        let error = journal.reopen().unwrap_err();
        assert!(error.is_unreadable(), "{error}");
        assert_eq!(disk.bytes(&segment(1)), lost, "nothing was touched");
    }
}

#[test]
fn a_sync_that_fails_in_the_first_group_of_a_segment_goes_back_to_the_former_one() {
    let (disk, _) = fresh();
    let (journal, _) = open(&disk).unwrap();
    let mut journal = journal.with_segment_max(1);
    write_groups(&mut journal, &[&entries(1, 2)]);
    let end = journal.durable();
    journal.append(&entries(3, 1)).unwrap();
    disk.fail_syncs(1);
    assert!(journal.sync().is_err());
    assert_eq!(journal.reopen().unwrap(), end);
    let bytes = checkpoint::encode(&facts(2), end).unwrap();
    checkpoint::write(&disk, &dir(), &bytes).unwrap();
    write_groups(&mut journal, &[&entries(3, 1)]);
    disk.restart(|| false);
    let loaded = read(&disk).unwrap();
    assert_eq!(seqs(&loaded.entries), [3]);
    assert_eq!(loaded.end.segment, 2);
}

#[test]
fn a_first_sync_that_fails_goes_back_to_nothing() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    journal.append(&entries(1, 1)).unwrap();
    disk.fail_syncs(1);
    assert!(journal.sync().is_err());
    assert_eq!(journal.reopen().unwrap(), Position::default());
    write_groups(&mut journal, &[&entries(1, 1)]);
    disk.restart(|| false);
    assert_eq!(seqs(&read(&disk).unwrap().entries), [1]);
}
