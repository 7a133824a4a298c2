//! What a batch is doing at a moment, read from its journal as it grows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::World;

/// What a run that is under way is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doing {
    /// A worktree is made.
    Provisioning,
    /// An agent works, a hook or a proof runs.
    Working,
    /// Work becomes a commit.
    Committing,
    /// Commits are merged, a conflict is laid out or concluded, the batch branch moves.
    Merging,
    /// A merge is proven, or its conflict resolved.
    ProvingMerge,
    /// A worktree's content goes to a ref of its own.
    Salvaging,
    /// A worktree is removed.
    Cleaning,
}

impl Doing {
    /// Those that a kill is aimed at.
    pub const AIMS: [Doing; 5] = [
        Self::Provisioning,
        Self::Committing,
        Self::Merging,
        Self::Salvaging,
        Self::Cleaning,
    ];

    /// What the purpose of a `run_intended` record is.
    fn of(purpose: &Value) -> Self {
        let word = |key: &str| purpose.get(key).and_then(Value::as_str);
        match (word("step"), word("clean"), &purpose["merge"][1]) {
            (Some("provision" | "checkout"), _, _) => Self::Provisioning,
            (Some("commit"), _, _) => Self::Committing,
            (Some("salvage"), _, _) | (_, Some("salvage"), _) => Self::Salvaging,
            (_, Some("remove"), _) => Self::Cleaning,
            (None, None, Value::String(stage)) if stage == "verify" || stage == "resolve" => {
                Self::ProvingMerge
            }
            (None, None, Value::String(_)) => Self::Merging,
            (_, _, _) => Self::Working,
        }
    }
}

/// Follows the journal of the world's newest batch.
#[derive(Debug, Default)]
pub struct Follower {
    /// Bytes read of each file.
    read: BTreeMap<PathBuf, u64>,
    open: BTreeMap<u64, (Doing, bool)>,
    finished: BTreeSet<u64>,
}

impl Follower {
    /// Reads on, and all of it anew where recovery took back what was read.
    pub fn look(&mut self, world: &World) {
        if let Some(folder) = world.batch_dir()
            && !self.read_on(&folder)
        {
            *self = Self::default();
            // What is cut off now is whole at the next look.
            self.read_on(&folder);
        }
    }

    /// False: what follows is not what followed before.
    fn read_on(&mut self, folder: &Path) -> bool {
        let entries = std::fs::read_dir(folder.join("journal"));
        let mut files: Vec<PathBuf> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .collect();
        files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        for path in files {
            let from = self.read.get(&path).copied().unwrap_or_default();
            let Some((text, to)) = new_lines(&path, from) else {
                continue;
            };
            if to < from {
                return false;
            }
            self.read.insert(path, to);
            for line in text.lines() {
                match serde_json::from_str::<Value>(line) {
                    Ok(line) => self.take(&line["record"]),
                    Err(_) => return false,
                }
            }
        }
        true
    }

    fn take(&mut self, record: &Value) {
        let Some((name, body)) = record.as_object().and_then(|record| record.iter().next()) else {
            return;
        };
        if name == "supervisor_started" {
            // What was under way is over, or looked after first.
            self.open.clear();
        }
        let Some(generation) = body.get("generation").and_then(Value::as_u64) else {
            return;
        };
        match name.as_str() {
            "run_intended" => {
                let doing = Doing::of(&body["purpose"]);
                self.open.insert(generation, (doing, false));
            }
            "run_started" => {
                if let Some((_, started)) = self.open.get_mut(&generation) {
                    *started = true;
                }
            }
            "run_finished" => {
                self.finished.insert(generation);
                self.open.remove(&generation);
            }
            "run_ended" | "run_reconciled" => {
                self.open.remove(&generation);
            }
            _other => {}
        }
    }

    /// Whether a run of this kind has started and has not told its result.
    pub fn is(&self, doing: Doing) -> bool {
        self.open.values().any(|open| *open == (doing, true))
    }

    /// How many runs have told their result.
    pub fn finished(&self) -> usize {
        self.finished.len()
    }

    /// What is under way.
    pub fn doing(&self) -> Vec<Doing> {
        let mut all: Vec<Doing> = self.open.values().map(|(doing, _)| *doing).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The whole lines of a file from this byte on, and the byte after them.
fn new_lines(path: &Path, from: u64) -> Option<(String, u64)> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    if length <= from {
        return Some((String::new(), length));
    }
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n')? + 1;
    bytes.truncate(whole);
    let to = from + u64::try_from(whole).ok()?;
    Some((String::from_utf8(bytes).ok()?, to))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_are_told_apart() {
        for (purpose, doing) in [
            (json!({"step": "provision"}), Doing::Provisioning),
            (json!({"step": "work"}), Doing::Working),
            (json!({"step": "commit"}), Doing::Committing),
            (json!({"step": "salvage"}), Doing::Salvaging),
            (json!({"clean": "salvage"}), Doing::Salvaging),
            (json!({"clean": "remove"}), Doing::Cleaning),
            (json!({"clean": "before_remove"}), Doing::Working),
            (json!({"merge": [0, "advance"]}), Doing::Merging),
            (json!({"merge": [0, "verify"]}), Doing::ProvingMerge),
        ] {
            assert_eq!(Doing::of(&purpose), doing, "{purpose}");
        }
    }

    #[test]
    fn a_run_is_under_way_from_its_start_to_its_result() {
        let mut follower = Follower::default();
        follower.take(&json!({"run_intended": {"generation": 3, "purpose": {"step": "commit"}}}));
        assert!(!follower.is(Doing::Committing));
        follower.take(&json!({"run_started": {"generation": 3}}));
        assert!(follower.is(Doing::Committing));
        follower.take(&json!({"run_finished": {"generation": 3}}));
        assert!(!follower.is(Doing::Committing) && follower.doing().is_empty());
        assert_eq!(follower.finished(), 1);
        follower.take(&json!({"run_intended": {"generation": 4, "purpose": {"step": "commit"}}}));
        follower.take(&json!({"supervisor_started": {"term": 2}}));
        assert!(
            follower.doing().is_empty(),
            "it is over with its supervisor"
        );
    }

    #[test]
    fn what_recovery_took_back_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("journal")).expect("a folder");
        let file = folder.path().join("journal/1.jsonl");
        let line = |generation: u64| {
            let purpose = json!({"step": "commit"});
            let record = json!({"run_intended": {"generation": generation, "purpose": purpose}});
            format!("{}\n", json!({"record": record}))
        };
        std::fs::write(&file, line(1) + &line(2)).expect("a journal");
        let mut follower = Follower::default();
        assert!(follower.read_on(folder.path()));
        assert_eq!(follower.open.len(), 2);
        std::fs::write(&file, line(1)).expect("a journal");
        assert!(!follower.read_on(folder.path()), "it is shorter");
    }
}
