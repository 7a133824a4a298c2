//! Everything that can be decided; applying records, live or from a journal, is the only thing that
//! changes the state.

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::SteerMode;
use protocol::git::Oid;
use protocol::ids::{AttemptNo, BatchId, Generation, MessageId, QuestionId};
use protocol::report::{Capabilities, RunResult, Usage};

use crate::containment::{Cleared, Containment};
use crate::facts::{Footprint, Salvage};
use crate::identity::{Exit, Identity};
use crate::machine::{
    AccountState, BatchState, CommentState, MergeState, MessageState, QuestionState, TaskState,
};
use crate::plan::{
    AccountIx, AccountSpec, AgentSpec, PlannedTask, RepoIx, RepoSpec, RetryMode, Rules, Settings,
    TaskIx, TaskSpec,
};
use crate::reason::{AccountReason, BatchReason, TaskReason};
use crate::reconcile::Letter;
use crate::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use crate::time::{Deadline, Now, Wall};

/// A record with its place in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// The term of the supervisor that decided it.
    pub term: u64,
    /// When it was decided.
    pub now: Now,
    /// What was decided.
    pub record: Record,
}

/// One decision.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// The batch exists. Always the first record.
    BatchCreated(Box<BatchCreated>),
    /// The batch file was read again and says something else. `PlanExtended`, `TaskRevised` and
    /// `TaskRemoved` say what that means for tasks; `PlanClosed` ends it.
    PlanRevised(Box<PlanRevised>),
    /// The plan grows by specs and tasks; dependencies may point at tasks that a later record of
    /// the same creation or revision brings. After the last one `PlanClosed` follows.
    PlanExtended {
        /// Added at the end of the specs.
        specs: Vec<Arc<TaskSpec>>,
        /// Added at the end of the tasks.
        tasks: Vec<PlannedTask>,
    },
    /// The extension is whole: new and revised tasks may be looked at.
    PlanClosed,
    /// A task that is not done takes other rules; where an attempt is open, from its end on.
    TaskRevised {
        /// The task.
        task: TaskIx,
        /// Its new rules.
        rules: Rules,
    },
    /// The batch file no longer has this task, which is not done: it is skipped; where an attempt
    /// is open, that is its last one.
    TaskRemoved {
        /// The task.
        task: TaskIx,
    },
    /// A supervisor took the batch over.
    SupervisorStarted {
        /// Its term: one more than the last.
        term: u64,
        /// The supervisor itself.
        identity: Identity,
        /// Its owner, which starts it again; `None`: it runs without one.
        guardian: Option<Identity>,
        /// Its release.
        build: Arc<str>,
    },
    /// The supervisor became another program in place: what follows was decided by this release.
    SupervisorReplaced {
        /// Its release.
        build: Arc<str>,
    },
    /// The supervisor was away (suspended, stopped, starved) for this long: boot deadlines move.
    ClockGap {
        /// The length.
        gap: Duration,
    },
    /// The batch changes state.
    BatchMoved {
        /// To this.
        to: BatchState,
        /// Because of this.
        reason: BatchReason,
    },
    /// A task changes state without an attempt of its own starting or ending.
    TaskMoved {
        /// The task.
        task: TaskIx,
        /// To this (may be the state it is in: then only the reason changes).
        to: TaskState,
        /// Because of this.
        reason: TaskReason,
        /// When it will be looked at again.
        next_check: Option<Deadline>,
    },
    /// An attempt begins, and with it its agent run.
    AttemptStarted(AttemptStarted),
    /// A further run begins: of the open attempt, of a merge, or of a clean-up.
    RunIntended {
        /// The run.
        generation: Generation,
        /// Of this task.
        task: TaskIx,
        /// For this.
        purpose: Purpose,
        /// The spawn token that will be in its environment.
        token: u128,
    },
    /// The host exists behind the stdin gate.
    RunSpawned {
        /// The run.
        generation: Generation,
        /// The host.
        identity: Identity,
        /// What holds its tree together.
        containment: Containment,
    },
    /// The agent's program runs.
    RunStarted {
        /// The run.
        generation: Generation,
        /// What its adapter can prove.
        capabilities: Capabilities,
        /// Its conversation.
        session: Option<Arc<str>>,
    },
    /// The run is to end.
    StopDecided {
        /// The run.
        generation: Generation,
        /// Because of this.
        reason: StopReason,
        /// Time until its tree is killed.
        grace: Duration,
    },
    /// The run's result is durable with the host.
    RunFinished {
        /// The run.
        generation: Generation,
        /// The result.
        result: Arc<RunResult>,
    },
    /// The host is gone.
    RunEnded {
        /// The run.
        generation: Generation,
        /// How.
        exit: Exit,
        /// Messages that the host's file names as injected.
        injected: Vec<MessageId>,
        /// What is known of its tree now.
        cleared: Cleared,
        /// What its family used, as far as it was seen.
        footprint: Footprint,
    },
    /// After a crash: what was found of a run, and the ruling.
    RunReconciled {
        /// The run.
        generation: Generation,
        /// The row of the table.
        letter: Letter,
        /// What was found of its tree, and what became of it.
        cleared: Cleared,
    },
    /// The attempt has an outcome.
    AttemptEnded(AttemptEnded),
    /// A task without an open attempt is terminal.
    TaskEnded {
        /// The task.
        task: TaskIx,
        /// Done, failed, cancelled or skipped.
        to: TaskState,
        /// Because of this.
        reason: TaskReason,
    },
    /// The operator reopened a terminal task: epoch + 1, attempts counted anew; what was skipped
    /// because of it is looked at again.
    Reopened {
        /// The task.
        task: TaskIx,
        /// How its next attempt begins.
        mode: RetryMode,
        /// Attempts at most from now on, where the operator said so.
        attempts: Option<u32>,
    },
    /// A message for a task.
    MessageQueued {
        /// Its id.
        id: MessageId,
        /// For this task.
        task: TaskIx,
        /// When it goes in.
        mode: SteerMode,
        /// Its text.
        text: Arc<str>,
        /// Useless after this.
        expires: Option<Wall>,
        /// The task whose agent wrote it; absent: the operator.
        from: Option<TaskIx>,
    },
    /// A message went a rung further, or off the ladder.
    MessageMoved {
        /// The message.
        id: MessageId,
        /// To this rung.
        to: MessageState,
        /// In this run.
        generation: Option<Generation>,
    },
    /// An agent asks.
    QuestionOpened {
        /// Its id.
        id: QuestionId,
        /// The task.
        task: TaskIx,
        /// The run that asks.
        generation: Generation,
        /// The question.
        text: Arc<str>,
        /// Answers to choose from.
        options: Vec<Arc<str>>,
        /// How long it waits.
        deadline: Deadline,
    },
    /// A question is settled.
    QuestionMoved {
        /// The question.
        id: QuestionId,
        /// How.
        to: QuestionState,
        /// The answer, where there is one.
        answer: Option<Arc<str>>,
    },
    /// An account changes state.
    AccountMoved {
        /// The account.
        account: AccountIx,
        /// To this.
        to: AccountState,
        /// Because of this.
        reason: AccountReason,
        /// When it will be looked at again.
        until: Option<Deadline>,
    },
    /// What a live run has used so far (cumulative for the run); written at most once in a while.
    UsageNoted {
        /// The run.
        generation: Generation,
        /// Its use.
        usage: Usage,
    },
    /// It is the turn of these tasks to be merged, or of one to be resolved.
    RoundBegan {
        /// In this repository.
        repo: RepoIx,
        /// Beginning with this.
        stage: Stage,
        /// The tasks, never none.
        tasks: Vec<TaskIx>,
    },
    /// The round goes on with another stage, or with the same one once more.
    RoundMoved {
        /// In this repository.
        repo: RepoIx,
        /// To this.
        stage: Stage,
        /// Where the batch branch was when it began.
        tip: Option<Oid>,
        /// The merge commits, in order.
        commits: Vec<(TaskIx, Oid)>,
        /// How many of these are proven together.
        good: u32,
        /// How many of these together were proven bad.
        bad: Option<u32>,
        /// How the last proof failed.
        detail: Arc<str>,
    },
    /// The round is over: every task of it has been moved on.
    RoundEnded {
        /// In this repository.
        repo: RepoIx,
        /// It came to no end: those that it was about are merged in rounds of at most so many, until
        /// it is known which of them is in the way.
        share: Option<u32>,
    },
    /// The merge of a task's commit changes state.
    MergeMoved {
        /// The task.
        task: TaskIx,
        /// To this.
        to: MergeState,
        /// The commit on the batch branch that holds it, for `merged`.
        merged: Option<Oid>,
        /// A sentence for people.
        detail: Arc<str>,
    },
    /// A worktree is to go: the step that is due.
    CleanMoved {
        /// Of this task.
        task: TaskIx,
        /// Next.
        step: CleanStep,
        /// The ref and commit that hold what is in it, once known.
        kept: Option<Salvage>,
    },
    /// A worktree is gone, or stays.
    CleanEnded {
        /// Of this task.
        task: TaskIx,
        /// It is gone.
        removed: bool,
        /// A sentence for people.
        detail: Arc<str>,
    },
    /// A comment on the issue or pull request of a task changes state; the first record of one queues it.
    CommentMoved {
        /// Of this task.
        task: TaskIx,
        /// What it tells.
        on: CommentOn,
        /// To this (may be the state it is in: then only the time changes).
        to: CommentState,
        /// Not before this.
        at: Option<Deadline>,
        /// A sentence for people.
        detail: Arc<str>,
    },
    /// The operator changed the batch's concurrency.
    ConcurrencySet {
        /// Live attempts at most.
        concurrency: u32,
    },
}

/// The first record.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchCreated {
    /// The batch.
    pub id: BatchId,
    /// Seed of every random choice (jitter).
    pub seed: u64,
    /// Rules.
    pub settings: Settings,
    /// Agents.
    pub agents: Vec<AgentSpec>,
    /// Accounts.
    pub accounts: Vec<AccountSpec>,
    /// Repositories.
    pub repos: Vec<RepoSpec>,
}

/// What a revision says of the whole batch.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRevised {
    /// Its number, from 1.
    pub revision: u32,
    /// Rules from now on.
    pub settings: Settings,
    /// Agents that are new or changed: added at the end of the agents.
    pub agents: Vec<AgentSpec>,
    /// Accounts that are new or changed: one of a known name takes other rules where it stands,
    /// others are added at the end.
    pub accounts: Vec<AccountSpec>,
    /// All repositories with their rules from now on, new ones at the end; empty where nothing about
    /// them changed.
    pub repos: Vec<RepoSpec>,
}

/// An attempt and its first run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptStarted {
    /// The task.
    pub task: TaskIx,
    /// The attempt's number.
    pub attempt: AttemptNo,
    /// The lane's number, from 0.
    pub slot: u32,
    /// How it begins.
    pub mode: RetryMode,
    /// Its first step.
    pub step: Step,
    /// The run that does it.
    pub generation: Generation,
    /// The spawn token that will be in the host's environment.
    pub token: u128,
    /// It finds out whether its account's limit is over.
    pub probe: bool,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnded {
    /// The task.
    pub task: TaskIx,
    /// Its attempt.
    pub attempt: AttemptNo,
    /// Why not done; absent: done.
    pub class: Option<Class>,
    /// Whether it counts against the task's attempts.
    pub consumed: bool,
    /// A sentence for people.
    pub detail: Arc<str>,
    /// What follows.
    pub next: Next,
    /// Where the next attempt goes on with another of its agent's models: which one, from 0.
    pub model: Option<u32>,
}

/// What follows an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The task's end.
    End {
        /// Done, failed or cancelled.
        to: TaskState,
        /// Because of this.
        reason: TaskReason,
    },
    /// Another attempt, not before `at`.
    Retry {
        /// How it begins.
        mode: RetryMode,
        /// End of the backoff; absent: as soon as there is a lane.
        at: Option<Deadline>,
    },
    /// The task is held until the operator or its account lets it go on.
    Hold {
        /// Why.
        reason: TaskReason,
        /// How its next attempt begins.
        mode: RetryMode,
    },
}

/// Why a run is to end. Decides what a late result is worth (I6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopReason {
    /// No sign of life.
    Silence,
    /// Nothing new.
    NoProgress,
    /// Over its wall time.
    Timeout,
    /// Over a limit of its task.
    Budget,
    /// No hello in time.
    NoHello,
    /// The wire broke.
    Protocol,
    /// Its host answers nothing.
    Hung,
    /// Its result is in, but the host does not end.
    Lingering,
    /// A question must fail the attempt.
    Question,
    /// A message with mode `restart`.
    Superseded,
    /// The operator paused the task now.
    Paused,
    /// The operator killed it.
    Killed,
    /// The operator cancelled the task.
    Cancelled,
    /// The batch file no longer has the task.
    Removed,
    /// The batch stops; the task goes on after `run`.
    Interrupted,
}

impl StopReason {
    /// Every reason.
    pub const ALL: &'static [StopReason] = &[
        Self::Silence,
        Self::NoProgress,
        Self::Timeout,
        Self::Budget,
        Self::NoHello,
        Self::Protocol,
        Self::Hung,
        Self::Lingering,
        Self::Question,
        Self::Superseded,
        Self::Paused,
        Self::Killed,
        Self::Cancelled,
        Self::Removed,
        Self::Interrupted,
    ];

    /// The word used in the journal and in `explain`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::NoProgress => "no_progress",
            Self::Timeout => "timeout",
            Self::Budget => "budget",
            Self::NoHello => "no_hello",
            Self::Protocol => "protocol",
            Self::Hung => "hung",
            Self::Lingering => "lingering",
            Self::Question => "question",
            Self::Superseded => "superseded",
            Self::Paused => "paused",
            Self::Killed => "killed",
            Self::Cancelled => "cancelled",
            Self::Removed => "removed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The class of the attempt that it ends.
    pub const fn class(self) -> Class {
        match self {
            Self::Silence => Class::Silence,
            Self::NoProgress => Class::NoProgress,
            Self::Timeout => Class::Timeout,
            Self::Budget => Class::Budget,
            Self::NoHello => Class::SpawnFailure,
            Self::Protocol => Class::Protocol,
            // The host is ours, so the attempt does not pay for it; `lost_max` bounds it.
            Self::Hung => Class::Lost,
            Self::Lingering => Class::Leftover,
            Self::Question => Class::AgentFailed,
            Self::Superseded => Class::Superseded,
            Self::Paused | Self::Killed | Self::Cancelled | Self::Removed | Self::Interrupted => {
                Class::Cancelled
            }
        }
    }

    /// Whether a result that becomes durable after the decision still counts.
    pub const fn late_result_counts(self) -> bool {
        match self {
            Self::Silence
            | Self::NoProgress
            | Self::Timeout
            | Self::Budget
            | Self::Hung
            | Self::Lingering
            | Self::Interrupted => true,
            Self::NoHello
            | Self::Protocol
            | Self::Question
            | Self::Superseded
            | Self::Paused
            | Self::Killed
            | Self::Cancelled
            | Self::Removed => false,
        }
    }
}
