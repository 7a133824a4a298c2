//! Whatever the core can say comes back as it was, and nothing else is taken in.

use proptest::prelude::*;

use supervisor_core::facts::Facts;
use supervisor_core::record::{Entry, Record};

use super::arbitrary::{Any, Choices};
use super::sample;
use crate::store::Position;
use crate::store::format::{
    Head, read_checkpoint, read_head, read_line, write_checkpoint, write_line,
};
use crate::store::seal;

fn line(entry: &Entry, group: u64, left: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_line(&mut bytes, entry, group, left);
    assert_eq!(bytes.pop(), Some(b'\n'));
    assert!(!bytes.contains(&b'\n'), "a line is one line");
    bytes
}

fn text(entry: &Entry) -> String {
    String::from_utf8(line(entry, 1, 0)).unwrap()
}

proptest! {
    #[test]
    fn any_record_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let entry = Entry::any(&mut Choices::of(bytes));
        let line = line(&entry, 7, 3);
        prop_assert_eq!(seal::check(&line), Ok(()));
        let head = Head { seq: entry.seq, term: entry.term, group: 7, left: 3 };
        prop_assert_eq!(read_head(&line), Some(head));
        prop_assert_eq!(read_line(&line).unwrap(), entry);
    }

    #[test]
    fn any_state_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let facts = Facts::any(&mut Choices::of(bytes));
        let at = Position { seq: facts.batch.seq, segment: 3, offset: 99 };
        let mut line = write_checkpoint(&facts, at, 0);
        line.pop();
        prop_assert_eq!(seal::check(&line), Ok(()));
        let (read, read_at) = read_checkpoint(&line).unwrap();
        prop_assert_eq!(read, facts);
        prop_assert_eq!(read_at, at);
    }

    #[test]
    fn no_line_holds_the_beginning_of_another(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let entry = Entry::any(&mut Choices::of(bytes));
        let begins: Vec<usize> = seal::beginnings(&line(&entry, 1, 0)).collect();
        prop_assert_eq!(begins, vec![0]);
    }
}

#[test]
fn any_reaches_every_variant() {
    let mut seen = std::collections::BTreeSet::new();
    for byte in 0..=u8::MAX {
        seen.insert(sample::name(&Record::any(&mut Choices::of(vec![byte]))));
    }
    assert_eq!(seen.len(), sample::RECORDS);
}

#[test]
fn a_line_reads_well_with_plain_tools() {
    let moved = sample::entries(7, 1).remove(0);
    let value: serde_json::Value = serde_json::from_str(&text(&moved)).unwrap();
    assert_eq!(value["v"], 1);
    assert_eq!(value["seq"], 7);
    assert_eq!(value["record"]["task_moved"]["to"], "ready");
    assert_eq!(value["record"]["task_moved"]["reason"], "lane");
    assert_eq!(value["record"]["task_moved"]["next_check"]["boot"], 70);
    assert_eq!(value["now"]["boot_id"], "0123456789abcdef0123456789abcdef");
}

/// Each change to the text of a good line must be refused by the reader of records.
#[track_caller]
fn refused(from: &str, to: &str, why: &str) {
    let good = text(&sample::entries(7, 1).remove(0));
    let bad = good.replacen(from, to, 1);
    assert_ne!(bad, good, "the line holds no {from}");
    let error = read_line(bad.as_bytes()).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn an_unknown_record_is_an_error() {
    refused(
        "task_moved",
        "task_exploded",
        "unknown variant `task_exploded`",
    );
}

#[test]
fn an_unknown_field_is_an_error() {
    refused(
        r#""to":"ready""#,
        r#""colour":1,"to":"ready""#,
        "unknown field `colour`",
    );
    refused(
        r#","now""#,
        r#","colour":1,"now""#,
        "unknown field `colour`",
    );
}

#[test]
fn an_unknown_word_is_an_error() {
    refused(r#""ready""#, r#""steady""#, "`steady` is not a task state");
    refused(r#""lane""#, r#""alley""#, "unknown variant `alley`");
}

#[test]
fn a_missing_field_is_an_error() {
    refused(r#""to":"ready","#, "", "missing field `to`");
    refused(r#""task":7,"#, "", "missing field `task`");
}

#[test]
fn a_number_out_of_range_is_an_error() {
    refused(r#""task":7"#, r#""task":4294967296"#, "expected u32");
    refused(r#""boot":70"#, r#""boot":-1"#, "expected u64");
    refused("0123456789abcdef", "+123456789abcdef", "32 hex digits");
    refused("0123456789abcdef", "123456789abcdef", "32 hex digits");
}

#[test]
fn an_error_repeats_a_long_word_only_in_part() {
    let long = "x".repeat(10_000);
    let good = text(&sample::entries(7, 1).remove(0));
    let bad = good.replacen("\"ready\"", &format!("\"{long}\""), 1);
    let error = read_line(bad.as_bytes()).unwrap_err().to_string();
    assert!(error.len() < 200, "{error}");
}

#[test]
fn a_task_at_its_start_takes_little_room() {
    let facts = sample::facts(1);
    let with_task = write_checkpoint(&facts, Position::default(), 0).len();
    let mut without = facts.clone();
    without.tasks.remove(0);
    let without_task = write_checkpoint(&without, Position::default(), 0).len();
    assert!(
        with_task - without_task <= 120,
        "{}",
        with_task - without_task
    );
}
