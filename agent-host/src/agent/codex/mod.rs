//! The `codex` adapter: Codex by its app server, JSON-RPC over stdio.
//!
//! A message goes into the running turn by `turn/steer`, which names the turn that it is meant for: one
//! that comes too late begins the next turn. The program names each text as we did when it puts it into
//! the model's next request, so what comes from the model after that proves that it was read.

use protocol::ids::MessageId;
use protocol::program::{ProgramAdapter, ProgramKind};
use protocol::report::{Capabilities, Usage};
use serde_json::Value;

use super::driven::wire::{Decision, Launch, Out, Wire};
use super::driven::{home, servers};
use crate::clock;
use crate::run::{Failure, Run};
use conversation::Conversation;

mod approval;
mod conversation;
mod item;
mod judge;
mod launch;
mod meter;
mod reset;
mod settings;
#[cfg(test)]
mod tests;

/// Codex.
pub(super) struct Codex {
    adapter: ProgramAdapter,
    /// What the thread is asked for.
    thread: Value,
    /// The thread that is to go on.
    earlier: Option<String>,
    /// The run's, for names that no other run of this thread has.
    generation: u64,
    /// Local time is UTC, so what it says of times can be read.
    is_utc: bool,
    conversation: Conversation,
}

impl Codex {
    pub(super) fn new(adapter: ProgramAdapter) -> Self {
        Self {
            adapter,
            thread: Value::Null,
            earlier: None,
            generation: 0,
            is_utc: false,
            conversation: Conversation::default(),
        }
    }
}

impl Wire for Codex {
    /// A command's whole output is in one line, and a picture is several megabytes.
    const LINE_MAX: usize = 16 << 20;

    fn capabilities(&self) -> Capabilities {
        ProgramKind::Codex.capabilities()
    }

    fn launch(&mut self, run: &mut Run, resume: Option<&str>) -> Result<Launch, Failure> {
        let start = &run.start;
        let home = home::make(&self.adapter, start, &launch::logins(start))?;
        let servers = servers::of(&self.adapter, run);
        self.thread = launch::thread(&self.adapter, start, &servers);
        self.earlier = resume.map(str::to_owned);
        self.generation = start.generation.0;
        self.is_utc = reset::is_utc(start);
        Ok(Launch {
            argv: launch::argv(&self.adapter, start, home.as_deref()),
            env: launch::environment(home.as_deref()),
            servers: servers::command_lines(&servers),
        })
    }

    fn open(&mut self, out: &mut Out) {
        let (thread, earlier) = (self.thread.take(), self.earlier.take());
        self.conversation
            .open(thread, earlier, self.generation, out);
    }

    fn is_ready(&self) -> bool {
        false
    }

    fn session(&self) -> Option<&str> {
        self.conversation.thread()
    }

    fn is_resumed(&self) -> bool {
        self.conversation.is_resumed()
    }

    fn hear(&mut self, line: &[u8], out: &mut Out) {
        self.conversation.hear(line, out);
        if self.is_utc {
            reset::fill(out, clock::wall_ms());
        }
    }

    fn prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        self.conversation.prompt(text, messages, out);
    }

    fn can_steer(&self) -> bool {
        self.conversation.has_turn()
    }

    fn steer(&mut self, text: &str, message: MessageId, out: &mut Out) {
        self.conversation.steer(text, message, out);
    }

    fn interrupt(&mut self, out: &mut Out) {
        self.conversation.interrupt(out);
    }

    fn decide(&mut self, request: &str, decision: &Decision, out: &mut Out) {
        self.conversation.decide(request, decision, out);
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

    fn not_understood(&self) -> Option<String> {
        self.conversation.not_understood()
    }
}
