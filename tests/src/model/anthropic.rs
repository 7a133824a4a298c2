//! Anthropic Messages: what a request asks for, and how an answer looks, streamed or whole.

use serde_json::{Value, json};

use super::script::{Fault, OUTPUT_TOKENS, Part, Reply};

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
    json!({
        "id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": model,
        "content": content, "stop_sequence": null,
        "stop_reason": if uses_tool { "tool_use" } else { "end_turn" },
        "usage": {"input_tokens": reply.tokens(), "output_tokens": OUTPUT_TOKENS,
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

/// The answer as events, in order.
pub fn events(reply: &Reply, number: u64, model: &Value) -> Vec<Value> {
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
    events.push(
        json!({"type": "message_delta", "usage": {"output_tokens": OUTPUT_TOKENS},
            "delta": {"stop_reason": stop_reason, "stop_sequence": null}}),
    );
    events.push(json!({"type": "message_stop"}));
    events
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

/// The failure of a request that is too long.
pub(super) fn overflow() -> Fault {
    Fault {
        status: 400,
        message: "prompt is too long: 210000 tokens > 200000 maximum".to_owned(),
        ..Fault::default()
    }
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
        let events = json!(events(&reply(), 7, &json!("m"))).to_string();
        for text in [
            "I look",
            "toolu_7_1",
            r#"{\"command\":\"true\"}"#,
            "message_stop",
        ] {
            assert!(events.contains(text), "{text} in {events}");
        }
    }
}
