//! Salvage and restore: what is in a worktree comes back as it was, or there is no ref.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use protocol::git::{GitOutcome, GitWork, Kept, Remove, Restore, Restored, Salvage, Salvaged};

use super::error::GitError;
use super::scene::{Scene, picture};

#[path = "salvage_hostile_tests.rs"]
mod hostile;

const REF: &str = "refs/supervisor/salvage/batch/task/1";
const SECOND: &str = "refs/supervisor/salvage/batch/task/2";

impl Scene {
    fn salvage(&self, worktree: &str, ignored: &[&str]) -> Result<Salvaged, GitError> {
        self.salvage_after(worktree, ignored, None)
    }

    fn salvage_after(
        &self,
        worktree: &str,
        ignored: &[&str],
        last: Option<&Salvaged>,
    ) -> Result<Salvaged, GitError> {
        let work = GitWork::Salvage(Salvage {
            repo: self.text("repo"),
            worktree: self.text(worktree),
            reference: last.map_or(REF, |_| SECOND).to_owned(),
            ignored: ignored.iter().map(|&glob| glob.to_owned()).collect(),
            note: "the story\nwants it".to_owned(),
            last: last.map(|last| Kept {
                reference: last.reference.clone(),
                commit: last.commit.clone(),
            }),
        });
        match self.perform(&work)? {
            GitOutcome::Salvaged(salvaged) => Ok(salvaged),
            other => panic!("{other:?}"),
        }
    }

    fn restore(&self, to: &str, staged: bool) -> Result<Restored, GitError> {
        let work = GitWork::Restore(Restore {
            repo: self.text("repo"),
            reference: REF.to_owned(),
            to: self.text(to),
            staged,
            modules: None,
        });
        match self.perform(&work)? {
            GitOutcome::Restored(restored) => Ok(restored),
            other => panic!("{other:?}"),
        }
    }

    fn permit(&self, below: &str, mode: u32) {
        fs::set_permissions(self.path(below), fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// What is in a worktree but for its link.
fn content(scene: &Scene, worktree: &str) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all = picture(&scene.path(worktree));
    all.retain(|(path, _, _)| path != OsStr::new(".git"));
    all
}

/// A worktree in which everything is that a worktree can hold.
fn busy() -> Scene {
    let scene = Scene::new();
    scene.write("repo/.gitignore", "target/\n*.log\n.env\n");
    scene.write("repo/.gitattributes", "*.txt text eol=crlf\n* ident\n");
    scene.write(
        "repo/moved",
        "it is moved as it is, and is long enough to be known again\n",
    );
    scene.write("repo/gone", "it is deleted\n");
    scene.write("repo/changed.txt", "one\r\n");
    scene.write("repo/staged", "one\n");
    scene.commit("repo", "second");
    scene.worktree("w", "main");
    scene.write("w/changed.txt", "one\ntwo\r\nthree $Id$\n");
    scene.write("w/staged", "staged\n");
    scene.git("w", &["add", "staged"]);
    scene.write("w/staged", "and changed again\n");
    fs::create_dir_all(scene.path("w/deep/er")).unwrap();
    scene.git("w", &["mv", "moved", "deep/er/moved"]);
    fs::remove_file(scene.path("w/gone")).unwrap();
    scene.write("w/untracked", [0, 159, 255, 10, 13, 0]);
    scene.write("w/tool.sh", "#!/bin/sh\n");
    scene.permit("w/tool.sh", 0o751);
    scene.write("w/secret", "");
    scene.permit("w/secret", 0o600);
    fs::create_dir_all(scene.path("w/empty/emptier")).unwrap();
    scene.permit("w/empty", 0o700);
    symlink("/etc/passwd", scene.path("w/link")).unwrap();
    symlink("nowhere/at all", scene.path("w/dangling")).unwrap();
    symlink("deep", scene.path("w/to-folder")).unwrap();
    symlink("README", scene.path("w/.gitmodules")).unwrap();
    let odd = scene
        .path("w")
        .join(OsStr::from_bytes(b"caf\xe9 \n\"\\ \xff"));
    fs::write(odd, "named as it likes").unwrap();
    // A little more than what is held in memory.
    let large: Vec<u8> = (0..5_000_000u32)
        .flat_map(|n| (n / 7).to_le_bytes())
        .take(9 << 20)
        .collect();
    scene.write("w/large", large);
    scene
}

#[test]
fn a_worktree_comes_back_bit_for_bit() {
    let scene = busy();
    let before = content(&scene, "w");
    let salvaged = scene.salvage("w", &[]).unwrap();
    assert_eq!(salvaged.commit, scene.tip("repo", REF));
    assert_eq!(salvaged.skipped, Vec::<String>::new());
    assert_eq!(content(&scene, "w"), before, "the worktree is only read");
    let restored = scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
    assert_eq!(
        (restored.files, restored.bytes),
        (salvaged.files, salvaged.bytes)
    );
    scene.is_sound();
}

#[test]
fn what_is_staged_and_changed_again_is_kept_beside() {
    let scene = busy();
    scene.salvage("w", &[]).unwrap();
    let parents = scene.git(
        "repo",
        &["rev-parse", &format!("{REF}^1"), &format!("{REF}^2^1")],
    );
    let head = scene.tip("w", "HEAD");
    assert_eq!(
        parents,
        format!("{head}\n{head}"),
        "the commit, and below what is staged too"
    );
    assert_eq!(
        scene.git("repo", &["show", &format!("{REF}^2:staged")]),
        "staged"
    );
    assert_eq!(
        scene.git("repo", &["show", &format!("{REF}:staged")]),
        "and changed again"
    );
    scene.restore("index", true).unwrap();
    assert_eq!(
        fs::read_to_string(scene.path("index/staged")).unwrap(),
        "staged\n"
    );
    assert!(
        scene.path("index/gone").exists(),
        "the deletion was not staged"
    );
}

#[test]
fn nothing_staged_leaves_one_parent() {
    let scene = Scene::new();
    scene.worktree("w", "main");
    scene.write("w/new", "x");
    scene.salvage("w", &[]).unwrap();
    let parents = scene.git("repo", &["log", "-1", "--format=%P", REF]);
    assert_eq!(parents, scene.tip("repo", "main").to_string());
    let refused = scene.restore("index", true).unwrap_err().to_string();
    assert!(refused.contains("nothing staged"), "{refused}");
}

#[test]
fn ignored_files_are_kept_where_a_rule_says_so_and_no_others() {
    let scene = busy();
    for file in [
        "w/target/debug/o",
        "w/target/report/a.xml",
        "w/a.log",
        "w/deep/b.log",
        "w/.env",
    ] {
        scene.write(file, file);
    }
    scene.write("w/target/kept", "tracked all the same");
    scene.git("w", &["add", "-f", "target/kept"]);
    symlink("deep", scene.path("w/target.log")).unwrap();
    scene
        .salvage("w", &[".env", "target/report", "deep/*.log"])
        .unwrap();
    scene.restore("back", false).unwrap();
    let is_there = |below: &str| scene.path("back").join(below).symlink_metadata().is_ok();
    for kept in ["target/kept", "target/report/a.xml", "deep/b.log", ".env"] {
        assert!(is_there(kept), "{kept}");
    }
    for left in ["target/debug", "a.log", "target.log"] {
        assert!(!is_there(left), "{left}");
    }
}

#[test]
fn a_link_is_never_taken_for_an_ignored_folder() {
    let scene = busy();
    symlink("/", scene.path("w/target")).unwrap();
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(
        fs::read_link(scene.path("back/target")).unwrap(),
        PathBuf::from("/")
    );
}

#[test]
fn repositories_inside_are_kept_with_all_that_is_theirs() {
    let scene = busy();
    fs::create_dir_all(scene.path("w/inner")).unwrap();
    scene.git("w/inner", &["init", "-q"]);
    scene.git("w/inner", &["config", "user.name", "x"]);
    scene.git("w/inner", &["config", "user.email", "x"]);
    scene.write("w/inner/file", "of the inner one");
    let inner = scene.commit("w/inner", "inside");
    let before = content(&scene, "w");
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
    assert_eq!(scene.tip("back/inner", "HEAD"), inner);
    scene.is_sound();
}

#[test]
fn a_worktree_without_its_link_is_kept_and_a_repository_in_its_place_too() {
    let scene = busy();
    let head = scene.tip("w", "HEAD");
    fs::remove_file(scene.path("w/.git")).unwrap();
    scene.git("w", &["init", "-q"]);
    let before = picture(&scene.path("w"));
    scene.salvage("w", &[]).unwrap();
    scene.restore("back", false).unwrap();
    assert_eq!(
        picture(&scene.path("back")),
        before,
        "its own .git is content now"
    );
    assert_eq!(scene.tip("repo", &format!("{REF}^1")), head);
    scene.is_sound();
}

/// A worktree with a submodule in which a commit is that only it has.
fn with_submodule() -> Scene {
    let scene = Scene::new();
    scene.git("repo", &["clone", "-q", ".", "../library"]);
    let library = scene.text("library");
    let allowed = ["-c", "protocol.file.allow=always"];
    let add = ["submodule", "--quiet", "add", &library, "sub"];
    scene.git("repo", &[&allowed[..], &add].concat());
    scene.commit("repo", "with a submodule");
    scene.worktree("w", "main");
    let update = ["submodule", "--quiet", "update", "--init"];
    scene.git("w", &[&allowed[..], &update].concat());
    scene.git("w/sub", &["config", "user.name", "x"]);
    scene.git("w/sub", &["config", "user.email", "x"]);
    scene.write("w/sub/only-here", "x");
    scene.commit("w/sub", "only here");
    scene
}

#[test]
fn commits_that_only_a_submodule_has_are_kept() {
    let scene = with_submodule();
    let only_here = scene.tip("w/sub", "HEAD");
    let before = content(&scene, "w");
    let first = scene.salvage("w", &[]).unwrap();
    assert_eq!(scene.salvage("w", &[]).unwrap(), first);
    scene.git(
        "repo",
        &["worktree", "remove", "--force", "--force", &scene.text("w")],
    );
    let work = GitWork::Restore(Restore {
        repo: scene.text("repo"),
        reference: REF.to_owned(),
        to: scene.text("back"),
        staged: false,
        modules: Some(scene.text("modules")),
    });
    scene.perform(&work).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
    let kept = scene.git(
        "modules/sub",
        &["--git-dir=.", "--work-tree=.", "rev-parse", "HEAD"],
    );
    assert_eq!(kept, only_here.to_string());
    scene.is_sound();
}

#[test]
fn sides_of_an_unresolved_conflict_are_kept() {
    let scene = Scene::new();
    scene.worktree("w", "main");
    scene.write("w/README", "mine\n");
    scene.commit("w", "mine");
    scene.write("repo/README", "yours\n");
    scene.commit("repo", "yours");
    let merge = scene.git.at(&scene.path("w")).args(["merge", "-q", "main"]);
    assert_eq!(merge.one_of(&[1]).unwrap().code, 1);
    scene.salvage("w", &[]).unwrap();
    for (stage, text) in [(1, "first"), (2, "mine"), (3, "yours")] {
        let name = format!("{REF}^2:README.stage-{stage}");
        assert_eq!(scene.git("repo", &["show", &name]), text);
    }
    scene.is_sound();
}

#[test]
fn an_index_that_can_not_be_read_loses_no_file() {
    let scene = busy();
    let admin = scene.path("repo/.git/worktrees/w/index");
    fs::write(admin, "no index").unwrap();
    let before = content(&scene, "w");
    let salvaged = scene.salvage("w", &[]).unwrap();
    assert!(
        salvaged.skipped[0].starts_with("what is staged"),
        "{salvaged:?}"
    );
    scene.restore("back", false).unwrap();
    assert_eq!(picture(&scene.path("back")), before);
}

#[test]
fn what_has_no_content_is_named() {
    let scene = busy();
    let socket = std::os::unix::net::UnixListener::bind(scene.path("w/socket")).unwrap();
    nix::unistd::mkfifo(&scene.path("w/empty/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let salvaged = scene.salvage("w", &[]).unwrap();
    assert_eq!(salvaged.skipped, ["empty/pipe", "socket"]);
    drop(socket);
}

#[test]
fn a_ref_that_holds_the_same_is_taken_and_one_that_holds_something_else_stays() {
    let scene = busy();
    let first = scene.salvage("w", &[]).unwrap();
    assert_eq!(scene.salvage("w", &[]).unwrap(), first);
    scene.write("w/later", "x");
    // The word of the first was lost, and the agent wrote once more.
    let second = scene.salvage("w", &[]).unwrap();
    let (folder, number) = first.reference.rsplit_once('/').unwrap();
    let next = number.parse::<u32>().unwrap() + 1;
    assert_eq!(second.reference, format!("{folder}/{next}"));
    assert_ne!(second.commit, first.commit);
    assert_eq!(scene.salvage("w", &[]).unwrap(), second);
    assert_eq!(scene.tip("repo", &first.reference), first.commit);
    fs::remove_file(scene.path("w/later")).unwrap();
    scene.git(
        "w",
        &[
            "commit",
            "-q",
            "--allow-empty",
            "-m",
            "nothing but a commit",
        ],
    );
    let third = scene.salvage("w", &[]).unwrap();
    assert_eq!(third.reference, format!("{folder}/{}", next + 1));
    assert_eq!(scene.tip("repo", REF), first.commit);
}

#[test]
fn a_lock_of_a_killed_predecessor_does_not_stay() {
    let scene = busy();
    scene.write(&format!("repo/.git/{REF}.lock"), "");
    scene.salvage("w", &[]).unwrap();
    assert!(!scene.path(&format!("repo/.git/{REF}.lock")).exists());
}

/// A removal may be cut off so often that it is given up: the next one begins with a salvage again.
#[test]
fn what_a_removal_leaves_when_it_is_cut_off_is_never_salvaged_in_place_of_the_whole() {
    let scene = busy();
    let before = content(&scene, "w");
    let first = scene.salvage("w", &["*"]).unwrap();
    let going = scene.path(".w.supervisor-removed");
    fs::rename(scene.path("w"), &going).unwrap();
    fs::remove_file(going.join("untracked")).unwrap();
    let told = scene.salvage_after("w", &[], Some(&first)).unwrap();
    assert_eq!(
        (&told.reference, &told.commit),
        (&first.reference, &first.commit)
    );
    assert!(told.files > 1 && told.bytes > 0, "{told:?}");
    assert_eq!(scene.git("repo", &["for-each-ref", SECOND]), "");
    let work = GitWork::Remove(Remove {
        repo: scene.text("repo"),
        worktree: scene.text("w"),
        branch: None,
        kept: told.commit,
        kept_by: told.reference,
    });
    match scene.perform(&work).unwrap() {
        GitOutcome::Removed(done) => assert!(done.existed && done.bytes > 0, "{done:?}"),
        other => panic!("{other:?}"),
    }
    assert!(!going.exists());
    assert_eq!(scene.git("repo", &["worktree", "list"]).lines().count(), 1);
    // Its word was lost as well: nothing is there any more, and the answer is the same.
    let again = scene.salvage_after("w", &[], Some(&first)).unwrap();
    assert_eq!(again.commit, first.commit);
    scene.restore("back", false).unwrap();
    assert_eq!(content(&scene, "back"), before);
}

#[test]
fn a_worktree_that_somebody_moved_away_is_not_taken_for_salvaged() {
    let scene = busy();
    let first = scene.salvage("w", &[]).unwrap();
    fs::rename(scene.path("w"), scene.path("elsewhere")).unwrap();
    let refused = scene.salvage_after("w", &[], Some(&first)).unwrap_err();
    assert!(refused.to_string().contains("move it back"), "{refused}");
    fs::rename(scene.path("elsewhere"), scene.path("w")).unwrap();
    fs::rename(scene.path("w"), scene.path(".w.supervisor-removed")).unwrap();
    scene.git("repo", &["update-ref", "-d", REF]);
    let refused = scene.salvage_after("w", &[], Some(&first)).unwrap_err();
    assert!(refused.to_string().contains("is not at"), "{refused}");
}

#[test]
fn only_refs_of_salvage_are_made_and_only_of_worktrees() {
    let scene = Scene::new();
    let of = |worktree: &str, reference: &str| {
        let work = GitWork::Salvage(Salvage {
            repo: scene.text("repo"),
            worktree: scene.text(worktree),
            reference: reference.to_owned(),
            ignored: Vec::new(),
            note: String::new(),
            last: None,
        });
        scene.perform(&work).unwrap_err().to_string()
    };
    assert!(of("repo", "refs/heads/main").contains("no ref of salvage"));
    assert!(of("repo", REF).contains("the repository itself"));
    assert!(of("missing", REF).contains("is gone, and not by us"));
}

#[test]
fn a_damaged_object_is_found_before_there_is_a_ref() {
    let scene = busy();
    // The store holds an object of this name already, and it is not what the name says.
    let id = scene.git("w", &["hash-object", "-w", "untracked"]);
    let object = scene
        .path("repo/.git/objects")
        .join(&id[..2])
        .join(&id[2..]);
    let other = scene.git("w", &["hash-object", "-w", "secret"]);
    let other = scene
        .path("repo/.git/objects")
        .join(&other[..2])
        .join(&other[2..]);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::copy(other, &object).unwrap();
    let refused = scene.salvage("w", &[]).unwrap_err().to_string();
    assert!(refused.contains("untracked"), "{refused}");
    assert!(scene.git("repo", &["for-each-ref", REF]).is_empty());
}

#[test]
fn restore_refuses_what_is_not_empty_and_leaves_nothing_half() {
    let scene = busy();
    let refused = scene.restore("back", false).unwrap_err().to_string();
    assert!(refused.contains("there is no ref"), "{refused}");
    scene.salvage("w", &[]).unwrap();
    scene.write("full/file", "mine");
    let refused = scene.restore("full", false).unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");
    assert_eq!(picture(&scene.path("full")).len(), 1);
    // What a killed restore left, a folder without permissions in it.
    scene.write("empty/../.empty.supervisor-restore/locked/file", "half");
    scene.permit(".empty.supervisor-restore/locked", 0);
    fs::create_dir_all(scene.path("empty")).unwrap();
    scene.restore("empty", false).unwrap();
    assert_eq!(picture(&scene.path("empty")), content(&scene, "w"));
    assert!(!scene.path(".empty.supervisor-restore").exists());
}

#[derive(Debug, Clone)]
enum Made {
    File(Vec<u8>, u32),
    Link(Vec<u8>),
    Folder,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no name holds it", |byte| !matches!(byte, 0 | b'/'));
    let odd = proptest::collection::vec(byte, 1..12);
    let git = proptest::sample::select(vec![
        ".git",
        "git~1",
        ".GIT",
        ".gitignore",
        "a",
        "b",
        "a.b",
        "supervisor-name-2e",
        " ",
    ]);
    prop_oneof![odd, git.prop_map(|name| name.as_bytes().to_vec())]
        .prop_filter("it means a folder", |name| name != b"." && name != b"..")
}

fn made() -> impl Strategy<Value = Made> {
    let content = proptest::collection::vec(any::<u8>(), 0..200);
    let target = proptest::collection::vec(1..=255u8, 1..40);
    // The owner may read, else nobody but root could keep it.
    prop_oneof![
        4 => (content, (0..0o1000u32)).prop_map(|(bytes, mode)| Made::File(bytes, mode | 0o400)),
        1 => target.prop_map(Made::Link),
        2 => Just(Made::Folder),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn any_folder_comes_back(
        items in proptest::collection::vec((proptest::collection::vec(name(), 1..4), made()), 0..24)
    ) {
        let scene = Scene::new();
        scene.worktree("w", "main");
        for (path, made) in items {
            let mut place = scene.path("w");
            for (at, name) in path.iter().enumerate() {
                let is_link = at == 0 && name.as_slice() == b".git";
                place.push(OsStr::from_bytes(if is_link { b"_" } else { name }));
            }
            // What another item has put in the way stays.
            if fs::create_dir_all(place.parent().unwrap()).is_err() || place.symlink_metadata().is_ok() {
                continue;
            }
            match made {
                Made::Folder => fs::create_dir(&place).unwrap(),
                Made::Link(target) => symlink(OsStr::from_bytes(&target), &place).unwrap(),
                Made::File(bytes, mode) => {
                    fs::write(&place, bytes).unwrap();
                    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
                }
            }
        }
        // Rules of their own would leave files out.
        let ignored: &[&str] = &["**"];
        let before = content(&scene, "w");
        scene.salvage("w", ignored).unwrap();
        scene.restore("back", false).unwrap();
        prop_assert_eq!(picture(&scene.path("back")), before);
        scene.is_sound();
    }
}
