//! A small story of the killed supervisor in every gate; `scripts/crash.sh` plays the large one.

use supervisor_tests::crash::{Script, Victims, play};

fn play_small(victims: Victims) {
    let script = Script {
        victims,
        kills: 24,
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
