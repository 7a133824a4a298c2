//! What else an agent may try: to order its own supervisor about, and to make the product write
//! where it should not.

use std::path::{Path, PathBuf};

use supervisor_tests::world::World;

/// Ways in which an agent may start a command: as it is, without its environment, and without
/// environment in a session whose leader has no parent of the run.
const DISGUISES: [(&str, &str); 3] = [
    ("plain", "env"),
    ("no-environment", "env -i"),
    ("daemon", "setsid --wait env -i"),
];
/// What it may order.
const ORDERS: [&str; 7] = [
    "kill zoo/other --grace 0s",
    "kill zoo --grace 0s",
    "cancel zoo/other",
    "pause zoo",
    "steer zoo/other hello",
    "retry zoo/other",
    "answer zoo/q1 yes",
];

fn orders(world: &World, supervisor: &Path) -> String {
    let mut script = "#!/bin/sh\n".to_owned();
    for (disguise, program) in DISGUISES {
        for order in ORDERS {
            script.push_str(&format!(
                "{program} PATH=\"$PATH\" HOME={home} XDG_STATE_HOME={state} XDG_RUNTIME_DIR={run} \
                 {supervisor} {order} >> {log} 2>&1\necho \"$? {disguise}: {order}\" >> orders\n",
                home = world.path("home").display(),
                state = world.path("state").display(),
                run = world.path("run").display(),
                supervisor = supervisor.display(),
                log = world.path("orders.log").display(),
            ));
        }
    }
    script.push_str("touch ordered\n");
    script
}

#[test]
fn an_agent_that_orders_its_own_supervisor_about_is_refused() {
    let world = World::new();
    let supervisor = supervisor_tests::world::programs().join("supervisor");
    world.write("orders.sh", &orders(&world, &supervisor));
    world.write(
        "zoo.yml",
        "version: 1\nname: zoo\nisolation: none\ndefaults: {attempts: 1}\ntasks:\n  \
         - id: agent\n    run: sh orders.sh\n  \
         - id: other\n    run: while ! [ -e ordered ]; do sleep 0.05; done\n",
    );
    let ran = world.supervisor(&["run", "zoo.yml"]);
    let orders = world.read("orders");
    let log = std::fs::read_to_string(world.path("orders.log")).unwrap_or_default();
    let obeyed: Vec<&str> = orders
        .lines()
        .filter(|line| !line.starts_with("8 "))
        .collect();
    assert!(obeyed.is_empty(), "not refused: {obeyed:#?}\n{log}");
    assert_eq!(orders.lines().count(), DISGUISES.len() * ORDERS.len());
    ran.ok();
    // Nothing waits in the inbox either for the next supervisor to find.
    assert_eq!(world.status()["batch"]["counts"]["done"], 2);
}

/// What the file outside holds: a line that a reader of journals can stumble over without falling.
const UNTOUCHED: &str = "{\"untouched\":true}\n";

/// A folder outside of the state dir with one file; nothing the product does may change it.
struct Outside {
    folder: PathBuf,
}

impl Outside {
    fn new(world: &World) -> Self {
        let folder = world.path("outside");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("precious"), UNTOUCHED).unwrap();
        Self { folder }
    }

    fn precious(&self) -> PathBuf {
        self.folder.join("precious")
    }

    /// What something did to it.
    fn touched(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.precious()).unwrap_or_default();
        let entries = std::fs::read_dir(&self.folder).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        let same = text == UNTOUCHED && names == ["precious"];
        (!same).then(|| format!("{names:?}, {text:?}"))
    }
}

/// The links that an agent plants for the run after it, as shell commands; `$B` is the state dir of
/// the batch, `$F` the precious file and `$D` its folder.
const PLANTS: [(&str, &str); 8] = [
    (
        "task folder",
        "mkdir -p $B/tasks; ln -sfn $D $B/tasks/second",
    ),
    (
        "run folder",
        "mkdir -p $B/tasks/second/attempts/1/runs; ln -sfn $D $B/tasks/second/attempts/1/runs/2",
    ),
    (
        "logs",
        "R=$B/tasks/second/attempts/1/runs/2; mkdir -p $R; \
         for f in stdout.log stderr.log events.jsonl exit.json manifest.json; do \
         ln -sfn $F $R/$f; ln -sfn $F $R/$f.new; done",
    ),
    (
        "mailbox",
        "mkdir -p $B/tasks/second; ln -sfn $D $B/tasks/second/mailbox",
    ),
    (
        "checkpoint",
        "for f in checkpoint.json registry.json report.md; do \
         rm -f $B/$f; ln -sfn $F $B/$f; ln -sfn $F $B/$f.new; done",
    ),
    (
        "logs of the batch",
        "for f in hosts.log supervisor.log; do rm -f $B/$f; ln -s $F $B/$f; done",
    ),
    ("inbox", "rm -rf $B/inbox; ln -s $D $B/inbox"),
    (
        "next journal",
        "ln -s $F $B/journal/2.jsonl; ln -s $F $B/reserve.new",
    ),
];

/// Whether a line of the journal ends an attempt of the second task.
fn ends_second(line: &serde_json::Value) -> bool {
    line["record"]["attempt_ended"]["task"] == 1
}

#[test]
fn a_link_that_an_agent_plants_is_not_followed() {
    let mut followed = Vec::new();
    for (what, plant) in PLANTS {
        let world = World::new();
        let outside = Outside::new(&world);
        let script = format!(
            "B=$(echo {}/batches/*); F={}; D={}\n{plant}\n",
            world.state().display(),
            outside.precious().display(),
            outside.folder.display()
        );
        world.write("plant.sh", &script);
        world.write(
            "zoo.yml",
            "version: 1\nname: zoo\nisolation: none\ndefaults: {attempts: 1}\ntasks:\n  \
             - id: first\n    run: sh plant.sh\n  \
             - id: second\n    run: echo written\n    depends_on: [first]\n",
        );
        // A run that can not write is tried again and again; its first end is enough.
        let mut run = world.start("run", &["run", "zoo.yml"]);
        world.eventually("the second task came to an end", |world| {
            let over = run.ended().is_some() || world.journal().iter().any(ends_second);
            over.then_some(())
        });
        world.supervisor(&["steer", "zoo/second", "hello"]);
        world.supervisor(&["kill", "zoo", "--grace", "0s"]);
        let code = run.end(&world);
        println!("{what}: run {code:?}");
        // What comes later reads and writes what the first one left.
        for arguments in [
            ["steer", "zoo/second", "hello"].as_slice(),
            &["status", "zoo"],
        ] {
            let ran = world.supervisor(arguments);
            let defect = ran.code.is_none_or(|code| code == 70);
            assert!(!defect, "{what}: {arguments:?}: {}", ran.stderr);
        }
        if outside.touched().is_some() {
            followed.push(what);
        }
    }
    assert!(
        followed.is_empty(),
        "links that were followed: {followed:?}"
    );
}

#[test]
fn a_link_in_the_working_folder_is_not_followed() {
    let world = World::new();
    let outside = Outside::new(&world);
    std::os::unix::fs::symlink(&outside.folder, world.repo().join(".supervisor")).unwrap();
    world.write(
        "zoo.yml",
        "version: 1\nname: zoo\nisolation: none\ntasks:\n  - id: only\n    run: echo done\n",
    );
    let ran = world.supervisor(&["run", "zoo.yml"]);
    assert!(ran.code.is_some_and(|code| code != 70), "{}", ran.stderr);
    assert_eq!(outside.touched(), None);
}
