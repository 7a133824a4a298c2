//! The steps of an attempt: which one is due, when it may begin, and what its end means.

use std::sync::Arc;

use protocol::class::Class;
use protocol::git::{Committed, GitOutcome};
use protocol::report::{ResultStatus, RunResult, Verdict};

use super::Desk;
use super::failure::{Failure, HUNG, reported};
use crate::facts::{Attempt, Task};
use crate::machine::{AccountState, BatchState};
use crate::mutation::{self, Mutation};
use crate::plan::{AccountIx, RetryMode, TaskIx, TaskSpec};
use crate::reason::{AccountReason, BatchReason, TaskReason};
use crate::record::{Next, Record, StopReason};
use crate::retry::{self, Group};
use crate::step::{Purpose, Step};
use crate::time::Deadline;

/// Runs of one step, other than the agent's own, that may vanish or break before the attempt fails by
/// their class.
pub(super) const STEP_RUNS_MAX: u32 = 5;
/// Most paths that an outcome's sentence names.
const NAMED_MAX: usize = 5;

/// The first step of an attempt that begins in this way.
pub(super) fn first(task: &Task, spec: &TaskSpec, mode: RetryMode) -> Step {
    match (spec.worktree, &task.worktree) {
        (Some(_), Some(_)) if mode == RetryMode::Fresh => Step::Salvage,
        (Some(_), _) => Step::Provision,
        (None, _) if spec.fetch => Step::Fetch,
        (None, _) if spec.hooks.before_run => Step::BeforeRun,
        (None, _) => Step::Work,
    }
}

/// The step after one that ended well; `None`: the attempt is done.
fn after(step: Step, task: &Task, attempt: &Attempt, spec: &TaskSpec) -> Option<Step> {
    let is_due = |step: Step| match step {
        Step::Salvage => false,
        Step::Commit if attempt.commit.is_some() && mutation::on(Mutation::StaleCommit) => false,
        Step::Provision | Step::Commit => spec.worktree.is_some(),
        Step::AfterCreate => {
            let new = task.worktree.as_ref().is_some_and(|made| !made.hooked);
            new && spec.hooks.after_create
        }
        Step::Fetch => spec.fetch,
        Step::BeforeRun => spec.hooks.before_run,
        Step::Work => true,
        Step::AfterRun => spec.hooks.after_run,
        Step::Prove => spec.verify,
        Step::Checkout | Step::Review if mutation::on(Mutation::SkippedReview) => false,
        Step::Checkout | Step::Review => spec.review.is_some() && attempt.commit.is_some(),
    };
    if step == Step::Review && attempt.verdict == Some(Verdict::Revise) {
        return Some(if is_due(Step::BeforeRun) {
            Step::BeforeRun
        } else {
            Step::Work
        });
    }
    Step::ALL
        .iter()
        .copied()
        .find(|next| *next > step && is_due(*next))
}

impl Desk<'_> {
    /// Whether steps that are no agent's work on the task may begin: a pause by the operator or by a
    /// limit does not hold them; a stop does, and a disk that takes no records.
    pub(super) fn may_prove(&self) -> bool {
        let batch = &self.facts().batch;
        if self.live.is_confined() {
            return false;
        }
        match batch.state {
            BatchState::Running => true,
            BatchState::Paused => match batch.reason {
                BatchReason::Operator | BatchReason::Limit(_) => true,
                BatchReason::Working
                | BatchReason::NeedsPerson
                | BatchReason::Disk
                | BatchReason::TaskFailed(_)
                | BatchReason::MergeFailed(_)
                | BatchReason::TooManyFailures
                | BatchReason::NothingStarts
                | BatchReason::Until
                | BatchReason::Drain
                | BatchReason::Stop
                | BatchReason::Settled => false,
            },
            BatchState::Stopping => batch.reason != BatchReason::Stop,
            BatchState::Done | BatchState::Failed | BatchState::Interrupted => false,
        }
    }

    /// Whether agents may begin to work.
    pub(super) fn may_work(&self) -> bool {
        self.facts().batch.state == BatchState::Running && !self.live.is_confined()
    }

    /// Whether nothing more is to be done after this step.
    pub(super) fn is_last(&self, ix: TaskIx, step: Step) -> bool {
        let task = self.task(ix);
        let attempt = task.attempt.as_ref();
        attempt.is_some_and(|attempt| {
            attempt.step_done && after(step, task, attempt, &self.spec(ix)).is_none()
        })
    }

    /// Whether this step of the task's open attempt may begin now.
    pub(super) fn may_begin(&self, ix: TaskIx, step: Step) -> bool {
        match step {
            Step::AfterRun | Step::Commit | Step::Prove => self.may_prove(),
            // It costs tokens, as an attempt does; a drain lets what runs come to its end.
            Step::Checkout | Step::Review => {
                let reviewer = self.reviewer_account(ix);
                let paused = self.facts().batch.state == BatchState::Paused;
                !paused
                    && self.may_prove()
                    && reviewer.is_none_or(|account| self.is_usable(account))
            }
            Step::Salvage
            | Step::Provision
            | Step::AfterCreate
            | Step::Fetch
            | Step::BeforeRun
            | Step::Work => {
                let account = self.account_of(ix);
                let probes = self.task(ix).attempt.as_ref().is_some_and(|it| it.probe);
                self.may_work() && (probes || self.is_usable(account))
            }
        }
    }

    pub(super) fn is_usable(&self, account: AccountIx) -> bool {
        match self.facts().accounts[account.0 as usize].state {
            AccountState::Open | AccountState::Probing => true,
            AccountState::Limited | AccountState::Stopped => false,
        }
    }

    fn reviewer_account(&self, ix: TaskIx) -> Option<AccountIx> {
        let review = self.spec(ix).review?;
        Some(self.facts().agents[review.agent.0 as usize].account)
    }

    /// Begins a run of a step, where it may; else the attempt stays as it is, and is looked at again
    /// with each turn.
    pub(super) fn begin(&mut self, ix: TaskIx, step: Step) {
        if step <= Step::Work && self.task(ix).hold {
            self.hold_between(ix, TaskReason::Operator, "paused by the operator");
            return;
        }
        if !self.may_begin(ix, step) {
            self.wait_for_account(ix, step);
            return;
        }
        let now = self.now.boot;
        let attempt = self.task(ix).attempt.as_ref();
        if step <= Step::Work && attempt.is_some_and(|it| it.is_over_time(now)) {
            // Its agent would be told to end as soon as it begins.
            let detail = format!("over its wall time before its {} run", step.word());
            self.fail(ix, Failure::new(Class::Timeout, detail));
            return;
        }
        let generation = self.next_generation();
        let token = self.token(generation);
        self.record(Record::RunIntended {
            generation,
            task: ix,
            purpose: Purpose::Step(step),
            token,
        });
        self.effect(crate::effect::Effect::SpawnHost { generation });
    }

    /// An attempt whose agent has not begun gives its lane back while its account may not be used. Work
    /// that was sent back waits in its attempt, with what the reviewer said.
    fn wait_for_account(&mut self, ix: TaskIx, step: Step) {
        let sent_back = self
            .task(ix)
            .attempt
            .as_ref()
            .is_none_or(|it| it.rounds > 0);
        if step > Step::Work || sent_back || !self.may_work() {
            return;
        }
        let account = self.account_of(ix);
        let reason = match self.facts().accounts[account.0 as usize].state {
            AccountState::Limited => TaskReason::AccountLimited,
            AccountState::Stopped => TaskReason::AccountStopped,
            AccountState::Open | AccountState::Probing => return,
        };
        self.hold_between(ix, reason, "its account may not be used");
    }

    /// The task is held before its agent began.
    fn hold_between(&mut self, ix: TaskIx, reason: TaskReason, detail: &str) {
        let mode = RetryMode::Resume;
        let class = Some(StopReason::Paused.class());
        self.end_attempt(ix, class, detail.into(), Next::Hold { reason, mode });
    }

    /// How a task goes on whose attempt ended before its agent had begun: nothing happened that an
    /// agent could resume, and what the attempt was to begin with still holds.
    pub(super) fn mode_again(&self, ix: TaskIx, mode: RetryMode) -> RetryMode {
        let task = self.task(ix);
        let Some(attempt) = task.attempt.as_ref().filter(|it| it.rounds == 0) else {
            return mode;
        };
        let begun = attempt.step >= Step::Work;
        match (mode, attempt.mode) {
            // The worktree is new already: only its agent has to begin anew.
            (RetryMode::Resume, RetryMode::Fresh)
                if !begun && attempt.step > Step::Salvage && task.worktree.is_some() =>
            {
                RetryMode::NewSession
            }
            (RetryMode::Resume, before) if !begun => before,
            (RetryMode::Resume | RetryMode::NewSession | RetryMode::Fresh | RetryMode::Stop, _) => {
                mode
            }
        }
    }

    /// The step that is due once the last run of the attempt is over; `None`: the attempt is done.
    fn due(&self, ix: TaskIx) -> Option<Step> {
        let task = self.task(ix);
        let attempt = task.attempt.as_ref()?;
        if attempt.step_done {
            after(attempt.step, task, attempt, &self.spec(ix))
        } else {
            Some(attempt.step)
        }
    }

    /// Whether an open attempt between two runs can go on by itself.
    pub(super) fn goes_on(&self, ix: TaskIx) -> bool {
        match self.due(ix) {
            Some(step) => self.may_begin(ix, step),
            None => self.may_prove(),
        }
    }

    /// The open attempt goes on where its last run left it.
    pub(super) fn continue_attempt(&mut self, ix: TaskIx) {
        let Some(attempt) = &self.task(ix).attempt else {
            return;
        };
        match (attempt.step, attempt.step_done, &attempt.result) {
            (Step::Work, false, None) => {
                self.fail(ix, Failure::new(Class::Lost, "its run ended unseen"));
            }
            (Step::Work, false, Some(result)) => self.fail(ix, reported(&result.clone())),
            (Step::Review, _, _) if attempt.verdict.is_some() => self.follow_verdict(ix),
            (_, _, _) => self.go_on(ix),
        }
    }

    fn go_on(&mut self, ix: TaskIx) {
        match self.due(ix) {
            Some(step) => self.begin(ix, step),
            None => self.done(ix),
        }
    }

    /// A run of a step is over with a result that counts.
    pub(super) fn step_over(&mut self, ix: TaskIx, step: Step, result: &RunResult) {
        match (step, result.status) {
            (Step::Work, _) => self.continue_attempt(ix),
            (Step::Review, _) => self.reviewed(ix, result),
            (Step::Prove, ResultStatus::Failed) => self.disproved(ix, result),
            (Step::Fetch, ResultStatus::Failed) => self.not_fetched(ix, result),
            (_, ResultStatus::Failed) => {
                let class = result.class.unwrap_or(Class::SetupFailed);
                let detail = format!("{}: {}", step.word(), result.summary);
                let failure = Failure::new(class, detail);
                match class {
                    // Its `git` was killed below it: as if it had been killed with it.
                    Class::Lost => self.step_again(ix, step, failure),
                    _ => self.fail(ix, failure),
                }
            }
            (Step::Commit, ResultStatus::Ok) => match wrong(&self.spec(ix), result) {
                Some(failure) => self.fail(ix, failure),
                None => self.continue_attempt(ix),
            },
            (Step::Salvage | Step::Provision | Step::Checkout, ResultStatus::Ok)
                if !step.is_done(&self.spec(ix), result) =>
            {
                let detail = format!("{}: its run does not say what it did", step.word());
                self.fail(ix, Failure::new(Class::Protocol, detail));
            }
            (
                Step::Salvage
                | Step::Provision
                | Step::AfterCreate
                | Step::Fetch
                | Step::BeforeRun
                | Step::AfterRun
                | Step::Prove
                | Step::Checkout,
                ResultStatus::Ok,
            ) => self.continue_attempt(ix),
        }
    }

    /// What the task is about could not be had. A forge that is out of reach, or takes no more
    /// requests for now, is waited for, as long as it says or with growing patience; the account of
    /// the agent has nothing to do with it.
    fn not_fetched(&mut self, ix: TaskIx, result: &RunResult) {
        let mut failure = reported(result);
        failure.detail = format!("{}: {}", Step::Fetch.word(), failure.detail).into();
        if failure.class != Class::Network {
            if retry::group(failure.class) != Group::OurSide {
                failure.class = Class::SetupFailed;
            }
            self.fail(ix, failure);
            return;
        }
        let task = self.task(ix);
        let Some(attempt) = &task.attempt else {
            return;
        };
        let mode = self.mode_again(ix, attempt.mode);
        let nth = task.attempts.0;
        let seed = self.facts().batch.seed ^ retry::mix(u64::from(ix.0) << 32 | u64::from(nth));
        let wait = retry::backoff(retry::ACCOUNT_WAIT_MIN, retry::ACCOUNT_WAIT_MAX, nth, seed);
        let at = self.believed(failure.reset);
        let at = at.map_or(Deadline::Boot(self.now.boot + wait), Deadline::Wall);
        let next = Next::Retry { mode, at: Some(at) };
        self.end_attempt(ix, Some(failure.class), failure.detail, next);
    }

    fn disproved(&mut self, ix: TaskIx, result: &RunResult) {
        let class = result.class.unwrap_or(Class::VerifyFailed);
        let class = match retry::group(class) {
            Group::Work | Group::OurSide => class,
            Group::Account | Group::AccountStop | Group::Operator | Group::Lost | Group::Chosen => {
                Class::VerifyFailed
            }
        };
        self.fail(ix, Failure::new(class, result.summary.as_str()));
    }

    /// What the reviewer ruled is on record.
    fn follow_verdict(&mut self, ix: TaskIx) {
        let rounds = self.spec(ix).review.map_or(0, |review| review.rounds);
        let Some(attempt) = &self.task(ix).attempt else {
            return;
        };
        let said = attempt.notes.clone().unwrap_or_default();
        match attempt.verdict {
            Some(Verdict::Reject) => {
                let detail = format!("the reviewer rejected it: {said}");
                self.fail(ix, Failure::new(Class::Rejected, detail));
            }
            Some(Verdict::Revise) if attempt.rounds > rounds => {
                let detail =
                    format!("the reviewer sent it back more than {rounds} times; last: {said}");
                self.fail(ix, Failure::new(Class::Rejected, detail));
            }
            Some(Verdict::Approve | Verdict::Revise) | None => self.go_on(ix),
        }
    }

    /// The reviewer ruled, or could not.
    fn reviewed(&mut self, ix: TaskIx, result: &RunResult) {
        match (result.status, result.verdict) {
            (ResultStatus::Ok, Some(_)) => {
                self.reviewer_went_well(ix);
                self.follow_verdict(ix);
            }
            (ResultStatus::Ok, None) => {
                let colon = if result.summary.is_empty() { "" } else { ": " };
                let detail = format!("the reviewer gave no verdict{colon}{}", result.summary);
                self.review_again(ix, Failure::new(Class::Rejected, detail));
            }
            (ResultStatus::Failed, _) => {
                let failure = reported(result);
                match (retry::group(failure.class), self.reviewer_account(ix)) {
                    // The work waits with its reviewer's account, as a task would.
                    (Group::Account, Some(account)) => {
                        self.limit_account(account, failure.class, failure.reset);
                    }
                    (Group::AccountStop, Some(account)) => {
                        self.stop_account(account, failure.class)
                    }
                    (_, _) => {
                        let detail =
                            format!("the review failed ({}): {}", failure.class, failure.detail);
                        self.review_again(ix, Failure::new(Class::Rejected, detail));
                    }
                }
            }
        }
    }

    /// Nothing is taken without a verdict; one is asked for a bounded number of times.
    fn review_again(&mut self, ix: TaskIx, failure: Failure) {
        let runs = self.task(ix).attempt.as_ref().map_or(0, |it| it.step_runs);
        if runs >= retry::FREE_RETRIES_MAX {
            self.fail(ix, failure);
        } else {
            self.begin(ix, Step::Review);
        }
    }

    fn reviewer_went_well(&mut self, ix: TaskIx) {
        if let Some(account) = self.reviewer_account(ix) {
            self.account_went_well(account);
        }
    }

    /// An agent that is no attempt's own found out that its account's limit is over.
    pub(super) fn account_went_well(&mut self, account: AccountIx) {
        if self.facts().accounts[account.0 as usize].state == AccountState::Probing {
            let (to, reason) = (AccountState::Open, AccountReason::ProbeWentWell);
            self.record(Record::AccountMoved {
                account,
                to,
                reason,
                until: None,
            });
        }
    }

    /// A run of a step other than the agent's was told to end.
    pub(super) fn step_stopped(&mut self, ix: TaskIx, step: Step, reason: StopReason) {
        match reason {
            // What is there stays with the open attempt; the step is done after `run`.
            StopReason::Interrupted => {}
            StopReason::NoHello | StopReason::Protocol => {
                let detail = format!("its {} run broke", step.kind().word());
                self.step_again(ix, step, Failure::new(reason.class(), detail));
            }
            StopReason::Hung => self.step_again(ix, step, Failure::new(reason.class(), HUNG)),
            StopReason::Silence | StopReason::NoProgress | StopReason::Timeout
                if step == Step::Review =>
            {
                let detail = format!("the reviewer was stopped ({})", reason.class());
                self.review_again(ix, Failure::new(Class::Rejected, detail));
            }
            StopReason::Silence
            | StopReason::NoProgress
            | StopReason::Timeout
            | StopReason::Budget
            | StopReason::Lingering
            | StopReason::Question
            | StopReason::Superseded
            | StopReason::Paused
            | StopReason::Killed
            | StopReason::Cancelled
            | StopReason::Removed => self.stopped(ix, reason, None),
        }
    }

    /// Only this step is missing: it is done again, a bounded number of times.
    pub(super) fn step_again(&mut self, ix: TaskIx, step: Step, failure: Failure) {
        let runs = self.task(ix).attempt.as_ref().map_or(0, |it| it.step_runs);
        let max = if failure.class == Class::Lost {
            self.facts().batch.settings.lost_max
        } else {
            STEP_RUNS_MAX
        };
        if runs >= max {
            self.fail(ix, failure);
        } else {
            self.begin(ix, step);
        }
    }
}

/// What is wrong with a commit that was made.
fn wrong(spec: &TaskSpec, result: &RunResult) -> Option<Failure> {
    let Some(GitOutcome::Committed(done)) = result.git.as_deref() else {
        let detail = "commit: its run does not say what it did";
        return Some(Failure::new(Class::Protocol, detail));
    };
    let Committed {
        files,
        markers,
        outside,
        missing,
        ..
    } = done;
    let named = |what: &str, paths: &[String]| format!("{what}: {}", some_of(paths));
    if !markers.is_empty() {
        let detail = named("markers of a conflict are left in", markers);
        return Some(Failure::new(Class::VerifyFailed, detail));
    }
    if !outside.is_empty() {
        let detail = named("it changed files that `touches` does not name", outside);
        return Some(Failure::new(Class::VerifyFailed, detail));
    }
    if !missing.is_empty() {
        let detail = named("its outputs are not there", missing);
        return Some(Failure::new(Class::NoResult, detail));
    }
    let idle = *files == 0 && spec.changes;
    idle.then(|| Failure::new(Class::NoChange, "it changed no file"))
}

/// The first paths of a list, for a sentence.
pub(super) fn some_of(paths: &[String]) -> Arc<str> {
    let named = paths.iter().take(NAMED_MAX).map(String::as_str);
    let mut text = named.collect::<Vec<_>>().join(", ");
    if let Some(more) = paths.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text.into()
}
