//! An operator who looks at `status --json` all the time, whoever is being killed.

#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::BATCH;
use crate::clock::wall_ns;
use crate::world::{Ran, World};

/// One look.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The command was started after this, nanoseconds since the Unix epoch.
    pub began: i128,
    /// It had ended before this.
    pub ended: i128,
    /// What it showed, or why that was no status.
    pub shown: Result<Shown, String>,
}

/// What a status showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// State of the batch.
    pub batch: String,
    /// Pid of its supervisor, and whether that is said to be alive.
    pub supervisor: Option<(u32, bool)>,
    /// The count of each state.
    pub counts: BTreeMap<String, u64>,
    /// State of each task.
    pub tasks: BTreeMap<String, String>,
}

/// Looks until it is told to stop.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Observation>>,
}

impl Observer {
    /// Begins to look; what is seen before the batch exists is left out.
    pub fn start(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let operator = world.operator();
        let thread = std::thread::spawn(move || {
            let mut seen: Vec<Observation> = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let began = wall_ns();
                let ran = operator.supervisor(&["status", BATCH, "--json"]);
                let ended = wall_ns();
                // 6: not found. Once it was there it must stay.
                if ran.code == Some(6) && seen.is_empty() {
                    continue;
                }
                let shown = read(&ran);
                seen.push(Observation {
                    began,
                    ended,
                    shown,
                });
            }
            seen
        });
        Self { stop, thread }
    }

    /// Stops and gives every look.
    ///
    /// # Panics
    /// When the observer did.
    pub fn stop(self) -> Vec<Observation> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the observer does not panic")
    }
}

/// Understands one `status --json`.
///
/// # Errors
/// Why it is none.
pub fn read(ran: &Ran) -> Result<Shown, String> {
    if ran.code != Some(0) {
        return Err(format!("exit {:?}: {}", ran.code, ran.stderr));
    }
    let value: Value = serde_json::from_str(&ran.stdout).map_err(|error| error.to_string())?;
    shown(&value).ok_or_else(|| format!("keys are missing in {}", ran.stdout))
}

fn shown(value: &Value) -> Option<Shown> {
    let batch = value.get("batch")?;
    let supervisor = batch.get("supervisor").and_then(|supervisor| {
        let pid = u32::try_from(supervisor.get("pid")?.as_u64()?).ok()?;
        Some((pid, supervisor.get("alive")?.as_bool()?))
    });
    let counts = batch.get("counts")?.as_object()?;
    let counts = counts
        .iter()
        .map(|(state, count)| Some((state.clone(), count.as_u64()?)));
    let tasks = value.get("tasks")?.as_array()?;
    let tasks = tasks.iter().map(|task| {
        let word = |key: &str| Some(task.get(key)?.as_str()?.to_owned());
        Some((word("id")?, word("state")?))
    });
    Some(Shown {
        batch: batch.get("state")?.as_str()?.to_owned(),
        supervisor,
        counts: counts.collect::<Option<_>>()?,
        tasks: tasks.collect::<Option<_>>()?,
    })
}
