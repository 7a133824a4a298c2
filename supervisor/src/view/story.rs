//! `explain`: one record of the journal as one line of a story.

use std::time::Duration;

use protocol::ids::Generation;
use protocol::report::RunResult;
use supervisor_core::containment::{Cleared, Containment};
use supervisor_core::facts::{Facts, Footprint, Round};
use supervisor_core::identity::Exit;
use supervisor_core::machine::AccountState;
use supervisor_core::plan::{AccountIx, RepoIx, TaskIx};
use supervisor_core::reason::{AccountReason, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::{
    AttemptEnded, AttemptStarted, Entry, Next, PlanRevised, Record, StopReason,
};

use supervisor_core::step::{Purpose, Step};

use crate::view::delivery;
use crate::view::family;
use crate::view::reason::first_line;
use crate::view::time::Span;

/// Longest evidence in a line, bytes: its end says what went wrong, the run's files have all of it.
const EVIDENCE_MAX: usize = 400;

/// Whom a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The whole batch.
    Batch,
    /// One task.
    Task(TaskIx),
    /// A round of merges, and with it each of these tasks.
    Round(Vec<TaskIx>),
}

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Whom it is about.
    pub about: About,
    /// The record's kind, for scripts.
    pub record: &'static str,
    /// The sentence.
    pub text: String,
}

/// The line of one record; `before` is the state that it was applied to.
pub fn line(before: Option<&Facts>, entry: &Entry) -> Line {
    let past = Past { before };
    Line {
        about: past.about(&entry.record),
        record: word(&entry.record),
        text: past.text(&entry.record),
    }
}

/// The word of a record's kind.
fn word(record: &Record) -> &'static str {
    match record {
        Record::BatchCreated(_) => "batch_created",
        Record::PlanExtended { .. } => "plan_extended",
        Record::PlanClosed => "plan_closed",
        Record::PlanRevised(_) => "plan_revised",
        Record::TaskRevised { .. } => "task_revised",
        Record::TaskRemoved { .. } => "task_removed",
        Record::SupervisorStarted { .. } => "supervisor_started",
        Record::SupervisorReplaced { .. } => "supervisor_replaced",
        Record::ClockGap { .. } => "clock_gap",
        Record::BatchMoved { .. } => "batch_moved",
        Record::TaskMoved { .. } => "task_moved",
        Record::AttemptStarted(_) => "attempt_started",
        Record::RunIntended { .. } => "run_intended",
        Record::RunSpawned { .. } => "run_spawned",
        Record::RunStarted { .. } => "run_started",
        Record::StopDecided { .. } => "stop_decided",
        Record::RunFinished { .. } => "run_finished",
        Record::RunEnded { .. } => "run_ended",
        Record::RunReconciled { .. } => "run_reconciled",
        Record::AttemptEnded(_) => "attempt_ended",
        Record::TaskEnded { .. } => "task_ended",
        Record::Reopened { .. } => "reopened",
        Record::MessageQueued { .. } => "message_queued",
        Record::MessageMoved { .. } => "message_moved",
        Record::QuestionOpened { .. } => "question_opened",
        Record::QuestionMoved { .. } => "question_moved",
        Record::AccountMoved { .. } => "account_moved",
        Record::UsageNoted { .. } => "usage_noted",
        Record::RoundBegan { .. } => "round_began",
        Record::RoundMoved { .. } => "round_moved",
        Record::RoundEnded { .. } => "round_ended",
        Record::MergeMoved { .. } => "merge_moved",
        Record::CleanMoved { .. } => "clean_moved",
        Record::CleanEnded { .. } => "clean_ended",
        Record::CommentMoved { .. } => "comment_moved",
        Record::ConcurrencySet { .. } => "concurrency_set",
    }
}

/// The state before the record: it still knows what the record ends.
struct Past<'a> {
    before: Option<&'a Facts>,
}

impl Past<'_> {
    fn name(&self, ix: TaskIx) -> String {
        let task = self.before.and_then(|facts| facts.tasks.get(ix.0 as usize));
        task.map_or_else(|| format!("#{}", ix.0), |task| task.id.to_string())
    }

    fn about(&self, record: &Record) -> About {
        let facts = self.before;
        let task = match record {
            Record::BatchCreated(_)
            | Record::PlanRevised(_)
            | Record::PlanExtended { .. }
            | Record::PlanClosed
            | Record::SupervisorStarted { .. }
            | Record::SupervisorReplaced { .. }
            | Record::ClockGap { .. }
            | Record::BatchMoved { .. }
            | Record::AccountMoved { .. }
            | Record::ConcurrencySet { .. } => None,
            Record::TaskRevised { task, .. }
            | Record::TaskRemoved { task }
            | Record::TaskMoved { task, .. }
            | Record::MergeMoved { task, .. }
            | Record::CleanMoved { task, .. }
            | Record::CleanEnded { task, .. }
            | Record::CommentMoved { task, .. }
            | Record::TaskEnded { task, .. }
            | Record::Reopened { task, .. }
            | Record::MessageQueued { task, .. }
            | Record::QuestionOpened { task, .. } => Some(*task),
            Record::RoundBegan { tasks, .. } => return About::Round(tasks.clone()),
            Record::RoundMoved { repo, .. } | Record::RoundEnded { repo, .. } => {
                return self.round(*repo);
            }
            Record::RunIntended { task, purpose, .. } => return self.of_run(*task, *purpose),
            Record::AttemptStarted(started) => Some(started.task),
            Record::AttemptEnded(ended) => Some(ended.task),
            Record::RunSpawned { generation, .. }
            | Record::RunStarted { generation, .. }
            | Record::StopDecided { generation, .. }
            | Record::RunFinished { generation, .. }
            | Record::RunEnded { generation, .. }
            | Record::RunReconciled { generation, .. }
            | Record::UsageNoted { generation, .. } => {
                let run = facts.and_then(|facts| facts.runs.get(generation));
                return run.map_or(About::Batch, |run| self.of_run(run.task, run.purpose));
            }
            Record::MessageMoved { id, .. } => {
                let message = facts.and_then(|facts| facts.messages.get(id));
                message.map(|message| message.task)
            }
            Record::QuestionMoved { id, .. } => {
                let question = facts.and_then(|facts| facts.questions.get(id));
                question.map(|question| question.task)
            }
        };
        task.map_or(About::Batch, About::Task)
    }

    /// A run of a round is every one's whose merge it is about.
    fn of_run(&self, task: TaskIx, purpose: Purpose) -> About {
        match purpose {
            Purpose::Merge(repo, _) => self.round(repo),
            Purpose::Step(_) | Purpose::Clean(_) | Purpose::Comment(_) => About::Task(task),
        }
    }

    fn round(&self, repo: RepoIx) -> About {
        let repo = self
            .before
            .and_then(|facts| facts.repos.get(repo.0 as usize));
        let round = repo.and_then(|repo| repo.round.as_ref());
        About::Round(round.map_or_else(Vec::new, |round| round.tasks.clone()))
    }

    /// The number of a run, after what it is for where that is not the agent's work.
    fn run(&self, run: Generation) -> String {
        let known = self.before.and_then(|facts| facts.runs.get(&run));
        match known.map(|known| known.purpose) {
            Some(Purpose::Step(Step::Work)) | None => format!("run {run}"),
            Some(purpose) => format!("{} run {run}", delivery::purpose(self.before, purpose)),
        }
    }

    fn revised(&self, ix: TaskIx) -> String {
        let task = self.before.and_then(|facts| facts.tasks.get(ix.0 as usize));
        let said = match task.is_some_and(|task| task.attempt.is_some()) {
            true => "takes the rules of the edited batch file with its next attempt",
            false => "took the rules of the edited batch file",
        };
        said.to_owned()
    }

    fn text(&self, record: &Record) -> String {
        if let Some(text) = self.delivery(record) {
            return text;
        }
        match record {
            Record::BatchCreated(created) => format!("batch {} was created", created.id),
            Record::PlanExtended { tasks, .. } => format!("{} tasks were planned", tasks.len()),
            Record::PlanClosed => "the plan is whole".to_owned(),
            Record::PlanRevised(revised) => plan_revised(revised),
            Record::TaskRevised { task, .. } => self.revised(*task),
            Record::TaskRemoved { .. } => "the batch file no longer has it".to_owned(),
            Record::SupervisorStarted { term, identity, .. } => {
                format!("supervisor pid {} took over (term {term})", identity.pid)
            }
            Record::SupervisorReplaced { build } => {
                format!("the supervisor became {build} in place")
            }
            Record::ClockGap { gap } => format!("the supervisor was away for {}", Span(*gap)),
            Record::BatchMoved { to, reason } => format!("{to}: {}", self.batch_phrase(*reason)),
            Record::TaskMoved { to, reason, .. } | Record::TaskEnded { to, reason, .. } => {
                format!("{to}: {}", self.phrase(*reason))
            }
            Record::AttemptStarted(started) => attempt_started(started),
            Record::AttemptEnded(ended) => self.attempt_ended(ended),
            Record::RunIntended {
                generation: run,
                purpose,
                ..
            } => {
                let purpose = delivery::purpose(self.before, *purpose);
                format!("{purpose} run {run} was decided")
            }
            Record::RunSpawned {
                generation: run,
                identity,
                containment,
            } => run_spawned(&self.run(*run), identity.pid, containment),
            Record::RunStarted {
                generation: run, ..
            } => {
                format!("{}: {}", self.run(*run), self.begun(*run))
            }
            Record::StopDecided {
                generation: run,
                reason,
                grace,
            } => stop_decided(&self.run(*run), *reason, *grace),
            Record::RunFinished { generation, result } => {
                run_finished(&self.run(*generation), result)
            }
            Record::RunEnded {
                generation: run,
                exit,
                cleared,
                footprint,
                ..
            } => run_ended(&self.run(*run), *exit, cleared, *footprint),
            Record::RunReconciled {
                generation: run,
                letter,
                cleared,
            } => reconciled(&self.run(*run), *letter, cleared),
            Record::UsageNoted { generation, usage } => {
                format!("run {generation}: {} tokens used so far", usage.tokens)
            }
            Record::Reopened { mode, .. } => format!("by the operator, to {}", mode.word()),
            Record::MessageQueued { .. } => self.message_queued(record),
            Record::MessageMoved { id, to, .. } => format!("message {id} {to}"),
            Record::QuestionOpened { id, text, .. } => sentence(&format!("asks {id}"), text),
            Record::QuestionMoved { id, to, answer } => sentence(
                &format!("question {id} {to}"),
                answer.as_deref().unwrap_or(""),
            ),
            Record::AccountMoved {
                account,
                to,
                reason,
                ..
            } => self.account_moved(*account, *to, *reason),
            Record::ConcurrencySet { concurrency } => format!("concurrency is now {concurrency}"),
            Record::RoundBegan { .. }
            | Record::RoundMoved { .. }
            | Record::RoundEnded { .. }
            | Record::MergeMoved { .. }
            | Record::CleanMoved { .. }
            | Record::CleanEnded { .. }
            | Record::CommentMoved { .. } => String::new(),
        }
    }

    fn message_queued(&self, record: &Record) -> String {
        let Record::MessageQueued {
            id,
            mode,
            text,
            from,
            ..
        } = record
        else {
            return String::new();
        };
        let from = from.map_or_else(String::new, |from| format!(" from {}", self.name(from)));
        let said = format!("message {id}{from} queued ({})", mode.word());
        sentence(&said, text)
    }

    /// What becomes of done work; `None` where the record is about something else.
    fn delivery(&self, record: &Record) -> Option<String> {
        let text = if let Record::RoundBegan { repo, stage, tasks } = record {
            delivery::round_began(self.before, *repo, *stage, tasks)
        } else if let Record::RoundMoved { repo, .. } = record {
            self.round_moved(*repo, record)
        } else if let Record::RoundEnded { repo, share } = record {
            delivery::round_ended(self.before, *repo, *share)
        } else if let Record::MergeMoved {
            to, merged, detail, ..
        } = record
        {
            delivery::merge_moved(*to, merged.as_ref(), detail)
        } else if let Record::CleanMoved { step, kept, .. } = record {
            delivery::clean_moved(*step, kept.as_ref())
        } else if let Record::CleanEnded {
            removed, detail, ..
        } = record
        {
            delivery::clean_ended(*removed, detail)
        } else if let Record::CommentMoved { on, to, detail, .. } = record {
            delivery::comment_moved(*on, *to, detail)
        } else {
            return None;
        };
        Some(text)
    }

    /// The round as it is from this record on.
    fn round_moved(&self, repo: RepoIx, record: &Record) -> String {
        let before = self
            .before
            .and_then(|facts| facts.repos.get(repo.0 as usize));
        let before = before.and_then(|repo| repo.round.clone());
        let Record::RoundMoved {
            stage,
            tip,
            commits,
            good,
            bad,
            detail,
            ..
        } = record
        else {
            return String::new();
        };
        let now = Round {
            verify: before.as_ref().is_some_and(|round| round.verify),
            stage: *stage,
            run: None,
            runs: 0,
            tasks: before.map_or_else(Vec::new, |round| round.tasks),
            tip: tip.clone(),
            commits: commits.clone(),
            good: *good,
            bad: *bad,
            detail: detail.clone(),
        };
        delivery::round_moved(self.before, repo, &now)
    }

    /// What of a run begins with its start.
    fn begun(&self, run: Generation) -> &'static str {
        let known = self.before.and_then(|facts| facts.runs.get(&run));
        match known.is_none_or(|known| known.purpose.is_agent()) {
            true => "the agent's program runs",
            false => "it runs",
        }
    }

    fn batch_phrase(&self, reason: BatchReason) -> String {
        match reason {
            BatchReason::Working => "its supervisor works on it".to_owned(),
            BatchReason::Operator => "the operator said so".to_owned(),
            BatchReason::Limit(_) => "a limit of the batch was reached".to_owned(),
            BatchReason::Disk => "the disk was full or could not be written".to_owned(),
            BatchReason::TaskFailed(task) => format!("task {} failed", self.name(task)),
            BatchReason::MergeFailed(task) => format!("the merge of {} failed", self.name(task)),
            BatchReason::TooManyFailures => "more tasks failed than allowed".to_owned(),
            BatchReason::NothingStarts => "no host could be started".to_owned(),
            BatchReason::Until => "`until` had come".to_owned(),
            BatchReason::Drain => "a signal said to drain".to_owned(),
            BatchReason::Stop => "a signal or a command stopped what ran".to_owned(),
            BatchReason::NeedsPerson => "what was left waited for the operator".to_owned(),
            BatchReason::Settled => "every task was settled".to_owned(),
        }
    }

    fn attempt_ended(&self, ended: &AttemptEnded) -> String {
        let class = ended.class.map_or("done", |class| class.word());
        let counts = match (ended.class, ended.consumed) {
            (Some(_), true) => " (counts)",
            (Some(_), false) => " (does not count)",
            (None, _) => "",
        };
        let what = format!("attempt {} ended {class}{counts}", ended.attempt);
        let mut text = sentence(&what, &ended.detail);
        match &ended.next {
            Next::End { .. } => {}
            Next::Retry { mode, .. } => {
                text.push_str("; another follows, to ");
                text.push_str(mode.word());
                if let Some(model) = self.model(ended) {
                    text.push_str(&format!(" with model {model}"));
                }
            }
            Next::Hold { reason, .. } => {
                text.push_str("; held: ");
                text.push_str(&self.phrase(*reason));
            }
        }
        text
    }

    /// The name of the model with which the next attempt goes on, where that is another one.
    fn model(&self, ended: &AttemptEnded) -> Option<&str> {
        let facts = self.before?;
        let task = facts.tasks.get(ended.task.0 as usize)?;
        let spec = facts.specs.get(task.spec.0 as usize)?;
        let agent = facts.agents.get(spec.agent.0 as usize)?;
        Some(agent.models.get(ended.model? as usize)?)
    }

    fn account_moved(&self, ix: AccountIx, to: AccountState, reason: AccountReason) -> String {
        let accounts = self.before.map_or(&[][..], |facts| &facts.accounts);
        let name = accounts
            .get(ix.0 as usize)
            .map_or("?", |account| &account.spec.name);
        let why = match reason {
            AccountReason::Class(class) => class.word(),
            AccountReason::Reset => "its wait is over",
            AccountReason::ProbeWentWell => "the probe went well",
            AccountReason::Operator => "the operator said so",
        };
        format!("account {name} {to}: {why}")
    }

    /// A task's reason at that moment, without advice: the story is about what was.
    fn phrase(&self, reason: TaskReason) -> String {
        match reason {
            TaskReason::New => "not looked at yet".to_owned(),
            TaskReason::Dependencies => "its dependencies come first".to_owned(),
            TaskReason::Touches(task) => format!("{} touches the same files", self.name(task)),
            TaskReason::NotBefore => "the batch file says not before its date".to_owned(),
            TaskReason::Lane => "waits for a lane".to_owned(),
            TaskReason::Backoff(class) => format!("waits after {class}"),
            TaskReason::AccountLimited => "its account is limited".to_owned(),
            TaskReason::AccountStopped => "its account is stopped".to_owned(),
            TaskReason::Preparing => "it is prepared".to_owned(),
            TaskReason::Working => "its agent works".to_owned(),
            TaskReason::Proving => "its proof is made".to_owned(),
            TaskReason::Reviewing => "its work is reviewed".to_owned(),
            TaskReason::Question(id) => format!("question {id} waits for the operator"),
            TaskReason::Operator => "held by the operator".to_owned(),
            TaskReason::Killed => "killed by the operator".to_owned(),
            TaskReason::Interrupted => "its supervisor was stopped".to_owned(),
            TaskReason::Unresolved(letter) => ruling(letter).to_owned(),
            TaskReason::NeedsOperator(class) => format!("{class} needs the operator"),
            TaskReason::Proven => "agent and proof say so".to_owned(),
            TaskReason::AsDone => "the operator said that it is done".to_owned(),
            TaskReason::Failed(class) => format!("{class}, and no other attempt follows"),
            TaskReason::Quarantined => "lost again and again without progress".to_owned(),
            TaskReason::DependencyFailed(task) => format!("{} was not done", self.name(task)),
            TaskReason::SkippedByOperator => "the operator said so".to_owned(),
            TaskReason::CancelledByOperator => "the operator said so".to_owned(),
            TaskReason::BatchStopped => "the batch stopped before it was tried".to_owned(),
            TaskReason::NotSelected => "`--only` did not name it".to_owned(),
            TaskReason::Removed => "the batch file no longer has it".to_owned(),
            TaskReason::Reopened => "reopened by the operator".to_owned(),
        }
    }
}

fn plan_revised(revised: &PlanRevised) -> String {
    let number = revised.revision;
    format!("took the edited batch file (revision {number})")
}

fn attempt_started(started: &AttemptStarted) -> String {
    let (attempt, slot) = (started.attempt, started.slot);
    let (mode, run) = (started.mode.word(), started.generation);
    let purpose = match started.step {
        Step::Work => String::new(),
        step => format!("{} ", delivery::purpose(None, Purpose::Step(step))),
    };
    format!("attempt {attempt} began in lane {slot} ({mode}, {purpose}run {run})")
}

fn stop_decided(run: &str, reason: StopReason, grace: Duration) -> String {
    let (reason, grace) = (reason.word(), Span(grace));
    format!("{run}: told to end: {reason}, grace {grace}")
}

fn reconciled(run: &str, letter: Letter, cleared: &Cleared) -> String {
    let (row, ruling) = (letter.word(), ruling(letter));
    format!("{run} after a crash, row {row}: {ruling}; {cleared}")
}

fn run_finished(run: &str, result: &RunResult) -> String {
    let class = result.class.map_or("ok", |class| class.word());
    let files = match result.artifacts.as_slice() {
        [] => String::new(),
        files => format!(" (files: {})", files.join(", ")),
    };
    let what = format!("{run}: result {class}{}{files}", delivery::done(result));
    let told = sentence(&what, &result.summary);
    let evidence = result.evidence.split_whitespace().collect::<Vec<_>>();
    if result.class.is_none() || evidence.is_empty() {
        return told;
    }
    let evidence = evidence.join(" ");
    let cut = evidence.len().saturating_sub(EVIDENCE_MAX);
    let end = &evidence[evidence.ceil_char_boundary(cut)..];
    let mark = if cut > 0 { "…" } else { "" };
    format!("{told}; evidence: {mark}{end}")
}

fn run_spawned(run: &str, pid: u32, containment: &Containment) -> String {
    let memory = containment.memory.map_or_else(String::new, |keeper| {
        format!("; its memory limit is {}", family::kept(keeper))
    });
    let layers = containment.layers;
    format!("{run}: host pid {pid} waits to start, held by {layers}{memory}")
}

fn run_ended(run: &str, exit: Exit, cleared: &Cleared, footprint: Footprint) -> String {
    let exit = exit_words(exit);
    let used = match footprint == Footprint::default() {
        true => String::new(),
        false => format!("; its family used {}", family::used(footprint)),
    };
    format!("{run}: its host is gone ({exit}); {cleared}{used}")
}

fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unseen => "nobody watched".to_owned(),
    }
}

/// What a row of the reconcile table means.
pub fn ruling(letter: Letter) -> &'static str {
    match letter {
        Letter::A => "its durable result is taken over",
        Letter::B => "its result is archived; it ends as it was stopped",
        Letter::C => "lost before it began",
        Letter::D => "lost: neither a host nor a result is left",
        Letter::E => "it ends as it was stopped",
        Letter::F => "refused: its result file can not be read",
        Letter::G => "refused: its host still lives",
        Letter::H => "refused: its host belongs to another machine or namespace",
    }
}

/// A statement and, where there is one, the first line of what was said.
fn sentence(what: &str, said: &str) -> String {
    match first_line(said) {
        "" => what.to_owned(),
        said => format!("{what}: {said}"),
    }
}
