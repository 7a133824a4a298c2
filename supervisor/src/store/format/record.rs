//! Mirrors of the records.

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::SteerMode;
use protocol::git::Oid;
use protocol::ids::{AttemptNo, BatchId, Generation, MessageId, QuestionId};
use protocol::report::{Capabilities, RunResult, Usage};
use serde::{Deserialize, Serialize};

use supervisor_core::containment::{Cleared, Containment};
use supervisor_core::facts::{Footprint, Salvage};
use supervisor_core::identity::{Exit, Identity};
use supervisor_core::machine::{
    AccountState, BatchState, CommentState, MergeState, MessageState, QuestionState, TaskState,
};
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentSpec, PlannedTask, RepoIx, RepoSpec, RetryMode, Rules, Settings,
    TaskIx, TaskSpec,
};
use supervisor_core::reason::{AccountReason, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::{
    AttemptEnded, AttemptStarted, BatchCreated, Next, PlanRevised, Record, StopReason,
};
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use supervisor_core::time::{Deadline, Wall};

use super::basic::{
    AccountReasonDef, BatchReasonDef, ClearedDef, CommentOnDef, ContainmentDef, DeadlineDef,
    ExitDef, IdentityDef, PurposeDef, TaskReasonDef,
};
use super::facts::{FootprintDef, SalvageDef};
use super::mirror::{
    As, Boxed, Hex, List, Millis, Mirror, Num, Opt, Pair, Plain, Shared, Word, is_default, mirrors,
};
use super::plan::{
    AccountSpecDef, AgentSpecDef, PlannedTaskDef, RepoSpecDef, RetryModeDef, RulesDef, SettingsDef,
    TaskSpecDef,
};

#[derive(Serialize, Deserialize)]
#[serde(remote = "Record", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum RecordDef {
    BatchCreated(#[serde(with = "As::<Boxed<BatchCreatedDef>>")] Box<BatchCreated>),
    PlanExtended {
        #[serde(with = "As::<List<Shared<TaskSpecDef>>>")]
        specs: Vec<Arc<TaskSpec>>,
        #[serde(with = "As::<List<PlannedTaskDef>>")]
        tasks: Vec<PlannedTask>,
    },
    PlanClosed,
    PlanRevised(#[serde(with = "As::<Boxed<PlanRevisedDef>>")] Box<PlanRevised>),
    TaskRevised {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<RulesDef>")]
        rules: Rules,
    },
    TaskRemoved {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
    },
    SupervisorStarted {
        term: u64,
        #[serde(with = "As::<IdentityDef>")]
        identity: Identity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(with = "As::<Opt<IdentityDef>>")]
        guardian: Option<Identity>,
        build: Arc<str>,
    },
    SupervisorReplaced {
        build: Arc<str>,
    },
    ClockGap {
        #[serde(with = "As::<Millis>")]
        gap: Duration,
    },
    BatchMoved {
        #[serde(with = "As::<Word>")]
        to: BatchState,
        #[serde(with = "As::<BatchReasonDef>")]
        reason: BatchReason,
    },
    TaskMoved {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<Word>")]
        to: TaskState,
        #[serde(with = "As::<TaskReasonDef>")]
        reason: TaskReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(with = "As::<Opt<DeadlineDef>>")]
        next_check: Option<Deadline>,
    },
    AttemptStarted(#[serde(with = "As::<AttemptStartedDef>")] AttemptStarted),
    RunIntended {
        generation: Generation,
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<PurposeDef>")]
        purpose: Purpose,
        #[serde(with = "As::<Hex>")]
        token: u128,
    },
    RunSpawned {
        generation: Generation,
        #[serde(with = "As::<IdentityDef>")]
        identity: Identity,
        #[serde(with = "As::<ContainmentDef>")]
        containment: Containment,
    },
    RunStarted {
        generation: Generation,
        capabilities: Capabilities,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<Arc<str>>,
    },
    StopDecided {
        generation: Generation,
        #[serde(with = "As::<Word>")]
        reason: StopReason,
        #[serde(with = "As::<Millis>")]
        grace: Duration,
    },
    RunFinished {
        generation: Generation,
        result: Arc<RunResult>,
    },
    RunEnded {
        generation: Generation,
        #[serde(with = "As::<ExitDef>")]
        exit: Exit,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        injected: Vec<MessageId>,
        #[serde(with = "As::<ClearedDef>")]
        cleared: Cleared,
        #[serde(default, skip_serializing_if = "is_default")]
        #[serde(with = "As::<FootprintDef>")]
        footprint: Footprint,
    },
    RunReconciled {
        generation: Generation,
        #[serde(with = "As::<Word>")]
        letter: Letter,
        #[serde(with = "As::<ClearedDef>")]
        cleared: Cleared,
    },
    AttemptEnded(#[serde(with = "As::<AttemptEndedDef>")] AttemptEnded),
    TaskEnded {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<Word>")]
        to: TaskState,
        #[serde(with = "As::<TaskReasonDef>")]
        reason: TaskReason,
    },
    Reopened {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<RetryModeDef>")]
        mode: RetryMode,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempts: Option<u32>,
    },
    MessageQueued {
        id: MessageId,
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
    },
    MessageMoved {
        id: MessageId,
        #[serde(with = "As::<Word>")]
        to: MessageState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<Generation>,
    },
    QuestionOpened {
        id: QuestionId,
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        generation: Generation,
        text: Arc<str>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<Arc<str>>,
        #[serde(with = "As::<DeadlineDef>")]
        deadline: Deadline,
    },
    QuestionMoved {
        id: QuestionId,
        #[serde(with = "As::<Word>")]
        to: QuestionState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        answer: Option<Arc<str>>,
    },
    AccountMoved {
        #[serde(with = "As::<Num>")]
        account: AccountIx,
        #[serde(with = "As::<Word>")]
        to: AccountState,
        #[serde(with = "As::<AccountReasonDef>")]
        reason: AccountReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(with = "As::<Opt<DeadlineDef>>")]
        until: Option<Deadline>,
    },
    UsageNoted {
        generation: Generation,
        usage: Usage,
    },
    RoundBegan {
        #[serde(with = "As::<Num>")]
        repo: RepoIx,
        #[serde(with = "As::<Word>")]
        stage: Stage,
        #[serde(with = "As::<List<Num>>")]
        tasks: Vec<TaskIx>,
    },
    RoundMoved {
        #[serde(with = "As::<Num>")]
        repo: RepoIx,
        #[serde(with = "As::<Word>")]
        stage: Stage,
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
    },
    RoundEnded {
        #[serde(with = "As::<Num>")]
        repo: RepoIx,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        share: Option<u32>,
    },
    MergeMoved {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<Word>")]
        to: MergeState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        merged: Option<Oid>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        detail: Arc<str>,
    },
    CleanMoved {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<Word>")]
        step: CleanStep,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(with = "As::<Opt<SalvageDef>>")]
        kept: Option<Salvage>,
    },
    CleanEnded {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        removed: bool,
        detail: Arc<str>,
    },
    CommentMoved {
        #[serde(with = "As::<Num>")]
        task: TaskIx,
        #[serde(with = "As::<CommentOnDef>")]
        on: CommentOn,
        #[serde(with = "As::<Word>")]
        to: CommentState,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(with = "As::<Opt<DeadlineDef>>")]
        at: Option<Deadline>,
        #[serde(default, skip_serializing_if = "str::is_empty")]
        detail: Arc<str>,
    },
    ConcurrencySet {
        concurrency: u32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BatchCreated", deny_unknown_fields)]
pub(super) struct BatchCreatedDef {
    id: BatchId,
    seed: u64,
    #[serde(with = "As::<SettingsDef>")]
    settings: Settings,
    #[serde(with = "As::<List<AgentSpecDef>>")]
    agents: Vec<AgentSpec>,
    #[serde(with = "As::<List<AccountSpecDef>>")]
    accounts: Vec<AccountSpec>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<RepoSpecDef>>")]
    repos: Vec<RepoSpec>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PlanRevised", deny_unknown_fields)]
pub(super) struct PlanRevisedDef {
    revision: u32,
    #[serde(with = "As::<SettingsDef>")]
    settings: Settings,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<AgentSpecDef>>")]
    agents: Vec<AgentSpec>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<AccountSpecDef>>")]
    accounts: Vec<AccountSpec>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(with = "As::<List<RepoSpecDef>>")]
    repos: Vec<RepoSpec>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AttemptStarted", deny_unknown_fields)]
pub(super) struct AttemptStartedDef {
    #[serde(with = "As::<Num>")]
    task: TaskIx,
    attempt: AttemptNo,
    slot: u32,
    #[serde(with = "As::<RetryModeDef>")]
    mode: RetryMode,
    #[serde(with = "As::<Word>")]
    step: Step,
    generation: Generation,
    #[serde(with = "As::<Hex>")]
    token: u128,
    probe: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AttemptEnded", deny_unknown_fields)]
pub(super) struct AttemptEndedDef {
    #[serde(with = "As::<Num>")]
    task: TaskIx,
    attempt: AttemptNo,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<Class>,
    consumed: bool,
    detail: Arc<str>,
    #[serde(with = "As::<NextDef>")]
    next: Next,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Next", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum NextDef {
    End {
        #[serde(with = "As::<Word>")]
        to: TaskState,
        #[serde(with = "As::<TaskReasonDef>")]
        reason: TaskReason,
    },
    Retry {
        #[serde(with = "As::<RetryModeDef>")]
        mode: RetryMode,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[serde(with = "As::<Opt<DeadlineDef>>")]
        at: Option<Deadline>,
    },
    Hold {
        #[serde(with = "As::<TaskReasonDef>")]
        reason: TaskReason,
        #[serde(with = "As::<RetryModeDef>")]
        mode: RetryMode,
    },
}

mirrors! {
    RecordDef of Record,
    BatchCreatedDef of BatchCreated,
    PlanRevisedDef of PlanRevised,
    AttemptStartedDef of AttemptStarted,
    AttemptEndedDef of AttemptEnded,
    NextDef of Next,
}
