//! What must hold after every single input, whatever the story is.

use std::collections::BTreeSet;

use protocol::ids::Generation;
use supervisor_core::core::{Change, Core, Turn};
use supervisor_core::effect::Effect;
use supervisor_core::facts::Facts;
use supervisor_core::index::Index;
use supervisor_core::input::Input;
use supervisor_core::machine::{MergeState, TaskState};
use supervisor_core::record::{Entry, Record};
use supervisor_core::step::Purpose;
use supervisor_core::time::Now;
use supervisor_core::timers::Timers;

/// Inputs between two checkpoints; small, so that stories have several.
const CHECKPOINT_EVERY: u64 = 5;

/// A second core that only replays, a third that was restored from a checkpoint on the way, and
/// what was asked for so far.
#[derive(Default)]
pub(crate) struct Checks {
    silent: bool,
    steps: u64,
    replayed: Core,
    restored: Core,
    spawned: BTreeSet<Generation>,
    opened: BTreeSet<Generation>,
}

impl Checks {
    pub(crate) fn off(&mut self) {
        self.silent = true;
    }

    pub(crate) fn crashed(&mut self) {
        self.opened.clear();
    }

    /// The supervisor died before later records were durable, and nothing that they asked for was done.
    pub(crate) fn rewound(&mut self, journal: &[Entry]) {
        self.opened.clear();
        self.replayed = Core::new();
        for entry in journal {
            self.replayed.replay(entry).expect("it was applied before");
        }
        self.restored = self.replayed.clone();
        let last = self
            .replayed
            .facts()
            .map(|facts| facts.batch.last_generation);
        self.spawned.retain(|it| Some(*it) <= last);
    }

    pub(crate) fn after(&mut self, core: &Core, now: Now, input: &Input, turn: &Turn) {
        assert_eq!(turn.defects, [], "no decision is refused by an edge table");
        for effect in &turn.urgent {
            assert!(
                effect.is_urgent(),
                "I4: {effect:?} must wait for its records"
            );
        }
        for effect in &turn.effects {
            assert!(
                !effect.is_urgent(),
                "I4: {effect:?} must not wait for a disk"
            );
        }
        if self.silent {
            return;
        }
        self.replay(core, turn);
        let Some(facts) = core.facts() else {
            assert_eq!(turn, &Turn::default(), "nothing is decided without a batch");
            return;
        };
        entries_are_numbered(facts, now, &turn.entries);
        terminal_stays_terminal(turn);
        if !turn.entries.is_empty() {
            nobody_works_twice(facts);
            counts_are_true(facts, core.index().expect("an index"));
        }
        self.each_effect_once(facts, turn);
        if *input == Input::Tick {
            self.nothing_due_is_left(core, now);
        }
    }

    /// I5: the same `apply` live, in replay, and after a checkpoint.
    fn replay(&mut self, core: &Core, turn: &Turn) {
        let mut changes = Vec::new();
        for entry in &turn.entries {
            changes.extend(self.replayed.replay(entry).expect("it was applied before"));
            self.restored.replay(entry).expect("it was applied before");
        }
        assert_eq!(changes, turn.changes, "replay takes the same steps");
        if !turn.entries.is_empty() {
            same(core, &self.replayed, "replay from the first record");
            same(core, &self.restored, "checkpoint and replay from there");
        }
        self.steps += 1;
        if self.steps.is_multiple_of(CHECKPOINT_EVERY)
            && let Some(facts) = core.facts()
        {
            self.restored = Core::restore(facts.clone());
            same(core, &self.restored, "a checkpoint");
        }
    }

    /// Hosts are asked for once, and `start` goes only to a host whose identity is in the state.
    fn each_effect_once(&mut self, facts: &Facts, turn: &Turn) {
        for effect in &turn.effects {
            match effect {
                Effect::SpawnHost { generation } => {
                    assert!(self.spawned.insert(*generation), "I6: {generation} twice");
                    assert!(
                        facts.runs.contains_key(generation),
                        "I4: no record of {generation}"
                    );
                }
                Effect::StartRun { generation, .. } => {
                    assert!(
                        self.opened.insert(*generation),
                        "one `start` for {generation}"
                    );
                    let identity = &facts.runs[generation].identity;
                    assert!(identity.is_some(), "I1: identity before `start`");
                }
                Effect::Deliver { generation, .. } | Effect::AnswerHost { generation, .. } => {
                    assert!(self.opened.contains(generation), "only behind an open gate");
                }
                Effect::StopHost { .. }
                | Effect::KillHost { .. }
                | Effect::Ping { .. }
                | Effect::Reply { .. }
                | Effect::Finish { .. } => {}
            }
        }
    }

    /// A tick leaves at most what it caused itself; the world ticks again and then nothing is due.
    fn nothing_due_is_left(&self, core: &Core, now: Now) {
        let next = core.next_deadline();
        if let Some(wall) = next.wall {
            assert!(wall > now.wall, "a date that is due has fired");
        }
    }
}

fn entries_are_numbered(facts: &Facts, now: Now, entries: &[Entry]) {
    for entry in entries {
        assert_eq!(entry.now, now, "decided now");
        assert!(entry.term <= facts.batch.term, "of this term at most");
    }
    for pair in entries.windows(2) {
        assert_eq!(pair[0].seq + 1, pair[1].seq, "no gap in the journal");
    }
    if let Some(last) = entries.last() {
        assert_eq!(last.seq, facts.batch.seq, "the state knows its last record");
        assert_eq!(last.term, facts.batch.term, "decided in this term");
    }
}

/// I5: terminal is left by `Reopened` alone, or where the merge that failed for it is tried again.
fn terminal_stays_terminal(turn: &Turn) {
    let reopened = turn.entries.iter().any(|entry| {
        matches!(
            entry.record,
            Record::Reopened { .. }
                | Record::MergeMoved {
                    to: MergeState::Queued,
                    ..
                }
        )
    });
    for change in &turn.changes {
        let Change::Task(ix, edge) = change else {
            continue;
        };
        let from = TaskState::from_word(edge.from).expect("a task state");
        assert!(
            !from.is_terminal() || reopened,
            "I5: {ix:?} left {from} by itself"
        );
    }
}

/// I6: one run of a task at a time, one lane for each attempt.
fn nobody_works_twice(facts: &Facts) {
    let mut jobs = BTreeSet::new();
    for (generation, run) in &facts.runs {
        let (what, belongs) = match run.purpose {
            Purpose::Step(_) => {
                let attempt = facts.tasks[run.task.0 as usize].attempt.as_ref();
                let open = attempt.is_some_and(|open| open.run == *generation);
                (format!("{:?}", run.task), open)
            }
            Purpose::Clean(_) => {
                let clean = facts.tasks[run.task.0 as usize].clean.as_ref();
                let due = clean.is_some_and(|clean| clean.run == Some(*generation));
                (format!("{:?}", run.task), due)
            }
            Purpose::Comment(on) => {
                let next = facts.tasks[run.task.0 as usize].comments.first();
                let due = next.is_some_and(|next| next.on == on && next.run == Some(*generation));
                (format!("the comments of {:?}", run.task), due)
            }
            Purpose::Merge(repo, _) => {
                let round = facts.repos[repo.0 as usize].round.as_ref();
                let due = round.is_some_and(|round| round.run == Some(*generation));
                (format!("{repo:?}"), due)
            }
        };
        assert!(belongs, "run {generation} belongs to nothing");
        assert!(jobs.insert(what.clone()), "I6: two runs of {what}");
    }
    everything_is_whole(facts);
    let mut slots = BTreeSet::new();
    for task in &facts.tasks {
        if let Some(attempt) = &task.attempt {
            assert!(slots.insert(attempt.slot), "lane {} twice", attempt.slot);
        }
        let live = task.attempt.is_some();
        assert!(
            !task.state.is_live() || live,
            "{} is live without attempt",
            task.id
        );
        assert!(
            !(task.state.is_terminal() && live),
            "{} is over with attempt",
            task.id
        );
    }
}

/// Work that is under way belongs to a round; a worktree that goes is not worked in.
fn everything_is_whole(facts: &Facts) {
    for (at, task) in facts.tasks.iter().enumerate() {
        let under_way = task
            .merge
            .as_ref()
            .is_some_and(|it| it.state.is_under_way());
        let rounds = facts.repos.iter().filter_map(|repo| repo.round.as_ref());
        let mut of = rounds.filter(|round| round.tasks.iter().any(|ix| ix.0 as usize == at));
        let round = of.next();
        assert!(of.next().is_none(), "{} is in two rounds", task.id);
        assert!(
            !under_way || round.is_some(),
            "{} is being merged by nobody",
            task.id
        );
        let goes = task.clean.is_some();
        assert!(!(goes && task.attempt.is_some()), "{} works in it", task.id);
        assert!(!goes || task.worktree.is_some(), "{} has nothing", task.id);
        assert!(
            task.merge.is_none() || task.state == TaskState::Done,
            "{} is merged and not done",
            task.id
        );
    }
}

fn counts_are_true(facts: &Facts, index: &Index) {
    for state in TaskState::ALL {
        let there = facts
            .tasks
            .iter()
            .filter(|task| task.state == *state)
            .count();
        assert_eq!(index.count(*state) as usize, there, "count of {state}");
    }
}

fn same(live: &Core, other: &Core, how: &str) {
    assert_eq!(live.facts(), other.facts(), "{how} gives the same facts");
    // A timer that fired without a record is armed again after a restart, and fires again.
    let bare = |core: &Core| {
        core.index().map(|index| {
            let mut index = index.clone();
            index.timers = Timers::default();
            index
        })
    };
    assert_eq!(bare(live), bare(other), "{how} gives the same index");
}
