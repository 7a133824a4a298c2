//! What a report needs of the past: the records of a batch, folded once, with a limit on everything
//! that is kept.

use std::collections::BTreeMap;

use protocol::git::{GitOutcome, Oid};
use protocol::report::{ResultStatus, RunResult, Usage};
use supervisor_core::facts::{Facts, Run};
use supervisor_core::plan::{AgentIx, OnConflict, RepoIx, TaskIx};
use supervisor_core::record::{AttemptEnded, AttemptStarted, Entry, Next, Record};
use supervisor_core::step::{Purpose, Stage, Step};
use supervisor_core::time::Wall;

use super::incident::{self, Incident};
use super::merged::{self, MergeStep};
use super::plain::{output, sentence};
use super::tail::Tail;
use super::used::Used;
use crate::view::delivery;

/// Attempts kept of a task: the last ones.
pub const ATTEMPTS_MAX: usize = 20;
/// Steps kept of an attempt: its reviews, its proofs, and what failed.
pub const STEPS_MAX: usize = 20;
/// Steps kept of a merge.
pub const MERGE_STEPS_MAX: usize = 20;
/// Salvage refs kept of a task.
pub const SALVAGED_MAX: usize = 20;
/// Incidents kept of a batch.
pub const INCIDENTS_MAX: usize = 100;
/// Merge commits kept of a batch: as many as it has tasks, unless these are reopened again and again.
pub const COMMITS_MAX: usize = 200_000;

/// The past of a batch.
#[derive(Debug, Default)]
pub struct History {
    tasks: BTreeMap<TaskIx, TaskPast>,
    /// What happened beside the work itself.
    pub incidents: Tail<Incident>,
    /// Merge commits in the order in which the batch branches took them.
    pub commits: Tail<Landed>,
    /// What all agents together used.
    pub used: Used,
    /// Attempts of all tasks.
    pub attempts: u64,
}

/// A merge commit on a batch branch.
#[derive(Debug, Clone)]
pub struct Landed {
    /// Whose work it holds.
    pub task: TaskIx,
    /// The commit.
    pub commit: Oid,
    /// Since when the branch holds it.
    pub at: Wall,
}

/// The past of a task.
#[derive(Debug, Default)]
pub struct TaskPast {
    /// Its attempts.
    pub attempts: Tail<AttemptPast>,
    /// What became of its commit.
    pub merge: Tail<MergeStep>,
    /// What was put aside.
    pub salvaged: Tail<Kept>,
    /// What its agents used, those that reviewed or merged it included.
    pub used: Used,
    /// Time of all its attempts together, milliseconds.
    pub worked_ms: u64,
}

/// An attempt.
#[derive(Debug)]
pub struct AttemptPast {
    /// How it began and when.
    pub started: (AttemptStarted, Wall),
    /// How it ended and when; absent: it is open.
    pub ended: Option<(AttemptEnded, Wall)>,
    /// What its agent says that it did.
    pub summary: String,
    /// The end of what the agent's program printed, where it failed.
    pub output: Vec<String>,
    /// Its other steps that say something.
    pub steps: Tail<StepPast>,
    /// Its commit, and how many files this changes.
    pub commit: Option<(Oid, u64)>,
    /// What its agents used.
    pub used: Used,
}

/// A step of an attempt that says something: a proof, a review, or what failed.
#[derive(Debug)]
pub struct StepPast {
    /// Which one.
    pub step: Step,
    /// Whether it went well.
    pub well: bool,
    /// The reviewer's verdict.
    pub verdict: Option<&'static str>,
    /// What was said: the reviewer's notes, or how a command ended.
    pub text: String,
    /// The end of the output, where it failed.
    pub output: Vec<String>,
}

/// A salvage ref.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The ref.
    pub reference: String,
    /// Its commit.
    pub commit: Oid,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl History {
    /// What is kept of a task; `None` where nothing happened to it.
    pub fn task(&self, ix: TaskIx) -> Option<&TaskPast> {
        self.tasks.get(&ix)
    }

    /// Takes the next record in; `before` is the state that it is applied to.
    pub fn tell(&mut self, before: Option<&Facts>, entry: &Entry) {
        let at = entry.now.wall;
        if let Some(incident) = incident::of(before, entry) {
            self.incidents.push(incident, INCIDENTS_MAX);
        }
        for (task, step) in merged::of(before, entry) {
            let past = self.tasks.entry(task).or_default();
            past.merge.push(step, MERGE_STEPS_MAX);
        }
        if let Record::AttemptStarted(started) = &entry.record {
            self.started(*started, at);
        } else if let Record::RunFinished { generation, result } = &entry.record {
            if let Some(run) = before.and_then(|facts| facts.runs.get(generation)) {
                self.finished(before, run, result, at);
            }
        } else if let Record::RunEnded { generation, .. } = &entry.record {
            if let Some(run) = before.and_then(|facts| facts.runs.get(generation)) {
                self.run_ended(run);
            }
        } else if let Record::AttemptEnded(ended) = &entry.record {
            self.ended(ended, at);
        } else if let Record::MergeMoved {
            task,
            merged: Some(commit),
            ..
        } = &entry.record
        {
            let (task, commit) = (*task, commit.clone());
            self.commits.push(Landed { task, commit, at }, COMMITS_MAX);
        }
    }

    fn started(&mut self, started: AttemptStarted, at: Wall) {
        self.attempts += 1;
        let past = self.tasks.entry(started.task).or_default();
        let attempt = AttemptPast {
            started: (started, at),
            ended: None,
            summary: String::new(),
            output: Vec::new(),
            steps: Tail::default(),
            commit: None,
            used: Used::default(),
        };
        past.attempts.push(attempt, ATTEMPTS_MAX);
    }

    fn ended(&mut self, ended: &AttemptEnded, at: Wall) {
        let past = self.tasks.entry(ended.task).or_default();
        if let Some(attempt) = past.attempts.last_mut() {
            let took = at.0.saturating_sub(attempt.started.1.0).max(0);
            past.worked_ms = past.worked_ms.saturating_add(took.unsigned_abs());
            attempt.ended = Some((ended.clone(), at));
        }
    }

    fn finished(&mut self, before: Option<&Facts>, run: &Run, result: &RunResult, at: Wall) {
        let past = self.tasks.entry(run.task).or_default();
        if let Some(GitOutcome::Salvaged(done)) = result.git.as_deref() {
            let kept = Kept {
                reference: done.reference.clone(),
                commit: done.commit.clone(),
                files: done.files,
                bytes: done.bytes,
            };
            past.salvaged.push(kept, SALVAGED_MAX);
        }
        match run.purpose {
            Purpose::Step(step) => {
                if let Some(attempt) = past.attempts.last_mut() {
                    attempt.finished(step, result);
                }
            }
            Purpose::Merge(repo, Stage::Resolve) => {
                let agent = resolver(before, repo, run.task);
                let step = merged::resolved(before, agent, result, at);
                past.merge.push(step, MERGE_STEPS_MAX);
            }
            Purpose::Merge(..) | Purpose::Clean(_) | Purpose::Comment(_) => {}
        }
    }

    /// What a run used is known once it is over.
    fn run_ended(&mut self, run: &Run) {
        if !run.purpose.is_agent() {
            return;
        }
        let result = run
            .result
            .as_deref()
            .map_or_else(Usage::default, |it| it.usage);
        let used = Used::of(run, result);
        self.used.add(used);
        let past = self.tasks.entry(run.task).or_default();
        past.used.add(used);
        let is_step = matches!(run.purpose, Purpose::Step(_));
        if let Some(attempt) = past.attempts.last_mut().filter(|_| is_step) {
            attempt.used.add(used);
        }
    }
}

impl AttemptPast {
    fn finished(&mut self, step: Step, result: &RunResult) {
        let well = result.status == ResultStatus::Ok;
        if let Some(GitOutcome::Committed(done)) = result.git.as_deref() {
            self.commit = Some((done.commit.clone(), done.files));
        }
        if step == Step::Work {
            self.summary = sentence(&result.summary);
            self.output = failed_output(result);
            return;
        }
        if well && !matches!(step, Step::Prove | Step::Review) {
            return;
        }
        let told = StepPast {
            step,
            well,
            verdict: result.verdict.map(|verdict| verdict.word()),
            text: sentence(&result.summary),
            output: failed_output(result),
        };
        self.steps.push(told, STEPS_MAX);
    }

    /// What followed it, in words; nothing where it was the end.
    pub fn next(&self) -> Option<String> {
        let (ended, _) = self.ended.as_ref()?;
        match &ended.next {
            Next::End { .. } => None,
            Next::Retry { mode, .. } => Some(format!("another attempt follows ({})", mode.word())),
            Next::Hold { mode, .. } => Some(format!("held; then {}", mode.word())),
        }
    }
}

/// The end of the output of a run that failed.
pub fn failed_output(result: &RunResult) -> Vec<String> {
    match result.status {
        ResultStatus::Ok => Vec::new(),
        ResultStatus::Failed => output(&result.evidence),
    }
}

/// The agent that resolves merges of a task.
fn resolver(facts: Option<&Facts>, repo: RepoIx, task: TaskIx) -> Option<AgentIx> {
    let facts = facts?;
    match facts.repos.get(repo.0 as usize)?.spec.on_conflict {
        OnConflict::Agent(Some(agent)) => Some(agent),
        OnConflict::Agent(None) => {
            let task = facts.tasks.get(task.0 as usize)?;
            Some(facts.specs.get(task.spec.0 as usize)?.agent)
        }
        OnConflict::Fail | OnConflict::Park => None,
    }
}

/// What a step is called.
pub fn step_name(step: Step) -> String {
    delivery::purpose(None, Purpose::Step(step))
}
