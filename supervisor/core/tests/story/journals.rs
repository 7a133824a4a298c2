//! Journals that are followed and journals that are not: a record that does not follow from the
//! state before it is refused and changes nothing; one that does gives the same facts every time.

use std::sync::Arc;

use protocol::ids::TaskId;
use supervisor_core::plan::{
    AgentSpec, Condition, Dependency, PlannedTask, Rules, Settings, SpecIx,
};
use supervisor_core::record::{AttemptEnded, AttemptStarted, BatchCreated, PlanRevised};

use super::harness::*;

const A: TaskIx = TaskIx(0);
const NOBODY: TaskIx = TaskIx(99);
const UNKNOWN_RUN: Generation = Generation(99);

/// The record as the next line of the core's journal.
pub(crate) fn next(core: &Core, record: Record) -> Entry {
    let batch = &core.facts().unwrap().batch;
    Entry {
        seq: batch.seq + 1,
        term: batch.term,
        now: batch.now,
        record,
    }
}

/// The entry is refused, and the core is as if it had never been read.
fn refuses_entry(core: &Core, entry: &Entry) -> ReplayError {
    let mut other = core.clone();
    let refused = other.replay(entry);
    let Err(error) = refused else {
        panic!("{entry:?} was followed by {refused:?}");
    };
    assert!(other.facts() == core.facts(), "{entry:?} changed facts");
    assert!(other.index() == core.index(), "{entry:?} changed the index");
    error
}

pub(crate) fn refuses(core: &Core, record: Record) -> ReplayError {
    refuses_entry(core, &next(core, record))
}

/// The record is refused because it names something that is not there.
fn names_unknown(core: &Core, record: Record) -> &'static str {
    let told = format!("{record:?}");
    match refuses(core, record) {
        ReplayError::Unknown { seq, what } => {
            assert_eq!(seq, core.facts().unwrap().batch.seq + 1);
            what
        }
        other => panic!("{told}: {other}"),
    }
}

/// The record is refused although the edge table holds its step.
pub(crate) fn breaks_rule(core: &Core, record: Record) -> &'static str {
    let told = format!("{record:?}");
    match refuses(core, record) {
        ReplayError::Unfit { seq, why } => {
            assert_eq!(seq, core.facts().unwrap().batch.seq + 1);
            why
        }
        other => panic!("{told}: {other}"),
    }
}

pub(crate) fn follows(core: &Core, record: Record) -> Core {
    let mut other = core.clone();
    other.replay(&next(core, record)).expect("it follows");
    other
}

/// One task that an agent works on, one that waits for it, one that is done, one that failed; a
/// message and an open question.
pub(crate) fn busy() -> World {
    let plan = batch()
        .task("works")
        .task("waits")
        .after(&["works"])
        .task("done")
        .task("failed")
        .spec(|spec| spec.attempts = 1);
    let mut world = World::start(plan);
    world.succeed("done");
    world.fail("failed", Class::AgentFailed);
    world.begin("works");
    world.steer("works", SteerMode::Boundary, "hello");
    world
}

pub(crate) fn moved(task: TaskIx, to: TaskState) -> Record {
    Record::TaskMoved {
        task,
        to,
        reason: TaskReason::Operator,
        next_check: None,
    }
}

pub(crate) fn ended(task: TaskIx, to: TaskState) -> Record {
    Record::TaskEnded {
        task,
        to,
        reason: TaskReason::CancelledByOperator,
    }
}

pub(crate) fn reopened(task: TaskIx) -> Record {
    Record::Reopened {
        task,
        mode: RetryMode::Fresh,
        attempts: None,
    }
}

pub(crate) fn attempt_started(task: TaskIx, attempt: u32, generation: u64) -> Record {
    Record::AttemptStarted(AttemptStarted {
        task,
        attempt: AttemptNo(attempt),
        slot: 0,
        mode: RetryMode::Fresh,
        step: Step::Work,
        generation: Generation(generation),
        token: 1,
        probe: false,
    })
}

pub(crate) fn attempt_ended(task: TaskIx, attempt: u32, to: TaskState) -> Record {
    Record::AttemptEnded(AttemptEnded {
        task,
        attempt: AttemptNo(attempt),
        class: Some(Class::AgentFailed),
        consumed: true,
        detail: "".into(),
        next: Next::End {
            to,
            reason: TaskReason::Failed(Class::AgentFailed),
        },
        model: None,
    })
}

pub(crate) fn intended(task: TaskIx, generation: u64) -> Record {
    Record::RunIntended {
        generation: Generation(generation),
        task,
        purpose: Purpose::Step(Step::Prove),
        token: 2,
    }
}

fn queued(id: u64, task: TaskIx) -> Record {
    Record::MessageQueued {
        id: MessageId(id),
        task,
        mode: SteerMode::Boundary,
        text: "text".into(),
        expires: None,
        from: None,
    }
}

pub(crate) fn opened(id: u64, task: TaskIx, generation: Generation) -> Record {
    Record::QuestionOpened {
        id: QuestionId(id),
        task,
        generation,
        text: "which?".into(),
        options: Vec::new(),
        deadline: Deadline::Wall(Wall(i64::MAX)),
    }
}

pub(crate) fn account_moved(account: u32, to: AccountState) -> Record {
    Record::AccountMoved {
        account: AccountIx(account),
        to,
        reason: AccountReason::Operator,
        until: None,
    }
}

pub(crate) fn batch_moved(to: BatchState) -> Record {
    Record::BatchMoved {
        to,
        reason: BatchReason::Operator,
    }
}

pub(crate) fn stop_decided(generation: Generation) -> Record {
    Record::StopDecided {
        generation,
        reason: StopReason::Killed,
        grace: secs(1),
    }
}

pub(crate) fn run_started(generation: Generation) -> Record {
    Record::RunStarted {
        generation,
        capabilities: caps(),
        session: None,
    }
}

pub(crate) fn run_finished(generation: Generation) -> Record {
    Record::RunFinished {
        generation,
        result: Arc::new(ok()),
    }
}

pub(crate) fn run_ended(generation: Generation) -> Record {
    Record::RunEnded {
        generation,
        exit: Exit::Code(0),
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
        footprint: Default::default(),
    }
}

pub(crate) fn run_spawned(world: &mut World, generation: Generation) -> Record {
    Record::RunSpawned {
        generation,
        identity: world.identity(),
        containment: Default::default(),
    }
}

fn planned(id: &str, spec: u32, on: &[u32]) -> PlannedTask {
    PlannedTask {
        id: id.parse::<TaskId>().unwrap(),
        spec: SpecIx(spec),
        item: None,
        touches: [].into(),
        depends_on: on
            .iter()
            .map(|task| Dependency {
                task: TaskIx(*task),
                condition: Condition::Done,
            })
            .collect(),
    }
}

/// A lost, doubled or swapped line is noticed at once.
#[test]
fn numbers_follow_each_other() {
    let world = busy();
    let last = world.facts().batch.seq;
    let record = || Record::ConcurrencySet { concurrency: 9 };
    for found in [0, 1, last - 1, last, last + 2, u64::MAX] {
        let entry = Entry {
            seq: found,
            ..next(&world.core, record())
        };
        let error = refuses_entry(&world.core, &entry);
        assert_eq!(error, ReplayError::Gap { last, found });
    }
    let core = follows(&world.core, record());
    assert_eq!(core.facts().unwrap().batch.lanes(), 9);
}

/// A journal begins with its creation and with number 1, or it is no journal.
#[test]
fn a_journal_begins_with_its_creation() {
    let world = busy();
    let mut core = Core::new();
    for entry in &world.journal[1..] {
        let found = entry.seq;
        assert_eq!(core.replay(entry), Err(ReplayError::Gap { last: 0, found }));
    }
    let first = Entry {
        record: Record::PlanClosed,
        ..world.journal[0].clone()
    };
    let what = "batch";
    assert_eq!(
        core.replay(&first),
        Err(ReplayError::Unknown { seq: 1, what })
    );
    assert_eq!(core.facts(), None, "nothing came of it");
    core.replay(&world.journal[0]).unwrap();
    assert_eq!(core.facts().unwrap().batch.seq, 1);
}

#[test]
fn a_batch_is_created_once() {
    let world = busy();
    let facts = world.facts();
    let again = Record::BatchCreated(Box::new(BatchCreated {
        id: facts.batch.id.clone(),
        seed: 1,
        settings: facts.batch.settings.clone(),
        agents: Vec::new(),
        accounts: Vec::new(),
        repos: Vec::new(),
    }));
    assert_eq!(names_unknown(&world.core, again), "second creation");
}

/// A term is taken once, in order: two supervisors can not both have written this journal.
#[test]
fn terms_are_taken_one_after_the_other() {
    let mut world = busy();
    let term = world.facts().batch.term;
    for wrong in [0, term, term + 2, u64::MAX] {
        let record = Record::SupervisorStarted {
            term: wrong,
            identity: world.identity(),
            guardian: None,
            build: "0.1.0".into(),
        };
        assert_eq!(names_unknown(&world.core, record), "next term");
    }
}

fn revised(task: TaskIx, spec: u32, on: &[u32]) -> Record {
    Record::TaskRevised {
        task,
        rules: Rules {
            spec: SpecIx(spec),
            item: None,
            touches: [].into(),
            depends_on: on
                .iter()
                .map(|on| Dependency {
                    task: TaskIx(*on),
                    condition: Condition::Done,
                })
                .collect(),
        },
    }
}

#[test]
fn unknown_tasks_are_refused() {
    let world = busy();
    let records = [
        moved(NOBODY, TaskState::Ready),
        ended(NOBODY, TaskState::Cancelled),
        reopened(NOBODY),
        attempt_started(NOBODY, 1, 50),
        intended(NOBODY, 50),
        queued(50, NOBODY),
        revised(NOBODY, 0, &[]),
        Record::TaskRemoved { task: NOBODY },
        opened(50, NOBODY, world.run("works")),
    ];
    for record in records {
        assert_eq!(names_unknown(&world.core, record), "task");
    }
    let record = attempt_ended(NOBODY, 1, TaskState::Failed);
    assert_eq!(names_unknown(&world.core, record), "open attempt");
}

/// Runs that were never decided, and runs that are over, are equally unknown.
#[test]
fn unknown_and_ended_runs_are_refused() {
    let mut world = busy();
    let ended = Generation(2);
    assert!(!world.facts().runs.contains_key(&ended), "it is over");
    for generation in [UNKNOWN_RUN, Generation(0), ended] {
        let records = [
            run_spawned(&mut world, generation),
            run_started(generation),
            stop_decided(generation),
            run_finished(generation),
            run_ended(generation),
            Record::RunReconciled {
                generation,
                letter: Letter::D,
                cleared: supervisor_core::containment::Cleared::CLEAN,
            },
            Record::UsageNoted {
                generation,
                usage: used(1),
            },
            opened(50, A, generation),
        ];
        for record in records {
            assert_eq!(names_unknown(&world.core, record), "run");
        }
    }
}

#[test]
fn unknown_mail_questions_accounts_and_specs_are_refused() {
    let world = busy();
    let message = Record::MessageMoved {
        id: MessageId(99),
        to: MessageState::Sent,
        generation: None,
    };
    assert_eq!(names_unknown(&world.core, message), "message");
    let question = Record::QuestionMoved {
        id: QuestionId(99),
        to: QuestionState::Expired,
        answer: None,
    };
    assert_eq!(names_unknown(&world.core, question), "question");
    let account = account_moved(99, AccountState::Stopped);
    assert_eq!(names_unknown(&world.core, account), "account");
    let record = revised(TaskIx(1), 99, &[]);
    assert_eq!(names_unknown(&world.core, record), "task spec");
    let count = u32::try_from(world.facts().tasks.len()).unwrap();
    for on in [1, count] {
        let record = revised(TaskIx(1), 0, &[on]);
        assert_eq!(names_unknown(&world.core, record), "dependency");
    }
    let extended = Record::PlanExtended {
        specs: Vec::new(),
        tasks: vec![planned("fine", 0, &[]), planned("new", 99, &[])],
    };
    assert_eq!(names_unknown(&world.core, extended), "task spec");
}

/// Numbers are given out once: an old generation, message or question is no new one.
#[test]
fn numbers_are_given_out_once() {
    let mut world = busy();
    world.ask("works", "which?");
    let last = world.facts().batch.last_generation.0;
    for old in [0, 1, last] {
        let record = attempt_started(TaskIx(3), 2, old);
        assert_eq!(names_unknown(&world.core, record), "new generation");
        assert_eq!(
            names_unknown(&world.core, intended(A, old)),
            "new generation"
        );
    }
    for old in [0, 1] {
        assert_eq!(names_unknown(&world.core, queued(old, A)), "new message");
        let record = opened(old, A, world.run("works"));
        assert_eq!(names_unknown(&world.core, record), "new question");
    }
}

/// I6 in the journal: no second attempt beside an open one, none out of order, none ended twice.
#[test]
fn attempts_begin_and_end_in_order() {
    let plan = batch().tasks(&["a", "b"]).lanes(1);
    let mut world = World::start(plan);
    world.begin("a");
    let second = attempt_started(A, 2, 50);
    let why = "only a ready task begins an attempt";
    assert_eq!(breaks_rule(&world.core, second), why);
    for no in [0, 2, 7] {
        let record = attempt_started(TaskIx(1), no, 50);
        assert_eq!(names_unknown(&world.core, record), "next attempt");
        let record = attempt_ended(A, no, TaskState::Failed);
        assert_eq!(names_unknown(&world.core, record), "open attempt");
    }
    let record = attempt_ended(TaskIx(1), 1, TaskState::Failed);
    assert_eq!(names_unknown(&world.core, record), "open attempt");
    let over = follows(&world.core, attempt_ended(A, 1, TaskState::Failed));
    let record = attempt_ended(A, 1, TaskState::Failed);
    assert_eq!(names_unknown(&over, record), "open attempt");
}

/// A verify run belongs to an attempt.
#[test]
fn a_proof_needs_an_open_attempt() {
    let mut world = World::start(batch().task("a").verified());
    world.begin("a");
    let mut facts = world.facts().clone();
    facts.tasks[0].attempt = None;
    facts.runs.clear();
    let core = Core::restore(facts);
    assert_eq!(names_unknown(&core, intended(A, 50)), "open attempt");
}

/// Done is for ever, and what is not over can not be opened again.
#[test]
fn only_bad_ends_are_reopened() {
    let world = busy();
    for (task, name) in [(0, "works"), (1, "waits"), (2, "done")] {
        let what = names_unknown(&world.core, reopened(TaskIx(task)));
        assert_eq!(what, "task that may be reopened", "{name}");
    }
    let core = follows(&world.core, reopened(TaskIx(3)));
    assert_eq!(core.facts().unwrap().tasks[3].epoch, 1);
}

#[test]
fn rules_of_a_done_task_never_change() {
    let world = busy();
    let what = names_unknown(&world.core, revised(TaskIx(2), 0, &[]));
    assert_eq!(what, "task that may be revised");
    let gone = |task| Record::TaskRemoved { task: TaskIx(task) };
    assert_eq!(
        names_unknown(&world.core, gone(2)),
        "task that may be removed"
    );
    let core = follows(&world.core, gone(3));
    assert_eq!(names_unknown(&core, gone(3)), "task that may be removed");
    assert_eq!(
        names_unknown(&core, reopened(TaskIx(3))),
        "task that may be reopened",
        "what the file no longer has"
    );
    for task in [1, 3] {
        let core = follows(&world.core, revised(TaskIx(task), 0, &[]));
        assert_eq!(core.facts().unwrap().tasks[task as usize].spec, SpecIx(0));
    }
    let core = follows(&world.core, revised(A, 1, &[]));
    let task = &core.facts().unwrap().tasks[0];
    assert_eq!(task.spec, SpecIx(0), "its attempt keeps what it began with");
    assert_eq!(task.next_rules().spec, SpecIx(1));
}

#[test]
fn a_revision_is_numbered_and_of_this_batch() {
    let world = busy();
    let settings = &world.facts().batch.settings;
    let revised = |revision, name: &str, account| {
        Record::PlanRevised(Box::new(PlanRevised {
            revision,
            settings: Settings {
                name: name.into(),
                ..settings.clone()
            },
            agents: vec![AgentSpec {
                account: AccountIx(account),
                ..world.facts().agents[0].clone()
            }],
            accounts: Vec::new(),
            repos: Vec::new(),
        }))
    };
    let cases = [
        (revised(2, "story", 0), "next revision"),
        (revised(1, "another", 0), "batch name"),
        (revised(1, "story", 9), "account"),
    ];
    for (record, what) in cases {
        assert_eq!(names_unknown(&world.core, record), what);
    }
    let core = follows(&world.core, revised(1, "story", 0));
    assert_eq!(core.facts().unwrap().batch.revision, 1);
}

/// A dependency may point at a task of a later record, but not past the whole plan.
#[test]
fn a_plan_is_closed_over_its_dependencies() {
    let world = busy();
    let extend = |id: &str, on: u32| Record::PlanExtended {
        specs: Vec::new(),
        tasks: vec![planned(id, 0, &[on])],
    };
    let core = follows(&world.core, extend("early", 5));
    assert_eq!(names_unknown(&core, Record::PlanClosed), "dependency");
    let core = follows(&core, extend("late", 2));
    let core = follows(&core, Record::PlanClosed);
    let tasks = &core.facts().unwrap().tasks;
    assert_eq!(tasks[4].state, TaskState::Blocked);
    assert_eq!(tasks[5].state, TaskState::Ready);
}
