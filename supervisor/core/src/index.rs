//! What can be computed from the facts, kept up to date so that the work per record does not depend
//! on the size of the batch. Rebuilt from the facts after a checkpoint; never on disk.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::ids::{Generation, MessageId, QuestionId, TaskId};

use crate::facts::{Facts, Task};
use crate::machine::{
    AccountState, BatchState, MergeState, MessageState, QuestionState, TaskState,
};
use crate::mutation::{self, Mutation};
use crate::plan::{
    AccountIx, AgentIx, AgentSpec, Condition, Dependency, OnFailure, RepoIx, TaskIx,
};
use crate::reason::TaskReason;
use crate::time::Deadline;
use crate::timers::{Timer, Timers};

/// Order of ready tasks: higher priority first, then the order of the plan.
pub(crate) type ReadyKey = (Reverse<i32>, TaskIx);

/// The indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Position of each task by id.
    pub ids: BTreeMap<TaskId, TaskIx>,
    /// Who depends on each task, and how (`task` is the dependent here).
    pub(crate) dependents: Vec<BTreeSet<Dependency>>,
    /// How many tasks, from the first on, have their dependencies linked: all but those of an
    /// extension that is not whole.
    pub(crate) linked: usize,
    /// Revised tasks that the end of the revision sends to where they wait.
    pub(crate) unrouted: BTreeSet<TaskIx>,
    /// Tasks that were skipped because the batch stopped before they were tried.
    pub(crate) untried: BTreeSet<TaskIx>,
    /// Dependencies of each task that are not satisfied.
    pub(crate) unmet: Vec<u32>,
    /// Ready tasks that wait for nothing but a lane, by agent.
    pub(crate) ready: BTreeMap<AgentIx, BTreeSet<ReadyKey>>,
    /// Tasks with an open attempt, and their lanes.
    pub live: BTreeMap<TaskIx, u32>,
    /// Tasks with an open attempt, by the agent's name: what an agent was before a revision and
    /// what it is now share their lanes.
    pub(crate) live_by_agent: BTreeMap<Arc<str>, u32>,
    /// Tasks with an open attempt, by account.
    pub(crate) live_by_account: BTreeMap<AccountIx, u32>,
    /// Lanes taken.
    pub(crate) slots: BTreeSet<u32>,
    /// Open attempts whose last run has ended: their next run is due.
    pub(crate) idle: BTreeSet<TaskIx>,
    /// Who waits for which live task because of `touches`.
    pub(crate) touch_waiters: BTreeMap<TaskIx, BTreeSet<TaskIx>>,
    /// Tasks held by the operator, a kill, an account or a crash.
    pub(crate) paused: BTreeSet<TaskIx>,
    /// Merges that wait for their turn, by repository: queued, or in conflict with what is merged.
    pub(crate) merges: BTreeMap<RepoIx, BTreeSet<TaskIx>>,
    /// Merges that are not settled.
    pub(crate) merging: BTreeSet<TaskIx>,
    /// Merges that wait for the operator.
    pub(crate) parked: BTreeSet<TaskIx>,
    /// Merges that failed.
    pub(crate) unmerged: BTreeSet<TaskIx>,
    /// Tasks whose worktree is going.
    pub(crate) cleaning: BTreeSet<TaskIx>,
    /// Tasks with comments that are to be posted.
    pub(crate) commenting: BTreeSet<TaskIx>,
    /// Unsettled messages by task.
    pub(crate) mail: BTreeMap<TaskIx, BTreeSet<MessageId>>,
    /// Open questions by run.
    pub(crate) questions: BTreeMap<Generation, BTreeSet<QuestionId>>,
    /// Tasks in each state, in the order of [`TaskState::ALL`].
    pub counts: [u32; TaskState::ALL.len()],
    /// Durable deadlines.
    pub timers: Timers,
}

impl Index {
    /// Computes everything from the facts.
    pub(crate) fn build(facts: &Facts) -> Self {
        let mut index = Self::default();
        for ix in 0..facts.tasks.len() {
            index.add_task(facts, TaskIx(u32::try_from(ix).unwrap_or(u32::MAX)));
        }
        index.link(facts, whole(facts));
        for (ix, _) in each(&facts.tasks) {
            if (ix.0 as usize) < index.linked {
                index.count_unmet(facts, ix);
            }
            index.enter(facts, ix);
            index.note_merge(facts, ix);
            if facts.tasks[ix.0 as usize].clean.is_some() {
                index.cleaning.insert(ix);
            }
            index.note_comments(facts, ix);
        }
        for (generation, run) in &facts.runs {
            if let Some((_, grace)) = run.stop {
                index
                    .timers
                    .arm(Timer::Grace(*generation), Some(Deadline::Boot(grace)));
            }
        }
        for (id, message) in &facts.messages {
            index.note_message(*id, message.task, message.state, message.expires);
        }
        for (id, question) in &facts.questions {
            index.note_question(*id, question.generation, question.state, question.deadline);
        }
        for (ix, account) in facts.accounts.iter().enumerate() {
            let account_ix = AccountIx(u32::try_from(ix).unwrap_or(u32::MAX));
            index.note_account(account_ix, account.state, account.until);
        }
        index.note_batch(facts);
        index
    }

    /// Brings what depends on a task's comments up to date.
    pub(crate) fn note_comments(&mut self, facts: &Facts, ix: TaskIx) {
        let next = facts.tasks[ix.0 as usize].comments.first();
        match next {
            Some(_) => self.commenting.insert(ix),
            None => self.commenting.remove(&ix),
        };
        self.timers
            .arm(Timer::Comment(ix), next.and_then(|comment| comment.at));
    }

    /// Makes room for one task (which is `Pending` or comes from a checkpoint).
    pub(crate) fn add_task(&mut self, facts: &Facts, ix: TaskIx) {
        let task = &facts.tasks[ix.0 as usize];
        self.ids.insert(task.id.clone(), ix);
        self.dependents.push(BTreeSet::new());
        self.unmet.push(0);
        self.counts[position(task.state)] += 1;
    }

    /// Links the dependencies of the first `count` tasks, as far as they are not linked yet.
    pub(crate) fn link(&mut self, facts: &Facts, count: usize) {
        for at in self.linked..count {
            self.link_task(facts, TaskIx(u32::try_from(at).unwrap_or(u32::MAX)));
        }
        self.linked = count;
    }

    /// Links the dependencies of one task.
    pub(crate) fn link_task(&mut self, facts: &Facts, ix: TaskIx) {
        for (on, back) in backs(facts, ix) {
            self.dependents[on.0 as usize].insert(back);
        }
    }

    /// Takes the dependencies of one task out, before they change.
    pub(crate) fn unlink(&mut self, facts: &Facts, ix: TaskIx) {
        for (on, back) in backs(facts, ix) {
            self.dependents[on.0 as usize].remove(&back);
        }
    }

    /// Counts anew what a task waits for.
    pub(crate) fn count_unmet(&mut self, facts: &Facts, ix: TaskIx) {
        self.unmet[ix.0 as usize] = unmet(facts, &facts.tasks[ix.0 as usize]);
    }

    /// Another rule for failures: counts anew what every task waits for.
    pub(crate) fn count_all_unmet(&mut self, facts: &Facts) {
        for (ix, task) in each(&facts.tasks) {
            let counted = unmet(facts, task);
            let before = std::mem::replace(&mut self.unmet[ix.0 as usize], counted);
            if before != counted {
                self.unrouted.insert(ix);
            }
        }
    }

    /// Takes a task out of the indexes that depend on its state.
    pub(crate) fn leave(&mut self, facts: &Facts, ix: TaskIx) {
        let task = &facts.tasks[ix.0 as usize];
        match task.state {
            TaskState::Ready => {
                let agent = facts.specs[task.spec.0 as usize].agent;
                let key = ready_key(facts, ix);
                if let Some(set) = self.ready.get_mut(&agent) {
                    set.remove(&key);
                    if set.is_empty() {
                        self.ready.remove(&agent);
                    }
                }
            }
            TaskState::Blocked => {
                if let TaskReason::Touches(holder) = task.reason
                    && let Some(waiters) = self.touch_waiters.get_mut(&holder)
                {
                    waiters.remove(&ix);
                    if waiters.is_empty() {
                        self.touch_waiters.remove(&holder);
                    }
                }
            }
            TaskState::Paused => _ = self.paused.remove(&ix),
            TaskState::Skipped => _ = self.untried.remove(&ix),
            TaskState::Pending
            | TaskState::Running
            | TaskState::Verifying
            | TaskState::Reviewing
            | TaskState::Waiting
            | TaskState::Done
            | TaskState::Failed
            | TaskState::Cancelled => {}
        }
        self.timers.arm(Timer::Task(ix), None);
        self.counts[position(task.state)] -= 1;
    }

    /// The other half of [`Index::leave`].
    pub(crate) fn arrive(&mut self, facts: &Facts, ix: TaskIx) {
        self.counts[position(facts.tasks[ix.0 as usize].state)] += 1;
        self.enter(facts, ix);
    }

    fn enter(&mut self, facts: &Facts, ix: TaskIx) {
        let task = &facts.tasks[ix.0 as usize];
        match task.state {
            // A worktree that is going is nothing to work in.
            TaskState::Ready if task.next_check.is_none() && task.clean.is_none() => {
                let agent = facts.specs[task.spec.0 as usize].agent;
                self.ready
                    .entry(agent)
                    .or_default()
                    .insert(ready_key(facts, ix));
            }
            TaskState::Blocked => {
                if let TaskReason::Touches(holder) = task.reason {
                    self.touch_waiters.entry(holder).or_default().insert(ix);
                }
            }
            TaskState::Paused => _ = self.paused.insert(ix),
            TaskState::Skipped if task.reason == TaskReason::BatchStopped => {
                self.untried.insert(ix);
            }
            TaskState::Ready
            | TaskState::Pending
            | TaskState::Running
            | TaskState::Verifying
            | TaskState::Reviewing
            | TaskState::Waiting
            | TaskState::Done
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Skipped => {}
        }
        self.timers.arm(Timer::Task(ix), task.next_check);
        self.note_attempt(facts, ix);
    }

    /// Brings everything about the task's open attempt up to date.
    pub(crate) fn note_attempt(&mut self, facts: &Facts, ix: TaskIx) {
        let task = &facts.tasks[ix.0 as usize];
        let agent = facts.specs[task.spec.0 as usize].agent;
        let AgentSpec { name, account, .. } = &facts.agents[agent.0 as usize];
        let was_live = self.live.contains_key(&ix);
        match (&task.attempt, was_live) {
            (Some(attempt), false) => {
                self.live.insert(ix, attempt.slot);
                self.slots.insert(attempt.slot);
                *self.live_by_agent.entry(name.clone()).or_default() += 1;
                *self.live_by_account.entry(*account).or_default() += 1;
            }
            (None, true) => {
                if let Some(slot) = self.live.remove(&ix) {
                    self.slots.remove(&slot);
                }
                count_down(&mut self.live_by_agent, name);
                count_down(&mut self.live_by_account, account);
            }
            (Some(_), true) | (None, false) => {}
        }
        // A wait stands still, and with the result in, what is missing has limits of its own.
        let deadline = task.attempt.as_ref().and_then(|attempt| {
            let works = attempt.waiting_since.is_none() && attempt.result.is_none();
            works.then_some(Deadline::Boot(attempt.deadline))
        });
        self.timers.arm(Timer::Attempt(ix), deadline);
        let idle = task
            .attempt
            .as_ref()
            .is_some_and(|it| !facts.runs.contains_key(&it.run));
        if idle {
            self.idle.insert(ix);
        } else {
            self.idle.remove(&ix);
        }
    }

    /// Brings everything about the merge of a task up to date.
    pub(crate) fn note_merge(&mut self, facts: &Facts, ix: TaskIx) {
        let task = &facts.tasks[ix.0 as usize];
        let Some(merge) = &task.merge else {
            return;
        };
        let waits = match merge.state {
            MergeState::Queued | MergeState::Conflict | MergeState::RolledBack => true,
            MergeState::None
            | MergeState::Merging
            | MergeState::Verifying
            | MergeState::Merged
            | MergeState::Resolving
            | MergeState::Parked
            | MergeState::Failed => false,
        };
        if let Some(repo) = facts.specs[task.spec.0 as usize].worktree {
            let waiting = self.merges.entry(repo).or_default();
            note(waiting, ix, waits);
            if waiting.is_empty() {
                self.merges.remove(&repo);
            }
        }
        note(&mut self.merging, ix, !merge.state.is_settled());
        note(&mut self.parked, ix, merge.state == MergeState::Parked);
        note(&mut self.unmerged, ix, merge.state == MergeState::Failed);
    }

    /// Brings a message's indexes up to date.
    pub(crate) fn note_message(
        &mut self,
        id: MessageId,
        task: TaskIx,
        state: MessageState,
        expires: Option<crate::time::Wall>,
    ) {
        let queued = state == MessageState::Queued;
        self.timers.arm(
            Timer::Message(id),
            expires.filter(|_| queued).map(Deadline::Wall),
        );
        let unsettled = matches!(state, MessageState::Queued | MessageState::Sent);
        let mail = self.mail.entry(task).or_default();
        if unsettled {
            mail.insert(id);
        } else {
            mail.remove(&id);
        }
        if mail.is_empty() {
            self.mail.remove(&task);
        }
    }

    /// Brings a question's indexes up to date.
    pub(crate) fn note_question(
        &mut self,
        id: QuestionId,
        generation: Generation,
        state: QuestionState,
        deadline: Deadline,
    ) {
        let open = state == QuestionState::Open;
        self.timers
            .arm(Timer::Question(id), open.then_some(deadline));
        let asked = self.questions.entry(generation).or_default();
        if open {
            asked.insert(id);
        } else {
            asked.remove(&id);
        }
        if asked.is_empty() {
            self.questions.remove(&generation);
        }
    }

    /// Brings an account's timer up to date.
    pub(crate) fn note_account(
        &mut self,
        ix: AccountIx,
        state: AccountState,
        until: Option<Deadline>,
    ) {
        let waits = state == AccountState::Limited;
        self.timers.arm(Timer::Account(ix), until.filter(|_| waits));
    }

    /// Brings the batch's timers up to date.
    pub(crate) fn note_batch(&mut self, facts: &Facts) {
        let batch = &facts.batch;
        let running = batch.state == BatchState::Running;
        let first = batch
            .settings
            .not_before
            .filter(|at| running && *at > batch.now.wall);
        self.timers.arm(Timer::NotBefore, first.map(Deadline::Wall));
        let open = matches!(batch.state, BatchState::Running | BatchState::Paused);
        let last = batch.settings.until.filter(|_| open);
        self.timers.arm(Timer::Until, last.map(Deadline::Wall));
        let wall = batch.settings.limits.wall.zip(batch.running_since);
        let wall = wall.map(|(limit, since)| since + limit.saturating_sub(batch.ran));
        self.timers.arm(Timer::BatchWall, wall.map(Deadline::Boot));
    }

    /// How many tasks are in a state.
    pub fn count(&self, state: TaskState) -> u32 {
        self.counts[position(state)]
    }

    /// The lowest lane that is free.
    pub(crate) fn free_slot(&self) -> u32 {
        let mut free = 0;
        for &taken in &self.slots {
            if taken != free {
                break;
            }
            free += 1;
        }
        free
    }
}

/// In the set, or not in it.
fn note(set: &mut BTreeSet<TaskIx>, ix: TaskIx, belongs: bool) {
    if belongs {
        set.insert(ix);
    } else {
        set.remove(&ix);
    }
}

/// How many tasks, from the first on, belong to a plan that is whole.
fn whole(facts: &Facts) -> usize {
    let mut tasks = facts.tasks.iter();
    let open = tasks.position(|task| task.state == TaskState::Pending);
    open.filter(|_| !facts.batch.plan_closed)
        .unwrap_or(facts.tasks.len())
}

/// One less; what is at 0 is not in the map, so that equal states have equal indexes.
fn count_down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Each dependency of a task, seen from the task that it is on.
fn backs(facts: &Facts, ix: TaskIx) -> impl Iterator<Item = (TaskIx, Dependency)> + '_ {
    let depends_on = facts.tasks[ix.0 as usize].depends_on.iter();
    depends_on.map(move |dependency| {
        let back = Dependency {
            task: ix,
            condition: dependency.condition,
        };
        (dependency.task, back)
    })
}

/// Tasks with their positions.
pub(crate) fn each(tasks: &[Task]) -> impl Iterator<Item = (TaskIx, &Task)> {
    tasks
        .iter()
        .enumerate()
        .map(|(ix, task)| (TaskIx(u32::try_from(ix).unwrap_or(u32::MAX)), task))
}

/// Place of a state in [`TaskState::ALL`].
pub(crate) fn position(state: TaskState) -> usize {
    state as usize
}

fn ready_key(facts: &Facts, ix: TaskIx) -> ReadyKey {
    let spec = facts.tasks[ix.0 as usize].spec;
    (Reverse(facts.specs[spec.0 as usize].priority), ix)
}

/// Whether a dependency holds nobody up (any more).
pub(crate) fn is_satisfied(facts: &Facts, dependency: Dependency) -> bool {
    let task = &facts.tasks[dependency.task.0 as usize];
    if !task.state.is_terminal() {
        return false;
    }
    let passes = task.reason == TaskReason::NotSelected
        || facts.batch.settings.on_failure == OnFailure::Continue;
    match dependency.condition {
        Condition::Finished => true,
        Condition::Done => task.state == TaskState::Done || passes,
        Condition::Merged => match (task.state, &task.merge) {
            (TaskState::Done, _) if mutation::on(Mutation::EarlyDependents) => true,
            (TaskState::Done, Some(merge)) => {
                merge.state.is_good() || (passes && merge.state == MergeState::Failed)
            }
            (TaskState::Done, None) => true,
            (_, _) => passes,
        },
    }
}

/// Whether a dependency will not be satisfied any more, unless the operator acts.
pub(crate) fn is_hopeless(facts: &Facts, dependency: Dependency) -> bool {
    let task = &facts.tasks[dependency.task.0 as usize];
    if !task.state.is_terminal() || is_satisfied(facts, dependency) {
        return false;
    }
    match (dependency.condition, &task.merge) {
        (Condition::Merged, Some(merge)) if task.state == TaskState::Done => {
            merge.state == MergeState::Failed
        }
        (Condition::Done | Condition::Finished | Condition::Merged, _) => true,
    }
}

/// How many dependencies of a task are not satisfied.
pub(crate) fn unmet(facts: &Facts, task: &Task) -> u32 {
    let open = task
        .depends_on
        .iter()
        .filter(|dependency| !is_satisfied(facts, **dependency));
    u32::try_from(open.count()).unwrap_or(u32::MAX)
}
