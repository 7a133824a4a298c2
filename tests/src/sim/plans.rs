//! Random plans: small, with every rule that the core decides by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Condition,
    Dependency, Hooks, Keep, Limits, MaxFailures, OnConflict, OnFailure, OnQuestion, Plan,
    PlannedTask, RepoIx, RepoSpec, RetryMode, RetryPolicy, ReviewSpec, Settings, SpecIx, TaskIx,
    TaskSpec,
};
use supervisor_core::time::Wall;

use super::rng::Rng;

/// Most tasks of a plan: enough for every order, few enough for thousands of stories.
const TASKS_MAX: u64 = 12;
/// Folders that tasks touch; two globs overlap if and only if they name the same folder.
const FOLDERS: [&str; 4] = ["src/**", "docs/*", "api/v1/**", "lib"];

fn secs(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.range(low * 1000, high * 1000))
}

fn sometimes<T>(rng: &mut Rng, permille: u64, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    rng.chance(permille).then(|| make(rng))
}

/// A plan with so many repositories, drawn from the seed; dates lie around `start`, within about
/// `storm` ms.
pub(super) fn draw(rng: &mut Rng, start: Wall, storm: u64, repos: usize) -> Plan {
    let accounts: Vec<AccountSpec> = (0..rng.range(1, 2)).map(|it| account(rng, it)).collect();
    let agents: Vec<AgentSpec> = (0..rng.range(1, 3))
        .map(|it| agent(rng, it, accounts.len()))
        .collect();
    let specs: Vec<Arc<TaskSpec>> = (0..rng.range(1, 4))
        .map(|_| Arc::new(spec(rng, (agents.len(), repos), start, storm)))
        .collect();
    // A task with a worktree has many runs.
    let most = if repos > 0 { TASKS_MAX / 2 } else { TASKS_MAX };
    let count = rng.range(1, most);
    // Dependencies may point anywhere: the order of the graph is not the order of the plan.
    let mut order: Vec<usize> = (0..usize::try_from(count).unwrap_or(1)).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rng.index(at + 1));
    }
    let tasks = (0..order.len())
        .map(|ix| task(rng, ix, &order, specs.len()))
        .collect();
    let settings = settings(rng, start, storm);
    let repos = (0..repos).map(|it| repo(rng, it, agents.len())).collect();
    Plan {
        settings,
        agents,
        accounts,
        repos,
        specs,
        tasks,
    }
}

/// An edit of a plan: tasks go, come and change, and so do rules of the batch and agents.
pub(super) fn edit(rng: &mut Rng, mut plan: Plan, start: Wall, storm: u64) -> Plan {
    if rng.chance(500) {
        let first = rng.index(plan.tasks.len());
        let stays: Vec<bool> = (0..plan.tasks.len())
            .map(|at| at == first || !rng.chance(200))
            .collect();
        super::revisions::without(&mut plan, &stays);
    }
    if rng.chance(300) {
        plan.settings = settings(rng, start, storm);
        plan.settings.work = format!("{{\"edit\":{}}}", rng.below(1_000)).into();
    }
    if rng.chance(300) {
        let at = rng.index(plan.agents.len());
        plan.agents[at].work = format!("{{\"edit\":{}}}", rng.below(1_000)).into();
        plan.agents[at].concurrency = sometimes(rng, 300, |_| 2);
    }
    if rng.chance(200) {
        let at = rng.index(plan.accounts.len());
        plan.accounts[at] = AccountSpec {
            name: plan.accounts[at].name.clone(),
            ..account(rng, 0)
        };
    }
    for at in 0..plan.repos.len() {
        if rng.chance(200) {
            plan.repos[at] = repo(rng, at, plan.agents.len());
        }
    }
    for at in 0..plan.specs.len() {
        if rng.chance(200) {
            let of = (plan.agents.len(), plan.repos.len());
            let mut new = spec(rng, of, start, storm);
            if !rng.chance(100) {
                // Where work lies already an edit that moves it is refused as a whole.
                keep_place(&mut new, &plan.specs[at]);
            }
            plan.specs[at] = Arc::new(new);
        }
    }
    add_tasks(rng, &mut plan);
    plan
}

/// New tasks, or ones that were there before: an id says which. Edges lead from them to any task,
/// and from tasks that nobody else waits for to them.
fn add_tasks(rng: &mut Rng, plan: &mut Plan) {
    for _ in 0..rng.below(3) {
        let number = rng.below(2 * TASKS_MAX);
        let known = plan
            .tasks
            .iter()
            .any(|it| it.id.as_str() == format!("t{number}"));
        let count = plan.tasks.len();
        if known || count as u64 >= 2 * TASKS_MAX {
            continue;
        }
        let order: Vec<usize> = (0..=count).collect();
        let mut task = task(rng, count, &order, plan.specs.len());
        #[expect(clippy::expect_used, reason = "a letter and digits are a task id")]
        let id = format!("t{number}").parse().expect("a task id");
        task.id = id;
        plan.tasks.push(task);
    }
    for task in &mut plan.tasks {
        if rng.chance(50) {
            task.touches = [rng.pick(&FOLDERS).into()].into();
        }
    }
    // A task without dependencies may come to wait for one that waits for nobody either.
    let free: Vec<usize> = (0..plan.tasks.len())
        .filter(|at| plan.tasks[*at].depends_on.is_empty())
        .collect();
    if free.len() > 1 && rng.chance(300) {
        let (first, last) = (free[0], free[free.len() - 1]);
        let (from, to) = if rng.chance(500) {
            (first, last)
        } else {
            (last, first)
        };
        plan.tasks[from].depends_on = [Dependency {
            task: TaskIx(u32::try_from(to).unwrap_or(0)),
            condition: Condition::Done,
        }]
        .into();
    }
}

fn settings(rng: &mut Rng, start: Wall, storm: u64) -> Settings {
    let on_failure = rng.pick(&[
        OnFailure::SkipDependents,
        OnFailure::SkipDependents,
        OnFailure::Stop,
        OnFailure::Continue,
    ]);
    let limits = match sometimes(rng, 120, |rng| rng.below(2)) {
        Some(0) => Limits {
            tokens: Some(rng.range(500, 50_000)),
            ..Limits::default()
        },
        Some(_) => Limits {
            wall: Some(Duration::from_millis(rng.range(storm / 4 + 1, storm * 2))),
            ..Limits::default()
        },
        None => Limits::default(),
    };
    Settings {
        name: "sim".into(),
        concurrency: u32::try_from(rng.range(1, 5)).unwrap_or(1),
        on_failure,
        max_failures: match rng.below(6) {
            0 => Some(MaxFailures::Count(1)),
            1 => Some(MaxFailures::Percent(20)),
            _ => None,
        },
        not_before: sometimes(rng, 60, |rng| date(rng, start, storm)),
        until: sometimes(rng, 60, |rng| date(rng, start, storm)),
        limits,
        keep: rng.pick(&[Keep::All, Keep::Failed, Keep::None]),
        lost_max: u32::try_from(rng.range(2, 25)).unwrap_or(25),
        work: "{}".into(),
    }
}

fn date(rng: &mut Rng, start: Wall, storm: u64) -> Wall {
    start + Duration::from_millis(rng.range(1, storm))
}

fn account(rng: &mut Rng, number: u64) -> AccountSpec {
    AccountSpec {
        name: format!("account-{number}").into(),
        concurrency: sometimes(rng, 300, |rng| u32::try_from(rng.range(1, 3)).unwrap_or(1)),
        auto_resume: rng.pick(&[
            AutoResume::Always,
            AutoResume::Always,
            AutoResume::Ask,
            AutoResume::Never,
        ]),
    }
}

fn agent(rng: &mut Rng, number: u64, accounts: usize) -> AgentSpec {
    AgentSpec {
        name: format!("agent-{number}").into(),
        kind: rng.pick(&[AgentKind::Command, AgentKind::Scripted, AgentKind::Scripted]),
        account: AccountIx(u32::try_from(rng.index(accounts)).unwrap_or(0)),
        concurrency: sometimes(rng, 300, |rng| u32::try_from(rng.range(1, 3)).unwrap_or(1)),
        models: (0..rng.below(3))
            .map(|model| format!("model-{model}").into())
            .collect(),
        work: "{}".into(),
    }
}

/// Rules of a repository. They may change while merges are under way.
fn repo(rng: &mut Rng, number: usize, agents: usize) -> RepoSpec {
    RepoSpec {
        name: format!("repo-{number}").into(),
        verify: rng.chance(700),
        group: rng.pick(&[1, 1, 3, 8]),
        on_conflict: match rng.below(4) {
            0 => OnConflict::Park,
            1 => OnConflict::Fail,
            2 => OnConflict::Agent(None),
            _ => OnConflict::Agent(Some(any_agent(rng, agents))),
        },
        work: "{}".into(),
    }
}

fn any_agent(rng: &mut Rng, agents: usize) -> AgentIx {
    AgentIx(u32::try_from(rng.index(agents)).unwrap_or(0))
}

/// Where a task works, and what there is only with a worktree.
struct Place {
    worktree: Option<RepoIx>,
    changes: bool,
    review: Option<ReviewSpec>,
    hooks: Hooks,
    fetch: bool,
}

fn place(rng: &mut Rng, (agents, repos): (usize, usize)) -> Place {
    let mut hook = || repos > 0 && rng.chance(150);
    let hooks = Hooks {
        after_create: hook(),
        before_run: hook(),
        after_run: hook(),
        before_remove: hook(),
    };
    let fetch = hook();
    let worktree = (repos > 0 && rng.chance(850)).then(|| rng.index(repos));
    let worktree = worktree.map(|it| RepoIx(u32::try_from(it).unwrap_or(0)));
    let is_there = worktree.is_some();
    Place {
        worktree,
        changes: is_there && rng.chance(500),
        review: sometimes(rng, if is_there { 350 } else { 0 }, |rng| ReviewSpec {
            agent: any_agent(rng, agents),
            rounds: u32::try_from(rng.range(1, 2)).unwrap_or(1),
        }),
        hooks,
        fetch,
    }
}

fn comments(rng: &mut Rng, fetch: bool) -> Comments {
    let mut wanted = || fetch && rng.chance(300);
    Comments {
        failed: wanted(),
        question: wanted(),
        done: wanted(),
    }
}

fn keep_place(new: &mut TaskSpec, old: &TaskSpec) {
    new.worktree = old.worktree;
    if old.worktree.is_none() {
        (new.changes, new.review) = (false, None);
    }
}

fn spec(rng: &mut Rng, of: (usize, usize), start: Wall, storm: u64) -> TaskSpec {
    let place = place(rng, of);
    let limits = match rng.below(6) {
        0 => Limits {
            tokens: Some(rng.range(200, 3_000)),
            ..Limits::default()
        },
        1 => Limits {
            turns: Some(rng.range(1, 4)),
            ..Limits::default()
        },
        2 => Limits {
            cost_micros: Some(rng.range(100, 90_000)),
            ..Limits::default()
        },
        _ => Limits::default(),
    };
    TaskSpec {
        agent: any_agent(rng, of.0),
        attempts: u32::try_from(rng.range(1, 4)).unwrap_or(1),
        timeout: secs(rng, 120, 7200),
        silence: secs(rng, 60, 1200),
        no_progress: secs(rng, 60, 3600),
        priority: i32::try_from(rng.below(5)).unwrap_or(0) - 2,
        verify: rng.chance(500),
        worktree: place.worktree,
        changes: place.changes,
        review: place.review,
        fetch: place.fetch,
        comments: comments(rng, place.fetch),
        hooks: place.hooks,
        retry: retry(rng),
        limits,
        memory_max: None,
        not_before: sometimes(rng, 60, |rng| date(rng, start, storm)),
        on_question: match rng.below(5) {
            0 => OnQuestion::Default("yes".into()),
            1 => OnQuestion::WaitThenDefault("no".into()),
            2 => OnQuestion::Fail,
            _ => OnQuestion::Wait,
        },
        question_timeout: secs(rng, 30, 14_400),
        containment: supervisor_core::containment::Wish::Auto,
        work: "{}".into(),
    }
}

fn retry(rng: &mut Rng) -> RetryPolicy {
    let backoff_min = secs(rng, 1, 60);
    let mut by_class = BTreeMap::new();
    for _ in 0..rng.below(4) {
        let mode = rng.pick(&[
            RetryMode::Resume,
            RetryMode::NewSession,
            RetryMode::Fresh,
            RetryMode::Stop,
        ]);
        by_class.insert(rng.pick(Class::ALL), mode);
    }
    RetryPolicy {
        backoff_min,
        backoff_max: backoff_min * u32::try_from(rng.range(1, 20)).unwrap_or(1),
        by_class,
    }
}

fn task(rng: &mut Rng, ix: usize, order: &[usize], specs: usize) -> PlannedTask {
    let rank = order[ix];
    let mut depends_on: Vec<Dependency> = Vec::new();
    for (other, other_rank) in order.iter().enumerate() {
        if *other_rank < rank && rng.chance(250) {
            let condition = rng.pick(&[
                Condition::Done,
                Condition::Merged,
                Condition::Merged,
                Condition::Finished,
            ]);
            depends_on.push(Dependency {
                task: TaskIx(u32::try_from(other).unwrap_or(0)),
                condition,
            });
        }
    }
    let touches: Vec<Arc<str>> = if rng.chance(400) {
        vec![rng.pick(&FOLDERS).into()]
    } else {
        Vec::new()
    };
    #[expect(clippy::expect_used, reason = "a letter and digits are a task id")]
    let id = format!("t{ix}").parse().expect("a task id");
    PlannedTask {
        id,
        spec: SpecIx(u32::try_from(rng.index(specs)).unwrap_or(0)),
        item: None,
        touches: touches.into(),
        depends_on: depends_on.into(),
    }
}
