//! Many short stories, every branch reached, every planted bug found, every story repeatable.
#![expect(clippy::expect_used, reason = "a test fails where it can not go on")]

use supervisor_core::mutation::Mutation;
use supervisor_tests::sim::{Bug, Reached, Telling, report, run, run_range};

/// Stories of the gate: enough that every branch is reached many times.
const STORIES: u64 = 4_000;
/// Seeds in which a planted bug must be found.
const BUG_SEEDS: u64 = 1_500;

/// Tells a range of stories on the threads that the test may use.
fn tell(first: u64, count: u64) -> Reached {
    let halves = [(first, count / 2), (first + count / 2, count - count / 2)];
    let summaries = std::thread::scope(|scope| {
        let told =
            halves.map(|(first, count)| scope.spawn(move || run_range(first, count, Bug::None)));
        told.map(|half| half.join().expect("a story does not panic"))
    });
    let mut reached = Reached::default();
    for summary in summaries {
        if let Some((seed, _)) = summary.failed.first() {
            panic!(
                "{} seeds failed\n{}",
                summary.failed.len(),
                report(*seed, Bug::None)
            );
        }
        reached.merge(&summary.reached);
    }
    reached
}

#[test]
fn no_story_breaks_a_rule_and_every_branch_is_reached() {
    let reached = tell(1, STORIES);
    let missing = reached.missing();
    assert!(
        missing.is_empty(),
        "never reached: {missing:#?}\n{}",
        reached.table()
    );
}

#[test]
fn a_seed_is_one_story() {
    for seed in [1, 7, 42, 1_000, 123_456] {
        let (once, again) = (
            run(seed, Bug::None, Telling::Nothing),
            run(seed, Bug::None, Telling::End),
        );
        assert_eq!(
            (once.hash, once.steps),
            (again.hash, again.steps),
            "seed {seed}"
        );
        assert_eq!(once.reached, again.reached, "seed {seed}");
    }
    let hashes: std::collections::BTreeSet<u64> = (1..=20)
        .map(|seed| run(seed, Bug::None, Telling::Nothing).hash)
        .collect();
    assert_eq!(hashes.len(), 20, "seeds differ");
}

/// The rule by which a planted bug is found.
fn found_by(bug: Bug) -> (u64, &'static str) {
    // A planted bug may also trip an assertion of the core; that counts, and need not be printed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = (1..=BUG_SEEDS).find_map(|seed| {
        let broken = run(seed, bug, Telling::Nothing).broken?;
        Some((seed, broken.rule))
    });
    std::panic::set_hook(hook);
    found.unwrap_or_else(|| panic!("{bug:?} was not found in {BUG_SEEDS} seeds"))
}

#[test]
fn every_planted_bug_is_found() {
    let bugs = [
        (Bug::Core(Mutation::ActBeforeDurable), "I4"),
        (Bug::Core(Mutation::NoGenerationCheck), "I5"),
        (Bug::Core(Mutation::DoubleSpawnOnResume), "I6"),
        (Bug::Core(Mutation::ReopenedTerminal), "I5"),
        (Bug::Core(Mutation::DoubleInjection), "I8"),
        (Bug::Core(Mutation::WrongClockOverSuspend), "I11"),
        (Bug::Core(Mutation::LostStopDecision), ""),
        (
            Bug::Core(Mutation::LostConsumesAttempt),
            "only what the table says",
        ),
        (Bug::Core(Mutation::LateResultAfterCancel), "I6"),
        (Bug::Core(Mutation::RemovalBeforeSalvage), "I7"),
        (Bug::Core(Mutation::UnprovenMerge), "I7"),
        (Bug::Core(Mutation::SkippedReview), "I5"),
        (Bug::Core(Mutation::StaleCommit), "I5"),
        (Bug::Core(Mutation::IgnoredBranchMove), "I7"),
        (
            Bug::Core(Mutation::UnorderedMerges),
            "dependencies are merged first",
        ),
        (Bug::Core(Mutation::StaleMergeProof), "I5"),
        (
            Bug::Core(Mutation::EarlyDependents),
            "dependencies come first",
        ),
        (
            Bug::Core(Mutation::ForgottenParking),
            "the batch's outcome is the truth",
        ),
        (Bug::Core(Mutation::SecondRound), "I5"),
        (Bug::DroppedFolderSync, "I4"),
    ];
    for (bug, rule) in bugs {
        let (seed, found) = found_by(bug);
        assert!(
            found.starts_with(rule),
            "{bug:?}, seed {seed}: found by `{found}`, not by `{rule}`"
        );
    }
}
