//! A small story of the killed supervisor in every gate; `scripts/crash.sh` plays the large one.

use supervisor_tests::crash::{Script, Victims, play};

fn play_small(victims: Victims) {
    play_kills(victims, 24);
}

fn play_kills(victims: Victims, kills: usize) {
    let script = Script {
        victims,
        kills,
        tasks: 32,
        concurrency: 4,
        seed: 1,
        task_program: env!("CARGO_BIN_EXE_crash_story").into(),
    };
    let evidence = play(&script);
    assert!(evidence.is_clean(), "{evidence}");
}

#[test]
fn a_batch_survives_that_its_supervisor_is_killed_again_and_again() {
    play_small(Victims::Supervisor);
}

#[test]
fn a_batch_survives_that_guardian_and_supervisor_are_killed_together_again_and_again() {
    play_small(Victims::Both);
}

#[test]
fn a_batch_survives_that_the_process_of_run_is_killed_again_and_again() {
    play_small(Victims::Guardian);
}

#[test]
fn a_batch_survives_that_its_supervisor_is_killed_under_its_guardian_again_and_again() {
    // The guardian gives up at the sixth in ten minutes; the seventh is of the `run` that follows.
    play_kills(Victims::Guarded, 7);
}

#[test]
fn a_batch_survives_that_any_of_the_two_or_both_are_killed_again_and_again() {
    play_small(Victims::Any);
}
