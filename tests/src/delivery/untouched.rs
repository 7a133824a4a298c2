//! The operator's side of a repository: all that a batch must not change, byte for byte.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What of `.git` a batch may add to: objects, its own refs with their logs, and worktrees.
const OURS: [&str; 9] = [
    ".git/objects",
    ".git/refs/supervisor",
    ".git/refs/heads/supervisor",
    ".git/refs/heads/batch",
    ".git/logs/refs/supervisor",
    ".git/logs/refs/heads/supervisor",
    ".git/logs/refs/heads/batch",
    ".git/worktrees",
    // The pointer to the state directory.
    ".supervisor",
];

/// Each path with its kind, rights and content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side(BTreeMap<String, String>);

impl Side {
    /// That of the repository at this folder, now.
    ///
    /// # Panics
    /// When it can not be read.
    pub fn of(repo: &Path) -> Self {
        let mut found = BTreeMap::new();
        walk(repo, repo, &mut found);
        Self(found)
    }

    /// What differs in a later one, a line each.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut paths: Vec<&String> = self.0.keys().chain(later.0.keys()).collect();
        paths.sort();
        paths.dedup();
        paths
            .into_iter()
            .filter(|path| self.0.get(*path) != later.0.get(*path))
            .map(|path| {
                let (was, is) = (self.0.get(path), later.0.get(path));
                format!("the operator's {path} was {was:?} and is {is:?}")
            })
            .collect()
    }
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry of a folder").path();
        let name = path.strip_prefix(root).expect("below the root");
        let name = String::from_utf8_lossy(name.as_os_str().as_bytes()).into_owned();
        if OURS.contains(&name.as_str()) {
            continue;
        }
        let data = path.symlink_metadata().expect("an entry has data");
        if data.is_dir() {
            walk(root, &path, found);
            continue;
        }
        found.insert(name, content(&path, &data));
    }
}

fn content(path: &Path, data: &std::fs::Metadata) -> String {
    if data.is_symlink() {
        let target = std::fs::read_link(path).expect("a symlink has a target");
        return format!("-> {}", target.display());
    }
    let bytes = std::fs::read(path).expect("a file of the repository");
    let (mode, hash) = (data.permissions().mode(), crc32fast::hash(&bytes));
    format!("{mode:o} {} bytes {hash:08x}", bytes.len())
}

/// Every lock file below this folder.
///
/// # Panics
/// When a folder can not be read.
pub fn locks(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let entry = entry.expect("an entry of a folder");
            let path = entry.path();
            if entry.file_type().expect("a kind").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "lock") {
                found.push(format!("{} is left", path.display()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_one_right_and_one_name_are_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        std::fs::create_dir_all(folder.path().join(".git/objects")).expect("a folder");
        std::fs::write(&file, "1").expect("a file");
        let before = Side::of(folder.path());
        std::fs::write(folder.path().join(".git/objects/x"), "").expect("a file");
        assert_eq!(before, Side::of(folder.path()));
        std::fs::write(&file, "2").expect("a file");
        assert_eq!(before.differences(&Side::of(folder.path())).len(), 1);
        std::fs::write(&file, "1").expect("a file");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&file, mode).expect("rights");
        assert_eq!(before.differences(&Side::of(folder.path())).len(), 1);
        std::fs::write(folder.path().join(".git/HEAD.lock"), "").expect("a file");
        assert_eq!(before.differences(&Side::of(folder.path())).len(), 2);
        assert_eq!(locks(folder.path()).len(), 1);
    }
}
