//! Why each entity is where it is; status and `explain` turn these into sentences.

use protocol::class::Class;
use protocol::ids::QuestionId;

use crate::plan::TaskIx;
use crate::reconcile::Letter;

/// Why a batch is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchReason {
    /// Its supervisor works on it.
    Working,
    /// The operator said so.
    Operator,
    /// A limit of the batch is reached.
    Limit(BatchLimit),
    /// The disk is full or can not be written.
    Disk,
    /// A task failed and the batch file says to stop then.
    TaskFailed(TaskIx),
    /// The merge of a task's work failed and the batch file says to stop then.
    MergeFailed(TaskIx),
    /// More tasks and merges failed than `max_failures` allows.
    TooManyFailures,
    /// Hosts can not be started: nothing else was tried since the last good start.
    NothingStarts,
    /// `until` has come.
    Until,
    /// A signal asked to drain: what runs may finish.
    Drain,
    /// A signal or a command asked to stop what runs.
    Stop,
    /// What is left waits for the operator.
    NeedsPerson,
    /// Every task is settled.
    Settled,
}

/// Which limit of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BatchLimit {
    /// `limits.turns`
    Turns,
    /// `limits.tokens`
    Tokens,
    /// `limits.cost_usd`
    Cost,
    /// `limits.wall`
    Wall,
}

/// Why a task is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskReason {
    /// Not looked at yet.
    New,
    /// Dependencies are not met.
    Dependencies,
    /// Another task that is live touches the same files.
    Touches(TaskIx),
    /// A date of the batch file.
    NotBefore,
    /// All lanes are taken.
    Lane,
    /// The wait before another attempt after this class.
    Backoff(Class),
    /// Its account is limited until its reset.
    AccountLimited,
    /// Its account is stopped until the operator acts.
    AccountStopped,
    /// Its worktree is being made, or the operator's commands before it run.
    Preparing,
    /// Its agent works.
    Working,
    /// Its proof is being made.
    Proving,
    /// Another agent judges its work.
    Reviewing,
    /// Its agent asked.
    Question(QuestionId),
    /// The operator paused it.
    Operator,
    /// The operator killed its attempt.
    Killed,
    /// Its supervisor stopped; `run` goes on with it.
    Interrupted,
    /// After a crash its run could not be judged: no other one may start beside it.
    Unresolved(Letter),
    /// This class needs the operator before another attempt makes sense.
    NeedsOperator(Class),
    /// Agent and proof say so.
    Proven,
    /// The operator says so.
    AsDone,
    /// Its last attempt ended with this class, and no other follows.
    Failed(Class),
    /// Lost again and again without progress.
    Quarantined,
    /// This dependency did not get done.
    DependencyFailed(TaskIx),
    /// The operator skipped it.
    SkippedByOperator,
    /// The operator cancelled it.
    CancelledByOperator,
    /// The batch stopped before it was tried.
    BatchStopped,
    /// Not among the tasks that `--only` named.
    NotSelected,
    /// The batch file no longer has it.
    Removed,
    /// Reopened by the operator.
    Reopened,
}

/// Why an account is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountReason {
    /// An attempt ended with this class.
    Class(Class),
    /// The time named by the service, or the wait, is over.
    Reset,
    /// The probe went well.
    ProbeWentWell,
    /// The operator said so.
    Operator,
}
