//! Stories that the simulator found, each named after the rule that was broken.
#![expect(clippy::unwrap_used, reason = "a story fails where it can not go on")]

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::ids::Generation;
use protocol::report::{
    Capabilities, Event, Receipt, ResultStatus, RunResult, Started, SteerReach, Usage,
};
use supervisor_core::core::{Core, Turn};
use supervisor_core::effect::{Effect, Ending};
use supervisor_core::identity::{Exit, Identity};
use supervisor_core::input::{Created, Input, OperatorCommand, ReplyId, StopStage};
use supervisor_core::machine::TaskState;
use supervisor_core::plan::{
    AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume, Comments, Condition,
    Dependency, Hooks, Keep, Limits, OnFailure, OnQuestion, Plan, PlannedTask, RetryMode,
    RetryPolicy, Settings, SpecIx, TaskIx, TaskSpec,
};
use supervisor_core::reason::TaskReason;
use supervisor_core::reconcile::{ProcessFact, ResultFact, RunFacts};
use supervisor_core::record::{Next, Record, StopReason};
use supervisor_core::time::{Boot, BootId, Now, Wall};

const FIRST: TaskIx = TaskIx(0);
const SECOND: TaskIx = TaskIx(1);
const TIMEOUT: Duration = Duration::from_secs(3600);

fn plan(tasks: &[&[Dependency]], verify: bool) -> Plan {
    let spec = TaskSpec {
        agent: AgentIx(0),
        attempts: 1,
        timeout: TIMEOUT,
        silence: TIMEOUT,
        no_progress: TIMEOUT,
        priority: 0,
        verify,
        worktree: None,
        changes: false,
        review: None,
        fetch: false,
        comments: Comments::default(),
        hooks: Hooks::default(),
        retry: RetryPolicy {
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(1),
            by_class: [].into(),
        },
        limits: Limits::default(),
        memory_max: None,
        not_before: None,
        on_question: OnQuestion::Wait,
        question_timeout: TIMEOUT * 100,
        containment: supervisor_core::containment::Wish::Auto,
        work: "{}".into(),
    };
    let settings = Settings {
        name: "story".into(),
        concurrency: 4,
        on_failure: OnFailure::SkipDependents,
        max_failures: None,
        not_before: None,
        until: None,
        limits: Limits::default(),
        lost_max: 25,
        keep: Keep::All,
        work: "{}".into(),
    };
    let agent = AgentSpec {
        name: "agent".into(),
        kind: AgentKind::Scripted,
        account: AccountIx(0),
        concurrency: None,
        models: Vec::new(),
        work: "{}".into(),
    };
    let account = AccountSpec {
        name: "main".into(),
        concurrency: None,
        auto_resume: AutoResume::Always,
    };
    let task = |(at, depends_on): (usize, &&[Dependency])| PlannedTask {
        id: format!("t{at}").parse().unwrap(),
        spec: SpecIx(0),
        item: None,
        touches: Arc::new([]),
        depends_on: (*depends_on).into(),
    };
    let tasks = tasks.iter().enumerate().map(task).collect();
    Plan {
        settings,
        agents: vec![agent],
        accounts: vec![account],
        repos: Vec::new(),
        specs: vec![Arc::new(spec)],
        tasks,
    }
}

fn on_first(condition: Condition) -> Dependency {
    Dependency {
        task: FIRST,
        condition,
    }
}

fn well() -> RunResult {
    RunResult {
        status: ResultStatus::Ok,
        class: None,
        summary: String::new(),
        exit_code: Some(0),
        signal: None,
        reset_at_ms: None,
        session: None,
        usage: Usage::default(),
        family: None,
        evidence: String::new(),
        artifacts: Vec::new(),
        verdict: None,
        git: None,
    }
}

fn failed(class: Class) -> RunResult {
    RunResult {
        status: ResultStatus::Failed,
        class: Some(class),
        ..well()
    }
}

/// One batch under a clock of the story's own, with a second core that only replays.
struct Story {
    core: Core,
    replayed: Core,
    now: Now,
    last: Turn,
}

impl Story {
    fn begin(plan: Plan, only: &[TaskIx]) -> Story {
        let now = Now {
            wall: Wall(1_000_000),
            boot: Boot(1_000),
            boot_id: BootId(1),
        };
        let (core, replayed) = (Core::new(), Core::new());
        let mut story = Story {
            core,
            replayed,
            now,
            last: Turn::default(),
        };
        let id = "story".parse().unwrap();
        story.input(Input::Created(Box::new(Created {
            id,
            seed: 1,
            plan,
            only: only.to_vec(),
        })));
        story.take_over(Vec::new());
        story.input(Input::Tick);
        story
    }

    fn take_over(&mut self, runs: Vec<(Generation, RunFacts)>) {
        let supervisor = self.identity();
        self.input(Input::Recovered {
            supervisor,
            guardian: None,
            build: "0.1.0".into(),
            runs,
        });
    }

    fn identity(&self) -> Identity {
        Identity {
            node: "node".into(),
            pid_namespace: 1,
            boot_id: self.now.boot_id,
            pid: 7,
            start_ticks: 1,
            pidfs_inode: None,
            session: None,
        }
    }

    fn input(&mut self, input: Input) {
        self.last = self.core.handle(self.now, input);
        assert!(self.last.defects.is_empty(), "{:?}", self.last.defects);
        for entry in &self.last.entries {
            self.replayed.replay(entry).unwrap();
        }
        assert_eq!(
            self.core.facts(),
            self.replayed.facts(),
            "replay equals the live state"
        );
    }

    fn wait(&mut self, length: Duration) {
        self.now.wall = self.now.wall + length;
        self.now.boot = self.now.boot + length;
        self.input(Input::Tick);
    }

    fn command(&mut self, command: OperatorCommand) {
        self.input(Input::Operator {
            reply: ReplyId(1),
            command,
        });
    }

    fn run_of(&self, task: TaskIx) -> Generation {
        self.core.facts().unwrap().tasks[task.0 as usize]
            .attempt
            .as_ref()
            .unwrap()
            .run
    }

    fn begin_run(&mut self, task: TaskIx) -> Generation {
        let generation = self.run_of(task);
        let identity = self.identity();
        self.input(Input::HostSpawned {
            generation,
            identity,
            containment: Default::default(),
        });
        self.input(Input::HostGreeted { generation });
        let capabilities = Capabilities {
            steer: SteerReach::Boundary,
            receipt: Receipt::Seen,
            interrupt: true,
            resume: true,
            questions: true,
            usage: true,
            cost: true,
        };
        let event = Event::Started(Started {
            capabilities,
            session: None,
        });
        self.input(Input::HostReported {
            generation,
            claimed: generation,
            event,
        });
        generation
    }

    fn exit(&mut self, generation: Generation, exit: Exit, durable: Option<RunResult>) {
        let durable = durable.map(Box::new);
        self.input(Input::HostExited {
            generation,
            exit,
            durable,
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
            oom: None,
        });
    }

    fn end_run(&mut self, task: TaskIx, result: RunResult) {
        let generation = self.begin_run(task);
        self.exit(generation, Exit::Code(0), Some(result));
    }

    fn state(&self, task: TaskIx) -> (TaskState, TaskReason) {
        let task = &self.core.facts().unwrap().tasks[task.0 as usize];
        (task.state, task.reason)
    }

    fn stops(&self) -> Vec<StopReason> {
        let records = self.last.entries.iter().map(|entry| &entry.record);
        let stops = records.filter_map(|record| match record {
            Record::StopDecided { reason, .. } => Some(*reason),
            _any_other => None,
        });
        stops.collect()
    }
}

#[test]
fn sleep_counts_against_nobody_while_a_host_is_still_on_its_way() {
    let mut story = Story::begin(plan(&[&[]], false), &[]);
    story.wait(Duration::from_secs(1));
    let next = story.core.next_deadline().boot.unwrap();
    assert!(
        next <= story.now.boot + Duration::from_secs(15),
        "an open attempt keeps the clock watched"
    );
    story.wait(TIMEOUT * 6);
    assert_eq!(story.stops(), [], "six hours of sleep are no work");
    assert!(matches!(
        story.last.entries[0].record,
        Record::ClockGap { .. }
    ));
}

#[test]
fn a_kill_without_grace_leaves_no_deadline_in_the_past() {
    let mut story = Story::begin(plan(&[&[]], false), &[]);
    story.begin_run(FIRST);
    story.command(OperatorCommand::Kill {
        tasks: vec![FIRST],
        grace: Duration::ZERO,
    });
    assert!(matches!(story.last.urgent[..], [Effect::KillHost { .. }]));
    assert!(story.core.next_deadline().boot.unwrap() > story.now.boot);
}

#[test]
fn a_gap_after_a_grace_that_fired_replays_to_the_live_state() {
    let mut story = Story::begin(plan(&[&[]], false), &[]);
    story.begin_run(FIRST);
    story.command(OperatorCommand::Kill {
        tasks: vec![FIRST],
        grace: Duration::from_secs(2),
    });
    story.wait(Duration::from_secs(2));
    assert!(
        matches!(story.last.urgent[..], [Effect::KillHost { .. }]),
        "the grace is over"
    );
    // `input` compares the two states after the gap.
    story.wait(TIMEOUT);
    assert!(matches!(
        story.last.entries[0].record,
        Record::ClockGap { .. }
    ));
}

#[test]
fn a_checkpoint_leads_to_the_indexes_of_the_live_state() {
    let mut story = Story::begin(plan(&[&[], &[on_first(Condition::Finished)]], false), &[]);
    for task in [FIRST, SECOND] {
        let restored = Core::restore(story.core.facts().unwrap().clone());
        assert_eq!(restored.index(), story.core.index(), "before {task:?}");
        story.end_run(task, well());
    }
    let restored = Core::restore(story.core.facts().unwrap().clone());
    assert_eq!(restored.index(), story.core.index());
}

#[test]
fn what_the_operator_paused_stays_paused_when_the_batch_stops() {
    let mut story = Story::begin(plan(&[&[]], false), &[]);
    let generation = story.begin_run(FIRST);
    story.command(OperatorCommand::Pause {
        tasks: Some(vec![FIRST]),
        now: false,
    });
    story.command(OperatorCommand::Stop(StopStage::Stop));
    story.exit(generation, Exit::Signal(15), None);
    story.take_over(Vec::new());
    assert_eq!(
        story.state(FIRST),
        (TaskState::Paused, TaskReason::Operator)
    );
}

#[test]
fn what_the_operator_paused_stays_paused_when_its_account_opens_again() {
    let mut story = Story::begin(plan(&[&[]], false), &[]);
    let generation = story.begin_run(FIRST);
    story.command(OperatorCommand::Pause {
        tasks: Some(vec![FIRST]),
        now: false,
    });
    story.exit(generation, Exit::Code(0), Some(failed(Class::UsageLimit)));
    story.wait(Duration::from_secs(24 * 3600));
    assert_eq!(
        story.state(FIRST),
        (TaskState::Paused, TaskReason::Operator)
    );
}

#[test]
fn dependencies_come_first_also_for_a_task_that_runs_again() {
    let mut story = Story::begin(plan(&[&[], &[on_first(Condition::Finished)]], false), &[]);
    story.end_run(FIRST, failed(Class::AgentFailed));
    let lost = story.begin_run(SECOND);
    let mode = RetryMode::Resume;
    story.command(OperatorCommand::Retry {
        tasks: vec![FIRST],
        mode,
        attempts: None,
        note: None,
    });
    story.exit(lost, Exit::Signal(9), None);
    assert_eq!(
        story.state(SECOND),
        (TaskState::Blocked, TaskReason::Dependencies)
    );
    story.end_run(FIRST, well());
    assert_eq!(story.state(SECOND).0, TaskState::Running);
}

#[test]
fn a_held_task_whose_dependency_failed_meanwhile_is_skipped_not_blocked_for_ever() {
    let tasks: &[&[Dependency]] = &[&[], &[on_first(Condition::Done)]];
    let mut story = Story::begin(plan(tasks, false), &[SECOND]);
    let killed = story.begin_run(SECOND);
    let mode = RetryMode::Resume;
    story.command(OperatorCommand::Retry {
        tasks: vec![FIRST],
        mode,
        attempts: None,
        note: None,
    });
    story.command(OperatorCommand::Kill {
        tasks: vec![SECOND],
        grace: Duration::ZERO,
    });
    story.exit(killed, Exit::Signal(9), None);
    story.end_run(FIRST, failed(Class::AgentFailed));
    story.command(OperatorCommand::Resume {
        tasks: Some(vec![SECOND]),
    });
    assert_eq!(
        story.state(SECOND),
        (TaskState::Skipped, TaskReason::DependencyFailed(FIRST))
    );
}

#[test]
fn waiting_for_the_disk_between_work_and_proof_is_no_work() {
    let mut story = Story::begin(plan(&[&[]], true), &[]);
    let generation = story.begin_run(FIRST);
    story.input(Input::DiskFailed);
    story.exit(generation, Exit::Code(0), Some(well()));
    for _ in 0..400 {
        story.wait(Duration::from_secs(15));
    }
    story.input(Input::DiskRecovered);
    assert_eq!(story.state(FIRST).0, TaskState::Verifying);
    story.wait(Duration::from_secs(1));
    assert_eq!(story.stops(), []);
}

#[test]
fn the_wall_limit_of_an_attempt_that_waits_survives_a_reboot() {
    let mut story = Story::begin(plan(&[&[]], true), &[]);
    let generation = story.begin_run(FIRST);
    let (text, options, reply) = ("may I?".into(), Vec::new(), ReplyId(2));
    story.input(Input::HostAsked {
        generation,
        text,
        options,
        reply,
    });
    for _ in 0..100 {
        story.wait(Duration::from_secs(15));
    }
    story.now = Now {
        boot: Boot(20_000),
        boot_id: BootId(2),
        ..story.now
    };
    let (process, result) = (ProcessFact::Gone, ResultFact::Durable(Box::new(well())));
    story.take_over(vec![(
        generation,
        RunFacts {
            process,
            result,
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
        },
    )]);
    let task = &story.core.facts().unwrap().tasks[0];
    let deadline = task.attempt.as_ref().unwrap().deadline;
    let left = Duration::from_millis(deadline.0 - story.now.boot.0);
    assert_eq!(
        left, TIMEOUT,
        "the attempt waited all the time but for its first moment"
    );
    assert!(!story.last.entries.iter().any(|entry| matches!(
        &entry.record,
        Record::AttemptEnded(ended) if matches!(ended.next, Next::End { .. })
    )));
}

#[test]
fn a_batch_that_the_operator_paused_stays_paused_over_a_crash() {
    let mut story = Story::begin(plan(&[&[]], false), &[]);
    let generation = story.begin_run(FIRST);
    story.command(OperatorCommand::Pause {
        tasks: None,
        now: false,
    });
    let (process, result) = (ProcessFact::Gone, ResultFact::Absent);
    let facts = RunFacts {
        process,
        result,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
    };
    story.take_over(vec![(generation, facts)]);
    story.input(Input::Tick);
    assert_eq!(
        story.state(FIRST).0,
        TaskState::Ready,
        "lost, and not started again"
    );
    story.command(OperatorCommand::Resume { tasks: None });
    assert_eq!(story.state(FIRST).0, TaskState::Running);
}

#[test]
fn a_batch_that_stops_on_failure_stays_stopped_over_a_crash() {
    let mut plan = plan(&[&[], &[], &[on_first(Condition::Finished)]], false);
    plan.settings.on_failure = OnFailure::Stop;
    let mut story = Story::begin(plan, &[]);
    let generation = story.begin_run(SECOND);
    story.end_run(FIRST, failed(Class::AgentFailed));
    let (process, result) = (ProcessFact::Gone, ResultFact::Durable(Box::new(well())));
    let facts = RunFacts {
        process,
        result,
        injected: Vec::new(),
        cleared: supervisor_core::containment::Cleared::CLEAN,
    };
    story.take_over(vec![(generation, facts)]);
    story.input(Input::Tick);
    assert_eq!(story.state(SECOND).0, TaskState::Done);
    let untried = (TaskState::Skipped, TaskReason::BatchStopped);
    assert_eq!(story.state(TaskIx(2)), untried);
}

#[test]
fn a_cancel_holds_although_a_failed_proof_was_recorded_before_it() {
    let mut plan = plan(&[&[]], true);
    plan.specs = vec![Arc::new(TaskSpec {
        attempts: 3,
        ..(*plan.specs[0]).clone()
    })];
    let mut story = Story::begin(plan, &[]);
    story.end_run(FIRST, well());
    let proof = story.begin_run(FIRST);
    let event = Event::Result(Box::new(failed(Class::VerifyFailed)));
    story.input(Input::HostReported {
        generation: proof,
        claimed: proof,
        event,
    });
    story.command(OperatorCommand::Cancel {
        tasks: Some(vec![FIRST]),
    });
    story.exit(proof, Exit::Code(0), None);
    assert_eq!(
        story.state(FIRST),
        (TaskState::Cancelled, TaskReason::CancelledByOperator)
    );
}

#[test]
fn a_batch_in_which_nothing_starts_says_so_however_often_it_is_asked() {
    let mut story = Story::begin(plan(&[&[]], false), &[]);
    let ends = |story: &Story| {
        story.last.effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Finish {
                    ending: Ending::Environment
                }
            )
        })
    };
    for _ in 0..20 {
        if ends(&story) {
            break;
        }
        if story.state(FIRST).0 == TaskState::Running {
            let generation = story.run_of(FIRST);
            let error = "no such program".into();
            story.input(Input::SpawnFailed {
                class: protocol::class::Class::SpawnFailure,
                generation,
                error,
            });
        } else {
            story.wait(Duration::from_secs(5));
        }
    }
    assert!(ends(&story));
    story.wait(Duration::from_secs(1));
    assert!(
        ends(&story),
        "an end that waited for the disk is said again as it was"
    );
}
