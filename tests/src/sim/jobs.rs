//! What a host is asked to do, as the driver would ask it: what the state says of its run.

use protocol::git::Oid;
use protocol::ids::{Generation, TaskId};
use supervisor_core::facts::{Facts, Round, Salvage, Task};
use supervisor_core::machine::TaskState;
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::step::{CleanStep, Purpose, Stage, Step};

/// A commit that is to be merged.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) task: TaskIx,
    pub(super) id: TaskId,
    pub(super) commit: Oid,
}

/// What one host does in a repository.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// Nothing.
    None,
    /// What can be built again goes: no work, so nothing of the repositories changes.
    BuildOutput,
    /// An agent works in its worktree.
    Work,
    Salvage {
        task: TaskIx,
        reference: String,
        /// The one before it.
        last: Option<Salvage>,
    },
    Provision {
        task: TaskIx,
        repo: RepoIx,
        /// What its base must contain.
        needs: Vec<(TaskIx, Oid)>,
        made: Option<Oid>,
    },
    Commit {
        task: TaskIx,
    },
    Prove {
        task: TaskIx,
        commit: Oid,
    },
    Checkout {
        task: TaskIx,
        commit: Oid,
    },
    Review {
        task: TaskIx,
        commit: Oid,
    },
    Remove {
        task: TaskIx,
        kept: Oid,
        reference: String,
        /// Its branch goes too.
        merged: bool,
    },
    Merge {
        repo: RepoIx,
        candidates: Vec<Candidate>,
        take: u32,
        advance: bool,
    },
    PutMerge {
        repo: RepoIx,
        commit: Oid,
    },
    VerifyMerge {
        repo: RepoIx,
        commit: Oid,
    },
    Advance {
        repo: RepoIx,
        from: Oid,
        to: Oid,
        verify: bool,
    },
    Conflict {
        repo: RepoIx,
        candidate: Candidate,
    },
    Resolve {
        repo: RepoIx,
    },
    Conclude {
        repo: RepoIx,
        tip: Oid,
        candidate: Candidate,
    },
}

/// The job of a run; `None` where the state does not hold what it needs: then it can not be started.
pub(super) fn of(facts: &Facts, generation: Generation) -> Option<Job> {
    let run = facts.runs.get(&generation)?;
    let task = &facts.tasks[run.task.0 as usize];
    match run.purpose {
        Purpose::Step(step) => of_step(facts, run.task, task, step),
        Purpose::Merge(repo, stage) => of_stage(facts, repo, stage),
        Purpose::Clean(step) => of_clean(run.task, task, step),
        Purpose::Comment(_) => Some(Job::None),
    }
}

fn of_step(facts: &Facts, ix: TaskIx, task: &Task, step: Step) -> Option<Job> {
    let Some(repo) = facts.specs[task.spec.0 as usize].worktree else {
        return Some(Job::None);
    };
    let commit = || task.attempt.as_ref()?.commit.clone();
    Some(match step {
        Step::Salvage => salvage(ix, task),
        Step::Provision => Job::Provision {
            task: ix,
            repo,
            needs: needs(facts, task, repo),
            made: task.worktree.as_ref().map(|made| made.base.clone()),
        },
        Step::Work => Job::Work,
        Step::Commit => {
            task.worktree.as_ref()?;
            Job::Commit { task: ix }
        }
        Step::Prove => Job::Prove {
            task: ix,
            commit: commit()?,
        },
        Step::Checkout => Job::Checkout {
            task: ix,
            commit: commit()?,
        },
        Step::Review => Job::Review {
            task: ix,
            commit: commit()?,
        },
        Step::AfterCreate | Step::Fetch | Step::BeforeRun | Step::AfterRun => Job::None,
    })
}

fn salvage(ix: TaskIx, task: &Task) -> Job {
    let number = task.salvaged.len() + 1;
    Job::Salvage {
        task: ix,
        reference: format!("refs/supervisor/salvage/sim-1/{}/{number}", ix.0),
        last: task.salvaged.last().cloned(),
    }
}

/// What dependencies in the same repository put on the batch branch.
fn needs(facts: &Facts, task: &Task, repo: RepoIx) -> Vec<(TaskIx, Oid)> {
    let needs = task.depends_on.iter().filter_map(|on| {
        let other = &facts.tasks[on.task.0 as usize];
        let here = facts.specs[other.spec.0 as usize].worktree == Some(repo);
        let merged = other.merge.as_ref()?.merged.clone()?;
        here.then_some((on.task, merged))
    });
    needs.collect()
}

fn of_clean(ix: TaskIx, task: &Task, step: CleanStep) -> Option<Job> {
    Some(match step {
        CleanStep::BeforeRemove => Job::None,
        CleanStep::BuildOutput => Job::BuildOutput,
        CleanStep::Salvage => salvage(ix, task),
        CleanStep::Remove => {
            let kept = task.clean.as_ref()?.kept.clone()?;
            let merged = task.merge.as_ref().is_some_and(|it| it.merged.is_some());
            Job::Remove {
                task: ix,
                kept: kept.commit,
                reference: kept.reference.to_string(),
                merged: task.state == TaskState::Done && merged,
            }
        }
    })
}

fn of_stage(facts: &Facts, ix: RepoIx, stage: Stage) -> Option<Job> {
    let repo = &facts.repos[ix.0 as usize];
    let round = repo.round.as_ref()?;
    let first = || candidate(facts, *round.tasks.first()?);
    let due = |round: &Round| round.commit(round.proving()).cloned();
    Some(match stage {
        Stage::Merge => {
            let tasks = round.tasks.iter();
            Job::Merge {
                repo: ix,
                candidates: tasks
                    .map(|it| candidate(facts, *it))
                    .collect::<Option<_>>()?,
                take: repo.spec.group.max(1),
                advance: !round.verify,
            }
        }
        Stage::Checkout => Job::PutMerge {
            repo: ix,
            commit: due(round)?,
        },
        Stage::Verify => Job::VerifyMerge {
            repo: ix,
            commit: due(round)?,
        },
        Stage::Advance => Job::Advance {
            repo: ix,
            from: round.tip.clone()?,
            to: round.commit(round.good)?.clone(),
            verify: round.verify,
        },
        Stage::Conflict => Job::Conflict {
            repo: ix,
            candidate: first()?,
        },
        Stage::Resolve => Job::Resolve { repo: ix },
        Stage::Conclude => Job::Conclude {
            repo: ix,
            tip: round.tip.clone()?,
            candidate: first()?,
        },
    })
}

fn candidate(facts: &Facts, ix: TaskIx) -> Option<Candidate> {
    let task = &facts.tasks[ix.0 as usize];
    Some(Candidate {
        task: ix,
        id: task.id.clone(),
        commit: task.merge.as_ref()?.commit.clone(),
    })
}
