//! Messages: durable, in order, once, with rungs that are proven or not claimed.

use supervisor_core::facts::Message;

use crate::harness::*;

fn message(world: &World, id: MessageId) -> &Message {
    &world.facts().messages[&id]
}

fn rung(world: &World, id: MessageId) -> MessageState {
    message(world, id).state
}

fn rungs(world: &World, id: MessageId) -> Vec<MessageState> {
    let rungs = message(world, id).rungs.iter();
    rungs.map(|(state, _)| *state).collect()
}

pub(crate) fn injected(world: &mut World, name: &str, id: MessageId) {
    world.report(name, Event::MessageInjected { id });
}

fn seen(world: &mut World, name: &str, id: MessageId) {
    world.report(name, Event::MessageSeen { id });
}

/// The host is gone, and its file names these messages.
fn gone(world: &mut World, name: &str, result: Option<RunResult>, named: &[MessageId]) {
    let generation = world.run(name);
    world.handle(Input::HostExited {
        generation,
        exit: Exit::Signal(9),
        durable: result.map(Box::new),
        injected: named.to_vec(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
        oom: None,
    });
}

/// What was handed over since the last look: with the prompt, and on its own.
fn handed(world: &mut World) -> (Vec<MessageId>, Vec<MessageId>) {
    let (mut with_prompt, mut alone) = (Vec::new(), Vec::new());
    for effect in world.news() {
        match effect {
            Effect::StartRun { messages, .. } => with_prompt.extend(messages),
            Effect::Deliver { id, .. } => alone.push(id),
            _ => {}
        }
    }
    (with_prompt, alone)
}

/// A world in which `a` works.
fn working() -> World {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    world.news();
    world
}

pub(crate) fn after(world: &mut World, name: &str, text: &str) -> MessageId {
    world.steer(name, SteerMode::After, text)
}

#[test]
fn each_rung_says_when_it_was_reached() {
    let mut world = World::start(batch().task("a"));
    let first = world.now.wall;
    let id = world.steer("a", SteerMode::Boundary, "use the other parser");
    world.skip(secs(1));
    world.spawned("a");
    world.skip(secs(2));
    world.greeted("a");
    world.started("a");
    world.skip(secs(3));
    injected(&mut world, "a", id);
    assert_eq!(&*message(&world, id).text, "", "the agent has it now");
    world.skip(secs(4));
    seen(&mut world, "a", id);
    let times = [
        (MessageState::Queued, first),
        (MessageState::Sent, first + secs(3)),
        (MessageState::Injected, first + secs(6)),
        (MessageState::Seen, first + secs(10)),
    ];
    assert_eq!(message(&world, id).rungs, times);
    assert_eq!(message(&world, id).generation, Some(world.run("a")));
}

/// Seen is proof of injected, so the rung between is filled in, at the same moment.
#[test]
fn a_rung_that_was_passed_without_a_word_is_filled_in() {
    let mut world = working();
    let id = after(&mut world, "a", "hello");
    seen(&mut world, "a", id);
    let all = [
        MessageState::Queued,
        MessageState::Sent,
        MessageState::Injected,
        MessageState::Seen,
    ];
    assert_eq!(rungs(&world, id), all);
}

#[test]
fn a_message_never_climbs_down_nor_twice() {
    let mut world = working();
    let id = after(&mut world, "a", "hello");
    injected(&mut world, "a", id);
    world.decided();
    injected(&mut world, "a", id);
    assert_eq!(world.decided(), [], "injected again says nothing new");
    seen(&mut world, "a", id);
    world.decided();
    seen(&mut world, "a", id);
    injected(&mut world, "a", id);
    assert_eq!(world.decided(), [], "nor does injected after seen");
}

/// A host takes messages behind the gate only: until then they wait, and go in with the prompt.
#[test]
fn messages_go_in_with_the_prompt_or_on_their_own() {
    let mut world = World::start(batch().task("a"));
    let intended = after(&mut world, "a", "before the host");
    world.spawned("a");
    let spawned = after(&mut world, "a", "before the hello");
    assert_eq!(handed(&mut world), (vec![], vec![]));
    world.greeted("a");
    assert_eq!(handed(&mut world), (vec![intended, spawned], vec![]));
    let greeted = after(&mut world, "a", "before the agent");
    assert_eq!(rung(&world, greeted), MessageState::Queued);
    world.started("a");
    assert_eq!(handed(&mut world), (vec![], vec![greeted]));
    let started = after(&mut world, "a", "at work");
    assert_eq!(handed(&mut world), (vec![], vec![started]));
}

#[test]
fn a_delivery_carries_mode_text_and_run() {
    for mode in [SteerMode::Interrupt, SteerMode::Boundary, SteerMode::After] {
        let mut world = working();
        let id = world.steer("a", mode, "look here");
        let delivery = Effect::Deliver {
            generation: world.run("a"),
            id,
            mode,
            text: "look here".into(),
            from: None,
        };
        assert!(world.news().contains(&delivery), "{mode:?}");
    }
}

#[test]
fn order_is_the_order_of_the_ids() {
    let plan = batch().task("first").task("a").after(&["first"]);
    let mut world = World::start(plan);
    let early: Vec<MessageId> = ["1", "2", "3"]
        .iter()
        .map(|text| after(&mut world, "a", text))
        .collect();
    assert!(early.is_sorted());
    world.succeed("first");
    world.news();
    world.spawned("a");
    world.greeted("a");
    assert_eq!(handed(&mut world).0, early);
    let late: Vec<MessageId> = ["4", "5"]
        .iter()
        .map(|text| after(&mut world, "a", text))
        .collect();
    world.started("a");
    assert_eq!(handed(&mut world).1, late);
}

/// One message to several tasks is one message each, named in the order of the tasks.
#[test]
fn a_message_to_several_tasks_is_one_for_each() {
    let mut world = World::start(batch().tasks(&["a", "b", "c"]));
    let command = OperatorCommand::Steer {
        tasks: vec![world.ix("c"), TaskIx(99), world.ix("a")],
        mode: SteerMode::After,
        text: "all of you".into(),
        expires: None,
        wait: None,
    };
    let Answer::Messages(ids) = world.op(command) else {
        panic!("refused");
    };
    let to: Vec<TaskIx> = ids.iter().map(|id| message(&world, *id).task).collect();
    assert_eq!(
        to,
        world.ixs(&["c", "a"]),
        "a task that is not there has none"
    );
    assert_eq!(world.texts(), ["all of you".into(), "all of you".into()]);
}

fn expiring(world: &mut World, name: &str, at: Wall) -> MessageId {
    let command = OperatorCommand::Steer {
        tasks: world.ixs(&[name]),
        mode: SteerMode::After,
        text: "soon".into(),
        expires: Some(at),
        wait: None,
    };
    match world.op(command) {
        Answer::Messages(ids) => ids[0],
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_waits_expires_at_its_date() {
    let plan = batch().task("first").task("a").after(&["first"]);
    let mut world = World::start(plan);
    let date = world.now.wall + mins(10);
    let short = expiring(&mut world, "a", date);
    let long = expiring(&mut world, "a", date + mins(10));
    world.pass(mins(10) - secs(1));
    assert_eq!(rung(&world, short), MessageState::Queued);
    world.pass(secs(1));
    let reached = message(&world, short).rungs.last().copied();
    assert_eq!(reached, Some((MessageState::Expired, date)));
    assert_eq!(
        &*message(&world, short).text,
        "",
        "nobody needs it any more"
    );
    world.succeed("first");
    world.news();
    world.begin("a");
    assert_eq!(handed(&mut world), (vec![long], vec![]));
}

/// A date that has passed when the message comes: queued, and expired before anybody could take it.
#[test]
fn a_message_of_yesterday_expires_at_once() {
    let mut world = World::start(batch().task("a"));
    let date = Wall(world.now.wall.0 - 1);
    let id = expiring(&mut world, "a", date);
    world.tick();
    assert_eq!(rung(&world, id), MessageState::Expired);
    world.begin("a");
    assert_eq!(handed(&mut world), (vec![], vec![]));
}

/// Handed over is handed over; but one that comes back has its date again.
#[test]
fn what_was_sent_expires_only_when_it_comes_back() {
    let mut world = working();
    world.pulse = Pulse::Printing;
    let date = world.now.wall + mins(5);
    let id = expiring(&mut world, "a", date);
    world.pass(mins(6));
    assert_eq!(rung(&world, id), MessageState::Sent);
    gone(&mut world, "a", None, &[]);
    assert_eq!(rung(&world, id), MessageState::Queued);
    world.tick();
    assert_eq!(rung(&world, id), MessageState::Expired);
}

/// However a task ends, what nobody read is a dead letter, with the reason in its last rung.
#[test]
fn unread_messages_die_with_their_task() {
    type End = fn(&mut World);
    let ends: [(&str, TaskState, End); 5] = [
        ("done", TaskState::Done, |world| {
            world.begin("a");
            world.result("a", ok());
            after(world, "a", "too late");
            world.exited("a", Exit::Code(0));
        }),
        ("failed", TaskState::Failed, |world| {
            world.begin("a");
            world.result("a", failed(Class::AgentFailed));
            after(world, "a", "too late");
            world.exited("a", Exit::Code(1));
        }),
        ("cancelled while it ran", TaskState::Cancelled, |world| {
            world.begin("a");
            world.cancel("a");
            after(world, "a", "too late");
            world.exited("a", Exit::Code(0));
        }),
        ("cancelled while held", TaskState::Cancelled, |world| {
            world.begin("a");
            world.pause("a", true);
            world.exited("a", Exit::Code(0));
            after(world, "a", "too late");
            world.cancel("a");
        }),
        ("skipped", TaskState::Skipped, |world| {
            world.begin("a");
            world.kill("a", secs(0));
            world.exited("a", Exit::Signal(9));
            after(world, "a", "too late");
            world.skip_task("a", false);
        }),
    ];
    for (how, state, end) in ends {
        let plan = batch().task("a").spec(|spec| spec.attempts = 1);
        let mut world = World::start(plan);
        end(&mut world);
        assert_eq!(world.state("a"), state, "{how}");
        let expected = [MessageState::Queued, MessageState::Dead];
        assert_eq!(rungs(&world, MessageId(1)), expected, "{how}");
        assert_eq!(world.texts(), ["".into()], "{how}");
    }
}

/// A cascade of skips reaches the mail of the last dependent in the same turn.
#[test]
fn messages_die_with_skipped_dependents() {
    let plan = batch()
        .task("root")
        .spec(|spec| spec.attempts = 1)
        .task("middle")
        .after(&["root"])
        .task("leaf")
        .after(&["middle"]);
    let mut world = World::start(plan);
    let id = after(&mut world, "leaf", "for later");
    world.fail("root", Class::AgentFailed);
    assert_eq!(rung(&world, id), MessageState::Dead);
}

#[test]
fn messages_die_with_what_a_stopping_batch_never_tried() {
    let plan = batch()
        .lanes(1)
        .set(|settings| settings.on_failure = OnFailure::Stop)
        .tasks(&["bad", "never"])
        .every(|spec| spec.attempts = 1);
    let mut world = World::start(plan);
    let id = after(&mut world, "never", "for later");
    world.fail("bad", Class::AgentFailed);
    assert_eq!(world.ending(), Some(Ending::Failed));
    assert_eq!(rung(&world, id), MessageState::Dead);
}

/// What is left of a message whose run is over, by what the host's file says and whether there is
/// a result: lost is sent again, proven is injected, and what can not be known is not repeated.
#[test]
fn the_end_of_a_run_settles_its_messages() {
    let table = [
        (false, false, MessageState::Queued),
        (false, true, MessageState::Queued),
        (true, false, MessageState::Uncertain),
        (true, true, MessageState::Injected),
    ];
    for (named, proven, expected) in table {
        for crash in [false, true] {
            let mut world = working();
            let id = after(&mut world, "a", "hello");
            let named: Vec<MessageId> = named.then_some(id).into_iter().collect();
            // A failure, so that the task goes on and nobody buries the mail.
            let result = proven.then(|| failed(Class::AgentFailed));
            if crash {
                let result = result.map(Box::new);
                let facts = RunFacts {
                    process: ProcessFact::Gone,
                    result: result.map_or(ResultFact::Absent, ResultFact::Durable),
                    injected: named.clone(),
                    cleared: supervisor_core::containment::Cleared::CLEAN,
                };
                let generation = world.run("a");
                world.crash();
                world.recover(vec![(generation, facts)]);
            } else {
                gone(&mut world, "a", result, &named);
            }
            let row = (named, proven, crash);
            assert_eq!(rung(&world, id), expected, "{row:?}");
            let keeps = expected != MessageState::Injected;
            assert_eq!(!message(&world, id).text.is_empty(), keeps, "{row:?}");
        }
    }
}

/// The next attempt takes what the last one did not: that, and nothing that it may have read.
#[test]
fn only_what_was_not_injected_goes_to_the_next_attempt() {
    let mut world = working();
    let taken = after(&mut world, "a", "taken");
    let unsure = after(&mut world, "a", "unsure");
    let lost = after(&mut world, "a", "lost");
    injected(&mut world, "a", taken);
    gone(&mut world, "a", None, &[taken, unsure]);
    world.news();
    world.spawned("a");
    world.greeted("a");
    assert_eq!(handed(&mut world), (vec![lost], vec![]));
    let expected = [
        MessageState::Queued,
        MessageState::Sent,
        MessageState::Queued,
        MessageState::Sent,
    ];
    assert_eq!(rungs(&world, lost), expected, "both ways are kept");
    assert_eq!(rung(&world, unsure), MessageState::Uncertain);
}

/// What waits for a task waits through a crash, too.
#[test]
fn queued_messages_outlive_the_supervisor() {
    let mut world = World::start(batch().task("a"));
    let id = after(&mut world, "a", "keep me");
    world.crash_and_lose();
    world.news();
    world.begin("a");
    assert_eq!(handed(&mut world), (vec![id], vec![]));
}

#[test]
fn a_report_on_a_message_of_another_run_is_ignored() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.begin("b");
    let id = after(&mut world, "a", "for a");
    world.decided();
    injected(&mut world, "b", id);
    seen(&mut world, "b", id);
    seen(&mut world, "a", MessageId(77));
    assert_eq!(world.decided(), []);
    assert_eq!(rung(&world, id), MessageState::Sent);
}

/// The run that had it once says so too late: the message belongs to the next run already.
#[test]
fn a_report_of_an_earlier_run_is_ignored() {
    let mut world = working();
    let before = world.run("a");
    let id = after(&mut world, "a", "hello");
    gone(&mut world, "a", None, &[]);
    world.begin("a");
    world.decided();
    world.report_of(before, Event::MessageInjected { id });
    assert_eq!(world.decided(), []);
    assert_eq!(rung(&world, id), MessageState::Sent);
}

#[test]
fn restart_supersedes_the_run_and_goes_in_with_the_next_prompt() {
    let mut world = working();
    let before = world.run("a");
    let id = world.steer("a", SteerMode::Restart, "start over");
    let stop = Effect::StopHost {
        generation: before,
        grace: secs(10),
    };
    assert_eq!(world.last.urgent, [stop]);
    assert_eq!(rung(&world, id), MessageState::Queued, "not for this run");
    world.exited("a", Exit::Code(0));
    assert_eq!(world.outcome("a"), (Some(Class::Superseded), 0));
    assert_eq!(world.attempt("a").mode, RetryMode::NewSession);
    world.news();
    world.begin("a");
    assert_eq!(handed(&mut world), (vec![id], vec![]));
}

/// A result that comes after the decision is of a run that nobody wants.
#[test]
fn restart_outweighs_a_late_result() {
    let mut world = working();
    world.steer("a", SteerMode::Restart, "start over");
    world.result("a", ok());
    world.exited("a", Exit::Code(0));
    assert_eq!(world.outcome("a").0, Some(Class::Superseded));
    assert_eq!(world.live(), ["a"], "it runs again");
}

#[test]
fn restart_of_what_does_not_run_is_a_message_like_any_other() {
    let plan = batch().task("first").task("a").after(&["first"]);
    let mut world = World::start(plan);
    let id = world.steer("a", SteerMode::Restart, "begin like this");
    assert_eq!(world.last.urgent, []);
    world.succeed("first");
    world.begin("a");
    assert_eq!(handed(&mut world).0, [id]);
    assert_eq!(world.attempt("a").no, AttemptNo(1));
}

/// A proof reads no mail: what comes meanwhile is for the next attempt, if there is one.
#[test]
fn messages_wait_while_the_proof_is_made() {
    for mode in [SteerMode::After, SteerMode::Restart] {
        let mut world = World::start(batch().task("a").verified());
        world.begin("a");
        world.ends("a", ok());
        let id = world.steer("a", mode, "and the docs");
        assert_eq!(world.last.urgent, [], "{mode:?} does not end a proof");
        world.news();
        world.begin("a");
        assert_eq!(handed(&mut world), (vec![], vec![]));
        world.ends("a", failed(Class::VerifyFailed));
        world.pass(mins(2));
        world.begin("a");
        assert_eq!(handed(&mut world), (vec![id], vec![]), "{mode:?}");
    }
}

#[test]
fn a_run_that_is_told_to_end_takes_no_messages() {
    let mut world = World::start(batch().tasks(&["a", "other"]));
    world.begin("a");
    world.pause("a", true);
    let id = after(&mut world, "a", "for afterwards");
    assert_eq!(handed(&mut world), (vec![], vec![]));
    world.exited("a", Exit::Code(0));
    assert_eq!(world.state("a"), TaskState::Paused);
    assert_eq!(rung(&world, id), MessageState::Queued);
    world.resume("a");
    world.begin("a");
    assert_eq!(handed(&mut world), (vec![id], vec![]));
}

/// The agent may say that it started after it was told to end: still no messages.
#[test]
fn a_late_start_takes_no_messages() {
    let mut world = World::start(batch().task("a"));
    world.spawned("a");
    world.greeted("a");
    let id = after(&mut world, "a", "hello");
    world.pause("a", true);
    world.started("a");
    assert_eq!(rung(&world, id), MessageState::Queued);
}

/// The note of `retry` is a message to the next attempt; an empty one is none.
#[test]
fn a_note_goes_with_the_retry() {
    for (note, count) in [(Some("mind the tests"), 1), (None, 0)] {
        let plan = batch().task("a").spec(|spec| spec.attempts = 1);
        let mut world = World::start(plan);
        world.fail("a", Class::AgentFailed);
        let tasks = world.ixs(&["a"]);
        world.op_lines(OperatorCommand::Retry {
            tasks,
            mode: RetryMode::Fresh,
            attempts: None,
            note: note.map(Into::into),
        });
        world.news();
        world.begin("a");
        assert_eq!(handed(&mut world).0.len(), count, "{note:?}");
    }
}
