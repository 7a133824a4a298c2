//! What `supervisor clean` would remove of a batch, what stays, and why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::build_output::{BuildOutput, BuildOutputFound};
use protocol::git::{GitOutcome, GitWork};
use protocol::ids::TaskId;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::machine::MergeState;
use supervisor_core::plan::TaskIx;
use supervisor_core::step::CleanStep;
use supervisor_core::time::Wall;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::cli::{git_work, salvage};
use crate::view::delivery;
use crate::view::family::size;
use crate::view::time::Span;

/// Files and folders that are counted for the size of one worktree; beyond it is said to be larger.
const ENTRIES_MAX: usize = 2_000_000;

/// What is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Worktrees.
    Worktrees,
    /// What in them can be built again.
    BuildOutput,
}

impl What {
    /// The word for scripts.
    pub(super) const fn word(self) -> &'static str {
        match self {
            What::Worktrees => "worktrees",
            What::BuildOutput => "build_output",
        }
    }
}

/// Which worktrees are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    /// What of them goes.
    pub(super) what: What,
    /// Only of these tasks; absent: of all.
    pub(super) named: Option<&'a [TaskId]>,
    /// Only of tasks that ended longer ago.
    pub(super) older_than: Option<Duration>,
    /// Now.
    pub(super) now: Wall,
}

/// A worktree of which something goes.
#[derive(Debug)]
pub(super) struct Going {
    /// Its task.
    pub(super) ix: TaskIx,
    /// The same.
    pub(super) id: TaskId,
    /// Where it is.
    pub(super) path: PathBuf,
    /// What is freed.
    pub(super) size: Size,
    /// The commit on the batch branch that holds its work, shortened.
    pub(super) merged: Option<String>,
    /// When its task ended.
    pub(super) ended: Wall,
    /// A clean-up that was cut off is gone on with.
    pub(super) under_way: bool,
    /// What of it is build output, where only that goes.
    pub(super) output: Option<BuildOutputFound>,
}

/// What of one batch goes.
#[derive(Debug)]
pub(super) struct Plan {
    /// The batch.
    pub(super) batch: Found,
    /// What of its worktrees goes.
    pub(super) what: What,
    /// Which.
    pub(super) going: Vec<Going>,
    /// What stays, and why.
    pub(super) stays: Vec<(TaskId, String)>,
    /// The last record when this was looked at.
    pub(super) seq: u64,
}

impl Plan {
    /// Looks at worktrees of a batch.
    ///
    /// # Errors
    /// When the batch can not be read, or build output not be looked for.
    pub(super) fn of(batch: Found, choice: Choice<'_>) -> Result<Plan, CliError> {
        let opened = batch.read()?;
        let facts = opened.facts();
        let view = opened.view(BTreeMap::new());
        let places = view.places();
        let alive = opened.presence.alive;
        let (mut going, mut stays) = (Vec::new(), Vec::new());
        for (number, task) in (0..).zip(&facts.tasks) {
            if choice.named.is_some_and(|named| !named.contains(&task.id)) {
                continue;
            }
            let Some(path) = places.worktree(task) else {
                if choice.named.is_some() {
                    stays.push((task.id.clone(), "has no worktree".to_owned()));
                }
                continue;
            };
            if let Some(why) = why_it_stays(task, choice, alive) {
                stays.push((task.id.clone(), why));
                continue;
            }
            match Going::of(&batch, facts, TaskIx(number), path, choice.what)? {
                Ok(one) => going.push(one),
                Err(why) => stays.push((task.id.clone(), why)),
            }
        }
        let seq = facts.batch.seq;
        Ok(Plan {
            batch,
            what: choice.what,
            going,
            stays,
            seq,
        })
    }

    /// What all of it frees.
    pub(super) fn total(&self) -> Size {
        let sizes = self.going.iter().map(|one| one.size);
        sizes.fold(Size::default(), Size::and)
    }
}

impl Going {
    fn of(
        batch: &Found,
        facts: &Facts,
        ix: TaskIx,
        path: PathBuf,
        what: What,
    ) -> Result<Result<Going, String>, CliError> {
        let task = &facts.tasks[ix.0 as usize];
        let (size, output) = match what {
            What::Worktrees => (Size::of(&path), None),
            What::BuildOutput => {
                let found = look(batch, &salvage::repository(facts, task)?, &path)?;
                if found.folders.is_empty() && task.clean.is_none() {
                    return Ok(Err(nothing_in(&found)));
                }
                let bytes = found.bytes;
                (Size { bytes, more: false }, Some(found))
            }
        };
        Ok(Ok(Going {
            ix,
            id: task.id.clone(),
            size,
            merged: merged(task),
            ended: task.since,
            under_way: task.clean.is_some(),
            output,
            path,
        }))
    }
}

/// Why there is no build output in a worktree.
fn nothing_in(found: &BuildOutputFound) -> String {
    let stays = found.stays.iter();
    let stays: Vec<_> = stays
        .map(|it| format!("{} ({})", it.path, it.why))
        .collect();
    match stays.is_empty() {
        true => "has no build output".to_owned(),
        false => format!("has no build output that can go: {}", stays.join(", ")),
    }
}

/// What of a worktree is build output: asked of the other program of the pair, which changes nothing.
fn look(batch: &Found, repo: &Path, worktree: &Path) -> Result<BuildOutputFound, CliError> {
    let (Some(repo), Some(worktree)) = (repo.to_str(), worktree.to_str()) else {
        return Err(CliError::new(Code::Usage, "a path is not UTF-8"));
    };
    let work = GitWork::BuildOutput(BuildOutput {
        repo: repo.to_owned(),
        worktree: worktree.to_owned(),
        remove: false,
    });
    let GitOutcome::BuildOutput(found) = git_work::carry_out(batch, &work)? else {
        let text = "agent-host did something else than what was asked";
        return Err(CliError::new(Code::Internal, text));
    };
    Ok(found)
}

/// Why nothing of the worktree of a task goes now.
fn why_it_stays(task: &Task, choice: Choice<'_>, alive: bool) -> Option<String> {
    if let Some(clean) = &task.clean {
        let same = (clean.step == CleanStep::BuildOutput) == (choice.what == What::BuildOutput);
        // Without a supervisor it was cut off, and the same order goes on with it.
        return (alive || !same).then(|| "its worktree is going already".to_owned());
    }
    if !task.state.is_terminal() {
        return Some("is not over: its worktree stays".to_owned());
    }
    let merging = task.merge.as_ref().is_some_and(|it| !it.state.is_settled());
    if choice.what == What::Worktrees && merging {
        return Some("is being merged: its worktree stays".to_owned());
    }
    let ago = Span::between(task.since, choice.now);
    let young = choice.older_than.is_some_and(|least| ago.0 < least);
    young.then(|| format!("ended {ago} ago: its worktree stays"))
}

/// The commit on the batch branch that holds the work, shortened.
fn merged(task: &Task) -> Option<String> {
    let merge = delivery::merge(task)?;
    let commit = merge
        .merged
        .as_ref()
        .filter(|_| merge.state == MergeState::Merged);
    Some(commit?.short().to_owned())
}

/// Bytes of the files below a folder.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) bytes: u64,
    /// Something could not be counted.
    pub(super) more: bool,
}

impl Size {
    /// Follows no link; what can not be read is left out, and that is said.
    pub(super) fn of(folder: &Path) -> Size {
        let mut size = Size::default();
        let (mut folders, mut left) = (vec![folder.to_owned()], ENTRIES_MAX);
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else {
                size.more = true;
                continue;
            };
            for entry in entries {
                let meta = entry.as_ref().map(|entry| (entry.path(), entry.metadata()));
                let (Ok((path, Ok(meta))), Some(fewer)) = (meta, left.checked_sub(1)) else {
                    size.more = true;
                    continue;
                };
                left = fewer;
                if meta.is_dir() {
                    folders.push(path);
                } else {
                    size.bytes = size.bytes.saturating_add(meta.len());
                }
            }
        }
        size
    }

    pub(super) fn and(self, other: Size) -> Size {
        Size {
            bytes: self.bytes.saturating_add(other.bytes),
            more: self.more || other.more,
        }
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if self.more { "more than " } else { "" };
        write!(f, "{more}{}", size(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_as_large_as_its_files_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("in/a"), [0; 1000]).unwrap();
        std::fs::write(folder.path().join("b"), [0; 24]).unwrap();
        let before = Size::of(folder.path());
        assert_eq!((before.bytes, before.more), (1024, false));
        std::os::unix::fs::symlink(folder.path(), folder.path().join("in/loop")).unwrap();
        let with_link = Size::of(folder.path());
        assert!(with_link.bytes < 2 * 1024, "{}", with_link.bytes);
        assert!(Size::of(&folder.path().join("gone")).more);
    }
}
