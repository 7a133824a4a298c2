//! Twenty tasks in worktrees of a real repository: all of their work is delivered in a valid order, and
//! nothing of the operator's is touched.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::path::Path;

use supervisor_tests::delivery::untouched::Side;
use supervisor_tests::delivery::{
    batch, batch_branch, delivered, explained, history, merge_state, repository, row,
};
use supervisor_tests::world::World;

/// The repository, and the batch file that keeps every worktree.
fn stage() -> (World, String, Side) {
    let world = World::new();
    repository::build(&world, &batch::needs());
    let text = batch::file(batch::Rules {
        name: "delivery",
        concurrency: 4,
        keep: "all",
    });
    world.write("delivery.yml", &text);
    let base = world.git(&["rev-parse", "HEAD"]).trim_end().to_owned();
    let before = Side::of(&world.repo());
    (world, base, before)
}

#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn twenty_tasks_are_delivered_and_the_operators_side_is_untouched() {
    let (world, base, before) = stage();
    world.supervisor(&["run", "delivery.yml"]).ok();
    let branch = batch_branch(&world);
    none(&before.differences(&Side::of(&world.repo())));
    none(&history::is_whole(&world, &base, &branch));
    none(&history::is_sound(&world));
    none(&history::proven_again(&world, &base, &branch));
    each_task_says_where_its_work_is(&world, &base, &branch);
    conflicts_are_told(&world);
    clean_removes_only_what_is_kept_elsewhere(&world);
    none(&before.differences(&Side::of(&world.repo())));
    none(&history::is_whole(&world, &base, &branch));
    none(&history::is_sound(&world));
    world.assert_nothing_left();
}

/// Worktree, branch and merge of each row are those that git knows.
fn each_task_says_where_its_work_is(world: &World, base: &str, branch: &str) {
    let folders = history::worktrees(world);
    let (merges, _) = history::merges(world, base, branch);
    for task in batch::TASKS {
        let row = row(world, task.id);
        assert_eq!(row["state"], "done", "{row}");
        assert_eq!(merge_state(world, task.id), "merged", "{row}");
        let worktree = row["worktree"].as_str().expect("a worktree");
        assert!(
            folders.iter().any(|it| it == worktree),
            "{row}: {folders:?}"
        );
        let own = row["branch"].as_str().expect("a branch");
        let tip = world.git(&["rev-parse", own]);
        let merged = merges.iter().find(|merged| merged.task == task.id);
        let work = merged.map(|merged| merged.work.as_str());
        assert_eq!(
            work,
            Some(tip.trim_end()),
            "exactly its commit is merged: {row}"
        );
    }
    none(&history::strays(world));
}

/// Of each pair one is merged first, and the other one's conflict is resolved by the agent.
fn conflicts_are_told(world: &World) {
    for (one, other, file) in [
        ("left", "right", "src/pair.txt"),
        ("east", "west", "src/compass.txt"),
    ] {
        let told = [one, other].map(|task| explained(world, task));
        let resolved = told
            .iter()
            .filter(|told| told.contains("an agent resolves it"));
        let resolved: Vec<&String> = resolved.collect();
        assert_eq!(resolved.len(), 1, "one of the two: {told:#?}");
        assert!(resolved[0].contains(file), "{}", resolved[0]);
        assert!(resolved[0].contains("conflicts with"), "{}", resolved[0]);
    }
}

/// Without `--yes` nothing goes; with it everything that is merged goes, and what was left lying in a
/// worktree after its merge is on a salvage ref before.
fn clean_removes_only_what_is_kept_elsewhere(world: &World) {
    let before = history::worktrees(world);
    let planned = world.supervisor(&["clean"]).ok();
    assert!(planned.stdout.contains("lexer"), "{}", planned.stdout);
    assert_eq!(history::worktrees(world), before, "a plan changes nothing");

    let lexer = row(world, "lexer");
    let worktree = Path::new(lexer["worktree"].as_str().expect("a worktree"));
    std::fs::write(worktree.join("afterthought"), "not merged\n").expect("a file");
    world.supervisor(&["clean", "--yes"]).ok();
    let left: Vec<String> = history::worktrees(world)
        .into_iter()
        .filter(|folder| folder.contains("/tasks/"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!worktree.exists(), "{}", worktree.display());
    let listed = world.supervisor(&["salvage", "list"]).ok();
    assert!(listed.stdout.contains("lexer"), "{}", listed.stdout);
    let refs = world.git(&[
        "for-each-ref",
        "--format=%(refname)",
        "refs/supervisor/salvage",
    ]);
    let kept = refs.lines().filter(|line| line.contains("/lexer/"));
    let kept = kept.filter(|line| {
        let show = format!("git ls-tree -r --name-only {line} | grep -q afterthought");
        world.shell(&show).code == Some(0)
    });
    assert_eq!(kept.count(), 1, "{refs}");
    world.supervisor(&["clean", "--yes"]).ok();
    assert_eq!(
        delivered(world, "done/lexer.txt").as_deref(),
        Some("lexer\n")
    );
}
