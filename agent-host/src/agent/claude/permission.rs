//! Questions for permission that wait for the operator, and the lines that answer them.

use protocol::ids::QuestionId;
use serde_json::{Value, json};

use super::wire::MayUse;

/// Most questions that wait at a time; the agent is refused what is beyond.
pub(super) const WAITING_MAX: usize = 16;

/// What the operator may choose from. Any other text refuses, and the agent is told the text.
pub(super) const OPTIONS: [&str; 2] = ["allow", "deny"];

/// A question on its way.
struct Waiting {
    ask: MayUse,
    /// Our request to the supervisor.
    request: u64,
    /// The question's id, once we know it.
    question: Option<QuestionId>,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Permissions(Vec<Waiting>);

impl Permissions {
    /// Whether there is room for one more.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < WAITING_MAX
    }

    /// The supervisor was asked.
    pub(super) fn wait(&mut self, ask: MayUse, request: u64) {
        self.0.push(Waiting {
            ask,
            request,
            question: None,
        });
    }

    /// Its question got an id.
    pub(super) fn asked(&mut self, request: u64, id: QuestionId) {
        let waiting = self.0.iter_mut();
        for one in waiting.filter(|one| one.request == request) {
            one.question = Some(id);
        }
    }

    /// The supervisor refused to ask, or the agent no longer wants to know.
    pub(super) fn forget(&mut self, request: u64) -> Option<MayUse> {
        self.take(|one| one.request == request)
    }

    /// The agent no longer wants to know.
    pub(super) fn withdraw(&mut self, request: &str) -> Option<MayUse> {
        self.take(|one| one.ask.request == request)
    }

    /// The question is answered.
    pub(super) fn answered(&mut self, id: QuestionId) -> Option<MayUse> {
        self.take(|one| one.question == Some(id))
    }

    fn take(&mut self, found: impl Fn(&Waiting) -> bool) -> Option<MayUse> {
        let at = self.0.iter().position(found)?;
        Some(self.0.swap_remove(at).ask)
    }
}

/// The question to the operator; what it is about is in its first line, which is all that a list
/// shows.
pub(super) fn question(ask: &MayUse) -> String {
    let text = format!(
        "May the agent use {} {}?\n{}",
        ask.tool, ask.input, ask.reason
    );
    text.trim_end().to_owned()
}

/// The line that answers by what the operator said; nothing said is no.
pub(super) fn by_answer(ask: &MayUse, answer: Option<&str>) -> Value {
    match answer.map(str::trim) {
        Some("allow") => allow(ask),
        Some("deny") => deny(ask, "The operator says no."),
        Some(text) => deny(ask, &format!("The operator says: {text}")),
        None => deny(
            ask,
            "Nobody answered in time. Find another way or end your turn.",
        ),
    }
}

fn allow(ask: &MayUse) -> Value {
    respond(ask, json!({"behavior": "allow", "updatedInput": ask.input}))
}

/// The line that refuses.
pub(super) fn deny(ask: &MayUse, why: &str) -> Value {
    respond(ask, json!({"behavior": "deny", "message": why}))
}

fn respond(ask: &MayUse, response: Value) -> Value {
    let request_id = &ask.request;
    json!({"type": "control_response",
        "response": {"subtype": "success", "request_id": request_id, "response": response}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> MayUse {
        MayUse {
            request: request.to_owned(),
            tool: "Bash".to_owned(),
            input: json!({"command": "make"}),
            reason: "it is not allowed".to_owned(),
        }
    }

    #[test]
    fn each_answer_goes_to_its_own_question() {
        let mut waiting = Permissions::default();
        waiting.wait(ask("a"), 1);
        waiting.wait(ask("b"), 2);
        assert!(
            waiting.answered(QuestionId(9)).is_none(),
            "no id is known yet"
        );
        waiting.asked(2, QuestionId(9));
        assert_eq!(waiting.answered(QuestionId(9)).unwrap().request, "b");
        assert_eq!(waiting.withdraw("a").unwrap().request, "a");
        assert!(waiting.forget(1).is_none());
    }

    #[test]
    fn only_the_word_allows() {
        let said = |text| by_answer(&ask("a"), text)["response"]["response"]["behavior"].clone();
        assert_eq!(said(Some(" allow\n")), "allow");
        for text in [Some("allow it all"), Some("deny"), Some(""), None] {
            assert_eq!(said(text), "deny", "{text:?}");
        }
        let line = by_answer(&ask("a"), Some("use make test"));
        assert!(line.to_string().contains("use make test"));
    }
}
