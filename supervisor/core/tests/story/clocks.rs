//! Time limits of runs and attempts: hello, pings, silence, progress, wall, linger, grace; and what
//! happens to all of them when the machine sleeps.

use std::time::Duration;

use protocol::report::Family;
use supervisor_core::live::{
    CPU_ALIVE_MS, HELLO_MAX, KILL_AGAIN, LEASE, LINGER_MAX, PING_EVERY, WIRE_FAULTS_MAX,
};

use super::harness::*;

/// Grace of every stop that nobody gave one for.
const GRACE: Duration = secs(10);
const MILLI: Duration = Duration::from_millis(1);

fn one() -> PlanBuilder {
    batch().task("a").spec(|spec| spec.timeout = hours(100))
}

fn pulsing(pulse: Pulse) -> World {
    let mut world = World::start(one());
    world.pulse = pulse;
    world.begin("a");
    world
}

/// Stops and kills since the last look, as (what, grace).
fn ends(world: &mut World) -> Vec<(&'static str, Duration)> {
    let news = world.news();
    news.iter()
        .filter_map(|effect| match effect {
            Effect::StopHost { grace, .. } => Some(("stop", *grace)),
            Effect::KillHost { .. } => Some(("kill", Duration::ZERO)),
            _ => None,
        })
        .collect()
}

fn pings(world: &mut World) -> usize {
    let news = world.news();
    let pings = news.iter().filter(|it| matches!(it, Effect::Ping { .. }));
    pings.count()
}

fn stop_reason(world: &World, name: &str) -> Option<StopReason> {
    let run = &world.facts().runs[&world.run(name)];
    run.stop.map(|(reason, _)| reason)
}

/// Nothing happens until just before the limit, and then the run is stopped for this.
fn stops_after(world: &mut World, limit: Duration, reason: StopReason) {
    world.pass(limit - MILLI);
    assert_eq!(ends(world), [], "not before {limit:?}");
    world.pass(MILLI);
    assert_eq!(ends(world), [("stop", GRACE)], "at {limit:?}");
    assert_eq!(stop_reason(world, "a"), Some(reason));
    assert_eq!(world.run_state("a"), RunState::Stopping);
}

#[test]
fn silence_stops_a_mute_run() {
    let mut world = pulsing(Pulse::Mute);
    stops_after(&mut world, mins(20), StopReason::Silence);
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.outcome("a"), (Some(Class::Silence), 1));
    world.pass(mins(2));
    assert_eq!(world.attempt("a").mode, RetryMode::NewSession);
}

/// CPU time in a pong is a sign of life, but nothing new.
#[test]
fn no_progress_stops_a_busy_run_that_gets_nowhere() {
    let mut world = pulsing(Pulse::Busy);
    stops_after(&mut world, hours(1), StopReason::NoProgress);
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.outcome("a"), (Some(Class::NoProgress), 1));
}

/// A build that starts one short process after the other is no stall; it is nothing new either.
#[test]
fn new_processes_are_a_sign_of_life() {
    let mut world = pulsing(Pulse::Forking);
    stops_after(&mut world, hours(1), StopReason::NoProgress);
}

/// The timers of a sleeping program use a little CPU time for ever.
#[test]
fn cpu_time_below_a_tick_is_no_sign_of_life() {
    let mut world = pulsing(Pulse::Mute);
    let generation = world.run("a");
    for cpu_ms in (0..).take(80).map(|nth| nth % CPU_ALIVE_MS) {
        world.pass(secs(15));
        let family = Family {
            cpu_ms,
            ..Family::default()
        };
        let output_bytes = 0;
        let pong = Pong {
            output_bytes,
            family,
        };
        world.handle(Input::HostPonged { generation, pong });
    }
    assert_eq!(ends(&mut world), [("stop", GRACE)]);
    assert_eq!(stop_reason(&world, "a"), Some(StopReason::Silence));
}

/// With a limit of silence below the rhythm of pings, what works is asked often enough.
#[test]
fn a_short_silence_is_asked_about_more_often() {
    let short = |pulse| {
        let mut world = World::start(one().spec(|spec| spec.silence = secs(6)));
        world.pulse = pulse;
        world.begin("a");
        world
    };
    let mut world = short(Pulse::Busy);
    world.pass(mins(10));
    assert_eq!(ends(&mut world), [], "it works without a word");
    let mut world = short(Pulse::Mute);
    stops_after(&mut world, secs(6), StopReason::Silence);
}

/// A host that answers nothing is told apart from an agent that does nothing.
#[test]
fn a_host_that_answers_nothing_hangs() {
    let mut world = pulsing(Pulse::Hung);
    stops_after(&mut world, LEASE, StopReason::Hung);
    world.pass(GRACE);
    assert_eq!(ends(&mut world), [("kill", Duration::ZERO)]);
    world.exited("a", Exit::Signal(9));
    assert_eq!(
        world.outcome("a"),
        (Some(Class::Lost), 0),
        "it counts for nothing"
    );
    let last = world.task("a").last.as_deref().unwrap();
    assert!(last.detail.contains("hung"), "{}", last.detail);
}

/// A limit of silence below the lease is kept whoever is silent, and who it was is told.
#[test]
fn a_short_limit_of_silence_holds_for_a_hung_host_too() {
    let mut world = World::start(one().spec(|spec| spec.silence = secs(20)));
    world.begin("a");
    world.pulse = Pulse::Hung;
    stops_after(&mut world, secs(20), StopReason::Silence);
    world.exited("a", Exit::Signal(9));
    let last = world.task("a").last.as_deref().unwrap();
    assert!(last.detail.contains("its host hangs"), "{}", last.detail);
    let mut world = World::start(one().spec(|spec| spec.silence = secs(20)));
    world.begin("a");
    world.pulse = Pulse::Mute;
    stops_after(&mut world, secs(20), StopReason::Silence);
    world.exited("a", Exit::Signal(9));
    let last = world.task("a").last.as_deref().unwrap();
    assert!(last.detail.contains("its host answered"), "{}", last.detail);
}

/// A host that was stopped and goes on before its lease is over has lost nothing.
#[test]
fn a_word_before_the_lease_is_over_is_enough() {
    let mut world = pulsing(Pulse::Hung);
    for _ in 0..10 {
        world.pass(LEASE - MILLI);
        world.report("a", said("here"));
    }
    assert_eq!(ends(&mut world), []);
    stops_after(&mut world, LEASE, StopReason::Hung);
}

/// I11: the machine slept; what nobody could say then is no silence of the host.
#[test]
fn a_sleep_of_the_machine_hangs_no_host() {
    let mut world = pulsing(Pulse::Hung);
    world.pass(LEASE / 2);
    world.skip(hours(8));
    world.tick();
    assert_eq!(ends(&mut world), []);
    world.pulse = Pulse::Busy;
    world.pass(mins(30));
    assert_eq!(ends(&mut world), []);
}

/// A question waits for a person; the host that asked it must answer for itself all the same.
#[test]
fn a_question_does_not_excuse_its_host() {
    let mut world = pulsing(Pulse::Mute);
    world.ask("a", "may I?");
    world.pass(mins(50));
    assert_eq!(ends(&mut world), []);
    world.pulse = Pulse::Hung;
    world.pass(LEASE);
    assert_eq!(stop_reason(&world, "a"), Some(StopReason::Hung));
}

/// Found by the simulator. A question that is refused is a word of the host all the same: its lease begins anew.
#[test]
fn a_refused_question_renews_the_lease_of_its_host() {
    let mut world = World::start(one());
    world.pulse = Pulse::Hung;
    let generation = world.run("a");
    world.spawned("a");
    world.handle(Input::HostGreeted { generation });
    world.pass(secs(20));
    let reply = world.reply_id();
    world.handle(Input::HostAsked {
        generation,
        text: "may I?".into(),
        options: Vec::new(),
        reply,
    });
    assert!(matches!(world.answer_to(reply), Some(Answer::Refused(_))));
    stops_after(&mut world, LEASE, StopReason::Hung);
}

/// After its result a host has the time to linger, and no lease.
#[test]
fn a_host_with_a_result_is_not_called_hung() {
    let mut world = pulsing(Pulse::Hung);
    world.pass(LEASE - secs(1));
    world.result("a", ok());
    world.pass(LINGER_MAX - MILLI);
    assert_eq!(ends(&mut world), []);
}

/// Output in a pong is both.
#[test]
fn output_keeps_a_run_going() {
    let mut world = pulsing(Pulse::Printing);
    world.pass(hours(5));
    assert_eq!(ends(&mut world), []);
    assert_eq!(world.run_state("a"), RunState::Started);
}

/// A host that answers pings with the same counts says that it lives, not that its agent does.
#[test]
fn a_pong_without_a_change_is_no_sign_of_life() {
    let mut world = pulsing(Pulse::Hung);
    let generation = world.run("a");
    let pong = Pong {
        output_bytes: 7,
        family: Family {
            cpu_ms: 70,
            begun: 7,
            ..Family::default()
        },
    };
    world.handle(Input::HostPonged { generation, pong });
    for _ in 0..39 {
        world.pass(secs(30));
        world.handle(Input::HostPonged { generation, pong });
    }
    assert_eq!(ends(&mut world), []);
    world.pass(secs(30));
    assert_eq!(ends(&mut world), [("stop", GRACE)]);
    assert_eq!(stop_reason(&world, "a"), Some(StopReason::Silence));
}

/// Any report is a sign of life; what the agent says is also something new.
#[test]
fn reports_move_silence_and_progress() {
    let mut world = pulsing(Pulse::Mute);
    for _ in 0..10 {
        world.pass(mins(19));
        world.report("a", said("still at it"));
    }
    assert_eq!(ends(&mut world), []);
    stops_after(&mut world, mins(20), StopReason::Silence);
}

/// Notices of the adapter keep it alive, but do not count as progress.
#[test]
fn notices_are_no_progress() {
    let mut world = pulsing(Pulse::Mute);
    for _ in 0..5 {
        world.pass(mins(11));
        let Event::AssistantMessage(text) = said("waiting for a slot") else {
            panic!("a message");
        };
        world.report("a", Event::Notice(text));
    }
    assert_eq!(ends(&mut world), []);
    stops_after(&mut world, mins(5), StopReason::NoProgress);
}

/// The wall limit is the attempt's own and asks for no reason.
#[test]
fn wall_time_stops_the_busiest_run() {
    let mut world = World::start(batch().task("a"));
    world.pulse = Pulse::Printing;
    world.begin("a");
    stops_after(&mut world, hours(2), StopReason::Timeout);
    world.exited("a", Exit::Signal(15));
    let failed = TaskReason::Failed(Class::Timeout);
    assert_eq!(world.at("a"), (TaskState::Failed, failed));
}

/// A result between the stop for a time limit and the end still counts: the work is there.
#[test]
fn a_result_within_the_grace_of_a_time_limit_counts() {
    for (pulse, limit) in [(Pulse::Mute, mins(20)), (Pulse::Busy, hours(1))] {
        let mut world = pulsing(pulse);
        world.pass(limit);
        assert_eq!(world.run_state("a"), RunState::Stopping);
        world.ends("a", ok());
        assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
    }
}

/// A question waits for a person: neither silence, nor standstill, nor wall time goes by.
#[test]
fn nothing_runs_out_while_a_question_is_open() {
    let plan = batch().task("a").spec(|spec| {
        spec.question_timeout = hours(30);
    });
    let mut world = World::start(plan);
    world.begin("a");
    let question = world.ask("a", "which?");
    world.pass(hours(29));
    assert_eq!(ends(&mut world), []);
    let text = "this".into();
    world.op_lines(OperatorCommand::Answer { question, text });
    stops_after(&mut world, mins(20), StopReason::Silence);
}

#[test]
fn pings_go_out_on_schedule_once_the_gate_is_open() {
    let mut world = World::start(one());
    world.pulse = Pulse::Busy;
    world.spawned("a");
    world.pass(secs(5));
    assert_eq!(pings(&mut world), 0, "not before the hello");
    world.greeted("a");
    world.pass(PING_EVERY - MILLI);
    assert_eq!(pings(&mut world), 0);
    world.pass(MILLI);
    assert_eq!(pings(&mut world), 1);
    world.pass(mins(10));
    assert_eq!(pings(&mut world), 40);
    world.ends("a", ok());
    world.pass(mins(1));
    assert_eq!(pings(&mut world), 0, "nobody is left");
}

/// A stopping run is still pinged: a host without pings believes its supervisor gone.
#[test]
fn pings_go_on_while_a_run_stops() {
    let mut world = pulsing(Pulse::Busy);
    world.kill("a", mins(5));
    world.news();
    world.pass(mins(4));
    assert_eq!(pings(&mut world), 16);
}

#[test]
fn hello_is_due_in_time() {
    let mut world = World::start(one());
    world.spawned("a");
    world.pass(HELLO_MAX - MILLI);
    assert_eq!(ends(&mut world), []);
    world.pass(MILLI);
    assert_eq!(
        ends(&mut world),
        [("kill", Duration::ZERO)],
        "it did nothing yet"
    );
    assert_eq!(stop_reason(&world, "a"), Some(StopReason::NoHello));
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.outcome("a"), (Some(Class::SpawnFailure), 0));
}

/// Bytes before the hello, but no hello: the program there is no host.
#[test]
fn a_hello_that_is_garbage_breaks_the_protocol() {
    let mut world = World::start(one());
    world.spawned("a");
    let (generation, fault) = (world.run("a"), WireFault::Garbage);
    world.handle(Input::WireFault { generation, fault });
    world.pass(HELLO_MAX);
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.outcome("a").0, Some(Class::Protocol));
}

/// The gate stays closed for a hello that comes after the decision to end.
#[test]
fn a_late_hello_opens_nothing() {
    let mut world = World::start(one());
    world.spawned("a");
    world.pass(HELLO_MAX);
    world.news();
    world.greeted("a");
    assert_eq!(world.news(), []);
    assert_eq!(world.run_state("a"), RunState::Stopping);
}

/// Some garbage is borne, a flood is not, and one line over the limit is enough.
#[test]
fn wire_faults_have_a_limit() {
    let mut world = pulsing(Pulse::Mute);
    let generation = world.run("a");
    for at in 0..WIRE_FAULTS_MAX {
        let blank = at % 2 == 0;
        let fault = if blank {
            WireFault::Blank
        } else {
            WireFault::Garbage
        };
        world.handle(Input::WireFault { generation, fault });
    }
    assert_eq!(ends(&mut world), []);
    let fault = WireFault::Garbage;
    world.handle(Input::WireFault { generation, fault });
    assert_eq!(ends(&mut world), [("kill", Duration::ZERO)]);
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.outcome("a"), (Some(Class::Protocol), 1));

    let mut world = pulsing(Pulse::Mute);
    let (generation, fault) = (world.run("a"), WireFault::TooLong);
    world.handle(Input::WireFault { generation, fault });
    assert_eq!(stop_reason(&world, "a"), Some(StopReason::Protocol));
}

/// The result is in; a host that stays on is killed, and the result counts all the same.
#[test]
fn linger_ends_a_host_that_stays_after_its_result() {
    let mut world = pulsing(Pulse::Mute);
    world.result("a", ok());
    world.pass(LINGER_MAX - MILLI);
    assert_eq!(ends(&mut world), []);
    world.pass(MILLI);
    assert_eq!(ends(&mut world), [("kill", Duration::ZERO)]);
    assert_eq!(stop_reason(&world, "a"), Some(StopReason::Lingering));
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
}

/// Asked, then forced, then forced again for as long as it does not go.
#[test]
fn grace_then_kill_then_kill_again() {
    let mut world = pulsing(Pulse::Busy);
    world.kill("a", secs(7));
    assert_eq!(ends(&mut world), [("stop", secs(7))]);
    world.pass(secs(7) - MILLI);
    assert_eq!(ends(&mut world), []);
    world.pass(MILLI);
    let kill = ("kill", Duration::ZERO);
    assert_eq!(ends(&mut world), [kill]);
    for _ in 0..5 {
        world.pass(KILL_AGAIN - MILLI);
        assert_eq!(ends(&mut world), []);
        world.pass(MILLI);
        assert_eq!(ends(&mut world), [kill]);
    }
    assert_eq!(
        world.state("a"),
        TaskState::Running,
        "not before it is gone"
    );
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
    world.pass(hours(1));
    assert_eq!(ends(&mut world), []);
}

/// A host that goes in time is not killed after.
#[test]
fn grace_is_forgotten_with_its_run() {
    let mut world = pulsing(Pulse::Busy);
    world.kill("a", secs(7));
    world.exited("a", Exit::Signal(15));
    ends(&mut world);
    world.pass(hours(1));
    assert_eq!(ends(&mut world), []);
}

/// No grace: killed at once, and again while it does not go.
#[test]
fn kill_without_grace_is_repeated_too() {
    let mut world = pulsing(Pulse::Busy);
    world.kill("a", Duration::ZERO);
    let kill = ("kill", Duration::ZERO);
    assert_eq!(ends(&mut world), [kill]);
    world.pass(KILL_AGAIN);
    assert_eq!(ends(&mut world), [kill]);
}

/// The stop overtook the spawn: the host that then appears dies behind its gate.
#[test]
fn a_host_that_appears_after_its_stop_is_killed() {
    let mut world = World::start(one());
    world.kill("a", secs(7));
    world.news();
    world.spawned("a");
    assert_eq!(ends(&mut world), [("kill", Duration::ZERO)]);
    world.greeted("a");
    assert!(world.news().is_empty(), "the gate stays closed");
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
}

fn proving() -> World {
    let mut world = World::start(one().verified());
    world.begin("a");
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Verifying);
    world
}

/// Proofs that hang are stopped like work that hangs, and cost the attempt.
#[test]
fn verify_runs_have_silence_and_progress_limits() {
    for (pulse, limit, reason) in [
        (Pulse::Mute, mins(20), StopReason::Silence),
        (Pulse::Busy, hours(1), StopReason::NoProgress),
    ] {
        let mut world = proving();
        world.pulse = pulse;
        world.begin("a");
        ends(&mut world);
        stops_after(&mut world, limit, reason);
        world.exited("a", Exit::Signal(15));
        assert_eq!(world.outcome("a"), (Some(reason.class()), 1));
    }
}

/// The wall limit is about the work: verify commands have limits of their own.
#[test]
fn verify_runs_are_not_under_the_wall_limit_of_their_attempt() {
    let plan = batch().task("a").verified();
    let mut world = World::start(plan);
    world.pulse = Pulse::Printing;
    world.begin("a");
    world.pass(mins(90));
    world.ends("a", ok());
    world.begin("a");
    ends(&mut world);
    world.pass(mins(60));
    assert_eq!(ends(&mut world), []);
}

/// The work is done: a verify host that does not greet is tried again, a bounded number of times.
#[test]
fn verify_hosts_without_a_hello_are_tried_again() {
    let mut world = proving();
    for proof in 1..5 {
        assert_eq!(world.attempt("a").step_runs, proof);
        world.spawned("a");
        world.pass(HELLO_MAX);
        world.exited("a", Exit::Signal(9));
        assert_eq!(world.state("a"), TaskState::Verifying);
    }
    world.spawned("a");
    world.pass(HELLO_MAX);
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.outcome("a").0, Some(Class::SpawnFailure));
}

#[test]
fn verify_hosts_do_not_linger() {
    let mut world = proving();
    world.begin("a");
    world.result("a", ok());
    ends(&mut world);
    world.pass(LINGER_MAX);
    assert_eq!(ends(&mut world), [("kill", Duration::ZERO)]);
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
}

fn gaps(world: &mut World) -> Vec<Duration> {
    let news = world.decided();
    news.into_iter()
        .filter_map(|record| match record {
            Record::ClockGap { gap } => Some(gap),
            _ => None,
        })
        .collect()
}

/// The lid was closed over night: nobody was silent, nobody is over time.
#[test]
fn a_suspended_machine_fires_nothing() {
    for pulse in [Pulse::Mute, Pulse::Busy] {
        let mut world = World::start(batch().task("a"));
        world.pulse = pulse;
        world.begin("a");
        world.pass(mins(5));
        let deadline = world.attempt("a").deadline;
        world.news();
        gaps(&mut world);
        world.skip(hours(9));
        world.tick();
        assert_eq!(ends(&mut world), [], "{pulse:?}");
        assert_eq!(world.run_state("a"), RunState::Started);
        let moved = gaps(&mut world);
        assert_eq!(moved.len(), 1, "{pulse:?}");
        assert!(moved[0] > hours(9) - secs(20) && moved[0] <= hours(9));
        assert_eq!(world.attempt("a").deadline, deadline + moved[0]);
    }
}

/// After the sleep what was left of each limit is left, to the length of one look at the clock.
#[test]
fn after_a_sleep_the_rest_of_a_limit_is_left() {
    let mut world = pulsing(Pulse::Mute);
    world.pass(mins(5));
    world.skip(hours(9));
    world.tick();
    world.pass(mins(14));
    assert_eq!(ends(&mut world), []);
    world.pass(mins(1));
    assert_eq!(ends(&mut world), [("stop", GRACE)]);
    assert_eq!(stop_reason(&world, "a"), Some(StopReason::Silence));
}

/// Whatever woke the supervisor up, the sleep is noticed before the input is worked on.
#[test]
fn a_sleep_is_noticed_by_the_first_input_of_any_kind() {
    let mut world = pulsing(Pulse::Mute);
    gaps(&mut world);
    world.skip(hours(9));
    world.report("a", said("good morning"));
    assert_eq!(gaps(&mut world).len(), 1);
    world.tick();
    assert_eq!(gaps(&mut world), [], "once");
    assert_eq!(ends(&mut world), []);
}

/// Dates are dates: a sleep does not move them.
#[test]
fn dates_are_not_moved_by_a_sleep() {
    let date = World::empty().now.wall + hours(3);
    let plan = one()
        .task("later")
        .spec(|spec| spec.not_before = Some(date));
    let mut world = World::start(plan);
    world.begin("a");
    world.skip(hours(9));
    world.tick();
    assert_eq!(world.state("later"), TaskState::Running);
}

/// A loaded machine is not a sleeping one: lateness below the limit moves nothing.
#[test]
fn a_little_late_is_no_sleep() {
    let mut world = pulsing(Pulse::Mute);
    gaps(&mut world);
    world.skip(PING_EVERY + secs(30));
    world.tick();
    assert_eq!(gaps(&mut world), []);
    world.skip(PING_EVERY + secs(30) + MILLI);
    world.tick();
    assert_eq!(gaps(&mut world), [PING_EVERY + secs(30) + MILLI]);
}

/// Found by the simulator: a proof that begins with a tick, long after the work, arms no deadline of
/// the work, which would be over already.
#[test]
fn a_proof_has_no_wall_limit_of_the_work_before_it() {
    let mut world = World::start(batch().task("a").verified());
    world.begin("a");
    world.result("a", ok());
    world.crash_and_recover(ProcessFact::Foreign, ResultFact::Absent);
    world.tick();
    world.pass(hours(3));
    world.stop(StopStage::Stop);
    world.crash();
    let gone = RunFacts {
        process: ProcessFact::Gone,
        result: ResultFact::Absent,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
    };
    let run = world.run("a");
    world.recover(vec![(run, gone)]);
    world.handle(Input::Tick);
    assert_eq!(world.state("a"), TaskState::Verifying);
    let next = world.core.next_deadline().boot.expect("a deadline");
    assert!(next > world.now.boot, "{next:?} at {:?}", world.now.boot);
}
