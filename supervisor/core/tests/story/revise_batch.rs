//! The batch file was edited: rules of the batch, agents and accounts, and what held the batch up.

use super::harness::*;

/// More lanes, at once; the operator's own number counts until the file names another one.
#[test]
fn lanes_follow_the_newer_word() {
    let plan = |lanes| batch().lanes(lanes).tasks(&["a", "b", "c", "d"]);
    let mut world = World::start(plan(1));
    world.revise(plan(2));
    assert_eq!(world.live(), ["a", "b"]);
    world.op(OperatorCommand::SetConcurrency(3));
    assert_eq!(world.live(), ["a", "b", "c"]);
    world.revise(plan(2).task("e"));
    assert_eq!(world.facts().batch.lanes(), 3, "the file's 2 is no news");
    world.revise(plan(4).task("e"));
    assert_eq!(world.live(), ["a", "b", "c", "d"]);
}

/// A raised limit lets the batch go on; a lowered one pauses it.
#[test]
fn limits_count_from_now_on() {
    let plan = |tokens| {
        let limit = batch().lanes(1).tasks(&["a", "b", "c"]);
        limit.set(move |it| it.limits.tokens = Some(tokens))
    };
    let mut world = World::start(plan(100));
    world.begin("a");
    world.report("a", Event::Usage(used(100)));
    let limit = BatchReason::Limit(BatchLimit::Tokens);
    assert_eq!(world.batch_at(), (BatchState::Paused, limit));
    world.ends("a", ok());
    world.revise(plan(1_000));
    assert_eq!(world.batch_at().0, BatchState::Running);
    assert_eq!(world.live(), ["b"]);
    world.revise(plan(50));
    assert_eq!(world.batch_at(), (BatchState::Paused, limit));
}

/// A rule that stopped the batch is gone: it goes on.
#[test]
fn a_stop_by_a_rule_ends_with_the_rule() {
    let plan = |rule| {
        let tasks = batch().lanes(2).task("a").task("b").task("c");
        tasks
            .every(|spec| spec.attempts = 1)
            .set(move |it| it.on_failure = rule)
    };
    let mut world = World::start(plan(OnFailure::Stop));
    world.begin("a");
    world.begin("b");
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.batch_at().0, BatchState::Stopping);
    world.revise(plan(OnFailure::Continue));
    assert_eq!(world.batch_at().0, BatchState::Running);
    assert_eq!(world.live(), ["b", "c"]);

    let few = |max| plan(OnFailure::Continue).set(move |it| it.max_failures = max);
    world.revise(few(Some(MaxFailures::Count(1))));
    world.ends("b", failed(Class::AgentFailed));
    let many = BatchReason::TooManyFailures;
    assert_eq!(world.batch_at(), (BatchState::Stopping, many));
    world.revise(few(Some(MaxFailures::Count(2))));
    assert_eq!(world.batch_at().0, BatchState::Running);
}

#[test]
fn a_later_end_lets_the_batch_go_on() {
    let mut world = World::created(batch().task("a").task("b").lanes(1));
    let soon = world.now.wall + mins(5);
    let plan = |at| {
        batch()
            .lanes(1)
            .tasks(&["a", "b"])
            .set(move |it| it.until = at)
    };
    world.recover(Vec::new());
    world.revise(plan(Some(soon)));
    world.tick();
    world.begin("a");
    world.pulse = Pulse::Busy;
    world.pass(mins(6));
    assert_eq!(world.batch_at(), (BatchState::Stopping, BatchReason::Until));
    world.revise(plan(None));
    assert_eq!(world.batch_at().0, BatchState::Running);
    world.succeed("a");
    assert_eq!(world.live(), ["b"]);
}

/// Dependents of a failed task run, or do not, by the rule in force.
#[test]
fn another_rule_for_failures_counts_for_who_still_waits() {
    let plan = |rule| {
        let task = batch().task("a").spec(|spec| spec.attempts = 1);
        let task = task.task("slow").task("b").after(&["a", "slow"]);
        task.set(move |it| it.on_failure = rule)
    };
    let mut world = World::start(plan(OnFailure::Continue));
    world.begin("a");
    world.begin("slow");
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.reason("b"), TaskReason::Dependencies);
    world.revise(plan(OnFailure::SkipDependents));
    let because = TaskReason::DependencyFailed(world.ix("a"));
    assert_eq!(world.at("b"), (TaskState::Skipped, because));
}

/// New work opens a batch that was over.
#[test]
fn new_tasks_open_a_finished_batch() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    world.succeed("a");
    assert_eq!(world.batch_at().0, BatchState::Done);
    world.resume_with(batch().task("a"));
    assert_eq!(world.batch_at().0, BatchState::Done);
    world.resume_with(batch().tasks(&["a", "b"]));
    assert_eq!(world.batch_at().0, BatchState::Running);
    world.begin("b");
    world.succeed("b");
    assert_eq!(world.ending(), Some(Ending::Done));
}

// Agents and accounts.

/// What runs keeps its agent; both count against the lanes of the name.
#[test]
fn a_changed_agent_shares_the_lanes_of_its_name() {
    let plan = |work: &str| {
        let work = work.into();
        let agent = batch().agent("coder", "main", |agent| {
            agent.concurrency = Some(2);
            agent.work = work;
        });
        agent.tasks(&["a", "b", "c"])
    };
    let mut world = World::start(plan("old"));
    world.begin("a");
    world.begin("b");
    world.revise(plan("new"));
    assert_eq!(world.facts().agents.len(), 2);
    assert_eq!(world.live(), ["a", "b"], "no third lane");
    world.succeed("a");
    assert_eq!(world.live(), ["b", "c"]);
    let work = |name: &str| {
        let spec = &world.facts().specs[world.task(name).spec.0 as usize];
        world.facts().agents[spec.agent.0 as usize].work.clone()
    };
    assert_eq!((&*work("b"), &*work("c")), ("old", "new"));
    world.revise(plan("new"));
    assert_eq!(world.facts().agents.len(), 2, "nothing new was said");
}

/// A conversation belongs to the agent that had it.
#[test]
fn another_agent_begins_a_conversation_of_its_own() {
    let plan = |by: &str| {
        let agents = batch().agent("other", "main", |_| {});
        agents.task("a").by(by)
    };
    let mut world = World::start(plan("coder"));
    world.spawned("a");
    world.greeted("a");
    world.started_with("a", Some("session-1"));
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.task("a").session.as_deref(), Some("session-1"));
    world.revise(plan("coder").spec(|spec| spec.priority = 1));
    assert!(world.task("a").session.is_some(), "the same agent");
    world.revise(plan("other"));
    assert_eq!(world.task("a").session, None);
    world.pass(mins(10));
    assert_eq!(world.attempt("a").mode, RetryMode::NewSession);
}

/// Held by a limit of one account, let go on by another.
#[test]
fn another_account_frees_what_the_first_one_holds() {
    let plan = |by: &str| {
        let accounts = batch().account("second", |_| {});
        let agents = accounts.agent("spare", "second", |_| {});
        agents.task("a").by(by).task("b")
    };
    let mut world = World::start(plan("coder"));
    world.begin("a");
    world.ends("a", failed(Class::UsageLimit));
    assert_eq!(world.reason("a"), TaskReason::AccountLimited);
    world.revise(plan("coder").task("c"));
    assert_eq!(world.reason("a"), TaskReason::AccountLimited);
    world.revise(plan("spare").task("c"));
    assert!(world.live().contains(&"a".to_owned()));
}

/// An account keeps its state under other rules.
#[test]
fn an_account_keeps_its_state() {
    let plan = |lanes| {
        let account = batch().account("main", move |account| account.concurrency = lanes);
        account.tasks(&["a", "b", "c"])
    };
    let mut world = World::start(plan(None));
    world.begin("a");
    world.ends("a", failed(Class::UsageLimit));
    world.revise(plan(Some(1)));
    assert_eq!(world.account(), AccountState::Limited);
    assert_eq!(world.facts().accounts.len(), 1);
    assert_eq!(world.facts().accounts[0].spec.concurrency, Some(1));
}

// What it costs.

/// Tasks of one list share their rules, also those that are added later.
#[test]
fn a_list_that_grows_adds_no_rules() {
    let shared = |count: usize| {
        let names: Vec<String> = (0..count).map(|at| format!("t{at}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut plan = batch().tasks(&names).plan();
        plan.specs.truncate(1);
        for task in &mut plan.tasks {
            task.spec = supervisor_core::plan::SpecIx(0);
        }
        plan
    };
    let mut world = World::start(batch().tasks(&["t0", "t1"]));
    let grown = Box::new(shared(1_500));
    world.op(OperatorCommand::Revise(grown));
    assert_eq!(world.facts().tasks.len(), 1_500);
    assert_eq!(world.facts().specs.len(), 2, "those of the first two tasks");
    let shrunk = Box::new(shared(1));
    world.op(OperatorCommand::Revise(shrunk));
    let skipped = world
        .core
        .index()
        .expect("a batch")
        .count(TaskState::Skipped);
    assert_eq!(skipped, 1_496, "four lanes are at work");
}

/// Records are about what changed, not about the batch.
#[test]
fn one_changed_task_of_many_is_a_handful_of_records() {
    let names: Vec<String> = (0..300).map(|at| format!("t{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = || batch().tasks(&names).task("last");
    let mut world = World::start(plan());
    world.decided();
    world.revise(plan().spec(|spec| spec.priority = -1));
    let decided = world.decided();
    assert!(
        matches!(
            decided[..],
            [
                Record::PlanRevised(_),
                Record::PlanExtended { .. },
                Record::TaskRevised { .. },
                Record::PlanClosed
            ]
        ),
        "{decided:?}"
    );
}
