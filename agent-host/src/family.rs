//! What the family of a run uses, and whether that was too much: memory, CPU time, processes.
//!
//! The family is all that the host started, however far down; the host itself is not of it. Where
//! the run's cgroup has a say over memory, three small files tell everything. Elsewhere the
//! processes are read one by one, two files each, at most [`READ_MAX`] of them: about ten
//! milliseconds at the very most, and a tenth of one for the usual agent. It happens with each
//! heartbeat, and with a limit that no cgroup keeps every [`WATCH_MIN`] to [`WATCH_MAX`].

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use protocol::class::Class;
use protocol::command::{Keeper, MemoryLimit, Start};
use protocol::report::{Family, RunResult};
use rustix::process::Pid;

use crate::kernel::{self, Stat};
use crate::run::Failure;

/// Most processes read for one sample; those beyond are counted, not read.
pub(crate) const READ_MAX: usize = 256;
/// Shortest time between two looks at a limit that we keep: while more than half of it is used.
pub(crate) const WATCH_MIN: Duration = Duration::from_secs(1);
/// Longest: what grows from little to too much in this time is noticed that late.
pub(crate) const WATCH_MAX: Duration = Duration::from_secs(5);
/// How a shell says that its last command was ended by SIGKILL.
const KILLED_STATUS: i32 = 128 + 9;

/// Measures one family, and keeps its limit where nobody else does.
pub(crate) struct Gauge {
    /// The run's cgroup, if it has a say over memory.
    cgroup: Option<PathBuf>,
    limit: Option<MemoryLimit>,
    watch: Option<Watch>,
    last: Family,
    /// The processes of the last sample.
    seen: HashSet<Pid>,
    /// Processes of this machine that the kernel had killed for want of memory when the run began.
    kills_before: u64,
    /// We killed the program ourselves, because it took too long.
    killed_by_us: bool,
}

struct Watch {
    due: Instant,
    every: Duration,
}

/// One look at a family.
#[derive(Default)]
struct Look {
    memory_bytes: u64,
    cpu_ms: u64,
    processes: HashSet<Pid>,
    unread: u32,
}

impl Gauge {
    /// A gauge for the run that begins now.
    pub(crate) fn new(start: &Start, now: Instant) -> Self {
        let cgroup = start.cgroup.as_ref().map(PathBuf::from);
        let cgroup = cgroup.filter(|folder| folder.join("memory.current").exists());
        let watched = |limit: &MemoryLimit| limit.keeper == Keeper::Host;
        let watch = start.memory.filter(watched).map(|_| Watch {
            due: now + WATCH_MIN,
            every: WATCH_MIN,
        });
        Self {
            kills_before: match cgroup {
                Some(_) => 0,
                None => kills_of_machine(),
            },
            cgroup,
            limit: start.memory,
            watch,
            last: Family::default(),
            seen: HashSet::new(),
            killed_by_us: false,
        }
    }

    /// What the family uses now.
    pub(crate) fn sample(&mut self) -> Family {
        let look = self.look_at_cgroup().unwrap_or_else(look_at_processes);
        let begun = look.processes.difference(&self.seen).count() as u64;
        let last = &mut self.last;
        last.memory_bytes = look.memory_bytes;
        last.memory_peak_bytes = last.memory_peak_bytes.max(look.memory_bytes);
        last.cpu_ms = look.cpu_ms;
        last.processes = u32::try_from(look.processes.len()).unwrap_or(u32::MAX);
        last.begun += begun;
        last.unread = look.unread;
        self.seen = look.processes;
        *last
    }

    /// What it has used, now that nothing of it lives and all of it was collected.
    pub(crate) fn total(&mut self) -> Family {
        let ended = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
        let largest = ended.as_ref().map_or(0, |usage| kibibytes(usage.max_rss()));
        let peak = self.number_in_cgroup("memory.peak").unwrap_or(largest);
        let last = &mut self.last;
        last.memory_bytes = 0;
        last.memory_peak_bytes = last.memory_peak_bytes.max(peak);
        last.cpu_ms = last.cpu_ms.max(ended.as_ref().map_or(0, cpu_ms));
        last.processes = 0;
        last.unread = 0;
        *last
    }

    /// When the limit that we keep is to be looked at.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.watch.as_ref().map(|watch| watch.due)
    }

    /// Looks at the limit that we keep, if it is time to; the failure of a family that is over it.
    ///
    /// Each process counts the pages that it shares, so before a family is called too large it is
    /// measured exactly, which takes longer.
    pub(crate) fn watch(&mut self, now: Instant) -> Option<Failure> {
        let max = self.limit?.max;
        if now < self.due()? {
            return None;
        }
        let used = self.sample().memory_bytes;
        if used > max {
            let exact = self.seen.iter().map(|&pid| proportional_bytes(pid)).sum();
            if exact > max {
                self.last.memory_peak_bytes = self.last.memory_peak_bytes.max(exact);
                return Some(Failure::new(Class::Oom, self.over(exact, max)));
            }
        }
        let watch = self.watch.as_mut()?;
        watch.every = match used > max / 2 {
            true => WATCH_MIN,
            false => (watch.every * 2).min(WATCH_MAX),
        };
        watch.due = now + watch.every;
        None
    }

    fn over(&self, used: u64, max: u64) -> String {
        format!(
            "over its memory limit of {}: {} in {} processes; stopped by its host, which looked \
             every {} to {} s because no cgroup keeps the limit here",
            mebibytes(max),
            mebibytes(used),
            self.last.processes,
            WATCH_MIN.as_secs(),
            WATCH_MAX.as_secs(),
        )
    }

    /// From now on the end of a program by SIGKILL is our own doing.
    pub(crate) fn killed_by_us(&mut self) {
        self.killed_by_us = true;
    }

    /// What says that the kernel killed something of the family for want of memory.
    pub(crate) fn evidence(&self, result: &RunResult) -> Option<String> {
        if self.cgroup.is_some() {
            return self.counted();
        }
        let killed = result.signal == Some(9) || result.exit_code == Some(KILLED_STATUS);
        if !killed || self.killed_by_us {
            return None;
        }
        let kills = kills_of_machine().saturating_sub(self.kills_before);
        (kills > 0).then(|| {
            format!(
                "likely killed by the kernel for want of memory: {kills} of this machine's \
                 processes were, while it ran"
            )
        })
    }

    /// As [`Gauge::evidence`], where the run's cgroup counts: it was this family, for certain.
    pub(crate) fn counted(&self) -> Option<String> {
        let events = self.text_in_cgroup("memory.events")?;
        let kills = count_of(&events, "oom_kill").filter(|kills| *kills > 0)?;
        let peak = self.number_in_cgroup("memory.peak");
        let peak = peak.unwrap_or(self.last.memory_peak_bytes);
        let why = match self.limit {
            Some(limit) => format!("memory limit {}", mebibytes(limit.max)),
            None => "the machine, or a cgroup above the run's, had no memory left".to_owned(),
        };
        Some(format!(
            "killed by the kernel: {why}, peak {}, processes killed {kills}",
            mebibytes(peak)
        ))
    }

    fn look_at_cgroup(&self) -> Option<Look> {
        // Read before our own time, which is part of it: what we use in between is not the family's.
        let usage = count_of(&self.text_in_cgroup("cpu.stat")?, "usage_usec")?;
        let own = getrusage(UsageWho::RUSAGE_SELF).ok();
        let own = own.as_ref().map_or(0, cpu_us);
        let members = self.text_in_cgroup("cgroup.procs")?;
        let host = rustix::process::getpid();
        Some(Look {
            memory_bytes: self.number_in_cgroup("memory.current")?,
            cpu_ms: usage.saturating_sub(own) / 1000,
            processes: members
                .lines()
                .filter_map(|line| Pid::from_raw(line.parse().ok()?))
                .filter(|pid| *pid != host)
                .collect(),
            unread: 0,
        })
    }

    fn text_in_cgroup(&self, file: &str) -> Option<String> {
        fs::read_to_string(self.cgroup.as_ref()?.join(file)).ok()
    }

    fn number_in_cgroup(&self, file: &str) -> Option<u64> {
        self.text_in_cgroup(file)?.trim_ascii_end().parse().ok()
    }
}

fn look_at_processes() -> Look {
    let ended = getrusage(UsageWho::RUSAGE_CHILDREN).ok();
    let mut look = Look::default();
    let mut ticks = 0_u64;
    // This program has one thread.
    let mut known = kernel::children(rustix::process::getpid(), 1);
    let mut read = 0;
    while let Some(&pid) = known.get(read)
        && read < READ_MAX
    {
        read += 1;
        let Some(stat) = Stat::of(pid) else { continue };
        ticks = ticks.saturating_add(stat.cpu_ticks);
        if stat.is_living() {
            look.memory_bytes = look.memory_bytes.saturating_add(stat.resident_bytes());
            look.processes.insert(pid);
            known.extend(kernel::children(pid, stat.threads));
        }
    }
    look.unread = u32::try_from(known.len() - read).unwrap_or(u32::MAX);
    let living_ms = ticks.saturating_mul(1000) / kernel::ticks_a_second();
    look.cpu_ms = living_ms.saturating_add(ended.as_ref().map_or(0, cpu_ms));
    look
}

/// Memory of one process where pages that are shared count by their part; what is resident where
/// the kernel does not say.
fn proportional_bytes(pid: Pid) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero());
    let rollup = fs::read_to_string(path).unwrap_or_default();
    let part = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"));
    match part.and_then(|number| number.parse().ok()) {
        Some(number) => kibibytes(number),
        None => Stat::of(pid).map_or(0, |stat| stat.resident_bytes()),
    }
}

/// Processes that the kernel has killed for want of memory since the machine's start.
fn kills_of_machine() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    count_of(&text, "oom_kill").unwrap_or(0)
}

/// The number beside `name` in a file of names and numbers.
fn count_of(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn cpu_us(usage: &Usage) -> u64 {
    let sum = usage.user_time() + usage.system_time();
    let seconds = u64::try_from(sum.tv_sec()).unwrap_or(0);
    let rest = u64::try_from(sum.tv_usec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(rest)
}

fn cpu_ms(usage: &Usage) -> u64 {
    cpu_us(usage) / 1000
}

fn kibibytes(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0).saturating_mul(1024)
}

/// A size for people.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_never_rounded_to_less() {
        assert_eq!(mebibytes(64 << 20), "64 MiB");
        assert_eq!(mebibytes((64 << 20) + 1), "65 MiB");
    }

    #[test]
    fn a_count_is_found_by_its_whole_name() {
        let events = "oom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(count_of(events, "oom_kill"), Some(2));
        assert_eq!(count_of(events, "oom_k"), None);
    }

    #[test]
    fn what_is_resident_stands_in_where_parts_are_not_told() {
        let own = rustix::process::getpid();
        assert!(proportional_bytes(own) > 0);
        assert!(proportional_bytes(own) <= 2 * Stat::of(own).unwrap().resident_bytes());
    }
}
