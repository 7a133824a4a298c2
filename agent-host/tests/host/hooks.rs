//! The `hook` adapter: 0 allows, 1 warns, anything else blocks. And who may give a verdict.

use std::collections::BTreeMap;

use protocol::class::Class;
use protocol::command::{Adapter, RunKind, Start, VerifyAdapter, VerifyCommand};
use protocol::report::{ResultStatus, RunResult, Verdict};

use crate::client::{Client, command, script};

fn hook(commands: &[(&str, u64)]) -> RunResult {
    let commands = commands.iter().map(|(line, timeout_ms)| VerifyCommand {
        argv: ["sh", "-c", line].map(str::to_owned).into(),
        timeout_ms: *timeout_ms,
        env: BTreeMap::new(),
    });
    let adapter = Adapter::Hook(VerifyAdapter {
        commands: commands.collect(),
    });
    let start = |client: &Client| of_kind(client.start(adapter), RunKind::Hook);
    Client::started(start).result().0
}

fn of_kind(start: Start, kind: RunKind) -> Start {
    Start { kind, ..start }
}

#[test]
fn zero_allows_and_one_warns_and_goes_on() {
    assert_eq!(hook(&[("true", 60_000)]).summary, "");
    let result = hook(&[("echo disk is low >&2; exit 1", 60_000), ("true", 60_000)]);
    assert_eq!((result.status, result.class), (ResultStatus::Ok, None));
    assert!(result.summary.contains("disk is low"), "{}", result.summary);
}

#[test]
fn anything_else_blocks_with_the_end_of_what_it_said() {
    let cases = [
        ("echo no >&2; exit 2", 60_000, "exited with 2"),
        ("echo no >&2; exit 77", 60_000, "exited with 77"),
        ("echo no >&2; kill -KILL $$", 60_000, "signal 9"),
        ("echo no >&2; sleep 1000", 300, "took longer than 300ms"),
    ];
    for (line, timeout_ms, how) in cases {
        let result = hook(&[(line, timeout_ms), ("echo never", 60_000)]);
        assert_eq!(result.class, Some(Class::SetupFailed), "{line}");
        assert!(result.summary.contains(how), "{}", result.summary);
        assert!(result.evidence.ends_with("no\n"), "{}", result.evidence);
    }
}

#[test]
fn a_reviewers_verdict_is_in_the_result_and_nobody_else_gives_one() {
    let line = r#""$SUPERVISOR_HOST" result ok fine --verdict revise"#;
    let call = |kind| {
        let own = env!("CARGO_BIN_EXE_agent-host").to_owned();
        let start = |client: &Client| {
            let mut start = of_kind(client.start(command(&["sh", "-c", line])), kind);
            start.env.insert("SUPERVISOR_HOST".to_owned(), own);
            start
        };
        Client::started(start).result()
    };
    let (result, _) = call(RunKind::Review);
    assert_eq!(
        (result.status, result.verdict),
        (ResultStatus::Ok, Some(Verdict::Revise))
    );
    let (result, ended) = call(RunKind::Agent);
    assert_eq!(
        (result.class, result.verdict),
        (Some(Class::AgentFailed), None)
    );
    let said = ended.log("stderr.log");
    assert!(said.contains("only a review gives a verdict"), "{said}");
}

#[test]
fn a_scripts_verdict_is_a_reviewers_too() {
    let json = r#"[{"result": {"status": "ok", "summary": "no", "verdict": "reject"}}]"#;
    let play = |kind| {
        let start = |client: &Client| of_kind(client.start(script(json)), kind);
        Client::started(start).result().0
    };
    let reviewed = play(RunKind::Review);
    assert_eq!(
        (reviewed.verdict, reviewed.summary.as_str()),
        (Some(Verdict::Reject), "no")
    );
    let refused = play(RunKind::Agent);
    assert_eq!(
        (refused.class, refused.verdict),
        (Some(Class::SetupFailed), None)
    );
    assert!(
        refused.summary.contains("only a review"),
        "{}",
        refused.summary
    );
}

#[test]
fn a_result_files_verdict_is_a_reviewers_too() {
    let run = |kind| {
        let start = |client: &Client| {
            let path = client.path("result.json").display().to_string();
            let line = format!(r#"echo '{{"status":"ok","verdict":"approve"}}' > {path}"#);
            let mut start = of_kind(client.start(command(&["sh", "-c", &line])), kind);
            if let Adapter::Command(adapter) = &mut start.adapter {
                adapter.result_file = Some(path);
            }
            start
        };
        Client::started(start).result().0
    };
    assert_eq!(run(RunKind::Review).verdict, Some(Verdict::Approve));
    let refused = run(RunKind::Agent);
    assert_eq!(
        (refused.class, refused.verdict),
        (Some(Class::NoResult), None)
    );
    assert!(
        refused.summary.contains("only a review"),
        "{}",
        refused.summary
    );
}
