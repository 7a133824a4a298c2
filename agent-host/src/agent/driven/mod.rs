//! An agent program that is driven over a wire of its own: the same life for every program.
//!
//! A message goes in while a turn runs, where the wire can; what waits at its end is the next prompt.
//! A turn that ended is not yet finished work: the adapter waits until none of the family is left but
//! the program and its servers, because what is left may change files, or wake the agent for a turn of
//! its own. Closing stdin ends an idle program only, so a stop is a ladder: interrupt, end of stdin,
//! SIGTERM, and the host's kill of the whole tree.

use std::time::{Duration, Instant};

use protocol::action_file::{ACTION_LINE_VERSION, ActionBy, ActionDecision, ActionLine};
use protocol::class::Class;
use protocol::command::Answer;
use protocol::framing::Frame;
use protocol::ids::QuestionId;
use protocol::program::Permissions as Policy;
use protocol::report::{Capabilities, EXCERPT_MAX, ResultStatus, RunResult, excerpt};
use protocol::rpc::RpcError;

use super::{Advance, Agent, Prompt};
use crate::clock;
use crate::mailbox::Moment;
use crate::program::{Feed, Program, What};
use crate::run::{Failure, Run, result};
use ending::{Rung, cancelled};
use permission::Permissions;
use wire::{Decision, Ended, Launch, MayUse, Out, Step, Verdict, Wire};

mod ending;
pub(super) mod home;
pub(super) mod json_rpc;
pub(super) mod judge;
mod permission;
mod quiet;
pub(super) mod receipts;
pub(super) mod servers;
pub(super) mod session_id;
pub(super) mod unknown;
pub(super) mod wire;

/// So long a program may take until a prompt can be said. The slowest one that was seen takes 11
/// seconds on a busy machine.
const READY_MAX: Duration = Duration::from_mins(2);
/// So long a stop waits for the end of the turn that it interrupted (seen: 0.2 s).
const INTERRUPT_MAX: Duration = Duration::from_secs(2);
/// So long an interrupt that a message asked for may go unheeded; then the program is ended, and the
/// session goes on in the next run with the message as its prompt. Long, for a busy machine.
const HEED_MAX: Duration = Duration::from_secs(5);
/// The prompt of a session that goes on; the task's own is in its history.
const GO_ON: &str = "This session goes on. A command that was running when it was cut off may have \
    taken effect or not: look before you repeat it. Go on until the task is done.";

/// An agent program and the wire that it speaks.
pub(super) struct Driven<W> {
    wire: W,
    policy: Policy,
    program: Option<Program>,
    servers: Vec<Vec<String>>,
    permissions: Permissions,
    state: State,
    /// A prompt was said in this run.
    is_prompted: bool,
    /// An interrupt was written, and its turn is to end until then.
    interrupting: Option<Instant>,
    stop: StopState,
    /// When its last line came.
    heard: Option<Instant>,
}

/// How far it is.
enum State {
    /// The conversation opens; a prompt can be said until then.
    Opens(Option<Instant>),
    /// It is open, and the host is to be told.
    Opened,
    /// A turn runs, or its prompt is on the way.
    Works,
    /// A turn ended well; the family is to come to rest.
    Settles {
        /// When the turn ended.
        since: Instant,
        /// Its last words.
        text: String,
        /// Turns that it will begin by itself.
        queued: u64,
        /// What was left has been told.
        told: bool,
    },
    /// A turn is over; another prompt or the end follows.
    Over {
        /// What the run ends with if no prompt follows.
        ending: Box<RunResult>,
        /// The host knows.
        told: bool,
    },
    /// The program is to end; then the result is handed over.
    Closes {
        /// The result.
        ending: Box<RunResult>,
        /// When the next rung is due.
        until: Instant,
        /// What it was told.
        rung: Rung,
    },
}

/// What became of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopState {
    None,
    Asked,
    /// The turn is awaited until then.
    Until(Instant),
}

impl<W: Wire> Driven<W> {
    pub(super) fn new(wire: W, policy: Policy) -> Self {
        Self {
            wire,
            policy,
            program: None,
            servers: Vec::new(),
            permissions: Permissions::default(),
            state: State::Opens(None),
            is_prompted: false,
            interrupting: None,
            stop: StopState::None,
            heard: None,
        }
    }

    fn launch(&mut self, run: &mut Run, resume: Option<&str>) -> Result<(), Failure> {
        let Launch { argv, env, servers } = self.wire.launch(run, resume)?;
        let what = What {
            argv: &argv,
            extra_env: &env,
            stdin: Feed::Open,
            line_max: Some(W::LINE_MAX),
        };
        self.program = Some(Program::start(run, what)?);
        self.servers = servers;
        let mut out = Out::default();
        self.wire.open(&mut out);
        self.put_out(out, run, clock::now());
        if self.wire.is_ready() {
            self.state = State::Works;
        }
        Ok(())
    }

    /// Does what the wire wants done.
    fn put_out(&mut self, out: Out, run: &mut Run, now: Instant) {
        if let Some(program) = self.program.as_mut().filter(|_| !out.lines.is_empty()) {
            program.say(&out.lines);
        }
        for event in out.events {
            run.report(event);
        }
        for step in out.steps {
            self.take_step(step, run, now);
        }
    }

    /// Takes in everything that it has said.
    fn take_lines(&mut self, run: &mut Run, now: Instant) {
        while let Some(frame) = self.program.as_mut().and_then(Program::next_line) {
            self.heard = Some(now);
            match frame {
                Frame::Line(line) => {
                    let mut out = Out::default();
                    self.wire.hear(&line, &mut out);
                    self.put_out(out, run, now);
                }
                Frame::Blank => {}
                Frame::TooLong { .. } => {
                    let text = format!("a line over {} bytes is in the log alone", W::LINE_MAX);
                    run.notice(&text);
                }
            }
        }
    }

    fn take_step(&mut self, step: Step, run: &mut Run, now: Instant) {
        match step {
            Step::Ready => {
                if let State::Opens(_) = self.state {
                    self.state = State::Opened;
                }
            }
            Step::TurnBegan => {
                if let State::Settles { .. } = self.state {
                    if self.wire.untaken() == 0 {
                        run.notice("the agent goes on by itself after the end of its turn");
                    }
                    self.state = State::Works;
                }
            }
            Step::TurnEnded(ended) => self.turn_ended(*ended, run, now),
            Step::MayUse(ask) => self.may_use(ask, run),
            Step::Withdrawn(request) => {
                if self.permissions.withdraw(&request).is_some() {
                    run.notice("the agent no longer waits for the answer to its question");
                }
            }
            Step::Failed(failure) => {
                if !matches!(self.state, State::Closes { .. }) {
                    let mut ending = failure.into_result();
                    ending.evidence = run.logs.evidence();
                    self.close(Box::new(ending), now);
                }
            }
        }
    }

    fn turn_ended(&mut self, ended: Ended, run: &mut Run, now: Instant) {
        if let State::Closes { .. } = self.state {
            return;
        }
        let interrupted = self.interrupting.take().is_some();
        let failed = |class, text: &str| Box::new(result(ResultStatus::Failed, Some(class), text));
        match ended.verdict {
            Verdict::Well => {
                self.state = State::Settles {
                    since: now,
                    text: ended.text,
                    queued: ended.queued,
                    told: false,
                };
            }
            Verdict::Aborted if self.stop != StopState::None => self.close(cancelled(), now),
            Verdict::Aborted if interrupted => {
                let text = "its turn was interrupted, and nobody said how to go on";
                self.state = State::Over {
                    ending: failed(Class::AgentFailed, text),
                    told: false,
                };
            }
            Verdict::Aborted => {
                let mut ending = failed(Class::AgentFailed, "it cut its own turn short");
                ending.evidence = ended.evidence;
                self.close(ending, now);
            }
            Verdict::Failed(class) => {
                let mut ending = failed(class, &ended.text);
                ending.evidence = ended.evidence;
                ending.reset_at_ms = ended.reset_at_ms;
                self.close(ending, now);
            }
        }
        if let Some(text) = self.wire.not_understood() {
            run.notice(&text);
        }
    }

    fn may_use(&mut self, ask: MayUse, run: &mut Run) {
        let why = match self.policy {
            Policy::Full => return self.decide(&ask, &Decision::Allow, ActionBy::Policy, run),
            Policy::Edits if ask.is_edit => {
                return self.decide(&ask, &Decision::Allow, ActionBy::Policy, run);
            }
            Policy::Ask if self.permissions.has_room() => {
                let options = permission::OPTIONS.map(str::to_owned);
                let request = run.ask(&permission::question(&ask), &options);
                self.permissions.wait(ask, request);
                return;
            }
            Policy::Ask => "Too many questions wait for the operator.",
            Policy::Edits => "Only edits of files are allowed here, by the batch file.",
        };
        run.notice(&format!("{} is refused by policy: {why}", ask.tool));
        let decision = Decision::Deny(why.to_owned());
        self.decide(&ask, &decision, ActionBy::Policy, run);
    }

    fn decide(&mut self, ask: &MayUse, decision: &Decision, by: ActionBy, run: &mut Run) {
        run.keep_action(&action(ask, decision, by));
        let mut out = Out::default();
        self.wire.decide(&ask.request, decision, &mut out);
        self.put_out(out, run, clock::now());
    }

    fn say_interrupt(&mut self, run: &mut Run) {
        let mut out = Out::default();
        self.wire.interrupt(&mut out);
        self.put_out(out, run, clock::now());
    }
}

impl<W: Wire> Agent for Driven<W> {
    fn capabilities(&self) -> Capabilities {
        self.wire.capabilities()
    }

    fn session(&self) -> Option<&str> {
        self.wire.session()
    }

    fn takes_prompts(&self) -> bool {
        true
    }

    fn is_ready(&self) -> bool {
        !matches!(self.state, State::Opens(_))
    }

    fn start(&mut self, run: &mut Run) -> Result<(), Failure> {
        self.launch(run, None)
    }

    fn resume(&mut self, run: &mut Run, session: &str) -> Result<(), Failure> {
        self.launch(run, Some(session))
    }

    fn prompt(&mut self, run: &mut Run, mut prompt: Prompt) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.is_prompted, true) {
            let hand_off = run.start.hand_off.take();
            prompt.text = first_text(prompt.text.take(), hand_off, self.wire.is_resumed());
        }
        let messages = prompt.messages.iter().map(|message| message.id).collect();
        let text = prompt.into_text().unwrap_or_default();
        self.state = State::Works;
        let mut out = Out::default();
        self.wire.prompt(&text, messages, &mut out);
        self.put_out(out, run, clock::now());
        Ok(())
    }

    fn steer(&mut self, run: &mut Run) {
        let State::Works = self.state else { return };
        if run.mailbox.wants_interrupt() {
            self.interrupt(run);
        }
        // What waits during an interrupt goes in with the prompt after it.
        while self.interrupting.is_none() && self.wire.can_steer() {
            let Some(message) = run.inject_next(Moment::Boundary) else {
                return;
            };
            let mut out = Out::default();
            self.wire.steer(&message.text, message.id, &mut out);
            self.put_out(out, run, clock::now());
        }
    }

    fn asked(&mut self, run: &mut Run, request: u64, outcome: Result<QuestionId, RpcError>) {
        match outcome {
            Ok(id) => self.permissions.asked(request, id),
            Err(error) => {
                if let Some(ask) = self.permissions.forget(request) {
                    let why = format!("nobody can be asked: {}", error.message);
                    run.notice(&format!("{} is refused: {why}", ask.tool));
                    self.decide(&ask, &Decision::Deny(why), ActionBy::Policy, run);
                }
            }
        }
    }

    fn answer(&mut self, run: &mut Run, answer: Answer) {
        match self.permissions.answered(answer.question) {
            Some(ask) => {
                let decision = permission::by_answer(answer.text.as_deref());
                self.decide(&ask, &decision, ActionBy::Operator, run);
            }
            None => run.notice(&format!(
                "an answer came to {}, which is not open",
                answer.question
            )),
        }
    }

    fn interrupt(&mut self, run: &mut Run) {
        if let State::Works = self.state
            && self.interrupting.is_none()
        {
            self.interrupting = Some(clock::now() + HEED_MAX);
            self.say_interrupt(run);
        }
    }

    fn stop(&mut self, run: &mut Run) {
        if self.stop != StopState::None {
            return;
        }
        match self.state {
            State::Works => {
                self.stop = StopState::Asked;
                self.say_interrupt(run);
            }
            State::Opens(_) | State::Opened => self.close(cancelled(), clock::now()),
            State::Settles { .. } | State::Over { .. } | State::Closes { .. } => {}
        }
    }

    fn advance(&mut self, run: &mut Run, now: Instant) -> Advance {
        self.take_lines(run, now);
        let Some(program) = &self.program else {
            return Advance::Waits(None);
        };
        if let Some(exit) = program.ended() {
            return self.exited(exit, run);
        }
        match &mut self.state {
            State::Opens(until) => {
                let until = *until.get_or_insert(now + READY_MAX);
                self.await_ready(until, now)
            }
            State::Opened => {
                self.state = State::Works;
                Advance::Ready
            }
            State::Works => match self.stop {
                StopState::None => {
                    // What could not go in at once may go in by now.
                    self.steer(run);
                    self.heed(now)
                }
                StopState::Asked => {
                    self.stop = StopState::Until(now + INTERRUPT_MAX);
                    Advance::Again
                }
                StopState::Until(until) if now < until => Advance::Waits(Some(until)),
                StopState::Until(_) => {
                    self.close(cancelled(), now);
                    Advance::Again
                }
            },
            State::Settles { .. } => self.settle(run, now),
            State::Over { told: true, .. } => Advance::Waits(None),
            State::Over { told, .. } => {
                *told = true;
                Advance::TurnEnded
            }
            State::Closes { .. } => self.press(now),
        }
    }

    fn drain(&mut self, _run: &mut Run) {
        if let State::Over { ending, .. } = &self.state {
            let ending = ending.clone();
            self.close(ending, clock::now());
        }
    }

    fn program(&mut self) -> Option<&mut Program> {
        self.program.as_mut()
    }
}

/// The first text of a run: the task's prompt, or in a session that has it in its history the word to
/// go on; with what the attempt before has taught.
fn first_text(prompt: Option<String>, hand_off: Option<String>, resumed: bool) -> Option<String> {
    match (resumed, hand_off) {
        (true, None) => Some(GO_ON.to_owned()),
        (true, Some(hand_off)) => Some(format!("{hand_off}\n\n{GO_ON}")),
        (false, None) => prompt,
        (false, Some(hand_off)) => {
            let prompt = prompt.unwrap_or_default();
            Some(format!(
                "{prompt}\n\n--- the attempt before ---\n{hand_off}\n"
            ))
        }
    }
}

/// An answer, for the file of actions.
fn action(ask: &MayUse, decision: &Decision, by: ActionBy) -> ActionLine {
    let (decision, why) = match decision {
        Decision::Allow => (ActionDecision::Allow, ""),
        Decision::Deny(why) => (ActionDecision::Deny, why.as_str()),
    };
    ActionLine {
        v: ACTION_LINE_VERSION,
        time_ms: clock::wall_ms(),
        tool: excerpt(&ask.tool, EXCERPT_MAX),
        detail: excerpt(&ask.detail, EXCERPT_MAX),
        reason: excerpt(&ask.reason, EXCERPT_MAX),
        decision,
        by,
        why: excerpt(why, EXCERPT_MAX),
    }
}
