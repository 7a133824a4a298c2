//! The conversation in one session of a program: what it said, as report events, and what became of
//! our texts. Pure: updates in, events and steps out.

use std::collections::{BTreeMap, BTreeSet};

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::report::{Context, EXCERPT_MAX, Event, RateLimited, Said, Tool, Usage, excerpt};
use serde_json::Value;

use super::judge::{Fault, by_stop_reason};
use super::line::{self, Told, ToolUpdate, Update};
use crate::agent::driven::json_rpc;
use crate::agent::driven::receipts::Receipts;
use crate::agent::driven::unknown::Unknown;
use crate::agent::driven::wire::{Ended, Out, Step, Verdict};

/// Most tools that are remembered until they end.
const TOOLS_MAX: usize = 256;
/// Most texts of ours whose names are awaited.
const TEXTS_MAX: usize = 64;
/// So many requests in a row may fail before the turn is cut: one for a blip. What lasts longer is
/// the supervisor's to wait for, for all tasks together.
const RETRIES_MAX: u64 = 1;
/// And so long it may wait for the next one, milliseconds.
const RETRY_WAIT_MAX_MS: u64 = 10_000;
/// So often the context may be compacted with no tool in between: what is left is too long then.
const COMPACTIONS_MAX: u32 = 2;

/// A tool that runs.
#[derive(Debug, Default)]
struct Running {
    name: String,
    title: String,
    input: String,
    output: String,
    exit: Option<i64>,
    /// Its call has been reported.
    is_told: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    receipts: Receipts,
    /// Our prompts that are not answered, in order.
    prompts: BTreeSet<u64>,
    next_prompt: u64,
    /// The beginnings of our texts whose names are not known yet, with their keys.
    unnamed: Vec<(String, String)>,
    /// Our texts by the program's name, with their keys.
    named: BTreeMap<String, String>,
    tools: BTreeMap<String, Running>,
    /// The message whose pieces are coming.
    message: Option<String>,
    said: String,
    last_said: String,
    usage: Usage,
    /// The model is asked: its next words are those of another request.
    is_asked: bool,
    /// The verdict on the prompts of this turn that were answered.
    verdict: Option<(Verdict, String)>,
    /// What failed in this turn, by another way than the answer.
    fault: Option<Fault>,
    thread_failed: bool,
    /// We cut the turn, because of this.
    cut: Option<Class>,
    reset_at_ms: Option<i64>,
    compactions: u32,
    /// The extension of ours is there: it counts, and names our texts.
    is_extended: bool,
    /// A second prompt is folded into the turn of the first.
    folds: bool,
    unknown: Unknown,
}

impl Conversation {
    /// A second prompt in a turn belongs to it.
    pub(super) fn folds_prompts(&mut self) {
        self.folds = true;
    }

    /// A prompt was said; its number.
    pub(super) fn prompted(&mut self, text: &str, messages: Vec<MessageId>) -> u64 {
        let number = self.next_prompt;
        self.next_prompt += 1;
        if self.prompts.is_empty() {
            self.begin_turn();
        }
        self.prompts.insert(number);
        let key = number.to_string();
        if self.unnamed.len() >= TEXTS_MAX {
            self.unnamed.remove(0);
        }
        self.unnamed.push((key.clone(), text.to_owned()));
        self.receipts.wrote(key, messages);
        number
    }

    fn begin_turn(&mut self) {
        (self.verdict, self.fault, self.cut) = (None, None, None);
        (self.thread_failed, self.compactions, self.reset_at_ms) = (false, 0, None);
        self.tools.clear();
        self.is_asked = true;
    }

    /// Whether a turn runs.
    pub(super) fn is_in_turn(&self) -> bool {
        !self.prompts.is_empty()
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// How many tools run behind a turn's end, by the program's count.
    pub(super) fn background(&self) -> usize {
        self.tools.values().filter(|tool| tool.is_told).count()
    }

    pub(super) fn not_understood(&self) -> Option<String> {
        self.unknown.sentence()
    }

    pub(super) fn garbage(&mut self, out: &mut Out) {
        self.unknown.garbage(out);
    }

    pub(super) fn unknown(&mut self, kind: &str, out: &mut Out) {
        self.unknown.kind(kind, out);
    }

    /// Takes in an update of the session.
    pub(super) fn update(&mut self, update: Update, out: &mut Out) {
        match update {
            Update::Chunk { message, text } => {
                if message.is_none() && self.thread_failed {
                    self.fault.get_or_insert_default().text = text;
                    return;
                }
                self.answered(out);
                if message != self.message {
                    self.flush(out);
                    self.message = message;
                }
                if self.said.len() < EXCERPT_MAX {
                    self.said.push_str(&text);
                }
            }
            Update::Tool(update) => self.tool(update, out),
            Update::Usage {
                used,
                size,
                cost_micros,
            } => {
                // An answer that was cut short has no count.
                if used > 0 && size > 0 {
                    let window = size;
                    out.events.push(Event::Context(Context { used, window }));
                }
                if let Some(cost) = cost_micros.filter(|_| !self.is_extended)
                    && cost > self.usage.cost_micros
                {
                    self.usage.cost_micros = cost;
                    out.events.push(Event::Usage(self.usage));
                }
            }
            Update::ThreadFailed => {
                self.thread_failed = true;
                self.fault.get_or_insert_default();
            }
            Update::Nothing => {}
            Update::Unknown(kind) => self.unknown.kind(&kind, out),
        }
    }

    /// The model has said something: a request is answered.
    fn answered(&mut self, out: &mut Out) {
        if !std::mem::take(&mut self.is_asked) || !self.is_in_turn() {
            return;
        }
        if !self.is_extended {
            // The request began with the turn's first text; of later ones nothing is known here.
            if let Some(first) = self.prompts.first() {
                self.receipts.started(&first.to_string());
                self.receipts.answered(&mut out.events);
            }
            self.usage.turns += 1;
            out.events.push(Event::Usage(self.usage));
        }
    }

    fn flush(&mut self, out: &mut Out) {
        if self.said.is_empty() {
            return;
        }
        let text = excerpt(&std::mem::take(&mut self.said), EXCERPT_MAX);
        self.last_said.clone_from(&text);
        out.events.push(Event::AssistantMessage(Said { text }));
    }

    fn tool(&mut self, update: ToolUpdate, out: &mut Out) {
        let known = self.tools.contains_key(&update.id);
        let status = update.status.as_deref().unwrap_or_default();
        let ends = matches!(status, "completed" | "failed");
        if !known && !update.is_new && ends {
            // It ended with the turn before.
            return;
        }
        if update.is_new {
            self.answered(out);
            self.flush(out);
        }
        if self.tools.len() >= TOOLS_MAX && !known {
            self.tools.clear();
        }
        let tool = self.tools.entry(update.id.clone()).or_default();
        tool.learn(&update);
        let is_whole =
            status == "in_progress" || ends || (!update.is_new && update.input.is_some());
        if is_whole && !std::mem::replace(&mut tool.is_told, true) {
            out.events.push(Event::ToolCall(Tool {
                name: tool.name.clone(),
                detail: tool.detail(),
                ok: None,
            }));
        }
        if ends && let Some(tool) = self.tools.remove(&update.id) {
            let exit = tool.exit.is_none_or(|exit| exit == 0);
            out.events.push(Event::ToolResult(Tool {
                name: tool.name,
                detail: tool.output,
                ok: Some(status == "completed" && exit),
            }));
            self.is_asked = true;
            self.compactions = 0;
        }
    }

    /// Takes in what the extension of ours tells.
    pub(super) fn told(&mut self, told: Told, out: &mut Out) {
        self.is_extended = true;
        match told {
            Told::Hello => {}
            Told::Text { message, text } => {
                let beginning = text.trim_end_matches('…');
                let place = self
                    .unnamed
                    .iter()
                    .position(|(_, own)| own.starts_with(beginning));
                if let Some(place) = place {
                    let (key, _) = self.unnamed.remove(place);
                    if self.named.len() >= TEXTS_MAX {
                        self.named.pop_first();
                    }
                    self.named.insert(message, key);
                }
            }
            Told::Answered { message } => {
                // Its names are in the order of time: all that were said before were in it as well.
                let read = self.named.range(..=message).map(|(_, key)| key);
                for key in read {
                    self.receipts.started(key);
                }
                self.receipts.answered(&mut out.events);
            }
            Told::Step {
                tokens,
                cost_micros,
            } => {
                let usage = &mut self.usage;
                usage.turns += 1;
                usage.tokens = usage.tokens.saturating_add(tokens);
                usage.cost_micros = usage.cost_micros.saturating_add(cost_micros);
                out.events.push(Event::Usage(self.usage));
            }
            Told::Retry {
                attempt,
                wait_ms,
                reset_at_ms,
                fault,
            } => {
                let text = format!(
                    "request {attempt} failed, again in {wait_ms} ms: {}",
                    fault.evidence()
                );
                let text = excerpt(&text, EXCERPT_MAX);
                out.events.push(Event::Retry(Said { text }));
                if attempt > RETRIES_MAX || wait_ms > RETRY_WAIT_MAX_MS {
                    self.give_up(fault, reset_at_ms, out);
                }
            }
            Told::Error(fault) => self.fault = Some(fault),
            Told::Compacted => {
                let text = "the context was compacted".to_owned();
                out.events.push(Event::Compaction(Said { text }));
                self.compactions += 1;
                if self.compactions > COMPACTIONS_MAX {
                    self.cut = Some(Class::Overflow);
                }
            }
            Told::Trouble(text) => out.notice(format!("the extension of opencode: {text}")),
            Told::Unknown(kind) => self.unknown.kind(&kind, out),
        }
    }

    /// The turn is to end with this failure.
    fn give_up(&mut self, fault: Fault, reset_at_ms: Option<i64>, out: &mut Out) {
        let class = fault.class();
        if class == Class::UsageLimit {
            self.reset_at_ms = reset_at_ms;
            let detail = fault.text.clone();
            out.events.push(Event::RateLimited(RateLimited {
                reset_at_ms,
                detail,
            }));
        }
        self.cut = Some(class);
        self.fault = Some(fault);
    }

    /// Whether the turn is to be cut short, because it can not go well.
    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some() && self.is_in_turn()
    }

    /// A prompt was answered.
    pub(super) fn prompt_answered(
        &mut self,
        number: u64,
        outcome: Result<Value, json_rpc::Fault>,
        out: &mut Out,
    ) {
        if !self.prompts.remove(&number) {
            return;
        }
        let (verdict, words) = match outcome {
            Ok(result) => {
                let tokens = line::fresh_tokens(&result);
                if !self.is_extended && tokens > 0 {
                    self.usage.tokens = self.usage.tokens.saturating_add(tokens);
                    out.events.push(Event::Usage(self.usage));
                }
                let reason = line::text(&result["stopReason"]);
                (
                    by_stop_reason(reason),
                    format!("stop reason `{}`", excerpt(reason, 80)),
                )
            }
            Err(error) => self.failed(&error),
        };
        let key = number.to_string();
        let is_sound = verdict == Verdict::Well && !self.thread_failed && self.cut.is_none();
        if is_sound && (self.folds || self.prompts.is_empty()) {
            // It was worked on to its end.
            self.receipts.completed(&key, &mut out.events);
        } else {
            self.receipts.cancelled(&key);
        }
        self.unnamed.retain(|(unnamed, _)| *unnamed != key);
        let is_worse = self
            .verdict
            .as_ref()
            .is_none_or(|(worst, _)| *worst == Verdict::Well);
        if is_worse {
            self.verdict = Some((verdict, words));
        }
        if self.prompts.is_empty() {
            self.end_turn(out);
        }
    }

    /// The verdict on an error, which what was told before it may explain.
    fn failed(&mut self, error: &json_rpc::Fault) -> (Verdict, String) {
        let data = &error.data;
        let kind = data["errorKind"]
            .as_str()
            .or_else(|| data["errorName"].as_str());
        let details = data["details"].as_str().unwrap_or_default();
        let status = data["statusCode"]
            .as_u64()
            .or_else(|| data["status"].as_u64());
        let before = self.fault.take().unwrap_or_default();
        let fault = Fault {
            code: error.code,
            status: status.or(before.status),
            kind: kind.unwrap_or(&before.kind).to_owned(),
            text: excerpt(&format!("{} {details}", error.message), EXCERPT_MAX),
            is_network: before.is_network,
        };
        let words = fault.evidence();
        let verdict = Verdict::Failed(fault.class());
        self.fault = Some(fault);
        (verdict, words)
    }

    fn end_turn(&mut self, out: &mut Out) {
        self.flush(out);
        let (mut verdict, mut evidence) = self
            .verdict
            .take()
            .unwrap_or((Verdict::Well, String::new()));
        let fault = self.fault.take();
        if let Some(class) = self.cut.take() {
            verdict = Verdict::Failed(class);
            let why = fault.as_ref().map_or_else(
                || "it compacts its context again and again".to_owned(),
                Fault::evidence,
            );
            evidence = format!("the turn was cut short: {why}; {evidence}");
        } else if let Some(fault) = fault.as_ref().filter(|_| self.thread_failed)
            && verdict == Verdict::Well
        {
            verdict = Verdict::Failed(fault.class());
            evidence = format!("the thread failed: {}; {evidence}", fault.evidence());
        }
        let text = match (&verdict, &fault) {
            (Verdict::Failed(_), Some(fault)) if !fault.text.is_empty() => fault.text.clone(),
            (Verdict::Failed(_), _) => evidence.clone(),
            (Verdict::Well | Verdict::Aborted, _) => std::mem::take(&mut self.last_said),
        };
        if verdict != Verdict::Well {
            self.tools.clear();
        }
        out.step(Step::TurnEnded(Box::new(Ended {
            verdict,
            text: text.trim_end().to_owned(),
            evidence: excerpt(&evidence, EXCERPT_MAX),
            queued: 0,
            reset_at_ms: self.reset_at_ms.take(),
        })));
    }
}

impl Running {
    fn learn(&mut self, update: &ToolUpdate) {
        if let Some(name) = &update.name {
            self.name.clone_from(name);
        } else if self.name.is_empty() {
            // The first title of most programs is the tool's name; a command is none.
            let title = update.title.as_ref().filter(|title| !title.contains(' '));
            let name = title.or(update.kind.as_ref());
            self.name = name.cloned().unwrap_or_default();
        }
        for (own, new) in [
            (&mut self.title, &update.title),
            (&mut self.input, &update.input),
            (&mut self.output, &update.output),
        ] {
            if let Some(new) = new {
                own.clone_from(new);
            }
        }
        self.exit = update.exit.or(self.exit);
    }

    fn detail(&self) -> String {
        match self.input.is_empty() {
            true => self.title.clone(),
            false => self.input.clone(),
        }
    }
}
