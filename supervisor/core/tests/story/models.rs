//! A task goes on with the next model of its agent where its own is at fault.

use std::sync::Arc;

use supervisor_core::retry::ACCOUNT_WAIT_MAX;

use crate::harness::*;

fn with_models(models: &[&str]) -> World {
    let models: Vec<Arc<str>> = models.iter().map(|&model| model.into()).collect();
    let plan = batch().agent("able", "main", |agent| agent.models = models);
    World::start(plan.task("a").by("able"))
}

#[test]
fn a_model_that_is_missing_or_refuses_is_followed_by_the_next_at_no_cost() {
    for class in [Class::ModelMissing, Class::Refused] {
        let mut world = with_models(&["large", "small"]);
        assert_eq!(world.task("a").model, 0);
        world.fail("a", class);
        assert_eq!(world.live(), ["a"], "{class}: at once, without a person");
        assert_eq!((world.task("a").model, world.task("a").consumed), (1, 0));
        world.fail("a", class);
        let asks = (TaskState::Paused, TaskReason::NeedsOperator(class));
        assert_eq!(world.at("a"), asks, "no model is left");
        assert_eq!(world.task("a").model, 1);
    }
}

#[test]
fn an_overloaded_model_is_waited_for_and_left_when_it_stays_so() {
    let mut world = with_models(&["large", "small"]);
    for _ in 0..2 {
        world.fail("a", Class::Overload);
        assert_eq!(world.account(), AccountState::Limited);
        assert_eq!(world.task("a").model, 0);
        world.pass(ACCOUNT_WAIT_MAX);
    }
    world.fail("a", Class::Overload);
    assert_eq!(world.task("a").model, 1);
    assert_eq!(
        world.task("a").overloads,
        0,
        "counted anew for the other model"
    );
    assert_eq!(world.task("a").consumed, 0);
}

#[test]
fn overloads_in_a_row_are_counted_and_nothing_else_between_them() {
    let mut world = with_models(&["large", "small"]);
    for class in [
        Class::Overload,
        Class::Overload,
        Class::Crash,
        Class::Overload,
    ] {
        world.fail("a", class);
        world.pass(ACCOUNT_WAIT_MAX);
    }
    assert_eq!((world.task("a").model, world.task("a").overloads), (0, 1));
}

#[test]
fn another_failure_and_an_agent_of_one_model_stay_with_it() {
    let mut world = with_models(&["large", "small"]);
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.task("a").model, 0);
    let mut world = with_models(&["large"]);
    world.fail("a", Class::ModelMissing);
    let asks = TaskReason::NeedsOperator(Class::ModelMissing);
    assert_eq!(world.at("a"), (TaskState::Paused, asks));
}

#[test]
fn a_reopened_task_begins_with_its_first_model() {
    let mut world = with_models(&["large", "small"]);
    world.fail("a", Class::ModelMissing);
    world.fail("a", Class::ModelMissing);
    world.cancel("a");
    world.retry("a");
    assert_eq!(world.task("a").model, 0);
    assert_eq!(world.live(), ["a"]);
}
