//! The only file of this program that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for deadlines: it stands still while the machine is suspended, so that a suspend fires
/// nothing.
pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the clock file")]
    Instant::now()
}

/// Now, for people: milliseconds since the Unix epoch; 0 on a machine that is set before it.
pub(crate) fn wall_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the clock file")]
    let now = SystemTime::now();
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `start` plus a length that came over the pipe: a length beyond what the clock can hold counts
/// as a century.
pub(crate) fn after(start: Instant, milliseconds: u64) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    start + Duration::from_millis(milliseconds).min(CENTURY)
}
