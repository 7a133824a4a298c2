//! Finds the batch that a command is about and reads it: files only, nothing is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::ids::{AttemptNo, BatchId, Generation};
use supervisor_core::core::Core;
use supervisor_core::facts::Facts;
use supervisor_core::identity::Identity;
use supervisor_core::machine::BatchState;
use supervisor_core::plan::TaskIx;
use supervisor_core::time::BootId;

use crate::cli::error::{CliError, Code};
use crate::cli::pace;
use crate::cli::target::{self, Candidate, Target};
use crate::control::wire::RunActivity;
use crate::driver::clock::Clock;
use crate::process::identity::{Machine, is_dying, start_ticks};
use crate::process::recorded::{Field, Proven, Refused};
use crate::store::index::{self, IndexEntry};
use crate::store::lock::{self, Holder, LockState};
use crate::store::state_dir::CHECKPOINT_NAME;
use crate::store::{Check, RealDisk, StateDir, StateRoot, StoreError, load};
use crate::view::time::LocalTime;
use crate::view::{Guard, HostFact, Presence, View};

/// Looks at a lock whose holder is gone (two seconds; it takes a millisecond): a child of a killed
/// supervisor shares its lock until it begins its own program. Nobody holds the batch then, and to
/// say so is wrong in both directions: `run` would be refused, `status` would show a dead one alive.
const LEAVING_LOOKS_MAX: u32 = 10;

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Unreadable { .. } | StoreError::Newer { .. } => Code::Unreadable,
            StoreError::Unsafe { .. } | StoreError::Held { .. } | StoreError::Limit { .. } => {
                Code::Refused
            }
            StoreError::Full { .. }
            | StoreError::SyncFailed { .. }
            | StoreError::NoHome
            | StoreError::Io { .. } => Code::Environment,
            StoreError::NeedsReopen { .. }
            | StoreError::OutOfOrder { .. }
            | StoreError::NotDurable { .. } => Code::Internal,
        };
        let told = CliError::from_source(code, &error);
        match &error {
            StoreError::Unreadable { file, .. } if file.ends_with(CHECKPOINT_NAME) => told
                .hint(
                    "nothing was changed; it is a shortcut, and all that it says is in the journal",
                )
                .hint(
                    "move it away and the journal is read instead, which says whether it is whole",
                ),
            _ if code == Code::Unreadable => {
                told.hint("nothing was changed; keep the folder as it is")
            }
            _ => told,
        }
    }
}

/// The batches of this machine.
#[derive(Debug)]
pub struct Shelf {
    root: StateRoot,
    entries: Vec<IndexEntry>,
}

/// A batch that was found; not read yet.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its id.
    pub id: BatchId,
    /// Its files.
    pub dir: StateDir,
    /// The batch file that it was made from.
    pub file: PathBuf,
}

/// What a target means.
#[derive(Debug, Clone)]
pub struct Meant {
    /// The batch.
    pub batch: Found,
    /// A task of it, as far as it was written; not looked up yet.
    pub task: Option<String>,
    /// An attempt of the task.
    pub attempt: Option<AttemptNo>,
}

impl Shelf {
    /// Reads the index of batches.
    ///
    /// # Errors
    /// When there is no place for state (10), or an entry can not be read (9).
    pub fn open() -> Result<Shelf, CliError> {
        let root = StateRoot::from_env()?;
        let listing = index::list(&RealDisk, &root)?;
        if let Some(error) = listing.unreadable.into_iter().next() {
            return Err(error.into());
        }
        let entries = listing.entries;
        Ok(Shelf { root, entries })
    }

    /// Where the state is.
    pub fn root(&self) -> &StateRoot {
        &self.root
    }

    /// Every batch, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = Found> {
        self.entries.iter().map(Found::from)
    }

    /// The batch of that name or prefix; without a name the one that is meant here.
    ///
    /// # Errors
    /// Not found (6), ambiguous (7).
    pub fn batch(&self, word: Option<&str>) -> Result<Found, CliError> {
        let at = match word {
            Some(word) => target::unique(word, "batch", self.ids())?,
            None => self.unnamed()?,
        };
        Ok(Found::from(&self.entries[at]))
    }

    /// What a target means. A bare word is a batch before it is a task; where it could be either by
    /// its beginning, both are named and nothing is chosen.
    ///
    /// # Errors
    /// Not found (6), ambiguous (7).
    pub fn find(&self, target: Option<&Target>) -> Result<Meant, CliError> {
        let (batch, task, attempt) = match target {
            None => (None, None, None),
            Some(Target::Task {
                batch,
                task,
                attempt,
            }) => (batch.as_deref(), Some(task.clone()), *attempt),
            Some(Target::Word(word)) => return self.word(word),
        };
        Ok(Meant {
            batch: self.batch(batch)?,
            task,
            attempt,
        })
    }

    fn word(&self, word: &str) -> Result<Meant, CliError> {
        let whole = |batch| Meant {
            batch,
            task: None,
            attempt: None,
        };
        let begins = self.ids().filter(|id| id.starts_with(word)).count();
        if self.ids().any(|id| id == word) {
            return Ok(whole(self.batch(Some(word))?));
        }
        let here = match self.batch(None) {
            Ok(here) => here,
            Err(_) if begins > 0 => return Ok(whole(self.batch(Some(word))?)),
            Err(error) => {
                return Err(error.hint(format!("`{word}` is no batch; BATCH/{word} names a task")));
            }
        };
        let task = Meant {
            batch: here,
            task: Some(word.to_owned()),
            attempt: None,
        };
        if begins == 0 {
            return Ok(task);
        }
        let opened = task.batch.read()?;
        match opened.task(word) {
            Ok(ix) if opened.facts().tasks[ix.0 as usize].id.as_str() == word => Ok(task),
            Ok(ix) => {
                let id = &opened.facts().tasks[ix.0 as usize].id;
                let message = format!("`{word}` begins a batch and the task {id}");
                Err(CliError::new(Code::Ambiguous, message).hint("name one of them in full"))
            }
            Err(_) => Ok(whole(self.batch(Some(word))?)),
        }
    }

    fn ids(&self) -> impl Iterator<Item = &str> + Clone {
        self.entries.iter().map(|entry| entry.id.as_str())
    }

    fn unnamed(&self) -> Result<usize, CliError> {
        let here = here(self.entries.iter().map(|entry| entry.repository.as_path()))?;
        let is_here = |entry: &IndexEntry| here.contains(&entry.repository);
        let alone = self.entries.iter().filter(|entry| is_here(entry)).count() == 1;
        let mut candidates = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let is_here = is_here(entry);
            candidates.push(Candidate {
                id: entry.id.to_string(),
                is_here,
                is_settled: is_here && !alone && Found::from(entry).is_settled()?,
            });
        }
        target::unnamed(&candidates)
    }
}

impl From<&IndexEntry> for Found {
    fn from(entry: &IndexEntry) -> Self {
        Self {
            id: entry.id.clone(),
            dir: StateDir::at(&entry.dir),
            file: entry.batch_file.clone(),
        }
    }
}

/// What makes a batch one of "this repository": the root of the repository around the working
/// folder, else that folder itself. That root is only looked for when a batch lies above the
/// working folder: it could be no other's, and most commands are given where the batch is.
fn here<'a>(mut known: impl Iterator<Item = &'a Path>) -> Result<Vec<PathBuf>, CliError> {
    let folder = current_dir()?;
    let mut roots = vec![folder.clone()];
    if known.any(|batch| batch != folder && folder.starts_with(batch))
        && let Ok(repository) = git2::Repository::discover(&folder)
    {
        let root = repository.workdir().unwrap_or_else(|| repository.path());
        roots.extend(root.canonicalize().ok());
    }
    Ok(roots)
}

/// The working folder, symbolic links resolved.
///
/// # Errors
/// When it is gone (10).
pub fn current_dir() -> Result<PathBuf, CliError> {
    let folder = std::env::current_dir().and_then(|folder| folder.canonicalize());
    folder.map_err(|error| {
        let message = format!("the working folder can not be used: {error}");
        CliError::new(Code::Environment, message)
    })
}

impl Found {
    /// Who holds the batch now.
    ///
    /// # Errors
    /// When the lock can not be looked at (10).
    pub fn lock(&self) -> Result<LockState, CliError> {
        let mut state = lock::state(&self.dir)?;
        for _ in 0..LEAVING_LOOKS_MAX {
            if !is_leaving(&state) {
                break;
            }
            pace::before_next_look();
            state = lock::state(&self.dir)?;
        }
        Ok(state)
    }

    /// The live supervisor, where there is one that has written itself down.
    ///
    /// # Errors
    /// When the lock can not be looked at (10).
    pub fn holder(&self) -> Result<Option<Holder>, CliError> {
        Ok(match self.lock()? {
            LockState::Held(holder) => holder,
            LockState::Free => None,
        })
    }

    /// Whether the batch has an outcome and nobody works on it.
    fn is_settled(&self) -> Result<bool, CliError> {
        if self.lock()? != LockState::Free {
            return Ok(false);
        }
        let state = self.read()?.facts().batch.state;
        Ok(matches!(state, BatchState::Done | BatchState::Failed))
    }

    /// Reads checkpoint and journal.
    ///
    /// # Errors
    /// Unreadable or newer (9); no record yet (6).
    pub fn read(&self) -> Result<Opened, CliError> {
        self.read_any()?.ok_or_else(|| {
            let file = shown(&self.file);
            CliError::new(
                Code::NotFound,
                format!("batch {} has no record yet", self.id),
            )
            .hint(format!(
                "its creation was cut off: `supervisor run {file}` begins it anew"
            ))
        })
    }

    /// Reads checkpoint and journal; `None` when there is no record yet.
    ///
    /// # Errors
    /// Unreadable or newer (9).
    pub fn read_any(&self) -> Result<Option<Opened>, CliError> {
        // The lock first: a supervisor that ends in between leaves a state that is newer, not older.
        let lock = self.lock()?;
        self.refuse_lost()?;
        let loaded = load(&RealDisk, &self.dir, Check::Quick)?;
        let state = match (loaded.checkpoint, loaded.entries.is_empty()) {
            (Some(facts), true) => State::Read(Box::new(facts)),
            (checkpoint, _) => {
                let mut core = checkpoint.map_or_else(Core::new, Core::restore);
                for entry in &loaded.entries {
                    core.replay(entry).map_err(|error| self.illegal(&error))?;
                }
                State::Replayed(Box::new(core))
            }
        };
        let Some(facts) = state.facts() else {
            return Ok(None);
        };
        let presence = presence(&lock, facts);
        let guard = self.guard()?;
        let hosts = if presence.alive {
            BTreeMap::new()
        } else {
            hosts(facts)?
        };
        Ok(Some(Opened {
            state,
            presence,
            guard,
            hosts,
            dir: self.dir.path().display().to_string(),
            file: shown(&self.file),
        }))
    }

    /// A batch is listed only once its folders are durable: a missing one is not an empty one.
    fn refuse_lost(&self) -> Result<(), StoreError> {
        let journal = self.dir.journal();
        match std::fs::metadata(&journal) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::Unreadable {
                    file: journal,
                    offset: 0,
                    why: "the folder is gone".to_owned(),
                })
            }
            Ok(_) | Err(_) => Ok(()), // whoever reads it says what else is wrong
        }
    }

    /// The error of a journal whose records do not follow from each other.
    pub fn illegal(&self, error: &dyn std::error::Error) -> CliError {
        let why = crate::driver::error::chain(error);
        let journal = self.dir.journal();
        CliError::new(Code::Unreadable, format!("{}: {why}", journal.display())).hint(format!(
            "`supervisor verify {}` says more; nothing was changed",
            self.id
        ))
    }
}

/// A batch as it was read.
#[derive(Debug)]
pub struct Opened {
    state: State,
    /// Who works on it.
    pub presence: Presence,
    /// Who starts that one again.
    pub guard: Option<Guard>,
    hosts: BTreeMap<Generation, HostFact>,
    dir: String,
    file: String,
}

#[derive(Debug)]
enum State {
    Read(Box<Facts>),
    Replayed(Box<Core>),
}

impl State {
    fn facts(&self) -> Option<&Facts> {
        match self {
            Self::Read(facts) => Some(facts),
            Self::Replayed(core) => core.facts(),
        }
    }
}

impl Opened {
    /// What the journal says.
    #[expect(
        clippy::expect_used,
        reason = "`Found::read` refuses a batch without facts"
    )]
    pub fn facts(&self) -> &Facts {
        self.state.facts().expect("a batch that was read has facts")
    }

    /// Whether somebody owns its hosts now.
    pub fn is_owned(&self) -> bool {
        self.presence.alive || self.living_guardian().is_some()
    }

    /// The pid of whoever owns its hosts now: the supervisor, or the guardian to which they come when
    /// that one dies.
    pub fn owner(&self) -> Option<u32> {
        match self.presence {
            Presence {
                pid, alive: true, ..
            } => pid,
            Presence { alive: false, .. } => self.living_guardian(),
        }
    }

    /// The pid of the guardian, while it lives.
    pub fn living_guardian(&self) -> Option<u32> {
        let living = self.guard.filter(|guard| guard.alive);
        living.map(|guard| guard.pid)
    }

    /// The picture of it, with what its live runs do.
    pub fn view(&self, activity: BTreeMap<Generation, RunActivity>) -> View<'_> {
        let hosts = self.hosts.clone();
        let view = self.view_of(self.facts(), self.presence, local_time());
        View {
            guard: self.guard,
            hosts,
            activity,
            ..view
        }
    }

    /// The picture of another state of the same batch.
    pub fn view_of<'a>(
        &'a self,
        facts: &'a Facts,
        presence: Presence,
        time: LocalTime,
    ) -> View<'a> {
        View {
            facts,
            presence,
            guard: None,
            hosts: BTreeMap::new(),
            activity: BTreeMap::new(),
            time,
            dir: &self.dir,
            file: &self.file,
        }
    }

    /// The task of that id or prefix.
    ///
    /// # Errors
    /// Not found (6), ambiguous (7).
    pub fn task(&self, word: &str) -> Result<TaskIx, CliError> {
        let ids = self.facts().tasks.iter().map(|task| task.id.as_str());
        let at = target::unique(word, "task", ids).map_err(|error| {
            error.hint(format!(
                "`supervisor status {} --all` lists them",
                self.facts().batch.id
            ))
        })?;
        Ok(TaskIx(u32::try_from(at).unwrap_or(u32::MAX)))
    }
}

/// Now, as this machine shows it.
pub fn local_time() -> LocalTime {
    LocalTime {
        now: Clock::new(BootId::default()).now().wall,
        zone: jiff::tz::TimeZone::system(),
    }
}

/// Whether the process that wrote itself into the lock is no more, or dying.
fn is_leaving(lock: &LockState) -> bool {
    match lock {
        LockState::Held(Some(holder)) => {
            let is_it = || start_ticks(holder.pid).ok() == Some(holder.start_ticks);
            holder.start_ticks != 0 && (is_dying(holder.pid) || !is_it())
        }
        LockState::Held(None) | LockState::Free => false,
    }
}

fn presence(lock: &LockState, facts: &Facts) -> Presence {
    let last = facts.batch.supervisor.as_ref();
    match lock {
        LockState::Held(holder) => Presence {
            pid: holder.as_ref().map(|holder| holder.pid),
            alive: true,
            recovering: !holder
                .as_ref()
                .is_some_and(|holder| has_begun(holder, last)),
        },
        LockState::Free => Presence {
            pid: last.map(|identity| identity.pid),
            alive: false,
            recovering: false,
        },
    }
}

/// Whether the last supervisor of the journal is the one that holds the lock: its first record is
/// that it took the batch over, after recovery.
fn has_begun(holder: &Holder, last: Option<&Identity>) -> bool {
    let same_start =
        |last: &Identity| holder.start_ticks == 0 || last.start_ticks == holder.start_ticks;
    last.is_some_and(|last| last.pid == holder.pid && same_start(last))
}

/// Which recorded hosts live although no supervisor does; asked only then.
fn hosts(facts: &Facts) -> Result<BTreeMap<Generation, HostFact>, CliError> {
    let recorded = || {
        facts
            .runs
            .iter()
            .filter_map(|(generation, run)| Some((*generation, run.identity.as_ref()?)))
    };
    if recorded().next().is_none() {
        return Ok(BTreeMap::new());
    }
    let machine = Machine::here().map_err(|e| CliError::from_source(Code::Environment, &e))?;
    let fact = |(generation, identity)| {
        let fact = match Proven::find(&machine, identity) {
            Ok(proven) => HostFact::Lives(proven.pid()),
            Err(Refused::Differs {
                field: Field::Node | Field::PidNamespace,
                ..
            }) => HostFact::Foreign,
            Err(Refused::System { pid, .. }) => HostFact::Lives(pid),
            Err(Refused::Gone { .. } | Refused::Differs { .. }) => return None,
        };
        Some((generation, fact))
    };
    Ok(recorded().filter_map(fact).collect())
}

/// A path as a person here would write it.
pub fn shown(path: &Path) -> String {
    let relative = current_dir()
        .ok()
        .and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned));
    relative.as_deref().unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_holder_is_gone_is_being_left() {
        let us = std::process::id();
        let ours = start_ticks(us).unwrap();
        let held = |pid, start_ticks| {
            let socket = PathBuf::new();
            LockState::Held(Some(Holder {
                pid,
                start_ticks,
                socket,
                guardian: None,
            }))
        };
        assert!(!is_leaving(&held(us, ours)), "it lives");
        assert!(
            is_leaving(&held(us, ours + 1)),
            "its number is another's now"
        );
        assert!(is_leaving(&held(u32::MAX, 1)), "there is no such process");
        assert!(!is_leaving(&held(us, 0)), "without procfs nothing is known");
        assert!(!is_leaving(&LockState::Held(None)));
        assert!(!is_leaving(&LockState::Free));
    }
}
