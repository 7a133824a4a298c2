//! Records of runs.

use std::sync::Arc;
use std::time::Duration;

use protocol::command::RunKind;
use protocol::ids::Generation;
use protocol::report::{Capabilities, RunResult, Usage};

use super::Apply;
use crate::containment::Containment;
use crate::core::{Change, ReplayError};
use crate::facts::Footprint;
use crate::identity::Identity;
use crate::machine::{AttemptState, RunState, TaskState};
use crate::plan::TaskIx;
use crate::reason::TaskReason;
use crate::record::StopReason;
use crate::time::Deadline;
use crate::timers::Timer;

impl Apply<'_> {
    pub(super) fn run_intended(
        &mut self,
        generation: Generation,
        ix: TaskIx,
        kind: RunKind,
        token: u128,
    ) -> Result<(), ReplayError> {
        self.check_new_generation(generation)?;
        self.check_task(ix, TaskState::Verifying)?;
        let live = self.task(ix)?.state.is_live();
        self.require(live, "only a live task begins a proof")?;
        self.check_attempt_edge(ix, AttemptState::Proving)?;
        let (seq, now) = (self.entry.seq, self.entry.now.boot);
        let task = self.task(ix)?;
        let Some(attempt) = &mut task.attempt else {
            return Err(ReplayError::Unknown {
                seq,
                what: "open attempt",
            });
        };
        attempt.work_again(now);
        let no = attempt.no;
        attempt.run = generation;
        attempt.proofs += 1;
        if attempt.state != AttemptState::Proving {
            let edge = attempt.state.become_(AttemptState::Proving);
            let edge = edge.map_err(|edge| ReplayError::Edge { seq, edge })?;
            self.changes.push(Change::Attempt(ix, edge));
        }
        let run = super::attempt::new_run(ix, no, kind, token);
        self.state.facts.batch.last_generation = generation;
        self.state.facts.runs.insert(generation, run);
        self.put_task(ix, TaskState::Verifying, TaskReason::Proving, None)
    }

    fn move_run(&mut self, generation: Generation, to: RunState) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let run = self.run(generation)?;
        let edge = run
            .state
            .become_(to)
            .map_err(|edge| ReplayError::Edge { seq, edge })?;
        self.changes.push(Change::Run(generation, edge));
        Ok(())
    }

    pub(super) fn run_spawned(
        &mut self,
        generation: Generation,
        identity: &Identity,
        containment: &Containment,
    ) -> Result<(), ReplayError> {
        if self.run(generation)?.state != RunState::Stopping {
            self.move_run(generation, RunState::Spawned)?;
        }
        let run = self.run(generation)?;
        run.identity = Some(identity.clone());
        run.containment = containment.clone();
        Ok(())
    }

    pub(super) fn run_started(
        &mut self,
        generation: Generation,
        capabilities: Capabilities,
        session: Option<&Arc<str>>,
    ) -> Result<(), ReplayError> {
        if self.run(generation)?.state != RunState::Stopping {
            self.move_run(generation, RunState::Started)?;
        }
        let run = self.run(generation)?;
        run.capabilities = Some(capabilities);
        let (ix, kind) = (run.task, run.kind);
        self.state.facts.batch.spawn_failures = 0;
        if kind == RunKind::Agent && session.is_some() {
            self.task(ix)?.session = session.cloned();
        }
        Ok(())
    }

    pub(super) fn stop_decided(
        &mut self,
        generation: Generation,
        reason: StopReason,
        grace: Duration,
    ) -> Result<(), ReplayError> {
        if self.run(generation)?.state != RunState::Stopping {
            self.move_run(generation, RunState::Stopping)?;
        }
        let deadline = self.entry.now.boot + grace;
        self.run(generation)?.stop = Some((reason, deadline));
        // Without a grace the kill went out with the decision: there is nothing to wait for.
        let over = (!grace.is_zero()).then_some(Deadline::Boot(deadline));
        self.state.index.timers.arm(Timer::Grace(generation), over);
        Ok(())
    }

    pub(super) fn run_finished(
        &mut self,
        generation: Generation,
        result: &Arc<RunResult>,
    ) -> Result<(), ReplayError> {
        if self.run(generation)?.state != RunState::Stopping {
            self.move_run(generation, RunState::Finished)?;
        }
        self.run(generation)?.result = Some(result.clone());
        Ok(())
    }

    pub(super) fn run_ended(
        &mut self,
        generation: Generation,
        footprint: Footprint,
    ) -> Result<(), ReplayError> {
        self.move_run(generation, RunState::Ended)?;
        let Some(run) = self.state.facts.runs.remove(&generation) else {
            return Err(self.unknown("run"));
        };
        self.state.index.timers.arm(Timer::Grace(generation), None);
        let result = run.result;
        let mut used = run.usage;
        if let Some(result) = &result {
            used = larger(used, result.usage);
        }
        let now = self.entry.now.boot;
        let task = self.task(run.task)?;
        task.usage = sum(task.usage, used);
        if let Some(attempt) = &mut task.attempt {
            attempt.waiting_since = Some(now);
            attempt.footprint = attempt.footprint.and(footprint);
        }
        if run.kind == RunKind::Agent {
            if let Some(session) = result.as_ref().and_then(|result| result.session.as_deref()) {
                task.session = Some(session.into());
            }
            if let Some(attempt) = &mut task.attempt {
                attempt.result = result;
            }
        }
        let usage = &mut self.state.facts.batch.usage;
        *usage = sum(*usage, used);
        self.state.index.note_attempt(&self.state.facts, run.task);
        Ok(())
    }

    pub(super) fn usage_noted(
        &mut self,
        generation: Generation,
        usage: Usage,
    ) -> Result<(), ReplayError> {
        let run = self.run(generation)?;
        run.usage = larger(run.usage, usage);
        Ok(())
    }
}

/// Use of two runs together.
pub(crate) fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        turns: a.turns.saturating_add(b.turns),
        tokens: a.tokens.saturating_add(b.tokens),
        cost_micros: a.cost_micros.saturating_add(b.cost_micros),
    }
}

/// The later of two cumulative counts of one run.
pub(crate) fn larger(a: Usage, b: Usage) -> Usage {
    Usage {
        turns: a.turns.max(b.turns),
        tokens: a.tokens.max(b.tokens),
        cost_micros: a.cost_micros.max(b.cost_micros),
    }
}
