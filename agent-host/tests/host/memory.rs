//! Limits of memory, and kills by the kernel for want of it.

use std::fs;

use protocol::class::Class;
use protocol::command::{Keeper, MemoryLimit, Start};
use protocol::report::ResultStatus;

use crate::client::{Client, command};

const MIB: u64 = 1 << 20;
/// A shell that has 300 MB in a variable and waits to be ended.
const HOARDS: &str = "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo up; sleep 600; echo $x";

fn limited(client: &Client, line: &str, max: u64) -> Start {
    let mut start = client.start(command(&["sh", "-c", line]));
    let keeper = Keeper::Host;
    start.memory = Some(MemoryLimit { max, keeper });
    start
}

/// Files of a cgroup as the kernel would write them.
fn cgroup(client: &Client, events: &str) -> String {
    let folder = client.path("cgroup");
    fs::create_dir(&folder).unwrap();
    for (file, text) in [
        ("memory.current", "41943040\n"),
        ("memory.peak", "67108864\n"),
        ("memory.events", events),
        ("cpu.stat", "usage_usec 90000000\nuser_usec 1\n"),
        ("cgroup.procs", "70\n71\n"),
    ] {
        fs::write(folder.join(file), text).unwrap();
    }
    folder.display().to_string()
}

#[test]
fn a_family_over_the_limit_that_its_host_watches_is_ended() {
    let client = Client::started(|client| limited(client, HOARDS, 64 * MIB));
    let (result, _) = client.result();
    assert_eq!(result.class, Some(Class::Oom), "{}", result.summary);
    let said = &result.summary;
    assert!(said.contains("over its memory limit of 64 MiB"), "{said}");
    assert!(said.contains("looked every 1 to 5 s"), "{said}");
    assert!(result.family.unwrap().memory_peak_bytes > 64 * MIB);
}

#[test]
fn a_family_within_its_limit_is_left_alone() {
    // Longer than two looks.
    let client = Client::started(|client| limited(client, "sleep 3.2", 64 * MIB));
    let (result, _) = client.result();
    assert_eq!(result.status, ResultStatus::Ok, "{}", result.summary);
}

/// What processes share is counted once before a family is called too large.
#[test]
fn shared_memory_is_not_counted_twice() {
    let shares = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); \
        for n in 1 2 3 4 5 6 7 8; do (sleep 2.6; true) & done; wait";
    let client = Client::started(|client| limited(client, shares, 150 * MIB));
    let (result, _) = client.result();
    assert_eq!(result.status, ResultStatus::Ok, "{}", result.summary);
    let seen = result.family.unwrap().memory_peak_bytes;
    assert!(seen > 150 * MIB, "each counts it: {seen}");
}

#[test]
fn a_kill_that_the_cgroup_counted_is_want_of_memory() {
    let client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "kill -KILL $$"]));
        start.cgroup = Some(cgroup(client, "oom 2\noom_kill 1\n"));
        let (max, keeper) = (64 * MIB, Keeper::Cgroup);
        start.memory = Some(MemoryLimit { max, keeper });
        start
    });
    let (result, _) = client.result();
    assert_eq!(result.class, Some(Class::Oom));
    let said = "killed by the kernel: memory limit 64 MiB, peak 64 MiB, processes killed 1";
    assert!(result.summary.starts_with(said), "{}", result.summary);
    assert_eq!(result.signal, Some(9), "how it ended stays known");
}

#[test]
fn a_kill_that_nobody_counted_is_a_crash() {
    let client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "kill -KILL $$"]));
        start.cgroup = Some(cgroup(client, "oom 0\noom_kill 0\n"));
        start
    });
    assert_eq!(client.result().0.class, Some(Class::Crash));
    let (result, _) = Client::shell("kill -KILL $$").result();
    assert_eq!(result.class, Some(Class::Crash), "{}", result.summary);
}

/// A tool may die for want of memory and its agent find another way.
#[test]
fn work_that_goes_on_after_such_a_kill_is_done() {
    let client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "exit 0"]));
        start.cgroup = Some(cgroup(client, "oom_kill 3\n"));
        start
    });
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    let notices = ended.notices();
    assert!(notices[0].contains("processes killed 3"), "{notices:?}");
}

/// Where the run's cgroup has a say over memory, it is asked instead of the processes.
#[test]
fn the_heartbeat_reads_the_cgroup_where_it_can() {
    let mut client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "echo up >&9; sleep 600"]));
        start.cgroup = Some(cgroup(client, "oom_kill 0\n"));
        start
    });
    client.wait_for_word("up");
    let family = client.ping().family;
    assert_eq!(family.memory_bytes, 40 * MIB);
    assert_eq!((family.processes, family.begun), (2, 2));
    assert!((89_000..=90_000).contains(&family.cpu_ms), "{family:?}");
    client.stop(0);
    client.end();
}

/// A sample has a bound: what is beyond it is counted, not read.
#[test]
fn a_large_family_is_read_up_to_a_bound() {
    let many = "n=0; while [ $n -lt 300 ]; do sleep 600 & n=$((n+1)); done; echo up >&9; wait";
    let mut client = Client::shell(many);
    client.wait_for_word("up");
    let family = client.ping().family;
    assert_eq!((family.processes, family.unread), (256, 45));
    assert!(family.memory_bytes > 0);
    client.stop(0);
    client.end();
}

/// What it starts is the kernel's better choice, and stays so; the host itself is what it was.
#[test]
fn a_host_is_not_the_first_to_be_killed() {
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // The host goes back to its own value in the moment after the start.
    let line = format!(
        "until [ \"$(cat /proc/$PPID/oom_score_adj)\" = {own} ]; do :; done; \
         cat /proc/$$/oom_score_adj"
    );
    let (_, ended) = Client::shell(&line).result();
    let wanted = format!("{}\n", (own + 200).min(1000));
    assert_eq!(ended.log("stdout.log"), wanted);
}
