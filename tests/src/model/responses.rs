//! OpenAI Responses: how an answer looks, streamed as codex reads it or whole.

use serde_json::{Map, Value, json};

use super::openai;
use super::script::{OUTPUT_TOKENS, Part, Reply};

/// What stands between the namespace of a tool and its name in a script: no name of a tool has it.
const NAMESPACE_END: char = '/';

fn response(reply: &Reply, number: u64, model: &Value, status: &str) -> Value {
    let input = reply.tokens();
    json!({
        "id": format!("resp_{number}"), "object": "response", "created_at": 0, "model": model,
        "status": status, "error": null, "output": [],
        "usage": {
            "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": OUTPUT_TOKENS, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input + OUTPUT_TOKENS,
        },
    })
}

/// A part of the answer as an item. A tool whose input is a text is a custom one: it takes its input
/// as it is.
fn item(part: &Part, number: u64, index: usize) -> Value {
    match part {
        Part::Say(text) => json!({"type": "message", "id": format!("msg_{number}_{index}"),
            "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}]}),
        Part::Use { tool, input } => {
            let (namespace, name) = match tool.split_once(NAMESPACE_END) {
                Some((namespace, name)) => (Some(namespace), name),
                None => (None, tool.as_str()),
            };
            let mut item = json!({"id": format!("fc_{number}_{index}"), "name": name,
                "call_id": format!("call_{number}_{index}"), "status": "completed"});
            if let Some(text) = input.as_str() {
                item["type"] = json!("custom_tool_call");
                item["input"] = json!(text);
            } else {
                item["type"] = json!("function_call");
                item["arguments"] = json!(input.to_string());
            }
            if let Some(namespace) = namespace {
                item["namespace"] = json!(namespace);
            }
            item
        }
    }
}

fn items(reply: &Reply, number: u64) -> Vec<Value> {
    let parts = reply.content.iter().enumerate();
    parts
        .map(|(index, part)| item(part, number, index))
        .collect()
}

/// The whole answer, for a request that does not stream.
pub fn whole(reply: &Reply, number: u64, model: &Value) -> Value {
    let mut whole = response(reply, number, model, "completed");
    whole["output"] = Value::Array(items(reply, number));
    whole
}

/// The answer as server-sent events, in order. A request that is too long fails here: the service
/// says so after it has begun to answer.
pub fn events(reply: &Reply, number: u64, model: &Value) -> Vec<Value> {
    let begun = response(reply, number, model, "in_progress");
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    if reply.overflow {
        let mut failed = response(reply, number, model, "failed");
        failed["error"] = openai::overflow_error();
        events.push(json!({"type": "response.failed", "response": failed}));
    } else {
        for (index, item) in items(reply, number).iter().enumerate() {
            grow(&mut events, index, item);
        }
        let completed = whole(reply, number, model);
        events.push(json!({"type": "response.completed", "response": completed}));
    }
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    events
}

/// The events of one item: it is there, it grows, it is whole.
fn grow(events: &mut Vec<Value>, index: usize, item: &Value) {
    let mut push = |kind: &str, more: Value| {
        let mut event = json!({"type": format!("response.{kind}"), "output_index": index});
        if kind.starts_with("output_item") {
            event["item"] = more;
        } else {
            event["item_id"] = item["id"].clone();
            for (key, value) in more.as_object().unwrap_or(&Map::new()) {
                event[key] = value.clone();
            }
        }
        events.push(event);
    };
    let mut empty = item.clone();
    empty["status"] = json!("in_progress");
    let (key, kind) = match item["type"].as_str() {
        Some("message") => {
            let part = &item["content"][0];
            empty["content"] = json!([]);
            push("output_item.added", empty);
            let at = |key: &str, value: &Value| json!({"content_index": 0, key: value});
            let blank = json!({"type": "output_text", "text": "", "annotations": []});
            push("content_part.added", at("part", &blank));
            push("output_text.delta", at("delta", &part["text"]));
            push("output_text.done", at("text", &part["text"]));
            push("content_part.done", at("part", part));
            return push("output_item.done", item.clone());
        }
        Some("custom_tool_call") => ("input", "custom_tool_call_input"),
        _ => ("arguments", "function_call_arguments"),
    };
    empty[key] = json!("");
    push("output_item.added", empty);
    push(&format!("{kind}.delta"), json!({"delta": item[key]}));
    push(&format!("{kind}.done"), json!({key: item[key]}));
    push("output_item.done", item.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Reply {
        let uses = |tool: &str, input: Value| Part::Use {
            tool: tool.to_owned(),
            input,
        };
        Reply {
            content: vec![
                Part::Say("I look".to_owned()),
                uses("exec_command", json!({"cmd": "true"})),
                uses("apply_patch", json!("*** Begin Patch")),
                uses("mcp__mailbox/ask", json!({})),
            ],
            ..Reply::default()
        }
    }

    #[test]
    fn streamed_and_whole_say_the_same() {
        let whole = whole(&reply(), 7, &json!("m"));
        let events = events(&reply(), 7, &json!("m"));
        let done = events
            .iter()
            .filter(|event| event["type"] == "response.output_item.done");
        let items: Vec<Value> = done.map(|event| event["item"].clone()).collect();
        assert_eq!(whole["output"], json!(items));
        assert_eq!(events.last().unwrap()["response"], whole);
        let delta = events
            .iter()
            .find(|event| event["type"] == "response.output_text.delta");
        assert_eq!(delta.unwrap()["delta"], "I look");
    }

    #[test]
    fn each_kind_of_tool_is_called_as_it_wants() {
        let items = items(&reply(), 1);
        assert_eq!(items[1]["arguments"], r#"{"cmd":"true"}"#);
        assert_eq!(items[2]["type"], "custom_tool_call");
        assert_eq!(items[2]["input"], "*** Begin Patch");
        assert_eq!(items[3]["namespace"], "mcp__mailbox");
        assert_eq!(items[3]["name"], "ask");
    }

    #[test]
    fn too_long_a_request_fails_in_the_stream() {
        let reply = Reply {
            overflow: true,
            ..reply()
        };
        let events = events(&reply, 1, &json!("m"));
        let last = events.last().unwrap();
        assert_eq!(last["type"], "response.failed");
        assert_eq!(last["response"]["error"]["code"], "context_length_exceeded");
    }
}
