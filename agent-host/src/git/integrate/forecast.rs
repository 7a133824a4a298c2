//! What a merge would give, found out without a trace in the repository.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::ErrorCode;
use protocol::git::{Oid, PATHS_MAX};

use super::scratch;
use crate::git::Hands;
use crate::git::error::GitError;
use crate::git::program::Call;

/// What one branch's going into another comes to.
pub(super) enum Forecast {
    /// Everything is there already.
    Contained,
    /// The other branch has no commit of its own.
    Straight,
    /// It merges; `tree` is the name of what comes out.
    Clean { tree: String },
    /// It conflicts in these files, at most [`PATHS_MAX`]; `base` is where the two parted.
    Conflict { base: Oid, files: Vec<String> },
    /// The two have nothing in common.
    Unrelated,
}

impl Forecast {
    /// Whether there is nothing to do.
    pub(super) fn is_contained(&self) -> bool {
        matches!(self, Self::Contained)
    }

    /// Whether a fast-forward will do.
    pub(super) fn is_straight(&self) -> bool {
        matches!(self, Self::Straight)
    }
}

/// One file that changes.
pub(super) struct Change {
    path: PathBuf,
    /// It was not there before.
    pub(super) added: bool,
    /// It is a repository of its own, of which only the name is kept.
    pub(super) submodule: bool,
}

impl Change {
    /// Its path from the top of the tree.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its path, for people.
    pub(super) fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// What comes of merging `from` into `into`, which is checked out in `folder` where that is given.
///
/// # Errors
/// When the repository can not be read.
pub(super) fn merge(
    hands: &Hands,
    folder: Option<&Path>,
    into: &Oid,
    from: &Oid,
) -> Result<Forecast, GitError> {
    let repo = &hands.repo;
    if repo.reaches(into, from)? {
        return Ok(Forecast::Contained);
    }
    if repo.reaches(from, into)? {
        return Ok(Forecast::Straight);
    }
    let base = match repo.raw.merge_base(repo.raw_id(into)?, repo.raw_id(from)?) {
        Ok(base) => repo.name(base)?,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(Forecast::Unrelated),
        Err(error) => return Err(repo.unread("where the branches parted", &error)),
    };
    let call = merge_tree(hands, folder, into, from);
    let told = aside(hands, call)?.one_of(&[0, 1])?;
    let mut lines = told.out.split(|&byte| byte == 0);
    let tree = lines.next().unwrap_or_default();
    if told.code == 0 {
        let tree = String::from_utf8_lossy(tree).into_owned();
        return Ok(Forecast::Clean { tree });
    }
    let files = lines.filter(|file| !file.is_empty()).take(PATHS_MAX);
    let files = files.map(|file| String::from_utf8_lossy(file).into_owned());
    let files = files.collect();
    Ok(Forecast::Conflict { base, files })
}

/// The call that merges two commits into a tree: exit 0 clean, 1 conflicts; first the tree's name,
/// then the files that conflict, each ended by a zero byte.
pub(super) fn merge_tree<'a>(
    hands: &'a Hands,
    folder: Option<&Path>,
    into: &Oid,
    from: &Oid,
) -> Call<'a> {
    let call = hands.git.at(folder.unwrap_or(&hands.repo.path));
    let call = match folder {
        // As `git merge` will do it there.
        Some(_) => call,
        // Attributes are those of the branch, not those of what happens to be checked out.
        None => call.env("GIT_ATTR_SOURCE", into.as_str()),
    };
    let how = ["merge-tree", "--write-tree", "-z", "--name-only"];
    let call = call.args(how).args(["--no-messages"]);
    call.args([into.as_str(), from.as_str()])
}

/// The same call with what it writes in a folder of ours, beside which it reads the repository's.
fn aside<'a>(hands: &Hands, call: Call<'a>) -> Result<Call<'a>, GitError> {
    let folder = scratch(hands);
    fs::create_dir_all(&folder).map_err(GitError::file("make", &folder))?;
    let objects = hands.repo.common.join("objects");
    let mut quoted = vec![b'"'];
    for &byte in objects.as_os_str().as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    Ok(call.env("GIT_OBJECT_DIRECTORY", folder).env(
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        OsStr::from_bytes(&quoted),
    ))
}

/// The files that differ on the operator's branch afterwards; of a conflict what the batch changed.
///
/// # Errors
/// When the repository can not be read.
pub(super) fn changes(
    hands: &Hands,
    forecast: &Forecast,
    into: &Oid,
    from: &Oid,
) -> Result<Vec<Change>, GitError> {
    let (before, after) = match forecast {
        Forecast::Contained | Forecast::Unrelated => return Ok(Vec::new()),
        Forecast::Straight => (into, from.as_str()),
        Forecast::Clean { tree } => (into, tree.as_str()),
        Forecast::Conflict { base, .. } => (base, from.as_str()),
    };
    let call = hands.git.at(&hands.repo.path);
    let call = call.args(["diff-tree", "-r", "-z", "--raw", "--no-renames"]);
    let call = call.args([before.as_str(), after]);
    let out = aside(hands, call)?.run()?;
    let mut fields = out.split(|&byte| byte == 0);
    let mut found = Vec::new();
    // `:100644 100644 OLD NEW M`, then the path.
    while let (Some(line), Some(path)) = (fields.next(), fields.next()) {
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        found.push(Change {
            path: PathBuf::from(OsStr::from_bytes(path)),
            added: words.last() == Some(&&b"A"[..]),
            submodule: words.get(1) == Some(&&b"160000"[..]),
        });
    }
    Ok(found)
}

/// How many commits `into` lacks of `from`.
///
/// # Errors
/// When the repository can not be read.
pub(super) fn commits(hands: &Hands, into: &Oid, from: &Oid) -> Result<u64, GitError> {
    let range = format!("{into}..{from}");
    let call = hands.git.at(&hands.repo.path);
    let count = call.args(["rev-list", "--count", &range]).text()?;
    let unread = |_| GitError::Unfit(format!("`git rev-list --count` printed {count:?}"));
    count.parse().map_err(unread)
}
