//! A repository, read with libgit2: refs, ancestry, identity. Its refs move by compare-and-swap.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, Repository};
use protocol::git::Oid;

use super::error::GitError;
use super::program::Git;

/// Who makes the commits where the repository names nobody.
const NOBODY: (&str, &str) = ("supervisor", "supervisor@localhost");
/// A ref that is not there, to `git update-ref`.
const ABSENT: &str = "0000000000000000000000000000000000000000";

/// The author of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Name.
    pub(crate) name: String,
    /// Address.
    pub(crate) email: String,
}

/// An open repository.
pub(crate) struct Repo {
    /// For what is read beyond this file.
    pub(crate) raw: Repository,
    /// Where it was opened.
    pub(crate) path: PathBuf,
    /// The folder that all its worktrees share.
    pub(crate) common: PathBuf,
}

impl Repo {
    /// Opens the repository whose working folder, or bare folder, this is.
    ///
    /// # Errors
    /// When it is none, or one that can not be read.
    pub(crate) fn open(path: &Path) -> Result<Self, GitError> {
        let raw = Repository::open(path).map_err(|error| refusal(path, &error))?;
        let common = std::fs::canonicalize(raw.commondir())
            .map_err(GitError::file("find", raw.commondir()))?;
        Ok(Self {
            raw,
            path: path.to_owned(),
            common,
        })
    }

    /// The commit that a ref leads to; `None` where there is no such ref.
    ///
    /// # Errors
    /// When it can not be read, or leads to no commit.
    pub(crate) fn tip(&self, reference: &str) -> Result<Option<Oid>, GitError> {
        let found = match self.raw.find_reference(reference) {
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            other => other.and_then(|found| found.peel_to_commit()),
        };
        let commit = found.map_err(|error| self.unread(reference, &error))?;
        self.name(commit.id()).map(Some)
    }

    /// Whether this commit is here.
    ///
    /// # Errors
    /// When the objects can not be read.
    pub(crate) fn has_commit(&self, commit: &Oid) -> Result<bool, GitError> {
        match self.raw.find_commit(self.raw_id(commit)?) {
            Ok(_) => Ok(true),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(self.unread(commit.as_str(), &error)),
        }
    }

    /// Says so where a commit is not here.
    ///
    /// # Errors
    /// Then, and when the objects can not be read.
    pub(crate) fn must_have(&self, commit: &Oid) -> Result<(), GitError> {
        if self.has_commit(commit)? {
            return Ok(());
        }
        let path = self.path.display();
        Err(GitError::Unfit(format!("{path} has no commit {commit}")))
    }

    /// Whether `older` is `newer` or one of its ancestors.
    ///
    /// # Errors
    /// When one of them is not here.
    pub(crate) fn reaches(&self, newer: &Oid, older: &Oid) -> Result<bool, GitError> {
        if newer == older {
            return Ok(true);
        }
        let (child, parent) = (self.raw_id(newer)?, self.raw_id(older)?);
        let found = self.raw.graph_descendant_of(child, parent);
        found.map_err(|error| self.unread(&format!("the history of {newer}"), &error))
    }

    /// Who makes commits here.
    pub(crate) fn identity(&self) -> Identity {
        let config = self.raw.config().and_then(|mut config| config.snapshot());
        let text = |name: &str, other: &str| match &config {
            Ok(config) => match config.get_string(name) {
                Ok(text) if !text.trim().is_empty() => text,
                Ok(_) | Err(_) => other.to_owned(),
            },
            Err(_) => other.to_owned(),
        };
        Identity {
            name: text("user.name", NOBODY.0),
            email: text("user.email", NOBODY.1),
        }
    }

    /// Moves a ref, if it is where `from` says (`None`: nowhere); `to` `None` deletes it. Whether it
    /// was; a ref that is where it should go already has moved.
    ///
    /// # Errors
    /// When `git` refuses for another reason.
    pub(crate) fn move_ref(
        &self,
        git: &Git,
        reference: &str,
        from: Option<&Oid>,
        to: Option<&Oid>,
        why: &str,
    ) -> Result<bool, GitError> {
        let name = |at: Option<&Oid>| at.map_or(ABSENT, Oid::as_str).to_owned();
        let call = git.at(&self.common).env("GIT_DIR", &self.common);
        let call = call.args(["update-ref", "-m", why]);
        let call = call.by(&self.identity());
        let moved = match to {
            Some(_) => call.args(["--no-deref", reference, &name(to), &name(from)]),
            None => call.args(["--no-deref", "-d", reference, &name(from)]),
        };
        match moved.run() {
            Ok(_) => Ok(true),
            Err(error) => match self.tip(reference)?.as_ref() {
                now if now == to => Ok(true),
                now if now != from => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// The name of an object, as libgit2 wants it.
    ///
    /// # Errors
    /// When it is one of another object format.
    pub(crate) fn raw_id(&self, name: &Oid) -> Result<git2::Oid, GitError> {
        git2::Oid::from_str(name.as_str()).map_err(|error| self.unread(name.as_str(), &error))
    }

    /// The name of an object, as it crosses the pipe.
    ///
    /// # Errors
    /// Not with the object formats that are supported.
    pub(crate) fn name(&self, id: git2::Oid) -> Result<Oid, GitError> {
        Oid::try_from(id.to_string()).map_err(|error| GitError::Unfit(error.to_string()))
    }

    /// An error of reading this repository.
    pub(crate) fn unread(&self, what: &str, error: &git2::Error) -> GitError {
        GitError::Read {
            repo: self.path.clone(),
            what: what.to_owned(),
            said: error.message().to_owned(),
        }
    }
}

fn refusal(path: &Path, error: &git2::Error) -> GitError {
    let said = error.message();
    match said.contains("object format") || said.contains("objectformat") {
        true => GitError::ObjectFormat {
            path: path.to_owned(),
            format: "sha256".to_owned(),
        },
        false => GitError::Repository {
            path: path.to_owned(),
            said: said.to_owned(),
        },
    }
}
