//! Reviews: sent back with notes, approved, rejected, and never taken without a word.

use supervisor_tests::delivery::{delivered, explained, history, merge_state, reported, row};
use supervisor_tests::world::World;

/// A worker that writes down what it is told, and a reviewer whose verdict at each time is a line of
/// `verdicts`; what the reviewer saw goes to `seen`.
fn reviewed(verdicts: &str, rounds: u32) -> World {
    let world = World::new();
    std::fs::write(world.path("verdicts"), verdicts).unwrap_or_default();
    let (verdicts, times, seen, result) = (
        world.path("verdicts"),
        world.path("times"),
        world.path("seen"),
        world.path("verdict.json"),
    );
    let reviewer = format!(
        "#!/bin/sh\nset -eu\necho . >> '{times}'\nn=$(wc -l < '{times}')\n\
         printf '%s\\n' \"$1\" >> '{seen}'; cat told.txt >> '{seen}'\n\
         verdict=$(sed -n \"${{n}}p\" '{verdicts}')\n\
         case $verdict in\n\
         none) printf '{{\"status\": \"ok\", \"summary\": \"hm\"}}' > '{result}';;\n\
         *) printf '{{\"status\": \"ok\", \"summary\": \"note %s\", \"verdict\": \"%s\"}}' \"$n\" \"$verdict\" > '{result}';;\n\
         esac\n",
        times = times.display(),
        seen = seen.display(),
        verdicts = verdicts.display(),
        result = result.display(),
    );
    let program = world.path("reviewer.sh");
    std::fs::write(&program, reviewer).unwrap_or_default();
    let text = format!(
        "version: 1\nname: reviewed\n\
         agents:\n\
         \x20 worker: {{kind: command, command: [sh, -c, 'printf \"%s\\n\" \"$0\" >> told.txt']}}\n\
         \x20 reviewer: {{kind: command, command: [sh, {program:?}], result_file: {result:?}}}\n\
         defaults: {{agent: worker, attempts: 1, retry: {{backoff: 1s}}}}\n\
         tasks:\n  - {{id: work, prompt: do the work, review: {{agent: reviewer, rounds: {rounds}, prompt: look closely}}}}\n",
        program = program.display().to_string(),
        result = result.display().to_string(),
    );
    world.write("batch.yml", &text);
    world
}

fn times(world: &World) -> usize {
    let text = std::fs::read_to_string(world.path("times")).unwrap_or_default();
    text.lines().count()
}

#[test]
fn work_that_is_sent_back_twice_is_done_over_with_the_notes_and_then_taken() {
    let world = reviewed("revise\nrevise\napprove\n", 2);
    world.supervisor(&["run"]).ok();
    assert_eq!(times(&world), 3);
    let work = row(&world, "work");
    assert_eq!(
        (&work["state"], &work["attempt"]),
        (&"done".into(), &1.into()),
        "{work}"
    );
    assert_eq!(merge_state(&world, "work"), "merged");
    let told = delivered(&world, "told.txt").unwrap_or_default();
    assert!(told.starts_with("do the work"), "{told}");
    let (first, second) = (told.find("note 1"), told.find("note 2"));
    assert!(
        first.is_some() && second > first,
        "the worker is told the notes: {told}"
    );
    let seen = std::fs::read_to_string(world.path("seen")).unwrap_or_default();
    for words in ["look closely", "do the work", "git diff", "note 1"] {
        assert!(
            seen.contains(words),
            "the reviewer is told `{words}`: {seen}"
        );
    }
    let story = explained(&world, "work");
    for words in ["note 1", "note 2", "approve"] {
        assert!(story.contains(words), "{words}: {story}");
    }
    reported(
        &world,
        "work",
        &["revise", "note 1", "note 2", "approve", "note 3"],
    );
    assert_eq!(
        history::worktrees(&world)
            .iter()
            .filter(|it| it.ends_with("/worktree"))
            .count(),
        1
    );
    world.assert_nothing_left();
}

#[test]
fn rejected_work_fails_and_is_not_merged() {
    let world = reviewed("reject\n", 2);
    world.supervisor(&["run"]).exits(1);
    let work = row(&world, "work");
    assert_eq!(
        (&work["state"], &work["outcome"]),
        (&"failed".into(), &"rejected".into()),
        "{work}"
    );
    assert_eq!(delivered(&world, "told.txt"), None);
    let story = explained(&world, "work");
    assert!(
        story.contains("note 1") && story.contains("reject"),
        "{story}"
    );
    reported(&world, "work", &["rejected", "reject", "note 1"]);
    world.assert_nothing_left();
}

#[test]
fn work_that_is_sent_back_too_often_is_rejected() {
    let world = reviewed("revise\nrevise\nrevise\nrevise\n", 1);
    world.supervisor(&["run"]).exits(1);
    assert_eq!(times(&world), 2);
    assert_eq!(row(&world, "work")["outcome"], "rejected");
    assert_eq!(delivered(&world, "told.txt"), None);
    world.assert_nothing_left();
}

#[test]
fn a_review_without_a_verdict_takes_nothing() {
    let world = reviewed(&"none\n".repeat(20), 2);
    world.supervisor(&["run"]).exits(1);
    assert!(times(&world) > 1, "it is asked again");
    assert_eq!(row(&world, "work")["outcome"], "rejected");
    assert_eq!(delivered(&world, "told.txt"), None);
    let story = explained(&world, "work");
    assert!(story.contains("no verdict"), "{story}");
    world.assert_nothing_left();
}
