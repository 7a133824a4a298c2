//! A report from the picture of a batch and its past.

use std::collections::BTreeMap;

use protocol::git::Oid;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::machine::{MergeState, TaskState};
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::time::Wall;

use super::Beside;
use super::history::{AttemptPast, History, StepPast, TaskPast, step_name};
use super::incident::{Incident, Kind};
use super::needs;
use super::part::{
    AttemptPart, BatchPart, HostPart, IncidentPart, MergePart, MergeStepPart, Need, Report,
    SalvagePart, StepPart, TaskPart, WorktreePart,
};
use super::plain::sentence;
use super::repos;
use super::used::Used;
use crate::view::asked::needs_person;
use crate::view::delivery::{self, Places};
use crate::view::reason::{BatchWhy, TaskWhy};
use crate::view::time::{Span, Stamp};
use crate::view::{HostFact, View};

/// The version of the keys.
const VERSION: u32 = 1;

/// The report of a batch, or of one task of it.
pub(super) fn report(
    view: &View<'_>,
    history: &History,
    beside: &Beside,
    only: Option<TaskIx>,
) -> Report {
    let facts = view.facts;
    let wanted = |ix: &TaskIx| only.is_none_or(|only| only == *ix);
    let chosen: Vec<(TaskIx, &Task)> = (0..)
        .map(TaskIx)
        .zip(&facts.tasks)
        .filter(|(ix, _)| wanted(ix))
        .collect();
    let places = view.places();
    let tasks: Vec<TaskPart> = chosen
        .iter()
        .map(|(ix, task)| task_part(view, &places, history.task(*ix), task))
        .collect();
    let worktrees = tasks.iter().zip(&chosen).filter_map(|(part, (_, task))| {
        Some(WorktreePart {
            task: part.id.clone(),
            path: part.worktree.clone()?,
            merged: delivery::is_merged(task),
        })
    });
    let damage = damage(beside);
    let incidents = history.incidents.iter();
    let incidents = incidents.filter(|it| only.is_none() || it.task == only);
    let incidents: Vec<IncidentPart> = damage
        .iter()
        .chain(incidents)
        .map(|it| incident_part(view, it))
        .collect();
    Report {
        v: VERSION,
        made: Stamp(view.time.now),
        task: only.map(|ix| view.task_name(ix)),
        batch: batch_part(view, history),
        needs: needs(view, history, &chosen, only),
        worktrees: worktrees.collect(),
        salvaged: tasks.iter().flat_map(|it| it.salvaged.clone()).collect(),
        repos: repos::parts(view, history, beside, only),
        incidents,
        incidents_before: history.incidents.before(),
        hosts: hosts(view, &wanted),
        tasks,
    }
}

fn batch_part(view: &View<'_>, history: &History) -> BatchPart {
    let batch = &view.facts.batch;
    let counts = view.counts();
    let ran = batch.ran.saturating_add(match batch.running_since {
        Some(since) => std::time::Duration::from_millis(batch.now.boot.0.saturating_sub(since.0)),
        None => std::time::Duration::ZERO,
    });
    let mut used = history.used;
    for run in view.facts.runs.values() {
        used.add(Used::of_live(run));
    }
    BatchPart {
        id: batch.id.to_string(),
        name: batch.settings.name.to_string(),
        state: view.batch_state().word(),
        reason: sentence(&BatchWhy { view }.to_string()),
        alive: view.presence.alive,
        file: view.file.to_owned(),
        dir: view.dir.to_owned(),
        created: Stamp(batch.created),
        updated: Stamp(batch.now.wall),
        record: batch.seq,
        terms: batch.term,
        wall_ms: millis(batch.created, batch.now.wall),
        ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
        tasks: counts.all(),
        settled: counts.settled(),
        counts,
        attempts: history.attempts,
        used: used.into(),
    }
}

/// From one moment to another; nothing where the clock went backwards in between.
fn millis(from: Wall, to: Wall) -> u64 {
    u64::try_from(Span::between(from, to).0.as_millis()).unwrap_or(u64::MAX)
}

fn needs(
    view: &View<'_>,
    history: &History,
    chosen: &[(TaskIx, &Task)],
    only: Option<TaskIx>,
) -> Vec<Need> {
    let batch = needs::of_batch(view).filter(|_| only.is_none());
    let tasks = chosen.iter().filter_map(|(ix, task)| {
        let need = needs::of_task(view, task)?;
        Some(with_conflict(need, history.task(*ix)))
    });
    batch.into_iter().chain(tasks).collect()
}

/// A conflict with whose merge it is, which the state does not name.
fn with_conflict(need: Need, past: Option<&TaskPast>) -> Need {
    let (conflict, rolled_back) = (MergeState::Conflict.word(), MergeState::RolledBack.word());
    let steps = past.into_iter().flat_map(|past| past.merge.iter());
    let mut last = steps.filter(|step| step.what == conflict || step.what == rolled_back);
    match last.next_back() {
        Some(step) if need.kind == needs::PARKED && step.what == conflict => Need {
            text: step.text.clone(),
            ..need
        },
        Some(_) | None => need,
    }
}

fn task_part(
    view: &View<'_>,
    places: &Places<'_>,
    past: Option<&TaskPast>,
    task: &Task,
) -> TaskPart {
    let empty = TaskPast::default();
    let past = past.unwrap_or(&empty);
    let attempts: Vec<AttemptPart> = past.attempts.iter().map(attempt_part).collect();
    let now = view.facts.batch.now.wall;
    let open = past.attempts.iter().rev().find(|it| it.ended.is_none());
    let open_ms = open.map_or(0, |attempt| millis(attempt.started.1, now));
    let mut used = past.used;
    if let Some((_, run)) = view.run(task) {
        used.add(Used::of_live(run));
    }
    let merge = merge_part(past, task);
    let smooth = is_smooth(view.task_state(task), &attempts, past, merge.as_ref());
    TaskPart {
        id: task.id.to_string(),
        state: view.task_state(task).word(),
        reason: sentence(&TaskWhy { view, task }.to_string()),
        since: Stamp(task.since),
        agent: view.agent(task).map(|agent| agent.name.to_string()),
        attempts_had: task.attempts.0,
        attempts_counted: task.consumed,
        attempts_max: view.attempts_max(task),
        worked_ms: past.worked_ms.saturating_add(open_ms),
        used: used.into(),
        smooth,
        needs_operator: needs_person(task),
        attempts_before: past.attempts.before(),
        attempts,
        merge,
        branch: places.branch(task),
        worktree: places.worktree(task).map(|path| path.display().to_string()),
        salvaged: salvaged(past, task),
    }
}

/// Done at once, its proof and its reviewer said so at once, and so did its merge.
fn is_smooth(
    state: TaskState,
    attempts: &[AttemptPart],
    past: &TaskPast,
    merge: Option<&MergePart>,
) -> bool {
    let [attempt] = attempts else {
        return false;
    };
    let well = |step: &StepPart| step.well && step.verdict.is_none_or(|said| said == "approve");
    let straight = [
        MergeState::Queued.word(),
        MergeState::Verifying.word(),
        MergeState::Merged.word(),
    ];
    state == TaskState::Done
        && attempt.outcome == "done"
        && attempt.steps.iter().all(well)
        && past.attempts.before() == 0
        && past.salvaged.is_empty()
        && merge.is_none_or(|merge| {
            merge.state == MergeState::Merged.word()
                && merge.steps.iter().all(|step| straight.contains(&step.what))
        })
}

fn attempt_part(past: &AttemptPast) -> AttemptPart {
    let (started, began) = past.started;
    let ended = past.ended.as_ref();
    let outcome = ended.map_or("open", |(ended, _)| {
        ended.class.map_or("done", |class| class.word())
    });
    AttemptPart {
        attempt: started.attempt.0,
        mode: started.mode.word(),
        began: Stamp(began),
        took_ms: ended.map(|(_, at)| millis(began, *at)),
        outcome,
        counts: ended.and_then(|(ended, _)| ended.class.map(|_| ended.consumed)),
        text: ended.map_or_else(String::new, |(ended, _)| sentence(&ended.detail)),
        summary: past.summary.clone(),
        output: past.output.clone(),
        next: past.next(),
        commit: past.commit.as_ref().map(|(commit, _)| commit.to_string()),
        files: past.commit.as_ref().map(|(_, files)| *files),
        used: past.used.into(),
        steps: past.steps.iter().map(step_part).collect(),
        steps_before: past.steps.before(),
    }
}

fn step_part(past: &StepPast) -> StepPart {
    StepPart {
        step: step_name(past.step),
        well: past.well,
        verdict: past.verdict,
        text: past.text.clone(),
        output: past.output.clone(),
    }
}

fn merge_part(past: &TaskPast, task: &Task) -> Option<MergePart> {
    let merge = delivery::merge(task).filter(|merge| merge.state != MergeState::None)?;
    let steps = past.merge.iter().map(|step| MergeStepPart {
        time: Stamp(step.at),
        what: step.what,
        text: step.text.clone(),
    });
    Some(MergePart {
        state: merge.state.word(),
        commit: merge.commit.to_string(),
        merged: merge.merged.as_ref().map(Oid::to_string),
        steps: steps.collect(),
        steps_before: past.merge.before(),
    })
}

/// What the state names, with what the history knows of each.
fn salvaged(past: &TaskPast, task: &Task) -> Vec<SalvagePart> {
    let known: BTreeMap<&str, _> = past
        .salvaged
        .iter()
        .map(|kept| (kept.reference.as_str(), (kept.files, kept.bytes)))
        .collect();
    let parts = task.salvaged.iter().map(|kept| {
        let size = known.get(&*kept.reference);
        SalvagePart {
            task: task.id.to_string(),
            reference: kept.reference.to_string(),
            commit: kept.commit.to_string(),
            files: size.map(|(files, _)| *files),
            bytes: size.map(|(_, bytes)| *bytes),
        }
    });
    parts.collect()
}

/// Where a crash left half a record, its bytes are in a file.
fn damage(beside: &Beside) -> Vec<Incident> {
    let torn = beside.torn.iter().map(|file| Incident {
        at: None,
        kind: Kind::Damage,
        task: None,
        text: sentence(&format!(
            "an unfinished write was cut off; its bytes are in {file}"
        )),
    });
    torn.collect()
}

fn incident_part(view: &View<'_>, incident: &Incident) -> IncidentPart {
    IncidentPart {
        time: incident.at.map(Stamp),
        kind: incident.kind,
        task: incident.task.map(|ix| view.task_name(ix)),
        text: incident.text.clone(),
    }
}

fn hosts(view: &View<'_>, wanted: &dyn Fn(&TaskIx) -> bool) -> Vec<HostPart> {
    let parts = view.hosts.iter().filter_map(|(generation, fact)| {
        let run = view.facts.runs.get(generation)?;
        wanted(&run.task).then(|| HostPart {
            run: generation.0,
            task: view.task_name(run.task),
            pid: match fact {
                HostFact::Lives(pid) => Some(*pid),
                HostFact::Foreign => None,
            },
        })
    });
    parts.collect()
}

/// The tasks that work in a repository.
pub(super) fn tasks_in(facts: &Facts, repo: RepoIx) -> impl Iterator<Item = (TaskIx, &Task)> {
    let tasks = (0..).map(TaskIx).zip(&facts.tasks);
    tasks.filter(move |(_, task)| {
        let spec = facts.specs.get(task.spec.0 as usize);
        spec.is_some_and(|spec| spec.worktree == Some(repo))
    })
}
