//! Which branches a story reached: a fault that never happened or an edge that was never taken
//! proves nothing, so the run over many seeds fails when one is missing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use protocol::class::Class;
use supervisor_core::core::Change;
use supervisor_core::machine::{
    AccountState, AttemptState, BatchState, CommentState, Edge, MergeState, MessageState,
    QuestionState, RunState, TaskState,
};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::StopReason;
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};

use super::delivery::SCENES;
use super::disk::DiskCounts;
use super::swarm::Fault;

/// A branch: what kind it is, and its name in two words.
type Key = (&'static str, &'static str, &'static str);

/// Attempt outcomes that no input of this release leads to.
const CLASSES_UNREACHED: &[Class] = &[];

/// How often each branch was reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached(BTreeMap<Key, u64>);

impl Reached {
    fn add(&mut self, key: Key, times: u64) {
        if times > 0 {
            *self.0.entry(key).or_default() += times;
        }
    }

    pub(super) fn change(&mut self, change: &Change) {
        let edge = edge_of(change);
        self.add((edge.machine, edge.from, edge.to), 1);
    }

    pub(super) fn letter(&mut self, letter: Letter) {
        self.add(("letter", letter.word(), ""), 1);
    }

    pub(super) fn stop(&mut self, reason: StopReason) {
        self.add(("stop", reason.word(), ""), 1);
    }

    pub(super) fn class(&mut self, class: Class) {
        self.add(("class", class.word(), ""), 1);
    }

    pub(super) fn revision(&mut self, what: &'static str) {
        self.add(("revision", what, ""), 1);
    }

    /// A run was decided.
    pub(super) fn purpose(&mut self, purpose: Purpose) {
        let (kind, word) = match purpose {
            Purpose::Step(step) => ("step", step.word()),
            Purpose::Merge(_, stage) => ("stage", stage.word()),
            Purpose::Clean(step) => ("clean", step.word()),
            Purpose::Comment(CommentOn::Failed) => ("comment", "failed"),
            Purpose::Comment(CommentOn::Done) => ("comment", "done"),
            Purpose::Comment(CommentOn::Question(_)) => ("comment", "question"),
        };
        self.add((kind, word, ""), 1);
    }

    pub(super) fn scene(&mut self, what: &'static str) {
        self.add(("scene", what, ""), 1);
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.add(("fault", fault.word(), ""), 1);
    }

    pub(super) fn disk(&mut self, counts: DiskCounts) {
        for (name, times) in disk_words(counts) {
            self.add(("disk", name, ""), times);
        }
    }

    /// Takes the counts of another story in.
    pub fn merge(&mut self, other: &Reached) {
        for (key, times) in &other.0 {
            self.add(*key, *times);
        }
    }

    /// Names of the branches that must be reached and were not.
    pub fn missing(&self) -> Vec<String> {
        let missing = required()
            .into_iter()
            .filter(|key| !self.0.contains_key(key));
        missing
            .map(|(kind, from, to)| format!("{kind}: {from} {to}").trim().to_owned())
            .collect()
    }

    /// Every count, a line each.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for ((kind, from, to), times) in &self.0 {
            // Writing into a string does not fail.
            let _ = writeln!(text, "{times:>9}  {kind}: {from} {to}");
        }
        text
    }
}

fn edge_of(change: &Change) -> Edge {
    match change {
        Change::Batch(edge)
        | Change::Task(_, edge)
        | Change::Attempt(_, edge)
        | Change::Merge(_, edge)
        | Change::Comment(_, edge)
        | Change::Run(_, edge)
        | Change::Message(_, edge)
        | Change::Question(_, edge)
        | Change::Account(_, edge) => *edge,
    }
}

fn disk_words(counts: DiskCounts) -> [(&'static str, u64); 7] {
    [
        ("full", counts.full),
        ("sync_failed", counts.sync_failed),
        ("bytes_lost", counts.bytes_lost),
        ("torn_at_byte", counts.torn_at_byte),
        ("torn_in_blocks", counts.torn_in_blocks),
        ("names_lost", counts.names_lost),
        ("cut_short", counts.cut_short),
    ]
}

/// Every purpose that a run may have, by its kind and word.
fn purposes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let steps = Step::ALL.iter().map(|step| ("step", step.word()));
    let stages = Stage::ALL.iter().map(|stage| ("stage", stage.word()));
    let comments = ["failed", "done", "question"].map(|on| ("comment", on));
    let cleans = CleanStep::ALL.iter().map(|step| ("clean", step.word()));
    steps.chain(stages).chain(cleans).chain(comments)
}

fn required() -> Vec<Key> {
    let machines = [
        BatchState::all_edges(),
        TaskState::all_edges(),
        AttemptState::all_edges(),
        MergeState::all_edges(),
        CommentState::all_edges(),
        RunState::all_edges(),
        MessageState::all_edges(),
        QuestionState::all_edges(),
        AccountState::all_edges(),
    ];
    let mut keys: Vec<Key> = machines
        .iter()
        .flatten()
        .map(|edge| (edge.machine, edge.from, edge.to))
        .collect();
    keys.extend(
        Letter::ALL
            .iter()
            .map(|letter| ("letter", letter.word(), "")),
    );
    keys.extend(
        StopReason::ALL
            .iter()
            .map(|reason| ("stop", reason.word(), "")),
    );
    keys.extend(Fault::ALL.iter().map(|fault| ("fault", fault.word(), "")));
    keys.extend(super::revisions::REVISIONS.map(|what| ("revision", what, "")));
    let classes = Class::ALL
        .iter()
        .filter(|class| !CLASSES_UNREACHED.contains(class));
    keys.extend(classes.map(|class| ("class", class.word(), "")));
    keys.extend(SCENES.map(|what| ("scene", what, "")));
    keys.extend(purposes().map(|(kind, word)| (kind, word, "")));
    keys.extend(disk_words(DiskCounts::default()).map(|(name, _)| ("disk", name, "")));
    keys
}
