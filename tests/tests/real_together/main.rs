//! Real programs side by side in one batch, against one scripted model: `scripts/real-agents.sh`
//! installs them and runs these stories.
//!
//! Over each wire the same happens: a file by a tool of its own, a message in the middle of a
//! command, a question that is answered, a result, an end with its use on record.

use serde_json::{Value, json};
use supervisor_tests::model::said;
use supervisor_tests::real::{Real, Stage, say, until_go_in};
use supervisor_tests::world::World;

/// What the model says to one of them: request 0 is the prompt, each next one has what a reply led to.
fn conversation(world: &World, real: Real) -> Value {
    let name = real.name();
    let ask = json!({"question": format!("Which port for {name}?")});
    let result = json!({"status": "ok", "summary": format!("It listens, says {name}.")});
    let replies = [
        real.write(&world.repo().join(format!("{name}.txt")), &hello(name)),
        real.shell(&until_go_in(name)),
        real.supervisor_tool("ask_operator", &ask),
        real.supervisor_tool("task_result", &result),
        say("Bye."),
    ];
    json!({"when": format!("TASK-{name}."), "replies": replies})
}

/// The requests that have what these led to.
const STEERED: usize = 2;
const ANSWERED: usize = 3;

fn hello(name: &str) -> String {
    format!("hello from {name}")
}

/// Asserts that a request of this conversation has a text that the one before has not.
#[track_caller]
fn first_heard(stage: &Stage, conversation: usize, request: usize, text: &str) {
    let turns = stage.turns_of(conversation);
    let hears = |at: usize| turns.get(at).map(said).unwrap_or_default().contains(text);
    assert!(
        hears(request),
        "`{text}` is not in {:?}",
        turns.get(request)
    );
    assert!(!hears(request - 1), "`{text}` was there before");
}

/// Waits until every task is in this state at the same time.
fn all_are(stage: &Stage, reals: &[Real], state: &str) {
    stage.world.eventually("all are there", |_| {
        let is = |real: &Real| {
            stage
                .task(real.name())
                .is_some_and(|task| task["state"] == state)
        };
        reals.iter().all(is).then_some(())
    });
}

/// A message while the command of this task runs, which ends only when the agent has the message.
fn steer(stage: &Stage, name: &str, text: &str) {
    stage.world.eventually("the command runs", |world| {
        (world.read(&format!("{name}/begun")) == "begun\n").then_some(())
    });
    let args = ["steer", name, text, "--wait", "seen", "--timeout", "60s"];
    let log = format!("steer-{name}");
    let steered = stage.world.start(&log, &args);
    stage.world.eventually("the message is injected", |world| {
        world.printed(&log).contains("injected").then_some(())
    });
    stage.world.write(&format!("{name}/go"), "");
    let code = steered.end(&stage.world);
    assert_eq!(code, Some(0), "{}", stage.world.printed(&log));
}

/// What happens to one of them while the others go on.
fn accompany(stage: &Stage, real: Real) {
    let name = real.name();
    steer(stage, name, &format!("listen to {name}"));
    let question = stage.question(name);
    let answer = ["answer", &question, &format!("port of {name}")];
    stage.world.supervisor(&answer).ok();
}

fn work_side_by_side(reals: &[Real]) {
    let stage = Stage::side_by_side(reals, |world| {
        reals
            .iter()
            .map(|real| conversation(world, *real))
            .collect()
    });
    let task = |real: &Real| {
        let name = real.name();
        json!({"id": name, "agent": name, "prompt": format!("TASK-{name}. Do as you are told.")})
    };
    stage.batch(&reals.iter().map(task).collect(), &json!({}));
    let run = stage.world.start("run", &["run"]);
    all_are(&stage, reals, "running");
    std::thread::scope(|scope| {
        for real in reals {
            let stage = &stage;
            scope.spawn(move || accompany(stage, *real));
        }
    });
    assert_eq!(
        run.end(&stage.world),
        Some(0),
        "{}",
        stage.world.printed("run")
    );
    for (at, real) in reals.iter().enumerate() {
        let name = real.name();
        assert_eq!(
            stage.world.read(&format!("{name}.txt")).trim_end(),
            hello(name)
        );
        first_heard(&stage, at, STEERED, &format!("listen to {name}"));
        first_heard(&stage, at, ANSWERED, &format!("port of {name}"));
        assert_eq!(
            stage.turns_of(at).len(),
            5,
            "{name}: no request more, none less"
        );
        let usage = stage.is(name, "done")["usage"].clone();
        assert!(usage["tokens"].as_u64() > Some(0), "{name}: {usage}");
        let story = stage.explain(name);
        assert!(
            story.contains(&format!("It listens, says {name}.")),
            "{story}"
        );
    }
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real programs: scripts/real-agents.sh"]
fn claude_codex_and_pi_are_steered_asked_and_done_in_one_batch() {
    work_side_by_side(&[Real::Claude, Real::Codex, Real::Pi]);
}

#[test]
#[ignore = "needs the real programs: scripts/real-agents.sh --all"]
fn long_opencode_is_steered_asked_and_done_beside_claude_codex_and_pi() {
    work_side_by_side(&[Real::Claude, Real::Codex, Real::Pi, Real::Opencode]);
}
