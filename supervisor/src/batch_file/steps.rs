//! The steps of a script as they are written.

use std::borrow::Cow;

use protocol::class::Class;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::{At, FromNode, Keys, keys, read_keys, words, wrong_type};
use super::error::{Place, Sink, nearest};
use super::scalars::{CommandLine, Count, Dollars, Length, List, ListOrNone, Named, Text, Whole};
use super::tree::{Node, View, shown};

keys! {
    /// One step: a map with exactly one of these keys.
    StepKeys as "a step of a script" {
        /// Says this.
        say: Text,
        /// Writes a file anew.
        write: FileKeys,
        /// Adds to the end of a file.
        append: FileKeys,
        /// Runs a command in the working folder; when it fails, so does the script.
        run: Short<CommandLine, RunKeys>,
        /// Waits this long.
        sleep: Length,
        /// Waits for a message of the operator, at most as long as said.
        wait_message: Short<Length, WaitKeys>,
        /// Asks the operator and waits for the answer.
        ask: Short<Text, AskKeys>,
        /// Answers a message.
        reply: Text,
        /// Tells the operator something now.
        escalate: Text,
        /// Reports how far it is.
        progress: Short<Text, ProgressKeys>,
        /// Reports what it used so far.
        usage: UsageKeys,
        /// Reports a tool's start and end.
        tool: Short<Text, ToolKeys>,
        /// Ends the script with a result.
        result: Short<StatusWord, ResultKeys>,
        /// Ends the script as failed, with an outcome class.
        fail: Short<ClassName, FailKeys>,
        /// The host ends with this status and hands over no result.
        exit: Whole<0, 255>,
        /// The host dies by a signal.
        crash: Bare,
        /// Nothing more happens.
        hang: Bare,
        /// The host does nothing any more and answers nothing.
        freeze: Bare,
        /// Prints a lot.
        flood: FloodKeys,
        /// Puts this many lines that are no JSON on the pipe.
        garbage: Whole<1, 1_000_000>,
        /// Puts this many blank lines on the pipe.
        blank_lines: Whole<1, 1_000_000>,
        /// Puts one line of this many bytes on the pipe.
        long_line: Count,
        /// Closes the host's end of the pipe; the script goes on.
        close_stdout: Bare,
        /// From here on a stop changes nothing.
        ignore_stop: Bare,
        /// Starts a command in a session of its own and leaves it behind.
        spawn_background: CommandLine,
        /// Steps by the attempt's number: `{1: [...], other: [...]}`.
        on_attempt: Named<ListOrNone<StepItem>>,
    }
    later { }
}

keys! {
    /// A file and a text for it.
    FileKeys as "a file step" {
        /// The file, below the working folder.
        path: Text,
        /// The text.
        text: Text,
    }
    later { }
}

keys! {
    /// A command of a script.
    RunKeys as "a run step" {
        /// The command: a text for `sh -c`, or a list of arguments.
        command: CommandLine,
        /// Whether the script goes on when the command fails. Default false.
        may_fail: bool,
    }
    later { }
}

keys! {
    /// How to wait for a message.
    WaitKeys as "a wait_message step" {
        /// Longest wait; then the script goes on. Without it: until the attempt's end.
        timeout: Length,
        /// File that the message is written to.
        save_to: Text,
        /// Text to go on with when no message came in time.
        otherwise: Text,
    }
    later { }
}

keys! {
    /// A question.
    AskKeys as "an ask step" {
        /// The question.
        text: Text,
        /// Answers to choose from.
        options: List<Text>,
        /// File that the answer is written to.
        save_to: Text,
    }
    later { }
}

keys! {
    /// How far the agent is.
    ProgressKeys as "a progress step" {
        /// What it does now.
        text: Text,
        /// 0 to 100.
        percent: Whole<0, 100>,
    }
    later { }
}

keys! {
    /// What the agent used so far.
    UsageKeys as "a usage step" {
        /// Turns.
        turns: Count,
        /// Tokens.
        tokens: Count,
        /// US dollars.
        cost_usd: Dollars,
    }
    later { }
}

keys! {
    /// A tool.
    ToolKeys as "a tool step" {
        /// The tool.
        name: Text,
        /// What it worked on.
        detail: Text,
    }
    later { }
}

keys! {
    /// A result.
    ResultKeys as "a result step" {
        /// Whether the work went well.
        status: StatusWord,
        /// A sentence for people.
        summary: Text,
        /// A reviewer's word on the work.
        verdict: VerdictWord,
    }
    later { }
}

keys! {
    /// A failure.
    FailKeys as "a fail step" {
        /// Its outcome class.
        class: ClassName,
        /// A sentence for people.
        message: Text,
        /// For `usage_limit`: time until the limit ends.
        reset_in: Length,
    }
    later { }
}

keys! {
    /// A lot of output.
    FloodKeys as "a flood step" {
        /// Where it goes. Default `log`.
        to: FloodWord,
        /// How many lines. Default 1.
        lines: Count,
        /// Bytes of each line. Default 100.
        line_bytes: Count,
    }
    later { }
}

words! {
    /// Whether the work went well.
    StatusWord as "a result's status" {
        /// It did.
        Ok = "ok",
        /// It did not.
        Failed = "failed",
    }
    later { }
}

words! {
    /// A reviewer's word on the work.
    VerdictWord as "a verdict" {
        /// It is good.
        Approve = "approve",
        /// It is to be worked over, as the summary says.
        Revise = "revise",
        /// It is not to be taken.
        Reject = "reject",
    }
    later { }
}

words! {
    /// Where a flood goes.
    FloodWord as "a place for a flood" {
        /// The run's log.
        Log = "log",
        /// The pipe, one report a line.
        Reports = "reports",
    }
    later { }
}

/// The value of a step that has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bare;

impl JsonSchema for Bare {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Bare".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"const": null})
    }
}

impl FromNode for Bare {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        if matches!(node.view(), View::Scalar(scalar) if scalar.is_null()) {
            return Some(Self);
        }
        wrong_type(
            node,
            "nothing",
            "this step takes no value: write its name alone",
            sink,
        );
        None
    }
}

/// An outcome class by its word.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClassName(pub(super) Class);

impl JsonSchema for ClassName {
    fn schema_name() -> Cow<'static, str> {
        "Class".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Class::json_schema(generator)
    }
}

impl FromNode for ClassName {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let text = Text::from_node(node, sink)?.text;
        if let Ok(class) = text.parse() {
            return Some(Self(class));
        }
        let help = match nearest(&text, Class::ALL.iter().map(|class| class.word())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "classes are listed in the manual, for example `crash`".to_owned(),
        };
        sink.report(
            node.place,
            format!("`{}` is not an outcome class", shown(&text)),
            help,
        );
        None
    }
}

/// A step's value in its short or its long form.
#[derive(Debug, Clone)]
pub(super) enum Short<S, L> {
    /// One value.
    Short(S),
    /// A map.
    Long(L),
}

impl<S: JsonSchema, L: JsonSchema> JsonSchema for Short<S, L> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("{}Or{}", S::schema_name(), L::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = generator.subschema_for::<S>();
        let long = generator.subschema_for::<L>();
        json_schema!({"anyOf": [short, long]})
    }
}

impl<S: FromNode, L: Keys> FromNode for Short<S, L> {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        match node.view() {
            View::Map(_) => read_keys(node, sink).map(Short::Long),
            View::Scalar(_) | View::List(_) | View::Broken => {
                S::from_node(node, sink).map(Short::Short)
            }
        }
    }
}

/// The keys of steps that may be written as a bare word.
const BARE: &[&str] = &[
    "crash",
    "hang",
    "freeze",
    "close_stdout",
    "ignore_stop",
    "wait_message",
];

/// One step as it stands in a list.
#[derive(Debug, Clone)]
pub(super) struct StepItem(pub(super) Box<StepKeys>);

impl JsonSchema for StepItem {
    fn schema_name() -> Cow<'static, str> {
        "StepItem".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let step = generator.subschema_for::<StepKeys>();
        let one = json_schema!({"allOf": [step], "minProperties": 1, "maxProperties": 1});
        json_schema!({"anyOf": [{"enum": BARE}, one]})
    }
}

impl FromNode for StepItem {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        match node.view() {
            View::Scalar(scalar) => {
                let step = bare_step(&scalar.text, node.place);
                if step.is_none() {
                    let help = match nearest(&scalar.text, BARE.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "write a step such as `say: \"hello\"`".to_owned(),
                    };
                    wrong_type(node, "a step (a map with one key)", &help, sink);
                }
                step.map(|step| Self(Box::new(step)))
            }
            View::Map(entries) if entries.len() != 1 => {
                let message = format!("a step with {} keys", entries.len());
                let help = "write each step as an item of its own: one `- key: value` a line";
                sink.report(node.place, message, help);
                None
            }
            View::Map(_) | View::List(_) | View::Broken => {
                read_keys(node, sink).map(|step| Self(Box::new(step)))
            }
        }
    }
}

/// The step that a bare word stands for.
fn bare_step(word: &str, place: Place) -> Option<StepKeys> {
    let bare = Some(At {
        value: Bare,
        key: place,
        place,
    });
    let none = StepKeys::default();
    Some(match word {
        "crash" => StepKeys {
            crash: bare,
            ..none
        },
        "hang" => StepKeys { hang: bare, ..none },
        "freeze" => StepKeys {
            freeze: bare,
            ..none
        },
        "close_stdout" => StepKeys {
            close_stdout: bare,
            ..none
        },
        "ignore_stop" => StepKeys {
            ignore_stop: bare,
            ..none
        },
        "wait_message" => {
            let value = Short::Long(WaitKeys::default());
            StepKeys {
                wait_message: Some(At {
                    value,
                    key: place,
                    place,
                }),
                ..none
            }
        }
        _ => return None,
    })
}
