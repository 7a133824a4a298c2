//! Git work: a task gets its worktree and branch.

use std::fs;
use std::os::unix::fs::symlink;

use protocol::git::{Freshness, GitWork, Provision};

use crate::git_stage::{INTO, Stage, branch};

#[test]
fn a_worktree_is_made_at_the_pinned_commit_and_the_operators_own_is_left_alone() {
    let stage = Stage::new();
    stage.write("repo/later.txt", "not pinned\n");
    stage.save("repo", "later");
    let config = stage.read("repo/.git/config");
    let index = fs::read(stage.path("repo/.git/index")).unwrap();
    let made = stage.provisioned(stage.provision("t"));
    assert!(made.made && made.warnings.is_empty(), "{made:?}");
    assert_eq!((&made.base, &made.head), (&stage.first, &stage.first));
    assert_eq!(stage.tip("repo", INTO), stage.first);
    assert_eq!(stage.tip("t", &branch("t")), stage.first);
    assert!(stage.path("t/src/file0.txt").exists() && !stage.path("t/later.txt").exists());
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
    assert_eq!(stage.read("repo/.git/config"), config);
    assert_eq!(fs::read(stage.path("repo/.git/index")).unwrap(), index);
    stage.git("repo", &["worktree", "prune"]);
    assert_eq!(stage.worktrees(), 2);
    stage.assert_whole();
}

#[test]
fn what_is_in_a_worktree_that_was_provisioned_before_stays() {
    let stage = Stage::new();
    stage.provisioned(stage.provision("t"));
    stage.write("t/src/file0.txt", "work\n");
    stage.write("t/new.txt", "work\n");
    stage.write("repo/.git/worktrees/t/index.lock", "");
    let again = Provision {
        made: Some(stage.first.clone()),
        ..stage.provision("t")
    };
    let made = stage.provisioned(again);
    assert!(!made.made);
    assert_eq!(stage.read("t/new.txt"), "work\n");
    assert_eq!(stage.read("t/src/file0.txt"), "work\n");
    stage.assert_whole();
}

#[test]
fn a_folder_that_vanished_is_made_again_from_its_branch() {
    let stage = Stage::new();
    stage.provisioned(stage.provision("t"));
    stage.write("t/new.txt", "work\n");
    let commit = stage.save("t", "of the agent");
    fs::remove_dir_all(stage.path("t")).unwrap();
    let again = Provision {
        made: Some(stage.first.clone()),
        ..stage.provision("t")
    };
    let made = stage.provisioned(again);
    assert_eq!(made.head, commit);
    assert!(made.warnings[0].contains("was gone"), "{made:?}");
    assert_eq!(stage.read("t/new.txt"), "work\n");
    assert_eq!(stage.worktrees(), 2);
}

#[test]
fn a_repository_that_moved_finds_its_worktree() {
    let stage = Stage::new();
    stage.provisioned(stage.provision("t"));
    stage.write("t/new.txt", "work\n");
    fs::rename(stage.path("repo"), stage.path("elsewhere")).unwrap();
    let again = Provision {
        repo: stage.text("elsewhere"),
        made: Some(stage.first.clone()),
        ..stage.provision("t")
    };
    stage.provisioned(again);
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "?? new.txt");
}

#[test]
fn what_is_no_worktree_of_ours_is_in_the_way_and_stays() {
    let stage = Stage::new();
    stage.write("t/precious.txt", "of somebody\n");
    let (class, text) = stage
        .perform(&GitWork::Provision(stage.provision("t")))
        .unwrap_err();
    assert_eq!(class, "setup_failed");
    assert!(text.contains("in the way"), "{text}");
    assert_eq!(stage.read("t/precious.txt"), "of somebody\n");
    stage.git("repo", &["branch", "task/u"]);
    stage.git("repo", &["checkout", "-q", "task/u"]);
    stage.write("repo/u.txt", "of somebody\n");
    let work = stage.save("repo", "of somebody");
    stage.git("repo", &["checkout", "-q", "main"]);
    let (_, text) = stage
        .perform(&GitWork::Provision(stage.provision("u")))
        .unwrap_err();
    assert!(text.contains("holds work"), "{text}");
    assert_eq!(stage.tip("repo", &branch("u")), work);
}

#[test]
fn a_base_must_hold_the_merged_dependencies() {
    let stage = Stage::new();
    stage.provisioned(stage.provision("a"));
    stage.write("a/a.txt", "a\n");
    let merged = stage.committed(stage.commit("a")).commit;
    let wanted = |name: &str| Provision {
        needs: vec![merged.clone()],
        ..stage.provision(name)
    };
    let (_, text) = stage.perform(&GitWork::Provision(wanted("b"))).unwrap_err();
    assert!(text.contains(merged.as_str()), "{text}");
    stage.git("repo", &["update-ref", INTO, merged.as_str()]);
    assert_eq!(stage.provisioned(wanted("b")).base, merged);
    assert_eq!(stage.read("b/a.txt"), "a\n");
}

#[test]
fn eight_at_the_same_time_all_get_theirs() {
    let stage = Stage::new();
    let names: Vec<String> = (0..8).map(|number| format!("{number}/task")).collect();
    let begun = names.iter().map(|name| {
        let key = name.replace('/', "-");
        (
            stage.begin(&key, &GitWork::Provision(stage.provision(name))),
            key,
        )
    });
    for (mut child, key) in begun.collect::<Vec<_>>() {
        assert!(child.wait().unwrap().success());
        stage.outcome(&key).unwrap();
    }
    for name in &names {
        assert_eq!(stage.git(name, &["status", "--porcelain"]), "");
        assert_eq!(stage.git(name, &["symbolic-ref", "HEAD"]), branch(name));
    }
    assert_eq!(stage.worktrees(), 9);
    stage.assert_whole();
}

#[test]
fn a_base_branch_that_moved_is_said_or_rebased_onto() {
    let stage = Stage::new();
    stage.provisioned(stage.provision("t"));
    stage.write("t/new.txt", "work\n");
    stage.save("t", "of the agent");
    stage.write("repo/later.txt", "later\n");
    let later = stage.save("repo", "later");
    let again = |freshness| Provision {
        made: Some(stage.first.clone()),
        freshness,
        ..stage.provision("t")
    };
    assert!(
        stage
            .provisioned(again(Freshness::Ignore))
            .warnings
            .is_empty()
    );
    let warned = stage.provisioned(again(Freshness::Warn));
    assert!(warned.warnings[0].contains("has moved"), "{warned:?}");
    assert_eq!(warned.base, stage.first);
    let rebased = stage.provisioned(again(Freshness::Rebase));
    assert_eq!(rebased.base, later);
    assert_eq!(stage.read("t/later.txt"), "later\n");
    assert_eq!(stage.read("t/new.txt"), "work\n");
    assert_eq!(stage.git("t", &["symbolic-ref", "HEAD"]), branch("t"));
    assert_eq!(
        stage.provisioned(again(Freshness::Rebase)).head,
        rebased.head
    );
    let fresh = Provision {
        freshness: Freshness::Rebase,
        ..stage.provision("u")
    };
    assert_eq!(stage.provisioned(fresh).base, later);
}

#[test]
fn a_rebase_that_conflicts_leaves_the_branch_as_it_was() {
    let stage = Stage::new();
    stage.provisioned(stage.provision("t"));
    stage.write("t/src/file0.txt", "of the agent\n");
    let work = stage.save("t", "of the agent");
    stage.write("repo/src/file0.txt", "of the operator\n");
    stage.save("repo", "later");
    let again = Provision {
        made: Some(stage.first.clone()),
        freshness: Freshness::Rebase,
        ..stage.provision("t")
    };
    let made = stage.provisioned(again);
    assert_eq!((&made.base, &made.head), (&stage.first, &work));
    assert!(made.warnings[0].contains("stays as it was"), "{made:?}");
    assert_eq!(stage.tip("repo", &branch("t")), work);
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
    assert_eq!(stage.git("t", &["symbolic-ref", "HEAD"]), branch("t"));
}

#[test]
fn ignored_files_that_worktreeinclude_names_come_along_and_no_link_leads_out() {
    let mut stage = Stage::new();
    stage.write("repo/.worktreeinclude", ".env\n*.log\nnot-ignored.txt\n");
    stage.first = stage.save("repo", "include");
    stage.write("repo/.env", "KEY=1\n");
    stage.write("repo/deep/er/build.log", "log\n");
    stage.write("repo/not-ignored.txt", "x\n");
    stage.write("outside/secret", "secret\n");
    symlink(stage.path("outside/secret"), stage.path("repo/link.log")).unwrap();
    let made = stage.provisioned(stage.provision("t"));
    assert!(made.warnings.is_empty(), "{made:?}");
    assert_eq!(stage.read("t/.env"), "KEY=1\n");
    assert_eq!(stage.read("t/deep/er/build.log"), "log\n");
    assert!(!stage.path("t/not-ignored.txt").exists());
    assert!(stage.path("t/link.log").is_symlink());
    fs::remove_file(stage.path("repo/not-ignored.txt")).unwrap();
    stage.assert_whole();
}

#[test]
fn a_bare_repository_and_a_sparse_one_work() {
    let stage = Stage::new();
    stage.git("", &["clone", "-q", "--bare", "repo", "bare.git"]);
    let bare = Provision {
        repo: stage.text("bare.git"),
        ..stage.provision("t")
    };
    stage.provisioned(bare);
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
    let sparse = Stage::new();
    sparse.write("repo/docs/big.txt", "big\n");
    sparse.save("repo", "docs");
    sparse.git("repo", &["sparse-checkout", "set", "src"]);
    let pinned = sparse.tip("repo", "HEAD");
    sparse.provisioned(Provision {
        pinned,
        ..sparse.provision("t")
    });
    assert!(sparse.path("t/src/file0.txt").exists());
    assert!(!sparse.path("t/docs").exists());
}

#[test]
fn submodules_are_filled_without_a_network_or_it_is_said_how() {
    let mut stage = Stage::new();
    fs::create_dir(stage.path("lib")).unwrap();
    stage.git("lib", &["init", "-q", "-b", "main"]);
    stage.git("lib", &["config", "user.name", "Ada"]);
    stage.git("lib", &["config", "user.email", "ada@example.org"]);
    stage.write("lib/lib.txt", "lib\n");
    stage.save("lib", "lib");
    let url = stage.text("lib");
    let allow = "protocol.file.allow=always";
    stage.git(
        "repo",
        &[
            "-c",
            allow,
            "submodule",
            "--quiet",
            "add",
            &url,
            "vendor/lib",
        ],
    );
    stage.first = stage.save("repo", "with a submodule");
    fs::rename(stage.path("lib"), stage.path("away")).unwrap();
    let config = stage.read("repo/.git/config");
    stage.provisioned(stage.provision("t"));
    assert_eq!(stage.read("t/vendor/lib/lib.txt"), "lib\n");
    assert_eq!(stage.git("t", &["status", "--porcelain"]), "");
    assert_eq!(stage.read("repo/.git/config"), config);
    let origin = stage.git("t/vendor/lib", &["config", "remote.origin.url"]);
    assert_eq!(origin, url);
    // What the agent commits in it is kept before the worktree may go.
    stage.git("t/vendor/lib", &["config", "user.name", "Ada"]);
    stage.git("t/vendor/lib", &["config", "user.email", "ada@example.org"]);
    stage.write("t/vendor/lib/lib.txt", "better\n");
    let inner = stage.save("t/vendor/lib", "of the agent");
    let commit = stage.committed(stage.commit("t")).commit;
    stage.git(
        "repo/.git/modules/vendor/lib",
        &["cat-file", "-e", inner.as_str()],
    );
    stage.check_out("merge", &commit);
    assert_eq!(stage.read("merge/vendor/lib/lib.txt"), "better\n");
    stage.check_out("merge", &stage.first);
    assert_eq!(stage.read("merge/vendor/lib/lib.txt"), "lib\n");
    stage.git("repo", &["update-ref", INTO, commit.as_str()]);
    assert!(stage.removed("t", &commit, INTO).existed);
    stage.assert_whole();
    fs::remove_dir_all(stage.path("repo/.git/modules")).unwrap();
    let (_, text) = stage
        .perform(&GitWork::Provision(stage.provision("u")))
        .unwrap_err();
    assert!(text.contains("git submodule update --init"), "{text}");
}

#[test]
fn a_filter_that_is_missing_and_an_unknown_object_format_are_said_clearly() {
    let stage = Stage::new();
    stage.write("repo/.gitattributes", "*.bin filter=large\n");
    stage.write("repo/big.bin", "pointer\n");
    let pinned = stage.save("repo", "a pointer");
    stage.git(
        "repo",
        &["config", "filter.large.smudge", "no-such-program %f"],
    );
    stage.git("repo", &["config", "filter.large.required", "true"]);
    let work = Provision {
        pinned,
        ..stage.provision("t")
    };
    let (_, text) = stage.perform(&GitWork::Provision(work)).unwrap_err();
    assert!(
        text.contains("a filter that .gitattributes names"),
        "{text}"
    );
    assert!(!stage.path("t").exists());
    stage.write("repo/.gitattributes", "*.bin filter=lfs diff=lfs\n");
    let work = Provision {
        pinned: stage.save("repo", "a pointer of LFS"),
        ..stage.provision("v")
    };
    let made = stage.provisioned(work);
    assert!(made.warnings[0].contains("git lfs install"), "{made:?}");
    fs::create_dir(stage.path("new")).unwrap();
    stage.git("new", &["init", "-q", "--object-format=sha256"]);
    let work = Provision {
        repo: stage.text("new"),
        ..stage.provision("u")
    };
    let (class, text) = stage.perform(&GitWork::Provision(work)).unwrap_err();
    assert_eq!(class, "environment");
    assert!(text.contains("sha256"), "{text}");
}
