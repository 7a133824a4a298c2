//! What lives of a batch: recorded identities set against what this machine shows, and the trees
//! below them. Only processes that are recorded, and what descends from them, are looked at.

use std::collections::BTreeSet;

use protocol::ids::{AttemptNo, BatchId, TaskId};
use supervisor_core::identity::Identity;
use supervisor_core::time::BootId;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::driver::clock::Clock;
use crate::process::identity::Machine;
use crate::process::recorded::{Field, Proven, Refused};
use crate::process::scan::token_of;
use crate::process::stat::{self, Stat};
use crate::store::registry::{self, LiveRun, Process, Registry};
use crate::store::{Holder, LockState, RealDisk};
use crate::view::processes::{Family, ProcessRow, ProcessState, Role};

/// Longest command line shown, bytes.
const COMMAND_MAX: usize = 200;
/// Most processes of one tree; what is below is not shown.
const TREE_MAX: usize = 100_000;

/// The clocks and the identity of this machine, by which processes are judged.
#[derive(Debug)]
pub struct Census {
    pub(super) machine: Machine,
    /// Boot-time clock, milliseconds.
    now_ms: u64,
    ticks_a_second: u64,
    page_size: u64,
}

/// What is recorded as live of one batch, and by whom.
#[derive(Debug)]
pub struct Known {
    /// The processes and runs.
    pub registry: Registry,
    /// Whoever holds the batch's lock; without a name while it is still writing itself down.
    pub lock: LockState,
    /// The guardian that will start its next supervisor, while it lives.
    pub guard: Option<u32>,
    /// What says so.
    pub source: Source,
}

/// Where a recorded identity stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The truth.
    Journal,
    /// The list that is derived from it.
    Registry,
}

impl Source {
    /// The word in `why`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Registry => "registry",
        }
    }
}

/// A part of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Part<'a> {
    /// Only this task.
    pub task: Option<&'a TaskId>,
    /// Only this attempt of it.
    pub attempt: Option<AttemptNo>,
}

impl Part<'_> {
    /// Whether a run belongs to it.
    pub fn has(&self, run: &LiveRun) -> bool {
        self.task.is_none_or(|task| *task == run.task)
            && self.attempt.is_none_or(|attempt| attempt == run.attempt)
    }
}

impl Known {
    /// Reads what is recorded, as cheaply as it can be known: the list of a live supervisor, or that
    /// of a clean end, else the journal.
    ///
    /// # Errors
    /// Unreadable or newer (9), where the journal must be read.
    pub fn read(batch: &Found) -> Result<Option<Known>, CliError> {
        let lock = batch.lock()?;
        let listed = registry::read(&RealDisk, &batch.dir).ok().flatten();
        let fits = |listed: &Registry| match &lock {
            LockState::Held(Some(holder)) => listed
                .supervisor
                .as_ref()
                .is_some_and(|it| it.pid == holder.pid && it.start_ticks == holder.start_ticks),
            LockState::Held(None) => false,
            LockState::Free => listed.proves_rest(&batch.dir),
        };
        match listed.filter(fits) {
            Some(registry) => Ok(Some(Known {
                registry,
                guard: living_guard(batch)?,
                lock,
                source: Source::Registry,
            })),
            None => Known::fold(batch, lock),
        }
    }

    /// Reads the journal.
    ///
    /// # Errors
    /// Unreadable or newer (9).
    pub fn fold(batch: &Found, lock: LockState) -> Result<Option<Known>, CliError> {
        let guard = living_guard(batch)?;
        Ok(batch.read_any()?.map(|opened| Known {
            registry: Registry::of(opened.facts()),
            lock,
            guard,
            source: Source::Journal,
        }))
    }

    /// The pid of whoever owns its hosts now: the supervisor, or the guardian to which they come when
    /// that one dies.
    pub fn owner(&self) -> Option<u32> {
        match &self.lock {
            LockState::Held(Some(holder)) => Some(holder.pid),
            LockState::Held(None) | LockState::Free => self.guard,
        }
    }

    /// Whether somebody owns them.
    pub fn is_owned(&self) -> bool {
        self.lock != LockState::Free || self.guard.is_some()
    }

    /// Whether a run of it is recorded as live though nobody owns it: what it left may be anywhere.
    pub fn has_lost_runs(&self) -> bool {
        !self.is_owned() && !self.registry.runs.is_empty()
    }
}

/// The pid of the batch's guardian, while it lives.
pub(super) fn living_guard(batch: &Found) -> Result<Option<u32>, CliError> {
    let guard = batch.guard()?.filter(|guard| guard.alive);
    Ok(guard.map(|guard| guard.pid))
}

/// The identity of whoever wrote itself into a lock of this machine.
pub(super) fn identity_of(machine: &Machine, pid: u32, start_ticks: u64) -> Identity {
    Identity {
        node: machine.node.clone(),
        pid_namespace: machine.pid_namespace,
        boot_id: machine.boot_id,
        pid,
        start_ticks,
        pidfs_inode: None,
        session: None,
    }
}

/// Whose a process is: what its row has in common with the others of the run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) batch: &'a str,
    pub(super) run: Option<&'a LiveRun>,
}

impl Census {
    /// Reads the clocks.
    ///
    /// # Errors
    /// When procfs is not as documented (10).
    pub fn take() -> Result<Census, CliError> {
        let machine = Machine::here().map_err(|e| CliError::from_source(Code::Environment, &e))?;
        let now = Clock::new(machine.boot_id).now();
        Ok(Census {
            machine,
            now_ms: stat::start_clock_ms(&now),
            ticks_a_second: stat::ticks_a_second(),
            page_size: stat::page_size(),
        })
    }

    /// The processes of one batch or of a part of it, parents before children.
    ///
    /// # Errors
    /// Unreadable or newer (9), where the journal must be read.
    pub fn of(
        &self,
        batch: &Found,
        known: &Known,
        part: Part<'_>,
    ) -> Result<Vec<ProcessRow>, CliError> {
        if known.source == Source::Registry && self.has_unlisted_host(known) {
            // One that has just begun: the list is not written before its record is durable.
            let lock = known.lock.clone();
            if let Some(folded) = Known::fold(batch, lock)? {
                return Ok(self.rows(&folded, part));
            }
        }
        Ok(self.rows(known, part))
    }

    fn rows(&self, known: &Known, part: Part<'_>) -> Vec<ProcessRow> {
        let mut rows = Vec::new();
        if part.task.is_none() {
            rows.extend(self.guardian(known));
            rows.extend(self.watcher(known));
            rows.extend(self.supervisor(known));
        }
        let mut seen = BTreeSet::new();
        for run in known.registry.runs.iter().filter(|run| part.has(run)) {
            self.run(known, run, &mut seen, &mut rows);
        }
        sum_up(&mut rows);
        rows
    }

    /// Whether the live supervisor has a child with a token that is not in the list.
    fn has_unlisted_host(&self, known: &Known) -> bool {
        let children = known
            .owner()
            .and_then(stat::of)
            .map(|it| stat::children(&it));
        let mut hosts = known
            .registry
            .runs
            .iter()
            .filter_map(|run| run.host.as_ref());
        let mut unlisted = children.into_iter().flatten();
        unlisted.any(|pid| !hosts.clone().any(|host| host.pid == pid) && token_of(pid).is_some())
            || hosts.any(|host| Proven::find(&self.machine, &host.identity()).is_err())
    }

    fn guardian(&self, known: &Known) -> Option<ProcessRow> {
        let process = known.registry.guardian.as_ref()?;
        let lives = ProcessState::Live;
        let (row, _) = self.recorded(known, None, Role::Guardian, process, lives);
        let is_missed = known.is_owned() || !known.registry.runs.is_empty();
        (row.state == lives || is_missed).then_some(row)
    }

    /// The guardian that has taken the place of the recorded one.
    fn watcher(&self, known: &Known) -> Option<ProcessRow> {
        let recorded = known.registry.guardian.as_ref().map(|it| it.pid);
        let pid = known.guard.filter(|pid| Some(*pid) != recorded)?;
        let owner = Owner {
            batch: known.registry.batch.as_str(),
            run: None,
        };
        let why = "it holds the lock of the guardian's place and wrote itself down in it";
        let stat = stat::of(pid)?;
        Some(self.living(owner, Role::Guardian, &stat, ProcessState::Live, why))
    }

    /// The supervisor: the kernel says that somebody holds the lock, the lock file says who.
    fn supervisor(&self, known: &Known) -> Option<ProcessRow> {
        if let LockState::Held(Some(holder)) = &known.lock {
            return self.holder(known, holder);
        }
        let process = known.registry.supervisor.as_ref()?;
        let lost = !known.registry.runs.is_empty();
        lost.then(|| {
            self.recorded(known, None, Role::Supervisor, process, ProcessState::Orphan)
                .0
        })
    }

    fn holder(&self, known: &Known, holder: &Holder) -> Option<ProcessRow> {
        let owner = Owner {
            batch: known.registry.batch.as_str(),
            run: None,
        };
        let stat = stat::of(holder.pid)?;
        let why = "it holds the lock of the batch's folder and wrote itself down in it";
        let mut row = self.living(owner, Role::Supervisor, &stat, ProcessState::Live, why);
        row.owner_pid = known.guard;
        row.depth = u16::from(known.guard.is_some());
        Some(row)
    }

    fn run(
        &self,
        known: &Known,
        run: &LiveRun,
        seen: &mut BTreeSet<u32>,
        rows: &mut Vec<ProcessRow>,
    ) {
        let lives = match known.is_owned() {
            true => ProcessState::Live,
            false => ProcessState::Orphan,
        };
        let Some(host) = &run.host else { return };
        let (mut row, found) = self.recorded(known, Some(run), Role::Host, host, lives);
        row.owner_pid = known.owner();
        row.depth = 1 + u16::from(known.guard.is_some());
        let depth = row.depth;
        rows.push(row);
        if let Some(found) = found {
            seen.insert(found.pid);
            let owner = Owner {
                batch: known.registry.batch.as_str(),
                run: Some(run),
            };
            self.descend(owner, &found, &found, lives, seen, rows, depth + 1);
        }
    }

    /// What a host started, at any depth.
    #[expect(clippy::too_many_arguments, reason = "a walk carries its place along")]
    fn descend(
        &self,
        owner: Owner<'_>,
        host: &Stat,
        parent: &Stat,
        state: ProcessState,
        seen: &mut BTreeSet<u32>,
        rows: &mut Vec<ProcessRow>,
        depth: u16,
    ) {
        let children = stat::children(parent).into_iter().filter_map(stat::of);
        // A number that was used anew since the list was read has another parent.
        let own = children.filter(|child| child.parent == parent.pid && !child.is_over);
        let mut own: Vec<Stat> = own.collect();
        own.sort_by_key(|child| (child.start_ticks, child.pid));
        for (number, child) in own.iter().enumerate() {
            if rows.len() >= TREE_MAX || !seen.insert(child.pid) {
                continue;
            }
            // The first that a host starts is the agent's program; orphans come home to it later.
            let is_agent = parent.pid == host.pid && number == 0;
            let role = if is_agent { Role::Agent } else { Role::Tool };
            let why = format!(
                "descends from host {}, which is proven by its identity",
                host.pid
            );
            let mut row = self.living(owner, role, child, state, &why);
            row.owner_pid = Some(host.pid);
            row.depth = depth;
            rows.push(row);
            self.descend(
                owner,
                host,
                child,
                state,
                seen,
                rows,
                depth.saturating_add(1),
            );
        }
    }

    /// The row of a process that is written down, and what is found of it if it lives.
    pub(super) fn recorded(
        &self,
        known: &Known,
        run: Option<&LiveRun>,
        role: Role,
        process: &Process,
        lives: ProcessState,
    ) -> (ProcessRow, Option<Stat>) {
        let owner = Owner {
            batch: known.registry.batch.as_str(),
            run,
        };
        let identity = process.identity();
        let (state, why) = judge(&self.machine, &identity, lives, known.source);
        let found = stat::of(process.pid).filter(|_| state == lives);
        let mut row = match &found {
            Some(found) => self.living(owner, role, found, state, &why),
            None => blank(owner, role, process.pid, state, &why),
        };
        row.node = identity.node.to_string();
        row.start_ticks = identity.start_ticks;
        row.boot_id = boot_text(identity.boot_id);
        row.id = process_id(process.pid, identity.start_ticks);
        (row, found)
    }

    pub(super) fn living(
        &self,
        owner: Owner<'_>,
        role: Role,
        found: &Stat,
        state: ProcessState,
        why: &str,
    ) -> ProcessRow {
        let mut row = blank(owner, role, found.pid, state, why);
        row.node = self.machine.node.to_string();
        row.boot_id = boot_text(self.machine.boot_id);
        row.start_ticks = found.start_ticks;
        row.id = process_id(found.pid, found.start_ticks);
        let started_ms = found.start_ticks.saturating_mul(1000) / self.ticks_a_second;
        row.age_s = Some(self.now_ms.saturating_sub(started_ms) / 1000);
        row.rss_bytes = Some(found.resident_pages.saturating_mul(self.page_size));
        row.cpu_s = Some(self.seconds(found.cpu_ticks));
        row.ended_cpu_s = self.seconds(found.ended_cpu_ticks);
        let command = stat::command(found.pid).unwrap_or_default();
        row.command = protocol::report::excerpt(&command, COMMAND_MAX);
        row
    }

    #[expect(clippy::cast_precision_loss, reason = "2^52 ticks are a million years")]
    fn seconds(&self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_a_second as f64
    }
}

/// Gives each host, and whoever stands above it, the sums of its tree.
fn sum_up(rows: &mut [ProcessRow]) {
    for at in 0..rows.len() {
        let (depth, role) = (rows[at].depth, rows[at].role);
        if role != Role::Host {
            continue;
        }
        let below = rows[at + 1..].iter().take_while(|row| row.depth > depth);
        let mut family = Family::default();
        for row in rows[at..=at].iter().chain(below) {
            family.add(row);
        }
        rows[at].family = Some(family);
    }
}

fn blank(owner: Owner<'_>, role: Role, pid: u32, state: ProcessState, why: &str) -> ProcessRow {
    ProcessRow {
        id: String::new(),
        node: String::new(),
        batch: owner.batch.to_owned(),
        task: owner.run.map(|run| run.task.to_string()),
        attempt: owner.run.map(|run| run.attempt.0),
        run: owner.run.map(|run| run.run.0),
        role,
        pid,
        start_ticks: 0,
        boot_id: String::new(),
        owner_pid: None,
        state,
        why: why.to_owned(),
        containment: containment_text(owner),
        age_s: None,
        rss_bytes: None,
        cpu_s: None,
        command: String::new(),
        depth: 0,
        ended_cpu_s: 0.0,
        family: None,
    }
}

/// The layers that hold a run together; what is no run is held by its recorded identity.
fn containment_text(owner: Owner<'_>) -> String {
    owner.run.map_or_else(
        || {
            supervisor_core::containment::Layer::Registry
                .word()
                .to_owned()
        },
        |run| run.containment().layers.to_string(),
    )
}

/// Where a recorded process stands, and what says so.
pub(super) fn judge(
    machine: &Machine,
    identity: &Identity,
    lives: ProcessState,
    source: Source,
) -> (ProcessState, String) {
    let source = source.word();
    match Proven::find(machine, identity) {
        Ok(_) => {
            let inode = identity.pidfs_inode.map_or("", |_| ", pidfs inode");
            let why = format!(
                "recorded identity: pid, start ticks, boot id, node, pid namespace{inode} are those \
                 of the {source}"
            );
            (lives, why)
        }
        Err(Refused::Gone { .. }) => (
            ProcessState::Stale,
            "no process has its identity".to_owned(),
        ),
        Err(Refused::Differs { field, .. }) => {
            let state = match field {
                Field::Node | Field::PidNamespace => ProcessState::Foreign,
                Field::BootId | Field::StartTicks | Field::PidfsInode => ProcessState::Stale,
            };
            (state, format!("its {field} is not that of the {source}"))
        }
        Err(Refused::System { source, .. }) => (
            ProcessState::Foreign,
            format!("it can not be judged: {source}"),
        ),
    }
}

/// The batch of a row that belongs to none that is known here.
pub(super) fn unknown_batch(id: Option<&BatchId>) -> &str {
    id.map_or("?", |id| id.as_str())
}

/// Names a process on this machine for as long as it lives, and no other after it.
pub fn process_id(pid: u32, start_ticks: u64) -> String {
    format!("{pid}-{start_ticks}")
}

/// A process id of `ps`: number and start ticks.
pub fn parse_process_id(text: &str) -> Option<(u32, u64)> {
    let (pid, ticks) = text.split_once('-')?;
    let is_number = |half: &str| !half.is_empty() && half.bytes().all(|it| it.is_ascii_digit());
    if !is_number(pid) || !is_number(ticks) {
        return None;
    }
    Some((pid.parse().ok()?, ticks.parse().ok()?))
}

/// A boot id as the kernel writes it.
fn boot_text(id: BootId) -> String {
    let hex = format!("{:032x}", id.0);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_written_as_the_kernel_does() {
        let id = BootId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(boot_text(id), "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn a_process_id_is_two_numbers_and_nothing_else_is() {
        assert_eq!(parse_process_id(&process_id(41, 900)), Some((41, 900)));
        for text in [
            "41",
            "41-",
            "-900",
            "a-1",
            "1-2-3",
            "nightly-20261121t0744",
            "+1-2",
        ] {
            assert_eq!(parse_process_id(text), None, "{text}");
        }
    }

    #[test]
    fn our_own_process_is_proven_and_another_identity_is_refused_by_its_field() {
        let machine = Machine::here().unwrap();
        let pid = std::process::id();
        let pinned = crate::process::pidfd::open(pid).unwrap();
        let ours = machine.identify(pid, &pinned).unwrap();
        let lives = ProcessState::Orphan;
        let said = |identity: &Identity| judge(&machine, identity, lives, Source::Registry);
        assert_eq!(said(&ours).0, lives);
        let later = Identity {
            start_ticks: ours.start_ticks + 1,
            ..ours.clone()
        };
        let (state, why) = said(&later);
        assert_eq!(state, ProcessState::Stale);
        assert_eq!(why, "its start ticks is not that of the registry");
        let elsewhere = Identity {
            node: "another".into(),
            ..ours.clone()
        };
        assert_eq!(said(&elsewhere).0, ProcessState::Foreign);
        let inside = Identity {
            pid_namespace: ours.pid_namespace + 1,
            ..ours
        };
        assert_eq!(said(&inside).0, ProcessState::Foreign, "unknown, not dead");
    }
}
