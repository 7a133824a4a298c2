//! `status` for a person: where the batch is, then the tasks that matter now.

use std::io::{self, Write};
use std::path::Path;

use supervisor_core::facts::Task;
use supervisor_core::machine::{BatchState, MergeState, TaskState};

use crate::view::asked::needs_person;
use crate::view::delivery;
use crate::view::reason::{BatchWhy, TaskWhy};
use crate::view::status::Filter;
use crate::view::time::Span;
use crate::view::{Counts, Guard, View};

/// Tasks shown that neither live nor need a person, unless all were asked for.
const OTHERS_MAX: usize = 20;
/// Most columns of an id; longer ones push the rest of their line.
const ID_MAX: usize = 32;

/// Writes the whole picture.
///
/// # Errors
/// When `out` can not be written.
pub fn write_text(
    view: &View<'_>,
    filter: &Filter,
    all: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let counts = view.counts();
    head(view, &counts, out)?;
    let shown = chosen(view, filter, all);
    if shown.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let widest = shown.iter().map(|task| task.id.as_str().len()).max();
    let width = widest.unwrap_or(0).clamp(4, ID_MAX);
    let merges = !view.facts.repos.is_empty();
    let merge = if merges { "  MERGE      " } else { "" };
    writeln!(
        out,
        "{:width$}  {:9}  {:>7}  {:>8}{merge}  WHY",
        "TASK", "STATE", "ATTEMPT", "SINCE"
    )?;
    for task in &shown {
        row(view, task, width, merges, out)?;
    }
    let wanted = view.facts.tasks.iter();
    let hidden = wanted.filter(|task| filter.wants(view, task)).count() - shown.len();
    if hidden > 0 {
        writeln!(out, "... and {hidden} more; `--all` shows them")?;
    }
    Ok(())
}

/// Failed tasks named at the end of a run; `status` shows the rest.
const FAILED_MAX: usize = 10;

/// Writes the last words of a run: what came of it, what failed, where everything is, what next.
/// `report`: the file in which it is told at length.
///
/// # Errors
/// When `out` can not be written.
pub fn write_ending(view: &View<'_>, report: Option<&Path>, out: &mut dyn Write) -> io::Result<()> {
    let counts = view.counts();
    writeln!(out)?;
    head(view, &counts, out)?;
    if let Some(report) = report {
        writeln!(out, "  report {}", report.display())?;
    }
    let needy = || view.facts.tasks.iter().filter(|task| needs_person(task));
    for task in needy().take(FAILED_MAX) {
        writeln!(
            out,
            "  {} {}: {}",
            task.id,
            view.task_state(task),
            TaskWhy { view, task }
        )?;
    }
    let more = needy().count().saturating_sub(FAILED_MAX);
    if more > 0 {
        writeln!(out, "  ... and {more} more")?;
    }
    let (id, file) = (&view.facts.batch.id, view.file);
    writeln!(out, "next:")?;
    writeln!(out, "  supervisor status {id} --all")?;
    if let Some(task) = needy().next() {
        writeln!(out, "  supervisor logs {id}/{}", task.id)?;
        writeln!(out, "  supervisor explain {id}/{}", task.id)?;
    }
    match view.batch_state() {
        BatchState::Done => Ok(()),
        BatchState::Failed => writeln!(out, "  supervisor run {file} --retry-failed"),
        BatchState::Running
        | BatchState::Paused
        | BatchState::Stopping
        | BatchState::Interrupted => writeln!(out, "  supervisor run {file}"),
    }
}

fn head(view: &View<'_>, counts: &Counts, out: &mut dyn Write) -> io::Result<()> {
    let batch = &view.facts.batch;
    writeln!(
        out,
        "{}  {}  {}",
        batch.id,
        view.batch_state(),
        BatchWhy { view }
    )?;
    let (settled, all) = (counts.settled(), counts.all());
    writeln!(out, "  {settled} of {all} settled: {}", counts.sentence())?;
    write!(
        out,
        "  started {} ago, last record {} ago",
        view.time.since(batch.created),
        view.time.since(batch.now.wall)
    )?;
    match view.presence.pid {
        Some(pid) if view.presence.recovering => write!(
            out,
            ", supervisor pid {pid} is recovering: it waits for what the one before it left"
        )?,
        Some(pid) if view.presence.alive => write!(out, ", supervisor pid {pid}")?,
        Some(_) | None => write!(out, ", no supervisor")?,
    }
    writeln!(out, "{}", guard(view))?;
    let usage = batch.usage;
    if usage.tokens > 0 || usage.cost_micros > 0 {
        let cents = usage.cost_micros / 10_000;
        writeln!(
            out,
            "  used {} tokens, {}.{:02} USD",
            usage.tokens,
            cents / 100,
            cents % 100
        )?;
    }
    writeln!(out, "  files {}", view.dir)
}

/// Who starts the supervisor again, after the words that name it.
fn guard(view: &View<'_>) -> String {
    match (view.guard, view.presence.alive) {
        (Some(Guard { pid, alive: true }), true) => format!(", guardian pid {pid}"),
        (Some(Guard { pid, alive: true }), false) if view.is_cut_off() => {
            format!(" now: guardian pid {pid} starts one")
        }
        (Some(Guard { pid, alive: false }), true) => {
            format!("; its guardian (pid {pid}) is gone: nobody starts it again")
        }
        (Some(_) | None, _) => String::new(),
    }
}

/// What a person wants to see first: what needs them, what lives, what comes next, what is over.
fn rank(view: &View<'_>, task: &Task) -> u8 {
    if needs_person(task) {
        return 0;
    }
    match view.task_state(task) {
        TaskState::Waiting | TaskState::Running | TaskState::Verifying | TaskState::Reviewing => 1,
        TaskState::Paused | TaskState::Failed => 1,
        TaskState::Ready => 2,
        TaskState::Blocked => 3,
        TaskState::Pending => 4,
        TaskState::Skipped | TaskState::Cancelled => 5,
        TaskState::Done => 6,
    }
}

fn chosen<'a>(view: &'a View<'_>, filter: &Filter, all: bool) -> Vec<&'a Task> {
    let wanted = view.facts.tasks.iter();
    let mut ranked: Vec<(u8, &Task)> = wanted
        .filter(|task| filter.wants(view, task))
        .map(|task| (rank(view, task), task))
        .collect();
    if all {
        return ranked.into_iter().map(|(_, task)| task).collect();
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    let first = ranked.partition_point(|(rank, _)| *rank < 2);
    // A reader who asked for a kind of task wants more of it than one who asked for nothing.
    let others = if filter.is_open() {
        OTHERS_MAX
    } else {
        usize::MAX
    };
    ranked.truncate(first.saturating_add(others));
    ranked.into_iter().map(|(_, task)| task).collect()
}

/// `merges`: the batch has something to merge, so each line says where its merge is.
fn row(
    view: &View<'_>,
    task: &Task,
    width: usize,
    merges: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let state = view.task_state(task);
    let since: Span = view.time.since(task.since);
    let attempt = match task.attempts.0 {
        0 => "-".to_owned(),
        number => number.to_string(),
    };
    let merge = match (merges, delivery::merge_state(task)) {
        (false, _) => String::new(),
        (true, MergeState::None) => format!("  {:11}", "-"),
        (true, state) => format!("  {state:11}"),
    };
    writeln!(
        out,
        "{:width$}  {state:9}  {attempt:>7}  {since:>8}{merge}  {}",
        task.id,
        TaskWhy { view, task }
    )
}
