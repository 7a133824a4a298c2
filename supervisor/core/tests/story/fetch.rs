//! A task about an issue or a pull request: it is fetched before the agent begins, and a forge that
//! can not be reached is nobody's fault.

use std::time::Duration;

use supervisor_core::retry::FREE_RETRIES_MAX;

use super::harness::*;

fn step(world: &World, name: &str) -> Step {
    match world.facts().runs[&world.run(name)].purpose {
        Purpose::Step(step) => step,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_is_fetched_before_everything_that_may_read_it() {
    let mut world = World::start(batch().task("a").fetched().hooked().verified());
    let mut steps = Vec::new();
    while world.state("a") != TaskState::Done {
        steps.push(step(&world, "a"));
        world.succeed("a");
    }
    let wanted = [
        Step::Fetch,
        Step::BeforeRun,
        Step::Work,
        Step::AfterRun,
        Step::Prove,
    ];
    assert_eq!(steps, wanted);
}

#[test]
fn every_attempt_fetches_anew_and_a_task_without_does_not() {
    let mut world = World::start(batch().task("a").fetched().task("b"));
    assert_eq!(
        (step(&world, "a"), step(&world, "b")),
        (Step::Fetch, Step::Work)
    );
    world.succeed("a");
    assert_eq!(step(&world, "a"), Step::Work);
    world.fail_and_wait("a", Class::AgentFailed);
    assert_eq!(step(&world, "a"), Step::Fetch);
}

#[test]
fn a_forge_that_names_a_time_is_waited_for_and_no_account_pays_for_it() {
    let mut world = World::start(batch().task("a").fetched().task("b"));
    let hour = Duration::from_secs(3600);
    let reset = world.now.wall + hour;
    world.begin("a");
    let refused = RunResult {
        reset_at_ms: Some(reset.0),
        ..failed(Class::Network)
    };
    world.ends("a", refused);
    let waits = (TaskState::Ready, TaskReason::Backoff(Class::Network));
    assert_eq!(world.at("a"), waits);
    assert_eq!(world.account(), AccountState::Open);
    assert_eq!(world.state("b"), TaskState::Running);
    world.pass(hour - Duration::from_secs(60));
    assert_eq!(world.at("a"), waits, "not before the time it named");
    world.pass(Duration::from_secs(120));
    assert_eq!(step(&world, "a"), Step::Fetch);
    assert_eq!(world.task("a").consumed, 0);
}

#[test]
fn a_forge_out_of_reach_is_tried_for_as_long_as_it_takes() {
    let mut world = World::start(batch().task("a").fetched());
    for _ in 0..FREE_RETRIES_MAX * 3 {
        assert_eq!(step(&world, "a"), Step::Fetch);
        world.fail("a", Class::Network);
        assert_eq!(
            world.at("a"),
            (TaskState::Ready, TaskReason::Backoff(Class::Network))
        );
        world.pass(Duration::from_secs(3600));
    }
    world.succeed("a");
    world.succeed("a");
    assert_eq!(world.state("a"), TaskState::Done);
}

#[test]
fn what_is_not_there_fails_its_task_after_a_bounded_number_of_tries() {
    for (told, class) in [
        (Class::SetupFailed, Class::SetupFailed),
        // A login of the forge is none of the agent's account.
        (Class::Auth, Class::SetupFailed),
        (Class::Environment, Class::Environment),
    ] {
        let mut world = World::start(batch().task("a").fetched().task("b"));
        for _ in 0..FREE_RETRIES_MAX {
            assert_eq!(world.state("a"), TaskState::Running, "{told}");
            world.fail_and_wait("a", told);
        }
        let failed = (TaskState::Failed, TaskReason::Failed(class));
        assert_eq!(world.at("a"), failed, "{told}");
        assert_eq!(world.account(), AccountState::Open, "{told}");
        assert_eq!(world.task("a").consumed, 0, "{told}");
    }
}

#[test]
fn a_fetch_that_vanished_is_done_again_in_the_same_attempt() {
    let mut world = World::start(batch().task("a").fetched());
    let attempt = world.attempt("a").no;
    world.begin("a");
    world.exited("a", Exit::Signal(9));
    assert_eq!(step(&world, "a"), Step::Fetch);
    assert_eq!(world.attempt("a").no, attempt);
    world.succeed("a");
    assert_eq!(step(&world, "a"), Step::Work);
}
