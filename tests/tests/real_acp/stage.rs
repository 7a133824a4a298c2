//! A world with the scripted model and one of the real programs in it.

use std::path::PathBuf;

use serde_json::{Value, json};
use supervisor_tests::model::said;
use supervisor_tests::model::script::Script;
use supervisor_tests::model::server::Server;
use supervisor_tests::world::World;

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Real {
    Opencode,
    Gemini,
    Claude,
    Codex,
}

impl Real {
    /// The variable that names it.
    fn variable(self) -> &'static str {
        match self {
            Self::Opencode => "REAL_OPENCODE",
            Self::Gemini => "REAL_GEMINI",
            Self::Claude => "REAL_CLAUDE_AGENT_ACP",
            Self::Codex => "REAL_CODEX_ACP",
        }
    }

    /// What leads it to the model at this place.
    fn keys(self, url: &str) -> Value {
        match self {
            Self::Opencode => json!({"model": "fake/fake-model",
                "env": {"OPENCODE_CONFIG_CONTENT": opencode_config(url).to_string()}}),
            Self::Gemini => json!({"model": "gemini-2.5-pro",
                "env": {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": "none"}}),
            Self::Claude => json!({"model": "claude-x",
                "env": {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none"}}),
            Self::Codex => {
                let provider = json!({"name": "fake", "base_url": format!("{url}/v1"),
                    "wire_api": "responses", "env_key": "FAKE_KEY",
                    "request_max_retries": 0, "stream_max_retries": 0});
                let config = json!({"model": "fake-model", "model_provider": "fake",
                    "model_providers": {"fake": provider}});
                json!({"env": {"CODEX_CONFIG": config.to_string(), "FAKE_KEY": "none",
                    "MODEL_PROVIDER": "fake"}})
            }
        }
    }

    /// A reply that runs a command.
    pub(crate) fn bash(self, command: &str) -> Value {
        let (tool, input) = match self {
            Self::Opencode => ("bash", json!({"command": command, "description": "a step"})),
            Self::Gemini => ("run_shell_command", json!({"command": command})),
            Self::Claude => ("Bash", json!({"command": command, "description": "a step"})),
            Self::Codex => ("exec_command", json!({"cmd": command})),
        };
        json!({"content": [{"use": {"tool": tool, "input": input}}]})
    }
}

/// Settings of opencode for the model at this place.
pub(crate) fn opencode_config(url: &str) -> Value {
    let model = json!({"name": "fake", "tool_call": true,
        "limit": {"context": 100_000, "output": 8000}, "cost": {"input": 3, "output": 15}});
    json!({"provider": {"fake": {"npm": "@ai-sdk/openai-compatible", "name": "fake",
            "options": {"baseURL": format!("{url}/v1"), "apiKey": "none"},
            "models": {"fake-model": model}}},
        "small_model": "fake/fake-model"})
}

/// What a story plays on.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) real: Real,
    model: Server,
}

impl Stage {
    /// A model that answers any request in this order.
    pub(crate) fn new(real: Real, replies: &Value) -> Self {
        let world = World::new();
        let script = json!({"conversations": [{"replies": replies}]}).to_string();
        let script = Script::parse(&script).expect("a script");
        let record = world.path("requests.jsonl");
        let model = Server::start(script, &record).expect("a port on loopback");
        Self { world, real, model }
    }

    /// Writes a batch of these tasks, for one agent with these keys beside the usual ones; null takes
    /// one away.
    pub(crate) fn batch(&self, tasks: &Value, keys: &Value) {
        let variable = self.real.variable();
        let program = std::env::var(variable).expect("scripts/real-agents.sh names the program");
        let mut agent = self.real.keys(&self.model.url());
        agent["kind"] = json!("acp");
        agent["program"] = json!(PathBuf::from(program));
        for (key, value) in keys.as_object().into_iter().flatten() {
            agent[key] = value.clone();
        }
        if let Some(keys) = agent.as_object_mut() {
            keys.retain(|_, value| !value.is_null());
        }
        let batch = json!({"version": 1, "name": "real", "isolation": "none",
            "agents": {"coder": agent},
            "defaults": {"agent": "coder", "retry": {"backoff": "1s..1s"}}, "tasks": tasks});
        self.world.write("batch.yml", &batch.to_string());
    }

    /// Where the model is.
    pub(crate) fn url(&self) -> String {
        self.model.url()
    }

    /// The requests of turns so far.
    pub(crate) fn turns(&self) -> Vec<Value> {
        self.model.turns().unwrap_or_default()
    }

    /// Asserts that the latest request of the model has this text in it.
    #[track_caller]
    pub(crate) fn last_request_has(&self, text: &str) {
        let turns = self.turns();
        let last = turns.last().map(said).unwrap_or_default();
        assert!(last.contains(text), "`{text}` is not in {last}");
    }

    /// Waits until the command [`UNTIL_GO`] runs.
    #[track_caller]
    pub(crate) fn begun(&self) {
        self.world.eventually("the command runs", |world| {
            (world.read("begun") == "begun\n").then_some(())
        });
    }

    /// Asserts where a task is.
    #[track_caller]
    pub(crate) fn is(&self, id: &str, state: &str) -> Value {
        let ran = self.world.supervisor(&["status", "--all", "--json"]).ok();
        let status = ran.json();
        let mut tasks = status["tasks"].as_array().into_iter().flatten();
        let task = tasks.find(|task| task["id"] == id).expect("the task");
        assert_eq!(task["state"], state, "{task}");
        task.clone()
    }
}

/// A reply that ends the turn.
pub(crate) fn say(text: &str) -> Value {
    json!({"content": [{"say": text}]})
}

/// A command that says that it began and runs until the file `go` is there.
pub(crate) const UNTIL_GO: &str = "echo begun > begun; rm -f wait && mkfifo wait; \
    while ! test -e go; do read -r -t 0.05 line <>wait; done; echo went on";
