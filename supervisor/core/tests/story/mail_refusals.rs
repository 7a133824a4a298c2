//! Messages that are not taken: limits, ended tasks, and what an agent can not prove.

use protocol::program::ProgramKind;
use supervisor_core::mailbox::{TEXT_MAX, UNSETTLED_MAX};

use crate::harness::*;
use crate::mail::{after, injected};

#[test]
fn one_refusal_refuses_all() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.succeed("b");
    let command = OperatorCommand::Steer {
        tasks: world.ixs(&["a", "b"]),
        mode: SteerMode::After,
        text: "both".into(),
        expires: None,
        wait: None,
    };
    let why = Refusal::WrongState("b is done: nobody is there to read a message".into());
    assert_eq!(world.refused(command), why);
    assert!(world.facts().messages.is_empty());
}

#[test]
fn the_length_of_a_message_is_bounded_in_bytes() {
    let mut world = World::start(batch().task("a"));
    let longest = "x".repeat(TEXT_MAX);
    after(&mut world, "a", &longest);
    after(&mut world, "a", "x");
    let bad = [
        (String::new(), 0),
        (format!("{longest}x"), TEXT_MAX + 1),
        ("ü".repeat(TEXT_MAX / 2 + 1), TEXT_MAX + 2),
    ];
    for (text, length) in bad {
        let command = world.steering("a", SteerMode::After, &text);
        let why = format!("a message has 1 to {TEXT_MAX} bytes, this one {length}");
        assert_eq!(world.refused(command), Refusal::Limit(why.into()));
    }
}

/// Sent is not taken yet; only the agent's taking makes room.
#[test]
fn the_number_of_unsettled_messages_is_bounded() {
    let mut world = World::start(batch().tasks(&["a", "b"])).without_checks();
    world.begin("a");
    let first = after(&mut world, "a", "1");
    for _ in 1..UNSETTLED_MAX {
        after(&mut world, "a", "more");
    }
    let one_more = world.steering("a", SteerMode::After, "one more");
    let why = format!("a has {UNSETTLED_MAX} messages that it has not taken yet");
    assert_eq!(world.refused(one_more.clone()), Refusal::Limit(why.into()));
    after(&mut world, "b", "others have room");
    injected(&mut world, "a", first);
    assert!(matches!(world.op(one_more), Answer::Messages(_)));
}

#[test]
fn terminal_tasks_take_no_messages() {
    let plan = batch()
        .tasks(&["done", "failed", "cancelled", "skipped"])
        .every(|spec| spec.attempts = 1)
        .task("open");
    let mut world = World::start(plan.lanes(5));
    world.succeed("done");
    world.fail("failed", Class::AgentFailed);
    for name in ["cancelled", "skipped"] {
        world.begin(name);
        world.kill(name, secs(0));
        world.exited(name, Exit::Signal(9));
    }
    world.cancel("cancelled");
    world.skip_task("skipped", false);
    for name in ["done", "failed", "cancelled", "skipped"] {
        let command = world.steering(name, SteerMode::After, "hello?");
        let why = format!("{name} is {name}: nobody is there to read a message");
        assert_eq!(world.refused(command), Refusal::WrongState(why.into()));
    }
}

/// A plain command reads its messages when it is started, and proves nothing above injected.
#[test]
fn what_a_plain_command_can_not_prove_is_refused() {
    let plan = || {
        batch()
            .agent("plain", "main", |agent| agent.kind = AgentKind::Command)
            .task("a")
            .by("plain")
    };
    let modes = [
        SteerMode::Interrupt,
        SteerMode::Boundary,
        SteerMode::After,
        SteerMode::Restart,
    ];
    for mode in modes {
        for wait in [None, Some(Receipt::Injected), Some(Receipt::Seen)] {
            let mut world = World::start(plan());
            let command = OperatorCommand::Steer {
                tasks: world.ixs(&["a"]),
                mode,
                text: "hello".into(),
                expires: None,
                wait,
            };
            if mode == SteerMode::Interrupt || wait == Some(Receipt::Seen) {
                let refusal = world.refused(command);
                assert!(
                    matches!(refusal, Refusal::CanNotProve(_)),
                    "{mode:?} {wait:?}: {refusal:?}"
                );
            } else {
                assert!(matches!(world.op(command), Answer::Messages(_)));
            }
        }
    }
}

#[test]
fn an_agent_with_receipts_may_be_interrupted_and_waited_for() {
    for kind in [AgentKind::Scripted, AgentKind::Program(ProgramKind::Claude)] {
        let plan = batch().agent("able", "main", |agent| agent.kind = kind);
        let mut world = World::start(plan.task("a").by("able"));
        let command = OperatorCommand::Steer {
            tasks: world.ixs(&["a"]),
            mode: SteerMode::Interrupt,
            text: "hello".into(),
            expires: None,
            wait: Some(Receipt::Seen),
        };
        assert!(matches!(world.op(command), Answer::Messages(_)), "{kind:?}");
    }
}
