//! May it run again, how, and after how long: the class table of the manual, pure.

use std::time::Duration;

use protocol::class::Class;

use crate::plan::{RetryMode, RetryPolicy};

/// What a class means for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The work went wrong: counts against the task's attempts.
    Work,
    /// The account must wait; nothing counts.
    Account,
    /// The account waits for the operator; nothing counts.
    AccountStop,
    /// The task waits for the operator; nothing counts.
    Operator,
    /// Our side, a hook or the machine: tried again a bounded number of times, nothing counts.
    OurSide,
    /// The run vanished; nothing counts.
    Lost,
    /// The operator did it; nothing counts.
    Chosen,
}

/// Which group a class belongs to.
pub const fn group(class: Class) -> Group {
    match class {
        Class::AgentFailed
        | Class::Crash
        | Class::Oom
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
        | Class::Overflow => Group::Work,
        Class::UsageLimit | Class::Overload | Class::Network => Group::Account,
        Class::Auth | Class::Billing => Group::AccountStop,
        Class::ModelMissing | Class::Refused => Group::Operator,
        Class::SpawnFailure | Class::SetupFailed | Class::Environment | Class::Disk => {
            Group::OurSide
        }
        Class::Lost => Group::Lost,
        Class::Superseded | Class::Cancelled => Group::Chosen,
    }
}

/// Whether an attempt of this class counts against the task's attempts.
pub fn consumes(class: Class) -> bool {
    let lost = crate::mutation::on(crate::mutation::Mutation::LostConsumesAttempt);
    group(class) == Group::Work || (lost && class == Class::Lost)
}

/// How the next attempt begins where the batch file does not say.
pub const fn default_mode(class: Class) -> RetryMode {
    match class {
        Class::Timeout | Class::Budget => RetryMode::Stop,
        Class::Silence | Class::NoProgress | Class::Overflow | Class::Superseded => {
            RetryMode::NewSession
        }
        Class::AgentFailed
        | Class::Crash
        | Class::Oom
        | Class::Protocol
        | Class::NoResult
        | Class::Leftover
        | Class::VerifyFailed
        | Class::NoChange
        | Class::Rejected
        | Class::UsageLimit
        | Class::Overload
        | Class::Network
        | Class::Auth
        | Class::Billing
        | Class::ModelMissing
        | Class::Refused
        | Class::SpawnFailure
        | Class::SetupFailed
        | Class::Environment
        | Class::Disk
        | Class::Lost
        | Class::Cancelled => RetryMode::Resume,
    }
}

/// The mode for a class under a policy. Crashes and their like resume once and then, from the
/// second consumed attempt on, begin a new session: a poisoned session would fail for ever.
pub fn mode(policy: &RetryPolicy, class: Class, consumed: u32) -> RetryMode {
    if let Some(mode) = policy.by_class.get(&class) {
        return *mode;
    }
    let poisoned = matches!(
        class,
        Class::Crash | Class::Oom | Class::Protocol | Class::NoResult | Class::Leftover
    );
    if poisoned && consumed >= 2 {
        RetryMode::NewSession
    } else {
        default_mode(class)
    }
}

/// Retries of [`Group::OurSide`] in a row before the task fails: with the default backoff about
/// twenty minutes, long enough for a file system to come back, short enough to be seen.
pub const FREE_RETRIES_MAX: u32 = 6;

/// First wait of an account whose service names no reset time; doubles up to
/// [`ACCOUNT_WAIT_MAX`].
pub const ACCOUNT_WAIT_MIN: Duration = Duration::from_secs(60);
/// Longest wait between two probes of a limited account.
pub const ACCOUNT_WAIT_MAX: Duration = Duration::from_secs(30 * 60);

/// The wait before the `nth` retry (from 1): doubling from `min` to `max`, plus or minus a quarter,
/// the same for the same seed.
pub fn backoff(min: Duration, max: Duration, nth: u32, seed: u64) -> Duration {
    let doubled = min.saturating_mul(1u32.checked_shl(nth.saturating_sub(1)).unwrap_or(u32::MAX));
    let base = doubled.min(max);
    let quarter = base / 4;
    let spread = u64::try_from(quarter.as_millis())
        .unwrap_or(u64::MAX)
        .saturating_mul(2);
    let offset = if spread == 0 {
        0
    } else {
        mix(seed) % (spread + 1)
    };
    (base - quarter + Duration::from_millis(offset)).min(max)
}

/// Spreads a number over all 64 bits (the finaliser of splitmix64).
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
