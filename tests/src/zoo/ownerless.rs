//! A batch full of escapes whose guardian, supervisor and hosts are all killed at one moment.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::agent::Then;
use super::escape::Escape;
use super::layer::Layer;
use super::ledger::Life;
use super::owners::end_at_once;
use super::stage::{Play, Stage};

/// Agents of the batch.
pub const AGENTS: usize = 50;

/// Everything of a batch that lives on without an owner.
#[derive(Debug)]
pub struct Survivors {
    /// What carries at least one tag, or is known by its session.
    pub known: BTreeSet<Life>,
    /// What has stripped every tag: only a control group or a living owner would know it.
    pub stripped: BTreeSet<Life>,
}

/// Starts the batch, one agent for each escape and the others with a child in the background, and
/// waits until everything is out. Without control groups where these can be hidden: they would hold
/// even what stripped its tags.
///
/// # Panics
/// When something does not start.
pub fn open(program: &Path) -> Stage {
    let (mut escapes, _) = Escape::possible();
    // Its own hosts and supervisor are no part of the ledger; links of chains have no fixed number.
    escapes.retain(|escape| *escape != Escape::NestedSupervisor && !escape.is_comet());
    // Only root can hide control groups.
    let root = nix::unistd::geteuid().is_root();
    escapes.retain(|escape| !root || *escape != Escape::CgroupMove);
    let stage = Stage::open(&Play {
        fillers: AGENTS - escapes.len(),
        escapes,
        then: Then::Stays,
        timeout: Duration::from_secs(600),
        without: if root {
            vec![Layer::Cgroup]
        } else {
            Vec::new()
        },
        program: program.to_owned(),
    });
    stage.wait_until_out();
    stage
}

/// Kills every owner of the batch, and sees their ends.
///
/// # Panics
/// When not every agent has its host, or an owner does not die.
pub fn kill_owners(stage: &mut Stage) {
    let owners = stage.owners();
    assert_eq!(owners.hosts.len(), AGENTS, "a host for each agent");
    let all = owners.all();
    end_at_once(&stage.world, &all);
    // One that is just dying is no survivor, and may be listed.
    stage
        .world
        .eventually("those that were killed have ended", |_| {
            all.iter().all(|life| !life.is_alive()).then_some(())
        });
    assert_eq!(stage.wait_for_run(), None, "the run was killed");
}

/// What lives now, by the ledgers of the agents themselves.
pub fn survivors(stage: &Stage) -> Survivors {
    let (without, with): (Vec<Escape>, Vec<Escape>) = stage
        .escapes
        .iter()
        .partition(|escape| escape.strips_every_tag());
    let of = |escapes: Vec<Escape>| {
        let lives = escapes
            .into_iter()
            .flat_map(|escape| stage.ledger.survivors(escape, None));
        lives.collect::<BTreeSet<Life>>()
    };
    let fillers = stage.fillers.iter();
    let fillers = fillers.flat_map(|filler| filler.survivors(Escape::Background, None));
    let mut known = of(with);
    known.extend(fillers);
    Survivors {
        known,
        stripped: of(without),
    }
}

impl Survivors {
    /// What of this is wrong with a list of process numbers: what lives and is not in it, and what
    /// is in it and is not of the batch.
    pub fn compare(&self, listed: &BTreeSet<i32>) -> (Vec<Life>, Vec<i32>) {
        let missing = self.known.iter().filter(|life| !listed.contains(&life.pid));
        let alive = self.known.union(&self.stripped);
        let alive: BTreeSet<i32> = alive.map(|life| life.pid).collect();
        let strangers = listed.difference(&alive).copied();
        (missing.copied().collect(), strangers.collect())
    }
}

/// The process numbers in `ps --orphans --json` that have no owner and are of known batches.
///
/// # Panics
/// When a row has no reason, or is no row.
pub fn listed(rows: &serde_json::Value) -> BTreeSet<i32> {
    let rows = rows.as_array().into_iter().flatten();
    let orphans = rows.filter(|row| row["state"] == "orphan");
    let numbers = orphans.filter_map(|row| {
        let why = row["why"].as_str().unwrap_or_default();
        assert!(!why.is_empty(), "without a reason: {row}");
        i32::try_from(row["pid"].as_i64()?).ok()
    });
    numbers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_compared_both_ways() {
        let life = |pid| Life { pid, ticks: 7 };
        let survivors = Survivors {
            known: [life(2), life(3)].into(),
            stripped: [life(4)].into(),
        };
        let compared = |listed: &[i32]| survivors.compare(&listed.iter().copied().collect());
        assert_eq!(compared(&[2, 3]), (vec![], vec![]));
        assert_eq!(compared(&[2, 3, 4]), (vec![], vec![]), "one more is known");
        assert_eq!(compared(&[2, 9]), (vec![life(3)], vec![9]));
    }
}
