//! What another reading of the batch file means for a batch: which tasks take it, which stay.
//!
//! The rules:
//! - A task of a known id that is not done takes the new rules, whatever its state; its state does
//!   not change by that (what failed stays failed until `retry`). Where an attempt is open, the new
//!   rules are in force from its end on.
//! - A task of a new id is added.
//! - A task that is not done and no longer in the file is skipped; its open attempt is stopped and
//!   cancelled. Neither counts as a failure of the batch. In the file again, it is looked at again.
//! - A done task stays as it is, whatever the file says of it.
//! - Rules of the batch, agents, accounts and repositories count from now on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::ids::TaskId;

use crate::apply::distinct;
use crate::facts::{Facts, Task};
use crate::machine::TaskState;
use crate::plan::{
    AccountIx, AccountSpec, AgentIx, AgentSpec, Dependency, OnConflict, Plan, PlannedTask, RepoIx,
    RepoSpec, ReviewSpec, Rules, Settings, SpecIx, TaskIx, TaskSpec,
};
use crate::reason::TaskReason;

/// Why a plan can not be taken by a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is the plan of another batch.
    #[error("the batch is called {old}, the file names {new}")]
    Name {
        /// The batch's name.
        old: Arc<str>,
        /// The name in the plan.
        new: Arc<str>,
    },
    /// A task would wait for itself.
    #[error("{0} would wait for itself, by way of what it depends on")]
    Cycle(TaskId),
    /// Two tasks have one id.
    #[error("{0} is there twice")]
    Twice(TaskId),
    /// It moves a task whose work lies in a worktree.
    #[error(
        "{task} can not move to {new}: its work lies in {old}; `clean` it first, or give it another id"
    )]
    Moved {
        /// The task.
        task: TaskId,
        /// Where its work lies.
        old: String,
        /// Where the file has it.
        new: String,
    },
    /// It points at something that it does not have.
    #[error("the plan has no such {0}")]
    Missing(&'static str),
}

/// The difference between a batch and a plan, in the numbers of the batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// Rules of the batch from now on.
    pub settings: Settings,
    /// Whether they differ from those before.
    pub other_settings: bool,
    /// New and changed agents.
    pub agents: Vec<AgentSpec>,
    /// New and changed accounts.
    pub accounts: Vec<AccountSpec>,
    /// All repositories of the batch with their rules from now on, new ones at the end; empty where
    /// nothing about them changed.
    pub repos: Vec<RepoSpec>,
    /// What new and changed tasks share.
    pub specs: Vec<Arc<TaskSpec>>,
    /// New tasks.
    pub added: Vec<PlannedTask>,
    /// Tasks that take other rules, in the order of the batch.
    pub revised: Vec<(TaskIx, Rules)>,
    /// Tasks of `revised` that an earlier reading had taken away, and that are looked at again.
    pub returned: Vec<TaskIx>,
    /// Tasks that go no further.
    pub removed: Vec<TaskIx>,
    /// Done tasks of which the file says something else by now, or nothing at all.
    pub kept: Vec<TaskIx>,
}

impl Revision {
    /// The plan says what the batch does already.
    pub fn is_empty(&self) -> bool {
        !self.other_settings
            && self.agents.is_empty()
            && self.accounts.is_empty()
            && self.repos.is_empty()
            && self.added.is_empty()
            && self.revised.is_empty()
            && self.removed.is_empty()
    }
}

/// Compares a batch with a plan. Looks at all of both, as the reading of the file did.
///
/// # Errors
/// [`Unfit`] when the plan is not one of this batch.
pub fn compare(facts: &Facts, plan: Plan) -> Result<Revision, Unfit> {
    check(facts, &plan)?;
    let (agents, accounts, numbers) = agents(facts, &plan);
    let (repos, places) = repos(facts, &plan, &numbers);
    let tasks = Tasks::new(facts, &plan);
    let settings = plan.settings.clone();
    let mut specs = Specs::new(facts, &plan, &numbers, &places);
    specs.reuse(&tasks);
    let mut revision = Revision {
        other_settings: facts.batch.settings != settings,
        settings,
        agents,
        accounts,
        repos,
        specs: Vec::new(),
        added: Vec::new(),
        revised: Vec::new(),
        returned: Vec::new(),
        removed: tasks.gone(|task| task.state != TaskState::Done && !task.removed),
        kept: tasks.gone(|task| task.state == TaskState::Done),
    };
    for (at, planned) in plan.tasks.iter().enumerate() {
        let depends_on = tasks.translate(&planned.depends_on);
        let Some(ix) = tasks.known(at) else {
            revision.added.push(PlannedTask {
                spec: specs.number(planned.spec),
                depends_on,
                ..planned.clone()
            });
            continue;
        };
        let task = &facts.tasks[ix.0 as usize];
        let before = task.next_rules();
        if task.state == TaskState::Done {
            let same = specs.same(before.spec, planned.spec)
                && before.item == planned.item
                && before.touches == planned.touches
                && before.depends_on == depends_on;
            if !same {
                revision.kept.push(ix);
            }
            continue;
        }
        stays(facts, task, &plan, planned.spec)?;
        let spec = if specs.same(before.spec, planned.spec) {
            before.spec
        } else {
            specs.number(planned.spec)
        };
        let rules = Rules {
            spec,
            item: planned.item.clone(),
            touches: planned.touches.clone(),
            depends_on,
        };
        if rules != before || task.removed {
            revision.revised.push((ix, rules));
        }
        if task.removed && is_cut_off(task) {
            revision.returned.push(ix);
        }
    }
    revision.specs = specs.added;
    Ok(revision)
}

/// Work that lies in a worktree is found only in its own repository.
fn stays(facts: &Facts, task: &Task, plan: &Plan, new: SpecIx) -> Result<(), Unfit> {
    let Some(old) = facts.specs[task.spec.0 as usize].worktree else {
        return Ok(());
    };
    let old = &facts.repos[old.0 as usize].spec.name;
    let new = plan.specs[new.0 as usize].worktree;
    let new = new.map(|repo| &plan.repos[repo.0 as usize].name);
    let lies = task.worktree.is_some() || task.attempt.is_some();
    if !lies || new == Some(old) {
        return Ok(());
    }
    let named = |name: &Arc<str>| format!("the repository `{name}`");
    Err(Unfit::Moved {
        task: task.id.clone(),
        old: named(old),
        new: new.map_or_else(|| "no repository".to_owned(), named),
    })
}

/// The batch file alone ended it.
fn is_cut_off(task: &Task) -> bool {
    task.state.is_terminal() && task.reason == TaskReason::Removed
}

/// Tasks of a plan beside those of the batch.
struct Tasks<'a> {
    facts: &'a Facts,
    plan: &'a Plan,
    /// The number in the batch, for each task of the plan; new ones follow the known ones.
    places: Vec<TaskIx>,
}

impl<'a> Tasks<'a> {
    fn new(facts: &'a Facts, plan: &'a Plan) -> Self {
        let known: BTreeMap<&TaskId, TaskIx> = crate::index::each(&facts.tasks)
            .map(|(ix, task)| (&task.id, ix))
            .collect();
        let mut next = u32::try_from(facts.tasks.len()).unwrap_or(u32::MAX);
        let place = |task: &PlannedTask| {
            known.get(&task.id).copied().unwrap_or_else(|| {
                let new = TaskIx(next);
                next = next.saturating_add(1);
                new
            })
        };
        let places = plan.tasks.iter().map(place).collect();
        Self {
            facts,
            plan,
            places,
        }
    }

    /// The number of the plan's task in the batch, where the batch has it already.
    fn known(&self, at: usize) -> Option<TaskIx> {
        let ix = self.places[at];
        ((ix.0 as usize) < self.facts.tasks.len()).then_some(ix)
    }

    fn translate(&self, depends_on: &[Dependency]) -> Box<[Dependency]> {
        let translated: Vec<Dependency> = depends_on
            .iter()
            .map(|dependency| Dependency {
                task: self.places[dependency.task.0 as usize],
                condition: dependency.condition,
            })
            .collect();
        distinct(&translated)
    }

    /// Tasks of the batch that the plan does not have.
    fn gone(&self, which: impl Fn(&Task) -> bool) -> Vec<TaskIx> {
        let stay: BTreeSet<TaskIx> = self.places.iter().copied().collect();
        crate::index::each(&self.facts.tasks)
            .filter(|(ix, task)| which(task) && !stay.contains(ix))
            .map(|(ix, _)| ix)
            .collect()
    }
}

/// Specs of a plan beside those of the batch: what is there already is not added again.
struct Specs<'a> {
    facts: &'a Facts,
    /// The plan's specs, with the batch's numbers of agents.
    wanted: Vec<Arc<TaskSpec>>,
    /// The number in the batch, once there is one.
    places: Vec<Option<SpecIx>>,
    /// Answers of [`Specs::same`]: the tasks of one `foreach` ask for one pair again and again.
    known: BTreeMap<(SpecIx, SpecIx), bool>,
    added: Vec<Arc<TaskSpec>>,
}

impl<'a> Specs<'a> {
    fn new(facts: &'a Facts, plan: &Plan, agents: &[AgentIx], repos: &[RepoIx]) -> Self {
        let wanted = plan.specs.iter().map(|spec| {
            let agent = agents[spec.agent.0 as usize];
            let worktree = spec.worktree.map(|repo| repos[repo.0 as usize]);
            let review = spec.review.map(|review| ReviewSpec {
                agent: agents[review.agent.0 as usize],
                ..review
            });
            if (agent, worktree, review) == (spec.agent, spec.worktree, spec.review) {
                return spec.clone();
            }
            Arc::new(TaskSpec {
                agent,
                worktree,
                review,
                ..TaskSpec::clone(spec)
            })
        });
        Self {
            facts,
            wanted: wanted.collect(),
            places: vec![None; plan.specs.len()],
            known: BTreeMap::new(),
            added: Vec::new(),
        }
    }

    /// Finds the specs that tasks of the batch have already, so that new tasks can share them.
    fn reuse(&mut self, tasks: &Tasks<'_>) {
        for (at, planned) in tasks.plan.tasks.iter().enumerate() {
            let Some(ix) = tasks.known(at) else {
                continue;
            };
            let task = &self.facts.tasks[ix.0 as usize];
            let spec = task.revised.as_ref().map_or(task.spec, |rules| rules.spec);
            if self.places[planned.spec.0 as usize].is_none() && self.same(spec, planned.spec) {
                self.places[planned.spec.0 as usize] = Some(spec);
            }
        }
    }

    /// Whether a spec of the batch says the same as one of the plan.
    fn same(&mut self, old: SpecIx, new: SpecIx) -> bool {
        let wanted = &self.wanted[new.0 as usize];
        let before = &self.facts.specs[old.0 as usize];
        *self
            .known
            .entry((old, new))
            .or_insert_with(|| wanted == before)
    }

    /// The number of a spec of the plan in the batch; it is added where the batch has none.
    fn number(&mut self, new: SpecIx) -> SpecIx {
        let at = new.0 as usize;
        if let Some(place) = self.places[at] {
            return place;
        }
        let next = self.facts.specs.len() + self.added.len();
        let place = SpecIx(u32::try_from(next).unwrap_or(u32::MAX));
        self.added.push(self.wanted[at].clone());
        self.places[at] = Some(place);
        place
    }
}

/// New and changed agents and accounts, and the batch's number for each agent of the plan.
fn agents(facts: &Facts, plan: &Plan) -> (Vec<AgentSpec>, Vec<AccountSpec>, Vec<AgentIx>) {
    let mut accounts: Vec<&AccountSpec> = facts.accounts.iter().map(|it| &it.spec).collect();
    let mut account_numbers = Vec::new();
    let mut changed = Vec::new();
    for spec in &plan.accounts {
        let at = accounts.iter().position(|known| known.name == spec.name);
        if at.is_none_or(|at| accounts[at] != spec) {
            changed.push(spec.clone());
        }
        let at = at.unwrap_or_else(|| {
            accounts.push(spec);
            accounts.len() - 1
        });
        account_numbers.push(AccountIx(u32::try_from(at).unwrap_or(u32::MAX)));
    }
    let mut added = Vec::new();
    let mut numbers = Vec::new();
    for spec in &plan.agents {
        let spec = AgentSpec {
            account: account_numbers[spec.account.0 as usize],
            ..spec.clone()
        };
        // The last one of a name is the one in force.
        let at = facts.agents.iter().rposition(|it| it.name == spec.name);
        let at = at.filter(|at| facts.agents[*at] == spec);
        let at = at.unwrap_or_else(|| {
            added.push(spec);
            facts.agents.len() + added.len() - 1
        });
        numbers.push(AgentIx(u32::try_from(at).unwrap_or(u32::MAX)));
    }
    (added, changed, numbers)
}

/// The batch's repositories with the rules of the plan, and the batch's number for each of the plan's. One
/// that the plan no longer has stays as it is: work may lie in it.
fn repos(facts: &Facts, plan: &Plan, agents: &[AgentIx]) -> (Vec<RepoSpec>, Vec<RepoIx>) {
    let before: Vec<RepoSpec> = facts.repos.iter().map(|repo| repo.spec.clone()).collect();
    let mut after = before.clone();
    let mut numbers = Vec::new();
    for spec in &plan.repos {
        let spec = RepoSpec {
            on_conflict: match spec.on_conflict {
                OnConflict::Agent(Some(agent)) => OnConflict::Agent(Some(agents[agent.0 as usize])),
                other @ (OnConflict::Agent(None) | OnConflict::Fail | OnConflict::Park) => other,
            },
            ..spec.clone()
        };
        let at = after.iter().position(|known| known.name == spec.name);
        let at = match at {
            Some(at) => {
                after[at] = spec;
                at
            }
            None => {
                after.push(spec);
                after.len() - 1
            }
        };
        numbers.push(RepoIx(u32::try_from(at).unwrap_or(u32::MAX)));
    }
    if after == before {
        after.clear();
    }
    (after, numbers)
}

/// Whether a plan is whole, and one of this batch. The reader of batch files has checked most of it;
/// a plan that got past it must not put a batch that runs into a state that it can not leave.
fn check(facts: &Facts, plan: &Plan) -> Result<(), Unfit> {
    let (old, new) = (&facts.batch.settings.name, &plan.settings.name);
    if old != new {
        let (old, new) = (old.clone(), new.clone());
        return Err(Unfit::Name { old, new });
    }
    let has = |at: u32, of: usize, what| {
        let there = (at as usize) < of;
        there.then_some(()).ok_or(Unfit::Missing(what))
    };
    for agent in &plan.agents {
        has(agent.account.0, plan.accounts.len(), "account")?;
    }
    for spec in &plan.specs {
        has(spec.agent.0, plan.agents.len(), "agent")?;
        if let Some(review) = spec.review {
            has(review.agent.0, plan.agents.len(), "agent")?;
        }
        if let Some(repo) = spec.worktree {
            has(repo.0, plan.repos.len(), "repository")?;
        }
    }
    for repo in &plan.repos {
        if let OnConflict::Agent(Some(agent)) = repo.on_conflict {
            has(agent.0, plan.agents.len(), "agent")?;
        }
    }
    let mut ids = BTreeSet::new();
    for task in &plan.tasks {
        has(task.spec.0, plan.specs.len(), "task spec")?;
        for dependency in &task.depends_on {
            has(dependency.task.0, plan.tasks.len(), "dependency")?;
        }
        if !ids.insert(&task.id) {
            return Err(Unfit::Twice(task.id.clone()));
        }
    }
    refuse_cycles(plan)
}

/// Takes away what waits for nothing, again and again: what is left waits for itself.
fn refuse_cycles(plan: &Plan) -> Result<(), Unfit> {
    let mut waits: Vec<usize> = plan.tasks.iter().map(|it| it.depends_on.len()).collect();
    let mut dependents = vec![Vec::new(); plan.tasks.len()];
    for (at, task) in plan.tasks.iter().enumerate() {
        for dependency in &task.depends_on {
            dependents[dependency.task.0 as usize].push(at);
        }
    }
    let mut free: Vec<usize> = (0..waits.len()).filter(|at| waits[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for &dependent in &dependents[at] {
            waits[dependent] -= 1;
            if waits[dependent] == 0 {
                free.push(dependent);
            }
        }
    }
    match waits.iter().position(|left| *left > 0) {
        Some(at) => Err(Unfit::Cycle(plan.tasks[at].id.clone())),
        None => Ok(()),
    }
}
