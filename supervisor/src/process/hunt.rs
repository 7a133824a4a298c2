//! Ends every process of given runs without any help of their hosts: by tags, sessions and recorded
//! identities, until nothing of them is seen any more.
//!
//! A process that forks and ends all the time is in no list twice under the same number, so a look
//! at all processes can miss it. The number that the kernel gave out last is readable for
//! everybody: between two looks the newest processes are looked at as they appear.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Signal;
use supervisor_core::containment::{Leftover, NAMED_MAX};

use crate::process::identity::{Machine, group_of, session_of};
use crate::process::orphans::signal_group;
use crate::process::scan::{self, Found, Traces};
use crate::process::{pidfd, rest};

/// Looks in a row that must find nothing.
const CLEAN_LOOKS: u32 = 2;
/// Looks until what is left is called unkillable: with the waits below some seconds.
const LOOKS_MAX: u32 = 200;
/// Longest wait for one killed process between two looks.
const DYING_MAX: Duration = Duration::from_millis(10);
/// How often the newest process is asked for between two looks, and the wait before each time:
/// about 3 ms, in which a process that forks as fast as it can does so a dozen times.
const NEWEST_READS: u32 = 60;
const NEWEST_WAIT: Duration = Duration::from_micros(50);
/// Most new processes looked at for one reading; a machine that starts more hides a run among them,
/// and the next look finds it.
const NEWEST_MAX: u32 = 256;
/// Highest process number that Linux gives out (`PID_MAX_LIMIT`).
const PID_MAX: u32 = 4 * 1024 * 1024;

/// What became of one run's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Living processes that were killed.
    pub killed: u32,
    /// Processes that do not die; at most [`NAMED_MAX`] of them.
    pub left: Vec<Leftover>,
    /// Processes that were not touched because nothing proves that they are of the run, though they
    /// are in a session with its number.
    pub doubtful: Vec<u32>,
}

/// Ends the processes of all these runs. Blocks for some milliseconds when nothing is there, and for
/// seconds when something does not die. The answers are in the order of the runs.
///
/// # Errors
/// When the processes of this machine can not be listed.
pub fn end_all(machine: &Machine, traces: &Traces) -> io::Result<Vec<Ended>> {
    let mut hunt = Hunt {
        machine,
        traces,
        killed: vec![BTreeSet::new(); traces.all().len()],
    };
    let mut ended = vec![Ended::default(); traces.all().len()];
    let mut clean = 0;
    for _ in 0..LOOKS_MAX {
        let look = scan::look(machine, traces)?;
        for one in &mut ended {
            (one.left, one.doubtful) = (Vec::new(), Vec::new());
        }
        for (run, pid) in look.doubtful {
            ended[run].doubtful.push(pid);
        }
        clean = if look.found.is_empty() { clean + 1 } else { 0 };
        if clean >= CLEAN_LOOKS {
            break;
        }
        hunt.kill_all(&look.found);
        if hunt.newest() {
            clean = 0;
        }
        note_left(&look.found, &mut ended);
    }
    for (one, killed) in ended.iter_mut().zip(&hunt.killed) {
        one.killed = u32::try_from(killed.len()).unwrap_or(u32::MAX);
    }
    Ok(ended)
}

/// What the last look found is left, unless it has ended since.
fn note_left(found: &[Found], ended: &mut [Ended]) {
    for one in found {
        let left = &mut ended[one.run].left;
        if left.len() < NAMED_MAX && !pidfd::has_ended(&one.pidfd).unwrap_or(false) {
            left.push(Leftover {
                pid: one.pid,
                start_ticks: one.start_ticks,
                why: one.why.word().into(),
            });
        }
    }
}

struct Hunt<'a> {
    machine: &'a Machine,
    traces: &'a Traces,
    killed: Vec<BTreeSet<(u32, u64)>>,
}

impl Hunt<'_> {
    fn kill_all(&mut self, found: &[Found]) {
        for one in found {
            self.kill(one);
        }
        for one in found {
            // What does not end in time is met again by the next look.
            if let Err(error) = pidfd::wait_ended(&one.pidfd, DYING_MAX) {
                tracing::error!(pid = one.pid, %error, "its end can not be waited for");
            }
        }
    }

    /// Its group at once, where that can hold nobody else; then itself.
    fn kill(&mut self, one: &Found) {
        self.killed[one.run].insert((one.pid, one.start_ticks));
        if let Some(session) = session_of(one.pid)
            && scan::is_born_below(self.machine, self.traces, one, session)
        {
            kill_group_of(one);
        }
        if let Err(error) = pidfd::kill(&one.pidfd) {
            tracing::error!(pid = one.pid, %error, "a process of a run can not be killed");
        }
    }

    /// Looks at the newest processes as they appear; whether one of them was of a run.
    fn newest(&mut self) -> bool {
        let Some(mut last) = newest_pid() else {
            return false;
        };
        let mut met = false;
        for _ in 0..NEWEST_READS {
            rest(NEWEST_WAIT);
            let Some(now) = newest_pid() else { break };
            for pid in between(last, now) {
                let traces = self.traces;
                if let Some(found) = scan::pin(pid, |pid| traces.tagged(pid)) {
                    self.kill(&found);
                    met = true;
                }
            }
            last = now;
        }
        met
    }
}

/// Kills the process group of a pinned process that lives in a session of its run: groups never
/// cross sessions, so none but descendants are in it.
fn kill_group_of(one: &Found) {
    let Some(group) = group_of(one.pid) else {
        return;
    };
    if pidfd::has_ended(&one.pidfd).unwrap_or(true) {
        return; // the number was not its any more
    }
    signal_group(group, Signal::KILL);
}

/// The number that the kernel gave out last in our pid namespace; `None` where it does not say.
fn newest_pid() -> Option<u32> {
    let text = fs::read_to_string("/proc/sys/kernel/ns_last_pid").ok()?;
    text.trim().parse().ok()
}

/// The numbers given out after `last` up to `now`; they start again at the bottom.
fn between(last: u32, now: u32) -> impl Iterator<Item = u32> {
    let count = if now >= last {
        now - last
    } else {
        NEWEST_MAX // around the end: where that is does not matter, only the newest do
    };
    let first = now.saturating_sub(count.min(NEWEST_MAX)).saturating_add(1);
    first..=now.min(PID_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_numbers_are_those_after_the_last_look() {
        let numbers = |last, now| between(last, now).collect::<Vec<u32>>();
        assert_eq!(numbers(7, 7), Vec::<u32>::new());
        assert_eq!(numbers(7, 9), [8, 9]);
        assert_eq!(numbers(32_700, 3), [1, 2, 3], "the numbers begin again");
        assert_eq!(numbers(0, 1_000).len(), NEWEST_MAX as usize);
        assert_eq!(numbers(0, 1_000).last(), Some(&1_000));
    }

    #[test]
    fn nothing_to_end_is_nothing_ended() {
        let machine = Machine::here().unwrap();
        assert_eq!(end_all(&machine, &Traces::default()).unwrap(), []);
    }
}
