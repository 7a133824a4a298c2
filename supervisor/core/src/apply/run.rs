//! Records of runs.

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::git::{GitOutcome, Salvaged};
use protocol::ids::{AttemptNo, Generation};
use protocol::report::{Capabilities, ResultStatus, RunResult, Usage, Verdict};

use super::Apply;
use crate::containment::Containment;
use crate::core::{Change, ReplayError};
use crate::facts::{Footprint, Salvage, Task, Worktree};
use crate::identity::Identity;
use crate::machine::RunState;
use crate::plan::{RetryMode, TaskIx};
use crate::reconcile::Letter;
use crate::record::StopReason;
use crate::step::{CleanStep, Purpose, Step};
use crate::time::Deadline;
use crate::timers::Timer;

impl Apply<'_> {
    pub(super) fn run_intended(
        &mut self,
        generation: Generation,
        ix: TaskIx,
        purpose: Purpose,
        token: u128,
    ) -> Result<(), ReplayError> {
        self.check_new_generation(generation)?;
        let no = match purpose {
            Purpose::Step(step) => self.step_run(ix, step, generation)?,
            Purpose::Merge(repo, stage) => {
                self.round_run(repo, stage, ix, generation)?;
                self.task(ix)?.attempts
            }
            Purpose::Clean(step) => {
                self.clean_run(ix, step, generation)?;
                self.task(ix)?.attempts
            }
            Purpose::Comment(on) => self.comment_run(ix, on, generation)?,
        };
        let run = super::attempt::new_run(ix, no, purpose, token);
        self.state.facts.batch.last_generation = generation;
        self.state.facts.runs.insert(generation, run);
        match purpose {
            Purpose::Step(step) => {
                let (state, reason) = step.task_state();
                self.put_task(ix, state, reason, None)
            }
            Purpose::Merge(..) | Purpose::Clean(_) | Purpose::Comment(_) => Ok(()),
        }
    }

    /// A run of a step of the open attempt begins.
    fn step_run(
        &mut self,
        ix: TaskIx,
        step: Step,
        generation: Generation,
    ) -> Result<AttemptNo, ReplayError> {
        self.check_task(ix, step.task_state().0)?;
        let live = self.task(ix)?.state.is_live();
        self.require(live, "only a live task goes on to another step")?;
        if self.task(ix)?.attempt.is_none() {
            return Err(self.unknown("open attempt"));
        }
        let to = step.attempt_state();
        self.check_attempt_edge(ix, to)?;
        let due = self.is_due(ix, step);
        self.require(due, "steps follow each other in their order")?;
        let (seq, now) = (self.entry.seq, self.entry.now.boot);
        let task = self.task(ix)?;
        let Some(attempt) = &mut task.attempt else {
            return Err(ReplayError::Unknown {
                seq,
                what: "open attempt",
            });
        };
        // What comes after the agent has limits of its own.
        if step <= Step::Work {
            attempt.work_again(now);
        }
        attempt.run = generation;
        attempt.step_runs = if attempt.step == step && !attempt.step_done {
            attempt.step_runs + 1
        } else {
            1
        };
        (attempt.step, attempt.step_done) = (step, false);
        if step == Step::Work {
            // Sent back: the word on it is said anew.
            (attempt.result, attempt.verdict) = (None, None);
        }
        let no = attempt.no;
        if attempt.state != to {
            let edge = attempt.state.become_(to);
            let edge = edge.map_err(|edge| ReplayError::Edge { seq, edge })?;
            self.changes.push(Change::Attempt(ix, edge));
        }
        Ok(no)
    }

    /// Whether a run of this step may follow the last one.
    fn is_due(&self, ix: TaskIx, step: Step) -> bool {
        let task = &self.state.facts.tasks[ix.0 as usize];
        let Some(attempt) = &task.attempt else {
            return false;
        };
        let ended = !self.state.facts.runs.contains_key(&attempt.run);
        let sent_back = attempt.step == Step::Review && attempt.verdict == Some(Verdict::Revise);
        let follows = match (attempt.step_done, sent_back) {
            (false, _) => step == attempt.step && step != Step::Work,
            (true, false) => step > attempt.step,
            (true, true) => matches!(step, Step::BeforeRun | Step::Work),
        };
        // What a fresh attempt finds is put aside before anything is made in its place.
        let kept =
            step != Step::Provision || attempt.mode != RetryMode::Fresh || task.worktree.is_none();
        ended && follows && kept
    }

    /// What was found of a run after a crash; where nobody could tell, it stays.
    pub(super) fn run_reconciled(
        &mut self,
        generation: Generation,
        letter: Letter,
    ) -> Result<(), ReplayError> {
        self.run(generation)?.unresolved = letter.refuses();
        Ok(())
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
        let (ix, purpose) = (run.task, run.purpose);
        self.state.facts.batch.spawn_failures = 0;
        if purpose == Purpose::Step(Step::Work) && session.is_some() {
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
        let task = self.task(run.task)?;
        task.usage = sum(task.usage, used);
        match run.purpose {
            Purpose::Step(step) => self.step_ended(run.task, step, result, footprint)?,
            Purpose::Merge(repo, _) => {
                if let Some(round) = &mut self.repo(repo)?.round {
                    round.run = None;
                }
            }
            Purpose::Clean(step) => {
                let task = self.task(run.task)?;
                if let Some(clean) = &mut task.clean {
                    clean.run = None;
                }
                let said = result.as_ref().map(|result| result.class);
                let cut_off = said.is_none_or(|class| class == Some(Class::Lost));
                if let Some(worktree) = &mut task.worktree {
                    worktree.going |= cut_off && step == CleanStep::Remove;
                }
                let outcome = result.as_ref().and_then(|result| result.git.as_deref());
                if let Some(GitOutcome::Salvaged(done)) = outcome {
                    put_aside(task, done);
                }
            }
            Purpose::Comment(_) => {
                if let Some(comment) = self.task(run.task)?.comments.first_mut() {
                    comment.run = None;
                }
            }
        }
        let usage = &mut self.state.facts.batch.usage;
        *usage = sum(*usage, used);
        self.state.index.note_attempt(&self.state.facts, run.task);
        Ok(())
    }

    /// A run of an attempt's step is over: what it leaves for the steps that follow.
    fn step_ended(
        &mut self,
        ix: TaskIx,
        step: Step,
        result: Option<Arc<RunResult>>,
        footprint: Footprint,
    ) -> Result<(), ReplayError> {
        let now = self.entry.now.boot;
        let spec = self.task(ix)?.spec;
        let spec = self.state.facts.specs[spec.0 as usize].clone();
        let task = self.task(ix)?;
        let Some(attempt) = &mut task.attempt else {
            return Ok(());
        };
        attempt.waiting_since.get_or_insert(now);
        attempt.footprint = attempt.footprint.and(footprint);
        let Some(result) = result else {
            return Ok(());
        };
        attempt.step_done = step.is_done(&spec, &result);
        match step {
            Step::Work => {
                if let Some(session) = result.session.as_deref() {
                    task.session = Some(session.into());
                }
                attempt.result = Some(result);
            }
            Step::AfterCreate => {
                if let Some(worktree) = task.worktree.as_mut().filter(|_| attempt.step_done) {
                    worktree.hooked = true;
                }
            }
            Step::Review => {
                attempt.verdict = result.verdict.filter(|_| result.status == ResultStatus::Ok);
                attempt.notes = Some(result.summary.as_str().into());
                if attempt.verdict == Some(Verdict::Revise) {
                    attempt.rounds += 1;
                }
            }
            Step::Salvage | Step::Provision | Step::Commit => git_done(task, result.git.as_deref()),
            Step::Fetch | Step::BeforeRun | Step::AfterRun | Step::Prove | Step::Checkout => {}
        }
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

/// Notes a salvage. One that is told again, because there is nothing else to salvage, is noted once.
fn put_aside(task: &mut Task, done: &Salvaged) {
    let salvage = Salvage {
        reference: done.reference.as_str().into(),
        commit: done.commit.clone(),
    };
    if !task.salvaged.contains(&salvage) {
        task.salvaged.push(salvage);
    }
}

/// What git work did for a task.
fn git_done(task: &mut Task, outcome: Option<&GitOutcome>) {
    match outcome {
        Some(GitOutcome::Provisioned(made)) => {
            let before = task.worktree.take();
            task.worktree = Some(Worktree {
                base: made.base.clone(),
                hooked: before.as_ref().is_some_and(|before| before.hooked) && !made.made,
                going: false,
                commit: before.and_then(|before| before.commit),
            });
        }
        Some(GitOutcome::Committed(done)) => {
            if let Some(attempt) = &mut task.attempt {
                attempt.commit = Some(done.commit.clone());
                attempt.files = done.files;
            }
            if let Some(worktree) = &mut task.worktree {
                worktree.commit = Some(done.commit.clone());
            }
        }
        Some(GitOutcome::Salvaged(done)) => {
            put_aside(task, done);
            // The conversation was about what is gone now.
            (task.worktree, task.session) = (None, None);
        }
        Some(
            GitOutcome::Removed(_)
            | GitOutcome::CheckedOut {}
            | GitOutcome::Merged(_)
            | GitOutcome::Conflicted(_)
            | GitOutcome::Concluded(_)
            | GitOutcome::Advanced {}
            | GitOutcome::Restored(_)
            | GitOutcome::Predicted(_)
            | GitOutcome::Integrated(_)
            | GitOutcome::BuildOutput(_),
        )
        | None => {}
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
