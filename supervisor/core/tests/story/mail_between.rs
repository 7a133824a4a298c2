//! Messages of one task's agent to another task: as durable as the operator's, with the same bounds,
//! and with the task that they are from.

use supervisor_core::live::{SENDS_MAX, WIRE_FAULTS_MAX};
use supervisor_core::mailbox::{TEXT_MAX, UNSETTLED_MAX};
use supervisor_core::plan::TaskIx;

use crate::harness::*;

impl World {
    fn sends(&mut self, from: &str, to: TaskIx, text: &str) -> Answer {
        let generation = self.run(from);
        let reply = self.reply_id();
        self.handle(Input::HostSent {
            generation,
            to,
            text: text.into(),
            reply,
        });
        self.answer_to(reply)
            .expect("a message is answered at once")
    }

    fn sends_to(&mut self, from: &str, to: &str, text: &str) -> Answer {
        let to = self.ixs(&[to])[0];
        self.sends(from, to, text)
    }
}

fn sent(answer: &Answer) -> MessageId {
    match answer {
        Answer::Messages(ids) if ids.len() == 1 => ids[0],
        other => panic!("{other:?}"),
    }
}

fn pair() -> World {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world
}

#[test]
fn a_message_of_a_task_is_recorded_with_its_origin_before_it_is_told() {
    let mut world = pair();
    let answer = world.sends_to("a", "b", "the parser is ready");
    let id = sent(&answer);
    let message = &world.facts().messages[&id];
    assert_eq!(message.from, Some(world.ixs(&["a"])[0]));
    assert_eq!(message.task, world.ixs(&["b"])[0]);
    assert_eq!(message.mode, SteerMode::Boundary);
    assert_eq!(message.state, MessageState::Queued, "b has not begun");
    let last = &world.journal.last().expect("records").record;
    assert!(
        matches!(last, Record::MessageQueued { from: Some(_), .. }),
        "{last:?}"
    );
}

#[test]
fn a_run_that_works_gets_it_at_once_and_is_told_whose_it_is() {
    let mut world = pair();
    world.begin("b");
    world.news();
    let id = sent(&world.sends_to("a", "b", "the parser is ready"));
    let delivery = Effect::Deliver {
        generation: world.run("b"),
        id,
        mode: SteerMode::Boundary,
        text: "the parser is ready".into(),
        from: Some(world.ixs(&["a"])[0]),
    };
    assert!(world.news().contains(&delivery));
}

#[test]
fn what_would_not_be_taken_of_the_operator_is_not_taken_of_a_task() {
    let mut world = World::start(batch().tasks(&["a", "b", "c"])).without_checks();
    world.begin("a");
    world.succeed("c");
    let refused = |answer: Answer| match answer {
        Answer::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let before = world.journal.len();
    let itself = refused(world.sends_to("a", "a", "hello"));
    assert!(matches!(itself, Refusal::WrongState(_)), "{itself}");
    let over = refused(world.sends_to("a", "c", "hello"));
    assert!(matches!(over, Refusal::WrongState(_)), "{over}");
    let nobody = refused(world.sends("a", TaskIx(3), "hello"));
    assert!(matches!(nobody, Refusal::NotFound(_)), "{nobody}");
    for text in [String::new(), "x".repeat(TEXT_MAX + 1)] {
        let length = refused(world.sends_to("a", "b", &text));
        assert!(matches!(length, Refusal::Limit(_)), "{length}");
    }
    assert_eq!(world.journal.len(), before, "a refusal changes nothing");
}

#[test]
fn a_full_mailbox_is_full_for_everybody() {
    let mut world = pair().without_checks();
    for _ in 0..UNSETTLED_MAX {
        world.steer("b", SteerMode::After, "work");
    }
    let full = world.sends_to("a", "b", "one more");
    assert!(
        matches!(full, Answer::Refused(Refusal::Limit(_))),
        "{full:?}"
    );
}

#[test]
fn a_run_that_sends_without_end_is_refused_and_then_stopped() {
    let mut world = pair().without_checks();
    for _ in 0..SENDS_MAX {
        sent(&world.sends_to("a", "b", "again"));
    }
    let run = world.run("a");
    for _ in 0..=WIRE_FAULTS_MAX {
        assert!(world.facts().runs[&run].stop.is_none());
        let answer = world.sends_to("a", "b", "again");
        assert!(
            matches!(answer, Answer::Refused(Refusal::Limit(_))),
            "{answer:?}"
        );
    }
    let (reason, _) = world.facts().runs[&run].stop.expect("it is stopped");
    assert_eq!(reason, StopReason::Protocol);
}

#[test]
fn only_an_agent_that_has_started_sends() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.spawned("a");
    world.greeted("a");
    let early = world.sends_to("a", "b", "hello");
    assert!(matches!(early, Answer::Refused(Refusal::WrongState(_))));
    world.started("a");
    sent(&world.sends_to("a", "b", "hello"));
    world.pause("a", true);
    let late = world.sends_to("a", "b", "hello");
    assert!(matches!(late, Answer::Refused(Refusal::WrongState(_))));
}
