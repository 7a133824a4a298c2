//! What a batch file names in a git repository, looked up and never changed: the commit that the
//! batch starts from, and the branch that takes its merges.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use git2::{Branch, BranchType, ErrorCode, Repository, RepositoryOpenFlags};
use protocol::git::Oid;

use super::error::{Fault, nearest};
use super::tree::shown;
use super::work::TASK_BRANCHES;

/// Branches and tags among which the nearest name is looked for; a slip of the pen is found among
/// the first, and a repository may have hundreds of thousands.
const NAMES_MAX: usize = 1_000;

/// Why a repository, or something in it, is not what a batch can use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is wrong.
    pub(super) message: String,
    /// What to do about it.
    pub(super) help: String,
    /// Whose it is.
    pub(super) fault: Fault,
}

impl Refusal {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
            fault: Fault::File,
        }
    }

    fn of_machine(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            fault: Fault::Machine,
            ..Self::new(message, help)
        }
    }
}

/// Where a batch starts in a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Base {
    /// The commit.
    pub(super) commit: Oid,
    /// The branch that this is, `refs/heads/...`, where it is one.
    pub(super) branch: Option<String>,
}

/// A repository that can be used.
pub(super) struct Found {
    git: Repository,
    /// Its working folder, absolute, links resolved.
    pub(super) root: PathBuf,
    /// The folder that was named, relative to the root.
    pub(super) folder: PathBuf,
}

impl Found {
    /// The repository around a folder, which is absolute and without links.
    pub(super) fn around(folder: &Path) -> Result<Self, Refusal> {
        let git_dir = discover(folder).ok_or_else(|| {
            let message = format!("{} is not inside a git repository", folder.display());
            Refusal::new(message, "`git init` makes one, with a first commit")
        })?;
        let git = opened(folder).map_err(|error| unusable(&git_dir, &error))?;
        let Some(root) = git.workdir() else {
            let message = format!("{} is a bare repository", folder.display());
            return Err(Refusal::new(message, "clone it, and name the clone"));
        };
        let root = std::fs::canonicalize(root).map_err(|error| {
            let message = format!("{} can not be looked at: {error}", root.display());
            Refusal::of_machine(message, "check its rights")
        })?;
        if root.to_str().is_none() {
            let message = format!("the path {} is not UTF-8", root.display());
            let help = "paths go to agents and into records as text: rename that folder";
            return Err(Refusal::of_machine(message, help));
        }
        let work = Some(folder).filter(|folder| !folder.starts_with(git.path()));
        let inside = work.and_then(|folder| folder.strip_prefix(&root).ok());
        let Some(folder) = inside.map(Path::to_owned) else {
            let message = format!(
                "{} is a part of the repository that is no work",
                folder.display()
            );
            let help = format!("name a folder of its working tree, {}", root.display());
            return Err(Refusal::new(message, help));
        };
        Ok(Self { git, root, folder })
    }

    /// What two names for one repository have in common: its objects and branches.
    pub(super) fn shared_dir(&self) -> PathBuf {
        let path = self.git.commondir();
        std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
    }

    /// The commit that `name` is; what is checked out where it is absent.
    pub(super) fn base(&self, name: Option<&str>) -> Result<Base, Refusal> {
        let base = match name.filter(|name| *name != "HEAD") {
            None => self.head()?,
            Some(name) => self.named(name)?,
        };
        self.check_folder(&base.commit)?;
        Ok(base)
    }

    fn head(&self) -> Result<Base, Refusal> {
        let head = self.git.head().map_err(|error| {
            let root = self.root.display();
            if matches!(error.code(), ErrorCode::UnbornBranch | ErrorCode::NotFound) {
                let message = format!("the repository {root} has no commit yet");
                return Refusal::new(
                    message,
                    "commit something first, or write `isolation: none`",
                );
            }
            let message = format!(
                "what is checked out in {root} can not be read: {}",
                error.message()
            );
            Refusal::of_machine(message, "`git fsck` says more")
        })?;
        let commit = head.peel_to_commit().map_err(|error| {
            let message = format!("what is checked out is no commit: {}", error.message());
            Refusal::of_machine(message, "`git fsck` says more")
        })?;
        let branch = head.is_branch().then(|| head.name().ok()).flatten();
        Ok(Base {
            commit: oid(commit.id())?,
            branch: branch.map(str::to_owned),
        })
    }

    fn named(&self, name: &str) -> Result<Base, Refusal> {
        let found = self.git.revparse_ext(name);
        let Some((commit, reference)) = found
            .ok()
            .and_then(|(object, reference)| Some((object.peel_to_commit().ok()?, reference)))
        else {
            return Err(self.unknown(name));
        };
        // `main~2` is not the branch `main`.
        let is_it = |reference: &git2::Reference<'_>| {
            let target = reference.peel_to_commit().map(|commit| commit.id());
            reference.is_branch() && target.is_ok_and(|target| target == commit.id())
        };
        let branch = reference.filter(is_it);
        let branch = branch.and_then(|branch| branch.name().ok().map(str::to_owned));
        Ok(Base {
            commit: oid(commit.id())?,
            branch,
        })
    }

    fn unknown(&self, name: &str) -> Refusal {
        let root = self.root.display();
        let message = format!("`{}` is no commit of {root}", shown(name));
        let names = self.names();
        let near = nearest(name, names.iter().map(String::as_str));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.git.is_shallow() => {
                "the repository is shallow: `git fetch --unshallow` brings what is missing"
                    .to_owned()
            }
            None => {
                "name a branch, a tag or a commit; `git branch --all` lists branches".to_owned()
            }
        };
        Refusal::new(message, help)
    }

    /// Names of branches and tags, the first [`NAMES_MAX`].
    fn names(&self) -> Vec<String> {
        let Ok(references) = self.git.references() else {
            return Vec::new();
        };
        let names = references.flatten().take(NAMES_MAX);
        let short = names.filter_map(|reference| reference.shorthand().ok().map(str::to_owned));
        short.collect()
    }

    /// Tasks work in this folder of their worktree: the commit must have it.
    fn check_folder(&self, commit: &Oid) -> Result<(), Refusal> {
        if self.folder.as_os_str().is_empty() {
            return Ok(());
        }
        let tree = git2::Oid::from_str(commit.as_str())
            .and_then(|id| self.git.find_commit(id))
            .and_then(|commit| commit.tree());
        let entry = tree.and_then(|tree| tree.get_path(&self.folder));
        if entry.is_ok_and(|entry| entry.kind() == Some(git2::ObjectType::Tree)) {
            return Ok(());
        }
        let (folder, short) = (self.folder.display(), commit.short());
        let message = format!("tasks would work in {folder}, which commit {short} does not have");
        let help =
            "commit something in it, or name the top of the repository as the working folder";
        Err(Refusal::new(message, help))
    }

    /// Whether the branch that takes the merges can be made, or moved, without harm to anybody.
    pub(super) fn check_into(&self, name: &str, base: &Base) -> Result<(), Refusal> {
        let own = base
            .branch
            .as_deref()
            .and_then(|full| full.strip_prefix(HEADS));
        let taken = |why: &str| {
            let message = format!("`{}` is the branch that {why}", shown(name));
            let help = "name a branch for this batch alone: `supervisor integrate` brings its work \
                        into your own";
            Err(Refusal::new(message, help))
        };
        if own == Some(name) {
            return taken("the batch starts from");
        }
        if self.is_checked_out(name) {
            return taken("is checked out");
        }
        self.refuse_shadow(name)?;
        self.refuse_shadow(TASK_BRANCHES)
    }

    /// Whether it is what the operator has in hand: in any worktree of the repository.
    fn is_checked_out(&self, name: &str) -> bool {
        let here = self.git.find_branch(name, BranchType::Local);
        if here.is_ok_and(|branch| branch.is_head()) {
            return true;
        }
        let first = Repository::open(self.git.commondir()).ok();
        let others = self.git.worktrees();
        let others = others.iter().flat_map(|names| names.iter());
        let others = others.filter_map(|name| {
            let linked = self.git.find_worktree(name.ok()??).ok()?;
            // One whose folder is gone has nothing in hand.
            linked.validate().ok()?;
            Repository::open_from_worktree(&linked).ok()
        });
        first.into_iter().chain(others).any(|other| {
            let branch = other.find_branch(name, BranchType::Local);
            branch.is_ok_and(|branch| branch.is_head())
        })
    }

    /// git keeps no branch `a` beside a branch `a/b`.
    fn refuse_shadow(&self, name: &str) -> Result<(), Refusal> {
        let exists = |name: &str| self.git.find_branch(name, BranchType::Local).is_ok();
        let above = name.match_indices('/').map(|(at, _)| &name[..at]);
        let is_ours = name == TASK_BRANCHES;
        let mut blocking = above
            .chain(is_ours.then_some(name))
            .find(|name| exists(name))
            .map(str::to_owned);
        if blocking.is_none() && !is_ours {
            let below = format!("{HEADS}{name}/*");
            let first = self.git.references_glob(&below);
            let first = first.ok().and_then(|mut all| all.next()?.ok());
            blocking = first.and_then(|it| it.shorthand().ok().map(str::to_owned));
        }
        let Some(blocking) = blocking else {
            return Ok(());
        };
        let beside = if is_ours {
            format!("{name}/...")
        } else {
            name.to_owned()
        };
        let message = format!(
            "git can not keep the branch `{}` beside `{}`, which is there",
            shown(&beside),
            shown(&blocking)
        );
        let help = if is_ours {
            "rename that branch: the branches of tasks are made below this name"
        } else {
            "name another branch as `merge.into`, one that lies above and below no other"
        };
        Err(Refusal::new(message, help))
    }
}

const HEADS: &str = "refs/heads/";

/// Whether a text may be the name of a branch, by git's own rules and ours.
pub(super) fn check_branch_name(name: &str) -> Result<(), Refusal> {
    if let Some(short) = name.strip_prefix(HEADS) {
        let message = format!("`{}` is the whole name of a ref", shown(name));
        return Err(Refusal::new(message, format!("write `{}`", shown(short))));
    }
    if !Branch::name_is_valid(name).unwrap_or(false) || name.starts_with('-') {
        let message = format!("`{}` can not be a branch's name", shown(name));
        let help = "git takes no blanks, no `..`, none of `~^:?*[\\`, no `/` or `.` at an end, no \
                    `.lock`";
        return Err(Refusal::new(message, help));
    }
    if name == TASK_BRANCHES || name.starts_with(&format!("{TASK_BRANCHES}/")) {
        let message = format!("`{TASK_BRANCHES}/` is kept for the branches of tasks");
        return Err(Refusal::new(
            message,
            "choose another name, for example \"batch/{{ batch.id }}\"",
        ));
    }
    Ok(())
}

/// The git directory of the repository around a folder.
pub(super) fn discover(folder: &Path) -> Option<PathBuf> {
    let none: [&OsStr; 0] = [];
    Repository::discover_path(folder, none).ok()
}

/// The repository around a folder. It is opened from there and not by its git directory, which may lie
/// elsewhere and then does not say where the working tree is.
///
/// # Errors
/// What libgit2 says.
pub(super) fn opened(folder: &Path) -> Result<Repository, git2::Error> {
    let none: [&OsStr; 0] = [];
    Repository::open_ext(folder, RepositoryOpenFlags::empty(), none)
}

/// Why a repository can not be opened.
fn unusable(git_dir: &Path, error: &git2::Error) -> Refusal {
    let extension = |name: &str| {
        let config = git2::Config::open(&git_dir.join("config")).ok()?;
        config.get_string(name).ok()
    };
    let path = git_dir.display();
    if let Some(format) = extension("extensions.objectformat").filter(|it| it != "sha1") {
        let message = format!("the repository {path} names objects by {format}");
        let help = "worktrees are made in repositories with SHA-1 names only: clone it into one, or \
                    write `isolation: none`";
        return Refusal::new(message, help);
    }
    if let Some(storage) = extension("extensions.refstorage").filter(|it| it != "files") {
        let message = format!("the repository {path} keeps its refs as {storage}");
        let help = "`git refs migrate --ref-format=files` changes that, or write `isolation: none`";
        return Refusal::new(message, help);
    }
    let message = format!(
        "the repository {path} can not be opened: {}",
        error.message()
    );
    Refusal::of_machine(
        message,
        "check its owner and rights; `git status` in it says more",
    )
}

fn oid(id: git2::Oid) -> Result<Oid, Refusal> {
    Oid::try_from(id.to_string())
        .map_err(|error| Refusal::of_machine(error.to_string(), "`git fsck` says more"))
}
