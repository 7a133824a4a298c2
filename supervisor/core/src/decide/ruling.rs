//! A run is over: what that means for its attempt and its task.

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::ids::{Generation, MessageId};
use protocol::report::RunResult;

use super::Desk;
use super::failure::{Failure, HUNG, ends_task, failed, fault_text, silent, vanished};
use crate::containment::Cleared;
use crate::facts::Footprint;
use crate::identity::Exit;
use crate::live::Live;
use crate::machine::{AccountState, BatchState, MessageState, RunState, TaskState};
use crate::mutation::{self, Mutation};
use crate::plan::{AccountIx, AutoResume, MaxFailures, OnFailure, RetryMode, TaskIx};
use crate::reason::{AccountReason, BatchReason, TaskReason};
use crate::record::{AttemptEnded, Next, Record, StopReason};
use crate::retry::{self, Group};
use crate::step::{Purpose, Step};
use crate::time::{Deadline, Wall};

/// Spawn failures in a row, over all tasks, after which nothing can be expected to start.
pub(crate) const SPAWN_FAILURES_MAX: u32 = 5;
/// Attempts in a row that an overloaded model may end before the next one is tried: with the waits of
/// its account between them a few minutes.
const OVERLOADS_MAX: u32 = 3;
/// A reset time further away than this is not believed (a service's clock or unit is wrong).
const RESET_MAX: Duration = Duration::from_secs(8 * 24 * 60 * 60);

impl Desk<'_> {
    /// A host is gone, now or while nobody watched.
    pub(super) fn run_over(
        &mut self,
        generation: Generation,
        exit: Exit,
        durable: Option<Box<RunResult>>,
        injected: Vec<MessageId>,
        cleared: Cleared,
        oom: Option<Arc<str>>,
    ) {
        let Some(run) = self.run(generation) else {
            return;
        };
        let (ix, purpose, noted) = (run.task, run.purpose, run.usage);
        let stop = run.stop.map(|(reason, _)| reason);
        // Its identity is durable before its gate opens: a result without one is not of this run.
        let begun = run.state != RunState::Intended;
        let counts = begun
            && (stop.is_none_or(StopReason::late_result_counts)
                || mutation::on(Mutation::LateResultAfterCancel));
        if let (None, true, Some(result)) = (&run.result, counts, durable) {
            self.record(Record::RunFinished {
                generation,
                result: Arc::new(*result),
            });
        }
        let proven = self.run(generation).is_some_and(|run| run.result.is_some());
        self.settle_mail(generation, &injected, proven);
        self.withdraw_questions(generation);
        let live = self.live.remove(generation);
        if let Some(live) = live.as_ref().filter(|live| live.usage != noted) {
            self.record(Record::UsageNoted {
                generation,
                usage: live.usage,
            });
        }
        // Recorded means that it counts: it came before the stop, or after one that allows it.
        let result = self.run(generation).and_then(|run| run.result.clone());
        self.record(Record::RunEnded {
            generation,
            exit,
            injected,
            cleared,
            footprint: footprint(live.as_ref(), result.as_deref()),
        });
        match purpose {
            Purpose::Step(step) => {
                let gone = || vanished(exit, live.as_ref(), oom);
                self.attempt_run_over(ix, step, result, stop, live.as_ref(), gone);
            }
            Purpose::Merge(repo, stage) => match result {
                Some(result) => self.stage_over(repo, stage, &result),
                None => {
                    let failure = vanished(exit, live.as_ref(), oom);
                    self.stage_broken(repo, stage, stop, failure);
                }
            },
            Purpose::Clean(step) => match result {
                Some(result) => self.clean_over(ix, step, &result),
                None => {
                    let failure = vanished(exit, live.as_ref(), oom);
                    self.clean_broken(ix, step, stop, &failure);
                }
            },
            Purpose::Comment(on) => match result {
                Some(result) => self.comment_over(ix, on, &result),
                None => {
                    let failure = vanished(exit, live.as_ref(), oom);
                    self.comment_broken(ix, on, stop, &failure);
                }
            },
        }
    }

    /// A run of the open attempt is over.
    fn attempt_run_over(
        &mut self,
        ix: TaskIx,
        step: Step,
        result: Option<Arc<RunResult>>,
        stop: Option<StopReason>,
        live: Option<&Live>,
        gone: impl FnOnce() -> Failure,
    ) {
        match (step, result, stop) {
            // What the operator ended goes no further, unless nothing more was to be done.
            (_, Some(result), Some(reason))
                if ends_task(reason) && (!self.is_last(ix, step) || failed(&result)) =>
            {
                self.stopped(ix, reason, None);
            }
            (_, Some(result), _) => self.step_over(ix, step, &result),
            (Step::Work, None, Some(reason)) => self.stopped(ix, reason, live),
            (_, None, Some(reason)) => self.step_stopped(ix, step, reason),
            (Step::Work, None, None) => self.fail(ix, gone()),
            (_, None, None) => self.step_again(ix, step, gone()),
        }
    }

    /// Messages that were handed to the run and not settled.
    fn settle_mail(&mut self, generation: Generation, injected: &[MessageId], proven: bool) {
        let Some(run) = self.run(generation) else {
            return;
        };
        let mail = self
            .index()
            .mail
            .get(&run.task)
            .cloned()
            .unwrap_or_default();
        let sent: Vec<MessageId> = mail
            .into_iter()
            .filter(|id| {
                let message = &self.facts().messages[id];
                message.state == MessageState::Sent && message.generation == Some(generation)
            })
            .collect();
        for id in sent {
            let repeat = mutation::on(Mutation::DoubleInjection);
            let to = match (injected.contains(&id) && !repeat, proven) {
                (false, _) => MessageState::Queued,
                (true, true) => MessageState::Injected,
                (true, false) => MessageState::Uncertain,
            };
            self.record(Record::MessageMoved {
                id,
                to,
                generation: Some(generation),
            });
        }
    }

    /// An agent run without a result that counts was told to end.
    pub(super) fn stopped(&mut self, ix: TaskIx, reason: StopReason, live: Option<&Live>) {
        if let (StopReason::NoHello, Some((class, detail))) =
            (reason, live.and_then(|live| live.refused.clone()))
        {
            self.fail(
                ix,
                Failure {
                    class,
                    detail,
                    reset: None,
                },
            );
            return;
        }
        let class = Some(reason.class());
        let retry = |mode| Next::Retry { mode, at: None };
        let hold = |reason| Next::Hold {
            reason,
            mode: RetryMode::Resume,
        };
        let (detail, next) = match reason {
            StopReason::Interrupted => ("stopped with the batch", retry(RetryMode::Resume)),
            StopReason::Superseded => ("restarted for a message", retry(RetryMode::NewSession)),
            StopReason::Paused => ("paused by the operator", hold(TaskReason::Operator)),
            StopReason::Killed => ("killed by the operator", hold(TaskReason::Killed)),
            StopReason::Cancelled => (
                "cancelled by the operator",
                Next::End {
                    to: TaskState::Cancelled,
                    reason: TaskReason::CancelledByOperator,
                },
            ),
            // Where the batch file has it again by now, it goes on.
            StopReason::Removed => ("no longer in the batch file", retry(RetryMode::Resume)),
            StopReason::Silence => {
                let detail = silent(live, self.spec(ix).silence);
                return self.overdue(ix, reason, detail);
            }
            StopReason::Hung => return self.overdue(ix, reason, HUNG),
            StopReason::NoProgress => return self.overdue(ix, reason, "alive, but nothing new"),
            StopReason::Timeout => return self.overdue(ix, reason, "over its wall time"),
            StopReason::Budget => return self.overdue(ix, reason, "over a limit of its task"),
            StopReason::Lingering => return self.overdue(ix, reason, "its host did not end"),
            StopReason::Question => {
                return self.overdue(ix, reason, "it asked, and `on_question: fail` forbids that");
            }
            StopReason::NoHello => {
                let broken = live.is_some_and(|live| live.wire_faults > 0);
                let class = if broken {
                    Class::Protocol
                } else {
                    Class::SpawnFailure
                };
                self.fail(ix, Failure::new(class, "its host sent no hello in time"));
                return;
            }
            StopReason::Protocol => {
                let detail = live
                    .and_then(|live| live.broken)
                    .map_or("broke the wire", fault_text);
                return self.overdue(ix, reason, detail);
            }
        };
        self.end_attempt(ix, class, detail.into(), next);
    }

    fn overdue(&mut self, ix: TaskIx, reason: StopReason, detail: &str) {
        self.fail(ix, Failure::new(reason.class(), detail));
    }

    pub(super) fn done(&mut self, ix: TaskIx) {
        self.resolve_probe(ix, None);
        let next = Next::End {
            to: TaskState::Done,
            reason: TaskReason::Proven,
        };
        self.end_attempt(ix, None, "".into(), next);
    }

    pub(super) fn end_attempt(
        &mut self,
        ix: TaskIx,
        class: Option<Class>,
        detail: Arc<str>,
        next: Next,
    ) {
        self.end_attempt_with(ix, class, detail, next, None);
    }

    fn end_attempt_with(
        &mut self,
        ix: TaskIx,
        class: Option<Class>,
        detail: Arc<str>,
        next: Next,
        model: Option<u32>,
    ) {
        let Some(attempt) = &self.task(ix).attempt else {
            return;
        };
        let attempt = attempt.no;
        let next = match next {
            Next::Retry { mode, at } => Next::Retry {
                mode: self.mode_again(ix, mode),
                at,
            },
            Next::Hold { reason, mode } => Next::Hold {
                reason,
                mode: self.mode_again(ix, mode),
            },
            Next::End { to, reason } => Next::End { to, reason },
        };
        let next = self.keep_hold(ix, next);
        let next = self.end_removed(ix, next);
        let consumed = class.is_some_and(retry::consumes);
        let ended = AttemptEnded {
            task: ix,
            attempt,
            class,
            consumed,
            detail,
            next,
            model,
        };
        self.record(Record::AttemptEnded(ended));
        self.follow_failure(ix);
    }

    /// The operator paused the task while it ran: whatever would let it go on by itself waits.
    fn keep_hold(&self, ix: TaskIx, next: Next) -> Next {
        let mode = match next {
            Next::Retry { mode, .. }
            | Next::Hold {
                reason: TaskReason::AccountLimited | TaskReason::AccountStopped,
                mode,
            } if self.task(ix).hold => mode,
            Next::Retry { .. } | Next::Hold { .. } | Next::End { .. } => return next,
        };
        let reason = TaskReason::Operator;
        Next::Hold { reason, mode }
    }

    /// Rules on a failed attempt by the class table.
    pub(super) fn fail(&mut self, ix: TaskIx, failure: Failure) {
        let class = match retry::group(failure.class) {
            Group::Chosen => Class::AgentFailed,
            Group::Work
            | Group::Account
            | Group::AccountStop
            | Group::Operator
            | Group::OurSide
            | Group::Lost => failure.class,
        };
        self.resolve_probe(ix, Some(class));
        let model = self.next_model(ix, class);
        let mut next = match model {
            None => self.next_after(ix, class),
            Some(_) => Next::Retry {
                mode: retry::mode(&self.next_spec(ix).retry, class, self.task(ix).consumed),
                at: None,
            },
        };
        let (mut class, mut detail) = (class, failure.detail);
        if matches!(next, Next::Retry { .. }) && self.is_spent(ix) {
            next = Next::End {
                to: TaskState::Failed,
                reason: TaskReason::Failed(Class::Budget),
            };
            if class != Class::Budget {
                detail = format!("its task has used up a limit; this attempt: {class}: {detail}")
                    .as_str()
                    .into();
                class = Class::Budget;
            }
        }
        let model = model.filter(|_| matches!(next, Next::Retry { .. }));
        self.end_attempt_with(ix, Some(class), detail, next, model);
        match retry::group(class) {
            // The other model may well be free.
            Group::Account if model.is_some() => {}
            Group::Account => self.limit_account(self.account_of(ix), class, failure.reset),
            Group::AccountStop => self.stop_account(self.account_of(ix), class),
            Group::OurSide => self.count_spawn_failures(),
            Group::Work | Group::Operator | Group::Lost | Group::Chosen => {}
        }
    }

    /// The model with which a task goes on after a failure that is its model's, where its agent has
    /// one more.
    fn next_model(&self, ix: TaskIx, class: Class) -> Option<u32> {
        let task = self.task(ix);
        let overloaded = class == Class::Overload && task.overloads + 1 >= OVERLOADS_MAX;
        let gives_up = overloaded || matches!(class, Class::ModelMissing | Class::Refused);
        let next = task.model + 1;
        let agent = &self.facts().agents[self.next_spec(ix).agent.0 as usize];
        let has_one = usize::try_from(next).is_ok_and(|next| next < agent.models.len());
        (gives_up && has_one).then_some(next)
    }

    /// Whether a task has used up one of its limits since it was last opened: then no attempt of it
    /// starts, whatever its rules for retries say.
    pub(super) fn is_spent(&self, ix: TaskIx) -> bool {
        super::report::reached(self.next_spec(ix).limits, self.task(ix).spent()).is_some()
    }

    fn next_after(&self, ix: TaskIx, class: Class) -> Next {
        let task = self.task(ix);
        let spec = self.next_spec(ix);
        let used = task.consumed + u32::from(retry::consumes(class));
        let max = task.attempts_max.unwrap_or(spec.attempts);
        let mode = retry::mode(&spec.retry, class, used);
        let end = |reason| Next::End {
            to: TaskState::Failed,
            reason,
        };
        let wait = |nth| {
            let seed = self.facts().batch.seed
                ^ retry::mix(u64::from(ix.0) << 32 | u64::from(task.attempts.0));
            let length = retry::backoff(spec.retry.backoff_min, spec.retry.backoff_max, nth, seed);
            Next::Retry {
                mode,
                at: Some(Deadline::Boot(self.now.boot + length)),
            }
        };
        match retry::group(class) {
            Group::Work | Group::Chosen => {
                let over = used >= max || mode == RetryMode::Stop;
                if over {
                    end(TaskReason::Failed(class))
                } else {
                    wait(used)
                }
            }
            Group::Account if self.stops_account(self.account_of(ix), class) => Next::Hold {
                reason: TaskReason::AccountStopped,
                mode,
            },
            Group::Account => Next::Hold {
                reason: TaskReason::AccountLimited,
                mode,
            },
            Group::AccountStop => Next::Hold {
                reason: TaskReason::AccountStopped,
                mode,
            },
            Group::Operator => Next::Hold {
                reason: TaskReason::NeedsOperator(class),
                mode,
            },
            Group::OurSide if task.free_retries + 1 >= retry::FREE_RETRIES_MAX => {
                end(TaskReason::Failed(class))
            }
            Group::OurSide => wait(task.free_retries + 1),
            Group::Lost if used >= max => end(TaskReason::Failed(class)),
            Group::Lost if task.lost + 1 >= self.facts().batch.settings.lost_max => {
                end(TaskReason::Quarantined)
            }
            Group::Lost => Next::Retry { mode, at: None },
        }
    }

    pub(super) fn limit_account(&mut self, account: AccountIx, class: Class, reset: Option<Wall>) {
        let facts = &self.facts().accounts[account.0 as usize];
        let (state, nth) = (facts.state, facts.limited + 1);
        if self.stops_account(account, class) {
            self.stop_account(account, class);
            return;
        }
        if !matches!(state, AccountState::Open | AccountState::Probing) {
            return;
        }
        let now = self.now;
        let seed = self.facts().batch.seed ^ u64::from(account.0) << 48;
        let length = retry::backoff(retry::ACCOUNT_WAIT_MIN, retry::ACCOUNT_WAIT_MAX, nth, seed);
        let until = self
            .believed(reset)
            .map_or(Deadline::Boot(now.boot + length), Deadline::Wall);
        let (to, reason) = (AccountState::Limited, AccountReason::Class(class));
        self.record(Record::AccountMoved {
            account,
            to,
            reason,
            until: Some(until),
        });
    }

    /// A reset time that a service named, where it makes sense.
    pub(super) fn believed(&self, reset: Option<Wall>) -> Option<Wall> {
        let now = self.now.wall;
        reset.filter(|at| *at > now && *at < now + RESET_MAX)
    }

    /// Whether a usage limit of this account waits for the operator.
    fn stops_account(&self, account: AccountIx, class: Class) -> bool {
        let rule = self.facts().accounts[account.0 as usize].spec.auto_resume;
        class == Class::UsageLimit && rule != AutoResume::Always
    }

    pub(super) fn stop_account(&mut self, account: AccountIx, class: Class) {
        if self.facts().accounts[account.0 as usize].state != AccountState::Stopped {
            let (to, reason) = (AccountState::Stopped, AccountReason::Class(class));
            self.record(Record::AccountMoved {
                account,
                to,
                reason,
                until: None,
            });
        }
    }

    /// A probing attempt ended: anything but the limit itself says that the limit is over.
    fn resolve_probe(&mut self, ix: TaskIx, class: Option<Class>) {
        let told = match class.map(retry::group) {
            None | Some(Group::Work) => true,
            Some(
                Group::Account
                | Group::AccountStop
                | Group::Operator
                | Group::OurSide
                | Group::Lost
                | Group::Chosen,
            ) => false,
        };
        let run = self
            .task(ix)
            .attempt
            .as_ref()
            .filter(|attempt| attempt.probe && attempt.step >= Step::Work && told);
        let account = self.account_of(ix);
        let state = self.facts().accounts[account.0 as usize].state;
        if run.is_some() && state == AccountState::Probing {
            let (to, reason) = (AccountState::Open, AccountReason::ProbeWentWell);
            self.record(Record::AccountMoved {
                account,
                to,
                reason,
                until: None,
            });
        }
    }

    /// What a task's failure does to the batch.
    pub(super) fn follow_failure(&mut self, ix: TaskIx) {
        if self.task(ix).state == TaskState::Failed {
            self.stop_for(BatchReason::TaskFailed(ix));
        }
    }

    /// What a failure does to the batch; `first` is the reason where the batch file says to stop at the
    /// first one.
    pub(super) fn stop_for(&mut self, first: BatchReason) {
        let batch = &self.facts().batch;
        if !matches!(batch.state, BatchState::Running | BatchState::Paused) {
            return;
        }
        let reason = match batch.settings.on_failure {
            OnFailure::Stop => first,
            OnFailure::SkipDependents | OnFailure::Continue if self.too_many_failed() => {
                BatchReason::TooManyFailures
            }
            OnFailure::SkipDependents | OnFailure::Continue => return,
        };
        self.record(Record::BatchMoved {
            to: BatchState::Stopping,
            reason,
        });
    }

    /// Whether more tasks failed than the batch file allows; done work that is not merged, and will not be,
    /// failed too.
    pub(super) fn too_many_failed(&self) -> bool {
        let index = self.index();
        let failed = u64::from(index.count(TaskState::Failed)) + index.unmerged.len() as u64;
        let all = self.facts().tasks.len() as u64;
        match self.facts().batch.settings.max_failures {
            None => false,
            Some(MaxFailures::Count(max)) => failed > u64::from(max),
            Some(MaxFailures::Percent(max)) => failed * 100 > u64::from(max) * all,
        }
    }

    fn count_spawn_failures(&mut self) {
        let batch = &self.facts().batch;
        let nothing = batch.spawn_failures >= SPAWN_FAILURES_MAX && self.live.is_empty();
        if nothing && self.may_work() {
            let (to, reason) = (BatchState::Stopping, BatchReason::NothingStarts);
            self.record(Record::BatchMoved { to, reason });
        }
    }
}

/// What the family of a run used: as its result says, else as it was last heard.
fn footprint(live: Option<&Live>, result: Option<&RunResult>) -> Footprint {
    let heard = live.map(|live| live.pong.family);
    let told = result.and_then(|result| result.family);
    let all = heard.into_iter().chain(told);
    all.fold(Footprint::default(), |sum, family| Footprint {
        memory_peak_bytes: sum.memory_peak_bytes.max(family.memory_peak_bytes),
        cpu_ms: sum.cpu_ms.max(family.cpu_ms),
    })
}
