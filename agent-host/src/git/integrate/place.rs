//! Where the operator's branch is checked out, and whether anything there could be lost.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{Repository, RepositoryState};
use protocol::integrate::How;
use rustix::fs::{Access, access};

use super::{Look, Refusal, short};
use crate::git::Hands;
use crate::git::error::GitError;

/// Most files that a refusal names.
const NAMED_MAX: usize = 5;

/// A working tree of the operator's in which the branch is checked out.
pub(super) struct Place {
    /// Its folder.
    pub(super) folder: PathBuf,
}

/// Where a branch is checked out; and why that is not the whole truth, where it is not.
///
/// # Errors
/// When the repository can not be read.
pub(super) fn find(
    hands: &Hands,
    branch: &str,
) -> Result<(Option<Place>, Option<Refusal>), GitError> {
    let call = hands.git.at(&hands.repo.path);
    let listed = call.args(["worktree", "list", "--porcelain", "-z"]).run()?;
    let mut folder = None;
    let mut found = None;
    for line in listed.split(|&byte| byte == 0) {
        if let Some(path) = line.strip_prefix(b"worktree ") {
            folder = Some(working_tree(hands, PathBuf::from(OsStr::from_bytes(path))));
        } else if line.strip_prefix(b"branch ") == Some(branch.as_bytes()) {
            found = folder.take().map(|folder| Place { folder });
        }
    }
    Ok((found, held(hands, branch)))
}

/// Of a repository whose git folder lies apart from its working tree, `git` lists the former.
fn working_tree(hands: &Hands, listed: PathBuf) -> PathBuf {
    let raw = &hands.repo.raw;
    match raw.workdir() {
        Some(tree) if listed == hands.repo.common && !raw.is_worktree() => tree.to_owned(),
        Some(_) | None => listed,
    }
}

/// A rebase or bisection works on the branch while it is checked out nowhere: it moves the branch
/// when it ends, and believes to know where it is.
fn held(hands: &Hands, branch: &str) -> Option<Refusal> {
    let common = &hands.repo.common;
    let others = fs::read_dir(common.join("worktrees"));
    let others = others.into_iter().flatten().flatten();
    let others = others.map(|entry| entry.path());
    let folders = std::iter::once(common.clone()).chain(others);
    let words = [
        ("rebase-merge/head-name", "rebased"),
        ("rebase-apply/head-name", "rebased"),
        ("BISECT_START", "bisected"),
    ];
    let name = short(branch);
    folders
        .flat_map(|folder| words.map(|(file, word)| (folder.join(file), word)))
        .find(|(file, _)| {
            let text = fs::read_to_string(file).unwrap_or_default();
            short(text.trim()) == name
        })
        .map(|(file, word)| {
            let why = format!("{name} is being {word} ({} says so)", file.display());
            Refusal::new(why, "finish that or give it up, then give the same command")
        })
}

impl Place {
    /// Its folder, for people.
    pub(super) fn shown(&self) -> String {
        self.folder.display().to_string()
    }

    /// Its folder, where that is there.
    pub(super) fn there(&self) -> Option<&Path> {
        Some(self.folder.as_path()).filter(|folder| folder.is_dir())
    }

    /// Why nothing may be done there.
    ///
    /// # Errors
    /// When it can not be looked at.
    pub(super) fn refusal(&self, look: &Look<'_>) -> Result<Option<Refusal>, GitError> {
        let shown = self.shown();
        if self.there().is_none() {
            let why = format!("{} is checked out in {shown}, which is gone", look.branch());
            return Ok(Some(Refusal::new(why, "`git worktree prune` forgets it")));
        }
        let there = Repository::open(&self.folder);
        let there = there.map_err(|error| look.hands.repo.unread(&shown, &error))?;
        if there.state() != RepositoryState::Clean {
            let why = format!("a merge, rebase or the like is under way in {shown}");
            let way_out = "finish it or give it up (`git status` there says how)";
            return Ok(Some(Refusal::new(why, way_out)));
        }
        let lock = there.path().join("index.lock");
        if lock.exists() {
            let why = format!("{} is there: a git works in {shown}", lock.display());
            let way_out = "let it end; remove the file if none does";
            return Ok(Some(Refusal::new(why, way_out)));
        }
        if let Some(refusal) = self.changed(look)? {
            return Ok(Some(refusal));
        }
        self.overwritten(look)
    }

    /// Tracked files that differ from the last commit.
    fn changed(&self, look: &Look<'_>) -> Result<Option<Refusal>, GitError> {
        let call = look.hands.git.at(&self.folder);
        let call = call.args(["status", "--porcelain", "-z", "--no-renames"]);
        let call = call.args(["--untracked-files=no", "--ignore-submodules=dirty"]);
        let out = call.run()?;
        let lines = out.split(|&byte| byte == 0).filter(|line| !line.is_empty());
        let files = lines.map(|line| line.get(3..).unwrap_or_default());
        let files: Vec<String> = files
            .map(|file| String::from_utf8_lossy(file).into_owned())
            .collect();
        Ok((!files.is_empty()).then(|| {
            let why = format!(
                "{} has uncommitted changes: {}",
                self.shown(),
                named(&files)
            );
            Refusal::new(
                why,
                "commit or stash them, or choose another branch with --into",
            )
        }))
    }

    /// Files that are not tracked, ignored ones too, at places where files are to come.
    fn overwritten(&self, look: &Look<'_>) -> Result<Option<Refusal>, GitError> {
        let mut files = Vec::new();
        for change in look.changes.iter().filter(|change| change.added) {
            if self.is_in_the_way(look, change.path(), change.submodule)? {
                files.push(change.shown());
            }
        }
        Ok((!files.is_empty()).then(|| {
            let why = format!(
                "{} has files that are not tracked and would be overwritten: {}",
                self.shown(),
                named(&files)
            );
            Refusal::new(why, "move them away, or choose another branch with --into")
        }))
    }

    fn is_in_the_way(
        &self,
        look: &Look<'_>,
        path: &Path,
        submodule: bool,
    ) -> Result<bool, GitError> {
        // A folder is to come where a file or link is; a tracked one is the branch's own to give up.
        let above = path.ancestors().skip(1);
        let mut above = above.filter(|above| !above.as_os_str().is_empty());
        let is_no_folder = |path: &Path| {
            let meta = fs::symlink_metadata(self.folder.join(path));
            meta.is_ok_and(|meta| !meta.is_dir())
        };
        if let Some(file) = above.find(|above| is_no_folder(above)) {
            return self.holds_untracked(look, file);
        }
        match fs::symlink_metadata(self.folder.join(path)) {
            Ok(meta) if meta.is_dir() && submodule => Ok(false),
            // A folder of tracked files becomes a file; what else is in it would be lost.
            Ok(meta) if meta.is_dir() => self.holds_untracked(look, path),
            Ok(_) => Ok(true),
            Err(_) => Ok(false), // nothing is there, or nothing that can be reached and overwritten
        }
    }

    fn holds_untracked(&self, look: &Look<'_>, path: &Path) -> Result<bool, GitError> {
        let call = look.hands.git.at(&self.folder);
        let call = call.args(["--literal-pathspecs", "ls-files", "--others", "-z", "--"]);
        Ok(!call.args([path]).run()?.is_empty())
    }
}

fn named(files: &[String]) -> String {
    let shown = files.iter().take(NAMED_MAX).map(String::as_str);
    let mut shown: Vec<&str> = shown.collect();
    let more = match files.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!("and {more} more"),
    };
    if !more.is_empty() {
        shown.push(&more);
    }
    shown.join(", ")
}

/// The operator's hooks that will run.
///
/// # Errors
/// When `git` can not say where they are.
pub(super) fn hooks(
    hands: &Hands,
    place: Option<&Place>,
    how: How,
) -> Result<Vec<String>, GitError> {
    let names: &[&str] = match (how, place) {
        (How::PullRequest, _) => &["pre-push"],
        (_, None) => return Ok(Vec::new()),
        (How::Merge, Some(_)) => &[
            "pre-merge-commit",
            "prepare-commit-msg",
            "commit-msg",
            "post-merge",
            "post-index-change",
            "reference-transaction",
        ],
        (How::FastForward | How::Either, Some(_)) => {
            &["post-merge", "post-index-change", "reference-transaction"]
        }
    };
    let folder = place.and_then(Place::there).unwrap_or(&hands.repo.path);
    let call = hands.git.as_operator(folder);
    let mut told = call.args(["rev-parse", "--git-path", "hooks"]).run()?;
    told.truncate(told.trim_ascii_end().len());
    let hooks = folder.join(OsStr::from_bytes(&told));
    let there = names.iter().filter(|name| {
        let file = hooks.join(name);
        file.is_file() && access(&file, Access::EXEC_OK).is_ok()
    });
    Ok(there.map(|&name| name.to_owned()).collect())
}
