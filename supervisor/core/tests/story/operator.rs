//! What an operator wants: each command, each state in which it is refused, and what is said.

use super::harness::*;

fn working(plan: PlanBuilder) -> World {
    let mut world = World::start(plan);
    world.begin("a");
    world
}

/// The host ends because it was told to, without a result.
fn obeys(world: &mut World, name: &str) {
    world.exited(name, supervisor_core::identity::Exit::Signal(15));
}

fn told_to_stop(world: &mut World) -> Vec<(Generation, Duration)> {
    let news = world.news();
    let stops = news.iter().filter_map(|effect| match effect {
        Effect::StopHost { generation, grace } => Some((*generation, *grace)),
        _ => None,
    });
    stops.collect()
}

fn killed(world: &mut World) -> Vec<Generation> {
    let news = world.news();
    let kills = news.iter().filter_map(|effect| match effect {
        Effect::KillHost { generation } => Some(*generation),
        _ => None,
    });
    kills.collect()
}

// Pause and resume of the batch.

#[test]
fn pause_of_the_batch_lets_live_attempts_finish() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b"]));
    let pause = OperatorCommand::Pause {
        tasks: None,
        now: false,
    };
    assert_eq!(
        world.op_lines(pause.clone()),
        ["the batch is paused until `resume`"]
    );
    assert!(told_to_stop(&mut world).is_empty());
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.at("b"), (TaskState::Ready, TaskReason::Lane));
    assert_eq!(world.ending(), None, "the operator is there and will say");
    assert_eq!(
        world.batch_at(),
        (BatchState::Paused, BatchReason::Operator)
    );
    assert_eq!(world.op_lines(pause).len(), 1, "twice is as once");
    assert_eq!(world.resume_all(), ["the batch goes on"]);
    assert_eq!(world.live(), ["b"]);
}

/// Proofs spend nothing: a paused batch still makes them.
#[test]
fn pause_of_the_batch_still_proves() {
    let mut world = working(batch().task("a").verified());
    let tasks = None;
    world.op_lines(OperatorCommand::Pause { tasks, now: false });
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Verifying);
    world.succeed("a");
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn pause_now_stops_what_runs_and_resume_goes_on_with_it() {
    let mut world = working(batch().tasks(&["a", "b"]));
    let runs = [world.run("a"), world.run("b")];
    world.news();
    let tasks = None;
    world.op_lines(OperatorCommand::Pause { tasks, now: true });
    let stopped: Vec<Generation> = told_to_stop(&mut world).iter().map(|it| it.0).collect();
    assert_eq!(stopped, runs, "a host that is still on its way, too");
    world.spawned("b");
    assert_eq!(killed(&mut world), [runs[1]], "it never gets a `start`");
    obeys(&mut world, "a");
    obeys(&mut world, "b");
    assert_eq!(world.outcome("a"), (Some(Class::Cancelled), 0));
    assert_eq!(world.live(), [""; 0]);
    world.pass(hours(5));
    assert_eq!(world.live(), [""; 0], "time alone does not undo a pause");
    world.resume_all();
    assert_eq!(world.live(), ["a", "b"]);
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
    assert_eq!(world.attempt("a").no, AttemptNo(2));
    assert_eq!(world.attempt("b").mode, RetryMode::NewSession);
}

#[test]
fn pause_of_a_batch_that_is_over_is_refused() {
    let mut world = World::start(batch().task("a"));
    world.succeed("a");
    let tasks = None;
    let lines = world.op_lines(OperatorCommand::Pause { tasks, now: false });
    assert_eq!(lines, ["the batch is done: nothing to pause"]);
    assert_eq!(world.batch_at().0, BatchState::Done);
    assert_eq!(world.resume_all(), ["nothing was paused"]);
}

#[test]
fn pause_of_a_batch_that_stops_is_refused() {
    let mut world = working(batch().task("a"));
    world.stop(StopStage::Drain);
    let tasks = None;
    let lines = world.op_lines(OperatorCommand::Pause { tasks, now: true });
    assert_eq!(lines, ["the batch is stopping: nothing to pause"]);
    assert!(told_to_stop(&mut world).is_empty());
}

/// One `resume` for everything that waits for the operator: batch, accounts, tasks.
#[test]
fn resume_of_the_batch_opens_accounts_and_tasks_too() {
    let mut world = World::start(batch().lanes(3).tasks(&["a", "b", "c"]));
    world.fail("a", Class::Auth);
    world.begin("b");
    world.kill("b", secs(1));
    obeys(&mut world, "b");
    world.pause("c", false);
    let tasks = None;
    world.op_lines(OperatorCommand::Pause { tasks, now: false });
    world.spawned("c");
    let said = world.resume_all();
    assert_eq!(
        said,
        [
            "the batch goes on",
            "account main is open again",
            "b: goes on"
        ],
        "`a` was released with its account"
    );
    assert_eq!(world.live(), ["a", "b", "c"]);
    assert_eq!(world.account(), AccountState::Open);
}

// Pause and resume of a task.

#[test]
fn pause_of_a_waiting_task_keeps_it_out_of_lanes() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b", "c"]));
    assert_eq!(world.pause("b", false), "b: paused until `resume`");
    assert_eq!(world.at("b"), (TaskState::Paused, TaskReason::Operator));
    assert_eq!(world.pause("b", false), "b: is paused already");
    world.ends("a", ok());
    assert_eq!(world.live(), ["c"]);
    assert_eq!(world.resume("b"), "b: goes on");
    assert_eq!(world.at("b"), (TaskState::Ready, TaskReason::Lane));
    assert_eq!(world.resume("b"), "b: is not paused");
    world.succeed("c");
    assert_eq!(world.live(), ["b"]);
}

/// A held task whose dependencies are not met waits for them again, not for a lane.
#[test]
fn resume_of_a_blocked_task_sends_it_back_to_its_dependencies() {
    let mut world = working(batch().task("a").task("b").after(&["a"]));
    world.pause("b", false);
    assert_eq!(world.resume("b"), "b: goes on");
    assert_eq!(
        world.at("b"),
        (TaskState::Blocked, TaskReason::Dependencies)
    );
    world.pause("b", true);
    world.ends("a", ok());
    assert_eq!(world.state("b"), TaskState::Paused, "done or not");
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    world.resume_all();
    assert_eq!(world.live(), ["b"]);
}

/// A task that is held skips with its hopeless dependency: nothing to resume.
#[test]
fn a_paused_task_is_skipped_when_its_dependency_fails() {
    let mut world = working(batch().task("a").task("b").after(&["a"]));
    world.pause("b", false);
    world.cancel("a");
    obeys(&mut world, "a");
    assert_eq!(world.state("b"), TaskState::Skipped);
    assert_eq!(world.resume("b"), "b: is over; `retry` opens it again");
    assert_eq!(world.pause("b", false), "b: is over already");
}

/// A hold during an attempt: the attempt goes on, whatever would follow it waits.
#[test]
fn hold_during_an_attempt_waits_for_its_end() {
    let mut world = working(batch().task("a"));
    assert_eq!(world.pause("a", false), "a: paused after its attempt");
    assert_eq!(world.state("a"), TaskState::Running);
    assert!(world.task("a").hold);
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Operator));
    assert_eq!(world.outcome("a"), (Some(Class::AgentFailed), 1));
    world.pass(hours(3));
    assert_eq!(world.state("a"), TaskState::Paused, "no backoff ends it");
    assert_eq!(world.resume("a"), "a: goes on");
    assert!(!world.task("a").hold);
    world.resume_all();
    assert_eq!(world.live(), ["a"]);
}

#[test]
fn hold_does_not_undo_an_end() {
    let mut world = working(batch().task("a"));
    world.pause("a", false);
    world.ends("a", ok());
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
    assert!(!world.task("a").hold);
}

#[test]
fn hold_is_taken_back_by_resume() {
    let mut world = working(batch().task("a"));
    assert_eq!(world.resume("a"), "a: runs already");
    world.pause("a", false);
    assert_eq!(world.resume("a"), "a: goes on after its attempt");
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.state("a"), TaskState::Ready);
}

/// The hold of the operator outlives the reset of an account.
#[test]
fn hold_outweighs_an_account_limit() {
    let mut world = working(batch().tasks(&["a", "b"]));
    world.pause("a", false);
    world.ends("a", failed(Class::UsageLimit));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Operator));
    world.succeed("b");
    world.pass(hours(2));
    assert_eq!(world.state("a"), TaskState::Paused);
}

#[test]
fn hold_survives_a_crash() {
    let mut world = working(batch().task("a"));
    world.pause("a", false);
    world.crash_and_lose();
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Operator));
}

#[test]
fn pause_now_stops_one_task() {
    let mut world = working(batch().tasks(&["a", "b"]));
    let run = world.run("a");
    world.news();
    assert_eq!(world.pause("a", true), "a: stopping; paused until `resume`");
    assert_eq!(told_to_stop(&mut world), [(run, secs(10))]);
    obeys(&mut world, "a");
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Operator));
    assert_eq!(world.outcome("a"), (Some(Class::Cancelled), 0));
    world.resume("a");
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
}

/// A result that comes after `pause --now` does not count: the operator did not want it.
#[test]
fn pause_now_refuses_a_late_result() {
    let mut world = working(batch().task("a"));
    world.pause("a", true);
    world.ends("a", ok());
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Operator));
}

/// A proof is not work: it ends by itself, and then the task is over or held.
#[test]
fn pause_now_of_a_proof_waits_for_it() {
    let mut world = working(batch().task("a").verified());
    world.ends("a", ok());
    world.begin("a");
    assert_eq!(world.pause("a", true), "a: paused after its attempt");
    assert_eq!(world.state("a"), TaskState::Verifying);
    world.ends("a", failed(Class::VerifyFailed));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Operator));
}

/// An account's hold is not the operator's: a task alone can open a stopped account, not a limited
/// one.
#[test]
fn resume_of_a_task_knows_its_account() {
    let mut world = working(batch().tasks(&["a", "b"]));
    world.ends("a", failed(Class::UsageLimit));
    assert_eq!(world.resume("a"), "a: waits for its account's reset");
    assert_eq!(world.reason("a"), TaskReason::AccountLimited);

    let mut world = working(batch().tasks(&["a", "b"]));
    world.ends("a", failed(Class::Billing));
    assert_eq!(world.reason("a"), TaskReason::AccountStopped);
    assert_eq!(world.resume("a"), "a: goes on with its account");
    assert_eq!(world.live(), ["a", "b"]);
}

// Kill.

#[test]
fn kill_asks_then_forces_and_holds_the_task() {
    let mut world = working(batch().tasks(&["a", "b"]));
    let run = world.run("a");
    world.news();
    let said = world.kill("a", secs(5));
    assert_eq!(said, "a: killed; the task is paused until `resume`");
    assert_eq!(told_to_stop(&mut world), [(run, secs(5))]);
    world.skip(secs(5));
    world.tick();
    assert_eq!(killed(&mut world), [run]);
    obeys(&mut world, "a");
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
    assert_eq!(world.outcome("a"), (Some(Class::Cancelled), 0));
    assert_eq!(world.live(), ["b"]);
    world.resume("a");
    assert_eq!(world.live(), ["a", "b"]);
}

/// No grace: force at once, and again for as long as the host hangs.
#[test]
fn kill_without_grace_repeats_until_the_host_is_gone() {
    let mut world = working(batch().task("a"));
    let run = world.run("a");
    world.news();
    world.kill("a", Duration::ZERO);
    assert_eq!(killed(&mut world), [run]);
    world.pass(secs(61));
    assert_eq!(killed(&mut world).len(), 2);
}

#[test]
fn kill_of_a_task_that_does_not_run() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b"]));
    assert_eq!(world.kill("b", secs(1)), "b: does not run");
    world.ends("a", ok());
    assert_eq!(world.kill("a", secs(1)), "a: is over already");
}

#[test]
fn kill_of_a_proof_ends_the_attempt() {
    let mut world = working(batch().task("a").verified());
    world.ends("a", ok());
    world.begin("a");
    world.kill("a", secs(1));
    obeys(&mut world, "a");
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
}

/// A later, softer wish does not replace an earlier, harder one; a harder one does.
#[test]
fn the_harder_decision_of_the_operator_wins() {
    let mut world = working(batch().task("a"));
    world.cancel("a");
    world.kill("a", secs(1));
    world.pause("a", true);
    obeys(&mut world, "a");
    assert_eq!(world.state("a"), TaskState::Cancelled);

    let mut world = working(batch().task("a"));
    world.stop(StopStage::Stop);
    world.cancel("a");
    obeys(&mut world, "a");
    assert_eq!(world.state("a"), TaskState::Cancelled);
    assert_eq!(world.ending(), Some(Ending::Failed));
}

/// Asked for again without grace, the end comes at once, for the reason that was given first.
#[test]
fn a_second_kill_without_grace_is_force() {
    let mut world = working(batch().task("a"));
    let run = world.run("a");
    world.cancel("a");
    world.news();
    world.kill("a", Duration::ZERO);
    assert_eq!(killed(&mut world), [run]);
    obeys(&mut world, "a");
    assert_eq!(world.state("a"), TaskState::Cancelled);
}

// Cancel.

#[test]
fn cancel_of_a_live_task_stops_it_first() {
    let mut world = working(batch().task("a").task("b").after(&["a"]));
    assert_eq!(world.cancel("a"), "a: stopping; then cancelled");
    assert_eq!(world.state("a"), TaskState::Running);
    world.ends("a", ok());
    let cancelled = (TaskState::Cancelled, TaskReason::CancelledByOperator);
    assert_eq!(world.at("a"), cancelled, "a result that was late");
    let a = world.ix("a");
    assert_eq!(
        world.at("b"),
        (TaskState::Skipped, TaskReason::DependencyFailed(a))
    );
    assert_eq!(world.cancel("a"), "a: is over already");
    assert_eq!(world.batch_at(), (BatchState::Failed, BatchReason::Settled));
}

#[test]
fn cancel_of_waiting_and_held_tasks_is_immediate() {
    let plan = batch().lanes(1).tasks(&["a", "ready", "held"]);
    let mut world = working(plan.task("blocked").after(&["a"]));
    world.pause("held", false);
    for name in ["ready", "held", "blocked"] {
        assert_eq!(world.cancel(name), format!("{name}: cancelled"));
        let cancelled = (TaskState::Cancelled, TaskReason::CancelledByOperator);
        assert_eq!(world.at(name), cancelled);
    }
    assert_eq!(world.live(), ["a"]);
}

#[test]
fn cancel_of_a_task_that_asks_withdraws_the_question() {
    let mut world = working(batch().task("a"));
    let question = world.ask("a", "which one?");
    assert_eq!(world.state("a"), TaskState::Waiting);
    world.cancel("a");
    obeys(&mut world, "a");
    assert_eq!(world.state("a"), TaskState::Cancelled);
    let known = world.facts().questions.get(&question);
    assert!(known.is_none_or(|it| it.state == QuestionState::Withdrawn));
}

/// Between two runs of an attempt there is no host to stop: the attempt itself is closed.
#[test]
fn cancel_of_an_idle_attempt_closes_it() {
    let mut world = working(batch().task("a").verified());
    world.handle(Input::DiskFailed);
    world.ends("a", ok());
    assert_eq!(
        world.state("a"),
        TaskState::Running,
        "no proof without a disk"
    );
    let run = world.run("a");
    assert!(!world.facts().runs.contains_key(&run), "between two runs");
    assert_eq!(world.pause("a", true), "a: paused after its attempt");
    assert_eq!(world.kill("a", secs(1)), "a: does not run");
    assert_eq!(world.cancel("a"), "a: cancelled");
    assert_eq!(world.state("a"), TaskState::Cancelled);
    assert_eq!(world.outcome("a"), (Some(Class::Cancelled), 0));
}

#[test]
fn cancel_of_everything_names_what_was_not_over() {
    let mut world = working(batch().lanes(2).tasks(&["a", "b", "c"]));
    world.succeed("b");
    let lines = world.op_lines(OperatorCommand::Cancel { tasks: None });
    assert_eq!(
        lines,
        ["a: stopping; then cancelled", "c: stopping; then cancelled"]
    );
    world.spawned("c");
    obeys(&mut world, "a");
    obeys(&mut world, "c");
    assert_eq!(world.ending(), Some(Ending::Failed));
    let lines = world.op_lines(OperatorCommand::Cancel { tasks: None });
    assert!(lines.is_empty());
}

// Live concurrency, and names that mean nothing.

#[test]
fn concurrency_survives_a_crash() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b", "c"]));
    world.op_lines(OperatorCommand::SetConcurrency(2));
    assert_eq!(world.live(), ["a", "b"]);
    world.crash_and_lose();
    assert_eq!(world.facts().batch.lanes(), 2);
    assert_eq!(world.live(), ["a", "b"]);
}

/// A task that the plan does not have is passed over, by every command.
#[test]
fn tasks_that_do_not_exist_are_passed_over() {
    let mut world = working(batch().task("a"));
    let nobody = || vec![TaskIx(77)];
    let before = world.journal.len();
    let commands = [
        OperatorCommand::Pause {
            tasks: Some(nobody()),
            now: true,
        },
        OperatorCommand::Resume {
            tasks: Some(nobody()),
        },
        OperatorCommand::Cancel {
            tasks: Some(nobody()),
        },
        OperatorCommand::Kill {
            tasks: nobody(),
            grace: secs(1),
        },
        OperatorCommand::Skip {
            tasks: nobody(),
            as_done: true,
        },
    ];
    for command in commands {
        assert!(world.op_lines(command).is_empty());
    }
    assert_eq!(world.journal.len(), before);
}

// What is refused aloud.

#[test]
fn steer_says_why_not() {
    let plan = batch()
        .agent("plain", "main", |agent| agent.kind = AgentKind::Command)
        .task("a")
        .by("plain")
        .task("b")
        .task("over");
    let mut world = working(plan);
    world.succeed("over");
    let steer = |world: &World, name: &str, mode, text: &str, wait| OperatorCommand::Steer {
        tasks: world.ixs(&[name]),
        mode,
        text: text.into(),
        expires: None,
        wait,
    };
    let long = "x".repeat(64 * 1024 + 1);
    let (soft, hard) = (SteerMode::Boundary, SteerMode::Interrupt);
    let rows = [
        (
            steer(&world, "over", soft, "hi", None),
            "over is done: nobody is there to read a message",
        ),
        (
            steer(&world, "b", soft, "", None),
            "a message has 1 to 65536 bytes, this one 0",
        ),
        (
            steer(&world, "b", soft, &long, None),
            "a message has 1 to 65536 bytes, this one 65537",
        ),
        (
            steer(&world, "a", hard, "hi", None),
            "a is a plain command, which can not be interrupted: use --mode after or restart",
        ),
        (
            steer(&world, "a", soft, "hi", Some(Receipt::Seen)),
            "a is a plain command: `injected` is the most that can be proven",
        ),
    ];
    for (command, text) in rows {
        assert_eq!(world.refused(command).to_string(), text);
    }
    for _ in 0..256 {
        world.steer("b", soft, "hi");
    }
    let one_more = steer(&world, "b", soft, "hi", None);
    assert_eq!(
        world.refused(one_more).to_string(),
        "b has 256 messages that it has not taken yet"
    );
}

#[test]
fn answer_says_why_not() {
    let mut world = working(batch().task("a"));
    let question = world.ask("a", "which one?");
    let answer = |question, text: &str| OperatorCommand::Answer {
        question,
        text: text.into(),
    };
    let nobody = world.refused(answer(QuestionId(77), "yes")).to_string();
    assert!(nobody.starts_with("there is no question "), "{nobody}");
    let long = "x".repeat(64 * 1024 + 1);
    assert_eq!(
        world.refused(answer(question, &long)).to_string(),
        "an answer has at most 65536 bytes"
    );
    let said = world.op_lines(answer(question, "yes"));
    assert_eq!(said, [format!("{question}: answered")]);
    assert_eq!(
        world.refused(answer(question, "no")).to_string(),
        format!("{question} is answered already")
    );
}
