//! What owning every process costs: starting a host behind its gate, ending a run with its whole
//! tree, ending two hundred at once, listing what lives.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Stdio};

use nix::unistd::Pid;
use protocol::rpc;
use protocol::version::Hello;
use rustix::event::{PollFd, PollFlags, poll};
use supervisor::control::client;
use supervisor::control::wire::{CONTROL_VERSION, Request, Want};
use supervisor::process::identity::Machine;
use supervisor::process::pidfd;
use supervisor::process::spawn::{Launcher, Order};
use supervisor_core::containment::Wish;

use super::idle::until;
use super::{Row, count, median, ms, size, write_batch};
use crate::clock::timed;
use crate::world::{World, programs, tool};

/// From the order to start a host to its answer to the hello, against a `posix_spawn` of `true`.
const HELLO_RATIO_MAX: f64 = 4.0;
/// Start of a host by a process of 1 GB against one of 16 MB.
const SIZE_RATIO_MAX: f64 = 1.5;
/// End of a run of three processes against a bare kill and wait of three.
const KILL_RATIO_MAX: f64 = 5.0;
/// End of many such runs at once against a bare kill and wait of as many processes.
const KILL_ALL_RATIO_MAX: f64 = 3.0;
/// `ps` against a raw pass over the processes that it lists.
const PS_RATIO_MAX: f64 = 2.0;
/// The task of the runs that are killed: three processes.
const THREE: &str = "\"sleep 86400 & sleep 86400 & wait\"";

/// Starts of hosts, by a small and by a large supervisor.
pub fn spawn() -> Vec<Row> {
    let times = size("BENCH_SPAWNS", 200);
    let world = World::new();
    let mut starter = Starter::new(&world);
    // Once each before anything counts: programs and folders are then in the kernel's memory.
    starter.hello();
    bare_true();
    let [mut bare, mut hello, mut small, mut large] = [const { Vec::new() }; 4];
    for _ in 0..times {
        bare.push(bare_true());
        hello.push(starter.hello());
    }
    let ballast = Ballast::of(16 << 20);
    small.extend((0..times).map(|_| starter.start()));
    drop(ballast);
    let ballast = Ballast::of(1 << 30);
    large.extend((0..times).map(|_| starter.start()));
    drop(ballast);
    starter.end();
    let [bare, hello, small, large] = [bare, hello, small, large].map(median);
    let plain = |what: &str, value| Row::plain("spawn", what.to_owned(), value, "ms");
    let ratio = |what: &str, value| Row::plain("spawn", what.to_owned(), value, "x");
    vec![
        plain("posix_spawn of true and its end, median", bare),
        plain("a host from its order to its hello, median", hello),
        ratio("ratio", hello / bare).limited(HELLO_RATIO_MAX),
        plain("start of a host by 16 MB, median", small),
        plain("start of a host by 1 GB, median", large),
        ratio("ratio of 1 GB to 16 MB", large / small).limited(SIZE_RATIO_MAX),
    ]
}

/// Memory that is really there.
struct Ballast(Vec<u8>);

impl Ballast {
    fn of(bytes: usize) -> Self {
        let mut ballast = vec![0; bytes];
        for page in ballast.chunks_mut(4096) {
            page[0] = 1;
        }
        Self(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        assert!(self.0.last().is_some(), "it was there to the end");
    }
}

/// Starts hosts as a supervisor does.
struct Starter {
    launcher: Launcher,
    stderr: File,
    token: u128,
}

impl Starter {
    fn new(world: &World) -> Self {
        let machine = Machine::here().expect("this machine can be identified");
        let batch = format!("bench-{}", std::process::id());
        let launcher = Launcher::new(
            machine,
            &programs().join("agent-host"),
            &world.path("run"),
            &batch.parse().expect("a batch id"),
        );
        Self {
            launcher: launcher.expect("paths without zero bytes"),
            stderr: File::create(world.path("run/stderr")).expect("a file for stderr"),
            token: u128::from(std::process::id()) << 64,
        }
    }

    fn order(&mut self) -> Order {
        self.token += 1;
        Order {
            token: self.token,
            wish: Wish::Auto,
            memory: None,
        }
    }

    /// Milliseconds until a host is started and identified.
    fn start(&mut self) -> f64 {
        let order = self.order();
        let stderr = self.stderr.try_clone().expect("a second descriptor");
        let (spawned, length) = timed(|| self.launcher.spawn(order, stderr));
        let spawned = spawned.expect("a host starts");
        drop((spawned.stdin, spawned.stdout));
        self.collect(order, &spawned.pidfd);
        ms(length)
    }

    /// Milliseconds until a host has answered the hello.
    fn hello(&mut self) -> f64 {
        let order = self.order();
        let stderr = self.stderr.try_clone().expect("a second descriptor");
        let hello = rpc::request(1, "hello", Hello::ours()).expect("a hello is JSON");
        let (spawned, length) = timed(|| {
            let spawned = self.launcher.spawn(order, stderr).expect("a host starts");
            let mut stdin = File::from(spawned.stdin);
            stdin.write_all(&hello).expect("a host reads");
            let mut answer = String::new();
            let stdout = File::from(spawned.stdout);
            BufReader::new(stdout)
                .read_line(&mut answer)
                .expect("a host answers");
            assert!(answer.contains("result"), "{answer}");
            spawned.pidfd
        });
        self.collect(order, &spawned);
        ms(length)
    }

    /// Waits for a host whose stdin has ended, and removes its cgroup.
    fn collect(&self, order: Order, host: &OwnedFd) {
        pidfd::collect(host.as_fd()).expect("a host ends with its stdin");
        if let Ok(parent) = self.launcher.cgroup() {
            let leaf = parent.leaf(order.token).expect("the leaf is there");
            leaf.remove();
        }
    }

    fn end(self) {
        if let Ok(parent) = self.launcher.cgroup() {
            parent.remove();
        }
    }
}

/// Milliseconds for `true`, which the standard library starts by `posix_spawn`.
fn bare_true() -> f64 {
    let mut command = tool("/bin/true");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let (status, length) = timed(|| command.status());
    assert!(status.is_ok_and(|status| status.success()), "true is true");
    ms(length)
}

/// Runs of three processes, ended one by one and all at once.
pub fn kill() -> Vec<Row> {
    let one_by_one = size("BENCH_KILLS", 40);
    let at_once = size("BENCH_KILLED_AT_ONCE", 200);
    let single = median((0..one_by_one).map(|_| bare_kill(3)).collect());
    let ours = Killed::start(one_by_one);
    let each = (0..one_by_one).map(|number| ours.kill(&[number])).collect();
    let each = median(each);
    ours.end();
    let bare_all = bare_kill(3 * at_once);
    let ours = Killed::start(at_once);
    let all: Vec<usize> = (0..at_once).collect();
    let all = ours.kill(&all);
    ours.end();
    let plain = |what: String, value| Row::plain("kill", what, value, "ms");
    let ratio = |value| Row::plain("kill", "ratio".to_owned(), value, "x");
    vec![
        plain("bare kill and wait of three, median".to_owned(), single),
        plain(
            "a run of three processes, from the order to its end, median".to_owned(),
            each,
        ),
        ratio(each / single).limited(KILL_RATIO_MAX),
        plain(
            format!("bare kill and wait of {} processes", 3 * at_once),
            bare_all,
        ),
        plain(format!("{at_once} such runs at once"), all),
        ratio(all / bare_all).limited(KILL_ALL_RATIO_MAX),
    ]
}

/// Milliseconds to kill so many children and collect them.
fn bare_kill(processes: usize) -> f64 {
    let start = |_| {
        let mut sleep = tool("sleep");
        sleep.arg("86400").stdin(Stdio::null());
        sleep.spawn().expect("sleep starts")
    };
    let mut children: Vec<Child> = (0..processes).map(start).collect();
    let ((), length) = timed(|| {
        for child in &mut children {
            child.kill().expect("a child can be killed");
        }
        for child in &mut children {
            child.wait().expect("a child can be waited for");
        }
    });
    ms(length)
}

/// A batch whose tasks are killed.
struct Killed {
    world: World,
    supervisor: crate::world::Started,
    runs: usize,
}

impl Killed {
    fn start(runs: usize) -> Self {
        let world = World::new();
        write_batch(&world, runs, runs, THREE, "");
        let supervisor = world.start("run", &["run", "batch.yml"]);
        let killed = Self {
            world,
            supervisor,
            runs,
        };
        until(&killed.world, "every run has its processes", |world| {
            count(world, "running") == Some(runs) && sleepers(world) == 2 * runs
        });
        killed
    }

    /// Milliseconds from the order to kill these tasks without grace until nothing of them is
    /// left, not even to be collected.
    fn kill(&self, numbers: &[usize]) -> f64 {
        let tasks: Vec<String> = numbers.iter().map(|number| format!("t-{number}")).collect();
        let victims = self.victims(&tasks);
        assert_eq!(victims.len(), 4 * numbers.len(), "a host and three each");
        let lock: serde_json::Value = self.lock();
        let socket = lock["socket"].as_str().expect("a supervisor has a socket");
        let batch = self.world.batch_dir().expect("the batch has a folder");
        let batch = batch.file_name().and_then(|name| name.to_str());
        let ids = tasks.iter().map(|id| id.parse().expect("a task id"));
        let request = Request {
            v: CONTROL_VERSION,
            batch: batch.expect("an id").parse().expect("a batch id"),
            want: Want::Kill {
                tasks: Some(ids.collect()),
                grace_ms: 0,
            },
        };
        let ((), length) = timed(|| {
            let replies = client::send(Path::new(socket), &request).expect("it listens");
            for (_, pin) in &victims {
                let mut polled = [PollFd::new(pin, PollFlags::IN)];
                poll(&mut polled, None).expect("a pidfd can be waited for");
            }
            for (pid, _) in &victims {
                while nix::sys::signal::kill(*pid, None).is_ok() {
                    std::thread::yield_now();
                }
            }
            drop(replies);
        });
        ms(length)
    }

    fn lock(&self) -> serde_json::Value {
        let folder = self.world.batch_dir().expect("the batch has a folder");
        let text = std::fs::read(folder.join("lock")).expect("a live batch has a lock");
        serde_json::from_slice(&text).expect("a lock names its holder")
    }

    /// Hosts of these tasks and everything below them, pinned.
    fn victims(&self, tasks: &[String]) -> Vec<(Pid, OwnedFd)> {
        let listed = self.world.supervisor(&["ps", "--json"]).ok().json();
        let listed = listed.as_array().expect("a list").clone();
        let hosts = listed
            .iter()
            .filter(|it| it["role"] == "host" && tasks.iter().any(|id| it["task"] == id.as_str()));
        let mut all = Vec::new();
        for host in hosts {
            let host = host["pid"].as_u64().expect("a pid");
            let host = u32::try_from(host).expect("a pid is small");
            all.push(host);
            all.extend(supervisor::process::orphans::descendants(host));
        }
        let pin = |pid| {
            let number = i32::try_from(pid).expect("a pid is small");
            (Pid::from_raw(number), pidfd::open(pid).expect("it lives"))
        };
        all.into_iter().map(pin).collect()
    }

    fn end(self) {
        assert!(self.runs > 0, "something was measured");
        self.world
            .supervisor(&["kill", "bench", "--grace", "0s"])
            .ok();
        self.supervisor.end(&self.world);
        self.world.assert_nothing_left();
    }
}

fn sleepers(world: &World) -> usize {
    let all = world.processes().into_iter();
    all.filter(|(_, command)| command.starts_with("sleep 86400"))
        .count()
}

/// What lives in many batches, against one pass over the same processes.
pub fn list() -> Vec<Row> {
    let batches = size("BENCH_PS_BATCHES", 50);
    let runs = size("BENCH_PS_RUNS", 19);
    let times = size("BENCH_PS_TIMES", 11);
    let world = World::new();
    let mut running = Vec::new();
    for number in 0..batches {
        world.write(
            "batch.yml",
            &format!(
                "version: 1\nname: bench-{number}\nisolation: none\nconcurrency: {runs}\ntasks:\n  \
                 - id: \"t-{{{{ item }}}}\"\n    foreach: {{items: {:?}}}\n    \
                 run: [sleep, \"86400\"]\n",
                (0..runs).map(|it| it.to_string()).collect::<Vec<_>>()
            ),
        );
        running.push(world.start("run", &["run", "batch.yml"]));
        let id = format!("bench-{number}");
        until(&world, "every task sleeps", |world| {
            let ran = world.supervisor(&["status", &id, "--json"]);
            let status: Option<serde_json::Value> = serde_json::from_str(&ran.stdout).ok();
            status.is_some_and(|status| status["batch"]["counts"]["running"] == runs)
        });
    }
    let listed = world.supervisor(&["ps", "--json"]).ok().json();
    let listed = listed.as_array().expect("a list").clone();
    let pids: Vec<u64> = listed.iter().filter_map(|it| it["pid"].as_u64()).collect();
    let [mut starts, mut passes, mut lists] = [const { Vec::new() }; 3];
    for _ in 0..times {
        starts.push(ms(timed(|| world.supervisor(&["--version"])).1));
        passes.push(ms(timed(|| raw_pass(&pids)).1));
        lists.push(ms(timed(|| world.supervisor(&["ps", "--json"]).ok()).1));
    }
    let [start, pass, list] = [starts, passes, lists].map(median);
    world.supervisor(&["kill", "--all", "--grace", "0s"]).ok();
    for supervisor in running {
        supervisor.end(&world);
    }
    world.assert_nothing_left();
    let plain = |what: String, value| Row::plain("ps", what, value, "ms");
    vec![
        plain("start of the command line, median".to_owned(), start),
        plain(
            format!("one raw pass over {} processes, median", pids.len()),
            pass,
        ),
        plain(
            format!("supervisor ps --json of {batches} batches, median"),
            list,
        )
        .limited(PS_RATIO_MAX * pass + start),
    ]
}

/// Reads of each process what a list of processes shows.
fn raw_pass(pids: &[u64]) {
    for pid in pids {
        for file in ["stat", "cmdline", "statm"] {
            let read = std::fs::read(format!("/proc/{pid}/{file}"));
            assert!(read.is_ok_and(|text| !text.is_empty()), "it lives");
        }
    }
}
