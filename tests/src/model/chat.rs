//! OpenAI Chat Completions: how an answer looks, streamed or whole.

use serde_json::{Value, json};

use super::script::{OUTPUT_TOKENS, Part, Reply};

/// What ends a stream of this wire.
pub(super) const END: &str = "[DONE]";

fn calls(reply: &Reply, number: u64) -> Vec<Value> {
    let parts = reply.content.iter().enumerate();
    let calls = parts.filter_map(|(index, part)| match part {
        Part::Say(_) => None,
        Part::Use { tool, input } => Some(json!({"id": format!("call_{number}_{index}"),
            "type": "function", "function": {"name": tool, "arguments": input.to_string()}})),
    });
    calls.collect()
}

/// Everything it says: a message of this wire has one text, before its calls.
fn text(reply: &Reply) -> String {
    let texts = reply.content.iter().filter_map(|part| match part {
        Part::Say(text) => Some(text.as_str()),
        Part::Use { .. } => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn finish(reply: &Reply) -> &'static str {
    let uses = |part: &Part| matches!(part, Part::Use { .. });
    if reply.content.iter().any(uses) {
        "tool_calls"
    } else {
        "stop"
    }
}

fn usage(reply: &Reply) -> Value {
    let input = reply.tokens();
    json!({"prompt_tokens": input, "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": input + OUTPUT_TOKENS, "prompt_tokens_details": {"cached_tokens": 0}})
}

/// The whole answer, for a request that does not stream.
pub fn whole(reply: &Reply, number: u64, model: &Value) -> Value {
    let calls = calls(reply, number);
    let mut message = json!({"role": "assistant", "content": text(reply)});
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    json!({"id": format!("chatcmpl_{number}"), "object": "chat.completion", "created": 0,
        "model": model, "usage": usage(reply),
        "choices": [{"index": 0, "message": message, "finish_reason": finish(reply)}]})
}

/// The answer as chunks, in order; the last one has the usage and no choice.
pub fn chunks(reply: &Reply, number: u64, model: &Value) -> Vec<Value> {
    let chunk = |choices: Value, usage: Value| {
        json!({"id": format!("chatcmpl_{number}"), "object": "chat.completion.chunk",
            "created": 0, "model": model, "choices": choices, "usage": usage})
    };
    let delta = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        chunk(json!([choice]), Value::Null)
    };
    let mut chunks = vec![delta(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    )];
    let text = text(reply);
    if !text.is_empty() {
        chunks.push(delta(json!({"content": text}), Value::Null));
    }
    for (index, call) in calls(reply, number).iter().enumerate() {
        let mut begin = call.clone();
        let arguments = begin["function"]["arguments"].take();
        begin["index"] = json!(index);
        begin["function"]["arguments"] = json!("");
        chunks.push(delta(json!({"tool_calls": [begin]}), Value::Null));
        let rest = json!({"index": index, "function": {"arguments": arguments}});
        chunks.push(delta(json!({"tool_calls": [rest]}), Value::Null));
    }
    chunks.push(delta(json!({}), json!(finish(reply))));
    chunks.push(chunk(json!([]), usage(reply)));
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streamed_and_whole_say_the_same() {
        let uses = |input: Value| Part::Use {
            tool: "bash".to_owned(),
            input,
        };
        let content = vec![
            Part::Say("I look".to_owned()),
            uses(json!({"command": "true"})),
            uses(json!({"command": "false"})),
        ];
        let reply = Reply {
            content,
            ..Reply::default()
        };
        let whole = whole(&reply, 7, &json!("m"));
        let mut message = json!({"content": "", "tool_calls": []});
        let chunks = chunks(&reply, 7, &json!("m"));
        for delta in chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]) {
            if let Some(text) = delta["content"].as_str() {
                message["content"] = json!(message["content"].as_str().unwrap().to_owned() + text);
            }
            for part in delta["tool_calls"].as_array().into_iter().flatten() {
                let calls = message["tool_calls"].as_array_mut().unwrap();
                if let Some(id) = part["id"].as_str() {
                    calls.push(json!({"id": id, "name": part["function"]["name"]}));
                } else {
                    calls[usize::try_from(part["index"].as_u64().unwrap()).unwrap()]["arguments"] =
                        part["function"]["arguments"].clone();
                }
            }
        }
        let said = &whole["choices"][0]["message"];
        assert_eq!(message["content"], said["content"]);
        for (index, call) in said["tool_calls"].as_array().unwrap().iter().enumerate() {
            let streamed = &message["tool_calls"][index];
            assert_eq!(streamed["id"], call["id"]);
            assert_eq!(streamed["name"], call["function"]["name"]);
            assert_eq!(streamed["arguments"], call["function"]["arguments"]);
        }
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    }
}
