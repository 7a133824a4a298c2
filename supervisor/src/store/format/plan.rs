//! Mirrors of the plan: rules of the batch, agents, accounts, what tasks share, tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::ids::TaskId;
use protocol::program::ProgramKind;
use serde::{Deserialize, Serialize};

use supervisor_core::containment::Wish;
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Condition,
    Dependency, Hooks, Keep, Limits, MaxFailures, OnConflict, OnFailure, OnQuestion, PlannedTask,
    RepoIx, RepoSpec, RetryMode, RetryPolicy, ReviewSpec, Rules, Settings, SpecIx, TaskIx,
    TaskSpec,
};
use supervisor_core::time::Wall;

use super::mirror::{As, List, Map, Millis, Mirror, Num, Opt, Word, is_default, mirrors};

#[derive(Serialize, Deserialize)]
#[serde(remote = "Settings", deny_unknown_fields)]
pub(super) struct SettingsDef {
    name: Arc<str>,
    concurrency: u32,
    #[serde(with = "As::<OnFailureDef>")]
    on_failure: OnFailure,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<MaxFailuresDef>>")]
    max_failures: Option<MaxFailures>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    not_before: Option<Wall>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    until: Option<Wall>,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(with = "As::<LimitsDef>")]
    limits: Limits,
    lost_max: u32,
    #[serde(with = "As::<KeepDef>")]
    keep: Keep,
    work: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Keep", rename_all = "snake_case")]
pub(super) enum KeepDef {
    All,
    Failed,
    None,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OnFailure", rename_all = "snake_case")]
pub(super) enum OnFailureDef {
    SkipDependents,
    Stop,
    Continue,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "MaxFailures", rename_all = "snake_case")]
pub(super) enum MaxFailuresDef {
    Count(u32),
    Percent(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Limits", deny_unknown_fields)]
pub(super) struct LimitsDef {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turns: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cost_micros: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Millis>>")]
    wall: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AgentSpec", deny_unknown_fields)]
pub(super) struct AgentSpecDef {
    name: Arc<str>,
    #[serde(with = "As::<AgentKindDef>")]
    kind: AgentKind,
    #[serde(with = "As::<Num>")]
    account: AccountIx,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    models: Vec<Arc<str>>,
    work: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AgentKind", rename_all = "snake_case")]
pub(super) enum AgentKindDef {
    Command,
    Scripted,
    Program(ProgramKind),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AccountSpec", deny_unknown_fields)]
pub(super) struct AccountSpecDef {
    name: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    #[serde(with = "As::<AutoResumeDef>")]
    auto_resume: AutoResume,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AutoResume", rename_all = "snake_case")]
pub(super) enum AutoResumeDef {
    Always,
    Ask,
    Never,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RepoSpec", deny_unknown_fields)]
pub(super) struct RepoSpecDef {
    name: Arc<str>,
    verify: bool,
    group: u32,
    #[serde(with = "As::<OnConflictDef>")]
    on_conflict: OnConflict,
    work: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OnConflict", rename_all = "snake_case")]
pub(super) enum OnConflictDef {
    Agent(#[serde(with = "As::<Opt<Num>>")] Option<AgentIx>),
    Fail,
    Park,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ReviewSpec", deny_unknown_fields)]
pub(super) struct ReviewSpecDef {
    #[serde(with = "As::<Num>")]
    agent: AgentIx,
    rounds: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Comments", deny_unknown_fields)]
pub(super) struct CommentsDef {
    #[serde(default, skip_serializing_if = "is_default")]
    failed: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    question: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    done: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Hooks", deny_unknown_fields)]
pub(super) struct HooksDef {
    #[serde(default, skip_serializing_if = "is_default")]
    after_create: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    before_run: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    after_run: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    before_remove: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "TaskSpec", deny_unknown_fields)]
pub(super) struct TaskSpecDef {
    #[serde(with = "As::<Num>")]
    agent: AgentIx,
    attempts: u32,
    #[serde(with = "As::<Millis>")]
    timeout: Duration,
    #[serde(with = "As::<Millis>")]
    silence: Duration,
    #[serde(with = "As::<Millis>")]
    no_progress: Duration,
    #[serde(default, skip_serializing_if = "is_default")]
    priority: i32,
    verify: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    worktree: Option<RepoIx>,
    #[serde(default, skip_serializing_if = "is_default")]
    changes: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<ReviewSpecDef>>")]
    review: Option<ReviewSpec>,
    #[serde(default, skip_serializing_if = "is_default")]
    fetch: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(with = "As::<CommentsDef>")]
    comments: Comments,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(with = "As::<HooksDef>")]
    hooks: Hooks,
    #[serde(with = "As::<RetryPolicyDef>")]
    retry: RetryPolicy,
    #[serde(default, skip_serializing_if = "is_default")]
    #[serde(with = "As::<LimitsDef>")]
    limits: Limits,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "As::<Opt<Num>>")]
    not_before: Option<Wall>,
    #[serde(with = "As::<OnQuestionDef>")]
    on_question: OnQuestion,
    #[serde(with = "As::<Millis>")]
    question_timeout: Duration,
    #[serde(with = "As::<Word>")]
    containment: Wish,
    work: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OnQuestion", rename_all = "snake_case")]
pub(super) enum OnQuestionDef {
    Wait,
    Default(Arc<str>),
    WaitThenDefault(Arc<str>),
    Fail,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RetryPolicy", deny_unknown_fields)]
pub(super) struct RetryPolicyDef {
    #[serde(with = "As::<Millis>")]
    backoff_min: Duration,
    #[serde(with = "As::<Millis>")]
    backoff_max: Duration,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(with = "As::<Map<RetryModeDef>>")]
    by_class: BTreeMap<Class, RetryMode>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RetryMode", rename_all = "snake_case")]
pub(super) enum RetryModeDef {
    Resume,
    NewSession,
    Fresh,
    Stop,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "PlannedTask", deny_unknown_fields)]
pub(super) struct PlannedTaskDef {
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
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Rules", deny_unknown_fields)]
pub(super) struct RulesDef {
    #[serde(with = "As::<Num>")]
    spec: SpecIx,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    item: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    touches: Arc<[Arc<str>]>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    #[serde(with = "As::<List<DependencyDef>>")]
    depends_on: Box<[Dependency]>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Dependency", deny_unknown_fields)]
pub(super) struct DependencyDef {
    #[serde(with = "As::<Num>")]
    task: TaskIx,
    #[serde(with = "As::<ConditionDef>")]
    condition: Condition,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Condition", rename_all = "snake_case")]
pub(super) enum ConditionDef {
    Done,
    Finished,
    Merged,
}

mirrors! {
    SettingsDef of Settings,
    KeepDef of Keep,
    OnFailureDef of OnFailure,
    MaxFailuresDef of MaxFailures,
    LimitsDef of Limits,
    AgentSpecDef of AgentSpec,
    AgentKindDef of AgentKind,
    AccountSpecDef of AccountSpec,
    AutoResumeDef of AutoResume,
    RepoSpecDef of RepoSpec,
    OnConflictDef of OnConflict,
    ReviewSpecDef of ReviewSpec,
    CommentsDef of Comments,
    HooksDef of Hooks,
    TaskSpecDef of TaskSpec,
    OnQuestionDef of OnQuestion,
    RetryPolicyDef of RetryPolicy,
    RetryModeDef of RetryMode,
    PlannedTaskDef of PlannedTask,
    RulesDef of Rules,
    DependencyDef of Dependency,
    ConditionDef of Condition,
}
