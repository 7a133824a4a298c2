//! How a turn of codex ended: by `turn.error.codexErrorInfo` and the HTTP status in it. Only where that
//! says `other` does the message count, by the words that codex itself puts before those of a service.

use protocol::class::Class;
use serde_json::Value;

use crate::agent::driven::judge::by_status;

/// A request, or a turn, that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fault {
    /// The word of `codexErrorInfo`.
    pub(super) word: String,
    /// HTTP status of the request, where there was an answer.
    pub(super) status: Option<u64>,
    /// For people.
    pub(super) message: String,
    /// More for people.
    pub(super) details: String,
}

impl Fault {
    /// Reads an `error` of the wire.
    pub(super) fn read(error: &Value) -> Self {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let (word, status) = match &error["codexErrorInfo"] {
            Value::String(word) => (word.clone(), None),
            Value::Object(map) => match map.iter().next() {
                Some((word, facts)) => (word.clone(), facts["httpStatusCode"].as_u64()),
                None => (String::new(), None),
            },
            _ => (String::new(), None),
        };
        Self {
            word,
            status,
            message: text("message"),
            details: text("additionalDetails"),
        }
    }

    /// What it means.
    pub(super) fn class(&self) -> Class {
        let by_words = by_word(&self.word, &self.message);
        by_words
            .or_else(|| self.status.and_then(by_status))
            .or_else(|| self.is_of_the_network().then_some(Class::Network))
            .or_else(|| by_message(&self.message))
            .unwrap_or(Class::AgentFailed)
    }

    /// No service has answered.
    fn is_of_the_network(&self) -> bool {
        let words = [
            "httpConnectionFailed",
            "responseStreamConnectionFailed",
            "responseStreamDisconnected",
            "responseTooManyFailedAttempts",
        ];
        self.status.is_none() && words.contains(&self.word.as_str())
    }

    /// It was tried over a web socket; plain HTTP follows.
    pub(super) fn is_of_a_socket(&self) -> bool {
        self.details.contains("url: ws://") || self.details.contains("url: wss://")
    }

    /// As evidence.
    pub(super) fn evidence(&self) -> String {
        let status = self
            .status
            .map_or_else(String::new, |status| format!(" HTTP {status}"));
        let details = match self.details.as_str() {
            "" => String::new(),
            details => format!(" ({details})"),
        };
        format!(
            "codexErrorInfo {}{status}: {}{details}",
            self.word, self.message
        )
    }
}

fn by_word(word: &str, message: &str) -> Option<Class> {
    Some(match word {
        "contextWindowExceeded" => Class::Overflow,
        "sessionBudgetExceeded" => Class::Budget,
        // One word for two things; an account without money does not recover by itself.
        "usageLimitExceeded" if message.starts_with("Quota exceeded") => Class::Billing,
        "usageLimitExceeded" | "rateLimitExceeded" => Class::UsageLimit,
        "serverOverloaded"
        | "flexUnavailable"
        | "policyCapacityUnavailable"
        | "internalServerError" => Class::Overload,
        "modelNotFound" => Class::ModelMissing,
        "cyberPolicy" | "misalignmentPolicyViolation" | "inferenceHookDenied" | "badRequest" => {
            Class::Refused
        }
        "unauthorized" => Class::Auth,
        "sandboxError" => Class::Environment,
        _ => return None,
    })
}

/// The beginnings that codex gives to what it has no word for.
fn by_message(message: &str) -> Option<Class> {
    let begins = |words: &[&str]| words.iter().any(|word| message.starts_with(word));
    if begins(&[
        "stream disconnected before completion",
        "Connection failed",
        "error sending request",
        "timeout waiting for",
        "request timed out",
    ]) {
        return Some(Class::Network);
    }
    if begins(&["Missing environment variable"]) {
        return Some(Class::Auth);
    }
    // A 400 is handed on as the service wrote it.
    let answer: Value = serde_json::from_str(message).ok()?;
    let kind = answer["error"]["type"].as_str();
    (kind == Some("invalid_request_error")).then_some(Class::Refused)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(info: &Value, message: &str) -> Class {
        Fault::read(&json!({"codexErrorInfo": info, "message": message})).class()
    }

    /// As version 0.169.0 said it.
    #[test]
    fn each_failure_is_classified_by_its_fields() {
        let http = |status: u64| json!({"httpConnectionFailed": {"httpStatusCode": status}});
        let tries = |status| json!({"responseTooManyFailedAttempts": {"httpStatusCode": status}});
        let dropped = json!({"responseStreamDisconnected": {"httpStatusCode": null}});
        let cases = [
            (http(401), "unexpected status 401", Class::Auth),
            (http(403), "", Class::Auth),
            (http(402), "", Class::Billing),
            (http(404), "", Class::ModelMissing),
            (http(529), "", Class::Overload),
            (tries(429), "exceeded retry limit", Class::UsageLimit),
            (dropped, "Reconnecting... 1/1", Class::Network),
            (json!("unauthorized"), "", Class::Auth),
            (
                json!("usageLimitExceeded"),
                "You’ve hit your usage limit.",
                Class::UsageLimit,
            ),
            (
                json!("usageLimitExceeded"),
                "Quota exceeded. Check your plan.",
                Class::Billing,
            ),
            (json!("rateLimitExceeded"), "", Class::UsageLimit),
            (json!("serverOverloaded"), "", Class::Overload),
            (json!("internalServerError"), "", Class::Overload),
            (json!("modelNotFound"), "", Class::ModelMissing),
            (json!("contextWindowExceeded"), "", Class::Overflow),
            (json!("sessionBudgetExceeded"), "", Class::Budget),
            (json!("badRequest"), "", Class::Refused),
            (json!("sandboxError"), "", Class::Environment),
            (
                json!("other"),
                "stream disconnected before completion: x",
                Class::Network,
            ),
            (
                json!("other"),
                r#"{"error":{"type":"invalid_request_error"}}"#,
                Class::Refused,
            ),
            (
                json!("other"),
                "Missing environment variable: `K`.",
                Class::Auth,
            ),
            (json!("other"), "something", Class::AgentFailed),
            (json!("aNewWord"), "401", Class::AgentFailed),
            (
                json!({"aNewWord": {"httpStatusCode": 503}}),
                "",
                Class::Overload,
            ),
            (json!(null), "", Class::AgentFailed),
            (json!({}), "", Class::AgentFailed),
        ];
        for (info, message, wanted) in cases {
            assert_eq!(class(&info, message), wanted, "{info} {message}");
        }
    }

    #[test]
    fn evidence_has_the_word_and_the_status() {
        let fault = Fault::read(&json!({"message": "no", "additionalDetails": "url: ws://h",
            "codexErrorInfo": {"httpConnectionFailed": {"httpStatusCode": 401}}}));
        let text = "codexErrorInfo httpConnectionFailed HTTP 401: no (url: ws://h)";
        assert_eq!(fault.evidence(), text);
        assert!(fault.is_of_a_socket());
    }
}
