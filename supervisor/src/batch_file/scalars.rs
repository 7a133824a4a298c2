//! The single values of a batch file: texts, counts, durations, times, commands.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value as Json;
use supervisor_core::time::Wall;

use super::decode::{At, FromNode, entries, wrong_type};
use super::error::{Place, Sink};
use super::tree::{Node, Style, View, shown};

/// Longest duration (ten years: anything longer is a slip of the pen).
const LENGTH_MAX: Duration = Duration::from_secs(3650 * 86_400);
/// What a duration looks like.
const LENGTH_HELP: &str = "write a whole number and a unit: `500ms`, `90s`, `20m`, `2h`, `3d`";

/// Gives a type a place in the schema without a definition of its own.
macro_rules! inline_schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// A text; a plain number or boolean is refused, so that nothing is read that was not meant.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// The text.
    pub(super) text: String,
    /// Where it stands.
    pub(super) place: Place,
    /// How it is written.
    pub(super) style: Style,
}
inline_schema!(Text, "Text", {"type": "string"});

impl FromNode for Text {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let (View::Scalar(scalar), "a text") = (node.view(), node.kind()) else {
            wrong_type(node, "a text", "put the value in quotes", sink);
            return None;
        };
        let text = scalar.text.to_string();
        Some(Self {
            text,
            place: node.place,
            style: scalar.style,
        })
    }
}

/// A text that may also be written as a number or boolean: arguments and variables.
#[derive(Debug, Clone)]
pub(super) struct Word(pub(super) Text);
inline_schema!(Word, "Word", {"type": ["string", "number", "boolean"]});

impl FromNode for Word {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let View::Scalar(scalar) = node.view() else {
            wrong_type(node, "a text", "put the value in quotes", sink);
            return None;
        };
        if scalar.is_null() {
            wrong_type(node, "a text", "an empty text is written `\"\"`", sink);
            return None;
        }
        let text = scalar.text.to_string();
        Some(Self(Text {
            text,
            place: node.place,
            style: scalar.style,
        }))
    }
}

/// Any value.
#[derive(Debug, Clone)]
pub(super) struct Any(pub(super) Json);
inline_schema!(Any, "Any", true);

impl FromNode for Any {
    fn from_node(node: &Node<'_>, _: &mut Sink) -> Option<Self> {
        Some(Self(node.to_json()))
    }
}

/// A switch.
impl FromNode for bool {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let value = match node.view() {
            View::Scalar(scalar) => scalar.to_json().as_bool(),
            View::List(_) | View::Map(_) | View::Broken => None,
        };
        if value.is_none() {
            wrong_type(node, "true or false", "write `true` or `false`", sink);
        }
        value
    }
}

/// A whole number in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole<const MIN: i64, const MAX: i64>(pub(super) i64);

impl<const MIN: i64, const MAX: i64> Whole<MIN, MAX> {
    /// The number as an unsigned one; `MIN` is never negative where this is used.
    pub(super) fn unsigned(self) -> u32 {
        u32::try_from(self.0).unwrap_or(0)
    }
}

impl<const MIN: i64, const MAX: i64> JsonSchema for Whole<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Whole{MIN}To{MAX}").into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

impl<const MIN: i64, const MAX: i64> FromNode for Whole<MIN, MAX> {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let wanted = format!("a whole number from {MIN} to {MAX}");
        let number = match node.view() {
            View::Scalar(scalar) => scalar.to_json().as_i64(),
            View::List(_) | View::Map(_) | View::Broken => None,
        };
        let found = number.filter(|number| (MIN..=MAX).contains(number));
        if found.is_none() {
            wrong_type(
                node,
                &wanted,
                "write it as digits, without quotes and unit",
                sink,
            );
        }
        found.map(Self)
    }
}

/// The one version of the format.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version;
inline_schema!(Version, "Version", {"const": 1});

impl FromNode for Version {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        if let View::Scalar(scalar) = node.view()
            && scalar.to_json() == 1
        {
            return Some(Self);
        }
        wrong_type(
            node,
            "version 1",
            "this release reads `version: 1` only",
            sink,
        );
        None
    }
}

/// The scalar's text when it is not nothing; anything else is reported.
pub(super) fn scalar_text<'n>(
    node: &'n Node<'_>,
    what: &str,
    help: &str,
    sink: &mut Sink,
) -> Option<&'n str> {
    match node.view() {
        View::Scalar(scalar) if !scalar.is_null() => Some(&scalar.text),
        View::Scalar(_) | View::List(_) | View::Map(_) | View::Broken => {
            wrong_type(node, what, help, sink);
            None
        }
    }
}

/// A length of time, longer than nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Length(pub(super) Duration);
inline_schema!(Length, "Length", {
    "type": "string",
    "pattern": "^[0-9]+(ms|s|m|h|d)$",
    "examples": ["90s", "20m", "2h", "3d"]
});

impl Length {
    /// In whole milliseconds.
    pub(super) fn millis(self) -> u64 {
        supervisor_core::time::millis(self.0)
    }
}

impl FromNode for Length {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let text = scalar_text(node, "a duration", LENGTH_HELP, sink)?;
        match parse_length(text) {
            Some(length) if !length.is_zero() => Some(Self(length)),
            Some(_) => {
                let message = format!("`{}` is no time at all", shown(text));
                sink.report(node.place, message, "write a duration longer than zero");
                None
            }
            None => {
                let message = format!("`{}` is not a duration", shown(text));
                sink.report(node.place, message, LENGTH_HELP);
                None
            }
        }
    }
}

/// Reads `500ms 90s 20m 2h 3d`; at most ten years.
pub fn parse_length(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let length = Duration::from_millis(number.checked_mul(millis)?);
    (length <= LENGTH_MAX).then_some(length)
}

/// Waits between attempts: the first and the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    /// The first wait.
    pub(super) min: Duration,
    /// The longest wait.
    pub(super) max: Duration,
}
inline_schema!(Backoff, "Backoff", {
    "type": "string",
    "pattern": "^[0-9]+(ms|s|m|h|d)(\\.\\.[0-9]+(ms|s|m|h|d))?$",
    "examples": ["30s..10m", "5s"]
});

impl FromNode for Backoff {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        const HELP: &str = "write the first and the longest wait: `30s..10m`";
        let text = scalar_text(node, "a range of durations", HELP, sink)?;
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let range = (parse_length(first.trim()), parse_length(last.trim()));
        match range {
            (Some(min), Some(max)) if min <= max => Some(Self { min, max }),
            (Some(_), Some(_)) => {
                let message = format!("the range `{}` ends before it begins", shown(text));
                sink.report(node.place, message, HELP);
                None
            }
            (None, _) | (_, None) => {
                let message = format!("`{}` is not a range of durations", shown(text));
                sink.report(node.place, message, HELP);
                None
            }
        }
    }
}

/// A large count, with `k`, `M` or `G` for thousands, millions and thousands of millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);
inline_schema!(Count, "Count", {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?[kMG]?$", "examples": ["500k", "5M"]}
    ]
});

impl FromNode for Count {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        const HELP: &str = "write a whole number from 1, or with a letter: `500k`, `5M`, `1G`";
        let text = scalar_text(node, "a count", HELP, sink)?;
        let count = parse_count(text).filter(|count| *count > 0);
        if count.is_none() {
            sink.report(
                node.place,
                format!("`{}` is not a count", shown(text)),
                HELP,
            );
        }
        count.map(Self)
    }
}

fn parse_count(text: &str) -> Option<u64> {
    let (digits, unit) = match text.strip_suffix(['k', 'M', 'G']) {
        Some(digits) if text.ends_with('k') => (digits, 1_000),
        Some(digits) if text.ends_with('M') => (digits, 1_000_000),
        Some(digits) => (digits, 1_000_000_000),
        None => (text, 1),
    };
    scaled(digits, unit)
}

/// A decimal number times `unit`, which is a power of ten; `None` when it does not come out whole.
fn scaled(digits: &str, unit: u64) -> Option<u64> {
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(part) || digits.ends_with('.') {
        return None;
    }
    let mut rest = unit;
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    for digit in part.bytes() {
        if !rest.is_multiple_of(10) {
            return (digit == b'0').then_some(total);
        }
        rest /= 10;
        total = total.checked_add(u64::from(digit - b'0').checked_mul(rest)?)?;
    }
    Some(total)
}

/// US dollars, in micro-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dollars(pub(super) u64);
inline_schema!(Dollars, "Dollars", {"type": "number", "exclusiveMinimum": 0});

impl FromNode for Dollars {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        const HELP: &str = "write an amount above zero, at most 6 decimals: `40` or `2.50`";
        let text = scalar_text(node, "an amount in US dollars", HELP, sink)?;
        let micros = scaled(text, 1_000_000).filter(|micros| *micros > 0);
        if micros.is_none() {
            let message = format!("`{}` is not an amount in US dollars", shown(text));
            sink.report(node.place, message, HELP);
        }
        micros.map(Self)
    }
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Wall);
inline_schema!(Time, "Time", {"type": "string", "format": "date-time"});

impl FromNode for Time {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        const HELP: &str = "write date, time and zone: `2026-12-31T22:00:00Z`";
        let text = scalar_text(node, "a time", HELP, sink)?;
        let time = parse_time(text);
        if time.is_none() {
            let message = format!("`{}` is not a time (RFC 3339)", shown(text));
            sink.report(node.place, message, HELP);
        }
        time.map(Self)
    }
}

/// Reads a time as RFC 3339 writes it.
pub fn parse_time(text: &str) -> Option<Wall> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(Wall(time.as_millisecond()))
}

/// How many tasks may fail: a number, or a part of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failures {
    /// This many.
    Count(u32),
    /// This part, 0 to 100.
    Percent(u8),
}
inline_schema!(Failures, "Failures", {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": "^([0-9]|[1-9][0-9]|100)%$", "examples": ["20%"]}
    ]
});

impl FromNode for Failures {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        const HELP: &str = "write a number from 1, or a percentage from 0% to 100%";
        let text = scalar_text(node, "a number or a percentage", HELP, sink)?;
        let failures = match text.strip_suffix('%') {
            Some(digits) => digits.parse().ok().filter(|p| *p <= 100).map(Self::Percent),
            None => text
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .map(Self::Count),
        };
        if failures.is_none() {
            let message = format!("`{}` is neither a number nor a percentage", shown(text));
            sink.report(node.place, message, HELP);
        }
        failures
    }
}

/// A command: one text for `sh -c`, or a list of program and arguments.
#[derive(Debug, Clone)]
pub(super) enum CommandLine {
    /// For `sh -c`.
    Shell(Text),
    /// Program and arguments; never empty.
    Argv(Vec<Text>),
}
inline_schema!(CommandLine, "CommandLine", {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}}
    ]
});

impl CommandLine {
    /// Its texts, with their places.
    pub(super) fn texts(&self) -> &[Text] {
        match self {
            CommandLine::Shell(text) => std::slice::from_ref(text),
            CommandLine::Argv(texts) => texts,
        }
    }

    /// Program and arguments.
    pub(super) fn argv(&self) -> Vec<String> {
        match self {
            CommandLine::Shell(text) => vec!["sh".into(), "-c".into(), text.text.clone()],
            CommandLine::Argv(texts) => texts.iter().map(|text| text.text.clone()).collect(),
        }
    }
}

impl FromNode for CommandLine {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        const HELP: &str = "write a text for the shell, or a list: `[program, argument]`";
        match node.view() {
            View::Scalar(scalar) if !scalar.is_null() && !scalar.text.trim().is_empty() => {
                Word::from_node(node, sink).map(|word| CommandLine::Shell(word.0))
            }
            View::List(_) => {
                let words = List::<Word>::from_node(node, sink)?;
                let texts = words.0.into_iter().map(|word| word.value.0);
                Some(CommandLine::Argv(texts.collect()))
            }
            View::Scalar(_) | View::Map(_) | View::Broken => {
                wrong_type(node, "a command", HELP, sink);
                None
            }
        }
    }
}

/// A list of at least one.
#[derive(Debug, Clone)]
pub(super) struct List<T>(pub(super) Vec<At<T>>);

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({"type": "array", "minItems": 1, "items": items})
    }
}

impl<T: FromNode> FromNode for List<T> {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let items = ListOrNone::<T>::from_node(node, sink)?.0;
        if matches!(node.view(), View::List([])) {
            let help = "write at least one item, or remove the key";
            sink.report(node.place, "the list is empty", help);
            return None;
        }
        Some(Self(items))
    }
}

/// A list that may be empty.
#[derive(Debug, Clone)]
pub(super) struct ListOrNone<T>(pub(super) Vec<At<T>>);

impl<T: JsonSchema> JsonSchema for ListOrNone<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("ListOrNoneOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let items = generator.subschema_for::<T>();
        json_schema!({"type": "array", "items": items})
    }
}

impl<T: FromNode> FromNode for ListOrNone<T> {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let View::List(items) = node.view() else {
            wrong_type(
                node,
                "a list",
                "write `[first, second]`, or a `- ` before each item",
                sink,
            );
            return None;
        };
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            let value = T::from_node(item, sink);
            let place = item.place;
            values.extend(value.map(|value| At {
                value,
                key: place,
                place,
            }));
        }
        Some(Self(values))
    }
}

/// A map from names that the operator chooses, in the order written.
#[derive(Debug, Clone)]
pub(super) struct Named<T>(pub(super) Vec<(String, At<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("NamedOf{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values = generator.subschema_for::<T>();
        json_schema!({"type": "object", "additionalProperties": values})
    }
}

impl<T: FromNode> FromNode for Named<T> {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let entries = entries(node, "names with their values", sink)?;
        let mut named = Vec::with_capacity(entries.len());
        for entry in entries {
            let value = T::from_node(&entry.value, sink);
            let (key, place) = (entry.key_place, entry.value.place);
            let value = value.map(|value| At { value, key, place });
            named.extend(value.map(|value| (entry.key.to_string(), value)));
        }
        Some(Self(named))
    }
}
