//! The process layer with real processes. One at a time: a sweep meets every child of this process.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use supervisor::process::identity::Machine;
use supervisor::process::orphans::{self, CLEAN_PASSES, Swept};
use supervisor::process::pidfd;
use supervisor::process::recorded::{Field, Proven, Refused};
use supervisor::process::scan::{self, Found, Trace, Traces};
use supervisor::process::spawn::{Launcher, Order, Spawned};
use supervisor_core::containment::Wish;
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
    let found = tagged(token);
    assert!(found.iter().any(|found| found.pid == host.identity.pid));
    assert!(found.len() >= 2, "{found:?}");
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
    assert!(swept.ended >= 4 && swept.left == 0, "{swept:?}");
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
