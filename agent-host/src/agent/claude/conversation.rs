//! The conversation with one process of Claude Code: what it said, as report events, and what
//! became of the lines that we wrote. Pure: lines in, events and steps out.

use std::collections::{BTreeMap, VecDeque};

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::report::{Context, EXCERPT_MAX, Event, RateLimited, Said, Tool, Usage, excerpt};

use super::judge::{Verdict, judge};
use super::wire::{Assistant, Heard, MayUse, Part, Stage, ToolResult, TurnEnd};

/// Most tools whose names are remembered until they end; of an older one the name is not known.
const TOOLS_MAX: usize = 256;
/// Most kinds of unknown lines that are counted one by one; more are counted together.
const KINDS_MAX: usize = 32;

/// What the adapter has to do about a line.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    None,
    /// A turn began, whoever began it.
    TurnBegan,
    /// A turn ended.
    TurnEnded(Box<Ended>),
    /// It asks whether it may use a tool.
    MayUse(MayUse),
    /// It no longer wants the answer to a request.
    Withdrawn(String),
    /// It asks for something that we do not know.
    Asks { request: String, what: String },
}

/// A turn that ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) verdict: Verdict,
    /// Its last words.
    pub(super) text: String,
    /// What it documents of a failure, for evidence.
    pub(super) evidence: String,
    /// Turns that it will begin by itself.
    pub(super) queued: u64,
    /// End of the account's limit, for a failure by it.
    pub(super) reset_at_ms: Option<i64>,
}

/// A line that we wrote.
#[derive(Debug)]
struct Line {
    uuid: String,
    /// The messages in it.
    messages: Vec<MessageId>,
    stage: LineStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineStage {
    /// Written, perhaps queued.
    Written,
    /// In the model's next request.
    Started,
    /// The model has answered a request that it was in.
    Seen,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    lines: VecDeque<Line>,
    tools: BTreeMap<String, String>,
    /// The message whose parts are coming.
    message: String,
    usage: Usage,
    /// Tokens of the process up to the last turn's end, by its own count.
    counted: u64,
    /// Tokens of the messages since.
    uncounted: u64,
    context: u64,
    /// The word of the last request of this turn that failed.
    failure: Option<String>,
    reset_at_ms: Option<i64>,
    /// What it has running in the background.
    background: usize,
    unknown: BTreeMap<String, u64>,
    garbage: u64,
    /// Anything of the wire was understood.
    has_spoken: bool,
    /// It tells what becomes of our lines; older versions do not.
    gives_receipts: bool,
}

impl Conversation {
    /// What the process used so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Whether it ever said something that we understood.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// How many of our lines the agent has not begun to work on, as far as it tells.
    pub(super) fn untaken(&self) -> usize {
        if !self.gives_receipts {
            return 0;
        }
        let written = |line: &&Line| line.stage == LineStage::Written;
        self.lines.iter().filter(written).count()
    }

    /// How much it has running in the background, by its own count.
    pub(super) fn background(&self) -> usize {
        self.background
    }

    /// A line was written for it, with these messages in it.
    pub(super) fn wrote(&mut self, uuid: String, messages: Vec<MessageId>) {
        let stage = LineStage::Written;
        self.lines.push_back(Line {
            uuid,
            messages,
            stage,
        });
    }

    /// Takes in a line, adds what it means to `events`.
    pub(super) fn hear(&mut self, heard: Heard, events: &mut Vec<Event>) -> Step {
        self.has_spoken |= !matches!(heard, Heard::Garbage | Heard::Unknown { .. });
        match heard {
            Heard::Init => return Step::TurnBegan,
            Heard::Assistant(message) => return self.assistant(message, events),
            Heard::ToolResults(results) => {
                for result in results {
                    events.push(self.tool_result(result));
                }
            }
            Heard::Lifecycle { uuid, stage } => return self.lifecycle(&uuid, stage, events),
            Heard::Retry(text) => events.push(Event::Retry(Said { text })),
            Heard::Limit {
                rejected,
                reset_at_ms,
                detail,
            } => {
                self.reset_at_ms = reset_at_ms.filter(|_| rejected);
                if rejected {
                    events.push(Event::RateLimited(RateLimited {
                        reset_at_ms,
                        detail,
                    }));
                }
            }
            Heard::Background(count) => self.background = count,
            Heard::Compaction(text) => events.push(Event::Compaction(Said { text })),
            Heard::MayUse(ask) => return Step::MayUse(ask),
            Heard::Withdrawn { request } => return Step::Withdrawn(request),
            Heard::Asks { request, what } => return Step::Asks { request, what },
            Heard::TurnEnd(end) => return self.turn_end(&end, events),
            Heard::Nothing => {}
            Heard::Unknown { kind } => self.note_unknown(kind, events),
            Heard::Garbage => {
                self.garbage += 1;
                if self.garbage == 1 {
                    events.push(notice(
                        "it printed a line that is no JSON object".to_owned(),
                    ));
                }
            }
        }
        Step::None
    }

    fn assistant(&mut self, message: Assistant, events: &mut Vec<Event>) -> Step {
        if let Some(word) = message.failure {
            // Words of the program, not of the model: no progress, and no proof that it read.
            self.failure = Some(word);
            return Step::None;
        }
        if message.is_own {
            self.failure = None;
            self.context = message.tokens.context;
            self.see_started(events);
        }
        for part in message.parts {
            match part {
                Part::Text(text) => events.push(Event::AssistantMessage(Said { text })),
                Part::Tool { id, name, detail } => {
                    if self.tools.len() >= TOOLS_MAX {
                        self.tools.clear();
                    }
                    self.tools.insert(id, name.clone());
                    let ok = None;
                    events.push(Event::ToolCall(Tool { name, detail, ok }));
                }
                Part::Other => {}
            }
        }
        if self.message != message.id {
            self.message = message.id;
            self.usage.turns += 1;
            self.uncounted = self.uncounted.saturating_add(message.tokens.fresh);
            self.report_usage(self.usage.cost_micros, events);
        }
        Step::TurnBegan
    }

    fn tool_result(&mut self, result: ToolResult) -> Event {
        let name = self.tools.remove(&result.id).unwrap_or_default();
        Event::ToolResult(Tool {
            name,
            detail: result.detail,
            ok: Some(result.ok),
        })
    }

    fn lifecycle(&mut self, uuid: &str, stage: Stage, events: &mut Vec<Event>) -> Step {
        self.gives_receipts = true;
        let Some(at) = self.lines.iter().position(|line| line.uuid == uuid) else {
            // A line that it made up for itself.
            return match stage {
                Stage::Started => Step::TurnBegan,
                Stage::Queued | Stage::Completed | Stage::Cancelled => Step::None,
            };
        };
        match stage {
            Stage::Queued => {}
            Stage::Started => {
                let line = &mut self.lines[at];
                if line.stage == LineStage::Written {
                    line.stage = LineStage::Started;
                }
                return Step::TurnBegan;
            }
            Stage::Completed => {
                self.see(at, events);
                self.lines.remove(at);
            }
            Stage::Cancelled => {
                let line = self.lines.remove(at);
                let lost = line.filter(|line| line.stage == LineStage::Written);
                for id in lost.into_iter().flat_map(|line| line.messages) {
                    events.push(notice(format!("the agent dropped {id} unread")));
                }
            }
        }
        Step::None
    }

    /// The model answered: it has read what was in its request.
    fn see_started(&mut self, events: &mut Vec<Event>) {
        for at in 0..self.lines.len() {
            if self.lines[at].stage == LineStage::Started {
                self.see(at, events);
            }
        }
    }

    fn see(&mut self, at: usize, events: &mut Vec<Event>) {
        let line = &mut self.lines[at];
        if line.stage != LineStage::Seen {
            line.stage = LineStage::Seen;
            let ids = line.messages.iter();
            events.extend(ids.map(|&id| Event::MessageSeen { id }));
        }
    }

    fn turn_end(&mut self, end: &TurnEnd, events: &mut Vec<Event>) -> Step {
        let failure = self.failure.take();
        if let Some(tokens) = end.fresh_tokens {
            self.counted = self.counted.max(tokens);
            self.uncounted = 0;
        }
        let cost = end.cost_micros.unwrap_or(0).max(self.usage.cost_micros);
        self.report_usage(cost, events);
        if let Some(window) = end.window {
            let used = self.context;
            events.push(Event::Context(Context { used, window }));
        }
        let verdict = judge(end, failure.as_deref());
        let limited = verdict == Verdict::Failed(Class::UsageLimit);
        Step::TurnEnded(Box::new(Ended {
            evidence: evidence(end, failure.as_deref()),
            text: end.text.clone(),
            queued: end.queued,
            reset_at_ms: self.reset_at_ms.filter(|_| limited),
            verdict,
        }))
    }

    fn report_usage(&mut self, cost_micros: u64, events: &mut Vec<Event>) {
        // Never less than was said before: what the program counts may leave out what we saw.
        let tokens = self.counted.saturating_add(self.uncounted);
        self.usage.tokens = self.usage.tokens.max(tokens);
        self.usage.cost_micros = cost_micros;
        events.push(Event::Usage(self.usage));
    }

    fn note_unknown(&mut self, kind: String, events: &mut Vec<Event>) {
        let full = self.unknown.len() >= KINDS_MAX && !self.unknown.contains_key(&kind);
        let kind = if full { "others".to_owned() } else { kind };
        let count = self.unknown.entry(kind.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            events.push(notice(format!(
                "it printed a line of unknown kind `{kind}`"
            )));
        }
    }

    /// What of its lines was not understood, as a sentence; `None` when all was.
    pub(super) fn not_understood(&self) -> Option<String> {
        let mut parts: Vec<String> = Vec::new();
        if self.garbage > 0 {
            parts.push(format!("{} no JSON objects", self.garbage));
        }
        let kinds = self.unknown.iter();
        parts.extend(kinds.map(|(kind, count)| format!("{count} `{kind}`")));
        (!parts.is_empty()).then(|| format!("lines not understood: {}", parts.join(", ")))
    }
}

fn evidence(end: &TurnEnd, failure: Option<&str>) -> String {
    let TurnEnd {
        subtype,
        terminal_reason,
        ..
    } = end;
    let status = end
        .status
        .map_or_else(String::new, |s| format!(" HTTP {s}"));
    let text = format!(
        "result {subtype}, is_error {}, {terminal_reason}{status} {} {}: {}",
        end.is_error,
        end.failure,
        failure.unwrap_or_default(),
        end.text,
    );
    excerpt(&text, EXCERPT_MAX)
}

fn notice(text: String) -> Event {
    Event::Notice(Said { text })
}
