//! The `verify` adapter: the proof of done.

use std::collections::BTreeMap;

use protocol::class::Class;
use protocol::command::{Adapter, VerifyAdapter, VerifyCommand};
use protocol::report::{Event, ResultStatus};

use crate::client::{Client, Ended};

fn verify(commands: &[(&str, u64)]) -> (protocol::report::RunResult, Ended) {
    let commands = commands.iter().map(|(line, timeout_ms)| VerifyCommand {
        argv: ["sh", "-c", line].map(str::to_owned).into(),
        timeout_ms: *timeout_ms,
        env: BTreeMap::from([("STEP".to_owned(), "set".to_owned())]),
    });
    let adapter = Adapter::Verify(VerifyAdapter {
        commands: commands.collect(),
    });
    Client::started(|client| client.start(adapter)).result()
}

#[test]
fn all_must_pass_and_run_in_order() {
    let (result, ended) = verify(&[("echo one $STEP", 60_000), ("echo two; echo e >&2", 60_000)]);
    assert_eq!((result.status, result.class), (ResultStatus::Ok, None));
    let out = ended.log("stdout.log");
    let first = "[supervisor: verify 1 of 2: sh -c echo one $STEP]\none set\n";
    assert!(out.starts_with(first), "{out}");
    assert!(
        out.ends_with("[supervisor: verify 2 of 2: sh -c echo two; echo e >&2]\ntwo\n"),
        "{out}"
    );
    assert!(ended.log("stderr.log").ends_with("]\ne\n"));
    let spawned = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::ProcessSpawned(_)));
    assert_eq!(spawned.count(), 2);
}

#[test]
fn the_first_failure_ends_it_and_names_the_command() {
    let (result, ended) = verify(&[("echo broken >&2; exit 5", 60_000), ("echo never", 60_000)]);
    assert_eq!(
        (result.class, result.exit_code),
        (Some(Class::VerifyFailed), Some(5))
    );
    assert!(
        result.summary.contains("exit 5` exited with 5"),
        "{}",
        result.summary
    );
    assert!(result.evidence.ends_with("broken\n"), "{}", result.evidence);
    assert!(!ended.log("stdout.log").contains("never"));
}

#[test]
fn a_command_over_its_time_is_killed_with_its_tree() {
    let (result, _) = verify(&[("trap '' TERM; setsid sleep 1000 & sleep 1000", 100)]);
    assert_eq!(result.class, Some(Class::VerifyFailed));
    assert!(
        result.summary.contains("took longer than 100ms"),
        "{}",
        result.summary
    );
}

#[test]
fn a_signal_fails_it() {
    let (result, _) = verify(&[("kill -TERM $$", 60_000)]);
    assert_eq!(
        (result.class, result.signal),
        (Some(Class::VerifyFailed), Some(15))
    );
}

#[test]
fn nothing_to_verify_is_verified() {
    assert_eq!(verify(&[]).0.status, ResultStatus::Ok);
}
