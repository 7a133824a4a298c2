//! Proofs, hooks and outputs at their edges: what a proof writes or leaves behind, how it may end, which
//! markers count, how each hook may say no, and outputs that are none.

use supervisor_tests::delivery::{delivered, explained, failed_as, merge_state, row};
use supervisor_tests::world::World;

const HEAD: &str = "version: 1\nname: proof\non_failure: continue\n\
    agents: {shell: {kind: command, command: [sh, -c]}}\n\
    defaults: {agent: shell, attempts: 1, retry: {backoff: 1ms}}\n";

fn batch(world: &World, rules: &str, tasks: &str) {
    world.write("batch.yml", &format!("{HEAD}{rules}tasks:\n{tasks}"));
}

#[track_caller]
fn merged(world: &World, task: &str) {
    let told = explained(world, task);
    assert_eq!(merge_state(world, task), "merged", "{task}: {told}");
}

const CONFLICT: &str = "<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n";

#[test]
fn a_proof_counts_by_its_end_alone_and_only_the_commit_is_delivered() {
    let world = World::new();
    world.write("tracked", "old\n");
    world.write("doc.md", CONFLICT);
    world.commit("a text about conflicts");
    batch(
        &world,
        "",
        "  - {id: writes, prompt: touch writes, verify: ['echo new > tracked; touch untracked; rm writes']}\n\
         \x20 - {id: leaves, prompt: touch leaves, verify: ['setsid sleep 1000 & echo left']}\n\
         \x20 - {id: slow, prompt: touch slow, verify: [{run: 'setsid sleep 1000 & sleep 1000', timeout: 500ms}]}\n\
         \x20 - {id: forms, prompt: touch forms, verify: [[test, -f, forms], {run: [sh, -c, 'test $X = here'], timeout: 1h, env: {X: here}}]}\n\
         \x20 - {id: second, prompt: touch second, verify: ['true', 'echo on stdout; exit 7', 'touch ../../third']}\n\
         \x20 - {id: loud, prompt: touch loud, verify: ['yes loud | head -c 209715200']}\n\
         \x20 - {id: signal, prompt: touch signal, verify: ['kill -9 $$']}\n\
         \x20 - {id: absent, prompt: touch absent, verify: ['no-such-program']}\n\
         \x20 - {id: kept, prompt: 'echo more >> doc.md'}\n\
         \x20 - {id: again, prompt: 'cat doc.md > x; cat x >> doc.md; rm x'}\n\
         \x20 - {id: title, prompt: \"printf 'Title\\n=======\\n' > title.md\"}\n\
         \x20 - {id: binary, prompt: \"printf '\\\\000<<<<<<< a\\n=======\\n>>>>>>> b\\n' > binary\"}\n",
    );
    world.supervisor(&["run"]).exits(1);
    for task in [
        "writes", "leaves", "forms", "loud", "kept", "title", "binary",
    ] {
        merged(&world, task);
    }
    assert_eq!(delivered(&world, "tracked").as_deref(), Some("old\n"));
    assert_eq!(delivered(&world, "untracked"), None);
    assert_eq!(delivered(&world, "writes").as_deref(), Some(""));
    failed_as(&world, "slow", "verify_failed", &["longer than 500ms"]);
    failed_as(&world, "second", "verify_failed", &["exited with 7"]);
    failed_as(&world, "signal", "verify_failed", &["signal 9"]);
    failed_as(&world, "absent", "verify_failed", &["exited with 127"]);
    failed_as(&world, "again", "verify_failed", &["markers", "doc.md"]);
    let kept = world
        .shell("find ../state -name stdout.log -size +199M | wc -l")
        .ok();
    assert_eq!(kept.stdout.trim(), "1", "all of it is in its log");
    world.assert_nothing_left();
}

#[test]
fn a_proof_whose_program_is_missing_is_the_environments_fault() {
    let world = World::new();
    let task = "  - {id: absent, prompt: touch absent, verify: [[no-such-program, x]]}\n";
    batch(&world, "", task);
    let ran = world.supervisor(&["run"]);
    assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
    let told = explained(&world, "absent");
    assert!(told.contains("no-such-program"), "{told}");
    assert!(told.contains("environment"), "{told}");
    assert_ne!(merge_state(&world, "absent"), "merged");
    world.assert_nothing_left();
}

/// Everything but 0 and 1 is a no, and what a hook leaves running is killed.
#[test]
fn a_hook_says_no_by_any_end_but_two() {
    let world = World::new();
    let hook = |name: &str| {
        let notes = world.path("notes");
        let notes = notes.display();
        format!(
            "  {name}:\n    - run: 'pwd >> {notes}; echo {name} $SUPERVISOR_TASK $SUPERVISOR_ATTEMPT $WHERE >> {notes}; \
             setsid sleep 1000 & case $SUPERVISOR_TASK in \
             {name}-other) exit 3;; {name}-signal) kill -9 $$;; {name}-late) sleep 1000;; esac'\n\
             \x20     timeout: 4s\n      env: {{WHERE: hooked}}\n"
        )
    };
    let names = ["after_create", "before_run", "after_run", "before_remove"];
    let hooks: String = names.map(hook).concat();
    let rules = format!("worktrees: {{keep: failed}}\nhooks:\n{hooks}");
    let ends = ["other", "signal", "late"];
    let tasks = names.map(|name| {
        ends.map(|end| format!("  - {{id: {name}-{end}, prompt: 'touch {name}-{end}'}}\n"))
            .concat()
    });
    batch(&world, &rules, &tasks.concat());
    let ran = world.supervisor(&["run"]);
    assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
    for name in ["after_create", "before_run", "after_run"] {
        for (end, word) in ends
            .iter()
            .zip(["exited with 3", "signal 9", "longer than 4s"])
        {
            failed_as(
                &world,
                &format!("{name}-{end}"),
                "setup_failed",
                &[name, word],
            );
        }
    }
    for end in ends {
        let id = format!("before_remove-{end}");
        merged(&world, &id);
        let kept = row(&world, &id);
        let worktree = kept["worktree"].as_str().unwrap_or_default();
        assert!(std::path::Path::new(worktree).is_dir(), "it stays: {kept}");
    }
    let notes = std::fs::read_to_string(world.path("notes")).expect("the hooks ran");
    assert!(
        notes.contains("before_run before_run-other 1 hooked\n"),
        "{notes}"
    );
    let folders = notes.lines().filter(|line| line.starts_with('/'));
    let work = folders.filter(|folder| folder.contains("/tasks/")).count();
    assert_eq!(
        work * 2,
        notes.lines().count(),
        "each in its worktree: {notes}"
    );
    world.assert_nothing_left();
}

#[test]
fn a_worktree_that_is_made_anew_is_hooked_anew() {
    let world = World::new();
    let notes = world.path("notes").display().to_string();
    let rules =
        format!("hooks: {{after_create: ['echo $SUPERVISOR_ATTEMPT >> {notes}; touch set-up']}}\n");
    batch(
        &world,
        &rules,
        "  - id: fresh\n    attempts: 3\n    retry: {backoff: 1ms, by_class: {agent_failed: resume, verify_failed: fresh}}\n\
         \x20   prompt: 'echo $SUPERVISOR_ATTEMPT >> work; test -f set-up && test $SUPERVISOR_ATTEMPT != 1'\n\
         \x20   verify: ['test $SUPERVISOR_ATTEMPT = 3']\n",
    );
    world.supervisor(&["run"]).ok();
    let hooked = std::fs::read_to_string(world.path("notes")).expect("the hook ran");
    assert_eq!(
        hooked, "1\n3\n",
        "not for an attempt that goes on in the same worktree"
    );
    assert_eq!(delivered(&world, "work").as_deref(), Some("3\n"));
}

#[test]
fn outputs_are_files_and_folders_of_the_worktree_and_nothing_else() {
    let world = World::new();
    batch(
        &world,
        "",
        "  - {id: folder, prompt: 'mkdir -p out/in; echo a > out/in/a; touch out/b', outputs: [out, out/b]}\n\
         \x20 - {id: large, prompt: 'head -c 209715200 /dev/zero > large; echo large >> .gitignore; cat .gitignore', outputs: [large]}\n\
         \x20 - {id: link, prompt: 'ln -s /etc/hostname name; touch link', outputs: [name]}\n\
         \x20 - {id: behind, prompt: 'ln -s /etc etc; touch behind', outputs: [etc/hostname]}\n\
         \x20 - {id: pipe, prompt: 'mkfifo pipe; touch with-pipe', outputs: [pipe]}\n\
         \x20 - {id: string, run: 'echo $0 > string', outputs: [string]}\n\
         \x20 - {id: argv, run: [sh, -c, 'echo $0 > argv', given], outputs: [argv]}\n\
         \x20 - id: use\n    depends_on: [folder, large, argv]\n\
         \x20   run: [sh, -c, 'cat \"$0/in/a\" \"$1\" > used; wc -c < \"$2\" >> used', '{{ deps[\"folder\"].outputs.out }}', '{{ deps[\"argv\"].outputs.argv }}', '{{ deps[\"large\"].outputs.large }}']\n",
    );
    world.supervisor(&["run"]).exits(1);
    for task in ["folder", "large", "string", "argv", "use"] {
        merged(&world, task);
    }
    assert_eq!(
        delivered(&world, "used").as_deref(),
        Some("a\ngiven\n209715200\n")
    );
    for (task, output) in [
        ("link", "name"),
        ("behind", "etc/hostname"),
        ("pipe", "pipe"),
    ] {
        failed_as(&world, task, "no_result", &[output]);
    }
    let kept = world
        .shell("find ../state -path '*outputs*' -name hostname")
        .ok();
    assert_eq!(kept.stdout, "", "nothing from outside is kept");
    world.assert_nothing_left();
}
