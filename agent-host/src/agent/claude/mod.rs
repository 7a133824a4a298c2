//! The `claude` adapter: Claude Code in its print mode, JSON lines in and out.
//!
//! A message goes in as a line while a turn runs; the program hands it to the model with the next
//! tool result and tells by a receipt when it did. A turn that ended is not yet finished work: the
//! adapter waits until none of the family is left but the agent and its servers, because what is
//! left can wake the agent for a turn of its own. Closing stdin ends an idle agent only, so a stop
//! is a ladder: interrupt, end of stdin, SIGTERM, and the host's kill of the whole tree.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::command::{Answer, ClaudeAdapter, Permissions as Policy};
use protocol::framing::Frame;
use protocol::ids::{MessageId, QuestionId};
use protocol::report::{Capabilities, Receipt, ResultStatus, RunResult, SteerReach};
use protocol::rpc::RpcError;
use serde_json::{Value, json};

use super::{Advance, Agent, Prompt};
use crate::bridge;
use crate::clock;
use crate::mailbox::Moment;
use crate::program::{Feed, Program, What};
use crate::run::{Failure, Run, result};
use conversation::{Conversation, Ended, Step};
use ending::{Rung, cancelled};
use judge::Verdict;
use launch::{Origin, Session};
use permission::Permissions;
use wire::MayUse;

mod conversation;
mod ending;
mod judge;
mod launch;
mod permission;
mod quiet;
#[cfg(test)]
mod tests;
mod wire;

/// Longest line of its that is read (16 MiB: a picture in a tool's result is several); of a longer
/// one only the log knows.
const LINE_MAX: usize = 16 << 20;
/// So long a stop waits for the end of the turn that it interrupted (seen: 0.2 s).
const INTERRUPT_MAX: Duration = Duration::from_secs(2);
/// So long an interrupt that a message asked for may go unheeded; then the program is ended, and the
/// session goes on in the next run with the message as its prompt. Long, for a busy machine.
const HEED_MAX: Duration = Duration::from_secs(5);
/// The prompt of a session that goes on; the task's own is in its history.
const GO_ON: &str = "This session goes on. A command that was running when it was cut off may have \
    taken effect or not: look before you repeat it. Go on until the task is done.";

/// Claude Code.
pub(super) struct ClaudeAgent {
    adapter: ClaudeAdapter,
    program: Option<Program>,
    session: Option<Session>,
    conversation: Conversation,
    permissions: Permissions,
    state: State,
    /// An interrupt was written, and its turn is to end until then.
    interrupting: Option<Instant>,
    stop: StopState,
    /// Lines written so far, for their ids.
    written: u64,
    /// When its last line came.
    heard: Option<Instant>,
}

/// How far it is.
enum State {
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

impl ClaudeAgent {
    pub(super) fn new(adapter: ClaudeAdapter) -> Self {
        Self {
            adapter,
            program: None,
            session: None,
            conversation: Conversation::default(),
            permissions: Permissions::default(),
            state: State::Works,
            interrupting: None,
            stop: StopState::None,
            written: 0,
            heard: None,
        }
    }

    fn launch(
        &mut self,
        run: &mut Run,
        session: Session,
        home: Option<PathBuf>,
    ) -> Result<(), Failure> {
        let mut argv = launch::argv(&self.adapter, &session);
        if let Some(server) = bridge::mcp_server(run) {
            argv.extend(launch::bridge_arguments(&server));
        }
        let extra_env = launch::environment(&run.start, home.as_deref());
        let what = What {
            argv: &argv,
            extra_env: &extra_env,
            stdin: Feed::Open,
            line_max: Some(LINE_MAX),
        };
        self.program = Some(Program::start(run, what)?);
        self.session = Some(session);
        Ok(())
    }

    fn say(&mut self, line: &Value) {
        if let Some(program) = &mut self.program {
            program.say(format!("{line}\n").as_bytes());
        }
    }

    /// Hands it a text with these messages in it.
    fn say_text(&mut self, run: &Run, text: &str, messages: Vec<MessageId>) {
        self.written += 1;
        // One that no other run of this session has: the program drops a line whose id it knows.
        let generation = run.start.generation.0 & 0xffff_ffff;
        let uuid = format!("{generation:08x}-0000-8000-8000-{:012x}", self.written);
        let content = json!([{"type": "text", "text": text}]);
        self.say(&json!({"type": "user", "uuid": uuid,
            "message": {"role": "user", "content": content}}));
        self.conversation.wrote(uuid, messages);
    }

    fn say_interrupt(&mut self) {
        self.written += 1;
        let id = format!("interrupt-{}", self.written);
        self.say(&json!({"type": "control_request", "request_id": id,
            "request": {"subtype": "interrupt"}}));
    }

    /// Takes in everything that it has said.
    fn take_lines(&mut self, run: &mut Run, now: Instant) {
        while let Some(frame) = self.program.as_mut().and_then(Program::next_line) {
            self.heard = Some(now);
            let heard = match frame {
                Frame::Line(line) => wire::read(&line),
                Frame::Blank => continue,
                Frame::TooLong { .. } => wire::Heard::Unknown {
                    kind: format!("a line over {LINE_MAX} bytes"),
                },
            };
            let mut events = Vec::new();
            let step = self.conversation.hear(heard, &mut events);
            for event in events {
                run.report(event);
            }
            self.take_step(step, run, now);
        }
    }

    fn take_step(&mut self, step: Step, run: &mut Run, now: Instant) {
        match step {
            Step::None => {}
            Step::TurnBegan => {
                if let State::Settles { .. } = self.state {
                    if self.conversation.untaken() == 0 {
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
            Step::Asks { request, what } => {
                run.notice(&format!(
                    "the agent asks for `{what}`, which is not known here"
                ));
                let error = format!("unknown request {what}");
                self.say(&json!({"type": "control_response", "response":
                    {"subtype": "error", "request_id": request, "error": error}}));
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
        if let Some(text) = self.conversation.not_understood() {
            run.notice(&text);
        }
    }

    fn may_use(&mut self, ask: MayUse, run: &mut Run) {
        let why = match self.adapter.permissions {
            Policy::Ask if self.permissions.has_room() => {
                let options = permission::OPTIONS.map(str::to_owned);
                let request = run.ask(&permission::question(&ask), &options);
                self.permissions.wait(ask, request);
                return;
            }
            Policy::Ask => "Too many questions wait for the operator.",
            Policy::Edits => "Only edits of files are allowed here, by the batch file.",
            Policy::Full => "Nobody is there to answer; decide yourself.",
        };
        run.notice(&format!("{} is refused by policy: {why}", ask.tool));
        self.say(&permission::deny(&ask, why));
    }
}

impl Agent for ClaudeAgent {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            steer: SteerReach::Interrupt,
            receipt: Receipt::Seen,
            interrupt: true,
            resume: true,
            questions: self.adapter.permissions == Policy::Ask,
            usage: true,
            cost: true,
        }
    }

    fn session(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.id.as_str())
    }

    fn takes_prompts(&self) -> bool {
        true
    }

    fn start(&mut self, run: &mut Run) -> Result<(), Failure> {
        let home = launch::make_home(&self.adapter, &run.start)?;
        self.launch(run, launch::new_session(&run.start), home)
    }

    fn resume(&mut self, run: &mut Run, session: &str) -> Result<(), Failure> {
        let home = launch::make_home(&self.adapter, &run.start)?;
        let session = launch::session(session, &run.start, home.as_deref());
        if session.origin == Origin::New {
            run.notice("the session has no history in its home: it begins anew");
        }
        self.launch(run, session, home)
    }

    fn prompt(&mut self, run: &mut Run, mut prompt: Prompt) -> Result<(), Failure> {
        let first = self.written == 0;
        let resumed = self
            .session
            .as_ref()
            .is_some_and(|s| s.origin == Origin::Resumed);
        if first && resumed {
            prompt.text = Some(GO_ON.to_owned());
        }
        let messages = prompt.messages.iter().map(|message| message.id).collect();
        let text = prompt.into_text().unwrap_or_default();
        self.say_text(run, &text, messages);
        self.state = State::Works;
        Ok(())
    }

    fn steer(&mut self, run: &mut Run) {
        let State::Works = self.state else { return };
        if run.mailbox.wants_interrupt() {
            self.interrupt(run);
        }
        // What waits during an interrupt goes in with the prompt after it.
        while self.interrupting.is_none() {
            let Some(message) = run.inject_next(Moment::Boundary) else {
                return;
            };
            self.say_text(run, &message.text, vec![message.id]);
        }
    }

    fn asked(&mut self, run: &mut Run, request: u64, outcome: Result<QuestionId, RpcError>) {
        match outcome {
            Ok(id) => self.permissions.asked(request, id),
            Err(error) => {
                if let Some(ask) = self.permissions.forget(request) {
                    let why = format!("nobody can be asked: {}", error.message);
                    run.notice(&format!("{} is refused: {why}", ask.tool));
                    self.say(&permission::deny(&ask, &why));
                }
            }
        }
    }

    fn answer(&mut self, run: &mut Run, answer: Answer) {
        match self.permissions.answered(answer.question) {
            Some(ask) => self.say(&permission::by_answer(&ask, answer.text.as_deref())),
            None => run.notice(&format!(
                "an answer came to {}, which is not open",
                answer.question
            )),
        }
    }

    fn interrupt(&mut self, _run: &mut Run) {
        if let State::Works = self.state
            && self.interrupting.is_none()
        {
            self.interrupting = Some(clock::now() + HEED_MAX);
            self.say_interrupt();
        }
    }

    fn stop(&mut self) {
        if let (State::Works, StopState::None) = (&self.state, self.stop) {
            self.stop = StopState::Asked;
            self.say_interrupt();
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
            State::Works => match self.stop {
                StopState::None => self.heed(now),
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
