//! A script as it is written in YAML, turned into its form on the wire.

use std::borrow::Cow;
use std::collections::BTreeMap;

use protocol::report::{ResultStatus, Verdict};
use protocol::script::{
    AskStep, AttemptGuard, FailStep, FileText, Flood, FloodTo, NESTING_MAX, ProgressStep,
    ResultStep, RunCommand, STEPS_MAX, Script, Step, ToolStep, UsageStep, WaitMessage,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::{At, FromNode, was_meant, wrong_type};
use super::error::{Place, Sink};
use super::scalars::{CommandLine, Count, Length, List, ListOrNone, Named, Text};
use super::steps::{
    AskKeys, ClassName, FailKeys, FileKeys, FloodKeys, FloodWord, ProgressKeys, ResultKeys,
    RunKeys, Short, StatusWord, StepItem, StepKeys, ToolKeys, UsageKeys, VerdictWord, WaitKeys,
};
use super::tree::{Node, View, shown};

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
    fn needed(
        &mut self,
        text: Option<At<Text>>,
        key: &str,
        wrong: &[String],
        place: Place,
    ) -> Option<String> {
        if text.is_none() && !was_meant(wrong, key) {
            let message = format!("a step without `{key}`");
            self.sink
                .report(place, message, format!("add `{key}: ...`"));
        }
        self.optional(text)
    }

    fn missing(&mut self, key: &str, help: &str, wrong: &[String], place: Place) {
        if !was_meant(wrong, key) {
            self.sink
                .report(place, format!("a step without `{key}`"), help);
        }
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
        let path = self.needed(keys.path, "path", &keys.wrong, place);
        let text = self.needed(keys.text, "text", &keys.wrong, place);
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
            text: self.needed(keys.text, "text", &keys.wrong, place)?,
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
            Short::Long(keys) => (
                self.needed(keys.text, "text", &keys.wrong, place)?,
                keys.percent,
            ),
        };
        let percent = percent.and_then(|percent| u8::try_from(percent.value.0).ok());
        Some(Step::Progress(ProgressStep { text, percent }))
    }

    fn tool(&mut self, value: Short<Text, ToolKeys>, place: Place) -> Option<Step> {
        let (name, detail) = match value {
            Short::Short(name) => (self.text(name), None),
            Short::Long(keys) => (
                self.needed(keys.name, "name", &keys.wrong, place)?,
                keys.detail,
            ),
        };
        let detail = self.optional(detail).unwrap_or_default();
        Some(Step::Tool(ToolStep { name, detail }))
    }

    fn result(&mut self, value: Short<StatusWord, ResultKeys>, place: Place) -> Option<Step> {
        let (status, summary, verdict, wrong) = match value {
            Short::Short(status) => (Some(status), None, None, Vec::new()),
            Short::Long(keys) => (
                keys.status.map(|status| status.value),
                keys.summary,
                keys.verdict.map(|verdict| verdict.value),
                keys.wrong,
            ),
        };
        let Some(status) = status else {
            self.missing("status", "add `status: ok`", &wrong, place);
            return None;
        };
        let status = match status {
            StatusWord::Ok => ResultStatus::Ok,
            StatusWord::Failed => ResultStatus::Failed,
        };
        let summary = self.optional(summary).unwrap_or_default();
        let verdict = verdict.map(|word| match word {
            VerdictWord::Approve => Verdict::Approve,
            VerdictWord::Revise => Verdict::Revise,
            VerdictWord::Reject => Verdict::Reject,
        });
        Some(Step::Result(ResultStep {
            status,
            summary,
            verdict,
        }))
    }

    fn fail(&mut self, value: Short<ClassName, FailKeys>, place: Place) -> Option<Step> {
        let keys = match value {
            Short::Short(value) => FailKeys {
                class: Some(At {
                    value,
                    key: place,
                    place,
                }),
                ..FailKeys::default()
            },
            Short::Long(keys) => keys,
        };
        let Some(class) = keys.class else {
            self.missing("class", "add `class: agent_failed`", &keys.wrong, place);
            return None;
        };
        Some(Step::Fail(FailStep {
            class: class.value.0,
            message: self.optional(keys.message).unwrap_or_default(),
            reset_in_ms: keys.reset_in.map(|length| length.value.millis()),
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
