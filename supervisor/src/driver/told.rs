//! What the host of a run is told to do, by what the run is for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::command::RunKind;
use protocol::git::GitOutcome;
use protocol::ids::{Generation, TaskId};
use supervisor_core::facts::{Facts, Task};
use supervisor_core::plan::{AgentIx, OnConflict};
use supervisor_core::reconcile::ResultFact;
use supervisor_core::step::{CleanStep, Purpose, Stage, Step};

use super::git_work::About;
use super::places::Places;
use super::run_files;
use super::start::{Lodging, StartError, Starter, Subject, index, path_text};
use super::{about, comment};
use crate::batch_file::render::{
    DependencyResult, HookPoint, RenderContext, Rendered, RepoContext,
};
use crate::batch_file::render_repo::Conflict;
use crate::batch_file::work::{BatchWork, RepoWork, TaskWork};
use crate::store::StateDir;

/// Most runs of an attempt that are looked through for the newest proof.
const RUNS_MAX: usize = 1024;
/// Most bytes of a proof's output that a reviewer is told; the whole is in a file.
const PROOF_MAX: u64 = 4096;
/// Most files of one task that templates can name.
const OUTPUTS_MAX: usize = 4096;

/// Everything that what a run is told follows from.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) dir: &'a StateDir,
    pub(super) facts: &'a Facts,
    pub(super) batch: &'a BatchWork,
    pub(super) task: &'a TaskWork,
    /// Where it works, if that has to do with a repository.
    pub(super) lodging: Option<&'a Lodging>,
    pub(super) of: &'a Subject<'a>,
    /// What the attempt before has taught.
    pub(super) hand_off: Option<&'a str>,
}

impl<'a> Scope<'a> {
    fn lodging(&self) -> Result<&'a Lodging, StartError> {
        self.lodging.ok_or(StartError::Missing("repository"))
    }

    /// The folder of the runs of its attempt.
    fn runs(&self) -> Option<PathBuf> {
        let of = self.of;
        let run = self.dir.run(&of.task.id, of.run.attempt, of.generation);
        run.parent().map(Path::to_owned)
    }
}

impl Starter {
    /// Everything of a `start` that comes from the batch file, or is git work.
    ///
    /// # Errors
    /// [`StartError`] when a template fails, or the state does not hold what the run needs.
    pub(super) fn told(&mut self, scope: Scope<'_>) -> Result<Rendered, StartError> {
        let Scope {
            dir,
            facts,
            batch,
            task,
            lodging,
            of,
            hand_off,
        } = scope;
        let own_env = self.own_env.clone();
        let deps = if task.reads_deps {
            dependencies(dir, facts, of.task)
        } else {
            BTreeMap::new()
        };
        let made = of.task.worktree.as_ref();
        let about = match of.run.purpose {
            Purpose::Step(Step::Work | Step::Review) | Purpose::Merge(_, Stage::Resolve) => {
                about::read(dir, &of.task.id, task)?
            }
            Purpose::Step(_) | Purpose::Merge(_, _) | Purpose::Clean(_) | Purpose::Comment(_) => {
                None
            }
        };
        let context = RenderContext {
            batch: &facts.batch.id,
            batch_name: &facts.batch.settings.name,
            task: &of.task.id,
            attempt: of.run.attempt,
            item: of.task.item.as_deref(),
            slot: of.attempt.map_or(0, |attempt| attempt.slot),
            model: model(facts, of.spec.agent, of.task),
            deps: &deps,
            own_env: &own_env,
            repo: lodging.map(|it| RepoContext {
                work: &it.work,
                worktree: &it.worktree,
                branch: Some(&it.branch),
                base: made.map(|made| &made.base),
                commit: made.and_then(|made| made.commit.as_ref()),
            }),
            about: about.as_ref(),
            hand_off,
        };
        Ok(match of.run.purpose {
            Purpose::Step(Step::Work) => {
                let agent = self.agent_work(facts, of.spec.agent)?;
                self.renderer.start(batch, &agent, task, context)?
            }
            Purpose::Step(Step::Prove) => self.renderer.verify(batch, task, context)?,
            Purpose::Step(Step::AfterCreate) => {
                self.renderer
                    .hook(batch, task, HookPoint::AfterCreate, context)?
            }
            Purpose::Step(Step::Fetch) => {
                let folder = lodging.map_or(&batch.folder, |it| &it.work.path);
                about::fetch(&mut self.renderer, batch, task, folder, context)?
            }
            Purpose::Comment(on) => {
                let folder = lodging.map_or(&batch.folder, |it| &it.work.path);
                let text = comment::text(facts, of.task, of.run.attempt, on)?;
                about::comment(&mut self.renderer, batch, task, folder, context, text)?
            }
            Purpose::Step(Step::BeforeRun) => {
                self.renderer
                    .hook(batch, task, HookPoint::BeforeRun, context)?
            }
            Purpose::Step(Step::AfterRun) => {
                self.renderer
                    .hook(batch, task, HookPoint::AfterRun, context)?
            }
            Purpose::Clean(CleanStep::BeforeRemove) => {
                self.renderer
                    .hook(batch, task, HookPoint::BeforeRemove, context)?
            }
            Purpose::Step(Step::Review) => self.review(scope, context)?,
            Purpose::Merge(_, Stage::Verify) => self.renderer.merge_verify(batch, task, context)?,
            Purpose::Merge(_, Stage::Resolve) => self.resolve(scope, context)?,
            Purpose::Step(Step::Salvage | Step::Provision | Step::Commit | Step::Checkout)
            | Purpose::Merge(
                _,
                Stage::Merge | Stage::Checkout | Stage::Advance | Stage::Conflict | Stage::Conclude,
            )
            | Purpose::Clean(CleanStep::BuildOutput | CleanStep::Salvage | CleanStep::Remove) => {
                self.git(scope, context)?
            }
        })
    }

    fn git(
        &mut self,
        scope: Scope<'_>,
        context: RenderContext<'_>,
    ) -> Result<Rendered, StartError> {
        let Scope {
            facts,
            batch,
            task,
            of,
            ..
        } = scope;
        let lodging = scope.lodging()?;
        let outputs = if of.run.purpose == Purpose::Step(Step::Commit) {
            let named = self.renderer.outputs(batch, task, context)?;
            let inside = |name: String| path_text(&lodging.work.folder.join(name));
            named.into_iter().map(inside).collect()
        } else {
            Vec::new()
        };
        let about = About {
            places: &lodging.places,
            facts,
            task: of.task,
            repo: &lodging.work,
            repo_ix: lodging.ix,
            into: lodging.into.clone(),
            ignored: batch.salvage_ignored,
        };
        let adapter = about.adapter(of.run.purpose, task, outputs)?;
        Ok(Rendered {
            prompt: None,
            env: self.renderer.environment(batch, task, context)?,
            adapter,
        })
    }

    fn review(
        &mut self,
        scope: Scope<'_>,
        context: RenderContext<'_>,
    ) -> Result<Rendered, StartError> {
        let Scope {
            facts,
            batch,
            task,
            of,
            ..
        } = scope;
        let review = of.spec.review.ok_or(StartError::Missing("review"))?;
        let attempt = of.attempt.ok_or(StartError::Missing("attempt"))?;
        let agent = self.agent_work(facts, review.agent)?;
        let proof = scope
            .runs()
            .map(|runs| last_proof(&runs))
            .unwrap_or_default();
        let context = RenderContext {
            model: model(facts, review.agent, of.task),
            ..context
        };
        let before = attempt.notes.as_deref().filter(|_| attempt.rounds > 0);
        let proof = of.spec.verify.then_some(proof.as_str());
        let rendered = self
            .renderer
            .review(batch, &agent, task, proof, before, context)?;
        Ok(rendered)
    }

    fn resolve(
        &mut self,
        scope: Scope<'_>,
        context: RenderContext<'_>,
    ) -> Result<Rendered, StartError> {
        let Scope {
            facts,
            batch,
            task,
            of,
            ..
        } = scope;
        let lodging = scope.lodging()?;
        let repo = facts.repos.get(index(lodging.ix.0));
        let repo = repo.ok_or(StartError::Missing("repository"))?;
        let agent = match repo.spec.on_conflict {
            OnConflict::Agent(Some(agent)) => agent,
            OnConflict::Agent(None) | OnConflict::Fail | OnConflict::Park => of.spec.agent,
        };
        let work = self.agent_work(facts, agent)?;
        let merge = of.task.merge.as_ref();
        let round = repo.round.as_ref();
        let tip = round.and_then(|round| round.tip.as_ref());
        let packet = path_text(&lodging.places.conflict(&of.task.id));
        let files = scope
            .runs()
            .map(|runs| conflicting(&runs))
            .unwrap_or_default();
        let disproof = merge.filter(|merge| merge.disproved);
        let context = RenderContext {
            model: model(facts, agent, of.task),
            ..context
        };
        let conflict = Conflict {
            tip: tip.ok_or(StartError::Missing("tip of the batch branch"))?,
            files: &files,
            packet: &packet,
            disproof: disproof.map(|merge| &*merge.trouble),
        };
        let rendered = self
            .renderer
            .resolve(batch, &work, task, conflict, context)?;
        Ok(rendered)
    }
}

/// The end of what the last verify run of an attempt printed, and where all of it is; empty where
/// there was none, or it printed nothing.
fn last_proof(runs: &Path) -> String {
    let Some(run) = newest_verify(runs) else {
        return String::new();
    };
    let log = run.join("stdout.log");
    let end = run_files::end_of(&log, PROOF_MAX).unwrap_or_default();
    let end = end.trim_end();
    if end.is_empty() {
        return String::new();
    }
    format!("{end}\n(all of it is in {})", log.display())
}

/// The files of the newest conflict that was left for an agent, each with the reason.
fn conflicting(runs: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(runs).into_iter().flatten().take(RUNS_MAX);
    let found = entries.flatten().filter_map(|entry| {
        let number: u64 = entry.file_name().to_str()?.parse().ok()?;
        let (result, _) = run_files::result(&entry.path(), Generation(number));
        let ResultFact::Durable(result) = result else {
            return None;
        };
        match result.git.as_deref() {
            Some(GitOutcome::Conflicted(conflict)) => Some((number, conflict.files.clone())),
            Some(_) | None => None,
        }
    });
    found
        .max_by_key(|(number, _)| *number)
        .map(|(_, files)| files)
        .unwrap_or_default()
}

/// The folder of the newest verify run, by what its manifest says.
fn newest_verify(runs: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(runs).ok()?.take(RUNS_MAX).flatten();
    let verify = entries.filter_map(|entry| {
        let number: u64 = entry.file_name().to_str()?.parse().ok()?;
        let kind = run_files::kind_of(&entry.path());
        (kind == Some(RunKind::Verify)).then(|| (number, entry.path()))
    });
    verify.max().map(|(_, path)| path)
}

/// Where the files are that a task handed on, by the names under which its templates know them.
fn saved(dir: &StateDir, facts: &Facts, task: &Task) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Some(top) = outputs_of(dir, facts, task) else {
        return found;
    };
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for entry in entries {
            if found.len() >= OUTPUTS_MAX {
                return found;
            }
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path.clone());
            }
            if let Ok(name) = path.strip_prefix(&top) {
                found.insert(path_text(name), path_text(&path));
            }
        }
    }
    found
}

/// The folder of a task's outputs; they are named relative to its working folder.
fn outputs_of(dir: &StateDir, facts: &Facts, task: &Task) -> Option<PathBuf> {
    let spec = facts.specs.get(index(task.spec.0))?;
    let repo = facts.repos.get(index(spec.worktree?.0))?;
    let work: RepoWork = serde_json::from_str(&repo.spec.work).ok()?;
    let places = Places::new(dir, &facts.batch.id, None);
    Some(places.outputs(&task.id).join(work.folder))
}

/// What templates can see of the tasks that it depends on.
fn dependencies(dir: &StateDir, facts: &Facts, task: &Task) -> BTreeMap<TaskId, DependencyResult> {
    let tasks = task
        .depends_on
        .iter()
        .filter_map(|dependency| facts.tasks.get(index(dependency.task.0)));
    tasks
        .map(|task| {
            let result = task.last.as_ref().map(|last| last.summary.to_string());
            let result = DependencyResult {
                result: result.unwrap_or_default(),
                outputs: saved(dir, facts, task),
            };
            (task.id.clone(), result)
        })
        .collect()
}

/// The model of the task's turn; the last one where the batch file names fewer by now.
fn model<'a>(facts: &'a Facts, agent: AgentIx, task: &Task) -> Option<&'a str> {
    let models = &facts.agents.get(index(agent.0))?.models;
    let model = models.get(index(task.model)).or(models.last());
    model.map(|model| &**model)
}
