//! Looks for conflicts that are to be expected: by what tasks say that they touch, and by a merge in
//! memory of what is committed and not merged yet. It never fails the command: what it can not find
//! out it says.

use std::sync::Arc;
use std::time::Duration;

use git2::{ErrorCode, Repository};
use protocol::git::{Foreseen, GitOutcome, GitWork, Oid, PAIRS_MAX, Predict};
use supervisor_core::facts::{Facts, Repo, Task};
use supervisor_core::machine::{MergeState, TaskState};
use supervisor_core::plan::{Dependency, Plan, RepoIx, TaskIx};
use supervisor_core::touches::overlap;

use crate::batch_file::render::Renderer;
use crate::batch_file::work::{BatchWork, RepoWork};
use crate::cli::git_work;
use crate::cli::open::Found;
use crate::view::forecast::{BATCH_BRANCH, By, Conflict, Forecast, Then};

/// How long commits of one repository are merged in memory: as long as somebody looks at a screen that
/// stays empty.
const LOOK: Duration = Duration::from_secs(2);
/// When that work is killed: one pair of commits took that long by itself.
const AT_MOST: Duration = Duration::from_secs(10);
/// Most commits of one repository that are compared, each with the batch branch and with all others.
const COMMITS_MAX: usize = 32;
const _: () = assert!(COMMITS_MAX * (COMMITS_MAX + 1) / 2 <= PAIRS_MAX);
/// Most pairs of tasks whose globs are compared (a second for a plan whose tasks all name globs).
const LOOKS_MAX: usize = 500_000;
/// Most pairs whose globs overlap that are looked at further.
const OVERLAPS_MAX: usize = 1_000;

/// What is foreseen of a plan of which no batch is there.
pub(super) fn of_plan(plan: &Plan) -> Forecast {
    let seats = plan.tasks.iter().map(|task| {
        let spec = plan.specs.get(task.spec.0 as usize);
        Seat {
            id: task.id.as_str(),
            touches: &task.touches,
            depends_on: &task.depends_on,
            repo: spec.and_then(|spec| spec.worktree),
            is_open: true,
            has_commit: false,
        }
    });
    let mut forecast = Forecast::default();
    let then = |repo: RepoIx| Some(plan.repos.get(repo.0 as usize)?.on_conflict.into());
    by_touches(&seats.collect::<Vec<_>>(), None, then, &mut forecast);
    forecast
}

/// What is foreseen of a batch; of one task of it where one is named.
pub(super) fn of(batch: &Found, facts: &Facts, only: Option<TaskIx>) -> Forecast {
    let mut forecast = Forecast::default();
    for (ix, repo) in (0..).map(RepoIx).zip(&facts.repos) {
        let commits = Commits::of(facts, ix, only);
        if let Err(why) = commits.compare(batch, facts, repo, &mut forecast) {
            let name = &repo.spec.name;
            let text = format!("the commits in the repository {name}: {why}");
            forecast.unknown.push(text);
        }
    }
    let seats = facts.tasks.iter().map(|task| Seat {
        id: task.id.as_str(),
        touches: &task.touches,
        depends_on: &task.depends_on,
        repo: repo_of(facts, task),
        is_open: is_open(task),
        has_commit: open_commit(task).is_some(),
    });
    let then = |repo: RepoIx| Some(facts.repos.get(repo.0 as usize)?.spec.on_conflict.into());
    by_touches(&seats.collect::<Vec<_>>(), only, then, &mut forecast);
    forecast
}

fn repo_of(facts: &Facts, task: &Task) -> Option<RepoIx> {
    facts.specs.get(task.spec.0 as usize)?.worktree
}

/// Whether work of it may still come to the batch branch.
fn is_open(task: &Task) -> bool {
    match (task.state, &task.merge) {
        (TaskState::Done, Some(merge)) => !merge.state.is_good(),
        (TaskState::Done, None) => false,
        (state, _) => !state.is_terminal(),
    }
}

/// The commit of its work that the batch branch does not hold yet.
fn open_commit(task: &Task) -> Option<&Oid> {
    match &task.merge {
        Some(merge) if matches!(merge.state, MergeState::None | MergeState::Merged) => None,
        Some(merge) => Some(&merge.commit),
        None if is_open(task) => {
            let attempt = task.attempt.as_ref();
            let made = task.worktree.as_ref();
            let of_attempt = attempt.and_then(|attempt| attempt.commit.as_ref());
            of_attempt.or_else(|| made?.commit.as_ref())
        }
        None => None,
    }
}

/// What is committed in one repository and not merged.
struct Commits<'a> {
    all: Vec<(&'a Task, &'a Oid)>,
    /// Which of them the question is about; `None`: all.
    about: Option<usize>,
    /// How many there are beside these.
    more: usize,
}

impl<'a> Commits<'a> {
    fn of(facts: &'a Facts, repo: RepoIx, only: Option<TaskIx>) -> Self {
        let here = facts
            .tasks
            .iter()
            .filter(|task| repo_of(facts, task) == Some(repo));
        let open = here.filter_map(|task| Some((task, open_commit(task)?)));
        let mut all: Vec<_> = open.collect();
        let wanted = only.and_then(|ix| facts.tasks.get(ix.0 as usize));
        let place = wanted.map(|task| all.iter().position(|(one, _)| one.id == task.id));
        let about = match place {
            None => None,
            Some(Some(at)) => {
                all.swap(0, at);
                Some(0)
            }
            // It has nothing to be merged.
            Some(None) => {
                all.clear();
                None
            }
        };
        let more = all.len().saturating_sub(COMMITS_MAX);
        all.truncate(COMMITS_MAX);
        Self { all, about, more }
    }

    /// The pairs to be judged: a place, and the other place or the batch branch. The branch comes first.
    fn pairs(&self) -> Vec<(usize, Option<usize>)> {
        let is_about = |at: usize| self.about.is_none_or(|about| about == at);
        let places = 0..self.all.len();
        let branch = places.clone().filter(|at| is_about(*at));
        let branch = branch.map(|at| (at, None));
        let others = places.flat_map(|at| (at + 1..self.all.len()).map(move |other| (at, other)));
        let others = others.filter(|(at, other)| is_about(*at) || is_about(*other));
        branch
            .chain(others.map(|(at, other)| (at, Some(other))))
            .collect()
    }

    fn compare(
        &self,
        batch: &Found,
        facts: &Facts,
        repo: &Repo,
        forecast: &mut Forecast,
    ) -> Result<(), String> {
        let pairs = self.pairs();
        if pairs.is_empty() {
            return Ok(());
        }
        let place = Place::of(facts, repo)?;
        let commit = |at: usize| self.all[at].1.clone();
        let asked = pairs.iter().map(|(at, other)| match other {
            Some(other) => (commit(*at), commit(*other)),
            None => (place.tip.clone(), commit(*at)),
        });
        let work = GitWork::Predict(Predict {
            repo: place.path,
            pairs: asked.collect(),
            at_most_ms: u64::try_from(LOOK.as_millis()).unwrap_or(u64::MAX),
        });
        let judged = match git_work::within(batch, &work, AT_MOST) {
            Ok(GitOutcome::Predicted(predicted)) => predicted.pairs,
            Ok(other) => return Err(format!("the host answers {other:?}")),
            Err(error) => return Err(error.to_string()),
        };
        let left = pairs.len().saturating_sub(judged.len());
        if left > 0 {
            let all = pairs.len();
            forecast.unknown.push(format!(
                "{left} of {all} pairs of commits in the repository {}: it takes longer than {LOOK:?}",
                repo.spec.name
            ));
        }
        if self.more > 0 {
            forecast.unknown.push(format!(
                "{} commits in the repository {}: {COMMITS_MAX} at most are compared",
                self.more, repo.spec.name
            ));
        }
        let found = pairs.iter().zip(judged);
        let found = found.filter(|(_, foreseen)| !foreseen.paths.is_empty());
        let conflicts = found.map(|(pair, foreseen)| self.conflict(*pair, foreseen, repo));
        forecast.conflicts.extend(conflicts);
        Ok(())
    }

    fn conflict(
        &self,
        (at, other): (usize, Option<usize>),
        foreseen: Foreseen,
        repo: &Repo,
    ) -> Conflict {
        let name = |at: usize| self.all[at].0.id.to_string();
        let mut tasks = vec![name(at)];
        tasks.extend(other.map(name));
        Conflict {
            tasks,
            with: other.map_or_else(|| BATCH_BRANCH.to_owned(), name),
            paths: foreseen.paths,
            more: foreseen.more,
            by: By::Merge,
            then: repo.spec.on_conflict.into(),
        }
    }
}

/// Where the merges of a repository go.
struct Place {
    path: String,
    /// Where the batch branch is, or will begin.
    tip: Oid,
}

impl Place {
    fn of(facts: &Facts, repo: &Repo) -> Result<Self, String> {
        let (id, settings) = (&facts.batch.id, &facts.batch.settings);
        let work: RepoWork = serde_json::from_str(&repo.spec.work).map_err(|e| e.to_string())?;
        let batch: BatchWork = serde_json::from_str(&settings.work).map_err(|e| e.to_string())?;
        let into = Renderer::default().batch_branch(&batch, &work, id, &settings.name);
        let into = into.map_err(|error| error.to_string())?;
        let tip = match tip(&work, &into)? {
            Some(tip) => tip,
            None => work.base.clone(),
        };
        let path = work.path.to_str().ok_or("its path is not UTF-8")?;
        let path = path.to_owned();
        Ok(Self { path, tip })
    }
}

/// The commit that a branch is at; `None` where there is no such branch.
///
/// # Errors
/// When the repository can not be read, as a sentence.
pub(super) fn tip(work: &RepoWork, reference: &str) -> Result<Option<Oid>, String> {
    let told = |error: git2::Error| {
        let path = work.path.display();
        format!("{reference} of {path} can not be read: {}", error.message())
    };
    let repository = Repository::open(&work.path).map_err(told)?;
    let commit = match repository.find_reference(reference) {
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        other => other.and_then(|found| found.peel_to_commit()),
    };
    let id = commit.map_err(told)?.id();
    let name = Oid::try_from(id.to_string());
    name.map(Some).map_err(|error| error.to_string())
}

/// A task as its globs are compared with those of others.
struct Seat<'a> {
    id: &'a str,
    touches: &'a [Arc<str>],
    depends_on: &'a [Dependency],
    repo: Option<RepoIx>,
    /// Work of it may still come to the batch branch.
    is_open: bool,
    /// It has a commit that is not merged.
    has_commit: bool,
}

fn by_touches(
    seats: &[Seat<'_>],
    only: Option<TaskIx>,
    then: impl Fn(RepoIx) -> Option<Then>,
    forecast: &mut Forecast,
) {
    let only = only.map(|ix| ix.0 as usize);
    let is_wanted = |at: usize| only.is_none_or(|only| only == at);
    let candidates = seats.iter().enumerate();
    let candidates = candidates.filter(|(_, seat)| seat.is_open && seat.repo.is_some());
    let candidates: Vec<(usize, &Seat<'_>)> = candidates
        .filter(|(_, seat)| !seat.touches.is_empty())
        .collect();
    let (mut looks, mut overlaps) = (0, 0);
    for (place, (at, seat)) in candidates.iter().enumerate() {
        for (other_at, other) in &candidates[place + 1..] {
            // Two commits are merged in memory: that says more.
            let is_known = seat.has_commit && other.has_commit;
            if seat.repo != other.repo || is_known || !(is_wanted(*at) || is_wanted(*other_at)) {
                continue;
            }
            if looks == LOOKS_MAX || overlaps == OVERLAPS_MAX {
                let text = "some of the `touches`: there are too many tasks to look at each pair";
                forecast.unknown.push(text.to_owned());
                return;
            }
            looks += 1;
            let paths = meeting(seat.touches, other.touches);
            if paths.is_empty() {
                continue;
            }
            overlaps += 1;
            let ordered = needs(seats, *at, *other_at) || needs(seats, *other_at, *at);
            if let Some(then) = seat.repo.and_then(&then).filter(|_| !ordered) {
                forecast.conflicts.push(Conflict {
                    tasks: vec![seat.id.to_owned(), other.id.to_owned()],
                    with: other.id.to_owned(),
                    paths,
                    more: 0,
                    by: By::Touches,
                    then,
                });
            }
        }
    }
}

/// The globs of one that overlap with any of the other.
fn meeting(one: &[Arc<str>], other: &[Arc<str>]) -> Vec<String> {
    let meets = |glob: &&Arc<str>| other.iter().any(|theirs| overlap(glob, theirs));
    one.iter().filter(meets).map(ToString::to_string).collect()
}

/// Whether one begins only after the other, over whatever lies between: then it is built on it.
fn needs(seats: &[Seat<'_>], one: usize, other: usize) -> bool {
    let mut seen = vec![false; seats.len()];
    let mut open = vec![one];
    while let Some(at) = open.pop() {
        for on in seats[at].depends_on.iter().map(|on| on.task.0 as usize) {
            if on == other {
                return true;
            }
            if seen.get(on) == Some(&false) {
                seen[on] = true;
                open.push(on);
            }
        }
    }
    false
}
