//! What hosts of steps, merges and clean-ups say, as verbs.

use protocol::build_output::{BuildOutputFolder, BuildOutputFound};
use protocol::git::{
    Committed, Concluded, Conflicted, GitOutcome, MergeCommit, MergeConflict, Merged, Oid,
    Provisioned, Removed, Salvaged,
};
use protocol::ids::Generation;
use protocol::report::{Event, RunResult, Started, Verdict};
use supervisor_core::facts::{Clean, Merge, Round};
use supervisor_core::identity::Exit;
use supervisor_core::input::{Input, OperatorCommand};
use supervisor_core::machine::MergeState;
use supervisor_core::plan::RepoIx;
use supervisor_core::step::{CleanStep, Purpose, Stage, Step};

use super::verbs::{caps, ok};
use super::world::World;

/// A candidate of this name conflicts in a round that [`World::rounds_go_well`] answers.
pub(crate) const CONFLICT: &str = "conflicts";

/// An object's name that a number stands for.
pub(crate) fn oid(number: u64) -> Oid {
    Oid::try_from(format!("{number:040x}")).expect("forty digits")
}

/// The commit of a task's work, where a story does not name another one.
pub(crate) fn commit_of(name: &str) -> Oid {
    let number = name.bytes().fold(1u64, |sum, byte| {
        sum.wrapping_mul(131).wrapping_add(u64::from(byte))
    });
    oid(number)
}

/// Git work that went well and did this.
pub(crate) fn git_ok(outcome: GitOutcome) -> RunResult {
    RunResult {
        git: Some(Box::new(outcome)),
        ..ok()
    }
}

impl World {
    /// The step that the open attempt is at.
    pub(crate) fn step(&self, name: &str) -> Step {
        self.attempt(name).step
    }

    /// What a host says whose step went well.
    pub(crate) fn well(&self, name: &str) -> RunResult {
        match self.step(name) {
            Step::Salvage => salvaged(name, 1),
            Step::Provision => {
                let made = self.task(name).worktree.is_none();
                provisioned(made)
            }
            Step::Commit => committed(name, 3),
            Step::Checkout => git_ok(GitOutcome::CheckedOut {}),
            Step::Review => verdict(Verdict::Approve, "good"),
            Step::AfterCreate
            | Step::Fetch
            | Step::BeforeRun
            | Step::Work
            | Step::AfterRun
            | Step::Prove => ok(),
        }
    }

    /// The step that is due goes well; answers which it was.
    pub(crate) fn passes(&mut self, name: &str) -> Step {
        let (step, result) = (self.step(name), self.well(name));
        self.begin(name);
        self.ends(name, result);
        step
    }

    /// Steps go well until this one is due.
    pub(crate) fn passes_to(&mut self, name: &str, step: Step) {
        for _ in 0..20 {
            if self.step(name) == step {
                return;
            }
            self.passes(name);
        }
        panic!("{name} never comes to {step:?}");
    }

    /// Every step of the open attempt goes well; answers which they were.
    pub(crate) fn passes_all(&mut self, name: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        while self.task(name).attempt.is_some() {
            steps.push(self.passes(name));
            assert!(steps.len() < 50, "{name} goes on for ever: {steps:?}");
        }
        steps
    }

    /// Every step of the open attempt is done by a host that says this of the step it is at.
    pub(crate) fn says(&mut self, name: &str, result: RunResult) {
        self.begin(name);
        self.ends(name, result);
    }

    // Runs that are no attempt's.

    /// What a run is for that is not an attempt's: the lowest one.
    pub(crate) fn other_runs(&self) -> Vec<(Generation, Purpose)> {
        let runs = self.facts().runs.iter();
        runs.map(|(generation, run)| (*generation, run.purpose))
            .filter(|(_, purpose)| !matches!(purpose, Purpose::Step(_)))
            .collect()
    }

    pub(crate) fn run_of(&self, wanted: Purpose) -> Generation {
        let runs = self.other_runs();
        let found = runs.iter().find(|(_, purpose)| *purpose == wanted);
        found
            .unwrap_or_else(|| panic!("no run of {wanted:?} in {runs:?}"))
            .0
    }

    /// The run of a merge's stage in the first repository.
    pub(crate) fn merging(&self, stage: Stage) -> Generation {
        self.run_of(Purpose::Merge(RepoIx(0), stage))
    }

    pub(crate) fn cleaning(&self, step: CleanStep) -> Generation {
        self.run_of(Purpose::Clean(step))
    }

    /// From the spawn's answer to a host that works, for any run.
    pub(crate) fn begin_run(&mut self, generation: Generation) {
        let identity = self.identity();
        self.handle(Input::HostSpawned {
            generation,
            identity,
            containment: Default::default(),
        });
        self.handle(Input::HostGreeted { generation });
        let event = Event::Started(Started {
            capabilities: caps(),
            session: None,
        });
        self.report_of(generation, event);
    }

    /// One whole run that ends with this result.
    pub(crate) fn run_says(&mut self, generation: Generation, result: RunResult) {
        self.begin_run(generation);
        self.report_of(generation, Event::Result(Box::new(result)));
        self.exited_run(generation, Exit::Code(0), None);
    }

    /// One run whose host is killed.
    pub(crate) fn run_vanishes(&mut self, generation: Generation) {
        self.begin_run(generation);
        self.exited_run(generation, Exit::Signal(9), None);
    }

    /// The stage that is due in the first repository ends like this.
    pub(crate) fn stage_says(&mut self, stage: Stage, result: RunResult) {
        let generation = self.merging(stage);
        self.run_says(generation, result);
    }

    pub(crate) fn clean_says(&mut self, step: CleanStep, result: RunResult) {
        let generation = self.cleaning(step);
        self.run_says(generation, result);
    }

    /// The round merges what it was asked to, in order; those that are named conflict.
    pub(crate) fn merges_but(&mut self, conflicts: &[&str]) {
        let round = self.round().clone();
        let take = self.facts().repos[0].spec.group.max(1) as usize;
        let names: Vec<String> = round.tasks.iter().map(|ix| self.name(*ix)).collect();
        let good = names.iter().filter(|it| !conflicts.contains(&it.as_str()));
        let good: Vec<&str> = good.take(take).map(String::as_str).collect();
        let bad: Vec<&str> = names
            .iter()
            .map(String::as_str)
            .filter(|it| conflicts.contains(it))
            .collect();
        self.stage_says(Stage::Merge, merged(&good, &bad));
    }

    pub(crate) fn round(&self) -> &Round {
        self.facts().repos[0].round.as_ref().expect("a round")
    }

    pub(crate) fn merge_of(&self, name: &str) -> &Merge {
        self.task(name).merge.as_ref().expect("a merge")
    }

    pub(crate) fn merge_at(&self, name: &str) -> MergeState {
        self.merge_of(name).state
    }

    pub(crate) fn clean_of(&self, name: &str) -> &Clean {
        self.task(name).clean.as_ref().expect("a clean-up")
    }

    /// Every run that is due goes well, whatever it is, until nothing is due any more; candidates
    /// whose name begins with [`CONFLICT`] conflict.
    pub(crate) fn all_goes_well(&mut self) {
        for _ in 0..500 {
            let next = self.facts().runs.iter().next();
            let Some((generation, run)) = next.map(|(it, run)| (*it, run.clone())) else {
                return;
            };
            let name = self.name(run.task);
            let result = match run.purpose {
                Purpose::Step(_) => self.well(&name),
                Purpose::Merge(repo, stage) => self.stage_well(repo, stage),
                Purpose::Clean(step) => self.clean_well(&name, step),
                Purpose::Comment(_) => ok(),
            };
            self.run_says(generation, result);
        }
        panic!("it goes on for ever");
    }

    fn stage_well(&self, repo: RepoIx, stage: Stage) -> RunResult {
        let repo = &self.facts().repos[repo.0 as usize];
        let round = repo.round.as_ref().expect("a round");
        match stage {
            Stage::Merge => {
                let names: Vec<String> = round.tasks.iter().map(|ix| self.name(*ix)).collect();
                let (bad, good): (Vec<&str>, Vec<&str>) = names
                    .iter()
                    .map(String::as_str)
                    .partition(|it| it.starts_with(CONFLICT));
                let take = repo.spec.group.max(1) as usize;
                merged(&good[..good.len().min(take)], &bad)
            }
            Stage::Checkout => git_ok(GitOutcome::CheckedOut {}),
            Stage::Verify | Stage::Resolve => ok(),
            Stage::Advance => git_ok(GitOutcome::Advanced {}),
            Stage::Conflict => conflicted(&["a.rs"]),
            Stage::Conclude => concluded(Some(oid(77))),
        }
    }

    fn clean_well(&self, name: &str, step: CleanStep) -> RunResult {
        match step {
            CleanStep::BeforeRemove => ok(),
            CleanStep::Salvage => {
                let number = self.task(name).salvaged.len() as u64 + 1;
                salvaged(name, number)
            }
            CleanStep::Remove => removed(),
            CleanStep::BuildOutput => room_made(),
        }
    }

    pub(crate) fn make_room(&mut self, name: &str) -> String {
        let tasks = self.ixs(&[name]);
        self.op_lines(OperatorCommand::CleanBuildOutput { tasks })
            .remove(0)
    }

    pub(crate) fn clean_up(&mut self, name: &str) -> String {
        let tasks = Some(self.ixs(&[name]));
        self.op_lines(OperatorCommand::Clean { tasks }).remove(0)
    }
}

/// Build output of two folders went.
pub(crate) fn room_made() -> RunResult {
    let folder = |path: &str| BuildOutputFolder {
        path: path.to_owned(),
        bytes: 21,
        files: 1,
    };
    git_ok(GitOutcome::BuildOutput(BuildOutputFound {
        folders: vec![folder("a/target"), folder("target")],
        bytes: 42,
        removed: true,
        ..BuildOutputFound::default()
    }))
}

pub(crate) fn provisioned(made: bool) -> RunResult {
    git_ok(GitOutcome::Provisioned(Provisioned {
        base: oid(1),
        head: oid(1),
        made,
        warnings: Vec::new(),
    }))
}

/// A commit of so many files.
pub(crate) fn committed(name: &str, files: u64) -> RunResult {
    committed_with(name, files, |_| {})
}

pub(crate) fn committed_with(
    name: &str,
    files: u64,
    change: impl FnOnce(&mut Committed),
) -> RunResult {
    let mut done = Committed {
        commit: commit_of(name),
        files,
        markers: Vec::new(),
        outside: Vec::new(),
        missing: Vec::new(),
        warnings: Vec::new(),
    };
    change(&mut done);
    git_ok(GitOutcome::Committed(done))
}

pub(crate) fn salvaged(name: &str, number: u64) -> RunResult {
    git_ok(GitOutcome::Salvaged(Salvaged {
        reference: format!("refs/supervisor/salvage/story/{name}/{number}"),
        commit: oid(9_000 + number),
        files: 3,
        bytes: 300,
        skipped: Vec::new(),
    }))
}

pub(crate) fn removed() -> RunResult {
    git_ok(GitOutcome::Removed(Removed {
        bytes: 300,
        existed: true,
    }))
}

/// The merge commit of a task's work.
pub(crate) fn merge_commit(name: &str) -> Oid {
    commit_of(&format!("merge of {name}"))
}

/// These are merged on top of each other, and those conflict with what the last of them changed.
pub(crate) fn merged(good: &[&str], bad: &[&str]) -> RunResult {
    merged_against(good, bad, good.last().map(|name| merge_commit(name)))
}

/// These are merged on top of each other, and those conflict with what these commits changed.
pub(crate) fn merged_against(
    good: &[&str],
    bad: &[&str],
    by: impl IntoIterator<Item = Oid> + Clone,
) -> RunResult {
    let merges = good.iter().map(|name| MergeCommit {
        task: name.parse().expect("a task id"),
        commit: merge_commit(name),
    });
    let conflicts = bad.iter().map(|name| MergeConflict {
        task: name.parse().expect("a task id"),
        with: oid(2),
        by: by.clone().into_iter().collect(),
        files: vec!["a.rs".to_owned()],
        kinds: Default::default(),
    });
    git_ok(GitOutcome::Merged(Merged {
        tip: oid(2),
        merges: merges.collect(),
        conflicts: conflicts.collect(),
        warnings: Vec::new(),
    }))
}

pub(crate) fn conflicted(files: &[&str]) -> RunResult {
    let why = |file: &&str| ((*file).to_owned(), "both changed it".to_owned());
    git_ok(GitOutcome::Conflicted(Conflicted {
        tip: oid(2),
        files: files.iter().map(why).collect(),
    }))
}

/// The merge commit of a resolved conflict, or the files that are left.
pub(crate) fn concluded(commit: Option<Oid>) -> RunResult {
    let markers = if commit.is_none() {
        vec!["a.rs".to_owned()]
    } else {
        Vec::new()
    };
    git_ok(GitOutcome::Concluded(Concluded { commit, markers }))
}

/// What a reviewer says.
pub(crate) fn verdict(verdict: Verdict, notes: &str) -> RunResult {
    RunResult {
        verdict: Some(verdict),
        summary: notes.to_owned(),
        ..ok()
    }
}

pub(crate) fn advanced() -> RunResult {
    git_ok(GitOutcome::Advanced {})
}

pub(crate) fn checked_out() -> RunResult {
    git_ok(GitOutcome::CheckedOut {})
}
