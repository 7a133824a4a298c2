//! The list of a batch's live processes: derived from the journal, so that whoever looks need not
//! fold it.
//!
//! It is plain JSON for any tool, replaced as a whole and never synced: a crash may leave an old one
//! or a damaged one. It proves nothing. Whoever acts on an entry proves the process by the identity
//! that stands there, and the journal stays the truth.

use std::io;
use std::path::Path;
use std::sync::Arc;

use protocol::ids::{AttemptNo, BatchId, Generation, TaskId};
use serde::{Deserialize, Serialize};
use supervisor_core::containment::{Containment, Layer};
use supervisor_core::facts::Facts;
use supervisor_core::identity::Identity;
use supervisor_core::time::BootId;

use super::disk::{Bytes, Disk, OpenAs};
use super::error::StoreError;
use super::journal::Position;
use super::state_dir::StateDir;

/// Version of the file.
pub const REGISTRY_VERSION: u32 = 1;
/// Longest file, bytes: a hundred thousand live runs, which no machine holds.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// What lives of a batch, as its supervisor last wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// [`REGISTRY_VERSION`].
    pub v: u32,
    /// The batch.
    pub batch: BatchId,
    /// The supervisor's start that wrote it.
    pub term: u64,
    /// The last record that it takes into account.
    pub seq: u64,
    /// Written at a clean end: nothing lives, as long as the journal still ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<End>,
    /// The guardian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guardian: Option<Process>,
    /// The supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<Process>,
    /// The batch's seed, of which every spawn token is made: what an ended run left is known by it.
    pub seed: u64,
    /// The newest run that was ever decided.
    pub last_run: Generation,
    /// Its live runs.
    pub runs: Vec<LiveRun>,
}

/// Where a journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Its last segment.
    pub segment: u32,
    /// Bytes in it.
    pub bytes: u64,
}

/// One live run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveRun {
    /// Its generation.
    pub run: Generation,
    /// Its task.
    pub task: TaskId,
    /// Its attempt.
    pub attempt: AttemptNo,
    /// Its spawn token, 32 hexadecimal digits.
    #[serde(with = "hex")]
    pub token: u128,
    /// Its host, once spawned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Process>,
    /// The words of the layers that hold its tree together.
    #[serde(default)]
    pub layers: Vec<String>,
    /// The folder of its cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<Arc<str>>,
}

impl LiveRun {
    /// What holds its tree together; words that this release does not know are left out.
    pub fn containment(&self) -> Containment {
        let known = |layer: &&Layer| self.layers.iter().any(|word| word == layer.word());
        Containment {
            layers: Layer::ALL.iter().filter(known).copied().collect(),
            leaf: self.leaf.clone(),
            // Limits are no concern of those who look for what was left.
            memory: None,
        }
    }
}

/// The identity of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Clock ticks since boot at its start.
    pub start_ticks: u64,
    /// The boot, 32 hexadecimal digits.
    #[serde(with = "hex")]
    pub boot_id: u128,
    /// The machine.
    pub node: Arc<str>,
    /// Inode of its pid namespace.
    pub pid_namespace: u64,
    /// Inode of its pidfd, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pidfs_inode: Option<u64>,
    /// Its session, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
}

impl Process {
    /// As the process layer compares it.
    pub fn identity(&self) -> Identity {
        Identity {
            node: self.node.clone(),
            pid_namespace: self.pid_namespace,
            boot_id: BootId(self.boot_id),
            pid: self.pid,
            start_ticks: self.start_ticks,
            pidfs_inode: self.pidfs_inode,
            session: self.session,
        }
    }
}

impl From<&Identity> for Process {
    fn from(identity: &Identity) -> Self {
        Self {
            pid: identity.pid,
            start_ticks: identity.start_ticks,
            boot_id: identity.boot_id.0,
            node: identity.node.clone(),
            pid_namespace: identity.pid_namespace,
            pidfs_inode: identity.pidfs_inode,
            session: identity.session,
        }
    }
}

impl Registry {
    /// What lives by this state.
    pub fn of(facts: &Facts) -> Registry {
        let runs = facts.runs.iter().filter_map(|(&generation, run)| {
            let task = facts.tasks.get(usize::try_from(run.task.0).ok()?)?;
            Some(LiveRun {
                run: generation,
                task: task.id.clone(),
                attempt: run.attempt,
                token: run.token,
                host: run.identity.as_ref().map(Process::from),
                layers: run
                    .containment
                    .layers
                    .iter()
                    .map(|it| it.word().to_owned())
                    .collect(),
                leaf: run.containment.leaf.clone(),
            })
        });
        Registry {
            v: REGISTRY_VERSION,
            batch: facts.batch.id.clone(),
            term: facts.batch.term,
            seq: facts.batch.seq,
            closed: None,
            guardian: facts.batch.guardian.as_ref().map(Process::from),
            supervisor: facts.batch.supervisor.as_ref().map(Process::from),
            seed: facts.batch.seed,
            last_run: facts.batch.last_generation,
            runs: runs.collect(),
        }
    }

    /// The same after a clean end with the journal ending at `at`.
    #[must_use]
    pub fn closed(self, at: Position) -> Registry {
        let closed = End {
            segment: at.segment,
            bytes: at.offset,
        };
        Registry {
            closed: Some(closed),
            guardian: None,
            supervisor: None,
            ..self
        }
    }

    /// Whether nothing can have begun since a clean end: the journal has not grown. Two looks at
    /// names and sizes instead of a fold of all records.
    pub fn proves_rest(&self, dir: &StateDir) -> bool {
        let Some(end) = self.closed.filter(|_| self.runs.is_empty()) else {
            return false;
        };
        let size = |segment: u32| {
            let found = std::fs::symlink_metadata(dir.segment(segment));
            found.map(|found| found.len())
        };
        let goes_on = size(end.segment.saturating_add(1)).is_ok();
        size(end.segment).is_ok_and(|bytes| bytes == end.bytes) && !goes_on
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        #[expect(
            clippy::expect_used,
            reason = "memory takes every write, and there is no map with keys that are not text"
        )]
        let mut bytes = serde_json::to_vec(self).expect("a registry is always JSON");
        bytes.push(b'\n');
        bytes
    }
}

/// Replaces the list: whoever reads sees the former one or this one.
///
/// # Errors
/// What the disk says; the list is only older than the journal then.
pub fn write(disk: &dyn Disk, dir: &StateDir, bytes: &[u8]) -> Result<(), StoreError> {
    let path = dir.registry();
    let aside = path.with_added_extension("new");
    let mut file = disk
        .open(&aside, OpenAs::Write)
        .map_err(|error| StoreError::writing(&aside, error))?;
    file.truncate(0).map_err(StoreError::io("cut", &aside))?;
    file.write_at(0, bytes)
        .map_err(|error| StoreError::writing(&aside, error))?;
    disk.rename(&aside, &path)
        .map_err(StoreError::io("rename", &aside))
}

/// Reads the list; `None` where there is none.
///
/// # Errors
/// [`StoreError::Unreadable`], [`StoreError::Newer`], [`StoreError::Io`]; the journal says the same
/// and more.
pub fn read(disk: &dyn Disk, dir: &StateDir) -> Result<Option<Registry>, StoreError> {
    let path = dir.registry();
    let file = match disk.open(&path, OpenAs::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", &path)(error)),
    };
    let len = file.len().map_err(StoreError::io("read", &path))?;
    if len > FILE_MAX {
        let why = "it is longer than it may be";
        return Err(StoreError::unreadable(&path, FILE_MAX, why));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    io::Read::read_to_end(&mut Bytes::of(&*file, 0, len), &mut bytes)
        .map_err(StoreError::io("read", &path))?;
    parse(&path, &bytes).map(Some)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Registry, StoreError> {
    #[derive(Deserialize)]
    struct Head {
        v: u32,
    }
    let unreadable = |error: serde_json::Error| {
        StoreError::unreadable(path, error.column() as u64, error.to_string())
    };
    let head: Head = serde_json::from_slice(bytes).map_err(unreadable)?;
    if head.v > REGISTRY_VERSION {
        return Err(StoreError::Newer {
            file: path.to_owned(),
            found: head.v,
            known: REGISTRY_VERSION,
        });
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

/// Numbers of 128 bits: JSON has none that every tool reads.
mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:032x}"))
    }

    /// Also as the kernel writes a boot id, with hyphens.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let digits: String = text.chars().filter(|&c| c != '-').collect();
        let whole = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let value = whole.then(|| u128::from_str_radix(&digits, 16).ok());
        value
            .flatten()
            .ok_or_else(|| D::Error::custom("not 32 hexadecimal digits"))
    }
}
