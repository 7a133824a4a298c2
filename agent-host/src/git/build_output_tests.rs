//! Build output: what goes, what stays whatever its name is, and what a kill leaves.

use std::os::unix::fs::symlink;

use protocol::git::GitWork;

use super::*;
use crate::git::scene::{Scene, picture};

impl Scene {
    fn build_output(&self, remove: bool) -> Result<BuildOutputFound, GitError> {
        let work = GitWork::BuildOutput(BuildOutput {
            repo: self.text("repo"),
            worktree: self.text("w"),
            remove,
        });
        match self.perform(&work)? {
            GitOutcome::BuildOutput(found) => Ok(found),
            other => panic!("{other:?}"),
        }
    }
}

fn scene(rules: &str) -> Scene {
    let scene = Scene::new();
    scene.write("repo/.gitignore", rules);
    scene.commit("repo", "rules");
    scene.worktree("w", "main");
    scene
}

fn paths(found: &BuildOutputFound) -> Vec<&str> {
    found.folders.iter().map(|one| one.path.as_str()).collect()
}

fn why<'a>(found: &'a BuildOutputFound, path: &str) -> &'a str {
    let one = found.stays.iter().find(|one| one.path == path);
    &one.unwrap_or_else(|| panic!("{path} in {found:?}")).why
}

#[test]
fn what_is_ignored_and_can_be_built_again_goes_and_nothing_else() {
    let scene = scene("target/\nnode_modules\n*.log\ndata/\n.env\n");
    scene.write("w/target/debug/a", [1; 5000]);
    scene.write("w/sub/node_modules/x/target/y", "y");
    scene.write("w/sub/code.rs", "mine");
    scene.write("w/data/target/kept", "ignored, but no tool's folder");
    scene.write("w/.env", "secret");
    scene.write("w/build.log", "log");
    scene.write("w/venv/mine", "not ignored");
    let before = picture(&scene.path("w"));
    let looked = scene.build_output(false).unwrap();
    assert_eq!(paths(&looked), ["sub/node_modules", "target"]);
    assert!(looked.bytes >= 5000 && !looked.removed);
    assert_eq!(looked.folders[1].files, 1);
    assert_eq!(picture(&scene.path("w")), before, "a look changes nothing");

    let went = scene.build_output(true).unwrap();
    assert_eq!((&went.folders, went.bytes), (&looked.folders, looked.bytes));
    let mut left = before;
    left.retain(|(path, _, _)| {
        !path.starts_with("target") && !path.starts_with("sub/node_modules")
    });
    assert_eq!(picture(&scene.path("w")), left);
    assert!(!scene.path(".w.supervisor-build-output").exists());
    assert_eq!(paths(&scene.build_output(true).unwrap()), [""; 0]);
    scene.is_sound();
}

#[test]
fn what_is_or_was_tracked_stays_under_whatever_name() {
    let scene = Scene::new();
    scene.write("repo/target/fixture", "tracked");
    scene.write("repo/venv/was", "tracked once");
    scene.commit("repo", "with a tracked target");
    scene.write("repo/.gitignore", "target/\nvenv/\n");
    scene.commit("repo", "ignored too late");
    scene.worktree("w", "main");
    scene.write("w/target/made", "made");
    scene.git("w", &["rm", "-q", "--cached", "venv/was"]);
    for remove in [false, true] {
        let found = scene.build_output(remove).unwrap();
        assert_eq!(paths(&found), [""; 0]);
        assert!(why(&found, "venv").contains("were tracked"), "{found:?}");
    }
    assert!(scene.path("w/target/made").exists() && scene.path("w/venv/was").exists());
}

#[test]
fn a_link_in_the_place_of_build_output_is_never_followed() {
    let scene = scene("target\nsub/\n");
    scene.write("elsewhere/target/precious", "x");
    symlink(scene.path("elsewhere/target"), scene.path("w/target")).unwrap();
    fs::create_dir_all(scene.path("w/node_modules")).unwrap();
    scene.write("w/.gitignore", "target\nnode_modules\n");
    symlink(scene.path("elsewhere"), scene.path("w/node_modules/out")).unwrap();
    let found = scene.build_output(true).unwrap();
    assert_eq!(paths(&found), ["node_modules"]);
    assert!(scene.path("w/target").is_symlink());
    assert!(scene.path("elsewhere/target/precious").exists());
}

#[test]
fn build_output_with_a_repository_in_it_stays() {
    let scene = scene("target/\nnode_modules/\nvenv/\n");
    scene.write("w/target/deep/work/file", "x");
    scene.git("w/target/deep/work", &["init", "-q"]);
    scene.write("w/node_modules/a", "x");
    scene.git("w/node_modules", &["init", "-q", "--bare", "bare"]);
    scene.write("w/venv/linked/.git", "gitdir: /somewhere/else\n");
    let found = scene.build_output(true).unwrap();
    assert_eq!(paths(&found), [""; 0], "{found:?}");
    // git takes a folder with a repository in it for one that it does not ignore as a whole.
    for path in [
        "w/target/deep/work/.git",
        "w/node_modules/bare/HEAD",
        "w/venv/linked/.git",
    ] {
        assert!(scene.path(path).exists(), "{path}");
    }
    assert!(
        why(&found, "node_modules").contains("a repository"),
        "{found:?}"
    );
}

#[test]
fn what_a_killed_removal_left_aside_goes_with_the_next_one_and_with_the_worktree() {
    let scene = scene("target/\n");
    scene.write("w/target/a", "a");
    scene.write(".w.supervisor-build-output/going/half", "x");
    let looked = scene.build_output(false).unwrap();
    assert_eq!(paths(&looked), ["target"]);
    assert!(scene.path(".w.supervisor-build-output").exists());
    scene.build_output(true).unwrap();
    assert!(!scene.path(".w.supervisor-build-output").exists());
    scene.write(".w.supervisor-build-output/going/half", "x");
    remove_left(&scene.path("w")).unwrap();
    assert!(!scene.path(".w.supervisor-build-output").exists());
}

#[test]
fn what_only_the_operator_ignores_everywhere_is_no_build_output() {
    let scene = scene("*.o\n");
    scene.write("mine", "target/\nvenv/\n");
    let mine = scene.text("mine");
    scene.git("repo", &["config", "core.excludesFile", &mine]);
    scene.write("w/target/a", "a");
    assert_eq!(paths(&scene.build_output(true).unwrap()), [""; 0]);
    assert!(scene.path("w/target/a").exists());
    // The repository's own file beside its rules counts.
    scene.write("repo/.git/info/exclude", "venv/\n");
    scene.write("w/venv/a", "a");
    assert_eq!(paths(&scene.build_output(true).unwrap()), ["venv"]);
}

#[test]
fn folders_that_their_tool_made_unwritable_go_too_and_a_repository_in_the_worktrees_place_refuses()
{
    use std::os::unix::fs::PermissionsExt;
    let scene = scene("target/\n");
    scene.write("w/target/closed/a", "a");
    let closed = fs::Permissions::from_mode(0o500);
    fs::set_permissions(scene.path("w/target/closed"), closed).unwrap();
    assert_eq!(paths(&scene.build_output(true).unwrap()), ["target"]);
    scene.write("w/target/again", "a");
    fs::remove_file(scene.path("w/.git")).unwrap();
    scene.git("w", &["init", "-q"]);
    let refused = scene.build_output(true).unwrap_err().to_string();
    assert!(refused.contains("a repository of its own"), "{refused}");
    assert!(scene.path("w/target/again").exists());
}
