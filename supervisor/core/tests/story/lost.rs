//! Runs that vanish: nothing is consumed, and nobody is lost for ever.

use super::harness::*;

#[test]
fn lost_consumes_nothing_and_goes_on_at_once() {
    let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 1));
    world.begin("a");
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.outcome("a"), (Some(Class::Lost), 0));
    assert_eq!(world.live(), ["a"]);
    assert_eq!(world.attempt("a").no, AttemptNo(2));
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
}

#[test]
fn lost_max_in_a_row_quarantines_the_task() {
    let plan = batch()
        .set(|settings| settings.lost_max = 4)
        .tasks(&["a", "b"]);
    let mut world = World::start(plan);
    for nth in 1..4 {
        world.begin("a");
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.task("a").lost, nth);
    }
    world.begin("a");
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.at("a"), (TaskState::Failed, TaskReason::Quarantined));
    assert_eq!(
        world.live(),
        ["b"],
        "one poisoned task does not hold up the rest"
    );
    assert_eq!(world.retry("a"), "a: is tried again");
    assert_eq!(world.task("a").lost, 0, "reopened: counted anew");
}

#[test]
fn lost_is_counted_in_a_row_only() {
    let plan = batch()
        .set(|settings| settings.lost_max = 2)
        .task("a")
        .spec(|spec| spec.attempts = 9);
    let mut world = World::start(plan);
    for _ in 0..4 {
        world.begin("a");
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.task("a").lost, 1);
        world.fail_and_wait("a", Class::AgentFailed);
        assert_eq!(world.task("a").lost, 0, "it got somewhere in between");
    }
}

#[test]
fn lost_over_crashes_of_the_supervisor_quarantines_too() {
    let plan = batch().set(|settings| settings.lost_max = 3).task("a");
    let mut world = World::start(plan);
    for _ in 0..2 {
        world.begin("a");
        world.crash_and_lose();
        assert_eq!(world.live(), ["a"]);
    }
    world.begin("a");
    world.crash_and_lose();
    assert_eq!(world.at("a"), (TaskState::Failed, TaskReason::Quarantined));
    assert_eq!(world.task("a").consumed, 0);
}

/// How the kernel says a host ended, and what that makes of a run without a result.
#[test]
fn every_exit_without_a_result_has_its_class() {
    let table = [
        // (how far it was, exit, class)
        ("spawned", Exit::Code(0), Class::NoResult),
        ("spawned", Exit::Code(3), Class::SpawnFailure),
        ("spawned", Exit::Signal(11), Class::Crash),
        ("spawned", Exit::Signal(9), Class::Lost),
        ("greeted", Exit::Code(0), Class::NoResult),
        ("greeted", Exit::Code(3), Class::Crash),
        ("started", Exit::Code(0), Class::NoResult),
        ("started", Exit::Code(101), Class::Crash),
        ("started", Exit::Signal(6), Class::Crash),
        ("started", Exit::Signal(9), Class::Lost),
        ("started", Exit::Unseen, Class::Lost),
    ];
    for (stage, exit, class) in table {
        let mut world = World::start(batch().task("a"));
        world.spawned("a");
        if stage != "spawned" {
            world.greeted("a");
        }
        if stage == "started" {
            world.started("a");
        }
        world.exited("a", exit);
        assert_eq!(world.outcome("a").0, Some(class), "{stage}, then {exit:?}");
    }
}

/// An exit that overtakes the spawn's answer ends the run; the answer then finds nobody.
#[test]
fn exit_before_the_spawn_answer() {
    let mut world = World::start(batch().task("a"));
    let generation = world.run("a");
    world.exited_run(generation, Exit::Code(1), None);
    assert_eq!(world.outcome("a").0, Some(Class::SpawnFailure));
    let identity = world.identity();
    world.news();
    world.handle(Input::HostSpawned {
        generation,
        identity,
        containment: Default::default(),
    });
    assert_eq!(
        world.news(),
        [Effect::KillHost { generation }],
        "I3: nothing stays behind"
    );
    assert_eq!(world.last.entries, []);
}

/// The operator's kill of a host from outside is no crash of the agent.
#[test]
fn sigkill_from_outside_is_lost_with_its_durable_result_imported() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    let generation = world.run("a");
    world.exited_run(generation, Exit::Signal(9), Some(ok()));
    assert_eq!(
        world.state("a"),
        TaskState::Done,
        "the result was durable before it died"
    );
}

/// The kernel's word for the death of a host makes it want of memory, not a loss: it counts.
#[test]
fn a_host_killed_for_want_of_memory_is_not_lost() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    let generation = world.run("a");
    world.handle(Input::HostExited {
        generation,
        exit: Exit::Signal(9),
        durable: None,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
        oom: Some("its cgroup counts 1".into()),
    });
    assert_eq!(world.outcome("a"), (Some(Class::Oom), 1));
    let last = world.task("a").last.as_deref().unwrap();
    assert_eq!(&*last.detail, "its cgroup counts 1");
}

/// Only a kill is explained by it: a host that died by itself has its own reason.
#[test]
fn evidence_of_the_kernel_explains_nothing_but_kills() {
    for (exit, class) in [
        (Exit::Signal(11), Class::Crash),
        (Exit::Code(0), Class::NoResult),
    ] {
        let mut world = World::start(batch().task("a"));
        world.begin("a");
        let generation = world.run("a");
        world.handle(Input::HostExited {
            generation,
            exit,
            durable: None,
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
            oom: Some("its cgroup counts 1".into()),
        });
        assert_eq!(world.outcome("a").0, Some(class));
    }
}

/// What a family used stays with its attempt: the most of its runs for memory, their sum for time.
#[test]
fn the_outcome_says_what_the_families_used() {
    use protocol::report::Family;
    let used = |memory_peak_bytes, cpu_ms| Family {
        memory_peak_bytes,
        cpu_ms,
        ..Family::default()
    };
    let mut world = World::start(batch().task("a").verified());
    world.begin("a");
    let generation = world.run("a");
    let pong = Pong {
        output_bytes: 0,
        family: used(700, 30),
    };
    world.handle(Input::HostPonged { generation, pong });
    let mut result = ok();
    result.family = Some(used(500, 40));
    world.ends("a", result);
    world.begin("a");
    let mut result = ok();
    result.family = Some(used(300, 5));
    world.ends("a", result);
    let footprint = world.task("a").last.as_deref().unwrap().footprint;
    assert_eq!((footprint.memory_peak_bytes, footprint.cpu_ms), (700, 45));
}
