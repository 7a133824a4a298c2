//! Git work that is killed at any moment, or finds no room, and is then done again: what comes of it is
//! what would have come of it undisturbed.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use protocol::git::{Candidate, Freshness, GitWork, Merge, Oid, Restore, Salvage};
use protocol::ids::TaskId;
use serde_json::Value;

/// Milliseconds after which the work is killed, one round each: it takes some hundreds.
const DELAYS: [u16; 10] = [1, 4, 9, 16, 30, 50, 80, 120, 180, 300];
const REF: &str = "refs/supervisor/salvage/batch/task/1";
const INTO: &str = "refs/heads/batch";

struct Place(tempfile::TempDir);

impl Place {
    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn text(&self, below: &str) -> String {
        self.path(below).display().to_string()
    }

    fn write(&self, below: &str, content: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let out = Command::new("git")
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(self.path(folder))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "git {arguments:?}: {said}");
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    fn tip(&self, name: &str) -> Oid {
        Oid::try_from(self.git("repo", &["rev-parse", name])).unwrap()
    }

    fn commit(&self, folder: &str, message: &str) {
        self.git(folder, &["add", "-A"]);
        self.git(folder, &["commit", "-q", "-m", message]);
    }

    /// A repository with a history, a tag and a submodule.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for name in ["library", "repo"] {
            fs::create_dir(place.path(name)).unwrap();
            place.git(name, &["init", "-q", "-b", "main"]);
            place.git(name, &["config", "user.name", "A B"]);
            place.git(name, &["config", "user.email", "a@b"]);
            place.write(&format!("{name}/README"), name);
            place.commit(name, "first");
        }
        place.git("repo", &["tag", "-a", "v1", "-m", "a release"]);
        let library = place.text("library");
        place.git(
            "repo",
            &["submodule", "--quiet", "add", &library, "library"],
        );
        for file in 0..60 {
            place.write(
                &format!("repo/src/{}/{file}", file % 7),
                format!("{file}\n").repeat(40),
            );
        }
        place.commit("repo", "second");
        place
    }

    /// The program in this role, as the host starts it: in a group of its own.
    fn command(&self, work: &GitWork) -> Command {
        self.write("request.json", serde_json::to_vec(work).unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent-host"));
        command
            .args(["git", "request.json", "outcome.json"])
            .current_dir(self.0.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .process_group(0)
            .stdout(Stdio::piped());
        command
    }

    /// Begins the work and kills it, with all that it started, after this time or at its end.
    fn killed(&self, work: &GitWork, delay: u16) {
        let mut child = self.command(work).spawn().unwrap();
        let out = child.stdout.take().unwrap();
        let mut end = [PollFd::new(out.as_fd(), PollFlags::POLLIN)];
        poll(&mut end, PollTimeout::from(delay)).unwrap();
        let group = Pid::from_raw(child.id().cast_signed());
        let first = killpg(group, Signal::SIGKILL);
        child.wait().unwrap();
        first.unwrap();
        // Its programs were killed with it; they are gone once nobody is left in the group.
        while killpg(group, None).is_ok() {
            std::thread::yield_now();
        }
    }

    /// Does the work; what came of it.
    fn outcome(&self, work: &GitWork) -> Value {
        let status = self.command(work).status().unwrap();
        assert!(status.success(), "{status}");
        serde_json::from_slice(&fs::read(self.path("outcome.json")).unwrap()).unwrap()
    }

    fn done(&self, work: &GitWork) -> Value {
        let outcome = self.outcome(work);
        assert!(outcome["failed"].is_null(), "{outcome}");
        outcome["done"].clone()
    }

    fn salvage(&self) -> GitWork {
        GitWork::Salvage(Salvage {
            repo: self.text("repo"),
            worktree: self.text("w"),
            reference: REF.to_owned(),
            ignored: Vec::new(),
            note: "a story".to_owned(),
            last: None,
        })
    }

    fn restore(&self) -> GitWork {
        GitWork::Restore(Restore {
            repo: self.text("repo"),
            reference: REF.to_owned(),
            to: self.text("back"),
            staged: false,
            modules: None,
        })
    }

    /// Nothing is damaged, and nothing is locked.
    fn is_sound(&self) {
        self.git("repo", &["fsck", "--full", "--strict"]);
        let mut open = vec![self.path("repo/.git")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                assert!(
                    path.extension().is_none_or(|end| end != "lock"),
                    "{}",
                    path.display()
                );
                if path.is_dir() && !path.is_symlink() {
                    open.push(path);
                }
            }
        }
    }

    fn has(&self, reference: &str) -> bool {
        !self.git("repo", &["for-each-ref", reference]).is_empty()
    }
}

/// Whether two folders hold the same, as `diff` sees it.
fn are_same(one: &Path, other: &Path) {
    let diff = Command::new("diff")
        .args(["-r", "--no-dereference", "--exclude=.git"])
        .args([one, other])
        .output()
        .unwrap();
    assert!(
        diff.status.success(),
        "{}",
        String::from_utf8_lossy(&diff.stdout)
    );
}

#[test]
fn a_salvage_that_is_killed_anywhere_is_done_again() {
    let place = Place::new();
    place.git(
        "repo",
        &["worktree", "add", "-q", "-b", "w", &place.text("w")],
    );
    for file in 0..200 {
        place.write(&format!("w/new/{}/{file}", file % 9), format!("new {file}"));
    }
    place.write("w/large", vec![7; 6 << 20]);
    place.write("w/README", "changed");
    symlink("README", place.path("w/link")).unwrap();
    for delay in DELAYS {
        place.killed(&place.salvage(), delay);
        // A ref is there only when all of it is.
        if place.has(REF) {
            place.done(&place.restore());
            are_same(&place.path("w"), &place.path("back"));
            fs::remove_dir_all(place.path("back")).unwrap();
        }
        let first = place.done(&place.salvage());
        assert_eq!(place.done(&place.salvage()), first);
        place.is_sound();
        place.killed(&place.restore(), delay);
        if !place.path("back").exists() {
            place.done(&place.restore());
        }
        are_same(&place.path("w"), &place.path("back"));
        assert!(place.path("back/link").is_symlink());
        fs::remove_dir_all(place.path("back")).unwrap();
        place.git("repo", &["update-ref", "-d", REF]);
    }
}

fn merge(place: &Place) -> GitWork {
    let candidate = |task: &str| Candidate {
        task: task.parse::<TaskId>().unwrap(),
        commit: place.tip(task),
        message: format!("Merge {task}"),
    };
    GitWork::Merge(Merge {
        repo: place.text("repo"),
        worktree: place.text("merges"),
        into: INTO.to_owned(),
        pinned: place.tip("main"),
        candidates: ["t1", "t2", "t3", "t4", "t5"].map(candidate).into(),
        take: 9,
        advance: true,
        freshness: Freshness::Ignore,
        watch: None,
    })
}

#[test]
fn a_merge_that_is_killed_anywhere_comes_to_the_same_commits() {
    let place = Place::new();
    let before = place.git("repo", &["status", "--porcelain=v2", "--branch"]);
    for (at, task) in ["t1", "t2", "t3", "t4", "t5"].iter().enumerate() {
        place.git(
            "repo",
            &["worktree", "add", "-q", "-b", task, &place.text("t")],
        );
        place.write(&format!("t/src/{at}/{at}"), format!("by {task}\n"));
        // The last two write the same line.
        place.write(if at < 3 { "t/other" } else { "t/README" }, *task);
        if at < 3 {
            fs::rename(place.path("t/other"), place.path(&format!("t/{task}"))).unwrap();
        }
        place.commit("t", task);
        place.git("repo", &["worktree", "remove", "--force", &place.text("t")]);
    }
    let work = merge(&place);
    let undisturbed = place.done(&work);
    let (tip, tree) = (
        place.tip(INTO),
        place.git("repo", &["rev-parse", "batch^{tree}"]),
    );
    assert_eq!(undisturbed["merges"].as_array().unwrap().len(), 4);
    assert_eq!(undisturbed["conflicts"][0]["files"][0], "README");
    for delay in DELAYS {
        place.git("repo", &["update-ref", "-d", INTO]);
        fs::remove_dir_all(place.path("merges")).unwrap();
        place.git("repo", &["worktree", "unlock", &place.text("merges")]);
        place.git("repo", &["worktree", "prune"]);
        place.killed(&work, delay);
        let again = place.done(&work);
        assert_eq!(place.tip(INTO), tip, "the same commits after {delay} ms");
        assert_eq!(place.git("repo", &["rev-parse", "batch^{tree}"]), tree);
        assert_eq!(
            place.git("repo", &["rev-list", "--count", "--merges", "batch"]),
            "4"
        );
        let conflict = again["conflicts"].as_array().unwrap();
        assert_eq!(conflict.len(), 1, "{again}");
        assert!(place.git("merges", &["status", "--porcelain"]).is_empty());
        place.is_sound();
    }
    assert_eq!(
        place.git("repo", &["status", "--porcelain=v2", "--branch"]),
        before
    );
}

#[test]
fn a_file_of_200_megabytes_goes_by_pieces() {
    let place = Place::new();
    place.git(
        "repo",
        &["worktree", "add", "-q", "-b", "w", &place.text("w")],
    );
    let large = fs::File::create(place.path("w/large")).unwrap();
    large.set_len(200 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&large, b"the end", (200 << 20) - 7).unwrap();
    for work in [place.salvage(), place.restore()] {
        let of_work = place.command(&work);
        // So much address space that it can not be held, and not much less.
        let mut bounded = Command::new("sh");
        bounded
            .args(["-c", "ulimit -v 180000; exec \"$0\" \"$@\""])
            .arg(of_work.get_program())
            .args(of_work.get_args())
            .current_dir(place.0.path());
        assert!(bounded.status().unwrap().success());
        let outcome = fs::read_to_string(place.path("outcome.json")).unwrap();
        assert!(outcome.contains("done"), "{outcome}");
    }
    are_same(&place.path("w"), &place.path("back"));
}

/// A small file system of memory; gone with this.
struct Small(PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_the_salvage_and_leaves_no_ref() {
    let place = Place::new();
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    let repo = place.path("repo");
    fs::rename(&repo, place.path("moved")).unwrap();
    fs::create_dir(&repo).unwrap();
    if let Err(error) = nix::mount::mount(none, &repo, Some("tmpfs"), flags, Some("size=6m")) {
        eprintln!("not tried, because nothing can be mounted here: {error}");
        return;
    }
    let small = Small(repo);
    let copy = ["-a", &place.text("moved/."), &place.text("repo")];
    let copied = Command::new("cp").args(copy).status().unwrap();
    assert!(copied.success());
    place.git(
        "repo",
        &["worktree", "add", "-q", "-b", "w", &place.text("w")],
    );
    // Nothing that could be made smaller, in large and in small files.
    let mut state = 1u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    place.write("w/large", noise(8 << 20));
    let refuses = || {
        let outcome = place.outcome(&place.salvage());
        assert_eq!(outcome["failed"]["class"], "disk", "{outcome}");
        assert!(!place.has(REF));
    };
    refuses();
    fs::remove_file(place.path("w/large")).unwrap();
    for file in 0..16 {
        place.write(&format!("w/small/{file}"), noise(512 << 10));
    }
    refuses();
    let before = place.path("w/small");
    assert_eq!(
        fs::read_dir(&before).unwrap().count(),
        16,
        "the worktree is as it was"
    );
    // With room again, it is kept.
    let room = Some("size=64m");
    let flags = nix::mount::MsFlags::MS_REMOUNT;
    nix::mount::mount(none, &small.0, none, flags, room).unwrap();
    place.done(&place.salvage());
    place.done(&place.restore());
    are_same(&place.path("w"), &place.path("back"));
    place.git("repo", &["fsck", "--full"]);
}
