//! The JSON file in which a command may hand over a result of its own (`result_file` in the batch
//! file). Its JSON Schema is published by the supervisor (feature `schema`).

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::report::{ResultStatus, Usage, Verdict};

/// Largest result file, bytes (1 MiB: a summary and counters; a larger one is refused unread).
pub const RESULT_FILE_MAX: u64 = 1 << 20;

/// What the command says of its work. Further keys are allowed and not looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ResultFile {
    /// Whether the work went well.
    pub status: ResultStatus,
    /// Why not, for `failed`; `agent_failed` when absent. Only [`claimable`] classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// What the command used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// A reviewer's word on the work; of nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// A text that is no result file.
#[derive(Debug, thiserror::Error)]
pub enum BadResultFile {
    /// Not JSON, or not of the right form.
    #[error("it is not a JSON result: {0}")]
    Json(serde_json::Error),
    /// A class that only the supervisor can know.
    #[error("its class `{0}` is not for a command to say")]
    Class(Class),
    /// A good result has no class.
    #[error("its status is `ok`, but it has the class `{0}`")]
    ClassOfOk(Class),
}

impl ResultFile {
    /// Reads the text of a result file.
    ///
    /// # Errors
    /// [`BadResultFile`] says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, BadResultFile> {
        let file: Self = serde_json::from_slice(text).map_err(BadResultFile::Json)?;
        match (file.status, file.class) {
            (ResultStatus::Ok, Some(class)) => Err(BadResultFile::ClassOfOk(class)),
            (ResultStatus::Failed, Some(class)) if !claimable(class) => {
                Err(BadResultFile::Class(class))
            }
            (ResultStatus::Ok | ResultStatus::Failed, _) => Ok(file),
        }
    }
}

/// Whether an agent can know that its work ended with this class; the others are what the host or
/// the supervisor see from outside.
pub const fn claimable(class: Class) -> bool {
    match class {
        Class::AgentFailed
        | Class::Oom
        | Class::Overflow
        | Class::UsageLimit
        | Class::Overload
        | Class::Network
        | Class::Auth
        | Class::Billing
        | Class::ModelMissing
        | Class::Refused
        | Class::Environment
        | Class::Disk => true,
        Class::Crash
        | Class::Protocol
        | Class::NoResult
        | Class::Leftover
        | Class::Silence
        | Class::NoProgress
        | Class::Timeout
        | Class::Budget
        | Class::VerifyFailed
        | Class::NoChange
        | Class::Rejected
        | Class::SpawnFailure
        | Class::SetupFailed
        | Class::Lost
        | Class::Superseded
        | Class::Cancelled => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_and_the_largest_file_are_read() {
        let least = ResultFile::parse(br#"{"status":"ok"}"#).unwrap();
        assert_eq!((least.status, least.class), (ResultStatus::Ok, None));
        let most = br#"{"status":"failed","class":"usage_limit","summary":"s","extra":1,
            "usage":{"turns":1,"tokens":2,"cost_micros":3}}"#;
        let most = ResultFile::parse(most).unwrap();
        assert_eq!(most.class, Some(Class::UsageLimit));
        assert_eq!(most.usage.unwrap().tokens, 2);
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_reason() {
        let cases = [
            ("", "not a JSON result"),
            ("{}", "missing field `status`"),
            (r#"{"status":"maybe"}"#, "unknown variant `maybe`"),
            (
                r#"{"status":"failed","class":"lost"}"#,
                "`lost` is not for a command",
            ),
            (
                r#"{"status":"ok","class":"network"}"#,
                "has the class `network`",
            ),
        ];
        for (text, reason) in cases {
            let error = ResultFile::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn whoever_claims_a_class_can_know_it() {
        let claimed = Class::ALL.iter().filter(|class| claimable(**class)).count();
        assert_eq!(claimed, 12);
    }
}
