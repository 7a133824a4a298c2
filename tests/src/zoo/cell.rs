//! The matrix: what happens to a batch, and what of each escape is alive when the product says that
//! it is done.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::agent::{LIFE, Then};
use super::escape::Escape;
use super::layer::Layer;
use super::ledger::Life;
use super::owners::end_at_once;
use super::stage::{BATCH, Play, Stage};
use crate::clock::timed;

/// Wall limit of an attempt that is to be reached: long enough for every agent to be out.
const SHORT: Duration = Duration::from_secs(8);
/// Wall limit of an attempt that is not.
const LONG: Duration = Duration::from_secs(600);

macro_rules! cases {
    ($($name:ident = $word:literal, $what:literal;)*) => {
        /// What happens.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Case {
            $(#[doc = $what] $name,)*
        }

        impl Case {
            /// Every one.
            pub const ALL: &'static [Case] = &[$(Self::$name,)*];

            /// Its word in tables.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

cases! {
    End = "end", "The agent exits with 0 and leaves the rest behind.";
    Kill = "kill", "`supervisor kill` of half of the tasks, then of the batch.";
    Timeout = "timeout", "The attempt reaches its wall limit.";
    Cancel = "cancel", "`supervisor cancel` of the batch.";
    Hosts = "hosts", "kill -9 of every host.";
    Supervisor = "supervisor", "kill -9 of the supervisor.";
    HostsAndSupervisor = "hosts+supervisor", "kill -9 of the supervisor and of every host.";
    Everything = "everything", "kill -9 of guardian, supervisor and hosts.";
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What became of one escape in one run of one case.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The case.
    pub case: Case,
    /// The escape.
    pub escape: Escape,
    /// Alive when the product said that it was done.
    pub survivors: Vec<Life>,
    /// Whether the next agent of the task found processes of the first one alive.
    pub overlap: bool,
    /// Whether the product said that something of this task may be left.
    pub residual: bool,
    /// Whether a control group or a living owner was there to hold it.
    pub held: bool,
    /// From the act to the product's word.
    pub took: Duration,
}

impl Cell {
    /// What of it breaks the promise: with a living owner or a control group nothing survives;
    /// without, only what stripped every tag, and never silently.
    pub fn broken(&self) -> Option<String> {
        let left = !self.survivors.is_empty() || self.overlap;
        if !left {
            return None;
        }
        let Cell { case, escape, .. } = self;
        let what = match self.overlap {
            true => "its next agent met it alive".to_owned(),
            false => format!("{} survive", self.survivors.len()),
        };
        if self.held || !escape.strips_every_tag() {
            return Some(format!("{escape} x {case}: {what}"));
        }
        (!self.residual).then(|| format!("{escape} x {case}: {what}, and nothing was said of it"))
    }
}

/// One run of a case: a cell for each escape, and what else went wrong.
#[derive(Debug)]
pub struct Outcome {
    /// A cell for each escape.
    pub cells: Vec<Cell>,
    /// Strangers that were hit, wrong exits, owners left behind.
    pub wrong: Vec<String>,
}

/// Plays a case once.
///
/// # Panics
/// When the machine itself fails, or the batch hangs.
pub fn play(case: Case, escapes: &[Escape], without: &[Layer], program: &Path) -> Outcome {
    let mut escapes = escapes.to_vec();
    // Nobody moves to another control group where there is none.
    escapes.retain(|escape| *escape != Escape::CgroupMove || !without.contains(&Layer::Cgroup));
    let mut stage = Stage::open(&Play {
        escapes,
        then: match case {
            Case::End => Then::Leaves,
            _ => Then::Stays,
        },
        timeout: match case {
            Case::Timeout => SHORT,
            _ => LONG,
        },
        without: without.to_vec(),
        program: program.to_owned(),
        fillers: 0,
    });
    let mut wrong = Vec::new();
    let (held, took) = if case == Case::End {
        // What ends by itself may be over before the last one is out.
        let (code, took) = timed(|| stage.finish());
        expect_code(&mut wrong, case, code, 0);
        (true, took)
    } else {
        stage.wait_until_out();
        timed(|| act(case, &mut stage, &mut wrong))
    };
    if took > LIFE / 2 {
        wrong.push(format!(
            "{case}: {took:?} is too long: what is hostile may have ended by itself"
        ));
    }
    judge(case, &stage, held, took, wrong)
}

/// Does what the case is about and waits until the product says that it is done. Returns whether
/// something was there to hold every process.
fn act(case: Case, stage: &mut Stage, wrong: &mut Vec<String>) -> bool {
    let owners = stage.owners();
    let end_all = |lives: &[Life]| lives.iter().for_each(|life| life.end());
    let mut finish = |stage: &mut Stage, expected| {
        let code = stage.finish();
        expect_code(wrong, case, code, expected);
    };
    match case {
        Case::End => true,
        Case::Kill => {
            kill(stage, wrong);
            true
        }
        Case::Timeout => {
            finish(stage, 1);
            true
        }
        Case::Cancel => {
            let code = stage.supervisor(&["cancel", BATCH]).code;
            let ended = stage.wait_for_run();
            if code != Some(0) || ended.is_none() {
                wrong.push(format!("cancel ended with {code:?}, run with {ended:?}"));
            }
            true
        }
        Case::Hosts => {
            end_all(&owners.hosts);
            finish(stage, 0);
            true
        }
        Case::Supervisor => {
            end_all(owners.supervisor.as_slice());
            finish(stage, 0);
            true
        }
        Case::HostsAndSupervisor => {
            let mut lives: Vec<Life> = owners.supervisor.into_iter().collect();
            lives.extend(&owners.hosts);
            end_at_once(&stage.world, &lives);
            finish(stage, 0);
            !owners.guardians.is_empty()
        }
        Case::Everything => {
            end_at_once(&stage.world, &owners.all());
            finish(stage, 0);
            false
        }
    }
}

/// Half of the tasks first: of these nothing lives then, of the others everything.
fn kill(stage: &mut Stage, wrong: &mut Vec<String>) {
    let (first, rest) = stage.escapes.split_at(stage.escapes.len() / 2);
    let before: Vec<Life> = rest
        .iter()
        .flat_map(|escape| stage.ledger.survivors(*escape, None))
        .collect();
    let targets: Vec<String> = first
        .iter()
        .map(|escape| format!("{BATCH}/{escape}"))
        .collect();
    let mut words = vec!["kill"];
    words.extend(targets.iter().map(String::as_str));
    words.extend(["--grace", "0s"]);
    let ran = stage.supervisor(&words);
    if ran.code != Some(0) {
        wrong.push(format!("kill of half: {:?} {}", ran.code, ran.stderr));
    }
    for escape in first {
        let alive = stage.ledger.survivors(*escape, None);
        if !alive.is_empty() {
            wrong.push(format!("{escape}: {alive:?} outlive a kill of their task"));
        }
    }
    let comets: Vec<Life> = rest
        .iter()
        .filter(|escape| escape.is_comet())
        .flat_map(|escape| stage.ledger.survivors(*escape, None))
        .collect();
    for life in before {
        let is_link = comets.iter().any(|comet| comet.pid != life.pid);
        if !life.is_alive() && !is_link {
            wrong.push(format!("{life:?} of another task was hit"));
        }
    }
    let ran = stage.supervisor(&["kill", BATCH, "--grace", "0s"]);
    if ran.code != Some(0) {
        wrong.push(format!("kill of the batch: {:?} {}", ran.code, ran.stderr));
    }
}

fn expect_code(wrong: &mut Vec<String>, case: Case, code: i32, expected: i32) {
    if code != expected {
        wrong.push(format!("{case}: run ended with {code}, not {expected}"));
    }
}

/// Looks at once: what is alive now has outlived the product's word.
fn judge(case: Case, stage: &Stage, held: bool, took: Duration, mut wrong: Vec<String>) -> Outcome {
    let survivors: Vec<(Escape, Vec<Life>)> = stage
        .escapes
        .iter()
        .map(|escape| (*escape, stage.ledger.survivors(*escape, None)))
        .collect();
    for (life, command) in stage.unwritten() {
        wrong.push(format!("{case}: {life:?} is left: {command}"));
    }
    for life in stage.lost_strangers() {
        wrong.push(format!("{case}: the stranger {life:?} was hit"));
    }
    for escape in &stage.escapes {
        if !stage.ledger.is_out(*escape) {
            wrong.push(format!("{case}: {escape} never came out"));
        }
    }
    let overlaps = std::fs::read_to_string(stage.ledger.path("overlaps")).unwrap_or_default();
    let residuals = stage.residuals();
    let cells = survivors.into_iter().map(|(escape, survivors)| Cell {
        case,
        escape,
        survivors,
        overlap: overlaps
            .lines()
            .any(|line| line.split(' ').next() == Some(escape.word())),
        residual: residuals.contains(escape.word()),
        held,
        took,
    });
    Outcome {
        cells: cells.collect(),
        wrong,
    }
}
