//! What is due, fires; each firing that matters becomes a record.

use std::time::Duration;

use protocol::ids::Generation;

use super::{Desk, GRACE};
use crate::effect::Effect;
use crate::live::{KILL_AGAIN, LEASE, LiveTimer, ping_every};
use crate::machine::{AccountState, BatchState, MessageState, QuestionState, RunState, TaskState};
use crate::plan::{OnQuestion, TaskIx};
use crate::reason::{AccountReason, BatchLimit, BatchReason, TaskReason};
use crate::record::{Record, StopReason};
use crate::timers::Timer;

impl Desk<'_> {
    pub(super) fn fire_timers(&mut self) {
        while let Some(timer) = self.state.index.timers.pop_due(self.now) {
            // The others are armed again when a supervisor goes on with the batch.
            if !self.live.is_confined() || matches!(timer, Timer::Grace(_)) {
                self.fire(timer);
            }
        }
        while let Some((generation, timer)) = self.live.pop_due(self.now.boot) {
            self.fire_live(generation, timer);
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Grace(generation) => {
                self.effect(Effect::KillHost { generation });
                let again = Some(self.now.boot + KILL_AGAIN);
                self.live.arm(generation, LiveTimer::Kill, again);
            }
            Timer::Attempt(ix) => self.attempt_over_time(ix),
            Timer::Question(id) => {
                let Some(question) = self.facts().questions.get(&id) else {
                    return;
                };
                match self.spec(question.task).on_question.clone() {
                    OnQuestion::WaitThenDefault(text) | OnQuestion::Default(text) => {
                        self.settle_question(id, QuestionState::Defaulted, Some(text));
                    }
                    OnQuestion::Wait | OnQuestion::Fail => {
                        self.settle_question(id, QuestionState::Expired, None);
                    }
                }
            }
            Timer::Message(id) => {
                let to = MessageState::Expired;
                self.record(Record::MessageMoved {
                    id,
                    to,
                    generation: None,
                });
            }
            Timer::Account(account) => {
                let (to, reason) = (AccountState::Probing, AccountReason::Reset);
                self.record(Record::AccountMoved {
                    account,
                    to,
                    reason,
                    until: None,
                });
            }
            Timer::Task(ix) => self.task_due(ix),
            Timer::Comment(ix) => self.comment_due(ix),
            // The scheduler asks the date itself.
            Timer::NotBefore => {}
            Timer::Until => {
                let batch = &self.facts().batch;
                if matches!(batch.state, BatchState::Running | BatchState::Paused) {
                    let (to, reason) = (BatchState::Stopping, BatchReason::Until);
                    self.record(Record::BatchMoved { to, reason });
                }
            }
            Timer::BatchWall => self.pause_for_limit(BatchLimit::Wall),
        }
    }

    fn task_due(&mut self, ix: TaskIx) {
        if matches!(self.task(ix).state, TaskState::Blocked | TaskState::Ready) {
            let (to, reason) = (TaskState::Ready, TaskReason::Lane);
            self.record(Record::TaskMoved {
                task: ix,
                to,
                reason,
                next_check: None,
            });
        }
    }

    fn attempt_over_time(&mut self, ix: TaskIx) {
        let Some(attempt) = &self.task(ix).attempt else {
            return;
        };
        let generation = attempt.run;
        // A result that is in counts; only its proof or its host's end is missing, and both have
        // limits of their own.
        let worked = attempt.result.is_some();
        let finished = self.run(generation).is_none_or(|run| run.result.is_some());
        if !worked && !finished {
            self.stop(generation, StopReason::Timeout, GRACE);
        }
    }

    fn fire_live(&mut self, generation: Generation, timer: LiveTimer) {
        match timer {
            LiveTimer::Hello => self.stop(generation, StopReason::NoHello, Duration::ZERO),
            LiveTimer::Ping => {
                self.effect(Effect::Ping { generation });
                let every = self.run(generation).map(|run| self.spec(run.task).silence);
                let next = every.map(|silence| self.now.boot + ping_every(silence));
                self.live.arm(generation, LiveTimer::Ping, next);
            }
            LiveTimer::Silence | LiveTimer::Progress => self.look(generation, timer),
            LiveTimer::Lease => self.look_at_host(generation),
            LiveTimer::Wall => self.stop(generation, StopReason::Timeout, GRACE),
            LiveTimer::Linger => self.stop(generation, StopReason::Lingering, Duration::ZERO),
            LiveTimer::Kill => {
                self.effect(Effect::KillHost { generation });
                let again = Some(self.now.boot + KILL_AGAIN);
                self.live.arm(generation, LiveTimer::Kill, again);
            }
        }
    }

    /// A host that answers nothing for a lease hangs. A person's answer is no excuse: it is the
    /// agent that waits for it.
    fn look_at_host(&mut self, generation: Generation) {
        let working = self
            .run(generation)
            .is_some_and(|run| run.state == RunState::Spawned || run.state == RunState::Started);
        let Some(live) = self.live.get(generation).filter(|_| working) else {
            return;
        };
        let due = live.heard + LEASE;
        if due > self.now.boot {
            self.live.arm(generation, LiveTimer::Lease, Some(due));
        } else {
            self.stop(generation, StopReason::Hung, GRACE);
        }
    }

    /// Silence or standstill, unless it was heard of since, or waits for a person. A limit of silence
    /// that is shorter than the lease holds also for a host that does not answer: nobody can say
    /// that its agent lives.
    fn look(&mut self, generation: Generation, timer: LiveTimer) {
        let Some(run) = self.run(generation) else {
            return;
        };
        if run.state != RunState::Spawned && run.state != RunState::Started {
            return;
        }
        let (ix, spec) = (run.task, self.spec(run.task));
        let Some(live) = self.live.get(generation) else {
            return;
        };
        let (last, limit, reason) = match timer {
            LiveTimer::Silence => (live.alive, spec.silence, StopReason::Silence),
            LiveTimer::Progress => (live.progressed, spec.no_progress, StopReason::NoProgress),
            LiveTimer::Hello
            | LiveTimer::Ping
            | LiveTimer::Lease
            | LiveTimer::Wall
            | LiveTimer::Linger
            | LiveTimer::Kill => return,
        };
        let waits = self.task(ix).state == TaskState::Waiting;
        let due = if waits {
            self.now.boot + limit
        } else {
            last + limit
        };
        if due > self.now.boot {
            self.live.arm(generation, timer, Some(due));
        } else {
            self.stop(generation, reason, GRACE);
        }
    }
}
