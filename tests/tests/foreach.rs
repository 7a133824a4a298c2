//! A command lists the items of a `foreach`: once for a batch, within limits, and nothing of it stays.

use nix::sys::signal::Signal;
use supervisor_tests::world::{Ran, World};

/// A batch of one `foreach` whose command is this YAML value.
fn batch(world: &World, command: &str, keys: &str, run: &str) {
    let text = format!(
        "version: 1\nname: listed\nisolation: none\nenv_from: [ASKED]\nenv: {{SET: set}}\ntasks:\n\
         \x20 - id: \"t-{{{{ item.id | default(value=item) | str | slug }}}}\"\n\
         \x20   foreach: {{command: {command}{keys}}}\n\
         \x20   run: {run}\n"
    );
    world.write("batch.yml", &text);
}

/// How often the command was run, by its own file.
fn count(world: &World) -> usize {
    let text = std::fs::read_to_string(world.path("count")).unwrap_or_default();
    text.lines().count()
}

#[track_caller]
fn says(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(ran.stderr.contains(word), "`{word}` is not in {ran:?}");
    }
}

fn ids(planned: &Ran) -> Vec<String> {
    let plan = planned.json();
    let tasks = plan["tasks"].as_array().cloned().unwrap_or_default();
    let ids = tasks
        .iter()
        .map(|task| task["id"].as_str().unwrap_or("").to_owned());
    ids.collect()
}

#[test]
fn a_hundred_items_become_a_hundred_tasks_and_what_the_command_left_is_killed() {
    let world = World::new();
    let command = "['sh', '-c', 'echo once >> ../count; setsid sleep 1000 & seq 100']";
    batch(&world, command, "", "\"echo {{ item }} >> log\"");
    let checked = world.supervisor(&["validate"]).ok();
    assert!(checked.stdout.contains("known at the start"), "{checked:?}");
    assert_eq!(count(&world), 0, "a check starts nothing");

    world.supervisor(&["run"]).ok();
    let log = world.read("log");
    let mut numbers: Vec<u32> = log.lines().filter_map(|line| line.parse().ok()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<u32>>());
    assert_eq!(count(&world), 1);
    world.assert_nothing_left();
}

#[test]
fn the_first_character_says_what_is_printed() {
    let world = World::new();
    for (printed, expected) in [
        (
            "[1, {\"id\": \"two\"},\n \"three\"]",
            ["t-1", "t-two", "t-three"],
        ),
        (
            "{\"id\": 1}\n\n{\"id\": \"b\"}\n{\"id\": \"c\"}\n",
            ["t-1", "t-b", "t-c"],
        ),
        ("\"a b\"\n{\"id\": \"b\"}\n7\n", ["t-a-b", "t-b", "t-7"]),
        ("a b\nc.d  \n\n- e\n", ["t-a-b", "t-c.d", "t-e"]),
    ] {
        world.write("printed", printed);
        batch(&world, "cat printed", "", "'true'");
        let planned = world.supervisor(&["plan", "--json"]).ok();
        assert_eq!(ids(&planned), expected, "{printed}");
    }
    for (printed, place) in [
        ("[1, 2", "output of `cat printed`:1:5: not JSON"),
        ("{\"id\": 1}\n{\n", "output of `cat printed`:2:1: not JSON"),
    ] {
        world.write("printed", printed);
        says(&world.supervisor(&["plan"]).exits(3), &[place]);
    }
}

#[test]
fn it_works_in_the_folder_of_the_batch_file_and_sees_what_is_allowed() {
    let world = World::new();
    std::fs::create_dir(world.path("repo/sub")).expect("a folder");
    let text = "version: 1\nvars: {kind: bug}\nenv: {SET: set}\nenv_from: [ASKED]\nrepo: ..\ntasks:\n\
        \x20 - id: \"t-{{ item | slug }}\"\n\
        \x20   foreach: {command: [sh, -c, 'basename $PWD; echo $0 $SET $ASKED x$SECRET', '{{ vars.kind }}']}\n\
        \x20   run: 'true'\n";
    world.write("sub/batch.yml", text);
    let mut command = world.command(&["plan", "sub/batch.yml", "--json"]);
    command.env("SECRET", "secret").env("ASKED", "asked");
    let planned = command.output().expect("it starts");
    let planned = Ran {
        code: planned.status.code(),
        stdout: String::from_utf8_lossy(&planned.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&planned.stderr).into_owned(),
    };
    assert_eq!(ids(&planned.ok()), ["t-sub", "t-bug-set-asked-x"]);
}

#[test]
fn a_batch_that_goes_on_does_not_ask_again_and_an_edited_command_is_asked() {
    let world = World::new();
    let run = "\"echo {{ item }} >> log; until test -e open; do sleep 0.05; done\"";
    batch(&world, "'echo once >> ../count; cat list'", "", run);
    world.write("list", "a\nb\n");
    let started = world.start("first", &["run", "--no-guardian"]);
    world.eventually("both run", |world| {
        (world.read("log").lines().count() == 2).then_some(())
    });
    started.kill();
    world.write("list", "other\n");
    let shown = world.supervisor(&["run", "--dry-run"]).ok();
    assert!(shown.stdout.contains("t-b"), "{shown:?}");
    assert!(!shown.stdout.contains("t-other"), "{shown:?}");
    assert_eq!(count(&world), 1, "it is frozen at the start");

    // The same command in an edited file: its items stay.
    batch(
        &world,
        "'echo once >> ../count; cat list'",
        "",
        "\"touch {{ item }}\"",
    );
    let shown = world.supervisor(&["run", "--dry-run"]).ok();
    assert!(!shown.stdout.contains("t-other"), "{shown:?}");
    assert_eq!(count(&world), 1);

    // Another command is another list.
    batch(
        &world,
        "'echo twice >> ../count; cat list'",
        "",
        "\"touch {{ item }}\"",
    );
    world.write("open", "");
    let ran = world.supervisor(&["run"]).ok();
    assert!(ran.stdout.contains("removed  t-a"), "{ran:?}");
    assert!(world.path("repo/other").exists());
    assert!(!world.path("repo/b").exists());
    assert_eq!(count(&world), 2);
    world.supervisor(&["run"]).exits(8);
    assert_eq!(count(&world), 2, "a finished batch is not asked for either");
    world.supervisor(&["run", "--new"]).ok();
    assert_eq!(count(&world), 3, "a new batch asks anew");
    world.assert_nothing_left();
}

#[test]
fn a_command_that_fails_is_a_mistake_of_the_file_and_starts_nothing() {
    let world = World::new();
    let hang = "'sleep 1000 & setsid sleep 1000 & echo so far >&2; wait'";
    for (command, keys, words) in [
        (
            "'echo a; echo not >&2; echo today >&2; exit 7'",
            "",
            ["exited with 7", "not / today"],
        ),
        (
            "'kill -9 $$'",
            "",
            ["was ended by signal 9", "run it by hand"],
        ),
        (
            hang,
            ", timeout: 700ms",
            ["took longer than 700ms", "so far"],
        ),
        ("'yes'", "", ["printed more than 16 MiB", "`yes`"]),
        ("[printf, 'ok\\377']", "", ["not UTF-8 at byte 2", "printf"]),
        ("'echo'", "", ["printed no items", "`echo`"]),
        (
            "[no-such-program, x]",
            "",
            ["no-such-program x", "not in the folders of PATH"],
        ),
        ("[/]", "", ["could not be started", "enied"]),
    ] {
        batch(&world, command, keys, "'true'");
        let ran = world.supervisor(&["run"]).exits(3);
        says(&ran, &words);
        says(&ran, &["batch.yml:8:24: ", "1 mistake"]);
        assert_eq!(world.batch_dir(), None);
        world.assert_nothing_left();
    }
    batch(&world, "[printf, 'a b\\na-b\\n']", "", "'true'");
    let ran = world.supervisor(&["run"]).exits(3);
    says(&ran, &["two items make the same id `t-a-b`"]);
}

#[test]
fn it_goes_with_the_command_that_waits_for_it() {
    let world = World::new();
    let hang =
        "'setsid sleep 1000 & echo up > ../up; trap \"\" TERM; while :; do sleep 1000; done'";
    batch(&world, hang, "", "'true'");
    for args in [&["run"][..], &["run", "--no-guardian"], &["plan"]] {
        let started = world.start_apart("asked", args);
        world.eventually("it hangs", |world| world.path("up").exists().then_some(()));
        started.signal_group(Signal::SIGINT);
        assert_eq!(started.end(&world), Some(5), "{args:?}");
        world.assert_nothing_left();
        std::fs::remove_file(world.path("up")).expect("the mark");
    }
    assert_eq!(world.batch_dir(), None);
    let started = world.start("killed", &["plan"]);
    world.eventually("it hangs", |world| world.path("up").exists().then_some(()));
    started.kill();
    world.assert_nothing_left();
}
