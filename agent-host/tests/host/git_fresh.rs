//! The branch that a batch began from moves in every way that a branch can: it is said, work follows
//! where that is possible, and no branch is lost.

use std::fs;

use protocol::git::{Freshness, GitOutcome, GitWork, Merge, Oid, Provision, Provisioned};

use crate::git_kills::{cut_off, moments};
use crate::git_stage::{INTO, Stage, branch};

impl Stage {
    /// What the next attempt at `t` is given, which began at the first commit.
    fn again(&self, freshness: Freshness) -> Provision {
        Provision {
            made: Some(self.first.clone()),
            freshness,
            ..self.provision("t")
        }
    }

    /// A worktree `t` with a commit of an agent; that commit.
    fn worked(&self) -> Oid {
        self.provisioned(self.provision("t"));
        self.write("t/new.txt", "work\n");
        self.save("t", "of the agent")
    }

    fn keeps(&self, made: &Provisioned, work: &Oid) {
        assert_eq!((&made.base, &made.head), (&self.first, work), "{made:?}");
        assert_eq!(&self.tip("repo", &branch("t")), work);
        assert_eq!(self.git("t", &["symbolic-ref", "HEAD"]), branch("t"));
        assert_eq!(self.read("t/new.txt"), "work\n");
        assert!(
            !self
                .path("repo/.git/worktrees/t/supervisor-rebase")
                .exists()
        );
    }
}

/// What somebody did to the branch, and what is said of it.
const MOVES: [(&[&[&str]], &str); 5] = [
    (
        &[
            &["checkout", "-q", "--orphan", "other"],
            &["commit", "-q", "-m", "begun anew"],
            &["branch", "-M", "other", "main"],
        ],
        "was rewritten",
    ),
    (
        &[&["commit", "-q", "--amend", "-m", "amended"]],
        "was rewritten",
    ),
    (&[&["reset", "-q", "--hard", "HEAD~1"]], "was moved back"),
    (&[&["branch", "-m", "main", "trunk"]], "is gone"),
    (
        &[
            &["checkout", "-q", "--detach"],
            &["branch", "-D", "main"],
            &["tag", "-a", "-m", "a tag", "main"],
        ],
        "is gone",
    ),
];

#[test]
fn a_base_branch_that_can_not_be_followed_is_said_and_nothing_else_changes() {
    for (moves, said) in MOVES {
        let mut stage = Stage::new();
        stage.write("repo/second.txt", "second\n");
        stage.first = stage.save("repo", "second");
        let work = stage.worked();
        for arguments in moves {
            stage.git("repo", arguments);
        }
        for policy in [Freshness::Warn, Freshness::Rebase] {
            let made = stage.provisioned(stage.again(policy));
            assert!(made.warnings[0].contains(said), "{moves:?}: {made:?}");
            stage.keeps(&made, &work);
        }
        let silent = stage.provisioned(stage.again(Freshness::Ignore));
        assert_eq!(silent.warnings, [""; 0]);
        // A worktree that is made now begins where the batch did.
        let new = Provision {
            freshness: Freshness::Rebase,
            ..stage.provision("u")
        };
        let made = stage.provisioned(new);
        assert_eq!(made.base, stage.first, "{moves:?}");
        assert!(made.warnings[0].contains(said), "{made:?}");
    }
}

/// The ref itself is damaged: that is said, and holds nobody up.
#[test]
fn a_base_branch_that_can_not_be_read_holds_nobody_up() {
    let stage = Stage::new();
    let work = stage.worked();
    let blob = stage.git("repo", &["rev-parse", "HEAD:.gitignore"]);
    stage.git("repo", &["checkout", "-q", "--detach"]);
    fs::write(stage.path("repo/.git/refs/heads/main"), format!("{blob}\n")).unwrap();
    let made = stage.provisioned(stage.again(Freshness::Rebase));
    assert!(made.warnings[0].contains("can not be read"), "{made:?}");
    stage.keeps(&made, &work);
}

#[test]
fn work_that_is_not_committed_is_neither_rebased_nor_overwritten() {
    let stage = Stage::new();
    let work = stage.worked();
    stage.write("repo/later.txt", "of the operator\n");
    stage.write("repo/deep/er/file.txt", "of the operator\n");
    stage.git("repo", &["add", "-f", "-A"]);
    stage.save("repo", "later");
    stage.write("t/src/file0.txt", "not committed\n");
    let made = stage.provisioned(stage.again(Freshness::Rebase));
    assert!(made.warnings[0].contains("not committed"), "{made:?}");
    stage.keeps(&made, &work);
    assert_eq!(stage.read("t/src/file0.txt"), "not committed\n");
    stage.git("t", &["checkout", "-q", "src/file0.txt"]);
    // Nothing that is tracked differs now; what is not tracked stands where a file would go, and is
    // ignored, so that `git` would overwrite it without a word.
    let exclude = stage.path("repo/.git/info/exclude");
    fs::write(exclude, "later.txt\ndeep\n").unwrap();
    for (mine, theirs) in [("later.txt", "later.txt"), ("deep", "deep/er/file.txt")] {
        stage.write(&format!("t/{mine}"), "of the agent\n");
        let made = stage.provisioned(stage.again(Freshness::Rebase));
        assert!(
            made.warnings[0].contains("would be overwritten"),
            "{theirs}: {made:?}"
        );
        assert!(made.warnings[0].contains(mine), "{made:?}");
        stage.keeps(&made, &work);
        assert_eq!(stage.read(&format!("t/{mine}")), "of the agent\n");
        fs::remove_file(stage.path(&format!("t/{mine}"))).unwrap();
    }
    let made = stage.provisioned(stage.again(Freshness::Rebase));
    assert_eq!(made.warnings, [""; 0]);
    assert_eq!(stage.read("t/deep/er/file.txt"), "of the operator\n");
}

/// The rebase of the second of three commits conflicts, and is killed anywhere on its way.
#[test]
fn a_conflicting_rebase_cut_off_anywhere_leaves_the_branch_as_it_was() {
    let stage = Stage::new();
    stage.write("repo/src/file1.txt", "of the operator\n");
    stage.save("repo", "later");
    for (number, moment) in moments().enumerate() {
        let name = format!("t{number}");
        stage.provisioned(stage.provision(&name));
        for (file, text) in [
            ("one.txt", "one\n"),
            ("src/file1.txt", "two\n"),
            ("three.txt", "3\n"),
        ] {
            stage.write(&format!("{name}/{file}"), text);
            stage.save(&name, file);
        }
        let before = stage.tip(&name, "HEAD");
        let work = Provision {
            made: Some(stage.first.clone()),
            freshness: Freshness::Rebase,
            ..stage.provision(&name)
        };
        cut_off(&stage, &GitWork::Provision(work.clone()), moment * 2);
        let made = stage.provisioned(work);
        assert_eq!(
            (&made.base, &made.head),
            (&stage.first, &before),
            "{made:?}"
        );
        assert!(made.warnings[0].contains("stays as it was"), "{made:?}");
        assert_eq!(stage.tip("repo", &branch(&name)), before);
        assert_eq!(stage.git(&name, &["symbolic-ref", "HEAD"]), branch(&name));
        assert_eq!(stage.git(&name, &["status", "--porcelain"]), "");
        stage.assert_whole();
    }
}

/// `git` writes files before it writes the index: what a killed rebase wrote is not taken for work.
#[test]
fn files_of_a_rebase_that_was_cut_off_do_not_stay() {
    let stage = Stage::new();
    stage.write("repo/later.txt", "later\n");
    stage.write("repo/deep/er/file.txt", "later\n");
    let later = stage.save("repo", "later");
    stage.worked();
    stage.write("t/passing.txt", "of one commit alone\n");
    stage.save("t", "with it");
    fs::remove_file(stage.path("t/passing.txt")).unwrap();
    let work = stage.save("t", "without it");
    let note = format!("{work} {later}");
    let undone = |policy| {
        for file in ["later.txt", "deep/er/file.txt", "passing.txt"] {
            stage.write(&format!("t/{file}"), "la");
        }
        stage.write("t/own.txt", "mine\n");
        stage.write("repo/.git/worktrees/t/supervisor-rebase", &note);
        stage.provisioned(stage.again(policy))
    };
    let made = undone(Freshness::Warn);
    stage.keeps(&made, &work);
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "?? own.txt");
    let made = undone(Freshness::Rebase);
    assert_eq!((&made.base, made.warnings.len()), (&later, 0), "{made:?}");
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "?? own.txt");
    assert_eq!(stage.read("t/deep/er/file.txt"), "later\n");
    stage.assert_whole();
}

/// The new base has another commit of a submodule: what is checked out follows, so that the old one is
/// not committed as if the agent had chosen it.
#[test]
fn a_submodule_follows_the_rebase() {
    let mut stage = Stage::new();
    fs::create_dir(stage.path("lib")).unwrap();
    stage.git("lib", &["init", "-q", "-b", "main"]);
    for (key, value) in [("user.name", "Ada"), ("user.email", "ada@example.org")] {
        stage.git("lib", &["config", key, value]);
    }
    stage.write("lib/lib.txt", "old\n");
    stage.save("lib", "old");
    let (url, allow) = (stage.text("lib"), "protocol.file.allow=always");
    let add = [
        "-c",
        allow,
        "submodule",
        "--quiet",
        "add",
        &url,
        "vendor/lib",
    ];
    stage.git("repo", &add);
    stage.first = stage.save("repo", "with a submodule");
    stage.worked();
    stage.write("lib/lib.txt", "new\n");
    let bumped = stage.save("lib", "new");
    stage.git("repo/vendor/lib", &["pull", "-q"]);
    let later = stage.save("repo", "a newer lib");
    let made = stage.provisioned(stage.again(Freshness::Rebase));
    assert_eq!((&made.base, made.warnings.len()), (&later, 0), "{made:?}");
    assert_eq!(stage.read("t/vendor/lib/lib.txt"), "new\n");
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
    stage.write("t/more.txt", "more\n");
    let commit = stage.committed(stage.commit("t")).commit;
    let held = stage.git("repo", &["rev-parse", &format!("{commit}:vendor/lib")]);
    assert_eq!(held, bumped.as_str());
    // One that is not there undoes the whole rebase.
    stage.write("lib/lib.txt", "newest\n");
    stage.save("lib", "newest");
    let away = stage.git("lib", &["rev-parse", "HEAD"]);
    let entry = format!("160000,{away},vendor/lib");
    stage.git("repo", &["update-index", "--cacheinfo", &entry]);
    stage.git("repo", &["commit", "-q", "-m", "a lib that is not fetched"]);
    let made = stage.provisioned(Provision {
        made: Some(later),
        ..stage.again(Freshness::Rebase)
    });
    assert!(made.warnings[0].contains("stays as it was"), "{made:?}");
    assert_eq!(
        (&made.head, &stage.tip("repo", &branch("t"))),
        (&commit, &commit)
    );
    assert_eq!(stage.read("t/vendor/lib/lib.txt"), "new\n");
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
}

/// What is merged is what was proven: the moved base is said, and not followed.
#[test]
fn a_merge_says_that_the_base_branch_moved() {
    let stage = Stage::new();
    let work = stage.worked();
    stage.write("repo/later.txt", "later\n");
    stage.save("repo", "later");
    for (freshness, warnings) in [
        (Freshness::Ignore, 0),
        (Freshness::Warn, 1),
        (Freshness::Rebase, 1),
    ] {
        let merge = GitWork::Merge(Merge {
            repo: stage.text("repo"),
            worktree: stage.text("merges"),
            into: INTO.to_owned(),
            pinned: stage.first.clone(),
            candidates: vec![protocol::git::Candidate {
                task: "t".parse().unwrap(),
                commit: work.clone(),
                message: "Merge t".to_owned(),
            }],
            take: 1,
            advance: false,
            freshness,
            watch: Some("refs/heads/main".to_owned()),
        });
        let Ok(GitOutcome::Merged(merged)) = stage.perform(&merge) else {
            panic!("it merges");
        };
        assert_eq!(merged.warnings.len(), warnings, "{merged:?}");
        assert_eq!(merged.merges.len(), 1);
        assert!(!stage.path("merges/later.txt").exists());
    }
}
