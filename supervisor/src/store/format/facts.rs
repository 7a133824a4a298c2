//! Mirrors of the state that a checkpoint holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::SteerMode;
use protocol::git::Oid;
use protocol::ids::{AttemptNo, BatchId, Generation, MessageId, QuestionId, TaskId};
use protocol::report::{Capabilities, RunResult, Usage, Verdict};
use serde::{Deserialize, Serialize};

use supervisor_core::containment::Containment;
use supervisor_core::facts::{
    Account, Attempt, Batch, Clean, Comment, Facts, Footprint, Merge, Message, Outcome, Question,
    Repo, Round, Run, Salvage, Task, Worktree,
};
use supervisor_core::identity::Identity;
use supervisor_core::input::StopStage;
use supervisor_core::machine::{
    AccountState, AttemptState, BatchState, CommentState, MergeState, MessageState, QuestionState,
    RunState, TaskState,
};
use supervisor_core::plan::{
    AccountSpec, AgentSpec, Dependency, RepoSpec, RetryMode, Rules, Settings, SpecIx, TaskIx,
    TaskSpec,
};
use supervisor_core::reason::{AccountReason, BatchReason, TaskReason};
use supervisor_core::record::StopReason;
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use supervisor_core::time::{Boot, Deadline, Now, Wall};

use super::basic::{
    AccountReasonDef, BatchReasonDef, CommentOnDef, ContainmentDef, DeadlineDef, IdentityDef,
    NowDef, PurposeDef, StopStageDef, TaskReasonDef,
};
use super::mirror::{
    As, Boxed, Hex, List, Map, Millis, Mirror, Num, Opt, Pair, Plain, Shared, Word, is_default,
    mirrors,
};
use super::plan::{
    AccountSpecDef, AgentSpecDef, DependencyDef, RepoSpecDef, RetryModeDef, RulesDef, SettingsDef,
    TaskSpecDef,
};

#[derive(Serialize, Deserialize)]
#[serde(remote = "Facts", deny_unknown_fields)]
pub(super) struct FactsDef {
    #[serde(with = "As::<BatchDef>")]
    batch: Batch,
    #[serde(with = "As::<List<AgentSpecDef>>")]
    agents: Vec<AgentSpec>,
    #[serde(with = "As::<List<AccountDef>>")]
    accounts: Vec<Account>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<RepoDef>>")]
    repos: Vec<Repo>,
    #[serde(with = "As::<List<Shared<TaskSpecDef>>>")]
    specs: Vec<Arc<TaskSpec>>,
    #[serde(with = "As::<List<TaskDef>>")]
    tasks: Vec<Task>,
    #[serde(with = "As::<Map<RunDef>>")]
    runs: BTreeMap<Generation, Run>,
    #[serde(with = "As::<Map<MessageDef>>")]
    messages: BTreeMap<MessageId, Message>,
    #[serde(with = "As::<Map<QuestionDef>>")]
    questions: BTreeMap<QuestionId, Question>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Batch", deny_unknown_fields)]
pub(super) struct BatchDef {
    id: BatchId,
    #[serde(with = "As::<Word>")]
    state: BatchState,
    #[serde(with = "As::<BatchReasonDef>")]
    reason: BatchReason,
    #[serde(with = "As::<Num>")]
    created: Wall,
    #[serde(with = "As::<NowDef>")]
    now: Now,
    term: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<IdentityDef>>")]
    supervisor: Option<Identity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<IdentityDef>>")]
    guardian: Option<Identity>,
    seq: u64,
    seed: u64,
    #[serde(with = "As::<SettingsDef>")]
    settings: Settings,
    plan_closed: bool,
    last_generation: Generation,
    last_message: MessageId,
    last_question: QuestionId,
    usage: Usage,
    #[serde(with = "As::<Millis>")]
    ran: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    running_since: Option<Boot>,
    spawn_failures: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    revision: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lanes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<StopStageDef>>")]
    stop_grade: Option<StopStage>,
}

/// The one mirror of which there may be 100,000: what is as at the start is left out.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Task", deny_unknown_fields)]
pub(super) struct TaskDef {
    id: TaskId,
    #[serde(with = "As::<Num>")]
    spec: SpecIx,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    item: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    touches: Arc<[Arc<str>]>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    #[serde(with = "As::<List<DependencyDef>>")]
    depends_on: Box<[Dependency]>,
    #[serde(with = "As::<Word>")]
    state: TaskState,
    #[serde(with = "As::<TaskReasonDef>")]
    reason: TaskReason,
    #[serde(with = "As::<Num>")]
    since: Wall,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<DeadlineDef>>")]
    next_check: Option<Deadline>,
    #[serde(default, skip_serializing_if = "is_default")]
    epoch: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    attempts: AttemptNo,
    #[serde(default, skip_serializing_if = "is_default")]
    consumed: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempts_max: Option<u32>,
    #[serde(default, skip_serializing_if = "is_default")]
    lost: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    free_retries: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    overloads: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    model: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<AttemptDef>>")]
    attempt: Option<Attempt>,
    #[serde(with = "As::<RetryModeDef>")]
    mode: RetryMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Boxed<OutcomeDef>>>")]
    last: Option<Box<Outcome>>,
    #[serde(default, skip_serializing_if = "is_default")]
    usage: Usage,
    #[serde(default, skip_serializing_if = "is_default")]
    usage_before: Usage,
    #[serde(default, skip_serializing_if = "is_default")]
    hold: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Boxed<RulesDef>>>")]
    revised: Option<Box<Rules>>,
    #[serde(default, skip_serializing_if = "is_default")]
    removed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<WorktreeDef>>")]
    worktree: Option<Worktree>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<SalvageDef>>")]
    salvaged: Vec<Salvage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<MergeDef>>")]
    merge: Option<Merge>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<CleanDef>>")]
    clean: Option<Clean>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<CommentDef>>")]
    comments: Vec<Comment>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Worktree", deny_unknown_fields)]
pub(super) struct WorktreeDef {
    base: Oid,
    #[serde(default, skip_serializing_if = "is_default")]
    hooked: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    going: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<Oid>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Salvage", deny_unknown_fields)]
pub(super) struct SalvageDef {
    reference: Arc<str>,
    commit: Oid,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Merge", deny_unknown_fields)]
pub(super) struct MergeDef {
    #[serde(with = "As::<Word>")]
    state: MergeState,
    #[serde(with = "As::<Num>")]
    since: Wall,
    commit: Oid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merged: Option<Oid>,
    #[serde(default, skip_serializing_if = "is_default")]
    tries: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    disproved: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<u32>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    trouble: Arc<str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    detail: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Clean", deny_unknown_fields)]
pub(super) struct CleanDef {
    #[serde(with = "As::<Word>")]
    step: CleanStep,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Generation>,
    #[serde(default, skip_serializing_if = "is_default")]
    runs: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<SalvageDef>>")]
    kept: Option<Salvage>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Comment", deny_unknown_fields)]
pub(super) struct CommentDef {
    #[serde(with = "As::<CommentOnDef>")]
    on: CommentOn,
    attempt: AttemptNo,
    #[serde(with = "As::<Word>")]
    state: CommentState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Generation>,
    #[serde(default, skip_serializing_if = "is_default")]
    runs: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<DeadlineDef>>")]
    at: Option<Deadline>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Repo", deny_unknown_fields)]
pub(super) struct RepoDef {
    #[serde(with = "As::<RepoSpecDef>")]
    spec: RepoSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<RoundDef>>")]
    round: Option<Round>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Round", deny_unknown_fields)]
pub(super) struct RoundDef {
    #[serde(default, skip_serializing_if = "is_default")]
    verify: bool,
    #[serde(with = "As::<Word>")]
    stage: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Generation>,
    #[serde(default, skip_serializing_if = "is_default")]
    runs: u32,
    #[serde(with = "As::<List<Num>>")]
    tasks: Vec<TaskIx>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tip: Option<Oid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<Pair<Num, Plain>>>")]
    commits: Vec<(TaskIx, Oid)>,
    #[serde(default, skip_serializing_if = "is_default")]
    good: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bad: Option<u32>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    detail: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Attempt", deny_unknown_fields)]
pub(super) struct AttemptDef {
    no: AttemptNo,
    #[serde(with = "As::<Word>")]
    state: AttemptState,
    slot: u32,
    #[serde(with = "As::<RetryModeDef>")]
    mode: RetryMode,
    run: Generation,
    #[serde(with = "As::<Num>")]
    deadline: Boot,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Arc<RunResult>>,
    probe: bool,
    #[serde(with = "As::<Word>")]
    step: Step,
    #[serde(default, skip_serializing_if = "is_default")]
    step_runs: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    step_done: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<Oid>,
    #[serde(default, skip_serializing_if = "is_default")]
    files: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    rounds: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notes: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    waiting_since: Option<Boot>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    work: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(with = "As::<FootprintDef>")]
    footprint: Footprint,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Footprint", deny_unknown_fields)]
pub(super) struct FootprintDef {
    memory_peak_bytes: u64,
    cpu_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Outcome", deny_unknown_fields)]
pub(super) struct OutcomeDef {
    attempt: AttemptNo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<Class>,
    detail: Arc<str>,
    summary: Arc<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(with = "As::<FootprintDef>")]
    footprint: Footprint,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Run", deny_unknown_fields)]
pub(super) struct RunDef {
    #[serde(with = "As::<Num>")]
    task: TaskIx,
    attempt: AttemptNo,
    #[serde(with = "As::<PurposeDef>")]
    purpose: Purpose,
    #[serde(with = "As::<Word>")]
    state: RunState,
    #[serde(with = "As::<Hex>")]
    token: u128,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<IdentityDef>>")]
    identity: Option<Identity>,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(with = "As::<ContainmentDef>")]
    containment: Containment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Pair<Word, Num>>>")]
    stop: Option<(StopReason, Boot)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Arc<RunResult>>,
    usage: Usage,
    #[serde(default, skip_serializing_if = "is_default")]
    unresolved: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Message", deny_unknown_fields)]
pub(super) struct MessageDef {
    #[serde(with = "As::<Num>")]
    task: TaskIx,
    mode: SteerMode,
    text: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    expires: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    from: Option<TaskIx>,
    #[serde(with = "As::<Word>")]
    state: MessageState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
    #[serde(with = "As::<List<Pair<Word, Num>>>")]
    rungs: Vec<(MessageState, Wall)>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Question", deny_unknown_fields)]
pub(super) struct QuestionDef {
    #[serde(with = "As::<Num>")]
    task: TaskIx,
    generation: Generation,
    text: Arc<str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    options: Vec<Arc<str>>,
    #[serde(with = "As::<Num>")]
    asked: Wall,
    #[serde(with = "As::<DeadlineDef>")]
    deadline: Deadline,
    #[serde(with = "As::<Word>")]
    state: QuestionState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Arc<str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Account", deny_unknown_fields)]
pub(super) struct AccountDef {
    #[serde(with = "As::<AccountSpecDef>")]
    spec: AccountSpec,
    #[serde(with = "As::<Word>")]
    state: AccountState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<AccountReasonDef>>")]
    reason: Option<AccountReason>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<DeadlineDef>>")]
    until: Option<Deadline>,
    #[serde(default, skip_serializing_if = "is_default")]
    limited: u32,
}

mirrors! {
    FactsDef of Facts,
    BatchDef of Batch,
    TaskDef of Task,
    WorktreeDef of Worktree,
    SalvageDef of Salvage,
    MergeDef of Merge,
    CleanDef of Clean,
    CommentDef of Comment,
    RepoDef of Repo,
    RoundDef of Round,
    AttemptDef of Attempt,
    FootprintDef of Footprint,
    OutcomeDef of Outcome,
    RunDef of Run,
    MessageDef of Message,
    QuestionDef of Question,
    AccountDef of Account,
}
