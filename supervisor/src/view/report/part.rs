//! The parts of a report: the keys of `report --json`, and the names that its templates use. Keys
//! stay; more may come. Times are RFC 3339 UTC, lengths milliseconds.

use serde::Serialize;

use super::incident::Kind;
use super::used::UsedPart;
use crate::view::Counts;
use crate::view::time::Stamp;

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of these keys: 1.
    pub v: u32,
    /// When the report was made.
    pub made: Stamp,
    /// The task that it is about; absent: the whole batch.
    pub task: Option<String>,
    /// The batch.
    pub batch: BatchPart,
    /// What waits for the operator, the batch itself first.
    pub needs: Vec<Need>,
    /// Its tasks, in the order of the plan.
    pub tasks: Vec<TaskPart>,
    /// Its repositories: what is on each batch branch.
    pub repos: Vec<RepoPart>,
    /// What happened beside the work, oldest first.
    pub incidents: Vec<IncidentPart>,
    /// Incidents that came before these and are not kept.
    pub incidents_before: usize,
    /// Worktrees that are there.
    pub worktrees: Vec<WorktreePart>,
    /// Refs that hold what was put aside.
    pub salvaged: Vec<SalvagePart>,
    /// Hosts that live although no supervisor does.
    pub hosts: Vec<HostPart>,
}

/// The batch in numbers.
#[derive(Debug, Serialize)]
pub struct BatchPart {
    /// Its id.
    pub id: String,
    /// Its name in the batch file.
    pub name: String,
    /// The word of its state.
    pub state: &'static str,
    /// Why it is there.
    pub reason: String,
    /// Whether a supervisor works on it.
    pub alive: bool,
    /// The batch file.
    pub file: String,
    /// The folder of its files.
    pub dir: String,
    /// When it was created.
    pub created: Stamp,
    /// When its last record was made.
    pub updated: Stamp,
    /// The number of that record.
    pub record: u64,
    /// How often a supervisor was started on it.
    pub terms: u64,
    /// From its creation to its last record.
    pub wall_ms: u64,
    /// How long it ran, pauses not counted.
    pub ran_ms: u64,
    /// Tasks.
    pub tasks: usize,
    /// Tasks that have an outcome.
    pub settled: usize,
    /// Tasks by state.
    pub counts: Counts,
    /// Attempts of all tasks.
    pub attempts: u64,
    /// What all its agents used.
    pub used: UsedPart,
}

/// What waits for the operator.
#[derive(Debug, Serialize)]
pub struct Need {
    /// `question`, `auth`, `budget`, `failed`, `parked_merge`, `failed_merge`, `held`, `unresolved` or
    /// `stopped`.
    pub kind: &'static str,
    /// The task; absent: the batch.
    pub task: Option<String>,
    /// What is the matter.
    pub text: String,
    /// The command that lets it go on.
    pub command: String,
}

/// A task.
#[derive(Debug, Serialize)]
pub struct TaskPart {
    /// Its id.
    pub id: String,
    /// The word of its state.
    pub state: &'static str,
    /// Why it is there, with what the operator can do.
    pub reason: String,
    /// Since when.
    pub since: Stamp,
    /// Its agent; absent for a plain command.
    pub agent: Option<String>,
    /// Attempts that it had.
    pub attempts_had: u32,
    /// Attempts that count.
    pub attempts_counted: u32,
    /// Attempts that may count.
    pub attempts_max: u32,
    /// Time of all its attempts together, that of an open one included.
    pub worked_ms: u64,
    /// What its agents used.
    pub used: UsedPart,
    /// It went as planned: done at once and, where there is something to merge, merged at once.
    pub smooth: bool,
    /// It is over, or waits, in a way that the operator should look at.
    pub needs_operator: bool,
    /// Its attempts; the last ones where there were many.
    pub attempts: Vec<AttemptPart>,
    /// Attempts that came before these and are not kept.
    pub attempts_before: usize,
    /// The merge of its commit; absent where there is nothing to merge.
    pub merge: Option<MergePart>,
    /// Its branch, where it has or had one.
    pub branch: Option<String>,
    /// Its worktree, while it has one.
    pub worktree: Option<String>,
    /// What was put aside of it.
    pub salvaged: Vec<SalvagePart>,
}

/// An attempt.
#[derive(Debug, Serialize)]
pub struct AttemptPart {
    /// Its number.
    pub attempt: u32,
    /// How it began: `fresh`, `resume` or `new_session`.
    pub mode: &'static str,
    /// When it began.
    pub began: Stamp,
    /// How long it took; absent while it is open.
    pub took_ms: Option<u64>,
    /// `done`, the class of its failure, or `open`.
    pub outcome: &'static str,
    /// Whether it counts; absent where it is open or done.
    pub counts: Option<bool>,
    /// How it ended; empty where there is nothing to say.
    pub text: String,
    /// What its agent says that it did.
    pub summary: String,
    /// The end of what its agent printed, where that failed.
    pub output: Vec<String>,
    /// What followed; absent where it was the last.
    pub next: Option<String>,
    /// Its commit.
    pub commit: Option<String>,
    /// How many files that changes.
    pub files: Option<u64>,
    /// What its agents used.
    pub used: UsedPart,
    /// Its reviews and proofs, and what failed beside its agent.
    pub steps: Vec<StepPart>,
    /// Steps that came before these and are not kept.
    pub steps_before: usize,
}

/// A step of an attempt.
#[derive(Debug, Serialize)]
pub struct StepPart {
    /// What it is for: `verify`, `review`, `hook before_run`, ...
    pub step: String,
    /// Whether it went well.
    pub well: bool,
    /// `approve`, `revise` or `reject`, of a review that said so.
    pub verdict: Option<&'static str>,
    /// The first line of the reviewer's notes, or how a command ended.
    pub text: String,
    /// The end of the output, where it failed.
    pub output: Vec<String>,
}

/// The merge of a task's commit.
#[derive(Debug, Serialize)]
pub struct MergePart {
    /// The word of its state.
    pub state: &'static str,
    /// What is merged.
    pub commit: String,
    /// The commit on the batch branch that holds it.
    pub merged: Option<String>,
    /// Its way there.
    pub steps: Vec<MergeStepPart>,
    /// Steps that came before these and are not kept.
    pub steps_before: usize,
}

/// A step of a merge.
#[derive(Debug, Serialize)]
pub struct MergeStepPart {
    /// When.
    pub time: Stamp,
    /// The state that it moved to, or `halving` while the merge that breaks a proof is looked for.
    pub what: &'static str,
    /// A sentence; empty where the word says it all.
    pub text: String,
}

/// A repository.
#[derive(Debug, Serialize)]
pub struct RepoPart {
    /// Its name in the batch file.
    pub name: String,
    /// Its working folder.
    pub path: Option<String>,
    /// The batch branch.
    pub branch: Option<String>,
    /// The commit that the batch started from.
    pub base: Option<String>,
    /// The last merge commit; absent where nothing is merged.
    pub tip: Option<String>,
    /// Its merges, in the order in which the branch took them.
    pub merged: Vec<MergedPart>,
    /// Tasks whose work is not merged yet, or waits for the operator.
    pub unmerged: Vec<String>,
    /// Where the work went at the operator's order.
    pub integrated: Vec<IntegratedPart>,
    /// Whether the tip is where the operator wanted it.
    pub is_integrated: bool,
    /// The command that takes the work into the operator's branch; absent where there is none.
    pub command: Option<String>,
}

/// A commit of the batch branch.
#[derive(Debug, Serialize)]
pub struct MergedPart {
    /// Whose work it holds.
    pub task: String,
    /// The commit.
    pub commit: String,
    /// Since when the branch holds it.
    pub time: Stamp,
}

/// Work that the operator took.
#[derive(Debug, Serialize)]
pub struct IntegratedPart {
    /// When.
    pub time: String,
    /// The commit of the batch branch.
    pub commit: String,
    /// The branch that took it.
    pub into: String,
    /// A sentence.
    pub text: String,
}

/// Something that happened beside the work.
#[derive(Debug, Serialize)]
pub struct IncidentPart {
    /// When; absent where that is not recorded.
    pub time: Option<Stamp>,
    /// What kind of thing: a word of the manual.
    pub kind: Kind,
    /// The task that it is about.
    pub task: Option<String>,
    /// A sentence.
    pub text: String,
}

/// A worktree.
#[derive(Debug, Serialize)]
pub struct WorktreePart {
    /// Whose.
    pub task: String,
    /// Where.
    pub path: String,
    /// Whether all of its commits are on the batch branch.
    pub merged: bool,
}

/// A salvage ref.
#[derive(Debug, Clone, Serialize)]
pub struct SalvagePart {
    /// Whose work.
    pub task: String,
    /// The ref.
    pub reference: String,
    /// Its commit.
    pub commit: String,
    /// Files in it; absent where that is not known any more.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

/// A host without a supervisor.
#[derive(Debug, Serialize)]
pub struct HostPart {
    /// Its run.
    pub run: u64,
    /// Whose.
    pub task: String,
    /// Its pid; absent on another machine or in another namespace.
    pub pid: Option<u32>,
}
