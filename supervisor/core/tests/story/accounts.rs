//! Accounts: a limit holds all who share it, one attempt finds out, and nothing is consumed.

use supervisor_core::facts::Account;
use supervisor_core::retry::{ACCOUNT_WAIT_MAX, ACCOUNT_WAIT_MIN};
use supervisor_core::time::millis;

use crate::harness::*;

const DAY: Duration = hours(24);

fn account<'a>(world: &'a World, name: &str) -> &'a Account {
    let mut accounts = world.facts().accounts.iter();
    accounts
        .find(|it| &*it.spec.name == name)
        .expect("an account of the plan")
}

fn limit(reset: Option<Wall>) -> RunResult {
    RunResult {
        reset_at_ms: reset.map(|at| at.0),
        ..failed(Class::UsageLimit)
    }
}

fn rule(auto_resume: AutoResume) -> PlanBuilder {
    batch().account("main", |account| account.auto_resume = auto_resume)
}

/// `a` hit a limit that ends in an hour; what else there is waits. Answers the reset.
fn limited(names: &[&str]) -> (World, Wall) {
    let mut world = World::start(batch().lanes(1).tasks(names));
    let reset = world.now.wall + hours(1);
    world.begin("a");
    world.ends("a", limit(Some(reset)));
    world.op_lines(OperatorCommand::SetConcurrency(8));
    world.news();
    (world, reset)
}

/// As [`limited`], and the hour is over: the first attempt is under way to find out.
fn probing(names: &[&str]) -> World {
    let (mut world, _) = limited(names);
    world.pass(hours(1));
    world
}

#[test]
fn a_named_reset_is_believed_and_holds_the_account() {
    let (mut world, reset) = limited(&["a", "b"]);
    let main = account(&world, "main");
    assert_eq!(main.state, AccountState::Limited);
    assert_eq!(main.reason, Some(AccountReason::Class(Class::UsageLimit)));
    assert_eq!(main.until, Some(Deadline::Wall(reset)));
    assert_eq!(
        world.at("a"),
        (TaskState::Paused, TaskReason::AccountLimited)
    );
    assert_eq!(world.outcome("a"), (Some(Class::UsageLimit), 0));
    assert_eq!(world.live(), Vec::<String>::new());
    assert_eq!(world.batch_at().0, BatchState::Running, "time will move it");
    world.pass(hours(1) - secs(1));
    assert_eq!(world.live(), Vec::<String>::new());
    world.pass(secs(1));
    assert_eq!(world.account(), AccountState::Probing);
    assert_eq!(world.live(), ["a"]);
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
}

/// A reset in the past or absurdly far away is a mistake of somebody's clock: then the core waits
/// as if none had been named.
#[test]
fn an_absurd_reset_is_not_believed() {
    let far = Duration::from_secs(8 * 24 * 3600);
    let at = |offset: i64| Some(Wall(World::empty().now.wall.0 + offset));
    let far_ms = i64::try_from(millis(far)).unwrap();
    let table = [
        ("none", None, false),
        ("the epoch", Some(Wall(0)), false),
        ("before all time", Some(Wall(i64::MIN)), false),
        ("now", at(0), false),
        ("in a moment", at(1), true),
        ("just under eight days", at(far_ms - 1), true),
        ("eight days", at(far_ms), false),
        ("the end of time", Some(Wall(i64::MAX)), false),
    ];
    for (name, reset, believed) in table {
        let mut world = World::start(batch().task("a"));
        world.begin("a");
        world.ends("a", limit(reset));
        let until = account(&world, "main").until.expect("a date");
        match until {
            Deadline::Wall(at) => assert_eq!((Some(at), true), (reset, believed), "{name}"),
            Deadline::Boot(at) => {
                assert!(!believed, "{name}");
                let wait = at.0 - world.now.boot.0;
                let least = millis(ACCOUNT_WAIT_MIN) * 3 / 4;
                let most = millis(ACCOUNT_WAIT_MIN) * 5 / 4;
                assert!((least..=most).contains(&wait), "{name}: {wait} ms");
            }
        }
    }
}

/// Without a reset each probe that fails doubles the wait, up to the longest; going well forgets.
#[test]
fn the_wait_grows_with_each_probe_that_fails() {
    for class in [Class::UsageLimit, Class::Overload, Class::Network] {
        let mut world = World::start(batch().task("a"));
        for nth in 1..=8_u32 {
            world.fail("a", class);
            assert_eq!(account(&world, "main").limited, nth);
            let Some(Deadline::Boot(at)) = account(&world, "main").until else {
                panic!("a length");
            };
            let wait = at.0 - world.now.boot.0;
            let base = millis(ACCOUNT_WAIT_MIN) << (nth - 1);
            let base = base.min(millis(ACCOUNT_WAIT_MAX));
            let most = (base * 5 / 4).min(millis(ACCOUNT_WAIT_MAX));
            assert!((base * 3 / 4..=most).contains(&wait), "{nth}: {wait} ms");
            world.pass(Duration::from_millis(wait));
            assert!(world.attempt("a").probe, "{class} {nth}");
        }
        world.begin("a");
        world.report("a", said("at work"));
        assert_eq!(account(&world, "main").limited, 0);
        assert_eq!(world.task("a").consumed, 0, "{class} costs no attempt");
    }
}

/// Attempts that were under way hit the same limit: the first one named the date.
#[test]
fn later_victims_do_not_move_the_date() {
    let mut world = World::start(batch().tasks(&["a", "b", "c"]));
    let reset = world.now.wall + hours(1);
    for name in ["a", "b", "c"] {
        world.begin(name);
    }
    world.ends("a", limit(Some(reset)));
    world.ends("b", limit(Some(reset + hours(5))));
    world.ends("c", limit(None));
    assert_eq!(account(&world, "main").until, Some(Deadline::Wall(reset)));
    assert_eq!(account(&world, "main").limited, 1);
    for name in ["a", "b", "c"] {
        assert_eq!(world.reason(name), TaskReason::AccountLimited);
    }
}

#[test]
fn one_probe_at_a_time() {
    let mut world = probing(&["a", "b", "c"]);
    assert_eq!(world.spawns(), ["a"]);
    assert!(world.attempt("a").probe);
    world.pass(secs(5));
    world.begin("a");
    world.tick();
    assert_eq!(world.live(), ["a"], "that it started says nothing yet");
    world.report("a", said("at work"));
    assert_eq!(world.account(), AccountState::Open);
    assert_eq!(
        account(&world, "main").reason,
        Some(AccountReason::ProbeWentWell)
    );
    assert_eq!(world.live(), ["a", "b", "c"]);
    assert!(!world.attempt("b").probe);
}

/// Only what the service had to answer for proves that it answers.
#[test]
fn which_reports_prove_that_the_limit_is_over() {
    let tool = || protocol::report::Tool {
        name: "edit".to_owned(),
        detail: String::new(),
        ok: None,
    };
    let text = || protocol::report::Said {
        text: "hm".to_owned(),
    };
    let open = AccountState::Open;
    let table = [
        (said("at work"), open),
        (Event::ToolCall(tool()), open),
        (Event::Usage(used(10)), open),
        (Event::PromptSent {}, AccountState::Probing),
        (Event::Retry(text()), AccountState::Probing),
        (Event::Notice(text()), AccountState::Probing),
        (Event::ToolResult(tool()), AccountState::Probing),
        (
            Event::RateLimited(protocol::report::RateLimited {
                reset_at_ms: None,
                detail: String::new(),
            }),
            AccountState::Probing,
        ),
    ];
    for (event, expected) in table {
        let mut world = probing(&["a", "b"]);
        world.begin("a");
        world.report("a", event.clone());
        assert_eq!(world.account(), expected, "{event:?}");
    }
}

/// A probe that ends without a word: work that went wrong says that the service answers, a limit
/// says that it is not over, and everything else says nothing, so that somebody else finds out.
#[test]
fn which_ends_prove_that_the_limit_is_over() {
    let table = [
        (None, AccountState::Open),
        (Some(Class::AgentFailed), AccountState::Open),
        (Some(Class::VerifyFailed), AccountState::Open),
        (Some(Class::UsageLimit), AccountState::Limited),
        (Some(Class::Overload), AccountState::Limited),
        (Some(Class::Network), AccountState::Limited),
        (Some(Class::Auth), AccountState::Stopped),
        (Some(Class::Billing), AccountState::Stopped),
        (Some(Class::Refused), AccountState::Probing),
        (Some(Class::SetupFailed), AccountState::Probing),
        (Some(Class::Lost), AccountState::Probing),
    ];
    for (class, expected) in table {
        let mut world = probing(&["a", "b"]);
        world.begin("a");
        world.ends("a", class.map_or_else(ok, failed));
        assert_eq!(world.account(), expected, "{class:?}");
        if expected == AccountState::Probing {
            let probes: Vec<bool> = ["a", "b"]
                .iter()
                .filter_map(|name| world.task(name).attempt.as_ref())
                .map(|attempt| attempt.probe)
                .collect();
            assert_eq!(probes, [true], "{class:?}: one goes on finding out");
        }
    }
}

#[test]
fn a_probe_that_the_operator_ends_passes_the_question_on() {
    let mut world = probing(&["a", "b"]);
    world.begin("a");
    world.cancel("a");
    world.exited("a", Exit::Code(0));
    assert_eq!(world.account(), AccountState::Probing);
    assert_eq!(world.live(), ["b"]);
    world.succeed("b");
    assert_eq!(world.account(), AccountState::Open);
    assert_eq!(world.ending(), Some(Ending::Failed), "a was cancelled");
}

/// What ran before the limit says nothing of it: its words come from before, too.
#[test]
fn only_the_probe_opens_the_account() {
    let mut world = World::start(batch().tasks(&["a", "old"]));
    let reset = world.now.wall + mins(10);
    world.begin("old");
    world.begin("a");
    world.ends("a", limit(Some(reset)));
    world.report("old", said("still here"));
    assert_eq!(world.account(), AccountState::Limited);
    world.pass(mins(10));
    world.report("old", said("still here"));
    assert_eq!(world.account(), AccountState::Probing);
    world.ends("old", ok());
    assert_eq!(world.account(), AccountState::Probing);
    world.succeed("a");
    assert_eq!(world.account(), AccountState::Open);
}

/// What ran before the limit hits it while another one probes: the limit is not over.
#[test]
fn a_limit_while_probing_is_a_limit() {
    let mut world = World::start(batch().tasks(&["a", "old"]));
    let reset = world.now.wall + mins(10);
    world.begin("old");
    world.begin("a");
    world.ends("a", limit(Some(reset)));
    world.pass(mins(10));
    world.begin("a");
    world.ends("old", limit(Some(reset + hours(1))));
    assert_eq!(world.account(), AccountState::Limited);
    world.report("a", said("me, too"));
    assert_eq!(world.account(), AccountState::Limited);
    world.ends("a", ok());
    assert_eq!(
        world.state("a"),
        TaskState::Done,
        "its work counts all the same"
    );
}

#[test]
fn the_date_of_a_limit_outlives_the_supervisor() {
    let (mut world, reset) = limited(&["a", "b"]);
    world.crash_and_lose();
    assert_eq!(account(&world, "main").until, Some(Deadline::Wall(reset)));
    assert_eq!(world.live(), Vec::<String>::new());
    world.reboot(hours(2));
    world.crash_and_lose();
    assert_eq!(world.account(), AccountState::Probing);
    assert_eq!(world.live().len(), 1);
}

/// `ask` and `never` wait for the operator after a usage limit, whatever date was named.
#[test]
fn who_does_not_resume_by_itself_waits_for_the_operator() {
    for auto_resume in [AutoResume::Ask, AutoResume::Never] {
        let mut world = World::start(rule(auto_resume).tasks(&["a", "b"]).lanes(1));
        let reset = world.now.wall + mins(5);
        world.begin("a");
        world.ends("a", limit(Some(reset)));
        assert_eq!(world.account(), AccountState::Stopped, "{auto_resume:?}");
        assert_eq!(account(&world, "main").until, None);
        assert_eq!(
            world.at("a"),
            (TaskState::Paused, TaskReason::AccountStopped)
        );
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
        world.pass(hours(1));
        assert_eq!(world.live(), Vec::<String>::new());
        let lines = world.resume_all();
        assert_eq!(
            lines[..2],
            ["the batch goes on", "account main is open again"]
        );
        assert_eq!(world.live(), ["a"]);
        assert!(!world.attempt("a").probe, "the operator knows");
    }
}

/// The rule is for usage limits; a service that is overloaded is not the operator's to mend.
#[test]
fn auto_resume_is_for_usage_limits_only() {
    for auto_resume in [AutoResume::Always, AutoResume::Ask, AutoResume::Never] {
        for class in [Class::Overload, Class::Network] {
            let mut world = World::start(rule(auto_resume).task("a"));
            world.fail("a", class);
            assert_eq!(world.account(), AccountState::Limited);
            assert_eq!(world.reason("a"), TaskReason::AccountLimited);
        }
    }
}

#[test]
fn auth_and_billing_stop_the_account_until_resume() {
    for class in [Class::Auth, Class::Billing] {
        let plan = batch()
            .account("other", |_| {})
            .agent("helper", "other", |_| {})
            .tasks(&["a", "b"])
            .task("free")
            .by("helper");
        let mut world = World::start(plan.lanes(2));
        world.fail("a", class);
        let main = account(&world, "main");
        assert_eq!(main.state, AccountState::Stopped);
        assert_eq!(main.reason, Some(AccountReason::Class(class)));
        assert_eq!(world.outcome("a"), (Some(class), 0));
        assert_eq!(world.live(), ["b", "free"], "nobody is interrupted");
        world.fail("b", class);
        assert_eq!(world.resume("a"), "a: goes on with its account");
        assert_eq!(
            account(&world, "main").reason,
            Some(AccountReason::Operator)
        );
        assert_eq!(world.live(), ["a", "free"]);
        assert_eq!(world.at("b"), (TaskState::Ready, TaskReason::Lane));
    }
}

#[test]
fn a_stop_outweighs_a_limit() {
    let mut world = World::start(batch().tasks(&["a", "b", "c"]));
    for name in ["a", "b", "c"] {
        world.begin(name);
    }
    let reset = world.now.wall + mins(10);
    world.ends("a", limit(Some(reset)));
    world.ends("b", failed(Class::Auth));
    assert_eq!(world.account(), AccountState::Stopped);
    world.ends("c", limit(Some(reset)));
    assert_eq!(
        world.account(),
        AccountState::Stopped,
        "a limit does not soften it"
    );
    world.pass(hours(1));
    assert_eq!(world.account(), AccountState::Stopped);
    world.resume_all();
    assert_eq!(world.live(), ["a", "b", "c"], "however each was held");
}

#[test]
fn resume_does_not_shorten_a_limit() {
    let plan = batch()
        .account("other", |_| {})
        .agent("helper", "other", |_| {});
    let mut world = World::start(plan.task("a").task("free").by("helper"));
    let reset = world.now.wall + hours(1);
    world.begin("a");
    world.ends("a", limit(Some(reset)));
    assert_eq!(world.resume("a"), "a: waits for its account's reset");
    assert_eq!(world.resume_all(), ["a: waits for its account's reset"]);
    assert_eq!(world.account(), AccountState::Limited);
    assert_eq!(world.live(), ["free"]);
}

/// The limit is the account's: it holds every agent that uses it, and nobody else.
#[test]
fn agents_share_the_limit_of_their_account() {
    let plan = batch()
        .account("shared", |_| {})
        .account("own", |_| {})
        .agent("x", "shared", |_| {})
        .agent("y", "shared", |_| {})
        .agent("z", "own", |_| {})
        .task("x1")
        .by("x")
        .task("y1")
        .by("y")
        .task("z1")
        .by("z");
    let mut world = World::start(plan.lanes(1));
    let reset = world.now.wall + hours(1);
    world.begin("x1");
    world.ends("x1", limit(Some(reset)));
    assert_eq!(world.live(), ["z1"]);
    world.op_lines(OperatorCommand::SetConcurrency(4));
    assert_eq!(world.live(), ["z1"]);
    assert_eq!(account(&world, "own").state, AccountState::Open);
    world.succeed("z1");
    world.pass(hours(1));
    assert_eq!(world.live(), ["x1"], "one probe for both agents");
    world.begin("x1");
    world.report("x1", said("at work"));
    assert_eq!(world.live(), ["x1", "y1"]);
}

/// A probe is an attempt like any other: what still runs takes its place under the account's own
/// concurrency.
#[test]
fn a_probe_needs_a_place_under_the_accounts_concurrency() {
    let plan = batch()
        .account("main", |account| account.concurrency = Some(2))
        .tasks(&["a", "old", "next"]);
    let mut world = World::start(plan);
    assert_eq!(world.live(), ["a", "old"]);
    let reset = world.now.wall + mins(1);
    world.begin("a");
    world.begin("old");
    world.ends("a", limit(Some(reset)));
    world.pass(mins(1));
    assert_eq!(world.live(), ["a", "old"]);
    world.begin("a");
    world.report("a", said("at work"));
    assert_eq!(world.live(), ["a", "old"], "open, and full");
    world.ends("old", ok());
    assert_eq!(world.live(), ["a", "next"]);
}

/// Dates go by the wall clock: a machine that slept through them probes when it wakes.
#[test]
fn a_limit_ends_while_the_machine_sleeps() {
    let (mut world, _) = limited(&["a", "b"]);
    world.skip(DAY);
    world.tick();
    assert_eq!(world.account(), AccountState::Probing);
    assert_eq!(world.live(), ["a"]);
}
