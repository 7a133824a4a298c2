//! What housekeeping of the operator's removes while work is done is made again.

use std::fs;
use std::process::{Child, Command};

use protocol::git::{Candidate, CommitWork, Freshness, GitOutcome, GitWork, Merge, Oid, Salvage};

use super::scene::Scene;

const REF: &str = "refs/supervisor/salvage/batch/task/1";

impl Scene {
    fn commit_work(&self, base: &Oid) -> GitWork {
        GitWork::Commit(CommitWork {
            repo: self.text("repo"),
            worktree: self.text("task"),
            branch: "refs/heads/task".to_owned(),
            base: base.clone(),
            message: "the work".to_owned(),
            touches: None,
            outputs: Vec::new(),
            outputs_dir: String::new(),
        })
    }

    fn committed(&self, base: &Oid) -> Oid {
        match self.perform(&self.commit_work(base)).unwrap() {
            GitOutcome::Committed(made) => made.commit,
            other => panic!("{other:?}"),
        }
    }

    fn remove_object(&self, name: &str) {
        let (folder, file) = name.split_at(2);
        fs::remove_file(self.path(&format!("repo/.git/objects/{folder}/{file}"))).unwrap();
    }

    /// A `git gc --prune=now` that has looked at the refs already, and removes the object to which this
    /// one will lead as soon as it does.
    fn housekeeping(&self, reference: &str, object: &str) -> Child {
        let script = format!(
            "echo \"$$ $(uname -n)\" > .git/gc.pid
             was=$(git rev-parse -q --verify {reference})
             until now=$(git rev-parse -q --verify {reference}) && [ \"$now\" != \"$was\" ]; do :; done
             gone=$(git rev-parse $now{object})
             rm -f .git/objects/$(echo $gone | cut -c1-2)/$(echo $gone | cut -c3-) .git/gc.pid"
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "it stands for the operator's git"
        )]
        let child = Command::new("sh")
            .args(["-c", &script])
            .current_dir(self.path("repo"))
            .spawn()
            .unwrap();
        while !self.path("repo/.git/gc.pid").exists() {
            std::thread::yield_now();
        }
        child
    }
}

#[test]
fn a_commit_whose_objects_housekeeping_takes_is_made_again() {
    for object in ["", "^{tree}", ":src/new"] {
        let scene = Scene::new();
        let base = scene.tip("repo", "main");
        scene.worktree("task", "main");
        scene.write("task/src/new", "work\n");
        let mut gc = scene.housekeeping("refs/heads/task", object);
        let commit = scene.committed(&base);
        assert!(gc.wait().unwrap().success());
        assert_eq!(scene.tip("repo", "task"), commit);
        let shown = scene.git("repo", &["show", &format!("{commit}:src/new")]);
        assert_eq!(shown, "work", "{object}");
        scene.is_sound();
    }
}

#[test]
fn a_branch_whose_commit_is_gone_goes_back_to_the_last_one_that_is_there() {
    let scene = Scene::new();
    let base = scene.tip("repo", "main");
    scene.worktree("task", "main");
    scene.write("task/one", "1\n");
    let first = scene.committed(&base);
    scene.write("task/two", "2\n");
    let second = scene.committed(&base);
    scene.remove_object(second.as_str());
    let again = scene.committed(&base);
    let parent = scene.git("repo", &["rev-parse", &format!("{again}^")]);
    assert_eq!(parent, first.as_str());
    assert_eq!(scene.git("repo", &["show", "task:two"]), "2");
    scene.is_sound();
}

#[test]
fn a_salvage_whose_objects_housekeeping_takes_is_made_again() {
    for object in ["", ":src/new"] {
        let scene = Scene::new();
        scene.worktree("task", "main");
        scene.write("task/src/new", "work\n");
        let mut gc = scene.housekeeping(REF, object);
        let work = GitWork::Salvage(Salvage {
            repo: scene.text("repo"),
            worktree: scene.text("task"),
            reference: REF.to_owned(),
            ignored: Vec::new(),
            note: "n".to_owned(),
            last: None,
        });
        scene.perform(&work).unwrap();
        assert!(gc.wait().unwrap().success());
        let shown = scene.git("repo", &["show", &format!("{REF}:src/new")]);
        assert_eq!(shown, "work", "{object}");
        scene.is_sound();
    }
}

#[test]
fn a_merge_whose_commit_is_gone_is_made_again() {
    let scene = Scene::new();
    let base = scene.tip("repo", "main");
    scene.worktree("task", "main");
    scene.write("task/new", "work\n");
    let commit = scene.committed(&base);
    let work = GitWork::Merge(Merge {
        repo: scene.text("repo"),
        worktree: scene.text("merges"),
        into: "refs/heads/batch".to_owned(),
        pinned: base,
        candidates: vec![Candidate {
            task: "task".parse().unwrap(),
            commit,
            message: "Merge task".to_owned(),
        }],
        take: 1,
        advance: false,
        freshness: Freshness::Ignore,
        watch: None,
    });
    let merged = || match scene.perform(&work).unwrap() {
        GitOutcome::Merged(made) => made.merges[0].commit.clone(),
        other => panic!("{other:?}"),
    };
    let first = merged();
    scene.remove_object(first.as_str());
    assert_eq!(merged(), first);
    scene.is_sound();
}

#[test]
fn what_says_that_it_runs_and_does_not_is_not_waited_for() {
    let scene = Scene::new();
    let base = scene.tip("repo", "main");
    scene.worktree("task", "main");
    for line in ["1 another-machine", "2147483646 here", "", "no number here"] {
        scene.write("repo/.git/gc.pid", line);
        scene.write("task/new", line);
        scene.committed(&base);
    }
}

#[test]
fn what_a_sparse_checkout_leaves_out_stays_when_the_index_is_gone() {
    let scene = Scene::new();
    scene.write("repo/in/a", "a\n");
    scene.write("repo/out/b", "b\n");
    let base = scene.commit("repo", "two folders");
    scene.git("repo", &["sparse-checkout", "set", "in"]);
    scene.worktree("task", "main");
    scene.git("task", &["sparse-checkout", "set", "in"]);
    let index = scene.git("task", &["rev-parse", "--git-path", "index"]);
    for spoil in ["", "no index"] {
        fs::remove_file(&index).unwrap();
        if !spoil.is_empty() {
            fs::write(&index, spoil).unwrap();
        }
        scene.write("task/in/a", format!("changed{spoil}\n"));
        let commit = scene.committed(&base);
        let (base, commit) = (base.as_str(), commit.as_str());
        let names = scene.git("repo", &["diff", "--name-only", base, commit]);
        assert_eq!(names, "in/a");
    }
}
