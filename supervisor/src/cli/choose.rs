//! What `run` does with a batch file: begin, go on, or refuse.

use std::collections::BTreeMap;

use supervisor_core::facts::{Facts, Repo};
use supervisor_core::input::OperatorCommand;
use supervisor_core::machine::{BatchState, TaskState};
use supervisor_core::plan::{Plan, RetryMode, Settings, TaskIx};
use supervisor_core::revision;

use crate::batch_file::BatchFile;
use crate::batch_file::pinned::keep_pinned;
use crate::batch_file::work::BatchWork;
use crate::cli::error::{CliError, Code};
use crate::cli::killer::refuse_inside;
use crate::cli::open::{Found, Opened};
use crate::cli::processes::Known;
use crate::cli::{run::Args, stored};
use crate::store::{Holder, LockState, RealDisk, StateRoot, inbox, index, untold};
use crate::view::delivery::merge_needs_person;
use crate::view::revision::{Change, changes};

/// What will be done.
#[derive(Debug)]
pub(super) enum Choice {
    /// There is no batch of the file, or another one is wanted.
    New,
    /// One was being created when it was cut off, or waits for its supervisor in the background.
    Begin(Found),
    /// One is unfinished, or has something to do again.
    GoOn(GoOn),
}

/// What `run` does.
#[derive(Debug)]
pub(super) enum Chosen {
    /// This, under the lock of the batch.
    Do(Choice),
    /// Follow a batch whose guardian, with this pid, is starting its supervisor again.
    Attach(Found, u32),
    /// Take the place of the guardian of this live supervisor, which has died.
    Watch(Found, Holder),
    /// Tell what came of a batch whose supervisor ended while nobody waited for it.
    Tell(Found),
}

/// A batch to go on with.
#[derive(Debug)]
pub(super) struct GoOn {
    /// The batch.
    pub(super) batch: Found,
    /// What is to be done first.
    pub(super) commands: Vec<OperatorCommand>,
    /// Ids of the tasks that it holds as live.
    pub(super) live: BTreeMap<TaskIx, String>,
    /// Where it stands, for people.
    pub(super) told: String,
    /// The batch file was edited: what that changes.
    pub(super) edit: Option<Edit>,
}

/// An edited batch file that the batch takes.
#[derive(Debug)]
pub(super) struct Edit {
    /// Its number: under this one what was read is kept.
    pub(super) number: u32,
    /// What it changes.
    pub(super) changes: Vec<Change>,
}

/// Finds the batch of this name and repository, and decides. `own` is the pid of our own guardian,
/// which is no reason to wait for it.
///
/// # Errors
/// Live, finished, edited, or options that only a new batch takes (8); unreadable (9).
pub(super) fn choose(
    args: &Args,
    root: &StateRoot,
    file: &BatchFile,
    own: Option<u32>,
) -> Result<Chosen, CliError> {
    let same = index::find(&RealDisk, root, &file.identity.name, &file.identity.root)?;
    let Some(newest) = same.first() else {
        return Ok(Chosen::Do(Choice::New));
    };
    let batch = Found::from(newest);
    if let LockState::Held(holder) = batch.lock()? {
        let pid = holder.as_ref().map(|holder| holder.pid);
        return match holder.filter(|_| asks_for_no_more(args)) {
            Some(holder) if has_lost_its_guardian(&batch, &holder, file)? => {
                Ok(Chosen::Watch(batch, holder))
            }
            Some(_) | None => Err(live(&batch, pid)),
        };
    }
    if let Some(guardian) = other_guardian(&batch, own)? {
        refuse_beside(args, &batch, guardian)?;
        return Ok(Chosen::Attach(batch, guardian));
    }
    if asks_for_no_more(args) && untold::is_left(&batch.dir) && is_over(&batch, file) {
        return Ok(Chosen::Tell(batch));
    }
    unattended(args, batch, file).map(Chosen::Do)
}

/// The living guardian of the batch, if it is not ours.
fn other_guardian(batch: &Found, own: Option<u32>) -> Result<Option<u32>, CliError> {
    let guard = batch.guard()?.filter(|guard| guard.alive);
    Ok(guard.map(|guard| guard.pid).filter(|&pid| Some(pid) != own))
}

/// Whether the command is about the batch as it goes on, and nothing more.
fn asks_for_no_more(args: &Args) -> bool {
    !(args.new || args.retry_failed || !args.only.is_empty() || args.until.is_some())
}

/// Whether the batch has an outcome, and there is nothing more to do for it. What can not be read is
/// told by whoever reads it next.
fn is_over(batch: &Found, file: &BatchFile) -> bool {
    let Ok(Some(opened)) = batch.read_any() else {
        return false;
    };
    let facts = &opened.facts().batch;
    let waits = inbox::waiting(&RealDisk, &batch.dir).map_or(true, |it| !it.is_empty());
    matches!(facts.state, BatchState::Done | BatchState::Failed)
        && !waits
        && !stored::is_edited(batch, facts.revision, &file.inputs)
}

/// Whether the live supervisor was started by a guardian that has died, and works on what the batch
/// file still says: then somebody may take the guardian's place, but no run of the batch itself.
fn has_lost_its_guardian(
    batch: &Found,
    holder: &Holder,
    file: &BatchFile,
) -> Result<bool, CliError> {
    let has_lost = batch.first_guard()?.is_some_and(|guard| !guard.alive);
    if !has_lost || holder.start_ticks == 0 {
        return Ok(false);
    }
    let Some(opened) = batch.read_any()? else {
        return Ok(true); // it has just begun
    };
    if let Some(known) = Known::read(batch)? {
        refuse_inside(&known)?;
    }
    let revision = opened.facts().batch.revision;
    Ok(!stored::is_edited(batch, revision, &file.inputs))
}

/// What asks for more than the batch as it goes on is not silently passed over.
fn refuse_beside(args: &Args, batch: &Found, guardian: u32) -> Result<(), CliError> {
    if asks_for_no_more(args) {
        return Ok(());
    }
    let id = &batch.id;
    let message = format!("guardian pid {guardian} is starting the supervisor of batch {id} again");
    Err(CliError::new(Code::Refused, message).hint("without options `supervisor run` follows it"))
}

/// What to do with a batch that nobody works on.
fn unattended(args: &Args, batch: Found, file: &BatchFile) -> Result<Choice, CliError> {
    let opened = match batch.read_any() {
        Ok(Some(opened)) => opened,
        Ok(None) => return Ok(Choice::Begin(batch)),
        Err(error) if error.code() != Code::Unreadable => return Err(error),
        Err(_) if args.new => return Ok(Choice::New),
        Err(error) => {
            return Err(error.hint("`--new` begins another batch and leaves this one as it is"));
        }
    };
    if args.new {
        return Ok(Choice::New);
    }
    let commands = match opened.facts().batch.state {
        BatchState::Done | BatchState::Failed => again(args, &batch, &opened)?,
        BatchState::Running
        | BatchState::Paused
        | BatchState::Stopping
        | BatchState::Interrupted => retry_failed(args, &opened).into_iter().collect(),
    };
    refuse_new_only(args, &batch)?;
    let (edit, plan) = edit(args, &batch, &opened, file)?.unzip();
    let revise = plan.map(|plan| OperatorCommand::Revise(Box::new(plan)));
    Ok(Choice::GoOn(GoOn {
        // The edited file first: what is retried is retried under its rules.
        commands: revise.into_iter().chain(commands).collect(),
        live: live_tasks(&opened),
        told: told(&opened),
        edit,
        batch,
    }))
}

pub(super) fn live(batch: &Found, pid: Option<u32>) -> CliError {
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let id = &batch.id;
    CliError::new(
        Code::Refused,
        format!("batch {id} has a live supervisor{pid}"),
    )
    .hint(format!(
        "`supervisor status {id}` shows it, `supervisor wait {id}` waits for it"
    ))
}

/// A finished batch goes on only where something is to be done again.
fn again(args: &Args, batch: &Found, opened: &Opened) -> Result<Vec<OperatorCommand>, CliError> {
    let retry = retry_failed(args, opened);
    let waits = !inbox::waiting(&RealDisk, &batch.dir)?.is_empty();
    if retry.is_some() || waits {
        return Ok(retry.into_iter().collect());
    }
    let state = opened.facts().batch.state;
    let error = CliError::new(
        Code::Refused,
        format!("batch {} is finished: {state}", batch.id),
    );
    let error = if args.retry_failed {
        error.hint("no task of it failed")
    } else {
        error.hint("`--retry-failed` does again what failed")
    };
    Err(error.hint("`--new` begins another batch of the same file"))
}

fn retry_failed(args: &Args, opened: &Opened) -> Option<OperatorCommand> {
    if !args.retry_failed {
        return None;
    }
    let numbered = (0..).zip(&opened.facts().tasks);
    let tasks: Vec<TaskIx> = numbered
        .filter(|(_, task)| {
            (task.state == TaskState::Failed && !task.removed) || merge_needs_person(task)
        })
        .map(|(number, _)| TaskIx(number))
        .collect();
    (!tasks.is_empty()).then_some(OperatorCommand::Retry {
        tasks,
        mode: RetryMode::Resume,
        attempts: None,
        note: None,
    })
}

fn refuse_new_only(args: &Args, batch: &Found) -> Result<(), CliError> {
    if args.only.is_empty() {
        return Ok(());
    }
    let message = format!("--only is for a new batch, and {} is unfinished", batch.id);
    Err(CliError::new(Code::Refused, message)
        .hint("without it this batch goes on; with `--new` another one begins"))
}

/// What the batch file says now, where that is not what the batch took last. `--set` and `--until`
/// are read with the file, so they count as an edit.
fn edit(
    args: &Args,
    batch: &Found,
    opened: &Opened,
    file: &BatchFile,
) -> Result<Option<(Edit, Plan)>, CliError> {
    let facts = opened.facts();
    let said = args.until.is_some() || !args.file.set.is_empty();
    if !said && !stored::is_edited(batch, facts.batch.revision, &file.inputs) {
        return Ok(None);
    }
    let refused = |error: &dyn std::fmt::Display| {
        let message = format!("{} can not take the edited batch file: {error}", batch.id);
        CliError::new(Code::Refused, message)
            .hint(format!("the file that it has: {}", kept(batch, facts)))
            .hint("with that one it goes on; `--new` begins another batch with the edited one")
    };
    let plan = same_place(&facts.batch.settings, &facts.repos, args, file.plan.clone());
    let plan = plan.map_err(|error| refused(&error))?;
    let revision = revision::compare(facts, plan.clone()).map_err(|error| refused(&error))?;
    if revision.is_empty() {
        return Ok(None);
    }
    let edit = Edit {
        number: facts.batch.revision + 1,
        changes: changes(facts, &revision),
    };
    Ok(Some((edit, plan)))
}

fn kept(batch: &Found, facts: &Facts) -> String {
    let folder = batch.dir.revision(facts.batch.revision);
    folder.join("batch.yml").display().to_string()
}

/// The plan as this batch can take it: in the folder where its tasks work. Under which name the file
/// was given is no change.
fn same_place(old: &Settings, repos: &[Repo], args: &Args, mut plan: Plan) -> Result<Plan, String> {
    let read = |text: &str| serde_json::from_str::<BatchWork>(text);
    let works = read(&old.work).and_then(|old| Ok((old, read(&plan.settings.work)?)));
    let (old, mut new) = works.map_err(|error| format!("its rules can not be read: {error}"))?;
    if old.worktrees != new.worktrees {
        return Err(
            "`worktrees.dir` can not change: the worktrees of the batch lie there".to_owned(),
        );
    }
    if old.folder != new.folder {
        return Err(format!(
            "`repo` can not change: its tasks work in {}, the file names {}",
            old.folder.display(),
            new.folder.display()
        ));
    }
    if old.file != new.file {
        new.file = old.file;
        let text = serde_json::to_string(&new);
        let text = text.map_err(|error| format!("its rules can not be written: {error}"))?;
        plan.settings.work = text.into();
    }
    plan.settings.until = args.until.or(plan.settings.until);
    for repo in &mut plan.repos {
        if let Some(before) = repos.iter().find(|before| before.spec.name == repo.name) {
            keep_pinned(&before.spec, repo).map_err(|error| error.to_string())?;
        }
    }
    Ok(plan)
}

pub(super) fn live_tasks(opened: &Opened) -> BTreeMap<TaskIx, String> {
    let facts = opened.facts();
    let runs = facts.runs.values();
    runs.filter_map(|run| {
        let task = facts.tasks.get(run.task.0 as usize)?;
        Some((run.task, task.id.to_string()))
    })
    .collect()
}

pub(super) fn told(opened: &Opened) -> String {
    let view = opened.view(BTreeMap::new());
    let counts = view.counts();
    format!(
        "{} goes on: {} of {} settled ({}), {} runs to look at",
        view.facts.batch.id,
        counts.settled(),
        counts.all(),
        counts.sentence(),
        view.facts.runs.len()
    )
}
