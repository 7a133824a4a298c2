//! When a batch is over, when it can not move by itself, and when nothing may be closed yet.

use super::harness::*;

use supervisor_core::identity::Exit;

fn working(plan: PlanBuilder) -> World {
    let mut world = World::start(plan);
    world.begin("a");
    world
}

fn limited(limits: Limits) -> PlanBuilder {
    batch().set(|settings| settings.limits = limits)
}

/// No attempt of the last task's rules ends by a clock of its own.
fn patient(plan: PlanBuilder) -> PlanBuilder {
    plan.every(|spec| {
        spec.timeout = hours(1000);
        spec.silence = hours(1000);
        spec.no_progress = hours(1000);
    })
}

fn endings(world: &World) -> usize {
    let ends = |effect: &&Effect| matches!(effect, Effect::Finish { .. });
    world.effects.iter().filter(ends).count()
}

// Nothing is closed between a take-over and its first tick.

/// A batch that ended is taken over by the `run` that has commands for it: whatever they are, and
/// in whatever order, the first tick finds the batch as the last of them left it.
#[test]
fn commands_that_waited_come_before_anything_is_closed() {
    let plan = batch()
        .tasks(&["a", "b"])
        .every(|spec| spec.attempts = 1)
        .task("c")
        .after(&["a"]);
    let mut world = working(plan);
    world.succeed("b");
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.ending(), Some(Ending::Failed));
    let before = endings(&world);

    world.crash();
    world.recover(Vec::new());
    assert_eq!(
        world.retry("b"),
        "b: is done; a done task is not tried again"
    );
    assert_eq!(endings(&world), before, "a refusal closes nothing");
    assert_eq!(world.retry("a"), "a: is tried again");
    assert_eq!(world.resume_all(), ["nothing was paused"]);
    assert_eq!(endings(&world), before);
    world.tick();
    assert_eq!(endings(&world), before, "there is work again");
    assert_eq!(world.batch_at().0, BatchState::Running);
    assert_eq!(world.live(), ["a"]);
    world.succeed("a");
    world.succeed("c");
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// The same with a batch whose tasks wait for a person.
#[test]
fn a_batch_that_needs_a_person_hears_the_person_first() {
    let mut world = working(batch().task("a"));
    world.kill("a", secs(1));
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    let before = endings(&world);

    world.crash();
    world.recover(Vec::new());
    assert_eq!(world.retry("a"), "a: goes on");
    assert_eq!(world.pause("a", true), "a: paused until `resume`");
    world.handle(Input::DiskRecovered);
    assert_eq!(endings(&world), before, "no other input closes it");
    assert_eq!(world.resume("a"), "a: goes on");
    world.tick();
    assert_eq!(endings(&world), before);
    assert_eq!(world.live(), ["a"]);
}

/// The tick is owed until it comes, and then the batch is closed: nobody waits for ever.
#[test]
fn the_first_tick_closes_what_nobody_opened() {
    for refused in [false, true] {
        let mut world = working(batch().task("a"));
        world.ends("a", ok());
        world.crash();
        world.recover(Vec::new());
        assert_eq!(world.ending(), None);
        if refused {
            world.retry("a");
            assert_eq!(world.ending(), None);
        }
        let owed = world.core.next_deadline().boot;
        assert_eq!(owed, Some(world.now.boot), "at once");
        world.tick();
        assert_eq!(world.ending(), Some(Ending::Done));
        assert_eq!(world.core.next_deadline().boot, None);
    }
}

// Endings.

#[test]
fn endings_by_what_became_of_the_tasks() {
    let rows: [(&str, BatchState, Ending); 4] = [
        ("ok", BatchState::Done, Ending::Done),
        ("skip", BatchState::Done, Ending::Done),
        ("fail", BatchState::Failed, Ending::Failed),
        ("cancel", BatchState::Failed, Ending::Failed),
    ];
    for (how, state, ending) in rows {
        let plan = batch().lanes(1).tasks(&["a", "b"]);
        let mut world = working(plan.every(|spec| spec.attempts = 1));
        match how {
            "skip" => drop(world.skip_task("b", false)),
            "cancel" => drop(world.cancel("b")),
            _ => {}
        }
        world.ends("a", ok());
        match how {
            "ok" => world.succeed("b"),
            "fail" => world.fail("b", Class::AgentFailed),
            _ => {}
        }
        assert_eq!(world.batch_at(), (state, BatchReason::Settled), "{how}");
        assert_eq!(world.ending(), Some(ending), "{how}");
    }
}

/// A batch is not over while a host of it is not reaped, whatever its tasks say.
#[test]
fn the_end_waits_for_the_last_host() {
    let mut world = working(batch().task("a"));
    let run = world.run("a");
    world.result("a", ok());
    assert_eq!(world.ending(), None);
    world.exited_run(run, Exit::Code(0), None);
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A pause of the operator does not keep open what is settled.
#[test]
fn a_paused_batch_closes_when_all_is_settled() {
    let mut world = working(batch().task("a"));
    let tasks = None;
    world.op_lines(OperatorCommand::Pause { tasks, now: false });
    world.ends("a", ok());
    assert_eq!(world.batch_at(), (BatchState::Done, BatchReason::Settled));
}

/// As long as anything moves nobody is called; then the supervisor ends and says so.
#[test]
fn needs_a_person_only_when_nothing_moves() {
    let plan = batch()
        .account("other", |_| {})
        .agent("free", "other", |_| {})
        .task("a")
        .task("b")
        .by("free");
    let mut world = working(plan);
    world.ends("a", failed(Class::Auth));
    assert_eq!(world.ending(), None, "`b` is on its way");
    world.fail("b", Class::AgentFailed);
    assert_eq!(world.ending(), None, "its backoff will end by itself");
    world.pass(mins(2));
    world.succeed("b");
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    assert_eq!(
        world.batch_at(),
        (BatchState::Paused, BatchReason::NeedsPerson)
    );
    world.resume_all();
    assert_eq!(world.live(), ["a"]);
}

/// A limited account is only time.
#[test]
fn an_account_that_waits_for_its_reset_needs_nobody() {
    let mut world = working(batch().tasks(&["a"]));
    world.ends("a", failed(Class::UsageLimit));
    assert_eq!(
        world.at("a"),
        (TaskState::Paused, TaskReason::AccountLimited)
    );
    assert_eq!(world.ending(), None);
    world.pass(mins(2));
    assert_eq!(world.live(), ["a"]);
}

/// Where no host starts, more tries say nothing about the tasks.
#[test]
fn environment_when_nothing_starts() {
    let names = ["a", "b", "c", "d", "e"];
    let mut world = World::start(batch().lanes(5).tasks(&names));
    for name in &names[..4] {
        world.spawn_failed(name);
        assert_eq!(world.batch_at().0, BatchState::Running);
    }
    world.spawn_failed("e");
    assert_eq!(world.ending(), Some(Ending::Environment));
    assert_eq!(
        world.batch_at(),
        (BatchState::Interrupted, BatchReason::NothingStarts)
    );
    assert_eq!(world.states(&names), [TaskState::Ready; 5]);
    world.crash_and_lose();
    assert_eq!(world.batch_at().0, BatchState::Running, "counted anew");
    assert_eq!(world.facts().batch.spawn_failures, 0);
}

/// One host that shook hands: this machine can start hosts.
#[test]
fn environment_is_not_blamed_once_a_host_started() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut world = World::start(batch().lanes(6).tasks(&names));
    for name in &names[..4] {
        world.spawn_failed(name);
    }
    world.begin("f");
    world.spawn_failed("e");
    assert_eq!(world.batch_at().0, BatchState::Running);
}

// Failures that stop the batch.

/// The batch file's word on failures is not forgotten with the supervisor that heard it.
#[test]
fn on_failure_stop_survives_a_crash() {
    let plan = batch()
        .lanes(2)
        .set(|settings| settings.on_failure = OnFailure::Stop)
        .tasks(&["a", "b", "c"])
        .every(|spec| spec.attempts = 1);
    let mut world = working(plan);
    world.begin("b");
    world.ends("a", failed(Class::AgentFailed));
    let a = world.ix("a");
    assert_eq!(
        world.batch_at(),
        (BatchState::Stopping, BatchReason::TaskFailed(a))
    );
    world.crash_and_recover(ProcessFact::Gone, ResultFact::Durable(Box::new(ok())));
    assert_eq!(
        world.states(&["b", "c"]),
        [TaskState::Done, TaskState::Skipped]
    );
    assert_eq!(world.ending(), Some(Ending::Failed));
}

#[test]
fn max_failures_stops_and_closes_as_failed() {
    let plan = batch()
        .lanes(1)
        .set(|settings| settings.max_failures = Some(MaxFailures::Count(1)))
        .tasks(&["a", "b", "c"])
        .every(|spec| spec.attempts = 1);
    let mut world = working(plan);
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.live(), ["b"], "one may fail");
    world.fail("b", Class::AgentFailed);
    assert_eq!(
        world.at("c"),
        (TaskState::Skipped, TaskReason::BatchStopped)
    );
    assert_eq!(world.ending(), Some(Ending::Failed));
}

#[test]
fn only_leaves_nothing_open() {
    let plan = batch().task("a").task("b").after(&["a"]).task("c");
    let mut world = World::start(plan.only(&["b"]));
    assert_eq!(world.live(), ["b"]);
    world.fail("b", Class::Refused);
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    world.crash_and_lose();
    assert_eq!(
        world.at("c"),
        (TaskState::Skipped, TaskReason::NotSelected),
        "the next supervisor leaves it out, too"
    );
}

// Limits of the batch.

#[test]
fn limits_pause_the_batch_and_stop_what_runs() {
    let rows = [
        (
            Limits {
                turns: Some(1),
                ..Limits::default()
            },
            BatchLimit::Turns,
        ),
        (
            Limits {
                tokens: Some(50),
                ..Limits::default()
            },
            BatchLimit::Tokens,
        ),
        (
            Limits {
                cost_micros: Some(500),
                ..Limits::default()
            },
            BatchLimit::Cost,
        ),
    ];
    for (limits, limit) in rows {
        let mut world = working(limited(limits).lanes(1).tasks(&["a", "b"]));
        world.report("a", Event::Usage(used(50)));
        let paused = (BatchState::Paused, BatchReason::Limit(limit));
        assert_eq!(world.batch_at(), paused);
        assert_eq!(world.run_state("a"), RunState::Stopping);
        assert_eq!(world.ending(), None, "its host is not gone");
        world.exited("a", Exit::Code(0));
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
        assert_eq!(world.outcome("a"), (Some(Class::Cancelled), 0));

        world.crash_and_lose();
        assert_eq!(world.batch_at(), paused, "what is spent stays spent");
        assert_eq!(world.live(), [""; 0], "and nothing more is");
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    }
}

/// The operator may go on over a limit; the next use says again that it is reached.
#[test]
fn limits_are_still_reached_after_resume() {
    let limits = Limits {
        tokens: Some(50),
        ..Limits::default()
    };
    let mut world = working(limited(limits).task("a"));
    world.report("a", Event::Usage(used(50)));
    world.exited("a", Exit::Code(0));
    assert_eq!(world.resume_all(), ["the batch goes on"]);
    world.begin("a");
    world.report("a", Event::Usage(used(1)));
    let paused = BatchReason::Limit(BatchLimit::Tokens);
    assert_eq!(world.batch_at(), (BatchState::Paused, paused));
}

/// A result that comes while the limit stops its run counts: it was paid for.
#[test]
fn limits_do_not_throw_away_what_was_done() {
    let limits = Limits {
        tokens: Some(50),
        ..Limits::default()
    };
    let mut world = working(limited(limits).tasks(&["a", "b"]));
    world.report("a", Event::Usage(used(60)));
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Done);
    world.spawn_failed("b");
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
}

/// Running time only: neither a pause nor the time without a supervisor counts.
#[test]
fn wall_limit_counts_running_time_only() {
    let limits = Limits {
        wall: Some(hours(1)),
        ..Limits::default()
    };
    let mut world = World::start(patient(limited(limits).task("a")));
    world.begin("a");
    world.pass(mins(20));
    let tasks = None;
    world.op_lines(OperatorCommand::Pause { tasks, now: false });
    world.pass(hours(7));
    world.resume_all();
    world.pass(mins(20));
    world.op_lines(OperatorCommand::SetConcurrency(3));
    world.skip(hours(9));
    world.crash_and_lose();
    world.begin("a");
    world.pass(mins(20) - secs(1));
    assert_eq!(world.batch_at().0, BatchState::Running);
    world.pass(secs(1));
    let reached = BatchReason::Limit(BatchLimit::Wall);
    assert_eq!(world.batch_at(), (BatchState::Paused, reached));
    world.exited("a", Exit::Code(0));
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    world.crash_and_lose();
    assert_eq!(world.batch_at(), (BatchState::Paused, reached));
}

// Dates.

#[test]
fn until_drains_at_its_date() {
    let date = World::empty().now.wall + hours(1);
    let plan = batch().lanes(1).set(|it| it.until = Some(date));
    let mut world = World::start(patient(plan.tasks(&["a", "b"])));
    world.begin("a");
    world.pass(hours(1));
    assert_eq!(world.batch_at(), (BatchState::Stopping, BatchReason::Until));
    assert_eq!(world.run_state("a"), RunState::Started, "it may finish");
    world.ends("a", ok());
    assert_eq!(world.state("b"), TaskState::Ready);
    assert_eq!(world.ending(), Some(Ending::Interrupted));
    world.crash_and_lose();
    assert_eq!(world.live(), [""; 0], "the date has still passed");
}

#[test]
fn not_before_holds_the_whole_batch() {
    let date = World::empty().now.wall + hours(8);
    let plan = batch().set(|it| it.not_before = Some(date));
    let mut world = World::start(plan.tasks(&["a", "b"]));
    assert_eq!(world.live(), [""; 0]);
    assert_eq!(world.ending(), None, "time alone will move it");
    world.pass(hours(8) - secs(1));
    assert_eq!(world.live(), [""; 0]);
    world.pass(secs(1));
    assert_eq!(world.live(), ["a", "b"]);
}

// The disk.

#[test]
fn a_bad_disk_starts_nothing_and_ends_nothing() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b"]));
    world.handle(Input::DiskFailed);
    assert_eq!(world.batch_at(), (BatchState::Paused, BatchReason::Disk));
    assert_eq!(world.run_state("a"), RunState::Started);
    world.ends("a", ok());
    assert_eq!(world.live(), [""; 0]);
    assert_eq!(world.ending(), None, "it may come back");
    world.handle(Input::DiskRecovered);
    assert_eq!(
        world.batch_at(),
        (BatchState::Running, BatchReason::Working)
    );
    assert_eq!(world.live(), ["b"]);
}

/// Proofs write, too.
#[test]
fn a_bad_disk_delays_proofs() {
    let mut world = working(batch().task("a").verified());
    world.handle(Input::DiskFailed);
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Running);
    world.handle(Input::DiskRecovered);
    assert_eq!(world.state("a"), TaskState::Verifying);
}

/// The disk's return undoes the disk's pause and no other.
#[test]
fn a_good_disk_undoes_no_pause_of_the_operator() {
    let mut world = working(batch().task("a"));
    let tasks = None;
    world.op_lines(OperatorCommand::Pause { tasks, now: false });
    for input in [Input::DiskFailed, Input::DiskRecovered] {
        world.handle(input);
        assert_eq!(
            world.batch_at(),
            (BatchState::Paused, BatchReason::Operator)
        );
    }
}
