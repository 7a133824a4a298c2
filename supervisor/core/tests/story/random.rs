//! Inputs in any order, sensible or not, over small plans of any shape: after every one the
//! harness's checks hold (no defect, replay and restore give equal facts, nobody works twice), a
//! tick leaves nothing due, and in the end everything can be ended.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use supervisor_core::input::ReplyId;
use supervisor_core::plan::{Dependency, Plan, RetryPolicy};

use protocol::report::Family;

use super::harness::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One task of a random plan.
#[derive(Debug, Clone)]
struct Shape {
    /// Bit `n`: depends on the task before it at distance `n` + 1.
    needs: u8,
    any_end: bool,
    verify: bool,
    attempts: u32,
    touches: bool,
    stop_on_crash: bool,
    on_question: u8,
    hours_ahead: u64,
}

#[derive(Debug, Clone)]
struct Outline {
    lanes: u32,
    on_failure: u8,
    max_failures: Option<u32>,
    ask: bool,
    seed: u64,
    tokens: Option<u64>,
    shapes: Vec<Shape>,
}

/// What happens next; numbers are folded onto what is there, or miss it on purpose.
#[derive(Debug, Clone)]
enum Step {
    /// The next thing that a well-behaved host would do.
    Sensible(u8),
    Spawned(u64),
    SpawnFailed(u64),
    Greeted(u64),
    HelloRefused(u64),
    StartFailed(u64),
    Report(u64, u64, u8),
    Asked(u64),
    Sent(u64, u8),
    Ponged(u64, u8),
    Fault(u64, bool),
    Exited(u64, u8, bool),
    Operator(u8, u8, u8),
    /// The batch file was edited: another outline, without the tasks of these bits.
    Revise(Box<Outline>, u8),
    Pass(u64),
    Sleep,
    Disk(bool),
    Crash(Vec<u8>, bool),
}

fn shapes() -> impl Strategy<Value = Shape> {
    let kinds = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (
        0u8..8,
        1u32..4,
        0u8..4,
        prop_oneof![5 => Just(0), 1 => 1u64..5],
    );
    (kinds, numbers).prop_map(
        |((any_end, verify, touches, stop), (needs, attempts, asks, ahead))| Shape {
            needs,
            any_end,
            verify,
            attempts,
            touches,
            stop_on_crash: stop,
            on_question: asks,
            hours_ahead: ahead,
        },
    )
}

fn outlines() -> impl Strategy<Value = Outline> {
    let rules = (1u32..4, 0u8..3, prop::option::of(0u32..3), any::<bool>());
    let seed = (any::<u64>(), prop::option::of(50u64..500));
    (rules, seed, vec(shapes(), 1..=NAMES.len())).prop_map(|(rules, seed, shapes)| Outline {
        lanes: rules.0,
        on_failure: rules.1,
        max_failures: rules.2,
        ask: rules.3,
        seed: seed.0,
        tokens: seed.1,
        shapes,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    let run = || 0u64..12;
    prop_oneof![
        24 => any::<u8>().prop_map(Step::Sensible),
        1 => run().prop_map(Step::Spawned),
        2 => run().prop_map(Step::SpawnFailed),
        1 => run().prop_map(Step::Greeted),
        1 => run().prop_map(Step::HelloRefused),
        1 => run().prop_map(Step::StartFailed),
        4 => (run(), run(), any::<u8>()).prop_map(|(a, b, c)| Step::Report(a, b, c)),
        2 => run().prop_map(Step::Asked),
        2 => (run(), 0..6_u8).prop_map(|(run, to)| Step::Sent(run, to)),
        1 => (run(), any::<u8>()).prop_map(|(a, b)| Step::Ponged(a, b)),
        1 => (run(), any::<bool>()).prop_map(|(a, b)| Step::Fault(a, b)),
        3 => (run(), 0u8..5, any::<bool>()).prop_map(|(a, b, c)| Step::Exited(a, b, c)),
        6 => (0u8..14, any::<u8>(), any::<u8>()).prop_map(|(a, b, c)| Step::Operator(a, b, c)),
        2 => (outlines(), any::<u8>()).prop_map(|(a, b)| Step::Revise(Box::new(a), b)),
        5 => select(vec![1u64, 10, 15, 60, 700, 4000]).prop_map(Step::Pass),
        1 => Just(Step::Sleep),
        1 => any::<bool>().prop_map(Step::Disk),
        2 => (vec(any::<u8>(), 4), any::<bool>()).prop_map(|(a, b)| Step::Crash(a, b)),
    ]
}

fn plan(outline: &Outline) -> PlanBuilder {
    let first = World::empty().now.wall;
    let mut plan = batch().lanes(outline.lanes).set(|settings| {
        settings.on_failure = match outline.on_failure {
            0 => OnFailure::SkipDependents,
            1 => OnFailure::Stop,
            _ => OnFailure::Continue,
        };
        settings.max_failures = outline.max_failures.map(MaxFailures::Count);
        settings.limits.tokens = outline.tokens;
        settings.lost_max = 3;
    });
    if outline.ask {
        plan = plan.account("main", |account| account.auto_resume = AutoResume::Ask);
    }
    for (at, shape) in outline.shapes.iter().enumerate() {
        let before: Vec<&str> = (0..3)
            .filter(|bit| shape.needs & (1 << bit) != 0)
            .filter_map(|bit| at.checked_sub(bit + 1))
            .map(|at| NAMES[at])
            .collect();
        plan = plan.task(NAMES[at]).spec(|spec| {
            spec.verify = shape.verify;
            spec.attempts = shape.attempts;
            spec.retry = RetryPolicy {
                by_class: [(Class::Crash, RetryMode::Stop)]
                    .into_iter()
                    .filter(|_| shape.stop_on_crash)
                    .collect(),
                ..spec.retry.clone()
            };
            spec.on_question = match shape.on_question {
                0 => OnQuestion::Wait,
                1 => OnQuestion::Default("yes".into()),
                2 => OnQuestion::WaitThenDefault("no".into()),
                _ => OnQuestion::Fail,
            };
            spec.not_before = (shape.hours_ahead > 0).then(|| first + hours(shape.hours_ahead));
        });
        plan = if shape.any_end {
            plan.after_end(&before)
        } else {
            plan.after(&before)
        };
        if shape.touches {
            plan = plan.touches(&["src/**"]);
        }
    }
    plan
}

/// Another plan, some of its tasks left out, its agent now and then another one.
fn edited(world: &World, outline: &Outline, gone: u8) -> Plan {
    let mut plan = plan(outline).plan();
    if outline.ask {
        plan.agents[0].work = "{\"other\":1}".into();
    }
    plan.settings.work = format!("{gone}").into();
    let stays: Vec<bool> = (0..plan.tasks.len())
        .map(|at| at == 0 || gone & (1 << (at % 8)) == 0)
        .collect();
    let number = |at: usize| stays[..at].iter().filter(|stays| **stays).count();
    let mut kept = Vec::new();
    for (_, mut task) in plan.tasks.drain(..).enumerate().filter(|it| stays[it.0]) {
        let edges = task.depends_on.iter();
        task.depends_on = edges
            .filter(|edge| stays[edge.task.0 as usize])
            .map(|edge| Dependency {
                task: TaskIx(u32::try_from(number(edge.task.0 as usize)).unwrap()),
                condition: edge.condition,
            })
            .collect();
        kept.push(task);
    }
    plan.tasks = kept;
    // The order of the file is not the order of the batch.
    if gone & 1 == 1 && world.facts().batch.revision.is_multiple_of(2) {
        let last = u32::try_from(plan.tasks.len() - 1).unwrap();
        plan.tasks.reverse();
        for task in &mut plan.tasks {
            for edge in &mut task.depends_on {
                edge.task.0 = last - edge.task.0;
            }
        }
    }
    plan
}

fn class(pick: u8) -> Class {
    Class::ALL[pick as usize % Class::ALL.len()]
}

fn result(pick: u8) -> RunResult {
    if pick.is_multiple_of(3) {
        failed(class(pick / 3))
    } else {
        ok()
    }
}

fn event(pick: u8) -> Event {
    match pick % 5 {
        0 => said("working"),
        1 => Event::Usage(used(u64::from(pick))),
        2 => Event::MessageInjected {
            id: MessageId(u64::from(pick / 5 % 4)),
        },
        3 => Event::MessageSeen {
            id: MessageId(u64::from(pick / 5 % 4)),
        },
        _ => Event::Result(Box::new(result(pick / 5))),
    }
}

/// What a host of the `pick`th live run would do now, if there is one.
fn sensible(world: &mut World, pick: u8) {
    let live = world.live();
    let Some(name) = live.get(pick as usize % live.len().max(1)) else {
        return world.tick();
    };
    let generation = world.run(name);
    let Some(run) = world.facts().runs.get(&generation) else {
        return world.tick();
    };
    let greeted = world
        .core
        .live()
        .get(generation)
        .is_some_and(|live| live.gate == supervisor_core::live::Gate::Open);
    match run.state {
        RunState::Intended => world.spawned(name),
        RunState::Spawned if greeted => world.started(name),
        RunState::Spawned => world.greeted(name),
        RunState::Started => world.result(name, result(pick)),
        RunState::Finished | RunState::Stopping | RunState::Ended => {
            world.exited(name, Exit::Code(0));
        }
    }
}

fn command(world: &World, kind: u8, pick: u8, how: u8) -> OperatorCommand {
    let count = world.facts().tasks.len();
    let task = TaskIx(u32::try_from(pick as usize % count).unwrap());
    let tasks = vec![task];
    let all = how & 1 == 1;
    let some = (!all).then(|| tasks.clone());
    match kind {
        0 | 1 => OperatorCommand::Steer {
            tasks,
            mode: match how % 4 {
                0 => SteerMode::Boundary,
                1 => SteerMode::Interrupt,
                2 => SteerMode::After,
                _ => SteerMode::Restart,
            },
            text: "look".into(),
            expires: (how & 8 != 0).then(|| world.now.wall + mins(u64::from(how))),
            wait: None,
        },
        2 | 3 => OperatorCommand::Answer {
            question: QuestionId(u64::from(pick % 4)),
            text: "yes".into(),
        },
        4 => OperatorCommand::Kill {
            tasks,
            grace: secs(u64::from(how % 3)),
        },
        5 => OperatorCommand::Pause {
            tasks: some,
            now: how & 2 != 0,
        },
        6..=8 => OperatorCommand::Resume { tasks: some },
        9 => OperatorCommand::Cancel { tasks: Some(tasks) },
        10 => OperatorCommand::Retry {
            tasks,
            mode: RetryMode::Resume,
            attempts: all.then_some(2),
            note: (how & 2 != 0).then(|| "again".into()),
        },
        11 => OperatorCommand::Skip {
            tasks,
            as_done: all,
        },
        12 => OperatorCommand::Stop(match how % 3 {
            0 => StopStage::Drain,
            1 => StopStage::Stop,
            _ => StopStage::Kill,
        }),
        _ => OperatorCommand::SetConcurrency(u32::from(how % 4)),
    }
}

fn found(generations: &[Generation], picks: &[u8]) -> Vec<(Generation, RunFacts)> {
    let each = generations.iter().zip(picks.iter().cycle());
    let facts = each.map(|(generation, pick)| {
        let process = match pick % 8 {
            0 => ProcessFact::Living,
            1 => ProcessFact::Foreign,
            _ => ProcessFact::Gone,
        };
        let result = match pick / 8 % 4 {
            0 => ResultFact::Durable(Box::new(result(pick / 32))),
            1 => ResultFact::Unreadable,
            _ => ResultFact::Absent,
        };
        let injected = vec![MessageId(u64::from(pick % 4))];
        let facts = RunFacts {
            process,
            result,
            injected,
            cleared: supervisor_core::containment::Cleared::CLEAN,
        };
        (*generation, facts)
    });
    facts.collect()
}

fn crash(world: &mut World, picks: &[u8], reboot: bool) {
    world.crash();
    if reboot {
        world.reboot(mins(3));
    }
    let runs: Vec<Generation> = world.facts().runs.keys().copied().collect();
    world.recover(found(&runs, picks));
    world.tick();
}

fn take(world: &mut World, step: &Step) {
    let input = match step.clone() {
        Step::Sensible(pick) => return sensible(world, pick),
        Step::Pass(seconds) => return world.pass(secs(seconds)),
        Step::Sleep => {
            world.skip(hours(6));
            return world.tick();
        }
        Step::Crash(picks, reboot) => return crash(world, &picks, reboot),
        Step::Operator(kind, pick, how) => {
            let command = command(world, kind, pick, how);
            world.op(command);
            return;
        }
        Step::Revise(outline, gone) => {
            let edited = edited(world, &outline, gone);
            world.op(OperatorCommand::Revise(Box::new(edited)));
            return;
        }
        Step::Spawned(run) => Input::HostSpawned {
            generation: Generation(run),
            identity: world.identity(),
            containment: Default::default(),
        },
        Step::SpawnFailed(run) => Input::SpawnFailed {
            class: protocol::class::Class::SpawnFailure,
            generation: Generation(run),
            error: "no such file".into(),
        },
        Step::Greeted(run) => Input::HostGreeted {
            generation: Generation(run),
        },
        Step::HelloRefused(run) => Input::HelloRefused {
            generation: Generation(run),
            error: "protocol 2, not 1".into(),
        },
        Step::StartFailed(run) => Input::StartFailed {
            generation: Generation(run),
            error: "no template".into(),
        },
        Step::Report(run, claimed, pick) => Input::HostReported {
            generation: Generation(run),
            claimed: Generation(if pick & 1 == 0 { run } else { claimed }),
            event: event(pick / 2),
        },
        Step::Asked(run) => Input::HostAsked {
            generation: Generation(run),
            text: "which?".into(),
            options: Vec::new(),
            reply: world.reply_id(),
        },
        Step::Sent(run, to) => Input::HostSent {
            generation: Generation(run),
            to: TaskIx(u32::from(to)),
            text: "from a colleague".into(),
            reply: world.reply_id(),
        },
        Step::Ponged(run, pick) => Input::HostPonged {
            generation: Generation(run),
            pong: Pong {
                output_bytes: u64::from(pick),
                family: Family {
                    cpu_ms: u64::from(pick),
                    ..Family::default()
                },
            },
        },
        Step::Fault(run, long) => Input::WireFault {
            generation: Generation(run),
            fault: if long {
                WireFault::TooLong
            } else {
                WireFault::Garbage
            },
        },
        Step::Exited(run, how, durable) => Input::HostExited {
            generation: Generation(run),
            exit: [0, 1, 9, 11, 15].map(Exit::Signal)[how as usize],
            durable: durable.then(|| Box::new(ok())),
            injected: vec![MessageId(1)],
            cleared: supervisor_core::containment::Cleared::CLEAN,
            oom: None,
        },
        Step::Disk(true) => Input::DiskFailed,
        Step::Disk(false) => Input::DiskRecovered,
    };
    world.handle(input);
}

/// Whatever happened: once every run is over and the operator wants nothing more, all is settled.
fn wind_up(world: &mut World) {
    world.crash_and_lose();
    world.op(OperatorCommand::Cancel { tasks: None });
    let runs: Vec<Generation> = world.facts().runs.keys().copied().collect();
    for generation in runs {
        world.exited_run(generation, Exit::Signal(9), None);
    }
    world.tick();
    assert!(world.facts().runs.is_empty(), "no run is left");
    for task in &world.facts().tasks {
        assert!(task.state.is_terminal(), "{} is {}", task.id, task.state);
    }
    let ending = world.ending();
    assert!(
        matches!(ending, Some(Ending::Done | Ending::Failed)),
        "{ending:?} of {:?}",
        world.batch_at()
    );
}

fn not_repeatable(world: &World) -> Vec<&Effect> {
    let effects = world.effects.iter();
    effects
        .filter(|it| !matches!(it, Effect::KillHost { .. } | Effect::Finish { .. }))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_inputs_keep_every_promise(outline in outlines(), steps in vec(steps(), 1..60)) {
        let mut world = World::seeded(plan(&outline), outline.seed);
        world.recover(Vec::new());
        world.tick();
        for step in &steps {
            take(&mut world, step);
            world.tick();
        }
        wind_up(&mut world);
    }

    /// A core that is replaced before every input decides the same as one that never is. A
    /// deadline that was over is over once more: a kill, or the word that nothing is left to be done,
    /// is then said twice, which changes nothing.
    #[test]
    fn a_replaced_core_decides_as_the_first_one_would(
        outline in outlines(),
        steps in vec(steps(), 1..40),
    ) {
        let mut worlds = [false, true].map(|replaced| {
            let mut world = World::seeded(plan(&outline), outline.seed);
            world.recover(Vec::new());
            world.tick();
            (replaced, world)
        });
        for step in &steps {
            for (replaced, world) in &mut worlds {
                if *replaced {
                    world.replace();
                }
                take(world, step);
                if *replaced {
                    world.replace();
                }
                world.tick();
            }
            let [(_, first), (_, second)] = &worlds;
            prop_assert_eq!(&first.journal, &second.journal);
            prop_assert_eq!(not_repeatable(first), not_repeatable(second));
        }
    }

    /// Before the first record nothing but a creation means anything.
    #[test]
    fn inputs_before_the_batch_mean_nothing(run in any::<u64>(), pick in any::<u8>()) {
        let mut world = World::empty();
        let generation = Generation(run);
        let identity = world.identity();
        let inputs = [
            Input::Tick,
            Input::DiskFailed,
            Input::HostSpawned { generation, identity, containment: Default::default() },
            Input::HostReported { generation, claimed: generation, event: event(pick) },
            Input::Operator {
                reply: ReplyId(run),
                command: OperatorCommand::Cancel { tasks: None },
            },
        ];
        for input in inputs {
            world.handle(input);
        }
        prop_assert!(world.journal.is_empty() && world.effects.is_empty());
    }
}

/// Found by these inputs: nothing is said to, or believed of, a run that nobody of this term holds.
#[test]
fn an_unresolved_run_neither_hears_nor_speaks() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    let run = world.run("a");
    world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
    world.news();
    let id = world.steer("a", SteerMode::Boundary, "hello");
    assert_eq!(world.facts().messages[&id].state, MessageState::Queued);
    world.exited_run(run, Exit::Code(0), Some(ok()));
    assert_eq!(world.reason("a"), TaskReason::Unresolved(Letter::G));
}

/// A host begins only behind its durable identity: a result before it is none of this run's.
#[test]
fn a_result_before_the_spawn_is_not_believed() {
    let mut world = World::start(batch().task("a"));
    let run = world.run("a");
    world.exited_run(run, Exit::Code(0), Some(ok()));
    assert_ne!(world.state("a"), TaskState::Done);
}
