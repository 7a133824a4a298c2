//! `ps --orphans`: one look at every process of this machine, for what is ours and has no living
//! owner, of every batch and also of those whose folder is gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use protocol::ids::{BatchId, Generation};
use supervisor_core::containment::Layer;
use supervisor_core::identity::spawn_token;

use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Shelf};
use crate::cli::processes::{Census, Known, Owner, unknown_batch};
use crate::process::family::{self, Member, Proof};
use crate::process::scan::{self, Trace};
use crate::process::spawn::BATCH_VARIABLE;
use crate::process::stat::{self, Stat};
use crate::process::tree::RecordedRun;
use crate::store::registry::LiveRun;
use crate::view::processes::{ProcessRow, ProcessState, Role};

/// Ended runs of one batch whose leftovers are looked for, the newest first.
const ENDED_RUNS_MAX: u64 = 10_000;
/// Generations of parents looked at for a living owner.
const ANCESTORS_MAX: usize = 256;

/// A run that is looked for.
#[derive(Debug)]
pub struct Sought {
    /// Its batch: a place in [`Search::batches`].
    pub batch: usize,
    /// The live run, where it is one that is recorded as such.
    pub live: Option<LiveRun>,
}

/// What is known of every batch, and what is looked for.
#[derive(Debug)]
pub struct Search {
    /// Every batch that can be read.
    pub batches: Vec<(Found, Known)>,
    /// What is said of those that can not.
    pub unread: Vec<CliError>,
    sought: Vec<Sought>,
    runs: Vec<RecordedRun>,
}

/// Everything of ours without a living owner.
#[derive(Debug)]
pub struct Orphans {
    /// Proven to be of a run.
    pub members: Vec<Member>,
    /// Carries a spawn token that no known batch has made: pid, token, batch.
    pub unknown: Vec<(Stat, Option<BatchId>)>,
}

/// A recorded run as the process layer looks for it.
pub fn recorded_run(run: &LiveRun) -> RecordedRun {
    RecordedRun {
        trace: Trace {
            token: run.token,
            host: run.host.as_ref().map(|host| host.identity()),
            host_lived_until: 0,
        },
        containment: run.containment(),
        open: None,
    }
}

impl Search {
    /// Reads what is recorded of every batch.
    ///
    /// # Errors
    /// When a lock can not be looked at (10).
    pub fn new(shelf: &Shelf) -> Result<Search, CliError> {
        let mut search = Search {
            batches: Vec::new(),
            unread: Vec::new(),
            sought: Vec::new(),
            runs: Vec::new(),
        };
        for batch in shelf.newest_first() {
            match Known::read(&batch) {
                Ok(Some(known)) => search.add(batch, known),
                Ok(None) => {}
                Err(error) => search.unread.push(error),
            }
        }
        Ok(search)
    }

    fn add(&mut self, found: Found, known: Known) {
        let batch = self.batches.len();
        let live: HashSet<Generation> = known.registry.runs.iter().map(|run| run.run).collect();
        if !known.is_owned() {
            for run in &known.registry.runs {
                self.runs.push(recorded_run(run));
                let live = Some(run.clone());
                self.sought.push(Sought { batch, live });
            }
        }
        let newest = known.registry.last_run.0;
        let ended = (1..=newest)
            .rev()
            .take(usize::try_from(ENDED_RUNS_MAX).unwrap_or(usize::MAX));
        for generation in ended.map(Generation).filter(|it| !live.contains(it)) {
            let token = spawn_token(known.registry.seed, generation);
            self.runs.push(RecordedRun {
                trace: Trace::of_token(token),
                containment: Default::default(),
                open: None,
            });
            self.sought.push(Sought { batch, live: None });
        }
        self.batches.push((found, known));
    }

    /// Looks at every process.
    ///
    /// # Errors
    /// When they can not be listed (10).
    pub fn look(&self, census: &Census) -> Result<Orphans, CliError> {
        let failed = |error| {
            let message = format!("the processes of this machine can not be listed: {error}");
            CliError::new(Code::Environment, message)
        };
        let tagged = family::tagged(&census.machine, &self.runs).map_err(failed)?;
        let mut members = tagged.members;
        let owners = self.living_owners();
        members.retain(|one| !has_ancestor(one.pid, |pid| owners.contains(&pid)));
        let known: HashSet<u32> = members.iter().map(|one| one.pid).collect();
        let owned: HashSet<u128> = self.owned_tokens();
        let mut unknown = Vec::new();
        for (pid, token) in tagged.unknown {
            if known.contains(&pid) || owned.contains(&token) {
                continue; // shown as what it is, or it has a living owner
            }
            let batch = batch_of(pid);
            let Some(found) = stat::of(pid).filter(|it| !it.is_over) else {
                continue;
            };
            if !has_ancestor(pid, |pid| holds_lock_of(pid, batch.as_ref())) {
                unknown.push((found, batch));
            }
        }
        Ok(Orphans { members, unknown })
    }

    /// Supervisors (and through them their hosts) that live.
    fn living_owners(&self) -> HashSet<u32> {
        let owners = self.batches.iter().filter_map(|(_, known)| known.owner());
        owners.collect()
    }

    fn owned_tokens(&self) -> HashSet<u128> {
        let owned = self.batches.iter().filter(|(_, known)| known.is_owned());
        let runs = owned.flat_map(|(_, known)| &known.registry.runs);
        runs.map(|run| run.token).collect()
    }

    /// The batch of a member, and its run where that is recorded as live.
    pub fn of(&self, member: &Member) -> (&(Found, Known), &Sought) {
        let sought = &self.sought[member.run];
        (&self.batches[sought.batch], sought)
    }

    /// The runs that are recorded as live and have no living owner: place, batch and run.
    pub fn lost(&self) -> impl Iterator<Item = (usize, &Found, &LiveRun)> {
        let numbered = self.sought.iter().enumerate();
        numbered.filter_map(|(at, sought)| {
            let (batch, _) = &self.batches[sought.batch];
            Some((at, batch, sought.live.as_ref()?))
        })
    }

    /// The run at a place: its batch, what is known of it, and as the process layer looks for it.
    pub fn run_at(&self, at: usize) -> (&(Found, Known), &Sought, RecordedRun) {
        let sought = &self.sought[at];
        (&self.batches[sought.batch], sought, self.runs[at].clone())
    }

    /// The run that a member is of, as the process layer looks for it.
    pub fn run_of(&self, member: &Member) -> &RecordedRun {
        &self.runs[member.run]
    }
}

impl Orphans {
    /// The rows, batch by batch and run by run.
    pub fn rows(&self, census: &Census, search: &Search) -> Vec<ProcessRow> {
        let mut rows: BTreeMap<(usize, usize), Vec<ProcessRow>> = BTreeMap::new();
        let hosts = self.hosts(search);
        for member in &self.members {
            let Some(found) =
                stat::of(member.pid).filter(|it| it.start_ticks == member.start_ticks)
            else {
                continue;
            };
            let ((_, known), sought) = search.of(member);
            let owner = Owner {
                batch: known.registry.batch.as_str(),
                run: sought.live.as_ref(),
            };
            let role = role_of(member, &found, &hosts);
            let why = format!("{}; no supervisor of its batch lives", member.proof);
            let mut row = census.living(owner, role, &found, ProcessState::Orphan, &why);
            row.owner_pid = hosts
                .get(&member.run)
                .copied()
                .filter(|&host| host != member.pid);
            row.depth = u16::from(role != Role::Host) + 1;
            rows.entry((sought.batch, member.run))
                .or_default()
                .push(row);
        }
        let mut all: Vec<ProcessRow> = Vec::new();
        for (_, mut family) in rows {
            family.sort_by_key(|row| (row.role, row.start_ticks, row.pid));
            all.extend(family);
        }
        all.extend(self.unknown.iter().map(|(found, batch)| {
            let batch = unknown_batch(batch.as_ref());
            let owner = Owner { batch, run: None };
            let why = "its environment carries a spawn token that no batch known here has made: \
                       shown, and never ended by `kill --orphans`";
            let mut row = census.living(owner, Role::Tool, found, ProcessState::Foreign, why);
            row.containment = Layer::EnvTag.word().to_owned();
            row
        }));
        all
    }

    /// Recorded hosts that live: run and pid.
    fn hosts(&self, search: &Search) -> HashMap<usize, u32> {
        let recorded = self.members.iter().filter(|member| {
            let host = search.run_of(member).trace.host.as_ref();
            host.is_some_and(|it| it.pid == member.pid && it.start_ticks == member.start_ticks)
        });
        recorded.map(|member| (member.run, member.pid)).collect()
    }
}

fn role_of(member: &Member, found: &Stat, hosts: &HashMap<usize, u32>) -> Role {
    let host = hosts.get(&member.run).copied();
    if host == Some(member.pid) {
        Role::Host
    } else if host == Some(found.parent) && member.proof != Proof::Layer(Layer::Session) {
        Role::Agent
    } else {
        Role::Tool
    }
}

/// Whether a process or one above it is of that kind.
pub(super) fn has_ancestor(pid: u32, is: impl Fn(u32) -> bool) -> bool {
    let mut pid = pid;
    for _ in 0..ANCESTORS_MAX {
        if is(pid) {
            return true;
        }
        match stat::of(pid) {
            Some(found) if found.parent > 1 => pid = found.parent,
            Some(_) | None => return false,
        }
    }
    false
}

fn batch_of(pid: u32) -> Option<BatchId> {
    let environ = scan::environ_of(pid).ok()?;
    let value = environ.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(BATCH_VARIABLE.as_bytes())?;
        value.strip_prefix(b"=")
    })?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether a process has the lock file of a batch of that name open: a supervisor that keeps its
/// state elsewhere.
fn holds_lock_of(pid: u32, batch: Option<&BatchId>) -> bool {
    let Some(batch) = batch else { return false };
    let end = Path::new(batch.as_str()).join("lock");
    let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let links = files.into_iter().flatten().flatten();
    let mut links = links.filter_map(|file| std::fs::read_link(file.path()).ok());
    links.any(|link| link.ends_with(&end))
}
