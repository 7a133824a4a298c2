//! Why a batch, a task or an account is where it is, as a sentence: names, times, what happens
//! next, and what the operator can do.

use std::fmt;
use std::time::Duration;

use protocol::ids::QuestionId;
use supervisor_core::facts::{Account, Outcome, Question, Task};
use supervisor_core::live::PING_EVERY;
use supervisor_core::machine::{AccountState, BatchState, TaskState};
use supervisor_core::plan::{Condition, OnFailure, TaskIx};
use supervisor_core::reason::{AccountReason, BatchLimit, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::step::Step;

use crate::view::delivery::{self, MergeWhy};
use crate::view::family::FamilyRow;
use crate::view::time::Span;
use crate::view::{HostFact, View};

/// Dependencies named in one sentence; the rest is counted.
const NAMED_MAX: usize = 3;

/// The sentence of one task; made only when it is written.
#[derive(Debug, Clone, Copy)]
pub struct TaskWhy<'a> {
    /// The picture.
    pub view: &'a View<'a>,
    /// The task.
    pub task: &'a Task,
}

/// How the last attempt of a task ended, and what follows.
#[derive(Debug, Clone, Copy)]
pub struct LastWhy<'a> {
    /// The picture.
    pub view: &'a View<'a>,
    /// The task.
    pub task: &'a Task,
}

/// The sentence of the batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchWhy<'a> {
    /// The picture.
    pub view: &'a View<'a>,
}

/// The sentence of one account.
#[derive(Debug, Clone, Copy)]
pub struct AccountWhy<'a> {
    /// The picture.
    pub view: &'a View<'a>,
    /// The account.
    pub account: &'a Account,
}

impl serde::Serialize for TaskWhy<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for BatchWhy<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for BatchWhy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view;
        if view.is_cut_off() {
            f.write_str("its supervisor ")?;
            if let Some(pid) = view.presence.pid {
                write!(f, "(pid {pid}) ")?;
            }
            return write!(f, "is gone; `supervisor run {}` goes on", view.file);
        }
        self.recorded(f)?;
        let waits = match view.facts.batch.state {
            BatchState::Paused | BatchState::Interrupted => !view.presence.alive,
            BatchState::Running | BatchState::Stopping | BatchState::Done | BatchState::Failed => {
                false
            }
        };
        if waits {
            let file = view.file;
            write!(
                f,
                "; no supervisor works on it: `supervisor run {file}` goes on"
            )?;
        }
        Ok(())
    }
}

impl BatchWhy<'_> {
    fn recorded(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, batch) = (self.view, &self.view.facts.batch);
        match batch.reason {
            BatchReason::Working => f.write_str("its supervisor works on it"),
            BatchReason::Operator if batch.state == BatchState::Running => {
                f.write_str("the operator let it go on")
            }
            BatchReason::Operator => write!(
                f,
                "the operator said so; `supervisor resume {}` lets it go on",
                batch.id
            ),
            BatchReason::Limit(limit) => write!(
                f,
                "{} of the batch file is reached; raise it, then `supervisor resume {}`",
                limit_key(limit),
                batch.id
            ),
            BatchReason::Disk => f.write_str(
                "the disk is full or can not be written; it goes on by itself when there is room",
            ),
            BatchReason::TaskFailed(task) => write!(
                f,
                "task {} failed and the batch file says `on_failure: stop`",
                view.task_name(task)
            ),
            BatchReason::MergeFailed(task) => write!(
                f,
                "the merge of {} failed and the batch file says `on_failure: stop`",
                view.task_name(task)
            ),
            BatchReason::TooManyFailures => {
                f.write_str("more tasks and merges failed than `max_failures` allows")
            }
            BatchReason::NothingStarts => write!(
                f,
                "no host could be started for any task; see `supervisor explain {}`",
                batch.id
            ),
            BatchReason::Until => {
                f.write_str("`until` has come: what runs may finish, nothing new starts")
            }
            BatchReason::Drain => {
                f.write_str("a signal said to drain: what runs may finish, nothing new starts")
            }
            BatchReason::Stop => f.write_str("a signal or a command stopped what ran"),
            BatchReason::NeedsPerson if self.only_merges() => self.parked(f),
            BatchReason::NeedsPerson => write!(
                f,
                "what is left waits for the operator: `supervisor status {} --needs-me`",
                batch.id
            ),
            BatchReason::Settled => {
                let counts = view.counts();
                write!(f, "every task is settled: {}", counts.sentence())
            }
        }
    }
}

impl BatchWhy<'_> {
    /// Whether every task is over, so that only merges are left.
    fn only_merges(&self) -> bool {
        let tasks = &self.view.facts.tasks;
        tasks.iter().all(|task| task.state.is_terminal())
            && tasks.iter().any(delivery::merge_needs_person)
    }

    fn parked(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let batch = &self.view.facts.batch.id;
        let mut parked = self.view.facts.tasks.iter();
        let parked: Vec<&str> = parked
            .by_ref()
            .filter(|task| delivery::merge_needs_person(task))
            .map(|task| task.id.as_str())
            .collect();
        let named = parked[..parked.len().min(NAMED_MAX)].join(", ");
        write!(
            f,
            "only merges are left, and they wait for the operator: {named}"
        )?;
        if let Some(more) = parked.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            write!(f, " and {more} more")?;
        }
        let first = parked.first().copied().unwrap_or_default();
        write!(f, "; `supervisor retry {batch}/{first}` merges it again")
    }
}

fn limit_key(limit: BatchLimit) -> &'static str {
    match limit {
        BatchLimit::Turns => "`limits.turns`",
        BatchLimit::Tokens => "`limits.tokens`",
        BatchLimit::Cost => "`limits.cost_usd`",
        BatchLimit::Wall => "`limits.wall`",
    }
}

impl fmt::Display for TaskWhy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, task) = (self.view, self.task);
        let hint = |f: &mut fmt::Formatter<'_>, what: &str, verb: &str| self.hint(f, what, verb);
        if view.is_cut_off_task(task) {
            return self.cut_off(f);
        }
        match task.reason {
            TaskReason::New => f.write_str("not looked at yet"),
            TaskReason::Dependencies => self.dependencies(f),
            TaskReason::Touches(other) => {
                let other = view.task_name(other);
                write!(f, "waits for {other}, which touches the same files")
            }
            TaskReason::NotBefore => self.until(f, "the batch file says not before its date"),
            TaskReason::Lane if !view.presence.alive => {
                let file = view.file;
                write!(
                    f,
                    "waits for a supervisor: `supervisor run {file}` goes on with it"
                )
            }
            TaskReason::Lane => {
                let lanes = view.facts.batch.lanes();
                write!(f, "waits for a lane; the batch has {lanes}")
            }
            TaskReason::Backoff(class) => self.backoff(f, class.word()),
            TaskReason::AccountLimited | TaskReason::AccountStopped => self.account(f),
            TaskReason::Preparing => self.step(f, "is being prepared"),
            TaskReason::Working => self.working(f),
            TaskReason::Proving => self.step(f, "its proof is made"),
            TaskReason::Reviewing => self.reviewing(f),
            TaskReason::Question(id) => self.question(f, view.facts.questions.get(&id), id),
            TaskReason::Operator => hint(f, "held by the operator", "resume"),
            TaskReason::Killed => hint(f, "its attempt was killed by the operator", "resume"),
            TaskReason::Interrupted => {
                let file = view.file;
                write!(
                    f,
                    "its supervisor was stopped; `supervisor run {file}` goes on with it"
                )
            }
            TaskReason::Unresolved(letter) => self.unresolved(f, letter),
            TaskReason::NeedsOperator(class) => {
                self.last(f, class.word())?;
                hint(f, "; put that right", "resume")
            }
            TaskReason::Proven => self.proven(f),
            TaskReason::AsDone => f.write_str("the operator says that it is done"),
            TaskReason::Failed(class) => {
                self.last(f, class.word())?;
                hint(f, "; not tried again", "retry")
            }
            TaskReason::Quarantined => hint(f, "lost again and again without progress", "retry"),
            TaskReason::DependencyFailed(other) => self.dependency_failed(f, other),
            TaskReason::SkippedByOperator => hint(f, "skipped by the operator", "retry"),
            TaskReason::CancelledByOperator => hint(f, "cancelled by the operator", "retry"),
            TaskReason::BatchStopped => hint(f, "the batch stopped before it was tried", "retry"),
            TaskReason::NotSelected => f.write_str("not among the tasks that `--only` named"),
            TaskReason::Removed => f.write_str("the batch file no longer has it"),
            TaskReason::Reopened => f.write_str("reopened by the operator"),
        }
    }
}

impl TaskWhy<'_> {
    /// A command that the operator can give for this task.
    fn hint(&self, f: &mut fmt::Formatter<'_>, what: &str, verb: &str) -> fmt::Result {
        let (batch, task) = (&self.view.facts.batch.id, &self.task.id);
        let effect = match verb {
            "resume" => "lets it go on",
            _ => "tries it again",
        };
        write!(f, "{what}; `supervisor {verb} {batch}/{task}` {effect}")
    }

    fn cut_off(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (attempt, file) = (self.task.attempts, self.view.file);
        write!(
            f,
            "attempt {attempt} was cut off when its supervisor went; `supervisor run {file}` goes \
             on with it, and takes over its result where there is a durable one"
        )
    }

    /// What comes first and is not there yet.
    fn dependencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view;
        let goes_on = view.facts.batch.settings.on_failure == OnFailure::Continue;
        let unmet = self.task.depends_on.iter().filter(|dependency| {
            view.task(dependency.task)
                .is_some_and(|task| match dependency.condition {
                    Condition::Done if !goes_on => task.state != TaskState::Done,
                    Condition::Merged if !goes_on => !delivery::is_merged(task),
                    Condition::Merged => {
                        let merge = task.merge.as_ref();
                        !task.state.is_terminal()
                            || merge.is_some_and(|merge| !merge.state.is_settled())
                    }
                    Condition::Done | Condition::Finished => !task.state.is_terminal(),
                })
        });
        f.write_str("waits for ")?;
        let mut more = 0_usize;
        for (position, dependency) in unmet.enumerate() {
            if position >= NAMED_MAX {
                more += 1;
            } else if let Some(task) = view.task(dependency.task) {
                let comma = if position == 0 { "" } else { ", " };
                write!(f, "{comma}{} ({})", task.id, waited_for(view, task))?;
            }
        }
        if more > 0 {
            write!(f, " and {more} more")?;
        }
        Ok(())
    }

    fn dependency_failed(&self, f: &mut fmt::Formatter<'_>, other: TaskIx) -> fmt::Result {
        let view = self.view;
        let name = view.task_name(other);
        let state = view.task(other).map_or("gone", |task| task.state.word());
        let batch = &view.facts.batch.id;
        write!(
            f,
            "its dependency {name} ended {state}; `supervisor retry {batch}/{name}` tries both again"
        )
    }

    /// How the last attempt ended.
    fn last(&self, f: &mut fmt::Formatter<'_>, class: &str) -> fmt::Result {
        let max = self.view.attempts_max(self.task);
        let Some(last) = &self.task.last else {
            return f.write_str(class);
        };
        let consumed = self.task.consumed;
        write!(f, "attempt {} ended {class}", last.attempt)?;
        write!(f, " ({consumed} of {max} used)")?;
        let detail = first_line(&last.detail);
        if detail.is_empty() {
            return Ok(());
        }
        write!(f, ": {detail}")
    }

    fn backoff(&self, f: &mut fmt::Formatter<'_>, class: &str) -> fmt::Result {
        self.last(f, class)?;
        write!(f, "; attempt {} follows", self.task.attempts.next())?;
        self.when(f)
    }

    fn until(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        f.write_str(what)?;
        self.when(f)
    }

    fn when(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.view.next_check(self.task) {
            Some(at) => write!(f, " {}", self.view.time.ahead(at)),
            None => Ok(()),
        }
    }

    fn account(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view;
        let account = view
            .agent(self.task)
            .and_then(|agent| view.facts.accounts.get(agent.account.0 as usize));
        match account {
            Some(account) => write!(f, "{}", AccountWhy { view, account }),
            None => f.write_str("its account can not be used now"),
        }
    }

    fn working(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, task) = (self.view, self.task);
        let max = view.attempts_max(task);
        let number = task.consumed.saturating_add(1).min(max);
        write!(f, "attempt {} (try {number} of {max}) works", task.attempts)?;
        let Some((generation, run)) = view.run(task) else {
            return Ok(());
        };
        if let Some((stop, _)) = run.stop {
            write!(f, "; told to end ({})", stop.word())?;
        }
        match view.hosts.get(&generation) {
            Some(HostFact::Lives(pid)) => {
                write!(f, "; its host (pid {pid}) has no supervisor and is ending")?;
            }
            Some(HostFact::Foreign) => {
                f.write_str("; its host is on another machine or namespace: unknown from here")?;
            }
            None => {}
        }
        let Some(now) = view.activity.get(&generation) else {
            return Ok(());
        };
        if let Some(family) = FamilyRow::new(view, task).filter(|_| now.family.begun > 0) {
            write!(f, "; {family}")?;
        }
        if Duration::from_millis(now.heard_ms) > 2 * PING_EVERY {
            let heard = Span(Duration::from_millis(now.heard_ms));
            write!(f, "; its host has not answered for {heard}")?;
        }
        if !now.text.is_empty() {
            write!(f, "; now: {}", first_line(&now.text))?;
        }
        Ok(())
    }

    fn question(
        &self,
        f: &mut fmt::Formatter<'_>,
        question: Option<&Question>,
        id: QuestionId,
    ) -> fmt::Result {
        let batch = &self.view.facts.batch.id;
        f.write_str("asks")?;
        if let Some(question) = question {
            write!(f, ": {}", first_line(&question.text))?;
            if !question.options.is_empty() {
                write!(f, " [{}]", question.options.join(" | "))?;
            }
        }
        write!(f, "; `supervisor answer {batch}/{id} TEXT`")?;
        match question {
            Some(question) => {
                let until = self.view.shown(question.deadline);
                write!(f, ", expires {}", self.view.time.ahead(until))
            }
            None => Ok(()),
        }
    }

    fn unresolved(&self, f: &mut fmt::Formatter<'_>, letter: Letter) -> fmt::Result {
        let what = match letter {
            Letter::F => "its result file can not be read: look at exit.json in its run's folder",
            Letter::G => "its host still lives and could not be ended",
            Letter::H => "its host belongs to another machine or namespace",
            Letter::A | Letter::B | Letter::C | Letter::D | Letter::E => "it waits for a ruling",
        };
        write!(f, "after a crash, row {letter:?}: {what}")?;
        self.hint(f, "; no other run may start beside it", "resume")
    }

    /// A step of the attempt other than its agent's work.
    fn step(&self, f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
        write!(f, "attempt {}: {what}", self.task.attempts)?;
        let step = self.task.attempt.as_ref().map(|attempt| attempt.step);
        match step.filter(|step| *step != Step::Prove) {
            Some(step) => write!(f, " ({})", step.word()),
            None => Ok(()),
        }
    }

    fn reviewing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {}: its work is reviewed", self.task.attempts)?;
        let review = self.view.spec(self.task).and_then(|spec| spec.review);
        let Some(review) = review else {
            return Ok(());
        };
        if let Some(agent) = self.view.facts.agents.get(review.agent.0 as usize) {
            write!(f, " by {}", agent.name)?;
        }
        match self.task.attempt.as_ref().map(|attempt| attempt.rounds) {
            Some(0) | None => Ok(()),
            Some(sent) => write!(f, ", sent back {sent} of {} times", review.rounds),
        }
    }

    fn proven(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "done by attempt {}", self.task.attempts)?;
        let verify = self.view.spec(self.task).is_some_and(|spec| spec.verify);
        if verify {
            f.write_str(", verify passed")?;
        }
        let summary = self
            .task
            .last
            .as_ref()
            .map_or("", |last| first_line(&last.summary));
        if !summary.is_empty() {
            write!(f, ": {summary}")?;
        }
        let (view, task) = (self.view, self.task);
        write!(f, "{}", MergeWhy { view, task })
    }
}

/// Where a dependency is: also its merge, where that is what is missing.
fn waited_for(view: &View<'_>, task: &Task) -> String {
    let state = view.task_state(task);
    match delivery::merge(task) {
        Some(merge) => format!("{state}, merge {}", merge.state),
        None => state.to_string(),
    }
}

impl fmt::Display for LastWhy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { view, task } = *self;
        let why = TaskWhy { view, task };
        let class = task.last.as_deref().map_or("not yet", outcome_word);
        why.last(f, class)?;
        if matches!(task.reason, TaskReason::Backoff(_)) {
            f.write_str("; once more")?;
            why.when(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for AccountWhy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (view, account) = (self.view, self.account);
        let name = &account.spec.name;
        match account.state {
            AccountState::Open => return write!(f, "account {name} is open"),
            AccountState::Limited => write!(f, "account {name} is limited")?,
            AccountState::Probing => write!(f, "one attempt probes account {name}")?,
            AccountState::Stopped => write!(f, "account {name} is stopped")?,
        }
        match account.reason {
            Some(AccountReason::Class(class)) => write!(f, " ({class})")?,
            Some(AccountReason::Operator) => f.write_str(" (by the operator)")?,
            Some(AccountReason::Reset | AccountReason::ProbeWentWell) | None => {}
        }
        if account.state == AccountState::Stopped {
            let batch = &view.facts.batch.id;
            return write!(f, "; put that right, then `supervisor resume {batch}`");
        }
        match account.until {
            Some(until) => write!(f, ", tried again {}", view.time.ahead(view.shown(until))),
            None => Ok(()),
        }
    }
}

/// The first line that says something.
pub fn first_line(text: &str) -> &str {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| !line.is_empty()).unwrap_or("")
}

/// The outcome of the last attempt, as a word.
pub fn outcome_word(outcome: &Outcome) -> &'static str {
    outcome.class.map_or("done", |class| class.word())
}
