//! Any record and any state, made from a list of bytes so that a failing case shrinks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::{Keeper, SteerMode};
use protocol::git::{
    Committed, Concluded, Conflicted, Foreseen, GitOutcome, MergeCommit, MergeConflict, Merged,
    Oid, Predicted, Provisioned, Removed, Restored, Salvaged,
};
use protocol::ids::{AttemptNo, BatchId, Generation, MessageId, QuestionId, TaskId};
use protocol::program::ProgramKind;
use protocol::report::{
    Capabilities, Family, Receipt, ResultStatus, RunResult, SteerReach, Usage, Verdict,
};

use supervisor_core::containment::{Cleared, Containment, Layer, Layers, Leftover, Wish};
use supervisor_core::facts::{
    Account, Attempt, Batch, Clean, Comment, Facts, Footprint, Merge, Message, Outcome, Question,
    Repo, Round, Run, Salvage, Task, Worktree,
};
use supervisor_core::identity::{Exit, Identity};
use supervisor_core::input::StopStage;
use supervisor_core::machine::{
    AccountState, AttemptState, BatchState, CommentState, MergeState, MessageState, QuestionState,
    RunState, TaskState,
};
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Condition,
    Dependency, Hooks, Keep, Limits, MaxFailures, OnConflict, OnFailure, OnQuestion, PlannedTask,
    RepoIx, RepoSpec, RetryMode, RetryPolicy, ReviewSpec, Rules, Settings, SpecIx, TaskIx,
    TaskSpec,
};
use supervisor_core::reason::{AccountReason, BatchLimit, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::{
    AttemptEnded, AttemptStarted, BatchCreated, Entry, Next, PlanRevised, Record, StopReason,
};
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use supervisor_core::time::{Boot, BootId, Deadline, Now, Wall};

/// Choices, one byte each; all zero once they are used up.
pub(super) struct Choices(std::vec::IntoIter<u8>);

impl Choices {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self(bytes.into_iter())
    }
    fn byte(&mut self) -> u8 {
        self.0.next().unwrap_or(0)
    }
    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()].clone()
    }
}

pub(super) trait Any: Sized {
    fn any(from: &mut Choices) -> Self;
}

macro_rules! any_number {
    ($($number:ty),+) => {$(
        impl Any for $number {
            /// Small numbers, and the ends of the range.
            fn any(from: &mut Choices) -> Self {
                match from.byte() {
                    254 => <$number>::MIN,
                    255 => <$number>::MAX,
                    small => small as $number,
                }
            }
        }
    )+};
}
any_number!(u8, u32, u64, u128, i32, i64);

macro_rules! any_tuple {
    ($($name:ident),+ $(,)?) => {$(
        impl Any for $name {
            fn any(from: &mut Choices) -> Self {
                $name(Any::any(from))
            }
        }
    )+};
}
any_tuple! {
    AttemptNo, Generation, MessageId, QuestionId, TaskIx, SpecIx, AgentIx, AccountIx, RepoIx, Wall,
    Boot, BootId,
}

macro_rules! any_struct {
    ($($name:ident { $($field:ident),+ $(,)? })+) => {$(
        impl Any for $name {
            fn any(from: &mut Choices) -> Self {
                $name { $($field: Any::any(from)),+ }
            }
        }
    )+};
}

/// Each variant with how to make its content; `one_of` covers those listed.
macro_rules! any_enum {
    ($($name:ident { $($variant:ident $(($($one:ident),+))? $({ $($field:ident),* })?),+ $(,)? })+) => {$(
        impl Any for $name {
            fn any(from: &mut Choices) -> Self {
                let makers: &[fn(&mut Choices) -> Self] = &[$(
                    |_from| $name::$variant $(($({ let $one = Any::any(_from); $one }),+))?
                        $({ $($field: Any::any(_from)),* })?
                ),+];
                from.one_of(makers)(from)
            }
        }
    )+};
}

macro_rules! any_listed {
    ($($name:ident),+ $(,)?) => {$(
        impl Any for $name {
            fn any(from: &mut Choices) -> Self {
                from.one_of($name::ALL)
            }
        }
    )+};
}
any_listed! {
    Class, BatchState, TaskState, AttemptState, RunState, MessageState, QuestionState, AccountState,
    MergeState, CommentState, StopReason, Letter, Wish, Layer, Step, Stage, CleanStep,
}

impl Any for bool {
    fn any(from: &mut Choices) -> Self {
        from.byte() % 2 == 1
    }
}
impl Any for String {
    fn any(from: &mut Choices) -> Self {
        const LETTERS: &[char] = &[
            'a', ' ', '"', '\\', '\n', '\0', '\u{7f}', 'é', '\u{2028}', '𝄞', '{',
        ];
        let count = from.byte() % 12;
        (0..count).map(|_| from.one_of(LETTERS)).collect()
    }
}
impl Any for Layers {
    fn any(from: &mut Choices) -> Self {
        Vec::<Layer>::any(from).into_iter().collect()
    }
}
impl Any for Arc<str> {
    fn any(from: &mut Choices) -> Self {
        String::any(from).into()
    }
}
impl Any for Duration {
    fn any(from: &mut Choices) -> Self {
        match from.byte() {
            0 => Duration::ZERO,
            253 => Duration::MAX,
            254 => Duration::from_secs(u64::MAX),
            odd if odd % 2 == 1 => Duration::from_micros(u64::from(odd)),
            even => Duration::from_millis(u64::from(even)),
        }
    }
}
impl Any for Oid {
    fn any(from: &mut Choices) -> Self {
        let length = from.one_of(&[40, 64]);
        Oid::try_from(format!("{:0length$x}", from.byte())).unwrap()
    }
}
impl Any for TaskId {
    fn any(from: &mut Choices) -> Self {
        format!("t{}", from.byte()).parse().unwrap()
    }
}
impl Any for BatchId {
    fn any(from: &mut Choices) -> Self {
        format!("b-{}", from.byte()).parse().unwrap()
    }
}
impl<T: Any> Any for Option<T> {
    fn any(from: &mut Choices) -> Self {
        bool::any(from).then(|| T::any(from))
    }
}
impl<T: Any> Any for Vec<T> {
    fn any(from: &mut Choices) -> Self {
        let count = from.byte() % 4;
        (0..count).map(|_| T::any(from)).collect()
    }
}
impl<T: Any> Any for Box<[T]> {
    fn any(from: &mut Choices) -> Self {
        Vec::any(from).into()
    }
}
impl Any for Arc<[Arc<str>]> {
    fn any(from: &mut Choices) -> Self {
        Vec::any(from).into()
    }
}
impl<K: Any + Ord, T: Any> Any for BTreeMap<K, T> {
    fn any(from: &mut Choices) -> Self {
        Vec::<(K, T)>::any(from).into_iter().collect()
    }
}
impl<A: Any, B: Any> Any for (A, B) {
    fn any(from: &mut Choices) -> Self {
        (A::any(from), B::any(from))
    }
}
impl<T: Any> Any for Box<T> {
    fn any(from: &mut Choices) -> Self {
        Box::new(T::any(from))
    }
}
impl Any for Arc<TaskSpec> {
    fn any(from: &mut Choices) -> Self {
        Arc::new(TaskSpec::any(from))
    }
}
impl Any for Arc<RunResult> {
    fn any(from: &mut Choices) -> Self {
        Arc::new(RunResult::any(from))
    }
}

any_struct! {
    Now { wall, boot, boot_id }
    Identity { node, pid_namespace, boot_id, pid, start_ticks, pidfs_inode, session }
    Containment { layers, leaf, memory }
    Leftover { pid, start_ticks, why }
    Usage { turns, tokens, cost_micros }
    Family { memory_bytes, memory_peak_bytes, cpu_ms, processes, begun, unread }
    Capabilities { steer, receipt, interrupt, resume, questions, usage, cost }
    RunResult {
        status, class, summary, exit_code, signal, reset_at_ms, session, usage, family, evidence,
        artifacts, verdict, git,
    }
    Limits { turns, tokens, cost_micros, wall }
    Settings {
        name, concurrency, on_failure, max_failures, not_before, until, limits, lost_max,
        keep, work,
    }
    AgentSpec { name, kind, account, concurrency, models, work }
    AccountSpec { name, concurrency, auto_resume }
    RepoSpec { name, verify, group, on_conflict, work }
    ReviewSpec { agent, rounds }
    Comments { failed, question, done }
    Hooks { after_create, before_run, after_run, before_remove }
    RetryPolicy { backoff_min, backoff_max, by_class }
    TaskSpec {
        agent, attempts, timeout, silence, no_progress, priority, verify, worktree,
        changes, review, fetch, comments, hooks, retry, limits,
        memory_max, not_before, on_question, question_timeout, containment, work,
    }
    Dependency { task, condition }
    PlannedTask { id, spec, item, touches, depends_on }
    Rules { spec, item, touches, depends_on }
    PlanRevised { revision, settings, agents, accounts, repos }
    BatchCreated { id, seed, settings, agents, accounts, repos }
    AttemptStarted { task, attempt, slot, mode, step, generation, token, probe }
    AttemptEnded { task, attempt, class, consumed, detail, next, model }
    Entry { seq, term, now, record }
    Facts { batch, agents, accounts, repos, specs, tasks, runs, messages, questions }
    Batch {
        id, state, reason, created, now, term, supervisor, guardian, seq, seed, settings,
        plan_closed, last_generation, last_message, last_question, usage, ran, running_since,
        spawn_failures, revision, lanes,
        stop_grade,
    }
    Task {
        id, spec, item, touches, depends_on, state, reason, since, next_check, epoch, attempts,
        consumed, attempts_max, lost, free_retries, overloads, model, attempt, mode, session, last, usage,
        usage_before, hold, revised, removed, worktree, salvaged, merge, clean, comments,
    }
    Worktree { base, hooked, going, commit }
    Salvage { reference, commit }
    Merge { state, since, commit, merged, tries, disproved, share, trouble, detail }
    Clean { step, run, runs, kept }
    Comment { on, attempt, state, run, runs, at }
    Repo { spec, round }
    Round { verify, stage, run, runs, tasks, tip, commits, good, bad, detail }
    Provisioned { base, head, made, warnings }
    Committed { commit, files, markers, outside, missing, warnings }
    Salvaged { reference, commit, files, bytes, skipped }
    Removed { bytes, existed }
    Merged { tip, merges, conflicts, warnings }
    MergeCommit { task, commit }
    MergeConflict { task, with, by, files, kinds }
    Conflicted { tip, files }
    Concluded { commit, markers }
    Restored { reference, files, bytes, modules_left }
    Predicted { pairs }
    Foreseen { paths, more }
    Attempt {
        no, state, slot, mode, run, deadline, result, probe, step, step_runs,
        step_done, commit, files, rounds, verdict, notes, waiting_since, work, footprint,
    }
    Footprint { memory_peak_bytes, cpu_ms }
    Outcome { attempt, class, detail, summary, footprint }
    Run {
        task, attempt, purpose, state, token, identity, containment, capabilities, stop, result, usage,
        unresolved,
    }
    Message { task, mode, text, expires, from, state, generation, rungs }
    Question { task, generation, text, options, asked, deadline, state, answer }
    Account { spec, state, reason, until, limited }
}

any_enum! {
    Deadline { Boot(at), Wall(at) }
    Exit { Code(code), Signal(number), Unseen }
    Cleared { Clean { killed }, Residual { killed, left }, NotExcluded { killed, why } }
    StopStage { Drain, Stop, Kill }
    SteerReach { None, Boundary, Interrupt }
    Receipt { Injected, Seen }
    ResultStatus { Ok, Failed }
    Keeper { Cgroup, Host }
    Verdict { Approve, Revise, Reject }
    GitOutcome {
        Provisioned(done), Committed(done), Salvaged(done), Removed(done), CheckedOut {},
        Merged(done), Conflicted(done), Concluded(done), Advanced {}, Restored(done), Predicted(done),
    }
    Purpose { Step(step), Merge(repo, stage), Clean(step), Comment(on) }
    CommentOn { Failed, Done, Question(question) }
    Keep { All, Failed, None }
    OnConflict { Agent(agent), Fail, Park }
    SteerMode { Boundary, Interrupt, After, Restart }
    OnFailure { SkipDependents, Stop, Continue }
    MaxFailures { Count(most), Percent(most) }
    AgentKind { Command, Scripted, Program(kind) }
    ProgramKind { Claude, Codex, Acp, Pi }
    AutoResume { Always, Ask, Never }
    OnQuestion { Wait, Default(text), WaitThenDefault(text), Fail }
    RetryMode { Resume, NewSession, Fresh, Stop }
    Condition { Done, Finished, Merged }
    BatchLimit { Turns, Tokens, Cost, Wall }
    BatchReason {
        Working, Operator, Limit(limit), Disk, TaskFailed(task), MergeFailed(task), TooManyFailures, NothingStarts,
        Until, Drain, Stop, NeedsPerson, Settled,
    }
    TaskReason {
        New, Dependencies, Touches(task), NotBefore, Lane, Backoff(class), AccountLimited,
        AccountStopped, Preparing, Working, Proving, Reviewing, Question(question), Operator, Killed, Interrupted,
        Unresolved(letter), NeedsOperator(class), Proven,
        AsDone, Failed(class), Quarantined, DependencyFailed(task), SkippedByOperator,
        CancelledByOperator, BatchStopped, NotSelected, Removed, Reopened,
    }
    AccountReason { Class(class), Reset, ProbeWentWell, Operator }
    Next { End { to, reason }, Retry { mode, at }, Hold { reason, mode } }
    Record {
        BatchCreated(created), PlanExtended { specs, tasks }, PlanClosed,
        PlanRevised(revised), TaskRevised { task, rules }, TaskRemoved { task },
        SupervisorStarted { term, identity, guardian, build }, SupervisorReplaced { build }, ClockGap { gap },
        BatchMoved { to, reason }, TaskMoved { task, to, reason, next_check },
        AttemptStarted(started), RunIntended { generation, task, purpose, token },
        RunSpawned { generation, identity, containment }, RunStarted { generation, capabilities, session },
        StopDecided { generation, reason, grace }, RunFinished { generation, result },
        RunEnded { generation, exit, injected, cleared, footprint },
        RunReconciled { generation, letter, cleared },
        AttemptEnded(ended), TaskEnded { task, to, reason }, Reopened { task, mode, attempts },
        MessageQueued { id, task, mode, text, expires, from }, MessageMoved { id, to, generation },
        QuestionOpened { id, task, generation, text, options, deadline },
        QuestionMoved { id, to, answer }, AccountMoved { account, to, reason, until },
        UsageNoted { generation, usage }, ConcurrencySet { concurrency },
        RoundBegan { repo, stage, tasks }, RoundMoved { repo, stage, tip, commits, good, bad, detail },
        RoundEnded { repo, share }, MergeMoved { task, to, merged, detail }, CleanMoved { task, step, kept },
        CleanEnded { task, removed, detail }, CommentMoved { task, on, to, at, detail },
    }
}
