//! YAML text to a tree in which every node knows its place.
//!
//! Events come from `saphyr-parser`; this file adds what a configuration file needs: one document,
//! no key twice, anchors shared instead of copied, and limits that a hostile file can not pass.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Number, Value as Json};

use super::error::{PROBLEMS_MAX, Place, Sink, SourceId};

/// Largest file read, bytes (64 MiB: a million small tasks).
pub(super) const FILE_MAX: usize = 64 << 20;
/// Deepest nesting; the deepest that the format itself needs is 8.
const DEPTH_MAX: u32 = 32;
/// Most nodes that aliases may stand for in all (a million: more than any file that a person
/// wrote, and still read in a second).
const ALIAS_NODES_MAX: u64 = 1_000_000;
/// Maps up to this size are searched for a repeated key without a table.
const SMALL_MAP: usize = 16;

/// One node.
#[derive(Debug, Clone)]
pub(super) struct Node<'a> {
    /// Where it begins.
    pub(super) place: Place,
    value: Value<'a>,
}

#[derive(Debug, Clone)]
enum Value<'a> {
    Scalar(Scalar<'a>),
    List(Vec<Node<'a>>),
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

/// Reads a text; what is wrong goes to `sink`.
pub(super) fn parse<'a>(text: &'a str, source: SourceId, sink: &mut Sink) -> Option<Node<'a>> {
    let shift = Shift { line: 0, column: 0 };
    parse_shifted(text, source, shift, sink)
}

/// How far a text inside another (a script in a block scalar) is from the beginning of its source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shift {
    /// Lines before it.
    pub(super) line: u32,
    /// Characters before each of its lines.
    pub(super) column: u32,
}

/// Reads a text that stands inside another.
pub(super) fn parse_shifted<'a>(
    text: &'a str,
    source: SourceId,
    shift: Shift,
    sink: &mut Sink,
) -> Option<Node<'a>> {
    let mut builder = Builder {
        text,
        source,
        shift,
        open: Vec::new(),
        anchors: HashMap::new(),
        alias_nodes: 0,
        noted: Vec::new(),
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    let read = builder.read(&mut parser);
    for mistake in builder.noted.drain(..) {
        sink.report(mistake.place, mistake.message, mistake.help);
    }
    if let Err(mistake) = read {
        sink.report(mistake.place, mistake.message, mistake.help);
        return None;
    }
    let root = builder.root.take();
    if root.is_none() {
        let place = Place {
            source,
            line: 0,
            column: 0,
            length: 0,
        };
        sink.report(
            place,
            "the file is empty",
            "write at least `version: 1` and `tasks:`",
        );
    }
    root.map(|built| built.node)
}

/// A mistake of form.
struct Mistake {
    place: Place,
    message: String,
    help: String,
}

/// A finished node with what it costs to walk.
#[derive(Clone)]
struct Built<'a> {
    node: Node<'a>,
    /// Nodes in it, aliases followed.
    weight: u64,
    /// Levels in it, aliases followed.
    height: u32,
}

/// A list or map that is not finished.
struct Open<'a> {
    place: Place,
    anchor: usize,
    weight: u64,
    height: u32,
    content: Content<'a>,
}

enum Content<'a> {
    List(Vec<Node<'a>>),
    Map(OpenMap<'a>),
}

#[derive(Default)]
struct OpenMap<'a> {
    entries: Vec<Entry<'a>>,
    /// The key whose value comes next.
    key: Option<Key<'a>>,
    /// Keys seen, once the map is too large to search.
    seen: HashSet<Cow<'a, str>>,
    merged: Vec<Node<'a>>,
    broken: bool,
}

struct Builder<'a> {
    text: &'a str,
    source: SourceId,
    shift: Shift,
    open: Vec<Open<'a>>,
    /// `None` while the anchored node is not finished.
    anchors: HashMap<usize, Option<(Rc<Node<'a>>, u64, u32)>>,
    alias_nodes: u64,
    /// Mistakes after which the reading goes on.
    noted: Vec<Mistake>,
    root: Option<Built<'a>>,
}

impl<'a> Builder<'a> {
    fn read(&mut self, parser: &mut Parser<'a, StrInput<'a>>) -> Result<(), Mistake> {
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|error| self.scan_mistake(&error))?;
            let place = self.place(span);
            match event {
                Event::Nothing | Event::StreamStart | Event::DocumentEnd | Event::StreamEnd => {}
                Event::DocumentStart(_) => self.document(place)?,
                Event::Alias(anchor) => self.alias(anchor, place)?,
                Event::Scalar(text, style, anchor, tag) => {
                    self.scalar((text, style), anchor, tag.as_deref(), place)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    check_tag(tag.as_deref(), "seq", place)?;
                    self.begin(place, anchor, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    check_tag(tag.as_deref(), "map", place)?;
                    self.begin(place, anchor, Content::Map(OpenMap::default()))?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.end()?,
            }
        }
        Ok(())
    }

    fn place(&self, span: Span) -> Place {
        let length = if span.start.line() == span.end.line() {
            number(span.end.col().saturating_sub(span.start.col()))
        } else {
            1
        };
        Place {
            source: self.source,
            line: number(span.start.line()).saturating_add(self.shift.line),
            column: number(span.start.col()).saturating_add(1 + self.shift.column),
            length,
        }
    }

    fn document(&mut self, place: Place) -> Result<(), Mistake> {
        if self.root.is_none() {
            return Ok(());
        }
        Err(mistake(
            place,
            "a second document begins here",
            "one file is one batch: remove the `---`, or put the rest into a file of its own",
        ))
    }

    fn scalar(
        &mut self,
        (text, style): (Cow<'a, str>, ScalarStyle),
        anchor: usize,
        tag: Option<&Tag>,
        place: Place,
    ) -> Result<(), Mistake> {
        check_tag(tag, "str", place)?;
        let style = match style {
            ScalarStyle::Plain if tag.is_some() => Style::Quoted,
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
        };
        let value = Value::Scalar(Scalar { text, style });
        let node = Node { place, value };
        self.finish(
            Built {
                node,
                weight: 1,
                height: 1,
            },
            anchor,
        )
    }

    fn begin(&mut self, place: Place, anchor: usize, content: Content<'a>) -> Result<(), Mistake> {
        if number(self.open.len()) >= DEPTH_MAX {
            return Err(too_deep(place));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
        self.open.push(Open {
            place,
            anchor,
            weight: 1,
            height: 1,
            content,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Mistake> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.content {
            Content::List(items) => Value::List(items),
            Content::Map(map) => map.finish(&mut self.noted),
        };
        let node = Node {
            place: open.place,
            value,
        };
        let built = Built {
            node,
            weight: open.weight,
            height: open.height,
        };
        self.finish(built, open.anchor)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Mistake> {
        let Some(Some((node, weight, height))) = self.anchors.get(&anchor).cloned() else {
            return Err(mistake(
                place,
                "an alias inside the node that it stands for",
                "write the content out, or move the anchor",
            ));
        };
        self.alias_nodes = self.alias_nodes.saturating_add(weight);
        if self.alias_nodes > ALIAS_NODES_MAX {
            return Err(mistake(
                place,
                format!("the aliases of this file stand for more than {ALIAS_NODES_MAX} nodes"),
                "write fewer aliases of aliases; many similar tasks are written with `foreach`",
            ));
        }
        if number(self.open.len()).saturating_add(height) > DEPTH_MAX {
            return Err(too_deep(place));
        }
        let node = Node {
            place,
            value: Value::Shared(node),
        };
        self.attach(Built {
            node,
            weight,
            height,
        })
    }

    /// A node is whole: remembers it under its anchor and hands it to what contains it.
    fn finish(&mut self, built: Built<'a>, anchor: usize) -> Result<(), Mistake> {
        if anchor == 0 {
            return self.attach(built);
        }
        let Built {
            node,
            weight,
            height,
        } = built;
        let place = node.place;
        let shared = Rc::new(node);
        self.anchors
            .insert(anchor, Some((Rc::clone(&shared), weight, height)));
        let node = Node {
            place,
            value: Value::Shared(shared),
        };
        self.attach(Built {
            node,
            weight,
            height,
        })
    }

    fn attach(&mut self, built: Built<'a>) -> Result<(), Mistake> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(built);
            return Ok(());
        };
        open.weight = open.weight.saturating_add(built.weight);
        open.height = open.height.max(built.height.saturating_add(1));
        match &mut open.content {
            Content::List(items) => {
                items.push(built.node);
                Ok(())
            }
            Content::Map(map) => {
                if let Err(mistake) = map.push(built.node, self.text, self.shift) {
                    note(&mut self.noted, mistake);
                }
                Ok(())
            }
        }
    }

    fn scan_mistake(&self, error: &ScanError) -> Mistake {
        let marker = *error.marker();
        let place = self.place(Span::empty(marker));
        let line = self
            .text
            .lines()
            .nth(marker.line().saturating_sub(1))
            .unwrap_or("");
        let message = format!("not valid YAML: {}", error.info());
        mistake(place, message, scan_help(line, error.info()))
    }
}

impl<'a> OpenMap<'a> {
    /// Takes the next node, which is a key or the value of the last key.
    fn push(&mut self, node: Node<'a>, text: &str, shift: Shift) -> Result<(), Mistake> {
        let Some((key, key_place, style)) = self.key.take() else {
            let place = node.place;
            let key = key_of(&node, text, shift);
            self.broken |= key.is_err();
            let nameless = (Cow::Borrowed(""), place, Style::Quoted);
            self.key = Some(key.as_ref().map_or(nameless, Clone::clone));
            return key.map(drop);
        };
        if self.broken {
            return Ok(());
        }
        if key == "<<" && style == Style::Plain {
            self.merged.push(node);
            return Ok(());
        }
        self.refuse_repeated(&key, key_place)?;
        self.entries.push(Entry {
            key,
            key_place,
            value: node,
        });
        Ok(())
    }

    fn refuse_repeated(&mut self, key: &Cow<'a, str>, place: Place) -> Result<(), Mistake> {
        if self.entries.len() < SMALL_MAP {
            if !self.entries.iter().any(|entry| entry.key == *key) {
                return Ok(());
            }
        } else {
            if self.seen.is_empty() {
                self.seen = self.entries.iter().map(|entry| entry.key.clone()).collect();
            }
            if self.seen.insert(key.clone()) {
                return Ok(());
            }
        }
        let first = self.entries.iter().find(|entry| entry.key == *key);
        let (line, column) = first.map_or((0, 0), |entry| {
            (entry.key_place.line, entry.key_place.column)
        });
        Err(mistake(
            place,
            format!("the key `{}` is here for the second time", shown(key)),
            format!("the first is at line {line}, column {column}: remove one of the two"),
        ))
    }

    /// The map, with the entries of `<<` behind its own where no own key hides them.
    fn finish(mut self, noted: &mut Vec<Mistake>) -> Value<'a> {
        if self.broken {
            return Value::Broken;
        }
        if self.merged.is_empty() {
            return Value::Map(self.entries);
        }
        let mut known: HashSet<Cow<'a, str>> =
            self.entries.iter().map(|entry| entry.key.clone()).collect();
        for merged in &self.merged {
            let sources = match merged.view() {
                View::List(items) => items.iter().collect(),
                View::Map(_) | View::Scalar(_) | View::Broken => vec![merged],
            };
            for source in sources {
                let View::Map(entries) = source.view() else {
                    let help = "`<<` takes a map or a list of maps: `<<: *name`";
                    note(noted, mistake(source.place, "`<<` of what is no map", help));
                    continue;
                };
                let new = entries
                    .iter()
                    .filter(|entry| known.insert(entry.key.clone()));
                self.entries.extend(new.cloned());
            }
        }
        Value::Map(self.entries)
    }
}

/// Keeps a mistake, as many as the report will keep.
fn note(noted: &mut Vec<Mistake>, mistake: Mistake) {
    if noted.len() < PROBLEMS_MAX {
        noted.push(mistake);
    }
}

/// A key: its text, where it stands and how it is written.
type Key<'a> = (Cow<'a, str>, Place, Style);

/// The text of a key; only scalars are keys.
fn key_of<'a>(node: &Node<'a>, text: &str, shift: Shift) -> Result<Key<'a>, Mistake> {
    if let View::Scalar(scalar) = node.view() {
        return Ok((scalar.text.clone(), node.place, scalar.style));
    }
    let line = node.place.line.saturating_sub(shift.line + 1) as usize;
    let line = text.lines().nth(line).unwrap_or("");
    if unquoted_template(line) {
        let message = "an unquoted `{{` begins a YAML map, not a template";
        return Err(mistake(node.place, message, QUOTE_HELP));
    }
    Err(mistake(
        node.place,
        "a key must be a single word",
        "write `name: value`",
    ))
}

/// The way out of an unquoted template.
const QUOTE_HELP: &str = "put the whole value in quotes: \"{{ ... }}\"";

/// Whether a line has a template that begins outside quotes where a value begins.
fn unquoted_template(line: &str) -> bool {
    let Some(at) = line.find("{{").or_else(|| line.find("{%")) else {
        return false;
    };
    let before = line.get(..at).unwrap_or("").trim_end();
    before.is_empty() || before.ends_with([':', '-', '[', ',', '{'])
}

fn scan_help(line: &str, info: &str) -> &'static str {
    if unquoted_template(line) {
        QUOTE_HELP
    } else if line.starts_with('\t') || line.contains("\t") || info.contains("tab") {
        "YAML is indented with spaces: replace the tab"
    } else if line.trim_start().starts_with(['@', '`', '%']) || line.contains(": @") {
        "a value can not begin with this character: put it in quotes"
    } else if info.contains("quote") || info.contains("end of stream") {
        "close the quote or bracket that is still open"
    } else if info.contains("anchor") {
        "define the anchor (`&name`) before its alias (`*name`)"
    } else {
        "check indentation, and put values with `: `, ` #`, `{` or `[` in quotes"
    }
}

fn check_tag(tag: Option<&Tag>, allowed: &str, place: Place) -> Result<(), Mistake> {
    let Some(tag) = tag else {
        return Ok(());
    };
    let core = tag.is_yaml_core_schema() || tag.handle.is_empty();
    if core && tag.suffix == allowed || tag.handle.is_empty() && tag.suffix == "!" {
        return Ok(());
    }
    let help = "remove the tag; a text that looks like a number goes in quotes";
    Err(mistake(
        place,
        format!("the tag `{}` has no meaning here", shown(&tag.to_string())),
        help,
    ))
}

fn too_deep(place: Place) -> Mistake {
    let message = format!("nested deeper than {DEPTH_MAX} levels");
    mistake(
        place,
        message,
        "no batch file needs this: check brackets and indentation",
    )
}

fn mistake(place: Place, message: impl Into<String>, help: impl Into<String>) -> Mistake {
    Mistake {
        place,
        message: message.into(),
        help: help.into(),
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
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
