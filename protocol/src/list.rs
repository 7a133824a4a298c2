//! A command that lists the items of a `foreach`: what `supervisor` asks of `agent-host list`, and what
//! comes back. It belongs to no run: the batch does not exist yet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The word on the command line of `agent-host`: `list REQUEST OUTCOME`.
pub const LIST_WORD: &str = "list";
/// Longest output, bytes (16 MiB: a million short lines, as many as a batch may have tasks).
pub const LIST_OUT_MAX: usize = 16 << 20;
/// Most bytes that are kept of the end of its standard error: a person reads its last lines.
pub const LIST_SAID_MAX: usize = 4 << 10;
/// Largest request or outcome, bytes: a byte of text takes at most six in JSON.
pub const LIST_FILE_MAX: u64 = 6 * ((LIST_OUT_MAX + LIST_SAID_MAX) as u64) + (1 << 20);

/// The command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOrder {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Its working folder, absolute.
    pub folder: String,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Longest time that it may take, milliseconds.
    pub timeout_ms: u64,
    /// The process that waits for the items; when that ends, so does the command.
    pub waits: u32,
}

/// How it ended. Nothing of it, nor of what it started, is left then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListEnd {
    /// It exited with 0.
    Printed {
        /// All that it printed.
        text: String,
    },
    /// It exited with another status.
    Exited {
        /// Which.
        code: i32,
        /// The end of its standard error.
        said: String,
    },
    /// A signal ended it.
    Signalled {
        /// Which.
        signal: i32,
        /// The end of its standard error.
        said: String,
    },
    /// It took too long and was killed.
    TimedOut {
        /// The end of its standard error.
        said: String,
    },
    /// It printed more than [`LIST_OUT_MAX`] and was killed.
    TooMuch {},
    /// What it printed is not UTF-8.
    NotText {
        /// The first byte that is none.
        offset: usize,
    },
    /// It could not be started.
    NotStarted {
        /// Why.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_every_end_come_back_as_they_went() {
        let order = ListOrder {
            argv: vec!["gh".into(), "issue list".into()],
            folder: "/repo".into(),
            env: BTreeMap::from([("PATH".into(), "/bin".into())]),
            timeout_ms: 600_000,
            waits: 42,
        };
        let text = serde_json::to_string(&order).unwrap();
        assert_eq!(serde_json::from_str::<ListOrder>(&text).unwrap(), order);
        let said = || "no\n".to_owned();
        for (end, written) in [
            (
                ListEnd::Printed { text: "a\n".into() },
                r#"{"printed":{"text":"a\n"}}"#,
            ),
            (
                ListEnd::Exited {
                    code: 2,
                    said: said(),
                },
                r#"{"exited":{"code":2,"said":"no\n"}}"#,
            ),
            (
                ListEnd::Signalled {
                    signal: 9,
                    said: said(),
                },
                r#"{"signalled":{"signal":9,"said":"no\n"}}"#,
            ),
            (
                ListEnd::TimedOut { said: said() },
                r#"{"timed_out":{"said":"no\n"}}"#,
            ),
            (ListEnd::TooMuch {}, r#"{"too_much":{}}"#),
            (
                ListEnd::NotText { offset: 3 },
                r#"{"not_text":{"offset":3}}"#,
            ),
            (
                ListEnd::NotStarted { why: "gone".into() },
                r#"{"not_started":{"why":"gone"}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&end).unwrap(), written);
            assert_eq!(serde_json::from_str::<ListEnd>(written).unwrap(), end);
        }
    }

    #[test]
    fn the_longest_output_fits_into_an_outcome() {
        let end = ListEnd::Printed {
            text: "\u{1}".repeat(LIST_OUT_MAX / 16),
        };
        let written = serde_json::to_vec(&end).unwrap().len() as u64;
        assert!(written * 16 <= LIST_FILE_MAX);
    }
}
