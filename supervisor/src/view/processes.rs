//! `ps`: the processes of batches, and what proves each of them ours.

use std::io::{self, Write};

use serde::Serialize;

use crate::view::time::Span;

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Starts the supervisor, and starts it again when it dies.
    Guardian,
    /// Decides for one batch.
    Supervisor,
    /// Carries out one run.
    Host,
    /// The agent's program: a direct child of a host.
    Agent,
    /// What the agent's program started.
    Tool,
}

impl Role {
    /// The word in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Guardian => "guardian",
            Self::Supervisor => "supervisor",
            Self::Host => "host",
            Self::Agent => "agent",
            Self::Tool => "tool",
        }
    }
}

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It lives and has a living owner.
    Live,
    /// It lives, but no supervisor owns it.
    Orphan,
    /// Recorded on another machine, boot or pid namespace: unknown, not dead.
    Foreign,
    /// Recorded, but gone.
    Stale,
}

impl ProcessState {
    /// The word in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Orphan => "orphan",
            Self::Foreign => "foreign",
            Self::Stale => "stale",
        }
    }
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessRow {
    /// Names it in `kill`: `PID-START_TICKS`.
    pub id: String,
    /// The machine.
    pub node: String,
    /// Its batch.
    pub batch: String,
    /// Its task.
    pub task: Option<String>,
    /// Its attempt.
    pub attempt: Option<u32>,
    /// Its run.
    pub run: Option<u64>,
    /// What it is for.
    pub role: Role,
    /// Its number.
    pub pid: u32,
    /// Clock ticks since boot at its start.
    pub start_ticks: u64,
    /// The boot that the ticks count from.
    pub boot_id: String,
    /// Who owns it: the pid of its guardian, supervisor or host.
    pub owner_pid: Option<u32>,
    /// Where it stands.
    pub state: ProcessState,
    /// What proves it ours.
    pub why: String,
    /// By which means its tree is held together.
    pub containment: String,
    /// Seconds since its start.
    pub age_s: Option<u64>,
    /// Resident memory, bytes.
    pub rss_bytes: Option<u64>,
    /// CPU time so far, seconds.
    pub cpu_s: Option<f64>,
    /// Its command line, an excerpt.
    pub command: String,
    /// How far below the guardian it stands: 1 for hosts.
    #[serde(skip)]
    pub depth: u16,
    /// CPU time of those of its descendants that have ended, seconds.
    #[serde(skip)]
    pub ended_cpu_s: f64,
    /// For a host: the sums of its tree.
    #[serde(skip)]
    pub family: Option<Family>,
}

/// The sums of a host's tree, itself included.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Family {
    /// Processes.
    pub count: u64,
    /// Resident memory, bytes; pages that are shared are counted by each.
    pub rss_bytes: u64,
    /// CPU time, seconds, also of those that have ended.
    pub cpu_s: f64,
}

impl Family {
    /// Takes one more into account.
    pub fn add(&mut self, row: &ProcessRow) {
        self.count += 1;
        self.rss_bytes += row.rss_bytes.unwrap_or(0);
        self.cpu_s += row.cpu_s.unwrap_or(0.0) + row.ended_cpu_s;
    }
}

/// Writes `ps --json`.
///
/// # Errors
/// When `out` can not be written.
pub fn write_json(rows: &[ProcessRow], out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, rows)?;
    out.write_all(b"\n")
}

/// Writes the table: one block a batch, the tree by indent; with `why` what proves each ours.
///
/// # Errors
/// When `out` can not be written.
pub fn write_text(rows: &[ProcessRow], why: bool, out: &mut dyn Write) -> io::Result<()> {
    if rows.is_empty() {
        return writeln!(out, "no process of any batch of yours");
    }
    writeln!(
        out,
        "{:20} {:14} {:7} {:>8} {:>9} {:>8}  COMMAND",
        "ID", "ROLE", "STATE", "AGE", "MEMORY", "CPU"
    )?;
    let mut batch = "";
    for row in rows {
        if row.batch != batch {
            batch = &row.batch;
            writeln!(out, "{batch}")?;
        }
        write_row(row, why, out)?;
    }
    Ok(())
}

/// Deepest indent of the table; what is deeper stands below its grandparents.
const INDENT_MAX: usize = 6;

fn write_row(row: &ProcessRow, why: bool, out: &mut dyn Write) -> io::Result<()> {
    let indent = INDENT_MAX.min(row.depth.into());
    let role = format!("{:indent$}{}", "", row.role.word());
    let age = row.age_s.map_or_else(String::new, |seconds| {
        Span(std::time::Duration::from_secs(seconds)).to_string()
    });
    let memory = row.rss_bytes.map_or_else(String::new, mebibytes);
    let cpu = row
        .cpu_s
        .map_or_else(String::new, |seconds| format!("{seconds:.2}s"));
    write!(
        out,
        "{:20} {role:14} {:7} {age:>8} {memory:>9} {cpu:>8}  ",
        row.id,
        row.state.word()
    )?;
    if let (Role::Host, Some(task), Some(attempt)) = (row.role, &row.task, row.attempt) {
        write!(out, "[{task}@{attempt}")?;
        if let Some(family) = row.family {
            let (count, memory) = (family.count, mebibytes(family.rss_bytes));
            write!(out, ", tree of {count}: {memory} {:.2}s", family.cpu_s)?;
        }
        write!(out, "] ")?;
    }
    writeln!(out, "{}", row.command)?;
    let is_live = row.state == ProcessState::Live;
    if why || !is_live {
        writeln!(out, "{:20}   {}", "", row.why)?;
    }
    if why && row.role == Role::Host {
        writeln!(out, "{:20}   held together by {}", "", row.containment)?;
    }
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(role: Role, state: ProcessState) -> ProcessRow {
        ProcessRow {
            id: "41-900".to_owned(),
            node: "n1".to_owned(),
            batch: "b-1".to_owned(),
            task: Some("lexer".to_owned()),
            attempt: Some(2),
            run: Some(7),
            role,
            pid: 41,
            start_ticks: 900,
            boot_id: "boot".to_owned(),
            owner_pid: Some(40),
            state,
            why: "pid, start ticks and boot id are those of the journal".to_owned(),
            containment: "session,env_tag".to_owned(),
            age_s: Some(61),
            rss_bytes: Some(3 * 1024 * 1024),
            cpu_s: Some(0.25),
            command: "agent-host".to_owned(),
            depth: 1,
            ended_cpu_s: 0.0,
            family: None,
        }
    }

    #[test]
    fn an_orphan_says_why_and_a_live_host_names_its_task() {
        let rows = [
            row(Role::Host, ProcessState::Live),
            row(Role::Agent, ProcessState::Orphan),
        ];
        let mut out = Vec::new();
        write_text(&rows, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "b-1");
        assert!(lines[2].ends_with("[lexer@2] agent-host"), "{text}");
        assert!(lines[2].contains("1m 01s     3 MiB    0.25s"), "{text}");
        assert!(lines[4].ends_with("are those of the journal"), "{text}");
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn the_keys_of_a_process_are_those_of_the_manual() {
        let mut out = Vec::new();
        write_json(&[row(Role::Tool, ProcessState::Stale)], &mut out).unwrap();
        let rows: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(&out).unwrap();
        let mut keys: Vec<&str> = rows[0].keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys.join(" "),
            "age_s attempt batch boot_id command containment cpu_s id node owner_pid pid role \
             rss_bytes run start_ticks state task why"
        );
        assert_eq!(rows[0]["state"], "stale");
        assert_eq!(rows[0]["role"], "tool");
    }
}
