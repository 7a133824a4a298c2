//! What is staged in a worktree, as a tree of its own.

use git2::{IndexEntry, ObjectType, Odb, Oid, Repository};

use super::entries::{self, Entry};

/// The stage of an entry, in its flags.
const STAGE_SHIFT: u16 = 12;
const STAGE_MASK: u16 = 3;
/// An entry that is only meant to be added, in its extended flags.
const INTENT_TO_ADD: u16 = 1 << 13;

/// One staged file: the names on its path, and what it is.
struct Staged {
    names: Vec<Vec<u8>>,
    mode: u32,
    id: Oid,
}

/// Writes the tree of what is staged. The sides of an unresolved conflict stand beside each other, as
/// `NAME.stage-1` (base), `-2` (ours) and `-3` (theirs).
///
/// # Errors
/// When the index can not be read, or the tree not be written.
pub(super) fn write(worktree: &Repository, odb: &Odb<'_>) -> Result<Oid, git2::Error> {
    let index = worktree.index()?;
    let mut files: Vec<Staged> = index.iter().filter_map(|entry| staged(&entry)).collect();
    files.sort_by(|a, b| a.names.cmp(&b.names));
    tree(odb, &files, 0)
}

fn staged(entry: &IndexEntry) -> Option<Staged> {
    if entry.flags_extended & INTENT_TO_ADD != 0 {
        return None;
    }
    let mut names: Vec<_> = entry
        .path
        .split(|&byte| byte == b'/')
        .map(<[u8]>::to_vec)
        .collect();
    let stage = (entry.flags >> STAGE_SHIFT) & STAGE_MASK;
    if stage > 0
        && let Some(last) = names.last_mut()
    {
        last.extend_from_slice(format!(".stage-{stage}").as_bytes());
    }
    Some(Staged {
        names,
        mode: entry.mode,
        id: entry.id,
    })
}

/// The tree of files that are sorted and share the first `depth` names.
fn tree(odb: &Odb<'_>, files: &[Staged], depth: usize) -> Result<Oid, git2::Error> {
    let mut children: Vec<Entry> = Vec::new();
    let groups = files.chunk_by(|a, b| a.names.get(depth) == b.names.get(depth));
    for group in groups {
        let inner = group.iter().position(|file| file.names.len() > depth + 1);
        // A file and a folder of one name are both sides of a conflict; the folder keeps the name.
        for file in group.iter().take(inner.unwrap_or(group.len())).take(1) {
            let mut name = file.names[depth].clone();
            if inner.is_some() {
                name.extend_from_slice(b".file");
            }
            let (mode, id) = (file.mode, file.id);
            children.push(Entry { name, mode, id });
        }
        if let Some(from) = inner {
            children.push(Entry {
                name: group[from].names[depth].clone(),
                mode: entries::FOLDER,
                id: tree(odb, &group[from..], depth + 1)?,
            });
        }
    }
    odb.write(ObjectType::Tree, &entries::encode(&mut children))
}

/// Reads back every staged file that the commit does not hold, and so proves its hash. Objects
/// of a repository that fetches them on demand may be absent; then the commit lacks them too.
///
/// # Errors
/// When one is damaged or missing.
pub(super) fn read_back(
    repo: &Repository,
    staged: Oid,
    head: Option<Oid>,
) -> Result<(), git2::Error> {
    let head = head
        .map(|head| repo.find_commit(head)?.tree())
        .transpose()?;
    let staged = repo.find_tree(staged)?;
    let diff = repo.diff_tree_to_tree(head.as_ref(), Some(&staged), None)?;
    let odb = repo.odb()?;
    for delta in diff.deltas() {
        let new = delta.new_file();
        if new.exists() && new.mode() != git2::FileMode::Commit {
            odb.read(new.id())?;
        }
    }
    Ok(())
}
