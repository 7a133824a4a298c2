//! The way of a done task's commit to the batch branch, step by step.

use protocol::report::{ResultStatus, RunResult};
use supervisor_core::facts::Facts;
use supervisor_core::machine::MergeState;
use supervisor_core::plan::{AgentIx, TaskIx};
use supervisor_core::record::{Entry, Record};
use supervisor_core::step::Stage;
use supervisor_core::time::Wall;

use super::plain::sentence;
use crate::view::story;

/// The word for the search of the merge that breaks a proof.
pub const HALVING: &str = "halving";

/// One step of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeStep {
    /// When.
    pub at: Wall,
    /// The word of its state from then on, or of what was done meanwhile.
    pub what: &'static str,
    /// A sentence; empty where the word says it all.
    pub text: String,
}

/// What a record says of merges: of which tasks, and what.
pub fn of(before: Option<&Facts>, entry: &Entry) -> Vec<(TaskIx, MergeStep)> {
    if let Record::MergeMoved { task, .. } = &entry.record {
        let step = moved(entry);
        return step.map(|step| (*task, step)).into_iter().collect();
    }
    let step = |what, text| MergeStep {
        at: entry.now.wall,
        what,
        text,
    };
    if let Record::RoundBegan {
        stage: Stage::Conflict,
        tasks,
        ..
    } = &entry.record
    {
        let tasks = tasks.iter();
        return tasks
            .map(|task| (*task, step(MergeState::Resolving.word(), String::new())))
            .collect();
    }
    let Record::RoundMoved {
        repo, bad: Some(_), ..
    } = &entry.record
    else {
        return Vec::new();
    };
    let round = before.and_then(|facts| facts.repos.get(repo.0 as usize)?.round.as_ref());
    let commits = round.map_or(&[][..], |round| &round.commits);
    let text = halved(before, entry);
    let tasks = commits.iter().map(|(task, _)| *task);
    tasks
        .map(|task| (task, step(HALVING, text.clone())))
        .collect()
}

/// A merge moved; that it is being proven is worth a line only where something is said of it.
fn moved(entry: &Entry) -> Option<MergeStep> {
    let Record::MergeMoved {
        to, merged, detail, ..
    } = &entry.record
    else {
        return None;
    };
    let text = match merged {
        Some(commit) => format!("as {}", commit.short()),
        None => sentence(detail),
    };
    let says = !text.is_empty() || *to != MergeState::Verifying;
    says.then(|| MergeStep {
        at: entry.now.wall,
        what: to.word(),
        text,
    })
}

/// The story's sentence without its beginning: here everything is about merges.
fn halved(before: Option<&Facts>, entry: &Entry) -> String {
    let told = story::line(before, entry).text;
    let said = told.split_once(": ").map_or(&*told, |(_, said)| said);
    sentence(said)
}

/// An agent tried to resolve a conflict.
pub fn resolved(
    facts: Option<&Facts>,
    agent: Option<AgentIx>,
    result: &RunResult,
    at: Wall,
) -> MergeStep {
    let spec = facts.zip(agent);
    let spec = spec.and_then(|(facts, agent)| facts.agents.get(agent.0 as usize));
    let name = spec.map_or("an agent", |spec| &spec.name);
    let said = sentence(&result.summary);
    let text = match result.status {
        ResultStatus::Ok => format!("{name} resolved it"),
        ResultStatus::Failed => {
            let class = result.class.map_or("failed", |class| class.word());
            format!("{name} did not resolve it ({class})")
        }
    };
    MergeStep {
        at,
        what: MergeState::Resolving.word(),
        text: match said.is_empty() {
            true => text,
            false => format!("{text}: {said}"),
        },
    }
}
