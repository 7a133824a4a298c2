//! Repositories as the world knows them: a commit is a set of pieces of work, refs name commits, and
//! worktrees hold what is in no commit yet. Git work changes them as the hosts' own would.
//!
//! The repositories do not defend themselves: whoever takes work away that is nowhere else, verifies
//! what is not what was committed, or moves the batch branch to what was not proven, is found here.

use std::collections::{BTreeMap, BTreeSet};

use protocol::build_output::BuildOutputFound;
use protocol::class::Class;
use protocol::git::{Committed, GitOutcome, Oid, Provisioned, Removed, Salvaged};
use protocol::report::Verdict;
use supervisor_core::facts::Salvage;
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::retry::mix;

use super::git_merges::Merges;
use super::jobs::Job;
use super::rng::Rng;
use super::world::{Told, broken};

/// Something that an agent made, or the operator.
pub(super) type Piece = u64;
/// Commits that the repositories begin with have the lowest numbers, those of the story the higher ones.
const FIRST_COMMIT: u64 = 1_000;

/// One commit.
#[derive(Debug, Clone, Default)]
pub(super) struct Commit {
    pub(super) holds: BTreeSet<Piece>,
    /// The tasks whose merges led here, in order.
    pub(super) line: Vec<TaskIx>,
    /// What would break the proof and does not, because an agent saw to it.
    pub(super) mended: BTreeSet<Piece>,
}

/// The worktree of a task.
#[derive(Debug, Clone)]
struct Tree {
    repo: RepoIx,
    base: Oid,
    /// What is in it beside its base.
    pieces: BTreeSet<Piece>,
    /// It was not cut off while it was made.
    whole: bool,
}

/// What came of a job.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// What git work did.
    pub(super) git: Option<GitOutcome>,
    /// Why it did not go well.
    pub(super) class: Option<Class>,
    /// What a reviewer says.
    pub(super) verdict: Option<Verdict>,
}

impl Done {
    pub(super) fn git(outcome: GitOutcome) -> Told<Done> {
        Ok(Done {
            git: Some(outcome),
            ..Done::default()
        })
    }

    pub(super) fn failed(class: Class) -> Told<Done> {
        Ok(Done {
            class: Some(class),
            ..Done::default()
        })
    }
}

/// All repositories of a story.
#[derive(Debug)]
pub(super) struct Git {
    pub(super) seed: u64,
    /// Merges that conflict and pieces that break a proof, of a thousand each.
    pub(super) rates: (u64, u64),
    /// Misfortune is over: nothing new conflicts and nothing breaks a proof.
    pub(super) calm: bool,
    made: u64,
    commits: BTreeMap<Oid, Commit>,
    pub(super) refs: BTreeMap<String, Oid>,
    trees: BTreeMap<TaskIx, Tree>,
    /// What was in worktrees that a removal took from their place, be it cut off or not.
    left: BTreeMap<TaskIx, BTreeSet<Piece>>,
    pub(super) merges: BTreeMap<RepoIx, Merges>,
    /// Where the checkouts of reviewers are.
    reviews: BTreeMap<TaskIx, Oid>,
    /// Commits whose verify commands went well, whose reviewer approved, and that were ruled done.
    proven: BTreeSet<Oid>,
    approved: BTreeSet<Oid>,
    pub(super) delivered: BTreeMap<TaskIx, Oid>,
    /// Merge commits whose proof went well.
    pub(super) good_merges: BTreeSet<Oid>,
}

fn salvaged(reference: &str, commit: Oid) -> Salvaged {
    Salvaged {
        reference: reference.to_owned(),
        commit,
        files: 1,
        bytes: 1,
        skipped: Vec::new(),
    }
}

fn name(number: u64) -> Oid {
    #[expect(clippy::expect_used, reason = "forty digits name an object")]
    Oid::try_from(format!("{number:040x}")).expect("the name of an object")
}

pub(super) fn into(repo: RepoIx) -> String {
    format!("refs/heads/batch/{}", repo.0)
}

fn branch(task: TaskIx) -> String {
    format!("refs/heads/supervisor/{}", task.0)
}

/// The commit that a repository begins with.
fn pinned(repo: RepoIx) -> Oid {
    name(1 + u64::from(repo.0))
}

impl Git {
    pub(super) fn new(seed: u64, rates: (u64, u64)) -> Git {
        Git {
            seed,
            rates,
            calm: false,
            made: FIRST_COMMIT,
            commits: BTreeMap::new(),
            refs: BTreeMap::new(),
            trees: BTreeMap::new(),
            left: BTreeMap::new(),
            merges: BTreeMap::new(),
            reviews: BTreeMap::new(),
            proven: BTreeSet::new(),
            approved: BTreeSet::new(),
            delivered: BTreeMap::new(),
            good_merges: BTreeSet::new(),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    pub(super) fn commit(&self, oid: &Oid) -> Commit {
        self.commits.get(oid).cloned().unwrap_or_default()
    }

    pub(super) fn write(&mut self, commit: Commit) -> Oid {
        let oid = name(self.number());
        self.commits.insert(oid.clone(), commit);
        oid
    }

    /// Where the batch branch is; it is made where it is missing.
    pub(super) fn tip(&mut self, repo: RepoIx) -> Oid {
        let tip = self.refs.entry(into(repo)).or_insert_with(|| pinned(repo));
        tip.clone()
    }

    /// Whether the batch branch holds the work of this task.
    pub(super) fn holds(&self, repo: RepoIx, task: TaskIx) -> bool {
        let tip = self.refs.get(&into(repo));
        tip.is_some_and(|tip| self.commit(tip).line.contains(&task))
    }

    fn content(&self, task: TaskIx) -> Option<BTreeSet<Piece>> {
        let tree = self.trees.get(&task)?;
        let mut all = self.commit(&tree.base).holds;
        all.extend(&tree.pieces);
        Some(all)
    }

    /// Whether this piece breaks a proof: the seed says so.
    pub(super) fn breaks(&self, piece: Piece) -> bool {
        !self.calm && mix(self.seed ^ piece) % 1_000 < self.rates.1
    }

    /// What was taken away is in a commit that a ref reaches, or still in a worktree.
    fn are_kept(&self, taken: &BTreeSet<Piece>, how: &str) -> Told {
        let held = |piece: &Piece| {
            let mut commits = self.refs.values().filter_map(|oid| self.commits.get(oid));
            commits.any(|commit| commit.holds.contains(piece))
                || self.trees.values().any(|tree| tree.pieces.contains(piece))
        };
        match taken.iter().find(|piece| !held(piece)) {
            None => Ok(()),
            Some(piece) => broken(
                "I7 nothing is taken away before it is kept elsewhere",
                format!("{how}: piece {piece} is nowhere else"),
            ),
        }
    }

    /// An agent makes something in the worktree of its task.
    pub(super) fn change(&mut self, task: TaskIx) -> Told {
        let piece = self.number();
        match self.trees.get_mut(&task).filter(|tree| tree.whole) {
            Some(tree) => {
                tree.pieces.insert(piece);
                Ok(())
            }
            None => broken(
                "I6 an agent works in a whole worktree of its own",
                format!("t{}", task.0),
            ),
        }
    }

    /// A task was ruled done with this commit.
    pub(super) fn deliver(&mut self, task: TaskIx, commit: &Oid) {
        self.delivered.insert(task, commit.clone());
    }

    /// Whether a commit holds what is in its task's worktree, and more than its base.
    pub(super) fn is_work_of(&self, task: TaskIx, commit: &Oid) -> bool {
        self.content(task) == Some(self.commit(commit).holds)
    }

    /// Whether a commit holds all that was in the worktree of a task when it was removed.
    pub(super) fn brings_back(&self, task: TaskIx, commit: &Oid) -> bool {
        let holds = self.commit(commit).holds;
        let left = self.left.get(&task);
        left.is_none_or(|left| left.is_subset(&holds))
    }

    pub(super) fn has_worktree(&self, task: TaskIx) -> bool {
        self.trees.contains_key(&task)
    }

    pub(super) fn is_changed(&self, task: TaskIx) -> bool {
        self.trees
            .get(&task)
            .is_some_and(|tree| !tree.pieces.is_empty())
    }

    pub(super) fn is_proven(&self, commit: &Oid) -> bool {
        self.proven.contains(commit)
    }

    pub(super) fn is_approved(&self, commit: &Oid) -> bool {
        self.approved.contains(commit)
    }

    /// A host does its job, or half of it.
    pub(super) fn perform(&mut self, job: &Job, half: bool, rng: &mut Rng) -> Told<Done> {
        match job {
            Job::None | Job::Work => Ok(Done::default()),
            Job::BuildOutput => Done::git(GitOutcome::BuildOutput(BuildOutputFound {
                removed: true,
                ..BuildOutputFound::default()
            })),
            Job::Salvage {
                task,
                reference,
                last,
            } => match self.content(*task) {
                Some(holds) => self.salvage(holds, reference, half),
                None => self.salvaged_before(last.as_ref()),
            },
            Job::Provision {
                task,
                repo,
                needs,
                made,
            } => self.provision(*task, *repo, needs, made.as_ref(), half),
            Job::Commit { task } => self.commit_work(*task, rng),
            Job::Prove { task, commit } => self.prove(*task, commit),
            Job::Checkout { task, commit } => {
                self.reviews.insert(*task, commit.clone());
                Done::git(GitOutcome::CheckedOut {})
            }
            Job::Review { task, commit } => self.review(*task, commit, rng),
            Job::Remove {
                task,
                kept,
                reference,
                merged,
            } => self.remove(*task, kept, reference, *merged, half),
            Job::Merge {
                repo,
                candidates,
                take,
                advance,
            } => self.merge(*repo, candidates, *take, *advance && !half),
            Job::PutMerge { repo, commit } => {
                self.put(*repo, commit, false);
                Done::git(GitOutcome::CheckedOut {})
            }
            Job::VerifyMerge { repo, commit } => self.verify_merge(*repo, commit),
            Job::Advance {
                repo,
                from,
                to,
                verify,
            } => self.advance(*repo, from, to, *verify),
            Job::Conflict { repo, candidate } => self.conflict(*repo, candidate),
            Job::Resolve { repo } => {
                let solved = self.calm || rng.chance(700);
                self.resolve(*repo, solved)
            }
            Job::Conclude {
                repo,
                tip,
                candidate,
            } => self.conclude(*repo, tip, candidate),
        }
    }

    /// A worktree that a removal took from its place is answered for by the salvage before that.
    fn salvaged_before(&self, last: Option<&Salvage>) -> Told<Done> {
        let held = last.filter(|it| self.refs.get(it.reference.as_ref()) == Some(&it.commit));
        match held {
            Some(last) => Done::git(GitOutcome::Salvaged(salvaged(
                &last.reference,
                last.commit.clone(),
            ))),
            None => Done::failed(Class::SetupFailed),
        }
    }

    fn salvage(&mut self, holds: BTreeSet<Piece>, reference: &str, half: bool) -> Told<Done> {
        let there = self.refs.get(reference).cloned();
        let commit = match there {
            // The ref comes last: of half a salvage nothing is left.
            None if half => return Ok(Done::default()),
            None => {
                let line = Vec::new();
                let mended = BTreeSet::new();
                let oid = self.write(Commit {
                    holds,
                    line,
                    mended,
                });
                self.refs.insert(reference.to_owned(), oid.clone());
                oid
            }
            Some(oid) if self.commit(&oid).holds == holds => oid,
            Some(_) => return Done::failed(Class::SetupFailed),
        };
        Done::git(GitOutcome::Salvaged(salvaged(reference, commit)))
    }

    fn provision(
        &mut self,
        task: TaskIx,
        repo: RepoIx,
        needs: &[(TaskIx, Oid)],
        made: Option<&Oid>,
        half: bool,
    ) -> Told<Done> {
        let tip = self.tip(repo);
        let there = self.trees.get(&task).cloned();
        // What a provisioning left of which nobody heard holds no work.
        let strange =
            |tree: &Tree| tree.repo != repo && (made.is_some() || !tree.pieces.is_empty());
        if there.as_ref().is_some_and(strange) {
            return broken(
                "I7 work is looked for in its own repository",
                format!("t{} in repository {}", task.0, repo.0),
            );
        }
        let there = there.filter(|tree| tree.whole);
        if let (Some(_), Some(tree)) = (made, there) {
            let head = self.refs.get(&branch(task)).cloned();
            return Done::git(provisioned(&tree.base, head, false));
        }
        let (base, pieces) = match made {
            Some(base) => (base.clone(), self.committed_since(task, base, &tip)),
            None => (self.base(repo, needs, &tip)?, BTreeSet::new()),
        };
        let mut before = self.content(task).unwrap_or_default();
        if let Some(oid) = self.refs.get(&branch(task)) {
            before.extend(self.commit(oid).holds);
        }
        if made.is_none() {
            self.refs.insert(branch(task), base.clone());
        }
        let whole = !half;
        let tree = Tree {
            repo,
            base: base.clone(),
            pieces,
            whole,
        };
        self.trees.insert(task, tree);
        self.left.remove(&task);
        self.are_kept(&before, "a worktree is made anew")?;
        Done::git(provisioned(&base, None, made.is_none()))
    }

    /// What a folder that vanished is made again from: what its branch holds.
    fn committed_since(&self, task: TaskIx, base: &Oid, tip: &Oid) -> BTreeSet<Piece> {
        let head = self.refs.get(&branch(task)).unwrap_or(tip);
        let based = self.commit(base).holds;
        let all = self.commit(head).holds;
        all.difference(&based).copied().collect()
    }

    /// What a new worktree is made from: the batch branch, where it must contain something.
    fn base(&self, repo: RepoIx, needs: &[(TaskIx, Oid)], tip: &Oid) -> Told<Oid> {
        if needs.is_empty() {
            return Ok(pinned(repo));
        }
        let line = self.commit(tip).line;
        match needs.iter().find(|(task, _)| !line.contains(task)) {
            None => Ok(tip.clone()),
            Some((task, _)) => broken(
                "dependents start from what their dependencies made",
                format!("the batch branch is without t{}", task.0),
            ),
        }
    }

    fn commit_work(&mut self, task: TaskIx, rng: &mut Rng) -> Told<Done> {
        let Some(tree) = self.trees.get(&task).filter(|tree| tree.whole).cloned() else {
            return Done::failed(Class::SetupFailed);
        };
        let holds = self.content(task).unwrap_or_default();
        let head = self.refs.get(&branch(task)).cloned();
        let commit = match head {
            _ if tree.pieces.is_empty() => tree.base.clone(),
            Some(head) if self.commit(&head).holds == holds => head,
            Some(_) | None => {
                let line = self.commit(&tree.base).line;
                let mended = self.commit(&tree.base).mended;
                self.write(Commit {
                    holds,
                    line,
                    mended,
                })
            }
        };
        self.refs.insert(branch(task), commit.clone());
        let some = |odd: bool| vec!["a.rs".to_owned(); usize::from(odd)];
        let odd = if self.calm { 99 } else { rng.below(60) };
        Done::git(GitOutcome::Committed(Committed {
            commit,
            files: tree.pieces.len() as u64,
            markers: some(odd == 0),
            outside: some(odd == 1),
            missing: some(odd == 2),
            warnings: Vec::new(),
        }))
    }

    fn prove(&mut self, task: TaskIx, commit: &Oid) -> Told<Done> {
        if !self.is_work_of(task, commit) {
            return broken(
                "I5 what is verified is what was committed",
                format!("the worktree of t{} is not {}", task.0, commit.short()),
            );
        }
        self.proven.insert(commit.clone());
        Ok(Done::default())
    }

    fn review(&mut self, task: TaskIx, commit: &Oid, rng: &mut Rng) -> Told<Done> {
        if self.reviews.get(&task) != Some(commit) {
            return broken(
                "I5 what is reviewed is what was committed",
                format!("the checkout for t{} is not {}", task.0, commit.short()),
            );
        }
        let word = match rng.below(20) {
            _ if self.calm => Verdict::Approve,
            0 => Verdict::Reject,
            1..=6 => Verdict::Revise,
            _ => Verdict::Approve,
        };
        if word == Verdict::Approve {
            self.approved.insert(commit.clone());
        }
        Ok(Done {
            verdict: Some(word),
            ..Done::default()
        })
    }

    fn remove(
        &mut self,
        task: TaskIx,
        kept: &Oid,
        reference: &str,
        merged: bool,
        half: bool,
    ) -> Told<Done> {
        if self.refs.get(reference) != Some(kept) {
            return broken(
                "I7 nothing is removed before its salvage is there",
                format!("t{}: {reference} is not {}", task.0, kept.short()),
            );
        }
        let there = self.content(task);
        let holds = self.commit(kept).holds;
        let content = there.clone().unwrap_or_default();
        if !content.is_subset(&holds) {
            return broken(
                "I7 nothing is removed before all of it was salvaged",
                format!("t{}: {} does not hold it", task.0, kept.short()),
            );
        }
        if there.is_some() {
            self.left.insert(task, content.clone());
        }
        self.trees.remove(&task);
        if half {
            return Ok(Done::default());
        }
        let head = self.refs.get(&branch(task)).cloned();
        if head.is_some_and(|head| merged && self.commit(&head).holds.is_subset(&holds)) {
            self.refs.remove(&branch(task));
        }
        self.are_kept(&content, "a worktree is removed")?;
        Done::git(GitOutcome::Removed(Removed {
            bytes: 1,
            existed: there.is_some(),
        }))
    }

    /// In the end: the commit of what is done is on a ref.
    pub(super) fn is_reachable(&self, commit: &Oid) -> bool {
        let holds = self.commit(commit).holds;
        let held = |piece: &Piece| {
            let mut commits = self.refs.values().filter_map(|oid| self.commits.get(oid));
            commits.any(|commit| commit.holds.contains(piece))
        };
        holds.iter().all(held)
    }
}

fn provisioned(base: &Oid, head: Option<Oid>, made: bool) -> GitOutcome {
    GitOutcome::Provisioned(Provisioned {
        base: base.clone(),
        head: head.unwrap_or_else(|| base.clone()),
        made,
        warnings: Vec::new(),
    })
}
