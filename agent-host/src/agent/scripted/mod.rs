//! The `scripted` adapter: the embedded demo agent, which plays a script of steps.
//!
//! Steps do real things: they write files, run commands, wait for messages and ask questions. Some
//! misbehave on purpose, so that the supervisor's answers to misbehaviour can be tried.
//!
//! A message in `boundary` mode goes in between two steps, one in `interrupt` mode ends the current
//! step first, `wait_message` takes any. What went in before a `wait_message` is kept for it. A
//! resumed session begins the script from the top: the session's id stands for the task's files,
//! which are still there, and the script has no other memory.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use protocol::class::Class;
use protocol::command::{Answer, Message, ScriptedAdapter, Start};
use protocol::framing::LINE_MAX;
use protocol::ids::QuestionId;
use protocol::report::{
    Capabilities, EXCERPT_MAX, Receipt, ResultStatus, RunResult, SteerReach, Usage, excerpt,
};
use protocol::rpc::RpcError;
use protocol::script::{NESTING_MAX, STEPS_MAX, Script, Step};

use super::{Advance, Agent, Prompt};
use crate::clock;
use crate::mailbox::Moment;
use crate::process::Ended;
use crate::program::Program;
use crate::run::{Failure, Run, result};
use waiting::{Settled, Waiting};

mod step;
mod waiting;

/// Steps played in one go, before the pipe is served again.
const STEPS_AT_ONCE: usize = 64;

/// The demo agent.
pub(super) struct ScriptedAgent {
    /// Steps still to play, guards resolved as they are reached.
    steps: VecDeque<Step>,
    attempt: u32,
    session: String,
    /// What the current step waits for.
    waiting: Waiting,
    /// Messages that went in and that no `wait_message` has taken.
    heard: VecDeque<Message>,
    usage: Usage,
    /// How the script ends once its steps are used up.
    ending: RunResult,
    stop: StopState,
    life: Life,
}

/// What a stop means to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopState {
    Heeds,
    Stopped,
    Ignores,
}

/// How lively it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Plays,
    /// Between the turn's end and the result.
    Draining,
    Frozen,
}

impl ScriptedAgent {
    /// Reads the script.
    ///
    /// # Errors
    /// `setup_failed` when it is no script or beyond the limits.
    pub(super) fn new(adapter: &ScriptedAdapter, start: &Start) -> Result<Self, Failure> {
        let text = Run::text(&adapter.script)?;
        let script: Script = serde_json::from_str(&text).map_err(|error| {
            Failure::new(
                Class::SetupFailed,
                format!("the script can not be read: {error}"),
            )
        })?;
        let mut count = 0;
        check(&script.0, 0, &mut count)?;
        Ok(Self {
            steps: script.0.into(),
            attempt: start.attempt.0,
            session: format!("scripted-{}", start.task),
            waiting: Waiting::Nothing,
            heard: VecDeque::new(),
            usage: Usage::default(),
            ending: result(ResultStatus::Ok, None, "the script has ended"),
            stop: StopState::Heeds,
            life: Life::Plays,
        })
    }

    /// Takes in what may go in between two steps.
    fn boundary(&mut self, run: &mut Run) {
        while let Some(message) = run.inject_next(Moment::Boundary) {
            self.hear(run, message);
        }
    }

    fn hear(&mut self, run: &mut Run, message: Message) {
        run.seen(message.id);
        self.heard.push_back(message);
    }

    /// The next message, if there is one at all.
    fn next_message(&mut self, run: &mut Run) -> Option<Message> {
        if self.heard.is_empty()
            && let Some(message) = run.inject_next(Moment::Prompt)
        {
            self.hear(run, message);
        }
        self.heard.pop_front()
    }

    fn done(&self, mut ending: RunResult, run: &Run) -> Advance {
        ending.usage = self.usage;
        ending.session = Some(self.session.clone());
        if ending.status == ResultStatus::Failed && ending.evidence.is_empty() {
            ending.evidence = run.logs.evidence();
        }
        Advance::Done(Box::new(ending))
    }

    fn end(&self, run: &Run) -> Advance {
        match (self.life, self.ending.status) {
            (Life::Plays | Life::Frozen, ResultStatus::Ok) => Advance::TurnEnded,
            (Life::Draining, _) | (_, ResultStatus::Failed) => self.done(self.ending.clone(), run),
        }
    }
}

impl Agent for ScriptedAgent {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            steer: SteerReach::Interrupt,
            receipt: Receipt::Seen,
            interrupt: true,
            resume: true,
            questions: true,
            usage: true,
            cost: true,
        }
    }

    fn session(&self) -> Option<&str> {
        Some(&self.session)
    }

    fn takes_prompts(&self) -> bool {
        true
    }

    fn start(&mut self, _run: &mut Run) -> Result<(), Failure> {
        Ok(())
    }

    fn resume(&mut self, _run: &mut Run, session: &str) -> Result<(), Failure> {
        excerpt(session, EXCERPT_MAX).clone_into(&mut self.session);
        Ok(())
    }

    fn prompt(&mut self, run: &mut Run, prompt: Prompt) -> Result<(), Failure> {
        self.life = Life::Plays;
        for message in prompt.messages {
            self.hear(run, message);
        }
        Ok(())
    }

    fn steer(&mut self, run: &mut Run) {
        if run.mailbox.wants_interrupt() {
            self.interrupt(run);
        }
    }

    fn asked(&mut self, run: &mut Run, request: u64, outcome: Result<QuestionId, RpcError>) {
        let failure = self.waiting.asked(request, outcome);
        if let Some(failure) = failure {
            run.notice(&failure.text);
            self.ending = failure.into_result();
            self.steps.clear();
            self.waiting = Waiting::Nothing;
        }
    }

    fn answer(&mut self, run: &mut Run, answer: Answer) {
        match self.waiting.take_question(answer.question) {
            Some(step) => {
                let text = answer.text.unwrap_or_default();
                if let Err(failure) = step::save(run, step.save_to.as_deref(), &text) {
                    self.ending = failure.into_result();
                    self.steps.clear();
                }
            }
            None => run.notice(&format!(
                "an answer came to {}, which is not open",
                answer.question
            )),
        }
    }

    fn interrupt(&mut self, _run: &mut Run) {
        self.waiting.interrupt();
    }

    fn stop(&mut self, _run: &mut Run) {
        self.stop = StopState::Stopped;
        self.steps.clear();
        self.ending = result(ResultStatus::Failed, Some(Class::Cancelled), "stopped");
        self.waiting.interrupt();
    }

    fn heeds_stop(&self) -> bool {
        self.stop != StopState::Ignores
    }

    fn is_frozen(&self) -> bool {
        self.life == Life::Frozen
    }

    fn advance(&mut self, run: &mut Run, now: Instant) -> Advance {
        for _ in 0..STEPS_AT_ONCE {
            match self.settle(run, now) {
                Settled::Waits(until) => return Advance::Waits(until),
                Settled::Busy => return Advance::Again,
                Settled::Free => {}
                Settled::Failed(ending) => {
                    self.steps.clear();
                    self.ending = *ending;
                }
            }
            if self.stop != StopState::Stopped {
                self.boundary(run);
            }
            let Some(step) = self.steps.pop_front() else {
                return self.end(run);
            };
            match self.begin(step, run, now) {
                Ok(None) => {}
                Ok(Some(leaves)) => return leaves,
                Err(failure) => {
                    self.steps.clear();
                    self.ending = failure.into_result();
                }
            }
            if self.is_frozen() {
                return Advance::Waits(None);
            }
        }
        Advance::Again
    }

    fn drain(&mut self, _run: &mut Run) {
        self.life = Life::Draining;
    }

    fn program(&mut self) -> Option<&mut Program> {
        match &mut self.waiting {
            Waiting::Program { program, .. } => Some(program),
            Waiting::Nothing
            | Waiting::Until(_)
            | Waiting::Message { .. }
            | Waiting::Question { .. }
            | Waiting::Printing(_)
            | Waiting::Closing
            | Waiting::Forever => None,
        }
    }
}

/// Refuses a script beyond the limits.
fn check(steps: &[Step], depth: usize, count: &mut usize) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::new(Class::SetupFailed, text));
    if depth > NESTING_MAX {
        return refuse(format!("the script nests deeper than {NESTING_MAX}"));
    }
    *count += steps.len();
    if *count > STEPS_MAX {
        return refuse(format!("the script has more than {STEPS_MAX} steps"));
    }
    for step in steps {
        if let Step::OnAttempt(groups) = step {
            for group in groups.values() {
                check(group, depth + 1, count)?;
            }
        }
    }
    Ok(())
}
