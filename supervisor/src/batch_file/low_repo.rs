//! Keys of isolation and delivery as written: repositories, worktrees, merges, hooks, reviews.

use super::decode::keys;
use super::low::VerifyItem;
use super::scalars::{List, Named, Text, Whole, Word};
use super::words::{ConflictWord, FreshnessWord, KeepWord, SalvageIgnoredWord};

/// Most merges that may share one proof: finding the one that breaks it takes six more.
pub(super) const GROUP_MAX: i64 = 64;
/// Most often that work may be sent back in one attempt.
pub(super) const ROUNDS_MAX: i64 = 20;

keys! {
    /// A git repository in which tasks have worktrees.
    RepoKeys as "a repository" {
        /// Its folder, relative to the batch file; tasks work in this folder of their worktree.
        path: Text,
        /// The branch, tag or commit that its worktrees start from. Default: the batch's own `base`,
        /// else what is checked out.
        base: Text,
        /// What happens when that branch has moved on. Default: the batch's own.
        freshness: FreshnessWord,
        /// How work is merged in it; what it does not say, the batch's own `merge` says.
        merge: MergeKeys,
        /// Commands around work in it; each list stands in place of the batch's own.
        hooks: HookKeys,
        /// Environment for agents and commands in it; values are templates.
        env: Named<Word>,
    }
    later { }
}

keys! {
    /// Worktrees.
    WorktreesKeys as "the rules for worktrees" {
        /// The folder that they are made in, relative to the batch file, outside of every repository.
        /// Default: the state directory.
        dir: Text,
        /// Which of them stay when their tasks are over. Default `all`.
        keep: KeepWord,
        /// Which files that git ignores go to the salvage ref with the rest, before a worktree goes or is
        /// overwritten. Default `all_but_build_output`.
        salvage_ignored: SalvageIgnoredWord,
    }
    later { }
}

keys! {
    /// How work is merged into the batch branch.
    MergeKeys as "the rules for merges" {
        /// The branch that takes the merges; a template with `batch` and `vars`. Default
        /// `batch/{{ batch.id }}`.
        into: Text,
        /// Commands that must all exit 0 on each merge before the branch moves to it; templates with
        /// `batch` and `vars`.
        verify: List<VerifyItem>,
        /// Merges that share one proof. Default 1.
        group: Whole<1, GROUP_MAX>,
        /// What happens to a merge that conflicts, or whose proof fails. Default `park`.
        on_conflict: ConflictWord,
        /// The agent that resolves conflicts. Default: the task's own.
        agent: Text,
        /// What that agent is told beside the conflict; a template.
        prompt: Text,
    }
    later { }
}

keys! {
    /// Commands around the work. One that exits 0 allows it, 1 warns, anything else blocks it.
    HookKeys as "the hooks" {
        /// Once a worktree is made.
        after_create: List<VerifyItem>,
        /// Before each run of the agent.
        before_run: List<VerifyItem>,
        /// After each run of the agent.
        after_run: List<VerifyItem>,
        /// Before a worktree is removed.
        before_remove: List<VerifyItem>,
    }
    later { }
}

impl HookKeys {
    /// These lists, and those of `below` where this layer has none.
    pub(super) fn over(self, below: &Self) -> Self {
        Self {
            after_create: self.after_create.or_else(|| below.after_create.clone()),
            before_run: self.before_run.or_else(|| below.before_run.clone()),
            after_run: self.after_run.or_else(|| below.after_run.clone()),
            before_remove: self.before_remove.or_else(|| below.before_remove.clone()),
            wrong: self.wrong,
        }
    }
}

keys! {
    /// Another agent that judges the work.
    ReviewKeys as "a review" {
        /// The reviewer: a name of `agents`.
        agent: Text,
        /// How often the work may be sent back in one attempt. Default 2.
        rounds: Whole<1, ROUNDS_MAX>,
        /// What the reviewer is told beside task, difference and proof; a template.
        prompt: Text,
    }
    later { }
}
