//! Plans for stories: sane defaults, and only what the story is about said aloud.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use supervisor_core::input::Created;
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Condition,
    Dependency, Hooks, Keep, Limits, OnConflict, OnFailure, OnQuestion, Plan, PlannedTask, RepoIx,
    RepoSpec, RetryPolicy, ReviewSpec, Settings, SpecIx, TaskIx, TaskSpec,
};

/// A plan on its way: one account `main`, one agent `coder`, four lanes, no tasks.
#[derive(Clone)]
pub(crate) struct PlanBuilder {
    settings: Settings,
    accounts: Vec<AccountSpec>,
    agents: Vec<AgentSpec>,
    repos: Vec<RepoSpec>,
    tasks: Vec<Draft>,
    only: Vec<String>,
}

#[derive(Clone)]
struct Draft {
    name: String,
    spec: TaskSpec,
    touches: Vec<Arc<str>>,
    needs: Vec<(String, Condition)>,
}

/// An empty plan.
pub(crate) fn batch() -> PlanBuilder {
    let settings = Settings {
        name: "story".into(),
        concurrency: 4,
        on_failure: OnFailure::SkipDependents,
        max_failures: None,
        not_before: None,
        until: None,
        limits: Limits::default(),
        lost_max: 25,
        keep: Keep::All,
        work: "{}".into(),
    };
    let plan = PlanBuilder {
        settings,
        accounts: Vec::new(),
        agents: Vec::new(),
        repos: Vec::new(),
        tasks: Vec::new(),
        only: Vec::new(),
    };
    plan.account("main", |_| {}).agent("coder", "main", |_| {})
}

fn default_spec() -> TaskSpec {
    TaskSpec {
        agent: AgentIx(0),
        attempts: 3,
        timeout: Duration::from_secs(2 * 3600),
        silence: Duration::from_secs(20 * 60),
        no_progress: Duration::from_secs(60 * 60),
        priority: 0,
        verify: false,
        worktree: None,
        changes: false,
        review: None,
        fetch: false,
        comments: Comments::default(),
        hooks: Hooks::default(),
        retry: RetryPolicy {
            backoff_min: Duration::from_secs(30),
            backoff_max: Duration::from_secs(600),
            by_class: BTreeMap::new(),
        },
        limits: Limits::default(),
        memory_max: None,
        not_before: None,
        on_question: OnQuestion::Wait,
        question_timeout: Duration::from_secs(4 * 3600),
        containment: supervisor_core::containment::Wish::Auto,
        work: "{}".into(),
    }
}

impl PlanBuilder {
    pub(crate) fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    pub(crate) fn lanes(self, lanes: u32) -> Self {
        self.set(|settings| settings.concurrency = lanes)
    }

    pub(crate) fn account(mut self, name: &str, change: impl FnOnce(&mut AccountSpec)) -> Self {
        let mut account = AccountSpec {
            name: name.into(),
            concurrency: None,
            auto_resume: AutoResume::Always,
        };
        change(&mut account);
        self.accounts.retain(|known| known.name != account.name);
        self.accounts.push(account);
        self
    }

    pub(crate) fn agent(
        mut self,
        name: &str,
        account: &str,
        change: impl FnOnce(&mut AgentSpec),
    ) -> Self {
        let at = self.accounts.iter().position(|it| &*it.name == account);
        let mut agent = AgentSpec {
            name: name.into(),
            kind: AgentKind::Scripted,
            account: AccountIx(index(at.expect("an account of the plan"))),
            concurrency: None,
            models: Vec::new(),
            work: "{}".into(),
        };
        change(&mut agent);
        self.agents.retain(|known| known.name != agent.name);
        self.agents.push(agent);
        self
    }

    /// A repository; what conflicts in it is parked, and commands prove each merge.
    pub(crate) fn repo(mut self, name: &str, change: impl FnOnce(&mut RepoSpec)) -> Self {
        let mut repo = RepoSpec {
            name: name.into(),
            verify: true,
            group: 1,
            on_conflict: OnConflict::Park,
            work: "{}".into(),
        };
        change(&mut repo);
        self.repos.push(repo);
        self
    }

    /// The last task has a worktree in this repository.
    pub(crate) fn within(mut self, repo: &str) -> Self {
        let at = self.repos.iter().position(|it| &*it.name == repo);
        let repo = RepoIx(index(at.expect("a repository of the plan")));
        self.last().spec.worktree = Some(repo);
        self.last().spec.changes = true;
        self
    }

    /// The last task is judged by this agent.
    pub(crate) fn reviewed(mut self, agent: &str, rounds: u32) -> Self {
        let at = self.agents.iter().position(|it| &*it.name == agent);
        let agent = AgentIx(index(at.expect("an agent of the plan")));
        self.last().spec.review = Some(ReviewSpec { agent, rounds });
        self
    }

    /// The last task is about an issue.
    /// The task is about an issue, and tells there all that can be told.
    pub(crate) fn telling(self) -> Self {
        let all = Comments {
            failed: true,
            question: true,
            done: true,
        };
        self.fetched().spec(|spec| spec.comments = all)
    }

    pub(crate) fn fetched(self) -> Self {
        self.spec(|spec| spec.fetch = true)
    }

    /// All four hooks of the operator run around the last task.
    pub(crate) fn hooked(self) -> Self {
        self.spec(|spec| {
            spec.hooks = Hooks {
                after_create: true,
                before_run: true,
                after_run: true,
                before_remove: true,
            };
        })
    }

    /// The last task starts when these are merged.
    pub(crate) fn after_merge(self, names: &[&str]) -> Self {
        self.needs(names, Condition::Merged)
    }

    pub(crate) fn task(mut self, name: &str) -> Self {
        self.tasks.push(Draft {
            name: name.into(),
            spec: default_spec(),
            touches: Vec::new(),
            needs: Vec::new(),
        });
        self
    }

    pub(crate) fn tasks(self, names: &[&str]) -> Self {
        names.iter().fold(self, |plan, name| plan.task(name))
    }

    /// Changes the rules of the last task.
    pub(crate) fn spec(mut self, change: impl FnOnce(&mut TaskSpec)) -> Self {
        change(&mut self.last().spec);
        self
    }

    /// Changes the rules of every task so far.
    pub(crate) fn every(mut self, change: impl Fn(&mut TaskSpec)) -> Self {
        for task in &mut self.tasks {
            change(&mut task.spec);
        }
        self
    }

    /// The last task is done by this agent.
    pub(crate) fn by(mut self, agent: &str) -> Self {
        let at = self.agents.iter().position(|it| &*it.name == agent);
        self.last().spec.agent = AgentIx(index(at.expect("an agent of the plan")));
        self
    }

    /// The last task is proven by verify commands.
    pub(crate) fn verified(self) -> Self {
        self.spec(|spec| spec.verify = true)
    }

    pub(crate) fn touches(mut self, globs: &[&str]) -> Self {
        self.last().touches = globs.iter().map(|glob| (*glob).into()).collect();
        self
    }

    /// The last task starts when these are done.
    pub(crate) fn after(self, names: &[&str]) -> Self {
        self.needs(names, Condition::Done)
    }

    /// The last task starts when these are terminal.
    pub(crate) fn after_end(self, names: &[&str]) -> Self {
        self.needs(names, Condition::Finished)
    }

    fn needs(mut self, names: &[&str], condition: Condition) -> Self {
        for name in names {
            self.last().needs.push(((*name).to_owned(), condition));
        }
        self
    }

    pub(crate) fn only(mut self, names: &[&str]) -> Self {
        self.only = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    fn last(&mut self) -> &mut Draft {
        self.tasks.last_mut().expect("a task of the plan")
    }

    pub(crate) fn plan(self) -> Plan {
        self.created(0).plan
    }

    pub(crate) fn created(self, seed: u64) -> Created {
        let places: BTreeMap<String, TaskIx> = (0u32..)
            .zip(&self.tasks)
            .map(|(at, task)| (task.name.clone(), TaskIx(at)))
            .collect();
        let planned = |(at, draft): (u32, &Draft)| PlannedTask {
            id: draft.name.parse().expect("a task id"),
            spec: SpecIx(at),
            item: None,
            touches: draft.touches.clone().into(),
            depends_on: draft
                .needs
                .iter()
                .map(|(name, condition)| Dependency {
                    task: places[name],
                    condition: *condition,
                })
                .collect(),
        };
        let plan = Plan {
            settings: self.settings,
            agents: self.agents,
            accounts: self.accounts,
            repos: self.repos,
            specs: self
                .tasks
                .iter()
                .map(|it| Arc::new(it.spec.clone()))
                .collect(),
            tasks: (0u32..).zip(&self.tasks).map(planned).collect(),
        };
        Created {
            id: "story-1".parse().expect("a batch id"),
            seed,
            plan,
            only: self.only.iter().map(|name| places[name]).collect(),
        }
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a small plan")
}
