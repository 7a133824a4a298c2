//! Recorded lines of the real program through the wire and the conversation: split, merged, with
//! unknown kinds between them, cut and reordered, nothing panics and nothing is lost.

use proptest::prelude::*;
use protocol::class::Class;
use protocol::framing::{Frame, FrameReader};
use protocol::ids::MessageId;
use protocol::report::{Event, Usage};
use serde_json::{Value, json};

use super::conversation::Conversation;
use super::line::{self, Heard};
use super::{Out, Pi, Step, Wire, is_edit_below};
use crate::agent::driven::wire::Verdict;

/// As version 0.87.1 printed them; paths and long texts cut.
const RECORDED: &str = include_str!("recorded.jsonl");

fn recorded() -> Vec<&'static str> {
    RECORDED.lines().collect()
}

/// A conversation that has said what the recorded one had said: a prompt, and a message into its
/// turn.
fn begun(out: &mut Out) -> Conversation {
    let mut conversation = Conversation::default();
    conversation.open(out);
    conversation.prompt("KA do it", Vec::new(), out);
    conversation.steer("use port 1", MessageId(1), out);
    conversation
}

fn play(bytes: &[u8], cuts: &[usize]) -> Out {
    let mut reader = FrameReader::with_max(Pi::LINE_MAX);
    let mut out = Out::default();
    let mut conversation = begun(&mut out);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        reader.push(&bytes[pair[0]..pair[1]]);
        while let Some(frame) = reader.next_frame() {
            if let Frame::Line(line) = frame {
                conversation.hear(line::read(&line), &mut out);
            }
        }
    }
    out
}

fn text(lines: &[&str]) -> Vec<u8> {
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

/// Without what counts: a notice for each unknown kind.
fn without_notices(mut out: Out) -> Out {
    out.events
        .retain(|event| !matches!(event, Event::Notice(_)));
    out
}

#[test]
fn every_recorded_line_is_understood() {
    assert!(recorded().len() >= 300, "{}", recorded().len());
    for line in recorded() {
        let heard = line::read(line.as_bytes());
        assert!(
            !matches!(heard, Heard::Unknown { .. } | Heard::Garbage),
            "{heard:?} of {line}"
        );
    }
}

#[test]
fn the_recorded_turns_end_as_they_did() {
    let out = play(&text(&recorded()), &[]);
    let ends = out.steps.iter().filter_map(|step| match step {
        Step::TurnEnded(ended) => Some((ended.verdict.clone(), ended.text.as_str())),
        _ => None,
    });
    let ends: Vec<(Verdict, &str)> = ends.collect();
    let failed = Verdict::Failed;
    // The second one was cut short, though not by this conversation.
    let expected = [
        (Verdict::Well, "It is done."),
        (Verdict::Aborted, ""),
        (Verdict::Well, "Now it went well."),
        (failed(Class::Auth), "401: "),
        (failed(Class::Network), "terminated"),
        (failed(Class::Overload), "529: "),
        (failed(Class::Overflow), "400: "),
        (Verdict::Well, "The end."),
    ];
    assert_eq!(ends.len(), expected.len(), "{ends:?}");
    for ((verdict, text), (wanted, begins)) in ends.iter().zip(&expected) {
        assert_eq!(
            (verdict, text.starts_with(begins)),
            (wanted, true),
            "{text}"
        );
    }
    assert_eq!(out.steps.first(), Some(&Step::Ready));
}

#[test]
fn the_recorded_message_was_seen_before_the_answer_to_it() {
    let out = play(&text(&recorded()), &[]);
    let seen = |event: &Event| *event == Event::MessageSeen { id: MessageId(1) };
    assert_eq!(out.events.iter().filter(|event| seen(event)).count(), 1);
    let place = |wanted: &dyn Fn(&Event) -> bool| out.events.iter().position(wanted);
    let result =
        place(&|event| matches!(event, Event::ToolResult(tool) if tool.detail.contains("begun")));
    let next = place(&|event| matches!(event, Event::ToolCall(tool) if tool.name == "write"));
    let seen = place(&seen);
    assert!(result < seen && seen < next, "{result:?} {seen:?} {next:?}");
}

#[test]
fn the_recorded_usage_is_what_the_program_counts() {
    let out = play(&text(&recorded()), &[]);
    let usages = out.events.iter().filter_map(|event| match event {
        Event::Usage(usage) => Some(*usage),
        _ => None,
    });
    let usages: Vec<Usage> = usages.collect();
    let grows = |pair: &[Usage]| pair[0].tokens <= pair[1].tokens;
    assert!(usages.windows(2).all(grows), "{usages:?}");
    let stats = recorded().into_iter().rev().find_map(|line| {
        let Heard::Response(response) = line::read(line.as_bytes()) else {
            return None;
        };
        (response.command == "get_session_stats").then(|| line::stats(&response.data))
    });
    let (last, stats) = (usages.last().unwrap(), stats.unwrap());
    assert_eq!(last.tokens, stats.spent.tokens);
    assert_eq!(last.cost_micros, stats.spent.cost_micros);
    assert!(last.turns >= 10 && last.cost_micros > 0, "{last:?}");
}

#[test]
fn what_a_session_used_before_this_run_is_not_counted_again() {
    let mut out = Out::default();
    let mut conversation = Conversation::default();
    conversation.open(&mut out);
    let stats = |tokens: u64, cost: f64| {
        let data = json!({"tokens": {"input": tokens, "output": 0}, "cost": cost});
        json!({"type": "response", "command": "get_session_stats", "success": true, "data": data})
    };
    let state = json!({"type": "response", "command": "get_state", "success": true,
        "data": {"sessionId": "s"}});
    let settled = json!({"type": "agent_settled"});
    for line in [stats(5000, 2.0), state, settled, stats(5300, 2.5)] {
        conversation.hear(line::read(line.to_string().as_bytes()), &mut out);
    }
    assert_eq!(conversation.session(), Some("s"));
    let usage = conversation.usage();
    assert_eq!((usage.tokens, usage.cost_micros), (300, 500_000));
}

/// What a conversation has said, as JSON.
fn said(out: &Out) -> Vec<Value> {
    let lines = out.lines.split(|&byte| byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn hear(conversation: &mut Conversation, out: &mut Out, lines: &[Value]) {
    for line in lines {
        conversation.hear(line::read(line.to_string().as_bytes()), out);
    }
}

fn taken(id: &str) -> Value {
    json!({"type": "response", "id": id, "command": "prompt", "success": true})
}

#[test]
fn an_abort_waits_until_what_was_said_is_taken_and_loses_nothing() {
    let mut out = Out::default();
    let mut conversation = begun(&mut out);
    let told = json!({"type": "message_start", "message": {"role": "user",
        "content": [{"type": "text", "text": "KA do it"}]}});
    let began = json!({"type": "agent_start"});
    hear(&mut conversation, &mut out, &[taken("c3"), began, told]);
    conversation.interrupt(&mut out);
    let aborts = |out: &Out| said(out).iter().any(|line| line["type"] == "abort");
    assert!(!aborts(&out), "the message is on its way: {:?}", said(&out));
    hear(&mut conversation, &mut out, &[taken("c4")]);
    assert!(aborts(&out));
    let cleared = json!({"type": "response", "command": "clear_queue", "success": true,
        "data": {"steering": ["use port 1"], "followUp": []}});
    let settled = json!({"type": "agent_settled"});
    hear(&mut conversation, &mut out, &[cleared, settled]);
    conversation.prompt("stop that", vec![MessageId(2)], &mut out);
    let lines = said(&out);
    let last = lines.last().unwrap();
    assert_eq!(last["message"], "use port 1\n\nstop that");
    let id = last["id"].as_str().unwrap();
    let told = json!({"type": "message_start", "message": {"role": "user",
        "content": "use port 1\n\nstop that"}});
    let answers = json!({"type": "message_update",
        "assistantMessageEvent": {"type": "text_start"}});
    let seen = |out: &Out| {
        let events = out.events.iter();
        let ids = events.filter_map(|event| match *event {
            Event::MessageSeen { id } => Some(id.0),
            _ => None,
        });
        ids.collect::<Vec<u64>>()
    };
    assert!(seen(&out).is_empty());
    hear(&mut conversation, &mut out, &[taken(id), told, answers]);
    assert_eq!(seen(&out), [1, 2]);
    assert_eq!(conversation.untaken(), 0);
}

#[test]
fn a_message_waits_for_the_answer_to_the_one_before_and_for_the_end_of_a_compaction() {
    let mut out = Out::default();
    let mut conversation = begun(&mut out);
    assert!(!conversation.can_steer(), "no turn runs yet");
    hear(
        &mut conversation,
        &mut out,
        &[json!({"type": "agent_start"})],
    );
    assert!(!conversation.can_steer(), "the prompt is on its way");
    hear(&mut conversation, &mut out, &[taken("c3"), taken("c4")]);
    assert!(conversation.can_steer());
    let begins = json!({"type": "compaction_start", "reason": "threshold"});
    hear(&mut conversation, &mut out, &[begins]);
    assert!(!conversation.can_steer());
}

#[test]
fn a_text_that_was_refused_because_of_a_compaction_is_said_again_after_it() {
    let mut out = Out::default();
    let mut conversation = begun(&mut out);
    let refused = json!({"type": "response", "id": "c4", "command": "prompt", "success": false,
        "error": "Cannot submit a prompt while compaction is in progress."});
    let ended = json!({"type": "compaction_end", "reason": "threshold", "result": {}});
    hear(&mut conversation, &mut out, &[taken("c3"), refused]);
    let times = |out: &Out| {
        let lines = said(out);
        lines
            .iter()
            .filter(|line| line["message"] == "use port 1")
            .count()
    };
    assert_eq!(times(&out), 1);
    hear(&mut conversation, &mut out, &[ended]);
    assert_eq!(times(&out), 2);
}

#[test]
fn a_prompt_that_is_refused_ends_the_turn_with_its_class() {
    let mut out = Out::default();
    let mut conversation = begun(&mut out);
    let error = "No API key found for fake.";
    let refused = json!({"type": "response", "id": "c3", "command": "prompt", "success": false,
        "error": error});
    hear(&mut conversation, &mut out, &[refused]);
    let Some(Step::TurnEnded(ended)) = out.steps.last() else {
        panic!("{:?}", out.steps);
    };
    assert_eq!(ended.verdict, Verdict::Failed(Class::Auth));
    assert!(ended.evidence.contains(error));
}

#[test]
fn only_one_try_of_its_own_is_left_to_it() {
    let mut out = Out::default();
    let mut conversation = begun(&mut out);
    let retry = |attempt: u64| {
        json!({"type": "auto_retry_start", "attempt": attempt, "maxAttempts": 3, "delayMs": 2000,
            "errorMessage": "terminated"})
    };
    hear(&mut conversation, &mut out, &[retry(1)]);
    assert!(matches!(out.events.last(), Some(Event::Retry(_))));
    assert_ne!(said(&out).last().unwrap()["type"], "abort_retry");
    hear(&mut conversation, &mut out, &[retry(2)]);
    assert_eq!(said(&out).last().unwrap()["type"], "abort_retry");
}

#[test]
fn a_text_that_begins_with_a_slash_is_no_command() {
    let mut out = Out::default();
    let mut conversation = Conversation::default();
    conversation.prompt("/compact", Vec::new(), &mut out);
    conversation.steer("/quit", MessageId(1), &mut out);
    for line in said(&out) {
        assert!(
            !line["message"].as_str().unwrap().starts_with('/'),
            "{line}"
        );
    }
}

#[test]
fn an_edit_is_one_below_the_working_folder() {
    let is_edit = |tool: &str, path: &str| is_edit_below("/w", tool, &json!({"path": path}));
    for path in ["a", "./a/b", "/w/a", "a.b/..c"] {
        assert!(is_edit("edit", path) && is_edit("write", path), "{path}");
        assert!(!is_edit("bash", path));
    }
    for path in ["../a", "/etc/x", "/wx/a", "a/../../b", "~/a", "@../a"] {
        assert!(!is_edit("edit", path), "{path}");
    }
    assert!(!is_edit_below("/w", "edit", &json!({"command": "x"})));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn however_the_bytes_come_the_same_is_heard(cuts in prop::collection::vec(any::<usize>(), 0..200)) {
        let bytes = text(&recorded());
        prop_assert_eq!(play(&bytes, &cuts), play(&bytes, &[]));
    }

    #[test]
    fn unknown_kinds_between_the_lines_take_nothing_away(
        news in prop::collection::vec((any::<prop::sample::Index>(), "[a-z_]{1,12}"), 1..60),
    ) {
        let mut lines: Vec<String> = recorded().iter().map(|&line| line.to_owned()).collect();
        for (place, kind) in news {
            let line = json!({"type": format!("x_{kind}"), "body": [kind]}).to_string();
            lines.insert(place.index(lines.len() + 1), line);
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let heard = without_notices(play(&text(&lines), &[]));
        prop_assert_eq!(heard, without_notices(play(&text(&recorded()), &[])));
    }

    /// Answers to commands come when they come.
    #[test]
    fn an_answer_that_comes_later_changes_no_verdict(
        shifts in prop::collection::vec((any::<prop::sample::Index>(), 1..4_usize), 1..20),
    ) {
        let mut lines = recorded();
        for (place, by) in shifts {
            let at = place.index(lines.len());
            // What the session used belongs to the turn that has just ended.
            let may_wait = lines[at].contains(r#""command":"prompt""#);
            if may_wait && at + by < lines.len() {
                let line = lines.remove(at);
                lines.insert(at + by, line);
            }
        }
        let verdicts = |out: &Out| -> Vec<Verdict> {
            let ended = out.steps.iter().filter_map(|step| match step {
                Step::TurnEnded(ended) => Some(ended.verdict.clone()),
                _ => None,
            });
            ended.collect()
        };
        let (moved, kept) = (play(&text(&lines), &[]), play(&text(&recorded()), &[]));
        prop_assert_eq!(verdicts(&moved), verdicts(&kept));
        prop_assert_eq!(moved.events, kept.events);
    }

    #[test]
    fn no_order_and_no_damage_makes_it_panic(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4_u8), 1..200),
    ) {
        let lines = recorded();
        let mut bytes = Vec::new();
        for (line, place, damage) in picks {
            let line = lines[line.index(lines.len())];
            bytes.extend(harm(line, place, damage));
            bytes.push(b'\n');
        }
        let out = play(&bytes, &[]);
        prop_assert!(out.steps.len() <= 800);
    }

    #[test]
    fn what_is_reported_is_bounded(length in 0..200_000_usize) {
        let long = "ä".repeat(length);
        let content = json!([{"type": "text", "text": long}]);
        let lines = [
            json!({"type": "message_end", "message": {"role": "assistant", "stopReason": "error",
                "errorMessage": long, "content": content}}),
            json!({"type": "tool_execution_end", "toolName": long, "result": {"content": content}}),
            json!({"type": "extension_error", "extensionPath": long, "error": long}),
        ];
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        for event in play(&text(&lines), &[]).events {
            prop_assert_eq!(event.clone().bounded(), event);
        }
    }
}

/// The line as it is, cut, with one field gone, or with one of another type.
fn harm(line: &str, place: prop::sample::Index, damage: u8) -> Vec<u8> {
    if damage == 1 {
        return line.as_bytes()[..place.index(line.len())].to_vec();
    }
    let Ok(Value::Object(mut map)) = serde_json::from_str(line) else {
        return line.as_bytes().to_vec();
    };
    let names: Vec<String> = map.keys().cloned().collect();
    let name = &names[place.index(names.len())];
    match damage {
        2 => drop(map.remove(name)),
        3 => drop(map.insert(name.clone(), json!([{"no": null}, -1, 1e300]))),
        _ => {}
    }
    Value::Object(map).to_string().into_bytes()
}
