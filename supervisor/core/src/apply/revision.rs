//! Records of a plan that changes: what is whole, what an edited batch file says, what it no longer has.

use super::Apply;
use super::batch::{distinct, new_account};
use super::merge::new_repo;
use crate::core::ReplayError;
use crate::facts::Task;
use crate::machine::{AccountState, TaskState};
use crate::plan::{Rules, SpecIx, TaskIx};
use crate::reason::TaskReason;
use crate::record::PlanRevised;

impl Apply<'_> {
    /// Looks at what is new and what was revised, and at nothing else of the batch.
    pub(super) fn plan_closed(&mut self) -> Result<(), ReplayError> {
        let facts = &mut self.state.facts;
        let from = self.state.index.linked;
        let count = u32::try_from(facts.tasks.len()).unwrap_or(u32::MAX);
        let beyond = |task: &Task| task.depends_on.iter().any(|it| it.task.0 >= count);
        if facts.tasks[from..].iter().any(beyond) {
            return Err(self.unknown("dependency"));
        }
        facts.batch.plan_closed = true;
        let all = self.state.facts.tasks.len();
        self.state.index.link(&self.state.facts, all);
        let first = u32::try_from(from).unwrap_or(u32::MAX);
        let mut todo = std::mem::take(&mut self.state.index.unrouted);
        todo.extend((first..count).map(TaskIx));
        for &ix in &todo {
            self.state.index.count_unmet(&self.state.facts, ix);
        }
        for ix in todo {
            self.route(ix)?;
        }
        Ok(())
    }

    /// Sends a new or revised task to where it waits from now on.
    fn route(&mut self, ix: TaskIx) -> Result<(), ReplayError> {
        let held_up = self.state.index.unmet[ix.0 as usize] > 0;
        let held_rightly = self.is_held_rightly(ix);
        let task = self.task(ix)?;
        if task.attempt.is_some() {
            return Ok(());
        }
        match task.state {
            TaskState::Pending | TaskState::Blocked => self.queue(ix),
            // What waits for the end of a backoff goes on waiting.
            TaskState::Ready if held_up || task.next_check.is_none() => self.queue(ix),
            // An agent of another account is not held by the limit of the one before.
            TaskState::Paused if !held_rightly => self.queue(ix),
            TaskState::Ready
            | TaskState::Paused
            | TaskState::Running
            | TaskState::Verifying
            | TaskState::Reviewing
            | TaskState::Waiting
            | TaskState::Done
            | TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Skipped => Ok(()),
        }
    }

    /// Whether a paused task waits for somebody, or for an account that may not be used.
    fn is_held_rightly(&self, ix: TaskIx) -> bool {
        let facts = &self.state.facts;
        let task = &facts.tasks[ix.0 as usize];
        let agent = facts.specs[task.spec.0 as usize].agent;
        let account = facts.agents[agent.0 as usize].account;
        let usable = match facts.accounts[account.0 as usize].state {
            AccountState::Open | AccountState::Probing => true,
            AccountState::Limited | AccountState::Stopped => false,
        };
        let for_account = matches!(
            task.reason,
            TaskReason::AccountLimited | TaskReason::AccountStopped
        );
        !(for_account && usable)
    }

    pub(super) fn plan_revised(&mut self, revised: &PlanRevised) -> Result<(), ReplayError> {
        let facts = &self.state.facts;
        let known = |name: &str| {
            let mut accounts = facts.accounts.iter();
            accounts.position(|account| &*account.spec.name == name)
        };
        let added = revised
            .accounts
            .iter()
            .filter(|it| known(&it.name).is_none());
        let accounts = facts.accounts.len() + added.count();
        if revised.revision != facts.batch.revision + 1 {
            return Err(self.unknown("next revision"));
        }
        if revised.settings.name != facts.batch.settings.name {
            return Err(self.unknown("batch name"));
        }
        let repos = facts.repos.iter().map(|repo| &repo.spec.name);
        let same = revised.repos.iter().map(|spec| &spec.name);
        let keeps =
            revised.repos.len() >= facts.repos.len() && repos.zip(same).all(|(a, b)| a == b);
        if !revised.repos.is_empty() && !keeps {
            return Err(self.unknown("order of repositories"));
        }
        if (revised.agents.iter()).any(|agent| agent.account.0 as usize >= accounts) {
            return Err(self.unknown("account"));
        }
        self.keep_work(revised);
        let facts = &mut self.state.facts;
        for spec in &revised.accounts {
            let mut accounts = facts.accounts.iter_mut();
            match accounts.find(|account| account.spec.name == spec.name) {
                Some(account) => account.spec = spec.clone(),
                None => facts.accounts.push(new_account(spec)),
            }
        }
        facts.agents.extend_from_slice(&revised.agents);
        for (at, spec) in revised.repos.iter().enumerate() {
            match facts.repos.get_mut(at) {
                Some(repo) => repo.spec = spec.clone(),
                None => facts.repos.push(new_repo(spec)),
            }
        }
        let batch = &mut facts.batch;
        batch.revision = revised.revision;
        batch.plan_closed = false;
        let before = std::mem::replace(&mut batch.settings, revised.settings.clone());
        if before.concurrency != batch.settings.concurrency {
            // The newer word of the operator counts.
            batch.lanes = None;
        }
        if before.on_failure != batch.settings.on_failure {
            self.state.index.count_all_unmet(&self.state.facts);
        }
        self.state.index.note_batch(&self.state.facts);
        Ok(())
    }

    /// What is under way goes on with the texts and variables that it began with.
    fn keep_work(&mut self, revised: &PlanRevised) {
        let facts = &mut self.state.facts;
        let work = &facts.batch.settings.work;
        if *work == revised.settings.work {
            return;
        }
        for ix in self.state.index.live.keys() {
            if let Some(attempt) = &mut facts.tasks[ix.0 as usize].attempt {
                attempt.work.get_or_insert_with(|| work.clone());
            }
        }
    }

    pub(super) fn task_revised(&mut self, ix: TaskIx, rules: &Rules) -> Result<(), ReplayError> {
        let facts = &self.state.facts;
        let tasks = facts.tasks.len();
        if rules.spec.0 as usize >= facts.specs.len() {
            return Err(self.unknown("task spec"));
        }
        if (rules.depends_on.iter()).any(|it| it.task.0 as usize >= tasks || it.task == ix) {
            return Err(self.unknown("dependency"));
        }
        let task = self.task(ix)?;
        if task.state == TaskState::Done {
            return Err(self.unknown("task that may be revised"));
        }
        task.removed = false;
        if task.attempt.is_some() {
            task.revised = Some(Box::new(rules.clone()));
            return Ok(());
        }
        self.take_rules(ix, rules)
    }

    /// Puts other rules into force, with everything that is computed from them.
    fn take_rules(&mut self, ix: TaskIx, rules: &Rules) -> Result<(), ReplayError> {
        let facts = &mut self.state.facts;
        let index = &mut self.state.index;
        index.leave(facts, ix);
        index.unlink(facts, ix);
        let drive = |spec: SpecIx| {
            let agent = facts.specs[spec.0 as usize].agent;
            let agent = &facts.agents[agent.0 as usize];
            (&agent.name, agent.kind, &agent.work)
        };
        let other_agent = drive(facts.tasks[ix.0 as usize].spec) != drive(rules.spec);
        let task = &mut facts.tasks[ix.0 as usize];
        task.spec = rules.spec;
        task.item.clone_from(&rules.item);
        task.touches = rules.touches.clone();
        task.depends_on = distinct(&rules.depends_on);
        if other_agent {
            // Another agent can not go on with the conversation of the one before.
            task.session = None;
        }
        index.link_task(facts, ix);
        index.count_unmet(facts, ix);
        index.unrouted.insert(ix);
        index.arrive(facts, ix);
        Ok(())
    }

    /// The end of an attempt: what was said of the task in the meantime is so from now on.
    pub(super) fn take_revised(&mut self, ix: TaskIx, done: bool) -> Result<(), ReplayError> {
        let revised = self.task(ix)?.revised.take();
        // Its lane is given back under the rules that it was taken under.
        self.state.index.note_attempt(&self.state.facts, ix);
        if let Some(rules) = revised.filter(|_| !done) {
            self.take_rules(ix, &rules)?;
            self.state.index.unrouted.remove(&ix);
        }
        Ok(())
    }

    pub(super) fn task_removed(&mut self, ix: TaskIx) -> Result<(), ReplayError> {
        let task = self.task(ix)?;
        if task.state == TaskState::Done || task.removed {
            return Err(self.unknown("task that may be removed"));
        }
        task.removed = true;
        task.revised = None;
        if task.attempt.is_some() || task.state.is_terminal() {
            return Ok(());
        }
        self.end_task(ix, TaskState::Skipped, TaskReason::Removed)
    }
}
