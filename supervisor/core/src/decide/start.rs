//! A batch begins, or is taken over.

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::Generation;

use super::Desk;
use crate::identity::{Exit, Identity};
use crate::input::Created;
use crate::machine::{BatchState, TaskState};
use crate::mutation::{self, Mutation};
use crate::plan::{PlannedTask, TaskIx, TaskSpec};
use crate::reason::{BatchLimit, BatchReason, TaskReason};
use crate::reconcile::{Letter, ProcessFact, ResultFact, RunFacts, rule};
use crate::record::{Record, StopReason};
use crate::step::Purpose;

/// Tasks per record of a new plan: keeps a line of the journal well under a mebibyte.
const CHUNK: usize = 500;

impl Desk<'_> {
    pub(super) fn created(&mut self, created: Created) {
        self.may_go_on = false;
        if self.facts().batch.seq != 1 {
            return;
        }
        self.extend(created.plan.specs, created.plan.tasks);
        if !created.only.is_empty() {
            self.select(&created.only);
        }
        self.record(Record::PlanClosed);
    }

    /// Adds to the plan, in pieces that fit into a line of the journal.
    pub(super) fn extend(&mut self, mut specs: Vec<Arc<TaskSpec>>, mut tasks: Vec<PlannedTask>) {
        while !tasks.is_empty() || !specs.is_empty() {
            let later: Vec<PlannedTask> = tasks.split_off(tasks.len().min(CHUNK));
            // A spec must be there before the first task that names it.
            let needed = tasks
                .iter()
                .map(|task| task.spec.0 as usize + 1)
                .max()
                .unwrap_or(CHUNK);
            let known = self.facts().specs.len();
            let more =
                needed
                    .saturating_sub(known)
                    .max(if later.is_empty() { specs.len() } else { 0 });
            let later_specs = specs.split_off(specs.len().min(more));
            self.record(Record::PlanExtended { specs, tasks });
            (tasks, specs) = (later, later_specs);
        }
    }

    fn select(&mut self, only: &[TaskIx]) {
        let mut chosen = vec![false; self.facts().tasks.len()];
        for ix in only {
            if let Some(chosen) = chosen.get_mut(ix.0 as usize) {
                *chosen = true;
            }
        }
        for (at, chosen) in chosen.iter().enumerate().filter(|(_, chosen)| !**chosen) {
            debug_assert!(!chosen);
            let task = TaskIx(u32::try_from(at).unwrap_or(u32::MAX));
            let (to, reason) = (TaskState::Skipped, TaskReason::NotSelected);
            self.record(Record::TaskEnded { task, to, reason });
        }
    }

    pub(super) fn supervisor_started(
        &mut self,
        identity: Identity,
        guardian: Option<Identity>,
        build: Arc<str>,
    ) {
        let term = self.facts().batch.term + 1;
        self.record(Record::SupervisorStarted {
            term,
            identity,
            guardian,
            build,
        });
    }

    pub(super) fn recovered(&mut self, runs: Vec<(Generation, RunFacts)>) {
        self.may_go_on = false;
        for (generation, facts) in runs {
            self.reconcile(generation, facts);
        }
        if self.live.is_confined() {
            return;
        }
        let count = u32::try_from(self.facts().tasks.len()).unwrap_or(u32::MAX);
        for ix in (0..count).map(TaskIx) {
            self.keep_or_clean(ix);
        }
        let batch = &self.facts().batch;
        let stays = match (batch.state, batch.reason) {
            // What was opened again right before a crash is not over.
            (BatchState::Done | BatchState::Failed, _) => self.all_settled(),
            // The operator paused it and has not said otherwise: a crash does not.
            (BatchState::Paused, BatchReason::Operator)
            // Nor does it change what the batch file says of failures.
            | (
                BatchState::Stopping,
                BatchReason::TaskFailed(_)
                | BatchReason::MergeFailed(_)
                | BatchReason::TooManyFailures,
            ) => true,
            (
                BatchState::Running
                | BatchState::Paused
                | BatchState::Stopping
                | BatchState::Interrupted,
                _,
            ) => false,
        };
        if !stays {
            let (to, reason) = (BatchState::Running, BatchReason::Working);
            self.record(Record::BatchMoved { to, reason });
            self.check_limits();
        }
    }

    /// A limit that was reached before is still reached.
    pub(super) fn check_limits(&mut self) {
        if let Some(limit) = self.limit_reached() {
            self.pause_for_limit(limit);
        }
    }

    /// The limit of the batch that is reached, if any.
    pub(super) fn limit_reached(&self) -> Option<BatchLimit> {
        let batch = &self.facts().batch;
        let limits = batch.settings.limits;
        let running = batch.running_since.map_or(Duration::ZERO, |since| {
            Duration::from_millis(self.now.boot.0.saturating_sub(since.0))
        });
        let wall = limits.wall.is_some_and(|wall| batch.ran + running >= wall);
        let wall = wall.then_some(BatchLimit::Wall);
        super::report::reached(limits, batch.usage).or(wall)
    }

    fn reconcile(&mut self, generation: Generation, facts: RunFacts) {
        let Some(run) = self.run(generation) else {
            return;
        };
        let (ix, purpose, state) = (run.task, run.purpose, run.state);
        if facts.process == ProcessFact::Killed {
            self.note_kill(generation);
        }
        let stop = self.run(generation).and_then(|run| run.stop);
        let mut letter = rule(facts.process, &facts.result, state, stop.map(|stop| stop.0));
        if letter == Letter::G && mutation::on(Mutation::DoubleSpawnOnResume) {
            letter = Letter::D;
        }
        self.record(Record::RunReconciled {
            generation,
            letter,
            cleared: facts.cleared.clone(),
        });
        if letter.refuses() {
            let (to, reason) = (TaskState::Paused, TaskReason::Unresolved(letter));
            if matches!(purpose, Purpose::Step(_)) && self.task(ix).state.is_live() {
                self.withdraw_questions(generation);
                self.record(Record::TaskMoved {
                    task: ix,
                    to,
                    reason,
                    next_check: None,
                });
            }
            return;
        }
        if let (Purpose::Step(step), TaskState::Paused) = (purpose, self.task(ix).state) {
            let (to, reason) = step.task_state();
            self.record(Record::TaskMoved {
                task: ix,
                to,
                reason,
                next_check: None,
            });
        }
        let durable = match facts.result {
            ResultFact::Durable(result) => Some(result),
            ResultFact::Absent | ResultFact::Unreadable => None,
        };
        self.run_over(
            generation,
            Exit::Unseen,
            durable,
            facts.injected,
            facts.cleared,
            None,
        );
    }

    /// The operator's kill is decided now, because nobody could when it was carried out; what the
    /// operator decided earlier and outweighs it stays.
    fn note_kill(&mut self, generation: Generation) {
        let reason = StopReason::Killed;
        let before = self.run(generation).and_then(|run| run.stop);
        if before.is_none_or(|(before, _)| super::rank(before) < super::rank(reason)) {
            self.record(Record::StopDecided {
                generation,
                reason,
                grace: Duration::ZERO,
            });
        }
    }

    pub(crate) fn clock_gap(&mut self, gap: Duration) {
        self.record(Record::ClockGap { gap });
        self.live.shift(gap);
    }

    pub(super) fn disk_failed(&mut self) {
        if self.may_work() {
            let (to, reason) = (BatchState::Paused, BatchReason::Disk);
            self.record(Record::BatchMoved { to, reason });
        }
    }

    pub(super) fn disk_recovered(&mut self) {
        let batch = &self.facts().batch;
        let held = batch.state == BatchState::Paused && batch.reason == BatchReason::Disk;
        if held && !self.live.is_confined() {
            let (to, reason) = (BatchState::Running, BatchReason::Working);
            self.record(Record::BatchMoved { to, reason });
        }
    }
}
