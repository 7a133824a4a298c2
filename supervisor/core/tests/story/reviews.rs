//! Another agent judges: approve, revise in the same attempt, reject, and reviewers that do none of it.

use protocol::report::Verdict;
use supervisor_core::retry::FREE_RETRIES_MAX;

use super::harness::*;

/// A worker and a reviewer of different accounts; the work may be sent back so often.
fn plan(rounds: u32) -> PlanBuilder {
    batch()
        .account("other", |_| {})
        .agent("judge", "other", |_| {})
        .repo("r", |_| {})
        .task("a")
        .within("r")
        .reviewed("judge", rounds)
}

fn reviewing(rounds: u32) -> World {
    let mut world = World::start(plan(rounds));
    world.passes_to("a", Step::Review);
    world
}

fn judge(world: &World) -> AccountState {
    world.facts().accounts[1].state
}

fn revise(world: &mut World, notes: &str) {
    world.says("a", verdict(Verdict::Revise, notes));
}

#[test]
fn approved_work_is_done() {
    let mut world = reviewing(1);
    world.says("a", verdict(Verdict::Approve, "good"));
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
}

/// Sent back: the same attempt and the same conversation, with what the reviewer said.
#[test]
fn revised_work_goes_back_to_its_agent_and_is_judged_again() {
    let mut world = reviewing(2);
    for (round, notes) in [(1, "mind the tests"), (2, "mind the names")] {
        revise(&mut world, notes);
        let attempt = world.attempt("a");
        assert_eq!((attempt.no, attempt.rounds), (AttemptNo(1), round));
        assert_eq!(attempt.notes.as_deref(), Some(notes));
        assert_eq!(attempt.verdict, None, "said anew of what is done anew");
        assert_eq!(world.step("a"), Step::Work);
        assert_eq!(world.task("a").session.as_deref(), Some("session-1"));
        world.passes_to("a", Step::Review);
    }
    world.passes("a");
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.outcome("a"), (None, 0));
}

#[test]
fn the_hook_before_the_agent_runs_before_each_of_its_runs() {
    let mut world = World::start(plan(2).hooked());
    world.passes_to("a", Step::Review);
    revise(&mut world, "again");
    let steps = world.passes_all("a");
    let again = [
        Step::BeforeRun,
        Step::Work,
        Step::AfterRun,
        Step::Commit,
        Step::Checkout,
        Step::Review,
    ];
    assert_eq!(steps, again);
}

#[test]
fn work_that_is_sent_back_too_often_is_rejected() {
    let mut world = reviewing(2);
    for _ in 0..2 {
        revise(&mut world, "again");
        world.passes_to("a", Step::Review);
    }
    revise(&mut world, "still bad");
    assert_eq!(world.outcome("a"), (Some(Class::Rejected), 1));
    let detail = world.task("a").last.clone().unwrap().detail;
    assert!(detail.contains("2 times") && detail.ends_with("still bad"));
}

#[test]
fn rejected_work_has_failed() {
    let mut world = reviewing(2);
    world.says("a", verdict(Verdict::Reject, "not this way"));
    assert_eq!(world.outcome("a"), (Some(Class::Rejected), 1));
}

/// Each verdict is on record before what follows from it: no crash between the two lets work pass.
#[test]
fn a_verdict_is_followed_after_a_crash_as_before() {
    for (word, rounds) in [(Verdict::Reject, 2), (Verdict::Revise, 0)] {
        let mut world = reviewing(rounds);
        world.says("a", verdict(word, "no"));
        world.crash_at(|record| matches!(record, Record::RunEnded { .. }));
        assert_eq!(world.outcome("a").0, Some(Class::Rejected), "{word:?}");
    }
    let mut world = reviewing(2);
    world.says("a", ok());
    world.crash_at(|record| matches!(record, Record::RunEnded { .. }));
    assert_eq!(world.step("a"), Step::Review, "no verdict is no approval");
}

/// Nothing is taken without a verdict.
#[test]
fn a_reviewer_without_a_verdict_is_asked_again_a_bounded_number_of_times() {
    let mut world = reviewing(2);
    for _ in 1..FREE_RETRIES_MAX {
        world.says("a", ok());
        assert_eq!(world.step("a"), Step::Review);
    }
    world.says("a", ok());
    assert_eq!(world.outcome("a"), (Some(Class::Rejected), 1));
}

#[test]
fn a_reviewer_that_fails_is_tried_again_a_bounded_number_of_times() {
    let mut world = reviewing(2);
    for _ in 1..FREE_RETRIES_MAX {
        world.says("a", failed(Class::Crash));
    }
    assert_eq!(world.step("a"), Step::Review);
    world.says("a", failed(Class::Crash));
    assert_eq!(world.outcome("a").0, Some(Class::Rejected));
}

#[test]
fn a_verdict_of_a_failed_reviewer_does_not_count() {
    let mut world = reviewing(2);
    let mut both = failed(Class::Crash);
    both.verdict = Some(Verdict::Approve);
    world.says("a", both);
    assert_eq!(world.state("a"), TaskState::Reviewing);
    assert_eq!(world.attempt("a").verdict, None);
}

/// The work waits with its reviewer's account and then goes on; the worker's is free.
#[test]
fn work_waits_for_a_limited_reviewer() {
    let mut world = reviewing(2);
    world.says("a", failed(Class::UsageLimit));
    assert_eq!(judge(&world), AccountState::Limited);
    assert_eq!(world.account(), AccountState::Open);
    assert_eq!(world.attempt("a").no, AttemptNo(1));
    assert_eq!(world.facts().runs.len(), 0);
    assert_eq!(world.ending(), None, "time alone lets it go on");
    world.pass(hours(1));
    assert_eq!(world.passes("a"), Step::Review);
    assert_eq!(judge(&world), AccountState::Open);
    assert_eq!(world.state("a"), TaskState::Done);
}

#[test]
fn work_whose_reviewers_account_is_stopped_waits_for_the_operator() {
    let mut world = reviewing(2);
    world.says("a", failed(Class::Auth));
    assert_eq!(judge(&world), AccountState::Stopped);
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    world.resume_all();
    assert_eq!(world.passes("a"), Step::Review);
    assert_eq!(world.state("a"), TaskState::Done);
}

/// What waits for its reviewer may take every lane: that is not moving by itself.
#[test]
fn a_batch_whose_lanes_all_wait_for_a_stopped_account_needs_a_person() {
    let plan = plan(2).set(|it| it.concurrency = 1).task("b").within("r");
    let mut world = World::start(plan);
    world.passes_to("a", Step::Review);
    world.says("a", failed(Class::Auth));
    assert_eq!(world.state("b"), TaskState::Ready);
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
}

#[test]
fn work_sent_back_to_a_stopped_account_needs_a_person() {
    let plan = plan(2).task("bad");
    let mut world = World::start(plan);
    world.passes_to("a", Step::Review);
    world.begin("a");
    world.fail("bad", Class::Auth);
    world.ends("a", verdict(Verdict::Revise, "again"));
    assert_eq!(world.attempt("a").notes.as_deref(), Some("again"));
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    world.resume_all();
    assert_eq!(world.step("a"), Step::Work);
}

/// Its own agent may not work in a drain: the batch ends, and goes on with what the reviewer said.
#[test]
fn a_drain_ends_where_work_was_sent_back() {
    let mut world = reviewing(2);
    world.begin("a");
    world.stop(StopStage::Drain);
    world.ends("a", verdict(Verdict::Revise, "again"));
    assert_eq!(world.ending(), Some(Ending::Interrupted));
    world.crash_and_lose();
    assert_eq!(world.step("a"), Step::Work);
    assert_eq!(world.attempt("a").notes.as_deref(), Some("again"));
}

/// A reviewer costs tokens as a worker does.
#[test]
fn no_reviewer_begins_in_a_paused_batch() {
    let mut world = World::start(plan(2));
    world.passes_to("a", Step::Commit);
    world.op_lines(OperatorCommand::Pause {
        tasks: None,
        now: false,
    });
    world.passes("a");
    assert_eq!(world.step("a"), Step::Commit);
    world.resume_all();
    assert_eq!(world.step("a"), Step::Checkout);
}

#[test]
fn a_pause_now_stops_a_reviewer_who_goes_on_after_it() {
    let mut world = reviewing(2);
    world.begin("a");
    world.op_lines(OperatorCommand::Pause {
        tasks: None,
        now: true,
    });
    assert_eq!(world.run_state("a"), RunState::Stopping);
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.step("a"), Step::Review);
    world.resume_all();
    assert_eq!(world.passes("a"), Step::Review);
    assert_eq!(world.state("a"), TaskState::Done);
}

#[test]
fn a_reviewer_over_its_wall_time_is_asked_again() {
    let mut world = World::start(plan(2).spec(|it| {
        it.timeout = mins(30);
        it.silence = hours(3);
        it.no_progress = hours(3);
    }));
    world.pulse = Pulse::Printing;
    world.passes_to("a", Step::Review);
    world.begin("a");
    world.pass(mins(31));
    assert_eq!(world.run_state("a"), RunState::Stopping);
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.step("a"), Step::Review);
    assert_eq!(world.attempt("a").step_runs, 2);
    assert_eq!(world.attempt("a").no, AttemptNo(1));
}

/// What a reviewer says it used is not a word of the worker's account.
#[test]
fn a_reviewer_answers_no_probe_of_the_worker() {
    let mut world = World::start(plan(2));
    world.passes("a");
    world.fail("a", Class::UsageLimit);
    world.pass(hours(1));
    assert!(world.attempt("a").probe);
    world.passes_to("a", Step::Review);
    assert_eq!(world.account(), AccountState::Probing);
    world.begin("a");
    world.report("a", Event::Usage(used(10)));
    assert_eq!(world.account(), AccountState::Probing);
    world.ends("a", verdict(Verdict::Approve, "good"));
    assert_eq!(world.account(), AccountState::Open);
}

#[test]
fn a_reviewer_may_not_ask_the_operator() {
    let mut world = reviewing(2);
    world.begin("a");
    assert!(matches!(world.asks("a", "may I?"), Answer::Refused(_)));
}
