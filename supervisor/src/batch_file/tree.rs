//! The tree of a YAML text, in which every node knows its place.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::{Number, Value as Json};

use super::error::Place;

/// Largest file read, bytes (64 MiB: a million small tasks).
pub(super) const FILE_MAX: usize = 64 << 20;

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    /// Where it begins.
    pub(super) place: Place,
    /// What it is.
    pub(super) value: Value<'a>,
}

/// What a node is, as it was read.
#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    /// A single value.
    Scalar(Scalar<'a>),
    /// Values in order.
    List(Vec<Node<'a>>),
    /// Keys and values in order; no key twice.
    Map(Vec<Entry<'a>>),
    /// An anchored node, at its anchor and at every alias.
    Shared(Rc<Node<'a>>),
    /// A map whose mistake is already reported: whoever reads it stays silent.
    Broken,
}

/// A node without its place, for reading.
#[derive(Debug)]
pub(super) enum View<'n, 'a> {
    /// A single value.
    Scalar(&'n Scalar<'a>),
    /// Values in order.
    List(&'n [Node<'a>]),
    /// Keys and values in order; no key twice.
    Map(&'n [Entry<'a>]),
    /// Something whose mistake is already reported.
    Broken,
}

/// One line of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    /// The key as text.
    pub(super) key: Cow<'a, str>,
    /// Where the key stands.
    pub(super) key_place: Place,
    /// Its value.
    pub(super) value: Node<'a>,
}

/// A single value as written.
#[derive(Debug, Clone)]
pub(super) struct Scalar<'a> {
    /// Its text, unquoted.
    pub(super) text: Cow<'a, str>,
    /// How it is written.
    pub(super) style: Style,
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Without quotes: may be a number, a boolean or nothing.
    Plain,
    /// In quotes: a text.
    Quoted,
    /// After `|`: a text, line by line.
    Literal,
    /// After `>`: a text, lines joined.
    Folded,
}

impl<'a> Node<'a> {
    /// What it is.
    pub(super) fn view(&self) -> View<'_, 'a> {
        match &self.value {
            Value::Scalar(scalar) => View::Scalar(scalar),
            Value::List(items) => View::List(items),
            Value::Map(entries) => View::Map(entries),
            Value::Shared(node) => node.view(),
            Value::Broken => View::Broken,
        }
    }

    /// What it is called in messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.view() {
            View::Scalar(scalar) => scalar.kind(),
            View::List(_) => "a list",
            View::Map(_) | View::Broken => "a map",
        }
    }

    /// The node as JSON, by the YAML 1.2 core schema.
    pub(super) fn to_json(&self) -> Json {
        match self.view() {
            View::Scalar(scalar) => scalar.to_json(),
            View::List(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            View::Map(entries) => {
                let pairs = entries.iter();
                Json::Object(
                    pairs
                        .map(|e| (e.key.to_string(), e.value.to_json()))
                        .collect(),
                )
            }
            View::Broken => Json::Null,
        }
    }
}

impl Scalar<'_> {
    /// Whether nothing was written.
    pub(super) fn is_null(&self) -> bool {
        let word = matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL");
        word && self.style == Style::Plain
    }

    fn kind(&self) -> &'static str {
        match self.to_json() {
            Json::Null => "nothing",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) | Json::Array(_) | Json::Object(_) => "a text",
        }
    }

    /// The value, by the YAML 1.2 core schema: only plain scalars are anything but text.
    pub(super) fn to_json(&self) -> Json {
        if self.style != Style::Plain {
            return Json::String(self.text.to_string());
        }
        plain_to_json(&self.text)
    }
}

/// A plain scalar's value, by the YAML 1.2 core schema.
pub(super) fn plain_to_json(text: &str) -> Json {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Json::Null,
        "true" | "True" | "TRUE" => return Json::Bool(true),
        "false" | "False" | "FALSE" => return Json::Bool(false),
        _ => {}
    }
    let number = integer(text).or_else(|| float(text));
    number.map_or_else(|| Json::String(text.to_owned()), Json::Number)
}

fn integer(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if text.starts_with('-') {
        return text.parse::<i64>().ok().map(Number::from);
    }
    digits.parse::<u64>().ok().map(Number::from)
}

fn float(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let rest = digits
        .bytes()
        .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    if !starts || !rest {
        return None;
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}
/// How far a text inside another (a script in a block scalar) is from the beginning of its source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shift {
    /// Lines before it.
    pub(super) line: u32,
    /// Characters before each of its lines.
    pub(super) column: u32,
}

/// A text of the operator's as it may stand in a message: short, on one line.
pub(super) fn shown(text: &str) -> String {
    const MAX: usize = 60;
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut cut: String = clean.take(MAX).collect();
    if text.chars().nth(MAX).is_some() {
        cut.push('…');
    }
    cut
}
