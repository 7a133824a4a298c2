//! A world with the scripted model and the real program in it.

use std::path::PathBuf;

use serde_json::{Value, json};
use supervisor_tests::model::said;
use supervisor_tests::model::script::Script;
use supervisor_tests::model::server::Server;
use supervisor_tests::world::World;

/// Variable that names the program.
const PROGRAM: &str = "REAL_CODEX";

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

    /// Writes a batch of these tasks, for one agent with these keys beside the usual ones.
    pub(crate) fn batch(&self, tasks: &Value, keys: &Value) {
        let program = std::env::var(PROGRAM).expect("scripts/real-agents.sh names the program");
        let program = PathBuf::from(program);
        let mut agent = json!({"kind": "codex", "program": program, "model": "gpt-x",
            "env": {"OPENAI_BASE_URL": self.url(), "OPENAI_API_KEY": "none"}});
        for (key, value) in keys.as_object().into_iter().flatten() {
            agent[key] = value.clone();
        }
        let batch = json!({"version": 1, "name": "real", "isolation": "none",
            "agents": {"coder": agent},
            "defaults": {"agent": "coder", "retry": {"backoff": "1s..1s"}}, "tasks": tasks});
        self.world.write("batch.yml", &batch.to_string());
    }

    /// Where the model is.
    pub(crate) fn url(&self) -> String {
        format!("{}/v1", self.model.url())
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

/// A reply that runs a command, and waits for it as long as the program lets it (30 s).
pub(crate) fn shell(command: &str) -> Value {
    json!({"content": [{"use": {"tool": "exec_command",
        "input": {"cmd": command, "yield_time_ms": 30_000}}}]})
}

/// A reply that ends the turn.
pub(crate) fn say(text: &str) -> Value {
    json!({"content": [{"say": text}]})
}

/// A command that says that it began and runs until the file `go` is there.
pub(crate) const UNTIL_GO: &str = "echo begun > begun; rm -f wait && mkfifo wait; \
    while ! test -e go; do read -r -t 0.05 line <>wait; done; echo went on";
