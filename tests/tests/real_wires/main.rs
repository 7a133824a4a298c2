//! Every wire of the scripted model with a real program that speaks it, without the supervisor:
//! `scripts/real-agents.sh` installs the programs and runs these stories.
//!
//! A wire that only its own tests can read proves nothing. Each program here meets a failure that
//! it must get over, uses a tool of its own, and is heard in the next request.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use serde_json::{Value, json};
use supervisor_tests::model::said;
use supervisor_tests::model::script::Script;
use supervisor_tests::model::server::Server;
use supervisor_tests::world::World;

/// What a program is asked, and by what its conversation is known.
const PROMPT: &str = "Write the albatross file.";

/// A world whose model fails once, has this tool used, and ends the turn.
fn stage(tool: &str, input: &Value) -> (World, Server) {
    let world = World::new();
    let limited = json!({"status": 429, "message": "slow down", "headers": [["retry-after", "1"]]});
    let replies = json!([{"fail": limited},
        {"content": [{"say": "I write it."}, {"use": {"tool": tool, "input": input}}]},
        {"content": [{"say": "It is written."}]}]);
    let script = json!({"conversations": [{"when": "albatross", "replies": replies}]});
    let script = Script::parse(&script.to_string()).expect("a script");
    let record = world.path("requests.jsonl");
    let model = Server::start(script, &record).expect("a port on loopback");
    (world, model)
}

/// Runs the program that this variable names by this command line, in which `$PROGRAM` and `$PROMPT`
/// are, and looks at what it did: its own tool wrote the file, and the tool's result is in the
/// model's next request.
#[track_caller]
fn writes(world: &World, model: &Server, program: &str, line: &str) {
    let program = std::env::var(program).expect("scripts/real-agents.sh names the program");
    let line = format!("PROGRAM='{program}' PROMPT='{PROMPT}'; {line} </dev/null");
    let ran = world.shell(&line).ok();
    assert_eq!(world.read("bird"), "albatross\n");
    let turns = model.turns().expect("the record");
    assert_eq!(turns.len(), 3, "{}\n{}", ran.stdout, ran.stderr);
    let last = said(&turns[2]);
    for text in [PROMPT, "I write it.", "flown"] {
        assert!(last.contains(text), "`{text}` is not in {last}");
    }
    assert!(ran.stdout.contains("It is written."), "{}", ran.stdout);
}

/// A command that writes the file and says so in a word that is nowhere else.
const WRITE: &str = "echo albatross > bird; echo flo''wn";

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn claude_speaks_messages() {
    let (world, model) = stage("Bash", &json!({"command": WRITE, "description": "a step"}));
    let line = format!(
        "ANTHROPIC_BASE_URL={} ANTHROPIC_API_KEY=none CLAUDE_CONFIG_DIR=$HOME/claude \
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1 IS_SANDBOX=1 \
        \"$PROGRAM\" -p --model claude-x --permission-mode bypassPermissions \"$PROMPT\"",
        model.url()
    );
    writes(&world, &model, "REAL_CLAUDE", &line);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn codex_speaks_responses() {
    let (world, model) = stage("exec_command", &json!({"cmd": WRITE}));
    let home = world.path("codex");
    std::fs::create_dir(&home).expect("a home");
    let settings = format!(
        "model = 'scripted'\nmodel_provider = 'scripted'\ncheck_for_update_on_startup = false\n\
        [model_providers.scripted]\nname = 'scripted'\nbase_url = '{}/v1'\n\
        wire_api = 'responses'\nenv_key = 'NO_KEY'\n[analytics]\nenabled = false\n",
        model.url()
    );
    std::fs::write(home.join("config.toml"), settings).expect("its settings");
    let line = format!(
        "CODEX_HOME={} NO_KEY=none \"$PROGRAM\" exec --json --skip-git-repo-check \
        --dangerously-bypass-approvals-and-sandbox \"$PROMPT\"",
        home.display()
    );
    writes(&world, &model, "REAL_CODEX", &line);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh"]
fn pi_speaks_chat_completions() {
    let (world, model) = stage("bash", &json!({"command": WRITE}));
    let home = world.path("pi");
    let folder = home.join(".pi/agent");
    std::fs::create_dir_all(&folder).expect("a home");
    let provider = json!({"baseUrl": format!("{}/v1", model.url()), "api": "openai-completions",
        "apiKey": "none", "models": [{"id": "scripted"}]});
    let models = json!({"providers": {"scripted": provider}});
    std::fs::write(folder.join("models.json"), models.to_string()).expect("its settings");
    let line = format!(
        "HOME={} PI_OFFLINE=1 PI_TELEMETRY=0 \"$PROGRAM\" -p --model scripted/scripted \"$PROMPT\"",
        home.display()
    );
    writes(&world, &model, "REAL_PI", &line);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_opencode_speaks_chat_completions() {
    let input = json!({"command": WRITE, "description": "a step"});
    let (world, model) = stage("bash", &input);
    let home = world.path("opencode");
    let folder = home.join(".config/opencode");
    std::fs::create_dir_all(&folder).expect("a home");
    let limit = json!({"context": 100_000, "output": 8000});
    let provider = json!({"npm": "@ai-sdk/openai-compatible", "name": "scripted",
        "options": {"baseURL": format!("{}/v1", model.url()), "apiKey": "none"},
        "models": {"scripted": {"name": "scripted", "tool_call": true, "limit": limit}}});
    let settings = json!({"provider": {"scripted": provider}, "model": "scripted/scripted",
        "small_model": "scripted/scripted", "permission": "allow", "share": "disabled"});
    std::fs::write(folder.join("opencode.json"), settings.to_string()).expect("its settings");
    let line = format!(
        "env -u XDG_CONFIG_HOME -u XDG_DATA_HOME -u XDG_STATE_HOME HOME={} \
        OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 \
        OPENCODE_DISABLE_LSP_DOWNLOAD=1 OPENCODE_DISABLE_DEFAULT_PLUGINS=1 \
        \"$PROGRAM\" run --format json \"$PROMPT\"",
        home.display()
    );
    writes(&world, &model, "REAL_OPENCODE", &line);
}

#[test]
#[ignore = "needs the real program: scripts/real-agents.sh --all"]
fn long_gemini_speaks_generate_content() {
    let input = json!({"command": WRITE, "description": "a step"});
    let (world, model) = stage("run_shell_command", &input);
    let home = world.path("gemini");
    std::fs::create_dir_all(home.join(".gemini")).expect("a home");
    let settings = json!({"security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": false}, "privacy": {"usageStatisticsEnabled": false}});
    std::fs::write(home.join(".gemini/settings.json"), settings.to_string()).expect("its settings");
    let line = format!(
        "HOME={} GEMINI_API_KEY=none GOOGLE_GEMINI_BASE_URL={} GEMINI_CLI_NO_RELAUNCH=true \
        \"$PROGRAM\" -m gemini-2.5-pro --approval-mode yolo --skip-trust -o text -p \"$PROMPT\"",
        home.display(),
        model.url()
    );
    writes(&world, &model, "REAL_GEMINI", &line);
}
