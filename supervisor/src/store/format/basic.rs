//! Mirrors of what records and state share: moments, identities, reasons.

use std::sync::Arc;

use protocol::class::Class;
use protocol::command::Keeper;
use protocol::ids::QuestionId;
use serde::{Deserialize, Serialize};

use supervisor_core::containment::{Cleared, Containment, Layers, Leftover};
use supervisor_core::identity::{Exit, Identity};
use supervisor_core::input::StopStage;
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::reason::{AccountReason, BatchLimit, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use supervisor_core::time::{Boot, BootId, Deadline, Now, Wall};

use super::mirror::{As, Hex, List, Mirror, Num, Word, mirrors};

#[derive(Serialize, Deserialize)]
#[serde(remote = "Now", deny_unknown_fields)]
pub(super) struct NowDef {
    #[serde(with = "As::<Num>")]
    wall: Wall,
    #[serde(with = "As::<Num>")]
    boot: Boot,
    #[serde(with = "As::<Hex>")]
    boot_id: BootId,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Deadline", rename_all = "snake_case")]
pub(super) enum DeadlineDef {
    Boot(#[serde(with = "As::<Num>")] Boot),
    Wall(#[serde(with = "As::<Num>")] Wall),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Identity", deny_unknown_fields)]
pub(super) struct IdentityDef {
    node: Arc<str>,
    pid_namespace: u64,
    #[serde(with = "As::<Hex>")]
    boot_id: BootId,
    pid: u32,
    start_ticks: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pidfs_inode: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Containment", deny_unknown_fields)]
pub(super) struct ContainmentDef {
    #[serde(with = "As::<Word>")]
    layers: Layers,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<Keeper>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Leftover", deny_unknown_fields)]
pub(super) struct LeftoverDef {
    pid: u32,
    start_ticks: u64,
    why: Arc<str>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Cleared", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum ClearedDef {
    Clean {
        killed: u32,
    },
    Residual {
        killed: u32,
        #[serde(with = "As::<List<LeftoverDef>>")]
        left: Vec<Leftover>,
    },
    NotExcluded {
        killed: u32,
        why: Arc<str>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Exit", rename_all = "snake_case")]
pub(super) enum ExitDef {
    Code(i32),
    Signal(i32),
    Unseen,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "StopStage", rename_all = "snake_case")]
pub(super) enum StopStageDef {
    Drain,
    Stop,
    Kill,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BatchLimit", rename_all = "snake_case")]
pub(super) enum BatchLimitDef {
    Turns,
    Tokens,
    Cost,
    Wall,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "BatchReason", rename_all = "snake_case")]
pub(super) enum BatchReasonDef {
    Working,
    Operator,
    Limit(#[serde(with = "As::<BatchLimitDef>")] BatchLimit),
    Disk,
    TaskFailed(#[serde(with = "As::<Num>")] TaskIx),
    MergeFailed(#[serde(with = "As::<Num>")] TaskIx),
    TooManyFailures,
    NothingStarts,
    Until,
    Drain,
    Stop,
    NeedsPerson,
    Settled,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "TaskReason", rename_all = "snake_case")]
pub(super) enum TaskReasonDef {
    New,
    Dependencies,
    Touches(#[serde(with = "As::<Num>")] TaskIx),
    NotBefore,
    Lane,
    Backoff(Class),
    AccountLimited,
    AccountStopped,
    Preparing,
    Working,
    Proving,
    Reviewing,
    Question(QuestionId),
    Operator,
    Killed,
    Interrupted,
    Unresolved(#[serde(with = "As::<Word>")] Letter),
    NeedsOperator(Class),
    Proven,
    AsDone,
    Failed(Class),
    Quarantined,
    DependencyFailed(#[serde(with = "As::<Num>")] TaskIx),
    SkippedByOperator,
    CancelledByOperator,
    BatchStopped,
    NotSelected,
    Removed,
    Reopened,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AccountReason", rename_all = "snake_case")]
pub(super) enum AccountReasonDef {
    Class(Class),
    Reset,
    ProbeWentWell,
    Operator,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Purpose", rename_all = "snake_case")]
pub(super) enum PurposeDef {
    Step(#[serde(with = "As::<Word>")] Step),
    Merge(
        #[serde(with = "As::<Num>")] RepoIx,
        #[serde(with = "As::<Word>")] Stage,
    ),
    Clean(#[serde(with = "As::<Word>")] CleanStep),
    Comment(#[serde(with = "As::<CommentOnDef>")] CommentOn),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "CommentOn", rename_all = "snake_case")]
pub(super) enum CommentOnDef {
    Failed,
    Done,
    Question(QuestionId),
}

mirrors! {
    NowDef of Now,
    DeadlineDef of Deadline,
    IdentityDef of Identity,
    ExitDef of Exit,
    ContainmentDef of Containment,
    LeftoverDef of Leftover,
    ClearedDef of Cleared,
    StopStageDef of StopStage,
    BatchLimitDef of BatchLimit,
    BatchReasonDef of BatchReason,
    TaskReasonDef of TaskReason,
    AccountReasonDef of AccountReason,
    PurposeDef of Purpose,
    CommentOnDef of CommentOn,
}
