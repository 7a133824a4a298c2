//! Salvage: the whole content of a worktree goes to a ref of its own, byte for byte.
//!
//! Nothing that git does to files on their way in (filters, line ends, ignored and empty folders) is
//! wanted here, so the walk and the trees are our own ([`super::content`], [`super::entries`]), and
//! libgit2 keeps the objects. The ref comes last: objects are written and synced, everything is read
//! back and compared with the worktree, and only then the ref is made, if there is none. So a ref
//! that is there is proof, and what a kill leaves are objects that git's own housekeeping removes.

use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository, Signature, Time};
use protocol::git::{GitOutcome, PATHS_MAX, Salvage, Salvaged};

use super::content::{self, Content, Found, Pass};
use super::error::GitError;
use super::ignored::Ignored;
use super::kept_modes::Modes;
use super::repo::Repo;
use super::worktree::entry_of;
use super::{Hands, folder, gone, housekeeping, locks, staged};
use crate::clock;

/// Where refs of salvage are.
pub(super) const REFS: &str = "refs/supervisor/salvage/";
/// How the message of the commit begins that holds what is staged.
pub(super) const STAGED: &str = "salvage, staged: ";
/// How the message of the commit begins that holds the repositories of submodules.
pub(super) const MODULES: &str = "salvage, modules: ";
/// Longest note, bytes: one line of a commit message.
const NOTE_MAX: usize = 500;
/// Numbers that are tried after the one asked for: each that is taken is a salvage that was cut off
/// between its ref and its word, and runs that are lost in a row are bounded below that.
const NUMBERS_MAX: u32 = 100;

/// Carries it out.
///
/// # Errors
/// When something can not be kept as it is, or the disk is full: then there is no new ref, and the
/// worktree is as it was.
pub(super) fn perform(hands: &Hands, work: &Salvage) -> Result<GitOutcome, GitError> {
    if !work.reference.starts_with(REFS) {
        let text = format!(
            "{} is no ref of salvage: it begins with {REFS}",
            work.reference
        );
        return Err(GitError::Unfit(text));
    }
    housekeeping::put_back(hands, &work.reference, None)?;
    if let Some(last) = gone::last(hands, work)? {
        return Ok(GitOutcome::Salvaged(last));
    }
    let place = Place::of(hands, work)?;
    let ignored = place.ignored(hands, work)?;
    let pass = place.pass(&hands.repo, &ignored, Pass::Write, None)?;
    let modules = place.modules(&hands.repo, Pass::Write, None)?;
    let kept = write_commits(hands, work, &place, pass, modules)?;
    let objects = hands.repo.common.join("objects");
    folder::sync(&objects)?;
    read_back(hands, work, &place, &ignored, &kept)?;
    let name = hands.repo.name(kept.commit)?;
    let (repo, reference) = (&hands.repo, kept.reference);
    locks::heal_own_ref(&repo.common, &reference)?;
    if repo.tip(&reference)?.as_ref() != Some(&name)
        && !repo.move_ref(&hands.git, &reference, None, Some(&name), "salvage")?
    {
        return Err(taken(&reference));
    }
    folder::sync(&hands.repo.common)?;
    Ok(GitOutcome::Salvaged(Salvaged {
        reference,
        commit: name,
        files: kept.found.files,
        bytes: kept.found.bytes,
        skipped: kept.skipped,
    }))
}

/// The content of a worktree as salvage keeps it, without what is ignored: the name of its tree, and of
/// that of the repositories of its submodules, where it has any.
///
/// # Errors
/// As [`perform`].
pub(super) fn content(hands: &Hands, worktree: &Path) -> Result<(Oid, Option<Oid>), GitError> {
    let work = Salvage {
        repo: hands.repo.path.display().to_string(),
        worktree: worktree.display().to_string(),
        reference: REFS.to_owned(),
        ignored: Vec::new(),
        note: String::new(),
        last: None,
    };
    let place = Place::of(hands, &work)?;
    let ignored = place.ignored(hands, &work)?;
    let (tree, _) = place.pass(&hands.repo, &ignored, Pass::Write, None)?;
    let modules = place.modules(&hands.repo, Pass::Write, None)?;
    Ok((tree, modules.map(|(tree, _)| tree)))
}

/// The tree of the repositories of submodules that a commit of salvage keeps.
///
/// # Errors
/// When it can not be read.
pub(super) fn modules_of(raw: &Repository, commit: Oid) -> Result<Option<Oid>, git2::Error> {
    let commit = raw.find_commit(commit)?;
    let beginning = MODULES.as_bytes();
    let mut parents = commit.parents();
    let part = parents.find(|parent| parent.message_bytes().starts_with(beginning));
    Ok(part.map(|part| part.tree_id()))
}

fn taken(reference: &str) -> GitError {
    GitError::Unfit(format!("{reference} is there and holds something else"))
}

/// The ref for what is kept: one that holds the same, with its commit, or else a free one. One that
/// holds something else was made by a salvage whose word was lost: it stays.
fn free_ref(
    hands: &Hands,
    wanted: &str,
    is_same: impl Fn(Oid) -> Result<bool, git2::Error>,
) -> Result<(String, Option<Oid>), GitError> {
    for reference in numbered(wanted) {
        let Some(there) = hands.repo.tip(&reference)? else {
            return Ok((reference, None));
        };
        let there = hands.repo.raw_id(&there)?;
        if is_same(there).map_err(|error| hands.repo.unread(&reference, &error))? {
            return Ok((reference, Some(there)));
        }
    }
    Err(taken(wanted))
}

/// The ref, then those with the next numbers.
fn numbered(wanted: &str) -> impl Iterator<Item = String> {
    let parts = wanted.rsplit_once('/');
    let parts = parts.and_then(|(before, last)| Some((before, last.parse::<u32>().ok()?)));
    let next = parts.into_iter().flat_map(|(before, number)| {
        let next = (1..=NUMBERS_MAX).map(move |more| number.saturating_add(more));
        next.map(move |number| format!("{before}/{number}"))
    });
    std::iter::once(wanted.to_owned()).chain(next)
}

/// A worktree, and what the repository knows of it.
struct Place {
    worktree: PathBuf,
    /// Its git folder; none where the repository knows it no more.
    admin: Option<PathBuf>,
    /// The git folder, opened.
    raw: Option<Repository>,
    /// Its commit; none where nothing is committed, or the link to it is gone.
    head: Option<Oid>,
    /// The text of its link to the git folder, which is no content.
    link: Option<Vec<u8>>,
}

impl Place {
    fn of(hands: &Hands, work: &Salvage) -> Result<Self, GitError> {
        let worktree = PathBuf::from(&work.worktree);
        let own = worktree.join(".git");
        let leads = std::fs::canonicalize(&own).ok();
        if leads.is_some_and(|path| path == hands.repo.common) {
            let text = format!(
                "{} is the repository itself, no worktree",
                worktree.display()
            );
            return Err(GitError::Unfit(text));
        }
        let admin = entry_of(&hands.repo.common, &worktree)?;
        let raw = admin
            .as_deref()
            .and_then(|admin| Repository::open(admin).ok());
        let head = raw.as_ref().and_then(|raw| {
            let commit = raw.head().and_then(|head| head.peel_to_commit());
            commit.ok().map(|commit| commit.id())
        });
        let link = admin.as_deref().and_then(|admin| link_to(&own, admin));
        Ok(Self {
            worktree,
            admin,
            raw,
            head,
            link,
        })
    }

    fn ignored(&self, hands: &Hands, work: &Salvage) -> Result<Ignored, GitError> {
        Ignored::of(
            &hands.git,
            self.admin.as_deref(),
            &self.worktree,
            &work.ignored,
        )
    }

    fn pass(
        &self,
        repo: &Repo,
        ignored: &Ignored,
        pass: Pass,
        known: Option<&Found>,
    ) -> Result<(Oid, Found), GitError> {
        walk(
            repo,
            &self.worktree,
            ignored,
            self.link.clone(),
            pass,
            known,
        )
    }

    /// The repositories of its submodules, which git keeps in its git folder and which go with it; none
    /// where it has no submodules.
    fn modules(
        &self,
        repo: &Repo,
        pass: Pass,
        known: Option<&Found>,
    ) -> Result<Option<(Oid, Found)>, GitError> {
        let folder = self.admin.as_deref().map(|admin| admin.join("modules"));
        let folder = folder.filter(|folder| folder.is_dir());
        let found =
            folder.map(|folder| walk(repo, &folder, &Ignored::nothing(), None, pass, known));
        found.transpose()
    }
}

fn walk(
    repo: &Repo,
    root: &Path,
    ignored: &Ignored,
    link: Option<Vec<u8>>,
    pass: Pass,
    known: Option<&Found>,
) -> Result<(Oid, Found), GitError> {
    // Opened anew: nothing may come from what an earlier pass still holds in memory.
    let raw = Repo::open(&repo.path)?;
    let odb = raw.raw.odb();
    let mut content = Content {
        odb: odb.map_err(|error| repo.unread("its objects", &error))?,
        repo: &repo.path,
        objects: &repo.common.join("objects"),
        root,
        ignored,
        link,
        pass,
        found: Found::default(),
        known,
    };
    let tree = content.tree()?;
    Ok((tree, content.found))
}

/// The text of a link to this git folder; `None` for anything else.
fn link_to(own: &Path, admin: &Path) -> Option<Vec<u8>> {
    let meta = std::fs::symlink_metadata(own).ok()?;
    let text = std::fs::read(own).ok().filter(|_| meta.is_file())?;
    let leads = text.strip_prefix(b"gitdir: ")?;
    let leads = leads.strip_suffix(b"\n").unwrap_or(leads);
    let leads = std::fs::canonicalize(own.parent()?.join(folder::path(leads))).ok()?;
    (leads == std::fs::canonicalize(admin).ok()?).then_some(text)
}

/// What was written, before it has a ref.
struct Kept {
    tree: Oid,
    staged: Option<Oid>,
    modules: Option<(Oid, Found)>,
    commit: Oid,
    reference: String,
    found: Found,
    skipped: Vec<String>,
}

/// The commits around the tree; where the ref is there and holds the same, its commit.
fn write_commits(
    hands: &Hands,
    work: &Salvage,
    place: &Place,
    (tree, found): (Oid, Found),
    modules: Option<(Oid, Found)>,
) -> Result<Kept, GitError> {
    let mut skipped = found.skipped.clone();
    let mut staged = None;
    if let Some(raw) = &place.raw {
        let odb = hands.repo.raw.odb();
        match odb.and_then(|odb| staged::write(raw, &odb)) {
            Ok(written) => staged = differing(hands, place, tree, written)?,
            Err(error) if error.class() == git2::ErrorClass::Index => {
                skipped.push(format!("what is staged: {}", error.message()));
                skipped.truncate(PATHS_MAX);
            }
            Err(error) => return Err(unwritten(hands, "what is staged", &error)),
        }
    }
    let parts = [
        (STAGED, staged),
        (MODULES, modules.as_ref().map(|(tree, _)| *tree)),
    ];
    let is_same = |there| holds(&hands.repo.raw, there, tree, place.head, parts);
    let (reference, there) = free_ref(hands, &work.reference, is_same)?;
    let commit = match there {
        Some(there) => there,
        None => commit(hands, work, place, (tree, &found), staged, modules.as_ref())
            .map_err(|error| unwritten(hands, "the commit", &error))?,
    };
    Ok(Kept {
        reference,
        tree,
        staged,
        modules,
        commit,
        found,
        skipped,
    })
}

/// The staged tree, where neither the worktree nor the commit holds the same.
fn differing(
    hands: &Hands,
    place: &Place,
    tree: Oid,
    staged: Oid,
) -> Result<Option<Oid>, GitError> {
    let raw = &hands.repo.raw;
    let head = place.head.map(|head| raw.find_commit(head)).transpose();
    let head = head.map_err(|error| hands.repo.unread("the commit of the worktree", &error))?;
    let is_known = staged == tree || head.is_some_and(|head| head.tree_id() == staged);
    Ok((!is_known).then_some(staged))
}

fn unwritten(hands: &Hands, what: &str, error: &git2::Error) -> GitError {
    let objects = hands.repo.common.join("objects");
    content::unwritten(&hands.repo.path, &objects, Path::new(what), &[], error)
}

/// Whether a commit of salvage holds this.
fn holds(
    raw: &Repository,
    commit: Oid,
    tree: Oid,
    head: Option<Oid>,
    parts: [(&str, Option<Oid>); 2],
) -> Result<bool, git2::Error> {
    let commit = raw.find_commit(commit)?;
    let same_head = head.is_none_or(|head| commit.parent_ids().next() == Some(head));
    let same_parts = parts.iter().all(|(beginning, tree)| {
        let beginning = beginning.as_bytes();
        let mut parents = commit.parents();
        let part = parents.find(|parent| parent.message_bytes().starts_with(beginning));
        part.map(|part| part.tree_id()) == *tree
    });
    Ok(commit.tree_id() == tree && same_head && same_parts)
}

fn commit(
    hands: &Hands,
    work: &Salvage,
    place: &Place,
    (tree, found): (Oid, &Found),
    staged: Option<Oid>,
    modules: Option<&(Oid, Found)>,
) -> Result<Oid, git2::Error> {
    let raw = &hands.repo.raw;
    let who = hands.repo.identity();
    let now = Time::new(clock::wall_ms() / 1000, 0);
    let who = Signature::new(&who.name, &who.email, &now)?;
    let note: String = work
        .note
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let note = protocol::report::excerpt(&note, NOTE_MAX);
    let head = place.head.map(|head| raw.find_commit(head)).transpose()?;
    let below: Vec<_> = head.iter().collect();
    let mut parts = Vec::new();
    if let Some(staged) = staged {
        let tree = raw.find_tree(staged)?;
        let text = format!("{STAGED}{note}\n");
        parts.push(raw.commit(None, &who, &who, &text, &tree, &below)?);
    }
    if let Some((tree, found)) = modules {
        let tree = raw.find_tree(*tree)?;
        let text = format!("{MODULES}{note}\n\n{}\n", Modes::of(&found.modes).line());
        parts.push(raw.commit(None, &who, &who, &text, &tree, &[])?);
    }
    let parts = parts.into_iter().map(|part| raw.find_commit(part));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let parents: Vec<_> = below.into_iter().chain(&parts).collect();
    let text = format!("salvage: {note}\n\n{}\n", Modes::of(&found.modes).line());
    raw.commit(None, &who, &who, &text, &raw.find_tree(tree)?, &parents)
}

/// Everything once more, from the object store and from the worktree.
fn read_back(
    hands: &Hands,
    work: &Salvage,
    place: &Place,
    ignored: &Ignored,
    kept: &Kept,
) -> Result<(), GitError> {
    let (tree, found) = place.pass(&hands.repo, ignored, Pass::ReadBack, Some(&kept.found))?;
    let known = kept.modules.as_ref().map(|(_, found)| found);
    let modules = place.modules(&hands.repo, Pass::ReadBack, known)?;
    let now = Place::of(hands, work)?;
    let is_same = tree == kept.tree
        && modules == kept.modules
        && found == kept.found
        && now.head == place.head
        && ignored.agrees(&now.ignored(hands, work)?);
    if !is_same {
        let text = format!("{} changed while it was kept", place.worktree.display());
        return Err(GitError::Unfit(text));
    }
    let fresh = Repo::open(&hands.repo.path)?;
    let unread = |error: git2::Error| hands.repo.unread("what was kept", &error);
    let odb = fresh.raw.odb().map_err(unread)?;
    let commit = odb.read(kept.commit).map_err(unread)?;
    if commit.kind() != ObjectType::Commit {
        return Err(taken(&kept.reference));
    }
    match kept.staged {
        Some(staged) => staged::read_back(&fresh.raw, staged, place.head).map_err(unread),
        None => Ok(()),
    }
}
