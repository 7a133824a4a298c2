//! Agents that talk back, with the real programs: a question to the operator, a message to another
//! task, the list of tasks, and a result in the agent's own words.

use serde_json::Value;
use supervisor_tests::world::World;

const BATCH: &str = r#"version: 1
name: talk
isolation: none
concurrency: 3
defaults: {attempts: 1}
tasks:
  - id: reader
    run: |
      until agent-host mailbox > mail && test -s mail; do sleep 0.05; done
      agent-host result ok "$(tail -n 1 mail)"
  - id: asker
    run: |
      set -e
      port=$(agent-host ask 'which port?' --option 80 --option 8080)
      agent-host say "use port $port" --to reader > sent
      agent-host say hello --to asker 2> itself && exit 9
      agent-host say hello --to nobody 2> nobody && exit 9
      agent-host tasks > tasks
      agent-host progress 'almost there' --percent 90
      echo "$port" > port.txt
      agent-host result ok "the port is $port" --artifact port.txt
  - {id: unlucky, run: "agent-host result failed 'no luck'; true"}
"#;

fn record<'a>(journal: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let records = journal.iter().map(|entry| &entry["record"][kind]);
    records.filter(|record| !record.is_null()).collect()
}

#[test]
fn agents_ask_write_to_each_other_and_say_how_it_went() {
    let world = World::new();
    world.write("batch.yml", BATCH);
    let started = world.start("run", &["run"]);
    world.eventually("the question", |world| {
        let questions = record(&world.journal(), "question_opened").len();
        (questions == 1).then_some(())
    });
    world.supervisor(&["answer", "q1", "8080"]).ok();
    assert_eq!(started.end(&world), Some(1), "one task has failed");

    assert_eq!(world.read("port.txt"), "8080\n");
    assert_eq!(world.read("sent"), "m1\n");
    assert!(world.read("itself").contains("to itself"));
    assert!(world.read("nobody").contains("no task `nobody`"));
    let mail = "--- m1 from task asker ---\n\
        [from the agent of task asker, not from the operator]\nuse port 8080\n";
    assert_eq!(world.read("mail"), mail);
    let tasks = world.read("tasks");
    let asker = tasks.lines().next().expect("its own task first");
    assert!(asker.starts_with("asker\trunning\t"), "{tasks}");
    assert_eq!(tasks.lines().count(), 3, "{tasks}");

    let journal = world.journal();
    let queued = record(&journal, "message_queued");
    assert_eq!((queued.len(), &queued[0]["from"]), (1, &1.into()));
    let last = record(&journal, "message_moved").pop().expect("rungs");
    assert_eq!(last["to"], "seen");
    let results = record(&journal, "run_finished");
    let result = |summary: &str| {
        let found = results.iter().find(|it| it["result"]["summary"] == summary);
        found.map_or_else(|| panic!("{summary}: {results:?}"), |it| &it["result"])
    };
    assert_eq!(result("the port is 8080")["artifacts"][0], "port.txt");
    assert_eq!(result("use port 8080")["status"], "ok");
    assert_eq!(result("no luck")["class"], "agent_failed");
    let told = world.supervisor(&["explain", "reader"]).ok().stdout;
    assert!(told.contains("message m1 from asker queued"), "{told}");
    world.supervisor(&["verify"]).ok();
    world.assert_nothing_left();
}
