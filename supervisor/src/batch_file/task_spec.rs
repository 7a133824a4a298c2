//! What the tasks of one entry share: what is to be done, by whom, and under which rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use serde_json::Value as Json;
use supervisor_core::containment::Wish;
use supervisor_core::plan::{AgentKind, Limits, OnQuestion, RetryMode, RetryPolicy, TaskSpec};

use super::about::Prompt;
use super::agents::{RUN_AGENT, environment};
use super::commands::commands;
use super::comment;
use super::decode::{At, was_meant};
use super::error::{Place, Sink};
use super::files::FileText;
use super::low::{Common, TaskLimitKeys};
use super::names;
use super::parse::{parse, parse_shifted};
use super::reports;
use super::repos::Lodging;
use super::scalars::{Length, Text};
use super::script::{ScriptLow, read_script};
use super::tasks::{TaskReader, index};
use super::template::is_template;
use super::tree::Style;
use super::words::QuestionWord;
use super::work::{AboutWork, Act, HooksWork, TaskWork, TextRef};

// Built-in values, as interface and manual state them.
const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
const SILENCE: Duration = Duration::from_secs(20 * 60);
const NO_PROGRESS: Duration = Duration::from_secs(60 * 60);
const QUESTION_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
const BACKOFF_MIN: Duration = Duration::from_secs(30);
const BACKOFF_MAX: Duration = Duration::from_secs(10 * 60);

impl TaskReader<'_> {
    /// The rules of a task, and its agent's name; its texts that may be templates go to `texts`.
    pub(super) fn spec(
        &mut self,
        common: &Common,
        vars: &BTreeMap<String, Json>,
        texts: &mut Vec<Text>,
        lodging: Lodging,
        place: Place,
    ) -> (Arc<TaskSpec>, String) {
        let (act, agent, kind) = self.act(common, texts, place);
        let verify = commands(common.verify.as_ref(), texts, self.sink);
        let delivery = self.delivery(common, lodging, &act, &agent, texts);
        let env = environment(common.env.as_ref(), texts, self.sink);
        let shared = match &act {
            Act::Prompt(TextRef::Shared(number)) => self.texts.get(*number as usize),
            _ => None,
        };
        let shared = shared.is_some_and(|text| is_template(text) && self.preview.reads_deps(text));
        let own = texts.iter().filter(|text| is_template(&text.text));
        let others = self.agents.texts_of(&agent).iter();
        let others = others.chain(self.repos.texts(lodging));
        let reads_deps = shared
            || self.batch_reads_deps
            || own
                .chain(others)
                .any(|text| self.preview.reads_deps(&text.text));
        let about = about(common, &act);
        let work = TaskWork {
            act,
            verify,
            env,
            env_from: names::env_names(common.env_from.as_ref(), self.sink),
            vars: vars.clone(),
            outputs: delivery.outputs,
            touches_enforce: delivery.touches_enforce,
            review: delivery.review_prompt,
            hooks: match lodging {
                Lodging::Folder => self.repos.hooks.clone(),
                Lodging::Worktree(_) | Lodging::Unclear => HooksWork::default(),
            },
            about,
            reads_deps,
        };
        let length =
            |key: &Option<At<Length>>, default| key.as_ref().map_or(default, |key| key.value.0);
        let containment = match &common.containment {
            Some(word) => Some(word.value.mean()),
            None => self.agents.containment_of(&agent),
        };
        let comments = comment::comments(common, work.about.is_some(), self.sink);
        let spec = TaskSpec {
            agent: self.agents.number(&agent),
            attempts: common
                .attempts
                .as_ref()
                .map_or(ATTEMPTS, |key| key.value.unsigned()),
            timeout: length(&common.timeout, TIMEOUT),
            silence: length(&common.silence, SILENCE),
            no_progress: length(&common.no_progress, NO_PROGRESS),
            priority: priority(common),
            verify: !work.verify.is_empty(),
            worktree: match lodging {
                Lodging::Worktree(number) => Some(number),
                Lodging::Folder | Lodging::Unclear => None,
            },
            changes: delivery.changes,
            review: delivery.review,
            fetch: work.about.is_some(),
            comments,
            hooks: self.repos.hook_flags(lodging),
            retry: retry(common),
            limits: self.limits(common.limits.as_ref(), kind, &agent),
            memory_max: self.memory_max(common.limits.as_ref()),
            not_before: common.not_before.as_ref().map(|key| key.value.0),
            on_question: self.on_question(common, place),
            question_timeout: length(&common.question_timeout, QUESTION_TIMEOUT),
            containment: containment.unwrap_or(Wish::Auto),
            work: names::json_text(&work),
        };
        (Arc::new(spec), agent)
    }

    /// What is to be done, and by which agent of which kind.
    fn act(
        &mut self,
        common: &Common,
        texts: &mut Vec<Text>,
        place: Place,
    ) -> (Act, String, Option<AgentKind>) {
        self.refuse_several_acts(common);
        if let Some(run) = &common.run {
            if let Some(agent) = &common.agent {
                let help = "`run` needs no agent: remove one of the two";
                self.sink.report(agent.key, "both `run` and `agent`", help);
            }
            texts.extend_from_slice(run.value.texts());
            return (Act::Run(run.value.argv()), RUN_AGENT.to_owned(), None);
        }
        let Some(name) = &common.agent else {
            if was_any_meant(common, &["run", "prompt", "prompt_file", "agent"]) {
                return (Act::Nothing, RUN_AGENT.to_owned(), None);
            }
            let (message, help) = if common.has_act() {
                (
                    "a task without an agent",
                    "add `agent: NAME`, here or under `defaults`",
                )
            } else {
                (
                    "a task with nothing to do",
                    "add `run: COMMAND`, or `prompt` and `agent`",
                )
            };
            self.sink.report(place, message, help);
            return (Act::Nothing, RUN_AGENT.to_owned(), None);
        };
        let text = &name.value.text;
        let Some(agent) = self.agents.find(text, name.place, self.sink) else {
            return (Act::Nothing, RUN_AGENT.to_owned(), None);
        };
        let (kind, is_script, needs) = (agent.kind, agent.prompt_is_script, agent.needs_prompt);
        let meant = was_any_meant(common, &["prompt", "prompt_file"]);
        if needs && !common.has_act() && !meant {
            let message = format!("a task for the agent `{text}` without a prompt");
            self.sink
                .report(place, message, "add `prompt: ...` or `prompt_file: PATH`");
        }
        let act = if is_script {
            self.script(common, texts)
        } else {
            self.prompt(common, texts)
        };
        (act, text.clone(), Some(kind))
    }

    fn refuse_several_acts(&mut self, common: &Common) {
        let acts = [
            common.prompt.as_ref().map(|key| (key.key, "prompt")),
            common
                .prompt_file
                .as_ref()
                .map(|key| (key.key, "prompt_file")),
            common.run.as_ref().map(|key| (key.key, "run")),
        ];
        let mut acts = acts.into_iter().flatten();
        if let (Some((_, first)), Some((place, second))) = (acts.next(), acts.next()) {
            let message = format!("both `{first}` and `{second}`");
            self.sink
                .report(place, message, "a task does one thing: keep one of the two");
        }
        if let Some(prompt) = &common.prompt
            && prompt.value.text.text.trim().is_empty()
        {
            self.sink.report(
                prompt.place,
                "the prompt is empty",
                "say what is to be done",
            );
        }
    }

    fn prompt(&mut self, common: &Common, texts: &mut Vec<Text>) -> Act {
        if let Some(prompt) = &common.prompt {
            let Prompt { text, about } = &prompt.value;
            texts.extend(about.as_ref().map(|about| about.reference.clone()));
            if about.as_ref().is_none_or(|about| !about.built_in) {
                texts.push(text.clone());
            }
            return Act::Prompt(TextRef::Inline(text.text.clone()));
        }
        let Some(path) = &common.prompt_file else {
            return Act::Nothing;
        };
        let Some(file) = self
            .files
            .read_named(&path.value.text, path.place, self.sink)
        else {
            return Act::Nothing;
        };
        if is_template(&file.content) {
            texts.push(whole(&file));
        }
        let next = index(self.texts.len());
        let number = *self.shared.entry(file.source).or_insert(next);
        if number == next {
            self.texts.push(file.content.to_string());
        }
        Act::Prompt(TextRef::Shared(number))
    }

    /// The script that a prompt is; the same text is read once.
    fn script(&mut self, common: &Common, texts: &mut Vec<Text>) -> Act {
        let text = match (&common.prompt, &common.prompt_file) {
            (Some(prompt), _) => {
                if prompt.value.about.is_some() {
                    let message = "the agent plays its prompt as a script";
                    let help = "an issue is no script: give the agent a `script`, or take another";
                    self.sink.report(prompt.place, message, help);
                    return Act::Nothing;
                }
                prompt.value.text.clone()
            }
            (None, Some(path)) => {
                match self
                    .files
                    .read_named(&path.value.text, path.place, self.sink)
                {
                    Some(file) => whole(&file),
                    None => return Act::Nothing,
                }
            }
            (None, None) => return Act::Nothing,
        };
        /// Scripts remembered; those of `defaults` and of files are few.
        const KNOWN_MAX: usize = 1_024;
        if self.scripts.len() >= KNOWN_MAX {
            self.scripts.clear();
        }
        let low = match self.scripts.get(&text.place) {
            Some(known) => known.clone(),
            None => {
                let low = script_of(&text, self.sink);
                self.scripts.insert(text.place, low.clone());
                low
            }
        };
        match low {
            Some(low) => {
                texts.extend(low.texts);
                Act::Script(low.script)
            }
            None => Act::Nothing,
        }
    }

    fn limits(
        &mut self,
        limits: Option<&At<TaskLimitKeys>>,
        kind: Option<AgentKind>,
        agent: &str,
    ) -> Limits {
        let Some(limits) = limits else {
            return Limits::default();
        };
        let keys = &limits.value;
        if let Some(kind) = kind.filter(|_| keys.enforce.is_none()) {
            let written = [
                ("turns", keys.turns.as_ref().map(|key| key.key)),
                ("tokens", keys.tokens.as_ref().map(|key| key.key)),
                ("cost_usd", keys.cost_usd.as_ref().map(|key| key.key)),
            ];
            reports::check(std::iter::once((agent, kind)), written, self.sink);
        }
        Limits {
            turns: keys.turns.as_ref().map(|key| key.value.0),
            tokens: keys.tokens.as_ref().map(|key| key.value.0),
            cost_micros: keys.cost_usd.as_ref().map(|key| key.value.0),
            wall: None,
        }
    }

    /// The batch's limit holds for every attempt: a task may only ask for less.
    fn memory_max(&mut self, limits: Option<&At<TaskLimitKeys>>) -> Option<u64> {
        let own = limits.and_then(|limits| limits.value.memory.as_ref());
        if let (Some(own), Some(most)) = (own, self.memory_max)
            && own.value.0 > most
        {
            let message = "this is more than the batch's own `limits.memory` allows";
            let help = "raise `limits.memory` of the batch, or ask for less here";
            self.sink.report(own.place, message, help);
        }
        let own = own.map(|key| key.value.0);
        own.into_iter().chain(self.memory_max).min()
    }

    fn on_question(&mut self, common: &Common, place: Place) -> OnQuestion {
        let text = common
            .question_default
            .as_ref()
            .map(|key| Arc::from(key.value.text.as_str()));
        match (common.on_question.as_ref(), text) {
            (None, None) => OnQuestion::Wait,
            (None, Some(text)) => OnQuestion::WaitThenDefault(text),
            (Some(word), text) => match (word.value, text) {
                (QuestionWord::Wait, None) => OnQuestion::Wait,
                (QuestionWord::Wait, Some(text)) => OnQuestion::WaitThenDefault(text),
                (QuestionWord::Default, Some(text)) => OnQuestion::Default(text),
                (QuestionWord::Default, None) => {
                    let place = if word.place.line > 0 {
                        word.place
                    } else {
                        place
                    };
                    let help = "add `question_default: \"...\"`";
                    self.sink
                        .report(place, "`on_question: default` without an answer", help);
                    OnQuestion::Wait
                }
                (QuestionWord::Fail, _) => OnQuestion::Fail,
            },
        }
    }
}

/// Whether one of these keys stands there, but wrong.
fn was_any_meant(common: &Common, keys: &[&str]) -> bool {
    keys.iter().any(|key| was_meant(&common.wrong, key))
}

/// What its prompt is made of.
fn about(common: &Common, act: &Act) -> Option<AboutWork> {
    let prompt = common
        .prompt
        .as_ref()
        .filter(|_| matches!(act, Act::Prompt(_)))?;
    let about = prompt.value.about.as_ref()?;
    Some(AboutWork {
        kind: about.kind,
        reference: about.reference.text.clone(),
    })
}

fn priority(common: &Common) -> i32 {
    common
        .priority
        .as_ref()
        .map_or(0, |key| i32::try_from(key.value.0).unwrap_or(0))
}

fn retry(common: &Common) -> RetryPolicy {
    let keys = common.retry.as_ref().map(|retry| &retry.value);
    let backoff = keys
        .and_then(|keys| keys.backoff.as_ref())
        .map(|backoff| backoff.value);
    let rules = keys
        .and_then(|keys| keys.by_class.as_ref())
        .map(|rules| &rules.value.0);
    let by_class: BTreeMap<Class, RetryMode> = rules.into_iter().flatten().copied().collect();
    RetryPolicy {
        backoff_min: backoff.map_or(BACKOFF_MIN, |backoff| backoff.min),
        backoff_max: backoff.map_or(BACKOFF_MAX, |backoff| backoff.max),
        by_class,
    }
}

/// A whole file as one text; it stands in its source as a block without indentation.
fn whole(file: &FileText) -> Text {
    let place = Place {
        source: file.source,
        line: 1,
        column: 1,
        length: 1,
    };
    Text {
        text: file.content.to_string(),
        place,
        style: Style::Literal,
    }
}

/// Reads a text as a script. In a block text every mistake is shown where it stands; in a quoted
/// one at the text as a whole.
fn script_of(text: &Text, sink: &mut Sink) -> Option<ScriptLow> {
    let source = text.place.source;
    if text.style == Style::Literal {
        let shift = sink.block_shift(text);
        let node = parse_shifted(&text.text, source, shift, sink)?;
        return read_script(&node, sink);
    }
    let mut inner = Sink::default();
    let number = inner.add_text("the script", text.text.as_str().into());
    let low = parse(&text.text, number, &mut inner).and_then(|node| read_script(&node, &mut inner));
    for problem in inner.into_report().problems {
        let message = format!("in the script: {}", problem.message);
        sink.report(text.place, message, problem.help);
    }
    let mut low = low?;
    for inside in &mut low.texts {
        inside.place = text.place;
        inside.style = Style::Folded;
    }
    Some(low)
}
