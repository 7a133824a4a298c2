//! The one place of this package that reads clocks and pauses.
#![expect(
    clippy::disallowed_methods,
    reason = "stories with real processes happen in real time"
)]

use std::time::{Duration, Instant, SystemTime};

/// Nanoseconds since the Unix epoch.
pub fn wall_ns() -> i128 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// Waits.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// A moment after which a wait is given up.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    pub fn after(length: Duration) -> Self {
        Self(Instant::now() + length)
    }

    /// Whether it has come.
    pub fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

/// How long something took.
pub fn timed<T>(act: impl FnOnce() -> T) -> (T, Duration) {
    let since = Instant::now();
    let result = act();
    (result, since.elapsed())
}
