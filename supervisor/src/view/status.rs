//! `status --json` and `list --json`: stable keys, streamed row by row.

use std::io::{self, Write};
use std::path::PathBuf;

use protocol::report::Usage;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use supervisor_core::facts::Task;
use supervisor_core::machine::TaskState;

use crate::store::integrated::Note;
use crate::view::asked::needs_person;
use crate::view::delivery::{Places, merge, merge_state};
use crate::view::family::FamilyRow;
use crate::view::reason::{BatchWhy, TaskWhy, outcome_word};
use crate::view::time::Stamp;
use crate::view::{Counts, Guard, Presence, View};

/// Which tasks a reader wants to see.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those that need a person.
    pub needs_me: bool,
    /// Only those in one of these states; empty: any.
    pub states: Vec<TaskState>,
    /// Only these ids; empty: any.
    pub tasks: Vec<String>,
}

impl Filter {
    /// Whether anything is left out on purpose.
    pub fn is_open(&self) -> bool {
        !self.needs_me && self.states.is_empty() && self.tasks.is_empty()
    }

    /// Whether the reader wants this task.
    pub fn wants(&self, view: &View<'_>, task: &Task) -> bool {
        let state = view.task_state(task);
        (!self.needs_me || needs_person(task))
            && (self.states.is_empty() || self.states.contains(&state))
            && (self.tasks.is_empty() || self.tasks.iter().any(|id| id == task.id.as_str()))
    }
}

/// Use as scripts read it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct UsageRow {
    turns: u64,
    tokens: u64,
    cost_usd: f64,
}

impl From<Usage> for UsageRow {
    fn from(usage: Usage) -> Self {
        // Exact up to 9 billion dollars: a double holds every integer below 2^53.
        #[expect(
            clippy::cast_precision_loss,
            reason = "cost stays far below 2^53 micro-dollars"
        )]
        let cost_usd = usage.cost_micros as f64 / 1e6;
        Self {
            turns: usage.turns,
            tokens: usage.tokens,
            cost_usd,
        }
    }
}

/// The batch itself.
#[derive(Debug, Serialize)]
pub struct BatchRow<'a> {
    id: &'a str,
    name: &'a str,
    state: &'static str,
    reason: BatchWhy<'a>,
    started: Stamp,
    updated: Stamp,
    dir: &'a str,
    supervisor: Presence,
    guardian: Option<Guard>,
    counts: Counts,
    usage: UsageRow,
}

impl<'a> BatchRow<'a> {
    /// The row of this batch.
    pub fn new(view: &'a View<'a>) -> Self {
        let batch = &view.facts.batch;
        Self {
            id: batch.id.as_str(),
            name: &batch.settings.name,
            state: view.batch_state().word(),
            reason: BatchWhy { view },
            started: Stamp(batch.created),
            updated: Stamp(batch.now.wall),
            dir: view.dir,
            supervisor: view.presence,
            guardian: view.guard,
            counts: view.counts(),
            usage: batch.usage.into(),
        }
    }
}

/// How far the review of an open attempt is.
#[derive(Debug, Serialize)]
struct ReviewRow<'a> {
    /// `approve`, `revise` or `reject`, until the agent works again.
    verdict: Option<&'static str>,
    /// How often its work was sent back.
    rounds: u32,
    /// What the reviewer said last.
    notes: Option<&'a str>,
}

impl<'a> ReviewRow<'a> {
    fn new(task: &'a Task) -> Option<Self> {
        let attempt = task.attempt.as_ref()?;
        let begun = attempt.verdict.is_some() || attempt.rounds > 0 || attempt.notes.is_some();
        begun.then(|| Self {
            verdict: attempt.verdict.map(|verdict| verdict.word()),
            rounds: attempt.rounds,
            notes: attempt.notes.as_deref(),
        })
    }
}

/// The last commit of a task's work: what is merged, else what its worktree holds.
fn commit(task: &Task) -> Option<&str> {
    let merged = merge(task).map(|merge| &merge.commit);
    let held = task.worktree.as_ref();
    let commit = merged.or_else(|| held?.commit.as_ref())?;
    Some(commit.as_str())
}

#[derive(Debug, Serialize)]
struct QuestionRow<'a> {
    id: String,
    text: &'a str,
    options: Vec<&'a str>,
    asked: Stamp,
    deadline: Stamp,
}

/// One task.
#[derive(Debug, Serialize)]
pub struct TaskRow<'a> {
    id: &'a str,
    state: &'static str,
    reason: TaskWhy<'a>,
    since: Stamp,
    next_check: Option<Stamp>,
    attempt: Option<u32>,
    attempts_max: u32,
    agent: Option<&'a str>,
    depends_on: Names<'a>,
    worktree: Option<PathBuf>,
    branch: Option<String>,
    merge: &'static str,
    /// Why its merge is where it is; empty where there is nothing to say.
    merge_detail: &'a str,
    /// The last commit of its work.
    commit: Option<&'a str>,
    /// The commit on the batch branch that holds it.
    merged: Option<&'a str>,
    /// What its reviewer said last of the open attempt, and how often it sent the work back.
    review: Option<ReviewRow<'a>>,
    /// Refs that hold what was put aside of it, oldest first.
    salvaged: Vec<&'a str>,
    outcome: Option<&'static str>,
    question: Option<QuestionRow<'a>>,
    usage: UsageRow,
    family: Option<FamilyRow>,
}

impl<'a> TaskRow<'a> {
    /// The row of this task. Without isolation there is no worktree, no branch and nothing to merge.
    pub fn new(view: &'a View<'a>, places: &Places<'_>, task: &'a Task) -> Self {
        Self {
            id: task.id.as_str(),
            state: view.task_state(task).word(),
            reason: TaskWhy { view, task },
            since: Stamp(task.since),
            next_check: view.next_check(task).map(Stamp),
            attempt: (task.attempts.0 > 0).then_some(task.attempts.0),
            attempts_max: view.attempts_max(task),
            agent: view.agent(task).map(|agent| &*agent.name),
            depends_on: Names { view, task },
            worktree: places.worktree(task),
            branch: places.branch(task),
            merge: merge_state(task).word(),
            merge_detail: merge(task).map_or("", |merge| &merge.detail),
            commit: commit(task),
            merged: merge(task).and_then(|merge| Some(merge.merged.as_ref()?.as_str())),
            review: ReviewRow::new(task),
            salvaged: task.salvaged.iter().map(|kept| &*kept.reference).collect(),
            outcome: task.last.as_deref().map(outcome_word),
            question: question(view, task),
            usage: task.usage.into(),
            family: FamilyRow::new(view, task),
        }
    }
}

/// The question that a waiting task asks. Only those are looked for: a batch has few of them.
fn question<'a>(view: &'a View<'a>, task: &'a Task) -> Option<QuestionRow<'a>> {
    let supervisor_core::reason::TaskReason::Question(id) = task.reason else {
        return None;
    };
    let question = view.facts.questions.get(&id)?;
    Some(QuestionRow {
        id: id.to_string(),
        text: &question.text,
        options: question.options.iter().map(|option| &**option).collect(),
        asked: Stamp(question.asked),
        deadline: Stamp(view.shown(question.deadline)),
    })
}

#[derive(Debug)]
struct Names<'a> {
    view: &'a View<'a>,
    task: &'a Task,
}

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tasks = self.task.depends_on.iter();
        serializer.collect_seq(tasks.filter_map(|on| Some(self.view.task(on.task)?.id.as_str())))
    }
}

/// What is not in the journal of a batch.
#[derive(Debug, Default, Serialize)]
pub struct Beside<'a, M> {
    /// Where its work was brought last by the operator.
    pub integrated: Option<&'a Note>,
    /// The branches that it began from and that have moved since.
    pub moved: &'a [M],
}

#[derive(Debug, Serialize)]
struct Head<'a, M> {
    #[serde(flatten)]
    row: BatchRow<'a>,
    #[serde(flatten)]
    beside: &'a Beside<'a, M>,
}

#[derive(Debug, Serialize)]
struct Status<'a, M> {
    batch: Head<'a, M>,
    tasks: Rows<'a>,
}

#[derive(Debug)]
struct Rows<'a> {
    view: &'a View<'a>,
    filter: &'a Filter,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(None)?;
        let places = self.view.places();
        for task in &self.view.facts.tasks {
            if self.filter.wants(self.view, task) {
                rows.serialize_element(&TaskRow::new(self.view, &places, task))?;
            }
        }
        rows.end()
    }
}

/// Writes `status --json`.
///
/// # Errors
/// When `out` can not be written.
pub fn write_json<M: Serialize>(
    view: &View<'_>,
    beside: &Beside<'_, M>,
    filter: &Filter,
    out: &mut dyn Write,
) -> io::Result<()> {
    let row = BatchRow::new(view);
    let status = Status {
        batch: Head { row, beside },
        tasks: Rows { view, filter },
    };
    serde_json::to_writer(&mut *out, &status)?;
    out.write_all(b"\n")
}
