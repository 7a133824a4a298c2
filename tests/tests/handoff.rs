//! What an attempt has taught reaches the next one, also where the agent is a plain program.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use supervisor_tests::delivery::row;
use supervisor_tests::world::World;

/// A program that notes what it is handed, by the file and by the template, and changes a file.
const AGENT: &str = r#"version: 1
name: handed
env: {NOTES: NOTES-FOLDER}
agents:
  plain:
    kind: command
    command:
      - sh
      - -c
      - |
        n=$(ls "$NOTES" | wc -l)
        printf %s "$1" > "$NOTES/$n.template"
        test -z "${SUPERVISOR_HANDOFF+set}" || cp "$SUPERVISOR_HANDOFF" "$NOTES/$n.file"
        echo "$n" >> work
      - plain
      - "{{ handoff }}"
"#;

fn world(rules: &str) -> World {
    let world = World::new();
    let notes = world.path("notes");
    std::fs::create_dir(&notes).expect("a folder");
    let head = AGENT.replace("NOTES-FOLDER", &notes.display().to_string());
    world.write("batch.yml", &format!("{head}{rules}"));
    world
}

fn note(world: &World, name: &str) -> Option<String> {
    std::fs::read_to_string(world.path("notes").join(name)).ok()
}

#[test]
fn a_failed_proof_is_in_the_file_and_the_template_of_the_next_attempt() {
    let world = world(
        "defaults: {agent: plain, attempts: 2, retry: {backoff: 1ms}}\n\
         tasks:\n\
         \x20 - id: one\n\
         \x20   prompt: do it\n\
         \x20   verify:\n\
         \x20     - 'echo all is well >&2'\n\
         \x20     - 'seq 3000; echo FAILED lexer; test $(wc -l < work) = 2'\n",
    );
    world.supervisor(&["run"]).ok();
    assert_eq!(row(&world, "one")["attempt"], 2);
    assert_eq!(
        note(&world, "0.template").as_deref(),
        Some(""),
        "nothing yet"
    );
    assert_eq!(note(&world, "0.file"), None, "nothing is handed on");
    let told = note(&world, "1.file").expect("the second attempt is told");
    assert_eq!(note(&world, "1.template").as_deref(), Some(told.as_str()));
    assert!(told.contains("ended with `verify_failed`"), "{told}");
    assert!(told.contains("3000\nFAILED lexer\n"), "{told}");
    assert!(
        !told.contains("\n7\n") && told.len() < 10_000,
        "only the end"
    );
    let logs = told
        .split_once("All of it is in ")
        .expect("where the whole is")
        .1;
    let log = logs.split(' ').next().expect("a path");
    let whole = std::fs::read_to_string(log).expect("the log is there");
    assert!(whole.contains("\n7\n"), "{log}");
    world.assert_nothing_left();
}

#[test]
fn what_the_reviewer_says_is_handed_on_once() {
    let world = world(
        "  judge: {kind: command, command: [sh, ../judge.sh], result_file: ../verdict.json}\n\
         tasks: [{id: one, agent: plain, prompt: do it, review: {agent: judge, rounds: 2}}]\n",
    );
    let judge = r#"v=revise; grep -q 1 work && v=approve
printf '{"status":"ok","summary":"use the SPADE","verdict":"%s"}' $v > ../verdict.json"#;
    let text = world
        .read("batch.yml")
        .replace("../", &format!("{}/", world.path("").display()));
    world.write("batch.yml", &text);
    let judge = judge.replace("../", &format!("{}/", world.path("").display()));
    std::fs::write(world.path("judge.sh"), judge).expect("a file");
    world.supervisor(&["run"]).ok();
    assert_eq!(row(&world, "one")["attempt"], 1, "a round is no attempt");
    let told = note(&world, "1.file").expect("the second round is told");
    assert!(told.contains("use the SPADE"), "{told}");
    assert_eq!(note(&world, "1.template").as_deref(), Some(told.as_str()));
    world.assert_nothing_left();
}
