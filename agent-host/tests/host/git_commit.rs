//! Git work: what is in a worktree becomes a commit; checkouts and removals.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use protocol::git::{CommitWork, GitOutcome, GitWork, Salvage};

use crate::git_stage::{INTO, Stage, branch};

fn stage() -> Stage {
    let stage = Stage::new();
    stage.provisioned(stage.provision("t"));
    stage
}

/// The branch holds what is in the worktree, `HEAD` is on it and nothing is half done.
fn assert_recorded(stage: &Stage, commit: &protocol::git::Oid) {
    assert_eq!(&stage.tip("repo", &branch("t")), commit);
    assert_eq!(stage.git("t", &["symbolic-ref", "HEAD"]), branch("t"));
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
    let status = stage.git("t", &["status"]);
    assert!(
        !status.contains("in progress") && !status.contains("merging"),
        "{status}"
    );
    stage.assert_whole();
}

#[test]
fn nothing_changed_is_the_base() {
    let stage = stage();
    stage.write("t/ignored.log", "log\n");
    let done = stage.committed(stage.commit("t"));
    assert_eq!((&done.commit, done.files), (&stage.first, 0));
    assert_eq!(stage.tip("repo", &branch("t")), stage.first);
}

#[test]
fn everything_in_it_becomes_one_commit_of_the_operators_identity_and_again_is_the_same() {
    let stage = stage();
    stage.git("repo", &["config", "commit.gpgSign", "true"]);
    stage.write("repo/.git/hooks/pre-commit", "#!/bin/sh\nexit 1\n");
    stage.write("t/new.txt", "new\n");
    stage.write("t/src/file0.txt", "changed\n");
    fs::remove_file(stage.path("t/src/file1.txt")).unwrap();
    symlink("new.txt", stage.path("t/link")).unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(stage.path("t/src/file2.txt"), executable).unwrap();
    stage.git(
        "t",
        &["update-index", "--assume-unchanged", "src/file0.txt"],
    );
    let done = stage.committed(stage.commit("t"));
    assert_eq!(done.files, 5, "{done:?}");
    assert_recorded(&stage, &done.commit);
    assert_eq!(stage.git("t", &["show", "HEAD:src/file0.txt"]), "changed");
    let said = stage.git("t", &["log", "-1", "--format=%an %ae %cn %P %B"]);
    let first = &stage.first;
    assert_eq!(
        said.trim_end(),
        format!("Ada ada@example.org Ada {first} The work of a task")
    );
    assert_eq!(stage.committed(stage.commit("t")), done);
}

#[test]
fn the_commits_of_an_agent_are_kept_wherever_it_left_its_head() {
    let stage = stage();
    stage.write("t/one.txt", "one\n");
    let one = stage.save("t", "one");
    stage.git("t", &["checkout", "-q", "-b", "own"]);
    stage.write("t/two.txt", "two\n");
    let two = stage.save("t", "two");
    stage.git("t", &["checkout", "-q", "--detach"]);
    stage.write("t/three.txt", "three\n");
    let done = stage.committed(stage.commit("t"));
    assert_eq!(done.files, 3);
    assert_recorded(&stage, &done.commit);
    for commit in [one, two] {
        let found = stage.try_git(
            "t",
            &["merge-base", "--is-ancestor", commit.as_str(), "HEAD"],
        );
        assert!(found.status.success());
    }
}

#[test]
fn commits_of_two_lines_are_both_kept_and_the_content_is_that_of_the_folder() {
    let stage = stage();
    stage.write("t/one.txt", "one\n");
    let one = stage.save("t", "one");
    stage.git("t", &["checkout", "-q", "-b", "own", stage.first.as_str()]);
    stage.write("t/two.txt", "two\n");
    let two = stage.save("t", "two");
    let done = stage.committed(stage.commit("t"));
    assert_recorded(&stage, &done.commit);
    assert!(!stage.path("t/one.txt").exists());
    let parents = stage.git("t", &["log", "-1", "--format=%P"]);
    assert!(
        parents.contains(one.as_str()) && parents.contains(two.as_str()),
        "{parents}"
    );
}

#[test]
fn a_merge_left_half_done_becomes_the_content_and_its_markers_are_found() {
    let stage = stage();
    stage.write("t/src/file0.txt", "ours\n");
    stage.save("t", "ours");
    stage.git(
        "t",
        &["checkout", "-q", "-b", "other", stage.first.as_str()],
    );
    stage.write("t/src/file0.txt", "theirs\n");
    stage.save("t", "theirs");
    stage.git("t", &["checkout", "-q", "task/t"]);
    assert!(!stage.try_git("t", &["merge", "other"]).status.success());
    stage.write("t/.git.lock-is-no-lock", "x\n");
    stage.write("repo/.git/worktrees/t/index.lock", "");
    let done = stage.committed(stage.commit("t"));
    assert_eq!(done.markers, ["src/file0.txt"]);
    assert_recorded(&stage, &done.commit);
}

#[test]
fn a_rebase_left_half_done_becomes_the_content() {
    let stage = stage();
    stage.write("t/src/file0.txt", "ours\n");
    stage.save("t", "ours");
    stage.git(
        "t",
        &["checkout", "-q", "-b", "other", stage.first.as_str()],
    );
    stage.write("t/src/file0.txt", "theirs\n");
    stage.save("t", "theirs");
    stage.git("t", &["checkout", "-q", "task/t"]);
    assert!(!stage.try_git("t", &["rebase", "other"]).status.success());
    stage.write("t/src/file0.txt", "resolved\n");
    let done = stage.committed(stage.commit("t"));
    assert_eq!((done.markers.len(), done.files), (0, 1));
    assert_recorded(&stage, &done.commit);
    assert_eq!(stage.git("t", &["show", "HEAD:src/file0.txt"]), "resolved");
}

#[test]
fn an_index_that_can_not_be_read_is_made_anew() {
    let stage = stage();
    stage.write("t/new.txt", "new\n");
    stage.write(
        "repo/.git/worktrees/t/index",
        "no index at all, but long enough to be one",
    );
    let done = stage.committed(stage.commit("t"));
    assert_eq!(done.files, 1);
    assert_recorded(&stage, &done.commit);
}

#[test]
fn a_repository_inside_is_not_lost_silently() {
    let stage = stage();
    stage.write("t/inner/file.txt", "inner\n");
    stage.git("t/inner", &["init", "-q"]);
    stage.write("t/new.txt", "new\n");
    let done = stage.committed(stage.commit("t"));
    assert_eq!(done.files, 1);
    assert!(done.warnings[0].contains("inner"), "{done:?}");
    stage.git("repo", &["update-ref", INTO, done.commit.as_str()]);
    let (_, text) = stage
        .perform(&stage.removal("t", &done.commit, INTO))
        .unwrap_err();
    assert!(text.contains("inner"), "{text}");
    assert_eq!(stage.read("t/inner/file.txt"), "inner\n");
}

#[test]
fn a_repository_in_place_of_the_link_hides_no_work() {
    let stage = stage();
    fs::remove_file(stage.path("t/.git")).unwrap();
    stage.git("t", &["init", "-q"]);
    stage.write("t/new.txt", "new\n");
    let done = stage.committed(stage.commit("t"));
    assert_eq!(done.files, 1);
    assert!(done.warnings[0].contains("of the agent's own"), "{done:?}");
    assert_eq!(stage.tip("repo", &branch("t")), done.commit);
    stage.git("repo", &["update-ref", INTO, done.commit.as_str()]);
    let (_, text) = stage
        .perform(&stage.removal("t", &done.commit, INTO))
        .unwrap_err();
    assert!(text.contains("what is in .git"), "{text}");
}

#[test]
fn a_link_in_place_of_the_worktree_is_not_followed() {
    let stage = stage();
    fs::rename(stage.path("t"), stage.path("moved")).unwrap();
    stage.write("outside/secret.txt", "secret\n");
    symlink(stage.path("outside"), stage.path("t")).unwrap();
    let (_, text) = stage
        .perform(&GitWork::Commit(stage.commit("t")))
        .unwrap_err();
    assert!(text.contains("no worktree of"), "{text}");
    assert_eq!(stage.tip("repo", &branch("t")), stage.first);
}

#[test]
fn files_outside_of_touches_are_named_and_outputs_are_kept() {
    let stage = stage();
    stage.write("t/src/new.txt", "new\n");
    stage.write("t/docs/new.txt", "new\n");
    stage.write("t/report.log", "ignored\n");
    stage.write("t/site/a/b.log", "deep\n");
    symlink("/etc", stage.path("t/site/out")).unwrap();
    let work = CommitWork {
        touches: Some(vec!["src/**".to_owned(), "site".to_owned()]),
        outputs: ["report.log", "site", "absent.txt"]
            .map(str::to_owned)
            .into(),
        outputs_dir: stage.text("state/outputs"),
        ..stage.commit("t")
    };
    fs::create_dir(stage.path("state")).unwrap();
    for _ in 0..2 {
        let done = stage.committed(work.clone());
        assert_eq!(done.outside, ["docs/new.txt"]);
        assert_eq!(done.missing, ["absent.txt"]);
        assert_eq!(stage.read("state/outputs/report.log"), "ignored\n");
        assert_eq!(stage.read("state/outputs/site/a/b.log"), "deep\n");
        assert!(stage.path("state/outputs/site/out").is_symlink());
    }
    let out = CommitWork {
        outputs: vec!["../repo".to_owned()],
        ..work
    };
    let refused = stage.perform(&GitWork::Commit(out));
    assert!(
        refused
            .unwrap_err()
            .1
            .contains("no path within the worktree")
    );
}

#[test]
fn a_checkout_puts_a_worktree_to_a_commit_whatever_is_in_it() {
    let stage = stage();
    stage.write("t/new.txt", "new\n");
    let commit = stage.committed(stage.commit("t")).commit;
    stage.check_out("merge", &stage.first);
    stage.write("merge/src/file0.txt", "dirt\n");
    stage.write("merge/untracked/file.txt", "dirt\n");
    stage.write("merge/kept.log", "build output\n");
    stage.write("repo/.git/worktrees/merge/index.lock", "");
    stage.check_out("merge", &commit);
    assert_eq!(stage.read("merge/new.txt"), "new\n");
    assert!(stage.path("merge/kept.log").exists());
    stage.write(
        "repo/.git/worktrees/merge/index",
        "no index at all, but long enough to be one",
    );
    stage.check_out("merge", &stage.first);
    fs::remove_dir_all(stage.path("merge")).unwrap();
    stage.check_out("merge", &commit);
    stage.assert_whole();
}

#[test]
fn a_worktree_goes_only_when_every_byte_is_kept() {
    let stage = stage();
    stage.write("t/new.txt", "new\n");
    let commit = stage.committed(stage.commit("t")).commit;
    let refused = |why: &str| {
        let (_, text) = stage
            .perform(&stage.removal("t", &commit, INTO))
            .unwrap_err();
        assert!(text.contains(why), "{text}");
        assert!(stage.path("t/new.txt").exists());
    };
    refused("does not reach");
    stage.git("repo", &["update-ref", INTO, commit.as_str()]);
    stage.write("t/untracked.txt", "work\n");
    refused("untracked.txt");
    fs::remove_file(stage.path("t/untracked.txt")).unwrap();
    stage.write("t/src/file3.txt", "work\n");
    stage.git(
        "t",
        &["update-index", "--assume-unchanged", "src/file3.txt"],
    );
    refused("src/file3.txt");
    stage.write("t/src/file3.txt", "a\nb\nc\n");
    stage.git("t", &["checkout", "-q", "--detach"]);
    stage.git(
        "t",
        &[
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "a commit without a name",
        ],
    );
    refused("HEAD");
    stage.git("t", &["checkout", "-q", "task/t"]);
    stage.write("t/ignored.log", "may go\n");
    let removed = stage.removed("t", &commit, INTO);
    assert!(removed.existed && removed.bytes > 20 * 4096, "{removed:?}");
    assert!(!stage.path("t").exists());
    assert_eq!(stage.worktrees(), 1);
    assert!(
        !stage
            .try_git("repo", &["rev-parse", "-q", "--verify", &branch("t")])
            .status
            .success()
    );
    assert!(!stage.removed("t", &commit, INTO).existed);
    stage.assert_whole();
}

#[test]
fn a_worktree_that_was_salvaged_goes_with_all_that_is_in_it() {
    let stage = stage();
    stage.write("t/src/file0.txt", "work\r\n");
    stage.write("t/untracked.txt", "work\n");
    stage.write("t/ignored.log", "may go\n");
    stage.write("t/inner/file.txt", "inner\n");
    stage.git("t/inner", &["init", "-q"]);
    stage.git("repo", &["config", "core.autocrlf", "input"]);
    let reference = "refs/supervisor/salvage/batch/t/1";
    let work = GitWork::Salvage(Salvage {
        repo: stage.text("repo"),
        worktree: stage.text("t"),
        reference: reference.to_owned(),
        ignored: Vec::new(),
        note: "the task begins afresh".to_owned(),
        last: None,
    });
    let Ok(GitOutcome::Salvaged(salvaged)) = stage.perform(&work) else {
        panic!("it is not salvaged");
    };
    stage.write("t/inner/file.txt", "later\n");
    let (_, text) = stage
        .perform(&stage.removal("t", &salvaged.commit, reference))
        .unwrap_err();
    assert!(text.contains("inner/file.txt"), "{text}");
    stage.write("t/inner/file.txt", "inner\n");
    assert!(stage.removed("t", &salvaged.commit, reference).existed);
    assert!(!stage.path("t").exists());
    assert_eq!(stage.worktrees(), 1);
    let fresh = stage.provisioned(stage.provision("t"));
    assert_eq!(fresh.head, stage.first);
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
}
