//! What became of the texts that an agent was told: from written to seen.

use std::collections::VecDeque;

use protocol::ids::MessageId;
use protocol::report::Event;

/// Most texts that are followed at a time; of an older one no receipt comes.
const FOLLOWED_MAX: usize = 1024;

/// A text that we wrote.
#[derive(Debug)]
struct Text {
    /// The wire's name for it.
    key: String,
    /// The messages in it.
    messages: Vec<MessageId>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Written, perhaps queued.
    Written,
    /// In the model's next request.
    Started,
    /// The model has answered a request that it was in.
    Seen,
}

/// The texts of one conversation, in the order in which they were written.
#[derive(Debug, Default)]
pub(in crate::agent) struct Receipts(VecDeque<Text>);

impl Receipts {
    /// A text was written, with these messages in it.
    pub(in crate::agent) fn wrote(&mut self, key: String, messages: Vec<MessageId>) {
        if self.0.len() >= FOLLOWED_MAX {
            self.0.pop_front();
        }
        let stage = Stage::Written;
        self.0.push_back(Text {
            key,
            messages,
            stage,
        });
    }

    /// How many the agent has not begun to work on.
    pub(in crate::agent) fn untaken(&self) -> usize {
        let written = |text: &&Text| text.stage == Stage::Written;
        self.0.iter().filter(written).count()
    }

    /// Whether a text is followed.
    pub(in crate::agent) fn knows(&self, key: &str) -> bool {
        self.0.iter().any(|text| text.key == key)
    }

    /// It is in the model's next request.
    pub(in crate::agent) fn started(&mut self, key: &str) {
        if let Some(text) = self.0.iter_mut().find(|text| text.key == key)
            && text.stage == Stage::Written
        {
            text.stage = Stage::Started;
        }
    }

    /// The model answered a request: it has read what was in it.
    pub(in crate::agent) fn answered(&mut self, events: &mut Vec<Event>) {
        for text in &mut self.0 {
            if text.stage == Stage::Started {
                text.see(events);
            }
        }
    }

    /// What it began is over, so it was read.
    pub(in crate::agent) fn completed(&mut self, key: &str, events: &mut Vec<Event>) {
        if let Some(at) = self.0.iter().position(|text| text.key == key) {
            self.0[at].see(events);
            self.0.remove(at);
        }
    }

    /// It was dropped, or what it began was cut short: the messages that nobody read.
    pub(in crate::agent) fn cancelled(&mut self, key: &str) -> Vec<MessageId> {
        let at = self.0.iter().position(|text| text.key == key);
        let text = at.and_then(|at| self.0.remove(at));
        let lost = text.filter(|text| text.stage == Stage::Written);
        lost.map_or_else(Vec::new, |text| text.messages)
    }
}

impl Text {
    fn see(&mut self, events: &mut Vec<Event>) {
        if self.stage != Stage::Seen {
            self.stage = Stage::Seen;
            let ids = self.messages.iter();
            events.extend(ids.map(|&id| Event::MessageSeen { id }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(ids: &[u64]) -> Vec<Event> {
        let ids = ids.iter();
        ids.map(|&id| Event::MessageSeen { id: MessageId(id) })
            .collect()
    }

    #[test]
    fn a_text_is_seen_once_and_only_after_a_request_with_it_was_answered() {
        let mut receipts = Receipts::default();
        let mut events = Vec::new();
        receipts.wrote("a".to_owned(), vec![MessageId(1)]);
        receipts.wrote("b".to_owned(), vec![MessageId(2), MessageId(3)]);
        receipts.answered(&mut events);
        assert_eq!((events.len(), receipts.untaken()), (0, 2));
        receipts.started("b");
        receipts.answered(&mut events);
        receipts.answered(&mut events);
        receipts.completed("b", &mut events);
        assert_eq!(events, seen(&[2, 3]));
        assert!(receipts.knows("a") && !receipts.knows("b"));
        receipts.started("a");
        receipts.answered(&mut events);
        assert_eq!(events, seen(&[2, 3, 1]));
        assert_eq!(receipts.untaken(), 0);
    }

    #[test]
    fn what_was_dropped_unread_is_named_and_what_was_read_is_not() {
        let mut receipts = Receipts::default();
        receipts.wrote("a".to_owned(), vec![MessageId(1)]);
        receipts.wrote("b".to_owned(), vec![MessageId(2)]);
        receipts.started("b");
        assert_eq!(receipts.cancelled("a"), [MessageId(1)]);
        assert_eq!(receipts.cancelled("b"), []);
        assert_eq!(receipts.cancelled("c"), []);
    }

    #[test]
    fn only_so_many_are_followed() {
        let mut receipts = Receipts::default();
        for number in 0..=FOLLOWED_MAX {
            receipts.wrote(number.to_string(), Vec::new());
        }
        assert_eq!(receipts.untaken(), FOLLOWED_MAX);
        assert!(!receipts.knows("0"));
    }
}
