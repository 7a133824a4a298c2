//! Merges that can not be made, or that break what the others built: parked, failed, found by halving.

use std::collections::BTreeSet;

use serde_json::Value;
use supervisor_tests::delivery::{
    batch_branch, delivered, explained, history, merge_state, reported, row,
};
use supervisor_tests::world::World;

/// Two tasks that change the same line, the second one after the first one's merge is under way.
fn pair(merge: &str) -> World {
    let world = World::new();
    world.write("line.txt", "nobody\n");
    world.commit("a line");
    let text = format!(
        "version: 1\nname: pair\nconcurrency: 2\nmerge: {merge}\n\
         agents:\n  lazy: {{kind: command, command: [sh, -c, 'true']}}\n\
         tasks:\n  - {{id: one, run: 'echo one > line.txt'}}\n  - {{id: two, run: 'echo two > line.txt'}}\n"
    );
    world.write("batch.yml", &text);
    world
}

/// Which of the two was merged, and which was not.
fn merged_and_not(world: &World) -> (&'static str, &'static str) {
    match merge_state(world, "one").as_str() {
        "merged" => ("one", "two"),
        _ => ("two", "one"),
    }
}

#[test]
fn a_parked_conflict_waits_for_the_operator_and_is_merged_once_its_cause_is_gone() {
    let world = pair("{on_conflict: park}");
    world.supervisor(&["run"]).exits(4);
    let (first, second) = merged_and_not(&world);
    let row = row(&world, second);
    assert_eq!(row["state"], "done", "done and merged are two facts: {row}");
    assert_eq!(merge_state(&world, second), "parked", "{row}");
    let told = explained(&world, second);
    assert!(
        told.contains("line.txt") && told.contains("parked"),
        "{told}"
    );
    let conflict = format!("conflicts with {first} in: line.txt");
    assert!(told.contains(&conflict), "{told}");
    reported(&world, second, &["parked", &conflict]);
    assert_eq!(delivered(&world, "line.txt"), Some(format!("{first}\n")));

    // Tried again without a change it is parked again, and nothing else changes.
    let tip = world.git(&["rev-parse", &batch_branch(&world)]);
    world.supervisor(&["retry", second]);
    world.supervisor(&["run"]).exits(4);
    assert_eq!(world.git(&["rev-parse", &batch_branch(&world)]), tip);

    let branch = batch_branch(&world);
    let line = format!(
        "git worktree add -q ../fix '{branch}' && cd ../fix && echo nobody > line.txt && \
         git -c user.name=o -c user.email=o@localhost commit -qam 'as it was' && \
         git worktree remove --force ../fix"
    );
    world.shell(&line).ok();
    world.supervisor(&["retry", second]);
    world.supervisor(&["run"]).ok();
    assert_eq!(merge_state(&world, second), "merged");
    assert_eq!(delivered(&world, "line.txt"), Some(format!("{second}\n")));
    assert!(history::is_sound(&world).is_empty());
    world.assert_nothing_left();
}

#[test]
fn a_conflict_that_is_to_fail_fails_and_the_other_stays_merged() {
    let world = pair("{on_conflict: fail}");
    world.supervisor(&["run"]).exits(1);
    let (first, second) = merged_and_not(&world);
    assert_eq!(merge_state(&world, second), "failed");
    assert_eq!(row(&world, second)["state"], "done");
    assert_eq!(delivered(&world, "line.txt"), Some(format!("{first}\n")));
    assert!(explained(&world, second).contains("line.txt"));
    world.assert_nothing_left();
}

#[test]
fn an_agent_that_leaves_the_markers_does_not_get_them_merged() {
    let world = pair("{on_conflict: agent, agent: lazy, prompt: 'resolve it'}");
    world.supervisor(&["run"]).exits(4);
    let (first, second) = merged_and_not(&world);
    assert_eq!(merge_state(&world, second), "parked");
    assert_eq!(delivered(&world, "line.txt"), Some(format!("{first}\n")));
    let told = explained(&world, second);
    assert!(
        told.contains("markers") && told.contains("line.txt"),
        "{told}"
    );
    assert!(history::is_sound(&world).is_empty());
    world.assert_nothing_left();
}

/// Four that share one proof: each is good by itself, one breaks the whole.
#[test]
fn the_one_of_four_that_breaks_the_proof_is_found_and_the_others_are_merged() {
    let (world, base) = four_behind_a_gate();
    let mut run = world.start("run", &["run"]);
    world.eventually("all four wait for the gate", |world| {
        assert!(run.ended().is_none(), "{}", world.printed("run"));
        let ran = world.supervisor(&["status", "--json"]);
        let status: Value = serde_json::from_str(&ran.stdout).ok()?;
        let rows = status["tasks"].as_array()?;
        rows.iter().all(|row| row["state"] == "done").then_some(())
    });
    std::fs::write(world.path("go"), "").expect("the gate opens");
    assert_eq!(run.end(&world), Some(4), "{}", world.printed("run"));
    for id in ["gate", "a", "b", "d"] {
        assert_eq!(
            merge_state(&world, id),
            "merged",
            "{}",
            explained(&world, id)
        );
    }
    assert_eq!(merge_state(&world, "c"), "parked");
    let told = explained(&world, "c");
    assert!(told.contains("broke the proof"), "{told}");
    reported(&world, "c", &["halving", "broke the proof", "it is broken"]);
    let branch = batch_branch(&world);
    let (merges, wrong) = history::merges(&world, &base, &branch);
    assert!(wrong.is_empty(), "{wrong:?}");
    let tasks: BTreeSet<&str> = merges.iter().map(|merged| merged.task.as_str()).collect();
    assert_eq!(tasks, BTreeSet::from(["a", "b", "d", "gate"]));
    for merged in &merges {
        let tree = world.git(&["ls-tree", "-r", "--name-only", &merged.commit]);
        assert!(
            !tree.contains("broken"),
            "each merge that stays is good: {tree}"
        );
    }
    // The gate, all four, and the halves of them at least.
    let journal = world.journal();
    let is_proof =
        |line: &&Value| line["record"]["run_intended"]["purpose"]["merge"][1] == "verify";
    let proofs = journal.iter().filter(is_proof).count();
    assert!((3..=7).contains(&proofs), "{proofs} proofs");
    assert!(history::is_sound(&world).is_empty());
    world.assert_nothing_left();
}

/// The gate's merge is being proven until a file is there; the four end meanwhile, so that one round
/// takes all of them.
fn four_behind_a_gate() -> (World, String) {
    let world = World::new();
    let base = world.git(&["rev-parse", "HEAD"]).trim_end().to_owned();
    let task = |id: &str, more: &str, keys: &str| {
        format!("  - {{id: {id}, run: 'mkdir -p done && echo {id} > done/{id}.txt{more}'{keys}}}\n")
    };
    let gated = ", depends_on: {gate: {condition: done}}";
    let tasks = [
        task("gate", "", ""),
        task("a", "", gated),
        task("b", "", gated),
        task("c", " && touch broken", gated),
        task("d", "", gated),
    ];
    let go = world.path("go");
    let proof = format!(
        "until test -e {}; do sleep 0.05; done; test ! -e broken || {{ echo it is broken >&2; exit 1; }}",
        go.display()
    );
    let text = format!(
        "version: 1\nname: four\nconcurrency: 4\n\
         merge: {{group: 4, on_conflict: park, verify: [{}]}}\ntasks:\n{}",
        Value::from(proof),
        tasks.concat()
    );
    world.write("batch.yml", &text);
    (world, base)
}
