//! The seam between a run and whatever does its work: one trait, one file per adapter.
//!
//! An adapter owns the program that it drives and translates what that says into report events.
//! It never waits: the host's one loop waits for it, on the program it names in
//! [`Agent::program`] and on the deadline it gives in [`Advance::Waits`], and calls it again. So a
//! stop, a ping or the end of stdin is always heard, whatever an adapter is doing.

use std::time::Instant;

use protocol::command::{Adapter, Answer, Message, Start};
use protocol::ids::QuestionId;
use protocol::program::{ProgramAdapter, ProgramKind};
use protocol::report::{Capabilities, Receipt, RunResult, SteerReach};
use protocol::rpc::RpcError;

use crate::fetch::Request;
use crate::program::Program;
use crate::run::{Failure, Run};
use driven::Driven;
use verify::Of;

mod acp;
mod apart;
mod claude;
mod codex;
mod command;
mod driven;
mod fetch;
mod git;
mod pi;
mod result_file;
mod scripted;
mod verify;

/// How far an adapter has come.
#[derive(Debug)]
pub(crate) enum Advance {
    /// It waits, for its program, a message, an answer, or until this moment.
    Waits(Option<Instant>),
    /// It has more to do, but the pipe should be served first.
    Again,
    /// The agent has become ready: it may be told its prompt. Only from one that was not
    /// [ready](Agent::is_ready) once it had started.
    Ready,
    /// A turn ended well. [`Agent::prompt`] begins another, [`Agent::drain`] ends the work.
    TurnEnded,
    /// The work is over; nothing of the agent's program runs.
    Done(Box<RunResult>),
    /// The host is to leave with this status and without a result (the scripted agent's misbehaviour).
    Leaves(u8),
}

/// The capabilities of an adapter that can do nothing beyond running.
pub(crate) const NONE: Capabilities = Capabilities {
    steer: SteerReach::None,
    receipt: Receipt::Injected,
    interrupt: false,
    resume: false,
    questions: false,
    usage: false,
    cost: false,
};

/// What an agent is told at the start of a turn.
#[derive(Debug, Default)]
pub(crate) struct Prompt {
    /// The prompt of the task; only ever in the first turn.
    pub(crate) text: Option<String>,
    /// Messages of the operator, already marked as injected, in order.
    pub(crate) messages: Vec<Message>,
}

impl Prompt {
    /// As one text: messages beside a prompt are set off, so that neither is taken for the other;
    /// messages alone are the prompt.
    pub(crate) fn into_text(self) -> Option<String> {
        let messages = self.messages.into_iter();
        let Some(mut text) = self.text else {
            let texts: Vec<String> = messages.map(|message| message.text).collect();
            return (!texts.is_empty()).then(|| texts.join("\n\n"));
        };
        for Message {
            id,
            text: message,
            from,
            ..
        } in messages
        {
            let of = from.map_or_else(|| "the operator".to_owned(), |from| format!("task {from}"));
            text.truncate(text.trim_end_matches('\n').len());
            text.push_str(&format!(
                "\n\n--- message {id} of {of} ---\n{message}\n--- end of {id} ---\n"
            ));
        }
        Some(text)
    }
}

/// Something that does the work of a run.
pub(crate) trait Agent {
    /// What this adapter can do and prove.
    fn capabilities(&self) -> Capabilities;

    /// The agent's own conversation, where it has one.
    fn session(&self) -> Option<&str> {
        None
    }

    /// Whether it takes a prompt at all; without, no message goes in either.
    fn takes_prompts(&self) -> bool;

    /// Whether a prompt can be handed over once it has started; if not, [`Advance::Ready`] comes.
    fn is_ready(&self) -> bool {
        true
    }

    /// Begins to make ready for a prompt.
    ///
    /// # Errors
    /// The failure that the run ends with.
    fn start(&mut self, run: &mut Run) -> Result<(), Failure>;

    /// As [`Agent::start`], with an earlier conversation. Adapters without the capability start
    /// anew and say so.
    ///
    /// # Errors
    /// As [`Agent::start`].
    fn resume(&mut self, run: &mut Run, session: &str) -> Result<(), Failure> {
        run.notice(&format!(
            "session {session} can not be resumed by this adapter"
        ));
        self.start(run)
    }

    /// Hands over a prompt and begins a turn: the first one (for tasks without a prompt an empty
    /// one), or a follow-up.
    ///
    /// # Errors
    /// As [`Agent::start`].
    fn prompt(&mut self, run: &mut Run, prompt: Prompt) -> Result<(), Failure>;

    /// A message has come. An adapter that can take it now does so by [`Run::inject_next`]; else
    /// it waits for the next boundary or the turn's end.
    fn steer(&mut self, _run: &mut Run) {}

    /// The supervisor gave the question of this request an id, or refused the request.
    fn asked(&mut self, run: &mut Run, request: u64, _outcome: Result<QuestionId, RpcError>) {
        run.notice(&format!(
            "an answer came to request {request}, which was never made"
        ));
    }

    /// The operator answered, or the question expired.
    fn answer(&mut self, run: &mut Run, answer: Answer) {
        run.notice(&format!(
            "an answer came to {}, which was never asked",
            answer.question
        ));
    }

    /// Ends the current turn; the run goes on.
    fn interrupt(&mut self, run: &mut Run) {
        run.notice("this adapter can not interrupt a turn");
    }

    /// Asks it to end the work soon; [`Advance::Done`] is then awaited for the grace time.
    fn stop(&mut self, run: &mut Run);

    /// Whether it heeds a stop. Only the scripted agent ever says no.
    fn heeds_stop(&self) -> bool {
        true
    }

    /// Whether it plays dead: nothing is to be read, answered or obeyed any more. As above.
    fn is_frozen(&self) -> bool {
        false
    }

    /// Goes on as far as it can without waiting.
    fn advance(&mut self, run: &mut Run, now: Instant) -> Advance;

    /// No more prompts will come after a [`Advance::TurnEnded`]: [`Agent::advance`] is to end with
    /// the result.
    fn drain(&mut self, run: &mut Run);

    /// The program to read from and to wait for.
    fn program(&mut self) -> Option<&mut Program>;
}

/// The adapter that `start` names.
///
/// # Errors
/// `setup_failed` when its part of `start` makes no sense.
pub(crate) fn adapter(start: &mut Start) -> Result<Box<dyn Agent>, Failure> {
    Ok(match Run::take_adapter(start) {
        Adapter::Command(adapter) => Box::new(command::CommandAgent::new(adapter)),
        Adapter::Verify(adapter) => Box::new(verify::VerifyAgent::new(adapter, Of::Proof)),
        Adapter::Hook(adapter) => Box::new(verify::VerifyAgent::new(adapter, Of::Hook)),
        Adapter::Git(adapter) => Box::new(apart::Apart::new(adapter)),
        Adapter::Fetch(adapter) => {
            let (work, timeout_ms) = (Request::Fetch(adapter.fetch), adapter.timeout_ms);
            Box::new(apart::Apart::new(fetch::Asks { work, timeout_ms }))
        }
        Adapter::Comment(adapter) => {
            let (work, timeout_ms) = (Request::Comment(adapter.comment), adapter.timeout_ms);
            Box::new(apart::Apart::new(fetch::Asks { work, timeout_ms }))
        }
        Adapter::Program(adapter) => program(adapter),
        Adapter::Scripted(adapter) => Box::new(scripted::ScriptedAgent::new(&adapter, start)?),
    })
}

fn program(adapter: ProgramAdapter) -> Box<dyn Agent> {
    let policy = adapter.permissions;
    match adapter.kind {
        ProgramKind::Claude => Box::new(Driven::new(claude::Claude::new(adapter), policy)),
        ProgramKind::Codex => Box::new(Driven::new(codex::Codex::new(adapter), policy)),
        ProgramKind::Acp => Box::new(Driven::new(acp::Acp::new(adapter), policy)),
        ProgramKind::Pi => Box::new(Driven::new(pi::Pi::new(adapter), policy)),
    }
}
