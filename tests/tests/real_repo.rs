//! A real repository, a C program with its make: twelve tasks that depend on each other build it,
//! test it and fail where it is broken.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;

use serde_json::Value;
use supervisor_tests::world::World;

/// Compiled or not: each unit of the program.
const UNITS: [&str; 3] = ["lexer", "parser", "printer"];
/// The tasks and what each depends on, as the batch file says it.
const TASKS: [(&str, &[&str]); 12] = [
    ("configure", &[]),
    ("lexer", &["configure"]),
    ("parser", &["configure"]),
    ("printer", &["configure"]),
    ("link", &["lexer", "parser", "printer"]),
    ("test", &["link"]),
    ("lint", &["configure"]),
    ("broken", &["configure"]),
    ("broken-test", &["broken"]),
    ("broken-pack", &["broken-test", "link"]),
    ("pack", &["test", "lint"]),
    ("announce", &["pack"]),
];

/// The program's sources, its makefile and one unit that no compiler takes.
fn sources(world: &World) {
    for unit in UNITS {
        world.write(
            &format!("src/{unit}.c"),
            &format!("int {unit}(int n) {{ return n + {}; }}\n", unit.len()),
        );
    }
    world.write(
        "src/main.c",
        "#include <stdio.h>\nint lexer(int); int parser(int); int printer(int);\n\
         int main(void) { printf(\"%d\\n\", printer(parser(lexer(0)))); return 0; }\n",
    );
    world.write("src/broken.c", "int broken(void) { return not_there; }\n");
    world.write(
        "Makefile",
        "configure:\n\tmkdir -p build\n\
         lexer parser printer broken: %: build/%.o\n\
         build/%.o: src/%.c\n\tcc -c -o $@ $<\n\
         build/program: build/lexer.o build/parser.o build/printer.o build/main.o\n\
         \tcc -o $@ $^\n\
         link: build/program\n\
         test: build/program\n\ttest \"$$(build/program)\" = 18\n\
         lint:\n\tcc -fsyntax-only -Wall src/main.c\n\
         broken-test broken-pack: build/broken.o\n\
         pack: build/program\n\ttar cf build/program.tar build/program\n\
         announce:\n\ttar tf build/program.tar\n\
         .PHONY: configure lexer parser printer broken link test lint pack announce\n",
    );
    // Each task notes its own begin and end: the kernel's clock, not the supervisor's word.
    world.write(
        "step",
        "#!/bin/sh\necho \"$1 begin $(date +%s%N)\" >> notes\ntask=$1; shift\n\
         \"$@\"; code=$?\necho \"$task end $(date +%s%N)\" >> notes\nexit $code\n",
    );
    world.shell("chmod +x step").ok();
    world.commit("the program");
}

/// One agent, which takes the prompt as its last argument: what `make` is to make.
fn batch() -> String {
    let tasks = TASKS.map(|(task, deps)| {
        let deps = match deps {
            [] => String::new(),
            deps => format!(", depends_on: {}", serde_json::json!(deps)),
        };
        let verify = match task {
            "link" => ", verify: ['test -x build/program', [test, -s, build/program]]",
            "pack" => ", verify: [{run: 'test -s build/program.tar', timeout: 1m}]",
            _ => "",
        };
        format!("  - {{id: {task}, prompt: {task}{deps}{verify}}}\n")
    });
    format!(
        "version: 1\nname: program\nisolation: none\nconcurrency: 4\n\
         agents:\n  make: {{kind: command, command: [./step, '{{{{ task.id }}}}', make, -s]}}\n\
         defaults: {{agent: make, attempts: 1}}\ntasks:\n{}",
        tasks.concat()
    )
}

/// Begin and end of each task that ran, as it noted them.
fn notes(world: &World) -> BTreeMap<String, (u128, u128)> {
    let text = world.read("notes");
    let mut times: BTreeMap<String, Vec<u128>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [task, "begin" | "end", at] = words.as_slice() else {
            panic!("a note is `{line}`");
        };
        let at = at.parse().expect("a time");
        times.entry((*task).to_owned()).or_default().push(at);
    }
    times
        .into_iter()
        .map(|(task, times)| match times.as_slice() {
            [begin, end] => (task, (*begin, *end)),
            other => panic!("{task} ran {} times", other.len()),
        })
        .collect()
}

#[test]
fn twelve_tasks_build_and_test_a_real_program_in_the_right_order() {
    let world = World::new();
    sources(&world);
    world.write("batch.yml", &batch());
    let ran = world.supervisor(&["run", "--json"]).exits(1);
    let events: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let last = events.last().expect("there is output");
    assert_eq!(
        (&last["type"], &last["code"]),
        (&"ended".into(), &1.into()),
        "{last}"
    );

    let notes = notes(&world);
    for (task, deps) in TASKS {
        let Some((begin, end)) = notes.get(task) else {
            assert!(task.starts_with("broken-"), "{task} did not run");
            continue;
        };
        assert!(begin <= end);
        for dep in deps {
            assert!(
                notes[*dep].1 <= *begin,
                "{task} began before {dep} had ended"
            );
        }
    }
    let status = world.status();
    let tasks = status["tasks"].as_array().expect("tasks are a list");
    assert_eq!(tasks.len(), TASKS.len());
    for task in tasks {
        let id = task["id"].as_str().expect("an id");
        assert!(
            task["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty()),
            "{task}"
        );
        let expected = match id {
            "broken" => ("failed", "agent_failed"),
            "broken-test" | "broken-pack" => ("skipped", ""),
            _ => ("done", "done"),
        };
        let outcome = task["outcome"].as_str().unwrap_or_default();
        assert_eq!(
            (task["state"].as_str(), outcome),
            (Some(expected.0), expected.1),
            "{task}"
        );
    }
    let counts = &status["batch"]["counts"];
    assert_eq!(
        (&counts["done"], &counts["failed"], &counts["skipped"]),
        (&9.into(), &1.into(), &2.into())
    );
    reading_commands_agree(&world);
    world.assert_nothing_left();
}

fn reading_commands_agree(world: &World) {
    let logs = world.supervisor(&["logs", "announce"]).ok();
    assert_eq!(logs.stdout, "build/program\n");
    let logs = world.supervisor(&["logs", "broken", "--stderr"]).ok();
    assert!(logs.stdout.contains("not_there"), "{}", logs.stdout);
    for command in [
        &["list", "--json"][..],
        &["ps", "--json"],
        &["explain", "broken", "--json"],
    ] {
        world.supervisor(command).ok().json();
    }
    for line in world
        .supervisor(&["logs", "link", "--json"])
        .ok()
        .stdout
        .lines()
    {
        let event: Value = serde_json::from_str(line).expect("an event is JSON");
        assert_eq!(event["task"], "link");
    }
    world.supervisor(&["verify"]).ok();
    // Mended and tried again: what was skipped because of it runs as well.
    world.write("src/broken.c", "int broken(void) { return 0; }\n");
    world.supervisor(&["run", "--retry-failed"]).ok();
    assert_eq!(world.status()["batch"]["counts"]["done"], 12);
}
