//! The script of a scripted agent as it is written in YAML, and its way to the form on the wire.

use std::borrow::Cow;
use std::collections::BTreeMap;

use protocol::class::Class;
use protocol::report::ResultStatus;
use protocol::script::{
    AskStep, AttemptGuard, FailStep, FileText, Flood, FloodTo, NESTING_MAX, ProgressStep,
    ResultStep, RunCommand, STEPS_MAX, Script, Step, ToolStep, UsageStep, WaitMessage,
};
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
pub(super) struct ClassName(Class);

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

/// A script with the texts in it that may be templates.
#[derive(Debug, Clone, Default)]
pub(super) struct ScriptLow {
    /// The script in its form on the wire.
    pub(super) script: Script,
    /// Its texts, with their places.
    pub(super) texts: Vec<Text>,
}

/// Where an agent's script is.
#[derive(Debug, Clone)]
pub(super) enum ScriptSource {
    /// In the batch file.
    Steps(ScriptLow),
    /// In a file of its own.
    File(Text),
}

impl JsonSchema for ScriptSource {
    fn schema_name() -> Cow<'static, str> {
        "Script".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let steps = generator.subschema_for::<List<StepItem>>();
        json_schema!({"anyOf": [steps, {"type": "string"}]})
    }
}

impl FromNode for ScriptSource {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        match node.view() {
            View::List(_) => read_script(node, sink).map(ScriptSource::Steps),
            View::Scalar(_) | View::Map(_) | View::Broken => {
                Text::from_node(node, sink).map(ScriptSource::File)
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
pub(super) struct StepItem(Box<StepKeys>);

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

/// Reads a script: a list of steps.
pub(super) fn read_script(node: &Node<'_>, sink: &mut Sink) -> Option<ScriptLow> {
    if !matches!(node.view(), View::List(_) | View::Broken) {
        let help = "write a list of steps: `- say: \"hello\"`, each on a line of its own";
        wrong_type(node, "a script (a list of steps)", help, sink);
        return None;
    }
    let before = sink.count();
    let items = List::<StepItem>::from_node(node, sink)?.0;
    let mut reading = Reading {
        low: ScriptLow::default(),
        steps: 0,
        sink,
    };
    let steps = items
        .into_iter()
        .filter_map(|item| reading.item(item, 0))
        .collect();
    let Reading {
        mut low,
        steps: count,
        sink,
    } = reading;
    if count > STEPS_MAX {
        let message = format!("a script of {count} steps; at most {STEPS_MAX} are allowed");
        sink.report(node.place, message, "use `run` with a program of your own");
    }
    low.script = Script(steps);
    (sink.count() == before).then_some(low)
}

struct Reading<'s> {
    low: ScriptLow,
    steps: usize,
    sink: &'s mut Sink,
}

type Groups = Named<ListOrNone<StepItem>>;

impl Reading<'_> {
    fn item(&mut self, item: At<StepItem>, depth: usize) -> Option<Step> {
        self.steps += 1;
        let mut keys = *item.value.0;
        if let Some(groups) = keys.on_attempt.take() {
            return self.guards(groups, depth);
        }
        self.step(keys, item.place)
    }

    fn guards(&mut self, groups: At<Groups>, depth: usize) -> Option<Step> {
        if depth >= NESTING_MAX {
            let message = format!("guards nested deeper than {NESTING_MAX}");
            self.sink
                .report(groups.key, message, "write the attempts side by side");
            return None;
        }
        let mut guarded = BTreeMap::new();
        for (name, steps) in groups.value.0 {
            let Ok(guard) = name.parse::<AttemptGuard>() else {
                let message = format!("`{}` is not an attempt's number", shown(&name));
                self.sink
                    .report(steps.key, message, "write `1`, `2`, ... or `other`");
                continue;
            };
            let items = steps.value.0.into_iter();
            let steps = items
                .filter_map(|item| self.item(item, depth + 1))
                .collect();
            guarded.insert(guard, steps);
        }
        Some(Step::OnAttempt(guarded))
    }

    fn text(&mut self, text: Text) -> String {
        let copy = text.text.clone();
        self.low.texts.push(text);
        copy
    }

    fn optional(&mut self, text: Option<At<Text>>) -> Option<String> {
        text.map(|text| self.text(text.value))
    }

    /// A text that the step can not do without.
    fn needed(&mut self, text: Option<At<Text>>, key: &str, place: Place) -> Option<String> {
        if text.is_none() {
            let message = format!("a step without `{key}`");
            self.sink
                .report(place, message, format!("add `{key}: ...`"));
        }
        self.optional(text)
    }

    fn argv(&mut self, command: &CommandLine) -> Vec<String> {
        self.low.texts.extend_from_slice(command.texts());
        command.argv()
    }

    fn step(&mut self, keys: StepKeys, place: Place) -> Option<Step> {
        if let Some(step) = self.hostile(&keys) {
            return Some(step);
        }
        Some(match keys {
            StepKeys {
                say: Some(text), ..
            } => Step::Say(self.text(text.value)),
            StepKeys {
                reply: Some(text), ..
            } => Step::Reply(self.text(text.value)),
            StepKeys {
                escalate: Some(text),
                ..
            } => Step::Escalate(self.text(text.value)),
            StepKeys {
                write: Some(file), ..
            } => Step::Write(self.file(file.value, place)?),
            StepKeys {
                append: Some(file), ..
            } => Step::Append(self.file(file.value, place)?),
            StepKeys { run: Some(run), .. } => Step::Run(self.run(run.value, place)?),
            StepKeys {
                sleep: Some(length),
                ..
            } => Step::Sleep(length.value.millis()),
            StepKeys {
                wait_message: Some(wait),
                ..
            } => self.wait(wait.value),
            StepKeys { ask: Some(ask), .. } => self.ask(ask.value, place)?,
            StepKeys {
                progress: Some(progress),
                ..
            } => self.progress(progress.value, place)?,
            StepKeys {
                usage: Some(usage), ..
            } => usage_step(&usage.value),
            StepKeys {
                tool: Some(tool), ..
            } => self.tool(tool.value, place)?,
            StepKeys {
                result: Some(result),
                ..
            } => self.result(result.value, place)?,
            StepKeys {
                fail: Some(fail), ..
            } => self.fail(fail.value, place)?,
            // Its value was wrong and is reported.
            _ => return None,
        })
    }

    /// Steps that misbehave.
    fn hostile(&mut self, keys: &StepKeys) -> Option<Step> {
        let lines = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
        Some(match keys {
            StepKeys {
                exit: Some(code), ..
            } => Step::Exit(i32::try_from(code.value.0).unwrap_or(0)),
            StepKeys { crash: Some(_), .. } => Step::Crash,
            StepKeys { hang: Some(_), .. } => Step::Hang,
            StepKeys {
                freeze: Some(_), ..
            } => Step::Freeze,
            StepKeys {
                close_stdout: Some(_),
                ..
            } => Step::CloseStdout,
            StepKeys {
                ignore_stop: Some(_),
                ..
            } => Step::IgnoreStop,
            StepKeys {
                flood: Some(flood), ..
            } => flood_step(&flood.value),
            StepKeys {
                garbage: Some(count),
                ..
            } => Step::Garbage(lines(count.value.0)),
            StepKeys {
                blank_lines: Some(count),
                ..
            } => Step::BlankLines(lines(count.value.0)),
            StepKeys {
                long_line: Some(bytes),
                ..
            } => Step::LongLine(bytes.value.0),
            StepKeys {
                spawn_background: Some(command),
                ..
            } => {
                let argv = self.argv(&command.value);
                Step::SpawnBackground(RunCommand {
                    argv,
                    may_fail: true,
                })
            }
            _ => return None,
        })
    }

    fn file(&mut self, keys: FileKeys, place: Place) -> Option<FileText> {
        let path = self.needed(keys.path, "path", place);
        let text = self.needed(keys.text, "text", place);
        Some(FileText {
            path: path?,
            text: text?,
        })
    }

    fn run(&mut self, run: Short<CommandLine, RunKeys>, place: Place) -> Option<RunCommand> {
        let keys = match run {
            Short::Short(command) => {
                return Some(RunCommand {
                    argv: self.argv(&command),
                    may_fail: false,
                });
            }
            Short::Long(keys) => keys,
        };
        let Some(command) = keys.command else {
            let help = "add `command: ...`";
            self.sink.report(place, "a step without `command`", help);
            return None;
        };
        let may_fail = keys.may_fail.is_some_and(|value| value.value);
        Some(RunCommand {
            argv: self.argv(&command.value),
            may_fail,
        })
    }

    fn wait(&mut self, wait: Short<Length, WaitKeys>) -> Step {
        let keys = match wait {
            Short::Short(length) => {
                let timeout_ms = Some(length.millis());
                return Step::WaitMessage(WaitMessage {
                    timeout_ms,
                    ..WaitMessage::default()
                });
            }
            Short::Long(keys) => keys,
        };
        Step::WaitMessage(WaitMessage {
            timeout_ms: keys.timeout.map(|length| length.value.millis()),
            save_to: self.optional(keys.save_to),
            otherwise: self.optional(keys.otherwise),
        })
    }

    fn ask(&mut self, ask: Short<Text, AskKeys>, place: Place) -> Option<Step> {
        let keys = match ask {
            Short::Short(text) => {
                let text = self.text(text);
                return Some(Step::Ask(AskStep {
                    text,
                    ..AskStep::default()
                }));
            }
            Short::Long(keys) => keys,
        };
        let options = keys.options.map_or_else(Vec::new, |list| list.value.0);
        Some(Step::Ask(AskStep {
            text: self.needed(keys.text, "text", place)?,
            options: options
                .into_iter()
                .map(|option| self.text(option.value))
                .collect(),
            save_to: self.optional(keys.save_to),
        }))
    }

    fn progress(&mut self, value: Short<Text, ProgressKeys>, place: Place) -> Option<Step> {
        let (text, percent) = match value {
            Short::Short(text) => (self.text(text), None),
            Short::Long(keys) => (self.needed(keys.text, "text", place)?, keys.percent),
        };
        let percent = percent.and_then(|percent| u8::try_from(percent.value.0).ok());
        Some(Step::Progress(ProgressStep { text, percent }))
    }

    fn tool(&mut self, value: Short<Text, ToolKeys>, place: Place) -> Option<Step> {
        let (name, detail) = match value {
            Short::Short(name) => (self.text(name), None),
            Short::Long(keys) => (self.needed(keys.name, "name", place)?, keys.detail),
        };
        let detail = self.optional(detail).unwrap_or_default();
        Some(Step::Tool(ToolStep { name, detail }))
    }

    fn result(&mut self, value: Short<StatusWord, ResultKeys>, place: Place) -> Option<Step> {
        let (status, summary) = match value {
            Short::Short(status) => (Some(status), None),
            Short::Long(keys) => (keys.status.map(|status| status.value), keys.summary),
        };
        let Some(status) = status else {
            self.sink
                .report(place, "a step without `status`", "add `status: ok`");
            return None;
        };
        let status = match status {
            StatusWord::Ok => ResultStatus::Ok,
            StatusWord::Failed => ResultStatus::Failed,
        };
        let summary = self.optional(summary).unwrap_or_default();
        Some(Step::Result(ResultStep { status, summary }))
    }

    fn fail(&mut self, value: Short<ClassName, FailKeys>, place: Place) -> Option<Step> {
        let (class, message, reset_in) = match value {
            Short::Short(class) => (Some(class), None, None),
            Short::Long(keys) => (
                keys.class.map(|class| class.value),
                keys.message,
                keys.reset_in,
            ),
        };
        let Some(ClassName(class)) = class else {
            self.sink
                .report(place, "a step without `class`", "add `class: agent_failed`");
            return None;
        };
        Some(Step::Fail(FailStep {
            class,
            message: self.optional(message).unwrap_or_default(),
            reset_in_ms: reset_in.map(|length| length.value.millis()),
        }))
    }
}

fn usage_step(keys: &UsageKeys) -> Step {
    let count = |count: &Option<At<Count>>| count.as_ref().map_or(0, |count| count.value.0);
    Step::Usage(UsageStep {
        turns: count(&keys.turns),
        tokens: count(&keys.tokens),
        cost_micros: keys.cost_usd.as_ref().map_or(0, |dollars| dollars.value.0),
    })
}

fn flood_step(keys: &FloodKeys) -> Step {
    /// A line as a program prints it.
    const LINE_BYTES: u64 = 100;
    let to = match keys.to.as_ref().map(|to| to.value) {
        Some(FloodWord::Reports) => FloodTo::Reports,
        Some(FloodWord::Log) | None => FloodTo::Log,
    };
    Step::Flood(Flood {
        to,
        lines: keys.lines.as_ref().map_or(1, |count| count.value.0),
        line_bytes: keys
            .line_bytes
            .as_ref()
            .map_or(LINE_BYTES, |count| count.value.0),
    })
}
