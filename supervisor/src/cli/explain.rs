//! `supervisor explain`: the story of a batch or a task, record by record.

use std::io::Write;

use serde::Serialize;
use supervisor_core::core::Core;
use supervisor_core::plan::TaskIx;
use supervisor_core::record::Entry;

use crate::cli::base_moved::Moved;
use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Opened, Shelf, local_time};
use crate::cli::target::Target;
use crate::cli::{Io, act, base_moved, forecast, integrate};
use crate::store::{RealDisk, StoreError, load};
use crate::view::forecast::{Forecast, write_text as write_forecast};
use crate::view::reason::{BatchWhy, TaskWhy};
use crate::view::status::TaskRow;
use crate::view::story::{self, About, Line};
use crate::view::time::Stamp;
use crate::view::{Presence, View};

const EXAMPLES: &str = "Examples:
  supervisor explain lexer              every decision about a task, and what it waits for now
  supervisor explain nightly            the batch, and how each attempt ended
  supervisor explain lexer --at 120     the story up to record 120, and the state at that moment
  supervisor explain lexer --json | jq -r '.story[].text'";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A batch or a task
    target: Option<Target>,
    /// Up to this record of the journal, with the state at that moment
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    at: Option<u64>,
    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let meant = Shelf::open()?.find(args.target.as_ref())?;
    let opened = meant.batch.read()?;
    let task = match &meant.task {
        Some(word) => Some(opened.task(word)?),
        None => None,
    };
    let mut teller = Teller {
        opened: &opened,
        task,
        json: args.json,
        told: 0,
    };
    let last = args.at.unwrap_or(u64::MAX);
    if args.json {
        teller.open_json(io.out).map_err(CliError::output)?;
    }
    let then = replay(&meant.batch, last, &mut |core, entry| {
        teller.tell(core, entry, io.out).map_err(CliError::output)
    })?;
    match args.at {
        Some(seq) => {
            let view = past(&then, &opened).ok_or_else(|| {
                CliError::new(Code::NotFound, format!("the batch has no record {seq}"))
            })?;
            let closed = teller.close(&view, None, io.out);
            closed.map_err(CliError::output)?;
        }
        None => {
            let view = opened.view(act::activity(&meant.batch));
            let forecast = forecast::of(&meant.batch, opened.facts(), task);
            let after = After {
                moved: base_moved::moved(opened.facts()),
                forecast,
            };
            let closed = teller.close(&view, Some(&after), io.out);
            closed.map_err(CliError::output)?;
            if !args.json {
                if task.is_none() {
                    integrate::tell_before(&meant.batch, io)?;
                }
                base_moved::tell(&after.moved, io)?;
                write_forecast(&after.forecast, io.out).map_err(CliError::output)?;
            }
        }
    }
    Ok(Code::Ok)
}

/// Replays the journal up to a record; `each` sees every record with the state before it.
///
/// # Errors
/// Unreadable or newer (9), and what `each` says.
pub(super) fn replay(
    batch: &Found,
    last: u64,
    each: &mut dyn FnMut(&Core, &Entry) -> Result<(), CliError>,
) -> Result<Core, CliError> {
    let mut core = Core::new();
    let mut failed = None;
    let walked = load::replay(&RealDisk, &batch.dir, &mut |entry| {
        if entry.seq > last {
            return Ok(());
        }
        let step = each(&core, &entry).and_then(|()| {
            let replayed = core.replay(&entry).map(|_changes| ());
            replayed.map_err(|error| batch.illegal(&error))
        });
        step.map_err(|error| {
            let why = error.to_string();
            failed = Some(error);
            StoreError::Unreadable {
                file: batch.dir.journal(),
                offset: 0,
                why,
            }
        })
    });
    match (walked, failed) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
        (Ok(_torn), None) => Ok(core),
    }
}

/// The picture at an earlier record: as it was shown then, so its supervisor counts as living.
fn past<'a>(core: &'a Core, opened: &'a Opened) -> Option<View<'a>> {
    let facts = core.facts()?;
    let mut time = local_time();
    time.now = facts.batch.now.wall;
    let pid = facts.batch.supervisor.as_ref().map(|identity| identity.pid);
    Some(opened.view_of(
        facts,
        Presence {
            pid,
            alive: true,
            recovering: false,
        },
        time,
    ))
}

struct Teller<'a> {
    opened: &'a Opened,
    /// Absent: the batch.
    task: Option<TaskIx>,
    json: bool,
    told: u64,
}

#[derive(Serialize)]
struct Row<'a> {
    seq: u64,
    time: Stamp,
    term: u64,
    task: Option<&'a str>,
    record: &'static str,
    text: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum NowRow<'a> {
    Batch {
        state: &'static str,
        reason: BatchWhy<'a>,
    },
    Task(Box<TaskRow<'a>>),
}

/// What is seen now and is in no record; of an earlier moment there is none.
#[derive(Serialize)]
struct After {
    moved: Vec<Moved>,
    #[serde(flatten)]
    forecast: Forecast,
}

#[derive(Serialize)]
struct Closing<'a> {
    now: NowRow<'a>,
    #[serde(flatten)]
    after: Option<&'a After>,
}

impl Teller<'_> {
    fn open_json(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let facts = self.opened.facts();
        let task = self.task.map(|ix| facts.tasks[ix.0 as usize].id.as_str());
        write!(out, "{{\"batch\":\"{}\",\"task\":", facts.batch.id)?;
        serde_json::to_writer(&mut *out, &task)?;
        out.write_all(b",\"story\":[")
    }

    /// A batch's story is its own records, its merges, and how attempts and tasks ended; a task's is
    /// all of its, with the rounds in which its merge was.
    fn is_told(&self, line: &Line) -> bool {
        match (self.task, &line.about) {
            (Some(task), About::Task(about)) => task == *about,
            (Some(task), About::Round(tasks)) => tasks.contains(&task),
            (Some(_), About::Batch) => false,
            (None, About::Batch) => true,
            (None, About::Task(_)) => matches!(
                line.record,
                "attempt_ended" | "task_ended" | "merge_moved" | "clean_ended"
            ),
            (None, About::Round(_)) => {
                matches!(line.record, "round_began" | "round_moved" | "round_ended")
            }
        }
    }

    fn tell(&mut self, core: &Core, entry: &Entry, out: &mut dyn Write) -> std::io::Result<()> {
        let line = story::line(core.facts(), entry);
        if !self.is_told(&line) {
            return Ok(());
        }
        self.told += 1;
        let tasks = &self.opened.facts().tasks;
        let task = match &line.about {
            About::Task(ix) => tasks.get(ix.0 as usize).map(|task| task.id.as_str()),
            About::Batch | About::Round(_) => None,
        };
        let time = Stamp(entry.now.wall);
        if self.json {
            if self.told > 1 {
                out.write_all(b",\n")?;
            }
            let row = Row {
                seq: entry.seq,
                time,
                term: entry.term,
                task,
                record: line.record,
                text: &line.text,
            };
            return serde_json::to_writer(out, &row).map_err(Into::into);
        }
        let name = if self.task.is_some() { None } else { task };
        let name = name.map_or_else(String::new, |name| format!("{name}: "));
        writeln!(out, "{:>7}  {time}  {name}{}", entry.seq, line.text)
    }

    fn close(
        &self,
        view: &View<'_>,
        after: Option<&After>,
        out: &mut dyn Write,
    ) -> std::io::Result<()> {
        let task = self.task.and_then(|ix| view.task(ix));
        if self.json {
            let now = match task {
                Some(task) => NowRow::Task(Box::new(TaskRow::new(view, &view.places(), task))),
                None => NowRow::Batch {
                    state: view.batch_state().word(),
                    reason: BatchWhy { view },
                },
            };
            // The keys behind the story, in the object that began before it.
            let keys = serde_json::to_string(&Closing { now, after })?;
            writeln!(out, "],{}", keys.trim_start_matches('{'))?;
            return Ok(());
        }
        match task {
            Some(task) => writeln!(
                out,
                "    now  {}  {}: {}",
                Stamp(view.time.now),
                view.task_state(task),
                TaskWhy { view, task }
            ),
            None => writeln!(
                out,
                "    now  {}  {}: {}",
                Stamp(view.time.now),
                view.batch_state(),
                BatchWhy { view }
            ),
        }
    }
}
