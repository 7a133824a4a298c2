//! What follows the end of a supervisor: a table over how it ended, and a count of starts.

use std::collections::VecDeque;
use std::time::Duration;

use supervisor_core::identity::Exit;
use supervisor_core::time::Boot;

/// Starts again within [`WINDOW`]; at the next death the guardian gives up. A supervisor that dies
/// six times in ten minutes dies of something that a seventh start does not mend.
pub const RESTARTS_MAX: usize = 5;
/// The time in which they count.
pub const WINDOW: Duration = Duration::from_mins(10);
/// Wait before the first of them; each further one waits three times as long (100 ms to 8.1 s, in
/// all 12 s), so that a passing want of memory has time to pass.
pub const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_FACTOR: u32 = 3;

/// Exit status of a supervisor that met a fault of its own.
const FAULT: i32 = 70;

/// How a supervisor's end is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It ended by itself; its status goes on to whoever started us.
    Ended(u8),
    /// It was asked to end and did not come to say so; the batch can be gone on with.
    Stopped,
    /// It died, and nobody asked for that.
    Died,
}

/// Reads an end. `asked`: somebody asked it to end before it did.
pub fn read(exit: Exit, asked: bool) -> Death {
    match exit {
        Exit::Code(FAULT) if !asked => Death::Died,
        Exit::Code(code) => Death::Ended(u8::try_from(code).unwrap_or(u8::MAX)),
        Exit::Signal(signal) if asked || is_request(signal) => Death::Stopped,
        Exit::Signal(_) | Exit::Unseen => Death::Died,
    }
}

/// Signals by which an operator, a terminal or a service manager asks for an end. A supervisor dies
/// of one only before it listens.
fn is_request(signal: i32) -> bool {
    super::signals::HEARD
        .iter()
        .any(|&heard| heard as i32 == signal)
}

/// The starts of late.
#[derive(Debug, Default)]
pub struct Restarts {
    /// When; at most [`RESTARTS_MAX`].
    starts: VecDeque<Boot>,
}

impl Restarts {
    /// How long to wait before the next start; `None`: there were too many. Call once a death.
    pub fn next(&mut self, now: Boot) -> Option<Duration> {
        let since = now.0.saturating_sub(WINDOW.as_millis() as u64);
        while self.starts.pop_front_if(|start| start.0 < since).is_some() {}
        let before = self.starts.len();
        if before >= RESTARTS_MAX {
            return None;
        }
        self.starts.push_back(now);
        // At most 3^4: far from the end of the number.
        Some(BACKOFF * BACKOFF_FACTOR.pow(u32::try_from(before).unwrap_or(0)))
    }

    /// How many starts of late, this one included.
    pub fn count(&self) -> usize {
        self.starts.len()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn a_death_that_nobody_asked_for_is_followed_by_a_start() {
        for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT] {
            let exit = Exit::Signal(signal as i32);
            assert_eq!(read(exit, false), Death::Died, "{signal}");
        }
        assert_eq!(read(Exit::Code(70), false), Death::Died);
        assert_eq!(read(Exit::Unseen, false), Death::Died);
    }

    #[test]
    fn an_end_that_was_asked_for_is_never_followed_by_a_start() {
        for signal in Signal::iterator() {
            let exit = Exit::Signal(signal as i32);
            assert_eq!(read(exit, true), Death::Stopped, "{signal}");
        }
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let exit = Exit::Signal(signal as i32);
            assert_eq!(read(exit, false), Death::Stopped, "{signal}");
        }
        assert_eq!(read(Exit::Code(70), true), Death::Ended(70));
    }

    #[test]
    fn every_other_status_is_handed_on() {
        for code in (0..=255_u8).filter(|&code| code != 70) {
            for asked in [false, true] {
                let exit = Exit::Code(i32::from(code));
                assert_eq!(read(exit, asked), Death::Ended(code));
            }
        }
    }

    #[test]
    fn the_sixth_death_in_ten_minutes_is_the_last() {
        let mut restarts = Restarts::default();
        let waits: Vec<u128> = (0..5)
            .map(|death| restarts.next(Boot(1_000 + death)).unwrap().as_millis())
            .collect();
        assert_eq!(waits, [100, 300, 900, 2_700, 8_100]);
        assert_eq!(restarts.next(Boot(601_000)), None, "the first still counts");
        assert_eq!(restarts.count(), RESTARTS_MAX);
    }

    #[test]
    fn deaths_that_are_long_past_do_not_count() {
        let mut restarts = Restarts::default();
        for death in 0..100 {
            let now = Boot(death * 600_001);
            assert_eq!(restarts.next(now), Some(BACKOFF), "death {death}");
            assert_eq!(restarts.count(), 1);
        }
    }
}
