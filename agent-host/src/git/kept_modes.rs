//! The permissions that a tree can not hold, as a line of a commit message.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entries::{EXECUTABLE, FILE, FOLDER};

/// How the line begins.
const KEY: &str = "Supervisor-Modes: ";
/// Most files and folders that are named with permissions of their own; what is beyond has those of
/// most others.
const NAMED_MAX: usize = 65_536;

/// Permissions: those of most files and folders, and of each that differs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Modes {
    /// Of files, octal.
    file: String,
    /// Of files that may be executed.
    executable: String,
    /// Of folders.
    folder: String,
    /// By path; bytes that are no plain character are written as `%` and two digits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    other: BTreeMap<String, String>,
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            file: "644".to_owned(),
            executable: "755".to_owned(),
            folder: "755".to_owned(),
            other: BTreeMap::new(),
        }
    }
}

impl Modes {
    /// Of these paths, with their modes in the tree and their permissions.
    pub(super) fn of(found: &[(Vec<u8>, u32, u32)]) -> Self {
        let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
        for (_, mode, permissions) in found {
            *counts.entry((*mode, *permissions)).or_default() += 1;
        }
        let most = |wanted: u32, usual: u32| {
            let of_mode = counts.iter().filter(|((mode, _), _)| *mode == wanted);
            let most = of_mode.max_by_key(|(_, count)| **count);
            most.map_or(usual, |((_, permissions), _)| *permissions)
        };
        let (file, executable, folder) = (
            most(FILE, 0o644),
            most(EXECUTABLE, 0o755),
            most(FOLDER, 0o755),
        );
        let usual = |mode| match mode {
            FOLDER => folder,
            EXECUTABLE => executable,
            _ => file,
        };
        let differ = found
            .iter()
            .filter(|(_, mode, permissions)| usual(*mode) != *permissions);
        let other = differ
            .take(NAMED_MAX)
            .map(|(path, _, mode)| (plain(path), octal(*mode)));
        Self {
            file: octal(file),
            executable: octal(executable),
            folder: octal(folder),
            other: other.collect(),
        }
    }

    /// The line.
    pub(super) fn line(&self) -> String {
        // A map of texts has a JSON form.
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{KEY}{json}")
    }

    /// From a commit message; the usual ones where it holds no such line.
    pub(super) fn read(message: &str) -> Self {
        let line = message
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix(KEY));
        line.and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default()
    }

    /// The permissions of a path that has this mode in the tree.
    pub(super) fn get(&self, path: &[u8], mode: u32) -> u32 {
        let (usual, otherwise) = match mode {
            FOLDER => (&self.folder, 0o755),
            EXECUTABLE => (&self.executable, 0o755),
            _ => (&self.file, 0o644),
        };
        let text = self.other.get(&plain(path)).unwrap_or(usual);
        u32::from_str_radix(text, 8).map_or(otherwise, |mode| mode & 0o7777)
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:o}")
}

fn plain(path: &[u8]) -> String {
    let mut text = String::new();
    for &byte in path {
        match byte {
            b'%' => text.push_str("%25"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_come_back_and_only_rare_ones_are_named() {
        let mut found: Vec<_> = (0..9u8).map(|n| (vec![b'f', n + 1], FILE, 0o664)).collect();
        found.push((b"secret %\xff".to_vec(), FILE, 0o600));
        found.push((b"tool".to_vec(), EXECUTABLE, 0o4755));
        found.push((b"box".to_vec(), FOLDER, 0o500));
        let modes = Modes::of(&found);
        assert_eq!(modes.other.len(), 1, "{modes:?}");
        let message = format!("salvage: x\n\n{}\n", modes.line());
        assert_eq!(message.lines().count(), 3);
        let read = Modes::read(&message);
        for (path, mode, permissions) in &found {
            assert_eq!(read.get(path, *mode), *permissions, "{path:?}");
        }
        assert_eq!(Modes::read("of another program").get(b"a", FILE), 0o644);
    }
}
