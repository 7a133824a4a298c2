//! Worktrees go: by whom, when, and only once everything in them is kept elsewhere.

use super::harness::*;

fn plan(keep: Keep) -> PlanBuilder {
    batch()
        .set(|it| it.keep = keep)
        .repo("r", |it| it.verify = false)
        .task("a")
        .within("r")
        .spec(|it| it.attempts = 1)
}

fn failed_task(plan: PlanBuilder) -> World {
    let mut world = World::start(plan);
    world.passes_to("a", Step::Work);
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Failed);
    world
}

fn is_gone(world: &World) -> bool {
    world.task("a").worktree.is_none()
}

#[test]
fn a_worktree_goes_after_its_hook_and_its_salvage() {
    let mut world = failed_task(plan(Keep::All).hooked());
    assert_eq!(world.clean_up("a"), "a: its worktree goes");
    world.clean_says(CleanStep::BeforeRemove, ok());
    assert_eq!(world.task("a").salvaged, []);
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    assert_eq!(world.task("a").salvaged.len(), 1);
    assert!(!is_gone(&world));
    world.clean_says(CleanStep::Remove, removed());
    assert!(is_gone(&world));
    assert_eq!(world.task("a").clean, None);
    assert_eq!(world.batch_at().0, BatchState::Failed);
    assert_eq!(world.ending(), Some(Ending::Failed));
}

#[test]
fn nothing_is_removed_that_is_not_salvaged() {
    for said in [failed(Class::Disk), ok(), removed()] {
        let mut world = failed_task(plan(Keep::All));
        world.clean_up("a");
        world.clean_says(CleanStep::Salvage, said);
        assert!(!is_gone(&world));
        assert_eq!(
            (world.task("a").clean.as_ref(), world.facts().runs.len()),
            (None, 0)
        );
    }
}

#[test]
fn a_clean_up_whose_git_was_killed_goes_on() {
    let mut world = failed_task(plan(Keep::All));
    world.clean_up("a");
    world.clean_says(CleanStep::Salvage, failed(Class::Lost));
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    world.clean_says(CleanStep::Remove, failed(Class::Lost));
    world.clean_says(CleanStep::Remove, removed());
    assert!(is_gone(&world));
}

#[test]
fn a_hook_that_fails_keeps_its_worktree() {
    let mut world = failed_task(plan(Keep::All).hooked());
    world.clean_up("a");
    world.clean_says(CleanStep::BeforeRemove, failed(Class::SetupFailed));
    assert!(!is_gone(&world));
    assert_eq!(world.clean_up("a"), "a: its worktree goes", "asked again");
}

#[test]
fn a_removal_that_is_refused_keeps_its_worktree() {
    let mut world = failed_task(plan(Keep::All));
    world.clean_up("a");
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    world.clean_says(CleanStep::Remove, failed(Class::Environment));
    assert!(!is_gone(&world));
    assert_eq!(world.task("a").clean, None);
}

#[test]
fn what_works_or_is_being_merged_is_not_cleaned() {
    let mut world = World::start(plan(Keep::All));
    assert_eq!(world.clean_up("a"), "a: has no worktree");
    world.passes("a");
    assert_eq!(world.clean_up("a"), "a: is not over: its worktree stays");
    world.passes_all("a");
    let busy = "a: is being merged: its worktree stays";
    assert_eq!(world.clean_up("a"), busy);
    world.merges_but(&[]);
    assert_eq!(world.clean_up("a"), "a: its worktree goes");
    assert_eq!(world.clean_up("a"), "a: its worktree is going already");
}

#[test]
fn the_operator_cleans_every_worktree_that_may_go() {
    let mut world = failed_task(plan(Keep::All).task("b").within("r"));
    world.passes("b");
    let lines = world.op_lines(OperatorCommand::Clean { tasks: None });
    assert_eq!(lines, ["a: its worktree goes"]);
}

/// A batch that is over is taken over for its clean-up, and is over again.
#[test]
fn a_batch_that_is_over_is_cleaned() {
    let mut world = failed_task(plan(Keep::All));
    world.crash_and_lose();
    world.clean_up("a");
    world.all_goes_well();
    assert!(is_gone(&world));
    assert_eq!(world.ending(), Some(Ending::Failed));
}

// What the batch file says.

#[test]
fn worktrees_stay_or_go_as_the_batch_file_says() {
    for (keep, of_failed, of_merged, of_parked) in [
        (Keep::All, false, false, false),
        (Keep::Failed, false, true, false),
        (Keep::None, true, true, false),
    ] {
        let mut world = failed_task(plan(keep));
        world.all_goes_well();
        assert_eq!(is_gone(&world), of_failed, "{keep:?}");
        let mut world = World::start(plan(keep));
        world.all_goes_well();
        assert_eq!(is_gone(&world), of_merged, "{keep:?}");
        let mut world = World::start(plan(keep));
        world.passes_all("a");
        world.merges_but(&["a"]);
        world.all_goes_well();
        assert_eq!(is_gone(&world), of_parked, "{keep:?}");
    }
}

/// However it ended: cancelled between two attempts, or skipped.
#[test]
fn a_worktree_goes_whatever_ended_its_task() {
    for cancels in [true, false] {
        let mut world = World::start(plan(Keep::None).task("b"));
        world.passes("a");
        world.begin("a");
        world.kill("a", Duration::ZERO);
        world.exited("a", Exit::Signal(9));
        if cancels {
            world.cancel("a");
        } else {
            world.skip_task("a", false);
        }
        assert_eq!(world.clean_of("a").step, CleanStep::Salvage);
    }
}

/// A crash may come between the end of a task and the word on its worktree.
#[test]
fn what_is_to_go_goes_after_a_crash_too() {
    let mut world = World::start(plan(Keep::Failed));
    world.all_goes_well();
    world.crash_at(|record| matches!(record, Record::MergeMoved { .. }));
    world.all_goes_well();
    assert!(is_gone(&world));
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn a_batch_ends_only_when_its_worktrees_are_gone() {
    let mut world = World::start(plan(Keep::None));
    world.passes_all("a");
    world.merges_but(&[]);
    assert_eq!(world.ending(), None);
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    assert_eq!(world.ending(), None);
    world.clean_says(CleanStep::Remove, removed());
    assert_eq!(world.ending(), Some(Ending::Done));
}

// Runs that vanish, are stopped, or can not be judged; a task that is opened again.

#[test]
fn a_clean_up_whose_run_vanishes_is_done_again_a_bounded_number_of_times() {
    let alone = |step: &CleanStep| *step != CleanStep::BuildOutput;
    for step in CleanStep::ALL.iter().copied().filter(alone) {
        let mut world = failed_task(plan(Keep::All).hooked());
        world.clean_up("a");
        while world.clean_of("a").step != step {
            let (run, _) = world.other_runs()[0];
            let result = match world.clean_of("a").step {
                CleanStep::Salvage => salvaged("a", 1),
                CleanStep::BuildOutput | CleanStep::BeforeRemove | CleanStep::Remove => ok(),
            };
            world.run_says(run, result);
        }
        let max = world.facts().batch.settings.lost_max;
        for _ in 0..max {
            let run = world.cleaning(step);
            world.run_vanishes(run);
        }
        assert_eq!(world.task("a").clean, None, "{step:?}");
        assert!(!is_gone(&world));
        assert_eq!(world.ending(), Some(Ending::Failed));
    }
}

/// What is left then may be nothing, or not even the folder: no hook runs in it, and the salvage that
/// allowed the removal stays the last one.
#[test]
fn a_removal_that_was_cut_off_is_gone_on_with_after_it_was_given_up() {
    let mut world = failed_task(plan(Keep::All).hooked());
    world.clean_up("a");
    world.clean_says(CleanStep::BeforeRemove, ok());
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    for _ in 0..world.facts().batch.settings.lost_max {
        let run = world.cleaning(CleanStep::Remove);
        world.run_vanishes(run);
    }
    assert_eq!(world.task("a").clean, None);
    world.take_over_to_clean();
    world.clean_up("a");
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    assert_eq!(world.task("a").salvaged.len(), 1, "told again, noted once");
    world.clean_says(CleanStep::Remove, removed());
    assert!(is_gone(&world));
}

/// A removal that was refused took nothing: the hook has its turn again.
#[test]
fn a_removal_that_was_refused_begins_again_with_its_hook() {
    let mut world = failed_task(plan(Keep::All).hooked());
    world.clean_up("a");
    world.clean_says(CleanStep::BeforeRemove, ok());
    world.clean_says(CleanStep::Salvage, salvaged("a", 1));
    world.clean_says(CleanStep::Remove, failed(Class::Environment));
    world.clean_up("a");
    assert_eq!(world.clean_of("a").step, CleanStep::BeforeRemove);
}

#[test]
fn a_stop_holds_a_clean_up_and_the_next_supervisor_goes_on_with_it() {
    let mut world = failed_task(plan(Keep::All));
    world.clean_up("a");
    let run = world.cleaning(CleanStep::Salvage);
    world.begin_run(run);
    world.stop(StopStage::Stop);
    world.exited_run(run, Exit::Signal(15), None);
    assert!(world.ending().is_some());
    assert_eq!(world.facts().runs.len(), 0);
    world.crash_and_lose();
    world.all_goes_well();
    assert!(is_gone(&world));
}

#[test]
fn a_clean_up_whose_run_can_not_be_judged_does_not_hold_the_batch_up() {
    let mut world = failed_task(plan(Keep::All));
    world.clean_up("a");
    let run = world.cleaning(CleanStep::Salvage);
    world.begin_run(run);
    world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
    assert!(world.ending().is_some());
    world.crash_and_lose();
    world.all_goes_well();
    assert!(is_gone(&world));
}

#[test]
fn a_task_whose_worktree_goes_is_not_opened() {
    let mut world = failed_task(plan(Keep::All));
    world.clean_up("a");
    let busy = "a: its worktree is being removed: try again in a moment";
    assert_eq!(world.retry("a"), busy);
    world.all_goes_well();
    world.retry("a");
    assert_eq!(
        world.step("a"),
        Step::Provision,
        "nothing is there to salvage"
    );
}

/// Opened with another task while its worktree goes: it stays unless its removal has begun, and
/// nothing works in it before that is known.
#[test]
fn a_task_that_is_opened_while_its_worktree_goes_waits_for_that() {
    for removing in [false, true] {
        let plan = plan(Keep::All).task("b").spec(|it| it.attempts = 1);
        let mut world = World::start(plan.task("c").within("r").after(&["b"]));
        // It worked once, before what it depends on was opened again and failed.
        world.succeed("b");
        world.passes_to("c", Step::Work);
        world.begin("c");
        world.kill("c", Duration::ZERO);
        world.exited("c", Exit::Signal(9));
        world.skip_task("c", false);
        world.clean_up("c");
        if removing {
            world.clean_says(CleanStep::Salvage, salvaged("c", 1));
        }
        let task = world.ix("c");
        let (mode, attempts) = (RetryMode::Resume, None);
        let reopened = Record::Reopened {
            task,
            mode,
            attempts,
        };
        world.inject(reopened);
        world.tick();
        assert_eq!(world.state("c"), TaskState::Ready);
        assert_eq!(world.task("c").attempt, None, "not yet");
        let run = world.other_runs()[0].0;
        let result = if removing {
            removed()
        } else {
            salvaged("c", 1)
        };
        world.run_says(run, result);
        assert_eq!(world.step("c"), Step::Provision);
        assert_eq!(world.task("c").worktree.is_none(), removing);
    }
}

// Room is made in a worktree that stays.

#[test]
fn build_output_goes_and_its_worktree_stays() {
    let mut world = failed_task(plan(Keep::All).hooked());
    world.decided();
    assert_eq!(world.make_room("a"), "a: its build output goes");
    assert_eq!(world.make_room("a"), "a: its worktree is going already");
    assert_eq!(world.clean_up("a"), "a: its worktree is going already");
    let busy = "a: its worktree is being removed: try again in a moment";
    assert_eq!(world.retry("a"), busy, "nobody works where it goes");
    world.clean_says(CleanStep::BuildOutput, room_made());
    assert_eq!(
        (world.task("a").clean.as_ref(), is_gone(&world)),
        (None, false)
    );
    assert_eq!(world.task("a").salvaged, [], "it can be built again");
    let told = |record: &Record| match record {
        Record::CleanEnded {
            detail, removed, ..
        } => Some((*removed, detail.to_string())),
        _ => None,
    };
    let told: Vec<_> = world.decided().iter().filter_map(told).collect();
    let said = "42 bytes freed in 2 folders of build output".to_owned();
    assert_eq!(told, [(false, said)]);
    assert_eq!(world.ending(), Some(Ending::Failed));
    assert_eq!(world.retry("a"), "a: is tried again");
}

#[test]
fn build_output_of_a_task_that_is_not_over_stays() {
    let mut world = World::start(plan(Keep::All));
    assert_eq!(world.make_room("a"), "a: has no worktree");
    world.passes_to("a", Step::Work);
    let live = "a: is not over: its worktree stays as it is";
    assert_eq!(world.make_room("a"), live);
    world.begin("a");
    world.kill("a", Duration::ZERO);
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.state("a"), TaskState::Paused);
    assert_eq!(world.make_room("a"), live, "an attempt could begin");
}

#[test]
fn a_removal_of_build_output_that_fails_or_vanishes_ends_a_bounded_number_of_times_later() {
    let mut world = failed_task(plan(Keep::All));
    world.make_room("a");
    world.clean_says(CleanStep::BuildOutput, failed(Class::Environment));
    assert_eq!(
        (world.task("a").clean.as_ref(), is_gone(&world)),
        (None, false)
    );
    world.make_room("a");
    for _ in 0..world.facts().batch.settings.lost_max {
        let run = world.cleaning(CleanStep::BuildOutput);
        world.run_vanishes(run);
    }
    assert_eq!(
        (world.task("a").clean.as_ref(), is_gone(&world)),
        (None, false)
    );
    assert_eq!(world.ending(), Some(Ending::Failed));
}

#[test]
fn build_output_is_removed_again_by_the_next_supervisor_and_the_batch_file_is_heard_then() {
    let mut world = failed_task(plan(Keep::All));
    world.make_room("a");
    world.crash_and_lose();
    world.clean_says(CleanStep::BuildOutput, room_made());
    assert!(!is_gone(&world));
    let mut world = World::start(plan(Keep::Failed));
    world.passes_all("a");
    // Its merge waits, which room in its worktree does not mind; merged, the worktree goes.
    assert_eq!(world.make_room("a"), "a: its build output goes");
    world.merges_but(&[]);
    assert_eq!(world.clean_of("a").step, CleanStep::BuildOutput);
    world.clean_says(CleanStep::BuildOutput, room_made());
    assert_eq!(world.clean_of("a").step, CleanStep::Salvage);
    world.all_goes_well();
    assert!(is_gone(&world));
}
