//! Where the items of a `foreach` come from. They are read once, when the file is read.
//!
//! What a command prints is read by its first character: `[` begins one JSON array, `{` and `"` begin
//! one JSON value a line, anything else one text a line.

use std::path::Path;
use std::sync::Arc;

use globset::GlobBuilder;
use serde_json::Value as Json;

use super::decode::At;
use super::error::{Place, Sink};
use super::files::{FileText, Files};
use super::listed::{self, Lister};
use super::low::ForeachKeys;
use super::preview::Preview;
use super::scalars::Text;
use super::tree::shown;

/// Most entries of folders that a glob looks at (a million: a large repository with its build
/// output), so that a glob over `/` ends.
const ENTRIES_MAX: usize = 1_000_000;
/// Deepest folder that a glob looks into.
const DEPTH_MAX: usize = 64;
/// Folders that a glob never looks into: they hold no work.
const SKIPPED: &[&str] = &[".git", ".supervisor"];

/// The items of one `foreach`.
#[derive(Debug, PartialEq)]
pub(super) enum Items {
    /// All of them, in their order; at least one.
    Known(Vec<Json>),
    /// A command lists them when the batch starts.
    AtStart,
}

/// What items are read with.
pub(super) struct Reader<'a, 'r> {
    /// Where globs look.
    pub(super) folder: &'a Path,
    /// Asks commands.
    pub(super) lister: &'a mut Lister<'r>,
    /// Files read so far.
    pub(super) files: &'a mut Files,
    /// Templates.
    pub(super) preview: &'a mut Preview,
}

/// The items of a `foreach`; `None` when something is reported as wrong.
pub(super) fn items(
    foreach: &At<ForeachKeys>,
    with: Reader<'_, '_>,
    sink: &mut Sink,
) -> Option<Items> {
    let keys = &foreach.value;
    if let (Some(timeout), None) = (&keys.timeout, &keys.command) {
        let help = "remove it, or name the command that lists the items";
        sink.report(timeout.key, "`timeout` without `command`", help);
        return None;
    }
    let items = match (&keys.glob, &keys.items, &keys.file, &keys.command) {
        (Some(glob), None, None, None) => by_glob(&glob.value, with.folder, sink)?,
        (None, Some(items), None, None) => items
            .value
            .0
            .iter()
            .map(|item| item.value.0.clone())
            .collect(),
        (None, None, Some(file), None) => by_file(&file.value, with.files, sink)?,
        (None, None, None, Some(command)) => {
            let (files, preview) = (with.files, with.preview);
            match with.lister.items(keys, command, files, preview, sink)? {
                listed::Items::AtStart => return Some(Items::AtStart),
                listed::Items::In(text) => by_command(&text, sink)?,
            }
        }
        (None, None, None, None) => {
            if keys.wrong.is_empty() {
                let help = "add one of `glob: \"src/*.js\"`, `items: [...]`, `file: list.csv`, \
                            `command: [...]`";
                sink.report(foreach.key, "`foreach` without items", help);
            }
            return None;
        }
        _ => {
            let help = "keep one of `glob`, `items`, `file` and `command`";
            sink.report(
                foreach.key,
                "`foreach` with more than one source of items",
                help,
            );
            return None;
        }
    };
    if items.is_empty() {
        let help = "a foreach needs at least one item";
        sink.report(foreach.place, "there are no items", help);
        return None;
    }
    Some(Items::Known(items))
}

fn by_command(text: &FileText, sink: &mut Sink) -> Option<Vec<Json>> {
    match text.content.trim_start().chars().next() {
        Some('[') => array_items(text, sink),
        Some('{' | '"') => jsonl_items(text, sink),
        Some(_) | None => txt_items(text, sink),
    }
}

fn array_items(text: &FileText, sink: &mut Sink) -> Option<Vec<Json>> {
    match serde_json::from_str(&text.content) {
        Ok(items) => Some(items),
        Err(error) => {
            let place = place_in(text, error.line().max(1), error.column().max(1));
            let message = format!("not JSON: {}", reason(&error));
            let help = "what begins with `[` is one JSON array; texts a line begin otherwise";
            sink.report(place, message, help);
            None
        }
    }
}

fn by_file(name: &Text, files: &mut Files, sink: &mut Sink) -> Option<Vec<Json>> {
    let kind = Path::new(&name.text)
        .extension()
        .and_then(|kind| kind.to_str());
    let read = match kind {
        Some("csv") => csv_items,
        Some("jsonl") => jsonl_items,
        Some("txt") => txt_items,
        _ => {
            let message = format!("the kind of `{}` is not known", shown(&name.text));
            sink.report(
                name.place,
                message,
                "use a file that ends in .csv, .jsonl or .txt",
            );
            return None;
        }
    };
    let text = files.read_named(&name.text, name.place, sink)?;
    read(&text, sink)
}

fn txt_items(text: &FileText, _: &mut Sink) -> Option<Vec<Json>> {
    let lines = text
        .content
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty());
    Some(lines.map(|line| Json::String(line.to_owned())).collect())
}

fn jsonl_items(text: &FileText, sink: &mut Sink) -> Option<Vec<Json>> {
    let mut items = Vec::new();
    let before = sink.count();
    for (index, line) in text.content.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(item) => items.push(item),
            Err(error) => {
                let place = place_in(text, index + 1, error.column().max(1));
                let message = format!("not JSON: {}", reason(&error));
                sink.report(place, message, "write one JSON value a line");
            }
        }
    }
    (sink.count() == before).then_some(items)
}

/// serde_json's words without the position, which is shown beside them.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or(&text).to_owned()
}

fn csv_items(text: &FileText, sink: &mut Sink) -> Option<Vec<Json>> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_reader(text.content.as_bytes());
    let header = reader.headers().cloned().unwrap_or_default();
    if let Some(twice) = repeated(&header) {
        let message = format!("the column `{}` is there twice", shown(twice));
        sink.report(
            place_in(text, 1, 1),
            message,
            "give each column a name of its own",
        );
        return None;
    }
    let mut items = Vec::new();
    let before = sink.count();
    for record in reader.records() {
        let Ok(record) = record else {
            let help = "check the quotes";
            sink.report(place_in(text, items.len() + 2, 1), "not CSV", help);
            return None;
        };
        if record.len() != header.len() {
            let line = record.position().map_or(0, csv::Position::line);
            let line = usize::try_from(line).unwrap_or(0);
            let message = format!("{} values for {} columns", record.len(), header.len());
            let help = "give every row as many values as the header; quote values with commas";
            sink.report(place_in(text, line, 1), message, help);
        }
        let pairs = header.iter().zip(&record);
        let map = pairs.map(|(name, value)| (name.to_owned(), Json::String(value.to_owned())));
        items.push(Json::Object(map.collect()));
    }
    (sink.count() == before).then_some(items)
}

fn repeated(header: &csv::StringRecord) -> Option<&str> {
    let twice = |(index, name): &(usize, &str)| header.iter().take(*index).any(|n| n == *name);
    header.iter().enumerate().find(twice).map(|(_, name)| name)
}

fn place_in(text: &FileText, line: usize, column: usize) -> Place {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Place {
        source: text.source,
        line: number(line),
        column: number(column),
        length: 1,
    }
}

/// Files below the working folder that match, sorted, with `/` between folders.
fn by_glob(glob: &Text, folder: &Path, sink: &mut Sink) -> Option<Vec<Json>> {
    let matcher = match GlobBuilder::new(&glob.text).literal_separator(true).build() {
        Ok(built) => built.compile_matcher(),
        Err(error) => {
            let message = format!("`{}` is not a glob: {}", shown(&glob.text), error.kind());
            sink.report(glob.place, message, "for example `src/**/*.js`");
            return None;
        }
    };
    if glob.text.starts_with('/') || glob.text.split('/').any(|part| part == "..") {
        let help = "globs look below the working folder: leave out `/` and `..` at the start";
        sink.report(glob.place, "the glob leaves the working folder", help);
        return None;
    }
    let mut walk = Walk {
        found: Vec::new(),
        entries: 0,
    };
    let start = literal_folder(&glob.text);
    let walked = walk.folder(&folder.join(start), start, 0, &|path| {
        matcher.is_match(path)
    });
    if let Err(message) = walked {
        sink.report(
            glob.place,
            message,
            "begin the glob with the folder that is meant",
        );
        return None;
    }
    let mut found = walk.found;
    if found.is_empty() {
        let message = format!("`{}` matches no file", shown(&glob.text));
        let help = format!("the glob looks below {}", folder.display());
        sink.report(glob.place, message, help);
        return None;
    }
    found.sort_unstable();
    Some(found.into_iter().map(Json::String).collect())
}

/// The folders at the start of a glob that are no pattern.
fn literal_folder(glob: &str) -> &str {
    let pattern = glob.find(['*', '?', '[', '{', '\\']).unwrap_or(glob.len());
    let literal = &glob[..pattern];
    literal.rfind('/').map_or("", |end| &literal[..end])
}

struct Walk {
    found: Vec<String>,
    entries: usize,
}

impl Walk {
    /// Links are listed but not followed, so that no walk goes in circles. A folder that can not be
    /// read is as if it were empty: it can hold no work for us.
    fn folder(
        &mut self,
        path: &Path,
        name: &str,
        depth: usize,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!(
                "the glob looks into more than {DEPTH_MAX} nested folders"
            ));
        }
        let Ok(entries) = std::fs::read_dir(path) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            self.entries += 1;
            if self.entries > ENTRIES_MAX {
                return Err(format!("the glob looks at more than {ENTRIES_MAX} files"));
            }
            let (own, kind) = (entry.file_name(), entry.file_type());
            let (Some(own), Ok(kind)) = (own.to_str(), kind) else {
                continue;
            };
            let full = if name.is_empty() {
                own.to_owned()
            } else {
                format!("{name}/{own}")
            };
            if kind.is_dir() {
                if !SKIPPED.contains(&own) {
                    self.folder(&entry.path(), &full, depth + 1, wanted)?;
                }
            } else if wanted(&full) {
                self.found.push(full);
            }
        }
        Ok(())
    }
}

/// An item as the plan carries it.
pub(super) fn item_text(item: &Json) -> Arc<str> {
    item.to_string().into()
}
