//! Test builds only: a small batch whose state comes from the real core.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use supervisor_core::core::{Change, Core};
use supervisor_core::identity::Identity;
use supervisor_core::input::{Created, Input};
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Hooks, Keep,
    Limits, OnFailure, OnQuestion, Plan, PlannedTask, RetryPolicy, Settings, SpecIx, TaskSpec,
};
use supervisor_core::time::{Boot, BootId, Now, Wall};

use crate::driver::observer::{Note, Observer, Picture};

/// What an observer was told, line by line.
#[derive(Debug, Default)]
pub(crate) struct Tape(pub(crate) Vec<String>);

impl Observer for Tape {
    fn changed(&mut self, _picture: Picture<'_>, changes: &[Change]) {
        self.0
            .extend(changes.iter().map(|change| format!("{change:?}")));
    }
    fn noted(&mut self, note: Note<'_>) {
        self.0.push(format!("{note:?}"));
    }
    fn refresh_every(&self) -> Option<Duration> {
        None
    }
    fn refresh(&mut self, _picture: Picture<'_>) {}
}

/// A moment.
pub(crate) fn now() -> Now {
    Now {
        wall: Wall(1_800_000_000_000),
        boot: Boot(1_000_000),
        boot_id: BootId(7),
    }
}

/// One task, `first`, with this agent and this work; its first run is intended.
pub(crate) fn core(kind: AgentKind, drive: &Value, task: &Value) -> Core {
    let mut core = Core::new();
    let created = Input::Created(Box::new(Created {
        id: "some-batch".parse().unwrap(),
        seed: unique_seed(),
        plan: plan(kind, drive, task),
        only: Vec::new(),
    }));
    let recovered = Input::Recovered {
        supervisor: Identity {
            node: "here".into(),
            pid_namespace: 1,
            boot_id: BootId(7),
            pid: 1,
            start_ticks: 1,
            pidfs_inode: None,
            session: None,
        },
        guardian: None,
        build: "test".into(),
        runs: Vec::new(),
    };
    for input in [created, recovered, Input::Tick] {
        let turn = core.handle(now(), input);
        assert!(turn.defects.is_empty(), "{:?}", turn.defects);
    }
    assert_eq!(core.facts().unwrap().runs.len(), 1);
    core
}

fn plan(kind: AgentKind, drive: &Value, task: &Value) -> Plan {
    Plan {
        settings: Settings {
            name: "some".into(),
            concurrency: 1,
            on_failure: OnFailure::SkipDependents,
            max_failures: None,
            not_before: None,
            until: None,
            limits: Limits::default(),
            lost_max: 25,
            keep: Keep::Failed,
            work: json!({"file": "batch.yml", "folder": "/work/folder"})
                .to_string()
                .into(),
        },
        agents: vec![AgentSpec {
            name: "agent".into(),
            kind,
            account: AccountIx(0),
            concurrency: None,
            models: Vec::new(),
            work: json!({ "drive": drive }).to_string().into(),
        }],
        accounts: vec![AccountSpec {
            name: "account".into(),
            concurrency: None,
            auto_resume: AutoResume::Always,
        }],
        repos: Vec::new(),
        specs: vec![Arc::new(spec(task))],
        tasks: vec![PlannedTask {
            id: "first".parse().unwrap(),
            spec: SpecIx(0),
            item: None,
            touches: Arc::from([]),
            depends_on: Box::new([]),
        }],
    }
}

fn spec(task: &Value) -> TaskSpec {
    TaskSpec {
        agent: AgentIx(0),
        attempts: 3,
        timeout: Duration::from_secs(600),
        silence: Duration::from_secs(600),
        no_progress: Duration::from_secs(600),
        priority: 0,
        verify: false,
        worktree: None,
        changes: false,
        review: None,
        fetch: false,
        comments: Comments::default(),
        hooks: Hooks::default(),
        retry: RetryPolicy {
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
            by_class: BTreeMap::new(),
        },
        limits: Limits::default(),
        memory_max: None,
        not_before: None,
        on_question: OnQuestion::Wait,
        question_timeout: Duration::from_secs(600),
        containment: supervisor_core::containment::Wish::Auto,
        work: task.to_string().into(),
    }
}

/// Stories run side by side, and recovery looks at every process of the machine: no two may expect
/// the same spawn tokens.
fn unique_seed() -> u64 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let nth = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    (u64::from(std::process::id()) << 32) | u64::from(nth)
}
