//! Nothing is lost: what is in a worktree comes back bit for bit, and a worktree whose content can not be
//! kept is not removed.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use supervisor_tests::delivery::{history, row};
use supervisor_tests::world::World;

/// Leaves everything in its worktree that a worktree can hold, then fails; done at once the second time.
const LITTER: &str = r#"#!/bin/sh
set -eu
test "$SUPERVISOR_ATTEMPT" = 1 || { echo 'second attempt' > second; exit 0; }
git='git -c user.name=w -c user.email=w@localhost'
echo 'committed by the agent' > committed && git add committed && $git commit -qm 'halfway'
echo dirty >> README
echo 'as staged' > staged && git add staged && echo 'and changed' >> staged
git mv old-name new-name
git rm -q removed
echo untracked > 'a new file'
printf 'x\0y\377' > binary.bin
head -c 200000000 /dev/urandom > large.bin
ln -s nowhere/at/all dangling
ln -s README link
printf '#!/bin/sh\n' > program && chmod 755 program
echo private > private && chmod 600 private
echo latin > "$(printf 'caf\351 \001\n end')"
mkdir -p empty/deep
mkdir ignored && echo 'of no rule' > ignored/file.log && echo 1 > kept.log
git init -q nested && cd nested && echo inner > inner && git add inner && $git commit -qm inner
echo 'inner, dirty' > inner && echo loose > loose
exit 1
"#;

/// Each path below a folder with its kind, rights and content; the link to the repository is left out.
fn manifest(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry of a folder").path();
            if path == root.join(".git") {
                continue;
            }
            let name = path.strip_prefix(root).expect("below the root");
            let data = path.symlink_metadata().expect("an entry has data");
            let said = if data.is_dir() {
                folders.push(path.clone());
                "folder".to_owned()
            } else if data.is_symlink() {
                let target = std::fs::read_link(&path).expect("a symlink has a target");
                format!("-> {}", target.display())
            } else {
                let bytes = std::fs::read(&path).expect("a file");
                let (mode, hash) = (data.permissions().mode(), crc32fast::hash(&bytes));
                format!("{mode:o} {} bytes {hash:08x}", bytes.len())
            };
            found.insert(name.as_os_str().as_bytes().to_owned(), said);
        }
    }
    found
}

fn littered() -> (World, PathBuf) {
    let world = World::new();
    world.write("old-name", &"a text that moves\n".repeat(20));
    world.write("removed", "it goes\n");
    world.write(".gitignore", "*.log\nignored/\n");
    world.write("litter.sh", LITTER);
    world.commit("what is littered");
    let text = "version: 1\nname: litter\n\
        tasks:\n  - {id: litter, run: 'sh ./litter.sh', attempts: 1, retry: {backoff: 1s}}\n";
    world.write("batch.yml", text);
    world.supervisor(&["run"]).exits(1);
    let worktree = row(&world, "litter")["worktree"]
        .as_str()
        .map(PathBuf::from);
    (world, worktree.expect("a worktree"))
}

/// The refs of salvage.
fn refs(world: &World) -> Vec<String> {
    let told = world.git(&[
        "for-each-ref",
        "--format=%(refname)",
        "refs/supervisor/salvage",
    ]);
    told.lines().map(str::to_owned).collect()
}

#[test]
fn what_a_fresh_start_would_overwrite_comes_back_bit_for_bit() {
    let (world, worktree) = littered();
    let before = manifest(&worktree);
    assert!(before.len() > 20, "{before:?}");
    world
        .supervisor(&["retry", "litter", "--fresh", "--attempts", "2"])
        .ok();
    world.supervisor(&["run"]).ok();
    assert_eq!(row(&world, "litter")["state"], "done");
    let refs = refs(&world);
    assert_eq!(refs.len(), 1, "{refs:?}");

    let listed = world.supervisor(&["salvage", "list", "--json"]).ok().json();
    assert!(listed.to_string().contains(&refs[0]), "{listed}");
    let shown = world.supervisor(&["salvage", "show", "litter"]).ok();
    for words in ["large.bin", "a new file", "dangling"] {
        assert!(shown.stdout.contains(words), "{words}: {}", shown.stdout);
    }
    let to = world.path("restored");
    let to_text = to.display().to_string();
    world
        .supervisor(&["salvage", "restore", "litter", "--to", &to_text])
        .ok();
    let after = manifest(&to);
    for (path, said) in &before {
        let name = String::from_utf8_lossy(path);
        assert_eq!(after.get(path), Some(said), "{name}");
    }
    assert_eq!(after.len(), before.len(), "and nothing else");

    // What was staged under the changes, and the agent's own commit, are kept too.
    let objects = world.git(&["rev-list", "--objects", &refs[0]]);
    std::fs::write(world.path("staged"), "as staged\n").expect("a file");
    let staged = world.git(&["hash-object", "../staged"]);
    assert!(
        objects.contains(staged.trim_end()),
        "the staged text is kept"
    );
    let log = world.git(&["log", "--format=%s", &refs[0]]);
    assert!(log.contains("halfway"), "{log}");
    assert!(
        history::is_sound(&world).is_empty(),
        "{:?}",
        history::is_sound(&world)
    );
    world.assert_nothing_left();
}

/// A file system of its own, as small as that.
struct Small(PathBuf);

impl Small {
    /// `None`: this machine does not allow it.
    fn mount(at: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder to mount on");
        let mut mount = supervisor_tests::world::tool("mount");
        let options = format!("size={mib}m");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at);
        let ok = mount.output().is_ok_and(|output| output.status.success());
        ok.then(|| Self(at.to_owned()))
    }

    fn grow(&self, mib: u32) {
        let mut mount = supervisor_tests::world::tool("mount");
        let options = format!("remount,size={mib}m");
        mount.args(["-o", &options]).arg(&self.0);
        assert!(mount.status().expect("mount starts").success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let mut umount = supervisor_tests::world::tool("umount");
        // Best effort at the end of a test that may be failing already.
        drop(umount.arg("-l").arg(&self.0).output());
    }
}

/// The repository is on a small disk, its worktrees are not.
#[test]
fn a_worktree_is_not_removed_while_the_disk_has_no_room_for_its_content() {
    let world = World::new();
    let Some(small) = Small::mount(&world.path("small"), 24) else {
        return;
    };
    let line = "git init -q --initial-branch=main ../small/repo && cd ../small/repo && echo a > a && \
        git add . && git -c user.name=o -c user.email=o@localhost commit -qm first";
    world.shell(line).ok();
    let text = "version: 1\nname: full\nrepos: {small: {path: ../small/repo}}\n\
        tasks:\n  - {id: fills, run: 'head -c 60000000 /dev/urandom > large; exit 1', attempts: 1}\n";
    world.write("batch.yml", text);
    world.supervisor(&["run"]).exits(1);
    let worktree = row(&world, "fills")["worktree"].as_str().map(PathBuf::from);
    let worktree = worktree.expect("a worktree");
    let before = manifest(&worktree);

    let refused = world.supervisor(&["clean", "--yes"]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let told = format!("{}{}", refused.stdout, refused.stderr);
    assert!(told.contains("fills"), "{told}");
    assert_eq!(manifest(&worktree), before, "the worktree is as it was");
    let list = "cd ../small/repo && git for-each-ref refs/supervisor/salvage && git fsck --strict --no-dangling";
    assert_eq!(world.shell(list).ok().stdout, "");

    small.grow(400);
    world.supervisor(&["clean", "--yes"]).ok();
    assert!(!worktree.exists());
    let to = world.path("restored");
    let listed: Value = world.supervisor(&["salvage", "list", "--json"]).ok().json();
    assert!(listed.to_string().contains("fills"), "{listed}");
    let to_text = to.display().to_string();
    world
        .supervisor(&["salvage", "restore", "fills", "--to", &to_text])
        .ok();
    assert_eq!(manifest(&to), before);
    world.assert_nothing_left();
}

/// `clean` takes a worktree whose task failed only with a salvage ref.
#[test]
fn a_failed_tasks_worktree_goes_only_to_a_salvage_ref() {
    let world = World::new();
    let text = "version: 1\nname: failed\n\
        tasks:\n  - id: fails\n    attempts: 1\n\
        \x20   run: 'echo half > half; d=$(printf \"d\\200\"); mkdir $d; echo deep > $d/deep; exit 1'\n\
        \x20 - {id: works, run: 'echo whole > whole'}\n";
    world.write("batch.yml", text);
    world.supervisor(&["run"]).exits(1);
    let planned = world.supervisor(&["clean"]).ok();
    for task in ["fails", "works"] {
        assert!(planned.stdout.contains(task), "{}", planned.stdout);
    }
    assert!(refs(&world).is_empty(), "a plan keeps nothing yet");
    world.supervisor(&["clean", "--yes"]).ok();
    let kept = refs(&world);
    let kept: Vec<&String> = kept
        .iter()
        .filter(|name| name.contains("/fails/"))
        .collect();
    let [kept] = kept.as_slice() else {
        panic!("one ref: {kept:?}");
    };
    assert_eq!(world.git(&["show", &format!("{kept}:half")]), "half\n");
    let shown = world.supervisor(&["salvage", "show", "fails"]).ok().stdout;
    let folder = format!("d{}/deep", char::REPLACEMENT_CHARACTER);
    assert!(shown.contains("half"), "{shown}");
    assert!(shown.contains(&folder), "its name is no text: {shown}");
    let branches = world.git(&["branch", "--list", "supervisor/*"]);
    assert!(
        !branches.contains("/works"),
        "its work is merged: {branches}"
    );
    world.assert_nothing_left();
}
