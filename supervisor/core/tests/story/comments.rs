//! Comments on what a task is about: told once, waited for by the end of the batch alone, and by that
//! not for ever.

use supervisor_core::machine::CommentState;

use super::harness::*;

/// What became of comments, in order.
fn moves(world: &World) -> Vec<(CommentOn, CommentState)> {
    let records = world.journal.iter().map(|entry| &entry.record);
    let moves = records.filter_map(|record| match record {
        Record::CommentMoved { on, to, .. } => Some((*on, *to)),
        _ => None,
    });
    moves.collect()
}

fn batch_state(world: &World) -> BatchState {
    world.facts().batch.state
}

fn posts(world: &mut World, on: CommentOn, result: RunResult) {
    let generation = world.run_of(Purpose::Comment(on));
    world.run_says(generation, result);
}

/// A task that has failed, and tells of it.
fn failing() -> World {
    let once = batch().task("a").telling().spec(|spec| spec.attempts = 1);
    let mut world = World::start(once);
    world.succeed("a");
    world.fail("a", Class::AgentFailed);
    assert_eq!(world.state("a"), TaskState::Failed);
    world
}

#[test]
fn a_task_that_is_to_tell_nothing_tells_nothing() {
    let mut world = World::start(batch().task("a").fetched());
    world.succeed("a");
    world.asks("a", "well?");
    world.succeed("a");
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(moves(&world), []);
    assert_eq!(batch_state(&world), BatchState::Done);
}

#[test]
fn a_failure_is_told_and_the_end_of_the_batch_waits_for_it() {
    let mut world = failing();
    assert_eq!(batch_state(&world), BatchState::Running);
    posts(&mut world, CommentOn::Failed, ok());
    assert_eq!(batch_state(&world), BatchState::Failed);
    let told = [CommentState::Queued, CommentState::Posted].map(|to| (CommentOn::Failed, to));
    assert_eq!(moves(&world), told);
}

#[test]
fn what_a_task_does_next_does_not_wait_for_its_comment() {
    let mut world = World::start(batch().task("a").telling().task("b").after(&["a"]));
    world.succeed("a");
    world.succeed("a");
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.state("b"), TaskState::Running);
    world.run_of(Purpose::Comment(CommentOn::Done));
    world.succeed("b");
    assert_eq!(batch_state(&world), BatchState::Running);
    posts(&mut world, CommentOn::Done, ok());
    assert_eq!(batch_state(&world), BatchState::Done);
}

#[test]
fn a_question_is_told_while_it_waits_and_not_once_it_is_settled() {
    let mut world = World::start(batch().task("a").telling());
    world.succeed("a");
    world.begin("a");
    let Answer::Asked(first) = world.asks("a", "well?") else {
        panic!("it may ask");
    };
    let Answer::Asked(second) = world.asks("a", "and?") else {
        panic!("it may ask again");
    };
    let answered = OperatorCommand::Answer {
        question: second,
        text: "so".into(),
    };
    world.op(answered);
    posts(&mut world, CommentOn::Question(first), ok());
    let (queued, posted, failed) = (
        CommentState::Queued,
        CommentState::Posted,
        CommentState::Failed,
    );
    assert_eq!(
        moves(&world),
        [
            (CommentOn::Question(first), queued),
            (CommentOn::Question(second), queued),
            (CommentOn::Question(first), posted),
            (CommentOn::Question(second), failed),
        ]
    );
}

#[test]
fn a_forge_out_of_reach_is_tried_a_bounded_number_of_times() {
    let mut world = failing();
    let mut runs = 0;
    while batch_state(&world) == BatchState::Running {
        posts(&mut world, CommentOn::Failed, failed(Class::Network));
        runs += 1;
        assert!(runs < 20, "it goes on for ever");
        world.pass(Duration::from_secs(180));
    }
    assert_eq!(runs, 6);
    assert_eq!(batch_state(&world), BatchState::Failed);
    assert_eq!(
        moves(&world).last(),
        Some(&(CommentOn::Failed, CommentState::Failed))
    );
    assert_eq!(
        world.account(),
        AccountState::Open,
        "no account of an agent pays for it"
    );
}

#[test]
fn a_comment_that_is_refused_is_given_up_at_once() {
    let mut world = failing();
    posts(&mut world, CommentOn::Failed, failed(Class::SetupFailed));
    assert_eq!(batch_state(&world), BatchState::Failed);
    assert_eq!(
        world.at("a").1,
        TaskReason::Failed(Class::AgentFailed),
        "the task is as it was"
    );
}

#[test]
fn a_comment_whose_host_vanished_or_whose_supervisor_died_is_done_again() {
    let mut world = failing();
    let generation = world.run_of(Purpose::Comment(CommentOn::Failed));
    world.run_vanishes(generation);
    world.pass(Duration::from_secs(180));
    world.run_of(Purpose::Comment(CommentOn::Failed));
    world.crash_and_recover(ProcessFact::Gone, ResultFact::Absent);
    world.pass(Duration::from_secs(180));
    posts(&mut world, CommentOn::Failed, ok());
    assert_eq!(batch_state(&world), BatchState::Failed);
    let posted = moves(&world)
        .into_iter()
        .filter(|(_, to)| *to == CommentState::Posted);
    assert_eq!(posted.count(), 1);
}

#[test]
fn a_failure_that_is_no_longer_so_is_not_told() {
    let mut world = failing();
    let generation = world.run_of(Purpose::Comment(CommentOn::Failed));
    world.run_vanishes(generation);
    world.retry("a");
    world.pass(Duration::from_secs(180));
    let last = moves(&world).pop();
    assert_eq!(last, Some((CommentOn::Failed, CommentState::Failed)));
    assert_eq!(world.other_runs(), []);
}

#[test]
fn comments_of_journals_that_do_not_follow_are_refused() {
    let world = failing();
    let facts = world.facts().clone();
    let says = |on, to| {
        let mut core = Core::restore(facts.clone());
        let batch = &core.facts().unwrap().batch;
        let entry = Entry {
            seq: batch.seq + 1,
            term: batch.term,
            now: batch.now,
            record: Record::CommentMoved {
                task: TaskIx(0),
                on,
                to,
                at: None,
                detail: "".into(),
            },
        };
        core.replay(&entry).is_err()
    };
    // Its run is under way.
    assert!(says(CommentOn::Failed, CommentState::Posted));
    assert!(
        says(CommentOn::Done, CommentState::Posted),
        "nothing of the kind is queued"
    );
    assert!(!says(CommentOn::Done, CommentState::Queued));
}
