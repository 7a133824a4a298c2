//! It works: own tools, messages in mid-turn, settings by any way, permissions, usage.

use serde_json::{Value, json};

use supervisor_tests::real::{Real, Stage, UNTIL_GO, opencode_config, say};

/// It writes a file by a command, and is done with what that took.
fn works(real: Real, keys: &Value) -> Stage {
    let stage = Stage::new(
        real,
        &json!([real.shell("echo hello > hello.txt"), say("It is written.")]),
    );
    let verify = json!(["grep -q hello hello.txt"]);
    stage.batch(
        &json!([{"id": "one", "prompt": "Write hello.", "verify": verify}]),
        keys,
    );
    stage
}

fn is_done(stage: &Stage) {
    stage.world.supervisor(&["run"]).ok();
    assert_eq!(stage.world.read("hello.txt"), "hello\n");
    let usage = stage.is("one", "done")["usage"].clone();
    assert!(usage["tokens"].as_u64() >= Some(2040), "{usage}");
    if stage.real() == Real::Opencode {
        assert!(usage["cost_usd"].as_f64() > Some(0.0), "{usage}");
    }
    stage.world.assert_nothing_left();
}

/// A message in mid-turn is in the model's next request.
fn steered(real: Real, rung: &str) {
    let stage = Stage::new(
        real,
        &json!([real.shell(UNTIL_GO), say("Understood."), say("Understood.")]),
    );
    stage.batch(
        &json!([{"id": "one", "prompt": "Wait for it."}]),
        &json!({}),
    );
    let run = stage.world.start("run", &["run"]);
    stage.begun();
    let operator = stage.world.operator();
    let rung = rung.to_owned();
    let steer = std::thread::spawn(move || {
        let text = "use port 4711";
        operator.supervisor(&["steer", "one", text, "--wait", &rung, "--timeout", "60s"])
    });
    stage.world.eventually("the message is injected", |world| {
        let text = serde_json::to_string(&world.journal()).ok()?;
        text.contains("injected").then_some(())
    });
    stage.world.write("go", "");
    steer.join().expect("steer runs").ok();
    assert_eq!(run.end(&stage.world), Some(0));
    stage.last_request_has("use port 4711");
    stage.is("one", "done");
    stage.world.assert_nothing_left();
}

/// An interrupt ends the command, and the message is the next prompt.
fn interrupted(real: Real) {
    let stage = Stage::new(real, &json!([real.shell(UNTIL_GO), say("I stopped.")]));
    stage.batch(
        &json!([{"id": "one", "prompt": "Wait for it."}]),
        &json!({}),
    );
    let run = stage.world.start("run", &["run"]);
    stage.begun();
    let args = ["steer", "one", "stop that", "--mode", "interrupt"];
    stage.world.supervisor(&args).ok();
    assert_eq!(run.end(&stage.world), Some(0));
    stage.last_request_has("stop that");
    stage.is("one", "done");
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_opencode_writes_a_file_and_is_done_with_usage() {
    is_done(&works(Real::Opencode, &json!({})));
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_opencode_takes_its_provider_from_the_folder_it_works_in() {
    let stage = works(Real::Opencode, &json!({"env": null}));
    let config = opencode_config(&stage.url()).to_string();
    stage.world.write("opencode.json", &config);
    is_done(&stage);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_opencode_takes_its_provider_from_a_home_that_is_named() {
    for file in [".config/opencode/opencode.json", "opencode.json"] {
        let stage = works(Real::Opencode, &json!({"env": null}));
        let home = stage.world.path("own");
        let own = home.join(file);
        std::fs::create_dir_all(own.parent().expect("a folder")).expect("it is made");
        let mut config = opencode_config(&stage.url());
        config["model"] = json!("fake/fake-model");
        std::fs::write(own, config.to_string()).expect("it is written");
        let task = json!([{"id": "one", "prompt": "Write hello."}]);
        stage.batch(&task, &json!({"env": null, "home": home, "model": null}));
        is_done(&stage);
    }
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_opencode_is_steered_in_mid_turn_with_a_receipt() {
    steered(Real::Opencode, "seen");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_opencode_is_interrupted() {
    interrupted(Real::Opencode);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_opencode_is_told_what_it_may_not_do_and_goes_on() {
    let real = Real::Opencode;
    let replies = json!([real.shell("touch forbidden"), say("I may not.")]);
    let stage = Stage::new(real, &replies);
    let task = json!([{"id": "one", "prompt": "Try."}]);
    stage.batch(&task, &json!({"permissions": "edits"}));
    stage.world.supervisor(&["run"]).ok();
    stage.is("one", "done");
    assert_eq!(stage.turns().len(), 2, "the turn goes on");
    assert!(!stage.world.repo().join("forbidden").exists());
    stage.world.assert_nothing_left();
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_the_adapter_of_claude_works_and_is_steered() {
    is_done(&works(Real::ClaudeAcp, &json!({})));
    steered(Real::ClaudeAcp, "injected");
    interrupted(Real::ClaudeAcp);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_the_adapter_of_codex_works_and_is_steered() {
    is_done(&works(Real::CodexAcp, &json!({})));
    steered(Real::CodexAcp, "injected");
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_gemini_works_and_is_interrupted() {
    is_done(&works(Real::Gemini, &json!({})));
    interrupted(Real::Gemini);
}
