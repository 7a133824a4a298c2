//! Accounts: limited, probed, stopped; what waits for one costs nothing.

use supervisor_core::retry::{ACCOUNT_WAIT_MAX, ACCOUNT_WAIT_MIN};

use super::harness::*;

fn limited_until(reset: Wall) -> RunResult {
    RunResult {
        reset_at_ms: Some(reset.0),
        ..failed(Class::UsageLimit)
    }
}

fn until(world: &World) -> Deadline {
    world.facts().accounts[0]
        .until
        .expect("a limited account waits for something")
}

fn with_rule(rule: AutoResume) -> PlanBuilder {
    batch()
        .account("main", |account| account.auto_resume = rule)
        .tasks(&["a", "b"])
}

#[test]
fn a_named_reset_is_waited_for_to_the_second() {
    let mut world = World::start(batch().task("a"));
    let reset = world.now.wall + hours(5);
    world.begin("a");
    world.ends("a", limited_until(reset));
    assert_eq!(until(&world), Deadline::Wall(reset));
    assert_eq!(
        world.at("a"),
        (TaskState::Paused, TaskReason::AccountLimited)
    );
    assert_eq!(world.ending(), None, "time alone will move it");
    world.pass(hours(5) - secs(1));
    assert_eq!(world.account(), AccountState::Limited);
    world.pass(secs(1));
    assert_eq!(world.account(), AccountState::Probing);
    assert!(world.attempt("a").probe);
    assert_eq!(world.task("a").consumed, 0);
}

/// A reset in the past, or further away than any plan, is a broken clock or unit.
#[test]
fn an_impossible_reset_is_not_believed() {
    let now = World::empty().now.wall;
    for reset in [Wall(0), Wall(now.0 / 1000), now, now + hours(24 * 9)] {
        let mut world = World::start(batch().task("a"));
        world.begin("a");
        world.ends("a", limited_until(reset));
        let Deadline::Boot(at) = until(&world) else {
            panic!("{reset:?} was believed");
        };
        let wait = Duration::from_millis(at.0 - world.now.boot.0);
        assert!(wait >= ACCOUNT_WAIT_MIN - ACCOUNT_WAIT_MIN / 4, "{wait:?}");
        assert!(wait <= ACCOUNT_WAIT_MIN + ACCOUNT_WAIT_MIN / 4, "{wait:?}");
    }
}

#[test]
fn without_a_reset_the_wait_doubles_to_its_bound() {
    let mut world = World::start(batch().task("a"));
    let mut waits = Vec::new();
    for _ in 0..9 {
        world.fail("a", Class::Overload);
        let Deadline::Boot(at) = until(&world) else {
            panic!("no date was named");
        };
        let wait = Duration::from_millis(at.0 - world.now.boot.0);
        waits.push(wait);
        world.pass(wait);
        assert_eq!(world.live(), ["a"]);
    }
    assert!(waits[0] <= ACCOUNT_WAIT_MIN * 5 / 4);
    assert!(waits[2] > waits[0] * 2, "{waits:?}");
    assert!(
        waits.iter().all(|wait| *wait <= ACCOUNT_WAIT_MAX),
        "{waits:?}"
    );
    assert!(waits[8] >= ACCOUNT_WAIT_MAX * 3 / 4, "{waits:?}");
    assert_eq!(world.task("a").consumed, 0, "waiting costs no attempt");
}

/// While an account is limited nothing of it starts, and everything else goes on.
#[test]
fn a_limited_account_holds_its_own_tasks_only() {
    let plan = batch()
        .lanes(2)
        .account("other", |_| {})
        .agent("second", "other", |_| {})
        .tasks(&["a", "b", "c"])
        .task("x")
        .by("second");
    let mut world = World::start(plan);
    world.fail("a", Class::UsageLimit);
    assert_eq!(
        world.live(),
        ["b", "x"],
        "b was live before; x has another account"
    );
    assert_eq!(world.at("c"), (TaskState::Ready, TaskReason::Lane));
    world.succeed("b");
    assert_eq!(world.live(), ["x"], "c waits for the account");
}

#[test]
fn one_attempt_probes_and_the_rest_follows_when_it_works() {
    let mut world = World::start(batch().tasks(&["a", "b", "c"]));
    for name in ["a", "b", "c"] {
        world.fail(name, Class::UsageLimit);
    }
    assert_eq!(
        world.facts().accounts[0].limited,
        1,
        "three voices, one limit"
    );
    world.pass(mins(2));
    assert_eq!(world.account(), AccountState::Probing);
    assert_eq!(world.live(), ["a"], "one probe, not three");
    world.begin("a");
    assert_eq!(world.live(), ["a"], "a start proves nothing yet");
    world.report("a", said("hello"));
    assert_eq!(world.account(), AccountState::Open);
    assert_eq!(
        world.facts().accounts[0].reason,
        Some(AccountReason::ProbeWentWell)
    );
    assert_eq!(world.live(), ["a", "b", "c"]);
}

#[test]
fn a_probe_that_hits_the_limit_waits_again() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.fail("a", Class::UsageLimit);
    world.fail("b", Class::UsageLimit);
    world.pass(mins(2));
    world.fail("a", Class::UsageLimit);
    assert_eq!(world.account(), AccountState::Limited);
    assert_eq!(world.facts().accounts[0].limited, 2);
    assert!(world.live().is_empty());
}

/// A probe that ends some other way still answered the question, if its work was judged.
#[test]
fn a_probe_answers_by_its_end() {
    let cases = [
        (ok(), AccountState::Open),
        (failed(Class::AgentFailed), AccountState::Open),
        (failed(Class::Auth), AccountState::Stopped),
        (failed(Class::Network), AccountState::Limited),
        // Our own side failed: nothing is known, the next one probes.
        (failed(Class::Environment), AccountState::Probing),
        (failed(Class::Lost), AccountState::Probing),
    ];
    for (result, expected) in cases {
        let mut world = World::start(batch().tasks(&["a", "b"]));
        world.fail("a", Class::UsageLimit);
        world.fail("b", Class::UsageLimit);
        world.pass(mins(2));
        assert_eq!(world.live(), ["a"]);
        let class = result.class;
        world.begin("a");
        world.ends("a", result);
        assert_eq!(world.account(), expected, "after {class:?}");
        if expected == AccountState::Probing {
            assert!(world.live().len() == 1, "one probe again");
        }
    }
}

/// Use that the service counts shows that it serves again, long before any result.
#[test]
fn a_usage_report_of_the_probe_opens_the_account() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.fail("a", Class::UsageLimit);
    world.fail("b", Class::UsageLimit);
    world.pass(mins(2));
    world.begin("a");
    world.report("a", Event::Usage(used(10)));
    assert_eq!(world.account(), AccountState::Open);
    assert_eq!(world.live(), ["a", "b"]);
}

/// `ask` and `never`: the account stays stopped, and says so, until the operator comes.
#[test]
fn auto_resume_ask_and_never_wait_for_the_operator() {
    for rule in [AutoResume::Ask, AutoResume::Never] {
        let mut world = World::start(with_rule(rule).lanes(1));
        world.fail("a", Class::UsageLimit);
        assert_eq!(world.account(), AccountState::Stopped);
        assert_eq!(
            world.at("a"),
            (TaskState::Paused, TaskReason::AccountStopped)
        );
        assert_eq!(
            world.batch_at(),
            (BatchState::Paused, BatchReason::NeedsPerson),
            "{rule:?}"
        );
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
        world.pass(hours(48));
        assert!(world.live().is_empty(), "no time opens it");
        let lines = world.resume_all();
        assert!(
            lines.contains(&"account main is open again".to_owned()),
            "{lines:?}"
        );
        assert_eq!(world.account(), AccountState::Open);
        assert_eq!(world.live(), ["a"]);
        assert!(!world.attempt("a").probe, "the operator vouches for it");
    }
}

/// Only a usage limit asks: an overload passes by itself under every rule.
#[test]
fn auto_resume_is_about_usage_limits_only() {
    let mut world = World::start(with_rule(AutoResume::Never));
    world.fail("a", Class::Overload);
    assert_eq!(world.account(), AccountState::Limited);
}

#[test]
fn auth_and_billing_stop_the_account_and_every_task_of_it() {
    for class in [Class::Auth, Class::Billing] {
        let mut world = World::start(batch().lanes(2).tasks(&["a", "b", "c"]));
        world.begin("b");
        world.fail("a", class);
        assert_eq!(world.account(), AccountState::Stopped, "{class}");
        assert_eq!(world.live(), ["b"], "what runs may finish");
        assert_eq!(world.ending(), None);
        world.ends("b", ok());
        assert_eq!(world.state("c"), TaskState::Ready);
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    }
}

/// `resume TASK` of a task that its account holds opens the account, for all its tasks.
#[test]
fn resume_of_one_task_opens_its_stopped_account() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.fail("a", Class::Auth);
    world.fail("b", Class::Auth);
    assert_eq!(world.resume("b"), "b: goes on with its account");
    assert_eq!(world.account(), AccountState::Open);
    world.resume_all();
    assert_eq!(world.live(), ["a", "b"]);
}

/// Impatience does not shorten a service's limit.
#[test]
fn resume_of_a_limited_task_says_what_it_waits_for() {
    let mut world = World::start(batch().task("a"));
    world.fail("a", Class::UsageLimit);
    assert_eq!(world.resume("a"), "a: waits for its account's reset");
    assert_eq!(world.state("a"), TaskState::Paused);
}

/// The limit outlives the supervisor that met it.
#[test]
fn a_limit_survives_a_restart() {
    let mut world = World::start(batch().task("a"));
    let reset = world.now.wall + hours(2);
    world.begin("a");
    world.ends("a", limited_until(reset));
    world.crash();
    world.reboot(mins(30));
    world.recover(Vec::new());
    world.tick();
    assert_eq!(world.account(), AccountState::Limited);
    assert!(world.live().is_empty());
    world.pass(mins(90));
    assert_eq!(world.live(), ["a"]);
}

/// A limit that an older attempt reports while another one probes sends the account back to wait;
/// the probe's good word does not open it then.
#[test]
fn a_late_limit_beats_a_running_probe() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("b");
    world.fail("a", Class::UsageLimit);
    world.pass(mins(2));
    assert_eq!(world.account(), AccountState::Probing);
    world.begin("a");
    world.ends("b", failed(Class::UsageLimit));
    assert_eq!(world.account(), AccountState::Limited);
    world.report("a", said("hello"));
    assert_eq!(world.account(), AccountState::Limited);
    assert_eq!(world.state("b"), TaskState::Paused);
}

/// What the operator held stays held when the account opens: two reasons, both must be gone.
#[test]
fn an_open_account_does_not_release_what_the_operator_paused() {
    for class in [Class::UsageLimit, Class::Auth] {
        let mut world = World::start(batch().tasks(&["a", "b"]));
        world.begin("a");
        assert_eq!(world.pause("a", false), "a: paused after its attempt");
        world.ends("a", failed(class));
        assert_eq!(
            world.at("a"),
            (TaskState::Paused, TaskReason::Operator),
            "{class}"
        );
        world.pass(mins(3));
        assert_eq!(world.state("a"), TaskState::Paused);
        world.fail("b", Class::AgentFailed);
        assert_eq!(world.resume("a"), "a: goes on");
    }
}
