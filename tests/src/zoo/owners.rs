//! The product's own processes, found by descent and by their programs alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::ledger::Life;
use crate::world::World;

/// Who owns what of a batch.
#[derive(Debug, Default, Clone)]
pub struct Owners {
    /// What is above the supervisor and is the same program, the uppermost last.
    pub guardians: Vec<Life>,
    /// The supervisor.
    pub supervisor: Option<Life>,
    /// Its hosts.
    pub hosts: Vec<Life>,
}

impl Owners {
    /// Those of a batch that runs now; empty while it does not.
    pub fn of(world: &World, batch: &str) -> Owners {
        let ran = world.supervisor(&["status", batch, "--json"]);
        let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let supervisor = &status["batch"]["supervisor"];
        let pid = supervisor["pid"]
            .as_i64()
            .filter(|_| supervisor["alive"] == true);
        let Some(life) = pid
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Life::of)
        else {
            return Owners::default();
        };
        let parents = parents();
        let program = program_of(life.pid);
        let mut guardians = Vec::new();
        let mut above = parents.get(&life.pid);
        while let Some(&pid) = above {
            if program_of(pid) != program {
                break;
            }
            guardians.extend(Life::of(pid));
            above = parents.get(&pid);
        }
        let is_host = |pid: i32| {
            let found = program_of(pid);
            found.is_some_and(|found| found.file_name() == Some("agent-host".as_ref()))
        };
        let children = parents.iter().filter(|(_, parent)| **parent == life.pid);
        let hosts = children
            .filter(|(pid, _)| is_host(**pid))
            .filter_map(|(pid, _)| Life::of(*pid))
            .collect();
        Owners {
            guardians,
            supervisor: Some(life),
            hosts,
        }
    }

    /// All of them, from above.
    pub fn all(&self) -> Vec<Life> {
        let guardians = self.guardians.iter().rev();
        guardians
            .chain(&self.supervisor)
            .chain(&self.hosts)
            .copied()
            .collect()
    }
}

/// Ends all of them at once: none of them gets to do anything about the end of another, because all
/// are stopped before the first is killed.
///
/// # Panics
/// When one does not stop.
pub fn end_at_once(world: &World, lives: &[Life]) {
    lives.iter().for_each(|life| life.stop());
    world.eventually("everything to be killed is stopped", |_| {
        let still = |life: &&Life| life.is_alive() && !life.is_stopped();
        lives.iter().find(still).is_none().then_some(())
    });
    lives.iter().for_each(|life| life.end());
}

/// The program that a process is.
fn program_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The parent of every process.
pub fn parents() -> BTreeMap<i32, i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|pid: i32| Some((pid, parent(&PathBuf::from(format!("/proc/{pid}")))?)))
        .collect()
}

fn parent(folder: &Path) -> Option<i32> {
    let stat = fs::read(folder.join("stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
