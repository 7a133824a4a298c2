//! What a valid batch file means: layers, dependencies, foreach, rendering, schema.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::{Adapter, PromptBy, Text};
use protocol::ids::{AttemptNo, BatchId, TaskId};
use protocol::program::{Credentials, Home, Permissions};
use supervisor::batch_file::listed::{Kept, Lists, Output, Wanted};
use supervisor::batch_file::render::{DependencyResult, RenderContext, RenderError, Renderer};
use supervisor::batch_file::work::{Act, AgentWork, BatchWork, TaskWork};
use supervisor::batch_file::{BatchFile, Request, Source, read, read_with, schema, summary};
use supervisor_core::plan::{
    AutoResume, Condition, MaxFailures, OnFailure, OnQuestion, PlannedTask, RetryMode, TaskSpec,
};
use supervisor_core::time::Wall;

const HEAD: &str = "version: 1\nisolation: none\n";

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

fn read_in(folder: &Path, text: &str) -> BatchFile {
    let text = format!("{HEAD}{text}");
    let source = Source::Text {
        name: "<stdin>",
        bytes: text.as_bytes(),
    };
    let request = Request {
        source,
        current_dir: folder,
        user_config: None,
        set: &[],
    };
    read(&request).unwrap_or_else(|report| panic!("{report}"))
}

fn read_alone(text: &str) -> BatchFile {
    read_in(folder_with(&[]).path(), text)
}

fn task<'b>(batch: &'b BatchFile, id: &str) -> &'b PlannedTask {
    batch
        .plan
        .tasks
        .iter()
        .find(|task| task.id.as_str() == id)
        .unwrap()
}

fn spec<'b>(batch: &'b BatchFile, id: &str) -> &'b TaskSpec {
    &batch.plan.specs[task(batch, id).spec.0 as usize]
}

fn work(batch: &BatchFile, id: &str) -> TaskWork {
    serde_json::from_str(&spec(batch, id).work).unwrap()
}

fn depends(batch: &BatchFile, id: &str) -> Vec<(String, Condition)> {
    let edges = task(batch, id).depends_on.iter();
    let name = |number: u32| batch.plan.tasks[number as usize].id.to_string();
    edges
        .map(|edge| (name(edge.task.0), edge.condition))
        .collect()
}

#[test]
fn memory_is_the_tasks_own_or_what_is_left_by_the_layers_below() {
    let batch = read_alone(
        "limits: {memory: 2GiB}\ndefaults: {limits: {memory: 1GiB}}\ntasks:\n\
         - {id: own, run: x, limits: {memory: 512MiB}}\n\
         - {id: default, run: x, limits: {turns: 9, enforce: best_effort}}\n",
    );
    assert_eq!(spec(&batch, "own").memory_max, Some(512 << 20));
    assert_eq!(spec(&batch, "default").memory_max, Some(1 << 30));
    let batch = read_alone("limits: {memory: 2GiB}\ntasks: [{id: a, run: x}]\n");
    assert_eq!(spec(&batch, "a").memory_max, Some(2 << 30), "of the batch");
    let batch = read_alone("tasks: [{id: a, run: x}]\n");
    assert_eq!(spec(&batch, "a").memory_max, None);
}

#[test]
fn what_is_not_said_has_the_values_of_the_manual() {
    let batch = read_alone("tasks: [{id: a, run: make}]");
    let settings = &batch.plan.settings;
    assert_eq!((&*settings.name, settings.concurrency), ("stdin", 4));
    assert_eq!(
        (settings.on_failure, settings.max_failures),
        (OnFailure::SkipDependents, None)
    );
    assert_eq!(settings.lost_max, 25);
    let spec = spec(&batch, "a");
    assert_eq!((spec.attempts, spec.priority, spec.verify), (3, 0, false));
    assert_eq!(spec.timeout, Duration::from_secs(7200));
    assert_eq!(spec.silence, Duration::from_secs(1200));
    assert_eq!(spec.no_progress, Duration::from_secs(3600));
    assert_eq!(spec.retry.backoff_min, Duration::from_secs(30));
    assert_eq!(spec.retry.backoff_max, Duration::from_secs(600));
    assert_eq!(spec.on_question, OnQuestion::Wait);
    assert_eq!(
        work(&batch, "a").act,
        Act::Run(vec!["sh".into(), "-c".into(), "make".into()])
    );
    assert_eq!(&*batch.plan.agents[0].name, "run");
    assert_eq!(&*batch.plan.accounts[0].name, "command");
}

#[test]
fn every_setting_reaches_the_plan() {
    let batch = read_alone(
        "name: nightly\nconcurrency: 7\non_failure: continue\nmax_failures: 20%\n\
         not_before: 2026-01-01T00:00:00Z\nuntil: 2026-01-01T02:00:00+01:00\n\
         limits: {wall: 3d, tokens: 5M, turns: 200, cost_usd: 2.50}\n\
         tasks:\n- {id: a, run: make, not_before: 1970-01-01T00:00:01Z, priority: -3, attempts: 9}\n",
    );
    let settings = &batch.plan.settings;
    assert_eq!((&*settings.name, settings.concurrency), ("nightly", 7));
    assert_eq!(settings.on_failure, OnFailure::Continue);
    assert_eq!(settings.max_failures, Some(MaxFailures::Percent(20)));
    assert_eq!(settings.not_before, Some(Wall(1_767_225_600_000)));
    assert_eq!(settings.until, Some(Wall(1_767_229_200_000)));
    assert_eq!(settings.limits.tokens, Some(5_000_000));
    assert_eq!(settings.limits.cost_micros, Some(2_500_000));
    assert_eq!(settings.limits.wall, Some(Duration::from_secs(3 * 86_400)));
    let spec = spec(&batch, "a");
    assert_eq!(
        (spec.priority, spec.attempts, spec.not_before),
        (-3, 9, Some(Wall(1000)))
    );
}

#[test]
fn layers_are_user_then_included_then_batch_then_task() {
    let folder = folder_with(&[
        (
            "user.yml",
            "concurrency: 2\nagents:\n  one: {kind: command, command: [user]}\n  two: {kind: command, command: [user]}\n  three: {kind: command, command: [user]}\naccounts: {main: {auto_resume: never, concurrency: 5}}\n",
        ),
        (
            "more.yml",
            "agents:\n  two: {kind: command, command: [included]}\n  three: {kind: command, command: [included]}\ndefaults: {attempts: 5, timeout: 1h, env: {A: more, B: more}}\n",
        ),
        (
            "batch.yml",
            "version: 1\nisolation: none\nconcurrency: 9\ninclude: [more.yml]\nagents:\n  three: {kind: command, command: [batch], account: main}\ndefaults: {timeout: 30m, env: {B: batch}, prompt: default}\ntasks:\n- {id: a, agent: one}\n- {id: b, agent: two, timeout: 10m, prompt: own}\n- {id: c, agent: three, env: {B: task}}\n- {id: d, run: make}\n",
        ),
    ]);
    let user = folder.path().join("user.yml");
    let request = Request {
        source: Source::File(Path::new("batch.yml")),
        current_dir: folder.path(),
        user_config: Some(&user),
        set: &[],
    };
    let batch = read(&request).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(
        batch.plan.settings.concurrency, 2,
        "the machine's value is the ceiling"
    );
    let programs: Vec<&str> = batch.plan.agents.iter().map(|agent| &*agent.work).collect();
    for (work, word) in programs.iter().zip(["user", "included", "batch"]) {
        assert!(work.contains(word), "{work} should say {word}");
    }
    let main = batch
        .plan
        .accounts
        .iter()
        .find(|account| &*account.name == "main")
        .unwrap();
    assert_eq!(
        (main.auto_resume, main.concurrency),
        (AutoResume::Never, Some(5))
    );
    assert_eq!(spec(&batch, "a").attempts, 5);
    assert_eq!(spec(&batch, "a").timeout, Duration::from_secs(1800));
    assert_eq!(spec(&batch, "b").timeout, Duration::from_secs(600));
    let env = |id| work(&batch, id).env.into_iter().collect::<Vec<_>>();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(env("a"), [pair("A", "more"), pair("B", "batch")]);
    assert_eq!(env("c"), [pair("A", "more"), pair("B", "task")]);
    assert!(
        matches!(work(&batch, "d").act, Act::Run(_)),
        "`run` hides the default prompt"
    );
    assert_eq!(
        batch.inputs.len(),
        3,
        "batch file, user file and included file are kept"
    );
    assert_eq!(batch.inputs[0].path, folder.path().join("batch.yml"));
}

#[test]
fn dependencies_are_names_globs_or_conditions() {
    let batch = read_alone(
        "tasks:\n- {id: m-1, run: x}\n- {id: m-2, run: x, depends_on: [\"m-*\"]}\n\
         - id: last\n  run: x\n  needs:\n    \"m-*\": {condition: finished}\n    m-1:\n",
    );
    assert_eq!(
        depends(&batch, "m-2"),
        [("m-1".to_owned(), Condition::Done)]
    );
    let last = [
        ("m-1".to_owned(), Condition::Done),
        ("m-2".to_owned(), Condition::Finished),
    ];
    assert_eq!(
        depends(&batch, "last"),
        last,
        "of two conditions the stricter one counts"
    );
}

#[test]
fn foreach_takes_items_files_and_globs_in_a_fixed_order() {
    let folder = folder_with(&[
        ("src/b/Two.js", ""),
        ("src/One.js", ""),
        ("src/no.txt", ""),
        (".git/x.js", ""),
        ("rows.csv", "name,n\n\"a, b\",1\nc,2\n"),
        ("rows.jsonl", "{\"k\": [1]}\n\n7\n"),
    ]);
    let batch = read_in(
        folder.path(),
        "tasks:\n\
         - {id: \"g-{{ item | slug }}\", foreach: {glob: \"**/*.js\"}, run: x, touches: [\"{{ item }}\"]}\n\
         - {id: \"c-{{ item.n }}\", foreach: {file: rows.csv}, run: x}\n\
         - {id: \"j-{{ item.k is defined }}\", foreach: {items: [{k: 1}]}, run: x}\n\
         - {id: \"l-{{ item | str | slug }}\", foreach: {file: rows.jsonl}, run: x}\n\
         - {id: \"after-{{ item }}\", foreach: {items: [1, 2]}, run: x, depends_on: [\"c-{{ item }}\"]}\n",
    );
    let ids: Vec<&str> = batch
        .plan
        .tasks
        .iter()
        .map(|task| task.id.as_str())
        .collect();
    assert_eq!(ids[..4], ["g-src-one.js", "g-src-b-two.js", "c-1", "c-2"]);
    assert_eq!(&*task(&batch, "g-src-one.js").touches[0], "src/One.js");
    assert_eq!(
        task(&batch, "c-1").item.as_deref(),
        Some(r#"{"n":"1","name":"a, b"}"#)
    );
    assert_eq!(
        depends(&batch, "after-2"),
        [("c-2".to_owned(), Condition::Done)]
    );
    assert_eq!(
        batch.plan.specs.len(),
        5,
        "the tasks of one foreach share one spec"
    );
}

/// Prints what it is asked for, and remembers that it was.
#[derive(Default)]
struct Echo(std::cell::RefCell<Vec<Vec<String>>>);

impl Lists for Echo {
    fn output(&self, wanted: &Wanted<'_>) -> Output {
        self.0.borrow_mut().push(wanted.argv.to_vec());
        assert_eq!(
            wanted.env.len(),
            1,
            "what differs from task to task is left out"
        );
        let about = (wanted.env["PLAIN"].as_str(), wanted.env_from);
        assert_eq!(about, ("yes", ["TOKEN".to_owned()].as_slice()));
        Output::Known(wanted.argv[1..].join("\n"))
    }
}

#[test]
fn a_command_is_asked_once_for_its_items_and_its_output_is_kept() {
    let folder = folder_with(&[]);
    let text = "version: 1\nisolation: none\nvars: {kind: bug}\nenv_from: [TOKEN]\n\
        env: {PLAIN: yes, EACH: \"{{ task.id }}\"}\ntasks:\n\
        - {id: \"a-{{ item }}\", foreach: {command: [list, \"{{ vars.kind }}\", two]}, run: x}\n\
        - {id: \"b-{{ item }}\", foreach: {command: [list, bug, two]}, run: x}\n\
        - {id: \"c-{{ item.n }}\", foreach: {command: [list, '[{\"n\": 1},', '{\"n\": 2}]'], timeout: 5s}, run: x}\n\
        - {id: after, run: x, depends_on: [\"a-*\", b-two, c-1]}\n";
    let request = Request {
        source: Source::Text {
            name: "f",
            bytes: text.as_bytes(),
        },
        current_dir: folder.path(),
        user_config: None,
        set: &[],
    };
    let echo = Echo::default();
    let batch = read_with(&request, &echo).unwrap();
    let ids = batch.plan.tasks.iter().map(|task| task.id.as_str());
    let ids: Vec<&str> = ids.collect();
    assert_eq!(
        ids,
        ["a-bug", "a-two", "b-bug", "b-two", "c-1", "c-2", "after"]
    );
    assert_eq!(echo.0.borrow().len(), 2, "the same command is asked once");
    assert_eq!(batch.at_start, 0);
    let kept: Kept = serde_json::from_slice(&batch.inputs[1].bytes).unwrap();
    assert_eq!(kept.command, ["list", "bug", "two"]);
    assert_eq!(kept.output, "bug\ntwo");
    assert_eq!(batch.inputs.len(), 3);

    // Without anybody to ask the tasks are not there yet, and may be named all the same.
    let batch = read(&request).unwrap();
    assert_eq!((batch.plan.tasks.len(), batch.at_start), (1, 3));
    let wrong = text.replace("b-two, c-1", "d-two");
    let source = Source::Text {
        name: "f",
        bytes: wrong.as_bytes(),
    };
    let refused = read(&Request { source, ..request })
        .unwrap_err()
        .to_string();
    assert!(refused.contains("no task is called `d-two`"), "{refused}");
}

#[test]
fn yaml_means_what_version_1_2_says() {
    let batch = read_alone(
        "vars:\n  a: [yes, 0o17, 0x1F, 1_000, \"5\", 1.5, ~, null, True]\n\
         defaults: &base\n  attempts: 2\n  timeout: 1h\n\
         tasks:\n- &first {id: a, run: make, priority: 1}\n- {<<: *first, id: b}\n\
         - {<<: [*base, *first], id: c, attempts: 4}\n",
    );
    let settings: BatchWork = serde_json::from_str(&batch.plan.settings.work).unwrap();
    let expected = serde_json::json!(["yes", 15, 31, "1_000", "5", 1.5, null, null, true]);
    assert_eq!(settings.vars["a"], expected);
    assert_eq!(
        (spec(&batch, "b").priority, spec(&batch, "b").attempts),
        (1, 2)
    );
    assert_eq!(
        (spec(&batch, "c").priority, spec(&batch, "c").attempts),
        (1, 4)
    );
}

#[test]
fn retry_rules_and_questions_reach_the_task() {
    let batch = read_alone(
        "question_timeout: 1h\nquestion_default: \"yes\"\n\
         defaults: {retry: {backoff: 1s..1m, by_class: {crash: stop}}}\n\
         tasks:\n- {id: a, run: x, retry: {by_class: {stall: fresh}}}\n\
         - {id: b, run: x, on_question: default, question_default: \"no\", retry: {backoff: 5s}}\n\
         - {id: c, run: x, on_question: fail}\n",
    );
    let a = &spec(&batch, "a");
    let stall = [
        (Class::Silence, RetryMode::Fresh),
        (Class::NoProgress, RetryMode::Fresh),
    ];
    assert_eq!(a.retry.by_class, BTreeMap::from(stall));
    assert_eq!(
        a.retry.backoff_min,
        Duration::from_secs(1),
        "what is not said is taken over"
    );
    assert_eq!(a.on_question, OnQuestion::WaitThenDefault("yes".into()));
    assert_eq!(a.question_timeout, Duration::from_secs(3600));
    let b = &spec(&batch, "b").retry;
    assert_eq!(
        (b.backoff_min, b.backoff_max),
        (Duration::from_secs(5), Duration::from_secs(5))
    );
    assert_eq!(
        b.by_class,
        BTreeMap::from([(Class::Crash, RetryMode::Stop)])
    );
    assert_eq!(
        spec(&batch, "b").on_question,
        OnQuestion::Default("no".into())
    );
    assert_eq!(spec(&batch, "c").on_question, OnQuestion::Fail);
}

#[test]
fn a_batch_is_known_by_its_name_and_the_root_of_its_repository() {
    let folder = folder_with(&[(
        "deep/My batch.yml",
        "version: 1\ntasks: [{id: a, run: x}]\n",
    )]);
    let path = folder.path().join("deep/My batch.yml");
    let request = Request {
        source: Source::File(&path),
        current_dir: Path::new("/"),
        user_config: None,
        set: &[],
    };
    let outside = read(&request).unwrap_or_else(|report| panic!("{report}"));
    let deep = path.parent().unwrap().canonicalize().unwrap();
    assert_eq!(outside.identity.name, "my-batch");
    assert_eq!(outside.identity.root, deep);

    git2::Repository::init(folder.path()).unwrap();
    let refused = read(&request).unwrap_err().to_string();
    assert!(refused.contains("has no commit yet"), "{refused}");
    std::fs::write(
        &path,
        "version: 1\nisolation: none\ntasks: [{id: a, run: x}]\n",
    )
    .unwrap();
    let inside = read(&request).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(inside.identity.root, folder.path().canonicalize().unwrap());
    let work: BatchWork = serde_json::from_str(&inside.plan.settings.work).unwrap();
    assert_eq!(work.folder, deep);
}

#[test]
fn set_replaces_variables_that_exist_and_no_others() {
    let folder = folder_with(&[]);
    let text = format!("{HEAD}vars: {{n: 1, s: a}}\ntasks: [{{id: a, run: x}}]\n");
    let set = |name: &str, value: &str| {
        let set = [(name.to_owned(), value.to_owned())];
        let source = Source::Text {
            name: "<stdin>",
            bytes: text.as_bytes(),
        };
        read(&Request {
            source,
            current_dir: folder.path(),
            user_config: None,
            set: &set,
        })
    };
    let batch = set("n", "2").unwrap_or_else(|report| panic!("{report}"));
    let work: BatchWork = serde_json::from_str(&batch.plan.settings.work).unwrap();
    assert_eq!(work.vars["n"], 2);
    let refused = set("m", "2").unwrap_err().to_string();
    assert!(
        refused.starts_with("--set:1:1: the batch file has no variable `m`"),
        "{refused}"
    );
}

#[test]
fn a_prompt_file_of_many_tasks_is_kept_once() {
    let folder = folder_with(&[("prompt.md", "Do {{ task.id }}.\n")]);
    let batch = read_in(
        folder.path(),
        "agents: {c: {kind: command, command: [c]}}\n\
         defaults: {agent: c, prompt_file: prompt.md}\ntasks: [{id: a}, {id: b}]\n",
    );
    let work: BatchWork = serde_json::from_str(&batch.plan.settings.work).unwrap();
    assert_eq!(work.texts, ["Do {{ task.id }}.\n"]);
    assert_eq!(batch.inputs.len(), 2);
    let (prompt, _) = start(&batch, "b", &[], None);
    assert_eq!(prompt.as_deref(), Some("Do b.\n"));
}

/// Renders the start of a task's first attempt in slot 2.
fn start(
    batch: &BatchFile,
    id: &str,
    own_env: &[(&str, &str)],
    dependency: Option<(&str, &str)>,
) -> (Option<String>, (Adapter, BTreeMap<String, String>)) {
    let rendered = try_start(batch, id, own_env, dependency).unwrap();
    (rendered.prompt, (rendered.adapter, rendered.env))
}

fn try_start(
    batch: &BatchFile,
    id: &str,
    own_env: &[(&str, &str)],
    dependency: Option<(&str, &str)>,
) -> Result<supervisor::batch_file::render::Rendered, RenderError> {
    let own_env = own_env
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    let deps: BTreeMap<TaskId, DependencyResult> = dependency
        .map(|(id, result)| {
            (
                id.parse().unwrap(),
                DependencyResult {
                    result: result.to_owned(),
                    outputs: BTreeMap::new(),
                },
            )
        })
        .into_iter()
        .collect();
    let planned = task(batch, id);
    let batch_id: BatchId = "nightly-x".parse().unwrap();
    let agent = &batch.plan.agents[spec(batch, id).agent.0 as usize];
    let context = RenderContext {
        model: agent.models.first().map(|model| &**model),
        batch: &batch_id,
        batch_name: &batch.plan.settings.name,
        task: &planned.id,
        attempt: AttemptNo(1),
        item: planned.item.as_deref(),
        slot: 2,
        deps: &deps,
        own_env: &own_env,
        repo: None,
        about: None,
        hand_off: None,
    };
    let agent: AgentWork = serde_json::from_str(&agent.work).unwrap();
    let settings: BatchWork = serde_json::from_str(&batch.plan.settings.work).unwrap();
    Renderer::default().start(&settings, &agent, &work(batch, id), context)
}

#[test]
fn an_attempt_gets_its_own_words() {
    let batch = read_alone(
        "name: nightly\nvars: {crate: parser, n: 1}\n\
         agents:\n  c: {kind: command, program: tool, args: [--slot, \"{{ slot }}\", 5], prompt_by: stdin, result_file: \"out/{{ task.id }}.json\"}\n\
         tasks:\n- {id: first, run: x}\n- id: a\n  agent: c\n  depends_on: [first]\n  vars: {n: 2}\n  \
         prompt: \"{{ vars.crate }} {{ vars.n }} {{ batch.name }} {{ batch.id }} {{ deps['first'].result }} <&>\"\n",
    );
    assert!(work(&batch, "a").reads_deps);
    assert!(!work(&batch, "first").reads_deps);
    let (prompt, (adapter, _)) = start(&batch, "a", &[], Some(("first", "went well")));
    assert_eq!(
        prompt.as_deref(),
        Some("parser 2 nightly nightly-x went well <&>")
    );
    let Adapter::Command(command) = adapter else {
        panic!("{adapter:?}")
    };
    assert_eq!(command.argv, ["tool", "--slot", "2", "5"]);
    assert_eq!(command.prompt_by, PromptBy::Stdin);
    assert_eq!(command.result_file.as_deref(), Some("out/a.json"));
}

#[test]
fn claude_needs_no_entry_and_takes_its_keys() {
    let batch = read_alone(
        "agents:\n  c: {kind: claude, program: /opt/claude, args: [--max-turns, \"{{ slot }}\"], model: m, permissions: ask, home: shared, system_prompt: \"Task {{ task.id }}.\"}\n\
         tasks: [{id: a, agent: claude, prompt: p}, {id: b, agent: c, prompt: p, limits: {turns: 5, tokens: 9, cost_usd: 1}}]\n",
    );
    let (prompt, (adapter, _)) = start(&batch, "a", &[], None);
    assert_eq!(prompt.as_deref(), Some("p"));
    let Adapter::Program(claude) = adapter else {
        panic!("{adapter:?}")
    };
    assert_eq!((claude.program.as_str(), claude.model), ("claude", None));
    assert_eq!(claude.permissions, Permissions::Full);
    assert_eq!(
        (claude.home, claude.credentials),
        (Home::Task, Credentials::Copy)
    );

    let (_, (adapter, _)) = start(&batch, "b", &[], None);
    let Adapter::Program(claude) = adapter else {
        panic!("{adapter:?}")
    };
    assert_eq!(claude.program, "/opt/claude");
    assert_eq!(claude.args, ["--max-turns", "2"]);
    assert_eq!(claude.model.as_deref(), Some("m"));
    assert_eq!(claude.permissions, Permissions::Ask);
    assert_eq!(claude.home, Home::Shared);
    assert_eq!(claude.system_prompt.as_deref(), Some("Task b."));
    let accounts = batch.plan.accounts.iter().map(|account| &*account.name);
    assert_eq!(accounts.collect::<Vec<_>>(), ["claude"]);
}

#[test]
fn models_are_candidates_in_order_and_each_is_named_once() {
    let batch = read_alone(
        "agents: {c: {kind: claude, models: [large, small], mcp: {docs: {command: [docs, \"{{ task.id }}\"], env: {P: \"{{ slot }}\"}}}}}\n\
         tasks: [{id: a, agent: c, prompt: p}]\n",
    );
    let models = &batch.plan.agents[0].models;
    assert_eq!(
        models.iter().map(|model| &**model).collect::<Vec<_>>(),
        ["large", "small"]
    );
    let (_, (adapter, _)) = start(&batch, "a", &[], None);
    let Adapter::Program(claude) = adapter else {
        panic!("{adapter:?}")
    };
    assert_eq!(
        claude.model.as_deref(),
        Some("large"),
        "the one of the attempt"
    );
    let docs = &claude.mcp["docs"];
    assert_eq!(
        (docs.command.as_str(), docs.args.as_slice()),
        ("docs", &["a".to_owned()][..])
    );
    assert_eq!(docs.env["P"], "2");
}

#[test]
fn the_environment_is_a_list_of_what_is_allowed() {
    let batch = read_alone(
        "name: n\nenv: {A: batch, B: batch, C: batch, PORT: \"80{{ slot }}\"}\nenv_from: [TOKEN, ABSENT]\n\
         agents: {c: {kind: command, command: [c], env: {B: agent, C: agent}}}\n\
         tasks: [{id: a, agent: c, prompt: p, env: {C: task, HOME: /work}}]\n",
    );
    let own = [
        ("PATH", "/bin"),
        ("HOME", "/root"),
        ("TOKEN", "t"),
        ("SECRET", "s"),
        ("LC_ALL", "C"),
    ];
    let (_, (_, env)) = start(&batch, "a", &own, None);
    let expected = [
        ("A", "batch"),
        ("B", "agent"),
        ("C", "task"),
        ("HOME", "/work"),
        ("LC_ALL", "C"),
        ("PATH", "/bin"),
        ("PORT", "802"),
        ("SUPERVISOR_ATTEMPT", "1"),
        ("SUPERVISOR_BATCH", "nightly-x"),
        ("SUPERVISOR_SLOT", "2"),
        ("SUPERVISOR_TASK", "a"),
        ("TOKEN", "t"),
    ];
    let expected: BTreeMap<String, String> = expected
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    assert_eq!(env, expected);
}

#[test]
fn scripts_come_from_the_prompt_the_agent_or_a_file() {
    let folder = folder_with(&[(
        "demo.yml",
        "- say: \"from a file, {{ task.id }}\"\n- crash\n",
    )]);
    let batch = read_in(
        folder.path(),
        "agents:\n  inline: {kind: scripted, script: [{say: inline}, hang]}\n  \
         file: {kind: scripted, script: demo.yml}\n\
         tasks:\n- id: a\n  agent: scripted\n  prompt: |\n    - wait_message: 5s\n    - run: make {{ task.id }}\n    \
         - on_attempt: {1: [{sleep: 200ms}], other: [{fail: {class: crash, reset_in: 2s}}]}\n\
         - {id: b, agent: inline}\n- {id: c, agent: file, prompt: aside}\n",
    );
    let script = |id| {
        let (prompt, (adapter, _)) = start(&batch, id, &[], None);
        let Adapter::Scripted(scripted) = adapter else {
            panic!("{adapter:?}")
        };
        let Text::Inline(text) = scripted.script else {
            panic!("inline")
        };
        (
            prompt,
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
        )
    };
    let (prompt, a) = script("a");
    assert_eq!(prompt, None);
    assert_eq!(a[0]["wait_message"]["timeout_ms"], 5000);
    assert_eq!(
        a[1]["run"]["argv"],
        serde_json::json!(["sh", "-c", "make a"])
    );
    assert_eq!(a[2]["on_attempt"]["1"][0]["sleep"], 200);
    assert_eq!(a[2]["on_attempt"]["other"][0]["fail"]["reset_in_ms"], 2000);
    assert_eq!(
        script("b").1,
        serde_json::json!([{"say": "inline"}, "hang"])
    );
    let (prompt, c) = script("c");
    assert_eq!(
        prompt.as_deref(),
        Some("aside"),
        "the agent's own script leaves the prompt a prompt"
    );
    assert_eq!(c, serde_json::json!([{"say": "from a file, c"}, "crash"]));
}

#[test]
fn verify_commands_are_rendered_with_their_own_rules() {
    let batch = read_alone(
        "vars: {crate: parser}\ntasks:\n- id: a\n  run: x\n  verify:\n  - cargo test -p {{ vars.crate }}\n  \
         - [test, -f, \"{{ task.id }}\"]\n  - {run: slow, timeout: 2h, env: {N: \"{{ slot }}\"}}\n",
    );
    assert!(spec(&batch, "a").verify);
    let settings: BatchWork = serde_json::from_str(&batch.plan.settings.work).unwrap();
    let batch_id: BatchId = "n-x".parse().unwrap();
    let context = RenderContext {
        batch: &batch_id,
        batch_name: "n",
        task: &batch.plan.tasks[0].id,
        attempt: AttemptNo(3),
        item: None,
        slot: 1,
        model: None,
        deps: &BTreeMap::new(),
        own_env: &BTreeMap::new(),
        repo: None,
        about: None,
        hand_off: None,
    };
    let rendered = Renderer::default()
        .verify(&settings, &work(&batch, "a"), context)
        .unwrap();
    let Adapter::Verify(verify) = rendered.adapter else {
        panic!("verify")
    };
    assert_eq!(
        verify.commands[0].argv,
        ["sh", "-c", "cargo test -p parser"]
    );
    assert_eq!(verify.commands[0].timeout_ms, 600_000);
    assert_eq!(verify.commands[1].argv, ["test", "-f", "a"]);
    assert_eq!(verify.commands[2].timeout_ms, 7_200_000);
    assert_eq!(verify.commands[2].env["N"], "1");
    assert_eq!(rendered.env["SUPERVISOR_ATTEMPT"], "3");
}

#[test]
fn a_prompt_that_fits_no_argument_is_refused_before_the_start() {
    let long = "x".repeat(200_000);
    let batch = read_alone(&format!(
        "agents: {{c: {{kind: command, command: [c]}}}}\ntasks: [{{id: a, agent: c, prompt: {long}}}]\n"
    ));
    let error = try_start(&batch, "a", &[], None).unwrap_err();
    assert!(
        matches!(
            error,
            RenderError::TooLong {
                length: 200_000,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("prompt_by: stdin"));
}

#[test]
fn a_result_that_breaks_a_template_is_an_error_of_this_attempt() {
    let batch = read_alone(
        "tasks:\n- {id: a, run: x}\n- {id: b, run: \"{{ deps['a'].result }}\", depends_on: [a]}\n",
    );
    assert!(try_start(&batch, "b", &[], Some(("a", "fine"))).is_ok());
    let error = try_start(&batch, "b", &[], None).unwrap_err();
    assert!(matches!(error, RenderError::Template { .. }), "{error}");
    let error = try_start(&batch, "b", &[], Some(("a", "zero\0byte"))).unwrap_err();
    assert!(matches!(error, RenderError::ZeroByte { .. }), "{error}");
}

#[test]
fn a_plan_is_shown_in_an_order_that_keeps_every_dependency() {
    let batch = read_alone(
        "tasks:\n- {id: last, run: x, depends_on: [a, b]}\n- {id: a, run: x}\n\
         - {id: b, run: x, priority: 5}\n- {id: c, run: x, depends_on: [last], touches: [\"src/**\"]}\n",
    );
    let summary = summary(&batch.plan);
    let order: Vec<(&str, u32)> = summary
        .tasks
        .iter()
        .map(|line| (line.id.as_str(), line.level))
        .collect();
    assert_eq!(order, [("b", 1), ("a", 1), ("last", 2), ("c", 3)]);
    assert_eq!(summary.levels, 3);
    assert_eq!(summary.tasks[2].depends_on, ["a", "b"]);
    assert_eq!(summary.tasks[3].touches, ["src/**"]);
    assert_eq!(summary.tasks[3].agent, "run");
}

/// The maps of the schema with fixed keys: where a key stands in a file, as text around it.
#[test]
fn every_key_of_the_schema_is_read_and_explained() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let places: &[(&str, &str, &str)] = &[
        ("", "", "\n"),
        ("Common", "defaults: {", "}\n"),
        ("AgentKeys", "agents: {x: {", "}}\n"),
        ("AccountKeys", "accounts: {x: {", "}}\n"),
        ("BatchLimitKeys", "limits: {", "}\n"),
        ("TaskLimitKeys", "defaults: {limits: {", "}}\n"),
        ("RetryKeys", "defaults: {retry: {", "}}\n"),
        ("VerifyKeys", "defaults: {verify: [{", "}]}\n"),
        ("TaskLow", "tasks: [{", "}]\n"),
        ("RepoKeys", "repos: {x: {", "}}\n"),
        ("WorktreesKeys", "worktrees: {", "}\n"),
        ("MergeKeys", "merge: {", "}\n"),
        ("HookKeys", "hooks: {", "}\n"),
        ("ReviewKeys", "defaults: {review: {", "}}\n"),
        ("ForeachKeys", "tasks: [{id: a, foreach: {", "}}]\n"),
        (
            "ConditionKeys",
            "tasks: [{id: a, depends_on: {b: {",
            "}}}]\n",
        ),
        (
            "StepKeys",
            "agents: {x: {kind: scripted, script: [{",
            "}]}}\n",
        ),
    ];
    let folder = folder_with(&[]);
    for (name, before, after) in places {
        let definition = if name.is_empty() {
            &schema
        } else {
            &schema["$defs"][name]
        };
        let properties = definition["properties"].as_object();
        let properties = properties.unwrap_or_else(|| panic!("{name} is not in the schema"));
        assert!(!properties.is_empty());
        for (key, value) in properties {
            let explained = value["description"].is_string();
            assert!(explained, "{name}.{key} is not explained");
            let text = format!("{before}{key}: [[{{}}]]{after}");
            let source = Source::Text {
                name: "f",
                bytes: text.as_bytes(),
            };
            let request = Request {
                source,
                current_dir: folder.path(),
                user_config: None,
                set: &[],
            };
            let said = read(&request).map_or_else(|report| report.to_string(), |_| String::new());
            assert!(
                !said.contains(&format!("unknown key `{key}`")),
                "{name}.{key}: {said}"
            );
        }
    }
    for later in ["notify", "disk_free"] {
        let quoted = format!("\"{later}\":");
        assert!(
            !schema.to_string().contains(&quoted),
            "{later} is not of this release"
        );
    }
    assert_eq!(schema["required"], serde_json::json!(["version", "tasks"]));
}
