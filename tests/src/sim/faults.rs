//! Misfortune: deaths, power, clocks, the disk; and how a supervisor ends by itself.

use supervisor_core::effect::Ending;
use supervisor_core::input::OperatorCommand;
use supervisor_core::plan::RetryMode;

use super::swarm::Fault;
use super::world::{Pending, Told, World, ms, task_ix};

/// Longest change of the date, ms: two days.
const JUMP_MAX: u64 = 2 * 24 * 3_600_000;

impl World {
    /// The supervisor dies now, or soon at an awkward moment.
    pub(super) fn kill_somehow(&mut self) {
        if self.supervisor.is_none() {
            return;
        }
        match self.rng.below(3) {
            0 => {
                self.met(Fault::KilledIdle);
                self.supervisor_dies();
            }
            1 => {
                let left = self.rng.below(6);
                if let Some(supervisor) = &mut self.supervisor {
                    supervisor.effects_left = Some(left);
                }
            }
            _ => self.disk.light_fuse(self.rng.below(12)),
        }
    }

    /// The supervisor's process is gone, perhaps with the power.
    pub(super) fn supervisor_dies(&mut self) {
        self.tell(|| "the supervisor is dead".to_owned());
        self.supervisor = None;
        self.after_death();
    }

    /// What follows a death: hosts lose their supervisor, or everything its power.
    pub(super) fn after_death(&mut self) {
        self.owner += 1;
        self.askers.clear();
        self.oracle.supervisor_down();
        if self.rng.chance(self.swarm.power) {
            self.met(Fault::PowerCut);
            for host in self.hosts.values_mut() {
                host.alive = false;
            }
            self.disk.cut_power();
            let off = ms(self.rng.skewed(7_200_000));
            self.clock.reboot(off);
        } else {
            self.orphan_hosts();
        }
        let wait = self.rng.skewed(10_000);
        self.later(wait, Pending::Start);
    }

    /// Sleep, or another date.
    pub(super) fn bend_time(&mut self) {
        match self.rng.below(4) {
            0 | 1 => {
                self.met(Fault::Suspended);
                let length = ms(self.rng.range(120_000, 12 * 3_600_000));
                self.clock.sleep(length);
                self.oracle.suspended();
            }
            2 => {
                self.met(Fault::WallForward);
                let by = i64::try_from(self.rng.skewed(JUMP_MAX)).unwrap_or(0);
                self.clock.jump(by);
            }
            _ => {
                self.met(Fault::WallBack);
                let by = i64::try_from(self.rng.skewed(JUMP_MAX)).unwrap_or(0);
                self.clock.jump(-by);
            }
        }
    }

    /// No room for a while, or a sync that fails.
    pub(super) fn spoil_disk(&mut self) {
        if self.rng.chance(500) {
            self.met(Fault::DiskFull);
            self.disk.set_full(true);
            let wait = self.rng.skewed(600_000);
            self.later(wait, Pending::Room);
        } else {
            self.met(Fault::SyncFailed);
            self.disk.fail_next_sync();
        }
    }

    /// The supervisor ends by itself.
    pub(super) fn finished(&mut self, ending: Ending) -> Told {
        let Some(supervisor) = self.supervisor.take() else {
            return Ok(());
        };
        let living = self.hosts.values().filter(|host| host.alive);
        let owned: Vec<_> = living.map(|host| host.generation).collect();
        // What was decided after the end was, but before it was performed, is for the next one.
        if !supervisor.is_ahead() {
            self.oracle
                .finished(&supervisor.core, ending, &owned, self.clock.now())?;
        }
        self.tell(|| format!("the supervisor ends: {ending:?}"));
        self.owner += 1;
        self.askers.clear();
        self.oracle.supervisor_down();
        self.oracle.ran_again();
        self.ending = Some(ending);
        let settled = matches!(ending, Ending::Done | Ending::Failed);
        let parked = supervisor.core.facts().map(super::operator::parked);
        let waiting = parked.filter(|tasks| !tasks.is_empty());
        let waiting = waiting.map(super::operator::again);
        let stuck = self.calm
            && self
                .oracle
                .needs_a_new_plan(&supervisor.core, self.clock.now());
        let again = !self.calm && self.rng.chance(300);
        if stuck || (settled && !again) {
            if settled {
                self.is_delivered(&supervisor.core)?;
            }
            self.over = true;
            self.final_core = Some(supervisor.core);
            return Ok(());
        }
        if settled {
            let count = supervisor.core.facts().map_or(0, |facts| facts.tasks.len());
            let tasks = (0..count)
                .filter(|_| self.rng.chance(500))
                .map(task_ix)
                .collect();
            let mode = self.rng.pick(&[RetryMode::Resume, RetryMode::Fresh]);
            self.on_start = Some(OperatorCommand::Retry {
                tasks,
                mode,
                attempts: None,
                note: None,
            });
        }
        if !self.calm && self.swarm.revise_every > 0 && self.rng.chance(300) {
            self.on_start = Some(self.edited());
        } else if let (true, Some(parked)) = (self.calm, waiting) {
            self.on_start = Some(parked);
        } else if !settled && (self.calm || self.rng.chance(600)) {
            self.on_start = Some(OperatorCommand::Resume { tasks: None });
        }
        let wait = if self.calm {
            self.rng.skewed(20_000)
        } else {
            self.rng.range(1, self.swarm.storm / 6)
        };
        self.later(wait, Pending::Start);
        Ok(())
    }
}
