//! What a new attempt is told of the one before it: how that ended, and the end of the output of
//! whatever failed. It is read from the run's own files and decides nothing; where they are gone, the
//! attempt is told less.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::class::Class;
use protocol::ids::{Generation, TaskId};
use supervisor_core::facts::Outcome;
use supervisor_core::reconcile::ResultFact;
use supervisor_core::retry::{self, Group};

use crate::driver::run_files;
use crate::store::StateDir;

/// Most runs of an attempt that are looked through for the newest; proofs are bounded far below.
const RUNS_MAX: usize = 1024;

/// The words for the attempt that follows `last`; `None` when nothing went wrong with the work.
pub fn hand_off(dir: &StateDir, task: &TaskId, last: &Outcome) -> Option<String> {
    let class = last.class?;
    if !teaches(class) {
        return None;
    }
    let mut text = format!(
        "Attempt {} of this task ended with `{class}`: {}",
        last.attempt.0, last.detail
    );
    let runs = dir.run(task, last.attempt, Generation(0));
    let Some((run, generation)) = runs.parent().and_then(newest) else {
        return Some(text);
    };
    if let (ResultFact::Durable(result), _) = run_files::result(&run, generation)
        && !result.evidence.trim().is_empty()
    {
        text.push_str("\n\nThe end of its output:\n");
        text.push_str(result.evidence.trim_end());
        let log = run.join("stdout.log");
        if log.is_file() {
            text.push_str(&format!("\n\nAll of it is in {}", log.display()));
        }
    }
    Some(text)
}

/// Whether the next attempt can do better for knowing: the work went wrong, not the account, the
/// machine or the operator's mind.
fn teaches(class: Class) -> bool {
    match retry::group(class) {
        Group::Work => true,
        Group::Account
        | Group::AccountStop
        | Group::Operator
        | Group::OurSide
        | Group::Lost
        | Group::Chosen => false,
    }
}

/// The folder of the newest run below `runs`, by its number.
fn newest(runs: &Path) -> Option<(PathBuf, Generation)> {
    let entries = fs::read_dir(runs).ok()?.take(RUNS_MAX).flatten();
    let numbered = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((entry.path(), Generation(number)))
    });
    numbered.max_by_key(|(_, generation)| *generation)
}

#[cfg(test)]
mod tests {
    use protocol::exit_file::{EXIT_FILE_NAME, EXIT_FILE_VERSION, ExitFile};
    use protocol::ids::AttemptNo;
    use protocol::report::{ResultStatus, RunResult, Usage};
    use supervisor_core::facts::Footprint;

    use super::*;

    fn last(class: Class) -> Outcome {
        Outcome {
            attempt: AttemptNo(1),
            class: Some(class),
            detail: "`make test` exited with 2".into(),
            summary: "".into(),
            footprint: Footprint::default(),
        }
    }

    fn ended(dir: &StateDir, task: &TaskId, generation: u64, evidence: &str) {
        let run = dir.run(task, AttemptNo(1), Generation(generation));
        fs::create_dir_all(&run).unwrap();
        let exit = ExitFile {
            v: EXIT_FILE_VERSION,
            generation: Generation(generation),
            result: RunResult {
                status: ResultStatus::Failed,
                class: Some(Class::VerifyFailed),
                summary: String::new(),
                exit_code: None,
                signal: None,
                reset_at_ms: None,
                session: None,
                usage: Usage::default(),
                family: None,
                evidence: evidence.to_owned(),
                artifacts: Vec::new(),
                verdict: None,
                git: None,
            },
            injected: Vec::new(),
        };
        fs::write(run.join(EXIT_FILE_NAME), serde_json::to_vec(&exit).unwrap()).unwrap();
        fs::write(run.join("stdout.log"), evidence).unwrap();
    }

    #[test]
    fn the_next_attempt_is_told_what_failed_and_the_end_of_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, task) = (StateDir::at(folder.path()), "t".parse().unwrap());
        let class = Class::VerifyFailed;
        let text = hand_off(&dir, &task, &last(class)).unwrap();
        assert!(
            text.ends_with("`verify_failed`: `make test` exited with 2"),
            "{text}"
        );
        ended(&dir, &task, 9, "the agent was fine");
        ended(&dir, &task, 10, "assertion left == right\n");
        let text = hand_off(&dir, &task, &last(class)).unwrap();
        assert!(
            text.contains("assertion left == right\n\nAll of it is in /"),
            "{text}"
        );
        assert!(text.ends_with("runs/10/stdout.log"), "{text}");
    }

    #[test]
    fn what_was_not_the_works_fault_is_not_held_against_it() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, task) = (StateDir::at(folder.path()), "t".parse().unwrap());
        for class in Class::ALL {
            let told = hand_off(&dir, &task, &last(*class)).is_some();
            assert_eq!(told, retry::consumes(*class), "{class}");
        }
        let done = Outcome {
            class: None,
            ..last(Class::Crash)
        };
        assert_eq!(hand_off(&dir, &task, &done), None);
    }
}
