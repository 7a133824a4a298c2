//! A merge that conflicts is left in the worktree for an agent, and what the agent made of it becomes
//! the merge commit.

use std::fs;
use std::path::Path;

use git2::Odb;
use protocol::git::{Conclude, Concluded, Conflict, Conflicted, GitOutcome, Oid, PATHS_MAX};

use super::error::GitError;
use super::join::{Clash, Joined, Side, commit, join, marked};
use super::worktree::Worktree;
use super::{Hands, checkout, entries, folder, restore, tree};

/// The index in which the resolution is gathered; the worktree's own stays as it is until then.
const INDEX: &str = "supervisor-conclude.index";
/// Most files of which versions are written; more are no work for one agent.
const FILES_MAX: usize = 10_000;

/// Leaves the conflict in the worktree.
///
/// # Errors
/// When a commit is not here, or the worktree or the packet can not be written.
pub(super) fn perform(hands: &Hands, work: &Conflict) -> Result<GitOutcome, GitError> {
    let Some(tip) = hands.repo.tip(&work.into)? else {
        return Err(GitError::Unfit(format!("there is no branch {}", work.into)));
    };
    let candidate = &work.candidate.commit;
    hands.repo.must_have(candidate)?;
    let there = checkout::put(hands, Path::new(&work.worktree), &tip)?;
    let clash = match hands.repo.reaches(&tip, candidate)? {
        true => Clash::default(),
        false => match join(hands, &there, &tip, candidate)? {
            Joined::Clean(_) => Clash::default(),
            Joined::Clash(clash) => clash,
        },
    };
    if !clash.kinds.is_empty() {
        leave(hands, &there, candidate, &work.candidate.message)?;
        write_packet(hands, &clash.sides, Path::new(&work.packet))?;
    }
    let files = clash.kinds.into_iter().take(PATHS_MAX).collect();
    Ok(GitOutcome::Conflicted(Conflicted { tip, files }))
}

fn leave(hands: &Hands, there: &Worktree, candidate: &Oid, message: &str) -> Result<(), GitError> {
    let call = there.call(&hands.git).by(&hands.repo.identity());
    let call = call
        .set("merge.conflictStyle=zdiff3")
        .set("merge.autoStash=false")
        .set("merge.verifySignatures=false")
        .set("merge.log=false");
    let call = call.args(["merge", "-q", "--no-ff", "--no-commit", "--no-stat"]);
    let call = call.args(["--allow-unrelated-histories", "-m", message]);
    call.args([candidate.as_str()]).one_of(&[0, 1])?;
    match there.admin.join("MERGE_HEAD").exists() {
        true => Ok(()),
        false => Err(GitError::Unfit(format!(
            "`git merge` of {candidate} left no conflict in {}",
            there.folder.display()
        ))),
    }
}

/// Writes the versions of each file aside, and puts them in place.
fn write_packet(hands: &Hands, sides: &[Side], packet: &Path) -> Result<(), GitError> {
    let mut aside = packet.as_os_str().to_owned();
    aside.push(".new");
    let aside = Path::new(&aside);
    tree::remove(aside)?;
    let odb = hands.repo.raw.odb();
    let odb = odb.map_err(|error| hands.repo.unread("its objects", &error))?;
    for name in ["base", "ours", "theirs"] {
        let folder = aside.join(name);
        fs::create_dir_all(&folder).map_err(GitError::file("make", &folder))?;
    }
    for side in sides.iter().take(FILES_MAX) {
        write_side(hands, &odb, side, aside)?;
    }
    tree::remove(packet)?;
    fs::rename(aside, packet).map_err(GitError::file("write", packet))
}

fn write_side(hands: &Hands, odb: &Odb<'_>, side: &Side, packet: &Path) -> Result<(), GitError> {
    let mut place = packet.join(match side.stage {
        1 => "base",
        2 => "ours",
        _ => "theirs",
    });
    for name in side.path.split(|&byte| byte == b'/') {
        let is_name = !matches!(name, b"" | b"." | b"..");
        if !is_name {
            let path = folder::path(&side.path);
            return Err(GitError::Unfit(format!(
                "{} is no path of a file",
                path.display()
            )));
        }
        place.push(folder::path(name));
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(GitError::file("make", parent))?;
    }
    let file = fs::File::create_new(&place);
    let mut file = file.map_err(GitError::file("write", &place))?;
    if side.mode == entries::COMMIT {
        let text = format!("Subproject commit {}\n", side.id);
        return fs::write(&place, text).map_err(GitError::file("write", &place));
    }
    // A link is written as the text of its target: nobody is led anywhere.
    restore::copy(hands, odb, side.id, &mut file, &place).map(drop)
}

/// Makes the merge commit of what is in the worktree.
///
/// # Errors
/// When the worktree is gone, or its content can not be committed.
pub(super) fn conclude(hands: &Hands, work: &Conclude) -> Result<GitOutcome, GitError> {
    let there = Worktree::get(hands, Path::new(&work.worktree))?;
    let (tip, candidate) = (&work.tip, &work.candidate.commit);
    let content = gather(hands, &there, tip)?;
    let markers = marked(hands, &content, [tip, candidate])?;
    if !markers.is_empty() || is_given_up(hands, &there, work, &content)? {
        let commit = None;
        return Ok(GitOutcome::Concluded(Concluded { commit, markers }));
    }
    let made = commit(hands, &content, tip, &work.candidate)?;
    checkout::put(hands, &there.folder, &made)?;
    Ok(GitOutcome::Concluded(Concluded {
        commit: Some(made),
        markers,
    }))
}

/// The tree of everything in the worktree.
fn gather(hands: &Hands, there: &Worktree, tip: &Oid) -> Result<Oid, GitError> {
    let index = there.admin.join(INDEX);
    let remove = || {
        let lock = there.admin.join(format!("{INDEX}.lock"));
        tree::remove(&index)?;
        tree::remove(&lock).map(drop)
    };
    remove()?;
    let call = || there.call(&hands.git).env("GIT_INDEX_FILE", &index);
    let own = there.admin.join("index");
    let copied = fs::copy(&own, &index).is_ok();
    let added = copied && call().args(["add", "-A"]).run().is_ok();
    if !added {
        // An index that can not be read: what the tip holds is known, the rest is looked at anew.
        remove()?;
        call().args(["read-tree", tip.as_str()]).run()?;
        call().args(["add", "-A"]).run()?;
    }
    let name = call().args(["write-tree"]).text()?;
    remove()?;
    Oid::try_from(name).map_err(|error| GitError::Unfit(error.to_string()))
}

/// Whether the merge was given up: it is under way no more, and what is there is one of the two sides
/// without the other. While it is under way, one side alone may be the resolution.
fn is_given_up(
    hands: &Hands,
    there: &Worktree,
    work: &Conclude,
    content: &Oid,
) -> Result<bool, GitError> {
    if there.admin.join("MERGE_HEAD").exists() {
        return Ok(false);
    }
    let call = there.call(&hands.git);
    let head = call.args(["rev-parse", "-q", "--verify", "HEAD^{commit}"]);
    let head = head.one_of(&[0, 1, 128])?.out;
    // A branch that has no commit yet, for instance: then nothing but the content speaks.
    let head = Oid::try_from(String::from_utf8_lossy(&head).trim().to_owned()).ok();
    let sides = [
        (&work.tip, &work.candidate.commit),
        (&work.candidate.commit, &work.tip),
    ];
    for (one, other) in sides {
        let tree = hands.repo.raw.find_commit(hands.repo.raw_id(one)?);
        let tree = tree.map_err(|error| hands.repo.unread(one.as_str(), &error))?;
        let is_alone = hands.repo.name(tree.tree_id())? == *content;
        let has_other = || match &head {
            Some(head) => hands.repo.reaches(head, other),
            None => Ok(false),
        };
        if is_alone && !has_other()? {
            return Ok(true);
        }
    }
    Ok(false)
}
