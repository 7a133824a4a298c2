//! The `git` adapter: git work as a run.

use protocol::class::Class;
use protocol::command::{Adapter, RunKind, Start};
use protocol::git::{GitAdapter, GitOutcome, GitWork, Provision};
use protocol::report::{ResultStatus, RunResult};

use crate::client::Client;
use crate::git_stage::Stage;

fn run(work: GitWork, timeout_ms: u64) -> RunResult {
    let adapter = Adapter::Git(GitAdapter { work, timeout_ms });
    let start = |client: &Client| Start {
        kind: RunKind::Git,
        cwd: "/nowhere/that/is".to_owned(),
        ..client.start(adapter)
    };
    Client::started(start).result().0
}

#[test]
fn the_outcome_of_git_work_is_in_the_result() {
    let stage = Stage::new();
    let result = run(GitWork::Provision(stage.provision("t")), 60_000);
    assert_eq!(result.status, ResultStatus::Ok, "{}", result.summary);
    let Some(GitOutcome::Provisioned(made)) = result.git.as_deref() else {
        panic!("{result:?}");
    };
    assert_eq!(made.base, stage.first);
    assert!(stage.path("t/src/file0.txt").exists());
}

#[test]
fn git_work_that_fails_says_what_and_why() {
    let stage = Stage::new();
    let work = Provision {
        repo: stage.text("no-repository"),
        ..stage.provision("t")
    };
    let result = run(GitWork::Provision(work), 60_000);
    assert_eq!(result.class, Some(Class::Environment));
    assert!(
        result.summary.contains("no-repository"),
        "{}",
        result.summary
    );
    assert_eq!(result.git, None);
}

#[test]
fn git_work_over_its_time_is_killed() {
    let stage = Stage::new();
    let result = run(GitWork::Provision(stage.provision("t")), 0);
    assert_eq!(result.class, Some(Class::SetupFailed));
    assert!(
        result.summary.contains("took longer than"),
        "{}",
        result.summary
    );
    stage.provisioned(stage.provision("t"));
    stage.assert_whole();
}
