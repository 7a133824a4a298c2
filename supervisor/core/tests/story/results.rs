//! What a result is worth: by its order against `StopDecided`, by its generation, and once.

use supervisor_core::live::LEASE;

use super::harness::*;

/// Brings a run that works to its stop for this reason, without any result so far.
fn stop_for(reason: StopReason) -> World {
    let plan = batch().task("a").verified().spec(|spec| {
        spec.silence = mins(5);
        spec.no_progress = mins(10);
        spec.timeout = mins(20);
        spec.limits.tokens = Some(100);
        spec.on_question = match reason {
            StopReason::Question => OnQuestion::Fail,
            _ => OnQuestion::Wait,
        };
    });
    let mut world = World::start(plan);
    if reason == StopReason::NoHello {
        world.spawned("a");
        world.pass(secs(10));
        return world;
    }
    world.begin("a");
    let generation = world.run("a");
    match reason {
        StopReason::Silence => world.pass(mins(5)),
        StopReason::Hung => {
            world.pulse = Pulse::Hung;
            world.pass(LEASE);
        }
        StopReason::NoProgress => {
            world.pulse = Pulse::Busy;
            world.pass(mins(10));
        }
        StopReason::Timeout => {
            world.pulse = Pulse::Printing;
            world.pass(mins(20));
        }
        StopReason::Budget => world.report("a", Event::Usage(used(100))),
        StopReason::Protocol => {
            let fault = WireFault::TooLong;
            world.handle(Input::WireFault { generation, fault });
        }
        StopReason::Question => _ = world.ask("a", "may I?"),
        StopReason::Superseded => _ = world.steer("a", SteerMode::Restart, "start over"),
        StopReason::Paused => assert!(world.pause("a", true).contains("stopping")),
        StopReason::Killed => assert!(world.kill("a", secs(5)).contains("killed")),
        StopReason::Cancelled => assert!(world.cancel("a").contains("stopping")),
        StopReason::Removed => assert!(world.revise(batch()).contains("1 removed")),
        StopReason::Interrupted => assert_eq!(world.stop(StopStage::Stop), "stopping what runs"),
        StopReason::Lingering | StopReason::NoHello => {}
    }
    world
}

fn reason_of(world: &World) -> Option<StopReason> {
    world.facts().runs[&world.run("a")]
        .stop
        .map(|(reason, _)| reason)
}

/// A restart begins the next attempt at once, so an open one need not be the first.
fn is_first_open(world: &World) -> bool {
    let open = world.task("a").attempt.as_ref();
    open.is_some_and(|attempt| attempt.no == AttemptNo(1))
}

/// Lingering is decided only after a result; all others without one.
fn reasons() -> impl Iterator<Item = StopReason> {
    let all = StopReason::ALL.iter().copied();
    all.filter(|reason| *reason != StopReason::Lingering)
}

/// I6: after a stop for a stall, a limit or a shutdown a durable result still goes to verify; after
/// what the operator or the wire decided it is archived.
#[test]
fn late_result_by_order_against_every_stop() {
    for reason in reasons() {
        let mut world = stop_for(reason);
        assert_eq!(reason_of(&world), Some(reason));
        let generation = world.run("a");
        world.exited_run(generation, Exit::Code(0), Some(ok()));
        if reason.late_result_counts() {
            let kept = world.attempt("a").result.is_some();
            assert!(kept, "{}: the result counts", reason.word());
            let proving = world.state("a") == TaskState::Verifying;
            let shutdown = reason == StopReason::Interrupted;
            assert_eq!(proving, !shutdown, "{}: goes to verify", reason.word());
        } else {
            assert!(!is_first_open(&world), "{}: archived", reason.word());
            assert_ne!(world.state("a"), TaskState::Done, "{}", reason.word());
            let class = world.outcome("a").0;
            assert_eq!(class, Some(reason.class()), "{}", reason.word());
        }
    }
}

/// The same over the pipe: reported while the host is on its way out.
#[test]
fn late_report_counts_exactly_as_a_late_file() {
    for reason in reasons().filter(|reason| *reason != StopReason::NoHello) {
        let mut world = stop_for(reason);
        world.result("a", ok());
        let recorded = world.facts().runs[&world.run("a")].result.is_some();
        assert_eq!(recorded, reason.late_result_counts(), "{}", reason.word());
        let generation = world.run("a");
        world.exited_run(generation, Exit::Code(0), None);
        assert_eq!(
            is_first_open(&world),
            reason.late_result_counts(),
            "{}",
            reason.word()
        );
    }
}

/// What the stop leads to when nothing came any more.
#[test]
fn every_stop_without_a_result_has_its_consequence() {
    use TaskState::{Cancelled, Failed, Paused, Ready};
    let table = [
        (StopReason::Silence, Ready, 1),
        (StopReason::NoProgress, Ready, 1),
        (StopReason::Timeout, Failed, 1),
        (StopReason::Budget, Failed, 1),
        (StopReason::NoHello, Ready, 0),
        (StopReason::Protocol, Ready, 1),
        (StopReason::Hung, TaskState::Running, 0),
        (StopReason::Question, Ready, 1),
        (StopReason::Superseded, TaskState::Running, 0),
        (StopReason::Paused, Paused, 0),
        (StopReason::Killed, Paused, 0),
        (StopReason::Cancelled, Cancelled, 0),
        (StopReason::Removed, Cancelled, 0),
        (StopReason::Interrupted, Ready, 0),
    ];
    let named: Vec<StopReason> = table.iter().map(|row| row.0).collect();
    let all: Vec<StopReason> = reasons().collect();
    assert_eq!(named, all, "every reason once");
    for (reason, state, consumed) in table {
        let mut world = stop_for(reason);
        world.exited("a", Exit::Signal(15));
        assert_eq!(world.state("a"), state, "{}", reason.word());
        assert_eq!(
            world.outcome("a"),
            (Some(reason.class()), consumed),
            "{}",
            reason.word()
        );
    }
}

/// A late result of a run that was over its time is proven in peace: the wall limit was about the
/// work, and the work is done.
#[test]
fn late_result_after_timeout_is_proven_and_done() {
    let mut world = stop_for(StopReason::Timeout);
    let generation = world.run("a");
    world.exited_run(generation, Exit::Code(0), Some(ok()));
    assert_eq!(world.state("a"), TaskState::Verifying);
    world.begin("a");
    world.pass(mins(2));
    assert_eq!(reason_of(&world), None, "the proof has limits of its own");
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Done);
}

/// A result before the stop wins, whatever the stop was for, where no proof is missing.
#[test]
fn early_result_wins_over_every_later_stop() {
    for stop in ["cancel", "kill", "shutdown"] {
        let mut world = World::start(batch().task("a"));
        world.begin("a");
        world.result("a", ok());
        match stop {
            "cancel" => assert!(world.cancel("a").contains("cancelled")),
            "kill" => assert!(world.kill("a", secs(1)).contains("killed")),
            _ => assert_eq!(world.stop(StopStage::Kill), "killing what runs"),
        }
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.state("a"), TaskState::Done, "{stop} came too late");
    }
}

/// Where a proof is missing the operator's word ends the attempt: done needs proof.
#[test]
fn early_result_without_its_proof_is_not_done() {
    let mut world = World::start(batch().task("a").verified());
    world.begin("a");
    world.result("a", ok());
    world.cancel("a");
    world.exited("a", Exit::Code(0));
    assert_eq!(
        world.at("a"),
        (TaskState::Cancelled, TaskReason::CancelledByOperator)
    );
    let last = world.task("a").last.as_ref().unwrap();
    assert_eq!(
        &*last.summary, "done",
        "what the agent said is kept for people"
    );
}

/// A pause that finds the result in lets the attempt end first.
#[test]
fn pause_now_after_the_result_waits_for_the_end() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    world.result("a", ok());
    assert_eq!(world.pause("a", true), "a: paused after its attempt");
    world.exited("a", Exit::Code(0));
    assert_eq!(world.state("a"), TaskState::Done);
}

/// A stop that weighs more replaces one that weighs less, never the other way.
#[test]
fn the_operators_word_outweighs_what_the_core_found() {
    let mut world = stop_for(StopReason::Silence);
    world.cancel("a");
    assert_eq!(reason_of(&world), Some(StopReason::Cancelled));
    world.result("a", ok());
    assert!(
        world.facts().runs[&world.run("a")].result.is_none(),
        "now it is archived"
    );
    world.kill("a", Duration::ZERO);
    assert_eq!(
        reason_of(&world),
        Some(StopReason::Cancelled),
        "a kill does not undo a cancel"
    );
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.state("a"), TaskState::Cancelled);
}

/// A host that speaks for another run than its own is counted, not believed.
#[test]
fn stale_generation_changes_nothing() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    world.exited("a", Exit::Signal(9));
    world.begin("a");
    let (now, before) = (world.run("a"), Generation(world.run("a").0 - 1));
    let facts = world.facts().clone();
    let event = Event::Result(Box::new(ok()));
    world.handle(Input::HostReported {
        generation: now,
        claimed: before,
        event: event.clone(),
    });
    world.handle(Input::HostReported {
        generation: before,
        claimed: before,
        event: event.clone(),
    });
    world.handle(Input::HostReported {
        generation: before,
        claimed: now,
        event,
    });
    assert_eq!(world.facts(), &facts);
    let live = world.core.live().get(now).unwrap();
    assert_eq!(
        live.wire_faults, 1,
        "what came through its own pipe counts against it"
    );
}

/// Inputs of a run that is over are ignored, every one of them.
#[test]
fn nothing_that_an_ended_run_says_is_heard() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    let generation = world.run("a");
    world.ends("a", ok());
    world.begin("b");
    let facts = world.facts().clone();
    let error = || "late".into();
    let reply = world.reply_id();
    let late = [
        Input::SpawnFailed {
            class: protocol::class::Class::SpawnFailure,
            generation,
            error: error(),
        },
        Input::HostGreeted { generation },
        Input::HelloRefused {
            generation,
            error: error(),
        },
        Input::StartFailed {
            generation,
            error: error(),
        },
        Input::HostPonged {
            generation,
            pong: Pong::default(),
        },
        Input::WireFault {
            generation,
            fault: WireFault::TooLong,
        },
        Input::HostExited {
            generation,
            exit: Exit::Code(1),
            durable: Some(Box::new(failed(Class::Crash))),
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
            oom: None,
        },
    ];
    for input in late {
        world.handle(input.clone());
        assert_eq!(world.facts(), &facts, "{input:?}");
        assert!(
            world.last.urgent.is_empty() && world.last.effects.is_empty(),
            "{input:?}"
        );
    }
    world.handle(Input::HostAsked {
        generation,
        text: "anybody there?".into(),
        options: Vec::new(),
        reply,
    });
    let answer = world.answer_to(reply).unwrap();
    assert!(
        matches!(answer, Answer::Refused(Refusal::WrongState(_))),
        "{answer:?}"
    );
    assert_eq!(world.facts(), &facts);
}

/// The first result is the result.
#[test]
fn duplicate_results_are_counted_against_the_wire() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    let generation = world.run("a");
    world.result("a", failed(Class::AgentFailed));
    world.result("a", ok());
    assert_eq!(world.core.live().get(generation).unwrap().wire_faults, 1);
    world.exited_run(generation, Exit::Code(0), Some(ok()));
    assert_eq!(world.outcome("a").0, Some(Class::AgentFailed));
}

/// A result is done only with the end of its host: until then its tree may still write.
#[test]
fn done_waits_for_the_end_of_the_host() {
    let mut world = World::start(batch().task("a").task("b").after(&["a"]));
    world.begin("a");
    world.result("a", ok());
    assert_eq!(world.run_state("a"), RunState::Finished);
    assert_eq!(world.at("a"), (TaskState::Running, TaskReason::Working));
    assert_eq!(world.state("b"), TaskState::Blocked);
    world.exited("a", Exit::Code(0));
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
    assert_eq!(world.live(), ["b"]);
}

/// A host that could write its file, but not its report, has done its work.
#[test]
fn durable_result_without_a_report_counts() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    let generation = world.run("a");
    world.exited_run(generation, Exit::Code(0), Some(failed(Class::Overflow)));
    assert_eq!(world.outcome("a"), (Some(Class::Overflow), 1));
    assert_eq!(
        world.task("a").last.as_ref().unwrap().detail.as_ref(),
        "failed: overflow"
    );
}

/// Stop before the host is there: it is killed at the gate and never starts.
#[test]
fn spawn_answer_after_the_stop() {
    let mut world = World::start(batch().task("a"));
    let generation = world.run("a");
    world.cancel("a");
    world.news();
    world.spawned("a");
    assert!(world.news().contains(&Effect::KillHost { generation }));
    world.greeted("a");
    assert_eq!(
        world.news(),
        [],
        "no `start` for a run that was told to end"
    );
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.state("a"), TaskState::Cancelled);
}

/// The spawn fails after the stop: there is nothing to end, and the stop's word stands.
#[test]
fn spawn_failure_after_the_stop() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.cancel("a");
    world.spawn_failed("a");
    assert_eq!(world.state("a"), TaskState::Cancelled);
    world.pause("b", true);
    world.spawn_failed("b");
    assert_eq!(world.at("b"), (TaskState::Paused, TaskReason::Operator));
}

/// A second answer to the same spawn is the same host or a mistake; the first stands.
#[test]
fn a_second_spawn_answer_changes_nothing() {
    let mut world = World::start(batch().task("a"));
    world.spawned("a");
    let facts = world.facts().clone();
    world.spawned("a");
    world.spawn_failed("a");
    assert_eq!(world.facts(), &facts);
}
