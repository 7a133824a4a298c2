//! What is on the batch branch of each repository, and where that went.

use protocol::integrate::IntegrateResult;
use supervisor_core::facts::{Repo, Task};
use supervisor_core::machine::MergeState;
use supervisor_core::plan::{RepoIx, TaskIx};

use super::Beside;
use super::build::tasks_in;
use super::history::History;
use super::part::{IntegratedPart, MergedPart, RepoPart};
use super::plain::sentence;
use crate::batch_file::render::Renderer;
use crate::batch_file::work::{BatchWork, RepoWork};
use crate::store::integrated::Note;
use crate::view::View;
use crate::view::time::Stamp;

/// What is before a branch's name in the name of its ref.
const HEADS: &str = "refs/heads/";

/// Each repository in which tasks of the report work.
pub(super) fn parts(
    view: &View<'_>,
    history: &History,
    beside: &Beside,
    only: Option<TaskIx>,
) -> Vec<RepoPart> {
    let all = (0..).map(RepoIx).zip(&view.facts.repos);
    let parts = all.filter_map(|(ix, repo)| {
        let mut tasks = tasks_in(view.facts, ix);
        let has = only.is_none_or(|only| tasks.any(|(task, _)| task == only));
        has.then(|| part(view, history, beside, (ix, repo), only))
    });
    parts.collect()
}

fn part(
    view: &View<'_>,
    history: &History,
    beside: &Beside,
    (ix, repo): (RepoIx, &Repo),
    only: Option<TaskIx>,
) -> RepoPart {
    let name = &*repo.spec.name;
    let landed = history.commits.iter().filter(|landed| {
        let task = view.task(landed.task).and_then(|task| view.spec(task));
        task.is_some_and(|spec| spec.worktree == Some(ix))
    });
    let all: Vec<_> = landed.collect();
    let tip = all.last().map(|landed| landed.commit.to_string());
    let wanted = all
        .iter()
        .filter(|landed| only.is_none_or(|only| only == landed.task));
    let merged = wanted.map(|landed| MergedPart {
        task: view.task_name(landed.task),
        commit: landed.commit.to_string(),
        time: Stamp(landed.at),
    });
    let notes: Vec<&Note> = beside
        .integrated
        .iter()
        .filter(|note| note.repo == name)
        .collect();
    let is_integrated = notes
        .last()
        .is_some_and(|note| is_done(&note.result) && Some(note.commit.as_str()) == tip.as_deref());
    let unmerged = tasks_in(view.facts, ix).filter(|(_, task)| waits(task));
    let work: Option<RepoWork> = serde_json::from_str(&repo.spec.work).ok();
    RepoPart {
        name: name.to_owned(),
        branch: work.as_ref().and_then(|work| branch(view, work)),
        path: work.as_ref().map(|work| work.path.display().to_string()),
        base: work.as_ref().map(|work| work.base.to_string()),
        merged: merged.collect(),
        unmerged: unmerged.map(|(_, task)| task.id.to_string()).collect(),
        integrated: notes.iter().map(|note| integrated(note)).collect(),
        is_integrated,
        command: (tip.is_some() && !is_integrated).then(|| command(view, name)),
        tip,
    }
}

/// Work that may still come to the batch branch.
fn waits(task: &Task) -> bool {
    let merge = task.merge.as_ref().map(|merge| merge.state);
    !task.state.is_terminal()
        || merge.is_some_and(|state| !state.is_settled() || state == MergeState::Parked)
}

/// The batch branch, without what is before the name of a branch.
fn branch(view: &View<'_>, work: &RepoWork) -> Option<String> {
    let settings = &view.facts.batch.settings;
    let batch: BatchWork = serde_json::from_str(&settings.work).ok()?;
    let id = &view.facts.batch.id;
    let whole = Renderer::default().batch_branch(&batch, work, id, &settings.name);
    let whole = whole.ok()?;
    Some(whole.strip_prefix(HEADS).unwrap_or(&whole).to_owned())
}

fn command(view: &View<'_>, repo: &str) -> String {
    let id = &view.facts.batch.id;
    match view.facts.repos.len() {
        1 => format!("supervisor integrate {id}"),
        _ => format!("supervisor integrate {id} --repo {repo}"),
    }
}

fn integrated(note: &Note) -> IntegratedPart {
    IntegratedPart {
        time: note.time.clone(),
        commit: note.commit.to_string(),
        into: note
            .into
            .strip_prefix(HEADS)
            .unwrap_or(&note.into)
            .to_owned(),
        text: sentence(&note.to_string()),
    }
}

/// Whether the operator's branch took it, or was asked to by a pull request.
const fn is_done(result: &IntegrateResult) -> bool {
    match result {
        IntegrateResult::FastForwarded { .. }
        | IntegrateResult::Merged { .. }
        | IntegrateResult::PullRequest { .. }
        | IntegrateResult::Contained {} => true,
        IntegrateResult::Planned {}
        | IntegrateResult::Conflict {}
        | IntegrateResult::Refused { .. } => false,
    }
}
