//! What the scripted model says: conversations, and in each the replies in order.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

/// The whole script.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// The first one whose `when` is in a request's text answers it.
    pub conversations: Vec<Conversation>,
}

/// The replies to one agent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// A text of the agent's prompt; empty: any request.
    #[serde(default)]
    pub when: String,
    /// One for each request. When they are used up, the model says so and ends the turn.
    pub replies: Vec<Reply>,
}

/// One answer of the model.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reply {
    /// It waits so long first, milliseconds.
    pub wait_ms: u64,
    /// It waits until this file is there; the longest wait is [`RELEASE_MAX`].
    ///
    /// [`RELEASE_MAX`]: super::server::RELEASE_MAX
    pub wait_file: Option<PathBuf>,
    /// What it says and which tools it uses, in order.
    pub content: Vec<Part>,
    /// The answer breaks off after its first words.
    pub drop: bool,
    /// It fails instead.
    pub fail: Option<Fault>,
    /// The request is too long for the model: the wire's own failure for that.
    pub overflow: bool,
    /// How often this reply is given, at least once; absent: once.
    pub times: Option<u32>,
    /// Tokens that the request is said to have; absent: [`INPUT_TOKENS`].
    pub input_tokens: Option<u64>,
}

/// Tokens of a request where the script names none: small enough that no agent compacts.
pub const INPUT_TOKENS: u64 = 1000;

/// Tokens that every answer is said to have.
pub const OUTPUT_TOKENS: u64 = 20;

impl Reply {
    /// The answer to a request that is no turn.
    pub(super) fn aside() -> Self {
        Self {
            content: vec![Part::Say("aside".to_owned())],
            ..Self::default()
        }
    }

    /// Tokens that the request is said to have.
    pub(super) fn tokens(&self) -> u64 {
        self.input_tokens.unwrap_or(INPUT_TOKENS)
    }
}

/// A part of an answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Text.
    Say(String),
    /// A tool to use.
    Use {
        /// Its name. On the Responses wire `NAMESPACE/NAME` is a tool in a namespace.
        tool: String,
        /// Its arguments. On the Responses wire a text is the input of a custom tool.
        input: Value,
    },
}

/// An answer that is a failure.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The HTTP status.
    pub status: u16,
    /// The service's word for it; absent: the one that belongs to the status.
    #[serde(default)]
    pub kind: Option<String>,
    /// What it says.
    #[serde(default)]
    pub message: String,
    /// Headers beside the usual ones (`retry-after`).
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// Further fields of the error (`resets_in_seconds`), as the service's own have it.
    #[serde(default)]
    pub more: Map<String, Value>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}

/// How far a script was played: one count of answers for each conversation.
#[derive(Debug)]
pub struct Player {
    script: Script,
    given: Vec<u32>,
}

impl Player {
    /// At its beginning.
    pub fn new(script: Script) -> Self {
        let given = vec![0; script.conversations.len()];
        Self { script, given }
    }

    /// The next reply to a request with this text, and the number of its conversation.
    pub fn next(&mut self, text: &str) -> (Option<usize>, Reply) {
        let conversations = &self.script.conversations;
        let found = conversations
            .iter()
            .position(|conversation| text.contains(&conversation.when));
        let Some(at) = found else {
            return (None, used_up());
        };
        let mut before = self.given[at];
        self.given[at] += 1;
        for reply in &conversations[at].replies {
            let times = reply.times.unwrap_or(1).max(1);
            if before < times {
                return (Some(at), reply.clone());
            }
            before -= times;
        }
        (Some(at), used_up())
    }
}

fn used_up() -> Reply {
    Reply {
        content: vec![Part::Say("the script has no more replies".to_owned())],
        ..Reply::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(reply: &Reply) -> &str {
        match reply.content.first() {
            Some(Part::Say(text)) => text,
            _ => "",
        }
    }

    #[test]
    fn each_conversation_is_answered_in_its_own_order() {
        let script = r#"{"conversations":[
            {"when":"alpha","replies":[{"content":[{"say":"a"}],"times":2},{"content":[{"say":"b"}]}]},
            {"replies":[{"content":[{"say":"other"}]}]}]}"#;
        let mut player = Player::new(Script::parse(script).unwrap());
        let mut hear = |text: &str| said(&player.next(text).1).to_owned();
        assert_eq!(
            ["an alpha", "x", "alpha", "alpha"].map(&mut hear),
            ["a", "other", "a", "b"]
        );
        assert!(hear("alpha").contains("no more replies"));
    }

    #[test]
    fn a_word_that_no_reply_knows_is_refused() {
        assert!(Script::parse(r#"{"conversations":[{"replies":[{"sya":"x"}]}]}"#).is_err());
    }
}
