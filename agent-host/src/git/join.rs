//! Two commits become one: the merge itself, made by `git merge-tree` among the objects.
//!
//! It is the merge of `git merge`, with renames and the operator's merge drivers, but no file, index or
//! ref changes: a kill leaves nothing, a conflict needs no way back, and the same two commits and
//! message make the same merge commit whenever it is done again.

use std::collections::BTreeMap;

use git2::ObjectType;
use protocol::git::{Candidate, Oid, PATHS_MAX};

use super::Hands;
use super::entries;
use super::error::GitError;
use super::markers::has_markers;
use super::worktree::Worktree;

/// Most bytes of a file that is looked at for markers, or for being a pointer to a large file
/// (16 MiB); what is larger is not text that anybody merges.
const TEXT_MAX: usize = 16 << 20;
/// How a pointer of git LFS begins.
const LFS: &[u8] = b"version https://git-lfs.github.com/spec/";

/// One of the up to three versions of a file that conflicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side {
    /// 1: base, 2: ours, 3: theirs.
    pub(super) stage: u8,
    /// Its mode.
    pub(super) mode: u32,
    /// Its object.
    pub(super) id: git2::Oid,
    /// Its path.
    pub(super) path: Vec<u8>,
}

/// What conflicts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Clash {
    /// Why, by the path.
    pub(super) kinds: BTreeMap<String, String>,
    /// The versions of each file.
    pub(super) sides: Vec<Side>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The tree of the two.
    Clean(Oid),
    /// They conflict.
    Clash(Clash),
}

/// Merges a commit into the one that the worktree is at: its attributes say how files are merged.
///
/// # Errors
/// When `git` can not merge them at all.
pub(super) fn join(
    hands: &Hands,
    there: &Worktree,
    tip: &Oid,
    commit: &Oid,
) -> Result<Joined, GitError> {
    let (ours, theirs) = (hands.repo.raw_id(tip)?, hands.repo.raw_id(commit)?);
    if hands.repo.raw.merge_base(ours, theirs).is_err() {
        let kinds = BTreeMap::from([(".".to_owned(), "unrelated histories".to_owned())]);
        let sides = Vec::new();
        return Ok(Joined::Clash(Clash { kinds, sides }));
    }
    let call = there.call(&hands.git).args(["merge-tree", "--write-tree"]);
    let call = call.args(["-z", "--messages", tip.as_str(), commit.as_str()]);
    let told = call.one_of(&[0, 1])?;
    let Some((tree, mut clash)) = read(&told.out) else {
        let text = format!("`git merge-tree` of {tip} and {commit} is not understood");
        return Err(GitError::Unfit(text));
    };
    if told.code == 0 {
        let marked = marked(hands, &tree, [tip, commit])?;
        if marked.is_empty() {
            return Ok(Joined::Clean(tree));
        }
        let kinds = marked.into_iter().map(|path| (path, "markers".to_owned()));
        clash.kinds = kinds.collect();
        return Ok(Joined::Clash(clash));
    }
    refine(hands, &mut clash);
    Ok(Joined::Clash(clash))
}

/// The answer: the tree, a list of versions, and messages, each part ended by an empty text.
fn read(out: &[u8]) -> Option<(Oid, Clash)> {
    let mut fields = out.split(|&byte| byte == 0);
    let tree = std::str::from_utf8(fields.next()?).ok()?;
    let tree = Oid::try_from(tree.to_owned()).ok()?;
    let mut clash = Clash::default();
    for field in fields.by_ref().take_while(|field| !field.is_empty()) {
        clash.sides.push(side(field)?);
    }
    // A file that had to make room for a folder: its name until then.
    let mut moved = BTreeMap::new();
    while let Some(count) = fields.next().filter(|count| !count.is_empty()) {
        let count: usize = std::str::from_utf8(count).ok()?.parse().ok()?;
        let paths: Vec<String> = fields.by_ref().take(count).map(shown).collect();
        let kind = shown(fields.next()?);
        fields.next()?;
        let Some(kind) = kind_of(&kind) else { continue };
        let path = match paths.as_slice() {
            [now, before] if kind == "file/directory" => {
                moved.insert(now.clone(), before.clone());
                before
            }
            [path, ..] => path,
            [] => continue,
        };
        let path = path.clone();
        clash.kinds.entry(path).or_insert_with(|| kind.to_owned());
    }
    for side in &clash.sides {
        let path = shown(&side.path);
        let path = moved.get(&path).unwrap_or(&path).clone();
        clash
            .kinds
            .entry(path)
            .or_insert_with(|| "contents".to_owned());
    }
    Some((tree, clash))
}

/// What `CONFLICT (KIND)` says; there are many of submodules. `None` for a message of no conflict.
fn kind_of(text: &str) -> Option<&str> {
    let kind = text.strip_prefix("CONFLICT (")?.strip_suffix(')')?;
    Some(match kind.starts_with("submodule") {
        true => "submodule",
        false => kind,
    })
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// `MODE OBJECT STAGE<tab>PATH`
fn side(field: &[u8]) -> Option<Side> {
    let tab = field.iter().position(|&byte| byte == b'\t')?;
    let mut words = std::str::from_utf8(&field[..tab]).ok()?.split(' ');
    Some(Side {
        mode: u32::from_str_radix(words.next()?, 8).ok()?,
        id: git2::Oid::from_str(words.next()?).ok()?,
        stage: words.next()?.parse().ok()?,
        path: field[tab + 1..].to_vec(),
    })
}

/// Says more of a conflict of contents where its versions tell more.
fn refine(hands: &Hands, clash: &mut Clash) {
    for (path, kind) in &mut clash.kinds {
        let named = |side: &&Side| String::from_utf8_lossy(&side.path) == path.as_str();
        let sides: Vec<&Side> = clash.sides.iter().filter(named).collect();
        if !matches!(kind.as_str(), "contents" | "binary") {
            continue;
        }
        if sides.iter().any(|side| side.mode == entries::LINK) {
            *kind = "symlink".to_owned();
        } else if sides.iter().any(|side| side.mode == entries::COMMIT) {
            *kind = "submodule".to_owned();
        } else if sides
            .iter()
            .any(|side| text(hands, side.id).starts_with(LFS))
        {
            *kind = "lfs pointer".to_owned();
        } else if kind == "contents" && sides.iter().all(|side| side.stage != 1) {
            *kind = "add/add".to_owned();
        }
    }
}

/// The content of a blob; empty where it is too large or not here.
fn text(hands: &Hands, id: git2::Oid) -> Vec<u8> {
    let read = hands
        .repo
        .raw
        .odb()
        .and_then(|odb| match odb.read_header(id)? {
            (size, ObjectType::Blob) if size <= TEXT_MAX => Ok(odb.read(id)?.data().to_vec()),
            _ => Ok(Vec::new()),
        });
    read.unwrap_or_default()
}

/// The files that hold markers of a conflict and differ from both parents, neither of which holds any
/// there; at most [`PATHS_MAX`].
///
/// # Errors
/// When a tree can not be read.
pub(super) fn marked(
    hands: &Hands,
    tree: &Oid,
    parents: [&Oid; 2],
) -> Result<Vec<String>, GitError> {
    let found = || -> Result<Vec<Vec<u8>>, GitError> {
        let unread = |error: git2::Error| hands.repo.unread(tree.as_str(), &error);
        let raw = &hands.repo.raw;
        let merged = raw.find_tree(hands.repo.raw_id(tree)?).map_err(unread)?;
        let mut both: Option<Vec<Vec<u8>>> = None;
        for parent in parents {
            let parent = raw.find_commit(hands.repo.raw_id(parent)?);
            let parent = parent.and_then(|parent| parent.tree()).map_err(unread)?;
            let diff = raw.diff_tree_to_tree(Some(&parent), Some(&merged), None);
            let diff = diff.map_err(unread)?;
            let marked = diff.deltas().filter(|delta| {
                let (old, new) = (delta.old_file(), delta.new_file());
                let is_file = matches!(u32::from(new.mode()), entries::FILE | entries::EXECUTABLE);
                let is_new = both.as_ref().is_none_or(|first| {
                    new.path_bytes()
                        .is_some_and(|path| first.iter().any(|one| one == path))
                });
                let has = |id| has_markers(text(hands, id).as_slice()).unwrap_or(false);
                is_file && is_new && has(new.id()) && !(old.exists() && has(old.id()))
            });
            let paths =
                marked.filter_map(|delta| delta.new_file().path_bytes().map(<[u8]>::to_vec));
            both = Some(paths.collect());
        }
        Ok(both.unwrap_or_default())
    };
    let shown = found()?.into_iter().take(PATHS_MAX);
    Ok(shown
        .map(|path| String::from_utf8_lossy(&path).into_owned())
        .collect())
}

/// Makes the merge commit of a tree. Its dates are those of the newer parent, so that it has the same
/// name whenever it is made.
///
/// # Errors
/// When it can not be written.
pub(super) fn commit(
    hands: &Hands,
    tree: &Oid,
    tip: &Oid,
    candidate: &Candidate,
) -> Result<Oid, GitError> {
    let mut seconds = 0;
    for parent in [tip, &candidate.commit] {
        let found = hands.repo.raw.find_commit(hands.repo.raw_id(parent)?);
        let found = found.map_err(|error| hands.repo.unread(parent.as_str(), &error))?;
        seconds = seconds.max(found.time().seconds());
    }
    let date = format!("@{seconds} +0000");
    let call = hands
        .git
        .at(&hands.repo.common)
        .set("i18n.commitEncoding=UTF-8");
    let call = call.args(["commit-tree", tree.as_str(), "-p", tip.as_str()]);
    let call = call.args(["-p", candidate.commit.as_str()]);
    let call = call.by(&hands.repo.identity());
    let call = call
        .env("GIT_AUTHOR_DATE", &date)
        .env("GIT_COMMITTER_DATE", &date);
    let mut message = candidate.message.trim_end().to_owned();
    message.push('\n');
    let name = call.input(message.into_bytes()).text()?;
    Oid::try_from(name).map_err(|error| GitError::Unfit(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_git_is_read() {
        let tree = "a".repeat(40);
        let mut out = format!("{tree}\0");
        for (stage, path) in [(1, "f"), (2, "f"), (3, "d~x")] {
            out.push_str(&format!("100644 {} {stage}\t{path}\0", "b".repeat(40)));
        }
        out.push('\0');
        out.push_str("1\0f\0Auto-merging\0Auto-merging f\n\0");
        out.push_str("1\0f\0CONFLICT (contents)\0CONFLICT (content): Merge conflict in f\n\0");
        out.push_str("2\0d~x\0d\0CONFLICT (file/directory)\0CONFLICT (file/directory): moved\n\0");
        let (found, clash) = read(out.as_bytes()).unwrap();
        assert_eq!(found.as_str(), tree);
        assert_eq!(
            clash
                .sides
                .iter()
                .map(|side| side.stage)
                .collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let kinds = [("d", "file/directory"), ("f", "contents")];
        let kinds = kinds.map(|(path, kind)| (path.to_owned(), kind.to_owned()));
        assert_eq!(clash.kinds, BTreeMap::from(kinds));
        assert_eq!(
            read(format!("{tree}\0").as_bytes()).unwrap().1,
            Clash::default()
        );
        assert_eq!(read(b"fatal"), None);
    }
}
