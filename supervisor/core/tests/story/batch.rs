//! The batch itself: created, taken over, paused by its disk, settled.

use super::harness::*;

/// Before there is a batch nothing means anything, and nothing is asked for.
#[test]
fn nothing_happens_before_creation() {
    let mut world = World::empty();
    world.tick();
    world.recover(Vec::new());
    world.handle(Input::DiskFailed);
    assert!(world.journal.is_empty() && world.effects.is_empty());
    assert_eq!(world.core.next_deadline().boot, None);
    assert!(world.core.facts().is_none() && world.core.index().is_none());
}

/// A created batch waits for its supervisor: no term, no host.
#[test]
fn creation_starts_nothing() {
    let mut world = World::created(batch().tasks(&["a", "b"]));
    assert_eq!(world.facts().batch.term, 0);
    assert_eq!(world.batch_at().0, BatchState::Interrupted);
    assert!(world.effects.is_empty());
    world.recover(Vec::new());
    assert_eq!(world.facts().batch.term, 1);
    assert!(world.spawns().is_empty(), "what waits for it comes first");
    world.tick();
    assert_eq!(world.spawns(), ["a", "b"]);
}

/// The first record makes the batch; a second creation is no input for it.
#[test]
fn a_second_creation_changes_nothing() {
    let mut world = World::start(batch().task("a"));
    let facts = world.facts().clone();
    let again = batch().tasks(&["x", "y"]).created(3);
    world.handle(Input::Created(Box::new(again)));
    assert_eq!(world.facts(), &facts);
}

/// I6: each supervisor has a term of its own, in each of its records.
#[test]
fn every_take_over_is_a_new_term() {
    let mut world = World::start(batch().task("a"));
    for term in 2..5 {
        world.crash_and_lose();
        assert_eq!(world.facts().batch.term, term);
        let last = world.journal.last().unwrap();
        assert_eq!(last.term, term);
    }
    assert_eq!(world.task("a").lost, 3);
}

/// A batch is closed by the tick after the take-over, not before queued commands were heard.
#[test]
fn recovery_hears_commands_before_it_closes() {
    let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 1));
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.ending(), Some(Ending::Failed));
    world.crash();
    world.recover(Vec::new());
    assert_eq!(world.ending(), None, "first the commands");
    assert_eq!(
        world.core.next_deadline().boot,
        Some(world.now.boot),
        "a tick is owed"
    );
    world.retry("a");
    world.tick();
    assert_eq!(world.live(), ["a"]);
}

/// Without commands the next supervisor of a batch that is over says the same again.
#[test]
fn recovery_of_a_batch_that_is_over() {
    let mut world = World::start(batch().task("a"));
    world.succeed("a");
    world.crash();
    world.recover(Vec::new());
    world.tick();
    assert_eq!(world.batch_at(), (BatchState::Done, BatchReason::Settled));
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// I9: a disk that can not be written pauses the batch; what runs goes on, nothing new starts.
#[test]
fn disk_failure_pauses_and_recovery_goes_on() {
    let mut world = World::start(batch().lanes(1).tasks(&["a", "b"]));
    world.begin("a");
    world.handle(Input::DiskFailed);
    assert_eq!(world.batch_at(), (BatchState::Paused, BatchReason::Disk));
    assert_eq!(world.run_state("a"), RunState::Started);
    world.ends("a", ok());
    assert!(world.live().is_empty());
    world.pass(hours(3));
    assert_eq!(
        world.ending(),
        None,
        "it waits for the disk, not for a person"
    );
    world.handle(Input::DiskRecovered);
    assert_eq!(
        world.batch_at(),
        (BatchState::Running, BatchReason::Working)
    );
    assert_eq!(world.live(), ["b"]);
}

/// A disk that fails while the operator paused the batch does not turn the pause into a disk's.
#[test]
fn disk_recovery_does_not_resume_the_operators_pause() {
    let orders: [[Input; 2]; 2] = [
        [Input::DiskFailed, Input::DiskRecovered],
        [Input::DiskRecovered, Input::DiskFailed],
    ];
    for order in orders {
        let mut world = World::start(batch().task("a"));
        world.op_lines(OperatorCommand::Pause {
            tasks: None,
            now: false,
        });
        for input in order {
            world.handle(input);
        }
        assert_eq!(
            world.batch_at(),
            (BatchState::Paused, BatchReason::Operator)
        );
    }
}

/// A batch whose every task settled while its disk was full is closed all the same.
#[test]
fn disk_pause_ends_with_the_batch() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    world.handle(Input::DiskFailed);
    world.ends("a", ok());
    assert_eq!(world.batch_at().0, BatchState::Done);
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// I4: the disk's failure stops no kill.
#[test]
fn disk_failure_delays_no_stop() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    world.handle(Input::DiskFailed);
    world.kill("a", Duration::ZERO);
    let generation = world.run("a");
    assert_eq!(world.last.urgent, [Effect::KillHost { generation }]);
}

/// The endings and what they are made of.
#[test]
fn settle_says_how_it_ended() {
    type Live = fn(&mut World);
    let cases: [(&str, Live, Ending, BatchState); 6] = [
        (
            "all done",
            |world| world.succeed("a"),
            Ending::Done,
            BatchState::Done,
        ),
        (
            "a failure",
            |world| world.fail("a", Class::Timeout),
            Ending::Failed,
            BatchState::Failed,
        ),
        (
            "a cancel",
            |world| {
                world.cancel("a");
                world.exited("a", Exit::Code(0));
            },
            Ending::Failed,
            BatchState::Failed,
        ),
        (
            "a paused task",
            |world| {
                world.pause("a", true);
                world.exited("a", Exit::Code(0));
            },
            Ending::NeedsPerson,
            BatchState::Paused,
        ),
        (
            "a stopped account",
            |world| world.fail("a", Class::Auth),
            Ending::NeedsPerson,
            BatchState::Paused,
        ),
        (
            "a stop",
            |world| {
                world.stop(StopStage::Kill);
                world.exited("a", Exit::Signal(9));
            },
            Ending::Interrupted,
            BatchState::Interrupted,
        ),
    ];
    for (how, live, ending, state) in cases {
        let mut world = World::start(batch().task("a"));
        world.begin("a");
        let run = world.run("a");
        assert_eq!(
            world.facts().runs.keys().copied().collect::<Vec<_>>(),
            [run]
        );
        live(&mut world);
        assert_eq!(world.ending(), Some(ending), "{how}");
        assert_eq!(world.batch_at().0, state, "{how}");
    }
}

/// As long as any task can move by itself, nobody is called.
#[test]
fn needs_person_only_when_nothing_else_moves() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.fail("a", Class::Refused);
    assert_eq!(world.ending(), None, "b runs");
    world.fail("b", Class::AgentFailed);
    assert_eq!(world.ending(), None, "b comes back after its backoff");
    world.pass(mins(2));
    world.succeed("b");
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    assert_eq!(
        world.batch_at(),
        (BatchState::Paused, BatchReason::NeedsPerson)
    );
}

/// A batch that waited for a person is tried again by `run`, and says the same if nothing changed.
#[test]
fn needs_person_is_asked_anew_by_the_next_supervisor() {
    let mut world = World::start(batch().task("a"));
    world.fail("a", Class::Refused);
    world.crash();
    world.recover(Vec::new());
    world.tick();
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    world.resume_all();
    world.succeed("a");
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A supervisor ends only when every host is gone: I3.
#[test]
fn no_ending_beside_a_live_host() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.begin("b");
    world.stop(StopStage::Kill);
    world.exited("a", Exit::Signal(9));
    world.pass(hours(1));
    assert_eq!(world.ending(), None, "b hangs in the kernel");
    world.exited("b", Exit::Signal(9));
    assert_eq!(world.ending(), Some(Ending::Interrupted));
}

/// Every random choice comes from the seed: the same inputs give the same records, tokens included.
#[test]
fn the_same_inputs_give_the_same_records() {
    let story = |seed| {
        let mut world = World::seeded(batch().tasks(&["a", "b"]), seed);
        world.recover(Vec::new());
        world.tick();
        world.fail("a", Class::Overload);
        world.fail("b", Class::AgentFailed);
        world.pass(hours(1));
        world.journal
    };
    assert_eq!(story(1), story(1));
    assert_ne!(story(1), story(2));
}

/// Spawn tokens are unlike each other, within a batch and between two.
#[test]
fn spawn_tokens_are_never_the_same() {
    let mut tokens = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let names = ["a", "b", "c", "d"];
        let mut world = World::seeded(batch().tasks(&names), seed);
        world.recover(Vec::new());
        world.tick();
        for run in world.facts().runs.values() {
            assert!(tokens.insert(run.token), "a token twice");
        }
    }
    assert_eq!(tokens.len(), 80);
}
