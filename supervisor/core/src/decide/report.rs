//! What a host says of its run.

use std::sync::Arc;
use std::time::Duration;

use protocol::command::{Pong, RunKind};
use protocol::ids::{Generation, MessageId, QuestionId};
use protocol::report::{Event, RunResult, Started, Usage, excerpt};

use super::{Desk, GRACE};
use crate::effect::{Answer, Effect, Refusal};
use crate::facts::Facts;
use crate::input::{ReplyId, WireFault};
use crate::live::{CPU_ALIVE_MS, Gate, LINGER_MAX, LiveTimer, QUESTIONS_MAX};
use crate::machine::{AccountState, BatchState, MessageState, QuestionState, RunState};
use crate::mutation::{self, Mutation};
use crate::plan::{OnQuestion, TaskIx};
use crate::reason::{AccountReason, BatchLimit, BatchReason};
use crate::record::{Record, StopReason};
use crate::step::{CommentOn, Purpose, Step};
use crate::time::Deadline;

/// Shortest time between two usage records of one run: a crash forgets at most this much use.
const NOTE_EVERY: Duration = Duration::from_secs(5);
/// Longest activity text kept for status, bytes.
const ACTIVITY_MAX: usize = 200;

impl Desk<'_> {
    pub(super) fn host_reported(
        &mut self,
        generation: Generation,
        claimed: Generation,
        event: Event,
    ) {
        if self.run(generation).is_none() {
            self.reopen_by_mutation();
            return;
        }
        let now = self.now.boot;
        let Some(live) = self.live.get_mut(generation) else {
            return;
        };
        live.heard = now;
        let stale = claimed != generation && !mutation::on(Mutation::NoGenerationCheck);
        if stale || live.gate != Gate::Open {
            self.wire_fault(generation, WireFault::Garbage);
            return;
        }
        live.alive = now;
        if is_new(&event) {
            live.progressed = now;
        }
        if let Some(text) = activity(&event) {
            live.activity = excerpt(&text, ACTIVITY_MAX).into();
        }
        self.note_event(generation, event);
    }

    /// Only with a planted bug: a late word brings an ended task back.
    fn reopen_by_mutation(&mut self) {
        if !mutation::on(Mutation::ReopenedTerminal) {
            return;
        }
        let ended = crate::index::each(&self.facts().tasks)
            .find(|(_, task)| task.state == crate::machine::TaskState::Failed);
        if let Some((task, _)) = ended {
            let (to, reason) = (
                crate::machine::TaskState::Blocked,
                crate::reason::TaskReason::Reopened,
            );
            self.record(Record::TaskMoved {
                task,
                to,
                reason,
                next_check: None,
            });
        }
    }

    fn note_event(&mut self, generation: Generation, event: Event) {
        match event {
            Event::Started(started) => self.run_started(generation, started),
            Event::Result(result) => self.run_result(generation, *result),
            Event::Usage(usage) => self.note_usage(generation, usage),
            Event::Context(context) => {
                if let Some(live) = self.live.get_mut(generation) {
                    live.context = Some(context);
                }
            }
            Event::MessageInjected { id } => self.climb(generation, id, MessageState::Injected),
            Event::MessageSeen { id } => self.climb(generation, id, MessageState::Seen),
            Event::AssistantMessage(_) | Event::ToolCall(_) => self.probe_went_well(generation),
            Event::PromptSent {}
            | Event::ToolResult(_)
            | Event::RateLimited(_)
            | Event::Retry(_)
            | Event::Compaction(_)
            | Event::Progress(_)
            | Event::Reply(_)
            | Event::Escalation(_)
            | Event::ProcessSpawned(_)
            | Event::TurnEnded {}
            | Event::Notice(_) => {}
        }
    }

    fn run_started(&mut self, generation: Generation, started: Started) {
        let Some(run) = self.run(generation) else {
            return;
        };
        if run.capabilities.is_some() || run.result.is_some() {
            self.wire_fault(generation, WireFault::Garbage);
            return;
        }
        let (kind, stopping) = (run.kind(), run.state == RunState::Stopping);
        let session = started.session.map(Arc::from);
        let capabilities = started.capabilities;
        self.record(Record::RunStarted {
            generation,
            capabilities,
            session,
        });
        if kind == RunKind::Agent && !stopping {
            self.deliver_queued(generation);
        }
    }

    fn run_result(&mut self, generation: Generation, result: RunResult) {
        let Some(run) = self.run(generation) else {
            return;
        };
        if run.result.is_some() {
            self.wire_fault(generation, WireFault::Garbage);
            return;
        }
        let counts = run
            .stop
            .is_none_or(|(reason, _)| reason.late_result_counts());
        if !counts && !mutation::on(Mutation::LateResultAfterCancel) {
            return;
        }
        self.record(Record::RunFinished {
            generation,
            result: Arc::new(result),
        });
        self.live.arm(generation, LiveTimer::Silence, None);
        self.live.arm(generation, LiveTimer::Progress, None);
        self.live.arm(generation, LiveTimer::Lease, None);
        self.live.arm(generation, LiveTimer::Wall, None);
        let linger = self.now.boot + LINGER_MAX;
        self.live.arm(generation, LiveTimer::Linger, Some(linger));
    }

    /// A message climbs; rungs that were passed without a word are filled in.
    fn climb(&mut self, generation: Generation, id: MessageId, to: MessageState) {
        let Some(message) = self.facts().messages.get(&id) else {
            return;
        };
        if message.generation != Some(generation) {
            return;
        }
        let steps: &[MessageState] = match (message.state, to) {
            (MessageState::Sent, MessageState::Injected) => &[MessageState::Injected],
            (MessageState::Sent, _) => &[MessageState::Injected, MessageState::Seen],
            (MessageState::Injected, MessageState::Seen) => &[MessageState::Seen],
            (
                MessageState::Queued
                | MessageState::Injected
                | MessageState::Seen
                | MessageState::Expired
                | MessageState::Dead
                | MessageState::Uncertain,
                _,
            ) => &[],
        };
        for to in steps {
            let generation = Some(generation);
            self.record(Record::MessageMoved {
                id,
                to: *to,
                generation,
            });
        }
    }

    pub(super) fn host_ponged(&mut self, generation: Generation, pong: Pong) {
        let now = self.now.boot;
        let Some(live) = self.live.get_mut(generation) else {
            return;
        };
        live.heard = now;
        let printed = pong.output_bytes > live.pong.output_bytes;
        if printed {
            live.progressed = now;
        }
        let (family, before) = (pong.family, live.pong.family);
        let worked = family.cpu_ms >= live.cpu_counted_ms.saturating_add(CPU_ALIVE_MS);
        if worked {
            live.cpu_counted_ms = family.cpu_ms;
        }
        // A compiler without a word is no stall; it is nothing new either.
        if printed || worked || family.begun > before.begun {
            live.alive = now;
        }
        live.pong = pong;
    }

    fn note_usage(&mut self, generation: Generation, usage: Usage) {
        self.probe_went_well(generation);
        let Some(run) = self.run(generation) else {
            return;
        };
        let ix = run.task;
        let before = run.usage;
        let Some(live) = self.live.get_mut(generation) else {
            return;
        };
        live.usage = usage;
        if usage != before
            && live
                .usage_noted
                .is_none_or(|at| self.now.boot >= at + NOTE_EVERY)
        {
            live.usage_noted = Some(self.now.boot);
            self.record(Record::UsageNoted { generation, usage });
        }
        let spec = self.spec(ix);
        let spent = crate::apply::sum(self.task(ix).spent(), usage);
        if reached(spec.limits, spent).is_some() {
            self.stop(generation, StopReason::Budget, GRACE);
        }
        self.pause_if_spent();
    }

    /// Looks at what ended runs used and at what live ones say that they used, noted or not.
    pub(super) fn pause_if_spent(&mut self) {
        let Facts { batch, runs, .. } = self.facts();
        let live = runs.iter().map(|(generation, run)| {
            let said = self.live.get(*generation);
            said.map_or(run.usage, |live| {
                crate::apply::larger(run.usage, live.usage)
            })
        });
        let all = live.fold(batch.usage, crate::apply::sum);
        if let Some(limit) = reached(batch.settings.limits, all) {
            self.pause_for_limit(limit);
        }
    }

    /// A limit of the batch: no attempt starts, and agents are stopped to go on later. Proofs go on
    /// and those that are due begin ([`may_prove`](Self::may_prove)): what is done is not left
    /// unproven for want of a budget that its proof does not use.
    pub(super) fn pause_for_limit(&mut self, limit: BatchLimit) {
        if !self.may_work() {
            return;
        }
        let (to, reason) = (BatchState::Paused, BatchReason::Limit(limit));
        self.record(Record::BatchMoved { to, reason });
        self.stop_agents();
    }

    /// A probing attempt works: its account's limit is over.
    pub(super) fn probe_went_well(&mut self, generation: Generation) {
        let Some(run) = self.run(generation) else {
            return;
        };
        // Another agent's account says nothing of the worker's.
        let worker = run.purpose == Purpose::Step(Step::Work);
        let probe = self
            .task(run.task)
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.probe);
        let account = self.account_of(run.task);
        let state = self.facts().accounts[account.0 as usize].state;
        if worker && probe && state == AccountState::Probing {
            let (to, reason) = (AccountState::Open, AccountReason::ProbeWentWell);
            self.record(Record::AccountMoved {
                account,
                to,
                reason,
                until: None,
            });
        }
    }

    pub(super) fn account_of(&self, ix: TaskIx) -> crate::plan::AccountIx {
        let agent = self.spec(ix).agent;
        self.facts().agents[agent.0 as usize].account
    }

    pub(super) fn host_asked(
        &mut self,
        generation: Generation,
        text: Arc<str>,
        options: Vec<Arc<str>>,
        reply: ReplyId,
    ) {
        let live = self.live.get_mut(generation);
        let open = live.is_some_and(|live| {
            live.heard = self.now.boot;
            live.gate == Gate::Open
        });
        let asks = self
            .run(generation)
            .filter(|run| open && run.kind() == RunKind::Agent && run.state == RunState::Started);
        let Some(run) = asks else {
            let text = "only a run that has started may ask".into();
            self.refuse(reply, Refusal::WrongState(text));
            return;
        };
        let task = run.task;
        let spec = self.spec(task);
        if let Some(live) = self.live.get_mut(generation) {
            live.alive = self.now.boot;
            if live.asked >= QUESTIONS_MAX {
                let text = format!("a run may ask {QUESTIONS_MAX} questions").into();
                self.refuse(reply, Refusal::WrongState(text));
                self.wire_fault(generation, WireFault::Garbage);
                return;
            }
            live.asked += 1;
            live.progressed = self.now.boot;
        }
        let id = self.facts().batch.last_question.next();
        let deadline = Deadline::Boot(self.now.boot + spec.question_timeout);
        self.record(Record::QuestionOpened {
            id,
            task,
            generation,
            text,
            options,
            deadline,
        });
        self.reply(reply, Answer::Asked(id));
        match &spec.on_question {
            OnQuestion::Wait | OnQuestion::WaitThenDefault(_) => {
                self.tell(task, CommentOn::Question(id));
            }
            OnQuestion::Default(text) => {
                self.settle_question(id, QuestionState::Defaulted, Some(text.clone()));
            }
            OnQuestion::Fail => self.stop(generation, StopReason::Question, GRACE),
        }
    }

    /// Settles a question and tells the host that asked.
    pub(super) fn settle_question(
        &mut self,
        id: QuestionId,
        to: QuestionState,
        answer: Option<Arc<str>>,
    ) {
        let Some(question) = self.facts().questions.get(&id) else {
            return;
        };
        let generation = question.generation;
        if question.state != QuestionState::Open {
            return;
        }
        self.record(Record::QuestionMoved {
            id,
            to,
            answer: answer.clone(),
        });
        if let Some(live) = self.live.get_mut(generation) {
            live.alive = self.now.boot;
            live.progressed = self.now.boot;
        }
        self.effect(Effect::AnswerHost {
            generation,
            question: id,
            text: answer,
        });
    }

    /// The run that asked is over.
    pub(super) fn withdraw_questions(&mut self, generation: Generation) {
        let open = self
            .index()
            .questions
            .get(&generation)
            .cloned()
            .unwrap_or_default();
        for id in open {
            let to = QuestionState::Withdrawn;
            self.record(Record::QuestionMoved {
                id,
                to,
                answer: None,
            });
        }
    }
}

/// The first limit that is reached.
pub(super) fn reached(limits: crate::plan::Limits, used: Usage) -> Option<BatchLimit> {
    let over = |limit: Option<u64>, used: u64| limit.is_some_and(|limit| used >= limit);
    if over(limits.turns, used.turns) {
        Some(BatchLimit::Turns)
    } else if over(limits.tokens, used.tokens) {
        Some(BatchLimit::Tokens)
    } else if over(limits.cost_micros, used.cost_micros) {
        Some(BatchLimit::Cost)
    } else {
        None
    }
}

/// Whether an event is something new, beyond a sign of life.
fn is_new(event: &Event) -> bool {
    match event {
        Event::Started(_)
        | Event::PromptSent {}
        | Event::AssistantMessage(_)
        | Event::ToolCall(_)
        | Event::ToolResult(_)
        | Event::Usage(_)
        | Event::Compaction(_)
        | Event::Progress(_)
        | Event::Reply(_)
        | Event::Escalation(_)
        | Event::MessageInjected { .. }
        | Event::MessageSeen { .. }
        | Event::TurnEnded {}
        | Event::Result(_) => true,
        Event::Context(_)
        | Event::RateLimited(_)
        | Event::Retry(_)
        | Event::ProcessSpawned(_)
        | Event::Notice(_) => false,
    }
}

/// What an event says that the agent does now.
fn activity(event: &Event) -> Option<String> {
    match event {
        Event::Started(_) => Some("started".to_owned()),
        Event::PromptSent {} => Some("thinking".to_owned()),
        Event::AssistantMessage(said) => Some(said.text.clone()),
        Event::ToolCall(tool) => Some(format!("{}: {}", tool.name, tool.detail)),
        Event::Progress(progress) => Some(match progress.percent {
            Some(percent) => format!("{percent}% {}", progress.text),
            None => progress.text.clone(),
        }),
        Event::RateLimited(limited) => Some(format!("rate limited: {}", limited.detail)),
        Event::Retry(said) => Some(format!("retries: {}", said.text)),
        Event::Compaction(_) => Some("compacts its context".to_owned()),
        Event::Reply(said) | Event::Escalation(said) | Event::Notice(said) => {
            Some(said.text.clone())
        }
        Event::TurnEnded {} => Some("turn ended".to_owned()),
        Event::Result(_) => Some("ending".to_owned()),
        Event::ToolResult(_)
        | Event::Usage(_)
        | Event::Context(_)
        | Event::MessageInjected { .. }
        | Event::MessageSeen { .. }
        | Event::ProcessSpawned(_) => None,
    }
}
