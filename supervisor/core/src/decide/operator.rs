//! What an operator wants.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use protocol::command::{RunKind, SteerMode};
use protocol::ids::Generation;

use super::{Desk, GRACE};
use crate::effect::{Answer, Refusal};
use crate::input::{OperatorCommand, ReplyId, StopStage};
use crate::machine::{AccountState, BatchState, MergeState, QuestionState, TaskState};
use crate::mailbox::TEXT_MAX;
use crate::plan::{AccountIx, RetryMode, TaskIx};
use crate::reason::{AccountReason, BatchReason, TaskReason};
use crate::record::{Record, StopReason};

/// What is said of one task.
type Line = Arc<str>;

impl Desk<'_> {
    pub(super) fn operator(&mut self, reply: ReplyId, command: OperatorCommand) {
        let count = self.facts().tasks.len();
        let known = |ix: &TaskIx| (ix.0 as usize) < count;
        let lines = match command {
            OperatorCommand::Steer {
                tasks,
                mode,
                text,
                expires,
                wait,
            } => {
                let tasks: Vec<TaskIx> = tasks.into_iter().filter(known).collect();
                return self.steer(reply, &tasks, mode, text, expires, wait);
            }
            OperatorCommand::Answer { question, text } => {
                return self.answer_question(reply, question, text);
            }
            OperatorCommand::Kill { tasks, grace } => {
                self.each_task(tasks, |desk, ix| desk.kill_task(ix, grace))
            }
            OperatorCommand::Pause { tasks: None, now } => self.pause_batch(now),
            OperatorCommand::Pause {
                tasks: Some(tasks),
                now,
            } => self.each_task(tasks, |desk, ix| desk.pause_task(ix, now)),
            OperatorCommand::Resume { tasks: None } => self.resume_batch(),
            OperatorCommand::Resume { tasks: Some(tasks) } => {
                self.each_task(tasks, Desk::resume_task)
            }
            OperatorCommand::Cancel { tasks } => {
                let tasks = tasks.unwrap_or_else(|| self.unfinished());
                self.each_task(tasks, Desk::cancel_task)
            }
            OperatorCommand::Retry {
                tasks,
                mode,
                attempts,
                note,
            } => {
                if let Some(note) = &note
                    && let Err(refusal) = self.may_note(&tasks, note)
                {
                    return self.refuse(reply, refusal);
                }
                self.each_task(tasks, |desk, ix| {
                    desk.retry_task(ix, mode, attempts, note.as_ref())
                })
            }
            OperatorCommand::Skip { tasks, as_done } => {
                self.each_task(tasks, |desk, ix| desk.skip_task(ix, as_done))
            }
            OperatorCommand::Clean { tasks } => {
                let tasks = tasks.unwrap_or_else(|| self.with_worktrees());
                self.each_task(tasks, Desk::clean_task)
            }
            OperatorCommand::CleanBuildOutput { tasks } => {
                self.each_task(tasks, Desk::clean_build_output)
            }
            OperatorCommand::Stop(stage) => self.stop_batch(stage),
            OperatorCommand::Revise(plan) => match self.revise(*plan) {
                Ok(line) => vec![line],
                Err(refusal) => return self.refuse(reply, refusal),
            },
            OperatorCommand::SetConcurrency(concurrency) => {
                let concurrency = concurrency.max(1);
                self.record(Record::ConcurrencySet { concurrency });
                vec![format!("concurrency is {concurrency}").into()]
            }
        };
        self.bury_mail();
        self.reply(reply, Answer::Done(lines));
    }

    fn each_task(
        &mut self,
        tasks: Vec<TaskIx>,
        mut act: impl FnMut(&mut Self, TaskIx) -> &'static str,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut seen = BTreeSet::new();
        for ix in tasks {
            if ix.0 as usize >= self.facts().tasks.len() || !seen.insert(ix) {
                continue;
            }
            let said = act(self, ix);
            lines.push(format!("{}: {said}", self.task(ix).id).into());
        }
        lines
    }

    fn unfinished(&self) -> Vec<TaskIx> {
        let tasks = crate::index::each(&self.facts().tasks);
        tasks
            .filter(|(_, task)| !task.state.is_terminal())
            .map(|(ix, _)| ix)
            .collect()
    }

    fn with_worktrees(&self) -> Vec<TaskIx> {
        let tasks = crate::index::each(&self.facts().tasks);
        tasks
            .filter(|(_, task)| task.state.is_terminal() && task.worktree.is_some())
            .map(|(ix, _)| ix)
            .collect()
    }

    /// The live agent run of a task.
    pub(super) fn agent_run(&self, ix: TaskIx) -> Option<Generation> {
        let generation = self.task(ix).attempt.as_ref()?.run;
        let run = self.run(generation)?;
        let stays = run.stop.is_none() && run.result.is_none();
        (run.kind() == RunKind::Agent && stays).then_some(generation)
    }

    pub(super) fn live_run(&self, ix: TaskIx) -> Option<Generation> {
        let generation = self.task(ix).attempt.as_ref()?.run;
        self.run(generation).map(|_| generation)
    }

    fn answer_question(
        &mut self,
        reply: ReplyId,
        question: protocol::ids::QuestionId,
        text: Arc<str>,
    ) {
        if text.len() > TEXT_MAX {
            let text = format!("an answer has at most {TEXT_MAX} bytes");
            return self.refuse(reply, Refusal::Limit(text.into()));
        }
        let Some(known) = self.facts().questions.get(&question) else {
            let text = format!("there is no question {question}");
            return self.refuse(reply, Refusal::NotFound(text.into()));
        };
        if known.state != QuestionState::Open {
            let text = format!("{question} is {} already", known.state);
            return self.refuse(reply, Refusal::WrongState(text.into()));
        }
        self.settle_question(question, QuestionState::Answered, Some(text));
        self.reply(
            reply,
            Answer::Done(vec![format!("{question}: answered").into()]),
        );
    }

    fn kill_task(&mut self, ix: TaskIx, grace: Duration) -> &'static str {
        match self.live_run(ix) {
            Some(generation) => {
                self.stop(generation, StopReason::Killed, grace);
                "killed; the task is paused until `resume`"
            }
            None if self.task(ix).state.is_terminal() => "is over already",
            None => "does not run",
        }
    }

    fn pause_batch(&mut self, now: bool) -> Vec<Line> {
        let state = self.facts().batch.state;
        if state != BatchState::Running && state != BatchState::Paused {
            return vec![format!("the batch is {state}: nothing to pause").into()];
        }
        let (to, reason) = (BatchState::Paused, BatchReason::Operator);
        self.record(Record::BatchMoved { to, reason });
        if now {
            self.stop_agents();
        }
        vec!["the batch is paused until `resume`".into()]
    }

    /// Ends runs of agents only, whatever they are for: a proof spends nothing, and would begin anew
    /// at once.
    pub(super) fn stop_agents(&mut self) {
        let runs = self.facts().runs.iter();
        let agents = runs.filter(|(_, run)| {
            run.purpose.is_agent() && run.stop.is_none() && run.result.is_none()
        });
        let agents: Vec<Generation> = agents.map(|(generation, _)| *generation).collect();
        for generation in agents {
            if !self.is_unresolved(generation) {
                self.stop(generation, StopReason::Interrupted, GRACE);
            }
        }
    }

    fn pause_task(&mut self, ix: TaskIx, now: bool) -> &'static str {
        let task = self.task(ix);
        let (state, live) = (task.state, self.live_run(ix));
        if state.is_terminal() {
            return "is over already";
        }
        if state == TaskState::Paused {
            return "is paused already";
        }
        if let (Some(generation), true, true) = (live, now, self.agent_run(ix).is_some()) {
            self.stop(generation, StopReason::Paused, GRACE);
            return "stopping; paused until `resume`";
        }
        let reason = TaskReason::Operator;
        let to = if task.attempt.is_some() {
            state
        } else {
            TaskState::Paused
        };
        self.record(Record::TaskMoved {
            task: ix,
            to,
            reason,
            next_check: None,
        });
        if to == TaskState::Paused {
            "paused until `resume`"
        } else {
            "paused after its attempt"
        }
    }

    fn resume_batch(&mut self) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        if self.facts().batch.state == BatchState::Paused {
            let (to, reason) = (BatchState::Running, BatchReason::Working);
            self.record(Record::BatchMoved { to, reason });
            lines.push("the batch goes on".into());
        }
        for at in 0..self.facts().accounts.len() {
            let ix = AccountIx(u32::try_from(at).unwrap_or(u32::MAX));
            if self.open_account(ix) {
                let name = &self.facts().accounts[at].spec.name;
                lines.push(format!("account {name} is open again").into());
            }
        }
        let paused: Vec<TaskIx> = self.index().paused.iter().copied().collect();
        lines.extend(self.each_task(paused, Desk::resume_task));
        if lines.is_empty() {
            lines.push("nothing was paused".into());
        }
        lines
    }

    fn open_account(&mut self, account: AccountIx) -> bool {
        if self.facts().accounts[account.0 as usize].state != AccountState::Stopped {
            return false;
        }
        let (to, reason) = (AccountState::Open, AccountReason::Operator);
        self.record(Record::AccountMoved {
            account,
            to,
            reason,
            until: None,
        });
        true
    }

    fn resume_task(&mut self, ix: TaskIx) -> &'static str {
        let task = self.task(ix);
        let state = task.state;
        if task.attempt.is_some() {
            if matches!(task.reason, TaskReason::Unresolved(_)) {
                return "its last run could not be judged; see `explain`";
            }
            if !task.hold {
                return "runs already";
            }
            let reason = TaskReason::Working;
            self.record(Record::TaskMoved {
                task: ix,
                to: state,
                reason,
                next_check: None,
            });
            return "goes on after its attempt";
        }
        if state.is_terminal() {
            return "is over; `retry` opens it again";
        }
        if state != TaskState::Paused {
            return "is not paused";
        }
        let for_account = matches!(
            task.reason,
            TaskReason::AccountLimited | TaskReason::AccountStopped
        );
        if for_account && self.open_account(self.account_of(ix)) {
            return "goes on with its account";
        }
        if for_account {
            return "waits for its account's reset";
        }
        self.requeue(ix);
        "goes on"
    }

    /// Sends a task without an attempt to where it waits.
    fn requeue(&mut self, ix: TaskIx) {
        if self.task(ix).state != TaskState::Paused && self.task(ix).state != TaskState::Ready {
            return;
        }
        if self.index().unmet[ix.0 as usize] > 0 {
            self.wait_for_dependency(ix);
            return;
        }
        let (to, reason) = (TaskState::Ready, TaskReason::Lane);
        self.record(Record::TaskMoved {
            task: ix,
            to,
            reason,
            next_check: None,
        });
    }

    fn cancel_task(&mut self, ix: TaskIx) -> &'static str {
        let task = self.task(ix);
        if task.state.is_terminal() {
            return "is over already";
        }
        if let Some(generation) = self.live_run(ix) {
            if matches!(task.reason, TaskReason::Unresolved(_)) {
                return "its last run could not be judged; see `explain`";
            }
            self.stop(generation, StopReason::Cancelled, GRACE);
            return "stopping; then cancelled";
        }
        let (to, reason) = (TaskState::Cancelled, TaskReason::CancelledByOperator);
        if task.attempt.is_some() {
            self.cancel_idle(ix, "cancelled by the operator", reason);
        } else {
            self.record(Record::TaskEnded {
                task: ix,
                to,
                reason,
            });
        }
        "cancelled"
    }

    /// Cancels an attempt between two of its runs.
    pub(super) fn cancel_idle(&mut self, ix: TaskIx, detail: &str, reason: TaskReason) {
        let Some(attempt) = &self.task(ix).attempt else {
            return;
        };
        let ended = crate::record::AttemptEnded {
            task: ix,
            attempt: attempt.no,
            class: Some(protocol::class::Class::Cancelled),
            consumed: false,
            detail: detail.into(),
            next: crate::record::Next::End {
                to: TaskState::Cancelled,
                reason,
            },
            model: None,
        };
        self.record(Record::AttemptEnded(ended));
    }

    fn retry_task(
        &mut self,
        ix: TaskIx,
        mode: RetryMode,
        attempts: Option<u32>,
        note: Option<&Arc<str>>,
    ) -> &'static str {
        let state = self.task(ix).state;
        // What was done in time is to be merged, and nobody but the operator can see to that.
        if self.task(ix).removed && state != TaskState::Done {
            return "is no longer in the batch file";
        }
        let said = match state {
            TaskState::Done => match self.retry_merge(ix) {
                Ok(said) => said,
                Err(said) => return said,
            },
            TaskState::Pending | TaskState::Blocked => return "waits already",
            TaskState::Running
            | TaskState::Verifying
            | TaskState::Reviewing
            | TaskState::Waiting => return "runs already",
            TaskState::Paused => self.resume_task(ix),
            TaskState::Ready => {
                self.requeue(ix);
                "is tried as soon as there is a lane"
            }
            TaskState::Failed | TaskState::Cancelled | TaskState::Skipped
                if self.task(ix).clean.is_some() =>
            {
                return "its worktree is being removed: try again in a moment";
            }
            TaskState::Failed | TaskState::Cancelled | TaskState::Skipped => {
                if self.failed_dependency(ix).is_some() {
                    return "depends on a task that did not get done: retry that one";
                }
                self.record(Record::Reopened {
                    task: ix,
                    mode,
                    attempts,
                });
                "is tried again"
            }
        };
        if let Some(text) = note.filter(|_| state != TaskState::Done) {
            let id = self.facts().batch.last_message.next();
            let (mode, text) = (SteerMode::Boundary, (*text).clone());
            self.record(Record::MessageQueued {
                id,
                task: ix,
                mode,
                text,
                expires: None,
                from: None,
            });
        }
        let batch = &self.facts().batch;
        if matches!(batch.state, BatchState::Done | BatchState::Failed) {
            let (to, reason) = (BatchState::Running, BatchReason::Operator);
            self.record(Record::BatchMoved { to, reason });
        }
        said
    }

    /// A done task is not tried again, but the merge of its commit is.
    fn retry_merge(&mut self, ix: TaskIx) -> Result<&'static str, &'static str> {
        let state = self.task(ix).merge.as_ref().map(|merge| merge.state);
        match state {
            Some(MergeState::Parked | MergeState::Failed) => {
                self.record(Record::MergeMoved {
                    task: ix,
                    to: MergeState::Queued,
                    merged: None,
                    detail: "queued again by the operator".into(),
                });
                Ok("is merged again; a done task is not done again")
            }
            Some(MergeState::None | MergeState::Merged) | None => {
                Err("is done; a done task is not tried again")
            }
            Some(
                MergeState::Queued
                | MergeState::Merging
                | MergeState::Verifying
                | MergeState::Conflict
                | MergeState::Resolving
                | MergeState::RolledBack,
            ) => Err("is done, and is being merged already"),
        }
    }

    fn skip_task(&mut self, ix: TaskIx, as_done: bool) -> &'static str {
        let task = self.task(ix);
        if task.state.is_terminal() {
            return "is over already; `retry` opens it again";
        }
        if task.attempt.is_some() {
            return "has an open attempt: `cancel` or `kill` it first";
        }
        let (to, reason) = if as_done {
            (TaskState::Done, TaskReason::AsDone)
        } else {
            (TaskState::Skipped, TaskReason::SkippedByOperator)
        };
        self.record(Record::TaskEnded {
            task: ix,
            to,
            reason,
        });
        if as_done { "counts as done" } else { "skipped" }
    }

    fn stop_batch(&mut self, stage: StopStage) -> Vec<Line> {
        let state = self.facts().batch.state;
        if matches!(state, BatchState::Done | BatchState::Failed) || self.live.is_confined() {
            // Worktrees may still be on their way out.
            self.live.hold();
            self.stop_all(StopReason::Interrupted, GRACE);
            return vec![format!("the batch is {state} already").into()];
        }
        let reason = match stage {
            StopStage::Drain => BatchReason::Drain,
            StopStage::Stop | StopStage::Kill => BatchReason::Stop,
        };
        let stopping = self.facts().batch.reason == BatchReason::Stop || stage == StopStage::Drain;
        let softer = state == BatchState::Stopping && stopping;
        if !softer && state != BatchState::Interrupted {
            self.record(Record::BatchMoved {
                to: BatchState::Stopping,
                reason,
            });
        }
        match stage {
            StopStage::Drain => vec!["draining: what runs may finish, nothing new starts".into()],
            StopStage::Stop => {
                self.stop_all(StopReason::Interrupted, GRACE);
                vec!["stopping what runs".into()]
            }
            StopStage::Kill => {
                self.stop_all(StopReason::Interrupted, Duration::ZERO);
                vec!["killing what runs".into()]
            }
        }
    }
}
