//! Virtual time. The story's own time runs only while the machine is on and awake; the clocks that
//! the supervisor sees are made from it.

use std::time::Duration;

use supervisor_core::core::NextDeadline;
use supervisor_core::time::{Boot, BootId, Now, Wall};

/// When every story begins, by the wall clock: 2026-01-01.
const WALL_START: i64 = 1_767_225_600_000;

/// The clocks of the simulated machine.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    /// Milliseconds awake since the story began.
    pub(super) awake: u64,
    /// Milliseconds asleep or without power since the story began.
    away: u64,
    /// `awake + away` when the machine was switched on.
    on_at: u64,
    /// How far the wall clock was put forward (or back).
    jumped: i64,
    boot_id: u128,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock {
            awake: 0,
            away: 0,
            on_at: 0,
            jumped: 0,
            boot_id: 1,
        }
    }

    fn real(&self) -> u64 {
        self.awake + self.away
    }

    /// What the supervisor reads.
    pub(super) fn now(&self) -> Now {
        let real = i64::try_from(self.real()).unwrap_or(i64::MAX);
        Now {
            wall: Wall(WALL_START + real + self.jumped),
            boot: Boot(self.real() - self.on_at + 5_000),
            boot_id: BootId(self.boot_id),
        }
    }

    /// Time goes on, awake.
    pub(super) fn pass_to(&mut self, awake: u64) {
        self.awake = self.awake.max(awake);
    }

    /// The machine sleeps.
    pub(super) fn sleep(&mut self, length: Duration) {
        self.away += u64::try_from(length.as_millis()).unwrap_or(0);
    }

    /// The machine is off for a while and starts again.
    pub(super) fn reboot(&mut self, off: Duration) {
        self.sleep(off);
        self.on_at = self.real();
        self.boot_id += 1;
    }

    /// The date is changed.
    pub(super) fn jump(&mut self, by: i64) {
        self.jumped += by;
    }

    /// When, in the story's time, the next deadline comes if nothing changes the clocks.
    pub(super) fn due(&self, next: NextDeadline) -> Option<u64> {
        let now = self.now();
        let boot = next.boot.map(|at| at.0.saturating_sub(now.boot.0));
        let wall = next
            .wall
            .map(|at| u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0));
        let wait = [boot, wall].into_iter().flatten().min()?;
        Some(self.awake.saturating_add(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_moves_both_clocks_and_not_the_story_and_a_jump_moves_the_date_alone() {
        let mut clock = Clock::new();
        let before = clock.now();
        clock.sleep(Duration::from_secs(60));
        let slept = clock.now();
        assert_eq!(
            (slept.boot.0 - before.boot.0, slept.wall.0 - before.wall.0),
            (60_000, 60_000)
        );
        assert_eq!(clock.awake, 0);
        clock.jump(-90_000);
        assert_eq!(clock.now().boot, slept.boot);
        assert_eq!(clock.now().wall.0, slept.wall.0 - 90_000);
        clock.reboot(Duration::from_secs(1));
        assert!(clock.now().boot < slept.boot);
        assert_ne!(clock.now().boot_id, slept.boot_id);
        let next = NextDeadline {
            boot: Some(Boot(0)),
            wall: None,
        };
        assert_eq!(clock.due(next), Some(0), "what is over is due now");
    }
}
