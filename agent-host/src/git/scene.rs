//! A repository with a worktree, for tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use protocol::git::{GitOutcome, GitWork, Oid};

use super::error::GitError;
use super::program::Git;
use super::repo::Repo;
use super::{Hands, perform};

/// A repository in a folder of its own.
pub(super) struct Scene {
    home: tempfile::TempDir,
    pub(super) git: Git,
}

impl Scene {
    /// A repository `repo` with one commit on `main`.
    pub(super) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let git = Git::find().unwrap();
        fs::create_dir(home.path().join("repo")).unwrap();
        let scene = Self { home, git };
        scene.git("repo", &["init", "-q", "-b", "main"]);
        scene.git("repo", &["config", "user.name", "A B"]);
        scene.git("repo", &["config", "user.email", "a@b"]);
        scene.write("repo/README", "first\n");
        scene.commit("repo", "first");
        scene
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    pub(super) fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    pub(super) fn write(&self, below: &str, content: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs `git`; what it printed.
    pub(super) fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let call = self.git.at(&self.path(folder)).args(arguments);
        call.text().unwrap()
    }

    /// Commits everything in a folder.
    pub(super) fn commit(&self, folder: &str, message: &str) -> Oid {
        self.git(folder, &["add", "-A"]);
        self.git(folder, &["commit", "-q", "--allow-empty", "-m", message]);
        self.tip(folder, "HEAD")
    }

    pub(super) fn tip(&self, folder: &str, name: &str) -> Oid {
        Oid::try_from(self.git(folder, &["rev-parse", name])).unwrap()
    }

    /// A worktree of `repo` on a branch of its own, at a commit.
    pub(super) fn worktree(&self, name: &str, at: &str) {
        let path = self.text(name);
        self.git("repo", &["worktree", "add", "-q", "-b", name, &path, at]);
    }

    pub(super) fn hands(&self) -> Hands {
        Hands {
            git: Git::find().unwrap(),
            repo: Repo::open(&self.path("repo")).unwrap(),
            folder: self.path("."),
            // Every lock of a story is older than what is done next.
            begun: SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33),
        }
    }

    pub(super) fn perform(&self, work: &GitWork) -> Result<GitOutcome, GitError> {
        perform(&self.hands(), work)
    }

    /// Whether `git fsck` finds nothing.
    pub(super) fn is_sound(&self) {
        let fsck = self.git.at(&self.path("repo"));
        let told = fsck
            .args(["fsck", "--full", "--no-dangling", "--no-progress"])
            .one_of(&[0]);
        let told = told.unwrap();
        let said = String::from_utf8_lossy(&told.err).into_owned();
        assert!(told.out.is_empty() && said.is_empty(), "{said}");
    }
}

/// Everything about a folder that must come back: paths, kinds, permissions, content.
pub(super) fn picture(folder: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(folder.join(&below)).unwrap() {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            let meta = entry.path().symlink_metadata().unwrap();
            let content = match () {
                () if meta.is_symlink() => {
                    let target = fs::read_link(entry.path()).unwrap();
                    target.as_os_str().as_bytes().to_vec()
                }
                () if meta.is_file() => fs::read(entry.path()).unwrap(),
                () => Vec::new(),
            };
            if meta.is_dir() {
                open.push(path.clone());
            }
            found.push((path, meta.mode(), content));
        }
    }
    found.sort();
    found
}
