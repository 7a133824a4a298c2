//! Recorded lines of four real programs through the wire: split, merged, with unknown kinds between
//! them, cut and reordered, nothing panics and nothing is lost.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::framing::{Frame, FrameReader};
use protocol::ids::MessageId;
use protocol::program::{Credentials, Home, Permissions, ProgramAdapter, ProgramKind};
use protocol::report::Event;
use serde_json::{Value, json};

use super::{Acp, Out, Step, Wire};
use crate::agent::driven::wire::Verdict;

/// As opencode 1.18.33 (with the extension that it is given), claude-agent-acp 0.100.0, codex-acp
/// 2.6.0 and gemini 0.61.0 printed them, with what they were told in between; paths, long lists and
/// long texts cut.
const RECORDED: &str = include_str!("recorded.jsonl");

/// A line of a scene.
#[derive(Debug, Clone)]
enum Line {
    /// What the program is told.
    Host(String),
    /// What it prints.
    Agent(String),
}

fn scenes() -> Vec<(String, Vec<Line>)> {
    let mut scenes: Vec<(String, Vec<Line>)> = Vec::new();
    for line in RECORDED.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let name = line["scene"].as_str().unwrap();
        if scenes.last().is_none_or(|(last, _)| last != name) {
            scenes.push((name.to_owned(), Vec::new()));
        }
        let line = match line["host"].as_str() {
            Some(told) => Line::Host(told.to_owned()),
            None => Line::Agent(line["agent"].to_string()),
        };
        scenes.last_mut().unwrap().1.push(line);
    }
    scenes
}

fn wire(scene: &str) -> Acp {
    Acp::new(ProgramAdapter {
        kind: ProgramKind::Acp,
        program: scene.split('/').next().unwrap().to_owned(),
        args: Vec::new(),
        model: None,
        mode: None,
        permissions: Permissions::Full,
        home: Home::Task,
        credentials: Credentials::None,
        system_prompt: None,
        mcp: BTreeMap::new(),
    })
}

fn play(scene: &str, lines: &[Line]) -> Out {
    let (mut wire, mut out) = (wire(scene), Out::default());
    wire.open(&mut out);
    let mut number = 0;
    for line in lines {
        match line {
            Line::Agent(line) => wire.hear(line.as_bytes(), &mut out),
            Line::Host(told) => match told.as_str() {
                "cancel" => wire.interrupt(&mut out),
                _ if wire.conversation.is_in_turn() && wire.can_steer() => {
                    number += 1;
                    wire.steer("STEERWORD please", MessageId(number), &mut out);
                }
                _ => {
                    number += 1;
                    wire.prompt("Try", vec![MessageId(number)], &mut out);
                }
            },
        }
    }
    out
}

fn agents(lines: &[Line]) -> usize {
    let agents = lines.iter().filter(|line| matches!(line, Line::Agent(_)));
    agents.count()
}

fn verdicts(out: &Out) -> Vec<Verdict> {
    let verdicts = out.steps.iter().filter_map(|step| match step {
        Step::TurnEnded(ended) => Some(ended.verdict.clone()),
        _ => None,
    });
    verdicts.collect()
}

fn without_notices(mut out: Out) -> Out {
    out.events
        .retain(|event| !matches!(event, Event::Notice(_)));
    out
}

#[test]
fn every_recorded_line_is_understood() {
    let scenes = scenes();
    let count: usize = scenes.iter().map(|(_, lines)| agents(lines)).sum();
    assert!(count >= 300, "{count}");
    for (name, lines) in scenes {
        let out = play(&name, &lines);
        let strange = out.events.iter().find(|event| match event {
            Event::Notice(said) => said.text.contains("it printed a line"),
            _ => false,
        });
        assert_eq!(strange, None, "{name}");
        assert!(out.steps.contains(&Step::Ready), "{name}: {:?}", out.steps);
    }
}

#[test]
fn the_recorded_turns_end_as_they_did() {
    use protocol::class::Class::{Auth, Billing, Network, Overflow, Overload, UsageLimit};
    let failed = Verdict::Failed;
    let ends = [
        ("opencode/basic", vec![Verdict::Well, Verdict::Well]),
        ("opencode/steer", vec![Verdict::Well]),
        ("opencode/e401", vec![failed(Auth)]),
        ("claude-agent-acp/steer", vec![Verdict::Well]),
        ("claude-agent-acp/e401", vec![failed(Auth)]),
        ("claude-agent-acp/e429", vec![failed(UsageLimit)]),
        ("claude-agent-acp/e529", vec![failed(Overload)]),
        ("claude-agent-acp/drop", vec![failed(Network)]),
        ("claude-agent-acp/overflow", vec![failed(Overflow)]),
        ("codex-acp/steer", vec![Verdict::Well]),
        ("codex-acp/e401", vec![failed(Auth)]),
        ("codex-acp/e429", vec![failed(UsageLimit)]),
        ("codex-acp/drop", vec![failed(Network)]),
        ("codex-acp/overflow", vec![failed(Overflow)]),
        ("gemini/e401", vec![failed(Auth)]),
        ("gemini/drop", vec![failed(Network)]),
        ("gemini/overflow", vec![failed(Overflow)]),
    ];
    let scenes: BTreeMap<String, Vec<Line>> = scenes().into_iter().collect();
    for (name, wanted) in ends {
        let got = verdicts(&play(name, &scenes[name]));
        assert_eq!(got[..wanted.len().min(got.len())], wanted, "{name}");
    }
    // Without the extension no status is told, and `no money` says nothing.
    let poor = verdicts(&play("opencode/e402", &scenes["opencode/e402"]));
    assert_ne!(poor, [failed(Billing)]);
    let cancelled = verdicts(&play("opencode/cancel", &scenes["opencode/cancel"]));
    assert_eq!(cancelled[..2], [Verdict::Aborted, Verdict::Well]);
}

#[test]
fn the_extension_proves_which_text_the_model_answered() {
    let scenes: BTreeMap<String, Vec<Line>> = scenes().into_iter().collect();
    let out = play("opencode/extended", &scenes["opencode/extended"]);
    let seen = |id| Event::MessageSeen { id: MessageId(id) };
    let place = |event: &Event| out.events.iter().position(|one| one == event).unwrap();
    assert!(place(&seen(1)) < place(&seen(2)), "{:?}", out.events);
    let usage = out.events.iter().rev().find_map(|event| match event {
        Event::Usage(usage) => Some((usage.turns, usage.tokens, usage.cost_micros)),
        _ => None,
    });
    assert_eq!(usage, Some((3, 3060, 9900)));
    let limited = play("opencode/limited", &scenes["opencode/limited"]);
    let retries = limited.events.iter();
    assert_eq!(
        retries
            .filter(|event| matches!(event, Event::Retry(_)))
            .count(),
        1
    );
    let compacted = play("opencode/compacted", &scenes["opencode/compacted"]);
    let told = String::from_utf8(compacted.lines).unwrap();
    assert!(told.contains("session/cancel"), "it would compact for ever");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn however_the_bytes_come_the_same_is_heard(
        pick in any::<prop::sample::Index>(), cuts in prop::collection::vec(any::<usize>(), 0..100),
    ) {
        let scenes = scenes();
        let (name, lines) = &scenes[pick.index(scenes.len())];
        let told = lines.iter().filter_map(|line| match line {
            Line::Agent(line) => Some(format!("{line}\n")),
            Line::Host(_) => None,
        });
        let bytes = told.collect::<String>().into_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut reader = FrameReader::with_max(Acp::LINE_MAX);
        let mut read = Vec::new();
        for pair in cuts.windows(2) {
            reader.push(&bytes[pair[0]..pair[1]]);
            while let Some(frame) = reader.next_frame() {
                if let Frame::Line(line) = frame {
                    read.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
        }
        let mut read = read.into_iter();
        let again: Vec<Line> = lines.iter().map(|line| match line {
            Line::Host(told) => Line::Host(told.clone()),
            Line::Agent(_) => Line::Agent(read.next().unwrap()),
        }).collect();
        prop_assert!(read.next().is_none());
        prop_assert_eq!(play(name, &again), play(name, lines));
    }

    #[test]
    fn unknown_kinds_between_the_lines_take_nothing_away(
        pick in any::<prop::sample::Index>(),
        news in prop::collection::vec((any::<prop::sample::Index>(), "[a-z_]{1,12}"), 1..40),
    ) {
        let scenes = scenes();
        let (name, lines) = &scenes[pick.index(scenes.len())];
        let mut more = lines.clone();
        for (place, kind) in news {
            let update = json!({"sessionUpdate": format!("x_{kind}"), "body": [kind]});
            let line = json!({"method": format!("x/{kind}"), "params": {"update": update}});
            more.insert(place.index(more.len() + 1), Line::Agent(line.to_string()));
        }
        prop_assert_eq!(without_notices(play(name, &more)), without_notices(play(name, lines)));
    }

    #[test]
    fn no_order_and_no_damage_makes_it_panic(
        pick in any::<prop::sample::Index>(),
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4_u8), 1..150),
    ) {
        let scenes = scenes();
        let name = &scenes[pick.index(scenes.len())].0;
        let lines: Vec<&Line> = scenes.iter().flat_map(|(_, lines)| lines).collect();
        let harmed = picks.into_iter().map(|(line, place, damage)| match lines[line.index(lines.len())] {
            Line::Host(told) => Line::Host(told.clone()),
            Line::Agent(line) => Line::Agent(harm(line, place, damage)),
        });
        let harmed: Vec<Line> = harmed.collect();
        let out = play(name, &harmed);
        for event in out.events {
            prop_assert_eq!(event.clone().bounded(), event);
        }
    }

    #[test]
    fn what_is_reported_is_bounded(length in 0..100_000_usize) {
        let long = "ä".repeat(length);
        let opening = scenes().into_iter().find(|(name, _)| name == "opencode/steer").unwrap().1;
        let session = "ses_e01b4890cffefIejW1fBsGq6ph";
        let updates = [
            json!({"sessionUpdate": "agent_message_chunk", "messageId": long, "content": {"text": long}}),
            json!({"sessionUpdate": "tool_call", "toolCallId": long, "title": long, "kind": long,
                "status": "in_progress", "rawInput": {"x": long}}),
            json!({"sessionUpdate": "tool_call_update", "toolCallId": long, "status": "failed",
                "rawOutput": {"output": long}}),
        ];
        let more = updates.map(|update| Line::Agent(json!({"method": "session/update",
            "params": {"sessionId": session, "update": update}}).to_string()));
        let lines: Vec<Line> = opening[..4].iter().cloned().chain(more).collect();
        for event in play("opencode/steer", &lines).events {
            prop_assert_eq!(event.clone().bounded(), event);
        }
    }
}

/// The line as it is, cut, with one field gone, or with one of another type.
fn harm(line: &str, place: prop::sample::Index, damage: u8) -> String {
    if damage == 1 {
        return line[..line.floor_char_boundary(place.index(line.len()))].to_owned();
    }
    let Ok(Value::Object(mut map)) = serde_json::from_str(line) else {
        return line.to_owned();
    };
    let inner = map.get_mut("params").and_then(Value::as_object_mut);
    let map_or_inner = match inner {
        Some(inner) if !inner.is_empty() => inner,
        _ => &mut map,
    };
    let names: Vec<String> = map_or_inner.keys().cloned().collect();
    let name = &names[place.index(names.len())];
    match damage {
        2 => drop(map_or_inner.remove(name)),
        3 => drop(map_or_inner.insert(name.clone(), json!([{"no": null}, -1, 1e300]))),
        _ => {}
    }
    Value::Object(map).to_string()
}
