//! Anthropic Messages: what a request asks for, and how an answer looks, streamed or whole.

use serde_json::{Value, json};

use super::script::{Fault, INPUT_TOKENS, Part, Reply};

/// Tokens that every answer is said to have.
const OUTPUT_TOKENS: u64 = 20;

/// Whether an agent works here: a request without tools is its program's own affair (a title, a
/// probe of the quota) and no turn of the conversation.
pub fn is_turn(body: &Value) -> bool {
    let tools = body["tools"].as_array();
    tools.is_some_and(|tools| !tools.is_empty())
}

/// Whether the answer is to be streamed.
pub fn streams(body: &Value) -> bool {
    body["stream"].as_bool().unwrap_or(false)
}

/// The answer to a request that is no turn.
pub fn aside() -> Reply {
    Reply {
        content: vec![Part::Say("aside".to_owned())],
        ..Reply::default()
    }
}

/// The body of the answer to `count_tokens`: four bytes a token, as everybody guesses.
pub fn count_tokens(body: &[u8]) -> Value {
    json!({"input_tokens": body.len() / 4})
}

fn message(reply: &Reply, number: u64, model: &Value) -> Value {
    let tools = reply.content.iter();
    let uses_tool = tools.clone().any(|part| matches!(part, Part::Use { .. }));
    let content: Vec<Value> = tools
        .enumerate()
        .map(|(index, part)| block(part, number, index))
        .collect();
    let tokens = reply.input_tokens.unwrap_or(INPUT_TOKENS);
    json!({
        "id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": model,
        "content": content, "stop_sequence": null,
        "stop_reason": if uses_tool { "tool_use" } else { "end_turn" },
        "usage": {"input_tokens": tokens, "output_tokens": OUTPUT_TOKENS,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    })
}

fn block(part: &Part, number: u64, index: usize) -> Value {
    match part {
        Part::Say(text) => json!({"type": "text", "text": text}),
        Part::Use { tool, input } => json!({"type": "tool_use",
            "id": format!("toolu_{number}_{index}"), "name": tool, "input": input}),
    }
}

/// The whole answer, for a request that does not stream.
pub fn whole(reply: &Reply, number: u64, model: &Value) -> Value {
    message(reply, number, model)
}

/// The answer as server-sent events, in order. Only the first half for a reply that breaks off.
pub fn events(reply: &Reply, number: u64, model: &Value) -> Vec<String> {
    let mut whole = message(reply, number, model);
    let content = whole["content"].take();
    let stop_reason = whole["stop_reason"].take();
    whole["content"] = json!([]);
    let mut events = vec![json!({"type": "message_start", "message": whole})];
    for (index, block) in content.as_array().into_iter().flatten().enumerate() {
        let (empty, delta) = halves(block);
        events.push(json!({"type": "content_block_start", "index": index,
            "content_block": empty}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    if reply.drop {
        events.truncate(events.len().div_ceil(2));
    } else {
        events.push(
            json!({"type": "message_delta", "usage": {"output_tokens": OUTPUT_TOKENS},
            "delta": {"stop_reason": stop_reason, "stop_sequence": null}}),
        );
        events.push(json!({"type": "message_stop"}));
    }
    let texts = events.iter().map(|event| {
        let kind = event["type"].as_str().unwrap_or_default();
        format!("event: {kind}\ndata: {event}\n\n")
    });
    texts.collect()
}

/// A block as it begins, and what is then added to it.
fn halves(block: &Value) -> (Value, Value) {
    let mut empty = block.clone();
    if block["type"] == "text" {
        empty["text"] = json!("");
        return (empty, json!({"type": "text_delta", "text": block["text"]}));
    }
    empty["input"] = json!({});
    let input = block["input"].to_string();
    (
        empty,
        json!({"type": "input_json_delta", "partial_json": input}),
    )
}

/// The body of a failure.
pub fn failure(fault: &Fault) -> Value {
    let usual = match fault.status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    let kind = fault.kind.as_deref().unwrap_or(usual);
    json!({"type": "error", "error": {"type": kind, "message": fault.message}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Reply {
        let tool = "Bash".to_owned();
        let input = json!({"command": "true"});
        Reply {
            content: vec![Part::Say("I look".to_owned()), Part::Use { tool, input }],
            ..Reply::default()
        }
    }

    #[test]
    fn streamed_and_whole_say_the_same() {
        let whole = whole(&reply(), 7, &json!("m"));
        assert_eq!(whole["stop_reason"], "tool_use");
        let events = events(&reply(), 7, &json!("m")).concat();
        for text in [
            "I look",
            "toolu_7_1",
            r#"{\"command\":\"true\"}"#,
            "message_stop",
        ] {
            assert!(events.contains(text), "{text} in {events}");
        }
    }

    #[test]
    fn a_dropped_answer_has_begun_and_does_not_end() {
        let reply = Reply {
            drop: true,
            ..reply()
        };
        let events = events(&reply, 1, &json!("m")).concat();
        assert!(events.contains("message_start") && !events.contains("message_stop"));
    }

    #[test]
    fn a_request_without_tools_is_no_turn() {
        assert!(!is_turn(&json!({"messages": []})));
        assert!(!is_turn(&json!({"tools": []})));
        assert!(is_turn(&json!({"tools": [{"name": "Bash"}]})));
    }
}
