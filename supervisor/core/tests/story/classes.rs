//! The class table of the manual: what a class costs, and what follows it.

use supervisor_core::retry::{
    FREE_RETRIES_MAX, Group, backoff, consumes, default_mode, group, mix, mode,
};

use super::harness::*;

/// What the table says of one class, after the first attempt of a task with three.
struct Row {
    class: Class,
    consumes: bool,
    follows: Follows,
}

/// What follows.
#[derive(Debug, PartialEq)]
enum Follows {
    /// Another attempt after a backoff.
    Backoff(RetryMode),
    /// Another attempt at once.
    AtOnce(RetryMode),
    /// The account waits until its reset, the task with it.
    AccountWaits(RetryMode),
    /// The account waits for the operator, the task with it.
    AccountStops(RetryMode),
    /// The task waits for the operator.
    TaskHeld(RetryMode),
    /// The task's end.
    Ends,
}

use Follows::{AccountStops, AccountWaits, AtOnce, Backoff, Ends, TaskHeld};
use RetryMode::{NewSession, Resume};

const fn row(class: Class, consumes: bool, follows: Follows) -> Row {
    Row {
        class,
        consumes,
        follows,
    }
}

/// design.md section 6, line by line; a class that a result names.
const TABLE: &[Row] = &[
    row(Class::AgentFailed, true, Backoff(Resume)),
    row(Class::Crash, true, Backoff(Resume)),
    row(Class::Oom, true, Backoff(Resume)),
    row(Class::Protocol, true, Backoff(Resume)),
    row(Class::NoResult, true, Backoff(Resume)),
    row(Class::Leftover, true, Backoff(Resume)),
    row(Class::Silence, true, Backoff(NewSession)),
    row(Class::NoProgress, true, Backoff(NewSession)),
    row(Class::Timeout, true, Ends),
    row(Class::Budget, true, Ends),
    row(Class::VerifyFailed, true, Backoff(Resume)),
    row(Class::NoChange, true, Backoff(Resume)),
    row(Class::Rejected, true, Backoff(Resume)),
    row(Class::Overflow, true, Backoff(NewSession)),
    row(Class::UsageLimit, false, AccountWaits(Resume)),
    row(Class::Overload, false, AccountWaits(Resume)),
    row(Class::Network, false, AccountWaits(Resume)),
    row(Class::Auth, false, AccountStops(Resume)),
    row(Class::Billing, false, AccountStops(Resume)),
    row(Class::ModelMissing, false, TaskHeld(Resume)),
    row(Class::Refused, false, TaskHeld(Resume)),
    row(Class::SpawnFailure, false, Backoff(Resume)),
    row(Class::SetupFailed, false, Backoff(Resume)),
    row(Class::Environment, false, Backoff(Resume)),
    row(Class::Disk, false, Backoff(Resume)),
    row(Class::Lost, false, AtOnce(Resume)),
    // What only the operator can choose is no excuse when an agent says it.
    row(Class::Superseded, true, Backoff(Resume)),
    row(Class::Cancelled, true, Backoff(Resume)),
];

fn what_followed(world: &World, name: &str) -> Follows {
    let ended = world
        .journal
        .iter()
        .rev()
        .find_map(|entry| match &entry.record {
            Record::AttemptEnded(ended) => Some(ended.clone()),
            _ => None,
        });
    let ended = ended.expect("an ended attempt");
    match ended.next {
        Next::Retry { mode, at: Some(_) } => {
            assert!(matches!(world.reason(name), TaskReason::Backoff(_)));
            Backoff(mode)
        }
        Next::Retry { mode, at: None } => AtOnce(mode),
        Next::Hold { mode, reason } => match reason {
            TaskReason::AccountLimited => {
                assert_eq!(world.account(), AccountState::Limited);
                AccountWaits(mode)
            }
            TaskReason::AccountStopped => {
                assert_eq!(world.account(), AccountState::Stopped);
                AccountStops(mode)
            }
            TaskReason::NeedsOperator(_) => TaskHeld(mode),
            other => panic!("held because of {other:?}"),
        },
        Next::End { to, reason } => {
            assert_eq!(to, TaskState::Failed);
            assert!(matches!(reason, TaskReason::Failed(_)));
            Ends
        }
    }
}

#[test]
fn every_class_costs_and_leads_to_what_the_table_says() {
    let classes: Vec<Class> = TABLE.iter().map(|row| row.class).collect();
    assert_eq!(
        classes,
        Class::ALL,
        "the table names every class once, in order"
    );
    for row in TABLE {
        let mut world = World::start(batch().task("a"));
        world.fail("a", row.class);
        let class = world.outcome("a").0.expect("a class");
        let chosen = matches!(row.class, Class::Superseded | Class::Cancelled);
        let expected = if chosen {
            Class::AgentFailed
        } else {
            row.class
        };
        assert_eq!(class, expected);
        assert_eq!(
            world.task("a").consumed == 1,
            row.consumes,
            "{} consumes",
            row.class
        );
        assert_eq!(
            what_followed(&world, "a"),
            row.follows,
            "after {}",
            row.class
        );
    }
}

/// The pure table agrees with itself: only work is counted, and only work that cannot get better by
/// trying again ends at once.
#[test]
fn groups_and_modes_are_total_and_agree() {
    for class in Class::ALL {
        assert_eq!(consumes(*class), group(*class) == Group::Work, "{class}");
        let stops = default_mode(*class) == RetryMode::Stop;
        assert_eq!(
            stops,
            matches!(class, Class::Timeout | Class::Budget),
            "{class}"
        );
    }
}

/// A poisoned session would fail for ever: from the second consumed attempt on, a new one.
#[test]
fn crashes_resume_once_and_then_begin_a_new_session() {
    for class in [
        Class::Crash,
        Class::Oom,
        Class::Protocol,
        Class::NoResult,
        Class::Leftover,
    ] {
        let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 4));
        world.fail("a", class);
        assert_eq!(what_followed(&world, "a"), Backoff(Resume), "first {class}");
        world.pass(mins(2));
        assert_eq!(world.attempt("a").mode, Resume);
        world.fail("a", class);
        assert_eq!(
            what_followed(&world, "a"),
            Backoff(NewSession),
            "second {class}"
        );
        world.pass(mins(2));
        assert_eq!(world.attempt("a").mode, NewSession);
    }
}

/// What the batch file says of a class goes before the table, also for a class that would stop.
#[test]
fn by_class_of_the_batch_file_goes_first() {
    let cases = [
        (Class::AgentFailed, RetryMode::Stop, Ends),
        (
            Class::AgentFailed,
            RetryMode::Fresh,
            Backoff(RetryMode::Fresh),
        ),
        (Class::Timeout, Resume, Backoff(Resume)),
        (Class::Crash, NewSession, Backoff(NewSession)),
        (Class::Silence, Resume, Backoff(Resume)),
        (
            Class::UsageLimit,
            RetryMode::Fresh,
            AccountWaits(RetryMode::Fresh),
        ),
    ];
    for (class, mode, follows) in cases {
        let plan = batch().task("a").spec(|spec| {
            spec.retry.by_class.insert(class, mode);
        });
        let mut world = World::start(plan);
        world.fail("a", class);
        assert_eq!(
            what_followed(&world, "a"),
            follows,
            "{class}: {}",
            mode.word()
        );
    }
}

#[test]
fn by_class_holds_for_poisoned_sessions_too() {
    let plan = batch().task("a").spec(|spec| {
        spec.retry.by_class.insert(Class::Crash, Resume);
    });
    let policy = plan.created(1).plan.specs[0].retry.clone();
    assert_eq!(mode(&policy, Class::Crash, 5), Resume);
    assert_eq!(mode(&policy, Class::Oom, 5), NewSession);
}

/// Without a session there is nothing to resume: the record says what really happens.
#[test]
fn resume_without_a_session_is_recorded_as_a_new_session() {
    let mut world = World::start(batch().task("a"));
    world.spawned("a");
    world.greeted("a");
    world.started_with("a", None);
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.task("a").mode, Resume, "what the table says");
    world.pass(mins(2));
    assert_eq!(world.attempt("a").mode, NewSession, "what can be had");
}

/// The session that the result names is newer than the one that `started` named.
#[test]
fn resume_takes_the_last_session() {
    let mut world = World::start(batch().task("a"));
    assert_eq!(
        world.attempt("a").mode,
        RetryMode::Fresh,
        "a first attempt resumes nothing"
    );
    world.begin("a");
    assert_eq!(world.task("a").session.as_deref(), Some("session-1"));
    let result = RunResult {
        session: Some("session-2".to_owned()),
        ..failed(Class::AgentFailed)
    };
    world.ends("a", result);
    world.pass(mins(2));
    assert_eq!(world.attempt("a").mode, Resume);
    assert_eq!(world.task("a").session.as_deref(), Some("session-2"));
}

#[test]
fn attempts_at_most_and_then_failed_with_the_last_class() {
    let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 3));
    world.fail_and_wait("a", Class::Crash);
    world.fail_and_wait("a", Class::AgentFailed);
    world.fail("a", Class::VerifyFailed);
    let reason = TaskReason::Failed(Class::VerifyFailed);
    assert_eq!(world.at("a"), (TaskState::Failed, reason));
    assert_eq!(world.task("a").attempts, AttemptNo(3));
    assert_eq!(world.ending(), Some(Ending::Failed));
}

/// Attempts that cost nothing have numbers, too: the number of an attempt is never used twice.
#[test]
fn free_attempts_are_numbered_and_not_counted() {
    let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 2));
    world.fail_and_wait("a", Class::Environment);
    world.begin("a");
    world.exited("a", Exit::Signal(9));
    world.fail_and_wait("a", Class::AgentFailed);
    assert_eq!(world.attempt("a").no, AttemptNo(4));
    assert_eq!(world.task("a").consumed, 1);
    world.succeed("a");
    assert_eq!(world.state("a"), TaskState::Done);
}

#[test]
fn backoff_doubles_within_its_bounds_and_jitters_by_a_quarter() {
    let (min, max) = (secs(30), mins(10));
    for nth in 1..40 {
        let base = min.saturating_mul(1 << (nth - 1).min(20)).min(max);
        for seed in 0..50 {
            let wait = backoff(min, max, nth, mix(seed));
            assert!(wait >= base - base / 4, "{nth}: {wait:?} too short");
            assert!(
                wait <= (base + base / 4).min(max),
                "{nth}: {wait:?} too long"
            );
        }
    }
    assert_eq!(
        backoff(Duration::ZERO, Duration::ZERO, 9, 1),
        Duration::ZERO
    );
}

#[test]
fn jitter_comes_from_the_seed_alone() {
    let waits = |seed: u64| -> Vec<Duration> {
        (1..10)
            .map(|nth| backoff(secs(30), mins(10), nth, mix(seed ^ u64::from(nth))))
            .collect()
    };
    assert_eq!(waits(3), waits(3));
    assert_ne!(waits(3), waits(4));
    let spread: std::collections::BTreeSet<Duration> = (0..200)
        .map(|seed| backoff(secs(30), mins(10), 1, seed))
        .collect();
    assert!(
        spread.len() > 150,
        "a thousand tasks do not come back at one moment"
    );
}

/// The same batch with the same inputs waits the same; another seed does not.
#[test]
fn backoff_of_a_task_is_replayable() {
    let check = |seed| {
        let mut world = World::seeded(batch().task("a"), seed);
        world.recover(Vec::new());
        world.tick();
        world.fail("a", Class::AgentFailed);
        world.task("a").next_check
    };
    assert_eq!(check(1), check(1));
    assert_ne!(check(1), check(2));
}

/// `next_check` is the promise that status shows: not a moment before it, and then at once.
#[test]
fn backoff_ends_exactly_at_next_check() {
    let mut world = World::start(batch().task("a"));
    world.fail("a", Class::AgentFailed);
    let Some(Deadline::Boot(at)) = world.task("a").next_check else {
        panic!("a backoff is a length");
    };
    let wait = Duration::from_millis(at.0 - world.now.boot.0);
    world.pass(wait - Duration::from_millis(1));
    assert_eq!(
        world.at("a"),
        (TaskState::Ready, TaskReason::Backoff(Class::AgentFailed))
    );
    world.pass(Duration::from_millis(1));
    assert_eq!(world.live(), ["a"]);
}

/// A backoff takes no lane: others work in the meantime.
#[test]
fn backoff_takes_no_lane() {
    let mut world = World::start(batch().lanes(1).tasks(&["a", "b"]));
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.live(), ["b"]);
}

#[test]
fn our_side_is_tried_again_a_bounded_number_of_times() {
    for class in [Class::SetupFailed, Class::Environment, Class::Disk] {
        let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 1));
        let mut attempts = 0;
        while world.state("a") == TaskState::Running {
            world.fail_and_wait("a", class);
            attempts += 1;
        }
        assert_eq!(attempts, FREE_RETRIES_MAX, "{class}");
        assert_eq!(
            world.at("a"),
            (TaskState::Failed, TaskReason::Failed(class))
        );
        assert_eq!(world.task("a").consumed, 0, "and none of them counted");
    }
}

/// Only failures in a row are counted: what got further starts the count anew.
#[test]
fn our_side_is_forgotten_after_real_work() {
    let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 9));
    for _ in 0..FREE_RETRIES_MAX - 1 {
        world.fail_and_wait("a", Class::Environment);
    }
    world.fail_and_wait("a", Class::AgentFailed);
    assert_eq!(world.task("a").free_retries, 0);
    for _ in 0..FREE_RETRIES_MAX - 1 {
        world.fail_and_wait("a", Class::Environment);
    }
    assert_eq!(world.state("a"), TaskState::Running);
}

/// Hosts that can not be started at all are no task's fault: the batch stops.
#[test]
fn spawn_failures_of_everything_stop_the_batch() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut world = World::start(batch().lanes(1).tasks(&names));
    for name in &names[..4] {
        world.spawn_failed(name);
        assert_eq!(world.outcome(name), (Some(Class::SpawnFailure), 0));
        assert_eq!(world.batch_at().0, BatchState::Running);
    }
    world.spawn_failed("e");
    assert_eq!(
        world.batch_at(),
        (BatchState::Interrupted, BatchReason::NothingStarts)
    );
    assert_eq!(world.ending(), Some(Ending::Environment));
    assert_eq!(world.facts().batch.spawn_failures, 5);
}

#[test]
fn spawn_failures_do_not_stop_a_batch_in_which_something_runs() {
    let mut world = World::start(batch().lanes(2).task("works").task("a"));
    world.begin("works");
    for _ in 0..5 {
        world.spawn_failed("a");
        world.pass(mins(11));
    }
    assert_eq!(world.batch_at().0, BatchState::Running);
}

#[test]
fn spawn_failures_are_forgotten_after_a_good_start() {
    let mut world = World::start(batch().lanes(1).tasks(&["a", "b", "c", "d", "e", "f"]));
    for name in ["a", "b", "c", "d"] {
        world.spawn_failed(name);
    }
    world.begin("e");
    assert_eq!(world.facts().batch.spawn_failures, 0);
    world.ends("e", ok());
    world.spawn_failed("f");
    assert_eq!(world.batch_at().0, BatchState::Running);
}

/// After `Environment` the operator repairs the machine and runs the batch again.
#[test]
fn spawn_failures_are_forgotten_by_the_next_supervisor() {
    let mut world = World::start(batch().lanes(1).tasks(&["a", "b", "c", "d", "e", "f"]));
    for name in ["a", "b", "c", "d", "e"] {
        world.spawn_failed(name);
    }
    world.crash();
    world.pass(mins(11));
    world.recover(Vec::new());
    world.tick();
    assert_eq!(
        world.batch_at(),
        (BatchState::Running, BatchReason::Working)
    );
    assert_eq!(world.facts().batch.spawn_failures, 0);
    assert_eq!(world.live(), ["a"]);
}
