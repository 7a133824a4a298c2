//! What it takes to come back after everything that owns a batch was killed at one moment: to list
//! what lives on, to end it, and to have the batch go on. Its processes try to escape.
//!
//! The batch goes on as soon as all lost runs are ruled on: with that their tasks are ready, and new
//! attempts are ordered. That these begin is the ordinary cost of starts, which has a promise of its
//! own (`spawn`): it is shown, and not counted.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Row, median, ms, size};
use crate::clock::{timed, wall_ns};
use crate::world::programs;
use crate::zoo::ownerless::{AGENTS, Survivors, kill_owners, listed, open, survivors};
use crate::zoo::stage::{Stage, speaks_of_residual};

/// List, kill and recovery together, without the grace, against one raw scan.
const RECOVERY_RATIO_MAX: f64 = 20.0;
/// Raw scans before the list and again after it.
const SCANS: usize = 11;
/// Time that processes have from asking to force. Some of them never heed it, so all of it is used.
const GRACE: Duration = Duration::from_millis(500);
/// The three commands after the same double kill, and whether they told the truth.
pub fn ownerless() -> Vec<Row> {
    let times = size("BENCH_RECOVERIES", 3);
    let mut all: Vec<Recovery> = (0..times).map(|_| Recovery::measure()).collect();
    all.sort_by(|one, other| one.total().total_cmp(&other.total()));
    let wrong: usize = all.iter().map(|one| one.wrong).sum();
    // All parts of one and the same recovery, so that they add up.
    let middle = all.swap_remove(all.len() / 2);
    middle.rows(wrong)
}

/// Milliseconds of one recovery.
struct Recovery {
    processes: usize,
    survivors: usize,
    scan: f64,
    start: f64,
    list: f64,
    kill: f64,
    ruled: f64,
    begun: f64,
    wrong: usize,
}

impl Recovery {
    fn measure() -> Recovery {
        let mut stage = open(&programs().join("nasty_agent"));
        kill_owners(&mut stage);
        let mut scans: Vec<(usize, Duration)> = (0..SCANS).map(|_| timed(raw_scan)).collect();
        let start = (0..5).map(|_| ms(timed(|| stage.supervisor(&["--version"])).1));
        let start = median(start.collect());
        let (ran, list) = timed(|| stage.supervisor(&["ps", "--orphans", "--json"]));
        let alive = survivors(&stage);
        let mut wrong = disagreements(&alive, &ran.ok().json());
        // Again: whatever else this machine does is then in both.
        scans.extend((0..SCANS).map(|_| timed(raw_scan)));
        let processes = scans[0].0;
        let scan = median(scans.into_iter().map(|(_, length)| ms(length)).collect());
        let grace = format!("{}ms", GRACE.as_millis());
        let (ran, kill) = timed(|| stage.supervisor(&["kill", "--orphans", "--grace", &grace]));
        let left = survivors(&stage);
        wrong += left.known.len();
        wrong += usize::from(!left.stripped.is_empty() && !speaks_of_residual(&ran.stdout));
        let since = wall_ns();
        stage.run();
        let code = stage.wait_for_run();
        assert_eq!(code, Some(0), "the batch is finished: {}", stage.said());
        wrong += stage.lost_strangers().len();
        let [ruled, begun] = resumed(&stage, since);
        Recovery {
            processes,
            survivors: alive.known.len(),
            scan,
            start,
            list: ms(list),
            kill: ms(kill),
            ruled,
            begun,
            wrong,
        }
    }

    fn total(&self) -> f64 {
        self.list + self.kill + self.ruled
    }

    fn rows(&self, wrong: usize) -> Vec<Row> {
        let plain = |what: String, value| Row::plain("recovery", what, value, "ms");
        let limit = RECOVERY_RATIO_MAX * self.scan + ms(GRACE);
        let wrong = u32::try_from(wrong).expect("a few at most");
        vec![
            plain(
                format!("one raw scan of {} processes, median", self.processes),
                self.scan,
            ),
            plain("start of the command line, median".to_owned(), self.start),
            plain(
                format!("ps --orphans, {} survivors", self.survivors),
                self.list,
            ),
            plain(
                format!("kill --orphans, grace {} ms", GRACE.as_millis()),
                self.kill,
            ),
            plain(
                format!("run, until {AGENTS} lost runs are ruled on"),
                self.ruled,
            ),
            plain(
                format!("run, until {AGENTS} new runs have begun"),
                self.begun,
            ),
            plain(
                "list, kill, and run until it goes on".to_owned(),
                self.total(),
            )
            .limited(limit),
            Row::plain(
                "recovery",
                "ratio without the grace".to_owned(),
                (self.total() - ms(GRACE)) / self.scan,
                "x",
            )
            .limited(RECOVERY_RATIO_MAX),
            Row::plain(
                "recovery",
                "wrongly listed, not listed, or not ended".to_owned(),
                f64::from(wrong),
                "",
            )
            .limited(0.0),
        ]
    }
}

fn disagreements(alive: &Survivors, rows: &Value) -> usize {
    let (missing, strangers) = alive.compare(&listed(rows));
    missing.len() + strangers.len()
}

/// Milliseconds from `since` until the last lost run was ruled on, and until as many new ones had
/// begun, which is when their hosts say that the agent was started; by the times in the journal.
fn resumed(stage: &Stage, since: i128) -> [f64; 2] {
    let journal = stage.world.journal();
    let since = i64::try_from(since / 1_000_000).expect("now is no far future");
    ["run_reconciled", "run_started"].map(|record| {
        let of_kind = journal.iter().filter(|line| {
            let body = line["record"].as_object();
            body.is_some_and(|body| body.contains_key(record))
        });
        let times = of_kind.filter_map(|line| line["now"]["wall"].as_i64());
        let mut times = times.filter(|&time| time >= since);
        let last = times.nth(AGENTS - 1).expect("as many as there are agents");
        f64::from(u32::try_from(last - since).expect("within minutes"))
    })
}

/// Reads of every process what a search for orphans needs: what it is, its signals and its
/// environment; how many there were.
fn raw_scan() -> usize {
    let folders = fs::read_dir("/proc").expect("procfs is mounted");
    let folders = folders.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        let number: u32 = name.to_str()?.parse().ok()?;
        Some(PathBuf::from(format!("/proc/{number}")))
    });
    let read = |folder: PathBuf| {
        ["stat", "status", "environ"]
            .iter()
            .all(|file| fs::read(folder.join(file)).is_ok())
    };
    folders.filter(|folder| read(folder.clone())).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_scan_sees_this_process() {
        assert!(raw_scan() > 0);
    }

    #[test]
    fn a_recovery_beyond_the_limit_is_broken() {
        let recovery = |kill| Recovery {
            processes: 200,
            survivors: 90,
            scan: 10.0,
            start: 2.0,
            list: 30.0,
            kill,
            ruled: 60.0,
            begun: 160.0,
            wrong: 0,
        };
        let kept = |recovery: Recovery, wrong| {
            let rows = recovery.rows(wrong);
            rows.iter().all(Row::is_kept)
        };
        assert!(kept(recovery(610.0), 0));
        assert!(!kept(recovery(611.0), 0), "too slow");
        assert!(!kept(recovery(610.0), 1), "a survivor is not listed");
    }
}
