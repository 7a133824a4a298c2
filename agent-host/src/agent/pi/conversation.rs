//! The conversation with one process of pi: what it said, as report events, and what became of the
//! texts that we said. Pure: lines in, lines, events and steps out.

use std::collections::{BTreeSet, VecDeque};

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::report::{Context, EXCERPT_MAX, Event, RateLimited, Said, Tool, Usage, excerpt};
use serde_json::{Value, json};

use super::judge::{self, Failed, judge};
use super::line::{self, Assistant, Heard, Response, Spent, Stats};
use crate::agent::driven::receipts::Receipts;
use crate::agent::driven::unknown::Unknown;
use crate::agent::driven::wire::{Ended, Out, Step, Verdict};

/// Most texts that are held until it is known what became of them; the oldest goes first.
const HELD_MAX: usize = 256;
/// Most questions for permission that are remembered; the driver lets fewer wait.
const ASKED_MAX: usize = 64;
/// Tries of its own that it is left: one, for a blip. What lasts longer is the supervisor's to wait
/// for, for all tasks together. (Its settings say so too, where they are ours.)
const TRIES_MAX: u64 = 1;

/// A text that we said.
#[derive(Debug)]
struct Text {
    /// The number of its command.
    key: String,
    text: String,
    messages: Vec<MessageId>,
    /// pi has answered our command.
    is_taken: bool,
    fate: Fate,
}

/// What became of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It waits in pi's queue, or is on the way there.
    Waits,
    /// It is in the model's next request, or in an earlier one.
    Told,
    /// An abort took it out of the queue.
    Dropped,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    /// Commands written so far, for their numbers.
    written: u64,
    /// Texts of which it is not known yet that the model was told, in order.
    texts: VecDeque<Text>,
    receipts: Receipts,
    /// A turn runs.
    runs: bool,
    /// It compacts its context, and takes no text meanwhile.
    compacts: bool,
    /// The turn is to be cut short as soon as pi has taken all that was said.
    wants_abort: bool,
    /// The turn was cut short by us.
    is_cut: bool,
    /// The turn is over; what the session used is awaited.
    is_ending: bool,
    session: Option<String>,
    is_known: bool,
    /// What the session had used before this run, once it is known.
    before: Option<Spent>,
    usage: Usage,
    window: Option<u64>,
    /// The last request that failed, until its message comes.
    failed: Option<Failed>,
    /// The turn's last message, and the request that it failed with.
    last: Option<(Assistant, Option<Failed>)>,
    /// The agent's last words.
    words: String,
    asked: BTreeSet<String>,
    has_spoken: bool,
    unknown: Unknown,
}

impl Conversation {
    /// Asks what a run has to know before its first prompt.
    pub(super) fn open(&mut self, out: &mut Out) {
        self.command(json!({"type": "get_state"}), out);
        self.command(json!({"type": "get_session_stats"}), out);
    }

    /// Whether a prompt may be said.
    pub(super) fn is_ready(&self) -> bool {
        self.is_known && self.before.is_some()
    }

    /// The session, by pi's own word.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// What this run used so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether it ever said something that we understood.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// How many texts wait for the model.
    pub(super) fn untaken(&self) -> usize {
        self.receipts.untaken()
    }

    /// What of its lines was not understood, as a sentence; `None` when all was.
    pub(super) fn not_understood(&self) -> Option<String> {
        self.unknown.sentence()
    }

    /// Writes a command; returns its number.
    fn command(&mut self, mut command: Value, out: &mut Out) -> String {
        self.written += 1;
        let key = format!("c{}", self.written);
        command["id"] = json!(key);
        out.say(&command);
        key
    }

    /// Says a text with these messages in it: it begins a turn, or goes into the one that runs at the
    /// next boundary. pi itself decides which, so that a turn that ends meanwhile does not matter.
    fn tell(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        let line = json!({"type": "prompt", "message": text, "streamingBehavior": "steer"});
        let key = self.command(line, out);
        self.receipts.wrote(key.clone(), messages.clone());
        if self.texts.len() >= HELD_MAX {
            self.texts.pop_front();
        }
        self.texts.push_back(Text {
            key,
            text: text.to_owned(),
            messages,
            is_taken: false,
            fate: Fate::Waits,
        });
    }

    /// Whether another text may be said now. One at a time, and only into a turn that is known to
    /// run: of two texts that would both begin a turn pi loses one.
    pub(super) fn can_steer(&self) -> bool {
        self.runs && !self.compacts && !self.wants_abort && self.are_all_taken()
    }

    fn are_all_taken(&self) -> bool {
        self.texts.iter().all(|text| text.is_taken)
    }

    /// Says a message into the running turn.
    pub(super) fn steer(&mut self, text: &str, message: MessageId, out: &mut Out) {
        self.tell(&plain(text.to_owned()), vec![message], out);
    }

    /// Begins a turn. What an abort took out of pi's queue goes in with it.
    pub(super) fn prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out) {
        let (mut whole, mut all) = (String::new(), Vec::new());
        for held in self.take_dropped() {
            whole.push_str(&held.text);
            whole.push_str("\n\n");
            all.extend(held.messages);
        }
        whole.push_str(text);
        all.extend(messages);
        self.tell(&plain(whole), all, out);
    }

    /// Texts that an abort took out of pi's queue, so that the model was not told them.
    fn take_dropped(&mut self) -> Vec<Text> {
        let texts = std::mem::take(&mut self.texts).into_iter();
        let (dropped, others): (Vec<Text>, Vec<Text>) =
            texts.partition(|text| text.fate == Fate::Dropped);
        self.texts = others.into();
        dropped
    }

    /// Cuts the turn short. Only when pi has taken all that was said: an abort before a turn has
    /// begun comes to nothing, and a text that comes into the queue behind one begins a turn.
    pub(super) fn interrupt(&mut self, out: &mut Out) {
        self.wants_abort = true;
        self.abort_if_due(out);
    }

    fn abort_if_due(&mut self, out: &mut Out) {
        if !self.wants_abort || !self.are_all_taken() {
            return;
        }
        self.wants_abort = false;
        self.is_cut = true;
        // What waits would begin a turn behind the abort.
        self.command(json!({"type": "clear_queue"}), out);
        self.command(json!({"type": "abort"}), out);
    }

    /// Takes in a line.
    pub(super) fn hear(&mut self, heard: Heard, out: &mut Out) {
        self.has_spoken |= !matches!(heard, Heard::Garbage | Heard::Unknown { .. });
        match heard {
            Heard::Response(response) => self.response(response, out),
            Heard::Began => {
                self.end_turn(None, out);
                self.runs = true;
                out.step(Step::TurnBegan);
            }
            Heard::Told(text) => self.told(&text),
            Heard::Answers => self.receipts.answered(&mut out.events),
            Heard::Assistant(message) => self.assistant(*message, out),
            Heard::Tool { name, detail } => {
                let ok = None;
                out.events.push(Event::ToolCall(Tool { name, detail, ok }));
            }
            Heard::ToolResult { name, ok, detail } => {
                let ok = Some(ok);
                out.events
                    .push(Event::ToolResult(Tool { name, detail, ok }));
            }
            Heard::Retry { attempt, text } => {
                if attempt > TRIES_MAX {
                    self.command(json!({"type": "abort_retry"}), out);
                } else {
                    out.events.push(Event::Retry(Said { text }));
                }
            }
            Heard::Compacts => {
                self.compacts = true;
                let text = "the context is being compacted".to_owned();
                out.events.push(Event::Compaction(Said { text }));
            }
            Heard::Compacted { text } => {
                self.compacts = false;
                out.events.push(Event::Compaction(Said { text }));
                self.say_again(out);
            }
            Heard::FailedRequest {
                status,
                reset_at_ms,
            } => self.failed_request(status, reset_at_ms, out),
            Heard::MayUse { request, .. } => self.remember_ask(request),
            Heard::Trouble(text) => out.notice(text),
            Heard::Settled => self.settled(out),
            // The adapter answers these itself.
            Heard::Asks { .. } | Heard::Nothing => {}
            Heard::Unknown { kind } => self.unknown.kind(&kind, out),
            Heard::Garbage => self.unknown.garbage(out),
        }
    }

    fn response(&mut self, response: Response, out: &mut Out) {
        match response.command.as_str() {
            "get_state" => self.state(&response.data, out),
            "get_session_stats" => self.stats(line::stats(&response.data), out),
            "prompt" => self.prompted(&response, out),
            "clear_queue" => self.cleared(&response.data),
            _ => {
                if let Some(error) = response.error {
                    out.notice(format!("it refused `{}`: {error}", response.command));
                }
            }
        }
    }

    fn state(&mut self, state: &Value, out: &mut Out) {
        let was_ready = self.is_ready();
        let id = state.get("sessionId").and_then(Value::as_str);
        self.session = id
            .map(|id| excerpt(id, EXCERPT_MAX))
            .or(self.session.take());
        self.window = line::window(state).or(self.window);
        self.is_known = true;
        self.tell_ready(was_ready, out);
    }

    fn tell_ready(&self, was_ready: bool, out: &mut Out) {
        if !was_ready && self.is_ready() {
            out.step(Step::Ready);
        }
    }

    fn stats(&mut self, stats: Stats, out: &mut Out) {
        let was_ready = self.is_ready();
        if self.before.is_none() {
            self.before = Some(stats.spent);
        }
        self.tell_ready(was_ready, out);
        self.end_turn(Some(stats), out);
    }

    /// What became of a text that we said.
    fn prompted(&mut self, response: &Response, out: &mut Out) {
        let found = self.texts.iter().position(|text| text.key == response.id);
        let Some(error) = &response.error else {
            if let Some(at) = found {
                self.texts[at].is_taken = true;
                self.forget_told();
            }
            return self.abort_if_due(out);
        };
        if self.compacts || error.contains("compaction is in progress") {
            // It is said again when the compaction is over.
            return;
        }
        let lost = self.receipts.cancelled(&response.id);
        for id in lost {
            out.notice(format!("it did not take {id}: {error}"));
        }
        if let Some(at) = found {
            self.texts.remove(at);
        }
        if !self.runs {
            self.refused(error, out);
        }
        self.abort_if_due(out);
    }

    /// It would not even begin a turn.
    fn refused(&mut self, error: &str, out: &mut Out) {
        let verdict = match std::mem::take(&mut self.wants_abort) {
            true => Verdict::Aborted,
            false => Verdict::Failed(judge::class(error, None)),
        };
        out.step(Step::TurnEnded(Box::new(Ended {
            verdict,
            text: excerpt(error, EXCERPT_MAX),
            evidence: excerpt(&format!("prompt refused: {error}"), EXCERPT_MAX),
            queued: 0,
            reset_at_ms: None,
        })));
    }

    /// Says again what was refused because of a compaction.
    fn say_again(&mut self, out: &mut Out) {
        let waiting = std::mem::take(&mut self.texts);
        for text in waiting {
            if text.is_taken || text.fate != Fate::Waits {
                self.texts.push_back(text);
            } else {
                self.receipts.cancelled(&text.key);
                self.tell(&text.text, text.messages, out);
            }
        }
    }

    /// These texts were taken out of pi's queue: the model has not been told them.
    fn cleared(&mut self, data: &Value) {
        for name in ["steering", "followUp"] {
            let texts = data.get(name).and_then(Value::as_array).into_iter();
            for cleared in texts.flatten().filter_map(Value::as_str) {
                if let Some(key) = self.settle_fate(cleared, Fate::Dropped) {
                    self.receipts.cancelled(&key);
                }
            }
        }
    }

    /// A text is in the model's next request.
    fn told(&mut self, text: &str) {
        if let Some(key) = self.settle_fate(text, Fate::Told) {
            self.receipts.started(&key);
            self.forget_told();
        }
    }

    /// Finds the oldest waiting text that reads like this one.
    fn settle_fate(&mut self, text: &str, fate: Fate) -> Option<String> {
        let mut held = self.texts.iter_mut();
        let found = held.find(|held| held.fate == Fate::Waits && held.text == text)?;
        found.fate = fate;
        Some(found.key.clone())
    }

    fn forget_told(&mut self) {
        let is_over = |text: &Text| text.is_taken && text.fate == Fate::Told;
        self.texts.retain(|text| !is_over(text));
    }

    fn assistant(&mut self, message: Assistant, out: &mut Out) {
        let failed = self.failed.take();
        let is_good = !matches!(message.stop.as_str(), "error" | "aborted");
        if is_good {
            self.receipts.answered(&mut out.events);
            self.usage.turns += 1;
        }
        if !message.text.is_empty() && is_good {
            self.words.clone_from(&message.text);
            let text = message.text.clone();
            out.events.push(Event::AssistantMessage(Said { text }));
        }
        let Spent {
            tokens,
            cost_micros,
        } = message.spent;
        if is_good || message.spent != Spent::default() {
            self.usage.tokens = self.usage.tokens.saturating_add(tokens);
            self.usage.cost_micros = self.usage.cost_micros.saturating_add(cost_micros);
            out.events.push(Event::Usage(self.usage));
        }
        if let Some(window) = self.window.filter(|_| message.context > 0) {
            let used = message.context;
            out.events.push(Event::Context(Context { used, window }));
        }
        self.last = Some((message, failed));
        out.step(Step::TurnBegan);
    }

    fn failed_request(&mut self, status: u64, reset_at_ms: Option<i64>, out: &mut Out) {
        self.failed = Some(Failed {
            status,
            reset_at_ms,
        });
        if status == 429 {
            let detail = format!("HTTP {status}");
            out.events.push(Event::RateLimited(RateLimited {
                reset_at_ms,
                detail,
            }));
        }
    }

    fn remember_ask(&mut self, request: String) {
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_first();
        }
        self.asked.insert(request);
    }

    /// A question for permission is answered.
    pub(super) fn decided(&mut self, request: &str) {
        self.asked.remove(request);
    }

    /// The turn is over; its end is told with what the session used by now.
    fn settled(&mut self, out: &mut Out) {
        (self.runs, self.wants_abort) = (false, false);
        for request in std::mem::take(&mut self.asked) {
            out.step(Step::Withdrawn(request));
        }
        self.end_turn(None, out);
        self.is_ending = true;
        self.command(json!({"type": "get_session_stats"}), out);
    }

    fn end_turn(&mut self, stats: Option<Stats>, out: &mut Out) {
        if !std::mem::take(&mut self.is_ending) {
            return;
        }
        if let Some(stats) = stats {
            self.correct_usage(stats, out);
        }
        let last = self.last.take();
        let (message, failed) = last.map_or((None, None), |(last, failed)| (Some(last), failed));
        let is_cut = std::mem::take(&mut self.is_cut);
        let verdict = judge(message.as_ref(), failed, is_cut);
        let message = message.unwrap_or_default();
        let reset = failed.and_then(|failed| failed.reset_at_ms);
        let limited = verdict == Verdict::Failed(Class::UsageLimit);
        let by_word = || judge::reset_in(&message.error, message.at_ms);
        let words = std::mem::take(&mut self.words);
        out.step(Step::TurnEnded(Box::new(Ended {
            evidence: evidence(&message, failed),
            text: match &verdict {
                Verdict::Well | Verdict::Aborted => words,
                Verdict::Failed(_) => reason(&message),
            },
            queued: 0,
            reset_at_ms: reset.or_else(by_word).filter(|_| limited),
            verdict,
        })));
    }

    /// By pi's own count of the whole session, which knows of compactions, too. Never less than was
    /// said before.
    fn correct_usage(&mut self, stats: Stats, out: &mut Out) {
        let before = self.before.unwrap_or_default();
        let since = |now: u64, then: u64| now.saturating_sub(then);
        let tokens = since(stats.spent.tokens, before.tokens);
        let cost = since(stats.spent.cost_micros, before.cost_micros);
        self.usage.tokens = self.usage.tokens.max(tokens);
        self.usage.cost_micros = self.usage.cost_micros.max(cost);
        out.events.push(Event::Usage(self.usage));
        if let Some((used, window)) = stats.context {
            out.events.push(Event::Context(Context { used, window }));
        }
    }
}

/// Why a message is no success.
fn reason(message: &Assistant) -> String {
    match message.stop.as_str() {
        "error" => message.error.clone(),
        "length" => "its answer was cut off at the model's limit".to_owned(),
        "" => "its turn ended without a message of the model".to_owned(),
        other => format!("its turn ended with `{other}`"),
    }
}

fn evidence(message: &Assistant, failed: Option<Failed>) -> String {
    let status = failed.map_or_else(String::new, |failed| format!(", HTTP {}", failed.status));
    let text = format!("stopReason {}{status}: {}", message.stop, message.error);
    excerpt(&text, EXCERPT_MAX)
}

/// A text that begins with `/` may be one of pi's commands, which begin no turn.
fn plain(text: String) -> String {
    match text.starts_with('/') {
        true => format!(" {text}"),
        false => text,
    }
}
