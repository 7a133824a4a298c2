//! The folder of one batch: the name of every file in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use protocol::ids::{AttemptNo, Generation, TaskId};
use supervisor_core::time::Wall;

use super::disk::{Disk, is_own_folder};
use super::error::StoreError;

/// Name of the checkpoint.
pub const CHECKPOINT_NAME: &str = "checkpoint.json";

/// The folder of one batch. Only names: nothing is opened by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The folder at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes the folder and those in it that every batch has, durable; they may exist.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn create(&self, disk: &dyn Disk) -> Result<(), StoreError> {
        let folders = [self.journal(), self.inputs(), self.inbox(), self.tasks()];
        for folder in &folders {
            disk.create_dir(folder)
                .map_err(|error| StoreError::writing(folder, error))?;
        }
        Ok(())
    }

    /// Checks that the folder and those in it are ours and no links, so that nothing is written
    /// elsewhere in their name; and gives the folder's path without any link on the way to it.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`], naming the first one that is not; [`StoreError::Io`].
    pub fn verified(&self) -> Result<Self, StoreError> {
        let inner = [self.journal(), self.inputs(), self.inbox(), self.tasks()];
        for folder in std::iter::once(&self.0).chain(&inner) {
            let is_missing = !folder.is_symlink() && !folder.exists() && *folder != self.0;
            if !is_missing && !is_own_folder(folder) {
                return Err(StoreError::Unsafe {
                    path: folder.clone(),
                    why: "it is not a folder of this user",
                });
            }
        }
        let plain = self.0.canonicalize();
        plain.map(Self).map_err(StoreError::io("resolve", &self.0))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// The batch file as it was read when the batch began.
    pub fn batch_file(&self) -> PathBuf {
        self.revision(0).join("batch.yml")
    }
    /// What that batch file names: includes, prompts, scripts, as they were read.
    pub fn inputs(&self) -> PathBuf {
        self.revision(0).join("inputs")
    }
    /// Where the batch file (`batch.yml`) and what it names (`inputs/`) are kept as they were read
    /// the first time (0) and each time they were edited.
    pub fn revision(&self, number: u32) -> PathBuf {
        match number {
            0 => self.0.clone(),
            number => self.0.join("revisions").join(number.to_string()),
        }
    }
    /// The journal's folder.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }
    /// A segment of the journal; numbered so that a shell lists them in order.
    pub fn segment(&self, number: u32) -> PathBuf {
        self.journal().join(format!("{number:06}.jsonl"))
    }
    /// The number of a segment with that file name.
    pub(super) fn segment_number(name: &OsStr) -> Option<u32> {
        let digits = name.to_str()?.strip_suffix(".jsonl")?;
        let plain = digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    }
    /// The file that is given up when the disk is full.
    pub fn reserve(&self) -> PathBuf {
        self.journal().join("reserve")
    }
    /// Where a torn tail behind record `seq`, cut at `at`, is kept.
    pub fn torn(&self, at: Wall, seq: u64) -> PathBuf {
        self.journal().join(format!("torn-{}-{seq}.bin", at.0))
    }
    /// Whether a file of the journal's folder is a torn tail.
    pub(super) fn is_torn(name: &OsStr) -> bool {
        let name = name.to_str();
        name.is_some_and(|name| name.starts_with("torn-") && name.ends_with(".bin"))
    }
    /// The checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.0.join(CHECKPOINT_NAME)
    }
    /// The list of live processes.
    pub fn registry(&self) -> PathBuf {
        self.0.join("registry.json")
    }
    /// The file that the live supervisor holds locked.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    /// The file that is held locked in the place of a guardian that has died.
    pub fn guardian_lock(&self) -> PathBuf {
        self.0.join("guardian.lock")
    }
    /// There while nobody was told what came of the batch.
    pub fn untold(&self) -> PathBuf {
        self.0.join("untold")
    }
    /// Where the work of the batch went at the operator's order.
    pub fn integrated(&self) -> PathBuf {
        self.0.join("integrated.jsonl")
    }
    /// What came of the batch, for people: written each time that a supervisor ends.
    pub fn report_markdown(&self) -> PathBuf {
        self.0.join("report.md")
    }
    /// The same as one page.
    pub fn report_html(&self) -> PathBuf {
        self.0.join("report.html")
    }
    /// What the process of this number needs while it works for a command, and nobody afterwards.
    pub fn scratch(&self, pid: u32) -> PathBuf {
        self.0.join(format!("scratch-{pid}"))
    }
    /// The number of the process whose scratch has that file name.
    pub fn scratch_owner(name: &OsStr) -> Option<u32> {
        name.to_str()?.strip_prefix("scratch-")?.parse().ok()
    }
    /// Requests that wait for the next supervisor.
    pub fn inbox(&self) -> PathBuf {
        self.0.join("inbox")
    }
    /// What hosts write to their stderr.
    pub fn hosts_log(&self) -> PathBuf {
        self.0.join("hosts.log")
    }
    /// What the supervisor itself logs.
    pub fn supervisor_log(&self) -> PathBuf {
        self.0.join("supervisor.log")
    }
    /// The folder of all tasks.
    pub fn tasks(&self) -> PathBuf {
        self.0.join("tasks")
    }
    /// The folder of one task.
    pub fn task(&self, task: &TaskId) -> PathBuf {
        self.tasks().join(task.as_str())
    }
    /// The folder of one run.
    pub fn run(&self, task: &TaskId, attempt: AttemptNo, run: Generation) -> PathBuf {
        let mut path = self.task(task);
        path.push("attempts");
        path.push(attempt.to_string());
        path.push("runs");
        path.push(run.to_string());
        path
    }
}
