//! YAML text to a tree.
//!
//! Events come from `saphyr-parser`; this file adds what a configuration file needs: one document,
//! no key twice, anchors shared instead of copied, and limits that a hostile file can not pass.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::error::{PROBLEMS_MAX, Place, Sink, SourceId};
use super::tree::{Entry, Node, Scalar, Shift, Style, Value, View, shown};

/// Deepest nesting; the deepest that the format itself needs is 8.
const DEPTH_MAX: u32 = 32;
/// Most nodes that aliases may stand for in all (a million: more than any file that a person
/// wrote, and still read in a second).
const ALIAS_NODES_MAX: u64 = 1_000_000;
/// Maps up to this size are searched for a repeated key without a table.
const SMALL_MAP: usize = 16;

/// Reads a text; what is wrong goes to `sink`.
pub(super) fn parse<'a>(text: &'a str, source: SourceId, sink: &mut Sink) -> Option<Node<'a>> {
    let shift = Shift { line: 0, column: 0 };
    parse_shifted(text, source, shift, sink)
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
                    self.tag(tag.as_deref(), "seq", place);
                    self.begin(place, anchor, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.tag(tag.as_deref(), "map", place);
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

    fn tag(&mut self, tag: Option<&Tag>, allowed: &str, place: Place) {
        if let Err(mistake) = check_tag(tag, allowed, place) {
            note(&mut self.noted, mistake);
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
        self.tag(tag, "str", place);
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

    fn refuse_repeated(&mut self, key: &str, place: Place) -> Result<(), Mistake> {
        if self.entries.len() < SMALL_MAP {
            if !self.entries.iter().any(|entry| entry.key == key) {
                return Ok(());
            }
        } else {
            if self.seen.is_empty() {
                self.seen = self.entries.iter().map(|entry| entry.key.clone()).collect();
            }
            if self.seen.insert(Cow::Owned(key.to_owned())) {
                return Ok(());
            }
        }
        let first = self.entries.iter().find(|entry| entry.key == key);
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
        // The node is the inner of the two maps that `{{` opens.
        let column = node.place.column.saturating_sub(1).max(1);
        let place = Place {
            column,
            length: 2,
            ..node.place
        };
        let message = "an unquoted `{{` begins a YAML map, not a template";
        return Err(mistake(place, message, QUOTE_HELP));
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
    let name = if tag.is_yaml_core_schema() {
        format!("!!{}", tag.suffix)
    } else {
        tag.to_string()
    };
    let help = "remove the tag; a text that looks like a number goes in quotes";
    Err(mistake(
        place,
        format!("the tag `{}` has no meaning here", shown(&name)),
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
