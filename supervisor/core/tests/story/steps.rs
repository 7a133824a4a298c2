//! The life of a task with a worktree, step by step, and what each step's end means.

use protocol::git::GitOutcome;
use supervisor_core::live::HELLO_MAX;

use super::harness::*;

/// One task with a worktree, and nothing else.
fn one() -> PlanBuilder {
    batch().repo("r", |_| {}).task("a").within("r").spec(|it| {
        it.timeout = hours(2);
    })
}

/// A task whose attempt has every step but the salvage.
fn full() -> World {
    let plan = batch().repo("r", |_| {}).agent("judge", "main", |_| {});
    World::start(
        plan.task("a")
            .within("r")
            .hooked()
            .verified()
            .reviewed("judge", 2),
    )
}

fn at(step: Step) -> World {
    let mut world = full();
    world.passes_to("a", step);
    world
}

const ORDER: [Step; 9] = [
    Step::Provision,
    Step::AfterCreate,
    Step::BeforeRun,
    Step::Work,
    Step::AfterRun,
    Step::Commit,
    Step::Prove,
    Step::Checkout,
    Step::Review,
];
const NOT_THE_AGENTS: [Step; 8] = [
    Step::Provision,
    Step::AfterCreate,
    Step::BeforeRun,
    Step::AfterRun,
    Step::Commit,
    Step::Prove,
    Step::Checkout,
    Step::Review,
];

#[test]
fn an_attempt_takes_its_steps_in_order() {
    let mut world = full();
    assert_eq!(world.passes_all("a"), ORDER);
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
    assert_eq!(world.merge_at("a"), MergeState::Merging);
    assert_eq!(world.merge_of("a").commit, commit_of("a"));
}

#[test]
fn a_worktree_without_rules_is_provisioned_worked_in_and_committed() {
    let mut world = World::start(one());
    let steps = world.passes_all("a");
    assert_eq!(steps, [Step::Provision, Step::Work, Step::Commit]);
}

/// Hooks need no worktree.
#[test]
fn a_task_without_a_worktree_has_only_the_hooks_around_its_agent() {
    let mut world = World::start(batch().task("a").hooked().verified());
    let steps = [Step::BeforeRun, Step::Work, Step::AfterRun, Step::Prove];
    assert_eq!(world.passes_all("a"), steps);
    assert_eq!(world.task("a").merge, None, "nothing to merge");
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn status_says_what_an_attempt_does() {
    for step in ORDER {
        let world = at(step);
        let running = TaskState::Running;
        let is = match step {
            Step::Salvage | Step::Provision | Step::AfterCreate | Step::Fetch | Step::BeforeRun => {
                (running, TaskReason::Preparing, AttemptState::Preparing)
            }
            Step::Work => (running, TaskReason::Working, AttemptState::Working),
            Step::AfterRun | Step::Commit | Step::Prove => (
                TaskState::Verifying,
                TaskReason::Proving,
                AttemptState::Proving,
            ),
            Step::Checkout | Step::Review => (
                TaskState::Reviewing,
                TaskReason::Reviewing,
                AttemptState::Reviewing,
            ),
        };
        let (state, reason) = world.at("a");
        assert_eq!((state, reason, world.attempt("a").state), is, "{step:?}");
    }
}

/// The step is done again where it is; nothing is paid for it.
#[test]
fn a_step_whose_run_vanishes_is_done_again() {
    for step in NOT_THE_AGENTS {
        let mut world = at(step);
        let before = world.run("a");
        world.begin("a");
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.step("a"), step);
        assert!(world.run("a") > before, "{step:?}");
        assert_eq!(world.attempt("a").step_runs, 2);
        assert_eq!(world.task("a").consumed, 0);
        assert_eq!(world.passes_all("a").last(), Some(&Step::Review));
        assert_eq!(world.state("a"), TaskState::Done, "{step:?}");
    }
}

#[test]
fn a_step_that_vanishes_again_and_again_is_a_lost_attempt() {
    for step in NOT_THE_AGENTS {
        let mut world = at(step);
        let max = world.facts().batch.settings.lost_max;
        for _ in 1..max {
            world.begin("a");
            world.exited("a", Exit::Signal(9));
            assert_eq!(world.attempt("a").no, AttemptNo(1), "{step:?}");
        }
        world.begin("a");
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.outcome("a"), (Some(Class::Lost), 0), "{step:?}");
    }
}

/// What comes after the agent is left as it is by a crash, whose result alone is missing.
#[test]
fn a_crash_at_any_step_goes_on_with_that_step() {
    for step in NOT_THE_AGENTS {
        let mut world = at(step);
        world.begin("a");
        world.crash_and_lose();
        assert_eq!(world.step("a"), step);
        assert_eq!(world.task("a").attempts, AttemptNo(1));
        world.passes_all("a");
        assert_eq!(world.state("a"), TaskState::Done, "{step:?}");
    }
}

/// A result that became durable before the crash counts.
#[test]
fn a_crash_after_a_steps_result_goes_on_with_the_next_one() {
    for pair in ORDER.windows(2) {
        let mut world = at(pair[0]);
        let result = world.well("a");
        world.begin("a");
        world.crash_and_recover(ProcessFact::Gone, ResultFact::Durable(Box::new(result)));
        assert_eq!(world.step("a"), pair[1]);
    }
}

#[test]
fn a_step_whose_host_never_greets_is_tried_again_a_bounded_number_of_times() {
    for step in NOT_THE_AGENTS {
        let mut world = at(step);
        for _ in 0..4 {
            world.spawned("a");
            world.pass(HELLO_MAX);
            world.exited("a", Exit::Signal(9));
            assert_eq!(world.step("a"), step, "{step:?}");
        }
        world.spawned("a");
        world.pass(HELLO_MAX);
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.outcome("a").0, Some(Class::SpawnFailure), "{step:?}");
    }
}

/// Exit 2 of a hook, git work that can not be done: the operator's side, no attempt is used up.
#[test]
fn a_step_that_blocks_is_setup_failed_and_costs_nothing() {
    for step in NOT_THE_AGENTS {
        if matches!(step, Step::Prove | Step::Review) {
            continue;
        }
        let mut world = at(step);
        let mut blocks = failed(Class::SetupFailed);
        blocks.class = None;
        world.says("a", blocks);
        let outcome = (Some(Class::SetupFailed), 0);
        assert_eq!(world.outcome("a"), outcome, "{step:?}");
        let last = world.task("a").last.clone().unwrap();
        assert!(last.detail.starts_with(step.word()), "{}", last.detail);
    }
}

/// What was killed below the host says nothing of the work: as if the host had been killed with it.
#[test]
fn a_step_whose_git_was_killed_is_done_again_in_its_attempt() {
    for step in [Step::Provision, Step::Commit, Step::Checkout] {
        let mut world = at(step);
        for _ in 0..6 {
            world.says("a", failed(Class::Lost));
            assert_eq!(world.step("a"), step);
            assert_eq!(world.task("a").attempts.0, 1, "{step:?}");
        }
        world.passes("a");
        assert_ne!(world.step("a"), step);
    }
}

#[test]
fn a_run_that_does_not_say_what_it_did_did_nothing() {
    for (step, other) in [
        (Step::Provision, None),
        (Step::Provision, Some(GitOutcome::Advanced {})),
        (Step::Checkout, None),
        (Step::Commit, None),
        (Step::Commit, Some(GitOutcome::CheckedOut {})),
    ] {
        let mut world = at(step);
        let mut result = ok();
        result.git = other.map(Box::new);
        world.says("a", result);
        assert_eq!(world.outcome("a").0, Some(Class::Protocol), "{step:?}");
    }
}

// What the commit shows.

#[test]
fn a_commit_that_changes_nothing_is_no_change() {
    let mut world = World::start(one());
    world.passes_to("a", Step::Commit);
    world.says("a", committed("a", 0));
    assert_eq!(world.outcome("a"), (Some(Class::NoChange), 1));
}

#[test]
fn a_task_that_need_not_change_anything_is_done_with_nothing_to_merge() {
    let mut world = World::start(one().spec(|it| it.changes = false));
    world.passes_to("a", Step::Commit);
    world.says("a", committed("a", 0));
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
    assert_eq!(world.merge_at("a"), MergeState::None);
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn a_commit_with_markers_or_outside_its_files_is_not_proven() {
    for which in 0..2 {
        let mut world = World::start(one());
        world.passes_to("a", Step::Commit);
        let paths: Vec<String> = (0..7).map(|it| format!("f{it}")).collect();
        let bad = committed_with("a", 9, |done| match which {
            0 => done.markers = paths,
            _ => done.outside = paths,
        });
        world.says("a", bad);
        assert_eq!(world.outcome("a"), (Some(Class::VerifyFailed), 1));
        let detail = world.task("a").last.clone().unwrap().detail;
        assert!(
            detail.ends_with("f0, f1, f2, f3, f4 and 2 more"),
            "{detail}"
        );
    }
}

#[test]
fn outputs_that_are_not_there_are_no_result() {
    let mut world = World::start(one());
    world.passes_to("a", Step::Commit);
    let bad = committed_with("a", 9, |done| done.missing = vec!["report.md".to_owned()]);
    world.says("a", bad);
    assert_eq!(world.outcome("a"), (Some(Class::NoResult), 1));
}

/// The bad commit is on record before the ruling on it: who comes after a crash rules the same way.
#[test]
fn a_bad_commit_is_not_taken_after_a_crash_either() {
    let mut world = World::start(one());
    world.passes_to("a", Step::Commit);
    world.begin("a");
    world.ends("a", committed("a", 0));
    let facts = world.at_record(|record| matches!(record, Record::RunEnded { .. }));
    let attempt = facts.tasks[0].attempt.as_ref().unwrap();
    assert!(!attempt.step_done, "the step is due again");
}

// The worktree and its hook.

#[test]
fn the_hook_of_a_new_worktree_runs_once() {
    let mut world = at(Step::Work);
    assert!(world.task("a").worktree.as_ref().unwrap().hooked);
    world.fail_and_wait("a", Class::AgentFailed);
    let steps = world.passes_all("a");
    assert_eq!(steps[..3], [Step::Provision, Step::BeforeRun, Step::Work]);
}

/// The worktree was gone and is made anew: then it is new.
#[test]
fn the_hook_of_a_new_worktree_runs_again_where_it_was_made_again() {
    let mut world = at(Step::Work);
    world.fail_and_wait("a", Class::AgentFailed);
    world.says("a", provisioned(true));
    assert_eq!(world.step("a"), Step::AfterCreate);
}

#[test]
fn a_hook_of_a_new_worktree_that_failed_runs_again() {
    let mut world = at(Step::AfterCreate);
    world.says("a", failed(Class::SetupFailed));
    world.pass(mins(20));
    assert_eq!(world.passes("a"), Step::Provision);
    assert_eq!(world.step("a"), Step::AfterCreate);
}

// A fresh beginning.

fn failed_once() -> World {
    let mut world = World::start(one().spec(|it| it.attempts = 1));
    world.passes_to("a", Step::Work);
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Failed);
    assert!(world.task("a").worktree.is_some(), "what is there stays");
    world
}

/// What is in the worktree goes to a salvage ref before it is made anew.
#[test]
fn a_fresh_attempt_salvages_before_it_provisions() {
    let mut world = failed_once();
    world.retry("a");
    let steps = world.passes_all("a");
    assert_eq!(
        steps,
        [Step::Salvage, Step::Provision, Step::Work, Step::Commit]
    );
    assert_eq!(world.task("a").salvaged.len(), 1);
}

#[test]
fn a_first_attempt_has_nothing_to_salvage() {
    let world = World::start(one());
    assert_eq!(world.attempt("a").mode, RetryMode::Fresh);
    assert_eq!(world.step("a"), Step::Provision);
}

/// The conversation was about what is no longer there.
#[test]
fn the_salvage_of_a_fresh_attempt_ends_its_conversation() {
    let mut world = failed_once();
    assert!(world.task("a").session.is_some());
    world.retry("a");
    world.passes("a");
    assert_eq!(world.task("a").session, None);
}

#[test]
fn nothing_is_provisioned_over_work_that_is_not_salvaged() {
    for result in [failed(Class::Disk), ok(), provisioned(true)] {
        let mut world = failed_once();
        world.retry("a");
        world.says("a", result);
        assert!(world.task("a").worktree.is_some());
        assert_eq!(world.task("a").salvaged, []);
        world.pass(hours(1));
        assert_eq!(world.task("a").mode, RetryMode::Fresh, "as it was asked");
        if world.task("a").attempt.is_some() {
            assert_eq!(world.step("a"), Step::Salvage, "not without it");
        }
    }
}

/// Paused, killed or stopped before its salvage: it is as fresh when it goes on.
#[test]
fn a_fresh_attempt_that_was_ended_before_its_salvage_begins_fresh_again() {
    let mut world = failed_once();
    world.retry("a");
    world.begin("a");
    world.kill("a", Duration::ZERO);
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
    world.resume_all();
    assert_eq!(world.step("a"), Step::Salvage);
}

/// Its worktree is new by then: it is not salvaged once more.
#[test]
fn a_fresh_attempt_that_was_ended_after_its_salvage_goes_on_in_its_new_worktree() {
    let mut world = failed_once();
    world.retry("a");
    world.passes("a");
    world.passes("a");
    assert_eq!(world.step("a"), Step::Work);
    world.crash_and_lose();
    assert_eq!(world.passes("a"), Step::Provision);
    assert_eq!(world.attempt("a").mode, RetryMode::NewSession);
}

// The operator, limits and accounts between and during steps.

#[test]
fn a_kill_at_any_step_holds_the_task_with_what_it_has() {
    for step in ORDER {
        let mut world = at(step);
        world.begin("a");
        world.kill("a", Duration::ZERO);
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
        assert_eq!(world.outcome("a").1, 0, "{step:?}");
        world.resume_all();
        assert_eq!(world.step("a"), Step::Provision);
        world.passes_all("a");
        assert_eq!(world.state("a"), TaskState::Done, "{step:?}");
    }
}

#[test]
fn a_cancel_at_any_step_ends_the_task() {
    for step in ORDER {
        let mut world = at(step);
        world.begin("a");
        world.cancel("a");
        world.exited("a", Exit::Signal(15));
        let cancelled = (TaskState::Cancelled, TaskReason::CancelledByOperator);
        assert_eq!(world.at("a"), cancelled, "{step:?}");
    }
}

/// The operator's word stands although the run that it was about ended well first.
#[test]
fn a_cancel_is_not_forgotten_where_the_reviewer_gave_no_verdict() {
    let mut world = at(Step::Review);
    world.begin("a");
    let run = world.run("a");
    world.result("a", ok());
    world.cancel("a");
    world.exited_run(run, Exit::Code(0), None);
    assert_eq!(world.state("a"), TaskState::Cancelled);
}

#[test]
fn a_pause_before_the_agent_holds_the_task_between_two_steps() {
    for step in [Step::Provision, Step::AfterCreate, Step::BeforeRun] {
        let mut world = at(step);
        world.begin("a");
        assert_eq!(world.pause("a", true), "a: paused after its attempt");
        let result = world.well("a");
        world.ends("a", result);
        assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Operator));
        world.resume_all();
        assert_eq!(world.passes("a"), Step::Provision);
        assert_eq!(world.attempt("a").mode, RetryMode::NewSession);
    }
}

/// A stop of the batch leaves the attempt open where it is.
#[test]
fn a_stop_at_any_step_but_the_agents_goes_on_there_after_run() {
    for step in NOT_THE_AGENTS {
        let mut world = at(step);
        world.begin("a");
        world.stop(StopStage::Stop);
        world.exited("a", Exit::Signal(15));
        assert_eq!(world.batch_at().0, BatchState::Interrupted, "{step:?}");
        assert_eq!(world.ending(), Some(Ending::Interrupted));
        world.crash_and_lose();
        assert_eq!(
            (world.step("a"), world.attempt("a").no),
            (step, AttemptNo(1))
        );
        world.passes_all("a");
        assert_eq!(world.state("a"), TaskState::Done, "{step:?}");
    }
}

/// A drain lets the proof of work come to its end, and lets no agent begin.
#[test]
fn a_drain_before_the_agent_ends_between_two_steps() {
    let mut world = at(Step::AfterCreate);
    world.begin("a");
    world.stop(StopStage::Drain);
    world.ends("a", ok());
    assert_eq!(world.batch_at().0, BatchState::Interrupted);
    world.crash_and_lose();
    assert_eq!(world.step("a"), Step::BeforeRun);
}

#[test]
fn a_drain_after_the_agent_ends_with_the_task() {
    let mut world = at(Step::AfterRun);
    world.stop(StopStage::Drain);
    world.all_goes_well();
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.merge_at("a"), MergeState::Merged);
    assert_eq!(world.batch_at().0, BatchState::Done);
}

/// Its lane is free for others as long as nothing of it may begin.
#[test]
fn an_account_that_is_limited_before_the_agent_begins_takes_no_lane() {
    let plan = batch()
        .lanes(2)
        .account("other", |_| {})
        .agent("second", "other", |_| {})
        .repo("r", |_| {});
    let plan = plan
        .task("a")
        .within("r")
        .task("limited")
        .task("b")
        .by("second");
    let mut world = World::start(plan);
    assert_eq!(world.live(), ["a", "limited"]);
    world.begin("a");
    world.begin("limited");
    world.ends("limited", failed(Class::UsageLimit));
    assert_eq!(world.account(), AccountState::Limited);
    world.ends("a", provisioned(true));
    assert_eq!(
        world.at("a"),
        (TaskState::Paused, TaskReason::AccountLimited)
    );
    assert_eq!(world.live(), ["b"]);
    assert_eq!(world.outcome("a").1, 0);
    world.pass(hours(1));
    assert!(world.live().contains(&"a".to_owned()), "as its account may");
}

#[test]
fn what_needs_a_stopped_account_before_its_agent_begins_waits_for_the_operator() {
    let plan = batch().repo("r", |_| {}).task("a").within("r").task("bad");
    let mut world = World::start(plan);
    world.begin("a");
    world.begin("bad");
    world.ends("bad", failed(Class::Auth));
    world.ends("a", provisioned(true));
    assert_eq!(
        world.at("a"),
        (TaskState::Paused, TaskReason::AccountStopped)
    );
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
}

/// Commands before the agent say nothing of its account's limit.
#[test]
fn a_probe_is_not_answered_before_its_agent_works() {
    let mut world = World::start(one().spec(|it| it.attempts = 9));
    world.passes("a");
    world.fail("a", Class::UsageLimit);
    world.pass(hours(1));
    assert!(world.attempt("a").probe);
    world.begin("a");
    world.ends("a", failed(Class::Crash));
    assert_eq!(world.account(), AccountState::Probing);
}

/// Of the attempt's wall limit only what comes up to the agent's end is a part.
#[test]
fn what_comes_after_the_agent_is_not_under_its_wall_limit() {
    let plan = batch().repo("r", |_| {}).agent("judge", "main", |_| {});
    let plan = plan.task("a").within("r").reviewed("judge", 2).spec(|it| {
        it.timeout = hours(1);
        it.silence = hours(9);
        it.no_progress = hours(9);
    });
    let mut world = World::start(plan);
    world.pulse = Pulse::Printing;
    world.passes_to("a", Step::Work);
    world.begin("a");
    world.pass(mins(40));
    world.ends("a", ok());
    world.passes_to("a", Step::Review);
    world.begin("a");
    world.pass(mins(50));
    let notes = verdict(protocol::report::Verdict::Revise, "once more");
    world.ends("a", notes);
    world.begin("a");
    world.pass(mins(15));
    assert_eq!(
        world.run_state("a"),
        RunState::Started,
        "20 minutes are left"
    );
    world.pass(mins(6));
    assert_eq!(world.run_state("a"), RunState::Stopping);
}

/// A provisioning that takes too long is over time as the agent would be.
#[test]
fn what_comes_before_the_agent_is_under_the_wall_limit() {
    let mut world = World::start(one());
    world.pulse = Pulse::Printing;
    world.begin("a");
    world.pass(hours(3));
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.outcome("a"), (Some(Class::Timeout), 1));
}
