//! Conflicts: how one is left for an agent, what counts as its resolution, and how they are foreseen.

use std::fs;

use protocol::git::{Conflicted, GitOutcome, GitWork, Predict, Predicted};

use super::merge_tests::{INTO, TEN};
use super::scene::Scene;

/// A conflict in the worktree of merges, in the file `f` and in a deleted one.
fn conflicted() -> (Scene, Conflicted) {
    let scene = Scene::new();
    scene.write("repo/f", TEN);
    scene.write("repo/deep/gone", "gone\n");
    scene.commit("repo", "ten");
    scene.branch("one", "main", |scene| {
        scene.write("one/f", TEN.replace("5\n", "one\n"));
        fs::remove_file(scene.path("one/deep/gone")).unwrap();
    });
    scene.branch("two", "main", |scene| {
        scene.write("two/f", TEN.replace("5\n", "two\n"));
        scene.write("two/deep/gone", "changed\n");
    });
    scene.merge(&["one"], 1, true);
    let conflicted = scene.conflict("two");
    (scene, conflicted)
}

#[test]
fn a_conflict_is_left_with_all_its_sides() {
    let (scene, conflicted) = conflicted();
    let kinds: Vec<_> = conflicted
        .files
        .iter()
        .map(|(path, kind)| format!("{path}: {kind}"))
        .collect();
    assert_eq!(kinds, ["deep/gone: modify/delete", "f: contents"]);
    assert_eq!(conflicted.tip, scene.tip("repo", INTO));
    let left = fs::read_to_string(scene.path("merges/f")).unwrap();
    for mark in [
        "<<<<<<< HEAD\none\n",
        "||||||| ",
        "=======\ntwo\n",
        ">>>>>>> ",
    ] {
        assert!(left.contains(mark), "{left}");
    }
    let read = |path: &str| fs::read_to_string(scene.path("packet").join(path)).ok();
    assert_eq!(read("base/f").unwrap(), TEN);
    assert_eq!(read("ours/f").unwrap(), TEN.replace("5\n", "one\n"));
    assert_eq!(read("theirs/f").unwrap(), TEN.replace("5\n", "two\n"));
    assert_eq!(read("ours/deep/gone"), None);
    assert_eq!(read("theirs/deep/gone").unwrap(), "changed\n");
    // Done again, whatever was left of the first.
    scene.write("packet.new/half", "");
    assert_eq!(scene.conflict("two"), conflicted);
    assert!(!scene.path("packet.new").exists());
}

#[test]
fn what_merges_by_now_is_no_conflict() {
    let (scene, conflicted) = conflicted();
    scene.branch("three", "main", |scene| scene.write("three/x", "x"));
    assert!(scene.conflict("three").files.is_empty());
    assert!(
        scene.conflict("one").files.is_empty(),
        "it is merged already"
    );
    assert!(scene.git("merges", &["status", "--porcelain"]).is_empty());
    assert_eq!(scene.tip("merges", "HEAD"), conflicted.tip);
}

#[test]
fn markers_that_are_left_are_named_and_nothing_is_committed() {
    let (scene, conflicted) = conflicted();
    let before = scene.git("merges", &["status", "--porcelain"]);
    let concluded = scene.conclude("two", &conflicted.tip);
    assert_eq!(
        (concluded.commit, concluded.markers),
        (None, vec!["f".to_owned()])
    );
    assert_eq!(
        scene.git("merges", &["status", "--porcelain"]),
        before,
        "the merge is still under way"
    );
    // Also when they were committed.
    scene.git("merges", &["add", "-A"]);
    scene.git("merges", &["commit", "-q", "-m", "careless"]);
    assert_eq!(scene.conclude("two", &conflicted.tip).markers, ["f"]);
}

/// Asserts that the resolution is `content` in a merge commit with exactly the two parents.
fn is_concluded(scene: &Scene, conflicted: &Conflicted, content: &str) {
    let first = scene.conclude("two", &conflicted.tip);
    let commit = first.commit.clone().unwrap();
    let two = scene.tip("repo", "two");
    assert_eq!(
        scene.parents(&commit),
        [conflicted.tip.as_str(), two.as_str()]
    );
    assert_eq!(
        scene.git("repo", &["show", &format!("{commit}:f")]),
        content
    );
    assert_eq!(scene.git("repo", &["show", &format!("{commit}:new")]), "n");
    assert_eq!(
        scene.git("repo", &["log", "-1", "--format=%B", commit.as_str()]),
        "Merge two"
    );
    assert!(scene.git("merges", &["status", "--porcelain"]).is_empty());
    assert_eq!(scene.tip("merges", "HEAD"), commit);
    assert_eq!(
        scene.conclude("two", &conflicted.tip),
        first,
        "done again, it is the same"
    );
    scene.is_sound();
}

#[test]
fn a_resolution_becomes_a_merge_commit_however_the_agent_left_it() {
    type Left = fn(&Scene);
    let ways: [Left; 5] = [
        |_| {},
        |scene| drop(scene.git("merges", &["add", "-A"])),
        |scene| drop(scene.commit("merges", "by the agent")),
        |scene| {
            scene.git("merges", &["checkout", "-q", "-f", "--detach", "two"]);
            scene.write("merges/f", "both\n");
            scene.write("merges/new", "n");
        },
        |scene| {
            scene.git("merges", &["merge", "--abort"]);
            scene.git("merges", &["checkout", "-q", "-b", "its-own"]);
            scene.write("merges/f", "both\n");
            scene.write("merges/new", "n");
            scene.commit("merges", "by another way");
        },
    ];
    for leave in ways {
        let (scene, conflicted) = conflicted();
        scene.write("merges/f", "both\n");
        scene.write("merges/new", "n");
        leave(&scene);
        is_concluded(&scene, &conflicted, "both");
    }
}

#[test]
fn one_side_alone_is_a_resolution_only_while_the_merge_is_under_way() {
    let (scene, conflicted) = conflicted();
    scene.git("merges", &["checkout", "-q", "HEAD", "--", "f"]);
    scene.git("merges", &["rm", "-q", "--cached", "deep/gone"]);
    fs::remove_file(scene.path("merges/deep/gone")).unwrap();
    assert!(scene.conclude("two", &conflicted.tip).commit.is_some());
    for give_up in [
        &["merge", "--abort"][..],
        &["checkout", "-q", "-f", "--detach", "two"][..],
    ] {
        scene.conflict("two");
        scene.git("merges", give_up);
        let concluded = scene.conclude("two", &conflicted.tip);
        assert_eq!(
            (concluded.commit, concluded.markers.len()),
            (None, 0),
            "{give_up:?}"
        );
    }
}

#[test]
fn conflicts_are_predicted_and_nothing_is_written() {
    let (scene, _) = conflicted();
    scene.branch("three", "main", |scene| {
        scene.write("three/f", format!("0\n{TEN}"))
    });
    let objects = || scene.git("repo", &["count-objects", "-v"]);
    let before = objects();
    let tip = |name: &str| scene.tip("repo", name);
    let pairs = vec![
        (tip("one"), tip("two")),
        (tip("one"), tip("three")),
        (tip("one"), tip("one")),
    ];
    let work = GitWork::Predict(Predict {
        repo: scene.text("repo"),
        pairs: pairs.clone(),
        at_most_ms: 60_000,
    });
    let GitOutcome::Predicted(predicted) = scene.perform(&work).unwrap() else {
        panic!("it predicts");
    };
    let paths: Vec<&[String]> = predicted.pairs.iter().map(|it| &*it.paths).collect();
    assert_eq!(
        paths,
        [&["deep/gone".to_owned(), "f".to_owned()][..], &[], &[]]
    );
    assert!(predicted.pairs.iter().all(|it| it.more == 0));
    assert_eq!(objects(), before);
    let repo = scene.text("repo");
    let at_most_ms = 0;
    let work = GitWork::Predict(Predict {
        repo,
        pairs,
        at_most_ms,
    });
    let none = GitOutcome::Predicted(Predicted { pairs: Vec::new() });
    assert_eq!(scene.perform(&work).unwrap(), none, "no time, no word");
}
