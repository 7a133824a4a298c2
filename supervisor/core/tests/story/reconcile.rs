//! After a crash: the lettered table over all facts, and what each letter does to a task.

use super::harness::*;

use std::collections::BTreeSet;

use supervisor_core::reconcile::rule;

const PROCESSES: [ProcessFact; 4] = [
    ProcessFact::Gone,
    ProcessFact::Killed,
    ProcessFact::Living,
    ProcessFact::Foreign,
];

fn durable() -> ResultFact {
    ResultFact::Durable(Box::new(ok()))
}

fn results() -> [ResultFact; 3] {
    [durable(), ResultFact::Absent, ResultFact::Unreadable]
}

fn stops() -> Vec<Option<StopReason>> {
    let reasons = StopReason::ALL.iter().copied().map(Some);
    std::iter::once(None).chain(reasons).collect()
}

/// The table of the manual, row by row, written a second time and in another order: a row belongs
/// to a letter by its own facts alone, not by what stands above it.
fn rows_that_match(
    process: ProcessFact,
    result: &ResultFact,
    state: RunState,
    stop: Option<StopReason>,
) -> Vec<Letter> {
    let killed = process == ProcessFact::Killed;
    let gone = process == ProcessFact::Gone || killed;
    let stop = if killed {
        Some(StopReason::Killed)
    } else {
        stop
    };
    let intended = state == RunState::Intended;
    let whole = matches!(result, ResultFact::Durable(_));
    // What never began has no result, whatever lies in its folder.
    let has = whole && !intended;
    let none = *result == ResultFact::Absent || (whole && intended);
    let counts = stop.is_none_or(StopReason::late_result_counts);
    let rows = [
        (Letter::H, process == ProcessFact::Foreign),
        (Letter::G, process == ProcessFact::Living),
        (Letter::F, gone && *result == ResultFact::Unreadable),
        (Letter::E, gone && none && stop.is_some()),
        (Letter::D, gone && none && stop.is_none() && !intended),
        (Letter::C, gone && none && stop.is_none() && intended),
        (Letter::B, gone && has && !counts),
        (Letter::A, gone && has && counts),
    ];
    let matching = rows.iter().filter(|(_, matches)| *matches);
    matching.map(|(letter, _)| *letter).collect()
}

/// Every combination of facts has exactly one row, the ruling is that row, and no row is idle.
#[test]
fn the_table_is_total_and_every_letter_is_reached() {
    let mut reached = BTreeSet::new();
    let mut combinations = 0;
    for process in PROCESSES {
        for result in results() {
            for state in RunState::ALL {
                for stop in stops() {
                    let rows = rows_that_match(process, &result, *state, stop);
                    let ruled = rule(process, &result, *state, stop);
                    let facts = (process, &result, state, stop);
                    assert_eq!(rows, [ruled], "{facts:?}");
                    reached.insert(ruled);
                    combinations += 1;
                }
            }
        }
    }
    assert_eq!(combinations, 4 * 3 * 6 * 16);
    let all: BTreeSet<Letter> = Letter::ALL.iter().copied().collect();
    assert_eq!(reached, all);
}

/// I6: a run whose host may still work is never ruled to be over, whatever else is known of it.
#[test]
fn only_a_process_that_is_gone_is_ruled_over() {
    for result in results() {
        for state in RunState::ALL {
            for stop in stops() {
                for process in [ProcessFact::Living, ProcessFact::Foreign] {
                    assert!(rule(process, &result, *state, stop).refuses());
                }
                let gone = rule(ProcessFact::Gone, &result, *state, stop);
                let unreadable = result == ResultFact::Unreadable;
                assert_eq!(gone.refuses(), unreadable, "{result:?} {state} {stop:?}");
            }
        }
    }
}

#[test]
fn letters_have_their_own_words() {
    let words: Vec<&str> = Letter::ALL.iter().map(|letter| letter.word()).collect();
    assert_eq!(words, ["A", "B", "C", "D", "E", "F", "G", "H"]);
    let refusing = Letter::ALL.iter().filter(|letter| letter.refuses());
    let refusing: Vec<Letter> = refusing.copied().collect();
    assert_eq!(refusing, [Letter::F, Letter::G, Letter::H]);
}

/// The letters that were recorded since the last look.
fn letters(world: &mut World) -> Vec<Letter> {
    let decided = world.decided();
    let letters = decided.iter().filter_map(|record| match record {
        Record::RunReconciled { letter, .. } => Some(*letter),
        _ => None,
    });
    letters.collect()
}

fn working(plan: PlanBuilder) -> World {
    let mut world = World::start(plan);
    world.begin("a");
    world
}

/// The agent was done before the supervisor died: nothing is done twice.
#[test]
fn letter_a_imports_the_result() {
    let mut world = working(batch().task("a").task("b").after(&["a"]));
    world.decided();
    world.crash_and_recover(ProcessFact::Gone, durable());
    assert_eq!(letters(&mut world), [Letter::A]);
    assert_eq!(world.at("a"), (TaskState::Done, TaskReason::Proven));
    assert_eq!(world.task("a").attempts, AttemptNo(1));
    assert_eq!(world.live(), ["b"]);
}

/// The gate opens after the spawn is durable: a result of a run that is only intended is not its own.
#[test]
fn letter_c_rules_a_run_that_never_began_whatever_its_folder_holds() {
    for result in [ResultFact::Absent, durable()] {
        let mut world = World::start(batch().task("a"));
        assert_eq!(world.run_state("a"), RunState::Intended);
        world.decided();
        world.crash_and_recover(ProcessFact::Gone, result);
        assert_eq!(letters(&mut world), [Letter::C]);
        assert_eq!(world.outcome("a"), (Some(Class::Lost), 0));
        assert_eq!(world.task("a").attempts, AttemptNo(2), "it is tried again");
    }
}

/// A result says why not as well as that it is.
#[test]
fn letter_a_imports_a_failure_by_its_class() {
    let mut world = working(batch().task("a"));
    let result = ResultFact::Durable(Box::new(failed(Class::AgentFailed)));
    world.crash_and_recover(ProcessFact::Gone, result);
    assert_eq!(world.outcome("a"), (Some(Class::AgentFailed), 1));
    assert_eq!(
        world.at("a"),
        (TaskState::Ready, TaskReason::Backoff(Class::AgentFailed))
    );
}

/// The imported result of an agent run still needs its proof, in the same attempt.
#[test]
fn letter_a_of_an_agent_run_goes_on_to_the_proof() {
    let mut world = working(batch().task("a").verified());
    world.crash_and_recover(ProcessFact::Gone, durable());
    assert_eq!(world.at("a"), (TaskState::Verifying, TaskReason::Proving));
    assert_eq!(world.attempt("a").no, AttemptNo(1));
    let run = world.run("a");
    assert_eq!(world.facts().runs[&run].kind(), RunKind::Verify);
    world.succeed("a");
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A stop after which a late result counts does not turn finished work into lost work.
#[test]
fn letter_a_counts_a_result_that_came_during_a_stop_of_the_batch() {
    let mut world = working(batch().task("a"));
    world.stop(StopStage::Stop);
    assert_eq!(world.run_state("a"), RunState::Stopping);
    world.decided();
    world.crash_and_recover(ProcessFact::Gone, durable());
    assert_eq!(letters(&mut world), [Letter::A]);
    assert_eq!(world.state("a"), TaskState::Done);
}

/// The operator cancelled before the crash: a result that was late does not undo that.
#[test]
fn letter_b_archives_a_result_after_a_cancel() {
    let mut world = working(batch().task("a"));
    world.cancel("a");
    world.decided();
    world.crash_and_recover(ProcessFact::Gone, durable());
    assert_eq!(letters(&mut world), [Letter::B]);
    assert_eq!(
        world.at("a"),
        (TaskState::Cancelled, TaskReason::CancelledByOperator)
    );
    assert_eq!(world.ending(), Some(Ending::Failed));
}

#[test]
fn letter_b_after_a_kill_leaves_the_task_paused() {
    let mut world = working(batch().task("a"));
    world.kill("a", secs(5));
    world.decided();
    world.crash_and_recover(ProcessFact::Gone, durable());
    assert_eq!(letters(&mut world), [Letter::B]);
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
    assert_eq!(world.outcome("a"), (Some(Class::Cancelled), 0));
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
}

/// Decided, but no host was seen: the next attempt begins as if this one had not been.
#[test]
fn letter_c_lost_before_it_began() {
    let mut world = World::start(batch().task("a"));
    assert_eq!(world.run_state("a"), RunState::Intended);
    let before = world.run("a");
    world.decided();
    world.crash_and_lose();
    assert_eq!(letters(&mut world), [Letter::C]);
    assert_eq!(world.outcome("a"), (Some(Class::Lost), 0));
    assert!(
        world.run("a") > before,
        "a generation is never given out twice"
    );
    assert_eq!(
        world.attempt("a").mode,
        RetryMode::NewSession,
        "there is no session to go on with"
    );
}

#[test]
fn letter_d_lost_consumes_no_attempt_and_resumes() {
    let mut world = working(batch().task("a").spec(|spec| spec.attempts = 1));
    world.decided();
    world.crash_and_lose();
    assert_eq!(letters(&mut world), [Letter::D]);
    assert_eq!(world.outcome("a"), (Some(Class::Lost), 0));
    assert_eq!(world.task("a").lost, 1);
    assert_eq!(world.attempt("a").no, AttemptNo(2));
    assert_eq!(world.attempt("a").mode, RetryMode::Resume);
    world.succeed("a");
    assert_eq!(world.task("a").lost, 0);
}

/// A lost proof is made again; the agent's work is not.
#[test]
fn letter_d_of_a_verify_run_proves_again() {
    let mut world = working(batch().task("a").verified());
    world.ends("a", ok());
    world.begin("a");
    let before = world.run("a");
    world.decided();
    world.crash_and_lose();
    assert_eq!(letters(&mut world), [Letter::D]);
    assert_eq!(world.attempt("a").no, AttemptNo(1));
    assert!(world.run("a") > before);
    assert_eq!(world.facts().runs[&world.run("a")].kind(), RunKind::Verify);
    assert_eq!(world.state("a"), TaskState::Verifying);
}

/// Lost again and again without progress: the plan's number of times, then a person must look.
#[test]
fn letter_d_in_a_row_quarantines() {
    let plan = batch().set(|settings| settings.lost_max = 3).task("a");
    let mut world = World::start(plan);
    for lost in 1..=2 {
        world.begin("a");
        world.crash_and_lose();
        assert_eq!(world.task("a").lost, lost);
        assert_eq!(world.state("a"), TaskState::Running);
    }
    world.begin("a");
    world.crash_and_lose();
    assert_eq!(world.at("a"), (TaskState::Failed, TaskReason::Quarantined));
    assert_eq!(world.task("a").consumed, 0);
    assert_eq!(world.ending(), Some(Ending::Failed));
}

/// Each stop ends as it would have, had the supervisor seen the host end.
#[test]
fn letter_e_ends_as_stopped() {
    type Act = fn(&mut World);
    let rows: [(Act, TaskState, Option<Class>); 4] = [
        (
            |world| drop(world.cancel("a")),
            TaskState::Cancelled,
            Some(Class::Cancelled),
        ),
        (
            |world| drop(world.kill("a", secs(5))),
            TaskState::Paused,
            Some(Class::Cancelled),
        ),
        (
            |world| drop(world.pause("a", true)),
            TaskState::Paused,
            Some(Class::Cancelled),
        ),
        (
            |world| drop(world.stop(StopStage::Stop)),
            TaskState::Running,
            Some(Class::Cancelled),
        ),
    ];
    for (act, state, class) in rows {
        let mut world = working(batch().task("a"));
        act(&mut world);
        world.decided();
        world.crash_and_lose();
        assert_eq!(letters(&mut world), [Letter::E]);
        assert_eq!(world.state("a"), state);
        assert_eq!(world.outcome("a"), (class, 0), "{state}");
    }
}

/// A watchdog's stop keeps its class over a crash, and counts as it would have.
#[test]
fn letter_e_of_a_watchdog_counts_by_its_class() {
    let mut world = working(batch().task("a"));
    world.pass(mins(20));
    assert_eq!(world.run_state("a"), RunState::Stopping, "silence");
    world.crash_and_lose();
    assert_eq!(world.outcome("a"), (Some(Class::Silence), 1));
}

/// F, G, H: the task waits for a person, nothing starts beside the run, other tasks go on.
#[test]
fn refusing_letters_pause_the_task_and_no_other() {
    let rows = [
        (ProcessFact::Gone, ResultFact::Unreadable, Letter::F),
        (ProcessFact::Living, ResultFact::Absent, Letter::G),
        (ProcessFact::Foreign, ResultFact::Absent, Letter::H),
    ];
    for (process, result, letter) in rows {
        let plan = batch().lanes(1).task("a").task("b");
        let mut world = working(plan);
        let run = world.run("a");
        world.decided();
        world.spawns();
        world.crash_and_recover(process, result);
        assert_eq!(letters(&mut world), [letter]);
        let unresolved = (TaskState::Paused, TaskReason::Unresolved(letter));
        assert_eq!(world.at("a"), unresolved);
        assert!(world.spawns().is_empty(), "{letter:?}: the lane is taken");
        assert_eq!(world.run("a"), run, "the attempt stays open");
        let said = "a: its last run could not be judged; see `explain`";
        assert_eq!(world.resume("a"), said);
        assert_eq!(world.cancel("a"), said);
        let said = "a: has an open attempt: `cancel` or `kill` it first";
        assert_eq!(world.skip_task("a", true), said);
        assert_eq!(
            world.retry("a"),
            "a: its last run could not be judged; see `explain`"
        );
        assert_eq!(world.at("a"), unresolved, "no command talks it away");
    }
}

/// With nothing else left to do, the supervisor ends and says that a person is needed.
#[test]
fn an_unresolved_run_alone_needs_a_person() {
    let mut world = working(batch().task("a"));
    world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    assert_eq!(
        world.batch_at(),
        (BatchState::Paused, BatchReason::NeedsPerson)
    );
}

/// The next take-over looks again: what is gone by then is ruled on, the task goes on by itself.
#[test]
fn an_unresolved_run_is_judged_again_by_the_next_supervisor() {
    for (result, state) in [
        (durable(), TaskState::Done),
        (ResultFact::Absent, TaskState::Running),
    ] {
        let mut world = working(batch().task("a"));
        world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
        world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
        assert_eq!(world.reason("a"), TaskReason::Unresolved(Letter::G));
        world.crash_and_recover(ProcessFact::Gone, result);
        assert_eq!(world.state("a"), state);
        assert_eq!(world.task("a").consumed, 0);
    }
}

#[test]
fn an_unresolved_proof_goes_back_to_proving() {
    let mut world = working(batch().task("a").verified());
    world.ends("a", ok());
    world.begin("a");
    world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
    assert_eq!(world.reason("a"), TaskReason::Unresolved(Letter::G));
    world.crash_and_recover(ProcessFact::Gone, durable());
    assert_eq!(world.state("a"), TaskState::Done);
}

/// What an operator killed while no supervisor lived is cancelled and held, and not tried again as
/// lost; a result that was durable by then is archived.
#[test]
fn a_kill_that_nobody_could_record_is_recorded_by_the_next_supervisor() {
    for result in [ResultFact::Absent, durable()] {
        let mut world = working(batch().task("a"));
        world.crash_and_find(ProcessFact::Killed, result);
        assert_eq!(world.state("a"), TaskState::Paused);
        assert_eq!(world.reason("a"), TaskReason::Killed);
        assert_eq!(world.outcome("a").0, Some(Class::Cancelled));
        assert!(world.live().is_empty(), "held until `resume`");
        world.resume("a");
        world.tick();
        assert_eq!(world.live(), ["a"]);
    }
}

/// Facts of a run that the state does not hold are nobody's: they change nothing.
#[test]
fn facts_of_an_unknown_run_are_ignored() {
    let mut world = working(batch().task("a"));
    world.ends("a", ok());
    world.crash();
    world.decided();
    let facts = RunFacts {
        process: ProcessFact::Living,
        result: ResultFact::Absent,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
    };
    world.recover(vec![
        (Generation(1), facts.clone()),
        (Generation(99), facts),
    ]);
    assert!(letters(&mut world).is_empty());
    assert_eq!(world.state("a"), TaskState::Done);
}

/// Runs found in one take-over are ruled on one by one.
#[test]
fn each_run_gets_its_own_letter() {
    let mut world = World::start(batch().tasks(&["a", "b", "c"]));
    world.begin("a");
    world.begin("b");
    let runs = ["a", "b", "c"].map(|name| world.run(name));
    world.crash();
    world.decided();
    let of = |process, result| RunFacts {
        process,
        result,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
    };
    world.recover(vec![
        (runs[0], of(ProcessFact::Gone, durable())),
        (runs[1], of(ProcessFact::Living, ResultFact::Absent)),
        (runs[2], of(ProcessFact::Gone, ResultFact::Absent)),
    ]);
    assert_eq!(letters(&mut world), [Letter::A, Letter::G, Letter::C]);
    world.tick();
    let states = world.states(&["a", "b", "c"]);
    assert_eq!(
        states,
        [TaskState::Done, TaskState::Paused, TaskState::Running]
    );
}
