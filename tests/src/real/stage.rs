//! A world with the scripted model and real programs in it.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::Real;
use crate::model::said;
use crate::model::script::Script;
use crate::model::server::Server;
use crate::world::World;

/// What a story plays on.
#[derive(Debug)]
pub struct Stage {
    /// Where it happens.
    pub world: World,
    /// The programs in it; the first one does what no task gives to another.
    reals: Vec<Real>,
    model: Server,
}

impl Stage {
    /// A program whose model answers any request in this order.
    ///
    /// # Panics
    /// When the replies are no script, or there is no port.
    pub fn new(real: Real, replies: &Value) -> Self {
        Self::in_world(real, |_| json!([{"replies": replies}]))
    }

    /// A program whose model has these conversations.
    ///
    /// # Panics
    /// As [`Stage::new`].
    pub fn in_world(real: Real, conversations: impl FnOnce(&World) -> Value) -> Self {
        Self::side_by_side(&[real], conversations)
    }

    /// Several programs with one model that has these conversations.
    ///
    /// # Panics
    /// As [`Stage::new`].
    pub fn side_by_side(reals: &[Real], conversations: impl FnOnce(&World) -> Value) -> Self {
        let world = World::new();
        let script = json!({"conversations": conversations(&world)}).to_string();
        let script = Script::parse(&script).expect("a script");
        let record = world.path("requests.jsonl");
        let model = Server::start(script, &record).expect("a port on loopback");
        let reals = reals.to_vec();
        Self {
            world,
            reals,
            model,
        }
    }

    /// Writes a batch of these tasks, as many at a time, for agents named as the programs with these
    /// keys beside the usual ones; null takes one away.
    ///
    /// # Panics
    /// When nobody says where a program is.
    pub fn batch(&self, tasks: &Value, keys: &Value) {
        let url = self.url();
        let mut agents = json!({});
        for real in &self.reals {
            real.settle(&self.world.path("home"), &url);
            let mut agent = real.agent(&url);
            for (key, value) in keys.as_object().into_iter().flatten() {
                agent[key] = value.clone();
            }
            if let Some(keys) = agent.as_object_mut() {
                keys.retain(|_, value| !value.is_null());
            }
            agents[real.name()] = agent;
        }
        let batch = json!({"version": 1, "name": "real", "isolation": "none", "agents": agents,
            "concurrency": tasks.as_array().map_or(1, Vec::len),
            "defaults": {"agent": self.real().name(), "retry": {"backoff": "1s..1s"}}, "tasks": tasks});
        self.world.write("batch.yml", &batch.to_string());
    }

    /// Where the model is.
    pub fn url(&self) -> String {
        self.model.url()
    }

    /// Where its endpoints as OpenAI has them begin.
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// The program that does what no task gives to another.
    ///
    /// # Panics
    /// When there is none.
    pub fn real(&self) -> Real {
        *self.reals.first().expect("a stage has a program")
    }

    /// The requests of turns so far.
    pub fn turns(&self) -> Vec<Value> {
        self.model.turns().unwrap_or_default()
    }

    /// Those of one conversation, by its place in the script.
    pub fn turns_of(&self, conversation: usize) -> Vec<Value> {
        let mut turns = self.turns();
        turns.retain(|turn| turn["conversation"] == conversation);
        turns
    }

    /// Waits until the model was asked this often.
    ///
    /// # Panics
    /// When it never is.
    #[track_caller]
    pub fn asked(&self, times: usize) -> Vec<Value> {
        self.world.eventually("the model is asked", |_| {
            Some(self.turns()).filter(|turns| turns.len() >= times)
        })
    }

    /// Waits until the command [`UNTIL_GO`](super::UNTIL_GO) runs.
    ///
    /// # Panics
    /// When it never does.
    #[track_caller]
    pub fn begun(&self) {
        self.world.eventually("the command runs", |world| {
            (world.read("begun") == "begun\n").then_some(())
        });
    }

    /// Asserts that the latest request of the model has this text in it.
    ///
    /// # Panics
    /// When it has not.
    #[track_caller]
    pub fn last_request_has(&self, text: &str) {
        let turns = self.turns();
        let last = turns.last().map(said).unwrap_or_default();
        assert!(last.contains(text), "`{text}` is not in {last}");
    }

    /// A task of `status --json`, once there is a batch.
    pub fn task(&self, id: &str) -> Option<Value> {
        let ran = self.world.supervisor(&["status", "--all", "--json"]);
        let status = (ran.code == Some(0)).then(|| ran.json())?;
        let mut tasks = status["tasks"].as_array()?.iter();
        tasks.find(|task| task["id"] == id).cloned()
    }

    /// Asserts where a task is.
    ///
    /// # Panics
    /// When it is elsewhere.
    #[track_caller]
    pub fn is(&self, id: &str, state: &str) -> Value {
        let task = self.task(id).expect("the task");
        assert_eq!(task["state"], state, "{task}");
        task
    }

    /// Waits until a task has asked, and gives the id of its question.
    ///
    /// # Panics
    /// When it never asks.
    #[track_caller]
    pub fn question(&self, task: &str) -> String {
        self.world.eventually("it asks", |_| {
            let task = self.task(task)?;
            task["question"]["id"].as_str().map(str::to_owned)
        })
    }

    /// What the story of a task says.
    ///
    /// # Panics
    /// When it can not be told.
    pub fn explain(&self, id: &str) -> String {
        self.world.supervisor(&["explain", id]).ok().stdout
    }

    /// kill -9 of the one process of this role.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    pub fn strike(&self, role: &str) {
        let ps = self.world.supervisor(&["ps", "--json"]).ok().json();
        let rows = ps.as_array().into_iter().flatten();
        let pids = rows
            .filter(|row| row["role"] == role)
            .filter_map(|row| i32::try_from(row["pid"].as_i64()?).ok());
        let pids: Vec<i32> = pids.collect();
        assert_eq!(pids.len(), 1, "{role} in {ps}");
        kill(Pid::from_raw(pids[0]), Signal::SIGKILL).expect("it is killed");
    }

    /// Waits until the first run of the task `one` has said that its turn ended with processes left.
    ///
    /// # Panics
    /// When it never says so.
    #[track_caller]
    pub fn leaves_a_process(&self) {
        self.world
            .eventually("its turn ended with a process left", |world| {
                let dir = world.batch_dir()?.join("tasks/one/attempts/1/runs");
                let run = std::fs::read_dir(dir).ok()?.flatten().next()?.path();
                let events = std::fs::read_to_string(run.join("events.jsonl")).ok()?;
                events.contains("processes left").then_some(())
            });
    }
}
