//! Questions for permission that wait for the operator, and what an answer decides.

use protocol::ids::QuestionId;

use super::wire::{Decision, MayUse};

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
        ask.tool, ask.detail, ask.reason
    );
    text.trim_end().to_owned()
}

/// What the operator's answer decides; nothing said is no.
pub(super) fn by_answer(answer: Option<&str>) -> Decision {
    let why = match answer.map(str::trim) {
        Some("allow") => return Decision::Allow,
        Some("deny") => "The operator says no.".to_owned(),
        Some(text) => format!("The operator says: {text}"),
        None => "Nobody answered in time. Find another way or end your turn.".to_owned(),
    };
    Decision::Deny(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> MayUse {
        MayUse {
            request: request.to_owned(),
            tool: "Bash".to_owned(),
            detail: "make".to_owned(),
            reason: "it is not allowed".to_owned(),
            is_edit: false,
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
        assert_eq!(by_answer(Some(" allow\n")), Decision::Allow);
        for text in [Some("allow it all"), Some("deny"), Some(""), None] {
            assert!(matches!(by_answer(text), Decision::Deny(_)), "{text:?}");
        }
        let why = Decision::Deny("The operator says: use make test".to_owned());
        assert_eq!(by_answer(Some("use make test")), why);
    }
}
