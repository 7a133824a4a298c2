//! Trees as bytes: entries in git's order, and names that git refuses under names that it takes.
//!
//! Salvage keeps files as they are called, so it writes trees by itself: libgit2's own builder
//! refuses some names, and a repository inside a worktree has a `.git`. Such a name is written as
//! [`KEPT`] and its bytes in hexadecimal digits, and is read back to what it was.

use std::cmp::Ordering;

use git2::Oid;

/// The mode of a folder in a tree.
pub(super) const FOLDER: u32 = 0o040_000;
/// The mode of a file.
pub(super) const FILE: u32 = 0o100_644;
/// The mode of a file that may be executed.
pub(super) const EXECUTABLE: u32 = 0o100_755;
/// The mode of a symbolic link; its content is the target.
pub(super) const LINK: u32 = 0o120_000;
/// The mode of a commit of another repository.
pub(super) const COMMIT: u32 = 0o160_000;

/// How a name begins that stands for another one.
const KEPT: &[u8] = b"supervisor-name-";

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its name in the tree.
    pub(super) name: Vec<u8>,
    /// Its mode.
    pub(super) mode: u32,
    /// Its object.
    pub(super) id: Oid,
}

/// A tree that can not be read: where it ends to make sense, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadTree(pub(super) usize);

/// The tree of these entries; they are sorted as git wants them.
pub(super) fn encode(entries: &mut [Entry]) -> Vec<u8> {
    entries.sort_by(order);
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend_from_slice(format!("{:o} ", entry.mode).as_bytes());
        bytes.extend_from_slice(&entry.name);
        bytes.push(0);
        bytes.extend_from_slice(entry.id.as_bytes());
    }
    bytes
}

/// A folder is sorted as if its name ended in a slash.
fn order(a: &Entry, b: &Entry) -> Ordering {
    let bytes = |entry: &Entry, at: usize| match entry.name.get(at) {
        Some(byte) => *byte,
        None if at == entry.name.len() && entry.mode == FOLDER => b'/',
        None => 0,
    };
    let shared = a.name.len().min(b.name.len());
    a.name[..shared]
        .cmp(&b.name[..shared])
        .then_with(|| bytes(a, shared).cmp(&bytes(b, shared)))
}

/// The entries of a tree whose object names have this many bytes.
pub(super) fn decode(bytes: &[u8], width: usize) -> Result<Vec<Entry>, BadTree> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (entry, length) = first(&bytes[at..], width).ok_or(BadTree(at))?;
        entries.push(entry);
        at += length;
    }
    Ok(entries)
}

fn first(bytes: &[u8], width: usize) -> Option<(Entry, usize)> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let mode = std::str::from_utf8(&bytes[..space]).ok()?;
    let end = space + bytes[space..].iter().position(|&byte| byte == 0)?;
    let id = bytes.get(end + 1..end + 1 + width)?;
    let entry = Entry {
        name: bytes[space + 1..end].to_vec(),
        mode: u32::from_str_radix(mode, 8).ok()?,
        id: Oid::from_bytes(id).ok()?,
    };
    Some((entry, end + 1 + width))
}

/// The name in the tree for one in a folder.
pub(super) fn kept_name(name: &[u8], mode: u32) -> Vec<u8> {
    if !is_refused(name, mode) && !name.starts_with(KEPT) {
        return name.to_vec();
    }
    let mut kept = KEPT.to_vec();
    for byte in name {
        kept.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    kept
}

/// The name in a folder for one in the tree; `None` for one that no folder can have.
pub(super) fn own_name(kept: &[u8]) -> Option<Vec<u8>> {
    let name = match kept.strip_prefix(KEPT) {
        None => kept.to_vec(),
        Some(digits) => {
            let pairs = digits.chunks(2).map(|pair| {
                let pair = std::str::from_utf8(pair)
                    .ok()
                    .filter(|pair| pair.len() == 2)?;
                u8::from_str_radix(pair, 16).ok()
            });
            pairs.collect::<Option<Vec<u8>>>()?
        }
    };
    let is_name = !matches!(name.as_slice(), b"" | b"." | b"..");
    (is_name && !name.iter().any(|byte| matches!(byte, 0 | b'/'))).then_some(name)
}

/// Whether git refuses the name in a tree, on this or another file system (one that ignores case,
/// cuts names, or drops characters). Some names that it takes are counted too: that costs a name that
/// is harder to read, and nothing else.
fn is_refused(name: &[u8], mode: u32) -> bool {
    let plain: Vec<u8> = name
        .iter()
        .filter(|byte| byte.is_ascii())
        .copied()
        .collect();
    let plain = plain.to_ascii_lowercase();
    let is_git = |rest: &[u8]| {
        let rest = rest
            .strip_prefix(b".git")
            .or_else(|| rest.strip_prefix(b"git~1"));
        rest.is_some_and(|rest| {
            let end = rest.iter().position(|byte| !matches!(byte, b' ' | b'.'));
            end.is_none_or(|end| matches!(rest[end], b'\\' | b':'))
        })
    };
    is_git(&plain)
        || plain.split(|&byte| byte == b'\\').skip(1).any(|part| part.starts_with(b".git") || part.starts_with(b"gi"))
        // Links in the place of git's own files are refused, also by their short names.
        || (mode == LINK && (plain.starts_with(b".git") || plain.starts_with(b"gi")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, mode: u32) -> Entry {
        let id = Oid::from_bytes(&[7; 20]).unwrap();
        let name = name.as_bytes().to_vec();
        Entry { name, mode, id }
    }

    #[test]
    fn names_that_git_refuses_are_kept_under_another() {
        for name in [
            ".git",
            ".GIT",
            "git~1",
            ".git ",
            ".git::$INDEX",
            "a\\.git",
            ".g\u{200c}it",
        ] {
            let kept = kept_name(name.as_bytes(), FILE);
            assert!(kept.starts_with(KEPT), "{name}");
            assert_eq!(own_name(&kept).unwrap(), name.as_bytes());
        }
        for name in [
            ".gitignore",
            ".gitmodules",
            "git",
            "a.git",
            "ünder",
            "-",
            "con",
        ] {
            assert_eq!(kept_name(name.as_bytes(), FILE), name.as_bytes());
        }
        assert_ne!(kept_name(b".gitmodules", LINK), b".gitmodules");
    }

    #[test]
    fn a_kept_name_that_leads_elsewhere_is_refused() {
        for bad in [
            "supervisor-name-2e2e",
            "supervisor-name-2f",
            "supervisor-name-",
            "..",
            "a/b",
            "supervisor-name-2",
        ] {
            assert_eq!(own_name(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn entries_are_in_the_order_of_git() {
        let mut entries = [
            entry("a", FOLDER),
            entry("a-b", FILE),
            entry("a.b", FILE),
            entry("a0", FILE),
        ];
        let bytes = encode(&mut entries);
        let names: Vec<_> = decode(&bytes, 20)
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, [&b"a-b"[..], b"a.b", b"a", b"a0"]);
        assert_eq!(
            decode(&bytes[..bytes.len() - 1], 20),
            Err(BadTree(bytes.len() - 30))
        );
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in proptest::collection::vec(any::<u8>().prop_filter("no name holds it", |byte| !matches!(byte, 0 | b'/')), 1..40), link: bool) {
            prop_assume!(name != b"." && name != b"..");
            let mode = if link { LINK } else { FILE };
            prop_assert_eq!(own_name(&kept_name(&name, mode)), Some(name));
        }
    }
}
