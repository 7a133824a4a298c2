//! Salvage of what a hostile or an unlucky agent leaves: bit for bit, or no ref at all.

use protocol::git::Remove;

use super::*;

/// `git`'s own view of a file (left out, meant to be added, believed unchanged) hides nothing of it.
#[test]
fn what_the_index_says_of_a_file_hides_none_of_its_content() {
    let scene = busy();
    scene.write("w/meant", "meant to be added");
    scene.git("w", &["add", "--intent-to-add", "meant"]);
    for (flag, file) in [
        ("--assume-unchanged", "README"),
        ("--skip-worktree", "changed.txt"),
    ] {
        scene.git("w", &["update-index", flag, file]);
        scene.write(&format!("w/{file}"), format!("changed behind {flag}\n"));
    }
    scene.write("w/only-staged", "staged");
    scene.git("w", &["add", "only-staged"]);
    fs::remove_file(scene.path("w/only-staged")).unwrap();
    let before = content(&scene, "w");
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
    scene.restore("index", true).unwrap();
    let staged = fs::read_to_string(scene.path("index/only-staged")).unwrap();
    assert_eq!(staged, "staged", "what is staged alone is kept beside");
    assert!(
        !scene.path("index/meant").exists(),
        "nothing of it is staged"
    );
    scene.is_sound();
}

#[test]
fn a_sparse_worktree_is_kept_as_it_lies_there() {
    let scene = Scene::new();
    for file in ["in/a", "out/b", "out/c"] {
        scene.write(&format!("repo/{file}"), file);
    }
    scene.commit("repo", "wide");
    scene.worktree("w", "main");
    scene.git("w", &["sparse-checkout", "set", "--cone", "in"]);
    assert!(!scene.path("w/out/b").exists());
    scene.write("w/out/mine", "beside what is not checked out");
    let before = content(&scene, "w");
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
    // What was not checked out is held by the commit below.
    assert_eq!(
        scene.git("repo", &["show", &format!("{REF}^1:out/b")]),
        "out/b"
    );
}

/// Filters and line ends change nothing: neither a pointer of LFS nor what stands in its place.
#[test]
fn filters_touch_neither_what_is_kept_nor_what_comes_back() {
    let scene = Scene::new();
    scene.write(
        "repo/.gitattributes",
        "*.big filter=upper -text\n*.crlf text eol=crlf\n*.utf working-tree-encoding=UTF-16\n",
    );
    scene.git("repo", &["config", "filter.upper.clean", "tr a-z A-Z"]);
    scene.git("repo", &["config", "filter.upper.smudge", "tr A-Z a-z"]);
    scene.git("repo", &["config", "filter.upper.required", "true"]);
    scene.commit("repo", "filters");
    scene.worktree("w", "main");
    scene.write("w/real.big", "as the agent left it");
    scene.write(
        "w/pointer.big",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    );
    scene.write("w/mixed.crlf", "one\ntwo\r\nthree\r");
    scene.write("w/odd.utf", [0xff, 0xfe, 0x00]);
    let before = content(&scene, "w");
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
    scene.is_sound();
}

#[test]
fn names_that_look_like_something_else_come_back() {
    let scene = Scene::new();
    scene.worktree("w", "main");
    for name in [
        "refs/heads/main",
        "HEAD",
        "-rf",
        "--",
        ":(top)x",
        "a\nb",
        "ends in spaces  ",
        "ends.lock",
        "Case",
        "case",
        "@{u}",
        "a*b?[c]",
        "!not",
        "#comment",
        "con",
        "nul:",
        "tab\tname",
        "a\\b",
    ] {
        scene.write(&format!("w/{name}"), name);
    }
    symlink("loop-b", scene.path("w/loop-a")).unwrap();
    symlink("loop-a", scene.path("w/loop-b")).unwrap();
    symlink(".", scene.path("w/itself")).unwrap();
    let long = "n".repeat(255);
    scene.write(&format!("w/{long}"), "as long as a name may be");
    let before = content(&scene, "w");
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
    scene.is_sound();
}

#[test]
fn each_name_of_a_file_comes_back_with_its_content() {
    let scene = Scene::new();
    scene.worktree("w", "main");
    scene.write("w/one", "shared");
    fs::hard_link(scene.path("w/one"), scene.path("w/two")).unwrap();
    let holes = fs::File::create(scene.path("w/holes")).unwrap();
    holes.set_len(20 << 20).unwrap();
    let before = content(&scene, "w");
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
}

/// The owner of a file may have closed it to itself; it is opened for the reading alone.
#[test]
fn files_and_folders_without_permissions_are_kept_and_stay_as_they_are() {
    let scene = Scene::new();
    scene.worktree("w", "main");
    scene.write("w/closed/inner", "x");
    scene.write("w/secret", "y");
    scene.permit("w/secret", 0);
    scene.permit("w/closed", 0);
    scene.salvage("w", &[]).unwrap();
    let mode = |path: &str| {
        let meta = fs::symlink_metadata(scene.path(path)).unwrap();
        meta.permissions().mode() & 0o7777
    };
    assert_eq!((mode("w/secret"), mode("w/closed")), (0, 0));
    scene.restore("back", false).unwrap();
    assert_eq!((mode("back/secret"), mode("back/closed")), (0, 0));
    for path in ["back/secret", "back/closed"] {
        scene.permit(path, 0o700);
    }
    assert_eq!(fs::read_to_string(scene.path("back/secret")).unwrap(), "y");
    assert_eq!(
        fs::read_to_string(scene.path("back/closed/inner")).unwrap(),
        "x"
    );
}

/// A writer that does not stop is noticed: there is no ref of a state that never was.
#[test]
fn a_file_that_changes_while_it_is_kept_leaves_no_ref() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    let scene = busy();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let path = scene.path("w/growing");
            let mut file = fs::File::create(path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"more ").unwrap();
            }
        });
        while !scene.path("w/growing").exists() {
            std::thread::yield_now();
        }
        let refused = scene.salvage("w", &[]);
        stop.store(true, Ordering::Relaxed);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("changed while it was kept"), "{refused}");
    });
    assert!(scene.git("repo", &["for-each-ref", REF]).is_empty());
}

#[test]
fn a_worktree_stays_whose_submodule_got_a_commit_after_its_salvage() {
    let scene = with_submodule();
    let salvaged = scene.salvage("w", &[]).unwrap();
    scene.git("w/sub", &["commit", "-q", "--allow-empty", "-m", "later"]);
    let remove = GitWork::Remove(Remove {
        repo: scene.text("repo"),
        worktree: scene.text("w"),
        branch: None,
        kept: salvaged.commit,
        kept_by: REF.to_owned(),
    });
    let refused = scene.perform(&remove).unwrap_err().to_string();
    assert!(refused.contains("submodules"), "{refused}");
    assert!(scene.path("w/sub").exists());
}

#[test]
fn repositories_of_submodules_are_asked_for_and_go_to_a_folder_of_their_own() {
    let scene = with_submodule();
    scene.salvage("w", &[]).unwrap();
    assert!(scene.restore("plain", false).unwrap().modules_left);
    let work = |to: &str, modules: &str| {
        GitWork::Restore(Restore {
            repo: scene.text("repo"),
            reference: REF.to_owned(),
            to: scene.text(to),
            staged: false,
            modules: Some(scene.text(modules)),
        })
    };
    for (to, modules) in [("back", "back/modules"), ("a/b", "a"), ("same", "same")] {
        let refused = scene.perform(&work(to, modules)).unwrap_err().to_string();
        assert!(refused.contains("in each other"), "{refused}");
    }
    scene.write("full/file", "mine");
    scene.perform(&work("back", "full")).unwrap_err();
    assert!(!scene.path("back").exists(), "both or none");
    // What a killed predecessor wrote beside both places.
    scene.write(".back.supervisor-restore/half", "x");
    scene.write(".modules.supervisor-restore/half", "x");
    let GitOutcome::Restored(done) = scene.perform(&work("back", "modules")).unwrap() else {
        panic!("no restore");
    };
    assert!(!done.modules_left);
    assert!(scene.path("modules/sub/HEAD").exists() && scene.path("back/sub").exists());
    assert!(!scene.path("modules/half").exists() && !scene.path("back/half").exists());

    let plain = busy();
    plain.salvage("w", &[]).unwrap();
    let work = GitWork::Restore(Restore {
        repo: plain.text("repo"),
        reference: REF.to_owned(),
        to: plain.text("back"),
        staged: false,
        modules: Some(plain.text("modules")),
    });
    let refused = plain.perform(&work).unwrap_err().to_string();
    assert!(
        refused.contains("no repositories of submodules"),
        "{refused}"
    );
    assert!(!plain.path("back").exists());
}
