//! In which order real commits are merged: never in the way of more others than need be.

use super::merge_tests::{INTO, TEN, tasks};
use super::scene::Scene;

/// A repository of ten lines.
fn ten() -> Scene {
    let scene = Scene::new();
    scene.write("repo/f", TEN);
    scene.commit("repo", "ten");
    scene
}

/// A branch that changes these lines.
fn changing(scene: &Scene, name: &str, lines: &[u32]) {
    scene.branch(name, "main", |scene| {
        let text: String = (1..=10)
            .map(|line| match lines.contains(&line) {
                true => format!("{name}\n"),
                false => format!("{line}\n"),
            })
            .collect();
        scene.write(&format!("{name}/f"), text);
    });
}

/// However they are given, the one that is in the way of three others goes last, and it alone is left.
#[test]
fn one_in_the_way_of_three_goes_last_whoever_was_first() {
    let scene = ten();
    changing(&scene, "hub", &[2, 5, 8]);
    changing(&scene, "left", &[2]);
    changing(&scene, "middle", &[5]);
    changing(&scene, "right", &[8]);
    for given in [
        ["hub", "left", "middle", "right"],
        ["right", "hub", "middle", "left"],
        ["left", "middle", "right", "hub"],
    ] {
        let merged = scene.merge(&given, 9, false);
        let leaves: Vec<&str> = given.into_iter().filter(|name| *name != "hub").collect();
        assert_eq!(tasks(&merged), leaves, "equals keep their order");
        assert_eq!(merged.conflicts.len(), 1);
        assert_eq!(merged.conflicts[0].task.as_str(), "hub");
        let again = scene.merge(&given, 9, false);
        assert_eq!(merged, again, "the same every time");
    }
}

/// What is merged one at a time is taken from all that wait, in the same order.
#[test]
fn one_at_a_time_takes_the_same_order_as_all_together() {
    let scene = ten();
    changing(&scene, "hub", &[2, 5]);
    changing(&scene, "left", &[2]);
    changing(&scene, "right", &[5]);
    let waiting = ["hub", "left", "right"];
    assert_eq!(tasks(&scene.merge(&waiting, 1, true)), ["left"]);
    let second = scene.merge(&["hub", "right"], 1, true);
    assert_eq!(
        tasks(&second),
        ["right"],
        "what conflicts with the branch is last"
    );
    assert_eq!(scene.merge(&["hub"], 1, true).conflicts.len(), 1);
}

/// It conflicts with nobody who waits, but with what is merged already.
#[test]
fn what_conflicts_with_the_branch_goes_behind_what_conflicts_with_others() {
    let scene = ten();
    changing(&scene, "there", &[2]);
    changing(&scene, "stale", &[2]);
    changing(&scene, "one", &[5]);
    changing(&scene, "two", &[5]);
    scene.merge(&["there"], 1, true);
    let merged = scene.merge(&["stale", "one", "two"], 9, false);
    assert_eq!(tasks(&merged), ["one"]);
    let conflicts: Vec<&str> = merged.conflicts.iter().map(|it| it.task.as_str()).collect();
    assert_eq!(conflicts, ["two", "stale"]);
}

/// What conflicts with the one conflicts with what is built on it, too: of these two and one other that one
/// is left. And what is built on another never goes before it, however light it is.
#[test]
fn a_dependency_goes_before_what_is_built_on_it() {
    let scene = ten();
    changing(&scene, "base", &[2, 5, 8]);
    scene.branch("built", "base", |scene| scene.write("built/own", "own\n"));
    changing(&scene, "other", &[5]);
    for given in [["built", "other", "base"], ["other", "built", "base"]] {
        let merged = scene.merge(&given, 9, false);
        assert_eq!(tasks(&merged), ["base", "built"], "{given:?}");
        assert_eq!(merged.conflicts[0].task.as_str(), "other");
    }
}

/// They change no file in common: what one calls a file is a folder to the other.
#[test]
fn a_file_where_others_have_a_folder_goes_behind_them() {
    let scene = ten();
    scene.branch("file", "main", |scene| scene.write("file/x", "file\n"));
    for name in ["a", "b"] {
        scene.branch(name, "main", |scene| {
            scene.write(&format!("{name}/x/{name}"), "below\n");
        });
    }
    let merged = scene.merge(&["file", "a", "b"], 9, true);
    assert_eq!(tasks(&merged), ["a", "b"]);
    assert_eq!(merged.conflicts[0].task.as_str(), "file");
    assert!(
        scene
            .git("repo", &["ls-tree", "-r", "--name-only", INTO])
            .contains("x/a")
    );
}
