//! A cgroup of its own for each run, where this user may make one: the one layer that no process
//! leaves unless it may write other cgroups.
//!
//! ```text
//! <our own cgroup>/supervisor-<batch>/<spawn token>/   one leaf per run; its host is born in it
//! ```
//!
//! A leaf's name is the run's secret spawn token, so its name proves it ours. One write to
//! `cgroup.kill` is not trusted: a process that forks and ends at that moment has been seen to get
//! away; only `populated 0` is the end.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::ids::BatchId;
use rustix::fs::{Access, Mode, OFlags, access, open};

use crate::process::pressure::count_of;
use crate::process::tag::token_text;
use crate::process::{birth, rest};

/// Wait between the first two writes of `cgroup.kill`, then twice as long each time up to
/// [`KILL_AGAIN`]: what was killed takes 100 to 200 us to be gone.
const KILL_AGAIN_FIRST: Duration = Duration::from_micros(30);
/// Longest wait between two writes of `cgroup.kill`.
const KILL_AGAIN: Duration = Duration::from_micros(500);
/// Most writes: two seconds of them; what then lives is stuck in the kernel.
const KILLS_MAX: u32 = 4_000;
/// Deepest folder below a leaf that is looked into when it is removed: a supervisor inside a run
/// makes two levels, and ten supervisors inside each other are more than the tags have room for.
const DEPTH_MAX: u32 = 24;
/// Links of a folder that holds no other: its name and its own `.`.
const NO_FOLDERS: u64 = 2;

/// What the cgroups below one have a say over.
const SUBTREE: &str = "cgroup.subtree_control";

/// Why runs can not have cgroups here.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// No cgroup v2 is mounted.
    #[error("no cgroup v2 file system is mounted here")]
    NotMounted,
    /// We may not make folders in our own cgroup, or not move processes out of it.
    #[error("our own cgroup {path} is not delegated to this user")]
    NotDelegated {
        /// Our own cgroup.
        path: PathBuf,
        /// What was refused.
        #[source]
        source: io::Error,
    },
    /// The kernel is older than Linux 5.14, or our cgroup is a threaded one.
    #[error("cgroups below {path} can not be killed")]
    NoKill {
        /// Our own cgroup.
        path: PathBuf,
    },
    /// A process can not be started inside a cgroup: `clone3` is refused or not there.
    #[error("no process can be started inside a cgroup here")]
    NoBirth(#[source] io::Error),
}

/// The folder of one batch.
#[derive(Debug)]
pub struct Parent {
    dir: PathBuf,
}

impl Parent {
    /// Makes the folder of a batch below our own cgroup, if runs can really have cgroups there.
    ///
    /// # Errors
    /// [`Missing`]: why they can not.
    pub fn make(batch: &BatchId) -> Result<Parent, Missing> {
        let own = own_cgroup().ok_or(Missing::NotMounted)?;
        birth::available().map_err(Missing::NoBirth)?;
        let refused = |source| Missing::NotDelegated {
            path: own.clone(),
            source,
        };
        // Whoever moves a process needs this file of the folder above both places.
        access(own.join("cgroup.procs"), Access::WRITE_OK).map_err(|e| refused(e.into()))?;
        let dir = own.join(format!("supervisor-{batch}"));
        make(&dir).map_err(refused)?;
        let parent = Parent { dir };
        let domain = fs::read_to_string(parent.dir.join("cgroup.type"));
        let is_domain = domain.is_ok_and(|kind| kind.trim() == "domain");
        if !is_domain || access(parent.dir.join("cgroup.kill"), Access::WRITE_OK).is_err() {
            parent.remove();
            return Err(Missing::NoKill { path: own });
        }
        Ok(parent)
    }

    /// Makes the leaf of a run.
    ///
    /// # Errors
    /// What the kernel says (too many cgroups, delegation withdrawn).
    pub fn leaf(&self, token: u128) -> io::Result<Leaf> {
        let leaf = Leaf {
            dir: self.dir.join(token_text(token)),
        };
        make(&leaf.dir)?;
        Ok(leaf)
    }

    /// Gives leaves that are made from now on a say over memory, where that can be had: not below a
    /// cgroup that holds processes of its own, unless it is the root of the hierarchy.
    ///
    /// Asked for only when a run has a limit: with it the kernel counts every page of every run.
    ///
    /// # Errors
    /// Why it can not be had.
    pub fn count_memory(&self) -> io::Result<()> {
        let ours = self.dir.join(SUBTREE);
        let counts = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_ascii_whitespace().any(|name| name == "memory")
        };
        if counts(&ours) {
            return Ok(());
        }
        if let Some(above) = self.dir.parent().map(|above| above.join(SUBTREE))
            && !counts(&above)
        {
            write_existing(&above, "+memory")?;
        }
        write_existing(&ours, "+memory")
    }

    /// Removes the folder, if nothing is left in it.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::debug!(dir = %self.dir.display(), %error, "a cgroup is not removed");
        }
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The cgroup of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    dir: PathBuf,
}

impl Leaf {
    /// A recorded leaf; `None` when the folder's name is not this run's token: nothing else proves
    /// that what is in it is ours.
    pub fn recorded(dir: &str, token: u128) -> Option<Leaf> {
        let dir = PathBuf::from(dir);
        let named = dir
            .file_name()
            .is_some_and(|name| *name == *token_text(token));
        named.then_some(Leaf { dir })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The open folder, to start a process in.
    ///
    /// # Errors
    /// When it is gone.
    pub fn open(&self) -> io::Result<OwnedFd> {
        // Elsewhere there are no cgroups, and this only has to be known.
        #[cfg(target_os = "linux")]
        const NAMED_ONLY: OFlags = OFlags::PATH;
        #[cfg(not(target_os = "linux"))]
        const NAMED_ONLY: OFlags = OFlags::RDONLY;
        let flags = NAMED_ONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(open(&self.dir, flags, Mode::empty())?)
    }

    /// Limits the memory of the whole run, its host included; `false` where the cgroup has no say
    /// over memory.
    ///
    /// Swap is no way around the limit. One process is killed when it is reached, not the whole
    /// group (`memory.oom.group` stays 0): the host is in the leaf too and must live to say what
    /// happened; it is small, and what it starts is marked as the better choice.
    ///
    /// # Errors
    /// When the limit is refused.
    pub fn limit_memory(&self, bytes: u64) -> io::Result<bool> {
        match write_existing(&self.dir.join("memory.max"), &bytes.to_string()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        match write_existing(&self.dir.join("memory.swap.max"), "0") {
            Ok(()) => Ok(true),
            // A kernel without swap has no such file.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Processes of it that the kernel killed for want of memory, its own or the machine's; 0 where
    /// it has no say over memory.
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.dir.join("memory.events")).unwrap_or_default();
        count_of(&events, "oom_kill").unwrap_or(0)
    }

    /// Whether a process lives in it or below it; one that is gone holds none.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_populated(&self) -> io::Result<bool> {
        match fs::read_to_string(self.dir.join("cgroup.events")) {
            Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The processes in it and below it.
    pub fn members(&self) -> Vec<u32> {
        members(&self.dir, DEPTH_MAX)
    }

    /// Kills everything in it once, without a look at what follows; how many processes that were,
    /// but for `host`. A kernel that refuses is met again by [`Leaf::kill`].
    pub fn strike(&self, host: u32) -> u32 {
        let others = self.members().into_iter().filter(|&pid| pid != host);
        let others = u32::try_from(others.count()).unwrap_or(u32::MAX);
        match write_existing(&self.dir.join("cgroup.kill"), "1") {
            Ok(()) => others,
            Err(error) => {
                tracing::debug!(leaf = %self.dir.display(), %error, "can not be killed at once");
                0
            }
        }
    }

    /// Kills everything in it, and writes so again until nothing is; `false` when something does
    /// not die.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<bool> {
        let mut again = KILL_AGAIN_FIRST;
        for _ in 0..KILLS_MAX {
            if !self.is_populated()? {
                return Ok(true);
            }
            match write_existing(&self.dir.join("cgroup.kill"), "1") {
                Ok(()) => {}
                Err(error) if is_gone(&error) => return Ok(true),
                Err(error) => return Err(error),
            }
            if !self.is_populated()? {
                return Ok(true);
            }
            rest(again);
            again = (again * 2).min(KILL_AGAIN);
        }
        Ok(false)
    }

    /// Removes it if no process is in it; `false` when one is.
    pub fn remove_empty(&self) -> bool {
        match fs::remove_dir(&self.dir) {
            Ok(()) => true,
            Err(error) if is_gone(&error) => true,
            // Populated, or with folders of a supervisor that ran inside the run.
            Err(_) => match self.is_populated() {
                Ok(false) => {
                    self.remove();
                    true
                }
                Ok(true) | Err(_) => false,
            },
        }
    }

    /// Removes it, and what supervisors inside the run made below it; only empty folders go.
    pub fn remove(&self) {
        remove_tree(&self.dir, DEPTH_MAX);
    }
}

/// Removes what is left of a batch's folder whose runs are all known to be gone.
pub fn remove_leftovers(parent: &Path) {
    remove_tree(parent, DEPTH_MAX);
}

fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Files of a cgroup are there or not; writing never makes one.
fn write_existing(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    fs::File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

fn is_gone(error: &io::Error) -> bool {
    let removed = rustix::io::Errno::NODEV.raw_os_error();
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(removed)
}

fn folders_in(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    // Each folder counts as a link of the one above, so most are known to have none without a list.
    if fs::metadata(dir).is_ok_and(|found| found.nlink() == NO_FOLDERS) {
        return Vec::new();
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

fn members(dir: &Path, depth: u32) -> Vec<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<u32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
    if depth > 0 {
        for below in folders_in(dir) {
            found.extend(members(&below, depth - 1));
        }
    }
    found
}

fn remove_tree(dir: &Path, depth: u32) {
    if depth > 0 {
        for below in folders_in(dir) {
            remove_tree(&below, depth - 1);
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => {}
        Err(error) if is_gone(&error) => {}
        Err(error) => tracing::debug!(dir = %dir.display(), %error, "a cgroup is not removed"),
    }
}

/// Our own cgroup of the v2 hierarchy, also where version 1 is mounted beside it.
fn own_cgroup() -> Option<PathBuf> {
    let ours = fs::read("/proc/self/cgroup").ok()?;
    let mounts = fs::read("/proc/self/mountinfo").ok()?;
    find_own(&ours, &mounts)
}

fn find_own(ours: &[u8], mounts: &[u8]) -> Option<PathBuf> {
    let path = lines(ours).find_map(|line| line.strip_prefix(b"0::"))?;
    let path = PathBuf::from(OsString::from_vec(path.to_vec()));
    lines(mounts).find_map(|line| {
        let (root, at) = v2_mount(line)?;
        // A mount may show only a part of the hierarchy: its root is not ours to leave.
        let below = path.strip_prefix(&root).ok()?;
        Some(if below.as_os_str().is_empty() {
            at
        } else {
            at.join(below)
        })
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

/// Root and place of a mount of cgroup v2: fields 4 and 5 of `mountinfo`, the type behind ` - `.
fn v2_mount(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let line = std::str::from_utf8(line).ok()?;
    let (place, kind) = line.split_once(" - ")?;
    if kind.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = place.split(' ').skip(3);
    Some((fields.next()?.into(), fields.next()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_cgroup_is_found_in_every_kind_of_mount() {
        let hybrid = b"30 29 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let ours = b"9:name=systemd:/\n0::/\n";
        let found = find_own(ours, hybrid).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified"));
        let pure = b"24 1 8:1 / / rw - ext4 /dev/sda rw\n\
            30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let found = find_own(b"0::/user.slice/run-7.scope\n", pure).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/user.slice/run-7.scope"));
        let part = b"30 24 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let found = find_own(b"0::/docker/ab/x\n", part).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/x"));
        assert_eq!(find_own(b"0::/elsewhere\n", part), None);
        assert_eq!(find_own(b"3:cpu:/\n", hybrid), None, "only version 1");
        let v1 = b"30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(find_own(ours, v1), None);
    }

    #[test]
    fn a_recorded_leaf_must_carry_the_token_of_its_run() {
        let token = 0xfeed;
        let dir = format!("/sys/fs/cgroup/supervisor-b/{}", token_text(token));
        assert!(Leaf::recorded(&dir, token).is_some());
        assert_eq!(Leaf::recorded(&dir, token + 1), None);
        assert_eq!(Leaf::recorded("/sys/fs/cgroup", token), None);
        assert_eq!(Leaf::recorded("/", token), None);
    }

    #[test]
    fn a_leaf_that_is_gone_holds_nobody() {
        let gone = Leaf::recorded(&format!("/nowhere/{}", token_text(1)), 1).unwrap();
        assert!(!gone.is_populated().unwrap());
        assert!(gone.kill().unwrap());
        assert!(gone.members().is_empty());
        gone.remove();
    }

    fn leaf_with(files: &[&str]) -> (tempfile::TempDir, Leaf) {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join(token_text(7));
        fs::create_dir(&dir).unwrap();
        for file in files {
            fs::write(dir.join(file), "").unwrap();
        }
        (folder, Leaf { dir })
    }

    #[test]
    fn a_limit_of_memory_leaves_no_swap_to_get_around_it() {
        let (_folder, leaf) = leaf_with(&["memory.max", "memory.swap.max"]);
        assert!(leaf.limit_memory(64 << 20).unwrap());
        let said = |file| fs::read_to_string(leaf.dir.join(file)).unwrap();
        assert_eq!(
            (
                said("memory.max").as_str(),
                said("memory.swap.max").as_str()
            ),
            ("67108864", "0")
        );
        let (_folder, leaf) = leaf_with(&["memory.max"]);
        assert!(leaf.limit_memory(1).unwrap(), "a kernel without swap");
    }

    #[test]
    fn a_leaf_without_a_say_over_memory_keeps_no_limit_and_counts_no_kill() {
        let (_folder, leaf) = leaf_with(&[]);
        assert!(!leaf.limit_memory(64 << 20).unwrap());
        assert_eq!(
            fs::read_dir(&leaf.dir).unwrap().count(),
            0,
            "no file was made"
        );
        assert_eq!(leaf.oom_kills(), 0);
        fs::write(leaf.dir.join("memory.events"), "max 9\noom 2\noom_kill 1\n").unwrap();
        assert_eq!(leaf.oom_kills(), 1);
    }

    #[test]
    fn memory_is_asked_for_above_and_below_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("supervisor-b");
        fs::create_dir(&dir).unwrap();
        let parent = Parent { dir: dir.clone() };
        assert!(
            parent.count_memory().is_err(),
            "nothing is handed down here"
        );
        fs::write(folder.path().join(SUBTREE), "cpu memory").unwrap();
        fs::write(dir.join(SUBTREE), "").unwrap();
        parent.count_memory().unwrap();
        let above = fs::read_to_string(folder.path().join(SUBTREE)).unwrap();
        assert_eq!(above, "cpu memory", "it has it");
        let below = fs::read_to_string(dir.join(SUBTREE)).unwrap();
        assert_eq!(below, "+memory");
        fs::write(dir.join(SUBTREE), "memory\n").unwrap();
        parent.count_memory().unwrap();
        assert_eq!(fs::read_to_string(dir.join(SUBTREE)).unwrap(), "memory\n");
    }
}
