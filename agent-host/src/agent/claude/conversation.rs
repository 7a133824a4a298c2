//! The conversation with one process of Claude Code: what it said, as report events, and what
//! became of the lines that we wrote. Pure: lines in, events and steps out.

use std::collections::BTreeMap;

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::report::{Context, EXCERPT_MAX, Event, RateLimited, Said, Tool, Usage, excerpt};

use super::judge::judge;
use super::line::{Assistant, Heard, Part, Stage, ToolResult, TurnEnd};
use crate::agent::driven::receipts::Receipts;
use crate::agent::driven::unknown::Unknown;
use crate::agent::driven::wire::{Ended, Out, Step, Verdict};

/// Most tools whose names are remembered until they end; of an older one the name is not known.
const TOOLS_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    receipts: Receipts,
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
    unknown: Unknown,
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
        self.receipts.untaken()
    }

    /// How much it has running in the background, by its own count.
    pub(super) fn background(&self) -> usize {
        self.background
    }

    /// A line was written for it, with these messages in it.
    pub(super) fn wrote(&mut self, uuid: String, messages: Vec<MessageId>) {
        self.receipts.wrote(uuid, messages);
    }

    /// Takes in a line.
    pub(super) fn hear(&mut self, heard: Heard, out: &mut Out) {
        self.has_spoken |= !matches!(heard, Heard::Garbage | Heard::Unknown { .. });
        match heard {
            Heard::Init => out.step(Step::TurnBegan),
            Heard::Assistant(message) => self.assistant(message, out),
            Heard::ToolResults(results) => {
                for result in results {
                    out.events.push(self.tool_result(result));
                }
            }
            Heard::Lifecycle { uuid, stage } => self.lifecycle(&uuid, stage, out),
            Heard::Retry(text) => out.events.push(Event::Retry(Said { text })),
            Heard::Limit {
                rejected,
                reset_at_ms,
                detail,
            } => {
                self.reset_at_ms = reset_at_ms.filter(|_| rejected);
                if rejected {
                    out.events.push(Event::RateLimited(RateLimited {
                        reset_at_ms,
                        detail,
                    }));
                }
            }
            Heard::Background(count) => self.background = count,
            Heard::Compaction(text) => out.events.push(Event::Compaction(Said { text })),
            Heard::TurnEnd(end) => self.turn_end(&end, out),
            // The adapter answers these itself.
            Heard::MayUse(_) | Heard::Withdrawn { .. } | Heard::Asks { .. } | Heard::Nothing => {}
            Heard::Unknown { kind } => self.unknown.kind(&kind, out),
            Heard::Garbage => self.unknown.garbage(out),
        }
    }

    fn assistant(&mut self, message: Assistant, out: &mut Out) {
        if let Some(word) = message.failure {
            // Words of the program, not of the model: no progress, and no proof that it read.
            self.failure = Some(word);
            return;
        }
        if message.is_own {
            self.failure = None;
            self.context = message.tokens.context;
            self.receipts.answered(&mut out.events);
        }
        for part in message.parts {
            match part {
                Part::Text(text) => out.events.push(Event::AssistantMessage(Said { text })),
                Part::Tool { id, name, detail } => {
                    if self.tools.len() >= TOOLS_MAX {
                        self.tools.clear();
                    }
                    self.tools.insert(id, name.clone());
                    let ok = None;
                    out.events.push(Event::ToolCall(Tool { name, detail, ok }));
                }
                Part::Other => {}
            }
        }
        if self.message != message.id {
            self.message = message.id;
            self.usage.turns += 1;
            self.uncounted = self.uncounted.saturating_add(message.tokens.fresh);
            self.report_usage(self.usage.cost_micros, &mut out.events);
        }
        out.step(Step::TurnBegan);
    }

    fn tool_result(&mut self, result: ToolResult) -> Event {
        let name = self.tools.remove(&result.id).unwrap_or_default();
        Event::ToolResult(Tool {
            name,
            detail: result.detail,
            ok: Some(result.ok),
        })
    }

    fn lifecycle(&mut self, uuid: &str, stage: Stage, out: &mut Out) {
        self.gives_receipts = true;
        match stage {
            Stage::Queued => {}
            // Perhaps a line that it made up for itself.
            Stage::Started => {
                self.receipts.started(uuid);
                out.step(Step::TurnBegan);
            }
            Stage::Completed => self.receipts.completed(uuid, &mut out.events),
            Stage::Cancelled => {
                for id in self.receipts.cancelled(uuid) {
                    out.notice(format!("the agent dropped {id} unread"));
                }
            }
        }
    }

    fn turn_end(&mut self, end: &TurnEnd, out: &mut Out) {
        let failure = self.failure.take();
        if let Some(tokens) = end.fresh_tokens {
            self.counted = self.counted.max(tokens);
            self.uncounted = 0;
        }
        let cost = end.cost_micros.unwrap_or(0).max(self.usage.cost_micros);
        self.report_usage(cost, &mut out.events);
        if let Some(window) = end.window {
            let used = self.context;
            out.events.push(Event::Context(Context { used, window }));
        }
        let verdict = judge(end, failure.as_deref());
        let limited = verdict == Verdict::Failed(Class::UsageLimit);
        out.step(Step::TurnEnded(Box::new(Ended {
            evidence: evidence(end, failure.as_deref()),
            text: end.text.clone(),
            queued: end.queued,
            reset_at_ms: self.reset_at_ms.filter(|_| limited),
            verdict,
        })));
    }

    fn report_usage(&mut self, cost_micros: u64, events: &mut Vec<Event>) {
        // Never less than was said before: what the program counts may leave out what we saw.
        let tokens = self.counted.saturating_add(self.uncounted);
        self.usage.tokens = self.usage.tokens.max(tokens);
        self.usage.cost_micros = cost_micros;
        events.push(Event::Usage(self.usage));
    }

    /// What of its lines was not understood, as a sentence; `None` when all was.
    pub(super) fn not_understood(&self) -> Option<String> {
        self.unknown.sentence()
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
