//! Ids of everything that is named across the pipe, on disk and on the command line.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest task id, in bytes (the batch file's rule; also a safe file name on every file system).
pub const TASK_ID_MAX: usize = 64;

/// A text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: {rule}")]
pub struct BadId {
    /// The refused text, cut to 80 characters.
    pub text: String,
    /// What it should have been.
    pub kind: &'static str,
    /// The rule that it breaks.
    pub rule: &'static str,
}

fn bad(text: &str, kind: &'static str, rule: &'static str) -> BadId {
    BadId {
        text: text.chars().take(80).collect(),
        kind,
        rule,
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }
    };
}

text_id! {
    /// A batch: its name, the second it was created, and four random characters.
    BatchId
}
text_id! {
    /// A task, unique in its batch: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, no `..`, no trailing `.` or
    /// `.lock` (so that it is a safe file name and git ref component).
    TaskId
}

const TASK_ID_RULE: &str =
    "letters, digits, `.`, `_`, `-`, starting with a letter or digit, at most 64 characters";
const BATCH_ID_RULE: &str =
    "letters, digits, `.`, `_`, `-`, starting with a letter or digit, at most 96 characters";

fn check_word(text: &str, kind: &'static str, max: usize, rule: &'static str) -> Result<(), BadId> {
    let first_ok = text
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric);
    let rest_ok = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if !first_ok || !rest_ok || text.len() > max {
        return Err(bad(text, kind, rule));
    }
    if text.contains("..") || text.ends_with('.') || text.ends_with(".lock") {
        return Err(bad(
            text,
            kind,
            "no `..`, no trailing `.` and no trailing `.lock`",
        ));
    }
    Ok(())
}

impl std::str::FromStr for TaskId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        check_word(text, "task id", TASK_ID_MAX, TASK_ID_RULE)?;
        Ok(Self(text.into()))
    }
}

/// Longest batch id: a name of 64, the time stamp, the random part and two hyphens, rounded up.
pub const BATCH_ID_MAX: usize = 96;

impl std::str::FromStr for BatchId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        check_word(text, "batch id", BATCH_ID_MAX, BATCH_ID_RULE)?;
        Ok(Self(text.into()))
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The next number.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let digits = text.strip_prefix($prefix).unwrap_or(text);
                let number = digits.parse().ok().filter(|_| !digits.starts_with('+'));
                number.map(Self).ok_or_else(|| bad(text, $kind, "a number"))
            }
        }
    };
}

number_id! {
    /// The number of an attempt of one task, from 1.
    AttemptNo(u32), "", "attempt number"
}
number_id! {
    /// One run: the life of one host. Unique in the batch, from 1, never used twice; every report
    /// names it, so that a late word of an earlier run is recognised.
    Generation(u64), "", "run number"
}
number_id! {
    /// One message of the operator to a task, unique in the batch, from 1; shown as `m1`.
    MessageId(u64), "m", "message id"
}
number_id! {
    /// One question of an agent to the operator, unique in the batch, from 1; shown as `q1`.
    QuestionId(u64), "q", "question id"
}
