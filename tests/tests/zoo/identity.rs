//! A recorded process is signalled only as long as it is the recorded one.

use rustix::process::Signal;
use supervisor::process::identity::Machine;
use supervisor::process::pidfd;
use supervisor::process::recorded::{self, Field, Refused};
use supervisor_core::identity::Identity;
use supervisor_core::time::BootId;
use supervisor_tests::world::{World, tool};
use supervisor_tests::zoo::kernel::{self, Side};
use supervisor_tests::zoo::ledger::Life;
use supervisor_tests::zoo::owners::{Owners, end_at_once};

/// Processes whose number is given to a stranger.
const STRANGERS: usize = 200;
/// Tries, because on a busy machine somebody else may take the number first.
const TRIES_MAX: usize = 2 * STRANGERS;

fn identify(machine: &Machine, pid: u32) -> Identity {
    let pin = pidfd::open(pid).unwrap();
    machine.identify(pid, &pin).unwrap()
}

/// What the product does with a process that it has recorded: ends it, or says why not.
fn end_recorded(machine: &Machine, identity: &Identity) -> Result<(), Refused> {
    recorded::signal(machine, identity, Signal::KILL).map(drop)
}

/// The identity of a process that has ended; its number is free.
fn ended(machine: &Machine) -> Identity {
    let mut child = tool("sleep").arg("1000").spawn().unwrap();
    let identity = identify(machine, child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    identity
}

#[test]
fn a_stranger_that_got_a_recorded_number_is_never_touched() {
    let machine = Machine::here().unwrap();
    let mut untouched = 0;
    for _ in 0..TRIES_MAX {
        if untouched == STRANGERS {
            break;
        }
        let recorded = ended(&machine);
        let pid = i32::try_from(recorded.pid).unwrap();
        let stranger = match kernel::split_with_pid(pid) {
            Ok(Side::Child) => kernel::wait_for_the_end(),
            Ok(Side::Parent(stranger)) => stranger,
            Err(error) if error.raw_os_error() == Some(nix::libc::EPERM) => {
                println!("skipped: a number can not be chosen here: {error}");
                return;
            }
            Err(_) => continue, // taken by somebody else meanwhile
        };
        let life = Life::of(stranger.as_raw()).unwrap();
        let refused = end_recorded(&machine, &recorded);
        let alive = life.is_alive();
        life.end();
        kernel::collect(stranger).unwrap();
        assert!(alive, "a stranger with the number {pid} was ended");
        assert!(
            matches!(
                refused,
                Err(Refused::Differs {
                    field: Field::StartTicks | Field::PidfsInode,
                    ..
                })
            ),
            "{refused:?}"
        );
        untouched += 1;
    }
    assert_eq!(untouched, STRANGERS);
}

#[test]
fn each_field_of_an_identity_that_differs_is_named() {
    let machine = Machine::here().unwrap();
    let mut child = tool("sleep").arg("1000").spawn().unwrap();
    let own = identify(&machine, child.id());
    let edits: [(&str, Identity); 5] = [
        (
            "node",
            Identity {
                node: "elsewhere".into(),
                ..own.clone()
            },
        ),
        (
            "boot id",
            Identity {
                boot_id: BootId(1),
                ..own.clone()
            },
        ),
        (
            "pid namespace",
            Identity {
                pid_namespace: 1,
                ..own.clone()
            },
        ),
        (
            "start ticks",
            Identity {
                start_ticks: own.start_ticks + 1,
                ..own.clone()
            },
        ),
        (
            "pidfs inode",
            Identity {
                pidfs_inode: own.pidfs_inode.map(|inode| inode + 1),
                ..own.clone()
            },
        ),
    ];
    for (field, edited) in edits {
        if edited == own {
            println!("no {field} here: this kernel has none");
            continue;
        }
        let refused = end_recorded(&machine, &edited).unwrap_err().to_string();
        assert!(refused.contains(field), "{field}: {refused}");
        assert!(child.try_wait().unwrap().is_none(), "{field}: it was ended");
    }
    end_recorded(&machine, &own).unwrap();
    assert!(!child.wait().unwrap().success());
}

/// A batch whose journal was edited while its supervisor was dead, and a stranger that the edit
/// points to.
struct Edited {
    world: World,
    stranger: std::process::Child,
}

impl Drop for Edited {
    fn drop(&mut self) {
        drop(self.stranger.kill());
        drop(self.stranger.wait());
    }
}

/// Starts a batch, stops its host, kills its supervisor and lets `edit` change each line of the
/// journal that holds the host's identity: the line, the host's number, the stranger's number.
fn edit_journal(edit: impl Fn(&str, i32, u32) -> String) -> Edited {
    let world = World::new();
    let text = format!(
        "version: 1\nname: zoo\nisolation: none\ntasks:\n  - id: only\n    run: [{:?}, bystander, {:?}]\n",
        super::PROGRAM,
        world.path("home").display().to_string()
    );
    world.write("zoo.yml", &text);
    let run = world.start("run", &["run", "zoo.yml"]);
    let owners = world.eventually("the host runs", |world| {
        let owners = Owners::of(world, "zoo");
        (!owners.hosts.is_empty() && world.journal().iter().any(names_host)).then_some(owners)
    });
    let host = owners.hosts[0];
    host.stop();
    world.eventually("the host is stopped", |_| host.is_stopped().then_some(()));
    let mut above = owners.guardians.clone();
    above.extend(owners.supervisor);
    end_at_once(&world, &above);
    assert_eq!(run.end(&world), None, "the run was killed");
    let stranger = tool("sleep").arg("1000").spawn().unwrap();
    let folder = world.batch_dir().unwrap().join("journal");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let wanted = format!("\"pid\":{},", host.pid);
        let lines = text.lines().map(|line| match line.contains(&wanted) {
            true => seal(&edit(line, host.pid, stranger.id())),
            false => line.to_owned(),
        });
        let edited = lines.map(|line| line + "\n").collect::<String>();
        assert_eq!(edited.lines().count(), text.lines().count());
        std::fs::write(&path, edited).unwrap();
    }
    Edited { world, stranger }
}

/// Whether a line of the journal holds the identity of a host.
fn names_host(line: &serde_json::Value) -> bool {
    line["record"].get("run_spawned").is_some()
}

/// A line with the checksum that its edited text needs: the CRC-32 of all bytes but its digits.
fn seal(line: &str) -> String {
    let at = line.find("\"crc\":\"").unwrap() + "\"crc\":\"".len();
    let (before, after) = (&line[..at], &line[at + 8..]);
    let mut sum = crc32fast::Hasher::new();
    sum.update(before.as_bytes());
    sum.update(after.as_bytes());
    format!("{before}{:08x}{after}", sum.finalize())
}

#[test]
fn a_kill_by_an_edited_journal_is_refused_with_the_field() {
    let mut edited = edit_journal(|line, host, stranger| {
        let (was, is) = (format!("\"pid\":{host},"), format!("\"pid\":{stranger},"));
        line.replace(&was, &is)
    });
    let ran = edited.world.supervisor(&["kill", "zoo", "--grace", "0s"]);
    assert!(
        edited.stranger.try_wait().unwrap().is_none(),
        "a stranger was ended: {}",
        ran.stdout
    );
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("start ticks"), "{said}");
    assert_eq!(ran.code, Some(8), "{said}");
}

#[test]
fn a_kill_by_a_journal_of_another_boot_is_refused_with_the_field() {
    let mut edited = edit_journal(|line, host, stranger| {
        let (was, is) = (format!("\"pid\":{host},"), format!("\"pid\":{stranger},"));
        let line = line.replace(&was, &is);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let dashed = boot.trim();
        let other = line.replace(dashed, "00000000-0000-4000-8000-000000000001");
        let plain = dashed.replace('-', "");
        other.replace(&plain, "00000000000040008000000000000001")
    });
    let ran = edited.world.supervisor(&["kill", "zoo", "--grace", "0s"]);
    assert!(
        edited.stranger.try_wait().unwrap().is_none(),
        "a stranger was ended: {}",
        ran.stdout
    );
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("boot id"), "{said}");
    assert_eq!(ran.code, Some(8), "{said}");
}
