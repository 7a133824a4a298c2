//! One line of pi, read into what it means to a run.
//!
//! Every line is read as a JSON value first, and only the fields that are used are looked at: a
//! kind, a field or a word that a newer version adds is counted and never an error.

use protocol::report::{EXCERPT_MAX, excerpt};
use serde_json::{Map, Value};

/// Longest name of a kind that is kept.
const KIND_MAX: usize = 80;
/// The dialog with which our extension asks whether a tool may be used.
pub(super) const MAY_USE: &str = "supervisor.may_use";
/// The status with which our extension tells of a request to the model that failed.
const FAILED_REQUEST: &str = "supervisor.failed_request";

/// What a line means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// The answer to a command of ours.
    Response(Response),
    /// A turn began, or goes on after a try that failed.
    Began,
    /// This text is in the model's next request.
    Told(String),
    /// The model has begun to answer.
    Answers,
    /// A message of the model has ended.
    Assistant(Box<Assistant>),
    /// A tool began.
    Tool {
        name: String,
        /// Its arguments; an excerpt.
        detail: String,
    },
    /// A tool ended.
    ToolResult {
        name: String,
        ok: bool,
        /// An excerpt.
        detail: String,
    },
    /// It tries a request again by itself.
    Retry {
        /// Which try, from 1.
        attempt: u64,
        /// For people.
        text: String,
    },
    /// It compacts its context.
    Compacts,
    /// It has compacted its context, or given up.
    Compacted {
        /// For people.
        text: String,
    },
    /// A request to the model failed.
    FailedRequest {
        /// HTTP status.
        status: u64,
        /// When the limit that it met ends, milliseconds since the Unix epoch.
        reset_at_ms: Option<i64>,
    },
    /// Our extension asks whether a tool may be used.
    MayUse {
        /// Its number for the request.
        request: String,
        tool: String,
        input: Value,
    },
    /// Another extension wants to know something of a person.
    Asks {
        /// Its number for the request.
        request: String,
        /// What, for people.
        what: String,
    },
    /// A part of pi reports an error of its own.
    Trouble(String),
    /// The turn is over, with all tries and all that waited.
    Settled,
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

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Response {
    pub(super) id: String,
    pub(super) command: String,
    /// Why it failed; `None`: it did not.
    pub(super) error: Option<String>,
    pub(super) data: Value,
}

/// A message of the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Assistant {
    /// Why it stopped: `stop`, `toolUse`, `length`, `error`, `aborted`.
    pub(super) stop: String,
    /// What went wrong, for `error`.
    pub(super) error: String,
    /// Its words; an excerpt.
    pub(super) text: String,
    pub(super) spent: Spent,
    /// Tokens in the context.
    pub(super) context: u64,
    /// When, milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    /// Read anew, written to the cache, or answered. Reading from the cache is not counted, or a
    /// long session would count its whole context at every step.
    pub(super) tokens: u64,
    pub(super) cost_micros: u64,
}

/// What pi says of a whole session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stats {
    pub(super) spent: Spent,
    /// Tokens in the context and its size, where known.
    pub(super) context: Option<(u64, u64)>,
}

/// Reads a line.
pub(super) fn read(line: &[u8]) -> Heard {
    match serde_json::from_slice(line) {
        Ok(Value::Object(map)) => of(&map),
        Ok(_) | Err(_) => Heard::Garbage,
    }
}

fn of(map: &Map<String, Value>) -> Heard {
    match text(map.get("type")) {
        "response" => Heard::Response(response(map)),
        "agent_start" => Heard::Began,
        "agent_settled" => Heard::Settled,
        "message_start" => message_start(map.get("message").unwrap_or(&Value::Null)),
        "message_end" => message_end(map.get("message").unwrap_or(&Value::Null)),
        "message_update" => {
            let update = map.get("assistantMessageEvent").unwrap_or(&Value::Null);
            match text(update.get("type")) {
                "text_start" | "thinking_start" | "toolcall_start" => Heard::Answers,
                _ => Heard::Nothing,
            }
        }
        "tool_execution_start" => Heard::Tool {
            name: short(map.get("toolName")),
            detail: whole(map.get("args")),
        },
        "tool_execution_end" => Heard::ToolResult {
            name: short(map.get("toolName")),
            ok: map.get("isError") == Some(&Value::Bool(false)),
            detail: result_text(map.get("result").unwrap_or(&Value::Null)),
        },
        "auto_retry_start" => retry(map),
        "compaction_start" => Heard::Compacts,
        "compaction_end" => compacted(map),
        "extension_ui_request" => dialog(map),
        "extension_error" => Heard::Trouble(excerpt(
            &format!(
                "extension {}: {}",
                text(map.get("extensionPath")),
                text(map.get("error"))
            ),
            EXCERPT_MAX,
        )),
        "turn_start"
        | "turn_end"
        | "agent_end"
        | "queue_update"
        | "auto_retry_end"
        | "tool_execution_update"
        | "bash_execution_update"
        | "entry_appended"
        | "session_info_changed"
        | "thinking_level_changed"
        | "summarization_retry_scheduled"
        | "summarization_retry_attempt_start"
        | "summarization_retry_finished" => Heard::Nothing,
        other => unknown(other),
    }
}

fn unknown(kind: &str) -> Heard {
    let kind = excerpt(kind, KIND_MAX);
    Heard::Unknown { kind }
}

fn response(map: &Map<String, Value>) -> Response {
    let failed = map.get("success") != Some(&Value::Bool(true));
    Response {
        id: short(map.get("id")),
        command: short(map.get("command")),
        error: failed.then(|| short(map.get("error"))),
        data: map.get("data").cloned().unwrap_or_default(),
    }
}

/// A text that was said to it, once the model will read it.
fn message_start(message: &Value) -> Heard {
    match text(message.get("role")) {
        "user" => Heard::Told(content_text(message, usize::MAX)),
        _ => Heard::Nothing,
    }
}

fn message_end(message: &Value) -> Heard {
    if text(message.get("role")) != "assistant" {
        return Heard::Nothing;
    }
    let usage = message.get("usage").unwrap_or(&Value::Null);
    let cost = usage.get("cost").and_then(|cost| cost.get("total"));
    Heard::Assistant(Box::new(Assistant {
        stop: short(message.get("stopReason")),
        error: short(message.get("errorMessage")),
        text: content_text(message, EXCERPT_MAX),
        spent: spent(usage, cost),
        context: number(usage, "totalTokens"),
        at_ms: message
            .get("timestamp")
            .and_then(Value::as_i64)
            .unwrap_or(0),
    }))
}

fn spent(tokens: &Value, cost: Option<&Value>) -> Spent {
    let names = ["input", "output", "cacheWrite"];
    let counts = names.iter().map(|name| number(tokens, name));
    Spent {
        tokens: counts.fold(0, u64::saturating_add),
        cost_micros: cost.and_then(Value::as_f64).map_or(0, micros),
    }
}

/// The answer to `get_session_stats`.
pub(super) fn stats(data: &Value) -> Stats {
    let context = data.get("contextUsage").and_then(|context| {
        let count = |name: &str| context.get(name)?.as_u64();
        Some((count("tokens")?, count("contextWindow")?))
    });
    let tokens = data.get("tokens").unwrap_or(&Value::Null);
    Stats {
        spent: spent(tokens, data.get("cost")),
        context,
    }
}

/// The size of the model's context, in the answer to `get_state`.
pub(super) fn window(state: &Value) -> Option<u64> {
    state.get("model")?.get("contextWindow")?.as_u64()
}

fn retry(map: &Map<String, Value>) -> Heard {
    let count = |name: &str| map.get(name).and_then(Value::as_u64).unwrap_or(0);
    let (attempt, most) = (count("attempt"), count("maxAttempts"));
    let why = text(map.get("errorMessage"));
    let text = format!("try {attempt} of {most} in {} ms: {why}", count("delayMs"));
    Heard::Retry {
        attempt,
        text: excerpt(&text, EXCERPT_MAX),
    }
}

fn compacted(map: &Map<String, Value>) -> Heard {
    let text = match (map.get("result"), text(map.get("errorMessage"))) {
        (Some(Value::Object(_)), _) => "the context was compacted".to_owned(),
        (_, "") => "the compaction of the context was cut short".to_owned(),
        (_, why) => format!("the context could not be compacted: {why}"),
    };
    Heard::Compacted {
        text: excerpt(&text, EXCERPT_MAX),
    }
}

fn dialog(map: &Map<String, Value>) -> Heard {
    let (method, title) = (text(map.get("method")), text(map.get("title")));
    match method {
        "input" if title == MAY_USE => may_use(map),
        "select" | "confirm" | "input" | "editor" => Heard::Asks {
            request: short(map.get("id")),
            what: excerpt(&format!("{method} {title}"), EXCERPT_MAX),
        },
        "setStatus" if text(map.get("statusKey")) == FAILED_REQUEST => {
            let facts = inner(map.get("statusText"));
            Heard::FailedRequest {
                status: number(&facts, "status"),
                reset_at_ms: facts.get("reset_at_ms").and_then(Value::as_i64),
            }
        }
        "notify" => match text(map.get("notifyType")) {
            "error" | "warning" => Heard::Trouble(short(map.get("message"))),
            _ => Heard::Nothing,
        },
        "setStatus" | "setWidget" | "setTitle" | "set_editor_text" => Heard::Nothing,
        other => unknown(&format!("extension_ui_request/{other}")),
    }
}

fn may_use(map: &Map<String, Value>) -> Heard {
    let mut asked = inner(map.get("placeholder"));
    Heard::MayUse {
        request: short(map.get("id")),
        tool: short(asked.get("tool")),
        input: asked.get_mut("input").map(Value::take).unwrap_or_default(),
    }
}

/// JSON in a text of JSON.
fn inner(value: Option<&Value>) -> Value {
    serde_json::from_str(text(value)).unwrap_or_default()
}

/// The text parts of a message's content, up to a length in bytes.
fn content_text(message: &Value, max: usize) -> String {
    let parts = match message.get("content") {
        Some(Value::String(text)) => return excerpt(text, max),
        Some(Value::Array(parts)) => parts.as_slice(),
        _ => &[],
    };
    let texts = parts
        .iter()
        .filter(|part| text(part.get("type")) == "text")
        .map(|part| text(part.get("text")));
    excerpt(&texts.collect::<Vec<_>>().join("\n"), max)
}

fn result_text(result: &Value) -> String {
    match result.get("content") {
        Some(_) => content_text(result, EXCERPT_MAX),
        None => whole(Some(result)),
    }
}

fn whole(value: Option<&Value>) -> String {
    value.map_or_else(String::new, |value| {
        excerpt(&value.to_string(), EXCERPT_MAX)
    })
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
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
