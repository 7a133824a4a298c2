//! Why an attempt did not end well: the closed list that retry policy, status and scripts share.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// The class of an attempt that did not end `done`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum Class {
            $($(#[$doc])* $name,)+
        }
        impl Class {
            /// Every class, in the order of the manual.
            pub const ALL: &'static [Class] = &[$(Class::$name),+];

            /// The word used in status, journal and batch files.
            pub fn word(self) -> &'static str {
                match self {
                    $(Class::$name => $word,)+
                }
            }
        }
    };
}

classes! {
    /// The agent says that it failed, or a command exited with another status than 0.
    AgentFailed = "agent_failed",
    /// The agent's program died by a signal, or the host did.
    Crash = "crash",
    /// The kernel ended it for want of memory.
    Oom = "oom",
    /// The host broke the wire: garbage beyond the limit, a line over the limit, wrong order.
    Protocol = "protocol",
    /// It ended without handing over a result.
    NoResult = "no_result",
    /// The turn ended, but processes of the family were left.
    Leftover = "leftover",
    /// No sign of life for as long as `silence` says.
    Silence = "silence",
    /// Alive, but nothing new for as long as `no_progress` says.
    NoProgress = "no_progress",
    /// Over the attempt's wall time.
    Timeout = "timeout",
    /// Over a limit of the task.
    Budget = "budget",
    /// The proof of done failed.
    VerifyFailed = "verify_failed",
    /// Changes were expected and there are none.
    NoChange = "no_change",
    /// A review rejected the work.
    Rejected = "rejected",
    /// The context is full and the agent can not compact it.
    Overflow = "overflow",
    /// The account's usage limit; a reset time may be known.
    UsageLimit = "usage_limit",
    /// The service is overloaded.
    Overload = "overload",
    /// The service could not be reached.
    Network = "network",
    /// The account is not logged in, or its key is refused.
    Auth = "auth",
    /// The account has no credit.
    Billing = "billing",
    /// The model does not exist for this account.
    ModelMissing = "model_missing",
    /// The service refuses the request itself.
    Refused = "refused",
    /// The host could not be started or did not shake hands.
    SpawnFailure = "spawn_failure",
    /// A hook or the preparation of the run failed.
    SetupFailed = "setup_failed",
    /// Something outside is missing: a program, a directory, a permission.
    Environment = "environment",
    /// The disk is full or can not be written.
    Disk = "disk",
    /// Neither a live host nor a durable result: supervisor, host or machine died.
    Lost = "lost",
    /// Replaced by a restart that a message asked for.
    Superseded = "superseded",
    /// The operator ended it.
    Cancelled = "cancelled",
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an outcome class")]
pub struct UnknownClass(pub String);

impl std::str::FromStr for Class {
    type Err = UnknownClass;
    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        let found = Class::ALL
            .iter()
            .copied()
            .find(|class| class.word() == text);
        found.ok_or_else(|| UnknownClass(text.chars().take(80).collect()))
    }
}
