//! What lives of a batch: recorded identities set against what this machine shows.

use std::collections::{BTreeMap, BTreeSet};

use protocol::ids::Generation;
use supervisor_core::containment::Layer;
use supervisor_core::facts::{Facts, Run};
use supervisor_core::identity::Identity;
use supervisor_core::plan::TaskIx;
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Opened};
use crate::process::identity::{Machine, start_ticks};
use crate::process::recorded::{Field, Proven, Refused};
use crate::process::scan::{Trace, Traces};
use crate::store::LockState;
use crate::view::processes::{ProcessRow, ProcessState, Role};

/// Longest command line shown, bytes.
const COMMAND_MAX: usize = 200;

/// One look at every process of this machine.
#[derive(Debug)]
pub struct Census {
    machine: Machine,
    system: System,
    /// Direct children by parent.
    children: BTreeMap<u32, Vec<u32>>,
}

/// Whose a process is; what its row has in common with the others of the run.
#[derive(Debug, Clone, Copy)]
struct Owner<'a> {
    batch: &'a str,
    task: Option<&'a str>,
    run: Option<(Generation, &'a Run)>,
}

impl Census {
    /// Looks once.
    ///
    /// # Errors
    /// When the system does not show its processes (10).
    pub fn take() -> Result<Census, CliError> {
        let machine = Machine::here().map_err(|e| CliError::from_source(Code::Environment, &e))?;
        let mut system = System::new().map_err(|e| CliError::from_source(Code::Environment, &e))?;
        // Threads would be rows of their own, each with the memory of the whole process.
        let kind = ProcessRefreshKind::nothing()
            .with_memory()
            .with_cpu()
            .with_cmd(UpdateKind::Always)
            .without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (pid, process) in system.processes() {
            if let Some(parent) = process.parent() {
                children
                    .entry(parent.as_u32())
                    .or_default()
                    .push(pid.as_u32());
            }
        }
        Ok(Census {
            machine,
            system,
            children,
        })
    }

    /// The processes of one batch, or of one task of it.
    ///
    /// # Errors
    /// When its lock can not be looked at (10).
    pub fn of(
        &self,
        batch: &Found,
        opened: &Opened,
        task: Option<TaskIx>,
    ) -> Result<Vec<ProcessRow>, CliError> {
        let facts = opened.facts();
        let mut rows = Vec::new();
        if task.is_none() {
            rows.extend(self.supervisor(batch, facts)?);
        }
        let mut seen = BTreeSet::new();
        for (generation, run) in &facts.runs {
            if task.is_some_and(|task| task != run.task) {
                continue;
            }
            let owner = Owner {
                batch: batch.id.as_str(),
                task: facts
                    .tasks
                    .get(run.task.0 as usize)
                    .map(|task| task.id.as_str()),
                run: Some((*generation, run)),
            };
            self.run(owner, opened.presence.alive, facts, &mut seen, &mut rows);
        }
        Ok(rows)
    }

    /// The supervisor: the kernel says that somebody holds the lock, the lock file says who.
    fn supervisor(&self, batch: &Found, facts: &Facts) -> Result<Option<ProcessRow>, CliError> {
        let owner = Owner {
            batch: batch.id.as_str(),
            task: None,
            run: None,
        };
        Ok(match batch.lock()? {
            LockState::Held(Some(holder)) => {
                let why = "it holds the lock of the batch's folder and wrote itself down in it";
                let mut row =
                    self.row(owner, Role::Supervisor, holder.pid, ProcessState::Live, why);
                row.start_ticks = holder.start_ticks;
                row.id = process_id(holder.pid, holder.start_ticks);
                Some(row)
            }
            LockState::Held(None) | LockState::Free => {
                let recorded = facts.batch.supervisor.as_ref();
                let stale = ProcessState::Stale;
                recorded.filter(|_| !facts.runs.is_empty()).map(|identity| {
                    self.recorded(owner, Role::Supervisor, identity, stale, "it is gone")
                })
            }
        })
    }

    fn run(
        &self,
        owner: Owner<'_>,
        owned: bool,
        facts: &Facts,
        seen: &mut BTreeSet<u32>,
        rows: &mut Vec<ProcessRow>,
    ) {
        let Some((_, run)) = owner.run else {
            return;
        };
        let lives = if owned {
            ProcessState::Live
        } else {
            ProcessState::Orphan
        };
        let mut host = None;
        if let Some(identity) = &run.identity {
            let (state, why) = judge(&self.machine, identity, lives);
            let mut row = self.recorded(owner, Role::Host, identity, state, &why);
            row.owner_pid = facts
                .batch
                .supervisor
                .as_ref()
                .map(|own| own.pid)
                .filter(|_| owned);
            rows.push(row);
            if state == lives {
                host = Some(identity.pid);
                seen.insert(identity.pid);
            }
        }
        match host {
            // Everything of its tree hangs below a living host.
            Some(host) => self.descend(owner, host, host, lives, seen, rows),
            None => self.strays(owner, run.token, lives, seen, rows),
        }
    }

    /// What a host started, at any depth.
    fn descend(
        &self,
        owner: Owner<'_>,
        host: u32,
        parent: u32,
        state: ProcessState,
        seen: &mut BTreeSet<u32>,
        rows: &mut Vec<ProcessRow>,
    ) {
        for &pid in self.children.get(&parent).into_iter().flatten() {
            if !seen.insert(pid) {
                continue;
            }
            let role = if parent == host {
                Role::Agent
            } else {
                Role::Tool
            };
            let why = format!("a descendant of host {host}, which is proven by its identity");
            let mut row = self.row(owner, role, pid, state, &why);
            row.owner_pid = Some(host);
            rows.push(row);
            self.descend(owner, host, pid, state, seen, rows);
        }
    }

    /// What carries the run's token although its host is gone.
    fn strays(
        &self,
        owner: Owner<'_>,
        token: u128,
        state: ProcessState,
        seen: &mut BTreeSet<u32>,
        rows: &mut Vec<ProcessRow>,
    ) {
        let traces = Traces::new(vec![Trace::of_token(token)]);
        for pid in self.system.processes().keys().map(|pid| pid.as_u32()) {
            if seen.contains(&pid) {
                continue;
            }
            if let Some((_, layer)) = traces.tagged(pid) {
                seen.insert(pid);
                let why = format!("it carries the token of the run ({layer})");
                rows.push(self.row(owner, Role::Tool, pid, state, &why));
            }
        }
    }

    fn recorded(
        &self,
        owner: Owner<'_>,
        role: Role,
        identity: &Identity,
        state: ProcessState,
        why: &str,
    ) -> ProcessRow {
        let mut row = match state {
            ProcessState::Live | ProcessState::Orphan => {
                self.row(owner, role, identity.pid, state, why)
            }
            ProcessState::Foreign | ProcessState::Stale => {
                blank(owner, role, identity.pid, state, why)
            }
        };
        row.node = identity.node.to_string();
        row.start_ticks = identity.start_ticks;
        row.boot_id = boot_text(identity.boot_id.0);
        row.id = process_id(identity.pid, identity.start_ticks);
        row
    }

    fn row(
        &self,
        owner: Owner<'_>,
        role: Role,
        pid: u32,
        state: ProcessState,
        why: &str,
    ) -> ProcessRow {
        let mut row = blank(owner, role, pid, state, why);
        row.node = self.machine.node.to_string();
        row.boot_id = boot_text(self.machine.boot_id.0);
        // A process that has just ended has no ticks; its row is about to vanish as well.
        row.start_ticks = start_ticks(pid).unwrap_or(0);
        row.id = process_id(pid, row.start_ticks);
        if let Some(process) = self.system.process(Pid::from_u32(pid)) {
            measure(&mut row, process);
        }
        row
    }
}

fn measure(row: &mut ProcessRow, process: &Process) {
    row.age_s = Some(process.run_time());
    row.rss_bytes = Some(process.memory());
    let cpu = std::time::Duration::from_millis(process.accumulated_cpu_time());
    row.cpu_s = Some(cpu.as_secs_f64());
    let words: Vec<_> = process
        .cmd()
        .iter()
        .map(|word| word.to_string_lossy())
        .collect();
    row.command = match words.is_empty() {
        true => process.name().to_string_lossy().into_owned(),
        false => protocol::report::excerpt(&words.join(" "), COMMAND_MAX),
    };
}

/// The layers that hold a run together; what is no run is held by its recorded identity.
fn containment_text(owner: Owner<'_>) -> String {
    let layers = owner.run.map(|(_, run)| run.containment.layers);
    layers.map_or_else(
        || Layer::Registry.word().to_owned(),
        |layers| layers.to_string(),
    )
}

fn blank(owner: Owner<'_>, role: Role, pid: u32, state: ProcessState, why: &str) -> ProcessRow {
    ProcessRow {
        id: String::new(),
        node: String::new(),
        batch: owner.batch.to_owned(),
        task: owner.task.map(str::to_owned),
        attempt: owner.run.map(|(_, run)| run.attempt.0),
        run: owner.run.map(|(generation, _)| generation.0),
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
    }
}

/// Where a recorded process stands, and what says so.
fn judge(machine: &Machine, identity: &Identity, lives: ProcessState) -> (ProcessState, String) {
    match Proven::find(machine, identity) {
        Ok(_) => (
            lives,
            "node, boot id, pid namespace, pid and start ticks are those of the journal".to_owned(),
        ),
        Err(Refused::Gone { .. }) => (
            ProcessState::Stale,
            "no process has its identity".to_owned(),
        ),
        Err(Refused::Differs { field, .. }) => {
            let state = match field {
                Field::Node | Field::PidNamespace => ProcessState::Foreign,
                Field::BootId | Field::StartTicks | Field::PidfsInode => ProcessState::Stale,
            };
            (state, format!("its {field} is not that of the journal"))
        }
        Err(Refused::System { source, .. }) => (
            ProcessState::Foreign,
            format!("it can not be judged: {source}"),
        ),
    }
}

/// Names a process on this machine for as long as it lives, and no other after it.
pub fn process_id(pid: u32, start_ticks: u64) -> String {
    format!("{pid}-{start_ticks}")
}

/// A boot id as the kernel writes it.
fn boot_text(id: u128) -> String {
    let hex = format!("{id:032x}");
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
        let id = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;
        assert_eq!(boot_text(id), "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn our_own_process_is_proven_and_one_with_other_ticks_is_stale() {
        let machine = Machine::here().unwrap();
        let pid = std::process::id();
        let ours = Identity {
            node: machine.node.clone(),
            pid_namespace: machine.pid_namespace,
            boot_id: machine.boot_id,
            pid,
            start_ticks: start_ticks(pid).unwrap(),
            pidfs_inode: None,
            session: None,
        };
        let lives = ProcessState::Orphan;
        assert_eq!(judge(&machine, &ours, lives).0, lives);
        let other = Identity {
            start_ticks: ours.start_ticks + 1,
            ..ours.clone()
        };
        let (state, why) = judge(&machine, &other, lives);
        assert_eq!(state, ProcessState::Stale);
        assert_eq!(why, "its start ticks is not that of the journal");
        let elsewhere = Identity {
            node: "another".into(),
            ..ours
        };
        assert_eq!(judge(&machine, &elsewhere, lives).0, ProcessState::Foreign);
    }

    #[test]
    fn the_census_sees_this_process_with_its_memory() {
        let census = Census::take().unwrap();
        let owner = Owner {
            batch: "b",
            task: None,
            run: None,
        };
        let row = census.row(
            owner,
            Role::Host,
            std::process::id(),
            ProcessState::Live,
            "why",
        );
        assert!(row.rss_bytes.unwrap() > 100_000);
        assert!(row.start_ticks > 0 && !row.command.is_empty());
        assert_eq!(row.id, format!("{}-{}", row.pid, row.start_ticks));
    }
}
