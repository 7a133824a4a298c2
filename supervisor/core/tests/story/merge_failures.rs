//! Merges that fail and what that means for the batch; commits on which every run of a merge dies.

use super::harness::*;

/// Eight tasks, and one before them whose round keeps them together.
const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn repo(change: impl FnOnce(&mut supervisor_core::plan::RepoSpec)) -> PlanBuilder {
    batch().lanes(20).repo("r", change)
}

/// A round has just begun with all of [`NAMES`].
fn together(group: u32) -> World {
    let plan = repo(|it| it.group = group).task("first").within("r");
    let plan = (NAMES.iter()).fold(plan, |plan, name| plan.task(name).within("r"));
    let mut world = World::start(plan);
    world.passes_all("first");
    for name in NAMES {
        world.passes_all(name);
    }
    world.merges_but(&[]);
    world.stage_says(Stage::Verify, ok());
    world.stage_says(Stage::Advance, advanced());
    assert_eq!(world.round().tasks.len(), NAMES.len());
    world
}

/// How a run of a round ends that has the commit in the way.
type End = fn(&mut World, protocol::ids::Generation);

fn vanishes(world: &mut World, run: protocol::ids::Generation) {
    world.run_vanishes(run);
}

fn breaks(world: &mut World, run: protocol::ids::Generation) {
    world.run_says(run, failed(Class::Environment));
}

/// The rounds go on until none is due; runs of this stage end like this where `poison` is among those
/// that they are about. Answers how many ended so.
fn go_on(world: &mut World, stage: Stage, poison: &str, end: End) -> u32 {
    let mut ended = 0;
    for _ in 0..1000 {
        let Some((run, purpose)) = world.other_runs().first().copied() else {
            return ended;
        };
        let about = world.round().about();
        let in_the_way = about.iter().any(|ix| world.name(*ix) == poison);
        if purpose == Purpose::Merge(RepoIx(0), stage) && in_the_way {
            end(world, run);
            ended += 1;
            continue;
        }
        match world.round().stage {
            Stage::Merge => world.merges_but(&[]),
            Stage::Verify => world.run_says(run, ok()),
            Stage::Checkout => world.run_says(run, checked_out()),
            Stage::Advance => world.run_says(run, advanced()),
            stage @ (Stage::Conflict | Stage::Resolve | Stage::Conclude) => panic!("{stage:?}"),
        }
    }
    panic!("the rounds have no end");
}

/// Wherever it is and whatever dies of it, it alone waits for the operator, and the rounds that it spoils
/// are of half as many each time.
#[test]
fn a_commit_on_which_every_run_dies_is_the_only_one_parked() {
    for (end, each) in [(vanishes as End, 25), (breaks as End, 5)] {
        for (stage, group) in [(Stage::Merge, 1), (Stage::Merge, 8), (Stage::Verify, 8)] {
            for poison in NAMES {
                let mut world = together(group);
                let ended = go_on(&mut world, stage, poison, end);
                assert_eq!(world.merge_at(poison), MergeState::Parked);
                for name in NAMES.iter().filter(|name| **name != poison) {
                    assert_eq!(
                        world.merge_at(name),
                        MergeState::Merged,
                        "{stage:?} {poison}"
                    );
                }
                // Rounds of eight, four, two and one.
                assert_eq!(ended, 4 * each, "{stage:?} {poison}");
                let detail = world.merge_of(poison).detail.clone();
                assert!(detail.starts_with(stage.word()), "{detail}");
                assert_eq!(world.ending(), Some(Ending::NeedsPerson));
            }
        }
    }
}

/// What the branch does is nobody's fault: it is not asked of each alone.
#[test]
fn a_branch_that_does_not_move_parks_all_that_were_to_move_it() {
    let mut world = together(8);
    let ended = go_on(&mut world, Stage::Advance, "c", breaks);
    assert_eq!(ended, 5);
    for name in NAMES {
        assert_eq!(world.merge_at(name), MergeState::Parked, "{name}");
    }
}

/// The operator found out why: it shares rounds again.
#[test]
fn what_the_operator_queues_again_shares_its_round_as_before() {
    let mut world = together(8);
    go_on(&mut world, Stage::Verify, "c", vanishes);
    assert_eq!(world.merge_of("c").share, Some(1));
    world.crash_and_find(ProcessFact::Gone, ResultFact::Absent);
    world.retry("c");
    assert_eq!(world.merge_of("c").share, None);
    world.tick();
    world.all_goes_well();
    assert_eq!(world.merge_at("c"), MergeState::Merged);
}

/// Who waits meanwhile is not put apart with them.
#[test]
fn a_crash_while_rounds_are_halved_ends_in_the_same_place() {
    let story = || {
        let mut world = together(8);
        go_on(&mut world, Stage::Verify, "g", breaks);
        world
    };
    let end = story().journal.len();
    for last in (end - 120)..end {
        let mut world = story();
        world.crash_after(last);
        go_on(&mut world, Stage::Verify, "g", breaks);
        for name in NAMES {
            let to = if name == "g" {
                MergeState::Parked
            } else {
                MergeState::Merged
            };
            assert_eq!(world.merge_at(name), to, "after record {last}");
        }
    }
}

// What a merge that failed means for the batch.

fn failing(change: impl FnOnce(&mut supervisor_core::plan::Settings)) -> World {
    let plan = repo(|it| it.on_conflict = OnConflict::Fail).set(change);
    let plan = plan.lanes(2).task("a").within("r").task("slow");
    let mut world = World::start(
        plan.tasks(&["later", "last"])
            .every(|spec| spec.attempts = 1),
    );
    world.begin("slow");
    world.passes_all("a");
    world.begin("later");
    world
}

#[test]
fn on_failure_stop_stops_new_work_when_a_merge_has_failed() {
    let mut world = failing(|it| it.on_failure = OnFailure::Stop);
    world.merges_but(&["a"]);
    let a = world.ix("a");
    assert_eq!(
        world.batch_at(),
        (BatchState::Stopping, BatchReason::MergeFailed(a))
    );
    assert_eq!(world.state("a"), TaskState::Done, "two facts");
    world.ends("slow", ok());
    assert_eq!(world.live(), ["later"], "nothing new starts");
    world.crash_and_recover(ProcessFact::Gone, ResultFact::Durable(Box::new(ok())));
    assert_eq!(
        world.states(&["slow", "later", "last"]),
        [TaskState::Done, TaskState::Done, TaskState::Skipped]
    );
    assert_eq!(world.ending(), Some(Ending::Failed));
}

#[test]
fn a_proof_that_fails_for_good_stops_the_batch_like_a_conflict() {
    let mut world = failing(|it| it.on_failure = OnFailure::Stop);
    world.merges_but(&[]);
    world.stage_says(Stage::Verify, failed(Class::VerifyFailed));
    let a = world.ix("a");
    assert_eq!(world.batch_at().1, BatchReason::MergeFailed(a));
}

/// The operator is asked, so nothing is decided yet.
#[test]
fn a_parked_merge_stops_nobody() {
    let plan = repo(|it| it.on_conflict = OnConflict::Park).set(|it| {
        (it.on_failure, it.max_failures) = (OnFailure::Stop, Some(MaxFailures::Count(0)))
    });
    let mut world = World::start(plan.task("a").within("r").task("other"));
    world.passes_all("a");
    world.merges_but(&["a"]);
    assert_eq!(world.merge_at("a"), MergeState::Parked);
    assert_eq!(world.batch_at().0, BatchState::Running);
}

#[test]
fn a_failed_merge_counts_among_the_failures_and_no_more_once_it_is_tried_again() {
    let mut world = failing(|it| it.max_failures = Some(MaxFailures::Count(1)));
    world.merges_but(&["a"]);
    assert_eq!(world.batch_at().0, BatchState::Running, "one may fail");
    world.retry("a");
    assert_eq!(world.merge_at("a"), MergeState::Merging);
    world.ends("slow", failed(Class::AgentFailed));
    assert_eq!(world.batch_at().0, BatchState::Running, "one failed");
    world.merges_but(&["a"]);
    assert_eq!(
        world.batch_at(),
        (BatchState::Stopping, BatchReason::TooManyFailures)
    );
    let merged = failing(|it| it.max_failures = Some(MaxFailures::Percent(20)));
    let mut world = merged;
    world.merges_but(&["a"]);
    let many = BatchReason::TooManyFailures;
    assert_eq!(world.batch_at(), (BatchState::Stopping, many), "25 percent");
}

#[test]
fn another_rule_for_failures_lets_a_batch_go_on_whose_merge_failed() {
    let plan = |rule| {
        let plan = repo(|it| it.on_conflict = OnConflict::Fail).lanes(1);
        let plan = plan.set(move |it| it.on_failure = rule);
        plan.task("a").within("r").task("slow").task("next")
    };
    let mut world = World::start(plan(OnFailure::Stop));
    world.passes_all("a");
    world.begin("slow");
    world.merges_but(&["a"]);
    assert_eq!(world.batch_at().0, BatchState::Stopping);
    world.revise(plan(OnFailure::SkipDependents));
    assert_eq!(world.batch_at().0, BatchState::Running);
    world.ends("slow", ok());
    assert_eq!(world.live(), ["next"]);
}
