//! Guardian, supervisor and all hosts of a batch of fifty agents are killed at once: what is left is
//! listed with a reason, ended by one command, and the batch goes on to its end.

use std::collections::BTreeSet;
use std::time::Duration;

use supervisor_tests::zoo::agent::Then;
use supervisor_tests::zoo::escape::Escape;
use supervisor_tests::zoo::layer::Layer;
use supervisor_tests::zoo::ledger::Life;
use supervisor_tests::zoo::owners::end_at_once;
use supervisor_tests::zoo::stage::{BATCH, Play, Stage, speaks_of_residual};

/// Agents of the batch.
const AGENTS: usize = 50;

fn open() -> Stage {
    let (mut escapes, _) = Escape::possible();
    // Its own hosts and supervisor are no part of the ledger; links of chains have no fixed number.
    escapes.retain(|escape| *escape != Escape::NestedSupervisor && !escape.is_comet());
    // Only root can hide control groups, which would hold what stripped its tags.
    let root = nix::unistd::geteuid().is_root();
    escapes.retain(|escape| !root || *escape != Escape::CgroupMove);
    Stage::open(&Play {
        fillers: AGENTS - escapes.len(),
        escapes,
        then: Then::Stays,
        timeout: Duration::from_secs(600),
        without: if root {
            vec![Layer::Cgroup]
        } else {
            Vec::new()
        },
        program: super::PROGRAM.into(),
    })
}

/// What lives and carries at least one tag, and what lives without any.
fn survivors(stage: &Stage) -> (BTreeSet<Life>, BTreeSet<Life>) {
    let (without, with): (Vec<Escape>, Vec<Escape>) = stage
        .escapes
        .iter()
        .partition(|escape| escape.strips_every_tag());
    let of = |escapes: Vec<Escape>| {
        let lives = escapes
            .into_iter()
            .flat_map(|escape| stage.ledger.survivors(escape, None));
        lives.collect::<BTreeSet<Life>>()
    };
    let fillers = stage.fillers.iter();
    let fillers = fillers.flat_map(|filler| filler.survivors(Escape::Background, None));
    let mut with = of(with);
    with.extend(fillers);
    (with, of(without))
}

#[test]
fn what_is_left_of_a_killed_batch_is_listed_ended_and_the_batch_goes_on() {
    let mut stage = open();
    stage.wait_until_out();
    let owners = stage.owners();
    assert_eq!(owners.hosts.len(), AGENTS);
    let all = owners.all();
    end_at_once(&stage.world, &all);
    // One that is just dying is no survivor, and may be listed.
    stage
        .world
        .eventually("those that were killed have ended", |_| {
            all.iter().all(|life| !life.is_alive()).then_some(())
        });
    assert_eq!(stage.wait_for_run(), None, "the run was killed");

    let ran = stage.supervisor(&["ps", "--orphans", "--json"]).ok();
    let rows = ran.json();
    let rows = rows.as_array().unwrap().iter();
    let rows: Vec<_> = rows.filter(|row| row["state"] == "orphan").collect();
    let listed: BTreeSet<i64> = rows.iter().filter_map(|row| row["pid"].as_i64()).collect();
    let (tagged, stripped) = survivors(&stage);
    let numbers = |lives: &BTreeSet<Life>| -> BTreeSet<i64> {
        lives.iter().map(|life| i64::from(life.pid)).collect()
    };
    let missing: Vec<Life> = tagged
        .iter()
        .filter(|life| !listed.contains(&i64::from(life.pid)))
        .copied()
        .collect();
    assert!(
        missing.is_empty(),
        "not listed: {missing:?} of {}",
        tagged.len()
    );
    let known = &numbers(&tagged) | &numbers(&stripped);
    assert!(
        listed.is_subset(&known),
        "strangers are listed: {:?}",
        &listed - &known
    );
    for row in &rows {
        assert!(
            row["why"].as_str().is_some_and(|why| !why.is_empty()),
            "{row}"
        );
    }
    assert!(stage.lost_strangers().is_empty());

    let ran = stage.supervisor(&["kill", "--orphans"]);
    let (tagged, stripped) = survivors(&stage);
    assert!(
        tagged.is_empty(),
        "outlive kill --orphans: {tagged:?}\n{}",
        ran.stdout
    );
    let honest = stripped.is_empty() || speaks_of_residual(&ran.stdout);
    assert!(honest, "{stripped:?} live, and it said: {}", ran.stdout);
    assert!(stage.lost_strangers().is_empty());

    stage.run();
    assert_eq!(stage.wait_for_run(), Some(0), "{}", stage.said());
    let status = stage.supervisor(&["status", BATCH, "--json"]).ok().json();
    assert_eq!(status["batch"]["counts"]["done"], AGENTS);
    assert!(stage.lost_strangers().is_empty());
}
