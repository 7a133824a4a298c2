//! Who asks: the operator, or an agent that must not answer its own question (I12).
//!
//! A process is *inside* a batch when it, or one that it descends from, is a host of the batch or
//! carries a tag of one of its runs (spawn token in the environment, number in the limit of file
//! locks). An agent can clear its environment and leave its session; it can not leave its descent,
//! because hosts adopt their own orphans, nor raise its limit again.

use std::collections::HashMap;

use protocol::ids::Generation;
use supervisor_core::facts::Facts;
use supervisor_core::identity::spawn_token;

use crate::process::stat;
use crate::process::{scan, tag};
use crate::store::registry::Registry;

/// Generations of parents looked at; deeper trees than this are not made by hand or by shells, and
/// one that is so deep is refused.
const ANCESTORS_MAX: usize = 256;
/// Looks at the ancestors anew when one ends meanwhile; then whoever asks is refused.
const LOOKS_MAX: usize = 3;

/// By what the insiders of a batch are known.
#[derive(Debug, Default)]
pub struct Insiders {
    seed: u64,
    newest: Generation,
    /// Start ticks of the hosts by their numbers.
    hosts: HashMap<u32, u64>,
    /// The supervisor: it starts nothing but hosts, so everything else below it is an orphan of one.
    supervisor: Option<u32>,
}

impl Insiders {
    /// Of a batch as it is listed, and the pid of its supervisor while it has one.
    pub fn of(registry: &Registry, supervisor: Option<u32>) -> Insiders {
        let hosts = registry.runs.iter().filter_map(|run| run.host.as_ref());
        Insiders {
            seed: registry.seed,
            newest: registry.last_run,
            hosts: hosts.map(|host| (host.pid, host.start_ticks)).collect(),
            supervisor,
        }
    }

    /// Of a batch as its own supervisor, this process, knows it.
    pub fn of_own(facts: &Facts) -> Insiders {
        let hosts = facts.runs.values().filter_map(|run| run.identity.as_ref());
        Insiders {
            seed: facts.batch.seed,
            newest: facts.batch.last_generation,
            hosts: hosts.map(|host| (host.pid, host.start_ticks)).collect(),
            supervisor: Some(std::process::id()),
        }
    }

    /// Whether a process is inside, or can not be judged: one that has ended by the time that it is
    /// looked at may have been anything. The supervisor itself is above its runs, not inside.
    pub fn has(&self, pid: u32) -> bool {
        if self.supervisor == Some(pid) {
            return false;
        }
        for _ in 0..LOOKS_MAX {
            if let Some(inside) = self.look(pid) {
                return inside;
            }
        }
        true
    }

    /// `None` when one of the ancestors ended while it was looked at: its children have another
    /// parent now.
    fn look(&self, pid: u32) -> Option<bool> {
        let mut pid = pid;
        for _ in 0..ANCESTORS_MAX {
            let found = stat::of(pid)?;
            let is_host = self.hosts.get(&pid) == Some(&found.start_ticks);
            if is_host || self.supervisor == Some(pid) || self.carries_tag(pid) {
                return Some(true);
            }
            if found.parent == 0 || pid == 1 {
                return Some(false);
            }
            pid = found.parent;
        }
        Some(true)
    }

    /// Whether it carries a tag of any run that the batch ever had.
    fn carries_tag(&self, pid: u32) -> bool {
        let limit = scan::hard_limit_of(pid).filter(|&limit| tag::key_in(limit).is_some());
        let token = scan::token_of(pid);
        if limit.is_none() && token.is_none() {
            return false;
        }
        let runs = (1..=self.newest.0).map(|run| spawn_token(self.seed, Generation(run)));
        let mut runs = runs.rev();
        runs.any(|run| token == Some(run) || limit.is_some_and(|it| tag::stands_for(it, run)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_host(pid: u32) -> Insiders {
        let ticks = stat::of(pid).unwrap().start_ticks;
        Insiders {
            hosts: HashMap::from([(pid, ticks)]),
            ..Insiders::default()
        }
    }

    #[test]
    fn descent_is_seen_over_generations_and_ends_at_the_first_process() {
        let us = std::process::id();
        let parent = stat::of(us).unwrap().parent;
        assert!(with_host(us).has(us));
        assert!(with_host(parent).has(us));
        assert!(!with_host(us).has(parent), "a host's parent is outside");
        assert!(!Insiders::default().has(us));
    }

    #[test]
    fn the_number_of_a_host_alone_makes_nobody_an_insider() {
        let us = std::process::id();
        let mut insiders = with_host(us);
        insiders.hosts.entry(us).and_modify(|ticks| *ticks += 1);
        assert!(!insiders.has(us));
    }

    #[test]
    fn what_is_below_the_supervisor_and_what_is_gone_is_refused() {
        let us = std::process::id();
        let insiders = Insiders {
            supervisor: Some(stat::of(us).unwrap().parent),
            ..Insiders::default()
        };
        assert!(insiders.has(us));
        let own = Insiders {
            supervisor: Some(us),
            ..Insiders::default()
        };
        assert!(!own.has(us), "it is above its runs");
        assert!(Insiders::default().has(u32::MAX), "it can not be judged");
    }
}
