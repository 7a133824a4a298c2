//! What an attempt in a worktree may do and must have done: changes, markers, `touches`, outputs, hooks,
//! copied files, and a base that moves.

use std::path::Path;

use supervisor_tests::delivery::{delivered, explained, failed_as, history, merge_state, row};
use supervisor_tests::world::World;

const AGENT: &str = "agents: {shell: {kind: command, command: [sh, -c]}}\n\
    defaults: {agent: shell, attempts: 1, retry: {backoff: 1s}}\n";

fn batch(world: &World, rules: &str, tasks: &str) {
    let text = format!("version: 1\nname: isolated\n{rules}{AGENT}tasks:\n{tasks}");
    world.write("batch.yml", &text);
}

#[test]
fn work_is_refused_that_changes_nothing_leaves_markers_or_strays() {
    let world = World::new();
    batch(
        &world,
        "",
        "  - {id: idle, prompt: 'true'}\n\
         \x20 - {id: allowed, prompt: 'true', changes: optional}\n\
         \x20 - {id: command, run: 'true'}\n\
         \x20 - {id: marks, prompt: \"printf '<<<<<<< ours\\na\\n=======\\nb\\n>>>>>>> theirs\\n' > half\"}\n\
         \x20 - {id: strays, prompt: 'mkdir in; touch in/a; touch out', touches: ['in/**'], touches_enforce: true}\n\
         \x20 - {id: stays, prompt: 'mkdir in; touch in/b', touches: ['in/**'], touches_enforce: true}\n\
         \x20 - {id: short, prompt: 'touch made', outputs: [made, missing]}\n",
    );
    world.supervisor(&["run"]).exits(1);
    failed_as(&world, "idle", "no_change", &["changed no file"]);
    failed_as(&world, "marks", "verify_failed", &["markers", "half"]);
    failed_as(&world, "strays", "verify_failed", &["touches", "out"]);
    failed_as(&world, "short", "no_result", &["missing"]);
    for id in ["allowed", "command"] {
        assert_eq!(row(&world, id)["state"], "done");
        assert_eq!(merge_state(&world, id), "none", "there is nothing to merge");
    }
    assert_eq!(merge_state(&world, "stays"), "merged");
    assert_eq!(delivered(&world, "in/b").as_deref(), Some(""));
    for path in ["half", "in/a", "out", "made"] {
        assert_eq!(delivered(&world, path), None, "{path}");
    }
    world.assert_nothing_left();
}

#[test]
fn what_a_task_saves_is_read_by_one_in_another_repository() {
    let world = World::new();
    let line = "git init -q --initial-branch=trunk ../lib && cd ../lib && echo lib > README && \
        git add . && git -c user.name=l -c user.email=l@localhost commit -qm lib";
    world.shell(line).ok();
    batch(
        &world,
        "repos: {lib: {path: ../lib}, app: {path: ., env: {WHERE: app}}}\n",
        "  - {id: spec, repo: lib, run: 'echo api > api.json; echo x > ignored.log', outputs: [api.json]}\n\
         \x20 - id: use\n    repo: app\n    depends_on: [spec]\n\
         \x20   run: 'cat \"{{ deps[\"spec\"].outputs[\"api.json\"] }}\" > copied; echo $WHERE >> copied'\n",
    );
    world.supervisor(&["run"]).ok();
    assert_eq!(delivered(&world, "copied").as_deref(), Some("api\napp\n"));
    assert_eq!(
        delivered(&world, "api.json"),
        None,
        "each repository has its own"
    );
    let branch = supervisor_tests::delivery::batch_branch(&world);
    let line = format!("cd ../lib && git show '{branch}:api.json' && git status --porcelain");
    assert_eq!(world.shell(&line).ok().stdout, "api\n");
    world.assert_nothing_left();
}

#[test]
fn hooks_allow_warn_and_block() {
    let world = World::new();
    let notes = world.path("hooks");
    let note = |what: &str, code: u8| {
        let notes = notes.display();
        format!(
            "['echo {what} $SUPERVISOR_TASK >> {notes}; case $SUPERVISOR_TASK in bad-{what}) echo not so >&2; exit 2;; esac; exit {code}']"
        )
    };
    let hooks = format!(
        "hooks:\n  after_create: {}\n  before_run: {}\n  after_run: {}\n  before_remove: {}\n",
        note("after_create", 0),
        note("before_run", 1),
        note("after_run", 0),
        note("before_remove", 0)
    );
    let rules = format!("{hooks}worktrees: {{keep: failed}}\non_failure: continue\n");
    let tasks: String = [
        "good",
        "bad-after_create",
        "bad-before_run",
        "bad-after_run",
        "bad-before_remove",
    ]
    .map(|id| format!("  - {{id: {id}, prompt: 'touch {id}'}}\n"))
    .concat();
    batch(&world, &rules, &tasks);
    let ran = world.supervisor(&["run"]);
    assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
    let text = std::fs::read_to_string(&notes).expect("the hooks ran");
    let of = |task: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let own = lines.filter(|(_, id)| *id == task).map(|(hook, _)| hook);
        own.collect::<Vec<_>>()
    };
    assert_eq!(
        of("good"),
        ["after_create", "before_run", "after_run", "before_remove"]
    );
    assert_eq!(merge_state(&world, "good"), "merged", "a warning allows it");
    let warned = explained(&world, "good");
    assert!(
        warned.contains("before_run"),
        "the warning is told: {warned}"
    );
    for hook in ["after_create", "before_run", "after_run"] {
        let id = format!("bad-{hook}");
        failed_as(&world, &id, "setup_failed", &[hook]);
        assert_eq!(delivered(&world, &id), None);
    }
    assert_eq!(merge_state(&world, "bad-before_remove"), "merged");
    let kept = row(&world, "bad-before_remove");
    let worktree = kept["worktree"].as_str().expect("its worktree stays");
    assert!(Path::new(worktree).is_dir(), "{kept}");
    world.assert_nothing_left();
}

/// What `.worktreeinclude` names comes along although git ignores it, and is never delivered.
#[test]
fn ignored_files_that_are_to_come_along_do() {
    let world = World::new();
    world.write(".gitignore", ".env\ncache/\nsecret\n");
    world.write(".worktreeinclude", ".env\ncache/\n");
    world.commit("rules");
    world.write(".env", "TOKEN=1\n");
    world.write("cache/a/b", "cached\n");
    world.write("secret", "stays\n");
    batch(
        &world,
        "",
        "  - {id: looks, prompt: 'cat .env cache/a/b > seen; echo changed > cache/a/b; test ! -e secret'}\n",
    );
    world.supervisor(&["run"]).ok();
    assert_eq!(
        delivered(&world, "seen").as_deref(),
        Some("TOKEN=1\ncached\n")
    );
    assert_eq!(delivered(&world, ".env"), None);
    assert_eq!(
        world.read("cache/a/b"),
        "cached\n",
        "a copy, not the same file"
    );
    world.assert_nothing_left();
}

/// The operator commits while the batch is at work.
#[test]
fn a_base_that_moved_is_told_and_not_followed() {
    let world = World::new();
    let (up, go) = (world.path("up"), world.path("go"));
    let wait = format!(
        "touch {}; until test -e {}; do sleep 0.05; done; touch first",
        up.display(),
        go.display()
    );
    let tasks = format!(
        "  - {{id: first, prompt: '{wait}'}}\n  - {{id: second, prompt: 'touch second', depends_on: [first]}}\n"
    );
    batch(&world, "freshness: warn\n", &tasks);
    let run = world.start("run", &["run"]);
    world.eventually("the first works", |_| up.exists().then_some(()));
    world.write("of-the-operator", "meanwhile\n");
    world.git(&["add", "of-the-operator"]);
    world.git(&["commit", "-qm", "meanwhile"]);
    std::fs::write(&go, "").expect("it may go on");
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("run"));
    let told = explained(&world, "second");
    assert!(told.contains("main") && told.contains("moved"), "{told}");
    assert_eq!(delivered(&world, "of-the-operator"), None);
    assert_eq!(delivered(&world, "second").as_deref(), Some(""));
    assert!(history::is_sound(&world).is_empty());
    world.assert_nothing_left();
}
