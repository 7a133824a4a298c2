//! Where a batch keeps what it works in: worktrees, branches, and the worktrees of merges and
//! reviews. Every path and name follows from the state, so that whoever looks finds the same.

use std::path::PathBuf;

use protocol::ids::{BatchId, TaskId};
use serde::Deserialize;
use supervisor_core::facts::Facts;
use supervisor_core::plan::{RepoIx, TaskIx};

use crate::batch_file::work::task_branch;
use crate::store::StateDir;

/// The part of the batch's work that says where worktrees are made.
#[derive(Deserialize)]
struct Chosen {
    #[serde(default)]
    worktrees: Option<PathBuf>,
}

/// The places of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    dir: StateDir,
    batch: BatchId,
    /// The folder that the batch file names for worktrees.
    chosen: Option<PathBuf>,
}

impl Places {
    /// Those of this batch, which has its files in `dir`.
    pub fn of(dir: &StateDir, facts: &Facts) -> Places {
        // Work that can not be read stops each start with its own error; here it names no folder.
        let chosen = serde_json::from_str(&facts.batch.settings.work);
        let chosen = chosen.ok().and_then(|chosen: Chosen| chosen.worktrees);
        Places::new(dir, &facts.batch.id, chosen)
    }

    /// Those of a batch whose file names this folder for worktrees, or none.
    pub fn new(dir: &StateDir, batch: &BatchId, chosen: Option<PathBuf>) -> Places {
        Places {
            dir: dir.clone(),
            batch: batch.clone(),
            chosen,
        }
    }

    /// The worktree of a task, where it has one.
    pub fn worktree(&self, task: &TaskId) -> PathBuf {
        match &self.chosen {
            Some(folder) => folder.join(self.batch.as_str()).join(task.as_str()),
            None => self.dir.task(task).join("worktree"),
        }
    }

    /// The branch of a task's work, without `refs/heads/`.
    pub fn branch(&self, task: &TaskId) -> String {
        branch(&self.batch, task)
    }

    /// The same branch, as the whole name of a ref.
    pub fn branch_ref(&self, task: &TaskId) -> String {
        format!("refs/heads/{}", self.branch(task))
    }

    /// Where the files that a task hands on are kept, once its work is committed.
    pub fn outputs(&self, task: &TaskId) -> PathBuf {
        self.dir.task(task).join("outputs")
    }

    /// Where the three sides of a conflict of a task are written.
    pub fn conflict(&self, task: &TaskId) -> PathBuf {
        self.dir.task(task).join("conflict")
    }

    /// The checkout that a reviewer of the task's work sees.
    pub fn review(&self, task: &TaskId) -> PathBuf {
        self.dir.task(task).join("review")
    }

    /// The worktree in which the merges of a repository are made; named by number, because a
    /// repository's name need not be one of a folder.
    pub fn merges(&self, repo: RepoIx) -> PathBuf {
        self.dir.path().join("merges").join(repo.0.to_string())
    }
}

/// The worktree of the task at this place of the plan; empty where there is no such task.
pub fn worktree(dir: &StateDir, facts: &Facts, task: TaskIx) -> PathBuf {
    let places = Places::of(dir, facts);
    let task = facts
        .tasks
        .get(usize::try_from(task.0).unwrap_or(usize::MAX));
    task.map_or_else(PathBuf::new, |task| places.worktree(&task.id))
}

/// The branch of a task's work, without `refs/heads/`.
pub fn branch(batch: &BatchId, task: &TaskId) -> String {
    task_branch(batch.as_str(), task)
}

/// The ref that takes the `number`th salvage of a task, from 1.
pub fn salvage_ref(batch: &BatchId, task: &TaskId, number: usize) -> String {
    format!("refs/supervisor/salvage/{batch}/{task}/{number}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;
    use supervisor_core::plan::AgentKind;

    use super::*;
    use crate::driver::fixture;

    #[test]
    fn worktrees_are_in_the_state_directory_unless_the_batch_file_names_a_folder() {
        let core = fixture::core(AgentKind::Command, &json!({}), &json!({}));
        let mut facts = core.facts().unwrap().clone();
        let dir = StateDir::at("/state/b");
        let at = |facts: &Facts| worktree(&dir, facts, TaskIx(0));
        assert_eq!(at(&facts), Path::new("/state/b/tasks/first/worktree"));
        let work = json!({"file": "batch.yml", "folder": "/src", "worktrees": "/fast"});
        facts.batch.settings.work = work.to_string().into();
        assert_eq!(at(&facts), Path::new("/fast/some-batch/first"));
    }

    #[test]
    fn no_two_places_of_a_batch_are_the_same() {
        let core = fixture::core(AgentKind::Command, &json!({}), &json!({}));
        let places = Places::of(&StateDir::at("/state/b"), core.facts().unwrap());
        let task: TaskId = "first".parse().unwrap();
        let all = [
            places.worktree(&task),
            places.review(&task),
            places.merges(RepoIx(0)),
            places.merges(RepoIx(1)),
        ];
        for (at, place) in all.iter().enumerate() {
            assert!(!all[at + 1..].iter().any(|other| other.starts_with(place)));
        }
        assert_eq!(places.branch(&task), "supervisor/some-batch/first");
        let salvage = salvage_ref(&"b".parse().unwrap(), &task, 2);
        assert_eq!(salvage, "refs/supervisor/salvage/b/first/2");
    }
}
