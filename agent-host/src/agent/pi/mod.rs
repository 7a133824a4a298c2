//! The `pi` adapter: the coding agent pi in its rpc mode, JSON lines in and out.
//!
//! A message goes into pi's queue while a turn runs; pi tells when it hands it to the model. pi has no
//! permissions and no servers of tools: an extension of ours, which is written into the run's folder,
//! asks before a tool is used, gives it the supervisor's tools over the bridge, and tells what pi's own
//! lines leave out.

use std::path::{Component, Path};

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::program::{ProgramAdapter, ProgramKind};
use protocol::report::{Capabilities, Usage};
use serde_json::{Value, json};

use super::driven::wire::{Decision, Launch, MayUse, Out, Step, Wire};
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

/// pi.
pub(super) struct Pi {
    adapter: ProgramAdapter,
    session: Option<Session>,
    cwd: String,
    conversation: Conversation,
}

impl Pi {
    pub(super) fn new(adapter: ProgramAdapter) -> Self {
        Self {
            adapter,
            session: None,
            cwd: String::new(),
            conversation: Conversation::default(),
        }
    }
}

impl Wire for Pi {
    /// The end of a turn repeats all its messages; a picture in a tool's result is several megabytes.
    const LINE_MAX: usize = 16 << 20;

    fn capabilities(&self) -> Capabilities {
        ProgramKind::Pi.capabilities()
    }

    fn launch(&mut self, run: &mut Run, resume: Option<&str>) -> Result<Launch, Failure> {
        let home = launch::make_home(&self.adapter, run)?;
        let extension = launch::write_extension(&self.adapter, run.folder())?;
        let session = match resume {
            None => launch::new_session(&run.start),
            Some(id) => launch::session(id, &run.start, home.as_deref()),
        };
        let launch = Launch {
            argv: launch::argv(&self.adapter, &session, home.as_deref(), &extension),
            env: launch::environment(&run.start, home.as_deref()),
            servers: Vec::new(),
        };
        match &session.origin {
            Origin::New if resume.is_some() => {
                run.notice("the session has no history in its home: it begins anew");
            }
            Origin::Moved(_) => run.notice(
                "the session belongs to another working folder: its history goes on in a new one",
            ),
            Origin::New | Origin::Resumed(_) => {}
        }
        self.session = Some(session);
        self.cwd.clone_from(&run.start.cwd);
        Ok(launch)
    }

    fn open(&mut self, out: &mut Out) {
        self.conversation.open(out);
    }

    fn is_ready(&self) -> bool {
        self.conversation.is_ready()
    }

    fn session(&self) -> Option<&str> {
        let planned = self.session.as_ref().map(|session| session.id.as_str());
        self.conversation.session().or(planned)
    }

    fn is_resumed(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|session| session.origin != Origin::New)
    }

    fn hear(&mut self, line: &[u8], out: &mut Out) {
        let heard = line::read(line);
        if let Heard::MayUse {
            request,
            tool,
            input,
        } = &heard
        {
            out.step(Step::MayUse(MayUse {
                request: request.clone(),
                tool: tool.clone(),
                detail: input.to_string(),
                reason: String::new(),
                is_edit: is_edit_below(&self.cwd, tool, input),
            }));
        }
        if let Heard::Asks { request, what } = &heard {
            out.notice(format!("nobody is asked what an extension wants: {what}"));
            out.say(&json!({"type": "extension_ui_response", "id": request, "cancelled": true}));
        }
        self.conversation.hear(heard, out);
    }

    fn prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        self.conversation.prompt(text, messages, out);
    }

    fn can_steer(&self) -> bool {
        self.conversation.can_steer()
    }

    fn steer(&mut self, text: &str, message: MessageId, out: &mut Out) {
        self.conversation.steer(text, message, out);
    }

    fn interrupt(&mut self, out: &mut Out) {
        self.conversation.interrupt(out);
    }

    fn decide(&mut self, request: &str, decision: &Decision, out: &mut Out) {
        self.conversation.decided(request);
        let value = match decision {
            Decision::Allow => "allow",
            Decision::Deny(why) => why,
        };
        out.say(&json!({"type": "extension_ui_response", "id": request, "value": value}));
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

    fn class_of_no_beginning(&self, printed: &str) -> Option<Class> {
        judge::class_of_no_beginning(printed)
    }

    fn not_understood(&self) -> Option<String> {
        self.conversation.not_understood()
    }
}

/// Whether a tool changes a file below the working folder and nothing else, by its arguments.
fn is_edit_below(cwd: &str, tool: &str, input: &Value) -> bool {
    let path = input.get("path").and_then(Value::as_str);
    let Some(path) = path.filter(|_| matches!(tool, "edit" | "write")) else {
        return false;
    };
    // pi itself expands `~` and drops a leading `@`.
    if path.starts_with(['~', '@']) {
        return false;
    }
    let path = Path::new(path);
    let below = path.strip_prefix(cwd).unwrap_or(path);
    let mut parts = below.components();
    parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
