//! What the kernel says of one process; on Linux in two small reads of procfs: its `stat` and its
//! children.

#[cfg(target_os = "linux")]
use std::fs;
#[cfg(target_os = "linux")]
use std::io;
#[cfg(target_os = "linux")]
use std::path::PathBuf;

#[cfg(target_os = "linux")]
use supervisor_core::time::Now;

#[cfg(target_os = "linux")]
use crate::process::identity::STAT_MAX;
#[cfg(target_os = "macos")]
pub use crate::process::macos::{
    children, command, lists_children, of, program, start_clock_ms, ticks_a_second,
};
#[cfg(target_os = "linux")]
use crate::process::procfs;

/// Most bytes read of one list of children: a hundred thousand numbers.
#[cfg(target_os = "linux")]
const CHILDREN_MAX: usize = 1 << 20;
/// Most bytes read of a command line; only an excerpt of it is ever shown.
#[cfg(target_os = "linux")]
const COMMAND_MAX: usize = 4096;

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its number.
    pub pid: u32,
    /// It has ended and nobody has collected its exit.
    pub is_over: bool,
    /// Its parent.
    pub parent: u32,
    /// How many threads it has; each has a list of children of its own.
    pub threads: u32,
    /// Clock ticks at its start: since boot, on macOS since the Unix epoch.
    pub start_ticks: u64,
    /// CPU time of its own, clock ticks.
    pub cpu_ticks: u64,
    /// CPU time of those of its descendants that have ended and were collected, clock ticks.
    pub ended_cpu_ticks: u64,
    /// Resident memory, pages.
    pub resident_pages: u64,
}

/// Looks at a process; `None` when there is none of that number.
#[cfg(target_os = "linux")]
pub fn of(pid: u32) -> Option<Stat> {
    parse(
        pid,
        &procfs::read(format!("/proc/{pid}/stat"), STAT_MAX).ok()?,
    )
}

/// The name of a program may hold anything, also brackets; the fields behind its last closing one
/// may not. The first of them is field 3 of `proc_pid_stat(5)`.
#[cfg(target_os = "linux")]
fn parse(pid: u32, stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = [""; 22];
    let mut found = rest.split_ascii_whitespace();
    for field in &mut fields {
        *field = found.next()?;
    }
    let number = |field: usize| fields[field - 3].parse::<u64>().ok();
    let small = |field| number(field).and_then(|it| u32::try_from(it).ok());
    Some(Stat {
        pid,
        is_over: matches!(fields[0], "Z" | "X" | "x"),
        parent: small(4)?,
        threads: small(20)?,
        start_ticks: number(22)?,
        cpu_ticks: number(14)? + number(15)?,
        ended_cpu_ticks: number(16)? + number(17)?,
        resident_pages: number(24)?,
    })
}

/// The children of a process, of all its threads; nothing where the kernel has no such list.
#[cfg(target_os = "linux")]
pub fn children(of: &Stat) -> Vec<u32> {
    let pid = of.pid;
    if of.threads <= 1 {
        return children_of_thread(format!("/proc/{pid}/task/{pid}/children"));
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let lists = threads.map(|thread| children_of_thread(thread.path().join("children")));
    lists.flatten().collect()
}

#[cfg(target_os = "linux")]
fn children_of_thread(list: impl AsRef<std::path::Path>) -> Vec<u32> {
    let text = procfs::read(list, CHILDREN_MAX).unwrap_or_default();
    let numbers = text.split(u8::is_ascii_whitespace);
    let numbers = numbers.filter_map(|one| std::str::from_utf8(one).ok()?.parse().ok());
    numbers.collect()
}

/// The words of a command line, or the program's name where it has none; `None` when it is gone.
#[cfg(target_os = "linux")]
pub fn command(pid: u32) -> Option<String> {
    let words = procfs::read(format!("/proc/{pid}/cmdline"), COMMAND_MAX).ok()?;
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    let text = text.trim_end();
    if !text.is_empty() {
        return Some(text.to_owned());
    }
    let name = procfs::read(format!("/proc/{pid}/comm"), 64).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Clock ticks a second, in which `stat` counts.
#[cfg(target_os = "linux")]
pub fn ticks_a_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// Milliseconds on the clock in which starts are counted: that of the boot.
#[cfg(target_os = "linux")]
pub fn start_clock_ms(now: &Now) -> u64 {
    now.boot.0
}

/// The file of the program that a process runs, with a word of the kernel's behind it when another
/// one has taken its name; `None` when it is gone or another user's.
#[cfg(target_os = "linux")]
pub fn program(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Bytes of a page.
pub fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

/// Whether this kernel lists the children of a process.
///
/// # Errors
/// When it does not (`CONFIG_PROC_CHILDREN`), or procfs is not mounted.
#[cfg(target_os = "linux")]
pub fn lists_children() -> io::Result<()> {
    fs::metadata("/proc/thread-self/children").map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let line =
            b"42 (a) b) S 7 42 42 0 -1 4194560 103 0 0 0 10 5 3 2 20 0 1 0 987654 2621440 210 9";
        let expected = Stat {
            pid: 42,
            is_over: false,
            parent: 7,
            threads: 1,
            start_ticks: 987_654,
            cpu_ticks: 15,
            ended_cpu_ticks: 5,
            resident_pages: 210,
        };
        assert_eq!(parse(42, line), Some(expected));
        let over = String::from_utf8(line.to_vec())
            .unwrap()
            .replace(" S ", " Z ");
        assert!(parse(42, over.as_bytes()).unwrap().is_over);
        assert_eq!(parse(42, &line[..40]), None, "a cut line");
    }

    #[test]
    fn we_have_a_parent_that_lists_us() {
        let us = of(std::process::id()).unwrap();
        assert!(us.resident_pages > 0 && us.start_ticks > 0 && us.threads > 0);
        let parent = of(us.parent).unwrap();
        assert!(children(&parent).contains(&us.pid));
        assert!(command(us.pid).unwrap().contains("supervisor"));
        assert_eq!(of(u32::MAX), None);
    }
}
