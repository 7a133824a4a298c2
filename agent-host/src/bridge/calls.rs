//! What calls of the agent come to, without a socket: calls and answers in, acts out.
//!
//! The one promise of this file: no answer of the operator is lost. It is kept with its question, and
//! goes to the call that waits, to the next call that names the question, to whoever reads the
//! mailbox, or into the agent's next turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::bounds::{OPTIONS_MAX, QUESTION_MAX};
use protocol::bridge::{
    Call, ERROR_ENDING, ERROR_REFUSED, LateAnswer, REPEATED_MAX, Reply, SENDS_MAX, TEXT_MAX,
    WAIT_MAX_MS,
};
use protocol::class::Class;
use protocol::command::RunKind;
use protocol::ids::{QuestionId, TaskId};
use protocol::report::{
    EXCERPT_MAX, Event, Progress, ResultStatus, RunResult, Said, TaskLine, Verdict, excerpt,
};
use protocol::rpc::{ERROR_BAD_PARAMS, RpcError};

use crate::run::NO_REVIEW;

/// Calls that one run may make; further ones are refused. Each may become a report, and an agent in
/// a loop must come to an end.
pub(super) const CALLS_MAX: u32 = 10_000;
/// Number of the bridge's first request to the supervisor: far above those of any adapter, which
/// count from 1, so that one look at an answer's number tells whose it is.
const REQUESTS_FROM: u64 = 1 << 40;
/// Longest wait for the supervisor's answer to a request. It answers within milliseconds, unless
/// its disk hangs; the caller must hear of it before it gives up by itself.
const REQUEST_WAIT: Duration = Duration::from_secs(45);
/// Longest wait for the operator's answer.
const ANSWER_WAIT: Duration = Duration::from_millis(WAIT_MAX_MS);

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    /// Its connection.
    pub(super) connection: u64,
    /// The number of its request.
    pub(super) id: u64,
}

/// What is to be done for a call.
#[derive(Debug, PartialEq)]
pub(super) enum Act {
    /// Answer it.
    Answer(Caller, Reply),
    /// Refuse it.
    Refuse(Caller, RpcError),
    /// Report this.
    Report(Event),
    /// Ask the supervisor, under this number.
    Request(u64, Upward),
    /// Hand it the mailbox, and these answers.
    HandMailbox(Caller, Vec<LateAnswer>),
    /// See whether the files that it names are there; then [`Calls::claim`].
    CheckFiles(Caller, Claim),
}

/// A request to the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Upward {
    /// A question to the operator.
    Ask {
        /// The question.
        question: String,
        /// Answers to choose from.
        options: Vec<String>,
    },
    /// A message to another task.
    Send {
        /// The task.
        to: TaskId,
        /// The text.
        text: String,
    },
    /// The tasks of the batch.
    Tasks,
}

/// The supervisor's answer to a request.
#[derive(Debug)]
pub(super) enum Answered {
    /// The question's id.
    Question(QuestionId),
    /// The message's id.
    Message(protocol::ids::MessageId),
    /// The tasks.
    Tasks(protocol::report::Tasks),
}

/// The agent's own word on its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// Whether it went well.
    pub(super) status: ResultStatus,
    /// What was done, or why not.
    pub(super) summary: String,
    /// Files that prove it.
    pub(super) artifacts: Vec<String>,
    /// What it says of another agent's work; only in a review.
    pub(super) verdict: Option<Verdict>,
}

/// A request that the supervisor has not answered.
#[derive(Debug)]
struct Asking {
    /// Who waits for it; nobody any more, once the caller went away or was told to.
    caller: Option<Caller>,
    until: Instant,
    request: Upward,
}

/// A question that the supervisor knows.
#[derive(Debug, Default)]
struct Question {
    text: String,
    /// How it was settled: with an answer, or without one.
    settled: Option<Option<String>>,
    /// Somebody has the answer.
    taken: bool,
    waiting: Vec<(Caller, Instant)>,
}

/// All calls of one run.
#[derive(Debug, Default)]
pub(super) struct Calls {
    made: u32,
    sent: u32,
    requests: u64,
    asking: BTreeMap<u64, Asking>,
    /// At most as many as the supervisor lets one run ask.
    questions: BTreeMap<QuestionId, Question>,
    claim: Option<Claim>,
    /// Whether the agent judges another one's work.
    reviews: bool,
}

fn refused(text: impl Into<String>) -> RpcError {
    error(ERROR_REFUSED, text)
}

fn error(code: i64, text: impl Into<String>) -> RpcError {
    let message = text.into();
    RpcError { code, message }
}

/// A text within its length.
fn checked(what: &str, text: String, max: usize) -> Result<String, RpcError> {
    match text.len() {
        0 => Err(error(ERROR_BAD_PARAMS, format!("{what} is empty"))),
        length if length > max => {
            let said = format!("{what} is {length} bytes long, the limit is {max}");
            Err(error(ERROR_BAD_PARAMS, said))
        }
        _ => Ok(text),
    }
}

impl Calls {
    /// The calls of a run of this kind.
    pub(super) fn of(kind: RunKind) -> Self {
        Self {
            reviews: kind == RunKind::Review,
            ..Self::default()
        }
    }

    /// A call came.
    pub(super) fn call(&mut self, caller: Caller, call: Call, now: Instant) -> Vec<Act> {
        self.made = self.made.saturating_add(1);
        let acts = if self.made > CALLS_MAX {
            Err(refused(format!("a run may make {CALLS_MAX} calls")))
        } else {
            self.begin(caller, call, now)
        };
        acts.unwrap_or_else(|error| vec![Act::Refuse(caller, error)])
    }

    fn begin(&mut self, caller: Caller, call: Call, now: Instant) -> Result<Vec<Act>, RpcError> {
        match call {
            // Answered by the socket, which knows the token.
            Call::Hello { .. } => Ok(vec![Act::Answer(caller, Reply::Done {})]),
            Call::ReportProgress { text, percent } => progress(caller, text, percent),
            Call::AskOperator {
                question_id: Some(id),
                ..
            } => self.wait_on(caller, id, now),
            Call::AskOperator {
                question, options, ..
            } => self.ask(caller, question, options, now),
            Call::SendMessage { to, text, urgent } => self.send(caller, to, text, urgent, now),
            Call::ReadMailbox {} => {
                let late = self.take_late();
                Ok(vec![Act::HandMailbox(caller, late)])
            }
            Call::TaskResult {
                status,
                summary,
                artifacts,
                verdict,
            } => {
                let summary = checked("the summary", summary, TEXT_MAX)?;
                if verdict.is_some() && !self.reviews {
                    return Err(refused(NO_REVIEW));
                }
                let claim = Claim {
                    status,
                    summary,
                    artifacts,
                    verdict,
                };
                Ok(vec![Act::CheckFiles(caller, claim)])
            }
            Call::ListTasks {} => Ok(vec![self.request(caller, Upward::Tasks, now)]),
        }
    }

    fn ask(
        &mut self,
        caller: Caller,
        question: String,
        options: Vec<String>,
        now: Instant,
    ) -> Result<Vec<Act>, RpcError> {
        let question = checked("the question", question, QUESTION_MAX)?;
        if options.len() > OPTIONS_MAX || options.iter().any(|one| one.len() > EXCERPT_MAX) {
            let said =
                format!("a question has at most {OPTIONS_MAX} options of {EXCERPT_MAX} bytes");
            return Err(error(ERROR_BAD_PARAMS, said));
        }
        let ask = Upward::Ask { question, options };
        Ok(vec![self.request(caller, ask, now)])
    }

    fn send(
        &mut self,
        caller: Caller,
        to: Option<String>,
        text: String,
        urgent: bool,
        now: Instant,
    ) -> Result<Vec<Act>, RpcError> {
        let text = checked("the message", text, TEXT_MAX)?;
        let Some(to) = to.filter(|to| !to.is_empty() && to != "operator") else {
            let said = Said { text };
            let event = if urgent {
                Event::Escalation(said)
            } else {
                Event::Reply(said)
            };
            return Ok(vec![
                Act::Report(event),
                Act::Answer(caller, Reply::Done {}),
            ]);
        };
        let to: TaskId = to
            .parse()
            .map_err(|bad: protocol::ids::BadId| error(ERROR_BAD_PARAMS, bad.to_string()))?;
        if self.sent >= SENDS_MAX {
            let said = format!("a run may send {SENDS_MAX} messages to other tasks");
            return Err(refused(said));
        }
        self.sent += 1;
        Ok(vec![self.request(caller, Upward::Send { to, text }, now)])
    }

    fn request(&mut self, caller: Caller, request: Upward, now: Instant) -> Act {
        let id = REQUESTS_FROM + self.requests;
        self.requests += 1;
        let asking = Asking {
            caller: Some(caller),
            until: now + REQUEST_WAIT,
            request: request.clone(),
        };
        self.asking.insert(id, asking);
        Act::Request(id, request)
    }

    /// Waits for the answer to an earlier question.
    fn wait_on(
        &mut self,
        caller: Caller,
        id: QuestionId,
        now: Instant,
    ) -> Result<Vec<Act>, RpcError> {
        let Some(question) = self.questions.get_mut(&id) else {
            return Err(refused(format!("this run did not ask {id}")));
        };
        question.waiting.push((caller, now + ANSWER_WAIT));
        Ok(question.tell(id))
    }

    /// Whether a request of this number is ours.
    pub(super) fn is_ours(request: u64) -> bool {
        request >= REQUESTS_FROM
    }

    /// What was asked of the supervisor under this number.
    pub(super) fn requested(&self, request: u64) -> Option<&Upward> {
        self.asking.get(&request).map(|asking| &asking.request)
    }

    /// The supervisor answered a request.
    pub(super) fn answered(
        &mut self,
        request: u64,
        outcome: Result<Answered, RpcError>,
        now: Instant,
    ) -> Vec<Act> {
        let Some(asking) = self.asking.remove(&request) else {
            return Vec::new();
        };
        let answered = match outcome {
            Ok(Answered::Question(id)) => return self.asked(id, asking, now),
            Ok(Answered::Message(message_id)) => Ok(Reply::Sent { message_id }),
            Ok(Answered::Tasks(tasks)) => Ok(tasks_reply(tasks)),
            Err(why) => Err(refused(why.message)),
        };
        let Some(caller) = asking.caller else {
            return Vec::new();
        };
        vec![match answered {
            Ok(reply) => Act::Answer(caller, reply),
            Err(error) => Act::Refuse(caller, error),
        }]
    }

    fn asked(&mut self, id: QuestionId, asking: Asking, now: Instant) -> Vec<Act> {
        let Upward::Ask { question, .. } = asking.request else {
            return Vec::new();
        };
        let known = self.questions.entry(id).or_default();
        known.text = excerpt(&question, REPEATED_MAX);
        let caller = asking.caller.into_iter();
        known
            .waiting
            .extend(caller.map(|caller| (caller, now + ANSWER_WAIT)));
        known.tell(id)
    }

    /// The operator answered, or the question is over without an answer. `None`: it is not ours.
    pub(super) fn settle(&mut self, id: QuestionId, answer: Option<String>) -> Option<Vec<Act>> {
        let question = self.questions.get_mut(&id)?;
        question.settled = Some(answer);
        Some(question.tell(id))
    }

    /// A connection is gone, and with it its calls.
    pub(super) fn gone(&mut self, connection: u64) {
        for asking in self.asking.values_mut() {
            asking.caller = asking
                .caller
                .filter(|caller| caller.connection != connection);
        }
        for question in self.questions.values_mut() {
            let waiting = &mut question.waiting;
            waiting.retain(|(caller, _)| caller.connection != connection);
        }
    }

    /// When a call has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        let asking = self.asking.values();
        let asking = asking.filter_map(|asking| asking.caller.map(|_| asking.until));
        let waiting = self.questions.values().flat_map(|one| &one.waiting);
        asking.chain(waiting.map(|(_, until)| *until)).min()
    }

    /// Tells calls that have waited long enough.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Act> {
        let mut acts = Vec::new();
        for asking in self.asking.values_mut() {
            if asking.until <= now
                && let Some(caller) = asking.caller.take()
            {
                let said = "the supervisor has not answered; what was asked may still be done";
                acts.push(Act::Refuse(caller, refused(said)));
            }
        }
        for (id, question) in &mut self.questions {
            let over = question.waiting.extract_if(.., |(_, until)| *until <= now);
            acts.extend(over.map(|(caller, _)| Act::Answer(caller, pending(*id))));
        }
        acts
    }

    /// The run ends: nobody is left waiting.
    pub(super) fn end(&mut self) -> Vec<Act> {
        let asking = self.asking.values_mut();
        let mut callers: Vec<Caller> = asking.filter_map(|asking| asking.caller.take()).collect();
        let questions = self.questions.values_mut();
        callers.extend(questions.flat_map(|one| one.waiting.drain(..).map(|(caller, _)| caller)));
        let ending = || error(ERROR_ENDING, "the run is ending");
        let callers = callers.into_iter();
        callers
            .map(|caller| Act::Refuse(caller, ending()))
            .collect()
    }

    /// Answers that nobody has, oldest first, some [`TEXT_MAX`] bytes of them; from now on the caller
    /// has them.
    pub(super) fn take_late(&mut self) -> Vec<LateAnswer> {
        let mut late = Vec::new();
        let mut size = 0;
        for (&question_id, question) in &mut self.questions {
            if let (Some(Some(answer)), false) = (&question.settled, question.taken)
                && size < TEXT_MAX
            {
                size += answer.len();
                late.push(LateAnswer {
                    question_id,
                    question: question.text.clone(),
                    answer: answer.clone(),
                });
                question.taken = true;
            }
        }
        late
    }

    /// Whether there are answers that nobody has.
    pub(super) fn has_late(&self) -> bool {
        let mut questions = self.questions.values();
        questions.any(|one| matches!(one.settled, Some(Some(_))) && !one.taken)
    }

    /// The answer to this question did not reach its caller.
    pub(super) fn not_taken(&mut self, id: QuestionId) {
        if let Some(question) = self.questions.get_mut(&id) {
            question.taken = false;
        }
    }

    /// The agent's word on its work, the files that it names being there.
    pub(super) fn claim(&mut self, caller: Caller, claim: Claim) -> Vec<Act> {
        self.claim = Some(claim);
        vec![Act::Answer(caller, Reply::Done {})]
    }

    /// The run's result, and what the agent said of it: `failed` is believed, `ok` only tells what a
    /// good end is about.
    pub(super) fn judge(&self, mut result: RunResult) -> RunResult {
        let Some(claim) = &self.claim else {
            return result;
        };
        result.artifacts.clone_from(&claim.artifacts);
        match (result.status, claim.status) {
            (ResultStatus::Failed, _) => {}
            (ResultStatus::Ok, ResultStatus::Ok) => {
                result.summary = excerpt(&claim.summary, EXCERPT_MAX);
                result.verdict = claim.verdict.or(result.verdict);
            }
            (ResultStatus::Ok, ResultStatus::Failed) => {
                result.status = ResultStatus::Failed;
                result.class = Some(Class::AgentFailed);
                result.verdict = None;
                result.summary = excerpt(&claim.summary, EXCERPT_MAX);
            }
        }
        result
    }
}

impl Question {
    /// Tells whoever waits, if there is something to tell.
    fn tell(&mut self, question_id: QuestionId) -> Vec<Act> {
        let Some(settled) = &self.settled else {
            return Vec::new();
        };
        let waiting = std::mem::take(&mut self.waiting);
        self.taken |= !waiting.is_empty();
        let told = waiting.into_iter().map(|(caller, _)| match settled {
            Some(answer) => {
                let answer = answer.clone();
                let reply = Reply::Answered {
                    question_id,
                    answer,
                };
                Act::Answer(caller, reply)
            }
            None => {
                let said = format!("{question_id} is over: nobody answered it in its time");
                Act::Refuse(caller, refused(said))
            }
        });
        told.collect()
    }
}

fn progress(caller: Caller, text: String, percent: Option<u8>) -> Result<Vec<Act>, RpcError> {
    let text = excerpt(&checked("the text", text, TEXT_MAX)?, EXCERPT_MAX);
    if percent.is_some_and(|percent| percent > 100) {
        return Err(error(ERROR_BAD_PARAMS, "percent is at most 100"));
    }
    Ok(vec![
        Act::Report(Event::Progress(Progress { text, percent })),
        Act::Answer(caller, Reply::Done {}),
    ])
}

fn pending(question_id: QuestionId) -> Reply {
    let hint = format!(
        "the operator has not answered yet; call ask_operator again with question_id {question_id} \
         to go on waiting, or do other work first"
    );
    Reply::Pending { question_id, hint }
}

fn tasks_reply(tasks: protocol::report::Tasks) -> Reply {
    let protocol::report::Tasks { tasks, left_out } = tasks;
    let tasks: Vec<TaskLine> = tasks;
    Reply::Tasks { tasks, left_out }
}
