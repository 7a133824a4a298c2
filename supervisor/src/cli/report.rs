//! `supervisor report`: what came of a batch; and the same as files, when its supervisor ends.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use protocol::ids::BatchId;
use supervisor_core::core::Core;

use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Shelf, local_time};
use crate::cli::target::Target;
use crate::cli::{Io, act, explain};
use crate::store::{RealDisk, StateDir, integrated, reports};
use crate::view::report::{Beside, History, Report, html, markdown};
use crate::view::{Presence, View};

const EXAMPLES: &str = "Examples:
  supervisor report                         the batch of this repository, as Markdown
  supervisor report nightly/lexer           one task of it
  supervisor report nightly --html --output nightly.html
  supervisor report nightly --json | jq -r '.needs[].command'

It says what came of each task and why, what waits for you and which command lets it go on, what is on
the batch branch, and what happened on the way. It works while the batch runs and after it. Each time
that a supervisor ends it leaves the same as report.md and report.html in the folder of the batch.
Lists for people are cut (500 tasks, 100 stories, 50 lines of others); --json has all tasks, and of each
the last 20 attempts. With --json times are RFC 3339 UTC and lengths milliseconds; what no agent reports
is null, not 0:
  {\"v\":1,\"made\":TIME,\"task\":null,\"batch\":{\"id\",\"state\",\"reason\",\"counts\",\"wall_ms\",\"used\",...},
   \"needs\":[{\"kind\",\"task\",\"text\",\"command\"}],
   \"tasks\":[{\"id\",\"state\",\"attempts\":[{\"attempt\",\"outcome\",\"text\",\"steps\",...}],\"merge\",\"salvaged\",...}],
   \"repos\":[{\"branch\",\"base\",\"tip\",\"merged\",\"unmerged\",\"integrated\",\"command\",...}],
   \"incidents\":[{\"time\",\"kind\",\"task\",\"text\"}],\"worktrees\":[...],\"salvaged\":[...],\"hosts\":[...]}";

/// Largest journal of which a supervisor that ends makes a report, bytes: reading this much takes
/// seconds, and nobody who waits for the end of a batch should wait for more. The command has no
/// such limit.
const JOURNAL_MAX: u64 = 256 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A batch or a task
    target: Option<Target>,
    /// For scripts: one JSON object
    #[arg(long, conflicts_with = "html")]
    json: bool,
    /// As one HTML page that needs nothing else
    #[arg(long)]
    html: bool,
    /// Into this file, which is replaced
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let meant = Shelf::open()?.find(args.target.as_ref())?;
    let opened = meant.batch.read()?;
    let past = Past::read(&meant.batch)?;
    let task = match &meant.task {
        Some(word) => Some(opened.task(word)?),
        None => None,
    };
    let picture = opened.view(act::activity(&meant.batch));
    let view = View {
        facts: past.core.facts().unwrap_or(opened.facts()),
        ..picture
    };
    let beside = beside(&meant.batch.dir);
    let report = Report::new(&view, &past.history, &beside, task);
    let zone = &view.time.zone;
    let text = match (args.json, args.html) {
        (true, _) => json(&report)?,
        (false, true) => html(&report, zone).map_err(not_laid_out)?,
        (false, false) => markdown(&report, zone).map_err(not_laid_out)?,
    };
    match &args.output {
        Some(file) => std::fs::write(file, text).map_err(|error| {
            let message = format!("{} can not be written: {error}", file.display());
            CliError::new(Code::Environment, message)
        })?,
        None => io
            .out
            .write_all(text.as_bytes())
            .map_err(CliError::output)?,
    }
    Ok(Code::Ok)
}

fn json(report: &Report) -> Result<String, CliError> {
    let text = serde_json::to_string(report);
    let mut text = text.map_err(|error| CliError::from_source(Code::Internal, &error))?;
    text.push('\n');
    Ok(text)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the form that `map_err` calls"
)]
fn not_laid_out(error: crate::view::report::RenderError) -> CliError {
    CliError::from_source(Code::Internal, &error)
}

/// The records of a batch, folded once.
struct Past {
    core: Core,
    history: History,
}

impl Past {
    fn read(batch: &Found) -> Result<Past, CliError> {
        let mut history = History::default();
        let core = explain::replay(batch, u64::MAX, &mut |core, entry| {
            history.tell(core.facts(), entry);
            Ok(())
        })?;
        Ok(Past { core, history })
    }
}

/// What lies beside the journal; less is said where it can not be read.
fn beside(dir: &StateDir) -> Beside {
    Beside {
        integrated: integrated::read(dir).unwrap_or_default(),
        torn: reports::torn(&RealDisk, dir),
    }
}

/// Leaves the report of a batch whose supervisor ends in the folder of its files. `file`: the batch
/// file.
///
/// # Errors
/// When the journal is too long for that or can not be read, or the disk does not take the files; an
/// older report is gone then.
pub(super) fn keep(dir: &StateDir, file: PathBuf) -> Result<(), CliError> {
    let made = named(dir).and_then(|id| {
        let dir = dir.clone();
        make(&Found { id, dir, file })
    });
    let kept = made.and_then(|(markdown, html)| {
        reports::write(&RealDisk, dir, &markdown, &html).map_err(CliError::from)
    });
    if kept.is_err() {
        reports::remove(&RealDisk, dir);
    }
    kept
}

/// The folder of a batch has its id as its name.
fn named(dir: &StateDir) -> Result<BatchId, CliError> {
    let name = dir.path().file_name().and_then(OsStr::to_str);
    let id = name.and_then(|name| name.parse().ok());
    id.ok_or_else(|| {
        let message = format!("{} is not the folder of a batch", dir.path().display());
        CliError::new(Code::Internal, message)
    })
}

fn make(batch: &Found) -> Result<(String, String), CliError> {
    let bytes = reports::journal_bytes(&RealDisk, &batch.dir)?;
    if bytes > JOURNAL_MAX {
        let message = format!("the journal has {bytes} bytes, and {JOURNAL_MAX} are read at most");
        let hint = format!("`supervisor report {}` has no such limit", batch.id);
        return Err(CliError::new(Code::Environment, message).hint(hint));
    }
    let past = Past::read(batch)?;
    let Some(facts) = past.core.facts() else {
        return Err(CliError::new(Code::NotFound, "the batch has no record yet"));
    };
    let view = View {
        facts,
        presence: Presence {
            pid: None,
            alive: false,
            recovering: false,
        },
        guard: None,
        hosts: BTreeMap::new(),
        activity: BTreeMap::new(),
        time: local_time(),
        dir: &batch.dir.path().display().to_string(),
        file: &batch.file.display().to_string(),
    };
    let report = Report::new(&view, &past.history, &beside(&batch.dir), None);
    let zone = &view.time.zone;
    let markdown = markdown(&report, zone).map_err(not_laid_out)?;
    Ok((markdown, html(&report, zone).map_err(not_laid_out)?))
}

/// The report that the last supervisor left, where it could.
pub(super) fn kept(batch: &Found) -> Option<PathBuf> {
    let path = batch.dir.report_markdown();
    path.is_file().then_some(path)
}
