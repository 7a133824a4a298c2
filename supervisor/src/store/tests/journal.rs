//! What is appended is read back, in order, over segments and restarts; what does not belong is
//! refused.

use super::sample::{entries, entry};
use super::{dir, fresh, open, read, segment, seqs, write_groups};
use crate::store::load::replay;
use crate::store::{Check, Position, StoreError, load};
use supervisor_core::record::Record;

fn line_values(bytes: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn column(bytes: &[u8], name: &str) -> Vec<u64> {
    line_values(bytes)
        .iter()
        .map(|value| value[name].as_u64().unwrap())
        .collect()
}

#[test]
fn a_new_batch_has_no_records() {
    let (disk, _) = fresh();
    let (journal, loaded) = open(&disk).unwrap();
    assert_eq!(journal.durable(), Position::default());
    assert!(loaded.entries.is_empty() && loaded.checkpoint.is_none() && loaded.torn.is_none());
}

#[test]
fn records_come_back_in_order() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let all = entries(1, 6);
    write_groups(&mut journal, &[&all[..2], &all[2..3], &all[3..]]);
    let loaded = read(&disk).unwrap();
    assert_eq!(loaded.entries, all);
    assert_eq!(loaded.end, journal.durable());
    assert_eq!(loaded.tail_bytes, loaded.end.offset);
}

#[test]
fn a_group_is_named_by_its_first_record_and_a_write_counts_down() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let all = entries(1, 6);
    journal.append(&all[..2]).unwrap();
    journal.append(&all[2..3]).unwrap();
    journal.sync().unwrap();
    write_groups(&mut journal, &[&all[3..]]);
    let bytes = disk.bytes(&segment(1));
    assert_eq!(column(&bytes, "group"), [1, 1, 1, 4, 4, 4]);
    assert_eq!(column(&bytes, "left"), [1, 0, 0, 2, 1, 0]);
}

#[test]
fn the_journal_goes_on_after_a_restart() {
    let (disk, _) = fresh();
    let all = entries(1, 9);
    for chunk in all.chunks(3) {
        let (mut journal, loaded) = open(&disk).unwrap();
        assert_eq!(loaded.entries, all[..chunk[0].seq as usize - 1]);
        write_groups(&mut journal, &[chunk]);
    }
    assert_eq!(read(&disk).unwrap().entries, all);
    assert_eq!(
        column(&disk.bytes(&segment(1)), "group"),
        [1, 1, 1, 4, 4, 4, 7, 7, 7]
    );
}

#[test]
fn append_says_how_many_bytes_it_wrote() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let bytes = journal.append(&entries(1, 3)).unwrap();
    assert_eq!(bytes, disk.bytes(&segment(1)).len() as u64);
    assert_eq!(journal.append(&[]).unwrap(), 0);
}

#[test]
fn a_sync_without_anything_new_touches_no_disk() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 1)]);
    let before = disk.changes();
    assert_eq!(journal.sync().unwrap().seq, 1);
    assert_eq!(disk.changes(), before);
}

#[test]
fn a_group_costs_one_write_and_one_sync() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 1)]);
    let before = disk.changes();
    write_groups(&mut journal, &[&entries(2, 50)]);
    assert_eq!(disk.changes() - before, 2);
}

#[test]
fn segments_are_closed_between_groups_only() {
    let (disk, _) = fresh();
    let (journal, _) = open(&disk).unwrap();
    let mut journal = journal.with_segment_max(1);
    let all = entries(1, 5);
    journal.append(&all[..1]).unwrap();
    journal.append(&all[1..2]).unwrap();
    journal.sync().unwrap();
    write_groups(&mut journal, &[&all[2..3], &all[3..]]);
    assert_eq!(column(&disk.bytes(&segment(1)), "seq"), [1, 2]);
    assert_eq!(column(&disk.bytes(&segment(2)), "seq"), [3]);
    assert_eq!(column(&disk.bytes(&segment(3)), "seq"), [4, 5]);
    assert_eq!(read(&disk).unwrap().entries, all);
    assert_eq!(journal.durable().segment, 3);
}

#[test]
fn an_empty_last_segment_is_written_next() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 2)]);
    disk.set(&segment(2), b"");
    let (mut journal, loaded) = open(&disk).unwrap();
    assert_eq!(seqs(&loaded.entries), [1, 2]);
    assert!(loaded.torn.is_none());
    assert_eq!(
        loaded.end.segment, 1,
        "the last record ends in the first segment"
    );
    write_groups(&mut journal, &[&entries(3, 1)]);
    assert_eq!(column(&disk.bytes(&segment(2)), "seq"), [3]);
    assert_eq!(seqs(&read(&disk).unwrap().entries), [1, 2, 3]);
}

#[test]
fn an_empty_segment_before_the_last_is_unreadable() {
    let (disk, _) = fresh();
    let (journal, _) = open(&disk).unwrap();
    let mut journal = journal.with_segment_max(1);
    write_groups(&mut journal, &[&entries(1, 1), &entries(2, 1)]);
    disk.set(&segment(1), b"");
    let error = read(&disk).unwrap_err();
    assert!(error.is_unreadable(), "{error}");
    assert!(error.to_string().contains("000001.jsonl"), "{error}");
}

#[test]
fn a_missing_segment_is_unreadable_and_named() {
    for missing in [1, 2] {
        let (disk, _) = fresh();
        let (journal, _) = open(&disk).unwrap();
        let mut journal = journal.with_segment_max(1);
        write_groups(
            &mut journal,
            &[&entries(1, 1), &entries(2, 1), &entries(3, 1)],
        );
        disk.forget(&segment(missing));
        let before = disk.picture();
        let error = open(&disk).unwrap_err();
        assert!(error.is_unreadable(), "{error}");
        assert!(
            error.to_string().contains(&format!("00000{missing}.jsonl")),
            "{error}"
        );
        assert_eq!(disk.picture(), before);
    }
}

#[test]
fn files_that_are_not_segments_are_left_alone() {
    let (disk, dir) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 1)]);
    for name in [
        "notes.txt",
        "7.jsonl",
        "00000x.jsonl",
        "torn-1-2.bin",
        "000009.jsonl.new",
    ] {
        disk.set(&dir.journal().join(name), b"not ours");
    }
    assert_eq!(seqs(&read(&disk).unwrap().entries), [1]);
}

#[test]
fn a_record_with_the_wrong_number_is_refused() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 2)]);
    let before = disk.picture();
    let mut gap = entries(3, 2);
    gap[1].seq = 5;
    for wrong in [entries(2, 1), entries(4, 1), gap] {
        let error = journal.append(&wrong).unwrap_err();
        assert!(
            matches!(error, StoreError::OutOfOrder { last: 2 | 3, .. }),
            "{error}"
        );
    }
    assert_eq!(disk.picture(), before);
    write_groups(&mut journal, &[&entries(3, 1)]);
}

#[test]
fn the_term_of_a_replaced_supervisor_is_refused() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let mut newer = entries(1, 1);
    newer[0].term = 5;
    write_groups(&mut journal, &[&newer]);
    let error = journal.append(&entries(2, 1)).unwrap_err();
    assert!(matches!(
        error,
        StoreError::OutOfOrder {
            last_term: 5,
            found_term: 1,
            ..
        }
    ));
    let (mut journal, _) = open(&disk).unwrap();
    assert!(
        journal.append(&entries(2, 1)).is_err(),
        "also after a restart"
    );
}

#[test]
fn numbers_out_of_order_on_disk_are_unreadable() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(
        &mut journal,
        &[&entries(1, 1), &entries(2, 1), &entries(3, 1)],
    );
    let bytes = disk.bytes(&segment(1));
    let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
    for order in [vec![0, 2], vec![0, 1, 1, 2], vec![1, 2], vec![0, 2, 1]] {
        let shuffled: Vec<u8> = order.iter().flat_map(|at| lines[*at].to_vec()).collect();
        disk.set(&segment(1), &shuffled);
        let error = open(&disk).unwrap_err();
        assert!(error.is_unreadable(), "{order:?}: {error}");
        assert_eq!(disk.bytes(&segment(1)), shuffled);
    }
}

#[test]
fn a_write_that_lost_its_middle_is_unreadable() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 3), &entries(4, 1)]);
    let text = String::from_utf8(disk.bytes(&segment(1))).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    disk.set(
        &segment(1),
        format!("{}\n{}\n{}\n", lines[0], lines[2], lines[3]).as_bytes(),
    );
    assert!(read(&disk).unwrap_err().is_unreadable());
}

#[test]
fn a_large_record_is_one_line_like_any_other() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let text = "line\n\"quoted\" \u{0}".repeat(50_000);
    let large = entry(
        1,
        Record::SupervisorStarted {
            term: 1,
            identity: super::sample::identity(),
            guardian: None,
            build: text.into(),
        },
    );
    write_groups(
        &mut journal,
        &[std::slice::from_ref(&large), &entries(2, 1)],
    );
    let loaded = read(&disk).unwrap();
    assert_eq!(loaded.entries[0], large);
    assert_eq!(loaded.entries.len(), 2);
}

#[test]
fn replay_tells_every_record_whatever_the_checkpoint_says() {
    let (disk, dir) = fresh();
    let (journal, _) = open(&disk).unwrap();
    let mut journal = journal.with_segment_max(1);
    write_groups(&mut journal, &[&entries(1, 2), &entries(3, 2)]);
    disk.set(&dir.checkpoint(), b"garbage");
    let mut found = Vec::new();
    let mut each = |entry| {
        found.push(entry);
        Ok(())
    };
    assert!(replay(&disk, &dir, &mut each).unwrap().is_none());
    assert_eq!(found, entries(1, 4));
}

#[test]
fn a_replay_tells_nothing_of_a_write_that_is_not_whole() {
    let (disk, dir) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 2), &entries(3, 3)]);
    let whole = disk.bytes(&segment(1));
    disk.set(&segment(1), &whole[..whole.len() - 1]);
    let mut found = Vec::new();
    let mut each = |entry| {
        found.push(entry);
        Ok(())
    };
    let torn = replay(&disk, &dir, &mut each).unwrap().unwrap();
    assert_eq!(found, entries(1, 2));
    assert!(torn.bytes > 0 && torn.kept.is_none());
}

#[test]
fn what_the_reader_of_a_replay_refuses_ends_it() {
    let (disk, dir) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 4)]);
    let mut told = 0;
    let outcome = replay(&disk, &dir, &mut |_| {
        told += 1;
        match told {
            2 => Err(StoreError::NoHome),
            _ => Ok(()),
        }
    });
    assert!(matches!(outcome, Err(StoreError::NoHome)));
    assert_eq!(told, 2);
}

#[test]
fn reading_changes_nothing() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 2), &entries(3, 2)]);
    let torn = disk.bytes(&segment(1)).len() - 5;
    disk.set(&segment(1), &disk.bytes(&segment(1))[..torn]);
    let (before, changes, opened) = (disk.picture(), disk.changes(), disk.opened());
    for check in [Check::Whole, Check::Tail] {
        let loaded = load(&disk, &dir(), check).unwrap();
        assert_eq!(seqs(&loaded.entries), [1, 2]);
        assert!(loaded.torn.unwrap().kept.is_none());
    }
    assert_eq!((disk.picture(), disk.changes()), (before, changes));
    assert_eq!(disk.opened(), opened, "nothing was opened to be written");
}
