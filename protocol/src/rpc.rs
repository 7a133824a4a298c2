//! The JSON-RPC 2.0 envelope: one line is read into plain fields, then classified.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::framing::LINE_MAX;

/// Error code: the two sides have no common version (the hello was refused).
pub const ERROR_NO_COMMON_VERSION: i64 = -32001;
/// Error code of JSON-RPC for an unknown method.
pub const ERROR_UNKNOWN_METHOD: i64 = -32601;
/// Error code of JSON-RPC for parameters that do not fit.
pub const ERROR_BAD_PARAMS: i64 = -32602;

/// An error in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcError {
    /// What kind.
    pub code: i64,
    /// For people.
    pub message: String,
}

/// One line, read but not yet understood. `jsonrpc` may be absent (some agents leave it out).
#[derive(Debug, Deserialize)]
struct Fields<'a> {
    #[serde(default)]
    id: Option<u64>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default, borrow)]
    params: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RpcError>,
}

/// A field that is there counts as there: the result `null` is a good answer, not a missing one.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// One line, classified.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Wants an answer that names `id`.
    Request {
        /// Names the request.
        id: u64,
        /// What is asked.
        method: String,
        /// Its parameters, unread.
        params: Option<&'a RawValue>,
    },
    /// Wants none.
    Notification {
        /// What is told.
        method: String,
        /// Its parameters, unread.
        params: Option<&'a RawValue>,
    },
    /// Answers a request of ours.
    Answer {
        /// The request.
        id: u64,
        /// Its result, unread, or its error.
        outcome: Result<&'a RawValue, RpcError>,
    },
}

/// A line that is no JSON-RPC message.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// Not JSON, or fields of wrong types.
    #[error("the line is not a JSON-RPC object")]
    Json(#[source] serde_json::Error),
    /// JSON, but neither request, notification nor answer.
    #[error("the line has neither a method nor an answer")]
    Shape,
}

/// Reads and classifies one line.
///
/// # Errors
/// [`BadMessage`] when the line is no JSON-RPC message; the conversation may go on.
pub fn read(line: &[u8]) -> Result<Incoming<'_>, BadMessage> {
    // serde would also take an array of the fields in their order.
    let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        return Err(BadMessage::Shape);
    }
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(BadMessage::Json)?;
    match (fields.method, fields.id, fields.result, fields.error) {
        (Some(method), Some(id), None, None) => Ok(Incoming::Request {
            id,
            method,
            params: fields.params,
        }),
        (Some(method), None, None, None) => Ok(Incoming::Notification {
            method,
            params: fields.params,
        }),
        (None, Some(id), Some(result), None) => Ok(Incoming::Answer {
            id,
            outcome: Ok(result),
        }),
        (None, Some(id), None, Some(error)) => Ok(Incoming::Answer {
            id,
            outcome: Err(error),
        }),
        _ => Err(BadMessage::Shape),
    }
}

#[derive(Serialize)]
struct Outgoing<'a, P: Serialize> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
}

impl<P: Serialize> Outgoing<'_, P> {
    const EMPTY: Self = Self {
        jsonrpc: "2.0",
        id: None,
        method: None,
        params: None,
        result: None,
        error: None,
    };

    fn line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = serde_json::to_vec(self)?;
        if line.len() > LINE_MAX {
            return Err(serde::ser::Error::custom(format_args!(
                "the line would be {} bytes long, the limit is {LINE_MAX}",
                line.len()
            )));
        }
        line.push(b'\n');
        Ok(line)
    }
}

/// A request as one line with its newline.
///
/// # Errors
/// When `params` can not be written as JSON, or the line would be longer than [`LINE_MAX`].
pub fn request<P: Serialize>(
    id: u64,
    method: &str,
    params: P,
) -> Result<Vec<u8>, serde_json::Error> {
    Outgoing {
        id: Some(id),
        method: Some(method),
        params: Some(params),
        ..Outgoing::EMPTY
    }
    .line()
}

/// A notification as one line with its newline.
///
/// # Errors
/// When `params` can not be written as JSON, or the line would be longer than [`LINE_MAX`].
pub fn notification<P: Serialize>(method: &str, params: P) -> Result<Vec<u8>, serde_json::Error> {
    Outgoing {
        method: Some(method),
        params: Some(params),
        ..Outgoing::EMPTY
    }
    .line()
}

/// A good answer as one line with its newline.
///
/// # Errors
/// When `result` can not be written as JSON, or the line would be longer than [`LINE_MAX`].
pub fn answer<P: Serialize>(id: u64, result: P) -> Result<Vec<u8>, serde_json::Error> {
    Outgoing {
        id: Some(id),
        result: Some(result),
        ..Outgoing::EMPTY
    }
    .line()
}

/// A bad answer as one line with its newline.
///
/// # Errors
/// When the error's message makes the line longer than [`LINE_MAX`].
pub fn refusal(id: u64, error: &RpcError) -> Result<Vec<u8>, serde_json::Error> {
    Outgoing::<()> {
        id: Some(id),
        error: Some(error),
        ..Outgoing::EMPTY
    }
    .line()
}
