//! Recorded lines of the real program through the wire and the conversation: split, merged, with
//! unknown kinds between them, cut and reordered, nothing panics and nothing is lost.

use proptest::prelude::*;
use protocol::framing::{Frame, FrameReader};
use protocol::ids::MessageId;
use protocol::report::Event;
use serde_json::{Value, json};

use super::conversation::Conversation;
use super::line::{self, Heard};
use super::{Claude, Out, Step, Wire};
use crate::agent::driven::wire::Verdict;

/// As version 2.1.329 printed them; paths and long lists cut.
const RECORDED: &str = include_str!("recorded.jsonl");

fn recorded() -> Vec<&'static str> {
    RECORDED.lines().collect()
}

fn play(bytes: &[u8], cuts: &[usize]) -> Out {
    let mut reader = FrameReader::with_max(Claude::LINE_MAX);
    let mut conversation = Conversation::default();
    conversation.wrote(
        "aaaaaaaa-0000-4000-8000-000000000001".to_owned(),
        Vec::new(),
    );
    let steered = vec![MessageId(1)];
    conversation.wrote("aaaaaaaa-0000-4000-8000-000000000002".to_owned(), steered);
    let mut outcome = Out::default();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        reader.push(&bytes[pair[0]..pair[1]]);
        while let Some(frame) = reader.next_frame() {
            if let Frame::Line(line) = frame {
                conversation.hear(line::read(&line), &mut outcome);
            }
        }
    }
    outcome
}

fn text(lines: &[&str]) -> Vec<u8> {
    let mut text = lines.join("\n");
    text.push('\n');
    text.into_bytes()
}

/// Without what counts: a notice for each unknown kind.
fn without_notices(mut outcome: Out) -> Out {
    outcome
        .events
        .retain(|event| !matches!(event, Event::Notice(_)));
    outcome
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
    let outcome = play(&text(&recorded()), &[]);
    let verdicts = outcome.steps.iter().filter_map(|step| match step {
        Step::TurnEnded(ended) => Some(&ended.verdict),
        _ => None,
    });
    let verdicts: Vec<&Verdict> = verdicts.collect();
    let count = |wanted: fn(&&&Verdict) -> bool| verdicts.iter().filter(wanted).count();
    let ends = recorded()
        .iter()
        .filter(|line| line.contains(r#""type":"result""#))
        .count();
    assert_eq!(verdicts.len(), ends);
    assert!(count(|verdict| matches!(verdict, Verdict::Well)) > 0);
    assert!(count(|verdict| matches!(verdict, Verdict::Aborted)) > 0);
    assert!(count(|verdict| matches!(verdict, Verdict::Failed(_))) > 0);
    let seen = Event::MessageSeen { id: MessageId(1) };
    assert_eq!(
        outcome
            .events
            .iter()
            .filter(|event| **event == seen)
            .count(),
        1
    );
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
        let outcome = play(&bytes, &[]);
        prop_assert!(outcome.steps.len() <= 200);
    }

    #[test]
    fn what_is_reported_is_bounded(length in 0..200_000_usize) {
        let long = "ä".repeat(length);
        let line = json!({"type": "assistant", "message": {"id": long, "content": [
            {"type": "text", "text": long},
            {"type": "tool_use", "id": long, "name": long, "input": {"x": long}}]}});
        let outcome = play(&text(&[&line.to_string()]), &[]);
        for event in outcome.events {
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
