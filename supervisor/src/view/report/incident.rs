//! What happened beside the work itself: crashes, limits, a full disk, what was killed, what the
//! operator did.

use serde::Serialize;
use supervisor_core::facts::{Facts, Run};
use supervisor_core::machine::{AccountState, BatchState, CommentState, QuestionState};
use supervisor_core::plan::TaskIx;
use supervisor_core::reason::{BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::{Entry, Record, StopReason};
use supervisor_core::step::CleanStep;
use supervisor_core::time::Wall;

use super::plain::sentence;
use crate::view::story;

/// Kinds of incidents, as scripts read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A supervisor was gone without a word, and another one took over.
    Crash,
    /// A supervisor took over what an earlier one had left in order.
    Resumed,
    /// The supervisor became another release in place.
    Replaced,
    /// The supervisor was suspended, stopped or starved for a while.
    Away,
    /// What a crash left of a run was ruled on.
    Lost,
    /// Processes of a run outlived its host: killed, or not excluded.
    Processes,
    /// A limit of the batch or of an account.
    Limit,
    /// The disk was full or could not be written, or was again.
    Disk,
    /// The batch was held or stopped by a rule of its file or by a signal.
    Stopped,
    /// An edited batch file was taken.
    Edited,
    /// The operator did something.
    Operator,
    /// A worktree was to go and stays.
    Kept,
    /// What was to be told on an issue or a pull request is not told there.
    Untold,
    /// Part of a file was cut off because it was not whole.
    Damage,
}

/// Something that happened beside the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// When; absent: it is not recorded.
    pub at: Option<Wall>,
    /// What kind of thing.
    pub kind: Kind,
    /// The task that it is about, if it is about one.
    pub task: Option<TaskIx>,
    /// A sentence.
    pub text: String,
}

/// The incident that a record tells of, if it is one; `before` is the state it is applied to.
pub fn of(before: Option<&Facts>, entry: &Entry) -> Option<Incident> {
    let facts = before?;
    let (kind, task) = kind(facts, &entry.record)?;
    let told = story::line(before, entry).text;
    let text = match (&entry.record, kind) {
        (_, Kind::Crash) => format!("{told}; the one before it was gone without a word"),
        _ => told,
    };
    Some(Incident {
        at: Some(entry.now.wall),
        kind,
        task,
        text: sentence(&text),
    })
}

type About = (Kind, Option<TaskIx>);

fn kind(facts: &Facts, record: &Record) -> Option<About> {
    match record {
        Record::SupervisorStarted { term, .. } => took_over(facts, *term),
        Record::SupervisorReplaced { .. } => Some((Kind::Replaced, None)),
        Record::ClockGap { .. } => Some((Kind::Away, None)),
        Record::BatchMoved { to, reason } => batch_moved(facts, *to, *reason),
        Record::AccountMoved { to, .. } => account_moved(*to),
        Record::PlanRevised(_) => Some((Kind::Edited, None)),
        Record::ConcurrencySet { .. } => Some((Kind::Operator, None)),
        Record::Reopened { task, .. } => Some((Kind::Operator, Some(*task))),
        Record::TaskMoved { task, reason, .. } | Record::TaskEnded { task, reason, .. } => {
            is_operators(*reason).then_some((Kind::Operator, Some(*task)))
        }
        Record::StopDecided {
            generation, reason, ..
        } => {
            let run = facts.runs.get(generation)?;
            ordered(*reason).then_some((Kind::Operator, Some(run.task)))
        }
        Record::QuestionMoved { id, to, .. } => {
            let task = facts.questions.get(id)?.task;
            (*to == QuestionState::Answered).then_some((Kind::Operator, Some(task)))
        }
        Record::RunReconciled {
            generation, letter, ..
        } => {
            let run = facts.runs.get(generation)?;
            (*letter != Letter::A).then_some((Kind::Lost, Some(run.task)))
        }
        Record::RunEnded {
            generation,
            cleared,
            ..
        } => {
            let run = facts.runs.get(generation)?;
            let told = !cleared.is_clean() || (cleared.killed() > 0 && run.stop.is_none());
            told.then_some((Kind::Processes, Some(run.task)))
        }
        Record::CleanEnded { task, removed, .. } => {
            let clean = facts.tasks.get(task.0 as usize)?.clean.as_ref()?;
            let was_to_go = clean.step != CleanStep::BuildOutput;
            (!removed && was_to_go).then_some((Kind::Kept, Some(*task)))
        }
        Record::CommentMoved { task, to, .. } => {
            (*to == CommentState::Failed).then_some((Kind::Untold, Some(*task)))
        }
        Record::BatchCreated(_)
        | Record::PlanExtended { .. }
        | Record::PlanClosed
        | Record::TaskRevised { .. }
        | Record::TaskRemoved { .. }
        | Record::AttemptStarted(_)
        | Record::RunIntended { .. }
        | Record::RunSpawned { .. }
        | Record::RunStarted { .. }
        | Record::RunFinished { .. }
        | Record::AttemptEnded(_)
        | Record::MessageQueued { .. }
        | Record::MessageMoved { .. }
        | Record::QuestionOpened { .. }
        | Record::UsageNoted { .. }
        | Record::RoundBegan { .. }
        | Record::RoundMoved { .. }
        | Record::RoundEnded { .. }
        | Record::MergeMoved { .. }
        | Record::CleanMoved { .. } => None,
    }
}

/// The first supervisor is no incident. One that ends in order does not leave a batch that moves.
fn took_over(facts: &Facts, term: u64) -> Option<About> {
    let left_moving = match facts.batch.state {
        BatchState::Running | BatchState::Stopping => true,
        BatchState::Paused | BatchState::Done | BatchState::Failed | BatchState::Interrupted => {
            facts.runs.values().any(is_begun)
        }
    };
    match (term, left_moving) {
        (0 | 1, _) => None,
        (_, true) => Some((Kind::Crash, None)),
        (_, false) => Some((Kind::Resumed, None)),
    }
}

/// A supervisor that ends in order has ended its runs.
fn is_begun(run: &Run) -> bool {
    !run.unresolved
}

fn batch_moved(facts: &Facts, to: BatchState, reason: BatchReason) -> Option<About> {
    let kind = match reason {
        BatchReason::Disk => Kind::Disk,
        BatchReason::Limit(_) => Kind::Limit,
        BatchReason::Operator => Kind::Operator,
        BatchReason::TaskFailed(_)
        | BatchReason::MergeFailed(_)
        | BatchReason::TooManyFailures
        | BatchReason::NothingStarts
        | BatchReason::Until
        | BatchReason::Drain
        | BatchReason::Stop => Kind::Stopped,
        // It goes on after the disk could not be written: that it was over is worth a line.
        BatchReason::Working if facts.batch.reason == BatchReason::Disk => Kind::Disk,
        BatchReason::Working | BatchReason::NeedsPerson | BatchReason::Settled => return None,
    };
    // The end that a stop leads to says nothing that the stop did not say.
    let again = facts.batch.reason == reason && to != BatchState::Running;
    (!again).then_some((kind, None))
}

fn account_moved(to: AccountState) -> Option<About> {
    match to {
        AccountState::Open | AccountState::Limited | AccountState::Stopped => {
            Some((Kind::Limit, None))
        }
        AccountState::Probing => None,
    }
}

/// What the operator ordered for one task.
fn is_operators(reason: TaskReason) -> bool {
    match reason {
        TaskReason::Operator
        | TaskReason::Killed
        | TaskReason::AsDone
        | TaskReason::SkippedByOperator
        | TaskReason::CancelledByOperator => true,
        TaskReason::New
        | TaskReason::Dependencies
        | TaskReason::Touches(_)
        | TaskReason::NotBefore
        | TaskReason::Lane
        | TaskReason::Backoff(_)
        | TaskReason::AccountLimited
        | TaskReason::AccountStopped
        | TaskReason::Preparing
        | TaskReason::Working
        | TaskReason::Proving
        | TaskReason::Reviewing
        | TaskReason::Question(_)
        | TaskReason::Interrupted
        | TaskReason::Unresolved(_)
        | TaskReason::NeedsOperator(_)
        | TaskReason::Proven
        | TaskReason::Failed(_)
        | TaskReason::Quarantined
        | TaskReason::DependencyFailed(_)
        | TaskReason::BatchStopped
        | TaskReason::NotSelected
        | TaskReason::Removed
        | TaskReason::Reopened => false,
    }
}

/// Whether the operator ordered that a run ends.
const fn ordered(reason: StopReason) -> bool {
    match reason {
        StopReason::Paused | StopReason::Killed | StopReason::Cancelled => true,
        StopReason::Silence
        | StopReason::NoProgress
        | StopReason::Timeout
        | StopReason::Budget
        | StopReason::NoHello
        | StopReason::Protocol
        | StopReason::Hung
        | StopReason::Lingering
        | StopReason::Question
        | StopReason::Superseded
        | StopReason::Removed
        | StopReason::Interrupted => false,
    }
}
