//! The judge's rules for worktrees, merges and what is kept: what the journal says of them, set
//! against the repositories.

use supervisor_core::core::Core;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::machine::{MergeState, TaskState};
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::reason::TaskReason;
use supervisor_core::record::{AttemptEnded, Record};
use supervisor_core::step::{CleanStep, Purpose, Stage, Step};

use super::git::Git;
use super::oracle::Oracle;
use super::reached::Reached;
use super::world::{Told, World, broken};

/// What must happen to merges and worktrees in some story.
pub(super) const SCENES: [&str; 5] = [
    "group_proven",
    "group_halved",
    "merge_resolved",
    "work_sent_back",
    "removed",
];

/// The repository in which a task works.
fn repo_of(facts: &Facts, task: &Task) -> Option<RepoIx> {
    facts.specs[task.spec.0 as usize].worktree
}

impl Oracle {
    /// A record, with the state before it.
    pub(super) fn delivery(
        &self,
        facts: &Facts,
        record: &Record,
        reached: &mut Reached,
        git: &mut Git,
    ) -> Told {
        match record {
            Record::AttemptStarted(started) => {
                reached.purpose(Purpose::Step(started.step));
                if facts.tasks[started.task.0 as usize].clean.is_some() {
                    return broken(
                        "I6 nothing begins in a worktree that goes",
                        format!("t{}", started.task.0),
                    );
                }
                Ok(())
            }
            Record::RunIntended { purpose, task, .. } => {
                reached.purpose(*purpose);
                let attempt = facts.tasks[task.0 as usize].attempt.as_ref();
                let sent_back = attempt.is_some_and(|attempt| attempt.rounds > 0);
                if sent_back && *purpose == Purpose::Step(Step::Work) {
                    reached.scene("work_sent_back");
                }
                Ok(())
            }
            Record::AttemptEnded(ended) if ended.class.is_none() => delivered(facts, ended, git),
            Record::RoundBegan { tasks, .. } => tasks
                .iter()
                .try_for_each(|task| comes_after_its_own(facts, *task)),
            Record::RoundMoved {
                repo,
                stage,
                commits,
                good,
                bad,
                ..
            } => {
                if *stage == Stage::Advance && *good > 1 {
                    reached.scene("group_proven");
                }
                if *stage == Stage::Checkout && bad.is_some() {
                    reached.scene("group_halved");
                }
                let round = facts.repos[repo.0 as usize].round.as_ref();
                let concluded = round.is_some_and(|round| round.stage == Stage::Conclude);
                if concluded && !commits.is_empty() {
                    reached.scene("merge_resolved");
                }
                Ok(())
            }
            Record::MergeMoved {
                task,
                to: MergeState::Merged,
                ..
            } => merged(facts, *task, git),
            Record::CleanEnded {
                task,
                removed: true,
                ..
            } => {
                reached.scene("removed");
                if git.has_worktree(*task) {
                    return broken("what is called removed is gone", format!("t{}", task.0));
                }
                let last = facts.tasks[task.0 as usize].salvaged.last();
                if last.is_some_and(|last| !git.brings_back(*task, &last.commit)) {
                    return broken(
                        "I7 the last salvage holds all that was removed",
                        format!("t{}", task.0),
                    );
                }
                Ok(())
            }
            Record::CleanMoved {
                task,
                step: CleanStep::Remove,
                kept,
            } => {
                let salvaged = &facts.tasks[task.0 as usize].salvaged;
                match kept {
                    Some(kept) if salvaged.contains(kept) => Ok(()),
                    Some(_) | None => broken(
                        "I7 nothing is removed before its salvage is on record",
                        format!("t{}", task.0),
                    ),
                }
            }
            _other => Ok(()),
        }
    }
}

/// Done is what was committed, verified and approved, all of it what is in the worktree.
fn delivered(facts: &Facts, ended: &AttemptEnded, git: &mut Git) -> Told {
    let task = &facts.tasks[ended.task.0 as usize];
    let spec = &facts.specs[task.spec.0 as usize];
    if spec.worktree.is_none() {
        return Ok(());
    }
    let no = |what: &str| {
        broken(
            "I5 done needs its commit, proof and review",
            format!("{}: {what}", task.id),
        )
    };
    let Some(commit) = task.attempt.as_ref().and_then(|it| it.commit.clone()) else {
        return no("nothing is committed");
    };
    if !git.is_work_of(ended.task, &commit) {
        return no("its commit is not what is in its worktree");
    }
    if spec.verify && !git.is_proven(&commit) {
        return no("its commit was not verified");
    }
    if spec.review.is_some() && !git.is_approved(&commit) {
        return no("its commit was not approved");
    }
    if spec.changes && !git.is_changed(ended.task) {
        return no("nothing changed");
    }
    git.deliver(ended.task, &commit);
    Ok(())
}

/// Nothing is merged before what it depends on and what is being merged as well.
fn comes_after_its_own(facts: &Facts, ix: TaskIx) -> Told {
    let task = &facts.tasks[ix.0 as usize];
    let waits = task.depends_on.iter().find(|on| {
        let merge = facts.tasks[on.task.0 as usize].merge.as_ref();
        merge.is_some_and(|merge| !merge.state.is_settled())
    });
    match waits {
        None => Ok(()),
        Some(on) => broken(
            "dependencies are merged first",
            format!("{} before t{}", task.id, on.task.0),
        ),
    }
}

/// What is called merged is on the batch branch.
fn merged(facts: &Facts, ix: TaskIx, git: &Git) -> Told {
    let task = &facts.tasks[ix.0 as usize];
    let there = repo_of(facts, task).is_some_and(|repo| git.holds(repo, ix));
    if there {
        return Ok(());
    }
    broken(
        "I7 what is called merged is on the batch branch",
        task.id.to_string(),
    )
}

impl World {
    /// In the end all work that is done is merged, or it is said why not; and no ref has lost it.
    pub(super) fn is_delivered(&self, core: &Core) -> Told {
        let Some(facts) = core.facts() else {
            return Ok(());
        };
        let no = |task: &Task, text: &str| {
            broken(
                "I7 what is done is delivered",
                format!("{} {text}", task.id),
            )
        };
        for (at, task) in facts.tasks.iter().enumerate() {
            let proven = (task.state, task.reason) == (TaskState::Done, TaskReason::Proven);
            let Some(repo) = repo_of(facts, task).filter(|_| proven) else {
                continue;
            };
            let Some(merge) = &task.merge else {
                return no(task, "has no merge");
            };
            let there = self.git.holds(repo, super::world::task_ix(at));
            let merged = merge.state == MergeState::Merged;
            // A host that did it and said that it failed may leave more than what is called merged.
            if !merge.state.is_settled() || (merged && !there) {
                return no(task, &format!("is {}, on the branch: {there}", merge.state));
            }
            if !self.git.is_reachable(&merge.commit) {
                return no(task, "is on no ref any more");
            }
        }
        Ok(())
    }
}
