//! How a turn of Claude Code ended: by the fields that it documents, never by its exit status or
//! by `subtype` alone (a `success` may be a failure).

use protocol::class::Class;

use super::line::TurnEnd;
use crate::agent::driven::judge::by_status;
use crate::agent::driven::wire::Verdict;

/// The verdict on a turn, given the word of the last request that failed in it.
pub(super) fn judge(end: &TurnEnd, failure: Option<&str>) -> Verdict {
    if end.terminal_reason.starts_with("aborted") {
        return Verdict::Aborted;
    }
    if !end.is_error {
        return Verdict::Well;
    }
    Verdict::Failed(class(end, failure.unwrap_or_default()))
}

fn class(end: &TurnEnd, failure: &str) -> Class {
    match end.subtype.as_str() {
        "error_max_turns" | "error_max_budget_usd" => return Class::Budget,
        _ => {}
    }
    match end.terminal_reason.as_str() {
        "prompt_too_long" | "context_window_exceeded" => return Class::Overflow,
        _ => {}
    }
    // Without a status no service has answered, and the message's word is a guess (a dropped
    // connection is a `server_error` to it).
    let unanswered = end
        .status
        .is_none()
        .then(|| by_word(&end.failure))
        .flatten();
    unanswered
        .or_else(|| by_word(failure))
        .or_else(|| end.status.and_then(by_status))
        .unwrap_or(Class::AgentFailed)
}

/// The words of `assistant.error` and of `result.api_error`.
fn by_word(word: &str) -> Option<Class> {
    Some(match word {
        "billing_error" => Class::Billing,
        "authentication_failed" | "oauth_org_not_allowed" => Class::Auth,
        "rate_limit" => Class::UsageLimit,
        "overloaded" | "server_error" => Class::Overload,
        "model_not_found" => Class::ModelMissing,
        "connection_failed" | "timeout" => Class::Network,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(subtype: &str, terminal: &str, status: Option<u64>, word: &str) -> TurnEnd {
        TurnEnd {
            is_error: true,
            subtype: subtype.to_owned(),
            terminal_reason: terminal.to_owned(),
            status,
            failure: word.to_owned(),
            ..TurnEnd::default()
        }
    }

    /// As version 2.1.329 said it, with the word of the made-up message before it.
    #[test]
    fn a_success_that_is_an_error_is_classified_by_its_fields() {
        let api = |status, word| end("success", "api_error", status, word);
        let cases = [
            (
                api(Some(401), "authentication_error"),
                "authentication_failed",
                Class::Auth,
            ),
            (
                api(Some(403), "permission_error"),
                "authentication_failed",
                Class::Auth,
            ),
            (
                api(Some(429), "rate_limit_error"),
                "rate_limit",
                Class::UsageLimit,
            ),
            (
                api(Some(529), "overloaded_error"),
                "overloaded",
                Class::Overload,
            ),
            (api(Some(500), "api_error"), "server_error", Class::Overload),
            (
                api(Some(404), "not_found_error"),
                "invalid_request",
                Class::ModelMissing,
            ),
            (
                api(Some(400), "invalid_request_error"),
                "billing_error",
                Class::Billing,
            ),
            (
                api(Some(400), "invalid_request_error"),
                "invalid_request",
                Class::Refused,
            ),
            (
                api(None, "connection_failed"),
                "server_error",
                Class::Network,
            ),
            (
                end("success", "prompt_too_long", Some(400), ""),
                "invalid_request",
                Class::Overflow,
            ),
            (end("error_max_turns", "", None, ""), "", Class::Budget),
            (end("error_max_budget_usd", "", None, ""), "", Class::Budget),
            (
                end("error_during_execution", "", None, ""),
                "",
                Class::AgentFailed,
            ),
        ];
        for (end, word, class) in cases {
            assert_eq!(
                judge(&end, Some(word)),
                Verdict::Failed(class),
                "{end:?} {word}"
            );
        }
    }

    #[test]
    fn a_turn_that_was_cut_short_is_neither_good_nor_bad() {
        let end = end("error_during_execution", "aborted_tools", None, "");
        assert_eq!(judge(&end, None), Verdict::Aborted);
    }

    #[test]
    fn only_a_result_that_says_so_is_good() {
        assert_eq!(
            judge(&TurnEnd::default(), Some("rate_limit")),
            Verdict::Well
        );
        let unclear = super::super::line::read(br#"{"type":"result"}"#);
        let super::super::line::Heard::TurnEnd(end) = unclear else {
            panic!("{unclear:?}");
        };
        assert_eq!(judge(&end, None), Verdict::Failed(Class::AgentFailed));
    }
}
