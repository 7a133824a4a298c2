//! JSON-RPC as agent programs speak it over their stdio: any id, often no `jsonrpc` field, unknown
//! methods at any time. (The supervisor's own pipe is stricter, see `protocol::rpc`.)

use std::collections::BTreeMap;

use protocol::report::{EXCERPT_MAX, excerpt};
use serde_json::{Map, Value, json};

use super::wire::Out;

/// Most requests of ours whose answers are awaited; of an older one the answer is not recognised.
const PENDING_MAX: usize = 256;
/// The code for a method that is not known.
const METHOD_NOT_FOUND: i64 = -32601;

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::agent) enum Heard {
    /// The answer to a request of ours.
    Answer {
        /// Its number.
        id: u64,
        /// What came of it.
        outcome: Result<Value, Fault>,
    },
    /// A request of the program.
    Request {
        /// Its id, to be handed back as it is.
        id: Value,
        /// What it asks for.
        method: String,
        /// With what.
        params: Value,
    },
    /// Something that it tells.
    Notification {
        /// What it is about.
        method: String,
        /// The particulars.
        params: Value,
    },
    /// No message at all.
    Garbage,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::agent) struct Fault {
    /// Its code; 0 when there is none.
    pub(in crate::agent) code: i64,
    /// For people, an excerpt.
    pub(in crate::agent) message: String,
    /// The particulars.
    pub(in crate::agent) data: Value,
}

/// Reads a line.
pub(in crate::agent) fn read(line: &[u8]) -> Heard {
    let Ok(Value::Object(mut map)) = serde_json::from_slice(line) else {
        return Heard::Garbage;
    };
    let id = map.remove("id").filter(|id| !id.is_null());
    let method = map.remove("method");
    let params = map.remove("params").unwrap_or_default();
    match (method, id) {
        (Some(Value::String(method)), Some(id)) => Heard::Request { id, method, params },
        (Some(Value::String(method)), None) => Heard::Notification { method, params },
        (None, Some(id)) => match id.as_u64() {
            Some(id) => Heard::Answer {
                id,
                outcome: outcome(map),
            },
            None => Heard::Garbage,
        },
        (_, _) => Heard::Garbage,
    }
}

fn outcome(mut map: Map<String, Value>) -> Result<Value, Fault> {
    match map.remove("error") {
        None | Some(Value::Null) => Ok(map.remove("result").unwrap_or_default()),
        Some(mut error) => {
            let message = error.get("message").and_then(Value::as_str);
            let text = message.map_or_else(|| error.to_string(), str::to_owned);
            Err(Fault {
                code: error.get("code").and_then(Value::as_i64).unwrap_or(0),
                message: excerpt(&text, EXCERPT_MAX),
                data: error.get_mut("data").map(Value::take).unwrap_or_default(),
            })
        }
    }
}

/// Our requests on their way: what each was for.
#[derive(Debug)]
pub(in crate::agent) struct Requests<T> {
    next: u64,
    pending: BTreeMap<u64, T>,
}

impl<T> Default for Requests<T> {
    fn default() -> Self {
        Self {
            next: 1,
            pending: BTreeMap::new(),
        }
    }
}

impl<T> Requests<T> {
    /// Says a request.
    pub(in crate::agent) fn say(&mut self, what: T, method: &str, params: &Value, out: &mut Out) {
        let id = self.next;
        self.next += 1;
        if self.pending.len() >= PENDING_MAX {
            self.pending.pop_first();
        }
        self.pending.insert(id, what);
        out.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }

    /// What the request of this number was for; only once.
    pub(in crate::agent) fn take(&mut self, id: u64) -> Option<T> {
        self.pending.remove(&id)
    }

    /// Whether an answer to such a request is awaited.
    pub(in crate::agent) fn awaits(&self, is: impl Fn(&T) -> bool) -> bool {
        self.pending.values().any(is)
    }
}

/// Says a notification.
pub(in crate::agent) fn notify(method: &str, params: &Value, out: &mut Out) {
    out.say(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
}

/// Answers a request of the program.
pub(in crate::agent) fn answer(id: &Value, result: &Value, out: &mut Out) {
    out.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
}

/// Refuses a request of the program that is not known here, and says so.
pub(in crate::agent) fn refuse(id: &Value, method: &str, out: &mut Out) {
    let method = excerpt(method, 80);
    out.notice(format!(
        "the agent asks for `{method}`, which is not known here"
    ));
    let message = format!("unknown method {method}");
    out.say(&json!({"jsonrpc": "2.0", "id": id,
        "error": {"code": METHOD_NOT_FOUND, "message": message}}));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_is_read_with_or_without_its_version() {
        let cases = [
            (
                r#"{"id":3,"result":{"a":1}}"#,
                Heard::Answer {
                    id: 3,
                    outcome: Ok(json!({"a": 1})),
                },
            ),
            (
                r#"{"jsonrpc":"2.0","id":4,"error":{"code":-32000,"message":"no","data":[1]}}"#,
                Heard::Answer {
                    id: 4,
                    outcome: Err(Fault {
                        code: -32000,
                        message: "no".to_owned(),
                        data: json!([1]),
                    }),
                },
            ),
            (
                r#"{"id":"x-1","method":"ask","params":{}}"#,
                Heard::Request {
                    id: json!("x-1"),
                    method: "ask".to_owned(),
                    params: json!({}),
                },
            ),
            (
                r#"{"method":"told"}"#,
                Heard::Notification {
                    method: "told".to_owned(),
                    params: Value::Null,
                },
            ),
        ];
        for (line, heard) in cases {
            assert_eq!(read(line.as_bytes()), heard, "{line}");
        }
        for line in [
            "",
            "[]",
            "7",
            "{}",
            r#"{"method":7}"#,
            r#"{"id":"x","result":1}"#,
        ] {
            assert_eq!(read(line.as_bytes()), Heard::Garbage, "{line}");
        }
    }

    #[test]
    fn an_answer_belongs_to_one_request() {
        let (mut requests, mut out) = (Requests::default(), Out::default());
        requests.say("first", "do", &json!({}), &mut out);
        requests.say("second", "do", &json!({"x": 1}), &mut out);
        let lines = String::from_utf8(out.lines).unwrap();
        assert_eq!(lines.lines().count(), 2);
        assert!(lines.ends_with("\"params\":{\"x\":1}}\n"), "{lines}");
        assert!(requests.awaits(|what| *what == "second"));
        assert_eq!(requests.take(2), Some("second"));
        assert_eq!(requests.take(2), None);
        assert!(!requests.awaits(|what| *what == "second"));
    }

    #[test]
    fn an_unknown_request_is_refused_with_its_own_id() {
        let mut out = Out::default();
        refuse(&json!("q"), &"m".repeat(500), &mut out);
        let line: Value = serde_json::from_slice(&out.lines).unwrap();
        assert_eq!(
            (&line["id"], &line["error"]["code"]),
            (&json!("q"), &json!(-32601))
        );
        assert_eq!(out.events.len(), 1);
    }
}
