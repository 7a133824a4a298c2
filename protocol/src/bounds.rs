//! Keeps what a host says within the limits of its texts, whether or not the host did.
//!
//! A line may be long, and a supervisor hears many hosts: what is kept of a line must be small.

use crate::bridge::{ARTIFACT_PATH_MAX, ARTIFACTS_MAX};
use crate::report::{Ask, EXCERPT_MAX, Event, RunResult, excerpt};

/// Longest text of a question, bytes: a page or two; what is longer belongs into a file.
pub const QUESTION_MAX: usize = 16 * 1024;
/// Most answers that a question offers to choose from: more than a person reads.
pub const OPTIONS_MAX: usize = 64;

fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        *text = excerpt(text, max);
    }
}

impl Event {
    /// The same event, its texts cut to [`EXCERPT_MAX`].
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Event::Started(started) => {
                if let Some(session) = &mut started.session {
                    cut(session, EXCERPT_MAX);
                }
            }
            Event::AssistantMessage(said)
            | Event::Retry(said)
            | Event::Compaction(said)
            | Event::Reply(said)
            | Event::Escalation(said)
            | Event::Notice(said) => cut(&mut said.text, EXCERPT_MAX),
            Event::ToolCall(tool) | Event::ToolResult(tool) => {
                cut(&mut tool.name, EXCERPT_MAX);
                cut(&mut tool.detail, EXCERPT_MAX);
            }
            Event::RateLimited(limited) => cut(&mut limited.detail, EXCERPT_MAX),
            Event::Progress(progress) => cut(&mut progress.text, EXCERPT_MAX),
            Event::ProcessSpawned(process) => cut(&mut process.command, EXCERPT_MAX),
            Event::Result(result) => result.keep_bounded(),
            Event::PromptSent {}
            | Event::Usage(_)
            | Event::Context(_)
            | Event::MessageInjected { .. }
            | Event::MessageSeen { .. }
            | Event::TurnEnded {} => {}
        }
        self
    }
}

impl RunResult {
    /// Cuts its texts to [`EXCERPT_MAX`], and its list of files to [`ARTIFACTS_MAX`] whole ones.
    pub fn keep_bounded(&mut self) {
        self.artifacts.truncate(ARTIFACTS_MAX);
        self.artifacts
            .retain(|path| path.len() <= ARTIFACT_PATH_MAX);
        cut(&mut self.summary, EXCERPT_MAX);
        cut(&mut self.evidence, EXCERPT_MAX);
        if let Some(session) = &mut self.session {
            cut(session, EXCERPT_MAX);
        }
    }
}

impl Ask {
    /// The same question: its text cut to [`QUESTION_MAX`], at most [`OPTIONS_MAX`] answers of at
    /// most [`EXCERPT_MAX`] each.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        cut(&mut self.text, QUESTION_MAX);
        self.options.truncate(OPTIONS_MAX);
        for option in &mut self.options {
            cut(option, EXCERPT_MAX);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// One of each kind that carries text, every text this long.
    fn events(length: usize) -> Vec<Value> {
        let long = "ä".repeat(length / 2);
        let said = |kind: &str| json!({"type": kind, "text": long});
        let tool = |kind: &str| json!({"type": kind, "name": long, "detail": long});
        let capabilities = json!({"steer": "none", "receipt": "injected", "interrupt": false,
            "resume": false, "questions": false, "usage": false, "cost": false});
        vec![
            json!({"type": "started", "capabilities": capabilities, "session": long}),
            said("assistant_message"),
            tool("tool_call"),
            tool("tool_result"),
            json!({"type": "rate_limited", "detail": long}),
            said("retry"),
            said("compaction"),
            json!({"type": "progress", "text": long}),
            said("reply"),
            said("escalation"),
            json!({"type": "process_spawned", "pid": 1, "start_ticks": 1, "command": long}),
            said("notice"),
            json!({"type": "result", "status": "ok", "summary": long, "evidence": long,
                "session": long}),
        ]
    }

    fn event(value: Value) -> Event {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn no_text_of_an_event_is_longer_than_an_excerpt() {
        for value in events(20_000) {
            let kind = value["type"].clone();
            let kept = serde_json::to_string(&event(value).bounded()).unwrap();
            assert!(kept.len() < 4 * EXCERPT_MAX, "{kind}: {}", kept.len());
            assert!(kept.contains('…'), "{kind}: the cut is not marked");
        }
    }

    #[test]
    fn an_event_within_its_limits_stays_as_it_is() {
        for value in events(EXCERPT_MAX) {
            assert_eq!(event(value.clone()).bounded(), event(value));
        }
    }

    #[test]
    fn a_question_has_a_bounded_text_and_bounded_answers() {
        let ask = |text: usize, options: usize| Ask {
            generation: crate::ids::Generation(1),
            text: "t".repeat(text),
            options: vec!["o".repeat(text); options],
        };
        let kept = ask(20_000, 100).bounded();
        assert_eq!(kept.text.len(), QUESTION_MAX);
        assert_eq!(kept.options.len(), OPTIONS_MAX);
        assert!(
            kept.options
                .iter()
                .all(|option| option.len() == EXCERPT_MAX)
        );
        assert_eq!(
            ask(EXCERPT_MAX, OPTIONS_MAX).bounded(),
            ask(EXCERPT_MAX, OPTIONS_MAX)
        );
    }
}
