//! How a turn of pi ended: by why the model's last message stopped and by what pi says of the request
//! that failed. Its exit status says nothing: it is 0 after a failure, too.

use protocol::class::Class;
use serde_json::Value;

use super::line::Assistant;
use crate::agent::driven::judge::by_status;
use crate::agent::driven::wire::Verdict;

/// A failed request, as our extension saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    /// HTTP status.
    pub(super) status: u64,
    /// When the limit that it met ends, milliseconds since the Unix epoch.
    pub(super) reset_at_ms: Option<i64>,
}

/// The text of the request that an abort in a tool leads to; it "fails".
const ABORTED: &str = "This operation was aborted";

/// The verdict on a turn: by its last message, and by the last request of it that failed and was
/// not followed by a good one.
pub(super) fn judge(last: Option<&Assistant>, failed: Option<Failed>, is_cut: bool) -> Verdict {
    let Some(last) = last else {
        return match is_cut {
            true => Verdict::Aborted,
            false => Verdict::Failed(Class::AgentFailed),
        };
    };
    match last.stop.as_str() {
        "stop" => Verdict::Well,
        "aborted" => Verdict::Aborted,
        _ if is_cut || last.error == ABORTED => Verdict::Aborted,
        // A tool may end the turn.
        "toolUse" => Verdict::Well,
        "error" => Verdict::Failed(class(&last.error, failed.map(|failed| failed.status))),
        // `length`: the answer is cut off. What a newer version adds is no success either.
        _ => Verdict::Failed(Class::AgentFailed),
    }
}

/// The class of a failure, by its text and by the status of the request.
pub(super) fn class(error: &str, status: Option<u64>) -> Class {
    let status = status.or_else(|| status_in(error));
    let error = error.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| error.contains(word));
    // Some services say that with a 429, some with a 400 or with none.
    if has(BILLING) {
        return Class::Billing;
    }
    if has(LIMITED) {
        return Class::UsageLimit;
    }
    if status != Some(429) && has(OVERFLOW) {
        return Class::Overflow;
    }
    if let Some(class) = status.and_then(by_status) {
        return class;
    }
    let by_word: [(&[&str], Class); 5] = [
        (&["overloaded", "server_error"], Class::Overload),
        (AUTH, Class::Auth),
        (&["model_not_found", "no model"], Class::ModelMissing),
        (&["content_filter", "refusal"], Class::Refused),
        (NETWORK, Class::Network),
    ];
    let found = by_word.into_iter().find(|(words, _)| has(words));
    found.map_or(Class::AgentFailed, |(_, class)| class)
}

/// The class of an end before its first word, by what it printed.
pub(super) fn class_of_no_beginning(printed: &str) -> Option<Class> {
    let printed = printed.to_lowercase();
    if printed.contains("error: model \"") {
        return Some(Class::ModelMissing);
    }
    AUTH.iter()
        .any(|word| printed.contains(word))
        .then_some(Class::Auth)
}

/// Words of an account without money.
const BILLING: &[&str] = &[
    "insufficient_quota",
    "credit balance",
    "out of budget",
    "billing",
];
/// Words of an account whose limit is used up.
const LIMITED: &[&str] = &[
    "usage_limit",
    "usage limit",
    "usagelimit",
    "rate_limit",
    "quota exceeded",
];
/// Words of a login that is missing or over; the last two are pi's own, before any request.
const AUTH: &[&str] = &[
    "invalid_api_key",
    "authentication",
    "no api key",
    "no models available",
];
/// Words of a request that is too long for the model, from the list that pi itself goes by.
const OVERFLOW: &[&str] = &[
    "context_length_exceeded",
    "context length",
    "context window",
    "context size",
    "context_window",
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "request_too_large",
    "maximum prompt length",
    "reduce the length of the messages",
    "exceeds the maximum number of tokens",
    "too many tokens",
    "token limit exceeded",
];
/// Words of a connection that was lost or never made, as Node and the services' own libraries say
/// it.
const NETWORK: &[&str] = &[
    "terminated",
    "fetch failed",
    "connection",
    "econn",
    "enotfound",
    "eai_again",
    "getaddrinfo",
    "socket",
    "timed out",
    "timeout",
    "network",
    "ended without",
    "stream ended",
    "other side closed",
];

/// The status in pi's text of a failure: `429: {...}`, `429 {...}` or `NAME API error (429): ...`.
fn status_in(error: &str) -> Option<u64> {
    let number = |text: &str| -> Option<u64> {
        let digits = text.get(..3)?;
        let rest = text.as_bytes().get(3);
        let ends = rest.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        digits.parse().ok().filter(|_| ends)
    };
    let named = || {
        let (_, rest) = error.split_once("error (")?;
        number(rest)
    };
    number(error)
        .or_else(named)
        .filter(|status| (400..600).contains(status))
}

/// When the limit of a failure ends, by the service's own words in pi's text: `resets_at` is a time in
/// seconds, `resets_in_seconds` counts from the message. Milliseconds since the Unix epoch.
pub(super) fn reset_in(error: &str, at_ms: i64) -> Option<i64> {
    let json: Value = serde_json::from_str(error.get(error.find('{')?..)?).ok()?;
    let inner = json.get("error").unwrap_or(&json);
    let seconds = |name: &str| inner.get(name)?.as_i64()?.checked_mul(1000);
    let counted = || seconds("resets_in_seconds")?.checked_add(at_ms);
    seconds("resets_at").or_else(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(stop: &str, error: &str) -> Assistant {
        Assistant {
            stop: stop.to_owned(),
            error: error.to_owned(),
            ..Assistant::default()
        }
    }

    fn failed_as(error: &str) -> Class {
        match judge(Some(&ended("error", error)), None, false) {
            Verdict::Failed(class) => class,
            other => panic!("{other:?}"),
        }
    }

    /// The texts of version 0.87.1 over three wires of models.
    #[test]
    fn a_failure_is_classified_by_its_status_and_its_words() {
        let cases = [
            (
                r#"401: {"code":"invalid_api_key","type":"invalid_request_error"}"#,
                Class::Auth,
            ),
            (
                r#"401 {"error":{"type":"authentication_error"},"type":"error"}"#,
                Class::Auth,
            ),
            (
                r#"fake API error (401): {"code":"invalid_api_key"}"#,
                Class::Auth,
            ),
            (
                r#"403: {"code":"unsupported_country_region_territory"}"#,
                Class::Auth,
            ),
            (r#"402: {"message":"no money"}"#, Class::Billing),
            (
                r#"429: {"code":"insufficient_quota","message":"You exceeded your current quota"}"#,
                Class::Billing,
            ),
            (
                r#"400 {"error":{"message":"Your credit balance is too low"}}"#,
                Class::Billing,
            ),
            (r#"429: {"code":"rate_limit_exceeded"}"#, Class::UsageLimit),
            (
                r#"429: {"message":"rate limit: too many tokens"}"#,
                Class::UsageLimit,
            ),
            (
                "You have hit your ChatGPT usage limit (plus plan).",
                Class::UsageLimit,
            ),
            (
                r#"529: {"code":"server_error","message":"Overloaded"}"#,
                Class::Overload,
            ),
            ("fake API error (503): busy", Class::Overload),
            (r#"404: {"code":"model_not_found"}"#, Class::ModelMissing),
            (
                r#"400: {"code":"context_length_exceeded","message":"Your input exceeds"}"#,
                Class::Overflow,
            ),
            (
                "context_length_exceeded: Your input exceeds the context window of this model.",
                Class::Overflow,
            ),
            (
                r#"400 {"error":{"message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
                Class::Overflow,
            ),
            (r#"400: {"message":"bad"}"#, Class::Refused),
            ("terminated", Class::Network),
            ("fetch failed", Class::Network),
            ("Connection error.", Class::Network),
            ("No API key found for fake.", Class::Auth),
            ("something else", Class::AgentFailed),
            ("", Class::AgentFailed),
        ];
        for (error, class) in cases {
            assert_eq!(failed_as(error), class, "{error}");
        }
    }

    #[test]
    fn the_status_of_the_request_counts_before_the_text() {
        let failed = Failed {
            status: 429,
            reset_at_ms: Some(7),
        };
        let last = ended("error", "terminated");
        let verdict = judge(Some(&last), Some(failed), false);
        assert_eq!(verdict, Verdict::Failed(Class::UsageLimit));
    }

    #[test]
    fn only_a_message_that_stopped_by_itself_is_good() {
        for stop in ["stop", "toolUse"] {
            assert_eq!(judge(Some(&ended(stop, "")), None, false), Verdict::Well);
        }
        for stop in ["length", "", "a new word"] {
            let verdict = judge(Some(&ended(stop, "")), None, false);
            assert_eq!(verdict, Verdict::Failed(Class::AgentFailed), "{stop}");
        }
        assert_eq!(
            judge(None, None, false),
            Verdict::Failed(Class::AgentFailed)
        );
    }

    #[test]
    fn what_was_cut_short_is_neither_good_nor_bad() {
        let cases = [
            ("aborted", "Request aborted", false),
            ("error", ABORTED, false),
            ("error", "fetch failed", true),
            ("toolUse", "", true),
        ];
        for (stop, error, is_cut) in cases {
            let verdict = judge(Some(&ended(stop, error)), None, is_cut);
            assert_eq!(verdict, Verdict::Aborted, "{stop}");
        }
        assert_eq!(judge(None, None, true), Verdict::Aborted);
        let done = judge(Some(&ended("stop", "")), None, true);
        assert_eq!(done, Verdict::Well, "it was faster than the abort");
    }

    #[test]
    fn an_end_before_the_first_word_is_known_by_what_it_printed() {
        let said =
            r#"Error: Model "none/none" not found. Use --list-models to see available models."#;
        assert_eq!(class_of_no_beginning(said), Some(Class::ModelMissing));
        let said = "No models available. Use /login to log into a provider";
        assert_eq!(class_of_no_beginning(said), Some(Class::Auth));
        assert_eq!(
            class_of_no_beginning("Error: Unknown option: --frobnicate"),
            None
        );
    }

    #[test]
    fn the_end_of_a_limit_is_found_in_the_services_words() {
        let at = |error: &str| reset_in(error, 5000);
        assert_eq!(
            at(r#"429: {"type":"x","resets_in_seconds":60}"#),
            Some(65_000)
        );
        assert_eq!(
            at(r#"429 {"error":{"resets_at":1795260995}}"#),
            Some(1_795_260_995_000)
        );
        for error in [
            "429",
            r#"429: {"a":1}"#,
            "{",
            r#"{"resets_at":9223372036854775807}"#,
        ] {
            assert_eq!(at(error), None, "{error}");
        }
    }
}
