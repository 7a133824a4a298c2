//! All durable deadlines in one table of named timers; the loop asks only for the next one.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::{Generation, MessageId, QuestionId};

use crate::plan::{AccountIx, TaskIx};
use crate::time::{Boot, Deadline, Now, Wall};

/// What a deadline belongs to. The order is the order in which timers that are due together fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The grace of a stopping run is over.
    Grace(Generation),
    /// The wall limit of a task's attempt.
    Attempt(TaskIx),
    /// A question's deadline.
    Question(QuestionId),
    /// A message's expiry.
    Message(MessageId),
    /// An account's reset.
    Account(AccountIx),
    /// A task's backoff or date.
    Task(TaskIx),
    /// The next try to post a comment of a task.
    Comment(TaskIx),
    /// The batch's first date.
    NotBefore,
    /// The batch's last date.
    Until,
    /// The batch's wall limit.
    BatchWall,
}

/// The table. Arming a timer again moves it; firing removes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timers {
    armed: BTreeMap<Timer, Deadline>,
    boot: BTreeSet<(Boot, Timer)>,
    wall: BTreeSet<(Wall, Timer)>,
}

impl Timers {
    /// Sets the timer's deadline, or takes it away.
    pub fn arm(&mut self, timer: Timer, deadline: Option<Deadline>) {
        let before = match deadline {
            Some(deadline) => self.armed.insert(timer, deadline),
            None => self.armed.remove(&timer),
        };
        match before {
            Some(Deadline::Boot(at)) => _ = self.boot.remove(&(at, timer)),
            Some(Deadline::Wall(at)) => _ = self.wall.remove(&(at, timer)),
            None => {}
        }
        match deadline {
            Some(Deadline::Boot(at)) => _ = self.boot.insert((at, timer)),
            Some(Deadline::Wall(at)) => _ = self.wall.insert((at, timer)),
            None => {}
        }
    }

    /// Takes out the earliest timer that is due.
    pub fn pop_due(&mut self, now: Now) -> Option<Timer> {
        let boot = self
            .boot
            .first()
            .filter(|(at, _)| *at <= now.boot)
            .map(|(_, timer)| *timer);
        let wall = self
            .wall
            .first()
            .filter(|(at, _)| *at <= now.wall)
            .map(|(_, timer)| *timer);
        let timer = boot.or(wall)?;
        self.arm(timer, None);
        Some(timer)
    }

    /// The earliest deadline on each clock.
    pub fn next(&self) -> (Option<Boot>, Option<Wall>) {
        (
            self.boot.first().map(|(at, _)| *at),
            self.wall.first().map(|(at, _)| *at),
        )
    }

    /// Every armed timer on the boot clock, earliest first.
    pub fn on_boot(&self) -> impl Iterator<Item = (Boot, Timer)> + '_ {
        self.boot.iter().copied()
    }

    /// Whether any timer is armed that lets tasks move again by time alone.
    pub fn moves_tasks(&self) -> bool {
        let tasks = Timer::Task(TaskIx(0))..=Timer::Task(TaskIx(u32::MAX));
        let accounts = Timer::Account(AccountIx(0))..=Timer::Account(AccountIx(u32::MAX));
        self.armed.range(tasks).next().is_some()
            || self.armed.range(accounts).next().is_some()
            || self.armed.contains_key(&Timer::NotBefore)
    }
}
