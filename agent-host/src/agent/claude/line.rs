//! One line of Claude Code, read into what it means to a run.
//!
//! Every line is read as a JSON value first, and only the fields that are used are looked at: a
//! kind, a field or a word that a newer version adds is counted and never an error.

use protocol::report::{EXCERPT_MAX, excerpt};
use serde_json::{Map, Value};

/// What a line means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// A turn began.
    Init,
    /// The model's words, or a part of them.
    Assistant(Assistant),
    /// Tools ended.
    ToolResults(Vec<ToolResult>),
    /// What became of a line that we wrote.
    Lifecycle {
        /// Ours.
        uuid: String,
        /// How far it is.
        stage: Stage,
    },
    /// It tries a request again by itself.
    Retry(String),
    /// What the service says of the account's limit.
    Limit {
        /// Requests are refused.
        rejected: bool,
        /// When the limit ends, milliseconds since the Unix epoch.
        reset_at_ms: Option<i64>,
        /// Which limit.
        detail: String,
    },
    /// How much it has running in the background: commands, agents of its own.
    Background(usize),
    /// It compacts its context, or did.
    Compaction(String),
    /// It asks whether it may use a tool.
    MayUse(MayUse),
    /// It no longer wants the answer to a request.
    Withdrawn {
        /// Its number for the request.
        request: String,
    },
    /// It asks for something that we do not know.
    Asks {
        /// Its number for the request.
        request: String,
        /// What it asks for.
        what: String,
    },
    /// A turn ended.
    TurnEnd(Box<TurnEnd>),
    /// A known line that says nothing which a run needs.
    Nothing,
    /// A line of a kind that this adapter does not know.
    Unknown {
        /// Its kind.
        kind: String,
    },
    /// No JSON object at all.
    Garbage,
}

/// A message of the model. Its parts come as several lines with one id.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Assistant {
    /// The message's id.
    pub(super) id: String,
    /// It is of the agent itself, not of one that it started.
    pub(super) is_own: bool,
    /// It was made up by the program because a request failed: the word for the failure.
    pub(super) failure: Option<String>,
    pub(super) parts: Vec<Part>,
    pub(super) tokens: Tokens,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Text(String),
    Tool {
        id: String,
        name: String,
        /// Its arguments; an excerpt.
        detail: String,
    },
    /// Thinking, and whatever a newer version adds.
    Other,
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tokens {
    /// Read anew, written to the cache, or answered: what is paid for in full. Reading from the
    /// cache is not counted, or a long session would count its whole context at every step.
    pub(super) fresh: u64,
    /// All that was in the context.
    pub(super) context: u64,
}

/// How a tool ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToolResult {
    pub(super) id: String,
    pub(super) ok: bool,
    /// An excerpt.
    pub(super) detail: String,
}

/// How far a line that we wrote is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It waits.
    Queued,
    /// It is in the model's next request.
    Started,
    /// What it began is over.
    Completed,
    /// It was dropped, or what it began was cut short.
    Cancelled,
}

/// A question for permission.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MayUse {
    /// Its number for the request.
    pub(super) request: String,
    pub(super) tool: String,
    /// The arguments, to be handed back with an approval.
    pub(super) input: Value,
    /// Why it asks.
    pub(super) reason: String,
}

/// How a turn ended, in the program's own words.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct TurnEnd {
    pub(super) is_error: bool,
    pub(super) subtype: String,
    pub(super) terminal_reason: String,
    /// HTTP status of the request that failed.
    pub(super) status: Option<u64>,
    /// The service's word for the failure.
    pub(super) failure: String,
    /// The last words of the agent, or of the failure.
    pub(super) text: String,
    /// Turns that it will begin by itself.
    pub(super) queued: u64,
    /// Of the whole process, in micro-dollars.
    pub(super) cost_micros: Option<u64>,
    /// Of the whole process.
    pub(super) fresh_tokens: Option<u64>,
    /// Size of the context window.
    pub(super) window: Option<u64>,
}

/// Reads a line.
pub(super) fn read(line: &[u8]) -> Heard {
    match serde_json::from_slice(line) {
        Ok(Value::Object(map)) => of(&map),
        Ok(_) | Err(_) => Heard::Garbage,
    }
}

fn of(map: &Map<String, Value>) -> Heard {
    let kind = text(map.get("type"));
    match kind {
        "system" => system(map),
        "assistant" => Heard::Assistant(assistant(map)),
        "user" => tool_results(map),
        "command_lifecycle" => lifecycle(map),
        "rate_limit_event" => limit(map.get("rate_limit_info").unwrap_or(&Value::Null)),
        "control_request" => control(map),
        "control_cancel_request" => Heard::Withdrawn {
            request: short(map.get("request_id")),
        },
        "result" => Heard::TurnEnd(Box::new(turn_end(map))),
        "control_response" | "tool_progress" | "stream_event" | "keep_alive" | "auth_status" => {
            Heard::Nothing
        }
        other => unknown(other),
    }
}

fn unknown(kind: &str) -> Heard {
    let kind = excerpt(kind, KIND_MAX);
    Heard::Unknown { kind }
}

/// Longest name of a kind that is kept.
const KIND_MAX: usize = 80;

fn system(map: &Map<String, Value>) -> Heard {
    match text(map.get("subtype")) {
        "init" => Heard::Init,
        "api_retry" => {
            let number = |name: &str| map.get(name).and_then(Value::as_u64).unwrap_or(0);
            let status = map.get("error_status").and_then(Value::as_u64);
            let status = status.map_or_else(String::new, |status| format!(", HTTP {status}"));
            Heard::Retry(format!(
                "try {} of {}: {}{status}",
                number("attempt"),
                number("max_retries"),
                short(map.get("error")),
            ))
        }
        "compact_boundary" => Heard::Compaction("the context was compacted".to_owned()),
        "status" if text(map.get("status")) == "compacting" => {
            Heard::Compaction("the context is being compacted".to_owned())
        }
        "background_tasks_changed" => {
            let tasks = map.get("tasks").and_then(Value::as_array);
            Heard::Background(tasks.map_or(0, Vec::len))
        }
        "status"
        | "hook_started"
        | "hook_progress"
        | "hook_response"
        | "task_started"
        | "task_updated"
        | "task_progress"
        | "task_notification"
        | "session_state_changed"
        | "files_persisted" => Heard::Nothing,
        other => unknown(&format!("system/{other}")),
    }
}

fn assistant(map: &Map<String, Value>) -> Assistant {
    let message = map.get("message").unwrap_or(&Value::Null);
    let made_up = map.get("is_api_error_message") == Some(&Value::Bool(true))
        || text(message.get("model")) == "<synthetic>";
    let failure = made_up.then(|| short(map.get("error")));
    let content = message.get("content").and_then(Value::as_array);
    let usage = message.get("usage").unwrap_or(&Value::Null);
    Assistant {
        id: short(message.get("id")),
        is_own: map.get("parent_tool_use_id").is_none_or(Value::is_null),
        failure,
        parts: content.into_iter().flatten().map(part).collect(),
        tokens: tokens(usage),
    }
}

fn part(value: &Value) -> Part {
    match text(value.get("type")) {
        "text" => Part::Text(short(value.get("text"))),
        "tool_use" | "server_tool_use" => Part::Tool {
            id: short(value.get("id")),
            name: short(value.get("name")),
            detail: value
                .get("input")
                .map(|input| excerpt(&input.to_string(), EXCERPT_MAX))
                .unwrap_or_default(),
        },
        _ => Part::Other,
    }
}

fn tokens(usage: &Value) -> Tokens {
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (input, made) = (count("input_tokens"), count("cache_creation_input_tokens"));
    let answered = count("output_tokens");
    let sum = |numbers: &[u64]| numbers.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
    Tokens {
        fresh: sum(&[input, made, answered]),
        context: sum(&[input, made, count("cache_read_input_tokens"), answered]),
    }
}

fn tool_results(map: &Map<String, Value>) -> Heard {
    let content = map
        .get("message")
        .and_then(|message| message.get("content"));
    let parts = content.and_then(Value::as_array).into_iter().flatten();
    let results: Vec<ToolResult> = parts
        .filter(|part| text(part.get("type")) == "tool_result")
        .map(|part| ToolResult {
            id: short(part.get("tool_use_id")),
            ok: part.get("is_error") != Some(&Value::Bool(true)),
            detail: match part.get("content") {
                Some(Value::String(text)) => excerpt(text, EXCERPT_MAX),
                Some(other) => excerpt(&other.to_string(), EXCERPT_MAX),
                None => String::new(),
            },
        })
        .collect();
    if results.is_empty() {
        // Our own lines come back like this, and what the program adds to them.
        return Heard::Nothing;
    }
    Heard::ToolResults(results)
}

fn lifecycle(map: &Map<String, Value>) -> Heard {
    let stage = match text(map.get("state")) {
        "queued" => Stage::Queued,
        "started" => Stage::Started,
        "completed" => Stage::Completed,
        "cancelled" => Stage::Cancelled,
        other => return unknown(&format!("command_lifecycle/{other}")),
    };
    Heard::Lifecycle {
        uuid: short(map.get("command_uuid")),
        stage,
    }
}

fn limit(info: &Value) -> Heard {
    let seconds = info.get("resetsAt").and_then(Value::as_i64);
    Heard::Limit {
        rejected: text(info.get("status")) == "rejected",
        reset_at_ms: seconds.and_then(|seconds| seconds.checked_mul(1000)),
        detail: short(info.get("rateLimitType")),
    }
}

fn control(map: &Map<String, Value>) -> Heard {
    let request = short(map.get("request_id"));
    let asked = map.get("request").unwrap_or(&Value::Null);
    match text(asked.get("subtype")) {
        "can_use_tool" => Heard::MayUse(MayUse {
            request,
            tool: short(asked.get("tool_name")),
            input: asked.get("input").cloned().unwrap_or_default(),
            reason: short(asked.get("decision_reason")),
        }),
        other => Heard::Asks {
            request,
            what: excerpt(other, KIND_MAX),
        },
    }
}

fn turn_end(map: &Map<String, Value>) -> TurnEnd {
    let models = map.get("modelUsage").and_then(Value::as_object);
    let number = |name: &str| map.get(name).and_then(Value::as_u64);
    let failure = match text(map.get("api_error_type")) {
        "" => short(map.get("api_error")),
        word => excerpt(word, KIND_MAX),
    };
    TurnEnd {
        // Absent means that we do not understand the line: no success is read into it.
        is_error: map.get("is_error") != Some(&Value::Bool(false)),
        subtype: short(map.get("subtype")),
        terminal_reason: short(map.get("terminal_reason")),
        status: number("api_error_status"),
        failure,
        text: short(map.get("result")),
        queued: number("queued_turn_count").unwrap_or(0),
        cost_micros: map
            .get("total_cost_usd")
            .and_then(Value::as_f64)
            .map(micros),
        fresh_tokens: models.map(|models| {
            let used = models.values().map(fresh_tokens);
            used.fold(0, u64::saturating_add)
        }),
        window: models.and_then(|models| {
            let windows = models.values();
            windows
                .filter_map(|model| model.get("contextWindow")?.as_u64())
                .max()
        }),
    }
}

fn fresh_tokens(model: &Value) -> u64 {
    let names = ["inputTokens", "outputTokens", "cacheCreationInputTokens"];
    let counts = names.iter().map(|name| model.get(name)?.as_u64());
    counts.fold(0, |sum, count| sum.saturating_add(count.unwrap_or(0)))
}

/// Dollars as micro-dollars; nothing below zero, and nothing that a number can not hold.
fn micros(dollars: f64) -> u64 {
    // A cast from a float keeps within the bounds of the type.
    (dollars * 1e6).round() as u64
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

fn short(value: Option<&Value>) -> String {
    excerpt(text(value), EXCERPT_MAX)
}
