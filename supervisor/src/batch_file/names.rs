//! Names that the operator chooses, and the rules for them.

use std::sync::Arc;

use protocol::ids::TaskId;
use serde::Serialize;

use super::decode::At;
use super::error::{Place, Sink};
use super::scalars::{ListOrNone, Text};
use super::tree::shown;

/// Longest name of a batch: leaves room for time stamp and random part in the batch id.
const BATCH_NAME_MAX: usize = 64;

/// A name for agents and accounts: the same rule as for task ids.
pub(super) fn check_word(name: &str, what: &str, place: Place, sink: &mut Sink) {
    if name.parse::<TaskId>().is_err() {
        let message = format!("`{}` can not be {what}", shown(name));
        let help =
            "use letters, digits, `.`, `_`, `-`, at most 64, beginning with a letter or digit";
        sink.report(place, message, help);
    }
}

/// A name of an environment variable that the operator may set.
pub(super) fn check_env_name(name: &str, place: Place, sink: &mut Sink) {
    if !is_identifier(name) {
        let message = format!("`{}` can not be an environment variable", shown(name));
        sink.report(
            place,
            message,
            "use letters, digits and `_`, not beginning with a digit",
        );
    } else if name.starts_with("SUPERVISOR_") {
        let message = format!("`{}` is set by the supervisor itself", shown(name));
        sink.report(
            place,
            message,
            "choose a name that does not begin with `SUPERVISOR_`",
        );
    }
}

/// A name of a template variable.
pub(super) fn check_variable(name: &str, place: Place, sink: &mut Sink) {
    if !is_identifier(name) {
        let message = format!("`{}` can not be a variable's name", shown(name));
        sink.report(
            place,
            message,
            "use letters, digits and `_`, not beginning with a digit",
        );
    }
}

fn is_identifier(name: &str) -> bool {
    let first = name.bytes().next();
    let rest = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first.is_some_and(|byte| !byte.is_ascii_digit()) && rest
}

/// The names of an `env_from` list, checked.
pub(super) fn env_names(list: Option<&At<ListOrNone<Text>>>, sink: &mut Sink) -> Vec<String> {
    let mut names = Vec::new();
    for name in list.iter().flat_map(|list| &list.value.0) {
        check_env_name(&name.value.text, name.place, sink);
        names.push(name.value.text.clone());
    }
    names
}

/// Whether a text is a batch's name: `[a-z0-9-]`, beginning with a letter or digit.
pub(super) fn is_batch_name(name: &str) -> bool {
    let rule = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let length = (1..=BATCH_NAME_MAX).contains(&name.len());
    length && name.bytes().all(rule) && !name.starts_with('-')
}

/// A batch's name from a file's stem.
pub(super) fn batch_name_of(stem: &str) -> String {
    let letters = stem.chars().map(|letter| {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
            letter
        } else {
            '-'
        }
    });
    let name: String = letters.take(BATCH_NAME_MAX).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "batch".to_owned()
    } else {
        name.to_owned()
    }
}

/// A work type as the JSON text that the plan carries.
pub(super) fn json_text<T: Serialize>(work: &T) -> Arc<str> {
    #[expect(
        clippy::expect_used,
        reason = "work types hold texts, numbers and maps with text keys only: always JSON"
    )]
    let text = serde_json::to_string(work).expect("work types are JSON");
    text.into()
}
