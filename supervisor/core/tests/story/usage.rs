//! Use: noted seldom, summed exactly, and limits that hold.

use crate::harness::*;

const fn none() -> Limits {
    Limits {
        turns: None,
        tokens: None,
        cost_micros: None,
        wall: None,
    }
}

const fn use_of(turns: u64, tokens: u64, cost_micros: u64) -> Usage {
    Usage {
        turns,
        tokens,
        cost_micros,
    }
}

fn tokens(limit: u64) -> Limits {
    Limits {
        tokens: Some(limit),
        ..none()
    }
}

/// A result that ends a run with this use.
fn ended_with(result: RunResult, usage: Usage) -> RunResult {
    RunResult { usage, ..result }
}

fn uses(world: &mut World, name: &str, usage: Usage) {
    world.report(name, Event::Usage(usage));
}

/// What was noted since the last look.
fn notes(world: &mut World) -> Vec<u64> {
    let decided = world.decided();
    decided
        .iter()
        .filter_map(|record| match record {
            Record::UsageNoted { usage, .. } => Some(usage.tokens),
            _ => None,
        })
        .collect()
}

/// The reason of the stop that was decided with the last input.
fn stopped(world: &World) -> Option<StopReason> {
    world
        .last
        .entries
        .iter()
        .find_map(|entry| match entry.record {
            Record::StopDecided { reason, .. } => Some(reason),
            _ => None,
        })
}

#[test]
fn use_is_noted_at_most_every_five_seconds() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    let reports: [(u64, u64, &[u64]); 7] = [
        (0, 10, &[10]),
        (1, 20, &[]),
        (4_998, 30, &[]),
        (1, 40, &[40]),
        (4_999, 50, &[]),
        (1, 50, &[50]),
        (60_000, 50, &[]),
    ];
    for (wait_ms, tokens, expected) in reports {
        world.skip(Duration::from_millis(wait_ms));
        uses(&mut world, "a", used(tokens));
        assert_eq!(notes(&mut world), expected, "{wait_ms} ms, {tokens} tokens");
    }
}

#[test]
fn each_run_has_its_own_five_seconds() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.begin("b");
    uses(&mut world, "a", used(10));
    uses(&mut world, "b", used(20));
    assert_eq!(notes(&mut world), [10, 20]);
}

/// What came between two notes is not lost with the run.
#[test]
fn the_end_of_a_run_notes_the_rest() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    uses(&mut world, "a", used(10));
    uses(&mut world, "a", used(25));
    assert_eq!(notes(&mut world), [10]);
    world.exited("a", Exit::Signal(11));
    assert_eq!(notes(&mut world), [25]);
    assert_eq!(world.task("a").usage, used(25));
    assert_eq!(world.facts().batch.usage, used(25));
}

/// A crash of the supervisor forgets what was not noted, and no more.
#[test]
fn a_crash_keeps_what_was_noted() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    uses(&mut world, "a", used(10));
    uses(&mut world, "a", used(25));
    world.crash_and_lose();
    assert_eq!(world.task("a").usage, used(10));
}

/// Reports and result of one run are two views of the same use: the larger counts, not the sum.
#[test]
fn a_run_counts_once() {
    let table = [
        (use_of(1, 100, 5), use_of(2, 50, 9), use_of(2, 100, 9)),
        (use_of(3, 30, 3), Usage::default(), use_of(3, 30, 3)),
        (Usage::default(), use_of(4, 40, 4), use_of(4, 40, 4)),
        (use_of(5, 50, 5), use_of(5, 50, 5), use_of(5, 50, 5)),
    ];
    for (reported, last, sum) in table {
        let mut world = World::start(batch().task("a"));
        world.begin("a");
        uses(&mut world, "a", reported);
        world.ends("a", ended_with(ok(), last));
        assert_eq!(world.task("a").usage, sum);
        assert_eq!(world.facts().batch.usage, sum);
    }
}

/// Counts of a run are cumulative; one that falls is some adapter's mistake.
#[test]
fn use_never_falls() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    uses(&mut world, "a", used(50));
    world.skip(secs(10));
    uses(&mut world, "a", used(20));
    world.ends("a", ok());
    assert_eq!(world.task("a").usage, used(50));
}

#[test]
fn use_is_summed_over_attempts_proofs_and_tasks() {
    let plan = batch().task("a").verified().task("b");
    let mut world = World::start(plan);
    world.begin("a");
    world.ends("a", ended_with(failed(Class::AgentFailed), used(10)));
    world.pass(mins(1));
    world.begin("a");
    world.ends("a", ended_with(ok(), used(20)));
    world.begin("a");
    world.ends("a", ended_with(ok(), used(3)));
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.task("a").usage, use_of(3, 33, 330));
    world.begin("b");
    world.ends("b", ended_with(ok(), used(100)));
    assert_eq!(world.facts().batch.usage, use_of(4, 133, 1330));
    assert_eq!(world.task("b").usage, used(100));
}

#[test]
fn sums_do_not_overflow() {
    let most = use_of(u64::MAX, u64::MAX, u64::MAX);
    let mut world = World::start(batch().tasks(&["a", "b"]));
    for name in ["a", "b"] {
        world.begin(name);
        uses(&mut world, name, most);
        world.ends(name, ok());
    }
    assert_eq!(world.facts().batch.usage, most);
}

/// Each limit of a task, just below and reached.
#[test]
fn a_task_at_its_limit_is_stopped() {
    let limits = Limits {
        turns: Some(10),
        tokens: Some(1_000),
        cost_micros: Some(5_000),
        wall: None,
    };
    let table = [
        (use_of(9, 999, 4_999), None),
        (use_of(10, 0, 0), Some(StopReason::Budget)),
        (use_of(0, 1_000, 0), Some(StopReason::Budget)),
        (use_of(0, 0, 5_000), Some(StopReason::Budget)),
        (use_of(99, 99_999, 99_999), Some(StopReason::Budget)),
    ];
    for (usage, expected) in table {
        let plan = batch().task("a").spec(|spec| spec.limits = limits);
        let mut world = World::start(plan);
        world.begin("a");
        uses(&mut world, "a", usage);
        assert_eq!(stopped(&world), expected, "{usage:?}");
        world.exited("a", Exit::Code(0));
        if expected.is_some() {
            let reason = TaskReason::Failed(Class::Budget);
            assert_eq!(world.at("a"), (TaskState::Failed, reason));
            assert_eq!(world.outcome("a"), (Some(Class::Budget), 1));
        }
    }
}

/// The limit is the task's: what earlier attempts used is used.
#[test]
fn a_tasks_limit_counts_all_its_attempts() {
    let plan = batch().task("a").spec(|spec| spec.limits = tokens(100));
    let mut world = World::start(plan);
    world.begin("a");
    uses(&mut world, "a", used(60));
    world.ends("a", failed(Class::AgentFailed));
    world.pass(mins(1));
    world.begin("a");
    uses(&mut world, "a", used(39));
    assert_eq!(stopped(&world), None);
    uses(&mut world, "a", used(40));
    assert_eq!(stopped(&world), Some(StopReason::Budget));
}

/// It had finished when the limit came: finished work is not thrown away.
#[test]
fn a_result_after_the_limit_counts() {
    let plan = batch().task("a").spec(|spec| spec.limits = tokens(100));
    let mut world = World::start(plan);
    world.begin("a");
    uses(&mut world, "a", used(100));
    assert_eq!(stopped(&world), Some(StopReason::Budget));
    world.result("a", ok());
    world.exited("a", Exit::Code(0));
    assert_eq!(world.state("a"), TaskState::Done);
}

/// Each limit of the batch: what runs is stopped to go on later, and a person must look.
#[test]
fn a_batch_at_its_limit_pauses() {
    let limits = Limits {
        turns: Some(10),
        tokens: Some(1_000),
        cost_micros: Some(5_000),
        wall: None,
    };
    let table = [
        (use_of(5, 500, 2_500), BatchLimit::Turns),
        (use_of(4, 500, 0), BatchLimit::Tokens),
        (use_of(4, 499, 2_500), BatchLimit::Cost),
    ];
    for (each, limit) in table {
        let plan = batch()
            .lanes(2)
            .set(|settings| settings.limits = limits)
            .tasks(&["a", "b", "c"]);
        let mut world = World::start(plan);
        world.begin("a");
        world.begin("b");
        uses(&mut world, "a", each);
        assert_eq!(world.batch_at().0, BatchState::Running);
        uses(&mut world, "b", each);
        let reason = BatchReason::Limit(limit);
        assert_eq!(world.batch_at(), (BatchState::Paused, reason));
        let stops = world.last.urgent.iter();
        let stops = stops.filter(|effect| matches!(effect, Effect::StopHost { .. }));
        assert_eq!(stops.count(), 2, "both are stopped");
        world.exited("a", Exit::Code(0));
        assert_eq!(world.ending(), None, "one still runs");
        world.exited("b", Exit::Code(0));
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
        assert_eq!(world.task("a").consumed, 0);
        assert_eq!(world.state("c"), TaskState::Ready, "nothing new starts");
    }
}

/// Two reports within one note's five seconds: the second counts for the limit all the same.
#[test]
fn a_batch_limit_counts_what_is_not_noted_yet() {
    let plan = batch()
        .set(|settings| settings.limits = tokens(100))
        .tasks(&["a", "b"]);
    let mut world = World::start(plan);
    world.begin("a");
    world.begin("b");
    uses(&mut world, "a", used(1));
    uses(&mut world, "a", used(60));
    assert_eq!(world.batch_at().0, BatchState::Running);
    uses(&mut world, "b", used(40));
    let reason = BatchReason::Limit(BatchLimit::Tokens);
    assert_eq!(world.batch_at(), (BatchState::Paused, reason));
}

/// Some agents say what they used in their result only.
#[test]
fn a_batch_limit_counts_results() {
    for (last, state) in [(59, BatchState::Running), (60, BatchState::Paused)] {
        let plan = batch()
            .lanes(1)
            .set(|settings| settings.limits = tokens(100))
            .tasks(&["a", "b", "c"]);
        let mut world = World::start(plan);
        world.begin("a");
        world.ends("a", ended_with(ok(), used(40)));
        world.begin("b");
        world.ends("b", ended_with(ok(), used(last)));
        assert_eq!(world.batch_at().0, state);
        assert_eq!(world.states(&["a", "b"]), [TaskState::Done; 2]);
        let live = world.live();
        assert_eq!(live.is_empty(), state == BatchState::Paused, "{live:?}");
    }
}

/// The last task reaches the limit and is done: there is nothing left to pause.
#[test]
fn a_limit_reached_by_the_last_result_changes_nothing() {
    let plan = batch()
        .set(|settings| settings.limits = tokens(100))
        .task("a");
    let mut world = World::start(plan);
    world.begin("a");
    world.ends("a", ended_with(ok(), used(100)));
    assert_eq!(world.batch_at(), (BatchState::Done, BatchReason::Settled));
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A limit that was reached is reached for the next supervisor, too.
#[test]
fn a_limit_outlives_the_supervisor() {
    let plan = batch()
        .set(|settings| settings.limits = tokens(100))
        .tasks(&["a", "b"]);
    let mut world = World::start(plan);
    world.begin("a");
    uses(&mut world, "a", used(100));
    world.crash_and_lose();
    let reason = BatchReason::Limit(BatchLimit::Tokens);
    assert_eq!(world.batch_at(), (BatchState::Paused, reason));
    assert_eq!(world.live(), Vec::<String>::new());
}

/// The wall limit of a batch counts running time: not pauses, and not the time without supervisor.
#[test]
fn the_wall_limit_of_a_batch_counts_running_time() {
    let plan = batch()
        .set(|settings| {
            settings.limits = Limits {
                wall: Some(hours(1)),
                ..none()
            };
        })
        .task("a");
    let mut world = World::start(plan);
    world.pulse = Pulse::Printing;
    world.begin("a");
    world.pass(mins(30));
    world.op_lines(OperatorCommand::Pause {
        tasks: None,
        now: false,
    });
    world.pass(mins(20));
    world.resume_all();
    world.pass(mins(10));
    world.skip(hours(5));
    world.crash_and_lose();
    world.begin("a");
    let counted = world.facts().batch.ran;
    world.pass(hours(1) - counted - secs(1));
    assert_eq!(world.batch_at().0, BatchState::Running);
    world.pass(secs(1));
    let reason = BatchReason::Limit(BatchLimit::Wall);
    assert_eq!(world.batch_at(), (BatchState::Paused, reason));
    assert!(counted >= mins(30) && counted < mins(41), "{counted:?}");
    assert_eq!(world.run_state("a"), RunState::Stopping);
}

/// A proof spends nothing: what is being proven when the limit comes is proven.
#[test]
fn a_limit_lets_proofs_under_way_finish() {
    let plan = batch()
        .lanes(1)
        .set(|settings| settings.limits = tokens(100))
        .task("a")
        .verified()
        .task("b");
    let mut world = World::start(plan);
    world.begin("a");
    world.ends("a", ended_with(ok(), used(100)));
    let reason = BatchReason::Limit(BatchLimit::Tokens);
    assert_eq!(world.batch_at(), (BatchState::Paused, reason));
    assert_eq!(world.ending(), None, "its proof is being made");
    world.succeed("a");
    assert_eq!(
        world.states(&["a", "b"]),
        [TaskState::Done, TaskState::Ready]
    );
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
}

/// The agent was done in time, and only its host's end comes after the limit: the proof is made.
#[test]
fn a_limit_lets_a_proof_begin_whose_result_is_there() {
    let plan = batch()
        .set(|settings| settings.limits = tokens(100))
        .task("a")
        .verified()
        .task("b");
    let mut world = World::start(plan);
    world.begin("a");
    world.begin("b");
    let (a, b) = (world.run("a"), world.run("b"));
    world.result("a", ok());
    uses(&mut world, "b", used(100));
    let reason = BatchReason::Limit(BatchLimit::Tokens);
    assert_eq!(world.batch_at(), (BatchState::Paused, reason));
    assert_eq!(world.stops_of(a), 0, "it has handed over its result");
    assert_eq!(world.stops_of(b), 1);
    world.exited_run(a, Exit::Code(0), None);
    world.exited_run(b, Exit::Code(0), None);
    assert_eq!(world.state("a"), TaskState::Verifying);
    assert_eq!(world.ending(), None, "its proof is being made");
    world.succeed("a");
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
}

/// The same for a proof that no supervisor was there for, whichever limit it is.
#[test]
fn the_next_supervisor_proves_what_is_done_although_a_limit_is_reached() {
    let all = Limits {
        turns: Some(10),
        tokens: Some(100),
        cost_micros: Some(1_000),
        wall: Some(hours(1)),
    };
    let table = [
        (use_of(10, 0, 0), BatchLimit::Turns),
        (use_of(0, 100, 0), BatchLimit::Tokens),
        (use_of(0, 0, 1_000), BatchLimit::Cost),
        (use_of(0, 0, 0), BatchLimit::Wall),
    ];
    for (usage, limit) in table {
        let plan = batch()
            .set(|settings| settings.limits = all)
            .task("a")
            .verified()
            .task("b")
            .after(&["a"]);
        let mut world = World::start(plan);
        world.pulse = Pulse::Printing;
        world.begin("a");
        world.ends("a", ended_with(ok(), usage));
        world.pass(hours(1));
        let reached = (BatchState::Paused, BatchReason::Limit(limit));
        assert_eq!(world.batch_at(), reached);
        world.stop(supervisor_core::input::StopStage::Stop);
        world.exited("a", Exit::Code(0));
        assert_eq!(world.ending(), Some(Ending::Interrupted));
        world.crash_and_lose();
        assert_eq!(world.batch_at(), reached);
        assert_eq!(world.state("a"), TaskState::Verifying);
        assert_eq!(world.ending(), None, "its proof is being made");
        world.succeed("a");
        assert_eq!(
            world.states(&["a", "b"]),
            [TaskState::Done, TaskState::Ready],
            "{limit:?}"
        );
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    }
}

/// Only a bad disk holds a proof back: nothing of it could be written down.
#[test]
fn a_proof_waits_for_the_disk() {
    let mut world = World::start(batch().task("a").verified());
    world.begin("a");
    world.result("a", ok());
    world.handle(Input::DiskFailed);
    world.exited("a", Exit::Code(0));
    let before = world.journal.len();
    world.tick();
    assert_eq!(world.journal.len(), before);
    world.handle(Input::DiskRecovered);
    assert_eq!(world.state("a"), TaskState::Verifying);
    world.succeed("a");
    assert_eq!(world.state("a"), TaskState::Done);
}

/// Some agents say what they used in their result only: the next attempt does not start.
#[test]
fn a_task_that_used_up_its_limit_in_a_result_is_not_tried_again() {
    for (tokens_used, spent) in [(99, false), (100, true)] {
        let plan = batch().task("a").spec(|spec| spec.limits = tokens(100));
        let mut world = World::start(plan);
        world.begin("a");
        let result = ended_with(failed(Class::AgentFailed), used(tokens_used));
        world.ends("a", result);
        if !spent {
            let reason = TaskReason::Backoff(Class::AgentFailed);
            assert_eq!(world.at("a"), (TaskState::Ready, reason));
            continue;
        }
        let reason = TaskReason::Failed(Class::Budget);
        assert_eq!(world.at("a"), (TaskState::Failed, reason));
        assert_eq!(world.outcome("a"), (Some(Class::Budget), 1));
        let detail = world.task("a").last.as_ref().unwrap().detail.to_string();
        assert!(
            detail.contains("used up a limit") && detail.contains("agent_failed"),
            "{detail}"
        );
    }
}

/// Neither attempt is over the limit, both together are; whatever ended the second one.
#[test]
fn the_sum_over_attempts_is_looked_at_before_the_next_one() {
    for class in [Class::AgentFailed, Class::Crash, Class::Environment] {
        let plan = batch()
            .task("a")
            .spec(|spec| spec.limits = tokens(100))
            .task("b")
            .after(&["a"]);
        let mut world = World::start(plan);
        world.begin("a");
        world.ends("a", ended_with(failed(Class::AgentFailed), used(60)));
        world.pass(mins(1));
        world.begin("a");
        world.ends("a", ended_with(failed(class), used(40)));
        let reason = TaskReason::Failed(Class::Budget);
        assert_eq!(world.at("a"), (TaskState::Failed, reason), "{class}");
        assert_eq!(world.outcome("a").0, Some(Class::Budget));
        assert_eq!(world.state("b"), TaskState::Skipped);
    }
}

/// A last attempt says why it failed, not that there is no budget for another.
#[test]
fn an_attempt_after_which_none_would_follow_keeps_its_class() {
    let plan = batch().task("a").spec(|spec| {
        spec.limits = tokens(100);
        spec.attempts = 1;
    });
    let mut world = World::start(plan);
    world.begin("a");
    world.ends("a", ended_with(failed(Class::AgentFailed), used(100)));
    assert_eq!(world.outcome("a"), (Some(Class::AgentFailed), 1));
}

/// A rule for retries is no budget.
#[test]
fn a_spent_limit_outweighs_the_rule_for_retries() {
    let plan = batch().task("a").spec(|spec| {
        spec.limits = tokens(100);
        spec.retry.by_class.insert(Class::Budget, RetryMode::Resume);
    });
    let mut world = World::start(plan);
    world.begin("a");
    uses(&mut world, "a", used(100));
    world.exited("a", Exit::Code(0));
    let reason = TaskReason::Failed(Class::Budget);
    assert_eq!(world.at("a"), (TaskState::Failed, reason));
}

/// Attempts that end by the operator's word, or for the account, hold or requeue the task: what it
/// used is looked at when its turn comes.
#[test]
fn a_held_task_that_used_up_its_limit_is_not_started_again() {
    let plan = batch()
        .set(|settings| settings.on_failure = OnFailure::Stop)
        .task("a")
        .spec(|spec| spec.limits = tokens(100));
    let mut world = World::start(plan);
    world.begin("a");
    uses(&mut world, "a", used(60));
    world.kill("a", secs(1));
    uses(&mut world, "a", used(99));
    world.exited("a", Exit::Signal(15));
    world.resume_all();
    assert_eq!(world.state("a"), TaskState::Running, "99 is not 100");
    world.begin("a");
    uses(&mut world, "a", used(1));
    world.kill("a", secs(1));
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
    world.resume_all();
    let reason = TaskReason::Failed(Class::Budget);
    assert_eq!(world.at("a"), (TaskState::Failed, reason));
    assert_eq!(
        world.batch_at().1,
        BatchReason::Settled,
        "`on_failure: stop`"
    );
}

/// The operator's `retry` grants a new budget as it grants new attempts.
#[test]
fn a_reopened_task_has_its_limits_anew() {
    let plan = batch().task("a").spec(|spec| spec.limits = tokens(100));
    let mut world = World::start(plan);
    world.begin("a");
    uses(&mut world, "a", used(100));
    world.exited("a", Exit::Code(0));
    assert_eq!(world.state("a"), TaskState::Failed);
    world.retry("a");
    assert_eq!(world.state("a"), TaskState::Running);
    world.begin("a");
    uses(&mut world, "a", used(99));
    assert_eq!(stopped(&world), None);
    uses(&mut world, "a", used(100));
    assert_eq!(stopped(&world), Some(StopReason::Budget));
    world.exited("a", Exit::Code(0));
    assert_eq!(world.task("a").usage.tokens, 200, "what was used is used");
}
