//! Hosts whose supervisor is gone: they end in their own time, and the next supervisor waits for them.

use protocol::command::RunKind;
use supervisor_core::identity::Exit;

use super::host::{After, Pid, Step, result};
use super::swarm::Fault;
use super::world::{Pending, World};

/// Longest time from a host's end of stdin to its end: its lease.
const LEASE: u64 = 60_000;

impl World {
    /// The supervisor is gone: its hosts' stdin ends, and so do they, in their own time.
    pub(super) fn orphan_hosts(&mut self) {
        let orphans: Vec<Pid> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.alive)
            .map(|(pid, _)| *pid)
            .collect();
        for pid in orphans {
            let hung = self.rng.chance(self.swarm.bad_runs / 4 + self.swarm.facts);
            let wait = if hung {
                self.rng.range(LEASE / 2, LEASE * 10)
            } else {
                self.rng.range(1, 9_000)
            };
            let may_finish = self.rng.chance(300);
            let wall = self.clock.now().wall.0;
            let Some(host) = self.hosts.get_mut(&pid) else {
                continue;
            };
            let finishes = may_finish && host.started && !host.did_job;
            let usage = host.usage;
            host.script.clear();
            let generation = host.generation;
            if finishes && host.has_job() {
                let unsaid = After::Unsaid(Exit::Code(0));
                host.script.push_back((wait / 2, Step::Perform(unsaid)));
                self.next_step(pid);
            } else if finishes && host.kind == RunKind::Agent {
                let done = result(&mut self.rng, None, wall, usage);
                host.script
                    .push_back((wait / 2, Step::Write(Box::new(done))));
                if !self.files.exits.contains_key(&generation) {
                    self.met(Fault::ResultAfterDeath);
                }
                if let Some(host) = self.hosts.get_mut(&pid) {
                    host.asks = None;
                }
                self.next_step(pid);
            }
            self.later(wait, Pending::HostEnds(pid, Exit::Code(0)));
        }
    }

    /// Whether a starting supervisor must wait for hosts of earlier terms.
    pub(super) fn hosts_hold_up(&mut self) -> bool {
        let alive: Vec<Pid> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.alive)
            .map(|(pid, _)| *pid)
            .collect();
        if alive.is_empty() {
            self.waited_for_hosts = 0;
            return false;
        }
        self.waited_for_hosts += 1;
        if self.waited_for_hosts > 60 {
            // Killed by their proven identity; what can not be killed stays a fact for the core.
            self.waited_for_hosts = 0;
            if self.rng.chance(self.swarm.facts * 2) {
                return false;
            }
            for pid in alive {
                self.host_ends(pid, Exit::Signal(9));
            }
            return false;
        }
        self.later(1_000, Pending::Start);
        true
    }
}
