//! Gemini's generateContent: how an answer looks, streamed or whole.

use serde_json::{Value, json};

use super::script::{Fault, OUTPUT_TOKENS, Part, Reply};

/// The end of a path that asks for a stream.
pub(super) const STREAMED: &str = ":streamGenerateContent";
/// The end of a path that asks for a whole answer.
pub(super) const WHOLE: &str = ":generateContent";

fn part(part: &Part, number: u64, index: usize) -> Value {
    match part {
        Part::Say(text) => json!({"text": text}),
        Part::Use { tool, input } => json!({"functionCall":
            {"id": format!("call_{number}_{index}"), "name": tool, "args": input}}),
    }
}

fn answer(reply: &Reply, number: u64, parts: Vec<Value>, finish: Value) -> Value {
    let input = reply.tokens();
    json!({"responseId": format!("resp_{number}"), "modelVersion": "scripted",
        "candidates": [{"index": 0, "finishReason": finish,
            "content": {"role": "model", "parts": parts}}],
        "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": OUTPUT_TOKENS,
            "totalTokenCount": input + OUTPUT_TOKENS}})
}

fn parts(reply: &Reply, number: u64) -> Vec<Value> {
    let parts = reply.content.iter().enumerate();
    parts.map(|(index, one)| part(one, number, index)).collect()
}

/// The whole answer, for a request that does not stream.
pub fn whole(reply: &Reply, number: u64) -> Value {
    answer(reply, number, parts(reply, number), json!("STOP"))
}

/// The answer in pieces, one a part; the last one is empty and says that it is over.
pub fn pieces(reply: &Reply, number: u64) -> Vec<Value> {
    let mut pieces: Vec<Value> = parts(reply, number)
        .into_iter()
        .map(|part| answer(reply, number, vec![part], Value::Null))
        .collect();
    pieces.push(answer(
        reply,
        number,
        vec![json!({"text": ""})],
        json!("STOP"),
    ));
    pieces
}

/// The failure of a request that is too long.
pub(super) fn overflow() -> Fault {
    Fault {
        status: 400,
        message: "The input token count (1200000) exceeds the maximum number of tokens allowed \
            (1048576)."
            .to_owned(),
        ..Fault::default()
    }
}

/// The body of a failure.
pub(super) fn failure(fault: &Fault) -> Value {
    let usual = match fault.status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let kind = fault.kind.as_deref().unwrap_or(usual);
    json!({"error": {"code": fault.status, "message": fault.message, "status": kind}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streamed_and_whole_say_the_same() {
        let input = json!({"command": "true"});
        let tool = "run_shell_command".to_owned();
        let content = vec![Part::Say("I look".to_owned()), Part::Use { tool, input }];
        let reply = Reply {
            content,
            ..Reply::default()
        };
        let pieces = pieces(&reply, 7);
        let said: Vec<&Value> = pieces.iter().map(|piece| &piece["candidates"][0]).collect();
        let (last, before) = said.split_last().unwrap();
        let streamed: Vec<&Value> = before
            .iter()
            .map(|one| &one["content"]["parts"][0])
            .collect();
        let whole = whole(&reply, 7);
        assert_eq!(whole["candidates"][0]["content"]["parts"], json!(streamed));
        assert_eq!(last["finishReason"], "STOP");
    }
}
