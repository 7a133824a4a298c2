//! The batch branch goes into the operator's branch, by the real program in real repositories.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::class::Class;
use protocol::git::{GIT_WORD, GitEnd, GitOutcome, GitWork, Oid};
use protocol::integrate::{Agreed, How, Integrate, IntegrateResult, Integrated};

const BATCH: &str = "refs/heads/batch/b-1";
const MAIN: &str = "refs/heads/main";

/// A repository with `main` checked out and a batch branch that began there.
struct Story {
    home: tempfile::TempDir,
    /// Folders before `PATH` of the program.
    path: Option<PathBuf>,
}

impl Story {
    /// `main` has `a`, `b` and the folder `d`; the batch branch changes `a` and adds `new` and `d/new`.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let story = Self { home, path: None };
        fs::create_dir(story.repo()).unwrap();
        story.git(&["init", "-q", "-b", "main"]);
        story.git(&["config", "user.name", "Olga"]);
        story.git(&["config", "user.email", "olga@example.org"]);
        story.git(&["config", "commit.gpgSign", "false"]);
        story.commit(&[("a", "one\n"), ("b", "one\n"), ("d/x", "x\n")]);
        story.git(&["checkout", "-q", "-b", "batch/b-1"]);
        story.commit(&[("a", "two\n"), ("new", "new\n")]);
        story.commit(&[("d/new", "new\n")]);
        story.git(&["checkout", "-q", "main"]);
        story
    }

    /// As [`Story::new`], and `main` has a commit of its own.
    fn parted(file: &str, text: &str) -> Self {
        let story = Self::new();
        story.commit(&[(file, text)]);
        story
    }

    fn repo(&self) -> PathBuf {
        self.home.path().join("repo")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.repo().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.file(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn script(&self, path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    fn hook(&self, name: &str, text: &str) {
        self.script(&self.file(".git/hooks").join(name), text);
    }

    fn commit(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.write(name, text);
        }
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--no-verify", "-m", files[0].0]);
    }

    fn git(&self, args: &[&str]) -> String {
        let told = Command::new("git")
            .args(args)
            .current_dir(self.repo())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "git {args:?}: {said}");
        String::from_utf8(told.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    fn at(&self, reference: &str) -> Oid {
        Oid::try_from(self.git(&["rev-parse", reference])).unwrap()
    }

    fn work(&self, how: How) -> Integrate {
        Integrate {
            repo: self.repo().display().to_string(),
            from: BATCH.to_owned(),
            into: MAIN.to_owned(),
            how,
            dry_run: false,
            agreed: None,
            message: "integrate b-1".to_owned(),
            title: "b-1".to_owned(),
            body: "two tasks\n".to_owned(),
        }
    }

    fn end(&self, work: Integrate) -> GitEnd {
        let room = tempfile::tempdir_in(self.home.path()).unwrap();
        let [request, outcome] = ["request", "outcome"].map(|name| room.path().join(name));
        let work = GitWork::Integrate(Box::new(work));
        fs::write(&request, serde_json::to_vec(&work).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-host"));
        command.arg(GIT_WORD).arg(&request).arg(&outcome);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null");
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        assert!(command.status().unwrap().success());
        serde_json::from_slice(&fs::read(outcome).unwrap()).unwrap()
    }

    fn integrate(&self, work: Integrate) -> Integrated {
        match self.end(work) {
            GitEnd::Done(GitOutcome::Integrated(done)) => *done,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self, work: Integrate) -> (String, String) {
        let before = self.bytes();
        let done = self.integrate(work);
        assert_eq!(
            self.bytes(),
            before,
            "a refusal leaves everything as it was"
        );
        match done.result {
            IntegrateResult::Refused { why, way_out } => (why, way_out),
            other => panic!("{other:?}"),
        }
    }

    /// Every file of the repository, its working tree and index included, and of every folder of it.
    fn bytes(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut waiting = vec![self.repo()];
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                match fs::symlink_metadata(&path).unwrap().is_dir() {
                    true => waiting.push(path),
                    false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        found
    }

    /// `PATH` with `git` and what it needs, and `gh` only where `script` is given.
    fn with_gh(mut self, script: Option<&str>) -> Self {
        let bin = self.home.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name() != "gh" {
                    // The first of a name wins, as it does in PATH.
                    drop(std::os::unix::fs::symlink(
                        entry.path(),
                        bin.join(entry.file_name()),
                    ));
                }
            }
        }
        if let Some(script) = script {
            self.script(&bin.join("gh"), script);
        }
        self.path = Some(bin);
        self
    }

    fn with_remote(self) -> Self {
        let remote = self.home.path().join("remote.git");
        self.git(&["init", "-q", "--bare", remote.to_str().unwrap()]);
        self.git(&["remote", "add", "origin", remote.to_str().unwrap()]);
        self.git(&["push", "-q", "origin", "main"]);
        self
    }

    fn remote_at(&self, reference: &str) -> String {
        let told = self.git(&["ls-remote", "origin", reference]);
        told.split('\t').next().unwrap_or_default().to_owned()
    }
}

#[test]
fn what_will_be_done_is_told_and_nothing_is_touched() {
    let story = Story::parted("c", "main's own\n");
    story.hook("post-merge", "exit 0");
    story.hook("pre-push", "exit 0");
    let before = story.bytes();
    let mut work = story.work(How::Either);
    work.dry_run = true;
    let done = story.integrate(work);
    assert_eq!(story.bytes(), before);
    assert_eq!(done.result, IntegrateResult::Planned {});
    let plan = done.plan;
    assert_eq!((plan.from, plan.into), (story.at(BATCH), story.at(MAIN)));
    assert_eq!((plan.how, plan.fast_forward), (How::Merge, false));
    assert_eq!((plan.commits, plan.files), (2, 3));
    assert_eq!(plan.paths, ["a", "d/new", "new"]);
    assert_eq!(plan.conflicts, [""; 0]);
    assert_eq!(plan.hooks, ["post-merge"]);
    let repo = story.repo().canonicalize().unwrap();
    assert_eq!(plan.checked_out, Some(repo.display().to_string()));
}

#[test]
fn a_fast_forward_moves_branch_and_working_tree_and_runs_the_operators_hook() {
    let story = Story::new();
    story.hook("post-merge", "echo ran > ../hook-ran");
    story.write("untracked", "stays\n");
    let done = story.integrate(story.work(How::Either));
    let commit = story.at(BATCH);
    assert!(done.plan.fast_forward);
    assert_eq!(
        done.result,
        IntegrateResult::FastForwarded {
            commit: commit.clone()
        }
    );
    assert_eq!(story.at("HEAD"), commit);
    assert_eq!(story.git(&["symbolic-ref", "HEAD"]), MAIN);
    assert_eq!(fs::read_to_string(story.file("a")).unwrap(), "two\n");
    assert_eq!(story.git(&["status", "--porcelain"]), "?? untracked");
    assert!(story.home.path().join("hook-ran").exists());
    let again = story.integrate(story.work(How::Either));
    assert_eq!(again.result, IntegrateResult::Contained {});
}

#[test]
fn a_merge_is_a_commit_of_both_made_by_the_operators_git() {
    let story = Story::parted("b", "main's own\n");
    story.hook("commit-msg", "echo 'Seen-by: hook' >> \"$1\"");
    let (into, from) = (story.at(MAIN), story.at(BATCH));
    let done = story.integrate(story.work(How::Either));
    let commit = story.at(MAIN);
    assert_eq!(done.result, IntegrateResult::Merged { commit });
    let parents = story.git(&["log", "-1", "--format=%P", "main"]);
    assert_eq!(parents, format!("{into} {from}"));
    let message = story.git(&["log", "-1", "--format=%an: %B", "main"]);
    assert!(message.starts_with("Olga: integrate b-1"), "{message}");
    assert!(message.contains("Seen-by: hook"), "{message}");
    assert_eq!(story.git(&["status", "--porcelain"]), "");
    assert_eq!(fs::read_to_string(story.file("b")).unwrap(), "main's own\n");
    assert_eq!(fs::read_to_string(story.file("d/new")).unwrap(), "new\n");
}

#[test]
fn a_fast_forward_may_be_a_merge_commit_and_never_the_other_way_round() {
    let story = Story::new();
    let done = story.integrate(story.work(How::Merge));
    assert!(matches!(done.result, IntegrateResult::Merged { .. }));
    assert_eq!(story.git(&["rev-list", "--count", "--merges", "main"]), "1");
    let story = Story::parted("c", "c\n");
    let (why, way_out) = story.refused(story.work(How::FastForward));
    assert!(why.contains("main has commits of its own"), "{why}");
    assert!(way_out.contains("--merge"), "{way_out}");
}

#[test]
fn a_conflict_leaves_branch_index_and_working_tree_byte_identical() {
    let story = Story::parted("a", "three\n");
    for dry_run in [true, false] {
        let before = story.bytes();
        let mut work = story.work(How::Merge);
        work.dry_run = dry_run;
        let done = story.integrate(work);
        assert_eq!(done.result, IntegrateResult::Conflict {});
        assert_eq!(done.plan.conflicts, ["a"]);
        assert_eq!(story.bytes(), before);
    }
    story.git(&["checkout", "-q", "--detach"]);
    let before = story.bytes();
    let done = story.integrate(story.work(How::Merge));
    assert_eq!(done.result, IntegrateResult::Conflict {});
    assert_eq!(
        story.bytes(),
        before,
        "the same where it is checked out nowhere"
    );
}

#[test]
fn uncommitted_changes_refuse_it_and_say_the_way_out() {
    for staged in [false, true] {
        let story = Story::new();
        story.write("b", "work under way\n");
        if staged {
            story.git(&["add", "b"]);
        }
        let (why, way_out) = story.refused(story.work(How::Either));
        assert!(why.ends_with("has uncommitted changes: b"), "{why}");
        assert!(
            way_out.contains("stash") && way_out.contains("--into"),
            "{way_out}"
        );
    }
}

#[test]
fn no_file_that_git_does_not_track_is_overwritten() {
    for name in ["new", "d/new"] {
        let story = Story::new();
        story.write(name, "precious\n");
        let (why, _) = story.refused(story.work(How::Either));
        assert!(
            why.ends_with(&format!("would be overwritten: {name}")),
            "{why}"
        );
    }
    let story = Story::new();
    story.write(".git/info/exclude", "new\n");
    story.write("new", "ignored, and precious\n");
    let (why, _) = story.refused(story.work(How::Either));
    assert!(why.ends_with("would be overwritten: new"), "{why}");
    fs::remove_file(story.file("new")).unwrap();
    story.write("new/inner", "a folder where a file is to come\n");
    let (why, _) = story.refused(story.work(How::Either));
    assert!(why.ends_with("would be overwritten: new"), "{why}");
}

#[test]
fn a_tracked_file_may_become_a_folder_and_a_folder_a_file() {
    let story = Story::new();
    story.git(&["checkout", "-q", "batch/b-1"]);
    fs::remove_file(story.file("b")).unwrap();
    fs::remove_dir_all(story.file("d")).unwrap();
    story.commit(&[("b/deep/er", "b\n"), ("d", "d\n")]);
    story.git(&["checkout", "-q", "main"]);
    story.write("d/kept", "not tracked\n");
    let (why, _) = story.refused(story.work(How::Either));
    assert!(why.ends_with("would be overwritten: d"), "{why}");
    fs::remove_file(story.file("d/kept")).unwrap();
    let done = story.integrate(story.work(How::Either));
    assert!(matches!(done.result, IntegrateResult::FastForwarded { .. }));
    assert_eq!(fs::read_to_string(story.file("b/deep/er")).unwrap(), "b\n");
    assert_eq!(fs::read_to_string(story.file("d")).unwrap(), "d\n");
}

#[test]
fn a_branch_that_is_checked_out_nowhere_moves_without_a_trace_in_the_working_tree() {
    let story = Story::parted("c", "c\n");
    story.git(&["branch", "next", "main~1"]);
    story.write("b", "work under way\n");
    story.hook("post-merge", "echo ran > ../hook-ran");
    let tree = |story: &Story| {
        let all = story.bytes().into_iter();
        let index = story.file(".git/index");
        let kept = all.filter(|(path, _)| *path == index || !path.starts_with(story.file(".git")));
        kept.collect::<BTreeMap<_, _>>()
    };
    let before = tree(&story);
    let mut work = story.work(How::Either);
    work.into = "refs/heads/next".to_owned();
    let done = story.integrate(work);
    let commit = story.at(BATCH);
    assert_eq!((done.plan.checked_out, done.plan.hooks), (None, Vec::new()));
    assert_eq!(
        done.result,
        IntegrateResult::FastForwarded {
            commit: commit.clone()
        }
    );
    assert_eq!(story.at("next"), commit);
    story.git(&["branch", "-f", "next", "main"]);
    let mut work = story.work(How::Merge);
    work.into = "refs/heads/next".to_owned();
    let done = story.integrate(work);
    let merged = story.at("next");
    assert_eq!(done.result, IntegrateResult::Merged { commit: merged });
    let parents = story.git(&["log", "-1", "--format=%P %an %s", "next"]);
    assert_eq!(
        parents,
        format!("{} {commit} Olga integrate b-1", story.at(MAIN))
    );
    assert_eq!(story.git(&["show", "next:c"]), "c");
    assert_eq!(story.git(&["show", "next:a"]), "two");
    assert_eq!(tree(&story), before);
    assert!(!story.home.path().join("hook-ran").exists());
    story.git(&["fsck", "--strict"]);
}

#[test]
fn a_branch_in_another_worktree_of_the_operator_is_taken_on_there() {
    let story = Story::new();
    let other = story.home.path().join("other");
    story.git(&["checkout", "-q", "--detach"]);
    story.git(&["worktree", "add", "-q", other.to_str().unwrap(), "main"]);
    fs::write(other.join("b"), "work under way\n").unwrap();
    let (why, _) = story.refused(story.work(How::Either));
    assert!(why.contains("other has uncommitted changes: b"), "{why}");
    fs::write(other.join("b"), "one\n").unwrap();
    let done = story.integrate(story.work(How::Either));
    assert!(matches!(done.result, IntegrateResult::FastForwarded { .. }));
    assert_eq!(fs::read_to_string(other.join("a")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(story.file("a")).unwrap(), "one\n");
    fs::remove_dir_all(&other).unwrap();
    story.git(&["branch", "-f", "batch/b-1", "batch/b-1"]);
    story.git(&["update-ref", MAIN, "main~1"]);
    let (why, way_out) = story.refused(story.work(How::Either));
    assert!(why.contains("which is gone"), "{why}");
    assert!(way_out.contains("prune"), "{way_out}");
}

#[test]
fn what_is_under_way_in_the_working_tree_is_not_disturbed() {
    let story = Story::parted("a", "three\n");
    story.git(&["checkout", "-q", "-b", "topic", "main~1"]);
    story.commit(&[("a", "four\n")]);
    let rebase = Command::new("git")
        .args(["rebase", "-q", "main"])
        .current_dir(story.repo())
        .output();
    assert!(!rebase.unwrap().status.success(), "it is to conflict");
    let mut work = story.work(How::Either);
    work.into = "refs/heads/topic".to_owned();
    work.from = "refs/heads/ahead".to_owned();
    story.git(&["branch", "ahead", "topic"]);
    story.git(&["update-ref", "refs/heads/topic", "topic~1"]);
    let (why, _) = story.refused(work);
    assert!(why.contains("topic is being rebased"), "{why}");
    story.git(&["rebase", "--abort"]);
    story.git(&["checkout", "-q", "-f", "main"]);
    story.write(".git/MERGE_HEAD", &format!("{}\n", story.at("ahead")));
    story.git(&["update-ref", MAIN, "main~1"]);
    let (why, _) = story.refused(story.work(How::Either));
    assert!(
        why.contains("a merge, rebase or the like is under way"),
        "{why}"
    );
    fs::remove_file(story.file(".git/MERGE_HEAD")).unwrap();
    story.write(".git/index.lock", "");
    let (why, _) = story.refused(story.work(How::Either));
    assert!(why.contains("index.lock is there"), "{why}");
}

#[test]
fn a_hook_that_says_no_is_heard_and_the_merge_is_given_up() {
    let story = Story::parted("b", "main's own\n");
    story.hook("pre-merge-commit", "echo 'not on a Friday' >&2; exit 1");
    let before = story.at(MAIN);
    let done = story.integrate(story.work(How::Merge));
    let IntegrateResult::Refused { why, .. } = done.result else {
        panic!("{:?}", done.result);
    };
    assert!(why.contains("not on a Friday"), "{why}");
    assert_eq!(story.at(MAIN), before);
    assert_eq!(story.git(&["status", "--porcelain"]), "");
    assert!(!story.file(".git/MERGE_HEAD").exists());
    assert!(!story.file("new").exists());
}

#[test]
fn only_what_was_shown_is_done() {
    let story = Story::new();
    let agreed = Agreed {
        from: story.at(BATCH),
        into: story.at(MAIN),
    };
    story.commit(&[("c", "meanwhile\n")]);
    let mut work = story.work(How::Either);
    work.agreed = Some(agreed);
    let (why, way_out) = story.refused(work);
    assert!(why.starts_with("main was at"), "{why}");
    assert!(way_out.starts_with("look again"), "{way_out}");
}

#[test]
fn branches_without_a_common_commit_do_not_merge() {
    let story = Story::new();
    story.git(&["checkout", "-q", "--orphan", "other"]);
    story.commit(&[("o", "o\n")]);
    story.git(&["checkout", "-q", "main"]);
    let mut work = story.work(How::Merge);
    work.from = "refs/heads/other".to_owned();
    let (why, _) = story.refused(work);
    assert!(why.contains("no commit in common"), "{why}");
}

#[test]
fn a_missing_branch_is_named() {
    let story = Story::new();
    let mut work = story.work(How::Either);
    work.into = "refs/heads/nowhere".to_owned();
    let GitEnd::Failed { message, .. } = story.end(work) else {
        panic!("there is no such branch");
    };
    assert!(
        message.ends_with("has no branch refs/heads/nowhere"),
        "{message}"
    );
}

#[test]
fn what_the_operator_signs_is_signed() {
    let story = Story::parted("c", "c\n");
    let gpg = story.home.path().join("gpg");
    story.script(
        &gpg,
        "cat > /dev/null; echo '[GNUPG:] SIG_CREATED ' >&2; echo '-----BEGIN PGP SIGNATURE-----'",
    );
    story.git(&["config", "gpg.program", gpg.to_str().unwrap()]);
    story.git(&["config", "commit.gpgSign", "true"]);
    story.git(&["branch", "next"]);
    for into in [MAIN, "refs/heads/next"] {
        let mut work = story.work(How::Merge);
        work.into = into.to_owned();
        let done = story.integrate(work);
        assert!(done.plan.signs);
        assert!(
            matches!(done.result, IntegrateResult::Merged { .. }),
            "{:?}",
            done.result
        );
        let commit = story.git(&["cat-file", "commit", into]);
        assert!(commit.contains("BEGIN PGP SIGNATURE"), "{into}: {commit}");
    }
    story.script(&gpg, "echo 'no key' >&2; exit 1");
    story.commit_unsigned();
    let before = story.at(MAIN);
    let done = story.integrate(story.work(How::Merge));
    assert!(
        matches!(done.result, IntegrateResult::Refused { .. }),
        "{:?}",
        done.result
    );
    assert_eq!(story.at(MAIN), before);
    assert_eq!(story.git(&["status", "--porcelain"]), "");
}

impl Story {
    /// One more commit of the batch.
    fn commit_unsigned(&self) {
        let tree = self.git(&["rev-parse", "batch/b-1~2^{tree}"]);
        let commit = self.git(&["commit-tree", &tree, "-p", "batch/b-1", "-m", "more"]);
        self.git(&["update-ref", BATCH, &commit]);
    }
}

#[test]
fn a_merge_driver_of_the_operator_decides_as_it_does_for_git_merge() {
    let story = Story::parted("a", "three\n");
    story.git(&["config", "merge.ours.driver", "true"]);
    story.commit(&[(".gitattributes", "a merge=ours\n")]);
    story.git(&["branch", "next"]);
    for into in [MAIN, "refs/heads/next"] {
        let mut work = story.work(How::Merge);
        work.into = into.to_owned();
        let done = story.integrate(work);
        assert!(
            matches!(done.result, IntegrateResult::Merged { .. }),
            "{:?}",
            done.result
        );
        assert_eq!(story.git(&["show", &format!("{into}:a")]), "three");
    }
    // Attributes are those of the branch, also where another one is checked out.
    let story = Story::parted("a", "three\n");
    story.git(&["config", "merge.ours.driver", "true"]);
    story.git(&["checkout", "-q", "-b", "next"]);
    story.commit(&[(".gitattributes", "a merge=ours\n")]);
    story.git(&["checkout", "-q", "main"]);
    let mut work = story.work(How::Merge);
    work.into = "refs/heads/next".to_owned();
    assert!(matches!(
        story.integrate(work).result,
        IntegrateResult::Merged { .. }
    ));
}

const GH: &str = "printf '%s\\n' \"$@\" > \"$(dirname \"$0\")/../gh-args\"
echo 'Creating pull request' >&2
echo https://github.example/o/n/pull/7";

#[test]
fn a_pull_request_pushes_the_batch_branch_and_tells_its_address() {
    let story = Story::new().with_remote().with_gh(Some(GH));
    let before = story.at(MAIN);
    let mut look = story.work(How::PullRequest);
    look.dry_run = true;
    let done = story.integrate(look);
    assert_eq!(done.result, IntegrateResult::Planned {});
    assert_eq!(done.plan.remote.unwrap().name, "origin");
    assert_eq!(story.remote_at(BATCH), "", "nothing is pushed to look");
    let done = story.integrate(story.work(How::PullRequest));
    let IntegrateResult::PullRequest { url, existed } = done.result else {
        panic!("{:?}", done.result);
    };
    assert_eq!(
        (url.as_str(), existed),
        ("https://github.example/o/n/pull/7", false)
    );
    assert_eq!(story.remote_at(BATCH), story.at(BATCH).to_string());
    assert_eq!(story.at(MAIN), before, "no branch of the operator moves");
    let args = fs::read_to_string(story.home.path().join("gh-args")).unwrap();
    let expected =
        "pr\ncreate\n--head\nbatch/b-1\n--base\nmain\n--title\nb-1\n--body\ntwo tasks\n\n";
    assert_eq!(args, expected);
}

#[test]
fn a_pull_request_goes_to_the_remote_of_the_branch() {
    let story = Story::new().with_remote().with_gh(Some(GH));
    story.git(&["remote", "rename", "origin", "work"]);
    story.git(&["push", "-q", "work", "main:develop"]);
    story.git(&["fetch", "-q", "work"]);
    story.git(&["branch", "-q", "--set-upstream-to", "work/develop", "main"]);
    let done = story.integrate(story.work(How::PullRequest));
    let remote = done.plan.remote.unwrap();
    assert_eq!(
        (remote.name.as_str(), remote.base.as_str()),
        ("work", "develop")
    );
    assert!(matches!(done.result, IntegrateResult::PullRequest { .. }));
}

#[test]
fn a_pull_request_that_is_there_is_told_and_not_made_twice() {
    let there =
        "echo 'a pull request for branch \"batch/b-1\" into branch \"main\" already exists:' >&2
echo https://github.example/o/n/pull/3 >&2
exit 1";
    let story = Story::new().with_remote().with_gh(Some(there));
    let done = story.integrate(story.work(How::PullRequest));
    let IntegrateResult::PullRequest { url, existed } = done.result else {
        panic!("{:?}", done.result);
    };
    assert_eq!(
        (url.as_str(), existed),
        ("https://github.example/o/n/pull/3", true)
    );
}

#[test]
fn what_a_pull_request_lacks_is_named_before_anything_is_pushed() {
    let story = Story::new().with_remote().with_gh(None);
    let GitEnd::Failed { class, message } = story.end(story.work(How::PullRequest)) else {
        panic!("there is no gh");
    };
    assert_eq!(class, Class::Environment);
    assert!(message.contains("needs the program `gh`"), "{message}");
    assert_eq!(story.remote_at(BATCH), "");
    let story = Story::new().with_gh(Some(GH));
    let (why, way_out) = story.refused(story.work(How::PullRequest));
    assert!(why.contains("has no remote `origin`"), "{why}");
    assert!(way_out.contains("git remote add origin"), "{way_out}");
}

#[test]
fn a_branch_of_that_name_at_the_remote_is_never_overwritten() {
    let story = Story::new().with_remote().with_gh(Some(GH));
    story.git(&["push", "-q", "origin", "main:refs/heads/other"]);
    story.commit(&[("c", "somebody else's\n")]);
    story.git(&["push", "-q", "origin", &format!("main:{BATCH}")]);
    story.git(&["reset", "-q", "--hard", "main~1"]);
    let there = story.remote_at(BATCH);
    let done = story.integrate(story.work(How::PullRequest));
    assert!(
        matches!(done.result, IntegrateResult::Refused { .. }),
        "{:?}",
        done.result
    );
    assert_eq!(story.remote_at(BATCH), there);
    assert!(!story.home.path().join("gh-args").exists());
}

#[test]
fn a_gh_that_fails_is_quoted() {
    let story = Story::new()
        .with_remote()
        .with_gh(Some("echo 'not logged in' >&2; exit 4"));
    let GitEnd::Failed { message, .. } = story.end(story.work(How::PullRequest)) else {
        panic!("gh failed");
    };
    assert!(
        message.contains("exited with 4: not logged in"),
        "{message}"
    );
}
