//! Commands that list the items of a `foreach`: run once for a batch, by the other program of the pair.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use protocol::list::{LIST_FILE_MAX, LIST_OUT_MAX, LIST_WORD, ListEnd, ListOrder};
use supervisor_core::identity::Exit;

use crate::batch_file::error::Fault;
use crate::batch_file::listed::{KEPT_NAME, Kept, Lists, Output, Wanted, line};
use crate::batch_file::work::PASSED_ON;
use crate::cli::error::{CliError, Code};
use crate::cli::git_work::{Room, run};
use crate::driver;
use crate::process::aside::{Came, Order};
use crate::store::{RealDisk, StateDir, StateRoot, index};

/// How much longer than its own limit the program beside may take until it is killed from here: it
/// has five seconds to end what resists.
const BESIDE: Duration = Duration::from_secs(30);
/// Lines of its standard error that are told.
const SAID_LINES: usize = 3;
/// Most revisions of a batch that are looked through, the newest first.
const REVISIONS_MAX: u32 = 1_000;

/// Runs commands, or knows what they printed when their batch began.
#[derive(Debug)]
pub struct Commands {
    once: bool,
    stopped: Cell<bool>,
}

impl Commands {
    /// Each command is run.
    pub fn anew() -> Self {
        Self {
            once: false,
            stopped: Cell::new(false),
        }
    }

    /// A command that the newest batch of this name and repository has run is not run again, unless
    /// the batch is to be a new one.
    pub fn of_run(is_new: bool) -> Self {
        Self {
            once: !is_new,
            ..Self::anew()
        }
    }

    /// The end of this command, where a signal asked for it while another one listed items.
    pub fn stopped(&self) -> Option<CliError> {
        self.stopped.get().then(|| {
            CliError::new(Code::Interrupted, "listing the items was interrupted")
                .hint("nothing was started; the same command can be given again")
        })
    }
}

impl Lists for Commands {
    fn output(&self, wanted: &Wanted<'_>) -> Output {
        if self.stopped.get() {
            return Output::AtStart; // nobody waits for it any more
        }
        let kept = match self.once {
            true => kept(wanted),
            false => Ok(None),
        };
        match kept {
            Ok(Some(text)) => Output::Known(text),
            Ok(None) => match carry_out(wanted) {
                Ok(Listed::Ended(end)) => told(wanted, end),
                Ok(Listed::Stopped) => {
                    self.stopped.set(true);
                    Output::AtStart
                }
                Err(error) => unable(wanted, &error),
            },
            Err(error) => unable(wanted, &error),
        }
    }
}

/// What the newest batch of this name and repository keeps of the command.
fn kept(wanted: &Wanted<'_>) -> Result<Option<String>, CliError> {
    let root = StateRoot::from_env()?;
    let (name, repository) = (&wanted.batch.name, &wanted.batch.root);
    let found = index::find(&RealDisk, &root, name, repository)?;
    let Some(newest) = found.first() else {
        return Ok(None);
    };
    let dir = StateDir::at(&newest.dir);
    let folders = (0..REVISIONS_MAX).map(|number| dir.revision(number).join("inputs"));
    let folders: Vec<_> = folders.take_while(|folder| folder.is_dir()).collect();
    Ok(folders
        .iter()
        .rev()
        .find_map(|folder| kept_in(folder, wanted.argv)))
}

/// What is kept of the command in the inputs of one revision. A file that can not be read is no
/// output: the command is asked again then.
fn kept_in(inputs: &Path, argv: &[String]) -> Option<String> {
    let entries = fs::read_dir(inputs).ok()?.flatten();
    let of_commands = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().ends_with(KEPT_NAME)
    });
    let mut outputs = of_commands.filter_map(|entry| {
        let kept: Kept = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        (kept.command == argv).then_some(kept.output)
    });
    outputs.next()
}

/// What came of running it.
enum Listed {
    Ended(ListEnd),
    Stopped,
}

fn carry_out(wanted: &Wanted<'_>) -> Result<Listed, CliError> {
    let program = driver::host_program()?;
    let root = StateRoot::from_env()?;
    root.create()?;
    let failed = |act: &str, path: &Path, error: &dyn std::fmt::Display| {
        let text = format!("can not {act} {}: {error}", path.display());
        CliError::new(Code::Environment, text)
    };
    let room = Room::make(&StateDir::at(root.path()));
    let room = room.map_err(|error| failed("make a folder in", root.path(), &error))?;
    let [request, outcome] = ["request.json", "outcome.json"].map(|name| room.path().join(name));
    let text = serde_json::to_vec(&order_of(wanted)).map_err(io::Error::from);
    text.and_then(|text| fs::write(&request, text))
        .map_err(|error| failed("write", &request, &error))?;
    let came = run(&Order {
        program: &program,
        args: &[
            OsStr::new(LIST_WORD),
            request.as_os_str(),
            outcome.as_os_str(),
        ],
        folder: room.path(),
        at_most: wanted.timeout.saturating_add(BESIDE),
        dies_with_us: false,
    });
    match came.map_err(|error| failed("run", &program, &error))? {
        Came::Ended(Exit::Code(0)) => {
            let end = read(&outcome).map_err(|error| failed("read", &outcome, &error))?;
            Ok(Listed::Ended(end))
        }
        Came::Ended(exit) => {
            let text = format!("{} ended with {exit:?}", program.display());
            Err(CliError::new(Code::Environment, text))
        }
        Came::Stopped => Ok(Listed::Stopped),
        Came::TimedOut => Ok(Listed::Ended(ListEnd::TimedOut {
            said: String::new(),
        })),
    }
}

fn order_of(wanted: &Wanted<'_>) -> ListOrder {
    let passed_on = |name: &str| {
        PASSED_ON.contains(&name)
            || name.starts_with("LC_")
            || wanted.env_from.iter().any(|asked| asked == name)
    };
    let own = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut env: std::collections::BTreeMap<String, String> =
        own.filter(|(name, _)| passed_on(name)).collect();
    env.extend(wanted.env.clone());
    ListOrder {
        argv: wanted.argv.to_vec(),
        folder: wanted.folder.display().to_string(),
        env,
        timeout_ms: supervisor_core::time::millis(wanted.timeout),
        waits: std::process::id(),
    }
}

fn read(outcome: &Path) -> io::Result<ListEnd> {
    use io::Read as _;
    let mut text = String::new();
    fs::File::open(outcome)?
        .take(LIST_FILE_MAX)
        .read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// The end of a command, as the output or as a mistake of the batch file.
fn told(wanted: &Wanted<'_>, end: ListEnd) -> Output {
    let (how, said) = match end {
        ListEnd::Printed { text } if !text.trim().is_empty() => return Output::Known(text),
        ListEnd::Printed { .. } => ("printed no items".to_owned(), String::new()),
        ListEnd::Exited { code, said } => (format!("exited with {code}"), said),
        ListEnd::Signalled { signal, said } => (format!("was ended by signal {signal}"), said),
        ListEnd::TimedOut { said } => {
            let how = format!("took longer than {:?} and was killed", wanted.timeout);
            (how, said)
        }
        ListEnd::TooMuch {} => {
            let how = format!(
                "printed more than {} MiB and was killed",
                LIST_OUT_MAX >> 20
            );
            (how, String::new())
        }
        ListEnd::NotText { offset } => {
            let how = format!("printed what is not UTF-8 at byte {offset}");
            (how, String::new())
        }
        ListEnd::NotStarted { why } => (format!("could not be started: {why}"), String::new()),
    };
    let lines: Vec<&str> = said
        .lines()
        .map(str::trim_end)
        .filter(|it| !it.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(SAID_LINES)..].join(" / ");
    let help = match last.as_str() {
        "" => format!("run it by hand in {}", wanted.folder.display()),
        last => format!("it said: {last}"),
    };
    Output::Missing {
        message: format!("`{}` {how}", line(wanted.argv)),
        help,
        fault: Fault::File,
    }
}

fn unable(wanted: &Wanted<'_>, error: &CliError) -> Output {
    Output::Missing {
        message: format!(
            "`{}` can not be asked for items: {error}",
            line(wanted.argv)
        ),
        help: "`supervisor doctor` looks at this machine".to_owned(),
        fault: Fault::Machine,
    }
}
