//! Take-overs and clocks: terms, reboots, sleeps of the machine, jumps of the wall clock.

use super::harness::*;

use supervisor_core::retry::ACCOUNT_WAIT_MAX;

fn working(plan: PlanBuilder) -> World {
    let mut world = World::start(plan);
    world.begin("a");
    world
}

/// No clock of the task's own rules ends an attempt.
fn patient(plan: PlanBuilder) -> PlanBuilder {
    plan.every(|spec| {
        spec.timeout = hours(1000);
        spec.silence = hours(1000);
        spec.no_progress = hours(1000);
    })
}

fn next_check(world: &World, name: &str) -> Boot {
    match world.task(name).next_check {
        Some(Deadline::Boot(at)) => at,
        other => panic!("a wait by the boot clock, not {other:?}"),
    }
}

fn left(world: &World, at: Boot) -> Duration {
    Duration::from_millis(at.0 - world.now.boot.0)
}

/// What the wall limit of an attempt leaves: it stands still between runs, and from its agent's end on.
fn work_left(world: &World, name: &str) -> Duration {
    let attempt = world.attempt(name);
    let now = attempt.waiting_since.unwrap_or(world.now.boot);
    Duration::from_millis(attempt.deadline.0 - now.0)
}

// Terms.

/// I3: every take-over is a new term, and what it decides carries it.
#[test]
fn each_supervisor_has_its_own_term() {
    let mut world = World::created(batch().task("a"));
    assert_eq!(world.facts().batch.term, 0);
    assert_eq!(world.live(), [""; 0], "nobody works before a take-over");
    for term in 1..=4 {
        world.crash();
        let before = world.journal.len();
        world.recover(Vec::new());
        world.tick();
        assert_eq!(world.facts().batch.term, term);
        let news = &world.journal[before..];
        assert!(news.iter().all(|entry| entry.term == term));
        assert!(matches!(
            &news[0].record,
            Record::SupervisorStarted { term: first, .. } if *first == term
        ));
    }
    assert_eq!(world.live(), ["a"]);
}

#[test]
fn the_state_names_its_last_supervisor() {
    let mut world = working(batch().task("a"));
    let first = world.facts().batch.supervisor.clone();
    assert!(first.is_some());
    world.crash_and_lose();
    assert_ne!(world.facts().batch.supervisor, first);
}

/// Whoever looks for the guardian finds that of the last supervisor, not one of long ago.
#[test]
fn the_state_names_the_guardian_of_its_last_supervisor_alone() {
    let mut world = working(batch().task("a"));
    assert_eq!(world.facts().batch.guardian, None);
    let guardian = Some(world.identity());
    for guardian in [guardian, None] {
        world.crash();
        let supervisor = world.identity();
        world.handle(Input::Recovered {
            supervisor,
            guardian: guardian.clone(),
            build: "0.1.0".into(),
            runs: Vec::new(),
        });
        assert_eq!(world.facts().batch.guardian, guardian);
    }
}

/// A take-over of a batch that is over opens nothing.
#[test]
fn a_take_over_leaves_a_closed_batch_closed() {
    for (class, state, ending) in [
        (None, BatchState::Done, Ending::Done),
        (Some(Class::Budget), BatchState::Failed, Ending::Failed),
    ] {
        let mut world = working(batch().task("a"));
        world.ends("a", class.map_or_else(ok, failed));
        let before = world.facts().batch.state;
        assert_eq!(before, state);
        world.decided();
        world.crash_and_lose();
        assert_eq!(world.decided().len(), 1, "a term, and nothing else");
        assert_eq!(world.batch_at(), (state, BatchReason::Settled));
        assert_eq!(world.ending(), Some(ending));
    }
}

/// The operator's pause is not undone by a crash; every other pause is looked at anew.
#[test]
fn a_take_over_keeps_the_operators_pause() {
    let mut world = working(batch().task("a"));
    let tasks = None;
    world.op_lines(OperatorCommand::Pause { tasks, now: false });
    world.crash_and_lose();
    assert_eq!(
        world.batch_at(),
        (BatchState::Paused, BatchReason::Operator)
    );
    assert_eq!(world.live(), [""; 0]);
    world.resume_all();
    assert_eq!(world.live(), ["a"]);

    let mut world = working(batch().task("a"));
    world.handle(Input::DiskFailed);
    world.crash_and_lose();
    assert_eq!(
        world.batch_at(),
        (BatchState::Running, BatchReason::Working)
    );
}

/// A stop on its way is over with the supervisor that was told to stop.
#[test]
fn a_take_over_ends_a_drain() {
    let mut world = working(batch().task("a"));
    world.stop(StopStage::Drain);
    assert_eq!(world.facts().batch.stop_grade, Some(StopStage::Drain));
    world.crash_and_lose();
    assert_eq!(world.facts().batch.stop_grade, None);
    assert_eq!(world.live(), ["a"]);
}

// The same boot, another boot.

/// A wait goes on while nobody watches: after a short crash of the supervisor it is not longer.
#[test]
fn backoff_runs_on_without_a_supervisor() {
    let mut world = working(batch().task("a"));
    world.ends("a", failed(Class::AgentFailed));
    let due = next_check(&world, "a");
    world.skip(secs(1));
    world.crash_and_lose();
    assert_eq!(next_check(&world, "a"), due);
    world.crash();
    world.skip(mins(30));
    world.recover(Vec::new());
    assert_eq!(world.state("a"), TaskState::Ready, "the tick is owed");
    world.tick();
    assert_eq!(world.live(), ["a"]);
}

/// Another boot counts from another zero: what was left is left, neither for ever nor gone.
#[test]
fn a_reboot_rebases_a_backoff() {
    for away in [Duration::ZERO, mins(10), hours(100)] {
        let mut world = working(batch().task("a"));
        world.pass(mins(5));
        world.ends("a", failed(Class::AgentFailed));
        let wait = left(&world, next_check(&world, "a"));
        assert!(wait > secs(20) && wait < secs(40), "{wait:?}");
        world.crash();
        world.reboot(away);
        world.recover(Vec::new());
        world.tick();
        assert_eq!(left(&world, next_check(&world, "a")), wait);
        world.pass(wait - secs(1));
        assert_eq!(world.state("a"), TaskState::Ready);
        world.pass(secs(1));
        assert_eq!(world.live(), ["a"]);
    }
}

/// The wait counts from the last record: what nobody wrote down before a reboot is not known.
#[test]
fn a_reboot_counts_the_wait_up_to_the_last_record() {
    let mut world = working(batch().task("a"));
    world.ends("a", failed(Class::AgentFailed));
    let wait = left(&world, next_check(&world, "a"));
    world.skip(secs(10));
    world.op_lines(OperatorCommand::SetConcurrency(2));
    world.skip(secs(5));
    world.crash();
    world.reboot(hours(1));
    world.recover(Vec::new());
    assert_eq!(left(&world, next_check(&world, "a")), wait - secs(10));
}

#[test]
fn a_reboot_rebases_the_wait_of_an_account() {
    let mut world = working(batch().task("a"));
    world.ends("a", failed(Class::UsageLimit));
    let until = |world: &World| match world.facts().accounts[0].until {
        Some(Deadline::Boot(at)) => left(world, at),
        other => panic!("no reset was named: {other:?}"),
    };
    let wait = until(&world);
    assert!(wait <= ACCOUNT_WAIT_MAX);
    world.crash();
    world.reboot(hours(2));
    world.recover(Vec::new());
    assert_eq!(until(&world), wait);
    world.tick();
    world.pass(wait);
    assert_eq!(world.account(), AccountState::Probing);
    assert_eq!(world.live(), ["a"]);
}

/// Dates are dates, whatever the machine did in between.
#[test]
fn a_reboot_moves_no_date() {
    let date = World::empty().now.wall + hours(5);
    let plan = batch().task("a").spec(|spec| spec.not_before = Some(date));
    let mut world = World::start(plan);
    world.crash();
    world.reboot(hours(6));
    world.recover(Vec::new());
    world.tick();
    assert_eq!(world.live(), ["a"]);
}

/// A run of an earlier boot is gone with it, and its attempt with the run.
#[test]
fn a_reboot_loses_live_runs_and_nothing_else() {
    let mut world = working(batch().task("a").task("b").after(&["a"]));
    let facts = RunFacts {
        process: ProcessFact::Gone,
        result: ResultFact::Absent,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
    };
    let run = world.run("a");
    world.crash();
    world.reboot(hours(1));
    world.recover(vec![(run, facts)]);
    world.tick();
    assert_eq!(world.outcome("a"), (Some(Class::Lost), 0));
    assert_eq!(world.live(), ["a"]);
    let deadline = world.attempt("a").deadline;
    assert_eq!(left(&world, deadline), hours(2), "a whole new attempt");
}

/// The wall limit of an attempt that waits for its proof does not run while nobody watches.
#[test]
fn an_open_attempt_keeps_its_time_over_a_crash() {
    for reboots in [false, true] {
        let mut world = working(batch().task("a").verified());
        world.pass(mins(10));
        world.ends("a", ok());
        world.begin("a");
        let before = work_left(&world, "a");
        world.crash();
        if reboots {
            world.reboot(hours(9));
        } else {
            world.skip(hours(9));
        }
        let facts = RunFacts {
            process: ProcessFact::Gone,
            result: ResultFact::Absent,
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
        };
        let run = world.run("a");
        world.recover(vec![(run, facts)]);
        world.tick();
        assert_eq!(world.state("a"), TaskState::Verifying);
        let after = work_left(&world, "a");
        assert_eq!(after, before, "reboots: {reboots}");
    }
}

// Sleep.

/// The machine slept: nothing that was not heard in that time is silence, no limit was used up.
#[test]
fn a_clock_gap_moves_deadlines_and_fires_nothing() {
    let mut world = working(batch().tasks(&["a", "b"]));
    world.begin("b");
    world.ends("b", failed(Class::AgentFailed));
    let deadline = world.attempt("a").deadline;
    let check = next_check(&world, "b");
    world.decided();
    world.news();

    let due = world.core.next_deadline().boot.expect("a ping");
    let gap = left(&world, due) + hours(5);
    world.skip(gap);
    world.tick();
    assert_eq!(world.decided(), [Record::ClockGap { gap }]);
    assert_eq!(world.attempt("a").deadline, deadline + gap);
    assert_eq!(next_check(&world, "b"), check + gap);
    assert_eq!(world.news(), [], "the ping moved as well");
    assert_eq!(
        world.states(&["a", "b"]),
        [TaskState::Running, TaskState::Ready]
    );
    world.pass(left(&world, check + gap));
    assert_eq!(world.live(), ["a", "b"]);
}

/// After a sleep silence counts from anew, and is still noticed.
#[test]
fn a_clock_gap_does_not_blind_the_watchdog() {
    let mut world = working(batch().task("a"));
    world.skip(hours(5));
    world.tick();
    assert_eq!(world.run_state("a"), RunState::Started);
    world.pass(mins(20));
    assert_eq!(world.run_state("a"), RunState::Stopping);
    let (reason, _) = world.facts().runs[&world.run("a")].stop.expect("a stop");
    assert_eq!(reason, StopReason::Silence);
}

/// Late by no more than a loaded machine is late: deadlines fire, nothing is moved.
#[test]
fn a_little_late_is_no_clock_gap() {
    for (late, gap) in [
        (Duration::ZERO, false),
        (secs(30), false),
        (secs(30) + Duration::from_millis(1), true),
    ] {
        let mut world = working(batch().task("a"));
        world.decided();
        let due = world.core.next_deadline().boot.expect("a ping");
        world.skip(left(&world, due) + late);
        world.tick();
        let decided = world.decided();
        let seen = matches!(decided[..], [Record::ClockGap { .. }]);
        assert_eq!(seen, gap, "{late:?}: {decided:?}");
        assert_eq!(decided.is_empty(), !gap);
    }
}

/// Whoever speaks first after a sleep, the sleep is noticed before what it says is believed.
#[test]
fn a_clock_gap_is_noticed_by_any_input() {
    let mut world = working(batch().task("a"));
    world.decided();
    world.skip(hours(3));
    world.op_lines(OperatorCommand::SetConcurrency(2));
    let decided = world.decided();
    assert!(matches!(decided[0], Record::ClockGap { .. }));
    assert_eq!(decided[1], Record::ConcurrencySet { concurrency: 2 });
    world.tick();
    assert_eq!(world.run_state("a"), RunState::Started);
}

/// A batch in which nothing is due can not be late: its dates are not moved by any sleep.
#[test]
fn a_clock_gap_moves_no_date() {
    let date = World::empty().now.wall + hours(2);
    let plan = batch().set(|settings| settings.until = Some(date));
    let mut world = World::start(patient(plan.task("a")));
    world.begin("a");
    world.skip(hours(3));
    world.tick();
    assert_eq!(world.batch_at(), (BatchState::Stopping, BatchReason::Until));
}

/// Sleep is no running time of the batch.
#[test]
fn a_clock_gap_does_not_count_against_the_wall_limit() {
    let limits = Limits {
        wall: Some(hours(1)),
        ..Limits::default()
    };
    let plan = batch().set(|settings| settings.limits = limits);
    let mut world = World::start(patient(plan.task("a")));
    world.begin("a");
    world.skip(hours(8));
    world.tick();
    world.pass(mins(59));
    assert_eq!(world.batch_at().0, BatchState::Running);
    world.pass(mins(2));
    let reached = BatchReason::Limit(BatchLimit::Wall);
    assert_eq!(world.batch_at(), (BatchState::Paused, reached));
}

// Jumps of the wall clock.

/// Lengths do not hang on the wall clock, whichever way somebody sets it.
#[test]
fn wall_jumps_move_no_length() {
    for jump in [-40 * 3_600_000, 40 * 3_600_000] {
        let mut world = working(batch().tasks(&["a", "b"]));
        world.fail("b", Class::AgentFailed);
        let wait = left(&world, next_check(&world, "b"));
        world.decided();
        world.now.wall = Wall(world.now.wall.0 + jump);
        world.tick();
        assert_eq!(world.decided(), [], "nothing follows from {jump}");
        world.pass(wait - secs(1));
        assert_eq!(world.live(), ["a"]);
        world.pass(secs(1));
        assert_eq!(world.live(), ["a", "b"]);
    }
}

/// Dates follow the wall clock, both ways.
#[test]
fn wall_jumps_move_what_is_a_date() {
    let date = World::empty().now.wall + hours(4);
    let plan = batch().task("a").spec(|spec| spec.not_before = Some(date));
    let mut world = World::start(plan.clone());
    world.now.wall = date;
    world.tick();
    assert_eq!(world.live(), ["a"], "forward");

    let mut world = World::start(plan);
    world.now.wall = Wall(world.now.wall.0 - 3_600_000);
    world.tick();
    world.pass(hours(5) - secs(1));
    assert_eq!(world.state("a"), TaskState::Blocked, "backward");
    world.pass(secs(1));
    assert_eq!(world.live(), ["a"]);
}

/// A reset that the service named is a date, too; one too far away is not believed.
#[test]
fn wall_jumps_reach_a_named_reset() {
    let mut world = working(batch().task("a"));
    let reset = world.now.wall + hours(4);
    let mut result = failed(Class::UsageLimit);
    result.reset_at_ms = Some(reset.0);
    world.ends("a", result.clone());
    assert_eq!(world.facts().accounts[0].until, Some(Deadline::Wall(reset)));
    world.now.wall = reset;
    world.tick();
    assert_eq!(world.account(), AccountState::Probing);

    let mut world = working(batch().task("a"));
    result.reset_at_ms = Some((world.now.wall + hours(24 * 9)).0);
    world.ends("a", result);
    let until = world.facts().accounts[0].until;
    assert!(matches!(until, Some(Deadline::Boot(_))), "{until:?}");
}
