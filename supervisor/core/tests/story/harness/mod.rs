//! What every story needs: a plan, a world around one core, and the checks after every input.

mod check;
mod git;
mod plan;
mod verbs;
mod world;

pub(crate) use git::*;
pub(crate) use plan::{PlanBuilder, batch};
pub(crate) use verbs::{caps, failed, ok, said, used};
pub(crate) use world::{Pulse, World};

pub(crate) use std::time::Duration;

pub(crate) use protocol::class::Class;
pub(crate) use protocol::command::{Pong, RunKind, SteerMode};
pub(crate) use protocol::ids::{AttemptNo, Generation, MessageId, QuestionId};
pub(crate) use protocol::report::{Event, Receipt, RunResult, Usage};
pub(crate) use supervisor_core::core::{Change, Core, ReplayError};
pub(crate) use supervisor_core::effect::{Answer, Effect, Ending, Refusal};
pub(crate) use supervisor_core::identity::Exit;
pub(crate) use supervisor_core::input::{Input, OperatorCommand, StopStage, WireFault};
pub(crate) use supervisor_core::machine::{
    AccountState, AttemptState, BatchState, MergeState, MessageState, QuestionState, RunState,
    TaskState,
};
pub(crate) use supervisor_core::plan::{
    AccountIx, AgentIx, AgentKind, AutoResume, Keep, Limits, MaxFailures, OnConflict, OnFailure,
    OnQuestion, RepoIx, RetryMode, TaskIx,
};
pub(crate) use supervisor_core::reason::{AccountReason, BatchLimit, BatchReason, TaskReason};
pub(crate) use supervisor_core::reconcile::{Letter, ProcessFact, ResultFact, RunFacts};
pub(crate) use supervisor_core::record::{Entry, Next, Record, StopReason};
pub(crate) use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};
pub(crate) use supervisor_core::time::{Boot, Deadline, Wall};

/// That many seconds.
pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// That many minutes.
pub(crate) const fn mins(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// That many hours.
pub(crate) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}
