//! Deliveries by chance: random plans over two repositories, workers that crash, fail and say nothing,
//! a supervisor that dies between any two records, an operator who meddles. A model of the repositories
//! is the truth from outside, and what the core says is held against it.

use std::collections::{BTreeMap, BTreeSet};

use protocol::git::{
    Committed, Concluded, Conflicted, GitOutcome, MergeCommit, MergeConflict, Merged, Oid,
    Provisioned, Removed, Salvaged,
};
use protocol::report::Verdict;
use supervisor_core::facts::Task;
use supervisor_core::retry::mix;

use super::harness::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const REPOS: [&str; 2] = ["r", "s"];
/// Stories told; each is a few hundred inputs.
const SEEDS: u64 = 400;
/// Inputs in which things go wrong.
const STORM: u32 = 120;
/// Looks of the operator in the calm, until which a batch must be over.
const CALM: u32 = 400;

struct Rng(u64);

impl Rng {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % limit.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.below(of.len() as u64);
        of[usize::try_from(at).unwrap()]
    }
}

/// The tasks whose work a commit of the batch branch holds, in the order of their merges.
type Line = Vec<TaskIx>;

/// What is true outside.
#[derive(Default)]
struct Truth {
    /// The batch branch of each repository: its commit and what that holds.
    tips: BTreeMap<RepoIx, Oid>,
    lines: BTreeMap<Oid, Line>,
    /// What is in each worktree: the number of the last work done there; 0: nothing but its base.
    worktrees: BTreeMap<TaskIx, u64>,
    /// Works that a commit or a salvage ref holds.
    kept: BTreeSet<u64>,
    /// The work in each commit and salvage.
    works: BTreeMap<Oid, u64>,
    /// Tasks whose merge breaks the proof, until an agent looks after it.
    bad: BTreeSet<TaskIx>,
    numbers: u64,
}

impl Truth {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn oid(&mut self) -> Oid {
        oid(1_000 + self.number())
    }

    fn tip(&mut self, repo: RepoIx) -> Oid {
        let first = oid(10 + u64::from(repo.0));
        let tip = self.tips.entry(repo).or_insert(first).clone();
        self.lines.entry(tip.clone()).or_default();
        tip
    }

    /// The branch moves; nothing comes twice, and what depends on something comes after it.
    fn advance(&mut self, world: &World, repo: RepoIx, to: &Oid) {
        let before = self.tip(repo);
        let line = self.lines[to].clone();
        assert!(line.starts_with(&self.lines[&before]), "nothing is undone");
        let once: BTreeSet<TaskIx> = line.iter().copied().collect();
        assert_eq!(once.len(), line.len(), "nothing is merged twice");
        for ix in &line {
            let task = &world.facts().tasks[ix.0 as usize];
            assert_eq!(task.state, TaskState::Done, "{} is merged", task.id);
        }
        self.tips.insert(repo, to.clone());
    }

    fn holds(&mut self, repo: RepoIx, ix: TaskIx) -> bool {
        let tip = self.tip(repo);
        self.lines[&tip].contains(&ix)
    }

    /// What is in a worktree goes: it is somewhere else.
    fn lose(&mut self, ix: TaskIx, how: &str) {
        let work = self.worktrees.remove(&ix).unwrap_or(0);
        let kept = work == 0 || self.kept.contains(&work);
        assert!(kept, "{ix:?} {how}: its work is nowhere else");
    }
}

/// One story.
struct Tale {
    world: World,
    truth: Truth,
    rng: Rng,
    calm: bool,
    /// Records that were durable before the last input.
    durable: usize,
}

fn plan(rng: &mut Rng) -> PlanBuilder {
    let rules = [
        OnConflict::Park,
        OnConflict::Fail,
        OnConflict::Agent(Some(AgentIx(1))),
        OnConflict::Agent(None),
    ];
    let mut plan = batch()
        .account("other", |_| {})
        .agent("judge", "other", |_| {});
    let lanes = 1 + u32::try_from(rng.below(4)).unwrap();
    let keep = rng.pick(&[Keep::All, Keep::Failed, Keep::None]);
    let on_failure = rng.pick(&[
        OnFailure::SkipDependents,
        OnFailure::SkipDependents,
        OnFailure::Continue,
        OnFailure::Stop,
    ]);
    plan = plan.set(|it| {
        (it.concurrency, it.keep, it.on_failure) = (lanes, keep, on_failure);
        it.lost_max = 4;
    });
    for repo in REPOS {
        let (verify, group) = (rng.chance(70), rng.pick(&[1, 1, 3, 8]));
        let on_conflict = rng.pick(&rules);
        plan = plan.repo(repo, |it| {
            (it.verify, it.group, it.on_conflict) = (verify, group, on_conflict);
        });
    }
    let count = 1 + rng.below(NAMES.len() as u64);
    let count = usize::try_from(count).unwrap();
    for (at, name) in NAMES.iter().enumerate().take(count) {
        plan = plan.task(name);
        if rng.chance(90) {
            plan = plan.within(rng.pick(&REPOS));
            if rng.chance(40) {
                let rounds = 1 + u32::try_from(rng.below(2)).unwrap();
                plan = plan.reviewed("judge", rounds);
            }
        }
        if rng.chance(30) {
            plan = plan.hooked();
        }
        let (verify, attempts) = (rng.chance(40), 1 + u32::try_from(rng.below(3)).unwrap());
        let changes = rng.chance(70);
        plan = plan.spec(|it| {
            (it.verify, it.attempts) = (verify, attempts);
            it.changes &= changes;
        });
        for on in NAMES.iter().take(at) {
            plan = match rng.below(6) {
                0 => plan.after(&[on]),
                1 => plan.after_merge(&[on]),
                2 if rng.chance(30) => plan.after_end(&[on]),
                _ => plan,
            };
        }
    }
    plan
}

impl Tale {
    fn new(seed: u64) -> Tale {
        let mut rng = Rng(seed);
        let world = World::start(plan(&mut rng));
        let mut tale = Tale {
            durable: world.journal.len(),
            world,
            truth: Truth::default(),
            rng,
            calm: false,
        };
        for at in 0..tale.world.facts().tasks.len() {
            if tale.rng.chance(15) {
                let ix = TaskIx(u32::try_from(at).unwrap());
                tale.truth.bad.insert(ix);
            }
        }
        tale
    }

    fn task(&self, ix: TaskIx) -> &Task {
        &self.world.facts().tasks[ix.0 as usize]
    }

    fn repo_of(&self, ix: TaskIx) -> Option<RepoIx> {
        let spec = self.task(ix).spec;
        self.world.facts().specs[spec.0 as usize].worktree
    }

    /// A run that nobody has ended, by chance.
    fn some_run(&mut self) -> Option<Generation> {
        let runs = self.world.facts().runs.iter();
        let runs: Vec<Generation> = runs
            .filter(|(_, run)| !run.unresolved)
            .map(|(generation, _)| *generation)
            .collect();
        (!runs.is_empty()).then(|| self.rng.pick(&runs))
    }

    /// The work of a run is done outside; answers what its host says of it.
    fn works(&mut self, generation: Generation) -> RunResult {
        let run = self.world.facts().runs[&generation].clone();
        match run.purpose {
            Purpose::Step(step) => self.step(run.task, step),
            Purpose::Merge(repo, stage) => self.stage(repo, stage),
            Purpose::Clean(step) => self.clean(run.task, step),
            Purpose::Comment(_) => ok(),
        }
    }

    fn step(&mut self, ix: TaskIx, step: Step) -> RunResult {
        match step {
            Step::Salvage => self.salvage(ix),
            Step::Provision => {
                let made = self.task(ix).worktree.is_none();
                if made {
                    self.truth.lose(ix, "is provisioned");
                    self.truth.worktrees.insert(ix, 0);
                }
                git_ok(GitOutcome::Provisioned(Provisioned {
                    base: oid(1),
                    head: oid(1),
                    made,
                    warnings: Vec::new(),
                }))
            }
            Step::Work => {
                if self.repo_of(ix).is_some() && self.rng.chance(90) {
                    let work = self.truth.number();
                    self.truth.worktrees.insert(ix, work);
                }
                ok()
            }
            Step::Commit => self.commit(ix),
            Step::Checkout => git_ok(GitOutcome::CheckedOut {}),
            Step::Review => {
                let words = [Verdict::Approve, Verdict::Approve, Verdict::Revise];
                let word = if self.rng.chance(5) {
                    Verdict::Reject
                } else {
                    self.rng.pick(&words)
                };
                verdict(word, "as I see it")
            }
            Step::AfterCreate | Step::Fetch | Step::BeforeRun | Step::AfterRun | Step::Prove => {
                ok()
            }
        }
    }

    fn commit(&mut self, ix: TaskIx) -> RunResult {
        let work = self.truth.worktrees.get(&ix).copied().unwrap_or(0);
        let commit = self.truth.oid();
        self.truth.kept.insert(work);
        self.truth.works.insert(commit.clone(), work);
        let path = || vec!["a.rs".to_owned()];
        let odd = if self.calm { 99 } else { self.rng.below(40) };
        git_ok(GitOutcome::Committed(Committed {
            commit,
            files: u64::from(work != 0),
            markers: if odd == 0 { path() } else { Vec::new() },
            outside: if odd == 1 { path() } else { Vec::new() },
            missing: if odd == 2 { path() } else { Vec::new() },
            warnings: Vec::new(),
        }))
    }

    fn salvage(&mut self, ix: TaskIx) -> RunResult {
        let work = self.truth.worktrees.get(&ix).copied().unwrap_or(0);
        let commit = self.truth.oid();
        self.truth.kept.insert(work);
        self.truth.works.insert(commit.clone(), work);
        let number = self.task(ix).salvaged.len() + 1;
        git_ok(GitOutcome::Salvaged(Salvaged {
            reference: format!("refs/supervisor/salvage/story/{}/{number}", ix.0),
            commit,
            files: 1,
            bytes: 1,
            skipped: Vec::new(),
        }))
    }

    fn clean(&mut self, ix: TaskIx, step: CleanStep) -> RunResult {
        match step {
            CleanStep::BeforeRemove => ok(),
            CleanStep::BuildOutput => room_made(),
            CleanStep::Salvage => self.salvage(ix),
            CleanStep::Remove => {
                let kept = self.task(ix).clean.as_ref().unwrap().kept.clone();
                let kept = kept.expect("a removal names what holds the work");
                let there = self.truth.worktrees.get(&ix).copied().unwrap_or(0);
                let held = self.truth.works[&kept.commit];
                assert!(there == 0 || there == held, "{ix:?}: other work is held");
                self.truth.lose(ix, "is removed");
                git_ok(GitOutcome::Removed(Removed {
                    bytes: 1,
                    existed: true,
                }))
            }
        }
    }

    fn stage(&mut self, repo: RepoIx, stage: Stage) -> RunResult {
        let facts = &self.world.facts().repos[repo.0 as usize];
        let round = facts.round.clone().expect("a run of a round");
        let tip = self.truth.tip(repo);
        match stage {
            Stage::Merge => self.merge(repo, &round.tasks),
            Stage::Checkout => git_ok(GitOutcome::CheckedOut {}),
            Stage::Resolve => {
                if self.rng.chance(70) {
                    self.truth.bad.remove(&round.tasks[0]);
                }
                ok()
            }
            Stage::Verify => {
                let commit = round.commit(round.proving()).expect("something to prove");
                let line = &self.truth.lines[commit];
                if line.iter().any(|ix| self.truth.bad.contains(ix)) {
                    failed(Class::VerifyFailed)
                } else {
                    ok()
                }
            }
            Stage::Advance => {
                let to = round.commit(round.good).expect("something good").clone();
                let bad = |ix: &TaskIx| self.truth.bad.contains(ix);
                let verified = facts.spec.verify;
                assert!(
                    !verified || !self.truth.lines[&to].iter().any(bad),
                    "what broke its proof is not on the branch"
                );
                if Some(&tip) == round.tip.as_ref() {
                    self.truth.advance(&self.world, repo, &to);
                } else if !self.truth.lines[&tip].starts_with(&self.truth.lines[&to]) {
                    return failed(Class::Environment);
                }
                git_ok(GitOutcome::Advanced {})
            }
            Stage::Conflict => {
                let files = if self.rng.chance(20) {
                    BTreeMap::new()
                } else {
                    [("a.rs".to_owned(), "both".to_owned())].into()
                };
                git_ok(GitOutcome::Conflicted(Conflicted { tip, files }))
            }
            Stage::Conclude => {
                let commit = if self.rng.chance(80) || self.calm {
                    let mut line = self.truth.lines[round.tip.as_ref().unwrap()].clone();
                    line.push(round.tasks[0]);
                    let commit = self.truth.oid();
                    self.truth.lines.insert(commit.clone(), line);
                    Some(commit)
                } else {
                    None
                };
                let markers = vec!["a.rs".to_owned(); usize::from(commit.is_none())];
                git_ok(GitOutcome::Concluded(Concluded { commit, markers }))
            }
        }
    }

    fn merge(&mut self, repo: RepoIx, tasks: &[TaskIx]) -> RunResult {
        let spec = self.world.facts().repos[repo.0 as usize].spec.clone();
        let tip = self.truth.tip(repo);
        let mut line = self.truth.lines[&tip].clone();
        let (mut merges, mut conflicts, mut last) = (Vec::new(), Vec::new(), None);
        for ix in tasks {
            let task = self.task(*ix).id.clone();
            if self.truth.holds(repo, *ix) {
                let commit = tip.clone();
                merges.push(MergeCommit { task, commit });
            } else if self.rng.chance(20) {
                conflicts.push(MergeConflict {
                    task,
                    with: tip.clone(),
                    by: Vec::new(),
                    files: vec!["a.rs".to_owned()],
                    kinds: BTreeMap::new(),
                });
            } else if merges.len() < spec.group as usize {
                line.push(*ix);
                let commit = self.truth.oid();
                self.truth.lines.insert(commit.clone(), line.clone());
                last = Some(commit.clone());
                merges.push(MergeCommit { task, commit });
            }
        }
        if let (Some(last), false) = (last, spec.verify) {
            self.truth.advance(&self.world, repo, &last);
        }
        git_ok(GitOutcome::Merged(Merged {
            tip,
            merges,
            conflicts,
            warnings: Vec::new(),
        }))
    }

    /// A run begins, does its work or not, and says so or not.
    fn run(&mut self, generation: Generation) {
        let stopping = self.world.facts().runs[&generation].stop.is_some();
        let fate = if self.calm { 99 } else { self.rng.below(100) };
        if stopping {
            if self.rng.chance(30) {
                self.works(generation);
            }
            self.world.exited_run(generation, Exit::Signal(15), None);
            return;
        }
        if self.world.facts().runs[&generation].identity.is_none() {
            if fate == 0 {
                self.world.handle(Input::SpawnFailed {
                    class: Class::SpawnFailure,
                    generation,
                    error: "no process left".into(),
                });
                return;
            }
            self.world.begin_run(generation);
        }
        match fate {
            0..4 => self.world.exited_run(generation, Exit::Signal(9), None),
            4..10 => {
                self.works(generation);
                self.world.exited_run(generation, Exit::Signal(9), None);
            }
            10..15 => {
                let class = self.rng.pick(&[
                    Class::AgentFailed,
                    Class::SetupFailed,
                    Class::UsageLimit,
                    Class::Environment,
                    Class::Auth,
                ]);
                self.world
                    .exited_run(generation, Exit::Code(0), Some(failed(class)));
            }
            // It says that all is well, and nothing was done. Of commands that is the truth.
            15..17 if self.world.facts().runs[&generation].kind() != RunKind::Verify => {
                self.world.exited_run(generation, Exit::Code(0), Some(ok()));
            }
            17..22 => {
                let found = match self.rng.below(4) {
                    0 => ResultFact::Absent,
                    1 => {
                        self.works(generation);
                        ResultFact::Absent
                    }
                    _ => ResultFact::Durable(Box::new(self.works(generation))),
                };
                self.dies(Some((generation, found)), false);
            }
            _ => {
                let result = self.works(generation);
                self.world
                    .exited_run(generation, Exit::Code(0), Some(result));
            }
        }
    }

    /// The supervisor dies: of its last turn any part may be durable; of its hosts one may have ended
    /// well, and one may live.
    fn dies(&mut self, told: Option<(Generation, ResultFact)>, lives: bool) {
        let all = self.world.journal.len();
        let turn = (all - self.durable.min(all)) as u64;
        let keep = if told.is_some() || turn == 0 {
            all
        } else {
            all - usize::try_from(self.rng.below(turn + 1)).unwrap()
        };
        self.world.cut(keep);
        let mut runs = Vec::new();
        let generations: Vec<Generation> = self.world.facts().runs.keys().copied().collect();
        for generation in generations {
            let mut process = ProcessFact::Gone;
            let mut result = ResultFact::Absent;
            match &told {
                Some((of, found)) if *of == generation => result = found.clone(),
                Some(_) | None => {
                    if lives && self.rng.chance(50) {
                        process = ProcessFact::Living;
                    }
                }
            }
            let facts = RunFacts {
                process,
                result,
                injected: Vec::new(),
                cleared: supervisor_core::containment::Cleared::CLEAN,
            };
            runs.push((generation, facts));
        }
        self.world.recover(runs);
        if !self.calm && self.rng.chance(20) {
            self.meddles();
        }
        self.world.tick();
    }

    fn meddles(&mut self) {
        let count = self.world.facts().tasks.len() as u64;
        let ix = TaskIx(u32::try_from(self.rng.below(count)).unwrap());
        let (tasks, now) = (vec![ix], self.rng.chance(50));
        let some = (!self.rng.chance(20)).then(|| tasks.clone());
        let command = match self.rng.below(18) {
            0 | 1 => OperatorCommand::Kill {
                tasks,
                grace: secs(self.rng.pick(&[0, 5])),
            },
            2 | 3 => OperatorCommand::Pause { tasks: some, now },
            4..=6 => OperatorCommand::Resume { tasks: some },
            7 => OperatorCommand::Cancel { tasks: Some(tasks) },
            8..=11 => OperatorCommand::Retry {
                tasks,
                mode: self.rng.pick(&[RetryMode::Resume, RetryMode::Fresh]),
                attempts: None,
                note: None,
            },
            12 => OperatorCommand::Skip {
                tasks,
                as_done: now,
            },
            13..=15 => OperatorCommand::Clean { tasks: some },
            _ => OperatorCommand::Stop(self.rng.pick(&[
                StopStage::Drain,
                StopStage::Stop,
                StopStage::Kill,
            ])),
        };
        self.world.op(command);
    }

    /// What the core says is so outside.
    fn is_true(&mut self) {
        for at in 0..self.world.facts().tasks.len() {
            let ix = TaskIx(u32::try_from(at).unwrap());
            let merged = self.task(ix).merge.as_ref();
            let merged = merged.is_some_and(|merge| merge.state == MergeState::Merged);
            if let Some(repo) = self.repo_of(ix).filter(|_| merged) {
                assert!(self.truth.holds(repo, ix), "{ix:?} is not on the branch");
            }
        }
    }

    fn turn(&mut self) {
        let before = self.world.journal.len();
        if self.world.ending().is_some() {
            self.durable = before;
            self.dies(None, false);
            self.durable = before;
            return;
        }
        match self.rng.below(100) {
            0..6 => self.meddles(),
            6..9 => {
                let lives = self.rng.chance(30);
                self.dies(None, lives);
            }
            9..14 => {
                let length = secs(self.rng.pick(&[1, 60, 4_000]));
                self.world.pulse = Pulse::Printing;
                self.world.pass(length);
            }
            _ => match self.some_run() {
                Some(run) => self.run(run),
                None => self.world.pass(mins(10)),
            },
        }
        self.durable = before.min(self.world.journal.len());
        self.is_true();
    }

    /// Nothing goes wrong any more, and the operator lets everything go on.
    fn settles(&mut self) {
        self.calm = true;
        let mut retries = 0;
        for _ in 0..CALM {
            let state = self.world.facts().batch.state;
            let ended = self.world.ending();
            match (self.some_run(), ended) {
                (Some(run), _) => self.run(run),
                (None, Some(Ending::Done | Ending::Failed)) => return,
                (None, Some(Ending::NeedsPerson)) if self.only_parked() && retries > 3 => return,
                (None, Some(_)) => {
                    self.durable = self.world.journal.len();
                    self.world
                        .crash_and_find(ProcessFact::Gone, ResultFact::Absent);
                    self.world.resume_all();
                    for name in self.parked() {
                        self.world.retry(&name);
                    }
                    retries += 1;
                    self.world.tick();
                }
                (None, None) if state == BatchState::Paused => {
                    self.world.resume_all();
                }
                (None, None) => self.world.pass(hours(1)),
            }
            self.is_true();
        }
        let facts = self.world.facts();
        panic!(
            "it does not settle: {:?} {:?} {:#?} {:#?}",
            facts.batch.state, facts.batch.reason, facts.repos, facts.tasks
        );
    }

    fn parked(&self) -> Vec<String> {
        let parked = self.world.facts().tasks.iter().filter(|task| {
            let merge = task.merge.as_ref();
            merge.is_some_and(|merge| merge.state == MergeState::Parked)
        });
        parked.map(|task| task.id.to_string()).collect()
    }

    fn only_parked(&self) -> bool {
        !self.parked().is_empty()
    }

    /// In the end every work that is done is merged, or it is said why not.
    fn is_delivered(&mut self) {
        for at in 0..self.world.facts().tasks.len() {
            let ix = TaskIx(u32::try_from(at).unwrap());
            let task = self.task(ix).clone();
            let (Some(repo), TaskState::Done, TaskReason::Proven) =
                (self.repo_of(ix), task.state, task.reason)
            else {
                continue;
            };
            let merge = task.merge.expect("what is done is delivered");
            assert!(merge.state.is_settled(), "{}: {:?}", task.id, merge.state);
            let there = self.truth.holds(repo, ix);
            assert_eq!(there, merge.state == MergeState::Merged, "{}", task.id);
        }
    }
}

fn tell(seed: u64) {
    let mut tale = Tale::new(seed);
    for _ in 0..STORM {
        tale.turn();
    }
    tale.settles();
    tale.is_delivered();
}

#[test]
fn whatever_goes_wrong_work_is_delivered_once_and_none_is_lost() {
    for seed in 1..=SEEDS {
        let told = std::panic::catch_unwind(|| tell(seed));
        assert!(told.is_ok(), "seed {seed}");
    }
}
