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

/// Most processes that are remembered as outside: shells and what they run in. One more, and all are
/// looked at again.
const REMEMBERED_MAX: usize = 1024;

/// Processes that were found outside, with their start ticks. They stay there: whoever adopts a process
/// is one of its ancestors, so it never comes to descend from a host that began after it. With them
/// a request costs a look at whoever asks, and not at all above it.
#[derive(Debug, Default)]
pub struct Outsiders(HashMap<u32, u64>);

impl Outsiders {
    fn have(&self, pid: u32, start_ticks: u64) -> bool {
        self.0.get(&pid) == Some(&start_ticks)
    }

    fn remember(&mut self, found: Vec<(u32, u64)>) {
        if self.0.len() + found.len() > REMEMBERED_MAX {
            self.0.clear();
        }
        self.0.extend(found);
    }
}

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
        self.has_besides(&mut Outsiders::default(), pid)
    }

    /// The same, and those that are found outside on the way are remembered.
    pub fn has_besides(&self, outsiders: &mut Outsiders, pid: u32) -> bool {
        if self.supervisor == Some(pid) {
            return false;
        }
        for _ in 0..LOOKS_MAX {
            if let Some(inside) = self.look(outsiders, pid) {
                return inside;
            }
        }
        true
    }

    /// `None` when one of the ancestors ended while it was looked at: its children have another
    /// parent now.
    fn look(&self, outsiders: &mut Outsiders, pid: u32) -> Option<bool> {
        let mut pid = pid;
        let mut seen = Vec::new();
        for _ in 0..ANCESTORS_MAX {
            let found = stat::of(pid)?;
            if outsiders.have(pid, found.start_ticks) {
                outsiders.remember(seen);
                return Some(false);
            }
            let is_host = self.hosts.get(&pid) == Some(&found.start_ticks);
            if is_host || self.supervisor == Some(pid) || self.carries_tag(pid) {
                return Some(true);
            }
            seen.push((pid, found.start_ticks));
            if found.parent == 0 || pid == 1 {
                outsiders.remember(seen);
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
    fn who_was_found_outside_is_not_looked_at_again_and_an_insider_is_never_remembered() {
        let us = std::process::id();
        let parent = stat::of(us).unwrap().parent;
        let mut outsiders = Outsiders::default();
        assert!(with_host(us).has_besides(&mut outsiders, us));
        assert!(outsiders.0.is_empty(), "nothing below a host");
        assert!(!Insiders::default().has_besides(&mut outsiders, parent));
        assert!(outsiders.0.contains_key(&parent) && outsiders.0.contains_key(&1));
        assert!(
            with_host(us).has_besides(&mut outsiders, us),
            "what its parent is makes nobody an outsider"
        );
        // Were it looked at, it would be found to be a host.
        assert!(!with_host(parent).has_besides(&mut outsiders, us));
        let ticks = outsiders.0[&parent] + 1;
        outsiders.0.insert(parent, ticks);
        outsiders.0.remove(&us);
        assert!(
            with_host(parent).has_besides(&mut outsiders, us),
            "a number that was given out anew is another process"
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut outsiders = Outsiders::default();
        for pid in 0..5_000 {
            outsiders.remember(vec![(pid, 1)]);
            assert!(outsiders.0.len() <= REMEMBERED_MAX);
        }
        assert!(outsiders.have(4_999, 1));
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
