//! Renderings of a batch whose facts are set by hand: the texts are what a person reads, so they
//! are written out in full.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;
use protocol::class::Class;
use protocol::git::{Committed, GitOutcome, Oid};
use protocol::ids::{AttemptNo, Generation, QuestionId};
use protocol::report::{ResultStatus, RunResult};
use serde_json::Value;
use supervisor_core::core::Core;
use supervisor_core::facts::{Facts, Merge, Outcome, Question, Repo, Round, Worktree};
use supervisor_core::identity::Identity;
use supervisor_core::input::{Created, Input};
use supervisor_core::machine::{AccountState, BatchState, MergeState, QuestionState, TaskState};
use supervisor_core::plan::{Condition, OnConflict, RepoIx, RepoSpec, TaskIx};
use supervisor_core::reason::{AccountReason, BatchLimit, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::{Entry, PlanRevised, Record};
use supervisor_core::step::{Purpose, Stage, Step};
use supervisor_core::time::{Boot, BootId, Deadline, Now, Wall};

use super::asked::needs_person;
use super::reason::{AccountWhy, BatchWhy, TaskWhy};
use super::status::{Beside, Filter, write_json};
use super::status_text::{write_ending, write_text};
use super::story::{self, About};
use super::time::LocalTime;
use super::{Guard, HostFact, Presence, View};
use crate::batch_file::{Request, Source, read};

pub(super) const NOON: i64 = 1_700_049_600_000;
const FILE: &str = "version: 1
name: nightly
isolation: none
concurrency: 1
tasks:
  - {id: lexer, run: make lexer}
  - {id: parser, run: make parser, depends_on: [lexer], verify: [make check]}
  - {id: docs, run: make docs, depends_on: [lexer, parser]}
";

/// Nothing integrated, nothing moved.
const BESIDE: Beside<'static, ()> = Beside {
    integrated: None,
    moved: &[],
};

pub(super) fn now() -> Now {
    Now {
        wall: Wall(NOON),
        boot: Boot(1_000_000),
        boot_id: BootId(7),
    }
}

pub(super) fn identity(pid: u32) -> Identity {
    Identity {
        node: "node".into(),
        pid_namespace: 1,
        boot_id: BootId(7),
        pid,
        start_ticks: 5,
        pidfs_inode: None,
        session: None,
    }
}

/// The batch right after its supervisor started: `lexer` runs, the others wait for it.
pub(super) fn story() -> (Facts, Vec<Entry>) {
    let request = Request {
        source: Source::Text {
            name: "batch.yml",
            bytes: FILE.as_bytes(),
        },
        current_dir: Path::new("/"),
        user_config: None,
        set: &[],
    };
    let plan = read(&request).expect("the file is valid").plan;
    let mut core = Core::new();
    let created = Created {
        id: "nightly-1".parse().unwrap(),
        seed: 1,
        plan,
        only: Vec::new(),
    };
    let mut entries = core
        .handle(now(), Input::Created(Box::new(created)))
        .entries;
    let recovered = Input::Recovered {
        supervisor: identity(41),
        guardian: None,
        build: "0".into(),
        runs: Vec::new(),
    };
    entries.extend(core.handle(now(), recovered).entries);
    entries.extend(core.handle(now(), Input::Tick).entries);
    (core.facts().unwrap().clone(), entries)
}

pub(super) fn facts() -> Facts {
    story().0
}

pub(super) fn view(facts: &Facts, alive: bool) -> View<'_> {
    View {
        facts,
        presence: Presence {
            pid: Some(41),
            alive,
            recovering: false,
        },
        guard: None,
        hosts: BTreeMap::new(),
        activity: BTreeMap::new(),
        time: LocalTime {
            now: Wall(NOON + 90_000),
            zone: TimeZone::UTC,
        },
        dir: "/state/nightly-1",
        file: "batch.yml",
    }
}

pub(super) fn set(facts: &mut Facts, task: usize, state: TaskState, reason: TaskReason) {
    facts.tasks[task].state = state;
    facts.tasks[task].reason = reason;
}

pub(super) fn failed(facts: &mut Facts, task: usize, class: Class, detail: &str) {
    facts.tasks[task].attempts = AttemptNo(2);
    facts.tasks[task].consumed = 2;
    facts.tasks[task].attempt = None;
    facts.tasks[task].last = Some(Box::new(Outcome {
        attempt: AttemptNo(2),
        class: Some(class),
        detail: detail.into(),
        summary: "".into(),
        footprint: Default::default(),
    }));
}

fn why(facts: &Facts, task: usize) -> String {
    let view = view(facts, true);
    let task = &facts.tasks[task];
    TaskWhy { view: &view, task }.to_string()
}

#[test]
fn a_live_batch_reads_as_one_picture() {
    let facts = facts();
    let mut out = Vec::new();
    write_text(&view(&facts, true), &Filter::default(), false, &mut out).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "nightly-1  running  its supervisor works on it
  0 of 3 settled: 1 running, 2 blocked
  started 1m 30s ago, last record 1m 30s ago, supervisor pid 41
  files /state/nightly-1

TASK    STATE      ATTEMPT     SINCE  WHY
lexer   running          1    1m 30s  attempt 1 (try 1 of 3) works
parser  blocked          -    1m 30s  waits for lexer (running)
docs    blocked          -    1m 30s  waits for lexer (running), parser (blocked)
"
    );
}

#[test]
fn a_batch_whose_supervisor_is_gone_is_never_shown_as_moving() {
    let facts = facts();
    let view = view(&facts, false);
    assert_eq!(facts.batch.state, BatchState::Running);
    assert_eq!(view.batch_state(), BatchState::Interrupted);
    assert_eq!(
        BatchWhy { view: &view }.to_string(),
        "its supervisor (pid 41) is gone; `supervisor run batch.yml` goes on"
    );
    assert_eq!(view.task_state(&facts.tasks[0]), TaskState::Ready);
    assert_eq!(view.next_check(&facts.tasks[0]), None);
    assert_eq!(view.counts().of(TaskState::Running), 0);
    let task = &facts.tasks[0];
    let why = TaskWhy { view: &view, task }.to_string();
    assert!(why.starts_with("attempt 1 was cut off"), "{why}");
}

#[test]
fn a_host_that_outlives_its_supervisor_still_runs() {
    let facts = facts();
    let run = facts.tasks[0].attempt.as_ref().unwrap().run;
    let mut view = view(&facts, false);
    view.hosts.insert(run, HostFact::Lives(77));
    assert_eq!(view.task_state(&facts.tasks[0]), TaskState::Running);
    let task = &facts.tasks[0];
    let sentence = TaskWhy { view: &view, task }.to_string();
    assert!(
        sentence.contains("its host (pid 77) has no supervisor"),
        "{sentence}"
    );
    view.hosts.insert(run, HostFact::Foreign);
    let sentence = TaskWhy { view: &view, task }.to_string();
    assert!(sentence.contains("unknown from here"), "{sentence}");
}

#[test]
fn a_ready_task_waits_for_a_lane_or_for_a_supervisor() {
    let mut facts = facts();
    set(&mut facts, 0, TaskState::Ready, TaskReason::Lane);
    assert_eq!(why(&facts, 0), "waits for a lane; the batch has 1");
    let view = view(&facts, false);
    let task = &facts.tasks[0];
    assert_eq!(
        TaskWhy { view: &view, task }.to_string(),
        "waits for a supervisor: `supervisor run batch.yml` goes on with it"
    );
}

#[test]
fn a_failed_task_says_how_and_what_to_do() {
    let mut facts = facts();
    failed(
        &mut facts,
        0,
        Class::VerifyFailed,
        "make check exited with 2\nmore",
    );
    set(
        &mut facts,
        0,
        TaskState::Failed,
        TaskReason::Failed(Class::VerifyFailed),
    );
    set(
        &mut facts,
        1,
        TaskState::Skipped,
        TaskReason::DependencyFailed(TaskIx(0)),
    );
    assert_eq!(
        why(&facts, 0),
        "attempt 2 ended verify_failed (2 of 3 used): make check exited with 2; not tried again; \
         `supervisor retry nightly-1/lexer` tries it again"
    );
    assert_eq!(
        why(&facts, 1),
        "its dependency lexer ended failed; `supervisor retry nightly-1/lexer` tries both again"
    );
    assert!(needs_person(&facts.tasks[0]) && !needs_person(&facts.tasks[1]));
}

#[test]
fn a_backoff_names_the_time_of_the_next_attempt() {
    let mut facts = facts();
    failed(&mut facts, 0, Class::Crash, "signal 9");
    set(
        &mut facts,
        0,
        TaskState::Ready,
        TaskReason::Backoff(Class::Crash),
    );
    // The boot-time clock of the last record stands at 1,000 s, noon by the wall.
    facts.tasks[0].next_check = Some(Deadline::Boot(Boot(1_000_000 + 150_000)));
    assert_eq!(
        why(&facts, 0),
        "attempt 2 ended crash (2 of 3 used): signal 9; attempt 3 follows in 1m 00s (12:02:30)"
    );
}

#[test]
fn a_question_shows_its_text_options_and_command() {
    let mut facts = facts();
    let id = QuestionId(4);
    let question = Question {
        task: TaskIx(0),
        generation: Generation(1),
        text: "which port?".into(),
        options: vec!["80".into(), "8080".into()],
        asked: Wall(NOON),
        deadline: Deadline::Wall(Wall(NOON + 3_690_000)),
        state: QuestionState::Open,
        answer: None,
    };
    facts.questions.insert(id, question);
    set(&mut facts, 0, TaskState::Waiting, TaskReason::Question(id));
    assert_eq!(
        why(&facts, 0),
        "asks: which port? [80 | 8080]; `supervisor answer nightly-1/q4 TEXT`, expires in 1h 00m \
         (13:01:30)"
    );
}

#[test]
fn an_account_says_when_or_by_whom_it_goes_on() {
    let mut facts = facts();
    let account = &mut facts.accounts[0];
    account.spec.name = "main".into();
    account.state = AccountState::Limited;
    account.reason = Some(AccountReason::Class(Class::UsageLimit));
    account.until = Some(Deadline::Wall(Wall(NOON + 690_000)));
    let told = |facts: &Facts| {
        let view = view(facts, true);
        AccountWhy {
            view: &view,
            account: &facts.accounts[0],
        }
        .to_string()
    };
    assert_eq!(
        told(&facts),
        "account main is limited (usage_limit), tried again in 10m 00s (12:11:30)"
    );
    facts.accounts[0].state = AccountState::Stopped;
    assert_eq!(
        told(&facts),
        "account main is stopped (usage_limit); put that right, then `supervisor resume nightly-1`"
    );
}

#[test]
fn every_reason_of_a_task_is_a_sentence_of_one_line() {
    let mut facts = facts();
    failed(&mut facts, 0, Class::Crash, "signal 9");
    for reason in [
        TaskReason::New,
        TaskReason::Dependencies,
        TaskReason::Touches(TaskIx(1)),
        TaskReason::NotBefore,
        TaskReason::Lane,
        TaskReason::AccountLimited,
        TaskReason::AccountStopped,
        TaskReason::Working,
        TaskReason::Proving,
        TaskReason::Question(QuestionId(9)),
        TaskReason::Operator,
        TaskReason::Killed,
        TaskReason::Interrupted,
        TaskReason::Unresolved(Letter::G),
        TaskReason::NeedsOperator(Class::Auth),
        TaskReason::Proven,
        TaskReason::AsDone,
        TaskReason::Quarantined,
        TaskReason::SkippedByOperator,
        TaskReason::CancelledByOperator,
        TaskReason::BatchStopped,
        TaskReason::NotSelected,
        TaskReason::Removed,
        TaskReason::Reopened,
    ] {
        facts.tasks[0].reason = reason;
        let sentence = why(&facts, 0);
        assert!(
            sentence.len() > 8 && !sentence.contains('\n'),
            "{reason:?}: {sentence}"
        );
        assert_eq!(
            sentence.matches('`').count() % 2,
            0,
            "{reason:?}: {sentence}"
        );
    }
}

#[test]
fn a_paused_batch_says_what_lets_it_go_on() {
    let mut facts = facts();
    facts.batch.state = BatchState::Paused;
    facts.batch.reason = BatchReason::Limit(BatchLimit::Cost);
    let told = |alive| {
        BatchWhy {
            view: &view(&facts, alive),
        }
        .to_string()
    };
    assert_eq!(
        told(true),
        "`limits.cost_usd` of the batch file is reached; raise it, then \
         `supervisor resume nightly-1`"
    );
    assert!(told(false).ends_with("no supervisor works on it: `supervisor run batch.yml` goes on"));
}

pub(super) fn keys(value: &Value) -> String {
    let mut keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys.join(" ")
}

#[test]
fn the_keys_of_status_are_those_of_the_manual() {
    let facts = facts();
    let mut out = Vec::new();
    write_json(&view(&facts, true), &BESIDE, &Filter::default(), &mut out).unwrap();
    let status: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(keys(&status), "batch tasks");
    assert_eq!(
        keys(&status["batch"]),
        "counts dir guardian id integrated moved name reason started state supervisor updated usage"
    );
    assert_eq!(status["batch"]["guardian"], Value::Null, "it has none");
    assert_eq!(keys(&status["batch"]["supervisor"]), "alive pid recovering");
    assert_eq!(
        keys(&status["tasks"][0]),
        "agent attempt attempts_max branch commit depends_on family id merge merge_detail merged \
         next_check outcome question reason review salvaged since state usage worktree"
    );
    assert_eq!(status["batch"]["started"], "2023-11-15T12:00:00.000Z");
    assert_eq!(status["batch"]["counts"]["blocked"], 2);
    assert_eq!(
        status["tasks"][2]["depends_on"],
        serde_json::json!(["lexer", "parser"])
    );
}

#[test]
fn status_says_who_starts_the_supervisor_again() {
    let facts = facts();
    let head = |alive, guard| {
        let view = View {
            guard: Some(Guard {
                pid: 7,
                alive: guard,
            }),
            ..view(&facts, alive)
        };
        let mut out = Vec::new();
        write_text(&view, &Filter::default(), false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(head(true, true).contains("supervisor pid 41, guardian pid 7\n"));
    assert!(head(true, false).contains("(pid 7) is gone: nobody starts it again"));
    assert!(head(false, true).contains("no supervisor now: guardian pid 7 starts one"));
    assert!(!head(false, false).contains("guardian"));
}

#[test]
fn a_filter_shows_only_what_was_asked_for() {
    let mut facts = facts();
    set(&mut facts, 1, TaskState::Paused, TaskReason::Operator);
    let view = view(&facts, true);
    let ids = |filter: &Filter| {
        let wanted = facts.tasks.iter().filter(|task| filter.wants(&view, task));
        wanted.map(|task| task.id.to_string()).collect::<Vec<_>>()
    };
    let needs_me = Filter {
        needs_me: true,
        ..Filter::default()
    };
    assert_eq!(ids(&needs_me), ["parser"]);
    let blocked = Filter {
        states: vec![TaskState::Blocked, TaskState::Running],
        ..Filter::default()
    };
    assert_eq!(ids(&blocked), ["lexer", "docs"]);
    assert_eq!(ids(&Filter::default()).len(), 3);
}

#[test]
fn a_long_list_is_cut_behind_what_matters() {
    let mut facts = facts();
    let model = facts.tasks[2].clone();
    for number in 0..100 {
        let mut task = model.clone();
        task.id = format!("more-{number}").parse().unwrap();
        facts.tasks.push(task);
    }
    let shown = |all: bool| {
        let mut out = Vec::new();
        write_text(&view(&facts, true), &Filter::default(), all, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let short = shown(false);
    assert!(
        short.ends_with("... and 82 more; `--all` shows them\n"),
        "{short}"
    );
    assert!(
        short.lines().nth(6).unwrap().starts_with("lexer"),
        "{short}"
    );
    assert_eq!(shown(true).lines().count(), 6 + 103);
}

#[test]
fn the_end_of_a_run_names_failures_files_and_what_next() {
    let mut facts = facts();
    failed(&mut facts, 0, Class::AgentFailed, "make exited with 2");
    set(
        &mut facts,
        0,
        TaskState::Failed,
        TaskReason::Failed(Class::AgentFailed),
    );
    for task in [1, 2] {
        set(
            &mut facts,
            task,
            TaskState::Skipped,
            TaskReason::DependencyFailed(TaskIx(0)),
        );
    }
    facts.batch.state = BatchState::Failed;
    facts.batch.reason = BatchReason::Settled;
    let mut out = Vec::new();
    let report = Path::new("/state/nightly-1/report.md");
    write_ending(&view(&facts, false), Some(report), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        lines[0],
        "nightly-1  failed  every task is settled: 2 skipped, 1 failed"
    );
    assert!(
        lines[5].starts_with("  lexer failed: attempt 2 ended agent_failed"),
        "{text}"
    );
    assert_eq!(lines[4], "  report /state/nightly-1/report.md");
    assert_eq!(
        lines[6..],
        [
            "next:",
            "  supervisor status nightly-1 --all",
            "  supervisor logs nightly-1/lexer",
            "  supervisor explain nightly-1/lexer",
            "  supervisor run batch.yml --retry-failed",
        ]
    );
}

#[test]
fn every_record_is_a_line_about_the_batch_or_its_task() {
    let (_, entries) = story();
    let mut core = Core::new();
    let mut told = Vec::new();
    for entry in &entries {
        let line = story::line(core.facts(), entry);
        let about = match line.about {
            About::Batch => "batch".to_owned(),
            About::Task(ix) => format!("task {}", ix.0),
            About::Round(tasks) => format!("round of {}", tasks.len()),
        };
        told.push(format!("{about}: {}: {}", line.record, line.text));
        core.replay(entry).unwrap();
    }
    assert_eq!(told[0], "batch: batch_created: batch nightly-1 was created");
    assert_eq!(told[1], "batch: plan_extended: 3 tasks were planned");
    assert!(
        told.contains(
            &"batch: supervisor_started: supervisor pid 41 took over (term 1)".to_owned()
        )
    );
    assert!(
        told.contains(
            &"task 0: attempt_started: attempt 1 began in lane 0 (fresh, run 1)".to_owned()
        )
    );
    let skipped = Entry {
        record: Record::TaskEnded {
            task: TaskIx(1),
            to: TaskState::Skipped,
            reason: TaskReason::DependencyFailed(TaskIx(0)),
        },
        ..entries[0].clone()
    };
    let line = story::line(core.facts(), &skipped);
    assert_eq!(line.about, About::Task(TaskIx(1)));
    assert_eq!(line.text, "skipped: lexer was not done");
}

/// What an edited batch file did to a task is in its story, also where it has to wait.
#[test]
fn a_revision_is_told_of_the_batch_and_of_each_task() {
    let facts = facts();
    let rules = facts.tasks[0].rules();
    let line = |record| {
        let entry = Entry {
            record,
            ..story().1[0].clone()
        };
        let line = story::line(Some(&facts), &entry);
        (line.about, line.text)
    };
    let revised = |task: u32| Record::TaskRevised {
        task: TaskIx(task),
        rules: rules.clone(),
    };
    let waits = "takes the rules of the edited batch file with its next attempt";
    assert_eq!(
        line(revised(0)),
        (About::Task(TaskIx(0)), waits.to_owned()),
        "it runs"
    );
    let took = "took the rules of the edited batch file";
    assert_eq!(line(revised(1)), (About::Task(TaskIx(1)), took.to_owned()));
    let gone = Record::TaskRemoved { task: TaskIx(1) };
    let said = "the batch file no longer has it";
    assert_eq!(line(gone), (About::Task(TaskIx(1)), said.to_owned()));
    let plan = Record::PlanRevised(Box::new(PlanRevised {
        revision: 2,
        settings: facts.batch.settings.clone(),
        agents: Vec::new(),
        accounts: Vec::new(),
        repos: Vec::new(),
    }));
    let said = "took the edited batch file (revision 2)";
    assert_eq!(line(plan), (About::Batch, said.to_owned()));
}

#[test]
fn texts_of_agents_are_cut_to_their_first_line() {
    let mut facts = facts();
    set(&mut facts, 0, TaskState::Done, TaskReason::Proven);
    facts.tasks[0].last = Some(Box::new(Outcome {
        attempt: AttemptNo(1),
        class: None,
        detail: "".into(),
        summary: Arc::from("\n  it works\nreally"),
        footprint: Default::default(),
    }));
    assert_eq!(why(&facts, 0), "done by attempt 1: it works");
}

pub(super) fn oid(digit: char) -> Oid {
    Oid::try_from(digit.to_string().repeat(40)).unwrap()
}

/// A merge of `lexer`, which is done.
pub(super) fn with_merge(state: MergeState, detail: &str) -> Facts {
    let mut facts = facts();
    set(&mut facts, 0, TaskState::Done, TaskReason::Proven);
    facts.tasks[0].worktree = Some(Worktree {
        base: oid('a'),
        hooked: false,
        going: false,
        commit: Some(oid('b')),
    });
    let spec = &mut facts.specs[facts.tasks[0].spec.0 as usize];
    Arc::make_mut(spec).worktree = Some(RepoIx(0));
    facts.tasks[0].merge = Some(Merge {
        state,
        since: Wall(NOON),
        commit: oid('b'),
        merged: (state == MergeState::Merged).then(|| oid('c')),
        tries: 0,
        disproved: false,
        share: None,
        trouble: "".into(),
        detail: detail.into(),
    });
    facts
}

#[test]
fn a_parked_merge_says_what_it_conflicts_with_and_what_to_do() {
    let facts = with_merge(
        MergeState::Parked,
        "conflicts with aaaaaaaaaaaa in: src/a.rs",
    );
    let (view, task) = (&view(&facts, true), &facts.tasks[0]);
    assert_eq!(
        TaskWhy { view, task }.to_string(),
        "done by attempt 1; its merge waits for the operator: conflicts with aaaaaaaaaaaa in: \
         src/a.rs; `supervisor retry nightly-1/lexer` merges it again (a merge of yours on the batch \
         branch counts)"
    );
    assert!(needs_person(task));
    let merged = with_merge(MergeState::Merged, "");
    let (view, task) = (&super::tests::view(&merged, true), &merged.tasks[0]);
    let said = TaskWhy { view, task }.to_string();
    assert_eq!(said, "done by attempt 1; merged by cccccccccccc");
    assert!(!needs_person(task));
}

#[test]
fn a_batch_with_nothing_but_parked_merges_names_them() {
    let mut facts = with_merge(MergeState::Parked, "");
    facts.batch.state = BatchState::Paused;
    facts.batch.reason = BatchReason::NeedsPerson;
    let said = |facts: &Facts| {
        let view = &view(facts, true);
        BatchWhy { view }.to_string()
    };
    assert!(
        said(&facts).starts_with("what is left waits"),
        "two tasks are not over"
    );
    set(&mut facts, 1, TaskState::Done, TaskReason::Proven);
    set(&mut facts, 2, TaskState::Done, TaskReason::Proven);
    assert_eq!(
        said(&facts),
        "only merges are left, and they wait for the operator: lexer; \
         `supervisor retry nightly-1/lexer` merges it again"
    );
}

#[test]
fn who_waits_for_a_merge_is_told_where_it_is() {
    let mut facts = with_merge(MergeState::Verifying, "");
    let mut on = facts.tasks[1].depends_on.to_vec();
    on[0].condition = Condition::Merged;
    facts.tasks[1].depends_on = on.into();
    set(&mut facts, 1, TaskState::Blocked, TaskReason::Dependencies);
    let (view, task) = (&view(&facts, true), &facts.tasks[1]);
    let said = TaskWhy { view, task }.to_string();
    assert_eq!(said, "waits for lexer (done, merge verifying)");
}

#[test]
fn status_shows_worktree_branch_and_merge() {
    let mut facts = with_merge(MergeState::Queued, "");
    let mut out = Vec::new();
    write_json(&view(&facts, true), &BESIDE, &Filter::default(), &mut out).unwrap();
    let json: Value = serde_json::from_slice(&out).unwrap();
    let task = &json["tasks"][0];
    assert_eq!(task["worktree"], "/state/nightly-1/tasks/lexer/worktree");
    assert_eq!(task["branch"], "supervisor/nightly-1/lexer");
    assert_eq!(task["merge"], "queued");
    assert_eq!(task["commit"], Value::from(oid('b').as_str()));
    assert_eq!(
        (&task["merged"], &task["review"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(json["tasks"][1]["worktree"], Value::Null);
    assert_eq!(json["tasks"][1]["merge"], "none");
    let text = |facts: &Facts| {
        let mut out = Vec::new();
        write_text(&view(facts, true), &Filter::default(), true, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(
        !text(&facts).contains("MERGE"),
        "there is nothing to merge in"
    );
    facts.repos = vec![repo(None)];
    assert!(
        text(&facts).contains("  MERGE        WHY\n"),
        "{}",
        text(&facts)
    );
    assert!(
        text(&facts).contains("  queued       done by attempt 1"),
        "{}",
        text(&facts)
    );
}

pub(super) fn repo(round: Option<Round>) -> Repo {
    Repo {
        spec: RepoSpec {
            name: ".".into(),
            verify: true,
            group: 4,
            on_conflict: OnConflict::Park,
            work: "{}".into(),
        },
        round,
    }
}

/// The search for the merge that breaks a proof is told to everybody whose merge is in it.
#[test]
fn the_story_of_a_bisection_names_what_is_proven_and_what_failed() {
    let mut facts = facts();
    let commits = vec![(TaskIx(0), oid('c')), (TaskIx(1), oid('d'))];
    let round = Round {
        verify: true,
        stage: Stage::Verify,
        run: None,
        runs: 1,
        tasks: vec![TaskIx(0), TaskIx(1)],
        tip: Some(oid('b')),
        commits: commits.clone(),
        good: 0,
        bad: None,
        detail: "".into(),
    };
    facts.repos = vec![repo(Some(round))];
    let moved = |stage, good, bad| Record::RoundMoved {
        repo: RepoIx(0),
        stage,
        tip: Some(oid('b')),
        commits: commits.clone(),
        good,
        bad,
        detail: "`make check` exited with 2".into(),
    };
    let line = |facts: &Facts, record| {
        let entry = Entry {
            record,
            ..story().1[0].clone()
        };
        let line = story::line(Some(facts), &entry);
        assert_eq!(line.about, About::Round(vec![TaskIx(0), TaskIx(1)]));
        line.text
    };
    assert_eq!(
        line(&facts, moved(Stage::Checkout, 0, Some(2))),
        "merges: the proof of lexer, parser together failed (`make check` exited with 2); next \
         the proof of lexer alone"
    );
    if let Some(round) = &mut facts.repos[0].round {
        round.bad = Some(2);
    }
    assert_eq!(
        line(&facts, moved(Stage::Advance, 1, Some(2))),
        "merges: lexer proven: the batch branch goes to cccccccccccc"
    );
}

#[test]
fn a_run_is_told_by_what_it_is_for_and_what_it_did() {
    let mut facts = facts();
    let (generation, run) = facts.runs.iter().next().unwrap();
    let (generation, mut run) = (*generation, run.clone());
    run.purpose = Purpose::Step(Step::Commit);
    facts.runs.insert(generation, run);
    let committed = Committed {
        commit: oid('e'),
        files: 1,
        markers: Vec::new(),
        outside: Vec::new(),
        missing: Vec::new(),
        warnings: Vec::new(),
    };
    let result = RunResult {
        status: ResultStatus::Ok,
        class: None,
        summary: String::new(),
        exit_code: None,
        signal: None,
        reset_at_ms: None,
        session: None,
        usage: Default::default(),
        family: None,
        evidence: String::new(),
        artifacts: Vec::new(),
        verdict: None,
        git: Some(Box::new(GitOutcome::Committed(committed))),
    };
    let entry = Entry {
        record: Record::RunFinished {
            generation,
            result: Arc::new(result),
        },
        ..story().1[0].clone()
    };
    let said = story::line(Some(&facts), &entry).text;
    assert_eq!(
        said,
        "commit run 1: result ok (commit eeeeeeeeeeee, 1 file)"
    );
}
