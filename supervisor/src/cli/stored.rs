//! Makes the state dir of a new batch, and tells whether a batch file changed since then.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use protocol::ids::BatchId;
use supervisor_core::facts::Facts;
use supervisor_core::plan::{Dependency, Plan, PlannedTask};
use supervisor_core::time::Wall;

use crate::batch_file::work::BatchWork;
use crate::batch_file::{BatchFile, Input};
use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::store::index::{self, IndexEntry};
use crate::store::{Disk, OpenAs, RealDisk, StateRoot};

/// Characters of the random part of a batch id: no two that look alike.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Length of that part: two batches of one name in one second get the same one once in a million.
const LETTERS_LEN: usize = 4;
/// Changes of a batch file that are named; the rest is counted.
const NAMED_MAX: usize = 20;

/// A new id: the batch's name, the second it was created (UTC), and random letters.
///
/// # Errors
/// When the system gives no random numbers (10).
pub fn new_id(name: &str, at: Wall) -> Result<BatchId, CliError> {
    let mut random = [0; LETTERS_LEN];
    getrandom::fill(&mut random).map_err(|error| {
        CliError::new(
            Code::Environment,
            format!("the system gives no random number: {error}"),
        )
    })?;
    let letters: String = random
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect();
    let second = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    let id = format!("{name}-{}-{letters}", second.strftime("%Y%m%dt%H%M%S"));
    id.parse()
        .map_err(|error| CliError::from_source(Code::Internal, &error))
}

/// Makes the folder of a new batch, keeps its inputs there, and puts it into the index.
///
/// # Errors
/// What the disk says (10), an unsafe folder (8).
pub fn create(
    root: &StateRoot,
    file: &BatchFile,
    path: &Path,
    at: Wall,
) -> Result<Found, CliError> {
    let id = new_id(&file.identity.name, at)?;
    let found = Found {
        dir: root.batch(&id),
        file: path.to_owned(),
        id,
    };
    keep(&found, &file.inputs)?;
    let entry = IndexEntry {
        id: found.id.clone(),
        name: file.identity.name.clone(),
        repository: file.identity.root.clone(),
        batch_file: path.to_owned(),
        dir: found.dir.path().to_owned(),
        created: at,
    };
    index::put(&RealDisk, root, &entry)?;
    if file.identity.root.join(".git").exists() {
        index::point(&file.identity.root, &entry.name, &entry.dir)?;
    }
    Ok(found)
}

/// Keeps what was read in the batch's folder, durable.
///
/// # Errors
/// What the disk says (10).
pub fn keep(batch: &Found, inputs: &[Input]) -> Result<(), CliError> {
    batch.dir.create(&RealDisk)?;
    for (path, input) in places(batch, inputs).zip(inputs) {
        write(&path, &input.bytes).map_err(|error| {
            let message = format!("{} can not be written: {error}", path.display());
            CliError::new(Code::Environment, message)
        })?;
    }
    let folders = [batch.dir.path().to_owned(), batch.dir.inputs()];
    for folder in folders {
        RealDisk.sync_dir(&folder).map_err(|error| {
            let message = format!("{} can not be made durable: {error}", folder.display());
            CliError::new(Code::Environment, message)
        })?;
    }
    Ok(())
}

/// Where each input is kept: the batch file first, the others numbered in the order of reading.
fn places(batch: &Found, inputs: &[Input]) -> impl Iterator<Item = PathBuf> {
    let folder = batch.dir.inputs();
    let first = std::iter::once(batch.dir.batch_file());
    let others = (1..)
        .zip(inputs.iter().skip(1))
        .map(move |(number, input)| {
            let name = input.path.file_name().unwrap_or_default().to_string_lossy();
            folder.join(format!("{number:03}-{name}"))
        });
    let others: Vec<PathBuf> = others.collect();
    first.chain(others)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = RealDisk.open(path, OpenAs::Write)?;
    file.truncate(0)?;
    file.write_at(0, bytes)?;
    file.sync()
}

/// Whether the batch file, or a file that it names, is not what it was when the batch was created.
pub fn is_edited(batch: &Found, inputs: &[Input]) -> bool {
    let same = |(path, input): (PathBuf, &Input)| {
        std::fs::read(path).is_ok_and(|kept| kept == input.bytes)
    };
    let kept = std::fs::read_dir(batch.dir.inputs()).map_or(0, Iterator::count);
    kept + 1 != inputs.len() || !places(batch, inputs).zip(inputs).all(same)
}

/// What an edited batch file means for a batch: one line a change; empty when it means the same.
pub fn changes(facts: &Facts, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if !same_settings(facts, plan) {
        lines.push("changed: rules of the batch".to_owned());
    }
    let agents = |name: &str| plan.agents.iter().find(|agent| &*agent.name == name);
    for agent in &facts.agents {
        match agents(&agent.name) {
            Some(new) if new.work == agent.work && new.concurrency == agent.concurrency => {}
            Some(_) => lines.push(format!("changed: agent {}", agent.name)),
            None => lines.push(format!("removed: agent {}", agent.name)),
        }
    }
    let new: BTreeMap<&str, &PlannedTask> = plan
        .tasks
        .iter()
        .map(|task| (task.id.as_str(), task))
        .collect();
    for task in &facts.tasks {
        match new.get(task.id.as_str()) {
            None => lines.push(format!("removed: task {} ({})", task.id, task.state)),
            Some(planned) if same_task(facts, task, plan, planned) => {}
            Some(_) => lines.push(format!("changed: task {} ({})", task.id, task.state)),
        }
    }
    let old: BTreeMap<&str, ()> = facts
        .tasks
        .iter()
        .map(|task| (task.id.as_str(), ()))
        .collect();
    let added = new.keys().filter(|id| !old.contains_key(*id));
    lines.extend(added.map(|id| format!("new: task {id}")));
    cut(lines)
}

fn cut(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        lines.truncate(NAMED_MAX);
        lines.push(format!("... and {more} more"));
    }
    lines
}

/// `until` may come from the command line, and the file may be named in another way.
fn same_settings(facts: &Facts, plan: &Plan) -> bool {
    let (old, new) = (&facts.batch.settings, &plan.settings);
    let work = |text: &str| {
        let work: Option<BatchWork> = serde_json::from_str(text).ok();
        work.map(|work| BatchWork {
            file: String::new(),
            ..work
        })
    };
    old.on_failure == new.on_failure
        && old.max_failures == new.max_failures
        && old.not_before == new.not_before
        && old.limits == new.limits
        && old.lost_max == new.lost_max
        && work(&old.work) == work(&new.work)
}

fn same_task(
    facts: &Facts,
    old: &supervisor_core::facts::Task,
    plan: &Plan,
    new: &PlannedTask,
) -> bool {
    let after_old = ids(&old.depends_on, |at| {
        facts.tasks.get(at).map(|task| task.id.as_str())
    });
    let after_new = ids(&new.depends_on, |at| {
        plan.tasks.get(at).map(|task| task.id.as_str())
    });
    let agent_old = facts.specs.get(old.spec.0 as usize);
    let agent_new = plan.specs.get(new.spec.0 as usize);
    let same_rules = match (agent_old, agent_new) {
        (Some(old), Some(new)) => {
            let name = |agents: &[supervisor_core::plan::AgentSpec], at: u32| {
                agents.get(at as usize).map(|agent| agent.name.clone())
            };
            let mut comparable = (**new).clone();
            comparable.agent = old.agent;
            comparable == **old
                && name(&facts.agents, old.agent.0) == name(&plan.agents, new.agent.0)
        }
        _ => false,
    };
    same_rules && old.item == new.item && old.touches == new.touches && after_old == after_new
}

fn ids<'a>(
    after: &[Dependency],
    id: impl Fn(usize) -> Option<&'a str>,
) -> Vec<(Option<&'a str>, supervisor_core::plan::Condition)> {
    after
        .iter()
        .map(|on| (id(on.task.0 as usize), on.condition))
        .collect()
}
