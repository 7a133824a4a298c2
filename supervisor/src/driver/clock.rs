//! The only file that reads clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};
use supervisor_core::time::{Boot, BootId, Now, Wall};

/// The clock that counts suspended time too. That of macOS does under the name of the one that does
/// not elsewhere.
#[cfg(target_os = "linux")]
const BOOT: ClockId = ClockId::Boottime;
#[cfg(target_os = "macos")]
const BOOT: ClockId = ClockId::Monotonic;

/// The clocks of this boot.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    boot_id: BootId,
}

impl Clock {
    /// The clocks of the boot with this id.
    pub fn new(boot_id: BootId) -> Clock {
        Clock { boot_id }
    }

    /// The present moment, on both clocks.
    pub fn now(&self) -> Now {
        Now {
            wall: Wall(millis(clock_gettime(ClockId::Realtime))),
            boot: Boot(u64::try_from(millis(clock_gettime(BOOT))).unwrap_or(0)),
            boot_id: self.boot_id,
        }
    }
}

fn millis(time: Timespec) -> i64 {
    time.tv_sec
        .saturating_mul(1000)
        .saturating_add(time.tv_nsec / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_clock_stands_at_zero_and_boot_never_goes_back() {
        let clock = Clock::new(BootId(7));
        let (first, second) = (clock.now(), clock.now());
        assert!(first.wall > Wall(1_700_000_000_000));
        assert!(first.boot > Boot(0) && second.boot >= first.boot);
        assert_eq!(first.boot_id, BootId(7));
    }
}
