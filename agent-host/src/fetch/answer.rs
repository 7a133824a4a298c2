//! One request to a forge and its answer, whatever carries them.

use super::error::ForgeError;

/// Largest answer, bytes (32 MiB: a page of a hundred comments, each at the forge's limit).
pub(super) const BODY_MAX: u64 = 32 << 20;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    /// The path below the API, with its query; begins with `/`.
    pub(super) path: &'a str,
    /// The form in which it is wanted.
    pub(super) accept: &'a str,
    /// The mark of the copy that is here.
    pub(super) etag: Option<&'a str>,
    /// What is posted there, as JSON; absent: nothing is, it is only read.
    pub(super) body: Option<&'a str>,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// Its headers; names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// Its body.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Nobody answers, or the answer breaks off.
    Unreached(String),
    /// It is longer than [`BODY_MAX`].
    TooLarge,
    /// What is to carry it can not be run.
    NotRun(ForgeError),
}

/// What carries requests.
pub(super) trait Transport: std::fmt::Debug {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`NoAnswer`]; a status of any kind is an answer.
    fn send(&self, ask: Ask<'_>) -> Result<Answer, NoAnswer>;
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it says no only because there were too many requests: then until when, milliseconds
    /// since the Unix epoch, where it says so.
    pub(super) fn limit(&self, now_ms: i64) -> Option<Option<i64>> {
        let number = |name| self.header(name).and_then(|text| text.trim().parse().ok());
        let after: Option<i64> = number("retry-after");
        let is_spent = self.header("x-ratelimit-remaining") == Some("0");
        let is_limit = match self.status {
            429 => true,
            403 => is_spent || after.is_some(),
            _ => false,
        };
        let waited = after.map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1000)));
        let reset: Option<i64> = number("x-ratelimit-reset").filter(|_| is_spent);
        is_limit.then(|| waited.or(reset.map(|seconds| seconds.saturating_mul(1000))))
    }

    /// What the forge says of it, for people.
    pub(super) fn said(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Said {
            message: String,
        }
        let said: Option<Said> = serde_json::from_slice(&self.body).ok();
        let said = said.map_or_else(|| format!("status {}", self.status), |said| said.message);
        let plain: String = said
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        protocol::report::excerpt(&plain, 300)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)]) -> Answer {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Answer {
            status,
            headers: headers.iter().map(owned).collect(),
            body: b"{\"message\": \"no\\u001b[31m\"}".to_vec(),
        }
    }

    #[test]
    fn too_many_requests_are_told_from_no_right() {
        let (remaining, reset) = (("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "90"));
        assert_eq!(
            answer(403, &[remaining, reset]).limit(1000),
            Some(Some(90_000))
        );
        assert_eq!(
            answer(429, &[("retry-after", "60"), reset]).limit(1000),
            Some(Some(61_000))
        );
        assert_eq!(
            answer(403, &[("retry-after", "60")]).limit(0),
            Some(Some(60_000))
        );
        assert_eq!(answer(429, &[]).limit(0), Some(None));
        assert_eq!(
            answer(403, &[("x-ratelimit-remaining", "7")]).limit(0),
            None
        );
        assert_eq!(answer(404, &[remaining, reset]).limit(0), None);
        let far = answer(429, &[("retry-after", "9223372036854775807")]);
        assert_eq!(far.limit(1), Some(Some(i64::MAX)));
    }

    #[test]
    fn what_a_forge_says_can_not_steer_a_terminal() {
        assert_eq!(answer(403, &[]).said(), "no [31m");
        let silent = Answer {
            body: b"<html>".to_vec(),
            ..answer(502, &[])
        };
        assert_eq!(silent.said(), "status 502");
    }
}
