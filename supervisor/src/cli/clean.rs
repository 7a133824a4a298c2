//! `supervisor clean`: removes worktrees of tasks that are over; everything in them is kept first.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use protocol::ids::TaskId;
use supervisor_core::core::Change;
use supervisor_core::facts::Task;
use supervisor_core::input::{OperatorCommand, StopStage};
use supervisor_core::machine::{BatchState, MergeState};
use supervisor_core::plan::TaskIx;
use supervisor_core::record::Record;

use crate::cli::error::{CliError, Code};
use crate::cli::killer::refuse_inside;
use crate::cli::open::{Found, Opened, Shelf};
use crate::cli::processes::Known;
use crate::cli::target::Target;
use crate::cli::{Io, act, pace, run};
use crate::control::wire::Want;
use crate::driver::{self, Mode, Note, Observer, Options, Picture};
use crate::store::{LockState, RealDisk, load};
use crate::view::delivery;
use crate::view::family::size;

const EXAMPLES: &str = "Examples:
  supervisor clean                     what would go, and what of it is kept where
  supervisor clean nightly --yes       every worktree of its ended tasks
  supervisor clean nightly/lexer --yes

Everything in a worktree goes to a ref of its own before the worktree goes, and is read back;
`supervisor salvage list` names these refs. Not at a terminal nothing is done without `--yes`.
Without a live supervisor this command does it, and starts nothing else of the batch.
Exit codes: 0 done, or nothing to do, 1 a worktree stays, 6 not found, 7 ambiguous, 8 refused.";

/// Files and folders that are counted for the size of one worktree; beyond it is said to be larger.
const ENTRIES_MAX: usize = 2_000_000;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Batches or tasks; without any, the unfinished batch of this repository
    target: Vec<Target>,
    /// Show what would go; remove nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let mut plans = Vec::new();
    for (batch, tasks) in act::by_batch(&args.target)? {
        let plan = Plan::of(batch, tasks.as_deref())?;
        plan.tell(io)?;
        plans.push(plan);
    }
    plans.retain(|plan| !plan.going.is_empty());
    if plans.is_empty() {
        return Ok(Code::Ok);
    }
    if args.dry_run || !(args.yes || asked(io)?) {
        io.line("nothing was removed; `--yes` does it")?;
        return Ok(Code::Ok);
    }
    let mut code = Code::Ok;
    for plan in plans {
        if !plan.carry_out(io)? {
            code = Code::Failed;
        }
    }
    Ok(code)
}

/// Whether a person at the terminal says yes; nobody is there to be asked: no.
fn asked(io: &mut Io<'_>) -> Result<bool, CliError> {
    let stdin = std::io::stdin();
    if !io.is_terminal || !stdin.is_terminal() {
        return Ok(false);
    }
    write!(io.out, "remove these worktrees? [y/N] ").map_err(CliError::output)?;
    io.out.flush().map_err(CliError::output)?;
    let mut answer = String::new();
    stdin.read_line(&mut answer).map_err(|error| {
        CliError::new(Code::Environment, format!("stdin can not be read: {error}"))
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// One worktree that can go.
struct Going {
    ix: TaskIx,
    id: TaskId,
    path: PathBuf,
    size: Size,
    merged: Option<String>,
}

/// What of one batch goes.
struct Plan {
    batch: Found,
    going: Vec<Going>,
    /// What was named and stays, and why.
    stays: Vec<(TaskId, &'static str)>,
    /// The last record when this was looked at.
    seq: u64,
}

impl Plan {
    /// Looks at these tasks of a batch, or at all of them.
    fn of(batch: Found, named: Option<&[TaskId]>) -> Result<Plan, CliError> {
        let opened = batch.read()?;
        let facts = opened.facts();
        let view = opened.view(BTreeMap::new());
        let places = view.places();
        let (mut going, mut stays) = (Vec::new(), Vec::new());
        for (number, task) in (0..).zip(&facts.tasks) {
            if named.is_some_and(|named| !named.contains(&task.id)) {
                continue;
            }
            match (places.worktree(task), why_it_stays(task)) {
                (Some(path), None) => going.push(Going {
                    ix: TaskIx(number),
                    id: task.id.clone(),
                    size: Size::of(&path),
                    merged: merged(task),
                    path,
                }),
                (Some(_), Some(why)) => stays.push((task.id.clone(), why)),
                (None, _) if named.is_some() => stays.push((task.id.clone(), "has no worktree")),
                (None, _) => {}
            }
        }
        let seq = facts.batch.seq;
        Ok(Plan {
            batch,
            going,
            stays,
            seq,
        })
    }

    fn tell(&self, io: &mut Io<'_>) -> Result<(), CliError> {
        let id = &self.batch.id;
        for (task, why) in &self.stays {
            io.line(format_args!("{id}/{task}: {why}"))?;
        }
        for one in &self.going {
            let (task, size, path) = (&one.id, one.size, one.path.display());
            let kept = match &one.merged {
                Some(commit) => format!("merged by {commit}; what else is in it is salvaged first"),
                None => "not merged: all of it is salvaged first".to_owned(),
            };
            io.line(format_args!("{id}/{task}: {size}, {kept}\n  {path}"))?;
        }
        if self.going.is_empty() && self.stays.is_empty() {
            return io.line(format_args!("{id}: no worktrees"));
        }
        let total = self
            .going
            .iter()
            .fold(Size::default(), |sum, one| sum.and(one.size));
        let count = self.going.len();
        io.line(format_args!("{id}: {count} worktrees can go, {total}"))
    }

    /// Lets them go and tells what came of each; whether all went.
    fn carry_out(&self, io: &mut Io<'_>) -> Result<bool, CliError> {
        let tasks = self.going.iter().map(|one| one.id.clone()).collect();
        let want = Want::Clean { tasks: Some(tasks) };
        if act::order(&self.batch, want, io)? {
            io.out.flush().map_err(CliError::output)?;
            self.wait()?;
        } else {
            self.take_over()?;
        }
        self.tell_ends(io)
    }

    /// Until none of them is going any more, or nobody works on it.
    fn wait(&self) -> Result<(), CliError> {
        loop {
            let opened = self.batch.read()?;
            let tasks = &opened.facts().tasks;
            let is_going = |one: &Going| {
                let task = tasks.get(one.ix.0 as usize);
                task.is_some_and(|task| task.clean.is_some())
            };
            if !opened.presence.alive || !self.going.iter().any(is_going) {
                return Ok(());
            }
            pace::before_next_look();
        }
    }

    /// Becomes the batch's supervisor for as long as it takes.
    fn take_over(&self) -> Result<(), CliError> {
        let batch = &self.batch;
        if let Some(known) = Known::fold(batch, batch.lock()?)? {
            refuse_inside(&known)?;
        }
        if let Some(guard) = batch.guard()?.filter(|guard| guard.alive) {
            let message = format!(
                "guardian pid {} is starting the supervisor of batch {} again",
                guard.pid, batch.id
            );
            return Err(CliError::new(Code::Refused, message).hint("try again in a moment"));
        }
        let host = driver::host_program()?;
        let socket = Shelf::open()?.root().socket(&batch.id);
        if let LockState::Held(_) = batch.lock()? {
            let message = format!("batch {} has a live supervisor by now", batch.id);
            return Err(CliError::new(Code::Refused, message).hint("try again"));
        }
        let lock = run::take(&batch.dir, socket.clone(), None)?;
        let commands = commands(&batch.read()?, &self.going);
        let mut silent = Silent;
        driver::run(Options {
            dir: batch.dir.clone(),
            lock,
            socket,
            host,
            mode: Mode::Resume,
            commands,
            guarded: None,
            observer: &mut silent,
        })?;
        Ok(())
    }

    /// What the journal says of each since the order was given.
    fn tell_ends(&self, io: &mut Io<'_>) -> Result<bool, CliError> {
        let mut ends: BTreeMap<TaskIx, (bool, String)> = BTreeMap::new();
        load::replay(&RealDisk, &self.batch.dir, &mut |entry| {
            if let Record::CleanEnded {
                task,
                removed,
                detail,
            } = entry.record
                && entry.seq > self.seq
            {
                ends.insert(task, (removed, detail.to_string()));
            }
            Ok(())
        })?;
        let opened = self.batch.read()?;
        let (id, mut all) = (&self.batch.id, true);
        for one in &self.going {
            let task = &one.id;
            let (removed, said) = ends.remove(&one.ix).unwrap_or_else(|| {
                (
                    false,
                    "not yet: its supervisor ended first; say it again".to_owned(),
                )
            });
            all &= removed;
            io.line(format_args!(
                "{id}/{task}: {}",
                delivery::clean_ended(removed, &said)
            ))?;
            let known = opened.facts().tasks.get(one.ix.0 as usize);
            if let Some(kept) = known
                .and_then(|task| task.salvaged.last())
                .filter(|_| removed)
            {
                let (reference, commit) = (&kept.reference, kept.commit.short());
                io.line(format_args!("  kept by {reference} at {commit}"))?;
            }
        }
        Ok(all)
    }
}

/// What a supervisor of its own is told: a batch that is not over is not gone on with.
fn commands(opened: &Opened, going: &[Going]) -> Vec<OperatorCommand> {
    let tasks = Some(going.iter().map(|one| one.ix).collect());
    let clean = OperatorCommand::Clean { tasks };
    match opened.facts().batch.state {
        BatchState::Done | BatchState::Failed => vec![clean],
        BatchState::Running
        | BatchState::Paused
        | BatchState::Stopping
        | BatchState::Interrupted => vec![clean, OperatorCommand::Stop(StopStage::Drain)],
    }
}

/// Why the worktree of a task can not go now.
fn why_it_stays(task: &Task) -> Option<&'static str> {
    if task.clean.is_some() {
        return Some("its worktree is going already");
    }
    if !task.state.is_terminal() {
        return Some("is not over: its worktree stays");
    }
    let merging = task.merge.as_ref().is_some_and(|it| !it.state.is_settled());
    merging.then_some("is being merged: its worktree stays")
}

/// The commit on the batch branch that holds the work, shortened.
fn merged(task: &Task) -> Option<String> {
    let merge = delivery::merge(task)?;
    let commit = merge
        .merged
        .as_ref()
        .filter(|_| merge.state == MergeState::Merged);
    Some(commit?.short().to_owned())
}

/// Bytes of the files below a folder.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    bytes: u64,
    /// Something could not be counted.
    more: bool,
}

impl Size {
    /// Follows no link; what can not be read is left out, and that is said.
    fn of(folder: &Path) -> Size {
        let mut size = Size::default();
        let (mut folders, mut left) = (vec![folder.to_owned()], ENTRIES_MAX);
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                size.more = true;
                continue;
            };
            for entry in entries {
                let meta = entry.as_ref().map(|entry| (entry.path(), entry.metadata()));
                let (Ok((path, Ok(meta))), Some(fewer)) = (meta, left.checked_sub(1)) else {
                    size.more = true;
                    continue;
                };
                left = fewer;
                if meta.is_dir() {
                    folders.push(path);
                } else {
                    size.bytes = size.bytes.saturating_add(meta.len());
                }
            }
        }
        size
    }

    fn and(self, other: Size) -> Size {
        Size {
            bytes: self.bytes.saturating_add(other.bytes),
            more: self.more || other.more,
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.more { "more than " } else { "" };
        write!(f, "{more}{}", size(self.bytes))
    }
}

/// Shows nothing: what came of it is told at the end.
struct Silent;

impl Observer for Silent {
    fn changed(&mut self, _picture: Picture<'_>, _changes: &[Change]) {}
    fn noted(&mut self, _note: Note<'_>) {}
    fn refresh_every(&self) -> Option<std::time::Duration> {
        None
    }
    fn refresh(&mut self, _picture: Picture<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_as_large_as_its_files_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/a"), [0; 1000]).unwrap();
        std::fs::write(folder.path().join("b"), [0; 24]).unwrap();
        let before = Size::of(folder.path());
        assert_eq!((before.bytes, before.more), (1024, false));
        std::os::unix::fs::symlink(folder.path(), folder.path().join("in/loop")).unwrap();
        let with_link = Size::of(folder.path());
        assert!(with_link.bytes < 2 * 1024, "{}", with_link.bytes);
        assert!(Size::of(&folder.path().join("gone")).more);
    }
}
