//! I9: damage in the last commit group is a torn tail, cut and kept; damage anywhere else stops
//! everything and changes nothing.

use super::disk::{BLOCK, MemDisk};
use super::sample::entries;
use super::{fresh, open, read, segment, seqs, write_groups};
use crate::store::{Loaded, StoreError};

/// A journal of the groups 1-2, 3-5, 6 (of one record) and, last, 7-9 and 10-14 in two writes.
struct Story {
    disk: MemDisk,
    bytes: Vec<u8>,
    /// Where the last group begins.
    last_group: usize,
    /// Where its second write begins.
    second_write: usize,
}

fn story() -> Story {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let all = entries(1, 14);
    write_groups(&mut journal, &[&all[..2], &all[2..5], &all[5..6]]);
    let last_group = disk.bytes(&segment(1)).len();
    journal.append(&all[6..9]).unwrap();
    let second_write = disk.bytes(&segment(1)).len();
    journal.append(&all[9..]).unwrap();
    journal.sync().unwrap();
    Story {
        bytes: disk.bytes(&segment(1)),
        disk,
        last_group,
        second_write,
    }
}

/// Opens the damaged journal, which must cut it after record `last`, keep the cut bytes, report
/// them, and go on.
#[track_caller]
fn cut_after(story: &Story, damaged: &[u8], last: u64, cut_at: usize) {
    let disk = &story.disk;
    disk.set(&segment(1), damaged);
    assert_eq!(disk.bytes(&segment(1)), damaged);
    let seen = read(disk).unwrap();
    assert_eq!(seen.entries, entries(1, last));
    assert_eq!(disk.bytes(&segment(1)), damaged, "reading cuts nothing");
    let (mut journal, loaded) = open(disk).unwrap();
    assert_eq!(loaded.entries, entries(1, last));
    assert_eq!(disk.bytes(&segment(1)), story.bytes[..cut_at]);
    match loaded.torn {
        Some(torn) => {
            assert_eq!(torn.offset, cut_at as u64);
            assert_eq!(torn.bytes, (damaged.len() - cut_at) as u64);
            assert_eq!(disk.bytes(&torn.kept.unwrap()), damaged[cut_at..]);
        }
        None => assert_eq!(damaged.len(), cut_at, "bytes were lost without a word"),
    }
    write_groups(&mut journal, &[&entries(last + 1, 3)]);
    assert_eq!(
        seqs(&read(disk).unwrap().entries),
        (1..=last + 3).collect::<Vec<_>>()
    );
}

/// Opens the damaged journal, which must refuse it and change nothing.
#[track_caller]
fn stops(disk: &MemDisk, damaged: &[u8]) -> StoreError {
    disk.set(&segment(1), damaged);
    let (before, changes) = (disk.picture(), disk.changes());
    let seen = read(disk).unwrap_err();
    let error = open(disk)
        .map(|(_, loaded): (_, Loaded)| loaded.entries.len())
        .unwrap_err();
    assert_eq!(seen.to_string(), error.to_string());
    assert!(error.is_unreadable(), "{error}");
    assert_eq!(
        (disk.picture(), disk.changes()),
        (before, changes),
        "{error}"
    );
    error
}

#[test]
fn the_last_group_cut_at_any_byte_is_a_torn_tail() {
    let story = story();
    for len in story.last_group..story.bytes.len() {
        let (last, cut_at) = match len {
            _ if len >= story.second_write => (9, story.second_write),
            _ => (6, story.last_group),
        };
        cut_after(&story, &story.bytes[..len], last, cut_at);
    }
}

#[test]
fn any_lost_block_of_the_last_group_is_a_torn_tail() {
    let story = story();
    let blocks = (story.last_group..story.bytes.len()).step_by(64);
    for (at, fill) in blocks.flat_map(|at| [(at, 0), (at, 0xff), (at, b'\n'), (at, b'{')]) {
        let mut damaged = story.bytes.clone();
        let end = (at + BLOCK).min(damaged.len());
        damaged[at..end].fill(fill);
        if at >= story.second_write {
            cut_after(&story, &damaged, 9, story.second_write);
        } else {
            cut_after(&story, &damaged, 6, story.last_group);
        }
    }
}

#[test]
fn blocks_of_the_last_group_may_land_in_any_order() {
    let story = story();
    let count = (story.bytes.len() - story.last_group).div_ceil(BLOCK);
    for landed in 0..(1_u32 << count) - 1 {
        let mut damaged = story.bytes.clone();
        for block in (0..count).filter(|block| landed & (1 << block) == 0) {
            let at = story.last_group + block * BLOCK;
            let end = (at + BLOCK).min(damaged.len());
            damaged[at..end].fill(0);
        }
        let whole = damaged[..story.second_write] == story.bytes[..story.second_write];
        let (last, cut_at) = match whole {
            true => (9, story.second_write),
            false => (6, story.last_group),
        };
        cut_after(&story, &damaged, last, cut_at);
    }
}

#[test]
fn every_flipped_byte_of_an_earlier_group_stops_everything() {
    let story = story();
    for at in 0..story.last_group {
        for flip in [0x01, 0x20, 0xff] {
            let mut damaged = story.bytes.clone();
            damaged[at] ^= flip;
            stops(&story.disk, &damaged);
        }
    }
}

#[test]
fn every_flipped_byte_of_the_group_before_a_last_group_of_one_record_stops_everything() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    let all = entries(1, 3);
    write_groups(&mut journal, &[&all[..1], &all[1..2]]);
    let last_group = disk.bytes(&segment(1)).len();
    write_groups(&mut journal, &[&all[2..]]);
    let bytes = disk.bytes(&segment(1));
    for at in 0..last_group {
        for flip in [0x01, 0x20, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            stops(&disk, &damaged);
        }
    }
}

#[test]
fn a_lost_block_of_an_earlier_group_stops_everything() {
    let story = story();
    for at in (0..story.last_group - 1).step_by(64) {
        let mut damaged = story.bytes.clone();
        damaged[at..(at + BLOCK).min(story.last_group)].fill(0);
        let error = stops(&story.disk, &damaged);
        assert!(
            error.to_string().contains("of a later group follows"),
            "{error}"
        );
    }
}

#[test]
fn a_torn_tail_cut_twice_is_the_same_as_once() {
    let story = story();
    story
        .disk
        .set(&segment(1), &story.bytes[..story.bytes.len() - 1]);
    let (_, first) = open(&story.disk).unwrap();
    let (_, second) = open(&story.disk).unwrap();
    assert!(first.torn.is_some() && second.torn.is_none());
    assert_eq!(first.entries, second.entries);
}

#[test]
fn garbage_behind_the_last_group_is_a_torn_tail() {
    let story = story();
    for garbage in [&b"\0"[..], b"\n", b"{\"v\":1", b"{}\n{}\n", &[0; 3 * BLOCK]] {
        let damaged = [&story.bytes, garbage].concat();
        cut_after(&story, &damaged, 14, story.bytes.len());
    }
}

#[test]
fn a_whole_journal_of_garbage_is_a_torn_tail_of_its_first_group() {
    let (disk, _) = fresh();
    disk.set(&segment(1), &[0; 700]);
    let (mut journal, loaded) = open(&disk).unwrap();
    let torn = loaded.torn.unwrap();
    assert_eq!((torn.offset, torn.bytes), (0, 700));
    write_groups(&mut journal, &[&entries(1, 2)]);
    assert_eq!(seqs(&read(&disk).unwrap().entries), [1, 2]);
}

#[test]
fn a_newer_version_anywhere_stops_everything() {
    let story = story();
    let text = String::from_utf8(story.bytes.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for newer in 0..lines.len() {
        let mut edited: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        edited[newer] = edited[newer].replacen("\"v\":1", "\"v\":2", 1);
        let error = stops(&story.disk, (edited.join("\n") + "\n").as_bytes());
        let named = matches!(
            error,
            StoreError::Newer {
                found: 2,
                known: 1,
                ..
            }
        );
        assert!(named, "line {newer}: {error}");
    }
}

#[test]
fn a_newer_version_behind_a_torn_place_stops_everything() {
    let story = story();
    let mut damaged = story.bytes.clone();
    damaged[story.second_write] = 0;
    let text = String::from_utf8(damaged).unwrap();
    let at = text.rfind("\"v\":1").unwrap();
    let edited = format!("{}\"v\":2{}", &text[..at], &text[at + 5..]);
    let error = stops(&story.disk, edited.as_bytes());
    assert!(
        matches!(error, StoreError::Newer { found: 2, .. }),
        "{error}"
    );
}

#[test]
fn a_record_that_this_release_can_not_read_stops_everything() {
    let (disk, _) = fresh();
    let (mut journal, _) = open(&disk).unwrap();
    write_groups(&mut journal, &[&entries(1, 1)]);
    let text = String::from_utf8(disk.bytes(&segment(1))).unwrap();
    let unknown = text.replacen("task_moved", "task_vanish", 1);
    let sum =
        crc32fast::hash(format!("{}{}", &unknown[..14], &unknown.trim_end()[22..]).as_bytes());
    let sealed = format!("{}{sum:08x}{}", &unknown[..14], &unknown[22..]);
    let error = stops(&disk, sealed.as_bytes());
    assert!(
        error.to_string().contains("unknown variant `task_vanish`"),
        "{error}"
    );
}

#[test]
fn the_end_of_a_segment_that_another_follows_is_never_torn() {
    let (disk, _) = fresh();
    let (journal, _) = open(&disk).unwrap();
    let mut journal = journal.with_segment_max(1);
    write_groups(&mut journal, &[&entries(1, 2), &entries(3, 1)]);
    let bytes = disk.bytes(&segment(1));
    for len in 1..bytes.len() {
        stops(&disk, &bytes[..len]);
    }
    disk.set(&segment(2), b"");
    for len in 1..bytes.len() {
        stops(&disk, &bytes[..len]);
    }
}

#[test]
fn the_first_group_of_a_new_segment_may_be_torn() {
    let (disk, _) = fresh();
    let (journal, _) = open(&disk).unwrap();
    let mut journal = journal.with_segment_max(1);
    write_groups(&mut journal, &[&entries(1, 2), &entries(3, 2)]);
    let bytes = disk.bytes(&segment(2));
    for len in 0..bytes.len() {
        disk.set(&segment(2), &bytes[..len]);
        let (mut journal, loaded) = open(&disk).unwrap();
        assert_eq!(seqs(&loaded.entries), [1, 2]);
        assert_eq!(loaded.torn.map(|torn| torn.bytes).unwrap_or(0), len as u64);
        assert_eq!(disk.bytes(&segment(2)), b"");
        write_groups(&mut journal, &[&entries(3, 1)]);
        assert_eq!(seqs(&read(&disk).unwrap().entries), [1, 2, 3]);
    }
}

#[test]
fn a_torn_tail_is_cut_on_a_full_disk_too() {
    let story = story();
    let (journal, _) = open(&story.disk).unwrap();
    assert!(journal.ensure_reserve().unwrap());
    story
        .disk
        .set(&segment(1), &story.bytes[..story.bytes.len() - 1]);
    story.disk.limit_room(Some(0));
    let (_, loaded) = open(&story.disk).unwrap();
    assert_eq!(seqs(&loaded.entries), (1..=9).collect::<Vec<_>>());
    let kept = loaded.torn.unwrap().kept.unwrap();
    assert_eq!(
        story.disk.bytes(&kept),
        story.bytes[story.second_write..story.bytes.len() - 1]
    );
}
