//! An item of a thread, read into what it means to a run.

use protocol::report::{EXCERPT_MAX, Event, Said, Tool, excerpt};
use serde_json::Value;

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A text that the model was told.
    User {
        /// Our name for it; empty for texts that are not ours.
        key: String,
    },
    /// The model's words.
    Words(String),
    /// A tool that the model uses.
    Tool {
        name: String,
        /// With what.
        detail: String,
        /// Whether it went well, once it has ended.
        ok: bool,
        /// What came of it.
        outcome: String,
    },
    /// The context is compacted.
    Compaction,
    /// Something else of the model: its thoughts, a plan.
    Thought,
    /// Something that the program does by itself.
    Nothing,
    /// A type that is not known here.
    Unknown(String),
}

/// Longest name of a type that is kept.
const TYPE_MAX: usize = 80;

impl Item {
    /// Reads an item.
    pub(super) fn read(item: &Value) -> Self {
        match text(item, "type") {
            "userMessage" => Self::User {
                key: excerpt(text(item, "clientId"), EXCERPT_MAX),
            },
            "agentMessage" => Self::Words(excerpt(text(item, "text"), EXCERPT_MAX)),
            "commandExecution" => tool(
                "shell",
                text(item, "command"),
                item["exitCode"].as_i64().is_none_or(|code| code == 0),
                text(item, "aggregatedOutput"),
                item,
            ),
            "fileChange" => tool("apply_patch", &changes(item), true, "", item),
            "mcpToolCall" => {
                let name = format!("{}/{}", text(item, "server"), text(item, "tool"));
                let arguments = item["arguments"].to_string();
                tool(
                    &name,
                    &arguments,
                    item["error"].is_null(),
                    &outcome(item),
                    item,
                )
            }
            kind @ ("dynamicToolCall"
            | "collabAgentToolCall"
            | "webSearch"
            | "imageView"
            | "imageGeneration") => tool(kind, &item.to_string(), true, "", item),
            "reasoning" | "plan" => Self::Thought,
            "contextCompaction" => Self::Compaction,
            "hookPrompt" | "functionCallOutput" | "subAgentActivity" | "sleep"
            | "enteredReviewMode" | "exitedReviewMode" => Self::Nothing,
            other => Self::Unknown(excerpt(other, TYPE_MAX)),
        }
    }

    /// Whether it is part of an answer of the model.
    pub(super) fn is_of_the_model(&self) -> bool {
        matches!(self, Self::Words(_) | Self::Tool { .. } | Self::Thought)
    }

    /// What to report when it begins.
    pub(super) fn begun(self) -> Option<Event> {
        match self {
            Self::Tool { name, detail, .. } => Some(Event::ToolCall(Tool {
                name,
                detail,
                ok: None,
            })),
            Self::Compaction => Some(Event::Compaction(Said {
                text: "the context is being compacted".to_owned(),
            })),
            Self::User { .. }
            | Self::Words(_)
            | Self::Thought
            | Self::Nothing
            | Self::Unknown(_) => None,
        }
    }

    /// What to report when it has ended.
    pub(super) fn ended(self) -> Option<Event> {
        match self {
            Self::Words(text) if !text.is_empty() => Some(Event::AssistantMessage(Said { text })),
            Self::Tool {
                name, ok, outcome, ..
            } => Some(Event::ToolResult(Tool {
                name,
                detail: outcome,
                ok: Some(ok),
            })),
            Self::User { .. }
            | Self::Words(_)
            | Self::Compaction
            | Self::Thought
            | Self::Nothing
            | Self::Unknown(_) => None,
        }
    }
}

fn tool(name: &str, detail: &str, went_well: bool, outcome: &str, item: &Value) -> Item {
    let status = text(item, "status");
    let declined = if status == "declined" {
        "declined"
    } else {
        outcome
    };
    Item::Tool {
        name: excerpt(name, EXCERPT_MAX),
        detail: excerpt(detail, EXCERPT_MAX),
        ok: went_well && !matches!(status, "failed" | "declined"),
        outcome: excerpt(declined, EXCERPT_MAX),
    }
}

/// The files of a change.
pub(super) fn changes(item: &Value) -> String {
    let changes = item["changes"].as_array().into_iter().flatten();
    let one =
        |change: &Value| format!("{} {}", text(&change["kind"], "type"), text(change, "path"));
    changes.map(one).collect::<Vec<_>>().join(", ")
}

/// What a server of tools answered.
fn outcome(item: &Value) -> String {
    if let Some(message) = item["error"]["message"].as_str() {
        return message.to_owned();
    }
    let parts = item["result"]["content"].as_array().into_iter().flatten();
    let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
    texts.join("\n")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(item: &Value) -> (String, Option<bool>, String) {
        match Item::read(item).ended() {
            Some(Event::ToolResult(tool)) => (tool.name, tool.ok, tool.detail),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_tool_went_well_only_by_its_status_and_its_exit() {
        let command = |status, code: Value| {
            json!({"type": "commandExecution", "command": "make", "status": status,
                "exitCode": code, "aggregatedOutput": "out"})
        };
        let cases = [
            ("completed", json!(0), true),
            ("completed", json!(2), false),
            ("failed", json!(null), false),
            ("declined", json!(null), false),
            ("completed", json!(null), true),
        ];
        for (status, code, ok) in cases {
            assert_eq!(result(&command(status, code)).1, Some(ok), "{status}");
        }
        assert_eq!(result(&command("declined", json!(null))).2, "declined");
    }

    #[test]
    fn a_server_s_tool_and_a_change_of_files_are_named() {
        let call = json!({"type": "mcpToolCall", "server": "s", "tool": "t", "status": "completed",
            "error": null, "result": {"content": [{"type": "text", "text": "yes"}]}});
        assert_eq!(
            result(&call),
            ("s/t".to_owned(), Some(true), "yes".to_owned())
        );
        let change = json!({"type": "fileChange", "status": "inProgress",
            "changes": [{"path": "/a", "kind": {"type": "add"}}]});
        match Item::read(&change).begun() {
            Some(Event::ToolCall(tool)) => assert_eq!(tool.detail, "add /a"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_item_is_no_word_of_the_model() {
        assert!(!Item::read(&json!({"type": "news"})).is_of_the_model());
        assert!(!Item::read(&json!(7)).is_of_the_model());
        assert!(Item::read(&json!({"type": "reasoning"})).is_of_the_model());
    }
}
