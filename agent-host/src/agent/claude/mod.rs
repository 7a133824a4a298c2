//! The `claude` adapter: Claude Code in its print mode, JSON lines in and out.
//!
//! A message goes in as a line while a turn runs; the program hands it to the model with the next
//! tool result and tells by a receipt when it did.

use std::collections::BTreeMap;

use protocol::ids::MessageId;
use protocol::program::{ProgramAdapter, ProgramKind};
use protocol::report::{Capabilities, Usage};
use serde_json::{Value, json};

use super::driven::wire::{Decision, Launch, MayUse, Out, Step, Wire};
use super::driven::{home, servers};
use crate::run::{Failure, Run};
use conversation::Conversation;
use launch::{Origin, Session};
use line::Heard;

mod conversation;
mod judge;
mod launch;
mod line;
#[cfg(test)]
mod tests;

/// Most of its questions whose arguments are remembered; the driver lets fewer wait.
const ASKED_MAX: usize = 64;

/// Claude Code.
pub(super) struct Claude {
    adapter: ProgramAdapter,
    session: Option<Session>,
    conversation: Conversation,
    /// The low half of the run's generation, for ids that no other run of this session has.
    generation: u64,
    /// Lines written so far, for their ids.
    written: u64,
    /// Arguments of the tools that it asked about, by the request's id.
    asked: BTreeMap<String, Value>,
}

impl Claude {
    pub(super) fn new(adapter: ProgramAdapter) -> Self {
        Self {
            adapter,
            session: None,
            conversation: Conversation::default(),
            generation: 0,
            written: 0,
            asked: BTreeMap::new(),
        }
    }

    /// Hands it a text with these messages in it.
    fn say(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        self.written += 1;
        // The program drops a line whose id it knows.
        let uuid = format!(
            "{:08x}-0000-8000-8000-{:012x}",
            self.generation, self.written
        );
        let content = json!([{"type": "text", "text": text}]);
        out.say(&json!({"type": "user", "uuid": uuid,
            "message": {"role": "user", "content": content}}));
        self.conversation.wrote(uuid, messages);
    }
}

impl Wire for Claude {
    /// A picture in a tool's result is several megabytes.
    const LINE_MAX: usize = 16 << 20;

    fn capabilities(&self) -> Capabilities {
        ProgramKind::Claude.capabilities()
    }

    fn launch(&mut self, run: &mut Run, resume: Option<&str>) -> Result<Launch, Failure> {
        let start = &run.start;
        let home = home::make(&self.adapter, start, &launch::logins(start))?;
        let session = match resume {
            None => launch::new_session(start),
            Some(id) => launch::session(id, start, home.as_deref()),
        };
        let servers = servers::of(&self.adapter, run);
        self.generation = start.generation.0 & 0xffff_ffff;
        let launch = Launch {
            argv: launch::argv(&self.adapter, &session, &servers),
            env: launch::environment(start, home.as_deref()),
            servers: servers::command_lines(&servers),
        };
        if resume.is_some() && session.origin == Origin::New {
            run.notice("the session has no history in its home: it begins anew");
        }
        self.session = Some(session);
        Ok(launch)
    }

    fn open(&mut self, _out: &mut Out) {}

    /// It says nothing before its first prompt.
    fn is_ready(&self) -> bool {
        true
    }

    fn session(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.id.as_str())
    }

    fn is_resumed(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.origin == Origin::Resumed)
    }

    fn hear(&mut self, line: &[u8], out: &mut Out) {
        match line::read(line) {
            Heard::MayUse(ask) => {
                if self.asked.len() >= ASKED_MAX {
                    self.asked.clear();
                }
                out.step(Step::MayUse(MayUse {
                    request: ask.request.clone(),
                    tool: ask.tool,
                    detail: ask.input.to_string(),
                    reason: ask.reason,
                    is_edit: false,
                }));
                self.asked.insert(ask.request, ask.input);
            }
            Heard::Withdrawn { request } => {
                self.asked.remove(&request);
                out.step(Step::Withdrawn(request));
            }
            Heard::Asks { request, what } => {
                out.notice(format!(
                    "the agent asks for `{what}`, which is not known here"
                ));
                let error = format!("unknown request {what}");
                out.say(&json!({"type": "control_response", "response":
                    {"subtype": "error", "request_id": request, "error": error}}));
            }
            heard => self.conversation.hear(heard, out),
        }
    }

    fn prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        self.say(text, messages, out);
    }

    fn can_steer(&self) -> bool {
        true
    }

    fn steer(&mut self, text: &str, message: MessageId, out: &mut Out) {
        self.say(text, vec![message], out);
    }

    fn interrupt(&mut self, out: &mut Out) {
        self.written += 1;
        let id = format!("interrupt-{}", self.written);
        out.say(&json!({"type": "control_request", "request_id": id,
            "request": {"subtype": "interrupt"}}));
    }

    fn decide(&mut self, request: &str, decision: &Decision, out: &mut Out) {
        let input = self.asked.remove(request).unwrap_or_else(|| json!({}));
        let response = match decision {
            Decision::Allow => json!({"behavior": "allow", "updatedInput": input}),
            Decision::Deny(why) => json!({"behavior": "deny", "message": why}),
        };
        out.say(&json!({"type": "control_response",
            "response": {"subtype": "success", "request_id": request, "response": response}}));
    }

    fn usage(&self) -> Usage {
        self.conversation.usage()
    }

    fn has_spoken(&self) -> bool {
        self.conversation.has_spoken()
    }

    fn untaken(&self) -> usize {
        self.conversation.untaken()
    }

    fn background(&self) -> usize {
        self.conversation.background()
    }

    fn not_understood(&self) -> Option<String> {
        self.conversation.not_understood()
    }
}
