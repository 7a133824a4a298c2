//! `supervisor clean`: removes worktrees of tasks that are over, or what in them can be built again.
//! What can not is kept first.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use protocol::build_output::BuildOutputFound;
use protocol::git::GitOutcome;
use protocol::ids::Generation;
use supervisor_core::core::Change;
use supervisor_core::facts::Salvage;
use supervisor_core::input::OperatorCommand;
use supervisor_core::plan::TaskIx;
use supervisor_core::record::Record;
use supervisor_core::step::{CleanStep, Purpose};

use crate::cli::clean_plan::{Choice, Going, Plan, What};
use crate::cli::clean_told::{self, End};
use crate::cli::error::{CliError, Code};
use crate::cli::killer::refuse_inside;
use crate::cli::open::Shelf;
use crate::cli::processes::Known;
use crate::cli::target::Target;
use crate::cli::{Io, act, pace, report, run};
use crate::control::wire::Want;
use crate::driver::{self, Mode, Note, Observer, Options, Picture};
use crate::store::{LockState, RealDisk, StateDir, load};

const EXAMPLES: &str = "Examples:
  supervisor clean                     what would go, and what of it is kept where
  supervisor clean nightly --yes       every worktree of its ended tasks
  supervisor clean nightly/lexer --yes
  supervisor clean nightly --older-than 3d --yes
  supervisor clean nightly --build-output

Everything in a worktree goes to a ref of its own before the worktree goes, and is read back;
`supervisor salvage list` names these refs. `--build-output` removes nothing but folders that git
ignores and that a tool fills again (target, node_modules, .venv, venv, __pycache__, .gradle, .tox,
.next, .pytest_cache), never one with a tracked file or a repository in it; they are not kept.
Not at a terminal nothing is done without `--yes`. Without a live supervisor this command does it,
and nothing else of the batch moves; killed half way, the same command goes on.
Exit codes: 0 done, or nothing to do, 1 something stays, 6 not found, 7 ambiguous, 8 refused.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Batches or tasks; without any, the unfinished batch of this repository
    target: Vec<Target>,
    /// Only worktrees whose task ended longer ago than this
    #[arg(long, value_name = "LENGTH", value_parser = act::length)]
    older_than: Option<Duration>,
    /// Only what can be built again; the worktrees stay
    #[arg(long)]
    build_output: bool,
    /// Show what would go; remove nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// For scripts: one JSON list, of the plan and what came of it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let what = match args.build_output {
        true => What::BuildOutput,
        false => What::Worktrees,
    };
    let mut plans = Vec::new();
    for (batch, named) in act::by_batch(&args.target)? {
        let plan = Plan::of(
            batch,
            Choice {
                what,
                named: named.as_deref(),
                older_than: args.older_than,
                now: act::now(),
            },
        )?;
        if !args.json {
            clean_told::plan(&plan, io)?;
        }
        plans.push(plan);
    }
    let nothing = plans.iter().all(|plan| plan.going.is_empty());
    let wanted = !nothing && !args.dry_run && (args.yes || (!args.json && asked(what, io)?));
    if !wanted {
        if args.json {
            let rows: Vec<_> = plans
                .iter()
                .map(|plan| clean_told::row(plan, None))
                .collect();
            clean_told::json(&rows, io)?;
        } else if !nothing {
            io.line("nothing was removed; `--yes` does it")?;
        }
        return Ok(Code::Ok);
    }
    let mut all = Vec::new();
    for plan in &plans {
        let ends = plan.carry_out(args.json, io)?;
        if !args.json {
            clean_told::ends(plan, &ends, io)?;
        }
        all.push((plan, ends));
    }
    if args.json {
        let rows = all
            .iter()
            .map(|(plan, ends)| clean_told::row(plan, Some(ends)));
        clean_told::json(&rows.collect::<Vec<_>>(), io)?;
    }
    let mut ends = all.iter().flat_map(|(_, ends)| ends.values());
    match ends.all(|end| end.done) {
        true => Ok(Code::Ok),
        false => Ok(Code::Failed),
    }
}

/// Whether a person at the terminal says yes; nobody is there to be asked: no.
fn asked(what: What, io: &mut Io<'_>) -> Result<bool, CliError> {
    let stdin = io::stdin();
    if !io.is_terminal || !stdin.is_terminal() {
        return Ok(false);
    }
    let what = match what {
        What::Worktrees => "worktrees",
        What::BuildOutput => "folders",
    };
    write!(io.out, "remove these {what}? [y/N] ").map_err(CliError::output)?;
    io.out.flush().map_err(CliError::output)?;
    let mut answer = String::new();
    stdin.read_line(&mut answer).map_err(|error| {
        CliError::new(Code::Environment, format!("stdin can not be read: {error}"))
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

impl Plan {
    /// Lets it go; what came of each.
    fn carry_out(&self, quietly: bool, io: &mut Io<'_>) -> Result<BTreeMap<TaskIx, End>, CliError> {
        if self.going.is_empty() {
            return Ok(BTreeMap::new());
        }
        let tasks = self.going.iter().map(|one| one.id.clone()).collect();
        let want = match self.what {
            What::Worktrees => Want::Clean { tasks: Some(tasks) },
            What::BuildOutput => Want::CleanBuildOutput { tasks },
        };
        let taken = match quietly {
            false => act::order(&self.batch, want, io)?,
            true => {
                let mut nowhere = io::sink();
                let mut quiet = Io {
                    out: &mut nowhere,
                    err: &mut *io.err,
                    is_terminal: false,
                };
                act::order(&self.batch, want, &mut quiet)?
            }
        };
        if taken {
            io.out.flush().map_err(CliError::output)?;
            self.wait()?;
        } else {
            self.take_over()?;
        }
        self.ends()
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

    /// Becomes the batch's supervisor for as long as it takes, and for nothing else.
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
        let tasks = self.going.iter().map(|one| one.ix).collect();
        let command = match self.what {
            What::Worktrees => OperatorCommand::Clean { tasks: Some(tasks) },
            What::BuildOutput => OperatorCommand::CleanBuildOutput { tasks },
        };
        let mut silent = Silent {
            file: batch.file.clone(),
        };
        driver::run(Options {
            dir: batch.dir.clone(),
            lock,
            socket,
            host,
            mode: Mode::CleanUps,
            commands: vec![command],
            guarded: None,
            observer: &mut silent,
        })?;
        Ok(())
    }

    /// What the journal says of each since the order was given.
    fn ends(&self) -> Result<BTreeMap<TaskIx, End>, CliError> {
        let mut heard = Heard::default();
        load::replay(&RealDisk, &self.batch.dir, &mut |entry| {
            if entry.seq > self.seq {
                heard.record(entry.record);
            }
            Ok(())
        })?;
        let opened = self.batch.read()?;
        let tasks = &opened.facts().tasks;
        let end = |one: &Going| {
            let kept = tasks.get(one.ix.0 as usize);
            let kept = kept.and_then(|task| task.salvaged.last());
            (one.ix, heard.end(one.ix, self.what, kept))
        };
        Ok(self.going.iter().map(end).collect())
    }
}

/// What records say of clean-ups.
#[derive(Debug, Default)]
struct Heard {
    /// Whether the worktree is gone, and what was said, of clean-ups that are over.
    ended: BTreeMap<TaskIx, (bool, String)>,
    /// Runs that remove build output.
    runs: BTreeMap<Generation, TaskIx>,
    /// What they removed.
    output: BTreeMap<TaskIx, BuildOutputFound>,
}

impl Heard {
    fn record(&mut self, record: Record) {
        if let Record::CleanEnded {
            task,
            removed,
            detail,
        } = record
        {
            self.ended.insert(task, (removed, detail.to_string()));
        } else if let Record::RunIntended {
            generation,
            task,
            purpose: Purpose::Clean(CleanStep::BuildOutput),
            ..
        } = record
        {
            self.runs.insert(generation, task);
        } else if let Record::RunFinished { generation, result } = record
            && let Some(task) = self.runs.get(&generation)
            && let Some(GitOutcome::BuildOutput(found)) = result.git.as_deref()
        {
            self.output.insert(*task, found.clone());
        }
    }

    fn end(&self, task: TaskIx, what: What, kept: Option<&Salvage>) -> End {
        let Some((removed, detail)) = self.ended.get(&task) else {
            let detail = "not yet: its supervisor ended first; say it again".to_owned();
            return End {
                detail,
                ..End::default()
            };
        };
        let output = self.output.get(&task).cloned();
        End {
            done: match what {
                What::Worktrees => *removed,
                What::BuildOutput => output.is_some(),
            },
            gone: *removed,
            detail: detail.clone(),
            kept: kept.filter(|_| *removed).cloned(),
            output,
        }
    }
}

/// Shows nothing: what came of it is told at the end. The batch file is named in the report.
struct Silent {
    file: PathBuf,
}

impl Observer for Silent {
    fn changed(&mut self, _picture: Picture<'_>, _changes: &[Change]) {}
    fn noted(&mut self, _note: Note<'_>) {}
    fn refresh_every(&self) -> Option<Duration> {
        None
    }
    fn refresh(&mut self, _picture: Picture<'_>) {}
    fn ended(&mut self, dir: &StateDir) {
        if let Err(error) = report::keep(dir, self.file.clone()) {
            tracing::warn!(%error, "no report is left with the batch");
        }
    }
}
