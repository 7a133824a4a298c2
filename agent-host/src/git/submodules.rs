//! Submodules of a worktree: filled from what the repository already has of them, without a network.
//!
//! `git` gives each worktree a repository of its own for each submodule. It is cloned from the one
//! under `modules` of the shared git folder (objects are linked, not copied), which needs nobody's
//! password, and its remote is then set to what the operator's is. The operator's settings are not
//! written to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::ErrorCode;
use protocol::git::Oid;

use super::Hands;
use super::error::GitError;
use super::program::Call;
use super::worktree::Worktree;

/// Deepest nesting of submodules that is followed.
const DEPTH_MAX: usize = 8;
/// The mode of a submodule's entry.
const GITLINK: &str = "160000";
/// How a repository beside ours hands over a commit that no ref names.
const ANY_COMMIT: &str = "--upload-pack=git -c uploadpack.allowAnySHA1InWant=true upload-pack";

/// What is done with a filled submodule: it, its folder, and the operator's repository of it.
type Visit<'a> = dyn FnMut(&Submodule, &Path, &Path) -> Result<(), GitError> + 'a;

/// One submodule of a worktree.
#[derive(Debug)]
struct Submodule {
    name: String,
    /// In the worktree that it is of.
    path: String,
    /// The commit that it is to be at.
    commit: String,
}

/// Fills the submodules of a worktree that is at this commit.
///
/// # Errors
/// When one is not in the repository, with the way out.
pub(super) fn fill(hands: &Hands, there: &Worktree, commit: &Oid) -> Result<(), GitError> {
    if !declares(hands, commit)? {
        return Ok(());
    }
    Level::top(hands, there).fill(hands)
}

/// The paths that the `.gitmodules` of a tree names, at its top.
///
/// # Errors
/// When it can not be read.
pub(super) fn declared(hands: &Hands, tree: &Oid) -> Result<Vec<PathBuf>, GitError> {
    let call = hands.git.at(&hands.repo.common).args(["config", "-z"]);
    let call = call.args([format!("--blob={tree}:.gitmodules")]);
    let call = call.args(["--get-regexp", r"^submodule\..*\.path$"]);
    let told = call.one_of(&[0, 1, 128])?;
    let lines = told.out.split(|byte| *byte == 0);
    let paths = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'\n')?;
        Some(PathBuf::from(OsStr::from_bytes(&line[at + 1..])))
    });
    Ok(paths.collect())
}

/// Hands the commits that an agent made in submodules of its worktree to the operator's
/// repositories of them, each by a ref of its own: they go with the worktree otherwise.
///
/// # Errors
/// When one can not be handed over.
pub(super) fn keep_commits(hands: &Hands, there: &Worktree, tree: &Oid) -> Result<(), GitError> {
    if !there.admin.join("modules").is_dir() || !declares(hands, tree)? {
        return Ok(());
    }
    let level = Level::top(hands, there);
    level.each_filled(hands, &mut |one, folder, module| {
        if has_commit(hands, module, &one.commit)? {
            return Ok(());
        }
        let name = format!("{0}:refs/supervisor/commits/{0}", one.commit);
        let fetch = hands.git.at(module).env("GIT_DIR", module);
        let fetch = fetch.set("protocol.file.allow=always");
        let fetch = fetch.args(["fetch", "-q", "--no-tags", ANY_COMMIT]);
        fetch.args([folder]).args([&name]).run().map(drop)
    })
}

/// Says so where a submodule holds what the operator's repository of it does not.
///
/// # Errors
/// Then, and when it can not be found out.
pub(super) fn check_kept(hands: &Hands, there: &Worktree, kept: &Oid) -> Result<(), GitError> {
    if !there.admin.join("modules").is_dir() || !declares(hands, kept)? {
        return Ok(());
    }
    Level::top(hands, there).each_filled(hands, &mut |one, folder, module| {
        let call = hands.git.at(folder);
        let head = call.args(["rev-parse", "HEAD"]).text()?;
        let call = hands.git.at(folder).args(["status", "--porcelain"]);
        let is_clean = call.text()?.is_empty();
        if is_clean && has_commit(hands, module, &head)? {
            return Ok(());
        }
        Err(GitError::Unfit(format!(
            "{} stays: its submodule {} holds work that is not kept",
            there.folder.display(),
            one.path
        )))
    })
}

/// Whether a repository has a commit.
fn has_commit(hands: &Hands, repo: &Path, commit: &str) -> Result<bool, GitError> {
    let call = hands.git.at(repo).env("GIT_DIR", repo);
    let object = format!("{commit}^{{commit}}");
    let told = call
        .args(["cat-file", "-e", &object])
        .one_of(&[0, 1, 128])?;
    Ok(told.code == 0)
}

/// Whether the commit has a `.gitmodules`.
fn declares(hands: &Hands, commit: &Oid) -> Result<bool, GitError> {
    let repo = &hands.repo;
    let tree = repo.raw_id(commit).and_then(|id| {
        let found = repo.raw.find_object(id, None);
        let found = found.and_then(|object| object.peel_to_tree());
        found.map_err(|error| repo.unread(commit.as_str(), &error))
    })?;
    match tree.get_path(Path::new(".gitmodules")) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
        Err(error) => Err(repo.unread(".gitmodules", &error)),
    }
}

/// The submodules of one working folder.
struct Level {
    folder: PathBuf,
    /// Where the operator's repositories of them are.
    modules: PathBuf,
    /// The operator's own working folder of the same, where a submodule may keep its repository.
    main: Option<PathBuf>,
    depth: usize,
}

impl Level {
    fn top(hands: &Hands, there: &Worktree) -> Self {
        Level {
            folder: there.folder.clone(),
            modules: hands.repo.common.join("modules"),
            main: hands.repo.raw.workdir().map(Path::to_owned),
            depth: 0,
        }
    }

    fn below(&self, one: &Submodule, source: &Path) -> Self {
        Level {
            folder: self.folder.join(&one.path),
            modules: source.join("modules"),
            main: self.main.as_ref().map(|main| main.join(&one.path)),
            depth: self.depth + 1,
        }
    }

    /// Visits those that are filled and that the operator has a repository of, those inside first.
    fn each_filled(&self, hands: &Hands, visit: &mut Visit<'_>) -> Result<(), GitError> {
        if self.depth > DEPTH_MAX || !self.folder.join(".gitmodules").is_file() {
            return Ok(());
        }
        for one in self.list(hands)? {
            let folder = self.folder.join(&one.path);
            if let Some(module) = self.module(&one).filter(|_| folder.join(".git").exists()) {
                self.below(&one, &module).each_filled(hands, visit)?;
                visit(&one, &folder, &module)?;
            }
        }
        Ok(())
    }

    /// The operator's repository of it, if there is one.
    fn module(&self, one: &Submodule) -> Option<PathBuf> {
        let main = self.main.as_ref().map(|main| main.join(&one.path));
        let inside = main.map(|main| main.join(".git"));
        let of_modules = Some(self.modules.join(&one.name)).filter(|module| module.is_dir());
        of_modules.or(inside.filter(|inside| inside.is_dir()))
    }

    fn fill(&self, hands: &Hands) -> Result<(), GitError> {
        if self.depth > DEPTH_MAX || !self.folder.join(".gitmodules").is_file() {
            return Ok(());
        }
        for one in self.list(hands)? {
            if self.is_unwanted(hands, &one)? {
                continue;
            }
            let source = self.source(hands, &one)?;
            self.fill_one(hands, &one, &source)?;
            self.below(&one, &source).fill(hands)?;
        }
        Ok(())
    }

    fn call<'a>(&self, hands: &'a Hands) -> Call<'a> {
        hands.git.at(&self.folder)
    }

    /// Those that are declared and that the index has.
    fn list(&self, hands: &Hands) -> Result<Vec<Submodule>, GitError> {
        let call = self.call(hands).args(["config", "-z", "-f", ".gitmodules"]);
        let call = call.args(["--get-regexp", r"^submodule\..*\.path$"]);
        let told = call.one_of(&[0, 1])?;
        let text = String::from_utf8_lossy(&told.out).into_owned();
        let mut found = Vec::new();
        for line in text.split_terminator('\0') {
            let Some((key, path)) = line.split_once('\n') else {
                continue;
            };
            let name = key.strip_prefix("submodule.");
            let Some(name) = name.and_then(|name| name.strip_suffix(".path")) else {
                continue;
            };
            let call = self.call(hands).args(["ls-files", "-s", "-z", "--"]);
            let entry = call.args([format!(":(top,literal){path}")]).text()?;
            let mut words = entry.split([' ', '\t']);
            if words.next() == Some(GITLINK)
                && let Some(commit) = words.next()
            {
                found.push(Submodule {
                    name: name.to_owned(),
                    path: path.to_owned(),
                    commit: commit.to_owned(),
                });
            }
        }
        Ok(found)
    }

    /// Whether the operator said that it is to stay empty.
    fn is_unwanted(&self, hands: &Hands, one: &Submodule) -> Result<bool, GitError> {
        let says = |key: &str, word: &str| {
            let key = format!("submodule.{}.{key}", one.name);
            let call = self.call(hands).args(["config", "--get", &key]);
            let told = call.one_of(&[0, 1])?;
            Ok(told.out.trim_ascii_end() == word.as_bytes())
        };
        Ok(says("active", "false")? || says("update", "none")?)
    }

    /// The operator's repository of it, which must have the commit.
    fn source(&self, hands: &Hands, one: &Submodule) -> Result<PathBuf, GitError> {
        let Submodule { name, path, commit } = one;
        let repo = hands.repo.path.display();
        let way_out = format!(
            "run `git submodule update --init --recursive` in {repo}, or set submodule.{name}.active to \
             false there"
        );
        let Some(source) = self.module(one) else {
            return Err(GitError::Unfit(format!(
                "the submodule `{name}` ({path}) was never fetched into {repo}: {way_out}"
            )));
        };
        if has_commit(hands, &source, commit)? {
            return Ok(source);
        }
        Err(GitError::Unfit(format!(
            "{repo} does not have commit {commit} of the submodule `{name}` ({path}): {way_out}"
        )))
    }

    fn fill_one(&self, hands: &Hands, one: &Submodule, source: &Path) -> Result<(), GitError> {
        let folder = self.folder.join(&one.path);
        if folder.join(".git").exists() {
            let fetch = hands.git.at(&folder).set("protocol.file.allow=always");
            let fetch = fetch.args(["fetch", "-q", "--no-tags", ANY_COMMIT]);
            fetch.args([source]).args([&one.commit]).run()?;
        }
        let name = &one.name;
        let update = self.call(hands).set("protocol.file.allow=always");
        let update = update.set(&format!("submodule.{name}.url={}", source.display()));
        let update = update.set(&format!("submodule.{name}.active=true"));
        let update = update.set(&format!("submodule.{name}.update=checkout"));
        let update = update.args(["submodule", "--quiet", "update", "--force", "--"]);
        update.args([&one.path]).run()?;
        let call = hands.git.at(source).env("GIT_DIR", source);
        let told = call.args(["config", "--get", "remote.origin.url"]);
        let url = told.one_of(&[0, 1])?.out;
        let url = String::from_utf8_lossy(url.trim_ascii_end()).into_owned();
        if !url.is_empty() {
            let call = hands.git.at(&folder);
            call.args(["config", "remote.origin.url", &url]).run()?;
        }
        Ok(())
    }
}
