//! The `acp` adapter: any program that speaks the Agent Client Protocol, version 1.
//!
//! Messages are read as JSON values and not as the types of the protocol's own crate: of a message
//! about ten fields mean something here, programs send kinds that the types do not know, and what
//! they put into `_meta` (steering, tokens, failures) is in no type.
//!
//! The protocol has no word for a message into a running turn. Where the program says that it has an
//! extension for that, or is known to fold a second prompt into the turn, a message goes in; else it
//! waits for the turn's end.

use std::collections::BTreeMap;

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::program::{ProgramAdapter, ProgramKind};
use protocol::report::{Capabilities, EXCERPT_MAX, Receipt, SteerReach, Usage, excerpt};
use serde_json::{Value, json};

use super::driven::home;
use super::driven::json_rpc::{self, Fault, Heard, Requests};
use super::driven::servers::{self, Servers};
use super::driven::wire::{Decision, Launch, MayUse, Out, Step, Wire};
use crate::run::{Failure, Run};
use conversation::Conversation;
use preset::Preset;
use session::{Offer, Opening};

mod conversation;
mod judge;
mod line;
mod preset;
mod session;
mod settings;
#[cfg(test)]
mod tests;

/// The version that is spoken.
const VERSION: u64 = 1;
/// Most of its questions that are remembered; the driver lets fewer wait.
const ASKED_MAX: usize = 64;

/// How a message goes into a running turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steering {
    /// By the extension `_session/steering`.
    Extension,
    /// As a second prompt, which is folded into the turn.
    SecondPrompt,
    /// Not at all.
    None,
}

/// What a request of ours is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Initialize,
    Load,
    New,
    /// A choice that the session is told: the model, or the mode.
    Choose {
        what: &'static str,
        must: bool,
    },
    /// A prompt, by its number.
    Prompt(u64),
    /// A text into the running turn, which becomes a prompt when there is none.
    Steer(String),
}

/// A question of the program.
#[derive(Debug)]
struct Asked {
    id: Value,
    allow: Option<String>,
    reject: Option<String>,
}

/// A program behind the protocol.
pub(super) struct Acp {
    adapter: ProgramAdapter,
    preset: Preset,
    cwd: String,
    servers: Servers,
    /// The session that is to go on.
    resume: Option<String>,
    session: Option<String>,
    is_resumed: bool,
    is_ready: bool,
    has_spoken: bool,
    offer: Offer,
    opening: Opening,
    steering: Steering,
    requests: Requests<What>,
    conversation: Conversation,
    asked: BTreeMap<String, Asked>,
    /// A cancel is on the way: nothing goes in until the turn has ended.
    is_cancelled: bool,
    /// Goes before the first prompt, where the program takes it in no other way.
    preface: Option<String>,
}

impl Acp {
    pub(super) fn new(adapter: ProgramAdapter) -> Self {
        Self {
            preset: Preset::of(&adapter.program),
            adapter,
            cwd: String::new(),
            servers: Servers::new(),
            resume: None,
            session: None,
            is_resumed: false,
            is_ready: false,
            has_spoken: false,
            offer: Offer::default(),
            opening: Opening::default(),
            steering: Steering::None,
            requests: Requests::default(),
            conversation: Conversation::default(),
            asked: BTreeMap::new(),
            is_cancelled: false,
            preface: None,
        }
    }

    fn answered(&mut self, what: What, outcome: Result<Value, Fault>, out: &mut Out) {
        match (what, outcome) {
            (What::Initialize, outcome) => self.initialized(outcome, out),
            (What::Load, Ok(result)) => {
                self.is_resumed = true;
                self.session = self.resume.take();
                self.opened(&result, out);
            }
            (What::Load, Err(fault)) => {
                out.notice(format!(
                    "the session can not go on, a new one begins: {}",
                    fault.message
                ));
                self.resume = None;
                self.say_new(out);
            }
            (What::New, Ok(result)) => match result["sessionId"].as_str() {
                Some(id) => {
                    self.session = Some(id.to_owned());
                    self.opened(&result, out);
                }
                None => fail(Class::Protocol, "a new session has no id", out),
            },
            (What::New, Err(fault)) => fail_by(&fault, "no session begins", out),
            (What::Choose { .. }, Ok(_)) => self.choose_next(out),
            (What::Choose { what, must }, Err(fault)) => {
                let text = format!("the {what} can not be chosen: {}", fault.message);
                if must {
                    let class = match what {
                        "model" => Class::ModelMissing,
                        _ => Class::SetupFailed,
                    };
                    fail(class, &text, out);
                } else {
                    out.notice(text);
                    self.choose_next(out);
                }
            }
            (What::Prompt(number), outcome) => {
                self.conversation.prompt_answered(number, outcome, out);
                self.is_cancelled &= self.conversation.is_in_turn();
            }
            (What::Steer(text), outcome) => self.steered(&text, outcome, out),
        }
    }

    /// A text that found no turn to go into begins one: it counts as said, and must not get lost.
    fn steered(&mut self, text: &str, outcome: Result<Value, Fault>, out: &mut Out) {
        let word = match &outcome {
            Ok(result) => line::text(&result["outcome"]),
            Err(fault) => {
                out.notice(format!("a message did not go in: {}", fault.message));
                "promptRequired"
            }
        };
        match word {
            "injected" => {}
            "promptRequired" => {
                out.step(Step::TurnBegan);
                self.say_prompt(text, Vec::new(), out);
            }
            other => out.notice(format!(
                "a message went in with the outcome `{}`",
                excerpt(other, 80)
            )),
        }
    }

    fn say_prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        let number = self.conversation.prompted(text, messages);
        let params = self.with_session(json!({"prompt": [{"type": "text", "text": text}]}));
        self.requests
            .say(What::Prompt(number), "session/prompt", &params, out);
    }

    fn with_session(&self, mut params: Value) -> Value {
        params["sessionId"] = json!(self.session.as_deref().unwrap_or_default());
        params
    }

    fn say_cancel(&mut self, out: &mut Out) {
        if !self.conversation.is_in_turn() || std::mem::replace(&mut self.is_cancelled, true) {
            return;
        }
        json_rpc::notify("session/cancel", &self.with_session(json!({})), out);
        // The protocol wants every open question answered then.
        for (request, asked) in std::mem::take(&mut self.asked) {
            let outcome = json!({"outcome": {"outcome": "cancelled"}});
            json_rpc::answer(&asked.id, &outcome, out);
            out.step(Step::Withdrawn(request));
        }
    }

    fn asks(&mut self, id: Value, params: &Value, out: &mut Out) {
        let tool = &params["toolCall"];
        let options = params["options"].as_array();
        let option = |kind: &str| {
            let mut options = options.into_iter().flatten();
            let option = options.find(|option| option["kind"] == kind)?;
            option["optionId"].as_str().map(str::to_owned)
        };
        let asked = Asked {
            allow: option("allow_once").or_else(|| option("allow_always")),
            reject: option("reject_once").or_else(|| option("reject_always")),
            id,
        };
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_first();
        }
        let request = asked.id.to_string();
        let kind = line::text(&tool["kind"]);
        let title = line::text(&tool["title"]);
        let named = [&tool["name"], &tool["_meta"]["claudeCode"]["toolName"]];
        let name = named.into_iter().find_map(Value::as_str).unwrap_or(kind);
        let detail = match &tool["rawInput"] {
            Value::Null => title.to_owned(),
            input => input.to_string(),
        };
        self.asked.insert(request.clone(), asked);
        out.step(Step::MayUse(MayUse {
            request,
            tool: excerpt(if name.is_empty() { title } else { name }, EXCERPT_MAX),
            detail: excerpt(&detail, EXCERPT_MAX),
            reason: excerpt(title, EXCERPT_MAX),
            is_edit: matches!(kind, "edit" | "delete" | "move"),
        }));
    }

    fn told(&mut self, method: &str, params: &Value, out: &mut Out) {
        let session = params["sessionId"].as_str();
        match method {
            // What an earlier run did comes once more while its session opens.
            "session/update" if !self.is_ready => {}
            // A helper of the agent's own.
            "session/update" if session != self.session.as_deref() => {}
            "session/update" => {
                let update = line::update(params);
                self.conversation.update(update, out);
            }
            line::EXTENSION => {
                let session = params["session"].as_str();
                let told = line::told(params);
                let is_ours = session.is_none() || session == self.session.as_deref();
                // Its helpers' requests cost as well; what else they do is their own.
                if is_ours || matches!(told, line::Told::Step { .. }) {
                    self.conversation.told(told, out);
                }
            }
            "_auth/status_update" => {}
            other => self.conversation.unknown(&excerpt(other, 80), out),
        }
        if self.conversation.is_cut() {
            self.say_cancel(out);
        }
    }
}

/// The conversation can not begin.
fn fail(class: Class, text: &str, out: &mut Out) {
    out.step(Step::Failed(Failure::new(class, text)));
}

fn fail_by(fault: &Fault, what: &str, out: &mut Out) {
    let told = judge::Fault {
        code: fault.code,
        text: format!("{} {}", fault.message, line::text(&fault.data["details"])),
        ..judge::Fault::default()
    };
    let class = match told.class() {
        Class::AgentFailed => Class::Environment,
        class => class,
    };
    fail(class, &format!("{what}: {}", told.evidence()), out);
}

impl Wire for Acp {
    /// A picture in a tool's result is several megabytes.
    const LINE_MAX: usize = 16 << 20;

    fn capabilities(&self) -> Capabilities {
        let (steer, receipt) = match self.steering {
            Steering::SecondPrompt => (SteerReach::Interrupt, Receipt::Seen),
            Steering::Extension => (SteerReach::Interrupt, Receipt::Injected),
            Steering::None if self.preset == Preset::Gemini => {
                (SteerReach::Interrupt, Receipt::Injected)
            }
            Steering::None => (SteerReach::None, Receipt::Injected),
        };
        Capabilities {
            steer,
            receipt,
            resume: self.offer.resumes() && self.preset.keeps_sessions(),
            cost: self.preset.tells_cost(),
            ..ProgramKind::Acp.capabilities()
        }
    }

    fn launch(&mut self, run: &mut Run, resume: Option<&str>) -> Result<Launch, Failure> {
        let start = &run.start;
        let home = match self.preset {
            Preset::Unknown => None,
            preset => home::make(&self.adapter, start, &preset.logins(start))?,
        };
        let folder = settings::write(self.preset, &self.adapter, start, home.as_deref())?;
        self.servers = servers::of(&self.adapter, run);
        self.cwd.clone_from(&start.cwd);
        self.resume = resume.map(str::to_owned);
        let mut argv = vec![self.adapter.program.clone()];
        argv.extend(self.preset.args(&self.adapter));
        argv.extend(self.adapter.args.iter().cloned());
        let (home, folder) = (home.as_deref(), folder.as_deref());
        Ok(Launch {
            argv,
            env: self.preset.environment(&self.adapter, start, home, folder),
            servers: servers::command_lines(&self.servers),
        })
    }

    fn open(&mut self, out: &mut Out) {
        let params = json!({
            "protocolVersion": VERSION,
            "clientCapabilities":
                {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "agent-host", "version": env!("CARGO_PKG_VERSION")},
        });
        self.requests
            .say(What::Initialize, "initialize", &params, out);
    }

    fn is_ready(&self) -> bool {
        self.is_ready
    }

    fn session(&self) -> Option<&str> {
        self.session.as_deref().or(self.resume.as_deref())
    }

    fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    fn hear(&mut self, line: &[u8], out: &mut Out) {
        let heard = json_rpc::read(line);
        self.has_spoken |= !matches!(heard, Heard::Garbage);
        match heard {
            Heard::Answer { id, outcome } => match self.requests.take(id) {
                Some(what) => self.answered(what, outcome, out),
                None => self.conversation.unknown("answer to no request", out),
            },
            Heard::Request { id, method, params } => match method.as_str() {
                "session/request_permission" => self.asks(id, &params, out),
                _ => json_rpc::refuse(&id, &method, out),
            },
            Heard::Notification { method, params } => self.told(&method, &params, out),
            Heard::Garbage => self.conversation.garbage(out),
        }
    }

    fn prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        match self.preface.take() {
            Some(preface) => self.say_prompt(&format!("{preface}\n\n{text}"), messages, out),
            None => self.say_prompt(text, messages, out),
        }
    }

    fn can_steer(&self) -> bool {
        self.steering != Steering::None && self.conversation.is_in_turn() && !self.is_cancelled
    }

    fn steer(&mut self, text: &str, message: MessageId, out: &mut Out) {
        match self.steering {
            Steering::Extension => {
                let params = self.with_session(json!({
                    "prompt": [{"type": "text", "text": text}],
                    "_meta": {"steering": {"idleBehavior": "promptRequired"}},
                }));
                let what = What::Steer(text.to_owned());
                self.requests.say(what, "_session/steering", &params, out);
            }
            Steering::SecondPrompt | Steering::None => {
                self.say_prompt(text, vec![message], out);
            }
        }
    }

    fn interrupt(&mut self, out: &mut Out) {
        self.say_cancel(out);
    }

    fn decide(&mut self, request: &str, decision: &Decision, out: &mut Out) {
        let Some(asked) = self.asked.remove(request) else {
            return;
        };
        let option = match decision {
            Decision::Allow => asked.allow,
            // The protocol has no room for the reason.
            Decision::Deny(_) => asked.reject,
        };
        let outcome = match option {
            Some(option) => json!({"outcome": "selected", "optionId": option}),
            None => json!({"outcome": "cancelled"}),
        };
        json_rpc::answer(&asked.id, &json!({"outcome": outcome}), out);
    }

    fn usage(&self) -> Usage {
        self.conversation.usage()
    }

    fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    fn untaken(&self) -> usize {
        let steers = self.requests.awaits(|what| matches!(what, What::Steer(_)));
        usize::from(steers || self.conversation.is_in_turn())
    }

    fn background(&self) -> usize {
        self.conversation.background()
    }

    fn not_understood(&self) -> Option<String> {
        self.conversation.not_understood()
    }
}
