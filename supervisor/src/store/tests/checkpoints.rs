//! A checkpoint is a shortcut: with it or without the same batch is read; a damaged one stops all.

use protocol::command::SteerMode;
use protocol::ids::MessageId;
use supervisor_core::plan::TaskIx;
use supervisor_core::record::Record;

use super::disk::MemDisk;
use super::sample::{entries, facts};
use super::{dir, fresh, open, read, segment, seqs, write_groups};
use crate::store::checkpoint::{due, encode, write};
use crate::store::{Check, Journal, Position, StoreError, load};

/// Records 1 to 4 in two groups, a checkpoint there, then 5 to 7.
fn story() -> (MemDisk, Journal) {
    let (disk, dir) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 2), &entries(3, 2)]);
    let bytes = encode(&facts(4), journal.durable()).unwrap();
    write(&disk, &dir, &bytes).unwrap();
    write_groups(&mut journal, &[&entries(5, 2), &entries(7, 1)]);
    (disk, journal)
}

#[test]
fn only_what_follows_the_checkpoint_is_told() {
    let (disk, journal) = story();
    for check in [Check::Whole, Check::Tail, Check::Quick] {
        let loaded = load(&disk, &dir(), check).unwrap();
        assert_eq!(loaded.checkpoint, Some(facts(4)));
        assert_eq!(seqs(&loaded.entries), [5, 6, 7]);
        assert_eq!(loaded.end, journal.durable());
        assert_eq!(
            loaded.checkpoint_bytes,
            disk.bytes(&dir().checkpoint()).len() as u64
        );
        assert!(loaded.tail_bytes > 0);
    }
}

#[test]
fn a_checkpoint_of_the_last_record_leaves_nothing_to_tell() {
    let (disk, mut journal) = story();
    let bytes = encode(&facts(7), journal.durable()).unwrap();
    write(&disk, &dir(), &bytes).unwrap();
    for check in [Check::Whole, Check::Tail, Check::Quick] {
        let loaded = load(&disk, &dir(), check).unwrap();
        assert!(loaded.entries.is_empty());
        assert_eq!((loaded.tail_bytes, loaded.end.seq), (0, 7));
    }
    write_groups(&mut journal, &[&entries(8, 1)]);
    assert_eq!(seqs(&read(&disk).unwrap().entries), [8]);
}

#[test]
fn the_tail_goes_on_in_the_next_segment() {
    let (disk, journal) = story();
    let mut journal = journal.with_segment_max(1);
    write_groups(&mut journal, &[&entries(8, 1), &entries(9, 1)]);
    for check in [Check::Whole, Check::Tail, Check::Quick] {
        assert_eq!(
            seqs(&load(&disk, &dir(), check).unwrap().entries),
            [5, 6, 7, 8, 9]
        );
    }
}

#[test]
fn the_journal_goes_on_behind_a_checkpoint_and_its_torn_tail() {
    let (disk, _) = story();
    let bytes = disk.bytes(&segment(1));
    disk.set(&segment(1), &bytes[..bytes.len() - 3]);
    let tail = load(&disk, &dir(), Check::Tail).unwrap();
    assert_eq!(seqs(&tail.entries), [5, 6]);
    assert!(tail.torn.is_some());
    let (mut journal, loaded) = open(&disk).unwrap();
    assert_eq!(seqs(&loaded.entries), [5, 6]);
    write_groups(&mut journal, &[&entries(7, 2)]);
    assert_eq!(seqs(&read(&disk).unwrap().entries), [5, 6, 7, 8]);
}

/// Whoever reads stops, and nothing is touched.
#[track_caller]
fn stops_everything(disk: &MemDisk) {
    let before = disk.picture();
    for check in [Check::Whole, Check::Tail, Check::Quick] {
        let error = load(disk, &dir(), check).unwrap_err();
        assert!(error.is_unreadable(), "{error}");
        assert!(error.to_string().contains("checkpoint.json"), "{error}");
    }
    assert!(open(disk).unwrap_err().is_unreadable());
    assert_eq!(disk.picture(), before);
}

#[test]
fn every_flipped_byte_of_a_checkpoint_stops_everything() {
    let (disk, _) = story();
    let good = disk.bytes(&dir().checkpoint());
    for at in (0..good.len()).step_by(13).chain([0, good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 0x80;
        disk.set(&dir().checkpoint(), &bad);
        stops_everything(&disk);
    }
}

#[test]
fn a_checkpoint_cut_at_any_byte_stops_everything() {
    let (disk, _) = story();
    let good = disk.bytes(&dir().checkpoint());
    for len in (0..good.len()).step_by(11) {
        disk.set(&dir().checkpoint(), &good[..len]);
        stops_everything(&disk);
    }
}

#[test]
fn without_its_checkpoint_the_journal_is_read_from_the_beginning() {
    let (disk, _) = story();
    disk.forget(&dir().checkpoint());
    let loaded = read(&disk).unwrap();
    assert_eq!((loaded.checkpoint, loaded.checkpoint_bytes), (None, 0));
    assert_eq!(seqs(&loaded.entries), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn an_empty_journal_is_no_new_batch_where_hosts_were_started() {
    let (disk, _) = story();
    disk.forget(&dir().checkpoint());
    let first = disk.bytes(&segment(1));
    let first = &first[..first.len() / 9];
    for journal in [Some(&b""[..]), Some(first), None] {
        match journal {
            Some(bytes) => disk.set(&segment(1), bytes),
            None => disk.forget(&segment(1)),
        }
        disk.forget(&dir().hosts_log());
        assert_eq!(
            read(&disk).unwrap().end.seq,
            0,
            "a batch that is being made"
        );
        disk.set(&dir().hosts_log(), b"");
        let before = disk.picture();
        assert!(read(&disk).unwrap_err().is_unreadable());
        assert!(open(&disk).unwrap_err().is_unreadable());
        assert_eq!(disk.picture(), before);
    }
}

#[test]
fn a_newer_checkpoint_stops_everything() {
    let (disk, _) = story();
    let text = String::from_utf8(disk.bytes(&dir().checkpoint())).unwrap();
    disk.set(
        &dir().checkpoint(),
        text.replacen("\"v\":1", "\"v\":3", 1).as_bytes(),
    );
    let before = disk.picture();
    let error = open(&disk).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Newer {
                found: 3,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(disk.picture(), before);
}

#[test]
fn a_checkpoint_ahead_of_the_journal_stops_everything() {
    let (disk, _) = story();
    let text = String::from_utf8(disk.bytes(&segment(1))).unwrap();
    let two: String = text.split_inclusive('\n').take(2).collect();
    for journal in [two.as_bytes(), &two.as_bytes()[..two.len() - 4], b""] {
        disk.set(&segment(1), journal);
        let before = disk.picture();
        for check in [Check::Whole, Check::Tail, Check::Quick] {
            let error = load(&disk, &dir(), check).unwrap_err();
            assert!(error.is_unreadable(), "{error}");
        }
        assert!(open(&disk).is_err());
        assert_eq!(disk.picture(), before);
    }
    disk.forget(&segment(1));
    for check in [Check::Whole, Check::Tail, Check::Quick] {
        assert!(load(&disk, &dir(), check).unwrap_err().is_unreadable());
    }
}

#[test]
fn a_torn_tail_that_the_checkpoint_proves_is_not_cut() {
    let (disk, journal) = story();
    let bytes = encode(&facts(7), journal.durable()).unwrap();
    write(&disk, &dir(), &bytes).unwrap();
    let mut damaged = disk.bytes(&segment(1));
    let at = damaged.len() - 10;
    damaged[at] ^= 1;
    disk.set(&segment(1), &damaged);
    let error = open(&disk).unwrap_err();
    assert!(error.is_unreadable(), "{error}");
    assert_eq!(disk.bytes(&segment(1)), damaged);
}

#[test]
fn a_checkpoint_of_another_place_stops_everything() {
    let (disk, _) = story();
    let bytes = disk.bytes(&segment(1));
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    let real: usize = lines.take(4).map(<[u8]>::len).sum();
    for offset in [real - 1, real + 1, real + 40] {
        let at = Position {
            seq: 4,
            segment: 1,
            offset: offset as u64,
        };
        write(&disk, &dir(), &encode(&facts(4), at).unwrap()).unwrap();
        for check in [Check::Whole, Check::Tail, Check::Quick] {
            let error = load(&disk, &dir(), check).unwrap_err();
            assert!(error.is_unreadable(), "{offset}: {error}");
        }
    }
}

#[test]
fn damage_before_the_checkpoint_stops_whoever_opens_the_journal() {
    let (disk, _) = story();
    let mut damaged = disk.bytes(&segment(1));
    damaged[40] ^= 1;
    disk.set(&segment(1), &damaged);
    assert!(open(&disk).unwrap_err().is_unreadable());
    for check in [Check::Whole, Check::Quick] {
        assert!(load(&disk, &dir(), check).unwrap_err().is_unreadable());
    }
    let tail = load(&disk, &dir(), Check::Tail).unwrap();
    assert_eq!(seqs(&tail.entries), [5, 6, 7]);
}

#[test]
fn a_quick_look_at_a_large_journal_reads_the_tail() {
    let (disk, mut journal) = story();
    let mut group = entries(8, 1);
    group[0].record = Record::MessageQueued {
        id: MessageId(1),
        task: TaskIx(0),
        mode: SteerMode::After,
        text: "x".repeat(9 * 1024 * 1024).into(),
        expires: None,
        from: None,
    };
    write_groups(&mut journal, &[&group]);
    let mut damaged = disk.bytes(&segment(1));
    damaged[40] ^= 1;
    disk.set(&segment(1), &damaged);
    let quick = load(&disk, &dir(), Check::Quick).unwrap();
    assert_eq!(seqs(&quick.entries), [5, 6, 7, 8]);
    assert!(load(&disk, &dir(), Check::Whole).is_err());
}

#[test]
fn a_checkpoint_of_records_that_are_not_durable_is_refused() {
    let (_, mut journal) = story();
    journal.append(&entries(8, 1)).unwrap();
    let error = encode(&facts(8), journal.durable()).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::NotDurable {
                facts: 8,
                durable: 7
            }
        ),
        "{error}"
    );
    journal.sync().unwrap();
    assert!(encode(&facts(8), journal.durable()).is_ok());
}

#[test]
fn a_full_disk_keeps_the_former_checkpoint() {
    let (disk, journal) = story();
    let former = disk.bytes(&dir().checkpoint());
    disk.limit_room(Some(100));
    let bytes = encode(&facts(7), journal.durable()).unwrap();
    assert!(matches!(
        write(&disk, &dir(), &bytes),
        Err(StoreError::Full { .. })
    ));
    assert_eq!(disk.bytes(&dir().checkpoint()), former);
    assert_eq!(seqs(&read(&disk).unwrap().entries), [5, 6, 7]);
}

#[test]
fn checkpoints_never_write_more_than_the_journal() {
    for size in [1_u64, 1_000, 300_000, 30_000_000] {
        let (mut journal, mut checkpoints, mut since) = (0_u64, 0_u64, 0_u64);
        for _ in 0..200_000 {
            journal += 700;
            since += 700;
            if due(since, size) {
                checkpoints += size;
                since = 0;
            }
        }
        assert!(checkpoints <= journal, "{size}: {checkpoints} of {journal}");
        assert!(
            since < size.max(256 * 1024) + 700,
            "a reader's tail stays small"
        );
        assert!(checkpoints > 0);
    }
}
