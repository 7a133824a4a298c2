//! A real repository: some two hundred commits with a merge among them, tags, a submodule, a binary
//! file, an executable, a symlink, and an operator with unfinished work in it.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::fmt::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::world::World;

/// Commits of the history, merges not counted.
const COMMITS: usize = 200;
/// Files that the history changes in turn.
const UNITS: usize = 12;
/// Lines of the file that several tasks change.
pub const SHARED_LINES: usize = 500;

/// What proves a merge: nothing is lost, nothing came before what it needs.
const CHECK: &str = r#"#!/bin/sh
set -eu
test "$(wc -l < src/shared.txt)" -eq 500
if grep -rnE '^(<{7}|>{7})' src done; then echo 'markers of a conflict' >&2; exit 1; fi
while read -r task needs; do
    test -e "done/$task.txt" || continue
    test "$(cat "done/$task.txt")" = "$task"
    for need in $needs; do
        test -e "done/$need.txt" || { echo "$task is there before $need" >&2; exit 1; }
    done
done < needs.txt
test -f vendor/lib.txt
test ! -e broken
"#;

/// How a conflict is resolved: both sides, in an order that does not depend on who was first.
const RESOLVE: &str = r#"#!/bin/sh
set -eu
for file in src/pair.txt src/compass.txt; do
    grep -qE '^<{7}' "$file" || continue
    sed -E -e '/^[|]{7}/,/^={7}/{/^={7}/!d}' -e '/^(<{7}|={7}|>{7})/d' "$file" | sort -u > resolved
    mv resolved "$file"
done
"#;

/// Fills the world's repository.
///
/// # Panics
/// When git refuses.
pub fn build(world: &World, needs: &str) {
    import_history(world);
    let lines: String = (1..=SHARED_LINES)
        .map(|number| format!("line {number}\n"))
        .collect();
    world.write("src/shared.txt", &lines);
    world.write("src/pair.txt", "middle\n");
    world.write("src/compass.txt", "north\n");
    world.write("src/old-name.txt", &"a text that moves\n".repeat(40));
    world.write("src/doomed.txt", "to be removed\n");
    world.write("needs.txt", needs);
    world.write(".gitignore", "*.log\n/.env\n/cache/\ntarget/\n");
    world.write(".worktreeinclude", ".env\ncache/\n");
    for (name, text) in [("check", CHECK), ("resolve", RESOLVE)] {
        let path = world.write(name, text);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("an executable");
    }
    let bytes: Vec<u8> = (0..4096_u32)
        .map(|n| u8::try_from(n * n % 251).unwrap_or(0))
        .collect();
    std::fs::write(world.repo().join("logo.bin"), bytes).expect("a binary file");
    symlink("src/shared.txt", world.repo().join("latest")).expect("a symlink");
    add_submodule(world);
    world.commit("what tasks work on");
    world.git(&["tag", "v0.1", "HEAD~100"]);
    world.git(&["tag", "-a", "v1.0", "-m", "the first whole one"]);
    leave_unfinished_work(world);
}

/// Most of the history in one stream, which takes a fraction of the time of as many `git commit`.
fn import_history(world: &World) {
    let mut stream = String::new();
    let mut commit = |mark: usize, branch: &str, from: &str, unit: usize| {
        let text = format!("unit {unit} after change {mark}\n").repeat(8);
        let when = 1_700_000_000 + mark * 60;
        let message = format!("change {mark}");
        let header = format!("commit refs/heads/{branch}\nmark :{mark}\n");
        let who = format!("committer A Person <person@example.org> {when} +0000\n");
        let told = format!("data {}\n{message}\n{from}", message.len());
        let file = format!(
            "M 100644 inline src/unit-{unit:02}.txt\ndata {}\n{text}\n",
            text.len()
        );
        write!(stream, "{header}{who}{told}{file}").expect("a text grows");
    };
    for mark in 1..=COMMITS {
        let unit = mark % UNITS;
        match mark {
            1 => commit(mark, "main", "from refs/heads/main^0\n", unit),
            101 => commit(mark, "side", "from :90\n", UNITS),
            102..=120 => commit(mark, "side", "", UNITS),
            121 => commit(mark, "main", "merge :120\n", unit),
            _ => commit(mark, "main", "", unit),
        }
    }
    let path = world.path("history.stream");
    std::fs::write(&path, stream).expect("a stream of commits");
    let line = format!("git fast-import --quiet < '{}'", path.display());
    world.shell(&line).ok();
    world.git(&["reset", "--quiet", "--hard", "main"]);
}

/// From a path that counts from the repository, so that no two worlds differ by it.
fn add_submodule(world: &World) {
    let line = "git init --quiet --initial-branch=main ../vendor-source && cd ../vendor-source && \
        echo 'a library' > lib.txt && git add . && \
        export GIT_AUTHOR_DATE='1700000000 +0000' GIT_COMMITTER_DATE='1700000000 +0000' && \
        git -c user.name=v -c user.email=v@example.org commit --quiet -m library";
    world.shell(line).ok();
    let allow = "protocol.file.allow=always";
    world.git(&[
        "-c",
        allow,
        "submodule",
        "--quiet",
        "add",
        "../vendor-source",
        "vendor",
    ]);
}

/// The operator is in the middle of something: staged, changed, untracked and ignored files.
fn leave_unfinished_work(world: &World) {
    world.write("src/unit-03.txt", "staged by the operator\n");
    world.git(&["add", "src/unit-03.txt"]);
    world.write("src/unit-03.txt", "staged, and changed again\n");
    world.write("src/unit-04.txt", "changed by the operator\n");
    world.write("notes of the operator", "untracked\n");
    world.write("build.log", "ignored\n");
    world.write(".env", "TOKEN=of-the-operator\n");
    world.write("cache/big", &"cached\n".repeat(1000));
}
