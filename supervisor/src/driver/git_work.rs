//! Makes the git work of a run: what the state says of a task and its repository, as a request.

use std::path::Path;

use protocol::build_output::{BUILD_FOLDERS, BuildOutput};
use protocol::command::Adapter;
use protocol::git::{
    Advance, Candidate, Checkout, CommitWork, Conclude, Conflict, GitAdapter, GitWork, Kept, Merge,
    Oid, Provision, Remove, Salvage,
};
use supervisor_core::facts::{Facts, Round, Task};
use supervisor_core::machine::TaskState;
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::step::{CleanStep, Purpose, Stage, Step};

use super::places::{self, Places};
use super::start::StartError;
use crate::batch_file::work::{RepoWork, SalvageIgnored, TaskWork};

/// Wall time of one piece of git work, milliseconds: minutes are needed for a large repository on a
/// slow disk; what takes longer hangs.
const TIMEOUT_MS: u64 = 30 * 60 * 1000;
/// Longest subject of a commit message, characters: what `git log --oneline` shows on a line.
const SUBJECT_MAX: usize = 72;

/// Which ignored files are put aside with the rest, as globs.
fn ignored(rule: SalvageIgnored) -> Vec<String> {
    let all = || std::iter::once("**".to_owned());
    let built = BUILD_FOLDERS.iter();
    let not_built = built.map(|folder| format!("!**/{}", folder.name));
    match rule {
        SalvageIgnored::All => all().collect(),
        SalvageIgnored::AllButBuildOutput => all().chain(not_built).collect(),
        SalvageIgnored::None => Vec::new(),
    }
}

/// What the git work of one run is about.
pub(super) struct About<'a> {
    pub(super) places: &'a Places,
    pub(super) facts: &'a Facts,
    pub(super) task: &'a Task,
    /// The repository, its number, and its batch branch as a whole ref name.
    pub(super) repo: &'a RepoWork,
    pub(super) repo_ix: RepoIx,
    pub(super) into: String,
    /// Which ignored files a salvage keeps.
    pub(super) ignored: SalvageIgnored,
}

impl About<'_> {
    /// The git work of this purpose.
    ///
    /// # Errors
    /// [`StartError::Missing`] when the state does not hold what it needs, or the purpose is no git work.
    pub(super) fn adapter(
        &self,
        purpose: Purpose,
        work: &TaskWork,
        outputs: Vec<String>,
    ) -> Result<Adapter, StartError> {
        let work = match purpose {
            Purpose::Step(Step::Salvage) => {
                GitWork::Salvage(self.salvage("before a fresh attempt"))
            }
            Purpose::Step(Step::Provision) => GitWork::Provision(self.provision()),
            Purpose::Step(Step::Commit) => GitWork::Commit(self.commit(work, outputs)?),
            Purpose::Step(Step::Checkout) => GitWork::Checkout(Checkout {
                repo: self.repo_path(),
                worktree: text(&self.places.review(&self.task.id)),
                commit: self.work_commit()?,
            }),
            Purpose::Clean(CleanStep::Salvage) => {
                GitWork::Salvage(self.salvage("before its removal"))
            }
            Purpose::Clean(CleanStep::Remove) => GitWork::Remove(self.remove()?),
            Purpose::Clean(CleanStep::BuildOutput) => GitWork::BuildOutput(BuildOutput {
                repo: self.repo_path(),
                worktree: self.worktree(),
                remove: true,
            }),
            Purpose::Merge(_, stage) => self.stage(stage)?,
            Purpose::Step(
                Step::AfterCreate
                | Step::Fetch
                | Step::BeforeRun
                | Step::Work
                | Step::AfterRun
                | Step::Prove
                | Step::Review,
            )
            | Purpose::Clean(CleanStep::BeforeRemove)
            | Purpose::Comment(_) => {
                return Err(StartError::Missing("git work"));
            }
        };
        let timeout_ms = TIMEOUT_MS;
        Ok(Adapter::Git(GitAdapter { work, timeout_ms }))
    }

    /// The worktree of the task.
    pub(super) fn worktree(&self) -> String {
        text(&self.places.worktree(&self.task.id))
    }

    fn repo_path(&self) -> String {
        text(&self.repo.path)
    }

    pub(super) fn branch(&self) -> String {
        self.places.branch_ref(&self.task.id)
    }

    fn work_commit(&self) -> Result<Oid, StartError> {
        let attempt = self.task.attempt.as_ref();
        let commit = attempt.and_then(|attempt| attempt.commit.clone());
        commit.ok_or(StartError::Missing("commit"))
    }

    fn provision(&self) -> Provision {
        Provision {
            repo: self.repo_path(),
            worktree: self.worktree(),
            branch: self.branch(),
            into: self.into.clone(),
            pinned: self.repo.base.clone(),
            needs: self.needs(),
            made: self.task.worktree.as_ref().map(|made| made.base.clone()),
            kept: self
                .task
                .salvaged
                .iter()
                .map(|it| it.commit.clone())
                .collect(),
            freshness: self.repo.freshness,
            watch: self.repo.watch.clone(),
        }
    }

    /// What its dependencies in the same repository put on the batch branch.
    fn needs(&self) -> Vec<Oid> {
        let tasks = self.task.depends_on.iter().filter_map(|on| {
            let on = self.facts.tasks.get(usize::try_from(on.task.0).ok()?)?;
            let spec = self.facts.specs.get(usize::try_from(on.spec.0).ok()?)?;
            (spec.worktree == Some(self.repo_ix)).then_some(on)
        });
        tasks
            .filter_map(|on| on.merge.as_ref()?.merged.clone())
            .collect()
    }

    fn commit(&self, work: &TaskWork, outputs: Vec<String>) -> Result<CommitWork, StartError> {
        let made = self.task.worktree.as_ref();
        let base = made.map(|made| made.base.clone());
        let touches = self.task.touches.iter().map(|glob| glob.to_string());
        Ok(CommitWork {
            repo: self.repo_path(),
            worktree: self.worktree(),
            branch: self.branch(),
            base: base.ok_or(StartError::Missing("worktree"))?,
            message: self.message(),
            touches: work.touches_enforce.then(|| touches.collect()),
            outputs,
            outputs_dir: text(&self.places.outputs(&self.task.id)),
        })
    }

    /// The message of the commit: what the agent says that it did, and whose work it is.
    fn message(&self) -> String {
        let attempt = self.task.attempt.as_ref();
        let result = attempt.and_then(|attempt| attempt.result.as_deref());
        let said = result.map_or("", |result| result.summary.trim());
        let first = said.lines().next().unwrap_or_default();
        let subject: String = format!("{}: {first}", self.task.id)
            .chars()
            .take(SUBJECT_MAX)
            .collect();
        let subject = subject.trim_end().trim_end_matches(':').to_owned();
        let rest = if said.len() > first.len() || said.len() > SUBJECT_MAX {
            format!("{said}\n\n")
        } else {
            String::new()
        };
        let (batch, task) = (&self.facts.batch.id, &self.task.id);
        let attempt = self.task.attempts.0;
        format!("{subject}\n\n{rest}Batch: {batch}\nTask: {task}\nAttempt: {attempt}\n")
    }

    fn salvage(&self, why: &str) -> Salvage {
        let (batch, task) = (&self.facts.batch.id, &self.task.id);
        let number = self.task.salvaged.len() + 1;
        Salvage {
            repo: self.repo_path(),
            worktree: self.worktree(),
            reference: places::salvage_ref(batch, task, number),
            ignored: ignored(self.ignored),
            note: format!("{task} of {batch}, {why}"),
            last: self.task.salvaged.last().map(|last| Kept {
                reference: last.reference.to_string(),
                commit: last.commit.clone(),
            }),
        }
    }

    fn remove(&self) -> Result<Remove, StartError> {
        let clean = self.task.clean.as_ref();
        let kept = clean.and_then(|clean| clean.kept.as_ref());
        let kept = kept.ok_or(StartError::Missing("salvage ref"))?;
        let merged = self
            .task
            .merge
            .as_ref()
            .is_some_and(|it| it.merged.is_some());
        let done = self.task.state == TaskState::Done && merged;
        Ok(Remove {
            repo: self.repo_path(),
            worktree: self.worktree(),
            branch: done.then(|| self.branch()),
            kept: kept.commit.clone(),
            kept_by: kept.reference.to_string(),
        })
    }

    fn stage(&self, stage: Stage) -> Result<GitWork, StartError> {
        let repo = self.facts.repos.get(self.repo_ix.0 as usize);
        let repo = repo.ok_or(StartError::Missing("repository"))?;
        let round = repo.round.as_ref().ok_or(StartError::Missing("merge"))?;
        let worktree = text(&self.places.merges(self.repo_ix));
        let missing = || StartError::Missing("merge commit");
        let first = || self.candidate(*round.tasks.first().ok_or_else(missing)?);
        Ok(match stage {
            Stage::Merge => GitWork::Merge(Merge {
                repo: self.repo_path(),
                worktree,
                into: self.into.clone(),
                pinned: self.repo.base.clone(),
                candidates: self.candidates(round)?,
                take: repo.spec.group.max(1),
                advance: !round.verify,
                freshness: self.repo.freshness,
                watch: self.repo.watch.clone(),
            }),
            Stage::Checkout => GitWork::Checkout(Checkout {
                repo: self.repo_path(),
                worktree,
                commit: round.commit(round.proving()).cloned().ok_or_else(missing)?,
            }),
            Stage::Advance => GitWork::Advance(Advance {
                repo: self.repo_path(),
                into: self.into.clone(),
                from: round.tip.clone().ok_or_else(missing)?,
                to: round.commit(round.good).cloned().ok_or_else(missing)?,
            }),
            Stage::Conflict => GitWork::Conflict(Conflict {
                repo: self.repo_path(),
                worktree,
                into: self.into.clone(),
                candidate: first()?,
                packet: text(&self.places.conflict(&self.task.id)),
            }),
            Stage::Conclude => GitWork::Conclude(Conclude {
                repo: self.repo_path(),
                worktree,
                tip: round.tip.clone().ok_or_else(missing)?,
                candidate: first()?,
            }),
            Stage::Verify | Stage::Resolve => return Err(StartError::Missing("git work")),
        })
    }

    fn candidates(&self, round: &Round) -> Result<Vec<Candidate>, StartError> {
        round.tasks.iter().map(|ix| self.candidate(*ix)).collect()
    }

    fn candidate(&self, ix: TaskIx) -> Result<Candidate, StartError> {
        let task = usize::try_from(ix.0)
            .ok()
            .and_then(|at| self.facts.tasks.get(at));
        let task = task.ok_or(StartError::Missing("task"))?;
        let merge = task.merge.as_ref().ok_or(StartError::Missing("merge"))?;
        let batch = &self.facts.batch.id;
        Ok(Candidate {
            task: task.id.clone(),
            commit: merge.commit.clone(),
            message: format!("Merge {}\n\nBatch: {batch}\nTask: {}\n", task.id, task.id),
        })
    }
}

/// Paths reach us as text (batch file, state dir), so nothing is lost here.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_salvage_keeps_of_ignored_files_is_what_the_batch_file_says() {
        assert_eq!(ignored(SalvageIgnored::All), ["**"]);
        assert_eq!(ignored(SalvageIgnored::None), [""; 0]);
        let usual = ignored(SalvageIgnored::default());
        assert_eq!(usual[..2], ["**", "!**/target"]);
        assert_eq!(usual.len(), BUILD_FOLDERS.len() + 1);
    }
}
