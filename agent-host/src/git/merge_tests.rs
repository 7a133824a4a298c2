//! Merging: in which order, with which result, and what becomes of conflicts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use protocol::git::{
    Advance, Candidate, Conclude, Concluded, Conflict, Conflicted, Freshness, GitOutcome, GitWork,
    Merge, Merged, Oid,
};
use protocol::ids::TaskId;

use super::error::GitError;
use super::scene::Scene;

pub(super) const INTO: &str = "refs/heads/batch";
pub(super) const TEN: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";

impl Scene {
    /// A commit on a branch of its own from `main`, made by what `change` does in its folder.
    pub(super) fn branch(&self, name: &str, from: &str, change: impl FnOnce(&Self)) -> Oid {
        self.worktree(name, from);
        change(self);
        self.commit(name, name)
    }

    pub(super) fn candidate(&self, task: &str) -> Candidate {
        Candidate {
            task: task.parse::<TaskId>().unwrap(),
            commit: self.tip("repo", task),
            message: format!("Merge {task}"),
        }
    }

    pub(super) fn merging(&self, tasks: &[&str], take: u32, advance: bool) -> Merge {
        Merge {
            repo: self.text("repo"),
            worktree: self.text("merges"),
            into: INTO.to_owned(),
            pinned: self.tip("repo", "main"),
            candidates: tasks.iter().map(|task| self.candidate(task)).collect(),
            take,
            advance,
            freshness: Freshness::Ignore,
            watch: Some("refs/heads/main".to_owned()),
        }
    }

    pub(super) fn merge(&self, tasks: &[&str], take: u32, advance: bool) -> Merged {
        let work = GitWork::Merge(self.merging(tasks, take, advance));
        match self.perform(&work).unwrap() {
            GitOutcome::Merged(merged) => merged,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn conflict(&self, task: &str) -> Conflicted {
        let work = GitWork::Conflict(Conflict {
            repo: self.text("repo"),
            worktree: self.text("merges"),
            into: INTO.to_owned(),
            candidate: self.candidate(task),
            packet: self.text("packet"),
        });
        match self.perform(&work).unwrap() {
            GitOutcome::Conflicted(conflicted) => conflicted,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn conclude(&self, task: &str, tip: &Oid) -> Concluded {
        let work = GitWork::Conclude(Conclude {
            repo: self.text("repo"),
            worktree: self.text("merges"),
            tip: tip.clone(),
            candidate: self.candidate(task),
        });
        match self.perform(&work).unwrap() {
            GitOutcome::Concluded(concluded) => concluded,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn advance(&self, from: &Oid, to: &Oid) -> Result<GitOutcome, GitError> {
        self.perform(&GitWork::Advance(Advance {
            repo: self.text("repo"),
            into: INTO.to_owned(),
            from: from.clone(),
            to: to.clone(),
        }))
    }

    pub(super) fn parents(&self, commit: &Oid) -> Vec<String> {
        let out = self.git("repo", &["log", "-1", "--format=%P", commit.as_str()]);
        out.split(' ').map(str::to_owned).collect()
    }
}

pub(super) fn tasks(merged: &Merged) -> Vec<&str> {
    merged
        .merges
        .iter()
        .map(|merge| merge.task.as_str())
        .collect()
}

/// The other side of a conflict is what changed the file, not what was merged last.
#[test]
fn a_conflict_names_the_merges_that_changed_its_files() {
    let scene = Scene::new();
    scene.write("repo/f", TEN);
    scene.write("repo/g", TEN);
    scene.commit("repo", "numbers");
    let change = |name: &'static str, file: &'static str, text: String| {
        scene.branch(name, "main", |scene| {
            scene.write(&format!("{name}/{file}"), text)
        });
    };
    change("first", "f", TEN.replace('3', "three"));
    change("other", "h", "new".to_owned());
    change("second", "f", TEN.replace("9\n", "nine\n"));
    change("last", "f", TEN.replace('3', "III").replace("9\n", "IX\n"));
    change("new", "h", "newer".to_owned());
    let before = scene.merge(&["first"], 1, true);
    scene.merge(&["second"], 1, true);
    let made = scene.merge(&["other", "last"], 2, true);
    assert_eq!(tasks(&made), ["other"]);
    let merge_of = |at: usize| scene.tip("repo", &format!("{INTO}~{at}"));
    assert_eq!(made.conflicts[0].by, [merge_of(1), merge_of(2)]);
    assert_eq!(merge_of(2), before.merges[0].commit);
    assert_eq!(made.conflicts[0].with, merge_of(0));
    // A file that both made.
    let made = scene.merge(&["new"], 1, true);
    assert_eq!(made.conflicts[0].by, [merge_of(0)]);
}

#[test]
fn commits_are_merged_one_after_the_other_and_the_branch_moves_once() {
    let scene = Scene::new();
    scene.write("repo/f", TEN);
    scene.commit("repo", "ten");
    scene.branch("one", "main", |scene| {
        scene.write("one/f", TEN.replace("2\n", "two\n"))
    });
    scene.branch("two", "main", |scene| {
        scene.write("two/f", TEN.replace("9\n", "nine\n"))
    });
    let (before, pinned) = (
        scene.git("repo", &["status", "--porcelain"]),
        scene.tip("repo", "main"),
    );
    let merged = scene.merge(&["one", "two"], 9, true);
    assert_eq!(tasks(&merged), ["one", "two"]);
    assert_eq!((&merged.tip, merged.conflicts.len()), (&pinned, 0));
    let [one, two] = [&merged.merges[0].commit, &merged.merges[1].commit];
    assert_eq!(
        scene.parents(one),
        [pinned.as_str(), scene.tip("repo", "one").as_str()]
    );
    assert_eq!(
        scene.parents(two),
        [one.as_str(), scene.tip("repo", "two").as_str()]
    );
    assert_eq!(scene.tip("repo", INTO), *two);
    let text = TEN.replace("2\n", "two\n").replace("9\n", "nine\n");
    assert_eq!(
        fs::read_to_string(scene.path("merges/f")).unwrap(),
        text,
        "the worktree follows"
    );
    assert_eq!(
        scene.git("repo", &["log", "-1", "--format=%B", INTO]),
        "Merge two"
    );
    // The operator's branch and folder are as they were.
    assert_eq!(scene.tip("repo", "main"), pinned);
    assert_eq!(scene.git("repo", &["status", "--porcelain"]), before);
    scene.is_sound();
}

#[test]
fn a_merge_that_is_done_again_comes_to_the_same_commits() {
    let scene = Scene::new();
    scene.branch("one", "main", |scene| scene.write("one/a", "a"));
    scene.branch("two", "main", |scene| scene.write("two/b", "b"));
    let first = scene.merge(&["one", "two"], 9, false);
    assert_eq!(scene.tip("repo", INTO), first.tip, "nothing moved yet");
    // What a killed one leaves: a merge under way, locks, files.
    scene.write("merges/a", "half");
    scene.write("repo/.git/worktrees/merges/MERGE_HEAD", first.tip.as_str());
    scene.write("repo/.git/worktrees/merges/index.lock", "");
    scene.write("repo/.git/refs/heads/batch.lock", "");
    assert_eq!(scene.merge(&["one", "two"], 9, false), first);
    let moved = scene.merge(&["one", "two"], 9, true);
    assert_eq!(moved, first);
    let again = scene.merge(&["one", "two"], 9, true);
    let tip = scene.tip("repo", INTO);
    assert!(
        again.merges.iter().all(|merge| merge.commit == tip),
        "{again:?}"
    );
    assert_eq!(again.tip, tip);
    assert_eq!(
        scene.git("repo", &["rev-list", "--count", "--merges", INTO]),
        "2"
    );
    scene.is_sound();
}

#[test]
fn what_another_is_built_on_comes_first_then_the_fewest_conflicts() {
    let scene = Scene::new();
    scene.write("repo/f", TEN);
    scene.commit("repo", "ten");
    scene.branch("base", "main", |scene| scene.write("base/x", "x"));
    scene.branch("built", "base", |scene| scene.write("built/y", "y"));
    let line = |name: &'static str| {
        move |scene: &Scene| scene.write(&format!("{name}/f"), TEN.replace("5\n", name))
    };
    scene.branch("left", "main", line("left"));
    scene.branch("right", "main", line("right"));
    scene.branch("other", "main", |scene| scene.write("other/o", "o"));
    let merged = scene.merge(&["built", "left", "right", "other", "base"], 9, true);
    assert_eq!(tasks(&merged), ["other", "base", "built", "left"]);
    let conflict = &merged.conflicts[0];
    assert_eq!(conflict.task.as_str(), "right");
    assert_eq!(conflict.with, merged.merges[3].commit);
    assert_eq!(conflict.files, ["f"]);
    assert!(scene.git("merges", &["status", "--porcelain"]).is_empty());
}

#[test]
fn no_more_are_merged_than_asked_and_what_is_held_already_is_not_merged_again() {
    let scene = Scene::new();
    for name in ["one", "two", "three"] {
        scene.branch(name, "main", |scene| {
            scene.write(&format!("{name}/{name}"), name)
        });
    }
    let first = scene.merge(&["one", "two", "three"], 1, true);
    assert_eq!(tasks(&first), ["one"]);
    let tip = scene.tip("repo", INTO);
    let second = scene.merge(&["one", "two", "three"], 1, true);
    assert_eq!(tasks(&second), ["one", "two"]);
    assert_eq!(second.merges[0].commit, tip);
}

fn text(name: &str) -> String {
    format!("{TEN}{name}")
}

/// Changes every file in the way of one of two sides, in a worktree of its own.
fn change_all(scene: &Scene, name: &str, ours: bool) {
    let at = |file: &str| format!("{name}/{file}");
    let word = if ours { "ours" } else { "theirs" };
    scene.worktree(name, "main");
    fs::write(
        scene.path(&at("contents")),
        text("contents").replace("5\n", word),
    )
    .unwrap();
    scene.write(&at("added"), word);
    scene.write(&at("binary"), [0, u8::from(ours), 9]);
    scene.write(
        &at("large.bin"),
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{word}\n"),
    );
    fs::remove_file(scene.path(&at("link"))).unwrap();
    symlink(word, scene.path(&at("link"))).unwrap();
    let (gone, changed) = if ours {
        ("ours-gone", "theirs-gone")
    } else {
        ("theirs-gone", "ours-gone")
    };
    fs::remove_file(scene.path(&at(gone))).unwrap();
    scene.write(&at(changed), text(changed).replace("5\n", word));
    if ours {
        scene.git(name, &["mv", "renamed", "renamed-by-us"]);
        scene.write(&at("place/more"), "a folder stays one");
    } else {
        fs::remove_file(scene.path(&at("renamed"))).unwrap();
        fs::remove_dir_all(scene.path(&at("place"))).unwrap();
        scene.write(&at("place"), "a file now");
    }
    scene.git(name, &["add", "-A", "--", ":!sub"]);
    // Neither is the one that the base has.
    let commit = if ours { "1" } else { "2" }.repeat(40);
    let entry = format!("160000,{commit},sub");
    scene.git(name, &["update-index", "--cacheinfo", &entry]);
    scene.git(name, &["commit", "-q", "-m", name]);
}

/// What main and a branch do to the same files, and what the conflict is called.
#[test]
fn every_kind_of_conflict_is_told_and_stops_nobody() {
    let scene = Scene::new();
    let mut kinds = Vec::new();
    for file in [
        "contents",
        "theirs-gone",
        "ours-gone",
        "renamed",
        "place/holder",
    ] {
        scene.write(&format!("repo/{file}"), text(file));
    }
    scene.write("repo/binary", [0, 1, 2, 3]);
    scene.write(
        "repo/large.bin",
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    );
    symlink("somewhere", scene.path("repo/link")).unwrap();
    scene.commit("repo", "all kinds");
    let sub = scene.tip("repo", "main");
    scene.git(
        "repo",
        &[
            "update-index",
            "--add",
            "--cacheinfo",
            &format!("160000,{sub},sub"),
        ],
    );
    scene.git("repo", &["commit", "-q", "-m", "a submodule"]);
    scene.git("repo", &["branch", "batch"]);
    change_all(&scene, "mine", true);
    change_all(&scene, "yours", false);
    scene.git("repo", &["update-ref", INTO, "mine"]);
    scene.branch("plain", "main", |scene| scene.write("plain/plain", "p"));
    let merged = scene.merge(&["yours", "plain"], 9, true);
    assert_eq!(tasks(&merged), ["plain"]);
    let conflict = &merged.conflicts[0];
    for (path, kind) in &conflict.kinds {
        kinds.push(format!("{path}: {kind}"));
    }
    assert_eq!(
        kinds,
        [
            "added: add/add",
            "binary: binary",
            "contents: contents",
            "large.bin: lfs pointer",
            "link: symlink",
            "ours-gone: modify/delete",
            "place: file/directory",
            "renamed-by-us: rename/delete",
            "sub: submodule",
            "theirs-gone: modify/delete",
        ]
    );
}

#[test]
fn histories_that_share_nothing_are_a_conflict() {
    let scene = Scene::new();
    scene.git("repo", &["checkout", "-q", "--orphan", "alone"]);
    scene.commit("repo", "alone");
    scene.git("repo", &["checkout", "-q", "main"]);
    let merged = scene.merge(&["alone"], 1, true);
    assert_eq!(merged.conflicts[0].kinds["."], "unrelated histories");
}

#[test]
fn merge_drivers_and_renames_are_those_of_git() {
    let scene = Scene::new();
    scene.git("repo", &["config", "merge.both.driver", "cat %B >> %A"]);
    scene.git(
        "repo",
        &[
            "config",
            "merge.bad.driver",
            "printf '<<<<<<< a\\n=======\\n>>>>>>> b\\n' > %A",
        ],
    );
    scene.write("repo/.gitattributes", "list merge=both\nbad merge=bad\n");
    scene.write("repo/list", "0\n");
    scene.write("repo/bad", "0\n");
    scene.write("repo/old", TEN);
    scene.commit("repo", "settings");
    scene.branch("one", "main", |scene| {
        scene.write("one/list", "one\n");
        scene.git("one", &["mv", "old", "new"]);
    });
    scene.branch("two", "main", |scene| {
        scene.write("two/list", "two\n");
        scene.write("two/old", format!("{TEN}more\n"));
    });
    scene.branch("three", "main", |scene| scene.write("three/bad", "three\n"));
    scene.branch("four", "main", |scene| scene.write("four/bad", "four\n"));
    let merged = scene.merge(&["one", "two"], 9, true);
    assert_eq!(tasks(&merged), ["one", "two"]);
    assert_eq!(
        fs::read_to_string(scene.path("merges/list")).unwrap(),
        "one\ntwo\n"
    );
    assert_eq!(
        fs::read_to_string(scene.path("merges/new")).unwrap(),
        format!("{TEN}more\n")
    );
    let merged = scene.merge(&["three", "four"], 9, true);
    assert_eq!(tasks(&merged), ["three"]);
    assert_eq!(
        merged.conflicts[0].kinds,
        BTreeMap::from([("bad".to_owned(), "markers".to_owned())])
    );
}

#[test]
fn a_branch_that_somebody_has_checked_out_is_not_moved() {
    let scene = Scene::new();
    let pinned = scene.tip("repo", "main");
    let one = scene.branch("one", "main", |scene| scene.write("one/a", "a"));
    scene.git("repo", &["branch", "batch"]);
    scene.git(
        "repo",
        &["worktree", "add", "-q", &scene.text("theirs"), "batch"],
    );
    for refused in [
        scene.advance(&pinned, &one),
        scene.perform(&GitWork::Merge(scene.merging(&["one"], 1, true))),
    ] {
        let text = refused.unwrap_err().to_string();
        assert!(
            text.contains("is checked out in") && text.contains("theirs"),
            "{text}"
        );
    }
    assert_eq!(scene.tip("repo", INTO), pinned);
    scene.git("repo", &["worktree", "remove", &scene.text("theirs")]);
    scene.advance(&pinned, &one).unwrap();
    assert_eq!(scene.tip("repo", INTO), one);
}

#[test]
fn the_branch_moves_only_forward_and_only_from_where_it_is_believed() {
    let scene = Scene::new();
    let pinned = scene.tip("repo", "main");
    let one = scene.branch("one", "main", |scene| scene.write("one/a", "a"));
    let two = scene.branch("two", "main", |scene| scene.write("two/b", "b"));
    let text = scene.advance(&pinned, &one).unwrap_err().to_string();
    assert!(text.contains("there is no branch"), "{text}");
    scene.git("repo", &["branch", "batch", "one"]);
    let text = scene.advance(&pinned, &two).unwrap_err().to_string();
    assert!(text.contains("somebody moved it"), "{text}");
    let text = scene.advance(&one, &two).unwrap_err().to_string();
    assert!(text.contains("does not contain"), "{text}");
    scene.advance(&pinned, &one).unwrap();
    scene.advance(&one, &pinned).unwrap();
    assert_eq!(
        scene.tip("repo", INTO),
        one,
        "there or beyond: nothing is done"
    );
}
