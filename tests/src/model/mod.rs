//! A scripted model on loopback: real agent programs talk to it as to a service, and it makes them
//! use their tools, wait, fail and be steered as a script says.
//!
//! Each request is answered by the next reply of its conversation. What was asked is on record
//! before the answer begins, so that a story can look for a text in the model's next request.
//! One wire is one module; the server and the script know none of them but through [`Wire`].

pub mod anthropic;
pub mod chat;
pub mod gemini;
mod http;
mod openai;
pub mod responses;
pub mod script;
pub mod server;

use serde_json::Value;

use self::script::{Fault, Reply};

/// A family of endpoints, as a service offers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Anthropic Messages.
    Messages,
    /// OpenAI Responses.
    Responses,
    /// OpenAI Chat Completions.
    Chat,
    /// Gemini's generateContent.
    Gemini,
}

impl Wire {
    /// The wire that this path belongs to, if it asks a model for its next words.
    pub fn of(path: &str) -> Option<Self> {
        if path.ends_with("/messages") {
            Some(Self::Messages)
        } else if path.ends_with("/responses") {
            Some(Self::Responses)
        } else if path.ends_with("/chat/completions") {
            Some(Self::Chat)
        } else if path.ends_with(gemini::STREAMED) || path.ends_with(gemini::WHOLE) {
            Some(Self::Gemini)
        } else {
            None
        }
    }

    /// What was said to the model so far: the part of a request that stories look into.
    pub fn said(self, body: &Value) -> &Value {
        match self {
            Self::Messages | Self::Chat => &body["messages"],
            Self::Responses => &body["input"],
            Self::Gemini => &body["contents"],
        }
    }

    /// Whether the answer is to be streamed.
    fn streams(self, path: &str, body: &Value) -> bool {
        match self {
            Self::Messages | Self::Responses | Self::Chat => {
                body["stream"].as_bool().unwrap_or(false)
            }
            Self::Gemini => path.ends_with(gemini::STREAMED),
        }
    }

    /// The failure instead of this reply, if the answer is to be one from its first byte on.
    fn fault(self, reply: &Reply, streams: bool) -> Option<Fault> {
        if !reply.overflow {
            return reply.fail.clone();
        }
        match self {
            Self::Messages => Some(anthropic::overflow()),
            Self::Responses if streams => None,
            Self::Responses | Self::Chat => Some(openai::overflow()),
            Self::Gemini => Some(gemini::overflow()),
        }
    }

    /// The body of a failure.
    fn failure(self, fault: &Fault) -> Value {
        let mut body = match self {
            Self::Messages => anthropic::failure(fault),
            Self::Responses | Self::Chat => openai::failure(fault),
            Self::Gemini => gemini::failure(fault),
        };
        for (key, value) in &fault.more {
            body["error"][key] = value.clone();
        }
        body
    }

    /// The whole answer, for a request that does not stream.
    fn whole(self, reply: &Reply, number: u64, model: &Value) -> Value {
        match self {
            Self::Messages => anthropic::whole(reply, number, model),
            Self::Responses => responses::whole(reply, number, model),
            Self::Chat => chat::whole(reply, number, model),
            Self::Gemini => gemini::whole(reply, number),
        }
    }

    /// The answer as server-sent events, in order. Only the first half for a reply that breaks off.
    fn events(self, reply: &Reply, number: u64, model: &Value) -> Vec<String> {
        let events = match self {
            Self::Messages => anthropic::events(reply, number, model),
            Self::Responses => responses::events(reply, number, model),
            Self::Chat => chat::chunks(reply, number, model),
            Self::Gemini => gemini::pieces(reply, number),
        };
        let mut texts: Vec<String> = events.iter().map(|event| self.frame(event)).collect();
        if reply.drop {
            texts.truncate(texts.len().div_ceil(2));
        } else if self == Self::Chat {
            texts.push(format!("data: {}\n\n", chat::END));
        }
        texts
    }

    /// One event as this wire sends it: two of them also name its kind.
    fn frame(self, event: &Value) -> String {
        match self {
            Self::Messages | Self::Responses => {
                let kind = event["type"].as_str().unwrap_or_default();
                format!("event: {kind}\ndata: {event}\n\n")
            }
            Self::Chat | Self::Gemini => format!("data: {event}\n\n"),
        }
    }
}

/// Whether an agent works here: a request without tools is its program's own affair (a title, a
/// summary, a probe of the quota) and no turn of the conversation.
fn is_turn(body: &Value) -> bool {
    let tools = body["tools"].as_array();
    tools.is_some_and(|tools| !tools.is_empty())
}

/// What a recorded request says to the model, as text; empty for one that asks for no words.
pub fn said(request: &Value) -> String {
    let wire = request["path"].as_str().and_then(Wire::of);
    wire.map(|wire| wire.said(&request["body"]).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PATHS: [(&str, Wire); 6] = [
        ("/v1/messages", Wire::Messages),
        ("/v1/responses", Wire::Responses),
        ("/responses", Wire::Responses),
        ("/v1/chat/completions", Wire::Chat),
        ("/v1beta/models/m:streamGenerateContent", Wire::Gemini),
        ("/v1beta/models/m:generateContent", Wire::Gemini),
    ];

    #[test]
    fn paths_name_their_wire_and_others_none() {
        for (path, wire) in PATHS {
            assert_eq!(Wire::of(path), Some(wire), "{path}");
        }
        for path in [
            "/",
            "/v1/models",
            "/v1/messages/count_tokens",
            "/v1beta/models/m",
        ] {
            assert_eq!(Wire::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_request_without_tools_is_no_turn() {
        assert!(!is_turn(&json!({"messages": []})));
        assert!(!is_turn(&json!({"tools": []})));
        assert!(is_turn(&json!({"tools": [{"name": "Bash"}]})));
    }

    #[test]
    fn a_request_that_is_too_long_is_refused_in_the_words_of_each_wire() {
        let reply = Reply {
            overflow: true,
            ..Reply::default()
        };
        for (wire, words) in [
            (Wire::Messages, "prompt is too long"),
            (Wire::Responses, "context_length_exceeded"),
            (Wire::Chat, "context_length_exceeded"),
            (Wire::Gemini, "exceeds the maximum number of tokens"),
        ] {
            let fault = wire.fault(&reply, false).unwrap();
            assert_eq!(fault.status, 400);
            let body = wire.failure(&fault).to_string();
            assert!(body.contains(words), "{body}");
        }
    }

    #[test]
    fn the_script_may_add_fields_to_an_error() {
        let fault = json!({"status": 429, "more": {"resets_in_seconds": 60}});
        let fault: Fault = serde_json::from_value(fault).unwrap();
        for (_, wire) in PATHS {
            assert_eq!(wire.failure(&fault)["error"]["resets_in_seconds"], 60);
        }
    }
}
