//! The world around one supervisor: time, a disk, hosts, an operator, and misfortune.
//!
//! One queue of what is pending, ordered by time and by the order of its making, and one generator
//! decide everything; so a seed is a story that can be told again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use protocol::ids::{Generation, MessageId};
use protocol::report::RunResult;
use supervisor::store::StateDir;
use supervisor_core::core::Core;
use supervisor_core::effect::Ending;
use supervisor_core::identity::Exit;
use supervisor_core::input::{Input, OperatorCommand, ReplyId};
use supervisor_core::plan::{Plan, TaskIx};

use super::clock::Clock;
use super::disk::SimDisk;
use super::git::Git;
use super::host::{Host, Pid};
use super::oracle::Oracle;
use super::process::Supervisor;
use super::reached::Reached;
use super::rng::Rng;
use super::story::{Story, Telling};
use super::swarm::{Fault, Swarm};

/// Most steps of a story: a story that settles takes a few thousand.
const STEPS_MAX: u64 = 60_000;
/// Longest time, in calm, until a batch must have settled.
const CALM_MAX: u64 = 40 * 24 * 3600 * 1000;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// How.
    pub text: String,
}

/// What a step of the story gives.
pub(super) type Told<T = ()> = Result<T, Violation>;

/// A broken rule.
pub(super) fn broken<T>(rule: &'static str, text: impl Into<String>) -> Told<T> {
    Err(Violation {
        rule,
        text: text.into(),
    })
}

/// What is to come.
#[derive(Debug)]
pub(super) enum Pending {
    /// Reaches this supervisor, if it still lives.
    Input(u64, Box<Input>),
    /// A host takes its next step.
    HostStep(Pid),
    /// A host's process ends.
    HostEnds(Pid, Exit),
    /// The disk has taken this supervisor's group, or refuses it.
    Commit(u64),
    /// A supervisor starts.
    Start,
    /// The supervisor dies, in one of several ways.
    Kill,
    /// A clock misbehaves.
    Clock,
    /// The disk misbehaves.
    Disk,
    /// The disk has room again.
    Room,
    /// The operator sends a message or answers.
    Steer,
    /// The operator commands something else.
    Command,
    /// The operator edits the batch file.
    Revise,
    /// The misfortunes end.
    Calm,
    /// The operator looks after what waits.
    Tend,
}

/// Who waits for a reply.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    /// A host that asked.
    Host(Pid),
    /// The operator.
    Operator(OperatorCommand),
}

/// What hosts left on the disk; each file is synced before anybody hears of it.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Results.
    pub(super) exits: BTreeMap<Generation, RunResult>,
    /// Messages that a run injected.
    pub(super) injected: BTreeMap<Generation, Vec<MessageId>>,
}

/// One story.
#[derive(Debug)]
pub(super) struct World {
    pub(super) rng: Rng,
    pub(super) seed: u64,
    pub(super) swarm: Swarm,
    /// The batch file as it is now.
    pub(super) plan: Plan,
    /// The batch file as the batch last took it.
    pub(super) taken_plan: Plan,
    /// The batch file as it was first.
    pub(super) first_plan: Plan,
    pub(super) only: Vec<TaskIx>,
    pub(super) clock: Clock,
    queue: BTreeMap<(u64, u64), Pending>,
    made: u64,
    pub(super) disk: SimDisk,
    pub(super) dir: StateDir,
    pub(super) supervisor: Option<Supervisor>,
    /// Number of the last supervisor.
    pub(super) owner: u64,
    pub(super) hosts: BTreeMap<Pid, Host>,
    pub(super) files: Files,
    pub(super) git: Git,
    pub(super) askers: BTreeMap<ReplyId, Asker>,
    pub(super) last_reply: u64,
    pub(super) oracle: Oracle,
    pub(super) reached: Reached,
    pub(super) story: Story,
    pub(super) calm: bool,
    /// How the last supervisor ended by itself, until the next one starts.
    pub(super) ending: Option<Ending>,
    pub(super) over: bool,
    /// The core as it was when the story ended.
    pub(super) final_core: Option<Core>,
    /// Goes in with the next start.
    pub(super) on_start: Option<OperatorCommand>,
    pub(super) waited_for_hosts: u64,
    pub(super) starts: u64,
    pub(super) steps: u64,
    pub(super) hash: u64,
}

impl World {
    /// The world of a seed.
    pub(super) fn new(seed: u64, telling: Telling, drop_dir_sync: bool) -> World {
        let mut rng = Rng::new(seed);
        let swarm = Swarm::draw(&mut rng.fork());
        let clock = Clock::new();
        let plan = super::plans::draw(&mut rng.fork(), clock.now().wall, swarm.storm, swarm.repos);
        let root = Path::new("/state");
        let disk = SimDisk::new(rng.fork(), root);
        if drop_dir_sync {
            disk.drop_dir_syncs();
        }
        let count = plan.tasks.len();
        let only = if rng.chance(100) {
            vec![TaskIx(0), task_ix(rng.index(count))]
        } else {
            Vec::new()
        };
        let mut world = World {
            rng: rng.fork(),
            seed,
            oracle: Oracle::new(),
            git: Git::new(seed, (swarm.conflicts, swarm.breaks)),
            swarm,
            first_plan: plan.clone(),
            taken_plan: plan.clone(),
            plan,
            only,
            clock,
            queue: BTreeMap::new(),
            made: 0,
            disk,
            dir: StateDir::at(root.join("batch")),
            supervisor: None,
            owner: 0,
            hosts: BTreeMap::new(),
            files: Files::default(),
            askers: BTreeMap::new(),
            last_reply: 0,
            reached: Reached::default(),
            story: Story::new(telling),
            calm: false,
            ending: None,
            over: false,
            final_core: None,
            on_start: None,
            waited_for_hosts: 0,
            starts: 0,
            steps: 0,
            hash: 0xcbf2_9ce4_8422_2325,
        };
        world.foresee();
        world
    }

    fn foresee(&mut self) {
        self.later(1, Pending::Start);
        self.later(self.swarm.storm, Pending::Calm);
        let Swarm {
            kill_every,
            clock_every,
            disk_every,
            steer_every,
            command_every,
            revise_every,
            ..
        } = self.swarm;
        self.again(kill_every, Pending::Kill);
        self.again(clock_every, Pending::Clock);
        self.again(disk_every, Pending::Disk);
        self.again(steer_every, Pending::Steer);
        self.again(command_every, Pending::Command);
        self.again(revise_every, Pending::Revise);
    }

    /// Something comes after this many milliseconds.
    pub(super) fn later(&mut self, wait: u64, pending: Pending) {
        self.at(self.clock.awake + wait, pending);
    }

    /// Something comes at this time.
    pub(super) fn at(&mut self, time: u64, pending: Pending) {
        self.made += 1;
        self.queue
            .insert((time.max(self.clock.awake), self.made), pending);
    }

    /// Something comes about every so often; never where that is 0.
    fn again(&mut self, every: u64, pending: Pending) {
        if every > 0 {
            let wait = self.rng.range(1, every * 2);
            self.later(wait, pending);
        }
    }

    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        self.story.line(self.clock.awake, text);
    }

    pub(super) fn met(&mut self, fault: Fault) {
        self.reached.fault(fault);
        self.tell(|| format!("FAULT {}", fault.word()));
    }

    pub(super) fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(5);
    }

    /// Tells the story to its end.
    pub(super) fn run(&mut self) -> Told {
        while !self.over {
            self.step()?;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return broken(
                    "the story ends",
                    format!("not settled after {STEPS_MAX} steps"),
                );
            }
            let calm_for = self.clock.awake.saturating_sub(self.swarm.storm);
            if self.calm && calm_for > CALM_MAX {
                return broken("the batch settles once misfortune ends", self.standing());
            }
        }
        self.reached.disk(self.disk.counts());
        self.last_look()
    }

    fn step(&mut self) -> Told {
        let tick = self.supervisor.as_ref().and_then(|it| {
            let due = self.clock.due(it.core.next_deadline())?;
            Some(due.saturating_add(it.late))
        });
        let next = self.queue.first_key_value().map(|(key, _)| key.0);
        match (next, tick) {
            (Some(next), Some(tick)) if tick < next => self.tick(tick),
            (None, Some(tick)) => self.tick(tick),
            (Some(_), _) => match self.queue.pop_first() {
                Some(((time, made), pending)) => {
                    self.clock.pass_to(time);
                    self.mix(time ^ (made << 40));
                    self.happen(pending)
                }
                None => Ok(()),
            },
            (None, None) => broken("the batch settles once misfortune ends", self.standing()),
        }
    }

    fn tick(&mut self, time: u64) -> Told {
        self.clock.pass_to(time);
        self.mix(time);
        let late = if self.rng.chance(self.swarm.late) {
            self.rng.skewed(8_000)
        } else {
            0
        };
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.late = late;
        }
        if late > 0 {
            self.reached.fault(Fault::LateTick);
        }
        self.input(Input::Tick)
    }

    fn happen(&mut self, pending: Pending) -> Told {
        match pending {
            Pending::Input(owner, input) => {
                if owner == self.owner {
                    self.input(*input)
                } else {
                    Ok(())
                }
            }
            Pending::HostStep(pid) => self.host_step(pid),
            Pending::HostEnds(pid, exit) => {
                self.host_ends(pid, exit);
                Ok(())
            }
            Pending::Commit(owner) => {
                if owner == self.owner {
                    self.commit()
                } else {
                    Ok(())
                }
            }
            Pending::Start => self.start(),
            Pending::Kill => {
                self.again(self.swarm.kill_every, Pending::Kill);
                self.kill_somehow();
                Ok(())
            }
            Pending::Clock => {
                self.again(self.swarm.clock_every, Pending::Clock);
                self.bend_time();
                Ok(())
            }
            Pending::Disk => {
                self.again(self.swarm.disk_every, Pending::Disk);
                self.spoil_disk();
                Ok(())
            }
            Pending::Room => {
                self.disk.heal();
                Ok(())
            }
            Pending::Steer => {
                self.again(self.swarm.steer_every, Pending::Steer);
                self.steer_or_answer()
            }
            Pending::Command => {
                self.again(self.swarm.command_every, Pending::Command);
                self.command_something()
            }
            Pending::Revise => {
                self.again(self.swarm.revise_every, Pending::Revise);
                self.revise()
            }
            Pending::Calm => {
                self.tell(|| "CALM".to_owned());
                self.calm = true;
                self.swarm.calm();
                self.git.calm = true;
                self.disk.heal();
                if let Some(supervisor) = &mut self.supervisor {
                    supervisor.effects_left = None;
                }
                self.later(1_000, Pending::Tend);
                Ok(())
            }
            Pending::Tend => self.tend(),
        }
    }

    /// What is left, for a story that does not settle.
    pub(super) fn standing(&self) -> String {
        let Some(supervisor) = &self.supervisor else {
            return format!("no supervisor, last ending {:?}", self.ending);
        };
        let Some(facts) = supervisor.core.facts() else {
            return "no facts".to_owned();
        };
        let tasks: Vec<String> = facts
            .tasks
            .iter()
            .filter(|task| !task.state.is_terminal())
            .map(|task| format!("{} {} {:?}", task.id, task.state, task.reason))
            .collect();
        let (batch, next) = (&facts.batch, supervisor.core.next_deadline());
        let at = format!("{:?} {:?}, next {next:?}", batch.state, batch.reason);
        format!(
            "batch {at}; {}; runs {:?}",
            tasks.join(", "),
            facts.runs.keys()
        )
    }

    /// A number that names the whole story.
    pub(super) fn trace_hash(&self) -> u64 {
        self.hash ^ self.disk.hash().rotate_left(17)
    }
}

/// A position as the plan names it.
pub(super) fn task_ix(at: usize) -> TaskIx {
    TaskIx(u32::try_from(at).unwrap_or(u32::MAX))
}

/// Milliseconds as a length.
pub(super) const fn ms(length: u64) -> Duration {
    Duration::from_millis(length)
}
