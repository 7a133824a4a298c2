//! Git work that is killed at any moment is done by doing it again.

use std::time::Duration;

use protocol::git::{GitOutcome, GitWork, Provision};

use crate::git_stage::{INTO, Stage, branch};

/// Kills the work, and all that it started, so long after its start.
pub(crate) fn cut_off(stage: &Stage, work: &GitWork, after: Duration) {
    let mut child = stage.begin("work", work);
    let deadline = std::time::Instant::now() + after;
    while std::time::Instant::now() < deadline {
        std::hint::spin_loop();
    }
    let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    // It may have ended well before.
    let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    child.wait().unwrap();
}

/// From the first moment to one at which everything is done.
pub(crate) fn moments() -> impl Iterator<Item = Duration> {
    (0..24).map(|step| Duration::from_millis(step * step / 4))
}

#[test]
fn a_provisioning_cut_off_anywhere_is_done_by_the_next() {
    let stage = Stage::new();
    for (number, moment) in moments().enumerate() {
        let name = format!("t{number}");
        let work = GitWork::Provision(stage.provision(&name));
        cut_off(&stage, &work, moment);
        stage.provisioned(stage.provision(&name));
        assert_eq!(stage.git(&name, &["status", "--porcelain"]), "");
        assert_eq!(stage.git(&name, &["symbolic-ref", "HEAD"]), branch(&name));
        assert_eq!(stage.worktrees(), number + 2);
        let entries = std::fs::read_dir(stage.path("repo/.git/worktrees")).unwrap();
        assert_eq!(entries.count(), number + 1, "an entry is left");
        stage.assert_whole();
    }
}

#[test]
fn a_commit_cut_off_anywhere_is_done_by_the_next() {
    let stage = Stage::new();
    for (number, moment) in moments().enumerate() {
        let name = format!("t{number}");
        stage.provisioned(stage.provision(&name));
        stage.write(&format!("{name}/own.txt"), "own\n");
        stage.save(&name, "of the agent");
        stage.git(&name, &["checkout", "-q", "--detach"]);
        stage.write(&format!("{name}/new.txt"), "new\n");
        cut_off(&stage, &GitWork::Commit(stage.commit(&name)), moment);
        let done = stage.committed(stage.commit(&name));
        assert_eq!(done.files, 2);
        assert_eq!(stage.tip(&name, "HEAD"), done.commit);
        assert_eq!(stage.tip("repo", &branch(&name)), done.commit);
        let count = stage.git(&name, &["rev-list", "--count", "HEAD"]);
        assert_eq!(count, "3", "the work is committed once");
        stage.assert_whole();
    }
}

#[test]
fn a_rebase_cut_off_anywhere_loses_no_branch() {
    let stage = Stage::new();
    stage.write("repo/later.txt", "later\n");
    let later = stage.save("repo", "later");
    for (number, moment) in moments().enumerate() {
        let name = format!("t{number}");
        stage.provisioned(stage.provision(&name));
        stage.write(&format!("{name}/one.txt"), "one\n");
        stage.save(&name, "one");
        stage.write(&format!("{name}/two.txt"), "two\n");
        stage.save(&name, "two");
        let work = Provision {
            made: Some(stage.first.clone()),
            freshness: protocol::git::Freshness::Rebase,
            ..stage.provision(&name)
        };
        cut_off(&stage, &GitWork::Provision(work.clone()), moment * 2);
        let done = stage.provisioned(work);
        assert_eq!((&done.base, done.warnings.len()), (&later, 0), "{done:?}");
        assert_eq!(stage.git(&name, &["symbolic-ref", "HEAD"]), branch(&name));
        assert_eq!(stage.git(&name, &["rev-list", "--count", "HEAD"]), "4");
        assert_eq!(stage.read(&format!("{name}/two.txt")), "two\n");
        stage.assert_whole();
    }
}

#[test]
fn a_removal_and_a_checkout_cut_off_anywhere_are_done_by_the_next() {
    let stage = Stage::new();
    for (number, moment) in moments().enumerate() {
        let name = format!("t{number}");
        stage.provisioned(stage.provision(&name));
        stage.write(&format!("{name}/{name}.txt"), "new\n");
        let commit = stage.committed(stage.commit(&name)).commit;
        let checkout = GitWork::Checkout(protocol::git::Checkout {
            repo: stage.text("repo"),
            worktree: stage.text("merge"),
            commit: commit.clone(),
        });
        cut_off(&stage, &checkout, moment);
        stage.check_out("merge", &commit);
        stage.git("repo", &["update-ref", INTO, commit.as_str()]);
        let removal = stage.removal(&name, &commit, INTO);
        cut_off(&stage, &removal, moment);
        let done = stage.perform(&removal);
        assert!(matches!(done, Ok(GitOutcome::Removed(_))), "{done:?}");
        assert!(!stage.path(&name).exists());
        assert_eq!(stage.worktrees(), 2);
        assert_eq!(stage.tip("repo", INTO), commit);
        stage.assert_whole();
    }
}
