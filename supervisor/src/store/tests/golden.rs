//! Files as released: this release reads them and writes the same bytes. Never edited once a
//! release has written them; a new version gets a folder of its own beside this one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use protocol::ids::{Generation, QuestionId};
use supervisor_core::plan::{AccountIx, RepoIx, TaskIx};
use supervisor_core::record::{AttemptEnded, Record};
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use supervisor_core::time::Wall;

use super::arbitrary::{Any, Choices};
use super::sample;
use crate::store::format::{read_checkpoint, read_line, write_checkpoint, write_line};
use crate::store::seal;
use crate::store::{Check, Position, RealDisk, StateDir, load, open_for_append};

fn golden(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/store-v1");
    PathBuf::from(folder).join(name)
}

/// The golden bytes. Where a file is missing it is made, and the test fails all the same: a person
/// looks at it and adds it.
fn released(name: &str, made_now: &[u8]) -> Vec<u8> {
    let path = golden(name);
    std::fs::read(&path).unwrap_or_else(|_| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made_now).unwrap();
        panic!(
            "{} was missing and has been made: look at it, then add it",
            path.display()
        );
    })
}

fn records_as_written() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (record, seq) in sample::records().into_iter().zip(1..) {
        write_line(
            &mut bytes,
            &sample::entry(seq, record),
            1,
            sample::RECORDS as u64 - seq,
        );
    }
    bytes
}

const AT: Position = Position {
    seq: sample::RECORDS as u64,
    segment: 1,
    offset: 9_876,
};

#[test]
fn records_are_written_as_they_were_released() {
    let written = records_as_written();
    let released = released("records.jsonl", &written);
    let lines = released
        .split(|b| *b == b'\n')
        .zip(written.split(|b| *b == b'\n'));
    for (released, written) in lines {
        let shown = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(shown(written), shown(released));
    }
    assert_eq!(written.len(), released.len());
}

#[test]
fn released_records_are_read() {
    let released = released("records.jsonl", &records_as_written());
    let mut names = BTreeSet::new();
    let lines: Vec<&[u8]> = released.split(|b| *b == b'\n').collect();
    let (end, lines) = lines.split_last().unwrap();
    assert!(end.is_empty());
    for (line, record) in lines.iter().zip(sample::records()) {
        assert_eq!(seal::check(line), Ok(()));
        let entry = read_line(line).unwrap();
        assert_eq!(entry.record, record);
        names.insert(sample::name(&record));
    }
    assert_eq!(names.len(), sample::RECORDS, "a line for every record");
    assert_eq!(lines.len(), sample::RECORDS);
}

#[test]
fn a_checkpoint_is_written_and_read_as_it_was_released() {
    let written = write_checkpoint(&sample::facts(sample::RECORDS as u64), AT, 0);
    let released = released("checkpoint.json", &written);
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(shown(&written), shown(&released));
    let line = released.strip_suffix(b"\n").unwrap();
    assert_eq!(seal::check(line), Ok(()));
    let (facts, at) = read_checkpoint(line).unwrap();
    assert_eq!(facts, sample::facts(sample::RECORDS as u64));
    assert_eq!(at, AT);
}

/// Every purpose in turn.
fn purpose(byte: u8) -> Purpose {
    let steps = Step::ALL.iter().copied().map(Purpose::Step);
    let stages = Stage::ALL
        .iter()
        .map(|stage| Purpose::Merge(RepoIx(0), *stage));
    let cleans = CleanStep::ALL.iter().copied().map(Purpose::Clean);
    let comments = [
        CommentOn::Failed,
        CommentOn::Done,
        CommentOn::Question(QuestionId(0)),
    ];
    let comments = comments.map(Purpose::Comment);
    let all: Vec<Purpose> = steps.chain(stages).chain(cleans).chain(comments).collect();
    all[usize::from(byte) % all.len()]
}

/// Records that differ in one word each, over every word there is.
fn worded(byte: u8) -> [Record; 12] {
    fn any<T: Any>(byte: u8) -> T {
        T::any(&mut Choices::of(vec![byte]))
    }
    let (task, generation, repo) = (TaskIx(0), Generation(0), RepoIx(0));
    [
        Record::TaskMoved {
            task,
            to: any(byte),
            reason: any(byte),
            next_check: Some(any(byte)),
        },
        Record::BatchMoved {
            to: any(byte),
            reason: any(byte),
        },
        Record::AccountMoved {
            account: AccountIx(0),
            to: any(byte),
            reason: any(byte),
            until: None,
        },
        Record::RunEnded {
            generation,
            exit: any(byte),
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
            footprint: Default::default(),
        },
        Record::StopDecided {
            generation,
            reason: any(byte),
            grace: any(0),
        },
        Record::RunReconciled {
            generation,
            letter: any(byte),
            cleared: supervisor_core::containment::Cleared::CLEAN,
        },
        Record::AttemptEnded(AttemptEnded {
            class: Some(any(byte)),
            next: any(byte),
            ..any(0)
        }),
        Record::Reopened {
            task,
            mode: any(byte),
            attempts: None,
        },
        Record::MessageMoved {
            id: any(0),
            to: any(byte),
            generation: None,
        },
        Record::RunIntended {
            generation,
            task,
            purpose: purpose(byte),
            token: 0,
        },
        Record::RoundBegan {
            repo,
            stage: any(byte),
            tasks: Vec::new(),
        },
        Record::MergeMoved {
            task,
            to: any(byte),
            merged: None,
            detail: "".into(),
        },
    ]
}

/// A new word adds a line; a line that changes or goes is a journal that can not be read any more.
#[test]
fn every_word_is_written_as_it_was_released() {
    let mut words = BTreeSet::new();
    for record in (0..=u8::MAX).flat_map(worded) {
        let name = sample::name(&record);
        let mut line = Vec::new();
        write_line(&mut line, &sample::entry(1, record), 1, 0);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        for (field, word) in value["record"][name].as_object().unwrap() {
            words.insert(format!("{name}.{field} {word}\n"));
        }
    }
    let written: String = words.into_iter().collect();
    let released = released("words.txt", written.as_bytes());
    assert_eq!(written, String::from_utf8(released).unwrap());
}

#[test]
fn a_state_dir_of_the_released_version_is_read_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::at(folder.path().join("b"));
    dir.create(&RealDisk).unwrap();
    let journal = released("records.jsonl", &records_as_written());
    std::fs::write(dir.segment(1), &journal).unwrap();
    let (mut opened, loaded) = open_for_append(Arc::new(RealDisk), &dir, Wall(1)).unwrap();
    let records: Vec<Record> = loaded.entries.into_iter().map(|one| one.record).collect();
    assert_eq!(records, sample::records());
    assert_eq!(
        std::fs::read(dir.segment(1)).unwrap(),
        journal,
        "opening changes no byte"
    );
    opened
        .append(&sample::entries(sample::RECORDS as u64 + 1, 2))
        .unwrap();
    opened.sync().unwrap();
    let loaded = load(&RealDisk, &dir, Check::Whole).unwrap();
    let count = sample::RECORDS + 2;
    assert_eq!(
        (loaded.entries.len(), loaded.end.seq),
        (count, count as u64)
    );
}
