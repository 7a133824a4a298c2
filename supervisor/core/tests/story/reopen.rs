//! The operator passes tasks over, opens them again, or ends the supervisor.

use super::harness::*;

use supervisor_core::identity::Exit;
use supervisor_core::mailbox::UNSETTLED_MAX;

fn working(plan: PlanBuilder) -> World {
    let mut world = World::start(plan);
    world.begin("a");
    world
}

fn retry_with(
    world: &mut World,
    name: &str,
    mode: RetryMode,
    attempts: Option<u32>,
    note: Option<&str>,
) -> String {
    let command = OperatorCommand::Retry {
        tasks: world.ixs(&[name]),
        mode,
        attempts,
        note: note.map(Into::into),
    };
    world.op_lines(command).remove(0)
}

// Retry.

/// A new epoch: the attempts are counted anew, the numbers go on.
#[test]
fn retry_opens_a_new_epoch() {
    let mut world = working(batch().task("a").spec(|spec| spec.attempts = 1));
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.batch_at().0, BatchState::Failed);
    assert_eq!(world.ending(), Some(Ending::Failed));

    assert_eq!(world.retry("a"), "a: is tried again");
    assert_eq!(
        world.batch_at(),
        (BatchState::Running, BatchReason::Operator)
    );
    let task = world.task("a");
    assert_eq!((task.epoch, task.consumed), (1, 0));
    assert_eq!(world.attempt("a").no, AttemptNo(2), "never used twice");
    assert_eq!(world.attempt("a").mode, RetryMode::Fresh);
    world.succeed("a");
    assert_eq!(world.batch_at().0, BatchState::Done);
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// Whom the failure skipped, and whom that skipped in turn, is looked at again.
#[test]
fn retry_brings_back_skipped_dependents_and_theirs() {
    let plan = batch()
        .task("a")
        .spec(|spec| spec.attempts = 1)
        .task("b")
        .after(&["a"])
        .task("c")
        .after(&["b"])
        .task("chosen")
        .after(&["a"]);
    let mut world = working(plan);
    world.skip_task("chosen", false);
    world.ends("a", failed(Class::AgentFailed));
    let all = ["b", "c", "chosen"];
    assert_eq!(world.states(&all), [TaskState::Skipped; 3]);

    world.retry("a");
    assert_eq!(
        world.states(&all),
        [TaskState::Blocked, TaskState::Blocked, TaskState::Skipped],
        "what the operator skipped stays so"
    );
    assert_eq!(world.task("b").epoch, 0, "it was never tried");
    for name in ["a", "b", "c"] {
        assert_eq!(world.live(), [name]);
        world.succeed(name);
    }
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A dependent of two failed tasks comes back only when both are tried again.
#[test]
fn retry_of_one_of_two_failed_dependencies_is_not_enough() {
    let plan = batch()
        .tasks(&["a", "b"])
        .every(|spec| spec.attempts = 1)
        .task("c")
        .after(&["a", "b"]);
    let mut world = working(plan);
    world.ends("a", failed(Class::AgentFailed));
    world.fail("b", Class::AgentFailed);
    world.retry("a");
    let b = world.ix("b");
    assert_eq!(
        world.at("c"),
        (TaskState::Skipped, TaskReason::DependencyFailed(b))
    );
    world.retry("b");
    assert_eq!(
        world.at("c"),
        (TaskState::Blocked, TaskReason::Dependencies)
    );
    world.succeed("a");
    world.succeed("b");
    assert_eq!(world.live(), ["c"]);
}

/// Every state in which `retry` does not open anything, and what is said.
#[test]
fn retry_says_why_not() {
    let plan = batch()
        .lanes(2)
        .tasks(&["a", "ended", "failing", "held"])
        .task("blocked")
        .after(&["a"]);
    let plan = plan.every(|spec| spec.attempts = 1);
    let mut world = working(plan.task("hopeless").after(&["failing"]));
    world.pause("held", false);
    world.succeed("ended");
    world.fail("failing", Class::AgentFailed);
    let before = world.journal.len();
    let said = [
        ("a", "runs already"),
        ("ended", "is done; a done task is not tried again"),
        ("blocked", "waits already"),
        (
            "hopeless",
            "depends on a task that did not get done: retry that one",
        ),
    ];
    for (name, text) in said {
        assert_eq!(world.retry(name), format!("{name}: {text}"));
    }
    assert_eq!(world.journal.len(), before, "nothing was changed");
    assert_eq!(world.retry("held"), "held: goes on");
    assert_eq!(world.live(), ["a", "held"]);
}

/// `retry` of a task in its backoff ends the wait.
#[test]
fn retry_ends_a_backoff() {
    let mut world = working(batch().task("a"));
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.reason("a"), TaskReason::Backoff(Class::AgentFailed));
    assert_eq!(world.retry("a"), "a: is tried as soon as there is a lane");
    assert_eq!(world.live(), ["a"]);
    assert_eq!(world.task("a").consumed, 1, "the epoch goes on");
    assert_eq!(world.task("a").epoch, 0);
}

#[test]
fn retry_takes_a_number_of_attempts_for_its_epoch() {
    let mut world = working(batch().task("a").spec(|spec| spec.attempts = 1));
    world.ends("a", failed(Class::AgentFailed));
    retry_with(&mut world, "a", RetryMode::Fresh, Some(2), None);
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Ready, "one more is left");
    world.pass(mins(20));
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.at("a").0, TaskState::Failed);

    retry_with(&mut world, "a", RetryMode::Fresh, None, None);
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Failed, "the plan's one again");
    assert_eq!(world.task("a").epoch, 2);
}

/// The mode is the operator's; without a session there is nothing to resume.
#[test]
fn retry_begins_as_the_operator_says() {
    for (mode, session, begins) in [
        (RetryMode::Resume, Some("s"), RetryMode::Resume),
        (RetryMode::Resume, None, RetryMode::NewSession),
        (RetryMode::NewSession, Some("s"), RetryMode::NewSession),
        (RetryMode::Fresh, Some("s"), RetryMode::Fresh),
    ] {
        let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 1));
        world.spawned("a");
        world.greeted("a");
        world.started_with("a", session);
        world.ends("a", failed(Class::AgentFailed));
        retry_with(&mut world, "a", mode, None, None);
        assert_eq!(world.attempt("a").mode, begins, "{mode:?} {session:?}");
    }
}

/// The note goes in with the prompt of the next attempt.
#[test]
fn retry_hands_its_note_to_the_next_attempt() {
    let mut world = working(batch().task("a").spec(|spec| spec.attempts = 1));
    world.ends("a", failed(Class::AgentFailed));
    retry_with(
        &mut world,
        "a",
        RetryMode::Fresh,
        None,
        Some("mind the gap"),
    );
    assert_eq!(&*world.texts()[0], "mind the gap");
    let id = *world.facts().messages.keys().next().expect("a message");
    world.news();
    world.spawned("a");
    world.greeted("a");
    let news = world.news();
    let starts = news
        .iter()
        .any(|effect| matches!(effect, Effect::StartRun { messages, .. } if *messages == [id]));
    assert!(starts, "{news:?}");
}

/// A note to a task that is not tried again has no reader.
#[test]
fn retry_queues_no_note_that_nobody_would_read() {
    let mut world = working(batch().task("a"));
    let note = Some("too early");
    assert_eq!(
        retry_with(&mut world, "a", RetryMode::Fresh, None, note),
        "a: runs already"
    );
    assert!(world.texts().is_empty());
}

/// A note that can not be a message is refused aloud, and the task is not opened without it.
#[test]
fn retry_refuses_a_note_that_is_no_message() {
    let mut world = working(batch().task("a").spec(|spec| spec.attempts = 1));
    world.ends("a", failed(Class::AgentFailed));
    for length in [0, 64 * 1024 + 1] {
        let command = OperatorCommand::Retry {
            tasks: world.ixs(&["a"]),
            mode: RetryMode::Fresh,
            attempts: None,
            note: Some("x".repeat(length).into()),
        };
        assert_eq!(
            world.refused(command).to_string(),
            format!("a message has 1 to 65536 bytes, this one {length}")
        );
    }
    assert_eq!(world.state("a"), TaskState::Failed);
}

/// A note is a message: it counts, and one too many is refused before anything is tried.
#[test]
fn a_note_counts_against_the_limit_of_unsettled_messages() {
    let plan = batch().tasks(&["a", "b"]).every(|spec| spec.attempts = 1);
    let mut world = World::start(plan.lanes(1)).without_checks();
    world.begin("a");
    world.ends("a", failed(Class::AgentFailed));
    world.begin("b");
    world.pause("b", true);
    world.exited("b", Exit::Code(0));
    for _ in 1..UNSETTLED_MAX {
        world.steer("b", SteerMode::After, "more");
    }
    let retry = |world: &World, names: &[&str]| OperatorCommand::Retry {
        tasks: world.ixs(names),
        mode: RetryMode::Fresh,
        attempts: None,
        note: Some("one more".into()),
    };
    let command = retry(&world, &["b"]);
    world.op_lines(command);
    assert_eq!(world.texts().len(), UNSETTLED_MAX);
    let command = retry(&world, &["a", "b"]);
    let why = format!("b has {UNSETTLED_MAX} messages that it has not taken yet");
    assert_eq!(world.refused(command), Refusal::Limit(why.into()));
    assert_eq!(world.state("a"), TaskState::Failed, "one refuses all");
}

/// `retry` lets a paused task go on, and hands it the note all the same.
#[test]
fn a_note_to_a_paused_task_is_not_dropped() {
    let mut world = working(batch().task("a"));
    world.kill("a", secs(1));
    world.exited("a", Exit::Signal(15));
    let note = Some("try the other way");
    let said = retry_with(&mut world, "a", RetryMode::Fresh, None, note);
    assert_eq!(said, "a: goes on");
    assert_eq!(world.texts(), ["try the other way".into()]);
}

/// A task that is named twice is one task.
#[test]
fn a_task_named_twice_is_tried_and_told_once() {
    let mut world = working(batch().task("a").spec(|spec| spec.attempts = 1));
    world.ends("a", failed(Class::AgentFailed));
    let command = OperatorCommand::Retry {
        tasks: world.ixs(&["a", "a"]),
        mode: RetryMode::Fresh,
        attempts: None,
        note: Some("once".into()),
    };
    assert_eq!(world.op_lines(command), ["a: is tried again"]);
    assert_eq!(world.texts().len(), 1);
}

/// Tasks that the batch never tried because it stopped come back with the first that is reopened.
#[test]
fn retry_after_on_failure_stop_brings_back_the_rest() {
    let plan = batch()
        .lanes(1)
        .set(|settings| settings.on_failure = OnFailure::Stop)
        .tasks(&["a", "b", "c"])
        .every(|spec| spec.attempts = 1);
    let mut world = working(plan);
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(
        world.at("c"),
        (TaskState::Skipped, TaskReason::BatchStopped)
    );
    assert_eq!(world.batch_at().0, BatchState::Failed);
    world.retry("a");
    for name in ["a", "b", "c"] {
        assert_eq!(world.live(), [name]);
        world.succeed(name);
    }
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn retry_opens_cancelled_and_skipped_tasks() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b", "c"]));
    world.cancel("b");
    world.skip_task("c", false);
    assert_eq!(world.retry("b"), "b: is tried again");
    assert_eq!(world.retry("c"), "c: is tried again");
    assert_eq!(world.states(&["b", "c"]), [TaskState::Ready; 2]);
}

// Skip.

#[test]
fn skip_passes_a_task_over_and_its_dependents_with_it() {
    let mut world = working(
        batch()
            .tasks(&["a"])
            .task("b")
            .after(&["a"])
            .task("c")
            .after(&["b"]),
    );
    assert_eq!(world.skip_task("b", false), "b: skipped");
    assert_eq!(
        world.at("b"),
        (TaskState::Skipped, TaskReason::SkippedByOperator)
    );
    let b = world.ix("b");
    assert_eq!(
        world.at("c"),
        (TaskState::Skipped, TaskReason::DependencyFailed(b))
    );
    assert_eq!(
        world.skip_task("b", true),
        "b: is over already; `retry` opens it again"
    );
}

/// Skipped on purpose is not failed; skipped without hope is.
#[test]
fn skip_on_purpose_lets_the_batch_be_done() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b"]));
    world.skip_task("b", false);
    world.ends("a", ok());
    assert_eq!(world.batch_at().0, BatchState::Done);

    let mut world = working(
        batch()
            .task("a")
            .task("b")
            .after(&["a"])
            .task("c")
            .after(&["b"]),
    );
    world.skip_task("b", false);
    world.ends("a", ok());
    assert_eq!(world.batch_at().0, BatchState::Failed, "`c` was wanted");
}

#[test]
fn skip_as_done_lets_dependents_go_on() {
    let plan = batch()
        .task("a")
        .task("b")
        .after(&["a"])
        .task("c")
        .after(&["b"]);
    let mut world = working(plan);
    assert_eq!(world.skip_task("b", true), "b: counts as done");
    assert_eq!(world.at("b"), (TaskState::Done, TaskReason::AsDone));
    assert_eq!(world.live(), ["a", "c"]);
    world.ends("a", ok());
    world.succeed("c");
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn skip_of_an_open_attempt_is_refused() {
    let mut world = working(batch().tasks(&["a", "b"]));
    for (name, as_done) in [("a", false), ("a", true), ("b", false)] {
        assert_eq!(
            world.skip_task(name, as_done),
            format!("{name}: has an open attempt: `cancel` or `kill` it first")
        );
    }
    world.kill("a", secs(1));
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.skip_task("a", true), "a: counts as done");
}

// Stop.

#[test]
fn drain_lets_what_runs_finish_and_starts_nothing() {
    let mut world = working(batch().lanes(1).tasks(&["a", "b"]));
    let said = world.stop(StopStage::Drain);
    assert_eq!(said, "draining: what runs may finish, nothing new starts");
    assert_eq!(world.batch_at(), (BatchState::Stopping, BatchReason::Drain));
    world.ends("a", ok());
    assert_eq!(world.state("b"), TaskState::Ready);
    assert_eq!(world.ending(), Some(Ending::Interrupted));
    assert_eq!(
        world.batch_at(),
        (BatchState::Interrupted, BatchReason::Drain)
    );
}

/// What a drain lets finish, it also lets be proven.
#[test]
fn drain_still_proves() {
    let mut world = working(batch().task("a").verified().task("b").after(&["a"]));
    world.stop(StopStage::Drain);
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Verifying);
    assert_eq!(world.ending(), None);
    world.succeed("a");
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.ending(), Some(Ending::Interrupted));
}

/// Each stage is harder than the one before; a softer one later changes nothing.
#[test]
fn stop_stages_escalate_and_never_soften() {
    let mut world = working(batch().task("a"));
    let run = world.run("a");
    world.stop(StopStage::Drain);
    world.news();
    assert_eq!(world.stop(StopStage::Stop), "stopping what runs");
    assert_eq!(world.batch_at(), (BatchState::Stopping, BatchReason::Stop));
    let grace = secs(10);
    let asked = Effect::StopHost {
        generation: run,
        grace,
    };
    assert_eq!(world.news()[0], asked);
    let before = world.journal.len();
    world.stop(StopStage::Drain);
    world.stop(StopStage::Stop);
    assert_eq!(world.batch_at(), (BatchState::Stopping, BatchReason::Stop));
    assert_eq!(world.journal.len(), before, "nothing new was decided");
    world.news();
    assert_eq!(world.stop(StopStage::Kill), "killing what runs");
    assert_eq!(world.news()[0], Effect::KillHost { generation: run });
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.ending(), Some(Ending::Interrupted));
    assert_eq!(world.outcome("a"), (Some(Class::Cancelled), 0));
}

/// Nothing runs, so there is nothing to wait for.
#[test]
fn stop_with_nothing_running_ends_at_once() {
    for stage in [StopStage::Drain, StopStage::Stop, StopStage::Kill] {
        let date = World::empty().now.wall + hours(1);
        let plan = batch().set(|settings| settings.not_before = Some(date));
        let mut world = World::start(plan.task("a"));
        world.stop(stage);
        assert_eq!(world.ending(), Some(Ending::Interrupted), "{stage:?}");
        assert_eq!(world.state("a"), TaskState::Ready);
    }
}

#[test]
fn stop_of_a_batch_that_is_over_is_refused() {
    let mut world = working(batch().task("a"));
    world.ends("a", ok());
    for stage in [StopStage::Drain, StopStage::Stop, StopStage::Kill] {
        assert_eq!(world.stop(stage), "the batch is done already");
    }
    assert_eq!(world.batch_at(), (BatchState::Done, BatchReason::Settled));
}

/// The next supervisor goes on with what was stopped, in the same conversation.
#[test]
fn stop_is_undone_by_the_next_supervisor() {
    let mut world = working(batch().task("a"));
    world.stop(StopStage::Stop);
    world.exited("a", Exit::Code(0));
    assert_eq!(world.batch_at().0, BatchState::Interrupted);
    world.crash_and_lose();
    assert_eq!(
        world.batch_at(),
        (BatchState::Running, BatchReason::Working)
    );
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
    world.succeed("a");
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A proof that a stop interrupts leaves the agent's result where it is; `run` proves it.
#[test]
fn stop_during_a_proof_keeps_the_work() {
    let mut world = working(batch().task("a").verified());
    world.ends("a", ok());
    world.begin("a");
    world.stop(StopStage::Stop);
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.ending(), Some(Ending::Interrupted));
    assert_eq!(world.attempt("a").no, AttemptNo(1), "still open");
    world.crash_and_lose();
    assert_eq!(world.at("a"), (TaskState::Verifying, TaskReason::Proving));
    world.succeed("a");
    assert_eq!(world.task("a").attempts, AttemptNo(1));
    assert_eq!(world.ending(), Some(Ending::Done));
}
