//! Build output: what tools make or fetch again, and where they put it.

use serde::{Deserialize, Serialize};

/// A folder that a tool fills and can fill again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildFolder {
    /// Its name.
    pub name: &'static str,
    /// Which tool fills it, and how it is filled again.
    pub filled_by: &'static str,
}

/// Every folder that counts as build output where git ignores it. Names that people use for their own
/// files too (`build`, `dist`, `out`, `cache`) are not among them: a wrong one costs work, a missing
/// one costs room.
pub const BUILD_FOLDERS: &[BuildFolder] = &[
    folder("target", "cargo, Maven: the next build"),
    folder(
        "node_modules",
        "npm, pnpm, yarn: install, from the lock file",
    ),
    folder(".venv", "python -m venv, uv: from the requirements"),
    folder("venv", "python -m venv: from the requirements"),
    folder("__pycache__", "Python: the next import"),
    folder(".gradle", "Gradle: the next build"),
    folder(".tox", "tox: the next run"),
    folder(".next", "Next.js: the next build"),
    folder(".pytest_cache", "pytest: the next run"),
];

const fn folder(name: &'static str, filled_by: &'static str) -> BuildFolder {
    BuildFolder { name, filled_by }
}

/// The entry of the table for a folder of this name.
pub fn build_folder(name: &[u8]) -> Option<&'static BuildFolder> {
    let mut all = BUILD_FOLDERS.iter();
    all.find(|folder| folder.name.as_bytes() == name)
}

/// Most folders of one worktree that are named; what is beyond stays, and is found the next time.
pub const FOLDERS_MAX: usize = 512;

/// The build output of a worktree is measured, or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutput {
    /// The repository.
    pub repo: String,
    /// The worktree.
    pub worktree: String,
    /// Whether it goes; absent: it is only looked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
}

/// What of a worktree is build output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BuildOutputFound {
    /// What can go, or went: at most [`FOLDERS_MAX`], by path.
    pub folders: Vec<BuildOutputFolder>,
    /// What has the name of build output and stays: at most [`FOLDERS_MAX`], by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stays: Vec<BuildOutputStays>,
    /// Bytes of all that can go, or went, as they lie on the disk.
    pub bytes: u64,
    /// It went; absent: it was only looked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
}

/// One folder of build output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutputFolder {
    /// Its path in the worktree; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Bytes on the disk; files with a second name elsewhere do not count.
    pub bytes: u64,
    /// Files in it.
    pub files: u64,
}

/// A folder that has the name of build output, and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutputStays {
    /// Its path in the worktree.
    pub path: String,
    /// Why.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_build_output_as_a_whole_and_once() {
        for folder in BUILD_FOLDERS {
            let name = folder.name;
            assert_eq!(build_folder(name.as_bytes()), Some(folder));
            let same = BUILD_FOLDERS.iter().filter(|other| other.name == name);
            assert_eq!(same.count(), 1, "{name}");
            assert!(!name.contains('/') && !folder.filled_by.is_empty());
        }
        for other in ["build", "Target", "target2", "a/target", "", "dist", ".git"] {
            assert_eq!(build_folder(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_look_and_a_removal_are_told_apart_when_read_back() {
        for remove in [false, true] {
            let work = BuildOutput {
                repo: "/r".to_owned(),
                worktree: "/w".to_owned(),
                remove,
            };
            let text = serde_json::to_string(&work).unwrap();
            assert_eq!(text.contains("remove"), remove, "{text}");
            assert_eq!(serde_json::from_str::<BuildOutput>(&text).unwrap(), work);
            let found = BuildOutputFound {
                folders: vec![BuildOutputFolder {
                    path: "a/target".to_owned(),
                    bytes: 3,
                    files: 1,
                }],
                bytes: 3,
                removed: remove,
                ..BuildOutputFound::default()
            };
            let text = serde_json::to_string(&found).unwrap();
            assert_eq!(
                serde_json::from_str::<BuildOutputFound>(&text).unwrap(),
                found
            );
        }
    }
}
