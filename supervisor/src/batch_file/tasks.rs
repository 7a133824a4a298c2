//! Tasks as written to tasks as meant: one at a time, so that a large file costs little memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::ids::TaskId;
use serde_json::Value as Json;
use supervisor_core::plan::{AgentKind, Limits, OnQuestion, RetryMode, RetryPolicy, TaskSpec};

use super::agents::{Agents, RUN_AGENT, environment};
use super::decode::{At, FromNode, was_meant};
use super::error::{Place, Sink, SourceId};
use super::files::{FileText, Files};
use super::foreach;
use super::graph::Ids;
use super::low::{
    Common, DependencyLow, DependsOn, QuestionWord, TaskLimitKeys, TaskLow, VerifyItem,
};
use super::names;
use super::preview::{Preview, Sight};
use super::scalars::{Any, Named, Text};
use super::script::{ScriptLow, read_script};
use super::template::is_template;
use super::tree::{Node, Style, parse, parse_shifted, shown};
use super::work::{Act, TaskWork, TextRef, VerifyWork};

/// Most tasks of a batch.
pub(super) const TASKS_MAX: usize = 1_000_000;

// Built-in values, as interface and manual state them.
const ATTEMPTS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
const SILENCE: Duration = Duration::from_secs(20 * 60);
const NO_PROGRESS: Duration = Duration::from_secs(60 * 60);
const QUESTION_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
const BACKOFF_MIN: Duration = Duration::from_secs(30);
const BACKOFF_MAX: Duration = Duration::from_secs(10 * 60);
const VERIFY_TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// What tasks of one entry of the file share.
#[derive(Debug)]
pub(super) struct SpecDraft {
    /// What the core needs.
    pub(super) spec: Arc<TaskSpec>,
    /// What must come first, as written.
    pub(super) depends: Vec<DependencyLow>,
    /// Its texts that are templates.
    pub(super) texts: Vec<Text>,
    /// Its agent's name.
    pub(super) agent: String,
    /// Its own variables; kept only where templates need them.
    pub(super) vars: BTreeMap<String, Json>,
    /// Its tasks.
    pub(super) tasks: Range<u32>,
}

/// One task.
#[derive(Debug)]
pub(super) struct TaskDraft {
    /// Its id.
    pub(super) id: TaskId,
    /// Where its id stands.
    pub(super) place: Place,
    /// Which spec.
    pub(super) spec: u32,
    /// Its item as JSON text.
    pub(super) item: Option<Arc<str>>,
    /// Its globs of files.
    pub(super) touches: Arc<[Arc<str>]>,
    /// What must come first, where that differs from item to item.
    pub(super) depends: Option<Vec<DependencyLow>>,
}

/// Collects tasks.
pub(super) struct TaskReader<'r> {
    /// What every task takes over.
    pub(super) defaults: Common,
    /// The working folder.
    pub(super) folder: &'r Path,
    /// Agents by name.
    pub(super) agents: &'r mut Agents,
    /// Files read so far.
    pub(super) files: &'r mut Files,
    /// Templates.
    pub(super) preview: &'r mut Preview,
    /// Where mistakes go.
    pub(super) sink: &'r mut Sink,
    /// Ids so far.
    pub(super) ids: Ids,
    /// Specs so far.
    pub(super) specs: Vec<SpecDraft>,
    /// Tasks so far.
    pub(super) tasks: Vec<TaskDraft>,
    /// Texts that tasks share.
    pub(super) texts: Vec<String>,
    shared: HashMap<SourceId, u32>,
    scripts: HashMap<Place, Option<ScriptLow>>,
    no_touches: Arc<[Arc<str>]>,
}

impl<'r> TaskReader<'r> {
    pub(super) fn new(
        defaults: Common,
        folder: &'r Path,
        agents: &'r mut Agents,
        files: &'r mut Files,
        preview: &'r mut Preview,
        sink: &'r mut Sink,
    ) -> Self {
        Self {
            defaults,
            folder,
            agents,
            files,
            preview,
            sink,
            ids: Ids::default(),
            specs: Vec::new(),
            tasks: Vec::new(),
            texts: Vec::new(),
            shared: HashMap::new(),
            scripts: HashMap::new(),
            no_touches: Arc::from([]),
        }
    }

    /// Reads one entry of `tasks`.
    pub(super) fn add(&mut self, node: &Node<'_>) {
        let Some(task) = TaskLow::from_node(node, self.sink) else {
            return;
        };
        let common = task.common.over(&self.defaults);
        let depends = self.depends(task.own.depends_on, task.own.needs);
        let mut texts = Vec::new();
        let own_vars = variables(common.vars.as_ref(), self.sink);
        let (spec, agent) = self.spec(&common, &own_vars, &mut texts, node.place);
        texts.retain(|text| is_template(&text.text));
        let number = u32::try_from(self.specs.len()).unwrap_or(u32::MAX);
        let first = self.tasks.len();
        let wrong = [task.own.wrong.as_slice(), &common.wrong].concat();
        let Some(id) = task.own.id else {
            if was_meant(&wrong, "id") {
                return;
            }
            self.sink
                .report(node.place, "a task without `id`", "add `id: some-name`");
            return;
        };
        let items = match &task.own.foreach {
            None => vec![None],
            Some(foreach) => {
                if !is_template(&id.value.text) {
                    let help = "write a template that tells items apart: \"x-{{ item | slug }}\"";
                    self.sink
                        .report(id.place, "one id for all items of a `foreach`", help);
                    return;
                }
                let items = foreach::items(foreach, self.folder, self.files, self.sink);
                let Some(items) = items else {
                    return;
                };
                items.into_iter().map(Some).collect()
            }
        };
        let entry = Entry {
            id: &id.value,
            common: &common,
            depends: &depends,
            vars: &own_vars,
        };
        for item in &items {
            self.task(&entry, item.as_ref(), number);
        }
        let range = index(first)..index(self.tasks.len());
        let vars = if texts.is_empty() {
            BTreeMap::new()
        } else {
            own_vars
        };
        self.specs.push(SpecDraft {
            spec,
            depends,
            texts,
            agent,
            vars,
            tasks: range,
        });
    }

    fn depends(
        &mut self,
        depends_on: Option<At<DependsOn>>,
        needs: Option<At<DependsOn>>,
    ) -> Vec<DependencyLow> {
        if let (Some(_), Some(needs)) = (&depends_on, &needs) {
            let help = "`needs` is another name for `depends_on`: keep one of the two";
            self.sink
                .report(needs.key, "both `depends_on` and `needs`", help);
        }
        depends_on
            .or(needs)
            .map_or_else(Vec::new, |lines| lines.value.0)
    }

    fn task(&mut self, entry: &Entry<'_>, item: Option<&Json>, spec: u32) {
        if self.tasks.len() >= TASKS_MAX {
            let message = format!("more than {TASKS_MAX} tasks");
            self.sink.report(entry.id.place, message, "split the batch");
            return;
        }
        let vars = entry.vars;
        let mut sight = Sight {
            task: None,
            item,
            vars,
            deps: &[],
        };
        let text = if is_template(&entry.id.text) {
            let context = self.preview.context(sight);
            match self.preview.fill(entry.id, &context, item, self.sink) {
                Some(text) => text,
                None => return,
            }
        } else {
            entry.id.text.clone()
        };
        let Some(id) = self.id(&text, entry.id, item) else {
            return;
        };
        sight.task = Some(&id);
        let touches = self.touches(entry.common, sight);
        let depends = self.templated(entry.depends, sight);
        let item = item.map(foreach::item_text);
        let place = entry.id.place;
        self.tasks.push(TaskDraft {
            id,
            place,
            spec,
            item,
            touches,
            depends,
        });
    }

    fn id(&mut self, text: &str, written: &Text, item: Option<&Json>) -> Option<TaskId> {
        let of_item = || {
            item.map_or(String::new(), |item| {
                format!(" (item {})", shown(&item.to_string()))
            })
        };
        let id: TaskId = match text.parse() {
            Ok(id) => id,
            Err(error) => {
                let error: protocol::ids::BadId = error;
                let message = format!("`{}` is not a task id{}", shown(text), of_item());
                let rule = error.rule;
                let help = if item.is_some() {
                    format!("use {rule}; the filter `slug` makes a text fit")
                } else {
                    format!("use {rule}")
                };
                self.sink.report(written.place, message, help);
                return None;
            }
        };
        if let Err(first) = self.ids.add(&id) {
            let first = self.tasks.get(first as usize).map(|task| task.place);
            let line = first.map_or(0, |place| place.line);
            if item.is_some() && first == Some(written.place) {
                let message = format!("two items make the same id `{id}`{}", of_item());
                let help = "use more of the item in the id, or remove the repeated item";
                self.sink.report(written.place, message, help);
            } else {
                let message = format!("the id `{id}` is already taken");
                let help = format!("the first is at line {line}: give this task another id");
                self.sink.report(written.place, message, help);
            }
            return None;
        }
        Some(id)
    }

    fn touches(&mut self, common: &Common, sight: Sight<'_>) -> Arc<[Arc<str>]> {
        let Some(touches) = &common.touches else {
            return Arc::clone(&self.no_touches);
        };
        let globs = &touches.value.0;
        let varies = globs.iter().any(|glob| is_template(&glob.value.text));
        let context = if varies {
            self.preview.context(sight)
        } else {
            tera::Context::new()
        };
        let mut filled = Vec::with_capacity(globs.len());
        for glob in globs {
            let Some(text) = self
                .preview
                .fill(&glob.value, &context, sight.item, self.sink)
            else {
                continue;
            };
            if let Err(error) = globset::Glob::new(&text) {
                let message = format!("`{}` is not a glob: {}", shown(&text), error.kind());
                self.sink
                    .report(glob.place, message, "for example `src/parser/**`");
            }
            filled.push(Arc::from(text));
        }
        filled.into()
    }

    /// The dependencies of one item, where they are templates.
    fn templated(
        &mut self,
        lines: &[DependencyLow],
        sight: Sight<'_>,
    ) -> Option<Vec<DependencyLow>> {
        if !lines.iter().any(|line| is_template(&line.text)) {
            return None;
        }
        let context = self.preview.context(sight);
        let mut filled = Vec::with_capacity(lines.len());
        for line in lines {
            let text = Text {
                text: line.text.clone(),
                place: line.place,
                style: Style::Quoted,
            };
            let text = self.preview.fill(&text, &context, sight.item, self.sink);
            filled.extend(text.map(|text| DependencyLow {
                text,
                ..line.clone()
            }));
        }
        Some(filled)
    }

    fn spec(
        &mut self,
        common: &Common,
        vars: &BTreeMap<String, Json>,
        texts: &mut Vec<Text>,
        place: Place,
    ) -> (Arc<TaskSpec>, String) {
        let (act, agent, kind) = self.act(common, texts, place);
        let verify = self.verify(common, texts);
        let env = environment(common.env.as_ref(), texts, self.sink);
        let shared = match &act {
            Act::Prompt(TextRef::Shared(number)) => self.texts.get(*number as usize),
            _ => None,
        };
        let shared = shared.is_some_and(|text| is_template(text) && self.preview.reads_deps(text));
        let mut own = texts.iter().filter(|text| is_template(&text.text));
        let reads_deps = shared || own.any(|text| self.preview.reads_deps(&text.text));
        let work = TaskWork {
            act,
            verify,
            env,
            env_from: names::env_names(common.env_from.as_ref(), self.sink),
            vars: vars.clone(),
            reads_deps,
        };
        let length = |key: &Option<At<super::scalars::Length>>, default| {
            key.as_ref().map_or(default, |key| key.value.0)
        };
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
            retry: retry(common),
            limits: self.limits(common.limits.as_ref(), kind, &agent),
            not_before: common.not_before.as_ref().map(|key| key.value.0),
            on_question: self.on_question(common, place),
            question_timeout: length(&common.question_timeout, QUESTION_TIMEOUT),
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
            && prompt.value.text.trim().is_empty()
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
            texts.push(prompt.value.clone());
            return Act::Prompt(TextRef::Inline(prompt.value.text.clone()));
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
            (Some(prompt), _) => prompt.value.clone(),
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

    fn verify(&mut self, common: &Common, texts: &mut Vec<Text>) -> Vec<VerifyWork> {
        let mut commands = Vec::new();
        for VerifyItem(keys) in common
            .verify
            .iter()
            .flat_map(|list| &list.value.0)
            .map(|item| &item.value)
        {
            let Some(run) = &keys.run else {
                continue;
            };
            texts.extend_from_slice(run.value.texts());
            let timeout = keys.timeout.as_ref().map(|length| length.value.millis());
            commands.push(VerifyWork {
                argv: run.value.argv(),
                timeout_ms: timeout.unwrap_or(VERIFY_TIMEOUT_MS),
                env: environment(keys.env.as_ref(), texts, self.sink),
            });
        }
        commands
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
        if kind == Some(AgentKind::Command) && keys.enforce.is_none() {
            let reported = [
                keys.turns.as_ref().map(|key| (key.key, "turns")),
                keys.tokens.as_ref().map(|key| (key.key, "tokens")),
                keys.cost_usd.as_ref().map(|key| (key.key, "cost_usd")),
            ];
            for (place, name) in reported.into_iter().flatten() {
                let message = format!("the agent `{agent}` (kind command) can not report {name}");
                let help = "add `enforce: best_effort` to the limits, or remove this one";
                self.sink.report(place, message, help);
            }
        }
        Limits {
            turns: keys.turns.as_ref().map(|key| key.value.0),
            tokens: keys.tokens.as_ref().map(|key| key.value.0),
            cost_micros: keys.cost_usd.as_ref().map(|key| key.value.0),
            wall: None,
        }
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

/// One entry of `tasks`, while its items become tasks.
struct Entry<'e> {
    id: &'e Text,
    common: &'e Common,
    depends: &'e [DependencyLow],
    vars: &'e BTreeMap<String, Json>,
}

/// Whether one of these keys stands there, but wrong.
fn was_any_meant(common: &Common, keys: &[&str]) -> bool {
    keys.iter().any(|key| was_meant(&common.wrong, key))
}

fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
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

/// A `vars` map; its names are checked.
pub(super) fn variables(vars: Option<&At<Named<Any>>>, sink: &mut Sink) -> BTreeMap<String, Json> {
    let mut values = BTreeMap::new();
    for (name, value) in vars.iter().flat_map(|vars| &vars.value.0) {
        names::check_variable(name, value.key, sink);
        values.insert(name.clone(), value.value.0.clone());
    }
    values
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
