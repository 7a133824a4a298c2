//! The `command` adapter: ways of the prompt, and what an end means.

use protocol::class::Class;
use protocol::command::{Adapter, CommandAdapter, PromptBy, Text};
use protocol::event_file::EventLine;
use protocol::report::{EXCERPT_MAX, Event, Receipt, ResultStatus, SteerReach};

use crate::client::{Client, command, is, prompted};

#[test]
fn a_command_that_exits_0_is_ok_and_leaves_its_files() {
    let (result, ended) = Client::shell("echo out; echo err >&2").result();
    assert_eq!((result.status, result.class), (ResultStatus::Ok, None));
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(
        (ended.log("stdout.log"), ended.log("stderr.log")),
        ("out\n".into(), "err\n".into())
    );
    let kept: Vec<Event> = ended
        .log("events.jsonl")
        .lines()
        .map(|line| serde_json::from_str::<EventLine>(line).unwrap().event)
        .collect();
    assert_eq!(kept, ended.events);
    let manifest = ended.log("manifest.json");
    assert!(manifest.contains("\"env_names\":[\"PATH\"]"), "{manifest}");
    assert!(
        !manifest.contains(&std::env::var("PATH").unwrap()),
        "a value leaked: {manifest}"
    );
    assert!(manifest.contains("\"adapter\":\"command\""), "{manifest}");
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let paths = &manifest["paths"];
    for (name, file) in [
        ("result", "exit.json"),
        ("events", "events.jsonl"),
        ("stdout", "stdout.log"),
    ] {
        let run = paths["run"].as_str().unwrap();
        assert_eq!(paths[name], format!("{run}/{file}"), "{paths}");
        assert!(run.starts_with('/') && run.ends_with("runs/7"), "{paths}");
    }
    assert!(paths["prompt"].is_null() && paths["result_file"].is_null());
}

#[test]
fn files_are_private_to_the_user() {
    use std::os::unix::fs::PermissionsExt;
    let (_, ended) = Client::shell("echo out; echo err >&2").result();
    let run = ended.home.path().join("state/runs/7");
    assert_eq!(run.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let files = std::fs::read_dir(&run).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = files
        .map(|file| {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            file.file_name().into_string().unwrap()
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "bridge.json",
            "bridge.sock",
            "events.jsonl",
            "exit.json",
            "manifest.json",
            "stderr.log",
            "stdout.log"
        ]
    );
}

#[test]
fn it_says_what_it_can_do_and_what_it_started() {
    let mut client = Client::shell("exit 0");
    let started = client.wait_for(|event| match event {
        Event::Started(started) => Some(started.clone()),
        _ => None,
    });
    assert_eq!(started.capabilities.steer, SteerReach::None);
    assert_eq!(started.capabilities.receipt, Receipt::Injected);
    assert!(!started.capabilities.usage && !started.capabilities.interrupt);
    let spawned = client.wait_for(|event| match event {
        Event::ProcessSpawned(spawned) => Some(spawned.clone()),
        _ => None,
    });
    assert_eq!(spawned.command, "sh -c exit 0");
    assert!(spawned.start_ticks > 0);
    client.end();
}

#[test]
fn another_status_is_agent_failed_with_the_end_of_the_output_as_evidence() {
    let (result, _) = Client::shell("seq 1 5000 >&2; exit 3").result();
    assert_eq!(
        (result.status, result.class),
        (ResultStatus::Failed, Some(Class::AgentFailed))
    );
    assert_eq!(result.exit_code, Some(3));
    assert!(
        result.summary.contains("exited with 3"),
        "{}",
        result.summary
    );
    assert!(
        result.evidence.ends_with("4999\n5000\n"),
        "{}",
        result.evidence
    );
    assert!(result.evidence.len() <= EXCERPT_MAX);
}

#[test]
fn a_signal_is_a_crash() {
    let (result, _) = Client::shell("kill -SEGV $$").result();
    assert_eq!(
        (result.class, result.signal),
        (Some(Class::Crash), Some(11))
    );
}

#[test]
fn a_missing_program_is_the_environments_fault_and_named() {
    let client = Client::started(|client| client.start(command(&["no-such-program"])));
    let (result, ended) = client.result();
    assert_eq!(result.class, Some(Class::Environment));
    assert!(
        result
            .summary
            .contains("`no-such-program` was not found; PATH is ")
    );
    assert!(
        matches!(ended.events[0], Event::Started(_)),
        "a result comes after `started`"
    );
    let (by_path, _) = Client::started(|client| client.start(command(&["/no/program"]))).result();
    assert_eq!(by_path.class, Some(Class::Environment));
    assert!(
        by_path.summary.contains("/no/program"),
        "{}",
        by_path.summary
    );
}

/// A shell that ran and could not find a program is a command that failed, as any other exit is.
#[test]
fn any_exit_but_zero_is_the_commands_own_failure() {
    for (script, code) in [
        ("exit 1", 1),
        ("exit 126", 126),
        ("exit 127", 127),
        ("no-such-program", 127),
        ("exit 255", 255),
    ] {
        let (result, _) = Client::shell(script).result();
        assert_eq!(
            (result.class, result.exit_code),
            (Some(Class::AgentFailed), Some(code)),
            "{script}"
        );
    }
}

/// The order of the manual: the result file is looked at before the exit status.
#[test]
fn without_the_result_file_no_exit_status_counts() {
    for code in [0, 1, 126, 127] {
        let client = Client::started(|client| {
            let mut adapter = command(&["sh", "-c", &format!("exit {code}")]);
            if let Adapter::Command(command) = &mut adapter {
                command.result_file = Some(client.path("result.json").display().to_string());
            }
            client.start(adapter)
        });
        let (result, _) = client.result();
        assert_eq!(
            (result.class, result.exit_code),
            (Some(Class::NoResult), Some(code))
        );
    }
}

#[test]
fn a_missing_working_folder_is_the_environments_fault_and_named() {
    let client = Client::started(|client| {
        let mut start = client.start(command(&["true"]));
        start.cwd = "/no/such/folder".to_owned();
        start
    });
    let (result, _) = client.result();
    assert_eq!(result.class, Some(Class::Environment));
    assert!(
        result.summary.contains("/no/such/folder"),
        "{}",
        result.summary
    );
}

#[test]
fn an_empty_command_is_refused() {
    let (result, _) = Client::started(|client| client.start(command(&[]))).result();
    assert_eq!(result.class, Some(Class::SetupFailed));
}

#[test]
fn a_run_folder_that_can_not_be_made_is_said() {
    let client = Client::started(|client| {
        std::fs::write(client.path("state"), "a file").unwrap();
        client.start(command(&["true"]))
    });
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(4));
    let Some(Event::Result(result)) = ended.events.last() else {
        panic!("no result")
    };
    assert_eq!(result.class, Some(Class::Environment));
    assert!(
        result.summary.contains("can not make"),
        "{}",
        result.summary
    );
}

#[test]
fn the_environment_is_exactly_what_start_says_and_the_bridge() {
    let client = Client::started(|client| {
        let mut start = client.start(command(&["env"]));
        start.env.insert("ONE".to_owned(), "a=b c".to_owned());
        start
    });
    let (_, ended) = client.result();
    let mut lines: Vec<String> = ended.log("stdout.log").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines[0], "ONE=a=b c");
    assert!(
        lines[1].starts_with("PATH=") && lines.len() == 3,
        "{lines:?}"
    );
    assert!(
        lines[2].starts_with("SUPERVISOR_BRIDGE=/") && lines[2].ends_with("/bridge.json"),
        "{lines:?}"
    );
}

#[test]
fn a_program_finds_no_signal_ignored_by_its_host() {
    let (_, ended) = Client::shell("exec grep SigIgn /proc/self/status").result();
    let log = ended.log("stdout.log");
    let ignored = log.trim().strip_prefix("SigIgn:\t").unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    let bit = |signal: rustix::process::Signal| 1_u64 << (signal.as_raw() - 1);
    assert_eq!(ignored & bit(rustix::process::Signal::PIPE), 0, "{log}");
    assert_eq!(ignored & bit(rustix::process::Signal::TERM), 0, "{log}");
}

fn with_prompt(
    client: &Client,
    argv: &[&str],
    by: PromptBy,
    prompt: &str,
) -> protocol::command::Start {
    let mut start = client.start(prompted(argv, by));
    start.prompt = Some(Text::Inline(prompt.to_owned()));
    start
}

#[test]
fn the_prompt_goes_in_by_each_way() {
    let cases: [(&[&str], PromptBy); 3] = [
        (&["printf", "%s"], PromptBy::Argument),
        (&["cat"], PromptBy::Stdin),
        (
            &["sh", "-c", "cat \"$SUPERVISOR_PROMPT_FILE\""],
            PromptBy::File,
        ),
    ];
    for (argv, by) in cases {
        let client = Client::started(|client| with_prompt(client, argv, by, "do\nthis"));
        let (result, ended) = client.result();
        assert_eq!(result.status, ResultStatus::Ok);
        assert_eq!(ended.log("stdout.log"), "do\nthis");
        assert!(ended.events.contains(&Event::PromptSent {}));
    }
}

#[test]
fn without_a_way_for_the_prompt_none_is_sent() {
    let (_, ended) =
        Client::started(|client| with_prompt(client, &["cat"], PromptBy::None, "x")).result();
    assert_eq!(ended.log("stdout.log"), "");
    assert!(!ended.events.contains(&Event::PromptSent {}));
}

#[test]
fn a_prompt_may_come_in_a_file() {
    let client = Client::started(|client| {
        std::fs::write(client.path("prompt"), "from a file").unwrap();
        let mut start = client.start(prompted(&["cat"], PromptBy::Stdin));
        start.prompt = Some(Text::File(client.path("prompt").display().to_string()));
        start
    });
    assert_eq!(client.result().1.log("stdout.log"), "from a file");
    let client = Client::started(|client| {
        let mut start = client.start(prompted(&["cat"], PromptBy::Stdin));
        start.prompt = Some(Text::File("/no/prompt".to_owned()));
        start
    });
    let (result, _) = client.result();
    assert_eq!(result.class, Some(Class::SetupFailed));
    assert!(result.summary.contains("/no/prompt"));
}

#[test]
fn a_prompt_too_long_for_an_argument_is_refused_with_the_way_out() {
    let long = "x".repeat(300_000);
    let client =
        Client::started(|client| with_prompt(client, &["true"], PromptBy::Argument, &long));
    let (result, _) = client.result();
    assert_eq!(result.class, Some(Class::SetupFailed));
    assert!(
        result.summary.contains("stdin or file"),
        "{}",
        result.summary
    );
}

#[test]
fn a_large_prompt_on_stdin_does_not_stop_the_host_from_reading() {
    // More than two pipes hold: it only works if reading and writing go on side by side.
    let large = "0123456789abcdef".repeat(50_000);
    let client = Client::started(|client| with_prompt(client, &["cat"], PromptBy::Stdin, &large));
    assert_eq!(client.result().1.log("stdout.log"), large);
}

#[test]
fn a_program_that_does_not_read_its_stdin_is_not_held_up() {
    let large = "x".repeat(800_000);
    let (result, _) =
        Client::started(|client| with_prompt(client, &["true"], PromptBy::Stdin, &large)).result();
    assert_eq!(result.status, ResultStatus::Ok);
}

/// Runs a shell line that may write the result file.
fn with_result_file(line: &str) -> protocol::report::RunResult {
    let client = Client::started(|client| {
        std::fs::write(
            client.path("result.json"),
            r#"{"status":"ok","summary":"stale"}"#,
        )
        .unwrap();
        client.start(Adapter::Command(CommandAdapter {
            argv: ["sh", "-c", line].map(str::to_owned).into(),
            prompt_by: PromptBy::None,
            result_file: Some(client.path("result.json").display().to_string()),
        }))
    });
    client.result().0
}

#[test]
fn a_result_file_adds_to_the_exit_status() {
    let good = with_result_file(
        r#"echo '{"status":"ok","summary":"all green","usage":{"tokens":5}}' > result.json"#,
    );
    assert_eq!(
        (good.status, good.summary.as_str(), good.usage.tokens),
        (ResultStatus::Ok, "all green", 5)
    );
    let failed = with_result_file(r#"echo '{"status":"failed","class":"network"}' > result.json"#);
    assert_eq!(
        (failed.status, failed.class),
        (ResultStatus::Failed, Some(Class::Network))
    );
    let unnamed = with_result_file(r#"echo '{"status":"failed"}' > result.json"#);
    assert_eq!(unnamed.class, Some(Class::AgentFailed));
    let both = with_result_file(r#"echo '{"status":"ok"}' > result.json; exit 2"#);
    assert_eq!(
        (both.class, both.exit_code),
        (Some(Class::AgentFailed), Some(2))
    );
}

#[test]
fn a_result_file_that_is_absent_stale_or_invalid_is_no_result() {
    let absent = with_result_file("true");
    assert_eq!(
        absent.class,
        Some(Class::NoResult),
        "the stale file of an earlier attempt counted"
    );
    let failed_as_well = with_result_file("exit 1");
    assert_eq!(failed_as_well.class, Some(Class::NoResult));
    let invalid = with_result_file("echo '{' > result.json");
    assert_eq!(invalid.class, Some(Class::NoResult));
    assert!(invalid.summary.contains("not valid"), "{}", invalid.summary);
    let large = with_result_file("head -c 1048577 /dev/zero > result.json");
    assert_eq!(large.class, Some(Class::NoResult));
    let signal = with_result_file("kill -KILL $$");
    assert_eq!(signal.class, Some(Class::Crash), "a signal comes first");
}

#[test]
fn processes_left_behind_are_killed_and_said_but_change_no_result() {
    // The survivor holds the pipe and the witness; both end with it.
    let (result, ended) = Client::shell("setsid sleep 1000 & exit 0").result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(ended.notices(), ["processes left at the end and killed: 1"]);
}

#[test]
fn output_of_a_late_writer_is_awaited_for_a_moment() {
    let (_, ended) = Client::shell("(echo late >&9; echo late) & exit 0").result();
    assert_eq!(ended.log("stdout.log"), "late\n");
}

#[test]
fn a_run_that_was_never_asked_to_stop_reports_in_order() {
    let mut client = Client::shell("exit 0");
    client.wait_for(is(|event| matches!(event, Event::Started(_))));
    client.wait_for(is(|event| matches!(event, Event::ProcessSpawned(_))));
    client.wait_for(is(|event| matches!(event, Event::TurnEnded {})));
    client.wait_for(is(|event| matches!(event, Event::Result(_))));
    assert!(client.event().is_none());
}
