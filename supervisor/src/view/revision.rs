//! What an edited batch file changes, task by task: shown before it is done, and instead of it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::plan::{Dependency, Rules, Settings, SpecIx, TaskIx, TaskSpec};
use supervisor_core::revision::Revision;

/// Lines of one kind that are shown to a person; the rest is counted.
const LINES_MAX: usize = 20;

/// One thing that the edited file changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `changed`, `new`, `removed`, `back` or `kept`; `batch`, `agent` or `account`.
    pub kind: &'static str,
    /// The task, agent or account.
    pub id: String,
    /// Where the task is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// The keys of the batch file that say something else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// What becomes of it.
    pub effect: &'static str,
}

/// Every change, those of the batch first.
pub fn changes(facts: &Facts, revision: &Revision) -> Vec<Change> {
    let mut all = whole(facts, revision);
    for (ix, rules) in &revision.revised {
        let task = &facts.tasks[ix.0 as usize];
        let back = revision.returned.contains(ix);
        all.push(Change {
            kind: if task.removed { "back" } else { "changed" },
            id: task.id.to_string(),
            state: Some(task.state.word()),
            keys: keys(facts, revision, task, rules),
            effect: match (back, task.attempt.is_some(), task.state.is_terminal()) {
                (true, ..) => "is tried",
                (false, true, _) => "with its next attempt",
                (false, false, true) => "when it is retried",
                (false, false, false) => "from now on",
            },
        });
    }
    all.extend(revision.added.iter().map(|planned| Change {
        kind: "new",
        id: planned.id.to_string(),
        state: None,
        keys: Vec::new(),
        effect: "is added",
    }));
    let of = |ix: &TaskIx, kind, effect| {
        let task = &facts.tasks[ix.0 as usize];
        Change {
            kind,
            id: task.id.to_string(),
            state: Some(task.state.word()),
            keys: Vec::new(),
            effect,
        }
    };
    for ix in &revision.removed {
        let task = &facts.tasks[ix.0 as usize];
        let effect = match (task.attempt.is_some(), task.state.is_terminal()) {
            (true, _) => "is stopped and cancelled",
            (false, true) => "stays as it ended",
            (false, false) => "is skipped",
        };
        all.push(of(ix, "removed", effect));
    }
    let kept = revision.kept.iter();
    all.extend(kept.map(|ix| of(ix, "kept", "stays as it was done")));
    all
}

/// Rules of the batch, agents and accounts.
fn whole(facts: &Facts, revision: &Revision) -> Vec<Change> {
    let change = |kind, id: &str, keys, effect| Change {
        kind,
        id: id.to_owned(),
        state: None,
        keys,
        effect,
    };
    let mut all = Vec::new();
    if revision.other_settings {
        let keys = settings_keys(&facts.batch.settings, &revision.settings);
        all.push(change(
            "batch",
            &revision.settings.name,
            keys,
            "from now on",
        ));
    }
    for agent in &revision.agents {
        let known = facts.agents.iter().any(|it| it.name == agent.name);
        let effect = if known {
            "for attempts from now on"
        } else {
            "is added"
        };
        all.push(change("agent", &agent.name, Vec::new(), effect));
    }
    for account in &revision.accounts {
        let known = facts.accounts.iter().any(|it| it.spec.name == account.name);
        let effect = if known { "from now on" } else { "is added" };
        all.push(change("account", &account.name, Vec::new(), effect));
    }
    all
}

fn settings_keys(old: &Settings, new: &Settings) -> Vec<String> {
    let numbers = |old: u32, new: u32| format!("concurrency {old} -> {new}");
    let mut keys = Vec::new();
    if old.concurrency != new.concurrency {
        keys.push(numbers(old.concurrency, new.concurrency));
    }
    let others = [
        ("on_failure", old.on_failure != new.on_failure),
        ("max_failures", old.max_failures != new.max_failures),
        ("not_before", old.not_before != new.not_before),
        ("until", old.until != new.until),
        ("limits", old.limits != new.limits),
        ("lost_max", old.lost_max != new.lost_max),
    ];
    keys.extend(named(&others));
    keys.extend(work_keys(&old.work, &new.work));
    keys
}

fn named(keys: &[(&str, bool)]) -> Vec<String> {
    let differ = keys.iter().filter(|(_, differs)| *differs);
    differ.map(|(key, _)| (*key).to_owned()).collect()
}

fn keys(facts: &Facts, revision: &Revision, task: &Task, rules: &Rules) -> Vec<String> {
    let before = task.next_rules();
    let spec = |ix: SpecIx| -> Option<&TaskSpec> {
        let at = ix.0 as usize;
        let added = at.checked_sub(facts.specs.len());
        let found = facts.specs.get(at);
        let found = found.or_else(|| added.and_then(|at| revision.specs.get(at)));
        found.map(|spec| &**spec)
    };
    let mut keys = match (spec(before.spec), spec(rules.spec)) {
        (Some(old), Some(new)) if before.spec != rules.spec => spec_keys(facts, revision, old, new),
        _ => Vec::new(),
    };
    let edges = |rules: &Rules| -> Vec<Dependency> { rules.depends_on.to_vec() };
    keys.extend(named(&[
        ("item", before.item != rules.item),
        ("touches", before.touches != rules.touches),
        ("depends_on", edges(&before) != edges(rules)),
    ]));
    keys
}

fn spec_keys(facts: &Facts, revision: &Revision, old: &TaskSpec, new: &TaskSpec) -> Vec<String> {
    let agent = |at: u32| {
        let at = at as usize;
        let added = at.checked_sub(facts.agents.len());
        let found = facts.agents.get(at);
        let found = found.or_else(|| added.and_then(|at| revision.agents.get(at)));
        found.map(|agent| agent.name.clone())
    };
    let mut keys = Vec::new();
    if old.attempts != new.attempts {
        keys.push(format!("attempts {} -> {}", old.attempts, new.attempts));
    }
    let by = (agent(old.agent.0), agent(new.agent.0));
    if let (Some(from), Some(to)) = &by {
        if from != to {
            keys.push(format!("agent {from} -> {to}"));
        } else if old.agent != new.agent {
            keys.push(format!("agent {to}"));
        }
    }
    let others = [
        ("timeout", old.timeout != new.timeout),
        ("silence", old.silence != new.silence),
        ("no_progress", old.no_progress != new.no_progress),
        ("priority", old.priority != new.priority),
        ("retry", old.retry != new.retry),
        (
            "limits",
            old.limits != new.limits || old.memory_max != new.memory_max,
        ),
        ("not_before", old.not_before != new.not_before),
        ("containment", old.containment != new.containment),
        ("on_question", old.on_question != new.on_question),
        (
            "question_timeout",
            old.question_timeout != new.question_timeout,
        ),
    ];
    keys.extend(named(&others));
    keys.extend(work_keys(&old.work, &new.work));
    keys
}

/// The keys of what only the driver reads: what a task does is told as `prompt`, texts that tasks
/// share as `prompt_file`.
fn work_keys(old: &str, new: &str) -> Vec<String> {
    let read =
        |text: &str| -> BTreeMap<String, Value> { serde_json::from_str(text).unwrap_or_default() };
    let (old, new) = (read(old), read(new));
    let all: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = all.into_iter().filter(|key| old.get(*key) != new.get(*key));
    differ
        .filter(|key| *key != "reads_deps")
        .map(|key| match key.as_str() {
            "act" => "prompt".to_owned(),
            "texts" => "prompt_file".to_owned(),
            other => other.to_owned(),
        })
        .collect()
}

/// The changes for a person: a line each, in columns.
///
/// # Errors
/// When the text can not be written.
pub fn write_text(changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
    let width = changes
        .iter()
        .map(|it| it.id.len())
        .max()
        .unwrap_or(0)
        .min(40);
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for change in changes {
        let count = shown.entry(change.kind).or_default();
        *count += 1;
        if *count > LINES_MAX {
            continue;
        }
        let mut notes: Vec<&str> = change.state.into_iter().collect();
        notes.extend(change.keys.iter().map(String::as_str));
        let (kind, id, effect) = (change.kind, &change.id, change.effect);
        let notes = match notes.is_empty() {
            true => String::new(),
            false => format!(" ({})", notes.join(", ")),
        };
        writeln!(out, "  {kind:<8} {id:<width$}  {effect}{notes}")?;
    }
    for (kind, count) in shown.iter().filter(|(_, count)| **count > LINES_MAX) {
        writeln!(out, "  {kind:<8} ... and {} more", count - LINES_MAX)?;
    }
    Ok(())
}
