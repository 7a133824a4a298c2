//! One of everything, by hand and fixed: what the golden files hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::SteerMode;
use protocol::git::{GitOutcome, Oid, Salvaged};
use protocol::ids::{AttemptNo, Generation, MessageId, QuestionId};
use protocol::report::{
    Capabilities, Receipt, ResultStatus, RunResult, SteerReach, Usage, Verdict,
};

use supervisor_core::containment::{Cleared, Containment, Layer, Leftover};
use supervisor_core::facts::{
    Account, Attempt, Batch, Clean, Comment, Facts, Merge, Message, Outcome, Question, Repo, Round,
    Run, Salvage, Task, Worktree,
};
use supervisor_core::identity::{Exit, Identity};
use supervisor_core::machine::{
    AccountState, AttemptState, BatchState, CommentState, MergeState, MessageState, QuestionState,
    RunState, TaskState,
};
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Condition,
    Dependency, Hooks, Keep, Limits, MaxFailures, OnConflict, OnFailure, OnQuestion, PlannedTask,
    RepoIx, RepoSpec, RetryMode, RetryPolicy, ReviewSpec, Rules, Settings, SpecIx, TaskIx,
    TaskSpec,
};
use supervisor_core::reason::{AccountReason, BatchLimit, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::StopReason;
use supervisor_core::record::{
    AttemptEnded, AttemptStarted, BatchCreated, Entry, Next, PlanRevised, Record,
};
use supervisor_core::step::{CleanStep, CommentOn, Purpose, Stage, Step};
use supervisor_core::time::{Boot, BootId, Deadline, Now, Wall};

/// A moment: `seq` seconds into the batch.
pub(super) fn now(seq: u64) -> Now {
    Now {
        wall: Wall(1_767_225_600_000 + seq as i64 * 1_000),
        boot: Boot(50_000 + seq * 1_000),
        boot_id: BootId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
    }
}

pub(super) fn entry(seq: u64, record: Record) -> Entry {
    Entry {
        seq,
        term: 1,
        now: now(seq),
        record,
    }
}

/// Small records numbered from `first` on.
pub(super) fn entries(first: u64, count: u64) -> Vec<Entry> {
    (first..first + count)
        .map(|seq| {
            let record = Record::TaskMoved {
                task: TaskIx(seq as u32),
                to: TaskState::Ready,
                reason: TaskReason::Lane,
                next_check: Some(Deadline::Boot(Boot(seq * 10))),
            };
            entry(seq, record)
        })
        .collect()
}

fn text(text: &str) -> Arc<str> {
    text.into()
}

pub(super) fn identity() -> Identity {
    Identity {
        node: text("5c1f0a52d3"),
        pid_namespace: 4_026_531_836,
        boot_id: now(0).boot_id,
        pid: 4242,
        start_ticks: 987_654,
        pidfs_inode: Some(77),
        session: Some(4242),
    }
}

fn settings() -> Settings {
    Settings {
        name: text("nightly"),
        concurrency: 4,
        on_failure: OnFailure::SkipDependents,
        max_failures: Some(MaxFailures::Percent(20)),
        not_before: Some(Wall(1_767_225_600_000)),
        until: None,
        limits: Limits {
            turns: Some(200),
            tokens: Some(5_000_000),
            cost_micros: None,
            wall: Some(Duration::from_secs(3 * 86_400)),
        },
        lost_max: 25,
        keep: Keep::Failed,
        work: text(r#"{"merge":{"into":"batch/{{ batch.id }}"}}"#),
    }
}

fn agent() -> AgentSpec {
    AgentSpec {
        name: text("coder"),
        kind: AgentKind::Scripted,
        account: AccountIx(0),
        concurrency: Some(3),
        models: vec![text("large"), text("small")],
        work: text("{}"),
    }
}

fn account() -> AccountSpec {
    AccountSpec {
        name: text("main"),
        concurrency: None,
        auto_resume: AutoResume::Ask,
    }
}

fn repo_spec() -> RepoSpec {
    RepoSpec {
        name: text("."),
        verify: true,
        group: 4,
        on_conflict: OnConflict::Agent(Some(AgentIx(0))),
        work: text(r#"{"path":"/srv/app"}"#),
    }
}

/// The name of an object that begins with this digit.
fn oid(digit: char) -> Oid {
    Oid::try_from(format!("{digit}{}", "0".repeat(39))).unwrap()
}

fn salvage() -> Salvage {
    Salvage {
        reference: text("refs/supervisor/salvage/nightly-20260101-000000-ab12/m-parser/1"),
        commit: oid('a'),
    }
}

fn spec() -> TaskSpec {
    TaskSpec {
        agent: AgentIx(0),
        attempts: 3,
        timeout: Duration::from_secs(7_200),
        silence: Duration::from_secs(1_200),
        no_progress: Duration::from_micros(3_600_000_500),
        priority: -1,
        verify: true,
        worktree: Some(RepoIx(0)),
        changes: true,
        review: Some(ReviewSpec {
            agent: AgentIx(0),
            rounds: 2,
        }),
        fetch: true,
        comments: Comments {
            failed: true,
            question: true,
            done: true,
        },
        hooks: Hooks {
            after_create: true,
            before_run: true,
            after_run: true,
            before_remove: true,
        },
        retry: RetryPolicy {
            backoff_min: Duration::from_secs(30),
            backoff_max: Duration::from_secs(600),
            by_class: BTreeMap::from([
                (Class::Crash, RetryMode::Resume),
                (Class::Silence, RetryMode::NewSession),
            ]),
        },
        limits: Limits::default(),
        memory_max: Some(512 << 20),
        not_before: None,
        on_question: OnQuestion::WaitThenDefault(text("go on")),
        question_timeout: Duration::from_secs(14_400),
        containment: supervisor_core::containment::Wish::Auto,
        work: text(r#"{"prompt":"zwei Zeilen\nmit \"Zitat\" und é"}"#),
    }
}

fn planned() -> PlannedTask {
    PlannedTask {
        id: "m-parser".parse().unwrap(),
        spec: SpecIx(0),
        item: Some(text(r#"{"file":"src/a.js"}"#)),
        touches: Arc::from([text("src/parser/**")]),
        depends_on: Box::new([Dependency {
            task: TaskIx(7),
            condition: Condition::Merged,
        }]),
    }
}

fn footprint() -> supervisor_core::facts::Footprint {
    supervisor_core::facts::Footprint {
        memory_peak_bytes: 48 << 20,
        cpu_ms: 1_250,
    }
}

fn usage() -> Usage {
    Usage {
        turns: 3,
        tokens: 12_345,
        cost_micros: 67_890,
    }
}

fn result() -> Arc<RunResult> {
    Arc::new(RunResult {
        status: ResultStatus::Failed,
        class: Some(Class::VerifyFailed),
        summary: "2 of 10 tests fail".to_owned(),
        exit_code: Some(101),
        signal: None,
        reset_at_ms: None,
        session: Some("s-1".to_owned()),
        usage: usage(),
        family: None,
        evidence: "assertion failed".to_owned(),
        artifacts: vec!["report/index.html".to_owned()],
        verdict: Some(Verdict::Revise),
        git: Some(Box::new(GitOutcome::Salvaged(Salvaged {
            reference: salvage().reference.as_ref().to_owned(),
            commit: salvage().commit,
            files: 7,
            bytes: 4_096,
            skipped: vec!["run/socket".to_owned()],
        }))),
    })
}

fn capabilities() -> Capabilities {
    Capabilities {
        steer: SteerReach::Boundary,
        receipt: Receipt::Seen,
        interrupt: true,
        resume: true,
        questions: false,
        usage: true,
        cost: false,
    }
}

/// The name of a variant; a new variant does not compile until it is named, and then the test that
/// counts the golden lines asks for a line of its own.
pub(super) fn name(record: &Record) -> &'static str {
    match record {
        Record::BatchCreated(_) => "batch_created",
        Record::PlanExtended { .. } => "plan_extended",
        Record::PlanClosed => "plan_closed",
        Record::PlanRevised(_) => "plan_revised",
        Record::TaskRevised { .. } => "task_revised",
        Record::TaskRemoved { .. } => "task_removed",
        Record::SupervisorStarted { .. } => "supervisor_started",
        Record::SupervisorReplaced { .. } => "supervisor_replaced",
        Record::ClockGap { .. } => "clock_gap",
        Record::BatchMoved { .. } => "batch_moved",
        Record::TaskMoved { .. } => "task_moved",
        Record::AttemptStarted(_) => "attempt_started",
        Record::RunIntended { .. } => "run_intended",
        Record::RunSpawned { .. } => "run_spawned",
        Record::RunStarted { .. } => "run_started",
        Record::StopDecided { .. } => "stop_decided",
        Record::RunFinished { .. } => "run_finished",
        Record::RunEnded { .. } => "run_ended",
        Record::RunReconciled { .. } => "run_reconciled",
        Record::AttemptEnded(_) => "attempt_ended",
        Record::TaskEnded { .. } => "task_ended",
        Record::Reopened { .. } => "reopened",
        Record::MessageQueued { .. } => "message_queued",
        Record::MessageMoved { .. } => "message_moved",
        Record::QuestionOpened { .. } => "question_opened",
        Record::QuestionMoved { .. } => "question_moved",
        Record::AccountMoved { .. } => "account_moved",
        Record::UsageNoted { .. } => "usage_noted",
        Record::RoundBegan { .. } => "round_began",
        Record::RoundMoved { .. } => "round_moved",
        Record::RoundEnded { .. } => "round_ended",
        Record::MergeMoved { .. } => "merge_moved",
        Record::CleanMoved { .. } => "clean_moved",
        Record::CleanEnded { .. } => "clean_ended",
        Record::CommentMoved { .. } => "comment_moved",
        Record::ConcurrencySet { .. } => "concurrency_set",
    }
}

/// How many variants there are.
pub(super) const RECORDS: usize = 36;

/// One record of every variant, in the order of the enum.
pub(super) fn records() -> Vec<Record> {
    let mut all = plan_records();
    all.extend(run_records());
    all.extend(talk_records());
    all.extend(delivery_records());
    all.push(Record::ConcurrencySet { concurrency: 8 });
    all
}

fn plan_records() -> Vec<Record> {
    vec![
        Record::BatchCreated(Box::new(BatchCreated {
            id: "nightly-20260101-000000-ab12".parse().unwrap(),
            seed: u64::MAX,
            settings: settings(),
            agents: vec![agent()],
            accounts: vec![account()],
            repos: vec![repo_spec()],
        })),
        Record::PlanExtended {
            specs: vec![Arc::new(spec())],
            tasks: vec![planned()],
        },
        Record::PlanClosed,
        Record::PlanRevised(Box::new(PlanRevised {
            revision: 1,
            settings: settings(),
            agents: vec![agent()],
            accounts: vec![account()],
            repos: vec![repo_spec()],
        })),
        Record::TaskRevised {
            task: TaskIx(3),
            rules: rules(),
        },
        Record::TaskRemoved { task: TaskIx(4) },
        Record::SupervisorStarted {
            term: 2,
            identity: identity(),
            guardian: Some(identity()),
            build: text("0.1.0"),
        },
        Record::SupervisorReplaced {
            build: text("0.2.0"),
        },
        Record::ClockGap {
            gap: Duration::from_secs(3_600),
        },
        Record::BatchMoved {
            to: BatchState::Paused,
            reason: BatchReason::Limit(BatchLimit::Cost),
        },
        Record::TaskMoved {
            task: TaskIx(3),
            to: TaskState::Blocked,
            reason: TaskReason::Touches(TaskIx(2)),
            next_check: Some(Deadline::Wall(Wall(1_767_225_700_000))),
        },
    ]
}

fn run_records() -> Vec<Record> {
    let generation = Generation(9);
    vec![
        Record::AttemptStarted(AttemptStarted {
            task: TaskIx(3),
            attempt: AttemptNo(2),
            slot: 1,
            mode: RetryMode::NewSession,
            step: Step::Provision,
            generation,
            token: u128::MAX,
            probe: true,
        }),
        Record::RunIntended {
            generation,
            task: TaskIx(3),
            purpose: Purpose::Merge(RepoIx(0), Stage::Verify),
            token: 1,
        },
        Record::RunSpawned {
            generation,
            identity: identity(),
            containment: Containment {
                layers: Layer::ALL.iter().copied().collect(),
                leaf: Some(text("/sys/fs/cgroup/supervisor/leaf")),
                memory: Some(protocol::command::Keeper::Cgroup),
            },
        },
        Record::RunStarted {
            generation,
            capabilities: capabilities(),
            session: Some(text("s-1")),
        },
        Record::StopDecided {
            generation,
            reason: StopReason::NoProgress,
            grace: Duration::from_secs(10),
        },
        Record::RunFinished {
            generation,
            result: result(),
        },
        Record::RunEnded {
            generation,
            exit: Exit::Signal(9),
            injected: vec![MessageId(1), MessageId(2)],
            cleared: Cleared::Clean { killed: 3 },
            footprint: footprint(),
        },
        Record::RunReconciled {
            generation,
            letter: Letter::D,
            cleared: Cleared::Residual {
                killed: 2,
                left: vec![Leftover {
                    pid: 77,
                    start_ticks: 1234,
                    why: text("env_tag"),
                }],
            },
        },
        Record::AttemptEnded(AttemptEnded {
            task: TaskIx(3),
            attempt: AttemptNo(2),
            class: Some(Class::VerifyFailed),
            consumed: true,
            detail: text("`cargo test` exited with 101"),
            next: Next::Retry {
                mode: RetryMode::Resume,
                at: Some(Deadline::Boot(Boot(99_000))),
            },
            model: Some(1),
        }),
        Record::TaskEnded {
            task: TaskIx(3),
            to: TaskState::Failed,
            reason: TaskReason::Failed(Class::VerifyFailed),
        },
        Record::Reopened {
            task: TaskIx(3),
            mode: RetryMode::Fresh,
            attempts: Some(5),
        },
    ]
}

fn talk_records() -> Vec<Record> {
    let generation = Generation(9);
    vec![
        Record::MessageQueued {
            id: MessageId(4),
            task: TaskIx(3),
            mode: SteerMode::Boundary,
            text: text("look at the lexer first"),
            expires: Some(Wall(1_767_225_700_000)),
            from: Some(TaskIx(1)),
        },
        Record::MessageMoved {
            id: MessageId(4),
            to: MessageState::Injected,
            generation: Some(generation),
        },
        Record::QuestionOpened {
            id: QuestionId(5),
            task: TaskIx(3),
            generation,
            text: text("delete the old API?"),
            options: vec![text("yes"), text("no")],
            deadline: Deadline::Boot(Boot(99_000)),
        },
        Record::QuestionMoved {
            id: QuestionId(5),
            to: QuestionState::Answered,
            answer: Some(text("no")),
        },
        Record::AccountMoved {
            account: AccountIx(0),
            to: AccountState::Limited,
            reason: AccountReason::Class(Class::UsageLimit),
            until: Some(Deadline::Wall(Wall(1_767_225_900_000))),
        },
        Record::UsageNoted {
            generation,
            usage: usage(),
        },
    ]
}

fn delivery_records() -> Vec<Record> {
    let (repo, task) = (RepoIx(0), TaskIx(3));
    vec![
        Record::RoundBegan {
            repo,
            stage: Stage::Merge,
            tasks: vec![task, TaskIx(5)],
        },
        Record::RoundMoved {
            repo,
            stage: Stage::Checkout,
            tip: Some(oid('b')),
            commits: vec![(task, oid('c')), (TaskIx(5), oid('d'))],
            good: 1,
            bad: Some(2),
            detail: text("`cargo test` exited with 101"),
        },
        Record::RoundEnded { repo, share: None },
        Record::MergeMoved {
            task,
            to: MergeState::Merged,
            merged: Some(oid('c')),
            detail: text("it held it already"),
        },
        Record::CleanMoved {
            task,
            step: CleanStep::Remove,
            kept: Some(salvage()),
        },
        Record::CleanEnded {
            task,
            removed: true,
            detail: text("4096 bytes freed"),
        },
        Record::CommentMoved {
            task,
            on: CommentOn::Question(QuestionId(3)),
            to: CommentState::Queued,
            at: Some(Deadline::Wall(Wall(1_767_225_609_000))),
            detail: text("network: can not reach github.com"),
        },
    ]
}

/// A state with one of everything, as of record `seq`.
pub(super) fn facts(seq: u64) -> Facts {
    Facts {
        batch: batch(seq),
        agents: vec![agent()],
        accounts: vec![Account {
            spec: account(),
            state: AccountState::Limited,
            reason: Some(AccountReason::Class(Class::UsageLimit)),
            until: Some(Deadline::Wall(Wall(1_767_225_900_000))),
            limited: 2,
        }],
        repos: vec![repo()],
        specs: vec![Arc::new(spec())],
        tasks: vec![quiet_task(), live_task()],
        runs: BTreeMap::from([(Generation(9), run())]),
        messages: BTreeMap::from([(MessageId(4), message())]),
        questions: BTreeMap::from([(QuestionId(5), question())]),
    }
}

fn batch(seq: u64) -> Batch {
    Batch {
        id: "nightly-20260101-000000-ab12".parse().unwrap(),
        state: BatchState::Running,
        reason: BatchReason::TaskFailed(TaskIx(1)),
        created: Wall(1_767_225_600_000),
        now: now(seq),
        term: 2,
        supervisor: Some(identity()),
        guardian: Some(identity()),
        seq,
        seed: 42,
        settings: settings(),
        plan_closed: true,
        last_generation: Generation(9),
        last_message: MessageId(4),
        last_question: QuestionId(5),
        usage: usage(),
        ran: Duration::from_millis(12_345),
        running_since: Some(Boot(60_000)),
        spawn_failures: 1,
        revision: 2,
        lanes: Some(8),
        stop_grade: Some(supervisor_core::input::StopStage::Drain),
    }
}

fn rules() -> Rules {
    let planned = planned();
    Rules {
        spec: SpecIx(1),
        item: planned.item,
        touches: planned.touches,
        depends_on: planned.depends_on,
    }
}

/// A task as nearly all tasks of a large batch are.
fn quiet_task() -> Task {
    Task {
        id: "lexer".parse().unwrap(),
        spec: SpecIx(0),
        item: None,
        touches: Arc::from([]),
        depends_on: Box::new([]),
        state: TaskState::Pending,
        reason: TaskReason::New,
        since: Wall(1_767_225_600_000),
        next_check: None,
        epoch: 0,
        attempts: AttemptNo(0),
        consumed: 0,
        attempts_max: None,
        lost: 0,
        free_retries: 0,
        overloads: 0,
        model: 0,
        attempt: None,
        mode: RetryMode::Resume,
        session: None,
        last: None,
        usage: Usage::default(),
        usage_before: Usage::default(),
        hold: false,
        revised: None,
        removed: false,
        worktree: None,
        salvaged: Vec::new(),
        merge: None,
        clean: None,
        comments: Vec::new(),
    }
}

fn repo() -> Repo {
    Repo {
        spec: repo_spec(),
        round: Some(Round {
            verify: true,
            stage: Stage::Verify,
            run: Some(Generation(9)),
            runs: 1,
            tasks: vec![TaskIx(0), TaskIx(1)],
            tip: Some(oid('b')),
            commits: vec![(TaskIx(0), oid('c')), (TaskIx(1), oid('d'))],
            good: 1,
            bad: Some(2),
            detail: text("`cargo test` exited with 101"),
        }),
    }
}

fn live_task() -> Task {
    let planned = planned();
    Task {
        id: planned.id,
        item: planned.item,
        touches: planned.touches,
        depends_on: planned.depends_on,
        state: TaskState::Waiting,
        reason: TaskReason::Question(QuestionId(5)),
        next_check: Some(Deadline::Boot(Boot(99_000))),
        epoch: 1,
        attempts: AttemptNo(2),
        consumed: 1,
        attempts_max: Some(5),
        lost: 1,
        free_retries: 2,
        overloads: 1,
        model: 1,
        attempt: Some(Attempt {
            no: AttemptNo(2),
            state: AttemptState::Proving,
            slot: 3,
            mode: RetryMode::NewSession,
            run: Generation(9),
            deadline: Boot(7_250_000),
            result: Some(result()),
            probe: false,
            step: Step::Commit,
            step_runs: 1,
            step_done: true,
            commit: Some(oid('e')),
            files: 12,
            rounds: 1,
            verdict: Some(Verdict::Revise),
            notes: Some(text("name the constant")),
            waiting_since: Some(Boot(88_000)),
            work: Some(text("{\"file\":\"batch.yml\"}")),
            footprint: footprint(),
        }),
        mode: RetryMode::Fresh,
        session: Some(text("s-1")),
        last: Some(Box::new(Outcome {
            attempt: AttemptNo(1),
            class: Some(Class::Crash),
            detail: text("died by signal 11"),
            summary: text(""),
            footprint: footprint(),
        })),
        usage: usage(),
        usage_before: Usage {
            turns: 1,
            ..Usage::default()
        },
        hold: true,
        revised: Some(Box::new(rules())),
        removed: true,
        worktree: Some(Worktree {
            base: oid('b'),
            hooked: true,
            going: true,
            commit: Some(oid('e')),
        }),
        salvaged: vec![salvage()],
        merge: Some(Merge {
            state: MergeState::Parked,
            since: Wall(1_767_225_605_000),
            commit: oid('e'),
            merged: Some(oid('c')),
            tries: 2,
            disproved: true,
            share: None,
            trouble: text("its merge broke the proof: `cargo test` exited with 101"),
            detail: text("conflicts with bbbbbbbbbbbb in: src/a.rs"),
        }),
        clean: Some(Clean {
            step: CleanStep::Salvage,
            run: Some(Generation(9)),
            runs: 2,
            kept: Some(salvage()),
        }),
        comments: vec![Comment {
            on: CommentOn::Failed,
            attempt: AttemptNo(2),
            state: CommentState::Posting,
            run: Some(Generation(10)),
            runs: 2,
            at: None,
        }],
        ..quiet_task()
    }
}

fn run() -> Run {
    Run {
        task: TaskIx(1),
        attempt: AttemptNo(2),
        purpose: Purpose::Step(Step::Work),
        state: RunState::Stopping,
        token: 0xfeed,
        identity: Some(identity()),
        containment: Containment::default(),
        capabilities: Some(capabilities()),
        stop: Some((StopReason::Timeout, Boot(70_000))),
        result: Some(result()),
        usage: usage(),
        unresolved: true,
    }
}

fn message() -> Message {
    Message {
        task: TaskIx(1),
        mode: SteerMode::After,
        text: text("look at the lexer first"),
        expires: Some(Wall(1_767_225_700_000)),
        from: Some(TaskIx(3)),
        state: MessageState::Sent,
        generation: Some(Generation(9)),
        rungs: vec![
            (MessageState::Queued, Wall(1_767_225_601_000)),
            (MessageState::Sent, Wall(1_767_225_602_000)),
        ],
    }
}

fn question() -> Question {
    Question {
        task: TaskIx(1),
        generation: Generation(9),
        text: text("delete the old API?"),
        options: vec![text("yes"), text("no")],
        asked: Wall(1_767_225_603_000),
        deadline: Deadline::Wall(Wall(1_767_240_000_000)),
        state: QuestionState::Open,
        answer: None,
    }
}
