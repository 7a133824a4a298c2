//! The crash story with guardians: `run` itself is killed, or the supervisor below it, or both.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::record::Record;
use super::{HANG, Life, Moment, Script, Victims, early_end, is_gone, last_holder, permit};
use crate::clock::wall_ns;
use crate::random::Random;
use crate::world::{Started, World};

/// Exit status of a guardian whose supervisor died too often.
const GIVEN_UP: i32 = 71;

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The process that `run` is: the guardian. The supervisor goes on, and the next `run` watches it.
    Guardian,
    /// The supervisor; its guardian starts another one.
    Supervisor,
    /// First the guardian, so that it starts no other one, then the supervisor.
    Both,
}

fn draw(victims: Victims, random: &mut Random) -> Victim {
    match (victims, random.below(3)) {
        (Victims::Guardian, _) | (Victims::Any, 0) => Victim::Guardian,
        (Victims::Guarded, _) | (Victims::Any, 1) => Victim::Supervisor,
        (Victims::Supervisor | Victims::Both | Victims::Any, _) => Victim::Both,
    }
}

/// Runs and kills until the script's kills are done, then lets the batch end. There is always a `run`:
/// one that was killed is followed at once by the next.
pub(super) fn live_and_die(
    world: &World,
    script: &Script,
    record: &Record,
) -> (Vec<Life>, Vec<String>) {
    let mut random = Random::new(script.seed);
    let mut lives = Lives::default();
    let start = || world.start("run", &["run", "crash.yml"]);
    let mut run = start();
    for kill in 0..=script.kills {
        let is_last = kill == script.kills;
        let moment = Moment::draw(&mut random, kill, script);
        permit(world, moment.permits);
        while !moment.wait(record, &mut run) {
            lives.look(world);
            match run.end(world) {
                Some(0) if is_last => {
                    // A supervisor whose guardian was killed before it began ends when it sees that.
                    world.assert_nothing_left();
                    return (lives.all, Vec::new());
                }
                Some(GIVEN_UP) => run = start(),
                code => return (lives.all, vec![early_end(world, kill, code)]),
            }
        }
        if is_last {
            break;
        }
        run = match draw(script.victims, &mut random) {
            Victim::Guardian => after(run, start),
            Victim::Supervisor => {
                lives.kill(world);
                run
            }
            Victim::Both => {
                run.kill();
                lives.kill(world);
                start()
            }
        };
    }
    let trouble = format!("the last run was not over after {HANG:?}");
    (lives.all, vec![trouble])
}

fn after(run: Started, start: impl Fn() -> Started) -> Started {
    run.kill();
    start()
}

/// The supervisors that held the batch, in order; each is met before the next one can begin.
#[derive(Debug, Default)]
struct Lives {
    all: Vec<Life>,
}

impl Lives {
    /// Takes down who holds the batch.
    fn look(&mut self, world: &World) {
        let Some(pid) = last_holder(world) else {
            return;
        };
        if self.all.last().is_some_and(|life| life.pid == pid) {
            return;
        }
        let started = self.all.last().map_or(0, |life| life.ended);
        self.all.push(Life {
            pid,
            started,
            alive_until: started,
            ended: i128::MAX,
        });
    }

    /// Kills whoever holds the batch, if it lives, and sees its end.
    fn kill(&mut self, world: &World) {
        self.look(world);
        let Some(life) = self.all.last_mut().filter(|life| !is_gone(life.pid)) else {
            return;
        };
        life.alive_until = wall_ns();
        let pid = Pid::from_raw(i32::try_from(life.pid).unwrap_or_default());
        // It may have ended by itself in this moment.
        let _ended = kill(pid, Signal::SIGKILL);
        world.eventually("the supervisor is gone", |_| {
            is_gone(life.pid).then_some(())
        });
        life.ended = wall_ns();
    }
}
