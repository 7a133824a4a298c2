//! Numbers of dead processes given to strangers on purpose: none of the strangers is touched. Needs
//! root, who alone may choose the next process number.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use supervisor::process::hunt;
use supervisor::process::identity::{Machine, session_of};
use supervisor::process::pidfd;
use supervisor::process::recorded::{self, Field, Refused};
use supervisor::process::scan::{Trace, Traces};
use supervisor::process::spawn::{Launcher, Order};
use supervisor_core::containment::Wish;
use supervisor_core::identity::Identity;

/// Strangers that must live.
const STRANGERS: u32 = 200;
/// Starts until one has got the wanted number: other programs start as well.
const TRIES_MAX: u32 = 500;
/// The kernel's hint for the next number.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// A host that lived and is gone.
fn dead_host(launcher: &mut Launcher, token: u128) -> Identity {
    let null = File::options().write(true).open("/dev/null").unwrap();
    let order = Order {
        token,
        wish: Wish::Portable,
        memory: None,
    };
    let host = launcher.spawn(order, null).unwrap();
    drop(host.stdin);
    pidfd::collect(host.pidfd.as_fd()).unwrap();
    host.identity
}

/// A process with this number, that leads a session of its own or not; `None` when somebody else was always faster.
fn stranger(pid: u32, leads: bool) -> Option<Child> {
    let argv: &[&str] = if leads {
        &["setsid", "sleep"]
    } else {
        &["sleep"]
    };
    for _ in 0..TRIES_MAX {
        std::fs::write(LAST_PID, (pid - 1).to_string()).ok()?;
        #[expect(clippy::disallowed_methods, reason = "a stranger is none of ours")]
        let mut child = Command::new(argv[0])
            .args(&argv[1..])
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        if child.id() == pid {
            while leads && session_of(pid) != Some(pid) {
                std::thread::yield_now();
            }
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}

#[test]
fn a_stranger_with_the_number_of_a_dead_host_is_never_touched() {
    // Everybody may open it; only who writes is asked for the right.
    let written = std::fs::read(LAST_PID).and_then(|last| std::fs::write(LAST_PID, last));
    if written.is_err() {
        let mut err = std::io::stderr();
        writeln!(err, "not tested here: {LAST_PID} is root's").unwrap();
        return;
    }
    let machine = Machine::here().unwrap();
    let batch = "some-batch".parse().unwrap();
    let program = Path::new("/bin/cat");
    let mut launcher = Launcher::new(machine.clone(), program, Path::new("/"), &batch).unwrap();
    let mut met = 0;
    for trial in 1..=STRANGERS * 2 {
        let token = u128::from(trial) << 64 | 0xabcd;
        let host = dead_host(&mut launcher, token);
        let Some(mut child) = stranger(host.pid, trial % 2 == 0) else {
            continue;
        };
        let refused = recorded::signal(&machine, &host, Signal::KILL).unwrap_err();
        let Refused::Differs { field, pid } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(pid, child.id());
        assert!(
            matches!(field, Field::StartTicks | Field::PidfsInode),
            "{field}"
        );
        let trace = Trace {
            token,
            host: Some(host),
            host_lived_until: u64::MAX,
        };
        if trial % 20 == 0 {
            let ended = hunt::end_all(&machine, &Traces::new(vec![trace])).unwrap();
            assert_eq!(ended[0].killed, 0, "{ended:?}");
        }
        assert!(
            child.try_wait().unwrap().is_none(),
            "stranger {pid} was hit"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        met += 1;
        if met == STRANGERS {
            break;
        }
    }
    assert_eq!(met, STRANGERS, "the number could not be given out anew");
}
