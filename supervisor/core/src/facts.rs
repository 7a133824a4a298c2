//! The state: primary facts only. What can be computed from them lives in [`crate::index`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::{RunKind, SteerMode};
use protocol::git::Oid;
use protocol::ids::{AttemptNo, BatchId, Generation, MessageId, QuestionId, TaskId};
use protocol::report::{Capabilities, RunResult, Usage, Verdict};

use crate::containment::Containment;
use crate::identity::Identity;
use crate::machine::{
    AccountState, AttemptState, BatchState, CommentState, MergeState, MessageState, QuestionState,
    RunState, TaskState,
};
use crate::plan::{
    AccountSpec, AgentSpec, Dependency, RepoSpec, RetryMode, Rules, Settings, SpecIx, TaskIx,
    TaskSpec,
};
use crate::reason::{AccountReason, BatchReason, TaskReason};
use crate::record::StopReason;
use crate::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use crate::time::{Boot, Deadline, Now, Wall};

/// Most comments of one task that wait to be posted; what else it has to tell is then not told.
pub const COMMENTS_MAX: usize = 16;

/// Everything a checkpoint holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The batch.
    pub batch: Batch,
    /// Its agents. A revision adds changed ones at the end, so that what runs keeps its own: the
    /// last one of a name is what the batch file says.
    pub agents: Vec<AgentSpec>,
    /// Its accounts.
    pub accounts: Vec<Account>,
    /// Its repositories, in which tasks have worktrees.
    pub repos: Vec<Repo>,
    /// Rules that tasks share.
    pub specs: Vec<Arc<TaskSpec>>,
    /// Its tasks.
    pub tasks: Vec<Task>,
    /// Runs that have not ended.
    pub runs: BTreeMap<Generation, Run>,
    /// Messages; settled ones keep their times, not their text.
    pub messages: BTreeMap<MessageId, Message>,
    /// Questions; settled ones of ended tasks are forgotten.
    pub questions: BTreeMap<QuestionId, Question>,
}

/// One batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Its id.
    pub id: BatchId,
    /// Where it is.
    pub state: BatchState,
    /// Why.
    pub reason: BatchReason,
    /// When it was created.
    pub created: Wall,
    /// The moment of the last record.
    pub now: Now,
    /// The last supervisor's term; 0 before the first.
    pub term: u64,
    /// The last supervisor.
    pub supervisor: Option<Identity>,
    /// The guardian that started it; `None`: it was started without one.
    pub guardian: Option<Identity>,
    /// Number of the last record.
    pub seq: u64,
    /// Seed of every random choice.
    pub seed: u64,
    /// Rules.
    pub settings: Settings,
    /// The plan is whole.
    pub plan_closed: bool,
    /// Last generation given out.
    pub last_generation: Generation,
    /// Last message id given out.
    pub last_message: MessageId,
    /// Last question id given out.
    pub last_question: QuestionId,
    /// Use of all ended runs.
    pub usage: Usage,
    /// Running time so far, pauses not counted, up to `running_since`.
    pub ran: Duration,
    /// Since when it runs, if it does.
    pub running_since: Option<Boot>,
    /// Spawn failures in a row, over all tasks, since the last host that shook hands.
    pub spawn_failures: u32,
    /// How often an edited batch file was taken; 0 under the file that it began with.
    pub revision: u32,
    /// Live attempts at most, where the operator said so after the batch file was read.
    pub lanes: Option<u32>,
    /// Who stopped it may go on only by an operator's command.
    pub stop_grade: Option<crate::input::StopStage>,
}

impl Batch {
    /// Live attempts at most.
    pub fn lanes(&self) -> u32 {
        self.lanes.unwrap_or(self.settings.concurrency)
    }
}

/// One task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its rules.
    pub spec: SpecIx,
    /// Its `foreach` item, as JSON text.
    pub item: Option<Arc<str>>,
    /// Its globs of files.
    pub touches: Arc<[Arc<str>]>,
    /// What must come first.
    pub depends_on: Box<[Dependency]>,
    /// Where it is.
    pub state: TaskState,
    /// Why.
    pub reason: TaskReason,
    /// Since when.
    pub since: Wall,
    /// When it will be looked at again, where it waits for time.
    pub next_check: Option<Deadline>,
    /// How often it was reopened.
    pub epoch: u32,
    /// Number of the last attempt; 0 before the first.
    pub attempts: AttemptNo,
    /// Attempts that count, in this epoch.
    pub consumed: u32,
    /// Attempts at most in this epoch, where the operator said so.
    pub attempts_max: Option<u32>,
    /// Lost attempts in a row.
    pub lost: u32,
    /// Non-consuming failures in a row (for their backoff).
    pub free_retries: u32,
    /// Attempts in a row that ended because the service was overloaded.
    pub overloads: u32,
    /// Which of its agent's models the next attempt uses, from 0.
    pub model: u32,
    /// The open attempt.
    pub attempt: Option<Attempt>,
    /// How the next attempt begins.
    pub mode: RetryMode,
    /// The agent's conversation to go on with.
    pub session: Option<Arc<str>>,
    /// The last ended attempt.
    pub last: Option<Box<Outcome>>,
    /// Use of its ended runs.
    pub usage: Usage,
    /// What of it was used before the task was last reopened: its limits are counted anew, as its
    /// attempts are.
    pub usage_before: Usage,
    /// A hold that the operator asked for while an attempt was open, to be applied at its end.
    pub hold: bool,
    /// What an edited batch file says of it, from the end of the open attempt on.
    pub revised: Option<Box<Rules>>,
    /// The batch file no longer has it: no attempt follows, and `retry` does not reopen it.
    pub removed: bool,
    /// Its worktree, where it has one.
    pub worktree: Option<Worktree>,
    /// What was put on salvage refs of it, oldest first.
    pub salvaged: Vec<Salvage>,
    /// The merge of its commit, once it is done with one.
    pub merge: Option<Merge>,
    /// Its worktree is going.
    pub clean: Option<Clean>,
    /// Comments that are to be posted, the next one first, at most [`COMMENTS_MAX`].
    pub comments: Vec<Comment>,
}

/// The worktree of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worktree {
    /// What it was made from.
    pub base: Oid,
    /// The operator's commands for a new worktree went well, where there are any.
    pub hooked: bool,
    /// A removal of it was cut off: what was in it is in the last salvage, and it may be gone.
    pub going: bool,
    /// The last commit of its work.
    pub commit: Option<Oid>,
}

/// Work that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// The ref.
    pub reference: Arc<str>,
    /// Its commit.
    pub commit: Oid,
}

/// The merge of a task's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// Where it is.
    pub state: MergeState,
    /// Since when.
    pub since: Wall,
    /// What is merged.
    pub commit: Oid,
    /// The commit on the batch branch that holds it.
    pub merged: Option<Oid>,
    /// How often an agent tried in vain to resolve it since the operator last queued it.
    pub tries: u32,
    /// It was rolled back since the operator last queued it: its proof is what failed, not only its merge.
    pub disproved: bool,
    /// How many may be in its next round at most, after one that came to no end.
    pub share: Option<u32>,
    /// What it conflicted with, or how its proof failed, the last time that it did.
    pub trouble: Arc<str>,
    /// A sentence for people: why it is where it is.
    pub detail: Arc<str>,
}

/// The end of a worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clean {
    /// What is done now, or is due.
    pub step: CleanStep,
    /// Its run, while there is one.
    pub run: Option<Generation>,
    /// Runs of this step so far.
    pub runs: u32,
    /// The commit that holds what is in the worktree, and the ref that reaches it, once known.
    pub kept: Option<Salvage>,
}

/// A comment on the issue or pull request of a task that is not posted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comment {
    /// What it tells.
    pub on: CommentOn,
    /// Of this attempt, the last one when it was queued.
    pub attempt: AttemptNo,
    /// Where it is.
    pub state: CommentState,
    /// Its run, while there is one.
    pub run: Option<Generation>,
    /// Its runs so far.
    pub runs: u32,
    /// Not before this.
    pub at: Option<Deadline>,
}

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// Its rules.
    pub spec: RepoSpec,
    /// The merges that are under way; one round at a time.
    pub round: Option<Round>,
}

/// Merges that share a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Whether commands prove its merges: as the batch file said when it began. A file that says
    /// otherwise by now counts from the next round on.
    pub verify: bool,
    /// What is done now, or is due.
    pub stage: Stage,
    /// Its run, while there is one.
    pub run: Option<Generation>,
    /// Runs of this stage so far.
    pub runs: u32,
    /// The tasks whose turn it is, never empty; those that conflict or are merged leave it.
    pub tasks: Vec<TaskIx>,
    /// Where the batch branch was when it began, once known.
    pub tip: Option<Oid>,
    /// The merge commits made, in order: each is the parent of the next.
    pub commits: Vec<(TaskIx, Oid)>,
    /// How many of these are proven together.
    pub good: u32,
    /// How many of these together were proven bad, where a proof failed.
    pub bad: Option<u32>,
    /// How the last proof failed, for people and for the agent that is to resolve it.
    pub detail: Arc<str>,
}

impl Round {
    /// How many of the merge commits the next proof is about: all, or after a failure half of
    /// those between what is good and what is bad.
    pub fn proving(&self) -> u32 {
        match self.bad {
            None => u32::try_from(self.commits.len()).unwrap_or(u32::MAX),
            Some(bad) => self.good + (bad - self.good) / 2,
        }
    }

    /// The tasks that its run is about now: those that are merged by it, or those whose merge commits it
    /// proves.
    pub fn about(&self) -> Vec<TaskIx> {
        match self.commits.as_slice() {
            [] => self.tasks.clone(),
            commits => commits.iter().map(|(task, _)| *task).collect(),
        }
    }

    /// The merge commit of the first `count` tasks.
    pub fn commit(&self, count: u32) -> Option<&Oid> {
        let last = usize::try_from(count).ok()?.checked_sub(1)?;
        self.commits.get(last).map(|(_, commit)| commit)
    }
}

impl Task {
    /// What its next attempt begins under.
    pub fn next_rules(&self) -> Rules {
        self.revised
            .as_deref()
            .cloned()
            .unwrap_or_else(|| self.rules())
    }

    /// What its open attempt, if any, began under.
    pub fn rules(&self) -> Rules {
        Rules {
            spec: self.spec,
            item: self.item.clone(),
            touches: self.touches.clone(),
            depends_on: self.depends_on.clone(),
        }
    }
}

impl Task {
    /// What its limits count: use of its ended runs since it was last reopened.
    pub(crate) fn spent(&self) -> Usage {
        let (all, before) = (self.usage, self.usage_before);
        Usage {
            turns: all.turns.saturating_sub(before.turns),
            tokens: all.tokens.saturating_sub(before.tokens),
            cost_micros: all.cost_micros.saturating_sub(before.cost_micros),
        }
    }
}

/// One open attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its number.
    pub no: AttemptNo,
    /// Where it is.
    pub state: AttemptState,
    /// Its lane.
    pub slot: u32,
    /// How it began.
    pub mode: RetryMode,
    /// Its live or last run.
    pub run: Generation,
    /// Its wall limit, over all its runs.
    pub deadline: Boot,
    /// The agent's result, once there is one that counts.
    pub result: Option<Arc<RunResult>>,
    /// It finds out whether its account's limit is over.
    pub probe: bool,
    /// Which step it is at.
    pub step: Step,
    /// Runs of this step so far.
    pub step_runs: u32,
    /// The last of these ended well: the next step is due.
    pub step_done: bool,
    /// The commit of its work, once there is one.
    pub commit: Option<Oid>,
    /// Files that this changes.
    pub files: u64,
    /// How often its work was sent back.
    pub rounds: u32,
    /// What the reviewer ruled, until the agent works again.
    pub verdict: Option<Verdict>,
    /// What the reviewer said last, for the agent.
    pub notes: Option<Arc<str>>,
    /// Since when it waits, for the operator's answer or between two runs, if it does: its wall
    /// limit stands still.
    pub waiting_since: Option<Boot>,
    /// The batch's `work` that it began under, where the batch has another one by now.
    pub work: Option<Arc<str>>,
    /// What its ended runs used.
    pub footprint: Footprint,
}

/// What the families of ended runs used, as far as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// The most memory of one family at a time, bytes.
    pub memory_peak_bytes: u64,
    /// CPU time of all together, milliseconds.
    pub cpu_ms: u64,
}

impl Footprint {
    /// Of one run after the other.
    pub(crate) fn and(self, next: Footprint) -> Footprint {
        Footprint {
            memory_peak_bytes: self.memory_peak_bytes.max(next.memory_peak_bytes),
            cpu_ms: self.cpu_ms.saturating_add(next.cpu_ms),
        }
    }
}

impl Attempt {
    /// Whether its wall limit is used up; what it waits does not count.
    pub(crate) fn is_over_time(&self, now: Boot) -> bool {
        let working = self.waiting_since.map_or(now, |since| since.min(now));
        self.deadline <= working
    }

    /// Its wait is over: the wall limit moves by its length.
    pub(crate) fn work_again(&mut self, now: Boot) {
        if let Some(since) = self.waiting_since.take() {
            let waited = now.0.saturating_sub(since.0);
            self.deadline.0 = self.deadline.0.saturating_add(waited);
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its number.
    pub attempt: AttemptNo,
    /// Why not done; absent: done.
    pub class: Option<Class>,
    /// A sentence for people.
    pub detail: Arc<str>,
    /// The agent's summary, where it handed over a result.
    pub summary: Arc<str>,
    /// What its families used.
    pub footprint: Footprint,
}

/// One run that has not ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Its task.
    pub task: TaskIx,
    /// Its attempt.
    pub attempt: AttemptNo,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it is.
    pub state: RunState,
    /// Its spawn token.
    pub token: u128,
    /// Its host, once spawned.
    pub identity: Option<Identity>,
    /// What holds its tree together; nothing before it was spawned.
    pub containment: Containment,
    /// What its adapter can prove, once started.
    pub capabilities: Option<Capabilities>,
    /// Why it was told to end, and when its grace is over.
    pub stop: Option<(StopReason, Boot)>,
    /// Its result, once durable.
    pub result: Option<Arc<RunResult>>,
    /// Use so far.
    pub usage: Usage,
    /// After a crash it could not be judged: only the next take-over may rule on it.
    pub unresolved: bool,
}

impl Run {
    /// The kind of run that it is.
    pub const fn kind(&self) -> RunKind {
        self.purpose.kind()
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its task.
    pub task: TaskIx,
    /// When it goes in.
    pub mode: SteerMode,
    /// Its text; empty once settled.
    pub text: Arc<str>,
    /// Useless after this.
    pub expires: Option<Wall>,
    /// The task whose agent wrote it; absent: the operator.
    pub from: Option<TaskIx>,
    /// How far it is.
    pub state: MessageState,
    /// The run it was handed to.
    pub generation: Option<Generation>,
    /// When it reached each rung, in order.
    pub rungs: Vec<(MessageState, Wall)>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its task.
    pub task: TaskIx,
    /// The run that asks.
    pub generation: Generation,
    /// The question.
    pub text: Arc<str>,
    /// Answers to choose from.
    pub options: Vec<Arc<str>>,
    /// Since when.
    pub asked: Wall,
    /// How long it waits.
    pub deadline: Deadline,
    /// Where it is.
    pub state: QuestionState,
    /// The answer.
    pub answer: Option<Arc<str>>,
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its rules.
    pub spec: AccountSpec,
    /// Where it is.
    pub state: AccountState,
    /// Why.
    pub reason: Option<AccountReason>,
    /// When it will be looked at again.
    pub until: Option<Deadline>,
    /// Limits hit in a row (for the wait where no reset time is known).
    pub limited: u32,
}
