//! One notification of the program, as far as it means something here. Read from the JSON value, so
//! that a kind that nobody knows is counted and not an error.

use protocol::report::{EXCERPT_MAX, excerpt};
use serde_json::Value;

use super::judge::Fault;

/// Where the program's extension of ours speaks.
pub(super) const EXTENSION: &str = "_supervisor/opencode";

/// What an update of a session says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Update {
    /// A piece of what the agent says.
    Chunk {
        /// The message that it belongs to, where it has a name.
        message: Option<String>,
        /// The piece, an excerpt.
        text: String,
    },
    /// A tool begins, goes on or ends.
    Tool(ToolUpdate),
    /// How full the context is, and what the session has cost.
    Usage {
        /// Tokens in the context.
        used: u64,
        /// Size of the window.
        size: u64,
        /// Micro-dollars of the session so far.
        cost_micros: Option<u64>,
    },
    /// The thread behind an adapter has failed; its words are in a chunk without a name.
    ThreadFailed,
    /// Nothing that the run has to know.
    Nothing,
    /// A kind that is not known here.
    Unknown(String),
}

/// What is new of a tool.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ToolUpdate {
    /// The call's name.
    pub(super) id: String,
    /// It is its first one.
    pub(super) is_new: bool,
    /// What the program calls the tool, where it does.
    pub(super) name: Option<String>,
    /// What it does, for people.
    pub(super) title: Option<String>,
    /// `execute`, `edit` and so on.
    pub(super) kind: Option<String>,
    /// Its arguments; none while they are still coming.
    pub(super) input: Option<String>,
    /// `pending`, `in_progress`, `completed` or `failed`.
    pub(super) status: Option<String>,
    /// What came of it.
    pub(super) output: Option<String>,
    /// Exit status of its command.
    pub(super) exit: Option<i64>,
}

/// What the program's extension of ours says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    /// It is there.
    Hello,
    /// A text of ours got this name.
    Text { message: String, text: String },
    /// The model answered a request whose last text was this one.
    Answered { message: String },
    /// A request of the model is over.
    Step { tokens: u64, cost_micros: u64 },
    /// A request failed and is made again after a pause.
    Retry {
        attempt: u64,
        wait_ms: u64,
        /// When the service said that it may be asked again, milliseconds since the Unix epoch.
        reset_at_ms: Option<i64>,
        fault: Fault,
    },
    /// The turn fails.
    Error(Fault),
    /// The context was compacted.
    Compacted,
    /// It does not understand its program.
    Trouble(String),
    /// A kind that is not known here.
    Unknown(String),
}

/// Reads the params of `session/update`.
pub(super) fn update(params: &Value) -> Update {
    let update = &params["update"];
    match text(&update["sessionUpdate"]) {
        "agent_message_chunk" => Update::Chunk {
            message: update["messageId"].as_str().map(short),
            text: content(&update["content"]).unwrap_or_default(),
        },
        "tool_call" => Update::Tool(tool(update, true)),
        "tool_call_update" => Update::Tool(tool(update, false)),
        "usage_update" => Update::Usage {
            used: number(&update["used"]),
            size: number(&update["size"]),
            cost_micros: cost(&update["cost"]),
        },
        "session_info_update" => match text(&update["_meta"]["codex"]["threadStatus"]["type"]) {
            "systemError" => Update::ThreadFailed,
            _ => Update::Nothing,
        },
        "user_message_chunk"
        | "agent_thought_chunk"
        | "plan"
        | "available_commands_update"
        | "current_mode_update"
        | "config_option_update" => Update::Nothing,
        other => Update::Unknown(excerpt(&format!("update/{other}"), 80)),
    }
}

fn tool(update: &Value, is_new: bool) -> ToolUpdate {
    let string = |value: &Value| value.as_str().map(short);
    let raw = &update["rawInput"];
    let has_input = raw
        .as_object()
        .is_none_or(|map| map.keys().any(|key| key != "cwd"));
    let meta = &update["_meta"];
    let output = &update["rawOutput"];
    let streamed = meta["terminal_output_delta"]["data"].as_str();
    let exits = [
        &output["metadata"]["exit"],
        &output["exit_code"],
        &meta["terminal_exit"]["exit_code"],
    ];
    ToolUpdate {
        id: short(text(&update["toolCallId"])),
        is_new,
        name: string(&update["name"]).or_else(|| string(&meta["claudeCode"]["toolName"])),
        title: string(&update["title"]),
        kind: string(&update["kind"]),
        input: (!raw.is_null() && has_input).then(|| excerpt(&raw.to_string(), EXCERPT_MAX)),
        status: string(&update["status"]),
        output: content(&update["content"])
            .or_else(|| string(&output["output"]))
            .or_else(|| streamed.map(short)),
        exit: exits.into_iter().find_map(Value::as_i64),
    }
}

/// The text in a block, or in a list of blocks of a tool.
fn content(value: &Value) -> Option<String> {
    let block = match value {
        Value::Array(blocks) => blocks
            .iter()
            .find_map(|block| block["content"]["text"].as_str()),
        block => block["text"].as_str(),
    };
    block.map(short)
}

/// Reads the params of [`EXTENSION`].
pub(super) fn told(params: &Value) -> Told {
    let message = || short(text(&params["message"]));
    match text(&params["kind"]) {
        "hello" => Told::Hello,
        "text" => Told::Text {
            message: message(),
            text: short(text(&params["text"])),
        },
        "answered" => Told::Answered { message: message() },
        "step" => {
            let tokens = &params["tokens"];
            let counts = [
                &tokens["input"],
                &tokens["output"],
                &tokens["reasoning"],
                &tokens["cache"]["write"],
            ];
            let sum = counts.into_iter().map(number).fold(0, u64::saturating_add);
            Told::Step {
                tokens: sum,
                cost_micros: params["cost"].as_f64().map_or(0, micros),
            }
        }
        "retry" => Told::Retry {
            attempt: number(&params["attempt"]),
            wait_ms: number(&params["wait_ms"]),
            reset_at_ms: match params["failed"]["after"].is_string() {
                true => params["next"].as_i64(),
                false => None,
            },
            fault: failed(params),
        },
        "error" => Told::Error(failed(params)),
        "compacted" => Told::Compacted,
        "trouble" => Told::Trouble(message()),
        other => Told::Unknown(excerpt(other, 80)),
    }
}

fn failed(params: &Value) -> Fault {
    let failed = &params["failed"];
    Fault {
        code: 0,
        status: params["status"]
            .as_u64()
            .or_else(|| failed["status"].as_u64()),
        kind: short(text(&params["name"])),
        text: short(text(&params["message"])),
        is_network: failed["network"].is_string(),
    }
}

/// Reads what a prompt's answer says was used: tokens that were not there before.
pub(super) fn fresh_tokens(result: &Value) -> u64 {
    let usage = &result["usage"];
    let quota = &result["_meta"]["quota"]["token_count"];
    let names = [
        "inputTokens",
        "outputTokens",
        "cachedWriteTokens",
        "thoughtTokens",
    ];
    let sum = |of: &Value, names: &[&str]| {
        let counts = names.iter().map(|name| number(&of[*name]));
        counts.fold(0, u64::saturating_add)
    };
    match sum(usage, &names) {
        0 => sum(quota, &["input_tokens", "output_tokens"]),
        tokens => tokens,
    }
}

fn cost(value: &Value) -> Option<u64> {
    let is_dollars = text(&value["currency"]) == "USD";
    value["amount"].as_f64().filter(|_| is_dollars).map(micros)
}

/// Dollars as micro-dollars; nothing below zero, and nothing that a number can not hold.
fn micros(dollars: f64) -> u64 {
    // A cast from a float keeps within the bounds of the type.
    (dollars * 1e6).round() as u64
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn short(text: &str) -> String {
    excerpt(text, EXCERPT_MAX)
}
