//! The way of work from its worktree to the batch branch, in words: what each run is for, what git
//! work did, rounds of merges, clean-ups.

use std::fmt;
use std::path::PathBuf;

use protocol::git::{GitOutcome, Oid};
use protocol::report::RunResult;
use supervisor_core::facts::{Facts, Merge, Round, Salvage, Task};
use supervisor_core::machine::{CommentState, MergeState, TaskState};
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};

use crate::driver::places;
use crate::store::StateDir;
use crate::view::View;
use crate::view::reason::first_line;

/// Tasks and files named in one sentence; the rest is counted.
const NAMED_MAX: usize = 5;

/// Where the worktrees of a batch are, and how its branches are called.
#[derive(Debug)]
pub struct Places<'a> {
    facts: &'a Facts,
    places: places::Places,
}

impl<'a> Places<'a> {
    /// Those of this batch, which has its files in `dir`.
    pub fn of(facts: &'a Facts, dir: &StateDir) -> Places<'a> {
        let places = places::Places::of(dir, facts);
        Places { facts, places }
    }

    /// The worktree of a task, while it has one.
    pub fn worktree(&self, task: &Task) -> Option<PathBuf> {
        let _made = task.worktree.as_ref()?;
        Some(self.places.worktree(&task.id))
    }

    /// The branch of a task's work as git shows it, where it has or had one.
    pub fn branch(&self, task: &Task) -> Option<String> {
        let spec = self.facts.specs.get(task.spec.0 as usize)?;
        let began = task.worktree.is_some() || task.merge.is_some();
        let _repo = spec.worktree.filter(|_| began)?;
        Some(self.places.branch(&task.id))
    }
}

/// What a run is for; merges name their repository where the batch has several.
pub fn purpose(facts: Option<&Facts>, purpose: Purpose) -> String {
    match purpose {
        Purpose::Step(step) => of_step(step).to_owned(),
        Purpose::Merge(repo, stage) => format!("{}{}", of_stage(stage), in_repo(facts, repo)),
        Purpose::Clean(step) => of_clean(step).to_owned(),
        Purpose::Comment(on) => format!("comment ({on})"),
    }
}

const fn of_step(step: Step) -> &'static str {
    match step {
        Step::Salvage => "salvage",
        Step::Provision => "provision",
        Step::AfterCreate => "hook after_create",
        Step::Fetch => "fetching what it is about",
        Step::BeforeRun => "hook before_run",
        Step::Work => "agent",
        Step::AfterRun => "hook after_run",
        Step::Commit => "commit",
        Step::Prove => "verify",
        Step::Checkout => "review checkout",
        Step::Review => "review",
    }
}

const fn of_stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Merge => "merge",
        Stage::Checkout => "merge checkout",
        Stage::Verify => "merge verify",
        Stage::Advance => "merge advance",
        Stage::Conflict => "merge conflict",
        Stage::Resolve => "merge resolve",
        Stage::Conclude => "merge conclude",
    }
}

const fn of_clean(step: CleanStep) -> &'static str {
    match step {
        CleanStep::BuildOutput => "clean build output",
        CleanStep::BeforeRemove => "hook before_remove",
        CleanStep::Salvage => "clean salvage",
        CleanStep::Remove => "clean remove",
    }
}

fn in_repo(facts: Option<&Facts>, repo: RepoIx) -> String {
    let repos = facts.map_or(&[][..], |facts| &facts.repos);
    match repos.get(repo.0 as usize) {
        Some(repo) if repos.len() > 1 => format!(" in {}", repo.spec.name),
        Some(_) | None => String::new(),
    }
}

fn names(facts: Option<&Facts>, tasks: impl Iterator<Item = TaskIx>) -> String {
    let name = |ix: TaskIx| {
        let task = facts.and_then(|facts| facts.tasks.get(ix.0 as usize));
        task.map_or_else(|| format!("#{}", ix.0), |task| task.id.to_string())
    };
    some(&tasks.map(name).collect::<Vec<_>>())
}

fn some(all: &[String]) -> String {
    let mut text = all[..all.len().min(NAMED_MAX)].join(", ");
    if let Some(more) = all.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// What a result says beside its class: the reviewer's word, and what git work did.
pub fn done(result: &RunResult) -> String {
    let verdict = result.verdict.map(|verdict| verdict.word().to_owned());
    let git = result.git.as_deref().map(outcome);
    let parts: Vec<String> = verdict.into_iter().chain(git).collect();
    match parts.as_slice() {
        [] => String::new(),
        parts => format!(" ({})", parts.join("; ")),
    }
}

fn outcome(git: &GitOutcome) -> String {
    match git {
        GitOutcome::Provisioned(made) => {
            let what = if made.made {
                "worktree made from"
            } else {
                "worktree was there, from"
            };
            let mut text = format!("{what} {}", made.base.short());
            if made.head != made.base {
                text.push_str(&format!(", branch at {}", made.head.short()));
            }
            text + &listed("; ", &made.warnings)
        }
        GitOutcome::Committed(made) => {
            let mut text = format!("commit {}, {}", made.commit.short(), files(made.files));
            text.push_str(&listed("; markers of a conflict in ", &made.markers));
            text.push_str(&listed("; outside `touches`: ", &made.outside));
            text.push_str(&listed("; outputs missing: ", &made.missing));
            text + &listed("; ", &made.warnings)
        }
        GitOutcome::Salvaged(made) => {
            let (commit, bytes) = (made.commit.short(), made.bytes);
            let head = format!("{} at {commit}, {}", made.reference, files(made.files));
            format!(
                "{head}, {bytes} bytes{}",
                listed("; not kept: ", &made.skipped)
            )
        }
        GitOutcome::Removed(gone) if gone.existed => format!("{} bytes freed", gone.bytes),
        GitOutcome::Removed(_) => "it was gone already".to_owned(),
        GitOutcome::CheckedOut {} => "checked out".to_owned(),
        GitOutcome::Merged(made) => {
            let merges: Vec<String> = made.merges.iter().map(|it| it.task.to_string()).collect();
            let mut text = format!("onto {}: {} merged", made.tip.short(), merges.len());
            text.push_str(&listed(": ", &merges));
            for conflict in made.conflicts.iter().take(NAMED_MAX) {
                let task = &conflict.task;
                let with = match conflict.by.as_slice() {
                    [] => conflict.with.short().to_owned(),
                    by => by.iter().map(Oid::short).collect::<Vec<_>>().join(", "),
                };
                let files = listed(" in ", &conflict.files);
                text.push_str(&format!("; {task} conflicts with {with}{files}"));
            }
            text + &listed("; ", &made.warnings)
        }
        GitOutcome::Conflicted(found) => {
            let files: Vec<String> = found.files.keys().cloned().collect();
            match files.is_empty() {
                true => format!("merges onto {} without a conflict", found.tip.short()),
                false => format!("onto {}{}", found.tip.short(), listed(": ", &files)),
            }
        }
        GitOutcome::Concluded(made) => match &made.commit {
            Some(commit) => format!("merge commit {}", commit.short()),
            None => format!("not resolved{}", listed(": ", &made.markers)),
        },
        GitOutcome::Advanced {} => "the batch branch is there".to_owned(),
        GitOutcome::Restored(made) => {
            format!("{} restored, {}", made.reference, files(made.files))
        }
        GitOutcome::Predicted(found) => {
            let conflicts = found.pairs.iter().filter(|it| !it.paths.is_empty()).count();
            format!("{conflicts} of {} pairs conflict", found.pairs.len())
        }
        GitOutcome::BuildOutput(done) => {
            let bytes = done.bytes;
            let count = done.folders.len();
            format!("{bytes} bytes of build output removed, {count} folders")
        }
        GitOutcome::Integrated(_) => "integrated".to_owned(), // no run of a batch does this
    }
}

fn files(count: u64) -> String {
    match count {
        1 => "1 file".to_owned(),
        count => format!("{count} files"),
    }
}

fn listed(before: &str, all: &[String]) -> String {
    match all.is_empty() {
        true => String::new(),
        false => format!("{before}{}", some(all)),
    }
}

/// A round of merges begins.
pub fn round_began(facts: Option<&Facts>, repo: RepoIx, stage: Stage, tasks: &[TaskIx]) -> String {
    let (place, tasks) = (in_repo(facts, repo), names(facts, tasks.iter().copied()));
    match stage {
        Stage::Conflict => format!("merges{place}: it is the turn of {tasks} to be resolved"),
        Stage::Merge
        | Stage::Checkout
        | Stage::Verify
        | Stage::Advance
        | Stage::Resolve
        | Stage::Conclude => format!("merges{place}: a round of {tasks} began"),
    }
}

/// A round goes on: `now` is what it is from this record on.
pub fn round_moved(facts: Option<&Facts>, repo: RepoIx, now: &Round) -> String {
    let before = facts.and_then(|facts| facts.repos.get(repo.0 as usize)?.round.as_ref());
    let head = format!("merges{}: ", in_repo(facts, repo));
    let of = |count: u32| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        names(facts, now.commits.iter().take(count).map(|(task, _)| *task))
    };
    let tip = now.tip.as_ref().map_or("?", Oid::short);
    let failed = before.filter(|before| before.bad != now.bad).map(|before| {
        let (tasks, detail) = (of(before.proving()), first_line(&now.detail));
        format!("the proof of {tasks} together failed ({detail}); ")
    });
    let failed = failed.unwrap_or_default();
    head + &match now.stage {
        Stage::Verify if now.bad.is_none() => {
            format!("{} onto {tip}: proof of all together", of(now.proving()))
        }
        Stage::Verify | Stage::Checkout => {
            format!("{failed}next the proof of {} alone", of(now.proving()))
        }
        Stage::Advance => {
            let to = now.commit(now.good).map_or("?", Oid::short);
            format!(
                "{failed}{} proven: the batch branch goes to {to}",
                of(now.good)
            )
        }
        Stage::Resolve => "an agent resolves it".to_owned(),
        Stage::Conclude => "what was left becomes the merge commit".to_owned(),
        Stage::Merge | Stage::Conflict => format!("{} once more", now.stage.word()),
    }
}

/// A round is over; `share`: it came to no end, and the next ones are of so many at most.
pub fn round_ended(facts: Option<&Facts>, repo: RepoIx, share: Option<u32>) -> String {
    let place = in_repo(facts, repo);
    match share {
        None => format!("merges{place}: the round is over"),
        Some(share) => {
            format!("merges{place}: the round came to no end; rounds of {share} at most follow")
        }
    }
}

/// A merge moved.
pub fn merge_moved(to: MergeState, merged: Option<&Oid>, detail: &str) -> String {
    let commit = merged.map_or_else(String::new, |commit| format!(" by {}", commit.short()));
    match first_line(detail) {
        "" => format!("merge {to}{commit}"),
        said => format!("merge {to}{commit}: {said}"),
    }
}

/// A clean-up goes on.
pub fn clean_moved(step: CleanStep, kept: Option<&Salvage>) -> String {
    if step == CleanStep::BuildOutput {
        return "its build output is to go; its worktree stays".to_owned();
    }
    let kept = kept.map_or_else(String::new, |kept| {
        format!(
            ", its content is kept by {} at {}",
            kept.reference,
            kept.commit.short()
        )
    });
    format!("its worktree is to go: {} is next{kept}", step.word())
}

/// A clean-up is over.
pub fn clean_ended(removed: bool, detail: &str) -> String {
    let what = if removed {
        "its worktree is gone"
    } else {
        "its worktree stays"
    };
    format!("{what}: {detail}")
}

/// What becomes of a comment on what the task is about; one that is given up is a warning.
pub fn comment_moved(on: CommentOn, to: CommentState, detail: &str) -> String {
    let what = match to {
        CommentState::Queued if detail.is_empty() => "is to be posted",
        CommentState::Queued => "is tried again",
        CommentState::Posting => "is being posted",
        CommentState::Posted => "is there",
        CommentState::Failed => "is not posted (warning)",
    };
    let colon = if detail.is_empty() { "" } else { ": " };
    format!("the comment ({on}) {what}{colon}{detail}")
}

/// Whether work that is done needs the operator before it is on the batch branch.
pub fn merge_needs_person(task: &Task) -> bool {
    merge(task).is_some_and(|merge| matches!(merge.state, MergeState::Parked | MergeState::Failed))
}

/// The merge of a done task's commit.
pub fn merge(task: &Task) -> Option<&Merge> {
    let is_done = task.state == TaskState::Done;
    task.merge.as_ref().filter(|_| is_done)
}

/// Where the merge of a task's commit is; `none` where there is none.
pub fn merge_state(task: &Task) -> MergeState {
    merge(task).map_or(MergeState::None, |merge| merge.state)
}

/// Whether the batch branch holds the task's work, or there is none.
pub fn is_merged(task: &Task) -> bool {
    let merged = merge(task).is_none_or(|merge| merge.state.is_good());
    task.state == TaskState::Done && merged
}

/// What is merged before a merge that waits: what it depends on, else the round that is under way.
fn before(view: &View<'_>, task: &Task) -> String {
    let facts = view.facts;
    let depends_on = task.depends_on.iter().map(|on| on.task);
    let unsettled = |ix: &TaskIx| {
        let merge = view.task(*ix).and_then(|task| task.merge.as_ref());
        merge.is_some_and(|merge| !merge.state.is_settled())
    };
    let first: Vec<TaskIx> = depends_on.filter(unsettled).collect();
    if !first.is_empty() {
        let first = names(Some(facts), first.into_iter());
        return format!(", after {first} on which it depends");
    }
    let spec = facts.specs.get(task.spec.0 as usize);
    let repo = spec.and_then(|spec| facts.repos.get(spec.worktree?.0 as usize));
    match repo.and_then(|repo| repo.round.as_ref()) {
        Some(round) => {
            let about = names(Some(facts), round.about().into_iter());
            format!(", after the round of {about} that is under way")
        }
        None => String::new(),
    }
}

/// Where the merge of a done task is, as the end of its sentence, with what the operator can do.
#[derive(Debug, Clone, Copy)]
pub struct MergeWhy<'a> {
    /// The picture.
    pub view: &'a View<'a>,
    /// The task.
    pub task: &'a Task,
}

impl fmt::Display for MergeWhy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(merge) = merge(self.task) else {
            return Ok(());
        };
        let batch = &self.view.facts.batch.id;
        let task = &self.task.id;
        match merge.state {
            MergeState::None => f.write_str("; nothing to merge"),
            MergeState::Queued => write!(f, "; waits to be merged{}", before(self.view, self.task)),
            MergeState::Merging => f.write_str("; is being merged"),
            MergeState::Verifying => f.write_str("; its merge is being proven"),
            MergeState::Merged => match &merge.merged {
                Some(commit) => write!(f, "; merged by {}", commit.short()),
                None => f.write_str("; merged"),
            },
            MergeState::Conflict => f.write_str("; its merge waits for an agent to resolve it"),
            MergeState::Resolving => f.write_str("; an agent resolves its merge"),
            MergeState::RolledBack => f.write_str("; its merge was rolled back"),
            MergeState::Parked => f.write_str("; its merge waits for the operator"),
            MergeState::Failed => f.write_str("; not merged"),
        }?;
        let told = match merge.state {
            MergeState::None | MergeState::Merging | MergeState::Merged => "",
            MergeState::Queued
            | MergeState::Verifying
            | MergeState::Conflict
            | MergeState::Resolving
            | MergeState::RolledBack
            | MergeState::Parked
            | MergeState::Failed => first_line(&merge.detail),
        };
        if !told.is_empty() {
            write!(f, ": {told}")?;
        }
        if merge_needs_person(self.task) {
            write!(
                f,
                "; `supervisor retry {batch}/{task}` merges it again (a merge of yours on the batch branch counts)"
            )?;
        }
        Ok(())
    }
}
