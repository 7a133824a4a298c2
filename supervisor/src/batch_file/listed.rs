//! Items that a command lists: asked for once, kept with what was read, and not asked for again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Identity;
use super::decode::At;
use super::error::{Fault, Sink};
use super::files::{FileText, Files};
use super::low::ForeachKeys;
use super::preview::Preview;
use super::scalars::CommandLine;
use super::tree::shown;

/// Time limit of a command that names none: ten minutes, as interface and manual state it.
const TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// What an output is called among the files that were read.
pub const KEPT_NAME: &str = "foreach-command.json";

/// A command whose output is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The batch that is being read.
    pub batch: &'a Identity,
    /// Program and arguments; never empty.
    pub argv: &'a [String],
    /// The folder of the batch file, absolute: where it works.
    pub folder: &'a Path,
    /// Its time limit.
    pub timeout: Duration,
    /// What the batch file sets for it.
    pub env: &'a BTreeMap<String, String>,
    /// What it gets of the environment of this process, beside what every run gets.
    pub env_from: &'a [String],
}

/// What is known of a command's output.
#[derive(Debug)]
pub enum Output {
    /// All of it.
    Known(String),
    /// It is asked for when the batch starts.
    AtStart,
    /// There is none.
    Missing {
        /// What went wrong.
        message: String,
        /// What to do about it.
        help: String,
        /// Whose fault that is.
        fault: Fault,
    },
}

/// Where the outputs of commands come from.
pub trait Lists {
    /// The output of one.
    fn output(&self, wanted: &Wanted<'_>) -> Output;
}

/// Asks for nothing: the items are known at the start.
#[derive(Debug, Clone, Copy)]
pub struct AtStart;

impl Lists for AtStart {
    fn output(&self, _: &Wanted<'_>) -> Output {
        Output::AtStart
    }
}

/// An output as it is kept with what was read.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Program and arguments.
    pub command: Vec<String>,
    /// What it printed.
    pub output: String,
}

/// Asks for outputs while a file is read.
pub(super) struct Lister<'r> {
    pub(super) lists: &'r dyn Lists,
    pub(super) batch: Identity,
    pub(super) folder: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    pub(super) env_from: Vec<String>,
    /// Those that were asked for; the same command is asked once.
    pub(super) known: HashMap<Vec<String>, Option<Items>>,
}

/// The items of a command.
#[derive(Debug, Clone)]
pub(super) enum Items {
    /// To be read from this.
    In(FileText),
    /// Not known yet.
    AtStart,
}

impl Lister<'_> {
    /// The items that this command lists; `None` when that is reported as wrong.
    pub(super) fn items(
        &mut self,
        keys: &ForeachKeys,
        command: &At<CommandLine>,
        files: &mut Files,
        preview: &mut Preview,
        sink: &mut Sink,
    ) -> Option<Items> {
        let mut argv = command.value.argv();
        // What is not the batch file's own (`sh -c`) is no template.
        let written = argv.len() - command.value.texts().len();
        for (word, text) in argv[written..].iter_mut().zip(command.value.texts()) {
            *word = preview.fill_for_batch(text, sink)?;
        }
        if let Some(known) = self.known.get(&argv) {
            return known.clone();
        }
        let timeout = keys.timeout.as_ref().map(|length| length.value.0);
        let output = self.lists.output(&Wanted {
            batch: &self.batch,
            argv: &argv,
            folder: &self.folder,
            timeout: timeout.unwrap_or(TIMEOUT),
            env: &self.env,
            env_from: &self.env_from,
        });
        let items = match output {
            Output::AtStart => Some(Items::AtStart),
            Output::Known(output) => {
                let kept = Kept {
                    command: argv.clone(),
                    output,
                };
                files.add_listed(kept, command.place, sink).map(Items::In)
            }
            Output::Missing {
                message,
                help,
                fault: Fault::File,
            } => {
                sink.report(command.place, message, help);
                None
            }
            Output::Missing {
                message,
                help,
                fault: Fault::Machine,
            } => {
                sink.report_machine(command.place, message, help);
                None
            }
        };
        self.known.insert(argv, items.clone());
        items
    }
}

/// A command as a person would type it, cut where it is long.
pub fn line(argv: &[String]) -> String {
    match argv {
        [shell, flag, line] if shell == "sh" && flag == "-c" => shown(line),
        _ => shown(&argv.join(" ")),
    }
}
