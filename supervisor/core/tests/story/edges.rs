//! The edge tables are the law of the journal, pair by pair; legal journals replay to equal facts
//! from wherever the replay begins.

use supervisor_core::facts::Facts;
use supervisor_core::machine::{Edge, IllegalEdge};
use supervisor_core::record::Next;

use super::harness::*;
use super::journals::*;

const A: TaskIx = TaskIx(0);

/// One pair of states, asked of the table and of the journal.
fn asks(facts: Facts, edge: Edge, legal: bool, record: Record) {
    let mut core = Core::restore(facts);
    if legal {
        let changes = core.replay(&next(&core, record)).expect("it follows");
        let taken = changes.iter().any(|change| {
            let (Change::Batch(it)
            | Change::Task(_, it)
            | Change::Attempt(_, it)
            | Change::Merge(_, it)
            | Change::Comment(_, it)
            | Change::Run(_, it)
            | Change::Message(_, it)
            | Change::Question(_, it)
            | Change::Account(_, it)) = change;
            *it == edge
        });
        assert!(taken, "{edge:?} is told to whoever watches");
        return;
    }
    let seq = core.facts().unwrap().batch.seq + 1;
    let (machine, from, to) = (edge.machine, edge.from, edge.to);
    let edge = IllegalEdge { machine, from, to };
    assert_eq!(refuses(&core, record), ReplayError::Edge { seq, edge });
}

/// Every pair of states of one machine: the states, how to be in one, the record that asks for one.
macro_rules! every_pair {
    ($machine:literal, $states:ty, $from:ident, $to:ident, $facts:expr, $record:expr) => {
        for &$from in <$states>::ALL {
            for &$to in <$states>::ALL {
                let edge = Edge {
                    machine: $machine,
                    from: $from.word(),
                    to: $to.word(),
                };
                if let Some(record) = $record {
                    asks($facts, edge, $from.edges().contains(&$to), record);
                }
            }
        }
    };
}

/// I5: the edge tables are the law of the journal, pair by pair. Batches, tasks and accounts may
/// be told the state they are in (only the reason changes); the others may not.
#[test]
fn illegal_edges_of_every_machine_are_refused() {
    let mut world = busy();
    world.ask("works", "which?");
    let start = world.facts().clone();
    let with = |change: &dyn Fn(&mut Facts)| {
        let mut facts = start.clone();
        change(&mut facts);
        facts
    };
    every_pair!(
        "batch",
        BatchState,
        from,
        to,
        with(&|it| it.batch.state = from),
        (from != to).then(|| batch_moved(to))
    );
    every_pair!(
        "account",
        AccountState,
        from,
        to,
        with(&|it| it.accounts[0].state = from),
        (from != to).then(|| account_moved(0, to))
    );
    every_pair!(
        "message",
        MessageState,
        from,
        to,
        with(&|it| it.messages.get_mut(&MessageId(1)).unwrap().state = from),
        Some(Record::MessageMoved {
            id: MessageId(1),
            to,
            generation: None
        })
    );
    every_pair!(
        "question",
        QuestionState,
        from,
        to,
        with(&|it| it.questions.get_mut(&QuestionId(1)).unwrap().state = from),
        (to != QuestionState::Open || from == to).then_some(Record::QuestionMoved {
            id: QuestionId(1),
            to,
            answer: None
        })
    );
}

/// What a record wants of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// `TaskMoved`.
    Moved,
    /// `TaskEnded`.
    Ended,
    /// `Reopened`.
    Reopened,
    /// `AttemptStarted`.
    Started,
    /// `RunIntended`.
    Proof,
    /// `AttemptEnded`, with a class.
    Failed,
    /// `AttemptEnded`, without one.
    Well,
}

impl By {
    const ALL: [By; 7] = [
        By::Moved,
        By::Ended,
        By::Reopened,
        By::Started,
        By::Proof,
        By::Failed,
        By::Well,
    ];

    /// The record that asks for the state; none where its form can not.
    fn record(self, to: TaskState, attempt: u32) -> Option<Record> {
        let over = |class: Option<Class>| {
            let mut record = attempt_ended(A, attempt, to);
            if let Record::AttemptEnded(ended) = &mut record {
                ended.class = class;
                ended.next = match to {
                    TaskState::Ready => Next::Retry {
                        mode: RetryMode::Resume,
                        at: None,
                    },
                    TaskState::Paused => Next::Hold {
                        reason: TaskReason::Operator,
                        mode: RetryMode::Resume,
                    },
                    _end => ended.next.clone(),
                };
            }
            record
        };
        match self {
            By::Moved => Some(moved(A, to)),
            By::Ended => Some(ended(A, to)),
            By::Reopened => (to == TaskState::Blocked).then(|| reopened(A)),
            By::Started => (to == TaskState::Running).then(|| attempt_started(A, attempt + 1, 50)),
            By::Proof => (to == TaskState::Verifying).then(|| intended(A, 50)),
            By::Failed => Some(over(Some(Class::Crash))),
            By::Well => Some(over(None)),
        }
    }

    /// The steps of this record, written a second time; `open` is whether there is an attempt.
    fn takes(self, from: TaskState, to: TaskState, open: bool) -> bool {
        use TaskState as S;
        let waits = [S::Blocked, S::Ready, S::Paused];
        let works = [S::Running, S::Verifying, S::Reviewing];
        match self {
            By::Moved if open => {
                from == to
                    || (works.contains(&from) && to == S::Paused)
                    || (from == S::Paused && works.contains(&to))
            }
            By::Moved => waits.contains(&from) && waits.contains(&to),
            By::Ended => !open && !from.is_terminal() && to.is_terminal(),
            By::Reopened => from.is_terminal() && from != S::Done && to == S::Blocked,
            By::Started => from == S::Ready && to == S::Running,
            By::Proof => [S::Running, S::Verifying].contains(&from) && to == S::Verifying,
            By::Failed => {
                let ends = [S::Ready, S::Paused, S::Failed, S::Cancelled];
                works.contains(&from) && ends.contains(&to)
            }
            By::Well => works.contains(&from) && to == S::Done,
        }
    }
}

/// I5: every step of the task table belongs to certain records, which say what else changes with
/// it; any other record that asks for it is of a corrupt journal.
#[test]
fn each_record_takes_its_own_edges_of_a_task_and_no_others() {
    let start = busy().facts().clone();
    let attempt = start.tasks[0].attempts.0;
    let mut taken = std::collections::BTreeSet::new();
    for &from in TaskState::ALL {
        for open in [false, true] {
            let sane = if open {
                from.is_live() || from == TaskState::Paused
            } else {
                !from.is_live()
            };
            if !sane {
                continue;
            }
            let mut facts = start.clone();
            facts.tasks[0].state = from;
            facts.runs.clear();
            match (&mut facts.tasks[0].attempt, open) {
                // Its agent is done: the proof is due.
                (Some(attempt), true) => attempt.step_done = true,
                (attempt, _) => *attempt = None,
            }
            let core = Core::restore(facts);
            for &to in TaskState::ALL {
                for by in By::ALL {
                    let Some(record) = by.record(to, attempt) else {
                        continue;
                    };
                    let edge = from == to || from.edges().contains(&to);
                    if edge && by.takes(from, to, open) {
                        let core = follows(&core, record);
                        let found = core.facts().unwrap().tasks[0].state;
                        let queued = by == By::Reopened && found == TaskState::Ready;
                        assert!(found == to || queued, "{by:?} {from} {to}: {found}");
                        taken.insert((from, to));
                    } else {
                        refuses(&core, record);
                    }
                }
            }
        }
    }
    // The plan and questions have records of their own, which name no state.
    for edge in TaskState::ALL.iter().flat_map(|&from| {
        let edges = from.edges().iter();
        edges.map(move |&to| (from, to))
    }) {
        let elsewhere = [
            (TaskState::Pending, TaskState::Blocked),
            (TaskState::Pending, TaskState::Ready),
            (TaskState::Running, TaskState::Waiting),
            (TaskState::Waiting, TaskState::Running),
            (TaskState::Verifying, TaskState::Reviewing),
            (TaskState::Reviewing, TaskState::Running),
        ];
        assert_ne!(taken.contains(&edge), elsewhere.contains(&edge), "{edge:?}");
    }
}

/// The refusal names the step where the table lacks it, and the rule where the record is wrong.
#[test]
fn a_refused_step_says_why() {
    let world = busy();
    let why = |record| breaks_rule(&world.core, record);
    let a_move = "a move neither ends nor reopens a task, nor an attempt";
    let (waits, bad) = (TaskIx(1), TaskIx(3));
    assert_eq!(why(moved(bad, TaskState::Blocked)), a_move);
    assert_eq!(why(moved(A, TaskState::Ready)), a_move);
    assert_eq!(why(moved(waits, TaskState::Cancelled)), a_move);
    let by_itself = "only a task without an attempt ends by itself, once";
    assert_eq!(why(ended(A, TaskState::Failed)), by_itself);
    assert_eq!(why(ended(waits, TaskState::Ready)), by_itself);
    let outcome = "an attempt ends done without a class, failed or cancelled with one";
    assert_eq!(why(attempt_ended(A, 1, TaskState::Verifying)), outcome);
    assert_eq!(why(attempt_ended(A, 1, TaskState::Done)), outcome);
    let error = refuses(&world.core, moved(A, TaskState::Blocked));
    assert!(matches!(error, ReplayError::Edge { .. }), "{error}");
}

/// A stopping run stays stopping, whatever its host still says; every other pair asks the table.
#[test]
fn illegal_edges_of_runs_are_refused() {
    let mut world = busy();
    let generation = world.run("works");
    let start = world.facts().clone();
    let spawned = run_spawned(&mut world, generation);
    let at = |from: RunState| {
        let mut facts = start.clone();
        facts.runs.get_mut(&generation).unwrap().state = from;
        facts
    };
    let record = |to: RunState| match to {
        RunState::Intended => None,
        RunState::Spawned => Some(spawned.clone()),
        RunState::Started => Some(run_started(generation)),
        RunState::Finished => Some(run_finished(generation)),
        RunState::Stopping => Some(stop_decided(generation)),
        RunState::Ended => Some(run_ended(generation)),
    };
    let lenient = |from, to| from == RunState::Stopping && to != RunState::Ended;
    every_pair!(
        "run",
        RunState,
        from,
        to,
        at(from),
        record(to).filter(|_| !lenient(from, to))
    );
    for to in [RunState::Spawned, RunState::Started, RunState::Finished] {
        let core = Core::restore(at(RunState::Stopping));
        let core = follows(&core, record(to).unwrap());
        let run = &core.facts().unwrap().runs[&generation];
        assert_eq!(run.state, RunState::Stopping, "told {to}");
    }
}

/// An ended attempt is no open one, even where a damaged checkpoint says so.
#[test]
fn illegal_edges_of_attempts_are_refused() {
    let mut facts = busy().facts().clone();
    facts.tasks[0].attempt.as_mut().unwrap().state = AttemptState::Ended;
    let core = Core::restore(facts);
    for (record, to) in [
        (attempt_ended(A, 1, TaskState::Failed), AttemptState::Ended),
        (intended(A, 50), AttemptState::Proving),
    ] {
        let error = refuses(&core, record);
        let ReplayError::Edge { edge, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((edge.machine, edge.to), ("attempt", to.word()));
    }
}

/// A question of a task that is not there leaves no trace, not even in its number.
#[test]
fn a_question_needs_its_task_and_its_run() {
    let world = busy();
    let generation = world.run("works");
    let error = refuses(&world.core, opened(1, TaskIx(99), generation));
    assert!(matches!(error, ReplayError::Unknown { what: "task", .. }));
    let core = follows(&world.core, opened(1, A, generation));
    assert_eq!(core.facts().unwrap().tasks[0].state, TaskState::Waiting);
}

/// A long story with something of everything: mail, a question, a limit, a crash, a proof, a
/// cancelled task, a reopened one.
fn eventful() -> World {
    let plan = batch()
        .task("proven")
        .verified()
        .task("asks")
        .task("limited")
        .task("bad")
        .spec(|spec| spec.attempts = 1)
        .task("after-bad")
        .after(&["bad"])
        .task("cancelled");
    let mut world = World::start(plan);
    world.steer("asks", SteerMode::Boundary, "be brief");
    for name in ["proven", "asks", "limited"] {
        world.begin(name);
    }
    let question = world.ask("asks", "which?");
    world.ends("limited", failed(Class::UsageLimit));
    world.cancel("cancelled");
    let text = "this one".into();
    world.op_lines(OperatorCommand::Answer { question, text });
    world.ends("proven", ok());
    world.succeed("proven");
    world.fail("bad", Class::AgentFailed);
    world.pass(mins(1));
    world.report("asks", Event::Usage(used(5)));
    world.crash_and_lose();
    world.pass(hours(1));
    world.retry("bad");
    world.tick();
    world
}

/// I5: a checkpoint taken after any record, and the records after it, give the same facts as all
/// records from the first.
#[test]
fn every_cut_of_a_journal_gives_the_same_facts() {
    let world = eventful();
    assert!(world.journal.len() > 40, "{} records", world.journal.len());
    let mut whole = Core::new();
    for cut in 0..world.journal.len() {
        whole.replay(&world.journal[cut]).unwrap();
        let mut core = Core::restore(whole.facts().unwrap().clone());
        assert_eq!(core.facts(), whole.facts());
        for entry in &world.journal[cut + 1..] {
            core.replay(entry).unwrap();
        }
        assert_eq!(core.facts(), world.core.facts(), "cut after {}", cut + 1);
    }
    assert_eq!(whole.facts(), world.core.facts());
}

/// The same inputs with the same seed decide the same, to the last token.
#[test]
fn the_same_story_has_the_same_journal() {
    assert_eq!(eventful().journal, eventful().journal);
}

/// A journal that lacks any one of its records is not followed to its end.
#[test]
fn a_journal_with_a_hole_is_noticed_at_the_hole() {
    let world = eventful();
    for hole in 0..world.journal.len() - 1 {
        let mut core = Core::new();
        for entry in &world.journal[..hole] {
            core.replay(entry).unwrap();
        }
        let error = core.replay(&world.journal[hole + 1]).unwrap_err();
        let last = world.journal[hole].seq - 1;
        let found = last + 2;
        assert_eq!(error, ReplayError::Gap { last, found });
    }
}

/// Replay tells the steps that were told live, in their order.
#[test]
fn replay_tells_the_same_steps() {
    let world = eventful();
    let mut core = Core::new();
    let mut told = Vec::new();
    for entry in &world.journal {
        told.extend(core.replay(entry).unwrap());
    }
    assert_eq!(told, world.changes);
}
