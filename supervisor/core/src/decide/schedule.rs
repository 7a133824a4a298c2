//! Who may start next. Looks at the heads of the ready queues only, never at the whole batch.

use protocol::ids::Generation;

use super::Desk;
use crate::effect::Effect;
use crate::machine::{AccountState, TaskState};
use crate::plan::{AgentIx, RetryMode, TaskIx};
use crate::reason::TaskReason;
use crate::record::{AttemptStarted, Record};
use crate::time::Deadline;
use crate::timers::Timer;

impl Desk<'_> {
    /// Goes on with open attempts, then fills free lanes.
    pub(super) fn schedule(&mut self) {
        self.continue_idle();
        self.wait_for_date();
        // A record that was refused would be decided again for ever.
        while let Some(ix) = self
            .next_to_start()
            .filter(|_| self.turn.defects.is_empty())
        {
            if self.index().unmet[ix.0 as usize] > 0 {
                self.wait_for_dependency(ix);
                continue;
            }
            if self.is_spent(ix) {
                self.fail_spent(ix);
                continue;
            }
            match self.touch_holder(ix) {
                Some(holder) => {
                    let (to, reason) = (TaskState::Blocked, TaskReason::Touches(holder));
                    self.record(Record::TaskMoved {
                        task: ix,
                        to,
                        reason,
                        next_check: None,
                    });
                }
                None => self.start_attempt(ix),
            }
        }
    }

    /// The task has used up a limit in attempts that ended for other reasons.
    fn fail_spent(&mut self, ix: TaskIx) {
        self.record(Record::TaskEnded {
            task: ix,
            to: TaskState::Failed,
            reason: TaskReason::Failed(protocol::class::Class::Budget),
        });
        self.follow_failure(ix);
        self.bury_mail();
    }

    /// A dependency was reopened while the task ran or was held, and the task is to run again: what
    /// holds for tasks that were not tried yet holds for it.
    pub(super) fn wait_for_dependency(&mut self, ix: TaskIx) {
        let record = match self.failed_dependency(ix) {
            Some(failed) => Record::TaskEnded {
                task: ix,
                to: TaskState::Skipped,
                reason: TaskReason::DependencyFailed(failed),
            },
            None => Record::TaskMoved {
                task: ix,
                to: TaskState::Blocked,
                reason: TaskReason::Dependencies,
                next_check: None,
            },
        };
        self.record(record);
        self.bury_mail();
    }

    /// A dependency that is over and did not end as it should have.
    pub(super) fn failed_dependency(&self, ix: TaskIx) -> Option<TaskIx> {
        let facts = self.facts();
        let failed = self.task(ix).depends_on.iter().find(|dependency| {
            let on = &facts.tasks[dependency.task.0 as usize];
            on.state.is_terminal() && crate::index::is_hopeless(facts, **dependency)
        });
        failed.map(|dependency| dependency.task)
    }

    /// Open attempts whose last run is over: the proof is due.
    fn continue_idle(&mut self) {
        if self.index().idle.is_empty() || !self.may_prove() {
            return;
        }
        let idle: Vec<TaskIx> = self.index().idle.iter().copied().collect();
        for ix in idle {
            self.continue_attempt(ix);
        }
        self.bury_mail();
    }

    /// The wall clock may have been set back over a date that had come: it comes again.
    fn wait_for_date(&mut self) {
        let batch = &self.facts().batch;
        let running = self.may_work();
        let date = batch.settings.not_before;
        let date = date.filter(|at| running && *at > self.now.wall);
        if let Some(at) = date {
            let timers = &mut self.state.index.timers;
            timers.arm(Timer::NotBefore, Some(Deadline::Wall(at)));
        }
    }

    fn next_to_start(&self) -> Option<TaskIx> {
        let facts = self.facts();
        let batch = &facts.batch;
        let late = |at: Option<crate::time::Wall>| at.is_some_and(|at| at <= self.now.wall);
        let early = |at: Option<crate::time::Wall>| at.is_some_and(|at| at > self.now.wall);
        let settings = &batch.settings;
        let lanes = batch.lanes() as usize;
        if !self.may_work()
            || !batch.plan_closed
            || batch.term == 0
            || early(settings.not_before)
            || late(settings.until)
            || self.index().live.len() >= lanes
        {
            return None;
        }
        let heads = self.index().ready.iter().filter_map(|(agent, ready)| {
            let head = ready.first()?;
            self.has_lane(*agent).then_some(*head)
        });
        heads.min().map(|(_, ix)| ix)
    }

    /// Whether the agent and its account allow one more attempt.
    pub(super) fn has_lane(&self, agent: AgentIx) -> bool {
        let facts = self.facts();
        let spec = &facts.agents[agent.0 as usize];
        let account = &facts.accounts[spec.account.0 as usize];
        let live = self.index().live_by_agent.get(&spec.name);
        let live = live.copied().unwrap_or(0);
        let shared = self
            .index()
            .live_by_account
            .get(&spec.account)
            .copied()
            .unwrap_or(0);
        let open = match account.state {
            AccountState::Open => true,
            AccountState::Probing => !self.is_probed(spec.account),
            AccountState::Limited | AccountState::Stopped => false,
        };
        open && spec.concurrency.is_none_or(|max| live < max)
            && account.spec.concurrency.is_none_or(|max| shared < max)
    }

    /// Whether an attempt is finding out about the account right now.
    fn is_probed(&self, account: crate::plan::AccountIx) -> bool {
        self.index().live.keys().any(|ix| {
            let probes = self
                .task(*ix)
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.probe);
            probes && self.account_of(*ix) == account
        })
    }

    /// A live task that touches the same files.
    fn touch_holder(&self, ix: TaskIx) -> Option<TaskIx> {
        let touches = &self.task(ix).touches;
        if touches.is_empty() {
            return None;
        }
        let repo = self.next_spec(ix).worktree;
        let mut live = self.index().live.keys();
        live.find(|other| {
            let same = self.spec(**other).worktree == repo;
            same && crate::touches::any_overlap(touches, &self.task(**other).touches)
        })
        .copied()
    }

    fn start_attempt(&mut self, ix: TaskIx) {
        let generation: Generation = self.next_generation();
        let task = self.task(ix);
        let resumes = task.mode == RetryMode::Resume && task.session.is_none();
        // Without a session there is nothing to resume: the next best is said, not pretended.
        let mode = if resumes {
            RetryMode::NewSession
        } else {
            task.mode
        };
        let account = self.account_of(ix);
        let probe = self.facts().accounts[account.0 as usize].state == AccountState::Probing;
        let started = AttemptStarted {
            task: ix,
            attempt: task.attempts.next(),
            slot: self.index().free_slot(),
            mode,
            step: super::step::first(task, &self.spec(ix), mode),
            generation,
            token: self.token(generation),
            probe,
        };
        self.record(Record::AttemptStarted(started));
        self.effect(Effect::SpawnHost { generation });
    }
}
