//! The story of the killed supervisor: one batch, hundreds of kill -9, and what must hold after.
//!
//! The proof is kept by processes that are not the one being killed: each task writes its own start
//! and end, and holds a lock while it lives that a second copy of it would run into.

#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

mod guarded;
pub mod judge;
pub mod observe;
pub mod record;

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::{Deadline, pause, wall_ns};
use crate::random::Random;
use crate::world::{Started, World};
use judge::Evidence;
use observe::Observer;
use record::Record;

/// Name of the batch.
pub const BATCH: &str = "crash";
/// Between two looks at the tasks' record.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A life in which nothing happens for this long ends the story: the batch hangs.
const HANG: Duration = Duration::from_secs(120);

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// A supervisor that has no guardian.
    Supervisor,
    /// Guardian and supervisor, and what else is in their group, at once.
    Both,
    /// The guardian alone, which is the process that `run` is; the next `run` takes its place.
    Guardian,
    /// The supervisor below its guardian, which starts it again.
    Guarded,
    /// The guardian, the supervisor below it, or one after the other: drawn for each kill.
    Any,
}

impl Victims {
    /// Those of this name.
    pub fn named(name: &str) -> Option<Victims> {
        Some(match name {
            "supervisor" => Victims::Supervisor,
            "both" => Victims::Both,
            "guardian" => Victims::Guardian,
            "guarded" => Victims::Guarded,
            "any" => Victims::Any,
            _unknown => return None,
        })
    }
}

/// What is to be played.
#[derive(Debug, Clone)]
pub struct Script {
    /// Who is killed.
    pub victims: Victims,
    /// Kills of the supervisor.
    pub kills: usize,
    /// Tasks of the batch.
    pub tasks: usize,
    /// Live attempts at most.
    pub concurrency: usize,
    /// What makes the moments repeatable, as far as a real machine allows.
    pub seed: u64,
    /// The program that plays a task: `PROGRAM task RECORD LOCKS PERMITS ID`.
    pub task_program: PathBuf,
}

/// One life of the supervisor, by the wall clock in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Its pid.
    pub pid: u32,
    /// Started after this.
    pub started: i128,
    /// Alive at least until this.
    pub alive_until: i128,
    /// Reaped before this.
    pub ended: i128,
}

/// Id of the task with this number.
pub fn task_id(number: usize) -> String {
    format!("t-{number:04}")
}

/// Number of the task that this one waits for: every third waits for the one two rounds before.
pub fn dependency(number: usize, concurrency: usize) -> Option<usize> {
    let before = number.checked_sub(2 * concurrency)?;
    number.is_multiple_of(3).then_some(before)
}

/// Plays the whole story and judges it.
///
/// # Panics
/// When the machine itself fails (no process, no file).
pub fn play(script: &Script) -> Evidence {
    let world = World::new();
    let record = Record::new(&world.path("record"));
    std::fs::create_dir(world.path("locks")).expect("a folder for the tasks' locks");
    world.write("crash.yml", &batch_file(&world, script));
    let observer = Observer::start(&world);
    permit(&world, 0);
    let (lives, trouble) = match script.victims {
        Victims::Supervisor | Victims::Both => live_and_die(&world, script, &record),
        Victims::Guardian | Victims::Guarded | Victims::Any => {
            guarded::live_and_die(&world, script, &record)
        }
    };
    let observations = observer.stop();
    judge::judge(&world, script, &lives, trouble, observations)
}

/// Runs and kills until the script's kills are done, then lets the batch end. Gives the lives and
/// what went wrong on the way.
fn live_and_die(world: &World, script: &Script, record: &Record) -> (Vec<Life>, Vec<String>) {
    let mut random = Random::new(script.seed);
    let mut lives = Vec::new();
    let mut trouble = Vec::new();
    for kill in 0..=script.kills {
        let moment = Moment::draw(&mut random, kill, script);
        permit(world, moment.permits);
        let started = wall_ns();
        let guarded = script.victims == Victims::Both;
        let mut supervisor = match guarded {
            false => world.start("run", &["run", "--no-guardian", "crash.yml"]),
            true => world.start_apart("run", &["run", "crash.yml"]),
        };
        let mut pid = supervisor.pid();
        let mut alive_until = started;
        if moment.wait(record, &mut supervisor) {
            alive_until = wall_ns();
            if guarded {
                supervisor.kill_group();
                pid = supervisor_of(world, pid, &lives);
                world.eventually("the supervisor is gone", |_| is_gone(pid).then_some(()));
            } else {
                supervisor.kill();
            }
            if kill == script.kills {
                trouble.push(format!("the last run was not over after {HANG:?}"));
            }
        } else {
            // It ended by itself, who knows when.
            let code = supervisor.end(world);
            if guarded {
                pid = supervisor_of(world, pid, &lives);
            }
            if kill < script.kills || code != Some(0) {
                trouble.push(early_end(world, kill, code));
            }
        }
        let ended = wall_ns();
        lives.push(Life {
            pid,
            started,
            alive_until,
            ended,
        });
        if !trouble.is_empty() {
            break;
        }
    }
    (lives, trouble)
}

/// The supervisor below this guardian; the guardian itself where it died before the supervisor took
/// the batch, which nobody was shown then.
fn supervisor_of(world: &World, guardian: u32, lives: &[Life]) -> u32 {
    let is_new = |holder: &u32| !lives.iter().any(|life| life.pid == *holder);
    last_holder(world).filter(is_new).unwrap_or(guardian)
}

/// The supervisor that wrote itself into the lock of the batch last.
fn last_holder(world: &World) -> Option<u32> {
    let text = std::fs::read_to_string(world.batch_dir()?.join("lock")).ok()?;
    let holder: serde_json::Value = serde_json::from_str(&text).ok()?;
    u32::try_from(holder.get("pid")?.as_u64()?).ok()
}

/// Whether a process that was killed has let everything go; nobody may have collected it yet.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// Lets so many tasks come to their end, all in all.
fn permit(world: &World, ends: usize) {
    let permits = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(world.path("permits"));
    let length = u64::try_from(ends).unwrap_or(u64::MAX);
    let longer = permits.and_then(|file| file.set_len(length));
    longer.expect("permits can be given");
}

fn early_end(world: &World, kills: usize, code: Option<i32>) -> String {
    let said = std::fs::read_to_string(world.path("run.err")).unwrap_or_default();
    format!("after {kills} kills the supervisor ended by itself with {code:?}: {said}")
}

/// When to kill.
#[derive(Debug)]
struct Moment {
    /// So many tasks may have ended by then.
    permits: usize,
    /// Not before this many ends of tasks are recorded,
    ends: usize,
    /// and then after this;
    extra: Duration,
    /// but at the latest after this.
    limit: Duration,
}

impl Moment {
    /// Every few kills as many tasks may end as there are lanes, and the kill falls behind their ends
    /// or among them. Between that nothing gets done: lives are cut at any moment, most of them while
    /// they find out what the one before left. So each task is lost several times, but not nearly as
    /// often in a row as a quarantine takes.
    fn draw(random: &mut Random, kill: usize, script: &Script) -> Self {
        let step = (script.concurrency * script.kills / script.tasks.max(1)).max(1);
        let due = |kill: usize| {
            let ends = (kill / step + 1) * step * script.tasks / script.kills.max(1);
            // The last life has something left to do.
            ends.min(script.tasks.saturating_sub(1))
        };
        if kill == script.kills {
            return Self {
                // An end whose result was not durable comes twice.
                permits: script.tasks * 100,
                ends: usize::MAX,
                extra: Duration::ZERO,
                limit: HANG,
            };
        }
        let permits = due(kill);
        let new = permits - kill.checked_sub(step).map_or(0, due);
        if kill.is_multiple_of(step) && new > 0 {
            let missing = match random.below(4) {
                0 => random.below(u64::try_from(new).unwrap_or(1)),
                _ => 0,
            };
            return Self {
                permits,
                ends: permits - usize::try_from(missing).unwrap_or_default(),
                extra: Duration::from_micros(random.below(10_000)),
                limit: HANG,
            };
        }
        let longest = if random.below(5) < 3 { 30_000 } else { 150_000 };
        Self {
            permits,
            ends: usize::MAX,
            extra: Duration::ZERO,
            limit: Duration::from_micros(random.below(longest)),
        }
    }

    /// Waits for the moment; false: the supervisor ended by itself first.
    fn wait(&self, record: &Record, supervisor: &mut Started) -> bool {
        let limit = Deadline::after(self.limit);
        while record.ends() < self.ends {
            if supervisor.ended().is_some() {
                return false;
            }
            if limit.is_over() {
                return true;
            }
            pause(LOOK_EVERY);
        }
        pause(self.extra);
        supervisor.ended().is_none()
    }
}

fn batch_file(world: &World, script: &Script) -> String {
    let mut text = format!(
        "version: 1\nname: {BATCH}\nisolation: none\nconcurrency: {}\n\
         defaults:\n  attempts: 1\ntasks:\n",
        script.concurrency
    );
    for number in 0..script.tasks {
        let id = task_id(number);
        let argv = [
            script.task_program.as_path(),
            "task".as_ref(),
            &world.path("record"),
            &world.path("locks"),
            &world.path("permits"),
            id.as_ref(),
        ]
        .map(|part| format!("{:?}", part.display().to_string()));
        text.push_str(&format!("  - id: {id}\n    run: [{}]\n", argv.join(", ")));
        if let Some(before) = dependency(number, script.concurrency) {
            text.push_str(&format!("    depends_on: [{}]\n", task_id(before)));
        }
    }
    text
}
