//! Time as the core knows it: always an argument, never read.

use std::time::Duration;

/// Wall time: milliseconds since the Unix epoch. May jump either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

/// Milliseconds since the machine started, suspended time included (`CLOCK_BOOTTIME`). Never jumps
/// while one boot lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Boot(pub u64);

/// One boot of one machine (the kernel's boot id as a number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootId(pub u128);

/// The moment of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// By the wall clock.
    pub wall: Wall,
    /// By the boot-time clock.
    pub boot: Boot,
    /// Which boot `boot` counts from.
    pub boot_id: BootId,
}

/// A point in time, on the clock that suits what it bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deadline {
    /// For lengths (timeouts, backoff, grace): moved when the supervisor itself was away.
    Boot(Boot),
    /// For dates that a person or a service named.
    Wall(Wall),
}

impl Deadline {
    /// Whether it has come.
    pub fn is_due(self, now: Now) -> bool {
        match self {
            Deadline::Boot(at) => at <= now.boot,
            Deadline::Wall(at) => at <= now.wall,
        }
    }

    /// The deadline as wall time, for people.
    pub fn shown(self, now: Now) -> Wall {
        match self {
            Deadline::Wall(at) => at,
            Deadline::Boot(at) => {
                let ahead = i128::from(at.0) - i128::from(now.boot.0);
                Wall(
                    now.wall
                        .0
                        .saturating_add(i64::try_from(ahead).unwrap_or(i64::MAX)),
                )
            }
        }
    }
}

/// A length in whole milliseconds, saturating.
pub fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

impl std::ops::Add<Duration> for Boot {
    type Output = Boot;
    fn add(self, length: Duration) -> Boot {
        Boot(self.0.saturating_add(millis(length)))
    }
}

impl std::ops::Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, length: Duration) -> Wall {
        Wall(
            self.0
                .saturating_add(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}
