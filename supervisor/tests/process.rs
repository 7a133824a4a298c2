//! The process layer with real processes. One at a time: a sweep meets every child of this process.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use supervisor::process::cgroup::{Leaf, remove_leftovers};
use supervisor::process::hunt::{self, Ended};
use supervisor::process::identity::{Machine, group_of, session_of, start_ticks};
use supervisor::process::orphans::{self, CLEAN_PASSES, Swept};
use supervisor::process::pidfd;
use supervisor::process::recorded::{self, Field, Proven, Refused};
use supervisor::process::scan::{self, Found, Trace, Traces};
use supervisor::process::spawn::{Launcher, Order, SpawnError, Spawned};
use supervisor::process::tree::{self, EndedHost};
use supervisor_core::containment::{Cleared, Layer, Wish};
use supervisor_core::identity::{Exit, Identity};
use supervisor_core::time::BootId;

/// Longest wait for a process that ends: a loaded machine may take seconds.
const SOON: Duration = Duration::from_secs(20);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `cat` behaves as a host must: it waits for its stdin and ends with it.
fn launcher(program: &str) -> Launcher {
    let batch = "some-batch".parse().unwrap();
    let machine = Machine::here().unwrap();
    Launcher::new(machine, Path::new(program), Path::new("/"), &batch).unwrap()
}

/// The means that are there everywhere.
fn portable(token: u128) -> Order {
    Order {
        token,
        wish: Wish::Portable,
        memory: None,
    }
}

fn spawn(program: &str, token: u128) -> Spawned {
    let null = File::options().write(true).open("/dev/null").unwrap();
    launcher(program).spawn(portable(token), null).unwrap()
}

/// What lives and carries this token.
fn tagged(token: u128) -> Vec<Found> {
    let traces = Traces::new(vec![Trace::of_token(token)]);
    scan::look(&Machine::here().unwrap(), &traces)
        .unwrap()
        .found
}

fn reap(host: &Spawned) -> Exit {
    assert!(pidfd::wait_ended(&host.pidfd, SOON).unwrap(), "it lives on");
    pidfd::reap(host.pidfd.as_fd()).unwrap().unwrap()
}

/// A script in a folder of its own, to be started like a host.
fn script(text: &str) -> (tempfile::TempDir, String) {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_host_speaks_through_its_pipes_and_ends_with_its_stdin() {
    let _alone = alone();
    let host = spawn("/bin/cat", 1);
    assert_eq!(pidfd::reap(host.pidfd.as_fd()).unwrap(), None);
    File::from(host.stdin.try_clone().unwrap())
        .write_all(b"hello\n")
        .unwrap();
    let mut heard = [0; 6];
    File::from(host.stdout.try_clone().unwrap())
        .read_exact(&mut heard)
        .unwrap();
    assert_eq!(&heard, b"hello\n");
    let Spawned { pidfd, stdin, .. } = host;
    drop(stdin);
    assert!(pidfd::wait_ended(&pidfd, SOON).unwrap());
    assert_eq!(pidfd::reap(pidfd.as_fd()).unwrap(), Some(Exit::Code(0)));
}

#[test]
fn a_host_gets_the_allowed_environment_and_its_token() {
    let _alone = alone();
    let host = spawn("/usr/bin/env", 0xfeed);
    let mut printed = String::new();
    File::from(host.stdout.try_clone().unwrap())
        .read_to_string(&mut printed)
        .unwrap();
    reap(&host);
    let names: Vec<&str> = printed
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    let allowed = ["PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL"];
    for name in &names {
        let ours = ["SUPERVISOR_TOKEN", "SUPERVISOR_BATCH"].contains(name);
        assert!(ours || allowed.contains(name), "{name} was passed on");
    }
    let token = format!("SUPERVISOR_TOKEN={:032x}", 0xfeed);
    assert!(printed.lines().any(|line| line == token));
    assert!(
        printed
            .lines()
            .any(|line| line == "SUPERVISOR_BATCH=some-batch")
    );
}

#[test]
fn a_program_that_is_not_there_is_an_error_and_leaves_nothing() {
    let _alone = alone();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let before = orphans::children().unwrap();
    assert!(launcher("/no/such/host").spawn(portable(1), null).is_err());
    assert_eq!(orphans::children().unwrap(), before);
}

#[test]
fn a_recorded_process_is_killed_only_when_everything_agrees() {
    let _alone = alone();
    let host = spawn("/bin/cat", 2);
    let machine = Machine::here().unwrap();
    let recorded = host.identity.clone();
    let refused = |identity: &Identity| match Proven::find(&machine, identity) {
        Err(Refused::Differs { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let with = |change: &dyn Fn(&mut Identity)| {
        let mut identity = recorded.clone();
        change(&mut identity);
        refused(&identity)
    };
    assert_eq!(with(&|it| it.node = "elsewhere".into()), Field::Node);
    assert_eq!(with(&|it| it.boot_id = BootId(1)), Field::BootId);
    assert_eq!(with(&|it| it.pid_namespace += 1), Field::PidNamespace);
    assert_eq!(with(&|it| it.start_ticks += 1), Field::StartTicks);
    if recorded.pidfs_inode.is_some() {
        let other = |it: &mut Identity| it.pidfs_inode = it.pidfs_inode.map(|inode| inode + 1);
        assert_eq!(with(&other), Field::PidfsInode);
    }
    assert!(
        !pidfd::has_ended(&host.pidfd).unwrap(),
        "a stranger was hit"
    );
    let proven = Proven::find(&machine, &recorded).unwrap();
    assert_eq!(proven.pid(), recorded.pid);
    proven.signal(Signal::KILL).unwrap();
    assert_eq!(reap(&host), Exit::Signal(9));
}

#[test]
fn an_exit_that_nobody_collected_is_no_life() {
    let _alone = alone();
    let machine = Machine::here().unwrap();
    let host = spawn("/bin/true", 3);
    assert!(pidfd::wait_ended(&host.pidfd, SOON).unwrap());
    let found = Proven::find(&machine, &host.identity);
    assert!(matches!(found, Err(Refused::Gone { .. })), "{found:?}");
    assert_eq!(reap(&host), Exit::Code(0));
    let found = Proven::find(&machine, &host.identity);
    assert!(matches!(found, Err(Refused::Gone { .. })), "{found:?}");
}

#[test]
fn a_token_is_found_in_a_host_and_in_what_it_started() {
    let _alone = alone();
    let (_dir, program) = script("sleep 1000 & echo started; wait");
    let token = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
    let host = spawn(&program, token);
    let mut heard = [0; 8];
    File::from(host.stdout.try_clone().unwrap())
        .read_exact(&mut heard)
        .unwrap();
    // A process that is just becoming another program has no environment for an instant.
    let found = loop {
        let found = tagged(token);
        if found.len() >= 2 && found.iter().any(|it| it.pid == host.identity.pid) {
            break found;
        }
        std::thread::yield_now();
    };
    assert!(tagged(token + 1).is_empty());
    for Found { pidfd, .. } in &found {
        pidfd::kill(pidfd).unwrap();
    }
    assert_eq!(reap(&host), Exit::Signal(9));
    orphans::adopt().unwrap();
    orphans::sweep(CLEAN_PASSES, |_| false, |_| {}).unwrap();
}

#[test]
fn what_a_killed_host_leaves_behind_comes_home_and_is_ended() {
    let _alone = alone();
    orphans::adopt().unwrap();
    // Two that only wait, one in a session of its own, one that ignores polite signals.
    let (_dir, program) = script(
        "sleep 1000 & setsid sleep 1000 & (trap '' TERM HUP INT; sleep 1000 & wait) & \
         echo started; cat",
    );
    let token = 0xaaaa;
    let host = spawn(&program, token);
    let bystander = spawn("/bin/cat", 0xbbbb);
    let mut heard = [0; 8];
    File::from(host.stdout.try_clone().unwrap())
        .read_exact(&mut heard)
        .unwrap();
    pidfd::kill(&host.pidfd).unwrap();
    assert_eq!(reap(&host), Exit::Signal(9));
    let swept = orphans::sweep(CLEAN_PASSES, |pid| pid == bystander.identity.pid, |_| {}).unwrap();
    // The third may be killed before it has begun what it waits for.
    assert!(swept.ended >= 3 && swept.left == 0, "{swept:?}");
    assert!(tagged(token).is_empty());
    assert!(
        !pidfd::has_ended(&bystander.pidfd).unwrap(),
        "a bystander was hit"
    );
    let again = orphans::sweep(CLEAN_PASSES, |pid| pid == bystander.identity.pid, |_| {}).unwrap();
    assert_eq!(again, Swept::default());
    pidfd::kill(&bystander.pidfd).unwrap();
    reap(&bystander);
}

/// A run with a token that nobody else has, in these means.
fn started(wish: Wish, text: &str, token: u128) -> (tempfile::TempDir, Spawned) {
    let (dir, program) = script(text);
    let order = Order {
        wish,
        ..portable(token)
    };
    let null = File::options().write(true).open("/dev/null").unwrap();
    let host = launcher(&program).spawn(order, null).unwrap();
    (dir, host)
}

/// Reads a line of so many bytes.
fn hear(host: &Spawned, bytes: usize) -> String {
    let mut heard = vec![0; bytes];
    File::from(host.stdout.try_clone().unwrap())
        .read_exact(&mut heard)
        .unwrap();
    String::from_utf8(heard).unwrap()
}

fn ended(host: &Spawned, token: u128) -> EndedHost<OwnedFd> {
    EndedHost {
        identity: host.identity.clone(),
        containment: host.containment.clone(),
        token,
        killed: 0,
        process: host.pidfd.try_clone().unwrap(),
    }
}

/// Kills the host and ends its tree as the supervisor does.
fn end_tree(host: &Spawned, token: u128) -> (Exit, Cleared) {
    pidfd::kill(&host.pidfd).unwrap();
    assert!(pidfd::wait_ended(&host.pidfd, SOON).unwrap());
    let machine = Machine::here().unwrap();
    let end = tree::end_trees(&machine, &[ended(host, token)], |_| false)
        .pop()
        .unwrap();
    (end.exit, end.cleared)
}

/// What an `agent-host` does first, in a script: a session of its own and a lasting tag. `prlimit` of
/// util-linux is the only way to the limit of file locks without a program of ours.
const AS_A_HOST: &str =
    "exec setsid prlimit --locks=\"$(prlimit --locks -n --raw -o SOFT --noheadings)\" sh -c";

fn as_a_host(text: &str) -> String {
    format!("{AS_A_HOST} '{text}'")
}

#[test]
fn the_limit_tag_outlives_a_cleared_environment_and_is_not_ours() {
    let _alone = alone();
    orphans::adopt().unwrap();
    let token = 0x1111_2222_3333_4444_5555_6666_7777_8888;
    let text = as_a_host("env -i setsid sleep 1000 & echo started; cat");
    let (_dir, host) = started(Wish::Portable, &text, token);
    assert!(host.containment.layers.has(Layer::LimitTag));
    hear(&host, 8);
    let found = loop {
        let found = tagged(token);
        // Before it has left the session it would go with the group of its host, and not be counted.
        let cleared = |one: &&Found| {
            scan::token_of(one.pid).is_none() && session_of(one.pid) == Some(one.pid)
        };
        if let Some(one) = found.iter().find(cleared) {
            break (one.pid, one.why);
        }
        std::thread::yield_now();
    };
    assert_eq!(found.1, Layer::LimitTag);
    assert_eq!(scan::hard_limit_of(std::process::id()), hard_limit_before());
    let (exit, cleared) = end_tree(&host, token);
    assert_eq!(exit, Exit::Signal(9));
    assert!(cleared.is_clean() && cleared.killed() >= 1, "{cleared}");
    assert!(tagged(token).is_empty());
}

fn hard_limit_before() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Locks).maximum
}

#[test]
fn a_host_that_ended_well_is_believed_and_costs_no_search() {
    let _alone = alone();
    let host = spawn("/bin/cat", 0xc0de);
    let entry = ended(&host, 0xc0de);
    drop(host.stdin);
    assert!(pidfd::wait_ended(&entry.process, SOON).unwrap());
    let machine = Machine::here().unwrap();
    let ends = tree::end_trees(&machine, &[entry], |_| false);
    let ends: Vec<_> = ends.iter().map(|end| (end.exit, &end.cleared)).collect();
    assert_eq!(ends, [(Exit::Code(0), &Cleared::CLEAN)]);
}

/// Whether runs can have cgroups here; says so where they can not.
fn has_cgroups() -> bool {
    let launcher = launcher("/bin/true");
    let parent = launcher.cgroup();
    if let Err(missing) = &parent {
        let mut err = std::io::stderr();
        writeln!(err, "not tested here: {missing}").unwrap();
    }
    parent.is_ok()
}

#[test]
fn a_host_is_born_in_its_cgroup_and_nothing_of_it_leaves_by_session_or_environment() {
    let _alone = alone();
    if !has_cgroups() {
        return;
    }
    orphans::adopt().unwrap();
    let token = 0x2222;
    // Not as a host: without tags and session of its own the cgroup alone must do.
    let text = "env -i setsid setsid sleep 1000 & (env -i setsid sleep 1000 &) ; echo started; cat";
    let (_dir, host) = started(Wish::Cgroup, text, token);
    assert!(host.containment.layers.has(Layer::Cgroup));
    let leaf = Leaf::recorded(host.containment.leaf.as_deref().unwrap(), token).unwrap();
    assert!(
        leaf.members().contains(&host.identity.pid),
        "it is born there"
    );
    hear(&host, 8);
    // Until then they would go with the group of their host, and not be counted.
    let left = |pid: &u32| group_of(*pid) != group_of(host.identity.pid);
    while leaf.members().iter().filter(|pid| left(pid)).count() < 2 {
        std::thread::yield_now();
    }
    let (_, cleared) = end_tree(&host, token);
    assert!(cleared.is_clean() && cleared.killed() >= 2, "{cleared}");
    assert!(!leaf.dir().exists(), "its folder is removed");
    remove_leftovers(leaf.dir().parent().unwrap());
}

#[test]
fn what_was_killed_with_its_host_and_is_still_there_is_counted_once() {
    let _alone = alone();
    if !has_cgroups() {
        return;
    }
    orphans::adopt().unwrap();
    let token = 0x2223;
    let text = "setsid sleep 1000 & setsid sleep 1000 & echo started; exec cat";
    let (_dir, host) = started(Wish::Cgroup, text, token);
    hear(&host, 8);
    let leaf = Leaf::recorded(host.containment.leaf.as_deref().unwrap(), token).unwrap();
    let others = u32::try_from(leaf.members().len() - 1).unwrap();
    assert_eq!(others, 2);
    pidfd::kill(&host.pidfd).unwrap();
    assert!(pidfd::wait_ended(&host.pidfd, SOON).unwrap());
    let struck = EndedHost {
        killed: others,
        ..ended(&host, token)
    };
    let machine = Machine::here().unwrap();
    let end = tree::end_trees(&machine, &[struck], |_| false).remove(0);
    assert_eq!(end.cleared, Cleared::Clean { killed: others });
    remove_leftovers(leaf.dir().parent().unwrap());
}

#[test]
fn a_birth_in_a_cgroup_is_as_any_other_start() {
    let _alone = alone();
    if !has_cgroups() {
        return;
    }
    let order = |token| Order {
        wish: Wish::Cgroup,
        ..portable(token)
    };
    let null = || File::options().write(true).open("/dev/null").unwrap();
    let mut missing = launcher("/no/such/host");
    let parent = missing.cgroup().unwrap().dir().to_owned();
    let refused = missing.spawn(order(1), null()).unwrap_err();
    let SpawnError::Start(error) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(
        orphans::children().unwrap().is_empty(),
        "nothing is left of it"
    );
    let text = "pwd; grep -E '^Sig(Blk|Cgt)' /proc/self/status; ls -l /proc/self/fd | wc -l";
    let (_dir, program) = script(text);
    let says = |order| {
        let host = launcher(&program).spawn(order, null()).unwrap();
        let mut said = String::new();
        File::from(host.stdout.try_clone().unwrap())
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(reap(&host), Exit::Code(0));
        (said, host)
    };
    let (usual, _) = says(portable(3));
    let (said, host) = says(order(2));
    assert!(said.starts_with("/\nSigBlk:\t0000000000000000\n"), "{said}");
    assert_eq!(said, usual, "folder, signals and descriptors");
    let leaf = Leaf::recorded(host.containment.leaf.as_deref().unwrap(), 2).unwrap();
    assert!(leaf.remove_empty());
    remove_leftovers(&parent);
}

/// The supervisor and the host of a run were killed: nothing of theirs helps any more.
fn hunted(trace: Trace) -> Vec<Ended> {
    let machine = Machine::here().unwrap();
    hunt::end_all(&machine, &Traces::new(vec![trace])).unwrap()
}

#[test]
fn what_forks_and_ends_all_the_time_is_hunted_down() {
    let _alone = alone();
    orphans::adopt().unwrap();
    for round in 0..3_u128 {
        let token = 0x3333_0000_0000_0000_3333 + (round << 90);
        // Each of them lives for a fork: it is in no list twice.
        let text = as_a_host("h() { (h &) ; }; echo started; (h &); cat");
        let (_dir, host) = started(Wish::Portable, &text, token);
        hear(&host, 8);
        pidfd::kill(&host.pidfd).unwrap();
        reap(&host);
        let trace = Trace {
            token,
            host: Some(host.identity.clone()),
            host_lived_until: 0,
        };
        let ended = hunted(trace);
        assert!(ended[0].left.is_empty(), "{ended:?}");
        assert!(tagged(token).is_empty(), "it hops on");
        orphans::sweep(CLEAN_PASSES, |_| false, |_| {}).unwrap();
    }
}

#[test]
fn an_untagged_member_of_the_hosts_session_is_ours_only_if_it_was_there_with_the_host() {
    let _alone = alone();
    orphans::adopt().unwrap();
    let token = 0x4444;
    // Both tags are gone, the session is not.
    let text = "exec setsid sh -c 'env -i sleep 1000 & echo started; exec cat'";
    let (_dir, host) = started(Wish::Portable, text, token);
    hear(&host, 8);
    let session = Some(host.identity.pid);
    let member = loop {
        let others = scan::all_pids().unwrap();
        let found = others.into_iter().find(|&pid| {
            session_of(pid) == session
                && std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|it| it == "sleep\n")
        });
        if let Some(pid) = found {
            break pid;
        }
        std::thread::yield_now();
    };
    let pinned = pidfd::open(member).unwrap();
    pidfd::kill(&host.pidfd).unwrap();
    reap(&host);
    let trace = |host_lived_until| Trace {
        token,
        host: Some(host.identity.clone()),
        host_lived_until,
    };
    let doubtful = hunted(trace(0));
    assert_eq!(
        doubtful[0].doubtful,
        [member],
        "a later session may have the number"
    );
    assert!(!pidfd::has_ended(&pinned).unwrap(), "it may be a stranger");
    let ended = hunted(trace(start_ticks(member).unwrap()));
    assert_eq!(ended[0].killed, 1);
    assert!(pidfd::wait_ended(&pinned, SOON).unwrap());
    orphans::sweep(CLEAN_PASSES, |_| false, |_| {}).unwrap();
}

#[test]
fn a_stranger_in_the_same_session_or_with_another_token_is_not_touched() {
    let _alone = alone();
    let ours = spawn("/bin/cat", 0x5555);
    let stranger = spawn("/bin/cat", 0x5556);
    // Before a host has a session of its own it is in ours: that must not make us its session.
    let trace = Trace {
        token: 0x5555,
        host: Some(Identity {
            session: session_of(std::process::id()),
            ..ours.identity.clone()
        }),
        host_lived_until: 0,
    };
    let ended = hunted(trace);
    assert_eq!((ended[0].killed, &ended[0].left), (1, &Vec::new()));
    assert_eq!(reap(&ours), Exit::Signal(9));
    assert!(
        !pidfd::has_ended(&stranger.pidfd).unwrap(),
        "a stranger was hit"
    );
    pidfd::kill(&stranger.pidfd).unwrap();
    reap(&stranger);
}

#[test]
fn children_of_every_thread_are_seen() {
    let _alone = alone();
    let (started, told) = std::sync::mpsc::channel();
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let host = spawn("/bin/cat", 0x6666);
        started.send(host.identity.pid).unwrap();
        ends.recv().unwrap();
        host
    });
    let pid = told.recv().unwrap();
    assert!(
        orphans::children().unwrap().contains(&pid),
        "the list is per thread"
    );
    end.send(()).unwrap();
    let host = thread.join().unwrap();
    pidfd::kill(&host.pidfd).unwrap();
    reap(&host);
}

#[test]
fn a_verified_signal_reaches_the_recorded_process_and_nobody_else() {
    let _alone = alone();
    let machine = Machine::here().unwrap();
    let host = spawn("/bin/cat", 0x7777);
    let later = Identity {
        start_ticks: host.identity.start_ticks + 1,
        ..host.identity.clone()
    };
    let refused = recorded::signal(&machine, &later, Signal::KILL).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("start ticks"), "{said}");
    assert!(!pidfd::has_ended(&host.pidfd).unwrap());
    let proven = recorded::signal(&machine, &host.identity, Signal::KILL).unwrap();
    assert!(pidfd::wait_ended(&proven, SOON).unwrap());
    assert_eq!(reap(&host), Exit::Signal(9));
}
