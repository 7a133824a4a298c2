//! Stories of reports: records told by hand, and what a person and a script then read.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use protocol::class::Class;
use protocol::git::{Committed, GitOutcome, Salvaged};
use protocol::ids::{AttemptNo, Generation};
use protocol::integrate::{How, IntegrateResult};
use protocol::report::{
    Capabilities, Receipt, ResultStatus, RunResult, SteerReach, Usage, Verdict,
};
use serde_json::Value;
use supervisor_core::containment::Cleared;
use supervisor_core::facts::{Facts, Round, Salvage};
use supervisor_core::identity::Exit;
use supervisor_core::machine::{AccountState, BatchState, MergeState, TaskState};
use supervisor_core::plan::{AccountIx, AgentIx, OnConflict, RepoIx, RetryMode, TaskIx};
use supervisor_core::reason::{AccountReason, BatchReason, TaskReason};
use supervisor_core::reconcile::Letter;
use supervisor_core::record::{AttemptEnded, AttemptStarted, Entry, Next, Record};
use supervisor_core::step::{Purpose, Stage, Step};
use supervisor_core::time::{Boot, BootId, Now, Wall};

use super::{Beside, History, Report, html, markdown};
use crate::store::integrated::Note;
use crate::view::tests::{NOON, facts, failed, identity, oid, repo, set, view, with_merge};
use crate::view::{HostFact, View};

const LEXER: TaskIx = TaskIx(0);
const PARSER: TaskIx = TaskIx(1);

/// A past that is told record by record, one second each.
struct Past {
    facts: Facts,
    history: History,
    seq: u64,
}

impl Past {
    fn of(facts: Facts) -> Past {
        Past {
            facts,
            history: History::default(),
            seq: 0,
        }
    }

    fn tell(&mut self, record: Record) {
        self.seq += 1;
        let now = Now {
            wall: Wall(NOON + 1000 * i64::try_from(self.seq).unwrap()),
            boot: Boot(1000 * self.seq),
            boot_id: BootId(7),
        };
        let entry = Entry {
            seq: self.seq,
            term: 1,
            now,
            record,
        };
        self.history.tell(Some(&self.facts), &entry);
        self.facts.batch.now = now;
    }

    fn begins(&mut self, task: TaskIx, attempt: u32) {
        self.tell(Record::AttemptStarted(AttemptStarted {
            task,
            attempt: AttemptNo(attempt),
            slot: 0,
            mode: RetryMode::Fresh,
            step: Step::Work,
            generation: Generation(1),
            token: 1,
            probe: false,
        }));
    }

    /// The only run of the story is for this now, and ends with this result.
    fn run(&mut self, purpose: Purpose, result: RunResult) {
        let (generation, run) = self.facts.runs.iter_mut().next().unwrap();
        let generation = *generation;
        run.purpose = purpose;
        run.result = None;
        let result = Arc::new(result);
        self.tell(Record::RunFinished {
            generation,
            result: result.clone(),
        });
        let run = self.facts.runs.get_mut(&generation).unwrap();
        run.result = Some(result);
        self.ends(Cleared::CLEAN);
    }

    fn ends(&mut self, cleared: Cleared) {
        let generation = *self.facts.runs.keys().next().unwrap();
        self.tell(Record::RunEnded {
            generation,
            exit: Exit::Code(0),
            injected: Vec::new(),
            cleared,
            footprint: Default::default(),
        });
    }

    fn over(&mut self, task: TaskIx, attempt: u32, class: Option<Class>, detail: &str, next: Next) {
        self.tell(Record::AttemptEnded(AttemptEnded {
            task,
            attempt: AttemptNo(attempt),
            class,
            consumed: class.is_some_and(|class| class != Class::UsageLimit),
            detail: detail.into(),
            next,
            model: None,
        }));
    }

    fn merge(&mut self, task: TaskIx, to: MergeState, detail: &str) {
        let merged = (to == MergeState::Merged).then(|| oid('c'));
        self.tell(Record::MergeMoved {
            task,
            to,
            merged,
            detail: detail.into(),
        });
    }

    fn report(&self) -> Report {
        let view = view(&self.facts, false);
        Report::new(&view, &self.history, &Beside::default(), None)
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.report()).unwrap()
    }

    fn markdown(&self) -> String {
        markdown(&self.report(), &TimeZone::UTC).unwrap()
    }

    fn html(&self) -> String {
        html(&self.report(), &TimeZone::UTC).unwrap()
    }
}

fn result(well: bool, summary: &str) -> RunResult {
    let (status, class) = match well {
        true => (ResultStatus::Ok, None),
        false => (ResultStatus::Failed, Some(Class::AgentFailed)),
    };
    RunResult {
        status,
        class,
        summary: summary.to_owned(),
        exit_code: None,
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

fn says(verdict: Verdict, notes: &str) -> RunResult {
    RunResult {
        verdict: Some(verdict),
        ..result(true, notes)
    }
}

fn end(to: TaskState, reason: TaskReason) -> Next {
    Next::End { to, reason }
}

fn texts<'a>(rows: &'a Value, key: &str) -> Vec<&'a str> {
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| row[key].as_str().unwrap()).collect()
}

#[test]
fn a_parked_conflict_names_files_other_task_and_command() {
    let mut past = Past::of(with_merge(MergeState::Parked, "conflicts with c in: a.rs"));
    past.facts.repos = vec![repo(None)];
    past.merge(PARSER, MergeState::Merged, "");
    let conflict = "conflicts with parser in: src/a.rs";
    past.merge(LEXER, MergeState::Conflict, conflict);
    past.merge(LEXER, MergeState::Parked, conflict);
    let json = past.json();
    let merge = &json["tasks"][0]["merge"];
    assert_eq!(merge["state"], "parked");
    assert_eq!(texts(&merge["steps"], "what"), ["conflict", "parked"]);
    assert_eq!(merge["steps"][0]["text"], conflict);
    let need = json["needs"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&need["kind"], &need["task"], &need["command"]),
        (
            &"parked_merge".into(),
            &"lexer".into(),
            &"supervisor retry nightly-1/lexer".into()
        )
    );
    assert_eq!(need["text"], merge["steps"][0]["text"]);
    let told = past.markdown();
    assert!(
        told.contains("conflicts with parser in: src/a.rs"),
        "{told}"
    );
}

#[test]
fn a_conflict_that_an_agent_resolved_names_the_agent_and_the_commit() {
    let mut past = Past::of(with_merge(MergeState::Merged, ""));
    past.facts.repos = vec![repo(None)];
    past.facts.repos[0].spec.on_conflict = OnConflict::Agent(Some(AgentIx(0)));
    let agent = past.facts.agents[0].name.to_string();
    past.merge(LEXER, MergeState::Conflict, "conflicts with dd in: a.rs");
    past.tell(Record::RoundBegan {
        repo: RepoIx(0),
        stage: Stage::Conflict,
        tasks: vec![LEXER],
    });
    let resolve = Purpose::Merge(RepoIx(0), Stage::Resolve);
    past.run(resolve, result(true, "kept both sides"));
    past.merge(LEXER, MergeState::Merged, "");
    let json = past.json();
    let steps = &json["tasks"][0]["merge"]["steps"];
    assert_eq!(
        texts(steps, "text"),
        [
            "conflicts with dd in: a.rs",
            "",
            &format!("{agent} resolved it: kept both sides"),
            "as cccccccccccc"
        ]
    );
    assert_eq!(json["tasks"][0]["smooth"], false);
}

#[test]
fn the_search_for_what_breaks_a_proof_is_told_to_all_and_the_culprit_knows_why() {
    let mut past = Past::of(with_merge(MergeState::Parked, "its merge broke the proof"));
    let commits = vec![(LEXER, oid('c')), (PARSER, oid('d'))];
    past.facts.repos = vec![repo(Some(Round {
        stage: Stage::Verify,
        run: None,
        runs: 1,
        tasks: vec![LEXER, PARSER],
        tip: Some(oid('b')),
        commits: commits.clone(),
        good: 0,
        bad: None,
        detail: "".into(),
        verify: true,
    }))];
    past.tell(Record::RoundMoved {
        repo: RepoIx(0),
        stage: Stage::Checkout,
        tip: Some(oid('b')),
        commits,
        good: 0,
        bad: Some(2),
        detail: "`make check` exited with 2".into(),
    });
    let why = "its merge broke the proof: `make check` exited with 2";
    past.merge(LEXER, MergeState::RolledBack, why);
    past.merge(LEXER, MergeState::Parked, why);
    let json = past.json();
    let steps = &json["tasks"][0]["merge"]["steps"];
    assert_eq!(texts(steps, "what"), ["halving", "rolled_back", "parked"]);
    let halving = "the proof of lexer, parser together failed (`make check` exited with 2); next \
                   the proof of lexer alone";
    assert_eq!(texts(steps, "text"), [halving, why, why]);
}

#[test]
fn reviews_are_told_with_verdict_and_notes() {
    let mut past = Past::of(facts());
    set(&mut past.facts, 0, TaskState::Done, TaskReason::Proven);
    past.begins(LEXER, 1);
    let commit = Committed {
        commit: oid('e'),
        files: 2,
        markers: Vec::new(),
        outside: Vec::new(),
        missing: Vec::new(),
        warnings: Vec::new(),
    };
    let committed = RunResult {
        git: Some(Box::new(GitOutcome::Committed(commit))),
        ..result(true, "")
    };
    for (verdict, notes) in [
        (Verdict::Revise, "note 1\nand more"),
        (Verdict::Revise, "note 2"),
        (Verdict::Approve, "good"),
    ] {
        past.run(Purpose::Step(Step::Work), result(true, "did it"));
        past.run(Purpose::Step(Step::Commit), committed.clone());
        past.run(Purpose::Step(Step::Review), says(verdict, notes));
    }
    past.over(LEXER, 1, None, "", end(TaskState::Done, TaskReason::Proven));
    let json = past.json();
    let attempt = &json["tasks"][0]["attempts"][0];
    assert_eq!(
        texts(&attempt["steps"], "verdict"),
        ["revise", "revise", "approve"]
    );
    assert_eq!(
        texts(&attempt["steps"], "text"),
        ["note 1", "note 2", "good"]
    );
    assert_eq!(
        (&attempt["outcome"], &attempt["summary"], &attempt["files"]),
        (&"done".into(), &"did it".into(), &2.into())
    );
    let told = past.markdown();
    for words in [
        "### lexer: done",
        "review: revise: note 2",
        "review: approve: good",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn rejected_work_is_told_with_the_word_of_the_reviewer() {
    let mut past = Past::of(facts());
    let failed_by = TaskReason::Failed(Class::Rejected);
    failed(
        &mut past.facts,
        0,
        Class::Rejected,
        "the reviewer rejects it: no tests",
    );
    set(&mut past.facts, 0, TaskState::Failed, failed_by);
    past.begins(LEXER, 2);
    past.run(
        Purpose::Step(Step::Review),
        says(Verdict::Reject, "no tests"),
    );
    let detail = "the reviewer rejects it: no tests";
    past.over(
        LEXER,
        2,
        Some(Class::Rejected),
        detail,
        end(TaskState::Failed, failed_by),
    );
    let json = past.json();
    let attempt = &json["tasks"][0]["attempts"][0];
    assert_eq!(
        (
            &attempt["outcome"],
            &attempt["counts"],
            &attempt["steps"][0]["verdict"]
        ),
        (&"rejected".into(), &true.into(), &"reject".into())
    );
    let needs = json["needs"].as_array().unwrap();
    let need = needs.iter().find(|need| need["task"] == "lexer").unwrap();
    assert_eq!(need["text"], "rejected: the reviewer rejects it: no tests");
    assert_eq!(need["command"], "supervisor retry nightly-1/lexer");
}

#[test]
fn a_usage_limit_is_an_incident_and_its_attempt_does_not_count() {
    let mut past = Past::of(facts());
    past.begins(LEXER, 1);
    let next = Next::Hold {
        reason: TaskReason::AccountLimited,
        mode: RetryMode::Resume,
    };
    past.over(LEXER, 1, Some(Class::UsageLimit), "limit reached", next);
    for (to, reason) in [
        (
            AccountState::Limited,
            AccountReason::Class(Class::UsageLimit),
        ),
        (AccountState::Probing, AccountReason::Reset),
        (AccountState::Open, AccountReason::ProbeWentWell),
    ] {
        past.tell(Record::AccountMoved {
            account: AccountIx(0),
            to,
            reason,
            until: None,
        });
    }
    let json = past.json();
    assert_eq!(texts(&json["incidents"], "kind"), ["limit", "limit"]);
    let attempt = &json["tasks"][0]["attempts"][0];
    assert_eq!(
        (&attempt["outcome"], &attempt["counts"], &attempt["next"]),
        (
            &"usage_limit".into(),
            &false.into(),
            &"held; then resume".into()
        )
    );
}

fn takes_over(term: u64) -> Record {
    Record::SupervisorStarted {
        term,
        identity: identity(50),
        guardian: None,
        build: "0".into(),
    }
}

#[test]
fn a_crash_is_told_apart_from_a_stop() {
    let mut past = Past::of(facts());
    past.tell(takes_over(1));
    past.tell(takes_over(2));
    let generation = *past.facts.runs.keys().next().unwrap();
    past.tell(Record::RunReconciled {
        generation,
        letter: Letter::D,
        cleared: Cleared::CLEAN,
    });
    past.facts.batch.state = BatchState::Interrupted;
    past.facts.batch.reason = BatchReason::Stop;
    past.facts.runs.clear();
    past.tell(takes_over(3));
    let json = past.json();
    assert_eq!(
        texts(&json["incidents"], "kind"),
        ["crash", "lost", "resumed"],
        "{json}"
    );
    assert_eq!(json["incidents"][1]["task"], "lexer");
    assert_eq!(json["needs"][0]["command"], "supervisor run batch.yml");
}

#[test]
fn processes_that_outlived_their_host_are_an_incident() {
    let mut past = Past::of(facts());
    past.ends(Cleared::CLEAN);
    past.ends(Cleared::Clean { killed: 3 });
    let json = past.json();
    assert_eq!(texts(&json["incidents"], "kind"), ["processes"]);
    let text = json["incidents"][0]["text"].as_str().unwrap();
    assert!(text.contains("killed 3"), "{text}");
}

#[test]
fn what_an_agent_does_not_report_is_unknown() {
    let mut past = Past::of(facts());
    past.begins(LEXER, 1);
    let can = |usage, cost| Capabilities {
        steer: SteerReach::None,
        receipt: Receipt::Injected,
        interrupt: false,
        resume: false,
        questions: false,
        usage,
        cost,
    };
    let run = |past: &mut Past, can, tokens| {
        let run = past.facts.runs.values_mut().next().unwrap();
        run.capabilities = Some(can);
        let used = RunResult {
            usage: Usage {
                tokens,
                ..Usage::default()
            },
            ..result(true, "")
        };
        past.run(Purpose::Step(Step::Work), used);
    };
    run(&mut past, can(false, false), 0);
    past.facts
        .runs
        .values_mut()
        .for_each(|run| run.result = None);
    let used = past.json()["tasks"][0]["attempts"][0]["used"].clone();
    assert_eq!(
        (&used["tokens"], &used["cost_usd"]),
        (&Value::Null, &Value::Null)
    );
    assert!(past.markdown().contains("- tokens: unknown, no agent said"));

    run(&mut past, can(true, false), 1200);
    let used = past.json()["tasks"][0]["attempts"][0]["used"].clone();
    assert_eq!(
        (&used["tokens"], &used["tokens_at_least"], &used["cost_usd"]),
        (&1200.into(), &true.into(), &Value::Null)
    );
    assert!(past.markdown().contains("- tokens: at least 1 200"));
}

/// Text of an agent is text, wherever it is shown.
#[test]
fn hostile_text_stays_text() {
    let hostile = "\u{1b}[2J<script>alert(1)</script> | a | b \u{202e}gpj.exe\u{202c} ``` \
                   [click](http://evil) <img src=x onerror=1> **b** {{ batch.id }}\u{7}\r\n# heading";
    let mut past = Past::of(facts());
    failed(&mut past.facts, 0, Class::AgentFailed, hostile);
    let reason = TaskReason::Failed(Class::AgentFailed);
    set(&mut past.facts, 0, TaskState::Failed, reason);
    past.begins(LEXER, 1);
    let told = RunResult {
        evidence: format!("{hostile}\n{hostile}"),
        ..result(false, hostile)
    };
    past.run(Purpose::Step(Step::Work), told);
    past.run(Purpose::Step(Step::Review), says(Verdict::Revise, hostile));
    let next = end(TaskState::Failed, reason);
    past.over(LEXER, 1, Some(Class::AgentFailed), hostile, next);
    let page = past.html();
    for bad in ["<script", "<img", "\u{1b}", "\u{202e}", "\u{7}", "href"] {
        assert!(!page.contains(bad), "{bad:?}: {page}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;"), "{page}");
    assert!(
        page.contains("{{ batch.id }}"),
        "no template is filled twice"
    );

    let told = past.markdown();
    for bad in ["\u{1b}", "\u{202e}", "\u{7}", "\r"] {
        assert!(!told.contains(bad), "{bad:?}: {told}");
    }
    for line in told.lines().map(without_code) {
        // What a backslash stands before is text.
        let line = line.replace("\\]", "");
        assert!(
            !line.contains(" <script") && !line.contains("](http") && !line.starts_with("```"),
            "{line}"
        );
        assert!(!line.contains(" **b**"), "{line}");
        if line.starts_with('|') {
            assert_eq!(line.matches('|').count(), 5, "{line}");
        }
    }
    let json = past.json().to_string();
    assert!(
        !json.contains("\\u001b") && !json.contains('\u{202e}'),
        "{json}"
    );
}

/// A line of Markdown without its code spans, in which nothing has a meaning.
fn without_code(line: &str) -> String {
    let (mut prose, mut rest) = (String::new(), line);
    while let Some(at) = rest.find('`') {
        let (before, from) = rest.split_at(at);
        prose.push_str(before);
        let behind = from.trim_start_matches('`');
        let fence = &from[..from.len() - behind.len()];
        let end = behind.find(fence).filter(|_| !before.ends_with('\\'));
        rest = end.map_or(behind, |end| &behind[end + fence.len()..]);
    }
    prose + rest
}

/// A report with something in every list.
fn full() -> Value {
    let mut past = Past::of(with_merge(MergeState::Parked, "conflicts with a in: b"));
    past.facts.repos = vec![repo(None)];
    past.facts.tasks[0].salvaged = vec![Salvage {
        reference: "refs/supervisor/salvage/nightly-1/lexer/1".into(),
        commit: oid('f'),
    }];
    past.begins(LEXER, 1);
    let kept = Salvaged {
        reference: "refs/supervisor/salvage/nightly-1/lexer/1".to_owned(),
        commit: oid('f'),
        files: 3,
        bytes: 2048,
        skipped: Vec::new(),
    };
    let salvaged = RunResult {
        git: Some(Box::new(GitOutcome::Salvaged(kept))),
        ..result(true, "")
    };
    past.run(Purpose::Step(Step::Salvage), salvaged);
    past.run(Purpose::Step(Step::Prove), result(true, "passed"));
    past.over(LEXER, 1, None, "", end(TaskState::Done, TaskReason::Proven));
    past.merge(LEXER, MergeState::Merged, "");
    past.tell(Record::ClockGap {
        gap: Duration::from_secs(90),
    });
    let run = *past.facts.runs.keys().next().unwrap();
    let mut view: View<'_> = view(&past.facts, false);
    view.hosts.insert(run, HostFact::Lives(77));
    let beside = Beside {
        integrated: vec![Note {
            time: "2026-01-02T03:04:05Z".to_owned(),
            repo: ".".to_owned(),
            commit: oid('c'),
            into: "refs/heads/main".to_owned(),
            how: How::FastForward,
            result: IntegrateResult::FastForwarded { commit: oid('c') },
        }],
        torn: vec!["/state/journal/torn-1-2.bin".to_owned()],
    };
    let report = Report::new(&view, &past.history, &beside, None);
    let told = markdown(&report, &TimeZone::UTC).unwrap();
    for words in [
        "pid 77",
        "torn-1-2.bin",
        "Integrated: cccccccccccc into main by a fast-forward",
        "refs/supervisor/salvage/nightly-1/lexer/1",
        "2.0 KiB",
        "the supervisor was away for 1m 30s",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(html(&report, &TimeZone::UTC).unwrap().contains("pid 77"));
    serde_json::to_value(report).unwrap()
}

fn paths(value: &Value, at: &str, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{at}.{key}");
                paths(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "{at} is empty, so its keys are not seen");
            items
                .iter()
                .for_each(|it| paths(it, &format!("{at}[]"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Scripts hold on to these keys: more may be added, none renamed.
#[test]
fn the_keys_of_report_json_are_fixed() {
    let mut found = std::collections::BTreeSet::new();
    let mut report = full();
    // What needs more than one task to be seen is taken from it.
    report["tasks"] = Value::Array(vec![report["tasks"][0].take()]);
    let lists = ["output", "steps"];
    for list in lists {
        let attempt = &mut report["tasks"][0]["attempts"][0];
        if attempt[list].as_array().is_some_and(Vec::is_empty) {
            attempt[list] = Value::Array(vec![Value::Null]);
        }
    }
    report["tasks"][0]["attempts"][0]["steps"][0]["output"] = Value::Null;
    report["repos"][0]["unmerged"] = Value::Null;
    paths(&report, "", &mut found);
    let found: Vec<String> = found.into_iter().collect();
    let expected: Vec<&str> = include_str!("keys.txt").lines().collect();
    assert_eq!(found, expected);
    assert_eq!(report["v"], 1);
    assert_eq!(report["repos"][0]["is_integrated"], true);
    assert_eq!(report["repos"][0]["command"], Value::Null);
}

#[test]
fn long_lists_are_cut_and_what_matters_stays() {
    let mut past = Past::of(facts());
    let task = past.facts.tasks[2].clone();
    for number in 0..600 {
        let mut task = task.clone();
        task.id = format!("t-{number}").parse().unwrap();
        past.facts.tasks.push(task);
    }
    let last = past.facts.tasks.len() - 1;
    failed(&mut past.facts, last, Class::Crash, "signal 11");
    set(
        &mut past.facts,
        last,
        TaskState::Failed,
        TaskReason::Failed(Class::Crash),
    );
    let told = past.markdown();
    assert!(told.contains("... and 103 more tasks"), "{told}");
    assert!(
        told.contains("| t-599 "),
        "what failed is in the table: {told}"
    );
    assert!(told.contains("**t-599**: crash: signal 11"), "{told}");
    assert_eq!(past.json()["tasks"].as_array().unwrap().len(), 603);
}

#[test]
fn a_report_of_one_task_is_about_nothing_else() {
    let mut past = Past::of(facts());
    past.begins(LEXER, 1);
    past.begins(PARSER, 1);
    let view = view(&past.facts, false);
    let report = Report::new(&view, &past.history, &Beside::default(), Some(LEXER));
    let told = markdown(&report, &TimeZone::UTC).unwrap();
    assert!(told.starts_with("# lexer of nightly-1\n"), "{told}");
    assert!(
        told.contains("## Its story") && !told.contains("parser"),
        "{told}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&json["task"], json["tasks"].as_array().unwrap().len()),
        (&"lexer".into(), 1)
    );
}
