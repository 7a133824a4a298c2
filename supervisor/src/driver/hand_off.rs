//! What a new attempt is told of the one before it: how that ended, and the end of the output of
//! whatever failed. It is read from the run's own files and decides nothing; where they are gone, the
//! attempt is told less.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::class::Class;
use protocol::command::RunKind;
use protocol::exit_file::{STDERR_FILE_NAME, STDOUT_FILE_NAME};
use protocol::ids::{AttemptNo, Generation, TaskId};
use protocol::report::{ResultStatus, RunResult};
use supervisor_core::facts::Outcome;
use supervisor_core::reconcile::ResultFact;
use supervisor_core::retry::{self, Group};

use crate::driver::run_files::{self, end_of, kind_of};
use crate::store::StateDir;

/// Most runs of an attempt that are looked through for the newest; proofs are bounded far below.
const RUNS_MAX: usize = 1024;
/// Most attempts before the last one that are looked through for a failure of the work, when those
/// after it were cut short: as many in a row are an outage that somebody looks into.
const BEFORE_MAX: usize = 32;
/// Most bytes of each stream of a failed command that are told: what the next attempt reads of it
/// costs tokens, and the whole is in a file.
const OUTPUT_MAX: u64 = 4096;

/// The words for the attempt that follows `last`; `None` when nothing went wrong with the work.
pub fn hand_off(dir: &StateDir, task: &TaskId, last: &Outcome) -> Option<String> {
    let class = last.class?;
    let of = |attempt| {
        dir.run(task, attempt, Generation(0))
            .parent()
            .and_then(failed)
    };
    if teaches(class) {
        return Some(told(last.attempt, class, &last.detail, of(last.attempt)));
    }
    // One that was cut short by something else has not put right what those before it got wrong.
    let before = (1..last.attempt.0).rev().take(BEFORE_MAX).map(AttemptNo);
    let mut taught = before.filter_map(|attempt| {
        let (run, result) = of(attempt)?;
        let class = result.class.filter(|class| teaches(*class))?;
        let detail = result.summary.clone();
        Some(told(attempt, class, &detail, Some((run, result))))
    });
    taught.next()
}

fn told(
    attempt: AttemptNo,
    class: Class,
    detail: &str,
    failed: Option<(PathBuf, RunResult)>,
) -> String {
    let mut text = format!(
        "Attempt {} of this task ended with `{class}`: {detail}",
        attempt.0
    );
    let output = failed.map(|(run, result)| output(&run, &result));
    if let Some(output) = output.filter(|output| !output.is_empty()) {
        text.push_str("\n\nThe end of its output:\n");
        text.push_str(&output);
    }
    // It may become an argument, which can not hold a zero byte.
    text.replace('\0', "\u{fffd}")
}

/// The end of what the run printed, and where all of it is. What an operator's command prints is told
/// as it stands in its logs; those of an agent are its protocol, so its own evidence stands for them.
fn output(run: &Path, result: &RunResult) -> String {
    let logs = [STDOUT_FILE_NAME, STDERR_FILE_NAME].map(|name| run.join(name));
    let mut parts = match kind_of(run) {
        Some(RunKind::Verify | RunKind::Hook) => {
            let ends = logs.iter().map(|log| end_of(log, OUTPUT_MAX));
            ends.map(Result::unwrap_or_default).collect()
        }
        Some(RunKind::Agent | RunKind::Review | RunKind::Merge | RunKind::Git) | None => {
            vec![result.evidence.clone()]
        }
    };
    parts.retain(|part| !part.trim().is_empty());
    if parts.is_empty() {
        return String::new();
    }
    let there = logs.iter().filter(|log| log.is_file());
    let there: Vec<String> = there.map(|log| log.display().to_string()).collect();
    if !there.is_empty() {
        parts.push(format!("\nAll of it is in {}", there.join(" and ")));
    }
    let parts: Vec<&str> = parts.iter().map(|part| part.trim_end()).collect();
    parts.join("\n")
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

/// The newest run below `runs` that failed, by its number: the operator's hooks may have run after it.
fn failed(runs: &Path) -> Option<(PathBuf, RunResult)> {
    let entries = fs::read_dir(runs).ok()?.take(RUNS_MAX).flatten();
    let numbered = entries.filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((Generation(number), entry.path()))
    });
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort_unstable_by_key(|(generation, _)| Reverse(*generation));
    let mut results =
        numbered.into_iter().filter_map(|(generation, run)| {
            match run_files::result(&run, generation) {
                (ResultFact::Durable(result), _) => Some((run, *result)),
                (ResultFact::Absent | ResultFact::Unreadable, _) => None,
            }
        });
    results.find(|(_, result)| result.status == ResultStatus::Failed)
}

#[cfg(test)]
mod tests {
    use protocol::exit_file::{EXIT_FILE_NAME, EXIT_FILE_VERSION, ExitFile};
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

    /// What a proof prints is on either stream, and the operator's hooks may come after the agent.
    #[test]
    fn of_a_command_both_streams_are_told_and_a_later_hook_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, task) = (StateDir::at(folder.path()), "t".parse().unwrap());
        let kind = |generation: u64, kind: &str| {
            let run = dir.run(&task, AttemptNo(1), Generation(generation));
            let manifest = format!("{{\"v\":1,\"kind\":\"{kind}\"}}");
            fs::write(run.join("manifest.json"), manifest).unwrap();
            run
        };
        ended(&dir, &task, 8, "excerpt");
        let run = kind(8, "verify");
        let long = format!("first\n{}\0FAILED lexer\n", "x".repeat(9000));
        fs::write(run.join("stdout.log"), &long).unwrap();
        fs::write(run.join("stderr.log"), "error: 1 failed\n").unwrap();
        let text = hand_off(&dir, &task, &last(Class::VerifyFailed)).unwrap();
        assert!(
            text.contains("FAILED lexer\nerror: 1 failed\n\nAll of"),
            "{text}"
        );
        assert!(!text.contains('\0'), "it may become an argument");
        assert!(text.contains("stdout.log and /") && text.ends_with("runs/8/stderr.log"));
        assert!(!text.contains("first") && text.len() < 6000, "only the end");

        // An agent's logs are its protocol.
        kind(8, "agent");
        let text = hand_off(&dir, &task, &last(Class::AgentFailed)).unwrap();
        assert!(text.contains("output:\nexcerpt\n"), "{text}");

        ended(&dir, &task, 9, "");
        let exit = kind(9, "hook").join(EXIT_FILE_NAME);
        let ok = fs::read_to_string(&exit)
            .unwrap()
            .replace("\"failed\"", "\"ok\"");
        fs::write(&exit, ok).unwrap();
        let text = hand_off(&dir, &task, &last(Class::AgentFailed)).unwrap();
        assert!(text.contains("excerpt"), "{text}");
    }

    #[test]
    fn what_failed_before_an_attempt_that_was_lost_is_still_told() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, task) = (StateDir::at(folder.path()), "t".parse().unwrap());
        ended(&dir, &task, 3, "assertion left == right");
        let lost = Outcome {
            attempt: AttemptNo(4),
            ..last(Class::Lost)
        };
        let text = hand_off(&dir, &task, &lost).unwrap();
        assert!(text.starts_with("Attempt 1 of this task ended with `verify_failed`"));
        assert!(text.contains("assertion left == right"), "{text}");
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
