//! The judge's rules for single records, and for how a supervisor ends.

use std::collections::BTreeMap;

use protocol::ids::{Generation, MessageId};
use supervisor_core::core::{Change, Core};
use supervisor_core::effect::Ending;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::live::LEASE;
use supervisor_core::machine::{AccountState, BatchState, MergeState, MessageState, TaskState};
use supervisor_core::plan::{Condition, OnFailure, TaskIx};
use supervisor_core::reason::{BatchReason, TaskReason};
use supervisor_core::record::{AttemptStarted, Entry, Record, StopReason};
use supervisor_core::step::Purpose;
use supervisor_core::time::{Now, Wall, millis};

use super::git::Git;
use super::oracle::Oracle;
use super::reached::Reached;
use super::world::{Told, broken};

/// What two bookkeepers of time may differ by, ms: each step rounds.
const CLOCK_STEP: u64 = 50;

impl Oracle {
    /// One record: judged against the state before it, then applied.
    pub(super) fn entry(
        &mut self,
        core: &mut Core,
        entry: &Entry,
        now: Now,
        (reached, git): (&mut Reached, &mut Git),
        changes: &mut Vec<Change>,
    ) -> Told {
        if entry.now != now {
            return broken("a record carries its moment", format!("#{}", entry.seq));
        }
        self.record(core, entry, now, reached)?;
        if let Some(facts) = core.facts() {
            self.delivery(facts, &entry.record, reached, git)?;
        }
        let stepped = match core.replay(entry) {
            Ok(stepped) => stepped,
            Err(error) => return broken("a journal replays", format!("{error:?}")),
        };
        let Some(facts) = core.facts() else {
            return Ok(());
        };
        for change in &stepped {
            self.change(facts, entry, change)?;
        }
        changes.extend(stepped);
        Ok(())
    }

    fn record(&mut self, core: &Core, entry: &Entry, now: Now, reached: &mut Reached) -> Told {
        let Some(facts) = core.facts() else {
            return Ok(());
        };
        match &entry.record {
            Record::SupervisorStarted { term, .. } => {
                let last = std::mem::replace(&mut self.terms, *term);
                if *term != last + 1 || entry.term != *term {
                    return broken("I6 the term grows by one", format!("{term} after {last}"));
                }
            }
            Record::AttemptStarted(started) => self.attempt_started(facts, started, now)?,
            Record::RunIntended {
                generation,
                task,
                purpose,
                ..
            } => {
                let known = &facts.tasks[task.0 as usize];
                if matches!(purpose, Purpose::Step(_)) && known.attempt.is_none() {
                    return broken("a run belongs to an open attempt", format!("{generation}"));
                }
                self.run_decided(*generation, *task, known.attempts, *purpose);
            }
            Record::StopDecided {
                generation, reason, ..
            } => {
                reached.stop(*reason);
                self.stop_decided(facts, *generation, *reason)?;
            }
            Record::RunFinished { generation, .. } => self.run_finished(*generation)?,
            Record::RunReconciled { letter, .. } => reached.letter(*letter),
            Record::AttemptEnded(ended) => {
                if let Some(class) = ended.class {
                    reached.class(class);
                }
                self.attempt_ended(facts, ended)?;
            }
            Record::QuestionMoved { id, .. } => {
                if let Some(question) = facts.questions.get(id) {
                    self.question_moved(question.generation);
                }
            }
            Record::BatchMoved {
                to: BatchState::Stopping,
                reason:
                    BatchReason::TaskFailed(_)
                    | BatchReason::MergeFailed(_)
                    | BatchReason::TooManyFailures,
            } => self.failed_batch = true,
            Record::QuestionOpened { generation, .. } => self.question_moved(*generation),
            Record::RoundBegan { .. }
            | Record::RoundMoved { .. }
            | Record::RoundEnded { .. }
            | Record::MergeMoved { .. }
            | Record::CleanMoved { .. }
            | Record::CommentMoved { .. }
            | Record::CleanEnded { .. } => {}
            Record::PlanRevised(_)
            | Record::PlanExtended { .. }
            | Record::TaskRevised { .. }
            | Record::TaskRemoved { .. } => self.revised(facts, &entry.record, reached)?,
            Record::Reopened { task, .. } => {
                // By `retry`, or because the file has it again: the operator's newer word.
                self.lowered.remove(task);
                self.held.remove(task);
            }
            Record::BatchCreated(_)
            | Record::PlanClosed
            | Record::ClockGap { .. }
            | Record::BatchMoved { .. }
            | Record::TaskMoved { .. }
            | Record::RunSpawned { .. }
            | Record::RunStarted { .. }
            | Record::RunEnded { .. }
            | Record::TaskEnded { .. }
            | Record::MessageQueued { .. }
            | Record::MessageMoved { .. }
            | Record::AccountMoved { .. }
            | Record::UsageNoted { .. }
            | Record::SupervisorReplaced { .. }
            | Record::ConcurrencySet { .. } => {}
        }
        Ok(())
    }

    fn attempt_started(&mut self, facts: &Facts, started: &AttemptStarted, now: Now) -> Told {
        self.run_decided(
            started.generation,
            started.task,
            started.attempt,
            Purpose::Step(started.step),
        );
        self.attempts.insert(started.task, (0, 0));
        self.breaks_no_promise(started.task)?;
        self.may_start(facts, started.task, now)?;
        self.begins_under(facts, started.task)?;
        self.caps(facts, started)
    }

    /// Order, dates, and what holds the batch.
    fn may_start(&self, facts: &Facts, ix: TaskIx, now: Now) -> Told {
        let (task, settings) = (&facts.tasks[ix.0 as usize], &facts.batch.settings);
        let spec = &facts.specs[task.spec.0 as usize];
        let no = |rule, text: String| broken(rule, format!("t{}: {text}", ix.0));
        if facts.batch.state != BatchState::Running {
            return no(
                "nothing starts in a batch that does not run",
                facts.batch.state.to_string(),
            );
        }
        let early = |at: Option<Wall>| at.is_some_and(|at| at > now.wall);
        if early(settings.not_before) {
            return no(
                "nothing starts before its date",
                format!("{:?}", settings.not_before),
            );
        }
        if settings.until.is_some_and(|at| at <= now.wall) {
            return no(
                "nothing starts after the last date",
                format!("{:?}", settings.until),
            );
        }
        for dependency in &task.depends_on {
            let on = &facts.tasks[dependency.task.0 as usize];
            let met = match dependency.condition {
                Condition::Finished => on.state.is_terminal(),
                Condition::Done | Condition::Merged => {
                    let merged = on.merge.as_ref().is_none_or(|it| it.state.is_good());
                    let waits = dependency.condition == Condition::Merged;
                    (on.state == TaskState::Done && (merged || !waits))
                        || (on.state.is_terminal()
                            && on.merge.as_ref().is_none_or(|it| it.state.is_settled())
                            && (settings.on_failure == OnFailure::Continue
                                || on.reason == TaskReason::NotSelected))
                }
            };
            if !met {
                return no(
                    "dependencies come first",
                    format!("on t{}, {}", dependency.task.0, on.state),
                );
            }
        }
        let used = task.consumed;
        let max = task.attempts_max.unwrap_or(spec.attempts);
        if used >= max && !self.lowered.contains(&ix) {
            return no(
                "attempts never exceed the limit",
                format!("{used} of {max} used"),
            );
        }
        Ok(())
    }

    /// Concurrency and files.
    fn caps(&self, facts: &Facts, started: &AttemptStarted) -> Told {
        let ix = started.task;
        let agent_of =
            |task: &supervisor_core::facts::Task| facts.specs[task.spec.0 as usize].agent;
        let account_of = |task| facts.agents[agent_of(task).0 as usize].account;
        let live: Vec<_> = facts
            .tasks
            .iter()
            .filter(|task| task.attempt.is_some())
            .collect();
        let task = &facts.tasks[ix.0 as usize];
        let (agent, account) = (agent_of(task), account_of(task));
        let name_of = |task| &facts.agents[agent_of(task).0 as usize].name;
        let name = name_of(task);
        let of_agent = live.iter().filter(|it| name_of(it) == name).count();
        let of_account = live.iter().filter(|it| account_of(it) == account).count();
        let agent_max = facts.agents[agent.0 as usize].concurrency;
        let account_facts = &facts.accounts[account.0 as usize];
        let over = |count: usize, max: Option<u32>| max.is_some_and(|max| count >= max as usize);
        if over(live.len(), Some(facts.batch.lanes())) {
            return broken(
                "the batch's concurrency holds",
                format!("{} live", live.len()),
            );
        }
        if over(of_agent, agent_max) || over(of_account, account_facts.spec.concurrency) {
            return broken(
                "agent and account concurrency hold",
                format!("{of_agent} {of_account}"),
            );
        }
        let usable = match account_facts.state {
            AccountState::Open => !started.probe,
            AccountState::Probing => started.probe,
            AccountState::Limited | AccountState::Stopped => false,
        };
        if !usable {
            return broken(
                "a limited account is not used",
                format!("{}", account_facts.state),
            );
        }
        let slots: Vec<u32> = live
            .iter()
            .filter_map(|it| it.attempt.as_ref().map(|attempt| attempt.slot))
            .collect();
        if slots.contains(&started.slot) {
            return broken("a lane has one attempt", format!("slot {}", started.slot));
        }
        let repo_of = |task: &Task| facts.specs[task.spec.0 as usize].worktree;
        let shared = live
            .iter()
            .filter(|it| repo_of(it) == repo_of(task))
            .find(|it| it.touches.iter().any(|glob| task.touches.contains(glob)));
        if let Some(other) = shared {
            return broken(
                "tasks that touch the same files exclude each other",
                format!("t{} and {}", ix.0, other.id),
            );
        }
        Ok(())
    }

    fn stop_decided(&mut self, facts: &Facts, generation: Generation, reason: StopReason) -> Told {
        let Some(known) = facts.runs.get(&generation) else {
            return Ok(());
        };
        let task = &facts.tasks[known.task.0 as usize];
        let spec = &facts.specs[task.spec.0 as usize];
        let Some(run) = self.runs.get_mut(&generation) else {
            return Ok(());
        };
        let repeated = run.stop == Some(reason);
        run.stop = Some(reason);
        if repeated {
            return Ok(());
        }
        let worked = self
            .attempts
            .get(&known.task)
            .copied()
            .unwrap_or((u64::MAX, 0));
        let (passed, slack, limit) = match reason {
            StopReason::Silence => (run.quiet, run.slack, spec.silence),
            StopReason::NoProgress => (run.still, run.slack, spec.no_progress),
            StopReason::Hung => (run.unheard, run.slack, LEASE),
            StopReason::Timeout => (worked.0, worked.1, spec.timeout),
            StopReason::Budget
            | StopReason::NoHello
            | StopReason::Protocol
            | StopReason::Lingering
            | StopReason::Question
            | StopReason::Superseded
            | StopReason::Paused
            | StopReason::Killed
            | StopReason::Cancelled
            | StopReason::Removed
            | StopReason::Interrupted => return Ok(()),
        };
        if passed.saturating_add(slack + CLOCK_STEP) < millis(limit) {
            let text = format!("{reason:?} of run {generation} after {passed} ms of {limit:?}");
            return broken("I11 sleep and clock jumps fire nothing", text);
        }
        if task.state == TaskState::Waiting && reason != StopReason::Hung {
            return broken(
                "I11 what waits for a person does not stall",
                format!("{reason:?} of run {generation}"),
            );
        }
        Ok(())
    }

    fn run_finished(&mut self, generation: Generation) -> Told {
        let Some(run) = self.runs.get_mut(&generation) else {
            return Ok(());
        };
        match run.stop {
            Some(stop) if !stop.late_result_counts() => broken(
                "I6 a result after this stop does not count",
                format!("{stop:?} of run {generation}"),
            ),
            Some(_) | None => {
                run.first = true;
                Ok(())
            }
        }
    }

    /// One step of a machine, with the state after it.
    fn change(&mut self, facts: &Facts, entry: &Entry, change: &Change) -> Told {
        match change {
            Change::Task(ix, edge) => {
                let was_over = matches!(edge.from, "done" | "failed" | "cancelled" | "skipped");
                // By `retry` of the task, or of a merge for whose failure it was skipped.
                let to = MergeState::Queued;
                let merged = matches!(entry.record, Record::MergeMoved { to: it, .. } if it == to);
                let reopened = matches!(entry.record, Record::Reopened { .. })
                    || (merged && edge.from == TaskState::Skipped.word());
                if was_over && !reopened {
                    return broken(
                        "I5 terminal is left only by reopening",
                        format!("t{} {edge:?}", ix.0),
                    );
                }
                let task = &facts.tasks[ix.0 as usize];
                let done = edge.to == TaskState::Done.word();
                let proven = matches!(entry.record, Record::AttemptEnded(_));
                if done
                    && !proven
                    && !(task.reason == TaskReason::AsDone && self.as_done.contains(ix))
                {
                    return broken(
                        "I5 done needs a result and its proof",
                        format!("t{} by {:?}", ix.0, entry.record),
                    );
                }
                Ok(())
            }
            Change::Message(id, edge) => self.message_changed(*id, edge.from, edge.to),
            Change::Batch(_)
            | Change::Attempt(..)
            | Change::Merge(..)
            | Change::Comment(..)
            | Change::Run(..)
            | Change::Question(..)
            | Change::Account(..) => Ok(()),
        }
    }

    fn message_changed(&self, id: MessageId, from: &str, to: &str) -> Told {
        let injected = self.injections.contains_key(&id);
        let claims = to == MessageState::Injected.word() || to == MessageState::Seen.word();
        if claims
            && !injected
            && from != MessageState::Injected.word()
            && !self.seen_lies.contains(&id)
        {
            return broken(
                "I8 a rung is never claimed without proof",
                format!("{id} {to}"),
            );
        }
        let gone = to == MessageState::Dead.word() || to == MessageState::Expired.word();
        if gone && injected {
            return broken(
                "I8 what an agent got is not called dead",
                format!("{id} {to}"),
            );
        }
        Ok(())
    }

    /// How a supervisor ended by itself must be the truth.
    pub(super) fn finished(
        &self,
        core: &Core,
        ending: Ending,
        owned: &[Generation],
        now: Now,
    ) -> Told {
        let Some(facts) = core.facts() else {
            return Ok(());
        };
        let unresolved = |generation: &Generation| {
            let task = facts
                .runs
                .get(generation)
                .map(|run| &facts.tasks[run.task.0 as usize]);
            let run = facts.runs.get(generation).is_some_and(|run| run.unresolved);
            run || task.is_some_and(|task| matches!(task.reason, TaskReason::Unresolved(_)))
        };
        if let Some(left) = owned.iter().find(|generation| !unresolved(generation)) {
            return broken(
                "no host is left behind",
                format!("run {left} at {ending:?}"),
            );
        }
        let mut counts: BTreeMap<TaskState, usize> = BTreeMap::new();
        for task in &facts.tasks {
            *counts.entry(task.state).or_default() += 1;
        }
        let count = |state| counts.get(&state).copied().unwrap_or(0);
        let merge = |task: &Task| task.merge.as_ref().map(|merge| merge.state);
        let waits = |task: &&Task| {
            let merge = merge(task);
            let parked = merge == Some(MergeState::Parked);
            !task.state.is_terminal() || parked || merge.is_some_and(|it| !it.is_settled())
        };
        let open = facts.tasks.iter().filter(waits).count();
        let unmerged = facts
            .tasks
            .iter()
            .filter(|task| merge(task) == Some(MergeState::Failed));
        let hopeless = facts.tasks.iter().filter(|task| {
            task.state == TaskState::Skipped
                && !matches!(
                    task.reason,
                    TaskReason::SkippedByOperator | TaskReason::NotSelected | TaskReason::Removed
                )
        });
        let cancelled = facts.tasks.iter().filter(|task| {
            task.state == TaskState::Cancelled && task.reason != TaskReason::Removed
        });
        let bad =
            count(TaskState::Failed) + cancelled.count() + hopeless.count() + unmerged.count();
        let state = facts.batch.state;
        let truthful = match ending {
            Ending::Done => open == 0 && bad == 0 && state == BatchState::Done,
            Ending::Failed => open == 0 && bad > 0 && state == BatchState::Failed,
            Ending::NeedsPerson => open > 0 && state == BatchState::Paused,
            Ending::Interrupted => {
                state == BatchState::Interrupted && (self.stop_asked || self.ordered(facts, now))
            }
            Ending::Environment => open > 0 && state == BatchState::Interrupted,
        };
        if !truthful {
            let text = format!(
                "{ending:?}, batch {state} {:?}, {counts:?}",
                facts.batch.reason
            );
            return broken("the batch's outcome is the truth", text);
        }
        if matches!(ending, Ending::Done | Ending::Failed) {
            self.mail_settled(facts)
        } else {
            Ok(())
        }
    }

    /// Whether a rule of the batch file, not the operator, ended the batch.
    fn ordered(&self, facts: &Facts, _now: Now) -> bool {
        facts.batch.settings.until.is_some()
            || matches!(
                facts.batch.reason,
                BatchReason::TaskFailed(_)
                    | BatchReason::MergeFailed(_)
                    | BatchReason::TooManyFailures
                    | BatchReason::Until
            )
    }

    fn mail_settled(&self, facts: &Facts) -> Told {
        for (id, message) in &facts.messages {
            let settled = match message.state {
                MessageState::Injected
                | MessageState::Seen
                | MessageState::Expired
                | MessageState::Dead
                | MessageState::Uncertain => true,
                MessageState::Queued | MessageState::Sent => false,
            };
            let last = message.rungs.last().map(|(state, _)| *state);
            if !settled || last != Some(message.state) {
                return broken(
                    "I8 every message ends on a rung",
                    format!("{id} is {}", message.state),
                );
            }
        }
        Ok(())
    }

    /// Whether a batch that ended can not go on without another batch file.
    pub(super) fn needs_a_new_plan(&self, core: &Core, now: Now) -> bool {
        let Some(facts) = core.facts() else {
            return false;
        };
        let late = facts.batch.settings.until.is_some_and(|at| at <= now.wall);
        late || matches!(facts.batch.reason, BatchReason::Limit(_))
    }
}
