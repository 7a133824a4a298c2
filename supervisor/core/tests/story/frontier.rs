//! Who may start, and when: dependencies, priorities, lanes, `touches`, failures of others.

use super::harness::*;

/// A dependent starts the moment its own dependencies are done, not when its "wave" is.
#[test]
fn frontier_has_no_waves() {
    let plan = batch()
        .tasks(&["quick", "slow"])
        .task("after-quick")
        .after(&["quick"])
        .task("last")
        .after(&["after-quick", "slow"]);
    let mut world = World::start(plan);
    assert_eq!(world.spawns(), ["quick", "slow"]);
    assert_eq!(
        world.at("last"),
        (TaskState::Blocked, TaskReason::Dependencies)
    );

    world.succeed("quick");
    assert_eq!(world.spawns(), ["after-quick"], "slow still runs");
    world.succeed("after-quick");
    assert!(world.spawns().is_empty());
    world.succeed("slow");
    assert_eq!(world.spawns(), ["last"]);
    world.succeed("last");
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// The order of the plan says nothing about dependencies: they may point forward.
#[test]
fn dependencies_may_point_forward() {
    let plan = batch().task("second").after(&["first"]).task("first");
    let mut world = World::start(plan);
    assert_eq!(world.spawns(), ["first"]);
    world.succeed("first");
    assert_eq!(world.spawns(), ["second"]);
}

#[test]
fn higher_priority_starts_first_then_the_order_of_the_plan() {
    let plan = batch()
        .lanes(1)
        .tasks(&["a", "b"])
        .task("urgent")
        .spec(|spec| spec.priority = 5)
        .task("someday")
        .spec(|spec| spec.priority = -5)
        .task("c");
    let mut world = World::start(plan);
    let mut order = Vec::new();
    while let [next] = &world.spawns()[..] {
        order.push(next.clone());
        world.succeed(next);
    }
    assert_eq!(order, ["urgent", "a", "b", "c", "someday"]);
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A more urgent task that becomes ready later overtakes what waits for a lane, not what runs.
#[test]
fn priority_overtakes_waiting_tasks_only() {
    let plan = batch()
        .lanes(1)
        .tasks(&["a", "b"])
        .task("urgent")
        .spec(|spec| spec.priority = 1)
        .after(&["a"]);
    let mut world = World::start(plan);
    assert_eq!(world.live(), ["a"]);
    world.succeed("a");
    assert_eq!(world.live(), ["urgent"]);
    assert_eq!(world.at("b"), (TaskState::Ready, TaskReason::Lane));
}

#[test]
fn concurrency_of_the_batch_bounds_live_attempts() {
    let names = ["a", "b", "c", "d", "e"];
    let mut world = World::start(batch().lanes(2).tasks(&names));
    assert_eq!(world.live(), ["a", "b"]);
    world.succeed("b");
    assert_eq!(world.live(), ["a", "c"]);
    let lines = world.op_lines(OperatorCommand::SetConcurrency(4));
    assert_eq!(lines, ["concurrency is 4"]);
    assert_eq!(
        world.live(),
        ["a", "c", "d", "e"],
        "the new lanes are filled at once"
    );
}

/// Fewer lanes end nobody: the next one starts when enough have ended.
#[test]
fn concurrency_lowered_live_ends_nobody() {
    let mut world = World::start(batch().lanes(3).tasks(&["a", "b", "c", "d"]));
    let lines = world.op_lines(OperatorCommand::SetConcurrency(0));
    assert_eq!(
        lines,
        ["concurrency is 1"],
        "at least one lane, or nothing would ever move"
    );
    assert_eq!(world.live(), ["a", "b", "c"]);
    world.succeed("a");
    world.succeed("b");
    assert_eq!(world.live(), ["c"]);
    world.succeed("c");
    assert_eq!(world.live(), ["d"]);
}

#[test]
fn concurrency_of_an_agent_leaves_lanes_to_others() {
    let plan = batch()
        .agent("narrow", "main", |agent| agent.concurrency = Some(1))
        .task("n1")
        .by("narrow")
        .task("n2")
        .by("narrow")
        .tasks(&["w1", "w2"]);
    let mut world = World::start(plan);
    assert_eq!(world.live(), ["n1", "w1", "w2"]);
    world.succeed("w1");
    assert_eq!(world.live(), ["n1", "w2"], "a free lane is not enough");
    world.succeed("n1");
    assert_eq!(world.live(), ["n2", "w2"]);
}

#[test]
fn concurrency_of_an_account_is_shared_by_its_agents() {
    let plan = batch()
        .account("shared", |account| account.concurrency = Some(2))
        .agent("x", "shared", |_| {})
        .agent("y", "shared", |_| {})
        .task("x1")
        .by("x")
        .task("y1")
        .by("y")
        .task("x2")
        .by("x")
        .task("free");
    let mut world = World::start(plan);
    assert_eq!(world.live(), ["x1", "y1", "free"]);
    world.succeed("y1");
    assert_eq!(world.live(), ["x1", "x2", "free"]);
}

/// `SUPERVISOR_SLOT` is 0 to concurrency - 1, and no two live attempts share one.
#[test]
fn lanes_reuse_the_lowest_free_slot() {
    let mut world = World::start(batch().lanes(3).tasks(&["a", "b", "c", "d", "e"]));
    let slots = |world: &World, names: &[&str]| -> Vec<u32> {
        names.iter().map(|name| world.attempt(name).slot).collect()
    };
    assert_eq!(slots(&world, &["a", "b", "c"]), [0, 1, 2]);
    world.succeed("b");
    assert_eq!(world.attempt("d").slot, 1);
    world.succeed("a");
    assert_eq!(world.attempt("e").slot, 0);
}

#[test]
fn touches_exclude_each_other_until_the_holder_ends() {
    let plan = batch()
        .task("parser")
        .touches(&["src/parser/**"])
        .task("tree")
        .touches(&["src/parser/tree.rs", "docs/**"])
        .task("lexer")
        .touches(&["src/lexer/**"])
        .task("free");
    let mut world = World::start(plan);
    assert_eq!(world.live(), ["parser", "lexer", "free"]);
    let holder = world.ix("parser");
    assert_eq!(
        world.at("tree"),
        (TaskState::Blocked, TaskReason::Touches(holder))
    );
    world.succeed("lexer");
    assert_eq!(
        world.live(),
        ["parser", "free"],
        "another holder's end changes nothing"
    );
    world.succeed("parser");
    assert_eq!(world.live(), ["tree", "free"]);
}

/// A holder that waits for its backoff holds nothing: whoever waited goes first.
#[test]
fn touches_are_released_by_every_end_of_an_attempt() {
    let plan = || {
        batch()
            .task("one")
            .touches(&["a/**"])
            .task("two")
            .touches(&["a/b"])
    };
    let mut failed = World::start(plan());
    failed.fail("one", Class::AgentFailed);
    assert_eq!(failed.live(), ["two"], "a backoff");

    let mut limited = World::start(plan());
    limited.begin("one");
    limited.pause("one", true);
    limited.exited("one", Exit::Code(0));
    assert_eq!(limited.live(), ["two"], "a hold");
    assert_eq!(limited.resume("one"), "one: goes on");
    let holder = limited.ix("two");
    assert_eq!(
        limited.reason("one"),
        TaskReason::Touches(holder),
        "and now it waits itself"
    );

    let mut cancelled = World::start(plan());
    cancelled.begin("one");
    cancelled.cancel("one");
    cancelled.exited("one", Exit::Code(0));
    assert_eq!(cancelled.live(), ["two"], "an end");
}

/// A run that could not be judged may still write: its files stay taken.
#[test]
fn touches_stay_with_an_unresolved_run() {
    let plan = batch()
        .task("one")
        .touches(&["a"])
        .task("two")
        .touches(&["a"]);
    let mut world = World::start(plan);
    world.begin("one");
    world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
    assert_eq!(
        world.at("one"),
        (TaskState::Paused, TaskReason::Unresolved(Letter::G))
    );
    assert_eq!(world.state("two"), TaskState::Blocked);
}

#[test]
fn condition_finished_takes_any_end() {
    let ends: [(&str, TaskState); 3] = [
        ("done", TaskState::Done),
        ("failed", TaskState::Failed),
        ("cancelled", TaskState::Cancelled),
    ];
    for (how, state) in ends {
        let plan = batch()
            .task("first")
            .spec(|spec| spec.attempts = 1)
            .task("cleanup")
            .after_end(&["first"]);
        let mut world = World::start(plan);
        match how {
            "done" => world.succeed("first"),
            "failed" => world.fail("first", Class::AgentFailed),
            _ => {
                world.begin("first");
                world.cancel("first");
                world.exited("first", Exit::Signal(15));
            }
        }
        assert_eq!(world.state("first"), state);
        assert_eq!(world.live(), ["cleanup"], "after {how}");
    }
}

#[test]
fn condition_finished_takes_a_skipped_task_too() {
    let plan = batch()
        .task("root")
        .spec(|spec| spec.attempts = 1)
        .task("middle")
        .after(&["root"])
        .task("cleanup")
        .after_end(&["middle"]);
    let mut world = World::start(plan);
    world.fail("root", Class::AgentFailed);
    assert_eq!(world.state("middle"), TaskState::Skipped);
    assert_eq!(world.live(), ["cleanup"]);
}

/// Skipping goes through to the last dependent, and each says which dependency it was.
#[test]
fn skip_cascades_with_the_nearest_reason() {
    let plan = batch()
        .task("root")
        .spec(|spec| spec.attempts = 1)
        .task("child")
        .after(&["root"])
        .task("grandchild")
        .after(&["child"])
        .task("cousin")
        .after(&["root", "other"])
        .task("other");
    let mut world = World::start(plan);
    world.fail("root", Class::AgentFailed);
    let root = world.ix("root");
    let child = world.ix("child");
    assert_eq!(
        world.at("child"),
        (TaskState::Skipped, TaskReason::DependencyFailed(root))
    );
    assert_eq!(
        world.at("grandchild"),
        (TaskState::Skipped, TaskReason::DependencyFailed(child))
    );
    assert_eq!(
        world.at("cousin"),
        (TaskState::Skipped, TaskReason::DependencyFailed(root))
    );
    assert_eq!(world.live(), ["other"], "what does not depend goes on");
    world.succeed("other");
    assert_eq!(world.ending(), Some(Ending::Failed));
}

/// A diamond: the last task is told twice and skipped once.
#[test]
fn skip_reaches_a_diamond_once() {
    let plan = batch()
        .task("top")
        .spec(|spec| spec.attempts = 1)
        .task("left")
        .after(&["top"])
        .task("right")
        .after(&["top"])
        .task("bottom")
        .after(&["left", "right"]);
    let mut world = World::start(plan);
    world.fail("top", Class::AgentFailed);
    let bottom = world.ix("bottom");
    let steps = world.changes.iter().filter(|change| match change {
        Change::Task(ix, edge) => *ix == bottom && edge.to == "skipped",
        _ => false,
    });
    assert_eq!(steps.count(), 1);
}

#[test]
fn on_failure_stop_lets_live_tasks_finish_and_skips_the_rest() {
    let plan = batch()
        .lanes(2)
        .set(|settings| settings.on_failure = OnFailure::Stop)
        .tasks(&["bad", "good", "never"])
        .every(|spec| spec.attempts = 1);
    let mut world = World::start(plan);
    world.begin("good");
    world.fail("bad", Class::AgentFailed);
    let bad = world.ix("bad");
    assert_eq!(
        world.batch_at(),
        (BatchState::Stopping, BatchReason::TaskFailed(bad))
    );
    assert_eq!(world.live(), ["good"], "nothing new starts");
    assert_eq!(world.ending(), None);
    world.ends("good", ok());
    assert_eq!(world.state("good"), TaskState::Done);
    assert_eq!(
        world.at("never"),
        (TaskState::Skipped, TaskReason::BatchStopped)
    );
    assert_eq!(world.batch_at(), (BatchState::Failed, BatchReason::Settled));
    assert_eq!(world.ending(), Some(Ending::Failed));
}

/// What finishes during the stop is proven, too: its proof is no new attempt.
#[test]
fn on_failure_stop_still_proves_what_was_done() {
    let plan = batch()
        .set(|settings| settings.on_failure = OnFailure::Stop)
        .tasks(&["bad", "good"])
        .verified()
        .every(|spec| spec.attempts = 1);
    let mut world = World::start(plan);
    world.begin("good");
    world.fail("bad", Class::AgentFailed);
    world.ends("good", ok());
    assert_eq!(world.state("good"), TaskState::Verifying);
    world.succeed("good");
    assert_eq!(
        world.states(&["bad", "good"]),
        [TaskState::Failed, TaskState::Done]
    );
    assert_eq!(world.ending(), Some(Ending::Failed));
}

#[test]
fn on_failure_continue_runs_dependents_as_if_done() {
    let plan = batch()
        .set(|settings| settings.on_failure = OnFailure::Continue)
        .task("bad")
        .spec(|spec| spec.attempts = 1)
        .task("next")
        .after(&["bad"]);
    let mut world = World::start(plan);
    world.fail("bad", Class::AgentFailed);
    assert_eq!(world.live(), ["next"]);
    world.succeed("next");
    assert_eq!(
        world.batch_at(),
        (BatchState::Failed, BatchReason::Settled),
        "and says so"
    );
}

/// One more failure than allowed stops the batch; exactly as many do not.
#[test]
fn max_failures_counts_and_percents() {
    let cases = [
        (MaxFailures::Count(0), 1),
        (MaxFailures::Count(1), 2),
        (MaxFailures::Percent(0), 1),
        (MaxFailures::Percent(20), 3),
        (MaxFailures::Percent(25), 3),
        (MaxFailures::Percent(30), 4),
    ];
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    for (max, stops_at) in cases {
        let plan = batch()
            .lanes(1)
            .set(|settings| settings.max_failures = Some(max))
            .tasks(&names)
            .every(|spec| spec.attempts = 1);
        let mut world = World::start(plan);
        for name in &names[..stops_at] {
            assert_eq!(
                world.batch_at().0,
                BatchState::Running,
                "{max:?} before {name}"
            );
            world.fail(name, Class::AgentFailed);
        }
        assert_eq!(
            world.batch_at(),
            (BatchState::Failed, BatchReason::Settled),
            "{max:?}"
        );
        let stopped = world.changes.iter().any(|change| match change {
            Change::Batch(edge) => edge.to == "stopping",
            _ => false,
        });
        assert!(stopped, "{max:?} stops at failure {stops_at}");
        assert_eq!(
            world.at("j"),
            (TaskState::Skipped, TaskReason::BatchStopped)
        );
    }
}

/// Failures that were retried and went well are no failures.
#[test]
fn max_failures_counts_tasks_not_attempts() {
    let plan = batch()
        .set(|settings| settings.max_failures = Some(MaxFailures::Count(0)))
        .task("a");
    let mut world = World::start(plan);
    world.fail_and_wait("a", Class::AgentFailed);
    world.fail_and_wait("a", Class::AgentFailed);
    world.succeed("a");
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn only_leaves_the_rest_out_and_its_dependencies_count_as_met() {
    let plan = batch()
        .task("setup")
        .task("wanted")
        .after(&["setup"])
        .task("later")
        .after(&["wanted"])
        .only(&["wanted"]);
    let mut world = World::start(plan);
    assert_eq!(world.live(), ["wanted"]);
    assert_eq!(
        world.at("setup"),
        (TaskState::Skipped, TaskReason::NotSelected)
    );
    assert_eq!(
        world.at("later"),
        (TaskState::Skipped, TaskReason::NotSelected)
    );
    world.succeed("wanted");
    assert_eq!(
        world.batch_at().0,
        BatchState::Done,
        "left out on purpose is not failed"
    );
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn not_before_of_a_task_blocks_it_until_that_date() {
    let date = World::empty().now.wall + hours(3);
    let plan = batch()
        .task("later")
        .spec(|spec| spec.not_before = Some(date));
    let mut world = World::start(plan);
    assert_eq!(
        world.at("later"),
        (TaskState::Blocked, TaskReason::NotBefore)
    );
    assert_eq!(world.task("later").next_check, Some(Deadline::Wall(date)));
    assert_eq!(world.ending(), None, "time alone will move it");
    world.pass(hours(3) - secs(1));
    assert_eq!(world.state("later"), TaskState::Blocked);
    world.pass(secs(1));
    assert_eq!(world.live(), ["later"]);
}

/// The date counts from when the dependencies are met; one that has passed holds nobody.
#[test]
fn not_before_in_the_past_holds_nobody() {
    let date = World::empty().now.wall + mins(1);
    let plan = batch()
        .task("first")
        .task("second")
        .after(&["first"])
        .spec(|spec| spec.not_before = Some(date));
    let mut world = World::start(plan);
    assert_eq!(world.reason("second"), TaskReason::Dependencies);
    world.pass(mins(2));
    world.succeed("first");
    assert_eq!(world.live(), ["second"]);
}

/// An empty plan has nothing left to do.
#[test]
fn an_empty_batch_is_done() {
    let world = World::start(batch());
    assert_eq!(world.ending(), Some(Ending::Done));
    assert_eq!(world.batch_at(), (BatchState::Done, BatchReason::Settled));
}
