//! A world with the scripted model and the real program in it.

use std::path::PathBuf;

use serde_json::{Value, json};
use supervisor_tests::model::said;
use supervisor_tests::model::script::Script;
use supervisor_tests::model::server::Server;
use supervisor_tests::world::World;

/// Variable that names the program.
const PROGRAM: &str = "REAL_PI";

/// What a story plays on.
pub(crate) struct Stage {
    pub(crate) world: World,
    model: Server,
}

impl Stage {
    /// A model that answers any request in this order.
    pub(crate) fn new(replies: &Value) -> Self {
        Self::in_world(|_| json!([{"replies": replies}]))
    }

    /// A model with these conversations.
    pub(crate) fn in_world(conversations: impl FnOnce(&World) -> Value) -> Self {
        let world = World::new();
        let script = json!({"conversations": conversations(&world)}).to_string();
        let script = Script::parse(&script).expect("a script");
        let record = world.path("requests.jsonl");
        let model = Server::start(script, &record).expect("a port on loopback");
        Self { world, model }
    }

    /// Writes a batch of these tasks, for one agent with these keys beside the usual ones. The model
    /// is in the operator's own home of pi.
    pub(crate) fn batch(&self, tasks: &Value, keys: &Value) {
        self.models("home/.pi/agent", "openai-completions");
        let program = std::env::var(PROGRAM).expect("scripts/real-agents.sh names the program");
        let program = PathBuf::from(program);
        let mut agent = json!({"kind": "pi", "program": program, "model": "fake/fake-model"});
        for (key, value) in keys.as_object().into_iter().flatten() {
            agent[key] = value.clone();
        }
        let batch = json!({"version": 1, "name": "real", "isolation": "none",
            "agents": {"coder": agent},
            "defaults": {"agent": "coder", "retry": {"backoff": "1s..1s"}}, "tasks": tasks});
        self.world.write("batch.yml", &batch.to_string());
    }

    /// Writes a catalogue of models with ours in it, spoken to over this wire.
    pub(crate) fn models(&self, home: &str, api: &str) {
        let home = self.world.path(home);
        std::fs::create_dir_all(&home).expect("a home");
        let base = match api {
            "anthropic-messages" => self.model.url(),
            _ => format!("{}/v1", self.model.url()),
        };
        let cost = json!({"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75});
        let model = json!({"id": "fake-model", "contextWindow": 100_000, "maxTokens": 8000,
            "cost": cost});
        let fake = json!({"baseUrl": base, "api": api, "apiKey": "none", "models": [model]});
        let models = json!({"providers": {"fake": fake}}).to_string();
        std::fs::write(home.join("models.json"), models).expect("a catalogue");
    }

    /// The files of the sessions of a task.
    pub(crate) fn sessions(&self, task: &str) -> Vec<PathBuf> {
        let Some(dir) = self.world.batch_dir() else {
            return Vec::new();
        };
        let folder = dir.join("tasks").join(task).join("home/pi/sessions");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// The requests of turns so far.
    pub(crate) fn turns(&self) -> Vec<Value> {
        self.model.turns().unwrap_or_default()
    }

    /// Waits until the model was asked this often.
    #[track_caller]
    pub(crate) fn asked(&self, times: usize) -> Vec<Value> {
        self.world.eventually("the model is asked", |_| {
            Some(self.turns()).filter(|turns| turns.len() >= times)
        })
    }

    /// Asserts that the latest request of the model has this text in it.
    #[track_caller]
    pub(crate) fn last_request_has(&self, text: &str) {
        let turns = self.turns();
        let last = turns.last().map(said).unwrap_or_default();
        assert!(last.contains(text), "`{text}` is not in {last}");
    }

    /// A task of `status --json`, once there is a batch.
    pub(crate) fn task(&self, id: &str) -> Option<Value> {
        let ran = self.world.supervisor(&["status", "--all", "--json"]);
        let status = (ran.code == Some(0)).then(|| ran.json())?;
        let mut tasks = status["tasks"].as_array()?.iter();
        tasks.find(|task| task["id"] == id).cloned()
    }

    /// Asserts where a task is.
    #[track_caller]
    pub(crate) fn is(&self, id: &str, state: &str) -> Value {
        let task = self.task(id).expect("the task");
        assert_eq!(task["state"], state, "{task}");
        task
    }

    /// What the story of a task says.
    pub(crate) fn explain(&self, id: &str) -> String {
        self.world.supervisor(&["explain", id]).ok().stdout
    }
}

/// A reply that runs a command.
pub(crate) fn bash(command: &str) -> Value {
    json!({"content": [{"use": {"tool": "bash", "input": {"command": command}}}]})
}

/// A reply that ends the turn.
pub(crate) fn say(text: &str) -> Value {
    json!({"content": [{"say": text}]})
}

/// A command that says that it began and runs until the file `go` is there.
pub(crate) const UNTIL_GO: &str = "echo begun > begun; rm -f wait && mkfifo wait; \
    while ! test -e go; do read -r -t 0.05 line <>wait; done; echo went on";
