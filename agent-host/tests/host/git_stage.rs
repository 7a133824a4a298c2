//! A scratch repository with history, and git work done in it by the real program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use protocol::git::{
    Checkout, CommitWork, Committed, Freshness, GitOutcome, GitWork, Oid, Provision, Provisioned,
    Remove, Removed,
};
use serde_json::Value;
use tempfile::TempDir;

/// The batch branch of every story.
pub(crate) const INTO: &str = "refs/heads/batch";

/// A home with a repository `repo`, of a few commits.
pub(crate) struct Stage {
    pub(crate) home: TempDir,
    pub(crate) first: Oid,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut stage = Self {
            first: Oid::try_from("0".repeat(40)).unwrap(),
            home,
        };
        fs::create_dir(stage.path("repo")).unwrap();
        stage.git("repo", &["init", "-q", "-b", "main"]);
        stage.git("repo", &["config", "user.name", "Ada"]);
        stage.git("repo", &["config", "user.email", "ada@example.org"]);
        for number in 0..20 {
            stage.write(&format!("repo/src/file{number}.txt"), "a\nb\nc\n");
        }
        stage.write("repo/.gitignore", "*.log\n/.env\n");
        stage.save("repo", "begin");
        stage.first = stage.tip("repo", "HEAD");
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs `git` as an operator or an agent would; it must succeed.
    pub(crate) fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let output = self.try_git(folder, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    pub(crate) fn try_git(&self, folder: &str, arguments: &[&str]) -> Output {
        let mut git = Command::new("git");
        git.current_dir(self.path(folder)).args(arguments);
        self.surround(&mut git).output().unwrap()
    }

    fn surround<'a>(&self, program: &'a mut Command) -> &'a mut Command {
        program
            .env("HOME", self.home.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", "2020-01-01T00:00:00Z")
            .env("GIT_COMMITTER_DATE", "2020-01-01T00:00:00Z")
    }

    /// Commits all that is in a folder.
    pub(crate) fn save(&self, folder: &str, message: &str) -> Oid {
        self.git(folder, &["add", "-A"]);
        self.git(folder, &["commit", "-q", "-m", message]);
        self.tip(folder, "HEAD")
    }

    pub(crate) fn tip(&self, folder: &str, name: &str) -> Oid {
        Oid::try_from(self.git(folder, &["rev-parse", name])).unwrap()
    }

    /// Starts git work; `name` keeps works of one story apart.
    pub(crate) fn begin(&self, name: &str, work: &GitWork) -> Child {
        let (request, outcome) = self.files(name);
        fs::write(&request, serde_json::to_vec(work).unwrap()).unwrap();
        drop(fs::remove_file(&outcome));
        let mut program = Command::new(env!("CARGO_BIN_EXE_agent-host"));
        program.arg("git").args([&request, &outcome]);
        program.stdin(Stdio::null()).stdout(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut program, 0);
        self.surround(&mut program).spawn().unwrap()
    }

    fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let file = |end: &str| self.path(&format!("{name}.{end}.json"));
        (file("request"), file("outcome"))
    }

    /// What came of it: the outcome, or the class and text of the failure.
    pub(crate) fn outcome(&self, name: &str) -> Result<GitOutcome, (String, String)> {
        let text = fs::read_to_string(self.files(name).1).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        match value.get("done") {
            Some(done) => Ok(serde_json::from_value(done.clone()).unwrap()),
            None => {
                let text = |key: &str| value["failed"][key].as_str().unwrap().to_owned();
                Err((text("class"), text("message")))
            }
        }
    }

    pub(crate) fn perform(&self, work: &GitWork) -> Result<GitOutcome, (String, String)> {
        assert!(self.begin("work", work).wait().unwrap().success());
        self.outcome("work")
    }

    /// The provisioning of worktree `name`.
    pub(crate) fn provision(&self, name: &str) -> Provision {
        Provision {
            repo: self.text("repo"),
            worktree: self.text(name),
            branch: branch(name),
            into: INTO.to_owned(),
            pinned: self.first.clone(),
            needs: Vec::new(),
            made: None,
            kept: Vec::new(),
            freshness: Freshness::Ignore,
            watch: Some("refs/heads/main".to_owned()),
        }
    }

    pub(crate) fn provisioned(&self, work: Provision) -> Provisioned {
        match self.perform(&GitWork::Provision(work)) {
            Ok(GitOutcome::Provisioned(provisioned)) => provisioned,
            other => panic!("{other:?}"),
        }
    }

    /// The commit of what is in worktree `name`.
    pub(crate) fn commit(&self, name: &str) -> CommitWork {
        CommitWork {
            repo: self.text("repo"),
            worktree: self.text(name),
            branch: branch(name),
            base: self.first.clone(),
            message: "The work of a task".to_owned(),
            touches: None,
            outputs: Vec::new(),
            outputs_dir: String::new(),
        }
    }

    pub(crate) fn committed(&self, work: CommitWork) -> Committed {
        match self.perform(&GitWork::Commit(work)) {
            Ok(GitOutcome::Committed(committed)) => committed,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn check_out(&self, name: &str, commit: &Oid) {
        let work = GitWork::Checkout(Checkout {
            repo: self.text("repo"),
            worktree: self.text(name),
            commit: commit.clone(),
        });
        assert_eq!(self.perform(&work), Ok(GitOutcome::CheckedOut {}));
        let head = self.tip(name, "HEAD");
        assert_eq!(&head, commit);
        assert_eq!(self.git(name, &["status", "--porcelain"]), "");
    }

    /// The removal of worktree `name`.
    pub(crate) fn removal(&self, name: &str, kept: &Oid, kept_by: &str) -> GitWork {
        GitWork::Remove(Remove {
            repo: self.text("repo"),
            worktree: self.text(name),
            branch: Some(branch(name)),
            kept: kept.clone(),
            kept_by: kept_by.to_owned(),
        })
    }

    pub(crate) fn removed(&self, name: &str, kept: &Oid, kept_by: &str) -> Removed {
        match self.perform(&self.removal(name, kept, kept_by)) {
            Ok(GitOutcome::Removed(removed)) => removed,
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is broken, nothing is locked, and the operator's own folder is as it was.
    pub(crate) fn assert_whole(&self) {
        self.git("repo", &["fsck", "--full", "--strict", "--no-dangling"]);
        assert_eq!(self.git("repo", &["status", "--porcelain"]), "");
        assert_eq!(
            self.git("repo", &["symbolic-ref", "HEAD"]),
            "refs/heads/main"
        );
        let locks = locks_below(&self.path("repo/.git"));
        assert!(locks.is_empty(), "{locks:?}");
    }

    /// How many worktrees the repository knows, its own included.
    pub(crate) fn worktrees(&self) -> usize {
        let list = self.git("repo", &["worktree", "list", "--porcelain"]);
        list.lines()
            .filter(|line| line.starts_with("worktree "))
            .count()
    }
}

/// The branch of a worktree's task.
pub(crate) fn branch(name: &str) -> String {
    format!("refs/heads/task/{name}")
}

fn locks_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(locks_below(&path));
        } else if path.extension().is_some_and(|end| end == "lock") {
            found.push(path);
        }
    }
    found
}
