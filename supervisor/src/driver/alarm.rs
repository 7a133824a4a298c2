//! Wakes the loop at the core's next deadline, on the clock that the deadline names.
//!
//! Kernel timers, because the timers of the event loop count on a clock that stands still while the
//! machine is suspended and know nothing of changes of the date.

use std::io;
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use supervisor_core::core::NextDeadline;
#[cfg(target_os = "macos")]
use supervisor_core::time::BootId;
use tokio::io::unix::AsyncFd;

#[cfg(target_os = "macos")]
use crate::driver::clock::Clock;
#[cfg(target_os = "macos")]
use crate::process::macos::{Count, set_timer, take_fired, timer};
use crate::process::pidfd::watch;

/// One timer for each clock.
#[derive(Debug)]
pub struct Alarm {
    boot: Timer,
    wall: Timer,
}

impl Alarm {
    /// Two timers, neither set.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Alarm> {
        Ok(Alarm {
            boot: Timer::boot()?,
            wall: Timer::wall()?,
        })
    }

    /// Wakes at this deadline, or earlier: a timer is set anew only when it would be late, so that
    /// a stream of inputs, each moving the deadline out, costs nothing.
    ///
    /// # Errors
    /// When the kernel refuses, which it does for no point in time.
    pub fn set(&mut self, next: NextDeadline) -> io::Result<()> {
        if let Some(boot) = next.boot {
            self.boot.no_later_than(boot.0)?;
        }
        if let Some(wall) = next.wall {
            self.wall
                .no_later_than(u64::try_from(wall.0).unwrap_or(0))?;
        }
        Ok(())
    }

    /// Waits until a timer fires. Cancel-safe: nothing is taken from a timer before it is returned.
    pub async fn fired(&mut self) {
        let Alarm { boot, wall } = self;
        tokio::select! {
            () = boot.fired() => {} // cancel-safe: waits for readiness only
            () = wall.fired() => {} // cancel-safe: waits for readiness only
        }
    }
}

#[derive(Debug)]
struct Timer {
    fd: AsyncFd<OwnedFd>,
    #[cfg(target_os = "linux")]
    flags: TimerfdTimerFlags,
    #[cfg(target_os = "macos")]
    count: Count,
    /// Set to this many milliseconds of its clock.
    set: Option<u64>,
}

/// A date that is set forward does not wake: the next deadline or input does.
#[cfg(target_os = "macos")]
impl Timer {
    fn boot() -> io::Result<Timer> {
        Self::new(Count::FromNow)
    }

    fn wall() -> io::Result<Timer> {
        Self::new(Count::Date)
    }

    fn new(count: Count) -> io::Result<Timer> {
        Ok(Timer {
            fd: watch(timer()?)?,
            count,
            set: None,
        })
    }

    fn start(&self, millis: u64) -> io::Result<()> {
        let at = match self.count {
            Count::FromNow => millis.saturating_sub(Clock::new(BootId::default()).now().boot.0),
            Count::Date => millis,
        };
        set_timer(&self.fd, self.count, at.saturating_mul(1000))
    }

    fn take(&self) -> io::Result<()> {
        take_fired(&self.fd)
    }
}

#[cfg(target_os = "linux")]
impl Timer {
    fn boot() -> io::Result<Timer> {
        Self::new(TimerfdClockId::Boottime, TimerfdTimerFlags::ABSTIME)
    }

    /// A change of the date wakes too: it may have jumped over the deadline.
    fn wall() -> io::Result<Timer> {
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        Self::new(TimerfdClockId::Realtime, flags)
    }

    fn new(clock: TimerfdClockId, flags: TimerfdTimerFlags) -> io::Result<Timer> {
        let fd = timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Timer {
            fd: watch(fd)?,
            flags,
            set: None,
        })
    }

    fn start(&self, millis: u64) -> io::Result<()> {
        let at = millis.max(1); // zero would unset the timer
        let value = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(at / 1000).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(at % 1000 * 1_000_000).unwrap_or(0),
            },
        };
        match timerfd_settime(&self.fd, self.flags, &value) {
            // The date was changed since the timer was last read; the new value is in force.
            Ok(_) | Err(rustix::io::Errno::CANCELED) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }

    fn take(&self) -> io::Result<()> {
        rustix::io::read(&self.fd, &mut [0_u8; 8][..])?;
        Ok(())
    }
}

impl Timer {
    fn no_later_than(&mut self, millis: u64) -> io::Result<()> {
        if self.set.is_some_and(|set| set <= millis) {
            return Ok(());
        }
        self.start(millis)?;
        self.set = Some(millis);
        Ok(())
    }

    async fn fired(&mut self) {
        let Ok(mut ready) = self.fd.readable().await else {
            // Only a loop that is shutting down refuses to watch; it waits for nobody.
            return std::future::pending().await;
        };
        // Fired, cancelled by a change of the date, or (raced) neither: a tick is never wrong.
        if let Err(error) = self.take() {
            tracing::trace!(%error, "timer was not read");
        }
        ready.clear_ready();
        self.set = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::clock::Clock;
    use supervisor_core::time::{Boot, BootId, Wall};

    #[tokio::test]
    async fn each_clock_wakes_at_its_deadline_and_not_before() {
        let clock = Clock::new(BootId(1));
        let mut alarm = Alarm::new().unwrap();
        let start = clock.now();
        let boot = Boot(start.boot.0 + 20);
        alarm
            .set(NextDeadline {
                boot: Some(boot),
                wall: None,
            })
            .unwrap();
        alarm.fired().await;
        assert!(clock.now().boot >= boot);
        let wall = Wall(clock.now().wall.0 + 20);
        alarm
            .set(NextDeadline {
                boot: None,
                wall: Some(wall),
            })
            .unwrap();
        alarm.fired().await;
        assert!(clock.now().wall >= wall);
    }

    #[tokio::test]
    async fn an_earlier_deadline_moves_the_timer_and_a_later_one_does_not() {
        let clock = Clock::new(BootId(1));
        let mut alarm = Alarm::new().unwrap();
        let far = clock.now().boot.0 + 3_600_000;
        let near = clock.now().boot.0 + 10;
        for boot in [far, near, far] {
            alarm
                .set(NextDeadline {
                    boot: Some(Boot(boot)),
                    wall: None,
                })
                .unwrap();
        }
        alarm.fired().await;
        assert!(clock.now().boot.0 < far);
    }
}
