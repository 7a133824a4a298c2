//! The steps of the embedded scripted agent, as they travel in [`crate::command::ScriptedAdapter`].
//!
//! A script is a JSON array of steps. A step is an object with one key, its name; a step without
//! arguments may be the bare name. The batch file's YAML form of the same steps (with durations
//! such as `5s`) is turned into this form by the supervisor, so a host never reads YAML.
//!
//! A script ends `ok` when its last step is done, unless a step ended it earlier.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::report::{ResultStatus, Verdict};

/// Most steps of a script, nested ones included (10,000: more than any demo, and a second to check).
pub const STEPS_MAX: usize = 10_000;
/// Deepest nesting of `on_attempt` (a guard inside a guard says nothing new).
pub const NESTING_MAX: usize = 4;

/// A whole script: the steps in their order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Script(pub Vec<Step>);

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Says this: an `assistant_message`.
    Say(String),
    /// Writes a file anew.
    Write(FileText),
    /// Adds to the end of a file.
    Append(FileText),
    /// Runs a command in the working folder; its output goes to the run's logs.
    Run(RunCommand),
    /// Waits, in milliseconds; `stop` ends the wait.
    Sleep(u64),
    /// Waits for a message of the operator.
    WaitMessage(WaitMessage),
    /// Asks the operator and waits for the answer.
    Ask(AskStep),
    /// Answers a message: a `reply`.
    Reply(String),
    /// Tells the operator something now: an `escalation`.
    Escalate(String),
    /// Reports how far it is.
    Progress(ProgressStep),
    /// Reports what it used so far, cumulative.
    Usage(UsageStep),
    /// Reports a tool's start and end, without doing anything.
    Tool(ToolStep),
    /// Ends the script with a result.
    Result(ResultStep),
    /// Ends the script as failed, with a class.
    Fail(FailStep),
    /// The host ends at once with this status and hands over no result.
    Exit(i32),
    /// The host dies by a signal, without a result.
    Crash,
    /// Nothing more happens; the host still answers `ping` and obeys `stop`.
    Hang,
    /// The host does nothing any more: no report, no answer to `ping`, no heed of `stop`.
    Freeze,
    /// Prints a lot.
    Flood(Flood),
    /// Puts this many lines that are no JSON on the pipe.
    Garbage(u32),
    /// Puts this many blank lines on the pipe.
    BlankLines(u32),
    /// Puts one line of this many bytes on the pipe.
    LongLine(u64),
    /// Closes the host's end of the pipe; the script goes on.
    CloseStdout,
    /// From here on `stop` and a polite signal change nothing.
    IgnoreStop,
    /// Starts a command in a session of its own and leaves it behind.
    SpawnBackground(RunCommand),
    /// Steps that depend on the attempt's number.
    OnAttempt(BTreeMap<AttemptGuard, Vec<Step>>),
}

/// A file and a text for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileText {
    /// The file, below the working folder; missing folders are made.
    pub path: String,
    /// The text.
    pub text: String,
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCommand {
    /// Program and arguments; never empty.
    pub argv: Vec<String>,
    /// Whether the script goes on when the command fails; otherwise it ends as `agent_failed`.
    #[serde(default)]
    pub may_fail: bool,
}

/// How to wait for a message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WaitMessage {
    /// Longest wait, milliseconds; then the script goes on. Absent: until the attempt's end.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// File, below the working folder, that the message's text is written to.
    #[serde(default)]
    pub save_to: Option<String>,
    /// Text to go on with (and to save) when no message came in time.
    #[serde(default)]
    pub otherwise: Option<String>,
}

/// A question to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AskStep {
    /// The question.
    pub text: String,
    /// Answers to choose from; empty: free text.
    #[serde(default)]
    pub options: Vec<String>,
    /// File, below the working folder, that the answer is written to.
    #[serde(default)]
    pub save_to: Option<String>,
}

/// How far the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressStep {
    /// What it does now.
    pub text: String,
    /// 0 to 100.
    #[serde(default)]
    pub percent: Option<u8>,
}

/// What the agent used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageStep {
    /// Turns.
    #[serde(default)]
    pub turns: u64,
    /// Tokens.
    #[serde(default)]
    pub tokens: u64,
    /// Micro-dollars.
    #[serde(default)]
    pub cost_micros: u64,
}

/// A tool that the agent says it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolStep {
    /// The tool.
    pub name: String,
    /// What it worked on.
    #[serde(default)]
    pub detail: String,
}

/// A result handed over before the script's last step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultStep {
    /// Whether the work went well; `failed` is of class `agent_failed`.
    pub status: ResultStatus,
    /// A sentence for people.
    #[serde(default)]
    pub summary: String,
    /// A reviewer's word on the work; of nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// A failure with its class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailStep {
    /// The class.
    pub class: Class,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
    /// For `usage_limit`: milliseconds from now to the limit's end.
    #[serde(default)]
    pub reset_in_ms: Option<u64>,
}

/// A lot of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flood {
    /// Where it goes.
    pub to: FloodTo,
    /// How many lines.
    pub lines: u64,
    /// Bytes of each line, without the newline.
    pub line_bytes: u64,
}

/// Where a flood goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloodTo {
    /// The run's stdout log, as a program's output would.
    Log,
    /// The pipe, as one report (`assistant_message`) a line.
    Reports,
}

/// Which attempts a group of guarded steps is for. As a JSON key: the number, or `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AttemptGuard {
    /// The attempt of this number, from 1.
    Number(u32),
    /// Every attempt that no number of the same step names.
    Other,
}

/// A key of `on_attempt` that is neither a number from 1 nor `other`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an attempt's number (1, 2, ...) nor `other`")]
pub struct BadGuard(pub String);

impl std::str::FromStr for AttemptGuard {
    type Err = BadGuard;
    fn from_str(text: &str) -> Result<Self, BadGuard> {
        if text == "other" {
            return Ok(AttemptGuard::Other);
        }
        match text.parse::<u32>() {
            Ok(number) if number > 0 => Ok(AttemptGuard::Number(number)),
            Ok(_) | Err(_) => Err(BadGuard(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for AttemptGuard {
    type Error = BadGuard;
    fn try_from(text: String) -> Result<Self, BadGuard> {
        text.parse()
    }
}

impl From<AttemptGuard> for String {
    fn from(guard: AttemptGuard) -> Self {
        guard.to_string()
    }
}

impl fmt::Display for AttemptGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttemptGuard::Number(number) => write!(f, "{number}"),
            AttemptGuard::Other => f.write_str("other"),
        }
    }
}

impl Script {
    /// The steps of an `on_attempt` that are for this attempt; empty when none are.
    pub fn guarded(groups: &BTreeMap<AttemptGuard, Vec<Step>>, attempt: u32) -> &[Step] {
        let exact = groups.get(&AttemptGuard::Number(attempt));
        let steps = exact.or_else(|| groups.get(&AttemptGuard::Other));
        steps.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One of every step, as the first release wrote it: never edited, only added to.
    const GOLDEN: &str = r#"[
        {"say": "hello"},
        {"write": {"path": "a", "text": "b"}},
        {"append": {"path": "a", "text": "c"}},
        {"run": {"argv": ["true"], "may_fail": true}},
        {"sleep": 5000},
        {"wait_message": {"timeout_ms": 10, "save_to": "m", "otherwise": "o"}},
        {"ask": {"text": "which?", "options": ["x", "y"], "save_to": "a"}},
        {"reply": "yes"},
        {"escalate": "look"},
        {"progress": {"text": "half", "percent": 50}},
        {"usage": {"turns": 1, "tokens": 7, "cost_micros": 9}},
        {"tool": {"name": "grep", "detail": "src"}},
        {"result": {"status": "ok", "summary": "done"}},
        {"fail": {"class": "usage_limit", "message": "full", "reset_in_ms": 1}},
        {"exit": 3},
        "crash",
        "hang",
        "freeze",
        {"flood": {"to": "log", "lines": 2, "line_bytes": 3}},
        {"garbage": 1},
        {"blank_lines": 2},
        {"long_line": 9},
        "close_stdout",
        "ignore_stop",
        {"spawn_background": {"argv": ["sleep", "9"], "may_fail": true}},
        {"on_attempt": {"1": ["crash"], "other": []}}
    ]"#;

    fn read(json: &str) -> Result<Script, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn every_step_is_written_as_the_first_release_wrote_it() {
        let script = read(GOLDEN).unwrap();
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(serde_json::to_value(&script).unwrap(), golden);
    }

    #[test]
    fn what_may_be_left_out_has_its_quiet_value() {
        let script = read(
            r#"[{"run": {"argv": ["x"]}}, {"wait_message": {}}, {"ask": {"text": "?"}},
                {"progress": {"text": "p"}}, {"usage": {}}, {"tool": {"name": "t"}},
                {"result": {"status": "failed"}}, {"fail": {"class": "crash"}}, {"hang": null}]"#,
        );
        let expected = vec![
            Step::Run(RunCommand {
                argv: vec!["x".into()],
                may_fail: false,
            }),
            Step::WaitMessage(WaitMessage::default()),
            Step::Ask(AskStep {
                text: "?".into(),
                ..AskStep::default()
            }),
            Step::Progress(ProgressStep {
                text: "p".into(),
                percent: None,
            }),
            Step::Usage(UsageStep::default()),
            Step::Tool(ToolStep {
                name: "t".into(),
                detail: String::new(),
            }),
            Step::Result(ResultStep {
                status: ResultStatus::Failed,
                summary: String::new(),
                verdict: None,
            }),
            Step::Fail(FailStep {
                class: Class::Crash,
                message: String::new(),
                reset_in_ms: None,
            }),
            Step::Hang,
        ];
        assert_eq!(script.unwrap(), Script(expected));
    }

    #[test]
    fn what_is_no_step_is_refused() {
        for json in [
            r#"{"say": "not a list"}"#,
            r#"[{"sing": "la"}]"#,
            r#"["say"]"#,
            r#"[{"say": "a", "reply": "b"}]"#,
            r#"[{"write": {"path": "a"}}]"#,
            r#"[{"fail": {"class": "bad_luck"}}]"#,
            r#"[{"sleep": -1}]"#,
            r#"[{"on_attempt": {"0": []}}]"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_guard_prefers_its_number_to_other() {
        let groups = BTreeMap::from([
            (AttemptGuard::Number(2), vec![Step::Crash]),
            (AttemptGuard::Other, vec![Step::Hang]),
        ]);
        assert_eq!(Script::guarded(&groups, 2), [Step::Crash]);
        assert_eq!(Script::guarded(&groups, 1), [Step::Hang]);
        assert_eq!(Script::guarded(&BTreeMap::new(), 1), []);
        let first = BTreeMap::from([(AttemptGuard::Number(1), vec![Step::Crash])]);
        assert_eq!(
            Script::guarded(&first, 2),
            [],
            "without `other` the rest is left out"
        );
    }

    #[test]
    fn guards_that_name_no_attempt_are_refused_with_the_rule() {
        for bad in ["0", "-1", "first", "", "1.5", "4294967296"] {
            let error = bad.parse::<AttemptGuard>().unwrap_err();
            assert!(error.to_string().contains("`other`"), "{bad}: {error}");
        }
        let long = "x".repeat(1000).parse::<AttemptGuard>().unwrap_err();
        assert_eq!(long.0.len(), 80, "a refused word is cut");
    }

    /// Any step, guards included.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Step::Say),
            (any::<String>(), any::<String>())
                .prop_map(|(path, text)| Step::Append(FileText { path, text })),
            (prop::collection::vec(any::<String>(), 1..4), any::<bool>())
                .prop_map(|(argv, may_fail)| Step::Run(RunCommand { argv, may_fail })),
            any::<u64>().prop_map(Step::Sleep),
            (any::<Option<u64>>(), any::<Option<String>>()).prop_map(|(timeout_ms, save_to)| {
                Step::WaitMessage(WaitMessage {
                    timeout_ms,
                    save_to,
                    otherwise: None,
                })
            }),
            any::<i32>().prop_map(Step::Exit),
            Just(Step::Crash),
            Just(Step::CloseStdout),
            prop::sample::select(Class::ALL).prop_map(|class| {
                Step::Fail(FailStep {
                    class,
                    message: String::new(),
                    reset_in_ms: None,
                })
            }),
        ];
        let step = leaf.prop_recursive(3, 24, 4, |inner| {
            let guard = prop_oneof![
                Just(AttemptGuard::Other),
                (1u32..).prop_map(AttemptGuard::Number),
            ];
            prop::collection::btree_map(guard, prop::collection::vec(inner, 0..4), 0..3)
                .prop_map(Step::OnAttempt)
        });
        prop::collection::vec(step, 0..6)
    }

    proptest! {
        #[test]
        fn a_script_survives_the_wire(steps in steps()) {
            let script = Script(steps);
            let json = serde_json::to_string(&script).unwrap();
            prop_assert_eq!(read(&json).unwrap(), script);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            drop(read(&text));
        }
    }
}
