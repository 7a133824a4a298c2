//! What `doctor` asks of the kernel, of this user's limits and of the state dir.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::{Resource, getrlimit};
#[cfg(target_os = "linux")]
use supervisor_core::identity::Identity;
use sysinfo::System;

use crate::cli::doctor::{Check, Health};
#[cfg(target_os = "macos")]
use crate::cli::macos_checks::{layers, pins};
use crate::driver::error::chain;
#[cfg(target_os = "linux")]
use crate::process::cgroup::Parent;
use crate::process::identity::Machine;
use crate::process::pidfd;
#[cfg(target_os = "linux")]
use crate::process::{orphans, stat, tag};
use crate::store::StateRoot;

/// Open files that about a thousand hosts need; fewer limit how many run at a time.
const OPEN_FILES_WANTED: u64 = 4096;
/// Free space below which a batch soon pauses.
const FREE_WANTED: u64 = 1 << 30;
/// Free space below which not even a journal can be begun.
const FREE_NEEDED: u64 = 16 << 20;
/// Free memory below which a few agents may be too many.
const MEMORY_WANTED: u64 = 1 << 30;
#[cfg(target_os = "linux")]
const KERNEL: &str = "use a kernel of Linux 5.14 or later with procfs mounted";
#[cfg(target_os = "macos")]
const KERNEL: &str = "look at the error: every macOS has this";

/// Every check that needs no folder.
pub fn all() -> Vec<Check> {
    let mut checks = identity();
    checks.extend(layers());
    checks.extend([open_files(), memory()]);
    checks
}

/// What holds the tree of a run together.
#[cfg(target_os = "linux")]
fn layers() -> Vec<Check> {
    let mut checks = Vec::new();
    checks.push(match orphans::adopt() {
        Ok(()) => Check::ok("subreaper", "orphans of hosts come home"),
        Err(error) => Check::bad(
            "subreaper",
            Health::Missing,
            error.to_string(),
            "what a dead host leaves can not be collected",
            KERNEL,
        ),
    });
    checks.push(match stat::lists_children() {
        Ok(()) => Check::ok("children", "the kernel lists the children of a process"),
        Err(error) => Check::bad(
            "children",
            Health::Missing,
            error.to_string(),
            "trees can not be walked: neither swept nor shown",
            "use a kernel with CONFIG_PROC_CHILDREN",
        ),
    });
    checks.extend([cgroup(), limit_tag(), user_namespaces(), hidepid()]);
    checks
}

fn identity() -> Vec<Check> {
    let machine = match Machine::here() {
        Ok(machine) => machine,
        Err(error) => {
            let follows = "no process can be proven to be ours";
            return vec![Check::bad(
                "node",
                Health::Missing,
                chain(&error),
                follows,
                KERNEL,
            )];
        }
    };
    let kernel = rustix::system::uname();
    let mut checks = vec![
        Check::ok("node", machine.node.to_string()),
        Check::ok("kernel", kernel.release().to_string_lossy()),
        Check::ok("pid_namespace", machine.pid_namespace.to_string()),
    ];
    let us = std::process::id();
    let identity = pidfd::open(us).and_then(|pinned| machine.identify(us, pinned));
    match identity {
        Ok(identity) => checks.extend(pins(&identity)),
        Err(error) => checks.push(Check::bad(
            "pidfd",
            Health::Missing,
            error.to_string(),
            "no process can be signalled safely",
            KERNEL,
        )),
    }
    checks
}

#[cfg(target_os = "linux")]
fn pins(identity: &Identity) -> Vec<Check> {
    let inode = match identity.pidfs_inode {
        Some(_) => Check::ok("pidfs_inode", "each process has an inode of its own"),
        None => Check::bad(
            "pidfs_inode",
            Health::Weak,
            "this kernel has none",
            "a process is known by its start time instead, which counts in steps of 10 ms",
            "Linux 6.9 or later has them",
        ),
    };
    vec![Check::ok("pidfd", "processes can be pinned"), inode]
}

#[cfg(target_os = "linux")]
fn cgroup() -> Check {
    let made = format!("doctor-{}", std::process::id()).parse();
    let Ok(name) = made else {
        return Check::ok("cgroup", "not looked at");
    };
    match Parent::make(&name) {
        Ok(parent) => {
            let place = parent
                .dir()
                .parent()
                .unwrap_or(Path::new("/"))
                .display()
                .to_string();
            parent.remove();
            Check::ok(
                "cgroup",
                format!("each run gets a leaf of its own below {place}"),
            )
        }
        Err(missing) => Check::bad(
            "cgroup",
            Health::Weak,
            chain(&missing),
            "a run that drops both tags while supervisor and host are dead can not be excluded; \
             memory limits are watched instead of kept",
            "run under `systemd-run --user --scope -p Delegate=yes`, or as root where cgroup v2 is \
             mounted",
        ),
    }
}

#[cfg(target_os = "linux")]
fn limit_tag() -> Check {
    let hard = getrlimit(Resource::Locks).maximum;
    let shown = hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string());
    match tag::limit_for(1, hard) {
        Some(_) => Check::ok(
            "limit_tag",
            format!("room below the limit of file locks ({shown})"),
        ),
        None => Check::bad(
            "limit_tag",
            Health::Weak,
            format!("no room below the limit of file locks ({shown})"),
            "what clears its environment is known by its descent and session only",
            "raise it: `ulimit -x unlimited`",
        ),
    }
}

#[cfg(target_os = "linux")]
fn user_namespaces() -> Check {
    let number = |path: &str| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    let most = number("/proc/sys/user/max_user_namespaces");
    let allowed = number("/proc/sys/kernel/unprivileged_userns_clone");
    let restricted = number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    let is_root = rustix::process::geteuid().is_root();
    let open = most.is_some_and(|most| most > 0);
    if open && (is_root || (allowed != Some(0) && restricted != Some(1))) {
        return Check::ok("user_namespaces", "allowed");
    }
    Check::bad(
        "user_namespaces",
        Health::Weak,
        "not allowed to this user",
        "`containment: pidns` can not be had",
        "needed for hostile agents only: allow unprivileged user namespaces",
    )
}

#[cfg(target_os = "linux")]
fn hidepid() -> Check {
    match fs::metadata("/proc/1") {
        Ok(_) => Check::ok("hidepid", "all processes can be seen"),
        Err(_) => Check::bad(
            "hidepid",
            Health::Weak,
            "procfs hides processes of other users",
            "what changed its user can not be found again after a crash",
            "mount procfs without hidepid",
        ),
    }
}

fn open_files() -> Check {
    let most = getrlimit(Resource::Nofile).maximum;
    match most {
        Some(most) if most < OPEN_FILES_WANTED => Check::bad(
            "open_files",
            Health::Weak,
            format!("at most {most}"),
            "each live run takes four: fewer run at a time",
            "raise the hard limit: `ulimit -Hn`, LimitNOFILE",
        ),
        Some(most) => Check::ok("open_files", format!("at most {most}")),
        None => Check::ok("open_files", "unlimited"),
    }
}

/// The memory that the control group of this process allows, if it is bounded, else the machine's.
fn memory() -> Check {
    let mut system = match System::new() {
        Ok(system) => system,
        Err(error) => return memory_unknown(error.to_string()),
    };
    system.refresh_memory();
    let whole = (system.available_memory(), system.total_memory());
    let (free, of) = match system.cgroup_limits() {
        Some(limits) if limits.total_memory < whole.1 => (limits.free_memory, limits.total_memory),
        Some(_) | None => whole,
    };
    if of == 0 {
        return memory_unknown("the kernel tells none".to_owned());
    }
    let shown = format!("{} MiB free of {} MiB{}", free >> 20, of >> 20, load());
    if free >= MEMORY_WANTED {
        return Check::ok("memory", shown);
    }
    Check::bad(
        "memory",
        Health::Weak,
        shown,
        "the kernel may kill agents, which costs them an attempt of class `oom`",
        "lower `concurrency`, or end what else needs memory",
    )
}

fn memory_unknown(why: String) -> Check {
    Check::bad(
        "memory",
        Health::Weak,
        why,
        "nobody knows how many agents fit",
        "mount procfs",
    )
}

/// How busy the processors are, where that is told.
fn load() -> String {
    match System::load_average() {
        Ok(load) => format!(
            "; load {:.2} {:.2} {:.2}",
            load.one, load.five, load.fifteen
        ),
        Err(_unknown) => String::new(),
    }
}

/// The checks of the state dir.
pub fn state(root: &StateRoot) -> Vec<Check> {
    let path = root.path();
    let shown = path.display().to_string();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return vec![Check::ok(
                "state_dir",
                format!("{shown}: made by the first `run`"),
            )];
        }
        Err(error) => {
            return vec![Check::bad(
                "state_dir",
                Health::Missing,
                format!("{shown}: {error}"),
                "no batch can be read or begun",
                "make it readable",
            )];
        }
    };
    let ours = rustix::process::geteuid().as_raw();
    let safe = found.is_dir() && found.uid() == ours && found.mode() & 0o077 == 0;
    let mut checks = vec![if safe {
        Check::ok("state_dir", format!("{shown}: ours alone"))
    } else {
        Check::bad(
            "state_dir",
            Health::Missing,
            format!("{shown}: not a folder of this user alone"),
            "`run` refuses a folder that is a link or another user's",
            "make it a folder of yours: chmod 700",
        )
    }];
    checks.extend([free_space(path), durable(path)]);
    checks
}

fn free_space(path: &Path) -> Check {
    let free = match rustix::fs::statvfs(path) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            let follows = "nothing is known of the room for journals";
            let error = error.to_string();
            return Check::bad(
                "free_space",
                Health::Weak,
                error,
                follows,
                "look at the disk",
            );
        }
    };
    let shown = format!("{} MiB", free >> 20);
    let state = match free {
        FREE_WANTED.. => return Check::ok("free_space", shown),
        FREE_NEEDED.. => Health::Weak,
        _none => Health::Missing,
    };
    Check::bad(
        "free_space",
        state,
        shown,
        "batches pause when the disk is full, and go on when there is room",
        "make room on the disk that holds the state",
    )
}

/// A file is made, synced and removed.
fn durable(path: &Path) -> Check {
    let file = path.join(format!(".doctor-{}", std::process::id()));
    let tried = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&file)
        .and_then(|mut made| made.write_all(b"doctor\n").and_then(|()| made.sync_data()))
        .and_then(|()| fs::File::open(path)?.sync_all());
    let removed = fs::remove_file(&file);
    match tried.and(removed) {
        Ok(()) => Check::ok("durability", "files and names can be made durable"),
        Err(error) => Check::bad(
            "durability",
            Health::Missing,
            error.to_string(),
            "no record can be made: batches pause; `ps` and `kill` go on working",
            "make the disk writable, or name another one by XDG_STATE_HOME",
        ),
    }
}
