//! Guardian, supervisor and all hosts of a batch of fifty agents are killed at once: what is left is
//! listed with a reason, ended by one command, and the batch goes on to its end.

use supervisor_tests::zoo::ownerless::{AGENTS, kill_owners, listed, open, survivors};
use supervisor_tests::zoo::stage::{BATCH, speaks_of_residual};

#[test]
fn what_is_left_of_a_killed_batch_is_listed_ended_and_the_batch_goes_on() {
    let mut stage = open(super::PROGRAM.as_ref());
    kill_owners(&mut stage);

    let ran = stage.supervisor(&["ps", "--orphans", "--json"]).ok();
    let alive = survivors(&stage);
    let (missing, strangers) = alive.compare(&listed(&ran.json()));
    assert!(
        missing.is_empty(),
        "not listed: {missing:?} of {}",
        alive.known.len()
    );
    assert!(strangers.is_empty(), "strangers are listed: {strangers:?}");
    assert!(stage.lost_strangers().is_empty());

    let ran = stage.supervisor(&["kill", "--orphans"]);
    let left = survivors(&stage);
    assert!(
        left.known.is_empty(),
        "outlive kill --orphans: {:?}\n{}",
        left.known,
        ran.stdout
    );
    let honest = left.stripped.is_empty() || speaks_of_residual(&ran.stdout);
    assert!(
        honest,
        "{:?} live, and it said: {}",
        left.stripped, ran.stdout
    );
    assert!(stage.lost_strangers().is_empty());

    stage.run();
    assert_eq!(stage.wait_for_run(), Some(0), "{}", stage.said());
    let status = stage.supervisor(&["status", BATCH, "--json"]).ok().json();
    assert_eq!(status["batch"]["counts"]["done"], AGENTS);
    assert!(stage.lost_strangers().is_empty());
}
