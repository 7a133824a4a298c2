//! Templates tried out before anything starts: form, names, and a rendering for every task.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use protocol::forge::ForgeKind;
use protocol::ids::{AttemptNo, BatchId, TaskId};
use serde_json::Value as Json;
use tera::Context;

use super::about::{fields, sample, seen};
use super::error::{Place, Sink, nearest};
use super::render::{DependencyResult, RenderContext, batch_context, build_context};
use super::scalars::Text;
use super::template::{Engine, NAMES, TemplateError, is_template, to_value};
use super::tree::{Style, shown};

/// What stands for the batch id while there is none.
pub(super) const PREVIEW_ID: &str = "preview";

/// Names whose value depends on the task alone: what renders for one item may fail for the next.
const VARYING: &[&str] = &["deps", "item"];

/// Tries templates with the values that are known when the file is read.
#[derive(Debug)]
pub(super) struct Preview {
    engine: Engine,
    batch_name: String,
    vars: BTreeMap<String, Json>,
    /// Top-level names of a template, or what is wrong with its form; by its text.
    names: HashMap<String, Result<Vec<String>, TemplateError>>,
    /// Shared texts that need not be tried again for tasks without variables of their own.
    settled: HashSet<Place>,
    /// Texts that failed: one item is enough to show it.
    failed: HashSet<Place>,
}

/// What a template of one task can see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight<'a> {
    /// The task, once its id is known.
    pub(super) task: Option<&'a TaskId>,
    /// Its item.
    pub(super) item: Option<&'a Json>,
    /// Its variables over those of the batch.
    pub(super) vars: &'a BTreeMap<String, Json>,
    /// Its dependencies, each with what it saves.
    pub(super) deps: &'a [(&'a str, &'a [Arc<str>])],
}

impl Preview {
    pub(super) fn new(batch_name: &str, vars: &BTreeMap<String, Json>) -> Self {
        Self {
            engine: Engine::default(),
            batch_name: batch_name.to_owned(),
            vars: vars.clone(),
            names: HashMap::new(),
            settled: HashSet::new(),
            failed: HashSet::new(),
        }
    }

    /// Whether a text reads `deps`.
    pub(super) fn reads_deps(&mut self, text: &str) -> bool {
        self.names(text)
            .is_ok_and(|names| names.iter().any(|name| name == "deps"))
    }

    /// The context of one task.
    pub(super) fn context(&self, sight: Sight<'_>) -> Context {
        let (Ok(batch), Ok(unnamed)) = (PREVIEW_ID.parse::<BatchId>(), PREVIEW_ID.parse()) else {
            return Context::new();
        };
        let known = RenderContext {
            batch: &batch,
            batch_name: &self.batch_name,
            task: sight.task.unwrap_or(&unnamed),
            attempt: AttemptNo(1),
            item: None,
            slot: 0,
            model: None,
            deps: &BTreeMap::new(),
            own_env: &BTreeMap::new(),
            repo: None,
            about: None,
            hand_off: None,
        };
        let Ok(mut context) = build_context(&self.vars, sight.vars, known) else {
            return Context::new();
        };
        if sight.task.is_none() {
            context.remove("task");
        }
        if let Some(item) = sight.item {
            context.insert_value("item", to_value(item));
        }
        let deps: BTreeMap<&str, DependencyResult> = sight
            .deps
            .iter()
            .map(|(id, outputs)| (*id, unsaved(outputs)))
            .collect();
        context.insert("deps", &deps);
        context
    }

    /// A text that can use what it is about as well, tried out with something that stands for that.
    pub(super) fn try_about(
        &mut self,
        text: &Text,
        kind: ForgeKind,
        context: &Context,
        item: Option<&Json>,
        sink: &mut Sink,
    ) {
        let mut context = context.clone();
        context.insert_value(kind.word(), to_value(&seen(&sample(kind))));
        // The result is of no use yet: only whether there is one.
        drop(self.fill(text, &context, item, sink));
    }

    /// A text that is said once for all tasks, filled in: it can use `batch` and `vars` alone.
    pub(super) fn fill_for_batch(&mut self, text: &Text, sink: &mut Sink) -> Option<String> {
        if !is_template(&text.text) {
            return Some(text.text.clone());
        }
        let id: BatchId = PREVIEW_ID.parse().ok()?;
        let context = batch_context(&self.vars, &id, &self.batch_name);
        self.fill(text, &context, None, sink)
    }

    /// A text filled in; what is wrong is reported at its place, for the first item that shows it.
    pub(super) fn fill(
        &mut self,
        text: &Text,
        context: &Context,
        item: Option<&Json>,
        sink: &mut Sink,
    ) -> Option<String> {
        if !is_template(&text.text) {
            return Some(text.text.clone());
        }
        if self.failed.contains(&text.place) {
            return None;
        }
        if self.names_are_good(text, context, sink) {
            match self.engine.render(&text.text, context) {
                Ok(filled) => return Some(filled),
                Err(mut error) => {
                    let help = self.help(text, &error, context);
                    if let Some(item) = item {
                        let item = shown(&item.to_string());
                        error.message = format!("{} (item {item})", error.message);
                    }
                    report(text, &error, help, sink);
                }
            }
        }
        self.failed.insert(text.place);
        None
    }

    /// Tries a text that many tasks share: once, unless it can differ from task to task.
    pub(super) fn try_shared(
        &mut self,
        text: &Text,
        own_vars: bool,
        context: &Context,
        item: Option<&Json>,
        sink: &mut Sink,
    ) {
        if self.settled.contains(&text.place) && !own_vars {
            return;
        }
        let names = self.names(&text.text).unwrap_or_default();
        let varies = names.iter().any(|name| VARYING.contains(&name.as_str()));
        self.fill(text, context, item, sink);
        if !varies && !own_vars {
            self.settled.insert(text.place);
        }
    }

    /// The names at the top of a template, or why it has none; remembered by text.
    fn names(&mut self, text: &str) -> Result<Vec<String>, TemplateError> {
        /// Texts remembered; a batch with more different templates checks some of them twice.
        const KNOWN_MAX: usize = 1_024;
        if let Some(known) = self.names.get(text) {
            return known.clone();
        }
        if self.names.len() >= KNOWN_MAX {
            self.names.clear();
        }
        let checked = self.engine.check(text);
        self.names.insert(text.to_owned(), checked.clone());
        checked
    }

    fn names_are_good(&mut self, text: &Text, context: &Context, sink: &mut Sink) -> bool {
        let names = match self.names(&text.text) {
            Ok(names) => names,
            Err(error) => {
                let help = if error.message.contains("end of input") {
                    "something is still open: close it with `}}`, `{% endif %}` or `{% endfor %}`"
                } else {
                    "templates are tera: {{ value | filter }}, {% if %}, {% for %}"
                };
                report(text, &error, help.to_owned(), sink);
                return false;
            }
        };
        let mut good = true;
        for name in names.iter().filter(|name| !context.contains_key(name)) {
            good = false;
            let at = position_of(&text.text, name);
            let message = format!(
                "the template names `{}`, which is not known here",
                shown(name)
            );
            let error = TemplateError { message, at };
            report(text, &error, unknown_help(name, &self.vars, context), sink);
        }
        good
    }

    fn help(&self, text: &Text, error: &TemplateError, context: &Context) -> String {
        let expression = expression_at(&text.text, error.at);
        if expression.contains("deps") && expression.contains("outputs") {
            return "`deps[\"id\"].outputs[\"path\"]` is a file that the task `id`, which this one \
                    depends on, names under `outputs`"
                .to_owned();
        }
        if expression.contains("deps") {
            return "`deps[\"id\"].result` is the summary of a task that `depends_on` names"
                .to_owned();
        }
        let about = [ForgeKind::Issue, ForgeKind::Pr].into_iter().find(|kind| {
            let name = kind.word();
            context.contains_key(name) && expression.contains(&format!("{name}."))
        });
        if let Some(kind) = about {
            return format!("there are {}", fields(kind));
        }
        let quoted = error.message.split('`').nth(1).unwrap_or("");
        let last = quoted.rsplit('.').next().unwrap_or(quoted);
        if let Some(near) = nearest(last, self.vars.keys().map(String::as_str))
            && near != last
        {
            return format!("did you mean `vars.{near}`?");
        }
        let known = NAMES.iter().filter(|name| context.contains_key(name));
        let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
        format!("a template here can use {}", known.join(", "))
    }
}

/// The results of a dependency while there are none: every file that it saves has a path.
fn unsaved(outputs: &[Arc<str>]) -> DependencyResult {
    let path = |output: &Arc<str>| (output.to_string(), format!("/outputs/{output}"));
    DependencyResult {
        result: String::new(),
        outputs: outputs.iter().map(path).collect(),
    }
}

fn unknown_help(name: &str, vars: &BTreeMap<String, Json>, context: &Context) -> String {
    if vars.contains_key(name) {
        return format!("variables of the file are written `vars.{name}`");
    }
    if NAMES.contains(&name) && !context.contains_key("slot") {
        return "this is said once for all tasks: it can use `batch` and `vars`".to_owned();
    }
    match name {
        "item" => return "`item` is only there in a task with `foreach`".to_owned(),
        "issue" | "pr" => {
            return format!("`{name}` is only there in the text of `prompt: {{{name}: ...}}`");
        }
        "task" => return "the task's id is not known yet where its id is made".to_owned(),
        _ => {}
    }
    match nearest(name, NAMES.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "known are vars, task, batch, item, slot, deps and handoff".to_owned(),
    }
}

/// The expression at a place of a template; the whole text where there is no place.
fn expression_at(text: &str, at: Option<(usize, usize, usize)>) -> String {
    let Some((line, column, length)) = at else {
        return text.to_owned();
    };
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or("");
    let before: String = line.chars().take(column + length).collect();
    let expression = &line[before.rfind("{{").unwrap_or(0)..];
    let end = expression.find("}}").unwrap_or(expression.len());
    expression[..end].to_owned()
}

/// Where a name is used in a template: line from 1, column from 0, length.
fn position_of(text: &str, name: &str) -> Option<(usize, usize, usize)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices(name) {
            let before = line[..at].chars().next_back();
            let after = line[at + name.len()..].chars().next();
            let inside = line[..at].contains("{{") || line[..at].contains("{%");
            let whole = !before.is_some_and(word) && !after.is_some_and(|c| word(c) && c != '.');
            if inside && whole {
                return Some((index + 1, line[..at].chars().count(), name.chars().count()));
            }
        }
    }
    None
}

fn report(text: &Text, error: &TemplateError, help: String, sink: &mut Sink) {
    let place = sink.place_inside(text, error.at);
    sink.report(place, error.message.clone(), help);
}

impl Sink {
    /// The place of a spot inside a text: exact in block texts and on single lines, else the text's.
    pub(super) fn place_inside(&self, text: &Text, at: Option<(usize, usize, usize)>) -> Place {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let Some((line, column, length)) = at else {
            return text.place;
        };
        // The end of a text may be a line that is not there: its last line is meant.
        let last = text.text.trim_end().lines().count().max(1);
        let (line, column, length) = if line > last {
            let end = text
                .text
                .trim_end()
                .lines()
                .last()
                .map_or(0, |line| line.chars().count());
            (last, end, 1)
        } else {
            (line, column, length)
        };
        match text.style {
            Style::Literal => {
                let shift = self.block_shift(text);
                Place {
                    source: text.place.source,
                    line: shift.line + number(line),
                    column: shift.column + number(column) + 1,
                    length: number(length),
                }
            }
            Style::Plain | Style::Quoted if line == 1 => {
                let quote = u32::from(text.style == Style::Quoted);
                let column = text.place.column + quote + number(column);
                Place {
                    column,
                    length: number(length),
                    ..text.place
                }
            }
            Style::Plain | Style::Quoted | Style::Folded => text.place,
        }
    }
}
