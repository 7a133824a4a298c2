//! Recorded lines of the real program through the conversation: split, merged, with unknown kinds
//! between them, cut and reordered, nothing panics and nothing is lost.

use proptest::prelude::*;
use protocol::class::Class;
use protocol::framing::{Frame, FrameReader};
use protocol::ids::MessageId;
use protocol::report::Event;
use serde_json::{Value, json};

use super::Codex;
use super::conversation::Conversation;
use crate::agent::driven::wire::{Decision, Ended, Out, Step, Verdict, Wire};

/// As version 0.169.0 printed them, one process after the other; long texts cut, and our texts named as
/// this adapter names them.
const RECORDED: &str = include_str!("recorded.jsonl");

/// The lines of each process.
fn processes() -> Vec<Vec<&'static str>> {
    let mut processes: Vec<Vec<&str>> = Vec::new();
    for line in RECORDED.lines() {
        if line.contains("\"userAgent\"") {
            processes.push(Vec::new());
        }
        if let Some(lines) = processes.last_mut() {
            lines.push(line);
        }
    }
    processes
}

/// Plays these bytes to a conversation with a prompt, a message in mid-turn, and a yes to every
/// request for permission.
fn play(bytes: &[u8], cuts: &[usize]) -> (Out, Conversation) {
    let mut reader = FrameReader::with_max(Codex::LINE_MAX);
    let (mut conversation, mut out) = (Conversation::default(), Out::default());
    conversation.open(json!({"cwd": "/w"}), None, 1, &mut out);
    let (mut is_prompted, mut is_steered) = (false, false);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        reader.push(&bytes[pair[0]..pair[1]]);
        while let Some(frame) = reader.next_frame() {
            let Frame::Line(line) = frame else { continue };
            let known = out.steps.len();
            conversation.hear(&line, &mut out);
            let asked: Vec<String> = out.steps[known..]
                .iter()
                .filter_map(|step| match step {
                    Step::MayUse(ask) => Some(ask.request.clone()),
                    _ => None,
                })
                .collect();
            for request in asked {
                conversation.decide(&request, &Decision::Allow, &mut out);
            }
            if out.steps.contains(&Step::Ready) && !std::mem::replace(&mut is_prompted, true) {
                conversation.prompt("the task", vec![MessageId(1)], &mut out);
            }
            if conversation.has_turn() && !std::mem::replace(&mut is_steered, true) {
                conversation.steer("more", MessageId(2), &mut out);
            }
        }
    }
    (out, conversation)
}

fn text(lines: &[&str]) -> Vec<u8> {
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

fn play_all(cuts: &[usize]) -> Vec<Out> {
    let lines = processes();
    let lines = lines.iter();
    lines.map(|lines| play(&text(lines), cuts).0).collect()
}

/// Without what counts: a notice for each unknown kind.
fn without_notices(mut out: Out) -> Out {
    out.events
        .retain(|event| !matches!(event, Event::Notice(_)));
    out
}

fn ends(out: &Out) -> Vec<&Ended> {
    let steps = out.steps.iter();
    steps
        .filter_map(|step| match step {
            Step::TurnEnded(ended) => Some(&**ended),
            _ => None,
        })
        .collect()
}

#[test]
fn every_recorded_line_is_understood() {
    assert!(RECORDED.lines().count() >= 300);
    for lines in processes() {
        let (_, conversation) = play(&text(&lines), &[]);
        assert_eq!(conversation.not_understood(), None);
        assert!(conversation.has_spoken());
    }
}

#[test]
fn the_recorded_turns_end_as_they_did() {
    let outs = play_all(&[]);
    let ended: usize = outs.iter().map(|out| ends(out).len()).sum();
    let told = RECORDED
        .lines()
        .filter(|line| line.contains(r#""method":"turn/completed""#))
        .count();
    assert!(ended + 2 >= told, "{ended} of {told}: two were resumed");
    let failed: Vec<Class> = outs
        .iter()
        .flat_map(ends)
        .filter_map(|end| match end.verdict {
            Verdict::Failed(class) => Some(class),
            Verdict::Well | Verdict::Aborted => None,
        })
        .collect();
    use Class::{Auth, Billing, ModelMissing, Network, Overflow, Overload, Refused, UsageLimit};
    let wanted = [
        Auth,
        Auth,
        UsageLimit,
        Billing,
        Billing,
        Overload,
        Overload,
        ModelMissing,
        Refused,
        Network,
        Overflow,
    ];
    assert_eq!(failed, wanted);
    let limited = outs.iter().flat_map(ends);
    let resets: Vec<i64> = limited.filter_map(|end| end.reset_at_ms).collect();
    assert_eq!(resets, [1_795_271_008_000]);
    let aborted = outs.iter().flat_map(ends);
    assert!(
        aborted
            .filter(|end| end.verdict == Verdict::Aborted)
            .count()
            >= 2
    );
}

#[test]
fn a_recorded_message_in_mid_turn_is_seen_once_and_before_the_answer() {
    let processes = processes();
    let steered = processes
        .iter()
        .find(|lines| lines.iter().any(|line| line.contains("STEERWORD")));
    let (out, conversation) = play(&text(steered.unwrap()), &[]);
    let seen = |id| Event::MessageSeen { id: MessageId(id) };
    let places = |wanted: &Event| -> Vec<usize> {
        let events = out.events.iter().enumerate();
        events
            .filter(|(_, event)| *event == wanted)
            .map(|(at, _)| at)
            .collect()
    };
    assert_eq!(places(&seen(1)).len(), 1, "{:?}", out.events);
    assert_eq!(places(&seen(2)).len(), 1, "{:?}", out.events);
    let second = out.events.iter().position(
        |event| matches!(event, Event::ToolCall(tool) if tool.detail.contains("echo two")),
    );
    assert!(Some(places(&seen(2))[0]) < second);
    assert_eq!(conversation.untaken(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn however_the_bytes_come_the_same_is_heard(cuts in prop::collection::vec(any::<usize>(), 0..200)) {
        prop_assert_eq!(play_all(&cuts), play_all(&[]));
    }

    #[test]
    fn unknown_kinds_between_the_lines_take_nothing_away(
        news in prop::collection::vec((any::<prop::sample::Index>(), "[a-z_]{1,12}"), 1..60),
    ) {
        for lines in processes() {
            let mut all: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
            for (place, kind) in &news {
                let line = json!({"method": format!("x_{kind}"), "params": {"body": [kind]}});
                all.insert(place.index(all.len() + 1), line.to_string());
            }
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let heard = without_notices(play(&text(&all), &[]).0);
            prop_assert_eq!(heard, without_notices(play(&text(&lines), &[]).0));
        }
    }

    #[test]
    fn no_order_and_no_damage_makes_it_panic(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4_u8), 1..200),
    ) {
        let lines: Vec<&str> = RECORDED.lines().collect();
        // So that there is a thread and a turn to be confused about.
        let mut bytes = text(&processes()[1][..4]);
        for (line, place, damage) in picks {
            let line = lines[line.index(lines.len())];
            bytes.extend(harm(line, place, damage));
            bytes.push(b'\n');
        }
        let (out, _) = play(&bytes, &[]);
        prop_assert!(out.steps.len() <= 500);
        for event in out.events {
            prop_assert_eq!(event.clone().bounded(), event);
        }
    }

    #[test]
    fn what_is_reported_is_bounded(length in 0..200_000_usize) {
        let long = "ä".repeat(length);
        let item = |item: Value| json!({"method": "item/completed", "params": {"item": item}});
        let lines = [
            item(json!({"type": "agentMessage", "text": long})),
            item(json!({"type": "commandExecution", "command": long, "aggregatedOutput": long})),
            item(json!({"type": "mcpToolCall", "server": long, "tool": long})),
            json!({"method": "error", "params": {"willRetry": true, "error": {"message": long}}}),
            json!({"method": long, "params": {}}),
            json!({"id": long, "method": long, "params": {}}),
        ];
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        for event in play(&text(&lines), &[]).0.events {
            prop_assert_eq!(event.clone().bounded(), event);
        }
    }
}

/// The line as it is, cut, with one field gone, or with one of another type.
fn harm(line: &str, place: prop::sample::Index, damage: u8) -> Vec<u8> {
    if damage == 1 {
        return line.as_bytes()[..place.index(line.len())].to_vec();
    }
    let Ok(mut value) = serde_json::from_str::<Value>(line) else {
        return line.as_bytes().to_vec();
    };
    let map = match value.get_mut("params") {
        Some(Value::Object(map)) if !map.is_empty() => map,
        _ => value.as_object_mut().unwrap(),
    };
    let names: Vec<String> = map.keys().cloned().collect();
    let name = &names[place.index(names.len())];
    match damage {
        2 => drop(map.remove(name)),
        3 => drop(map.insert(name.clone(), json!([{"no": null}, -1, 1e300]))),
        _ => {}
    }
    value.to_string().into_bytes()
}
