//! How a turn ended: by its stop reason, or by the fields of the error that it was answered with.

use protocol::class::Class;
use protocol::report::{EXCERPT_MAX, excerpt};

use crate::agent::driven::judge::by_status;
use crate::agent::driven::wire::Verdict;

/// The code for a login that is missing or refused.
const AUTH_REQUIRED: i64 = -32000;

/// What a program tells of a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fault {
    /// The error's code; gemini puts the HTTP status here.
    pub(super) code: i64,
    /// The HTTP status of the request that failed, where it is told.
    pub(super) status: Option<u64>,
    /// The program's word for it.
    pub(super) kind: String,
    /// For people.
    pub(super) text: String,
    /// No service answered.
    pub(super) is_network: bool,
}

impl Fault {
    /// As evidence.
    pub(super) fn evidence(&self) -> String {
        let mut parts = Vec::new();
        if self.code != 0 {
            parts.push(format!("error {}", self.code));
        }
        parts.extend(self.status().map(|status| format!("HTTP {status}")));
        if self.is_network {
            parts.push("no answer".to_owned());
        }
        if !self.kind.is_empty() {
            parts.push(self.kind.clone());
        }
        excerpt(&format!("{}: {}", parts.join(" "), self.text), EXCERPT_MAX)
    }

    fn status(&self) -> Option<u64> {
        let code = u64::try_from(self.code).ok();
        let code = code.filter(|code| (400..600).contains(code));
        self.status.or(code).or_else(|| status_in(&self.text))
    }

    /// What it means.
    pub(super) fn class(&self) -> Class {
        let text = self.text.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let status = self.status();
        // What a context that is full, an account that is empty and a model that is missing are
        // called comes first: their statuses are shared with other failures.
        if self.kind == "ContextOverflowError" || has(OVERFLOW) {
            return Class::Overflow;
        }
        if has(BILLING) {
            return Class::Billing;
        }
        if self.kind == "model_not_found" || has(MODEL) {
            return Class::ModelMissing;
        }
        if self.is_network || (status.is_none_or(|status| status == 500) && has(NETWORK)) {
            return Class::Network;
        }
        if self.code == AUTH_REQUIRED || self.kind == "ProviderAuthError" {
            return Class::Auth;
        }
        let by_kind = match self.kind.as_str() {
            "rate_limit" => Some(Class::UsageLimit),
            "server_error" | "overloaded" => Some(Class::Overload),
            "authentication_failed" => Some(Class::Auth),
            "billing_error" => Some(Class::Billing),
            _ => None,
        };
        let by_words = || {
            let words = [
                (LIMIT, Class::UsageLimit),
                (OVERLOAD, Class::Overload),
                (AUTH, Class::Auth),
            ];
            words
                .iter()
                .find(|(words, _)| has(words))
                .map(|&(_, class)| class)
        };
        let by_status = status.and_then(by_status);
        by_status
            .or(by_kind)
            .or_else(by_words)
            .unwrap_or(Class::AgentFailed)
    }
}

const OVERFLOW: &[&str] = &[
    "prompt is too long",
    "context window",
    "context length",
    "context_length",
    "maximum context",
    "input token count",
    "too many tokens",
];
const BILLING: &[&str] = &["credit balance", "insufficient_quota", "payment required"];
const MODEL: &[&str] = &[
    "model not found",
    "no such model",
    "model_not_found",
    "unknown model",
];
const NETWORK: &[&str] = &[
    "terminated",
    "econnreset",
    "econnrefused",
    "enotfound",
    "connection",
    "fetch failed",
    "socket",
    "stream disconnected",
    "network",
    "timed out",
];
const LIMIT: &[&str] = &[
    "rate limit",
    "rate_limit",
    "too many requests",
    "usage limit",
];
const OVERLOAD: &[&str] = &["overloaded", "unavailable", "at capacity", "server error"];
const AUTH: &[&str] = &[
    "api key",
    "api-key",
    "authentication",
    "unauthorized",
    "unauthenticated",
    "forbidden",
];

/// An HTTP status that a text names: three digits behind the word `status`.
fn status_in(text: &str) -> Option<u64> {
    let (_, behind) = text.split_once("status")?;
    let digits = behind.trim_start_matches([':', ' ']);
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let status = digits[..end].parse().ok()?;
    (400..600).contains(&status).then_some(status)
}

/// The verdict on a turn that was answered with this stop reason.
pub(super) fn by_stop_reason(reason: &str) -> Verdict {
    match reason {
        "end_turn" => Verdict::Well,
        "cancelled" => Verdict::Aborted,
        "max_turn_requests" => Verdict::Failed(Class::Budget),
        // The answer, or what was left of the window for it, was not long enough.
        "max_tokens" => Verdict::Failed(Class::Overflow),
        "refusal" => Verdict::Failed(Class::Refused),
        // No success is read into a word that nobody knows.
        _ => Verdict::Failed(Class::AgentFailed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(code: i64, kind: &str, text: &str) -> Fault {
        Fault {
            code,
            kind: kind.to_owned(),
            text: text.to_owned(),
            ..Fault::default()
        }
    }

    /// As opencode 1.18.33, claude-agent-acp 0.100.0, codex-acp 2.6.0 and gemini 0.61.0 said it.
    #[test]
    fn each_programs_failures_have_their_class() {
        let cases = [
            (fault(-32603, "ContextOverflowError", "x"), Class::Overflow),
            (
                fault(-32603, "", "Internal error: Prompt is too long"),
                Class::Overflow,
            ),
            (fault(-32000, "", "Authentication required"), Class::Auth),
            (fault(-32603, "rate_limit", "x"), Class::UsageLimit),
            (fault(-32603, "server_error", "Overloaded"), Class::Overload),
            (
                fault(-32603, "server_error", "Connection dropped (ECONNRESET)"),
                Class::Network,
            ),
            (
                fault(-32603, "", "Connection reset by server"),
                Class::Network,
            ),
            (fault(-32603, "model_not_found", "x"), Class::ModelMissing),
            (
                fault(0, "", "exceeded retry limit, last status: 429 Too Many"),
                Class::UsageLimit,
            ),
            (
                fault(0, "", "unexpected status 529 : Overloaded"),
                Class::Overload,
            ),
            (
                fault(0, "", "unexpected status 402 Payment Required"),
                Class::Billing,
            ),
            (
                fault(0, "", "stream disconnected before completion"),
                Class::Network,
            ),
            (
                fault(0, "", "ran out of room in the model's context window"),
                Class::Overflow,
            ),
            (fault(401, "", "invalid api key"), Class::Auth),
            (
                fault(400, "", "The input token count (12) exceeds"),
                Class::Overflow,
            ),
            (fault(500, "", "terminated"), Class::Network),
            (fault(503, "", "x"), Class::Overload),
            (fault(500, "", "no such model"), Class::ModelMissing),
            (
                fault(-32603, "APIError", "Internal error: invalid api key"),
                Class::Auth,
            ),
            (fault(-32603, "APIError", "what?"), Class::AgentFailed),
        ];
        for (fault, class) in cases {
            assert_eq!(fault.class(), class, "{fault:?}");
        }
        let told = Fault {
            status: Some(402),
            ..fault(-32603, "APIError", "no money")
        };
        assert_eq!(told.class(), Class::Billing);
        assert!(
            told.evidence().contains("HTTP 402 APIError"),
            "{}",
            told.evidence()
        );
        let cut = Fault {
            is_network: true,
            ..fault(0, "", "half")
        };
        assert_eq!(cut.class(), Class::Network);
    }

    #[test]
    fn only_an_end_of_the_turn_is_good() {
        assert_eq!(by_stop_reason("end_turn"), Verdict::Well);
        assert_eq!(by_stop_reason("cancelled"), Verdict::Aborted);
        let failed = ["max_tokens", "max_turn_requests", "refusal", "", "new word"];
        for reason in failed {
            assert!(
                matches!(by_stop_reason(reason), Verdict::Failed(_)),
                "{reason}"
            );
        }
    }

    #[test]
    fn a_status_is_read_out_of_a_text_only_behind_its_word() {
        assert_eq!(status_in("last status: 429 Too"), Some(429));
        assert_eq!(status_in("status 529"), Some(529));
        for text in ["429", "status 7", "status", "status: ok 429"] {
            assert_eq!(status_in(text), None, "{text}");
        }
    }
}
