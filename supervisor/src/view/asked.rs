//! What a task asks of a person, by the reason that it has.

use protocol::ids::QuestionId;
use supervisor_core::facts::Task;
use supervisor_core::reason::TaskReason;

use crate::view::delivery;

/// What a person has to do with a task before it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Its agent waits for an answer.
    Question(QuestionId),
    /// Its account was stopped.
    AccountStopped,
    /// It failed in a way that only the operator can put right.
    NeedsOperator,
    /// The operator holds it.
    Held,
    /// The operator killed its attempt.
    Killed,
    /// It is not certain that its run is over.
    Unresolved,
    /// It has failed.
    Failed,
    /// It was lost too often.
    Quarantined,
}

/// What is asked of a person by the reason that a task has; `None`: it moves, waits or is over by itself.
pub const fn asked(reason: TaskReason) -> Option<Asked> {
    Some(match reason {
        TaskReason::Question(id) => Asked::Question(id),
        TaskReason::AccountStopped => Asked::AccountStopped,
        TaskReason::NeedsOperator(_) => Asked::NeedsOperator,
        TaskReason::Operator => Asked::Held,
        TaskReason::Killed => Asked::Killed,
        TaskReason::Unresolved(_) => Asked::Unresolved,
        TaskReason::Failed(_) => Asked::Failed,
        TaskReason::Quarantined => Asked::Quarantined,
        TaskReason::New
        | TaskReason::Dependencies
        | TaskReason::Touches(_)
        | TaskReason::NotBefore
        | TaskReason::Lane
        | TaskReason::Backoff(_)
        | TaskReason::AccountLimited
        | TaskReason::Preparing
        | TaskReason::Working
        | TaskReason::Proving
        | TaskReason::Reviewing
        | TaskReason::Interrupted
        | TaskReason::Proven
        | TaskReason::AsDone
        | TaskReason::DependencyFailed(_)
        | TaskReason::SkippedByOperator
        | TaskReason::CancelledByOperator
        | TaskReason::BatchStopped
        | TaskReason::NotSelected
        | TaskReason::Removed
        | TaskReason::Reopened => return None,
    })
}

/// Whether a person must do something before this task, or the merge of its work, moves.
pub fn needs_person(task: &Task) -> bool {
    delivery::merge_needs_person(task) || asked(task.reason).is_some()
}
