//! The files that one read touches: read once, bounded, kept for the state dir.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Input;
use super::error::{Place, Sink, SourceId};
use super::listed::{self, KEPT_NAME, Kept};
use super::names::json_text;
use super::tree::FILE_MAX;

/// Most bytes of all files of one read together (256 MiB; they are copied into the state dir).
const INPUTS_MAX: usize = 256 << 20;

/// One text that was read.
#[derive(Debug, Clone)]
pub(super) struct FileText {
    /// Its content.
    pub(super) content: Arc<str>,
    /// Its number in messages.
    pub(super) source: SourceId,
}

/// Why bytes are no text for us.
enum BadFile {
    Io(std::io::Error),
    TooLarge,
}

/// Everything that was read so far.
#[derive(Debug)]
pub(super) struct Files {
    /// What relative names on the command line count from.
    current_dir: PathBuf,
    inputs: Vec<Input>,
    bytes: usize,
    by_path: HashMap<PathBuf, Option<FileText>>,
    /// The folder that names in a text count from, by the text's number.
    folders: HashMap<SourceId, PathBuf>,
}

impl Files {
    pub(super) fn new(current_dir: &Path) -> Self {
        Self {
            current_dir: current_dir.to_owned(),
            inputs: Vec::new(),
            bytes: 0,
            by_path: HashMap::new(),
            folders: HashMap::new(),
        }
    }

    /// Takes in text that was read already; names in it count from the current folder.
    pub(super) fn add_bytes(
        &mut self,
        name: &str,
        bytes: &[u8],
        sink: &mut Sink,
    ) -> Option<FileText> {
        let folder = self.current_dir.clone();
        self.keep(name, Path::new(name), bytes.to_vec(), folder, sink)
    }

    /// Takes in what a command printed that `place` names. It is kept with the command, so that it is
    /// known again.
    pub(super) fn add_listed(
        &mut self,
        kept: Kept,
        place: Place,
        sink: &mut Sink,
    ) -> Option<FileText> {
        let bytes = json_text(&kept).as_bytes().to_vec();
        if !self.has_room(bytes.len()) {
            let message = format!("the files of this batch have more than {INPUTS_MAX} bytes");
            sink.report(place, message, "let the command print less for each item");
            return None;
        }
        self.inputs.push(Input {
            path: PathBuf::from(KEPT_NAME),
            bytes,
        });
        let name = format!("output of `{}`", listed::line(&kept.command));
        let content: Arc<str> = kept.output.into();
        let source = sink.add_text(name, Arc::clone(&content));
        Some(FileText { content, source })
    }

    /// Whether so many bytes more can be kept.
    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= INPUTS_MAX
    }

    /// Reads the file that the command line names.
    pub(super) fn read_top(&mut self, path: &Path, sink: &mut Sink) -> Option<FileText> {
        let name = path.display().to_string();
        let absolute = self.current_dir.join(path);
        match read_bounded(&absolute) {
            Ok(bytes) => {
                let folder = absolute.parent().unwrap_or(&self.current_dir).to_owned();
                let text = self.keep(&name, &absolute, bytes, folder, sink);
                self.by_path.insert(real(&absolute), text.clone());
                text
            }
            Err(bad) => {
                let source = sink.add_text(name, "".into());
                let place = Place {
                    source,
                    line: 0,
                    column: 0,
                    length: 0,
                };
                let (message, help) = bad.words("the file");
                sink.report(place, message, help);
                None
            }
        }
    }

    /// Reads a file that another one names at `place`; the same file is read once.
    pub(super) fn read_named(
        &mut self,
        name: &str,
        place: Place,
        sink: &mut Sink,
    ) -> Option<FileText> {
        let path = self.resolve(name, place.source);
        if let Some(known) = self.by_path.get(&real(&path)) {
            return known.clone();
        }
        let text = match read_bounded(&path) {
            Ok(bytes) => {
                let folder = path.parent().unwrap_or(&self.current_dir).to_owned();
                let shown = path.strip_prefix(&self.current_dir).unwrap_or(&path);
                self.keep(&shown.display().to_string(), &path, bytes, folder, sink)
            }
            Err(bad) => {
                let (message, help) = bad.words(&format!("the file `{name}`"));
                let found = format!("{help} (looked for {})", path.display());
                sink.report(place, message, found);
                // Not remembered: every place that names it is shown.
                return None;
            }
        };
        self.by_path.insert(real(&path), text.clone());
        text
    }

    /// An absolute path for a name that stands in the text `source`.
    pub(super) fn resolve(&self, name: &str, source: SourceId) -> PathBuf {
        self.folders
            .get(&source)
            .unwrap_or(&self.current_dir)
            .join(name)
    }

    /// Every file that was read, in order.
    pub(super) fn into_inputs(self) -> Vec<Input> {
        self.inputs
    }

    fn keep(
        &mut self,
        name: &str,
        path: &Path,
        bytes: Vec<u8>,
        folder: PathBuf,
        sink: &mut Sink,
    ) -> Option<FileText> {
        let text = utf8(name, &bytes, sink);
        if !self.has_room(bytes.len()) {
            let source = sink.add_text(name, "".into());
            let place = Place {
                source,
                line: 0,
                column: 0,
                length: 0,
            };
            let message = format!("the files of this batch have more than {INPUTS_MAX} bytes");
            sink.report(place, message, "let tasks read large files themselves");
            return None;
        }
        self.inputs.push(Input {
            path: path.to_owned(),
            bytes,
        });
        if let Some(text) = &text {
            self.folders.insert(text.source, folder);
        }
        text
    }
}

impl BadFile {
    fn words(&self, what: &str) -> (String, String) {
        match self {
            BadFile::Io(error) => (
                format!("{what} can not be read: {error}"),
                "check its name and rights".to_owned(),
            ),
            BadFile::TooLarge => (
                format!("{what} is larger than {} MiB", FILE_MAX >> 20),
                "many similar tasks are written with `foreach`".to_owned(),
            ),
        }
    }
}

/// One name for one file, whatever links and dots it is written with.
fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, BadFile> {
    let file = std::fs::File::open(path).map_err(BadFile::Io)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_MAX).unwrap_or(u64::MAX);
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(BadFile::Io)?;
    if bytes.len() > FILE_MAX {
        return Err(BadFile::TooLarge);
    }
    Ok(bytes)
}

/// The bytes as text, without a byte-order mark; what is not UTF-8 is reported with its offset.
fn utf8(name: &str, bytes: &[u8], sink: &mut Sink) -> Option<FileText> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.len() > FILE_MAX {
        let source = sink.add_text(name, "".into());
        let place = Place {
            source,
            line: 0,
            column: 0,
            length: 0,
        };
        let (message, help) = BadFile::TooLarge.words("the file");
        sink.report(place, message, help);
        return None;
    }
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => {
            let content: Arc<str> = text.into();
            let source = sink.add_text(name, Arc::clone(&content));
            return Some(FileText { content, source });
        }
        Err(error) => error,
    };
    let offset = error.valid_up_to();
    let good = String::from_utf8_lossy(&bytes[..offset]);
    let line = good.matches('\n').count() + 1;
    let column = good.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let source = sink.add_text(name, String::from_utf8_lossy(bytes).into());
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let place = Place {
        source,
        line: number(line),
        column: number(column),
        length: 1,
    };
    let message = format!("not UTF-8 at byte {offset}");
    sink.report(place, message, "save the file as UTF-8");
    None
}
