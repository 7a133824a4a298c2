//! What the simulator found of worktrees and merges, each story named after the rule that was broken.

use super::harness::*;

/// The clean-ups of what a stopping batch skips begin in the very turn that would have ended it.
#[test]
fn no_host_is_left_behind_by_a_batch_that_stops() {
    let plan = batch()
        .set(|it| (it.keep, it.on_failure) = (Keep::None, OnFailure::Stop))
        .repo("r", |_| {})
        .task("a")
        .within("r")
        .spec(|it| it.attempts = 2)
        .task("b")
        .spec(|it| it.attempts = 1);
    let mut world = World::start(plan);
    world.passes_to("a", Step::Work);
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Ready);
    world.fail("b", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Skipped);
    assert_eq!(world.ending(), None, "a worktree is on its way out");
    world.all_goes_well();
    assert_eq!(world.task("a").worktree, None);
    assert_eq!(world.ending(), Some(Ending::Failed));
}

/// The worktree took all the time that the attempt had.
#[test]
fn no_agent_begins_in_an_attempt_whose_time_is_used_up() {
    let plan = batch().repo("r", |_| {}).task("a").within("r");
    let mut world = World::start(plan.spec(|it| it.timeout = mins(1)));
    world.begin("a");
    world.pulse = Pulse::Printing;
    world.pass(mins(2));
    world.ends("a", provisioned(true));
    assert_eq!(world.outcome("a").0, Some(Class::Timeout));
    assert!(world.facts().runs.is_empty(), "nothing was begun");
}

/// An edit of `merge.verify` reaches a repository while it merges: the branch has moved already, or
/// has not, as the round was asked to.
#[test]
fn a_round_is_proven_as_the_file_said_when_it_began() {
    for before in [true, false] {
        let plan = |verify| {
            let plan = batch().repo("r", move |it| it.verify = verify);
            plan.task("a").within("r").task("later")
        };
        let mut world = World::start(plan(before));
        world.passes_all("a");
        world.revise(plan(!before));
        world.merges_but(&[]);
        if before {
            assert_eq!(world.merge_at("a"), MergeState::Verifying);
            world.stage_says(Stage::Verify, ok());
            world.stage_says(Stage::Advance, advanced());
        }
        assert_eq!(world.merge_at("a"), MergeState::Merged);
    }
}

/// Where work lies in a worktree an edit does not send the task elsewhere; where none is left it may.
#[test]
fn work_is_looked_for_in_its_own_repository() {
    let plan = |repo| {
        let plan = batch().repo("r", |_| {}).repo("s", |_| {});
        let plan = plan.task("a").within(repo).spec(|it| it.attempts = 1);
        plan.task("later")
    };
    let edit = || OperatorCommand::Revise(Box::new(plan("s").plan()));
    let mut world = World::start(plan("r"));
    let repo_of = |world: &World| {
        let spec = world.task("a").next_rules().spec;
        world.facts().specs[spec.0 as usize].worktree
    };
    let refusal = format!("{:?}", world.refused(edit()));
    assert!(refusal.contains("the repository `r`"), "{refusal}");
    world.passes_to("a", Step::Work);
    world.fail("a", Class::AgentFailed);
    world.refused(edit());
    assert_eq!(repo_of(&world), Some(RepoIx(0)));
    world.clean_up("a");
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    world.clean_says(CleanStep::Remove, removed());
    world.revise(plan("s"));
    assert_eq!(repo_of(&world), Some(RepoIx(1)));
}

/// It was done in time, so its merge counts; parked, it can be merged again.
#[test]
fn a_parked_merge_of_a_task_that_left_the_file_can_be_tried_again() {
    let repo = || batch().repo("r", |it| it.on_conflict = OnConflict::Park);
    let mut world = World::start(repo().task("a").within("r").task("b"));
    world.passes_to("a", Step::Commit);
    world.begin("a");
    world.result("a", committed("a", 1));
    world.revise(repo().task("b"));
    world.exited("a", Exit::Code(0));
    assert_eq!(world.state("a"), TaskState::Done);
    world.merges_but(&["a"]);
    assert_eq!(world.merge_at("a"), MergeState::Parked);
    assert_ne!(world.retry("a"), "a: is no longer in the batch file");
    world.all_goes_well();
    assert_eq!(world.merge_at("a"), MergeState::Merged);
}
