//! The simulator: the real core, outbox, journal and checkpoint in a world of virtual time, a disk
//! that tears and fills, hosts that lie, and a supervisor that dies at any moment.
//!
//! A seed is a story, and it can be told again. After every step the judge compares what the core
//! says with what the world knows; counters say which branches a range of seeds has reached.

mod clock;
mod delivery;
mod disk;
mod disk_file;
mod faults;
mod git;
mod git_merges;
mod host;
mod hosts;
mod jobs;
mod judge;
mod last_look;
mod operator;
mod oracle;
mod orphans;
mod outcome;
mod plans;
mod process;
mod promises;
mod reached;
mod revisions;
mod rng;
mod story;
mod swarm;
mod world;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use supervisor_core::mutation::{self, Mutation};

pub use self::reached::Reached;
pub use self::story::Telling;
pub use self::world::Violation;
use self::world::World;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// None: the code as it is.
    None,
    /// In the core or the outbox.
    Core(Mutation),
    /// Syncs of folders do nothing.
    DroppedFolderSync,
}

/// What became of a story.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its seed.
    pub seed: u64,
    /// Names everything that happened, in order.
    pub hash: u64,
    /// How many steps it took.
    pub steps: u64,
    /// Virtual time it took, milliseconds.
    pub lasted: u64,
    /// The branches it reached.
    pub reached: Reached,
    /// The rule that was broken.
    pub broken: Option<Violation>,
    /// What is told of it.
    pub story: String,
}

/// Tells one story.
pub fn run(seed: u64, bug: Bug, telling: Telling) -> Ended {
    let planted = match bug {
        Bug::Core(mutation) => Some(mutation),
        Bug::None | Bug::DroppedFolderSync => None,
    };
    mutation::set(planted);
    let mut world = World::new(seed, telling, bug == Bug::DroppedFolderSync);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    mutation::set(None);
    let broken = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        Err(panic) => Some(Violation {
            rule: "nothing panics",
            text: panic_text(&*panic),
        }),
    };
    Ended {
        seed,
        hash: world.trace_hash(),
        steps: world.steps,
        lasted: world.clock.awake,
        story: world.story.to_string(),
        reached: world.reached,
        broken,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no text")
        .to_owned()
}

/// What a range of seeds gave.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds tried.
    pub seeds: u64,
    /// Steps of all stories.
    pub steps: u64,
    /// Virtual time of all stories, milliseconds.
    pub lasted: u64,
    /// Branches reached.
    pub reached: Reached,
    /// Seeds that broke a rule, and the rule.
    pub failed: Vec<(u64, Violation)>,
}

/// Most failed seeds of a range that are kept; after that many the range ends.
pub const FAILED_MAX: usize = 20;

/// Tells the stories of a range of seeds.
pub fn run_range(first: u64, count: u64, bug: Bug) -> Summary {
    let mut summary = Summary::default();
    for seed in first..first + count {
        let ended = run(seed, bug, Telling::Nothing);
        summary.seeds += 1;
        summary.steps += ended.steps;
        summary.lasted += ended.lasted;
        summary.reached.merge(&ended.reached);
        if let Some(violation) = ended.broken {
            summary.failed.push((seed, violation));
            if summary.failed.len() >= FAILED_MAX {
                break;
            }
        }
    }
    summary
}

/// What a person needs to see of a seed that failed: the rule, how to tell it again, and its end.
pub fn report(seed: u64, bug: Bug) -> String {
    let ended = run(seed, bug, Telling::End);
    let told = match &ended.broken {
        Some(violation) => format!("rule broken: {}\n  {}", violation.rule, violation.text),
        None => "no rule broken".to_owned(),
    };
    format!(
        "{}seed {seed}: {told}\nagain: scripts/sim.sh --seed {seed} --story\n",
        ended.story
    )
}
