//! The conversation with one app server of codex: its thread and turns, what it said, as report events,
//! and what became of the texts that it was told. Pure: lines in; lines, events and steps out.

use std::collections::BTreeMap;

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::report::{EXCERPT_MAX, Event, RateLimited, Said, Usage, excerpt};
use serde_json::{Value, json};

use super::approval::Approvals;
use super::item::{self, Item};
use super::judge::Fault;
use super::meter::Meter;
use crate::agent::driven::json_rpc::{self, Fault as Refusal, Heard, Requests};
use crate::agent::driven::receipts::Receipts;
use crate::agent::driven::unknown::Unknown;
use crate::agent::driven::wire::{Decision, Ended, Out, Step, Verdict};
use crate::run::Failure;

/// Most failed requests in a row that a turn may have before it is cut short.
const TRIES_MAX: u32 = 2;
/// Most texts that wait to be read by the model; what is beyond is not said again.
const WAITING_MAX: usize = 256;
/// Most changes of files that are remembered until they are asked about.
const CHANGES_MAX: usize = 64;

/// What a request of ours is for.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Initialize,
    Thread {
        /// An earlier one is to go on.
        is_resumed: bool,
    },
    /// A turn with the text of this key.
    Turn(String),
    /// The text of this key, into the running turn.
    Steer(String),
    /// Words beside an answer, which need not arrive.
    Aside,
    Interrupt,
    /// The commands that an interrupted turn left.
    Clean,
}

/// A text that was said into a turn and that the model has not read yet.
#[derive(Debug)]
struct Waiting {
    key: String,
    text: String,
    messages: Vec<MessageId>,
}

/// An interrupt that the driver asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Interrupt {
    #[default]
    None,
    /// To be said once the turn is known.
    Wanted,
    Said,
}

/// The requests that failed in a row.
#[derive(Debug, Default)]
struct Failing {
    fault: Option<Fault>,
    tries: u32,
    /// The turn was cut short because of them.
    is_cut: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    requests: Requests<Sent>,
    /// What a thread is asked for.
    opening: Value,
    /// The thread that is to go on.
    earlier: Option<String>,
    thread: Option<String>,
    is_resumed: bool,
    /// The turn that runs.
    turn: Option<String>,
    interrupt: Interrupt,
    /// The last turn was interrupted.
    was_interrupted: bool,
    receipts: Receipts,
    waiting: Vec<Waiting>,
    /// It names our texts as we did; older versions do not.
    gives_receipts: bool,
    /// For keys that no other run of this session has.
    generation: u64,
    written: u64,
    approvals: Approvals,
    /// Why the last request for permission was refused, as it was told.
    refusal: String,
    changes: BTreeMap<String, String>,
    meter: Meter,
    last_words: String,
    failing: Failing,
    /// The end of a turn, until what it left is cleaned.
    held: Option<Box<Ended>>,
    unknown: Unknown,
    has_spoken: bool,
}

impl Conversation {
    /// Opens the conversation. `opening`: what a thread is asked for; `earlier`: the one to go on.
    pub(super) fn open(
        &mut self,
        opening: Value,
        earlier: Option<String>,
        generation: u64,
        out: &mut Out,
    ) {
        (self.opening, self.earlier, self.generation) = (opening, earlier, generation);
        let client = json!({"name": "agent-host", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({"clientInfo": client, "capabilities": {"experimentalApi": true}});
        self.requests
            .say(Sent::Initialize, "initialize", &params, out);
    }

    /// Its name, once it is known.
    pub(super) fn thread(&self) -> Option<&str> {
        self.thread.as_deref()
    }

    /// Whether it has a history from before this run.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Whether a turn runs that a text can go into.
    pub(super) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    pub(super) fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// Whether it ever said something that was understood.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// How many texts it has not begun to work on, as far as it tells.
    pub(super) fn untaken(&self) -> usize {
        if !self.gives_receipts {
            return 0;
        }
        self.receipts.untaken()
    }

    /// What of its lines was not understood, as a sentence; `None` when all was.
    pub(super) fn not_understood(&self) -> Option<String> {
        self.unknown.sentence()
    }

    /// Begins a turn. What was said into the last turn and not read before that was interrupted is
    /// gone for the program, so it is said again.
    pub(super) fn prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        let on_its_way = |key: &String| {
            let is = |sent: &Sent| matches!(sent, Sent::Turn(other) | Sent::Steer(other) if other == key);
            self.requests.awaits(is)
        };
        let (waiting, unread): (Vec<Waiting>, _) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|one| on_its_way(&one.key));
        self.waiting = waiting;
        let (mut texts, mut all) = (Vec::new(), Vec::new());
        for one in unread {
            self.receipts.cancelled(&one.key);
            texts.push(one.text);
            all.extend(one.messages);
        }
        texts.push(text.to_owned());
        all.extend(messages);
        let key = self.key();
        self.receipts.wrote(key.clone(), all);
        self.start_turn(key, &texts.join("\n\n"), out);
    }

    /// Says a text into the running turn.
    pub(super) fn steer(&mut self, text: &str, message: MessageId, out: &mut Out) {
        let (key, messages) = (self.key(), vec![message]);
        self.receipts.wrote(key.clone(), messages.clone());
        self.say_into_turn(Sent::Steer(key.clone()), &key, text, out);
        if self.waiting.len() < WAITING_MAX {
            let text = text.to_owned();
            self.waiting.push(Waiting {
                key,
                text,
                messages,
            });
        }
    }

    /// Cuts the turn short.
    pub(super) fn interrupt(&mut self, out: &mut Out) {
        self.interrupt = Interrupt::Wanted;
        self.say_interrupt(out);
    }

    /// Answers a request for permission. The program has no place for the reason of a refusal, so it
    /// is said beside it.
    pub(super) fn decide(&mut self, request: &str, decision: &Decision, out: &mut Out) {
        let waited = self.approvals.decide(request, decision, out);
        if let Decision::Deny(why) = decision
            && waited
            && self.turn.is_some()
            && self.refusal != *why
        {
            self.refusal.clone_from(why);
            let key = self.key();
            self.say_into_turn(Sent::Aside, &key, why, out);
        }
    }

    /// Takes in a line.
    pub(super) fn hear(&mut self, line: &[u8], out: &mut Out) {
        match json_rpc::read(line) {
            Heard::Answer { id, outcome } => {
                self.has_spoken = true;
                if let Some(sent) = self.requests.take(id) {
                    self.answered(sent, outcome, out);
                }
            }
            Heard::Request { id, method, params } => {
                self.has_spoken = true;
                let files = |item: &str| self.changes.get(item).cloned();
                self.approvals.ask(id, &method, &params, files, out);
            }
            Heard::Notification { method, params } => self.told(&method, &params, out),
            Heard::Garbage => self.unknown.garbage(out),
        }
    }

    fn answered(&mut self, sent: Sent, outcome: Result<Value, Refusal>, out: &mut Out) {
        match (sent, outcome) {
            (Sent::Initialize, Ok(_)) => {
                json_rpc::notify("initialized", &json!({}), out);
                self.ask_for_thread(out);
            }
            (Sent::Initialize, Err(refusal)) => {
                let text = format!("it refused to begin: {}", refusal.message);
                out.step(Step::Failed(Failure::new(Class::Protocol, text)));
            }
            (Sent::Thread { is_resumed }, Ok(result)) => {
                self.has_thread(is_resumed, &result, out);
            }
            (Sent::Thread { is_resumed }, Err(refusal)) => {
                self.has_no_thread(is_resumed, &refusal.message, out);
            }
            (Sent::Turn(key), Err(refusal)) => self.has_no_turn(&key, &refusal.message, out),
            (Sent::Steer(key), Err(_)) => self.say_again(&key, out),
            (Sent::Clean, _) => self.release(out),
            (Sent::Turn(_) | Sent::Steer(_), Ok(_)) | (Sent::Aside | Sent::Interrupt, _) => {}
        }
    }

    fn ask_for_thread(&mut self, out: &mut Out) {
        let mut params = self.opening.clone();
        match self.earlier.take() {
            Some(thread) => {
                params["threadId"] = json!(thread);
                // Its history is not ours to show again.
                params["excludeTurns"] = json!(true);
                let sent = Sent::Thread { is_resumed: true };
                self.thread = Some(thread);
                self.requests.say(sent, "thread/resume", &params, out);
            }
            None => {
                let sent = Sent::Thread { is_resumed: false };
                self.requests.say(sent, "thread/start", &params, out);
            }
        }
    }

    fn has_thread(&mut self, is_resumed: bool, result: &Value, out: &mut Out) {
        let Some(id) = result["thread"]["id"].as_str() else {
            let text = "it began a thread without an id";
            return out.step(Step::Failed(Failure::new(Class::Protocol, text)));
        };
        self.thread = Some(id.to_owned());
        self.is_resumed = is_resumed;
        out.step(Step::Ready);
    }

    fn has_no_thread(&mut self, is_resumed: bool, message: &str, out: &mut Out) {
        let earlier = self.thread.take().filter(|_| is_resumed);
        let text = match earlier {
            Some(id) if message.contains("already has an active writer") => {
                // It is not ours to begin anew beside whoever that is.
                self.thread = Some(id.clone());
                format!("another codex works in session {id}; end it, then retry: {message}")
            }
            Some(id) => {
                let text = format!("session {id} can not go on, it begins anew: {message}");
                out.notice(text);
                return self.ask_for_thread(out);
            }
            None => format!("it began no thread: {message}"),
        };
        out.step(Step::Failed(Failure::new(Class::Environment, text)));
    }

    fn has_no_turn(&mut self, key: &str, message: &str, out: &mut Out) {
        self.waiting.retain(|one| one.key != key);
        let lost = self.receipts.cancelled(key);
        if self.turn.is_none() {
            let text = format!("it began no turn: {message}");
            return out.step(Step::Failed(Failure::new(Class::Protocol, text)));
        }
        for id in lost {
            out.notice(format!("the agent did not take {id}: {message}"));
        }
    }

    /// A text came too late for its turn: it begins the next one, or goes into one that began since.
    /// After an interrupt it waits for the prompt that follows.
    fn say_again(&mut self, key: &str, out: &mut Out) {
        if self.was_interrupted && self.turn.is_none() {
            return;
        }
        let text = self.waiting.iter().find(|one| one.key == key);
        if let Some(text) = text.map(|one| one.text.clone()) {
            self.start_turn(key.to_owned(), &text, out);
        }
    }

    fn told(&mut self, method: &str, params: &Value, out: &mut Out) {
        self.has_spoken = true;
        let thread = params["threadId"].as_str();
        // Other threads are those of agents that it started.
        let is_own = thread.is_none() || thread == self.thread.as_deref();
        match method {
            "turn/started" if is_own => self.turn_started(&params["turn"], out),
            "turn/completed" if is_own => self.turn_ended(&params["turn"], out),
            "item/started" if is_own => self.item_started(&params["item"], out),
            "item/completed" if is_own => self.item_ended(&params["item"], out),
            "error" if is_own && params["willRetry"] == true => {
                self.failed_request(Fault::read(&params["error"]), out);
            }
            "thread/tokenUsage/updated" => {
                let counts = self.turn.is_some();
                let answered = self.meter.updated(params, counts, &mut out.events);
                if answered && is_own {
                    self.model_answered(out);
                    out.events.extend(Meter::context(params));
                }
            }
            "account/rateLimits/updated" => self.meter.limits(params),
            "serverRequest/resolved" => self.approvals.resolved(&params["requestId"], out),
            method if is_known(method) => {}
            method => self.unknown.kind(&excerpt(method, KIND_MAX), out),
        }
    }

    fn turn_started(&mut self, turn: &Value, out: &mut Out) {
        let id = turn["id"].as_str().unwrap_or_default();
        self.turn = Some(excerpt(id, EXCERPT_MAX));
        self.was_interrupted = false;
        self.failing = Failing::default();
        self.last_words.clear();
        self.refusal.clear();
        out.step(Step::TurnBegan);
        self.say_interrupt(out);
    }

    fn item_started(&mut self, item: &Value, out: &mut Out) {
        let read = Item::read(item);
        if read.is_of_the_model() {
            self.model_answered(out);
        }
        if item["type"] == "fileChange" {
            if self.changes.len() >= CHANGES_MAX {
                self.changes.clear();
            }
            let id = item["id"].as_str().unwrap_or_default();
            let changes = excerpt(&item::changes(item), EXCERPT_MAX);
            self.changes.insert(excerpt(id, EXCERPT_MAX), changes);
        }
        match &read {
            Item::User { key } if self.receipts.knows(key) => {
                self.gives_receipts = true;
                self.receipts.started(key);
                self.waiting.retain(|one| one.key != *key);
            }
            Item::Unknown(kind) => self.unknown.kind(&format!("item {kind}"), out),
            _ => {}
        }
        out.events.extend(read.begun());
    }

    fn item_ended(&mut self, item: &Value, out: &mut Out) {
        let read = Item::read(item);
        if let Item::Words(text) = &read {
            self.last_words.clone_from(text);
        }
        out.events.extend(read.ended());
    }

    /// The model answered a request: it has read what was in it.
    fn model_answered(&mut self, out: &mut Out) {
        self.receipts.answered(&mut out.events);
        if !self.failing.is_cut {
            self.failing = Failing::default();
        }
    }

    /// A request failed, and the program is about to try it again. A provider of its own can be told
    /// to do that once; what codex brings along does it many times, so the turn is cut short: at once
    /// where no second try can help (and where it would wait for the end of a limit).
    fn failed_request(&mut self, fault: Fault, out: &mut Out) {
        let text = excerpt(&fault.evidence(), EXCERPT_MAX);
        out.events.push(Event::Retry(Said { text }));
        if fault.is_of_a_socket() {
            return;
        }
        self.failing.tries += 1;
        let is_vain = matches!(
            fault.class(),
            Class::Auth | Class::Billing | Class::UsageLimit
        );
        self.failing.fault = Some(fault);
        if (is_vain || self.failing.tries >= TRIES_MAX) && !self.failing.is_cut {
            self.failing.is_cut = true;
            self.request_interrupt(out);
        }
    }

    fn turn_ended(&mut self, turn: &Value, out: &mut Out) {
        self.turn = None;
        let status = turn["status"].as_str().unwrap_or_default();
        let is_asked = std::mem::take(&mut self.interrupt) != Interrupt::None;
        let failing = std::mem::take(&mut self.failing);
        let cut = failing
            .fault
            .clone()
            .filter(|_| failing.is_cut && !is_asked);
        let (verdict, fault) = match (status, cut) {
            ("completed", _) => (Verdict::Well, None),
            ("interrupted", None) => (Verdict::Aborted, None),
            ("interrupted", Some(fault)) => (Verdict::Failed(fault.class()), Some(fault)),
            (_, _) => {
                let told = turn.get("error").filter(|error| !error.is_null());
                let fault = told.map(Fault::read).or(failing.fault).unwrap_or_default();
                (Verdict::Failed(fault.class()), Some(fault))
            }
        };
        let reset_at_ms = self.limited(&verdict, fault.as_ref(), out);
        let evidence = fault.as_ref().map_or_else(String::new, Fault::evidence);
        let text = match fault {
            Some(fault) => excerpt(&fault.message, EXCERPT_MAX),
            None => std::mem::take(&mut self.last_words),
        };
        let ended = Box::new(Ended {
            verdict,
            text,
            evidence: excerpt(&format!("turn {status}, {evidence}"), EXCERPT_MAX),
            queued: 0,
            reset_at_ms,
        });
        self.was_interrupted = status == "interrupted";
        if !self.was_interrupted {
            return out.step(Step::TurnEnded(ended));
        }
        // Its commands run on. The next turn must not begin before they are gone, or its own may be
        // taken along.
        self.held = Some(ended);
        let params = json!({"threadId": self.thread});
        let method = "thread/backgroundTerminals/clean";
        self.requests.say(Sent::Clean, method, &params, out);
    }

    /// Reports a limit of the account; when it ends, where that is known.
    fn limited(&self, verdict: &Verdict, fault: Option<&Fault>, out: &mut Out) -> Option<i64> {
        if *verdict != Verdict::Failed(Class::UsageLimit) {
            return None;
        }
        let reset_at_ms = self.meter.reset_at_ms();
        let detail = fault.map_or_else(String::new, Fault::evidence);
        out.events.push(Event::RateLimited(RateLimited {
            reset_at_ms,
            detail: excerpt(&detail, EXCERPT_MAX),
        }));
        reset_at_ms
    }

    fn release(&mut self, out: &mut Out) {
        if let Some(ended) = self.held.take() {
            out.step(Step::TurnEnded(ended));
        }
    }

    fn say_interrupt(&mut self, out: &mut Out) {
        if self.interrupt == Interrupt::Wanted && self.turn.is_some() {
            self.interrupt = Interrupt::Said;
            self.request_interrupt(out);
        }
    }

    fn request_interrupt(&mut self, out: &mut Out) {
        let params = json!({"threadId": self.thread, "turnId": self.turn});
        self.requests
            .say(Sent::Interrupt, "turn/interrupt", &params, out);
    }

    fn start_turn(&mut self, key: String, text: &str, out: &mut Out) {
        let params = json!({"threadId": self.thread, "clientUserMessageId": key,
            "input": [{"type": "text", "text": text}]});
        self.requests
            .say(Sent::Turn(key), "turn/start", &params, out);
    }

    fn say_into_turn(&mut self, sent: Sent, key: &str, text: &str, out: &mut Out) {
        let params = json!({"threadId": self.thread, "expectedTurnId": self.turn,
            "clientUserMessageId": key, "input": [{"type": "text", "text": text}]});
        self.requests.say(sent, "turn/steer", &params, out);
    }

    fn key(&mut self) -> String {
        self.written += 1;
        format!("host-{:x}-{}", self.generation, self.written)
    }
}

/// Longest name of a kind that is kept.
const KIND_MAX: usize = 80;

/// Whether a notification is known, though it says nothing that a run needs: its name, or the part
/// before the last slash for those that come in families.
fn is_known(method: &str) -> bool {
    const NAMES: [&str; 14] = [
        "error",
        "warning",
        "guardianWarning",
        "configWarning",
        "deprecationNotice",
        "skills/changed",
        "fs/changed",
        "turn/started",
        "turn/completed",
        "item/started",
        "item/completed",
        "app/list/updated",
        "account/updated",
        "project/changed",
    ];
    const FAMILIES: [&str; 12] = [
        "thread/",
        "turn/",
        "item/",
        "hook/",
        "process/",
        "command/exec/",
        "mcpServer/",
        "model/",
        "modelProvider/",
        "account/",
        "autoApprovalReview/",
        "remoteControl/",
    ];
    NAMES.contains(&method) || FAMILIES.iter().any(|family| method.starts_with(family))
}
