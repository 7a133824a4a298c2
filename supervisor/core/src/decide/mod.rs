//! Deciding: one input becomes records and effects.
//!
//! A [`Desk`] holds the state while one input is worked on. Decisions read it freely; they change
//! it only by [`Desk::record`], which goes through the same `apply` as replay.

mod clean;
mod comment;
mod failure;
mod host;
mod mail;
mod merge;
mod merge_again;
mod operator;
mod report;
mod revise;
mod ruling;
mod schedule;
mod settle;
mod start;
mod step;
mod timer;

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::Generation;

use crate::core::{Change, Turn};
use crate::effect::{Answer, Effect, Refusal};
use crate::facts::{Facts, Run, Task};
use crate::index::Index;
use crate::input::{Input, ReplyId};
use crate::live::{LiveRuns, LiveTimer};
use crate::machine::RunState;
use crate::mutation::{self, Mutation};
use crate::plan::{TaskIx, TaskSpec};
use crate::reason::TaskReason;
use crate::record::{Entry, Record, StopReason};
use crate::state::{State, apply};
use crate::time::Now;

/// Grace of stops that the operator did not give one for: time to save a session, short enough to
/// wait for.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The state, while one input is worked on.
pub(crate) struct Desk<'a> {
    state: &'a mut State,
    live: &'a mut LiveRuns,
    now: Now,
    turn: Turn,
    /// Changes up to here have been looked at for what follows from them.
    seen_changes: usize,
    /// Attempts may start, and the batch may be closed, at the end of this turn.
    may_go_on: bool,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(
        state: &'a mut State,
        live: &'a mut LiveRuns,
        now: Now,
        turn: Turn,
        may_go_on: bool,
    ) -> Self {
        Self {
            state,
            live,
            now,
            turn,
            seen_changes: 0,
            may_go_on,
        }
    }

    /// Works one input off, with everything that follows from it.
    pub(crate) fn handle(mut self, input: Input) -> Turn {
        self.dispatch(input);
        self.bury_mail();
        if self.may_go_on {
            self.schedule();
            self.merge();
            // Who depended on a merge that failed is skipped, and its mail with it.
            self.bury_mail();
            self.clean();
            self.comment();
            self.settle();
        }
        self.turn
    }

    fn dispatch(&mut self, input: Input) {
        match input {
            Input::Created(created) => self.created(*created),
            Input::Recovered {
                supervisor,
                guardian,
                build,
                runs,
            } => {
                self.supervisor_started(supervisor, guardian, build);
                self.recovered(runs);
            }
            Input::HostSpawned {
                generation,
                identity,
                containment,
            } => self.host_spawned(generation, identity, containment),
            Input::SpawnFailed {
                generation,
                class,
                error,
            } => self.spawn_failed(generation, class, error),
            Input::HostGreeted { generation } => self.host_greeted(generation),
            Input::HelloRefused { generation, error } => self.hello_refused(generation, error),
            Input::StartFailed { generation, error } => self.start_failed(generation, error),
            Input::HostReported {
                generation,
                claimed,
                event,
            } => {
                self.host_reported(generation, claimed, event);
            }
            Input::HostAsked {
                generation,
                text,
                options,
                reply,
            } => {
                self.host_asked(generation, text, options, reply);
            }
            Input::HostSent {
                generation,
                to,
                text,
                reply,
            } => self.host_sent(generation, to, text, reply),
            Input::HostPonged { generation, pong } => self.host_ponged(generation, pong),
            Input::WireFault { generation, fault } => self.wire_fault(generation, fault),
            Input::HostExited {
                generation,
                exit,
                durable,
                injected,
                cleared,
                oom,
            } => {
                if !self.is_unresolved(generation) {
                    self.run_over(generation, exit, durable, injected, cleared, oom);
                }
                // Some agents say only in their result what they used.
                self.pause_if_spent();
            }
            Input::Tick => self.fire_timers(),
            Input::Operator { reply, command } => self.operator(reply, command),
            Input::Replaced { build, reply } => {
                self.record(Record::SupervisorReplaced { build });
                self.reply(reply, Answer::Done(Vec::new()));
            }
            Input::DiskFailed => self.disk_failed(),
            Input::DiskRecovered => self.disk_recovered(),
        }
    }

    /// Decides a record: applied at once, durable before anything that follows from it is done.
    fn record(&mut self, record: Record) {
        let batch = &self.state.facts.batch;
        let started = if let Record::SupervisorStarted { term, .. } = &record {
            Some(*term)
        } else {
            None
        };
        let term = started.unwrap_or(batch.term);
        let entry = Entry {
            seq: batch.seq + 1,
            term,
            now: self.now,
            record,
        };
        match crate::state::apply_to(self.state, &entry, &mut self.turn.changes) {
            Ok(()) => self.turn.entries.push(entry),
            Err(error) => self.turn.defects.push((error, entry.record)),
        }
    }

    fn effect(&mut self, effect: Effect) {
        if effect.is_urgent() {
            self.turn.urgent.push(effect);
        } else {
            self.turn.effects.push(effect);
        }
    }

    fn reply(&mut self, reply: ReplyId, answer: Answer) {
        self.effect(Effect::Reply { reply, answer });
    }

    fn refuse(&mut self, reply: ReplyId, refusal: Refusal) {
        self.reply(reply, Answer::Refused(refusal));
    }

    fn facts(&self) -> &Facts {
        &self.state.facts
    }

    fn index(&self) -> &Index {
        &self.state.index
    }

    fn task(&self, ix: TaskIx) -> &Task {
        &self.state.facts.tasks[ix.0 as usize]
    }

    fn spec(&self, ix: TaskIx) -> Arc<TaskSpec> {
        self.state.facts.specs[self.task(ix).spec.0 as usize].clone()
    }

    /// Under which rules the task's next attempt would begin.
    fn next_spec(&self, ix: TaskIx) -> Arc<TaskSpec> {
        let task = self.task(ix);
        let spec = task.revised.as_ref().map_or(task.spec, |rules| rules.spec);
        self.state.facts.specs[spec.0 as usize].clone()
    }

    fn run(&self, generation: Generation) -> Option<&Run> {
        self.state.facts.runs.get(&generation)
    }

    /// A run of an earlier term that could not be judged: only the next take-over may rule on it,
    /// no word of a host of this term.
    fn is_unresolved(&self, generation: Generation) -> bool {
        self.live.get(generation).is_none()
            && self.run(generation).is_some_and(|run| {
                run.unresolved || matches!(self.task(run.task).reason, TaskReason::Unresolved(_))
            })
    }

    fn next_generation(&self) -> Generation {
        self.state.facts.batch.last_generation.next()
    }

    fn token(&self, generation: Generation) -> u128 {
        crate::identity::spawn_token(self.state.facts.batch.seed, generation)
    }

    /// Tells a run to end. A later reason replaces an earlier one only if the operator gave it.
    fn stop(&mut self, generation: Generation, reason: StopReason, grace: Duration) {
        let Some(run) = self.run(generation) else {
            return;
        };
        if let Some((before, _)) = run.stop
            && rank(reason) <= rank(before)
            && !grace.is_zero()
        {
            return;
        }
        let reason = match run.stop {
            Some((before, _)) if rank(before) > rank(reason) => before,
            Some(_) | None => reason,
        };
        if !mutation::on(Mutation::LostStopDecision) {
            self.record(Record::StopDecided {
                generation,
                reason,
                grace,
            });
        }
        if grace.is_zero() {
            self.effect(Effect::KillHost { generation });
            self.live.arm(
                generation,
                LiveTimer::Kill,
                Some(self.now.boot + crate::live::KILL_AGAIN),
            );
        } else {
            self.effect(Effect::StopHost { generation, grace });
        }
    }

    /// Messages of tasks that ended in this turn have nobody to go to, and their worktrees nobody to work
    /// in them.
    fn bury_mail(&mut self) {
        while self.seen_changes < self.turn.changes.len() {
            let change = self.turn.changes[self.seen_changes];
            self.seen_changes += 1;
            let ix = match change {
                Change::Task(ix, _) | Change::Merge(ix, _) => ix,
                Change::Batch(_)
                | Change::Attempt(..)
                | Change::Comment(..)
                | Change::Run(..)
                | Change::Message(..)
                | Change::Question(..)
                | Change::Account(..) => continue,
            };
            if !self.task(ix).state.is_terminal() {
                continue;
            }
            self.keep_or_clean(ix);
            if matches!(change, Change::Task(..)) {
                self.tell_end(ix);
            }
            let mail = self.index().mail.get(&ix).cloned().unwrap_or_default();
            for id in mail {
                let to = crate::machine::MessageState::Dead;
                self.record(Record::MessageMoved {
                    id,
                    to,
                    generation: None,
                });
            }
        }
    }

    fn stop_all(&mut self, reason: StopReason, grace: Duration) {
        let runs: Vec<Generation> = self.facts().runs.keys().copied().collect();
        for generation in runs {
            if self.live.get(generation).is_some() || self.is_intended(generation) {
                self.stop(generation, reason, grace);
            }
        }
    }

    /// The run was decided in this term and its host is on the way.
    fn is_intended(&self, generation: Generation) -> bool {
        self.run(generation)
            .is_some_and(|run| run.state == RunState::Intended)
    }
}

/// Which stop outweighs which: what the operator decides about a task outweighs what the core found.
const fn rank(reason: StopReason) -> u8 {
    match reason {
        StopReason::Cancelled => 5,
        StopReason::Killed => 4,
        StopReason::Paused => 3,
        StopReason::Superseded | StopReason::Removed => 2,
        StopReason::Interrupted
        | StopReason::Silence
        | StopReason::NoProgress
        | StopReason::Timeout
        | StopReason::Budget
        | StopReason::NoHello
        | StopReason::Protocol
        | StopReason::Hung
        | StopReason::Lingering
        | StopReason::Question => 1,
    }
}

/// The first record of a batch makes the state; everything else needs one.
pub(crate) fn create(
    state: &mut Option<State>,
    now: Now,
    created: &crate::input::Created,
    turn: &mut Turn,
) {
    let record = Record::BatchCreated(Box::new(crate::record::BatchCreated {
        id: created.id.clone(),
        seed: created.seed,
        settings: created.plan.settings.clone(),
        agents: created.plan.agents.clone(),
        accounts: created.plan.accounts.clone(),
        repos: created.plan.repos.clone(),
    }));
    let entry = Entry {
        seq: 1,
        term: 0,
        now,
        record,
    };
    match apply(state, &entry, &mut turn.changes) {
        Ok(()) => turn.entries.push(entry),
        Err(error) => turn.defects.push((error, entry.record)),
    }
}
