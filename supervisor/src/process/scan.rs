//! One look at every process: which of them are of given runs, and what proves it.
//!
//! Raw reads of what is asked for and nothing else: the limit and the session are one system call
//! each, the environment one small file. A full refresh of what is known of all processes costs
//! several times as much.

use std::collections::HashMap;
#[cfg(target_os = "linux")]
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use supervisor_core::containment::Layer;
use supervisor_core::identity::Identity;

use crate::process::identity::{Machine, session_of, start_ticks};
#[cfg(target_os = "macos")]
pub use crate::process::macos::{all_pids, environ_of, hard_limit_of};
#[cfg(target_os = "linux")]
use crate::process::procfs;
use crate::process::recorded::{Proven, Refused};
use crate::process::{pidfd, tag};

/// Most bytes read of one environment: what the kernel allows a process to be started with.
#[cfg(target_os = "linux")]
const ENVIRON_MAX: usize = 2 * 1024 * 1024;
/// Most bytes read of `limits`: sixteen short lines.
#[cfg(target_os = "linux")]
const LIMITS_MAX: usize = 16 * 1024;

/// What the processes of one run are known by.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Its spawn token, of which both tags are made.
    pub token: u128,
    /// Its host, where it was recorded; the host's session is searched as well.
    pub host: Option<Identity>,
    /// Until when the host is known to have lived, clock ticks since boot: a member of its session
    /// that was there before is its descendant, a later one may be a stranger whose session has
    /// got the same number.
    pub host_lived_until: u64,
}

impl Trace {
    /// A run of which nothing but its token is known.
    pub fn of_token(token: u128) -> Trace {
        Trace {
            token,
            host: None,
            host_lived_until: 0,
        }
    }
}

/// The runs that are looked for.
#[derive(Debug, Default)]
pub struct Traces {
    all: Vec<Trace>,
    by_token: HashMap<u128, usize>,
    by_key: HashMap<u64, Vec<usize>>,
    by_session: HashMap<u32, usize>,
}

impl Traces {
    /// Prepares the search. A token of zeros is no token: it is what a damaged or empty one would
    /// be, and nothing is ever looked for by it.
    pub fn new(all: Vec<Trace>) -> Traces {
        let mut traces = Traces::default();
        for (ix, trace) in all.iter().enumerate() {
            if trace.token != 0 {
                traces.by_token.insert(trace.token, ix);
                let key = tag::key_of(trace.token);
                traces.by_key.entry(key).or_default().push(ix);
            }
            if let Some(session) = trace.host.as_ref().and_then(led_by) {
                traces.by_session.insert(session, ix);
            }
        }
        traces.all = all;
        traces
    }

    /// The runs, in the order in which they were given.
    pub fn all(&self) -> &[Trace] {
        &self.all
    }

    /// Which run's tags a process carries, and in which of the two.
    pub fn tagged(&self, pid: u32) -> Option<(usize, Layer)> {
        match self.tags_of(pid) {
            Tags::OfRun(run, layer) => Some((run, layer)),
            Tags::Unknown(_) | Tags::None => None,
        }
    }

    fn tags_of(&self, pid: u32) -> Tags {
        if let Some(run) = self.of_limit(hard_limit_of(pid)) {
            return Tags::OfRun(run, Layer::LimitTag);
        }
        match token_of(pid) {
            None => Tags::None,
            Some(token) => match self.by_token.get(&token) {
                Some(&run) => Tags::OfRun(run, Layer::EnvTag),
                None => Tags::Unknown(token),
            },
        }
    }

    fn of_limit(&self, limit: Option<u64>) -> Option<usize> {
        let limit = limit?;
        let runs = self.by_key.get(&tag::key_in(limit)?)?;
        let ours = |&&run: &&usize| tag::stands_for(limit, self.all[run].token);
        runs.iter().find(ours).copied()
    }
}

/// What the tags of a process say.
#[derive(Debug, Clone, Copy)]
enum Tags {
    /// It is of a run that is looked for, and which of the two says so.
    OfRun(usize, Layer),
    /// It carries a token of no such run.
    Unknown(u128),
    /// It has none.
    None,
}

/// A living process that is proven to be of a run, pinned before it was judged for good.
#[derive(Debug)]
pub struct Found {
    /// Its number.
    pub pid: u32,
    /// Its pin.
    pub pidfd: OwnedFd,
    /// Its run: a place in the list that was looked for.
    pub run: usize,
    /// What proves it: a tag, the recorded identity, or a session of the run.
    pub why: Layer,
    /// Clock ticks since boot at its start.
    pub start_ticks: u64,
}

/// What one look shows.
#[derive(Debug, Default)]
pub struct Look {
    /// Proven to be of a run, and alive.
    pub found: Vec<Found>,
    /// In a session with the number of a run's, but not proven to be of it: run and pid.
    pub doubtful: Vec<(usize, u32)>,
    /// Carry a token of no run that is looked for: pid and token. Nothing more is known of them.
    pub unknown: Vec<(u32, u128)>,
}

/// The token in the environment of a process; `None` when it has none, is gone, or is another
/// user's.
pub fn token_of(pid: u32) -> Option<u128> {
    tag::token_in(&environ_of(pid).ok()?)
}

/// The environment that a process was started with, each variable ended by a zero byte.
///
/// # Errors
/// When the process is gone or another user's. One that ends while it is read gives what was read
/// so far.
#[cfg(target_os = "linux")]
pub fn environ_of(pid: u32) -> io::Result<Vec<u8>> {
    procfs::read(format!("/proc/{pid}/environ"), ENVIRON_MAX)
}

/// The hard limit of file locks of a process; `None` when it is unlimited or can not be read.
#[cfg(target_os = "linux")]
pub fn hard_limit_of(pid: u32) -> Option<u64> {
    use nix::libc;
    let number = i32::try_from(pid).ok()?;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: no new limit is given, and the old one is written to a structure of ours.
    let asked =
        unsafe { libc::prlimit(number, libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut limit) };
    if asked == 0 {
        return (limit.rlim_max != libc::RLIM_INFINITY).then_some(limit.rlim_max);
    }
    // Another user's: everybody may read the file.
    let text = procfs::read(format!("/proc/{pid}/limits"), LIMITS_MAX).ok()?;
    hard_limit_in(std::str::from_utf8(&text).ok()?)
}

#[cfg(target_os = "linux")]
fn hard_limit_in(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The numbers of all processes but ourselves.
///
/// # Errors
/// When procfs can not be listed.
#[cfg(target_os = "linux")]
pub fn all_pids() -> io::Result<Vec<u32>> {
    let ours = std::process::id();
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        pids.extend(pid.filter(|&pid| pid != ours));
    }
    Ok(pids)
}

/// Looks at every process once. Exits that nobody has collected are no life.
///
/// # Errors
/// When procfs can not be listed; single processes that can not be read are passed over.
pub fn look(machine: &Machine, traces: &Traces) -> io::Result<Look> {
    if traces.all.is_empty() {
        return Ok(Look::default());
    }
    look_at_all(machine, traces)
}

/// As [`look`], also when no run is looked for: what carries an unknown token is seen.
///
/// # Errors
/// As [`look`].
pub fn look_at_all(machine: &Machine, traces: &Traces) -> io::Result<Look> {
    let mut look = Look::default();
    let mut others = Vec::new();
    for pid in all_pids()? {
        let tags = traces.tags_of(pid);
        if let Tags::OfRun(..) = tags {
            look.found.extend(pin(pid, |pid| traces.tagged(pid)));
            continue;
        }
        if let Tags::Unknown(token) = tags {
            look.unknown.push((pid, token));
        }
        others.extend(session_of(pid).map(|session| (pid, session)));
    }
    add_hosts(machine, traces, &mut look);
    let sessions = sessions(machine, traces, &look.found);
    for (pid, session) in others {
        let known = sessions.get(&session).copied();
        let Some(run) = known.or_else(|| traces.by_session.get(&session).copied()) else {
            continue;
        };
        let seen = look.found.iter().any(|found| found.pid == pid);
        if seen || known.is_none() && is_led_by_another(machine, &traces.all[run]) {
            continue;
        }
        let in_session = |pid| (session_of(pid) == Some(session)).then_some((run, Layer::Session));
        let Some(found) = pin(pid, in_session) else {
            continue;
        };
        if known.is_some() || found.start_ticks <= traces.all[run].host_lived_until {
            look.found.push(found);
        } else {
            look.doubtful.push((run, pid));
        }
    }
    Ok(look)
}

/// Whether the number of a host's session is by now that of a living stranger, who leads another one.
/// The whole identity is compared: two processes may begin in one tick.
fn is_led_by_another(machine: &Machine, trace: &Trace) -> bool {
    let found = trace.host.as_ref().map(|host| Proven::find(machine, host));
    matches!(found, Some(Err(Refused::Differs { .. })))
}

/// Pins a process and judges it again: what is judged is what a signal reaches.
pub(super) fn pin(pid: u32, judge: impl Fn(u32) -> Option<(usize, Layer)>) -> Option<Found> {
    let pidfd = pidfd::open(pid).ok()?;
    let (run, why) = judge(pid)?;
    let start_ticks = start_ticks(pid).ok()?;
    let lives = !pidfd::has_ended(&pidfd).ok()?;
    lives.then_some(Found {
        pid,
        pidfd,
        run,
        why,
        start_ticks,
    })
}

/// Recorded hosts that carry no tag (any more).
fn add_hosts(machine: &Machine, traces: &Traces, look: &mut Look) {
    for (run, trace) in traces.all.iter().enumerate() {
        let Some(host) = &trace.host else { continue };
        if look.found.iter().any(|found| found.pid == host.pid) {
            continue;
        }
        if let Ok(proven) = Proven::find(machine, host) {
            look.found.push(Found {
                pid: host.pid,
                pidfd: proven.into_pidfd(),
                run,
                why: Layer::Registry,
                start_ticks: host.start_ticks,
            });
        }
    }
}

/// The sessions in which a living process of a run is: all their members are of that run. Not our
/// own, which a host is in until it has made its own.
fn sessions(machine: &Machine, traces: &Traces, found: &[Found]) -> HashMap<u32, usize> {
    let ours = session_of(std::process::id());
    let mut sessions = HashMap::new();
    for one in found {
        let Some(session) = session_of(one.pid).filter(|&it| it > 1 && Some(it) != ours) else {
            continue;
        };
        if is_born_below(machine, traces, one, session) {
            sessions.insert(session, one.run);
        }
    }
    sessions
}

/// The session that a host leads: it has the host's number. Any other one that is recorded of it is
/// that of whoever started it.
fn led_by(host: &Identity) -> Option<u32> {
    host.session
        .filter(|&session| session == host.pid && session > 1)
}

/// Whether a session that a process of a run is in was made by that run, and not by whoever started
/// its host: then it and its groups hold descendants of the run only.
///
/// A host makes its session before it starts anything. So it is the host's own, or that of a
/// descendant of the host, which the limit proves: an environment may be copied by hand, a hard
/// limit that nobody else has may not.
pub(super) fn is_born_below(
    machine: &Machine,
    traces: &Traces,
    member: &Found,
    session: u32,
) -> bool {
    let Some(host) = &traces.all[member.run].host else {
        return false;
    };
    let of_host = led_by(host) == Some(session);
    let proven = match member.why {
        Layer::LimitTag => of_host || member.pid != host.pid,
        Layer::EnvTag | Layer::Registry => of_host,
        Layer::Session | Layer::Subreaper | Layer::Cgroup | Layer::Pidns | Layer::HostEof => {
            of_host && Proven::find(machine, host).is_ok()
        }
    };
    // Its session was read by its number: it must still have been its own.
    proven && !pidfd::has_ended(&member.pidfd).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_there_has_no_tag() {
        assert_eq!(token_of(u32::MAX), None);
        assert_eq!(hard_limit_of(u32::MAX), None);
        assert!(pin(u32::MAX, |_| Some((0, Layer::EnvTag))).is_none());
    }

    #[test]
    fn the_hard_limit_is_the_second_number_of_its_line() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max file size             unlimited            unlimited            bytes\n\
            Max file locks            12                   4611686018427387904  locks\n";
        assert_eq!(hard_limit_in(limits), Some(1 << 62));
        let none = "Max file locks            12                   unlimited            locks\n";
        assert_eq!(hard_limit_in(none), None);
        assert_eq!(hard_limit_in(""), None);
    }

    #[test]
    fn nothing_is_looked_for_by_an_empty_token() {
        let machine = Machine::here().unwrap();
        let traces = Traces::new(vec![Trace::of_token(0)]);
        assert!(look(&machine, &traces).unwrap().found.is_empty());
        assert!(traces.by_key.is_empty() && traces.by_token.is_empty());
    }

    #[test]
    fn sessions_that_everybody_is_in_are_no_traces() {
        let machine = Machine::here().unwrap();
        let pid = std::process::id();
        let pinned = pidfd::open(pid).unwrap();
        for session in [0, 1] {
            let mut host = machine.identify(pid, &pinned).unwrap();
            host.session = Some(session);
            let trace = Trace {
                token: 0,
                host: Some(host),
                host_lived_until: u64::MAX,
            };
            assert!(Traces::new(vec![trace]).by_session.is_empty());
        }
    }
}
