//! A batch file once read and found valid: what is to be done and under which rules.
//!
//! The core knows what it must decide by (order, limits, policies). What only the driver needs to
//! carry out (prompt templates, argv, environment) is opaque text here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::ids::TaskId;
use protocol::program::ProgramKind;

use crate::containment::Wish;
use crate::time::Wall;

/// Position of a task in the plan; stable for the life of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskIx(pub u32);
/// Position of a task spec in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpecIx(pub u32);
/// Position of an agent in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentIx(pub u32);
/// Position of an account in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountIx(pub u32);
/// Position of a repository in the plan; stable for the life of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoIx(pub u32);

/// The whole plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Rules of the batch.
    pub settings: Settings,
    /// Every agent that a task names, and one named `run` (kind command) for `run:` tasks if any.
    pub agents: Vec<AgentSpec>,
    /// Every account that an agent names.
    pub accounts: Vec<AccountSpec>,
    /// Every repository in which a task has a worktree.
    pub repos: Vec<RepoSpec>,
    /// What tasks share; the tasks of one `foreach` share one spec.
    pub specs: Vec<Arc<TaskSpec>>,
    /// The tasks; dependencies point anywhere, without cycles.
    pub tasks: Vec<PlannedTask>,
}

/// Rules of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The batch's name.
    pub name: Arc<str>,
    /// Live attempts at most; at least 1.
    pub concurrency: u32,
    /// What a failed task does to others.
    pub on_failure: OnFailure,
    /// Failed tasks until the batch stops.
    pub max_failures: Option<MaxFailures>,
    /// No attempt before this date.
    pub not_before: Option<Wall>,
    /// No new attempt from this date on; then drain.
    pub until: Option<Wall>,
    /// Limits of the whole batch: reached, the batch pauses.
    pub limits: Limits,
    /// Lost runs in a row, without progress, that quarantine a task.
    pub lost_max: u32,
    /// Which worktrees stay when their tasks are over.
    pub keep: Keep,
    /// What only the driver needs, as JSON text.
    pub work: Arc<str>,
}

/// Which worktrees stay when their tasks are over. What goes is merged or salvaged before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    /// All, until the operator cleans up.
    All,
    /// Those of tasks that are not done, and of work that is not merged.
    Failed,
    /// None.
    None,
}

/// What a failed task does to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Its dependents are skipped, the rest goes on.
    SkipDependents,
    /// The batch stops: what runs may finish, nothing new starts.
    Stop,
    /// Its dependents run as if it were done.
    Continue,
}

/// How many tasks may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxFailures {
    /// This many.
    Count(u32),
    /// This part of all tasks, 0 to 100.
    Percent(u8),
}

/// Limits of a batch or a task; absent is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Turns.
    pub turns: Option<u64>,
    /// Tokens.
    pub tokens: Option<u64>,
    /// Micro-dollars.
    pub cost_micros: Option<u64>,
    /// Running time, pauses not counted (batch only).
    pub wall: Option<Duration>,
}

/// One configured agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    /// Its name in the batch file.
    pub name: Arc<str>,
    /// What drives it.
    pub kind: AgentKind,
    /// Whose limits it shares.
    pub account: AccountIx,
    /// Live attempts of this agent at most.
    pub concurrency: Option<u32>,
    /// The models to choose from, the first one first; a task goes on with the next one where its
    /// model is missing, refuses or stays overloaded. Empty: the program's own choice.
    pub models: Vec<Arc<str>>,
    /// What only the driver needs, as JSON text.
    pub work: Arc<str>,
}

/// Kinds of agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AgentKind {
    /// Any program.
    Command,
    /// The embedded demo agent.
    Scripted,
    /// An agent program over its own wire.
    Program(ProgramKind),
}

/// One configured account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSpec {
    /// Its name.
    pub name: Arc<str>,
    /// Live attempts of all its agents at most.
    pub concurrency: Option<u32>,
    /// What happens after a usage limit.
    pub auto_resume: AutoResume,
}

/// What happens when a usage limit is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoResume {
    /// One attempt probes, then all go on.
    Always,
    /// The operator is asked: the account is stopped until `resume`.
    Ask,
    /// The account stays stopped until `resume`; its tasks are paused at once.
    Never,
}

/// One repository in which tasks have worktrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoSpec {
    /// Its name in the batch file; `.` where the file has only one.
    pub name: Arc<str>,
    /// Whether commands prove each merge.
    pub verify: bool,
    /// Merges that share one proof, at least 1; a proof that fails is repeated on fewer of them
    /// until the one that breaks it is found.
    pub group: u32,
    /// What happens to a merge that conflicts, or whose proof fails.
    pub on_conflict: OnConflict,
    /// What only the driver needs, as JSON text.
    pub work: Arc<str>,
}

/// What happens to a merge that conflicts, or whose proof fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnConflict {
    /// This agent resolves it; `None`: the task's own.
    Agent(Option<AgentIx>),
    /// The merge has failed.
    Fail,
    /// It waits for the operator.
    Park,
}

/// Who judges the work of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReviewSpec {
    /// The reviewer.
    pub agent: AgentIx,
    /// How often the work may be sent back in one attempt; at least 1.
    pub rounds: u32,
}

/// Which commands of the operator run around the work of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hooks {
    /// Once its worktree is made.
    pub after_create: bool,
    /// Before each agent run.
    pub before_run: bool,
    /// After each agent run.
    pub after_run: bool,
    /// Before its worktree is removed.
    pub before_remove: bool,
}

/// What of a task is told in a comment on the issue or pull request that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Comments {
    /// That it has failed.
    pub failed: bool,
    /// That its agent waits for an answer.
    pub question: bool,
    /// That it is done.
    pub done: bool,
}

/// What the core must know of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskSpec {
    /// Who does it.
    pub agent: AgentIx,
    /// Attempts at most, at least 1; classes that consume none are not counted.
    pub attempts: u32,
    /// Wall time of one attempt.
    pub timeout: Duration,
    /// Longest time without a sign of life.
    pub silence: Duration,
    /// Longest time without anything new.
    pub no_progress: Duration,
    /// Higher starts first.
    pub priority: i32,
    /// Whether verify commands prove it.
    pub verify: bool,
    /// The repository in which it has a worktree and a branch; `None`: it works in the batch's one
    /// working folder, and there is nothing to commit and to merge.
    pub worktree: Option<RepoIx>,
    /// Whether an attempt that changes no file has failed (class `no_change`); with a worktree only.
    pub changes: bool,
    /// Who judges its work; with a worktree only.
    pub review: Option<ReviewSpec>,
    /// Whether it is about an issue or a pull request, which each attempt fetches first.
    pub fetch: bool,
    /// What of it is told in a comment on that issue or pull request.
    pub comments: Comments,
    /// The operator's commands around it.
    pub hooks: Hooks,
    /// Retry policy.
    pub retry: RetryPolicy,
    /// Limits over all attempts of the task: reached, class `budget`.
    pub limits: Limits,
    /// Most memory of all processes of one attempt together, bytes.
    pub memory_max: Option<u64>,
    /// No attempt before this date.
    pub not_before: Option<Wall>,
    /// What happens to an agent's question.
    pub on_question: OnQuestion,
    /// How long a question waits.
    pub question_timeout: Duration,
    /// How the trees of its runs are to be held together.
    pub containment: Wish,
    /// What only the driver needs, as JSON text.
    pub work: Arc<str>,
}

/// What happens to an agent's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnQuestion {
    /// It waits for the operator; at the deadline it expires.
    Wait,
    /// It is answered at once with this text.
    Default(Arc<str>),
    /// It waits for the operator; at the deadline this text answers.
    WaitThenDefault(Arc<str>),
    /// The attempt fails at once.
    Fail,
}

/// How a task is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// First wait; doubles with each consumed attempt.
    pub backoff_min: Duration,
    /// Longest wait.
    pub backoff_max: Duration,
    /// What the batch file says of single classes.
    pub by_class: BTreeMap<Class, RetryMode>,
}

/// How the next attempt begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryMode {
    /// Same session, same working folder.
    Resume,
    /// Same working folder, a new session with a hand-off.
    NewSession,
    /// Everything from the start.
    Fresh,
    /// Not at all.
    Stop,
}

impl RetryMode {
    /// The word used in batch files and journal.
    pub const fn word(self) -> &'static str {
        match self {
            RetryMode::Resume => "resume",
            RetryMode::NewSession => "new_session",
            RetryMode::Fresh => "fresh",
            RetryMode::Stop => "stop",
        }
    }
}

/// One task of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTask {
    /// Its id.
    pub id: TaskId,
    /// Its rules.
    pub spec: SpecIx,
    /// Its `foreach` item, as JSON text.
    pub item: Option<Arc<str>>,
    /// Its globs of files; tasks whose globs overlap never run at the same time.
    pub touches: Arc<[Arc<str>]>,
    /// What must come first.
    pub depends_on: Box<[Dependency]>,
}

/// What another reading of the batch file may change of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Its rules.
    pub spec: SpecIx,
    /// Its `foreach` item, as JSON text.
    pub item: Option<Arc<str>>,
    /// Its globs of files.
    pub touches: Arc<[Arc<str>]>,
    /// What must come first.
    pub depends_on: Box<[Dependency]>,
}

/// One dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    /// On this task
    pub task: TaskIx,
    /// being so.
    pub condition: Condition,
}

/// What a dependency waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// The task is done.
    Done,
    /// The task is terminal, however it ended.
    Finished,
    /// The task is done and its commit is merged, where it has one.
    Merged,
}
