//! A supervisor that is here for clean-ups alone: they go on, and nothing else of the batch moves.

use super::harness::*;

/// `failed` is over, `proven` waits for its proof, `merged` for its merge, `next` for a lane.
fn busy() -> World {
    let plan = batch()
        .set(|it| {
            it.concurrency = 2;
            it.keep = Keep::None;
        })
        .repo("r", |it| it.verify = false)
        .task("failed")
        .within("r")
        .spec(|it| it.attempts = 1)
        .task("merged")
        .within("r")
        .task("proven")
        .within("r")
        .spec(|it| it.verify = true)
        .task("next")
        .within("r");
    let mut world = World::start(plan);
    world.passes_to("failed", Step::Work);
    world.fail("failed", Class::AgentFailed);
    world.passes_all("merged");
    world.passes_to("proven", Step::Prove);
    world
}

/// What is not about a clean-up in what was decided.
fn else_decided(world: &mut World) -> Vec<Record> {
    let mut decided = world.decided();
    decided.retain(|record| {
        !matches!(
            record,
            Record::CleanMoved { .. }
                | Record::CleanEnded { .. }
                | Record::RunSpawned { .. }
                | Record::RunStarted { .. }
                | Record::RunFinished { .. }
                | Record::RunEnded { .. }
                | Record::StopDecided { .. }
                | Record::RunIntended {
                    purpose: Purpose::Clean(_),
                    ..
                }
        )
    });
    decided
}

fn is_gone(world: &World, task: &str) -> bool {
    world.task(task).worktree.is_none()
}

#[test]
fn clean_ups_go_on_and_nothing_else_moves() {
    for stop in [None, Some(StopStage::Drain), Some(StopStage::Stop)] {
        let mut world = busy();
        if let Some(stage) = stop {
            world.stop(stage);
        }
        let before = world.batch_at();
        world.take_over_to_clean();
        let states = |world: &World| {
            let tasks = ["failed", "merged", "proven", "next"];
            tasks.map(|name| {
                (
                    world.state(name),
                    world.task(name).merge.as_ref().map(|it| it.state),
                )
            })
        };
        let was = states(&world);
        world.clean_up("failed");
        world.all_goes_well();
        assert!(is_gone(&world, "failed"), "{stop:?}");
        assert_eq!(else_decided(&mut world), [], "{stop:?}");
        assert_eq!(
            (world.batch_at(), states(&world)),
            (before, was),
            "{stop:?}"
        );
        assert_eq!(world.ending(), Some(Ending::Interrupted), "{stop:?}");
        assert!(world.facts().runs.is_empty());

        world.crash_and_lose();
        world.all_goes_well();
        assert_eq!(world.state("next"), TaskState::Done, "{stop:?}");
        assert_eq!(world.ending(), Some(Ending::Failed), "{stop:?}");
    }
}

#[test]
fn an_operators_pause_remains() {
    let mut world = busy();
    world.op_lines(OperatorCommand::Pause {
        tasks: None,
        now: true,
    });
    let paused = (BatchState::Paused, BatchReason::Operator);
    assert_eq!(world.batch_at(), paused);
    world.take_over_to_clean();
    world.clean_up("failed");
    world.all_goes_well();
    assert!(is_gone(&world, "failed"));
    assert_eq!(
        (world.batch_at(), else_decided(&mut world)),
        (paused, vec![])
    );
    assert_eq!(world.ending(), Some(Ending::Interrupted));
    world.crash_and_lose();
    assert_eq!(world.batch_at(), paused, "until `resume`");
}

/// Dates of the batch, and a disk that fails, do not move what nobody works on.
#[test]
fn neither_time_nor_the_disk_moves_the_batch() {
    let mut world = busy();
    let before = world.batch_at();
    world.take_over_to_clean();
    world.clean_up("failed");
    world.handle(Input::DiskFailed);
    world.handle(Input::DiskRecovered);
    world.pass(Duration::from_secs(20));
    world.tick();
    world.all_goes_well();
    assert!(is_gone(&world, "failed"));
    assert_eq!(
        (world.batch_at(), else_decided(&mut world)),
        (before, vec![])
    );
}

#[test]
fn a_stop_holds_clean_ups_and_the_batch_stays_as_it_was() {
    for stage in [StopStage::Drain, StopStage::Stop, StopStage::Kill] {
        let mut world = busy();
        let before = world.batch_at();
        world.take_over_to_clean();
        world.clean_up("failed");
        let run = world.cleaning(CleanStep::Salvage);
        world.begin_run(run);
        world.stop(stage);
        world.exited_run(run, Exit::Signal(15), None);
        assert_eq!(
            (world.batch_at(), else_decided(&mut world)),
            (before, vec![])
        );
        assert_eq!(world.ending(), Some(Ending::Interrupted), "{stage:?}");
        // The same order again: it is under way, and goes on.
        world.take_over_to_clean();
        world.all_goes_well();
        assert!(is_gone(&world, "failed"), "{stage:?}");
    }
}

#[test]
fn another_program_in_its_place_is_here_for_clean_ups_alone_too() {
    let mut world = busy();
    world.take_over_to_clean();
    world.clean_up("failed");
    world.replace();
    world.all_goes_well();
    assert!(is_gone(&world, "failed"));
    assert_eq!(else_decided(&mut world), []);
}
