//! What follows a failed attempt: the class table, attempts and their count, waits, retry modes.

use std::time::Duration;

use supervisor_core::retry::{
    FREE_RETRIES_MAX, Group, backoff, consumes, default_mode, group, mode,
};

use super::harness::*;

/// What becomes of a task of three attempts after its first one, and of its account.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    at: (TaskState, TaskReason),
    account: AccountState,
    ending: Option<Ending>,
}

const fn waits(class: Class) -> Fate {
    Fate {
        at: (TaskState::Ready, TaskReason::Backoff(class)),
        account: AccountState::Open,
        ending: None,
    }
}

const fn fails(class: Class) -> Fate {
    Fate {
        at: (TaskState::Failed, TaskReason::Failed(class)),
        account: AccountState::Open,
        ending: Some(Ending::Failed),
    }
}

const LIMITED: Fate = Fate {
    at: (TaskState::Paused, TaskReason::AccountLimited),
    account: AccountState::Limited,
    ending: None,
};

const STOPPED: Fate = Fate {
    at: (TaskState::Paused, TaskReason::AccountStopped),
    account: AccountState::Stopped,
    ending: Some(Ending::NeedsPerson),
};

const fn needs_operator(class: Class) -> Fate {
    Fate {
        at: (TaskState::Paused, TaskReason::NeedsOperator(class)),
        account: AccountState::Open,
        ending: Some(Ending::NeedsPerson),
    }
}

const RUNS_AGAIN: Fate = Fate {
    at: (TaskState::Running, TaskReason::Working),
    account: AccountState::Open,
    ending: None,
};

/// The manual's table, written down a second time: group, counts, next mode, fate.
fn row(class: Class) -> (Group, bool, RetryMode, Fate) {
    use RetryMode::{NewSession, Resume, Stop};
    match class {
        Class::AgentFailed
        | Class::Crash
        | Class::Oom
        | Class::Protocol
        | Class::NoResult
        | Class::Leftover
        | Class::VerifyFailed
        | Class::NoChange
        | Class::Rejected => (Group::Work, true, Resume, waits(class)),
        Class::Silence | Class::NoProgress | Class::Overflow => {
            (Group::Work, true, NewSession, waits(class))
        }
        Class::Timeout | Class::Budget => (Group::Work, true, Stop, fails(class)),
        Class::UsageLimit | Class::Overload | Class::Network => {
            (Group::Account, false, Resume, LIMITED)
        }
        Class::Auth | Class::Billing => (Group::AccountStop, false, Resume, STOPPED),
        Class::ModelMissing | Class::Refused => {
            (Group::Operator, false, Resume, needs_operator(class))
        }
        Class::SpawnFailure | Class::SetupFailed | Class::Environment | Class::Disk => {
            (Group::OurSide, false, Resume, waits(class))
        }
        Class::Lost => (Group::Lost, false, Resume, RUNS_AGAIN),
        // A host has no say in what the operator chose: its word counts as an ordinary failure.
        Class::Superseded => (Group::Chosen, false, NewSession, waits(Class::AgentFailed)),
        Class::Cancelled => (Group::Chosen, false, Resume, waits(Class::AgentFailed)),
    }
}

fn one() -> PlanBuilder {
    batch().task("a")
}

#[test]
fn every_class_follows_the_table() {
    for &class in Class::ALL {
        let (in_group, counts, begins, fate) = row(class);
        assert_eq!(group(class), in_group, "{class}");
        assert_eq!(consumes(class), counts, "{class}");
        assert_eq!(default_mode(class), begins, "{class}");

        let mut world = World::start(one());
        world.fail("a", class);
        let got = Fate {
            at: world.at("a"),
            account: world.account(),
            ending: world.ending(),
        };
        assert_eq!(got, fate, "{class}");
        let chosen = in_group == Group::Chosen;
        let taken = if chosen { Class::AgentFailed } else { class };
        let expected = (Some(taken), u32::from(counts || chosen));
        assert_eq!(world.outcome("a"), expected, "{class}");
    }
}

/// The next attempt begins as the table says, in the session that the agent named.
#[test]
fn every_class_that_waits_goes_on_in_its_mode() {
    for &class in Class::ALL {
        let (in_group, _, begins, fate) = row(class);
        let by_itself =
            matches!(fate.at.0, TaskState::Ready | TaskState::Running) || fate == LIMITED;
        if !by_itself || in_group == Group::Chosen {
            continue;
        }
        let mut world = World::start(one());
        world.fail_and_wait("a", class);
        let attempt = world.attempt("a");
        assert_eq!(
            (attempt.no, attempt.mode),
            (AttemptNo(2), begins),
            "{class}"
        );
        assert_eq!(world.task("a").session.as_deref(), Some("session-1"));
    }
}

#[test]
fn attempts_are_exhausted_by_what_counts() {
    for attempts in 1..=4 {
        let mut world = World::start(one().spec(|spec| spec.attempts = attempts));
        for no in 1..attempts {
            world.fail_and_wait("a", Class::VerifyFailed);
            let at = (world.state("a"), world.task("a").consumed);
            assert_eq!(at, (TaskState::Running, no));
        }
        world.fail("a", Class::VerifyFailed);
        let failed = TaskReason::Failed(Class::VerifyFailed);
        assert_eq!(world.at("a"), (TaskState::Failed, failed));
        assert_eq!(world.task("a").attempts, AttemptNo(attempts));
        assert_eq!(world.ending(), Some(Ending::Failed));
    }
}

/// What does not count may happen between what does, and takes nothing away.
#[test]
fn free_failures_leave_the_attempts_alone() {
    let mut world = World::start(one().spec(|spec| spec.attempts = 2));
    for class in [
        Class::SetupFailed,
        Class::Lost,
        Class::AgentFailed,
        Class::Disk,
        Class::Overload,
    ] {
        world.fail_and_wait("a", class);
    }
    assert_eq!(world.task("a").attempts, AttemptNo(6));
    assert_eq!(world.task("a").consumed, 1);
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Failed);
}

/// A reopened task has all its attempts again, or as many as the operator says.
#[test]
fn reopened_tasks_count_anew() {
    let mut world = World::start(one().spec(|spec| spec.attempts = 1));
    world.fail("a", Class::AgentFailed);
    let command = OperatorCommand::Retry {
        tasks: world.ixs(&["a"]),
        mode: RetryMode::Resume,
        attempts: Some(2),
        note: None,
    };
    world.op_lines(command);
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
    world.fail_and_wait("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Running, "two attempts now");
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.outcome("a"), (Some(Class::AgentFailed), 2));
    assert_eq!(world.task("a").attempts, AttemptNo(3), "numbers go on");
}

/// `retry.by_class` outweighs the table, for every class that is tried again.
#[test]
fn by_class_says_how_the_next_attempt_begins() {
    for &class in Class::ALL {
        let (in_group, ..) = row(class);
        if !matches!(in_group, Group::Work | Group::OurSide | Group::Lost) {
            continue;
        }
        for begins in [RetryMode::Resume, RetryMode::NewSession, RetryMode::Fresh] {
            let plan = one().spec(|spec| spec.retry.by_class = [(class, begins)].into());
            let mut world = World::start(plan);
            world.fail_and_wait("a", class);
            assert_eq!(world.attempt("a").mode, begins, "{class}");
            world.fail_and_wait("a", class);
            assert_eq!(world.attempt("a").mode, begins, "{class} again");
        }
    }
}

/// `stop` in the batch file: the first failure of that class is the last; others are tried again.
#[test]
fn by_class_may_stop() {
    let stop = [(Class::VerifyFailed, RetryMode::Stop)];
    let plan = || one().spec(|spec| spec.retry.by_class = stop.into());
    let mut world = World::start(plan());
    world.fail("a", Class::VerifyFailed);
    assert_eq!(world.state("a"), TaskState::Failed);
    assert_eq!(world.outcome("a"), (Some(Class::VerifyFailed), 1));

    let mut other = World::start(plan());
    other.fail_and_wait("a", Class::AgentFailed);
    assert_eq!(other.state("a"), TaskState::Running);
}

/// Crashes and their like resume once; from the second one that counts the session is suspect.
#[test]
fn crashes_resume_once_and_then_begin_a_new_session() {
    let suspect = [
        Class::Crash,
        Class::Oom,
        Class::Protocol,
        Class::NoResult,
        Class::Leftover,
    ];
    for class in suspect {
        let mut world = World::start(one().spec(|spec| spec.attempts = 4));
        let mut modes = vec![world.attempt("a").mode];
        for _ in 0..3 {
            world.fail_and_wait("a", class);
            modes.push(world.attempt("a").mode);
        }
        use RetryMode::{Fresh, NewSession, Resume};
        assert_eq!(modes, [Fresh, Resume, NewSession, NewSession], "{class}");
    }
    for &class in Class::ALL.iter().filter(|it| !suspect.contains(it)) {
        let policy = &World::start(one()).facts().specs[0].retry.clone();
        assert_eq!(mode(policy, class, 5), default_mode(class), "{class}");
    }
}

/// Without a session there is nothing to resume, and the record says so.
#[test]
fn resume_without_a_session_becomes_a_new_session() {
    let mut world = World::start(one());
    world.spawned("a");
    world.greeted("a");
    world.started_with("a", None);
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.task("a").mode, RetryMode::Resume, "asked for");
    world.pass(mins(2));
    assert_eq!(world.attempt("a").mode, RetryMode::NewSession, "done");

    let session = Some("from-the-result".to_owned());
    let class = failed(Class::AgentFailed);
    world.spawned("a");
    world.greeted("a");
    world.started_with("a", None);
    world.ends("a", RunResult { session, ..class });
    world.pass(mins(5));
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
}

/// What the kernel says of a host that handed over nothing.
#[test]
fn exits_without_a_result_have_their_class() {
    let begun = [
        (Exit::Code(0), Class::NoResult),
        (Exit::Code(3), Class::Crash),
        (Exit::Signal(11), Class::Crash),
        (Exit::Signal(9), Class::Lost),
        (Exit::Unseen, Class::Lost),
    ];
    for (exit, class) in begun {
        let mut world = World::start(one());
        world.begin("a");
        world.exited("a", exit);
        assert_eq!(world.outcome("a").0, Some(class), "{exit:?}");
    }
    for (fault, class) in [
        (None, Class::SpawnFailure),
        (Some(WireFault::Garbage), Class::Protocol),
    ] {
        let mut world = World::start(one());
        world.spawned("a");
        let generation = world.run("a");
        if let Some(fault) = fault {
            world.handle(Input::WireFault { generation, fault });
        }
        world.exited("a", Exit::Code(1));
        assert_eq!(world.outcome("a").0, Some(class), "before the hello");
    }
}

const MIN: Duration = secs(30);
const MAX: Duration = secs(600);

/// Doubling from the minimum, a quarter either way, never over the maximum.
#[test]
fn backoff_doubles_within_its_bounds() {
    for seed in 0..200 {
        for (nth, base) in (1..).zip([30, 60, 120, 240, 480, 600, 600, 600]) {
            let got = backoff(MIN, MAX, nth, seed);
            let base = secs(base);
            assert!(got >= base * 3 / 4, "{nth}: {got:?} with seed {seed}");
            assert!(got <= (base * 5 / 4).min(MAX), "{nth}: {got:?}");
        }
    }
}

/// No count and no length overflows.
#[test]
fn backoff_is_bounded_for_any_count_and_length() {
    for nth in [0, 1, 31, 32, 33, 64, u32::MAX] {
        for max in [Duration::ZERO, secs(1), MAX, hours(1 << 40)] {
            let got = backoff(MIN, max, nth, u64::MAX);
            assert!(got <= max, "{nth}: {got:?}");
            assert!(got >= MIN.min(max) * 3 / 4, "{nth}: {got:?}");
        }
    }
    assert_eq!(
        backoff(Duration::ZERO, Duration::ZERO, 3, 1),
        Duration::ZERO
    );
}

#[test]
fn jitter_comes_from_the_seed_alone() {
    let waits =
        |seed| -> Vec<Duration> { (1..8).map(|nth| backoff(MIN, MAX, nth, seed)).collect() };
    assert_eq!(waits(1), waits(1));
    let different: std::collections::BTreeSet<_> = (0..100).map(waits).collect();
    assert!(different.len() > 90, "{} of 100", different.len());
}

/// The whole wait as a batch lives through it: two runs of one story, and one with another seed.
#[test]
fn waits_of_a_batch_come_from_its_seed() {
    let waits = |seed: u64| -> Vec<Duration> {
        let mut world = World::seeded(one().spec(|spec| spec.attempts = 6), seed);
        world.recover(Vec::new());
        world.tick();
        let mut waits = Vec::new();
        for _ in 0..5 {
            world.fail("a", Class::AgentFailed);
            let Some(Deadline::Boot(at)) = world.task("a").next_check else {
                panic!("{:?}", world.task("a").next_check);
            };
            let wait = Duration::from_millis(at.0 - world.now.boot.0);
            world.pass(wait - Duration::from_millis(1));
            assert_eq!(world.state("a"), TaskState::Ready, "not yet");
            world.pass(Duration::from_millis(1));
            assert_eq!(world.state("a"), TaskState::Running, "now");
            waits.push(wait);
        }
        waits
    };
    assert_eq!(waits(7), waits(7));
    assert_ne!(waits(7), waits(8));
    for (wait, base) in waits(7).into_iter().zip([30, 60, 120, 240, 480]) {
        let base = secs(base);
        assert!(wait >= base * 3 / 4 && wait <= base * 5 / 4, "{wait:?}");
    }
}

/// Tasks that fail together do not all come back together.
#[test]
fn jitter_differs_between_tasks() {
    let mut world = World::start(batch().tasks(&["a", "b", "c", "d"]));
    let mut ends = std::collections::BTreeSet::new();
    for name in ["a", "b", "c", "d"] {
        world.fail(name, Class::AgentFailed);
        ends.insert(world.task(name).next_check);
    }
    assert_eq!(ends.len(), 4);
}

/// Lost again and again: something in the task kills its machine, so it is put aside.
#[test]
fn lost_runs_in_a_row_quarantine() {
    let mut world = World::start(one().set(|settings| settings.lost_max = 3));
    for lost in 1..3 {
        world.begin("a");
        world.crash_and_lose();
        assert_eq!(world.state("a"), TaskState::Running, "again, at once");
        assert_eq!(world.task("a").lost, lost);
    }
    world.begin("a");
    world.crash_and_lose();
    let quarantined = (TaskState::Failed, TaskReason::Quarantined);
    assert_eq!(world.at("a"), quarantined);
    assert_eq!(world.outcome("a"), (Some(Class::Lost), 0), "none counted");
}

/// Any other outcome says that the task can be worked on: the count begins anew.
#[test]
fn another_outcome_resets_the_lost_count() {
    let mut world = World::start(one().set(|settings| settings.lost_max = 3));
    for round in 0..2 {
        for _ in 0..2 {
            world.begin("a");
            world.exited("a", Exit::Signal(9));
        }
        assert_eq!(world.task("a").lost, 2, "round {round}");
        world.fail_and_wait("a", Class::AgentFailed);
        assert_eq!(world.task("a").lost, 0, "round {round}");
    }
    assert_eq!(world.task("a").attempts, AttemptNo(7));
}

/// Our own failures are not the task's, but they do not go on for ever either.
#[test]
fn free_retries_are_bounded() {
    for class in [Class::SetupFailed, Class::Environment, Class::Disk] {
        let mut world = World::start(one().spec(|spec| spec.attempts = 1));
        for _ in 1..FREE_RETRIES_MAX {
            world.fail_and_wait("a", class);
            assert_eq!(world.state("a"), TaskState::Running, "{class}");
        }
        world.fail("a", class);
        assert_eq!(
            world.at("a"),
            (TaskState::Failed, TaskReason::Failed(class))
        );
        assert_eq!(world.outcome("a"), (Some(class), 0));
    }
}

#[test]
fn another_outcome_resets_the_free_retries() {
    let mut world = World::start(one());
    for _ in 1..FREE_RETRIES_MAX {
        world.fail_and_wait("a", Class::SetupFailed);
    }
    world.fail_and_wait("a", Class::AgentFailed);
    for _ in 1..FREE_RETRIES_MAX {
        world.fail_and_wait("a", Class::SetupFailed);
    }
    assert_eq!(world.state("a"), TaskState::Running);
    assert_eq!(world.task("a").free_retries, FREE_RETRIES_MAX - 1);
}

const FIVE: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Five hosts in a row that could not be started, and none that lives: nothing can be expected.
#[test]
fn spawn_failures_in_a_row_stop_the_batch() {
    let mut world = World::start(batch().lanes(5).tasks(&FIVE));
    for name in &FIVE[..4] {
        world.spawn_failed(name);
        assert_eq!(world.batch_at().0, BatchState::Running, "after {name}");
    }
    world.spawn_failed("e");
    let nothing = (BatchState::Interrupted, BatchReason::NothingStarts);
    assert_eq!(world.batch_at(), nothing);
    assert_eq!(world.ending(), Some(Ending::Environment));
    assert_eq!(world.states(&FIVE), [TaskState::Ready; 5], "none is lost");

    world.crash_and_lose();
    assert_eq!(world.batch_at().0, BatchState::Running, "`run` tries again");
    world.pass(mins(2));
    assert_eq!(world.live(), FIVE);
}

/// One task alone reaches the same end by its own retries.
#[test]
fn spawn_failures_of_one_task_stop_the_batch() {
    let mut world = World::start(one());
    for _ in 0..4 {
        world.spawn_failed("a");
        world.pass(mins(10));
    }
    world.spawn_failed("a");
    assert_eq!(world.ending(), Some(Ending::Environment));
}

/// A host that lives proves that hosts can be started.
#[test]
fn spawn_failures_beside_a_living_host_stop_nobody() {
    let mut world = World::start(batch().lanes(6).tasks(&FIVE).task("lives"));
    world.begin("lives");
    for name in FIVE {
        world.spawn_failed(name);
    }
    assert_eq!(world.batch_at().0, BatchState::Running);
}

/// An agent that started in between begins the count anew.
#[test]
fn a_good_start_resets_the_spawn_failures() {
    let mut world = World::start(batch().lanes(6).tasks(&FIVE).task("good"));
    for name in &FIVE[..4] {
        world.spawn_failed(name);
    }
    world.succeed("good");
    world.spawn_failed("e");
    assert_eq!(world.batch_at().0, BatchState::Running);
    assert_eq!(world.facts().batch.spawn_failures, 1);
}
