//! The batch file was edited: which tasks take it, which stay, and what becomes of those that run.

use super::harness::*;
use supervisor_core::plan::SpecIx;

fn attempts(world: &World, name: &str) -> u32 {
    let spec = world.task(name).spec;
    world.facts().specs[spec.0 as usize].attempts
}

fn needs(world: &World, name: &str) -> Vec<String> {
    let depends_on = world.task(name).depends_on.iter();
    depends_on
        .map(|dependency| world.name(dependency.task))
        .collect()
}

/// Done: stays. Not tried: takes it. New: is added. Gone: is passed over, and that is no failure.
#[test]
fn an_edited_file_changes_what_is_not_done() {
    let mut world = World::start(batch().lanes(1).tasks(&["a", "b", "c"]));
    world.begin("a");
    world.succeed("a");
    let edited = batch()
        .lanes(1)
        .task("d")
        .tasks(&["a", "b"])
        .every(|spec| spec.attempts = 7);
    world.resume_with(edited);
    assert_eq!(attempts(&world, "a"), 3, "done stays done under its rules");
    assert_eq!(attempts(&world, "b"), 7);
    assert_eq!(world.at("c"), (TaskState::Skipped, TaskReason::Removed));
    assert_eq!(world.live(), ["b"]);
    world.begin("b");
    world.succeed("b");
    world.begin("d");
    world.succeed("d");
    assert_eq!(world.ending(), Some(Ending::Done));
    assert_eq!(world.facts().batch.revision, 1);
}

/// Nothing may start under the old file in the moment between take-over and revision.
#[test]
fn nothing_starts_before_the_edited_file_is_taken() {
    let mut world = World::created(batch().task("a"));
    world.recover(Vec::new());
    assert_eq!(world.spawns(), Vec::<String>::new());
    let edited = batch().task("a").spec(|spec| spec.attempts = 9);
    world.revise(edited);
    assert_eq!(world.spawns(), Vec::<String>::new());
    world.tick();
    assert_eq!(world.spawns(), ["a"]);
    assert_eq!(attempts(&world, "a"), 9);
}

#[test]
fn a_file_that_says_the_same_is_no_revision() {
    let plan = || batch().tasks(&["a", "b"]).after(&["a"]);
    let mut world = World::start(plan());
    let before = world.journal.len();
    assert_eq!(
        world.revise(plan()),
        "the batch file says what it said before"
    );
    assert_eq!(world.journal.len(), before);
}

#[test]
fn the_operator_is_told_what_changed() {
    let mut world = World::start(batch().tasks(&["a", "b", "c"]));
    let edited = batch()
        .task("a")
        .task("b")
        .spec(|spec| spec.priority = 2)
        .tasks(&["d", "e"]);
    assert_eq!(
        world.revise(edited),
        "took the edited batch file: 1 changed, 2 new, 1 removed"
    );
}

/// Running: keeps what it began with; its next attempt takes the new rules.
#[test]
fn a_running_attempt_keeps_what_it_began_with() {
    let plan = |verify, attempts, after: &[&str]| {
        let task = batch().task("b").task("a").after(after);
        task.spec(move |spec| {
            spec.verify = verify;
            spec.attempts = attempts;
        })
    };
    let mut world = World::start(plan(false, 1, &[]).lanes(4));
    world.begin("a");
    world.revise(plan(true, 2, &[]));
    assert_eq!(attempts(&world, "a"), 1);
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.state("a"), TaskState::Ready, "two attempts by now");
    assert_eq!(attempts(&world, "a"), 2);
    world.pass(mins(10));
    world.begin("a");
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Verifying, "now it is proven");
}

#[test]
fn an_attempt_that_ends_done_is_done_by_the_rules_it_began_with() {
    let mut world = World::start(batch().task("a"));
    world.begin("a");
    world.revise(batch().task("a").verified());
    world.ends("a", ok());
    assert_eq!(world.state("a"), TaskState::Done);
    assert_eq!(world.task("a").spec, SpecIx(0));
    assert_eq!(world.task("a").revised, None);
}

/// Its globs keep others out for as long as it may write, whatever the file says by now.
#[test]
fn a_running_attempt_keeps_its_touches() {
    let plan = |a: &str, b: &str| batch().task("a").touches(&[a]).task("b").touches(&[b]);
    let mut world = World::start(plan("src", "src"));
    world.revise(plan("docs", "src"));
    assert_eq!(world.reason("b"), TaskReason::Touches(world.ix("a")));
    world.revise(plan("docs", "docs"));
    assert_eq!(world.live(), ["a", "b"]);
    world.begin("a");
    world.begin("b");
}

/// Variables and texts belong to the batch: an attempt goes on with those that it began with.
#[test]
fn a_running_attempt_keeps_the_texts_of_the_batch() {
    let plan = |work: &str| {
        let work = work.into();
        batch().set(|it| it.work = work).tasks(&["a", "b"]).lanes(1)
    };
    let mut world = World::start(plan("one"));
    world.begin("a");
    assert_eq!(world.attempt("a").work, None);
    world.revise(plan("two"));
    world.revise(plan("three"));
    assert_eq!(world.attempt("a").work.as_deref(), Some("one"));
    world.succeed("a");
    assert_eq!(world.attempt("b").work, None);
    assert_eq!(&*world.facts().batch.settings.work, "three");
}

/// What failed stays failed, and takes the edited file when it is tried again.
#[test]
fn a_failed_task_takes_the_edit_with_its_retry() {
    let plan = |attempts| batch().task("a").spec(move |spec| spec.attempts = attempts);
    let mut world = World::start(plan(1).task("b"));
    world.begin("a");
    world.ends("a", failed(Class::AgentFailed));
    world.revise(plan(2).task("b"));
    assert_eq!(world.state("a"), TaskState::Failed, "only `retry` reopens");
    assert_eq!(world.retry("a"), "a: is tried again");
    world.begin("a");
    world.ends("a", failed(Class::AgentFailed));
    assert_eq!(world.state("a"), TaskState::Ready);
}

// Removed tasks.

#[test]
fn a_removed_task_that_runs_is_stopped_and_no_other_attempt_follows() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.begin("b");
    let run = world.run("a");
    world.revise(batch().task("b"));
    let stop = world.facts().runs[&run].stop.expect("a stop");
    assert_eq!(stop.0, StopReason::Removed);
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.at("a"), (TaskState::Cancelled, TaskReason::Removed));
    world.succeed("b");
    assert_eq!(
        world.ending(),
        Some(Ending::Done),
        "what is no longer asked for is no failure"
    );
}

/// After a crash the run of a removed task is over: no further attempt of it begins.
#[test]
fn a_removed_task_is_not_gone_on_with_after_a_crash() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.resume_with(batch().task("b"));
    assert_eq!(world.at("a"), (TaskState::Skipped, TaskReason::Removed));
    assert_eq!(world.live(), ["b"]);
}

/// An attempt between two of its runs has nobody to stop.
#[test]
fn a_removed_task_that_waits_for_its_proof_is_cancelled() {
    let mut world = World::start(batch().task("a").verified().task("b"));
    world.begin("a");
    world.stop(StopStage::Stop);
    world.ends("a", ok());
    assert!(world.task("a").attempt.is_some(), "its proof is missing");
    world.revise(batch().task("b"));
    assert_eq!(world.at("a"), (TaskState::Cancelled, TaskReason::Removed));
}

/// What could not be judged is not called over: it ends once it can be.
#[test]
fn a_removed_task_with_an_unresolved_run_ends_when_it_is_judged() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
    world.revise(batch().task("b"));
    world.tick();
    assert_eq!(world.reason("a"), TaskReason::Unresolved(Letter::G));
    world.crash_and_recover(ProcessFact::Gone, ResultFact::Absent);
    assert_eq!(world.at("a"), (TaskState::Cancelled, TaskReason::Removed));
}

/// A result that was durable before the file was read again counts.
#[test]
fn a_removed_task_that_was_done_in_time_is_done() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.result("a", ok());
    world.revise(batch().task("b"));
    world.exited("a", Exit::Code(0));
    assert_eq!(world.state("a"), TaskState::Done);
}

#[test]
fn a_removed_task_is_not_retried() {
    let mut world = World::start(batch().task("a").spec(|spec| spec.attempts = 1).task("b"));
    world.begin("a");
    world.ends("a", failed(Class::AgentFailed));
    world.revise(batch().task("b"));
    assert_eq!(world.state("a"), TaskState::Failed, "terminal stays");
    assert_eq!(world.retry("a"), "a: is no longer in the batch file");
}

/// In the file again, it is looked at again; an end of its own making stays.
#[test]
fn a_task_that_returns_is_tried() {
    let both = || batch().lanes(1).tasks(&["a", "b"]);
    let mut world = World::start(both());
    world.begin("a");
    world.revise(batch().lanes(1).task("a"));
    assert_eq!(world.reason("b"), TaskReason::Removed);
    world.revise(both());
    assert_eq!(world.at("b"), (TaskState::Ready, TaskReason::Lane));
    assert!(!world.task("b").removed);
    world.cancel("b");
    world.revise(batch().lanes(1).task("a"));
    world.revise(both());
    assert_eq!(world.reason("b"), TaskReason::CancelledByOperator);
    assert_eq!(world.retry("b"), "b: is tried again");
}

/// Taken away and put back while its attempt was still being stopped.
#[test]
fn a_task_that_returns_in_time_goes_on() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.revise(batch().task("b"));
    world.revise(batch().tasks(&["a", "b"]));
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.state("a"), TaskState::Running, "its next attempt");
    assert_eq!(world.attempt("a").no, AttemptNo(2));
}

/// Found by the simulator: what the operator said of the attempt outlasts what the file said.
#[test]
fn a_kill_outweighs_a_removal() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.revise(batch().task("b"));
    world.kill("a", secs(5));
    world.revise(batch().tasks(&["a", "b"]));
    world.exited("a", Exit::Signal(9));
    assert_eq!(world.at("a"), (TaskState::Paused, TaskReason::Killed));
}

// Dependencies.

#[test]
fn edges_are_added_and_taken_away() {
    let plan = |b: &[&str], c: &[&str]| batch().task("a").task("b").after(b).task("c").after(c);
    let mut world = World::start(plan(&[], &["a"]));
    world.begin("a");
    world.begin("b");
    world.fail("b", Class::AgentFailed);
    world.revise(plan(&["a"], &[]));
    assert_eq!(world.reason("b"), TaskReason::Dependencies);
    assert_eq!(world.live(), ["a", "c"]);
    world.succeed("a");
    assert_eq!(world.live(), ["b", "c"]);
}

/// An edge to a task that is new in the same file, and one from a new task to an old one.
#[test]
fn old_and_new_tasks_wait_for_each_other() {
    let mut world = World::start(batch().lanes(1).tasks(&["a", "b"]));
    let edited = batch()
        .lanes(1)
        .tasks(&["new", "a", "b"])
        .after(&["new"])
        .task("last")
        .after(&["a", "b"]);
    world.revise(edited);
    assert_eq!(world.reason("b"), TaskReason::Dependencies);
    assert_eq!(needs(&world, "last"), ["a", "b"]);
    for name in ["a", "new", "b", "last"] {
        assert_eq!(world.live(), [name]);
        world.begin(name);
        world.succeed(name);
    }
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// A running task takes its new edges when its attempt is over.
#[test]
fn a_running_task_waits_for_its_new_dependency_before_its_next_attempt() {
    let mut world = World::start(batch().lanes(1).tasks(&["a", "b"]));
    world.begin("a");
    world.revise(batch().lanes(1).task("b").task("a").after(&["b"]));
    world.ends("a", failed(Class::AgentFailed));
    world.pass(mins(30));
    assert_eq!(world.live(), ["b"]);
    assert_eq!(needs(&world, "a"), ["b"]);
    world.begin("b");
    world.succeed("b");
    assert_eq!(world.live(), ["a"]);
}

/// A dependency that failed hides its new dependents, as it would have from the start.
#[test]
fn a_new_edge_to_a_failed_task_skips() {
    let plan = || batch().task("a").spec(|spec| spec.attempts = 1);
    let mut world = World::start(plan().task("b").lanes(1));
    world.begin("a");
    world.ends("a", failed(Class::AgentFailed));
    world.pause("b", true);
    world.exited("b", Exit::Signal(15));
    world.revise(plan().task("b").task("c").after(&["a"]).lanes(1));
    let because = TaskReason::DependencyFailed(world.ix("a"));
    assert_eq!(world.at("c"), (TaskState::Skipped, because));
    world.retry("a");
    assert_eq!(world.reason("c"), TaskReason::Dependencies);
}

/// The dependents of a task that is taken away in the same file do not fall with it.
#[test]
fn dependents_of_a_removed_task_go_on_without_it() {
    let mut world = World::start(batch().lanes(1).task("a").task("b").after(&["a"]));
    world.begin("a");
    world.revise(batch().lanes(1).task("b"));
    world.exited("a", Exit::Signal(15));
    assert_eq!(world.live(), ["b"]);
}

// What a batch can not take.

fn unfit(world: &mut World, plan: supervisor_core::plan::Plan) -> String {
    let before = world.journal.len();
    let refusal = world.refused(OperatorCommand::Revise(Box::new(plan)));
    assert_eq!(world.journal.len(), before, "nothing changed");
    match refusal {
        Refusal::Unfit(text) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plan_that_is_not_one_of_this_batch_is_refused() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    let plan = || batch().tasks(&["a", "b"]).after(&["a"]).plan();
    let mut cycle = plan();
    let back = cycle.tasks[1].depends_on[0];
    cycle.tasks[0].depends_on = [supervisor_core::plan::Dependency {
        task: TaskIx(1),
        ..back
    }]
    .into();
    let said = unfit(&mut world, cycle);
    assert!(said.contains("a would wait for itself"), "{said}");
    let named = unfit(
        &mut world,
        batch().set(|it| it.name = "other".into()).plan(),
    );
    assert_eq!(named, "the batch is called story, the file names other");
    let mut twice = plan();
    twice.tasks[1].id = twice.tasks[0].id.clone();
    assert_eq!(unfit(&mut world, twice), "a is there twice");
    let breaks: [fn(&mut supervisor_core::plan::Plan); 4] = [
        |plan| plan.tasks[0].spec = SpecIx(9),
        |plan| plan.tasks[1].depends_on[0].task = TaskIx(9),
        |plan| plan.agents[0].account = AccountIx(9),
        |plan| plan.accounts.clear(),
    ];
    for (break_it, what) in breaks
        .iter()
        .zip(["task spec", "dependency", "account", "account"])
    {
        let mut broken = plan();
        break_it(&mut broken);
        assert_eq!(
            unfit(&mut world, broken),
            format!("the plan has no such {what}")
        );
    }
}
