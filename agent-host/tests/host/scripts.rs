//! The `scripted` adapter: every step, driven from outside.

use std::os::unix::process::ExitStatusExt;

use protocol::class::Class;
use protocol::command::{Answer, Command, SteerMode, Text};
use protocol::framing::LINE_MAX;
use protocol::ids::{AttemptNo, MessageId, QuestionId};
use protocol::report::{Asked, Event, Progress, Receipt, ResultStatus, Said, SteerReach, Usage};

use crate::client::{Client, is, message, script};

fn said(text: &str) -> Said {
    Said {
        text: text.to_owned(),
    }
}

#[test]
fn the_steps_of_an_honest_script_do_real_things() {
    let steps = r#"[
        {"say": "hello"}, {"write": {"path": "a/b.txt", "text": "one\n"}},
        {"append": {"path": "a/b.txt", "text": "two\n"}},
        {"run": {"argv": ["sh", "-c", "wc -l < a/b.txt"]}},
        {"tool": {"name": "grep", "detail": "x"}}, {"sleep": 1},
        {"progress": {"text": "half", "percent": 50}},
        {"usage": {"turns": 1, "tokens": 20, "cost_micros": 300}},
        {"reply": "as you say"}, {"escalate": "look"}
    ]"#;
    let (result, ended) = Client::script(steps).result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(
        result.usage,
        Usage {
            turns: 1,
            tokens: 20,
            cost_micros: 300
        }
    );
    assert_eq!(result.session.as_deref(), Some("scripted-task"));
    assert_eq!(ended.text("a/b.txt"), "one\ntwo\n");
    assert_eq!(ended.log("stdout.log"), "hello\n2\n");
    let progress = Event::Progress(Progress {
        text: "half".into(),
        percent: Some(50),
    });
    let expected = [
        Event::AssistantMessage(said("hello")),
        progress,
        Event::Usage(result.usage),
        Event::Reply(said("as you say")),
        Event::Escalation(said("look")),
        Event::TurnEnded {},
    ];
    let mut rest = ended.events.iter();
    for event in &expected {
        assert!(
            rest.any(|found| found == event),
            "{event:?} is missing or out of order"
        );
    }
    let oks = ended.events.iter().filter_map(|event| match event {
        Event::ToolResult(tool) => Some((tool.name.as_str(), tool.ok)),
        _ => None,
    });
    let oks: Vec<_> = oks.collect();
    assert_eq!(oks, [("sh", Some(true)), ("grep", Some(true))]);
}

#[test]
fn it_claims_what_it_can_prove() {
    let mut client = Client::script("[]");
    let started = client.wait_for(|event| match event {
        Event::Started(started) => Some(started.clone()),
        _ => None,
    });
    assert_eq!(started.session.as_deref(), Some("scripted-task"));
    let able = started.capabilities;
    assert_eq!(
        (able.steer, able.receipt),
        (SteerReach::Interrupt, Receipt::Seen)
    );
    assert!(able.interrupt && able.resume && able.questions && able.usage && able.cost);
    client.end();
}

#[test]
fn a_resumed_session_keeps_its_name() {
    let client = Client::started(|client| {
        let mut start = client.start(script("[]"));
        start.session = Some("mine".to_owned());
        start
    });
    assert_eq!(client.result().0.session.as_deref(), Some("mine"));
}

#[test]
fn a_script_that_is_none_is_refused() {
    let deep = format!(
        "{}{}",
        r#"[{"on_attempt":{"1":"#.repeat(6),
        "[]".to_owned() + &"}}]".repeat(6)
    );
    let long = format!("[{}\"hang\"]", "\"hang\",".repeat(10_000));
    for (text, reason) in [
        ("{", "can not be read"),
        (r#"["dance"]"#, "unknown variant"),
        (&deep, "nests deeper"),
        (&long, "more than 10000 steps"),
    ] {
        let (result, _) = Client::script(text).result();
        assert_eq!(result.class, Some(Class::SetupFailed));
        assert!(result.summary.contains(reason), "{}", result.summary);
    }
}

#[test]
fn a_script_may_come_in_a_file() {
    let client = Client::started(|client| {
        std::fs::write(client.path("script.json"), r#"[{"say": "from a file"}]"#).unwrap();
        let path = client.path("script.json").display().to_string();
        let script = Text::File(path);
        client.start(protocol::command::Adapter::Scripted(
            protocol::command::ScriptedAdapter { script },
        ))
    });
    assert_eq!(client.result().1.log("stdout.log"), "from a file\n");
}

#[test]
fn a_failing_command_ends_the_script_unless_it_may_fail() {
    let steps = r#"[{"run": {"argv": ["false"], "may_fail": true}},
        {"run": {"argv": ["sh", "-c", "echo why >&2; exit 4"]}}, {"say": "never"}]"#;
    let (result, ended) = Client::script(steps).result();
    assert_eq!(
        (result.class, result.exit_code),
        (Some(Class::AgentFailed), Some(4))
    );
    assert_eq!(result.evidence, "why\n");
    assert_eq!(ended.log("stdout.log"), "");
    let (missing, _) = Client::script(r#"[{"run": {"argv": ["no-such-program"]}}]"#).result();
    assert_eq!(missing.class, Some(Class::Environment));
}

#[test]
fn a_script_stays_in_its_folder() {
    for path in ["../out", "/tmp/out", "a/../../b", ""] {
        let (result, _) = Client::script(&format!(
            r#"[{{"write": {{"path": "{path}", "text": ""}}}}]"#
        ))
        .result();
        assert_eq!(result.class, Some(Class::SetupFailed), "{path}");
    }
}

#[test]
fn results_and_failures_end_the_script() {
    let ok = r#"[{"result": {"status": "ok", "summary": "fine"}}, {"say": "never"}]"#;
    let (result, ended) = Client::script(ok).result();
    assert_eq!(
        (result.status, result.summary.as_str()),
        (ResultStatus::Ok, "fine")
    );
    assert_eq!(ended.log("stdout.log"), "");
    let (failed, _) = Client::script(r#"[{"result": {"status": "failed"}}]"#).result();
    assert_eq!(failed.class, Some(Class::AgentFailed));
    let limit = r#"[{"fail": {"class": "usage_limit", "message": "later", "reset_in_ms": 60000}}]"#;
    let (limited, ended) = Client::script(limit).result();
    assert_eq!(limited.class, Some(Class::UsageLimit));
    assert!(limited.reset_at_ms.unwrap() > 1_600_000_000_000);
    let reported = |event: &Event| match event {
        Event::RateLimited(limit) => limit.reset_at_ms == limited.reset_at_ms,
        _ => false,
    };
    assert!(ended.events.iter().any(reported));
}

#[test]
fn guards_choose_by_attempt() {
    let steps = r#"[{"on_attempt": {"1": [{"say": "first"}], "other": [{"say": "again"}]}},
        {"say": "always"}]"#;
    for (attempt, log) in [(1, "first\nalways\n"), (3, "again\nalways\n")] {
        let client = Client::started(|client| {
            let mut start = client.start(script(steps));
            start.attempt = AttemptNo(attempt);
            start
        });
        assert_eq!(client.result().1.log("stdout.log"), log);
    }
}

#[test]
fn a_message_is_injected_then_seen_and_saved() {
    let mut client = Client::script(r#"[{"wait_message": {"save_to": "got"}}, {"reply": "yes"}]"#);
    client.deliver(3, SteerMode::After, "turn left");
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(ended.text("got"), "turn left");
    assert_eq!(ended.text("state/mailbox/injected"), "3\n");
    let rungs: Vec<&Event> = ended
        .events
        .iter()
        .filter(|event| {
            matches!(
                event,
                Event::MessageInjected { .. } | Event::MessageSeen { .. } | Event::Reply(_)
            )
        })
        .collect();
    let id = MessageId(3);
    let expected = [
        &Event::MessageInjected { id },
        &Event::MessageSeen { id },
        &Event::Reply(said("yes")),
    ];
    assert_eq!(rungs, expected);
}

#[test]
fn a_message_that_came_with_the_prompt_is_kept_for_the_wait() {
    let client = Client::started(|client| {
        let mut start = client.start(script(r#"[{"wait_message": {"save_to": "got"}}]"#));
        start.messages = vec![message(1, SteerMode::Boundary, "early")];
        start
    });
    assert_eq!(client.result().1.text("got"), "early");
}

#[test]
fn a_wait_for_a_message_may_end_without_one() {
    let steps = r#"[{"wait_message": {"timeout_ms": 20, "save_to": "got", "otherwise": "none"}}]"#;
    assert_eq!(Client::script(steps).result().1.text("got"), "none");
}

#[test]
fn a_boundary_message_goes_in_between_two_steps_and_an_interrupt_cuts_the_step_short() {
    let mut client = Client::script(r#"[{"say": "up"}, {"sleep": 3600000}, {"say": "next"}]"#);
    client.wait_for(is(|event| matches!(event, Event::AssistantMessage(_))));
    client.deliver(1, SteerMode::Boundary, "waits for the step's end");
    client.ping();
    client.deliver(2, SteerMode::Interrupt, "now");
    client.wait_for(is(|event| {
        *event == Event::MessageSeen { id: MessageId(1) }
    }));
    client.wait_for(is(|event| {
        *event == Event::MessageSeen { id: MessageId(2) }
    }));
    client.wait_for(is(|event| {
        *event
            == Event::AssistantMessage(Said {
                text: "next".into(),
            })
    }));
    assert_eq!(client.result().0.status, ResultStatus::Ok);
}

#[test]
fn an_interrupt_ends_a_hang_and_a_command_but_not_the_run() {
    let steps = r#"[{"say": "up"}, "hang", {"run": {"argv": ["sh", "-c", "echo up >&9; sleep 1000"]}},
        {"say": "over"}]"#;
    let mut client = Client::script(steps);
    client.wait_for(is(|event| matches!(event, Event::AssistantMessage(_))));
    client.tell(&Command::Interrupt {});
    client.wait_for_word("up");
    client.tell(&Command::Interrupt {});
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(ended.log("stdout.log"), "up\nover\n");
}

#[test]
fn a_message_after_the_last_step_is_read_and_changes_nothing() {
    let mut client = Client::script(r#"[{"say": "up"}, {"sleep": 300}]"#);
    client.wait_for(is(|event| matches!(event, Event::AssistantMessage(_))));
    client.deliver(1, SteerMode::After, "later");
    client.wait_for(is(|event| matches!(event, Event::TurnEnded {})));
    client.wait_for(is(|event| {
        *event == Event::MessageSeen { id: MessageId(1) }
    }));
    client.wait_for(is(|event| matches!(event, Event::TurnEnded {})));
    assert_eq!(client.result().0.status, ResultStatus::Ok);
}

#[test]
fn a_question_waits_for_its_own_answer() {
    let steps = r#"[{"ask": {"text": "which?", "options": ["a", "b"], "save_to": "answer"}}]"#;
    let mut client = Client::script(steps);
    let request = client.wait_for_request("ask");
    client.answer(
        request,
        Asked {
            question: QuestionId(5),
        },
    );
    let answer = |id, text: &str| {
        Command::Answer(Answer {
            question: QuestionId(id),
            text: Some(text.to_owned()),
        })
    };
    client.tell(&answer(4, "wrong question"));
    client.wait_for(is(|event| matches!(event, Event::Notice(_))));
    client.tell(&answer(5, "b"));
    let (result, ended) = client.result();
    assert_eq!(
        (result.status, ended.text("answer").as_str()),
        (ResultStatus::Ok, "b")
    );
}

#[test]
fn a_refused_question_fails_the_script() {
    let mut client = Client::script(r#"[{"ask": {"text": "which?"}}, {"say": "never"}]"#);
    let request = client.wait_for_request("ask");
    client.refuse(request, "nobody is there");
    let (result, _) = client.result();
    assert_eq!(result.class, Some(Class::AgentFailed));
    assert!(
        result.summary.contains("nobody is there"),
        "{}",
        result.summary
    );
}

#[test]
fn exit_and_crash_end_the_host_without_a_result() {
    let ended = Client::script(r#"[{"say": "bye"}, {"exit": 42}]"#).end();
    assert_eq!((ended.status.code(), ended.exit_file()), (Some(42), None));
    assert!(ended.events.contains(&Event::AssistantMessage(said("bye"))));
    let ended = Client::script(r#"[{"exit": 0}]"#).end();
    assert_eq!((ended.status.code(), ended.result()), (Some(0), None));
    let ended = Client::script(r#"["crash"]"#).end();
    assert_eq!((ended.status.signal(), ended.exit_file()), (Some(9), None));
}

#[test]
fn a_hang_answers_pings_and_obeys_a_stop() {
    let mut client = Client::script(r#"[{"say": "up"}, "hang"]"#);
    client.wait_for(is(|event| matches!(event, Event::AssistantMessage(_))));
    assert_eq!(client.ping().output_bytes, 3);
    client.stop(60_000);
    let ended = client.end();
    assert_eq!((ended.status.code(), ended.exit_file()), (Some(0), None));
}

#[test]
fn frozen_it_heeds_nothing_but_the_end_of_stdin() {
    let mut client = Client::script(r#"[{"say": "up"}, "freeze"]"#);
    client.wait_for(is(|event| matches!(event, Event::AssistantMessage(_))));
    client.stop(0);
    client.send(b"{\"id\":99,\"method\":\"ping\"}\n");
    client.hang_up();
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert!(
        ended.stderr.contains("stdin has ended"),
        "no stop was obeyed: {}",
        ended.stderr
    );
}

#[test]
fn a_flood_of_reports_waits_for_a_slow_reader() {
    let steps = r#"[{"flood": {"to": "reports", "lines": 5000, "line_bytes": 2000}}]"#;
    let mut client = Client::script(steps);
    client.wait_for(is(|event| matches!(event, Event::Started(_))));
    let peak = crate::output::peak_kib(client.child.id());
    assert!(peak < 8192, "10 MB of reports wait in {peak} KiB");
    let (_, ended) = client.result();
    let messages = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::AssistantMessage(_)));
    assert_eq!(messages.count(), 5000);
}

#[test]
fn a_flood_of_output_goes_to_the_log() {
    let steps = r#"[{"flood": {"to": "log", "lines": 20000, "line_bytes": 99}}]"#;
    let (_, ended) = Client::script(steps).result();
    assert_eq!(ended.log("stdout.log").len(), 2_000_000);
}

#[test]
fn a_wire_can_be_broken_in_every_way() {
    let steps =
        r#"[{"garbage": 2}, {"blank_lines": 2}, {"long_line": 1500000}, {"say": "and on"}]"#;
    let mut client = Client::script(steps);
    let mut lines = Vec::new();
    while let Some(line) = client.line() {
        lines.push(line);
    }
    let garbage = lines
        .iter()
        .filter(|line| line.as_slice() == b"this is no protocol");
    assert_eq!(garbage.count(), 2);
    assert_eq!(lines.iter().filter(|line| line.is_empty()).count(), 2);
    let long: Vec<usize> = lines
        .iter()
        .map(Vec::len)
        .filter(|&size| size > LINE_MAX)
        .collect();
    assert_eq!(long, [1_500_000]);
    assert!(String::from_utf8_lossy(lines.last().unwrap()).contains("\"type\":\"result\""));
}

#[test]
fn a_script_goes_on_behind_a_closed_pipe() {
    let ended = Client::script(
        r#"[{"say": "up"}, "close_stdout", {"write": {"path": "on", "text": "x"}}]"#,
    )
    .end();
    assert!(ended.events.contains(&Event::AssistantMessage(said("up"))));
    assert_eq!(ended.text("on"), "x");
    assert_eq!(ended.exit_file().unwrap().result.status, ResultStatus::Ok);
}

#[test]
fn whoever_ignores_stop_and_signals_still_ends_with_stdin() {
    let mut client = Client::script(r#"["ignore_stop", {"say": "up"}, "hang"]"#);
    client.wait_for(is(|event| matches!(event, Event::AssistantMessage(_))));
    client.stop(0);
    let pid = i32::try_from(client.child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM).unwrap();
    client.ping();
    client.hang_up();
    assert_eq!(client.end().status.code(), Some(0));
}

#[test]
fn what_a_script_leaves_behind_is_found_and_killed() {
    let steps = r#"[{"spawn_background": {"argv": ["sleep", "1000"]}}]"#;
    let (result, ended) = Client::script(steps).result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(ended.notices(), ["processes left at the end and killed: 1"]);
}

#[test]
fn a_stop_ends_a_script_in_its_command() {
    let steps = r#"[{"run": {"argv": ["sh", "-c", "echo up >&9; sleep 1000"]}}, {"say": "never"}]"#;
    let mut client = Client::script(steps);
    client.wait_for_word("up");
    client.stop(60_000);
    let ended = client.end();
    assert_eq!(
        (ended.status.code(), ended.log("stdout.log").as_str()),
        (Some(0), "")
    );
}
